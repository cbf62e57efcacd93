"""A site: the database, its one writer, readers, limits and who is logged in. Its operations run here.

    site = Site(open_database("feedback.db"), api.operations, single_user=True)
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection
from starlette.requests import Request

from harken.store.database import Database
from harken.store.events import stamp
from harken.web import accounts
from harken.web.accounts import User
from harken.web.errors import ApiError
from harken.web.limits import Limits
from harken.web.operations import Call, Operation, SignedIn, Stream
from harken.web.writer import Writer

T = TypeVar("T")
COOKIE = "harken_session"
DEVICE = "harken_device"
DEVICE_DAYS = 365
CACHE_SECONDS = 2.0
READERS = 4
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class Site:
    """What the operations share: the database, its one writer, readers, limits and who is logged in."""

    def __init__(self, db: Database, operations: Mapping[str, Operation], *, single_user: bool = False,
                 hosts: tuple[str, ...] | None = LOOPBACK, limits: Limits | None = None,
                 clock: Callable[[], datetime] | None = None, idle_hours: float = accounts.IDLE_HOURS,
                 public_names: tuple[str, ...] = (), base: str = "") -> None:
        self.db, self.operations, self.hosts, self.limits = db, operations, hosts, limits or Limits()
        self.clock = clock or (lambda: datetime.now(UTC))
        self.idle_hours = idle_hours
        self.public_names = public_names
        """Host names under which its pages are reached through a proxy."""
        self.base = base
        """The path of its host below which it lives, like "/harken"; empty for a host of its own."""
        self.writer = Writer(db.link)
        self._readers = ThreadPoolExecutor(READERS, "harken-reader")
        self._hashers = ThreadPoolExecutor(1, "harken-hasher")  # 19 MiB each: one at a time, and away from the readers
        self._callers: dict[str, tuple[float, Any]] = {}
        self._noted: dict[str, str] = {}
        self._local_csrf = secrets.token_urlsafe(32)
        self._local: User | None = None
        self.address = ""
        """Where others reach it (web/address.py); empty where nobody said."""
        if single_user:
            self._local = self.writer.submit(lambda tx: accounts.local_user(tx, self.clock())).result()

    @property
    def single_user(self) -> bool:
        return self._local is not None

    def end_single_user(self) -> None:
        self._local = None

    def close(self) -> None:
        """Finishes what was accepted. May be called twice."""
        self.writer.close()
        self._readers.shutdown()
        self._hashers.shutdown()
        self.db.close()

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Runs work in a write transaction; returns when it is on the disk."""
        return await self.writer.run(work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Runs work with a reading connection, in another thread."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._reading, work)

    async def slow(self, function: Callable[..., T], *arguments: Any) -> T:
        """Runs what opens its own transactions and may take seconds, beside the readers."""
        return await asyncio.get_running_loop().run_in_executor(None, functools.partial(function, *arguments))

    async def hash(self, function: Callable[..., T], *arguments: Any) -> T:
        """Runs what takes long and much memory, a password's hash, in a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._hashers, functools.partial(function, *arguments))

    def _reading(self, work: Callable[[Connection], T]) -> T:
        with self.db.link.reading() as connection:
            return work(connection)

    def forget(self) -> None:
        """Looks everybody up anew: a session ended, a role or a setting changed."""
        self._callers.clear()

    async def who(self, request: Request) -> tuple[User | None, str, frozenset[str] | None, str | None]:
        """The caller, their CSRF token, a token's scopes, a session's secret. Known for two seconds."""
        header = request.headers.get("authorization", "")
        if header[:7].lower() == "bearer ":
            owner = await self._look_up("t" + header[7:], lambda tx: accounts.by_token(tx, header[7:], self.clock()))
            return (None, "", frozenset(), None) if owner is None else (owner[0], "", owner[1], None)
        if self._local is not None:
            local = await self._look_up("local", lambda tx: accounts.local_user(tx, self.clock()))
            return local, self._local_csrf, None, None
        secret = request.cookies.get(COOKIE)
        if not secret:
            return None, "", None, None
        session = await self._look_up("s" + secret, lambda tx: accounts.by_session(tx, secret, self.clock(), self.idle_hours))
        if session is None:
            return None, "", None, None
        self._note_use(secret, session[2])
        return session[0], session[1], None, secret

    def _note_use(self, secret: str, seen: str) -> None:
        """Writes down that a session is in use, some twenty times before it would end: not at each request."""
        now = self.clock()
        if stamp(now - timedelta(hours=self.idle_hours / 20)) <= seen or self._noted.get(secret) == seen:
            return
        if len(self._noted) > 5000:
            self._noted.clear()
        self._noted[secret] = seen
        with contextlib.suppress(ApiError):  # the writer is busy: a later request does it
            self.writer.submit(lambda tx: accounts.mark_seen(tx, secret, now))

    async def _look_up(self, key: str, find: Callable[[Connection], Any]) -> Any:
        now = time.monotonic()
        cached = self._callers.get(key)
        if cached is not None and now - cached[0] < CACHE_SECONDS:
            return cached[1]
        caller = await self.read(find)
        if len(self._callers) > 5000:
            self._callers.clear()
        if caller is not None:
            self._callers[key] = (now, caller)
        return caller

    async def call(self, request: Request, name: str, *, path: dict[str, Any] | None = None, query: dict[str, Any] | None = None,
                   body: Any = None) -> Any:
        """Runs an operation for a page, in process: the same checks, the same JSON."""
        op = self.operations[name]
        user, csrf, scopes, secret = await self.who(request)
        op.allows(user, scopes)
        answer = await self.run(op, user, csrf, scopes, secret, path or {}, query or {}, body, address_of(request))
        assert not isinstance(answer, Stream | SignedIn)
        return answer

    async def run(self, op: Operation, user: User | None, csrf: str, scopes: frozenset[str] | None, secret: str | None,
                   path: dict[str, Any], query: dict[str, Any], body: Any, address: str, device: str | None = None) -> Any:
        """Runs an operation for a caller who may; what it needs was checked."""
        def call(tx: Connection | None) -> Call:
            return Call(tx, user, path, query, body, self.clock(), self,  # type: ignore[arg-type]
                        secret, csrf, scopes, address, device)

        if asyncio.iscoroutinefunction(op.handler):
            return await op.handler(call(None))
        run = self.write if op.writes else self.read
        return await run(lambda tx: op.handler(call(tx)))


def address_of(request: Request) -> str:
    return request.client.host if request.client else ""
