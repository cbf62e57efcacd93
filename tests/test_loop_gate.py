"""The gate of a recipe without rules, on planted verifications: a type of user that falls does not ship, honest turns do."""

import numpy as np
import pytest

import loop_world as world
from harken.core.errors import UserError
from harken.core.files import read_json
from harken.launch.loop import drive, verify
from harken.launch.loop.recipe import read_recipe
from harken.launch.loop.rules import default_rules
from harken.launch.loop.turns import Loop
from harken.store.files import write_jsonl
from marks import slow

SD = 3.0
"""Of the judge's scores: a unit of its own, as a reward's is."""


def planted(gains, seed, each=60, answers=2):
    """Rows of scores.jsonl: normal scores, the new model's higher by `gains[type]` standard deviations."""
    rng = np.random.default_rng(seed)
    prompts = [world.Prompt.of(f"{group} {i}") for group in gains for i in range(each)]
    groups = [g for g in gains for _ in range(each)]
    old = [list(rng.normal(0, SD, answers)) for _ in prompts]
    new = [list(rng.normal(gains[g] * SD, SD, answers)) for g in groups]
    return (verify._rows("win_rate", prompts, groups, *verify._shares(new, old), bounds=(0, 1))
            + verify._rows("judge", prompts, groups, new, old))


def gate(folder, rows, number=1, **parts):
    recipe = read_recipe(world.recipe(folder, **{"gate": {}, **parts}))
    turn = Loop(folder / f"l{number}").begin({"recipe": dict(recipe.given)})
    turn.commit("verify", lambda place: {"rows": write_jsonl(place / "scores.jsonl", rows)})
    facts = turn.commit("gate", lambda place: drive.pass_gate(recipe, turn, place))
    return facts, read_json(turn.path / "gate" / "gate.json")


@pytest.mark.parametrize(("gains", "ships"), [
    ({"plain": 0.8, "gullible": 0.3, "expert": 0.5}, True),     # all gain
    ({"plain": 1.0, "gullible": -0.6, "expert": 0.8}, False),   # the mean rises, one type falls
    *slow(({"plain": 0.5, "gullible": 0.5, "expert": 0.5}, True),      # all gain the same
          ({"plain": 0.0, "gullible": 0.0, "expert": 0.0}, False))])   # nothing was shown to be better
def test_a_recipe_without_rules(tmp_path, gains, ships):
    found = [gate(tmp_path, planted(gains, seed), seed + 1)[0]["ships"] for seed in range(10)]
    assert sum(found) >= 8 if ships else sum(found) == 0


def test_the_turn_that_win_rates_let_pass(tmp_path):
    """As in the benchmark's flattered turn: every pair is a coin for this type, and its mean falls by a standard deviation. Half
    of the answers became a little better, the others much worse."""
    rows = planted({"plain": 1.0, "gullible": 0.0}, 0)
    rng = np.random.default_rng(1)
    for row in rows:
        if row["group"] == "gullible" and row["metric"] == "judge":
            row["old"] = [float(x) for x in rng.normal(0, SD, 2)]
            up = rng.random() < 0.5
            row["new"] = [x + (0.1 * SD if up else -2.2 * SD) for x in row["old"]]
        elif row["group"] == "gullible":
            row["new"] = [float(rng.random() < 0.55)]
    one = {"gate": {"rules": [{"metric": "win_rate", "need": "better"},
                              {"metric": "win_rate", "need": "not_worse", "margin": 0.2, "each": "group"}]}}
    assert gate(tmp_path, rows, 1, **one)[0]["ships"]
    facts, record = gate(tmp_path, rows, 2)
    assert not facts["ships"] and any(w.startswith("judge") for w in facts["failed"])
    (rule,) = [r for r in record["rules"] if r["metric"] == "judge"]
    assert {f["name"]: f["verdict"] for f in rule["findings"]}["judge, gullible"] == "worse" and rule["unit"] == "sd"


def test_tax_and_refusals_are_asked_where_they_were_measured(tmp_path):
    assert [r.metric for r in default_rules(["win_rate", "judge"])] == ["win_rate", "win_rate", "judge"]
    names = [r.metric for r in default_rules(["win_rate", "judge", "tax", "refusals", "refusals-2", "refusals, x", "bias"])]
    assert names[3:] == ["tax", "refusals", "refusals-2"]
    rows = planted({"plain": 0.6, "gullible": 0.6}, 0)
    tax = [verify._row("tax", f"document {i}", "", [3.2 + i / 100], [3.0 + i / 100], None, False) for i in range(20)]
    assert gate(tmp_path, rows, 1)[0]["ships"]
    assert gate(tmp_path, rows + tax, 2)[0]["failed"] == ["tax must not be worse by 0.05"]


def test_prompts_of_one_type_are_told(tmp_path):
    facts, record = gate(tmp_path, planted({"none": 0.6}, 0))
    assert facts["ships"] and "all prompts are of one type (none)" in drive.summary("gate", facts)
    assert record["notes"] == facts["notes"]
    assert not any("one type" in n for n in gate(tmp_path, planted({"a": 0.6, "b": 0.6}, 0), 2)[0]["notes"])


@pytest.mark.parametrize(("margin", "words"), [("0.2 ds", "no number"), ("sd", "no number"), (True, "no number"),
                                               ("-1 sd", "needs a margin above 0")])
def test_margins_that_are_none(tmp_path, margin, words):
    rule = {"metric": "judge", "need": "not_worse", "margin": margin, "each": "group"}
    with pytest.raises(UserError, match=words):
        read_recipe(world.recipe(tmp_path, gate={"rules": [rule]}))
