"""How the feedback database is reached: settings, transactions, and errors in words for people."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, ProgrammingError

from harken.core.errors import UserError
from harken.store.private import make_private

MAGIC = b"SQLite format 3\0"
WRITERS_LOCK = 4_866_117  # any number that no other program uses for a PostgreSQL advisory lock
# One trip. An answer's statements are planned once, not each time: none is better served by a plan for its values.
BEGIN_POSTGRES = f"BEGIN; SET LOCAL plan_cache_mode = force_generic_plan; SELECT pg_advisory_xact_lock({WRITERS_LOCK})"
ADDRESS = "Give a file name, or postgresql://user@host/name."
EXPLAIN = (
    ("locked", "is in use by another process that holds it for too long",
     "Wait for it to finish (an import, a backup), or stop it, and run the command again."),
    ("busy", "is in use by another process that holds it for too long",
     "Wait for it to finish (an import, a backup), or stop it, and run the command again."),
    ("readonly", "is read-only", "Make the file and its folder writable, or copy the database elsewhere."),
    ("is full", "could not grow: the disk is full", "Free some space. Nothing of this command was stored."),
    ("not a database", "is not a database", "Choose another file for --db."),
    ("malformed", "is damaged", "Restore it from a backup, or save what `sqlite3 FILE .recover` still finds."),
    ("could not decode", "is damaged", "Restore it from a backup, or save what `sqlite3 FILE .recover` still finds."),
    ("unable to open", "cannot be opened", "Check that its folder exists and is writable."),
    ("disk i/o", "cannot be read or written: the disk reports an error", "Check the disk and its free space."),
)


class StorageError(UserError):
    """The database could not be read or written. Nothing of the transaction is stored; trying again may help."""


class RuleError(UserError):
    """A rule of the database (a unique name, a reference) would be broken. Nothing is stored; the same again fails again."""


class Link:
    """An engine with Harken's settings. `reading()` and `writing()` are its transactions."""

    def __init__(self, target: str | Path, *, create: bool = True, busy_seconds: float = 30.0) -> None:
        self.url = _url(target)
        self.name = self.url.database or "" if self.is_file else self.url.render_as_string(hide_password=True)
        if self.is_file:
            with _looking:
                path = Path(self.name).resolve()
                if path not in _seen or not path.exists():
                    _check_file(Path(self.name), create)
                    if create:
                        _make_file(Path(self.name))
                _seen.add(path)
        self._engine = _engine(self.url, busy_seconds)
        self._one_writer = threading.Lock()

    @property
    def is_file(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def engine(self) -> Engine:
        return self._engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._explained(), self._engine.connect() as connection:
            yield connection
            connection.commit()  # after ROLLBACK, which the pool would send, psycopg forgets the statements it has prepared

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One write transaction: all of it is stored, or nothing. Writers wait for each other."""
        queue = self._one_writer if self.is_file else nullcontext()
        with queue, self._explained(), self._engine.connect() as plain:
            if self.is_file:
                with (connection := plain.execution_options(harken_writes=True)).begin():
                    yield connection
                return
            connection = plain.execution_options(isolation_level="AUTOCOMMIT")  # no BEGIN of its own
            with connection.begin():
                connection.exec_driver_sql(BEGIN_POSTGRES)
                yield connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            raise RuleError(f"{self.name}: a rule of the database would be broken ({_rule(error)}).",
                            "Nothing of it was stored. Somebody may have stored the same a moment ago: try again.") from None
        except ProgrammingError:
            raise
        except (DatabaseError, sqlite3.OperationalError, sqlite3.DatabaseError) as error:
            raise explain(error, self.name) from error
        except UnicodeDecodeError as error:  # a byte of the file's own tables, or of a text in it
            raise explain(sqlite3.DatabaseError(f"malformed: {error}"), self.name) from None
        except UnicodeEncodeError as error:
            raise UserError(f"{self.name}: a name holds broken Unicode ({error.reason}).",
                            "Correct the labeler, client id or source it came with.") from None


def _rule(error: IntegrityError) -> str:
    """What the database says, without the values it was given."""
    return str(error.orig).split("\n")[0]


def masked(address: str | Path) -> str:
    """An address as it may be shown and logged: without its password."""
    return re.sub(r"(://[^:/@]*:).*@", r"\1***@", str(address))


def explain(error: Exception, name: str) -> StorageError:
    """What a database error means and what to do."""
    reason = str(getattr(error, "orig", None) or error)
    for sign, fact, action in EXPLAIN:
        if sign in reason.lower():
            return StorageError(f"{name} {fact} ({reason}).", action)
    return StorageError(f"{name}: the database answered: {reason}.", "Check the address, the server and your permissions.")


def _url(target: str | Path) -> URL:
    if str(target).lower().startswith("file:"):
        raise UserError(f"{target} is an address of SQLite's own.", ADDRESS)
    if "://" not in str(target):
        return URL.create("sqlite", database=str(target))
    try:
        url = make_url(str(target))
    except (ArgumentError, ValueError):
        raise UserError(f"{masked(target)} is no database address.", ADDRESS) from None
    if url.get_backend_name() == "sqlite" and (url.query or (url.database or "").lower().startswith("file:")):
        raise UserError(f"{target} holds more than a file's name.", ADDRESS)
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


# Once a file and process: to close a file gives up all locks that this process has on it (POSIX). Another process could then
# take itself for the last one and remove the journal (WAL) with what was acknowledged in it.
_looking = threading.Lock()
_seen: set[Path] = set()


def _check_file(path: Path, create: bool) -> None:
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder.", "Name a file in it, like feedback.db.")
        if not path.exists():
            if not create:
                raise UserError(f"There is no database {path}.", f"Make one: harken import FILE --db {path}")
            if not path.parent.is_dir():
                raise UserError(f"The folder {path.parent} does not exist.", "Create it first.")
            return
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
    except OSError as error:
        raise UserError(f"{path} cannot be opened: {error.strerror}.", "Check its name and permissions.") from None
    if head and head != MAGIC:
        raise UserError(f"{path} is not a database.", "Choose another file for --db.")


def _make_file(path: Path) -> None:
    """A new database is its owner's alone; SQLite gives its side files the same mode."""
    try:
        make_private(path)
    except OSError as error:
        raise UserError(f"{path} cannot be made: {error.strerror}.", "Check its name and the folder's permissions.") from None


def _json(cell: str) -> Any:
    """A cell that holds JSON. Raises DatabaseError, as for any damage of the file."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        raise sqlite3.DatabaseError("malformed: a cell that should hold JSON does not") from None


def _engine(url: URL, busy_seconds: float) -> Engine:
    is_file = url.get_backend_name() == "sqlite"
    # The connection that was used last is used next: it has the statements prepared and their plans made.
    arguments: dict[str, Any] = {"connect_args": {"timeout": busy_seconds}} if is_file else {"pool_use_lifo": True}
    try:
        # Errors are logged: no answers, no password hashes in them.
        engine = create_engine(url, hide_parameters=True, json_deserializer=_json, **arguments)
    except ModuleNotFoundError as error:
        if url.get_backend_name() != "postgresql":
            raise UserError(f"A {url.get_backend_name()} database is not supported.", ADDRESS) from None
        raise UserError(f"A {url.get_backend_name()} database needs the package {error.name}.",
                        "pip install 'psycopg[binary]'") from None
    except ArgumentError as error:
        raise UserError(f"{url.render_as_string(hide_password=True)}: {error}.", ADDRESS) from None
    if not is_file:
        return engine

    @event.listens_for(engine, "connect")
    def settings(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # Harken says BEGIN itself, below
        # busy_timeout first: without it a second process that opens the file fails on journal_mode at once (F4)
        connection.execute(f"PRAGMA busy_timeout={int(busy_seconds * 1000)}")
        _use_wal(connection, busy_seconds)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE: a reader that turns writer is refused without waiting, whatever the busy_timeout (F4)
        writes = connection.get_execution_options().get("harken_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _use_wal(connection: Any, seconds: float) -> None:
    """Asks until it is granted: the first switch to WAL is refused at once, whatever the busy_timeout,
    while another process makes it (seen 3 times in 240 opens of a new file by 4 processes)."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
