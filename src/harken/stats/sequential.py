"""A canary's stop rule: tests that hold at every look, however often one looks (e-processes; Ville 1939, Ramdas et al. 2023).

    canary = Canary(error=0.05, margin=0.05, most=500)
    canary.read(outcomes)                  # "stop" | "pass" | "undecided" | "out_of_time", with both e-values

Each outcome D in [-1, 1] compares the new model with the old one: +1 where a person preferred the new one, -1 the old one, and
for thumbs the new answer's verdict (1 up, 0 down) less the mean verdict of the old model's answers since the last one. Its mean
is the new model's advantage at that time; a drift that moves both cancels.

    e_stop(t) = mean over b of  prod_s (1 + b (0 - D_s))             evidence against "the new one is at least as good"
    e_pass(t) = mean over b of  prod_s (1 + b (D_s + margin))        evidence against "it is worse by margin or more"

Each factor has mean at most 1 under its hypothesis, so each is a nonnegative supermartingale, and so is their mean over the bets
b. By Ville's inequality it ever reaches 1 / error with chance at most `error`: a canary that is as good is stopped, and one that
is worse by the margin passes, with at most that chance, at any number of looks. Outcomes must be of different people (the loop
takes each person's first of a kind), and who gets which model must be drawn by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

State = Literal["stop", "pass", "undecided", "out_of_time"]
BETS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
"""Shares of the capital that are bet each time; the mixture is as good as the best of them up to a factor of 7."""


@dataclass(frozen=True)
class Reading:
    """`n` outcomes were read; the e-values are those where the rule decided, or at the end. `mean` is of the outcomes read."""

    state: State
    n: int
    mean: float
    e_stop: float
    e_pass: float

    def to_json(self) -> dict[str, Any]:
        return {"state": self.state, "n": self.n, "mean": self.mean, "e_stop": self.e_stop, "e_pass": self.e_pass}


@dataclass(frozen=True)
class Canary:
    """`error` is the chance of each wrong decision, `margin` the loss that would matter, `most` the outcomes after which a
    canary without a decision ends."""

    error: float = 0.05
    margin: float = 0.05
    most: int = 500

    def __post_init__(self) -> None:
        if not 0 < self.error < 1 or not 0 < self.margin < 1 or self.most < 1:
            raise ValueError("a canary needs an error and a margin between 0 and 1, and at least one outcome")

    def read(self, outcomes: Iterable[float]) -> Reading:
        """The first decision along the outcomes in the order they came. Raises ValueError outside [-1, 1]."""
        bets = np.array(BETS) / (1 + self.margin)  # so that no factor falls to 0 or below
        stop, passed = np.zeros(len(bets)), np.zeros(len(bets))
        total, n, least = 0.0, 0, 1 / self.error
        e_stop = e_pass = 1.0
        for d in outcomes:
            if not -1 <= d <= 1:
                raise ValueError(f"an outcome lies between -1 and 1, found {d}")
            n, total = n + 1, total + d
            stop += np.log1p(-bets * d)
            passed += np.log1p(bets * (d + self.margin))
            e_stop, e_pass = (float(np.exp(np.minimum(x, 700)).mean()) for x in (stop, passed))
            if e_stop >= least or e_pass >= least:
                return Reading("stop" if e_stop >= least else "pass", n, total / n, e_stop, e_pass)
            if n >= self.most:
                return Reading("out_of_time", n, total / n, e_stop, e_pass)
        return Reading("undecided", n, total / n if n else 0.0, e_stop, e_pass)


def against_recent(events: Sequence[tuple[bool, float]]) -> list[float]:
    """Outcomes of thumbs: `events` are (of the new model, verdict in [0, 1]) in the order they came. Each verdict on the new
    model is compared with the mean of those on the old one since the last; where there was none, they wait for it together."""
    outcomes: list[float] = []
    new: list[float] = []
    old: list[float] = []
    for is_new, verdict in events:
        (new if is_new else old).append(verdict)
        if new and old and is_new:
            outcomes.append(sum(new) / len(new) - sum(old) / len(old))
            new, old = [], []
    return outcomes
