"""From a word on the command line to a reward.

    gold                              the sandbox's truth
    runs/rm, runs/cpm                 a finished run of train reward_model or fit compositional
    toxicity, pii, rules:FILE.json    a scorer: a file of harken/rewards with an `open_scorer`, and what stands after the colon
    runs/a,runs/b                     an ensemble's mean; min:runs/a,runs/b its least (WCO); uwo=0.5:runs/a,runs/b (UWO)
    average:runs/a,runs/b             one model with the mean of their weights (WARM)

The folder is the registry of scorers. Their files import nothing heavy; a run of reward_model needs the [train] extra.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harken.rewards
from harken.core.errors import UserError
from harken.core.files import file_hash, read_json
from harken.core.protocols import Reward
from harken.labelers.aggregate import parse_aggregate
from harken.rewards.compositional import FILE, CompositionalReward
from harken.rewards.ensemble import EnsembleReward
from harken.text.panel import Judge, SampledRatings

if TYPE_CHECKING:
    from harken.engines.base import Base

MANY = re.compile(r"(?:(mean|min|average|uwo(?:=(\d+(?:\.\d+)?))?):)?(.*)", re.S)
MODELS = ("bradley_terry", "compositional", "ensemble")


def scorer_names() -> list[str]:
    """The scorers that ship: the files of harken/rewards that are not learnt or made of others."""
    return sorted(m.name for m in pkgutil.iter_modules(harken.rewards.__path__) if m.name not in MODELS)


def open_reward(spec: str, *, dtype: str = "float32", tokens_per_micro_batch: int = 2048, aggregate: str = "",
                on: Base | None = None) -> Reward:
    """The reward a word names; `aggregate` says whose scores count, of a reward model with groups. Reward models whose
    adapters belong to the model `on` which a policy stands share its weights.

    Raises `UserError` where there is none, it cannot be opened, or it has no groups to aggregate.
    """
    locate_reward(spec)
    how = parse_aggregate(aggregate) if aggregate else None
    found = _open(spec, dtype, tokens_per_micro_batch, on)
    if how is not None:
        if not hasattr(found, "use_groups"):
            raise UserError(f"--aggregate {aggregate} needs a reward model with groups; {spec} is none.",
                            "Train one: harken train reward_model --labelers groups --group-by TAG; or leave --aggregate out.")
        found.use_groups(how)
    return found


def _open(spec: str, dtype: str, tokens_per_micro_batch: int, on: Base | None) -> Reward:
    if spec == "gold":
        from harken.sandbox import GoldReward
        return GoldReward()
    options: dict[str, Any] = {"dtype": dtype, "tokens_per_micro_batch": tokens_per_micro_batch}
    if many := _many(spec):
        how, penalty, members = many
        if how == "average":
            return _average(members, options)
        return EnsembleReward({m: open_reward(m, on=on, **options) for m in members}, how, penalty)
    name, _, argument = spec.partition(":")
    if name in scorer_names():
        found: Reward = importlib.import_module(f"harken.rewards.{name}").open_scorer(argument)
        return found
    if _compositional(spec):
        def judge(saved: Mapping[str, Any]) -> tuple[Judge, Any]:
            return open_judge(**saved, **options)
        return CompositionalReward.open(spec, judge, lambda s: open_reward(s, on=on, **options))
    from harken.core.extras import import_extra
    from harken.launch.models import context
    import_extra("harken.engines.hf")
    from harken.rewards.bradley_terry import BradleyTerryReward
    reward = BradleyTerryReward.open(spec, on=on, **options)
    reward.max_length = min(reward.max_length, context(reward.engine))
    return reward


def locate_reward(spec: str) -> None:
    """Raises `UserError` for what can be seen to be no reward without loading it."""
    if not spec:
        raise UserError("No reward was given.",
                        "Add --reward (or --judge) runs/rm, a scorer such as toxicity, or gold in the sandbox.")
    if spec == "gold":
        return
    if many := _many(spec):
        how, _, members = many
        if "gold" in members and how == "average":
            raise UserError("gold has no weights to average.", "Name runs of harken train reward_model.")
        for member in members:
            if _many(member):
                raise UserError(f"{member} is an ensemble inside an ensemble.", "Name its members instead.")
            locate_reward(member)
        return
    name = spec.partition(":")[0]
    if name in scorer_names() or _compositional(spec):
        return
    if not Path(spec).is_dir():
        raise UserError(f"There is no reward model at {spec}.",
                        "Train one with harken train reward_model or harken fit compositional, use gold (the sandbox's), "
                        f"or a scorer: {', '.join(scorer_names())}.")
    from harken.core.extras import import_extra
    import_extra("harken.engines.loading").locate_reward(spec)


def reward_identity(spec: str) -> Any:
    """What names a reward in `lineage.json`: weights' hashes of runs, a scorer's id and version."""
    if many := _many(spec):
        return {"how": spec.partition(":")[0] if ":" in spec else "mean", "members": [reward_identity(m) for m in many[2]]}
    folder = Path(spec) / "model"
    if folder.is_dir():
        files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".pt") or p.name == FILE)
        return {"run": spec, "weights": [file_hash(f) for f in files]}
    if spec.partition(":")[0] in scorer_names():
        return getattr(open_reward(spec), "id", spec)
    return spec


def rename_reward(spec: str, change: Callable[[str], str]) -> str:
    """The word with every path and run in it changed; gold and the scorers' names stay."""
    if many := _many(spec):
        members = ",".join(rename_reward(m, change) for m in many[2])
        head = spec.partition(":")[0] + ":" if MANY.fullmatch(spec)[1] else ""  # type: ignore[index]
        return head + members
    name, colon, argument = spec.partition(":")
    if name in scorer_names():
        return name + colon + "=".join(change(part) if part else part for part in argument.split("="))
    return spec if spec == "gold" else change(spec)


