"""lm-eval's tasks in this process: its definitions and scorers, our engine; local data, no network.

    harken eval lm_eval --model runs/rloo --against smollm2 --tasks tasks/capitals.yaml,tasks/drop.yaml --out runs/lm
    harken eval lm_eval --model smollm2 --tasks hellaswag --out runs/hellaswag        (its data must be in the local cache)

A task is a YAML file of lm-eval's (data_files name local json, csv or parquet), or a name it ships. Each task's first metric is
kept by item; what several answers of one item are is averaged first. Log-probs and generations are those that lm-eval's own model
gives; a context is computed once for all of its options. With --against: the paired difference of each task, Holm-corrected.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harken.core.config import EvalConfig, setting
from harken.core.errors import UserError
from harken.core.protocols import Estimate, EvalResult, Models
from harken.core.run import Run
from harken.loops.lm_eval import as_lm
from harken.stats.compare import compare, corrected
from harken.stats.intervals import mean_interval


@dataclass(frozen=True)
class Config(EvalConfig):
    tasks: str = setting("", required=True)
    """lm-eval's YAML files or task names, with commas between."""
    chat: bool = False
    """Questions as the user's turn of the model's chat template, as lm-eval's --apply_chat_template does."""
    margin: float = setting(0.0, least=0)
    """Smallest difference that matters: with it a difference shown to be smaller is called a tie; 0 never calls one."""


@dataclass(frozen=True)
class Item:
    """A document's score by a task's first metric: None where it has none."""

    name: str
    prompt: str
    answer: str
    score: float | None
    metric: str


def evaluate(config: Config, models: Models, run: Run) -> EvalResult:
    """Raises `UserError` without lm-eval, for a task that cannot be loaded, and for servers, which give no log-probs."""
    names = [name for name in ("model", "against") if getattr(config, name)]
    read = {name: measured(models.stored(name), config) for name in names}
    own = read["model"]
    samples = [{"task": task, "item": i.name, "prompt": i.prompt, "answer": i.answer, "score": i.score,
                "why": "" if i.score is not None else "lm-eval gave no number"} for task, items in own.items() for i in items]
    missing = sum(s["score"] is None for s in samples)
    means = {task: mean for task, items in own.items() if (mean := _mean(items)) is not None}
    if not means:
        raise UserError("No item of any task has a number.", "Choose tasks whose first metric is a number an item.")
    if "against" not in read:
        table = {task: {"metric": own[task][0].metric, "model": e} for task, e in means.items()}
        return EvalResult(_together(list(means.values())), {"by_task": table}, {}, samples, missing)
    made = {}
    for task, items in own.items():
        try:
            made[task] = compare(_scores(items), _scores(read["against"][task]), margin=config.margin or None)
        except ValueError as error:
            run.note(f"{task} is left out: {error}.")
    if not made:
        raise UserError("No task gave a score in both models.", "The notes say why.")
    held = {task: {"metric": own[task][0].metric, "model": c.a, "against": c.b, "difference": c.difference, "p_holm": c.p,
                   "least_detectable": c.detectable, "missing": c.missing, "verdict": c.words("the model", "the one before")}
            for task, c in corrected(made).items()}
    value = _together([c.difference for c in made.values()])
    return EvalResult(value, {"tasks": held, "paired": True}, {}, samples, missing)


def measured(stored: Any, config: Config) -> dict[str, list[Item]]:
    """Items by task, in lm-eval's order."""
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    lm = as_lm(stored)
    from lm_eval.evaluator import evaluate as run_tasks
    from lm_eval.tasks import TaskManager
    words = [word.strip() for word in config.tasks.split(",") if word.strip()]
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its bars; ours show the model's work
            tasks = TaskManager(include_defaults=not all(Path(w).is_file() for w in words)).load(words)
            found = run_tasks(lm=lm, task_dict=tasks, limit=config.limit or None, bootstrap_iters=0, log_samples=True,
                              apply_chat_template=config.chat)
    except UserError:
        raise
    except Exception as error:  # whatever a task's YAML, template or data may raise
        raise UserError(f"lm-eval could not run {config.tasks}: {type(error).__name__}: {str(error).splitlines()[0][:200]}",
                        "Check the task's file, and that its data is local (docs/evals/lm_eval.md).") from None
    return {name: [_item(row) for row in rows] for name, rows in found["samples"].items() if rows}


def _item(row: Mapping[str, Any]) -> Item:
    metric = next((m for m in row["metrics"] if isinstance(row.get(m), bool | int | float)), (row["metrics"] or ["score"])[0])
    value = row.get(metric)
    score = float(value) if isinstance(value, bool | int | float) and value == value else None
    arguments = row["arguments"]
    first = arguments["gen_args_0"]["arg_0"] if isinstance(arguments, Mapping) else arguments[0][0]
    return Item(str(row["doc_hash"]), str(first), _answer(row["filtered_resps"]), score, str(metric))


def _answer(given: Any) -> str:
    """What was generated, or the log-probs of the options."""
    if isinstance(given, str):
        return given
    parts = [f"{x[0]:.2f}" if isinstance(x, Sequence) and not isinstance(x, str) and x and isinstance(x[0], float) else str(x)
             for x in given]
    return ", ".join(parts)


def _scores(items: Sequence[Item]) -> dict[str, list[float | None]]:
    found: dict[str, list[float | None]] = {}
    for item in items:
        found.setdefault(item.name, []).append(item.score)
    return found


def _mean(items: Sequence[Item]) -> Estimate | None:
    """Over documents: what one document scored several times is averaged first."""
    known = [[x for x in row if x is not None] for row in _scores(items).values()]
    means = [sum(row) / len(row) for row in known if row]
    share = all(0 <= x <= 1 for x in means)
    return mean_interval(means, bounds=(0.0, 1.0) if share else None) if means else None


def _together(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of the tasks, each weighing alike; tasks share no items, so half-widths add as sqrt(sum h^2) / k."""
    k = len(estimates)
    value = sum(e.value for e in estimates) / k
    down = sum((e.value - e.low) ** 2 for e in estimates) ** 0.5 / k
    up = sum((e.high - e.value) ** 2 for e in estimates) ** 0.5 / k
    return Estimate(value, value - down, value + up, sum(e.n for e in estimates))
