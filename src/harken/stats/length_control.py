"""Win rates with the taste for length taken out: AlpacaEval 2's regression (Dubois et al. 2024, 2404.04475).

    result = length_controlled(preference_N, length_model_N, length_baseline_N)
    result.raw, result.controlled, result.length

logit P(model preferred)_i = theta + phi tanh(x_i) + psi difficulty_i, x the length difference in standard deviations; the
controlled rate is the mean prediction at x = 0: what the judge would say of answers of equal length. It stands beside the raw
rate, never in its place: people may like length, and a regression cannot tell that from a bias.

As alpaca_eval 0.6.6 has it ("length_controlled_v1"): lengths in characters, sd with N - 1, preferences as soft labels, an L1
penalty whose strength five folds choose from ten, no intercept. Its sign is kept: x is baseline less model. Its two gamed
baselines (`gamed`), which weigh 0.2 together, and its difficulties of instructions come from its leaderboard; without them
both terms are left out. N prompts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from harken.core.protocols import Estimate
from harken.stats.intervals import Clusters, Floats, cluster_index, finite, mean_interval
from harken.stats.logistic import fit
from harken.stats.testing import standard_error

STRENGTHS: Floats = np.logspace(-4, 4, 10)
FOLDS = 5
GAMED_WEIGHT = 0.2
"""Weight of the two gamed baselines together on one instruction; the model's own comparison weighs 1."""


@dataclass(frozen=True)
class Gamed:
    """Annotations of baselines that only play with length: [M] preferences in [0, 1], standardised length differences and
    difficulties (columns `preference`, `std_delta_len`, `instruction_difficulty` of alpaca_eval's df_gamed.csv)."""

    preference: ArrayLike
    std_delta_len: ArrayLike
    difficulty: ArrayLike


@dataclass(frozen=True)
class LengthControlled:
    """`raw` and `controlled` are shares in [0, 1]. `length` is the log-odds that the model gains by answers a standard
    deviation of the length difference longer: phi times -tanh(-1). `C` is the strength that the folds chose."""

    raw: Estimate
    controlled: Estimate
    length: Estimate
    theta: float
    phi: float
    psi: float
    C: float
    standard_error: float
    """Of the raw rate, as AlpacaEval prints it: sd with N - 1 over sqrt(N) (clusters as in `mean_interval`)."""

    def __str__(self) -> str:
        return f"win rate {self.raw}; at equal lengths {self.controlled}; a standard deviation longer adds {self.length} log-odds"


def length_controlled(preference: ArrayLike, length_model: ArrayLike, length_baseline: ArrayLike, *,
                      difficulty: ArrayLike | None = None, gamed: Gamed | None = None, clusters: Clusters | None = None,
                      level: float = 0.95) -> LengthControlled:
    """Raw and length-controlled win rate of a model over a baseline.

    `preference` [N] in [0, 1]: 1 the model won, 0.5 a tie (AlpacaEval's preference less 1). Intervals are over `clusters`
    (prompts; each row its own without them), from the estimate's influence functions at the chosen penalty. Raises ValueError
    for missing values, for fewer than 10 rows, and where all lengths differ alike (nothing to control for).
    """
    y = finite(preference, "preference")
    ours, theirs = finite(length_model, "length_model"), finite(length_baseline, "length_baseline")
    if not len(y) == len(ours) == len(theirs):
        raise ValueError(f"{len(y)} preferences need as many lengths, found {len(ours)} and {len(theirs)}")
    if y.min() < 0 or y.max() > 1:
        raise ValueError("preferences must lie between 0 and 1; AlpacaEval's less 1")
    if len(y) < 10:
        raise ValueError(f"a regression on length needs 10 comparisons, found {len(y)}")
    delta = theirs - ours
    deviation = float(delta.std(ddof=1))
    if deviation <= 1e-9 * max(1.0, float(np.abs(delta).max())):
        raise ValueError("the lengths differ by the same in every comparison, so their effect cannot be told from the model's")
    columns = [np.tanh(delta / deviation)]
    if difficulty is not None:
        hard = finite(difficulty, "difficulty")
        if len(hard) != len(y):
            raise ValueError(f"{len(y)} preferences need as many difficulties, found {len(hard)}")
        columns.append(hard)
    x = np.column_stack([*columns, np.ones(len(y))])
    rows, target, weight = _with_gamed(x, y, gamed, difficulty is not None)
    strength = _chosen(rows, target, weight)
    beta = fit(rows, target, penalty="l1", C=strength, weights=weight)
    level_x = x.copy()
    level_x[:, 0] = 0.0
    predicted = special.expit(level_x @ beta)
    index = cluster_index(clusters, len(y))
    controlled, phi = _estimates(x, y, level_x, predicted, beta, rows, weight, index, level)
    raw = mean_interval(y, clusters, level, bounds=(0.0, 1.0))
    psi = float(beta[1]) if difficulty is not None else 0.0
    return LengthControlled(raw, controlled, phi, float(beta[-1]), float(beta[0]), psi, strength,
                            standard_error(y, clusters)[1])


