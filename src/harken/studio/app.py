"""The studio as an ASGI application: from a request to an operation and back, and what guards the way.

    studio = Studio(open_database("feedback.db"), single_user=True)
    app = create_app(studio)
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from sqlalchemy import Connection
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from harken.store.database import Database
from harken.studio import accounts, api, api_account, api_label, api_lead, api_project, api_review  # noqa: F401  operations
from harken.studio.api import BODY_BYTES, IMPORT_BYTES, OPERATIONS, Call, Operation, SignedIn, Stream, number_in_path
from harken.studio.errors import ApiError, told
from harken.studio.leases import User
from harken.studio.limits import Limits
from harken.studio.schema import check
from harken.studio.writer import Writer

T = TypeVar("T")
COOKIE = "harken_session"
CACHE_SECONDS = 2.0
READERS = 4
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
                               "connect-src 'self'; manifest-src 'self'; worker-src 'self'; form-action 'self'; "
                               "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY", "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class Studio:
    """What the operations share: the database, its one writer, readers, limits and who is logged in."""

    def __init__(self, db: Database, *, single_user: bool = False, hosts: tuple[str, ...] | None = LOOPBACK,
                 limits: Limits | None = None, clock: Callable[[], datetime] | None = None) -> None:
        self.db, self.hosts, self.limits = db, hosts, limits or Limits()
        self.clock = clock or (lambda: datetime.now(UTC))
        self.writer = Writer(db.link)
        self._readers = ThreadPoolExecutor(READERS, "harken-reader")
        self._hashers = ThreadPoolExecutor(1, "harken-hasher")  # 19 MiB each: one at a time, and away from the readers
        self._known: dict[str, tuple[float, Any]] = {}
        self._local_csrf = secrets.token_urlsafe(32)
        self._local: User | None = None
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
        self._known.clear()

    async def who(self, request: Request) -> tuple[User | None, str, frozenset[str] | None, str | None]:
        """The caller, their CSRF token, a token's scopes, a session's secret. Known for two seconds."""
        said = request.headers.get("authorization", "")
        if said[:7].lower() == "bearer ":
            found = await self._look_up("t" + said[7:], lambda tx: accounts.by_token(tx, said[7:], self.clock()))
            return (None, "", frozenset(), None) if found is None else (found[0], "", found[1], None)
        if self._local is not None:
            local = await self._look_up("local", lambda tx: accounts.local_user(tx, self.clock()))
            return local, self._local_csrf, None, None
        secret = request.cookies.get(COOKIE)
        if not secret:
            return None, "", None, None
        found = await self._look_up("s" + secret, lambda tx: accounts.by_session(tx, secret, self.clock()))
        return (None, "", None, None) if found is None else (found[0], found[1], None, secret)

    async def _look_up(self, key: str, find: Callable[[Connection], Any]) -> Any:
        now = time.monotonic()
        known = self._known.get(key)
        if known is not None and now - known[0] < CACHE_SECONDS:
            return known[1]
        found = await self.read(find)
        if len(self._known) > 5000:
            self._known.clear()
        if found is not None:
            self._known[key] = (now, found)
        return found

    async def call(self, request: Request, name: str, *, path: dict[str, Any] | None = None, query: dict[str, Any] | None = None,
                   body: Any = None) -> Any:
        """Runs an operation for a page, in process: the same checks, the same JSON."""
        op = OPERATIONS[name]
        user, csrf, scopes, secret = await self.who(request)
        op.allows(user, scopes)
        answer = await self._run(op, user, csrf, scopes, secret, path or {}, query or {}, body, _address(request))
        assert not isinstance(answer, Stream | SignedIn)
        return answer

    async def _run(self, op: Operation, user: User | None, csrf: str, scopes: frozenset[str] | None, secret: str | None,
                   path: dict[str, Any], query: dict[str, Any], body: Any, address: str) -> Any:
        def call(tx: Connection | None) -> Call:
            return Call(tx, user, path, query, body, self.clock(), self, secret, csrf, scopes, address)  # type: ignore[arg-type]

        if asyncio.iscoroutinefunction(op.handler):
            return await op.handler(call(None))
        run = self.write if op.writes else self.read
        return await run(lambda tx: op.handler(call(tx)))

    async def answer(self, op: Operation, request: Request) -> Response:
        """One API request, from guards to JSON."""
        guard_host(self, request)
        user, csrf, scopes, secret = await self.who(request)
        self.limits.calls.take((user.id if user else None, _address(request)))
        if op.method != "GET":
            guard_origin(request)
        op.allows(user, scopes)
        if op.method != "GET" and op.who != "anyone" and scopes is None and not secrets.compare_digest(
                request.headers.get("x-harken-csrf", "").encode(), csrf.encode()):
            raise ApiError("csrf", "The request does not come from a page of this studio.",
                           "Send the header X-Harken-CSRF with the value from GET /api/me.")
        path = {k: number_in_path(v) if k != "version" else v for k, v in request.path_params.items()}
        query = op.read_query(request.query_params)
        body = await read_body(op, request)
        return respond(op, await self._run(op, user, csrf, scopes, secret, path, query, body, _address(request)), request)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def guard_host(studio: Studio, request: Request) -> None:
    """A page elsewhere can make a browser reach loopback under its own name (DNS rebinding): only known names are served."""
    if studio.hosts is None:
        return
    host = request.headers.get("host", "")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if name not in studio.hosts:
        raise ApiError("host", "This studio does not serve that host name.", "Open the address that harken studio printed.")
    if studio.single_user and any(h in request.headers for h in ("x-forwarded-for", "forwarded", "x-real-ip")):
        raise ApiError("proxy_needs_accounts", "Behind a proxy the studio needs accounts.",
                       "harken users add NAME --role lead, then start it again.")


def guard_origin(request: Request) -> None:
    """What changes something must come from our own pages, or from a program (which sends no Origin)."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    foreign = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
    if foreign or (origin is not None and urlsplit(origin).netloc != host):
        raise ApiError("origin", "The request comes from another site.", "Use the studio's own pages, or a token.")


