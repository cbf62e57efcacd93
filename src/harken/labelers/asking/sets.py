"""How many answers to rank at once, and which: sets of 2 to 9 by expected information per second.

    chosen = next_sets(belief, answers_of_each_prompt, seconds=lambda items: 4 + 0.05 * lengths[items].sum(), n=20)

A ranking of K tells more than a pair and takes longer to read; which is better depends on how long the texts are, how
much of the time goes into the prompt they share, and how unsure the belief is. Sets are chosen by 1/2 log det(I + F Sigma)
(D-optimal), F the Fisher information that a Plackett–Luce ranking is expected to give about its options' scores. That is
not the sum over its pairs, which counts what they share again and again. What the chosen ones teach is then told by the
mutual information of ranking and scores, E log P(ranking | scores) - E log P(ranking), by Monte Carlo. Sets grow one answer
at a time from the most informative pair of a prompt, so that not all 2^K are looked at; after each pick the belief is
what it will be once that ranking is given.

Shape suffixes: `S` draws, `K` options, `I` items, `R` columns of the root.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harken.labelers.asking.belief import Belief
from harken.labelers.asking.pairs import information
from harken.labelers.models.likelihood import Floats, Ints

DRAWS = 256
"""An information is known to about 5 %, and told up to ln 256 = 5.5 nats."""
FISHER_DRAWS = 64
"""Draws under a set that is only weighed."""
MOST_OPTIONS = 9


@dataclass(frozen=True)
class Sets:
    """What was chosen, in order."""

    items: tuple[Ints, ...]
    """Each one's options."""
    information: Floats
    """[n] nats, each given those before it."""
    seconds: Floats
    """[n]"""
    which: tuple[int, ...] = ()
    """Which of `answers` each was chosen from."""


def ranking_information(mean: Floats, root: Floats, beta: float = 1.0, draws: int = DRAWS, seed: int = 0) -> float:
    """Nats that a ranking of K options teaches about their scores; mean [K] and root [K, R] are the belief's rows.

    By `draws` joint draws of scores, a ranking under each, its probability under all: slightly too low, as each ranking's
    own draw is among those it is averaged over. A pair gives what `active.information` integrates.
    """
    felt, order = _rankings(mean, root, beta, draws, seed)
    felt_S_S_K = felt[:, order]  # draw j's scores in the order of ranking i: [j, i, K]
    top = felt_S_S_K.max(-1, keepdims=True)
    left = np.log(np.cumsum(np.exp(felt_S_S_K - top)[..., ::-1], axis=-1)[..., ::-1]) + top
    logp = (felt_S_S_K - left).sum(-1)
    best = logp.max(0)
    average = best + np.log(np.exp(logp - best).mean(0))
    return max(0.0, float((np.diagonal(logp) - average).mean()))


def _rankings(mean: Floats, root: Floats, beta: float, draws: int, seed: int) -> tuple[Floats, Ints]:
    """Felt scores [S, K] under draws of the belief, and a Plackett–Luce ranking by each, best first."""
    rng, k = np.random.default_rng([seed, len(mean)]), len(mean)
    factor = np.linalg.cholesky(root @ root.T + 1e-9 * np.eye(k))
    felt = beta * (mean + rng.standard_normal((draws, k)) @ factor.T)
    return felt, np.argsort(-(felt + rng.gumbel(size=(draws, k))), axis=1)


