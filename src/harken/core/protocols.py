"""The verbs: what an engine, a reward and an evaluation can do. No torch here.

Shape suffixes: `P` prompts, `G` completions a prompt, `T` tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from harken.core.records import Choice, Prompt


@dataclass(frozen=True)
class Tree:
    """A prompt and its completions as token ids: the prompt is computed once for all of them.

    Worked example: a ranking of three answers to one question is
    `Tree((7, 8, 9), ((20, 21, 2), (22, 2), (23, 24, 25, 2)))`; every loss sees completion
    tokens only, each predicted from the prompt and its own earlier tokens.
    """

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Positions computed: the prompt once, then every completion."""
        return len(self.prompt) + sum(map(len, self.completions))


@dataclass(frozen=True)
class Datum:
    """A tree and what the objective needs beside it.

    `inputs[name]` is flat: one number a completion token, one a completion, or one a tree,
    in the tree's order; the objective's docstring says which.
    """

    tree: Tree
    inputs: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One sampled completion. Ids travel with the text: nothing is re-tokenised (P20).

    `logps` are of the distribution sampled from (temperature, top-p); `model_logps` of the model
    at temperature 1 without truncation. One number a token, the end-of-turn token included.
    `finished` is False when the token limit cut it.
    """

    ids: tuple[int, ...]
    text: str
    logps: tuple[float, ...]
    model_logps: tuple[float, ...]
    finished: bool


class Learner(Protocol):
    """A model that learns. Gradients of successive `forward_backward` calls add up until `step`."""

    def forward_backward(self, data: Sequence[Datum], objective: Callable[..., Any]) -> dict[str, float]: ...
    def step(self, learning_rate: float) -> dict[str, float]: ...
    def save(self, path: Path) -> None: ...


class Sampler(Protocol):
    """Text from a model."""

    def sample(self, prompts: Sequence[Prompt], n: int, *, max_tokens: int, temperature: float = 1.0,
               top_p: float = 1.0, seed: int = 0) -> list[list[Sample]]: ...


class Reward(Protocol):
    """Turns completions into numbers; None where there is no score, never 0 for missing."""

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """`prompts` [P], `completions` [P][G] -> scores [P][G]."""
        ...


@runtime_checkable
class Ensemble(Reward, Protocol):
    """A reward of several members, which also says how far they disagree."""

    def score_and_disagreement(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]
                               ) -> tuple[list[list[float | None]], list[list[float | None]]]: ...


class Watch(Protocol):
    """What looks on while a run trains, and may end it early (loops/watch.py). A run calls it."""

    def set_aside(self, prompts: list[Any]) -> list[Any]:
        """The prompts to learn from: those given, less the ones it needs itself."""
        ...

    def before(self, step: int, total: int) -> bool:
        """Before each step, and once after the last; False ends the run."""
        ...

    def after(self, step: int, row: Mapping[str, Any]) -> None: ...
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path | None) -> None: ...
    def finish(self) -> dict[str, Any]:
        """Puts the weights to be saved in place, if they are not the last; returns further results."""
        ...


class FittedReward(Reward, Protocol):
    def fit(self, choices: Sequence[Choice]) -> None: ...


@dataclass(frozen=True)
class Estimate:
    """A number that can be trusted as far as its interval says."""

    value: float
    low: float
    high: float
    n: int
    level: float = 0.95

    def to_json(self) -> dict[str, float | None]:
        """An end at infinity (one item says nothing of the spread) is null: JSON has no infinity."""
        low, high = (x if math.isfinite(x) else None for x in (self.low, self.high))
        return {"value": self.value, "low": low, "high": high, "n": self.n, "level": self.level}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Estimate:
        ends = {name: sign * math.inf if value[name] is None else value[name] for name, sign in (("low", -1), ("high", 1))}
        return cls(value["value"], n=value["n"], level=value.get("level", 0.95), **ends)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] n={self.n}"


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation found, in one form that files and pages show without knowing its name.

    `value` is the headline, with its interval; `better` says which way is good (higher, lower, or empty: neither). `figures`
    are further numbers, estimates among them, or groups of them by name. `baselines` say what the value stands beside,
    `samples` what it was made from; `missing` counts items without a score: never scored 0.
    """

    value: Estimate
    figures: Mapping[str, Any] = field(default_factory=dict)
    baselines: Mapping[str, Estimate] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()
    missing: int = 0
    better: str = "higher"

    def to_json(self) -> dict[str, Any]:
        """`result.json`'s part of it; what is empty is left out."""
        baselines = {name: estimate.to_json() for name, estimate in self.baselines.items()}
        parts = {"baselines": baselines, "missing": self.missing, "samples": list(self.samples)}
        given = {name: part for name, part in parts.items() if part}
        return {"value": self.value.to_json(), "better": self.better, **_plain(self.figures), **given}


def _plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    def one(figure: Any) -> Any:
        return figure.to_json() if isinstance(figure, Estimate) else _plain(figure) if isinstance(figure, Mapping) else figure
    return {name: one(figure) for name, figure in figures.items()}


class Models(Protocol):
    """What an evaluation asks the launcher for, by the name of the setting that names it; each is opened once, when asked for."""

    def sampler(self, setting: str) -> Sampler:
        """What answers prompts: weights, a policy on them, a server."""
        ...

    def engine(self, setting: str) -> Any:
        """Weights, to read log-probs from. Raises `UserError` for a server."""
        ...

    def stored(self, setting: str) -> Any:
        """A model whose answers and log-probs are kept, and read back (loops.items.StoredModel)."""
        ...

    def reward(self, setting: str) -> Reward: ...

    def check_context(self, setting: str, prompts: Sequence[Prompt], max_tokens: int) -> None:
        """Raises `UserError` where a prompt and its answer are longer than the model can take."""
        ...


class Eval(Protocol):
    """A module of harken/evals, or yours: one file with a `Config` and this."""

    Config: type

    def evaluate(self, config: Any, models: Models, run: Any) -> EvalResult: ...
