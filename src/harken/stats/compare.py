"""Is A better than B? Two runs on the same items, in words that never claim more than was shown.

    result = compare({"q1": [1, 0], "q2": 1}, {"q1": 0, "q2": None}, bounds=(0, 1), margin=0.02)
    print(result)                                  # tied | A is better | A is worse | inconclusive: about n more …
    compare_tasks({"gsm8k": (a, b), "bbq": (c, d)})   # Holm's correction over the tasks

Repeats of an item are averaged before anything else, items are paired by id, a missing score (None) is counted and bounded,
and intervals are over clusters (a passage, a conversation) where `clusters` names them. "Tied" is said only where a margin was
given and the difference is shown to lie within it; an interval that holds 0 is no proof of equality.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from harken.core.protocols import Estimate
from harken.stats.intervals import Floats, mean_interval
from harken.stats.power import least_detectable, needed, needed_equivalent
from harken.stats.testing import equivalence, holm, p_value, standard_error

Score = float | None
Scores = Mapping[str, Score | Sequence[Score]]
Verdict = Literal["better", "worse", "tied", "inconclusive"]


@dataclass(frozen=True)
class Pairs:
    """`a`, `b` [N]: the mean score of each item that both runs scored. `repeats` is the most scores one item had."""

    items: tuple[str, ...]
    a: Floats
    b: Floats
    missing: tuple[str, ...]
    """Items of either run without a score in one of them."""
    missing_scores: int
    """Repeats that were None."""
    repeats: int
    a_only: Floats
    """The mean scores of a on the missing items that a scored."""
    b_only: Floats


def pair(a: Scores, b: Scores) -> Pairs:
    """Repeats averaged, items paired. Raises ValueError for NaN (a missing score is None) and where no item is shared."""
    left, lost_a, most_a = _means(a, "a")
    right, lost_b, most_b = _means(b, "b")
    shared = [i for i in left if left[i] is not None and right.get(i) is not None]
    if not shared:
        raise ValueError(f"no item has a score in both runs: a has {len(a)} items and b has {len(b)}, "
                         f"{len(a.keys() & b.keys())} of them shared")
    missing = tuple(i for i in {**left, **right} if left.get(i) is None or right.get(i) is None)
    alone_a = [x for i in missing if (x := left.get(i)) is not None]
    alone_b = [x for i in missing if (x := right.get(i)) is not None]
    return Pairs(tuple(shared), np.array([left[i] for i in shared], dtype=np.float64),
                 np.array([right[i] for i in shared], dtype=np.float64), missing, lost_a + lost_b, max(most_a, most_b),
                 np.array(alone_a), np.array(alone_b))


def _means(scores: Scores, side: str) -> tuple[dict[str, float | None], int, int]:
    means: dict[str, float | None] = {}
    lost, most = 0, 0
    for item, value in scores.items():
        row = [value] if value is None or isinstance(value, int | float) else list(value)
        known = [float(x) for x in row if x is not None]
        if not all(map(math.isfinite, known)):
            raise ValueError(f"{side} has a score of {item!r} that is not finite; a missing score is None")
        lost, most = lost + len(row) - len(known), max(most, len(row))
        means[item] = sum(known) / len(known) if known else None
    return means, lost, most


@dataclass(frozen=True)
class Comparison:
    """`difference` is a - b. `p` is of no difference, `p_tied` of one at least as large as the margin; both are Holm's where
    `compare_tasks` made them. `worst` and `best` are the difference if every missing score were at the bound that is worst,
    or best, for a. `more` counts further items (clusters) for a chance of 80 %; None where the answer is known."""

    difference: Estimate
    a: Estimate
    b: Estimate
    p: float
    p_tied: float | None
    margin: float | None
    items: int
    missing: int
    worst: float | None
    best: float | None
    sd: float
    """Of a unit's difference."""
    detectable: float
    """The least difference that this many units show with a chance of 80 %."""
    verdict: Verdict
    more: float | None
    unit: str = "items"
    tasks: int = 1
    """How many comparisons `p` and `p_tied` are corrected for."""

    def words(self, a: str = "A", b: str = "B") -> str:
        """One line: what was shown, how surely, from what."""
        d = self.difference
        size = f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}] at {d.level:.0%}"
        of = f"{self.items} items" + (f" in {d.n} {self.unit}" if d.n != self.items else "")
        if self.verdict == "tied":
            claim = f"{a} and {b} are tied: the difference lies within ±{self.margin:g}"
        elif self.verdict == "inconclusive":
            claim = f"inconclusive: {self._further(a, b)}"
        else:
            claim = f"{a} is {self.verdict} than {b}"
        tail = "p " + _p(self.p) + (f" (Holm, {self.tasks} tasks)" if self.tasks > 1 else "")
        text = f"{claim} ({size}, {of}, {tail}; least difference it could show: {self.detectable:.3f})"
        if self.missing:
            ends = "" if self.worst is None else f", so it lies between {self.worst:+.3f} and {self.best:+.3f} whatever they are"
            text += f". {self.missing} items lack a score{ends}"
        return text

    def _further(self, a: str, b: str) -> str:
        if self.more is None or math.isinf(self.more) or self.more > 1e9:
            return f"no number of {self.unit} would tell a difference as small as the one seen; set a margin to show a tie"
        count = f"about {_round(self.more):,} more {self.unit}"
        if self.margin is not None:
            return f"{count} would show a difference of {self.margin:g}, or that there is none"
        return f"{count} would tell {a} and {b} apart if the difference is the one seen"

    def to_json(self) -> dict[str, Any]:
        return {"verdict": self.verdict, "difference": self.difference.to_json(), "a": self.a.to_json(), "b": self.b.to_json(),
                "p": self.p, "p_tied": self.p_tied, "margin": self.margin, "items": self.items, "missing": self.missing,
                "worst": self.worst, "best": self.best, "least_detectable": _finite(self.detectable),
                "more": None if self.more is None else _finite(self.more), "unit": self.unit, "tasks": self.tasks}

    def __str__(self) -> str:
        return self.words()


