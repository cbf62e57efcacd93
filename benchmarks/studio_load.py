"""How many answers a second the studio takes, and how long a labeler waits for the next item.

    python benchmarks/studio_load.py                            32 labelers, 10,000 items, overlap 2
    python benchmarks/studio_load.py --db postgresql://…/empty  the same on PostgreSQL

Starts `harken studio` on loopback, invites the labelers, who make accounts and log in, and lets them rate and rank four
answers to each prompt through the API, each with two tasks fetched ahead like the pages do. First as fast as they can
(`submits_per_s`), then at a steady pace (`next_p95_ms`: from sending an answer to holding the next task, in one round trip).
Then it counts in the database: every acknowledged answer is there once, no item is over or under its overlap.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from harken.studio.client import Client

PROCESSES = 4
PASSWORD = "correct horse battery"


def start(db: str, folder: Path) -> tuple[subprocess.Popen[str], str]:
    """The server process and its address; the first account is made before."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1] / "src"), os.environ.get("PYTHONPATH", "")])}
    harken = [sys.executable, "-m", "harken"]
    (folder / "password").touch(0o600)
    (folder / "password").write_text(PASSWORD)
    subprocess.run([*harken, "users", "add", "lead", "--role", "lead", "--db", db, "--password-file", str(folder / "password")],
                   check=True, stdout=subprocess.DEVNULL, env=env)
    server = subprocess.Popen([*harken, "studio", "--db", db, "--port", "0"], stdout=subprocess.PIPE, text=True, env=env)
    assert server.stdout is not None
    return server, server.stdout.readline().split()[-1]


def prepare(url: str, items: int, labelers: int) -> tuple[int, list[str]]:
    """A project with its items; one account a labeler. Returns the project and their names."""
    lead = Client(url)
    lead.login("lead", PASSWORD)
    project = lead.create_project("load", "rate_and_rank", overlap=2)["id"]
    rng = random.Random(0)
    words = ["the", "answer", "says", "that", "people", "who", "ask", "want", "it", "short", "clear", "kind", "true"]

    def text(n: int) -> str:
        return " ".join(rng.choice(words) for _ in range(n))

    lead.add_items(project, ({"prompt": f"{i}: {text(20)}?", "completions": [text(40) for _ in range(4)]} for i in range(items)))
    token = lead.call("POST", "/api/invitations", {"role": "labeler", "projects": [project], "uses": labelers})["token"]
    names = [f"labeler-{n}" for n in range(labelers)]
    for name in names:
        Client(url).join(token, name, PASSWORD)
        time.sleep(0.05)
    return project, names


def label(url: str, project: int, name: str, flags: list[dict], seconds: float, pause: float, gate, out: list) -> None:
    """One labeler: logs in, waits for the others, then answers for some seconds, one task every `pause` seconds.

    Appends when it began and ended, and for each answer (client id, seconds waited)."""
    client = Client(url)
    client.login(name, PASSWORD)
    rng = random.Random(name)
    gate.wait()
    out.append(time.time())
    deadline = time.time() + seconds
    held = client.next(project, 2)["tasks"]
    due = time.monotonic() + rng.random() * pause
    while held and time.time() < deadline:
        if pause:
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic() - pause) + pause
        task = held.pop(0)
        ratings = [{"overall": rng.randint(1, 7), "flags": {f["name"]: None if f["only"] else rng.random() < 0.1 for f in flags}}
                   for _ in task["completions"]]
        answer = {"ratings": ratings, "ranks": [rng.randint(1, 4) for _ in ratings]}
        client_id, started = str(uuid.uuid4()), time.perf_counter()
        receipt = client.submit(task, answer, seconds=12.5, client_id=client_id, ahead=[t["assignment"] for t in held])
        out.append((client_id, time.perf_counter() - started))
        held += receipt["next"]["tasks"]
        while not held and receipt["next"]["status"] == "empty" and time.time() < deadline:
            time.sleep(0.05)
            receipt = {"next": client.next(project, 2)}
            held += receipt["next"]["tasks"]
    out.append(time.time())
    client.call("POST", f"/api/projects/{project}/leave", {})


