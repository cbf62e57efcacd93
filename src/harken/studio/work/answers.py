"""What labelers do with a task: submit, skip, refuse as unsafe, undo. Each is one transaction and happens once.

An action carries the client's own id. The same id with the same content is the same action, answered as before; with
another content it is refused. So a queue that was filled offline can be sent again and again.

An answer is never thrown away: one that comes after its lease ran out, or after the lead lowered the overlap, when others
have filled the item, is stored with the role "surplus". It does not count: no item has more answers than were wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, exists, insert, select, update

from harken.core.records import Prompt, content_hash
from harken.store import events
from harken.store.database import STANDS
from harken.store.events import stamp
from harken.store.prepared import Joined, Prepared
from harken.store.rows import NEXT_JUDGMENT, judgment_row, prompt_row
from harken.store.schema import judgments, prompts
from harken.store.studio_schema import assignments, forms, items, members, projects, retractions, users
from harken.store.studio_schema import events as event_table
from harken.studio.tasks import TASKS
from harken.studio.work.claims import more_tasks
from harken.studio.work.forms import notices, read_answer, shown_answer
from harken.studio.work.leases import (
    COUNT,
    FINISHED,
    SET_ASSIGNMENT,
    count,
    counters,
    counts,
    find_item,
    find_project,
    my_assignment,
    set_assignment,
    taken_out,
    until,
)
from harken.studio.work.line import (
    AHEAD,
    HELD,
    PLACE,
    UPCOMING,
    Line,
    suggested_first,
    suggestion_of,
    task_json,
    with_prompt,
    with_upcoming,
)
from harken.studio.work.quality import add_marks, gold_marks, settled
from harken.studio.work.settings import Settings
from harken.web.accounts import User
from harken.web.errors import ApiError, not_found

UNDONE = ("submit", "skip", "unsafe")

# A subquery, not a join: with an old ANALYZE's statistics SQLite reads all events for a join.
_before = select(event_table.c.seq).where(event_table.c.client_id == bindparam("client_id")).scalar_subquery()
_submission = Joined((
    [assignments.c[f] for f in ("id", "item_id", "turn", "state", "shown_order")],
    [items.c[f] for f in ("id", "project_id", "role", "kind", "prompt_key", "body", "state", "wanted", "done", "held", "free",
                          "reopened")],
    *PLACE, UPCOMING), lambda s: s.select_from(with_upcoming(
        assignments.join(items, assignments.c.item_id == items.c.id).join(projects, assignments.c.project_id == projects.c.id)
        .join(members, and_(members.c.project_id == projects.c.id, members.c.user_id == assignments.c.user_id))))
    .where(assignments.c.id == bindparam("id"), assignments.c.user_id == bindparam("user")), HELD, AHEAD, _before, NEXT_JUDGMENT,
    events.LAST_SEQ.scalar_subquery(), events.LAST.scalar_subquery())
_event_of = Prepared(select(event_table).where(event_table.c.client_id == bindparam("client_id")))
_stored = Prepared(select(judgments.c.payload, judgments.c.content, judgments.c.role).where(judgments.c.seq == bindparam("seq")))
_form = Prepared(select(forms.c.body).where(forms.c.version == bindparam("version")))
_insert = Prepared(insert(judgments).values({c.name: bindparam(c.name) for c in judgments.c}))
_answers = Prepared(select(judgments.c.payload).where(judgments.c.item_id == bindparam("item"), STANDS).order_by(judgments.c.seq))
_later = event_table.alias("later")
_last_action = (select(event_table)
                .where(event_table.c.user_id == bindparam("user"), event_table.c.project_id == bindparam("project"),
                       event_table.c.kind.in_(UNDONE), ~exists().where(_later.c.undoes == event_table.c.seq),
                       ~exists().where(retractions.c.judgment_seq == event_table.c.judgment_seq))
                .order_by(event_table.c.seq.desc()))
_close = SET_ASSIGNMENT["state", "counted", "draft", "judgment_seq"]
_forms: dict[str, dict[str, Any]] = {}  # by version, which is their content's hash: they never change


def submit(tx: Connection, user: User, assignment: int, sent: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Stores an answer. `sent`: client_id, answer, seconds, form_version, instruction_hash, and `next` (count, have) where
    the next tasks shall come back with the receipt."""
    row = _submission.first(tx, id=assignment, user=user.id, client_id=sent["client_id"])
    if row is None:
        raise not_found("task")
    if row[3].state == "removed":  # whoever was taken out holds nothing here any more
        raise taken_out()
    mine, item, project, member, upcoming, held, ahead, before, *numbers = row
    # An item whose lease had run out is open to its labeler in this read, and no longer once it is answered.
    found = None if mine.state != "leased" else [] if upcoming is None else [upcoming]
    line = Line(tx, user, project, member, held, ahead, now, found)
    receipt = _submit(line, mine, item, before is not None, sent, numbers)
    ahead = sent.get("next")
    if ahead:
        return {**receipt, "next": more_tasks(line, ahead["count"], ahead.get("have", []))}
    if not receipt["already"]:
        line.save()
    return {**receipt, "next": None}


