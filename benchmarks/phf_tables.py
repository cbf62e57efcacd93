"""What the grid of benchmarks/phf.py found, as Markdown: medians over seeds with their range, criteria with intervals, a plot.

Intervals of ratios are over seeds: t on the logarithms of each seed's ratio (of two seeds or more), so that they hold what
differs between runs as well as between samples.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harken.core.protocols import Estimate
from harken.stats.intervals import mean_interval

Cells = list[dict[str, Any]]
Rows = Mapping[int, float]
"""Seed -> a figure."""
TASKS = {"toy": "curses a word", "pep8": "violations per 100 characters", "package": "violations per 100 characters",
         "toxicity": "probability of toxicity"}
BUDGETS = ("", "@1060k")
"""Arms at the grid's own tokens, and at those of the figures that P1 to P6 come from."""
ARMS = {"rwr10": "rwr, beta 10", "rwr.1": "rwr, beta .1", "awr": "awr, alpha .5, beta .1",
        "late10": "conditional, last tenth alone",
        "from20": "conditional from 20 % on", "from60": "conditional from 60 % on",
        "cooldown": "conditional, last tenth without tags", "drop10": "conditional, a tenth of segments untagged",
        "poisoned": "conditional, bad segments poisoned", "filter": "filter, best quarter"}
MODES = {"good each": ", good before each segment", "good once": ", good once", "untagged each": ", untagged",
         "bad each": ", bad before each", "cut each": ", its block deleted"}


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
    middle = number(statistics.median(values), digits)
    return middle if len(values) == 1 else f"{middle} ({number(values[0], digits)}–{number(values[-1], digits)})"


def number(value: float, digits: int) -> str:
    """As the docs write it: .062, −.4."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "−").replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text.replace("-", "−")


def named(arm: str, name: str, tagged: bool) -> str:
    """An arm and its mode in words; `tagged`: it has other modes than untagged."""
    objective, _, budget = arm.partition("@")
    return ARMS.get(objective, objective) + (MODES[name] if tagged else "") + (f", {budget} tokens" if budget else "")


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
    interval = f" [{number(e.low, digits)}, {number(e.high, digits)}]" if e.n > 1 else " (one seed)"
    return number(e.value, digits) + interval


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(r) + " |" for r in rows)])


def toy(cells: Cells) -> str:
    keys: tuple[tuple[tuple[str, ...], int], ...] = (
        (("plain", "mean", "value"), 3), (("plain", "expected_maximum", "value"), 2), (("attacked", "mean", "value"), 3),
        (("nll",), 3), (("nll_topic_3",), 3), (("plain", "legal"), 3))
    rows = []
    for arm in arms_of(cells, "toy"):
        modes = modes_of(cells, arm, "toy")
        for name in (m for m in MODES if m in modes):
            rows.append([named(arm, name, len(modes) > 1), *(shown(pick(cells, "toy", arm, mode(name, *k)), d) for k, d in keys),
                         str(len(pick(cells, "toy", arm, mode(name, "nll"))))])
    return table(("", "curses", "worst of 25", "attacked", "NLL clean", "NLL clean, topic 4", "legal", "seeds"), rows)


def criteria(cells: Cells, budget: str = "") -> str:
    """P1 to P6 at a budget of tokens: what is wanted of the seeds' medians, and what was found with its interval over seeds."""
    def of(arm: str, name: str, *keys: str) -> Rows:
        return pick(cells, "toy", arm + budget, mode(name, *keys))
    plain, attacked = ("plain", "mean", "value"), ("attacked", "mean", "value")
    mle, good, hard = "untagged each", "good each", "nll_topic_3"
    asked: list[tuple[str, str, bool, Callable[[float], bool], Rows, Rows]] = [
        ("P1", "mle / conditional ≥ 5", True, lambda x: x >= 5, of("mle", mle, *plain), of("conditional", good, *plain)),
        ("P2", "the same attacked ≥ 4", True, lambda x: x >= 4, of("mle", mle, *attacked), of("conditional", good, *attacked)),
        ("P3", "NLL clean, conditional − mle ≤ .05", False, lambda x: x <= 0.05, of("conditional", good, "nll"),
         of("mle", mle, "nll")),
        ("", "the same of topic 4 ≤ .15", False, lambda x: x <= 0.15, of("conditional", good, hard), of("mle", mle, hard)),
        ("P4", "NLL of topic 4, filter − mle ≥ .5", False, lambda x: x >= 0.5, of("filter", mle, hard), of("mle", mle, hard)),
        ("P5", "rwr with beta 10 / mle within .85 – 1.15", True, lambda x: 0.85 < x < 1.15, of("rwr10", mle, *plain),
         of("mle", mle, *plain)),
        ("P6", "attacked, conditional for the last tenth alone / for all > 1", True, lambda x: x > 1,
         of("late10", good, *attacked), of("conditional", good, *attacked))]
    rows = []
    for name, wanted, divide, holds, a, b in asked:
        if not a or not b:
            rows.append([name, wanted, "not run", "", ""])
            continue
        x, y = statistics.median(a.values()), statistics.median(b.values())
        middle = x / y if divide else x - y
        rows.append([name, wanted, number(middle, 1 if divide and abs(middle) >= 3 else 3),
                     said((ratio if divide else difference)(a, b), 1 if divide and abs(middle) >= 3 else 3),
                     "met" if holds(middle) else "**missed**"])
    return table(("", "wanted", "of medians", "over seeds", ""), rows)


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
    rows: list[list[str]] = []
    for arm in arms_of(cells, task):
        modes = modes_of(cells, arm, task)
        for name in (m for m in MODES if m in modes):
            held = {"good each": "good", "untagged each": "untagged", "bad each": ""}[name]
            loss = {k: pick(cells, task, arm, lambda c, k=k: c["held"][k]) for k in (held, f"{held}, good segments") if held}
            value = pick(cells, task, arm, mode(name, "plain", "mean", "value"))
            worst = pick(cells, task, arm, mode(name, "plain", "expected_maximum", "value"))
            rule = [shown(pick(cells, task, arm, mode(name, "corpus_rule", "mean", "value")))] if task == "package" else []
            rows.append([named(arm, name, len(modes) > 1), shown(value), *rule, shown(worst, 2),
                         *(shown(x) for x in loss.values() or ({}, {})), str(len(value))])
    rule = ["of these, lines too long"] if task == "package" else []
    notes = [table(("", TASKS[task], *rule, "worst of 25", "held-out NLL", "of good segments", "seeds"), rows)]
    figures = {"mle / conditional": "plain"} | ({"the same of lines too long": "corpus_rule"} if rule else {})
    for what, key in figures.items():
        a = pick(cells, task, "mle", mode("untagged each", key, "mean", "value"))
        b = pick(cells, task, "conditional", mode("good each", key, "mean", "value"))
        notes.append(f"{task}: {what} {said(ratio(a, b))}.")
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
    plot.names([(x, y, name) for x, y, name in named])
    style = ("text{font:12px sans-serif;fill:#444}.grid{stroke:#ddd}polyline{fill:none;stroke:#999}.dot{fill:#999}"
             ".dot.accent{fill:#1f5fa8}")
    inner = plot.svg().replace('<svg class="plot"', '<svg class="plot" width="640" height="420"', 1)
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 420"><style>{style}</style>'
                    f'<rect width="100%" height="100%" fill="#ffffff"/>{inner}</svg>\n', encoding="utf-8")


