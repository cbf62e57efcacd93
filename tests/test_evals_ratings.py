"""Likert and metadata by hand."""

import json

import pytest

from harken.core.errors import UserError
from harken.evals import ratings
from harken.launch.evaluate import evaluate
from harken.report.load import load_runs
from harken.report.ratings import rated


def row(source, prompt, score, hallucination=False, **more):
    return {"prompt": prompt, "completion": f"{source} on {prompt}", "score": score, "source": source,
            "flags": {"hallucination": hallucination, "fails_task": score == 1}, "scale": {"min": 1, "max": 7}, **more}


def run(tmp_path, rows, name="r", **settings):
    path = tmp_path / "ratings.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return evaluate("ratings", ratings, ratings.Config(ratings=str(path), out=str(tmp_path / name), **settings), quiet=True)


ROWS = [row("ppo", "a", 7, use_case="qa", labeler="x"), row("ppo", "a", 5, True, use_case="qa", labeler="y"),
        row("ppo", "b", 6, None, use_case="chat"), row("sft", "a", 4, True, use_case="qa"),
        row("sft", "b", 3, None, use_case="chat"), row("sft", "c", 1, True, use_case="chat"),
        row("ppo", "d", None, use_case="chat")]


def test_means_rates_and_paired_differences_by_hand(tmp_path):
    """ppo: (7 + 5 + 6) / 3 = 6, sft 8 / 3. On a the means are 6 and 4, on b 6 and 3: 2.5. Hallucination applies to a, c and d:
    ppo 1 of 3, sft 2 of 2, paired on a alone."""
    result = run(tmp_path, ROWS, model="ppo", against="sft").result
    assert result["value"]["value"] == 2.5 and result["value"]["n"] == 2 and result["missing"] == 1
    assert {k: (v["value"], v["n"]) for k, v in result["likert"].items()} == {"ppo": (6.0, 2), "sft": (pytest.approx(8 / 3), 3)}
    assert result["flags"]["hallucination"]["ppo"]["value"] == pytest.approx(1 / 3)
    assert result["flags"]["hallucination"]["sft"]["value"] == 1.0 and result["flags"]["fails_task"]["ppo"]["value"] == 0.0
    assert result["flag_differences"]["hallucination"]["value"] == pytest.approx(0.5 - 1)
    assert result["likert_by_use_case"]["qa"]["ppo"]["value"] == 6.0 and result["scale"] == "1 to 7" and result["labelers"] == 2
    alone = run(tmp_path, ROWS, "alone").result
    assert alone["value"]["value"] == 6.0, "ppo has most ratings"


def test_copies_of_a_rating_narrow_no_interval(tmp_path):
    rows = [row("ppo", f"p{i}", 1 + i % 7) for i in range(30)]
    once, often = (run(tmp_path, rows * k, f"x{k}").result["value"] for k in (1, 5))
    assert once == often and once["n"] == 30


@pytest.mark.parametrize(("bad", "words"), [
    ({"source": None}, "line 1: \"source\" does not say"), ({"score": "good"}, "'good' is no number"),
    ({"flags": {"x": 2}}, "must be an object of true"), ({"score": 9}, "outside its scale of 1 to 7"),
    ({"scale": {"min": 0, "max": 1}}, "several scales")])
def test_what_is_no_rating_is_said(tmp_path, bad, words):
    with pytest.raises(UserError, match=words):
        run(tmp_path, [row("ppo", "a", 1) | bad, row("ppo", "b", 5)])


def test_who_was_not_rated_is_said_and_the_report_has_a_column_a_model(tmp_path):
    with pytest.raises(UserError, match="--against 'rlhf': no rating"):
        run(tmp_path, ROWS, "w", against="rlhf")
    html = rated(load_runs([run(tmp_path, ROWS, model="ppo", against="sft").path]))
    assert html.count("<table") == 3 and all(f">{name}<" in html for name in ("ppo", "sft"))
    assert "hallucination" in html and "6.0" in html and "100.0%" in html and "1 to 7" in html
