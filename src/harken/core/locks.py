"""One writer a run: an exclusive lock on a file, on every system. It goes with the process that holds it."""

from __future__ import annotations

import os
from typing import IO


def lock_file(file: IO[str]) -> bool:
    """Locks an open file without waiting; False where another holds it."""
    if os.name == "nt":
        import msvcrt
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True
    try:
        import fcntl
    except ImportError:  # a Python without it (WebAssembly): no second process either
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
