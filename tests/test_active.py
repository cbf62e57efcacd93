"""Choosing questions: information by hand and by brute force, batches that are not redundant, whom to ask, what is settled."""

from dataclasses import replace

import numpy as np
import pytest

from harken.core.records import Judgment, Prompt
from harken.labelers.asking import belief, overlap, pace
from harken.labelers.asking import pairs as active
from harken.labelers.asking import sets as active_sets
from harken.labelers.asking.belief import Belief
from harken.labelers.asking.features import TextFeatures
from harken.labelers.asking.pairs import Questions, information, next_items, pairs_to_ask
from harken.labelers.models.reliability import Priors, fit_reliability
from labeler_worlds import world

ONE = np.ones(1)


def questions(a, b, seconds=None, beta=None):
    n = len(a)
    return Questions(np.array(a), np.array(b), np.ones(n) if seconds is None else np.array(seconds, dtype=float),
                     np.ones(n) if beta is None else np.array(beta, dtype=float), np.zeros(n, dtype=np.int64))


def brute_force(mean, sd, tie=0.0):
    """H(E p) - E H(p) on 200,001 points."""
    z = np.linspace(-10, 10, 200_001)
    mass = np.exp(-z * z / 2) / np.exp(-z * z / 2).sum()
    eta = mean + sd * z
    p = np.stack([np.exp(eta / 2), np.full_like(eta, tie), np.exp(-eta / 2)])
    p /= p.sum(0)

    def entropy(q):
        return -(q * np.log(np.maximum(q, 1e-300))).sum(0)
    return entropy(p @ mass) - entropy(p) @ mass


@pytest.mark.parametrize("tie", [0.0, 0.7])
@pytest.mark.parametrize("sd", [0.1, 1.0, 4.0, 10.0])
@pytest.mark.parametrize("mean", [0.0, -1.5, 6.0])
def test_bald_is_the_integral(mean, sd, tie):
    got = information(mean * ONE, sd**2 * ONE, ONE, tie)[0]
    assert got == pytest.approx(brute_force(mean, sd, tie), abs=3e-5)


def test_bald_of_a_sure_and_of_a_wild_belief():
    """Nothing to learn where the score is known; nearly ln 2 where it could be anything."""
    assert information(2 * ONE, 0 * ONE)[0] == pytest.approx(0, abs=1e-12)
    assert 0.6 < information(0 * ONE, 400 * ONE)[0] < np.log(2)


def test_information_never_rises_as_the_belief_narrows():
    """Lazy greedy rests on it."""
    sd = np.linspace(0.01, 8, 300)
    for mean in np.linspace(0, 8, 17):
        for tie in (0.0, 0.5):
            assert (np.diff(information(np.full(300, mean), sd**2, 1.0, tie)) > -1e-6).all()


def test_two_candidates_by_hand():
    """Scores of three items: variances 4, 1, 0 and independent. Items 0 and 2 differ with variance 4, items 1 and 2 with 1.

    At mean 0 the first teaches more. It is twice as long to read at three times the seconds, so per second the other wins.
    """
    known = Belief(np.zeros(3), np.diag([2.0, 1.0, 0.0]))
    assert next_items(known, questions([1, 0], [2, 2]), 1).which.tolist() == [1]
    first, second = (information(0 * ONE, v * ONE)[0] for v in (4.0, 1.0))
    assert second < first < 3 * second
    got = next_items(known, questions([1, 0], [2, 2], seconds=[1, 3]), 2)
    assert got.which.tolist() == [0, 1]
    assert got.rate == pytest.approx(60 * (first + second) / 4)


