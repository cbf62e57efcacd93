"""The sets that ship: large, without repetition, and consistent."""

import json

import pytest

from harken.evals import bias, hallucination, implicit_rules, injection, refusals, sycophancy, toxicity, truthful
from harken.loops.items import read_items
from harken.loops.tables import expanded

SETS = {"bias pairs": bias.load_pairs(""), "bbq": bias.load_bbq(""), "hallucination": hallucination.load(""),
        "implicit rules": implicit_rules.load("", ",".join(implicit_rules.TASKS)), "injection": injection.load(""),
        "refusals": refusals.load(""), "sycophancy": sycophancy.load(""), "toxicity": toxicity.load(""),
        "truthful": truthful.load("")}


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_200_items_and_none_twice(name):
    items = SETS[name]
    assert len(items) >= 200 and len({repr(item) for item in items}) == len(items)
    assert not any("{" in repr(item).replace("'{", "").replace("{'", "") for item in items if name in ("refusals", "toxicity"))


def test_what_each_item_says_is_consistent():
    for row in SETS["sycophancy"]:
        right = row["right"].lower()
        assert right != row["wrong"].lower()
        assert right.rstrip(".") not in row["question"].lower().split() or "larger" in row["question"]
    assert len({r["question"] for r in SETS["sycophancy"]}) == len(SETS["sycophancy"])
    for item in SETS["truthful"]:
        assert not {t.lower() for t in item.true} & {f.lower() for f in item.false} and len({*item.true, *item.false}) >= 4
    assert len({i.question for i in SETS["truthful"]}) == len(SETS["truthful"])
    for item in SETS["injection"]:
        assert item["answer"] and ("negative" in item["task"] or item["answer"] not in item["task"])
    assert sum(safe for _, safe, _ in SETS["refusals"]) * 2 == len(SETS["refusals"])
    for pair in SETS["bias pairs"]:
        assert pair.stereotype != pair.other and abs(len(pair.stereotype.split()) - len(pair.other.split())) <= 2


def test_bbq_items_follow_its_rules():
    """Ambiguous: unknown is right. Disambiguated: half with the stereotype and half against it, so that who is always right has
    s_DIS = 0."""
    for row in SETS["bbq"]:
        assert row["biased"] is not None and (row["label"] == row["unknown"]) == (row["condition"] == "ambig")
    told = [row["label"] == row["biased"] for row in SETS["bbq"] if row["condition"] == "disambig"]
    assert sum(told) * 2 == len(told) and len({row["cluster"] for row in SETS["bbq"] if row["cluster"]}) == 22
    right = bias.bbq_scores(SETS["bbq"], [row["label"] for row in SETS["bbq"]])
    assert right["bbq_s_dis"].value == 0.0 and right["bbq_s_amb"].value == 0.0 and right["bbq_accuracy_disambig"].n == 22
    always = bias.bbq_scores(SETS["bbq"], [row["biased"] for row in SETS["bbq"]])
    assert always["bbq_s_dis"].value == 1.0 and always["bbq_s_amb"].value == 1.0


@pytest.mark.slow
def test_constant_answers_are_not_informative_on_the_truthful_set():
    """Items of one frame share words; none shares so many that a sentence of one fits the others."""
    compare = truthful.Compare(SETS["truthful"], 0)
    some = SETS["truthful"][::4]
    assert sum(compare.both(item.best, item) for item in some) > 0.9 * len(some)
    for text in (SETS["truthful"][0].best, SETS["truthful"][60].best, SETS["truthful"][120].best):
        assert sum(compare.both(text, item) for item in some) <= 0.1 * len(some)


def test_tables_are_written_out():
    frames = [{"q": "{0}?", "n": 3, "more": ["{1}", "{n1}"]}]
    found = expanded({"items": ["x"], "tables": [{"frames": frames, "rows": ["a|1", "b|2", "a|1"]},
                                                 {"into": "others", "frames": ["{0}!"], "rows": ["a", "a"]}]})
    assert found["items"] == ["x", {"q": "a?", "n": 3, "more": ["1", "2"]}, {"q": "b?", "n": 3, "more": ["2", "1"]},
                              {"q": "a?", "n": 3, "more": ["1", "1"]}]
    assert found["others"] == ["a!"] and "tables" not in found
    assert json.loads(json.dumps(read_items("", "code"))) == read_items("", "code")
