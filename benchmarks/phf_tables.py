"""What the grid of benchmarks/phf.py found, as Markdown: medians over seeds with their range, criteria with intervals, a plot.

Intervals of ratios are over seeds: t on the logarithms of each seed's ratio (of two seeds or more), so that they hold what
differs between runs as well as between samples.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harken.core.protocols import Estimate
from harken.stats.intervals import mean_interval

Cells = list[dict[str, Any]]
Rows = Mapping[int, float]
"""Seed -> a figure."""
TASKS = {"toy": "curses a word", "pep8": "violations per 100 characters", "toxicity": "probability of toxicity"}


def load(out: Path) -> Cells:
    return [json.loads(p.read_text()) for p in sorted((out / "cells").glob("*.json"))]


def pick(cells: Cells, task: str, arm: str, read: Callable[[dict[str, Any]], float], noise: tuple[float, float] = (1, 1)) -> Rows:
    """A figure of each seed's run of an arm; seeds that lack it are left out."""
    found = {}
    for c in cells:
        about = c["cell"]
        if (about["kind"], about["task"], about["arm"], (about["recall"], about["precision"])) == ("run", task, arm, noise):
            try:
                found[about["seed"]] = read(c)
            except KeyError:
                continue
    return found


def mode(name: str, *keys: str) -> Callable[[dict[str, Any]], float]:
    def read(cell: dict[str, Any]) -> float:
        value: Any = cell["modes"][name]
        for key in keys:
            value = value[key]
        return float(value)
    return read


def shown(rows: Rows, digits: int = 3) -> str:
    """The median and the range of seeds."""
    if not rows:
        return "–"
    values = sorted(rows.values())
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({values[0]:.{digits}f}–{values[-1]:.{digits}f})"


def paired(a: Rows, b: Rows) -> list[tuple[float, float]]:
    return [(a[s], b[s]) for s in sorted(a.keys() & b.keys())]


def ratio(a: Rows, b: Rows) -> Estimate | None:
    """a / b over shared seeds; the value is the geometric mean."""
    logs = [math.log(x / y) for x, y in paired(a, b) if x > 0 and y > 0]
    if not logs:
        return None
    e = mean_interval(logs)
    return Estimate(math.exp(e.value), math.exp(e.low) if e.low > -700 else 0.0, math.exp(min(e.high, 700)), e.n, e.level)


def difference(a: Rows, b: Rows) -> Estimate | None:
    pairs = paired(a, b)
    return mean_interval([x - y for x, y in pairs]) if pairs else None


def said(e: Estimate | None, digits: int = 2) -> str:
    if e is None:
        return "not run"
    return f"{e.value:.{digits}f}" + (f" [{e.low:.{digits}f}, {e.high:.{digits}f}]" if e.n > 1 else " (one seed)")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(["| " + " | ".join(r) + " |" for r in (head, ["---"] * len(head), *rows)])


def toy(cells: Cells) -> str:
    rows = []
    for arm, name in sorted({(c["cell"]["arm"], m) for c in cells if c["cell"]["kind"] == "run" and c["cell"]["task"] == "toy"
                             and c["cell"]["recall"] == c["cell"]["precision"] == 1 for m in c["modes"]}):
        keys: tuple[tuple[tuple[str, ...], int], ...] = (
            (("plain", "mean", "value"), 3), (("plain", "expected_maximum", "value"), 2), (("attacked", "mean", "value"), 3),
            (("nll",), 3), (("nll_topic_3",), 3), (("plain", "legal"), 3))
        rows.append([f"{arm}, {name}", *(shown(pick(cells, "toy", arm, mode(name, *k)), d) for k, d in keys),
                     str(len(pick(cells, "toy", arm, mode(name, "nll"))))])
    return table(("toy", "curses", "worst of 25", "attacked", "NLL clean", "NLL clean, topic 4", "legal pairs", "seeds"), rows)