def arms_of(cells: Cells, task: str) -> list[str]:
    """The arms that ran with the true scorer, each beside its budgets: mle first."""
    found = {c["cell"]["arm"] for c in cells if c["cell"]["kind"] == "run" and c["cell"]["task"] == task and true_scorer(c)}
    order = ["mle", "rwr10", "rwr.1", "awr", "filter", "mask", "route", "unlikelihood", "conditional"]

    def key(arm: str) -> tuple[int, str, int]:
        objective, _, budget = arm.partition("@")
        return order.index(objective) if objective in order else len(order), objective, int(budget[:-1] or 0)
    return sorted(found, key=key)


def modes_of(cells: Cells, arm: str, task: str = "toy") -> set[str]:
    return {m for c in cells if (c["cell"]["kind"], c["cell"]["task"], c["cell"]["arm"]) == ("run", task, arm) and true_scorer(c)
            for m in c["modes"]}


def true_scorer(cell: dict[str, Any]) -> bool:
    return bool(cell["cell"]["recall"] == cell["cell"]["precision"] == 1)


def sections(out: Path) -> dict[str, str]:
    """Name -> Markdown of what is finished; writes OUT/pareto.svg."""
    cells = load(out)
    if not cells:
        return {}
    pareto(cells, out / "pareto.svg")
    tasks = {c["cell"]["task"] for c in cells}
    parts = {"toy": toy(cells), "criteria": criteria(cells), "criteria at 1,060,000 tokens": criteria(cells, BUDGETS[1]),
             "poison": poison(cells)} if "toy" in tasks else {}
    parts |= {task: real(cells, task) for task in ("package", "pep8", "toxicity") if task in tasks}
    parts |= {"noise": "" if all(map(true_scorer, cells)) else noise(cells), "cures": cures(cells), "attacks": attacks(cells)}
    spent = sum(c["cpu_seconds"] for c in cells) / 60
    return {k: v for k, v in parts.items() if v} | {"spent": f"{len(cells)} cells, {spent:.0f} minutes of CPU."}


def write_into(page: Path, parts: Mapping[str, str]) -> None:
    """Puts every part in its place in a page, between `<!-- phf NAME -->` and `<!-- /phf -->`; places without a part stay."""
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        text = re.sub(f"(<!-- phf {re.escape(name)} -->\n).*?(<!-- /phf -->)", lambda m, part=part: f"{m[1]}\n{part}\n\n{m[2]}",
                      text, flags=re.S)
    page.write_text(text, encoding="utf-8")
