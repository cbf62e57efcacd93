"""How a proxy reward is over-optimised: best-of-n and its KL, and the curves of Gao, Schulman and Hilton (2210.10760).

    curve = best_of_n(proxy_P_N, gold_P_N, ns=[1, 4, 16, 64])     # mean proxy and gold of the answer the proxy picks
    fit_curve(np.sqrt(curve.kl), curve.gold, "bon").peak          # where gold is predicted to turn

Distance is d = √KL(π‖π₀), KL in nats. Their forms: R_bon(d) = d (α − β d), R_rl(d) = d (α − β log d), with R the gold
reward's gain over π₀. They peak at α / (2β) and exp(α/β − 1). The authors call the fit poor near d = 0.
Shapes: P prompts, N samples a prompt, n the number best-of-n chooses from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from harken.core.protocols import Estimate
from harken.stats.intervals import Floats

Form = Literal["bon", "rl"]


def kl_best_of_n(n: ArrayLike) -> Floats:
    """KL of best-of-n from the policy sampled, in nats: log n − (n − 1) / n. An upper bound where samples repeat."""
    count = np.asarray(n, dtype=np.float64)
    if count.size == 0 or count.min() < 1:
        raise ValueError("n must be at least 1")
    return np.asarray(np.log(count) - (count - 1) / count)


def best_of_n_weights(N: int, n: int) -> Floats:
    """[N]: the chance that the i-th smallest of N samples is the largest of n of them, C(i−1, n−1) / C(N, n)."""
    if not 1 <= n <= N:
        raise ValueError(f"best of {n} cannot be estimated from {N} samples")
    i = np.arange(1, N + 1, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = special.gammaln(i) - special.gammaln(n) - special.gammaln(i - n + 1)
    total = special.gammaln(N + 1) - special.gammaln(n + 1) - special.gammaln(N - n + 1)
    weights = np.zeros(N)
    weights[n - 1:] = np.exp(logs[n - 1:] - total)
    return weights


@dataclass(frozen=True)
class Curve:
    """Best-of-n under a proxy. `proxy`, `gold` [n] are means over prompts; `proxy_P_n`, `gold_P_n` each prompt's."""

    ns: list[int]
    kl: Floats
    proxy: Floats
    gold: Floats
    proxy_P_n: Floats
    gold_P_n: Floats


def best_of_n(proxy_P_N: ArrayLike, gold_P_N: ArrayLike, ns: Sequence[int]) -> Curve:
    """The unbiased estimate over all subsets of n of each prompt's N samples; [N] is read as one prompt.

    Gold scores are put into the proxy's order (forgetting that makes any proxy look harmless), and samples
    with equal proxy share their weights. Raises ValueError for a missing score or n over N.
    """
    proxy, gold = (np.atleast_2d(np.asarray(a, dtype=np.float64)) for a in (proxy_P_N, gold_P_N))
    if proxy.shape != gold.shape or proxy.ndim != 2:
        raise ValueError(f"proxy and gold must have one shape, found {proxy.shape} and {gold.shape}")
    if not (np.isfinite(proxy).all() and np.isfinite(gold).all()):
        raise ValueError("every sample needs both scores: leave out those without, and count them")
    order = np.argsort(proxy, axis=1, kind="stable")
    proxy = np.take_along_axis(proxy, order, 1)
    gold = np.take_along_axis(gold, order, 1)
    for row in range(len(gold)):
        _, group, size = np.unique(proxy[row], return_inverse=True, return_counts=True)
        if size.max() > 1:
            gold[row] = (np.bincount(group, gold[row]) / size)[group]
    weights = np.array([best_of_n_weights(proxy.shape[1], n) for n in ns])
    proxies, golds = proxy @ weights.T, gold @ weights.T
    return Curve(list(ns), kl_best_of_n(ns), proxies.mean(0), golds.mean(0), proxies, golds)


@dataclass(frozen=True)
class Fit:
    """R(d) = d (α − β d) or d (α − β log d). `peak` is the distance of the highest gold, infinite where β is not above 0.

    The peak's interval reaches infinity where that of β reaches 0: then no turn was shown.
    """

    form: Form
    alpha: Estimate
    beta: Estimate
    peak: Estimate
    r2: float

    def __call__(self, d: ArrayLike) -> Floats:
        return predict(d, self.alpha.value, self.beta.value, self.form)


def predict(d: ArrayLike, alpha: float, beta: float, form: Form) -> Floats:
    x = np.asarray(d, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        bend = x if form == "bon" else np.where(x > 0, np.log(x), 0.0)
    return np.asarray(x * (alpha - beta * bend))


def fit_curve(d: ArrayLike, gold: ArrayLike, form: Form, *, least: float = 0.0, level: float = 0.95, draws: int = 2000,
              seed: int = 0) -> Fit:
    """Least squares in α and β over the points with d > `least`, with intervals.

    `gold` is [D], or [S, D] with one row a replicate (a seed, a proxy, a prompt). Points along one curve share
    their samples, so with replicates the intervals are bootstraps over rows; with one curve they are those of
    least squares, which are too narrow. `gold` counts from its value at d = 0. Raises ValueError below 3 points.
    """
    x, rows = np.asarray(d, dtype=np.float64), np.atleast_2d(np.asarray(gold, dtype=np.float64))
    if rows.shape[1:] != x.shape:
        raise ValueError(f"{x.shape} distances need as many gold scores, found {rows.shape}")
    beyond = x > least
    if beyond.sum() < 3 or not np.isfinite(rows[:, beyond]).all():
        raise ValueError(f"a curve needs 3 finite points beyond d = {least}, found {int(beyond.sum())}")
    x, rows = x[beyond], rows[:, beyond]
    design = np.column_stack([x, -x * (x if form == "bon" else np.log(x))])
    mean = rows.mean(0)
    solve = np.linalg.pinv(design)
    point = solve @ mean
    residual = mean - design @ point
    r2 = 1.0 - float(residual @ residual) / float(((mean - mean.mean()) ** 2).sum())
    rng = np.random.default_rng(seed)
    if len(rows) > 1:
        drawn = rows[rng.integers(len(rows), size=(draws, len(rows)))].mean(1) @ solve.T
    else:
        free = len(x) - 2
        covariance = float(residual @ residual) / free * solve @ solve.T
        spread = np.sqrt(free / rng.chisquare(free, draws))  # a multivariate t: the residuals' variance is estimated too
        drawn = point + spread[:, None] * rng.multivariate_normal(np.zeros(2), covariance, draws)
    tail = np.array([0.5 - level / 2, 0.5 + level / 2])
    low, high = np.quantile(drawn, tail, axis=0)
    peaks = np.array([_peak(a, b, form) for a, b in drawn])
    first, last = np.quantile(peaks, tail, method="nearest")
    n = len(rows) if len(rows) > 1 else len(x)
    alpha, beta = (Estimate(float(point[i]), float(low[i]), float(high[i]), n, level) for i in (0, 1))
    return Fit(form, alpha, beta, Estimate(_peak(alpha.value, beta.value, form), float(first), float(last), n, level), r2)


def _peak(alpha: float, beta: float, form: Form) -> float:
    if beta <= 0:
        return math.inf
    return max(0.0, alpha / (2 * beta)) if form == "bon" else float(np.exp(min(alpha / beta - 1, 700.0)))
