"""Feedback of every kind as a choice: worked by hand, against Bradley-Terry, and kinds combined."""

import itertools

import numpy as np
import pytest
from scipy.special import expit

from harken.goals.assistance import Question, decide, sample_information
from harken.goals.choice import (
    CONTINUE,
    OFF,
    Feedback,
    Paths,
    comparison,
    correction,
    demonstration,
    entropy,
    off,
    posterior,
    proxy_reward,
)
from harken.goals.mdp import grid_world

BETA = np.log(2)  # a choice worth 1 more is twice as likely
HALF = np.array([0.5, 0.5])
WORLD = grid_world(["aSb"], goals="ab")
PATHS = Paths.of(WORLD.mdp, 1)
A, STAY, B = (PATHS.states.index((1, s)) for s in range(3))
REWARDS = np.stack([WORLD.reward({"a": 1.0}), WORLD.reward({"b": 1.0})])
RETURNS = PATHS.returns(REWARDS)


def pushed(to):
    feedback, choices = correction(PATHS, STAY, BETA)
    return feedback, choices.tolist().index(to)


# --- by hand ----------------------------------------------------------------------------------------

@pytest.mark.parametrize(("seen", "expected"), [
    ([(demonstration(PATHS, BETA), A)], 2 / 3),  # 2 of 2 + 1 + 1 against 1 of 4
    ([(comparison(PATHS, A, B, BETA), 0)], 2 / 3),  # 2/3 against 1/3
    ([(comparison(PATHS, A, STAY, BETA), 0)], 4 / 7),  # 2/3 against 1/2
    ([pushed(A)], 2 / 3),  # among all three, as the demonstration
    ([(off(PATHS, A, 0, BETA), OFF)], 2 / 5),  # 1/3 against 1/2
    ([(off(PATHS, A, 0, BETA), CONTINUE)], 4 / 7),
    ([(proxy_reward(PATHS, REWARDS, BETA), 0)], 2 / 3),  # a's best path against b's
    ([(demonstration(PATHS, BETA), A), (comparison(PATHS, A, B, BETA), 0), (comparison(PATHS, A, STAY, BETA), 0),
      (off(PATHS, A, 0, BETA), OFF)], 32 / 41),  # odds 2 · 2 · 4/3 · 2/3
    ([], 1 / 2),
])
def test_posterior_by_hand(seen, expected):
    """A person in the middle of a S b wants a or b, 1 each; standing still is worth 0."""
    assert posterior(HALF, RETURNS, seen) == pytest.approx([expected, 1 - expected])


def test_a_grounding_may_be_a_set_of_paths():
    """"Move" stands for a or b, 1/2 to either person: √2 beside "left", 2 or 1, and "stay", 1."""
    words = Feedback(PATHS.sets([[A, B], [A], [STAY]]), BETA)
    root = np.sqrt(2)
    assert words.likelihood(RETURNS) == pytest.approx(np.array([[root, 2, 1] / (root + 3), [root, 1, 1] / (root + 2)]))


def test_a_comparison_is_bradley_terry_on_returns():
    rng = np.random.default_rng(0)
    returns = rng.normal(size=(7, len(PATHS)))
    found = comparison(PATHS, A, B, 3.0).likelihood(returns)[:, 0]
    assert found == pytest.approx(expit(3 * (returns[:, A] - returns[:, B])))


def test_paths_are_all_ways_through_the_world():
    """a S . : after two steps, left at once (it ends there), stay or go right, and from there again: 1 + 3 + 2 paths."""
    paths = Paths.of(grid_world(["aS."], goals="a", discount=0.5).mdp, 2)
    assert sorted(paths.states) == [(1, 0), (1, 1, 0), (1, 1, 1), (1, 1, 2), (1, 2, 1), (1, 2, 2)]
    assert paths.visits[paths.states.index((1, 1, 1))].tolist() == [0, 1.5, 0]  # entered at once and, halved, again
    assert paths.returns(np.array([[8.0, 1, 0]]))[0, paths.states.index((1, 1, 0))] == 1 + 0.5 * 8


