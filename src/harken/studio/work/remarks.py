"""Comments between leads and one labeler about one item. Other labelers never see them, and the audit holds their hash."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from harken.core.records import content_hash
from harken.store import events
from harken.store.events import stamp
from harken.store.studio_schema import assignments, comments, items, users
from harken.web.accounts import User
from harken.web.errors import ApiError, not_found

Json = dict[str, Any]


def add_comment(tx: Connection, item: int, labeler: int, author: User, words: str, now: datetime) -> int:
    """Writes to a labeler's thread of an item. Raises ApiError for one who was never given the item."""
    project = tx.execute(select(items.c.project_id).where(items.c.id == item)).scalar()
    if project is None:
        raise not_found("item")
    had = select(assignments.c.id).where(assignments.c.item_id == item, assignments.c.user_id == labeler)
    if tx.execute(had.limit(1)).first() is None:
        raise ApiError("conflict", f"User {labeler} was never given item {item}.", "Write to somebody who was.")
    if not words.strip():
        raise ApiError("bad_request", "The comment is blank.")
    row = {"item_id": item, "labeler_id": labeler, "author_id": author.id, "text": words, "created_at": stamp(now)}
    key = tx.execute(insert(comments), row).inserted_primary_key
    assert key is not None
    events.add(tx, "comment", now, user_id=author.id, project_id=project, item_id=item,
               body={"comment": key[0], "labeler": labeler, "hash": content_hash([item, labeler, author.id, words])})
    return int(key[0])


def comments_on(tx: Connection, item_ids: Sequence[int], labeler: int | None = None) -> dict[int, list[Json]]:
    """Item → its comments, the oldest first; only one labeler's thread where one is named."""
    writer = users.alias("writer")
    query = (select(comments, writer.c.name.label("author"), writer.c.role, users.c.name.label("labeler"))
             .join(writer, writer.c.id == comments.c.author_id).join(users, users.c.id == comments.c.labeler_id)
             .where(comments.c.item_id.in_(list(item_ids))).order_by(comments.c.id))
    if labeler is not None:
        query = query.where(comments.c.labeler_id == labeler)
    found: dict[int, list[Json]] = {}
    for row in tx.execute(query):
        author = row.author if labeler is None or row.author_id == labeler else "lead"  # who leads is no labeler's business
        found.setdefault(row.item_id, []).append({
            "comment": row.id, "labeler": row.labeler, "labeler_id": row.labeler_id, "author": author,
            "text": row.text if row.text is not None else "(erased)", "at": row.created_at})
    return found
