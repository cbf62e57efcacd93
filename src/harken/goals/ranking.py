"""Better than the best demonstrator: a reward from which of two trajectories is better, and a policy for it.

T-REX (Brown et al., ICML 2019) learns from ranked trajectories the reward whose sums explain the ranking,

    P(j above i) = exp(Σ r(ξ_j)) / (exp(Σ r(ξ_i)) + exp(Σ r(ξ_j)))

which can point beyond the best of them. D-REX (Brown et al., CoRL 2019) ranks for itself: it imitates, adds noise to the
imitation, and takes more noise for worse. Here r = features · w, and trajectories are visits of states.
Shape suffixes: `N` trajectories, `F` features, `E` pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize
from scipy.special import expit

from harken.goals.mdp import MDP, Floats, Ints, Steps, sample


def entered(mdp: MDP, policy: Floats, rng: np.random.Generator, *, length: int = 50) -> Ints:
    """States entered in one episode: what a reward of entering them adds up over."""
    steps = sample(mdp, policy, rng, length=length)
    states = [s for s, _ in steps[1:]]
    if steps:
        states.append(int(rng.choice(mdp.states, p=mdp.transitions[steps[-1]])))
    return np.array(states, dtype=np.int64)


def returns(features: Floats, trajectories: Sequence[Ints], discount: float = 1.0) -> Floats:
    """[N, F]: discounted sums of features [S, F] over the states entered."""
    return np.stack([(discount ** np.arange(len(t)))[:, None].T @ features[t] if len(t) else np.zeros((1, features.shape[1]))
                     for t in trajectories])[:, 0]


def trex(sums: Floats, pairs: Sequence[tuple[int, int]], *, l2: float = 1e-2) -> Floats:
    """Weights [F] under which the second of each pair (worse, better) of trajectories is preferred. `sums` [N, F].

    Logistic regression without intercept on differences of sums, with a normal prior of precision `l2`.
    """
    worse, better = np.array(pairs, dtype=np.int64).T
    difference = sums[better] - sums[worse]

    def loss(w: Floats) -> tuple[float, Floats]:
        z = difference @ w
        return float(np.logaddexp(0, -z).mean() + l2 / 2 * w @ w), -(expit(-z) @ difference) / len(z) + l2 * w

    return np.asarray(optimize.minimize(loss, np.zeros(sums.shape[1]), jac=True, method="L-BFGS-B").x)


def all_pairs(ranks: Sequence[float]) -> list[tuple[int, int]]:
    """(worse, better) for every two trajectories of different rank; a higher number is better."""
    return [(i, j) for i, a in enumerate(ranks) for j, b in enumerate(ranks) if a < b]


def imitation(mdp: MDP, demonstrations: Sequence[Steps], smoothing: float = 0.1) -> Floats:
    """Behaviour cloning, [S, A]: shares of the actions seen in each state, uniform where it was never seen."""
    counts = np.full((mdp.states, mdp.actions), smoothing)
    for steps in demonstrations:
        for state, action in steps:
            counts[state, action] += 1
    return np.asarray(counts / counts.sum(1, keepdims=True))


def drex(mdp: MDP, demonstrations: Sequence[Steps], features: Floats, rng: np.random.Generator, *,
         noise: Sequence[float] = (1.0, 0.75, 0.5, 0.25, 0.01), rollouts: int = 20, l2: float = 1e-2) -> Floats:
    """Weights [F] from demonstrations that nobody ranked: rollouts of the imitation with more noise count as worse."""
    clone = imitation(mdp, demonstrations)
    trajectories, ranks = [], []
    for epsilon in noise:
        policy = (1 - epsilon) * clone + epsilon / mdp.actions
        trajectories += [entered(mdp, policy, rng) for _ in range(rollouts)]
        ranks += [-epsilon] * rollouts
    return trex(returns(features, trajectories, mdp.discount), all_pairs(ranks), l2=l2)
