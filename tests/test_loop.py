"""The loop's machinery with steps that cost nothing: commits, kills, decisions, canary, lineage.

A real turn, on a real server, is in test_loop_real.py."""

import json
import re
import shutil

import numpy as np
import pytest

import harken.launch.loop.turns as turns_module
import loop_world as world
from harken.core.errors import UserError
from harken.core.files import read_json, write_json
from harken.core.records import Judgment
from harken.launch.loop import approval, audit, canary, collect, drive, lineage
from harken.launch.loop.recipe import read_loop, read_recipe
from harken.launch.loop.status import status
from harken.launch.loop.turns import Loop, hashes
from harken.launch.loop.worth import compare_prompts, right_order
from harken.report.loop import build_loop, write_lineage
from harken.store.database import open_database
from harken.store.files import write_jsonl


class Killed(BaseException):
    """A process that ended here."""


def say(db, pairs, first=0):
    """Judgments `pairs` of (labeler, better, worse), one prompt each."""
    rows = [Judgment(world.prompt(first + i), "ranking", {"completions": [a, b], "ranks": [1, 2]}, who, order=(0, 1))
            for i, (who, a, b) in enumerate(pairs)]
    with open_database(db) as opened:
        opened.add_judgments(rows)


def cheap(monkeypatch):
    """Reward, policy and verification as files: the machinery is what is tested."""
    def reward(recipe, turn, folder):
        (folder / "run").mkdir(exist_ok=True)
        write_json(folder / "run" / "head.json", {"rows": turn.facts("audit")["train"]})
        return {"reward": "reward/run"}

    def policy(recipe, turn, folder):
        model = folder / "run" / "model"
        model.mkdir(parents=True, exist_ok=True)
        (model / "model.safetensors").write_text(f"weights of {turn.number} on {turn.end()}")
        return {"base": turn.begun["model"]}

    def verify(recipe, turn, folder):
        good = turn.begun["recipe"].get("seed", 0) == 0
        write_jsonl(folder / "scores.jsonl", ({
            "metric": "win_rate", "item": f"p{i}", "group": "plain", "new": [float(good)], "old": [0.5], "bounds": [0, 1],
            "higher": True} for i in range(30)))
        estimate = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 30, "level": 0.95}
        return {"figures": {"win_rate": estimate, "judge": {"new": estimate, "old": estimate}}, "prompts": 30, "answers": 1}

    for name, step in (("reward", reward), ("policy", policy), ("verify", verify)):
        monkeypatch.setitem(drive.STEPS, name, step)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    cheap(monkeypatch)
    world.write_prompts(tmp_path / "verify.jsonl", 5, 5)
    say(tmp_path / "feedback.db", [(f"u{i % 6}", "k", "r") for i in range(60)])
    return tmp_path


def recipe(folder, **parts):
    return read_recipe(world.recipe(folder, **parts))


def decided(its, yes=True, by="ada"):
    loop, turn, recipe = drive.waiting(its)
    return approval.decide(recipe, loop, turn, by=by, how="test", yes=yes)


def test_a_turn_is_driven_to_its_approval_and_then_served(folder):
    its = recipe(folder)
    state = drive.drive(its)
    assert state.waits == "approval" and len(state.lines) == 7
    assert drive.drive(its).lines == []  # nothing is due
    loop = Loop(its.out)
    assert loop.pointer["serving"] == 0 and not (its.out / "serving.json").exists()
    decided(its)
    assert drive.drive(its).words == "Turn 1 is served." and loop.pointer["serving"] == 1
    waiting = drive.drive(its)
    assert waiting.waits == "judgments" and "0 of 50" in waiting.words
    say(its.db[0], [("u1", "k", "r")] * 55, first=500)
    assert drive.drive(its).turn == 2 and loop.turn(2).begun["model"] == loop.turn(1).policy
    assert loop.turn(2).facts("snapshot")["new"] == 55 and loop.turn(2).facts("snapshot")["comparisons"] == 115
    decided(its, yes=False)
    assert "rejected" in drive.drive(its).words and loop.pointer["serving"] == 1
    assert drive.rollback(its, "ada").startswith("start is served again") and loop.pointer["serving"] == 0
    assert [t["state"] for t in status(its)["turns"]] == ["promoted", "ended"]


