"""The base install where Windows has no fcntl: the command starts, and a run can be opened and locked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def hidden():
    paths = [str(HERE), str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}


def test_every_module_of_the_base_imports_and_commands_run_without_fcntl(tmp_path):
    """Data, agreement, the studio's server and a run, in one process without the modules that Windows lacks."""
    row = '{{"prompt": "p{}", "completions": ["a", "b"], "ranks": [1, 2], "labeler": "l{}"}}\n'
    (tmp_path / "c.jsonl").write_text("".join(row.format(i, j) for i in range(4) for j in range(2)))
    code = """
import hide_fcntl
from harken.cli.main import main
for argv in (["--version"], ["import", "c.jsonl", "--db", "f.db"],
             ["snapshot", "comparisons", "--db", "f.db", "--out", "s.jsonl"], ["agreement", "s.jsonl"], ["labelers", "s.jsonl"],
             ["users", "list", "--db", "f.db"], ["backup", "--db", "f.db", "--out", "b.db"]):
    assert main(argv) == 0, argv
import harken.studio.app, uvicorn
from harken.core.run import Run
with Run.open("r", {"command": "x"}, {}, quiet=True) as run:
    run.finish({})
assert run.done
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=hidden())
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_run_in_use_is_refused_where_locks_exist(tmp_path):
    from harken.core.locks import lock_file
    with (tmp_path / "l").open("w") as first, (tmp_path / "l").open("w") as second:
        assert lock_file(first) and not lock_file(second)


@pytest.mark.slow
def test_the_base_installs_tests_pass_without_fcntl():
    names = ("files", "database", "snapshots", "agreement", "containers", "votes", "studio_api")
    options = ["-q", "-x", "-p", "hide_fcntl", "-p", "no:cacheprovider", "-m", "not slow"]
    done = subprocess.run([sys.executable, "-m", "pytest", *options, *(f"test_{name}.py" for name in names)], cwd=HERE,
                          capture_output=True, text=True, env=hidden())
    assert done.returncode == 0, done.stdout[-3000:]
