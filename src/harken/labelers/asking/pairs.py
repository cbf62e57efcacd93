"""Which question to ask next, and whom: the one that teaches most for a second of reading.

    belief = belief_of_features(fit_reliability(votes, phi=phi), phi)
    questions = pairs_to_ask(prompt, seconds=pace.seconds(…))        # all pairs of answers to one prompt
    chosen = next_items(belief, questions, 20)
    chosen.which, chosen.information, chosen.seconds                 # rows of `questions`, nats, seconds

A question is a pair put to a labeler of rationality beta. What it teaches ("bald") is the mutual information of the
answer and the scores, H(E p) - E H(p) (Houlsby et al. 2011, 1112.5745): high where the belief is unsure and the
labeler would not be. A labeler of beta 0 teaches nothing; one who is surely reversed as much as an honest one.
A batch is chosen one by one, and after each the covariance is what it will be once that question is answered (a
rank-one update by the expected Fisher information), so the second is not the first in other words.

Strategies: "bald"; "d_optimal" (log det of the posterior: 1/2 log(1 + w v)); and to compare with: "random", "margin"
(the most even pair: mere uncertainty sampling, which is often worse than random), "diversity" (k-center), "thompson"
(double Thompson sampling: the best answers under two draws, Dwaracherla et al. 2024, 2402.00396).

Shape suffixes: `N` questions, `I` items, `R` columns of the belief's root, `Q` nodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from harken.labelers.asking.belief import Belief
from harken.labelers.models.likelihood import Floats, Ints

Strategy = Literal["bald", "d_optimal", "random", "margin", "diversity", "thompson"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

NODES = np.linspace(-5.0, 5.0, 61)
"""Trapezoid rule in units of the sd: to 1e-5 up to an sd of 6, where Gauss–Hermite errs by 1e-2."""
MASS = np.exp(-(NODES**2) / 2) / np.exp(-(NODES**2) / 2).sum()
CHUNK = 16384
REFRESHED_AT_ONCE = 256
"""How many stale gains are brought up to date at once."""


@dataclass(frozen=True)
class Questions:
    """Pairs that could be asked. Several rows may be one pair, for several labelers."""

    a: Ints
    """[N] item."""
    b: Ints
    """[N] item to compare with it."""
    seconds: Floats
    """[N] reading and deciding."""
    beta: Floats
    """[N] rationality of who would be asked; 1 is the median labeler."""
    labeler: Ints
    """[N] who would be asked; 0 where nobody in particular."""

    def __post_init__(self) -> None:
        sizes = {len(getattr(self, f.name)) for f in dataclasses.fields(self)}
        if len(sizes) > 1:
            raise ValueError(f"the columns of questions have different lengths: {sorted(sizes)}")
        if not (self.seconds > 0).all() or (self.a == self.b).any():
            raise ValueError("a question needs a time above 0 and two different items")

    def __len__(self) -> int:
        return len(self.a)

    def for_labelers(self, beta: Floats, pace: Floats | None = None) -> Questions:
        """Every question for each of the labelers of `beta` [A], who read `pace` [A] times as long as most."""
        n, people = len(self), len(beta)
        times = np.ones(people) if pace is None else pace
        return Questions(np.tile(self.a, people), np.tile(self.b, people), np.outer(times, self.seconds).ravel(),
                         np.repeat(beta, n), np.repeat(np.arange(people), n))


@dataclass(frozen=True)
class Chosen:
    """What was chosen, in order. Each one's information is what it adds to those before it."""

    which: Ints
    """[n] rows of the questions."""
    information: Floats
    """[n] nats."""
    seconds: Floats
    """[n]"""

    @property
    def rate(self) -> float:
        """Nats per minute of reading, all together."""
        return float(60 * self.information.sum() / self.seconds.sum()) if len(self.which) else 0.0


def pairs_to_ask(prompt: Ints, seconds: Floats | None = None) -> Questions:
    """All pairs of items of one prompt (`prompt` [I]). `seconds` [I] is each item's reading time; default 1 a pair."""
    rows = [np.flatnonzero(prompt == p) for p in np.unique(prompt)]
    index = [np.stack(np.triu_indices(len(r), 1)) for r in rows]
    a = np.concatenate([r[i] for r, (i, _) in zip(rows, index)]) if rows else np.empty(0, dtype=np.int64)
    b = np.concatenate([r[j] for r, (_, j) in zip(rows, index)]) if rows else np.empty(0, dtype=np.int64)
    times = np.ones(len(a)) if seconds is None else seconds[a] + seconds[b]
    return Questions(a, b, times, np.ones(len(a)), np.zeros(len(a), dtype=np.int64))


# --- what an answer teaches --------------------------------------------------------------------------