def _submit(line: Line, mine: Row[Any], item: Row[Any], came_before: bool, sent: dict[str, Any],
            numbers: Sequence[Any]) -> dict[str, Any]:
    """`numbers`: the new judgment's, and the last event's with its hash. Others cannot take them: one transaction writes."""
    tx, user, now = line.tx, line.user, line.now
    form = find_form(tx, sent["form_version"], item.kind)
    texts = [c["text"] for c in item.body["completions"]]
    payload = read_answer(form, texts, mine.shown_order, sent["answer"])
    request = content_hash([mine.id, {k: sent[k] for k in ("answer", "seconds", "form_version", "instruction_hash")}])
    earlier = _repeated(tx, user, sent["client_id"], request) if came_before else None
    if earlier is not None:
        stored = _stored.first(tx, seq=earlier.judgment_seq)
        return _receipt(earlier.judgment_seq, True, stored.role != "surplus", form, stored.payload, mine.shown_order)
    if mine.state not in ("leased", "expired"):
        raise ApiError("already_answered", "This task is answered or skipped already.", "Undo brings it back.")
    suggestion = item.body.get("suggestion")
    first = suggestion is None or suggested_first(line.project, item.id, user.id)
    if suggestion is not None:
        payload["suggested"] = "before" if first else "after"
    role = _place(tx, mine, item)
    row = _judgment(tx, user, item, mine, form, payload, sent, role, now)
    key, after, last = numbers
    line.later(_insert, {"seq": key, **row})
    event_body = {"request": request, "content": row["content"], "role": role}
    if role is None and _unsettled(line, item):
        event_body["wanted"] = item.wanted + 1
    event = events.link(after, last, "submit", now, sent["client_id"], event_body, user_id=user.id, project_id=item.project_id,
                        item_id=item.id, assignment_id=mine.id, judgment_seq=key)
    closed = {"key": mine.id, "state": "submitted", "counted": role is None, "draft": None, "judgment_seq": key}
    _file_answer(line, item, mine, event, closed)
    line.held.discard(mine.id)
    line.tally(1)
    if role in ("gold", "qualify"):
        _mark(line, item, payload)
    receipt = _receipt(key, False, role != "surplus", form, payload, mine.shown_order)
    if not first and not TASKS[item.kind].same(suggestion["payload"], payload):
        receipt["suggestion"] = suggestion_of(item, mine.shown_order)
    return receipt


def _receipt(seq: int, already: bool, counted: bool, form: dict[str, Any], payload: dict[str, Any],
             order: list[int]) -> dict[str, Any]:
    return {"judgment": seq, "already": already, "counted": counted, "suggestion": None,
            "answer": shown_answer(form["kind"], payload, order), "notices": notices(form["kind"], payload, order)}


def find_form(tx: Connection, version: str, kind: str) -> dict[str, Any]:
    """The form of that version: an older one is as good, the answer says which it was."""
    form = _forms.get(version) or _form.scalar(tx, version=version)
    if form is not None and len(_forms) < 1000:
        _forms[version] = form
    if form is None or form["kind"] != kind:
        raise ApiError("bad_answer", f'"form_version" {version[:64]} is not a form for this task.',
                       "Send the task's own form_version.")
    return form


def _repeated(tx: Connection, user: User, client_id: str, request: str) -> Row[Any] | None:
    """The event this request made when it came before."""
    earlier: Row[Any] | None = _event_of.first(tx, client_id=client_id)
    if earlier is not None and (earlier.user_id != user.id or earlier.body.get("request") != request):
        raise ApiError("client_id_reused", f"The client id {client_id} was used for another action before.",
                       "Send a changed answer under a new client id.")
    return earlier


def _place(tx: Connection, mine: Row[Any], item: Row[Any]) -> str | None:
    """The judgment's role; the item's place is taken where the lease had run out and one is free. A held place is worth
    nothing once the lead has lowered the overlap and others have filled it."""
    if mine.turn:
        return "repeat"
    if item.role != "task":
        return str(item.role)
    if mine.state == "leased":
        return None if item.done < item.wanted else "surplus"
    if item.free == 0:
        return "surplus"
    count(tx, item, held=1)
    return None


