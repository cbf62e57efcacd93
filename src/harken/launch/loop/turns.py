"""The folder of a loop: turns of committed steps, and the pointer to what is served.

    loop = Loop(Path("loops/help"))
    turn = loop.begin({...})                          # turns/0001, whole or not there
    turn.commit("snapshot", make)                     # make(folder) fills it; one rename makes it real
    with loop.deciding(): loop.point(serving=1, …)    # serving.json, replaced whole

A step works in `.NAME` beside its place. What a killed step left there is what the next try continues from; what is committed is
never touched again. `step.json` holds the hash of the step before it, so that the last one's hash covers the whole turn, and is
signed like the pointer (key.py): who can write the folder alone can make neither.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import file_hash, read_json, write_json
from harken.core.locks import lock_file
from harken.launch.loop import key

STEPS = ("snapshot", "audit", "reward", "policy", "verify", "gate", "approval", "canary", "promoted", "ended")
OVER = ("promoted", "ended")
WAIT_SECONDS = 10.0
Json = dict[str, Any]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def commit_rename(working: Path, target: Path) -> None:
    """The moment a step becomes real. Its own function so that tests can kill it before and after."""
    _sync(working)
    working.rename(target)
    _sync(target.parent)


def _sync(folder: Path) -> None:
    """The folder's entries reach the disk before what depends on them does."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Turn:
    """One turn: its folder and its number, from 1."""

    path: Path

    @property
    def number(self) -> int:
        return int(self.path.name)

    @property
    def name(self) -> str:
        return f"turn-{self.path.name}"

    @property
    def begun(self) -> Json:
        """The recipe and the model that was served when the turn began."""
        return dict(read_json(self.path / "turn.json"))

    @property
    def over(self) -> str:
        return next((name for name in OVER if self.has(name)), "")

    def has(self, step: str) -> bool:
        return (self.path / step / "step.json").is_file()

    def step(self, name: str) -> Json:
        return dict(read_json(self.path / name / "step.json"))

    def facts(self, name: str) -> Json:
        return dict(self.step(name)["facts"])

    def done(self) -> list[str]:
        return [name for name in STEPS if self.has(name)]

    def commit(self, name: str, make: Callable[[Path], Mapping[str, Any]]) -> Json:
        """Fills a step and makes it real; what is committed already is given back. Raises what `make` raises: then the step
        is not there, and what it left is continued by the next try."""
        if self.has(name):
            return self.facts(name)
        working = self.path / f".{name}"
        working.mkdir(exist_ok=True)
        (working / "step.json").unlink(missing_ok=True)
        facts = dict(make(working))
        record = {"turn": self.number, "step": name, "after": self.end(), "facts": facts, "files": hashes(working), "at": now()}
        write_json(working / "step.json", {**record, "mac": key.sign(record)})
        commit_rename(working, self.path / name)
        return facts

    def end(self) -> str:
        """The hash of the last committed step: it covers all before it."""
        steps = self.done()
        return file_hash(self.path / steps[-1] / "step.json") if steps else file_hash(self.path / "turn.json")

    def check(self, upto: str) -> None:
        """Raises `UserError` unless every step up to this one was signed, and holds the files it was committed with, in one
        chain."""
        try:
            self._check(upto)
        except OSError as error:
            raise UserError(f"{error.filename} of turn {self.number} cannot be read: {error.strerror or error}.",
                            "Restore it, or begin another turn.") from None

    def _check(self, upto: str) -> None:
        before = file_hash(self.path / "turn.json")
        for name in self.done():
            step = self.step(name)
            mac = step.pop("mac", None)
            if not key.is_signed(step, mac) or (step["turn"], step["step"]) != (self.number, name):
                raise UserError(f"{self.path / name} was not signed with the key {key.key_file()}, or was changed.",
                                f"If another key signed it, name that by {key.VARIABLE}; else begin another turn.")
            if step.get("after") != before or not isinstance(step.get("files"), dict):
                raise UserError(f"{self.path / name} does not follow the step before it: one of them was changed.",
                                "Nothing of this turn can be trusted; begin another.")
            present = hashes(self.path / name)
            changed = {k for k, v in present.items() if step["files"].get(k) != v} | (step["files"].keys() - present.keys())
            if changed:
                raise UserError(f"{self.path / name / min(changed)} was changed after its step was complete.",
                                "Nothing of this turn can be trusted; begin another.")
            before = file_hash(self.path / name / "step.json")
            if name == upto:
                return

    @property
    def policy(self) -> str:
        return str(self.path / "policy" / "run")


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file by its place in the folder; locks and the step's own record are left out."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "step.json" and not p.name.startswith("."))
    return {str(p.relative_to(folder)): file_hash(p) for p in files if p.suffix != ".lock" and p.name != "lock"}