def ranking_fisher(felt: Floats, order: Ints) -> Floats:
    """[K, K] mean over draws [S, K] of the Plackett–Luce information: at each stage diag(p) - p p' over who is left."""
    draws, k = felt.shape
    felt = felt - felt.max(1, keepdims=True)
    out, left = np.zeros((k, k)), np.ones((draws, k), dtype=bool)
    for stage in range(k - 1):
        raw = np.where(left, felt, -np.inf)
        p = np.exp(raw - raw.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        out += np.diag(p.mean(0)) - p.T @ p / draws
        left[np.arange(draws), order[:, stage]] = False
    return out


def grow(belief: Belief, items: Ints, most: int, beta: float) -> list[Ints]:
    """Nested sets of 2 to `most` of these items: the most informative pair, then whoever tells most beside those in it."""
    i, j = np.triu_indices(len(items), 1)
    gains = information(*belief.difference(items[i], items[j]), np.full(len(i), beta), belief.tie)
    table = np.zeros((len(items), len(items)))
    table[i, j] = table[j, i] = gains
    at = int(gains.argmax())
    inside, grown = [int(i[at]), int(j[at])], []
    while True:
        grown.append(items[np.array(inside)])
        rest = [k for k in range(len(items)) if k not in inside]
        if not rest or len(inside) >= most:
            return grown
        inside.append(max(rest, key=lambda k: float(table[k, inside].sum())))


def next_sets(belief: Belief, answers: Sequence[Ints], seconds: Callable[[Ints], float], n: int, *, least: int = 2,
              most: int = MOST_OPTIONS, beta: float = 1.0, seed: int = 0, whole: bool = False) -> Sets:
    """The n rankings of `least` to `most` options that teach most per second, each of another prompt.

    `answers` holds each prompt's items; prompts with fewer than `least` are passed over. With `whole` a prompt's answers
    are ranked all together or not at all. Ties are left out of the ranking's likelihood.
    """
    if not 2 <= least <= most <= MOST_OPTIONS:
        raise ValueError(f"sizes must lie between 2 and {MOST_OPTIONS}, found {least} to {most}")
    now = dataclasses.replace(belief, root=belief.root.copy())
    nested = {i: [items] if whole else grow(belief, items, most, beta)[least - 2:]
              for i, items in enumerate(answers) if len(items) >= least}
    best = {i: _best(now, sets, seconds, beta, seed) for i, sets in nested.items()}
    fresh = set(nested)
    chosen: list[_Set] = []
    which: list[int] = []
    while best and len(chosen) < n:
        top = max(best, key=lambda i: best[i].rate)
        if top not in fresh:  # its value was computed before others were picked: it can only have fallen
            best[top] = _best(now, nested[top], seconds, beta, seed)
            fresh.add(top)
            continue
        one = best.pop(top)
        chosen.append(one)
        which.append(top)
        _answer(now.root, one.items, one.fisher)
        fresh.clear()
    return dataclasses.replace(measure(belief, [c.items for c in chosen], seconds, beta=beta, seed=seed), which=tuple(which))


def measure(belief: Belief, sets: Sequence[Ints], seconds: Callable[[Ints], float], *, beta: float = 1.0, seed: int = 0) -> Sets:
    """What these rankings would teach if asked in this order, each given those before it."""
    now, nats = dataclasses.replace(belief, root=belief.root.copy()), []
    for items in sets:
        nats.append(ranking_information(now.mean[items], now.root[items], beta, seed=seed))
        _answer(now.root, items, _fisher(now, items, beta, seed))
    return Sets(tuple(sets), np.array(nats), np.array([float(seconds(s)) for s in sets]))


@dataclass(frozen=True)
class _Set:
    items: Ints
    worth: float
    seconds: float
    fisher: Floats

    @property
    def rate(self) -> float:
        return self.worth / self.seconds


def _best(belief: Belief, sets: Sequence[Ints], seconds: Callable[[Ints], float], beta: float, seed: int) -> _Set:
    candidates = []
    for items in sets:
        root, fisher = belief.root[items], _fisher(belief, items, beta, seed)
        worth = float(np.linalg.slogdet(np.eye(len(items)) + fisher @ (root @ root.T))[1]) / 2
        candidates.append(_Set(items, worth, float(seconds(items)), fisher))
    return max(candidates, key=lambda s: s.rate)


def _fisher(belief: Belief, items: Ints, beta: float, seed: int) -> Floats:
    """[K, K] expected of a ranking of these."""
    return beta**2 * ranking_fisher(*_rankings(belief.mean[items], belief.root[items], beta, FISHER_DRAWS, seed))


def _answer(root: Floats, items: Ints, fisher: Floats) -> None:
    """Conditions the root [I, R], in place, on information `fisher` [K, K] about these items: an eigenvector at a time."""
    values, vectors = np.linalg.eigh(fisher)
    for w, q in zip(values, vectors.T):
        u = root[items].T @ q
        v = float(u @ u)
        if w > 1e-12 and v > 1e-12:
            root -= (1 - np.sqrt(1 / (1 + w * v))) / v * np.outer(root @ u, u)
