"""Scores by the text's hash, on disk: an equal segment is scored once, in whichever split or process it stands.

Memory does not grow with the corpus. Two processes that meet the same new segment at the same moment both score it; the first
to write is kept, and a scorer gives equal texts equal scores.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harken.core.errors import UserError

Value = float | str | bytes
"""A score; the reason why there is none; or the scores of a document's segments as float64 bytes."""
AT_ONCE = 500
WAIT = 120.0
"""Seconds to wait for another process."""
RECENT = 100_000
"""Values kept in memory before they are forgotten: most repeated lines are few."""


def key_of(text: str) -> bytes:
    """16 bytes of BLAKE2b. Two of 10^9 texts share a key with a probability of 10^-21."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Known:
    """A table of key -> value. Use one a process; several may share the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._recent: dict[bytes, Value] = {}
        try:
            self._db = sqlite3.connect(path, timeout=WAIT, isolation_level=None)
            self._share()
            self._db.execute("PRAGMA synchronous=OFF")  # a lost score is scored again
            self._db.execute("PRAGMA cache_size=-65536")
            self._db.execute("CREATE TABLE IF NOT EXISTS known (key BLOB PRIMARY KEY, value) WITHOUT ROWID")
        except sqlite3.DatabaseError as error:
            raise _broken(path, error) from None

    def _share(self) -> None:
        """Turns the write-ahead log on. Where two processes do it to a fresh file at once, SQLite refuses one at once,
        whatever its timeout: waiting would block both."""
        deadline = time.monotonic() + WAIT
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Value]:
        """Those of `keys` (each once) that are known."""
        hits = {k: self._recent[k] for k in keys if k in self._recent}
        rest = [k for k in keys if k not in hits]
        try:
            for at in range(0, len(rest), AT_ONCE):
                part = rest[at:at + AT_ONCE]
                marks = ",".join("?" * len(part))
                hits |= self._db.execute(f"SELECT key, value FROM known WHERE key IN ({marks})", part).fetchall()
        except sqlite3.DatabaseError as error:
            raise _broken(self.path, error) from None
        return hits

    def put(self, values: Mapping[bytes, Value]) -> None:
        if not values:
            return
        if len(self._recent) + len(values) > RECENT:
            self._recent.clear()
        self._recent.update(values)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR IGNORE INTO known VALUES (?, ?)", sorted(values.items()))
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise _broken(self.path, error) from None

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM known").fetchone()[0])

    def close(self) -> None:
        self._db.close()


def _broken(path: Path, error: Exception) -> UserError:
    return UserError(f"The scores already made, {path}, cannot be read or written: {error}.",
                     "Make room if the disk is full; otherwise remove the file, and segments are scored again.")
