"""The API's operations for leads: people, invitations, the audit, grades, adjudication, withdrawal."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update

from harken.core.errors import UserError
from harken.core.records import Prompt
from harken.store import events
from harken.store.connection import StorageError
from harken.store.events import stamp
from harken.store.files import KINDS, UNPACKED, Reader, json_line
from harken.store.names import name_key
from harken.store.schema import judgments
from harken.store.snapshots import snapshot
from harken.store.studio_schema import assignments, grades, invitations, items, members, snapshots, users
from harken.store.studio_schema import events as event_table
from harken.studio.api.account import DONE, GROUP
from harken.studio.api.declare import operation
from harken.studio.work import withdrawal
from harken.studio.work.claims import decide
from harken.studio.work.exports import SHAPES, WHATS, export_rows
from harken.studio.work.leases import find_project, release_all, unassign_all
from harken.studio.work.line import Line
from harken.studio.work.members import add_member
from harken.studio.work.settings import Settings
from harken.studio.work.uploads import check_texts, uploaded
from harken.web import accounts
from harken.web.accounts import ROLES
from harken.web.errors import ApiError, not_found
from harken.web.json_schema import ANY, BOOLEAN, ID, TIME, Schema, array, enum, integer, mapping, nullable, obj, text
from harken.web.operations import PAGE, Call, Json, Stream, after, limit_of, page_of, paged

PERSON: Schema = obj({"id": ID, "name": text(200), "signs_in_as": text(200), "role": enum(*ROLES),
                      "state": enum("active", "disabled", "withdrawn"),
                      "held_out": BOOLEAN, "group": GROUP, "created_at": TIME, "has_password": BOOLEAN})
INVITATION: Schema = obj({"id": ID, "role": enum(*ROLES), "projects": array(ID), "held_out": BOOLEAN, "uses_left": integer(),
                          "created_at": TIME, "expires_at": TIME, "revoked": BOOLEAN, "made_by": nullable(text(200))})
EVENT: Schema = obj({"event": ID, "kind": text(40), "user": nullable(ID), "project": nullable(ID), "item": nullable(ID),
                     "assignment": nullable(ID), "judgment": nullable(ID), "undoes": nullable(ID), "at": TIME,
                     "body": mapping(ANY, 40), "hash": text(64)})
SNAPSHOT: Schema = obj({"id": ID, "sha256": text(64), "kind": text(20), "name": text(300), "rows": integer(),
                        "labelers": integer(), "project": nullable(ID), "created_at": TIME})


def person_json(row: Any) -> Json:
    as_ = row.name if row.name_key == name_key(row.name) else row.name_key  # two old names were one: see migration 3
    return {"id": row.id, "name": row.name, "signs_in_as": as_, "role": row.role, "state": row.state, "held_out": row.held_out,
            "group": row.labeler_group, "created_at": row.created_at, "has_password": row.password_hash is not None}


def find_person(call: Call) -> Any:
    row = call.tx.execute(select(users).where(users.c.id == call.path["user"])).first()
    if row is None:
        raise not_found("user")
    return row


@operation("GET", "/api/users", "reader", summary="Everybody with an account", query=PAGE, answer=page_of(PERSON))
def list_users(call: Call) -> Json:
    query = select(users).where(users.c.id > after(call)).order_by(users.c.id).limit(limit_of(call) + 1)
    return paged([person_json(row) for row in call.tx.execute(query)], limit_of(call))


@operation("PATCH", "/api/users/{user}", "lead", summary="Change a role, disable an account, mark a labeler as held out",
           body=obj({"role": enum(*ROLES), "state": enum("active", "disabled"), "held_out": BOOLEAN, "group": GROUP},
                    optional=("role", "state", "held_out", "group")), answer=PERSON, errors=(409,), writes=True)
def change_user(call: Call) -> Json:
    row = find_person(call)
    if row.id == call.user.id and ("role" in call.body or "state" in call.body):
        raise ApiError("conflict", "You cannot change your own role or state.", "Another lead can.")
    if row.state == "withdrawn" and "state" in call.body:
        raise ApiError("conflict", f"{row.name} has withdrawn.",
                       "Invite them again under another name if they want to come back.")
    values = {{"group": "labeler_group"}.get(k, k): v for k, v in call.body.items()}
    if values:
        call.tx.execute(update(users).where(users.c.id == row.id).values(**values))
    _less(call, row, values)
    events.add(call.tx, "user_change", call.now, user_id=call.user.id, body={"user": row.id, **call.body})
    call.site.forget()
    return person_json(find_person(call))


def _less(call: Call, row: Any, values: Json) -> None:
    """Ends what somebody may not do any more: all of it where they are disabled, else what their new role does not allow."""
    role = values.get("role", row.role)
    if values.get("state") == "disabled":
        accounts.end_rights(call.tx, row.id, call.now)
    elif role != row.role:
        accounts.revoke_tokens(call.tx, row.id, call.now, beyond=accounts.ALLOWED[role])
        if role != "lead":
            accounts.end_invitations(call.tx, row.id, call.now)
    if values.get("state") == "disabled" or role == "viewer":
        release_all(call.tx, row.id, call.now)
        unassign_all(call.tx, row.id, call.now)


@operation("POST", "/api/users/{user}/password", "lead",
           summary="Another password for a labeler or viewer who forgot theirs: shown once, ends their sessions and tokens",
           body=obj({}), answer=obj({"name": text(200), "password": text(40)}), errors=(409,), writes=True)
async def reset_password(call: Call) -> Json:
    row = await call.site.read(lambda tx: _resettable(replace(call, tx=tx)))
    password, name = accounts.new_password(), person_json(row)["signs_in_as"]
    hashed = await call.site.hash(accounts.hash_password, password, row.name)

    def change(tx: Any) -> None:
        _resettable(replace(call, tx=tx))
        accounts.set_password(tx, name, hashed, call.now, call.user.id)

    await call.site.write(change)
    call.site.forget()
    return {"name": name, "password": password}


def _resettable(call: Call) -> Any:
    """Somebody whose password a lead may replace. A lead's is not among them: whoever had it could act in their name."""
    row = find_person(call)
    if row.role == "lead":
        raise ApiError("conflict", f"{row.name} is a lead.", "Whoever runs the studio can: harken users password NAME.")
    if row.state != "active" or row.password_hash is None:
        raise ApiError("conflict", f"{row.name} has no password here.", "They sign in elsewhere, or their account is closed.")
    return row