def same_reward(a: Any, b: Any) -> bool:
    """Whether two identities are of one reward, wherever its runs now lie."""
    def bare(identity: Any) -> Any:
        if isinstance(identity, Mapping):
            return {k: bare(v) for k, v in identity.items() if k != "run"}
        return [bare(v) for v in identity] if isinstance(identity, list) else identity
    return bool(bare(a) == bare(b))


def open_judge(judge: str, judge_model: str = "", answers: str = "expected", *, dtype: str = "float32",
               tokens_per_micro_batch: int = 2048) -> tuple[Judge, Any]:
    """A model that rates, and what identifies it: weights, or an endpoint's address and model, with how it answers."""
    if judge.startswith(("http://", "https://")):
        from harken.engines.openai import EndpointSampler
        if answers != "sampled":
            raise UserError("An endpoint gives no probabilities of all ten ratings.", "Add --answers sampled.")
        return SampledRatings(EndpointSampler(judge, judge_model)), ["endpoint", judge, judge_model]
    from harken.launch.models import open_engine
    engine = open_engine(judge, dtype=dtype, tokens_per_micro_batch=tokens_per_micro_batch)
    identity = [answers, engine.lineage.get("weights")]
    if answers == "sampled":
        from harken.engines.sampler import HFSampler
        return SampledRatings(HFSampler(engine)), identity
    from harken.engines.ratings import ExpectedRatings
    return ExpectedRatings(engine), identity


def _many(spec: str) -> tuple[str, float, list[str]] | None:
    """(how, penalty, members) of an ensemble or average; None for one reward."""
    found = MANY.fullmatch(spec)
    assert found is not None
    how, penalty, rest = found.groups()
    if how is None and "," not in rest:
        return None
    return (how or "mean").partition("=")[0], float(penalty or 0.5), [m.strip() for m in rest.split(",") if m.strip()]


def _compositional(spec: str) -> bool:
    """Whether it is a finished run of fit compositional. Raises `UserError` for one that has not finished."""
    path = Path(spec)
    if (path / "model" / FILE).is_file():
        return True
    config = path / "config.json"
    if config.is_file() and (path / "lineage.json").is_file() and read_json(config).get("command") == "fit compositional":
        raise UserError(f"The run {spec} has not finished.", "Run its harken fit command again; it continues where it stopped.")
    return False


def _average(members: list[str], options: Mapping[str, Any]) -> Reward:
    from harken.core.extras import import_extra
    from harken.launch.models import context
    import_extra("harken.engines.hf")
    from harken.engines.averaging import average
    from harken.engines.hf import Engine
    from harken.rewards.bradley_terry import BradleyTerryReward
    for member in members:
        if _compositional(member) or not Path(member).is_dir():
            raise UserError(f"{member} has no weights to average.", "Name runs of harken train reward_model, or use an ensemble.")
    engine = Engine(average(members), head="reward", train=False, **options)
    longest = min(int(read_json(Path(m) / "config.json").get("max_length", 1024)) for m in members)
    return BradleyTerryReward(engine, min(longest, context(engine)))
