"""How an API is declared: one decorated function an operation. Routing, access, validation and OpenAPI come from it.

    STUDIO = Api("Harken studio", "Every error has …")

    @STUDIO.operation("POST", "/api/projects/{project}/leave", "labeler", summary="Give back tasks", answer=LEFT, writes=True)
    def leave(call: Call) -> Json: ...

`who` may call: `anyone`; `user` (any role); `labeler` (labelers and leads, token scope "label"); `reader` (leads and
viewers, scope "read"); `lead` (leads, scope "lead").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from harken.core.version import __version__
from harken.store.database import Database
from harken.web.accept import BIG
from harken.web.accounts import User
from harken.web.errors import CODES, ApiError, not_found
from harken.web.json_schema import ID, Schema, array, check, enum, integer, obj, text
from harken.web.limits import Limits

T = TypeVar("T")
Json = dict[str, Any]
BODY_BYTES = 256 * 1024
ANSWER_BYTES = 3 << 20
"""A labeler's: an original of 200,000 characters that was improved, each up to 12 bytes of JSON."""
BODY_SECONDS = 30.0
"""A body of which nothing came for so long is given up."""
BODY_SECONDS_IN_ALL = 600.0
IMPORT_BYTES = 64 * 1024 * 1024
ROLES = {"anyone": None, "user": {"lead", "labeler", "viewer"}, "labeler": {"lead", "labeler"}, "reader": {"lead", "viewer"},
         "lead": {"lead"}}
SCOPES = {"user": {"read", "label", "lead"}, "labeler": {"label"}, "reader": {"read"}, "lead": {"lead"}}
PAGE: dict[str, Schema] = {"after": integer(0, BIG), "limit": integer(1, 500)}


class Services(Protocol):
    """What an operation may ask of the site that runs it."""

    @property
    def db(self) -> Database: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def single_user(self) -> bool: ...

    @property
    def address(self) -> str: ...

    @property
    def base(self) -> str: ...

    @property
    def idle_hours(self) -> float: ...

    def end_single_user(self) -> None: ...

    def forget(self) -> None:
        """Looks everybody up anew: a session ended, a role or a setting changed."""

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Runs work in a write transaction; returns when it is on the disk."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Runs work with a reading connection, in another thread."""

    async def slow(self, function: Callable[..., T], *arguments: Any) -> T:
        """Runs what opens its own transactions and may take seconds, beside the readers."""

    async def hash(self, function: Callable[..., T], *arguments: Any) -> T:
        """Runs what takes long and much memory, a password's hash, in a thread of its own."""


@dataclass(frozen=True)
class Call:
    """One call of an operation: who calls, with what, inside which transaction."""

    tx: Connection
    user: User
    path: Mapping[str, Any]
    query: Mapping[str, Any]
    body: Any
    now: datetime
    site: Services
    secret: str | None = None
    """The session's secret, where there is one."""
    csrf: str = ""
    scopes: frozenset[str] | None = None
    """What a token allows; None for a session."""
    address: str = ""
    device: str | None = None
    """The secret by which this browser is known, if it is."""


@dataclass(frozen=True)
class Stream:
    """An answer of many lines, written as they are read."""

    lines: Iterator[bytes]
    name: str
    kind: str = "application/x-ndjson"


@dataclass(frozen=True)
class SignedIn:
    """An answer that starts a session."""

    body: Json
    secret: str
    device: str | None = None


@dataclass(frozen=True)
class Operation:
    """One operation, as declared."""

    name: str
    method: str
    path: str
    who: str
    handler: Callable[[Call], Any]
    summary: str
    body: Schema | None
    query: Mapping[str, Schema]
    answer: Schema | None
    errors: tuple[int, ...]
    writes: bool
    ndjson: str | None
    """"in" or "out": the body or the answer is JSON Lines."""

    def allows(self, user: User | None, scopes: frozenset[str] | None) -> None:
        """Raises unless the caller may. `scopes` are a token's; None for a session."""
        if self.who == "anyone":
            return
        if user is None:
            raise ApiError("login_needed", "This needs a login.", "POST /api/login, or send a token.")
        if user.role not in ROLES[self.who] or (scopes is not None and not scopes & SCOPES[self.who]):  # type: ignore[operator]
            raise ApiError("forbidden", f"A {user.role} may not do this{' with this token' if scopes is not None else ''}.",
                           "Ask a lead.")
        if scopes is not None and self.who == "user" and self.method != "GET":
            raise ApiError("forbidden", "A token may not change the account it speaks for.", "Log in with a password.")

    def read_query(self, given: Mapping[str, str]) -> Json:
        """The query's values, numbers as numbers."""
        values: Json = {}
        for name, raw in given.items():
            schema = self.query.get(name)
            if schema is None:
                raise ApiError("bad_request", f'There is no query parameter "{name[:60]}" here.')
            if schema.get("type") == "integer":
                values[name] = int(raw) if raw.isascii() and raw.isdigit() and len(raw) < 17 else raw
            else:
                values[name] = raw
            check(schema, values[name], name)
        return values


