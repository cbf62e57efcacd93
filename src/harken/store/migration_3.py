"""Format 3: names as one unique key, invitations with their maker, idle sessions, known devices, and an audit that covers the
rows. Frozen: a later change of these tables is a new migration."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, text

from harken.store import audit_notes, events
from harken.store.names import name_key


def safe_tables(connection: Connection) -> None:
    """Adds the columns, fills them from what is stored, and records what the audit covers from here on."""
    now = datetime.now(UTC)
    for statement in STATEMENTS:
        connection.execute(text(statement))
    _name_keys(connection, now)
    connection.execute(text("CREATE UNIQUE INDEX ix_users_name_key ON users (name_key)"))
    connection.execute(text("UPDATE sessions SET seen_at = created_at"))
    _makers(connection)
    if (covered := audit_notes.everything(connection)) is not None:
        events.add(connection, "covers", now, body=covered)


STATEMENTS = (
    "ALTER TABLE users ADD COLUMN name_key TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE invitations ADD COLUMN made_by BIGINT",
    "ALTER TABLE sessions ADD COLUMN seen_at TEXT NOT NULL DEFAULT ''",
    """CREATE TABLE devices (hash TEXT NOT NULL PRIMARY KEY, user_id BIGINT NOT NULL REFERENCES users (id),
       created_at TEXT NOT NULL)""",
    "CREATE INDEX ix_devices_user_id ON devices (user_id)",
)


def _name_keys(connection: Connection, now: datetime) -> None:
    """Two old names may have one key. The account that could log in keeps it; another is kept whole and signs in by its key
    with a number behind it. The event tells the lead."""
    rows = connection.execute(text("SELECT id, name, state FROM users ORDER BY id")).fetchall()
    taken: set[str] = set()
    for row in sorted(rows, key=lambda r: (r.state != "active", not _could_log_in(r.name), r.id)):
        key, n = name_key(row.name) or "user", 1
        wanted = key
        while key in taken:
            n += 1
            key = f"{wanted} ({n})"
        taken.add(key)
        connection.execute(text("UPDATE users SET name_key = :key WHERE id = :id"), {"key": key, "id": row.id})
        if n > 1:
            events.add(connection, "name_shared", now, body={"user": row.id, "name": row.name, "signs_in_as": key})


def _could_log_in(name: str) -> bool:
    """SQLite's `lower`, by which names were compared, knew A to Z only."""
    ascii_lower = "".join(c.lower() if c.isascii() else c for c in name)
    return ascii_lower == name.lower()


def _makers(connection: Connection) -> None:
    """Who made an invitation stands in its event."""
    for row in connection.execute(text("SELECT user_id, body FROM events WHERE kind = 'invite'")).fetchall():
        body: Any = json.loads(row.body) if isinstance(row.body, str) else row.body
        connection.execute(text("UPDATE invitations SET made_by = :user WHERE id = :id"),
                           {"user": row.user_id, "id": body["invitation"]})
