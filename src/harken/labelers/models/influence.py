"""What each labeler does to the result: leave one out, give one another weight, and see what changes.

    parts = drop_each(votes)                # without labeler k: agreement of k with the rest, pairs that swap
    tested = held_out(votes)                # log P of votes nobody trained on, under plain, beta and crowd

Reliability reweighs people by itself; `held_out` says whether that predicted unseen votes better, which is the only
sense in which it is right. Folds are of judgments: a ranking's pairs stay together.

Shape suffixes: `N` votes, `A` labelers, `F` folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from harken.core.progress import Shown, silent
from harken.labelers.models.fitting import LEARNT, Model, Priors, ReliabilityFit
from harken.labelers.models.likelihood import Floats, Ints
from harken.labelers.models.reliability import task_of
from harken.labelers.votes import Votes

PREDICTIVE = 64  # draws of the posterior that a prediction averages over


@dataclass(frozen=True)
class Dropped:
    """What is left without each labeler. All [A]; NaN for somebody without votes."""

    agreement: Floats
    """Share of the labeler's untied votes that the others' scores predict; a difference of 0 counts half."""
    untied: Ints
    """How many untied votes that is."""
    swapped: Floats
    """Share of all compared pairs whose order changes when the labeler's votes are left out."""


def drop_each(votes: Votes, model: Model = "beta", prior: Priors = LEARNT, *, position: bool = False,
              length: bool = False, indifference: bool = False, watch: Shown = silent) -> Dropped:
    """Fits once, then again without each labeler's votes (the priors' widths held)."""
    fit = task_of(votes, model, position=position, length=length, indifference=indifference, prior=prior)
    x = fit.solve()
    units = fit.units(x)
    before = np.sign(fit.design @ x[fit.at["score"]])
    pairs = np.unique(np.stack([votes.a, votes.b], axis=1), axis=0, return_index=True)[1]
    agreement, swapped = np.full(fit.a, np.nan), np.full(fit.a, np.nan)
    untied = np.bincount(votes.labeler[votes.won != 0], minlength=fit.a)
    people = np.unique(votes.labeler)
    with watch("leaving each labeler out", len(people)) as advance:
        for k in people:
            rest = fit.again(fit.weight * (votes.labeler != k), x, units)
            gap = fit.design @ rest[fit.at["score"]]
            own = (votes.labeler == k) & (votes.won != 0)
            if own.any():
                agreement[k] = np.where(gap[own] == 0, 0.5, gap[own] * votes.won[own] > 0).mean()
            swapped[k] = (np.sign(gap[pairs]) * before[pairs] < 0).mean()
            advance(1)
    return Dropped(agreement, untied, swapped)


@dataclass(frozen=True)
class Tested:
    """Votes predicted by a fit that had not seen them."""

    log_prob: dict[str, Floats]
    """[N] by model: log-probability of what was said."""
    right: dict[str, Floats]
    """[N] by model: 1 where the preferred option had the higher probability, 0 where not, 1/2 at equality, NaN at ties."""


def folds(votes: Votes, count: int, seed: int = 0) -> Ints:
    """[N] fold of each vote; all votes of a judgment share one."""
    of = np.random.default_rng(seed).integers(count, size=int(votes.judgment.max()) + 1)
    return np.asarray(of[votes.judgment])


def held_out(votes: Votes, models: Sequence[Model] = ("plain", "beta", "crowd"), count: int = 5, seed: int = 0,
             without: Sequence[int] = (), *, position: bool = False, length: bool = False, indifference: bool = False,
             watch: Shown = silent) -> Tested:
    """Cross-validated prediction of every vote. `without` names labelers to leave out of training under one more model,
    "plain without": what dropping them does instead of weighing them."""
    fold = folds(votes, count, seed)
    names: dict[str, Model] = {m: m for m in models} | ({"plain without": "plain"} if len(without) else {})
    log_prob, right = ({n: np.full(len(votes), np.nan) for n in names} for _ in range(2))
    counted = ~np.isin(votes.labeler, np.asarray(without, dtype=np.int64))
    with watch("predicting unseen votes", len(names) * count) as advance:
        for (name, model), f in product(names.items(), range(count)):
            advance(1)
            weight = ((fold != f) & (counted if name == "plain without" else True)).astype(np.float64)
            if not weight.any() or not (fold == f).any():
                continue
            fit = task_of(votes, model, position=position, length=length, indifference=indifference, weight=weight)
            _predict(fit, fit.solve(), fold == f, log_prob[name], right[name])
    return Tested(log_prob, right)


def _predict(fit: ReliabilityFit, x: Floats, rows: NDArray[np.bool_], log_prob: Floats, right: Floats) -> None:
    """The posterior's prediction: probabilities averaged over draws, so that nobody is punished for honest doubt."""
    around, unseen = fit.deviations(x, PREDICTIVE, 0), fit.on(rows)
    eta, won = unseen.odds(x)[0], unseen.votes.won
    logps = np.stack([unseen.vote_terms(unseen.odds(y)[0], y)[0] for y in (np.append(x[:-1] + d, x[-1]) for d in around)])
    log_prob[rows] = np.logaddexp.reduce(logps, axis=0) - np.log(len(logps))
    right[rows] = np.where(won == 0, np.nan, np.where(eta == 0, 0.5, eta * won > 0))


def drop_effect(votes: Votes, count: int = 5, seed: int = 0, *, position: bool = False, length: bool = False,
                indifference: bool = False, watch: Shown = silent) -> Floats:
    """[A] mean gain in log P of the other labelers' held-out votes when labeler k is left out of plain Bradley–Terry's
    training: above 0, the others are predicted better without k. Costs A x F warm fits."""
    fold = folds(votes, count, seed)
    total, seen = np.zeros(len(votes.labelers)), np.zeros(len(votes.labelers))
    people = np.unique(votes.labeler)
    with watch("what each one adds for the others", count * len(people)) as advance:
        for f in range(count):
            weight = (fold != f).astype(np.float64)
            if not weight.any():
                continue
            fit = task_of(votes, "plain", position=position, length=length, indifference=indifference, weight=weight)
            x = fit.solve()
            units = fit.units(x)
            with_all = fit.vote_terms(fit.odds(x)[0], x)[0]
            for k in people:
                rest = fit.again(weight * (votes.labeler != k), x, units)
                others = (fold == f) & (votes.labeler != k)
                total[k] += (fit.vote_terms(fit.odds(rest)[0], rest)[0] - with_all)[others].sum()
                seen[k] += others.sum()
                advance(1)
    return np.asarray(total / np.maximum(seen, 1))
