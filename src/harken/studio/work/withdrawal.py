"""What a person's withdrawal reaches: judgments, later snapshots, and the runs that trained on earlier ones."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from harken.core.errors import UserError
from harken.core.records import content_hash
from harken.store import events
from harken.store.events import stamp
from harken.store.names import name_key
from harken.store.redaction import Erased, erase_person
from harken.store.schema import judgments
from harken.store.studio_schema import retractions, snapshots, users
from harken.studio.work.leases import release_all, unassign_all
from harken.web.accounts import end_rights


def withdraw(tx: Connection, name: str, now: datetime, by: int | None = None) -> tuple[int, list[Row[Any]]]:
    """Takes all of a labeler's judgments out of what counts, imported ones too, and closes the account.

    Returns how many judgments it took out, and the snapshots that hold some of them. The judgments stay stored:
    a run that used them can still be explained. Items do not open again for others by themselves. Raises UserError with near
    names for a name that neither an account nor a judgment has.
    """
    person = tx.execute(select(users.c.id, users.c.name).where(users.c.name_key == name_key(name))).first()
    name = person.name if person is not None else name
    names = spellings(tx, name, None if person is None else person.id)
    gone = select(judgments.c.seq).where(judgments.c.labeler.in_(names),
                                         judgments.c.seq.not_in(select(retractions.c.judgment_seq)))
    seqs = sorted(tx.scalars(gone))
    if person is None and tx.execute(select(judgments.c.seq).where(judgments.c.labeler.in_(names)).limit(1)).first() is None:
        raise UserError(f"Nobody is called {name}.", _near(tx, name))
    if seqs:
        tx.execute(insert(retractions), [{"judgment_seq": s, "reason": "withdrawal", "created_at": stamp(now)} for s in seqs])
    if person is not None:
        tx.execute(update(users).where(users.c.id == person.id).values(state="withdrawn", password_hash=None))
        end_rights(tx, person.id, now)
        release_all(tx, person.id, now)
        unassign_all(tx, person.id, now)
    events.add(tx, "withdraw", now, user_id=by,
               body={"labeler": name, "labelers": names, "judgments": len(seqs), "hash": content_hash(seqs)})
    return len(seqs), [s for s in tx.execute(select(snapshots).order_by(snapshots.c.id)) if set(names) & set(s.labelers)]


def erase(tx: Connection, name: str, now: datetime, by: int | None = None) -> tuple[Erased, list[Row[Any]]]:
    """Withdraws somebody, and overwrites what says who they are and what they wrote (`store.redaction`).

    Returns what it reached, and the snapshots that hold some of their judgments. Raises UserError for a name without an account.
    """
    person = tx.execute(select(users.c.id, users.c.name).where(users.c.name_key == name_key(name))).first()
    if person is None:
        raise UserError(f"There is no account {name}.", "harken users list shows them; withdraw takes names of imports too.")
    names = spellings(tx, person.name, person.id)
    _, touched = withdraw(tx, person.name, now, by)
    return erase_person(tx, person.id, names, now, by), touched


def spellings(tx: Connection, name: str, person: int | None) -> list[str]:
    """The names under which a labeler's judgments are stored: every spelling of theirs that is no other account's."""
    key = name_key(name)
    others = {row.name for row in tx.execute(select(users.c.id, users.c.name)) if row.id != person}
    stored = tx.scalars(select(judgments.c.labeler).where(judgments.c.labeler.is_not(None)).distinct())
    return sorted({name} | {one for one in stored if name_key(one) == key and one not in others})


def _near(tx: Connection, name: str) -> str:
    """Names like one that nobody has, as advice."""
    known = {*tx.scalars(select(users.c.name)), *tx.scalars(select(judgments.c.labeler).distinct())} - {None}
    keys = {name_key(one): one for one in sorted(known)}
    near = [keys[key] for key in difflib.get_close_matches(name_key(name), keys, 3, 0.6)]
    return f"Did you mean {' or '.join(near)}?" if near else "harken users list shows all accounts."


def runs_that_used(hashes: Iterable[str], folders: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """(run folder, hash) of every run below `folders` whose lineage names one of these data hashes."""
    wanted = set(hashes)
    for folder in folders:
        for path in sorted(folder.rglob("lineage.json")):
            try:
                used = set(_hashes(json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError):
                continue
            yield from ((path.parent, digest) for digest in sorted(used & wanted))


def _hashes(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "sha256" and isinstance(inner, str):
                yield inner
            else:
                yield from _hashes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _hashes(inner)
