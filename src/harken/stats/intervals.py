"""Intervals of proportions, means and paired differences.

The independent unit is the cluster (prompt, passage, conversation), not the row: copying every row
leaves an interval unchanged (E13). Formulas: Miller 2024 (arXiv 2411.00640), Wilson 1927.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

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


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Estimate:
    """Exact interval of a proportion (Clopper and Pearson 1934): it never covers less than `level`, mostly more.

    Raises ValueError unless `successes` is a whole number from 0 to n.
    """
    _check_level(level)
    if n < 1 or not 0 <= successes <= n or successes != int(successes):
        raise ValueError(f"successes must be a whole number between 0 and n >= 1, found {successes} of {n}")
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(special.betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(special.betaincinv(successes + 1, n - successes, 1 - tail))
    return Estimate(successes / n, low, high, n, level)


def mean_interval(values: ArrayLike, clusters: Clusters | None = None, level: float = 0.95, *,
                  bounds: tuple[float, float] | None = None) -> Estimate:
    """Mean of the values with a t-interval; cluster-robust when `clusters` names each value's unit.

    SE = sqrt(C/(C-1) * sum_c (sum_{i in c} (s_i - mean))^2) / n, with C - 1 degrees of freedom, where C
    counts clusters (Miller 2024). `Estimate.n` is C: independent units, not rows. One unit alone tells
    nothing of the spread: its interval is the whole range (infinite without `bounds`). Equal values
    without `bounds` give an interval of width zero.

    `bounds` are the least and greatest possible value. The interval is then clipped to them, and it is
    Wilson's where t misleads: when every value is at a bound (yes/no items), or fewer than five units
    differ from the commonest value (29 wins and a tie are no proof of 100 %); in the latter case what lies above that
    value and what lies below are two shares of the units, joined as Newcombe (1998) joins a difference.
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
        levels, counts = np.unique(means.round(12), return_counts=True)
        few = counts.max() > units - RARE
        common = levels[counts == counts.max()]
        nearest = np.abs(common - (lowest + highest) / 2)
        common = common[nearest <= nearest.min() + 1e-9]  # two of them: neither is the one that the others are off
        if (np.isin(means, bounds).all() and sizes.min() == sizes.max()) or (few and len(common) > 1):
            width = highest - lowest
            share = wilson(min(max((mean - lowest) / width, 0.0), 1.0) * units, units, level)
            return Estimate(mean, lowest + width * share.low, lowest + width * share.high, units, level)
        if few:
            return _rare(x - common[0], float(common[0]), mean, bounds, units, level)
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


def _rare(off: Floats, common: float, mean: float, bounds: tuple[float, float], units: int, level: float) -> Estimate:
    """A mean of values that are all but `common`: it is common + room above * share up - room below * share down."""
    room = bounds[1] - common, common - bounds[0]
    parts = [(r, wilson(min(float(np.maximum(sign * off, 0).mean()) / r, 1.0) * units, units, level) if r > 0
              else Estimate(0.0, 0.0, 0.0, units, level)) for r, sign in zip(room, (1, -1))]
    (up, over), (down, under) = parts
    low = mean - math.hypot(up * (over.value - over.low), down * (under.high - under.value))
    high = mean + math.hypot(up * (over.high - over.value), down * (under.value - under.low))
    return Estimate(mean, max(low, bounds[0]), min(high, bounds[1]), units, level)


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
    """Mean with a bootstrap interval: whole clusters are drawn, all their rows together (E14). See `bootstrap`."""
    _check_level(level)
    x = finite(values)
    index = cluster_index(clusters, len(x))
    sizes, sums = np.bincount(index).astype(np.float64), np.bincount(index, x)
    rng, units, means = np.random.default_rng(seed), len(sizes), []
    block = max(1, min(draws, 2_000_000 // units))
    for start in range(0, draws, block):
        drawn = rng.integers(units, size=(min(block, draws - start), units))
        means.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
    return _expanded(np.concatenate(means), float(x.mean()), units, level)


def bootstrap(statistic: Callable[[NDArray[np.intp]], float], units: int, *, seed: int = 0, draws: int = 2000,
              level: float = 0.95) -> Estimate:
    """Any statistic with its bootstrap interval. `statistic(drawn)` recomputes it on the units `drawn` [units], indices
    into prompts (or clusters); two models, several orders and repeats of a prompt share its index (E14).

    Percentiles at the levels that make up for few units (Hesterberg 2015, "expanded percentile"): the normal tail at
    t_{units-1} sqrt(units / (units - 1)), without which intervals of 10 units cover 4 points too little. A draw whose
    statistic is not finite is left out; ValueError when a tenth of them are.
    """
    _check_level(level)
    if units < 1:
        raise ValueError("there is no unit to draw")
    value = float(statistic(np.arange(units)))
    rng = np.random.default_rng(seed)
    drawn = np.array([statistic(rng.integers(units, size=units)) for _ in range(draws)]) if units > 1 else np.full(draws, value)
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < 0.9 * draws:
        raise ValueError(f"{draws - len(drawn)} of {draws} draws have no finite value: {units} units are too few for it")
    return _expanded(drawn, value, units, level)


def _expanded(drawn: Floats, value: float, units: int, level: float) -> Estimate:
    if units == 1:
        return Estimate(value, -math.inf, math.inf, 1, level)
    tail = float(special.ndtr(-special.stdtrit(units - 1, 0.5 + level / 2) * math.sqrt(units / (units - 1))))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(value, min(float(low), value), max(float(high), value), units, level)
