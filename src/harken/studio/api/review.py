"""The API's operations for what a lead makes of answers: what a disagreement is, and which answer shall not count.

Every label stays as it was given (F16). The reading, and the order that the lead would give, are an event of the item; an
answer set aside is a retraction with a reason.
"""

from __future__ import annotations

from sqlalchemy import Connection, select

from harken.store import events
from harken.store.studio_schema import assignments, items, users
from harken.store.studio_schema import events as event_table
from harken.studio.api.declare import operation
from harken.studio.work.leases import find_item, find_project, let_go
from harken.studio.work.set_aside import set_answer_aside
from harken.web.errors import ApiError, not_found
from harken.web.json_schema import BOOLEAN, ID, TIME, array, enum, integer, nullable, obj, text
from harken.web.operations import Call, Json

READINGS = {"noise": "A slip", "guideline": "The guideline is unclear", "plural": "Different values"}


@operation("POST", "/api/items/{item}/adjudicate", "lead", summary="Say what a disagreement is: a slip, the guideline, or values",
           body=obj({"reading": enum(*READINGS), "ranks": nullable(array(integer(1, 9), 2, 9)), "note": text(4000)},
                    optional=("ranks", "note")), answer=obj({"event": ID}), errors=(409, 422), writes=True)
def adjudicate(call: Call) -> Json:
    if call.tx.execute(select(items.c.id).where(items.c.id == call.path["item"])).first() is None:
        raise not_found("item")
    item = find_item(call.tx, call.path["item"])
    if item.role != "task":
        raise ApiError("conflict", f"Item {item.id} is a {item.role} item: it has an answer already.")
    ranks, given = call.body.get("ranks"), len(item.body["completions"])
    if ranks is not None and len(ranks) != given:
        raise ApiError("bad_answer", f'"ranks" has {len(ranks)} entries for {given} completions.',
                       "Give one rank for each, in the item's own order.")
    body = {"reading": call.body["reading"], "ranks": ranks, "note": call.body.get("note", "")}
    return {"event": events.add(call.tx, "adjudicate", call.now, user_id=call.user.id, project_id=item.project_id,
                                item_id=item.id, body=body)}


@operation("PATCH", "/api/judgments/{judgment}", "lead", summary="Set one answer aside, with a reason: it counts no more",
           body=obj({"state": enum("set_aside"), "reason": text(2000, 1)}),
           answer=obj({"judgment": ID, "state": enum("set_aside")}), errors=(409,), writes=True)
def change_answer(call: Call) -> Json:
    if not call.body["reason"].strip():
        raise ApiError("bad_request", "Setting an answer aside needs a reason.", "Say why: the labeler is told.")
    set_answer_aside(call.tx, call.path["judgment"], call.body["reason"], call.now, call.user.id)
    return {"judgment": call.path["judgment"], "state": "set_aside"}


@operation("GET", "/api/projects/{project}/held", "reader", summary="Who holds which items, and until when",
           answer=obj({"items": array(obj({"assignment": ID, "item": ID, "user": ID, "name": text(200), "since": TIME,
                                           "expires_at": TIME, "begun": BOOLEAN}), 0, 1000)}))
def list_held(call: Call) -> Json:
    find_project(call.tx, call.path["project"])
    query = (select(assignments, users.c.name).join(users, users.c.id == assignments.c.user_id)
             .where(assignments.c.project_id == call.path["project"], assignments.c.state == "leased")
             .order_by(assignments.c.expires_at).limit(1000))
    return {"items": [{"assignment": a.id, "item": a.item_id, "user": a.user_id, "name": a.name, "since": a.claimed_at,
                       "expires_at": a.expires_at, "begun": a.draft is not None} for a in call.tx.execute(query)]}


@operation("POST", "/api/assignments/{assignment}/release", "lead", summary="Give a held item back to the line", body=obj({}),
           answer=obj({"done": BOOLEAN}), errors=(409,), writes=True)
def release(call: Call) -> Json:
    lease = call.tx.execute(select(assignments).where(assignments.c.id == call.path["assignment"])).first()
    if lease is None:
        raise not_found("task")
    if lease.state != "leased":
        raise ApiError("conflict", "Nobody holds it any more.", "Reload the page.")
    let_go(call.tx, lease, "release", call.now)
    return {"done": True}


def readings(tx: Connection, project: int) -> dict[int, str]:
    """Item → its latest reading."""
    c = event_table.c
    query = select(c.item_id, c.body).where(c.project_id == project, c.kind == "adjudicate").order_by(c.seq)
    return {row.item_id: row.body["reading"] for row in tx.execute(query)}
