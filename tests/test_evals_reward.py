"""The reward card: layouts of five benchmarks, composites by hand, ties, and null rules beside it."""

import json
import math

import pytest

from harken.core.errors import UserError
from harken.evals import reward
from harken.launch.evaluate import evaluate
from harken.stats.reward_bench import TiedPrompt, sections, ties_score


class Number:
    """The score is the number in the text; "?" has none."""

    def score(self, prompts, completions):
        return [[None if "?" in t else float(t.split()[0]) for t in texts] for texts in completions]


def card(tmp_path, rows, name="r"):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = reward.Config(reward="my.number", data=str(path), out=str(tmp_path / name))
    return evaluate("reward", reward, config, quiet=True, given={"reward": Number()}).result


def test_sections_weigh_math_prm_as_984_and_each_section_2():
    found = sections({"math-prm": 1.0, "hep-python": 0.0, "alpacaeval-easy": 0.5})
    assert found["Reasoning"] == pytest.approx(984 / (984 + 164)) and found["Chat"] == 0.5
    assert found["overall"] == pytest.approx((2 * found["Reasoning"] + 2 * 0.5) / 4)
    assert sections({"alpacaeval-easy": 0.5}, prior=1.0)["overall"] == pytest.approx((2 * 0.5 + 1.0) / 3)


def test_ties_by_hand():
    """Tied: right 3 and 2, wrong 1: gap 1, spread 1. Reference: right 5, wrong 1: gap 4. .3 + .3 + 0 + 0 + .01 tanh(1/1 - 1)."""
    one = [TiedPrompt((5.0,), (1.0,))], [TiedPrompt((3.0, 2.0), (1.0,))]
    assert ties_score(*one) == pytest.approx(0.6)
    clear = [TiedPrompt((5.0,), (1.0,))], [TiedPrompt((3.0, 2.5), (1.0,))]
    assert ties_score(*clear) == pytest.approx(1.0 + 0.01 * math.tanh(1.5 / 0.5 - 1))
    with pytest.raises(ValueError, match="0 reference prompts for 1"):
        ties_score([], one[1])
    with pytest.raises(ValueError, match="none of 1 reference prompts goes with one of 1"):
        ties_score({"1": one[0][0]}, {"2": one[1][0]})
    # A second reference that fails and has no tied prompt: half of .3 is lost, as in RewardBench 2's own code.
    assert ties_score({"1": one[0][0], "2": TiedPrompt((1.0,), (5.0,))}, {"1": one[1][0]}) == pytest.approx(0.45)


def test_sections_of_the_example_that_rewardbench_prints():
    """The accuracies of its README (beaver-7b-v1.0-cost); expected: its own calculate_scores_per_section, version 0.1.4."""
    accuracy = {"alpacaeval-easy": 0.5, "alpacaeval-hard": 67 / 95, "alpacaeval-length": 56 / 95, "donotanswer": 112 / 136,
                "hep-cpp": 103 / 164, "hep-go": 104 / 164, "hep-java": 116 / 164, "hep-js": 109 / 164, "hep-python": 90 / 164,
                "hep-rust": 106 / 164, "llmbar-adver-GPTInst": 36 / 92, "llmbar-adver-GPTOut": 22 / 47, "math-prm": 132 / 447,
                "llmbar-adver-manual": 17 / 46, "llmbar-adver-neighbor": 58 / 134, "llmbar-natural": 0.52, "mt-bench-med": 0.725,
                "mt-bench-easy": 16 / 28, "mt-bench-hard": 20 / 37, "refusals-dangerous": 0.97, "refusals-offensive": 1.0,
                "xstest-should-refuse": 1.0, "xstest-should-respond": 0.284}
    expected = {"Chat": 0.6089385474860335, "Chat Hard": 0.44956140350877194, "Safety": 0.7216216216216216,
                "Reasoning": 0.46675669776831996}
    assert {k: v for k, v in sections(accuracy).items() if k != "overall"} == pytest.approx(expected, abs=1e-12)


