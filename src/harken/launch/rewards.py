"""From a word to a reward: read once, into an object that can be checked, named, identified and opened.

    gold                              the sandbox's truth
    runs/rm, runs/cpm, runs/small_rm  a finished run of train reward_model, fit compositional or fit student
    toxicity, pii, rules:FILE.json    a scorer: a file of harken/rewards with an `open_scorer`, and what stands after the colon
    my_lab.score:fn, my_lab.score     your own: a function, an object with `score`, or a module with `score` or `open_scorer`
    judge:MODEL, http://host/v1       a model that rates answers from 1 to 10 (an endpoint's model after a #)
    runs/a,runs/b                     an ensemble's mean; min:runs/a,runs/b its least (WCO); uwo=0.5:runs/a,runs/b (UWO)
    sum:0.7*runs/a,0.3*my_lab.score:fn     a weighted sum
    average:runs/a,runs/b             one model with the mean of their weights (WARM)

The folder is the registry of scorers. Their files import nothing heavy; a run of reward_model needs the [train] extra.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harken.core.errors import UserError
from harken.core.extras import import_extra
from harken.core.files import file_hash, read_json
from harken.core.find import is_dotted, nearest
from harken.core.protocols import Reward
from harken.labelers.groups.aggregate import parse_aggregate
from harken.launch.judges import JudgedQuality, open_judge
from harken.launch.models import context, model_identity, parse_model
from harken.launch.shipped import open_shipped, scorer_names
from harken.rewards import student
from harken.rewards.compositional import FILE, CompositionalReward
from harken.rewards.ensemble import EnsembleReward, WeightedReward
from harken.rewards.function import FunctionReward, OwnReward, own_reward

if TYPE_CHECKING:
    from harken.engines.base import Base

MANY = re.compile(r"(?:(mean|min|average|sum|uwo(?:=(\d+(?:\.\d+)?))?):)?(.*)", re.S)
__all__ = ["RewardWord", "open_judge", "open_reward", "parse_reward", "same_reward", "scorer_names"]


@dataclass(frozen=True)
class Options:
    """How rewards are opened; those whose adapters belong to the model `on` which a policy stands share its weights."""

    dtype: str = "float32"
    tokens_per_micro_batch: int = 2048
    on: Base | None = None

    @property
    def engine(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "tokens_per_micro_batch": self.tokens_per_micro_batch}


@dataclass(frozen=True)
class RewardWord:
    """What `--reward` said. Each kind below says what it checks, what identifies it, and how it opens."""

    word: str

    def check(self) -> None:
        """Raises `UserError` for what can be seen to be no reward without loading it."""

    def identity(self) -> Any:
        """What names it in `lineage.json`: weights' hashes of runs, a scorer's id and version, a function's source."""
        return self.word

    def renamed(self, change: Callable[[str], str]) -> str:
        """The word with every path and run in it changed; gold, scorers' names and dotted paths stay."""
        return self.word

    def open(self, options: Options) -> Reward:
        raise AssertionError(self)


class Gold(RewardWord):
    def open(self, options: Options) -> Reward:
        from harken.sandbox import GoldReward
        return GoldReward()


@dataclass(frozen=True)
class Scorer(RewardWord):
    name: str
    argument: str

    def identity(self) -> Any:
        return getattr(self.open(Options()), "id", self.word)

    def renamed(self, change: Callable[[str], str]) -> str:
        colon = ":" if ":" in self.word else ""
        return self.name + colon + "=".join(change(part) if part else part for part in self.argument.split("="))

    def open(self, options: Options) -> Reward:
        reward: Reward = open_shipped(self.name, self.argument, self.word)
        return reward


class Own(RewardWord):
    """A function, an object or a module of yours, by its dotted path."""

    def check(self) -> None:
        own_reward(self.word)

    def identity(self) -> Any:
        return own_reward(self.word).identity

    def open(self, options: Options) -> Reward:
        return own_reward(self.word).open()


@dataclass(frozen=True)
class Given(RewardWord):
    """A Python object: a reward or a function."""

    reward: Any = dataclasses.field(compare=False)

    def identity(self) -> Any:
        return FunctionReward.identity_of(self.reward)

    def open(self, options: Options) -> Reward:
        return OwnReward(FunctionReward.name_of(self.reward), self.reward).open()


