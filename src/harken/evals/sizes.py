"""Sizes: does a figure rise or fall as models grow? The trend over models of different size, by item.

    harken eval truthful --model small,middle,large --out runs/sizes      the trend comes with it, in runs/sizes/sizes-truthful
    harken eval sizes --runs runs/a/truthful,runs/b/truthful,runs/c/truthful --out runs/trend

Of finished evaluations of the same items by models whose number of parameters is known: each item's slope of its score on
log10(parameters), by least squares; the value is their mean, a change for ten times the parameters, with its interval and
p-value over items (Lin et al. 2022 found truthfulness falling with size). Paired, since all models answered the same items. It
speaks of these models: a trend over three of them is no law. sizes.svg draws it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harken.core.config import setting
from harken.core.errors import UserError
from harken.core.files import read_json
from harken.core.protocols import Estimate, EvalResult, Models
from harken.core.run import Run
from harken.draw.numbers import compact
from harken.draw.svg import Plot, padded
from harken.loops.items import mean_of
from harken.stats.intervals import Floats, mean_interval
from harken.stats.testing import holm, p_value

SCORES = ("score", "truthful", "informative", "mc1", "mc2")
CSS = (".grid{stroke:#ccc}.tick,.axis{font:11px sans-serif;fill:#555}.line{fill:none;stroke:#2563eb;stroke-width:1.5}"
       ".interval{fill:none;stroke:#2563eb}.dot{fill:#2563eb}")


@dataclass(frozen=True)
class Config:
    runs: str = setting("", required=True)
    """Finished evaluations of one kind, with commas between them, a model each."""
    what: str = "score"
    """Which of an item's scores makes the value."""
    out: str = setting("", required=True)
    """Run directory to write."""


Row = tuple[str, int, dict[tuple[str, int], Mapping[str, Any]]]
"""A model's name, its parameters, and its items."""


def evaluate(config: Config, models: Models, run: Run) -> EvalResult:
    """Raises `UserError` for runs that are no finished evaluations, of one size, or without common items."""
    rows = sorted((read(path.strip()) for path in config.runs.split(",") if path.strip()), key=lambda r: r[1])
    if len({parameters for _, parameters, _ in rows}) < 2:
        raise UserError("A trend needs models of at least two sizes.", "Name runs of models that differ in size.")
    size = np.log10([float(parameters) for _, parameters, _ in rows])
    shared = [key for key in rows[0][2] if all(key in items for _, _, items in rows)]
    trends: dict[str, tuple[Estimate, float]] = {}
    for what in dict.fromkeys((config.what, *SCORES)):
        table = table_of(rows, shared, what)
        if table.size:
            slopes = slopes_of(size, table)
            trends[what] = mean_interval(slopes), p_value(slopes)
    if config.what not in trends:
        raise UserError(f"No item has {config.what!r} of every model.", "Name another score with --what, or check the runs.")
    adjusted = dict(zip(trends, holm([p for _, p in trends.values()])))
    table = table_of(rows, shared, config.what)
    figures: dict[str, Any] = {"models": {name: {"parameters": n, config.what: mean_of(list(map(float, column)), name, None)}
                                          for (name, n, _), column in zip(rows, table.T)}}
    for what, (slope, p) in trends.items():
        figures[f"per tenfold: {what}"] = {"slope": slope, "p": p, "p_holm": float(adjusted[what])}
    (run.path / "sizes.svg").write_text(picture(rows, size, table, config.what).file(CSS), encoding="utf-8")
    slope, p = trends[config.what]
    words = "rises" if slope.low > 0 else "falls" if slope.high < 0 else "shows no trend"
    run.note(f"{config.what} {words} with size: {slope.value:+.3f} for ten times the parameters (p {p:.2g}), {len(rows)} models.")
    return EvalResult(slope, {**figures, "paired": True}, {"no trend": Estimate(0.0, 0.0, 0.0, slope.n)}, better="",
                      missing=len(shared) - len(table))


def read(path: str) -> Row:
    """A finished run's model, parameters and items; equal items are told apart by their order."""
    file = Path(path) / "result.json"
    if not file.is_file():
        raise UserError(f"{path} is no finished evaluation.", "Name its run directory.")
    result = read_json(file)
    if not isinstance(result, dict) or not result.get("parameters") or not result.get("samples"):
        raise UserError(f"{path} does not say how many parameters its model has, or has no samples.",
                        "harken eval truthful of a model with weights says both.")
    seen: Counter[str] = Counter()
    items = {}
    for sample in result["samples"]:
        name = str(sample.get("item") or sample.get("prompt"))
        items[name, seen[name]] = sample
        seen[name] += 1
    return str(result.get("model", path)), int(result["parameters"]), items


def table_of(rows: Sequence[Row], shared: Sequence[tuple[str, int]], what: str) -> Floats:
    """[items, models] of the items that every model has the score of."""
    found = [[items[key].get(what) for _, _, items in rows] for key in shared]
    return np.array([row for row in found if all(isinstance(x, (int, float)) for x in row)], dtype=np.float64)


def slopes_of(size: Floats, table: Floats) -> Floats:
    """Each item's least-squares slope on `size`, sum (x - mean x) s / sum (x - mean x)^2; their mean is the means' slope."""
    x = size - size.mean()
    return np.asarray(table @ x / (x @ x), dtype=np.float64)


def picture(rows: Sequence[Row], size: Floats, table: Floats, what: str) -> Plot:
    means = [mean_interval(column) for column in table.T]
    low, high = padded([e.low for e in means] + [e.high for e in means])
    desc = f"Mean {what} with its interval, by number of parameters."
    plot = Plot(f"{what} against size", desc, padded(list(size)), (low, high),
                x_label="parameters", y_label=what, x_ticks=list(dict.fromkeys(size)), x_format=lambda v: compact(10 ** v))
    plot.line([(float(x), e.value) for x, e in zip(size, means)], "line")
    for x, e in zip(size, means):
        plot.upright(float(x), e.low, e.high, "interval")
    plot.dots([(float(x), e.value) for x, e in zip(size, means)], "", [3.5] * len(means), [name for name, _, _ in rows])
    return plot
