"""Feedback as files: JSON Lines (`.jsonl`, `.jsonl.gz`) or a JSON array (`.json`). No database here.

    read_comparisons("pairs.jsonl").records     # list[Choice]
    write_jsonl("out.jsonl", choices)

Which shapes of rows are understood: `harken.store.shapes`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from harken.core.errors import UserError
from harken.core.records import Choice, Demonstration, Prompt
from harken.store.shapes import Kind, Record, adapter_for, kind_of

R = TypeVar("R", bound=Record, covariant=True)
KINDS: tuple[Kind, ...] = ("comparisons", "demonstrations", "prompts")
EMPTY_TREE = "a conversation tree without two ranked answers to one question"
SKIP = "Correct it, or leave malformed lines out and have them counted with --skip-bad."
WANTED = "Harken reads JSON Lines (.jsonl, .jsonl.gz: one object a line) or a JSON array (.json), in UTF-8."
COPY = "the file may be incomplete: copy it again"
BOM = b"\xef\xbb\xbf"
FOREIGN = {b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"PK\x03\x04": "a zip archive or Excel file",
           b"PAR1": "a Parquet file", b"SQLite format 3\0": "an SQLite database", b"%PDF": "a PDF document",
           b"\x28\xb5\x2f\xfd": "a Zstandard archive", b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text"}


@dataclass(frozen=True)
class Loaded(Generic[R]):
    """What a file held. `skipped` counts the rows left out, by reason."""

    kind: Kind
    records: list[R]
    skipped: Mapping[str, int] = field(default_factory=dict)

    def describe(self) -> str | None:
        """One line on what was left out and why, or None."""
        if not self.skipped:
            return None
        reasons = "; ".join(f"{n} × {reason}" for reason, n in self.skipped.items())
        return f"Skipped {sum(self.skipped.values())} malformed lines: {reasons}."


class BadLine(ValueError):
    """A malformed line: `reason` is what is counted, `detail` what only this line shows."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason} ({detail})" if detail else reason)


