"""How long a connection may take, and how many there may be: a server that waits for everybody waits for nobody.

    uvicorn.Config(app, http=Patient, limit_concurrency=MOST_CONNECTIONS, …)
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 20.0
"""From the connection, or from the last answer, until a whole request header is there; a silent connection ends by it too."""
MOST_CONNECTIONS = 900
"""Open at once; more are answered with 503. Below the 1,024 files that a process may usually open."""


class Patient(H11Protocol):
    """uvicorn's protocol with a deadline for the header. The body's is `BODY_SECONDS`, where it is read.

    One timer a connection, which looks when it fires: setting and stopping one for each request costs as much as a statement."""

    header_seconds = HEADER_SECONDS
    _waits_since: float | None = None
    """Since when a header is waited for; None while a request is answered."""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._note()
        self._timer = self.loop.call_later(self.header_seconds, self._look)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._note()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._note()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connection_lost(exc)

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