def crew(url: str, project: int, names: list[str], flags: list[dict], seconds: float, pause: float, gate, pipe) -> None:
    """One process of several labelers, a thread each."""
    outs: list[list] = [[] for _ in names]
    threads = [threading.Thread(target=label, args=(url, project, name, flags, seconds, pause, gate, out))
               for name, out in zip(names, outs, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pipe.send(outs)


def phase(url: str, project: int, names: list[str], flags: list[dict], seconds: float, rate: float) -> tuple[float, list]:
    """All labelers at once, `rate` answers a second in all (0: no pause). Returns the seconds and [(client id, waited)]."""
    pipes, workers, gate = [], [], multiprocessing.Barrier(len(names))
    for n in range(PROCESSES):
        here, there = multiprocessing.Pipe()
        pause = len(names) / rate if rate else 0.0
        workers.append(multiprocessing.Process(target=crew, args=(
            url, project, names[n::PROCESSES], flags, seconds, pause, gate, there)))
        pipes.append(here)
    for worker in workers:
        worker.start()
    outs = [out for pipe in pipes for out in pipe.recv()]
    for worker in workers:
        worker.join()
    times = [one for out in outs for one in out if isinstance(one, float)]
    return max(times) - min(times), [one for out in outs for one in out if not isinstance(one, float)]


def count(db: str, project: int, acknowledged: list[str]) -> dict[str, int]:
    """What the database holds, against what the labelers were told."""
    from sqlalchemy import func, select

    from harken.store.database import open_database
    from harken.store.schema import judgments
    from harken.store.studio_schema import items
    with open_database(db) as opened, opened.link.reading() as tx:
        stored = list(tx.scalars(select(judgments.c.client_id).where(judgments.c.item_id.is_not(None))))
        c, real = items.c, judgments.c.role.is_(None)
        each = select(judgments.c.item_id, func.count().label("n")).where(real).group_by(judgments.c.item_id).subquery()
        n = func.coalesce(each.c.n, 0)
        own = select(func.count().filter(n > c.wanted), func.count().filter(n < c.wanted), func.count().filter(n != c.done),
                     func.sum(c.held)).select_from(items.outerjoin(each, each.c.item_id == c.id)).where(c.project_id == project)
        over, under, wrong, held = tx.execute(own).one()
    return {"stored": len(stored), "lost": len(set(acknowledged) - set(stored)), "duplicated": len(stored) - len(set(stored)),
            "over_overlap": over or 0, "under_overlap": under or 0, "miscounted": wrong or 0, "held": held or 0}


def cpu_seconds(pid: int) -> float:
    """Processor time of the server so far: what a busy machine cannot disturb much."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def p(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", help="an empty database (default: a temporary SQLite file)")
    parser.add_argument("--labelers", type=int, default=32)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--pace", type=float, default=220, help="answers a second in the steady phase")
    parser.add_argument("--steady", type=float, default=30, help="seconds of the steady phase")
    parser.add_argument("--seconds", type=float, default=300, help="the longest that the fast phase may take")
    parser.add_argument("--quick", action="store_true", help="1,000 items, a few seconds each phase")
    args = parser.parse_args()
    if args.quick:
        args.items, args.steady, args.seconds = 1500, 5, 30
    with tempfile.TemporaryDirectory() as folder:
        db = args.db or str(Path(folder) / "load.db")
        server, url = start(db, Path(folder))
        try:
            project, names = prepare(url, args.items, args.labelers)
            lead = Client(url)
            lead.login("lead", PASSWORD)
            flags = lead.call("GET", f"/api/projects/{project}")["form"]["rating"]["flags"]
            before = cpu_seconds(server.pid)
            took, steady = phase(url, project, names, flags, args.steady, args.pace)
            steady_rate = len(steady) / took
            took, fast = phase(url, project, names, flags, args.seconds, 0)
            spent = cpu_seconds(server.pid) - before
            memory = next(int(line.split()[1]) // 1024 for line in Path(f"/proc/{server.pid}/status").read_text().splitlines()
                          if line.startswith("VmHWM"))
        finally:
            server.terminate()
            server.wait()
        found = count(db, project, [one for one, _ in steady + fast])
    print(json.dumps({"labelers": args.labelers, "items": args.items, "overlap": 2,
                      "database": "postgresql" if args.db else "sqlite",
                      "submits_per_s": round(len(fast) / took, 1), "submits": len(fast),
                      "fast_p50_ms": p([w for _, w in fast], 0.5),
                      "fast_p95_ms": p([w for _, w in fast], 0.95), "steady_per_s": round(steady_rate, 1),
                      "next_p50_ms": p([w for _, w in steady], 0.5), "next_p95_ms": p([w for _, w in steady], 0.95),
                      "next_p99_ms": p([w for _, w in steady], 0.99), "server_peak_mb": memory,
                      "server_cpu_ms_per_submit": round(1000 * spent / max(1, len(steady + fast)), 2),
                      "load_average": os.getloadavg()[0], **found}))


if __name__ == "__main__":
    main()
