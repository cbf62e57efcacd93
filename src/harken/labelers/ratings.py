"""Who gave which unit which value: what agreement is computed from.

    ratings = ratings_of([("item 1", "ana", 4), ("item 1", "bo", 5), ("item 2", "ana", 1)])
    ratings = ratings_of_matrix([[1, 1, None], [2, 3, 3]])       # units x raters, None or NaN where missing
    ratings = ratings_of_votes(votes)                            # a unit is a pair of items; a, b or a tie

Shape suffixes: `N` ratings, `U` units, `A` raters, `V` values, `C` clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harken.labelers.votes import UNNAMED, Votes

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Value = float | str
MOST_VALUES = 1000  # tables are V x V
LARGEST_VALUE = 1e100  # sums of squares of more are infinite


@dataclass(frozen=True)
class Ratings:
    """Ratings in the order given. Units, raters and values are indices."""

    unit: Ints
    """[N]"""
    rater: Ints
    """[N]"""
    value: Ints
    """[N] index into `levels` and `names`."""
    levels: Floats
    """[V] the values as numbers, ascending; 0, 1, 2 … where they are words."""
    names: tuple[str, ...]
    """[V] the values as people know them."""
    raters: tuple[str, ...]
    """[A]"""
    cluster: Ints
    """[U] the independent group a unit belongs to: its prompt, for example. Intervals draw whole clusters."""
    symmetric: bool = False
    """The values are mirror images (a won, tie, b won) and which side is called a is arbitrary."""
    ordered: bool = True
    """False where the values are words: they have no distance."""

    def __len__(self) -> int:
        return len(self.unit)

    def take(self, rows: NDArray[np.bool_] | Ints) -> Ratings:
        """Some of the ratings; units and raters keep their indices."""
        return dataclasses.replace(self, unit=self.unit[rows], rater=self.rater[rows], value=self.value[rows])

    def latest(self) -> Ratings:
        """One rating for each rater and unit, the last given: a correction is a new judgment."""
        key = self.unit * len(self.raters) + self.rater
        last = len(key) - 1 - np.unique(key[::-1], return_index=True)[1]
        return self if len(last) == len(key) else self.take(np.sort(last))

    def repeats(self) -> Ratings:
        """The same rater's ratings of one unit against each other: a "unit" is a rater and a unit, a "rater" the 1st, 2nd … time.

        Clusters stay those of the units. Agreement of this is self-consistency.
        """
        key = self.unit * len(self.raters) + self.rater
        keys, index, sizes = np.unique(key, return_inverse=True, return_counts=True)
        again = sizes[index] > 1
        order = np.argsort(index, kind="stable")
        nth = np.empty(len(key), dtype=np.int64)
        nth[order] = np.arange(len(key)) - (np.cumsum(sizes) - sizes)[index[order]]
        new_unit = np.cumsum(sizes > 1) - 1
        cluster = self.cluster[keys[sizes > 1] // len(self.raters)] if len(keys) else self.cluster[:0]
        times = tuple(f"time {i + 1}" for i in range(int(sizes.max(initial=0))))
        return dataclasses.replace(self, unit=new_unit[index[again]], rater=nth[again], value=self.value[again],
                                   raters=times, cluster=cluster)

    def counts(self) -> Floats:
        """[U, V] how many raters gave each unit each value."""
        shape = len(self.cluster), len(self.levels)
        return np.bincount(self.unit * shape[1] + self.value, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)


def ratings_of(rows: Iterable[tuple[Hashable, str, Value]], categories: Sequence[Value] | None = None,
               clusters: Iterable[Hashable] | None = None) -> Ratings:
    """Ratings from (unit, rater, value) rows; `clusters` names each row's cluster (default: its unit is its own).

    Values are numbers, or words, whose order is that of `categories` or of the alphabet. `categories` lists the whole
    scale where not all of it was used (Gwet's coefficients count it). Raises ValueError on a value that is no finite
    number or not in `categories`, and on more than 1,000 different values.
    """
    table = list(rows)
    units: dict[Hashable, int] = {}
    raters: dict[str, int] = {}
    groups: dict[Hashable, int] = {}
    cluster: list[int] = []
    unit, rater = np.empty(len(table), dtype=np.int64), np.empty(len(table), dtype=np.int64)
    named = list(clusters) if clusters is not None else [row[0] for row in table]
    if len(named) != len(table):
        raise ValueError(f"clusters has {len(named)} entries for {len(table)} ratings")
    for n, (what, who, _) in enumerate(table):
        unit[n] = units.setdefault(what, len(units))
        rater[n] = raters.setdefault(who, len(raters))
        if unit[n] == len(cluster):
            cluster.append(groups.setdefault(named[n], len(groups)))
    scale, ordered = _scale([row[2] for row in table], categories)
    code = {value: i for i, value in enumerate(scale)}
    unknown = next((row[2] for row in table if row[2] not in code), None)
    if unknown is not None:
        raise ValueError(f"the value {unknown!r} is not one of the categories {', '.join(map(str, scale))}")
    levels = np.array(scale if ordered else range(len(scale)), dtype=np.float64)
    return Ratings(unit, rater, np.array([code[row[2]] for row in table], dtype=np.int64), levels,
                   tuple(f"{v:g}" if ordered else str(v) for v in scale), tuple(raters), np.array(cluster, dtype=np.int64),
                   ordered=ordered)


def _scale(values: Sequence[Value], categories: Sequence[Value] | None) -> tuple[list[Value], bool]:
    """The distinct values in order, and whether they are numbers."""
    distinct = set(values)
    numbers = not any(isinstance(v, str) for v in distinct.union(categories or ()))
    if numbers and not (np.abs(np.array(list(distinct), dtype=np.float64)) <= LARGEST_VALUE).all():  # false of NaN, too
        raise ValueError(f"a rating must be a finite number, {LARGEST_VALUE:g} at most; leave missing ratings out")
    if not numbers and not all(isinstance(v, str) for v in distinct.union(categories or ())):
        raise ValueError("ratings are numbers or words, not both")
    if len(distinct) > MOST_VALUES:
        raise ValueError(f"{len(distinct)} different values; round them to at most {MOST_VALUES}")
    scale = list(categories) if categories is not None else sorted(distinct, key=lambda v: (isinstance(v, str), v))
    return sorted(scale, key=lambda v: (isinstance(v, str), v)) if numbers else scale, numbers


def ratings_of_matrix(matrix: Sequence[Sequence[Value | None]], categories: Sequence[Value] | None = None,
                      raters: Sequence[str] | None = None) -> Ratings:
    """Ratings from a table of units x raters; None and NaN are missing. Each unit is its own cluster."""
    width = max(map(len, matrix), default=0)
    names = list(raters) if raters is not None else [f"rater {i + 1}" for i in range(width)]
    return ratings_of(((u, names[a], value) for u, row in enumerate(matrix) for a, value in enumerate(row)
                       if value is not None and value == value), categories)


def ratings_of_votes(votes: Votes, ties: bool = True) -> Ratings:
    """Pairwise votes as ratings: a unit is a pair of items under one prompt, its value which one won, or a tie.

    Clusters are prompts: the pairs of one ranking, and of one prompt, are not independent (E13). Which item is called the
    first is arbitrary, so chance is computed from both sides (`symmetric`). With `ties` False tied votes are left out (the
    second setup of MT-bench, arXiv 2306.05685). Votes without a labeler's name are left out: nobody knows whose they are.
    """
    counted = np.array([name != UNNAMED for name in votes.labelers], dtype=np.bool_)[votes.labeler]
    if not ties:
        counted &= votes.won != 0
    named = votes.take(counted)
    low, high = np.minimum(named.a, named.b), np.maximum(named.a, named.b)
    won = np.where(named.a == low, named.won, -named.won)
    pairs, unit = np.unique(low * len(votes.items) + high, return_inverse=True)
    first = votes.prompt[pairs // max(1, len(votes.items))]
    answers = {-1.0: "second", 0.0: "tie", 1.0: "first"}
    if won.all():  # where nobody tied, a tie was not an answer
        del answers[0.0]
    levels = np.array(list(answers))
    return Ratings(unit.astype(np.int64), named.labeler, np.searchsorted(levels, won).astype(np.int64), levels,
                   tuple(answers.values()), votes.labelers, np.unique(first, return_inverse=True)[1].astype(np.int64),
                   symmetric=True)