class Judging(RewardWord):
    """A model that rates."""

    @property
    def model(self) -> str:
        return self.word.removeprefix("judge:")

    def check(self) -> None:
        parse_model(self.model).check()

    def identity(self) -> Any:
        return {"judge": model_identity(self.model)}

    def renamed(self, change: Callable[[str], str]) -> str:
        return self.word if "://" in self.word else f"judge:{change(self.model)}"

    def open(self, options: Options) -> Reward:
        return JudgedQuality.open(self.model, **options.engine)


@dataclass(frozen=True)
class FittedRun(RewardWord):
    """A run whose reward was learnt: of attributes (compositional), or a model with a reward head."""

    compositional: bool

    def check(self) -> None:
        if not self.compositional:
            if not Path(self.word).is_dir():
                near = nearest(self.word, scorer_names())
                raise UserError(f"There is no reward model at {self.word}.{near}",
                                "Train one with harken train reward_model or harken fit compositional, use gold (the sandbox's), "
                                f"a scorer ({', '.join(scorer_names())}), or your own function (my_lab.score:fn).")
            import_extra("harken.engines.places").locate_reward(self.word)

    def identity(self) -> Any:
        folder = Path(self.word) / "model"
        if not folder.is_dir():
            if not (Path(self.word) / "config.json").is_file():
                return self.word
            # a sequence-classification model of others
            return {"run": self.word, "weights": import_extra("harken.engines.modelfiles").hashes(Path(self.word), self.word)}
        files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".pt") or p.name == FILE)
        return {"run": self.word, "weights": [file_hash(f) for f in files]}

    def renamed(self, change: Callable[[str], str]) -> str:
        return change(self.word)

    def open(self, options: Options) -> Reward:
        if self.compositional:
            def judge(saved: Mapping[str, Any]) -> Any:
                return open_judge(**saved, **options.engine)
            return CompositionalReward.open(self.word, judge, lambda spec: parse_reward(spec).open(options))
        import_extra("harken.engines.hf")
        from harken.rewards.bradley_terry import BradleyTerryReward
        reward = BradleyTerryReward.open(self.word, on=options.on, **options.engine)
        reward.max_length = min(reward.max_length, context(reward.engine))
        return reward


@dataclass(frozen=True)
class Student(RewardWord):
    """A finished run of fit student."""

    def identity(self) -> Any:
        return {"run": self.word, "weights": [file_hash(Path(self.word) / "model" / student.FILE)]}

    def renamed(self, change: Callable[[str], str]) -> str:
        return change(self.word)

    def open(self, options: Options) -> Reward:
        return student.StudentReward.open(self.word)


@dataclass(frozen=True)
class Several(RewardWord):
    """An ensemble (mean, min, uwo), a weighted sum, or an average of weights."""

    how: str
    penalty: float
    members: tuple[RewardWord, ...]
    weights: tuple[float, ...] = ()

    def check(self) -> None:
        for member in self.members:
            if isinstance(member, Gold) and self.how == "average":
                raise UserError("gold has no weights to average.", "Name runs of harken train reward_model.")
            if isinstance(member, Several):
                raise UserError(f"{member.word} is an ensemble inside an ensemble.", "Name its members instead.")
            member.check()

    def identity(self) -> Any:
        weights = {"member_weights": list(self.weights)} if self.weights else {}
        return {"how": self.word.partition(":")[0] if self._headed else "mean",
                "members": [member.identity() for member in self.members], **weights}

    @property
    def _headed(self) -> bool:
        match = MANY.fullmatch(self.word)
        return bool(match and match[1])

    def renamed(self, change: Callable[[str], str]) -> str:
        members = [member.renamed(change) for member in self.members]
        if self.weights:
            members = [f"{weight:g}*{member}" for weight, member in zip(self.weights, members)]
        return (self.word.partition(":")[0] + ":" if self._headed else "") + ",".join(members)

    def open(self, options: Options) -> Reward:
        if self.how == "average":
            return self._average(options)
        members = {member.word: member.open(options) for member in self.members}
        if self.how == "sum":
            return WeightedReward(members, self.weights)
        return EnsembleReward(members, self.how, self.penalty)

    def _average(self, options: Options) -> Reward:
        import_extra("harken.engines.hf")
        from harken.engines.averaging import average
        from harken.engines.hf import Engine
        from harken.rewards.bradley_terry import BradleyTerryReward
        for member in self.members:
            if not isinstance(member, FittedRun) or member.compositional or not Path(member.word).is_dir():
                raise UserError(f"{member.word} has no weights to average.",
                                "Name runs of harken train reward_model, or use an ensemble.")
        names = [member.word for member in self.members]
        engine = Engine(average(names), head="reward", train=False, **options.engine)
        longest = min(int(read_json(Path(name) / "config.json").get("max_length", 1024)) for name in names)
        return BradleyTerryReward(engine, min(longest, context(engine)))


