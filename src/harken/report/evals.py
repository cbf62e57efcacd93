"""Every evaluation that has no table of its own, drawn from the common result: value, interval, n, what it stands beside, what
is missing."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from harken.core.protocols import Estimate
from harken.draw import numbers
from harken.report.compared import least, of_two
from harken.report.load import RunData, estimate
from harken.report.results import Column, estimates_table, model_of, name_of

SENSES = {"higher": "higher is better", "lower": "lower is better"}
RATES = (0.0, 1.0)
MANY = 4
"""With more evaluation runs than this their tables are folded."""


def evals(runs: Sequence[RunData]) -> str:
    """A table of all evaluations by model, where there are several models; then a table an evaluation run, folded where many."""
    shown = [run for run in runs if is_eval(run) and run.kind != "ratings" and estimate((run.result or {}).get("value"))]
    tables = [(run, _beside(run) if run.kind == "win_rate" else _table(run) + _tasks(run)) for run in shown]
    if len(tables) <= MANY:
        return _overview(shown) + "".join(table for _, table in tables)
    return _overview(shown) + "".join(f"<details><summary>{html.escape(_summary(run))}</summary>{table}</details>"
                                      for run, table in tables if table)


def _summary(run: RunData) -> str:
    e = estimate((run.result or {})["value"])
    return f"{run.name}: {model_of(run)}, {numbers.value(e)} {numbers.span(e)}, n = {e.n:,}" if e else run.name


def _overview(runs: Sequence[RunData]) -> str:
    """Evaluations by model, in the order given: each figure with its interval and n, and the least difference that so many items
    could show. Nothing for a single model; what compared two models by itself stands among the comparisons."""
    own = [run for run in runs if run.kind != "win_rate" and (not (run.result or {}).get("paired") or not of_two(run)
                                                              or (run.result or {}).get("name") == "tax")]
    models = list(dict.fromkeys(model_of(run) for run in own))
    if len(models) < 2:
        return ""
    notes: dict[str, str] = {}
    cells: dict[str, dict[str, Estimate | None]] = {}
    for run in own:
        result, model = run.result or {}, model_of(run)
        told = least(result)
        key = name_of(str(result.get("name", run.kind)))
        if model in cells.get(key, {}):
            key = f"{key}, {run.name}"
        apart = f"could show a difference of {numbers.number(told, 2)}" if told else ""
        notes.setdefault(key, "; ".join(filter(None, (SENSES.get(str(result.get("better"))), apart))))
        cells.setdefault(key, {})[model] = estimate(result["value"])
    return estimates_table("Every evaluation by model, with 95% intervals; — was not measured", "Evaluation", cells,
                           [Column(model, model, "", bar=False) for model in models], notes=notes)


def _beside(run: RunData) -> str:
    """What a win rate found beside the rate: the judge's own figures, the rate by group, corrected, at equal lengths."""
    rows = {name: {"value": found} for name, found in estimates(run.result or {})
            if name != "value" and not name.startswith("mean score")}
    return estimates_table(f"{run.name}: beside the win rate, with 95% intervals", "Figure", rows,
                           (Column("value", "Value", "rates, but for log-odds"),))


def is_eval(run: RunData) -> bool:
    return str(run.config.get("command", "")).startswith("eval ")


def _table(run: RunData) -> str:
    result = run.result or {}
    rows: dict[str, Estimate | None] = {name_of(str(result.get("name", run.kind))): estimate(result["value"])}
    rows |= {name: found for name, found in estimates(result) if name != "value"}
    beside = {f"Beside it: {name}": estimate(value) for name, value in (result.get("baselines") or {}).items()}
    models = " against ".join(name for name in (model_of(run), model_of(run, "against")) if name)
    missing = f"; {result['missing']:,} items have no score" if result.get("missing") else "; no item lacks a score"
    told = least(result)
    apart = f"; so many items tell two models apart that differ by {numbers.number(told, 2)} or more" if told else ""
    column = Column("value", "Value", SENSES.get(str(result.get("better")), "neither way is better"))
    cells = {name: {"value": value} for name, value in {**rows, **beside}.items()}
    return estimates_table(f"{run.name}: {models or 'this run'}, with 95% intervals{missing}{apart}", "Figure", cells, (column,),
                           lambda name: name in beside)


def _tasks(run: RunData) -> str:
    """A table of tasks by model, before and after, as InstructGPT's Table 14 is laid out; the verdicts under it, in words."""
    tasks = (run.result or {}).get("tasks")
    rows = {str(name): row for name, row in tasks.items() if isinstance(row, Mapping)} if isinstance(tasks, Mapping) else {}
    if not rows:
        return ""
    names = {"against": "Before", "model": "After", "difference": "Difference"}
    columns = tuple(Column(key, label, "higher is better") for key, label in names.items())
    cells = {f"{name} ({row.get('metric', '')})": {key: estimate(row.get(key)) for key in names} for name, row in rows.items()}
    table = estimates_table(f"{run.name}: each task before and after, the paired difference with its 95% interval", "Task", cells,
                            columns, lambda name: False)
    words = "".join(f"<li>{html.escape(name)}: {html.escape(str(row.get('verdict', '')))}</li>" for name, row in rows.items())
    return f"{table}<ul>{words}</ul>"


def estimates(result: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Estimate]]:
    """(name, estimate) of every estimate in a result, those of groups under "group: name"; baselines and samples apart."""
    pairs: list[tuple[str, Estimate]] = []
    for key, value in result.items():
        if key in ("baselines", "samples", "notes", "tasks", "parameters"):
            continue
        name = f"{prefix}{key.replace('_', ' ')}"
        if found := estimate(value):
            pairs.append((name, found))
        elif isinstance(value, Mapping):
            pairs += estimates(value, f"{name}: ")
    return pairs
