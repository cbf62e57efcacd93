"""The tables of `harken serve`. Frozen: a later change of these tables is a new migration."""

from __future__ import annotations

from sqlalchemy import Connection, text


def serve_tables(connection: Connection) -> None:
    """Answers that may be judged, what was said of them, the server's secret."""
    serial = "INTEGER PRIMARY KEY AUTOINCREMENT" if connection.dialect.name == "sqlite" else "BIGSERIAL PRIMARY KEY"
    for statement in STATEMENTS.format(serial=serial).split(";\n"):
        if statement.strip():
            connection.execute(text(statement))


STATEMENTS = """\
CREATE TABLE served (id TEXT NOT NULL PRIMARY KEY, rater TEXT NOT NULL, prompt JSON NOT NULL, text JSON NOT NULL,
    source JSON NOT NULL, created_at TEXT NOT NULL, expires_at TEXT NOT NULL);
CREATE INDEX ix_served_expires_at ON served (expires_at);
CREATE TABLE feedback (id {serial}, served_id TEXT NOT NULL, rater TEXT NOT NULL, kind TEXT NOT NULL, slot TEXT NOT NULL,
    said TEXT NOT NULL, judgment_seq BIGINT NOT NULL REFERENCES judgments (seq), client_id TEXT UNIQUE,
    created_at TEXT NOT NULL);
CREATE INDEX ix_feedback_rater ON feedback (rater);
CREATE INDEX ix_feedback_slot ON feedback (served_id, rater, slot);
CREATE TABLE secrets (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL);
"""
