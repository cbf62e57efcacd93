"""What is known of items' scores, and how sure of it one can be: the posterior that questions are chosen by.

    fit = fit_reliability(votes, phi=phi)
    belief = belief_of_features(fit, phi_of_candidates)       # any item that has features, judged or not
    belief = belief_of_items(fit_reliability(votes), votes)   # the items judged, no features
    mean, variance = belief.difference(a, b)                  # of the median labeler's log-odds of a over b

The covariance is kept as a root, Sigma = root root', so that a pool of items with D features costs I D numbers and
never I^2, and nothing has to be inverted to choose a question.

Shape suffixes: `I` items, `D` features, `R` columns of the root, `N` pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse

from harken.labelers import laplace
from harken.labelers.models.likelihood import Floats, Ints, davidson_table
from harken.labelers.models.reliability import Reliability
from harken.labelers.votes import Votes

MOST_EXACT_ITEMS = 1500
"""Items whose covariance is factored; of more, draws stand in."""
DRAWS = 512


@dataclass(frozen=True)
class Belief:
    """A normal posterior of items' scores, in log-odds of the median labeler."""

    mean: Floats
    """[I]"""
    root: Floats
    """[I, R]: covariance = root root'."""
    tie: float = 0.0
    """Davidson's nu; 0: nobody ties."""

    def __post_init__(self) -> None:
        if self.root.ndim != 2 or len(self.mean) != len(self.root):
            raise ValueError(f"mean has shape {self.mean.shape}, root {self.root.shape}: they need the same items")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.root).all()):
            raise ValueError("mean and root must be finite")

    def difference(self, a: Ints, b: Ints) -> tuple[Floats, Floats]:
        """Mean and variance of the log-odds of a over b, [N] each."""
        gap = self.root[a] - self.root[b]
        return self.mean[a] - self.mean[b], np.asarray(np.einsum("nr,nr->n", gap, gap))

    def draws(self, count: int, rng: np.random.Generator) -> Floats:
        """[count, I] joint draws of all scores."""
        return np.asarray(self.mean + rng.standard_normal((count, self.root.shape[1])) @ self.root.T)


def belief_of_features(fit: Reliability, phi: Floats) -> Belief:
    """Of items with features phi [I, D], under the weights that `fit_reliability` found."""
    if fit.weights is None or fit.covariance is None:
        raise ValueError("this fit has no weights: use fit_reliability, or belief_of_items")
    if phi.ndim != 2 or phi.shape[1] != len(fit.weights):
        raise ValueError(f"phi has shape {phi.shape}, the fit {len(fit.weights)} features")
    return Belief(phi @ fit.weights, phi @ root_of(fit.covariance), fit.tie)


def belief_of_items(fit: Reliability, votes: Votes, seed: int = 0) -> Belief:
    """Of the items of `votes`, with labelers held at their fit.

    Laplace's approximation: precision = sum of beta^2 w (e_a - e_b)(e_a - e_b)' + 1 / prior^2, w the Fisher weight of a
    vote. Up to `MOST_EXACT_ITEMS` items exactly, beyond by `DRAWS` draws (a variance is then known to about 6 %).
    """
    if fit.model == "crowd":
        raise ValueError("a crowd model's beta is no slope: fit with model='beta'")
    n, rows = len(votes), np.repeat(np.arange(len(votes)), 2)
    columns = np.stack([votes.a, votes.b], axis=1).ravel()
    slope = fit.beta[votes.labeler]
    jacobian = sparse.csr_array((np.stack([slope, -slope], axis=1).ravel(), (rows, columns)), shape=(n, len(votes.items)))
    p = davidson_table(fit.log_odds(votes), np.log(fit.tie) if fit.tie > 0 else -np.inf)
    width = fit.priors.score if fit.priors.score is not None and np.isfinite(fit.priors.score) else 10.0
    precision = np.full(len(votes.items), width**-2)
    if len(votes.items) <= MOST_EXACT_ITEMS:
        h = laplace.information(jacobian, fisher_weight(p), precision).toarray()
        factor = linalg.cholesky(h, lower=True)
        root = np.asarray(linalg.solve_triangular(factor, np.eye(len(h)), lower=True).T)
    else:
        drawn = laplace.draw(jacobian, fisher_weight(p), precision, DRAWS, np.random.default_rng(seed))
        root = drawn.T / np.sqrt(DRAWS)
    return Belief(fit.scores, root, fit.tie)


def fisher_weight(p: Floats) -> Floats:
    """Information of one vote about its log-odds, from P(a), P(tie), P(b) [..., 3]: p (1 - p) where nothing ties."""
    return np.asarray(((p[..., 0] + p[..., 2]) - (p[..., 0] - p[..., 2]) ** 2) / 4)


def root_of(covariance: Floats) -> Floats:
    """[D, D] root of a covariance that rounding may have left slightly indefinite."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
