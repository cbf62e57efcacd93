"""Numbered changes of the database's shape.

Each function is frozen once released: a later change is a new function at the end of `MIGRATIONS`
and an edit of `schema.py`. All of them run in one write transaction, so a database is never
between two versions.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Connection, inspect, text

from harken.core.errors import UserError
from harken.store.migration_2 import studio_tables
from harken.store.migration_3 import safe_tables
from harken.store.migration_5 import lead_tables
from harken.store.migration_serve import serve_tables


def first_tables(connection: Connection) -> None:
    """Prompts, completions, imports, and judgments that can be added but not changed."""
    sqlite = connection.dialect.name == "sqlite"
    serial = "INTEGER PRIMARY KEY AUTOINCREMENT" if sqlite else "BIGSERIAL PRIMARY KEY"
    for statement in (
        f"""CREATE TABLE prompts (seq {serial}, key TEXT NOT NULL UNIQUE, id TEXT NOT NULL, body JSON NOT NULL,
            created_at TEXT NOT NULL)""",
        "CREATE INDEX ix_prompts_id ON prompts (id)",
        f"""CREATE TABLE completions (seq {serial}, id TEXT NOT NULL UNIQUE, prompt_id TEXT NOT NULL,
            text JSON NOT NULL, source TEXT NOT NULL, created_at TEXT NOT NULL)""",
        "CREATE INDEX ix_completions_prompt_id ON completions (prompt_id)",
        f"""CREATE TABLE imports (seq {serial}, file_hash TEXT NOT NULL, file_name TEXT NOT NULL, kind TEXT NOT NULL,
            "rows" INTEGER NOT NULL, skipped JSON NOT NULL, created_at TEXT NOT NULL)""",
        "CREATE INDEX ix_imports_file_hash ON imports (file_hash)",
        f"""CREATE TABLE judgments (seq {serial}, prompt_key TEXT NOT NULL REFERENCES prompts (key), kind TEXT NOT NULL,
            payload JSON NOT NULL, labeler TEXT, labeler_group JSON NOT NULL, shown_order JSON,
            seconds DOUBLE PRECISION, instruction_hash TEXT, form_version TEXT, client_id TEXT UNIQUE,
            content TEXT NOT NULL, import_seq BIGINT REFERENCES imports (seq), created_at TEXT NOT NULL)""",
        "CREATE INDEX ix_judgments_prompt_key ON judgments (prompt_key)",
        "CREATE INDEX ix_judgments_labeler ON judgments (labeler)",
    ):
        connection.execute(text(statement))
    if sqlite:
        for verb in ("UPDATE", "DELETE"):
            connection.execute(text(f"""CREATE TRIGGER judgments_no_{verb.lower()} BEFORE {verb} ON judgments
                BEGIN SELECT RAISE(ABORT, 'judgments are never changed: a correction is a new one'); END"""))


MIGRATIONS: list[Callable[[Connection], None]] = [first_tables, studio_tables, safe_tables, serve_tables, lead_tables]


def version(connection: Connection, name: str) -> int:
    """The database's version, 0 when it is new; another program's or a newer Harken's is refused."""
    tables = inspect(connection).get_table_names()
    if "harken_schema" not in tables:
        if tables:
            raise UserError(f"{name} is a database of another program (its tables: {', '.join(sorted(tables)[:5])}).",
                            "Choose another file for --db.")
        return 0
    newest = int(connection.execute(text("SELECT max(version) FROM harken_schema")).scalar() or 0)
    if newest > len(MIGRATIONS):
        raise UserError(f"{name} was written by a newer Harken: format {newest}, known here up to {len(MIGRATIONS)}.",
                        "Upgrade Harken: pip install --upgrade harken")
    return newest


def migrate(connection: Connection, name: str) -> None:
    """Brings the database to the newest version, inside the caller's write transaction."""
    current = version(connection, name)
    if current == 0:
        connection.execute(text("CREATE TABLE harken_schema (version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL)"))
    for number, change in enumerate(MIGRATIONS[current:], current + 1):
        change(connection)
        connection.execute(text("INSERT INTO harken_schema (version, applied_at) VALUES (:v, :at)"),
                           {"v": number, "at": datetime.now(UTC).isoformat(timespec="seconds")})
