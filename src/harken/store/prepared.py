"""Statements that run for every answer: compiled once for each kind of database, then handed to its driver as they are.

    _item = Prepared(select(items).where(items.c.id == bindparam("id")))
    row = _item.first(tx, id=7)          # a named tuple with Python values, or None
    item, prompt = Joined((ITEM, PROMPT), lambda s: s.select_from(…)).first(tx, id=7)    # one such for each group of columns

SQLAlchemy's own `execute` looks the statement up, builds a context, a cursor and a result for each call: about as much
Python as all the rest of an answer's way into the database. Here only values are converted. Statements
must have a fixed text: no `IN` over a list of unknown length.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, Dialect, literal_column, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.visitors import replacement_traverse

NAMED = re.compile(r"%\((\w+)\)s")
Convert = Callable[[Any], Any]


@dataclass(frozen=True)
class _Compiled:
    """One statement for one kind of database."""

    sql: str
    """As SQLAlchemy writes it: on PostgreSQL with %(name)s for values."""
    sent: str
    """As the driver takes it."""
    order: Sequence[str]
    """Names of the values by place."""
    constants: dict[str, Any]
    """Values that stand in the statement itself."""
    convert: dict[str, Convert]

    def values(self, given: dict[str, Any]) -> list[Any]:
        named = {**self.constants, **given}
        for name, convert in self.convert.items():
            named[name] = convert(named[name])
        return [named[name] for name in self.order]


class Prepared:
    """A statement with `bindparam` names; `statement` is a select, update or insert of SQLAlchemy Core."""

    def __init__(self, statement: Any) -> None:
        self.statement = statement
        self._compiled: dict[str, _Compiled] = {}
        self._rows: dict[str, Callable[[Sequence[Any]], Any]] = {}

    @property
    def returns(self) -> bool:
        """Whether it gives rows back: a select, or a change with RETURNING."""
        return len(self.statement.exported_columns) > 0

    def run(self, tx: Connection, **values: Any) -> Any:
        """Executes it; returns the driver's cursor. Raises what SQLAlchemy would raise."""
        compiled = self.compiled(tx.dialect)
        return _execute(tx, compiled.sent, compiled.values(values))

    def compiled(self, dialect: Dialect) -> _Compiled:
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = _compile(self.statement, dialect)
        return compiled

    def all(self, tx: Connection, **values: Any) -> list[Any]:
        cursor = self.run(tx, **values)
        return list(map(self._row(tx, cursor), cursor.fetchall()))

    def first(self, tx: Connection, **values: Any) -> Any:
        """The first row, or None. The statement should return few: the others are thrown away."""
        cursor = self.run(tx, **values)
        row = cursor.fetchone()
        return None if row is None else self._row(tx, cursor)(row)

    def scalar(self, tx: Connection, **values: Any) -> Any:
        """The first row's first value, or None."""
        row = self.first(tx, **values)
        return None if row is None else row[0]

    def _row(self, tx: Connection, cursor: Any) -> Callable[[Sequence[Any]], Any]:
        name = tx.dialect.name
        if name not in self._rows:
            self._rows[name] = self._reader(tx.dialect, [column[1] for column in cursor.description])
        return self._rows[name]

    def _reader(self, dialect: Dialect, types: Sequence[Any]) -> Callable[[Sequence[Any]], Any]:
        return _reader(dict(self.statement.exported_columns), dialect, types)


class Joined(Prepared):
    """A select over several tables: a row is one named tuple for each group of columns, or None where an outer join found
    nothing (the group's first column is null), then the values of `more`."""

    def __init__(self, groups: Sequence[Sequence[ColumnElement[Any]]], finish: Callable[[Any], Any], *more: Any) -> None:
        self.groups = groups
        columns = [column for group in groups for column in group] + list(more)
        super().__init__(finish(select(*[column.label(f"c{n}") for n, column in enumerate(columns)])))

    def _reader(self, dialect: Dialect, types: Sequence[Any]) -> Callable[[Sequence[Any]], Any]:
        parts, at = [], 0
        for group in self.groups:
            end = at + len(group)
            parts.append((at, end, _reader({str(c.key): c for c in group}, dialect, types[at:end])))
            at = end

        def row(raw: Sequence[Any]) -> Any:
            return [None if raw[a] is None else make(raw[a:z]) for a, z, make in parts] + list(raw[at:])

        return row


