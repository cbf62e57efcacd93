"""Charts: reward against KL, the reward model's calibration and accuracy, and training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harken.draw import numbers
from harken.draw.html import data_table, text
from harken.draw.svg import Plot, binned, padded, smooth
from harken.report.load import RunData, estimate, is_number, series
from harken.report.results import Column, estimates_table, name_of, summaries
from harken.stats.intervals import wilson

FIRST = ("reward", "gold", "kl", "entropy", "length", "eos_rate", "clip_fraction", "logprob_gap", "loss", "nll",
         "heldout_nll", "accuracy")
LABELS = {"reward": "Reward (proxy)", "gold": "Gold score", "kl": "KL (nats)", "nll": "NLL (nats a token)",
          "length": "Length (tokens)", "eos_rate": "Finished by itself", "clip_fraction": "Clipped share",
          "logprob_gap": "Log-prob gap, sampler to trainer", "heldout_nll": "Held-out NLL (nats a token)",
          "reward_std": "Spread of reward", "flat_groups": "Groups of equal reward", "flat_share": "Share of equal groups",
          "reward_length_r": "r(reward, length)", "ratio_outside": "Ratios outside [0.9, 1.1]",
          "audit_proxy": "Audit: proxy", "audit_held_out": "Audit: held-out reward", "audit_kl": "Audit: KL (nats)"}


def label(key: str) -> str:
    return LABELS.get(key, key.replace("_", " ").capitalize())


def reward_against_kl(runs: Sequence[RunData]) -> str:
    """Proxy reward and, where logged, gold score and the audits' held-out reward over the square root of KL (Gao et al. 2022)."""
    out = []
    shown = (("reward", "kl", "accent"), ("gold", "kl", "gold"), ("audit_held_out", "audit_kl", "gold"))
    for run in runs:
        panels = [_frontier(run, *curve) for curve in shown]
        if any(panels):
            out.append(f'<h3>{text(run.name)}</h3><div class="pair">{"".join(panels)}</div>')
    return "".join(out)


