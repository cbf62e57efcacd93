"""Who holds what: leases run out and come back, and an item's counters always add up.

Every function runs inside the caller's write transaction, which the store gives to one writer at a time.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, select, update

from harken.store import events
from harken.store.events import stamp
from harken.store.prepared import Prepared
from harken.store.studio_schema import assignments, items, members, projects
from harken.studio.work.settings import Settings
from harken.web.accounts import User
from harken.web.errors import ApiError, not_found

SWEEP = 50


_project = Prepared(select(projects).where(projects.c.id == bindparam("id")))
_overdue = Prepared(
    select(assignments)
    .where(assignments.c.project_id == bindparam("project"), assignments.c.state == "leased",
           assignments.c.expires_at < bindparam("now"))
    .order_by(assignments.c.expires_at).limit(SWEEP))
_assignment = Prepared(
    select(assignments, members.c.state.label("place")).outerjoin(members, (members.c.project_id == assignments.c.project_id)
                                                                  & (members.c.user_id == assignments.c.user_id))
    .where(assignments.c.id == bindparam("id")))
SET_ASSIGNMENT: dict[tuple[str, ...], Prepared] = {
    fields: Prepared(update(assignments).where(assignments.c.id == bindparam("key")).values({f: bindparam(f) for f in fields}))
    for fields in (("state",), ("expires_at",), ("draft", "draft_version", "expires_at"),
                   ("state", "counted", "draft", "judgment_seq"))}
_item = Prepared(select(items).where(items.c.id == bindparam("id")))
COUNT = Prepared(update(items).where(items.c.id == bindparam("key"))
                  .values({f: bindparam(f) for f in ("state", "wanted", "done", "held", "free", "reopened")}))
FINISHED = Prepared(update(projects).where(projects.c.id == bindparam("key"))
                     .values(items_done=projects.c.items_done + bindparam("by")))
_last_reopened = Prepared(update(projects).where(projects.c.id == bindparam("key")).values(reopened=bindparam("mark")))
_member = Prepared(select(members).where(members.c.project_id == bindparam("project"), members.c.user_id == bindparam("user")))


def find_project(tx: Connection, project: int) -> Row[Any]:
    row: Row[Any] | None = _project.first(tx, id=project)
    if row is None:
        raise not_found("project")
    return row


def find_member(tx: Connection, project: int, user: int) -> Row[Any] | None:
    member: Row[Any] | None = _member.first(tx, project=project, user=user)
    return member


def visible_project(tx: Connection, user: User, number: int) -> Row[Any]:
    """The project, where the user may see it: leads and viewers all, labelers those they may work on."""
    project = find_project(tx, number)
    if user.role == "labeler":
        member = find_member(tx, project.id, user.id)
        if not may_answer(project, member, user):
            raise not_found("project") if member is None else taken_out()
    return project


def taken_out() -> ApiError:
    """What somebody is told who had a place in a project and has it no more."""
    return ApiError("not_found", "You were taken out of this project, and it takes no more from you.",
                    "What you said before stays stored. If you should be in it, ask its lead to add you again.")


def may_answer(project: Row[Any], member: Row[Any] | None, user: User) -> bool:
    """Whether a lead or a labeler has a place in the project, or may take one."""
    if member is not None:
        return bool(member.state != "removed")
    return user.role == "lead" or bool(project.settings.get("open_to_all", True) and not user.confined)


def find_item(tx: Connection, item: int) -> Row[Any]:
    row: Row[Any] | None = _item.first(tx, id=item)
    assert row is not None
    return row


def my_assignment(tx: Connection, user: User, assignment: int) -> Row[Any]:
    """The caller's own assignment; anybody else's does not exist for them, and of one in a project they were taken out of they
    are told so."""
    row: Row[Any] | None = _assignment.first(tx, id=assignment)
    if row is None or row.user_id != user.id:
        raise not_found("task")
    if row.place == "removed":
        raise taken_out()
    return row


def set_assignment(tx: Connection, assignment: int, **values: Any) -> None:
    SET_ASSIGNMENT[tuple(values)].run(tx, key=assignment, **values)


def count(tx: Connection, item: Row[Any], *, done: int = 0, held: int = 0, wanted: int | None = None,
          state: str | None = None, reopened: int | None = None) -> dict[str, int]:
    """Moves an item's counters. `reopened`: the event that makes it claimable again for those who passed it in line.

    Returns what that changed in the project: by how much `items_done`, and the new `reopened`."""
    row, changed = counters(item, done=done, held=held, wanted=wanted, state=state, reopened=reopened)
    COUNT.run(tx, **row)
    if "reopened" in changed:
        _last_reopened.run(tx, key=item.project_id, mark=changed["reopened"])
    if "items_done" in changed:
        FINISHED.run(tx, key=item.project_id, by=changed["items_done"])
    return changed


def counters(item: Row[Any], *, done: int = 0, held: int = 0, wanted: int | None = None, state: str | None = None,
             reopened: int | None = None) -> tuple[dict[str, Any], dict[str, int]]:
    """COUNT's values, and what they change in the project."""
    done, held = item.done + done, item.held + held
    wanted = item.wanted if wanted is None else wanted
    state = item.state if state is None else state
    if state in ("open", "done"):
        state = "done" if done >= wanted else "open"
    free = max(0, wanted - done - held) if state == "open" else 0
    assert done >= 0 and held >= 0, f"item {item.id}: {done} done, {held} held"
    mark = reopened if reopened is not None and free > 0 else item.reopened
    changed = {"reopened": mark} if mark != item.reopened else {}
    if (state == "done") != (item.state == "done"):
        changed["items_done"] = 1 if state == "done" else -1
    return {"key": item.id, "state": state, "wanted": wanted, "done": done, "held": held, "free": free,
            "reopened": mark}, changed


