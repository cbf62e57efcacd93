"""When and how much: learning rates and data order, as functions of the step (nothing to checkpoint)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from harken.core.errors import UserError
from harken.core.seeds import derive_seed


def learning_rate(step: int, total: int, peak: float, *, schedule: str, warmup: float) -> float:
    """Rate of step 0 … total - 1: linear warm-up over `warmup` of the steps, then the schedule.

    cosine falls to 10 % of the peak (InstructGPT), linear to 0, constant stays.
    """
    if schedule not in ("cosine", "linear", "constant"):
        raise UserError(f"--schedule {schedule!r} is unknown.", "Use cosine, linear or constant.")
    ramp = math.ceil(warmup * total)
    if step < ramp:
        return peak * (step + 1) / ramp
    done = (step - ramp) / max(1, total - ramp)
    if schedule == "linear":
        return peak * (1 - done)
    if schedule == "cosine":
        return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))
    return peak


class Order:
    """Which examples step s sees: every epoch a fresh permutation of the seed, cut into batches.

    The last batch of an epoch is short rather than dropped: every example counts once an epoch. With `parts`, (size,
    weight) of files that follow one another in the `n` examples, every example of a file counts `weight` times an epoch;
    of a fraction, a fresh random part of the file.
    """

    def __init__(self, n: int, batch: int, epochs: float, seed: int, parts: Sequence[tuple[int, float]] = ()) -> None:
        self.parts = list(parts) or [(n, 1.0)]
        assert sum(size for size, _ in self.parts) == n
        drawn = sum(round(size * weight) for size, weight in self.parts)
        if drawn == 0:
            raise UserError("There is nothing left to train on.", "See the counts of dropped and held-out examples above.")
        self.batch, self.seed = min(batch, drawn), seed
        self.per_epoch = math.ceil(drawn / self.batch)
        self.total = max(1, round(epochs * self.per_epoch))

    def __call__(self, step: int) -> list[int]:
        epoch, part = divmod(step, self.per_epoch)
        indices: list[int] = []
        at = 0
        for k, (size, weight) in enumerate(self.parts):
            passes, rest = divmod(round(size * weight), size) if size else (0, 0)
            indices += list(range(at, at + size)) * passes
            indices += random.Random(derive_seed(self.seed, "part", k, epoch)).sample(range(at, at + size), rest)
            at += size
        random.Random(derive_seed(self.seed, "order", epoch)).shuffle(indices)
        return indices[part * self.batch:(part + 1) * self.batch]
