"""Opens what an evaluation asks for, and runs it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from harken.core.errors import UserError
from harken.core.files import file_hash
from harken.core.protocols import EvalResult, Reward, Sampler
from harken.core.records import Prompt
from harken.core.run import Run
from harken.core.settings import check_settings
from harken.engines.policies import read_policy, weights_of
from harken.launch import models as launch_models
from harken.launch.models import parse_model
from harken.launch.own import READ, check_learner, code_of, learner_of
from harken.launch.policies import open_sampler, reward_of
from harken.launch.rewards import open_reward, parse_reward, same_reward
from harken.launch.templates import dated
from harken.loops import items


class OpenedModels:
    """What an evaluation's settings name (core.protocols.Models). `given` are Python objects by setting; `opened` holds what is
    loaded, by name and precision, so that evaluations of one process load each model once; `store` is their common store."""

    def __init__(self, config: Any, run: Run, given: Mapping[str, Any], opened: dict[Any, Any] | None = None,
                 store: Path | None = None) -> None:
        self.config, self.run, self.given = config, run, given
        self.opened: dict[Any, Any] = {} if opened is None else opened
        self.store = store or run.path / items.NAME

    def _named(self, setting: str) -> Any:
        return self.given.get(setting) or getattr(self.config, setting)

    def _once(self, kind: str, setting: str, opening: Any, *more: Any) -> Any:
        value = self._named(setting)
        key = (kind, value if isinstance(value, str) else id(value), self._dtype, *more)
        if key not in self.opened:
            self.opened[key] = opening()
        return self.opened[key]

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
            return self._once("engine", setting, lambda: parse_model(base).open_engine(dtype=self._dtype))
        word = parse_model(name)
        word.need_weights("this")
        engine = learner_of(self.sampler(setting))
        if word.kind in ("own", "given"):
            check_learner(engine, word.word, "this evaluation", READ)
        return engine

    def stored(self, setting: str) -> items.StoredModel:
        def opening() -> items.StoredModel:
            sampler: Any = self.sampler(setting)
            weights = _weights(self._named(setting), sampler)
            if setting in self.given and "name" in weights:
                weights["setting"] = setting  # two objects of one class have one name
            identity = [weights, self._dtype]
            return items.StoredModel(sampler, self._opened_store(), identity, name=str(getattr(self.config, setting)),
                                     quiet=self.run.quiet)
        stored: items.StoredModel = self._once("stored", setting, opening, self.store)
        return stored

    def _opened_store(self) -> items.Store:
        key = ("store", self.store)
        if key not in self.opened:
            self.opened[key] = items.Store(self.store)
        store: items.Store = self.opened[key]
        return store

    def reward(self, setting: str) -> Reward:
        aggregate = getattr(self.config, "aggregate", "") if setting in ("judge", "reward") else ""
        reward: Reward = self._once("reward", setting, lambda: open_reward(self._named(setting), dtype=self._dtype,
                                                                           aggregate=aggregate), aggregate)
        return reward

    def check_context(self, setting: str, prompts: Sequence[Prompt], max_tokens: int) -> None:
        launch_models.check_context(self.sampler(setting), prompts, max_tokens)

    def close(self) -> None:
        """Lets go of the stores."""
        for key in [k for k in self.opened if k[0] == "store"]:
            self.opened.pop(key).close()


def _weights(model: Any, sampler: Any) -> dict[str, Any]:
    """What names a model's weights in the store: their hashes, wherever they lie; else the model's name (E1)."""
    word = parse_model(model)
    named, lineage = word.identity(), getattr(sampler, "lineage", None) or {}
    own = named["weights"] if isinstance(named, dict) else None
    weights = lineage.get("weights")
    if own or weights:
        return {"own": own, "weights": weights, "base": lineage.get("base_weights")}
    return {"name": word.word, "endpoint": lineage.get("endpoint")}


def evaluate(name: str, module: ModuleType, config: Any, *, quiet: bool | None = None,
             given: Mapping[str, Any] | None = None, opened: dict[Any, Any] | None = None, store: Path | None = None) -> Run:
    """Checks all that the settings name, then evaluates; a finished evaluation is left as it is. `given` are Python objects in
    the place of words, by setting; `opened` and `store` are shared by the evaluations of a suite."""
    given = given or {}
    check_settings(config)
    lineage: dict[str, Any] = code_of(module, "evaluation")
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
        models_opened = OpenedModels(config, run, given, opened, store)
        try:
            result = module.evaluate(config, models_opened, run)
            if not isinstance(result, EvalResult):
                raise UserError(f"{name}.evaluate() gave a {type(result).__name__}.",
                                "It gives a harken.EvalResult, of a value with its interval.")
        finally:
            if store is None:
                models_opened.close()
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
