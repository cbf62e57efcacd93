"""OpinionQA's metrics by hand, options permuted, and the original files."""

import csv
import math

import pytest

from harken.core.errors import UserError
from harken.evals import opinions
from harken.evals.opinions import Config, Question, alike, consistency, distributions, wasserstein
from harken.launch.evaluate import evaluate
from harken.loops.items import Options


def test_distances_by_hand():
    assert wasserstein([1, 0, 0], [0, 0, 1], [1, 2, 4]) == 3 and wasserstein([0.5, 0.5], [0.25, 0.75], [1, 2]) == 0.25
    assert alike([1, 0, 0, 0], [0, 0, 0, 1], [1, 2, 3, 4]) == 0.0 and alike([0.3, 0.7], [0.3, 0.7], [1, 2]) == 1.0
    assert alike([1, 0, 0, 0], [0, 1, 0, 0], [1, 2, 3, 4]) == pytest.approx(2 / 3)
    assert wasserstein([0, 1, 0], [1, 0, 0], [3, 1, 2]) == 2  # places out of order


def test_consistency_is_the_share_of_topics_led_by_the_leader():
    by_group = {"a": [1.0, 0.9, 0.1, None], "b": [0.5, 0.5, 0.6, 0.2]}
    assert consistency(by_group, ["x", "x", "y", "z"]).value == pytest.approx(1 / 3)


def test_groups_of_one_attribute_compete_with_each_other_alone():
    """The old lead everywhere; of the regions the south leads overall and in topic x, the north in topic y: 2 of 2 and 1 of 2."""
    by_group = {"AGE: old": [1.0, 1.0], "AGE: young": [0.0, 0.0],
                "REGION: south": [0.9, 0.5], "REGION: north": [0.1, 0.6]}
    found = consistency(by_group, ["x", "y"])
    assert found.value == pytest.approx(0.75) and found.n == 2


class Prefers:
    """Gives the option "Yes" three quarters of what is not refused, wherever it stands; 20 % refuse."""

    drift = None

    def options(self, items):
        found = []
        for text, options in items:
            shares = []
            for option in options:
                line = next(x for x in text.splitlines() if x.startswith(option.strip() + ". "))
                share = {"Yes": 0.6, "No": 0.2, "Refused": 0.2}[line.split(". ")[1]]
                shares.append(math.log(share if option[0] == " " else share / 9))
            found.append(Options(text, tuple(shares), (1,) * len(shares)))
        return found


def test_refusals_are_apart_and_orders_are_averaged():
    question = Question("t", "Well?", ("Yes", "No"), ("Refused",), (1.0, 2.0), {"": (0.5, 0.5)})
    ((shares, refusal, prompt),) = distributions(Prefers(), [question], Config(model="m", out="o", orders=4))
    assert shares == pytest.approx([0.75, 0.25]) and refusal == pytest.approx(0.2)
    assert prompt == "Question: Well?\nA. Yes\nB. No\nC. Refused\nAnswer:"


def test_the_toy_engine_on_the_synthetic_survey(tmp_path):
    pytest.importorskip("torch")
    config = Config(model="toy", out=str(tmp_path / "o"), limit=6, steer_on=3)
    result = evaluate("opinions", opinions, config, quiet=True).result
    assert result["value"] == result["model"]["representativeness"] and len(result["model"]["groups"]) == 4
    assert set(result["model"]["steered"]) == set(result["model"]["groups"]) and "synthetic" in " ".join(result["notes"])
    assert set(result["baselines"]) == {"every option alike", "always the first option"}


def test_the_original_files_and_survey_weights(tmp_path):
    def write(name, rows):
        with (tmp_path / name).open("w", newline="") as f:
            writer = csv.DictWriter(f, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return str(tmp_path / name)
    info = write("info.csv", [{"key": "Q1", "question": "Well?", "references": "['Yes', 'No', 'Refused']",
                               "option_ordinal": "[1.0, 2.0]"}])
    people = [("Yes", 3, "Old"), ("No", 1, "Old"), ("No", 1, "Young"), ("Refused", 5, "Young")]
    responses = write("responses.csv", [{"Q1": a, "WEIGHT_W1": w, "AGE": g} for a, w, g in people])
    (question,) = opinions.load(Config(model="m", out="o", info=info, responses=responses, groups="AGE"))
    assert question.people == {"": (0.6, 0.4), "AGE: Old": (0.75, 0.25), "AGE: Young": (0.0, 1.0)}
    assert question.options == ("Yes", "No") and question.refusals == ("Refused",)
    with pytest.raises(UserError, match="belong together"):
        opinions.load(Config(model="m", out="o", info=info))
    with pytest.raises(UserError, match="another layout"):
        opinions.load(Config(model="m", out="o", data=info))


def test_the_synthetic_survey_is_large_and_its_groups_disagree_as_planted():
    """200 questions, none twice. At a lean of 0 and place 0 the shares are sigma(-1.5) = .182 at the ends and .318 between."""
    from harken.loops.surveys import _ordered, read_survey
    questions = read_survey()
    assert len(questions) == 200 and len({q.text for q in questions}) == 200 and len({q.topic for q in questions}) == 8
    assert _ordered([-1.5, 0.0, 1.5], 0.0) == pytest.approx([0.1824, 0.3176, 0.3176, 0.1824], abs=1e-4)
    assert all(sum(shares) == pytest.approx(1) for q in questions for shares in q.people.values())
    apart = {topic: sum(opinions.wasserstein(q.people["age: young"], q.people["age: old"], q.ordinal) for q in questions
                        if q.topic == topic) for topic in ("technology", "city")}
    assert apart["technology"] > apart["city"] * 1.1, "their leans differ by 2.0 and 1.5"


def test_a_table_of_countries_is_read(tmp_path):
    """GlobalOpinionQA: shares of refusals are left out and the rest is made whole; a row with one option is no question."""
    from harken.loops.surveys import read_survey
    path = tmp_path / "global.csv"
    with path.open("w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["question", "selections", "options", "source"])
        writer.writerow(["Well?", "defaultdict(<class 'list'>, {'Chile': [0.6, 0.2, 0.2], 'Kenya': [0.0, 0.5, 0.5]})",
                         "['Good', 'Bad', 'DK/Refused']", "GAS"])
        writer.writerow(["Alone?", "defaultdict(<class 'list'>, {'Chile': [1.0]})", "['Yes']", "GAS"])
    (question,) = read_survey(str(path))
    assert question.people == {"country: Chile": pytest.approx((0.75, 0.25)), "country: Kenya": pytest.approx((0.0, 1.0)),
                               "": pytest.approx((0.375, 0.625))}
    assert question.options == ("Good", "Bad") and question.refusals == ("DK/Refused",) and question.topic == "GAS"
