"""Statements that run for every answer: compiled once for each kind of database, then handed to its driver as they are.

    _item = Prepared(select(items).where(items.c.id == bindparam("id")))
    row = _item.first(tx, id=7)          # a named tuple with Python values, or None

SQLAlchemy's own `execute` looks the statement up, builds a context, a cursor and a result for each call: about as much
Python as all the rest of an answer's way into the database (16 statements). Here only values are converted. Statements
must have a fixed text: no `IN` over a list of unknown length.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import DBAPIError

Convert = Callable[[Any], Any]


@dataclass(frozen=True)
class _Compiled:
    """One statement for one kind of database."""

    sql: str
    order: Sequence[str] | None
    """Names of the values by place; None where the driver takes them by name."""
    constants: dict[str, Any]
    """Values that stand in the statement itself."""
    convert: dict[str, Convert]

    def values(self, given: dict[str, Any]) -> Any:
        named = {**self.constants, **given}
        for name, convert in self.convert.items():
            named[name] = convert(named[name])
        return named if self.order is None else [named[name] for name in self.order]


class Prepared:
    """A statement with `bindparam` names; `statement` is a select, update or insert of SQLAlchemy Core."""

    def __init__(self, statement: Any) -> None:
        self.statement = statement
        self._compiled: dict[str, _Compiled] = {}
        self._rows: dict[str, Callable[[Sequence[Any]], Any]] = {}

    def run(self, tx: Connection, **values: Any) -> Any:
        """Executes it; returns the driver's cursor. Raises what SQLAlchemy would raise."""
        dialect = tx.dialect
        found = self._compiled.get(dialect.name)
        if found is None:
            found = self._compiled[dialect.name] = _compile(self.statement, dialect)
        said = found.values(values)
        try:
            cursor = tx.connection.cursor()
            cursor.execute(found.sql, said)
        except dialect.loaded_dbapi.Error as error:
            raise DBAPIError.instance(found.sql, said, error, dialect.loaded_dbapi.Error, dialect=dialect) from error
        return cursor

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
            self._rows[name] = _reader(self.statement, tx.dialect, [column[1] for column in cursor.description])
        return self._rows[name]


def _compile(statement: Any, dialect: Dialect) -> _Compiled:
    compiled = statement.compile(dialect=dialect)
    convert: dict[str, Convert] = {}
    for name, bound in compiled.binds.items():
        if (process := bound.type.dialect_impl(dialect).bind_processor(dialect)) is not None:
            convert[name] = process
    constants = {name: bound.value for name, bound in compiled.binds.items() if not bound.required}
    return _Compiled(str(compiled), list(compiled.positiontup) if compiled.positional else None, constants, convert)


def _reader(statement: Any, dialect: Dialect, types: Sequence[Any]) -> Callable[[Sequence[Any]], Any]:
    """Makes a named tuple of a driver's row, with the columns' own Python values. `types` are the driver's names of them."""
    columns = statement.exported_columns
    make: Any = namedtuple("Found", columns.keys())  # type: ignore[misc]
    convert = [(n, process) for n, (c, kind) in enumerate(zip(columns, types, strict=True))
               if (process := c.type.dialect_impl(dialect).result_processor(dialect, kind)) is not None]

    def row(raw: Sequence[Any]) -> Any:
        values = list(raw)
        for n, process in convert:
            values[n] = process(values[n])
        return make._make(values)

    return row