def criteria(cells: Cells) -> str:
    """P1 to P6: what is wanted of the seeds' medians, and what was found with its interval over seeds."""
    def of(arm: str, name: str, *keys: str) -> Rows:
        return pick(cells, "toy", arm, mode(name, *keys))
    plain, attacked = ("plain", "mean", "value"), ("attacked", "mean", "value")
    mle, good, hard = "untagged each", "good each", "nll_topic_3"
    asked: list[tuple[str, str, bool, Rows, Rows]] = [
        ("P1", "mle / conditional ≥ 5", True, of("mle", mle, *plain), of("conditional", good, *plain)),
        ("P2", "attacked, ≥ 4", True, of("mle", mle, *attacked), of("conditional", good, *attacked)),
        ("P3", "NLL clean, conditional − mle ≤ .05", False, of("conditional", good, "nll"), of("mle", mle, "nll")),
        ("", "the same of topic 4 ≤ .15", False, of("conditional", good, hard), of("mle", mle, hard)),
        ("P4", "NLL of topic 4, filter − mle ≥ .5", False, of("filter", mle, hard), of("mle", mle, hard)),
        ("P5", "rwr with beta 10 / mle within .85 – 1.15", True, of("rwr10", mle, *plain), of("mle", mle, *plain)),
        ("P6", "attacked, conditional for the last tenth alone / for all > 1", True, of("late10", good, *attacked),
         of("conditional", good, *attacked))]
    rows = []
    for name, wanted, divide, a, b in asked:
        if not a or not b:
            rows.append([name, wanted, "not run", "not run"])
            continue
        x, y = statistics.median(a.values()), statistics.median(b.values())
        rows.append([name, wanted, f"{x / y if divide else x - y:.3g}", said((ratio if divide else difference)(a, b), 3)])
    return table(("", "wanted", "of medians", "over seeds"), rows)


def poison(cells: Cells) -> str:
    """What bad mode lacks beside good mode, and what poisoning bad segments changes: differences over seeds with intervals."""
    figures = (("curses", ("plain", "mean", "value")), ("attacked", ("attacked", "mean", "value")),
               ("legal pairs", ("plain", "legal")),
               ("NLL clean", ("nll",)), ("NLL clean, topic 4", ("nll_topic_3",)))
    rows = []
    for name, (a, b) in {"bad mode − good mode": (("conditional", "bad each"), ("conditional", "good each")),
                         "the same, poisoned": (("poisoned", "bad each"), ("poisoned", "good each")),
                         "poisoned − not, good mode": (("poisoned", "good each"), ("conditional", "good each")),
                         "poisoned − not, untagged": (("poisoned", "untagged each"), ("conditional", "untagged each")),
                         "poisoned − not, bad mode": (("poisoned", "bad each"), ("conditional", "bad each"))}.items():
        rows.append([name, *(said(difference(*(pick(cells, "toy", arm, mode(m, *keys)) for arm, m in (a, b))), 3)
                             for _, keys in figures)])
    return table(("", *(f for f, _ in figures)), rows)


def real(cells: Cells, task: str) -> str:
    rows = []
    for arm in dict.fromkeys(c["cell"]["arm"] for c in cells if c["cell"]["task"] == task):
        for name in dict.fromkeys(m for c in cells if (c["cell"]["task"], c["cell"]["arm"]) == (task, arm) for m in c["modes"]):
            held = {"good each": "good", "untagged each": "untagged", "bad each": ""}[name]
            loss = {k: pick(cells, task, arm, lambda c, k=k: c["held"][k]) for k in (held, f"{held}, good segments") if held}
            value = pick(cells, task, arm, mode(name, "plain", "mean", "value"))
            worst = pick(cells, task, arm, mode(name, "plain", "expected_maximum", "value"))
            rows.append([f"{arm}, {name}", shown(value), shown(worst, 2), *(shown(x) for x in loss.values() or ({}, {})),
                         str(len(value))])
    notes = [table((task, TASKS[task], "worst of 25", "held-out NLL", "of good segments", "seeds"), rows)]
    a = pick(cells, task, "mle", mode("untagged each", "plain", "mean", "value"))
    b = pick(cells, task, "conditional", mode("good each", "plain", "mean", "value"))
    notes.append(f"{task}: mle / conditional {said(ratio(a, b))}.")
    untagged = pick(cells, task, "mle", lambda c: math.exp(c["held"]["untagged"]))
    for key in ("own", "good", "good, good segments"):
        base = untagged if "segments" not in key else pick(
            cells, task, "mle", lambda c: math.exp(c["held"]["untagged, good segments"]))
        tagged = pick(cells, task, "conditional", lambda c, key=key: math.exp(c["held"][key]))
        notes.append(f"{task}: perplexity, conditional ({key}) / mle {said(ratio(tagged, base), 3)}.")
    return "\n\n".join(notes)


def noise(cells: Cells) -> str:
    """Curses and the loss on topic 4 by the scorer's mistakes, in good mode where there is one."""
    settings = sorted({(c["cell"]["recall"], c["cell"]["precision"]) for c in cells if c["cell"]["kind"] == "run"}, reverse=True)
    rows = []
    for arm in ("filter", "conditional", "mask", "unlikelihood"):
        name = "good each" if arm == "conditional" else "untagged each"
        for what, keys in (("curses", ("plain", "mean", "value")), ("NLL topic 4", ("nll_topic_3",))):
            rows.append([arm, what, *(shown(pick(cells, "toy", arm, mode(name, *keys), s)) for s in settings)])
    return table(("", "", *(f"recall {r:g}, precision {p:g}" for r, p in settings)), rows)


