"""Writing a page whole: whoever opens it sees the one before or the new one."""

from __future__ import annotations

import os
from pathlib import Path

from harken.core.errors import UserError


def write_page(out: Path, whole: str) -> Path:
    """Writes a page beside its name, then renames it. Raises `UserError` where `out` cannot be written."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(whole, encoding="utf-8", errors="backslashreplace")
        temporary.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}.", "Choose another --out.") from None
    finally:
        temporary.unlink(missing_ok=True)
    return out
