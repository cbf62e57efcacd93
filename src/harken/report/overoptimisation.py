"""Over-optimisation in the reward's card: proxy and gold, or held-out reward, against the distance, the fit of Gao et al. 2022
and where gold peaks. Gains count from the start."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harken.draw import numbers
from harken.draw.html import data_table, text
from harken.draw.svg import Plot, binned, padded
from harken.report.load import RunData, is_number
from harken.stats.overoptimization import Fit, fit_curve

FEWEST = 6
"""Points from which a curve of two coefficients is fitted."""
CURVES = (("reward", "gold", "kl"), ("audit_proxy", "audit_held_out", "audit_kl"))


def overoptimisation(runs: Sequence[RunData]) -> str:
    """A plot for each run that has both scores over its steps; empty where none has."""
    out = [_curve(run, *keys) for run in runs for keys in CURVES]
    return f'<h3>Over-optimisation</h3><div class="pair">{"".join(out)}</div>' if any(out) else ""


def _curve(run: RunData, proxy: str, gold: str, distance: str) -> str:
    rows = [r for r in run.metrics if all(is_number(r.get(k)) for k in (proxy, gold, distance))]
    if len(rows) < FEWEST:
        return ""
    d = [math.sqrt(max(r[distance], 0.0)) for r in rows]
    proxies, golds = ([float(r[k]) - float(rows[0][k]) for r in rows] for k in (proxy, gold))
    points = [binned(sorted(zip(d, values)), 60) for values in (proxies, golds)]
    shown = [p[1] for part in points for p in part]
    what = "gold score" if gold == "gold" else "held-out reward"
    fit = _fit(d, golds)
    words = _peak(fit, what, max(d)) if fit else f"Too few distances to fit where the {what} peaks."
    plot = Plot(f"Proxy and {what} of {run.name} against √KL", words, padded(d), padded([0.0, *shown]), height=300,
                x_label="Distance from the start, √KL (√nats)", y_label="Gain since the start")
    for part, style in zip(points, ("accent", "gold")):
        plot.dots(part, f"{style} faint", [2.6] * len(part))
    if fit:
        xs = np.linspace(max(min(d), 1e-3), max(d), 60)
        plot.line([(float(x), float(y)) for x, y in zip(xs, fit(xs))], "line gold")
        if fit.peak.value < max(d):
            plot.line([(fit.peak.value, plot.y[0]), (fit.peak.value, plot.y[1])], "diagonal")
    plot.legend([("line accent", "proxy, which is climbed"), ("line gold", what)])
    shown_rows = list(zip(d, proxies, golds))[::max(1, len(d) // 20)]
    table = data_table(f"Proxy and {what} of {run.name}", ("√KL", "Proxy", what),
                       (tuple(map(numbers.number, row)) for row in shown_rows))
    return f"<figure>{plot.svg()}<figcaption>{text(run.name)}: {text(words)}</figcaption>{table}</figure>"


def _fit(d: Sequence[float], gold: Sequence[float]) -> Fit | None:
    try:
        return fit_curve(d, gold, "rl", least=0.05)
    except ValueError:
        return None


def _peak(fit: Fit, what: str, furthest: float) -> str:
    """Where the fitted curve turns; an interval that has no end shows no turn. One run's steps share their noise."""
    e = fit.peak
    alpha, beta = numbers.number(fit.alpha.value), numbers.number(fit.beta.value)
    form = f"R = d(α − β ln d) fitted with α {alpha}, β {beta}, R² {fit.r2:.2f}"
    if not math.isfinite(e.value) or not math.isfinite(e.high):
        return f"{form}: no turn of the {what} is shown."
    place = "reached" if e.value < furthest else "not reached yet"
    span = f"[{numbers.number(e.low)}, {numbers.number(e.high)}]"
    return (f"{form}: the {what} peaks at √KL {numbers.number(e.value)} {span}, {place}. "
            "One run's steps are not independent: the interval is too narrow.")
