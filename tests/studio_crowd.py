"""Simulated labelers who answer a rate-and-rank project through the studio's own operations."""

import random
import uuid
from datetime import UTC, datetime, timedelta

FLAGS = {"hallucination": None}


def rating(form, overall, quality):
    flags = {f["name"]: None if f["only"] else False for f in form["rating"]["flags"]}
    flags["fails_task"] = quality < -1
    return {"overall": overall, "flags": flags}


def answer(form, seen, person, rng):
    """`person`: noise, first (what the place shown first gains), and guesses (share of answers given blindly)."""
    blind = rng.random() < person.get("guesses", 0)
    felt = [
        (0 if blind else q) + rng.gauss(0, person.get("noise", 0.5)) + person.get("first", 0) * (len(seen) - 1 - place)
        for place, q in enumerate(seen)
    ]
    steps = [round(f / 0.7) for f in felt]
    order = sorted(set(steps), reverse=True)
    ratings = [rating(form, min(7, max(1, round(4 + 1.3 * f))), q) for f, q in zip(felt, seen)]
    return {"ratings": ratings, "ranks": [order.index(s) + 1 for s in steps]}


def crowd(studio, project, people, quality, most, *, seed=0, hours=30):
    """People {name: faults} take turns until nothing is open. `quality(text)` is the true worth of a completion."""
    from sqlalchemy import select

    from harken.store.studio_schema import forms, projects, users
    from harken.studio.work import answers, claims
    from harken.web import accounts

    rng = random.Random(seed)
    start = datetime.now(UTC) - timedelta(hours=hours)

    def work(tx):
        version = tx.execute(select(projects.c.form_version).where(projects.c.id == project)).scalar()
        form = tx.execute(select(forms.c.body).where(forms.c.version == version)).scalar()
        team = []
        for name in people:
            accounts.add_user(tx, name, None, "labeler", start, group={"age": rng.choice(["18-29", "30-39"])})
            team.append(accounts.as_user(tx.execute(select(users).where(users.c.name == name)).one()))
        given, open_ = 0, list(team)
        while open_ and given < most:
            user = rng.choice(open_)
            now = start + timedelta(hours=hours * min(1, given / most))
            found = claims.next_tasks(tx, user, project, 1, [], now)["tasks"]
            if not found:
                open_.remove(user)
                continue
            (task,) = found
            seen = [quality(text) for text in task["completions"]]
            said = {
                "client_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
                "seconds": round(rng.lognormvariate(3.4, 0.5), 1),
                "answer": answer(form, seen, people[user.name], rng),
                "form_version": task["form_version"],
                "instruction_hash": task["instruction_hash"],
            }
            answers.submit(tx, user, task["assignment"], said, now)
            given += 1
        return given

    return studio.writer.submit(work).result()
