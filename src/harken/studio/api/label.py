"""The API's operations for labelers: tasks, drafts, answers, undo."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace
from typing import Any, get_args

from sqlalchemy import select

from harken.core.records import EXTRA, Role
from harken.store.studio_schema import events, forms
from harken.studio.api.declare import operation
from harken.studio.tasks import PROMPT_KINDS
from harken.studio.work import answers, claims, leases
from harken.studio.work.forms import ANY_ANSWER, FORM
from harken.studio.work.leases import my_assignment, visible_project
from harken.studio.work.settings import CATEGORIES, SKIP_REASONS
from harken.web.errors import not_found
from harken.web.json_schema import (
    ANY,
    BOOLEAN,
    ID,
    TIME,
    UUID,
    Schema,
    array,
    enum,
    integer,
    mapping,
    nullable,
    number,
    obj,
    text,
)
from harken.web.operations import Call, Json

MESSAGE: Schema = obj({"role": enum(*get_args(Role)), "content": text(10**7), **dict.fromkeys(EXTRA, ANY)}, optional=EXTRA)
SUGGESTION: Schema = obj({"answer": ANY_ANSWER})
TASK: Schema = obj({
    "assignment": ID, "item": ID, "project": ID, "kind": text(20), "stage": enum("task", "qualify"), "form_version": text(64),
    "instruction_hash": text(64),
    "prompt": nullable(obj({"messages": array(MESSAGE, 1, 10_000), "use_case": nullable(text(10**4)),
                            "kind": enum(*PROMPT_KINDS)})),
    "completions": array(text(10**7), 0, 9), "ask": nullable(mapping(ANY, 10)), "warnings": array(enum(*CATEGORIES)),
    "claimed_at": TIME, "expires_at": TIME, "draft": nullable(mapping(ANY, 10**4)), "draft_version": integer(),
    "suggestion": nullable(SUGGESTION)})
NEXT: Schema = obj({"count": integer(1, 5), "have": array(ID, 0, 50)}, optional=("have",))
TASKS: Schema = obj({
    "tasks": array(TASK, 0, 5), "retry_after": nullable(integer()), "progress": obj({"done_by_me": integer(), "open": integer()}),
    "status": enum("ok", "empty", "answered", "finished", "limit", "waiting", "not_qualified", "paused")})
SUBMIT: Schema = obj({"client_id": UUID, "answer": ANY_ANSWER, "seconds": nullable(number(0, 10**6)), "form_version": text(64),
                      "instruction_hash": nullable(text(64)), "next": NEXT}, optional=("next", "seconds"))
RECEIPT: Schema = obj({
    "judgment": ID, "already": BOOLEAN, "counted": BOOLEAN, "answer": ANY_ANSWER, "next": nullable(TASKS),
    "suggestion": nullable(SUGGESTION),
    "notices": array(obj({"code": text(40), "message": text(400), "pairs": array(array(integer(0, 8), 2, 2))}), 0, 10)})
SKIP: Schema = obj({"client_id": UUID, "reason": enum(*SKIP_REASONS), "note": text(2000), "next": NEXT},
                   optional=("note", "next"))
UNSAFE: Schema = obj({"client_id": UUID, "category": enum(*CATEGORIES), "note": text(2000), "hide": BOOLEAN, "next": NEXT},
                     optional=("note", "hide", "next"))
DRAFT: Schema = obj({"draft": mapping(ANY, 1000), "version": integer()})
EXPIRES: Schema = obj({"expires_at": TIME})
NOTHING: Schema = obj({})
UNDO: Schema = obj({"client_id": UUID, "assignment": ID}, optional=("assignment",))
ACTION: Schema = obj({"assignment": ID, "action": enum("submit", "skip", "unsafe"), "at": TIME, "client_id": text(64),
                      "undone": BOOLEAN, "judgment": nullable(ID)})


def _next(call: Call, project: int) -> Json | None:
    """More tasks with a receipt, where asked for."""
    wanted = (call.body or {}).get("next")
    if not wanted:
        return None
    return _blind(call, claims.next_tasks(call.tx, call.user, project, wanted["count"], wanted.get("have", []), call.now))


def _blind(call: Call, answer: Json) -> Json:
    """What a labeler is sent must not tell questions whose answer is known from tasks: item numbers stand in the order in
    which items were added, and the count of open items falls at tasks only. Leads see both as they are."""
    if call.user.role != "labeler":
        return answer
    if "item" in answer:
        answer = answer | {"item": _opaque(answer["item"], answer["project"])}
    if answer.get("task"):
        answer = answer | {"task": _blind(call, answer["task"])}
    if answer.get("next"):
        answer = answer | {"next": _blind(call, answer["next"])}
    if "tasks" in answer:
        answer = answer | {"tasks": [_blind(call, task) for task in answer["tasks"]],
                           "progress": answer["progress"] | {"open": _about(answer["progress"]["open"])}}
    return answer


SECRET = secrets.token_bytes(16)
STEP = 20


def _opaque(item: int, project: int) -> int:
    """A number that names an item towards labelers, while this server runs."""
    words = f"{project}:{item}".encode()
    return int.from_bytes(hashlib.blake2b(words, key=SECRET, digest_size=6).digest()) + 1


def _about(n: int) -> int:
    """A count in steps of `STEP` and more, rounded up: the step does not tell which of many answers made it."""
    step = max(STEP, int(10 ** (len(str(n)) - 1)))
    return -(-n // step) * step


def _project_of(call: Call) -> int:
    return int(my_assignment(call.tx, call.user, call.path["assignment"]).project_id)


@operation("POST", "/api/projects/{project}/next", "labeler", summary="Claim the next tasks", body=NEXT, answer=TASKS,
           writes=True)
def next_(call: Call) -> Json:
    return _blind(call, claims.next_tasks(call.tx, call.user, call.path["project"], call.body["count"],
                                          call.body.get("have", []), call.now))


@operation("GET", "/api/assignments/{assignment}", "labeler", summary="One of your own tasks", answer=TASK)
def get_task(call: Call) -> Json:
    return _blind(call, answers.task(call.tx, call.user, call.path["assignment"]))


@operation("POST", "/api/assignments/{assignment}/submit", "labeler", summary="Submit an answer", body=SUBMIT, answer=RECEIPT,
           errors=(409, 422), writes=True)
def submit(call: Call) -> Json:
    return _blind(call, answers.submit(call.tx, call.user, call.path["assignment"], {"seconds": None, **call.body}, call.now))


@operation("POST", "/api/assignments/{assignment}/skip", "labeler", summary="Skip a task, with a reason", body=SKIP,
           answer=obj({"already": BOOLEAN, "next": nullable(TASKS)}), errors=(409,), writes=True)
def skip(call: Call) -> Json:
    receipt = answers.skip(call.tx, call.user, call.path["assignment"], {"note": "", **call.body}, call.now)
    return {**receipt, "next": _next(call, _project_of(call))}


@operation("POST", "/api/assignments/{assignment}/unsafe", "labeler", summary="Refuse a task for its content", body=UNSAFE,
           answer=obj({"already": BOOLEAN, "hidden": array(enum(*CATEGORIES)), "next": nullable(TASKS)}), errors=(409,),
           writes=True)
def unsafe(call: Call) -> Json:
    receipt = answers.unsafe(call.tx, call.user, call.path["assignment"], {"note": "", "hide": True, **call.body}, call.now)
    call.site.forget()
    hiding = replace(call, user=replace(call.user, hidden=tuple(receipt["hidden"])))
    return {**receipt, "next": _next(hiding, _project_of(call))}


@operation("PUT", "/api/assignments/{assignment}/draft", "labeler", summary="Keep what is written so far; renews the lease",
           body=DRAFT, answer=obj({"version": integer(), "expires_at": TIME}), errors=(409,), writes=True)
def save_draft(call: Call) -> Json:
    return leases.save_draft(call.tx, call.user, call.path["assignment"], call.body["draft"], call.body["version"], call.now)


@operation("POST", "/api/assignments/{assignment}/renew", "labeler", summary="Hold your tasks for longer", body=NOTHING,
           answer=EXPIRES, errors=(409,), writes=True)
def renew(call: Call) -> Json:
    return leases.renew(call.tx, call.user, call.path["assignment"], call.now)


@operation("POST", "/api/projects/{project}/undo", "labeler", summary="Take back your last action", body=UNDO,
           answer=obj({"undone": enum("submit", "skip", "unsafe"), "task": TASK, "already": BOOLEAN}), errors=(409,), writes=True)
def undo(call: Call) -> Json:
    call.site.forget()  # a refusal's hidden category may be back
    return _blind(call, answers.undo(call.tx, call.user, call.path["project"], call.body, call.now))


@operation("POST", "/api/projects/{project}/leave", "labeler", summary="Give back tasks you have not begun",
           body=obj({"keep": array(ID, 0, 100)}, optional=("keep",)),
           answer=obj({"released": integer(), "kept": integer()}), writes=True)
def leave(call: Call) -> Json:
    return leases.leave(call.tx, call.user, call.path["project"], call.now, call.body.get("keep", []))


@operation("GET", "/api/projects/{project}/history", "labeler", summary="Your last actions here, the newest first",
           query={"limit": integer(1, 100)}, answer=obj({"items": array(ACTION)}))
def history(call: Call) -> Json:
    visible_project(call.tx, call.user, call.path["project"])
    undone = events.alias("undone")
    query = (select(events, undone.c.seq.label("taken_back")).outerjoin(undone, undone.c.undoes == events.c.seq)
             .where(events.c.user_id == call.user.id, events.c.project_id == call.path["project"],
                    events.c.kind.in_(answers.UNDONE))
             .order_by(events.c.seq.desc()).limit(call.query.get("limit", 20)))
    return {"items": [{"assignment": e.assignment_id, "action": e.kind, "at": e.created_at, "client_id": e.client_id,
                       "undone": e.taken_back is not None, "judgment": e.judgment_seq} for e in call.tx.execute(query)]}


@operation("GET", "/api/projects/{project}/forms/{version}", "user", summary="A form, by its version", answer=FORM)
def get_form(call: Call) -> Any:
    visible_project(call.tx, call.user, call.path["project"])
    form = call.tx.execute(select(forms.c.body).where(forms.c.version == call.path["version"])).scalar()
    if form is None:
        raise not_found("form")
    return form
