"""All that is said about a set of judgments' agreement, once: what `harken agreement` and the lead's view show.

    summary = summary_of_comparisons(db.judgments())
    summary.measures["alpha"], summary.matrix, summary.to_json()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harken.core.protocols import Estimate
from harken.core.records import Choice, Judgment
from harken.labelers.agreement.coefficients import DRAWS, Agreement, Measure, Scale, agreement
from harken.labelers.agreement.kendall import kendall_tau, kendall_w
from harken.labelers.agreement.pairwise import Matrix, by_rater, matrix, self_consistency
from harken.labelers.rankings import rankings_of
from harken.labelers.ratings import Ratings, ratings_of_votes
from harken.labelers.votes import UNNAMED, votes_of

MATRIX = 40  # labelers in a matrix: more cannot be read
MEASURES: tuple[Measure, ...] = ("percent", "fleiss", "alpha", "gwet")
PUBLISHED = {
    "source": "Ouyang et al. 2022, arXiv 2203.02155, section 3.4; comparisons of model outputs",
    "training labelers": {"percent": 0.726, "plus_minus": 0.015},
    "held-out labelers": {"percent": 0.773, "plus_minus": 0.013},
    "researchers in Stiennon et al. 2020": {"percent": 0.73, "plus_minus": 0.04},
}


@dataclass(frozen=True)
class Summary:
    """Measures are missing where nothing was there to compute them from, and None where every answer is the same."""

    counts: Mapping[str, float]
    measures: Mapping[str, Agreement | None] = field(default_factory=dict)
    without_ties: Mapping[str, Agreement | None] = field(default_factory=dict)
    rankings: Mapping[str, Agreement] = field(default_factory=dict)
    self_consistency: Mapping[str, Agreement] = field(default_factory=dict)
    by_labeler: Mapping[str, Estimate] = field(default_factory=dict)
    matrix: Matrix | None = None
    """Of the labelers with most shared units, at most 40."""

    def to_json(self) -> dict[str, Any]:
        groups = ("measures", "without_ties", "rankings", "self_consistency")
        tables = {g: {k: v and v.to_json() for k, v in getattr(self, g).items()} for g in groups}
        return {**tables, "counts": dict(self.counts), "by_labeler": {k: e.to_json() for k, e in self.by_labeler.items()},
                "matrix": self.matrix and self.matrix.to_json(), "published": PUBLISHED}


def summary_of_comparisons(judgments: Iterable[Choice | Judgment], *, seed: int = 0, draws: int = DRAWS,
                           level: float = 0.95) -> Summary:
    """Agreement on pairs, with and without ties, on rankings of three and more, and of people with themselves.

    Raises ValueError with the reason when no labeler is named, or nothing was judged twice.
    """
    judged = list(judgments)
    votes = votes_of(judged)
    named = [name for name in votes.labelers if name != UNNAMED]
    if not named:
        raise ValueError("no labeler is named")
    options: dict[str, Any] = {"seed": seed, "draws": draws, "level": level}
    ratings = ratings_of_votes(votes)
    repeated = self_consistency(votes, **options)
    counts = {"labelers": len(named), "votes": len(ratings), "pairs": len(ratings.cluster),
              "prompts": len(np.unique(ratings.cluster)), "ties": float((votes.won == 0).mean()) if len(votes) else 0.0,
              "unnamed votes": len(votes) - len(ratings)}
    shared = _shared(ratings)
    if not shared:
        if not repeated:
            raise ValueError(f"none of {len(ratings.cluster):,} pairs was judged by two people, nor twice by one")
        return Summary(counts, self_consistency=repeated)
    rankings = rankings_of(judged)
    ranked = {"kendall_tau": kendall_tau(rankings, **options), "kendall_w": kendall_w(rankings, **options)}
    decided = ratings_of_votes(votes, ties=False)
    untied = agreement(decided, MEASURES, **options) if counts["ties"] and _shared(decided) else {}
    return Summary({**counts, "shared pairs": shared}, agreement(ratings, MEASURES, **options), untied,
                   {name: value for name, value in ranked.items() if value}, repeated, by_rater(ratings, level=level),
                   matrix(most_shared(ratings)))


def summary_of_ratings(ratings: Ratings, scale: Scale = "nominal", *, seed: int = 0, draws: int = DRAWS,
                       level: float = 0.95) -> Summary:
    """Agreement on values given to units, near values counting in part unless the scale is nominal.

    Raises ValueError with the reason when nothing was rated twice.
    """
    options: dict[str, Any] = {"seed": seed, "draws": draws, "level": level}
    counts: dict[str, float] = {"labelers": len(ratings.raters), "ratings": len(ratings), "units": len(ratings.cluster)}
    again = ratings.repeats()
    repeated = {}
    if len(again):
        same = agreement(again, ("percent",), scale, **options)["percent"]
        repeated = {"repeated": same} if same else {}
    shared = _shared(ratings)
    if not shared:
        if not repeated:
            raise ValueError(f"none of {len(ratings.cluster):,} items was rated by two people, nor twice by one")
        return Summary(counts, self_consistency=repeated)
    two: tuple[Measure, ...] = ("cohen",) if len(ratings.raters) == 2 else ()
    return Summary({**counts, "shared units": shared}, agreement(ratings, (*MEASURES, *two), scale, **options), {}, {}, repeated,
                   by_rater(ratings, scale, level), matrix(most_shared(ratings), scale))


def _shared(ratings: Ratings) -> int:
    """Units with ratings by two people."""
    return int((ratings.latest().counts().sum(1) >= 2).sum())


def most_shared(ratings: Ratings, most: int = MATRIX) -> Ratings:
    """The ratings of the labelers who share most units with others, those first; labelers who share none are left out."""
    last = ratings.latest()
    common = last.counts().sum(1)[last.unit] >= 2
    met = np.bincount(last.rater[common], minlength=len(last.raters))
    raters = np.argsort(-met, kind="stable")[:most]
    raters = raters[met[raters] > 0]
    place = np.full(len(last.raters), -1)
    place[raters] = np.arange(len(raters))
    shared = last.take(place[last.rater] >= 0)
    return Ratings(shared.unit, place[shared.rater], shared.value, shared.levels, shared.names,
                   tuple(last.raters[i] for i in raters), shared.cluster, shared.symmetric, shared.ordered)
