"""A judge that errs: its rate corrected by people's labels on some of the items.

    ppi_mean(judged_N, people_n, judged_on_those_n)              # prediction-powered inference; any scores
    rogan_gladen(verdicts_N, people_n, judged_on_those_n)        # yes/no by sensitivity and specificity

Both take the judge's verdicts on all N items (those with people's labels may be among them: pass `labelled` then) and, on n
labelled ones, people's and the judge's. The labelled items must be a random sample of the items: labels given where the judge
looked wrong correct nothing. Prediction-powered inference: Angelopoulos et al. 2023 (2301.09633) and, with its weight of the
judge, 2311.01453. Rogan and Gladen 1978, its interval as in Lang and Reiczigel 2014 and 2511.21140.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from harken.core.protocols import Estimate
from harken.stats.intervals import Clusters, Floats, finite, mean_interval
from harken.stats.testing import standard_error

FEWEST = 30
"""Human labels below which nothing is corrected: sensitivity and specificity would be guesses."""


@dataclass(frozen=True)
class Corrected:
    """`raw` is the judge's own mean, `corrected` what people would have said; `people` their labels alone, for comparison."""

    raw: Estimate
    corrected: Estimate
    people: Estimate
    labelled: int
    method: str

    def __str__(self) -> str:
        return (f"judge alone {self.raw}; corrected by {self.labelled} human labels ({self.method}) {self.corrected}; "
                f"those labels alone {self.people}")


def _three(judged: ArrayLike, people: ArrayLike, judged_labelled: ArrayLike) -> tuple[Floats, Floats, Floats]:
    f, y, g = finite(judged, "judged"), finite(people, "people"), finite(judged_labelled, "judged_labelled")
    if len(y) != len(g):
        raise ValueError(f"people labelled {len(y)} items and the judge {len(g)} of them: both are needed of each")
    if len(y) < FEWEST:
        raise ValueError(f"a judge is corrected from {FEWEST} human labels on, found {len(y)}")
    return f, y, g


def ppi_mean(judged: ArrayLike, people: ArrayLike, judged_labelled: ArrayLike, *, clusters: Clusters | None = None,
             labelled_clusters: Clusters | None = None, weight: float | None = None, level: float = 0.95,
             bounds: tuple[float, float] | None = None) -> Corrected:
    """Mean of people's scores, from the judge's on many items and both on some: w mean(judged) + mean(people - w judged).

    `judged` [N] are the items *without* people's labels, `people` and `judged_labelled` [n] those with. `weight` is w: 1 is the
    first paper's; None takes the w of least variance, cov(people, judged) / ((1 + n/N) var(judged)), kept in [0, 1], so that a
    useless judge costs nothing. The variance is w² var(judged)/N + var(people − w judged)/n, clusters as in `mean_interval`.
    Never biased by the judge, whatever its errors. Raises ValueError below 30 labels.
    """
    f, y, g = _three(judged, people, judged_labelled)
    if weight is None:
        spread = float(np.r_[f, g].var(ddof=1))
        covariance = float(np.cov(y, g)[0, 1])
        weight = min(1.0, max(0.0, covariance / ((1 + len(y) / len(f)) * spread))) if spread > 0 else 0.0
    first, error_f, units_f = standard_error(f, clusters)
    rest, error_r, units_r = standard_error(y - weight * g, labelled_clusters)
    parts = [(weight * error_f) ** 2 if units_f > 1 else 0.0, error_r**2]
    variance, value = sum(parts), weight * first + rest
    freedom = [max(units_f - 1, 1), max(units_r - 1, 1)]
    degrees = variance**2 / sum(v**2 / d for v, d in zip(parts, freedom)) if variance > 0 else freedom[1]
    half = float(special.stdtrit(degrees, 0.5 + level / 2)) * math.sqrt(variance)
    low, high = value - half, value + half
    if bounds is not None:
        value, low, high = (min(max(v, bounds[0]), bounds[1]) for v in (value, low, high))
    corrected = Estimate(value, low, high, len(f) + len(y), level)
    raw = mean_interval(np.r_[f, g], None if clusters is None or labelled_clusters is None
                        else [*clusters, *labelled_clusters], level, bounds=bounds)
    people_alone = mean_interval(y, labelled_clusters, level, bounds=bounds)
    return Corrected(raw, corrected, people_alone, len(y), f"PPI, the judge weighs {weight:.2f}")


def rogan_gladen(judged: ArrayLike, people: ArrayLike, judged_labelled: ArrayLike, *, level: float = 0.95) -> Corrected:
    """Rate of yes, from a judge of known errors: (p + q0 − 1) / (q0 + q1 − 1), q1 sensitivity, q0 specificity.

    `judged` [N] are the verdicts (0 or 1) whose rate is wanted; `people`, `judged_labelled` [n] are of the labelled items, whose
    yes and no may have other shares than the N (a calibration set). The interval adds one item to each of q0's and q1's
    outcomes and z²/2 to p's (Lang and Reiczigel 2014), clipped to [0, 1]. It grows without limit as the judge nears a coin;
    there, and below 30 labels or without labels of both kinds, ValueError says so.
    """
    f, y, g = _three(judged, people, judged_labelled)
    for name, x in (("judged", f), ("people", y), ("judged_labelled", g)):
        if not np.isin(x, (0.0, 1.0)).all():
            raise ValueError(f"{name} must be 0 or 1 here; scores take ppi_mean")
    yes, no = g[y == 1], g[y == 0]
    if not len(yes) or not len(no):
        raise ValueError("people's labels are all alike: sensitivity and specificity need both yes and no")
    p, q1, q0 = float(f.mean()), float(yes.mean()), 1 - float(no.mean())
    if q0 + q1 - 1 <= 0:
        raise ValueError(f"the judge is no better than a coin (sensitivity {q1:.2f}, specificity {q0:.2f}): nothing to correct")
    value = min(max((p + q0 - 1) / (q0 + q1 - 1), 0.0), 1.0)
    z = float(special.ndtri(0.5 + level / 2))
    n, n1, n0 = len(f) + z * z, len(yes) + 2, len(no) + 2
    p_, q1_, q0_ = (f.sum() + z * z / 2) / n, (yes.sum() + 1) / n1, (len(no) - no.sum() + 1) / n0
    slope = max(float(q0_ + q1_ - 1), 1e-6)
    middle = (p_ + q0_ - 1) / slope
    shift = 2 * z * z * ((1 - middle) * q0_ * (1 - q0_) / n0 - middle * q1_ * (1 - q1_) / n1)
    error = math.sqrt(p_ * (1 - p_) / n + (1 - middle) ** 2 * q0_ * (1 - q0_) / n0 + middle**2 * q1_ * (1 - q1_) / n1) / slope
    low, high = (min(max(float(middle + shift + side * z * error), 0.0), 1.0) for side in (-1, 1))
    corrected = Estimate(value, min(low, value), max(high, value), len(f), level)
    return Corrected(mean_interval(f, None, level, bounds=(0, 1)), corrected, mean_interval(y, None, level, bounds=(0, 1)),
                     len(y), f"Rogan–Gladen, sensitivity {q1:.2f}, specificity {q0:.2f}")
