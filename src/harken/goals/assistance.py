"""Act well for a person while it is uncertain what they want: act, ask, or let them decide.

    worth = np.array([[1.0, -1.0, 0.2],                  # they want apple pie: apples, berries, plain bread
                      [-1.0, 1.0, 0.2]])                 # they want berry pie
    decide(np.array([0.5, 0.5]), worth, {"which pie?": Question(np.eye(2), cost=0.1)})
    # Decision(do='ask', which='which pie?', value=0.9)

To learn a reward and then optimise it is to stop listening before the act. An assistant holds a belief over rewards, hedges,
asks where the answer would change what it does, and leaves room for a veto: it gains by that exactly because it doubts
(Hadfield-Menell et al. 2016, 2017; Shah et al. 2020).
Shape suffixes: `R` hypotheses about the reward, `A` acts of the assistant, `P` moves of the person, `C` answers.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from harken.goals.mdp import Floats, Ints, softmax

MOST_PLANS = 100_000


def checked(belief: Floats, *tables: Floats) -> None:
    """Raises ValueError unless the belief [R] is a distribution and each table has a row for every hypothesis."""
    if belief.ndim != 1 or (belief < 0).any() or not np.isclose(belief.sum(), 1):
        raise ValueError("a belief is one probability for each hypothesis, adding up to 1")
    for table in tables:
        if len(table) != len(belief) or not np.isfinite(table).all():
            raise ValueError(f"{len(belief)} hypotheses, but a table of {len(table)} rows (or of values that are not finite)")


def acting(belief: Floats, worth: Floats) -> float:
    """What the best act is expected to be worth now: max_a Σ_r b(r) U(r, a). `worth` [R, A]."""
    checked(belief, worth)
    return float((belief @ worth).max())


def deferring(belief: Floats, worth: Floats, beta: float = np.inf) -> float:
    """What it is worth when the person, who knows the reward, chooses among the acts with rationality β.

    It never falls as β grows: its derivative is the variance of the worth under the person's own choice.
    """
    checked(belief, worth)
    return float(belief @ (softmax(worth, beta) * worth).sum(1))


def perfect_information(belief: Floats, worth: Floats) -> float:
    """How much it is worth, before acting, to be told the reward: E[max U] - max E[U], 0 or more."""
    return deferring(belief, worth) - acting(belief, worth)


def sample_information(belief: Floats, worth: Floats, answers: Floats) -> float:
    """How much an answer is worth that only hints at the reward; `answers` [R, C] is P(answer | reward).

    It lies between 0, where no answer changes the act, and `perfect_information`.
    """
    checked(belief, worth, answers)
    return float((answers.T @ (belief[:, None] * worth)).max(1).sum()) - acting(belief, worth)


def switch(utility: Floats) -> Floats:
    """[R, 2]: the off-switch game as a table of worth: go on (U [R]) or be switched off (0)."""
    return np.stack([utility, np.zeros_like(utility)], axis=1)


def incentive(belief: Floats, worth: Floats, beta: float = np.inf) -> float:
    """How much the assistant gains by letting the person decide instead of acting for the best.

    For the off-switch game, `switch(U)`, a rational person makes it E[max(U, 0)] - max(E[U], 0), 0 or more (Hadfield-Menell
    et al. 2017, theorem 1); it shrinks with the assistant's doubt and with β, and below `rationality_needed` it is a loss.
    (Their β is a temperature, 1 / β here.)
    """
    return deferring(belief, worth, beta) - acting(belief, worth)


def rationality_needed(belief: Floats, worth: Floats) -> float:
    """The least β of a person to whom it is better to leave the decision; inf where their choice could change nothing."""
    if incentive(belief, worth, 0.0) >= 0:
        return 0.0
    scale = float(np.ptp(worth))
    if incentive(belief, worth) <= 1e-12 * scale:
        return float("inf")
    enough = 1 / scale
    while incentive(belief, worth, enough) < 0:
        enough *= 2
    return float(optimize.brentq(lambda beta: incentive(belief, worth, beta), 0.0, enough))


@dataclass(frozen=True)
class Question:
    """`answers` [R, C] is P(answer | reward), each row adding up to 1; `cost` in the units of worth, 0 or more."""

    answers: Floats
    cost: float = 0.0

    def __post_init__(self) -> None:
        if (self.answers < 0).any() or not np.allclose(self.answers.sum(1), 1) or self.cost < 0:
            raise ValueError("each row of answers must be probabilities that add up to 1, and the cost 0 or more")


@dataclass(frozen=True)
class Decision:
    """`do` is "act" (`which` is the act's index), "ask" (the question's name) or "defer"; `value` is what it is expected to
    be worth, less the costs."""

    do: str
    which: int | str
    value: float


def update(belief: Floats, seen: Floats) -> Floats:
    """Bayes' rule: the belief [R] after something of likelihood `seen` [R]. Raises ValueError if no hypothesis allows it."""
    joint = belief * seen
    if joint.sum() <= 0:
        raise ValueError("no hypothesis allows what was seen")
    return np.asarray(joint / joint.sum())


