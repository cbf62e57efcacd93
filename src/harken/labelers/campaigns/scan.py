"""Whose votes lean one way together, beyond what quality, tastes of one's own and chance explain.

What labeler k says beyond the crowd's scores, however good or bad k is at them, is a vector g_k: the sum over k's votes of
(said - expected) times the compared answers' difference, with covariance V_k. Honest people's are independent. In a campaign
a share pi of the people moves the scores by one delta: their g_k have mean V_k delta. Expectation–maximisation from many starts
finds pi, delta and who belongs (a two-component mixture of people, the second of unknown mean).

The p-value is of a parametric bootstrap: honest votes drawn from the fit, with tastes of one's own as wide as the data's, go
through the same search. A shared misfit of the scores would pass for a plot, so the scores' prior is wide here.

Shape suffixes: `N` votes, `A` labelers, `D` columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from harken.labelers.campaigns.weighted import Weighted
from harken.labelers.models.likelihood import Floats, Ints, davidson_table, log_sigmoid, sigmoid

BETA_SD, MOST_BETA = 3.0, 5.0
LAPSE = 0.1
"""Share of votes that may be a coin's, of anybody: one slip on a foregone question must not look like a plot."""
STARTS, ROUNDS, SETTLED = 6, 8, 40
DENSE = 5e6
"""Numbers of the people's covariances that are held as a table."""
DELTA_SD = 1.0
"""Prior standard deviation, in log-odds, of what a campaign adds to a score: what is common to few votes is mostly chance."""
LARGEST = 1 / 4
"""Of the people: a larger set that agrees is a group, and no campaign."""
MEMBER = 0.5
"""Chance of belonging from which somebody is named."""


@dataclass(frozen=True)
class Found:
    """A set of people, and how surely they are one campaign."""

    members: Ints
    gain: float
    """Gain in log-likelihood (delta's prior included) over independent people."""
    p: float
    """Chance that an honest crowd gains as much: of the bootstrap, so never below 1 / (draws + 1)."""


