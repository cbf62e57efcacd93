"""Files written whole or not at all: JSON Lines, CSV, text."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.formats import JSON_MESSAGES, SIGNS
from harken.store.shapes import Record

RUNS = re.compile(rf"\A'*{SIGNS}")  # a spreadsheet takes what begins so for a formula


def json_line(row: Any) -> str:
    """One row as one line of JSON, readable Unicode; broken Unicode (half a surrogate pair) is escaped."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(row)
    return line


def write_jsonl(path: str | Path, rows: Iterable[Record | Mapping[str, Any]]) -> int:
    """Writes rows (or records), one a line, and returns how many; gzip where the name ends in `.gz`.

    A reader sees the old file or the whole new one: whatever fails, what was there stays.
    """
    def lines() -> Iterator[bytes]:
        for row in rows:
            yield json_line(row if isinstance(row, Mapping) else row.to_json()).encode("utf-8") + b"\n"
    return write_atomically(Path(path), lines())


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes rows as CSV (UTF-8 with its mark, as Excel wants it) and returns how many; lists and objects as JSON text.

    A cell that a spreadsheet would run gets an apostrophe before it, which `harken import` takes off again.
    """
    every = list(rows)
    names = list({name: None for row in every for name in row})

    def lines() -> Iterator[bytes]:
        for cells in (names, *([_cell(name, row.get(name)) for name in names] for row in every)):
            text = io.StringIO()
            csv.writer(text, lineterminator="\r\n").writerow(cells)
            yield text.getvalue().encode("utf-8-sig" if cells is names else "utf-8", "backslashreplace")
    return write_atomically(path, lines()) - 1


def defused(value: Any) -> Any:
    """A cell of a table for people: text that a spreadsheet would run gets an apostrophe before it. Numbers stay numbers."""
    if not isinstance(value, str) or not RUNS.match(value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _cell(name: str, value: Any) -> Any:
    if value is None:
        return ""
    if name == "completion" and isinstance(value, str) and JSON_MESSAGES.match(value):
        value = [{"role": "assistant", "content": value}]  # text that looks like messages, told from messages
    if isinstance(value, (list, dict, bool)):
        return json.dumps(value, ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and RUNS.match(value) else value


def check_out(out: Path, source: str | Path = "", option: str = "--out") -> None:
    """Refuses a file that cannot be written, before the work. One that is there already will be replaced."""
    if not out.name or out.is_dir():
        raise UserError(f"{option} {str(out)!r} is not the name of a file.", "Name a file, like out.jsonl.")
    if out.exists() and not out.is_file():
        raise UserError(f"{out} is not a file that can be replaced.", f"Choose another {option}.")
    if not out.parent.is_dir():
        raise UserError(f"There is no folder {out.parent}.", f"Create it first, or choose another {option}.")
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"The folder {out.parent} cannot be written to.", f"Choose another {option}.")
    if out.exists() and Path(source).exists() and out.samefile(source):
        raise UserError(f"{option} {out} is the file that is read.", f"Choose another {option}, or it would be lost.")


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all. Half a surrogate pair, which UTF-8 cannot hold, becomes \\ud83d, as JSON has it."""
    write_atomically(path, [text.encode("utf-8", "backslashreplace")])


def write_atomically(path: Path, lines: Iterable[bytes]) -> int:
    """Writes to a file beside `path`, syncs it to the disk, then renames; returns the number of lines."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    count = 0
    try:
        with temporary.open("xb") as raw:
            # mtime 0: equal rows give equal bytes
            packed = path.suffix == ".gz"
            with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if packed else nullcontext(raw) as file:
                for line in lines:
                    file.write(line)
                    count += 1
            raw.flush()
            os.fsync(raw.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path} could not be written: {error.strerror or error}. What was there before is unchanged.",
                        "Check that the folder exists, is writable, and has room on its disk.") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return count
