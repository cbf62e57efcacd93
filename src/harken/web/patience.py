"""How long a connection and its header may be, and how many there may be: a server that waits for everybody waits for nobody.

    uvicorn.Config(app, http=Patient, limit_concurrency=MOST_CONNECTIONS, …)
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 20.0
"""From the connection, or from the last answer, until a whole request header is there; a silent connection ends by it too."""
MOST_CONNECTIONS = 900
"""Open at once; more are answered with 503. Below the 1,024 files that a process may usually open."""
MOST_HEADER_BYTES = 32_768
"""In an address, its headers and its trailer. The parser sets no limit of its own."""
MOST_PIPELINED = 8
"""Requests sent before the answer to the first; more are refused."""


class Patient(HttpToolsProtocol):
    """uvicorn's protocol with bounds on the header's time and length, and strict about hosts. The body's are where it is read.

    One timer a connection, which looks when it fires: setting and stopping one for each request costs as much as a statement."""

    header_seconds = HEADER_SECONDS
    _waits_since: float | None = None
    """Since when a header is waited for; None while a request is answered."""
    _timer: asyncio.TimerHandle | None = None
    _header_bytes = 0
    """Of this message's address, headers and trailer, as far as they were read whole."""
    _header_is_whole = False
    _loose_bytes = 0
    """Received since a header was whole or a part of a body came: what the parser may be collecting."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._note()
        self._timer = self.loop.call_later(self.header_seconds, self._look)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._loose_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        else:
            if self._loose_bytes > MOST_HEADER_BYTES:
                self.send_400_response("The header is too long.")
        self._note()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0
        self._header_is_whole = False

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        if not self._header_is_whole:  # a trailer must not pass for what a proxy wrote
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.get_method() == b"CONNECT":  # always another protocol: its header read again would be one again
            raise httptools.HttpParserError("this is no proxy")
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1") or not self.url.startswith((b"/", b"*")):
            raise httptools.HttpParserError("one host, and a path on it")  # RFC 9112 3.2; proxies may read others otherwise
        if len(self.pipeline) >= MOST_PIPELINED:
            raise httptools.HttpParserError("too many requests at once")
        self._header_is_whole = True
        self._loose_bytes = 0
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._loose_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._loose_bytes = 0
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._note()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connection_lost(exc)

    def _parse(self, data: bytes) -> None:
        """Reads what came. Who wishes for another protocol (Java's client always does) is answered in this one.

        The parser drops the body of such a request, so its header is read again without the wish, and the body after it."""
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                rest = data[upgrade.args[0]:]
            lines = [self.parser.get_method() + b" " + self.url + b" HTTP/1.1"]
            lines += [name + b": " + value for name, value in self.headers if name not in (b"upgrade", b"connection")]
            self.parser = httptools.HttpRequestParser(self)
            data = b"\r\n".join([*lines, b"", rest])

    def _count(self, length: int) -> None:
        self._header_bytes += length
        if self._header_bytes > MOST_HEADER_BYTES:
            raise httptools.HttpParserError("the header is too long")

    def _note(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = self.loop.time()

    def _look(self) -> None:
        since, now = self._waits_since, self.loop.time()
        left = self.header_seconds if since is None else since + self.header_seconds - now
        if left > 0:
            self._timer = self.loop.call_later(left, self._look)
            return
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()