class Loop:
    """`root` is the loop's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def turns(self) -> list[Turn]:
        folders = [p for p in (self.root / "turns").glob("[0-9]*") if p.name.isdecimal() and (p / "turn.json").is_file()]
        return sorted(map(Turn, folders), key=lambda t: t.number)

    def turn(self, number: int) -> Turn:
        turn = Turn(self.root / "turns" / f"{number:04d}")
        if not (turn.path / "turn.json").is_file():
            raise UserError(f"{self.root} has no turn {number}.", "harken loop status RECIPE lists them.")
        return turn

    def begin(self, facts: Mapping[str, Any]) -> Turn:
        """The next turn."""
        number = max((t.number for t in self.turns()), default=0) + 1
        place = self.root / "turns"
        working = place / f".{number:04d}"
        working.mkdir(parents=True, exist_ok=True)
        write_json(working / "turn.json", {"turn": number, **facts, "at": now()})
        commit_rename(working, place / f"{number:04d}")
        return Turn(place / f"{number:04d}")

    def current(self) -> Turn | None:
        """The turn that is not over."""
        turns = self.turns()
        return turns[-1] if turns and not turns[-1].over else None

    @contextmanager
    def working(self) -> Iterator[None]:
        """One `harken loop` at a time. Raises `UserError` where another runs."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "loop.lock").open("w", encoding="utf-8") as file:
            if not lock_file(file):
                raise UserError(f"Another harken loop works in {self.root}.", "Wait for it; it does what is due.")
            yield

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Guards what a person and a running `harken loop` may both do: approve, promote, roll back. Held for moments."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "serving.lock").open("w", encoding="utf-8") as file:
            deadline = time.monotonic() + WAIT_SECONDS
            while not lock_file(file):
                if time.monotonic() > deadline:
                    raise UserError(f"{self.root} is being decided on by another command.", "Try again.")
                time.sleep(0.02)
            yield

    @property
    def pointer(self) -> Json:
        """`serving` and `previous` are turns (0: the model of the start), `applied` the last turn that was promoted, `canary`
        a turn and its share, or None; `history` says who changed it and when. To look at: `trusted` is for what acts on it."""
        path = self.root / "serving.json"
        if not path.exists():
            return dict(NOTHING_SERVED)
        found = dict(read_json(path))
        if not _is_pointer(found):
            raise UserError(f"{path} does not say which turn is served: it was changed by hand.",
                            "Restore it from a copy.")
        return found

    def trusted(self) -> Json:
        """The pointer, for what acts on it. Raises `UserError` unless it was signed, and is the newest that this machine saw."""
        seen = key.changes_seen(self.root)  # before the pointer: another process may change both in between
        found = self.pointer
        mac = found.pop("mac", None)
        if found["history"] and not key.is_signed(found, mac):
            raise UserError(f"{self.root / 'serving.json'} was not signed with the key {key.key_file()}, or was changed.",
                            f"If another key signed it, name that by {key.VARIABLE}; else restore it from a copy.")
        key.need_newest(self.root, len(found["history"]), seen)
        return found if found["history"] else dict(NOTHING_SERVED)

    def point(self, why: str, by: str, **changes: Any) -> Json:
        """Signs and writes the pointer anew; the caller is `deciding`."""
        before = self.trusted()
        history = [*before["history"], {"at": now(), "why": why, "by": by, **changes}]
        after = {**before, **changes, "history": history}
        write_json(self.root / "serving.json", {**after, "mac": key.sign(after)})
        key.need_newest(self.root, len(history), len(before["history"]))
        return after

    def model(self, number: int, start: str) -> str:
        """The word for a turn's model."""
        return start if number == 0 else self.turn(number).policy


NOTHING_SERVED: Mapping[str, Any] = {"serving": 0, "previous": None, "applied": 0, "canary": None, "history": []}


def _is_pointer(found: Json) -> bool:
    canary = found.get("canary")
    whole = all(type(found.get(name)) is int and found[name] >= 0 for name in ("serving", "applied"))
    before = "previous" in found and (found["previous"] is None or type(found["previous"]) is int)
    running = canary is None or (isinstance(canary, dict) and type(canary.get("turn")) is int
                                 and isinstance(canary.get("share"), int | float) and 0 <= canary["share"] <= 1)
    return whole and before and running and isinstance(found.get("history"), list)
