"""Files as they are, gzip and Zstandard read alike: `open_unpacked` gives a binary file that seeks forward."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import IO, Any

from harken.core.errors import UserError

PACKINGS = (".gz", ".zst", ".zstd")
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def packing_of(head: bytes) -> str:
    """gzip, zstd or "" by a file's first bytes: its name may lie."""
    return "gzip" if head.startswith(GZIP) else "zstd" if head.startswith(ZSTD) else ""


class _Forward(io.RawIOBase):
    """A decompressing stream of pyarrow, which can skip ahead."""

    def __init__(self, stream: Any, path: Path) -> None:
        self._stream, self._path, self._at = stream, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except OSError as error:
            raise damaged(self._path, error) from None
        buffer[:len(data)] = data
        self._at += len(data)
        return len(data)


class Unpacked(io.BufferedReader):
    """Its `tell` counts unpacked bytes; `seek` goes forward by reading."""

    def __init__(self, raw: Any) -> None:
        super().__init__(raw, 1 << 18)
        self._at = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size if size is not None else -1)
        self._at += len(line)
        return line

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._at += len(data)
        return data

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def tell(self) -> int:
        return self._at

    def seek(self, target: int, whence: int = 0, /) -> int:
        assert whence == 0 and target >= self._at, "an unpacked file goes forward"
        while self._at < target and self.read(min(1 << 20, target - self._at)):
            pass
        return self._at


class _Gzip(io.RawIOBase):
    def __init__(self, path: Path) -> None:
        self._path, self._file = path, gzip.GzipFile(path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            raise damaged(self._path, error) from None
        buffer[:len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: the compressed data is cut short or damaged ({error}).", "Copy or download the file again.")


def open_unpacked(path: Path) -> IO[bytes]:
    """Opens a file for reading, unpacked if it is packed. Raises `UserError` where its data is damaged."""
    with path.open("rb") as file:
        packing = packing_of(file.read(4))
    if packing == "gzip":
        return Unpacked(_Gzip(path))
    if packing == "zstd":
        try:
            import pyarrow as pa
        except ImportError:
            raise UserError("pyarrow is not installed.", "Zstandard files need: pip install 'harken[parquet]'") from None
        return Unpacked(_Forward(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"), path))
    return path.open("rb")
