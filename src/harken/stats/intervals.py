"""Intervals of proportions, means and paired differences.

The independent unit is the cluster (prompt, passage, conversation), not the row: copying every row
leaves an interval unchanged (E13). Formulas: Miller 2024 (arXiv 2411.00640), Wilson 1927.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from harken.core.protocols import Estimate

Floats = NDArray[np.float64]
Clusters = Sequence[Hashable] | NDArray[np.generic]
RARE = 5  # a t-interval needs this many units off the commonest value, like the np >= 5 rule


def finite(values: ArrayLike, name: str = "values") -> Floats:
    """One-dimensional float array. None, NaN and infinities raise ValueError naming their indices (E17)."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, found shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} is empty: there is nothing to estimate")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        shown = ", ".join(map(str, bad[:10])) + (f" and {bad.size - 10} more" if bad.size > 10 else "")
        raise ValueError(f"{name} has {bad.size} missing or non-finite entries, at index {shown}")
    return array


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, found {level}")


def cluster_index(clusters: Clusters | None, n: int) -> NDArray[np.intp]:
    """Cluster number of each of `n` rows, counted from 0 in order of appearance; each its own when None."""
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise ValueError(f"clusters has {len(clusters)} entries for {n} values")
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(c, len(seen)) for c in clusters], dtype=np.intp)


def wilson(successes: float, n: int, level: float = 0.95) -> Estimate:
    """Wilson score interval of a proportion. `successes` may be a half-integer: a tie is half a win.

    With ties it is conservative: a tie varies less than a coin. Raises ValueError outside 0 <= successes <= n.
    """
    _check_level(level)
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n >= 1, found {successes} of {n}")
    z = float(special.ndtri(0.5 + level / 2))
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else min(max(0.0, centre - half), p)
    high = 1.0 if successes == n else max(min(1.0, centre + half), p)
    return Estimate(p, low, high, n, level)


def mean_interval(values: ArrayLike, clusters: Clusters | None = None, level: float = 0.95, *,
                  bounds: tuple[float, float] | None = None) -> Estimate:
    """Mean of the values with a t-interval; cluster-robust when `clusters` names each value's unit.

    SE = sqrt(C/(C-1) * sum_c (sum_{i in c} (s_i - mean))^2) / n, with C - 1 degrees of freedom, where C
    counts clusters (Miller 2024). `Estimate.n` is C: independent units, not rows. One unit alone tells
    nothing of the spread: its interval is the whole range (infinite without `bounds`). Equal values
    without `bounds` give an interval of width zero.

    `bounds` are the least and greatest possible value. The interval is then clipped to them, and it is
    Wilson's where t misleads: when every value is at a bound (yes/no items), or fewer than five units
    differ from the commonest value (29 wins and a tie are no proof of 100 %).
    Raises ValueError on missing values, naming their indices.
    """
    _check_level(level)
    x = finite(values)
    index = cluster_index(clusters, len(x))
    sizes = np.bincount(index)
    units, mean = len(sizes), float(x.mean())
    means = np.bincount(index, x) / sizes
    if bounds is not None:
        lowest, highest = bounds
        if x.min() < lowest or x.max() > highest:
            raise ValueError(f"values reach from {x.min():g} to {x.max():g}, outside the bounds {bounds}")
        common = int(np.unique(means.round(12), return_counts=True)[1].max())
        yes_no = bool(np.isin(means, bounds).all()) and sizes.min() == sizes.max()
        if yes_no or common > units - RARE:
            width = highest - lowest
            share = wilson(min(max((mean - lowest) / width, 0.0), 1.0) * units, units, level)
            return Estimate(mean, lowest + width * share.low, lowest + width * share.high, units, level)
    if units == 1:
        low, high = (-math.inf, math.inf) if bounds is None else bounds
        return Estimate(mean, low, high, 1, level)
    sums = np.bincount(index, x - mean)
    error = math.sqrt(units / (units - 1) * float(sums @ sums)) / len(x)
    half = float(special.stdtrit(units - 1, 0.5 + level / 2)) * error
    low, high = mean - half, mean + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(mean, low, high, units, level)


def paired_difference(a: ArrayLike, b: ArrayLike, clusters: Clusters | None = None, level: float = 0.95, *,
                      bounds: tuple[float, float] | None = None) -> Estimate:
    """Mean of a_i - b_i over shared items: the default comparison of two models (E12).

    `bounds` are those of the difference, (-1, 1) for two rates. Raises ValueError when lengths differ.
    """
    x, y = finite(a, "a"), finite(b, "b")
    if len(x) != len(y):
        raise ValueError(f"a has {len(x)} items and b has {len(y)}: a paired comparison needs the same items")
    return mean_interval(x - y, clusters, level, bounds=bounds)


def bootstrap_mean(values: ArrayLike, clusters: Clusters | None = None, seed: int = 0, *,
                   draws: int = 4000, level: float = 0.95) -> Estimate:
    """Mean with a percentile bootstrap interval: whole clusters are drawn, all their rows together (E14).

    Below about 20 clusters it is too narrow; `mean_interval` is not.
    """
    _check_level(level)
    x = finite(values)
    index = cluster_index(clusters, len(x))
    sizes, sums = np.bincount(index).astype(np.float64), np.bincount(index, x)
    rng, units = np.random.default_rng(seed), len(sizes)
    means = np.empty(draws)
    for i in range(draws):
        drawn = rng.integers(units, size=units)
        means[i] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(float(x.mean()), float(low), float(high), units, level)