def counts(item: Row[Any], turn: int) -> bool:
    """Whether an assignment takes one of the item's places: not gold, not a qualifying test, not a repeat."""
    return item.role == "task" and turn == 0


def let_go(tx: Connection, lease: Row[Any], why: str, now: datetime) -> None:
    """Ends a lease without an answer; the item's place becomes free for others. The draft stays."""
    event = events.add(tx, why, now, user_id=lease.user_id, project_id=lease.project_id, item_id=lease.item_id,
                       assignment_id=lease.id)
    set_assignment(tx, lease.id, state="expired")
    item = find_item(tx, lease.item_id)
    if counts(item, lease.turn):
        count(tx, item, held=-1, reopened=event)


def release_all(tx: Connection, user_id: int, now: datetime, project: int | None = None) -> int:
    """Gives back all that somebody holds, in one project or everywhere; returns how many."""
    query = select(assignments).where(assignments.c.user_id == user_id, assignments.c.state == "leased")
    held = tx.execute(query if project is None else query.where(assignments.c.project_id == project)).fetchall()
    for lease in held:
        let_go(tx, lease, "release", now)
    return len(held)


def unassign_all(tx: Connection, user_id: int, now: datetime, project: int | None = None) -> int:
    """Items that were for somebody who answers no more, in one project or everywhere, are for the others they name, or for
    everybody; returns how many."""
    name = f",{user_id},"
    query = select(items).where(items.c.assigned.contains(name, autoescape=True)).order_by(items.c.id)
    found = tx.execute(query if project is None else query.where(items.c.project_id == project)).fetchall()
    for item in found:
        left = item.assigned.replace(name, ",")
        rest = [int(number) for number in left.split(",") if number]
        event = events.add(tx, "item", now, project_id=item.project_id, item_id=item.id, body={"assigned": rest})
        tx.execute(update(items).where(items.c.id == item.id).values(assigned=left if rest else None))
        count(tx, item, reopened=event)
    return len(found)


def sweep(tx: Connection, project: int, now: datetime) -> int:
    """Takes back leases that ran out, the oldest first; returns how many."""
    overdue = _overdue.all(tx, project=project, now=stamp(now))
    for lease in overdue:
        let_go(tx, lease, "expire", now)
    return len(overdue)


def until(settings: Settings, now: datetime) -> str:
    return stamp(now + timedelta(minutes=settings.lease_minutes))


def renew(tx: Connection, user: User, assignment: int, now: datetime) -> dict[str, Any]:
    """Holds a task for longer, and every other task the caller holds in this project with it."""
    mine = _held(tx, user, assignment)
    expires = until(Settings.from_json(find_project(tx, mine.project_id).settings), now)
    tx.execute(update(assignments).where(assignments.c.user_id == user.id, assignments.c.project_id == mine.project_id,
                                         assignments.c.state == "leased").values(expires_at=expires))
    return {"expires_at": expires}


def save_draft(tx: Connection, user: User, assignment: int, draft: dict[str, Any], version: int,
               now: datetime) -> dict[str, Any]:
    """Keeps what is written so far. `version` is the one the caller last saw: a second window does not overwrite."""
    mine = _held(tx, user, assignment)
    if mine.draft_version != version:
        raise ApiError("draft_conflict", "This task was also changed in another window.",
                       "Reload to see that text; your own is still on this page.",
                       extra={"current": {"draft": mine.draft, "version": mine.draft_version}})
    expires = until(Settings.from_json(find_project(tx, mine.project_id).settings), now)
    set_assignment(tx, assignment, draft=draft, draft_version=version + 1, expires_at=expires)
    return {"version": version + 1, "expires_at": expires}


def leave(tx: Connection, user: User, project: int, now: datetime, keep: Collection[int] = ()) -> dict[str, Any]:
    """Gives back what the caller holds and has not begun; `keep` names what was begun and not saved yet."""
    visible_project(tx, user, project)
    released, kept = let_go_unbegun(tx, now, assignments.c.user_id == user.id, assignments.c.project_id == project, keep=keep)
    return {"released": released, "kept": kept}


def let_go_unbegun(tx: Connection, now: datetime, *where: ColumnElement[bool], keep: Collection[int] = ()) -> tuple[int, int]:
    """Gives back those of the held tasks `where` that were not begun; returns how many, and how many stay held."""
    held = tx.execute(select(assignments).where(assignments.c.state == "leased", *where)).fetchall()
    unbegun = [lease for lease in held if lease.draft is None and lease.id not in keep]
    for lease in unbegun:
        let_go(tx, lease, "release", now)
    return len(unbegun), len(held) - len(unbegun)


def _held(tx: Connection, user: User, assignment: int) -> Row[Any]:
    mine = my_assignment(tx, user, assignment)
    if mine.state == "leased":
        return mine
    if mine.state == "expired":
        return _take_up(tx, mine)
    raise ApiError("not_yours_now", "This task is answered or skipped already.", "Undo brings it back.")


def _take_up(tx: Connection, lease: Row[Any]) -> Row[Any]:
    """A lease that ran out is taken up again where a place is free; else it can only be sent in as it is."""
    item = find_item(tx, lease.item_id)
    if counts(item, lease.turn):
        if item.free == 0:
            raise ApiError("not_yours_now", "This task was given to somebody else meanwhile.",
                           "Submit it all the same: what you wrote is stored. Then go on with the next.")
        count(tx, item, held=1)
    set_assignment(tx, lease.id, state="leased")
    return lease
