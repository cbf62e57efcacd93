"""Rows out of tables: CSV and its relatives, Excel, Parquet, Arrow, folders saved by `datasets`, and data sets of a hub."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.formats import JSON_MESSAGES, SIGNS
from harken.store.parsing import LINE, NO_UTF8, BadLine, Decoder, Rows, failing
from harken.store.shapes import SHAPES
from harken.store.shapes.fields import LABELER_NAMES, PROMPT_NAMES

DELIMITERS = ",;\t|"
KNOWN = frozenset(name for groups, _, _ in SHAPES for group in groups for name in group) | PROMPT_NAMES | frozenset(LABELER_NAMES)
VALUES = frozenset(["ranks", "completions", "group", "flags", "prompt_flags", "tags", "meta", "tools", "spans", "answers",
                    "summaries", "info", "history", "context", "input", "messages", "conversations", "conversation",
                    "conversation_a", "conversation_b", "preferred_output", "non_preferred_output", "score", "rating", "strength",
                    "weight", "tie", "label", "labels", "kto_tag", "preference", "choice", "overall_preference",
                    "preference_strength", "score_0", "score_1", "winner_model_a", "winner_model_b", "winner_tie"])
"""Columns whose cells hold a value, not text: numbers, yes or no, lists and objects as JSON."""
GUARDED = re.compile(rf"\A'+{SIGNS}")  # one apostrophe only keeps spreadsheets from running a cell: see `write_table`
INDEX = "row number"
SEPARATOR = re.compile(r'"?sep=(.)"?\r?\n?', re.I)
DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
EXCEL_ERRORS = frozenset(("#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!", "#SPILL!", "#CALC!"))
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def delimiter_of(line: str, certain: bool) -> str | None:
    """What parts the columns of a header, or None where the line is no header of a table of feedback.

    `certain`: the name says that it is a table, so any names will do.
    """
    best: tuple[int, str] | None = None
    for mark in DELIMITERS:
        names = _trimmed(next(csv.reader([line], delimiter=mark, skipinitialspace=True), []))
        if any(names) and all(len(name) < 100 for name in names) and (best is None or len(names) > best[0]):
            best = (len(names), mark)
    if best is None:
        return None
    names = [n.strip().lower() for n in next(csv.reader([line], delimiter=best[1], skipinitialspace=True))]
    recognised = {n for n in names if n in {k.lower() for k in KNOWN}}
    if certain:
        return best[1]
    return best[1] if recognised and (best[0] > 1 or names[0] in PROMPT_NAMES) else None


def text_table(stream: io.BufferedReader, decoder: Decoder, delimiter: str) -> Rows:
    """(line, row) of a table in text. The first row names the columns; an empty cell is null."""
    csv.field_size_limit(LINE)
    texts = _texts(stream, decoder)
    try:
        header = next(texts, "")
        if SEPARATOR.fullmatch(header):  # Excel's own line on what parts the columns
            header = next(texts, "")
    except (csv.Error, BadLine) as error:
        yield 1, failing(BadLine("the table's first line cannot be read", str(error), NO_UTF8))
        return
    blanks = re.search(rf"{re.escape(delimiter)} \S", header) is not None  # `prompt, chosen`: a blank after each delimiter
    reader = csv.reader(chain([header], texts), delimiter=delimiter, strict=True, skipinitialspace=blanks)
    try:
        columns = _Columns(next(reader, []))
        for cells in reader:
            if not any(cells):
                continue
            if len(cells) < len(columns.names) or any(cells[len(columns.names):]):
                yield reader.line_num, failing(BadLine(f"a row of {len(cells)} cells in a table of {len(columns.names)} columns"))
                continue
            try:
                row = {name: _cell(name, GUARDED.sub(_unguarded, cell)) for name, cell in columns.of(cells)}
            except BadLine as error:
                yield reader.line_num, failing(error)
                continue
            if delimiter == ";":
                row = {name: _decimal(name, value) for name, value in row.items()}
            yield reader.line_num, row
    except csv.Error as error:
        if "new-line character" in str(error):
            yield reader.line_num, failing(BadLine("lines end with a carriage return alone", "",
                                                   "Convert them: tr '\\r' '\\n' < FILE > NEW.csv"))
            return
        yield reader.line_num, failing(BadLine("the table is broken here", str(error),
                                               "Correct it: the rows after it cannot be told apart."))
    except BadLine as error:
        detail = str(error).removeprefix(error.reason).strip(" ()")
        yield reader.line_num + 1, failing(BadLine(error.reason, detail, NO_UTF8))


def _texts(stream: io.BufferedReader, decoder: Decoder) -> Iterator[str]:
    while line := stream.readline(LINE + 1):
        if len(line) > LINE:
            raise csv.Error(f"a line is longer than {LINE >> 20} MB")
        yield decoder.line(line)


class _Columns:
    """A table's columns by its first row, and the cells that stand under names.

    A table that pandas wrote begins with a column without a name that numbers its rows: it is `INDEX`, and another column
    without a name must be empty. Raises `BadLine` where such a column holds something else: it may be a verdict.
    """

    def __init__(self, header: Sequence[str]) -> None:
        names = [name.strip() for name in _trimmed(header)]
        self.indexed = len(names) > 1 and not names[0]
        if self.indexed:
            names[0] = INDEX
        _check_names(names)
        self.names, self._seen = names, set[str]()

    def of(self, cells: Sequence[Any]) -> Iterator[tuple[str, Any]]:
        """(name, cell) of each column that has a name."""
        if self.indexed:
            number = str(cells[0])
            if not number.isdigit() or number in self._seen:
                raise BadLine("a column without a name does not number the rows", f"{number[:20]!r}",
                              "Give each column a name, in the first row.")
            self._seen.add(number)
        return zip(self.names, cells)


def _trimmed(names: Sequence[str]) -> list[str]:
    """A header without the empty names that a spreadsheet leaves at its end."""
    count = len(names)
    while count and not (names[count - 1] or "").strip():
        count -= 1
    return list(names[:count])


def _decimal(name: str, value: Any) -> Any:
    """A number with a decimal comma, as tables parted by semicolons have them."""
    if name in VALUES and isinstance(value, str) and DECIMAL_COMMA.fullmatch(value):
        return float(value.replace(",", "."))
    return value


def _check_names(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not all(names):
        what = f"two columns of the name {twice[0]!r}" if twice and twice[0] else "a column without a name"
        raise UserError(f"The table has {what}.", "Give each column a name of its own, in the first row.")


def _unguarded(found: re.Match[str]) -> str:
    return found[0][1:]


def _cell(name: str, cell: str) -> Any:
    """A cell's value; an empty one is null."""
    if not cell:
        return None
    if name not in VALUES and not (name == "completion" and JSON_MESSAGES.match(cell)):
        return cell
    low = cell.strip().lower()
    if low in ("true", "false"):
        return low == "true"
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return cell if isinstance(value, float) and not math.isfinite(value) else value


