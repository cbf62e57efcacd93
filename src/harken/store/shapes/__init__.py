"""The shapes of feedback files: a row is read by the first line of `SHAPES` whose fields it has.

    read_row({"prompt": "Hi", "chosen": "Hello.", "rejected": "Go."})      # Found(records=[Choice(…)], unread=[])

An adapter is one function, `Row` -> a record or several: it takes what it reads out of the row (`row.take("answer")`) and raises
`ValueError` with the reason alone. What it leaves is looked at by name (`fields.check_unread`). A new shape is a function and a
line of `SHAPES`; a shape of your own needs neither, and no `take`: `harken import FILE --shape my_lab.shapes:read`, or
`Reader(path, adapter=my_lab.shapes.read)`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from harken.core.errors import UserError
from harken.core.find import imported, is_dotted, raised
from harken.core.records import Choice, Demonstration, Judgment, Prompt
from harken.store.shapes.answers import ASKED_AND_ANSWERED, asked_alone, conversation, edited, prompt_answer, questioned
from harken.store.shapes.fields import EXPORTED, Row, check_unread
from harken.store.shapes.pairs import (
    A_AND_B,
    PAIRS,
    a_and_b,
    chosen_rejected,
    one_of_two,
    openai_preference,
    own_comparison,
)
from harken.store.shapes.parts import CARRIED, CONVERSATIONS
from harken.store.shapes.plain import plain_comparison
from harken.store.shapes.published import (
    arena,
    fine_grained,
    google,
    helpsteer2,
    helpsteer3,
    kaggle,
    listed,
    nectar,
    oasst_flat,
    oasst_tree,
    prism,
    scored,
    shp,
    summaries,
    voted,
    webgpt,
)

Kind = Literal["comparisons", "demonstrations", "prompts", "ratings", "thumbs", "edits", "questions"]
Record = Choice | Demonstration | Prompt | Judgment
Adapter = Callable[[Row], Record | Sequence[Record]]
Condition = Callable[[Row], bool] | None
KIND_OF = {"rating": "ratings", "thumb": "thumbs", "edit": "edits", "prompt": "prompts", "questions": "questions"}

SHAPES: tuple[tuple[tuple[tuple[str, ...], ...], Condition, Adapter], ...] = (
    ((("replies",), ("message_tree_id", "prompt")), None, oasst_tree),
    ((("message_tree_id", "parent_id"), ("message_tree_id", "message_id")), None, oasst_flat),
    ((("prediction 1", "preference"),), None, fine_grained),
    ((("human_ref_A", "human_ref_B"),), None, shp),
    ((("answer_0", "answer_1", "score_0", "score_1"),), None, webgpt),
    ((("info", "summaries"),), None, summaries),
    ((("conversation_a", "conversation_b"),), None, arena),
    ((("winner_model_a", "winner_model_b"),), None, kaggle),
    ((("response1", "response2", "overall_preference"),), None, helpsteer3),
    ((("response_1", "response_2", "preference_strength"),), None, helpsteer2),
    ((("answers",),), lambda row: listed(row, "answers", "rank"), nectar),
    ((("answers",),), lambda row: listed(row, "answers", "pm_score"), voted),
    ((("conversation_history",),), None, prism),
    ((("completions",),), lambda row: listed(row, "completions", "overall_score"), scored),
    ((("contents", "completions"),), lambda row: listed(row, "completions", "score"), google),
    ((("questions", "said"),), None, questioned),
    ((("completions",), ("ranks",)), None, own_comparison),
    ((("input", "preferred_output"),), lambda row: not isinstance(row["input"], str), openai_preference),
    (tuple((name,) for pair in PAIRS for name in pair), lambda row: not one_of_two(row), chosen_rejected),
    (A_AND_B, None, a_and_b),
    ((("prompt", "original", "completion"),), None, edited),
    (tuple((name,) for name in CONVERSATIONS), None, conversation),
    ((("completion",), ("instruction",), ("question", "answer"), ("question", "response"), ("query", "response"),
      ("input", "output"), ("prompt",), *ASKED_AND_ANSWERED), None, prompt_answer),
)
NAMES = frozenset(name for groups, _, _ in SHAPES for group in groups for name in group) | CARRIED
"""What a shape is known by, and what a prompt keeps: beside a plain comparison these need a look."""
OWN = "Correct it; where the row is wrong, raise ValueError with what is wrong with it."
_known: dict[tuple[str, ...], list[tuple[Condition, Adapter]]] = {}


@dataclass(slots=True)
class Found:
    """What a row held: its records, the fields that were not read, and what is worth a note."""

    records: list[Record]
    unread: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: bool = True
    """Whether a labeler that the row names wrote its prompt."""


def adapters(row: Row) -> list[tuple[Condition, Adapter]]:
    """The functions that may read a row with these fields, in order."""
    names = tuple(row)
    if names not in _known:
        have = {*row, *row.nulls}
        if len(_known) > 1000:
            _known.clear()
        _known[names] = [(condition, adapter) for fields, condition, adapter in SHAPES
                         if any(set(group) <= set(row) for group in fields)]
        if not _known[names] and "prompt" in have:
            raise ValueError('"prompt" is null: there is no prompt')
    return _known[names]


def adapter_for(row: Row) -> Adapter:
    """The function that reads a row. Raises `ValueError` naming the fields where none does."""
    for condition, adapter in adapters(row):
        if condition is None or condition(row):
            return adapter
    fields = ", ".join(sorted(map(str, row))[:8]) or "none"
    raise ValueError(f"no known shape has these fields: {fields}")


def read_row(given: Mapping[str, Any], *, asked: Kind | None = None, ignore: Collection[str] = (),
             adapter: Adapter | None = None) -> Found:
    """The records of one parsed row. `asked` is the kind that somebody asked for, if anybody did; `ignore` names fields
    that may stay unread."""
    if adapter is None and not ignore and (plain := plain_comparison(given, NAMES)):
        record, unread, notes = plain
        return Found([record], unread, notes)
    row = Row(given)
    if adapter is None and not adapters(row):
        lowered = {name.lower(): value for name, value in given.items()}
        if len(lowered) == len(given) and adapters(Row(lowered)):  # Prompt, Chosen, Rejected: a table's header
            row, given = Row(lowered), lowered
    if ignore:
        for name in ignore:
            row.pop(name, None)
    if adapter is not None:
        return Found(_own(adapter, row))
    if asked == "prompts" and not adapters(row):
        records: list[Record] = list(asked_alone(row))
    else:
        records = _records(adapter_for(row)(row))
    if "form_version" in row:  # an export of the studio's says how it was given
        for name in EXPORTED:
            row.take(name)
    if row.keys() <= row.used:
        return Found(records, [], row.notes)
    if asked == "prompts":
        judged = "asked"
    else:
        judged = "prompt" if any(isinstance(r, Prompt) for r in records) else \
            "comparison" if any(isinstance(r, Choice) for r in records) else "answer"
    unread = check_unread(row, judged=judged, texts=_texts(records))
    if ignore:
        unread = sorted({*unread, *(name for name in ignore if name in given)})
    return Found(records, unread, row.notes)


def _records(made: Record | Iterable[Record]) -> list[Record]:
    return made if type(made) is list else [made] if isinstance(made, Record) else list(made)  # a list is what most give


def _own(adapter: Adapter, row: Row) -> list[Record]:
    """What a stranger's function made of a row. A field that the row lacks is the row's fault, any other slip the function's."""
    try:
        made: Any = adapter(row)
        several = isinstance(made, Iterable) and not isinstance(made, Record | str | Mapping)
        records: list[Any] = list(made) if several else [made]
    except (ValueError, UserError):
        raise
    except KeyError as error:
        if error.args and error.args[0] not in row:
            raise ValueError(f"the row has no {error.args[0]!r}") from None
        raise UserError(f"The shape's function raised {raised(error)}.", OWN) from error
    except Exception as error:
        raise UserError(f"The shape's function raised {raised(error)}.", OWN) from error
    for record in records:
        if not isinstance(record, Record):
            raise UserError(f"The shape's function returned a {type(record).__name__}.",
                            "Return records: Choice, Demonstration, Prompt or Judgment (harken.core.records).")
    return records


