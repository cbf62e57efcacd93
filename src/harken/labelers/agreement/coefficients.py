"""How far people agree, beyond what chance would give: percent, kappa, alpha, AC1.

    ratings = ratings_of_votes(votes_of(choices))         # or ratings_of, ratings_of_matrix
    krippendorff_alpha(ratings)                           # 0.142 [0.118, 0.166] n=13, chance 0
    agreement(ratings)                                    # several measures from the same draws

Every coefficient is (p - e) / (1 - e): p is the agreement seen, e the agreement expected by chance. They differ in how
chance is modelled, and in what p averages: units (Fleiss, Gwet) or ratings (Krippendorff). Worked by hand: of ten items two
raters both call 4 "a" and 3 "b"; one is (a, b), two are (b, a). p = .7. The first says "a" 5 times, the second 6, so Cohen's
e = .5 x .6 + .5 x .4 = .5 and kappa = .2 / .5 = .4. Pooled, "a" is said 11 times of 20: Fleiss' e = .55^2 + .45^2 = .505,
kappa = .195 / .495 = .3939; Gwet's e = 2 x .55 x .45 = .495, AC1 = .205 / .505 = .4059.

Raw agreement alone misleads (E19): with random order two careless people agree on half of all pairs, and where one answer
makes up 95 %, on 90 %. Intervals draw whole clusters (E13); below about 20 clusters read them with care.

Shape suffixes: `U` units, `V` values, `A` raters, `C` clusters, `D` sums, `B` draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from harken.core.protocols import Estimate
from harken.labelers.agreement.resample import percentiles, resampled_sums, wilson_bounds
from harken.labelers.ratings import Floats, Ratings

Scale = Literal["nominal", "linear", "ordinal", "interval", "ratio", "quadratic"]
Measure = Literal["percent", "cohen", "fleiss", "alpha", "gwet"]
DRAWS = 2000
FEWEST_DIFFERENT = 5  # where fewer clusters than this differ from the rest, draws hardly vary: Wilson's interval instead


@dataclass(frozen=True)
class Agreement:
    """`value.n` counts clusters (E13), `units` the units with at least two ratings. `chance` is what raters would get who
    keep their frequencies of answers and ignore the unit: for a percentage the agreement expected so, for kappa and alpha 0.
    Gwet's model of chance is another: where one answer prevails such raters get an AC1 far above 0. `expected` is e."""

    measure: str
    value: Estimate
    chance: float
    units: int
    raters: int
    expected: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {"measure": self.measure, **self.value.to_json(), "chance": self.chance, "units": self.units,
                "raters": self.raters, "expected": self.expected}

    def __str__(self) -> str:
        return f"{self.value}, chance {self.chance:.3f}"


@dataclass(frozen=True)
class _Parts:
    """A coefficient as sums over units: share of agreement p_u times its weight, the weight, and what chance needs."""

    share_U: Floats
    weight_U: Floats
    margins_UV: Floats
    chance: Callable[[Floats], Floats]
    """[..., V] summed margins -> [...] expected agreement."""
    corrected: bool = True
    careless: Callable[[Floats], Floats] | None = None
    """The agreement of raters who ignore the unit, where the model of `chance` is another."""


def percent_agreement(ratings: Ratings, scale: Scale = "nominal", **options: Any) -> Agreement:
    """Share of pairs of raters who gave a unit the same value, averaged over units; near values count in part unless nominal.

    Chance is Fleiss': what raters would get who keep the frequencies of all answers and ignore the unit.
    """
    return _one(ratings, "percent", scale, options)


def cohen_kappa(ratings: Ratings, scale: Scale = "nominal", **options: Any) -> Agreement:
    """Cohen's (1960) kappa of exactly two raters; scale "linear" or "quadratic" is his weighted kappa (1968).

    Raises ValueError when there are not two raters: `matrix` compares every two.
    """
    return _one(ratings, "cohen", scale, options)


def fleiss_kappa(ratings: Ratings, scale: Scale = "nominal", **options: Any) -> Agreement:
    """Fleiss' (1971) kappa; where units differ in their number of ratings, Gwet's (2014) form: each unit counts alike."""
    return _one(ratings, "fleiss", scale, options)


def krippendorff_alpha(ratings: Ratings, scale: Scale = "nominal", **options: Any) -> Agreement:
    """Krippendorff's (2011, Computing Krippendorff's Alpha-Reliability) alpha: any number of raters, missing ratings allowed.

    Ordinal distances depend on how often each value occurs; draws keep the distances of the data.
    """
    return _one(ratings, "alpha", scale, options)


