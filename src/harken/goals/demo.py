"""The posterior narrowing: what a learner believes of an agent's goal as it watches, with and without a mistake model.

    frames = watch(Scene(agent="naive", demonstrations=200, seed=0))
"""

from __future__ import annotations

import html
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


STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem}
body{color:#1d2733;background:#fbfaf7}h1{font-size:1.5rem}table{border-collapse:collapse;width:100%}
td,th{padding:.35rem .6rem;text-align:left;vertical-align:middle;border-top:1px solid #d8d5cc}
rect{fill:#0f766e}.back{fill:#e6e3da}text{font:11px system-ui;fill:currentColor}
.num{text-align:right;font-variant-numeric:tabular-nums}pre{line-height:1.15}
@media(prefers-color-scheme:dark){body{color:#e4e7ea;background:#14181d}.back{fill:#2a3038}rect{fill:#2dd4bf}
td,th{border-color:#333b45}}"""


def page(scene: Scene, frames: list[Frame]) -> str:
    """One offline HTML page of all frames."""
    heads = "".join(f"<th>worth of {name}</th>" for name in GOALS.values())
    rows = []
    for f in frames:
        bars = "".join(f"<td>{_bars(row, [f'{w:g}' for w in WORTHS])}</td>" for row in worths(f.joint.rewards))
        kinds = _bars(f.joint.planners, [a[:4] for a in AGENTS])
        rows.append(f'<tr><td class="num">{f.seen}</td>{bars}<td>{kinds}</td><td class="num">{f.joint_regret:.3f}</td>'
                    f'<td class="num">{f.rational_regret:.3f}</td></tr>')
    truth = ", ".join(f"{name} {w:g}" for name, w in zip(GOALS.values(), scene.truth))
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>What does it want?</title><style>{STYLE}</style><h1>What does it want?</h1>
<p>A {html.escape(scene.agent)} agent is watched. In truth its goals are worth: {truth}. The learner asks at once what the agent
wants and what kind of planner it is; what it believes is below, after more and more actions. Regret 0: it serves the agent as
well as can be; 1: no better than acting at random. The last column is a learner that takes every agent for rational.</p>
<pre>{html.escape(world().draw())}</pre>
<table><tr><th>actions seen</th>{heads}<th>kind of planner</th><th>regret</th><th>if taken for rational</th></tr>
{"".join(rows)}</table>"""


def _bars(shares: Floats, labels: list[str]) -> str:
    """A small bar chart with its numbers in the title."""
    wide = 26
    title = ", ".join(f"{label}: {p:.2f}" for label, p in zip(labels, shares))
    parts = [f'<rect class="back" x="{i * wide}" y="0" width="{wide - 5}" height="40"/>'
             f'<rect x="{i * wide}" y="{40 - 40 * p:.1f}" width="{wide - 5}" height="{40 * p:.1f}"/>'
             f'<text x="{i * wide + (wide - 5) / 2}" y="52" text-anchor="middle">{label}</text>'
             for i, (p, label) in enumerate(zip(shares, labels))]
    return (f'<svg role="img" width="{wide * len(labels)}" height="56"><title>{html.escape(title)}</title>{"".join(parts)}</svg>')
