"""The API's operations on projects and their items."""

from __future__ import annotations

import secrets
from collections import Counter
from datetime import timedelta
from typing import Any

from sqlalchemy import exists, func, select

from harken.core.records import content_hash
from harken.store.events import stamp
from harken.store.schema import judgments, prompts
from harken.store.studio_schema import events, forms, instructions, items, members, projects, retractions, users
from harken.studio.api.declare import operation
from harken.studio.tasks import KINDS, TASKS
from harken.studio.work import projects as work
from harken.studio.work.forms import FORM
from harken.studio.work.leases import find_project, visible_project
from harken.studio.work.settings import CATEGORIES, FIELDS, PRESETS, Settings
from harken.studio.work.uploads import read_upload
from harken.web.errors import ApiError, not_found
from harken.web.json_schema import ANY, BOOLEAN, ID, TIME, Schema, array, either, enum, integer, mapping, nullable, obj, text
from harken.web.operations import PAGE, Call, Json, after, limit_of, page_of, paged

WORDING: Schema = either(obj({"preset": enum(*PRESETS)}), obj({"text": text(100_000, 1)}))
SEEN = {"seen": text(64)}
"""The version that the caller looked at: where it is another now, the change is refused, so no lead undoes another's."""
STATUSES = ("open", "paused", "closed", "archived")
NEW: Schema = obj({"name": text(200, 1), "kind": enum(*KINDS), "purpose": enum("train", "eval"), "instructions": WORDING,
                   "seed": integer(), **FIELDS}, optional=("purpose", "instructions", "seed", *FIELDS))
CHANGE: Schema = obj({"name": text(200, 1), "status": enum(*STATUSES), **FIELDS, **SEEN},
                     optional=("name", "status", *FIELDS, *SEEN))
MINE: Schema = obj({"state": enum("member", "screening", "waiting", "qualified", "not_qualified"), "done": integer(),
                    "today": integer(), "daily_limit": nullable(integer())})
PROJECT: Schema = obj(
    {
        "id": ID,
        "name": text(200),
        "kind": enum(*KINDS),
        "purpose": enum("train", "eval"),
        "status": enum(*STATUSES),
        "form": FORM,
        "hidden": BOOLEAN,
        "instructions": obj({"hash": text(64), "version": integer(1), "preset": nullable(text(20)), "text": text(100_000)}),
        "items_total": integer(),
        "items_done": integer(),
        "my": nullable(MINE),
        "settings": nullable(mapping(ANY, 40)),
        "revision": text(64),
    }
)
LISTED: Schema = obj({"id": ID, "name": text(200), "kind": enum(*KINDS), "purpose": enum("train", "eval"),
                      "status": enum(*STATUSES), "items_total": integer(), "items_done": integer(), "my": nullable(MINE),
                      "hidden": BOOLEAN})
ITEM_STATES = ("open", "done", "set_aside")
ITEM_ROW: Schema = obj({
    "id": ID, "position": integer(), "role": text(20), "kind": enum(*KINDS), "state": enum(*ITEM_STATES),
    "prompt": nullable(text(300)), "wanted": integer(), "done": integer(), "held": integer(), "skips": integer(),
    "flags": integer(),
    "warnings": array(enum(*CATEGORIES)), "names_its_maker": BOOLEAN})
ADDED: Schema = obj({"added": integer(), "already": integer(), "names_its_maker": integer(), "repeats_an_answer": integer(),
                     "notes": array(text(500))}, optional=("notes",))


def revision(project: Any) -> str:
    """Names a project's name, state and settings as they are."""
    return content_hash([project.name, project.status, project.settings])[:16]


def check_seen(call: Call, now: str, what: str) -> None:
    """Refuses a change of something that another lead changed since the caller looked at it."""
    if call.body.get("seen", now) != now:
        raise ApiError("conflict", f"Somebody else changed the {what} since you opened this page.",
                       "Copy what you wrote, reload the page, and put it in again.")


def list_json(call: Call, project: Any) -> Json:
    return {
        "id": project.id,
        "name": project.name,
        "kind": project.kind,
        "purpose": project.purpose,
        "status": project.status,
        "items_total": project.items_total,
        "items_done": project.items_done,
        "my": _mine(call, project),
        "hidden": bool(project.settings.get("hidden", False)),
    }


def _mine(call: Call, project: Any) -> Json | None:
    if call.user.role == "viewer":
        return None
    query = select(members).where(members.c.project_id == project.id, members.c.user_id == call.user.id)
    row, settings = call.tx.execute(query).first(), Settings.from_json(project.settings)
    new = "screening" if settings.qualification and call.user.role == "labeler" and not call.user.held_out else "member"
    today = row.today if row is not None and row.day == call.now.date().isoformat() else 0
    return {"state": row.state if row is not None and row.state != "removed" else new, "done": row.done if row is not None else 0,
            "today": today, "daily_limit": settings.daily_limit}


