"""From a request to an operation and back: one route an operation, bodies read within bounds, answers as JSON."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from harken.web.accounts import SESSION_DAYS
from harken.web.errors import ApiError, as_api_error
from harken.web.guard import guard_host, guard_origin
from harken.web.json_schema import bounded, check
from harken.web.operations import (
    ANSWER_BYTES,
    BODY_BYTES,
    BODY_SECONDS,
    BODY_SECONDS_IN_ALL,
    IMPORT_BYTES,
    Operation,
    SignedIn,
    Stream,
    number_in_path,
)
from harken.web.site import COOKIE, DEVICE, DEVICE_DAYS, Site, address_of


def routes(site: Site) -> list[BaseRoute]:
    """The routes of a site's operations. The router tries them one by one: what labelers send with every answer comes first."""
    by_path: dict[str, list[Operation]] = {}
    for op in sorted(site.operations.values(), key=lambda op: op.who != "labeler" or not op.writes):
        by_path.setdefault(op.path, []).append(op)
    return [Route(op.path, endpoint(site, op), methods=[op.method]) for ops in by_path.values() for op in ops]


def endpoint(site: Site, op: Operation) -> Callable[[Request], Any]:
    async def handle(request: Request) -> Response:
        try:
            return await answer(site, op, request)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:  # the server's edge: whatever fails becomes an answer
            return problem(error)
    return handle


async def answer(site: Site, op: Operation, request: Request) -> Response:
    """One API request, from guards to JSON."""
    guard_host(site, request)
    user, csrf, scopes, secret = await site.who(request)
    site.limits.calls.take((user.id if user else None, address_of(request)))
    if op.method != "GET":
        guard_origin(site, request)
    op.allows(user, scopes)
    if op.method != "GET" and op.who != "anyone" and scopes is None and not secrets.compare_digest(
            request.headers.get("x-harken-csrf", "").encode(), csrf.encode()):
        raise ApiError("csrf", "The request does not come from a page of this studio.",
                       "Send the header X-Harken-CSRF with the value from GET /api/me.")
    path = {k: number_in_path(v) if k != "version" else v for k, v in request.path_params.items()}
    query = op.read_query(request.query_params)
    body = await read_body(op, request)
    return respond(op, await site.run(op, user, csrf, scopes, secret, path, query, body, address_of(request),
                                      request.cookies.get(DEVICE)), request)


async def read_body(op: Operation, request: Request) -> Any:
    """The body, bounded, as declared; None where the operation takes none."""
    if op.body is None and op.ndjson != "in":
        return None
    wanted = "application/x-ndjson" if op.ndjson == "in" else "application/json"
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != wanted:
        raise ApiError("not_json", f"The body must be sent as {wanted}.", f"Content-Type: {wanted}")
    most = IMPORT_BYTES if op.ndjson == "in" else ANSWER_BYTES if op.who == "labeler" else BODY_BYTES
    if int(request.headers.get("content-length", "0") or 0) > most:
        raise _too_large(most)
    data = await read_bytes(request, most)
    if op.ndjson == "in":
        return data
    try:
        body = from_json(data)
    except (ValueError, RecursionError) as error:
        raise ApiError("bad_request", f"The body is not JSON: {str(error)[:200]}.", "Send one JSON object in UTF-8.") from None
    assert op.body is not None
    check(op.body, body, **({"hint": "Correct it and send it again."} if op.who in ("labeler", "user", "anyone") else {}))
    return body


async def read_bytes(request: Request, most: int) -> bytes:
    """The body, as long as its parts keep coming and it stays within `most` bytes."""
    wanted = int(request.headers.get("content-length", "0") or 0)
    data, loop = bytearray(), asyncio.get_running_loop()
    until = loop.time() + BODY_SECONDS_IN_ALL
    try:
        async with asyncio.timeout(BODY_SECONDS) as deadline:
            async for part in request.stream():
                data += part
                if len(data) > most:
                    raise _too_large(most)
                if len(data) != wanted:  # more is to come
                    deadline.reschedule(min(loop.time() + BODY_SECONDS, until))
    except TimeoutError:
        raise ApiError("too_slow", "The body did not arrive in time.", "Send it again.") from None
    return bytes(data)


def _too_large(most: int) -> ApiError:
    return ApiError("too_large", f"The body is larger than {most // 1024} KiB.", "Send less at once.")


def from_json(data: bytes) -> Any:
    """A body's value, within the bounds of depth and of numbers. Raises ValueError or RecursionError where it is no JSON."""
    return bounded(json.loads(data.decode("utf-8"), parse_constant=_no_constant))


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
    root = getattr(request.state, "base", "") or "/"
    if isinstance(answer, SignedIn):
        response.set_cookie(COOKIE, answer.secret, max_age=SESSION_DAYS * 86400, httponly=True, samesite="lax",
                            secure=request.url.scheme == "https", path=root)
        if answer.device is not None:
            response.set_cookie(DEVICE, answer.device, max_age=DEVICE_DAYS * 86400, httponly=True, samesite="lax",
                                secure=request.url.scheme == "https", path=root)
    elif op.name == "logout":
        response.delete_cookie(COOKIE, path=root)
    return response


def problem(error: Exception) -> Response:
    """Any failure as the one error shape."""
    error = as_api_error(error)
    headers = {"Cache-Control": "no-store"} | ({"Retry-After": str(error.retry_after)} if error.retry_after else {})
    data = json.dumps(error.to_json(), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return Response(data, error.status, headers, "application/json")