def gwet_ac(ratings: Ratings, scale: Scale = "nominal", **options: Any) -> Agreement:
    """Gwet's (2008) AC1, or with another scale than nominal his AC2 (2014): does not fall to 0 when one value prevails.

    Read it beside its `chance`. Give `categories` to `ratings_of` where not all of the scale was used: their number enters.
    """
    return _one(ratings, "gwet", scale, options)


def _one(ratings: Ratings, measure: Measure, scale: Scale, options: dict[str, Any]) -> Agreement:
    result = agreement(ratings, (measure,), scale, **options)[measure]
    if result is None:
        only = ratings.names[ratings.value[0]]
        raise ValueError(f"every rating of the shared units is the same, like {only!r}: agreement beyond chance is undefined")
    return result


def agreement(ratings: Ratings, measures: Iterable[Measure] = ("percent", "fleiss", "alpha", "gwet"), scale: Scale = "nominal", *,
              seed: int = 0, draws: int = DRAWS, level: float = 0.95) -> dict[str, Agreement | None]:
    """Measures from the same bootstrap draws; None where one is undefined because every rating is the same.

    A rater's last rating of a unit counts. Raises ValueError when no unit has ratings by two raters.
    """
    last = ratings.latest()
    counts_UV = last.counts()
    rated_U = counts_UV.sum(1)
    if not (rated_U >= 2).any():
        raise ValueError("no unit was rated by two people, so there is no agreement to measure")
    parts = {name: _parts(name, last, counts_UV, scale) for name in measures}
    clusters = int(ratings.cluster.max()) + 1
    sums_CD = np.concatenate([_by_cluster(p, last.cluster, clusters) for p in parts.values()], 1)
    totals_BD = resampled_sums(sums_CD[sums_CD.any(1)], draws, seed)
    results: dict[str, Agreement | None] = {}
    start = 0
    for name, part in parts.items():
        stop = start + 2 + part.margins_UV.shape[1]
        value = _estimate(part, sums_CD[:, start:stop], totals_BD[:, start:stop], level)
        raters = len(np.unique(last.rater[part.weight_U[last.unit] > 0]))
        results[name] = value and Agreement(name, value[0], _luck(part, sums_CD[:, start:stop].sum(0)),
                                          int(np.count_nonzero(part.weight_U)), raters, value[1])
        start = stop
    return results


def _by_cluster(part: _Parts, cluster: Any, clusters: int) -> Floats:
    """[C, 2 + V] the parts' sums."""
    columns = np.column_stack([part.share_U, part.weight_U, part.margins_UV])
    sums = np.zeros((clusters, columns.shape[1]))
    np.add.at(sums, cluster, columns)
    return sums


def _coefficient(part: _Parts, sums: Floats) -> tuple[Floats, Floats]:
    """[...] values and expected agreement of [..., 2 + V] sums; NaN where undefined."""
    with np.errstate(invalid="ignore", divide="ignore"):
        seen, expected = sums[..., 0] / sums[..., 1], part.chance(sums[..., 2:])
        if not part.corrected:
            return seen, expected
        room = np.where(1 - expected > 1e-12, 1 - expected, np.nan)
        return (seen - expected) / room, expected


def _luck(part: _Parts, sums: Floats) -> float:
    """What careless raters get."""
    expected = float(part.chance(sums[2:]))
    if not part.corrected:
        return expected
    careless = expected if part.careless is None else float(part.careless(sums[2:]))
    return (careless - expected) / (1 - expected)


def _estimate(part: _Parts, sums_CD: Floats, totals_BD: Floats, level: float) -> tuple[Estimate, float] | None:
    value, expected = (float(x) for x in _coefficient(part, sums_CD.sum(0)))
    if np.isnan(value):
        return None
    paired = sums_CD[sums_CD[:, 1] > 0]
    n = len(paired)
    shares = (paired[:, 0] / paired[:, 1]).round(12)
    if n - np.unique(shares, return_counts=True)[1].max() < FEWEST_DIFFERENT:
        ends = np.array(wilson_bounds(float(paired[:, 0].sum() / paired[:, 1].sum()), n, level))
        low, high = (ends - expected) / (1 - expected) if part.corrected else ends
    else:
        low, high = percentiles(_coefficient(part, totals_BD)[0], n, level)
    return Estimate(value, min(float(low), value), max(float(high), value), n, level), expected


