"""The short way for the rows that are read most: comparisons in plain forms, with harmless fields beside them at most.

    plain_comparison({"prompt": "Hi", "chosen": "Hello.", "rejected": "Go."}, SHAPE_NAMES)   # (Choice(…), unread, notes)

What a set of field names means is decided once; values are looked at in every row. A row that is not plain in each respect, and
every wrong one, gives None and goes the long way (`shapes.read_row`), which alone refuses: both ways read a row alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from harken.core.formats import CHATML_MARK, HUMAN_TURN, is_dialogue
from harken.core.records import PROMPT_KINDS, Choice, Message, Prompt, PromptKind, group_of
from harken.store.shapes.dialogue import PLAIN_ROLES, prompt_turns, shared
from harken.store.shapes.fields import EXPORTED, LABELER_NAMES, SIDES, about_row, holds_something, looked_at, says_who
from harken.store.shapes.pairs import OWN_KINDS, score_fields, texts_compared
from harken.store.shapes.parts import Turns, number

Compared = tuple[Turns, Sequence[str], Sequence[int]]
"""Prompt, answers, ranks."""
TEXT, NUMBER = {str}, {int}
NUMBERS = (float, int)
CONTAINERS = (list, dict)
ROLES = tuple(PLAIN_ROLES)
KEPT = ("use_case", "split", "kind", "tags", "meta")
"""What a prompt keeps; tools go the long way."""
OF_CHOICE = frozenset(("group", "strength", "weight"))


class _Fields(NamedTuple):
    """What a row's field names say: which comparison it is, and what stands beside it."""

    own: bool
    asked: bool
    labeler: str
    """The field that names the labeler."""
    of_choice: bool
    """Whether there is a group, a strength, a weight or a kind of judgment."""
    kept: bool
    """Whether there is something that the prompt keeps."""
    exported: bool
    extras: list[str]
    scores: list[tuple[str, str]]
    may_ask: list[str]
    """What may hold the prompt where no field is called so."""


def plain_comparison(given: Mapping[str, Any], known: frozenset[str]) -> tuple[Choice, list[str], list[str]] | None:
    """The comparison, the fields not read (sorted) and the notes; None where the row must go the long way. `known` are the names
    that shapes are known by or prompts keep: beside a plain comparison these need a look."""
    fields = _fields(tuple(given), known)
    if fields is None or (fields.exported and given["form_version"] is None):
        return None
    unread: list[str] = []
    notes: list[str] = []
    for name in fields.extras:
        value = given[name]
        if (type(value) is str and (value.strip().lower() in SIDES or (value[:1] in "[{" and says_who(value)))) \
                or (type(value) in CONTAINERS and says_who(value)):
            return None
        if holds_something(value):
            unread.append(name)
    if fields.scores and not _note_scores(given, fields.scores, unread, notes):
        return None
    try:
        compared = _own(given) if fields.own else _pair(given, fields)
        made = compared and _choice(given, fields, *compared)
    except ValueError:  # the long way says what is wrong
        return None
    return (made, unread, notes) if made else None


def _choice(given: Mapping[str, Any], fields: _Fields, turns: Turns, options: Sequence[str],
            ranks: Sequence[int]) -> Choice | None:
    last = turns[-1]
    if last.role == "assistant" or not last.content.strip():
        return None
    labeler = given.get(fields.labeler)
    if type(labeler) is int:
        labeler = str(labeler)
    elif labeler is not None and type(labeler) is not str:
        return None
    asked = _prompt(given, turns) if fields.kept else Prompt(turns)
    if asked is None:
        return None
    if not fields.of_choice:
        return Choice(asked, tuple(options), tuple(ranks), labeler)
    kind = given.get("judgment_kind")
    if kind is not None and kind not in OWN_KINDS:
        return None
    strength, weight = given.get("strength"), given.get("weight")
    if not (_is_size(strength) and _is_size(weight)):
        return None
    return Choice(asked, tuple(options), tuple(ranks), labeler, group_of(given.get("group")), kind or "ranking", number(strength),
                  number(weight))


def _is_size(value: object) -> bool:
    """Whether a weight or a strength is missing, or a finite number of at least 0."""
    return value is None or (type(value) in NUMBERS and 0 <= value < math.inf)  # type: ignore[operator]


def _prompt(given: Mapping[str, Any], turns: Turns) -> Prompt | None:
    """The prompt with what it keeps of a row, where that is of Harken's types."""
    use_case, split, kind, tags, meta = (given.get(name) for name in KEPT)
    if not ((use_case is None or type(use_case) is str) and (split is None or type(split) is str)
            and (meta is None or type(meta) is dict) and (kind is None or (type(kind) is str and kind in PROMPT_KINDS))):
        return None
    if tags is not None and (type(tags) is not list or not set(map(type, tags)) <= TEXT):
        return None
    return Prompt(turns, use_case, cast(PromptKind, kind) or "plain", tuple(tags or ()), split, dict(meta or {}))


