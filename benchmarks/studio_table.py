"""How long a lead's pages and the API's reads take in a project of 100,000 items, searches included.

    python benchmarks/studio_table.py [--quick] [--items 100000] [--answers 20000] [--json FILE]
    python benchmarks/studio_table.py --db postgresql://…/empty

Fills a database (SQLite unless told otherwise) with pairs, tags and sources, answers some of them as five labelers, who get a
thousand comments, and one of whom asks to be erased; then asks by HTTP for each page of the lead and for each read of the API,
three times each, the first one cold. Prints the slowest of each and the processor's seconds of the cheapest (the studio's own
and that of a database server on this machine), and one JSON line last. With --quick: 2,000 items and 200 answers,
to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import os
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


def fill(where: str, items: int, answered: int) -> int:
    """A project with that many items and answers; returns its number."""
    rng, now = random.Random(0), datetime.now(UTC)
    start = time.perf_counter()
    with open_database(where) as db:
        with db.link.writing() as tx:
            project = projects.create_project(tx, {"name": "large", "kind": "compare", "overlap": 2}, now)
            rows = ({"prompt": f"{words(rng, 20)} {i}", "tags": [f"t{i % 20}"], "completions": [
                {"text": f"{words(rng, 40)} {i}", "source": f"m{i % 4}"}, {"text": words(rng, 40), "source": f"m{(i + 1) % 4}"}]}
                for i in range(items))
            projects.add_items(tx, project, rows, now)
        print(f"{items:,} items added in {time.perf_counter() - start:.1f} s", flush=True)
        with db.link.writing() as tx:
            people = [accounts.add_user(tx, f"labeler {k}", None, "labeler", now) for k in range(5)]
        start = time.perf_counter()
        for at in range(0, answered, 1000):
            with db.link.writing() as tx:
                for n in range(at, min(at + 1000, answered)):
                    answer_one(tx, project, people[n % len(people)], rng, now)
        print(f"{answered:,} answers in {time.perf_counter() - start:.1f} s", flush=True)
        with db.link.writing() as tx:
            remark(tx, people, now)
    return project


def answer_one(tx: Connection, project: int, person: accounts.User, rng: random.Random, now: datetime) -> None:
    (task,) = claims.next_tasks(tx, person, project, 1, [], now)["tasks"]
    said = {"client_id": str(uuid.uuid4()), "answer": {"preference": rng.randint(-3, 3), "notes": words(rng, 3)}, "seconds": 5.0,
            "form_version": task["form_version"], "instruction_hash": task["instruction_hash"]}
    answers.submit(tx, person, task["assignment"], said, now)


def remark(tx: Connection, people: list[accounts.User], now: datetime) -> None:
    """Comments on answered items, two hundred of them on one; and somebody's request to be erased."""
    lead = accounts.add_user(tx, "commenting lead", None, "lead", now)
    had = tx.execute(select(assignments.c.item_id, assignments.c.user_id).order_by(assignments.c.id).limit(800)).all()
    for item, user in [*had, *[had[0]] * 200]:
        add_comment(tx, item, user, lead, "Please say why, in a few words.", now)
    events.add(tx, "erasure_request", now, user_id=people[0].id)


def pages(project: int, items: int, answered: int) -> dict[str, str]:
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
        "who won": f"{base}/models",
        "who won, one tag": f"{base}/models?tag=t7",
        "my answers": f"/label/{project}/answers",
        "my account": "/account",
        "settings": f"{base}/settings",
        "people": "/lead/people",
        **{f"GET {path}": path for path in reads(f"/api/projects/{project}", items, answered)},
    }


