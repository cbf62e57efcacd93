"""Where a text's segments end: sentences, lines, or the whole document.

    segment_ends("One. Two.", "sentence")      # [5, 9]: "One. " and "Two."

Segments follow one another without a gap, so joined they are the text again. Whether one ends is decided by what was read
so far, never by what follows: training and sampling then cut at the same places, and a sampler knows at once when to put
the next control token. So a sentence keeps the one white space that closed it ("One. "), and a line its line feed.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from harken.core.errors import UserError

SEGMENTERS = {"sentence": "sentence/1", "line": "line/1", "document": "document/1"}
"""Name -> name and version: change the version with the rule, since annotations are filed under it."""

_CLOSED = re.compile(r"[.!?…]['\")\]’”»]*\s|[。！？]|\n\n", re.UNICODE)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'“‘\[])(?:Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|Mt|vs|etc|Inc|Ltd|Co|Corp|No|Nos|Fig|Figs|Eq|Eqs|Sec|Vol|pp|cf|al|approx|"
    r"e\.g|i\.e|Gen|Col|Capt|Lt|Rev|Hon|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec|[A-Z]|(?:[A-Z]\.)+[A-Z])\.\s$")
LOOK_BACK = 24
"""Characters before a full stop that can make it an abbreviation's."""


def check_segmenter(name: str) -> str:
    """The segmenter's name with its version. Raises `UserError` for an unknown one."""
    if name not in SEGMENTERS:
        raise UserError(f"--segment {name!r} is unknown.", f"Use one of {', '.join(SEGMENTERS)}.")
    return SEGMENTERS[name]


def segment_ends(text: str, segmenter: str) -> list[int]:
    """Offset in characters after each segment; the last is `len(text)`. An empty text has none."""
    if not text:
        return []
    ends = _sentences(text) if segmenter == "sentence" else _lines(text) if segmenter == "line" else []
    return ends if ends and ends[-1] == len(text) else [*ends, len(text)]


def segments(text: str, segmenter: str) -> list[str]:
    """The segments themselves: joined they are the text."""
    ends = segment_ends(text, segmenter)
    return [text[a:b] for a, b in zip([0, *ends], ends)]


def ends_segment(segmenter: str) -> Callable[[str], bool]:
    """Whether a text read so far ends with the end of a segment: what a sampler asks after every token.

    The last `LOOK_BACK + 4` characters are enough. A document's end is its end token, so that "document" always answers no.
    """
    if segmenter == "line":
        return lambda text: text.endswith("\n")
    if segmenter == "document":
        return lambda text: False
    return lambda text: bool(text) and text[-1] in "\n \t\r\u00a0\u3000。！？" and _sentences(text)[-1:] == [len(text)]


def _lines(text: str) -> list[int]:
    return [m.end() for m in re.finditer("\n", text)]


def _sentences(text: str) -> list[int]:
    ends = []
    for match in _CLOSED.finditer(text):
        end = match.end()
        if text[match.start()] == "." and _ABBREVIATION.search(text, max(0, end - LOOK_BACK), end):
            continue
        ends.append(end)
    return ends
