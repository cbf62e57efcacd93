"""When a run is no longer healthy: drift of what is logged, audits by a second reward, and rules that end a run.

    watch = Drift()
    for row in rows:                        # of metrics.jsonl
        for alarm in watch.see(row): ...    # each monitor speaks once

Drift compares the mean of the last `WINDOW` steps with the mean of the first, and speaks where the limit is passed by more
than chance moves such means. An audit scores the same held-out prompts with the reward that is climbed (the proxy) and with one
that is not. The stop rule `hacking` (after Gao et al. 2210.10760): the held-out reward's slope lies below 0 with its whole
interval while the proxy's is above 0, in two successive audits. It says what happened; it foresees nothing, and a held-out
reward that shares the proxy's error sees nothing (E22).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from harken.core.errors import UserError
from harken.core.protocols import Estimate
from harken.stats.intervals import mean_interval, paired_difference

WINDOW = 10
"""Steps whose mean is taken, the first and the last."""
NOISE = 3.0
"""Standard errors that a drift must exceed, beside its limit."""
SLOPE = 4
"""Audits over which a slope is taken."""

Kind = Literal["grows", "shrinks", "rises", "falls", "above", "below", "beyond"]


@dataclass(frozen=True)
class Monitor:
    """`grows` and `shrinks` limit last / first, `rises` and `falls` the difference, `above` and `below` the last mean itself,
    `beyond` its absolute value. The first step judged is 2 · WINDOW."""

    metric: str
    kind: Kind
    limit: float
    words: str


MONITORS = (
    Monitor("length", "grows", 2.0, "completions grew {ratio:.1f}x, from {first:.0f} to {last:.0f} tokens"),
    Monitor("length", "shrinks", 0.5, "completions shrank to {ratio:.2f} of their length, from {first:.0f} to {last:.0f} tokens"),
    Monitor("repetition", "rises", 0.1, "repeated 3-grams rose from {first:.2f} to {last:.2f} of a completion"),
    Monitor("entropy", "shrinks", 0.3, "entropy fell from {first:.2f} to {last:.2f} nats a token: few answers are left to try"),
    Monitor("eos_rate", "falls", 0.25, "completions that end by themselves fell from {first:.0%} to {last:.0%}"),
    Monitor("clip_fraction", "above", 0.3, "{last:.0%} of tokens are clipped: steps are too large for the clip range"),
    Monitor("ratio_outside", "above", 0.05, "{last:.0%} of tokens have a sampler–trainer ratio outside [0.9, 1.1]"),
    Monitor("explained_variance", "below", 0.0, "the critic explains less than a constant would ({last:.2f})"),
    Monitor("flat_share", "above", 0.5, "{last:.0%} of groups have equal rewards and teach nothing"),
    Monitor("reward_length_r", "beyond", 0.6, "reward goes with length (r = {last:.2f}), up or down"),
    Monitor("disagreement", "grows", 2.0, "the ensemble's members disagree {ratio:.1f}x as much as at the start"),
)
"""What is watched, and from where on the run says so. docs/monitors.md says what each means; a test compares the two."""


@dataclass(frozen=True)
class Alarm:
    """A monitor that passed its limit at `step`: the means it compared."""

    monitor: Monitor
    step: int
    first: float
    last: float

    def __str__(self) -> str:
        ratio = self.last / self.first if self.first else math.inf
        return f"Step {self.step}: {self.monitor.words.format(first=self.first, last=self.last, ratio=ratio)}."


@dataclass
class Drift:
    """All of `MONITORS` over the rows of one run, in order; `first` and `last` hold what they compare."""

    first: dict[str, list[float]] = field(default_factory=dict)
    last: dict[str, deque[float]] = field(default_factory=dict)
    alarms: list[Alarm] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)

    def see(self, row: Mapping[str, Any]) -> list[Alarm]:
        """The alarms that this row raises; each monitor raises one at most."""
        for name in {m.metric for m in MONITORS} & row.keys():
            value = row[name]
            if not isinstance(value, int | float) or not math.isfinite(value):
                continue
            if self.steps.get(name, 0) < WINDOW:
                self.first.setdefault(name, []).append(value)
            self.last.setdefault(name, deque(maxlen=WINDOW)).append(value)
            self.steps[name] = self.steps.get(name, 0) + 1
        done = {a.monitor for a in self.alarms}
        alarms = [Alarm(m, int(row.get("step", 0)), *self.compared(m.metric)) for m in MONITORS
                 if m.metric in row and m not in done and self._passed(m)]
        self.alarms += alarms
        return alarms

    def compared(self, metric: str) -> tuple[float, float]:
        """Means over the first and the last `WINDOW` steps."""
        return float(np.mean(self.first[metric])), float(np.mean(self.last[metric]))

    def _passed(self, m: Monitor) -> bool:
        if self.steps.get(m.metric, 0) < 2 * WINDOW:
            return False
        first, last = self.compared(m.metric)
        spread = math.sqrt((np.var(self.first[m.metric], ddof=1) + np.var(self.last[m.metric], ddof=1)) / WINDOW)
        clear = abs(last - first) > NOISE * spread
        return {"grows": clear and first > 0 and last >= m.limit * first, "shrinks": clear and last <= m.limit * first,
                "rises": clear and last - first >= m.limit, "falls": clear and first - last >= m.limit,
                "above": last > m.limit, "below": last < m.limit, "beyond": abs(last) > m.limit}[m.kind]


@dataclass(frozen=True)
class Audit:
    """Completions of the same held-out prompts at one step: [P] scores of the proxy and of the held-out reward (None where one
    has none), their mean KL to the reference and length, and the texts."""

    step: int
    proxy: tuple[float | None, ...]
    held_out: tuple[float | None, ...]
    kl: float
    length: float
    texts: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Audit:
        return cls(row["step"], tuple(row["proxy"]), tuple(row["held_out"]), row["kl"], row["length"],
                   tuple(row["texts"]))

    def mean(self, which: str) -> float:
        """NaN where no prompt has a score."""
        scores = [s for s in getattr(self, which) if s is not None]
        return float(np.mean(scores)) if scores else math.nan


def slope(audits: Sequence[Audit], which: str, level: float = 0.95) -> Estimate:
    """Change of a score per 100 steps: each prompt's least-squares slope over the audits, then their mean with a t-interval.

    Prompts are the independent units, and each is compared with itself (E12). Those without a score in an audit are left out.
    """
    x = np.array([a.step for a in audits], dtype=np.float64)
    complete = [row for row in zip(*(getattr(a, which) for a in audits)) if None not in row]
    if len(complete) < 2 or len(x) < 2:
        return Estimate(math.nan, -math.inf, math.inf, len(complete), level)
    centred = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    return mean_interval(100 * np.array(complete, dtype=np.float64) @ centred, level=level)


def change(before: Audit, after: Audit, which: str) -> Estimate:
    """Mean difference of a score over the prompts that both audits scored."""
    pairs = [(b, a) for b, a in zip(getattr(before, which), getattr(after, which)) if b is not None and a is not None]
    if not pairs:
        return Estimate(math.nan, -math.inf, math.inf, 0)
    return paired_difference([a for _, a in pairs], [b for b, _ in pairs])


def turned(audits: Sequence[Audit]) -> bool:
    """Over the last `SLOPE` audits: the held-out reward falls with its whole interval, and the proxy rises."""
    if len(audits) < SLOPE:
        return False
    window = audits[-SLOPE:]
    return slope(window, "held_out").high < 0 < slope(window, "proxy").value


def hacking(audits: Sequence[Audit]) -> bool:
    """`turned` in the last two audits."""
    return turned(audits) and turned(audits[:-1])


def smoothed(audits: Sequence[Audit], index: int) -> float:
    """The held-out reward of an audit as the mean with its neighbours: the best of many noisy values is too good to be true."""
    return float(np.mean([a.mean("held_out") for a in audits[max(0, index - 1):index + 2]]))


RULED = ("kl", "length", "repetition", "eos_rate", "entropy", "disagreement", "mismatch")
"""What a rule may bound: all are measured on the step's completions, that is, on the weights before its update."""


@dataclass(frozen=True)
class Rule:
    """A bound: the run ends at the first step whose `metric` is beyond `limit`."""

    metric: str
    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.metric}{self.sign}{self.limit:g}"

    def broken(self, value: float) -> bool:
        return value > self.limit if self.sign == ">" else value < self.limit


def parse_rules(words: str) -> tuple[bool, tuple[Rule, ...]]:
    """Whether `hacking` is among them, and the bounds. Raises `UserError` for a rule that is none."""
    bounds, hacked = [], False
    for word in filter(None, (w.strip() for w in words.split(","))):
        found = re.fullmatch(r"(\w+)\s*([<>])\s*([-+.\deE]+)", word)
        try:
            limit = float(found[3]) if found else math.nan
        except ValueError:
            limit = math.nan
        if word == "hacking":
            hacked = True
        elif found and found[1] in RULED and math.isfinite(limit):
            bounds.append(Rule(found[1], found[2], limit))
        else:
            raise UserError(f"--stop-when {word!r} is no rule.",
                            f"Use hacking, or {', '.join(RULED)} with > or < and a number, like kl>10; commas between rules.")
    return hacked, tuple(bounds)
