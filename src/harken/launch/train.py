"""Opens the run, builds what a method needs, trains."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from harken.core import processes
from harken.core.config import RunConfig, SampleConfig
from harken.core.errors import UserError
from harken.core.extras import import_extra
from harken.core.files import file_hash, write_json
from harken.core.run import Run
from harken.core.settings import check_settings
from harken.launch.models import context, model_identity, open_learner
from harken.launch.policies import open_sampler
from harken.launch.rewards import locate_reward, open_reward, rename_reward, reward_identity
from harken.stats.drift import parse_rules


def train(method: ModuleType, config: RunConfig, *, quiet: bool | None = None) -> Run:
    """Opens the run, builds what the method needs, trains; a finished run is left as it is. Joins the processes that
    torchrun started, if it did."""
    with together():
        return _open_and_train(method, config, quiet)


def together() -> AbstractContextManager[None]:
    """The other processes of this run, where there are any: torch is not loaded for none."""
    alone = processes.started()[1] == 1
    found: AbstractContextManager[None] = nullcontext() if alone else import_extra("harken.engines.distributed").joined()
    return found


def _open_and_train(method: ModuleType, config: RunConfig, quiet: bool | None) -> Run:
    check_settings(config)
    if not config.data and getattr(method, "needs_data", lambda config: True)(config):
        raise UserError("No data was given.", "Add --data FILE.jsonl.")
    if not config.out:
        raise UserError("No run directory was given.", "Add --out runs/NAME.")
    config = getattr(method, "prepare", lambda config: config)(config)
    name = method.__name__.removeprefix("harken.methods.")
    reward_spec = getattr(config, "reward", None)
    if not reward_spec and not getattr(method, "needs_reward", lambda config: True)(config):
        reward_spec = None
    lineage: dict[str, Any] = {"model": model_identity(config.model)}
    further: dict[str, str] = getattr(method, "files", lambda config: {})(config)
    for option, path in {**{n: getattr(config, n, "") for n in ("data", "demonstrations", "ptx_data")}, **further}.items():
        if path and option == "data" and hasattr(method, "identity"):
            lineage[option] = method.identity(config)
        elif path:
            if not Path(path).is_file():
                raise UserError(f"There is no file {path}.", f"Check --{option.partition(' ')[0].replace('_', '-')}.")
            lineage[option] = {"path": path, "sha256": file_hash(Path(path))}
    import_extra("harken.engines.loading")
    from harken.engines.loading import locate, relative_base
    locate(config.model)
    if teacher := getattr(config, "teacher", ""):
        locate(teacher)
        lineage["teacher"] = model_identity(teacher)
    if reward_spec is not None:
        locate_reward(reward_spec)
        lineage["reward"] = reward_identity(reward_spec)
        check_watch(config, lineage)
    settings = {"command": f"train {name}", "base": relative_base(config.model, Path(config.out)), **dataclasses.asdict(config)}
    if reward_spec and not learns(method):
        settings["reward_base"] = rename_reward(reward_spec, lambda p: relative_base(p, Path(config.out)))
    with Run.open(config.out, settings, lineage, checkpoint_seconds=config.checkpoint_seconds, quiet=quiet) as run:
        if run.done:
            run.say(f"{run.path} is finished; nothing to do.")
            return run
        _train(method, config, run, reward_spec)
    return run


def check_watch(config: Any, lineage: dict[str, Any]) -> None:
    """Refuses stop rules that are none, and a held-out reward that is the one climbed; its identity joins the lineage."""
    held_out = getattr(config, "held_out_reward", "")
    hacking, _ = parse_rules(getattr(config, "stop_when", ""))
    if hacking and not held_out:
        raise UserError("--stop-when hacking compares the reward with one that is not climbed, and there is none.",
                        "Add --held-out-reward RUN: a reward model fitted on other judgments.")
    if getattr(config, "shard", False) and getattr(config, "stop_when", ""):
        raise UserError("--stop-when keeps whole weights to go back to, and --shard has none.", "Leave one of them out.")
    if held_out:
        locate_reward(held_out)
        lineage["held_out_reward"] = reward_identity(held_out)
        if lineage["held_out_reward"] == lineage["reward"]:
            raise UserError("The held-out reward is the reward that is climbed: it would always agree.",
                            "Fit another on other judgments (harken snapshot splits them).")


def _train(method: ModuleType, config: RunConfig, run: Run, reward_spec: str | None) -> None:
    from harken.engines.profile import profiling, table
    from harken.loops.watch import Watch
    options: dict[str, Any] = {"dtype": config.dtype, "tokens_per_micro_batch": config.tokens_per_micro_batch}
    sampler = open_learner(method, config, run) if learns(method) else open_sampler(config.model, **options)
    reward = held_out = None
    base = sampler.engine.shared
    if reward_spec is not None:
        reward = open_reward(reward_spec, aggregate=getattr(config, "aggregate", ""), on=base, **options)
    if spec := getattr(config, "held_out_reward", ""):
        held_out = open_reward(spec, on=base, **options)
    config = dataclasses.replace(config, max_length=min(config.max_length, context(sampler.engine)))
    if isinstance(config, SampleConfig) and learns(method):
        run.watch = Watch(config, sampler.engine, sampler, run, reward, held_out)
    with profiling(getattr(config, "profile", False), sampler.engine.device, sampler.engine.compute) as profile:
        method.train(config, sampler.engine, sampler, reward, run)
    if profile and run.group.rank == 0:
        summary = profile.summary()
        write_json(run.path / "profile.json", summary)
        run.say(table(summary))


def learns(method: ModuleType) -> bool:
    """Whether a method changes weights; one that does not (LEARNS = False) takes any policy as its model."""
    return bool(getattr(method, "LEARNS", True))
