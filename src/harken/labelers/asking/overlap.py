"""Adaptive overlap: another vote only where it can change what is believed (after Sheng, Provost and Ipeirotis, KDD 2008).

    trusted = trust(fit, votes)                     # {"ana": 1.1, "flo": 0.1, …}, of all feedback so far
    settled(votes_of_item, trusted, threshold=0.9)    # of the votes on one prompt's answers: True: ask nobody more

For each pair that was compared, the posterior of its score difference d given who said what (their rationality known,
prior N(0, width^2)) is computed on a grid. The pair is settled when one of three is at least as probable as
`threshold`: a is better (d > margin), b is (d < -margin), or there is little in it. Two careful people who agree settle
what ten careless ones cannot.

Shape suffixes: `N` votes, `G` grid points.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harken.labelers.models.likelihood import Floats, davidson
from harken.labelers.models.reliability import Reliability
from harken.labelers.votes import Votes

MARGIN = 0.4
"""Log-odds of the median labeler below which two answers are as good as equal: 60 % would prefer one."""
WIDTH = 2.0
"""Sd of score differences where no fit says better."""
GRID_POINTS = 801


def trust(fit: Reliability, votes: Votes) -> dict[str, float]:
    """Rationality of each labeler by name; `votes` are those that were fitted."""
    if fit.model == "crowd":
        raise ValueError("a crowd model's beta is no slope: fit with model='beta'")
    return dict(zip(votes.labelers, fit.beta.tolist(), strict=True))


def settled(votes: Votes, reliability: Mapping[str, float] | None = None, threshold: float = 0.9, *,
            width: float = WIDTH, tie: float = 0.5, margin: float = MARGIN) -> bool:
    """Whether the votes on one item (a prompt's answers) leave nothing to ask. Without votes: no.

    Somebody not in `reliability` is taken for the median labeler (1). `tie` is Davidson's nu; 0 counts a tie as half a
    vote each way. Pure: the same votes give the same answer, in any order.
    """
    if not 0.5 <= threshold < 1:
        raise ValueError(f"threshold must lie in [0.5, 1), found {threshold}")
    return len(votes) > 0 and min(surety(votes, reliability, width=width, tie=tie, margin=margin).values()) >= threshold


def surety(votes: Votes, reliability: Mapping[str, float] | None = None, *, width: float = WIDTH, tie: float = 0.5,
           margin: float = MARGIN) -> dict[tuple[int, int], float]:
    """Of every pair compared (items a < b), the probability of what is most probable: better, worse, or as good as equal."""
    betas = reliability or {}
    beta = np.array([betas.get(name, 1.0) for name in votes.labelers])[votes.labeler]
    turn = np.where(votes.a < votes.b, 1, -1)
    low, high = np.minimum(votes.a, votes.b), np.maximum(votes.a, votes.b)
    return {(i, j): float(verdict(beta[r], (votes.won * turn)[r], width, tie, margin).max())
            for i, j in sorted(set(zip(low.tolist(), high.tolist()))) for r in [(low == i) & (high == j)]}


def verdict(beta: Floats, won: Floats, width: float = WIDTH, tie: float = 0.5, margin: float = MARGIN) -> Floats:
    """P(d > margin), P(|d| <= margin), P(d < -margin) given votes [N] on one pair by labelers of rationality beta [N]."""
    d = np.linspace(-6 * width, 6 * width, GRID_POINTS)
    logp = -((d / width) ** 2) / 2
    for b, w in zip(beta, won):
        outcome = np.full(GRID_POINTS, int(w))
        if tie > 0:
            logp = logp + davidson(b * d, np.log(tie), outcome)[0]
        else:
            share = (w + 1) / 2
            logp = logp - share * np.logaddexp(0, -b * d) - (1 - share) * np.logaddexp(0, b * d)
    p = np.exp(logp - logp.max())
    p /= p.sum()
    return np.array([p[d > margin].sum(), p[np.abs(d) <= margin].sum(), p[d < -margin].sum()])