def project_json(call: Call, project: Any) -> Json:
    wording = call.tx.execute(select(instructions).where(instructions.c.hash == project.instruction_hash)).one()
    form = call.tx.execute(select(forms.c.body).where(forms.c.version == project.form_version)).scalar_one()
    settings = None if call.user.role == "labeler" else Settings.from_json(project.settings).to_json()
    return {**list_json(call, project), "form": form, "settings": settings, "revision": revision(project),
            "instructions": {"hash": wording.hash, "version": project.instruction_version, "preset": wording.preset,
                             "text": wording.text}}


@operation("GET", "/api/projects", "user", summary="The projects you may see", query=PAGE, answer=page_of(LISTED))
def list_projects(call: Call) -> Json:
    query = select(projects, members.c.state.label("place")).outerjoin(
        members, (members.c.project_id == projects.c.id) & (members.c.user_id == call.user.id)).where(
        projects.c.id > after(call)).order_by(projects.c.id)
    limit, rows = limit_of(call), []
    for project in call.tx.execute(query):
        closed = project.place == "removed" or project.status == "archived" or project.settings.get("hidden") or (
            project.place is None and (call.user.confined or not project.settings.get("open_to_all", True)))
        if not (call.user.role == "labeler" and closed):
            rows.append(list_json(call, project))
        if len(rows) > limit:
            break
    return paged(rows, limit)


@operation("GET", "/api/projects/{project}", "user", summary="A project: instructions, form, your place in it", answer=PROJECT)
def get_project(call: Call) -> Json:
    return project_json(call, visible_project(call.tx, call.user, call.path["project"]))


@operation("POST", "/api/projects", "lead", summary="Make a project", body=NEW, answer=PROJECT, errors=(409,), writes=True)
def create_project(call: Call) -> Json:
    key = work.create_project(call.tx, call.body, call.now, user_id=call.user.id, seed=secrets.randbelow(2**53))
    return project_json(call, find_project(call.tx, key))


@operation("PATCH", "/api/projects/{project}", "lead", summary="Change a project's name, status or settings", body=CHANGE,
           answer=PROJECT, errors=(409,), writes=True)
def change_project(call: Call) -> Json:
    check_seen(call, revision(find_project(call.tx, call.path["project"])), "settings")
    changes = {k: v for k, v in call.body.items() if k != "seen"}
    work.change_project(call.tx, call.path["project"], changes, call.now, call.user.id)
    return project_json(call, find_project(call.tx, call.path["project"]))


@operation("PUT", "/api/projects/{project}/instructions", "lead", summary="New instructions: a new version",
           body=either(*[obj({**s["properties"], **SEEN}, optional=tuple(SEEN)) for s in WORDING["anyOf"]]), answer=PROJECT,
           errors=(409,), writes=True)
def set_instructions(call: Call) -> Json:
    check_seen(call, find_project(call.tx, call.path["project"]).instruction_hash, "instructions")
    work.set_instructions(call.tx, call.path["project"], call.body, call.now, call.user.id)
    return project_json(call, find_project(call.tx, call.path["project"]))


@operation("GET", "/api/projects/{project}/instructions", "reader", summary="Every wording so far, the newest first",
           answer=obj({"items": array(obj({"hash": text(64), "text": text(100_000), "at": TIME, "by": nullable(text(200))}))}))
def list_instructions(call: Call) -> Json:
    find_project(call.tx, call.path["project"])
    query = (select(events.c.body, events.c.created_at, users.c.name).outerjoin(users, users.c.id == events.c.user_id)
             .where(events.c.project_id == call.path["project"], events.c.kind.in_(("project", "instructions")))
             .order_by(events.c.seq.desc()))
    made = [(row.body.get("hash"), row) for row in call.tx.execute(query)]
    known = {row.hash: row.text for row in call.tx.execute(select(instructions).where(
        instructions.c.hash.in_([digest for digest, _ in made if digest])))}
    return {"items": [{"hash": digest, "text": known[digest], "at": row.created_at, "by": row.name}
                      for digest, row in made if digest in known]}


@operation("PUT", "/api/projects/{project}/form", "lead", summary="Another form: a new version; old answers keep theirs",
           body={**FORM, "properties": FORM["properties"] | SEEN, "required": [f for f in FORM["required"] if f != "version"]},
           answer=PROJECT, errors=(409,), writes=True)
