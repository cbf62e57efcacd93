"""How often one model's answers are preferred to another's, prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harken.core.protocols import Estimate
from harken.stats.intervals import mean_interval

Scores = Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class WinRate:
    """`value.n` counts prompts with at least one scored pair; `tie_rate` is the share of pairs that tie.

    `missing` counts scores that were None, `unscored_prompts` the prompts left with no pair.
    `worst` and `best` are the rate if every pair with a missing score were lost or won (E8).
    """

    value: Estimate
    tie_rate: float
    missing: int
    unscored_prompts: int
    worst: float
    best: float


def _row(scores: Sequence[float | None], side: str, prompt: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    bad = [g for g, s in enumerate(scores) if s is not None and s != s]
    if bad:
        raise ValueError(f"{side} scores of prompt {prompt} are NaN at completion {', '.join(map(str, bad))}; "
                         "a missing score is None")
    return np.array([s for s in scores if s is not None], dtype=np.float64)


def win_rate(a: Scores, b: Scores, level: float = 0.95) -> WinRate:
    """P(a scores above b) + P(equal)/2: `a` [P][G] and `b` [P][G'] are scores, rows may be ragged.

    Each prompt gives the mean over all G x G' pairs of 1[a > b] + 1[a = b]/2; the rate is the mean over
    prompts and its interval is over prompts, so that repeating completions does not shrink it (E14).
    None is a missing score: counted, not scored (E8). Raises ValueError on NaN (naming the prompt and
    completion), when `a` and `b` differ in prompts, or when no prompt has a scored pair.
    """
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} prompts and b has {len(b)}: a win rate needs the same prompts")
    rates, ties, worst, best, missing = [], [], [], [], 0
    for prompt, (left, right) in enumerate(zip(a, b, strict=True)):
        x, y = _row(left, "a", prompt), _row(right, "b", prompt)
        missing += len(left) - len(x) + len(right) - len(y)
        pairs, asked = len(x) * len(y), len(left) * len(right)
        above, equal = float((x[:, None] > y).sum()), float((x[:, None] == y).sum())
        won = above + equal / 2
        if pairs:
            rates.append(won / pairs)
            ties.append(equal / pairs)
        if asked:
            worst.append(won / asked)
            best.append((won + asked - pairs) / asked)
    if not rates:
        raise ValueError(f"none of {len(a)} prompts has a scored completion on both sides")
    return WinRate(mean_interval(rates, level=level, bounds=(0.0, 1.0)), float(np.mean(ties)), missing,
                   len(a) - len(rates), float(np.mean(worst)), float(np.mean(best)))
