"""Acting for a person of unknown goals: the value of asking, the off-switch game, a cooperative game of two steps."""

import functools

import numpy as np
import pytest
from scipy.stats import norm

from harken.goals.assistance import (
    Decision,
    Game,
    Question,
    acting,
    decide,
    deferring,
    incentive,
    perfect_information,
    rationality_needed,
    sample_information,
    switch,
    update,
)

HALF = np.array([0.5, 0.5])
PIES = np.array([[1.0, -1.0, 0.2], [-1.0, 1.0, 0.2]])  # wanted: apple, berry; done: apple, berry, plain bread


def heard(share):
    """An answer that is right with probability `share`."""
    return np.array([[share, 1 - share], [1 - share, share]])


# --- the value of asking ----------------------------------------------------------------------------

def test_information_by_hand():
    """Without asking, bread: 0.2. Told: 1. An answer right in 9 of 10 leaves 0.9 - 0.1 = 0.8 for the pie it names; one right
    in 6 of 10 leaves 0.2, as good as bread, and is worth nothing."""
    assert acting(HALF, PIES) == pytest.approx(0.2)
    assert perfect_information(HALF, PIES) == pytest.approx(0.8)
    assert sample_information(HALF, PIES, heard(0.9)) == pytest.approx(0.6)
    assert sample_information(HALF, PIES, heard(0.6)) == pytest.approx(0.0, abs=1e-12)
    assert sample_information(HALF, PIES, np.eye(2)) == pytest.approx(0.8)


def test_sample_information_lies_between_none_and_perfect():
    rng = np.random.default_rng(0)
    for _ in range(50):
        belief, worth = rng.dirichlet(np.ones(4)), rng.normal(size=(4, 3))
        answers = rng.dirichlet(np.ones(3), size=4)
        assert -1e-12 <= sample_information(belief, worth, answers) <= perfect_information(belief, worth) + 1e-12


@pytest.mark.parametrize(("share", "cost", "left", "expected"), [
    (0.9, 0.1, 1, Decision("ask", "which?", 0.7)),  # 0.8 less 0.1
    (0.9, 0.7, 1, Decision("act", 2, 0.2)),  # too dear
    (0.6, 0.0, 1, Decision("act", 2, 0.2)),  # free, but nothing would change
    (0.75, 0.05, 1, Decision("ask", "which?", 0.45)),  # 0.75 - 0.25 less 0.05
    (0.75, 0.05, 2, Decision("ask", "which?", 0.475)),  # answers agree in 5 of 8: 0.9 sure, 0.8; else bread, 0.2; less 0.1
])
def test_decide_by_hand(share, cost, left, expected):
    found = decide(HALF, PIES, {"which?": Question(heard(share), cost)}, left=left)
    assert (found.do, found.which) == (expected.do, expected.which)
    assert found.value == pytest.approx(expected.value)


def test_defers_to_who_knows_better_and_asks_where_deciding_is_a_burden():
    question = {"which?": Question(heard(0.9), 0.1)}
    assert decide(HALF, PIES, question, beta=np.inf, cost=0.2) == Decision("defer", "", pytest.approx(0.8))
    assert decide(HALF, PIES, question, beta=np.inf, cost=0.4).do == "ask"
    assert decide(HALF, PIES, question, beta=0.5, cost=0.0).do == "ask"  # asked, they are right more often than left alone


def test_the_promised_value_is_what_plays_earn():
    """4,000 plays with planted wants and noisy answers earn what `decide` said they would."""
    rng = np.random.default_rng(1)
    belief, question = np.array([0.6, 0.4]), {"which?": Question(heard(0.75), 0.05)}
    told = question["which?"].answers

    @functools.cache
    def step(answers):
        now = belief
        for answer in answers:
            now = update(now, told[:, answer])
        return decide(now, PIES, question, left=2 - len(answers))

    earned = []
    for wanted in rng.choice(2, p=belief, size=4000):
        answers = ()
        while step(answers).do == "ask":
            answers = (*answers, int(rng.random() < told[wanted, 1]))
        earned.append(PIES[wanted, step(answers).which] - 0.05 * len(answers))
    promised = step(()).value
    assert np.mean(earned) == pytest.approx(promised, abs=3.5 * np.std(earned) / np.sqrt(4000))


