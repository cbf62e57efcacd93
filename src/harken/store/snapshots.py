"""A snapshot freezes what was said so far, so that a training run can name the data it saw.

    pairs.jsonl            the rows, in an order that depends on their content alone
    pairs.jsonl.meta.json  kind, rows, labelers, sha256 of the rows, when, by which version

The same feedback gives the same rows and the same hash, in whatever order it arrived.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import harken
from harken.core.errors import UserError
from harken.store.database import Database
from harken.store.files import KINDS, json_line, write_atomically
from harken.store.shapes import Kind, Record


@dataclass(frozen=True)
class SnapshotInfo:
    """`hash` is the SHA-256 of the rows as written (of a `.gz` snapshot: unpacked). `labelers` counts names."""

    path: Path
    rows: int
    hash: str
    labelers: int
    unnamed: int


def snapshot(db: Database, kind: Kind, out: str | Path) -> SnapshotInfo:
    """Writes all feedback of one kind to `out` (`.jsonl` or `.jsonl.gz`) and `out.meta.json`.

    A snapshot is never overwritten by another: `out` must not exist, or hold the same rows.
    """
    path = Path(out)
    if kind not in KINDS:
        raise UserError(f"Unknown kind {kind!r}.", f"Choose one of {', '.join(KINDS)}.")
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"A snapshot is JSON Lines; {path.name} does not end in .jsonl or .jsonl.gz.",
                        f"Name it {path.name.split('.')[0]}.jsonl.")
    everything: dict[Kind, Iterable[Record]] = {
        "comparisons": db.comparisons(), "demonstrations": db.demonstrations(), "prompts": db.prompts()}
    names: list[str | None] = []
    lines = sorted(_lines(everything[kind], names))
    if not lines:
        raise UserError(f"{db.name} holds no {kind}.",
                        f"Collect some, or import a file: harken import FILE --db {db.name}")
    digest = _digest(lines)
    if not path.exists():
        write_atomically(path, lines)
    elif _digest_of(path) != digest:
        raise UserError(f"{path} exists and holds other rows. A snapshot is never overwritten.",
                        "Give --out another name, or remove the old one if no run needs it.")
    named = {name for name in names if name is not None}
    info = SnapshotInfo(path, len(lines), digest, len(named), names.count(None))
    _write_meta(info, kind)
    return info


def _lines(records: Iterable[Record], names: list[str | None]) -> Iterator[bytes]:
    for record in records:
        names.append(getattr(record, "labeler", None))
        yield json_line(record.to_json()).encode("utf-8") + b"\n"


def _digest(lines: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return digest.hexdigest()


def _digest_of(path: Path) -> str | None:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _digest(file)
    except (OSError, EOFError):
        return None


def _write_meta(info: SnapshotInfo, kind: Kind) -> None:
    path = info.path.with_name(info.path.name + ".meta.json")
    if path.exists():
        return
    meta = {"kind": kind, "rows": info.rows, "labelers": info.labelers, "rows_without_labeler": info.unnamed,
            "sha256": info.hash, "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "harken": harken.__version__}
    write_atomically(path, [(json.dumps(meta, indent=2, ensure_ascii=False) + "\n").encode()])
