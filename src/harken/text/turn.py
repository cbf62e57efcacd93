"""Where an answer begins and ends in a chat template: found once, by letting it write one.

    turn = find_turn(render, tokens)        # turn.scaffold, turn.blank, turn.gap, turn.end
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harken.core.errors import UserError
from harken.text.control import Ids, Tokens

ANSWER, QUESTION = "Answer", "question"
THOUGHTS = re.compile("think|thought|reason|analysis", re.I)
"""How templates name what a model says to itself."""
OTHER = "Give another with --template, or use another model."
Render = Callable[[Sequence[Mapping[str, Any]], bool], str]


def said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


@dataclass(frozen=True)
class Turn:
    """How a template writes an answer after its generation prompt: `scaffold`, `blank`, the text, `gap`, `end`.

    `before` is the end of what stands before the text, from its last control token on.
    """

    scaffold: str
    blank: str
    gap: str
    end: int
    before: str = ""
    notes: tuple[str, ...] = ()


def find_turn(render: Render, tokens: Tokens) -> Turn:
    """Raises `UserError` for a template that writes no answer, or whose answers nothing ends."""
    opened = render([said("user", QUESTION)], True)
    last = render([said("user", QUESTION), said("assistant", ANSWER)], False)
    try:
        within = render([said("user", QUESTION), said("assistant", ANSWER), said("user", QUESTION)], True)
    except UserError:
        within = ""
    head, answered, tail = last.rpartition(ANSWER)
    if not answered:
        raise UserError("The model's chat template does not write the assistant's answer.", OTHER)
    heads = [h for h in (within.partition(ANSWER)[0] if ANSWER in within else None, head) if h is not None]
    lead, notes = _lead(opened, heads)
    place = _last_control(tokens, lead)
    gap, end = _close(tail, opened, within, tokens)
    eos = tokens.tokenizer.eos_token_id
    if eos is not None and end != eos:
        notes += (f"The template ends an answer with {tokens.control[end]}, the tokenizer a text with "
                  f"{tokens.tokenizer.eos_token}: the first is learnt, both stop an answer.",)
    whole = opened + lead[:place]
    return Turn(lead[:place], lead[place:], gap, end, whole[_last_start(tokens, whole):], notes)


def text_end(tokens: Tokens, lacks: str) -> int:
    """The end-of-text token. Raises `UserError`, saying what `lacks`, where there is none."""
    eos = tokens.tokenizer.eos_token_id
    if eos is None:
        raise UserError(lacks, f"The model could not learn to stop. {OTHER}")
    return int(eos)


def _lead(opened: str, heads: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """What stands between the generation prompt and an answer, in earlier turns or in the last one (which ends `heads`).

    Thoughts are not the answer's: a template writes an empty block of them, and the generation prompt leaves them to the model.
    """
    last = heads[-1]
    thought = last[len(opened):] if last.startswith(opened) and THOUGHTS.search(last[len(opened):]) else ""
    notes = (f"The template writes {thought!r} before an answer, its generation prompt does not: answers are learnt without it.",)
    for head in heads:
        rest = head[len(opened):] if head.startswith(opened) else "" if head.rstrip() == opened.rstrip() else None
        if rest is not None and not THOUGHTS.search(rest):
            return rest, notes if thought else ()
    if thought:
        return "", notes
    same = _same(opened, last)
    return "", (f"The template opens an answer that is to come with {opened[same:]!r} and a given one with {last[same:]!r}: "
                "answers are learnt and sampled after the first.",)


def _close(tail: str, opened: str, within: str, tokens: Tokens) -> tuple[str, int]:
    """(what stands between an answer and its end, the token that ends it)."""
    if not tail.strip() and ANSWER in within:
        # Some templates end a turn only where another follows; what opens that one is no end.
        between, user = within.partition(ANSWER)[2].partition(QUESTION)[0], opened.partition(QUESTION)[0]
        tail = between[:len(between) - _same(between[::-1], user[::-1])]
    if place := tokens.first_control(tail):
        end, start, _ = place
        return tail[:start], end
    return tail.rstrip() if tail.strip() else "", text_end(tokens, "The model's chat template ends a turn with no special token.")


def _same(a: str, b: str) -> int:
    """How many characters two texts begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def _last_control(tokens: Tokens, text: str) -> int:
    """Where the last control token ends; 0 without one."""
    return max((b for _, _, b in tokens.places(text)), default=0)


def _last_start(tokens: Tokens, text: str) -> int:
    return max((a for _, a, _ in tokens.places(text)), default=0)


def in_context(turn: Turn, tokens: Tokens) -> Ids | None:
    """The ids of `turn.before`, where an answer's ids depend on what stands before it (tokenizers that put a blank before every
    text); None where they don't."""
    before, body = tokens.parse(turn.before), turn.blank + ANSWER
    whole = tokens.parse(turn.before + body)
    follows = whole[:len(before)] == before
    return before if follows and whole[len(before):] != tokens.parse(body) else None
