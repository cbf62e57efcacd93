"""Annotating by several workers, killed and failing: the same bytes, and every message reaches the user."""

import multiprocessing
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from annotating import Slow, Vowels, contents, rows, some_texts
from harken.core.errors import NotYet, UserError
from harken.engines.openai import Unanswered
from harken.loops.annotate import annotate
from harken.store.annotations import MANIFEST, Shard
from harken.store.connection import RuleError
from harken.store.known import Known

pytest.importorskip("pyarrow")


@pytest.fixture
def texts():
    return some_texts()


@pytest.mark.slow
def test_one_or_two_workers_any_kill_the_same_bytes(tmp_path, texts):
    source = rows(tmp_path / "a.jsonl", texts)
    annotate([source], tmp_path / "one", Vowels, split_bytes=4000)
    annotate([source], tmp_path / "two", Vowels, split_bytes=4000, workers=2)
    assert len(contents(tmp_path / "one")) > 10
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
def test_two_workers_of_a_ray_cluster_write_the_same_bytes(tmp_path, texts, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(Path(__file__).parent), *sys.path)))
    source = rows(tmp_path / "a.jsonl", texts)
    annotate([source], tmp_path / "one", Vowels, split_bytes=4000)
    annotate([source], tmp_path / "ray", Vowels, split_bytes=4000, workers=2, ray="local")
    assert contents(tmp_path / "one") == contents(tmp_path / "ray")
    done = tmp_path / "ray" / "scores" / "vowels-1" / MANIFEST
    lines = done.read_bytes().splitlines(keepends=True)
    done.write_bytes(b"".join(lines[:len(lines) // 2]))  # as if killed
    annotate([source], tmp_path / "ray", Vowels, split_bytes=4000, workers=2, ray="local")
    assert contents(tmp_path / "one") == contents(tmp_path / "ray")


def in_a_worker(fault):
    """A scorer that opens in the caller alone."""
    if multiprocessing.parent_process() is None:
        return Vowels()
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise Unanswered(503, "The server is full.", "Try later.") if fault == "refused" else KeyError("weights")


@pytest.mark.slow
@pytest.mark.parametrize("fault, message", [
    ("refused", "The server is full.\n  Try later."), ("broken", "The scorer cannot be opened in a worker: KeyError: 'weights'."),
    ("killed", "A worker was killed or could not start; is memory short?")])
def test_what_a_worker_says_reaches_the_user(tmp_path, texts, capfd, fault, message):
    source = rows(tmp_path / "a.jsonl", texts)
    with pytest.raises(UserError) as error:
        annotate([source], tmp_path / "out", partial(in_a_worker, fault), split_bytes=4000, workers=2)
    assert str(error.value).startswith(message) and error.value.action
    assert "Traceback" not in capfd.readouterr().err
    assert not [p for p in (tmp_path / "out").rglob("*") if p.suffix in (".tmp", ".parquet")]


@pytest.mark.parametrize("error", [UserError("a fact", "do this"), UserError("a fact"), Unanswered(503, "full", "wait"),
                                   NotYet("nobody", "ask", "ask.html"), RuleError("twice")])
def test_errors_cross_processes_whole(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_processes_that_open_the_scores_at_the_same_moment_wait_for_one_another(tmp_path, monkeypatch):
    refusals = iter([True, True])

    class Contended(sqlite3.Connection):
        def execute(self, sql, *given):
            if "journal_mode" in sql and next(refusals, False):  # as SQLite does, at once, to one of two that change it
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error
            return super().execute(sql, *given)
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Contended))
    known = Known(tmp_path / "known.sqlite")
    known.put({b"key": 1.0})
    assert known.get([b"key"]) == {b"key": 1.0} and next(refusals, None) is None
    monkeypatch.setattr("harken.store.known.WAIT", 0.0)
    refusals = iter([True] * 3)
    with pytest.raises(UserError, match="database is locked"):
        Known(tmp_path / "known.sqlite")


def test_a_file_that_goes_while_it_is_read_is_named(tmp_path, texts):
    source = rows(tmp_path / "a.jsonl", texts)

    def gone():
        source.unlink(missing_ok=True)
        return Vowels()
    with pytest.raises(UserError, match=r"a\.jsonl could not be read or written: No such file"):
        annotate([source], tmp_path / "out", gone)
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_ray_that_is_missing_is_one_message(tmp_path, texts, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="Ray is not installed"):
        annotate([rows(tmp_path / "a.jsonl", texts)], tmp_path / "out", Vowels, ray="local")


@pytest.mark.parametrize("kill_at", range(0, 60, 7))
def test_killed_at_any_write_it_ends_with_the_same_bytes(tmp_path, texts, kill_at):
    source = rows(tmp_path / "a.jsonl", texts[:120])
    make = partial(annotate, [source], open_scorer=Vowels, split_bytes=2000)
    make(out=tmp_path / "whole")
    child = os.fork()
    if child == 0:
        seen = 0

        def watched(original):
            def operation(*args, **kwargs):
                nonlocal seen
                seen += 1
                if seen > kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*args, **kwargs)
            return operation
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Shard, "write", watched(Shard.write))
            patch.setattr(os, "fsync", watched(os.fsync))
            patch.setattr(Path, "replace", watched(Path.replace))
            make(out=tmp_path / "cut")
            os._exit(7)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == -signal.SIGKILL
    make(out=tmp_path / "cut")
    assert contents(tmp_path / "whole") == contents(tmp_path / "cut")


@pytest.mark.slow
def test_two_workers_killed_with_their_parent_leave_nothing_running(tmp_path, texts):
    source = rows(tmp_path / "a.jsonl", texts)
    code = (f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "from annotating import Slow\nfrom harken.loops.annotate import annotate\n"
            f"if __name__ == '__main__':\n    annotate([{str(source)!r}], {str(tmp_path / 'cut')!r}, "
            "Slow, workers=2, split_bytes=4000)")
    (tmp_path / "go.py").write_text(code)
    done = tmp_path / "cut" / "scores" / "slow-1" / MANIFEST
    process = subprocess.Popen([sys.executable, str(tmp_path / "go.py")])
    deadline = time.monotonic() + 60
    while not done.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    assert children
    while any(_alive(int(c)) for c in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_alive(int(c)) for c in children)
    annotate([source], tmp_path / "cut", Slow, split_bytes=4000)
    annotate([source], tmp_path / "whole", Slow, split_bytes=4000)
    assert contents(tmp_path / "whole") == contents(tmp_path / "cut")


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
