"""People of a crowd platform: a link that takes their participant id, and the completion code once they have answered enough.

    https://studio.example.org/crowd/SECRET?PROLIFIC_PID=…&STUDY_ID=…&SESSION_ID=…

The id in the link is all that a platform gives: whoever has it goes on under it. So such an account can answer in its project and
do nothing else, and its answers carry a made-up name; the platform's id stands beside it for leads only.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from harken.store import events
from harken.store.events import stamp
from harken.store.studio_schema import crowds, members, participants, projects, users
from harken.studio.work.leases import find_member, visible_project
from harken.studio.work.members import add_member
from harken.studio.work.settings import Settings
from harken.web import accounts
from harken.web.accounts import CONSENT, CROWD, User, digest
from harken.web.errors import ApiError

EXTRA = ("STUDY_ID", "SESSION_ID")
COMPLETE = "https://app.prolific.com/submissions/complete?cc="
Json = dict[str, Any]


def add_crowd(tx: Connection, project: int, offer: Mapping[str, Any], user: int, now: datetime) -> tuple[int, str]:
    """The link's number and its secret, which is told once."""
    secret = secrets.token_urlsafe(18)
    row = {"hash": digest(secret), "project_id": project, "parameter": offer["parameter"], "code": offer["code"],
           "answers": offer["answers"], "made_by": user, "created_at": stamp(now), "revoked_at": None}
    key = tx.execute(insert(crowds), row).inserted_primary_key
    assert key is not None
    events.add(tx, "crowd", now, user_id=user, project_id=project, body={"crowd": key[0], "answers": offer["answers"]})
    return int(key[0]), secret


def open_crowd(tx: Connection, secret: str) -> Any:
    row = tx.execute(select(crowds, projects.c.name, projects.c.status, projects.c.settings).join(
        projects, projects.c.id == crowds.c.project_id).where(crowds.c.hash == digest(secret))).first()
    if row is None or row.revoked_at is not None or row.status not in ("open", "paused"):
        raise ApiError("not_found", "This study is over, or the link is not whole.", "Return the place on the platform.")
    return row


def join(tx: Connection, body: Mapping[str, Any], now: datetime) -> User:
    """The participant's account: the one they have already, or a new one."""
    link = open_crowd(tx, body["link"])
    body = {**body, "participant": body["participant"].strip()}
    if not body["participant"]:
        raise ApiError("bad_request", "The link does not say who you are.", "Open it from the platform again.")
    known = (select(users).join(participants, participants.c.user_id == users.c.id)
             .where(participants.c.crowd_id == link.id, participants.c.participant == body["participant"]))
    row = tx.execute(known).first()
    if row is not None:
        if row.state != "active":
            raise ApiError("not_found", "This account was closed.", "Ask the researchers on the platform.")
        return accounts.as_user(row)
    name = "p-" + hashlib.blake2b(f"{link.id}:{body['participant']}".encode(), key=digest(str(link.hash)).encode()[:32],
                                  digest_size=5).hexdigest()
    user = accounts.add_user(tx, name, None, "labeler", now, group=dict(body.get("group", {})), consent=digest(CONSENT)[:16])
    tx.execute(update(users).where(users.c.id == user.id).values(subject=f"{CROWD}{link.id}:{user.id}"))
    user = replace(user, confined=True)
    add_member(tx, link.project_id, user, Settings.from_json(link.settings), now)
    extra = {k: v for k, v in body.get("extra", {}).items() if k in EXTRA}
    tx.execute(insert(participants), {"user_id": user.id, "crowd_id": link.id, "participant": body["participant"], "extra": extra,
                                      "created_at": stamp(now), "completed_at": None})
    return user


def completion(tx: Connection, user: User, project: int, now: datetime) -> Json:
    """How far a participant is, and the code where they have answered enough, which is written down."""
    visible_project(tx, user, project)
    row = tx.execute(select(crowds).join(participants, participants.c.crowd_id == crowds.c.id).where(
        participants.c.user_id == user.id, crowds.c.project_id == project)).first()
    member = find_member(tx, project, user.id)
    answered = member.done if member is not None else 0
    if row is None:
        return {"crowd": False, "answered": answered, "wanted": 0, "code": None, "url": None}
    done = answered >= row.answers
    if done:
        tx.execute(update(participants).where(participants.c.user_id == user.id, participants.c.completed_at.is_(None))
                   .values(completed_at=stamp(now)))
    url = COMPLETE + row.code if done and row.parameter == "PROLIFIC_PID" else None
    return {"crowd": True, "answered": answered, "wanted": row.answers, "code": row.code if done else None, "url": url}


def wanted_of(tx: Connection, user: int, project: int) -> int | None:
    """How many answers a participant is to give here; None for everybody else."""
    query = select(crowds.c.answers).join(participants, participants.c.crowd_id == crowds.c.id)
    found: int | None = tx.execute(query.where(participants.c.user_id == user, crowds.c.project_id == project)).scalar()
    return found


def crowds_of(tx: Connection, project: int) -> list[Json]:
    came = (select(participants.c.crowd_id, func.count().label("n"), func.count(participants.c.completed_at).label("done"))
            .group_by(participants.c.crowd_id).subquery())
    query = (select(crowds, came.c.n, came.c.done).outerjoin(came, came.c.crowd_id == crowds.c.id)
             .where(crowds.c.project_id == project, crowds.c.revoked_at.is_(None)).order_by(crowds.c.id).limit(1000))
    return [{"id": c.id, "project": project, "parameter": c.parameter, "answers": c.answers, "participants": c.n or 0,
             "completed": c.done or 0, "created_at": c.created_at} for c in tx.execute(query)]


def participants_of(tx: Connection, project: int) -> list[Json]:
    query = (select(participants, users.c.name, members.c.done).join(crowds, crowds.c.id == participants.c.crowd_id)
             .join(users, users.c.id == participants.c.user_id)
             .outerjoin(members, (members.c.user_id == participants.c.user_id) & (members.c.project_id == project))
             .where(crowds.c.project_id == project).order_by(participants.c.user_id))
    return [{"user": p.user_id, "name": p.name, "participant": p.participant, "extra": p.extra, "answers": p.done or 0,
             "created_at": p.created_at, "completed_at": p.completed_at} for p in tx.execute(query)]
