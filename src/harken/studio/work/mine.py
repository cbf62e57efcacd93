"""A labeler's own answers: what they said, what waits, what they passed over.

    rows = my_answers(tx, user, project, queue="sent", words="beans", after=0, limit=50)
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Text, cast, exists, func, or_, select

from harken.store.schema import judgments, prompts
from harken.store.studio_schema import assignments, comments, events, items, retractions
from harken.studio.work.forms import shown_answer
from harken.studio.work.set_aside import REASON
from harken.studio.work.table import MOST_WORDS, holds
from harken.web.accounts import User

QUEUES = {"sent": "Sent", "draft": "Drafts", "open": "Open", "skipped": "Skipped", "set_aside": "Set aside",
          "commented": "With comments"}
Json = dict[str, Any]


def my_answers(tx: Connection, user: User, project: int, *, queue: str | None, words: str, before: int | None,
               limit: int) -> list[Json]:
    """The caller's tasks in a project, the newest first: as they were shown, with what the caller said."""
    query = _query(user, project)
    if queue is not None:
        query = query.where(_in_queue(queue))
    searched = (prompts.c.body, judgments.c.payload, assignments.c.draft, items.c.body)
    for word in words.split()[:MOST_WORDS]:
        query = query.where(or_(*[holds(column, word) for column in searched]))
    if before is not None:
        query = query.where(assignments.c.id < before)
    rows = tx.execute(query.order_by(assignments.c.id.desc()).limit(limit)).fetchall()
    aside = [row.judgment_seq for row in rows if row.reason == REASON]
    why = {e.judgment_seq: e.body.get("reason") for e in tx.execute(select(events.c.judgment_seq, events.c.body).where(
        events.c.kind == "set_aside", events.c.judgment_seq.in_(aside)))}
    return [{**_row(row), "reason": why.get(row.judgment_seq)} for row in rows]


def queue_sizes(tx: Connection, user: User, project: int) -> dict[str, int]:
    """How many of the caller's tasks stand in each queue."""
    joined = assignments.outerjoin(retractions, retractions.c.judgment_seq == assignments.c.judgment_seq)
    columns = [func.count().filter(_in_queue(name)).label(name) for name in QUEUES]
    own = (assignments.c.user_id == user.id) & (assignments.c.project_id == project)
    return dict(tx.execute(select(*columns).select_from(joined).where(own)).one()._mapping)


def _query(user: User, project: int) -> Any:
    return (select(assignments.c.id, assignments.c.item_id, assignments.c.state, assignments.c.shown_order, assignments.c.draft,
                   assignments.c.claimed_at, assignments.c.judgment_seq,
                   items.c.kind, items.c.body, prompts.c.body.label("asked"), judgments.c.payload,
                   judgments.c.created_at, retractions.c.reason)
            .select_from(assignments.join(items, items.c.id == assignments.c.item_id)
                         .outerjoin(prompts, prompts.c.key == items.c.prompt_key)
                         .outerjoin(judgments, judgments.c.seq == assignments.c.judgment_seq)
                         .outerjoin(retractions, retractions.c.judgment_seq == assignments.c.judgment_seq))
            .where(assignments.c.user_id == user.id, assignments.c.project_id == project))


def _in_queue(queue: str) -> Any:
    state, waits = assignments.c.state, assignments.c.state.in_(("leased", "expired"))
    written = func.coalesce(cast(assignments.c.draft, Text), "null") != "null"
    return {"open": (state == "leased") & ~written, "draft": waits & written, "skipped": state == "skipped",
            "sent": (state == "submitted") & retractions.c.reason.is_(None),
            "commented": exists().where(comments.c.item_id == assignments.c.item_id,
                                        comments.c.labeler_id == assignments.c.user_id),
            "set_aside": (state == "submitted") & retractions.c.reason.is_not(None)}[queue]


def _row(row: Row[Any]) -> Json:
    texts = [c["text"] for c in row.body["completions"]]
    asked = row.asked["prompt"] if row.asked else (row.body.get("ask") or {}).get("text", "")
    said = shown_answer(row.kind, row.payload, row.shown_order) if row.payload is not None else None
    queue = ("set_aside" if row.reason else "sent") if row.state == "submitted" else "skipped" if row.state == "skipped" else \
        "draft" if row.draft is not None else "open" if row.state == "leased" else "given_back"
    return {"assignment": row.id, "item": row.item_id, "kind": row.kind, "queue": queue, "at": row.created_at or row.claimed_at,
            "prompt": [{"role": "user", "content": asked}] if isinstance(asked, str) else asked,
            "completions": [texts[i] for i in row.shown_order], "answer": said}