def test_a_closed_gate_ends_the_turn_and_nobody_can_approve_it(folder):
    its = recipe(folder, seed=1)
    state = drive.drive(its)
    assert state.waits == "" and "the gate said worse" in state.words
    with pytest.raises(UserError, match="No turn waits"):
        decided(its)
    again = recipe(folder / "again", db=str(folder / "feedback.db"), verify={**world.recipe(folder)["verify"]}, seed=1)
    turn = Loop(again.out).begin({"recipe": dict(again.given), "serving": 0, "seen": {}, "model": again.start})
    for name, work in drive.STEPS.items():
        turn.commit(name, lambda place, work=work: work(again, turn, place))
    with pytest.raises(UserError, match="did not pass its gate"):
        approval.decide(again, Loop(again.out), turn, by="ada", how="test", yes=True)


@pytest.mark.slow
def test_a_kill_before_or_after_any_commit_changes_nothing(folder, monkeypatch):
    """Every rename of a whole turn, killed just before and just after it: the next call goes on, nothing is there twice, and what
    is served is always a whole model."""
    monkeypatch.setattr(audit, "audit", lambda choices, *a: audit.Audited(tuple(range(len(choices))), {"left_out": 0}))
    real = turns_module.commit_rename
    names = ["0001", "snapshot", "audit", "reward", "policy", "verify", "gate", "approval", "canary", "promoted"]
    for name in names:
        for after in (False, True):
            place = folder / f"{name}-{after}"
            its = recipe(folder, out=str(place), canary={"share": 0.1})
            armed = [True]

            def kill(working, target, name=name, after=after, armed=armed):
                if armed[0] and target.name == name:
                    armed[0] = False
                    if after:
                        real(working, target)
                    raise Killed
                real(working, target)
            monkeypatch.setattr(turns_module, "commit_rename", kill)
            monkeypatch.setattr(canary, "read_canary", lambda its, *a: its.canary.rule.read([1.0] * 300))
            kills = 0
            for _ in range(6):
                try:
                    if drive.drive(its).waits == "approval":
                        decided(its)
                except Killed:
                    kills += 1
                pointer = Loop(its.out).pointer
                assert pointer["serving"] == 0 or Loop(its.out).turn(pointer["serving"]).has("promoted")
                if pointer["serving"] == 1:
                    break
            monkeypatch.setattr(turns_module, "commit_rename", real)
            loop = Loop(its.out)
            assert kills == 1 and loop.pointer["serving"] == 1, name
            assert len(loop.turns()) == 1 and loop.turns()[0].over
            assert len({tuple(n) for r in lineage._sources(loop.turns()[0], "comparisons") for n in r["judgments"]}) == 60
            loop.turns()[0].check("promoted")
            shutil.rmtree(place)


