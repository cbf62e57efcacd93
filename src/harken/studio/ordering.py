"""The line of a project in another order: first what an answer is expected to teach most, for each second it takes.

    found = weigh(db, project)            # {"items": [7, 3, …], "weighed": 2000}, the most instructive first
    reorder(tx, project, found["items"], now)

The same estimate as `harken next`: scores as a function of the texts' features, learnt from what this project's labelers
said (without answers yet, those items come first whose answers differ most), and what a ranking of all of an item's
answers would tell about them (`labelers.active_sets`, D-optimal, given those before it). A lead asks for it, as often as
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
from harken.labelers.asking.belief import Belief, belief_of_features
from harken.labelers.asking.features import TextFeatures
from harken.labelers.asking.pace import fit_pace
from harken.labelers.asking.sets import next_sets
from harken.labelers.models.likelihood import Floats
from harken.labelers.models.reliability import fit_reliability
from harken.labelers.votes import votes_of
from harken.store import events
from harken.store.database import Database
from harken.store.schema import prompts
from harken.store.studio_schema import items, members
from harken.studio.insight import load

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
        said = [s.judgment for s in load(tx, project)]
        asked = _line(tx, project)
    found = most_instructive(said, asked)
    return {"items": found, "weighed": len(asked)}


def _line(tx: Connection, project: int) -> list[Asked]:
    query = (select(items.c.id, items.c.body, prompts.c.body.label("asked")).join(prompts, items.c.prompt_key == prompts.c.key)
             .where(items.c.project_id == project, items.c.role == "task", items.c.free > 0)
             .order_by(items.c.position).limit(WINDOW))
    rows = [Asked(row.id, Prompt.from_json(row.asked), tuple(c["text"] for c in row.body["completions"]))
            for row in tx.execute(query)]
    return [row for row in rows if len(row.texts) > 1]


def most_instructive(said: Sequence[Judgment], asked: Sequence[Asked]) -> list[int]:
    """Up to `FRONT` items, the one first whose ranking teaches most for each second."""
    if not asked:
        return []
    votes = votes_of(said)
    questions = {j.prompt.id: _words(j.prompt) for j in said} | {a.prompt.id: _words(a.prompt) for a in asked}
    place = {key: n for n, key in enumerate(dict.fromkeys([*votes.items, *((a.prompt.id, t) for a in asked for t in a.texts)]))}
    owner = {name: n for n, name in enumerate(dict.fromkeys(p for p, _ in place))}
    prompt = np.array([owner[p] for p, _ in place])
    wording, texts = [questions[p] for p, _ in place], [t for _, t in place]
    phi = TextFeatures.fit(wording, texts, DIMENSIONS).of(wording, texts)
    belief = Belief(np.zeros(len(phi)), phi / np.sqrt(phi.shape[1]))
    if len(votes):
        new = np.array([place[key] for key in votes.items], dtype=np.int64)
        aligned = dataclasses.replace(votes, a=new[votes.a], b=new[votes.b], items=tuple(place), prompt=prompt)
        # All labelers alike: who will answer is open, and a line must not hang on a fit of reliabilities.
        belief = belief_of_features(fit_reliability(aligned, phi=phi, model="plain", draws=0), phi)
    groups = [np.array([place[a.prompt.id, t] for t in dict.fromkeys(a.texts)], dtype=np.int64) for a in asked]
    lengths, pace = np.array([len(t) for t in texts], dtype=np.float64), fit_pace(said)
    asking = np.array([len(w) for w in wording], dtype=np.float64)

    def seconds(some: Any) -> float:
        """Prompt and answers are read once; each answer beyond two takes a decision more."""
        read: Floats = pace.seconds(lengths[some].sum() + asking[some[0]])
        return float(read) + pace.fixed * (len(some) - 2)

    chosen = next_sets(belief, groups, seconds, FRONT, whole=True)
    return [asked[n].item for n in chosen.which]


def _words(prompt: Prompt) -> str:
    return "\n".join(m.content for m in prompt.messages)


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
    known = set(ahead)
    wanted = [*ahead, *(i for i in ids if i not in known)]
    moved = [{"key": i, "to": row.position} for i, row in zip(wanted, line) if i != row.id]
    if moved:
        tx.execute(update(items).where(items.c.id == bindparam("key")).values(position=bindparam("to")), moved)
    tx.execute(update(members).where(members.c.project_id == project).values(cursor=0))
    events.add(tx, "order", now, user_id=user_id, project_id=project, body={"first": ahead[:FRONT], "by_arrival": first is None})
    return len(moved)
