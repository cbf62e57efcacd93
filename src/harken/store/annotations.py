"""An annotated corpus: texts, and beside them a column of scores for each scorer.

    annotated/
      plan.json                     the corpus (files and hashes), the segmenter, the splits
      text/00000.parquet            id, text                    one shard a split
      scores/pep8-1/scorer.json     who scored
      scores/pep8-1/00000.parquet   id, ends, scores            the same documents in the same order
      …/manifest.jsonl              a line for each shard that is complete

`ends` are the offsets in characters after each segment, `scores` their raw scores, higher better, null where the scorer
gave none. Nothing is judged good or bad here. A shard is written beside its name, renamed, synced, then named in the manifest:
killed at any moment, whatever the manifest names is whole. Its bytes depend on the plan and the scorer alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import UserError
from harken.store.corpus import Corpus, Split

FORMAT = 1
PLAN, MANIFEST, SCORER = "plan.json", "manifest.jsonl", "scorer.json"
GROUP_DOCUMENTS, GROUP_BYTES = 1000, 4 << 20
"""A row group closes at either."""
SAMPLE = 500_000
"""Scores looked at to find a quantile."""


@dataclass(frozen=True)
class Plan:
    """What is annotated, and how it is cut into work. `version` is the segmenter's name with its version."""

    corpus: Corpus
    segmenter: str
    version: str
    splits: list[Split] = field(hash=False)

    @property
    def hash(self) -> str:
        text = json.dumps([FORMAT, self.corpus.hash, self.version, self.splits])
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "hash": self.hash, "corpus_hash": self.corpus.hash, "segmenter": self.segmenter,
                "version": self.version, "corpus": self.corpus.to_json(), "splits": self.splits}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        splits = [[(a, b, c) for a, b, c in s] for s in value["splits"]]
        return cls(Corpus.from_json(value["corpus"]), value["segmenter"], value["version"], splits)


def slug(scorer: str) -> str:
    """A scorer's id as a folder's name; what is lost by that is told apart by a hash."""
    bare = re.sub(r"[^A-Za-z0-9._=-]+", "-", scorer).strip("-.")[:60]
    if bare and bare == scorer.replace("/", "-") and "-" not in scorer:
        return bare
    return f"{bare or 'scorer'}-{hashlib.sha256(scorer.encode()).hexdigest()[:8]}"


