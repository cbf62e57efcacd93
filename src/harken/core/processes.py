"""Several processes that make one run: who writes, who speaks, and what all agree on.

    torchrun --nproc-per-node 2 -m harken train …

All run the same program over the same data. The first (rank 0) alone writes the run's directory and speaks to the user;
what only it can know, such as whether a checkpoint is due, it tells the others through `agree`. Here is what one process
needs, and no torch; `engines/distributed.py` joins several.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")


class Group:
    """The processes of this run: one, until others join."""

    rank, size = 0, 1

    def agree(self, value: T) -> T:
        """The first process's value, on all. Every process must call it, as often as the others."""
        return value

    def gather(self, value: T) -> list[T]:
        """The values of all, by rank. Every process must call it, as often as the others."""
        return [value]

    def add(self, numbers: Any) -> None:
        """Replaces a tensor's numbers by their sums over all, the same bits on each."""

    def fails_first(self) -> bool:
        """Whether this process is the first to fail. Only the first one prints its error: the others fail because it did."""
        return started()[0] == 0


GROUP: ContextVar[Group] = ContextVar("group", default=Group())  # noqa: B039 - it holds nothing that changes


def group() -> Group:
    return GROUP.get()


def started() -> tuple[int, int]:
    """(rank, number of processes) as torchrun and other launchers set them; (0, 1) for a process on its own."""
    rank, size = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    together = rank.isdecimal() and size.isdecimal() and "MASTER_ADDR" in os.environ
    return (int(rank), int(size)) if together else (0, 1)