def test_a_correction_stays_near_and_a_robot_switched_off_stands_still():
    world = grid_world(["S..", ".#.", "..g"], goals="g")
    paths = Paths.of(world.mdp, 4)
    over = paths.states.index(tuple(world.cells.index(c) for c in [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2)]))
    _, near = correction(paths, over, 1.0)
    assert over in near and all(sum(a != b for a, b in zip(paths.states[t], paths.states[over])) <= 1 for t in near)
    under = paths.states.index(tuple(world.cells.index(c) for c in [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]))
    assert under not in near
    held = paths.states[int(off(paths, over, 2, 1.0).grounding[OFF].argmax())]
    assert held == (*paths.states[over][:3], paths.states[over][2], paths.states[over][2])


def test_a_proxy_reward_says_nothing_about_what_is_not_there():
    """Inverse reward design: the lava is out of reach where the proxy was written, so a proxy without it clears it of
    nothing; a and b, which are there, are told apart."""
    world = grid_world(["aSbL"], goals="abL")
    paths = Paths.of(world.mdp, 2)
    wants = [{"a": 1.0, "L": lava} for lava in (0.0, -10.0)] + [{"b": 1.0, "L": lava} for lava in (0.0, -10.0)]
    returns = paths.returns(np.stack([world.reward(w) for w in wants]))
    proxies = np.stack([world.reward({"a": 1.0}), world.reward({"b": 1.0})])
    belief = posterior(np.full(4, 0.25), returns, [(proxy_reward(paths, proxies, 3.0), 0)])
    assert belief[0] == pytest.approx(belief[1]) and belief[2] == pytest.approx(belief[3])
    assert belief[:2].sum() == pytest.approx(expit(3.0))


# --- with the assistant -----------------------------------------------------------------------------

def test_feedback_is_a_question_an_assistant_may_ask():
    """Which of a and b? Worth asking at half the cost it can bear, not at twice. Comparing a path with itself is not."""
    worth = RETURNS[:, [A, B]]
    answers = comparison(PATHS, A, B, 3.0).likelihood(RETURNS)
    assert (gain := sample_information(HALF, worth, answers)) == pytest.approx(expit(3.0) - 0.5)
    assert decide(HALF, worth, {"a or b?": Question(answers, gain / 2)}).do == "ask"
    assert decide(HALF, worth, {"a or b?": Question(answers, gain * 2)}).do == "act"
    same = comparison(PATHS, A, A, 3.0).likelihood(RETURNS)
    assert sample_information(HALF, worth, same) == pytest.approx(0.0, abs=1e-12)


# --- kinds combined ---------------------------------------------------------------------------------

VALUES = np.array(list(itertools.product(range(4), repeat=3)), dtype=float)


def setting(seed):
    """A 3 x 4 world with three goals in reach of 4 steps, 64 rewards, and one of them the person's."""
    rng = np.random.default_rng(seed)
    while True:
        board = np.full(12, ".")
        board[rng.choice(12, 4, replace=False)] = list("Sabc")
        world = grid_world(["".join(row) for row in board.reshape(3, 4)], goals="abc", discount=0.9, step_cost=0.05)
        paths = Paths.of(world.mdp, 4)
        if all(paths.visits[:, goal].any() for goal in world.goals.values()):
            rewards = np.stack([world.reward(dict(zip("abc", v))) for v in VALUES])
            return rng, paths, rewards, int(rng.integers(len(VALUES)))


