"""One process or two: seconds a step and memory of the same training run on the same two cores.

    python benchmarks/processes.py [--rounds 3] [--quick]

SmolLM2-135M-Instruct in `--dtype auto`. Each run is made by fresh processes; what counts is the median time between steps,
start-up aside, and the largest memory of any process. Runs alternate: one process with one thread, one with two, two with one
each, and for all parameters (--lora-rank 0) two with their layers split. The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WAYS = {"1 process, 1 thread": (1, 1, False), "1 process, 2 threads": (1, 2, False), "2 processes, 1 thread each": (2, 1, False),
        "2 processes, split layers": (2, 1, True)}
WORDS = ["red", "blue", "green", "old", "new", "warm", "cold", "tall", "house", "river", "stone", "and"]


def work(folder: Path, quick: bool) -> dict[str, tuple[str, dict[str, Any], list[str]]]:
    """The runs: name -> (method, settings, ways)."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randrange(60, 180))) for _ in range(128)]
    (folder / "demos.jsonl").write_text("".join(json.dumps({"prompt": f"Write {i}.", "completion": t}) + "\n"
                                                for i, t in enumerate(texts)))
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Describe a {t[:40]}."}) + "\n" for t in texts))
    steps = 3 if quick else 6
    sft = {"data": str(folder / "demos.jsonl"), "batch_size": 16, "epochs": steps / 8, "holdout": 0.0}
    rloo = {"data": str(folder / "prompts.jsonl"), "reward": "gold", "steps": steps, "max_tokens": 48, "prompts_per_step": 8}
    every = list(WAYS)
    found = {"sft": ("sft", sft, every[:3]), "rloo": ("rloo", rloo, every[:3])}
    if not quick:
        found["sft, all parameters"] = ("sft", {**sft, "lora_rank": 0, "learning_rate": 1e-5}, every[2:])
    return found


def measure(method: str, settings: dict[str, Any], processes: int, threads: int, shard: bool) -> tuple[float, float]:
    """(median seconds a step, largest MB of a process)."""
    with tempfile.TemporaryDirectory() as out, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        job = json.dumps([method, {"model": "smollm2", "dtype": "auto", "out": f"{out}/run", "shard": shard, **settings}])
        together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)} if processes > 1 else {}
        started = [subprocess.Popen([sys.executable, __file__, "--worker", job], stdout=subprocess.PIPE, text=True,
                                    env={**os.environ, **together, "RANK": str(rank), "OMP_NUM_THREADS": str(threads)})
                   for rank in range(processes)]
        memory = max(float(p.communicate()[0].splitlines()[-1]) for p in started)
        seconds = [json.loads(row)["seconds"] for row in Path(f"{out}/run/metrics.jsonl").read_text().splitlines()]
        return statistics.median(b - a for a, b in itertools.pairwise(seconds)), memory


def worker(job: str) -> None:
    from harken.launch.find import find_method
    from harken.launch.train import train as launch_train
    method, settings = json.loads(job)
    module = find_method(method)
    launch_train(module, module.Config(**settings), quiet=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of three steps")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (method, settings, ways) in work(Path(folder), args.quick).items():
            runs: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
            for _ in range(1 if args.quick else args.rounds):
                for way in ways:
                    runs[way].append(measure(method, settings, *WAYS[way]))
            found[name] = {way: {"seconds": round(statistics.median(s for s, _ in rows), 3),
                                 "runs": [round(s, 3) for s, _ in rows],
                                 "megabytes": round(max(m for _, m in rows))} for way, rows in runs.items()}
            for way, row in found[name].items():
                print(f"{name:20} {way:28} {row['seconds']:7.2f} s a step {row['megabytes']:6d} MB a process  {row['runs']}")
    print(json.dumps(found))
    return None


if __name__ == "__main__":
    main()