def excel(stream: io.BufferedReader, path: Path, limit: int | None) -> Rows:
    """(row, values) of an Excel file's one sheet that holds rows. Its first row names the columns."""
    try:
        import openpyxl
    except ModuleNotFoundError:
        raise UserError(f"{path} is an Excel file, and reading it needs the package openpyxl.",
                        "pip install 'harken[excel]', or save it as CSV.") from None
    import zipfile
    with zipfile.ZipFile(stream) as archive:
        size = sum(item.file_size for item in archive.infolist())
    if size > (limit or 1 << 30):
        raise UserError(f"{path} holds {size >> 20} MB once unpacked.", "Split it, or save it as CSV.")
    stream.seek(0)
    try:
        book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
    except Exception as error:  # openpyxl raises whatever its XML reader meets
        raise UserError(f"{path} is an Excel file that cannot be read ({error}).",
                        "Open and save it again, or save it as CSV.") from None
    sheets = [s for s in book.worksheets if any(any(c is not None for c in row) for row in s.iter_rows(values_only=True))]
    if len(sheets) > 1:
        raise UserError(f"{path} has {len(sheets)} sheets with rows: {', '.join(s.title for s in sheets)}.",
                        "Keep one in the file, or save it as CSV.")
    columns: _Columns | None = None
    for number, cells in enumerate(sheets[0].iter_rows(values_only=True) if sheets else (), 1):
        if all(c is None for c in cells):
            continue
        if columns is None:
            columns = _Columns(["" if c is None else str(c) for c in cells])
        elif any(c is not None for c in cells[len(columns.names):]):
            yield number, failing(BadLine("a cell stands beside the named columns"))
        else:
            try:
                yield number, {name: _excel_cell(name, c) for name, c in columns.of(cells)}
            except BadLine as error:
                yield number, failing(error)


def _excel_cell(name: str, cell: Any) -> Any:
    if isinstance(cell, str):
        if cell in EXCEL_ERRORS:
            raise BadLine(f'"{name}" is {cell}: Excel could not compute the cell', "", "Correct the cell in Excel.")
        return _cell(name, cell.replace("_x000D_", "\r"))
    if isinstance(cell, (date, time, timedelta)) and name.lower() in KNOWN | VALUES:
        raise BadLine(f'Excel made a date of "{name}"', str(cell),
                      "Format the column as text in Excel and write the cell again.")
    if name in VALUES or cell is None:
        return cell
    if isinstance(cell, bool) or not isinstance(cell, (int, float)):
        return str(cell)
    return str(int(cell)) if float(cell).is_integer() else repr(cell)


