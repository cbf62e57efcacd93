"""What a server has: models, limits, keys, a database for feedback. The routes are in `app.py`.

    server = Server(Arms([backend]), db=open_database("feedback.db"))
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Connection

from harken.serve import feedback
from harken.serve.arms import Arms, Part
from harken.serve.backends import Backend
from harken.serve.errors import Refused
from harken.serve.exchange import Exchange
from harken.serve.metrics import Metrics
from harken.serve.tokens import Claim, sign
from harken.store.database import Database
from harken.web.writer import Writer

T = TypeVar("T")
Json = dict[str, Any]
log = logging.getLogger("harken.serve")
ALONE = "me"
"""The one person on this machine, where no keys are set."""
SWEEP_SECONDS = 3600.0


class Server:
    """`queue` is how many choices may wait beyond those that are answered; `seconds` how long an answer may take. Without
    `keys` (name → key) there is one person. `log_text` puts prompts and answers into the log. `adapters`
    (serve.adapters.Adapters) loads a trainer's weights; None where nobody may. `telemetry` (serve.telemetry.Telemetry) tells
    OpenTelemetry."""

    def __init__(self, arms: Arms, *, db: Database | None = None, keys: Mapping[str, str] | None = None, queue: int = 64,
                 seconds: float = 300.0, keep_hours: float = 24.0, hosts: tuple[str, ...] | None = None,
                 log_text: bool = False, adapters: Any = None, telemetry: Any = None,
                 clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.arms, self.db, self.keys, self.queue, self.seconds = arms, db, dict(keys or {}), queue, seconds
        self.keep_hours, self.hosts, self.log_text, self.clock = keep_hours, hosts, log_text, clock
        self.metrics, self.began = Metrics(), int(time.time())
        self.writer = Writer(db.link) if db is not None else None
        self.key = b""
        self._in_flight: Counter[str] = Counter()
        self._pace = 1.0
        self._tasks: list[asyncio.Task[None]] = []
        self.followed: Any = None
        self.adapters, self.telemetry = adapters, telemetry
        self.beside: list[Callable[[], Awaitable[None]]] = []
        """What runs as long as the server does."""
        for backend in arms.backends:
            self.metrics.set("harken_rows", backend.rows, model=backend.name)

    def follow(self, followed: Any) -> None:
        """Lets a loop (serve.follow.Follow) say which models answer; the page at /loop then decides on it."""
        self.followed = followed
        self.beside.append(lambda: followed.watch(self))

    async def start(self) -> None:
        if self.db is not None:
            self.key = await self.write(feedback.signing_key)
            self._tasks.append(asyncio.create_task(self._sweep()))
        for backend in self.arms.backends:
            await backend.start()
        self._tasks += [asyncio.ensure_future(work()) for work in self.beside]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for backend in self.arms.backends:
            await asyncio.to_thread(backend.close)
        if self.writer is not None:
            self.writer.close()

    async def _sweep(self) -> None:
        while True:
            with suppress(Refused):
                await self.write(lambda tx: feedback.forget(tx, self.clock()))
            await asyncio.sleep(SWEEP_SECONDS)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Runs work in a write transaction; returns when it is on the disk."""
        if self.writer is None:
            raise Refused(404, "This server keeps no feedback: it was started without --db.", code="no_feedback")
        return await self.writer.run(work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        if self.db is None:
            raise Refused(404, "This server keeps no feedback: it was started without --db.", code="no_feedback")
        link = self.db.link

        def run() -> T:
            with link.reading() as tx:
                return work(tx)
        return await asyncio.to_thread(run)

    def who(self, authorization: str) -> str:
        """The name of whoever sends this header. Raises `Refused` for a wrong key or none."""
        if not self.keys:
            return ALONE
        given = authorization[7:].strip().encode() if authorization[:7].lower() == "bearer " else b""
        names = [name for name, key in self.keys.items() if hmac.compare_digest(key.encode(), given)]
        if not given or not names:
            raise Refused(401, "Incorrect API key." if given else "This needs an API key: Authorization: Bearer KEY.",
                          code="invalid_api_key")
        return names[0]

    def take(self, parts: list[Part]) -> None:
        """Reserves rows for a request's choices, or refuses it where too many wait already."""
        wanted: Counter[str] = Counter()
        for part in parts:
            wanted[part.backend.name] += part.job.n
        for backend in {part.backend.name: part.backend for part in parts}.values():
            n, busy = wanted[backend.name], self._in_flight[backend.name]
            if busy and busy + n > backend.rows + self.queue:
                self.metrics.count("harken_shed_total", model=backend.name)
                wait = math.ceil(max(1.0, self._pace * (busy - backend.rows) / backend.rows))
                raise Refused(429, f"Too many requests wait here. Try again in {wait} s.", code="rate_limit_exceeded",
                              retry_after=min(wait, 60))
        self._add(wanted)

    def give_back(self, exchange: Exchange) -> None:
        """An exchange is over: its rows are free, its figures counted."""
        if self.telemetry is not None:
            self.telemetry.answered(exchange)
        for part in exchange.parts:
            self._add({part.backend.name: -part.job.n})
        seconds = time.monotonic() - exchange.began
        self._pace += 0.1 * (seconds - self._pace)
        model = exchange.model
        self.metrics.time("harken_request_seconds", seconds, model=model)
        self.metrics.count("harken_prompt_tokens_total", sum(exchange.prompt_tokens.values()), model=model)
        self.metrics.count("harken_completion_tokens_total", exchange.completion_tokens, model=model)

    def _add(self, counts: Mapping[str, int]) -> None:
        for name, n in counts.items():
            self._in_flight[name] += n
            self.metrics.set("harken_choices", self._in_flight[name], model=name)

    def busy(self, backend: Backend) -> bool:
        """Whether somebody still waits for an answer of it."""
        return self._in_flight[backend.name] > 0

    async def keep(self, exchange: Exchange, rater: str) -> list[str]:
        """Stores a chat's answers so that they can be judged; a token for each. None without a database."""
        if self.writer is None or exchange.kind != "chat":
            return []
        now = self.clock()
        rows = []
        for index, choice in enumerate(exchange.choices):
            job, backend = choice.part.job, choice.part.backend
            assert job.prompt is not None
            first = None if choice.first is None else round(choice.first, 3)
            source = {"model": backend.name, "weights": backend.identity, "decoding": job.settings, "asked_as": exchange.model,
                      "first_token_seconds": first, "seconds": round(choice.last, 3), "finish_reason": choice.end}
            rows.append({"id": f"{exchange.id}/{index}", "rater": rater, "prompt": job.prompt.to_json(), "text": choice.text,
                         "source": source})
        await self.write(lambda tx: feedback.keep(tx, rows, now, self.keep_hours))
        until = int(now.timestamp() + self.keep_hours * 3600)
        return [sign(self.key, Claim(exchange.id, i, rater, feedback.KINDS, until)) for i in range(len(rows))]

    def note(self, **values: Any) -> None:
        """A line of the log: no prompt, no answer, no key."""
        log.info(json.dumps(values, ensure_ascii=True, default=str))
