"""How far each person's comparisons can be trusted, found together with what is good.

    fit = fit_reliability(votes_of(choices))
    fit.scores[i]                     # item i's score, mean 0 among the items it was compared with
    fit.beta[k], fit.beta_sd[k]     # 1: like the average labeler; 0: a coin; below 0: upside down

The log-odds that labeler k prefers a to b are

    beta_k (s_a - s_b) + position_k first + length_k log2((length_a + 1) / (length_b + 1))

with Davidson's ties. Nobody says who is right: those who agree with the consensus weigh more in it. Everything has a
normal prior, whose width the data set (empirical Bayes), so a labeler of three votes is taken for a typical one.
`model="crowd"` is Crowd-BT (Chen et al. 2013): with probability eta_k the answer is honest, else inverted.

The mode is found by L-BFGS, intervals by Laplace's approximation: draws around the mode, each brought to the gauge
"mean beta 1, mean score 0". What comparisons cannot tell: a taste for length that all share is part of the scores, so
length_k is relative to the crowd's; and where most labelers are reversed, the picture is.

Shape suffixes: `N` votes, `I` items, `A` labelers, `D` features, `P` parameters, `R` draws.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from harken.core.errors import UserError
from harken.labelers.models.fitting import LEARNT, LEAST_MEAN_BETA, Model, Priors, ReliabilityFit, Ties, length_difference
from harken.labelers.models.likelihood import LEAST_PROBABILITY, Floats, Ints, crowd_odds, davidson_table, sigmoid
from harken.labelers.votes import Votes, crowd

__all__ = ["Model", "Priors", "Reliability", "Ties", "fit_reliability", "length_difference"]

LEVEL = 0.90


@dataclass(frozen=True)
class Reliability:
    """What was found. Arrays follow the item and labeler tables of `Votes`; `sd` is the posterior's.

    For "crowd", beta is 2 eta - 1 (1 honest, 0 a coin, -1 inverted). Somebody without votes has the prior's mean, which is no
    prediction: the typical person is surer than the average one. So `probability` takes a stranger for a draw of the crowd.
    """

    model: Model
    ties: Ties
    scores: Floats
    """[I] log-odds of the average labeler."""
    score_sd: Floats
    beta: Floats
    """[A]"""
    beta_sd: Floats
    beta_low: Floats
    """[A] ends of the 90 % interval."""
    beta_high: Floats
    careless: Floats
    """[A] P(beta < 0.1)."""
    reversed: Floats
    """[A] P(beta < 0)."""
    tie: float
    """Davidson's nu; 0 where ties are half-wins or nobody tied."""
    position: Floats
    """[A] log-odds that the option shown first gains."""
    position_sd: Floats
    length: Floats
    """[A] log-odds per doubling of length, beyond the crowd's."""
    length_sd: Floats
    indifference: Floats
    """[A] log of how much more readily than the crowd a labeler ties: nu_k = nu exp(indifference_k)."""
    cast: Ints
    """[A] votes given."""
    log_likelihood: float
    """Of the votes, at the mode, priors apart."""
    priors: Priors
    """As given or learnt."""
    weights: Floats | None = None
    """[D] where features were given: scores = phi weights; the posterior's mean."""
    covariance: Floats | None = None
    """[D, D] posterior covariance of `weights`, the labelers' uncertainty included."""

    def log_odds(self, votes: Votes) -> Floats:
        """[N] of a over b for the labeler who was asked."""
        d, who = self.scores[votes.a] - self.scores[votes.b], votes.labeler
        if self.model == "crowd":
            eta = np.clip((1 + self.beta) / 2, 1e-12, 1 - 1e-12)
            odds = crowd_odds(d, np.log(eta / (1 - eta))[who])[0]
        else:
            odds = self.beta[who] * d
        return np.asarray(odds + self.position[who] * votes.first + self.length[who] * length_difference(votes))

    def probability(self, votes: Votes) -> Floats:
        """[N, 3]: P(a preferred), P(tie), P(b preferred); for who never voted, the mean over those who did, by votes cast."""
        strange = self.cast[votes.labeler] == 0
        table = self._as_known(votes)
        if strange.any():
            theirs = votes.take(strange)
            seats = [dataclasses.replace(theirs, labeler=np.full(len(theirs), k)) for k in crowd(self.cast)]
            table[strange] = np.mean([self._as_known(one) for one in seats], axis=0)
        return table

    def _as_known(self, votes: Votes) -> Floats:
        odds = self.log_odds(votes)
        if self.tie > 0:
            return davidson_table(odds, np.log(self.tie) + self.indifference[votes.labeler])
        p = sigmoid(odds)
        return np.stack([p, np.zeros_like(p), 1 - p], axis=1)

    def log_prob(self, votes: Votes) -> Floats:
        """[N] log-probability of what was said; where ties are half-wins, the mean of both outcomes'."""
        p = np.maximum(self.probability(votes), LEAST_PROBABILITY)
        if self.tie > 0:
            return np.asarray(np.log(p[np.arange(len(votes)), 1 - votes.won]))
        share = (votes.won + 1) / 2
        return np.asarray(share * np.log(p[:, 0]) + (1 - share) * np.log(p[:, 2]))


