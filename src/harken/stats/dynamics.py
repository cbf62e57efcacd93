"""How a model moves between good and bad behaviour: is it a chain, how often does it turn bad, does it come back?

    found = dynamics([[0, 0, 1, 1, 0], [0, 0, 0], …])     # one rollout a list, a state a segment or turn: 0 good, 1 bad

Rollouts end where they end (variable length, no empty states after the end). A softmax gives nothing probability 0, so no
state absorbs: "rarely leaves" is said where even the interval's upper end of the escape rate is under 1 % a turn. Top-p and
temperature 0 do cut tokens off: decoding settings belong to the result. All intervals take a rollout as one unit, since its
turns hang together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, rel_entr

from harken.core.errors import UserError
from harken.core.protocols import Estimate
from harken.stats.intervals import mean_interval, wilson

GOOD, BAD = 0, 1
RARELY = 0.01
"""Escapes a turn below which a bad state is rarely left."""
PERSONA = 0.001
"""p-value below which one more turn of memory is taken for a hidden persona."""
SPREAD = 1.3
"""Variance over rollouts, as a multiple of the chain's, above which a time average says little of the ensemble's."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MemoryTest:
    """Order 1 against order 2: the likelihood ratio, its degrees of freedom and p. `two_steps` is the observed chance of bad two
    turns after bad, `two_steps_chain` what the chain of order 1 says."""

    ratio: float
    degrees: int
    p: float
    two_steps: Estimate
    two_steps_chain: float

    @property
    def persona(self) -> bool:
        """Whether something beyond the present turn is remembered, in the direction of staying bad."""
        return self.p < PERSONA and self.two_steps.value > self.two_steps_chain


@dataclass(frozen=True)
class Dynamics:
    """entry = P(bad | good), escape = P(good | bad), a turn. `stay` is the mean number of turns in bad once there, `first` the
    mean number of turns until bad from good, `share` the long run's share of bad turns, `relaxation` the turns after which a
    start is forgotten by a factor e: all of the chain of order 1. `ever` is the share of rollouts with a bad turn."""

    rollouts: int
    turns: int
    entry: Estimate
    escape: Estimate
    second_eigenvalue: Estimate
    relaxation: Estimate
    first: Estimate
    stay: Estimate
    share: Estimate
    ever: Estimate
    memory: MemoryTest
    spread: Estimate
    recovery: list[Estimate]

    @property
    def rarely_leaves(self) -> bool:
        return self.escape.high < RARELY

    @property
    def ergodic(self) -> bool:
        """False where rollouts differ more than one chain's would: each then has a character of its own."""
        return not (self.spread.value > SPREAD and self.spread.low > 1)

    def to_json(self) -> dict[str, Any]:
        plain = {k: v.to_json() for k, v in vars(self).items() if isinstance(v, Estimate)}
        memory = {**asdict(self.memory), "two_steps": self.memory.two_steps.to_json(), "persona": self.memory.persona}
        return {"rollouts": self.rollouts, "turns": self.turns, **plain, "memory": memory, "ergodic": self.ergodic,
                "rarely_leaves": self.rarely_leaves, "recovery": [e.to_json() for e in self.recovery]}


def dynamics(rollouts: Sequence[Sequence[int]], *, level: float = 0.95, draws: int = 400, seed: int = 0,
             horizon: int = 8) -> Dynamics:
    """The chain of good (0) and bad (1) turns, from rollouts of any lengths. Raises `UserError` where they show no step from
    good, or none from bad: then the rates are not known."""
    rows = [np.asarray(r, dtype=np.int64) for r in rollouts if len(r)]
    if any(((r != GOOD) & (r != BAD)).any() for r in rows):
        raise UserError("A state is neither 0 (good) nor 1 (bad).", "Label every turn as one of them.")
    units, steps = _runs(rows, 2)
    counts = np.bincount(units * 4 + steps @ (2, 1), minlength=4 * len(rows)).reshape(-1, 2, 2).astype(float)
    for state, name in ((GOOD, "good"), (BAD, "bad")):
        if not counts[:, state].sum():
            raise UserError(f"No rollout goes on after a {name} turn: what follows one is not known.",
                            "Draw more or longer rollouts, start some from a bad turn, or raise the threshold that is good.")
    entry, escape = (_mean(steps[:, 1] == b, units, steps[:, 0] == a, level) for a, b in ((GOOD, BAD), (BAD, GOOD)))
    rng = np.random.default_rng(seed)
    picks = [rng.integers(len(rows), size=len(rows)) for _ in range(draws)]
    resampled = np.array([_rates(counts[p].sum(0)) for p in picks])
    point = _rates(counts.sum(0))

    def derived(f: Callable[[float, float], float]) -> Estimate:
        values = np.array([f(a, b) for a, b in resampled])
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], method="nearest")  # infinite ends stay so
        return Estimate(f(*point), float(low), float(high), len(rows), level)

    bad = [int(r.any()) for r in rows]
    about = np.array([(r.mean(), r[0], len(r)) for r in rows])
    ratios = np.array([_spread(about[p], *rates) for p, rates in zip(picks, resampled)])
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Dynamics(
        len(rows), sum(map(len, rows)), entry, escape, derived(lambda a, b: 1 - a - b), derived(_relaxation),
        derived(lambda a, b: _inverse(a)), derived(lambda a, b: _inverse(b)), derived(lambda a, b: a / (a + b) if a + b else 0.0),
        wilson(sum(bad), len(bad), level), memory_test(rows, level),
        Estimate(_spread(about, *point), float(low), float(high), len(rows), level), recovery(rows, horizon, level))


