"""Who is able, and what is hard? GLAD (Whitehill et al. 2009): one ability a labeler, one difficulty an item.

    model = fit_glad(ratings)
    model.ability()["ana"]                   # alpha with its interval: 0 is chance, below 0 is adversarial
    model.easiness_U                         # beta: near 0 nobody can tell

P(answer = class) = sigma(alpha_a beta_u), the wrong answers being equally likely; log beta and alpha have N(1, 1) priors and
classes are equally frequent. Unlike Dawid–Skene it needs few answers a labeler, and knows nothing of confusions.

Shape suffixes: `N` ratings, `U` units, `A` labelers, `K` classes, `Q` nodes of a quadrature over difficulty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, sparse, special

from harken.core.protocols import Estimate
from harken.labelers.ratings import Floats, Ratings

PRIOR_MEAN = 1.0  # of alpha and of log beta; both with variance 1
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
BETA: Floats = np.exp(PRIOR_MEAN + NODES)
LOG_WEIGHT: Floats = np.log(WEIGHTS / WEIGHTS.sum())


@dataclass(frozen=True)
class Glad:
    """A fitted model."""

    ratings: Ratings
    posterior_UK: Floats
    ability_A: Floats
    """alpha."""
    easiness_U: Floats
    """beta, above 0; difficulty is 1 / beta."""
    trace: tuple[float, ...]
    """Log-posterior of alpha and log beta after each EM step: it never falls."""

    def labels(self) -> list[str]:
        """[U] names of the likeliest classes."""
        return [self.ratings.names[k] for k in self.posterior_UK.argmax(1)]

    def ability(self, level: float = 0.95) -> dict[str, Estimate]:
        """Each labeler's alpha with Laplace's interval; `n` counts answers.

        Here difficulties are integrated out (Gauss–Hermite). `ability_A` is the paper's joint mode with them, which is biased
        where few people answered each item: 90 % intervals around it held the truth only 68 % of the time (docs/agreement.md).
        """
        z = float(special.ndtri(0.5 + level / 2))
        mode_A = optimize.minimize(_integrated_loss, self.ability_A, (self.ratings,), jac=True, method="L-BFGS-B").x
        error_A = np.sqrt(np.diag(np.linalg.pinv(_curvature(self.ratings, mode_A), hermitian=True)))
        answers = np.bincount(self.ratings.rater, minlength=len(self.ability_A))
        return {name: Estimate(float(x), float(x - z * e), float(x + z * e), int(n), level)
                for name, x, e, n in zip(self.ratings.raters, mode_A, error_A, answers) if n}


def fit_glad(ratings: Ratings, *, max_steps: int = 200, tolerance: float = 1e-7) -> Glad:
    """EM; an M step is ten steps of L-BFGS. A labeler's last answer to a unit counts.

    Stops when the log-posterior of an answer rises by less than `tolerance`. Raises ValueError when there are fewer than two
    classes or no ratings.
    """
    last = ratings.latest()
    size, raters = len(last.levels), len(last.raters)
    if not len(last) or size < 2:
        raise ValueError(f"{len(last)} ratings of {size} classes; at least two classes are needed to tell people apart")
    x = np.ones(raters + len(last.cluster))
    trace: list[float] = []
    for _ in range(max_steps):
        posterior, value = _expect(last, x)
        if trace and value - trace[-1] < tolerance * len(last):
            trace.append(value)
            break
        trace.append(value)
        share_N = posterior[last.unit, last.value]  # that the answer is right
        x = optimize.minimize(_expected_loss, x, (last, share_N), jac=True, method="L-BFGS-B", options={"maxiter": 10}).x
    return Glad(last, _expect(last, x)[0], x[:raters], np.exp(x[raters:]), tuple(trace))


def _margins(r: Ratings, x: Floats) -> Floats:
    """[N] alpha beta of each answer."""
    raters = len(r.raters)
    return np.asarray(x[:raters][r.rater] * np.exp(x[raters:][r.unit]))


def _expect(r: Ratings, x: Floats) -> tuple[Floats, float]:
    """Posterior [U, K], and the log-posterior of the parameters (up to a constant)."""
    size, margin_N = len(r.levels), _margins(r, x)
    wrong_N = special.log_expit(-margin_N) - np.log(size - 1)
    joint = np.bincount(r.unit * size + r.value, special.log_expit(margin_N) - wrong_N, len(r.cluster) * size).reshape(-1, size)
    joint += np.bincount(r.unit, wrong_N, len(r.cluster))[:, None] - np.log(size)
    norm_U = special.logsumexp(joint, axis=1, keepdims=True)
    return np.exp(joint - norm_U), float(norm_U.sum() - ((x - PRIOR_MEAN) ** 2).sum() / 2)


def _expected_loss(x: Floats, r: Ratings, share_N: Floats) -> tuple[float, Floats]:
    """Minus the expected log-probability of answers and classes, and its gradient."""
    raters, margin_N = len(r.raters), _margins(r, x)
    value = share_N @ special.log_expit(margin_N) + (1 - share_N) @ special.log_expit(-margin_N)
    slope_N = share_N - special.expit(margin_N)
    gradient = np.concatenate([np.bincount(r.rater, slope_N * np.exp(x[raters:][r.unit]), raters),
                               np.bincount(r.unit, slope_N * margin_N, len(r.cluster))])
    return float(((x - PRIOR_MEAN) ** 2).sum() / 2 - value), x - PRIOR_MEAN - gradient


def _integrate(r: Ratings, ability_A: Floats) -> tuple[Floats, Floats, float]:
    """P(class k, node q) of each unit [U, K, Q], P(answered right | node) [N, Q], and the log-likelihood of the abilities."""
    size, units = len(r.levels), len(r.cluster)
    margin_NQ = ability_A[r.rater, None] * BETA
    right_NQ, wrong_NQ = special.log_expit(margin_NQ), special.log_expit(-margin_NQ) - np.log(size - 1)
    rows = np.arange(len(r))
    by_answer = sparse.csr_array((np.ones(len(r)), (r.unit * size + r.value, rows)), shape=(units * size, len(r)))
    by_unit = sparse.csr_array((np.ones(len(r)), (r.unit, rows)), shape=(units, len(r)))
    joint_UKQ = (by_answer @ (right_NQ - wrong_NQ)).reshape(units, size, -1) + (by_unit @ wrong_NQ)[:, None] + LOG_WEIGHT
    norm_U = special.logsumexp(joint_UKQ, axis=(1, 2), keepdims=True)
    return np.exp(joint_UKQ - norm_U), np.exp(right_NQ), float(norm_U.sum() - units * np.log(size))


def _integrated_loss(ability_A: Floats, r: Ratings) -> tuple[float, Floats]:
    """Minus the log-posterior of the abilities, and its gradient."""
    weight_UKQ, right_NQ, value = _integrate(r, ability_A)
    slope_N = ((weight_UKQ[r.unit, r.value] - weight_UKQ.sum(1)[r.unit] * right_NQ) * BETA).sum(1)
    away = ability_A - PRIOR_MEAN
    return float(away @ away / 2 - value), away - np.bincount(r.rater, slope_N, len(ability_A))


def _curvature(r: Ratings, ability_A: Floats) -> Floats:
    """[A, A] of minus that log-posterior, by Louis' (1982) identity: the expected curvature of the complete data less the
    variance of its slope over the classes and difficulties an item may have."""
    weight_UKQ, right_NQ, _ = _integrate(r, ability_A)
    units, size, nodes = weight_UKQ.shape
    bend_N = (weight_UKQ.sum(1)[r.unit] * right_NQ * (1 - right_NQ) * BETA**2).sum(1)
    curvature = np.diag(1 + np.bincount(r.rater, bend_N, len(ability_A)))
    mean = sparse.csr_array((units, len(ability_A)))
    for k in range(size):
        for q in range(nodes):
            slope_N = BETA[q] * ((r.value == k) - right_NQ[:, q])
            slope = sparse.csr_array((slope_N, (r.unit, r.rater)), shape=mean.shape)
            weighted = sparse.diags_array(weight_UKQ[:, k, q]) @ slope
            curvature -= (slope.T @ weighted).toarray()
            mean = mean + weighted
    return np.asarray(curvature + (mean.T @ mean).toarray())
