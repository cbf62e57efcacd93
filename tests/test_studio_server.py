"""The studio as a process: killed at any moment, started fast, small; called by a machine that tries everything."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from harken.core.records import Choice, Prompt
from harken.store import audit
from harken.store.database import open_database
from harken.store.files import write_jsonl
from studio_site import FREE, SOURCE, broken_rules, empty_postgres, in_session, make_user, open_template, served, start_process

COLD_START_SECONDS = 1.0
MEMORY_MB = 120


def memory_mb(pid):
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))


def prepared(folder, labelers, items, address=None):
    """A database with accounts and one project of compares, overlap 2, short leases."""
    from studio_site import Desk
    with open_template(folder) if address is None else open_database(address) as db:
        for n in range(labelers):
            make_user(db, f"l{n}", "labeler")
        desk = Desk(db, n=items, overlap=2, lease_minutes=1)
        return db.name, desk.project


KILLS = int(os.environ.get("HARKEN_KILLS", "8"))  # 100 take five minutes


def kill_under_load(folder, kills, labelers=6, items=4000, seed=0, address=None):
    """SIGKILLs the server `kills` times, each time at a random moment of the labelers' work, and starts it again.

    `items` are more than the fastest machine answers meanwhile: with no work left a kill proves nothing.

    Returns the database's name, the project, and the client ids that were acknowledged."""
    name, project = prepared(folder, labelers, items, address)
    acknowledged, errors, stop, address = set(), [], threading.Event(), [""]

    def work(n):
        rng, client, url, pending = random.Random(n), None, None, None
        while not stop.is_set():
            try:
                if url != address[0] or client is None:
                    url = address[0]
                    with open_database(name) as db:
                        client = in_session(url, db, f"l{n}")
                    client_call = client._send
                if pending is None:
                    status, _, data = client_call("POST", f"/api/projects/{project}/next", {"count": 1})
                    tasks = json.loads(data)["tasks"] if status == 200 else []
                    if not tasks:
                        time.sleep(0.05)
                        continue
                    pending = (tasks[0]["assignment"], {
                        "client_id": str(uuid.uuid4()), "answer": {"preference": rng.randint(-3, 3)}, "seconds": 1.0,
                        "form_version": tasks[0]["form_version"], "instruction_hash": tasks[0]["instruction_hash"]})
                status, _, data = client_call("POST", f"/api/assignments/{pending[0]}/submit", pending[1])
                if status == 200:
                    acknowledged.add(pending[1]["client_id"])
                elif status < 500 and status != 429:
                    errors.append((status, data))
                else:
                    continue
                pending = None
            except (OSError, ValueError):
                client = None
                time.sleep(0.02)
            except Exception as error:  # http.client's many ways to say that the server is gone
                if type(error).__module__ != "http.client":
                    errors.append(error)
                client = None

    rng = random.Random(seed)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(labelers)]
    server, address[0] = start_process(name)
    for thread in threads:
        thread.start()
    for _ in range(kills):
        before, latest = len(acknowledged), time.monotonic() + 60
        while len(acknowledged) < before + 3 and time.monotonic() < latest:  # a kill before work began would prove nothing
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        server.send_signal(signal.SIGKILL)
        server.communicate()
        server, address[0] = start_process(name)
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    server.terminate()
    server.communicate(timeout=20)
    assert errors == []
    return name, project, acknowledged


def check_killed(name, acknowledged):
    """Every acknowledged judgment is there once, counters add up, and leases come back when their time is over."""
    with open_database(name) as db:
        with db.link.reading() as connection:
            stored = list(connection.scalars(text("SELECT client_id FROM judgments")))
            if db.link.is_file:
                assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
            assert audit.check(connection).problems == ()
        assert len(stored) == len(set(stored)) and acknowledged <= set(stored)
        assert broken_rules(db) == []
        with db.link.writing() as tx:
            tx.execute(text("UPDATE assignments SET expires_at = '2000' WHERE state = 'leased'"))
    return len(stored)


@pytest.mark.slow
def test_f21_killed_under_load_nothing_acknowledged_is_lost(tmp_path):
    name, project, acknowledged = kill_under_load(tmp_path, kills=2, labelers=3)
    assert len(acknowledged) > 0
    check_killed(name, acknowledged)
    with open_database(name) as db:
        make_user(db, "late", "labeler")
        with served(db, limits=FREE) as (url, _):
            client = in_session(url, db, "late")
            assert client.next(project), "there is work left"
        with db.link.reading() as connection:
            held = connection.execute(text("SELECT count(*) FROM assignments WHERE state = 'leased'")).scalar()
        assert held == 1 and broken_rules(db) == [], "every other lease was taken back"


@pytest.mark.slow
def test_f21_killed_again_and_again(tmp_path):
    name, _, acknowledged = kill_under_load(tmp_path, kills=KILLS)
    assert check_killed(name, acknowledged) >= len(acknowledged) > 2 * KILLS


@pytest.mark.slow
def test_f21_killed_on_postgresql_nothing_acknowledged_is_lost(tmp_path, postgres):
    """Two kills here, HARKEN_KILLS where it is set: more take too long for every day."""
    kills = int(os.environ.get("HARKEN_KILLS", "2"))
    with empty_postgres(postgres) as address:
        name, _, acknowledged = kill_under_load(tmp_path, kills=kills, address=address)
        assert check_killed(name, acknowledged) >= len(acknowledged) > 2 * kills


