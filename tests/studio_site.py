"""What the studio's tests share: a database of either kind, a clock that jumps, a site served in a thread, answers."""

import atexit
import contextlib
import dataclasses
import functools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, text

from harken.store.database import open_database
from harken.studio.client import Client
from harken.studio.tasks.rate_and_rank import FLAGS
from harken.studio.work import answers, claims, projects
from harken.web import accounts
from harken.web.limits import Limits

SOURCE = Path(__file__).parents[1] / "src"
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
PASSWORD = "correct horse battery"
START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def fast(db):
    """Tests that kill nothing need not wait for the disk."""
    event.listen(db.link.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    db.link.engine.dispose()
    return db


@contextlib.contextmanager
def postgres_server():
    """A PostgreSQL server of its own, in a temporary folder, never as root; its address."""
    if not POSTGRES:
        pytest.skip("no PostgreSQL server is installed: apt-get install postgresql")
    pytest.importorskip("psycopg")
    who = {"user": "postgres"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="harken-pg-"))
    if who:
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **who}
    subprocess.run([POSTGRES[-1] / "initdb", "-D", folder / "data", "-A", "trust", "-U", "harken", "-E", "UTF8"], check=True,
                   **quiet)
    server = subprocess.Popen([POSTGRES[-1] / "postgres", "-D", folder / "data", "-p", str(port), "-c",
                               "listen_addresses=127.0.0.1",
                               "-c", "unix_socket_directories=", "-c", "max_connections=60"], **quiet)
    address = f"postgresql://harken@127.0.0.1:{port}"
    try:
        engine = create_engine(f"{address}/postgres".replace("://", "+psycopg://"), isolation_level="AUTOCOMMIT")
        for _ in range(100):
            with contextlib.suppress(Exception), engine.connect():
                break
            time.sleep(0.1)
        yield address, engine
        engine.dispose()
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def empty_postgres(server):
    address, engine = server
    name = f"t{uuid.uuid4().hex[:12]}"
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield f"{address}/{name}"
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now

    def pass_(self, **time):
        self.now += timedelta(**time)


class Desk:
    """The queue without HTTP: labelers at a project, each call one transaction."""

    def __init__(self, db, *, kind="compare", n=6, k=2, **settings):
        self.db, self.clock = db, Clock()
        self.people = {}
        with db.link.writing() as tx:
            self.project = projects.create_project(tx, {"name": f"p{uuid.uuid4().hex[:8]}", "kind": kind, **settings},
                                                   self.clock())
        self.add([{"prompt": f"question {i}", "completions": [f"answer {i} {c}" for c in range(k)]} for i in range(n)])

    def add(self, items):
        with self.db.link.writing() as tx:
            return projects.add_items(tx, self.project, items, self.clock())

    def person(self, name, role="labeler", **more):
        if name not in self.people:
            with self.db.link.writing() as tx:
                self.people[name] = accounts.add_user(tx, name, None, role, self.clock(), **more)
        return self.people[name]

    def next(self, name, count=1, have=()):
        user = self.person(name)
        with self.db.link.writing() as tx:
            row = tx.execute(text("SELECT hidden FROM users WHERE id = :i"), {"i": user.id}).scalar()
            hidden = tuple(json.loads(row) if isinstance(row, str) else row)
            user = self.people[name] = dataclasses.replace(user, hidden=hidden)
            return claims.next_tasks(tx, user, self.project, count, list(have), self.clock())

    def claim(self, name, count=1, have=()):
        return self.next(name, count, have)["tasks"]

    def do(self, action, name, task, **said):
        said = {"client_id": str(uuid.uuid4()), **said}
        if action == "submit":
            said = {"answer": simple_answer(task), "seconds": 2.0, "form_version": task["form_version"],
                    "instruction_hash": task["instruction_hash"], **said}
        elif action == "skip":
            said = {"reason": "unclear", "note": "", **said}
        elif action == "unsafe":
            said = {"category": "violence", "note": "", "hide": False, **said}
        user = self.person(name)
        with self.db.link.writing() as tx:
            return getattr(answers, action)(tx, user, task["assignment"], said, self.clock())

    def submit(self, name, task, **said):
        return self.do("submit", name, task, **said)

    def undo(self, name, **said):
        user = self.person(name)
        with self.db.link.writing() as tx:
            return answers.undo(tx, user, self.project, {"client_id": str(uuid.uuid4()), **said}, self.clock())

    def rows(self, query, **values):
        with self.db.link.reading() as connection:
            return connection.execute(text(query), values).fetchall()


def simple_answer(task, rng=None):
    """An answer of each kind; random where an `rng` is given."""
    rng, k = rng or random.Random(0), len(task["completions"])
    if task["kind"] == "compare":
        return {"preference": rng.randint(-3, 3)}
    if task["kind"] == "rate_and_rank":
        flags = {f: None if f == "hallucination" else rng.random() < 0.2 for f in FLAGS}
        return {"ratings": [{"overall": rng.randint(1, 7), "flags": flags} for _ in range(k)],
                "ranks": [rng.randint(1, k) for _ in range(k)]}
    if task["kind"] == "questions":
        said = {"helpful": rng.randint(1, 7), "tone": rng.choice(["friendly", "neutral", "rude"]), "errors": []}
        return {"said": {"item": {}, "turns": [], "answers": [said] * k}}
    if task["kind"] == "edit":
        return {"text": task["completions"][0] + " Better."}
    if task["kind"] == "write_prompt":
        return {"kind": "plain", "text": f"Write about {rng.random()}", "use_case": "generation"}
    return {"text": "My answer."}


