"""A corpus of any size as documents: plain text, JSON Lines, gzip and Zstandard, Parquet, folders, datasets on disk.

    corpus = open_corpus(["pile/", "more.jsonl.zst"])
    plan = plan_splits(corpus, 64 << 20)
    for document in Reader(corpus).documents(plan[0]):
        ...

The plan is a function of the files' bytes alone: splits of about equal size, each a few pieces, a piece a range of a file
that begins and ends with a record (bytes, as unpacked; row groups; record batches). Nothing is held but one record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from harken.core.errors import UserError
from harken.store.unpack import PACKINGS, open_unpacked, packing_of

MODES = ("auto", "file", "paragraph", "line")
ROWS = (".jsonl", ".ndjson", ".jsonlines")
BOMS = {b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text"}
NUL = "UTF-16 or binary, not UTF-8 text"
LARGEST = 256 << 20
"""Bytes of one document that is held whole; more is asked to be divided."""


@dataclass(frozen=True)
class Source:
    """One file: `name` stands in documents' ids and does not depend on where the corpus lies. `kind` is text, rows, parquet
    or arrow; of text, `mode` says what a document is: file, paragraph (closed by a blank line) or line."""

    name: str
    path: str
    kind: str
    packing: str
    mode: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Corpus:
    """Files in the order of their names, the field that holds a row's text, and what names the whole."""

    sources: tuple[Source, ...]
    field: str

    @property
    def hash(self) -> str:
        """SHA-256 of names, contents and how they are read."""
        rows = [[s.name, s.kind, s.mode, s.sha256] for s in self.sources]
        return hashlib.sha256(json.dumps([rows, self.field]).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"sources": [asdict(s) for s in self.sources], "field": self.field}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Corpus:
        return cls(tuple(Source(**s) for s in value["sources"]), value["field"])


@dataclass(frozen=True)
class Document:
    """One text. `bad` is the reason why there is none (then `text` is empty); `place` says where it stood."""

    id: str
    text: str
    place: str
    bad: str = ""


Split = list[tuple[int, int, int]]
"""Pieces (number of the source, start, end), end exclusive."""


def open_corpus(paths: Sequence[str | Path], field: str = "text", mode: str = "auto") -> Corpus:
    """The files that `paths` name, each hashed. Raises `UserError` where there is none, or one cannot be read."""
    if mode not in MODES:
        raise UserError(f"--documents {mode!r} is unknown.", f"Use one of {', '.join(MODES)}.")
    sources: list[Source] = []
    for given in map(Path, paths):
        for name, path in _files(given):
            sources.append(_source(name, path, mode))
    names = [s.name for s in sources]
    if twice := next((n for i, n in enumerate(names) if n in names[:i] and len(names) < 10_000), None):
        raise UserError(f"Two files of the corpus are called {twice}: ids would be double.", "Name the folder that holds both.")
    if not sources:
        raise UserError(f"{', '.join(map(str, paths))} holds no file.", "Name text, JSON Lines or Parquet files, or a folder.")
    return Corpus(tuple(sources), field)


def _files(given: Path) -> Iterator[tuple[str, Path]]:
    """(name, path) of the files that a path stands for, in order: hidden ones are left out."""
    if (given / "dataset_dict.json").is_file():
        for split in json.loads((given / "dataset_dict.json").read_text())["splits"]:
            yield from ((f"{split}/{name}", path) for name, path in _files(given / split))
    elif (given / "state.json").is_file() and (given / "dataset_info.json").is_file():
        for row in json.loads((given / "state.json").read_text())["_data_files"]:
            yield row["filename"], given / row["filename"]
    elif given.is_dir():
        files = [p for p in given.rglob("*") if p.is_file() and not any(x.startswith(".") for x in p.relative_to(given).parts)]
        yield from sorted((p.relative_to(given).as_posix(), p) for p in files if "__pycache__" not in p.parts)
    elif given.is_file():
        yield given.name, given
    else:
        raise UserError(f"There is no file or folder {given}.", "Check the name and the folder you are in.")


