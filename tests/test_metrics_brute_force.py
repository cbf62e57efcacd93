"""Metrics beside their definitions, written out pair by pair, on random data with ties, missing and repeated items."""

import math
import random
from itertools import combinations

import pytest

from harken.core.records import Choice, Prompt
from harken.stats.couples import couples, judge_agreement
from harken.stats.pairs import evaluate_pairs
from harken.stats.reward_bench import TiedPrompt, ties_score
from harken.stats.testing import holm, mcnemar
from harken.stats.winrate import win_rate

SEEDS = range(3)


def choice(number, ranks):
    return Choice(Prompt.of(f"q{number}"), tuple("abcd"[:len(ranks)]), tuple(ranks))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_win_rate_is_the_mean_over_prompts_of_the_share_of_pairs(seed):
    rng = random.Random(seed)
    score = lambda: rng.choice([None, 0.0, 0.5, 1.0])  # noqa: E731
    a, b = ([[score() for _ in range(rng.randint(0, 3))] for _ in range(12)] for _ in range(2))
    shares, worst, best = [], [], []
    for x, y in zip(a, b):
        told = [(p > q) + (p == q) / 2 for p in x for q in y if p is not None and q is not None]
        every = [None if p is None or q is None else (p > q) + (p == q) / 2 for p in x for q in y]
        shares += [sum(told) / len(told)] if told else []
        if every:
            worst.append(sum(0 if t is None else t for t in every) / len(every))
            best.append(sum(1 if t is None else t for t in every) / len(every))
    found = win_rate(a, b)
    assert found.value.value == pytest.approx(sum(shares) / len(shares)) and found.value.n == len(shares)
    assert (found.worst, found.best) == (pytest.approx(sum(worst) / len(worst)), pytest.approx(sum(best) / len(best)))
    assert found.missing == sum(s is None for side in (a, b) for row in side for s in row)
    assert found.unscored_prompts == 12 - len(shares)


@pytest.mark.parametrize("seed", SEEDS)
def test_accuracy_counts_equal_scores_half_and_leaves_out_what_has_none(seed):
    rng = random.Random(seed)
    data = [choice(i % 7, [rng.randint(1, 3) for _ in range(rng.randint(2, 4))]) for i in range(25)]
    scores = [[rng.choice([None, math.nan, -math.inf, math.inf, 0.0, 1.0, 2.0]) for _ in c.ranks] for c in data]
    half, strict, missing, equal = [], [], 0, 0
    for c, row in zip(data, scores):
        for i, j in combinations(range(len(row)), 2):
            if c.ranks[i] == c.ranks[j]:
                continue
            good, bad = (row[i], row[j]) if c.ranks[i] < c.ranks[j] else (row[j], row[i])
            if any(s is None or math.isnan(s) for s in (good, bad)):
                missing += 1
                continue
            half.append(1.0 if good > bad else 0.5 if good == bad else 0.0)
            strict.append(good > bad)
            equal += good == bad
    found = evaluate_pairs(data, scores)
    assert found.accuracy.value == pytest.approx(sum(half) / len(half)) and found.strict.value == sum(strict) / len(strict)
    assert (found.missing, found.equal) == (missing, equal)


def test_accuracy_of_one_pair_of_equal_scores_and_of_infinite_ones():
    assert evaluate_pairs([choice(0, [1, 2])], [[1.0, 1.0]]).accuracy.value == 0.5
    found = evaluate_pairs([choice(0, [1, 2])], [[math.inf, 1.0]])
    assert found.accuracy.value == 1.0 and found.ece is None
    with pytest.raises(ValueError, match="no untied pair"):
        evaluate_pairs([choice(0, [1, 2])], [[math.nan, 1.0]])


@pytest.mark.parametrize("ties", ["count", "drop"])
@pytest.mark.parametrize("seed", SEEDS)
def test_agreement_is_the_share_of_equal_votes_over_couples_of_voters(seed, ties):
    rng = random.Random(seed)
    votes = [(rng.randrange(6), rng.randrange(4), rng.choice([-1, 0, 1])) for _ in range(40)]  # some vote twice on an item
    pairs = [(i, x == y) for (i, p, x), (j, q, y) in combinations(votes, 2)
             if i == j and p != q and (ties == "count" or (x and y))]
    found = couples(*zip(*votes), ties=ties)
    assert found.couples == len(pairs) and found.pooled.value == pytest.approx(sum(e for _, e in pairs) / len(pairs))
    items = sorted({i for i, _ in pairs})
    means = [sum(e for i, e in pairs if i == k) / sum(i == k for i, _ in pairs) for k in items]
    assert found.by_item.value == pytest.approx(sum(means) / len(means))
    judge = {i: rng.choice([-1, 0, 1]) for i in range(5)}  # item 5 was not judged
    told = [judge[i] == x for i, _, x in votes if i in judge and (ties == "count" or (x and judge[i]))]
    assert judge_agreement(judge, [v[0] for v in votes], [v[2] for v in votes],
                           ties=ties).pooled.value == pytest.approx(sum(told) / len(told))


def test_mcnemar_below_25_is_the_binomial_test_and_holm_steps_down():
    for only_a, only_b in ((0, 0), (1, 0), (3, 9), (12, 12)):
        n, low = only_a + only_b, min(only_a, only_b)
        tail = sum(math.comb(n, k) for k in range(low + 1)) / 2**n
        assert mcnemar(only_a, only_b) == pytest.approx(min(1.0, 2 * tail))
    p = [0.01, 0.04, 0.03, 0.005]
    order, most, expected = sorted(range(4), key=p.__getitem__), 0.0, [0.0] * 4
    for place, i in enumerate(order):
        expected[i] = most = max(most, min(1.0, (4 - place) * p[i]))
    assert holm(p).tolist() == pytest.approx(expected)


def test_a_reward_of_one_number_earns_nothing_for_ties():
    same = [TiedPrompt((1.0, 1.0), (1.0, 1.0))] * 3
    assert ties_score([TiedPrompt((1.0,), (1.0,))] * 3, same) == 0.0