def broken_rules(db):
    """Every rule of the queue that the database's content breaks, in words; empty when all hold."""
    with db.link.reading() as c:
        def rows(query):
            return c.execute(text(query)).fetchall()
        live = """SELECT j.item_id, j.labeler, count(*) AS n FROM judgments j WHERE j.role IS NULL AND j.item_id IS NOT NULL
                  AND NOT EXISTS (SELECT 1 FROM retractions r WHERE r.judgment_seq = j.seq) GROUP BY j.item_id, j.labeler"""
        found = [f"{r.labeler} counts {r.n} times on item {r.item_id}" for r in rows(live) if r.n > 1]
        for i in rows(f"""SELECT i.*, coalesce((SELECT sum(l.n) FROM ({live}) l WHERE l.item_id = i.id), 0) AS said,
                       (SELECT count(*) FROM assignments a WHERE a.item_id = i.id AND a.state = 'leased' AND a.turn = 0) AS leased
                       FROM items i WHERE i.role = 'task'"""):
            wants = {"done": i.said, "held": i.leased, "free": max(0, i.wanted - i.done - i.held) if i.state == "open" else 0}
            found += [f"item {i.id}: {k} is {getattr(i, k)}, should be {v}" for k, v in wants.items() if getattr(i, k) != v]
            if i.said > i.wanted:
                found.append(f"item {i.id}: {i.said} answers, {i.wanted} wanted")
            if i.state != "set_aside" and (i.state == "done") != (i.done >= i.wanted):
                found.append(f"item {i.id} is {i.state} with {i.done} of {i.wanted}")
        for p in rows("""SELECT p.id, p.items_done, (SELECT count(*) FROM items i WHERE i.project_id = p.id AND i.role = 'task'
                      AND i.state = 'done') AS done FROM projects p"""):
            if p.items_done != p.done:
                found.append(f"project {p.id}: items_done is {p.items_done}, should be {p.done}")
    return found


@contextlib.contextmanager
def served(db, **options):
    """The studio's application behind a real HTTP server in a thread; its address and the studio."""
    import uvicorn

    from harken.studio.app import Studio, create_app
    studio = Studio(db, **options)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(studio), log_level="error", ws="none", server_header=False,
                                          timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}", studio
    finally:
        server.should_exit = True
        thread.join(10)
        studio.close()


def start_process(db, *options):
    """`harken studio` as a process of its own; the process and its address."""
    server = subprocess.Popen([sys.executable, "-m", "harken", "studio", "--db", str(db), "--port", "0", *options],
                              stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(SOURCE)})
    return server, server.stdout.readline().split()[-1]


@functools.cache
def hashed():
    return accounts.hash_password(PASSWORD)


def make_user(db, name="lead", role="lead"):
    with db.link.writing() as tx:
        return accounts.add_user(tx, name, hashed(), role, datetime.now(UTC))


def logged_in(url, name="lead"):
    client = Client(url)
    client.login(name, PASSWORD)
    return client


def in_session(url, db, name):
    """A client with a session that was made in the database: no password is hashed."""
    with db.link.writing() as tx:
        user, _ = accounts.stored_password(tx, name)
        secret, csrf = accounts.start_session(tx, user, datetime.now(UTC))
    client = Client(url)
    client._headers |= {"Cookie": f"harken_session={secret}", "X-Harken-CSRF": csrf}
    return client


FREE = Limits(calls=10_000, call_burst=10_000, logins=1000, login_burst=1000)


class Site:
    """A served studio with a lead, two labelers and a viewer; project `open` for all, `closed` for members only."""

    def __init__(self, url, studio, db):
        self.url, self.studio, self.db = url, studio, db
        self.clients = {name: in_session(url, db, name) for name in ("lead", "ana", "bo", "viewer")}
        lead = self.clients["lead"]
        self.open = lead.create_project("open", "compare", overlap=2)["id"]
        self.closed = lead.create_project("closed", "compare", open_to_all=False)["id"]
        for project in (self.open, self.closed):
            lead.add_items(project, [{"prompt": f"q{i}", "completions": ["one",
                                                                         {"text": "two", "source": "m"}]} for i in range(4)])

    def __getattr__(self, name):
        return self.__dict__["clients"][name]


@contextlib.contextmanager
def new_site(folder, address=None):
    with open_template(folder) if address is None else open_database(address) as db:
        for name, role in (("lead", "lead"), ("ana", "labeler"), ("bo", "labeler"), ("viewer", "viewer")):
            make_user(db, name, role)
        with served(db, limits=FREE) as (url, studio):
            yield Site(url, studio, db)


def open_template(folder, template=[]):  # noqa: B006  kept on purpose: one migrated file, copied
    """A new database, copied from one that was made once."""
    if not template:
        folder_of_it = tempfile.TemporaryDirectory(prefix="harken-template-")
        atexit.register(folder_of_it.cleanup)
        path = Path(folder_of_it.name) / "t.db"
        with open_database(path) as db, db.link.reading() as connection:
            connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
        template.append(path)
    path = Path(folder) / f"{uuid.uuid4().hex[:8]}.db"
    shutil.copy(template[0], path)
    return fast(open_database(path))