class Column:
    """A folder of shards with its manifest: the texts, or one scorer's scores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def shard(self, split: int) -> Path:
        return self.folder / f"{split:05d}.parquet"

    def rows(self) -> dict[int, dict[str, Any]]:
        """The manifest's lines by split; a torn last line, and one whose shard is not there whole, are left out."""
        rows: dict[int, dict[str, Any]] = {}
        path = self.folder / MANIFEST
        for line in path.read_bytes().split(b"\n") if path.exists() else []:
            with suppress(ValueError, KeyError):
                row = json.loads(line)
                shard = self.shard(row["split"])
                if shard.exists() and shard.stat().st_size == row["size"]:
                    rows[row["split"]] = row
        return rows

    def commit(self, row: Mapping[str, Any]) -> None:
        """Names a shard in the manifest, once the disk has it: here, since a worker that waited for the disk would do nothing."""
        with self.shard(row["split"]).open("rb") as shard:
            os.fsync(shard.fileno())
        with (self.folder / MANIFEST).open("ab") as file:
            if file.tell() and not self._ends_whole():
                file.write(b"\n")
            file.write(json.dumps(row, sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _ends_whole(self) -> bool:
        with (self.folder / MANIFEST).open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"

    def settle(self, rows: Mapping[int, Mapping[str, Any]]) -> None:
        """The manifest in the order of splits, however they were finished."""
        lines = "".join(json.dumps(rows[k], sort_keys=True) + "\n" for k in sorted(rows))
        write_whole(self.folder / MANIFEST, lines.encode())


class Shard:
    """Writes one shard; as a context it is renamed into place at the end, or leaves nothing."""

    def __init__(self, path: Path, columns: Mapping[str, Any], about: Mapping[str, str]) -> None:
        import pyarrow as pa
        self.path, self.temporary = path, path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self.schema = pa.schema(list(columns.items()), metadata=dict(about))
        self.size, self.sha256 = 0, ""
        self._writer: Any = None

    def __enter__(self) -> Shard:
        import pyarrow.parquet as pq
        self._writer = pq.ParquetWriter(self.temporary, self.schema, compression="zstd", compression_level=3)
        return self

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        import pyarrow as pa
        if len(next(iter(columns.values()))):
            self._writer.write_table(pa.table(dict(columns), schema=self.schema))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self._writer.close()
            if kind is None:
                with self.temporary.open("rb") as file:
                    self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                    self.size = file.tell()
                self.temporary.replace(self.path)
        finally:
            self.temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """A reader sees the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def lock(folder: Path) -> IO[str]:
    """Holds the folder for one command at a time; close the file to let go."""
    file = (folder / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(f"{folder} is being annotated by another command.",
                        "Wait for it to end, or choose another --out.") from None
    return file


def mean(scores: Sequence[float | None]) -> float | None:
    """Of those that are there."""
    known = [s for s in scores if s is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Scored:
    """A document with its scores; `ends` as in the shard."""

    id: str
    text: str
    ends: list[int]
    scores: list[float | None]

    @property
    def mean(self) -> float | None:
        """Mean over the segments that have a score: what filtering goes by (the authors' `avg_score`)."""
        return mean(self.scores)


class Annotated:
    """A finished annotation, to read from. `scorer` is a scorer's id or its folder's name; without one there must be one only.

    Raises `UserError` where it is none, is not finished, or has no such scorer.
    """

    def __init__(self, path: str | Path, scorer: str = "") -> None:
        self.path = Path(path)
        again = "Make one with harken annotate."
        if not (self.path / PLAN).is_file():
            raise UserError(f"{path} holds no annotated corpus.", again)
        self.plan = read_plan(self.path)
        scorers = {json.loads((f / SCORER).read_text())["id"]: f for f in sorted((self.path / "scores").glob("*/"))
                 if (f / SCORER).is_file()}
        chosen = [i for i, f in scorers.items() if scorer in ("", i, f.name)]
        if len(chosen) != 1:
            raise UserError(f"{path} has scores by {', '.join(scorers) or 'nobody'}" + (f", not by {scorer}." if scorer else "."),
                            "Name one of them with --scorer." if scorers else again)
        self.scorer = chosen[0]
        self.texts, self.column = Column(self.path / "text"), Column(scorers[self.scorer])
        done = self.column.rows()
        if missing := len(self.plan.splits) - len(done.keys() & self.texts.rows().keys()):
            raise UserError(f"{path} is not finished: {missing} of {len(self.plan.splits)} splits lack scores by {self.scorer}.",
                            "Give the harken annotate command again; it continues.")
        self.rows = done
        self.documents = sum(r["documents"] for r in done.values())
        self.segments = sum(r["segments"] for r in done.values())

    @property
    def hash(self) -> str:
        """Names texts and scores: SHA-256 over the shards' hashes."""
        texts = self.texts.rows()
        rows = [[texts[k]["sha256"], self.rows[k]["sha256"]] for k in sorted(self.rows)]
        return hashlib.sha256(json.dumps([self.plan.hash, self.scorer, rows]).encode()).hexdigest()

    def groups(self) -> list[tuple[int, int]]:
        """(split, row group) of all documents, in order: what a reader can fetch by itself."""
        return [(k, g) for k in sorted(self.rows) for g in range(self.rows[k]["groups"])]

    def read(self, split: int, group: int) -> list[Scored]:
        """The documents of one row group."""
        import pyarrow.parquet as pq
        texts = pq.ParquetFile(self.texts.shard(split)).read_row_group(group).to_pydict()
        scores = self._scores(split, group, ["id", "ends", "scores"])
        if texts["id"] != scores["id"]:
            raise UserError(f"The texts and the scores of split {split} in {self.path} do not belong together.",
                            "Annotate again into a fresh --out.")
        return [Scored(*row) for row in zip(texts["id"], texts["text"], scores["ends"], scores["scores"])]

    def _scores(self, split: int, group: int, columns: Sequence[str] = ("scores",)) -> dict[str, list[Any]]:
        import pyarrow.parquet as pq
        file = pq.ParquetFile(self.column.shard(split))
        return file.read_row_group(group, list(columns)).to_pydict()  # type: ignore[no-any-return]

    def sample(self, level: str) -> NDArray[np.float64]:
        """About `SAMPLE` scores at most, of segments or (`level` "document") of documents: row groups evenly spread."""
        groups, scores = self.groups(), list[float]()
        stride = max(1, (self.documents if level == "document" else self.segments) // SAMPLE)
        for group in groups[::stride]:
            for row in self._scores(*group)["scores"]:
                scores += [s for s in ([mean(row)] if level == "document" else row) if s is not None]
        return np.array(scores)

    def __iter__(self) -> Iterator[Scored]:
        for split, group in self.groups():
            yield from self.read(split, group)


def read_plan(folder: Path) -> Plan:
    try:
        value = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        if value["format"] != FORMAT:
            raise UserError(f"{folder} is of format {value['format']}, not {FORMAT}.", "Annotate again with this version.")
        return Plan.from_json(value)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / PLAN} is damaged ({error}).", "Annotate again into a fresh --out.") from None