class Writes:
    """Changes of different rows, none reading what another changes: collected, then sent in one trip where the database can do
    that (PostgreSQL), else one after the other.

        writes = Writes(tx)
        writes.add(UPDATE, values)
        key = writes.send(INSERT, row)      # the last one's first RETURNING value, or None
    """

    def __init__(self, tx: Connection) -> None:
        self.tx = tx
        self._waiting: list[tuple[Prepared, dict[str, Any]]] = []

    def add(self, statement: Prepared, values: dict[str, Any]) -> None:
        self._waiting.append((statement, values))

    def send(self, *last: Any) -> Any:
        """Carries out what waits, then `last` (a statement and its values), whose RETURNING value it gives back."""
        parts = [*self._waiting, *([last] if last else [])]
        self._waiting = []
        if not parts:
            return None
        if self.tx.dialect.name == "postgresql" and len(parts) > 1:
            return self._send_together(parts)
        for statement, values in parts[:-1]:
            statement.run(self.tx, **values)
        statement, values = parts[-1]
        return statement.scalar(self.tx, **values) if statement.returns else statement.run(self.tx, **values) and None

    def _send_together(self, parts: list[tuple[Prepared, dict[str, Any]]]) -> Any:
        statements = tuple(statement for statement, _ in parts)
        compiled = [statement.compiled(self.tx.dialect) for statement in statements]
        if statements not in _as_one:
            _as_one[statements] = _common_tables(compiled, statements[-1].returns)
        given = [value for one, (_, values) in zip(compiled, parts, strict=True) for value in one.values(values)]
        return _execute(self.tx, _as_one[statements], given).fetchone()[0]


_as_one: dict[tuple[Prepared, ...], str] = {}  # few: as many as there are ways to answer and claim


def _common_tables(each: list[_Compiled], returns: bool) -> str:
    """Common table expressions: PostgreSQL carries out every one that changes something."""
    renamed = [NAMED.sub(rf"%(\1_{n})s", one.sql) for n, one in enumerate(each)]
    sql = ("WITH " + ", ".join(f"do_{n} AS ({part})" for n, part in enumerate(renamed)) + " SELECT "
           + (f"* FROM do_{len(each) - 1}" if returns else "NULL"))
    return _numbered(sql, [f"{name}_{n}" for n, one in enumerate(each) for name in one.order])


def _numbered(sql: str, order: Sequence[str]) -> str:
    """PostgreSQL's own $1, $2 for %(name)s: psycopg reads long statements anew at each run to do the same."""
    place = {name: f"${n}" for n, name in enumerate(order, 1)}
    return NAMED.sub(lambda found: place[found[1]], sql).replace("%%", "%")


def _execute(tx: Connection, sql: str, parameters: Any) -> Any:
    try:
        if tx.dialect.name == "postgresql":
            return tx.dialect.loaded_dbapi.RawCursor(tx.connection.dbapi_connection).execute(sql, parameters, prepare=True)
        cursor = tx.connection.cursor()
        cursor.execute(sql, parameters)
    except tx.dialect.loaded_dbapi.Error as error:
        raise DBAPIError.instance(sql, parameters, error, tx.dialect.loaded_dbapi.Error, hide_parameters=True,
                                  dialect=tx.dialect) from error
    return cursor


def _inlined(statement: Any) -> Any:
    """The statement with its own constants in its text. As parameters they would keep a database from planning once: whether
    a partial index fits depends on them, so SQLite compiles the statement anew each time it is run with one."""
    def inline(element: Any, **_: Any) -> Any:
        if isinstance(element, BindParameter) and not element.required and type(element.value) in (int, str):
            text = str(element.value)
            text = text if isinstance(element.value, int) else "'" + text.replace("'", "''") + "'"
            return literal_column(text, element.type)
        return None

    return replacement_traverse(statement, {}, inline)


def _compile(statement: Any, dialect: Dialect) -> _Compiled:
    compiled = _inlined(statement).compile(dialect=dialect)
    names = set(compiled.bind_names.values())
    convert: dict[str, Convert] = {}
    for name in names:
        bound = compiled.binds[name]
        if (process := bound.type.dialect_impl(dialect).bind_processor(dialect)) is not None:
            convert[name] = process
    constants = {name: compiled.binds[name].value for name in names if not compiled.binds[name].required}
    sql = str(compiled)
    if compiled.positional:
        return _Compiled(sql, sql, list(compiled.positiontup or ()), constants, convert)
    order = list(dict.fromkeys(NAMED.findall(sql)))
    return _Compiled(sql, _numbered(sql, order), order, constants, convert)


def _reader(columns: Mapping[str, Any], dialect: Dialect, types: Sequence[Any]) -> Callable[[Sequence[Any]], Any]:
    """Makes a named tuple of a driver's row, with the columns' own Python values. `types` are the driver's names of them."""
    make: Any = namedtuple("Found", columns.keys())  # type: ignore[misc]
    convert = [(n, process) for n, (c, kind) in enumerate(zip(columns.values(), types, strict=True))
               if (process := c.type.dialect_impl(dialect).result_processor(dialect, kind)) is not None]

    def row(raw: Sequence[Any]) -> Any:
        values = list(raw)
        for n, process in convert:
            values[n] = process(values[n])
        return make._make(values)

    return row
