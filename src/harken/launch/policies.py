"""From a word to what answers prompts: a model's weights, a run of best_of_n or prompting on one, a server, or your own."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.extras import import_extra
from harken.core.files import read_json
from harken.engines.policies import BestOfN, Policy, Prompted, beside, read_policy
from harken.launch.models import parse_model
from harken.launch.rewards import open_reward, parse_reward, same_reward
from harken.text.tags import Control, steering


def open_sampler(model: Any, *, dtype: str = "float32", tokens_per_micro_batch: int = 2048, template: str = "") -> Any:
    """What answers prompts as `model` does: a model's weights, a run of best_of_n or prompting with all it stands on, a server
    of OpenAI's kind, or a Python object with `sample`.

    Samplers of weights have `engine` and `seen(prompt)` (what they are given). Raises `UserError` where the base or the
    reward of such a run is missing or another than the run was made with.
    """
    word = parse_model(model)
    if word.kind == "endpoint":
        return word.open_sampler()
    if word.kind in ("own", "given"):
        return word.open_own()
    options: Any = {"dtype": dtype, "tokens_per_micro_batch": tokens_per_micro_batch}
    word.check()
    if (policy := read_policy(model)) is None:
        sampler = import_extra("harken.engines.sampler").HFSampler(word.open_engine(template=template, **options))
        if control := read_control(model):
            sampler.control = control
            sampler.steer(steering(control))
        return sampler
    reward = reward_of(policy, model) if policy.kind == "best_of_n" else ""
    base = open_sampler(policy.base, template=template, **options)
    policy.check_base(model, base.lineage)
    if day := read_json(Path(model) / "lineage.json").get("template_date"):
        base.engine.template.own_day = base.engine.template.own_day or date.fromisoformat(day)
    if policy.kind == "prompting":
        return Prompted(base, policy.messages, policy.lineage)
    opened = open_reward(reward, aggregate=policy.aggregate, **options)
    return BestOfN(base, opened, policy.n, policy.missing_eos_penalty, policy.lineage)


def read_control(model: Any) -> Control | None:
    """The control tokens that a model's folder or run knows."""
    path = Path(model)
    return Control.read(path / "model" if (path / "model").is_dir() else path)


def reward_of(policy: Policy, run: str) -> str:
    """The reward a run of best_of_n chooses by, as this process can open it. Raises `UserError` if it is missing or changed."""
    spec = parse_reward(policy.reward).renamed(lambda name: beside(Path(run), name))
    reward = parse_reward(spec)
    reward.check()
    if not same_reward(reward.identity(), read_json(Path(run) / "lineage.json").get("reward")):
        raise UserError(f"The reward {spec} is not the one {run} chooses by.", "Restore that reward, or make the run again.")
    return spec
