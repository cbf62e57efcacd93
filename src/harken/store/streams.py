"""A file's bytes as UTF-8 text, whatever it is packed in: gzip, bzip2, xz, Zstandard or zip, UTF-16 or UTF-8.

What a file is, its first bytes say, not its name. Nothing here holds a whole file in memory.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from harken.core.errors import UserError

WANTED = ("Harken reads JSON Lines, JSON arrays, CSV, Excel, Parquet and Arrow, packed (.gz, .bz2, .xz, .zst, .zip) or not: "
          "see docs/data.md.")
BOM = codecs.BOM_UTF8
HEAD = 4096
FOREIGN = {b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"SQLite format 3\0": "an SQLite database",
           b"%PDF": "a PDF document", b"\xd0\xcf\x11\xe0": "an old Excel file (.xls); save it as .xlsx or CSV",
           b"Rar!": "a RAR archive; unpack it first", b"7z\xbc\xaf": "a 7-Zip archive; unpack it first",
           b"version https://git-lfs": "a Git LFS pointer and not the data; fetch them with: git lfs pull",
           b"\x80\x02": "a Python pickle, which could run code when opened; save the data as JSON Lines",
           b"\x80\x03": "a Python pickle, which could run code when opened; save the data as JSON Lines",
           b"\x80\x04": "a Python pickle, which could run code when opened; save the data as JSON Lines",
           b"\x80\x05": "a Python pickle, which could run code when opened; save the data as JSON Lines"}
FOREIGN |= {b"\x93NUMPY": "a NumPy array", b"ORC": "an ORC file", b"Obj\x01": "an Avro file", b"\x89HDF": "an HDF5 file",
            b"\x00asm": "a program", b"MZ": "a program", b"\x7fELF": "a program", b"GGUF": "a GGUF model",
            b"{\\rtf": "an RTF document"}
DOCUMENTS = (("word/", "a Word document"), ("ppt/", "a PowerPoint file"))
BESIDE_DATA = re.compile(r"(.*/)?(\.[^/]*|Thumbs\.db|desktop\.ini|(README|LICEN[CS]E|CITATION)[^/]*)", re.I)
"""Files of an archive that only stand beside the data."""
UTF8_LETTER = re.compile(rb"[\xc3-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


class Limited(io.RawIOBase):
    """A stream that refuses to give more than `limit` bytes: a small file may unpack to a huge one."""

    def __init__(self, inner: IO[bytes], limit: int, name: str) -> None:
        self.inner, self.left, self.limit, self.name = inner, limit, limit, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.inner.read(min(len(buffer), self.left + 1))
        if len(data) > self.left:
            raise UserError(f"{self.name} holds more than {self.limit >> 20} MB once unpacked.",
                            "Split it into smaller files.")
        self.left -= len(data)
        buffer[:len(data)] = data
        return len(data)


class Recoded(io.RawIOBase):
    """A text stream of another encoding as UTF-8."""

    def __init__(self, inner: IO[bytes], encoding: str, name: str) -> None:
        self.inner, self.name, self.encoding = inner, name, encoding
        self.decoder = codecs.getincrementaldecoder(encoding)()
        self.ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            data = self.inner.read(1 << 16)
            try:
                self.ready = self.decoder.decode(data, final=not data).encode("utf-8", "surrogatepass")
            except UnicodeDecodeError as error:
                raise UserError(f"{self.name} is not {self.encoding.upper()} text ({error.reason}).",
                                "Save it as UTF-8, or name its encoding: --encoding NAME.") from None
            if not data and not self.ready:
                return 0
        n = min(len(buffer), len(self.ready))
        buffer[:n], self.ready = self.ready[:n], self.ready[n:]
        return n


def foreign(head: bytes) -> str | None:
    """What a file is by its first bytes, where that is nothing that is read; None for text."""
    known = next((name for magic, name in FOREIGN.items() if head.startswith(magic)), None)
    if known or head[257:262] != b"ustar":
        return known
    return "a tar archive; unpack it, and name one file in it"


@contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Turns what the operating system says about a file into words for people."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: the compressed data is cut short or damaged ({error}).",
                        "Copy or download the file again.") from None
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.", "Check the name and the folder you are in.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder.", "Name one file in it.") from None
    except OSError as error:
        if error.strerror is None:  # bz2 and Zstandard: no errno
            raise UserError(f"{path}: the data is damaged ({error}).", "Copy or download the file again.") from None
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Check its permissions and the disk.") from None


@contextmanager
def unpacked(path: Path, limit: int | None = None) -> Iterator[tuple[io.BufferedReader, Callable[[], int]]]:
    """A file's bytes, unpacked, and a function that tells how far the file itself is read. At most two packings in each other."""
    if path.exists() and not path.is_file() and not path.is_dir():  # it could be waited for without end
        raise UserError(f"{path} is a pipe or a device, not a file.", "Write its rows into a file, and name that.")
    with ExitStack() as stack:
        raw = stack.enter_context(path.open("rb"))
        stream: io.BufferedReader = raw
        for _ in range(2):
            inner = _unpack(stream, path, stack)
            if inner is None:
                break
            stream = io.BufferedReader(inner, 1 << 16)  # type: ignore[arg-type]
        if limit is not None:
            stream = io.BufferedReader(Limited(stream, limit, str(path)), 1 << 16)
        yield stream, raw.tell


