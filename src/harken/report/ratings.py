"""What people said of the answers: ratings by model, and how often each flag was ticked, as bars with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harken.draw.html import text
from harken.report.load import RunData, estimate
from harken.report.results import Column, estimates_table, name_of, short


def rated(runs: Sequence[RunData]) -> str:
    """A part for every run of `ratings`; empty without any."""
    return "".join(_part(run) for run in runs if (run.result or {}).get("name") == "ratings")


def _part(run: RunData) -> str:
    r = run.result or {}
    models = [str(name) for name in r.get("likert") or {}]
    scale = f", on a scale of {r['scale']}" if r.get("scale") else ""
    ends = tuple(float(x) for x in str(r["scale"]).split(" to ")) if r.get("scale") else ()
    mean = estimates_table(f"{run.name}: mean rating{scale}, with 95% intervals over prompts", "Model",
                           {short(m): {"likert": estimate(r["likert"][m])} for m in models},
                           (Column("likert", "Mean rating", "higher is better", include=ends),))
    flags = _crossed("How often each flag was ticked, where it applies", "Flag", r.get("flags"), models, rate=True)
    cases = _crossed("Mean rating by use case", "Use case", r.get("likert_by_use_case"), models, ends=ends)
    return f"<h3>{text(run.name)}</h3>{mean}{flags}{cases}"


def _crossed(caption: str, first: str, table: Any, models: Sequence[str], *, rate: bool = False,
             ends: tuple[float, ...] = ()) -> str:
    """Rows by name, a column a model, all columns on one scale."""
    if not isinstance(table, Mapping):
        return ""
    rows = {name_of(str(name)): {m: estimate(cells.get(m)) for m in models} for name, cells in table.items()
            if isinstance(cells, Mapping)}
    held = [v for row in rows.values() for e in row.values() if e for v in (e.low, e.high) if math.isfinite(v)]
    shared = ends or ((min(held), max(held)) if held else ())
    return estimates_table(caption, first, rows, tuple(Column(m, short(m), "", rate, include=shared) for m in models))
