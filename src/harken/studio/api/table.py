"""The API's operations of a lead's table: find items and answers, change many at once, write to a labeler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from harken.core.errors import UserError
from harken.store.schema import judgments
from harken.store.studio_schema import events, items, users
from harken.studio.api.declare import operation
from harken.studio.api.lead import find_person
from harken.studio.api.mine import COMMENT
from harken.studio.api.project import ANSWER, ITEM_ROW, ITEM_STATES, answer_json, item_json
from harken.studio.work import projects as work
from harken.studio.work import withdrawal
from harken.studio.work.leases import find_project
from harken.studio.work.remarks import add_comment, comments_on
from harken.studio.work.set_aside import accept_answer, set_answer_aside
from harken.studio.work.settings import CATEGORIES
from harken.studio.work.table import ANSWER_STATES, SHOWN, SORTS, Page, choices, find_answers, find_items
from harken.web.errors import ApiError
from harken.web.json_schema import ID, TIME, Schema, array, enum, integer, nullable, obj, text
from harken.web.operations import Call, Json

DATES = {"from": text(40), "to": text(40)}
SORTED = {"sort": enum(*[f"{sign}{name}" for name in SORTS for sign in ("", "-")]), "page": integer(1, 10**6)}
ITEM_FILTERS: dict[str, Schema] = {
    "q": text(200), "state": enum(*ITEM_STATES, "flagged", "answered"), "role": enum("task", "gold", "qualify"),
    "labeler": text(200), "tag": text(200), "source": text(500), "assigned": ID,
    "list": enum("ungraded", "repeated", "commented", "decided"), **DATES, **SORTED}
ANSWER_FILTERS: dict[str, Schema] = {
    "q": text(200), "state": enum(*ANSWER_STATES), "labeler": text(200), "source": text(500), "item": ID, **DATES,
    "sort": enum("id", "-id", "seconds", "-seconds", "labeler", "-labeler"), "page": integer(1, 10**6)}
FOUND_ITEM: Schema = obj({**ITEM_ROW["properties"], "assigned": array(ID, 0, 100)})
FOUND_ANSWER: Schema = obj({"item": ID, "task": text(40), "prompt": nullable(text(300)), "accepted": nullable(TIME),
                            "assignment": nullable(ID), **ANSWER["properties"]})


def _pages(item: Schema) -> Schema:
    return obj({"items": array(item, 0, SHOWN), "total": integer(), "page": integer(1), "pages": integer(),
                "choices": obj({name: array(text(500), 0, 1000) for name in ("labelers", "tags", "sources")})})


def _answer(call: Call, project: int, page: Page, rows: list[Json]) -> Json:
    return {"items": rows, "total": page.total, "page": int(call.query.get("page", 1)), "pages": -(-page.total // SHOWN),
            "choices": choices(call.tx, project)}


def found_item(row: Any) -> Json:
    return {**item_json(row), "assigned": [int(i) for i in (row.assigned or "").split(",") if i]}


@operation("GET", "/api/projects/{project}/find", "reader", summary="Items by words, state, labeler, tag, source or date",
           query=ITEM_FILTERS, answer=_pages(FOUND_ITEM))
def find_items_(call: Call) -> Json:
    project = find_project(call.tx, call.path["project"]).id
    page = find_items(call.tx, project, call.query, sort=call.query.get("sort", "id"), page=int(call.query.get("page", 1)))
    return _answer(call, project, page, [found_item(row) for row in page.rows])


@operation("GET", "/api/projects/{project}/answers", "reader", summary="Answers by labeler, state, words, source or date",
           query=ANSWER_FILTERS, answer=_pages(FOUND_ANSWER))
def find_answers_(call: Call) -> Json:
    project = find_project(call.tx, call.path["project"]).id
    page = find_answers(call.tx, project, call.query, sort=call.query.get("sort", "-id"), page=int(call.query.get("page", 1)))
    return _answer(call, project, page, [_found_answer(row) for row in page.rows])


def _found_answer(row: Any) -> Json:
    prompt = row.asked["prompt"] if row.asked else None
    last = prompt if isinstance(prompt, str) or prompt is None else prompt[-1]["content"]
    return {**answer_json(row), "item": row.item_id, "task": row.task, "prompt": last[:300] if last is not None else None,
            "accepted": row.accepted, "assignment": row.assignment}


@operation(
    "POST",
    "/api/projects/{project}/review",
    "lead",
    summary="Accept answers, or set them aside with a reason; all or none",
    body=obj(
        {"judgments": array(ID, 1, 500), "state": enum("accepted", "set_aside"), "reason": text(2000)}, optional=("reason",)
    ),
    answer=obj({"changed": integer()}),
    errors=(409,),
    writes=True,
)
def review_answers(call: Call) -> Json:
    project, seqs = find_project(call.tx, call.path["project"]).id, sorted(set(call.body["judgments"]))
    reason = call.body.get("reason", "").strip()
    if call.body["state"] == "set_aside" and not reason:
        raise ApiError("bad_request", "Setting answers aside needs a reason.", "Say why: the labeler is told.")
    there = select(judgments.c.seq).join(items, items.c.id == judgments.c.item_id)
    own = set(call.tx.scalars(there.where(judgments.c.seq.in_(seqs), items.c.project_id == project)))
    if missing := [s for s in seqs if s not in own]:
        raise ApiError("bad_request", f"Answer {missing[0]} is none of this project.")
    for seq in seqs:
        if call.body["state"] == "accepted":
            accept_answer(call.tx, seq, call.now, call.user.id)
        else:
            set_answer_aside(call.tx, seq, reason, call.now, call.user.id)
    return {"changed": len(seqs)}


@operation(
    "PATCH",
    "/api/projects/{project}/items",
    "lead",
    summary="Change many items at once: state, overlap, whom they are for",
    body=obj(
        {
            "items": array(ID, 1, 500),
            "state": enum("open", "set_aside"),
            "overlap": integer(1, 100),
            "warnings": array(enum(*CATEGORIES), 0, len(CATEGORIES)),
            "assigned": array(ID, 0, 100),
        },
        optional=("state", "overlap", "warnings", "assigned"),
    ),
    answer=obj({"changed": integer()}),
    errors=(409,),
    writes=True,
)
def change_items(call: Call) -> Json:
    project, ids = find_project(call.tx, call.path["project"]).id, sorted(set(call.body["items"]))
    own = set(call.tx.scalars(select(items.c.id).where(items.c.id.in_(ids), items.c.project_id == project)))
    if missing := [i for i in ids if i not in own]:
        raise ApiError("bad_request", f"Item {missing[0]} is none of this project.")
    changes: Mapping[str, Any] = {k: v for k, v in call.body.items() if k != "items"}
    for item in ids:
        work.change_item(call.tx, item, changes, call.now, call.user.id)
    return {"changed": len(ids)}


@operation("POST", "/api/items/{item}/comments", "lead", summary="Write to a labeler about an item",
           body=obj({"labeler": ID, "text": text(4000, 1)}), answer=obj({"comment": ID}), errors=(409,), writes=True)
def comment_on_item(call: Call) -> Json:
    return {"comment": add_comment(call.tx, call.path["item"], call.body["labeler"], call.user, call.body["text"], call.now)}


@operation("GET", "/api/items/{item}/comments", "reader", summary="What leads and labelers wrote to each other about an item",
           answer=obj({"items": array(COMMENT, 0, 10_000)}))
def list_comments(call: Call) -> Json:
    return {"items": comments_on(call.tx, [call.path["item"]]).get(call.path["item"], [])}


@operation(
    "POST",
    "/api/users/{user}/erase",
    "lead",
    summary="Erase what says who somebody is and what they wrote; their judgments are withdrawn first",
    body=obj({"sure": enum(True)}),
    answer=obj({"alias": text(200), "judgments": integer(), "events": integer(), "snapshots": array(text(300), 0, 10_000)}),
    errors=(409,),
    writes=True,
)
def erase_user(call: Call) -> Json:
    row = find_person(call)
    if row.id == call.user.id:
        raise ApiError("conflict", "You cannot erase yourself here.", "harken users erase NAME, or another lead.")
    try:
        erased, touched = withdrawal.erase(call.tx, row.name, call.now, call.user.id)
    except UserError as error:
        raise ApiError.of(error, "conflict") from None
    call.site.forget()
    return {"alias": erased.alias, "judgments": erased.judgments, "events": erased.events, "snapshots": [s.name for s in touched]}


@operation("GET", "/api/erasures", "lead", summary="Who asked that their data be erased and still has them here",
           answer=obj({"items": array(obj({"user": ID, "name": text(200), "at": TIME}), 0, 10_000)}))
def list_erasures(call: Call) -> Json:
    asked = (select(events.c.user_id, users.c.name, events.c.created_at).join(users, users.c.id == events.c.user_id)
             .where(events.c.kind == "erasure_request", users.c.name.not_like("erased-%")).order_by(events.c.seq))
    rows = {row.user_id: {"user": row.user_id, "name": row.name, "at": row.created_at} for row in call.tx.execute(asked)}
    return {"items": list(rows.values())}