def _unpack(stream: io.BufferedReader, path: Path, stack: ExitStack) -> IO[bytes] | None:
    head = stream.peek(HEAD)[:HEAD]
    if head[:2] == b"\x1f\x8b":
        return cast(IO[bytes], gzip.GzipFile(fileobj=stream, mode="rb"))
    if head[:3] == b"BZh":
        return bz2.BZ2File(stream)
    if head[:6] == b"\xfd7zXZ\0":
        return lzma.LZMAFile(stream)
    if head[:4] == b"\x28\xb5\x2f\xfd":
        return _zstandard(stream, path)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        if not isinstance(stream.raw, io.FileIO):
            raise UserError(f"{path} holds a zip archive inside another packing.", "Unpack it first.")
        archive = stack.enter_context(zipfile.ZipFile(stream))
        held = [i for i in archive.infolist() if not i.is_dir() and not i.filename.startswith("__MACOSX/")]
        names = [i.filename for i in held]
        what = next((what for folder, what in DOCUMENTS if any(n.startswith(folder) for n in names)), None)
        if "mimetype" in names and "content.xml" in names:
            what = "an OpenDocument file"
        if what:
            raise UserError(f"{path} is {what}.", "Save its table as CSV or Excel (.xlsx).")
        if "[Content_Types].xml" in names:  # an Excel file: read as what it is
            stream.seek(0)
            return None
        data = [i for i in held if not BESIDE_DATA.fullmatch(i.filename)]
        held = data if len(data) == 1 else held
        if len(held) != 1:
            shown = ", ".join(names[:5]) or "none"
            raise UserError(f"{path} is a zip archive of {len(names)} files ({shown}).", "Unpack it, and name one of them.")
        if held[0].flag_bits & 1:
            raise UserError(f"{path} is a zip archive with a password.", "Unpack it, and name the file in it.")
        return archive.open(held[0])
    return None


def _zstandard(stream: IO[bytes], path: Path) -> IO[bytes]:
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise UserError(f"{path} is packed with Zstandard, and reading that needs the package pyarrow.",
                        "pip install 'harken[parquet]', or unpack it first: unzstd FILE") from None
    unpack: IO[bytes] = pyarrow.input_stream(stream, compression="zstd")
    return unpack


def recoded(stream: io.BufferedReader, encoding: str | None, name: str) -> tuple[Any, str | None]:
    """The stream as UTF-8 without its mark, and the encoding it had where that was not UTF-8."""
    head = stream.peek(HEAD)[:HEAD]
    codec = encoding or _encoding(head)
    if codec is None:
        if head.startswith(BOM):
            stream.read(len(BOM))
        return stream, None
    try:
        codecs.lookup(codec)
    except LookupError:
        raise UserError(f"{codec!r} is no encoding that is known here.",
                        "Name one like utf-16, windows-1252 or gb18030.") from None
    again = io.BufferedReader(Recoded(stream, codec, name), 1 << 16)
    if again.peek(HEAD).startswith(BOM):
        again.read(len(BOM))
    return again, codec


def _encoding(head: bytes) -> str | None:
    """UTF-32 or UTF-16, by their mark or by the zeros beside ASCII letters; None for what may be UTF-8."""
    for mark, name in ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
                       (codecs.BOM_UTF16_BE, "utf-16")):
        if head.startswith(mark) and head[:4] != b"\xff\xff\xff\xff":
            return name
    if len(head) >= 4 and head[0] and head[2] and head[1] == head[3] == 0:
        return "utf-16-le"
    return "utf-16-be" if len(head) >= 4 and head[1] and head[3] and head[0] == head[2] == 0 else None


def is_western(path: Path, limit: int | None = None) -> bool:
    """Whether a file that is not UTF-8 may be read as Windows-1252.

    It may where no character of it is UTF-8 and where letters beyond ASCII stand alone or in twos, as in Western text: in
    Chinese, Japanese or Russian encodings they follow each other.
    """
    high = long = 0
    with unpacked(path, limit) as (stream, _):
        while line := stream.readline(1 << 20):
            if line.isascii():
                continue
            if any(byte in line for byte in (b"\x81", b"\x8d", b"\x8f", b"\x90", b"\x9d")):
                return False
            run = 0
            for byte in line + b"\n":
                if byte >= 0x80:
                    run += 1
                    continue
                high, long, run = high + run, long + (run if run > 2 else 0), 0
            if UTF8_LETTER.search(line):
                return False
    return high > 0 and long * 5 <= high
