"""How long a lead's pages take in a project of 100,000 items, searches included.

    python benchmarks/studio_table.py [--quick] [--items 100000] [--answers 20000] [--json FILE]

Fills a SQLite database with pairs, tags and sources, answers some of them as five labelers, who get a thousand comments, and one
of whom asks to be erased; then asks for each page of the lead by HTTP, and for what the newer ones read by API, three times each,
the first one cold. Prints the slowest of each. With --quick: 2,000 items and 200 answers, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, text

from harken.store import events
from harken.store.database import open_database
from harken.store.studio_schema import assignments
from harken.studio.app import Studio, create_app
from harken.studio.work import answers, claims, projects
from harken.studio.work.remarks import add_comment
from harken.web import accounts
from harken.web.limits import Limits

WORDS = ["bean", "soil", "frost", "water", "seed", "garden", "spring", "leaf", "root", "rain", "sun", "shade", "row", "stake",
         "vine", "pod", "harvest", "compost", "mulch", "trowel", "Bohne", "Erde", "Frühling", "сад", "огород",
         "种子", "春天", "حديقة", "بذور"]
BOUND = 1.0
"""Seconds that no page may take."""


def words(rng: random.Random, n: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(n))


def fill(path: Path, items: int, answered: int) -> int:
    """A project with that many items and answers; returns its number."""
    rng, now = random.Random(0), datetime.now(UTC)
    start = time.perf_counter()
    with open_database(path) as db:
        with db.link.writing() as tx:
            project = projects.create_project(tx, {"name": "large", "kind": "compare", "overlap": 2}, now)
            rows = ({"prompt": f"{words(rng, 20)} {i}", "tags": [f"t{i % 20}"], "completions": [
                {"text": f"{words(rng, 40)} {i}", "source": f"m{i % 4}"}, {"text": words(rng, 40), "source": f"m{(i + 1) % 4}"}]}
                for i in range(items))
            projects.add_items(tx, project, rows, now)
        print(f"{items:,} items added in {time.perf_counter() - start:.1f} s, {path.stat().st_size >> 20} MB", flush=True)
        with db.link.writing() as tx:
            people = [accounts.add_user(tx, f"labeler {k}", None, "labeler", now) for k in range(5)]
        start = time.perf_counter()
        with db.link.writing() as tx:
            for n in range(answered):
                person = people[n % len(people)]
                (task,) = claims.next_tasks(tx, person, project, 1, [], now)["tasks"]
                said = {"client_id": str(uuid.uuid4()), "answer": {"preference": rng.randint(-3, 3), "notes": words(rng, 3)},
                        "seconds": 5.0, "form_version": task["form_version"], "instruction_hash": task["instruction_hash"]}
                answers.submit(tx, person, task["assignment"], said, now)
        print(f"{answered:,} answers in {time.perf_counter() - start:.1f} s", flush=True)
        with db.link.writing() as tx:
            remark(tx, people, now)
    return project


def remark(tx: Connection, people: list[accounts.User], now: datetime) -> None:
    """Comments on answered items, two hundred of them on one; and somebody's request to be erased."""
    lead = accounts.add_user(tx, "commenting lead", None, "lead", now)
    had = tx.execute(select(assignments.c.item_id, assignments.c.user_id).order_by(assignments.c.id).limit(800)).all()
    for item, user in [*had, *[had[0]] * 200]:
        add_comment(tx, item, user, lead, "Please say why, in a few words.", now)
    events.add(tx, "erasure_request", now, user_id=people[0].id)


def pages(project: int, items: int) -> dict[str, str]:
    base, last = f"/lead/projects/{project}", -(-items // 100)
    return {
        "projects": "/",
        "overview": base,
        "items": f"{base}/items",
        "items, last page": f"{base}/items?page={last}",
        "search: a rare word": f"{base}/items?q=harvest+{items // 2}",
        "search: a common word": f"{base}/items?q=compost",
        "search: two letters": f"{base}/items?q=%E7%A7%8D",
        "search: nothing": f"{base}/items?q=nothing+such",
        "tag": f"{base}/items?tag=t7",
        "source": f"{base}/items?source=m2",
        "labeler": f"{base}/items?labeler=labeler+2",
        "state": f"{base}/items?list=done",
        "most skips": f"{base}/items?sort=-skips",
        "answered": f"{base}/items?list=answered",
        "disagreement": f"{base}/items?sort=disagreement",
        "dates": f"{base}/items?from=2026-01-01&to=2030-01-01",
        "answers": f"{base}/answers",
        "answers of one": f"{base}/answers?labeler=labeler+2",
        "answers, not looked at": f"{base}/answers?state=open",
        "answers: words": f"{base}/answers?q=mulch",
        "answers: no such words": f"{base}/answers?q=nothing+such",
        "an item": f"/lead/items/{items // 2}",
        "an item with comments": "/lead/items/1",
        "its comments (API)": "/api/items/1/comments",
        "who won": f"{base}/models",
        "who won, one tag": f"{base}/models?tag=t7",
        "asked to be erased (API)": "/api/erasures",
        "who holds what (API)": f"/api/projects/{project}/held",
        "my answers": f"/label/{project}/answers",
        "my account": "/account",
        "settings": f"{base}/settings",
        "people": "/lead/people",
    }


def measure(path: Path, project: int, items: int) -> dict[str, list[float]]:
    import uvicorn

    studio = Studio(
        open_database(path), single_user=False, limits=Limits(calls=10**6, call_burst=10**6, logins=100, login_burst=100)
    )
    with studio.db.link.writing() as tx:
        now = datetime.now(UTC)
        lead = accounts.add_user(tx, "lead", accounts.hash_password("correct horse battery"), "lead", now)
        secret, _ = accounts.start_session(tx, lead, now)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(studio), log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    taken: dict[str, list[float]] = {}
    for name, address in pages(project, items).items():
        for _ in range(3):
            request = urllib.request.Request(f"http://127.0.0.1:{listening.getsockname()[1]}{address}",
                                             headers={"Cookie": f"harken_session={secret}"})
            start = time.perf_counter()
            with urllib.request.urlopen(request, timeout=120) as answer:
                answer.read()
            taken.setdefault(name, []).append(time.perf_counter() - start)
    server.should_exit = True
    thread.join(10)
    studio.close()
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2,000 items and 200 answers")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--json", metavar="FILE", help="write the seconds there too")
    args = parser.parse_args()
    items, answered = (2_000, 200) if args.quick else (args.items, args.answers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.db"
        project = fill(path, items, answered)
        with open_database(path) as db, db.link.writing() as tx:
            tx.execute(text("ANALYZE"))
        taken = measure(path, project, items)
    for name, seconds in taken.items():
        print(f"{name:24} {max(seconds):6.3f} s  (then {min(seconds[1:]):.3f}){'   OVER' if max(seconds) > BOUND else ''}")
    if args.json:
        rows: Any = {"items": items, "answers": answered, "seconds": taken}
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(max(map(max, taken.values())) > BOUND)


if __name__ == "__main__":
    sys.exit(main())
