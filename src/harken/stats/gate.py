"""Rules that decide whether a new model may replace an old one, on scores of both by item. Pure numbers.

    metric = Metric("win_rate", new={"p1": [1.0], …}, old={"p1": [0.5], …}, groups={"p1": "chat", …}, bounds=(0, 1))
    decision = decide([metric], [Rule("win_rate", "better"), Rule("win_rate", "not_worse", 0.1, each=True)])
    decision.verdict                # better | tied | worse | inconclusive
    decision.ships                  # every rule was shown to hold

A rule holds only where the data show it; what they leave open is inconclusive, and does not ship.

- `better`: the two-sided test of `stats.compare` at alpha finds the new one better. With a margin two one-sided tests may find
  both equal within it: tied, which does not hold either.
- `not_worse`: the one-sided interval at 1 - alpha lies above -margin (non-inferiority; Schuirmann 1987).
- `each`: the same of every group. All must hold, which is an intersection–union test (Berger 1982): the chance to ship where
  some group's true difference is -margin or less is at most alpha, without a correction. What *names* a group as fallen is a
  claim for each, so those p-values are Holm's over the groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from harken.core.protocols import Estimate
from harken.stats.compare import Comparison, Score, Verdict, compare, pair
from harken.stats.intervals import mean_interval
from harken.stats.power import needed
from harken.stats.testing import holm

Need = Literal["better", "not_worse"]
MOST_MISSING = 0.05
"""A metric that lacks more of its items decides nothing."""
TINY = 1e-9
"""The margin where all scores are one number: no loss at all is allowed, and none is not a loss."""
ORDER: tuple[Verdict, ...] = ("worse", "inconclusive", "tied", "better")


@dataclass(frozen=True)
class Metric:
    """Scores of both models by item, None where one is missing; `groups` item -> type of user. `higher` is better."""

    name: str
    new: Mapping[str, Sequence[Score]]
    old: Mapping[str, Sequence[Score]]
    groups: Mapping[str, str] = field(default_factory=dict)
    bounds: tuple[float, float] | None = None
    higher: bool = True

    def part(self, group: str) -> Metric:
        def of(scores: Mapping[str, Sequence[Score]]) -> dict[str, Sequence[Score]]:
            return {item: row for item, row in scores.items() if self.groups.get(item) == group}
        return Metric(f"{self.name}, {group}", of(self.new), of(self.old), {}, self.bounds, self.higher)

    def upright(self) -> tuple[dict[str, list[Score]], dict[str, list[Score]], tuple[float, float] | None]:
        """Both tables and the bounds, turned so that higher is better."""
        def turned(scores: Mapping[str, Sequence[Score]]) -> dict[str, list[Score]]:
            return {i: [x if x is None or self.higher else -x for x in row] for i, row in scores.items()}
        bounds = self.bounds if self.higher or self.bounds is None else (-self.bounds[1], -self.bounds[0])
        return turned(self.new), turned(self.old), bounds


@dataclass(frozen=True)
class Rule:
    """`margin` is the loss (for `better` the difference) that would matter, in the metric's unit, or with `spread` in standard
    deviations of the old model's scores (of all its answers, whatever their group); `each`: of every group."""

    metric: str
    need: Need = "better"
    margin: float | None = None
    each: bool = False
    spread: bool = False

    def __post_init__(self) -> None:
        if self.margin is not None and not 0 < self.margin < math.inf:
            raise ValueError(f"the rule on {self.metric} needs a margin above 0")
        if self.need == "not_worse" and self.margin is None:
            raise ValueError(f"the rule on {self.metric} needs a margin above 0: the loss that would matter")
        if self.need == "better" and self.each:
            raise ValueError(f"the rule on {self.metric}: each group cannot be asked to be better, only not_worse")

    def words(self) -> str:
        unit = " standard deviations" if self.spread else ""
        within = f" (tied: within {self.margin:g}{unit})" if self.margin else ""
        what = f"must be better{within}" if self.need == "better" else f"must not be worse by {self.margin:g}{unit}"
        return f"{self.metric} {what}" + (", for each type of user" if self.each else "")


@dataclass(frozen=True)
class Finding:
    """What one rule found of one metric or group. `difference` is new - old, turned so that above 0 is better; `bound` is
    the one-sided lower end at 1 - alpha. `more` counts further items for a chance of 80 % to decide."""

    name: str
    holds: bool
    verdict: Verdict
    difference: Estimate | None
    bound: float | None
    p: float
    items: int
    missing: int
    more: float | None
    why: str

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "holds": self.holds, "verdict": self.verdict, "items": self.items, "missing": self.missing,
                "difference": self.difference.to_json() if self.difference else None, "bound": _finite(self.bound), "p": self.p,
                "more": _finite(self.more), "why": self.why}


@dataclass(frozen=True)
class Outcome:
    rule: Rule
    verdict: Verdict
    holds: bool
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        return {"rule": self.rule.words(), "metric": self.rule.metric, "need": self.rule.need, "margin": self.rule.margin,
                "unit": "sd" if self.rule.spread else None, "each": self.rule.each, "verdict": self.verdict, "holds": self.holds,
                "findings": [f.to_json() for f in self.findings]}


