"""Every kind of feedback is a choice: one likelihood and one posterior for them all.

    paths = Paths.of(world.mdp, length=4)                        # every way to spend four steps
    returns = paths.returns(rewards)                             # [R, T]
    seen = [(demonstration(paths, 5.0), 17), (comparison(paths, 3, 8, 1.0), 0), (off(paths, 8, 2, 1.0), OFF)]
    belief = posterior(np.full(len(rewards), 1 / len(rewards)), returns, seen)

Reward-rational implicit choice (Jeon, Milli and Dragan 2020): whoever gives feedback chooses c from a set, and each choice
stands for behaviour, its grounding ψ(c), a distribution over trajectories ξ:

    P(c | θ) = exp(β E_ψ(c)[r_θ(ξ)]) / Σ_c' exp(β E_ψ(c')[r_θ(ξ)])

What was not chosen says as much as what was, so the set must be the one the person saw; β is each kind's own.
Shape suffixes: `R` rewards, `T` trajectories, `S` states, `C` choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harken.goals.mdp import MDP, Floats, Ints, softmax

OFF, CONTINUE = 0, 1
MOST_PATHS = 20_000


@dataclass(frozen=True)
class Paths:
    """All trajectories of a deterministic world from its start: `states[t]` the states of path t, the first one included;
    `visits` [T, S] the discounted entries into each state."""

    states: tuple[tuple[int, ...], ...]
    visits: Floats

    @staticmethod
    def of(mdp: MDP, length: int) -> Paths:
        """Every path of `length` steps, shorter where it ends in a terminal state. Standing still is always possible: a
        robot that is switched off does it. Raises ValueError where chance has a part, or there are too many paths."""
        if not np.isin(mdp.transitions, (0.0, 1.0)).all() or mdp.start.max() < 1:
            raise ValueError("paths can be listed in a world without chance and with one first state: use slip=0 and an S")
        following = [sorted({s, *mdp.transitions[s].argmax(1).tolist()}) for s in range(mdp.states)]
        paths: list[tuple[int, ...]] = [(int(mdp.start.argmax()),)]
        for _ in range(length):
            paths = [(*path, s) for path in paths for s in ([] if mdp.terminal[path[-1]] else following[path[-1]])] + [
                path for path in paths if mdp.terminal[path[-1]]]
            if len(paths) > MOST_PATHS:
                raise ValueError(f"more than {MOST_PATHS} paths: use a shorter length than {length}, or a smaller world")
        visits = np.zeros((len(paths), mdp.states))
        for t, path in enumerate(paths):
            np.add.at(visits[t], list(path[1:]), mdp.discount ** np.arange(len(path) - 1))
        return Paths(tuple(paths), visits)

    def __len__(self) -> int:
        return len(self.states)

    def returns(self, rewards: Floats) -> Floats:
        """[R, T]: the discounted sum of each reward [R, S'] along each path."""
        return np.asarray(rewards @ self.visits.T)

    def sets(self, members: Sequence[Ints | list[int]]) -> Floats:
        """[C, T]: each choice as the uniform distribution over its paths. Raises ValueError on an empty set."""
        grounding = np.zeros((len(members), len(self)))
        for c, paths in enumerate(members):
            if not len(paths):
                raise ValueError(f"choice {c} stands for no path at all")
            grounding[c, paths] = 1 / len(paths)
        return grounding


@dataclass(frozen=True)
class Feedback:
    """What could be chosen, as distributions over paths (`grounding` [C, T]), and how rationally (`beta`, inf: the best)."""

    grounding: Floats
    beta: float

    def likelihood(self, returns: Floats) -> Floats:
        """P(choice | reward), [R, C], from `returns` [R, T]. It also serves as the answers of an `assistance.Question`."""
        return softmax(returns @ self.grounding.T, self.beta)


def demonstration(paths: Paths, beta: float) -> Feedback:
    """The person shows one path out of all."""
    return Feedback(np.eye(len(paths)), beta)


def comparison(paths: Paths, first: int, second: int, beta: float) -> Feedback:
    """The person prefers one of two paths: the Bradley-Terry model of returns."""
    return Feedback(paths.sets([[first], [second]]), beta)


def correction(paths: Paths, robot: int, beta: float, reach: int = 1) -> tuple[Feedback, Ints]:
    """The person pushes the robot off its path: they choose among the paths of the same length that differ from it in at
    most `reach` steps, its own among them. Returns the feedback and the path of every choice [C]."""
    taken = paths.states[robot]
    near = np.array([t for t, path in enumerate(paths.states) if len(path) == len(taken)
                     and sum(a != b for a, b in zip(path, taken)) <= reach], dtype=np.int64)
    return Feedback(paths.sets([[t] for t in near.tolist()]), beta), near


def off(paths: Paths, robot: int, step: int, beta: float) -> Feedback:
    """The person may switch the robot off after `step` steps: then it stands there to the end (OFF); else it goes on
    (CONTINUE). Raises ValueError where the path is over by then."""
    taken = paths.states[robot]
    if not 0 <= step < len(taken) - 1:
        raise ValueError(f"path {robot} has {len(taken) - 1} steps: it cannot be switched off after {step}")
    longest = max(len(path) for path in paths.states)
    held = taken[:step + 1] + (taken[step],) * (longest - step - 1)
    return Feedback(paths.sets([[paths.states.index(held)], [robot]]), beta)


def proxy_reward(paths: Paths, proxies: Floats, beta: float) -> Feedback:
    """The person writes a reward, one of `proxies` [C, S'], and means the paths that are best under it *here*: elsewhere it
    may be wrong (inverse reward design, Hadfield-Menell et al. 2017)."""
    gains = paths.returns(proxies)
    return Feedback(softmax(gains, np.inf), beta)


def posterior(prior: Floats, returns: Floats, seen: Sequence[tuple[Feedback, int]]) -> Floats:
    """P(reward | all that was chosen), [R]; each entry is feedback and the index of the choice. Choices are independent
    given the reward. Raises ValueError if no reward allows them."""
    with np.errstate(divide="ignore"):
        log = np.log(prior) + sum(np.log(feedback.likelihood(returns)[:, chosen]) for feedback, chosen in seen)
    if not np.isfinite(log).any():
        raise ValueError("no reward allows what was chosen: give the feedback a finite β")
    weights = np.exp(log - log.max())
    return np.asarray(weights / weights.sum())


def entropy(belief: Floats) -> float:
    """In bits."""
    p = belief[belief > 0]
    return float(-(p * np.log2(p)).sum())
