"""Every evaluation that has no table of its own, drawn from the common result: value, interval, n, what it stands beside, what
is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harken.core.protocols import Estimate
from harken.report.load import RunData, estimate
from harken.report.results import Column, estimates_table, name_of, short

SENSES = {"higher": "higher is better", "lower": "lower is better"}
RATES = (0.0, 1.0)


def evals(runs: Sequence[RunData]) -> str:
    """A table an evaluation run."""
    shown = [run for run in runs if is_eval(run) and run.kind != "win_rate" and estimate((run.result or {}).get("value"))]
    return "".join(map(_table, shown))


def is_eval(run: RunData) -> bool:
    return str(run.config.get("command", "")).startswith("eval ")


def _table(run: RunData) -> str:
    result = run.result or {}
    rows: dict[str, Estimate | None] = {name_of(str(result.get("name", run.kind))): estimate(result["value"])}
    rows |= {name: found for name, found in estimates(result) if name != "value"}
    beside = {f"Beside it: {name}": estimate(value) for name, value in (result.get("baselines") or {}).items()}
    models = " against ".join(short(result[key]) for key in ("model", "against") if result.get(key))
    missing = f"; {result['missing']:,} items have no score" if result.get("missing") else ""
    column = Column("value", "Value", SENSES.get(str(result.get("better")), "neither way is better"))
    cells = {name: {"value": value} for name, value in {**rows, **beside}.items()}
    return estimates_table(f"{run.name}: {models or 'this run'}, with 95% intervals{missing}", "Figure", cells, (column,),
                           lambda name: name in beside)


def estimates(result: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Estimate]]:
    """(name, estimate) of every estimate in a result, those of groups under "group: name"; baselines and samples apart."""
    pairs: list[tuple[str, Estimate]] = []
    for key, value in result.items():
        if key in ("baselines", "samples", "notes"):
            continue
        name = f"{prefix}{key.replace('_', ' ')}"
        if found := estimate(value):
            pairs.append((name, found))
        elif isinstance(value, Mapping):
            pairs += estimates(value, f"{name}: ")
    return pairs
