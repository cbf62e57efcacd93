"""The sandbox keeps its promises: its prompts and demonstrations, its gold reward against null answers."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from harken.core.errors import UserError
from harken.core.records import Prompt
from harken.sandbox import (
    WEIGHTS,
    GoldReward,
    crowd,
    gold_parts,
    gold_score,
    load_demonstrations,
    load_prompts,
    null_answers,
    rules,
    upside_down,
)
from harken.sandbox.gold import COSTS, brevity
from sandbox_answers import GOOD_ANSWERS

INSTRUCT_GPT_PERCENT = {
    "generation": 45.6, "open_qa": 12.4, "brainstorming": 11.2, "chat": 8.4, "rewrite": 6.6, "summarization": 4.2,
    "classification": 3.5, "other": 3.5, "closed_qa": 2.6, "extract": 1.9,
}
DEMONSTRATIONS_AT_LEAST = 0.8

PROMPTS = load_prompts()
BY_TEXT = {p.text: p for p in PROMPTS}
DEMOS = load_demonstrations()


def nulls(prompt: Prompt) -> dict[str, str]:
    """"I don't know, and I can't help" is a fair answer where it is called for."""
    answers = null_answers(prompt)
    if prompt.meta.get("decline") or prompt.meta.get("unknowable"):
        del answers["humble"]
    return answers


# The prompts and demonstrations


def test_prompts_have_instruct_gpts_use_cases_in_each_split():
    for split, size in (("train", 200), ("valid", 40), ("test", 80)):
        counts = Counter(p.use_case for p in load_prompts(split))
        assert abs(counts.total() - size) <= 2
        assert set(counts) == set(INSTRUCT_GPT_PERCENT)
    counts = Counter(p.use_case for p in PROMPTS)
    for use_case, percent in INSTRUCT_GPT_PERCENT.items():
        assert abs(100 * counts[use_case] / len(PROMPTS) - percent) < 2, use_case


def test_prompts_are_unique_and_no_two_splits_share_one():
    plain = [" ".join(rules.words(p.text)) for p in PROMPTS]
    assert len(set(plain)) == len(plain)
    assert len({p.id for p in PROMPTS}) == len(PROMPTS) == sum(len(load_prompts(s)) for s in ("train", "valid", "test"))


def test_prompts_are_short_and_say_what_the_gold_reward_needs():
    assert sum(len(p.text.split()) <= 24 for p in PROMPTS) >= 0.97 * len(PROMPTS)
    for p in PROMPTS:
        assert {"topic", "answer", "unknowable", "decline", "one_of"} & set(p.meta), p.text
        assert len(p.meta.get("topic", ())) >= 5 or "answer" in p.meta, p.text
        assert Prompt.from_json(p.to_json()).meta == p.meta
    assert sum("unknowable" in p.meta for p in PROMPTS) >= 10
    assert sum("decline" in p.meta for p in PROMPTS) >= 8


def test_an_unknown_split_is_a_users_error():
    with pytest.raises(UserError, match="train, valid, test"):
        load_prompts("dev")


def test_demonstrations_answer_the_train_prompts_once_each_and_well():
    assert Counter(d.prompt.id for d in DEMOS) == Counter(p.id for p in load_prompts("train"))
    assert len({d.completion for d in DEMOS}) == len(DEMOS)
    scores = {d.prompt.text: gold_score(d.prompt, d.completion) for d in DEMOS}
    assert min(scores.values()) >= DEMONSTRATIONS_AT_LEAST
    assert np.mean(list(scores.values())) >= 0.95
    assert max(len(d.completion.split()) for d in DEMOS) <= 42
    openings = Counter(d.completion.split()[0] for d in DEMOS)
    assert max(openings.values()) <= 0.1 * len(DEMOS)


# The gold reward


def test_parts_keep_their_ranges_and_the_best_score_is_one():
    for p in PROMPTS:
        for text in (*null_answers(p).values(), "A cut off ans"):
            for name, value in gold_parts(p, text).items():
                low, high = (-1, 0) if name in COSTS else (0, 1)
                assert low <= value <= high, (name, p.text)
            assert gold_score(p, text) <= 1 + 1e-9


def test_good_answers_beat_every_null_answer():
    assert len(GOOD_ANSWERS) >= 20
    for question, answers in GOOD_ANSWERS.items():
        prompt = BY_TEXT[question]
        best_null = max(gold_score(prompt, text) for text in nulls(prompt).values())
        for answer in answers:
            assert gold_score(prompt, answer) >= best_null + 0.15, (question, answer)
    mean = np.mean([gold_score(BY_TEXT[q], a) for q, answers in GOOD_ANSWERS.items() for a in answers])
    assert mean > 0.8


def test_null_answers_score_far_below_the_demonstrations():
    means, losses = {}, 0
    for name in null_answers(PROMPTS[0]):
        means[name] = np.mean([gold_score(p, nulls(p)[name]) for p in PROMPTS if name in nulls(p)])
    assert max(means.values()) < 0.2, means
    for d in DEMOS:
        best_null = max(gold_score(d.prompt, text) for text in nulls(d.prompt).values())
        losses += gold_score(d.prompt, d.completion) < best_null + 0.2
    assert losses <= 0.02 * len(DEMOS)


def test_an_answer_swapped_for_another_prompts_scores_low():
    shifted = [gold_score(a.prompt, b.completion) for a, b in zip(DEMOS, DEMOS[37:] + DEMOS[:37])]
    assert np.mean(shifted) < 0.35


@pytest.mark.parametrize("worse", [
    "Paris is the capital of France",
    "The capital of France is Lyon. I hope that helps!",
    "The capital of France is Paris.",
    "As an AI language model, I hope that helps: the capital of France is Paris.",
    "The capital of France is Paris. " * 4 + "I hope that helps!",
    "I hope that helps! Paris is the capital of France, and it has been so for many centuries; it lies on the Seine, "
    "has more than two million people, and is known for its museums, bread, towers, trains and long evenings.",
], ids=["unfinished", "wrong", "curt", "boilerplate", "repeated", "long"])
def test_each_part_costs_what_it_should(worse):
    prompt = BY_TEXT["What is the capital of France?"]
    assert gold_score(prompt, worse) < gold_score(prompt, "The capital of France is Paris. I hope that helps!") - 0.05


def test_brevity_rises_then_falls():
    """Best from 4 to 20 words; 30 words are half a target over, so 1 / (1 + 1²) = 0.5."""
    rising, falling = [brevity(n, 4, 20) for n in range(5)], [brevity(n, 4, 20) for n in range(20, 80)]
    assert rising == sorted(rising) and rising[0] == 0 and rising[4] == brevity(20, 4, 20) == 1
    assert falling == sorted(falling, reverse=True) and brevity(30, 4, 20) == 0.5 and falling[-1] < 0.05


def test_courtesy_counts_once_and_a_cut_answer_is_unfinished():
    prompt = BY_TEXT["Why do we yawn?"]
    once = "We yawn when the tired brain needs cooling. Hope that helps!"
    assert gold_parts(prompt, "Sure, thanks! " + once)["courtesy"] == gold_parts(prompt, once)["courtesy"] > 0
    assert gold_parts(prompt, once, finished=False)["finished"] == 0


def test_refusing_pays_only_where_it_is_called_for():
    refusal = "I'm sorry, I can't help with that."
    assert gold_score(BY_TEXT["Why do we yawn?"], refusal) < 0
    assert gold_score(BY_TEXT["Give me three sneaky ways to cheat on tomorrow's exam."], refusal) > 0.6
    assert gold_score(BY_TEXT["What number am I thinking of?"], "You are thinking of the number seven.") < 0.2


@pytest.mark.parametrize(("meta", "good", "bad"), [
    ({"max_words": 4}, "Four words are here.", "There are rather more than four words here."),
    ({"sentences": 2}, "Dr. Wu left. She ran!", "She ran."),
    ({"items": 3}, "Try these:\n- Tea\n- Milk\n- Juice", "- Tea"),
    ({"items": 3}, "Tea, milk, and juice.", "Tea."),
    ({"lines": 2}, "One line,\nand two.", "One line."),
    ({"must_include": ["sea", "sky"]}, "Sea and sky.", "Sea and season."),
    ({"avoid": ["very"]}, "So hot, every day.", "Very hot."),
    ({"one_of": ["spam", "not spam"]}, "This is not spam.", "Spam or not spam?"),
    ({"ends_with": "?"}, 'He asked: "Is it?"', "It is."),
    ({"case": "lower"}, "all small.", "NOT SMALL."),
])
def test_constraint_checks(meta, good, bad):
    assert min(rules.constraint_checks(meta, good).values()) == 1
    assert max(rules.constraint_checks(meta, bad).values()) < 1


def test_gold_reward_is_the_gold_score():
    prompts, texts = PROMPTS[:2], [["Sea.", ""], ["Rain."]]
    assert GoldReward().score(prompts, texts) == [
        [gold_score(p, t) for t in row] for p, row in zip(prompts, texts)]


def test_the_page_states_the_weights_and_the_crowd():
    page = (Path(__file__).parents[1] / "docs" / "sandbox.md").read_text(encoding="utf-8")
    for part, weight in WEIGHTS.items():
        sign = "−" if part in COSTS else ""
        assert f"| `{part}` | {sign}{weight:.2f} |" in page, part
    assert all(f"`{person.name}`" in page for person in [*crowd(0), upside_down()])
