"""Agreement as MT-bench counts it: over couples of votes, beside over items; a judge against people; three-way accuracy.

    couples(items_N, voters_N, values_N)                       # any two people who judged one item
    judge_agreement(verdicts, items_N, values_N, ties="drop")  # each vote of people against the judge (setup 2)
    verdict("first", "first")                                  # both orders: a judge that always takes the first one ties
    three_way(predicted_N, said_N, items_N)                    # A, tie or B, with the confusion matrix

Zheng et al. 2023 (2306.05685): agreement is the chance that two judges, drawn at random of each kind, say the same of a drawn
question; setup 1 counts ties (an inconsistent verdict is a tie), setup 2 only votes that are none. Over couples, an item with
many votes counts for more; over items, each counts once. Values are 1 (the first preferred), 0 (tie), -1. N votes.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harken.core.protocols import Estimate
from harken.stats.intervals import Clusters, Floats, cluster_index, mean_interval
from harken.stats.testing import standard_error

Ties = Literal["count", "drop"]


@dataclass(frozen=True)
class Couples:
    """`pooled`: the share of equal votes among all couples; `by_item`: the mean over items of each one's share. Intervals
    are over items. `chance` is what couples drawn from the same votes, items apart, would agree in (E19)."""

    pooled: Estimate
    by_item: Estimate
    chance: float
    couples: int
    standard_error: float
    """Of `pooled`."""

    def to_json(self) -> dict[str, Any]:
        return {"over_couples": self.pooled.to_json(), "over_items": self.by_item.to_json(), "chance": self.chance,
                "couples": self.couples, "standard_error": self.standard_error}

    def __str__(self) -> str:
        return (f"{self.pooled.value:.3f} over {self.couples} couples of votes, {self.by_item} over items "
                f"(chance {self.chance:.3f})")


def couples(items: Sequence[Hashable], voters: Sequence[Hashable], values: ArrayLike, *, ties: Ties = "count",
            clusters: Clusters | None = None, level: float = 0.95) -> Couples:
    """Among people. Two votes of one voter on an item make no couple. Raises ValueError where no item has two voters.

    `clusters` [N] names each vote's prompt: items of one prompt depend on each other, so intervals are over prompts.
    """
    unit, who, value = _votes(items, voters, values)
    group = _groups(unit, clusters)
    if ties == "drop":
        unit, who, value = unit[value != 0], who[value != 0], value[value != 0]
    people = int(who.max(initial=0)) + 1
    own, mine = np.unique(unit * people + who, return_inverse=True)  # one person's votes on one item
    agreed, count = _within(unit, value)
    own_agreed, own_count = _within(mine, value)
    agreed = agreed - np.bincount(own // people, own_agreed, len(agreed))
    count = count - np.bincount(own // people, own_count, len(count))
    return _made(agreed, count, group, _chance(value, value), level)


def judge_agreement(verdicts: Mapping[Any, int], items: Sequence[Hashable], values: ArrayLike, *, ties: Ties = "count",
                    clusters: Clusters | None = None, level: float = 0.95) -> Couples:
    """A judge's `verdicts` (1, 0 or -1 an item) against each vote of people. Items without a verdict are left out.

    `ties="drop"` is MT-bench's setup 2: neither the judge nor the person tied. Raises ValueError where none is left.
    """
    value = np.asarray(values, dtype=np.int64)
    judged = np.array([i in verdicts for i in items], dtype=np.bool_)
    unit = cluster_index([i for i, k in zip(items, judged) if k], int(judged.sum()))
    judge = np.array([verdicts[i] for i, k in zip(items, judged) if k], dtype=np.int64)
    value = value[judged]
    group = _groups(unit, None if clusters is None else [c for c, k in zip(clusters, judged) if k])
    if ties == "drop":
        both = (judge != 0) & (value != 0)
        unit, judge, value = unit[both], judge[both], value[both]
    size = int(unit.max(initial=-1)) + 1
    return _made(np.bincount(unit, judge == value, size), np.bincount(unit, minlength=size), group, _chance(judge, value), level)


def verdict(one_order: int | None, other_order: int | None) -> int | None:
    """One verdict from both orders, each already turned back to the same two answers: 1, 0, -1; a contradiction is a tie.

    A win in one order and a tie in the other is a tie too (MT-bench's conservative rule). None where either is missing.
    """
    if one_order is None or other_order is None:
        return None
    return one_order if one_order == other_order else 0


@dataclass(frozen=True)
class BothOrders:
    """How a judge fares when the two answers change places, with intervals over items."""

    consistent: Estimate
    """The share of items with the same verdict in both orders."""
    first: Estimate
    """The share of verdicts that are not ties which took what stood first: half without a bias."""
    tied: Estimate
    """The share of items that tie once both orders are joined."""
    missing: int

    def to_json(self) -> dict[str, Any]:
        return {"consistent": self.consistent.to_json(), "first": self.first.to_json(), "tied": self.tied.to_json(),
                "missing": self.missing}


def both_orders(shown_first: Sequence[int | None], shown_second: Sequence[int | None], level: float = 0.95) -> BothOrders:
    """`shown_first[i]`: the verdict on item i with answer A shown first; `shown_second[i]`: with B first; 1 is for A in both.

    Raises ValueError where no item has both.
    """
    pairs = [(x, y) for x, y in zip(shown_first, shown_second, strict=True) if x is not None and y is not None]
    if not pairs:
        raise ValueError("no item has a verdict in both orders")
    taken = [(i, (1 + v) / 2 if k == 0 else (1 - v) / 2) for i, p in enumerate(pairs) for k, v in enumerate(p) if v]
    first = (mean_interval([x for _, x in taken], [i for i, _ in taken], level, bounds=(0.0, 1.0)) if taken
             else Estimate(0.5, 0.0, 1.0, 0, level))
    return BothOrders(mean_interval([float(x == y) for x, y in pairs], None, level, bounds=(0.0, 1.0)), first,
                      mean_interval([float(verdict(x, y) == 0) for x, y in pairs], None, level, bounds=(0.0, 1.0)),
                      len(shown_first) - len(pairs))


@dataclass(frozen=True)
class ThreeWay:
    """`accuracy`: the share of votes whose outcome (A, tie or B) was predicted; `untied` of those where people did not tie, a
    predicted tie counting wrong. `table` [3, 3]: rows A, tie, B as said, columns as predicted."""

    accuracy: Estimate
    untied: Estimate | None
    table: NDArray[np.int64]

    def to_json(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy.to_json(), "untied": None if self.untied is None else self.untied.to_json(),
                "table": self.table.tolist()}


def three_way(predicted: ArrayLike, votes: ArrayLike, items: Clusters | None = None, level: float = 0.95) -> ThreeWay:
    """Predictions and votes as 1, 0 or -1, [N] each; intervals over `items`. Raises ValueError without votes."""
    p, s = np.asarray(predicted, dtype=np.int64), np.asarray(votes, dtype=np.int64)
    if p.shape != s.shape or not len(p) or not (np.isin(p, (-1, 0, 1)).all() and np.isin(s, (-1, 0, 1)).all()):
        raise ValueError(f"predictions and votes are 1, 0 or -1, as many of each; found {p.shape} and {s.shape}")
    table = np.zeros((3, 3), dtype=np.int64)
    np.add.at(table, (1 - s, 1 - p), 1)
    index, clear = cluster_index(items, len(p)), s != 0
    untied = mean_interval((p == s)[clear], index[clear], level, bounds=(0.0, 1.0)) if clear.any() else None
    return ThreeWay(mean_interval(p == s, index, level, bounds=(0.0, 1.0)), untied, table)


def _votes(items: Sequence[Hashable], voters: Sequence[Hashable], values: ArrayLike
           ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    value = np.asarray(values, dtype=np.int64)
    return cluster_index(items, len(value)), cluster_index(voters, len(value)), value


def _groups(unit: NDArray[np.intp], clusters: Clusters | None) -> NDArray[np.intp]:
    """The cluster of each unit; each its own without any."""
    group = np.arange(int(unit.max(initial=-1)) + 1)
    if clusters is not None:
        group[unit] = cluster_index(clusters, len(unit))
    return group


def _within(unit: NDArray[np.intp], value: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Couples of equal votes, and couples, in each unit."""
    size = int(unit.max(initial=-1)) + 1
    each = [np.bincount(unit, value == v, size) for v in (-1, 0, 1)]
    total = np.bincount(unit, minlength=size).astype(np.float64)
    return np.asarray(sum(n * (n - 1) / 2 for n in each)), total * (total - 1) / 2


def _chance(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Which of the two answers is called the first is arbitrary, so wins of either side are of one frequency."""
    if not len(first):
        return float("nan")
    t, u = float((first == 0).mean()), float((second == 0).mean())
    return t * u + (1 - t) * (1 - u) / 2


def _made(agreed: ArrayLike, count: ArrayLike, group: NDArray[np.intp], chance: float, level: float) -> Couples:
    a, n = np.asarray(agreed, dtype=np.float64), np.asarray(count, dtype=np.float64)
    group = group[:len(n)]  # units at the end may have lost all their votes with the ties
    a, n, group = a[n > 0], n[n > 0], group[n > 0]
    if not len(n):
        raise ValueError("no item has two votes to compare")
    rows = np.repeat(np.arange(len(n)), n.astype(np.int64))
    within = np.arange(len(rows)) - np.repeat(np.cumsum(n) - n, n.astype(np.int64))
    equal = (within < a[rows]).astype(np.float64)
    pooled = mean_interval(equal, group[rows], level, bounds=(0.0, 1.0))
    return Couples(pooled, mean_interval(a / n, group, level, bounds=(0.0, 1.0)), chance, len(rows),
                   standard_error(equal, group[rows])[1])
