"""Format 2: the studio. Frozen: a later change of these tables is a new migration."""

from __future__ import annotations

from sqlalchemy import Connection, text

GUARDED = {"judgments": "judgments are never changed: a correction is a new one",
           "events": "the audit is never changed",
           "retractions": "a retraction is never taken back: answer again"}


def studio_tables(connection: Connection) -> None:
    """People, projects, items, leases, the audit; and tables that PostgreSQL, too, refuses to change."""
    sqlite = connection.dialect.name == "sqlite"
    serial = "INTEGER PRIMARY KEY AUTOINCREMENT" if sqlite else "BIGSERIAL PRIMARY KEY"
    for statement in STATEMENTS.format(serial=serial).split(";\n"):
        if statement.strip():
            connection.execute(text(statement))
    guard = _guard_sqlite if sqlite else _guard_postgresql
    for table, words in GUARDED.items():
        guard(connection, table, words)


def _guard_sqlite(connection: Connection, table: str, words: str) -> None:
    for verb in ("UPDATE", "DELETE"):
        connection.execute(text(f"""CREATE TRIGGER IF NOT EXISTS {table}_no_{verb.lower()} BEFORE {verb} ON {table}
            BEGIN SELECT RAISE(ABORT, '{words}'); END"""))


def _guard_postgresql(connection: Connection, table: str, words: str) -> None:
    connection.execute(text(f"""CREATE FUNCTION {table}_unchanged() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE EXCEPTION ''{words}''; END'"""))
    connection.execute(text(f"""CREATE TRIGGER {table}_unchanged BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
        EXECUTE FUNCTION {table}_unchanged()"""))


