"""The short way for the rows that are read most: comparisons in plain forms, with harmless fields beside them at most.

    plain_comparison({"prompt": "Hi", "chosen": "Hello.", "rejected": "Go."}, SHAPE_NAMES)   # (Choice(…), unread, notes)

What a set of field names means is decided once; values are looked at in every row. A row that is not plain in each respect, and
every wrong one, gives None and goes the long way (`shapes.read_row`), which alone refuses: both ways read a row alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from harken.core.formats import CHATML_MARK, HUMAN_TURN, is_dialogue
from harken.core.records import Choice, Message, Prompt, group_of
from harken.store.shapes.dialogue import PLAIN_ROLES, shared
from harken.store.shapes.fields import SIDES, about_row, holds_something, looked_at
from harken.store.shapes.pairs import score_fields
from harken.store.shapes.parts import Turns, transcript_pair

Compared = tuple[Turns, Sequence[str], Sequence[int]]
"""Prompt, answers, ranks."""
TEXT, NUMBER = {str}, {int}
NUMBERS = (float, int)
ROLES = tuple(PLAIN_ROLES)
NOBODY: Mapping[str, str] = {}


class _Fields(NamedTuple):
    """What a row's field names say: which comparison it is, and what stands beside it."""

    own: bool
    asked: bool
    extras: list[str]
    scores: list[tuple[str, str]]
    may_ask: list[str]
    """Those of `extras` that may hold the prompt where no field is called so."""


def plain_comparison(given: Mapping[str, Any], known: frozenset[str]) -> tuple[Choice, list[str], list[str]] | None:
    """The comparison, the fields not read (sorted) and the notes; None where the row must go the long way. `known` are the names
    that shapes are known by or prompts keep: beside a plain comparison these need a look."""
    fields = _fields(tuple(given), known)
    if fields is None:
        return None
    unread: list[str] = []
    notes: list[str] = []
    for name in fields.extras:
        value = given[name]
        if type(value) is str and value.strip().lower() in SIDES:
            return None
        if holds_something(value):
            unread.append(name)
    if fields.scores and not _note_scores(given, fields.scores, unread, notes):
        return None
    compared = _own(given) if fields.own else _pair(given, fields)
    labeler, group = given.get("labeler"), given.get("group")
    if compared is None or not (labeler is None or type(labeler) is str):
        return None
    turns, options, ranks = compared
    last = turns[-1]
    if last.role == "assistant" or not last.content.strip():
        return None
    try:
        made = Choice(Prompt(turns), tuple(options), tuple(ranks), labeler, {} if group is None else group_of(group))
    except ValueError:
        return None
    return made, unread, notes


@lru_cache(1024)
def _fields(names: tuple[str, ...], known: frozenset[str]) -> _Fields | None:
    """None where a name is missing, or one must be looked at by the shapes' functions."""
    have = set(names)
    own = "chosen" not in have
    core = {"prompt", "completions", "ranks"} if own else {"chosen", "rejected"}
    scores = [] if own else score_fields(names)
    scored = {name for pair in scores for name in pair}
    extras = sorted(have - core - scored - {"prompt", "labeler", "group"})
    if not core | scored <= have or any(looked_at(name) for name in extras) or not known.isdisjoint((*extras, *scored)):
        return None
    return _Fields(own, "prompt" in have, extras, scores, [name for name in extras if not about_row(name)])


def _note_scores(given: Mapping[str, Any], scores: Sequence[tuple[str, str]], unread: list[str], notes: list[str]) -> bool:
    """Scores of both answers stay unread; where they say the opposite of the pair, that is noted. False where one is no number."""
    for one, other in scores:
        good, bad = given[one], given[other]
        if type(good) not in NUMBERS or type(bad) not in NUMBERS:
            return False
        unread += one, other
        if good <= bad:
            notes.append(f"{other} is higher than {one}" if good < bad else f"{other} equals {one}")
    unread.sort()
    return True


def _own(given: Mapping[str, Any]) -> Compared | None:
    """`{"prompt", "completions", "ranks"}`: what `Choice.from_json` says, in a third of its time."""
    asked, options, ranks = given["prompt"], given["completions"], given["ranks"]
    if type(asked) is not str or is_dialogue(asked) or type(options) is not list or type(ranks) is not list:
        return None
    if set(map(type, options)) != TEXT or set(map(type, ranks)) != NUMBER or min(ranks) < 1:
        return None
    return (Message("user", asked),), options, ranks


def _pair(given: Mapping[str, Any], fields: _Fields) -> Compared | None:
    """`chosen` and `rejected`: both texts, both messages, or both transcripts without a prompt."""
    chosen, rejected = given["chosen"], given["rejected"]
    if type(chosen) is not type(rejected) or (fields.asked and type(given["prompt"]) not in (str, list)):
        return None
    if type(chosen) is list:
        return _dialogues(given["prompt"] if fields.asked else None, chosen, rejected)
    if type(chosen) is not str:
        return None
    if not fields.asked:
        return _transcripts(given, chosen, rejected, fields.may_ask)
    asked = given["prompt"]
    if is_dialogue(chosen) or is_dialogue(rejected) or not chosen.strip():
        return None
    if type(asked) is list:
        return (_messages(asked), (chosen, rejected), (1, 2)) if _are_plain(asked) else None
    if is_dialogue(asked) or (chosen.startswith(asked) and rejected.startswith(asked)):
        return None
    return (Message("user", asked),), (chosen, rejected), (1, 2)


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


def _transcripts(given: Mapping[str, Any], chosen: str, rejected: str, may_ask: Sequence[str]) -> Compared | None:
    """Anthropic's form: two whole dialogues as text."""
    if not (HUMAN_TURN.match(chosen) and HUMAN_TURN.match(rejected)) or CHATML_MARK in chosen or CHATML_MARK in rejected:
        return None
    if any(given[name] and isinstance(given[name], (str, list, Mapping)) for name in may_ask):
        return None
    try:
        return *transcript_pair((chosen, rejected)), (1, 2)
    except ValueError:
        return None
