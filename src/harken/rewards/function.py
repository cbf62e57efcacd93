"""Your own reward: a function, or an object with `score`.

    def short(prompts, completions):                 # my_lab/score.py
        return [-len(text) / 100 for text in completions]

    harken train rloo --model smollm2 --reward my_lab.score:short --data prompts.jsonl --out runs/short

A function takes two lists of one length: the prompts (a text each, or a list of messages, as in the data file) and their
completions. It gives a number for each, or None where there is none. Further parameters are filled by name from the
prompts' `meta`, a list each, None where a prompt has none: `def exact(prompts, completions, answer)`. It may be `async`.
Where it raises on a batch, its completions are tried one by one: those that raise have no score and are counted, never
scored 0.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from harken.core.errors import UserError
from harken.core.find import imported, raised
from harken.core.protocols import Ensemble, Reward
from harken.core.records import Prompt

MUST = "It must be a function of prompts and completions, an object with score, or a module with one of them."
GIVES = "It gives a list for each prompt, of a number (or None) for each completion: [P], [P][G] -> [P][G]."


class FunctionReward:
    """A function as a `Reward`. `errors` counts the completions on which it raised; `name` is for messages."""

    def __init__(self, function: Callable[..., Any], name: str = "") -> None:
        self.function, self.name = function, name or self.name_of(function)
        self.errors, self.first_error = 0, ""
        parameters = inspect.signature(function).parameters.values()
        self.takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)][2:]
        self.fields = [p.name for p in named]
        self._wanted = {p.name for p in named if p.default is p.empty}  # not yet seen in a prompt
        self._optional = {p.name for p in named} - self._wanted

    @staticmethod
    def name_of(reward: Any) -> str:
        given = reward if hasattr(reward, "__qualname__") else type(reward)
        return f"{given.__module__}:{given.__qualname__}"

    @staticmethod
    def identity_of(reward: Any) -> dict[str, str]:
        """Its name and the hash of its source, so that a resumed run notices another."""
        given = reward if hasattr(reward, "__qualname__") else type(reward)
        try:
            source = inspect.getsource(given)
        except (OSError, TypeError):  # typed at a prompt: Python keeps no source
            source = ""
        return {"own": FunctionReward.name_of(reward), "source": hashlib.sha256(source.encode()).hexdigest() if source else ""}

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """[P], [P][G] -> [P][G]. Raises `UserError` where it raises on every completion, or gives another number of scores."""
        flat = [(prompt, text) for prompt, texts in zip(prompts, completions) for text in texts]
        if not flat:
            return [[] for _ in completions]
        scores = iter(self._scores(flat))
        return [[next(scores) for _ in texts] for texts in completions]

    def _scores(self, flat: Sequence[tuple[Prompt, str]]) -> list[float | None]:
        try:
            return self._call(flat)
        except UserError:
            raise
        except Exception as error:  # a stranger's function raises what it likes
            failure = error
        if len(flat) == 1:
            self._count(failure)
            if self.errors == 1:
                print(f"{self.name} raised {self.first_error}: no score.", file=sys.stderr)
            return [None]
        scores: list[float | None] = []
        before = self.errors
        for one in flat:
            try:
                scores += self._call([one])
            except UserError:
                raise
            except Exception as error:
                failure = error
                self._count(error)
                scores.append(None)
        failed = self.errors - before
        if failed == len(flat):
            raise UserError(f"{self.name} raised {type(failure).__name__} on every completion: {failure}.",
                            "Correct the function.") from None
        if before == 0 and failed:
            print(f"{self.name} raised {self.first_error} on {failed} of {len(flat)} completions: they have no score.",
                  file=sys.stderr)
        return scores

    def _count(self, error: Exception) -> None:
        self.errors += 1
        self.first_error = self.first_error or f"{type(error).__name__}: {error}"

    def _call(self, flat: Sequence[tuple[Prompt, str]]) -> list[float | None]:
        names = sorted({name for prompt, _ in flat for name in prompt.meta}) if self.takes_all else self.fields
        held = {name for prompt, _ in flat for name in prompt.meta}
        self._wanted -= held
        if self._wanted:
            raise UserError(f"{self.name} asks for {', '.join(sorted(self._wanted))}, and no prompt has a field of that name.",
                            f"The prompts' fields are {', '.join(sorted(held)) or 'none'}; a parameter that is none of the "
                            "data's needs a default.")
        given = [name for name in names if name in held or name not in self._optional]
        fields = {name: [prompt.meta.get(name) for prompt, _ in flat] for name in given}
        result = self.function([prompt.to_json()["prompt"] for prompt, _ in flat], [text for _, text in flat], **fields)
        if inspect.isawaitable(result):
            result = asyncio.run(_finished(result))
        listed = hasattr(result, "__iter__") and not isinstance(result, str | bytes | dict)
        values = list(result) if listed else None
        if values is None or len(values) != len(flat):
            count = "no list" if values is None else f"{len(values)} scores"
            raise UserError(f"{self.name} gave {count} for {len(flat)} completions.",
                            "It must give one number, or None, for each.")
        return [_number(value, self.name) for value in values]


class ObjectReward:
    """Your object with its `score` looked at. Every other attribute is the object's."""

    def __init__(self, own: Any, name: str) -> None:
        self.own, self.name = own, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["own"], name)

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """[P], [P][G] -> [P][G]. Raises `UserError` where it raises, or gives anything but a number, or None, a completion."""
        try:
            scores = self.own.score(prompts, completions)
        except UserError:
            raise
        except Exception as error:  # a stranger's object raises what it likes
            raise UserError(f"{self.name}: score() raised {raised(error)}.", "Correct it.") from error
        try:
            rows = [list(row) for row in scores]
        except TypeError:
            raise UserError(f"{self.name}: score() gave {scores!r:.60}, which is no list of lists.", GIVES) from None
        if [len(row) for row in rows] != [len(texts) for texts in completions]:
            raise UserError(f"{self.name}: score() gave {[len(row) for row in rows]!s:.60} scores for "
                            f"{[len(texts) for texts in completions]!s:.60} completions.", GIVES)
        return [[_number(value, self.name) for value in row] for row in rows]


