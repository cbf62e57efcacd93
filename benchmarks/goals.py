"""What a wrong mistake model costs: regret of learners that watch five kinds of agents (docs/goals.md).

    python benchmarks/goals.py [--worlds 20] [--quick] [--svg docs/goals_regret.svg]

6 × 6 grids, moves slip with chance 0.2, three goals worth 0 to 4 each (125 rewards). Actions are seen in states drawn at
random. Regret 0 is acting as well as can be for the agent, 1 is acting at random. Intervals are 95 %, over worlds.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from harken.goals.inference import policy_table, posterior, regret
from harken.goals.mdp import grid_world
from harken.goals.planners import PLANNERS
from harken.stats.intervals import mean_interval

AGENTS = ("optimal", "naive", "sophisticated", "myopic", "overconfident")
SEEN = (30, 100, 1000)
LEARNERS = ("rational", "joint", "oracle")


def one_world(seed: int, found: dict, distinct: int = 2) -> None:
    rng = np.random.default_rng(seed)
    rows = [["."] * 6 for _ in range(6)]
    for cell, name in zip(rng.choice(36, 3, replace=False), "abc"):
        rows[cell // 6][cell % 6] = name
    grid = grid_world(["".join(r) for r in rows], goals="abc", slip=0.2)
    every = np.array(list(itertools.product(range(5), repeat=3)), dtype=float)
    rewards = np.stack([grid.reward(dict(zip("abc", v))) for v in every])
    table = policy_table(grid.mdp, rewards, {n: PLANNERS[n] for n in AGENTS})
    truth = next(int(i) for i in rng.permutation(len(every)) if len(set(every[i])) >= distinct)
    for m, agent in enumerate(AGENTS):
        states = rng.choice(np.flatnonzero(~grid.mdp.terminal), size=max(SEEN))
        actions = [rng.choice(4, p=table[m, truth, s]) for s in states]
        for n in SEEN:
            counts = np.zeros((grid.mdp.states, 4))
            np.add.at(counts, (states[:n], actions[:n]), 1)
            joint = posterior(table, counts)
            beliefs = (posterior(table[:1], counts), joint, posterior(table[m:m + 1], counts))
            for learner, belief in zip(LEARNERS, beliefs):
                found[agent, learner, n].append(regret(grid.mdp, rewards[truth], rewards, belief.rewards))
            found[agent, "planner", n].append(min(1.0, float(joint.planners[m])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="2 worlds")
    parser.add_argument("--distinct", type=int, default=2, help="least number of different worths of the true goals")
    parser.add_argument("--svg", type=Path)
    args = parser.parse_args()
    found: dict = defaultdict(list)
    worlds = 2 if args.quick else args.worlds
    for seed in range(worlds):
        one_world(seed, found, args.distinct)
    figures = {}
    print("| true agent | taken for rational @30 / 100 / 1000 | joint | oracle @1000 | P(right kind) @1000 |")
    print("|---|---|---|---|---|")
    for agent in AGENTS:
        cell = {(x, n): mean_interval(found[agent, x, n]) for x in (*LEARNERS, "planner") for n in SEEN}
        show = {x: " / ".join(f"{cell[x, n].value:.3f}" for n in SEEN) for x in ("rational", "joint")}
        last = cell["rational", 1000]
        print(f"| {agent} | {show['rational']} [{last.low:.3f}, {last.high:.3f}] | {show['joint']} | "
              f"{cell['oracle', 1000].value:.3f} | {cell['planner', 1000].value:.3f} |")
        figures[agent] = {x: [round(cell[x, n].value, 4) for n in SEEN] for x in (*LEARNERS, "planner")}
    if args.svg:
        args.svg.write_text(picture(figures), encoding="utf-8")
    plateaus = sum(f["rational"][2] >= 0.04 and f["rational"][2] > 0.5 * f["rational"][1] for f in figures.values())
    print(json.dumps({"worlds": worlds, "plateaus": plateaus,
                      "joint_at_most_.01": sum(f["joint"][2] <= 0.01 for f in figures.values()),
                      "planner_identified": sum(f["planner"][2] >= 0.9 for f in figures.values()), "regret": figures}))


def picture(figures: dict) -> str:
    """Regret against actions seen, a panel an agent: solid is the joint learner, dashed takes everyone for rational."""
    top = max(0.05, *(max(f["rational"]) for f in figures.values()))
    parts = []
    for k, (agent, f) in enumerate(figures.items()):
        x0 = 30 + k * 150
        parts.append(f'<text x="{x0 + 55}" y="16" text-anchor="middle">{agent}</text>'
                     f'<path d="M{x0} 30V130H{x0 + 110}" class="axis"/>')
        for learner, style in (("rational", "wrong"), ("joint", "right")):
            points = " ".join(f"{x0 + 10 + i * 45},{130 - 100 * v / top:.1f}" for i, v in enumerate(f[learner]))
            parts.append(f'<polyline class="{style}" points="{points}"/>')
        parts += [f'<text x="{x0 + 10 + i * 45}" y="146" text-anchor="middle">{n}</text>' for i, n in enumerate(SEEN)]
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 790 170" role="img"><title>Regret against actions seen</title>
<style>text{{font:12px system-ui,sans-serif;fill:#555}}.axis{{stroke:#999;fill:none}}polyline{{fill:none;stroke-width:2.5}}
.wrong{{stroke:#c2410c;stroke-dasharray:5 4}}.right{{stroke:#0f766e}}</style>{"".join(parts)}
<text x="30" y="166">Regret (up to {top:.2f}) against actions seen.
Dashed: taken for rational. Solid: goal and kind of planner learnt together.</text>
</svg>
"""


if __name__ == "__main__":
    main()
