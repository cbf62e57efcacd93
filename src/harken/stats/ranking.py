"""Many models from comparisons of their answers: Bradley–Terry with ties, intervals by prompt, Elo points, the win matrix.

    ranking = rank(a_N, b_N, won_N, prompts, names=["base", "sft", "rloo"])
    ranking.elo(0), ranking.difference(0, 1), ranking.places()[0]
    ranking.matrix[0][1]                    # how often the first was preferred to the second, with its interval

won is 1 where a was preferred, -1 where b was, 0 for a tie. With d = theta_a - theta_b:

    davidson     P(a) : P(tie) : P(b) = e^{d/2} : nu : e^{-d/2}                               (Davidson 1970)
    rao_kupper   P(a) = sigma(d - log eta), P(b) = sigma(-d - log eta), eta >= 1               (Rao and Kupper 1967)
    half         P(a) = sigma(d), a tie is half a win for each; 2 theta of davidson where ties say nothing of d

Votes on one prompt depend on each other, so intervals come from leaving out prompts: a one-step jackknife (CR3, MacKinnon and
White 1985) up to 1,000 prompts, the sandwich beyond. Shapes: N votes, K models, G prompts, P = K + 1 parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, special

from harken.core.protocols import Estimate
from harken.stats.bradley_terry import LARGEST_GAP, check_connected
from harken.stats.intervals import Clusters, Floats, cluster_index, mean_interval

TieModel = Literal["davidson", "rao_kupper", "half"]
ELO = 400 / math.log(10)
FEW_PROMPTS = 1000
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """Fitted scores. `scores` [K] are log-odds with mean 0 (or `anchor` at 0); `covariance` [K, K] is theirs."""

    names: tuple[str, ...]
    scores: Floats
    covariance: Floats
    tie: float
    """Davidson's nu or Rao and Kupper's eta; NaN for half-wins."""
    tie_model: TieModel
    log_likelihood: float
    prompts: int
    """Independent units: prompts, or votes where no prompts were given."""
    level: float
    matrix: tuple[tuple[Estimate | None, ...], ...]
    """[K][K] how often the row was preferred to the column, a tie counting half; None where they never met."""
    games: Ints
    """[K, K] comparisons."""

    def score(self, i: int) -> Estimate:
        return self._estimate(float(self.scores[i]), float(self.covariance[i, i]))

    def elo(self, i: int, base: float = 1000.0) -> Estimate:
        """Elo points: 400 points are odds of 10 to 1; `base` is where the mean (or the anchor) lies."""
        s = self.score(i)
        return Estimate(base + ELO * s.value, base + ELO * s.low, base + ELO * s.high, s.n, s.level)

    def difference(self, i: int, j: int) -> Estimate:
        """theta_i - theta_j: this, not two overlapping intervals, says whether i is better than j."""
        c = self.covariance
        return self._estimate(float(self.scores[i] - self.scores[j]), float(c[i, i] + c[j, j] - 2 * c[i, j]))

    def standard_error(self, i: int) -> float:
        """Of `scores[i]`, in log-odds."""
        return math.sqrt(max(float(self.covariance[i, i]), 0.0))

    def probability(self, i: int, j: int) -> tuple[float, float, float]:
        """P(i preferred), P(tie), P(j preferred) by the model."""
        d, nu = float(self.scores[i] - self.scores[j]), self.tie
        p = _probabilities(np.array([d]), math.nan if self.tie_model == "half" else nu, self.tie_model)
        return float(p[0, 0]), float(p[0, 1]), float(p[0, 2])

    def places(self) -> list[tuple[int, int]]:
        """[K] the best and the worst place of each that the intervals of differences allow."""
        k = len(self.names)
        better = np.array([[i != j and self.difference(i, j).low > 0 for j in range(k)] for i in range(k)])
        return [(1 + int(better[:, i].sum()), k - int(better[i].sum())) for i in range(k)]

    def cycles(self) -> list[tuple[str, str, str]]:
        """Triples in which each was preferred to the next by the majority: what one score a model cannot say."""
        k = range(len(self.names))
        beats = [[(m := self.matrix[i][j]) is not None and m.value > 0.5 for j in k] for i in k]
        return [(self.names[i], self.names[j], self.names[h]) for i in k for j in k for h in k
                if i < j and i < h and beats[i][j] and beats[j][h] and beats[h][i]]

    def to_json(self) -> dict[str, Any]:
        order, places = np.argsort(-self.scores, kind="stable"), self.places()
        return {"models": [{"name": self.names[i], "elo": self.elo(i).to_json(), "score": float(self.scores[i]),
                            "standard_error": e if math.isfinite(e := self.standard_error(i)) else None,
                            "places": list(places[i]),
                            "comparisons": int(self.games[i].sum())} for i in order],
                "win_rates": [[None if (m := self.matrix[i][j]) is None else m.to_json() for j in order] for i in order],
                "tie_model": self.tie_model, "tie": None if math.isnan(self.tie) else self.tie, "prompts": self.prompts,
                "log_likelihood": self.log_likelihood, "cycles": [list(c) for c in self.cycles()]}

    def _estimate(self, value: float, variance: float) -> Estimate:
        if self.prompts < 2:
            return Estimate(value, -math.inf, math.inf, self.prompts, self.level)
        half = float(special.stdtrit(self.prompts - 1, 0.5 + self.level / 2)) * math.sqrt(max(variance, 0.0))
        return Estimate(value, value - half, value + half, self.prompts, self.level)


def rank(a: ArrayLike, b: ArrayLike, won: ArrayLike, prompts: Clusters | None = None, *, names: Sequence[str] | None = None,
         ties: TieModel = "davidson", weight: ArrayLike | None = None, prior: float = 0.0, anchor: int | None = None,
         level: float = 0.95) -> Ranking:
    """Scores of the models that votes compare. `a`, `b` [N] are model numbers, `won` [N] is 1, 0 or -1.

    `prompts` [N] names each vote's prompt; without it every vote counts as independent, which copies of votes abuse (E14).
    `weight` [N] weighs votes; `prior` adds as many wins each way to every pair that met; `anchor` is the model put at 0.
    Raises ValueError where no finite scores exist, saying which models were never compared or always won or lost.
    """
    x, y, w, s = _checked(a, b, won, weight)
    k = int(max(x.max(), y.max())) + 1 if names is None else len(names)
    labels = tuple(map(str, range(k))) if names is None else tuple(names)
    if x.min() < 0 or y.min() < 0 or max(x.max(), y.max()) >= k:
        raise ValueError(f"models are numbered from 0 to {k - 1}, found {min(x.min(), y.min())} to {max(x.max(), y.max())}")
    group = cluster_index(prompts, len(x))
    units = int(group.max()) + 1
    real = len(x)
    wins = np.zeros((k, k))
    np.add.at(wins, (np.where(w >= 0, x, y), np.where(w >= 0, y, x)), s * np.where(w == 0, 0.5, 1.0))
    np.add.at(wins, (y[w == 0], x[w == 0]), s[w == 0] * 0.5)
    games = np.zeros((k, k), dtype=np.int64)
    np.add.at(games, (np.r_[x, y], np.r_[y, x]), 1)
    if prior > 0:
        i, j = np.nonzero(games)
        wins[i, j] += prior
        x, y, w, s = np.r_[x, i], np.r_[y, j], np.r_[w, np.ones(len(i), np.int64)], np.r_[s, np.full(len(i), prior)]
    check_connected(wins, labels)
    if ties != "half" and not (w == 0).any():
        fitted: TieModel = "half"  # without ties the models are one
    else:
        fitted = ties
    if fitted != "half" and not w.any():
        raise ValueError('every vote is a tie, so how readily people tie has no estimate. Count ties as half-wins, ties="half" '
                         "(--ties half)")
    theta, t = _fit(x, y, w, s, k, fitted)
    covariance = _covariance((x[:real], y[:real], w[:real], s[:real]), (x, y, w, s), group, units, theta, t, k, fitted)
    if anchor is not None:
        shift = np.eye(k)
        shift[:, anchor] -= 1
        theta, covariance = theta - theta[anchor], shift @ covariance @ shift.T if units > 1 else covariance
    log_likelihood = float((s * np.log(_probabilities(theta[x] - theta[y], t, fitted)[np.arange(len(x)), 1 - w])).sum()
                           ) if fitted != "half" else _half_likelihood(theta[x] - theta[y], w, s)
    tie = t if ties == fitted else {"davidson": 0.0, "rao_kupper": 1.0, "half": math.nan}[ties]
    matrix = _matrix(x[:real], y[:real], w[:real], group, k, level)
    return Ranking(labels, theta, covariance, tie, ties, log_likelihood, units, level, matrix, games)


def _checked(a: ArrayLike, b: ArrayLike, won: ArrayLike, weight: ArrayLike | None) -> tuple[Ints, Ints, Ints, Floats]:
    x, y, w = (np.asarray(v, dtype=np.int64) for v in (a, b, won))
    s = np.ones(len(x)) if weight is None else np.asarray(weight, dtype=np.float64)
    if x.ndim != 1 or not len(x) or not x.shape == y.shape == w.shape == s.shape:
        raise ValueError(f"a, b, won and weight must be lists of one length, found {x.shape}, {y.shape}, {w.shape}, {s.shape}")
    if not np.isin(w, (-1, 0, 1)).all() or not (np.isfinite(s) & (s > 0)).all():
        raise ValueError("won must be 1, 0 or -1 and weights above 0")
    if (x == y).any():
        raise ValueError(f"vote {int(np.flatnonzero(x == y)[0])} compares a model with itself")
    return x, y, w, s


def _probabilities(d: Floats, tie: float, model: TieModel) -> Floats:
    """[N, 3] of a preferred, tie, b preferred; `tie` is nu or eta."""
    if model == "half":
        return np.stack([special.expit(d), np.zeros_like(d), special.expit(-d)], 1)
    if model == "davidson":
        logits = np.stack([d / 2, np.full_like(d, math.log(tie) if tie > 0 else -np.inf), -d / 2], 1)
        return np.asarray(special.softmax(logits, axis=1))
    first, second = special.expit(d - math.log(tie)), special.expit(-d - math.log(tie))
    return np.stack([first, (tie**2 - 1) * first * second, second], 1)  # 1 - p - q without cancellation


def _slopes(d: Floats, w: Ints, t: float, model: TieModel) -> tuple[Floats, Floats]:
    """Gradient [N, 2] of each vote's log-likelihood in (d, u), and minus its Hessian [N, 3]: dd, du, uu.

    u is log nu, or log eta."""
    n = len(d)
    if model == "half":
        p = special.expit(d)
        zero = np.zeros(n)
        return np.stack([(w + 1) / 2 - p, zero], 1), np.stack([p * (1 - p), zero, zero], 1)
    p = _probabilities(d, t, model)
    if model == "davidson":
        lead, tied = p[:, 0] - p[:, 2], p[:, 1]
        gradient = np.stack([(w - lead) / 2, (w == 0) - tied], 1)
        return gradient, np.stack([(1 - tied - lead**2) / 4, -lead * tied / 2, tied * (1 - tied)], 1)
    # Ordered logit. P(tie) = (eta^2 - 1) P(a) P(b), so log P(tie) = log(eta^2 - 1) + log P(a) + log P(b).
    f, g = 1 - p[:, 0], 1 - p[:, 2]
    df, dg = p[:, 0] * f, p[:, 2] * g
    is_a, is_b = (w >= 0).astype(np.float64), (w <= 0).astype(np.float64)  # a tie takes both terms
    tie = (w == 0).astype(np.float64)
    square = t * t
    gradient = np.stack([is_a * f - is_b * g, -is_a * f - is_b * g + tie * 2 * square / (square - 1)], 1)
    curvature = np.stack([is_a * df + is_b * dg, -is_a * df + is_b * dg,
                          is_a * df + is_b * dg + tie * 4 * square / (square - 1) ** 2], 1)
    return gradient, curvature


def _half_likelihood(d: Floats, w: Ints, s: Floats) -> float:
    share = (w + 1) / 2
    return -float((s * (share * np.logaddexp(0, -d) + (1 - share) * np.logaddexp(0, d))).sum())


def _log_likelihood(d: Floats, w: Ints, s: Floats, t: float, model: TieModel) -> float:
    if model == "half":
        return _half_likelihood(d, w, s)
    p = _probabilities(d, t, model)[np.arange(len(d)), 1 - w]
    return float((s * np.log(np.maximum(p, 1e-300))).sum())


def _information(x: Ints, y: Ints, curvature: Floats, k: int) -> Floats:
    """[K + 1, K + 1] minus the Hessian in (theta, u)."""
    h = np.zeros((k + 1, k + 1))
    dd, du, uu = curvature.T
    np.add.at(h, (x, x), dd)
    np.add.at(h, (y, y), dd)
    np.add.at(h, (x, y), -dd)
    np.add.at(h, (y, x), -dd)
    cross = np.bincount(x, du, k) - np.bincount(y, du, k)
    h[:k, k], h[k, :k], h[k, k] = cross, cross, uu.sum()
    return h


def _fixed(h: Floats, k: int, model: TieModel) -> Floats:
    """The gauge fixed (a common shift of theta is free), and u where the model has none."""
    h = h.copy()
    h[:k, :k] += max(float(h[:k, :k].trace()), 1e-12) / k / k
    if model == "half":
        h[k, k] = 1.0
    return h


def _fit(x: Ints, y: Ints, w: Ints, s: Floats, k: int, model: TieModel) -> tuple[Floats, float]:
    """Newton's method on a concave log-likelihood, with halved steps."""
    theta, u = np.zeros(k), 0.0 if model == "davidson" else math.log(2.0)

    def tie(u: float) -> float:
        return math.nan if model == "half" else math.exp(u)

    value = _log_likelihood(theta[x] - theta[y], w, s, tie(u), model)
    for _ in range(200):
        gradient, curvature = _slopes(theta[x] - theta[y], w, tie(u), model)
        weighted = s * gradient[:, 0]
        slope = np.append(np.bincount(x, weighted, k) - np.bincount(y, weighted, k), float(s @ gradient[:, 1]))
        step = np.linalg.solve(_fixed(_information(x, y, s[:, None] * curvature, k), k, model), slope)
        size = 1.0
        if model == "rao_kupper" and step[k] < 0:
            size = min(1.0, 0.9 * u / -step[k])  # log eta stays above 0
        while True:
            new, v = theta + size * step[:k], u + size * float(step[k])
            after = _log_likelihood(new[x] - new[y], w, s, tie(v), model)
            if after >= value - 1e-12 * abs(value) or size < 1e-8:
                break
            size /= 2
        theta, u, value = new - new.mean(), v, after
        if np.abs(theta).max() > LARGEST_GAP:
            break
        if np.abs(size * step).max() < 1e-10:
            return theta, tie(u)
    raise ValueError("the likelihood has no maximum: scores run away. Add comparisons, or pass prior=0.1")


