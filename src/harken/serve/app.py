"""The server as an ASGI application: OpenAI's routes, feedback, health, metrics, the chat page.

    app = create_app(Server(Arms([backend])))
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from harken.core.errors import UserError
from harken.core.terminal import one_line
from harken.serve import answers, feedback, page
from harken.serve.answers import Chunks
from harken.serve.describe import description
from harken.serve.errors import Refused, bad
from harken.serve.exchange import Exchange
from harken.serve.server import Server
from harken.serve.shapes import Job, chosen, read_chat, read_completion
from harken.store.connection import StorageError
from harken.web.errors import ApiError, short_trace
from harken.web.guard import RAW_HEADERS
from harken.web.http import from_json, read_bytes

log = logging.getLogger("harken.serve")
Json = dict[str, Any]
BODY_BYTES = 4 * 1024 * 1024
Handler = Callable[[Request], Awaitable[Response]]


def create_app(server: Server) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await server.start()
        yield
        await server.close()

    def route(path: str, method: str, handler: Callable[[Server, Request], Awaitable[Response]]) -> Route:
        return Route(path, _edge(server, path, handler), methods=[method])

    routes = [route("/v1/chat/completions", "POST", chat), route("/v1/completions", "POST", completions),
              route("/v1/models", "GET", models), route("/v1/models/{model:path}", "GET", model),
              route("/v1/feedback", "POST", give_feedback), route("/v1/feedback", "GET", list_feedback),
              route("/v1/feedback/{number:int}", "DELETE", withdraw_feedback), route("/feedback", "POST", give_feedback),
              route("/openapi.json", "GET", openapi), route("/health", "GET", health), route("/metrics", "GET", metrics),
              *page.routes(server)]
    if server.followed is not None:  # imported here: other servers need none of what a loop stands on, torch least of all
        from harken.serve import loop_page
        routes += [route("/loop", "GET", loop_page.show), route("/loop/state", "GET", loop_page.state),
                   route("/loop/decide", "POST", decide_on_loop)]

    if server.adapters is not None:
        routes += [route("/v1/load_lora_adapter", "POST", load_adapter), route("/v1/unload_lora_adapter", "POST", unload_adapter),
                   route("/v1/load_weights", "POST", load_weights)]

    async def failed(request: Request, error: Exception) -> Response:
        return problem(error)

    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: failed, Exception: failed})
    app.add_middleware(Headers)
    return app


class Headers:
    """The studio's security headers on every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *RAW_HEADERS]
            await send(message)
        await self.app(scope, receive, guarded if scope["type"] == "http" else send)


def _edge(server: Server, path: str, handler: Callable[[Server, Request], Awaitable[Response]]) -> Handler:
    """Guards before a handler, an answer in OpenAI's shape whatever fails, a count and a line of the log."""
    async def handle(request: Request) -> Response:
        began = time.monotonic()
        try:
            _guard(server, request)
            response = await handler(server, request)
        except ClientDisconnect:
            response = Response(status_code=499)
        except Exception as error:  # the server's edge
            response = problem(error)
        server.metrics.count("harken_requests_total", route=path, status=str(response.status_code))
        if path not in ("/health", "/metrics"):
            server.note(at=round(time.time(), 3), route=path, status=response.status_code,
                        seconds=round(time.monotonic() - began, 4), **getattr(request.state, "noted", {}))
        return response
    return handle


def _guard(server: Server, request: Request) -> None:
    """On loopback without keys a page elsewhere must not reach the server through a browser: its name and origin are checked."""
    host = request.headers.get("host", "")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if server.hosts is not None and name not in server.hosts:
        raise Refused(403, "This server does not serve that host name.", code="host")
    origin = request.headers.get("origin")
    foreign = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
    if not server.keys and (foreign or (origin is not None and urlsplit(origin).netloc != host)):
        raise Refused(403, "The request comes from another site.", code="origin")


def problem(error: Exception) -> Response:
    """Any failure in OpenAI's shape; what is our own fault goes to the log."""
    if isinstance(error, StorageError):
        log.error("storage: %s", one_line(error.fact))
        error = Refused(503, "The database could not be written. Nothing was stored; try again.", retry_after=5)
    elif isinstance(error, ApiError):
        known = error.status in (408, 413, 429, 503)
        error = Refused(error.status if known else 400, error.message, retry_after=error.retry_after)
    elif isinstance(error, UserError):
        error = bad(str(error), None)
    elif isinstance(error, HTTPException):
        error = Refused(404, "There is no such address.") if error.status_code == 404 else Refused(
            405, "This address does not take that method.")
    elif not isinstance(error, Refused):
        log.error("a fault in the server\n%s", short_trace(error))
        error = Refused(500, "The server failed at this request.")
    headers = {"Cache-Control": "no-store"} | ({"Retry-After": str(error.retry_after)} if error.retry_after else {})
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error.to_json(), error.status, headers)


