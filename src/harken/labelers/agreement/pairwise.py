"""Labeler by labeler: who agrees with whom, who with the others, and each with himself.

    table = matrix(ratings)                  # table.agreement[i, j], table.kappa[i, j], table.shared[i, j]
    by_rater(ratings)                        # each rater's agreement with the others, with its interval
    self_consistency(votes)                  # the same pair shown again, in the same and in mirrored order

Shape suffixes: `U` units, `V` values, `A` raters, `N` ratings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse, special

from harken.core.protocols import Estimate
from harken.labelers.agreement.coefficients import FEWEST_DIFFERENT, Agreement, Scale, agreement, likeness
from harken.labelers.agreement.resample import wilson_bounds
from harken.labelers.ratings import Floats, Ints, Ratings, ratings_of_votes
from harken.labelers.votes import Votes


@dataclass(frozen=True)
class Matrix:
    """Every two raters. NaN where they share no unit, and kappa also where both always said the same one thing."""

    raters: tuple[str, ...]
    agreement: Floats
    """[A, A] share of the shared units with the same value (near ones in part, unless nominal)."""
    kappa: Floats
    """[A, A] Cohen's."""
    shared: Ints
    """[A, A] units both rated; on the diagonal, units rated."""

    def to_json(self) -> dict[str, Any]:
        def rows(table: Floats) -> list[list[float | None]]:
            return [[None if np.isnan(x) else round(float(x), 4) for x in row] for row in table]

        return {"raters": list(self.raters), "agreement": rows(self.agreement), "kappa": rows(self.kappa),
                "shared": self.shared.tolist()}


def matrix(ratings: Ratings, scale: Scale = "nominal") -> Matrix:
    """Percent agreement, Cohen's kappa and the number of shared units of every two raters."""
    last = ratings.latest()
    units, raters, size = len(last.cluster), len(last.raters), len(last.levels)
    weights_VV = likeness(last, scale, np.bincount(last.value, minlength=size).astype(np.float64))
    ones = np.ones(len(last))
    given = [sparse.csr_array((ones * (last.value == v), (last.unit, last.rater)), shape=(units, raters)) for v in range(size)]
    rated = sparse.csr_array((ones, (last.unit, last.rater)), shape=(units, raters))
    shared = (rated.T @ rated).toarray()
    margin_VAA = np.array([(given[v].T @ rated).toarray() for v in range(size)])  # how often i said v where j rated too
    if last.symmetric:
        margin_VAA = (margin_VAA + margin_VAA[::-1]) / 2
    near = [sum((weights_VV[v, w] * given[w] for w in range(size) if weights_VV[v, w]), sparse.csr_array((units, raters)))
            for v in range(size)]
    agreed = sum(((given[v].T @ near[v]).toarray() for v in range(size)), np.zeros((raters, raters)))
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = agreed / shared
        expected = np.einsum("vij,vw,wji->ij", margin_VAA, weights_VV, margin_VAA, optimize=True) / shared**2
        kappa = np.where(expected < 1 - 1e-12, (seen - expected) / (1 - expected), np.nan)
    return Matrix(last.raters, seen, kappa, shared.astype(np.int64))


def by_rater(ratings: Ratings, scale: Scale = "nominal", level: float = 0.95) -> dict[str, Estimate]:
    """Each rater's agreement with the others on shared units: mean over units of the share of the others who said the same.

    A cluster-robust t-interval (Miller 2024, arXiv 2411.00640); Wilson's where fewer than five clusters differ.
    Raters who share no unit are left out.
    """
    last = ratings.latest()
    counts_UV = last.counts()
    others_N = counts_UV.sum(1)[last.unit] - 1
    weights_VV = likeness(last, scale, counts_UV.sum(0))
    alike_N = (counts_UV[last.unit] * weights_VV[last.value]).sum(1) - 1
    estimates: dict[str, Estimate] = {}
    order = np.argsort(last.rater, kind="stable")
    bounds = np.searchsorted(last.rater[order], np.arange(len(last.raters) + 1))
    for a, name in enumerate(last.raters):
        rows = order[bounds[a]:bounds[a + 1]]
        rows = rows[others_N[rows] > 0]
        if len(rows):
            estimates[name] = _clustered_mean(alike_N[rows] / others_N[rows], last.cluster[last.unit[rows]], level)
    return estimates


def _clustered_mean(x: Floats, cluster: Ints, level: float) -> Estimate:
    _, index, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    n, mean = len(sizes), float(x.mean())
    means = (np.bincount(index, x) / sizes).round(12)
    if n - np.unique(means, return_counts=True)[1].max() < FEWEST_DIFFERENT:
        return Estimate(mean, *wilson_bounds(mean, n, level), n, level)
    error = np.sqrt(n / (n - 1) * (np.bincount(index, x - mean) ** 2).sum()) / len(x)
    half = float(special.stdtrit(n - 1, 0.5 + level / 2) * error)
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), n, level)


def self_consistency(votes: Votes, **options: Any) -> Mapping[str, Agreement]:
    """Do people answer as before when the same pair returns? Keys: "repeated" (any order), "same order", "mirrored".

    "mirrored" compares answers given when the two stood in opposite order: a labeler who always takes the left one scores 0
    there and 1 in "same order". A key is missing where nothing of its kind was repeated.
    """
    measures: dict[str, Agreement] = {}
    for key, repeated in _repeats(votes).items():
        repeats = ratings_of_votes(repeated).repeats()
        if len(repeats):
            value = agreement(repeats, ("percent",), **options)["percent"]
            assert value is not None  # a percentage is always defined
            measures[key] = value
    return measures


def _repeats(votes: Votes) -> dict[str, Votes]:
    """What to compare: all; the votes in the commoner order of their labeler and pair; one of each order."""
    key = np.column_stack([votes.labeler, np.minimum(votes.a, votes.b), np.maximum(votes.a, votes.b), votes.judgment])
    votes = votes.take(np.sort(np.unique(key, axis=0, return_index=True)[1]))  # one ranking may hold the same text twice
    side = np.where(votes.a < votes.b, votes.first, -votes.first)
    pair = np.column_stack([votes.labeler, np.minimum(votes.a, votes.b), np.maximum(votes.a, votes.b)])
    group = np.unique(pair, axis=0, return_inverse=True)[1].ravel()
    size = group.max(initial=-1) + 1
    left, right = np.bincount(group[side > 0], minlength=size), np.bincount(group[side < 0], minlength=size)
    commoner = np.where(left >= right, 1, -1)[group]
    both = np.flatnonzero((side != 0) & ((left > 0) & (right > 0))[group])
    one_each = np.unique(np.column_stack([group[both], side[both]]), axis=0, return_index=True)[1]
    return {"repeated": votes, "same order": votes.take(side == commoner), "mirrored": votes.take(np.sort(both[one_each]))}
