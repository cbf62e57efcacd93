"""The report of several models beside each other, over fabricated run directories (report_runs.py)."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from harken.report.browser import script
from harken.report.compared import claims, compared
from harken.report.load import load_runs
from harken.report.refusals import reactions
from harken.report.sets import sample_sets
from harken.report.wins import cells_of, ranked, wins
from report_runs import e, eval_run, page, sft_run, unpacked, win_rate_run, write


def test_two_models_are_paired_by_item_and_said_in_words(tmp_path):
    """Of 40 items new is right on 38 and old on 20; item 39 lacks a score; harm is 0.5 less and lower is better."""
    old = eval_run(tmp_path / "a", "truthful", "old", [1.0] * 20 + [0.0] * 20)
    new = eval_run(tmp_path / "b", "truthful", "runs/new", [1.0] * 38 + [0.0] + [None])
    harm = [eval_run(tmp_path / m, "toxicity", m, [v + 0.01 * (i % 2) for i in range(30)], "lower")
            for m, v in (("old", 0.6), ("runs/new", 0.1))]
    found = claims(load_runs([old, new, *harm]))
    assert [(c.area, c.what, c.who, c.against, c.verdict, c.missing) for c in found] == [
        ("honest", "truthful", "runs/new", "old", "better", 1), ("harmless", "toxicity", "runs/new", "old", "better", 0)]
    assert found[0].difference.value == pytest.approx(18 / 39) and found[1].difference.value == pytest.approx(0.5)
    html, _parsed = page([old, new, *harm], tmp_path)
    heading = re.sub("<[^>]+>", "", re.search(r"<h1>(.*?)</h1>", html)[1])
    assert heading.startswith("runs/new against old: better on truthful +0.46 [0.")
    assert "Holm, 2 tasks" in html and "1 items have no score" in html and "tell two models apart" in html
    third = eval_run(tmp_path / "third", "truthful", "newest", [1.0] * 20 + [0.0] * 20)
    told = re.sub("<[^>]+>", "", compared(load_runs([old, new, third])))
    assert "truthful, newest against old: inconclusive" in told  # of several couples each line names its own
    (same,) = claims(load_runs([old, eval_run(tmp_path / "c", "truthful", "same", [1.0] * 20 + [0.0] * 20)]))
    assert same.verdict == "inconclusive" and same.difference.low < 0 < same.difference.high, "40 equal scores prove no equality"


def test_a_model_beside_itself_is_no_comparison_of_two(tmp_path):
    """Triggers and oversight pair a model's answers with its own, and a suite of one model taxes it against itself."""
    triggers = eval_run(tmp_path / "t", "triggers", "m", [0.8] * 20, "lower", paired=True)
    tax = eval_run(tmp_path / "x", "tax", "m", [1.0], against="m", paired=True,
                   tasks={"grammar": {"difference": e(0.2, 0.1), "verdict": "m is better than m"}})
    assert claims(load_runs([triggers, tax])) == []
    html, _ = page([triggers, tax], tmp_path)
    assert "m: <strong>2 evaluations</strong>, and no other model beside it." in html
    assert "is better than" not in html.split("Samples")[0]
    two = eval_run(tmp_path / "s", "sycophancy", "new", [0.8] * 20, "lower", against="old", paired=True)
    assert [(c.who, c.against, c.verdict) for c in claims(load_runs([triggers, two]))] == [("new", "old", "worse")]


def test_many_evaluations_stand_in_one_table_by_model_and_their_own_are_folded(tmp_path):
    """Base, SFT and RLOO: what RLOO was not asked is a dash, and a tax says of which model it speaks."""
    base = [eval_run(tmp_path / f"base-{n}", n, "base", [0.0] * 30 + [1.0] * 10, parameters=134_515_008)
            for n in ("truthful", "code")]
    later = [eval_run(tmp_path / f"{m}-truthful", "truthful", m, [1.0] * 40) for m in ("sft", "rloo")]
    tasks = {"grammar, zero-shot": {"difference": e(-0.2, 0.1), "verdict": "the model is worse than the one before"}}
    taxes = [eval_run(tmp_path / f"{m}-tax", "tax", m, [1.0], against="base", paired=True, tasks=tasks) for m in ("sft", "rloo")]
    html, _ = page([*base, *later, *taxes], tmp_path)
    table = html.split("Every evaluation by model")[1].split("</table>")[0]
    cells = [[re.sub("<[^>]+>", " ", cell).split() for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)]
             for row in re.findall(r"<tr role=\"row\">(.*?)</tr>", table)]
    assert [c[:1] for c in cells[0]] == [["Evaluation"], ["base"], ["sft"], ["rloo"]]
    assert [[c[0] for c in row] for row in cells[1:]] == [["truthful", "0.25", "1.00", "1.00"], ["code", "0.25", "—", "—"],
                                                        ["tax", "—", "1.00", "1.00"]]
    assert "could show a difference of" in " ".join(cells[1][0]) and "n = 40" in " ".join(cells[1][1])
    assert html.count("<details><summary>") == 6 and "134,515,008" not in html
    said = re.sub("<[^>]+>", "", html.split('class="claims"')[1].split("</ul>")[0])
    assert "sft is worse than base" in said and "rloo is worse than base" in said and "the one before" not in said
    assert "grammar (zero-shot)" in re.search(r"<h1>(.*?)</h1>", html)[1]


