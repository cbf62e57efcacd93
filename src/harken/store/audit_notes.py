"""What an event holds so that the rows it stored can be checked later, against it and nothing else (`store.audit` does).

    since = audit_notes.here(connection)
    …                                                      # rows are stored
    audit_notes.note_import(connection, since, import_seq) # in the same transaction
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select, text

from harken.core.records import content_hash
from harken.store import events
from harken.store.schema import imports, judgments, prompts
from harken.store.studio_schema import events as event_table
from harken.store.studio_schema import items, projects, users

PAGE = 500
USER = ("name", "role", "state", "held_out", "labeler_group")
"""What of an account the audit covers."""


def here(connection: Connection) -> tuple[int, int]:
    """The last judgment and prompt stored, before an import."""
    return (int(connection.execute(select(func.max(judgments.c.seq))).scalar() or 0),
            int(connection.execute(select(func.max(prompts.c.seq))).scalar() or 0))


def note_import(connection: Connection, since: tuple[int, int], import_seq: int | None) -> None:
    """Adds the event that covers all that was stored `since`. Call it in the same transaction."""
    now = here(connection)
    if now == since and import_seq is None:
        return
    body: dict[str, Any] = {"import": import_seq}
    if import_seq is not None:
        body["entry"] = entry_of(connection.execute(select(imports).where(imports.c.seq == import_seq)).mappings().one())
    for name, before, last in (("judgments", since[0], now[0]), ("prompts", since[1], now[1])):
        if last > before:
            body[name] = [before + 1, last, *digest_of(connection, name, before + 1, last)]
    events.add(connection, "import", datetime.now(UTC), body=body)


def new_items(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the event of new items holds, so that they are covered: what never changes as a hash, and their warnings."""
    rows = list(rows)
    warned = {row["content"]: row["warnings"] for row in rows if row["warnings"]}
    return {"hash": items_digest(rows), **({"warnings": warned} if warned else {})}


def items_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    fixed = ("project_id", "role", "kind", "prompt_key", "content", "created_at")
    return _digest([row[c] for c in fixed] for row in sorted(rows, key=lambda row: str(row["content"])))


def everything(connection: Connection) -> dict[str, Any] | None:
    """All that is stored, for the event that covers a database of before; None for an empty one."""
    body: dict[str, Any] = {}
    for name, key in (("judgments", "seq"), ("prompts", "seq"), ("items", "id"), ("events", "seq")):
        last = connection.execute(text(f"SELECT max({key}) FROM {name}")).scalar()
        if last:
            body[name] = [0, int(last), *digest_of(connection, name, 0, int(last))]
    entries = connection.execute(select(imports).order_by(imports.c.seq)).mappings()
    body["imports"] = {str(row["seq"]): entry_of(row) for row in entries}
    columns = [users.c[name] for name in ("id", *USER)]
    body["users"] = {str(row["id"]): {name: row[name] for name in USER}
                     for row in connection.execute(select(*columns)).mappings()}
    usual = {row.id: least(row.settings) for row in connection.execute(select(projects.c.id, projects.c.settings))}
    body |= {"wanted": {}, "warnings": {}, "aside": []}
    c = items.c
    for row in stream(connection, select(c.id, c.project_id, c.wanted, c.warnings, c.state).order_by(c.id)):
        if row.wanted != usual[row.project_id]:
            body["wanted"][str(row.id)] = row.wanted
        if row.warnings:
            body["warnings"][str(row.id)] = row.warnings
        if row.state == "set_aside":
            body["aside"].append(row.id)
    return body if any(body.values()) else None


def entry_of(row: Mapping[str, Any] | RowMapping) -> str:
    return content_hash([row[c] for c in ("seq", "file_hash", "file_name", "kind", "rows", "skipped", "created_at")])


LINES: dict[str, tuple[Any, Any]] = {
    "judgments": (judgments.c.seq, [judgments.c[c] for c in ("seq", "content", "client_id", "import_seq", "item_id", "role",
                                                            "created_at")]),
    "prompts": (prompts.c.seq, [prompts.c[c] for c in ("seq", "key", "id", "created_at")]),
    "items": (items.c.id, [items.c[c] for c in ("id", "project_id", "role", "kind", "prompt_key", "content", "created_at")]),
    "events": (event_table.c.seq, [event_table.c.seq, event_table.c.hash]),
}


def digest_of(connection: Connection, table: str, first: int, last: int) -> tuple[int, str]:
    key, columns = LINES[table]
    rows = stream(connection, select(*columns).where(key >= first, key <= last).order_by(key))
    count = 0

    def lines() -> Iterator[list[Any]]:
        nonlocal count
        for row in rows:
            count += 1
            yield list(row)

    digest = _digest(lines())
    return count, digest


def _digest(lines: Iterable[list[Any]]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def stream(connection: Connection, query: Any) -> Iterator[Any]:
    yield from connection.execute(query.execution_options(yield_per=PAGE))


def least(settings: Mapping[str, Any]) -> int:
    overlap = settings.get("overlap", 1)
    return int(overlap if isinstance(overlap, int) else overlap["min"])