def _with_gamed(x: Floats, y: Floats, gamed: Gamed | None, hard: bool) -> tuple[Floats, Floats, Floats]:
    if gamed is None:
        return x, y, np.ones(len(y))
    p, d = finite(gamed.preference, "gamed preference"), finite(gamed.std_delta_len, "gamed std_delta_len")
    columns = [np.tanh(d), *([finite(gamed.difficulty, "gamed difficulty")] if hard else []), np.zeros(len(p))]
    weight = np.r_[np.full(len(p), GAMED_WEIGHT / 2), np.ones(len(y))]
    return np.vstack([np.column_stack(columns), x]), np.r_[p, y], weight


def _chosen(x: Floats, y: Floats, weight: Floats) -> float:
    """The strength of least held-out loss over five folds, the smaller where equal."""
    fold = np.arange(len(y))[::-1] % FOLDS  # as GroupKFold deals equal groups: from the last on
    loss = np.zeros(len(STRENGTHS))
    for f in range(FOLDS):
        inside, outside = fold != f, fold == f
        start = np.zeros(x.shape[1])
        for i, C in enumerate(STRENGTHS):
            start = fit(x[inside], y[inside], penalty="l1", C=float(C), weights=weight[inside], start=start, tolerance=1e-4)
            z = x[outside] @ start
            loss[i] += float(np.mean(weight[outside] * (np.logaddexp(0, z) - y[outside] * z))) / FOLDS
    return float(STRENGTHS[int(np.argmin(loss))])


def _estimates(x: Floats, y: Floats, level_x: Floats, predicted: Floats, beta: Floats, rows: Floats, weight: Floats,
               index: np.ndarray[tuple[int], np.dtype[np.intp]], level: float) -> tuple[Estimate, Estimate]:
    """The controlled rate and the effect of length, by influence functions summed over clusters; what L1 set to 0 stays."""
    active = np.flatnonzero(beta)
    p = special.expit(rows @ beta)
    h = (rows[:, active] * (weight * p * (1 - p))[:, None]).T @ rows[:, active]
    scores = x[:, active] * (y - special.expit(x @ beta))[:, None]
    moved = np.zeros(x.shape)
    if len(active):
        moved[:, active] = scores @ np.linalg.pinv(h)
    slope = (predicted * (1 - predicted)) @ level_x / len(y)
    value = float(predicted.mean())
    units = int(index.max()) + 1
    t = float(special.stdtrit(max(units - 1, 1), 0.5 + level / 2))
    estimates = []
    longer = -math.tanh(1.0)  # a model's answers a standard deviation longer: x is baseline less model
    for middle, each in ((value, (predicted - value) / len(y) + moved @ slope), (longer * float(beta[0]), longer * moved[:, 0])):
        sums = np.bincount(index, each)
        half = t * math.sqrt(units / max(units - 1, 1) * float(sums @ sums)) if units > 1 else math.inf
        estimates.append(Estimate(middle, middle - half, middle + half, units, level))
    rate = estimates[0]
    return Estimate(rate.value, max(0.0, rate.low), min(1.0, rate.high), rate.n, level), estimates[1]
