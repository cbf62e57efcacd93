"""Distributional preference learning: what an item is worth to different people, as a distribution and not a number.

    utility = fit_mean_variance(votes)
    utility.mean, utility.sd                # [I] each item's utility over people and contexts nobody recorded
    utility.r2                            # 1: no hidden context; small: people differ by what the data does not say
    utility.quantile(0.01)                # a score that avoids what is dreadful to some
    interval(fit_mean_variance(votes, draws=200), lambda one: one.sd)      # 90 % of anything that can be read off it

A single score fitted to people who differ is a Borda count, not an expected utility: it ranks what wins most often first, even
where the loser is far better on average (Siththaranjan, Laidlaw and Hadfield-Menell 2024, 2312.08358). So each item gets a
distribution, and P(a preferred) is that of one draw exceeding another:

    mean–variance   Φ((μ_a − μ_b) / sqrt(σ_a² + σ_b²))
    categorical     Σ_ij p_a(i) p_b(j) (1[i > j] + ½ 1[i = j])        atoms i, j on an even grid over [0, 1]

Ties are half a win each way. Comparisons fix neither zero nor unit: mean–variance has mean 0 (within each prompt where items
have their own parameters) and mean σ² 1; the categorical one lies on [0, 1], and an order-preserving stretch of its grid
fits as well. Compare σ between items and r² with a control whose people agree: their absolute size means little.

Shape suffixes: `U` pairs, `I` items, `F` features, `M` atoms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import log_ndtr, ndtri, softmax

from harken.core.errors import UserError
from harken.labelers import laplace
from harken.labelers.groups.regression import Floats, Ints
from harken.labelers.groups.scores import centred, features
from harken.labelers.votes import Votes

MEAN_SD = 3.0
"""Prior of each mean's parameter: N(0, 3²)."""
LOG_SD = 1.0
"""Prior of each ln σ's parameter: N(0, 1): a factor e is one standard deviation."""
LOGIT_SD = 2.0
LEAST_PROBABILITY = 1e-9


@dataclass(frozen=True)
class MeanVariance:
    """A normal distribution an item."""

    mean: Floats
    """[I]"""
    sd: Floats
    """[I]"""
    log_likelihood: float
    draws: tuple[MeanVariance, ...] = ()
    """Of the posterior, as many as were asked for."""

    @property
    def r2(self) -> float:
        """Var(μ) / (Var(μ) + E σ²): the share of utility's spread that items explain."""
        return explained(self.mean, self.sd**2)

    def quantile(self, share: float) -> Floats:
        """[I] the utility that all but `share` of people exceed: risk-averse for a small share."""
        if not 0 < share < 1:
            raise ValueError(f"a quantile lies between 0 and 1, found {share}")
        return np.asarray(self.mean + float(ndtri(share)) * self.sd)

    def probability(self, a: int, b: int) -> float:
        """P(a is worth more than b) to somebody."""
        z = (self.mean[a] - self.mean[b]) / np.hypot(self.sd[a], self.sd[b])
        return float(np.exp(log_ndtr(z)))


@dataclass(frozen=True)
class Categorical:
    """A distribution over atoms an item."""

    atoms: Floats
    """[M] from 0 to 1"""
    shares: Floats
    """[I, M]"""
    log_likelihood: float
    draws: tuple[Categorical, ...] = ()
    """Of the posterior, as many as were asked for."""

    @property
    def mean(self) -> Floats:
        return np.asarray(self.shares @ self.atoms)

    @property
    def sd(self) -> Floats:
        return np.asarray(np.sqrt(np.maximum(self.shares @ self.atoms**2 - self.mean**2, 0)))

    @property
    def r2(self) -> float:
        return explained(self.mean, self.sd**2)

    def quantile(self, share: float) -> Floats:
        """[I] the quantile of each distribution, each atom's mass spread evenly over its cell of the grid."""
        if not 0 < share < 1:
            raise ValueError(f"a quantile lies between 0 and 1, found {share}")
        width = 1 / len(self.atoms)
        edges = np.linspace(0, 1, len(self.atoms) + 1)
        reached = np.concatenate([np.zeros((len(self.shares), 1)), np.cumsum(self.shares, 1)], 1)
        at = np.minimum((reached[:, 1:] < share).sum(1), len(self.atoms) - 1)
        rows = np.arange(len(at))
        return np.asarray(edges[at] + width * (share - reached[rows, at]) / np.maximum(self.shares[rows, at], LEAST_PROBABILITY))


