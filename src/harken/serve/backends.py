"""What answers: weights in this process, a server elsewhere, or any sampler. All give the same pieces.

    async for piece in backend.answer(job): ...        # first a Started, then Pieces as they are said
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from harken.core.errors import UserError
from harken.core.records import content_hash
from harken.serve.errors import Refused, bad
from harken.serve.shapes import Job

MOST_LINE = 1 << 20


@dataclass(frozen=True)
class Token:
    """A token as text and bytes, its log-prob, and the likeliest in its place as (text, bytes, log-prob)."""

    text: str
    bytes: tuple[int, ...]
    logp: float | None
    top: tuple[tuple[str, tuple[int, ...], float], ...] = ()


@dataclass(frozen=True)
class Started:
    """The prompt was taken; `prompt_tokens` None where nobody counts them. `echo` are its tokens where they were asked for."""

    prompt_tokens: int | None
    echo: tuple[Token, ...] = ()
    echo_text: str = ""
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Piece:
    """More of one choice. `tokens` has them only where log-probs are wanted, `ids` where they are; `count` how many there
    were."""

    choice: int
    text: str
    count: int = 0
    tokens: tuple[Token, ...] = ()
    end: str = ""
    ids: tuple[int, ...] = ()


class Backend(Protocol):
    name: str
    identity: str
    """A hash of the weights, or of the address."""
    rows: int
    """Choices answered at once; more wait."""

    def check(self, job: Job) -> None:
        """Raises `Refused` for what this one cannot do."""

    def answer(self, job: Job) -> AsyncIterator[Started | Piece]: ...
    async def start(self) -> None: ...
    def close(self) -> None: ...


def identity_of(lineage: Any) -> str:
    return content_hash(json.loads(json.dumps(lineage, default=str)))[:16]


@dataclass
class Whole:
    """A sampler that gives whole answers (best of n, your own object): one call at a time, in a thread."""

    name: str
    sampler: Any
    max_tokens: int = 512
    rows: int = 1
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "harken-sampler"))

    @property
    def identity(self) -> str:
        return identity_of(getattr(self.sampler, "lineage", self.name))

    async def start(self) -> None:
        pass

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def check(self, job: Job) -> None:
        if job.prompt is None:
            raise bad("This model answers messages alone: use /v1/chat/completions.", "model", "unsupported_parameter")
        if job.top is not None:
            raise bad("This model gives whole answers, without log-probs.", "logprobs", "unsupported_parameter")
        if job.bias:
            raise bad("This model takes no logit_bias.", "logit_bias", "unsupported_parameter")

    async def answer(self, job: Job) -> AsyncIterator[Started | Piece]:
        assert job.prompt is not None
        sample = lambda: self.sampler.sample([job.prompt], job.n, max_tokens=job.max_tokens or self.max_tokens,  # noqa: E731
                                             temperature=job.temperature, top_p=job.top_p, seed=job.seed)[0]
        try:
            samples = await asyncio.get_running_loop().run_in_executor(self._pool, sample)
        except UserError as error:
            raise bad(str(error), "messages") from None
        template = getattr(getattr(self.sampler, "engine", None), "template", None)
        yield Started(len(template.prompt_ids(self.sampler.seen(job.prompt))) if template is not None else None)
        for choice, said in enumerate(samples):
            text, stopped = cut(said.text, job.stop)
            yield Piece(choice, text, len(said.ids), end="stop" if said.finished or stopped else "length")


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop text, and whether there was one."""
    at = min((i for s in stop if (i := text.find(s)) >= 0), default=-1)
    return (text, False) if at < 0 else (text[:at], True)


