"""Runs that differ in their seed alone, together: a table of methods with intervals over seeds, and curves with bands."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harken.core.protocols import Estimate
from harken.core.records import content_hash
from harken.draw import numbers
from harken.draw.html import data_table, text
from harken.draw.svg import Plot, binned, padded
from harken.report.curves import FIRST, label
from harken.report.load import RunData, is_number, series
from harken.report.results import Column, estimates_table, name_of
from harken.stats.intervals import mean_interval
from harken.store.writing import defused, write_text

APART = frozenset(("seed", "out", "checkpoint_seconds", "report_to", "profile", "shard",
                   "checkpoint_activations"))
"""Settings in which the runs of one group may differ."""
MOST_POINTS = 60


@dataclass(frozen=True)
class Group:
    """Two runs or more of one method and one set of settings, each with a seed of its own."""

    name: str
    runs: tuple[RunData, ...]

    def ends(self, key: str) -> Estimate | None:
        """The mean over seeds of a metric's last tenth; None where not every run has it."""
        finals = []
        for run in self.runs:
            points, _ = series(run.metrics, key)
            if not points:
                return None
            last = points[-max(1, round(len(points) / 10)):]
            finals.append(sum(v for _, v in last) / len(last))
        return mean_interval(finals)

    def curve(self, key: str) -> list[tuple[float, Estimate]]:
        """(step, mean with its interval over seeds) at the steps that every run has."""
        each = [dict(series(run.metrics, key)[0]) for run in self.runs]
        steps = sorted(set.intersection(*(set(points) for points in each)))
        size = -(-len(steps) // MOST_POINTS) or 1
        out = []
        for i in range(0, len(steps), size):
            part = steps[i:i + size]
            out.append((sum(part) / len(part), mean_interval([sum(p[s] for s in part) / len(part) for p in each])))
        return out


def groups(runs: Sequence[RunData]) -> list[Group]:
    """The groups, in the order of their first runs. Alone standing runs are in none."""
    found: dict[str, list[RunData]] = {}
    for run in runs:
        if run.metrics and "seed" in run.config:
            found.setdefault(_key(run), []).append(run)
    several = {k: rs for k, rs in found.items() if len({r.config["seed"] for r in rs}) == len(rs) > 1}
    names = _names(list(several.values()))
    return [Group(name, tuple(rs)) for name, rs in zip(names, several.values())]


def _key(run: RunData) -> str:
    lineage = {k: v for k, v in run.lineage.items() if k not in ("created", "code", "longer", "out")}
    return content_hash([{k: v for k, v in run.config.items() if k not in APART}, lineage])


def _names(several: Sequence[Sequence[RunData]]) -> list[str]:
    """The method, and the settings in which groups of one method differ."""
    out = []
    for rs in several:
        rivals = [other[0] for other in several if other[0].kind == rs[0].kind]
        differ = sorted(k for k in rs[0].config if k not in APART | {"base", "command"}
                        and len({str(r.config.get(k)) for r in rivals}) > 1)
        told = ", ".join(f"{k.replace('_', ' ')} {rs[0].config[k]}" for k in differ)
        out.append(f"{name_of(rs[0].kind)}{f' ({told})' if told else ''}")
    return [f"{name} #{out[:i].count(name) + 1}" if out.count(name) > 1 else name for i, name in enumerate(out)]


def keys_of(several: Sequence[Group]) -> list[str]:
    keys = sorted({k for g in several for r in g.runs for row in r.metrics for k in row} - {"step", "seconds"})
    return sorted(keys, key=lambda k: FIRST.index(k) if k in FIRST else len(FIRST))


def over_seeds(runs: Sequence[RunData]) -> str:
    """A table of the groups' ends, and small multiples: each metric's mean over seeds with its band, a line a group."""
    several = groups(runs)
    if not several:
        return ""
    shown = [k for k in keys_of(several) if k in FIRST][:5]
    rows: dict[str, Mapping[str, Estimate | None]] = {g.name: {k: g.ends(k) for k in shown} for g in several}
    columns = tuple(Column(k, label(k), "mean of the last tenth of the steps") for k in shown)
    n = {len(g.runs) for g in several}
    table = estimates_table(f"Ends of the runs, with 95% intervals over {'–'.join(map(str, sorted({min(n), max(n)})))} seeds",
                            "Method", rows, columns)
    figures = "".join(_figure(several, key) for key in keys_of(several))
    return f'{table}<div class="multiples">{figures}</div>'


def _figure(several: Sequence[Group], key: str) -> str:
    curves = {g.name: points for g in several if len(points := g.curve(key)) > 1}
    if not curves:
        return ""
    ends = [v for points in curves.values() for _, e in points for v in (e.value, e.low, e.high)]
    if min(ends) == max(ends):
        return ""
    values = [e.value for points in curves.values() for _, e in points]
    spread = (max(values) - min(values)) or abs(values[0]) or 1.0
    low, high = padded([min(max(v, min(values) - 2 * spread), max(values) + 2 * spread) for v in ends])
    steps = [s for points in curves.values() for s, _ in points]
    plot = Plot(f"{label(key)} over seeds", f"Means and 95% bands of {', '.join(curves)}.", (min(steps), max(steps)), (low, high),
                width=270, height=150 + 16 * (len(curves) > 1) * len(curves), x_ticks=[min(steps), max(steps)],
                x_format=lambda v: f"{v:,.0f}")
    legend = []
    for i, (name, points) in enumerate(curves.items()):
        style = f"series-{i % 6}"
        plot.band([(s, max(e.low, low), min(e.high, high)) for s, e in points], f"band {style}")
        plot.line(binned([(s, e.value) for s, e in points]), f"line {style}")
        legend.append((f"line {style}", name))
    table = data_table(f"{label(key)} over seeds", ("Method", "Step", "Mean", "95% interval", "Seeds"),
                       [(name, f"{s:,.0f}", numbers.number(e.value), f"[{numbers.number(e.low)}, {numbers.number(e.high)}]",
                         str(e.n)) for name, points in curves.items() for s, e in points[::max(1, len(points) // 12)]])
    names = "" if len(curves) == 1 else '<p class="small">' + " ".join(
        f'<span class="key {style.split()[-1]}">{text(name)}</span>' for style, name in legend) + "</p>"
    return f"<figure><figcaption><span>{text(label(key))}</span></figcaption>{plot.svg()}{names}{table}</figure>"


def grouped(runs: Sequence[RunData]) -> set[Path]:
    """The runs that stand in a group: their own curves would only say the same again, without a band."""
    return {r.path for g in groups(runs) for r in g.runs}


def headline(runs: Sequence[RunData]) -> str:
    """One sentence on the first metric of the groups, as HTML, with its interval over seeds; empty where there is no group."""
    several = groups(runs)
    for key in ("reward", "heldout_accuracy", "accuracy", "heldout_loss", "heldout_nll", "nll", "loss"):
        ends = [(g, e) for g in several if (e := g.ends(key))]
        if ends:
            told = "; ".join(f"{text(g.name)} <strong>{numbers.number(e.value)}</strong> "
                             f'<span class="range">{numbers.span(e)}</span>' for g, e in ends[:3])
            word = {"reward": "Proxy reward"}.get(key, label(key))
            return f"{text(word)} at the end, over {len(ends[0][0].runs)} seeds: {told}. Nobody has judged it yet."
    return ""


def write_csv(runs: Sequence[RunData], path: Path) -> Path:
    """Every curve of the page as one long table: run, method, seed, metric, step, value."""
    out = io.StringIO()
    sheet = csv.writer(out, lineterminator="\n")
    sheet.writerow(("run", "method", "seed", "metric", "step", "value"))
    for run in runs:
        for key in sorted({k for row in run.metrics for k in row} - {"step"}):
            who = tuple(map(defused, (run.name, run.kind, run.config.get("seed", ""), key)))
            sheet.writerows((*who, row["step"], row[key]) for row in run.metrics
                            if is_number(row.get(key)) and is_number(row.get("step")))
    write_text(path, out.getvalue())
    return path
