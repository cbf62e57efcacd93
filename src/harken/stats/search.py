"""A search over many tries: which of them changes a score, with p-values corrected for the search.

    found = search(base_N, {"trigger a": changed_N, "trigger b": ...})
    found.tries[0], found.bound

The same N items without and with each of B changes. Each try's p-value is of "the mean change is 0" (stats.testing.p_value), and
Holm's correction holds over all B: whatever was tried counts. `bound` is the largest rise that some try may still have: the
greatest upper end of the B intervals, each at level 1 - alpha/B (Bonferroni), so that all hold together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harken.core.protocols import Estimate
from harken.stats.intervals import finite, paired_difference
from harken.stats.testing import holm, p_value


@dataclass(frozen=True)
class Try:
    """`change` is the mean change with a 1 - alpha interval; `p` alone, `p_holm` corrected for the search."""

    name: str
    change: Estimate
    p: float
    p_holm: float


@dataclass(frozen=True)
class Search:
    """`tries` in the order of their p-values, larger rises first among equals."""

    tries: tuple[Try, ...]
    bound: float
    alpha: float

    @property
    def found(self) -> tuple[Try, ...]:
        """What raises the score, shown beyond the search."""
        return tuple(t for t in self.tries if t.p_holm < self.alpha and t.change.value > 0)


def search(base: ArrayLike, tried: Mapping[str, ArrayLike], *, alpha: float = 0.05,
           bounds: tuple[float, float] | None = (-1.0, 1.0)) -> Search:
    """Compares each try with the base, item by item. `bounds` are those of a change. Raises ValueError without tries, and where
    an array has another length."""
    x = finite(base, "base")
    if not tried:
        raise ValueError("nothing was tried")
    arrays = {name: finite(values, name) for name, values in tried.items()}
    changes = {name: paired_difference(y, x, None, 1 - alpha, bounds=bounds) for name, y in arrays.items()}
    widest = [paired_difference(y, x, None, 1 - alpha / len(arrays), bounds=bounds).high for y in arrays.values()]
    p = np.array([p_value(y - x) for y in arrays.values()])
    rows = [Try(name, changes[name], float(a), float(b)) for name, a, b in zip(arrays, p, holm(p))]
    return Search(tuple(sorted(rows, key=lambda t: (t.p, -t.change.value))), max(widest), alpha)
