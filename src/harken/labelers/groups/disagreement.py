"""Is disagreement noise, or a difference of values? And where.

    result = fit_disagreement(votes, group_by="age")     # or None: look for groups in the votes
    result.share, result.p_value, result.gain     # how much, by chance?, does it predict new votes?
    result.items                                # where groups truly differ

Disagreement of two people about one pair is 1 − Σ_o P(o)² over the outcomes o (a, tie, b). With p_g a group's outcome
probabilities, averaged over everybody's rationality, and p̄ their mean over people,

    1 − |p̄|²  =  mean_g (1 − |p_g|²)  +  mean_g |p_g − p̄|²
    all           noise: within groups    values: between groups

Three answers, which need not agree: the share (a posterior with its interval), a permutation test (labelers exchange their
groups; rationality, position and ties are taken out first, so that a merely careless group is no finding), and what groups add
to the prediction of held-out votes. Groups that were found in the votes fit them by construction: only the last counts there.

Shape suffixes as in `groups.py`; `P` permutations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harken.core.errors import UserError
from harken.core.progress import Shown, silent
from harken.core.protocols import Estimate
from harken.labelers.groups.chain import credible
from harken.labelers.groups.heldout import folds_of, gain
from harken.labelers.groups.mixture import Mixture, fit_mixture, residuals, vote_logps_of
from harken.labelers.groups.regression import Floats, Ints, outcome_logps
from harken.labelers.groups.scores import EVERYBODY, Groups, Posterior, features, fit_membership, group_index, one_hot, posterior
from harken.labelers.votes import Votes

LEVEL = 0.9
MOST_PAIRS = 4000
GRID_POINTS = 400
"""Log-odds at which everybody's outcomes are averaged; between them on straight lines, wrong by less than 1e-4."""
FALSE_SIGN = 0.05
"""Items are reported while the expected share of wrong signs among them stays below this (Stephens 2017)."""
LEAST_INFORMATION = 2.0
"""Nothing is said about an item that fewer of a group's votes touch."""


@dataclass(frozen=True)
class ItemGap:
    """Group `high` puts an item `gap` log-odds above where group `low` puts it, relative to the prompt's other items."""

    item: int
    high: str
    low: str
    gap: Estimate
    wrong_sign: float
    """Posterior probability that the difference has the other sign."""


@dataclass(frozen=True)
class Disagreement:
    """How people disagree. `model` has one group where one suffices."""

    model: Groups
    share: Estimate | None
    """Of expected disagreement, the part between groups: values. The rest is noise. None with one group."""
    expected: float
    """How often two people differ on one pair, by the model."""
    observed: Mapping[str, tuple[float, int]]
    """Differing share, and how many couples of votes on one pair it counts: all, within a group, between groups."""
    p_value: float | None
    """Of the permutation test; None where groups were found in the votes themselves."""
    permutations: int
    gain: Estimate | None
    """Nats a held-out vote that groups add to individual rationality alone, clustered by labeler."""
    items: tuple[ItemGap, ...]
    tested: int
    """Items with enough votes in two groups to be looked at."""
    discovery: Mixture | None
    inverted: tuple[str, ...]
    """Groups whose scores are another's upside down: an inverted scale looks the same."""

    @property
    def values(self) -> bool:
        """Whether a difference of values is established: better prediction, or a chance below 5 %."""
        if len(self.model.names) < 2:
            return False
        return bool(self.p_value < 0.05 if self.p_value is not None else self.gain and self.gain.low > 0)