@dataclass(frozen=True)
class Decision:
    verdict: Verdict
    ships: bool
    outcomes: tuple[Outcome, ...]

    def to_json(self) -> dict[str, Any]:
        return {"verdict": self.verdict, "ships": self.ships, "rules": [o.to_json() for o in self.outcomes]}


def decide(metrics: Sequence[Metric], rules: Sequence[Rule], alpha: float = 0.05) -> Decision:
    """The verdict over all rules: the worst of theirs. It ships where every rule holds. Raises ValueError for a rule on a
    metric that is not there, and without rules: a gate that asks nothing is none."""
    if not rules:
        raise ValueError("there is no rule")
    known = {m.name: m for m in metrics}
    for rule in rules:
        if rule.metric not in known:
            raise ValueError(f"there is no metric {rule.metric!r} (there are {', '.join(known)})")
    outcomes = tuple(_outcome(known[rule.metric], rule, alpha) for rule in rules)
    ships = all(o.holds for o in outcomes)
    if ships:
        verdict: Verdict = "better" if any(o.rule.need == "better" for o in outcomes) else "tied"
    else:
        verdict = min((o.verdict for o in outcomes if not o.holds), key=ORDER.index)
    return Decision(verdict, ships, outcomes)


def _outcome(metric: Metric, rule: Rule, alpha: float) -> Outcome:
    measured = replace(rule, margin=_size(metric, rule), spread=False) if rule.spread else rule
    if not rule.each:
        one = _finding(metric, measured, alpha)
        return Outcome(rule, one.verdict, one.holds, (one,))
    parts = [_finding(metric.part(g), measured, alpha) for g in sorted(set(metric.groups.values()))]
    if not parts:
        nothing = Finding(metric.name, False, "inconclusive", None, None, 1.0, 0, 0, None, "no item names a type of user")
        return Outcome(rule, "inconclusive", False, (nothing,))
    corrected = holm([f.p for f in parts])
    found = tuple(_named(f, float(p), alpha) for f, p in zip(parts, corrected))
    failed = [f for f in found if not f.holds]
    verdict = min((f.verdict for f in failed), key=ORDER.index) if failed else "tied"
    return Outcome(rule, verdict, not failed, found)


def _size(metric: Metric, rule: Rule) -> float:
    """The margin in the metric's own unit. The old model's spread, or where it says one thing only, that of both models."""
    old = [x for row in metric.old.values() for x in row if x is not None]
    both = old + [x for row in metric.new.values() for x in row if x is not None]
    spread = next((sd for scores in (old, both) if scores and (sd := float(np.std(scores))) > 0), 0.0)
    return max((rule.margin or 0.0) * spread, TINY)


def _named(f: Finding, p: float, alpha: float) -> Finding:
    """A group's finding with the corrected p: without it nothing is called worse, nor better."""
    verdict, why = f.verdict, f.why
    if p > alpha and verdict in ("worse", "better"):
        verdict, why = ("tied", "not worse") if f.holds else ("inconclusive", "not shown to hold")
    return Finding(f.name, f.holds, verdict, f.difference, f.bound, p, f.items, f.missing, f.more, why)


def _finding(metric: Metric, rule: Rule, alpha: float) -> Finding:
    new, old, bounds = metric.upright()
    try:
        c = compare(new, old, bounds=bounds, margin=rule.margin if rule.need == "better" else None, level=1 - alpha)
    except ValueError:
        return Finding(metric.name, False, "inconclusive", None, None, 1.0, 0, len(new), None, "no item has both scores")
    lost = c.missing / (c.items + c.missing)
    bound = _lower(new, old, bounds, alpha)
    holds = c.verdict == "better" if rule.need == "better" else bound > -(rule.margin or 0.0)
    verdict = c.verdict
    if rule.need == "not_worse" and holds and verdict != "better":
        verdict = "tied"
    why = {"better": "better", "worse": "worse", "tied": "not worse" if holds else "as good, not better",
           "inconclusive": "not shown to hold"}[verdict]
    more = None if holds else c.more if rule.need == "better" else _more(c, rule, alpha)
    if lost > MOST_MISSING:
        holds, verdict, why = False, "inconclusive", f"{lost:.0%} of the items lack a score"
    elif c.items < 2:
        holds, verdict, why = False, "inconclusive", "one item shows nothing"
    return Finding(metric.name, holds, verdict, c.difference, bound, c.p, c.items, c.missing, more, why)


def _lower(new: Mapping[str, Sequence[Score]], old: Mapping[str, Sequence[Score]], bounds: tuple[float, float] | None,
           alpha: float) -> float:
    """The lower end of the one-sided interval at 1 - alpha: that of the two-sided one at 1 - 2 alpha."""
    paired = pair(new, old)
    span = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    return mean_interval(paired.a - paired.b, None, 1 - 2 * alpha, bounds=span).low


def _more(c: Comparison, rule: Rule, alpha: float) -> float | None:
    room = c.difference.value + (rule.margin or 0.0)
    if room <= 0 or not math.isfinite(c.sd) or c.sd == 0:
        return None
    return max(1.0, needed(room, c.sd, 1 - 2 * alpha) - c.items)


def _finite(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None
