"""How far each person's comparisons can be trusted, found together with what is good.

    found = fit_reliability(votes_of(choices))
    found.scores[i]                     # item i's score, mean 0 among the items it was compared with
    found.beta[k], found.beta_sd[k]     # 1: like the median labeler; 0: a coin; below 0: upside down

The log-odds that labeler k prefers a to b are

    beta_k (s_a - s_b) + position_k first + length_k log2((length_a + 1) / (length_b + 1))

with Davidson's ties. Nobody says who is right: those who agree with the consensus weigh more in it. Everything has a
normal prior, whose width the data set (empirical Bayes), so a labeler of three votes is taken for a typical one.
`model="crowd"` is Crowd-BT (Chen et al. 2013): with probability eta_k the answer is honest, else inverted.

The mode is found by L-BFGS, intervals by Laplace's approximation: draws around the mode, each brought to the gauge
"median beta 1, mean score 0". What comparisons cannot tell: a taste for length that all share is part of the scores, so
length_k is relative to the crowd's; and where most labelers are reversed, the picture is.

Shape suffixes: `N` votes, `I` items, `A` labelers, `D` features, `P` parameters, `R` draws.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components

from harken.core.errors import UserError
from harken.labelers import laplace
from harken.labelers.likelihood import Floats, Ints, crowd_odds, davidson, davidson_table, half_wins, sigmoid
from harken.labelers.votes import Votes

Model = Literal["plain", "beta", "crowd"]
Ties = Literal["davidson", "half"]
LEAST_SCALE = 0.2  # a median beta below this is no yardstick: the gauge stays the prior's (mean beta 1)
LEVEL = 0.90


@dataclass(frozen=True)
class Priors:
    """Standard deviations of the normal priors; None is learnt from the data, starting from `START`.

    `score=inf` leaves the scores free (maximum likelihood: needs a connected graph). beta ~ N(1, beta^2), position ~
    N(crowd's mean, position^2), length and indifference ~ N(0, …). `honest` is Crowd-BT's Beta prior of eta.
    """

    score: float | None = None
    beta: float | None = None
    position: float | None = None
    length: float | None = None
    indifference: float | None = None
    honest: tuple[float, float] = (10.0, 1.0)


START = Priors(score=1.0, beta=1.0, position=0.5, length=0.3, indifference=1.0)
WIDEST = 1.5  # of beta, whose mean is 1: any wider, and score and beta only trade their scales
BELIEF = 1.0  # START counts as one labeler, or one item, when a width is learnt


@dataclass(frozen=True)
class Reliability:
    """What was found. Arrays follow the item and labeler tables of `Votes`; `sd` is the posterior's.

    For "crowd", beta is 2 eta - 1 (1 honest, 0 a coin, -1 inverted). Somebody without votes has the prior.
    """

    model: Model
    ties: Ties
    scores: Floats
    """[I] log-odds of the median labeler."""
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
    log_likelihood: float
    """Of the votes, at the mode, priors apart."""
    priors: Priors
    """As given or learnt."""
    weights: Floats | None = None
    """[D] of `fit_features`: scores = phi weights."""
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
        """[N, 3]: P(a preferred), P(tie), P(b preferred)."""
        odds = self.log_odds(votes)
        if self.tie > 0:
            return davidson_table(odds, np.log(self.tie) + self.indifference[votes.labeler])
        p = sigmoid(odds)
        return np.stack([p, np.zeros_like(p), 1 - p], axis=1)

    def log_prob(self, votes: Votes) -> Floats:
        """[N] log-probability of what was said; where ties are half-wins, the mean of both outcomes'."""
        odds = self.log_odds(votes)
        if self.tie > 0:
            return davidson(odds, np.log(self.tie) + self.indifference[votes.labeler], votes.won)[0]
        return half_wins(odds, votes.won)[0]


def length_difference(votes: Votes) -> Floats:
    """[N] doublings of length from b to a."""
    size = np.log2(votes.lengths + 1.0)
    return np.asarray(size[votes.a] - size[votes.b])


def fit_reliability(votes: Votes, *, model: Model = "beta", ties: Ties = "davidson", position: bool = False,
                    length: bool = False, indifference: bool = False, prior: Priors = Priors(),
                    weight: Floats | None = None, draws: int = 400, seed: int = 0) -> Reliability:
    """Scores of items and reliability of labelers. `weight` [N] weighs votes; `draws` 0 leaves out the intervals (NaN).

    Raises UserError without votes, and where free scores (`Priors(score=inf)`) have no finite maximum.
    """
    _check(votes, weight)
    rows = np.arange(len(votes))
    design = sparse.csr_array((np.tile([1.0, -1.0], len(votes)), np.stack([votes.a, votes.b], axis=1).ravel(),
                               np.arange(0, 2 * len(votes) + 1, 2)), shape=(len(rows), len(votes.items)))
    graph = sparse.coo_array((np.ones(len(votes)), (votes.a, votes.b)), shape=(len(votes.items),) * 2)
    block = np.asarray(connected_components(graph, directed=False)[1])
    if prior.score == np.inf:
        _check_finite(votes, block)
    task = _Task(votes, design, model, ties, position, length, indifference, prior, weight, block)
    return task.solve(draws, seed)


def fit_features(votes: Votes, phi: Floats, *, model: Model = "beta", ties: Ties = "davidson", position: bool = False,
                 length: bool = False, indifference: bool = False, prior: Priors = Priors(),
                 weight: Floats | None = None, draws: int = 400, seed: int = 0) -> Reliability:
    """The same with scores = phi w, phi [I, D]: Bayesian logistic regression with reliability, which also scores items
    nobody has judged. `weights` and `covariance` are w's posterior. `prior.score` is the width of each w."""
    _check(votes, weight)
    phi = np.asarray(phi, dtype=np.float64)
    if phi.ndim != 2 or len(phi) != len(votes.items) or not np.isfinite(phi).all():
        raise ValueError(f"phi must be finite, a row for each of {len(votes.items)} items; found shape {phi.shape}")
    task = _Task(votes, phi[votes.a] - phi[votes.b], model, ties, position, length, indifference, prior, weight, None)
    return task.solve(draws, seed, phi)


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


class _Task:
    """One fit: parameters x = scores or weights, then a block of A for each trait of labelers, then log nu."""

    def __init__(self, votes: Votes, design: sparse.csr_array | Floats, model: Model, ties: Ties, position: bool, length: bool,
                 indifference: bool, prior: Priors, weight: Floats | None, block: Ints | None) -> None:
        self.votes, self.design, self.model, self.block = votes, design, model, block
        self.weight = np.ones(len(votes)) if weight is None else np.asarray(weight, dtype=np.float64)
        self.ties: Ties = ties if (votes.won == 0).any() else "half"
        names = ["beta"] * (model != "plain") + ["position"] * position + ["length"] * length
        self.d, self.a = int(design.shape[1]), len(votes.labelers)
        self.at = {"score": slice(0, self.d)}
        for name in names + ["indifference"] * (indifference and self.ties == "davidson"):
            start = self.d + self.a * (len(self.at) - 1)
            self.at[name] = slice(start, start + self.a)
        self.size = self.d + self.a * (len(self.at) - 1) + 1
        self.moves: dict[str, Floats] = {"position": votes.first.astype(np.float64), "length": length_difference(votes)}
        self.given = prior
        self.sd = {n: getattr(START, n) if getattr(prior, n) is None else getattr(prior, n) for n in self.at}
        self.centre = {n: 1.0 if n == "beta" else 0.0 for n in self.at}
        judged = np.unique(np.r_[votes.a, votes.b]) if block is not None else np.arange(self.d)
        self.yardstick: bool | None = None
        self.known = {n: judged if n == "score" else np.unique(votes.labeler) for n in self.at}

    # --- likelihood --------------------------------------------------------------------------------

    def odds(self, x: Floats) -> tuple[Floats, Floats, dict[str, Floats]]:
        """Log-odds of a [N], their derivative by the difference of scores [N], and by each trait [N]."""
        who = self.votes.labeler
        d = self.design @ x[self.at["score"]]
        slope, by = np.ones_like(d), {}
        eta = d
        if self.model == "beta":
            slope = x[self.at["beta"]][who]
            eta, by["beta"] = slope * d, d
        elif self.model == "crowd":
            eta, slope, by["beta"] = crowd_odds(d, x[self.at["beta"]][who])
        for name in ("position", "length"):
            if name in self.at:
                eta = eta + x[self.at[name]][who] * self.moves[name]
                by[name] = self.moves[name]
        return eta, slope, by

    def log_nu(self, x: Floats) -> Floats | float:
        return float(x[-1]) + (x[self.at["indifference"]][self.votes.labeler] if "indifference" in self.at else 0.0)

    def prior_terms(self, x: Floats) -> tuple[float, Floats, Floats]:
        """Negative log prior, its gradient and its curvature [P]."""
        mean, precision = np.zeros(self.size), np.zeros(self.size)
        for name, at in self.at.items():
            mean[at], precision[at] = self.centre[name], 1 / self.sd[name] ** 2
        value, grad = 0.5 * precision * (x - mean) ** 2, precision * (x - mean)
        if self.model == "crowd":
            # The Beta prior as a density of logit eta: its mode is the Beta's mean, finite where all answers are right.
            at, (good, bad) = self.at["beta"], self.given.honest
            eta = sigmoid(x[at])
            value[at] = -good * np.log(eta) - bad * np.log1p(-eta)
            grad[at] = (good + bad) * eta - good
            precision[at] = (good + bad) * eta * (1 - eta)
        return float(value.sum()), grad, precision

    def loss(self, x: Floats) -> tuple[float, Floats]:
        """Negative log posterior and its gradient."""
        who, w = self.votes.labeler, self.weight
        eta, slope, by = self.odds(x)
        value, grad, _ = self.prior_terms(x)
        if self.ties == "davidson":
            logp, d_eta, d_nu = davidson(eta, self.log_nu(x), self.votes.won)
            grad[-1] -= w @ d_nu
            if "indifference" in self.at:
                grad[self.at["indifference"]] -= np.bincount(who, w * d_nu, self.a)
        else:
            logp, d_eta = half_wins(eta, self.votes.won)
        pull = w * d_eta
        grad[self.at["score"]] -= self.design.T @ (pull * slope)
        for name, move in by.items():
            grad[self.at[name]] -= np.bincount(who, pull * move, self.a)
        return value - float(w @ logp), grad

    def curvature(self, x: Floats) -> tuple[sparse.csr_array, Floats, Floats]:
        """What Laplace needs: Jacobian of the log-odds [N, P - 1], the votes' Fisher weights [N], the priors' precision.

        nu and indifference are held: their information with the rest is odd in eta and all but cancels.
        """
        eta, slope, by = self.odds(x)
        n = len(eta)
        columns = [sparse.csr_array(self.design * slope[:, None])]
        for name in list(self.at)[1:]:
            move = by.get(name, np.zeros(n))
            columns.append(sparse.csr_array((move, self.votes.labeler, np.arange(n + 1)), shape=(n, self.a)))
        p = davidson_table(eta, self.log_nu(x) if self.ties == "davidson" else -np.inf)
        spread = ((p[:, 0] + p[:, 2]) - (p[:, 0] - p[:, 2]) ** 2) / 4
        precision = self.prior_terms(x)[2][:-1]
        if "indifference" in self.at:
            precision[self.at["indifference"]] += np.bincount(self.votes.labeler, self.weight * p[:, 1] * (1 - p[:, 1]), self.a)
        return sparse.csr_array(sparse.hstack(columns)), self.weight * spread, precision

    # --- fitting -----------------------------------------------------------------------------------

    def mode(self, x: Floats, tolerance: float) -> Floats:
        """L-BFGS, each parameter in units of its own curvature."""
        jacobian, weights, precision = self.curvature(x)
        own = np.asarray((jacobian * jacobian).T @ weights) + precision
        own = np.append(own, max(1.0, float(self.weight @ (self.votes.won == 0))))
        scale = 1 / np.sqrt(np.maximum(own, 1e-3))

        def scaled(y: Floats) -> tuple[float, Floats]:
            value, grad = self.loss(y * scale)
            return value, grad * scale

        found = minimize(scaled, x / scale, jac=True, method="L-BFGS-B",
                         options={"maxcor": 20, "maxiter": 2000, "maxfun": 4000, "ftol": tolerance**2, "gtol": tolerance})
        return np.asarray(found.x * scale)

    def learn_widths(self, x: Floats, draws: Floats) -> float:
        """One step of expectation–maximisation on the priors' widths; returns the largest relative change."""
        change = 0.0
        for name, at in self.at.items():
            if getattr(self.given, name) is not None or (name == "beta" and self.model == "crowd"):
                continue
            rows = np.arange(self.size)[at][self.known[name]]
            if name == "position":
                self.centre[name] = float(x[rows].mean())
            second = (x[rows] - self.centre[name]) ** 2 + (draws[:, rows] ** 2).mean(0)
            new = float(np.sqrt((second.sum() + BELIEF * getattr(START, name) ** 2) / (len(rows) + BELIEF)))
            new = min(new, WIDEST) if name == "beta" else new
            change = max(change, abs(np.log(new / self.sd[name])))
            self.sd[name] = new
        return change

    def deviations(self, x: Floats, draws: int, seed: int) -> Floats:
        """[R, P - 1] draws of the posterior about its mode."""
        jacobian, weights, precision = self.curvature(x)
        if self.sd["score"] == np.inf:  # free scores: a faint prior on what the gauge takes out
            at = self.at["score"]
            own = np.asarray((jacobian * jacobian).T @ weights)[at]
            precision[at] += 1e-6 * own.mean()
        return laplace.draw(jacobian, weights, precision, draws, np.random.default_rng(seed))

    def solve(self, draws: int, seed: int, phi: Floats | None = None) -> Reliability:
        x = np.zeros(self.size)
        if "beta" in self.at:
            x[self.at["beta"]] = 1.0 if self.model == "beta" else 1.5
        if self.ties == "davidson":
            tied = float(self.weight @ (self.votes.won == 0)) / float(self.weight.sum())
            x[-1] = np.log(2 * tied / max(1 - tied, 1e-3))
        learnt = any(getattr(self.given, n) is None for n in self.at if not (n == "beta" and self.model == "crowd"))
        for _ in range(30 if learnt else 0):
            x = self.mode(x, 1e-4)
            if self.learn_widths(x, self.deviations(x, 32, 0)) < 0.02:
                break
        x = self.mode(x, 1e-9)
        return self.result(x, self.deviations(x, draws, seed) if draws else np.empty((0, self.size - 1)), phi)

    # --- what was found ----------------------------------------------------------------------------

    def gauge(self, x: Floats) -> dict[str, Floats]:
        """Parameters x [R, P - 1] with median beta 1 and mean score 0 in every block of compared items: [R, …] each."""
        scores = x[:, self.at["score"]]
        if self.block is not None:
            several = np.bincount(self.block)[self.block] > 1  # an item compared with nothing keeps the prior
            sizes = np.bincount(self.block)
            share = sparse.csr_array((1 / sizes[self.block], (self.block, np.arange(self.d))), shape=(len(sizes), self.d))
            scores = scores - np.where(several, (share @ scores.T)[self.block].T, 0.0)
        found = {n: x[:, self.at[n]] if n in self.at else np.zeros((len(x), self.a))
                 for n in ("position", "length", "indifference")}
        if self.model == "plain":
            return found | {"scores": scores, "beta": np.ones((len(x), self.a))}
        beta = x[:, self.at["beta"]]
        if self.model == "crowd":
            return found | {"scores": scores, "beta": 2 * sigmoid(beta) - 1}
        scale = np.median(beta[:, self.known["beta"]], axis=1, keepdims=True)
        if self.yardstick is None:
            self.yardstick = bool(scale[0, 0] >= LEAST_SCALE)
        scale = np.maximum(scale, LEAST_SCALE / 2) if self.yardstick else np.ones_like(scale)
        return found | {"scores": scores * scale, "beta": beta / scale, "scale": scale}

    def result(self, x: Floats, deviations: Floats, phi: Floats | None) -> Reliability:
        at = {n: v[0] for n, v in self.gauge(x[None, :-1]).items()}
        spread = self.gauge(x[:-1] + deviations)

        def sd(name: str) -> Floats:
            return np.sqrt(((spread[name] - at[name]) ** 2).mean(0)) if len(deviations) else np.full_like(at[name], np.nan)

        def share(below: float) -> Floats:
            return (spread["beta"] < below).mean(0) if len(deviations) else np.full(self.a, np.nan)

        ends = [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]
        tails = np.quantile(spread["beta"], ends, axis=0) if len(deviations) else np.full((2, self.a), np.nan)
        eta = self.odds(x)[0]
        won = self.votes.won
        logp = davidson(eta, self.log_nu(x), won)[0] if self.ties == "davidson" else half_wins(eta, won)[0]
        scores, score_sd, weights, covariance = at["scores"], sd("scores"), None, None
        if phi is not None:
            weights = scores
            covariance = self.weight_covariance(x) * float(at.get("scale", np.ones(1))[0]) ** 2
            scores, score_sd = phi @ weights, np.sqrt(np.einsum("id,de,ie->i", phi, covariance, phi))
        widths = {n: self.sd[n] for n in self.at if not (n == "beta" and self.model == "crowd")}
        return Reliability(
            self.model, self.ties, scores, score_sd, at["beta"], sd("beta"), tails[0], tails[1], share(0.1), share(0.0),
            float(np.exp(x[-1])) if self.ties == "davidson" else 0.0, at["position"], sd("position"), at["length"], sd("length"),
            at["indifference"], float(self.weight @ logp), dataclasses.replace(self.given, **widths), weights, covariance)

    def weight_covariance(self, x: Floats) -> Floats:
        """[D, D] block of H^-1: the labelers' uncertainty is in it."""
        jacobian, weights, precision = self.curvature(x)
        h = laplace.information(jacobian, weights, precision).toarray()
        return np.asarray(np.linalg.inv(h)[self.at["score"], self.at["score"]])