def test_update_by_hand():
    """One score of variance 4 at mean 0, asked against a known 0: w = E p(1-p), variance after 4 / (1 + 4 w)."""
    known = Belief(np.zeros(3), np.array([[2.0], [0.0], [2.0]]))  # items 0 and 2 are one and the same
    z = np.random.default_rng(0).normal(size=400_000)
    p = 1 / (1 + np.exp(-2 * z))
    w = (p * (1 - p)).mean()
    got = next_items(known, questions([0, 2], [1, 1]), 2)
    assert got.information[1] == pytest.approx(information(0 * ONE, 4 / (1 + 4 * w) * ONE)[0], rel=5e-3)


def test_root_update_is_the_inverse_of_the_precision():
    rng = np.random.default_rng(1)
    phi = rng.normal(size=(30, 5))
    known = Belief(phi @ rng.normal(size=5), phi)
    batch = active._Batch(known, pairs_to_ask(np.repeat([0, 1, 2], 10)))
    precision = np.eye(5)
    for row in (3, 50, 100, 3):
        x = phi[batch.q.a[row]] - phi[batch.q.b[row]]
        w = active.expected_fisher(batch.mean[[row]], batch.variance[[row]])[0]
        batch.answer(row)
        precision += w * np.outer(x, x)
    covariance = phi @ np.linalg.inv(precision) @ phi.T
    np.testing.assert_allclose(batch.root @ batch.root.T, covariance, atol=1e-10)
    x = phi[batch.q.a] - phi[batch.q.b]
    np.testing.assert_allclose(batch.variance, np.einsum("nd,de,ne->n", x, np.linalg.inv(precision), x), atol=1e-10)


def test_a_batch_is_not_the_same_question_again():
    """Pairs 0-1 and 2-3 have the same features; a third, of a little less information, points elsewhere."""
    phi = np.array([[1.0, 0], [-1, 0], [1, 0], [-1, 0], [0, 0.9], [0, -0.9]])
    known = Belief(np.zeros(6), 1.5 * phi)
    got = next_items(known, questions([0, 2, 4], [1, 3, 5]), 2)
    assert sorted(got.which.tolist()) in ([0, 2], [1, 2])


@pytest.mark.parametrize("strategy", ["bald", "d_optimal"])
def test_lazy_greedy_is_greedy(strategy):
    rng = np.random.default_rng(2)
    phi = rng.standard_t(3, size=(200, 6))
    known = Belief(phi @ rng.normal(size=6), phi, tie=0.5)
    q = questions(rng.integers(0, 100, 600), rng.integers(100, 200, 600), seconds=rng.uniform(1, 9, 600))
    batch, picked = active._Batch(known, q), []
    for _ in range(15):
        gain = batch.gains(np.arange(600), strategy) / q.seconds
        gain[picked] = -1
        picked.append(int(gain.argmax()))
        batch.answer(picked[-1])
    assert next_items(known, q, 15, strategy=strategy).which.tolist() == picked


def test_whom_to_ask():
    """A coin teaches nothing, a reversed labeler as much as an honest one, a keener one more; nobody beyond their quota."""
    known = Belief(np.zeros(4), 0.7 * np.eye(4))
    each = questions([0, 2], [1, 3]).for_labelers(np.array([1.0, 0.0, -1.0, 2.0]))
    told = information(np.zeros(8), np.full(8, 0.98), each.beta)
    assert told[2] == 0 and told[0] == pytest.approx(told[4]) and told[6] > told[0]
    got = next_items(known, each, 8, quota={0: 2, 1: 0, 2: 1, 3: 1})
    people = each.labeler[got.which].tolist()
    assert people[0] == 3 and sorted(people) == [0, 0, 2, 3]


def test_slow_readers_cost_more():
    each = questions([0], [1], seconds=[10]).for_labelers(np.ones(2), np.array([1.0, 2.0]))
    assert each.seconds.tolist() == [10, 20]
    assert each.labeler[next_items(Belief(np.zeros(2), np.eye(2)), each, 1).which].tolist() == [0]


