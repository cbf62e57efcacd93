"""How agents plan, well and badly: from a goal (a reward) to what they do.

    policy = PLANNERS["naive"](world.mdp, reward)        # [S, A]

Every planner ends in a softmax with rationality β (`beta`; inf never slips), so that each action has a probability.
Sources: hyperbolic discounters and their naive and sophisticated selves, Evans, Stuhlmüller and Goodman (2016);
over- and under-confidence as in Shah et al. (2019). Shape suffixes: `S` states, `A` actions, `D` delays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from harken.goals.mdp import MDP, Floats, softmax, value_iteration

BETA = 5.0
HORIZON = 30
Planner = Callable[[MDP, Floats], Floats]


def optimal(mdp: MDP, reward: Floats, beta: float = BETA) -> Floats:
    """Plans without bias; slips with rationality β (Boltzmann)."""
    return softmax(value_iteration(mdp, reward)[0], beta)


def anti_rational(mdp: MDP, reward: Floats, beta: float = BETA) -> Floats:
    """Does its worst. On -R it behaves exactly as the optimal planner on R: no behaviour tells the two apart."""
    return optimal(mdp, -reward, beta)


def myopic(mdp: MDP, reward: Floats, beta: float = BETA, horizon: int = 3) -> Floats:
    """Looks `horizon` steps ahead and not further."""
    return softmax(value_iteration(mdp, reward, horizon=horizon)[0], beta)


def naive(mdp: MDP, reward: Floats, beta: float = BETA, k: float = 1.0, horizon: int = HORIZON) -> Floats:
    """Discounts hyperbolically, 1 / (1 + k d), and expects its later selves to keep today's plan. They won't."""
    value = np.zeros(mdp.states)
    policy = np.full((mdp.states, mdp.actions), 1 / mdp.actions)
    for delay in range(horizon - 1, -1, -1):
        q = mdp.expected(reward / (1 + k * delay) + np.where(mdp.terminal, 0.0, value))
        policy = softmax(q, beta)
        value = (policy * q).sum(1)
    return policy


def sophisticated(mdp: MDP, reward: Floats, beta: float = BETA, k: float = 1.0, horizon: int = HORIZON) -> Floats:
    """Discounts hyperbolically too, but knows that each later self will act as if its own time were now.

    `ahead` [D, S] is the worth, seen from a delay of d, of what the later selves will do with n steps left.
    """
    delays = 1 / (1 + k * np.arange(horizon + 1))
    ahead = np.zeros((horizon + 1, mdp.states))
    policy = np.full((mdp.states, mdp.actions), 1 / mdp.actions)
    for left in range(1, horizon + 1):
        after = np.where(mdp.terminal, 0.0, ahead[1:])  # one step later, one more of delay
        gained = delays[:-1, None] * reward + after
        q = np.stack([mdp.expected(row) for row in gained[:horizon - left + 1]])
        policy = softmax(q[0], beta)
        ahead = np.zeros_like(ahead)
        ahead[:len(q)] = (policy * q).sum(2)
    return policy


def confident(mdp: MDP, reward: Floats, beta: float = BETA, calibration: float = 5.0) -> Floats:
    """Believes p^c / Σ p^c of every outcome: c above 1 takes the likely for certain, below 1 the certain for a gamble."""
    believed = np.where(mdp.transitions > 0, mdp.transitions, 0.0) ** calibration
    return optimal(dataclasses.replace(mdp, transitions=believed / believed.sum(2, keepdims=True)), reward, beta)


def believing(believed: MDP, planner: Planner) -> Planner:
    """Plans by a false picture of the world: `believed` in the place of the true one."""
    return lambda mdp, reward: planner(believed, reward)


PLANNERS: Mapping[str, Planner] = {
    "optimal": optimal, "naive": naive, "sophisticated": sophisticated, "myopic": myopic, "overconfident": confident,
    "underconfident": lambda mdp, reward: confident(mdp, reward, calibration=0.5), "anti-rational": anti_rational}
