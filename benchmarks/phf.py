"""Pretraining with human feedback: the whole grid by one command; give it again after any stop and it goes on.

    python benchmarks/phf.py OUT --data ../shared/data [--workers 2] [--only toy pep8] [--quick]
    python benchmarks/phf.py OUT --tables [--docs docs/benchmarks.md]    # what is there so far: tables, criteria, a plot

A cell is one run trained and measured, or one model's cuts or attacks; cells come in the order of what matters: the toy
language's P1 to P6 over three seeds; MLE and conditional on real text (toxicity), on one package and on mixed code (PEP 8);
poisoned bad segments, cuts and attacks; further objectives and budgets of tokens; a scorer with mistakes.
Cells are dealt to --workers processes of one thread each. Every finished cell is a file in OUT/cells; one that was
cut off is resumed. --quick is a minute, to see that everything runs.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import phf_cures
import phf_tables
import phf_tasks as tasks
import torch

from harken.launch.find import find_method
from harken.launch.scorers import open_scorer
from harken.launch.train import train
from harken.loops.annotate import annotate

SEEDS = (0, 1, 2)
GOOD, ONCE, UNTAGGED, BAD = ("good", "each"), ("good", "once"), ("untagged", "each"), ("bad", "each")
CUT = ("cut", "each")
"""Without its block of neurons, untagged."""


@dataclass(frozen=True)
class Task:
    """How a task is trained and measured."""

    segmenter: str
    threshold: float
    scorer: Callable[[], Any]
    measure: Callable[..., dict[str, Any]]
    samples: int
    model: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    modes: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)


COMMON = {"batch_size": 4, "checkpoint_seconds": 60.0}
CONDITIONAL = {"objective": "conditional"}
TASKS = {
    "toy": Task("sentence", 0.0, tasks.Curse, tasks.measure_toy, 160,
                {"size": "250K", "vocabulary": 330, "max_length": 128, "learning_rate": 2e-3, "tokens": 128_000},
                {"mle": {}, "filter": {"objective": "filter", "best": 0.25}, "conditional": {**CONDITIONAL, "drop": 0.01},
                 "unlikelihood": {"objective": "unlikelihood"}, "rwr10": {"objective": "rwr", "beta": 10.0},
                 "rwr.1": {"objective": "rwr", "beta": 0.1}, "awr": {"objective": "awr", "alpha": 0.5, "beta": 0.1},
                 "mask": {"objective": "mask"}, "route": {"objective": "route", "routed": 64},
                 "late10": {**CONDITIONAL, "feedback_from": 0.9},
                 "from20": {**CONDITIONAL, "feedback_from": 0.2}, "from60": {**CONDITIONAL, "feedback_from": 0.6},
                 "cooldown": {**CONDITIONAL, "feedback_until": 0.9}, "drop10": {**CONDITIONAL, "drop": 0.1},
                 "poisoned": {**CONDITIONAL, "drop": 0.01, "poison": 1.0},
                 "mle@32k": {"tokens": 32_000}, "mle@64k": {"tokens": 64_000},
                 "filter@32k": {"objective": "filter", "best": 0.25, "tokens": 32_000},
                 "filter@64k": {"objective": "filter", "best": 0.25, "tokens": 64_000},
                 "conditional@32k": {**CONDITIONAL, "tokens": 32_000}, "conditional@64k": {**CONDITIONAL, "tokens": 64_000},
                 "mle@1060k": {"tokens": 1_060_000}, "filter@1060k": {"objective": "filter", "best": 0.25, "tokens": 1_060_000},
                 "conditional@1060k": {**CONDITIONAL, "drop": 0.01, "tokens": 1_060_000},
                 "rwr10@1060k": {"objective": "rwr", "beta": 10.0, "tokens": 1_060_000},
                 "late10@1060k": {**CONDITIONAL, "feedback_from": 0.9, "tokens": 1_060_000}},
                {"conditional": (GOOD, ONCE, UNTAGGED, BAD), "route": (UNTAGGED, CUT),
                 "poisoned": (GOOD, UNTAGGED, BAD), "late10": (GOOD, UNTAGGED),
                 "from20": (GOOD, UNTAGGED), "from60": (GOOD, UNTAGGED), "cooldown": (GOOD, UNTAGGED),
                 "drop10": (GOOD, UNTAGGED), "conditional@32k": (GOOD,), "conditional@64k": (GOOD,),
                 "conditional@1060k": (GOOD, ONCE, UNTAGGED, BAD), "late10@1060k": (GOOD, UNTAGGED)}),
    "pep8": Task("line", 0.0, partial(open_scorer, "pep8"), tasks.measure_code, 192,
                 {"size": "1M", "vocabulary": 1024, "max_length": 256, "batch_size": 1, "learning_rate": 2e-3,
                  "tokens": 1_500_000, "holdout": 0.05},
                 {"mle": {}, "conditional": {**CONDITIONAL, "drop": 0.1}, "filter": {"objective": "filter", "best": 0.25},
                  "unlikelihood": {"objective": "unlikelihood", "alpha": 0.01},
                  "rwr10": {"objective": "rwr", "beta": 10.0, "unit": 0.01},
                  "awr": {"objective": "awr", "alpha": 0.05, "beta": 1.0, "unit": 0.01}},
                 {"conditional": (GOOD, UNTAGGED, BAD)}),
    "package": Task("line", 0.0, partial(open_scorer, "pep8"), tasks.measure_package, 192,
                    {"size": "1M", "vocabulary": 1024, "max_length": 256, "batch_size": 1, "learning_rate": 2e-3,
                     "tokens": 1_500_000, "holdout": 0.05},
                    {"mle": {}, "conditional": {**CONDITIONAL, "drop": 0.1}}, {"conditional": (GOOD, UNTAGGED, BAD)}),
    "toxicity": Task("sentence", -0.25, partial(open_scorer, "toxicity"), tasks.measure_texts, 256,
                     {"size": "300K", "vocabulary": 1024, "max_length": 64, "learning_rate": 3e-3, "tokens": 1_500_000},
                     {"mle": {}, "conditional": {**CONDITIONAL, "drop": 0.01}, "filter": {"objective": "filter"},
                      "unlikelihood": {"objective": "unlikelihood"}, "rwr10": {"objective": "rwr", "beta": 10.0},
                      "awr": {"objective": "awr", "alpha": 0.5, "beta": 10.0}},
                     {"conditional": (GOOD, UNTAGGED, BAD)})}
NOISE = ((0.75, 1.0), (0.5, 1.0), (1.0, 0.75), (1.0, 0.5))
"""(recall, precision) of the scorer with mistakes; (1, 1) is the toy's own runs."""
NOISY_ARMS = ("filter", "conditional", "mask", "unlikelihood")
QUICK = {"tokens": 4096, "size": "60K"}


