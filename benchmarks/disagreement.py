"""What `harken disagree` costs: 100,000 comparisons by 200 people, their two groups given, or to be found in the votes.

    python benchmarks/disagreement.py [--votes 100000] [--people 200] [--prompts 2000] [--only given|found] [--quick]

Four answers a prompt, scores N(0, 1), a group's differences from them N(0, 1), three people in ten of the smaller group, cares
log-normal (0.3), a fifth of the votes ties. Seconds, processor seconds and the peak of memory are of the whole command in a
process of its own: reading, fits, permutations, held-out votes, draws, and writing all scores. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
PER = 4


def write_world(path: Path, votes: int, people: int, prompts: int, seed: int = 0) -> None:
    """A file of comparisons with labelers and the tag `age`."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1, (prompts, PER)) + rng.normal(0, 1, (2, prompts, PER))
    group = (np.arange(people) < 0.3 * people).astype(int)
    care = np.exp(rng.normal(0, 0.3, people))
    who, prompt, a = rng.integers(people, size=votes), rng.integers(prompts, size=votes), rng.integers(PER, size=votes)
    b = (a + rng.integers(1, PER, votes)) % PER
    half = care[who] * (scores[group[who], prompt, a] - scores[group[who], prompt, b]) / 2
    odds = np.exp(np.stack([half, np.full(votes, np.log(0.5)), -half], 1))
    at = (rng.random(votes)[:, None] > (odds / odds.sum(1, keepdims=True)).cumsum(1)).sum(1)
    ranks = ([1, 2], [1, 1], [2, 1])
    with path.open("w", encoding="utf-8") as file:
        for k, p, i, j, o in np.stack([who, prompt, a, b, np.minimum(at, 2)], 1).tolist():
            row = {"prompt": f"Question {p}?", "completions": [f"answer {p}.{i}", f"answer {p}.{j}"], "ranks": ranks[o],
                   "labeler": f"l{k}", "group": {"age": "young" if group[k] else "old"}}
            file.write(json.dumps(row) + "\n")


def measured(command: list[str]) -> dict[str, Any]:
    """One process: seconds, processor seconds, peak MB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL,
                               env=os.environ | {"PYTHONPATH": sys.path[0], "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return {"s": round(time.perf_counter() - start, 1), "cpu_s": round(used.ru_utime + used.ru_stime, 1),
            "mb": round(used.ru_maxrss / 1024)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", type=int, default=100_000)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=2_000)
    parser.add_argument("--only", choices=("given", "found"))
    parser.add_argument("--quick", action="store_true", help="2,000 votes, 20 people, 40 prompts, no groups but the given")
    args = parser.parse_args()
    if args.quick:
        args.votes, args.people, args.prompts, args.only = 2_000, 20, 40, "given"
    result: dict[str, Any] = {"votes": args.votes, "people": args.people, "prompts": args.prompts}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "said.jsonl"
        write_world(file, args.votes, args.people, args.prompts)
        for name, options in (("given", ["--group-by", "age"]), ("found", [])):
            if args.only in (None, name):
                result[name] = measured([sys.executable, "-m", "harken", "disagree", str(file), *options,
                                         "--json", str(Path(folder) / f"{name}.json")])
                print(name, result[name], flush=True)
    print(json.dumps({"benchmark": "disagreement", **result}))


if __name__ == "__main__":
    main()
