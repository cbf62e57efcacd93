"""Rankings of models, length control, judges' errors, couples of votes, overlap with references."""

from __future__ import annotations

import json
import math
from pathlib import Path

import choix
import numpy as np
import pytest

from harken.core.errors import UserError
from harken.stats.bradley_terry import bradley_terry
from harken.stats.couples import both_orders, couples, judge_agreement, three_way, verdict
from harken.stats.judges import ppi_mean, rogan_gladen
from harken.stats.length_control import Gamed, length_controlled
from harken.stats.overlap import bleu, exact_match, normalise, rouge, token_f1
from harken.stats.ranking import ELO, _probabilities, rank

THETA = np.array([0.9, 0.3, 0.0, -0.4, -0.8])


def votes(rng, prompts, tie=0.7, model="davidson", each=8, sd=0.0):
    k, n = len(THETA), prompts * each
    group = np.repeat(np.arange(prompts), each)
    a = rng.integers(k, size=n)
    b = (a + 1 + rng.integers(k - 1, size=n)) % k
    own = THETA + sd * rng.normal(size=(prompts, k))
    p = _probabilities(own[group, a] - own[group, b], tie, model)
    u = rng.random(n)
    return a, b, np.where(u < p[:, 0], 1, np.where(u < p[:, 0] + p[:, 1], 0, -1)), group


# --- rankings ----------------------------------------------------------------------------------

def test_two_models_by_hand():
    """30 wins to 10: theta_1 - theta_2 = ln 3, 190.849 Elo points; the sandwich of independent votes: 1/sqrt(40 * .75 * .25)."""
    r = rank([0] * 40, [1] * 40, [1] * 30 + [-1] * 10, names=["a", "b"])
    assert r.scores[0] - r.scores[1] == pytest.approx(math.log(3))
    d = r.difference(0, 1)
    assert ELO * d.value == pytest.approx(190.8485)
    assert (d.high - d.value) / 2.02269 == pytest.approx(0.3651, rel=0.06)  # CR3 is a little wider
    assert r.elo(0).value + r.elo(1).value == pytest.approx(2000)
    assert r.matrix[0][1].value == 0.75 and r.games[0, 1] == 40 and r.places() == [(1, 1), (2, 2)]
    assert rank([0] * 40, [1] * 40, [1] * 30 + [-1] * 10, anchor=1).scores[1] == 0


def test_davidson_by_hand():
    """10 wins, 20 ties, 10 losses: theta 0 and nu / (2 + nu) = 1/2, so nu = 2; Rao and Kupper: 2 / (1 + eta) = 1/2, eta = 3."""
    won = [1] * 10 + [0] * 20 + [-1] * 10
    assert rank([0] * 40, [1] * 40, won).tie == pytest.approx(2)
    r = rank([0] * 40, [1] * 40, won, ties="rao_kupper")
    assert r.tie == pytest.approx(3) and r.probability(0, 1) == pytest.approx((0.25, 0.5, 0.25))
    assert rank([0] * 40, [1] * 40, won).probability(0, 1) == pytest.approx((0.25, 0.5, 0.25))


def test_equal_to_choix_evalica_and_our_own_counts():
    a, b, won, _ = votes(np.random.default_rng(0), 200)
    wins, ties = np.zeros((5, 5)), np.zeros((5, 5))
    for x, y, w in zip(a, b, won):
        if w == 0:
            ties[x, y] += 1
            ties[y, x] += 1
        else:
            wins[(x, y) if w > 0 else (y, x)] += 1
    own = bradley_terry(wins, ties, tie_model="davidson")
    r = rank(a, b, won)
    assert r.scores == pytest.approx(own.scores, abs=1e-7) and r.tie == pytest.approx(own.tie)
    assert r.log_likelihood == pytest.approx(own.log_likelihood)
    half = rank(a, b, won, ties="half")
    assert half.scores == pytest.approx(bradley_terry(wins, ties).scores, abs=1e-7)
    clear = won != 0
    plain = rank(a[clear], b[clear], won[clear])
    pairs = [(x, y) if w > 0 else (y, x) for x, y, w in zip(a[clear], b[clear], won[clear])]
    assert plain.scores == pytest.approx(choix.ilsr_pairwise(5, pairs, alpha=0), abs=1e-5)
    import evalica  # loads pandas
    name = {1: evalica.Winner.X, 0: evalica.Winner.Draw, -1: evalica.Winner.Y}
    result = evalica.bradley_terry([str(x) for x in a], [str(y) for y in b], [name[w] for w in won.tolist()], tolerance=1e-12)
    log = np.log([result.scores[str(i)] for i in range(5)])
    assert half.scores == pytest.approx(log - log.mean(), abs=1e-4)


