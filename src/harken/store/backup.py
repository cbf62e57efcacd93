"""Copies of a feedback database that can be trusted: made while people go on answering, checked, and put back.

    info = backup(link, "monday.db")     # of any database, always one SQLite file that Harken opens
    restore("monday.db", target)         # into a new file or an empty PostgreSQL database

A live database's file must never be copied by `cp`: what lies in its write-ahead log would be missing.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, inspect, select, text

import harken.store.studio_schema  # noqa: F401  its tables are part of the metadata
from harken.core.errors import UserError
from harken.store import audit, migrations
from harken.store.connection import Link
from harken.store.private import make_private
from harken.store.schema import metadata

ROWS = 500


@dataclass(frozen=True)
class Checked:
    """What a verified copy holds: rows by table, and the hash that ends its audit ("" for an empty one)."""

    path: str
    rows: dict[str, int]
    chain: str


def before_migration(link: Link) -> Path | None:
    """A copy beside the file, for a database that has something to lose. PostgreSQL changes its shape in one
    transaction and needs none."""
    if not link.is_file:
        return None
    with link.reading() as connection:
        version = migrations.version(connection, link.name)
    if version == 0:
        return None
    path = Path(link.name)
    target = path.with_name(f"{path.stem}.format-{version}.{datetime.now(UTC):%Y%m%dT%H%M%S%f}{path.suffix}")
    _copy_file(link, target)
    return target


def backup(link: Link, out: str | Path) -> Checked:
    """Copies the database as it is at one moment into the new SQLite file `out`, and verifies the copy."""
    target = Path(out)
    if target.exists():
        raise UserError(f"{target} exists. A backup is never overwritten.", "Give --out another name.")
    if not target.parent.is_dir():
        raise UserError(f"The folder {target.parent} does not exist.", "Create it first.")
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        if link.is_file:
            _copy_file(link, partial)
        else:
            _copy_rows(link, Link(partial))
        checked = verify(partial)
        partial.rename(target)
    finally:
        for leftover in (partial, partial.with_name(partial.name + "-wal"), partial.with_name(partial.name + "-shm")):
            leftover.unlink(missing_ok=True)
    return Checked(str(target), checked.rows, checked.chain)


def restore(source: str | Path, target: str | Path) -> Checked:
    """Puts a backup back into `target`, a new file or an empty PostgreSQL database, and compares every count."""
    wanted = verify(source)
    link = Link(target)
    with link.reading() as connection:
        if inspect(connection).get_table_names():
            raise UserError(f"{link.name} holds a database already. A restore never overwrites one.",
                            "Give a new file name or an empty PostgreSQL database; move the old one away first.")
    _copy_rows(Link(source, create=False), link)
    with link.reading() as connection:
        restored = _checked(connection, link.name)
    link.engine.dispose()
    if (restored.rows, restored.chain) != (wanted.rows, wanted.chain):
        raise UserError(f"{link.name} does not hold what {source} holds.", "Restore into an empty place once more.")
    return restored


def verify(path: str | Path) -> Checked:
    """Whether a SQLite database is whole: pages, references, and every row against the audit."""
    link = Link(path, create=False)
    try:
        with link.reading() as connection:
            if migrations.version(connection, link.name) != len(migrations.MIGRATIONS):
                raise UserError(f"{path} has an older format.", f"Bring a copy up to date: harken backup --db {path} --out COPY")
            verdict = connection.execute(text("PRAGMA integrity_check")).scalar()
            broken = connection.execute(text("PRAGMA foreign_key_check")).fetchall()
            if verdict != "ok" or broken:
                raise UserError(f"{path} is damaged: {verdict}; {len(broken)} broken references.", "Use another backup.")
            return _checked(connection, str(path))
    finally:
        link.engine.dispose()


def _checked(connection: Connection, name: str) -> Checked:
    report = audit.verify(connection, name)
    return Checked(name, dict(report.rows), report.end)


def _copy_file(link: Link, target: Path) -> None:
    """SQLite's online backup: pages as of one moment, while writers go on."""
    with link.reading() as connection:
        source: Any = connection.connection.driver_connection
        make_private(target)
        copy = sqlite3.connect(target)
        try:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, nothing beside it
        finally:
            copy.close()


def _copy_rows(source: Link, target: Link) -> None:
    """Every row of every table, read in one transaction and written in one."""
    with source.reading() as reading, target.writing() as writing:
        if not source.is_file:
            reading.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        version = migrations.version(reading, source.name)
        if version != len(migrations.MIGRATIONS):
            raise UserError(f"{source.name} has format {version}.", "Open it once with this Harken: it is brought up to date.")
        migrations.migrate(writing, target.name)
        for table in metadata.sorted_tables:
            names = table.c.keys()  # a row's own names are the database's
            for batch in reading.execution_options(stream_results=True).execute(select(table)).partitions(ROWS):
                writing.execute(insert(table), [dict(zip(names, row)) for row in batch])
            if not target.is_file:
                _continue_numbers(writing, table.name, [c.name for c in table.primary_key])
    source.engine.dispose()
    target.engine.dispose()


def _continue_numbers(connection: Connection, table: str, key: list[str]) -> None:
    """Rows came with their numbers: the next number must follow the highest."""
    sequence = len(key) == 1 and connection.execute(
        text("SELECT pg_get_serial_sequence(:t, :c)"), {"t": table, "c": key[0]}).scalar()
    if sequence:
        connection.execute(text(f"SELECT setval('{sequence}', (SELECT max({key[0]}) FROM {table}))"))
