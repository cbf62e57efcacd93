"""Scores that cost much to get, kept in a file by content hash: a stopped run asks nothing twice (E21).

    cache = ScoreCache(run.path / "scores.sqlite")
    cache[key] = None           # asked, and there was no score
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

from harken.core.errors import UserError


class ScoreCache(MutableMapping[str, float | None]):
    """Key to score; None is a score that is missing, and is remembered too. Each write is durable on its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._db.execute("CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, score REAL) WITHOUT ROWID")
        except sqlite3.Error as error:
            raise UserError(f"{path} cannot be used to keep scores: {error}.",
                            "Remove it: the scores are asked for again.") from None

    def __getitem__(self, key: str) -> float | None:
        row = self._db.execute("SELECT score FROM scores WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        score: float | None = row[0]
        return score

    def __setitem__(self, key: str, score: float | None) -> None:
        self.write({key: score})

    def write(self, scores: Mapping[str, float | None]) -> None:
        """Many at once, in one transaction."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", scores.items())

    def __delitem__(self, key: str) -> None:
        if not self._db.execute("DELETE FROM scores WHERE key = ?", (key,)).rowcount:
            raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return (key for (key,) in self._db.execute("SELECT key FROM scores"))

    def __len__(self) -> int:
        count: int = self._db.execute("SELECT count(*) FROM scores").fetchone()[0]
        return count

    def close(self) -> None:
        self._db.close()