async def read_json(request: Request) -> Any:
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise Refused(415, "The body must be sent as application/json.")
    try:
        return from_json(await read_bytes(request, BODY_BYTES))
    except (ValueError, RecursionError):
        raise bad("The body is not JSON.", None, "invalid_json") from None


async def chat(server: Server, request: Request) -> Response:
    """POST /v1/chat/completions"""
    who = server.who(request.headers.get("authorization", ""))
    return await _answer(server, request, "chat", [read_chat(await read_json(request))], who)


async def completions(server: Server, request: Request) -> Response:
    """POST /v1/completions"""
    who = server.who(request.headers.get("authorization", ""))
    return await _answer(server, request, "text", read_completion(await read_json(request)), who)


async def _answer(server: Server, request: Request, kind: str, jobs: list[Job], who: str) -> Response:
    job = jobs[0]
    chosen(job.model, server.arms.names)
    rater = f"{who}/{job.user}" if job.user else who
    parts, base = [], 0
    for prompt, one in enumerate(jobs):
        parts += server.arms.parts(one, base, rater, prompt)
        base += one.n
    for part in parts:
        part.backend.check(part.job)
    server.take(parts)
    exchange = Exchange(kind, job.model, parts, server.metrics, server.seconds)
    request.state.noted = {"id": exchange.id, "model": job.model, "who": who, "stream": job.stream}
    if server.log_text:
        request.state.noted["prompts"] = [j.prompt.to_json() if j.prompt else j.text or list(j.ids) for j in jobs]
    over = False
    try:
        await exchange.begin()
        if job.stream:
            over = True  # the stream gives back what was taken
            return Stream(server, exchange, job, rater)
        await _until_gone(request, _collect(exchange))
    except ClientDisconnect:
        server.metrics.count("harken_left_total", model=job.model)
        raise
    finally:
        if not over:
            server.give_back(exchange)
    tokens = await server.keep(exchange, rater)
    request.state.noted |= exchange.usage()
    if server.log_text:
        request.state.noted["answers"] = [c.text for c in exchange.choices]
    shape = answers.chat if kind == "chat" else answers.text
    body = shape(exchange, server.arms.identity(job.model))
    return JSONResponse(body | ({"harken": {"feedback": tokens}} if tokens else {}), headers={"Cache-Control": "no-store"})


async def _collect(exchange: Exchange) -> None:
    async for _ in exchange.pieces():
        pass


async def _until_gone(request: Request, work: Awaitable[None]) -> None:
    """Does the work unless the client leaves first."""
    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