@operation("POST", "/api/users/{user}/withdraw", "lead", summary="A labeler withdraws: their judgments leave all later snapshots",
           body=obj({}), answer=obj({"judgments": integer(), "snapshots": array(SNAPSHOT, 0, 10_000)}), errors=(409,),
           writes=True)
def withdraw_user(call: Call) -> Json:
    row = find_person(call)
    if row.id == call.user.id:
        raise ApiError("conflict", "You cannot withdraw yourself here.", "harken users withdraw NAME, or another lead.")
    count, touched = withdrawal.withdraw(call.tx, row.name, call.now, call.user.id)
    call.site.forget()
    return {"judgments": count, "snapshots": [snapshot_json(s) for s in touched]}


def snapshot_json(row: Any) -> Json:
    return {"id": row.id, "sha256": row.sha256, "kind": row.kind, "name": row.name, "rows": row.rows,
            "labelers": len(row.labelers), "project": row.project_id, "created_at": row.created_at}


@operation("GET", "/api/snapshots", "reader", summary="Snapshots made so far, or a project's, with their hashes",
           query=PAGE | {"project": ID}, answer=page_of(SNAPSHOT))
def list_snapshots(call: Call) -> Json:
    query = select(snapshots).where(snapshots.c.id > after(call)).order_by(snapshots.c.id).limit(limit_of(call) + 1)
    if "project" in call.query:
        query = query.where(snapshots.c.project_id == int(call.query["project"]))
    return paged([snapshot_json(row) for row in call.tx.execute(query)], limit_of(call))


