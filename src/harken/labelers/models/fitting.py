"""The fit behind `harken.labelers.models.reliability`: a posterior mode, the widths of its priors, and draws about it.

Parameters are one vector x: item scores (or feature weights), then a block of A for each trait of the labelers that is
in the model (beta, position, length, indifference), then ln nu.

The mode of a product beta (s_a - s_b) overfits when each factor takes the other for certain. So each is fitted to the
mean of the log-likelihood over the other's uncertainty (mean-field variational Bayes, by three-node Gauss–Hermite), and
the widths of the priors follow by expectation–maximisation. All of it is deterministic: draws have fixed seeds.

Shape suffixes: `N` votes, `I` items, `A` labelers, `P` parameters, `R` draws.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize

from harken.labelers import laplace
from harken.labelers.models.likelihood import Floats, Ints, crowd_odds, davidson, davidson_table, half_wins, sigmoid
from harken.labelers.votes import Votes

Model = Literal["plain", "beta", "crowd"]
Ties = Literal["davidson", "half"]
Design = Any  # [N, D] sparse (scores) or dense (features): what takes @ and .T

LEAST_MEAN_BETA = 0.2  # scores are rescaled so that the mean beta is 1, but only where it is above this
EM_ROUNDS, WIDTH_TOLERANCE = 30, 0.02  # expectation–maximisation ends when no width changes by a larger share
EM_DRAWS = 64
LENGTH_SUM_PRECISION = 1e3  # of the sum of the labelers' pulls towards length: large, so that the sum is 0
NODES, SHARES = np.array([-np.sqrt(3.0), 0.0, np.sqrt(3.0)]), np.array([1.0, 4.0, 1.0]) / 6  # Gauss–Hermite


@dataclass(frozen=True)
class Priors:
    """Standard deviations of the normal priors; None is learnt from the data, starting from `START_WIDTH`.

    score (or a feature's weight) ~ N(0, score^2), beta ~ N(1, beta^2), position ~ N(the crowd's mean, position^2), length and
    indifference ~ N(0, …). `score=inf` leaves the scores free (maximum likelihood: needs a connected graph). `honest` is
    Crowd-BT's Beta prior of eta (Chen et al. 2013 use 10, 1).
    """

    score: float | None = None
    beta: float | None = None
    position: float | None = None
    length: float | None = None
    indifference: float | None = None
    honest: tuple[float, float] = (10.0, 1.0)


LEARNT = Priors()
START_WIDTH = {"score": 1.0, "beta": 1.0, "position": 0.5, "length": 0.3, "indifference": 1.0}
START_WEIGHT = 1.0  # when a width is learnt, START_WIDTH weighs as much as one labeler, or one item
WIDEST_PRIOR = {"beta": 2.0, "score": 4.0}  # of what is learnt: beyond, few votes cannot tell scale from noise,
# and votes that features separate would bear any scale


def length_difference(votes: Votes) -> Floats:
    """[N] doublings of length from b to a."""
    size = np.log2(votes.lengths + 1.0)
    return np.asarray(size[votes.a] - size[votes.b])


class ReliabilityFit:
    """One fit: parameters x = scores or weights, then a block of A for each trait of labelers, then log nu."""

    def __init__(self, votes: Votes, design: Design, model: Model, ties: Ties, position: bool, length: bool,
                 indifference: bool, prior: Priors, weight: Floats | None, block: Ints | None) -> None:
        # What length is worth to everybody alike belongs to the scores: it is one more column of them. Each labeler's own pull
        # towards length is then relative to that.
        self.shared = np.log2(votes.lengths + 1.0) if length and block is not None else None
        if self.shared is not None:
            design = sparse.csr_array(sparse.hstack([design, sparse.csr_array(length_difference(votes)[:, None])]))
        self.votes, self.design, self.model, self.block = votes, design, model, block
        self.transposed = design.T  # once: of a sparse matrix it is a new one, and every evaluation of the loss wants it
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
        # START_WIDTH and WIDEST_PRIOR are of scores, in log-odds. A weight's are those over the size of phi, so that the unit
        # of phi does not matter.
        self.unit = 1.0 if block is not None else max(float(np.sqrt((design**2).sum(1).mean() / 2)), 1e-9)
        self.start = START_WIDTH | {"score": START_WIDTH["score"] / self.unit}
        self.widest = WIDEST_PRIOR | {"score": WIDEST_PRIOR["score"] / self.unit}
        self.sd = {n: self.start[n] if getattr(prior, n) is None else getattr(prior, n) for n in self.at}
        self.centre = {n: 1.0 if n == "beta" else 0.0 for n in self.at}
        judged = np.unique(np.r_[votes.a, votes.b]) if block is not None else np.arange(self.d)
        self.spread: tuple[Floats, Floats, Floats] | None = None  # of s_a - s_b and beta: variances, covariance [N]
        self.scale = 1.0  # mean beta at the mode, before the gauge
        self.observed = {n: judged if n == "score" else np.unique(votes.labeler) for n in self.at}

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
        if self.shared is not None:
            precision[self.d - 1] = 1.0
        value, grad = 0.5 * precision * (x - mean) ** 2, precision * (x - mean)
        if self.model == "crowd":
            # The Beta prior as a density of logit eta: its mode is the Beta's mean, finite where all answers are right.
            at, (good, bad) = self.at["beta"], self.given.honest
            eta = sigmoid(x[at])
            value[at] = -good * np.log(eta) - bad * np.log1p(-eta)
            grad[at] = (good + bad) * eta - good
            precision[at] = (good + bad) * eta * (1 - eta)
        total = float(value.sum())
        if "length" in self.at:  # relative to the crowd: they add up to 0
            common = float(x[self.at["length"]].sum())
            total += 0.5 * LENGTH_SUM_PRECISION * common**2
            grad[self.at["length"]] += LENGTH_SUM_PRECISION * common
        return total, grad, precision

    def loss(self, x: Floats) -> tuple[float, Floats]:
        """Negative log posterior and its gradient."""
        who, w = self.votes.labeler, self.weight
        eta, slope, by = self.odds(x)
        value, grad, _ = self.prior_terms(x)
        logp, d_eta, d_nu, d_variance = self.mean_vote_terms(eta, x, slope, by)
        grad[-1] -= w @ d_nu
        if "indifference" in self.at:
            grad[self.at["indifference"]] -= np.bincount(who, w * d_nu, self.a)
        for name, move in by.items():
            grad[self.at[name]] -= np.bincount(who, w * d_eta * move, self.a)
        pull = w * d_eta * slope
        if self.spread is not None:
            of_d, of_beta, both = self.spread
            grad[self.at["beta"]] -= np.bincount(who, 2 * w * d_variance * (slope * of_d + by["beta"] * both), self.a)
            pull += 2 * w * d_variance * (by["beta"] * of_beta + slope * both)
        grad[self.at["score"]] -= self.transposed @ pull
        return value - float(w @ logp), grad

    def mean_vote_terms(self, eta: Floats, x: Floats, slope: Floats,
                        by: dict[str, Floats]) -> tuple[Floats, Floats, Floats, Floats]:
        """log P(vote), its derivatives by the log-odds and by log nu, and by the log-odds' variance, [N] each:
        means over that variance where `spread` is known."""
        if self.spread is None:
            return *self.vote_terms(eta, x), np.zeros_like(eta)
        wide = self.width(slope, by)
        total = [np.zeros_like(eta) for _ in range(4)]
        for z, share in zip(NODES, SHARES):
            logp, d_eta, d_nu = self.vote_terms(eta + z * wide, x)
            for sum_, term in zip(total, (logp, d_eta, d_nu, d_eta * z / (2 * wide))):
                sum_ += share * term
        return total[0], total[1], total[2], total[3]

    def width(self, slope: Floats, by: dict[str, Floats]) -> Floats:
        """[N] standard deviation of the log-odds beta d, its factors apart."""
        assert self.spread is not None
        of_d, of_beta, both = self.spread
        return np.sqrt(np.maximum(slope**2 * of_d + by["beta"]**2 * of_beta + 2 * slope * by["beta"] * both, 1e-12))

    def vote_terms(self, eta: Floats, x: Floats) -> tuple[Floats, Floats, Floats]:
        """log P(vote), d/d eta, d/d log nu, [N] each."""
        if self.ties == "davidson":
            return davidson(eta, self.log_nu(x), self.votes.won)
        return *half_wins(eta, self.votes.won), np.zeros_like(eta)

    def log_likelihood(self, x: Floats) -> float:
        """Of the votes at x, priors apart."""
        return float(self.weight @ self.vote_terms(self.odds(x)[0], x)[0])

    def curvature(self, x: Floats) -> tuple[sparse.csr_array, Floats, Floats]:
        """What Laplace needs: Jacobian of the log-odds [N, P - 1], the votes' Fisher weights [N], the priors' precision
        (and one row more that holds the sum of the lengths at 0).

        nu and indifference are held: their information with the rest is odd in eta and all but cancels.
        """
        eta, slope, by = self.odds(x)
        n = len(eta)
        columns = [sparse.csr_array(self.design * slope[:, None])]
        for name in list(self.at)[1:]:
            move = by.get(name, np.zeros(n))
            columns.append(sparse.csr_array((move, self.votes.labeler, np.arange(n + 1)), shape=(n, self.a)))
        wide = self.width(slope, by) if self.spread is not None else np.zeros(1)
        near, tied = np.zeros(n), np.zeros(n)
        for z, share in zip(NODES, SHARES):
            p = davidson_table(eta + z * wide, self.log_nu(x) if self.ties == "davidson" else -np.inf)
            near += share * ((p[:, 0] + p[:, 2]) - (p[:, 0] - p[:, 2]) ** 2) / 4
            tied += share * p[:, 1] * (1 - p[:, 1])
        precision = self.prior_terms(x)[2][:-1]
        if "indifference" in self.at:
            precision[self.at["indifference"]] += np.bincount(self.votes.labeler, self.weight * tied, self.a)
        jacobian, near = sparse.csr_array(sparse.hstack(columns)), self.weight * near
        if "length" in self.at:
            row = np.zeros((1, self.size - 1))
            row[0, self.at["length"]] = 1.0
            jacobian, near = sparse.csr_array(sparse.vstack([jacobian, row])), np.append(near, LENGTH_SUM_PRECISION)
        return jacobian, near, precision

    # --- fitting -----------------------------------------------------------------------------------

    def units(self, x: Floats) -> Floats:
        """[P] what each parameter is measured in while it is sought: its own curvature's standard deviation."""
        jacobian, weights, precision = self.curvature(x)
        own = np.asarray((jacobian * jacobian).T @ weights) + precision
        own = np.append(own, max(1.0, float(self.weight @ (self.votes.won == 0))))
        return np.asarray(1 / np.sqrt(np.maximum(own, 1e-3)))

    def mode(self, x: Floats, tolerance: float, units: Floats | None = None) -> Floats:
        """L-BFGS, each parameter in its own units."""
        scale = self.units(x) if units is None else units

        def scaled(y: Floats) -> tuple[float, Floats]:
            value, grad = self.loss(y * scale)
            return value, grad * scale

        result = minimize(scaled, x / scale, jac=True, method="L-BFGS-B",
                         options={"maxcor": 20, "maxiter": 2000, "maxfun": 4000, "ftol": tolerance**2, "gtol": tolerance})
        return np.asarray(result.x * scale)

    def again(self, weight: Floats, x: Floats, units: Floats) -> Floats:
        """The mode under other weights of the votes, from x on, with the widths and spreads learnt before."""
        before, self.weight = self.weight, weight
        try:
            return self.mode(x, 1e-5, units)
        finally:
            self.weight = before

    def on(self, rows: NDArray[np.bool_]) -> ReliabilityFit:
        """The same over some of the votes."""
        part = copy.copy(self)
        part.votes, part.design, part.weight = self.votes.take(rows), self.design[rows], self.weight[rows]
        part.moves = {name: move[rows] for name, move in self.moves.items()}
        part.spread = None
        return part

    def expect(self, x: Floats) -> dict[str, Floats]:
        """The E-step: posterior variances, by draws. Sets `spread`."""
        draws = self.deviations(x, EM_DRAWS if self.size <= laplace.MOST_DENSE else EM_DRAWS // 4, 0)
        variances = {n: (draws[:, at] ** 2).mean(0) for n, at in self.at.items()}
        if self.model == "beta":
            of_d = self.design @ draws[:, self.at["score"]].T
            of_beta = draws[:, self.at["beta"]].T[self.votes.labeler]
            self.spread = (of_d**2).mean(1), (of_beta**2).mean(1), (of_d * of_beta).mean(1)
        return variances

    def learn_widths(self, x: Floats, variances: dict[str, Floats]) -> float:
        """The M-step of the priors' widths; returns the largest relative change."""
        change = self.rescale(x, variances) if self.model == "beta" and self.given.score is None else 0.0
        for name, at in self.at.items():
            if getattr(self.given, name) is not None or (name == "beta" and self.model == "crowd"):
                continue
            seen = self.observed[name]
            value = x[at][seen]
            if name == "position":
                self.centre[name] = float(value.mean())
            second = (value - self.centre[name]) ** 2 + variances[name][seen]
            new = float(np.sqrt((second.sum() + START_WEIGHT * self.start[name] ** 2) / (len(seen) + START_WEIGHT)))
            new = min(new, self.widest.get(name, np.inf))
            change = max(change, abs(np.log(new / self.sd[name])))
            self.sd[name] = new
        return change

    def rescale(self, x: Floats, variances: dict[str, Floats]) -> float:
        """Moves the scale from betas to scores so that the betas' mean is 1: the likelihood stays as it is.
        EM alone would get there very slowly (parameter expansion, Liu, Rubin and Wu 1998)."""
        scale = float(x[self.at["beta"]][self.observed["beta"]].mean())
        if scale < LEAST_MEAN_BETA:
            return 0.0
        x[self.at["score"]] *= scale
        x[self.at["beta"]] /= scale
        variances["score"] = variances["score"] * scale**2
        variances["beta"] = variances["beta"] / scale**2
        assert self.spread is not None
        self.spread = self.spread[0] * scale**2, self.spread[1] / scale**2, self.spread[2]
        self.sd["score"] *= scale
        return abs(float(np.log(scale)))

    def proper(self, near: Floats, jacobian: sparse.csr_array, precision: Floats) -> Floats:
        """Free scores get a faint prior, on what the gauge takes out, so that H has an inverse."""
        if self.sd["score"] < np.inf:
            return precision
        own = np.asarray((jacobian * jacobian).T @ near)[self.at["score"]]
        faint = precision.copy()
        faint[self.at["score"]] = 1e-6 * own.mean()
        return faint

    def deviations(self, x: Floats, draws: int, seed: int) -> Floats:
        """[R, P - 1] draws of the posterior about its mode."""
        jacobian, near, precision = self.curvature(x)
        return laplace.draw(jacobian, near, self.proper(near, jacobian, precision), draws, np.random.default_rng(seed))

    def solve(self) -> Floats:
        """The mode, the widths of the priors learnt on the way."""
        x = np.zeros(self.size)
        if "beta" in self.at:
            x[self.at["beta"]] = 1.0 if self.model == "beta" else 1.5
        if self.ties == "davidson":
            tied = float(self.weight @ (self.votes.won == 0)) / float(self.weight.sum())
            x[-1] = np.log(2 * tied / max(1 - tied, 1e-3))
        learnt = any(getattr(self.given, n) is None for n in self.at if not (n == "beta" and self.model == "crowd"))
        for _ in range(EM_ROUNDS if learnt else 3 * (self.model == "beta")):
            x = self.mode(x, 1e-4)
            if self.learn_widths(x, self.expect(x)) < WIDTH_TOLERANCE and learnt:
                break
        x = self.mode(x, 1e-9)
        if self.model == "beta":
            self.scale = float(x[self.at["beta"]][self.observed["beta"]].mean())
        return x

    def gauge(self, x: Floats) -> dict[str, Floats]:
        """Parameters x [R, P - 1] with mean beta 1 and mean score 0 in every block of compared items: [R, …] each."""
        scores = x[:, self.at["score"]]
        if self.shared is not None:
            scores = scores[:, :-1] + scores[:, -1:] * self.shared
        if self.block is not None:
            several = np.bincount(self.block)[self.block] > 1  # an item compared with nothing keeps the prior
            sizes = np.bincount(self.block)
            share = sparse.csr_array((1 / sizes[self.block], (self.block, np.arange(len(self.block)))))
            scores = scores - np.where(several, (share @ scores.T)[self.block].T, 0.0)
        traits = {n: x[:, self.at[n]] if n in self.at else np.zeros((len(x), self.a))
                 for n in ("position", "length", "indifference")}
        if self.model == "plain":
            return traits | {"scores": scores, "beta": np.ones((len(x), self.a))}
        beta = x[:, self.at["beta"]]
        if self.model == "crowd":
            return traits | {"scores": scores, "beta": 2 * sigmoid(beta) - 1}
        scale = beta[:, self.observed["beta"]].mean(1, keepdims=True)
        steady = self.scale > LEAST_MEAN_BETA
        scale = np.maximum(scale, LEAST_MEAN_BETA / 2) if steady else np.ones_like(scale)
        return traits | {"scores": scores * scale, "beta": beta / scale}

    def weight_moments(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean [D] and covariance [D, D] of the weights in the gauge, w times the mean beta, where both are normal as Laplace's
        approximation has them: exact moments of a product. What betas and weights trade leaves it as it is; held at its mode, the
        mean beta would leave that in, and intervals along the weights would be twice too wide."""
        jacobian, near, precision = self.curvature(x)
        joint = np.linalg.inv(laplace.information(jacobian, near, precision).toarray())
        at = self.at["score"]
        own = joint[at, at]
        if self.model != "beta" or self.scale <= LEAST_MEAN_BETA:
            return x[at], own
        people = self.at["beta"].start + self.observed["beta"]
        with_beta, of_beta = joint[at][:, people].mean(1), float(joint[np.ix_(people, people)].mean())
        cross = np.outer(self.scale * x[at], with_beta)
        covariance = ((self.scale**2 + of_beta) * own + cross + cross.T + of_beta * np.outer(x[at], x[at])
                      + np.outer(with_beta, with_beta))
        return self.scale * x[at] + with_beta, covariance
