"""Logistic regression without an intercept, L1 or L2, and the choice of its strength by grouped cross-validation.

    fit(X, y, penalty="l1", C=1.0)        # weights of P(y = 1) = σ(X w)
    choose(X, y, groups)                  # penalty and C with the best held-out log-likelihood
    intervals(X, y, groups)               # of the weights that the data have, not of the shrunken ones

The objective is that of LIBLINEAR (Fan et al. 2008) and scikit-learn, so that C means the same there:

    min_w  penalty(w) + C Σ_i s_i [log(1 + exp(x_i·w)) − y_i x_i·w],     penalty = ‖w‖² / 2 or ‖w‖₁

It is solved by proximal Newton steps (Lee, Sun, Saunders 2014) until the gradient condition holds.
Rows are differences of features, so an intercept would be a preference for the first place. `y` may be
a half: a tie. Shapes: n rows, A attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from harken.stats.intervals import Clusters, Floats, cluster_index

Penalty = Literal["l1", "l2"]
STRENGTHS: Floats = np.logspace(-5, 5, 12)
"""The grid of the paper on compositional preference models (2310.13011)."""
WEAK = 2.5
"""Standard deviation of the prior of standardised features' weights (Gelman et al. 2008): log-odds of 5 a deviation are rare."""


def fit(X: ArrayLike, y: ArrayLike, *, penalty: Penalty = "l2", C: float = 1.0, weights: ArrayLike | None = None,
        start: Floats | None = None, tolerance: float = 1e-8, most_steps: int = 200) -> Floats:
    """Weights [A]. Raises ValueError for values that are missing, or outcomes outside [0, 1]."""
    x, target, s = _checked(X, y, weights)
    w = np.zeros(x.shape[1]) if start is None else start.astype(np.float64)
    scale = C * s
    for _ in range(most_steps):
        p = special.expit(x @ w)
        gradient = x.T @ (scale * (p - target)) + (w if penalty == "l2" else 0.0)
        if _violation(w, gradient, penalty) <= max(tolerance, 1e-12 * C * float(s.sum())):  # the second is rounding
            break
        hessian = (x * (scale * p * (1 - p))[:, None]).T @ x
        hessian[np.diag_indices_from(hessian)] += 1.0 if penalty == "l2" else 1e-9 * (1.0 + float(np.trace(hessian)))
        step = _step(w, gradient, hessian, penalty)
        expected = float(gradient @ step) + (float(np.abs(w + step).sum() - np.abs(w).sum()) if penalty == "l1" else 0.0)
        if -expected <= 1e-14 * max(1.0, C * float(s.sum())):  # what it could win is rounding
            w = w + step
            break
        now, length = _objective(x, target, scale, w, penalty), 1.0
        while length > 1e-10 and _objective(x, target, scale, w + length * step, penalty) > now + 1e-4 * length * expected:
            length /= 2
        if length <= 1e-10:  # no step lowers it in double precision: this is the minimum
            break
        w = w + length * step
    return w