async def _finished(result: Any) -> Any:
    return await result


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(f"{name} gave {value!r}, which is no number.", "It must give a number, or None.") from None
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class OwnReward:
    """What a dotted path names."""

    word: str
    value: Any

    @property
    def identity(self) -> dict[str, str]:
        return FunctionReward.identity_of(self.value) | {"own": self.word}

    def open(self) -> Reward:
        """A `Reward`: the object itself where it has `score`, an instance of a class, what a module's `open_scorer` gives, or a
        function of prompts and completions."""
        value = self.value
        if isinstance(value, ModuleType):
            if hasattr(value, "open_scorer"):
                reward: Reward = value.open_scorer("")
                return reward
            value = value.score
        if inspect.isclass(value):
            value = value()
        if not inspect.isfunction(value) and hasattr(value, "score"):
            ours = type(value).__module__.startswith("harken.")
            opened: Reward = value if ours or isinstance(value, Ensemble) else ObjectReward(value, self.word)
            return opened
        if not callable(value):
            raise UserError(f"{self.word} is not a reward: it is a {type(value).__name__}.", MUST)
        return FunctionReward(value, self.word)


def own_reward(word: str) -> OwnReward:
    """The reward at a dotted path. Raises `UserError` where there is none, or what is there can't score."""
    value = imported(word, f"There is no reward model at {word}, and no module of that name.",
                     "Write my_lab.score:fn for the function fn in my_lab/score.py.")
    scores = hasattr(value, "score") or hasattr(value, "open_scorer") or (callable(value) and not isinstance(value, ModuleType))
    if not scores:
        raise UserError(f"{word} is not a reward: it is a {type(value).__name__}.", MUST)
    return OwnReward(word, value)
