"""How far what stands before still matters to the next token: across the end-of-text token, and with growing distance.

    influence(engine, documents, seed=0).invariance

Documents A and B are unrelated, q begins a third. Divergences are Jensen-Shannon in nats, 0 to ln 2, between the distributions of
the next token at each place of q.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from harken.core.errors import UserError
from harken.core.protocols import Estimate, Tree
from harken.core.seeds import derive_seed
from harken.stats.dynamics import js_divergence
from harken.stats.intervals import mean_interval
from harken.text.tags import encode, end_of_text

SHARED = (0, 1, 2, 4, 8, 16, 32)
"""Shared tokens after two prompts at which they are compared."""
OPENING = 4
"""Tokens of q over which the end-of-text test is averaged."""
INVARIANT, TIMES = 0.02, 5
"""A model treats the end of a text as an end where the gap is at most so many nats, and so many times below that without it."""


@dataclass(frozen=True)
class Influence:
    """`across_end` and `without_end`: mean divergence a token of q, with and without the end token before it. `by_distance`:
    divergence after so many shared tokens. `half_life`: shared tokens after which half of the divergence is left; infinite
    where it is not reached."""

    across_end: Estimate
    without_end: Estimate
    by_distance: dict[int, Estimate]

    @property
    def invariance(self) -> bool:
        return self.across_end.value <= INVARIANT and self.across_end.value * TIMES <= self.without_end.value

    @property
    def half_life(self) -> float:
        """By a straight line between the distances measured."""
        points = [(d, e.value) for d, e in self.by_distance.items()]
        half = points[0][1] / 2
        for (a, x), (b, y) in pairwise(points):
            if y <= half < x:
                return a + (b - a) * (x - half) / (x - y)
        return math.inf

    def to_json(self) -> dict[str, Any]:
        life = self.half_life
        return {"end_of_text": {"across_end": self.across_end, "without_end": self.without_end, "invariant": self.invariance},
                "prompt_half_life": life if math.isfinite(life) else None,
                "prompt_influence": {f"after {d}": e for d, e in self.by_distance.items()}}


def influence(engine: Any, documents: Sequence[str], seed: int = 0, most: int = 32, head: int = 32) -> Influence:
    """From at most `most` triples of documents, each read to `head` tokens. Raises `UserError` for fewer than 6 of 8 tokens."""
    ids = [row[:head] for row in encode(engine.template.tokenizer, documents) if len(row) >= 8]
    if len(ids) < 6:
        raise UserError(f"The end-of-text test needs 6 documents of at least 8 tokens; found {len(ids)}.", "Give more documents.")
    rng, end = np.random.default_rng(derive_seed(seed, "influence")), end_of_text(engine.template)
    triples = [rng.choice(len(ids), 3, replace=False) for _ in range(min(most, len(ids)))]
    across: list[float] = []
    without: list[float] = []
    distances: dict[int, list[float]] = {d: [] for d in SHARED}
    for a, b, q in ((ids[i], ids[j], ids[k]) for i, j, k in triples):
        across.append(float(_gap(engine, [end, *a, end], [end, *b, end], q[:OPENING]).mean()))
        gaps = _gap(engine, [end, *a], [end, *b], q)
        without.append(float(gaps[:OPENING + 1].mean()))
        for d in SHARED:
            if d < len(gaps):
                distances[d].append(float(gaps[d]))
    by_distance = {d: mean_interval(found) for d, found in distances.items() if len(found) >= 5}
    return Influence(mean_interval(across), mean_interval(without), by_distance)


def _gap(engine: Any, a: Sequence[int], b: Sequence[int], shared: Sequence[int]) -> Any:
    """Divergence between what follows a and b, before each of the shared tokens and after the last: [T + 1]."""
    backs = range(len(shared), -1, -1)
    p, q = (np.array([logits[0].double().softmax(-1).cpu().numpy() for logits in engine.last_logits(
        Tree(tuple(start[:-1]), ((start[-1], *shared),)), backs)]) for start in (a, b))
    return js_divergence(p, q)
