"""Format 5: what a lead works with. Items of certain people, comments, reviews, a search index, single sign-on, webhooks,
participants of crowd platforms, and rows that may lose a person's data but nothing else. Frozen: a later change of these
tables is a new migration."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, text

PAGE = 500


def lead_tables(connection: Connection) -> None:
    """Adds the tables and columns, and puts the items that are there into the search index."""
    sqlite = connection.dialect.name == "sqlite"
    serial = "INTEGER PRIMARY KEY AUTOINCREMENT" if sqlite else "BIGSERIAL PRIMARY KEY"
    for statement in STATEMENTS.format(serial=serial).split(";\n"):
        if statement.strip():
            connection.execute(text(statement))
    if sqlite:
        for statement in SQLITE + (SEARCH if _has_fts(connection) else ()):
            connection.execute(text(statement))
    else:
        for statement in (POSTGRESQL_SEARCH, *POSTGRESQL):
            connection.execute(text(statement))
    _fill(connection)


def _has_fts(connection: Connection) -> bool:
    """Nearly every SQLite is built with it; without it a search reads every text."""
    return "ENABLE_FTS5" in set(connection.execute(text("PRAGMA compile_options")).scalars())


def _fill(connection: Connection) -> None:
    last = 0
    query = text("""SELECT i.id, i.project_id, i.body, p.body AS asked FROM items i LEFT JOIN prompts p ON p.key = i.prompt_key
                    WHERE i.id > :last ORDER BY i.id LIMIT :page""")
    while rows := connection.execute(query, {"last": last, "page": PAGE}).fetchall():
        connection.execute(text("""INSERT INTO item_texts (item_id, project_id, tags, sources, words)
                                   VALUES (:item_id, :project_id, :tags, :sources, :words)"""),
                           [{"item_id": row.id, "project_id": row.project_id,
                             **texts_of(_json(row.asked), _json(row.body))} for row in rows])
        last = rows[-1].id


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def texts_of(asked: Any, body: Any) -> dict[str, str]:
    """What an item is found by: its tags and sources, a line each between line ends, and its words, case folded."""
    prompt = (asked or {}).get("prompt", "")
    said = [prompt] if isinstance(prompt, str) else [m.get("content") or "" for m in prompt]
    said += [c["text"] for c in body.get("completions", ())] + [(body.get("ask") or {}).get("text", "")]
    sources = sorted({c["source"] for c in body.get("completions", ()) if c.get("source")})
    return {"tags": _list((asked or {}).get("tags") or ()), "sources": _list(sources), "words": "\n".join(said).casefold()}


def _list(values: Any) -> str:
    return "".join(f"\n{v}" for v in values) + "\n" if values else ""


STATEMENTS = """\
ALTER TABLE items ADD COLUMN assigned TEXT;
ALTER TABLE users ADD COLUMN subject TEXT;
CREATE UNIQUE INDEX ix_users_subject ON users (subject);
CREATE TABLE comments (id {serial}, item_id BIGINT NOT NULL REFERENCES items (id),
    labeler_id BIGINT NOT NULL REFERENCES users (id),
    author_id BIGINT NOT NULL REFERENCES users (id), text JSON, created_at TEXT NOT NULL);
CREATE INDEX ix_comments_item_id ON comments (item_id);
CREATE INDEX ix_comments_labeler_id ON comments (labeler_id);
CREATE TABLE reviews (judgment_seq BIGINT NOT NULL PRIMARY KEY REFERENCES judgments (seq),
    user_id BIGINT NOT NULL REFERENCES users (id),
    created_at TEXT NOT NULL);
CREATE TABLE item_texts (item_id BIGINT NOT NULL PRIMARY KEY REFERENCES items (id),
    project_id BIGINT NOT NULL REFERENCES projects (id), tags TEXT NOT NULL, sources TEXT NOT NULL, words TEXT NOT NULL);
CREATE INDEX ix_item_texts_tags ON item_texts (project_id, tags);
CREATE INDEX ix_item_texts_sources ON item_texts (project_id, sources);
CREATE TABLE webhooks (id {serial}, url TEXT NOT NULL, secret TEXT NOT NULL, kinds JSON NOT NULL,
    project_id BIGINT REFERENCES projects (id),
    after BIGINT NOT NULL, tries INTEGER NOT NULL, next_at TEXT NOT NULL, problem TEXT NOT NULL, made_by BIGINT NOT NULL,
    created_at TEXT NOT NULL, revoked_at TEXT);
