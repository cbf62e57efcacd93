"""Simulated labelers show the values and the faults planted in them, and nothing else."""

from collections import Counter

import numpy as np
import pytest

from harken.core.errors import UserError
from harken.sandbox import (
    SimulatedLabeler,
    crowd,
    gold_score,
    load_demonstrations,
    load_prompts,
    make_comparisons,
    make_judgments,
    upside_down,
)
from harken.sandbox.labelers import BRIEF_VALUES, WARM_VALUES

PROMPTS = load_prompts()
BY_TEXT = {p.text: p for p in PROMPTS}
DEMOS = load_demonstrations()
OPTIONS = [
    (d.prompt, [d.completion, " ".join(d.completion.split()[: len(d.completion.split()) // 2]), "Sure! I can help.",
                d.completion + " There is a lot more that one could say about it, and I would be glad to go on."])
    for d in DEMOS
]


def choices_of(labeler: SimulatedLabeler, seed: int = 0):
    prompts, options = zip(*OPTIONS)
    return make_judgments(prompts, options, [labeler], np.random.default_rng(seed))


def agreement(labeler: SimulatedLabeler) -> float:
    """The share of strict gold pairs that the labeler ranks the gold way (half for a tie)."""
    right = []
    for judgment in choices_of(labeler):
        ranks, texts = judgment.payload["ranks"], judgment.payload["completions"]
        gold = [gold_score(judgment.prompt, t) for t in texts]
        for i, g in enumerate(gold):
            for j, h in enumerate(gold):
                if g > h + 0.05:
                    right.append(0.5 if ranks[i] == ranks[j] else float(ranks[i] < ranks[j]))
    return float(np.mean(right))


@pytest.mark.slow
def test_agreement_with_gold_shows_each_planted_fault():
    people = {p.name: agreement(p) for p in crowd(0)}
    careful = min(people[n] for n in ("ana", "bo", "chen"))
    assert careful > 0.85
    assert people["careless-flo"] < 0.68
    assert abs(agreement(SimulatedLabeler("coin", careless=1.0)) - 0.5) < 0.06
    assert people["noisy-dee"] < careful - 0.04
    assert people["slips-eli"] < careful - 0.02
    assert agreement(upside_down()) < 0.15


def test_a_position_biased_labeler_prefers_the_first_of_identical_options():
    rng, prompt = np.random.default_rng(1), PROMPTS[0]
    biased = SimulatedLabeler("first", position_bias=0.25)
    fair = SimulatedLabeler("fair")
    first = 0
    for _ in range(200):
        order = rng.permutation(2)
        ranks = biased.judge(prompt, ["The tide.", "The tide."], order, rng).payload["ranks"]
        first += ranks[order[0]] < ranks[order[1]]
    assert first / 200 > 0.8
    assert fair.judge(prompt, ["The tide.", "The tide."], (1, 0), rng).payload["ranks"] == [1, 1]


def test_a_length_biased_labeler_prefers_the_longer_answer():
    def follows_length(labeler):
        pairs = [(j.payload["ranks"], [len(t) for t in j.payload["completions"]]) for j in choices_of(labeler)]
        return np.mean([np.corrcoef([-r for r in ranks], sizes)[0, 1] for ranks, sizes in pairs if len(set(ranks)) > 1])

    assert follows_length(SimulatedLabeler("long", length_bias=0.8)) > follows_length(SimulatedLabeler("fair")) + 0.2


def test_careless_answers_are_fast():
    def seconds(labeler):
        return np.median([j.seconds for j in choices_of(labeler)])

    assert seconds(SimulatedLabeler("quick", careless=1.0)) < 0.4 * seconds(SimulatedLabeler("slow"))


def test_the_two_styles_truly_disagree_and_agree_among_themselves():
    by_style: dict[str, list[dict]] = {"brief": [], "warm": []}
    for person in crowd(0):
        if person.group["style"] in by_style:
            by_style[person.group["style"]].append({j.prompt.id: j.payload["ranks"] for j in choices_of(person)})

    def same(a, b):
        """How often a and b order the full answer and the same with a friendly tail alike."""
        return np.mean([np.sign(a[k][0] - a[k][3]) == np.sign(b[k][0] - b[k][3]) for k in a])

    (b1, b2), (w1, w2) = by_style["brief"], by_style["warm"]
    assert min(same(b1, b2), same(w1, w2)) > 0.8
    assert max(same(b1, w1), same(b2, w2)) < 0.4
    assert {k for k in BRIEF_VALUES if BRIEF_VALUES[k] != WARM_VALUES[k]} == {"brief", "courtesy", "length"}


def test_ties_occur_and_equal_options_tie_wherever_they_are_shown():
    assert any(len(set(j.payload["ranks"])) < 4 for j in choices_of(SimulatedLabeler("fair", tie_width=0.05)))
    labeler, rng = SimulatedLabeler("fair"), np.random.default_rng(0)
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        assert labeler.judge(PROMPTS[0], ["The sea."] * 3, order, rng).payload["ranks"] == [1, 1, 1]
    hesitant = SimulatedLabeler("hesitant", rationality=0.1)
    for _ in range(50):
        ranks = hesitant.judge(PROMPTS[0], ["The sea.", "Moon and tide.", "The sea."], (0, 1, 2), rng).payload["ranks"]
        assert ranks[0] == ranks[2] != ranks[1]


def test_choices_follow_the_stated_probability():
    """β = 4 and two answers 0.1 apart in value (courtesy alone): σ(4 · 0.1) = 0.599."""
    prompt = BY_TEXT["What is the capital of France?"]
    options = ["The capital of France is Paris.", "The capital of France is Paris. I hope that helps!"]
    labeler = SimulatedLabeler("ana", rationality=4.0)
    gap = np.diff(labeler.values(prompt, options))[0]
    assert gap == pytest.approx(0.1)
    rng = np.random.default_rng(0)
    won = [labeler.judge(prompt, options, (0, 1), rng).payload["ranks"] == [2, 1] for _ in range(1500)]
    assert np.mean(won) == pytest.approx(1 / (1 + np.exp(-0.4)), abs=0.04)


def test_the_same_seed_gives_the_same_judgments():
    prompts, options = zip(*OPTIONS[:30])
    runs = [make_judgments(prompts, options, crowd(3), np.random.default_rng(s), overlap=3) for s in (5, 5, 6)]
    assert runs[0] == runs[1] != runs[2]
    assert crowd(3) == crowd(3) != crowd(4)


def test_work_is_dealt_evenly_to_different_labelers_in_random_order():
    prompts, options = zip(*OPTIONS[:40])
    judgments = make_judgments(prompts, options, crowd(0), np.random.default_rng(0), overlap=3)
    assert len(judgments) == 120 and set(Counter(j.labeler for j in judgments).values()) == {10}
    assert len({(j.prompt.id, j.labeler) for j in judgments}) == 120
    assert len({j.order for j in judgments}) > 10 and all(j.seconds > 0 and j.group["style"] for j in judgments)
    choices = make_comparisons(prompts, options, crowd(0), np.random.default_rng(0), overlap=3)
    assert choices == [j.choice() for j in judgments]
    with pytest.raises(UserError, match="overlap"):
        make_judgments(prompts, options, crowd(0), np.random.default_rng(0), overlap=13)


def test_a_labeler_cannot_value_a_part_that_does_not_exist():
    with pytest.raises(ValueError, match="sparkle"):
        SimulatedLabeler("x", weights={"sparkle": 1.0})