def _covariance(votes: tuple[Ints, Ints, Ints, Floats], all_votes: tuple[Ints, Ints, Ints, Floats], group: NDArray[np.intp],
                units: int, theta: Floats, t: float, k: int, model: TieModel) -> Floats:
    """[K, K] from the prompts' scores; what the prior adds belongs to no prompt."""
    x, y, w, s = votes
    gradient, curvature = _slopes(theta[x] - theta[y], w, t, model)
    if units < 2:
        return np.diag(np.full(k, np.inf))  # one prompt says nothing of the spread
    rows = np.r_[group, group, group]
    columns = np.r_[x, y, np.full(len(x), k)]
    data = np.r_[s * gradient[:, 0], -s * gradient[:, 0], s * gradient[:, 1]]
    scores = sparse.csr_array((data, (rows, columns)), shape=(units, k + 1))
    px, py, pw, ps = all_votes
    whole = _information(px, py, ps[:, None] * _slopes(theta[px] - theta[py], pw, t, model)[1], k)
    not_too_small = partial(_not_too_small, information=whole, k=k, model=model, prior=len(px) > len(x))
    if units <= FEW_PROMPTS:
        order = np.argsort(group, kind="stable")
        ends = np.searchsorted(group[order], np.arange(units + 1))
        moved = np.empty((units, k + 1))
        dense = scores.toarray()
        for g in range(units):
            r = order[ends[g]:ends[g + 1]]
            rest = _fixed(whole - _information(x[r], y[r], s[r, None] * curvature[r], k), k, model)
            if np.linalg.cond(rest) > 1e10:  # without this prompt some model is compared with nothing
                break
            moved[g] = np.linalg.solve(rest, dense[g])
        else:
            moved -= moved.mean(0)
            return not_too_small(np.asarray((units - 1) / units * moved.T @ moved)[:k, :k])
    inverse = np.linalg.inv(_fixed(whole, k, model))
    meat = units / (units - 1) * np.asarray((scores.T @ scores).toarray())
    return not_too_small(np.asarray(inverse @ meat @ inverse)[:k, :k])