def _texts(records: Iterable[Record]) -> set[str]:
    """Every text that was read of a row."""
    texts: set[str] = set()
    for record in records:
        asked = record if isinstance(record, Prompt) else record.prompt
        texts |= {m.content.strip() for m in asked.messages}
        if isinstance(record, Choice):
            texts |= {o.strip() for o in record.options}
        elif isinstance(record, Demonstration):
            texts.add(record.completion.strip())
        elif isinstance(record, Judgment):
            texts.add(str(record.payload.get("completion", "")).strip())
    return texts


def kind_of(record: Record) -> Kind:
    """Which file a record belongs in."""
    if isinstance(record, Choice):
        return "comparisons"
    if isinstance(record, Judgment):
        return KIND_OF[record.kind]  # type: ignore[return-value]
    return "prompts" if isinstance(record, Prompt) else "demonstrations"


def named_adapter(name: str) -> Adapter:
    """A function given as `my_lab.shapes:read`; the working folder is on the path."""
    action = "Name it module:function, like my_lab.shapes:read, from its folder."
    adapter = imported(name, f"--shape {name}: there is no module of that name.", action) if is_dotted(name) else None
    if not callable(adapter):
        raise UserError(f"--shape {name} names no function.", action)
    function: Adapter = adapter
    return function
