"""Opens what an evaluation asks for, and runs it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from harken.core.errors import UserError
from harken.core.files import file_hash
from harken.core.protocols import Reward, Sampler
from harken.core.records import Prompt
from harken.core.run import Run
from harken.core.settings import check_settings
from harken.engines.policies import read_policy, weights_of
from harken.launch import models as launch_models
from harken.launch.models import parse_model
from harken.launch.policies import open_sampler, reward_of
from harken.launch.rewards import open_reward, parse_reward, same_reward
from harken.launch.templates import dated


class OpenedModels:
    """What an evaluation's settings name, opened once each (core.protocols.Models). `given` are Python objects by setting."""

    def __init__(self, config: Any, run: Run, given: Mapping[str, Any]) -> None:
        self.config, self.run, self.given = config, run, given
        self.opened: dict[tuple[str, str], Any] = {}

    def _named(self, setting: str) -> Any:
        return self.given.get(setting) or getattr(self.config, setting)

    def _once(self, kind: str, setting: str, opening: Any) -> Any:
        if (kind, setting) not in self.opened:
            self.opened[kind, setting] = opening()
        return self.opened[kind, setting]

    @property
    def _dtype(self) -> str:
        return getattr(self.config, "dtype", "float32")

    def sampler(self, setting: str) -> Sampler:
        sampler: Sampler = self._once("sampler", setting, lambda: open_sampler(self._named(setting), dtype=self._dtype))
        return sampler

    def engine(self, setting: str) -> Any:
        name = self._named(setting)
        if isinstance(name, str) and parse_model(name).kind == "named" and (base := weights_of(name)) != name:
            self.run.note(f"{name} has no weights of its own: those of {base} are measured.")
            name = base
        return self._once("engine", setting, lambda: parse_model(name).open_engine(dtype=self._dtype))

    def reward(self, setting: str) -> Reward:
        aggregate = getattr(self.config, "aggregate", "") if setting in ("judge", "reward") else ""
        reward: Reward = self._once("reward", setting, lambda: open_reward(self._named(setting), dtype=self._dtype,
                                                                           aggregate=aggregate))
        return reward

    def check_context(self, setting: str, prompts: Sequence[Prompt], max_tokens: int) -> None:
        launch_models.check_context(self.sampler(setting), prompts, max_tokens)


def evaluate(name: str, module: ModuleType, config: Any, *, quiet: bool | None = None,
             given: Mapping[str, Any] | None = None) -> Run:
    """Checks all that the settings name, then evaluates; a finished evaluation is left as it is. `given` are Python objects in
    the place of words, by setting."""
    given = given or {}
    check_settings(config)
    lineage: dict[str, Any] = {}
    for option in wanted(config, "file"):
        source = Path(getattr(config, option))
        if not source.is_file():
            raise UserError(f"There is no file {getattr(config, option)!r}.", f"Check --{option.replace('_', '-')}.")
        lineage["data" if option == "prompts" else option] = {"path": str(source), "sha256": file_hash(source)}
    if not config.out:
        raise UserError("No run directory was given.", "Add --out runs/NAME.")
    models = {option: given.get(option) or getattr(config, option) for option in wanted(config, "model", given)}
    for option, model in models.items():
        parse_model(model).check()
        lineage[option] = parse_model(model).identity()
    rewards = {option: given.get(option) or getattr(config, option) for option in wanted(config, "reward", given)}
    for option, reward in rewards.items():
        word = parse_reward(reward)
        word.check()
        lineage[option] = word.identity()
    settings = {"command": f"eval {name}", **dataclasses.asdict(config)}
    with Run.open(config.out, settings, lineage, quiet=quiet) as run, dated(run):
        if run.done:
            run.say(f"{run.path} is finished; nothing to do.")
            return run
        _note_own_judges(models, rewards, lineage, run)
        result = module.evaluate(config, OpenedModels(config, run, given), run)
        about = {option: getattr(config, option) for option in [*models, *rewards]}
        run.finish({"name": name, **about, **result.to_json()})
    return run


def wanted(config: Any, what: str, given: Mapping[str, Any] | None = None) -> list[str]:
    """The settings that name a file, a model or a reward and are required, or given."""
    return [f.name for f in dataclasses.fields(config) if f.metadata.get("names") == what
            and (f.metadata.get("required") or getattr(config, f.name) or f.name in (given or {}))]


def _note_own_judges(models: Mapping[str, Any], rewards: Mapping[str, Any], lineage: Mapping[str, Any], run: Run) -> None:
    """Says where a policy chooses by the reward that judges it."""
    for model in models.values():
        policy = read_policy(model) if isinstance(model, str) and parse_model(model).kind == "named" else None
        if not (policy and policy.reward):
            continue
        own = parse_reward(reward_of(policy, model)).identity()
        if any(same_reward(own, lineage[option]) for option in rewards):
            run.note(f"{model} chooses by the reward that judges here: what it wins is no evidence. Judge by another.")