CREATE TABLE crowds (id {serial}, hash TEXT NOT NULL UNIQUE, project_id BIGINT NOT NULL REFERENCES projects (id),
    parameter TEXT NOT NULL,
    code TEXT NOT NULL, answers INTEGER NOT NULL, made_by BIGINT NOT NULL, created_at TEXT NOT NULL, revoked_at TEXT);
CREATE TABLE participants (user_id BIGINT NOT NULL PRIMARY KEY REFERENCES users (id),
    crowd_id BIGINT NOT NULL REFERENCES crowds (id),
    participant TEXT NOT NULL, extra JSON NOT NULL, created_at TEXT NOT NULL, completed_at TEXT);
CREATE UNIQUE INDEX ix_participants_once ON participants (crowd_id, participant);
"""
SEARCH = (
    """CREATE VIRTUAL TABLE item_search USING fts5 (words, content='item_texts', content_rowid='item_id',
       tokenize='unicode61 remove_diacritics 0', detail=none, prefix='2 3')""",
    """CREATE TRIGGER item_texts_added AFTER INSERT ON item_texts
       BEGIN INSERT INTO item_search (rowid, words) VALUES (NEW.item_id, NEW.words); END""",
    """CREATE TRIGGER item_texts_gone AFTER DELETE ON item_texts
       BEGIN INSERT INTO item_search (item_search, rowid, words) VALUES ('delete', OLD.item_id, OLD.words); END""",
)
"""Words by their beginnings. Trigrams would find any part of a word, and make an import four times as long."""
SQLITE = (
    # `assigned` lies behind an item's texts: read from the row, each look along the line would read them too.
    "DROP INDEX IF EXISTS ix_items_line",
    "CREATE INDEX ix_items_line ON items (project_id, role, position, assigned, free) WHERE free > 0",
    "DROP INDEX IF EXISTS ix_items_again",
    "CREATE INDEX ix_items_again ON items (project_id, role, again, position, assigned, free) WHERE free > 0 AND again > 0",
    "DROP TRIGGER IF EXISTS judgments_no_update",
    "DROP TRIGGER IF EXISTS events_no_update",
    """CREATE TRIGGER events_no_update BEFORE UPDATE ON events
       WHEN NOT (NEW.seq = OLD.seq AND NEW.hash = OLD.hash AND NEW.kind = OLD.kind AND NEW.created_at = OLD.created_at
                 AND NEW.user_id IS OLD.user_id AND NEW.project_id IS OLD.project_id AND NEW.item_id IS OLD.item_id
                 AND json_extract(NEW.body, '$.redacted') IS 1
                 AND json_extract(NEW.body, '$.after') IS json_extract(OLD.body, '$.after'))
       BEGIN SELECT RAISE(ABORT, 'the audit is never changed'); END""",
    # A judgment is never changed, but for a person's data on their request: the hash of what it was stays.
    """CREATE TRIGGER judgments_no_update BEFORE UPDATE ON judgments
       WHEN NOT (NEW.seq = OLD.seq AND NEW.content = OLD.content AND NEW.prompt_key = OLD.prompt_key AND NEW.kind = OLD.kind
                 AND NEW.payload = '{"redacted": true}' AND NEW.labeler LIKE 'erased-%')
       BEGIN SELECT RAISE(ABORT, 'judgments are never changed: a correction is a new one'); END""",
)
POSTGRESQL_SEARCH = "CREATE INDEX ix_item_texts_words ON item_texts USING gin (to_tsvector('simple', left(words, 100000)))"
"""A tsvector holds 1 MiB at most: of a very long item the beginning is indexed."""
POSTGRESQL = tuple(
    statement
    for table, same, gone in (
        (
            "judgments",
            ("seq", "content", "prompt_key", "kind"),
            "NEW.payload::text LIKE '{%redacted%true}' AND NEW.labeler LIKE 'erased-%'",
        ),
        (
            "events",
            ("seq", "hash", "kind", "created_at", "user_id", "project_id", "item_id"),
            "(NEW.body::jsonb -> 'redacted') = 'true'",
        ),
    )
    for statement in (
        f"DROP TRIGGER {table}_unchanged ON {table}",
        f"CREATE TRIGGER {table}_unchanged BEFORE DELETE OR TRUNCATE ON {table} EXECUTE FUNCTION {table}_unchanged()",
        f"CREATE TRIGGER {table}_redacted BEFORE UPDATE ON {table} FOR EACH ROW WHEN (NOT ("
        + " AND ".join(f"NEW.{c} IS NOT DISTINCT FROM OLD.{c}" for c in same)
        + f" AND {gone})) EXECUTE FUNCTION {table}_unchanged()",
    )
)
