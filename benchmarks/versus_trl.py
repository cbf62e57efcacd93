"""Harken and TRL 1.16 in turn on the same work: SFT, reward models of K = 4 and 9, DPO, RLOO, GRPO, and PPO (TRL 1.12).

    python benchmarks/versus_trl.py --peer-python PATH/TO/PYTHON/WITH/TRL [--work sft …] [--rounds 5] [--quick]
        [--ppo-path FOLDER/OF/THE/UNZIPPED/TRL/1.12/WHEEL] [--model smollm2] [--bf16] [--lora 16]
        [--cells FILE [--once]]

Each side runs in a fresh process; steps are timed after two of warm-up. Ratios are round by round, TRL's mean seconds a step
over Harken's. With --cells each run of a side is a line of FILE and is not run again; --once runs the next missing round of a
work, both sides, and ends (for a machine that is idle for minutes at a time). Both get the same threads and allocator settings.
The last line is JSON. Without a peer, Harken alone is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
WORKS = {"sft": 12, "reward_model_4": 8, "reward_model_9": 5, "dpo": 12, "rloo": 8, "grpo": 8, "ppo": 6}


def once(python: str, side: str, work: str, steps: int, **settings: str) -> dict:
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592", **settings}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        found = subprocess.run([python, str(HERE / f"{side}_side.py"), work, str(steps), folder], env=environment,
                               capture_output=True, text=True)
    if found.returncode:
        sys.exit(f"{side} failed on {work}:\n{found.stderr[-2000:]}")
    return json.loads(found.stdout.strip().splitlines()[-1])


class Cells:
    """What was measured, a line a run of a side; in memory alone where there is no file."""

    def __init__(self, path: str) -> None:
        self.path = Path(path) if path else None
        lines = self.path.read_text().splitlines() if self.path and self.path.exists() else []
        self.rows = {tuple(row["cell"]): row for row in map(json.loads, lines)}

    def get(self, cell: tuple, python: str, *args, **settings: str) -> tuple[dict, bool]:
        """The cell's figures, and whether they were measured now."""
        if cell in self.rows:
            return self.rows[cell], False
        row = {"cell": cell, **once(python, *args, **settings)}
        self.rows[cell] = row
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        return row, True


def export(model: str) -> str:
    """The model as a folder of float32 weights that both sides can open."""
    from harken.engines.loading import load
    folder = Path(tempfile.gettempdir()) / f"bench-{model}"
    if not (folder / "config.json").exists():
        loaded = load(model)
        loaded.model.float().save_pretrained(folder)
        loaded.template.tokenizer.save_pretrained(folder)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="a Python in whose environment trl==1.16.0 is installed")
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--ppo-path", help="a folder with TRL 1.12, the last that has PPO; else PPO is timed for Harken alone")
    parser.add_argument("--model", default="llama", help="llama (4.2 M parameters) or smollm2")
    parser.add_argument("--bf16", action="store_true", help="both sides compute in bfloat16")
    parser.add_argument("--lora", type=int, default=0, metavar="RANK",
                        help="both sides train an adapter of this rank; 0: every weight")
    parser.add_argument("--cells", default="", metavar="FILE", help="a file of what was measured, to go on from")
    parser.add_argument("--once", action="store_true", help="measure the next missing cell of --cells alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of four steps of SFT alone: under a minute")
    args = parser.parse_args()
    works, rounds = (["sft"], 1) if args.quick else (args.work, args.rounds)
    result, cells = {}, Cells(args.cells)
    settings = {"BENCH_BF16": "1"} if args.bf16 else {}
    settings |= {"BENCH_LORA": str(args.lora)} if args.lora else {}
    if args.model != "llama":
        settings["BENCH_MODEL"] = export(args.model)
    for work in works:
        steps = 4 if args.quick or args.model != "llama" else WORKS[work]
        if args.model != "llama" and work == "reward_model_9":
            steps = 3  # TRL's 36 pairs take a minute a step
        ours, theirs = [], []
        peer = args.peer_python if work != "ppo" or args.ppo_path else None
        path = {"PYTHONPATH": args.ppo_path} if work == "ppo" and args.ppo_path else {}
        for n in range(rounds):
            cell = (args.model, args.bf16, args.lora, work, n)
            row, new = cells.get((*cell, "harken"), sys.executable, "harken", work, steps, **settings)
            ours.append(row)
            if peer:
                row, newer = cells.get((*cell, "trl"), peer, "trl", work, steps, **settings, **path)
                theirs.append(row)
                new = new or newer
            if new and args.once:
                print(cell, ours[-1], theirs[-1:], flush=True)
                return
        row = {"harken_step_s": round(statistics.median(o["mean_step_s"] for o in ours), 4),
               "harken_mb": max(o["peak_mb"] for o in ours)}
        if theirs:
            ratios = sorted(t["mean_step_s"] / o["mean_step_s"] for o, t in zip(ours, theirs))
            row |= {"trl_step_s": round(statistics.median(t["mean_step_s"] for t in theirs), 4),
                    "trl_mb": max(t["peak_mb"] for t in theirs), "ratio": round(statistics.median(ratios), 2),
                    "ratio_low": round(ratios[0], 2), "ratio_high": round(ratios[-1], 2)}
        result[work] = row
        print(work, row, flush=True)
    asked = {"model": args.model, "bf16": args.bf16, "lora": args.lora, "rounds": rounds}
    print(json.dumps({"benchmark": "versus_trl", **asked, **result}))


if __name__ == "__main__":
    main()