# --- the off-switch game ----------------------------------------------------------------------------

def test_off_switch_by_hand():
    """U is 3 or -1: E[U] = 1, E[max(U, 0)] = 1.5, so a rational veto gains 0.5. At β = 1 the person lets the good act pass
    with 1 / (1 + e^-3) and the bad one with 1 / (1 + e): 1.294391 - 1. A coin as person loses half of E[U]."""
    game = switch(np.array([3.0, -1.0]))
    assert incentive(HALF, game) == pytest.approx(0.5)
    assert incentive(HALF, game, 1.0) == pytest.approx((3 / (1 + np.exp(-3)) - 1 / (1 + np.exp(1))) / 2 - 1)
    assert incentive(HALF, game, 0.0) == pytest.approx(-0.5)


def test_incentive_shrinks_with_irrationality_in_closed_form():
    """U = ±1: half the difference of the logistics, tanh(β / 2) / 2."""
    betas = np.array([0.0, 0.1, 0.5, 1.0, 3.0, 10.0])
    found = [incentive(HALF, switch(np.array([1.0, -1.0])), b) for b in betas]
    assert found == pytest.approx(np.tanh(betas / 2) / 2)


def test_theorem_1_of_the_off_switch_game_with_a_normal_belief():
    """U ~ N(μ, σ²): E[max(U, 0)] = μ Φ(μ/σ) + σ φ(μ/σ). The surer the assistant (σ small), the less it gains from a veto."""
    belief = np.full(20_000, 1 / 20_000)
    z = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    gains = []
    for mu, sigma in ((-0.5, 1.0), (0.25, 1.0), (0.25, 0.3), (0.25, 0.05)):
        closed = mu * norm.cdf(mu / sigma) + sigma * norm.pdf(mu / sigma) - max(mu, 0)
        gains.append(incentive(belief, switch(mu + sigma * z)))
        assert gains[-1] == pytest.approx(closed, abs=1e-4) and gains[-1] >= -1e-12
    assert gains[1] > gains[2] > gains[3] and gains[3] < 1e-6


def test_rationality_needed_is_where_the_gain_turns():
    game = switch(np.array([3.0, -1.0]))
    beta = rationality_needed(HALF, game)
    assert incentive(HALF, game, beta) == pytest.approx(0.0, abs=1e-9)
    assert incentive(HALF, game, 0.9 * beta) < 0 < incentive(HALF, game, 1.1 * beta)
    assert rationality_needed(HALF, 1000 * game) == pytest.approx(beta / 1000)
    assert rationality_needed(HALF, switch(np.array([1.0, -1.0]))) == 0.0  # E[U] = 0: any tendency helps
    assert rationality_needed(HALF, switch(np.array([3.0, 1.0]))) == np.inf  # never wrong: a veto can only harm


def test_deferring_never_falls_with_rationality():
    rng = np.random.default_rng(2)
    for _ in range(20):
        belief, worth = rng.dirichlet(np.ones(3)), rng.normal(size=(3, 4))
        values = [deferring(belief, worth, b) for b in (0.0, 0.3, 1.0, 5.0, 50.0, np.inf)]
        assert (np.diff(values) >= -1e-12).all()
        assert values[-1] - acting(belief, worth) == pytest.approx(perfect_information(belief, worth))


# --- cooperation in two steps -----------------------------------------------------------------------

def clips_and_staples():
    """The example of Hadfield-Menell et al. (2016): the person makes 2 things, the assistant 90 (or 50 of each). A clip is
    worth θ, a staple 1 - θ, θ uniform; the cells' midpoints integrate the linear pieces exactly, their ends being on it."""
    theta = (np.arange(920) + 0.5) / 920
    prices = np.stack([theta, 1 - theta], axis=1)
    own = prices @ np.array([[2, 0], [1, 1], [0, 2]]).T
    helped = prices @ np.array([[90, 0], [50, 50], [0, 90]]).T
    return theta, Game(np.full(920, 1 / 920), own[:, :, None] + helped[:, None, :], own)