def _runs(rows: Sequence[NDArray[np.int64]], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every run of `length` turns within a rollout: the rollout's number [R], the states [R, length]."""
    flat = np.concatenate([*rows, np.zeros(0, np.int64)])
    unit = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    count = max(0, len(flat) - length + 1)
    inside = unit[:count] == unit[length - 1:]
    return unit[:count][inside], np.stack([flat[i:i + count] for i in range(length)], 1)[inside]


def _rates(counts: Floats) -> tuple[float, float]:
    """(entry, escape); a resample without a step from a state gets the rate 0."""
    leaving = counts.sum(1)
    return (float(counts[GOOD, BAD] / leaving[GOOD]) if leaving[GOOD] else 0.0,
            float(counts[BAD, GOOD] / leaving[BAD]) if leaving[BAD] else 0.0)


def _mean(true: NDArray[np.bool_], units: NDArray[np.int64], among: NDArray[np.bool_], level: float) -> Estimate:
    """The share that is true `among` some, a rollout one unit."""
    return mean_interval(true[among].astype(float), units[among].tolist(), level, bounds=(0, 1))


def _inverse(rate: float) -> float:
    return 1 / rate if rate > 0 else math.inf


def _relaxation(entry: float, escape: float) -> float:
    """-1 / ln |λ₂|, λ₂ = 1 - entry - escape."""
    second = abs(1 - entry - escape)
    return 0.0 if second == 0 else math.inf if second >= 1 else -1 / math.log(second)


def memory_test(rows: Sequence[NDArray[np.int64]], level: float = 0.95) -> MemoryTest:
    """Likelihood ratio of a chain of order 2 against order 1 (Anderson and Goodman 1957): 2 Σ n_ijk ln(p_k|ij / p_k|j), χ² with
    one degree of freedom for each present state that both histories lead to. A hidden persona remembers more than a turn."""
    units, steps = _runs(rows, 3)
    n = np.bincount(steps @ (4, 2, 1), minlength=8).reshape(2, 2, 2).astype(float)
    second, first = n / np.maximum(n.sum(2, keepdims=True), 1), n.sum(0) / np.maximum(n.sum((0, 2))[:, None], 1)
    ratio = 2 * float(sum(n[i, j, k] * math.log(second[i, j, k] / first[j, k])
                          for i in (0, 1) for j in (0, 1) for k in (0, 1) if n[i, j, k]))
    both = (n.sum(2) > 0).all(0)
    degrees = int((both & ((first > 0) & (first < 1)).all(1)).sum())
    bad = steps[:, 0] == BAD
    two = _mean(steps[:, 2] == BAD, units, bad, level) if bad.any() else Estimate(math.nan, 0, 1, 0, level)
    chain = float(first[BAD, BAD] ** 2 + first[BAD, GOOD] * first[GOOD, BAD])
    return MemoryTest(ratio, degrees, float(chdtrc(degrees, ratio)) if degrees else 1.0, two, chain)


def _spread(about: Floats, entry: float, escape: float) -> float:
    """Variance over rollouts of the share of bad turns, over what the chain of order 1 says for rollouts of these lengths.
    `about` has a row a rollout: the share, the first state, the length."""
    averages, firsts, turns = about.T
    start = float(firsts.mean())
    lengths, times = np.unique(turns, return_counts=True)
    moments = [_average(int(t), start, entry, escape) for t in lengths]
    centre = float(np.average([m for m, _ in moments], weights=times))
    predicted = float(np.average([v + (m - centre) ** 2 for m, v in moments], weights=times))
    return float(averages.var()) / predicted if predicted > 0 else 1.0


def _average(turns: int, start: float, entry: float, escape: float) -> tuple[float, float]:
    """Mean and variance of the share of bad turns of a chain that starts bad with the chance `start`.

    Cov(x_s, x_t) = Var(x_s) λ^(t-s) for two states.
    """
    second = 1 - entry - escape
    long_run = entry / (entry + escape) if entry + escape else start
    p = long_run + (start - long_run) * second ** np.arange(turns)
    variance = p * (1 - p)
    gaps = np.arange(turns)
    reach = np.concatenate([[0.0], np.cumsum(second ** gaps[1:])])[::-1]  # Σ λ^d over the turns that follow
    return float(p.mean()), float((variance * (1 + 2 * reach)).sum()) / turns**2


def recovery(rows: Sequence[NDArray[np.int64]], horizon: int = 8, level: float = 0.95) -> list[Estimate]:
    """The share still, or again, bad 1, 2, … turns after a rollout's first bad turn; as far as at least 10 rollouts reach."""
    shares: list[Estimate] = []
    after = [r[int(np.argmax(r == BAD)) + 1:] for r in rows if (r == BAD).any()]
    for turn in range(horizon):
        states = [int(r[turn]) for r in after if len(r) > turn]
        if len(states) < 10:
            break
        shares.append(wilson(sum(states), len(states), level))
    return shares


def js_divergence(p: Floats, q: Floats) -> Floats:
    """Jensen–Shannon divergence in nats, 0 to ln 2, over the last axis: between next-token distributions after two prompts it
    tells how far the prompt still matters."""
    middle = (p + q) / 2
    return np.asarray((rel_entr(p, middle) + rel_entr(q, middle)).sum(-1) / 2)


def loop_period(ids: Sequence[int], least: int = 3, longest: int = 64) -> int:
    """The period with which a text's end repeats itself at least `least` times; 0 where it does not."""
    for period in range(1, min(longest, len(ids) // least) + 1):
        tail = ids[-period * least:]
        if all(tail[i] == tail[i % period] for i in range(len(tail))):
            return period
    return 0
