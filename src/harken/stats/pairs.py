"""How well scores agree with people's choices: accuracy over pairs, beside what needs no model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harken.core.protocols import Estimate
from harken.core.records import Choice
from harken.stats.calibration import reward_calibration
from harken.stats.intervals import mean_interval

BASELINES: dict[str, Callable[[str], float]] = {
    "longest": lambda text: float(len(text)),
    "shortest": lambda text: -float(len(text)),
    "constant": lambda text: 0.0,
}


@dataclass(frozen=True)
class PairScores:
    """Accuracy over untied pairs, clustered by prompt; null baselines beside it (E15).

    Equal scores count half in `accuracy` and nothing in `strict` (RewardBench's rule); `equal` counts the pairs that have them.
    """

    accuracy: Estimate
    baselines: Mapping[str, Estimate]
    calibration: list[dict[str, float]] = field(default_factory=list)
    ece: float | None = None
    missing: int = 0
    equal: int = 0
    strict: Estimate | None = None

    def to_json(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy.to_json(), "baselines": {n: b.to_json() for n, b in self.baselines.items()},
                "calibration": self.calibration, "ece": self.ece, "missing": self.missing, "equal": self.equal,
                "strict": None if self.strict is None else self.strict.to_json()}

    def __str__(self) -> str:
        null = ", ".join(f"{name} {b.value:.3f}" for name, b in self.baselines.items())
        return f"accuracy {self.accuracy} (beside {null})"


def evaluate_pairs(choices: Sequence[Choice], scores: Sequence[Sequence[float | None]]) -> PairScores:
    """Scores [choice][option] against ranks. A pair with a missing score (None, or NaN) is counted and left out (E8). Infinite
    scores are compared like others; calibration, which needs their distance, is of the finite ones.

    Raises ValueError when no pair is left.
    """
    right: list[float] = []
    margins: list[float | None] = []
    clusters: list[str] = []
    null: dict[str, list[float]] = {name: [] for name in BASELINES}
    missing = 0
    for choice, row in zip(choices, scores):
        for better, worse in choice.pairs():
            a, b = row[better], row[worse]
            if a is None or b is None or a != a or b != b:
                missing += 1
                continue
            margins.append(a - b if math.isfinite(a - b) else None)
            right.append(_half(a, b))
            clusters.append(choice.prompt.id)
            for name, rule in BASELINES.items():
                null[name].append(_half(rule(choice.options[better]), rule(choice.options[worse])))
    if not right:
        raise ValueError("no untied pair with both scores")
    known = [(m, c) for m, c in zip(margins, clusters) if m is not None]
    table = reward_calibration([m for m, _ in known], [c for _, c in known]) if known else None
    return PairScores(mean_interval(right, clusters, bounds=(0.0, 1.0)),
                      {name: mean_interval(values, clusters, bounds=None if name == "constant" else (0.0, 1.0))
                       for name, values in null.items()},
                      list(table.bins) if table else [], table.ece if table else None, missing, sum(r == 0.5 for r in right),
                      mean_interval([float(r == 1) for r in right], clusters, bounds=(0.0, 1.0)))


def ordered_apart(rows: Sequence[tuple[str, Sequence[float], Sequence[float]]]) -> Estimate | None:
    """The share of pairs of options that two scores order differently (equal in one counts half), clustered by prompt.

    Each row is a prompt id and both scores of its options. None where nothing is to be ordered.
    """
    apart, clusters = [], []
    for prompt, first, second in rows:
        for i in range(len(first)):
            for j in range(i):
                apart.append(abs(_half(first[i], first[j]) - _half(second[i], second[j])))
                clusters.append(prompt)
    return mean_interval(apart, clusters, bounds=(0.0, 1.0)) if apart else None


def _half(a: float, b: float) -> float:
    return 1.0 if a > b else 0.5 if a == b else 0.0
