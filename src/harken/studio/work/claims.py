"""Which tasks a labeler gets next.

    answer = next_tasks(tx, user, project, count=3, have=[11, 12], now=now)
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select

from harken.store.prepared import Prepared
from harken.store.studio_schema import assignments, grades, items
from harken.studio.tasks import TASKS
from harken.studio.work.leases import set_assignment, sweep, taken_out, until
from harken.studio.work.line import Line, task_json, with_prompt
from harken.studio.work.quality import qualifies
from harken.web.accounts import User

MAX_HELD = 10
RETRY_SECONDS = 15
SWEEP_EVERY = 8
"""Leases that ran out are taken back at each so many claims of a labeler, and whenever there is nothing else to give."""
_mine = Prepared(
    select(assignments).where(assignments.c.user_id == bindparam("user"), assignments.c.project_id == bindparam("project"),
                              assignments.c.state == "leased").order_by(assignments.c.id))


def next_tasks(tx: Connection, user: User, project: int, wanted: int, have: Sequence[int], now: datetime) -> dict[str, Any]:
    """Up to `wanted` tasks: first those the caller holds and has lost sight of (not in `have`), then new ones."""
    return more_tasks(Line.enter(tx, project, user, now), wanted, have)


def more_tasks(line: Line, wanted: int, have: Sequence[int]) -> dict[str, Any]:
    """`next_tasks` for a line that was read already; writes it."""
    project, now = line.project.id, line.now
    if line.at["state"] == "removed":
        raise taken_out()
    if line.at["served"] % SWEEP_EVERY == 0 and sweep(line.tx, project, now):
        line.refresh()
    tasks = _lost(line, wanted, have) if line.held - set(have) else []
    status, held = "ok", len(line.held)
    while len(tasks) < wanted and held < MAX_HELD:
        status = _stopped(line, held)
        task = line.claim() if status == "ok" else None
        if task is None:
            if line.at["state"] == "screening" and held == 0 and decide(line):
                continue
            if status == "ok" and sweep(line.tx, project, now):
                line.refresh()
                continue
            status = status if status != "ok" else _nothing(line, held)
            break
        tasks.append(task)
        held += 1
    line.save()
    return {"tasks": tasks, "status": status if not tasks else "ok",
            "retry_after": RETRY_SECONDS if not tasks and status in ("empty", "waiting") else None,
            "progress": {"done_by_me": line.at["done"], "open": line.open_for_me}}


def _lost(line: Line, wanted: int, have: Sequence[int]) -> list[dict[str, Any]]:
    """The tasks that the caller holds and has lost sight of, held anew."""
    tasks, expires = [], until(line.settings, line.now)
    mine = _mine.all(line.tx, user=line.user.id, project=line.project.id)
    for lease in [m for m in mine if m.id not in set(have)][:wanted]:
        set_assignment(line.tx, lease.id, expires_at=expires)
        item = line.tx.execute(with_prompt.where(items.c.id == lease.item_id)).first()
        tasks.append(task_json(line.project, {**lease._asdict(), "expires_at": expires}, item))
    return tasks


def _stopped(line: Line, held: int) -> str:
    if line.project.status != "open":
        return "paused" if line.project.status == "paused" else "finished"
    if line.at["state"] in ("waiting", "not_qualified"):
        return str(line.at["state"])
    limit = line.settings.daily_limit
    return "limit" if limit is not None and line.at["today"] + held >= limit else "ok"


def _nothing(line: Line, held: int) -> str:
    """Why there is no task: the test is not graded or failed, all is done, this labeler has answered all that they may, or
    others hold the rest."""
    line.ahead = held - len(line.held)  # those handed out just now
    if line.at["state"] in ("screening", "waiting", "not_qualified"):
        return "not_qualified" if line.at["state"] == "not_qualified" else "waiting"
    if line.project.items_done >= line.project.items_total:
        return "finished"
    if line.at["limited"]:
        return "limit"
    return "empty" if held or line.others_hold() else "answered"


def decide(line: Line) -> bool:
    """Ends a qualifying test whose questions are all answered: qualified, not, or waiting for demonstrations' grades.

    Returns whether the labeler may go on to the project's tasks.
    """
    query = (select(assignments.c.judgment_seq, items.c.kind, grades.c.score)
             .join(items, assignments.c.item_id == items.c.id)
             .outerjoin(grades, grades.c.judgment_seq == assignments.c.judgment_seq)
             .where(assignments.c.user_id == line.user.id, assignments.c.project_id == line.project.id,
                    items.c.role == "qualify", assignments.c.state == "submitted"))
    answered = line.tx.execute(query).fetchall()
    if not answered:
        return False
    written = [row.score for row in answered if TASKS[row.kind].record == "demonstration"]
    if any(score is None for score in written):
        line.at["state"] = "waiting"
    else:
        passed = qualifies(line.at["score"], written, line.settings.qualification or {})
        line.at["state"] = "qualified" if passed else "not_qualified"
    return bool(line.at["state"] == "qualified")
