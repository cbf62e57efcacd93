"""What people wrote, on a terminal: a name must not colour the screen, clear it, or turn a line round.

    with plain_output():
        print("who: \\x1b[2J")        # shows who: \\u001b[2J and leaves the screen as it is
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

CODES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys and does not show: control codes but tab and newline, and what turns a line's direction."""


def visible(text: str) -> str:
    """The text with every such code written out, so that JSON stays JSON: \\u001b, \\u202e. Newlines and tabs stay."""
    return CODES.sub(lambda code: f"\\u{ord(code[0]):04x}", text)


def one_line(name: str) -> str:
    """A name for a table or within a sentence: newlines and tabs are written out, too, or it could forge a line."""
    return visible(name).replace("\n", "\\n").replace("\t", "\\t")


class Plain:
    """A stream that writes codes out. What Rich draws itself passes: it asks for `rich_proxied_file` and writes there."""

    def __init__(self, stream: IO[str]) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(visible(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextmanager
def plain_output() -> Iterator[None]:
    """All that is printed meanwhile goes through `visible`."""
    before = sys.stdout
    sys.stdout = Plain(before)
    try:
        yield
    finally:
        sys.stdout = before