def answers(eta: Floats, tie: float = 0.0) -> tuple[Floats, Floats, Floats]:
    """Entropy (nats), P(a) - P(b) and P(tie) of an answer with log-odds eta under Davidson's ties, any shape.

    P(a), P(tie), P(b) are proportional to 1, nu t, t^2 with t = e^(-|eta|/2) (a the better): one exponential and one
    logarithm give all.
    """
    half = np.abs(eta) / 2
    t = np.exp(-half)
    even = tie * t
    z = 1 + t * t + even
    tied = even / z
    surprise = np.log(z) + 2 * half * t * t / z
    if tie > 0:
        surprise = surprise + tied * (half - np.log(tie))
    return surprise, np.sign(eta) * (1 - t * t) / z, tied


def nodes(mean: Floats, variance: Floats, beta: Floats | float) -> Floats:
    """[N, Q] log-odds of the answer where the belief is integrated."""
    return np.asarray(np.asarray(beta)[..., None] * (mean[:, None] + np.sqrt(variance)[:, None] * NODES))


def information(mean: Floats, variance: Floats, beta: Floats | float = 1.0, tie: float = 0.0) -> Floats:
    """BALD: H(E p) - E H(p) in nats, [N], of an answer about log-odds with this mean and variance [N]."""
    surprise, gap, tied = answers(nodes(mean, variance, beta), tie)
    gap, tied = gap @ MASS, tied @ MASS
    p = np.stack([(1 - tied + gap) / 2, tied, (1 - tied - gap) / 2])
    before = -(p * np.log(np.maximum(p, 1e-300))).sum(0)
    return np.asarray(np.maximum(before - surprise @ MASS, 0.0))


def expected_fisher(mean: Floats, variance: Floats, beta: Floats | float = 1.0, tie: float = 0.0) -> Floats:
    """[N] what the answer is expected to add to the precision of the log-odds: beta^2 E p (1 - p) where nothing ties."""
    _, gap, tied = answers(nodes(mean, variance, beta), tie)
    return np.asarray(np.square(beta) * ((1 - tied - gap**2) / 4 @ MASS))


# --- choosing a batch --------------------------------------------------------------------------------


class _Batch:
    """The belief as it will be once the questions picked so far are answered. Variances only fall."""

    def __init__(self, belief: Belief, questions: Questions) -> None:
        self.belief, self.q = belief, questions
        self.mean = belief.mean[questions.a] - belief.mean[questions.b]
        self.variance = np.empty(len(questions))
        for at in range(0, len(questions), CHUNK):
            rows = slice(at, at + CHUNK)
            self.variance[rows] = belief.difference(questions.a[rows], questions.b[rows])[1]
        self.root = belief.root.copy()

    def gains(self, rows: Ints, strategy: Strategy = "bald") -> Floats:
        """What each of these questions would teach now; [len(rows)]."""
        out = np.empty(len(rows))
        for at in range(0, len(rows), CHUNK):
            r = rows[at:at + CHUNK]
            mean, variance, beta = self.mean[r], self.variance[r], self.q.beta[r]
            if strategy == "d_optimal":
                out[at:at + CHUNK] = np.log1p(expected_fisher(mean, variance, beta, self.belief.tie) * variance) / 2
            else:
                out[at:at + CHUNK] = information(mean, variance, beta, self.belief.tie)
        return out

    def answer(self, row: int) -> Floats:
        """Conditions on this question's answer; returns [N] the covariance its log-odds had with every question's."""
        a, b, v = int(self.q.a[row]), int(self.q.b[row]), float(self.variance[row])
        one = np.array([row])
        w = float(expected_fisher(self.mean[one], self.variance[one], self.q.beta[one], self.belief.tie)[0])
        u = self.root[a] - self.root[b]
        g = self.root @ u
        taken = w / (1 + w * v)
        if v > 0:  # root (I - k uu') is a root of Sigma - taken g g', for 2 k - k^2 v = taken
            self.root -= (1 - np.sqrt(1 - taken * v)) / v * np.outer(g, u)
        cross = g[self.q.a] - g[self.q.b]
        self.variance = np.maximum(self.variance - taken * cross**2, 0.0)
        return np.asarray(cross)