def arrow(stream: io.BufferedReader, path: Path, limit: int | None) -> Rows:
    """(row, values) of a Parquet or Arrow file."""
    pyarrow, parquet, ipc = _pyarrow(path)
    head = stream.peek(8)[:8]
    try:
        if head.startswith(b"PAR1"):
            file = parquet.ParquetFile(stream)
            size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
            if limit is not None and size > limit:
                raise UserError(f"{path} holds {size >> 20} MB once unpacked.", "Split it into smaller files.")
            schema = file.schema_arrow
            batches: Iterable[Any] = file.iter_batches(256)
        elif head.startswith(b"ARROW1"):
            reader = ipc.open_file(stream)
            schema = reader.schema
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            batches = reader = ipc.open_stream(stream)
            schema = reader.schema
        _check_names([str(name) for name in schema.names])
        yield from _batches(batches, any(_is_rich(kind, pyarrow.types) for kind in schema.types))
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, OSError) as error:
        raise UserError(f"{path} is damaged or cut short ({str(error).splitlines()[0][:200]}).",
                        "Copy or download the file again.") from None


def _is_rich(kind: Any, types: Any) -> bool:
    """Whether a column's values are, or hold, what JSON does not have: dates, decimals, bytes, maps, NaN inside a list."""
    return not (types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind) or types.is_boolean(kind)
                or types.is_null(kind) or types.is_floating(kind))


def as_json(value: Any) -> Any:
    """A typed table's value as JSON has it: dates as ISO 8601, decimals as numbers, maps as objects, NaN as
    null, bytes as the text they are or in base 64."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {name: as_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        if value and all(type(pair) is tuple and len(pair) == 2 for pair in value):  # a map's entries
            return {str(name): as_json(inner) for name, inner in value}
        return [as_json(inner) for inner in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    return str(value) if isinstance(value, timedelta) else value


def _batches(batches: Iterable[Any], rich: bool) -> Rows:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, 256):
            for row in batch.slice(start, 256).to_pylist():
                number += 1
                yield number, plain(as_json(row) if rich else row)


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a typed table: what is no number is null, JSON text in a column of values is parsed."""
    return {name: None if isinstance(value, float) and math.isnan(value) else _cell(name, value) if
            isinstance(value, str) and name in VALUES and value[:1] in ("[", "{") else value for name, value in row.items()}


def folder(path: Path, limit: int | None) -> Rows:
    """Rows of a folder of Arrow or Parquet files: what `datasets` saves, or a data set as it lies on a hub."""
    files = sorted(f for f in path.rglob("*") if f.suffix in (".arrow", ".parquet") and f.is_file()
                   and not f.name.startswith("cache-"))
    places = sorted({f.parent for f in files})
    splits = sorted({f.name.split("-")[0] for f in files}) if len(places) == 1 and files[0].suffix == ".parquet" else []
    if not files:
        raise UserError(f"{path} is a folder without Arrow or Parquet files.", "Name one file in it.")
    if len(places) > 1 or len(splits) > 1:
        parts = ", ".join(str(p.relative_to(path)) for p in places) if len(places) > 1 else ", ".join(splits)
        raise UserError(f"{path} is a folder of several parts: {parts}.", "Name one of them.")
    number = 0
    for file in files:
        with file.open("rb") as stream:
            for _, row in arrow(stream, file, limit):
                number += 1
                yield number, row


def hub(name: str) -> Rows:
    """Rows of a data set on a hub, by `owner/name` or `owner/name:split` (train, where none is named)."""
    try:
        import datasets
    except ModuleNotFoundError:
        raise UserError(f"There is no file {name}; as the name of a data set on a hub it needs the package datasets.",
                        "Check the name and the folder you are in, or: pip install 'harken[hub]'") from None
    owner, _, split = name.partition(":")
    try:
        splits = datasets.get_dataset_split_names(owner)
        chosen = split or ("train" if "train" in splits else splits[0] if len(splits) == 1 else "")
        if chosen not in splits:
            raise UserError(f"The data set {owner} has the splits {', '.join(splits)}.", f"Name one: {owner}:{splits[0]}")
        rows = datasets.load_dataset(owner, split=chosen, streaming=True)
    except UserError:
        raise
    except Exception as error:  # the hub's client raises errors of four libraries
        raise UserError(f"There is no file {name}, and as a data set on a hub it cannot be reached ({type(error).__name__}).",
                        "Check the name and the network, or download its files and name one.") from None
    for number, row in enumerate(rows, 1):
        yield number, plain(row)


def hub_revision(name: str) -> str | None:
    """The commit of a data set on a hub; None where the hub does not say it."""
    try:
        from huggingface_hub import HfApi
        return HfApi().dataset_info(name.partition(":")[0]).sha
    except Exception:  # offline, or no such package: reading it says what is wrong
        return None


def _pyarrow(path: Path) -> tuple[Any, Any, Any]:
    try:
        import pyarrow
        from pyarrow import ipc, parquet
    except ModuleNotFoundError:
        raise UserError(f"{path} is a Parquet or Arrow file, and reading it needs the package pyarrow.",
                        "pip install 'harken[parquet]'") from None
    return pyarrow, parquet, ipc
