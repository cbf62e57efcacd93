"""Votes drawn from planted scores and labelers."""

import numpy as np

from harken.labelers.models.likelihood import davidson_table
from harken.labelers.votes import Votes


def world(seed, beta, votes, items=60, prompts=1, nu=0.0, position=None, length=None, scores=None, spread=1.0):
    """(scores [I], Votes): pairs within prompts and labelers at random; `position` and `length` are per labeler."""
    rng = np.random.default_rng(seed)
    beta, people, per = np.asarray(beta), len(beta), items // prompts
    s = spread * rng.normal(size=items) if scores is None else np.asarray(scores)
    a = rng.integers(items, size=votes)
    b = a // per * per + (a % per + 1 + rng.integers(per - 1, size=votes)) % per
    who, first = rng.integers(people, size=votes), rng.choice([-1, 1], size=votes)
    sizes = rng.integers(5, 60, size=items)
    eta = beta[who] * (s[a] - s[b])
    if position is not None:
        eta = eta + np.asarray(position)[who] * first
    if length is not None:
        eta = eta + np.asarray(length)[who] * np.log2((sizes[a] + 1) / (sizes[b] + 1))
    p = davidson_table(eta, np.log(nu) if nu else -np.inf)
    u = rng.random(votes)
    won = np.where(u < p[:, 0], 1, np.where(u < p[:, 0] + p[:, 1], 0, -1))
    prompt = np.arange(items) // per
    texts = tuple((str(q), "x" * n) for q, n in zip(prompt, sizes))
    return s, Votes(a, b, won, who, first, np.arange(votes), texts, prompt, tuple(f"p{k}" for k in range(people)), ({},) * people)


def centred(scores, prompt):
    """Mean 0 in every prompt."""
    return scores - (np.bincount(prompt, scores) / np.bincount(prompt))[prompt]