def next_items(belief: Belief, questions: Questions, n: int, *, strategy: Strategy = "bald",
               quota: Mapping[int, int] | None = None, per_second: bool = True, explore: float = 0.0, seed: int = 0) -> Chosen:
    """The next n questions (fewer if there are no more), the best first. `quota` caps how many each labeler gets.

    No question is asked twice, though its pair may be put to two labelers. `per_second=False` values an answer
    whatever it takes to give. `explore` is the chance that a pick is random instead: insurance against a belief that is
    sure of what is not so, as where the features cannot tell what people see. Information is always BALD's, whatever chose.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, found {n}")
    batch, rng = _Batch(belief, questions), np.random.default_rng(seed)
    cost = questions.seconds if per_second else np.ones(len(questions))
    left = dict(quota or {})
    open_ = np.array([left.get(int(k), 1) > 0 for k in questions.labeler], dtype=bool)
    pick, lottery = _picker(batch, cost, strategy, rng), _Random(batch, cost, strategy, rng)
    which: list[int] = []
    taught: list[float] = []
    while len(which) < n and open_.any():
        row = (lottery if explore > 0 and rng.random() < explore else pick)(open_)
        which.append(row)
        taught.append(float(batch.gains(np.array([row]))[0]))
        pick.note(row, batch.answer(row))
        open_[row] = False
        who = int(questions.labeler[row])
        if who in left:
            left[who] -= 1
            if left[who] <= 0:
                open_ &= questions.labeler != who
    rows = np.array(which, dtype=np.int64)
    return Chosen(rows, np.array(taught), questions.seconds[rows])


class _Greedy:
    """The largest gain for its cost. A gain only falls as others are picked (a smaller variance teaches less), so a gain
    computed earlier is a bound, and most are never computed again (Minoux 1978)."""

    def __init__(self, batch: _Batch, cost: Floats, strategy: Strategy, rng: np.random.Generator) -> None:
        self.batch, self.cost, self.strategy = batch, cost, strategy
        self.bound = batch.gains(np.arange(len(cost)), strategy) / cost
        self.fresh = np.ones(len(cost), dtype=bool)

    def __call__(self, open_: np.ndarray) -> int:
        bound = np.where(open_, self.bound, -np.inf)
        while True:
            best = int(bound.argmax())
            if self.fresh[best]:
                return best
            stale = np.flatnonzero(~self.fresh & open_)
            if len(stale) > REFRESHED_AT_ONCE:
                stale = stale[np.argpartition(-bound[stale], REFRESHED_AT_ONCE)[:REFRESHED_AT_ONCE]]
            bound[stale] = self.bound[stale] = self.batch.gains(stale, self.strategy) / self.cost[stale]
            self.fresh[stale] = True

    def note(self, row: int, cross: Floats) -> None:
        self.fresh[:] = False


class _Random:
    def __init__(self, batch: _Batch, cost: Floats, strategy: Strategy, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(self, open_: np.ndarray) -> int:
        return int(self.rng.choice(np.flatnonzero(open_)))

    def note(self, row: int, cross: Floats) -> None:
        pass


class _Margin(_Random):
    """The most even answer, as the mean of the belief has it."""

    def __init__(self, batch: _Batch, cost: Floats, strategy: Strategy, rng: np.random.Generator) -> None:
        self.unsure = answers(batch.q.beta * batch.mean)[0] / cost

    def __call__(self, open_: np.ndarray) -> int:
        return int(np.where(open_, self.unsure, -np.inf).argmax())


class _Diversity(_Random):
    """k-center (Gonzalez 1985; Sener and Savarese 2018): the question farthest from those picked, by the sd of the
    difference of their log-odds; a pair turned round is the same pair."""

    def __init__(self, batch: _Batch, cost: Floats, strategy: Strategy, rng: np.random.Generator) -> None:
        self.prior, self.root, self.q = batch.variance.copy(), batch.belief.root, batch.q
        self.far = batch.variance.copy()

    def __call__(self, open_: np.ndarray) -> int:
        return int(np.where(open_, self.far, -np.inf).argmax())

    def note(self, row: int, cross: Floats) -> None:
        g = self.root @ (self.root[self.q.a[row]] - self.root[self.q.b[row]])
        self.far = np.minimum(self.far, self.prior + self.prior[row] - 2 * np.abs(g[self.q.a] - g[self.q.b]))


class _Thompson(_Random):
    """Double Thompson sampling over the questions: the pair whose a is liked best under one draw and b under another.

    An item's rivals are those it could be compared with. Two draws that agree are drawn again, `TRIES` times at most.
    """

    TRIES = 30

    def __init__(self, batch: _Batch, cost: Floats, strategy: Strategy, rng: np.random.Generator) -> None:
        self.rng, self.batch = rng, batch

    def __call__(self, open_: np.ndarray) -> int:
        rows = np.flatnonzero(open_)
        q, start = self.batch.q, int(self.rng.choice(rows))
        touch = rows[np.isin(q.a[rows], (q.a[start], q.b[start])) | np.isin(q.b[rows], (q.a[start], q.b[start]))]
        items = np.unique(np.r_[q.a[touch], q.b[touch]])
        near = rows[np.isin(q.a[rows], items) & np.isin(q.b[rows], items)]
        root, mean = self.batch.belief.root[items], self.batch.belief.mean[items]
        for _ in range(self.TRIES):
            one, two = items[(mean + self.rng.standard_normal((2, root.shape[1])) @ root.T).argmax(1)]
            matches = near[((q.a[near] == one) & (q.b[near] == two)) | ((q.a[near] == two) & (q.b[near] == one))]
            if one != two and len(matches):
                return int(matches[0])
        return start


def _picker(batch: _Batch, cost: Floats, strategy: Strategy, rng: np.random.Generator) -> _Greedy | _Random:
    kinds: dict[str, type[_Greedy] | type[_Random]] = {
        "bald": _Greedy, "d_optimal": _Greedy, "random": _Random, "margin": _Margin, "diversity": _Diversity,
        "thompson": _Thompson}
    if strategy not in kinds:
        raise ValueError(f"{strategy!r} is no strategy; there are {', '.join(STRATEGIES)}")
    return kinds[strategy](batch, cost, strategy, rng)
