"""A model that is not ours: opened, and held to the protocol where it is asked, so that a slip in it is named and not traced.

    sampler = opened(Parrot, "my_lab.engine:Parrot")     # a class, a function that gives a model, or the model itself
    sampler.sample(prompts, 2, max_tokens=8)             # its answers, looked at; all else of it as it is
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from harken.core.errors import UserError
from harken.core.find import raised
from harken.core.protocols import Sample
from harken.core.records import Prompt

SHOWN = "CONTRIBUTING.md shows one; core/protocols.py says what each part is."
CALL: dict[str, Any] = {"max_tokens": 8, "temperature": 1.0, "top_p": 1.0, "seed": 0}
TRAINED = ("template", "forward_backward", "step", "save", "save_state", "load_state")
"""What every method that learns uses of a learner; some use more of `core.protocols.Learner`."""
READ = ("template", "logprobs")
"""What evaluations use that read log-probs."""
CHOSEN = ("template", "lineage")
"""What the methods use that only choose among a model's answers."""


class OwnSampler:
    """Your object with its `sample` looked at. Every other attribute is the object's."""

    def __init__(self, own: Any, word: str) -> None:
        self.own, self.word = own, word
        self.takes_advance = _takes(own, word)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["own"], name)

    def sample(self, prompts: Sequence[Prompt], n: int, *, advance: Callable[[int], None] | None = None,
               **settings: Any) -> list[list[Sample]]:
        """As `core.protocols.Sampler`. Raises `UserError` where it raises, or gives anything but `n` samples a prompt."""
        more = {"advance": advance} if advance and self.takes_advance else {}
        try:
            groups = self.own.sample(prompts, n, **settings, **more)
        except UserError:
            raise
        except Exception as error:  # a stranger's model raises what it likes
            raise UserError(f"{self.word}: sample() raised {raised(error)}.", "Correct it.") from error
        if fault := _fault(groups, len(prompts), n):
            raise UserError(f"{self.word}: sample() gave {fault}.",
                            "It gives a list for each prompt, of n Samples each (harken.Sample).")
        samples: list[list[Sample]] = groups
        return samples


def opened(value: Any, word: str) -> Any:
    """The model that `value` is or gives. Raises `UserError` where that has no `sample` that can be called as ours are."""
    if isinstance(value, type) or (callable(value) and not hasattr(value, "sample")):
        try:
            value = value()
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{word} gave no model: it raised {raised(error)}.",
                            f"It is called without arguments, and gives an object with sample(). {SHOWN}") from error
    if not hasattr(value, "sample"):
        raise UserError(f"{word} gave a {type(value).__name__}, which cannot sample.",
                        f"It must have sample(prompts, n, *, max_tokens, temperature, top_p, seed). {SHOWN}")
    ours = type(value).__module__.startswith("harken.")
    return value if ours else OwnSampler(value, word)


def learner_of(sampler: Any) -> Any:
    """What a sampler answers with: its `engine`, or itself."""
    return getattr(sampler, "engine", None) or (sampler.own if isinstance(sampler, OwnSampler) else sampler)


def check_learner(own: Any, word: str, method: str, parts: Sequence[str] = TRAINED) -> None:
    """Raises `UserError` where your model has not what a method needs."""
    if lacks := [name for name in parts if not hasattr(own, name)]:
        raise UserError(f"{word} can answer, but {method} cannot use it: it lacks {', '.join(lacks)}.",
                        "A model that is trained has all of core.protocols.Learner; one that only answers can be evaluated.")


def code_of(module: ModuleType, kind: str) -> dict[str, Any]:
    """For a run's lineage: a stranger's module by the hash of its source, so that a changed one does not silently continue an
    old run; nothing for ours."""
    if module.__name__.startswith("harken."):
        return {}
    try:
        source = hashlib.sha256(inspect.getsource(module).encode()).hexdigest()
    except (OSError, TypeError):  # made in memory: Python keeps no source
        source = ""
    return {kind: {"own": module.__name__, "source": source}}


def _takes(own: Any, word: str) -> bool:
    """Whether `sample` takes `advance`, which counts answers as they come."""
    try:
        signature = inspect.signature(own.sample)
    except (TypeError, ValueError):  # built in C: Python does not know
        return False
    try:
        signature.bind([], 1, **CALL)
    except TypeError as error:
        raise UserError(f"{word}: sample{signature} cannot be called as it will be: {error}.",
                        f"It must take sample(prompts, n, *, max_tokens, temperature, top_p, seed). {SHOWN}") from None
    parameters = signature.parameters.values()
    return any(p.name == "advance" or p.kind is p.VAR_KEYWORD for p in parameters)


def _fault(groups: Any, prompts: int, n: int) -> str:
    """What is wrong with an answer, or nothing."""
    if not isinstance(groups, Sequence) or isinstance(groups, str):
        return f"a {type(groups).__name__}"
    if len(groups) != prompts:
        return f"{len(groups)} lists for {prompts} prompts"
    for group in groups:
        if not isinstance(group, Sequence) or isinstance(group, str):
            return f"a {type(group).__name__} for a prompt"
        if len(group) != n:
            return f"{len(group)} samples for a prompt, and {n} were asked for"
        if wrong := [s for s in group if not hasattr(s, "text")]:
            return f"a {type(wrong[0]).__name__} in the place of a Sample"
    return ""
