"""A growing answer as text: what can be shown of it after each token, up to a stop text.

    stream = Streamed(template, stop=["\\n\\n"])
    stream.push(token)           # the text that is certain now: no half character, nothing that may begin a stop text
    stream.finish()              # the rest; `stream.text` is then what `template.decode` says of the ids
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WHOLE = 12
"""So many tokens are decoded from the start: what opens a turn is cut off there. Later ones with a few before them alone."""
BROKEN = "\ufffd"


class Streamed:
    def __init__(self, template: Any, stop: Sequence[str] = ()) -> None:
        self.template, self.stop = template, tuple(stop)
        self.ids: list[int] = []
        self.text, self.stopped = "", False
        """All that is known of the text, and whether a stop text ended it."""
        gap = template.turn.gap
        self._held_back = (*self.stop, *((gap,) if gap else ()))
        self._sent = self._from = self._read = 0

    def push(self, token: int) -> str:
        """The next token; returns the text that is new and certain. After a stop text nothing more is said."""
        if self.stopped:
            return ""
        self.ids.append(token)
        if token in self.template.stop_ids:
            return ""
        if len(self.ids) <= WHOLE or not self._read:
            text = self.template.decode(self.ids)
            if text.endswith(BROKEN):  # half a character: the next token may complete it
                return ""
            self.text, self._read = text, len(self.ids)
            self._from = self._read // 2  # some tokens before, so that joined letters and spaces come out right
        else:
            decode = self.template.tokenizer.decode
            before, now = decode(self.ids[self._from:self._read]), decode(self.ids[self._from:])
            if now.endswith(BROKEN):
                return ""
            self.text += now[len(before):]
            self._from, self._read = self._read, len(self.ids)
        return self._new()

    def _new(self) -> str:
        at = min((i for s in self.stop if (i := self.text.find(s, max(0, self._sent - len(s)))) >= 0), default=-1)
        if at >= 0:
            self.stopped, self.text = True, self.text[:at]
            return self._send(at)
        certain = len(self.text) - max((held(self.text, s) for s in self._held_back), default=0)
        return self._send(certain)

    def _send(self, end: int) -> str:
        new = self.text[self._sent:end]
        self._sent = max(self._sent, end)
        return new

    def finish(self) -> str:
        """There are no more tokens: the rest of the text."""
        if not self.stopped:
            whole = self.template.decode(self.ids)
            at = min((i for s in self.stop if (i := whole.find(s)) >= 0), default=-1)
            self.stopped = at >= 0
            self.text = whole[:at] if self.stopped else whole
        return self._send(len(self.text))


def held(text: str, stop: str) -> int:
    """How many of the text's last characters may begin `stop`."""
    return next((n for n in range(min(len(text), len(stop)), 0, -1) if stop.startswith(text[-n:])), 0)