def ask(kind, rng, paths, rewards, beta):
    """Feedback of a kind, about paths drawn at random."""
    robot, other = (int(t) for t in rng.choice(len(paths), 2, replace=False))
    return {"demonstration": lambda: demonstration(paths, beta),
            "comparison": lambda: comparison(paths, robot, other, beta),
            "correction": lambda: correction(paths, robot, beta)[0],
            "off": lambda: off(paths, robot, int(rng.integers(len(paths.states[robot]) - 1)), beta),
            "proxy": lambda: proxy_reward(paths, rewards, beta)}[kind]()


KINDS = ("demonstration", "comparison", "correction", "off", "proxy")


def told(seed, kinds, beta):
    """The belief after one choice of each of `kinds` by a planted person, and which reward is theirs."""
    rng, paths, rewards, truth = setting(seed)
    returns, seen = paths.returns(rewards), []
    for kind in kinds:
        feedback = ask(kind, rng, paths, rewards, beta)
        seen.append((feedback, int(rng.choice(len(feedback.grounding), p=feedback.likelihood(returns)[truth]))))
    return posterior(np.full(len(VALUES), 1 / len(VALUES)), returns, seen), truth


def bits(kinds, beta):
    """[20]: the entropy left, over 20 seeds."""
    return np.array([entropy(told(seed, kinds, beta)[0]) for seed in range(20)])


@pytest.mark.slow
def test_kinds_combined_narrow_faster_than_any_alone_where_people_are_rational():
    """Six choices of a person who seldom errs (β = 50), 20 seeds. They show the same best path again and again, which tells
    what is best and never by how much: other kinds add what it leaves open."""
    alone = {kind: bits([kind] * 6, 50.0) for kind in KINDS}
    both = bits(["demonstration", "correction"] * 3, 50.0)
    for kind in ("demonstration", "correction"):
        gain = alone[kind] - both
        assert gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(20)
    assert bits([*KINDS, "demonstration"], 50.0).mean() < min(found.mean() for found in alone.values())


def test_of_people_who_err_demonstrations_alone_tell_most():
    """At β = 2 how often someone strays tells how little it matters to them, and one choice among all paths tells more than
    one of two: mixing helps against all other kinds but proxies, not against demonstrations."""
    mixed = bits([*KINDS, "demonstration"], 2.0).mean()
    assert bits(["demonstration"] * 6, 2.0).mean() < mixed
    assert mixed < min(bits([kind] * 6, 2.0).mean() for kind in ("comparison", "correction", "off"))


@pytest.mark.slow
def test_planted_reward_is_recovered_and_the_belief_is_as_sure_as_it_may_be():
    """100 choices of five kinds at β = 10, 20 seeds, 64 rewards. A calibrated belief gives the truth, on average, the mass
    Σ b² it expects to; and the smallest set of 90 % misses the truth no more often than chance allows."""
    held, expected, missed = [], [], 0
    for belief, truth in (told(seed, KINDS * 20, 10.0) for seed in range(20)):
        held.append(belief[truth])
        expected.append((belief ** 2).sum())
        missed += belief[belief > belief[truth]].sum() >= 0.9
    gap = np.array(held) - expected
    assert np.mean(held) > 20 / 64 and abs(gap.mean()) < 3 * gap.std(ddof=1) / np.sqrt(20)
    assert missed <= 5  # 6 or more of 20 at 10 % each: 1 in 90


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="without chance"):
        Paths.of(grid_world(["aSb"], goals="ab", slip=0.1).mdp, 1)
    with pytest.raises(ValueError, match="without chance"):
        Paths.of(grid_world(["a..b"], goals="ab").mdp, 1)
    with pytest.raises(ValueError, match="shorter length than 9"):
        Paths.of(grid_world(["....", ".S..", "...g"], goals="g").mdp, 9)
    with pytest.raises(ValueError, match="cannot be switched off after 1"):
        off(PATHS, A, 1, BETA)
    with pytest.raises(ValueError, match="no path at all"):
        PATHS.sets([[A], []])
    with pytest.raises(ValueError, match="finite β"):
        posterior(HALF, RETURNS, [(demonstration(PATHS, np.inf), STAY)])