def test_ties_without_a_spread_as_rewardbench_0_1_4():
    """Tied 1: right 3 and 3, wrong 1: no ratio, both P count. Tied 2: one right answer: neither P counts it. Expected by hand."""
    references = {n: TiedPrompt((5.0,), (1.0,)) for n in "12"}
    assert ties_score(references, {"1": TiedPrompt((3.0, 3.0), (1.0,)), "2": TiedPrompt((3.0,), (1.0,))}) == pytest.approx(1.0)
    assert ties_score(references, {"1": TiedPrompt((1.0, 1.0), (3.0,)), "2": TiedPrompt((3.0,), (1.0,))}) == pytest.approx(0.45)
    assert ties_score({"1": references["1"]}, {"1": TiedPrompt((3.0, 2.0), ())}) == pytest.approx(0.3)


def test_equal_scores_count_half_and_nothing_and_missing_is_counted(tmp_path):
    rows = [{"prompt": f"p{i}", "chosen": c, "rejected": r, "subset": "mt-bench-easy"} for i, (c, r) in
            enumerate((("2", "1"), ("1", "2"), ("1", "1 longer"), ("?", "1")))]
    found = card(tmp_path, rows)
    assert found["value"]["value"] == pytest.approx(0.5) and found["strict"]["value"] == pytest.approx(1 / 3)
    assert found["equal_scores"] == 1 and found["missing"] == 1
    assert found["reward_bench"]["Chat"] == pytest.approx(1 / 3) and "Chat 2" in found["reward_bench"]["weights"]
    assert found["baselines"]["constant"]["value"] == 0.5 and found["baselines"]["longest"]["value"] == pytest.approx(1 / 3)


def test_best_of_four_and_ties_of_reward_bench_2(tmp_path):
    rows = [{"id": "1", "prompt": "a", "chosen": ["4"], "rejected": ["1", "2", "3"], "subset": "Math"},
            {"id": "2", "prompt": "b", "chosen": ["4"], "rejected": ["4", "2", "3"], "subset": "Math"},
            {"id": "3", "prompt": "e", "chosen": ["1"], "rejected": ["4", "2", "3"], "subset": "Safety"},
            {"id": "ref:7", "prompt": "c", "chosen": ["5"], "rejected": ["1"], "subset": "Ties"},
            {"id": "tied:7", "prompt": "d", "chosen": ["3", "2"], "rejected": ["1"], "subset": "Ties"}]
    found = card(tmp_path, rows)
    assert found["best_of_n"]["value"] == pytest.approx(0.5) and found["reward_bench_2_ties"] == pytest.approx(0.6)
    assert found["reward_bench_2"] == pytest.approx({"Math": 0.75, "Safety": 0.0, "Ties": 0.6, "overall": 1.35 / 3})
    assert set(found["by_category"]) == {"Math"}  # Ties has three pairs


def test_rm_bench_levels(tmp_path):
    """Chosen by style 3, 2, 1 and rejected 0, 2.5, 2.5: hard is chosen in a plainer style than rejected."""
    found = card(tmp_path, [{"prompt": "a", "chosen": ["3", "2", "1"], "rejected": ["0", "2.5", "2.5"]}])
    assert found["rm_bench"] == pytest.approx({"normal": 1 / 3, "hard": 2 / 3, "easy": 2 / 3, "average": 5 / 9})


def test_rm_bench_is_a_mean_over_domains_not_over_prompts(tmp_path):
    """Three chat prompts lose everywhere, both halves of safety win everywhere: .5 over domains, .4 over prompts."""
    lost, won = {"chosen": ["1", "1", "1"], "rejected": ["2", "2", "2"]}, {"chosen": ["2", "2", "2"], "rejected": ["1", "1", "1"]}
    domains = [("chat", lost)] * 3 + [("safety-refuse", won), ("safety-response", won)]
    found = card(tmp_path, [{"prompt": f"p{i}", "domain": d, **row} for i, (d, row) in enumerate(domains)])
    assert found["rm_bench"] == {"easy": 0.5, "normal": 0.5, "hard": 0.5, "average": 0.5, "chat": 0.0, "safety": 1.0}


def test_judge_bench_llm_bar_and_comparisons(tmp_path):
    judge = [{"question": "q", "response_A": "1", "response_B": "2", "label": "B>A", "source": "mmlu-pro"}]
    bar = [{"input": "q", "output_1": "1", "output_2": "2", "label": 2}]
    ours = [{"prompt": f"q{i}", "completions": ["1", "2"], "ranks": [2, 1] if i % 2 else [1, 2], "labeler": f"l{i % 2}"}
            for i in range(12)]
    assert card(tmp_path, judge, "j")["value"]["value"] == card(tmp_path, bar, "b")["value"]["value"] == 1.0
    found = card(tmp_path, ours, "c")
    assert {k: v["value"] for k, v in found["by_labeler"].items()} == {"l0": 0.0, "l1": 1.0}
    assert found["length_correlation"]["value"] == 0.0
    with pytest.raises(UserError):
        card(tmp_path, [{"colour": "red"}], "x")


