"""Files that only their owner may read: databases, their side files, backups, snapshots."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_lock = threading.Lock()
_depth = 0
_before = 0o022


@contextmanager
def private_files() -> Iterator[None]:
    """Every file that this process makes meanwhile is its owner's alone (the process's umask: other threads' files too)."""
    global _depth, _before
    with _lock:
        if _depth == 0:
            _before = os.umask(0o077)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                os.umask(_before)


def make_private(path: Path) -> None:
    """An empty file of mode 0600; one that is there stays as it is."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def readable_by_others(path: Path) -> bool:
    """Whether other accounts of this machine may read the file."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False
