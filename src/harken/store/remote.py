"""Files of object stores, by address: s3://bucket/prompts.jsonl, gs://…, abfs://…, whatever fsspec knows.

    path = fetched("s3://bucket/prompts.jsonl")            # a local copy, read once
    with delivered("s3://bucket/pairs.jsonl") as path:     # written there when the block ends well
        path.write_text(...)

Keys and endpoints are the store's own business: its environment variables and configuration files, as its library reads them.
"""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from harken.core.errors import UserError

ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]+://")


def is_address(name: object) -> bool:
    return isinstance(name, str) and ADDRESS.match(name) is not None


@cache
def fetched(address: str) -> Path:
    """A local copy of a file of a store, for as long as this process lives. Raises UserError naming the address."""
    target = _folder() / str(abs(hash(address))) / (address.rstrip("/").rpartition("/")[2] or "file")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _explained(address, "read"), _fsspec().open(address, "rb") as source, target.open("wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    return target


@contextmanager
def delivered(address: str) -> Iterator[Path]:
    """A local path to write to; a file of a store gets what was written, whole, when the block ends well."""
    if not is_address(address):
        yield Path(address)
        return
    target = _folder() / f"out-{abs(hash(address))}" / (address.rstrip("/").rpartition("/")[2] or "file")
    target.parent.mkdir(parents=True, exist_ok=True)
    yield target
    with _explained(address, "written"), target.open("rb") as source, _fsspec().open(address, "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)


@cache
def _folder() -> Path:
    path = Path(tempfile.mkdtemp(prefix="harken-store-"))  # 0700
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _fsspec() -> Any:
    try:
        import fsspec
    except ModuleNotFoundError:
        raise UserError("Files of object stores need the package fsspec.", "pip install 'harken[stores]'") from None
    return fsspec


@contextmanager
def _explained(address: str, done: str) -> Iterator[None]:
    """Whatever a store's library raises, as one sentence: there are as many kinds of errors as stores."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{_shown(address)} needs another package: {error}.", "pip install it: s3fs, gcsfs, adlfs …") from None
    except FileNotFoundError:
        raise UserError(f"There is no {_shown(address)}.", "Check the bucket and the name.") from None
    except Exception as error:
        raise UserError(f"{_shown(address)} could not be {done}: {str(error)[:200] or type(error).__name__}.",
                        "Check the address, and the store's keys in the environment.") from None


def _shown(address: str) -> str:
    """An address without a password."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else address
