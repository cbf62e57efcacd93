"""Tabular Markov decision processes and grid worlds, solved exactly.

    world = grid_world(["S..g", ".#..", "...h"], goals="gh", slip=0.2)
    q, v = value_iteration(world.mdp, world.reward({"g": 1.0, "h": 3.0}))
    print(world.draw(q.argmax(1)))

Rewards are functions of the state that is entered: R [S']. An episode ends when a terminal state is entered.
Shape suffixes: `S` states, `A` actions, `T` time steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Steps = list[tuple[int, int]]
"""A demonstration: (state, action) pairs in order."""


@dataclass(frozen=True)
class MDP:
    """`transitions` [S, A, S'] are probabilities; from a terminal state nothing is gained and nothing follows.

    `start` [S] is the distribution of first states; `discount` in [0, 1], 1 only where every episode ends.
    Raises ValueError when the parts do not fit.
    """

    transitions: Floats
    terminal: NDArray[np.bool_]
    start: Floats
    discount: float = 0.95

    def __post_init__(self) -> None:
        S, _, following = self.transitions.shape
        if following != S or self.terminal.shape != (S,) or self.start.shape != (S,):
            raise ValueError(f"transitions [S, A, S], terminal [S] and start [S] do not fit: {self.transitions.shape}, "
                             f"{self.terminal.shape}, {self.start.shape}")
        if not np.allclose(self.transitions.sum(2), 1) or (self.transitions < 0).any() or not np.isclose(self.start.sum(), 1):
            raise ValueError("probabilities must be 0 or more and add up to 1")
        if not 0 <= self.discount <= 1:
            raise ValueError(f"the discount is {self.discount}, not in [0, 1]")

    @property
    def states(self) -> int:
        return int(self.transitions.shape[0])

    @property
    def actions(self) -> int:
        return int(self.transitions.shape[1])

    def expected(self, after: Floats) -> Floats:
        """[S, A]: the mean of `after` [S'] over what an action leads to; 0 from terminal states."""
        return np.where(self.terminal[:, None], 0.0, self.transitions @ after)


def backup(mdp: MDP, reward: Floats, value: Floats) -> Floats:
    """Q [S, A] = E[R(s') + discount V(s')], V being 0 in terminal states."""
    return mdp.expected(reward + mdp.discount * np.where(mdp.terminal, 0.0, value))


def value_iteration(mdp: MDP, reward: Floats, *, horizon: int | None = None, tolerance: float = 1e-10) -> tuple[Floats, Floats]:
    """Optimal Q [S, A] and V [S]; with `horizon` (1 or more) the best of that many steps. Raises ValueError if values
    do not converge."""
    value = np.zeros(mdp.states)
    q = backup(mdp, reward, value)
    for _ in range(10_000 if horizon is None else horizon):
        q = backup(mdp, reward, value)
        moved, value = float(np.abs(q.max(1) - value).max()), q.max(1)
        if horizon is None and moved < tolerance:
            return q, value
    if horizon is None:
        raise ValueError("values do not converge: use a discount below 1, or a horizon")
    return q, value


def soft_value_iteration(mdp: MDP, reward: Floats, beta: float, *, tolerance: float = 1e-10) -> tuple[Floats, Floats]:
    """Maximum causal entropy (Ziebart 2010): V = (1/β) log Σ_a exp(β Q), the policy is exp(β (Q - V)). β > 0."""
    value = np.zeros(mdp.states)
    for _ in range(10_000):
        q = backup(mdp, reward, value)
        new = np.where(mdp.terminal, 0.0, logsumexp(beta * q, axis=1) / beta)
        moved, value = float(np.abs(new - value).max()), new
        if moved < tolerance:
            return q, value
    raise ValueError("soft values do not converge: use a discount below 1")


def softmax(q: Floats, beta: float) -> Floats:
    """exp(β Q) normalised over actions, [S, A]; β = inf shares among the best actions."""
    if np.isinf(beta):
        best = np.isclose(q, q.max(1, keepdims=True), rtol=0, atol=1e-9)
        return np.asarray(best / best.sum(1, keepdims=True), dtype=np.float64)
    scaled = beta * (q - q.max(1, keepdims=True))
    return np.asarray(np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True)))