STATEMENTS = """
CREATE TABLE users (id {serial}, name TEXT NOT NULL UNIQUE, password_hash TEXT, role TEXT NOT NULL,
    labeler_group JSON NOT NULL, held_out BOOLEAN NOT NULL, hidden JSON NOT NULL, state TEXT NOT NULL, consent TEXT,
    created_at TEXT NOT NULL);
CREATE TABLE sessions (hash TEXT NOT NULL PRIMARY KEY, user_id BIGINT NOT NULL REFERENCES users (id), csrf TEXT NOT NULL,
    created_at TEXT NOT NULL, expires_at TEXT NOT NULL);
CREATE INDEX ix_sessions_user_id ON sessions (user_id);
CREATE TABLE tokens (id {serial}, hash TEXT NOT NULL UNIQUE, user_id BIGINT NOT NULL REFERENCES users (id),
    name TEXT NOT NULL, scopes JSON NOT NULL, created_at TEXT NOT NULL, expires_at TEXT, revoked_at TEXT);
CREATE TABLE invitations (id {serial}, hash TEXT NOT NULL UNIQUE, role TEXT NOT NULL, projects JSON NOT NULL,
    held_out BOOLEAN NOT NULL, uses_left INTEGER NOT NULL, created_at TEXT NOT NULL, expires_at TEXT NOT NULL,
    revoked_at TEXT);
CREATE TABLE instructions (hash TEXT NOT NULL PRIMARY KEY, text TEXT NOT NULL, preset TEXT, created_at TEXT NOT NULL);
CREATE TABLE forms (version TEXT NOT NULL PRIMARY KEY, body JSON NOT NULL, created_at TEXT NOT NULL);
CREATE TABLE projects (id {serial}, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, purpose TEXT NOT NULL,
    status TEXT NOT NULL, settings JSON NOT NULL, form_version TEXT NOT NULL REFERENCES forms (version),
    instruction_hash TEXT NOT NULL REFERENCES instructions (hash), instruction_version INTEGER NOT NULL,
    seed BIGINT NOT NULL, items_total BIGINT NOT NULL, items_done BIGINT NOT NULL, again BIGINT NOT NULL,
    created_at TEXT NOT NULL);
CREATE TABLE members (project_id BIGINT NOT NULL REFERENCES projects (id), user_id BIGINT NOT NULL REFERENCES users (id),
    state TEXT NOT NULL, cursor BIGINT NOT NULL, again_cursor BIGINT NOT NULL,
    repeat_cursor BIGINT NOT NULL, limited BOOLEAN NOT NULL, served BIGINT NOT NULL,
    done BIGINT NOT NULL, day TEXT NOT NULL, today INTEGER NOT NULL, score JSON NOT NULL, joined_at TEXT NOT NULL,
    PRIMARY KEY (project_id, user_id));
CREATE TABLE items (id {serial}, project_id BIGINT NOT NULL REFERENCES projects (id), position BIGINT NOT NULL,
    role TEXT NOT NULL, kind TEXT NOT NULL, prompt_key TEXT REFERENCES prompts (key), body JSON NOT NULL, warnings TEXT,
    content TEXT NOT NULL, state TEXT NOT NULL, wanted INTEGER NOT NULL, done INTEGER NOT NULL, held INTEGER NOT NULL,
    free INTEGER NOT NULL, again BIGINT NOT NULL, skips INTEGER NOT NULL, flags INTEGER NOT NULL,
    created_at TEXT NOT NULL, UNIQUE (project_id, content));
CREATE INDEX ix_items_place ON items (project_id, role, position);
CREATE INDEX ix_items_line ON items (project_id, role, position) WHERE free > 0;
CREATE INDEX ix_items_again ON items (project_id, role, again) WHERE free > 0 AND again > 0;
CREATE INDEX ix_items_state ON items (project_id, state, id);
CREATE TABLE assignments (id {serial}, item_id BIGINT NOT NULL REFERENCES items (id),
    user_id BIGINT NOT NULL REFERENCES users (id), project_id BIGINT NOT NULL REFERENCES projects (id),
    turn INTEGER NOT NULL, state TEXT NOT NULL, counted BOOLEAN NOT NULL, order_seed BIGINT NOT NULL,
    shown_order JSON NOT NULL, claimed_at TEXT NOT NULL, expires_at TEXT NOT NULL, draft JSON,
    draft_version INTEGER NOT NULL, judgment_seq BIGINT REFERENCES judgments (seq), UNIQUE (item_id, user_id, turn));
CREATE INDEX ix_assignments_mine ON assignments (user_id, project_id, state, id);
CREATE INDEX ix_assignments_leases ON assignments (project_id, expires_at) WHERE state = 'leased';
CREATE TABLE events (seq {serial}, kind TEXT NOT NULL, user_id BIGINT, project_id BIGINT, item_id BIGINT,
    assignment_id BIGINT, judgment_seq BIGINT, client_id TEXT UNIQUE, undoes BIGINT, body JSON NOT NULL,
    created_at TEXT NOT NULL, hash TEXT NOT NULL);
CREATE INDEX ix_events_mine ON events (user_id, project_id, seq);
CREATE INDEX ix_events_item ON events (item_id, seq);
CREATE INDEX ix_events_when ON events (project_id, created_at);
CREATE UNIQUE INDEX ix_events_undoes ON events (undoes);
CREATE TABLE retractions (judgment_seq BIGINT NOT NULL PRIMARY KEY REFERENCES judgments (seq), reason TEXT NOT NULL,
    created_at TEXT NOT NULL);
CREATE TABLE exposures (user_id BIGINT NOT NULL REFERENCES users (id), day TEXT NOT NULL, category TEXT NOT NULL,
    count INTEGER NOT NULL, PRIMARY KEY (user_id, day, category));
CREATE TABLE grades (judgment_seq BIGINT NOT NULL PRIMARY KEY REFERENCES judgments (seq), score INTEGER NOT NULL,
    user_id BIGINT NOT NULL REFERENCES users (id), created_at TEXT NOT NULL);
CREATE TABLE snapshots (id {serial}, sha256 TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
    "rows" INTEGER NOT NULL, labelers JSON NOT NULL, project_id BIGINT REFERENCES projects (id),
    created_at TEXT NOT NULL);
CREATE INDEX ix_snapshots_sha256 ON snapshots (sha256);
ALTER TABLE judgments ADD COLUMN item_id BIGINT;
ALTER TABLE judgments ADD COLUMN role TEXT;
CREATE INDEX ix_judgments_item_id ON judgments (item_id);
"""
