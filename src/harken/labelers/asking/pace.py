"""How long people take: seconds = labeler's pace * (fixed + per_character * characters shown).

    pace = fit_pace(judgments)                   # or DEFAULT, where nobody's time is known
    pace.seconds(1200), pace.of("ana")           # of most people; how many times as long ana takes

Times are skewed (someone goes for coffee), so the lines are fitted to medians: iteratively reweighted least absolute
deviations of the relative error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from harken.core.records import Judgment

Floats = NDArray[np.float64]
FEWEST_TIMED = 20
"""Timed judgments below which the default is better."""


@dataclass(frozen=True)
class Pace:
    """Seconds that most people take, and how others differ."""

    fixed: float = 4.0
    """Seconds for any question, however short."""
    per_character: float = 0.045
    """Silent reading: about 238 words a minute (Brysbaert 2019), 5.6 characters a word with its space."""
    labelers: Mapping[str, float] = field(default_factory=dict)
    """Each one's factor."""

    def seconds(self, characters: Floats | float) -> Floats:
        """Of a question that shows so many characters, prompt and answers."""
        return np.asarray(self.fixed + self.per_character * np.asarray(characters, dtype=np.float64))

    def of(self, labeler: str) -> float:
        return self.labelers.get(labeler, 1.0)


DEFAULT = Pace()


def shown_characters(judgment: Judgment) -> int:
    """Of the prompt's messages and the options."""
    return sum(len(m.content) for m in judgment.prompt.messages) + sum(map(len, judgment.payload.get("completions", ())))


def fit_pace(judgments: Iterable[Judgment]) -> Pace:
    """From judgments that tell their seconds; `DEFAULT` where fewer than 20 do."""
    timed = [j for j in judgments if j.seconds is not None and j.seconds > 0 and "completions" in j.payload]
    if len(timed) < FEWEST_TIMED:
        return DEFAULT
    took = np.array([j.seconds for j in timed], dtype=np.float64)
    names = np.array([j.labeler or "" for j in timed])
    x = np.stack([np.ones(len(timed)), [float(shown_characters(j)) for j in timed]], axis=1)
    factor = dict.fromkeys(sorted(set(names.tolist())), 1.0)
    fit = np.array([DEFAULT.fixed, DEFAULT.per_character])
    for _ in range(12):
        own = np.array([factor[n] for n in names])
        guess = np.maximum(own * (x @ fit), 1e-6)
        weight = 1 / (guess * np.sqrt(np.maximum(np.abs(took / guess - 1), 0.02)))
        fit = np.asarray(nnls(x * (own * weight)[:, None], took * weight)[0])
        line = np.maximum(x @ fit, 1e-6)
        raw = {n: float(np.median((took / line)[names == n])) for n in factor}
        middle = float(np.median(list(raw.values())))
        factor = {n: r / middle for n, r in raw.items()}
        fit = fit * middle
    return Pace(float(fit[0]), float(fit[1]), {n: f for n, f in factor.items() if n})
