"""REINFORCE on a small world: the seed of every policy method that Harken trains language models with.

    ∇J = E[ Σ_t ∇log π(a_t | s_t) (G_t - b) ]        G_t the return from t on, b a baseline that changes no mean

A language model's prompt is the first state, its tokens are the actions, its reward comes at the end: the same formula
(`harken train reinforce`). Here the exact gradient is known, so that what is estimated can be checked.
Shape suffixes: `S` states, `A` actions, `E` episodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from harken.goals.mdp import MDP, Floats, evaluate, softmax

Baseline = Literal["none", "mean", "value"]


def policy_of(logits: Floats) -> Floats:
    """[S, A] softmax of logits."""
    return softmax(logits, 1.0)


def exact_gradient(mdp: MDP, logits: Floats, reward: Floats) -> Floats:
    """dJ/dlogits [S, A] by the policy-gradient theorem: Σ_t γ^t P(s_t = s) π(a | s) (Q(s, a) - V(s))."""
    policy = policy_of(logits)
    value = evaluate(mdp, policy, reward)
    q = mdp.expected(reward + mdp.discount * np.where(mdp.terminal, 0.0, value))
    live = ~mdp.terminal
    step = np.einsum("sa,sat->st", policy, mdp.transitions)[np.ix_(live, live)]
    visits = np.zeros(mdp.states)
    visits[live] = np.linalg.solve((np.eye(int(live.sum())) - mdp.discount * step).T, mdp.start[live])
    return visits[:, None] * policy * (q - value[:, None])


def sampled_gradients(mdp: MDP, logits: Floats, reward: Floats, episodes: int, rng: np.random.Generator, *,
                      baseline: Baseline = "none", length: int = 60) -> tuple[Floats, Floats]:
    """([E, S, A] one gradient estimate an episode, [E] returns).

    `none`: G_t as it is. `mean`: less the mean return of the other episodes (leave-one-out: unbiased, and RLOO's).
    `value`: less V(s_t), exact here, learnt in PPO.
    """
    policy = policy_of(logits)
    value = evaluate(mdp, policy, reward) if baseline == "value" else np.zeros(mdp.states)
    gradients = np.zeros((episodes, mdp.states, mdp.actions))
    scores = np.zeros_like(gradients)
    total = np.zeros(episodes)
    for e in range(episodes):
        state = int(rng.choice(mdp.states, p=mdp.start))
        walk: list[tuple[int, int, float]] = []
        while len(walk) < length and not mdp.terminal[state]:
            action = int(rng.choice(mdp.actions, p=policy[state]))
            following = int(rng.choice(mdp.states, p=mdp.transitions[state, action]))
            walk.append((state, action, float(reward[following])))
            state = following
        after = 0.0
        for t in range(len(walk) - 1, -1, -1):
            state, action, gained = walk[t]
            after = gained + mdp.discount * after
            score = -policy[state]
            score[action] += 1.0
            gradients[e, state] += mdp.discount**t * (after - value[state]) * score
            scores[e, state] += mdp.discount**t * score
        total[e] = after
    if baseline == "mean" and episodes > 1:
        others = (total.sum() - total) / (episodes - 1)
        gradients -= others[:, None, None] * scores
    return gradients, total


@dataclass(frozen=True)
class Curve:
    """`returns` [steps] of the policy, exact, and its final `logits` [S, A]."""

    returns: Floats
    logits: Floats


def reinforce(mdp: MDP, reward: Floats, *, steps: int = 150, episodes: int = 16, rate: float = 1.0,
              baseline: Baseline = "mean", seed: int = 0) -> Curve:
    """Gradient ascent from the uniform policy, `episodes` sampled a step."""
    rng = np.random.default_rng(seed)
    logits = np.zeros((mdp.states, mdp.actions))
    returns = []
    for _ in range(steps):
        returns.append(float(mdp.start @ evaluate(mdp, policy_of(logits), reward)))
        logits = logits + rate * sampled_gradients(mdp, logits, reward, episodes, rng, baseline=baseline)[0].mean(0)
    return Curve(np.array(returns), logits)
