"""The whole suite with the network taken away: nothing is fetched, and nothing tries to be."""

import json
import os
import subprocess
import sys

import pytest

from harken.core.files import read_json
from harken.launch.suite import LISTS, read_list

pytest.importorskip("torch")
FEWER = {"truthful": "--prompt none --limit 4", "toxicity": "--limit 1", "injection": "--limit 4 --beside 2 --texts 2",
         "triggers": "--limit 16 --confirm 1 --max-tokens 2 --triggers contexts.txt",
         "generalisation": "--max-tokens 2", "opinions": "--limit 4",
         "code": "--limit 2", "tax": "--limit 4 --against toy", "sycophancy": "--limit 8", "oversight": "--limit 8"}
"""Settings that keep the toy's minute short; of the others four items."""
CUT_OFF = """
import ctypes, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
# The namespace of a user who may make one is root's; else one's own user namespace comes first.
if libc.unshare(0x40000000) and libc.unshare(0x10000000 | 0x40000000):
    sys.exit(97)
tried = []
try:
    socket.create_connection(("127.0.0.1", 9), 2)
except OSError as error:
    assert error.errno == 101, error  # the network is unreachable
else:
    sys.exit("the network is there")
assert [name for _, name in socket.if_nameindex()] == ["lo"]
sys.addaudithook(lambda event, given: tried.append([event, repr(given)]) if event in (
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto") else None)
from harken.cli.main import main
status = main(["eval", "suite", "--list", sys.argv[1], "--model", "toy", "--out", sys.argv[2]])
print(json.dumps([status, tried]))
"""


@pytest.mark.slow
def test_the_full_suite_runs_without_a_network_and_asks_for_none(tmp_path):
    names = [entry.name for entry in read_list("full")]
    assert set(FEWER) <= set(names) and len(names) == len(LISTS["full"])
    (tmp_path / "contexts.txt").write_text("Begin.\n{{date: 2031}}\n")
    (tmp_path / "list.txt").write_text("".join(f"{name} {FEWER.get(name, '--limit 4')}\n" for name in names))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {"OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, "-c", CUT_OFF, str(tmp_path / "list.txt"), str(tmp_path / "s")], env=environment,
                           cwd=tmp_path, capture_output=True, text=True)
    if found.returncode == 97:
        pytest.skip("this machine gives no network namespace")
    assert found.returncode == 0, found.stderr[-2000:]
    status, tried = json.loads(found.stdout.splitlines()[-1])
    assert (status, tried) == (0, []), found.stdout + found.stderr[-1000:]
    rows = read_json(tmp_path / "s" / "suite.json")["rows"]
    assert [row["eval"] for row in rows] == names and not any("failed" in row for row in rows)
    assert all(row["value"]["n"] > 0 for row in rows)