@pytest.mark.parametrize("model, tie", [("davidson", 0.7), ("rao_kupper", 1.6)])
def test_planted_scores_are_recovered_and_covered(model, tie):
    rng, held = np.random.default_rng(3), []
    for _ in range(40):
        r = rank(*votes(rng, 60, tie, model), ties=model, level=0.9)
        held += [(e := r.difference(i, j)).low <= THETA[i] - THETA[j] <= e.high for i in range(5) for j in range(i)]
    assert 0.84 < np.mean(held) < 0.96
    large = rank(*votes(rng, 4000, tie, model), ties=model)
    assert large.scores == pytest.approx(THETA - THETA.mean(), abs=0.06) and large.tie == pytest.approx(tie, rel=0.06)


@pytest.mark.parametrize("model", ["davidson", "rao_kupper"])
def test_the_likelihood_is_at_its_maximum(model):
    """No step in any direction raises it: the gradient, by differences of the likelihood, is 0."""
    a, b, won, _ = votes(np.random.default_rng(1), 60, 1.6 if model == "rao_kupper" else 0.7, model)
    r = rank(a, b, won, ties=model)

    def value(theta, tie):
        return np.log(_probabilities(theta[a] - theta[b], tie, model)[np.arange(len(a)), 1 - won]).sum()

    assert value(r.scores, r.tie) == pytest.approx(r.log_likelihood)
    for i in range(5):
        step = np.eye(5)[i] * 1e-4
        assert (value(r.scores + step, r.tie) - value(r.scores - step, r.tie)) / 2e-4 == pytest.approx(0, abs=1e-3)
    assert (value(r.scores, r.tie * 1.0001) - value(r.scores, r.tie / 1.0001)) / 2e-4 == pytest.approx(0, abs=1e-3)


def test_copies_of_votes_change_no_interval():
    a, b, won, group = votes(np.random.default_rng(4), 30)
    one, three = rank(a, b, won, group), rank(*(np.tile(x, 3) for x in (a, b, won, group)))
    assert three.difference(0, 4).low == pytest.approx(one.difference(0, 4).low, abs=1e-6)
    assert three.matrix[0][4].n == one.matrix[0][4].n
    unclustered = rank(*(np.tile(x, 3) for x in (a, b, won)))
    assert unclustered.standard_error(0) < 0.75 * one.standard_error(0)


def test_the_sandwich_takes_over_from_the_jackknife():
    rng = np.random.default_rng(5)
    a, b, won, group = votes(rng, 1001, each=2)
    few = group < 1000
    assert rank(a, b, won, group).standard_error(0) == pytest.approx(
        rank(a[few], b[few], won[few], group[few]).standard_error(0), rel=0.03)


def test_what_has_no_scores_is_said():
    with pytest.raises(ValueError, match=r"2 groups with none between them: \[a, b\]; \[c, d\]"):
        rank([0, 0, 2, 2], [1, 1, 3, 3], [1, -1, 1, -1], names=list("abcd"))
    with pytest.raises(ValueError, match=r"\[b, c\] lost every comparison"):
        rank([0, 0, 1, 1], [1, 2, 2, 2], [1, 1, 1, -1], names=list("abc"))
    assert np.isfinite(rank([0, 0, 1, 1], [1, 2, 2, 2], [1, 1, 1, -1], prior=0.1).scores).all()
    with pytest.raises(ValueError, match="compares a model with itself"):
        rank([0], [0], [1])
    with pytest.raises(ValueError, match="1, 0 or -1"):
        rank([0], [1], [2])


def test_cycles_are_named():
    r = rank([0, 1, 2] * 4, [1, 2, 0] * 4, [1, 1, 1] * 3 + [-1, -1, -1], names=["rock", "scissors", "paper"])
    assert r.cycles() == [("rock", "scissors", "paper")]
    assert json.dumps(r.to_json())


# --- length control ----------------------------------------------------------------------------

REFERENCE = json.loads((Path(__file__).parent / "length_control_reference.json").read_text())


@pytest.mark.parametrize("name", ["plain", "hard", "gamed"])
def test_length_control_equals_alpaca_evals_regression(name):
    """scikit-learn 1.9.1's LogisticRegressionCV (liblinear, L1, five GroupKFold folds, weighted soft labels), called as
    alpaca_eval 0.6.6 calls it, on 300 simulated annotations; liblinear stops at 1e-4, so its strength may be a neighbour."""
    r = REFERENCE
    difficulty = None if name == "plain" else r["diff"]
    gamed = Gamed(r["gp"], r["gd"], r["gi"]) if name == "gamed" else None
    result = length_controlled(r["y"], r["l2"], r["l1"], difficulty=difficulty, gamed=gamed)
    assert result.controlled.value == pytest.approx(r["out"][name]["rate"], abs=2e-4)
    assert [result.phi, result.theta] == pytest.approx([r["out"][name]["coef"][0], r["out"][name]["coef"][-1]], abs=4e-3)
    assert result.raw.value == pytest.approx(np.mean(r["y"]))
    assert result.standard_error == pytest.approx(np.std(r["y"], ddof=1) / 300**0.5)


