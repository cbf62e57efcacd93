"""Which characters of a rendered conversation people wrote, and which the template.

    text, written = trace(render, messages, tools, risky)       # written[i]: character i is content

The conversation is rendered again with every character of its content moved to a plane of Unicode that nobody writes; moved
back, it must be the same text. Some templates look into what they are given (a `</think>` in an answer): then the characters are
not moved inside control tokens, which are put between two marks instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SHIFT, PLANES, END = 0xF0000, 0x1FFF0, 0x10FFF0
"""Characters of the first two planes of Unicode are moved into the last two."""
OPEN, CLOSE = chr(END), chr(END + 1)
KEPT = '"\\'
"""JSON would write these as two characters."""

Render = Callable[[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]], str]


def _movable(c: str) -> bool:
    return c.isprintable() and not c.isspace() and c not in KEPT and ord(c) < PLANES


def _move(text: str) -> str:
    return "".join(chr(SHIFT + ord(c)) if _movable(c) else c for c in text)


def _unescape(text: str) -> str:
    """With what JSON in ASCII made of moved characters taken back."""
    def character(found: re.Match[str]) -> str:
        pair = str(json.loads(f'"{found[0]}"'))
        return pair if ord(pair) >= SHIFT else found[0]
    return re.sub(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}", character, text)


def _back(text: str) -> tuple[str, list[bool]]:
    moved = [SHIFT <= ord(c) < END for c in text]
    return "".join(chr(ord(c) - SHIFT) if m else c for c, m in zip(text, moved)), moved


Change = Callable[[str], str]
Test = Callable[[str], bool]


def _changed(value: Any, change: Change, risky: Test, name: Test) -> Any:
    """The value with every risky text in it changed, but for the names that templates look up."""
    if isinstance(value, str):
        return change(value) if risky(value) else value
    if isinstance(value, Mapping):
        return {k if name(k) else _changed(k, change, risky, name): _changed(v, change, risky, name) for k, v in value.items()}
    return [_changed(v, change, risky, name) for v in value] if isinstance(value, list | tuple) else value


def _texts(value: Any) -> list[str]:
    """Every text in a value."""
    if isinstance(value, str):
        return [value]
    parts = [*value, *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else []
    return [text for part in parts for text in _texts(part)]


def trace(render: Render, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]],
          risky: Test, control: Sequence[str]) -> tuple[str, list[bool]]:
    """The rendered text, and for each of its characters whether a person wrote it.

    Where the template sees the marks and writes other words, those are the text: control cannot come in.
    """
    lowered = [t.lower() for t in control]

    def name(word: Any) -> bool:
        """Of a field or a role that a template may look up; one that holds a control token is no name."""
        return isinstance(word, str) and word.isascii() and word.isidentifier() and not any(t in word.lower() for t in lowered)

    def changed(change: Change) -> tuple[list[dict[str, Any]], list[Any]]:
        turns = [{"role": m["role"] if name(m["role"]) else change(m["role"]),
                  **{k: _changed(v, change, risky, name) for k, v in m.items() if k != "role"}} for m in messages]
        return turns, [_changed(t, change, risky, name) for t in tools]

    text, given = render(messages, tools), _texts([list(messages), list(tools)])
    # What cannot be moved, no template writes; but for quotes, which may be a control token of their own.
    foreign = {c for part in given for c in part if not _movable(c) and not c.isspace() and c not in KEPT}
    if not any(t in part for t in control if not any(map(_movable, t)) for part in given):
        try:
            moved, written = _back(_unescape(render(*changed(_move))))
        except Exception:  # a template may refuse what it does not know, and raises what its author chose
            moved = ""
        if moved == text:
            return text, [w or c in foreign for w, c in zip(written, text)]
    tokens = re.compile("|".join(re.escape(t) for t in sorted(control, key=len, reverse=True)))

    def mark(part: str) -> str:
        part = part.replace(OPEN, "").replace(CLOSE, "")
        out, at = [], 0
        for found in tokens.finditer(part):
            out += [_move(part[at:found.start()]), OPEN, found[0], CLOSE]
            at = found.end()
        return "".join([*out, _move(part[at:])])

    marked, written = _unmark(_unescape(render(*changed(mark))), tokens)
    written = [w or c in foreign for w, c in zip(written, marked)]
    if "".join(marked.split()) != "".join(text.split()):
        return marked, written
    letters = iter([w for w, c in zip(written, marked) if not c.isspace()])  # blanks that the marks kept from being cut differ
    return text, [not c.isspace() and next(letters) for c in text]


def _unmark(text: str, tokens: re.Pattern[str]) -> tuple[str, list[bool]]:
    """Without marks: what stood between two of them was written by a person."""
    out: list[str] = []
    written: list[bool] = []
    for part in re.split(f"({OPEN}(?:{tokens.pattern}){CLOSE}|[{OPEN}{CLOSE}])", text):
        between = len(part) > 2 and part[0] == OPEN
        plain, moved = _back(part.strip(OPEN + CLOSE))
        out.append(plain)
        written += [True] * len(plain) if between else moved
    return "".join(out), written