@lru_cache(1024)
def _fields(names: tuple[str, ...], known: frozenset[str]) -> _Fields | None:
    """None where a name is missing, or one must be looked at by the shapes' functions."""
    have = set(names)
    own, labelers = "chosen" not in have, [name for name in LABELER_NAMES if name in have]
    core = {"prompt", "completions", "ranks"} if own else {"chosen", "rejected"}
    scores = [] if own else score_fields(names)
    of_choice = have & (OF_CHOICE | {"judgment_kind"} if own else OF_CHOICE)
    exported = have.intersection(EXPORTED) if "form_version" in have else set()
    beside = exported.union(*scores)
    extras = sorted(have - core - beside - of_choice - {"prompt", *labelers, *KEPT})
    if not core <= have or not beside <= have or len(labelers) > 1 or any(looked_at(name) for name in extras) \
            or not known.isdisjoint((*extras, *beside)):
        return None
    return _Fields(own, "prompt" in have, (labelers or ["labeler"])[0], bool(of_choice), not have.isdisjoint(KEPT),
                   bool(exported), extras, scores, [name for name in have - core if not about_row(name)])


def _note_scores(given: Mapping[str, Any], scores: Sequence[tuple[str, str]], unread: list[str], notes: list[str]) -> bool:
    """Both answers' scores stay unread; where they say the opposite of the pair, that is noted. False: one is no number."""
    for one, other in scores:
        good, bad = given[one], given[other]
        if type(good) not in NUMBERS or type(bad) not in NUMBERS:
            return False
        unread += one, other
        if "rank" in one.lower():  # 1 is the best
            good, bad = bad, good
        if good <= bad:
            notes.append(f"{other} is higher than {one}" if good < bad else f"{other} equals {one}")
    unread.sort()
    return True


def _own(given: Mapping[str, Any]) -> Compared | None:
    """`{"prompt", "completions", "ranks"}`: what `Choice.from_json` says, in a third of its time."""
    options, ranks = given["completions"], given["ranks"]
    if type(options) is not list or type(ranks) is not list:
        return None
    if set(map(type, options)) != TEXT or set(map(type, ranks)) != NUMBER or min(ranks) < 1:
        return None
    turns = _asked(given["prompt"])
    return (turns, options, ranks) if turns else None


def _asked(value: object) -> Turns | None:
    """A prompt of plain text or plain messages."""
    if type(value) is str:
        return None if is_dialogue(value) else (Message("user", value),)
    return _messages(value) if type(value) is list and _are_plain(value) else None


def _pair(given: Mapping[str, Any], fields: _Fields) -> Compared | None:
    """`chosen` and `rejected`: both texts or both messages."""
    chosen, rejected = given["chosen"], given["rejected"]
    asked = given["prompt"] if fields.asked else None
    if type(chosen) is not type(rejected) or (fields.asked and type(asked) is not str and type(asked) is not list):
        return None
    if type(chosen) is list:
        return _dialogues(asked, chosen, rejected)
    if type(chosen) is not str or not chosen.strip():
        return None
    if asked is None:
        if any(given[name] and isinstance(given[name], (str, list, Mapping)) for name in fields.may_ask):
            return None
        return (*texts_compared(None, None, [chosen, rejected]), (1, 2)) if _is_text(chosen) and _is_text(rejected) else None
    if not (_is_text(chosen) and _is_text(rejected)):
        return None
    if type(asked) is str and not chosen.startswith(asked) and not is_dialogue(asked) and not HUMAN_TURN.match(chosen):
        return (Message("user", asked),), (chosen, rejected), (1, 2)  # nearly every pair
    turns = prompt_turns(asked) if type(asked) is str and HUMAN_TURN.match(asked) else _asked(asked)
    return (*texts_compared(turns, asked, [chosen, rejected]), (1, 2)) if turns else None


def _is_text(text: str) -> bool:
    """Whether a text is no dialogue in another form than a transcript."""
    return not is_dialogue(text) or (CHATML_MARK not in text and HUMAN_TURN.match(text) is not None)


def _dialogues(asked: Any, chosen: list[Any], rejected: list[Any]) -> Compared | None:
    """Messages: answers to the prompt, or conversations that begin alike. They are compared as given, and built once."""
    if not (_are_plain(chosen) and _are_plain(rejected)):
        return None
    if type(asked) is str:
        if is_dialogue(asked):
            return None
        asked = [{"role": "user", "content": asked}]
    elif asked is not None and not _are_plain(asked):
        return None
    n = 0
    if asked is None or (len(chosen) > 1 and chosen[:len(asked)] == asked == rejected[:len(asked)]):
        n = min(shared(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
        asked = chosen[:n]
    one, other = chosen[n], rejected[n]
    if not asked or len(chosen) != n + 1 or len(rejected) != n + 1 or not one["role"] == other["role"] == "assistant":
        return None
    return _messages(asked), (one["content"], other["content"]), (1, 2)


def _are_plain(given: Sequence[Any]) -> bool:
    """Whether a list is messages of a role and a text, and nothing else."""
    for message in given:
        if type(message) is not dict or len(message) != 2 or message.get("role") not in ROLES \
                or type(message.get("content")) is not str:
            return False
    return bool(given)


def _messages(given: Sequence[Mapping[str, Any]]) -> Turns:
    return tuple([Message(m["role"], m["content"]) for m in given])