def _checked(X: ArrayLike, y: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    x, target = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    s = np.ones(len(target)) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 2 or target.shape != (len(x),) or s.shape != (len(x),) or not len(x):
        raise ValueError(f"rows of shape {x.shape} need as many outcomes and weights, found {target.shape} and {s.shape}")
    if not (np.isfinite(x).all() and np.isfinite(target).all() and np.isfinite(s).all()):
        raise ValueError("features, outcomes and weights must be finite")
    if target.min() < 0 or target.max() > 1 or s.min() < 0:
        raise ValueError("outcomes must lie between 0 and 1, weights above 0")
    return x, target, s


def _objective(x: Floats, y: Floats, scale: Floats, w: Floats, penalty: Penalty) -> float:
    z = x @ w
    loss = float(scale @ (np.logaddexp(0.0, z) - y * z))
    return loss + (float(np.abs(w).sum()) if penalty == "l1" else 0.5 * float(w @ w))


def _violation(w: Floats, gradient: Floats, penalty: Penalty) -> float:
    """How far w is from a minimum: 0 must lie in the subgradient."""
    if penalty == "l2":
        return float(np.abs(gradient).max())
    at_zero = np.maximum(np.abs(gradient) - 1.0, 0.0)
    return float(np.where(w == 0, at_zero, np.abs(gradient + np.sign(w))).max())


def _step(w: Floats, gradient: Floats, hessian: Floats, penalty: Penalty) -> Floats:
    """Minimises the quadratic model plus the penalty: a Newton step, or coordinate descent with soft thresholds."""
    if penalty == "l2":
        return np.asarray(-np.linalg.solve(hessian, gradient))
    new, curvature = w.copy(), np.diag(hessian)
    slope = gradient.copy()  # of the quadratic model at `new`
    first = 0.0
    for sweep in range(100):  # an inexact step is a step: the outer loop goes on until its condition holds
        moved = 0.0
        for j in range(len(w)):
            at = new[j] - slope[j] / curvature[j]
            to = np.sign(at) * max(abs(at) - 1.0 / curvature[j], 0.0)
            if (change := to - new[j]) != 0.0:
                new[j] = to
                slope += change * hessian[:, j]
                moved = max(moved, abs(change) * float(np.sqrt(curvature[j])))
        first = moved if sweep == 0 else first
        if moved <= 1e-2 * first or moved < 1e-12:
            break
    return np.asarray(new - w)


@dataclass(frozen=True)
class Chosen:
    """The best setting, and the table it was chosen from: rows {penalty, C, log_likelihood, accuracy} held out."""

    penalty: Penalty
    C: float
    weights: Floats
    table: list[dict[str, float | str]]


def folds(groups: Clusters, k: int, seed: int = 0) -> NDArray[np.intp]:
    """A fold number for every row; rows of one group share a fold, groups are spread evenly."""
    index = cluster_index(groups, len(groups))
    count = int(index.max()) + 1
    if not 2 <= k <= count:
        raise ValueError(f"{k} folds need as many groups, found {count}")
    assigned = np.empty(count, dtype=np.intp)
    assigned[np.random.default_rng(seed).permutation(count)] = np.arange(count) % k
    return assigned[index]


def choose(X: ArrayLike, y: ArrayLike, groups: Clusters, *, weights: ArrayLike | None = None,
           penalties: Sequence[Penalty] = ("l1", "l2"), strengths: Sequence[float] | Floats = STRENGTHS, k: int = 8,
           seed: int = 0) -> Chosen:
    """Tries every penalty and strength on `k` folds, then fits the best to all rows.

    Best is the highest held-out log-likelihood a row, the stronger regularisation where equal to 0.0001 (so that data
    which separates does not ask for infinite weights). The paper takes the highest accuracy, which dozens of settings
    share on a few hundred pairs. Groups (prompts) are never split.
    """
    x, target, s = _checked(X, y, weights)
    fold = folds(groups, k, seed)
    table: list[dict[str, float | str]] = []
    for penalty in penalties:
        held = np.zeros((len(strengths), 2))
        for f in range(k):
            inside, outside = fold != f, fold == f
            w = np.zeros(x.shape[1])
            for i, C in enumerate(strengths):  # each starts where the weaker one ended
                w = fit(x[inside], target[inside], penalty=penalty, C=float(C), weights=s[inside], start=w, tolerance=1e-3)
                held[i] += _held_out(x[outside] @ w, target[outside], s[outside])
        table += [{"penalty": penalty, "C": float(C), "log_likelihood": float(a / s.sum()), "accuracy": float(b / s.sum())}
                  for C, (a, b) in zip(strengths, held)]
    best = max(table, key=lambda row: (round(float(row["log_likelihood"]), 4), -float(row["C"])))
    chosen: Penalty = "l1" if best["penalty"] == "l1" else "l2"
    return Chosen(chosen, float(best["C"]), fit(x, target, penalty=chosen, C=float(best["C"]), weights=s), table)


def intervals(X: ArrayLike, y: ArrayLike, groups: Clusters, *, weights: ArrayLike | None = None, level: float = 0.95,
              width: float = WEAK) -> tuple[Floats, Floats]:
    """Ends [A] of each weight's interval; rows of one group may depend on each other.

    A penalty that predicts best shrinks, most where a weight is largest, and bootstraps of the shrunken fit lie about the
    shrunken weight. So the fit is another: maximum likelihood less its bias of first order (Firth 1993: h (½ − p) is added to the
    score, h a row's leverage), with a prior N(0, width²) that matters only where attributes measure the same. Its spread is the
    sandwich H^-1 (Σ_g u_g u_g' + P) H^-1: u_g a group's score, its residuals over 1 − h as a jackknife has them (HC3, MacKinnon
    and White 1985), P the prior's precision, which counts as one more observation. A row of weight s should bear the
    information of s comparisons, or too much is taken for bias.
    """
    x, target, s = _checked(X, y, weights)
    prior = np.eye(x.shape[1]) / width**2
    w = np.zeros(x.shape[1])
    for _ in range(100):
        p = special.expit(x @ w)
        v = s * p * (1 - p)
        inverse = np.linalg.inv((x * v[:, None]).T @ x + prior)
        h = v * np.einsum("na,ab,nb->n", x, inverse, x)
        step = inverse @ (x.T @ (s * (target - p) + h * (0.5 - p)) - prior @ w)
        if np.abs(step).max() < 1e-6:
            break
        w = w + step * min(1.0, 2.0 / float(np.abs(step).max()))
    index = cluster_index(groups, len(x))
    score = np.zeros((int(index.max()) + 1, x.shape[1]))
    np.add.at(score, index, (s * (target - p) / (1 - h))[:, None] * x)
    spread = inverse @ (score.T @ score + prior) @ inverse
    half = special.stdtrit(max(len(score) - 1, 1), 0.5 + level / 2) * np.sqrt(np.diag(spread))
    return w - half, w + half


def _held_out(z: Floats, y: Floats, s: Floats) -> tuple[float, float]:
    """Weighted sums of log-likelihood and of right guesses; a tie, on either side, is half right."""
    right = 0.5 + 0.5 * np.sign(z) * np.sign(2 * y - 1)
    return float(s @ (y * z - np.logaddexp(0.0, z))), float(s @ right)
