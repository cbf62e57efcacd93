"""A table of the people behind a set of comparisons: what each did, how far each can be trusted, and in what sense not.

    for person in describe(votes, fit, drop_each(votes)):
        print(person.name, person.beta, person.verdict)

A verdict is a reading of intervals, never of a point: who has few votes gets "little data".

    reversed      P(beta < 0) at least 0.95: answers upside down, by mistake or on purpose
    careless      beta's 90 % interval ends below 0.5: near a coin
    reliable      the interval begins above 0.5
    uncertain     neither
    little data   fewer than 20 votes, or an interval wider than 2

A pull towards what was shown first, or towards length, is added where its 90 % interval leaves out 0 and it exceeds
0.3 (a coin becomes 57 to 43).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harken.core.records import Choice, Judgment
from harken.labelers.models.influence import Dropped
from harken.labelers.models.reliability import Reliability
from harken.labelers.votes import UNNAMED, Votes

FEWEST_VOTES, WIDEST_INTERVAL, LEAST_PULL, Z_90 = 20, 2.0, 0.3, 1.645
BUSIEST, LARGEST_SHARE = 0.2, 0.6  # F17: warn where a fifth of the people gives more than 60 % of the votes


@dataclass(frozen=True)
class Person:
    """One row. Intervals are of 90 %; None where nothing is known."""

    name: str
    votes: int
    ties: float
    agreement: float | None
    """With the order that all others give, on untied pairs."""
    beta: float
    beta_low: float
    beta_high: float
    p_careless: float
    p_reversed: float
    position: float | None
    position_sd: float | None
    length: float | None
    length_sd: float | None
    swapped: float | None
    """Share of compared pairs whose order changes without this person."""
    seconds: float | None
    """Median a judgment."""
    verdict: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def describe(votes: Votes, fit: Reliability, dropped: Dropped, seconds: Mapping[str, float] | None = None) -> list[Person]:
    """A row for everybody who voted, the least reliable first."""
    rows = []
    knows_position, knows_length = bool(votes.first.any()) and bool(fit.position.any()), bool(fit.length.any())
    for k in np.unique(votes.labeler).tolist():
        own = votes.labeler == k
        name = votes.labelers[k]
        position = (float(fit.position[k]), float(fit.position_sd[k])) if knows_position else (None, None)
        length = (float(fit.length[k]), float(fit.length_sd[k])) if knows_length else (None, None)
        beta, low, high = (float(x[k]) for x in (fit.beta, fit.beta_low, fit.beta_high))
        verdict = _verdict(int(own.sum()), low, high, float(fit.reversed[k]))
        verdict += _pull(position, "first", "last") + _pull(length, "long", "short")
        agreement = None if np.isnan(dropped.agreement[k]) else float(dropped.agreement[k])
        rows.append(Person(name, int(own.sum()), float((votes.won[own] == 0).mean()), agreement, beta, low, high,
                           float(fit.careless[k]), float(fit.reversed[k]), position[0], position[1], length[0], length[1],
                           float(dropped.swapped[k]), (seconds or {}).get(name), verdict))
    return sorted(rows, key=lambda p: p.beta)


def _verdict(votes: int, low: float, high: float, backwards: float) -> str:
    if votes < FEWEST_VOTES or high - low > WIDEST_INTERVAL:
        return "little data"
    if backwards >= 0.95:
        return "reversed"
    if high < 0.5:
        return "careless"
    return "reliable" if low > 0.5 else "uncertain"


def _pull(bias: tuple[float | None, float | None], up: str, down: str) -> str:
    value, sd = bias
    if value is None or sd is None or abs(value) < LEAST_PULL or abs(value) < Z_90 * sd:
        return ""
    return f", favours {up if value > 0 else down}"


def median_seconds(judgments: Iterable[Choice | Judgment]) -> dict[str, float]:
    """Median seconds a judgment by labeler, where the time was kept."""
    times: dict[str, list[float]] = {}
    for judgment in judgments:
        if isinstance(judgment, Judgment) and judgment.seconds is not None:
            times.setdefault(judgment.labeler or UNNAMED, []).append(judgment.seconds)
    return {name: float(np.median(x)) for name, x in times.items()}


def warnings(votes: Votes) -> list[str]:
    """What the table cannot be trusted for (F17, overlap, names)."""
    notes = []
    count = np.sort(np.bincount(votes.labeler, minlength=len(votes.labelers)))[::-1]
    count = count[count > 0]
    if len(count) == 1:
        return ["One labeler only: nobody to compare with, so beta is 1 by definition."]
    top = max(1, round(BUSIEST * len(count)))
    if (share := float(count[:top].sum() / count.sum())) > LARGEST_SHARE:
        notes.append(f"The busiest {top} of {len(count)} labelers gave {share:.0%} of the votes: what is learnt is theirs.")
    pair = np.sort(np.stack([votes.a, votes.b], axis=1), axis=1)
    _, index = np.unique(pair, axis=0, return_inverse=True)
    people = np.unique(np.stack([index.ravel(), votes.labeler], axis=1), axis=0)[:, 0]
    shared = float((np.bincount(people)[index.ravel()] > 1).mean())
    if shared < 0.1:
        notes.append(f"Only {shared:.0%} of the votes are on a pair that somebody else judged too: betas lean on their prior. "
                     "Give some prompts to two or more people.")
    if UNNAMED in votes.labelers:
        notes.append("Some judgments have no labeler; they count as one person.")
    return notes
