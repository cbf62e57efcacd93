"""The line of a project in another order: first what an answer is expected to teach most, for each second it takes.

    order = weigh(db, project)            # {"items": [7, 3, …], "weighed": 2000}, the most instructive first
    reorder(tx, project, order["items"], now)

The same estimate as `harken next`: scores as a function of the texts' features, learnt from what this project's labelers
said (without answers yet, those items come first whose answers differ most), and what a ranking of all of an item's
answers would tell about them (`labelers.asking.sets`, D-optimal, given those before it). A lead asks for it, as often as
they like: nobody is kept waiting by it, and the order that labelers get never depends on when a model was fitted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, bindparam, select, update

from harken.core.records import Judgment, Prompt
from harken.labelers.asking.choose import Pool, belief_of, words
from harken.labelers.asking.pace import fit_pace
from harken.labelers.asking.sets import next_sets
from harken.labelers.models.reliability import fit_reliability
from harken.labelers.votes import votes_of
from harken.store import events
from harken.store.database import Database
from harken.store.schema import prompts
from harken.store.studio_schema import items, members
from harken.studio.work.stored import load

WINDOW = 2000
"""Items at the head of the line that are weighed."""
FRONT = 200
"""Of these, how many are put first: more answers should be in before the rest is decided."""
DIMENSIONS = 32


@dataclasses.dataclass(frozen=True)
class Asked:
    """An item of the line: its prompt, and the answers to be ranked."""

    item: int
    prompt: Prompt
    texts: tuple[str, ...]


def weigh(db: Database, project: int) -> dict[str, Any]:
    """The items to ask first. Seconds of one core: call it beside the writer."""
    with db.link.reading() as tx:
        judgments = [answer.judgment for answer in load(tx, project)]
        asked = _line(tx, project)
    return {"items": most_instructive(judgments, asked), "weighed": len(asked)}


def _line(tx: Connection, project: int) -> list[Asked]:
    query = (select(items.c.id, items.c.body, prompts.c.body.label("asked")).join(prompts, items.c.prompt_key == prompts.c.key)
             .where(items.c.project_id == project, items.c.role == "task", items.c.free > 0)
             .order_by(items.c.position).limit(WINDOW))
    rows = [Asked(row.id, Prompt.from_json(row.asked), tuple(c["text"] for c in row.body["completions"]))
            for row in tx.execute(query)]
    return [row for row in rows if len(row.texts) > 1]


def most_instructive(judgments: Sequence[Judgment], asked: Sequence[Asked]) -> list[int]:
    """Up to `FRONT` items, the one first whose ranking teaches most for each second."""
    if not asked:
        return []
    votes = votes_of(judgments)
    answers = [*votes.items, *((a.prompt.id, text) for a in asked for text in a.texts)]
    questions = [*(judgment.prompt for judgment in judgments), *(a.prompt for a in asked)]
    pool = Pool(answers, {prompt.id: words(prompt) for prompt in questions}, fit_pace(judgments))
    phi = pool.features(DIMENSIONS)
    # All labelers alike: who will answer is open, and a line must not hang on a fit of reliabilities.
    fitted = fit_reliability(pool.aligned(votes), phi=phi, model="plain", draws=0) if len(votes) else None
    groups = [np.array([pool.item[a.prompt.id, text] for text in dict.fromkeys(a.texts)], dtype=np.int64) for a in asked]
    chosen = next_sets(belief_of(fitted, phi), groups, pool.seconds, FRONT, whole=True)
    return [asked[n].item for n in chosen.which]


def reorder(tx: Connection, project: int, first: Sequence[int] | None, now: datetime, user_id: int | None = None) -> int:
    """Puts these items of the line's head before all others that are open, in this order; None: all in the order of arrival.

    Returns how many moved. Everybody's line is walked anew, so that what moved ahead of somebody is not missed.
    """
    query = (select(items.c.id, items.c.position).where(items.c.project_id == project, items.c.role == "task", items.c.free > 0)
             .order_by(items.c.position))
    line = tx.execute(query if first is None else query.limit(2 * WINDOW)).fetchall()
    ids = [row.id for row in line]
    there = set(ids)
    ahead = sorted(ids) if first is None else [i for i in first if i in there]
    first_ids = set(ahead)
    wanted = [*ahead, *(i for i in ids if i not in first_ids)]
    moved = [{"key": i, "to": row.position} for i, row in zip(wanted, line) if i != row.id]
    if moved:
        tx.execute(update(items).where(items.c.id == bindparam("key")).values(position=bindparam("to")), moved)
    tx.execute(update(members).where(members.c.project_id == project).values(cursor=0))
    events.add(tx, "order", now, user_id=user_id, project_id=project, body={"first": ahead[:FRONT], "by_arrival": first is None})
    return len(moved)