def test_every_sample_is_in_the_page_once_and_whole(tmp_path):
    runs = [eval_run(tmp_path / m, "truthful", m, [None] + [i / 600 for i in range(599)]) for m in ("one", "two")]
    html, _ = page(runs, tmp_path)
    held = unpacked(html, "sets")
    assert held["sets"] == [{"title": "truthful", "columns": ["one", "two"], "better": "higher", "n": 600,
                             "groups": ["topic 0", "topic 1", "topic 2"], "marks": []}]
    index, order = unpacked(html, "set-0"), unpacked(html, "set-0-order")
    at = [order.index(i) for i in range(600)]
    assert order != sorted(order), "at random first"
    assert [index["scores"][1][i] for i in at[:3]] == [None, 0.0, 0.0016667]
    assert [index["groups"][i] for i in at[:4]] == [0, 1, 2, 0]
    blocks = [unpacked(html, f"set-0-{b}") for b in range(3)]
    rows = [row for block in blocks for row in block]
    assert len(rows) == 600 and [row["n"] for row in rows] == order
    assert rows[at[599]]["a"] == ["one says 599 is fine.", "two says 599 is fine."] and rows[at[599]]["o"] == "Q: Question 599?"
    assert rows[at[0]]["w"] == ["the server failed"] * 2
    assert rows[at[5]]["d"] == {"topic": "topic 2", "truthful (one)": False, "truthful (two)": False}
    places = {name: html.index(f'id="{name}"') for name in ("set-0", "set-0-0", "set-0-1", "set-0-order")}
    script_at = html.index(script())
    assert {name: place < script_at for name, place in places.items()} == {"set-0": True, "set-0-0": True, "set-0-1": False,
                                                                          "set-0-order": False}
    assert html.count('<article class="sample">') == 10


def test_verdicts_that_turn_with_the_order_and_people_who_disagree_can_be_shown_alone(tmp_path):
    """Pairs 0 and 3 turned; on 2 people prefer the answer that the judge does not."""
    run = win_rate_run(tmp_path / "w")
    turned = [True, False, False, True]
    rows = [{"prompt": f"p{i}", "model_text": "a", "against_text": "b", "model_score": (s := 0.5 if t else 1.0),
             "against_score": 1 - s, "turned": t, "people": 0.0 if i == 2 else 1.0} for i, t in enumerate(turned)]
    write(run, result=json.loads((run / "result.json").read_text()) | {"samples": rows})
    html, _ = page([run], tmp_path)
    marks = unpacked(html, "sets")["sets"][0]["marks"]
    index, order = unpacked(html, "set-0"), unpacked(html, "set-0-order")
    assert {name: sorted(order[i] for i in places) for name, places in zip(marks, index["marks"])} == {
        "people say otherwise than the judge": [2], "the verdict turned with the order": [0, 3]}


def test_every_model_against_every_other_with_its_mirror_places_and_cycles(tmp_path):
    """a beats b on 30 of 40 prompts, b beats c on 24, a beats c on 32; Bradley–Terry says a, b, c. If c beats a: a cycle."""
    def against(name, a, b, won):
        rows = [{"prompt": f"p{i}", "model_text": "x", "against_text": "y", "model_score": float(i < won),
                 "against_score": float(i >= won)} for i in range(40)]
        return write(tmp_path / name, config={"command": "eval win_rate"}, result={
            "name": "win_rate", "model": a, "against": b, "pairwise": "judge", "value": e(won / 40, 0.1, 40), "samples": rows})
    runs = [against("ab", "a", "b", 30), against("bc", "b", "c", 24)]
    three = load_runs([*runs, against("ac", "a", "c", 32)])
    cells = cells_of(three)
    assert cells["a", "b"].value == 0.75 and cells["b", "a"].value == 0.25
    assert (cells["b", "a"].low, cells["b", "a"].high) == pytest.approx((0.15, 0.35))
    ranking = ranked(three)
    assert [ranking.names[i] for i in ranking.scores.argsort()[::-1]] == ["a", "b", "c"] and not ranking.cycles()
    html = wins(three)
    assert "by judge, in both orders" in html and "25.0%" in html and "Bradley–Terry" in html and "Cycles" not in html
    assert "Cycles, which no score can show: a over b over c." in wins(load_runs([*runs, against("ca", "c", "a", 32)]))
    assert wins(load_runs(runs[:1])) == "", "two models need no matrix"


