"""Small files: hashed, written whole or not at all, read with a sentence where they are damaged."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from harken.core.errors import UserError


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Writes atomically: a reader sees the old file or the whole new one. Half an emoji is escaped, as JSON allows."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as f:
            json.dump(value, f, indent=2, ensure_ascii=False)
            f.write("\n")
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """A JSON object. Raises `UserError` if the file is missing, damaged or holds something else."""
    try:
        if path.is_fifo():
            raise UserError(f"{path} is a pipe, not a file.", "Write what it gives into a file, and name that.")
        value = json.loads(path.read_text(encoding="utf-8-sig"))  # an editor may have left a byte order mark
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged or not JSON: {error}.", "Restore it, or start afresh with another --out.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}, not an object of settings.", "Is it the file you meant?")
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a log; a torn last line (a killed writer) is left out."""
    rows = []
    if path.exists():
        for line in path.read_bytes().split(b"\n"):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
    return rows