@pytest.mark.slow
def test_a_judge_that_likes_length_is_seen_through():
    """The model is no better, its answers are longer, and the judge prefers the longer one: raw .70, controlled near .50."""
    rng = np.random.default_rng(0)
    held, values = 0, []
    for _ in range(30):
        base = rng.integers(300, 1500, 400)
        extra = rng.normal(400, 400, 400)
        y = (rng.random(400) < 1 / (1 + np.exp(-1.5 * np.tanh(extra / 400)))) * 1.0
        r = length_controlled(y, base + extra, base, level=0.9)
        held += r.controlled.low <= 0.5 <= r.controlled.high
        values.append(r.raw.value)
        assert r.length.value > 0
    assert np.mean(values) > 0.67 and held >= 23


def test_length_control_refuses_what_it_cannot_tell():
    with pytest.raises(ValueError, match="differ by the same"):
        length_controlled([0, 1] * 10, [5] * 20, [3] * 20)
    with pytest.raises(ValueError, match="AlpacaEval's less 1"):
        length_controlled([1.0, 2.0] * 10, range(20), [3] * 20)


# --- judges with known errors ------------------------------------------------------------------

def world(rng, n, rate=0.3, q1=0.9, q0=0.7, more=1000):
    truth = rng.random(n + more) < rate
    said = (rng.random(n + more) < np.where(truth, q1, 1 - q0)) * 1.0
    return said[n:], truth[:n] * 1.0, said[:n]


def test_rogan_gladen_by_hand():
    """p = .5, 20 of 25 yes found (q1 = .8), 45 of 75 no found (q0 = .6): (.5 + .6 - 1) / (.8 + .6 - 1) = .25."""
    r = rogan_gladen([1, 0] * 50, [1] * 25 + [0] * 75, [1] * 20 + [0] * 5 + [0] * 45 + [1] * 30)
    assert r.corrected.value == pytest.approx(0.25) and r.raw.value == 0.5
    assert "sensitivity 0.80, specificity 0.60" in str(r)
    for end in (r.corrected.low, r.corrected.high):  # each end is z standard errors off, or the edge
        q1, q0 = 21 / 27, 46 / 77
        off = 0.5 + q0 - 1 - end * (q0 + q1 - 1)
        error = math.sqrt(0.25 / 100 + (1 - end) ** 2 * q0 * (1 - q0) / 77 + end**2 * q1 * (1 - q1) / 27)
        assert abs(off) / error == pytest.approx(1.959964) or end == 0


def test_ppi_by_hand():
    """Judge .6 on 50 items; on 40 labelled people .5, judge .7: with weight 1, .6 + .5 - .7 = .4."""
    f, y, g = [1] * 30 + [0] * 20, [1] * 20 + [0] * 20, [1] * 28 + [0] * 12
    r = ppi_mean(f, y, g, weight=1)
    assert r.corrected.value == pytest.approx(0.4)
    rest = np.array(y) - np.array(g)
    error = math.sqrt(np.var(f, ddof=1) / 50 + rest.var(ddof=1) / 40)
    assert (r.corrected.high - r.corrected.low) / 2 / error == pytest.approx(1.99, abs=0.02)
    assert ppi_mean(f, y, g, weight=0).corrected.value == pytest.approx(0.5)


@pytest.mark.parametrize("correct", [rogan_gladen, ppi_mean])
def test_corrected_rates_cover_and_the_judges_own_does_not(correct):
    rng, held, own = np.random.default_rng(2), 0, 0
    for _ in range(300):
        r = correct(*world(rng, 150), level=0.9)
        held += r.corrected.low <= 0.3 <= r.corrected.high
        own += r.raw.low <= 0.3 <= r.raw.high
    assert 0.86 < held / 300 < 0.95 and own == 0


def test_the_judge_helps_when_it_is_good_and_costs_nothing_when_it_is_not():
    rng = np.random.default_rng(3)
    widths = {q: np.mean([(r := ppi_mean(*world(rng, 100, q1=q, q0=q))).corrected.high - r.corrected.low for _ in range(60)])
              for q in (0.95, 0.5)}
    people = np.mean([(r := ppi_mean(*world(rng, 100))).people.high - r.people.low for _ in range(60)])
    assert widths[0.95] < 0.7 * people and widths[0.5] < 1.05 * people