@dataclass(frozen=True)
class Cell:
    """One entry of the grid; `recall` and `precision` are the scorer's."""

    kind: str
    task: str
    arm: str
    seed: int
    recall: float = 1.0
    precision: float = 1.0

    @property
    def name(self) -> str:
        noise = "" if self.recall == self.precision == 1 else f"-recall{self.recall:g}-precision{self.precision:g}"
        return f"{self.kind}-{self.task}-{self.arm}-{self.seed}{noise}"


def cells() -> list[Cell]:
    """The grid in the order in which it is worked off. Of a group each seed comes once before any comes for the next group."""
    def runs(task: str, *arms: str) -> list[Cell]:
        return [Cell("run", task, arm, seed) for seed in SEEDS for arm in arms]
    noisy = [Cell("run", "toy", arm, seed, *noise) for seed in SEEDS for noise in NOISE for arm in NOISY_ARMS]
    cures = [Cell(kind, "toy", "conditional", seed) for kind in ("cuts", "attack") for seed in SEEDS]
    return [*runs("toy", "conditional", "mle", "filter", "rwr10", "late10"), *runs("toxicity", "conditional", "mle"),
            *runs("package", "conditional", "mle"), *runs("pep8", "conditional", "mle"), *runs("toy", "poisoned"), *cures,
            *runs("toy", "unlikelihood", "mask", "route", "rwr.1", "awr", "from20", "from60", "cooldown", "drop10"),
            *runs("toy", *(a for a in TASKS["toy"].arms if "@" in a)), *noisy,
            *runs("toxicity", "filter", "unlikelihood", "rwr10", "awr"), *runs("pep8", "filter", "unlikelihood", "rwr10", "awr")]


