"""The kinds of task, one file of this folder each: what is asked, whether an answer fits, what is stored and shown.

    TASKS["compare"].read(form, texts, order, answer)     # the judgment's payload, or ApiError 422

The folder is the registry: a module here that defines TASK is a kind of task under the file's name, in the API, on the
pages and at `harken ask --kind`. static/forms/NAME.js beside it draws it; `record` names what its answers are stored as.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from harken.core.records import JudgmentKind, PromptKind
from harken.web.errors import ApiError
from harken.web.json_schema import Schema, text

MAX_CHARS = 20_000
PROMPT_KINDS: tuple[str, ...] = get_args(PromptKind)
PROMPT_FLAGS = {
    "ambiguous": "Ambiguous", "sensitive": "Sensitive content", "identity_dependent": "Identity dependent",
    "closed_domain": "Closed domain", "continuation": "Continuation style", "opinionated": "Requests opinionated content",
    "advice": "Requests advice", "moral_judgment": "Requests moral judgment",
    "safety_constraint": "Contains explicit safety constraints", "other_constraint": "Contains other explicit constraints",
    "unclear_intent": "Intent unclear",
}
USE_CASES = ("generation", "open_qa", "brainstorming", "chat", "rewriting", "summarization", "classification", "other",
             "closed_qa", "extraction")
Json = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """An item of the kind, an answer to it, and what an export holds then: how the tests drive a task they do not know."""

    item: Mapping[str, Any]
    answer: Mapping[str, Any]
    export: str
    """One of `work.exports.WHATS`."""
    row: Mapping[str, Any]
    """What the export's first row says, among other things."""


class Task(ABC):
    """One kind of task. Labelers see completions in a shuffled `order` and answer in it; payloads are in the item's own,
    `order[place]` being the completion shown at that place."""

    title: ClassVar[str]
    """What labelers do, for them and for leads."""
    hint: ClassVar[str]
    """What it is good for, for the lead who makes a project."""
    record: ClassVar[JudgmentKind]
    """What its answers are stored as."""
    trial: ClassVar[Trial]
    place: ClassVar[int] = 100
    """Where it stands in lists; kinds with the same place stand by name."""
    completions: ClassVar[tuple[int, int]] = (0, 0)
    """How many completions an item has, at least and at most."""
    compares: ClassVar[bool] = False
    """Whether an answer ranks the completions: then items can be weighed, and asked until they are settled."""
    writes_prompt: ClassVar[bool] = False
    """Whether the labeler writes the prompt: then the item has none, but may say what to write about (`ask`)."""
    fields: ClassVar[Mapping[str, Schema]] = {}
    """The form's fields that only this kind has; its forms must have every one."""
    needs_text: ClassVar[bool] = False
    """Whether the labeler writes: then its forms bound the text."""

    def form(self) -> Json:
        """Its own fields in the form that a new project gets."""
        return {}

    @abstractmethod
    def answer(self, form: Json, k: int) -> tuple[dict[str, Schema], tuple[str, ...]]:
        """The answer's own fields for `k` completions, and which of them may be left out."""

    @abstractmethod
    def read(self, form: Json, texts: Sequence[str], order: Sequence[int], answer: Json) -> Json:
        """The payload's own fields of an answer that fits `answer`; `texts` are in the item's order.

        Raises ApiError bad_answer naming what does not fit.
        """

    @abstractmethod
    def shown(self, payload: Json, order: Sequence[int]) -> Json:
        """The stored answer as the labeler gave it, in the shown order, without the completions."""

    def same(self, one: Json, other: Json) -> bool:
        """Whether two stored answers to one item say the same: a suggestion and what a labeler gave."""
        order = range(len(one.get("completions") or other.get("completions") or ()))
        first, second = self.shown(one, order), self.shown(other, order)
        return {k: v for k, v in first.items() if k != "spans"} == {k: v for k, v in second.items() if k != "spans"}

    def notices(self, payload: Json, order: Sequence[int]) -> list[Json]:
        """What the labeler may want to look at again; it never blocks. Pairs are places as shown."""
        return []

    def prompt(self, payload: Json) -> Json | None:
        """The prompt that was written, in its exchange shape; None where the answer is to the item's own."""
        return None


class WritingTask(Task):
    """A task whose answer is one text."""

    needs_text = True

    def form(self) -> Json:
        return {"text": {"max_chars": MAX_CHARS}}

    def answer(self, form: Json, k: int) -> tuple[dict[str, Schema], tuple[str, ...]]:
        return {"text": text(form["text"]["max_chars"], 1)}, ()

    def written(self, answer: Json) -> str:
        """The text, which must not be blank."""
        if not answer["text"].strip():
            raise ApiError("bad_answer", '"answer.text" is blank.', "Write the answer, or skip the task with a reason.")
        return str(answer["text"])


def dense(ranks: Sequence[int]) -> list[int]:
    """Ranks without gaps: 1, 3, 3 is 1, 2, 2."""
    distinct = sorted(set(ranks))
    return [distinct.index(r) + 1 for r in ranks]


def _load() -> dict[str, Task]:
    modules = {m.name: importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)}
    tasks: dict[str, Task] = {name: module.TASK for name, module in modules.items() if hasattr(module, "TASK")}
    return dict(sorted(tasks.items(), key=lambda named: (named[1].place, named[0])))


TASKS: dict[str, Task] = _load()
KINDS: tuple[str, ...] = tuple(TASKS)