def test_margin_asks_the_even_pair_and_diversity_the_far_ones():
    known = Belief(np.array([0.0, 3.0, 0.1, 0.0]), np.array([[0.0], [5.0], [0.1], [0.0]]))
    q = questions([1, 2], [0, 3])
    assert next_items(known, q, 1, strategy="margin").which.tolist() == [1]
    assert next_items(known, q, 1, strategy="diversity").which.tolist() == [0]
    phi = np.eye(4)[[0, 1, 0, 2, 0, 3]] * np.array([3, 3, 3, 3, 1, 1])[:, None]
    got = next_items(Belief(np.zeros(6), phi), questions([0, 2, 4, 0], [1, 3, 5, 1]), 2, strategy="diversity")
    assert set(got.which.tolist()) == {0, 1} or set(got.which.tolist()) == {3, 1}


def test_thompson_compares_contenders():
    """Two answers may be the best, two surely are not: only the first pair is asked."""
    known = Belief(np.array([1.0, 1.0, -9, -9]), np.diag([1.0, 1.0, 0.1, 0.1]))
    q = pairs_to_ask(np.zeros(4, dtype=np.int64))
    for seed in range(5):
        row = next_items(known, q, 1, strategy="thompson", seed=seed).which[0]
        assert {int(q.a[row]), int(q.b[row])} == {0, 1}


def test_explore_and_seeds():
    known, q = Belief(np.zeros(50), np.diag(np.linspace(0.1, 2, 50))), pairs_to_ask(np.zeros(50, dtype=np.int64))
    plain = next_items(known, q, 10).which
    assert (next_items(known, q, 10, seed=5).which == plain).all()
    some = next_items(known, q, 10, explore=0.5, seed=5).which
    assert (some != plain).any() and len(set(some.tolist())) == 10
    assert len(next_items(known, questions([0], [1]), 5).which) == 1


def test_belief_of_items_has_the_fits_spread():
    """The table's posterior agrees with fit_reliability's own intervals, and with its draws where it is too large to factor."""
    _, votes = world(0, [1.0] * 6, 400, items=30)
    found = fit_reliability(votes, model="plain", prior=Priors(score=1.0), draws=2000)
    known = belief.belief_of_items(found, votes)
    centre = np.eye(30) - 1 / 30
    sd = np.sqrt(np.diag(centre @ known.root @ known.root.T @ centre))
    np.testing.assert_allclose(sd, found.score_sd, rtol=0.1)


def test_belief_of_features_scores_new_items():
    _, votes = world(1, [1.0] * 4, 600, items=40)
    phi = np.random.default_rng(0).normal(size=(40, 3))
    found = fit_reliability(votes, phi=phi)
    known = belief.belief_of_features(found, np.eye(3))
    np.testing.assert_allclose(known.mean, found.weights)
    np.testing.assert_allclose(known.root @ known.root.T, found.covariance, atol=1e-12)
    with pytest.raises(ValueError, match="features"):
        belief.belief_of_features(found, np.eye(4))


def test_active_choice_beats_random_on_a_planted_reward():
    """5.3(b) in small: after 80 labels of a heavy-tailed pool BALD's weights are nearer the planted ones, over 4 seeds."""
    def angle(seed, strategy):
        rng = np.random.default_rng(seed)
        w, pool = rng.normal(size=8), rng.normal(size=(600, 8)) / np.sqrt(rng.chisquare(3, size=(600, 1)) / 3)
        w /= np.linalg.norm(w)
        phi = np.vstack([np.zeros(8), pool])
        said = np.where(rng.random(600) < 1 / (1 + np.exp(-pool @ w)), 1, -1)
        asked = rng.permutation(600)[:20]
        _, like = world(0, [1.0], 1, items=601)
        for _ in range(3):
            none = np.zeros(len(asked), dtype=np.int64)
            votes = like.take(none)
            votes = replace(votes, a=asked + 1, b=none, won=said[asked], labeler=none, first=none)
            found = fit_reliability(votes, phi=phi, model="plain", prior=Priors(score=1.0), draws=0)
            left = np.setdiff1d(np.arange(600), asked)
            known = belief.belief_of_features(found, phi)
            got = next_items(known, questions(left + 1, 0 * left), 20, strategy=strategy, seed=seed)
            asked = np.r_[asked, left[got.which]]
        return found.weights @ w / np.linalg.norm(found.weights)
    assert np.mean([angle(s, "bald") for s in range(4)]) > np.mean([angle(s, "random") for s in range(4)]) + 0.03


