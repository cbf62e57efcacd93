"""What does the agent want? From behaviour to its goal, with a model of its mistakes.

    table = policy_table(world.mdp, rewards, planners)            # what every kind of agent with every goal would do
    belief = posterior(table, demonstrations)                      # P(planner, reward | what it did)
    belief.rewards, belief.planners                                 # the two marginals

A wrong mistake model does not average out: its regret stays however much is seen (Christiano 2015; Evans et al. 2016).
And some pairs of goal and mistake behave alike everywhere (Armstrong and Mindermann 2018): `indistinct` says which, so
that nobody mistakes a convention for a finding.
Shape suffixes: `M` planners, `R` rewards, `S` states, `A` actions, `F` features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize
from scipy.special import logsumexp

from harken.goals.mdp import MDP, Floats, Steps, evaluate, soft_value_iteration, softmax, value_iteration
from harken.goals.planners import BETA, Planner


def policy_table(mdp: MDP, rewards: Floats, planners: Mapping[str, Planner]) -> Floats:
    """[M, R, S, A]: the policy of every planner with every reward [R, S']."""
    return np.stack([np.stack([planner(mdp, reward) for reward in rewards]) for planner in planners.values()])


@dataclass(frozen=True)
class Posterior:
    """P(planner, reward | demonstrations), `table` [M, R]."""

    table: Floats

    @property
    def rewards(self) -> Floats:
        """[R]"""
        return np.asarray(self.table.sum(0))

    @property
    def planners(self) -> Floats:
        """[M]"""
        return np.asarray(self.table.sum(1))

    @property
    def entropy(self) -> float:
        """Of the reward, in bits."""
        p = self.rewards[self.rewards > 0]
        return float(-(p * np.log2(p)).sum())


def counts_of(demonstrations: Sequence[Steps], mdp: MDP) -> Floats:
    """[S, A]: how often each action was taken where."""
    counts = np.zeros((mdp.states, mdp.actions))
    for steps in demonstrations:
        for state, action in steps:
            counts[state, action] += 1
    return counts


def posterior(table: Floats, counts: Floats, prior: Floats | None = None) -> Posterior:
    """By enumeration: Π π(a | s) over what was seen (`counts` [S, A]), times the `prior` [M, R] (uniform)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(counts > 0, counts * np.log(table), 0.0)
        log = terms.sum((2, 3)) + (0.0 if prior is None else np.log(prior))
    if not np.isfinite(log).any():
        raise ValueError("no hypothesis allows what was seen: give the planners a finite β")
    return Posterior(np.exp(log - logsumexp(log)))


def regret(mdp: MDP, truth: Floats, rewards: Floats, belief: Floats) -> float:
    """How much worse it is to act best for the mean of the believed rewards than for the truth: 0 is none, 1 is as bad as
    acting at random."""
    def worth(policy: Floats) -> float:
        return float(mdp.start @ evaluate(mdp, policy, truth))

    best = worth(softmax(value_iteration(mdp, truth)[0], np.inf))
    random = worth(np.full((mdp.states, mdp.actions), 1 / mdp.actions))
    acted = worth(softmax(value_iteration(mdp, belief @ rewards)[0], np.inf))
    return (best - acted) / (best - random) if best - random > 1e-12 else 0.0


def indistinct(table: Floats, tolerance: float = 1e-12) -> list[list[tuple[int, int]]]:
    """Groups of (planner, reward) pairs whose policies agree to `tolerance` everywhere: no behaviour can tell them apart."""
    M, R = table.shape[:2]
    flat = table.reshape(M * R, -1)
    left = list(range(M * R))
    groups = []
    while left:
        first = left[0]
        alike = [i for i in left if np.abs(flat[i] - flat[first]).max() <= tolerance]
        left = [i for i in left if i not in alike]
        if len(alike) > 1:
            groups.append([divmod(i, R) for i in alike])
    return groups


def explain_indistinct(mdp: MDP, table: Floats, rewards: Floats, names: Sequence[str]) -> str | None:
    """What cannot be known from behaviour, in words; None where every group of look-alikes wants the same done."""
    live = ~mdp.terminal
    for group in indistinct(table):
        best = [np.isclose(q := value_iteration(mdp, rewards[r])[0], q.max(1, keepdims=True), atol=1e-9) for _, r in group]
        for (b, s), other in zip(group[1:], best[1:]):
            if not (best[0] & other)[live].any(1).all():
                a, r = group[0]
                return (f"Not identifiable from behaviour: {names[a]} with reward {r} and {names[b]} with reward {s} do the "
                        "same everywhere and want other things done. Assume one of them away (that people tend towards what "
                        "they want), or get feedback whose direction is not in doubt, like a comparison answered with care.")
    return None


@dataclass(frozen=True)
class Fitted:
    """`weights` [F] of the features, their posterior standard deviations, and the mean log-likelihood of an action."""

    weights: Floats
    sd: Floats
    log_likelihood: float


def mce_irl(mdp: MDP, features: Floats, counts: Floats, *, beta: float = 1.0, width: float = 10.0) -> Fitted:
    """Maximum causal entropy IRL (Ziebart 2010): R = features w, [S', F], of the Boltzmann agent most likely to act so.

    The gradient is exact: dV = Σ_a π dQ is a linear system. The prior of each weight is normal of standard deviation
    `width`; `sd` is Laplace's, from the Fisher information.
    """
    seen = np.where(mdp.terminal[:, None], 0.0, counts)
    total = max(1.0, seen.sum())

    def loss(w: Floats) -> tuple[float, Floats]:
        log_policy, score = soft_policy(mdp, features, w, beta)
        value = float((seen * log_policy).sum()) - float(w @ w) / (2 * width**2)
        return -value / total, -(np.einsum("sa,saf->f", seen, score) - w / width**2) / total

    w = np.asarray(optimize.minimize(loss, np.zeros(features.shape[1]), jac=True, method="L-BFGS-B", tol=1e-10).x)
    log_policy, score = soft_policy(mdp, features, w, beta)
    information = np.einsum("s,sa,saf,sag->fg", seen.sum(1), np.exp(log_policy), score, score) + np.eye(len(w)) / width**2
    return Fitted(w, np.sqrt(np.diag(np.linalg.inv(information))), float((seen * log_policy).sum()) / total)


def soft_policy(mdp: MDP, features: Floats, weights: Floats, beta: float) -> tuple[Floats, Floats]:
    """log π(a | s) [S, A] of the soft-optimal policy, and its derivative in the weights [S, A, F]; 0 in terminal states."""
    q, value = soft_value_iteration(mdp, features @ weights, beta)
    live = ~mdp.terminal
    log_policy = np.where(live[:, None], beta * (q - value[:, None]), 0.0)
    policy = np.exp(log_policy)
    gain = np.where(live[:, None, None], mdp.transitions @ features, 0.0)
    step = np.einsum("sa,sat->st", policy, mdp.transitions)
    d_value = np.zeros((mdp.states, features.shape[1]))
    d_value[live] = np.linalg.solve(np.eye(int(live.sum())) - mdp.discount * step[np.ix_(live, live)],
                                    np.einsum("sa,saf->sf", policy, gain)[live])
    d_q = gain + mdp.discount * np.einsum("sat,tf->saf", mdp.transitions, d_value)
    return log_policy, np.where(live[:, None, None], beta * (d_q - d_value[:, None]), 0.0)


def policy_walk(mdp: MDP, grid: Floats, features: Floats, counts: Floats, *, steps: int = 4000, beta: float = BETA,
                seed: int = 0) -> Floats:
    """Bayesian IRL by PolicyWalk (Ramachandran and Amir 2007): Metropolis steps between neighbouring values of each
    weight on a `grid` of values, uniform prior. Returns the visited weights [steps, F]."""
    rng = np.random.default_rng(seed)
    cached: dict[tuple[int, ...], float] = {}

    def log_likelihood(at: tuple[int, ...]) -> float:
        if at not in cached:
            policy = softmax(value_iteration(mdp, features @ grid[list(at)])[0], beta)
            cached[at] = float((counts * np.log(np.maximum(policy, 1e-300))).sum())
        return cached[at]

    place = tuple(int(rng.integers(len(grid))) for _ in range(features.shape[1]))
    walk = np.empty((steps, features.shape[1]))
    for t in range(steps):
        which, to = int(rng.integers(len(place))), int(rng.choice((-1, 1)))
        moved = place[which] + to
        if 0 <= moved < len(grid):
            other = (*place[:which], moved, *place[which + 1:])
            if np.log(rng.random()) < log_likelihood(other) - log_likelihood(place):
                place = other
        walk[t] = grid[list(place)]
    return walk
