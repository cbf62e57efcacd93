"""Bootstrap intervals of statistics that are functions of sums over independent clusters.

Every agreement measure is such a function, so one draw costs one weighted sum, and measures of the same data
share their draws. Clusters are drawn whole: copying the rows of a cluster does not shrink an interval (E13).

Shape suffixes: `C` clusters, `D` sums, `B` draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
BLOCK = 4_000_000  # weights held at a time


def resampled_sums(sums_CD: Floats, draws: int, seed: int) -> Floats:
    """[B, D] totals of `draws` samples of C clusters, drawn with replacement.

    Clusters with equal sums are interchangeable, so where few differ a draw is one multinomial over what
    differs: judgments have few patterns, and 100,000 of them cost no more than 100.
    """
    rng = np.random.default_rng(seed)
    clusters = len(sums_CD)
    patterns, counts = np.unique(sums_CD, axis=0, return_counts=True)
    if len(patterns) * 4 <= clusters:
        weights = rng.multinomial(clusters, counts / clusters, size=draws)
        return np.asarray(weights.astype(np.float64) @ patterns)
    totals = np.empty((draws, sums_CD.shape[1]))
    block = max(1, BLOCK // clusters)
    for start in range(0, draws, block):
        size = min(block, draws - start)
        drawn = rng.integers(clusters, size=(size, clusters)) + np.arange(size)[:, None] * clusters
        weights = np.bincount(drawn.ravel(), minlength=size * clusters).reshape(size, clusters)
        totals[start:start + size] = weights.astype(np.float64) @ sums_CD
    return totals


def percentiles(values_B: Floats, clusters: int, level: float) -> tuple[float, float]:
    """Expanded percentile interval (Hesterberg 2015, arXiv 1411.5279, section 5.3): the tail probability a becomes
    Phi(sqrt(n/(n-1)) t_{a, n-1}), because plain percentiles are too narrow for few clusters. Undefined draws are left out.
    """
    a = 0.5 - level / 2
    t = float(special.stdtrit(clusters - 1, a)) * math.sqrt(clusters / (clusters - 1))
    low, high = np.nanquantile(values_B, [special.ndtr(t), 1 - special.ndtr(t)])
    return float(low), float(high)


def wilson_bounds(share: float, n: int, level: float) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of n units: honest where all, or nearly all, units agree."""
    z = float(special.ndtri(0.5 + level / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
