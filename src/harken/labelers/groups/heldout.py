"""What one model predicts better than another on votes that neither saw.

Folds keep a judgment's pairs together; the interval of a difference is clustered by labeler, whose votes go together.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from harken.core.protocols import Estimate
from harken.labelers.groups.regression import Floats, Ints
from harken.labelers.votes import Votes


def folds_of(votes: Votes, folds: int, seed: int = 0) -> Ints:
    """[N] fold of each vote: the pairs of one judgment stay together, and each labeler's are spread evenly."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(int(votes.judgment.max(initial=0)) + 1)
    _, first = np.unique(votes.judgment, return_index=True)
    order = sorted(first.tolist(), key=lambda n: (votes.labeler[n], shuffled[votes.judgment[n]]))
    fold = np.zeros(len(shuffled), dtype=np.int64)
    for place, n in enumerate(order):
        fold[votes.judgment[n]] = place % folds
    return fold[votes.judgment]


def gain(ours: Floats, theirs: Floats, labeler: Ints, level: float) -> Estimate:
    """Mean of ours − theirs [N] with a t-interval clustered by labeler (Miller 2024, as `stats.intervals`, which this rank
    may not import). One labeler alone has no interval: infinite."""
    difference = ours - theirs
    mean = float(difference.mean())
    _, index = np.unique(labeler, return_inverse=True)
    sums = np.bincount(index, difference - mean)
    units = len(sums)
    if units == 1:
        return Estimate(mean, -math.inf, math.inf, 1, level)
    error = math.sqrt(units / (units - 1) * float(sums @ sums)) / len(difference)
    half = float(special.stdtrit(units - 1, 0.5 + level / 2)) * error
    return Estimate(mean, mean - half, mean + half, units, level)