class Reader:
    """Iterates over a file's records; afterwards `kind` and `skipped` say what it was.

    Without `kind` the first good row decides, and a later row of another kind is malformed.
    With `kind="prompts"` the prompts of any file are read. `progress` hears (bytes read, of all).
    """

    def __init__(self, path: str | Path, kind: Kind | None = None, *, skip_bad: bool = False,
                 progress: Callable[[int, int], None] | None = None) -> None:
        if kind is not None and kind not in KINDS:
            raise UserError(f"Unknown kind {kind!r}.", f"Choose one of {', '.join(KINDS)}.")
        self.path, self.kind, self.skip_bad, self.progress = Path(path), kind, skip_bad, progress
        self.skipped: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Record]:
        found, bad = False, 0
        for line, raw in self._rows():
            try:
                records = self._records(raw() if callable(raw) else raw)
            except ValueError as error:
                if not self.skip_bad:
                    raise UserError(f"{self.path}, line {line}: {error}.", SKIP) from None
                self.skipped[error.reason if isinstance(error, BadLine) else str(error)] += 1
                bad += 1
                continue
            found = found or bool(records)
            yield from records
        if not found:
            self._nothing(bad)

    def _records(self, row: object) -> list[Record]:
        if not isinstance(row, Mapping):
            raise BadLine(f"a row must be an object, found {type(row).__name__}")
        kind, adapter = adapter_for(row)
        records = list(adapter(row))
        if not records:
            self.skipped[EMPTY_TREE] += 1
        for i, record in enumerate(records):
            kind = kind_of(record)
            if self.kind == "prompts" and not isinstance(record, Prompt):
                records[i] = record.prompt
            elif self.kind is None:
                self.kind = kind
            elif kind != self.kind:
                raise BadLine(f"a row of {kind} in a file of {self.kind}")
        return records

    def _nothing(self, bad: int) -> None:
        if self.skipped:
            reason, n = self.skipped.most_common(1)[0]
            raise UserError(f"{self.path} has no usable row: {sum(self.skipped.values())} left out, "
                            f"{n} of them because: {reason}.", "Look at its first line; is it the file you meant?")
        raise UserError(f"{self.path} is empty.", WANTED)

    def _rows(self) -> Iterator[tuple[int, object]]:
        """(line number, row or a function that parses it or raises BadLine)."""
        with _explained(self.path):
            if self.path.exists() and not self.path.is_file() and not self.path.is_dir():  # it could be waited for without end
                raise UserError(f"{self.path} is a pipe or a device, not a file.", "Write its rows into a file, and name that.")
        with _explained(self.path), self.path.open("rb") as raw:
            size = self.path.stat().st_size
            head = raw.read(16)
            raw.seek(0)
            self._refuse_foreign(head)
            with gzip.GzipFile(fileobj=raw) if head[:2] == b"\x1f\x8b" else nullcontext(raw) as file:
                first = file.read(1024).removeprefix(BOM).lstrip()[:1]
                file.seek(0)
                if first == b"[":
                    yield from _array(file.read())
                    return
                for number, line in self._lines(file):
                    yield number, _parser(line)
                    if self.progress and number % 256 == 0:
                        self.progress(raw.tell(), size)

    def _lines(self, file: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(BOM)
                if line.strip() == b"{" and self.path.suffix == ".json":
                    raise UserError(f"{self.path} is one JSON object, not an array of rows.", WANTED)
            if line.strip():
                yield number, line

    def _refuse_foreign(self, head: bytes) -> None:
        what = next((name for magic, name in FOREIGN.items() if head.startswith(magic)), None)
        table = self.path.suffix.lower() in (".csv", ".tsv") and head.removeprefix(BOM)[:1] not in (b"{", b"[")
        if what is None and table:
            what = "a table of comma- or tab-separated values"
        if what:
            raise UserError(f"{self.path} is {what}, which holds no feedback that can be read.", WANTED)


def read(path: str | Path, kind: Kind | None = None, *, skip_bad: bool = False) -> Loaded[Record]:
    """Reads a whole file; without `kind` its first good row tells what it holds."""
    reader = Reader(path, kind, skip_bad=skip_bad)
    records = list(reader)
    assert reader.kind is not None
    return Loaded(reader.kind, records, dict(reader.skipped))


def read_rows(path: str | Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Every row of a file with its line number, whatever its fields are. Raises UserError at a malformed one."""
    for line, raw in Reader(path)._rows():
        try:
            row = raw() if callable(raw) else raw
            if not isinstance(row, Mapping):
                raise BadLine(f"a row must be an object, found {type(row).__name__}")
        except BadLine as error:
            raise UserError(f"{path}, line {line}: {error}.", "Correct it, or take the line out.") from None
        yield line, row


def read_comparisons(path: str | Path, skip_bad: bool = False) -> Loaded[Choice]:
    """Reads a file of comparisons in any shape."""
    return read(path, "comparisons", skip_bad=skip_bad)  # type: ignore[return-value]


def read_demonstrations(path: str | Path, skip_bad: bool = False) -> Loaded[Demonstration]:
    """Reads a file of demonstrations in any shape."""
    return read(path, "demonstrations", skip_bad=skip_bad)  # type: ignore[return-value]


def read_prompts(path: str | Path, skip_bad: bool = False) -> Loaded[Prompt]:
    """Reads a file of prompts, or the prompts of a file of comparisons or demonstrations."""
    return read(path, "prompts", skip_bad=skip_bad)  # type: ignore[return-value]


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with _explained(Path(path)), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what the operating system says about a file into words for people."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: the compressed data is cut short or damaged ({error}).",
                        "Copy or download the file again.") from None
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.", "Check the name and the folder you are in.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder.", "Name one file in it.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.",
                        "Check its permissions and the disk.") from None


def _parser(line: bytes) -> Callable[[], object]:
    def parse() -> object:
        try:
            return json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise BadLine("not UTF-8 text", f"byte {error.start + 1} of the line") from None
        except RecursionError:
            raise BadLine("nested too deeply") from None
        except ValueError as error:
            if not line.endswith(b"\n"):
                raise BadLine("the last line is cut short", COPY) from None
            raise BadLine("not valid JSON", str(error)) from None
    return parse


def _array(data: bytes) -> Iterator[tuple[int, object]]:
    """Elements of a JSON array with the line each starts on. What is broken ends the reading."""
    def broken(reason: str, detail: str) -> Callable[[], object]:
        def fail() -> object:
            raise BadLine(reason, detail)
        return fail

    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield data.count(b"\n", 0, error.start) + 1, broken("not UTF-8 text", f"byte {error.start + 1}")
        return
    decode = json.JSONDecoder().raw_decode
    at, line, counted = _skip_space(text, text.index("[") + 1), 1, 0
    while text[at:at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            row, at = decode(text, at)
        except RecursionError:
            yield line, broken("nested too deeply", "the rest of the array was not read")
            return
        except ValueError as error:
            detail = getattr(error, "msg", str(error)) if at < len(text) else COPY
            yield line, broken("the array is broken or cut short here", detail)
            return
        yield line, row
        at = _skip_space(text, at)
        if text[at:at + 1] == ",":
            at = _skip_space(text, at + 1)
        elif text[at:at + 1] != "]":
            yield line, broken("the array is broken or cut short here", 'expected "," or "]" after this row')
            return


def _skip_space(text: str, at: int) -> int:
    while text[at:at + 1] in (" ", "\t", "\n", "\r"):
        at += 1
    return at


def json_line(row: Mapping[str, Any]) -> str:
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