def reads(base: str, items: int, answered: int) -> list[str]:
    """Reads of the API, from their beginning and far along."""
    found = ["q=harvest+7", "q=compost", "q=nothing", "q=%E7%A7%8D", "tag=t7", "source=m2", "labeler=labeler+2", "state=done",
             "sort=-skips", "from=2026-01-01", f"page={items // 100}"]
    said = ["q=mulch", "q=nothing+such", "labeler=labeler+2", "state=open", "source=m2", "sort=seconds",
            f"page={answered // 100}"]
    return [base, "/api/projects", "/api/users", "/api/erasures", "/api/snapshots", "/api/invitations", "/api/webhooks",
            "/api/items/1", "/api/items/1/comments", "/api/events?limit=500", f"/api/events?limit=500&after={answered}",
            *(f"{base}/{what}" for what in ("held", "instructions", "progress", "crowds", "models", "history", "mine")),
            f"{base}/items?limit=500", f"{base}/items?limit=500&after={items // 2}", f"{base}/items?state=done&limit=500",
            f"{base}/items?state=flagged", f"{base}/judgments?limit=500", f"{base}/judgments?limit=500&after={answered // 2}",
            *(f"{base}/find?{query}" for query in found), *(f"{base}/answers?{query}" for query in said)]


def spent(pids: list[int]) -> float:
    """Processor seconds so far of this process and of those."""
    total = time.process_time()
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # a connection that was closed meanwhile
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def measure(where: str, project: int, items: int, answered: int) -> dict[str, list[tuple[float, float]]]:
    """Of each page the seconds and the processor's seconds, three times."""
    import uvicorn

    studio = Studio(
        open_database(where), single_user=False, limits=Limits(calls=10**6, call_burst=10**6, logins=100, login_burst=100)
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
    taken: dict[str, list[tuple[float, float]]] = {}
    for name, address in pages(project, items, answered).items():
        for _ in range(3):
            request = urllib.request.Request(f"http://127.0.0.1:{listening.getsockname()[1]}{address}",
                                             headers={"Cookie": f"harken_session={secret}"})
            pids = backends(studio)
            start, before = time.perf_counter(), spent(pids)
            with urllib.request.urlopen(request, timeout=120) as answer:
                answer.read()
            taken.setdefault(name, []).append((time.perf_counter() - start, spent(pids) - before))
    server.should_exit = True
    thread.join(10)
    studio.close()
    return taken


def backends(studio: Studio) -> list[int]:
    """Processes of a database server on this machine."""
    if studio.db.link.engine.dialect.name == "sqlite":
        return []
    with studio.db.link.reading() as tx:
        pids = tx.scalars(text("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")).all()
    return [pid for pid in pids if Path(f"/proc/{pid}/stat").exists()]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2,000 items and 200 answers")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--db", metavar="URL", help="an empty database to fill, instead of a SQLite file")
    parser.add_argument("--json", metavar="FILE", help="write the seconds there too")
    args = parser.parse_args()
    items, answered = (2_000, 200) if args.quick else (args.items, args.answers)
    with tempfile.TemporaryDirectory() as folder:
        where = args.db or str(Path(folder) / "f.db")
        project = fill(where, items, answered)
        with open_database(where) as db, db.link.writing() as tx:
            tx.execute(text("ANALYZE"))
        taken = measure(where, project, items, answered)
    slowest = {name: max(seconds for seconds, _ in times) for name, times in taken.items()}
    work = {name: min(cpu for _, cpu in times) for name, times in taken.items()}
    for name in taken:
        print(f"{name:60} {slowest[name]:6.3f} s  {work[name]:6.3f} s of CPU{'   OVER' if slowest[name] > BOUND else ''}")
    rows: Any = {"items": items, "answers": answered, "seconds": slowest, "cpu_seconds": work}
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    most = max(work, key=lambda name: work[name])
    print(json.dumps({"items": items, "answers": answered, "read": len(taken), "over": sum(s > BOUND for s in slowest.values()),
                      "slowest_s": round(max(slowest.values()), 3), "most_cpu_s": round(work[most], 3), "most_cpu": most}))
    return int(max(slowest.values()) > BOUND)


if __name__ == "__main__":
    sys.exit(main())
