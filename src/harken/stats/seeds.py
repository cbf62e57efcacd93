"""Several training seeds, or several judges, on the same items: what would another seed have given?

    seeds_mean(scores_S_N)                 # mean with an interval over seeds and items both
    seeds_difference(a_S_N, b_S_N)         # the runs of one row shared a seed
    seeds_difference(a_S_N, b_T_N, paired=False)

An interval over items alone says how these very weights do; over seeds as well, how the method does. Seeds and items are
crossed: with mean squares MS_seed, MS_item and MS_rest of a two-way table, Var(mean) = (MS_seed + MS_item - MS_rest) / (S N),
with Satterthwaite's degrees of freedom. Shapes: S seeds, N items.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from harken.core.protocols import Estimate
from harken.stats.intervals import Clusters, Floats, cluster_index


def seeds_mean(scores_S_N: ArrayLike, clusters: Clusters | None = None, level: float = 0.95) -> Estimate:
    """Mean over seeds and items; `n` counts seeds. `clusters` [N]: items are averaged within a cluster, clusters weigh alike.

    Raises ValueError for missing scores, for one seed (its interval over seeds would be infinite) and for one item.
    """
    table = _table(scores_S_N, clusters)
    value, variance, degrees = _moments(table)
    half = float(special.stdtrit(degrees, 0.5 + level / 2)) * math.sqrt(variance)
    return Estimate(value, value - half, value + half, len(table), level)


def seeds_difference(a_S_N: ArrayLike, b_S_N: ArrayLike, clusters: Clusters | None = None, level: float = 0.95, *,
                     paired: bool = True) -> Estimate:
    """Mean of a - b over shared items. `paired`: row s of both runs shares a seed (data order, initial weights).

    Not paired, the seeds of each vary alone, and the items of both together: Var = MS_item,d / (K N) for the items, with the
    rows' means for the seeds (Welch). `n` is the smaller number of seeds.
    """
    a, b = _table(a_S_N, clusters), _table(b_S_N, clusters)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a has {a.shape[1]} items and b has {b.shape[1]}: a paired comparison needs the same items")
    if paired:
        if len(a) != len(b):
            raise ValueError(f"a has {len(a)} seeds and b has {len(b)}: pass paired=False where they share none")
        value, variance, degrees = _moments(a - b)
    else:
        value = float(a.mean() - b.mean())
        parts = [(float(x.mean(1).var(ddof=1)) / len(x), float(len(x) - 1)) for x in (a, b)]
        d = a.mean(0) - b.mean(0)
        rest = float(sum(_rest(x) / x.size for x in (a, b)))  # in the seeds' variance and in the items'
        items = max(float(d.var(ddof=1)) / len(d) - rest, 0.0)
        parts.append((items, float(len(d) - 1)))
        variance = float(sum(v for v, _ in parts))
        degrees = float(variance**2 / sum(v**2 / f for v, f in parts)) if variance else 1.0
    half = float(special.stdtrit(degrees, 0.5 + level / 2)) * math.sqrt(variance)
    return Estimate(value, value - half, value + half, min(len(a), len(b)), level)


def _table(scores: ArrayLike, clusters: Clusters | None) -> Floats:
    x = np.asarray(scores, dtype=np.float64)
    if x.ndim != 2 or min(x.shape) < 2:
        raise ValueError(f"scores must be [seeds, items], two of each at least, found shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{int((~np.isfinite(x)).sum())} scores are missing: leave their items out of every run, and count them")
    if clusters is None:
        return x
    index = cluster_index(clusters, x.shape[1])
    sizes = np.bincount(index)
    if len(sizes) < 2:
        raise ValueError("all items are of one cluster")
    return np.array([np.bincount(index, row) / sizes for row in x])


def _rest(x: Floats) -> float:
    """Mean square of what neither row nor column explains."""
    s, n = x.shape
    left = x - x.mean(1, keepdims=True) - x.mean(0, keepdims=True) + x.mean()
    return float((left**2).sum()) / float((s - 1) * (n - 1))


def _moments(x: Floats) -> tuple[float, float, float]:
    """Mean, its variance and degrees of freedom."""
    s, n = x.shape
    rows, columns, rest = n * float(x.mean(1).var(ddof=1)), s * float(x.mean(0).var(ddof=1)), _rest(x)
    total = rows + columns - rest
    if total <= max(rows, columns):  # no sign of the smaller one
        total, degrees = max(rows, columns), float(s - 1 if rows >= columns else n - 1)
    else:
        degrees = total**2 / (rows**2 / (s - 1) + columns**2 / (n - 1) + rest**2 / ((s - 1) * (n - 1)))
    return float(x.mean()), total / (s * n), max(float(degrees), 1.0)
