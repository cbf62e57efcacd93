"""Dawid–Skene and GLAD: equal to crowd-kit, monotone, planted truth recovered, careless and adversarial people found."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

from harken.core.records import Choice, Prompt
from harken.labelers.models.dawid_skene import fit_dawid_skene
from harken.labelers.models.glad import fit_glad
from harken.labelers.ratings import ratings_of, ratings_of_votes
from harken.labelers.votes import votes_of

REFERENCE = json.loads((Path(__file__).parent / "crowdkit_reference.json").read_text())


def tasks(ratings, rows):
    """Names of the units, in order of appearance."""
    return list(dict.fromkeys(row[0] for row in rows))


@pytest.mark.parametrize("name", REFERENCE)
def test_dawid_skene_equals_crowd_kit_on_its_own_examples(name):
    """Confusions are compared where there is evidence: of a class that a worker never met, crowd-kit spreads the answers
    evenly over those the worker used, Harken over all."""
    theirs, rows = REFERENCE[name]["dawid_skene"], REFERENCE[name]["rows"]
    model = fit_dawid_skene(ratings_of(rows), smoothing=0, max_steps=10, tolerance=-np.inf)
    names = model.ratings.names
    for u, task in enumerate(tasks(model.ratings, rows)):
        assert dict(zip(names, model.posterior_UK[u])) == pytest.approx(theirs["probas"][task], abs=1e-7)
    assert dict(zip(names, model.prior_K)) == pytest.approx(theirs["priors"], abs=1e-7)
    for worker, said, by_class in theirs["errors"]:
        a = model.ratings.raters.index(worker)
        met = model.posterior_UK[model.ratings.unit[model.ratings.rater == a]].sum(0) > 1e-6
        for k in np.flatnonzero(met):
            assert model.confusion_AKV[a, k, names.index(said)] == pytest.approx(by_class[names[k]], abs=1e-7)


@pytest.mark.parametrize("name", REFERENCE)
def test_glad_equals_crowd_kit_on_its_own_examples(name):
    theirs, rows = REFERENCE[name]["glad"], REFERENCE[name]["rows"]
    model = fit_glad(ratings_of(rows), max_steps=2000, tolerance=1e-13)
    for u, task in enumerate(tasks(model.ratings, rows)):
        assert dict(zip(model.ratings.names, model.posterior_UK[u])) == pytest.approx(theirs["probas"][task], abs=1e-4)
        assert np.log(model.easiness_U[u]) == pytest.approx(theirs["log_betas"][task], abs=1e-3)
    assert dict(zip(model.ratings.raters, model.ability_A)) == pytest.approx(theirs["alphas"], abs=1e-3)


def test_one_step_of_dawid_skene_worked_by_hand():
    """crowd-kit's own worked step: after the majority vote t1 is (no .5, yes .5), the class frequencies are .46 and .54, and one
    E step gives t1 (.35, .65), t2 (.26, .74), t3 (.87, .13), t4 (0, 1), t5 (.95, .05)."""
    model = fit_dawid_skene(ratings_of(REFERENCE["toy"]["rows"]), smoothing=0, max_steps=1)
    order = [tasks(model.ratings, REFERENCE["toy"]["rows"]).index(f"t{i}") for i in range(5)]
    assert model.posterior_UK[order, 0].round(2).tolist() == [0.35, 0.26, 0.87, 0.0, 0.95]


def planted(seed, units=600, labelers=10, each=5, classes=3):
    """Confusion matrices with right answers .55 to .95, and ratings by five people an item."""
    rng = np.random.default_rng(seed)
    confusion = np.empty((labelers, classes, classes))
    for a in range(labelers):
        for k in range(classes):
            right = rng.uniform(0.55, 0.95)
            confusion[a, k] = np.insert(rng.dirichlet(np.full(classes - 1, 3.0)) * (1 - right), k, right)
    truth = rng.integers(classes, size=units)
    rows = [(u, f"p{a}", float(rng.choice(classes, p=confusion[a, truth[u]])))
            for u in range(units) for a in rng.choice(labelers, each, replace=False)]
    return confusion, truth, ratings_of(rows)


@pytest.mark.slow
def test_dawid_skene_recovers_planted_confusions_with_honest_intervals():
    """25 worlds, 750 class accuracies: 90 % intervals hold 85 to 95 % of them."""
    inside, errors, right = [], [], []
    for seed in range(25):
        confusion, truth, ratings = planted(seed)
        model = fit_dawid_skene(ratings)
        assert np.diff(model.trace).min() > -1e-8
        right.append(np.mean(model.posterior_UK.argmax(1) == truth))
        for row, name in zip(model.class_accuracy(0.9), ratings.raters):
            for k, found in enumerate(row):
                true = confusion[int(name[1:]), k, k]
                inside.append(found.low <= true <= found.high)
                errors.append(found.value - true)
    assert 0.85 <= np.mean(inside) <= 0.95
    assert np.std(errors) < 0.06 and abs(np.mean(errors)) < 0.02 and np.mean(right) > 0.9


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_the_likelihood_never_falls(smoothing):
    _, _, ratings = planted(3, units=80)
    model = fit_dawid_skene(ratings, smoothing=smoothing, tolerance=1e-9)
    assert len(model.trace) > 5 and np.diff(model.trace).min() > -1e-8
    assert np.allclose(model.confusion_AKV.sum(2), 1) and np.allclose(model.posterior_UK.sum(1), 1)
    assert np.diff(fit_glad(ratings).trace).min() > -1e-6


def crowd(seed, units=300):
    """Seven reliable people (.85), one who always says 1, one who guesses, one who says the opposite."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(2, size=units)
    said = np.where(rng.random((units, 7)) < 0.85, truth[:, None], 1 - truth[:, None])
    lazy, guess = np.ones(units, dtype=int), rng.integers(2, size=units)
    opposite = np.where(rng.random(units) < 0.9, 1 - truth, truth)
    table = np.column_stack([said, lazy, guess, opposite])
    names = [f"good {i}" for i in range(7)] + ["always one", "guesses", "opposite"]
    return ratings_of([(u, names[a], float(table[u, a])) for u in range(units) for a in range(10) if rng.random() < 0.6])


