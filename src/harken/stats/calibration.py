"""Does a predicted probability mean what it says? Reliability bins, ECE and the Brier score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from harken.core.protocols import Estimate
from harken.stats.intervals import Clusters, Floats, cluster_index, finite, mean_interval


@dataclass(frozen=True)
class Calibration:
    """`bins` are JSON rows {predicted, observed, low, high, n}: means over a bin's n predictions, and the
    interval of `observed`. `ece` is the sum over bins of n_b/n |observed - predicted|; it is biased upward
    when bins are small, so compare it at equal n. `brier` is the mean of (p - y)^2.
    """

    bins: list[dict[str, float]]
    ece: float
    brier: Estimate


def fold(deltas: ArrayLike) -> tuple[Floats, Floats]:
    """Confidence sigma(|delta|) and whether it was right (0 at delta = 0: half) of r(preferred) - r(other).

    Which answer is called first is arbitrary, so each pair is seen from the side predicted to win.
    """
    d = finite(deltas, "deltas")
    return special.expit(np.abs(d)), np.heaviside(d, 0.5)


def reliability(predicted: ArrayLike, observed: ArrayLike, edges: Sequence[float] | Floats | None = None,
                clusters: Clusters | None = None, level: float = 0.95) -> Calibration:
    """Predicted probabilities against outcomes in [0, 1], in bins of equal width on [0, 1] unless `edges` are given.

    Empty bins are left out; intervals are over `clusters`. Raises ValueError for predictions outside the edges.
    """
    p, y = _both(predicted, observed)
    cuts = np.linspace(0, 1, 11) if edges is None else np.asarray(edges, dtype=np.float64)
    if p.min() < cuts[0] or p.max() > cuts[-1]:
        raise ValueError(f"predictions reach from {p.min():g} to {p.max():g}, edges from {cuts[0]:g} to {cuts[-1]:g}")
    which = np.clip(np.searchsorted(cuts, p, side="right") - 1, 0, len(cuts) - 2)
    index = cluster_index(clusters, len(p))
    bins: list[dict[str, float]] = []
    gap = 0.0
    for b in np.unique(which):
        inside = which == b
        seen = mean_interval(y[inside], index[inside], level, bounds=(0.0, 1.0))
        bins.append({"predicted": float(p[inside].mean()), "observed": seen.value, "low": seen.low, "high": seen.high,
                     "n": int(inside.sum())})
        gap += abs(float((p[inside] - y[inside]).sum()))
    return Calibration(bins, gap / len(p), brier(p, y, clusters, level))


def brier(predicted: ArrayLike, observed: ArrayLike, clusters: Clusters | None = None, level: float = 0.95) -> Estimate:
    """Mean of (p - y)^2 with its clustered interval: 0 is perfect, 0.25 is always saying one half."""
    p, y = _both(predicted, observed)
    return mean_interval((p - y) ** 2, clusters, level, bounds=(0.0, 1.0))


def reward_calibration(deltas: ArrayLike, clusters: Clusters | None = None, bins: int = 10,
                       level: float = 0.95) -> Calibration:
    """Calibration of a reward on judged pairs: `deltas` are r(preferred) - r(other), one a pair.

    Predicted is sigma(|delta|), observed how often that side was preferred; bins have equal width on [1/2, 1].
    """
    p, y = fold(deltas)
    return reliability(p, y, np.linspace(0.5, 1, bins + 1), clusters, level)


def _both(predicted: ArrayLike, observed: ArrayLike) -> tuple[Floats, Floats]:
    p, y = finite(predicted, "predicted"), finite(observed, "observed")
    if len(p) != len(y):
        raise ValueError(f"predicted has {len(p)} entries and observed {len(y)}")
    if min(p.min(), y.min()) < 0 or max(p.max(), y.max()) > 1:
        raise ValueError("probabilities and outcomes must lie between 0 and 1")
    return p, y
