"""The verbs: what an engine, a reward and an evaluation can do. No torch here.

Methods and loops use nothing of a learner or a sampler but what stands here; tests/fake_engine.py is an engine of that alone.
Shape suffixes: `P` prompts, `G` completions a prompt, `T` tokens, `N` completion tokens of all trees, `C` completions of all
trees, `K` completions of one tree, `D` width of the last layer's state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from harken.core.records import Choice, Prompt

if TYPE_CHECKING:
    import torch
    from torch import Tensor


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
    `finished` is False when the token limit cut it. `version` is that of the weights it was drawn from (`Rollouts.update`).
    """

    ids: tuple[int, ...]
    text: str
    logps: tuple[float, ...]
    model_logps: tuple[float, ...]
    finished: bool
    version: int = 0


@dataclass
class Outputs:
    """What an objective sees: `logps_N`, `entropy_N` (no gradient), and `scores_C` or `values_N` of a head; with a reward
    head also `ends_CD`, the state after each completion that the head reads.

    `lengths` counts the tokens of each completion, `sizes` the completions of each tree.
    """

    logps_N: Tensor
    entropy_N: Tensor
    scores_C: Tensor | None
    values_N: Tensor | None
    ends_CD: Tensor | None
    lengths: list[int]
    sizes: list[int]


Loss: TypeAlias = "tuple[Tensor, Mapping[str, Tensor]]"
"""A scalar with a gradient, and metrics without one. Both are summed over micro-batches."""
Objective: TypeAlias = "Callable[[Any, Any], Loss]"
"""(`Outputs`, the data's inputs as float32 tensors by name) -> `Loss`. Its weights are fixed before the first call (P7)."""


class Template(Protocol):
    """Text to token ids."""

    tokenizer: Any
    end_id: int

    @property
    def hash(self) -> str:
        """The same for the same tokens of the same text."""
        ...

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]: ...
    def completion_ids(self, text: str) -> tuple[int, ...]: ...
    def tree(self, prompt: Prompt, completions: Sequence[str]) -> Tree: ...
    def text_ids(self, text: str) -> tuple[int, ...]:
        """A document: text that is no turn."""
        ...

    def counted(self) -> list[str]:
        """What it changed in the texts it was given since this was last asked, as notes for people."""
        ...


class Resumable(Protocol):
    """What a checkpoint holds of a method: `load_state` of a folder that `save_state` filled goes on bit for bit."""

    def save_state(self, folder: Path) -> None: ...
    def load_state(self, folder: Path) -> None: ...


class Learner(Resumable, Protocol):
    """A model that learns. Gradients of successive `forward_backward` calls add up until `step`."""

    @property
    def template(self) -> Template: ...
    @property
    def lineage(self) -> Mapping[str, Any]:
        """What names the weights it began with."""
        ...

    @property
    def compute(self) -> torch.dtype: ...
    @property
    def vocabulary(self) -> int:
        """Tokens that it gives a probability."""
        ...

    @property
    def parts(self) -> Mapping[str, Tensor]:
        """The trained parameters by name, to be read and copied into; of several processes each may hold a part."""
        ...

    def whole(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors like `parts`, put together on the first process; all must call it."""
        ...

    def cut(self, whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's parts of what `whole` put together."""
        ...

    def forward_backward(self, data: Sequence[Datum], objective: Objective, *, temperature: float = 1.0, entropy: bool = False,
                         logps: bool = True) -> dict[str, float]:
        """Adds the gradient of the objective over `data`; its metrics, `loss` first. `logps=False` where only a head learns.

        Raises `UserError` for a loss that is not finite.
        """
        ...

    def step(self, learning_rate: float) -> dict[str, float]:
        """One optimiser step, after which the gradient is zero: `grad_norm` before clipping, and `learning_rate`."""
        ...

    def logprobs(self, trees: Sequence[Tree], *, temperature: float = 1.0, reference: bool = False) -> list[list[Tensor]]:
        """log p of every completion token, float32 without gradient: `[tree][completion]` -> `[T]`; of the model as it was before
        training, with `reference`."""
        ...

    def save(self, folder: Path, *, base: str = "") -> None:
        """The model, for others to load; `base` is what an adapter stands on."""
        ...

    def beside(self, model: str, template: str = "") -> Learner:
        """Another model on the same hardware, that does not learn; it shares what it can. `template` names another chat
        template than its own."""
        ...

    def critic(self, model: str, *, lora_rank: int, seed: int) -> ValueLearner:
        """Another model on the same hardware, that learns values; a reward model's scores are the first of them."""
        ...


class ValueLearner(Learner, Protocol):
    """A learner with a value head."""

    def values(self, trees: Sequence[Tree]) -> list[Tensor]:
        """The value of the state before every completion token: [tree] -> [N of the tree]."""
        ...


class RewardLearner(Learner, Protocol):
    """A learner with a reward head, and numbers of its own that an objective may use."""

    shift: float
    """Added to every score."""

    @property
    def width(self) -> int:
        """D of `Outputs.ends_CD`."""
        ...

    @property
    def scalars(self) -> Any:
        """Further trained tensors by name; `tie` from the start, where the method's settings have ties."""
        ...

    def add_scalars(self, values: Mapping[str, Sequence[Any]], ratio: float) -> None:
        """More of them, learnt at `ratio` times the learning rate."""
        ...

    def scores(self, trees: Sequence[Tree]) -> list[Tensor]:
        """[tree] -> [K], shift included."""
        ...

    def group_scores(self, trees: Sequence[Tree]) -> list[Tensor]:
        """Every group's, with the scalars `group_head` [G, D] and `group_shift` [G]: [tree] -> [K, G]."""
        ...


class Sampler(Protocol):
    """Text from a model."""

    def sample(self, prompts: Sequence[Prompt], n: int, *, max_tokens: int, temperature: float = 1.0,
               top_p: float = 1.0, seed: int = 0) -> list[list[Sample]]:
        """`n` completions of each prompt, the same for the same seed: `[P][n]`."""
        ...


class PolicySampler(Sampler, Protocol):
    """Text from weights that can be named, perhaps under a prompt or the best of many."""

    @property
    def lineage(self) -> Mapping[str, Any]: ...
    def seen(self, prompt: Prompt) -> Prompt:
        """What the weights are given for a prompt."""
        ...


class Rollouts(PolicySampler, Protocol):
    """Completions to learn from. They may be sampled elsewhere than the learner is: on a server, or another GPU."""

    def sample_ids(self, prompts: Sequence[tuple[int, ...]], n: int, *, max_tokens: int, temperature: float = 1.0,
                   top_p: float = 1.0, seed: int = 0) -> list[list[Sample]]:
        """As `sample`, of prompts as token ids. `Sample.version` is that of the weights that spoke."""
        ...

    def update(self, version: int) -> None:
        """From now on the learner's present weights speak, which are `version`."""
        ...

    def wake(self) -> None:
        """Before it samples."""
        ...

    def sleep(self) -> None:
        """Before the learner learns: memory may be given back."""
        ...

    def of(self, learner: Any) -> Rollouts:
        """The same for another model, which `Learner.beside` gave."""
        ...


class Reward(Protocol):
    """Turns completions into numbers; None where there is no score, never 0 for missing."""

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> Sequence[Sequence[float | None]]:
        """`prompts` [P], `completions` `[P][G]` -> scores `[P][G]`."""
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


class FanOut(Protocol):
    """What gets every row of a run's metrics too (loops/trackers.py). A run calls it."""

    def rewind(self, rows: int) -> None: ...
    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def close(self, result: Mapping[str, Any]) -> None: ...


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