def _judgment(tx: Connection, user: User, item: Row[Any], mine: Row[Any], form: dict[str, Any], payload: dict[str, Any],
              sent: dict[str, Any], role: str | None, now: datetime) -> dict[str, Any]:
    task = TASKS[item.kind]
    prompt = task.prompt(payload)
    key = item.prompt_key if prompt is None else _store_prompt(tx, Prompt.from_json(prompt), now)
    row = judgment_row(key, task.record, payload, labeler=user.name, group=user.group, order=mine.shown_order,
                       seconds=sent["seconds"], instruction_hash=sent["instruction_hash"], form_version=form["version"],
                       client_id=sent["client_id"])
    return {**row, "import_seq": None, "created_at": stamp(now), "item_id": item.id, "role": role}


def _store_prompt(tx: Connection, prompt: Prompt, now: datetime) -> str:
    """A written prompt joins the known ones, once; returns its key."""
    row = prompt_row(prompt, stamp(now))
    if tx.execute(select(prompts.c.seq).where(prompts.c.key == row["key"])).first() is None:
        tx.execute(insert(prompts), row)
    return str(row["key"])


def _file_answer(line: Line, item: Row[Any], mine: Row[Any], event: dict[str, Any],
                 closed: dict[str, Any]) -> None:
    """Writes the event and that the task is done. One held place becomes an answer, if it counts; an unsettled item with
    adaptive overlap asks for one more."""
    line.later(_close, closed)
    if "wanted" in event["body"]:
        item = item if mine.state == "leased" else find_item(line.tx, item.id)  # `_place` took it up again
        seq = line.send(events.INSERT, event)
        line.moved(count(line.tx, item, done=1, held=-1, wanted=item.wanted + 1, reopened=seq))
        return
    line.later(events.INSERT, event)
    if not closed["counted"]:
        if mine.state == "leased" and counts(item, mine.turn):
            line.later(COUNT, counters(item, held=-1)[0])
        return
    item = item if mine.state == "leased" else find_item(line.tx, item.id)
    row, changed = counters(item, done=1, held=-1)
    line.later(COUNT, row)
    if changed:
        line.later(FINISHED, {"key": item.project_id, "by": changed["items_done"]})
    line.moved(changed)


def _unsettled(line: Line, item: Row[Any]) -> bool:
    """Whether an item with adaptive overlap asks for one answer more; the one that was just given is stored."""
    extra = TASKS[item.kind].compares and item.wanted <= item.done + 1 < line.settings.overlap_max
    return extra and not settled([row.payload for row in _answers.all(line.tx, item=item.id)])


def _mark(line: Line, item: Row[Any], payload: dict[str, Any], sign: int = 1) -> None:
    """Adds a known question's outcome to the labeler's score, which the labeler is never shown."""
    if item.body.get("gold"):
        line.at["score"] = add_marks(line.at["score"], gold_marks(item.body["gold"], payload), sign)