Distribution = TypeVar("Distribution", MeanVariance, Categorical)


def explained(mean: Floats, variance: Floats) -> float:
    between = float(np.var(mean))
    whole = between + float(np.mean(variance))
    return between / whole if whole > 0 else 1.0


def interval(fit: Distribution, of: Callable[[Distribution], Any], level: float = 0.9) -> tuple[Any, Any]:
    """Ends of the interval of any figure `of` a fit: a number or an array. Raises ValueError for a fit without draws."""
    if not fit.draws:
        raise ValueError("this fit has no draws: fit with draws=200")
    low, high = np.quantile([of(one) for one in fit.draws], [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return low, high


def _pairs(votes: Votes) -> tuple[Ints, Ints, Floats, Floats]:
    """Each pair once: a [U], b [U], wins of a and wins of b [U], a tie being half of each."""
    if len(votes) == 0:
        raise UserError("There is no comparison to learn from.", "Give a file of comparisons with at least one pair.")
    swap = votes.a > votes.b
    won = np.where(swap, -votes.won, votes.won)
    ends = np.stack([np.minimum(votes.a, votes.b), np.maximum(votes.a, votes.b)], 1)
    pair, where = np.unique(ends, axis=0, return_inverse=True)
    wins, losses = (np.bincount(where.ravel(), (1 + side * won) / 2).astype(np.float64) for side in (1, -1))
    return pair[:, 0].astype(np.int64), pair[:, 1].astype(np.int64), wins, losses


def fit_mean_variance(votes: Votes, *, phi: Floats | None = None, draws: int = 0, seed: int = 0) -> MeanVariance:
    """Maximum a posteriori means and standard deviations: a pair of numbers an item, or linear in features `phi` [I, F].

    `draws` are of Laplace's approximation with the pairs' Fisher information.
    """
    a, b, wins, losses = _pairs(votes)
    table = features(votes, phi)
    count, width = table.shape

    def loss(x: Floats) -> tuple[float, Floats]:
        mu, log_sd = table @ x[:width], table @ x[width:]
        variance = np.exp(2 * log_sd)
        va, vb = variance[a], variance[b]
        root = np.sqrt(va + vb)
        z = (mu[a] - mu[b]) / root
        up, down = log_ndtr(z), log_ndtr(-z)
        density = -z**2 / 2 - 0.5 * np.log(2 * np.pi)
        pull = -(wins * np.exp(density - up) - losses * np.exp(density - down))  # d loss / d z
        slope = pull / root
        g_mu = np.bincount(a, slope, count) - np.bincount(b, slope, count)
        shrink = -pull * z / root**2  # d z / d ln σ_a = −z σ_a² / (σ_a² + σ_b²)
        g_sd = np.bincount(a, shrink * va, count) + np.bincount(b, shrink * vb, count)
        value = -float(wins @ up + losses @ down)
        value += float((x[:width] ** 2).sum()) / (2 * MEAN_SD**2) + float((x[width:] ** 2).sum()) / (2 * LOG_SD**2)
        return value, np.concatenate([table.T @ g_mu + x[:width] / MEAN_SD**2, table.T @ g_sd + x[width:] / LOG_SD**2])

    def read(x: Floats, fit: float) -> MeanVariance:
        mean, sd = table @ x[:width], np.exp(table @ x[width:])
        unit = float(np.sqrt(np.mean(sd**2)))
        mean = centred(mean, votes.prompt) if phi is None else mean - mean.mean()
        return MeanVariance(mean / unit, sd / unit, fit)

    def jacobian(x: Floats) -> tuple[sparse.csr_array, Floats]:
        """dz / dx [U, 2F], and the information of each pair's votes about its z [U]."""
        mu, variance = table @ x[:width], np.exp(2 * (table @ x[width:]))
        root = np.sqrt(variance[a] + variance[b])
        z = (mu[a] - mu[b]) / root
        share_a, share_b = (sparse.diags_array(-z * v / root**2) for v in (variance[a], variance[b]))
        one, other = table[a], table[b]
        density = np.exp(-z**2 - np.log(2 * np.pi) - log_ndtr(z) - log_ndtr(-z))
        return (sparse.csr_array(sparse.hstack([sparse.diags_array(1 / root) @ (one - other), share_a @ one + share_b @ other])),
                (wins + losses) * density)

    return _posterior(loss, jacobian, read, np.repeat([MEAN_SD**-2, LOG_SD**-2], width), draws, seed)


def fit_categorical(votes: Votes, *, phi: Floats | None = None, atoms: int = 10, draws: int = 0, seed: int = 0) -> Categorical:
    """Maximum a posteriori distributions over `atoms` atoms: free for every item, or logits linear in features `phi` [I, F].

    `draws` as in `fit_mean_variance`.
    """
    a, b, wins, losses = _pairs(votes)
    if atoms < 2:
        raise ValueError(f"at least 2 atoms, found {atoms}")
    table = features(votes, phi)
    count, width = table.shape
    above = np.tril(np.ones((atoms, atoms)), -1) + np.eye(atoms) / 2  # [i, j]: atom i exceeds atom j, half where equal
    ends = _ends(a, b, count)

    def loss(x: Floats) -> tuple[float, Floats]:
        p = softmax(table @ x.reshape(width, atoms), axis=1)
        pa, pb = p[a], p[b]
        to_a, to_b = pb @ above.T, pa @ above
        up = np.clip((pa * to_a).sum(1), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        pull = -(wins / up - losses / (1 - up))
        g_p = ends[0] @ (pull[:, None] * to_a) + ends[1] @ (pull[:, None] * to_b)
        g_logit = p * (g_p - (p * g_p).sum(1, keepdims=True))
        value = -float(wins @ np.log(up) + losses @ np.log1p(-up)) + float((x**2).sum()) / (2 * LOGIT_SD**2)
        return value, np.asarray(table.T @ g_logit).ravel() + x / LOGIT_SD**2

    def read(x: Floats, fit: float) -> Categorical:
        return Categorical(np.linspace(0, 1, atoms), softmax(table @ x.reshape(width, atoms), axis=1), fit)

    def jacobian(x: Floats) -> tuple[sparse.csr_array, Floats]:
        """dP(a) / dx [U, F M], and the information of each pair's votes about its P(a) [U]."""
        p = softmax(table @ x.reshape(width, atoms), axis=1)
        pa, pb = p[a], p[b]
        to_a, to_b = pb @ above.T, pa @ above
        up = np.clip((pa * to_a).sum(1), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        by_a, by_b = pa * (to_a - up[:, None]), pb * (to_b - up[:, None])
        columns = [sparse.diags_array(by_a[:, m]) @ table[a] + sparse.diags_array(by_b[:, m]) @ table[b] for m in range(atoms)]
        order = np.arange(width * atoms).reshape(atoms, width).T.ravel()  # from atom by atom to feature by feature
        return sparse.csr_array(sparse.hstack(columns).tocsc()[:, order]), (wins + losses) / (up * (1 - up))

    return _posterior(loss, jacobian, read, np.full(width * atoms, LOGIT_SD**-2), draws, seed)


def _ends(a: Ints, b: Ints, items: int) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """[I, U] which pairs have an item as a, and as b."""
    rows, one = np.arange(len(a)), np.ones(len(a))
    return (sparse.csr_matrix((one, (a, rows)), shape=(items, len(a))),
            sparse.csr_matrix((one, (b, rows)), shape=(items, len(a))))


def _posterior(loss: Callable[[Floats], tuple[float, Floats]], jacobian: Callable[[Floats], tuple[sparse.csr_array, Floats]],
               read: Callable[[Floats, float], Distribution], precision: Floats, draws: int, seed: int) -> Distribution:
    """What `read` makes of the posterior's mode, with its log-likelihood and `draws` around it. `loss` is the negative log
    posterior under a normal prior of mean 0 and `precision` [X]; `jacobian` is what `laplace.draw` takes."""
    x = _minimum(loss, np.zeros(len(precision)))
    around = laplace.draw(*jacobian(x), precision, draws, np.random.default_rng(seed)) if draws else ()
    result = read(x, float(precision @ x**2) / 2 - loss(x)[0])
    return replace(result, draws=tuple(read(x + step, np.nan) for step in around))


def _minimum(loss: Callable[[Floats], tuple[float, Floats]], start: Floats) -> Floats:
    options = {"maxiter": 3000, "maxfun": 6000, "ftol": 1e-11, "gtol": 1e-6}
    result = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    return np.asarray(result.x)