def set_form(call: Call) -> Json:
    check_seen(call, find_project(call.tx, call.path["project"]).form_version, "form")
    form = {k: v for k, v in call.body.items() if k != "seen"}
    work.set_form(call.tx, call.path["project"], form, call.now, call.user.id)
    return project_json(call, find_project(call.tx, call.path["project"]))


@operation("POST", "/api/projects/{project}/order", "lead", summary="Ask first what teaches most, or in the order of arrival",
           body=obj({"by": enum("information", "arrival")}), answer=obj({"weighed": integer(), "moved": integer()}),
           errors=(409,), writes=True)
async def order_items(call: Call) -> Json:
    from harken.studio.work import ordering  # SciPy: loaded when a lead asks, not when the studio starts
    project = await call.site.read(lambda tx: find_project(tx, call.path["project"]))
    if not TASKS[project.kind].compares:
        raise ApiError("conflict", f'Only comparisons can be weighed; this project asks to "{project.kind}".',
                       "Its items come in the order of arrival.")
    order: Json = {"items": None, "weighed": 0}
    if call.body["by"] == "information":
        order = await call.site.slow(ordering.weigh, call.site.db, project.id)
    moved = await call.site.write(lambda tx: ordering.reorder(tx, project.id, order["items"], call.now, call.user.id))
    return {"weighed": order["weighed"], "moved": moved}


@operation("POST", "/api/projects/{project}/items", "lead", summary="Add items, all or none",
           body=obj({"items": array(work.ITEM, 1, 500)}), answer=ADDED, writes=True)
def add_items(call: Call) -> Json:
    return work.add_items(call.tx, call.path["project"], call.body["items"], call.now, call.user.id)


@operation("POST", "/api/projects/{project}/import", "lead", summary="Add a JSON Lines file's rows as items, all or none",
           answer=ADDED, writes=True, ndjson="in")
def import_items(call: Call) -> Json:
    find_project(call.tx, call.path["project"])
    notes: Counter[str] = Counter()
    added = work.add_items(call.tx, call.path["project"], read_upload(call.body, notes), call.now, call.user.id)
    return {**added, "notes": [note.replace(", or name the encoding with --encoding", "") for note in notes]}


@operation("GET", "/api/projects/{project}/items", "reader", summary="A project's items", answer=page_of(ITEM_ROW),
           query={**PAGE, "state": enum(*ITEM_STATES, "flagged"), "role": enum("task", "gold", "qualify")})
def list_items(call: Call) -> Json:
    find_project(call.tx, call.path["project"])
    limit = limit_of(call)
    query = (select(items, prompts.c.body.label("asked")).outerjoin(prompts, items.c.prompt_key == prompts.c.key)
             .where(items.c.project_id == call.path["project"], items.c.id > after(call)))
    if state := call.query.get("state"):
        query = query.where(items.c.flags > 0) if state == "flagged" else query.where(items.c.state == state)
    if role := call.query.get("role"):
        query = query.where(items.c.role == role)
    return paged([item_json(row) for row in call.tx.execute(query.order_by(items.c.id).limit(limit + 1))], limit)


def item_json(row: Any) -> Json:
    prompt = row.asked["prompt"] if row.asked else None
    last = prompt if isinstance(prompt, str) or prompt is None else prompt[-1]["content"]
    return {"id": row.id, "position": row.position, "role": row.role, "kind": row.kind, "state": row.state,
            "prompt": last[:300] if last is not None else None, "wanted": row.wanted, "done": row.done, "held": row.held,
            "skips": row.skips, "flags": row.flags, "warnings": row.warnings.split(",") if row.warnings else [],
            "names_its_maker": bool(row.body.get("names_its_maker"))}


ANSWER: Schema = obj({"judgment": ID, "labeler": nullable(text(200)), "kind": text(20), "payload": mapping(ANY, 30),
                      "role": nullable(text(20)), "order": nullable(array(integer(0, 8), 0, 9)),
                      "seconds": nullable({"type": "number"}), "form_version": nullable(text(64)),
                      "instruction_hash": nullable(text(64)), "retracted": nullable(text(20)), "created_at": TIME})


def answer_json(row: Any) -> Json:
    return {"judgment": row.seq, "labeler": row.labeler, "kind": row.kind, "payload": row.payload, "role": row.role,
            "order": row.shown_order, "seconds": row.seconds, "form_version": row.form_version,
            "instruction_hash": row.instruction_hash, "retracted": row.reason, "created_at": row.created_at}


_answers = select(judgments, retractions.c.reason).outerjoin(retractions, retractions.c.judgment_seq == judgments.c.seq)


@operation("GET", "/api/items/{item}", "reader", summary="An item with all its answers and what happened to it",
           answer=obj({**ITEM_ROW["properties"], "project": ID, "body": mapping(ANY, 20), "messages": nullable(ANY),
                       "answers": array(ANSWER, 0, 10_000),
                       "events": array(obj({"event": ID, "kind": text(40), "user": nullable(ID), "judgment": nullable(ID),
                                            "at": TIME, "body": mapping(ANY, 40)}), 0, 500)}))
