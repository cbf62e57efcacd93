"""Which unit tests cost most of the processor: writes tests/costly.txt, the tests that run with the slow ones.

    python tools/costly.py [--most 0.12]

Runs all tests but those marked slow, two at a time, and counts each one's seconds of CPU (its own and its children's).
A test above --most goes on the list, and so do single cases of a parametrised one; its cheapest case stays a unit test, and
of each file the cheapest test. Names under KEEP stay whatever they cost.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tests" / "costly.txt"
KEEP = ("test_promises.py", "ends_the_same[rloo]", "ends_the_same[sft]", "solves_every_toy_task[0-rloo-count]",
        "test_a_turn_is_driven_to_its_approval", "log_probs_before_save_are_those_after_load[two-4]",
        "deleted[llama-tied]", "offline_samplers[llama]", "resumes_bit_for_bit[conditional]")
"""Parts of names: the one test of what must never break unseen, also in `make fast`."""


def spent() -> float:
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    before = spent()
    result = yield
    with Path(os.environ["COSTS"], f"{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps([item.nodeid.removeprefix("tests/"), spent() - before]) + "\n")
    return result


def costly(costs: dict[str, float], most: float) -> list[str]:
    """The names above `most` seconds, but for what is kept and for the cheapest of each test and of each file."""
    groups = defaultdict(list)
    for name in costs:
        for group in {name.split("[")[0], name.split("::")[0]}:
            groups[group].append(name)
    cheapest = {min(names, key=costs.__getitem__) for names in groups.values()
                if len(names) > 1 and min(map(costs.__getitem__, names)) < 5 * most}
    return sorted(name for name, cost in costs.items()
                  if cost > most and name not in cheapest and not any(word in name for word in KEEP))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=float, default=0.12, help="seconds of CPU (default 0.12)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "COSTS": folder, "PYTHONPATH": str(Path(__file__).parent), "COSTLY": ""}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "costly", "-n", "2", "-m", "not slow"]
        subprocess.run(command, cwd=ROOT, env=environment)
        costs = dict(json.loads(line) for file in Path(folder).iterdir() for line in file.read_text().splitlines())
    names = costly(costs, args.most)
    LIST.write_text("\n".join(names) + "\n")
    share = f"{sum(costs[n] for n in names):.0f} of {sum(costs.values()):.0f} seconds of CPU"
    print(f"{len(names)} of {len(costs)} tests, {share}: {LIST}")


if __name__ == "__main__":
    main()
