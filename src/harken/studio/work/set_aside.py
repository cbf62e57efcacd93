"""A lead's decision that one answer shall not count, or that it was read and does.

The judgment stays stored as it was given. A retraction takes it out of figures, exports and later snapshots; its place opens
again, so that somebody else is asked. Like every retraction it is final, and an event with its reason.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from harken.store import events
from harken.store.events import stamp
from harken.store.schema import judgments
from harken.store.studio_schema import assignments, retractions, reviews
from harken.studio.work.leases import count, find_item
from harken.web.errors import ApiError, not_found

REASON = "set_aside"


def set_answer_aside(tx: Connection, seq: int, reason: str, now: datetime, user_id: int | None = None) -> None:
    """Takes one answer out of what counts. Raises ApiError where it never counted, or does not any more."""
    role, item, gone = _stored(tx, seq)
    if gone is not None:
        raise ApiError("conflict", f"Answer {seq} counts no more: {gone.replace('_', ' ')}.", "Nothing is to be done.")
    if role not in (None, "surplus"):
        raise ApiError("conflict", f"Answer {seq} is to a question of another kind ({role}): it is in no export.")
    project = None if item is None else find_item(tx, item).project_id
    event = events.add(tx, "set_aside", now, user_id=user_id, project_id=project, item_id=item, judgment_seq=seq,
                       body={"reason": reason, "counted": role is None})
    tx.execute(insert(retractions), {"judgment_seq": seq, "reason": REASON, "created_at": stamp(now)})
    if item is not None and role is None:
        tx.execute(update(assignments).where(assignments.c.judgment_seq == seq).values(counted=False))
        count(tx, find_item(tx, item), done=-1, reopened=event)


def accept_answer(tx: Connection, seq: int, now: datetime, user_id: int) -> None:
    """A lead has read an answer and lets it count. Accepting twice is accepting once. Raises ApiError where it does not count."""
    role, item, gone = _stored(tx, seq)
    if gone is not None or role is not None:
        raise ApiError("conflict", f"Answer {seq} does not count: {(gone or role or '').replace('_', ' ')}.", "Choose others.")
    if tx.execute(select(reviews.c.judgment_seq).where(reviews.c.judgment_seq == seq)).first() is not None:
        return
    project = None if item is None else find_item(tx, item).project_id
    events.add(tx, "accept", now, user_id=user_id, project_id=project, item_id=item, judgment_seq=seq)
    tx.execute(insert(reviews), {"judgment_seq": seq, "user_id": user_id, "created_at": stamp(now)})


def _stored(tx: Connection, seq: int) -> tuple[str | None, int | None, str | None]:
    """The judgment's role, its item, and why it does not count, if so."""
    query = (select(judgments.c.role, judgments.c.item_id, retractions.c.reason)
             .outerjoin(retractions, retractions.c.judgment_seq == judgments.c.seq).where(judgments.c.seq == seq))
    row = tx.execute(query).first()
    if row is None:
        raise not_found("answer")
    return row.role, row.item_id, row.reason