def test_teaching_beats_demonstrating_in_the_published_example():
    """Alone, the person makes two of the dearer: 92 · 3/4 = 69. As a team they make one of each for θ in [41/92, 51/92], and
    are worth 82 - 1171/92."""
    theta, game = clips_and_staples()
    shown = game.alone()
    acts = game.respond(shown)
    assert game.value(shown, acts) == pytest.approx(69.0)
    moves, together = game.cooperate()
    assert together.tolist() == [0, 1, 2]
    assert theta[moves.argmax(1) == 1][[0, -1]] == pytest.approx([41 / 92, 51 / 92], abs=1 / 920)
    assert game.value(moves, together) == pytest.approx(82 - 1171 / 92)


def pie_shop():
    """Wanted: apple pie 0.4, berry pie 0.3, bread 0.3. First moves: dough, berries, kneading. Acts: apples, berries (the
    wrong fruit spoils the pie: -2, and bread too: -1), lighting the oven (0.1)."""
    own = np.array([[0.0, -0.5, -1.0], [0.0, -0.1, -1.0], [-1.0, -1.0, 0.0]])
    helped = np.array([[1.0, -2.0, 0.1], [-2.0, 1.0, 0.1], [-1.0, -1.0, 0.1]])
    return Game(np.array([0.4, 0.3, 0.3]), own[:, :, None] + helped[:, None, :], own)


def test_inferring_hedging_and_teaching_beat_learning_then_optimising_by_hand():
    """Dough says apple to berry 4 : 3. Optimising the likelier earns 0.7 (4/7 - 6/7) = -0.2 there and 0.3 · 0.1 on bread:
    -0.17. Hedging lights the oven, 0.1. As a team the berry person starts with berries: 0.4 + 0.3 · 0.9 + 0.03 = 0.7."""
    game = pie_shop()
    shown = game.alone()
    assert game.value(shown, game.learn_then_optimise(shown)) == pytest.approx(-0.17)
    assert game.value(shown, game.respond(shown)) == pytest.approx(0.1)
    moves, acts = game.cooperate()
    assert game.value(moves, acts) == pytest.approx(0.7)
    assert moves.argmax(1).tolist() == [0, 1, 2]


def test_after_an_ambiguous_move_the_assistant_asks():
    """After dough: apple 4/7, berry 3/7. Told which, it earns 1 and not the oven's 0.1: an answer may cost 0.9."""
    game = pie_shop()
    belief = update(game.belief, game.alone()[:, 0])
    assert belief == pytest.approx([4 / 7, 3 / 7, 0])
    named = np.array([[1.0, 0], [0, 1], [1, 0]])
    assert decide(belief, game.worth[:, 0], {"which fruit?": Question(named, 0.05)}) == Decision(
        "ask", "which fruit?", pytest.approx(0.95))
    assert decide(belief, game.worth[:, 0], {"which fruit?": Question(named, 0.91)}).do == "act"


def test_the_team_is_never_worse_than_a_demonstration_or_a_guess():
    rng = np.random.default_rng(3)
    for _ in range(30):
        own, worth = rng.normal(size=(4, 3)), rng.normal(size=(4, 3, 3))
        game = Game(rng.dirichlet(np.ones(4)), own[:, :, None] + worth, own)
        shown = game.alone(beta=2.0)
        hedged = game.value(shown, game.respond(shown))
        assert game.value(shown, game.learn_then_optimise(shown)) <= hedged + 1e-12
        assert hedged <= game.value(*game.cooperate()) + 1e-12


def test_bad_tables_are_refused():
    with pytest.raises(ValueError, match="adding up to 1"):
        acting(np.array([0.5, 0.6]), PIES)
    with pytest.raises(ValueError, match="2 hypotheses, but a table of 3"):
        sample_information(HALF, PIES, np.eye(3))
    with pytest.raises(ValueError, match="add up to 1"):
        Question(np.ones((2, 2)))
    with pytest.raises(ValueError, match="no hypothesis allows"):
        update(HALF, np.zeros(2))
    with pytest.raises(ValueError, match="do not fit"):
        Game(HALF, np.zeros((2, 3, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="more than 100000"):
        Game(HALF, np.zeros((2, 9, 4)), np.zeros((2, 9))).cooperate()
