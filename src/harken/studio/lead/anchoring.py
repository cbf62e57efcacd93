"""Whether labelers follow a model's suggestions because they saw them: anchoring, as a figure with its interval.

    found = anchoring(first_answers(tx, project))
    found.effect          # Estimate: share that agree having seen the suggestion, less the share that agree without
    found.people          # the same for each labeler

Whether a suggestion is shown before the answer or after it is drawn for each labeler and item
(`work.line.suggested_first`), so the difference is the suggestion's doing, up to chance. Labelers differ in how often they agree
with the model, so the difference is taken within each: the Mantel–Haenszel risk difference over labelers, with the variance of
Greenland and Robins (Biometrics 41, 1985).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from harken.core.protocols import Estimate
from harken.store.schema import judgments
from harken.store.studio_schema import items, retractions
from harken.studio.tasks import TASKS

Z95 = 1.959963984540054
FEWEST = 5
"""Answers of each sort from which on a labeler is named."""


class Given(NamedTuple):
    """One labeler's first answer to an item with a suggestion."""

    labeler: str
    before: bool
    """Whether the suggestion was seen first."""
    agrees: bool


@dataclass(frozen=True)
class Person:
    """One labeler: how often they agree with the suggestion, seen first and not."""

    name: str
    seen: tuple[int, int]
    """Agreeing, of how many that were seen first."""
    unseen: tuple[int, int]
    effect: Estimate


@dataclass(frozen=True)
class Anchoring:
    """The difference over all labelers, and each labeler's. Differences are shares, from -1 to 1."""

    effect: Estimate
    seen: tuple[int, int]
    unseen: tuple[int, int]
    people: Sequence[Person]

    @property
    def found(self) -> Sequence[str]:
        """Those whose interval lies above nought."""
        return [p.name for p in self.people if p.effect.low > 0]


def first_answers(tx: Connection, project: int) -> list[Given]:
    """Each labeler's first answer to each item with a suggestion: also one they took back when they saw it, as that is what they
    thought before; withdrawn ones are left out."""
    withdrawn = select(retractions.c.judgment_seq).where(retractions.c.reason == "withdrawal")
    query = (select(judgments.c.labeler, judgments.c.item_id, judgments.c.payload, items.c.body, items.c.kind)
             .join(items, items.c.id == judgments.c.item_id)
             .where(items.c.project_id == project, judgments.c.role.is_(None), judgments.c.seq.not_in(withdrawn))
             .order_by(judgments.c.seq))
    seen: set[tuple[str, int]] = set()
    given = []
    for row in tx.execute(query):
        when, key = row.payload.get("suggested"), (row.labeler, row.item_id)
        if when is None or key in seen:
            continue
        seen.add(key)
        given.append(Given(row.labeler, when == "before", TASKS[row.kind].same(row.body["suggestion"]["payload"], row.payload)))
    return given


def anchoring(given: Sequence[Given]) -> Anchoring | None:
    """None where no labeler answered both with and without having seen the suggestion."""
    table: dict[str, list[int]] = {}
    for one in given:
        counts = table.setdefault(one.labeler, [0, 0, 0, 0])  # agree, seen; agree, unseen
        counts[0 if one.before else 2] += one.agrees
        counts[1 if one.before else 3] += 1
    both = {name: c for name, c in table.items() if c[1] and c[3]}
    if not both:
        return None
    people = [Person(name, (a, n), (b, m), difference([(a, n, b, m)])) for name, (a, n, b, m) in sorted(both.items())
              if min(n, m) >= FEWEST]
    total: Any = [sum(column) for column in zip(*both.values())]
    return Anchoring(difference([tuple(c) for c in both.values()]), (total[0], total[1]), (total[2], total[3]), people)


def difference(strata: Sequence[tuple[int, ...]]) -> Estimate:
    """The Mantel–Haenszel risk difference of (agreeing, seen, agreeing, unseen) in each stratum, and its 95 % interval.

    d = Σ (a m − b n) / N  over  Σ n m / N, N = n + m. A half is added to each cell for the variance alone, so that a labeler
    who always agrees is not taken for certain.
    """
    weight = sum(n * m / (n + m) for _, n, _, m in strata)
    value = sum((a * m - b * n) / (n + m) for a, n, b, m in strata) / weight
    spread = 0.0
    for a, n, b, m in strata:
        p, q = (a + 0.5) / (n + 1), (b + 0.5) / (m + 1)
        spread += (n * m / (n + m)) ** 2 * (p * (1 - p) / n + q * (1 - q) / m)
    half = Z95 * math.sqrt(spread) / weight
    return Estimate(value, max(-1.0, value - half), min(1.0, value + half), sum(n + m for _, n, _, m in strata))
