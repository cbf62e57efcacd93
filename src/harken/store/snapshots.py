"""A snapshot freezes what was said so far, so that a training run can name the data it saw.

    pairs.jsonl            the rows, in an order that depends on their content alone
    pairs.jsonl.meta.json  kind, rows, labelers, what was asked for, sha256 of the rows, when, by which version

The same feedback gives the same rows and the same hash, in whatever order it arrived.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import ColumnElement, func, insert, select

from harken.core.errors import UserError
from harken.core.records import Choice, repeats
from harken.core.version import __version__
from harken.store.database import COUNTS, Database, for_purpose, in_project
from harken.store.files import KINDS, file_hash, json_line, write_atomically
from harken.store.private import private_files
from harken.store.schema import judgments
from harken.store.shapes import Kind, Record
from harken.store.studio_schema import items, projects, snapshots

ANSWERS: tuple[Kind, ...] = ("ratings", "thumbs", "edits", "questions")
JUDGED = {
    "comparisons": ("ranking", "edit"),
    "demonstrations": ("demonstration", "edit"),
    "ratings": ("rating", "ranking", "questions"),
    "thumbs": ("thumb",),
    "edits": ("edit",),
    "questions": ("questions",),
}


@dataclass(frozen=True)
class SnapshotInfo:
    """`hash` is the SHA-256 of the rows as written (of a `.gz` snapshot: unpacked). `labelers` counts names, `repeating`
    the comparisons in which two completions are the same text.

    `warnings` say what of it does not belong together: answers under different instructions, forms or purposes.
    """

    path: Path
    rows: int
    hash: str
    labelers: int
    unnamed: int
    warnings: tuple[str, ...] = ()
    repeating: int = 0


def snapshot(db: Database, kind: Kind, out: str | Path, *, project: int | None = None,
             purpose: str | None = None) -> SnapshotInfo:
    """Writes all feedback of one kind to `out` (`.jsonl` or `.jsonl.gz`) and `out.meta.json`; of one project of the
    studio, or of one purpose (`train` or `eval`), where that is given.

    A snapshot is never overwritten by another: `out` must not exist, or hold the same rows. The database remembers
    whose judgments it holds, so that a withdrawal finds it.
    """
    path = Path(out)
    if kind not in KINDS:
        raise UserError(f"Unknown kind {kind!r}.", f"Choose one of {', '.join(KINDS)}.")
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"A snapshot is JSON Lines; {path.name} does not end in .jsonl or .jsonl.gz.",
                        f"Name it {path.name.split('.')[0]}.jsonl.")
    where = [*([in_project(project)] if project is not None else ()), *([for_purpose(purpose)] if purpose else ())]
    if where and kind == "prompts":
        raise UserError("A snapshot of prompts holds all of them.", "Leave --project and --purpose away.")
    everything: dict[Kind, Iterable[Record]] = {
        "comparisons": db.comparisons(where), "demonstrations": db.demonstrations(where), "prompts": db.prompts(),
        **{name: db.answers(name, where) for name in ANSWERS}}
    counts = _Told()
    lines = sorted(_lines(everything[kind], counts))
    if not lines:
        raise UserError(f"{db.name} holds no {kind}.",
                        f"Collect some, or import a file: harken import FILE --db {db.name}")
    digest = _digest(lines)
    if not path.exists():
        with private_files():
            write_atomically(path, lines)
    elif _digest_of(path) != digest:
        raise UserError(f"{path} exists and holds other rows. A snapshot is never overwritten.",
                        "Give --out another name, or remove the old one if no run needs it.")
    named = {name for name in counts.names if name is not None}
    asked = _asked(db, kind, where) if kind != "prompts" else {}
    warnings = tuple(f"It mixes {len(tally)} {words}: {', '.join(f'{k} ({n:,})' for k, n in tally.items())}."
                     for words, tally in asked.items() if len(tally) > 1)
    info = SnapshotInfo(path, len(lines), digest, len(named), counts.names.count(None), warnings, counts.repeating)
    _write_meta(info, kind, asked)
    _remember(db, info, kind, sorted(named), project)
    return info


def _asked(db: Database, kind: Kind, where: Sequence[ColumnElement[bool]]) -> dict[str, dict[str, int]]:
    """How many judgments were given for which purpose, under which instructions and form; imported ones say nothing."""
    kinds = judgments.c.kind.in_(JUDGED[kind])
    source = (judgments.join(items, items.c.id == judgments.c.item_id).join(projects, projects.c.id == items.c.project_id))
    values = {}
    with db.link.reading() as connection:
        for words, column in (("purposes", projects.c.purpose), ("instructions", judgments.c.instruction_hash),
                              ("forms", judgments.c.form_version)):
            query = select(column, func.count()).select_from(source).where(COUNTS, kinds,
                                                                           *where).group_by(column).order_by(column)
            values[words] = {str(value): int(n) for value, n in connection.execute(query)}
    return values


def _remember(db: Database, info: SnapshotInfo, kind: Kind, labelers: list[str], project: int | None) -> None:
    row = {"sha256": file_hash(info.path), "kind": kind, "name": str(info.path), "rows": info.rows, "labelers": labelers,
           "project_id": project, "created_at": datetime.now(UTC).isoformat(timespec="milliseconds")}
    same = (snapshots.c.sha256 == row["sha256"]) & (snapshots.c.name == row["name"])
    with db.link.writing() as connection:
        if connection.execute(select(snapshots.c.id).where(same)).first() is None:
            connection.execute(insert(snapshots), row)


@dataclass
class _Told:
    """What is learnt of the records on their way into the file."""

    names: list[str | None] = field(default_factory=list)
    repeating: int = 0


def _lines(records: Iterable[Record], counts: _Told) -> Iterator[bytes]:
    for record in records:
        counts.names.append(getattr(record, "labeler", None))
        counts.repeating += isinstance(record, Choice) and repeats(record.options)
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


def _write_meta(info: SnapshotInfo, kind: Kind, asked: dict[str, dict[str, int]]) -> None:
    path = info.path.with_name(info.path.name + ".meta.json")
    if path.exists():
        return
    meta = {"kind": kind, "rows": info.rows, "labelers": info.labelers, "rows_without_labeler": info.unnamed,
            **{words: values for words, values in asked.items() if values}, "sha256": info.hash,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "harken": __version__}
    with private_files():
        write_atomically(path, [(json.dumps(meta, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")])