def _source(name: str, path: Path, mode: str) -> Source:
    try:
        with path.open("rb") as file:
            head = file.read(16)
            digest = hashlib.sha256(head)
            while block := file.read(1 << 20):
                digest.update(block)
            size = file.tell()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.", "Check its permissions and the disk.") from None
    packing = packing_of(head)
    bare = Path(name).with_suffix("") if packing and Path(name).suffix in PACKINGS else Path(name)
    suffix = bare.suffix.lower()
    if head[:4] == b"PAR1":
        kind = "parquet"
    elif suffix == ".arrow":
        kind = "arrow"
    elif suffix in ROWS or (suffix == ".json" and _starts_with_object(path)):
        kind = "rows"
    elif suffix == ".json":
        raise UserError(f"{path} is JSON, but not one object a line.", "Write it as JSON Lines (.jsonl).")
    else:
        kind = "text"
    if kind == "text" and mode == "auto":
        mode = "paragraph" if suffix == ".txt" else "file"
    return Source(name, str(path), kind, packing, mode if kind == "text" else "", size, digest.hexdigest())


def _starts_with_object(path: Path) -> bool:
    with open_unpacked(path) as file:
        first = file.readline(1 << 20)
    return first.lstrip()[:1] == b"{" and first.rstrip().endswith(b"}")


def plan_splits(corpus: Corpus, size: int) -> list[Split]:
    """Splits of about `size` bytes; an empty file takes part in none."""
    splits: list[Split] = [[]]
    filled = 0
    for number, source in enumerate(corpus.sources):
        for start, end, weight in _pieces(source, size):
            if filled and filled + weight > size:
                splits.append([])
                filled = 0
            if splits[-1] and splits[-1][-1][::2] == (number, start):  # it goes on where the last piece ended
                start = splits[-1].pop()[1]
            splits[-1].append((number, start, end))
            filled += weight
    return splits if splits[-1] else splits[:-1]


def _pieces(source: Source, size: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, bytes) of a file's pieces."""
    if source.kind == "parquet":
        about = _parquet(source.path).metadata
        groups = [about.row_group(i) for i in range(about.num_row_groups)]
        yield from ((i, i + 1, group.total_byte_size) for i, group in enumerate(groups) if group.num_rows)
    elif source.kind == "arrow":
        yield from ((i, i + 1, batch.nbytes) for i, batch in enumerate(_batches(source.path)))
    elif source.kind == "text" and source.mode == "file":
        if source.size:
            yield 0, -1, source.size
    elif source.packing:
        yield from _packed_pieces(source, size)
    else:
        start = 0
        with Path(source.path).open("rb") as file:
            while start < source.size:
                file.seek(start + size)
                end = _next_record(file, source) if start + size < source.size else source.size
                yield start, end, end - start
                start = end


def _next_record(file: IO[bytes], source: Source) -> int:
    """Where the next record after the present position starts."""
    while line := file.readline():
        if source.mode != "paragraph" or not line.strip():
            break
    return file.tell()


def _packed_pieces(source: Source, size: int) -> Iterator[tuple[int, int, int]]:
    """As for a plain file, found by unpacking it once."""
    start = at = 0
    with open_unpacked(Path(source.path)) as file:
        for line in file:
            at += len(line)
            if at - start >= size and (source.mode != "paragraph" or not line.strip()):
                yield start, at, at - start
                start = at
    if at > start:
        yield start, at, at - start


