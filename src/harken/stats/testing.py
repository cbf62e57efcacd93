"""Tests of paired comparisons, of equivalence, and corrections for several of them.

    p_value(d, clusters)                    # of the mean difference being 0
    equivalence(d, margin=0.05)             # is |difference| shown to be below the margin? (two one-sided tests)
    mcnemar(12, 4)                          # two models' yes/no on the same items: discordant counts
    holm(p), benjamini_hochberg(p)          # adjusted p-values, in the order given

Formulas: Miller 2024 (arXiv 2411.00640), McNemar 1947, Schuirmann 1987, Holm 1979, Benjamini and Hochberg 1995.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from harken.core.protocols import Estimate
from harken.stats.intervals import Clusters, Floats, cluster_index, finite, mean_interval

EXACT = 25
"""Below as many units that differ, the p-value comes from all sign changes, not from t."""
FLIPS = 10_000


def standard_error(values: ArrayLike, clusters: Clusters | None = None) -> tuple[float, float, int]:
    """Mean, its standard error and the number of units, cluster-robust as in `mean_interval`; NaN for one unit."""
    x = finite(values)
    index = cluster_index(clusters, len(x))
    units, mean = int(index.max()) + 1, float(x.mean())
    if units == 1:
        return mean, math.nan, 1
    sums = np.bincount(index, x - mean)
    return mean, math.sqrt(units / (units - 1) * float(sums @ sums)) / len(x), units


def p_value(differences: ArrayLike, clusters: Clusters | None = None) -> float:
    """Two-sided p of "the mean difference is 0".

    A t-test with C - 1 degrees of freedom; where fewer than 25 units differ from 0, the exact test of sign changes (all
    2^k up to k = 14, else 10,000 seeded draws and the data themselves), which for yes/no items is the exact McNemar test.
    """
    d = finite(differences, "differences")
    index = cluster_index(clusters, len(d))
    sums: Floats = np.bincount(index, d).astype(np.float64)
    moved = sums[np.abs(sums) > 1e-12 * np.abs(d).max()]
    if len(moved) == 0:
        return 1.0
    if len(moved) < EXACT:
        return _sign_changes(moved)
    mean, error, units = standard_error(d, clusters)
    return 2 * float(special.stdtr(units - 1, -abs(mean) / error)) if error else 0.0


def _sign_changes(moved: Floats) -> float:
    size, k = abs(float(moved.sum())) - 1e-9 * float(np.abs(moved).sum()), len(moved)  # but for rounding, whatever the unit
    if np.ptp(np.abs(moved)) <= 1e-12 * np.abs(moved).max():  # all of one size: binomial
        won = int((moved > 0).sum())
        return mcnemar(won, k - won)
    if k <= 14:
        signs = 1.0 - 2.0 * ((np.arange(2**k)[:, None] >> np.arange(k)) & 1)
        return float((np.abs(signs @ moved) >= size).mean())
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (FLIPS, k))
    return float((1 + (np.abs(signs @ moved) >= size).sum()) / (1 + FLIPS))


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p from the items that only a, or only b, got right: exact binomial below 25 of them, else
    z = (b - c) / sqrt(b + c)."""
    n = only_a + only_b
    if min(only_a, only_b) < 0:
        raise ValueError(f"counts must be 0 or more, found {only_a} and {only_b}")
    if n == 0:
        return 1.0
    if n < EXACT:
        return min(1.0, 2 * float(special.bdtr(min(only_a, only_b), n, 0.5)))
    return 2 * float(special.ndtr(-abs(only_a - only_b) / math.sqrt(n)))


@dataclass(frozen=True)
class Equivalence:
    """`p` of "the difference is at least the margin, either way"; `interval` is at 1 - 2 alpha: equivalent where it lies
    within the margin."""

    p: float
    interval: Estimate
    margin: float
    equivalent: bool


def equivalence(differences: ArrayLike, margin: float, clusters: Clusters | None = None, *, alpha: float = 0.05,
                bounds: tuple[float, float] | None = None) -> Equivalence:
    """Two one-sided tests (Schuirmann 1987): is the mean difference shown to lie within (-margin, margin)?

    `margin` is the smallest difference that would matter, set before looking. With `bounds`, and fewer than five units that
    differ, the interval is the one of `mean_interval`, which does not take equal scores for proof. Raises ValueError for a
    margin that is not above 0.
    """
    if not margin > 0 or not math.isfinite(margin):
        raise ValueError(f"the margin of equivalence must be above 0, found {margin}")
    mean, error, units = standard_error(differences, clusters)
    interval = mean_interval(differences, clusters, 1 - 2 * alpha, bounds=bounds)
    inside = -margin < interval.low and interval.high < margin
    if units == 1:
        return Equivalence(1.0, interval, margin, False)
    nearest = margin - abs(mean)
    p = float(special.stdtr(units - 1, -nearest / error)) if error > 0 else float(nearest <= 0)
    if not inside:
        p = max(p, alpha)
    return Equivalence(p, interval, margin, inside and p < alpha)


def holm(p_values: ArrayLike) -> Floats:
    """Adjusted p-values: rejecting those up to alpha keeps the chance of any false claim at alpha (Holm 1979)."""
    p = _probabilities(p_values)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)) if len(p) else p
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """Adjusted p-values: among those up to q, the expected share of false ones is at most q. For screens, not for claims."""
    p = _probabilities(p_values)
    order = np.argsort(-p, kind="stable")
    steps = np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1)) if len(p) else p
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def _probabilities(values: ArrayLike) -> Floats:
    p = np.asarray(values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values must be a list of numbers between 0 and 1")
    return p
