"""Files of what is to be judged, as items: our own shape, `harken sample`'s, and every shape Harken imports.

    {"prompt": "Hi", "completions": ["Hello.", {"text": "Yo", "source": "runs/sft"}], "warnings": ["hate"]}     an item
    {"prompt": "Hi", "completions": ["Hello.", "Yo"], "finished": [true, true], "source": {"model": "runs/sft"}}  a sample

One a line, or all in one JSON array.

Of several files, the completions of equal prompts come together into one item: answers of several models to compare.
"""

from __future__ import annotations

import gzip
import io
import json
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from harken.core.errors import UserError
from harken.core.records import content_hash
from harken.store.files import UNPACKED, Reader
from harken.store.parsing import parse
from harken.studio.work.projects import ITEM, LONGEST, items_of

Row = dict[str, Any]
T = TypeVar("T")
LINE_BYTES = 16 << 20
"""The longest line of an upload, and the largest JSON array."""
# Names that only an item has; what other shapes have too does not tell them apart.
OWN = set(ITEM["properties"]) - {"prompt", "use_case", "tags", "split", "meta", "kind"}


def read_items(paths: Sequence[Path]) -> list[Row]:
    """The items of one or several files. Raises UserError naming the file and the line."""
    if len(paths) == 1:
        return list(_items(paths[0]))
    merged: dict[str, Row] = {}
    for path in paths:
        for row in _items(path):
            if "prompt" not in row or not row.get("completions"):
                raise UserError(f"{path} has a row without prompt and completions.",
                                "Several files are merged by prompt: give them one by one.")
            item = merged.setdefault(content_hash(row["prompt"]), {**row, "completions": []})
            item["completions"] += [c for c in row["completions"] if c not in item["completions"]]
    return list(merged.values())


def _items(path: Path) -> Iterator[Row]:
    array = _array(path)
    first = _first_row(path) if array is None else next(iter(array), None)
    if not isinstance(first, dict) or not first.keys() & OWN or "ranks" in first:
        yield from map(items_of, Reader(path, unpacked_limit=UNPACKED))
        return
    if array is not None:
        yield from own_rows((json.dumps(row).encode() for row in array), str(path), "row")
        return
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield from own_rows(file, str(path))


def own_rows(lines: Iterable[bytes], name: str, unit: str = "line") -> Iterator[Row]:
    """Items in our own shape, one a line."""
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = parse(line.decode("utf-8"))
        except ValueError as error:
            raise UserError(f"{name}, {unit} {n}: {error}.", "Correct it; none was added.") from None
        if not isinstance(row, dict):
            raise UserError(f"{name}, {unit} {n}: a row must be an object, found {type(row).__name__}.",
                            "Correct it; none was added.")
        yield _sampled(row)


def _sampled(row: Row) -> Row:
    """`harken sample` gives one source for all completions of a row, and says which are finished; `harken next` says what
    a question is worth: it stands in the file's order."""
    row = {k: v for k, v in row.items() if k not in ("information", "seconds")}
    source = row.get("source")
    if source is None and "finished" not in row:
        return row
    rest = {k: v for k, v in row.items() if k not in ("source", "finished")}
    if isinstance(source, Mapping):
        source = ", ".join(f"{k} {v}" for k, v in source.items())
    return rest | {"completions": [{"text": c, "source": source} if isinstance(c, str) else c for c in row.get("completions",
                                                                                                               [])]}


def _array(path: Path) -> list[Any] | None:
    """The rows of a file that is one JSON array; None where it is another, or broken."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            if file.read(1000).lstrip()[:1] != b"[":
                return None
            file.seek(0)
            rows = json.load(file)
    except (OSError, EOFError, ValueError, RecursionError):
        return None
    return rows if isinstance(rows, list) else None


def _first_row(path: Path) -> Row | None:
    """The first line's object, or None: then the general reader says what is wrong."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            row = json.loads(next(line for line in file if line.strip()))
    except (OSError, EOFError, ValueError, RecursionError, StopIteration):
        return None
    return row if isinstance(row, dict) else None


def _unpack(data: bytes, path: Path) -> None:
    """Writes an upload to the disk, unpacked, and stops where it grows beyond `UNPACKED`."""
    if data[:2] != b"\x1f\x8b":
        path.write_bytes(data)
        return
    size = 0
    try:
        with gzip.open(io.BytesIO(data)) as packed, path.open("wb") as out:
            while part := packed.read(1 << 16):
                size += len(part)
                if size > UNPACKED:
                    raise UserError(f"{path} holds more than {UNPACKED >> 20} MB once it is unpacked.",
                                    "Split it and send the parts, or import it on the server: harken import FILE.")
                out.write(part)
    except (OSError, EOFError, zlib.error):
        raise UserError(f"{path} is a damaged gzip archive.", "Pack it again.") from None


def _check_lines(path: Path) -> None:
    """Refuses a line, or a file that is one array, which would fill the memory when it is read."""
    line, most = 0, LINE_BYTES
    with path.open("rb") as file:
        head = file.read(1000).lstrip()[:1]
        if head not in (b"[", b"{"):
            return  # another container: the reader has bounds of its own
        file.seek(0)
        while part := file.read(1 << 16):
            first, *rest = part.split(b"\n")
            line += len(first)
            if max(line, *map(len, rest[:-1]), 0) > most:
                raise UserError(f"{path} has a line of more than {most >> 20} MB.",
                                "Send JSON Lines, one object a line; a text may have 200,000 characters.")
            line = len(rest[-1]) if rest else line
        if head == b"[" and path.stat().st_size > most:
            raise UserError(f"{path} is one JSON array of more than {most >> 20} MB.", "Send JSON Lines, one object a line.")


def check_texts(record: Any) -> None:
    """Refuses a record of a file with a text that no form of the studio would take."""
    if isinstance(record, Mapping):
        texts: list[Any] = [*record.values()]
    else:
        texts = [getattr(record, f.name) for f in fields(record)] if is_dataclass(record) else [record]
    level, depth = texts, 0
    while level and depth < 6:
        inner: list[Any] = []
        for one in level:
            if isinstance(one, str) and len(one) > LONGEST:
                raise UserError(f"The file holds a text of {len(one):,} characters; {LONGEST:,} is the most.",
                                "Shorten it, or import the file on the server: harken import FILE.")
            if isinstance(one, Mapping):
                inner += one.values()
            elif isinstance(one, list | tuple):
                inner += one
            elif is_dataclass(one):
                inner += [getattr(one, f.name) for f in fields(one)]
        level, depth = inner, depth + 1


def read_upload(data: bytes) -> list[Row]:
    """The items of an uploaded file."""
    return uploaded(data, lambda path: read_items([path]))


def uploaded(data: bytes, read: Callable[[Path], T]) -> T:
    """What `read` makes of an uploaded file; what is wrong with it is told without a path or a command's flags."""
    with tempfile.TemporaryDirectory() as folder:  # 0700
        path = Path(folder) / "upload.jsonl"
        try:
            _unpack(data, path)
            _check_lines(path)
            return read(path)
        except UserError as error:
            action = "Correct it and send the file again: none was added." if "--" in error.action else error.action
            raise UserError(error.fact.replace(str(path), "The file"), action) from None
