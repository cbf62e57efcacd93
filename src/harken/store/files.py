"""Feedback as files, in any container and shape (docs/data.md). No database here.

    read_comparisons("pairs.jsonl").records     # list[Choice]
    write_jsonl("out.jsonl", choices)

Which shapes of rows are understood: `harken.store.shapes`. What files may be packed in: `streams`, `parsing`, `tables`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from harken.core.errors import UserError
from harken.core.records import Choice, Demonstration, Judgment, Prompt, number_of
from harken.store.parsing import AS_ROWS, NO_ROW, NO_UTF8, Array, BadLine, Decoder, Rows, is_one_object, lines, one_object
from harken.store.remote import fetched, is_address
from harken.store.shapes import Adapter, Found, Kind, Record, kind_of, named_adapter, read_row
from harken.store.shapes.fields import Row, means_prompt
from harken.store.shapes.parts import who
from harken.store.streams import WANTED, explained, foreign, is_western, recoded, unpacked
from harken.store.tables import HUB_ID, SEPARATOR, arrow, delimiter_of, excel, folder, hub, text_table
from harken.store.writing import check_out, json_line, write_atomically, write_jsonl, write_table, write_text

__all__ = ["KINDS", "UNPACKED", "Kind", "Loaded", "Reader", "check_out", "file_hash", "json_line", "raw_rows", "read",
           "read_comparisons", "read_demonstrations", "read_prompts", "read_rows", "write_atomically", "write_jsonl",
           "write_table", "write_text"]

R = TypeVar("R", bound=Record, covariant=True)
KINDS: tuple[Kind, ...] = get_args(Kind)
EMPTY_TREE = "a conversation tree without two ranked answers to one question"
SKIP = "Correct it, or leave malformed lines out and have them counted with --skip-bad."
UNKNOWN_SHAPE = ("Most rows of the file are like it, so it is the file's shape that is not read: name its columns with --field, "
                 "or see docs/data.md for the shapes that are.")
JUDGED_ALONE = ("thumbs", "ratings")
OWN = frozenset(f.name for f in dataclasses.fields(Prompt))
"""Fields of a row that are the prompt's own."""
UNPACKED = 64 << 20  # bytes: what an uploaded file may hold once unpacked
LOOK_AHEAD = 200  # rows read on after the first malformed one, to tell a damaged row from a shape that is not read


@dataclass(frozen=True)
class Loaded(Generic[R]):
    """What a file held. `skipped` counts the rows left out, by reason; `unread` the rows with a field that was not read, by
    field; `notes` what else is worth saying, with the number of rows."""

    kind: Kind
    records: list[R]
    skipped: Mapping[str, int] = field(default_factory=dict)
    unread: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)

    def describe(self) -> str | None:
        """One line on what was left out and why, or None."""
        sentences = []
        if self.skipped:
            reasons = "; ".join(f"{n} × {reason}" for reason, n in self.skipped.items())
            sentences.append(f"Skipped {sum(self.skipped.values())} malformed lines: {reasons}.")
        if self.unread:
            sentences.append(f"Fields not read: {counted(self.unread)}.")
        return " ".join([*sentences, *(f"{note} ({n:,})." for note, n in self.notes.items())]) or None


def counted(fields: Mapping[str, int]) -> str:
    """`margin (300), source (300)`, the most frequent first."""
    return ", ".join(f"{name} ({n:,})" for name, n in sorted(fields.items(), key=lambda f: (-f[1], f[0])))


