"""A person's data erased on request, so that the audit still holds and says what is gone.

    erased = erase_person(tx, user, names, now, by=lead)     # after their withdrawal, in the same transaction

Names, groups, notes, comments and everything they wrote are overwritten; the hashes of what was there stay where they were, and
one event names every redacted row with the hash of what is left. `store.audit` recomputes the one or the other: so a row that was
redacted is told from one that was changed, and a redacted row that is changed later is noticed too. Files that left the
database (exports, snapshots, backups) are out of reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, or_, select, text, update

from harken.core.records import content_hash
from harken.store import events
from harken.store.schema import judgments, prompts
from harken.store.studio_schema import assignments, comments, items, participants, snapshots, tokens, users
from harken.store.studio_schema import events as event_table

REDACTED = {"redacted": True}
SAID = ("prompt_key", "kind", "payload", "labeler", "labeler_group", "shown_order", "seconds", "instruction_hash",
        "form_version")
"""What a judgment's content hash covers."""
EMPTY_PROMPT = {"prompt": "(erased)"}


@dataclass(frozen=True)
class Erased:
    """What an erasure reached."""

    alias: str
    judgments: int
    events: int
    prompts: int


def erase_person(tx: Connection, user: int, names: Sequence[str], now: datetime, by: int | None = None) -> Erased:
    """Overwrites what says who somebody is and what they wrote. `names`: all under which their judgments are stored."""
    if tx.dialect.name == "sqlite":
        tx.execute(text("PRAGMA secure_delete = ON"))  # freed pages are overwritten, not only forgotten
    alias = f"erased-{user}"
    said = _judgments(tx, names, alias)
    written = _prompts(tx, alias)
    told = _events(tx, user, names, alias)
    tx.execute(update(users).where(users.c.id == user).values(
        name=alias, name_key=alias, password_hash=None, labeler_group={}, consent=None, subject=None, hidden=[]))
    tx.execute(update(assignments).where(assignments.c.user_id == user).values(draft=None))
    tx.execute(update(comments).where(or_(comments.c.author_id == user, comments.c.labeler_id == user)).values(text=None))
    tx.execute(update(tokens).where(tokens.c.user_id == user).values(name=""))
    tx.execute(update(participants).where(participants.c.user_id == user).values(participant=alias, extra={}))
    for snapshot in tx.execute(select(snapshots.c.id, snapshots.c.labelers)).fetchall():
        if set(names) & set(snapshot.labelers):
            left = [alias if name in names else name for name in snapshot.labelers]
            tx.execute(update(snapshots).where(snapshots.c.id == snapshot.id).values(labelers=left))
    events.add(tx, "redact", now, user_id=by, body={
        "user": user, "alias": alias, "judgments": len(said), "hash": content_hash(said), "prompts": written,
        "events": {str(seq): digest for seq, digest in told}})
    return Erased(alias, len(said), len(told), len(written))


def _judgments(tx: Connection, names: Sequence[str], alias: str) -> list[list[Any]]:
    """Their judgments without what they said; [number, hash of what is left] of each."""
    seqs = list(tx.scalars(select(judgments.c.seq).where(judgments.c.labeler.in_(names)).order_by(judgments.c.seq)))
    for seq in seqs:
        tx.execute(update(judgments).where(judgments.c.seq == seq).values(payload=REDACTED, labeler=alias, labeler_group={}))
    return left_of_judgments(tx, alias)


def left_of_judgments(tx: Connection, alias: str) -> list[list[Any]]:
    query = select(*[judgments.c[c] for c in ("seq", *SAID)]).where(judgments.c.labeler == alias).order_by(judgments.c.seq)
    return [[row["seq"], content_hash({c: row[c] for c in SAID})] for row in tx.execute(query).mappings()]


def _prompts(tx: Connection, alias: str) -> list[int]:
    """Prompts that they wrote and nobody else uses; their numbers."""
    theirs = select(judgments.c.prompt_key).where(judgments.c.labeler == alias, judgments.c.kind == "prompt")
    others = select(judgments.c.prompt_key).where(or_(judgments.c.labeler.is_(None), judgments.c.labeler != alias))
    asked = select(items.c.prompt_key).where(items.c.prompt_key.is_not(None))
    where = prompts.c.key.in_(theirs), prompts.c.key.not_in(others), prompts.c.key.not_in(asked)
    seqs = sorted(tx.scalars(select(prompts.c.seq).where(*where)))
    for seq in seqs:
        tx.execute(update(prompts).where(prompts.c.seq == seq).values(body=EMPTY_PROMPT))
    return seqs


def _events(tx: Connection, user: int, names: Sequence[str], alias: str) -> list[tuple[int, str]]:
    """Events that name them or hold words of theirs; the number of each and the hash of what is left."""
    told = []
    kinds = ("user", "user_change", "withdraw", "skip", "unsafe", "token", "name_shared", "covers")
    for row in tx.execute(select(event_table).where(event_table.c.kind.in_(kinds))).mappings().fetchall():
        body = _without(dict(row), user, names, alias)
        if body is None:
            continue
        body = {**body, **REDACTED}
        tx.execute(update(event_table).where(event_table.c.seq == row["seq"]).values(body=body))
        told.append((row["seq"], left_of_event({**row, "body": body})))
    return told


def left_of_event(row: Mapping[str, Any]) -> str:
    """The hash of a redacted event, its own old one included: neither can change any more."""
    return content_hash({k: v for k, v in row.items() if k != "seq"})


def _without(row: Mapping[str, Any], user: int, names: Sequence[str], alias: str) -> dict[str, Any] | None:
    """An event's body without what is theirs; None where nothing is."""
    kind, body, own = row["kind"], dict(row["body"]), row["user_id"] == user
    if kind == "user" and own:
        return body | {"name": alias, "labeler_group": {}}
    if kind == "user_change" and body.get("user") == user and "group" in body:
        return body | {"group": {}}
    if kind == "withdraw" and set(names) & {body["labeler"], *body.get("labelers", ())}:
        return body | {"labeler": alias, "labelers": [alias]}
    if kind in ("skip", "unsafe") and own and body.get("note"):
        return body | {"note": ""}
    if kind == "token" and own and body.get("name"):
        return body | {"name": ""}
    if kind == "name_shared" and body.get("user") == user:
        return body | {"name": alias, "signs_in_as": alias}
    if kind == "covers" and str(user) in body.get("users", {}):
        covered = body["users"][str(user)] | {"name": alias, "labeler_group": {}}
        return body | {"users": body["users"] | {str(user): covered}}
    return None
