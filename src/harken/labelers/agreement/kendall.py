"""How far several people's rankings of the same options agree: Kendall's tau-b and W, ties allowed.

    kendall_tau(rankings_of(choices))        # mean tau-b over pairs of people, then over units

Shape suffixes: `U` units, `M` people who ranked a unit, `K` options, `P` pairs of options.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np

from harken.core.protocols import Estimate
from harken.labelers.agreement.coefficients import DRAWS, FEWEST_DIFFERENT, Agreement
from harken.labelers.agreement.resample import percentiles, resampled_sums, wilson_bounds
from harken.labelers.rankings import Floats, Rankings


def tau_b(ranks_a: Iterable[float], ranks_b: Iterable[float]) -> float:
    """Kendall's (1945) tau-b of two rankings: (C - D) / sqrt(untied in a x untied in b); NaN if one of them ties everything.

    Worked by hand: (1, 2, 3) and (1, 2, 2) agree on two of the three pairs and b ties the third: 2 / sqrt(3 x 2) = .816.
    """
    signs_2P = _signs(np.array([[list(ranks_a), list(ranks_b)]], dtype=np.float64))[0]
    norm = float(np.sqrt((signs_2P**2).sum(1).prod()))
    return float(signs_2P[0] @ signs_2P[1]) / norm if norm else float("nan")


def kendall_tau(rankings: Rankings, *, seed: int = 0, draws: int = DRAWS, level: float = 0.95) -> Agreement | None:
    """Mean tau-b over pairs of people who ranked a unit, then over units. Chance is 0.

    A ranking that ties everything has no tau and is left out. None when nothing is left.
    """
    return _mean("kendall_tau", [_mean_tau(r) for r in rankings.ranks], [np.zeros(len(r)) for r in rankings.ranks], rankings,
                 (-1.0, 1.0), seed, draws, level)


def kendall_w(rankings: Rankings, *, seed: int = 0, draws: int = DRAWS, level: float = 0.95) -> Agreement | None:
    """Kendall's W, corrected for ties (Kendall & Gibbons 1990, chapter 6), averaged over units: 1 is full concordance.

    W = 12 S / (m^2 (K^3 - K) - m sum_j T_j), S the squared deviations of the options' rank sums, T_j the sum of t^3 - t
    over the ties of person j. Chance is 1/m, which is not 0: with two people random rankings have W = 1/2.
    None when nothing was ranked twice, or everything is tied.
    """
    chance = [np.full(len(r), 1 / r.shape[1]) for r in rankings.ranks]
    return _mean("kendall_w", [concordance(r) for r in rankings.ranks], chance, rankings, (0.0, 1.0), seed, draws, level)


def _signs(ranks_UMK: Floats) -> Floats:
    """[U, M, P] 1 where the first option of a pair is better, -1 where worse, 0 tied."""
    pairs = np.array(list(combinations(range(ranks_UMK.shape[-1]), 2)))
    return np.sign(ranks_UMK[..., pairs[:, 1]] - ranks_UMK[..., pairs[:, 0]])


def _mean_tau(ranks_UMK: Floats) -> Floats:
    """[U] mean tau-b over pairs of people. With s_j the signs of person j at length 1, the sum over pairs is
    (|sum_j s_j|^2 - M) / 2, so the cost grows with M and not with its square."""
    signs = _signs(ranks_UMK)
    length = np.sqrt((signs**2).sum(-1, keepdims=True))
    unit = np.divide(signs, length, out=np.zeros_like(signs), where=length > 0)
    m = (length[..., 0] > 0).sum(-1).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(m >= 2, ((unit.sum(1) ** 2).sum(-1) - m) / (m * (m - 1)), np.nan)


def concordance(ranks_UMK: Floats) -> Floats:
    """[U] Kendall's W of each unit; NaN where everything is tied."""
    m, k = ranks_UMK.shape[1:]
    above = (ranks_UMK[..., None] > ranks_UMK[..., None, :]).sum(-1)
    same = (ranks_UMK[..., None] == ranks_UMK[..., None, :]).sum(-1)
    mid = above + (same + 1) / 2  # tied options share the mean of the places they take
    ties = (same**2 - 1).sum((-1, -2))  # sum of t^3 - t: each of t tied options adds t^2 - 1
    spread = ((mid.sum(1) - m * (k + 1) / 2) ** 2).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        room = m * m * (k**3 - k) - m * ties
        return np.where(room > 0, 12 * spread / room, np.nan)


def _mean(measure: str, values: list[Floats], chance: list[Floats], rankings: Rankings, bounds: tuple[float, float],
          seed: int, draws: int, level: float) -> Agreement | None:
    """Mean over the units with a value; whole prompts are drawn (E13)."""
    if not values:
        return None
    x, cluster, luck = np.concatenate(values), np.concatenate(rankings.cluster), np.concatenate(chance)
    defined = ~np.isnan(x)
    if not defined.any():
        return None
    _, index = np.unique(cluster[defined], return_inverse=True)
    sums_CD = np.column_stack([np.bincount(index, x[defined]), np.bincount(index)]).astype(np.float64)
    n, value = len(sums_CD), float(x[defined].mean())
    means = (sums_CD[:, 0] / sums_CD[:, 1]).round(12)
    if n - np.unique(means, return_counts=True)[1].max() < FEWEST_DIFFERENT:
        width = bounds[1] - bounds[0]
        low, high = (bounds[0] + width * x for x in wilson_bounds((value - bounds[0]) / width, n, level))
    else:
        totals_BD = resampled_sums(sums_CD, draws, seed)
        low, high = percentiles(totals_BD[:, 0] / totals_BD[:, 1], n, level)
    return Agreement(measure, Estimate(value, min(low, value), max(high, value), n, level), float(luck[defined].mean()),
                     int(defined.sum()), rankings.labelers)