def _parts(measure: Measure, ratings: Ratings, counts_UV: Floats, scale: Scale) -> _Parts:
    rated_U = counts_UV.sum(1)
    pairable_U = (rated_U >= 2).astype(np.float64)
    used_UV = counts_UV * pairable_U[:, None]
    weights_VV = likeness(ratings, scale, used_UV.sum(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        share_U = ((counts_UV @ weights_VV - 1) * counts_UV).sum(1) / (rated_U * (rated_U - 1))
        portion_UV = np.nan_to_num(counts_UV / rated_U[:, None])
    share_U = np.where(rated_U >= 2, share_U, 0.0)

    def same(margins: Floats) -> Floats:  # Fleiss: two answers drawn with replacement
        portion = margins / margins.sum(-1, keepdims=True)
        return np.asarray((portion @ weights_VV * portion).sum(-1))

    def drawn(margins: Floats) -> Floats:  # Krippendorff: two of the n answers drawn, without replacement
        n = margins.sum(-1)
        return np.asarray(((margins @ weights_VV * margins).sum(-1) - n) / (n * (n - 1)))

    def gwet(margins: Floats) -> Floats:
        portion, q = margins / margins.sum(-1, keepdims=True), len(weights_VV)
        return np.asarray(weights_VV.sum() / max(1, q * (q - 1)) * (portion * (1 - portion)).sum(-1))

    if measure == "cohen":
        return _cohen(ratings, weights_VV)
    if measure == "alpha":
        return _Parts(share_U * rated_U, pairable_U * rated_U, _both_sides(ratings, used_UV), drawn)
    portion_UV = _both_sides(ratings, portion_UV)
    if measure == "gwet":
        return _Parts(share_U, pairable_U, portion_UV, gwet, careless=same)
    return _Parts(share_U, pairable_U, portion_UV, same, corrected=measure != "percent")


def _cohen(ratings: Ratings, weights_VV: Floats) -> _Parts:
    people, rater = np.unique(ratings.rater, return_inverse=True)
    if len(people) != 2:
        raise ValueError(f"Cohen's kappa is of two raters, found {len(people)}; Fleiss' kappa and Krippendorff's alpha "
                         "take any number")
    units, size = len(ratings.cluster), len(weights_VV)
    said_UAV = np.zeros((units, 2, size))
    said_UAV[ratings.unit, rater, ratings.value] = 1
    both_U = (said_UAV.sum((1, 2)) == 2).astype(np.float64)
    said_UAV *= both_U[:, None, None]
    first, second = _both_sides(ratings, said_UAV[:, 0]), _both_sides(ratings, said_UAV[:, 1])

    def chance(margins: Floats) -> Floats:
        a, b = margins[..., :size], margins[..., size:]
        return np.asarray((a @ weights_VV * b).sum(-1) / (a.sum(-1) * b.sum(-1)))

    return _Parts((said_UAV[:, 0] @ weights_VV * said_UAV[:, 1]).sum(1), both_U, np.hstack([first, second]), chance)


def _both_sides(ratings: Ratings, margins_UV: Floats) -> Floats:
    """Mirror-image values have no preferred side: their frequencies are averaged over both."""
    return (margins_UV + margins_UV[:, ::-1]) / 2 if ratings.symmetric else margins_UV


def likeness(ratings: Ratings, scale: Scale, frequency_V: Floats) -> Floats:
    """[V, V] how much two values agree: 1 the same, 0 farthest apart. It is 1 - d^2 / max d^2 with Krippendorff's distances d.

    nominal: any two differ alike. linear: 1 - |x - y| / range. interval, quadratic: d = x - y. ratio: d = (x - y) / (x + y).
    ordinal: d is how many ratings lie from x to y, half of those at x and y. Raises ValueError for words, or negative ratios.
    """
    x = ratings.levels
    if scale == "nominal":
        return np.eye(len(x))
    if not ratings.ordered:
        raise ValueError(f"the scale {scale!r} needs numbers, found words like {ratings.names[0]!r}")
    apart = np.abs(x[:, None] - x[None, :])
    if scale == "linear":
        squares = apart
    elif scale in ("interval", "quadratic"):
        squares = apart**2
    elif scale == "ratio":
        if x.min() < 0:
            raise ValueError(f"ratios need values of 0 or more, found {x.min():g}")
        squares = (apart / np.maximum(x[:, None] + x[None, :], 1e-300)) ** 2
    else:
        frequency = _both_sides(ratings, frequency_V[None])[0]
        below = np.cumsum(frequency) - frequency / 2
        squares = (below[:, None] - below[None, :]) ** 2
    return np.asarray(1 - squares / (squares.max() or 1.0))