def test_judges_refuse_what_labels_cannot_tell():
    with pytest.raises(ValueError, match="from 30 human labels on, found 20"):
        ppi_mean([1] * 50, [1] * 20, [1] * 20)
    with pytest.raises(ValueError, match="both yes and no"):
        rogan_gladen([1] * 50, [1] * 30, [1] * 30)
    with pytest.raises(ValueError, match="no better than a coin"):
        rogan_gladen([1, 0] * 50, [1, 0] * 20, [0, 1] * 20)
    with pytest.raises(ValueError, match="0 or 1"):
        rogan_gladen([0.5] * 50, [1, 0] * 20, [0, 1] * 20)


# --- couples -----------------------------------------------------------------------------------

def test_couples_by_hand():
    """x: 1, 1, -1: one couple of three agrees; y: 0, 0 agrees. Over couples 2/4; over items (1/3 + 1)/2 = 2/3."""
    c = couples(["x", "x", "x", "y", "y"], ["a", "b", "c", "a", "b"], [1, 1, -1, 0, 0])
    assert c.couples == 4 and c.pooled.value == 0.5 and c.by_item.value == pytest.approx(2 / 3)
    assert c.chance == pytest.approx(0.4**2 + 0.6**2 / 2)
    assert couples(["x"] * 3, ["a", "b", "c"], [1, 1, 0], ties="drop").couples == 1
    assert couples(["x"] * 3, ["a", "a", "b"], [1, 1, 1]).couples == 2  # nobody makes a couple with himself
    with pytest.raises(ValueError, match="no item has two votes"):
        couples(["x", "x"], ["a", "a"], [1, 1])


def test_a_judge_against_people_by_hand():
    c = judge_agreement({"x": 1, "y": 0}, ["x", "x", "y", "z"], [1, -1, 0, 1])
    assert c.couples == 3 and c.pooled.value == pytest.approx(2 / 3) and c.by_item.value == 0.75
    dropped = judge_agreement({"x": 1, "y": 0}, ["x", "x", "y", "z"], [1, -1, 0, 1], ties="drop")
    assert dropped.couples == 2 and dropped.pooled.value == 0.5


def test_an_always_first_judge():
    """E16: half of all, never consistent, everything ties once both orders are joined."""
    b = both_orders([1] * 20, [-1] * 20)
    assert b.consistent.value == 0 and b.first.value == 1 and b.tied.value == 1
    assert verdict(1, -1) == 0 and verdict(1, 1) == 1 and verdict(1, 0) == 0 and verdict(None, 1) is None
    assert both_orders([1, None], [1, 1]).missing == 1


def test_three_way_by_hand():
    t = three_way([1, 0, -1, 1], [1, 0, 1, 0], ["p", "q", "r", "s"])
    assert t.accuracy.value == 0.5 and t.untied.value == 0.5
    assert t.table.tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]


# --- overlap -----------------------------------------------------------------------------------

def test_overlap_by_hand():
    """squad: "cat sat" against "cat": P 1/2, R 1, F1 2/3. drop: "The cat sat." and "the cat": only "cat" is shared, 2 / 5."""
    assert normalise("The  Cat, sat!") == "cat sat"
    assert token_f1("The cat sat.", ["a dog", "the cat"]) == pytest.approx(2 / 3)
    assert token_f1("The cat sat.", ["the cat"], variant="drop") == pytest.approx(0.4)
    assert token_f1("", [""]) == 1 and token_f1("x", [""]) == 0
    assert exact_match("The cat.", ["a cat"]) == 1 and exact_match("The cat.", ["a cat"], normalised=False) == 0
    assert exact_match("he", ["the"]) == 0  # whole words (E7)
    with pytest.raises(ValueError, match="list"):
        exact_match("a", "a")


def test_bleu_and_rouge_are_their_libraries():
    sacrebleu = pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    answers = ["the cat sat on the mat today", "a dog barked loudly at the man", "it rains in spain a lot"]
    references = [["the cat sat on the mat"], ["a dog barked at the man", "the dog barked loudly"], ["it rains a lot in spain"]]
    b = bleu(answers, references, draws=200)
    columns = [[r[k] if k < len(r) else None for r in references] for k in range(2)]
    assert b.score.value == pytest.approx(sacrebleu.corpus_bleu(answers, columns).score)
    assert b.score.low <= b.score.value <= b.score.high and "tok:13a" in b.signature
    assert rouge("the cat sat", ["the cat ran"]) == pytest.approx(2 / 3)  # LCS of 2 among 3 and 3 words


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(UserError, match="sacrebleu is not installed"):
        bleu(["a"], [["a"]])
