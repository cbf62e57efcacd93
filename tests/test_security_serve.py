"""The doors of `harken serve`: the studio's bounds, files of secrets that others can read; tables that run nothing."""

from __future__ import annotations

import argparse
import csv
import socket
import threading
import time

import pytest
import uvicorn

from harken.cli import serve as command
from harken.core.terminal import CODES
from harken.report.sets import Item, SampleSet
from harken.report.table import write_samples
from harken.serve.app import create_app, problem
from harken.serve.arms import Arms
from harken.serve.errors import Refused
from harken.serve.server import Server
from harken.serve.shapes import read_chat
from harken.store.connection import StorageError
from harken.store.writing import defused
from harken.web import http, patience
from harken.web.errors import as_api_error


class Stopped(Exception):
    pass


class Backend:
    """What the application needs of a model that is never asked."""

    name, identity, rows = "none", {}, 1

    async def start(self):
        pass

    def close(self):
        pass


@pytest.fixture(scope="module")
def address():
    """The application behind a server with the command's protocol, its deadlines shortened."""
    before = http.BODY_SECONDS
    http.BODY_SECONDS = 0.4
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    short = type("Short", (patience.Patient,), {"header_seconds": 0.4})
    server = uvicorn.Server(uvicorn.Config(create_app(Server(Arms([Backend()]))), log_level="error", ws="none", http=short))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield sock.getsockname()
    server.should_exit = True
    thread.join(10)
    http.BODY_SECONDS = before


def sent(address, body, length=None):
    with socket.create_connection(address, timeout=10) as connection:
        head = ("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
                f"Content-Length: {len(body) if length is None else length}\r\n\r\n")
        connection.sendall(head.encode() + body)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return int(answer.split()[1])


@pytest.mark.parametrize("body", [b'{"temperature": 1e999}', b'{"messages": [{"role": "user", "content": -1e999}]}',
                                  b'{"tools": ' + b"[" * 60 + b"]" * 60 + b"}", b'{"a":' * 900 + b"1" + b"}" * 900])
def test_what_is_not_finite_or_too_deep_is_refused_at_the_door(address, body, caplog):
    assert sent(address, body) == 400 and not caplog.records


def test_a_body_without_progress_and_a_silent_connection_end(address):
    assert sent(address, b"{", length=50) == 408
    with socket.create_connection(address, timeout=10) as silent:
        assert silent.recv(1) == b""


@pytest.mark.parametrize("answer", [as_api_error, problem])
def test_no_request_writes_a_line_or_a_code_into_the_log(answer, caplog):
    """A fault's words may be what somebody sent: they neither clear a terminal nor look like a line of the log."""
    try:
        raise RuntimeError("\x1b[2J\x9b1m\u202e\r\nERROR harken.studio forged")
    except RuntimeError as error:
        answer(error)
    answer(StorageError("x\x1b[2J\nforged", "y"))
    for record in caplog.records:
        first, *rest = record.getMessage().split("\n")
        assert "forged" not in first or "\\nforged" in first
        assert all(line.startswith("  ") for line in rest)
        assert not CODES.search(record.getMessage())
    assert len(caplog.records) == 2


def options(tmp_path, **more):
    given = {"host": "127.0.0.1", "port": 0, "keys": None, "db": None, "loop": None, "adapters": None, "model": ["x"],
             "public_name": [], "telemetry": False,
             "log_text": False, "rows": 1, "queue": 0, "context": 0, "max_tokens": 1, "timeout": 1.0, "keep_hours": 1.0}
    return argparse.Namespace(**given | more)


def test_the_command_sets_the_bounds_and_tells_readable_files(tmp_path, monkeypatch, capsys):
    seen = {}

    def config(app, **given):
        seen.update(given)
        raise Stopped

    monkeypatch.setattr(command, "_check", lambda args: None)
    monkeypatch.setattr(command, "open_arms", lambda args: Arms([Backend()]))
    monkeypatch.setattr(command, "_log_to_stderr", lambda: None)
    monkeypatch.setattr(uvicorn, "Config", config)
    keys, db = tmp_path / "keys.txt", tmp_path / "f.db"
    keys.write_text("ada 0123456789abcdef")
    keys.chmod(0o644)
    with pytest.raises(Stopped):
        command.serve(options(tmp_path, keys=str(keys), db=str(db)))
    assert seen["http"] is patience.Patient and seen["limit_concurrency"] == patience.MOST_CONNECTIONS
    said = capsys.readouterr().err
    assert "keys.txt can be read by other accounts" in said and "f.db" not in said
    keys.chmod(0o600)
    db.chmod(0o644)
    with pytest.raises(Stopped):
        command.serve(options(tmp_path, keys=str(keys), db=str(db)))
    said = capsys.readouterr().err
    assert "keys.txt" not in said and "f.db can be read by other accounts" in said


def test_host_names_are_checked_wherever_names_were_given(tmp_path):
    for host, names, served in (("127.0.0.1", [], True), ("0.0.0.0", ["a.example"], True), ("0.0.0.0", [], False)):
        hosts = command._hosts(options(tmp_path, host=host, public_name=names), host == "127.0.0.1")
        assert (hosts is not None) == served
        assert hosts is None or ("evil.example" not in hosts and set(names) <= set(hosts))


@pytest.mark.parametrize("text", ["=1+1", "+1+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "\n=1", "\uff1d1", "=HYPERLINK(\"http://x\")"])
def test_no_table_holds_a_formula(tmp_path, text):
    assert defused(text) == f"'{text}"
    one = SampleSet(text, [text], "", [Item(text, text, [text], [-1.5], [text])])
    write_samples([one], tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(encoding="utf-8", newline="") as file:
        row = next(iter(csv.DictReader(file)))
    assert row["score"] == "-1.5" and {v for k, v in row.items() if k not in ("score", "item", "details")} == {f"'{text}"}


def test_numbers_stay_numbers():
    assert [defused(v) for v in ("-1", "+2.5", "-1e-3", -1, 0.5, None, "text")] == ["-1", "+2.5", "-1e-3", -1, 0.5, None, "text"]


LOOKS = ("ana\u202e", "a\u200bna", "\ufeffana", "ana\x1b[2J")
NAMES = ("\u0646\u0631\u06af\u0633\u200c\u0628\u0627\u0646\u0648", "\U0001f469\u200d\U0001f52c")  # need their joiners


@pytest.mark.parametrize(("user", "taken"), [*((u, False) for u in LOOKS), *((u, True) for u in NAMES)])
def test_raters_that_look_like_one_another_are_refused(user, taken):
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "user": user}
    if taken:
        assert read_chat(body).user == user
    else:
        with pytest.raises(Refused, match="control"):
            read_chat(body)