class Stream(StreamingResponse):
    """Server-sent events of one exchange; when the client leaves, the exchange is given up."""

    def __init__(self, server: Server, exchange: Exchange, job: Job, rater: str) -> None:
        self.server, self.exchange, self.job, self.rater = server, exchange, job, rater
        super().__init__(self.events(), media_type="text/event-stream",
                         headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.exchange.leave()
            if not self.exchange.done:
                self.server.metrics.count("harken_left_total", model=self.exchange.model)
            self.server.give_back(self.exchange)
            self.server.note(at=round(time.time(), 3), ended=self.exchange.id, done=self.exchange.done,
                             seconds=round(time.monotonic() - self.exchange.began, 4), **self.exchange.usage())

    async def events(self) -> AsyncIterator[bytes]:
        exchange = self.exchange
        chunks = Chunks(exchange, self.server.arms.identity(exchange.model), self.job.usage)
        for chunk in chunks.opening():
            yield _event(chunk)
        try:
            async for index, piece in exchange.pieces():
                made = chunks.piece(index, piece)
                if exchange.done and (tokens := await self.server.keep(exchange, self.rater)):
                    made[-1] |= {"harken": {"feedback": tokens}}
                for chunk in made:
                    yield _event(chunk)
        except Exception as error:  # the head is sent: the failure is an event
            refused = error if isinstance(error, Refused) else Refused(500, "The server failed at this request.")
            if refused is not error:
                log.error("a fault in the server\n%s", short_trace(error))
            yield _event(refused.to_json())
        else:
            for chunk in chunks.ending():
                yield _event(chunk)
        yield b"data: [DONE]\n\n"


def _event(value: Json) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n\n"


async def models(server: Server, request: Request) -> Response:
    """GET /v1/models"""
    server.who(request.headers.get("authorization", ""))
    return JSONResponse({"object": "list", "data": [_model(server, name) for name in server.arms.names]})


async def model(server: Server, request: Request) -> Response:
    """GET /v1/models/{model}"""
    server.who(request.headers.get("authorization", ""))
    name = request.path_params["model"]
    chosen(name, server.arms.names)
    return JSONResponse(_model(server, name))


def _model(server: Server, name: str) -> Json:
    return {"id": name, "object": "model", "created": server.began, "owned_by": "harken"}


async def give_feedback(server: Server, request: Request) -> Response:
    """POST /v1/feedback: the token says who judges what; a key, where one is sent, must be of the same name."""
    said, now = await read_json(request), server.clock()
    owner = server.who(request.headers["authorization"]) if server.keys and "authorization" in request.headers else None

    address = request.client.host if request.client else ""

    def work(tx: Any) -> Json:
        return feedback.give(tx, server.key, said, now, owner, address)
    stored = await server.write(work)
    server.metrics.count("harken_feedback_total", kind=stored["kind"])
    if server.telemetry is not None and not stored.get("already"):
        server.telemetry.judged(said, stored)
    return JSONResponse(stored, headers={"Cache-Control": "no-store"})


async def list_feedback(server: Server, request: Request) -> Response:
    """GET /v1/feedback: the caller's own."""
    who = server.who(request.headers.get("authorization", ""))
    values = {}
    for name, default, most in (("after", 0, 2**53), ("limit", 100, 500)):
        raw = request.query_params.get(name, str(default))
        if not (raw.isascii() and raw.isdigit() and len(raw) < 17 and int(raw) <= most):
            raise bad(f"{name} must be a whole number of at most {most}.", name)
        values[name] = int(raw)
    if extra := request.query_params.keys() - values.keys():
        raise bad(f"Unrecognized query parameter: {min(extra)[:80]}.", min(extra)[:80], "unknown_parameter")
    return JSONResponse(await server.read(lambda tx: feedback.listed(tx, who, values["after"], max(1, values["limit"]))),
                        headers={"Cache-Control": "no-store"})


async def withdraw_feedback(server: Server, request: Request) -> Response:
    """DELETE /v1/feedback/{id}: with the answer's token in X-Harken-Feedback, or by whose it is."""
    token, now = request.headers.get("x-harken-feedback"), server.clock()
    owner = None if token else server.who(request.headers.get("authorization", ""))
    number = min(request.path_params["number"], 2**53)
    return JSONResponse(await server.write(lambda tx: feedback.withdraw(tx, server.key, number, token, now, owner)),
                        headers={"Cache-Control": "no-store"})


async def load_adapter(server: Server, request: Request) -> Response:
    """POST /v1/load_lora_adapter: where a trainer may put its weights (serve/adapters.py)."""
    server.who(request.headers.get("authorization", ""))
    return JSONResponse(await server.adapters.load(server, await read_json(request)))


async def unload_adapter(server: Server, request: Request) -> Response:
    """POST /v1/unload_lora_adapter"""
    server.who(request.headers.get("authorization", ""))
    return JSONResponse(await server.adapters.unload(server, await read_json(request)))


async def load_weights(server: Server, request: Request) -> Response:
    """POST /v1/load_weights"""
    server.who(request.headers.get("authorization", ""))
    return JSONResponse(await server.adapters.load_weights(server, await read_json(request)))


async def decide_on_loop(server: Server, request: Request) -> Response:
    """POST /loop/decide"""
    from harken.serve import loop_page
    return await loop_page.decide(server, request, await read_json(request))


async def openapi(server: Server, request: Request) -> Response:
    """GET /openapi.json"""
    return JSONResponse(description((server.arms.names or [""])[0]))  # none while an adapter is being loaded


async def health(server: Server, request: Request) -> Response:
    """GET /health"""
    return JSONResponse({"status": "ok", "models": server.arms.names})


async def metrics(server: Server, request: Request) -> Response:
    """GET /metrics: with keys, only for those who have one."""
    server.who(request.headers.get("authorization", ""))
    return PlainTextResponse(server.metrics.text(), media_type="text/plain; version=0.0.4")
