"""A copy of a model after a little training, for evaluations that ask what training would do. The model itself is not changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harken.core.errors import UserError
from harken.core.protocols import Datum, Tree
from harken.objectives.supervised import nll

SIZE = 8
"""Examples a step."""


def tuned(engine: Any, trees: Sequence[Tree], steps: int, learning_rate: float, seed: int, order: int) -> Any:
    """A learner with all weights trained by so many steps of AdamW at a constant rate, at most `SIZE` trees a step in an order
    drawn with `order`; the mean loss a completion token. Without trees, the engine itself."""
    if not trees:
        return engine
    learner = engine.copy_to_train(seed)
    rng = np.random.default_rng(order)
    for _ in range(steps):
        chosen = [trees[i] for i in rng.permutation(len(trees))[:SIZE]]
        total = sum(len(t.completions[0]) for t in chosen)
        data = [Datum(t, {"weights": [1 / total] * len(t.completions[0])}) for t in chosen]
        learner.forward_backward(data, lambda out, x: nll(out.logps_N, x["weights"]))
        learner.step(learning_rate)
    return learner


def numbers(text: str, option: str) -> list[int]:
    """`8,64,512`, sorted. Raises `UserError`, naming the option, where it is no list of numbers above 0."""
    try:
        found = sorted({int(x) for x in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < 1:
        raise UserError(f"{option} {text!r} is no list of numbers.", "Write it like 8,64,512.")
    return found