def decide(belief: Floats, worth: Floats, questions: Mapping[str, Question], *, left: int = 1, beta: float | None = None,
           cost: float = 0.0) -> Decision:
    """Act, ask or defer, whichever is worth most, by looking ahead over all answers to at most `left` questions.

    `beta` is the person's rationality where they can be left to decide (None: they cannot), at their `cost`. Every
    question's answers are independent given the reward. On a tie it acts rather than asks, and asks rather than defers.
    """
    act = int((belief @ worth).argmax())
    best = Decision("act", act, acting(belief, worth))
    for name, question in questions.items() if left > 0 else ():
        checked(belief, question.answers)
        value = -question.cost
        for seen in question.answers.T:
            if (chance := float(belief @ seen)) > 0:
                value += chance * decide(update(belief, seen), worth, questions, left=left - 1, beta=beta, cost=cost).value
        if value > best.value + 1e-12:
            best = Decision("ask", name, value)
    if beta is not None and (value := deferring(belief, worth, beta) - cost) > best.value + 1e-12:
        best = Decision("defer", "", value)
    return best


@dataclass(frozen=True)
class Game:
    """One move of a person who knows the reward, then one act of an assistant who does not: a cooperative inverse
    reinforcement learning game of two steps (Hadfield-Menell et al. 2016). Both gain `worth` [R, P, A]; `own` [R, P] is
    what a move is worth to the person where nobody helps."""

    belief: Floats
    worth: Floats
    own: Floats

    def __post_init__(self) -> None:
        checked(self.belief, self.worth, self.own)
        if self.worth.ndim != 3 or self.own.shape != self.worth.shape[:2]:
            raise ValueError(f"worth [R, P, A] and own [R, P] do not fit: {self.worth.shape}, {self.own.shape}")

    def alone(self, beta: float = np.inf) -> Floats:
        """P(move | reward), [R, P], of a person who acts as if nobody watched: a demonstration."""
        return softmax(self.own, beta)

    def respond(self, moves: Floats) -> Ints:
        """[P]: the act after each move that is best for the belief it leaves (for a move that nobody makes, the prior)."""
        joint = self.belief[:, None] * moves
        joint = np.where(joint.sum(0) > 0, joint, self.belief[:, None])
        return np.asarray(np.einsum("rp,rpa->pa", joint, self.worth).argmax(1))

    def learn_then_optimise(self, moves: Floats) -> Ints:
        """[P]: the act that is best for the one likeliest reward after each move, as if that were known."""
        joint = self.belief[:, None] * moves
        likeliest = np.where(joint.sum(0) > 0, joint, self.belief[:, None]).argmax(0)
        return np.asarray(self.worth[likeliest, np.arange(self.worth.shape[1])].argmax(1))

    def value(self, moves: Floats, acts: Ints) -> float:
        """What both can expect when the person moves by `moves` [R, P] and the assistant answers with `acts` [P]."""
        return float(self.belief @ (moves * self.worth[:, np.arange(len(acts)), acts]).sum(1))

    def cooperate(self) -> tuple[Floats, Ints]:
        """The best pair of moves [R, P] and acts [P], by trying every assistant; the person then does best against it, and
        so teaches. Raises ValueError where there are too many to try."""
        _, P, A = self.worth.shape
        if A ** P > MOST_PLANS:
            raise ValueError(f"{A} acts after each of {P} moves make {A ** P} assistants, more than {MOST_PLANS}")
        plans = (np.array(plan, dtype=np.int64) for plan in itertools.product(range(A), repeat=P))
        best = max(plans, key=lambda acts: float(self.belief @ self.worth[:, np.arange(P), acts].max(1)))
        return softmax(self.worth[:, np.arange(P), best], np.inf), best
