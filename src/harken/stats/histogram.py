"""Scores as a histogram in text, and thresholds that a share of them reach."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BARS = " ▏▎▍▌▋▊▉█"
WIDTH = 40


def reached_by(scores: NDArray[np.float64], share: float) -> float:
    """The greatest threshold that at least `share` of `scores` reach: good is at or above it."""
    return float(np.quantile(scores, 1 - share, method="lower")) + 0.0  # no minus zero


def share_reaching(scores: NDArray[np.float64], threshold: float) -> float:
    return float((scores >= threshold).mean())


def histogram(scores: NDArray[np.float64], bins: int = 10) -> list[tuple[float, float, int]]:
    """(low, high, count) of equal bins from least to greatest; the last holds its end. One bin where all are equal."""
    if scores.min() == scores.max():
        return [(float(scores.min()), float(scores.max()), len(scores))]
    counts, edges = np.histogram(scores, bins)
    return [(float(a), float(b), int(n)) for a, b, n in zip(edges, edges[1:], counts)]


def draw(rows: Sequence[tuple[float, float, int]]) -> str:
    """A line a bin: its range, a bar whose length is the count's share of the largest, the count."""
    most = max(n for *_, n in rows)
    lines = []
    for low, high, n in rows:
        eighths = round(8 * WIDTH * n / most)
        bar = BARS[8] * (eighths // 8) + BARS[eighths % 8].strip()
        lines.append(f"{low:>11.4g} … {high:<11.4g} {bar:<{WIDTH}} {n:,}")
    return "\n".join(lines)