def get_item(call: Call) -> Json:
    query = select(items, prompts.c.body.label("asked")).outerjoin(prompts, items.c.prompt_key == prompts.c.key)
    row = call.tx.execute(query.where(items.c.id == call.path["item"])).first()
    if row is None:
        raise not_found("item")
    given = call.tx.execute(_answers.where(judgments.c.item_id == row.id).order_by(judgments.c.seq)).fetchall()
    happened = call.tx.execute(select(events).where(events.c.item_id == row.id).order_by(events.c.seq).limit(500)).fetchall()
    asked = row.asked["prompt"] if row.asked else None
    return {**item_json(row), "project": row.project_id, "body": row.body, "answers": [answer_json(a) for a in given],
            "messages": [{"role": "user", "content": asked}] if isinstance(asked, str) else asked,
            "events": [{"event": e.seq, "kind": e.kind, "user": e.user_id, "judgment": e.judgment_seq, "at": e.created_at,
                        "body": e.body} for e in happened]}


@operation("PATCH", "/api/items/{item}", "lead", summary="Set an item aside, open it again, change its overlap or warnings",
           body=obj({"state": enum("open", "set_aside"), "overlap": integer(1, 100),
                     "warnings": array(enum(*CATEGORIES), 0, len(CATEGORIES))}, optional=("state", "overlap", "warnings")),
           answer=ITEM_ROW, writes=True)
def change_item(call: Call) -> Json:
    query = select(items, prompts.c.body.label("asked")).outerjoin(prompts, items.c.prompt_key == prompts.c.key).where(
        items.c.id == call.path["item"])
    if call.tx.execute(query).first() is None:
        raise not_found("item")
    work.change_item(call.tx, call.path["item"], call.body, call.now, call.user.id)
    return item_json(call.tx.execute(query).one())


@operation("GET", "/api/projects/{project}/judgments", "reader", summary="All answers, also those that do not count",
           query=PAGE, answer=page_of(obj({"item": ID, **ANSWER["properties"]})))
def list_judgments(call: Call) -> Json:
    find_project(call.tx, call.path["project"])
    limit = limit_of(call)
    query = (_answers.join(items, items.c.id == judgments.c.item_id).where(
        items.c.project_id == call.path["project"], judgments.c.seq > after(call)))
    rows = [{"item": r.item_id, **answer_json(r)} for r in call.tx.execute(query.order_by(judgments.c.seq).limit(limit + 1))]
    return paged(rows, limit, "judgment")


@operation("GET", "/api/projects/{project}/progress", "reader", summary="How far a project is, for polling", answer=obj({
    "items_total": integer(), "items_done": integer(), "answers": integer(), "answers_wanted": integer(), "set_aside": integer(),
    "held": integer(), "flagged": integer(), "last_hour": integer(),
    "labelers": array(obj({"user": ID, "name": text(200), "state": text(20), "done": integer(), "today": integer(),
                           "score": mapping(array(integer(), 2, 2), 10)}), 0, 10_000)}))
def get_progress(call: Call) -> Json:
    project = find_project(call.tx, call.path["project"])
    c = items.c
    own, asked = (c.project_id == project.id) & (c.role == "task"), c.state != "set_aside"
    row = call.tx.execute(select(func.sum(c.done).filter(asked), func.sum(c.wanted).filter(asked), func.sum(c.held),
                                 func.count().filter(c.state == "set_aside"), func.count().filter(c.flags > 0)).where(own)).one()
    hour = stamp(call.now - timedelta(hours=1))
    j = judgments.c
    last = call.tx.execute(select(func.count()).select_from(events.join(judgments, j.seq == events.c.judgment_seq)
                                                            .join(items, c.id == j.item_id)).where(
        events.c.project_id == project.id, events.c.kind == "submit", events.c.created_at > hour, j.role.is_(None), asked,
        ~exists().where(retractions.c.judgment_seq == j.seq))).scalar()
    people = call.tx.execute(select(members, users.c.name).join(users, users.c.id == members.c.user_id).where(
        members.c.project_id == project.id).order_by(members.c.user_id))
    return {"items_total": project.items_total, "items_done": project.items_done, "answers": row[0] or 0,
            "answers_wanted": row[1] or 0, "held": row[2] or 0, "set_aside": row[3], "flagged": row[4], "last_hour": last,
            "labelers": [{"user": m.user_id, "name": m.name, "state": m.state, "done": m.done, "today": m.today, "score": m.score}
                         for m in people]}