class Scan:
    """Everybody's votes against a fit and its mode."""

    def __init__(self, fit: Weighted, x: Floats, cast_least: int = 3) -> None:
        self.fit, votes = fit, fit.votes
        n, self.people = len(votes), len(votes.labelers)
        self.moves: Any = fit.design[:, :fit.columns]
        self.dense = not fit.free or self.people * fit.columns**2 <= DENSE
        if self.dense and fit.free:
            self.moves = self.moves.toarray()
        self.gap = gap = np.asarray(self.moves @ x[:fit.columns])
        self.place = votes.first * x[-1] if len(x) > fit.columns else np.zeros(n)
        self.member = sparse.csr_array((np.ones(n), (votes.labeler, np.arange(n))), shape=(self.people, n))
        self.counted = np.asarray(self.member.sum(1)).ravel() >= cast_least
        beta = self._betas(gap)
        self.eta = beta[votes.labeler] * gap + self.place
        self.chance = self._with_lapses(self.eta)
        self.expected = (self.chance[:, 0] - self.chance[:, 2]) / 2
        self.variance = (self.chance[:, 0] + self.chance[:, 2]) / 4 - self.expected**2
        # Whoever is better or worse than others at one and the same thing is no campaign: the direction of the scores is taken
        # out of everybody's vector (the efficient score), but of those who vote against it.
        known = self.member @ (self.variance * gap**2)
        self.quality = np.divide((beta > 0), known, out=np.zeros(self.people), where=known > 1e-9)
        self.prior = fit.precision[:fit.columns] * (fit.sigma / DELTA_SD) ** 2
        if self.dense:
            order = np.argsort(votes.labeler, kind="stable")
            ends = np.cumsum(np.bincount(votes.labeler, minlength=self.people))[:-1]
            self.blocks = np.stack([(self.moves[own].T * self.variance[own]) @ self.moves[own] for own in np.split(order, ends)])
            along = self._sum(self.variance * gap)
            self.blocks -= np.einsum("a,ad,ae->ade", self.quality, along, along)

    def _with_lapses(self, eta: Floats) -> Floats:
        return (1 - LAPSE) * davidson_table(eta, self.fit.log_nu) + LAPSE * np.array([0.5, 0.0, 0.5])

    def _betas(self, gap: Floats) -> Floats:
        """[A] each one's rationality given the scores, from 0 (a coin) to 3: nobody honest is below 0."""
        who, beta = self.fit.votes.labeler, np.ones(self.people)
        for _ in range(25):
            _, slope, curve = self.fit.terms(beta[who] * gap + self.place)
            up = np.bincount(who, slope * gap, self.people) - (beta - 1) / BETA_SD**2
            down = np.bincount(who, curve * gap**2, self.people) + 1 / BETA_SD**2
            beta = np.clip(beta + np.clip(up / down, -0.5, 0.5), 0.0, MOST_BETA)
        return beta

    # --- one search --------------------------------------------------------------------------------

    def vectors(self, won: Ints) -> Any:
        """[A, D] g: what each one said beyond what was expected."""
        beyond = won / 2 - self.expected
        better = self.quality * (self.member @ (beyond * self.gap))
        return self._sum(beyond - better[self.fit.votes.labeler] * self.variance * self.gap)

    def _sum(self, value: Floats) -> Any:
        """[A, D] each one's differences, times a value of each vote."""
        return sparse.csr_array(self.member @ sparse.diags_array(value) @ self.moves) if not self.dense else np.asarray(
            self.member @ (value[:, None] * self.moves))

    def mixture(self, g: Any, start: Floats, open_: Floats, taste: float, rounds: int, least: int = 1) -> tuple[float, Floats]:
        """Gain in log-likelihood (delta's prior included) over independent people, and everybody's chance of belonging [A], from
        first guesses `start` [A]. `open_` [A] is 0 for those who are not asked. A set of fewer than `least` gains nothing."""
        belongs, gain = start, 0.0
        for _ in range(rounds):
            delta = self._common(g, belongs)
            share = float(np.clip(belongs.sum() / open_.sum(), 1 / open_.sum(), LARGEST))
            along = self.moves @ delta
            b = self.member @ (self.variance * along**2) - self.quality * (self.member @ (self.variance * along * self.gap))**2
            own = self._own_taste(along, delta, taste)
            odds = (g @ delta - b / 2) * np.divide(b, b + own, out=np.zeros_like(b), where=b > 1e-12)
            prior = np.log(share / (1 - share))
            belongs = open_ * sigmoid(prior + odds)
            # log(1 - pi + pi e^odds), over independent people's 0, and delta's prior
            gain = float(open_ @ (np.log1p(-share) - log_sigmoid(-(prior + odds)))) - 0.5 * float(self.prior @ delta**2)
            if belongs.sum() < least - MEMBER:
                return -np.inf, belongs
        return gain, belongs

    def _common(self, g: Any, belongs: Floats) -> Floats:
        """delta given who belongs."""
        right = g.T @ belongs
        if self.dense:
            return np.asarray(np.linalg.solve(np.tensordot(belongs, self.blocks, 1) + np.diag(self.prior), right))
        weight = belongs[self.fit.votes.labeler] * self.variance
        table = self.moves.T @ sparse.diags_array(weight) @ self.moves + sparse.diags_array(self.prior)
        return np.asarray(splu(sparse.csc_array(table)).solve(right))

    def _own_taste(self, along: Floats, delta: Floats, taste: float) -> Floats:
        """[A] variance that tastes of one's own add to g delta: taste^2 |V delta|^2, in units of the prior."""
        if taste == 0:
            return np.zeros(self.people)
        table: Any = self._sum(self.variance * along) if not self.dense else self.blocks @ delta
        square = (table.multiply(table) if sparse.issparse(table) else table**2) @ (1 / self.prior)
        return np.asarray(taste**2 * square).ravel()

    def best(self, g: Any, skip: Ints, taste: float, least: int = 3) -> tuple[float, Floats]:
        """The largest gain over all starts, and who belongs then."""
        open_ = self.counted.astype(np.float64)
        open_[skip] = 0
        scaled = self._scaled(g)
        product = scaled @ scaled.T
        z = np.asarray(product.toarray() if sparse.issparse(product) else product)
        z[open_ == 0] = z[:, open_ == 0] = -np.inf
        np.fill_diagonal(z, -np.inf)
        seeds = np.argsort(-z.max(1))[:STARTS]
        result: tuple[float, Floats] = (-np.inf, np.zeros(self.people))
        for seed in seeds:
            start = np.zeros(self.people)
            start[[seed, *np.argsort(-z[seed])[:2]]] = 1
            if (found := self.mixture(g, start * open_, open_, taste, ROUNDS, least))[0] > result[0]:
                result = found
        return result

    def _scaled(self, g: Any) -> Any:
        """g over its length: seeds are people who say the same, not who say much."""
        square = g.multiply(g) if sparse.issparse(g) else g**2
        length = np.sqrt(np.asarray(square.sum(1)).ravel())
        scale = length / np.maximum(length.mean(), 1e-12)
        return sparse.diags_array(1 / np.sqrt(np.maximum(scale, 0.1))) @ g

    # --- chance ------------------------------------------------------------------------------------

    def honest(self, rng: np.random.Generator, taste: float) -> Ints:
        """[N] votes of independent people, with tastes of `taste` times the prior's standard deviation."""
        p, u, votes = self.chance, rng.random(len(self.eta)), self.fit.votes
        if taste > 0:
            p = self._with_lapses(self.eta + taste * self._tastes(rng, votes.labeler))
        return np.where(u < p[:, 0], 1, np.where(u < p[:, 0] + p[:, 1], 0, -1))

    def _tastes(self, rng: np.random.Generator, who: Ints) -> Floats:
        votes, n = self.fit.votes, len(self.fit.votes)
        if not self.fit.free:
            own = rng.standard_normal((self.people, len(self.prior))) / np.sqrt(self.prior)
            return np.asarray((self.moves * own[who]).sum(1))
        keys = np.r_[who * len(votes.items) + votes.a, who * len(votes.items) + votes.b]
        number, index = np.unique(keys, return_inverse=True)
        own = rng.standard_normal(len(number))[index.ravel()] / np.sqrt(self.prior[0])
        return np.asarray(own[:n] - own[n:])

    def taste(self, rng: np.random.Generator) -> float:
        """How wide independent tastes are: how much longer than by chance people's vectors are. The longest fifth is left out,
        of the data and of chance: a campaign would be among it."""
        scale = 1 / self.prior
        if not self.dense:
            both = abs(self.moves)
            trace = np.asarray(self.member @ (self.variance * (both @ scale))).ravel()
        else:
            trace = np.einsum("add,d->a", self.blocks, scale)
        kept = self.counted & (trace > 1e-9)
        if not kept.any():
            return 0.0

        def length(won: Ints) -> float:
            g = self.vectors(won)
            ratio = np.asarray((g.multiply(g) if sparse.issparse(g) else g**2) @ scale).ravel()[kept] / trace[kept]
            return float(np.sort(ratio)[:max(1, int(0.8 * kept.sum()))].mean())
        plain = np.mean([length(self.honest(rng, 0.0)) for _ in range(12)])
        excess = length(self.fit.votes.won) / plain - 1
        if excess <= 0:
            return 0.0
        for taste in (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7):
            if np.mean([length(self.honest(rng, taste)) for _ in range(4)]) / plain - 1 >= excess:
                return taste
        return 1.0