def _frontier(run: RunData, key: str, distance: str, style: str) -> str:
    rows = [r for r in run.metrics if is_number(r.get(distance)) and is_number(r.get(key)) and is_number(r.get("step"))]
    if len(rows) < 2:
        return ""
    by_step = sorted(rows, key=lambda r: r["step"])
    raw = binned([(math.sqrt(max(r[distance], 0.0)), float(r[key])) for r in by_step], 120)
    across = smooth([(i, p[0]) for i, p in enumerate(raw)])
    path = [(a[1], p[1]) for a, p in zip(across, smooth(raw))]
    x = padded([p[0] for p in raw])
    plot = Plot(f"{label(key)} against √KL, {run.name}",
                f"From {numbers.number(path[0][1])} at √KL {numbers.number(path[0][0])} to {numbers.number(path[-1][1])} "
                f"at √KL {numbers.number(path[-1][0])}.", (max(0.0, x[0]), x[1]), padded([p[1] for p in raw]),
                x_label="Distance from the start, √KL (√nats)", y_label=label(key))
    plot.dots(raw, f"{style} faint", [2.4] * len(raw))
    plot.line(path, f"line {style}")
    plot.dots([path[-1]], style, [5.0])
    shown = by_step[::max(1, len(by_step) // 20)]
    table = data_table(f"{label(key)} and KL by step, {run.name}", ("Step", "KL", label(key)),
                       ((f"{r['step']}", numbers.number(r[distance]), numbers.number(r[key])) for r in shown))
    return (f"<figure>{plot.svg()}<figcaption>Dots are single steps, the line a running mean in order of steps, "
            f"the large dot its end.</figcaption>{table}</figure>")


def reward_models(runs: Sequence[RunData]) -> str:
    """Accuracy beside null baselines, and calibration, of every reward model found."""
    models = [(r.name, r.result) for r in runs if r.result and estimate(r.result.get("accuracy"))]
    if not models:
        models = [(r.name, s) for r in summaries(runs)
                 if isinstance(s := (r.summary or {}).get("reward_model"), dict) and estimate(s.get("accuracy"))]
    out = []
    for name, result in models:
        heading = f"<h3>{text(name)}</h3>" if len(models) > 1 else ""
        out.append(f'{heading}<div class="pair">{_accuracy(result)}{_calibration(name, result)}</div>')
    return "".join(out)


def _accuracy(result: Mapping[str, Any]) -> str:
    baselines = {f"Null baseline: {k}": {"accuracy": estimate(v)} for k, v in (result.get("baselines") or {}).items()}
    rows = {"Reward model": {"accuracy": estimate(result.get("accuracy"))}}
    if held := estimate(result.get("accuracy_labelers")):
        rows["On held-out labelers"] = {"accuracy": held}
    column = Column("accuracy", "Accuracy", "share of held-out pairs ranked as people did", True, 0.5)
    table = estimates_table("Accuracy beside rules that read nothing", "Scorer", rows | baselines, (column,),
                            lambda row: row in baselines)
    missing = "" if baselines else '<p class="small">No null baseline was recorded.</p>'
    return f"<div>{table}{missing}</div>"


def _calibration(name: str, result: Mapping[str, Any]) -> str:
    bins = [b for b in result.get("calibration") or [] if isinstance(b, Mapping)
            and all(is_number(b.get(k)) for k in ("predicted", "observed", "n")) and b["n"] >= 1]
    if not bins:
        return ""
    low = 0.5 if min(b["predicted"] for b in bins) >= 0.5 else 0.0
    spans = [(b["low"], b["high"]) if is_number(b.get("low")) and is_number(b.get("high"))
             else ((e := wilson(min(max(b["observed"], 0.0), 1.0) * b["n"], int(b["n"]))).low, e.high) for b in bins]
    bottom = min([low, *(s[0] for s in spans)])
    y = (math.floor(10 * bottom) / 10, 1.0)
    ece = result.get("ece")
    error = f" Expected calibration error {numbers.percent(ece)}." if is_number(ece) else ""
    plot = Plot(f"Calibration of {name}", f"Observed against predicted in {len(bins)} bins.{error}", (low, 1.0), y,
                x_label="Predicted chance of being preferred", y_label="Share that people preferred",
                height=320, x_format=_whole, y_format=_whole)
    plot.line([(max(low, y[0]), max(low, y[0])), (1, 1)], "diagonal")
    most = max(b["n"] for b in bins)
    for b, (down, up) in zip(bins, spans):
        plot.upright(b["predicted"], down, up, "interval accent")
    rows = [(numbers.percent(b["predicted"]), numbers.percent(b["observed"]),
             f"[{numbers.percent(s[0])}, {numbers.percent(s[1])}]", f"{b['n']:,}") for b, s in zip(bins, spans)]
    plot.dots([(b["predicted"], b["observed"]) for b in bins], "accent",
              [3 + 5 * math.sqrt(b["n"] / most) for b in bins],
              [f"predicted {p}, observed {o}, {n} pairs" for p, o, _, n in rows])
    table = data_table(f"Calibration of {name}", ("Predicted", "Observed", "95% interval", "Pairs"), rows)
    return (f"<figure>{plot.svg()}<figcaption>On the dashed line a prediction means what it says. Larger dots hold "
            f"more pairs.{error}</figcaption>{table}</figure>")


def _whole(v: float) -> str:
    return f"{100 * v:.0f}%"


def training(runs: Sequence[RunData]) -> str:
    """Small multiples: every metric of every run over its steps."""
    return "".join(_training_of(r) for r in runs if r.metrics)


def _training_of(run: RunData) -> str:
    keys = sorted({k for row in run.metrics for k in row} - {"step", "seconds"})
    keys.sort(key=lambda k: FIRST.index(k) if k in FIRST else len(FIRST))
    figures, constant, rows = [], [], []
    for key in keys:
        points, _ = series(run.metrics, key)
        if not points:
            continue
        values = [p[1] for p in points]
        if min(values) == max(values) and len(values) > 1:
            constant.append(f"{label(key)} {numbers.compact(values[0])}")
            continue
        figures.append(_small(run, key, points))
        ends = map(numbers.number, (values[0], values[-1], min(values), max(values)))
        rows.append((label(key), *ends, f"{len(values):,}"))
    if not figures and not constant:
        return ""
    steps = [r["step"] for r in run.metrics if is_number(r.get("step"))]
    took = run.metrics[-1].get("seconds")
    about = [name_of(run.kind), f"{max(steps):,.0f} steps" if steps else "",
             numbers.duration(took, "h") if is_number(took) else "", "" if run.done else "not finished"]
    same = f'<p class="small">Constant: {text("; ".join(constant))}.</p>' if constant else ""
    table = data_table(f"Training of {run.name}", ("Metric", "First", "Last", "Least", "Greatest", "Steps"), rows)
    return (f'<h3>{text(run.name)} <span class="about">{text(" · ".join(a for a in about if a))}</span></h3>'
            f'<div class="multiples">{"".join(figures)}</div>{same}{table if rows else ""}')


def _small(run: RunData, key: str, points: list[tuple[float, float]]) -> str:
    raw = binned(points)
    x = (points[0][0], points[-1][0]) if points[-1][0] > points[0][0] else padded([points[0][0]])
    last = smooth(raw)[-1][1]
    plot = Plot(f"{label(key)} of {run.name}", f"From {numbers.number(points[0][1])} to {numbers.number(points[-1][1])} over "
                f"{len(points)} steps.", x, padded([p[1] for p in raw]), width=270, height=150, x_ticks=[x[0], x[1]],
                x_format=lambda v: f"{v:,.0f}")
    plot.line(raw, "line accent faint")
    plot.line(smooth(raw), "line accent")
    return (f"<figure><figcaption><span>{text(label(key))}</span> <strong>{text(numbers.number(last))}</strong>"
            f"</figcaption>{plot.svg()}</figure>")