@operation("POST", "/api/projects/{project}/snapshots", "lead", summary="Freeze what was said so far into a file on the server",
           body=obj({"what": enum("comparisons", "demonstrations"),
                     "name": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,80}$"}}),
           answer=obj({"path": text(1000), "rows": integer(), "sha256": text(64), "labelers": integer(),
                       "warnings": array(text(2000))}),
           errors=(409,), writes=True)
async def create_snapshot(call: Call) -> Json:
    await call.site.read(lambda tx: find_project(tx, call.path["project"]))
    return await call.site.slow(_freeze, call)


def _freeze(call: Call) -> Json:
    db = call.site.db
    folder = (Path(db.name).resolve().parent if db.link.is_file else Path.cwd()) / "snapshots"
    folder.mkdir(exist_ok=True)
    path = folder / f"{call.body['name']}.jsonl"
    try:
        info = snapshot(db, call.body["what"], path, project=call.path["project"])
    except StorageError:
        raise
    except UserError as error:
        raise ApiError.of(error, "conflict") from None
    return {"path": str(info.path), "rows": info.rows, "sha256": info.hash, "labelers": info.labelers,
            "warnings": list(info.warnings)}


@operation("POST", "/api/judgments/import", "lead",
           summary="Store what people said elsewhere, all or none, for later snapshots",
           answer=obj({"kind": enum(*KINDS), "added": integer(), "already": integer(), "repeats_an_answer": integer()}),
           writes=True, ndjson="in")
async def import_judgments(call: Call) -> Json:
    return await call.site.slow(uploaded, call.body, functools.partial(_store, call))


def _store(call: Call, path: Path) -> Json:
    for n, record in enumerate(Reader(path, unpacked_limit=UNPACKED)):
        if n == 0 and isinstance(record, Prompt):
            raise UserError("The file holds prompts that nobody has judged.", "Add them to a project as items.")
        check_texts(record)
    result = call.site.db.import_file(path, unpacked_limit=UNPACKED)
    return {"kind": result.kind, "added": result.added, "already": result.already, "repeats_an_answer": result.repeating}


@operation("GET", "/api/projects/{project}/export", "reader", summary="What counts, one JSON object a line", ndjson="out",
           query={"what": enum(*WHATS), "shape": enum(*SHAPES)})
def export(call: Call) -> Stream:
    find_project(call.tx, call.path["project"])
    what, shape = call.query.get("what", "comparisons"), call.query.get("shape", "harken")
    rows = export_rows(call.site.db, what, shape, project=call.path["project"])
    return Stream((json_line(row).encode("utf-8") + b"\n" for row in rows), f"{what}.jsonl")


@operation("PUT", "/api/projects/{project}/members/{user}", "lead", summary="Add somebody to a project, or take them out",
           body=obj({"member": BOOLEAN}), answer=DONE, writes=True)
def set_member(call: Call) -> Json:
    project, person = find_project(call.tx, call.path["project"]), find_person(call)
    where = (members.c.project_id == project.id) & (members.c.user_id == person.id)
    member = call.tx.execute(select(members.c.state).where(where)).first()
    settings = Settings.from_json(project.settings)
    if member is None:
        add_member(call.tx, project.id, accounts.as_user(person), settings, call.now)
    if not call.body["member"]:
        call.tx.execute(update(members).where(where).values(state="removed"))
        release_all(call.tx, person.id, call.now, project.id)
        unassign_all(call.tx, person.id, call.now, project.id)
    elif member is not None and member.state == "removed":
        call.tx.execute(update(members).where(where).values(state="screening" if settings.qualification else "member"))
    events.add(call.tx, "member", call.now, user_id=call.user.id, project_id=project.id, body={"user": person.id, **call.body})
    return {"done": True}


@operation("POST", "/api/invitations", "lead", summary="Invite people; the link is shown once",
           body=obj({"role": enum(*ROLES), "projects": array(ID, 0, 100), "days": integer(1, 365), "uses": integer(1, 1000),
                     "held_out": BOOLEAN},
                    optional=("role", "projects", "days", "uses", "held_out")),
           answer=obj({"id": ID, "token": text(100), "url": text(300), "role": enum(*ROLES), "expires_at": TIME,
                       "uses_left": integer()}),
           errors=(409,), writes=True)
def create_invitation(call: Call) -> Json:
    if call.user.local:
        raise ApiError("set_password_first", "An invitation needs an account that can log in.",
                       "Choose a name and a password first: POST /api/setup.")
    offer = {"role": "labeler", "projects": [], "days": 7, "uses": 1, "held_out": False, **call.body}
    made = accounts.create_invitation(call.tx, call.user, offer, call.now)
    return {
        **made,
        "url": f"{call.site.address or call.site.base}/join#{made['token']}",
    }  # after #: it reaches no log of any server on the way


@operation("GET", "/api/invitations", "lead", summary="Invitations, without their secrets", query=PAGE,
           answer=page_of(INVITATION))
def list_invitations(call: Call) -> Json:
    query = (select(invitations, users.c.name, users.c.role.label("now"), users.c.state).outerjoin(
        users, users.c.id == invitations.c.made_by).where(invitations.c.id > after(call)).order_by(invitations.c.id)
        .limit(limit_of(call) + 1))
    rows = [{"id": i.id, "role": i.role, "projects": i.projects, "held_out": i.held_out, "uses_left": i.uses_left,
             "created_at": i.created_at, "expires_at": i.expires_at,
             "made_by": i.name,
             "revoked": i.revoked_at is not None or (i.now, i.state) != ("lead", "active")} for i in call.tx.execute(query)]
    return paged(rows, limit_of(call))


@operation("DELETE", "/api/invitations/{invitation}", "lead", summary="Withdraw an invitation", answer=DONE, writes=True)
def revoke_invitation(call: Call) -> Json:
    where = invitations.c.id == call.path["invitation"]
    if call.tx.execute(update(invitations).where(where).values(revoked_at=stamp(call.now))).rowcount == 0:
        raise not_found("invitation")
    events.add(call.tx, "revoke_invitation", call.now, user_id=call.user.id, body={"invitation": call.path["invitation"]})
    return {"done": True}


@operation("GET", "/api/events", "reader", summary="The audit: what happened, as a chain of hashes", query=PAGE,
           answer=page_of(EVENT))
def list_events(call: Call) -> Json:
    c = event_table.c
    query = select(event_table).where(c.seq > after(call)).order_by(c.seq).limit(limit_of(call) + 1)
    rows = [{"event": e.seq, "kind": e.kind, "user": e.user_id, "project": e.project_id, "item": e.item_id,
             "assignment": e.assignment_id, "judgment": e.judgment_seq, "undoes": e.undoes, "at": e.created_at,
             "body": e.body, "hash": e.hash}
            for e in call.tx.execute(query)]
    return paged(rows, limit_of(call), "event")


@operation("POST", "/api/judgments/{judgment}/grade", "lead", summary="Grade a qualifying test's demonstration, 1 to 7",
           body=obj({"score": integer(1, 7)}), answer=obj({"state": text(20)}), errors=(409,), writes=True)
def grade(call: Call) -> Json:
    query = (select(judgments, items.c.project_id, assignments.c.user_id).join(items, items.c.id == judgments.c.item_id)
             .join(assignments, assignments.c.judgment_seq == judgments.c.seq)
             .where(judgments.c.seq == call.path["judgment"], judgments.c.role == "qualify", judgments.c.kind == "demonstration"))
    row = call.tx.execute(query).first()
    if row is None:
        raise not_found("demonstration of a qualifying test")
    if call.tx.execute(select(grades.c.score).where(grades.c.judgment_seq == row.seq)).first() is not None:
        raise ApiError("conflict", "It is graded already.")
    call.tx.execute(insert(grades), {"judgment_seq": row.seq, "score": call.body["score"], "user_id": call.user.id,
                                     "created_at": stamp(call.now)})
    events.add(call.tx, "grade", call.now, user_id=call.user.id, project_id=row.project_id, item_id=row.item_id,
               judgment_seq=row.seq, body=dict(call.body))
    person = accounts.as_user(call.tx.execute(select(users).where(users.c.id == row.user_id)).one())
    line = Line.enter(call.tx, row.project_id, person, call.now)
    if line.at["state"] == "waiting":
        decide(line)
        line.save()
    return {"state": line.at["state"]}