def compare(a: Scores, b: Scores, *, clusters: Mapping[str, Hashable] | None = None, bounds: tuple[float, float] | None = None,
            margin: float | None = None, level: float = 0.95, unit: str | None = None) -> Comparison:
    """Paired comparison of two runs' scores by item id; a score, or a list of repeats, None where it is missing.

    `clusters` gives each item's cluster, `bounds` the least and greatest possible score (they bound what is missing and keep
    intervals honest at the ends), `margin` the smallest difference that matters. Raises ValueError as `pair` does, and for an
    item without a cluster.
    """
    paired = pair(a, b)
    rows = list(paired.items)
    lacking = [i for i in rows if clusters is not None and i not in clusters]
    if lacking:
        raise ValueError(f"{len(lacking)} items have no cluster, {lacking[0]!r} first")
    group = None if clusters is None else [clusters[i] for i in rows]
    d = paired.a - paired.b
    span = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    difference = mean_interval(d, group, level, bounds=span)
    _, error, units = standard_error(d, group)
    sd = error * math.sqrt(units) if units > 1 else math.nan
    tied = None if margin is None else equivalence(d, margin, group, alpha=1 - level, bounds=span)
    worst, best = _ends(paired, bounds)
    result = Comparison(difference, mean_interval(paired.a, group, level, bounds=bounds),
                        mean_interval(paired.b, group, level, bounds=bounds), p_value(d, group),
                        None if tied is None else tied.p, margin, len(rows), len(paired.missing), worst, best, sd,
                        least_detectable(sd, units, level) if units > 1 else math.inf, "inconclusive", None,
                        unit or ("items" if clusters is None else "clusters"))
    return _judged(result)


def compare_tasks(tasks: Mapping[str, tuple[Scores, Scores]], *, clusters: Mapping[str, Mapping[str, Hashable]] | None = None,
                  bounds: tuple[float, float] | None = None, margin: float | None = None, level: float = 0.95,
                  unit: str | None = None) -> dict[str, Comparison]:
    """One comparison a task, its p-values corrected for their number by Holm (differences and ties each among themselves)."""
    each = {name: compare(a, b, clusters=None if clusters is None else clusters.get(name), bounds=bounds, margin=margin,
                          level=level, unit=unit) for name, (a, b) in tasks.items()}
    return corrected(each)


def corrected(comparisons: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """Holm's correction of comparisons that were made one by one, and their verdicts anew. Intervals stay as they are."""
    p = holm([c.p for c in comparisons.values()])
    with_margin = [name for name, c in comparisons.items() if c.p_tied is not None]
    tied = dict(zip(with_margin, holm([comparisons[name].p_tied or 0.0 for name in with_margin])))
    return {name: _judged(replace(c, p=float(p[i]), p_tied=float(tied[name]) if name in tied else None, tasks=len(p)))
            for i, (name, c) in enumerate(comparisons.items())}


def _judged(c: Comparison) -> Comparison:
    d, alpha = c.difference, 1 - c.difference.level
    verdict: Verdict = "inconclusive"
    if c.p <= alpha and d.low > 0:
        verdict = "better"
    elif c.p <= alpha and d.high < 0:
        verdict = "worse"
    elif c.p_tied is not None and c.p_tied < alpha:
        verdict = "tied"
    if verdict != "inconclusive":
        return replace(c, verdict=verdict, more=None)
    if d.n < 2 or math.isnan(c.sd):
        return replace(c, verdict=verdict, more=math.inf)
    level = 1 - alpha / c.tasks
    # Scores that never differ show no spread: then as much is assumed as one unit that differs would make.
    sd = c.sd if c.sd > 0 else 1 / math.sqrt(d.n)
    if c.margin is None:
        total = needed(d.value, sd, level)
    else:
        total = max(needed(c.margin, sd, level), needed_equivalent(c.margin, sd, alpha=1 - level))
    return replace(c, verdict=verdict, more=max(1.0, total - d.n))


def _ends(paired: Pairs, bounds: tuple[float, float] | None) -> tuple[float | None, float | None]:
    if bounds is None:
        return None, None
    low, high = bounds
    total, n, lost = float((paired.a - paired.b).sum()), len(paired.items) + len(paired.missing), len(paired.missing)
    seen = float(paired.a_only.sum() - paired.b_only.sum())
    free_a, free_b = lost - len(paired.a_only), lost - len(paired.b_only)
    return (total + seen + free_a * low - free_b * high) / n, (total + seen + free_a * high - free_b * low) / n


def bounded_mean(scores: Sequence[Score], bounds: tuple[float, float]) -> tuple[float, float]:
    """The mean of all scores if every missing one (None) were at the lowest, and at the highest, possible value (E8)."""
    if not len(scores):
        raise ValueError("there are no scores")
    known = [float(x) for x in scores if x is not None]
    lost = len(scores) - len(known)
    return (sum(known) + lost * bounds[0]) / len(scores), (sum(known) + lost * bounds[1]) / len(scores)


def _p(p: float) -> str:
    return "< .001" if p < 0.001 else "= " + (f"{p:.3f}".lstrip("0") if p < 0.9995 else "1")


def _round(n: float) -> int:
    """Two digits: it is a rough number."""
    digits = max(0, len(str(int(n))) - 2)
    return int(math.ceil(n / 10**digits) * 10**digits)


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