def evaluate(mdp: MDP, policy: Floats, reward: Floats) -> Floats:
    """V [S] of a policy [S, A], by solving the linear equations. With discount 1 every policy must end."""
    live = ~mdp.terminal
    step = np.einsum("sa,sat->st", policy, mdp.transitions)
    gain = step @ reward
    value = np.zeros(mdp.states)
    system = np.eye(int(live.sum())) - mdp.discount * step[np.ix_(live, live)]
    value[live] = np.linalg.solve(system, gain[live])
    return value


def occupancy(mdp: MDP, policy: Floats) -> Floats:
    """Discounted expected number of entries into each state, [S]: a reward's value from the start is occupancy · R."""
    live = ~mdp.terminal
    step = np.einsum("sa,sat->st", policy, mdp.transitions)
    visits = np.zeros(mdp.states)
    visits[live] = np.linalg.solve((np.eye(int(live.sum())) - mdp.discount * step[np.ix_(live, live)]).T, mdp.start[live])
    return np.asarray(visits @ step)


def sample(mdp: MDP, policy: Floats, rng: np.random.Generator, *, length: int = 50, start: int | None = None) -> Steps:
    """One episode of (state, action) pairs, at most `length` long."""
    state = int(rng.choice(mdp.states, p=mdp.start)) if start is None else start
    steps: Steps = []
    while len(steps) < length and not mdp.terminal[state]:
        action = int(rng.choice(mdp.actions, p=policy[state]))
        steps.append((state, action))
        state = int(rng.choice(mdp.states, p=mdp.transitions[state, action]))
    return steps


MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
ARROWS = "↑→↓←"


@dataclass(frozen=True)
class GridWorld:
    """A grid of cells; actions are up, right, down, left. `cells[s]` is (row, column); `goals[name]` its terminal state."""

    mdp: MDP
    rows: tuple[str, ...]
    cells: tuple[tuple[int, int], ...]
    goals: Mapping[str, int]
    step_cost: float

    def reward(self, values: Mapping[str, float]) -> Floats:
        """[S']: a goal's value on entering it, less the cost of every step. Raises ValueError on an unknown goal."""
        if unknown := sorted(set(values) - set(self.goals)):
            raise ValueError(f"no goal is called {', '.join(unknown)}; there are {', '.join(sorted(self.goals))}")
        reward = np.full(self.mdp.states, -self.step_cost)
        for name, state in self.goals.items():
            reward[state] += values.get(name, 0.0)
        return reward

    def draw(self, actions: Sequence[int] | Ints | None = None) -> str:
        """The map as text, with an arrow for each free cell's action where `actions` [S] are given."""
        board = [list(row) for row in self.rows]
        if actions is not None:
            for state, (r, c) in enumerate(self.cells):
                if not self.mdp.terminal[state]:
                    board[r][c] = ARROWS[int(actions[state])]
        return "\n".join("".join(row) for row in board)


def grid_world(rows: Sequence[str], *, goals: str, slip: float = 0.0, discount: float = 0.95, step_cost: float = 0.0,
               start: tuple[int, int] | None = None) -> GridWorld:
    """A world from its map: "#" walls, letters of `goals` terminal goals, "S" the start, anything else free.

    With probability `slip` the move is one of the four at random. A move into a wall stays. Without an "S" (or `start`)
    every free cell is an equally likely first state. Raises ValueError on a ragged map or a goal that is not on it.
    """
    if not rows or len({len(r) for r in rows}) != 1:
        raise ValueError("the map's rows must be of one length")
    cells = [(r, c) for r, row in enumerate(rows) for c, mark in enumerate(row) if mark != "#"]
    index = {cell: s for s, cell in enumerate(cells)}
    places = {rows[r][c]: index[r, c] for r, c in cells if rows[r][c] in goals}
    if missing := sorted(set(goals) - set(places)):
        raise ValueError(f"the map has no {', '.join(missing)}")
    S = len(cells)
    moved = np.zeros((S, 4, S))
    for s, (r, c) in enumerate(cells):
        for a, (dr, dc) in enumerate(MOVES):
            moved[s, a, index.get((r + dr, c + dc), s)] = 1.0
    transitions = (1 - slip) * moved + slip * moved.mean(1, keepdims=True)
    terminal = np.zeros(S, dtype=bool)
    terminal[list(places.values())] = True
    first = [index[cell] for cell in cells if rows[cell[0]][cell[1]] == "S"] if start is None else [index[start]]
    begin = np.zeros(S)
    begin[first or np.flatnonzero(~terminal)] = 1.0
    return GridWorld(MDP(transitions, terminal, begin / begin.sum(), discount), tuple(rows), tuple(cells), places, step_cost)