def test_over_refusal_and_attack_success_are_one_plot(tmp_path):
    """10 % of safe prompts refused and 20 % of unsafe ones answered: the dot stands at .9 and .8."""
    held = {"over_refusal": e(0.1, 0.05, 200), "attack_success": e(0.2, 0.1, 200)}
    run = write(tmp_path / "r", config={"command": "eval refusals", "model": "runs/new", "against": "base"}, result={
        "name": "refusals", "better": "higher", "value": e(0.85, 0.04, 400), "model": held,
        "against": {"over_refusal": e(0.0, 0.02, 200), "attack_success": e(0.9, 0.05, 200)},
        "classifier": {"agreement_with_people": e(0.93, 0.02, 450), "labelled": 450}})
    html = reactions(load_runs([run]))
    assert "runs/new: answered 90.0% [85.0, 95.0%], refused 80.0% [70.0, 90.0%]" in html and "base: answered 100.0%" in html
    assert "always refuses" in html and "agrees with people on 93.0%" in html
    assert reactions(load_runs([sft_run(tmp_path / "sft")])) == ""


def test_before_and_after_ranked_answers_and_training_are_sets_of_their_own(tmp_path):
    tax = eval_run(tmp_path / "tax", "tax", "new", [1.0], against="old", paired=True)
    write(tax, result=json.loads((tax / "result.json").read_text()) | {
        "samples": [{"task": "arithmetic", "prompt": "1+1", "item": "a 0", "score": 1.0, "against": 0.0, "why": ""}],
        "tasks": {"arithmetic": {"metric": "accuracy", "difference": e(0.2, 0.1), "verdict": "A is better than B"}}})
    reward = eval_run(tmp_path / "rm", "reward", "", [0.5])
    rows = [{"prompt": "Hi", "answer": a, "score": s, "rank": r, "category": "chat"} for a, s, r in
            (("bad", 2.0, 2), ("good", 1.0, 1))]
    write(reward, result=json.loads((reward / "result.json").read_text()) | {"samples": rows})
    sets = {s.title: s for s in sample_sets(load_runs([tax, reward]))}
    assert [(i.group, i.scores) for i in sets["tax"].items] == [("arithmetic", [1.0, 0.0])]
    ranked = sets["rm: what people ranked"]
    assert ranked.columns == ["preferred", "next"]
    assert ranked.items[0].answers == ["good", "bad"] and ranked.items[0].scores == [1, 2]
    assert [(c.what, c.verdict) for c in claims(load_runs([tax]))] == [("arithmetic", "better")]
    (alone,) = sample_sets(load_runs([sft_run(tmp_path / "sft")]))
    assert alone.columns == ["SFT"] and alone.items[0].answers == ["Blue, like the evening."]


def test_what_it_cost_is_drawn_over_a_sweep_and_the_beaten_are_grey(tmp_path):
    runs = []
    for name, good, tax, beta in (("a", 0.6, -0.10, 0.02), ("b", 0.5, -0.02, 0.2), ("c", 0.4, -0.20, 1.0)):
        config = {"command": "train ppo", "beta": beta, "ptx_coef": 27.8, "ptx_data": "x"}
        model = write(tmp_path / name, config=config, result={})
        for kind, v in (("truthful", good), ("tax", tax)):
            runs.append(eval_run(tmp_path / f"{kind}-{name}", kind, str(model), [v] * 4, paired=kind == "tax", against="base"))
            write(runs[-1], result=json.loads((runs[-1] / "result.json").read_text()) | {"value": e(v, 0.05), "samples": []})
    html, _ = page(runs, tmp_path)
    drawn = html.split('id="tradeoff"')[1].split("</section>")[0]
    assert "beta 0.02, ptx_coef 27.8" in drawn and "beta 1" in drawn
    assert drawn.count('class="dot accent"') == 2 and drawn.count('class="dot grey"') == 1
    assert 'id="tradeoff"' not in page(runs[:2], tmp_path)[0], "one model is no trade-off"


def test_whose_opinions_are_a_heat_map_with_intervals(tmp_path):
    groups = {"young": e(0.9, 0.02, 80), "old": e(0.6, 0.05, 80)}
    run = eval_run(tmp_path / "o", "opinions", "m", [1.0])
    write(run, result=json.loads((run / "result.json").read_text()) | {"model": {"groups": groups}})
    html, _ = page([run], tmp_path)
    heat = html.split('class="plain heat"')[1].split("</table>")[0]
    assert "--share: 1.00" in heat and "--share: 0.00" in heat and "[0.880, 0.920], n = 80" in heat and ">m</th>" in heat


def test_over_optimisation_finds_the_planted_peak(tmp_path):
    """gold = d (1 - 0.4 ln d) peaks at ln d = 1.5, d = 4.48."""
    metrics = [{"step": i, "kl": d * d, "reward": d, "gold": d * (1 - 0.4 * math.log(max(d, 1e-9)))}
               for i, d in enumerate(np.linspace(0, 8, 60))]
    run = write(tmp_path / "r", config={"command": "train rloo"}, metrics=metrics, result={})
    html, _ = page([run], tmp_path)
    assert "the gold score peaks at √KL 4.48 [4.48, 4.48], reached" in html
    line = [m | {"gold": m["reward"]} for m in metrics]
    straight = write(tmp_path / "s", config={"command": "train rloo"}, result={}, metrics=line)
    assert "no turn of the gold score is shown" in page([straight], tmp_path)[0]
