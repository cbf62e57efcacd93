"""What alignment cost: each model's alignment against its capability or its distance, with intervals both ways.

Over checkpoints, KL weights or pretraining weights: evaluate each model, and give all runs to one report (InstructGPT's figures
33 and 34; the Pareto plots of pretraining with human feedback). A model that another beats both ways is grey.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harken.core.protocols import Estimate
from harken.draw import numbers
from harken.draw.html import data_table, text
from harken.draw.svg import Plot, padded
from harken.report.load import RunData, estimate, is_number
from harken.report.results import name_of, short

COSTS = {"tax": "mean difference of the tasks from the model before",
         "capability": "change in NLL, nats a token (turned: right is less)",
         "kl_capability": "KL from the reference, nats (turned: right is less)",
         "bits_per_byte": "bits a byte (turned: right is less)"}
GOODS = ("win_rate", "truthful", "refusals", "toxicity", "injection", "bias", "sycophancy", "misalignment")
WEIGHTS = ("beta", "ptx_coef", "kl_coef")


@dataclass(frozen=True)
class Point:
    """`good` and `cheap` are turned so that more is better."""

    model: str
    note: str
    good: Estimate
    cheap: Estimate


def tradeoffs(runs: Sequence[RunData]) -> str:
    """A plot for each couple of an alignment and a cost that two models or more have."""
    values: dict[str, dict[str, Estimate]] = {}
    for run in runs:
        result = run.result or {}
        e = estimate(result.get("value"))
        model = run.config.get("model") or result.get("model")
        if e and isinstance(model, str) and (name := str(result.get("name"))) in (*COSTS, *GOODS):
            values.setdefault(name, {})[model] = _turned(e, result)
    out = []
    for cost in (c for c in COSTS if c in values):
        for good in (g for g in GOODS if g in values):
            both = [m for m in values[good] if m in values[cost]]
            if len(both) > 1:
                points = [Point(short(m), _settings(m, runs), values[good][m], values[cost][m]) for m in both]
                out.append(_plot(good, cost, points))
    return f'<div class="pair">{"".join(out)}</div>' if out else ""


def _turned(e: Estimate, result: Mapping[str, Any]) -> Estimate:
    return Estimate(0.0 - e.value, 0.0 - e.high, 0.0 - e.low, e.n, e.level) if result.get("better") == "lower" else e


def _settings(model: str, runs: Sequence[RunData]) -> str:
    """The weights that a sweep varies, from the run that made the model; nothing where it is not to be found."""
    place = Path(model)
    known = next((run.config for run in runs if run.path.resolve() == place.resolve()), None)
    if known is None and (place / "config.json").is_file():
        try:
            known = json.loads((place / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
    if not isinstance(known, dict):
        return ""
    varied = [w for w in WEIGHTS if is_number(known.get(w)) and (w != "ptx_coef" or known.get("ptx_data"))]
    return ", ".join(f"{w} {numbers.compact(known[w])}" for w in varied)


def dominated(point: Point, points: Sequence[Point]) -> bool:
    """Whether another's estimates are at least as good both ways, and better in one."""
    a, b = point.good.value, point.cheap.value
    return any(o.good.value >= a and o.cheap.value >= b and (o.good.value > a or o.cheap.value > b) for o in points)


def _plot(good: str, cost: str, points: Sequence[Point]) -> str:
    ends = [(v for e in (p.cheap for p in points) for v in (e.value, e.low, e.high)),
            (v for e in (p.good for p in points) for v in (e.value, e.low, e.high))]
    x, y = (padded(list(values)) for values in ends)
    beaten = [p for p in points if dominated(p, points)]
    best = [p.model for p in points if p not in beaten]
    title = f"{name_of(good)} against {name_of(cost)}"
    plot = Plot(title, f"{len(points)} models; not beaten both ways: {', '.join(best)}.", x, y, height=320,
                x_label=f"{name_of(cost)}: right is better", y_label=f"{name_of(good)}: up is better")
    for point in points:
        style = "grey" if point in beaten else "accent"
        e, f = point.cheap, point.good
        plot.line([(max(e.low, x[0]), f.value), (min(e.high, x[1]), f.value)], f"interval {style} faint")
        plot.upright(e.value, f.low, f.high, f"interval {style} faint")
        plot.dots([(e.value, f.value)], style, [5.0], [f"{_named(point)}: {_shown(f)}, cost {_shown(e)}"])
    plot.names([(p.cheap.value, p.good.value, _named(p)) for p in points])
    rows = [(p.model, p.note or "–", _shown(p.good), _shown(p.cheap), "yes" if p in beaten else "no") for p in points]
    table = data_table(title, ("Model", "Settings", name_of(good), name_of(cost), "Beaten both ways"), rows)
    return (f"<figure>{plot.svg()}<figcaption>{text(name_of(cost))}: {text(COSTS[cost])}. Lines are 95% intervals; grey: another "
            f"model's estimates are as good both ways, and better in one.</figcaption>{table}</figure>")


def _named(point: Point) -> str:
    return f"{point.model}{f' ({point.note})' if point.note else ''}"


def _shown(e: Estimate) -> str:
    return f"{numbers.value(e)} {numbers.span(e)}"
