"""Planted worlds of people who vote: groups with values of their own, care of their own, and what nobody recorded."""

import numpy as np

from harken.labelers.groups.regression import outcome_logps
from harken.labelers.votes import Votes


def votes_from(a, b, won, labeler, prompt, people, groups, first=None):
    n = len(a)
    return Votes(a, b, won, labeler, np.zeros(n, dtype=int) if first is None else first, np.arange(n),
                 tuple((f"p{p}", f"text {i}") for i, p in enumerate(prompt)), prompt, tuple(f"l{k}" for k in range(people)),
                 tuple(groups))


def grouped(seed, *, prompts=20, per=6, people=40, n=3000, tau=1.0, share=0.3, care=0.3, careless=0, nu=0.5, position=0.0):
    """Two groups: scores mu + delta_g, delta ~ N(0, tau²); labelers' care is log-normal; the last `careless` vote at random.

    Returns the votes, each labeler's group, the scores [2, I] and the cares [A].
    """
    rng = np.random.default_rng(seed)
    items = prompts * per
    prompt = np.repeat(np.arange(prompts), per)
    scores = rng.normal(0, 1, items) + rng.normal(0, tau, (2, items)) * (tau > 0)
    group = (np.arange(people) < share * people).astype(int)
    beta = np.exp(rng.normal(0, care, people))
    beta[people - careless:] = 0.0
    a, b = pick_pairs(rng, n, prompts, per)
    labeler = rng.integers(people, size=n)
    first = rng.choice([-1, 1], n)
    d = beta[labeler] * (scores[group[labeler], a] - scores[group[labeler], b]) + position * first
    won = draw_outcomes(rng, d, nu)
    tags = [{"age": "young" if g else "old"} for g in group]
    return votes_from(a, b, won, labeler, prompt, people, tags, first if position else None), group, scores, beta


def pick_pairs(rng, n, prompts, per):
    start = rng.integers(prompts, size=n) * per
    one = rng.integers(per, size=n)
    other = (one + rng.integers(1, per, size=n)) % per
    return start + one, start + other


def draw_outcomes(rng, d, nu):
    p = np.exp(outcome_logps(d, np.log(nu) if nu else -np.inf)).cumsum(1)
    return np.minimum((rng.random(len(d))[:, None] > p).sum(1), 2) - 1


def hidden_context(seed, *, hidden=True, n=8000, items=40, sharpness=12.0):
    """2312.08358, section 2: options a in [0, 1] are worth a, but from 0.8 on 2a or 0 by a context nobody recorded."""
    rng = np.random.default_rng(seed)
    x = np.sort(np.r_[np.linspace(0.02, 1, items - 2), 0.79, 0.9])
    a = rng.integers(items, size=n)
    b = (a + rng.integers(1, items, size=n)) % items
    context = rng.integers(2, size=n)

    def worth(i):
        return np.where((x[i] >= 0.8) & hidden, 2 * x[i] * context, x[i])

    won = np.where(rng.random(n) < 1 / (1 + np.exp(-sharpness * (worth(a) - worth(b)))), 1, -1)
    return votes_from(a, b, won, np.zeros(n, dtype=int), np.zeros(items, dtype=int), 1, [{}]), x