def _not_too_small(found: Floats, information: Floats, k: int, model: TieModel, prior: bool) -> Floats:
    """The covariance [K, K] found from the prompts, or the model's own (the inverse information), where prompts that all say the
    same have none: five votes of five for one model are no certainty. With a prior, which separated scores need, the larger."""
    centred = np.eye(k) - 1 / k
    own = centred @ np.linalg.inv(_fixed(information, k, model))[:k, :k] @ centred
    least = float(own.trace()) if prior else 1e-9 * float(own.trace())
    return own if float(found.trace()) < least else found


def _matrix(x: Ints, y: Ints, w: Ints, group: NDArray[np.intp], k: int, level: float
            ) -> tuple[tuple[Estimate | None, ...], ...]:
    cells: list[list[Estimate | None]] = [[None] * k for _ in range(k)]
    low, high = np.minimum(x, y), np.maximum(x, y)
    share = np.where(x < y, (w + 1) / 2, (1 - w) / 2)
    key = low * k + high
    order = np.argsort(key, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
        i, j = int(low[rows[0]]), int(high[rows[0]])
        e = mean_interval(share[rows], group[rows], level, bounds=(0.0, 1.0))
        cells[i][j], cells[j][i] = e, Estimate(1 - e.value, 1 - e.high, 1 - e.low, e.n, e.level)
    return tuple(map(tuple, cells))