@pytest.mark.slow
def test_f4_labelers_work_on_while_another_process_imports(tmp_path):
    name, project = prepared(tmp_path, 2, 60)
    write_jsonl(tmp_path / "big.jsonl", (Choice(Prompt.of(f"q{n}"), ("a", "b"), (1, 2), f"l{n}") for n in range(20_000)))
    with open_database(name) as db, served(db, limits=FREE) as (url, _):
        importing = subprocess.Popen([sys.executable, "-m", "harken", "import", str(tmp_path / "big.jsonl"), "--db", name],
                                     env=os.environ | {"PYTHONPATH": str(SOURCE)}, stdout=subprocess.DEVNULL)
        clients, waits = [in_session(url, db, f"l{n}") for n in range(2)], []
        for client in clients:
            for task in client.tasks(project):
                started = time.monotonic()
                client.submit(task, {"preference": 1})
                waits.append(time.monotonic() - started)
        assert importing.wait(120) == 0 and len(waits) == 120
        assert len(list(db.judgments())) == 20_120 and broken_rules(db) == []
        with db.link.reading() as connection:
            assert audit.check(connection).problems == ()


def test_it_ends_cleanly_when_asked_and_its_address_is_true(tmp_path):
    server, url = start_process(tmp_path / "f.db")
    assert url.startswith("http://localhost:")
    with socket.create_connection(("localhost", int(url.rsplit(":", 1)[1])), timeout=5):
        pass
    server.send_signal(signal.SIGTERM)
    assert server.wait(10) in (0, -signal.SIGTERM)
    with open_database(tmp_path / "f.db") as db:
        assert list(db.judgments()) == []


@pytest.mark.slow
def test_two_servers_on_one_port_say_so(tmp_path):
    server, url = start_process(tmp_path / "f.db")
    port = url.rsplit(":", 1)[1]
    second = subprocess.run([sys.executable, "-m", "harken", "studio", "--db", str(tmp_path / "g.db"), "--port", port],
                            capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(SOURCE)}, timeout=30)
    server.kill()
    server.communicate()
    assert second.returncode == 2 and "Choose another --port" in second.stderr


@pytest.mark.slow
def test_it_starts_within_a_second_of_cpu_and_stays_small(tmp_path):
    """Processor time, not wall time: the machine may be shared. Memory after 300 requests."""
    server, url = start_process(tmp_path / "f.db")
    ticks = sum(map(int, Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
    spent = ticks / os.sysconf("SC_CLK_TCK")
    from harken.studio.client import Client
    client = Client(url)
    client.me()
    for n in range(300):
        client.call("GET", "/api/projects")
        if n % 10 == 0:
            client.create_project(f"p{n}", "rate_and_rank")
    memory = memory_mb(server.pid)
    server.kill()
    server.communicate()
    assert spent < COLD_START_SECONDS, f"{spent} s"
    assert memory < MEMORY_MB, f"{memory} MB"


@pytest.mark.slow
@pytest.mark.parametrize("role", ["lead", "labeler", "viewer", None])
def test_schemathesis_finds_no_server_error_and_no_undocumented_answer(tmp_path, role):
    """Every operation, called with what the description allows and with what it forbids."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis.checks import CHECKS, load_all_checks

    from studio_site import Site
    load_all_checks()
    schemathesis.serializer("application/x-ndjson")(lambda context, value: str(value).encode("utf-8", "surrogatepass"))
    checks = CHECKS.get_by_names(["not_a_server_error", "status_code_conformance", "content_type_conformance",
                                  "response_schema_conformance"])
    with open_template(tmp_path) as db:
        for name, its in (("lead", "lead"), ("ana", "labeler"), ("bo", "labeler"), ("viewer", "viewer")):
            make_user(db, name, its)
        with served(db, limits=FREE) as (url, studio):
            site = Site(url, studio, db)
            site.ana.next(site.open, 2)
            made = site.lead.call("POST", "/api/tokens", {"name": "all", "scopes": ["read", "label", "lead"]})
            own = site.ana.call("POST", "/api/tokens", {"name": "mine", "scopes": ["label"]})
            looks = site.viewer.call("POST", "/api/tokens", {"name": "looks", "scopes": ["read"]})
            headers = {"lead": {"Authorization": f"Bearer {made['token']}"},
                       "labeler": {"Authorization": f"Bearer {own['token']}"},
                       "viewer": {"Authorization": f"Bearer {looks['token']}"},
                       None: {}}[role]
            schema = schemathesis.openapi.from_url(f"{url}/api/openapi.json")
            calls = 0
            modes = list(schemathesis.GenerationMode)
            for operation, mode in ((result.ok(), mode) for result in schema.get_all_operations() for mode in modes):

                @settings(max_examples=5 if role else 3, deadline=None, database=None, phases=[Phase.generate],
                          suppress_health_check=list(HealthCheck))
                @given(case=operation.as_strategy(generation_mode=mode))
                def call(case):
                    nonlocal calls
                    calls += 1
                    case.validate_response(case.call(headers=headers, base_url=url), checks=checks)

                with suppress(Unsatisfiable):  # what takes no input cannot be called wrongly
                    call()
            assert calls > (200 if role else 100) and broken_rules(db) == []
            with db.link.reading() as connection:
                assert audit.check(connection).problems == ()
