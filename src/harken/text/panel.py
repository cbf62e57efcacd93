"""Who rates answers on attributes: a prompted model, measures, or both; and what their ratings are worth.

    Panel(attributes, judge=SampledRatings(sampler)).rate([(prompt, answer), …])      # [N, A], NaN where none

Shapes: N answers, A attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harken.core.progress import progress, waiting
from harken.core.protocols import Reward, Sampler
from harken.core.records import Prompt, content_hash
from harken.text.attributes import Attribute, entropy_bits, parse_rating, question

Floats = NDArray[np.float64]
BATCH = 16


class Judge(Protocol):
    """Rates: [N][A] questions, those of a row about one answer -> [N][A]. `resolution` is the step its ratings come in."""

    resolution: float

    def rate(self, questions: Sequence[Sequence[Prompt]]) -> list[list[float | None]]: ...


class SampledRatings:
    """The number a sampler writes first, greedily; None where it writes none."""

    resolution = 1.0

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def rate(self, questions: Sequence[Sequence[Prompt]]) -> list[list[float | None]]:
        flat = [q for row in questions for q in row]
        answers = iter(self.sampler.sample(flat, 1, max_tokens=4, temperature=0.0))
        return [[parse_rating(next(answers)[0].text) for _ in row] for row in questions]


@dataclass
class Panel:
    """Attributes and who rates them: `judge` those without a scorer, `scorers` (by attribute name) the others.

    `identity` names the judge with its weights or version; ratings are remembered in `ratings` under it, the question
    and the answer (E1).
    """

    attributes: Sequence[Attribute]
    judge: Judge | None = None
    scorers: Mapping[str, Reward] = field(default_factory=dict)
    identity: Any = None
    ratings: MutableMapping[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for a in self.attributes:
            assert (self.scorers if a.scorer else self.judge), f"nobody rates {a.name}"
            assert not a.scorer or a.name in self.scorers

    def resolution(self, attribute: Attribute, values: Floats) -> float:
        """The step in which ratings differ: the judge's; of a measure, a tenth of its range."""
        if attribute.scorer:
            return max(float(np.ptp(values)) / 10, 1e-12)
        assert self.judge is not None
        return self.judge.resolution

    def rate(self, items: Sequence[tuple[Prompt, str]], wording: int = 0) -> Floats:
        """[N, A], NaN where there is no rating."""
        out = np.full((len(items), len(self.attributes)), np.nan)
        measured = [k for k, a in enumerate(self.attributes) if a.scorer]
        with waiting("measuring", len(measured)) as advance:
            for k in measured:
                rows = self.scorers[self.attributes[k].name].score([p for p, _ in items], [[t] for _, t in items])
                out[:, k] = [np.nan if row[0] is None else row[0] for row in rows]
                advance(1)
        asked = [k for k, a in enumerate(self.attributes) if not a.scorer]
        if asked:
            with progress("rating", len(items)) as advance:
                for at in range(0, len(items), BATCH):
                    part = slice(at, at + BATCH)
                    out[part, asked] = self._ask(items[part], [self.attributes[k] for k in asked], wording)
                    advance(len(items[part]))
        return out

    def _ask(self, items: Sequence[tuple[Prompt, str]], attributes: Sequence[Attribute], wording: int) -> Floats:
        assert self.judge is not None
        questions = [[question(p, t, a, wording) for a in attributes] for p, t in items]
        keys = [[content_hash([self.identity, q.id]) for q in row] for row in questions]
        new = [i for i, row in enumerate(keys) if any(k not in self.ratings for k in row)]
        for i, row in zip(new, self.judge.rate([questions[i] for i in new]) if new else []):
            self.ratings.update(zip(keys[i], row))
        ratings = [[self.ratings[k] for k in row] for row in keys]
        return np.array([[np.nan if r is None else r for r in row] for row in ratings])


@dataclass(frozen=True)
class Quality:
    """What an attribute's ratings are worth: `retest` correlates them with those under another wording."""

    entropy: float
    failures: float
    retest: float | None
    weak: str = ""


def qualities(panel: Panel, items: Sequence[tuple[Prompt, str]], ratings_N_A: Floats, *, retest: int = 40,
              least_entropy: float = 0.3, most_failures: float = 0.1, seed: int = 0) -> list[Quality]:
    """One an attribute. Measures count in tenths of their range; they have no second wording."""
    again: dict[str, tuple[NDArray[np.intp], Floats]] = {}
    if retest and panel.judge is not None:
        chosen = np.random.default_rng(seed).permutation(len(items))[:retest]
        asked = Panel([a for a in panel.attributes if not a.scorer], panel.judge, {}, panel.identity, panel.ratings)
        second = asked.rate([items[i] for i in chosen], wording=1)
        again = {a.name: (chosen, second[:, k]) for k, a in enumerate(asked.attributes)}
    rows = []
    for k, a in enumerate(panel.attributes):
        column = ratings_N_A[:, k]
        seen = column[~np.isnan(column)]
        failures = 1 - len(seen) / len(column)
        entropy = entropy_bits(seen, panel.resolution(a, seen)) if len(seen) else 0.0
        repeated = again.get(a.name)
        correlation = _correlation(column[repeated[0]], repeated[1]) if repeated else None
        weak = f"entropy {entropy:.2f} bit" if entropy < least_entropy else ""
        weak = f"no rating for {failures:.0%}" if failures > most_failures else weak
        rows.append(Quality(entropy, failures, correlation, weak))
    return rows


def _correlation(a: Floats, b: Floats) -> float | None:
    """Pearson's over what both have; None where either does not vary."""
    both = ~np.isnan(a) & ~np.isnan(b)
    if both.sum() < 3 or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        return None
    return float(np.corrcoef(a[both], b[both])[0, 1])
