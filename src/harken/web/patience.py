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
    """uvicorn's protocol with a deadline for the header. The body's is `BODY_SECONDS`, where it is read."""

    header_seconds = HEADER_SECONDS
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._disarm()
        else:
            self._arm()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle is None or self.cycle.response_complete:
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def _arm(self) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.header_seconds, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()