def parse_reward(reward: Any) -> RewardWord:
    """Reads a word, or takes a Python object (a function, or anything with `score`), once. Raises `UserError` for no word, and
    for a run of fit compositional that has not finished."""
    if not isinstance(reward, str):
        return Given(FunctionReward.name_of(reward), reward)
    if not reward:
        raise UserError("No reward was given.", "Add --reward (or --judge) runs/rm, a scorer such as toxicity, your own function "
                        "(my_lab.score:fn), or gold in the sandbox.")
    if reward == "gold":
        return Gold(reward)
    if reward.startswith(("judge:", "http://", "https://")):
        return Judging(reward)
    match = MANY.fullmatch(reward)
    assert match is not None
    how, penalty, rest = match.groups()
    if how is not None or "," in rest:
        return _several(reward, (how or "mean").partition("=")[0], float(penalty or 0.5), rest)
    name, _, argument = reward.partition(":")
    if name in scorer_names():
        return Scorer(reward, name, argument)
    if is_dotted(reward) and ("." in name or ":" in reward) and not Path(reward).exists():
        return Own(reward)
    if (Path(reward) / "model" / student.FILE).is_file():
        return Student(reward)
    return FittedRun(reward, _compositional(reward))


def _several(word: str, how: str, penalty: float, rest: str) -> Several:
    parts = [part.strip() for part in rest.split(",") if part.strip()]
    weights: list[float] = []
    if how == "sum":
        for i, part in enumerate(parts):
            weight, star, member = part.partition("*")
            try:
                weights.append(float(weight) if star else 1.0)
            except ValueError:
                raise UserError(f"{weight!r} is no weight of {member}.", "Write sum:0.7*runs/a,0.3*runs/b.") from None
            parts[i] = member.strip() if star else part
    return Several(word, how, penalty, tuple(parse_reward(part) for part in parts), tuple(weights))


def _compositional(name: str) -> bool:
    """Whether it is a finished run of fit compositional. Raises `UserError` for one that has not finished."""
    path = Path(name)
    if (path / "model" / FILE).is_file():
        return True
    config = path / "config.json"
    if config.is_file() and (path / "lineage.json").is_file() and \
            read_json(config).get("command") in ("fit compositional", "fit student"):
        raise UserError(f"The run {name} has not finished.", "Run its harken fit command again; it continues where it stopped.")
    return False


def open_reward(reward: Any, *, dtype: str = "float32", tokens_per_micro_batch: int = 2048, aggregate: str = "",
                on: Base | None = None) -> Reward:
    """The reward a word (or a Python object, or what `parse_reward` read) names; `aggregate` says whose scores count, of a
    reward model with groups. Reward models whose adapters belong to the model `on` which a policy stands share its weights.

    Raises `UserError` where there is none, it cannot be opened, or it has no groups to aggregate.
    """
    word = reward if isinstance(reward, RewardWord) else parse_reward(reward)
    word.check()
    how = parse_aggregate(aggregate) if aggregate else None
    opened = word.open(Options(dtype, tokens_per_micro_batch, on))
    if how is not None:
        use_groups = getattr(opened, "use_groups", None)
        if use_groups is None:
            raise UserError(f"--aggregate {aggregate} needs a reward model with groups; {word.word} is none.",
                            "Train one: harken train reward_model --labelers groups --group-by TAG; or leave --aggregate out.")
        use_groups(how)
    return opened


def same_reward(a: Any, b: Any) -> bool:
    """Whether two identities are of one reward, wherever its runs now lie."""
    def bare(identity: Any) -> Any:
        if isinstance(identity, Mapping):
            return {k: bare(v) for k, v in identity.items() if k != "run"}
        return [bare(v) for v in identity] if isinstance(identity, list) else identity
    return bool(bare(a) == bare(b))
