"""Weights in this process: continuous batching, tokens as text with their log-probs.

The answers are `harken sample`'s with the same seed; a user's text never becomes a control token (text/template.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import cached_property
from typing import Any

from harken.core.errors import UserError
from harken.engines.live import Ask, Event, Failed, Live, Said, Score, Scored
from harken.serve.backends import Piece, Started, Token, identity_of
from harken.serve.errors import Refused, bad
from harken.serve.shapes import Job
from harken.text.streaming import BROKEN, Streamed


class Weights:
    """`sampler` has an engine and `seen` (what the model is given). `max_tokens` is an answer's length where nobody asks for
    another; `context` the most tokens of prompt and answer."""

    def __init__(self, name: str, sampler: Any, *, rows: int, context: int, max_tokens: int) -> None:
        self.name, self.sampler, self.rows, self.context, self.max_tokens = name, sampler, rows, context, max_tokens
        self.template = sampler.engine.template
        self.identity = identity_of(sampler.lineage)
        self._heard: dict[int, asyncio.Queue[Event]] = {}
        self._live: Live | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()

        def deliver(events: list[Event]) -> None:
            loop.call_soon_threadsafe(self._hear, events)
        self._live = Live(self.sampler, deliver, self.rows)

    def close(self) -> None:
        if self._live is not None:
            self._live.close()

    def _hear(self, events: list[Event]) -> None:
        for event in events:
            line = self._heard.get(id(event.ask))
            if line is not None:
                line.put_nowait(event)

    def check(self, job: Job) -> None:
        if job.n > self.rows:
            raise bad(f"n must be at most {self.rows} here.", "n")
        size = self.sampler.engine.model.get_output_embeddings().weight.shape[0]
        if any(token >= size for token, _ in job.bias):
            raise bad(f"logit_bias: this model's token ids are below {size}.", "logit_bias")
        if any(token >= size for token in job.ids):
            raise bad(f"prompt: this model's token ids are below {size}.", "prompt")

    def prompt_ids(self, job: Job) -> tuple[int, ...]:
        where = "messages" if job.prompt is not None else "prompt"
        try:
            ids = self.template.prompt_ids(self.sampler.seen(job.prompt)) if job.prompt is not None else \
                job.ids or self.template.continued_ids(job.text)
        except UserError as error:
            raise bad(str(error), where) from None
        wanted = self._wanted(job, len(ids))
        if len(ids) + wanted > self.context or wanted < 0:
            raise bad(f"The prompt has {len(ids)} tokens; with {max(wanted, 1)} new ones it exceeds the context of "
                      f"{self.context}. Shorten it, or lower max_tokens.", where, "context_length_exceeded")
        return tuple(ids)

    def _wanted(self, job: Job, used: int) -> int:
        if job.max_tokens is not None:
            return job.max_tokens
        return min(self.max_tokens, self.context - used) if used < self.context else -1

    async def answer(self, job: Job) -> AsyncIterator[Started | Piece]:
        ids = self.prompt_ids(job)
        yield await self._started(job, ids)
        if not (wanted := self._wanted(job, len(ids))):
            for choice in range(job.n):
                yield Piece(choice, "", end="length")
            return
        ask = Ask(ids, job.n, wanted, job.temperature, job.top_p, job.seed, dict(job.bias), job.top or 0)
        streams = [Streamed(self.template, job.stop) for _ in range(job.n)]
        ended = 0
        line = self._listen(ask)
        try:
            while ended < job.n:
                said = await line.get()
                if isinstance(said, Failed):
                    raise Refused(503, "The machine failed at this request (out of memory?).", retry_after=5)
                assert isinstance(said, Said)
                stream = streams[said.choice]
                if stream.stopped:
                    continue
                text = stream.push(said.token)
                if said.end:
                    text += stream.finish()
                if stream.stopped and not said.end:
                    self.live.cancel(ask, said.choice)
                end = "stop" if stream.stopped else said.end
                ended += bool(end)
                last = said.end == "stop" and said.token in self.template.stop_ids
                shown = job.top is not None and (job.with_ids or not last)
                tokens = (self._token(said.token, said.logp, said.top),) if shown else ()
                yield Piece(said.choice, text, 1, tokens, end, (said.token,) if job.with_ids else ())
        finally:
            self._leave(ask, cancel=ended < job.n)

    @property
    def live(self) -> Live:
        assert self._live is not None, "not started"
        return self._live

    def _listen(self, ask: Ask | Score) -> asyncio.Queue[Event]:
        line: asyncio.Queue[Event] = asyncio.Queue()
        self._heard[id(ask)] = line
        self.live.submit(ask)
        return line

    def _leave(self, ask: Ask | Score, cancel: bool) -> None:
        self._heard.pop(id(ask), None)
        if cancel:
            self.live.cancel(ask)

    async def _started(self, job: Job, ids: tuple[int, ...]) -> Started:
        if not job.echo:
            return Started(len(ids), ids=ids if job.with_ids else ())
        text = job.text or str(self.template.tokenizer.decode(ids))
        if job.top is None:
            return Started(len(ids), (), text)
        score = Score(ids, job.top)
        line, scored = self._listen(score), None
        try:
            scored = await line.get()
        finally:
            self._leave(score, cancel=scored is None)
        if not isinstance(scored, Scored):
            raise Refused(503, "The machine failed at this request (out of memory?).", retry_after=5)
        first = self._token(ids[0], None, [])
        rest = (self._token(i, p, t) for i, p, t in zip(ids[1:], scored.logps, scored.tops))
        return Started(len(ids), (first, *rest), text)

    def _token(self, token: int, logp: float | None, top: list[tuple[int, float]]) -> Token:
        text, raw = self.spelling(token)
        return Token(text, raw, logp, tuple((*self.spelling(i), p) for i, p in top))

    def spelling(self, token: int) -> tuple[str, tuple[int, ...]]:
        """A token's text and its bytes: part of a character has bytes of its own where the tokenizer works on bytes."""
        if token not in self._spelt:
            text = str(self.template.tokenizer.decode([token]))
            piece = self.template.tokenizer.convert_ids_to_tokens(token)
            raw = text.encode("utf-8", "replace")
            if BROKEN in text and piece is not None and all(c in self._bytes for c in piece):
                raw = bytes(self._bytes[c] for c in piece)
            self._spelt[token] = text, tuple(raw)
        return self._spelt[token]

    @cached_property
    def _spelt(self) -> dict[int, tuple[str, tuple[int, ...]]]:
        return {}

    @cached_property
    def _bytes(self) -> dict[str, int]:
        """GPT-2's letters for bytes: printable ones stand for themselves, the others follow from U+0100 on."""
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [b for b in range(256) if b not in printable]
        return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
