"""The audit: what happened, in order, each row's hash covering the one before it (a hash chain).

    events.add(connection, "submit", user_id=3, client_id=uuid, body={...})
    events.verify(connection)       # the last hash, or a UserError that names the first row that was changed

Whoever changes an old row must change every later hash: keep the last one (a backup prints it) to notice that too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from harken.core.errors import UserError
from harken.core.records import content_hash
from harken.store.prepared import Prepared
from harken.store.studio_schema import events

NUMBERS = ("user_id", "project_id", "item_id", "assignment_id", "judgment_seq", "undoes")
LAST = select(events.c.hash).order_by(events.c.seq.desc()).limit(1)
"""The newest event's hash, which the next one's covers."""
_last = Prepared(LAST)
INSERT = Prepared(insert(events).values({c.name: bindparam(c.name) for c in events.c if c.name != "seq"})
                   .returning(events.c.seq))


def stamp(at: datetime) -> str:
    """A moment as text of fixed width in UTC, so that later moments sort later."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def add(connection: Connection, kind: str, at: datetime, *, client_id: str | None = None,
        body: Mapping[str, Any] | None = None, **numbers: int | None) -> int:
    """Appends one event inside the caller's write transaction, and returns its number."""
    return int(INSERT.scalar(connection, **link(_last.scalar(connection), kind, at, client_id, body, **numbers)))


def link(last: str | None, kind: str, at: datetime, client_id: str | None = None, body: Mapping[str, Any] | None = None,
         **numbers: int | None) -> dict[str, Any]:
    """The chain's next row, for INSERT; `last` is what LAST selects."""
    row: dict[str, Any] = {"kind": kind, **dict.fromkeys(NUMBERS), **numbers, "client_id": client_id,
                           "body": dict(body or {}), "created_at": stamp(at)}
    return {**row, "hash": content_hash([last or "", row])}


def verify(connection: Connection) -> str:
    """Walks the chain; returns its last hash."""
    before = ""
    for row in connection.execute(select(events).order_by(events.c.seq)).mappings():
        content = {k: v for k, v in row.items() if k not in ("seq", "hash")}
        before = content_hash([before, content])
        if before != row["hash"]:
            raise UserError(f"The audit was changed: event {row['seq']} ({row['kind']}) does not match its hash.",
                            "Compare with a backup from before; harken backup prints the hash of each.")
    return before