def test_answers_that_are_messages_are_answers_and_labelers_stay(tmp_path):
    """Not a benchmark's lists of answers: UltraFeedback's messages, and plain pairs with a labeler."""
    said = [[{"role": "user", "content": "q"}, {"role": "assistant", "content": n}] for n in ("2", "1")]
    found = card(tmp_path, [{"prompt": "q", "chosen": said[0], "rejected": said[1]}])
    assert found["value"]["value"] == 1.0 and [s["answer"] for s in found["samples"]] == ["2", "1"]
    rows = [{"prompt": f"q{i}", "chosen": "2", "rejected": "13"[i % 2], "labeler": f"l{i % 2}"} for i in range(12)]
    found = card(tmp_path, rows, "l")
    assert {k: v["value"] for k, v in found["by_labeler"].items()} == {"l0": 1.0, "l1": 0.0}


def test_prior_sets_are_the_plain_mean_of_four_with_weight_1(tmp_path):
    asked = [{"role": "user", "content": "q"}]
    rows = [{"prompt": asked, "chosen": c, "rejected": "2", "subset": s} for s, c in (
        ("shp", "3"), ("shp", "3"), ("shp", "3"), ("summarize", "1"), ("anthropic_harmless", "1"), ("mt-bench-easy", "3"))]
    found = card(tmp_path, rows)["reward_bench"]
    assert found["Prior Sets"] == 0.5 and found["Chat"] == 1.0 and found["overall"] == pytest.approx((2 + 0.5) / 3)


def test_judge_bench_by_part_and_an_odd_label(tmp_path):
    """Knowledge 1 of 2, coding 1 of 1, equal scores are no win; all together 2 of 4."""
    row = {"question": "q", "response_A": "1", "response_B": "2", "original_id": 3, "pair_id": "x"}
    rows = [{**row, "source": "mmlu-pro-law", "label": "B>A"}, {**row, "source": "mmlu-pro-physics", "label": "A>B"},
            {**row, "source": "livecodebench", "label": "B>A"},
            {**row, "source": "livebench-math", "label": "B>A", "response_A": "2 "}]
    found = card(tmp_path, rows)
    assert found["judge_bench"] == {"Knowledge": 0.5, "Coding": 1.0, "Math": 0.0, "overall": 0.5}
    with pytest.raises(UserError, match="neither A>B nor B>A"):
        card(tmp_path, [{**rows[0], "label": "A=B"}], "odd")


def test_llm_bar_in_its_folders(tmp_path):
    rows = [{"input": "q", "output_1": "1", "output_2": "2", "label": n} for n in (2, 2, 1)]
    where = tmp_path / "LLMBar" / "Adversarial" / "Neighbor"
    where.mkdir(parents=True)
    (where / "dataset.json").write_text(json.dumps(rows))
    config = reward.Config(reward="my.number", data=str(where / "dataset.json"), out=str(tmp_path / "n"))
    found = evaluate("reward", reward, config, quiet=True, given={"reward": Number()}).result
    assert found["llm_bar"] == pytest.approx({"Neighbor": 2 / 3, "Adversarial": 2 / 3, "overall": 2 / 3})
    named = [{**row, "subset": s} for row, s in zip(rows, ("Natural", "Natural", "GPTOut"))]
    found = card(tmp_path, [*named, {**rows[0], "subset": "Manual"}], "s")["llm_bar"]
    assert found == pytest.approx({"Natural": 1.0, "GPTOut": 0.0, "Manual": 1.0, "Adversarial": 0.5, "overall": 2 / 3})
    with pytest.raises(UserError, match="neither 1 nor 2"):
        card(tmp_path, [{**rows[0], "label": 0}], "odd")


def test_reward_bench_in_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet
    rows = [{"prompt": "q", "chosen": "2", "rejected": "1", "subset": "donotanswer"}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    config = reward.Config(reward="my.number", data=str(tmp_path / "r.parquet"), out=str(tmp_path / "r"))
    assert evaluate("reward", reward, config, quiet=True, given={"reward": Number()}).result["reward_bench"]["Safety"] == 1.0