@dataclass
class Endpoint:
    """Any OpenAI-compatible server behind this one, by its address. No torch."""

    name: str
    url: str
    model: str = ""
    rows: int = 64
    seconds: float = 300.0
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(64, "harken-endpoint"))

    @property
    def identity(self) -> str:
        return hashlib.sha256(f"{self.url}#{self.model}".encode()).hexdigest()[:16]

    async def start(self) -> None:
        pass

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def check(self, job: Job) -> None:
        if job.prompt is None:
            raise bad("The server behind this one answers messages alone: use /v1/chat/completions.", "model",
                      "unsupported_parameter")

    def _body(self, job: Job) -> dict[str, Any]:
        assert job.prompt is not None
        body: dict[str, Any] = {"messages": [m.to_json() for m in job.prompt.messages], "n": job.n, "stream": True,
                                "temperature": job.temperature, "top_p": job.top_p, "seed": job.seed % 2**31,
                                "stream_options": {"include_usage": True}}
        given: dict[str, Any] = {"model": self.model, "max_tokens": job.max_tokens, "stop": list(job.stop),
                                 "logit_bias": {str(t): b for t, b in job.bias}}
        body |= {name: value for name, value in given.items() if value}
        return body if job.top is None else body | {"logprobs": True, "top_logprobs": job.top}

    async def answer(self, job: Job) -> AsyncIterator[Started | Piece]:
        loop, heard = asyncio.get_running_loop(), asyncio.Queue[Any]()
        gone = threading.Event()
        tell: Callable[[Any], Any] = lambda item: loop.call_soon_threadsafe(heard.put_nowait, item)  # noqa: E731
        self._pool.submit(self._read, self._body(job), tell, gone)
        started, ended = False, 0
        try:
            while (item := await heard.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                used = (item.get("usage") or {}).get("prompt_tokens")
                if not started:
                    started = True
                    yield Started(used)
                for choice in item.get("choices", []):
                    piece = _piece(choice)
                    ended += bool(piece.end)
                    yield piece
        finally:
            gone.set()
        if ended < job.n:
            raise Refused(502, "The server behind this one ended before its answer did.")

    def _read(self, body: dict[str, Any], tell: Callable[[Any], Any], gone: threading.Event) -> None:
        """In a thread: asks, and tells each chunk; ends with None or an exception."""
        try:
            for chunk in _chunks(self.url, body, self.seconds, gone):
                tell(chunk)
            tell(None)
        except Refused as error:
            tell(error)
        except (OSError, ValueError, http.client.HTTPException) as error:
            tell(Refused(502, f"The server behind this one does not answer ({type(error).__name__})."))


def _chunks(url: str, body: dict[str, Any], seconds: float, gone: threading.Event) -> Any:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=seconds)
    try:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if key := os.environ.get("HARKEN_API_KEY") or os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        connection.request("POST", f"{parts.path.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers)
        reply = connection.getresponse()
        if reply.status != 200:
            raise _refusal(reply)
        while not gone.is_set() and (line := reply.readline(MOST_LINE)):
            if line.startswith(b"data:"):
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                yield json.loads(data)
    finally:
        connection.close()


def _refusal(reply: http.client.HTTPResponse) -> Refused:
    try:
        error = json.loads(reply.read(10_000))["error"]
        message, param = str(error["message"])[:500], error.get("param")
    except (ValueError, KeyError, TypeError):
        message, param = f"status {reply.status}", None
    status = reply.status if reply.status in (400, 404, 413, 429, 503) else 502
    wait = reply.headers.get("Retry-After", "")
    return Refused(status, f"The server behind this one: {message}", param=param if isinstance(param, str) else None,
                   retry_after=int(wait) if wait.isdigit() else None)


def _piece(choice: Any) -> Piece:
    logged = ((choice.get("logprobs") or {}).get("content")) or []
    tokens = tuple(Token(t["token"], tuple(t.get("bytes") or ()), t["logprob"],
                         tuple((o["token"], tuple(o.get("bytes") or ()), o["logprob"]) for o in t.get("top_logprobs") or ()))
                   for t in logged)
    text = (choice.get("delta") or {}).get("content") or ""
    return Piece(choice["index"], text, len(tokens) or bool(text), tokens, choice.get("finish_reason") or "")