def search(fit: Weighted, weight: Floats, skip: Ints, least: int, level: float, draws: int, seed: int) -> Found | None:
    """The surest campaign among people who weigh `weight` [A] in the scores, none of `skip` in it; None where an honest crowd
    shows as much with a chance above `level`."""
    scan, rng = _clean(fit, weight, skip, least), np.random.default_rng(seed)
    open_ = scan.counted.astype(np.float64)
    open_[skip] = 0
    if open_.sum() < 3 * least:
        return None
    g, taste = scan.vectors(fit.votes.won), scan.taste(rng)
    gain, belongs = scan.best(g, skip, taste, least)
    above = 0
    for _ in range(draws if np.isfinite(gain) else 0):
        above += scan.best(scan.vectors(scan.honest(rng, taste)), skip, taste, least)[0] >= gain
        if (above + 1) / (draws + 1) > level:
            return None
    gain, belongs = scan.mixture(g, belongs, open_, taste, SETTLED)
    members = np.flatnonzero(belongs >= MEMBER)
    if not np.isfinite(gain) or not least <= len(members) <= LARGEST * open_.sum():
        return None
    return Found(members, gain, (above + 1) / (draws + 1))


def _clean(fit: Weighted, weight: Floats, skip: Ints, least: int) -> Scan:
    """Everybody against the scores. Features are fitted again without the likeliest campaign, which bends what it is measured
    against; free scores are not: with few votes each, they would bend the other way."""
    who = fit.votes.labeler
    x = fit.fit_ties(weight[who])
    scan = Scan(fit, x)
    if fit.free:
        return scan
    suspects = scan.best(scan.vectors(fit.votes.won), skip, 0.0, least)[1]
    return Scan(fit, fit.solve((weight * (1 - suspects))[who], x))
