"""The posterior narrowing: what a learner believes of an agent's goal as it watches, with and without a mistake model.

    frames = watch(Scene(agent="naive", demonstrations=200, seed=0))
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harken.goals.inference import Posterior, policy_table, posterior, regret
from harken.goals.mdp import Floats, GridWorld, grid_world
from harken.goals.planners import PLANNERS

MAP = ["##v..a",
       "#...#.",
       "#.#.#.",
       "d.#...",
       "#.###.",
       "#S...."]
GOALS = {"a": "gym", "d": "donuts", "v": "salad bar"}
AGENTS = ("optimal", "naive", "sophisticated", "myopic", "overconfident")
WORTHS = np.array([0.0, 1.0, 2.0, 3.0])


@dataclass(frozen=True)
class Scene:
    """Who is watched, how long, and where: `truth` is what each goal is worth to the agent."""

    agent: str = "naive"
    demonstrations: int = 300
    seed: int = 0
    truth: tuple[float, float, float] = (1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Frame:
    """After `seen` actions: what each learner believes. `rational` takes the agent for rational, `joint` asks what kind it is."""

    seen: int
    rational: Posterior
    joint: Posterior
    rational_regret: float
    joint_regret: float


def world() -> GridWorld:
    return grid_world(MAP, goals="adv", slip=0.1, step_cost=0.02)


def values() -> Floats:
    """[R, 3]: every combination of what the goals may be worth."""
    return np.array(list(itertools.product(WORTHS, repeat=3)))


def watch(scene: Scene) -> Iterator[Frame]:
    """A frame after 0, 1, 3, 10, 30 … actions, and after the last. Actions are seen in states drawn at random."""
    grid, rng = world(), np.random.default_rng(scene.seed)
    every = values()
    rewards = np.stack([grid.reward(dict(zip(GOALS, v))) for v in every])
    table = policy_table(grid.mdp, rewards, {n: PLANNERS[n] for n in AGENTS})
    truth = int(np.flatnonzero((every == scene.truth).all(1))[0])
    policy = table[AGENTS.index(scene.agent), truth]
    states = rng.choice(np.flatnonzero(~grid.mdp.terminal), size=scene.demonstrations)
    actions = [int(rng.choice(grid.mdp.actions, p=policy[s])) for s in states]
    counts = np.zeros((grid.mdp.states, grid.mdp.actions))
    stops = {0, scene.demonstrations} | {n for k in range(8) for n in (10**k, 3 * 10**k) if n < scene.demonstrations}
    for n in range(scene.demonstrations + 1):
        if n in stops:
            rational, joint = posterior(table[:1], counts), posterior(table, counts)
            yield Frame(n, rational, joint, regret(grid.mdp, rewards[truth], rewards, rational.rewards),
                        regret(grid.mdp, rewards[truth], rewards, joint.rewards))
        if n < scene.demonstrations:
            counts[states[n], actions[n]] += 1


def worths(belief: Floats) -> Floats:
    """[3, W]: the believed distribution of each goal's worth."""
    every = values()
    return np.array([[belief[every[:, g] == w].sum() for w in WORTHS] for g in range(3)])
