"""What labelers are like, given scores: reliability and pull towards length under a reward that something else learnt.

    traits = fit_traits([Ranked(scores, sizes, ranks, labeler) …], labelers=20)
    traits.beta[k], traits.beta_sd[k]     # 1: like the reward's own scale; 0: a coin; below 0: upside down

Labeler k ranks by u = beta_k score + length_k size, ties by Davidson–Luce with one nu for all. A whole ranking is one
outcome, so that its C(K, 2) pairs are not counted as so many opinions. beta ~ N(1, 1), length ~ N(0, 0.3²), as
`harken train reward_model --labelers reliability` has them. The log posterior is concave: Newton on all labelers at
once. The scores are taken for certain, so the intervals are of what these rankings leave open about each person.

Shape suffixes: `N` rankings, `K` options, `A` labelers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harken.labelers.models.likelihood import Floats, Ints, all_pairs, plackett_luce

BETA_SD, LENGTH_SD = 1.0, 0.3
MOST_OPTIONS = 9
"""Options of a ranking up to which the whole of it is the outcome; above, 2^K sets are too many, and its mean pair stands."""
STEP = 1e-4
"""Of the finite differences that curvatures are taken by."""


@dataclass(frozen=True)
class Ranked:
    """One labeler's ranking."""

    scores: Sequence[float]
    """[K] by the reward."""
    sizes: Sequence[float]
    """[K] log2 of the characters."""
    ranks: Sequence[int]
    """[K] 1 the best, equal ranks tie."""
    labeler: int


@dataclass(frozen=True)
class Traits:
    """Modes and standard deviations, [A] each; who ranked nothing has the prior."""

    beta: Floats
    beta_sd: Floats
    length: Floats
    length_sd: Floats
    tie: float
    """Davidson's nu; 0 where nobody tied."""


class _Table:
    """Rankings of equal K as arrays."""

    def __init__(self, rows: Sequence[Ranked]) -> None:
        self.scores, self.sizes = (np.array([getattr(r, n) for r in rows], dtype=np.float64) for n in ("scores", "sizes"))
        self.ranks: Ints = np.array([r.ranks for r in rows], dtype=np.int64)
        self.who: Ints = np.array([r.labeler for r in rows], dtype=np.int64)
        self.sizes = self.sizes - self.sizes.mean(1, keepdims=True)

    def slopes(self, beta: Floats, length: Floats, log_nu: float | None) -> tuple[Floats, Floats, float]:
        """d log P by each labeler's beta and length, [A] each, and by log nu."""
        u = beta[self.who][:, None] * self.scores + length[self.who][:, None] * self.sizes
        if u.shape[1] > MOST_OPTIONS:
            _, grad, d_nu = all_pairs(u, -math.inf if log_nu is None else log_nu, self.ranks)
        else:
            _, grad, d_nu = plackett_luce(u, log_nu, self.ranks)
        by_beta, by_length = (np.bincount(self.who, (grad * x).sum(1), len(beta)).astype(np.float64)
                              for x in (self.scores, self.sizes))
        return by_beta, by_length, float(d_nu.sum())


def fit_traits(rankings: Sequence[Ranked], *, labelers: int, beta_sd: float = BETA_SD,
               length_sd: float = LENGTH_SD) -> Traits:
    """Each labeler's mode and Laplace's standard deviation. Scores must be finite; raises ValueError where they are not."""
    by_size: dict[int, list[Ranked]] = {}
    for one in rankings:
        by_size.setdefault(len(one.ranks), []).append(one)
    tables = [_Table(rows) for k, rows in by_size.items() if k > 1]
    if not all(np.isfinite(t.scores).all() for t in tables):
        raise ValueError("scores must be finite")
    beta, length = np.ones(labelers), np.zeros(labelers)
    tied = sum(int((np.diff(np.sort(t.ranks, 1), axis=1) == 0).sum()) for t in tables)
    log_nu: float | None = -1.0 if tied else None

    def slopes(beta: Floats, length: Floats, log_nu: float | None) -> tuple[Floats, Floats, float]:
        parts = [t.slopes(beta, length, log_nu) for t in tables]
        return (-(beta - 1) / beta_sd**2 + sum(p[0] for p in parts), -length / length_sd**2 + sum(p[1] for p in parts),
                sum(p[2] for p in parts) - (log_nu or 0.0) / 9)  # log nu ~ N(0, 3²)

    for _ in range(50):
        b, g, t = slopes(beta, length, log_nu)
        right, longer = slopes(beta + STEP, length, log_nu), slopes(beta, length + STEP, log_nu)
        bb, bl, ll = ((x - y) / STEP for x, y in ((b, right[0]), (g, right[1]), (g, longer[1])))
        det = bb * ll - bl**2
        moves = (ll * b - bl * g) / det, (bb * g - bl * b) / det
        nudge = 0.0
        if log_nu is not None:
            nudge = t / max((t - slopes(beta, length, log_nu + STEP)[2]) / STEP, 1e-9)
            log_nu += float(np.clip(nudge, -1, 1))
        beta, length = beta + np.clip(moves[0], -1, 1), length + np.clip(moves[1], -1, 1)
        if max(abs(nudge), *(np.abs(m).max(initial=0.0) for m in moves)) < 1e-6:
            break
    return Traits(beta, np.sqrt(ll / det), length, np.sqrt(bb / det), 0.0 if log_nu is None else math.exp(log_nu))