class Grid:
    """The folder of a grid. What several cells need is made once, under a lock."""

    def __init__(self, out: Path, data: Path | None, quick: bool) -> None:
        self.out, self.data, self.quick = out, data, quick

    def annotated(self, cell: Cell) -> Path:
        """The task's annotated corpus, by the cell's scorer."""
        noisy = (cell.recall, cell.precision) != (1, 1)
        task, folder = TASKS[cell.task], self.out / cell.task / (cell.name.split(f"{cell.seed}-", 1)[1] if noisy else "annotated")
        corpus = self.out / cell.task / "corpus.jsonl"
        if not corpus.exists():
            kept = corpus.with_suffix(".new")
            if cell.task == "toxicity":
                assert self.data is not None
                tasks.text_corpus(self.data, kept)
            else:
                {"toy": tasks.toy_corpus, "pep8": tasks.code_corpus, "package": tasks.package_corpus}[cell.task](kept)
            kept.replace(corpus)
        annotate([corpus], folder, partial(tasks.NoisyCurse, cell.recall, cell.precision) if noisy else task.scorer,
                 segmenter=task.segmenter, split_bytes=1 << 20)
        return folder

    def config(self, cell: Cell) -> Any:
        task, method = TASKS[cell.task], find_method("phf")
        self.out.joinpath(cell.task).mkdir(parents=True, exist_ok=True)
        with (self.out / cell.task / ".lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            common = {**COMMON, **task.model, "data": str(self.annotated(cell)), "threshold": task.threshold, "seed": cell.seed}
            config = method.Config(out=str(self.out / cell.task / cell.name), **common | task.arms[cell.arm]
                                   | (QUICK if self.quick else {}))
            method.prepare(config)  # the model to start from, which all arms of a seed share
        return config

    def do(self, cell: Cell) -> dict[str, Any]:
        return {"run": self.run, "cuts": self.cuts, "attack": self.attack}[cell.kind](cell)

    def run(self, cell: Cell) -> dict[str, Any]:
        task, config, method = TASKS[cell.task], self.config(cell), find_method("phf")
        start = time.process_time()
        run = train(method, config)
        trained = time.process_time() - start
        samples = 32 if self.quick else task.samples
        modes = {}
        for mode, tag in task.modes.get(cell.arm, (("untagged", "each"),)):
            if (cell.recall, cell.precision) != (1, 1) and (mode, tag) not in (GOOD, UNTAGGED):
                continue
            path = phf_cures.without_block(run.path, self.out / "cuts" / cell.name) if mode == "cut" else run.path
            modes[f"{mode} {tag}"] = task.measure(path, "untagged" if mode == "cut" else mode, tag, samples)
        held = {} if cell.task == "toy" else tasks.held_loss(run.path, Path(config.data), cell.seed, config.holdout,
                                                             config.max_length, config.threshold)
        return {"modes": modes, "held": held, "result": run.result, "train_cpu_seconds": trained,
                "measure_cpu_seconds": time.process_time() - start - trained}

    def cuts(self, cell: Cell) -> dict[str, Any]:
        return phf_cures.cuts(self.model(cell), self.model(Cell("run", "toy", "mle", cell.seed)), self.out / "cuts" / cell.name,
                               cell.seed, 32 if self.quick else 128)

    def attack(self, cell: Cell) -> dict[str, Any]:
        cut = self.out / "cuts" / f"cuts-toy-conditional-{cell.seed}" / "delete_bad"
        models = {"cut": cut, "whole": self.model(cell), "filtered": self.model(Cell("run", "toy", "filter", cell.seed)),
                  "poisoned": self.model(Cell("run", "toy", "poisoned", cell.seed))}
        if (routed := self.out / "cuts" / Cell("run", "toy", "route", cell.seed).name).exists():
            models["routed"] = routed
        return phf_cures.attacks(models, self.out / "attacks" / cell.name, cell.seed, 32 if self.quick else 128)

    def model(self, cell: Cell) -> Path:
        """A run that another cell made. Raises `FileNotFoundError` where it has not yet."""
        path = self.out / cell.task / Cell("run", cell.task, cell.arm, cell.seed).name
        if not (path / "result.json").exists():
            raise FileNotFoundError(path)
        return path


def work(grid: Grid, cell: Cell) -> str:
    """Does a cell unless its file is there; what was done, or why not."""
    kept = grid.out / "cells" / f"{cell.name}.json"
    if kept.exists():
        return ""
    start, cpu = time.monotonic(), time.process_time()
    try:
        result = grid.do(cell)
    except Exception:  # the grid goes on with its other cells, and the next start tries again
        return f"{cell.name}: failed\n{traceback.format_exc()}"
    result = {"cell": vars(cell), **result, "cpu_seconds": time.process_time() - cpu, "seconds": time.monotonic() - start}
    new = kept.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(result))
    new.replace(kept)
    return f"{cell.name}: {result['cpu_seconds']:.0f} s of CPU, {result['seconds']:.0f} s"


def begin(parent: int) -> None:
    """In a worker, once: one thread, and an end when the parent has been killed."""
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)
    torch.set_num_threads(1)
    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, help="folder with davidson_hate, paradetox and nltk_cc_by; without it no toxicity")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD", help="cells whose name holds one of these")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--docs", type=Path, metavar="PAGE", help="write the tables and the plot into this page too")
    args = parser.parse_args()
    (args.out / "cells").mkdir(parents=True, exist_ok=True)
    if not args.tables:
        grid = Grid(args.out, args.data, args.quick)
        todo = [c for c in cells() if (args.data or c.task != "toxicity") and (not args.quick or c.seed == 0)
                and (not args.only or any(w in c.name for w in args.only))]
        with get_context("spawn").Pool(args.workers, begin, (os.getpid(),)) as pool:
            for number, line in enumerate(pool.imap(partial(work, grid), todo), 1):
                if line:
                    print(f"{time.strftime('%H:%M:%S')} {number} of {len(todo)}: {line}", flush=True)
    parts = phf_tables.sections(args.out)
    print("\n\n".join(f"{name}\n\n{part}" for name, part in parts.items()) or "No cell is finished yet.")
    if args.docs:
        phf_tables.write_into(args.docs, parts)
        shutil.copy(args.out / "pareto.svg", args.docs.parent / "phf_pareto.svg")


if __name__ == "__main__":
    main()
