"""The key that signs a loop's records: a file of its own, outside the database and the loop's folder.

    mac = sign({"decision": "approve", …})         # HMAC-SHA-256, hex; makes the key where none is yet
    is_signed({"decision": "approve", …}, mac)
    need_newest(folder, 7, changes_seen(folder))   # raises where this machine has seen an eighth change of the loop's pointer

HARKEN_LOOP_KEY names the file, else it is loop.key in ~/.config/harken ($XDG_CONFIG_HOME/harken). Its owner alone can read it
(mode 600), and each use checks that. Whoever can read it can sign, in anybody's name: who writes the database or the loop's
folder cannot. Machines that approve and machines that serve need the same file. An old record that was signed can be put back:
so each machine keeps, in a folder beside its key, how many changes of each loop's pointer it has seen.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import write_json

VARIABLE = "HARKEN_LOOP_KEY"
LEAST = 32
"""Bytes of a key."""
SEEN: dict[Path, int] = {}
"""What this process has seen, by the file that keeps it for others."""


def key_file() -> Path:
    """Where the key is, or will be."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "harken" / "loop.key"


def sign(value: Any) -> str:
    """Raises `UserError` where the key cannot be made or read, or others can read it."""
    path = key_file()
    if not path.exists():
        _make(path)
    return _mac(_read(path), value)


def is_signed(value: Any, mac: object) -> bool:
    """Whether the MAC was made with this key for this value. Raises `UserError` where there is no key here, or others can read
    it: then nothing can be told."""
    return isinstance(mac, str) and mac.isascii() and hmac.compare_digest(_mac(_read(key_file()), value), mac)


def changes_seen(place: Path) -> int:
    """How many changes of the pointer of the loop in `place` this machine has seen."""
    file = _seen_file(place)
    with suppress(OSError, ValueError):
        SEEN[file] = max(SEEN.get(file, 0), int(file.read_text(encoding="ascii")))
    return SEEN.get(file, 0)


def need_newest(place: Path, changes: int, seen: int) -> None:
    """Raises `UserError` where the pointer has fewer changes than were `seen` before it was read: it was put back. Where the
    folder beside the key cannot be written (a mounted secret), nothing is kept from one process to the next."""
    file = _seen_file(place)
    if changes < seen:
        raise UserError(f"{place / 'serving.json'} is older than one that was here, or is gone: {changes} changes are in it, "
                        f"{seen} were made.", "Restore the newest. Where that is lost, or the loop was begun anew, end the "
                        f"servers of it, delete {file}, and look at harken loop status before harken loop goes on.")
    if changes > seen:
        SEEN[file] = max(SEEN.get(file, 0), changes)
        with suppress(OSError):
            file.parent.mkdir(mode=0o700, exist_ok=True)
            write_json(file, changes)


def _seen_file(place: Path) -> Path:
    path = key_file()
    return path.with_name(f"{path.name}.seen") / hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:32]


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()


def _mac(key: bytes, value: Any) -> str:
    return hmac.digest(key, canonical(value), hashlib.sha256).hex()


def _make(path: Path) -> None:
    """A new key, whole or not there; of two processes that make one, both then use the first."""
    new = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(LEAST) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(new, path)
    except FileExistsError:
        pass
    except OSError as error:
        raise UserError(f"The loop's key {path} cannot be made: {error.strerror or error}.",
                        f"Set {VARIABLE} to a file in a folder of yours.") from None
    finally:
        new.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            _need_private(path, os.fstat(file.fileno()))
            text = file.read(4096).strip()
    except FileNotFoundError:
        raise UserError(f"There is no key {path}, so no approval can be checked.",
                        f"Set {VARIABLE} to the key's file, a copy of the one on the machine where turns are approved.") from None
    except OSError as error:
        raise UserError(f"The loop's key {path} cannot be read: {error.strerror or error}.",
                        f"Set {VARIABLE} to a file that this account can read.") from None
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) < LEAST:
        raise UserError(f"{path} holds no key of at least {LEAST} bytes in hexadecimal.", f"openssl rand -hex {LEAST} makes one.")
    return key


def _need_private(path: Path, facts: os.stat_result) -> None:
    """As ssh asks of its keys: a plain file of this account's (or the system's), closed to all others."""
    if not stat.S_ISREG(facts.st_mode):
        raise UserError(f"{path} is no file.", f"Set {VARIABLE} to the key's file.")
    if os.name == "nt":
        return
    if facts.st_uid not in (os.geteuid(), 0):
        raise UserError(f"{path} belongs to another account, who could have made it up.", "Use a copy that is yours.")
    if facts.st_mode & 0o077:
        raise UserError(f"Other accounts can read or change {path}: who did could approve in anybody's name.",
                        f"chmod 600 {path}; if others may have read it, replace it, and approve anew what comes.")