def permutation_test(votes: Votes, index: Ints, *, shared: Groups, permutations: int = 999,
                     seed: int = 0, watch: Shown = silent) -> tuple[float, Floats]:
    """P-value of "groups are exchanged labels", and [I or F] each score's own.

    The statistic is the score test's Bayes factor for an offset of standard deviation 1, Σ_g S²/(V + 1) − log(1 + V), S a
    group's summed residuals about an item beyond individual rationality and V their variance. Labelers without a group stay out.
    """
    pull, spread = residuals(votes, shared)
    who = np.flatnonzero((index >= 0) & shared.seen)
    pull, spread, label = pull[who], spread[who], index[who]
    # Votes of few people on one item are clumsy in a group's sum; in dense form a permutation is one small product.
    rng, k = np.random.default_rng(seed), int(label.max()) + 1

    def statistic(label: Ints) -> Floats:
        join = np.zeros((k, len(label)))
        join[label, np.arange(len(label))] = 1.0
        s, v = np.asarray(pull.T @ join.T), np.asarray(spread.T @ join.T)
        return np.asarray((s**2 / (v + 1) - np.log1p(v)).sum(1))

    true = statistic(label)
    total, above = 1, np.ones(len(true))
    with watch("dealing out groups", permutations) as advance:
        for _ in range(permutations):
            drawn = statistic(rng.permutation(label))
            total += drawn.sum() >= true.sum() - 1e-9
            above += drawn >= true - 1e-9
            advance(1)
    return total / (permutations + 1), above / (permutations + 1)


def observed_disagreement(votes: Votes, index: Ints) -> dict[str, tuple[float, int]]:
    """How often two people's votes on one pair differ, and over how many couples: all, within a group, between groups."""
    swap = votes.a > votes.b
    pair = np.minimum(votes.a, votes.b) * len(votes.items) + np.maximum(votes.a, votes.b)
    won, group = np.where(swap, -votes.won, votes.won), index[votes.labeler]

    def couples(*keys: Ints) -> tuple[float, float]:
        """All and equal couples of votes with equal keys; a person's own repeated votes are no couple."""
        def pairs(*by: Ints) -> float:
            _, n = np.unique(np.stack(by), axis=1, return_counts=True)
            return float((n * (n - 1) / 2).sum())
        return (pairs(*keys) - pairs(*keys, votes.labeler), pairs(*keys, won) - pairs(*keys, won, votes.labeler))

    grouped = group >= 0
    whole, same = couples(pair)
    result = {"all": (1 - same / whole if whole else float("nan"), int(whole))}
    if grouped.all() and len(set(group.tolist())) > 1:
        inner, inner_same = couples(pair, group)
        outer, outer_same = whole - inner, same - inner_same
        result["within groups"] = (1 - inner_same / inner if inner else float("nan"), int(inner))
        result["between groups"] = (1 - outer_same / outer if outer else float("nan"), int(outer))
    return result


def value_share(votes: Votes, post: Posterior, *, seed: int = 0) -> tuple[Estimate | None, float]:
    """The share of expected disagreement that lies between groups, with its interval, and the expected disagreement."""
    model = post.model
    pairs, count = np.unique(np.sort(np.stack([votes.a, votes.b], 1), axis=1), axis=0, return_counts=True)
    if len(pairs) > MOST_PAIRS:
        sample = np.random.default_rng(seed).choice(len(pairs), MOST_PAIRS, replace=False)
        pairs, count = pairs[sample], count[sample]
    weight = (votes_by(votes, model) / len(votes))[:, None, None]
    shares, wholes = [], []
    for draw, log_nu, beta, indifference in zip(post.draws, post.log_nu, post.beta[:, model.seen],
                                                post.indifference[:, model.seen]):
        p = crowd_outcomes(draw[:, pairs[:, 0]] - draw[:, pairs[:, 1]], beta, log_nu + indifference)
        mean = (weight * p).sum(0)
        whole = float(count @ (1 - (mean**2).sum(-1)))
        between = float(count @ (weight * (p - mean) ** 2).sum((0, 2)))
        shares.append(between / whole)
        wholes.append(whole / count.sum())
    if len(model.names) == 1:
        return None, float(np.mean(wholes))
    drawn = np.array(shares)
    low, high = credible(drawn, LEVEL, post.worth(drawn))
    return Estimate(float(drawn.mean()), low, high, len(pairs), LEVEL), float(np.mean(wholes))