# --- sets ----------------------------------------------------------------------------------------------


def test_a_pair_is_the_smallest_ranking():
    root = np.diag([1.2, 0.8])
    got = np.mean([active_sets.ranking_information(np.array([0.5, 0.0]), root, draws=400, seed=s) for s in range(24)])
    assert got == pytest.approx(information(0.5 * ONE, (1.2**2 + 0.8**2) * ONE)[0], rel=0.06)


def test_ranking_information_is_below_the_sum_of_its_pairs():
    mean, root = np.zeros(4), np.eye(4)
    pair = information(0 * ONE, 2 * ONE)[0]
    assert 2 * pair < active_sets.ranking_information(mean, root, draws=600) < 6 * pair


def test_plackett_luce_information_by_hand():
    """Two equal options: p (1 - p) = 1/4. Three: a first stage of thirds, then a pair: 2/9 + 1/4 * 2/3 on the diagonal."""
    order = np.array([[0, 1]])
    np.testing.assert_allclose(active_sets.ranking_fisher(np.zeros((1, 2)), order), [[0.25, -0.25], [-0.25, 0.25]])
    every = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
    got = active_sets.ranking_fisher(np.zeros((6, 3)), every)
    np.testing.assert_allclose(np.diag(got), 2 / 9 + 0.25 * 2 / 3)
    np.testing.assert_allclose(got.sum(0), 0, atol=1e-12)


def test_long_prompts_favour_large_sets_and_long_answers_small_ones():
    rng = np.random.default_rng(0)
    known = Belief(np.zeros(12), rng.normal(size=(12, 12)))
    prompts = [np.arange(6), np.arange(6, 12)]
    prompt_is_long = active_sets.next_sets(known, prompts, lambda s: 60 + len(s), 2)
    answers_are_long = active_sets.next_sets(known, prompts, lambda s: 1 + len(s) ** 5.0, 2)
    assert min(map(len, prompt_is_long.items)) > max(map(len, answers_are_long.items)) == 2
    assert all(set(s) <= set(range(6)) or set(s) <= set(range(6, 12)) for s in map(np.ndarray.tolist, prompt_is_long.items))
    with pytest.raises(ValueError, match="sizes"):
        active_sets.next_sets(known, prompts, len, 1, most=12)


def test_a_ranking_answered_is_not_told_again():
    known = Belief(np.zeros(3), np.eye(3))
    twice = active_sets.measure(known, [np.arange(3), np.arange(3)], lambda s: 1.0)
    assert twice.information[1] < 0.8 * twice.information[0]


# --- overlap and pace ------------------------------------------------------------------------------------


def votes_on_a_pair(*said):
    """(won, labeler) on items 0 and 1."""
    _, v = world(0, [1.0] * 4, len(said), items=2)
    zero, names = np.zeros(len(said), dtype=np.int64), ("ana", "bo", "flo", "upside")
    return replace(v, a=zero, b=zero + 1, won=np.array([w for w, _ in said]), labeler=np.array([names.index(k) for _, k in said]),
                   first=zero, judgment=zero, labelers=names)


def test_settled_by_who_says_it():
    known = {"ana": 3.0, "bo": 3.0, "flo": 0.05, "upside": -3.0}
    assert not overlap.settled(votes_on_a_pair(), known)
    assert overlap.settled(votes_on_a_pair((1, "ana"), (1, "bo")), known)
    assert not overlap.settled(votes_on_a_pair(*[(1, "flo")] * 6), known)
    assert not overlap.settled(votes_on_a_pair((1, "ana"), (-1, "bo")), known)
    assert overlap.settled(votes_on_a_pair((1, "ana"), (-1, "upside")), known), "reversed, and so in agreement"
    assert overlap.settled(votes_on_a_pair(*[(0, "ana")] * 6), known, 0.7), "all say there is nothing in it"


