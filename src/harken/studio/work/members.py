"""A labeler's place in a project, and what they were shown of each kind of content."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, insert, update

from harken.store.events import stamp
from harken.store.studio_schema import exposures, members
from harken.studio.work.leases import find_member, taken_out
from harken.studio.work.settings import Settings
from harken.web.accounts import User
from harken.web.errors import not_found


def membership(tx: Connection, project: Row[Any], user: User, settings: Settings, now: datetime) -> Row[Any]:
    """The caller's place in the project, made on the first visit of somebody who may work there; else it does not exist."""
    member = find_member(tx, project.id, user.id)
    if member is None:
        if user.role != "lead" and not (settings.open_to_all and user.role == "labeler" and not user.confined):
            raise not_found("project")
        add_member(tx, project.id, user, settings, now)
        member = find_member(tx, project.id, user.id)
    assert member is not None
    if member.state == "removed":
        raise taken_out()
    return member


def add_member(tx: Connection, project: int, user: User, settings: Settings, now: datetime) -> None:
    """Held-out labelers are not screened: they measure how far the labels generalise (arXiv 2203.02155, §5.3)."""
    screened = settings.qualification is not None and user.role == "labeler" and not user.held_out
    tx.execute(insert(members), {
        "project_id": project, "user_id": user.id, "state": "screening" if screened else "member", "cursor": 0,
        "reopened_cursor": 0, "repeat_cursor": 0, "limited": False, "served": 0, "done": 0, "day": "", "today": 0, "score": {},
        "joined_at": stamp(now)})


def expose(tx: Connection, user: int, day: str, categories: Sequence[str]) -> None:
    """Counts what somebody was shown of each kind of content."""
    for category in categories:
        row = {"user_id": user, "day": day, "category": category}
        where = and_(*[exposures.c[k] == v for k, v in row.items()])
        if tx.execute(update(exposures).where(where).values(count=exposures.c.count + 1)).rowcount == 0:
            tx.execute(insert(exposures), {**row, "count": 1})
