"""Chains of good and bad turns: rates recovered, hidden personas found, honest chains left in peace."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest

from harken.core.errors import UserError
from harken.core.protocols import Estimate
from harken.stats.dynamics import _average, dynamics, js_divergence, loop_period, memory_test


def chain(rng, n, entry, escape, length=12, start=0.0):
    """Rollouts of a chain of order 1, of lengths from half of `length` to one and a half."""
    states = [rng.random(n) < start]
    for _ in range(length + length // 2):
        u = rng.random(n)
        states.append(np.where(states[-1], u >= escape, u < entry))
    table = np.stack(states, 1).astype(int)
    return [row[:k + 1] for row, k in zip(table, rng.integers(length // 2, length + length // 2, n))]


def persona(rng, n, share=0.25, bad=0.6, length=12):
    """A hidden persona: a rollout is toxic throughout (each turn bad with chance .6) or not (.02)."""
    return [[int(rng.random() < p) for _ in range(length)] for p in (bad if rng.random() < share else 0.02 for _ in range(n))]


def test_rates_by_hand():
    """From good: 0→0, 0→1, 0→1 and 0→0: 1/2. From bad: 1→1, 1→0, 1→1: 1/3. λ₂ = 1/6."""
    found = dynamics([[0, 0, 1, 1, 0], [0, 1, 1], [0, 0]], draws=50)
    assert found.entry.value == 0.5 and found.escape.value == pytest.approx(1 / 3)
    assert found.second_eigenvalue.value == pytest.approx(1 / 6) and found.relaxation.value == pytest.approx(1 / math.log(6))
    assert found.first.value == 2 and found.stay.value == pytest.approx(3) and found.share.value == pytest.approx(0.6)
    assert found.ever.value == pytest.approx(2 / 3) and (found.rollouts, found.turns) == (3, 10)


@pytest.mark.slow
def test_intervals_cover_at_the_stated_rate():
    """95 % intervals of both rates hold the truth in at least 90 of 100 simulations, for a common and a rare state."""
    for entry, escape in ((0.11, 0.45), (0.05, 0.03)):
        hits = np.zeros(2, int)
        for i in range(100):
            found = dynamics(chain(np.random.default_rng(i), 200, entry, escape, start=0.1), draws=2)
            hits += [e.low <= t <= e.high for e, t in ((found.entry, entry), (found.escape, escape))]
        assert (hits >= 90).all(), hits


def test_the_memory_test_is_the_likelihood_ratio_of_two_orders():
    """Brute force over runs of three: 2 ln L2 / L1, two degrees of freedom where both pasts lead to both states."""
    rows = [np.array(r) for r in chain(np.random.default_rng(5), 40, 0.3, 0.4)]
    runs = [tuple(map(int, r[i:i + 3])) for r in rows for i in range(len(r) - 2)]
    log = 0.0
    for i, j, k in runs:
        second = [c for a, b, c in runs if (a, b) == (i, j)]
        first = [c for a, b, c in runs if b == j]
        log += math.log(second.count(k) / len(second)) - math.log(first.count(k) / len(first))
    found = memory_test(rows)
    assert found.ratio == pytest.approx(2 * log) and found.degrees == 2
    assert found.p == pytest.approx(math.exp(-log))  # the upper tail of chi squared with two degrees of freedom


def test_memory_that_drives_away_from_bad_is_no_persona():
    """After two bad turns always a good one: remembered for certain, and no character that stays bad."""
    found = memory_test([np.array([0, 1, 1] * 8 + [0, 1, 0, 0] * 3)] * 20)
    assert found.p < 1e-6 and found.two_steps.value < found.two_steps_chain and not found.persona


def test_verdicts_need_the_whole_interval():
    found = dynamics([[0, 1, 1], [0, 0, 1, 1]] * 4, draws=20)
    assert found.escape.value == 0 and found.escape.high > 0.01 and not found.rarely_leaves
    spreads = {(1.5, 0.9): True, (1.5, 1.1): False, (1.2, 1.1): True}
    for (value, low), ergodic in spreads.items():
        assert dataclasses.replace(found, spread=Estimate(value, low, 3.0, 8, 0.95)).ergodic == ergodic


def test_a_hidden_persona_is_found_with_500_rollouts():
    for seed in range(8):
        found = dynamics(persona(np.random.default_rng(seed), 500), draws=50)
        assert found.memory.p < 0.001 and found.memory.persona and not found.ergodic
        assert found.memory.two_steps.low > found.memory.two_steps_chain


@pytest.mark.slow
def test_an_honest_chain_is_left_in_peace():
    """Of 200 chains of order 1, at most 5 % are rejected at .05, give or take two standard errors, and none has a persona."""
    tests = [memory_test([np.array(r) for r in chain(np.random.default_rng(i), 500, 0.11, 0.45, start=0.2)]) for i in range(200)]
    assert sum(t.p < 0.05 for t in tests) <= 10 + 6
    assert sum(t.persona for t in tests) <= 1
    found = [dynamics(chain(np.random.default_rng(i), 300, 0.11, 0.45, start=0.2), draws=30) for i in range(20)]
    assert sum(not f.ergodic for f in found) <= 1
    assert abs(np.mean([f.spread.value for f in found]) - 1) < 0.05


def test_the_variance_of_a_time_average_is_exact():
    """All 2^4 paths of a chain of four turns, weighed by their chances."""
    start, entry, escape = 0.3, 0.2, 0.4
    mean = square = 0.0
    for path in np.ndindex(2, 2, 2, 2):
        chance = start if path[0] else 1 - start
        for a, b in pairwise(path):
            leave = escape if a else entry
            chance *= leave if a != b else 1 - leave
        mean += chance * sum(path) / 4
        square += chance * (sum(path) / 4) ** 2
    assert _average(4, start, entry, escape) == pytest.approx((mean, square - mean**2), abs=1e-12)


def test_a_state_that_is_rarely_left_is_told_with_its_mean_time():
    found = dynamics(chain(np.random.default_rng(0), 400, 0.05, 0.002, length=60), draws=100)
    assert found.rarely_leaves and 150 < found.stay.value < 2000
    assert not dynamics(chain(np.random.default_rng(0), 400, 0.05, 0.05), draws=2).rarely_leaves


def test_recovery_after_the_first_bad_turn():
    """Of a chain that escapes with .5 and enters with .1: bad one turn later .5, then .3, .22."""
    found = dynamics(chain(np.random.default_rng(3), 4000, 0.1, 0.5, length=30), draws=2).recovery
    assert [round(e.value, 1) for e in found[:3]] == [0.5, 0.3, 0.2]
    assert all(e.low <= t <= e.high for e, t in zip(found, (0.5, 0.3, 0.22)))


def test_divergence_and_loops():
    assert js_divergence(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(math.log(2))
    assert js_divergence(np.array([[0.5, 0.5], [0.2, 0.8]]), np.array([[0.5, 0.5], [0.8, 0.2]])) == pytest.approx(
        [0, 0.8 * math.log(1.6) + 0.2 * math.log(0.4)])
    assert loop_period([5, 1, 2, 3, 1, 2, 3, 1, 2, 3]) == 3
    assert loop_period([7, 7, 7]) == 1 and loop_period([1, 2, 3, 4, 1, 2, 3, 4]) == 0 and loop_period([]) == 0


@pytest.mark.parametrize(("rollouts", "message"), [
    ([[0, 0, 0]], "after a bad turn"), ([], "after a good turn"), ([[0, 2, 1]], "neither 0"), ([[0, 0, 1]], "after a bad turn")])
def test_what_cannot_be_known_is_one_message(rollouts, message):
    with pytest.raises(UserError, match=message):
        dynamics(rollouts)