def cures(cells: Cells) -> str:
    found = [c for c in cells if c["cell"]["kind"] == "cuts"]
    if not found:
        return ""
    modes, figures = ("good", "untagged", "bad"), ("misalignment", "fluency", "capability")

    def row(name: str, read: Callable[[dict[str, Any]], Any]) -> list[str]:
        cells_ = []
        for figure in figures:
            for m in modes:
                values = {c["cell"]["seed"]: e["value"] for c in found if (e := (read(c).get(m) or {}).get(figure))}
                cells_.append(shown(values, 3 if figure == "misalignment" else 2) if values else "gone")
        return [name, *cells_]
    names = list(found[0]["cuts"])
    rows = [row("before", lambda c: c["cuts"][names[0]]["before"]),
            *(row(n, lambda c, n=n: c["cuts"][n]["after"]) for n in names)]
    return table(("", *(f"{f}, {m}" for f in figures for m in modes)), rows)


def attacks(cells: Cells) -> str:
    found = [c for c in cells if c["cell"]["kind"] == "attack"]
    if not found:
        return ""
    counts = list(next(iter(found[0]["attacks"].values())))
    return table(("attacked", *counts), [[name, *(shown({c["cell"]["seed"]: c["attacks"][name][k]["value"] for c in found})
                                                  for k in counts)] for name in found[0]["attacks"]])


def pareto(cells: Cells, path: Path) -> None:
    """Curses against the loss on clean text of topic 4, medians of seeds; lines join an objective's budgets of tokens."""
    from harken.draw.svg import Plot, padded
    points: dict[str, list[tuple[int, float, float, str]]] = {}
    for arm in dict.fromkeys(c["cell"]["arm"] for c in cells if c["cell"]["kind"] == "run" and c["cell"]["task"] == "toy"):
        name = "good each" if "good each" in modes_of(cells, arm) else "untagged each"
        curses, loss = (pick(cells, "toy", arm, mode(name, *k)) for k in (("plain", "mean", "value"), ("nll_topic_3",)))
        if curses:
            objective, _, budget = arm.partition("@")
            row = (int(budget[:-1] or 0) or 128, statistics.median(loss.values()), statistics.median(curses.values()), arm)
            points.setdefault(objective, []).append(row)
    flat = [p for row in points.values() for p in row]
    if len(flat) < 2:
        return
    plot = Plot("Curses against the loss on clean text of topic 4", f"{len(flat)} runs; lower left is better.",
                padded([p[1] for p in flat]), padded([p[2] for p in flat]), width=640, height=420,
                x_label="NLL of clean text of topic 4, nats a token: left is better", y_label="curses a word: down is better")
    for row in points.values():
        style = "accent" if len(row) > 1 else "grey"
        plot.line([(x, y) for _, x, y, _ in sorted(row)], style)
        plot.dots([(x, y) for _, x, y, _ in row], style, [5.0] * len(row), [name for *_, name in row])
    named: list[list[Any]] = []  # points that lie on one another share a label
    for _, x, y, name in flat:
        near = next((n for n in named if abs(n[0] - x) < 0.05 and abs(n[1] - y) < 0.004), None)
        if near:
            near[2] += f", {name}"
        else:
            named.append([x, y, name])
    for x, y, name in named:
        plot.name(x, y, name)
    style = ("text{font:12px sans-serif;fill:#444}.grid{stroke:#ddd}polyline{fill:none;stroke:#999}.dot{fill:#999}"
             ".dot.accent{fill:#1f5fa8}")
    inner = plot.svg().replace('<svg class="plot"', '<svg class="plot" width="640" height="420"', 1)
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 420"><style>{style}</style>'
                    f'<rect width="100%" height="100%" fill="#ffffff"/>{inner}</svg>\n', encoding="utf-8")


def modes_of(cells: Cells, arm: str) -> set[str]:
    return {m for c in cells if c["cell"]["kind"] == "run" and c["cell"]["arm"] == arm for m in c["modes"]}


def tables(out: Path) -> str:
    cells = load(out)
    if not cells:
        return "No cell is finished yet."
    pareto(cells, out / "pareto.svg")
    spent = sum(c["cpu_seconds"] for c in cells) / 60
    parts = [toy(cells), criteria(cells), poison(cells)] if any(c["cell"]["task"] == "toy" for c in cells) else []
    parts += [real(cells, task) for task in ("pep8", "toxicity") if any(c["cell"]["task"] == task for c in cells)]
    parts += [noise(cells)] if any(c["cell"]["recall"] * c["cell"]["precision"] < 1 for c in cells) else []
    parts += [cures(cells), attacks(cells), f"{len(cells)} cells, {spent:.0f} minutes of CPU."]
    return "\n\n".join(p for p in parts if p)