class Reader:
    """Iterates over a file's records; afterwards `kind`, `skipped`, `unread` and `notes` say what it was.

    Without `kind` the first good row decides, and a later row of another kind is malformed. With `kind="prompts"` the prompts
    of any file are read. `fields` maps Harken's names to the file's columns (`{"prompt": "question"}`), `ignore` names fields
    that may stay unread, `further` puts the fields that are not the prompt's own into the prompts' `meta` (reference
    answers, for rewards), `adapter` is a function row -> records for a shape of your own, or its dotted path, `encoding` an
    encoding that is not recognised. A path may be the address of an object store's file (`store.remote`). `unpacked_limit`
    bounds the bytes that the file may hold once unpacked. `progress` hears (bytes read, of all).
    """

    def __init__(self, path: str | Path, kind: Kind | None = None, *, skip_bad: bool = False,
                 progress: Callable[[int, int], None] | None = None, fields: Mapping[str, str] | None = None,
                 ignore: Collection[str] = (), adapter: Adapter | str | None = None,
                 encoding: str | None = None, further: bool = False, unpacked_limit: int | None = None) -> None:
        if kind is not None and kind not in KINDS:
            raise UserError(f"Unknown kind {kind!r}.", f"Choose one of {', '.join(KINDS)}.")
        self.name, self.asked, self.kind = str(path), kind, kind
        self.path = fetched(self.name) if is_address(self.name) else Path(path)
        self.skip_bad, self.progress = skip_bad, progress
        self.fields, self.ignore = dict(fields or {}), frozenset(ignore)
        self.adapter = named_adapter(adapter) if isinstance(adapter, str) else adapter
        self.encoding, self.limit, self.further = encoding, unpacked_limit, further
        self.skipped: Counter[str] = Counter()
        self.unread: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.unit = "line"
        self._mapped: set[str] = set()
        self._unasked = self.ignore - self.fields.keys()  # a column that is mapped to an ignored name is read

    def __iter__(self) -> Iterator[Record]:
        return (record for record, _ in self._with_rows())

    def judgments(self) -> Iterator[Judgment | Prompt]:
        """The records as judgments, with the form and instructions under which an export says they were given. A prompt that
        names its labeler is a judgment too: somebody wrote it."""
        return (as_judgment(record, row) for record, row in self._with_rows())

    def _with_rows(self) -> Iterator[tuple[Record, Mapping[str, Any]]]:
        good, bad = 0, 0
        rows = self._rows()
        for line, raw in rows:
            try:
                row = self._row(raw)
                reading = self._read(row)
            except ValueError as error:
                action = getattr(error, "action", "")
                if not self.skip_bad or action:
                    raise self._refused(line, error, action or self._advice(good, rows, str(error))) from None
                self.skipped[error.reason if isinstance(error, BadLine) else str(error)] += 1
                bad += 1
                continue
            if not reading.records:
                self.skipped[EMPTY_TREE] += 1
            if reading.unread:
                self.unread.update(reading.unread)
            if reading.notes:
                self.notes.update(reading.notes)
            good += 1
            if not reading.written:
                row = {}
            for record in reading.records:
                yield record, row
        if not good - self.skipped[EMPTY_TREE]:
            self._nothing()
        unused = sorted({column for name, column in self.fields.items() if name not in self._mapped})
        if unused:
            raise UserError(f"{self.name}: no row has the field {', '.join(map(repr, unused))}.", "Correct --field.")

    def _refused(self, line: int, error: ValueError, action: str) -> UserError:
        return UserError(f"{self.name}, {self.unit} {line}: {error}.", action)

    def _advice(self, good: int, rows: Rows, reason: str) -> str:
        """What to do about a malformed row: leaving it out is safe where the others are read."""
        bad, unknown = 1, reason.startswith("no known shape")
        for _, (_, raw) in zip(range(LOOK_AHEAD), rows):
            try:
                self._read(self._row(raw))
                good += 1
            except ValueError:
                bad += 1
        if good <= bad and (reason.startswith("not UTF-8") or NO_ROW in reason):
            return AS_ROWS if NO_ROW in reason else NO_UTF8
        return SKIP if good > bad or (good == 0 and bad == 1 and not unknown) else UNKNOWN_SHAPE

    def _row(self, raw: object) -> Mapping[str, Any]:
        row = raw() if callable(raw) else raw
        if type(row) is not dict and not isinstance(row, Mapping):  # the second takes a while
            raise BadLine(f"a row must be an object, found {type(row).__name__}")
        return self._renamed(row) if self.fields else row

    def _renamed(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row with its columns under Harken's names."""
        taken = {column for column in self.fields.values() if column in row}
        renamed = {name: value for name, value in row.items() if name not in taken and name not in self.ignore}
        for name, column in self.fields.items():
            if column not in row:
                continue
            if name in renamed:
                raise BadLine(f'the row has a field "{name}" beside "{column}"', "",
                              f"Say which is meant: --ignore {name} --field {name}={column}")
            renamed[name] = row[column]
            self._mapped.add(name)
        return renamed

    def _read(self, row: Mapping[str, Any]) -> Found:
        reading = read_row(row, asked=self.asked, ignore=self._unasked, adapter=self.adapter)
        for i, record in enumerate(reading.records):
            kind = kind_of(record)
            if self.asked == "prompts":
                if not isinstance(record, Prompt):  # who judged the answers did not write the prompt
                    reading.records[i], reading.written = record.prompt, False
                if self.further:
                    reading.records[i] = with_further(record, row, reading.unread)
            elif self.kind is None:
                self.kind = kind
            elif kind != self.kind:
                raise self._mixed(kind)
        if self.further and self.asked == "prompts":
            reading.unread = []
        return reading

    def _mixed(self, kind: Kind) -> BadLine:
        reason = f"a row of {kind} in a file of {self.kind}"
        if self.asked in ("comparisons", "demonstrations") and kind in JUDGED_ALONE:
            return BadLine(reason, "", f"Nothing learns from {kind} yet: methods learn from comparisons (two answers to a prompt "
                                       "and their ranks) and demonstrations. harken import keeps them.")
        if self.asked is None and self.kind == "prompts":  # to leave it out would lose what people judged
            return BadLine(reason, "", f"The first rows hold only prompts. Say what the file is, --as {kind}, or split it.")
        return BadLine(reason)

    def _nothing(self) -> None:
        if self.skipped:
            reason, n = self.skipped.most_common(1)[0]
            raise UserError(f"{self.name} has no usable row: {sum(self.skipped.values())} left out, "
                            f"{n} of them because: {reason}.", "Look at its first line; is it the file you meant?")
        raise UserError(f"{self.name} is empty.", WANTED)

    def _rows(self) -> Rows:
        """(line number, row or a function that parses it or raises BadLine)."""
        with explained(self.name):
            if not self.path.exists() and HUB_ID.fullmatch(self.name):
                self.unit = "row"
                yield from hub(self.name)
                return
            if self.path.is_dir():
                self.unit = "row"
                yield from folder(self.path, self.limit)
                return
            with unpacked(self.path, self.limit) as (stream, tell):
                size = self.path.stat().st_size
                for number, (line, row) in enumerate(self._contents(stream), 1):
                    yield line, row
                    if self.progress and number % 256 == 0:
                        self.progress(tell(), size)

    def _contents(self, stream: Any) -> Rows:
        head = stream.peek(4096)[:4096]
        if head[:4] in (b"PAR1", b"ARRO", b"\xff\xff\xff\xff", b"PK\x03\x04"):
            self.unit = "row"
            if not stream.seekable():  # a stream with a limit goes forward; both formats begin at their end
                stream = io.BufferedReader(io.BytesIO(stream.read()))
            yield from (excel if head[:2] == b"PK" else arrow)(stream, self.path, self.limit)
            return
        if what := foreign(head):
            raise UserError(f"{self.name} is {what}.", WANTED)
        stream, other = recoded(stream, self.encoding, self.name)
        decoder = Decoder(lambda: other is None and self._western())
        head = stream.peek(4096)[:4096].lstrip()
        if head[:1] == b"[":
            yield from Array(stream, decoder)
        elif head[:1] == b"{" and ".json" in self.path.suffixes and is_one_object(stream):
            yield from one_object(stream, decoder, self.name)
        elif head[:1] != b"{" and (delimiter := self._delimiter(head)):
            yield from text_table(stream, decoder, delimiter)
        else:
            yield from lines(stream, decoder)

    def _western(self) -> bool:
        western = is_western(self.path, self.limit)
        if western:
            self.notes["Read as Windows-1252 text, not UTF-8: look at its accents, or name the encoding with --encoding"] = 1
        return western

    def _delimiter(self, head: bytes) -> str | None:
        """The delimiter, where the file is a table: its first line names columns, or its name says so and it is no JSON."""
        line = head.splitlines()[0].decode("utf-8", "replace") if head.strip() else ""
        if not line or line.startswith(("<", "version https://git-lfs")):
            return None
        if separator := SEPARATOR.fullmatch(line):
            return separator[1]
        try:
            json.loads(line)
            return None
        except ValueError:
            pass
        suffixes = {s.lower() for s in self.path.suffixes}
        return delimiter_of(line, bool(suffixes & {".csv", ".tsv", ".tab"}))



def with_further(record: Record, row: Mapping[str, Any], unread: Collection[str]) -> Prompt:
    """A record's prompt with a row's further fields in its `meta`: those not read, and of a demonstration its answer too."""
    prompt = record if isinstance(record, Prompt) else record.prompt
    names = [n for n in row if not means_prompt(n) and n not in OWN] if isinstance(record, Demonstration | Prompt) else unread
    further = {name: row[name] for name in names if row[name] is not None}
    return dataclasses.replace(prompt, meta={**prompt.meta, **further}) if further else prompt


TOLD_AS_TEXT = ("source", "notes", "answered_at", "labeler_use_case")
TOLD = ("judgment", "item", "sources", "scale", "suggested", "accepted", "labeler_prompt_flags", *TOLD_AS_TEXT)
"""What an export says of an answer beside form, seconds and order: it is kept, and exported again as it came."""


def as_judgment(record: Record, row: Mapping[str, Any]) -> Judgment | Prompt:
    """A record as a judgment, or the prompt that it is."""
    details: dict[str, Any] = {n: row[n] for n in ("form_version", "instruction_hash") if isinstance(row.get(n), str)}
    told: dict[str, Any] = {}
    if "form_version" in details:
        details |= {"seconds": number_of(_cell(row.get("seconds")), "seconds"), "order": _order(_cell(row.get("shown_order")))}
        told = {n: v if n in TOLD_AS_TEXT else _cell(v) for n in TOLD if (v := row.get(n)) not in (None, "")}
        told = {"exported": told} if told else {}
    if isinstance(record, Prompt):
        if not isinstance(row.get("labeler"), str):
            return record
        return Judgment(record, "prompt", told, *who(Row(row)), **details)
    if isinstance(record, Choice):
        payload: dict[str, Any] = {"completions": list(record.options), "ranks": list(record.ranks)}
        payload |= {n: v for n, v in (("strength", record.strength), ("weight", record.weight)) if v is not None}
        return Judgment(record.prompt, record.kind, payload | told, record.labeler, record.group, **details)
    if isinstance(record, Demonstration):
        payload = {"completion": record.completion} | ({} if record.weight is None else {"weight": record.weight})
        return Judgment(record.prompt, "demonstration", payload | told, record.labeler, record.group, **details)
    return Judgment(record.prompt, record.kind, {**record.payload, **told}, record.labeler, record.group, **details)


def _cell(value: Any) -> Any:
    """A table's cell holds numbers and lists as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except ValueError:
        return value


def _order(value: Any) -> tuple[int, ...] | None:
    """The order in which completions were shown, where an export says it."""
    if value is None:
        return None
    if not isinstance(value, list) or sorted(value, key=str) != list(range(len(value))):
        raise ValueError('"shown_order" must name each completion once, from 0')
    return tuple(value)


def read(path: str | Path, kind: Kind | None = None, *, skip_bad: bool = False, **options: Any) -> Loaded[Record]:
    """Reads a whole file; without `kind` its first good row tells what it holds. `options`: those of `Reader`."""
    reader = Reader(path, kind, skip_bad=skip_bad, **options)
    records = list(reader)
    assert reader.kind is not None
    return Loaded(reader.kind, records, dict(+reader.skipped), dict(reader.unread), dict(reader.notes))


def read_rows(path: str | Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Every row of a file with its line number, whatever its fields are. Raises UserError at a malformed one."""
    reader = Reader(path)
    for line, raw in reader._rows():
        try:
            row = reader._row(raw)
        except BadLine as error:
            action = error.action or "Correct it, or take the line out."
            raise UserError(f"{path}, {reader.unit} {line}: {error}.", action) from None
        yield line, row


def raw_rows(path: Path, *, unpacked_limit: int, notes: Counter[str] | None = None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every row of a file with the place it stands at (`FILE, line 3`), whatever its fields are; `notes` counts what is worth
    saying of the file. Raises UserError at a malformed row."""
    reader = Reader(path, unpacked_limit=unpacked_limit)
    for line, raw in reader._rows():
        where = f"{path}, {reader.unit} {line}"
        try:
            row = reader._row(raw)
        except BadLine as error:
            action = error.action if error.action and "--" not in error.action else "Correct it; none was added."
            if "not UTF-8" in error.reason:
                action = "Save the file as UTF-8; none was added."
            raise UserError(f"{where}: {error}.", action) from None
        yield where, row
    if notes is not None:
        notes.update(reader.notes)


def read_comparisons(path: str | Path, skip_bad: bool = False, **options: Any) -> Loaded[Choice]:
    """Reads a file of comparisons in any shape."""
    return read(path, "comparisons", skip_bad=skip_bad, **options)  # type: ignore[return-value]


def read_demonstrations(path: str | Path, skip_bad: bool = False, **options: Any) -> Loaded[Demonstration]:
    """Reads a file of demonstrations in any shape."""
    return read(path, "demonstrations", skip_bad=skip_bad, **options)  # type: ignore[return-value]


def read_prompts(path: str | Path, skip_bad: bool = False, **options: Any) -> Loaded[Prompt]:
    """Reads a file of prompts, or the prompts of a file of comparisons or demonstrations. A row's further fields come into the
    prompts' `meta`, where rewards find reference answers; not with `further=False`."""
    return read(path, "prompts", skip_bad=skip_bad, **{"further": True, **options})  # type: ignore[return-value]


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, hex; of a folder: of its files' names and bytes."""
    path = Path(path)
    with explained(path):
        if path.is_dir():
            inner = [(str(f.relative_to(path)), file_hash(f)) for f in sorted(path.rglob("*")) if f.is_file()]
            return hashlib.sha256(json.dumps(inner).encode()).hexdigest()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
