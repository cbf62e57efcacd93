"""One request and its answers as they come: the pieces of all its parts, counted, timed, and ended when the client leaves."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from harken.serve.arms import Part
from harken.serve.backends import Piece, Started, Token
from harken.serve.errors import Refused
from harken.serve.metrics import Metrics


@dataclass
class Choice:
    """One answer so far. `first` and `last` are seconds after the request."""

    part: Part
    text: str = ""
    count: int = 0
    end: str = ""
    tokens: list[Token] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    prompt_ids: tuple[int, ...] = ()
    echo: tuple[Token, ...] = ()
    first: float | None = None
    last: float = 0.0


class Exchange:
    def __init__(self, kind: str, model: str, parts: list[Part], metrics: Metrics, seconds: float) -> None:
        self.kind, self.model, self.parts, self.metrics, self.seconds = kind, model, parts, metrics, seconds
        self.id = ("chatcmpl-" if kind == "chat" else "cmpl-") + secrets.token_hex(14)
        self.created, self.began = int(time.time()), time.monotonic()
        self.choices = [Choice(p) for p in parts for _ in range(p.job.n)]
        self.prompt_tokens: dict[int, int] = {}
        self._heard: asyncio.Queue[Any] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting = len(parts)

    @property
    def completion_tokens(self) -> int:
        return sum(c.count for c in self.choices)

    def usage(self) -> dict[str, int]:
        """A prompt that several models answer is counted once."""
        counts = {part.prompt: self.prompt_tokens.get(i, 0) for i, part in reversed(list(enumerate(self.parts)))}
        prompt = sum(counts.values())
        return {"prompt_tokens": prompt, "completion_tokens": self.completion_tokens,
                "total_tokens": prompt + self.completion_tokens}

    async def begin(self) -> None:
        """Starts all parts, and waits until each has taken its prompt: what is wrong with one is refused before anything is
        said."""
        self._timer = asyncio.get_running_loop().call_later(
            self.seconds, self._heard.put_nowait, Refused(408, f"The answer took longer than {self.seconds:g} s."))
        self._tasks = [asyncio.create_task(self._pump(i)) for i in range(len(self.parts))]
        early = []
        try:
            while self._waiting:
                item = await self._heard.get()
                if isinstance(item, Exception):
                    raise item
                if isinstance(item[1], Started):
                    self._start(*item)
                else:
                    early.append(item)
        except BaseException:
            self.leave()
            raise
        for item in early:
            self._heard.put_nowait(item)

    def _start(self, index: int, started: Started) -> None:
        self._waiting -= 1
        if started.prompt_tokens is not None:
            self.prompt_tokens[index] = started.prompt_tokens
        part = self.parts[index]
        for choice in self.choices[part.base:part.base + part.job.n]:
            choice.echo, choice.text, choice.prompt_ids = started.echo, started.echo_text, started.ids

    async def _pump(self, index: int) -> None:
        part = self.parts[index]
        try:
            async for item in part.backend.answer(part.job):
                self._heard.put_nowait((index, item))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the server's edge: the request hears it
            self._heard.put_nowait(error)

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Each piece with its choice's number, till all have ended. Raises `Refused` where one cannot be ended."""
        try:
            left = sum(not c.end for c in self.choices)
            while left:
                item = await self._heard.get()
                if isinstance(item, Exception):
                    raise item
                index, piece = item
                at = self.parts[index].base + piece.choice
                self._take(self.choices[at], piece)
                left -= bool(piece.end)
                yield at, piece
        finally:
            self.leave()

    def _take(self, choice: Choice, piece: Piece) -> None:
        now, model = time.monotonic() - self.began, self.model
        if piece.count:
            if choice.first is None:
                choice.first = now
                self.metrics.time("harken_first_token_seconds", now, model=model)
            else:
                self.metrics.time("harken_between_tokens_seconds", now - choice.last, model=model)
        choice.last = now
        choice.text += piece.text
        choice.count += piece.count
        choice.tokens += piece.tokens
        choice.ids += piece.ids
        choice.end = choice.end or piece.end

    @property
    def done(self) -> bool:
        return all(c.end for c in self.choices)

    def leave(self) -> None:
        """Whatever still runs is given up: its rows are free after the next step."""
        self._timer.cancel()
        for task in self._tasks:
            task.cancel()
