"""The audit: what happened, in order, each row's hash covering the one before it (a hash chain).

    events.add(connection, "submit", user_id=3, client_id=uuid, body={...})

Whoever changes an old row must change every later hash: keep the last one (a backup prints it) to notice that too.
`body.after` is the number of the row before, so that a row's number is covered as well. What the rows of other tables must
be by these events: `store.audit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from harken.core.records import content_hash
from harken.store.prepared import Prepared
from harken.store.studio_schema import events

NUMBERS = ("user_id", "project_id", "item_id", "assignment_id", "judgment_seq", "undoes")
LAST = select(events.c.hash).order_by(events.c.seq.desc()).limit(1)
"""The newest event's hash, which the next one's covers."""
LAST_SEQ = select(events.c.seq).order_by(events.c.seq.desc()).limit(1)
"""The newest event's number, which the next one names."""
_last = Prepared(select(events.c.seq, events.c.hash).order_by(events.c.seq.desc()).limit(1))
INSERT = Prepared(insert(events).values({c.name: bindparam(c.name) for c in events.c if c.name != "seq"})
                   .returning(events.c.seq))


def stamp(at: datetime) -> str:
    """A moment as text of fixed width in UTC, so that later moments sort later."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def add(connection: Connection, kind: str, at: datetime, *, client_id: str | None = None,
        body: Mapping[str, Any] | None = None, **numbers: int | None) -> int:
    """Appends one event inside the caller's write transaction, and returns its number."""
    after, last = _last.first(connection) or (0, "")
    return int(INSERT.scalar(connection, **link(after, last, kind, at, client_id, body, **numbers)))


def link(after: int | None, last: str | None, kind: str, at: datetime, client_id: str | None = None,
         body: Mapping[str, Any] | None = None, **numbers: int | None) -> dict[str, Any]:
    """The chain's next row, for INSERT; `after` and `last` are what LAST_SEQ and LAST select."""
    row: dict[str, Any] = {"kind": kind, **dict.fromkeys(NUMBERS), **numbers, "client_id": client_id,
                           "body": {**(body or {}), "after": after or 0}, "created_at": stamp(at)}
    return {**row, "hash": content_hash([last or "", row])}


def end(connection: Connection) -> tuple[int, str]:
    """The number and the hash of the newest event; (0, "") where there is none."""
    after, last = _last.first(connection) or (0, "")
    return int(after), str(last)