def fit_reliability(votes: Votes, *, phi: Floats | None = None, model: Model = "beta", ties: Ties = "davidson",
                    position: bool = False, length: bool = False, indifference: bool = False, prior: Priors = LEARNT,
                    weight: Floats | None = None, draws: int = 400, seed: int = 0) -> Reliability:
    """Scores of items and reliability of labelers. `weight` [N] weighs votes; `draws` 0 leaves out the intervals (NaN).

    With features `phi` [I, D] scores are phi w: Bayesian logistic regression with reliability, which also scores items
    nobody has judged. `weights` and `covariance` are w's posterior; `prior.score` is the width of each w. Few votes on many
    features leave scores so uncertain that all betas may shrink to 0, which explains nothing. Where that explains the votes
    worse than labelers who are all alike, the fit is the latter's: `model` is then "plain".

    Raises UserError without votes, and where free scores (`Priors(score=inf)`) have no finite maximum.
    """
    if phi is None:
        fit = task_of(votes, model, ties, position, length, indifference, prior, weight)
        return _result(fit, fit.solve(), draws, seed)
    _check(votes, weight)
    phi = np.asarray(phi, dtype=np.float64)
    if phi.ndim != 2 or len(phi) != len(votes.items) or not np.isfinite(phi).all():
        raise ValueError(f"phi must be finite, a row for each of {len(votes.items)} items; found shape {phi.shape}")
    design = phi[votes.a] - phi[votes.b]
    fit = ReliabilityFit(votes, design, model, ties, position, length, indifference, prior, weight, None)
    x = fit.solve()
    if model == "beta" and fit.scale <= LEAST_MEAN_BETA:
        alike = ReliabilityFit(votes, design, "plain", ties, position, length, indifference, prior, weight, None)
        y = alike.solve()
        if alike.log_likelihood(y) > fit.log_likelihood(x):
            fit, x = alike, y
    return _result(fit, x, draws, seed, phi)


def task_of(votes: Votes, model: Model = "beta", ties: Ties = "davidson", position: bool = False, length: bool = False,
            indifference: bool = False, prior: Priors = LEARNT, weight: Floats | None = None) -> ReliabilityFit:
    """What `fit_reliability` solves, for those who refit it under other weights (`harken.labelers.models.influence`)."""
    _check(votes, weight)
    n = len(votes)
    design = sparse.csr_array((np.tile([1.0, -1.0], n), np.stack([votes.a, votes.b], axis=1).ravel(),
                               np.arange(0, 2 * n + 1, 2)), shape=(n, len(votes.items)))
    graph = sparse.coo_array((np.ones(len(votes)), (votes.a, votes.b)), shape=(len(votes.items),) * 2)
    block = np.asarray(connected_components(graph, directed=False)[1])
    if prior.score == np.inf:
        _check_finite(votes, block)
    return ReliabilityFit(votes, design, model, ties, position, length, indifference, prior, weight, block)


def _check(votes: Votes, weight: Floats | None) -> None:
    if len(votes) == 0:
        raise UserError("There are no comparisons to learn from.", "Give rankings of at least two different completions.")
    if weight is not None and (len(weight) != len(votes) or not (np.isfinite(weight) & (np.asarray(weight) >= 0)).all()):
        raise ValueError("weight must be finite, 0 or more, one for each vote")


def _check_finite(votes: Votes, block: Ints) -> None:
    """Ford's condition (1957) on every block of compared items: each must have beaten each by some path."""
    up, down = votes.won >= 0, votes.won <= 0
    start, end = np.r_[votes.a[up], votes.b[down]], np.r_[votes.b[up], votes.a[down]]
    graph = sparse.coo_array((np.ones(len(start)), (start, end)), shape=(len(votes.items),) * 2)
    strong = connected_components(graph, directed=True, connection="strong")[1]
    for number in range(int(block.max()) + 1):
        parts = np.unique(strong[block == number])
        if len(parts) > 1:
            text = votes.items[int(np.flatnonzero(strong == parts[0])[0])][1]
            raise UserError(f"The scores of {int((block == number).sum())} items have no maximum: some of them, like "
                            f"{text[:40]!r}, won or lost all comparisons with the rest.",
                            "Give the scores a prior, or compare more.")


def _result(fit: ReliabilityFit, x: Floats, draws: int, seed: int, phi: Floats | None = None) -> Reliability:
    at = {n: v[0] for n, v in fit.gauge(x[None, :-1]).items()}
    unknown = {n: np.full((1, len(v)), np.nan) for n, v in at.items()}
    around = fit.gauge(x[:-1] + fit.deviations(x, draws, seed)) if draws else unknown
    sd = {n: np.sqrt(((around[n] - at[n]) ** 2).mean(0)) for n in at}
    low, high = np.quantile(around["beta"], [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=0)
    careless, backwards = (np.where(np.isnan(low), np.nan, (around["beta"] < bar).mean(0)) for bar in (0.1, 0.0))
    scores, score_sd, weights, covariance = at["scores"], sd["scores"], None, None
    if phi is not None:
        weights, covariance = fit.weight_moments(x)
        scores, score_sd = phi @ weights, np.sqrt(np.einsum("id,de,ie->i", phi, covariance, phi))
    learnt: dict[str, Any] = {n: fit.sd[n] for n in fit.at if not (n == "beta" and fit.model == "crowd")}
    return Reliability(
        fit.model, fit.ties, scores, score_sd, at["beta"], sd["beta"], low, high, careless, backwards,
        float(np.exp(x[-1])) if fit.ties == "davidson" else 0.0, at["position"], sd["position"], at["length"], sd["length"],
        at["indifference"], np.bincount(fit.votes.labeler[fit.weight > 0], minlength=fit.a), fit.log_likelihood(x),
        dataclasses.replace(fit.given, **learnt), weights, covariance)