def test_verdict_by_hand():
    """Prior N(0, 1), one certain vote each way: by symmetry (1 - middle) / 2 each; one vote: P(d > 0) by quadrature."""
    even = overlap.verdict(np.array([2.0, 2.0]), np.array([1, -1]), width=1.0, tie=0.0)
    assert even[0] == pytest.approx(even[2])
    one = overlap.verdict(np.array([2.0]), np.array([1]), width=1.0, tie=0.0, margin=0.0)
    d = np.random.default_rng(0).normal(size=400_000)
    p = 1 / (1 + np.exp(-2 * d))
    assert one[0] == pytest.approx((p * (d > 0)).mean() / p.mean(), abs=6e-3)


def test_settled_is_pure_and_checks_its_threshold():
    votes = votes_on_a_pair((1, "ana"), (0, "bo"), (1, "flo"))
    assert overlap.surety(votes) == overlap.surety(votes.take(np.array([2, 0, 1])))
    with pytest.raises(ValueError, match="threshold"):
        overlap.settled(votes, {}, 0.3)


def test_trust_names_people():
    _, votes = world(0, [1.0, -1.0, 1.0], 900, items=12)
    assert overlap.trust(fit_reliability(votes, draws=0), votes)["p1"] < 0


def test_pace_is_recovered_with_coffee_breaks():
    rng, said = np.random.default_rng(0), []
    for n in range(600):
        who, size = ("quick", "usual", "slow")[n % 3], int(rng.integers(20, 3000))
        took = {"quick": 0.6, "usual": 1.0, "slow": 1.5}[who] * (6 + 0.05 * size) * rng.lognormal(0, 0.15)
        seconds = took * (40 if rng.random() < 0.05 else 1)
        said.append(Judgment(Prompt.of("q" * 10), "ranking", {"completions": ["x" * (size - 10), ""], "ranks": [1, 2]}, who,
                             seconds=seconds))
    found = pace.fit_pace(said)
    assert found.per_character == pytest.approx(0.05, rel=0.06)
    assert found.fixed == pytest.approx(6, rel=0.35)
    assert found.of("quick") == pytest.approx(0.6, rel=0.08) and found.of("slow") == pytest.approx(1.5, rel=0.08)
    assert pace.fit_pace(said[:5]) == pace.DEFAULT and found.of("somebody new") == 1


# --- features ----------------------------------------------------------------------------------------------


def test_features_tell_answers_apart_and_are_the_same_each_time():
    prompts = ["Name a fruit."] * 3 + ["Name a city."] * 3
    texts = ["An apple.", "A pear, thank you for asking!", "Apple apple apple",
             "Paris.", "London, thank you for asking!", "City city"]
    phi = TextFeatures.fit(prompts, texts, 14).of(prompts, texts)
    assert phi.shape == (6, 14)
    np.testing.assert_array_equal(phi, TextFeatures.fit(prompts, texts, 14).of(prompts, texts))
    np.testing.assert_allclose(np.linalg.norm(phi, axis=1), np.sqrt(14))
    same = phi[1] @ phi[4]
    assert same > phi[1] @ phi[3] and same > phi[0] @ phi[4]


def test_features_of_odd_texts_are_finite():
    prompts, texts = ["?"] * 4, ["", "\ud800 broken", "日本語のテキスト。", "a\n- b\n- c"]
    assert np.isfinite(TextFeatures.fit(prompts, texts, 16).of(prompts, texts)).all()
    assert np.isfinite(TextFeatures.fit(["p"], ["one"], 16).of(["p"], ["one"])).all()
