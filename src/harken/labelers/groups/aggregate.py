"""One score from many people's: whose judgments count, and how.

    parse_aggregate("quantile:0.2")(scores, names, weights)      # [K, I] -> [I]

    mean             everybody by their share
    group:NAME       that group alone
    worst            the lowest group's score: nobody is left behind (max-min, Chakraborty et al. 2402.08925)
    quantile:0.2     the score that all but a fifth of the people stay above (1.0: the best, 0.0: the worst)

and, with seats in place of shares, a jury (Gordon et al. 2022, 2202.02950): `parse_jury("age=30-39:4,age=60+:2")` seats four
people in their thirties and two from sixty on, whoever labeled how much; labelers may be named as well (`ana:2,bo`). A seat
of a group is shared by its members.

Scores of different groups compare only on one scale: bring each to the same zero first (`centred`, or a mean of 0 on
the demonstrations), or `worst` names the group whose zero lies lowest.

Shape suffixes: `K` groups or labelers, `I` items, `A` labelers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harken.core.errors import UserError

Floats = NDArray[np.float64]
WAYS = "mean, group:NAME, worst or quantile:Q (Q from 0 to 1)"
MOST_SEATS = 1e9
JURY = 'A jury is a list of seats like "age=30-39:4,age=60+:2" or "ana:2,bo".'


@dataclass(frozen=True)
class Aggregate:
    """A way of making one score of several. Called as `aggregate(scores, names, weights)`."""

    kind: str
    """mean, group, worst or quantile."""
    group: str = ""
    quantile: float = 0.0

    def __call__(self, scores: ArrayLike, names: Sequence[str], weights: ArrayLike | None = None) -> Floats:
        """`scores` [K, …], `names` [K], `weights` [K] shares or seats (equal where not given) -> […].

        Who has no weight does not count, in `worst` either. Raises UserError where the group is not among `names`,
        ValueError on scores that are not finite or weights that are negative or all 0.
        """
        table = np.asarray(scores, dtype=np.float64)
        share = np.ones(len(table)) if weights is None else np.asarray(weights, dtype=np.float64)
        if len(table) != len(names) or share.shape != (len(table),):
            raise ValueError(f"{len(table)} rows of scores, {len(names)} names, {share.shape} weights")
        if not np.isfinite(table).all() or not np.isfinite(share).all() or (share < 0).any() or share.sum() <= 0:
            raise ValueError("scores must be finite, weights 0 or more and not all 0")
        if self.kind == "group":
            return np.asarray(table[place_of(self.group, names)])
        table, share = table[share > 0], share[share > 0]
        if self.kind == "mean":
            return np.asarray(np.tensordot(share / share.sum(), table, 1))
        if self.kind == "worst":
            return np.asarray(table.min(0))
        order = np.argsort(table, axis=0, kind="stable")
        reached = np.cumsum(share[order] / share.sum(), axis=0)
        first = (reached >= self.quantile - 1e-12).argmax(0)  # the weighted inverse of the distribution function
        return np.asarray(np.take_along_axis(np.take_along_axis(table, order, 0), first[None], 0)[0])

    def __str__(self) -> str:
        return {"group": f"group:{self.group}", "quantile": f"quantile:{self.quantile:g}"}.get(self.kind, self.kind)


def place_of(name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise UserError(f"There is no group {name!r}.", f"Groups: {', '.join(names)}.")
    return list(names).index(name)


def parse_aggregate(text: str) -> Aggregate:
    """Raises UserError on anything but `mean`, `group:NAME`, `worst`, `quantile:Q`."""
    kind, _, rest = text.partition(":")
    if kind in ("mean", "worst") and not rest and ":" not in text:
        return Aggregate(kind)
    if kind == "group" and rest:
        return Aggregate(kind, group=rest)
    if kind == "quantile":
        try:
            share = float(rest)
        except ValueError:
            share = math.nan
        if 0 <= share <= 1:
            return Aggregate(kind, quantile=share)
        raise UserError(f"--aggregate {text!r}: {rest!r} is not a share from 0 to 1.",
                        "quantile:0.2 is what all but a fifth exceed.")
    raise UserError(f"--aggregate {text!r} is unknown.", f"Use {WAYS}.")


@dataclass(frozen=True)
class Seat:
    """`seats` for one kind of person: a group tag's value, or a labeler's name where `tag` is empty."""

    tag: str
    value: str
    seats: float

    def __str__(self) -> str:
        return f"{self.tag}={self.value}" if self.tag else self.value


def parse_jury(text: str) -> tuple[Seat, ...]:
    """`TAG=VALUE:SEATS` or `NAME:SEATS`, separated by commas; one seat where none is said. Raises UserError."""
    seats: list[Seat] = []
    for part in (p.strip() for p in text.split(",")):
        who, colon, count = part.rpartition(":")
        if not colon:
            who, count = part, "1"
        try:
            number = float(count)
        except ValueError:
            number = math.nan
        if not 0 < number <= MOST_SEATS:
            raise UserError(f"--jury: {part!r} does not say how many seats.", JURY)
        tag, equals, value = who.partition("=")
        seat = Seat(tag.strip(), value.strip(), number) if equals else Seat("", who.strip(), number)
        if not seat.value or (equals and not seat.tag):
            raise UserError(f"--jury: {part!r} names nobody.", JURY)
        if any((s.tag, s.value) == (seat.tag, seat.value) for s in seats):
            raise UserError(f"--jury seats {seat} twice.", "Give the seats once, as a sum.")
        seats.append(seat)
    return tuple(seats)


def jury_weights(seats: Sequence[Seat], labelers: Sequence[str], groups: Sequence[Mapping[str, str]]) -> Floats:
    """[A] seats of each labeler; those of a group are shared by its members. Raises UserError where a seat stays empty."""
    weights = np.zeros(len(labelers))
    for seat in seats:
        holds = np.array([(tags.get(seat.tag) == seat.value) if seat.tag else name == seat.value
                          for name, tags in zip(labelers, groups)])
        if not holds.any():
            choices = (sorted({tags[seat.tag] for tags in groups if seat.tag in tags}) if seat.tag else list(labelers))
            raise UserError(f"--jury: nobody is {seat}.", f"There is {', '.join(choices[:12]) or 'nobody with such a tag'}"
                            f"{' …' if len(choices) > 12 else ''}.")
        weights[holds] += seat.seats / holds.sum()
    return weights


def jury_group_weights(seats: Sequence[Seat], by: str, names: Sequence[str]) -> Floats:
    """[K] seats of each group, where scores are per group of the tag `by`. Raises UserError on seats it cannot fill."""
    weights = np.zeros(len(names))
    for seat in seats:
        if seat.tag not in ("", by):
            raise UserError(f"--jury seats {seat}, but these scores are by {by}.", f"Groups: {', '.join(names)}.")
        weights[place_of(seat.value, names)] += seat.seats
    return weights


def robust_weights(loss: Callable[[Floats], Sequence[float]], groups: int, *, eta: float = 0.5, steps: int = 100) -> Floats:
    """Group weights under which the worst-off group's loss is least: group-robust training (2405.20304, algorithm 1).

    `loss(weights)` trains under the weights [K] and returns each group's loss [K]. a_g ← a_g exp(η loss_g) / Z; returned is
    the mean of the weights over the steps, which is what converges (exponentiated gradient on a saddle point).
    """
    log_a = np.zeros(groups)
    total = np.zeros(groups)
    for step in range(steps):
        a = np.exp(log_a - log_a.max())
        a /= a.sum()
        if step >= steps // 4:
            total += a
        log_a = log_a + eta * robust_step(loss(a))
    return np.asarray(total / total.sum())


def robust_step(losses: ArrayLike) -> Floats:
    """What the log weights rise by, up to η: the losses less their mean (the mean cancels in Z)."""
    values = np.asarray(losses, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a group's loss is not finite")
    return np.asarray(values - values.mean())
