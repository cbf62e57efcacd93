"""One thread writes; what arrives while it waits for the disk goes into the next transaction together (group commit).

    writer = Writer(link)
    receipt = await writer.run(lambda tx: submit(tx, ...))     # returns after the commit reached the disk

With synchronous=FULL each transaction costs an fsync. Under load many answers share one, and still none is
acknowledged before it is safe. If a piece of work is refused or fails, the transaction is rolled back and each of its
neighbours gets one of its own: refusals are rare, and this is cheaper than a savepoint for each. Work must therefore do
nothing but write to the transaction.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection

from harken.store.connection import Link, StorageError
from harken.web.errors import ApiError

T = TypeVar("T")
Work = Callable[[Connection], Any]
MOST = 16
WAITING = 2000


class Writer:
    """Runs work in write transactions, in the order of arrival."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._queue: queue.Queue[tuple[Work, Future[Any]] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._loop, name="harken-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """The work's future result, set after the commit."""
        future: Future[T] = Future()
        try:
            self._queue.put_nowait((work, future))
        except queue.Full:
            raise ApiError("busy", "Too many answers arrive at once.", "Try again in a moment.", retry_after=1) from None
        return future

    async def run(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.wrap_future(self.submit(work))

    def close(self) -> None:
        """Finishes what was accepted, then stops."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _loop(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, last = [first], False
            while len(batch) < MOST:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                batch.append(more)
            self._commit(batch)
            if last:
                return

    def _commit(self, batch: list[tuple[Work, Future[Any]]]) -> None:
        """All of the batch in one transaction; the results are told when it is on the disk."""
        results: list[Any] = []
        try:
            with self.link.writing() as tx:
                results += [work(tx) for work, _ in batch]
        except Exception as error:  # nothing was stored: everybody who waits must hear it, or try alone
            if len(batch) > 1 and not isinstance(error, StorageError):
                for one in batch:
                    self._commit([one])
                return
            for _, future in batch:
                if not future.cancelled():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.cancelled():
                future.set_result(result)
