"""The win rate on the shared store: planted rates by group, at equal lengths, and answers that are missing."""

import json
import random

import pytest

from harken.core.errors import UserError
from harken.core.files import read_jsonl
from harken.evals import win_rate
from harken.launch.evaluate import evaluate
from harken.stats.length_control import length_controlled
from says import Says


class Numbers:
    """The score is the number that the answer begins with; -9 without one."""

    def score(self, prompts, completions):
        assert all(completions)  # no empty row: a missing answer is not asked for a score
        return [[float(t.split()[0]) if t[:1] in "-0123456789" else -9.0 for t in row] for row in completions]


def run(tmp_path, model, against, rows, name="r", **settings):
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = win_rate.Config(**{"model": "my.a", "against": "my.b", "judge": "my.judge", "prompts": str(path),
                                "out": str(tmp_path / name), "n": 1, **settings})
    return evaluate("win_rate", win_rate, config, quiet=True,
                    given={"model": model, "against": against, "judge": Numbers()}).result


@pytest.fixture
def rows():
    return [{"prompt": f"{i}?", "use_case": "qa" if i % 2 else "poem", "language": "de" if i < 20 else "en",
             "tags": ["long"] if i % 4 == 0 else ["short", "odd"]} for i in range(80)]


def test_rates_by_use_case_language_and_tag(tmp_path, rows):
    """Wins on qa, loses on poems; of the tags, long is poems alone and odd holds 40 of qa and 20 poems."""
    result = run(tmp_path, Says(lambda t, k: f"{int(t[:-1]) % 2} x"), Says(lambda t, k: "0.5 y"), rows)
    assert result["value"]["value"] == 0.5
    assert {k: v["value"] for k, v in result["by_use_case"].items()} == {"poem": 0.0, "qa": 1.0}
    assert {k: (v["value"], v["n"]) for k, v in result["by_language"].items()} == {"de": (0.5, 20), "en": (0.5, 60)}
    assert {k: v["value"] for k, v in result["by_tag"].items()} == {"long": 0.0, "short": pytest.approx(2 / 3),
                                                                    "odd": pytest.approx(2 / 3)}
    bare = run(tmp_path, Says(lambda t, k: "1 x"), Says(lambda t, k: "0 y"), [{"prompt": "a"}, {"prompt": "b"}], "b")
    assert not {"by_use_case", "by_tag", "length_controlled"} & set(bare)


def test_a_judge_that_likes_length_is_seen_through(tmp_path, rows):
    """Equal answers but for their length, which the judge pays: the raw rate is high, the one at equal lengths is not."""
    rng = random.Random(0)
    length = {r["prompt"]: (rng.randint(120, 400), rng.randint(20, 300)) for r in rows}

    def side(at):
        def of(text, k):
            size = length[text][at]
            return f"{size / 100 + random.Random(text + str(at)).gauss(0, 0.6)} " + "x" * size
        return Says(of)
    result = run(tmp_path, side(0), side(1), rows)
    assert result["value"]["low"] > 0.5 and result["length_controlled"]["value"] < result["value"]["value"] - 0.05
    assert result["log_odds_of_a_longer_answer"]["value"] > 0
    won = [float(s["model_score"] > s["against_score"]) for s in result["samples"]]
    lengths = [[len(s[f"{name}_text"]) for s in result["samples"]] for name in ("model", "against")]
    assert result["length_controlled"]["value"] == length_controlled(won, *lengths).controlled.value


def test_answers_that_fail_are_missing_and_stored_ones_are_not_asked_again(tmp_path, rows):
    def breaks(text, k):
        if text in ("3?", "5?"):
            raise UserError("It broke.", "Mend it.")
        return "1 x"
    model, against = Says(breaks), Says(lambda t, k: "0 y")
    result = run(tmp_path, model, against, rows, n=2)
    assert result["missing"] == 4 and result["value"]["value"] == 1.0 and result["value"]["n"] == 78
    assert result["samples"][3]["model_text"] is None and "It broke" in result["samples"][3]["why"]
    stored = read_jsonl(tmp_path / "r" / "items.jsonl")
    assert len(stored) == 78 + 80 and all(len(row["texts"]) == 2 for row in stored)
    (tmp_path / "r" / "result.json").unlink()
    asked = against.asked
    again = run(tmp_path, Says(lambda t, k: "1 x"), against, rows, n=2)
    assert "missing" not in again and against.asked == asked  # what failed is asked again, what is stored is not