@pytest.mark.parametrize("seed", range(5))
def test_careless_and_adversarial_people_are_found(seed):
    ratings = crowd(seed)
    found = {name: r.verdict for name, r in fit_dawid_skene(ratings).accuracy(0.99).items()}
    assert found == {n: "reliable" if n.startswith("good") else "adversarial" if n == "opposite" else "careless" for n in found}
    ability = fit_glad(ratings).ability(0.99)
    assert all(ability[f"good {i}"].low > 0 for i in range(7)) and ability["opposite"].high < 0
    assert ability["guesses"].low < 0.5 and ability["always one"].low < 0.5


def test_reliability_beats_the_majority_where_many_are_careless():
    """Three able people against five who guess."""
    rng = np.random.default_rng(1)
    truth = rng.integers(2, size=500)
    able = np.where(rng.random((500, 3)) < 0.9, truth[:, None], 1 - truth[:, None])
    table = np.column_stack([able, rng.integers(2, size=(500, 5))])
    ratings = ratings_of([(u, f"p{a}", float(table[u, a])) for u in range(500) for a in range(8)])
    majority = np.mean(ratings.counts().argmax(1) == truth)
    for model in (fit_dawid_skene(ratings), fit_glad(ratings)):
        assert np.mean(model.posterior_UK.argmax(1) == truth) > majority + 0.08


def abilities(seed, units=300, labelers=10, each=5, classes=3):
    rng = np.random.default_rng(seed)
    alpha, log_beta = rng.normal(1, 1, size=labelers), rng.normal(1, 1, size=units)
    truth, rows = rng.integers(classes, size=units), []
    for u in range(units):
        for a in rng.choice(labelers, each, replace=False):
            right = rng.random() < special.expit(alpha[a] * np.exp(log_beta[u]))
            rows.append((u, f"p{a}", float(truth[u] if right else (truth[u] + rng.integers(1, classes)) % classes)))
    return alpha, log_beta, truth, ratings_of(rows)