async def read_body(op: Operation, request: Request) -> Any:
    """The body, bounded, as declared; None where the operation takes none."""
    if op.body is None and op.ndjson != "in":
        return None
    wanted = "application/x-ndjson" if op.ndjson == "in" else "application/json"
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != wanted:
        raise ApiError("not_json", f"The body must be sent as {wanted}.", f"Content-Type: {wanted}")
    most = IMPORT_BYTES if op.ndjson == "in" else BODY_BYTES
    data = bytearray()
    if int(request.headers.get("content-length", "0") or 0) > most:
        raise _too_large(most)
    async for part in request.stream():
        data += part
        if len(data) > most:
            raise _too_large(most)
    if op.ndjson == "in":
        return bytes(data)
    try:
        body = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError("bad_request", f"The body is not JSON: {str(error)[:200]}.", "Send one JSON object in UTF-8.") from None
    assert op.body is not None
    check(op.body, body)
    return body


def _too_large(most: int) -> ApiError:
    return ApiError("too_large", f"The body is larger than {most // 1024} KiB.", "Send less at once.")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def respond(op: Operation, answer: Any, request: Request) -> Response:
    """JSON with an ETag for what can be polled, lines as a stream, a cookie where a session starts."""
    if isinstance(answer, Stream):
        return StreamingResponse(answer.lines, media_type=answer.kind, headers={
            "Content-Disposition": f'attachment; filename="{answer.name}"', "Cache-Control": "no-store"})
    body = answer.body if isinstance(answer, SignedIn) else answer
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    headers = {"Cache-Control": "no-store"}
    if op.method == "GET":
        tag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
        headers = {"Cache-Control": "private, no-cache", "ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
    response = Response(data, media_type="application/json", headers=headers)
    if isinstance(answer, SignedIn):
        response.set_cookie(COOKIE, answer.secret, max_age=accounts.SESSION_DAYS * 86400, httponly=True, samesite="lax",
                            secure=request.url.scheme == "https", path="/")
    elif op.name == "logout":
        response.delete_cookie(COOKIE, path="/")
    return response


def problem(error: Exception) -> Response:
    """Any failure as the one error shape."""
    error = told(error)
    headers = {"Cache-Control": "no-store"} | ({"Retry-After": str(error.retry_after)} if error.retry_after else {})
    data = json.dumps(error.to_json(), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return Response(data, error.status, headers, "application/json")


def endpoint(studio: Studio, op: Operation) -> Callable[[Request], Any]:
    async def handle(request: Request) -> Response:
        try:
            return await studio.answer(op, request)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:  # the server's edge: whatever fails becomes an answer
            return problem(error)
    return handle


class Guard:
    """Adds the security headers to every answer, and for pages says who is looking (`request.state`)."""

    def __init__(self, app: Any, studio: Studio) -> None:
        self.app, self.studio = app, studio

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *RAW_HEADERS]
            await send(message)

        if not _is_api(scope["path"]):
            request = Request(scope)
            scope.setdefault("state", {}).update(user=None, csrf="", single_user=self.studio.single_user)
            try:
                guard_host(self.studio, request)
                user, csrf, _, _ = await self.studio.who(request)
            except Exception as error:  # the server's edge
                from harken.studio import pages
                await pages.failure(request, error)(scope, receive, guarded)
                return
            scope["state"].update(user=user, csrf=csrf)
        await self.app(scope, receive, guarded)


def _is_api(path: str) -> bool:
    """Whether a program asks, not a person: failures are JSON there, and nobody need be known for a page's sake."""
    return path.startswith(("/api/", "/static/"))


RAW_HEADERS = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]


def create_app(studio: Studio) -> Starlette:
    """The application: the API, and the pages."""
    from starlette.middleware import Middleware

    from harken.studio import pages

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        studio.close()

    routes: list[Any] = []
    by_path: dict[str, dict[str, Operation]] = {}
    for op in OPERATIONS.values():
        by_path.setdefault(op.path, {})[op.method] = op
    for path, methods in by_path.items():
        routes += [Route(path, endpoint(studio, op), methods=[method]) for method, op in methods.items()]
    routes += pages.routes(studio)

    async def failed(request: Request, error: Exception) -> Response:
        return problem(error) if _is_api(request.url.path) else pages.failure(request, error)

    return Starlette(routes=routes, middleware=[Middleware(Guard, studio=studio)], lifespan=lifespan,
                     exception_handlers={HTTPException: failed, ApiError: failed, Exception: failed})
