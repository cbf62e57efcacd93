"""Opens what an evaluation needs, and runs it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

from harken.core.errors import UserError
from harken.core.extras import import_extra
from harken.core.files import file_hash
from harken.core.run import Run
from harken.core.settings import check_settings
from harken.engines.policies import read_policy, weights_of
from harken.launch.models import check_context, model_identity, open_engine
from harken.launch.policies import open_sampler, reward_of
from harken.launch.rewards import locate_reward, open_reward, reward_identity, same_reward


def evaluate(name: str, module: ModuleType, config: Any, *, quiet: bool | None = None) -> Run:
    """Opens the run, the models and the judge; a finished evaluation is left as it is."""
    check_settings(config)
    option = "prompts" if hasattr(config, "prompts") else "data"
    source = Path(getattr(config, option))
    if not source.is_file():
        raise UserError(f"There is no file {getattr(config, option)!r}.", f"Check --{option}.")
    if not config.out:
        raise UserError("No run directory was given.", "Add --out runs/NAME.")
    import_extra("harken.engines.loading")
    from harken.engines.loading import locate
    locate(config.model), locate(config.against)
    lineage = {"data": {"path": str(source), "sha256": file_hash(source)}, "model": model_identity(config.model),
               "against": model_identity(config.against)}
    if hasattr(config, "judge"):
        locate_reward(config.judge)
        lineage["judge"] = reward_identity(config.judge)
    settings = {"command": f"eval {name}", **dataclasses.asdict(config)}
    with Run.open(config.out, settings, lineage, quiet=quiet) as run:
        if run.done:
            run.say(f"{run.path} is finished; nothing to do.")
            return run
        names = (config.model, config.against)
        if name == "capability":
            for policy, base in ((m, weights_of(m)) for m in names if weights_of(m) != m):
                run.note(f"{policy} has no weights of its own: those of {base} are measured.")
            model, against = (open_engine(weights_of(m), dtype=config.dtype) for m in names)
            module.evaluate(config, model, against, run)
            return run
        from harken.store.files import read_prompts
        loaded = read_prompts(config.prompts, skip_bad=config.skip_bad)
        if note := loaded.describe():
            run.note(note)
        model, against = (open_sampler(m, dtype=config.dtype) for m in names)
        for sampler in (model, against):
            check_context(sampler, loaded.records, config.max_tokens)
        for m in names:
            policy = read_policy(m)
            if policy and policy.reward and same_reward(reward_identity(reward_of(policy, m)), lineage["judge"]):
                run.note(f"{m} chooses by the reward that judges here: what it wins is no evidence. Judge by another.")
        judge = open_reward(config.judge, dtype=config.dtype, aggregate=config.aggregate)
        module.evaluate(config, loaded.records, model, against, judge, run)
    return run