class Reader:
    """Reads splits. A packed file is unpacked from where the last split of it ended, so that going through splits in order
    unpacks it once."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self._open: tuple[int, IO[bytes]] | None = None

    def documents(self, split: Split) -> Iterator[Document]:
        for number, start, end in split:
            source = self.corpus.sources[number]
            read = {"text": self._text, "rows": self._rows, "parquet": self._table, "arrow": self._table}[source.kind]
            yield from read(number, source, start, end)

    def _lines(self, number: int, source: Source, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """(offset, line) of the lines in a range."""
        if self._open is None or self._open[0] != number or self._open[1].tell() > start:
            self.close()
            self._open = number, open_unpacked(Path(source.path))
        file = self._open[1]
        file.seek(start)
        at = start
        while at < end and (line := file.readline()):
            yield at, line
            at += len(line)

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _text(self, number: int, source: Source, start: int, end: int) -> Iterator[Document]:
        if source.mode == "file":
            yield self._whole(source)
            return
        block: list[bytes] = []
        first = start
        for at, line in self._lines(number, source, start, end):
            if line.strip():
                first = first if block else at
                block.append(line)
                if source.mode != "line":
                    continue
            if block:
                yield _decoded(f"{source.name}:{first}", b"".join(block).rstrip(b"\r\n"), f"{source.name}, byte {first}")
                block = []
        if block:
            yield _decoded(f"{source.name}:{first}", b"".join(block).rstrip(b"\r\n"), f"{source.name}, byte {first}")

    def _whole(self, source: Source) -> Document:
        with open_unpacked(Path(source.path)) as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            reason = f"one document of over {LARGEST >> 20} MB (--documents paragraph or line divides it)"
            return Document(source.name, "", source.name, reason)
        if b"\0" in data[:8192] and data[:2] not in BOMS:
            return Document(source.name, "", source.name, "not text")
        return _decoded(source.name, data, source.name)

    def _rows(self, number: int, source: Source, start: int, end: int) -> Iterator[Document]:
        for at, line in self._lines(number, source, start, end):
            if not line.strip():
                continue
            place = f"{source.name}, byte {at}"
            if b"\0" in line:  # no JSON holds one as it is
                yield Document("", "", place, NUL)
                continue
            try:
                row = json.loads(line.removeprefix(b"\xef\xbb\xbf").decode("utf-8"))
            except UnicodeDecodeError:
                yield Document("", "", place, "not UTF-8 text")
            except (ValueError, RecursionError):
                yield Document("", "", place, "not valid JSON")
            else:
                yield self._row(row, f"{source.name}:{at}", place)

    def _row(self, row: Any, default: str, place: str) -> Document:
        field = self.corpus.field
        text = row.get(field) if isinstance(row, Mapping) else None
        if not isinstance(text, str):
            return Document("", "", place, f'no "{field}" with a text')
        if not text.strip():
            return Document("", "", place, "an empty text")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return Document("", "", place, "broken Unicode (half a surrogate pair)")
        own = row.get("id")
        return Document(str(own) if isinstance(own, str | int) and own != "" else default, text, place)

    def _table(self, number: int, source: Source, start: int, end: int) -> Iterator[Document]:
        field = self.corpus.field
        if source.kind == "parquet":
            file = _parquet(source.path)
            first = sum(file.metadata.row_group(i).num_rows for i in range(start))
            names = set(file.schema_arrow.names)
            batches = _whole_batches(source.path, file.iter_batches(1000, row_groups=list(range(start, end)),
                                                                    columns=sorted(names & {field, "id"})))
        else:
            first, chosen = 0, []
            for i, batch in enumerate(_batches(source.path)):
                if i >= end:
                    break
                if i < start:
                    first += batch.num_rows
                else:
                    chosen.append(batch)
            batches = iter(chosen)
        for batch in batches:
            for row in batch.to_pylist():
                yield self._row(row, f"{source.name}:{first}", f"{source.name}, row {first + 1}")
                first += 1


def _decoded(name: str, data: bytes, place: str) -> Document:
    if data[:2] in BOMS:
        return Document(name, "", place, BOMS[data[:2]])
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError:
        return Document(name, "", place, "not UTF-8 text")
    if "\0" in text:
        return Document(name, "", place, NUL)
    return Document(name, text, place, "" if text.strip() else "an empty text")


def _parquet(path: str) -> Any:
    try:
        return _pyarrow("parquet").ParquetFile(path)
    except (_pyarrow("").ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _whole_batches(path: str, batches: Iterator[Any]) -> Iterator[Any]:
    """The batches; a damaged one is named, and not taken for a failure to write."""
    try:
        yield from batches
    except (_pyarrow("").ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: str, error: BaseException) -> UserError:
    return UserError(f"{path} is no whole Parquet file: {str(error).splitlines()[0]}.", "Copy or download the file again.")


def _batches(path: str) -> Iterator[Any]:
    """Record batches of an Arrow stream as `datasets` writes it, not copied into memory."""
    pa = _pyarrow("")
    with pa.memory_map(path) as file:
        try:
            yield from pa.ipc.open_stream(file)
        except pa.ArrowInvalid as error:
            raise UserError(f"{path} is no Arrow stream: {error}.", "Is the dataset whole? Copy it again.") from None


def _pyarrow(part: str) -> Any:
    import importlib
    try:
        return importlib.import_module("pyarrow" + ("." + part if part else ""))
    except ImportError:
        raise UserError("pyarrow is not installed.", "Annotating a corpus needs: pip install 'harken[parquet]'") from None
