"""A judge that errs: its rate corrected by people's labels on some of the items.

    ppi_mean(judged_N, people_n, judged_on_those_n)              # prediction-powered inference; any scores
    rogan_gladen(verdicts_N, people_n, judged_on_those_n)        # yes/no by sensitivity and specificity

Both take the judge's verdicts on all N items (those with people's labels may be among them: pass `labelled` then) and, on n
labelled ones, people's and the judge's. The labelled items must be a random sample of the items: labels given where the judge
looked wrong correct nothing. Prediction-powered inference: Angelopoulos et al. 2023 (2301.09633) and, with its weight of the
judge, 2311.01453. Rogan and Gladen 1978 (2511.21140 for judges), with Fieller's interval.
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
    yes and no may have other shares than the N (a calibration set). The interval is Fieller's (1954), with one item added to each
    outcome of q0 and q1 as Lang and Reiczigel (2014) do; the linearised one covers 2 to 6 points too much. It is [0, 1] where the
    judge may be a coin; where it seems worse, below 30 labels and without labels of both kinds, ValueError says so.
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
    low, high = _fieller(p, len(f), (yes.sum() + 1) / (len(yes) + 2), len(yes) + 2,
                         (len(no) - no.sum() + 1) / (len(no) + 2), len(no) + 2, level)
    corrected = Estimate(value, min(low, value), max(high, value), len(f), level)
    return Corrected(mean_interval(f, None, level, bounds=(0, 1)), corrected, mean_interval(y, None, level, bounds=(0, 1)),
                     len(y), f"Rogan–Gladen, sensitivity {q1:.2f}, specificity {q0:.2f}")


def _fieller(p: float, n: int, q1: float, n1: int, q0: float, n0: int, level: float) -> tuple[float, float]:
    """All rates theta at which p + q0 − 1 − theta (q0 + q1 − 1) is within z of its own standard error, in [0, 1]: a quadratic in
    theta. Unlike the ratio's linearisation it needs no division by a slope that is itself uncertain."""
    z2 = float(special.ndtri(0.5 + level / 2)) ** 2
    vp, v1, v0 = p * (1 - p) / n, q1 * (1 - q1) / n1, q0 * (1 - q0) / n0
    top, slope = p + q0 - 1, q0 + q1 - 1
    a, b, c = slope**2 - z2 * (v0 + v1), top * slope - z2 * v0, top**2 - z2 * (vp + v0)
    if a <= 0:  # the slope is not shown to differ from 0: any rate is possible
        return 0.0, 1.0
    root = math.sqrt(max(b * b - a * c, 0.0))
    return min(max((b - root) / a, 0.0), 1.0), min(max((b + root) / a, 0.0), 1.0)