@pytest.mark.slow
def test_glad_recovers_planted_abilities_with_honest_intervals():
    """24 worlds drawn from its priors, 240 abilities: 90 % intervals hold 85 to 95 % of them."""
    inside, order, easy, right = [], [], [], []
    for seed in range(24):
        alpha, log_beta, truth, ratings = abilities(seed)
        model = fit_glad(ratings)
        found = model.ability(0.9)
        inside += [found[f"p{a}"].low <= alpha[a] <= found[f"p{a}"].high for a in range(len(alpha))]
        order.append(np.corrcoef([found[f"p{a}"].value for a in range(len(alpha))], alpha)[0, 1])
        easy.append(stats.spearmanr(model.easiness_U, log_beta).statistic)
        right.append(np.mean(model.posterior_UK.argmax(1) == truth))
    assert 0.85 <= np.mean(inside) <= 0.95
    assert np.mean(order) > 0.9 and np.mean(easy) > 0.4 and np.mean(right) > 0.9


def test_many_labelers_with_few_answers_fall_back_to_their_own_information():
    """400 labelers x 4 cells are beyond the inverted size; the intervals stay close to those of the full matrix."""
    rng = np.random.default_rng(2)
    truth = rng.integers(2, size=900)
    rows = [(u, f"p{a}", float(truth[u] if rng.random() < 0.8 else 1 - truth[u])) for u in range(900)
            for a in rng.choice(400, 20, replace=False)]
    found = fit_dawid_skene(ratings_of(rows)).class_accuracy(0.9)
    inside = np.mean([e.low <= 0.8 <= e.high for row in found for e in row])
    assert len(found) == 400 and 0.82 < inside <= 0.97


def test_people_who_never_erred_are_not_infallible():
    ratings = ratings_of([(u, who, float(u % 2)) for u in range(10) for who in ("ana", "bo", "cy")])
    found = fit_dawid_skene(ratings).accuracy()["ana"]
    assert 0.85 < found.accuracy.value < 1 and found.accuracy.low < 0.85 and found.to_json()["verdict"] == "reliable"


def comparisons(seed, chosen_first):
    """400 pairs, eight people right on 60 to 90 %, five a pair; in half the files the winner is listed first."""
    rng = np.random.default_rng(seed)
    able, said = np.linspace(0.6, 0.9, 8), []
    for i in range(400):
        better = rng.integers(2)
        for a in rng.choice(8, 5, replace=False):
            won = better if rng.random() < able[a] else 1 - better
            options = ("x", "y") if won == 0 or not chosen_first else ("y", "x")
            said.append(Choice(Prompt.of(f"q{i}"), options, (1, 2) if won == 0 or chosen_first else (2, 1), f"p{a}"))
    return able, ratings_of_votes(votes_of(said))


@pytest.mark.slow
def test_of_comparisons_the_listing_does_not_matter_and_mirror_images_share_their_accuracy():
    """Ten worlds: 90 % intervals of 80 accuracies, one a person because both sides are the same."""
    inside = []
    for seed in range(10):
        able, ratings = comparisons(seed, chosen_first=False)
        other = fit_dawid_skene(comparisons(seed, chosen_first=True)[1]).accuracy(0.9)
        model = fit_dawid_skene(ratings)
        assert model.prior_K == pytest.approx([0.5, 0.5]) and np.allclose(model.confusion_AKV, model.confusion_AKV[:, ::-1, ::-1])
        assert np.diff(model.trace).min() > -1e-8
        for name, found in model.accuracy(0.9).items():
            assert found.accuracy.value == pytest.approx(other[name].accuracy.value, abs=1e-6)
            inside.append(found.accuracy.low <= able[int(name[1:])] <= found.accuracy.high)
    assert 0.82 <= np.mean(inside) <= 0.98


def test_few_answers_blame_nobody():
    """Dee answered four items of sixty, two of them against everybody else."""
    rows = [(u, who, float(u % 2)) for u in range(60) for who in ("ana", "bo", "cy")]
    rows += [(u, "dee", float(u in (1, 2))) for u in range(4)]
    found = fit_dawid_skene(ratings_of(rows)).accuracy()
    assert found["dee"].verdict == "unclear" and found["ana"].verdict == "reliable"


def test_intervals_need_smoothing():
    with pytest.raises(ValueError, match="smoothing above 0"):
        fit_dawid_skene(ratings_of(REFERENCE["toy"]["rows"]), smoothing=0).class_accuracy()


def test_one_class_cannot_tell_people_apart():
    ratings = ratings_of([("u", "ana", "yes"), ("u", "bo", "yes")])
    for fit in (fit_dawid_skene, fit_glad):
        with pytest.raises(ValueError, match="at least two classes"):
            fit(ratings)