def number_in_path(raw: str) -> int:
    """A path's id. What is no number names nothing."""
    if not (raw.isascii() and raw.isdigit() and len(raw) < 17 and int(raw) > 0):
        raise not_found("page")
    return int(raw)


ERROR: Schema = {"type": "object", "required": ["error"], "additionalProperties": False, "properties": {"error": {
    "type": "object", "required": ["code", "message", "hint"], "properties": {
        "code": enum(*[c for codes in CODES.values() for c in codes]), "message": text(2000), "hint": text(2000),
        "current": {"type": "object"}}}}}


class Api:
    """The operations of one server, by name, in the order of their declaration."""

    def __init__(self, title: str, description: str) -> None:
        self.title, self.description = title, description
        self.operations: dict[str, Operation] = {}

    def operation(self, method: str, path: str, who: str, *, summary: str, body: Schema | None = None,
                  answer: Schema | None = None, query: Mapping[str, Schema] | None = None, errors: tuple[int, ...] = (),
                  writes: bool = False, ndjson: str | None = None) -> Callable[[Callable[[Call], Any]], Callable[[Call], Any]]:
        """Declares an operation under the function's own name."""
        def declare(handler: Callable[[Call], Any]) -> Callable[[Call], Any]:
            name = handler.__name__.removesuffix("_")
            assert name not in self.operations, name
            usual = {429, 503, *((400,) if body is not None or query or ndjson == "in" else ()),
                     *((404,) if "{" in path else ()), *(() if who == "anyone" else (401, 403)),
                     *((403, 413) if method != "GET" else ()), *((408, 415) if body is not None or ndjson == "in" else ())}
            self.operations[name] = Operation(name, method, path, who, handler, summary, body, dict(query or {}), answer,
                                              tuple(sorted(usual | set(errors))), writes, ndjson)
            return handler
        return declare

    def openapi(self) -> Json:
        """The API's description, OpenAPI 3.1."""
        paths: Json = {}
        for op in self.operations.values():
            paths.setdefault(op.path, {})[op.method.lower()] = _describe(op)
        return {
            "openapi": "3.1.0",
            "info": {"title": self.title, "version": __version__, "description": self.description},
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": {"schemas": {"Error": ERROR}, "securitySchemes": {
                "session": {"type": "apiKey", "in": "cookie", "name": "harken_session"},
                "token": {"type": "http", "scheme": "bearer"}}},
        }


def _describe(op: Operation) -> Json:
    names = [part[1:-1] for part in op.path.split("/") if part.startswith("{")]
    ok: Json = {"description": "Done."}
    if op.ndjson == "out":
        ok["content"] = {"application/x-ndjson": {"schema": {"type": "string"}}}
    elif op.answer is not None:
        ok["content"] = {"application/json": {"schema": op.answer}}
    answers = {"200": ok} | {str(code): {"description": ", ".join(CODES[code]), "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}} for code in (*op.errors, 405)}
    described: Json = {
        "operationId": op.name, "summary": op.summary, "tags": [op.who], "responses": answers,
        "parameters": [{"name": n, "in": "path", "required": True,
                        "schema": ID if n != "version" else text(64, 1)} for n in names]
        + [{"name": n, "in": "query", "required": False, "schema": s} for n, s in op.query.items()],
        "security": [] if op.who == "anyone" else [{"session": []}, {"token": []}],
    }
    if op.body is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": op.body}}}
    if op.ndjson == "in":
        described["requestBody"] = {"required": True, "content": {"application/x-ndjson": {"schema": {"type": "string"}}}}
    return described


def page_of(item: Schema) -> Schema:
    return obj({"items": array(item, 0, 500), "next": {"anyOf": [ID, {"type": "null"}]}})


def paged(rows: list[Json], limit: int, key: str = "id") -> Json:
    """A page of rows that were read with `limit + 1`."""
    return {"items": rows[:limit], "next": rows[limit - 1][key] if len(rows) > limit else None}


def after(call: Call) -> int:
    return int(call.query.get("after", 0))


def limit_of(call: Call) -> int:
    return int(call.query.get("limit", 100))