def test_two_at_once_and_a_changed_file(folder):
    its = recipe(folder)
    loop = Loop(its.out)
    with loop.working(), pytest.raises(UserError, match="Another harken loop"), loop.working():
        pass
    drive.drive(its)
    turn = loop.turns()[0]
    (turn.path / "audit" / "comparisons.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"comparisons\.jsonl was changed"):
        decided(its)


def test_an_approval_is_bound_to_what_was_approved(folder):
    its = recipe(folder)
    drive.drive(its)
    with pytest.raises(UserError, match="bob may not decide"):
        decided(its, by="bob")
    turn = Loop(its.out).turns()[0]
    with pytest.raises(UserError, match="Nobody approved"):
        approval.check(turn)
    decided(its)
    record = approval.check(turn)
    assert record["by"] == "ada" and record["weights"]["weights"]
    with pytest.raises(UserError, match="No turn waits"):
        decided(its)
    signed = turn.path / "approval" / approval.FILE
    whole = signed.read_text()
    for change in ({"by": "bob"}, {"decision": "reject"}, {"canary": {"share": 1.0}}):
        write_json(signed, {**json.loads(whole), "record": {**json.loads(whole)["record"], **change}})
        with pytest.raises(UserError, match="not signed"):
            approval.check(turn)
    signed.write_text(whole)
    for file, what in (("policy/run/model/model.safetensors", "weights"), ("verify/step.json", "evaluation"),
                       ("snapshot/step.json", "snapshot"), ("gate/step.json", "gate")):
        before = (turn.path / file).read_bytes()
        (turn.path / file).write_bytes(before + b" ")
        with pytest.raises(UserError, match=f"The {what} of turn 1 changed after ada"):
            approval.check(turn)
        (turn.path / file).write_bytes(before)
    assert approval.check(turn) == record


def pair(who, new_wins, i, models=("turn-0001", "start")):
    served = [{"model": m, "answer": f"a{i}/{n}"} for n, m in enumerate(models)]
    return Judgment(world.prompt(5000 + i), "ranking",
                    {"completions": ["k", "r"], "ranks": [1, 2] if new_wins else [2, 1], "served": served}, who)


def test_canary_outcomes_count_each_person_once():
    thumb = lambda who, up, model: Judgment(world.prompt(1), "thumb", {  # noqa: E731
        "completion": "k", "label": up, "served": {"model": model, "answer": "a/0"}}, who)
    said = [pair("a", True, 0), pair("a", True, 1), pair("b", False, 2, ("start", "turn-0001")), thumb("a", True, "start"),
            thumb("b", False, "turn-0001"), thumb("b", True, "turn-0001"), pair("c", True, 3, ("start", "start")),
            thumb("c", True, "elsewhere")]
    assert canary.outcomes(said, "turn-0001", "start") == [1.0, 1.0, -1.0]


@pytest.mark.slow
def test_a_canary_stops_or_passes_by_its_rule(folder):
    def run(name, wins):
        its = recipe(folder, out=str(folder / name), db=str(folder / f"{name}.db"),
                     canary={"share": 0.2, "error": 0.1, "margin": 0.3, "most": 80})
        say(its.db[0], [(f"u{i % 6}", "k", "r") for i in range(60)])
        drive.drive(its)
        decided(its)
        assert drive.drive(its).waits == "canary"
        assert Loop(its.out).pointer["canary"] == {"turn": 1, "share": 0.2} and Loop(its.out).pointer["serving"] == 0
        with open_database(its.db[0]) as db:
            db.add_judgments([pair(f"v{i}", wins, i) for i in range(40)])
        drive.drive(its)
        return Loop(its.out)
    loop = run("good", True)
    assert loop.pointer["serving"] == 1 and loop.pointer["canary"] is None and loop.turn(1).facts("canary")["state"] == "pass"
    loop = run("bad", False)
    assert loop.pointer["serving"] == 0 and loop.pointer["canary"] is None
    assert "its canary ended: stop" in loop.turn(1).facts("ended")["why"]


def test_a_canary_can_be_rolled_back(folder):
    its = recipe(folder, canary={"share": 0.2})
    drive.drive(its)
    decided(its)
    drive.drive(its)
    assert "canary of turn 1 is over" in drive.rollback(its, "ada")
    assert Loop(its.out).pointer["canary"] is None and Loop(its.out).turn(1).over == "ended"
    assert drive.drive(its).waits == "judgments"


@pytest.mark.slow
def test_lineage_both_ways(folder, tmp_path):
    its = recipe(folder)
    drive.drive(its)
    decided(its)
    drive.drive(its)
    back = lineage.of_run(tmp_path / "loop" / "turns" / "0001" / "policy" / "run").text()
    assert "60 judgments by 6 people: 60 ranking" in back and "numbers 1–60" in back and "approve by ada" in back
    forward = lineage.of_judgment(its, "7").text()
    assert "turn 1: it trained the reward or the policy; its weights answer now" in forward
    assert "none" in lineage.of_withdrawn(its).text()
    from datetime import UTC, datetime

    from harken.studio.work.withdrawal import withdraw
    with open_database(its.db[0]) as db, db.link.writing() as tx:
        count, touched = withdraw(tx, "u3", datetime.now(UTC))
    assert count == 10 and {s.kind for s in touched} == {"comparisons"}  # the studio's withdrawal finds the loop's files
    assert "turn 1: 10 of 60: 4, 10, 16" in lineage.of_withdrawn(its).text()
    say(its.db[0], [("u1", "k", "r")] * 55, first=500)
    drive.drive(its)
    assert Loop(its.out).turn(2).facts("snapshot")["comparisons"] == 105  # what was withdrawn trains no later turn
    assert "turn 2 trained on from it" in lineage.of_judgment(its, "7").text()
    with pytest.raises(UserError, match="no judgment 9999"):
        lineage.of_judgment(its, "9999")
    assert lineage.ranges([3, 1, 2, 9, 7]) == "1–3, 7, 9"
    page = write_lineage(lineage.of_judgment(its, "7"), tmp_path / "l.html").read_text()
    assert "<summary>" in page and "turn 2 trained on" in page


def test_the_page_shows_every_turn(folder):
    its = recipe(folder)
    drive.drive(its)
    page = build_loop(its, folder / "loop.html").read_text()
    assert "Turn 1 passed its gate and waits for a person" in page and "win_rate must be better" in page
    assert "What more labels would buy" in page and "What people ask" in page
    assert read_loop(its.out).given == its.given


def test_thumbs_of_one_person_on_one_prompt_are_pairs(folder):
    its = recipe(folder, db=str(folder / "thumbs.db"))
    asked = world.prompt(1)
    thumb = lambda who, text, up: Judgment(asked, "thumb", {"completion": text, "label": up}, who)  # noqa: E731
    with open_database(its.db[0]) as db:
        db.add_judgments([thumb("a", "k", True), thumb("a", "r", False), thumb("a", "x", False), thumb("b", "r", True)])
    found = collect.gather(its, {})
    assert [(c.options, c.labeler, c.kind) for c in found.comparisons] == [(("k", "r"), "a", "thumb"), (("k", "x"), "a", "thumb")]
    assert found.new == 2 and collect.gather(its, {its.db[0]: 3}).new == 0
    assert collect.gather(its, {its.db[0]: 2}).new == 1
    asking = {**world.recipe(folder)["verify"], "prompts": str(folder / "v.jsonl")}
    checked = recipe(folder, db=str(folder / "thumbs.db"), verify=asking)
    (folder / "v.jsonl").write_text(json.dumps(asked.to_json()) + "\n")
    assert collect.gather(checked, {}).kept_apart == 4  # a prompt of the verification trains nothing


def test_nobody_gives_more_than_a_share(folder):
    choices = world.choices_of([Judgment(world.prompt(i), "ranking", {"completions": ["k", "r"], "ranks": [1, 2]},
                                         "loud" if i < 300 else f"u{i % 100}") for i in range(600)])
    sources = [collect.Source(((0, i),), "2026") for i in range(600)]
    kept = audit.audit(choices, sources, {"campaigns": False, "most": 0.05}).kept
    share = sum(choices[i].labeler == "loud" for i in kept) / len(kept)
    assert share <= 0.05 + 1 / len(kept) and len(kept) >= 300
    assert audit.audit(choices, sources, {"campaigns": False, "most": 0.05}).kept == kept
    with pytest.raises(UserError, match="no setting"):
        audit.audit(choices, sources, {"mots": 1})


@pytest.mark.parametrize("same", ["address", "account", "nothing"])
def test_one_will_behind_several_names_is_bounded_as_one(folder, same):
    """Six of forty names from one address, or of one key: leaving all of them out moves no answer by more than the bound."""
    rng = np.random.default_rng(3)
    people = [f"{'ada/' if same == 'account' and n < 6 else ''}u{n}" for n in range(40)]
    judged, sources = [], []
    for i in range(400):
        n = i % 40
        a, b = rng.choice(list("kobmzxr"), 2, replace=False).tolist()
        won = 1 if (n < 6 and a > b) or (n >= 6 and world.WORTH[a] > world.WORTH[b]) else -1
        ranks = [1, 2] if won > 0 else [2, 1]
        judged.append(Judgment(world.prompt(i), "ranking", {"completions": [a, b], "ranks": ranks}, people[n]))
        sources.append(collect.Source(((0, i),), "2026", address="x" if same == "address" and n < 6 else f"a{n}"))
    report = audit.audit(world.choices_of(judged), sources, {"draws": 0, "dimensions": 16, "reversed": 2.0}).report
    units = [u for u in report["campaigns"]["units"] if len(u["people"]) == 6]
    assert [u["kind"] for u in units] == ([] if same == "nothing" else [same])
    assert all(u["before"] > u["after"] and u["after"] <= report["bound"] <= report["campaigns"]["limit"] + 1e-9 for u in units)
    named = {name for row in report["set_aside"] for name in row["people"]}
    assert (named >= set(people[:6]) or same == "nothing") and not named - set(people[:6])


def test_what_most_people_share_is_a_front_end(folder):
    said = {"completions": ["k", "r"], "ranks": [1, 2]}
    choices = world.choices_of([Judgment(world.prompt(i), "ranking", said, f"app/u{i % 40}") for i in range(200)])
    sources = [collect.Source(((0, i),), "2026", address="x") for i in range(200)]
    found = audit.audit(choices, sources, {"draws": 0})
    assert len(found.kept) == 200 and found.report["set_aside"] == []
    assert [n for n in found.report["notes"] if n.startswith("40 of 40 people share one")] == found.report["notes"]
    assert len(found.report["notes"]) == 2


def test_what_more_labels_buy_by_hand():
    """Mean 0: now a coin. With half the variance left, d and the new mean correlate by sqrt(1/2): they agree in sign with chance
    1/2 + asin(sqrt(1/2)) / pi = 3/4 (Sheppard's orthant formula). Mean 2, sd 1, nothing new: Φ(2)."""
    now, then = (float(right_order([0.0], [1.0], s)[0]) for s in (1.0, 0.5))
    assert now == pytest.approx(0.5) and then == pytest.approx(0.75, abs=0.02)
    assert float(right_order([2.0], [1.0], 1.0)[0]) == pytest.approx(0.97725, abs=1e-4)
    real = [world.Prompt.of("Write a poem about rain"), world.Prompt.of("zxqv"), world.Prompt.of("x", use_case="chat")]
    test = [world.Prompt.of("Write a poem about the sea", use_case="generation"),
            world.Prompt.of("Sum 1 and 2", use_case="other")]
    assert compare_prompts(real, test)["real"] == {"generation": 1, "like no test prompt": 1, "chat": 1}


@pytest.mark.parametrize(("change", "words"), [
    ({"policy": {"method": "rloo", "settings": {"stpes": 1}}}, "Did you mean steps"),
    ({"policy": {"method": "rloo", "settings": {"out": "x"}}}, "which the loop fills in"),
    ({"reward": {}}, "rloo climbs a reward"), ({"colect": {}}, "Did you mean collect"),
    ({"gate": {"rules": [{"metric": "tax", "need": "not_worse"}]}}, "needs a margin"),
    ({"verify": {"prompts": "x", "judge": "held_out"}}, "collect holds nothing out"),
    ({"verify": {"prompts": "x", "judge": "gold", "groups": ""}}, "verify.groups is not set"),
    ({"canary": {"share": 2}}, "canary.share is no share"),
    ({"from": "there"}, "from is 'there'"), ({"db": ""}, "has no db")])
def test_a_recipe_that_is_none(folder, change, words):
    with pytest.raises(UserError, match=words):
        recipe(folder, **change)


def test_recipes_of_every_kind(folder):
    given = world.recipe(folder)
    (folder / "r.py").write_text(f"RECIPE = {given!r}")
    (folder / "r.json").write_text(json.dumps(given))
    assert read_recipe(folder / "r.py") == read_recipe(folder / "r.json") == read_recipe(given)
    with pytest.raises(UserError, match="no dictionary RECIPE"):
        (folder / "none.py").write_text("")
        read_recipe(folder / "none.py")
    with pytest.raises(UserError, match="no loop's folder"):
        read_loop(folder)
    assert hashes(folder)["r.py"] and read_json(folder / "r.json") == given


def test_a_card_says_what_the_gate_found(folder):
    """What `harken export model` puts beside the weights names nobody and no path of this machine."""
    from harken.launch.card import gate_section
    its = recipe(folder)
    drive.drive(its)
    decided(its)
    record = lineage.gate_record(folder / "loop" / "turns" / "0001" / "policy" / "run")
    assert record["gate"]["verdict"] == "better" and record["approval"]["decision"] == "approve"
    assert record["snapshot"]["labelers"] == 6
    words = gate_section(record) + json.dumps(record)
    assert "| win_rate must be better | win_rate | holds | +0.500 |" in words and "A person decided: approve" in words
    assert str(folder) not in words and not re.search(r"\b(u3|ada)\b", words)  # three letters of a hash may well be ada
    assert lineage.gate_record(folder) is None