def skip(tx: Connection, user: User, assignment: int, sent: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Passes a task on to others, with a reason; after `skip_limit` skips it waits for the lead."""
    return {"already": _refuse(tx, user, assignment, "skip", sent, now)}


def unsafe(tx: Connection, user: User, assignment: int, sent: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Refuses a task for its content; with `hide`, more of that category is not shown to the labeler."""
    already = _refuse(tx, user, assignment, "unsafe", sent, now)
    hidden = set(tx.execute(select(users.c.hidden).where(users.c.id == user.id)).scalar() or [])
    if not already and sent["hide"] and sent["category"] not in hidden:
        hidden |= {sent["category"]}
        hide(tx, user, sorted(hidden))
    return {"already": already, "hidden": sorted(hidden)}


def hide(tx: Connection, user: User, categories: list[str]) -> None:
    """Sets what a labeler is not shown. Lines are walked again: what was passed may be allowed now."""
    tx.execute(update(users).where(users.c.id == user.id).values(hidden=categories))
    tx.execute(update(members).where(members.c.user_id == user.id).values(cursor=0, reopened_cursor=0))


def _refuse(tx: Connection, user: User, assignment: int, kind: str, sent: dict[str, Any], now: datetime) -> bool:
    mine = my_assignment(tx, user, assignment)
    reason = {k: v for k, v in sent.items() if k not in ("client_id", "next")}
    request = content_hash([assignment, kind, reason])
    if _repeated(tx, user, sent["client_id"], request) is not None:
        return True
    if mine.state not in ("leased", "expired"):
        raise ApiError("already_answered", "This task is answered or skipped already.", "Undo brings it back.")
    item = find_item(tx, mine.item_id)
    settings = Settings.from_json(find_project(tx, item.project_id).settings)
    aside = counts(item, mine.turn) and item.skips + 1 >= settings.skip_limit and item.state == "open"
    event = events.add(tx, kind, now, user_id=user.id, project_id=mine.project_id, item_id=mine.item_id,
                       assignment_id=mine.id, client_id=sent["client_id"],
                       body={"request": request, **reason, **({"aside": True} if aside else {})})
    set_assignment(tx, mine.id, state="skipped")
    if counts(item, mine.turn):
        tx.execute(update(items).where(items.c.id == item.id).values(
            skips=items.c.skips + 1, flags=items.c.flags + int(kind == "unsafe")))
        count(tx, item, held=-1 if mine.state == "leased" else 0, reopened=event, state="set_aside" if aside else None)
    return False


def undo(tx: Connection, user: User, project: int, sent: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Takes back the caller's last submit, skip or refusal (or that on one assignment); the task is theirs again, with
    what they had answered as its draft. A judgment taken back stays stored and stops counting."""
    row = find_project(tx, project)
    request = content_hash(["undo", project, sent.get("assignment")])
    earlier = _repeated(tx, user, sent["client_id"], request)
    if earlier is not None:
        return {"undone": earlier.body["undone"], "task": task(tx, user, earlier.assignment_id), "already": True}
    query = _last_action
    if sent.get("assignment") is not None:
        query = query.where(event_table.c.assignment_id == sent["assignment"])
    action = tx.execute(query.limit(1), {"user": user.id, "project": project}).first()
    if action is None:
        raise ApiError("nothing_to_undo", "There is nothing of yours to undo here.")
    mine = my_assignment(tx, user, action.assignment_id)
    back = False
    if action.kind == "submit":
        draft = _take_back(tx, user, mine, action.judgment_seq, now)
    else:
        draft = mine.draft
        back = _take_up(tx, user, mine, action)
    events.add(tx, "undo", now, user_id=user.id, project_id=project, item_id=mine.item_id, assignment_id=mine.id,
               judgment_seq=action.judgment_seq, client_id=sent["client_id"], undoes=action.seq,
               body={"request": request, "undone": action.kind, **({"aside": False} if back else {})})
    item = find_item(tx, mine.item_id)
    held = not counts(item, mine.turn) or item.free > 0
    if held and counts(item, mine.turn):
        count(tx, item, held=1)
    set_assignment(tx, mine.id, state="leased" if held else "expired", counted=False, draft=draft, judgment_seq=None)
    set_assignment(tx, mine.id, expires_at=until(Settings.from_json(row.settings), now))
    return {"undone": action.kind, "task": task(tx, user, mine.id), "already": False}


def _take_back(tx: Connection, user: User, mine: Row[Any], seq: int, now: datetime) -> dict[str, Any]:
    """Undoes a submit: the judgment stops counting, its place is free. Returns the draft."""
    stored = _stored.first(tx, seq=seq)
    tx.execute(insert(retractions), {"judgment_seq": seq, "reason": "undo", "created_at": stamp(now)})
    item = find_item(tx, mine.item_id)
    if mine.counted:
        count(tx, item, done=-1)
    line = Line.enter(tx, item.project_id, user, now)
    line.tally(-1)
    if stored.role in ("gold", "qualify"):
        _mark(line, item, stored.payload, -1)
    line.save()
    answer = shown_answer(item.kind, stored.payload, mine.shown_order)
    return {"answer": {k: v for k, v in answer.items() if k != "spans"}}


def _take_up(tx: Connection, user: User, mine: Row[Any], action: Row[Any]) -> bool:
    """Undoes a skip or a refusal: it no longer counts against the item. Returns whether that opens the item again."""
    item, back = find_item(tx, mine.item_id), False
    if counts(item, mine.turn):
        settings = Settings.from_json(find_project(tx, item.project_id).settings)
        tx.execute(update(items).where(items.c.id == item.id).values(
            skips=items.c.skips - 1, flags=items.c.flags - int(action.kind == "unsafe")))
        back = item.state == "set_aside" and item.skips == settings.skip_limit
        count(tx, item, state="open" if back else None)
    if action.body.get("hide"):
        hidden = tx.execute(select(users.c.hidden).where(users.c.id == user.id)).scalar() or []
        hide(tx, user, [c for c in hidden if c != action.body["category"]])
    return back


def task(tx: Connection, user: User, assignment: int) -> dict[str, Any]:
    """One of the caller's own tasks, as it was shown."""
    mine = my_assignment(tx, user, assignment)
    item = tx.execute(with_prompt.where(items.c.id == mine.item_id)).first()
    return task_json(find_project(tx, mine.project_id), mine._asdict(), item)
