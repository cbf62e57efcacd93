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