def crowd_outcomes(d: Floats, beta: Floats, log_nu: Floats) -> Floats:
    """[…, 3] P of every outcome at log-odds d, averaged over people's rationalities `beta` [A] and tie parameters `log_nu` [A].

    Everybody counts: a few quantiles of the rationalities would leave out the tails, and with them noise.
    """
    grid = np.linspace(0.0, max(float(np.abs(d).max(initial=0.0)), 1e-9), GRID_POINTS)
    down, tie, _ = np.exp(outcome_logps(np.multiply.outer(beta, grid), log_nu[:, None])).mean(0).T
    size = np.abs(d)
    low, middle = np.interp(size, grid, down), np.interp(size, grid, tie)
    high = 1 - low - middle
    return np.stack([np.where(d > 0, low, high), middle, np.where(d > 0, high, low)], -1)


def votes_by(votes: Votes, model: Groups) -> Floats:
    """[K] how many votes each group cast."""
    return np.asarray(model.membership[votes.labeler].sum(0))


def item_gaps(votes: Votes, post: Posterior, *, false_sign: float = FALSE_SIGN) -> tuple[tuple[ItemGap, ...], int]:
    """Items that groups value differently, surest first, and how many were looked at.

    As many are reported as keep the expected share of wrong signs among them below `false_sign`.
    """
    model, gaps = post.model, []
    for g in range(len(model.names)):
        for h in range(g + 1, len(model.names)):
            gap = post.gap(g, h)
            judged = np.minimum(_information(votes, model, g), _information(votes, model, h)) >= LEAST_INFORMATION
            for i in np.flatnonzero(judged):
                low, high = np.quantile(gap[:, i], [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
                value, up = float(gap[:, i].mean()), float((gap[:, i] > 0).mean())
                sign = value >= 0
                estimate = (Estimate(value, float(low), float(high), len(gap), LEVEL) if sign
                            else Estimate(-value, -float(high), -float(low), len(gap), LEVEL))
                names = (model.names[g], model.names[h]) if sign else (model.names[h], model.names[g])
                gaps.append(ItemGap(int(i), *names, estimate, 1 - up if sign else up))
    gaps.sort(key=lambda one: (one.wrong_sign, -one.gap.value))
    wrong = np.cumsum([one.wrong_sign for one in gaps]) / np.arange(1, len(gaps) + 1)
    reported = int((wrong <= false_sign).sum())
    return tuple(gaps[:reported]), len(gaps)


def _information(votes: Votes, model: Groups, g: int) -> Floats:
    """[I] how many votes of group g touch each item."""
    part = model.membership[votes.labeler, g]
    count = len(votes.items)
    return np.asarray(np.bincount(votes.a, part, count) + np.bincount(votes.b, part, count))


def held_out_gain(votes: Votes, member: Floats, names: tuple[str, ...], *, phi: Floats | None = None, folds: int = 5,
                  seed: int = 0, noise: bool = True, whole: tuple[Groups | None, Groups | None] = (None, None),
                  watch: Shown = silent) -> Estimate:
    """Nats that known groups add to a held-out vote beyond one score and individual rationality. `whole`, the fits of
    one score and of the groups to all votes, only saves time: fits to parts of the votes start there."""
    fold, table = folds_of(votes, folds, seed), features(votes, phi)
    ours, theirs = np.zeros(len(votes)), np.zeros(len(votes))
    with watch("predicting held-out votes", folds) as advance:
        for f in range(folds):
            train, test = votes.take(fold != f), votes.take(fold == f)
            one = fit_membership(train, np.ones((len(member), 1)), EVERYBODY, phi=table, noise=noise, start=whole[0])
            several = fit_membership(train, member, names, phi=table, noise=noise, sigma=one.sigma, start=whole[1])
            theirs[fold == f], ours[fold == f] = vote_logps_of(one, test), vote_logps_of(several, test)
            advance(1)
    return gain(ours, theirs, votes.labeler, LEVEL)


def upside_down(post: Posterior) -> tuple[str, ...]:
    """Groups whose mean scores are the largest group's turned round (correlation below −0.8)."""
    mean = post.draws.mean(0)
    if len(mean) < 2 or mean.std(1).min() < 1e-9:
        return ()
    main = int(np.argmax(post.model.shares))
    return tuple(name for name, r in zip(post.model.names, np.corrcoef(mean)[main]) if r < -0.8)


def fit_disagreement(votes: Votes, *, group_by: str | None = None, phi: Floats | None = None, most: int = 3, noise: bool = True,
                     permutations: int = 999, draws: int = 400, starts: int = 4, folds: int = 5, seed: int = 0,
                     watch: Shown = silent) -> Disagreement:
    """Splits disagreement into noise and values: between given groups, or between groups found in the votes.

    Raises UserError without comparisons, with fewer than two labelers, or where nobody carries the tag.
    """
    if len(votes) == 0:
        raise UserError("There is no comparison to examine: no two different completions of one prompt were ranked.",
                        "Give a file of comparisons with at least one pair.")
    people = int((np.bincount(votes.labeler, minlength=1) > 0).sum()) if len(votes) else 0
    if people < 2:
        raise UserError(f"Disagreement needs two labelers; this file names {people}.",
                        'Give each row its "labeler" ("harken import" keeps them).')
    table, p_value, better, mixture = features(votes, phi), None, None, None
    if group_by is None:
        mixture = fit_mixture(votes, most=most, phi=phi, noise=noise, starts=starts, folds=folds, seed=seed, watch=watch)
        model = mixture.model
        better = mixture.gains[len(model.names) - 2] if len(model.names) > 1 else (mixture.gains[0] if mixture.gains else None)
        index = model.membership.argmax(1)
    else:
        index, names = group_index(votes, group_by)
        member = one_hot(index, len(names))
        with watch("fitting", 2) as advance:
            shared = fit_membership(votes, np.ones((len(index), 1)), EVERYBODY, phi=table, noise=noise)
            advance(1)
            model = fit_membership(votes, member, names, phi=table, noise=noise, sigma=shared.sigma)
        p_value, _ = permutation_test(votes, index, shared=shared, permutations=permutations, seed=seed, watch=watch)
        better = held_out_gain(votes, member, names, phi=phi, folds=folds, seed=seed, noise=noise, whole=(shared, model),
                               watch=watch)
    post = posterior(votes, model, draws=draws, seed=seed, watch=watch)
    share, expected = value_share(votes, post, seed=seed)
    items, tested = item_gaps(votes, post) if len(model.names) > 1 else ((), 0)
    return Disagreement(model, share, expected, observed_disagreement(votes, index), p_value,
                        permutations if p_value is not None else 0, better, items, tested, mixture,
                        upside_down(post) if len(model.names) > 1 else ())


def to_json(disagreement: Disagreement, votes: Votes) -> dict[str, Any]:
    """The findings with names and texts in place of indices."""
    def estimate(e: Estimate | None) -> dict[str, Any] | None:
        return None if e is None else e.to_json()

    model = disagreement.model
    return {
        "groups": [{"name": name, "share_of_labelers": float(share), "votes": float(count)}
                   for name, share, count in zip(model.names, model.shares, votes_by(votes, model))],
        "values": disagreement.values, "share_values": estimate(disagreement.share),
        "expected_disagreement": disagreement.expected,
        "observed_disagreement": {k: {"share": v, "couples": n} for k, (v, n) in disagreement.observed.items() if n},
        "p_value": disagreement.p_value, "permutations": disagreement.permutations, "held_out_gain": estimate(disagreement.gain),
        "upside_down": list(disagreement.inverted), "items_tested": disagreement.tested,
        "items": [{"prompt_id": votes.items[one.item][0], "text": votes.items[one.item][1], "higher_in": one.high,
                   "lower_in": one.low, "gap": one.gap.to_json(), "wrong_sign": one.wrong_sign} for one in disagreement.items],
        "labelers": [{"name": name, "membership": [round(float(m), 4) for m in row],
                      "rationality": round(float(row @ beta), 4)}
                     for name, row, beta, seen in zip(votes.labelers, model.membership, model.beta, model.seen) if seen],
        "discovery": None if disagreement.discovery is None else {
            "held_out_log_likelihood": list(disagreement.discovery.held_out), "icl": list(disagreement.discovery.icl),
            "gains": [g.to_json() for g in disagreement.discovery.gains]},
    }
