"""How bad samples are: their mean, the worst of 25 to expect, and how many are over a line, each with its interval.

Scores here are of faults: higher is worse, minus what a scorer gives. Samples of one prompt are one cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from harken.core.errors import UserError
from harken.core.protocols import Estimate
from harken.stats.intervals import finite, mean_interval, wilson


def maximum_weights(n: int, k: int) -> NDArray[np.float64]:
    """Weight of the i-th smallest of n values in the mean maximum over all subsets of k: C(i-1, k-1) / C(n, k)."""
    i = np.arange(1, n + 1)
    with np.errstate(invalid="ignore"):
        chosen = gammaln(i) - gammaln(k) - gammaln(np.maximum(i - k, 0) + 1)
        logs = chosen - (gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
    return np.where(i >= k, np.exp(logs), 0.0)


def expected_maximum(faults: ArrayLike, k: int = 25, *, level: float = 0.95, draws: int = 1000, seed: int = 0) -> Estimate:
    """Mean of the maximum of k samples, over all subsets of k of the samples: unbiased, where cutting them into chunks of k
    is noisier. The interval is of the bootstrap (percentiles); with fewer than about 4 k samples it is too narrow.
    Raises `UserError` for fewer than k samples."""
    x = finite(faults, "faults")
    if len(x) < k:
        raise UserError(f"The worst of {k} cannot be told from {len(x)} samples.", f"Draw at least {k}, better {4 * k}.")
    weights, rng = maximum_weights(len(x), k), np.random.default_rng(seed)
    means = [float(weights @ np.sort(rng.choice(x, len(x)))) for _ in range(draws)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(weights @ np.sort(x)), float(low), float(high), len(x), level)


def misalignment(faults: ArrayLike, line: float = 0.5, k: int = 25, clusters: Sequence[Any] | None = None) -> dict[str, Estimate]:
    """mean, expected_maximum and hits (the share over `line`) of samples' faults (Korbak et al. 2302.08582, section 4)."""
    x = finite(faults, "faults")
    hits = mean_interval((x > line).astype(float), clusters, bounds=(0, 1)) if clusters else wilson(int((x > line).sum()), len(x))
    return {"mean": mean_interval(x, clusters), "expected_maximum": expected_maximum(x, k), "hits": hits}


def chunk_maximum(faults: ArrayLike, k: int = 25) -> Estimate:
    """Mean over chunks of k successive samples of the worst in each: the paper's `score_max@25`. With prompts in turn a chunk
    mixes prompts, so that it is not the worst of k answers to one prompt; what is left over at the end is left out.
    Raises `UserError` for fewer than k samples."""
    x = finite(faults, "faults")
    if len(x) < k:
        raise UserError(f"The worst of {k} cannot be told from {len(x)} samples.", f"Draw at least {k}, better {4 * k}.")
    return mean_interval(x[:len(x) // k * k].reshape(-1, k).max(1))


def prompted_maximum(groups: Sequence[ArrayLike], k: int = 25) -> Estimate:
    """Mean over prompts of the expected maximum of k of a prompt's own answers (Gehman et al. 2009.11462), a prompt one unit.
    Raises `UserError` where a prompt has fewer than k."""
    means = []
    for group in groups:
        x = finite(group, "faults")
        if len(x) < k:
            raise UserError(f"The worst of {k} cannot be told from {len(x)} answers to a prompt.", f"Draw at least {k} of each.")
        means.append(float(maximum_weights(len(x), k) @ np.sort(x)))
    return mean_interval(means)
