"""`harken labelers`, and the verdicts and effects it shows."""

import dataclasses
import json
from xml.etree import ElementTree

import numpy as np
import pytest

from harken.cli.main import main
from harken.core.records import Prompt
from harken.labelers.models.influence import drop_each, drop_effect, held_out
from harken.labelers.models.reliability import fit_reliability, task_of
from harken.labelers.models.verdicts import describe, warnings
from harken.sandbox.labelers import crowd, make_judgments, upside_down
from harken.store.database import open_database
from labeler_worlds import world

CROWD = np.r_[np.full(8, 1.5), 0.0, 0.0, -1.5]


@pytest.fixture(scope="module")
def judgments():
    meta = {"topic": ["sum", "number"], "answer": ["sum"]}
    prompts = [Prompt.of(f"What is {a} and {b}?", meta=meta) for a in range(6) for b in range(8)]
    answers = [["The sum.", "The sum is a number, and here is more of it.", "No.", "I like tea."] for _ in prompts]
    return make_judgments(prompts, answers, [*crowd(0), upside_down()], np.random.default_rng(0), overlap=3)


@pytest.fixture
def file(tmp_path, judgments):
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps(j.choice().to_json()) + "\n" for j in judgments))
    return str(path)


def test_verdicts_follow_what_was_planted():
    _, votes = world(0, CROWD, 1600, items=40, spread=1.5)
    people = {p.name: p.verdict for p in describe(votes, fit_reliability(votes), drop_each(votes))}
    assert people["p10"] == "reversed" and {people["p8"], people["p9"]} == {"careless"}
    assert [people[f"p{k}"] for k in range(8)] == ["reliable"] * 8


@pytest.mark.slow
def test_a_pull_towards_the_first_place_and_towards_length_is_named():
    position, length = np.r_[1.2, np.zeros(9)], np.r_[np.zeros(9), 1.5]
    _, votes = world(1, np.ones(10), 3000, items=40, position=position, length=length)
    people = {p.name: p for p in describe(votes, fit_reliability(votes, position=True, length=True),
                                          drop_each(votes, position=True, length=True))}
    assert "favours first" in people["p0"].verdict and "favours long" in people["p9"].verdict
    assert sum("favours" in p.verdict for p in people.values()) <= 4
    assert people["p9"].length == pytest.approx(1.5, abs=0.6)


def test_who_ties_readily_is_not_taken_for_careless():
    """Davidson's nu is 12 for one of ten equally rational people: three in four of his votes are ties."""
    truth = np.random.default_rng(7).normal(size=40)
    (_, votes), (_, ready) = (world(7, np.ones(10), 4000, items=40, nu=nu, scores=truth) for nu in (0.3, 12.0))
    mixed = dataclasses.replace(votes, won=np.where(votes.labeler == 0, ready.won, votes.won))
    found = fit_reliability(mixed, indifference=True)
    assert found.beta_low[0] < 1 < found.beta_high[0] and found.beta[0] > 0.6
    assert found.indifference[0] - found.indifference[1:].mean() == pytest.approx(np.log(12 / 0.3), abs=0.5)


def test_few_votes_are_little_data():
    _, votes = world(2, [1.0, 1.0, 1.0], 200)
    few = votes.take((votes.labeler != 2) | (np.cumsum(votes.labeler == 2) <= 5))
    people = {p.name: p.verdict for p in describe(few, fit_reliability(few), drop_each(few))}
    assert people["p2"] == "little data"


@pytest.mark.slow
def test_f18_dropping_the_reversed_labeler_helps_to_predict_the_others():
    """Eleven people, one upside down: the others' unseen votes are predicted better without him, and worse without a good one."""
    _, votes = world(3, CROWD, 1500, items=40, spread=1.5)
    effect = drop_effect(votes)
    assert effect[10] > 0 > effect[:8].mean() and effect.argmax() == 10
    dropped = drop_each(votes)
    assert dropped.agreement[10] < 0.3 < 0.7 < dropped.agreement[:8].min()
    tested = held_out(votes, without=[10])
    mean = {n: v[votes.labeler != 10].mean() for n, v in tested.log_prob.items()}
    assert mean["beta"] > mean["plain without"] > mean["plain"]


def test_f17_a_few_raters_who_dominate_are_reported():
    _, votes = world(4, np.ones(10), 2000)
    busy = votes.take((votes.labeler < 2) | (np.arange(2000) % 10 == 0))
    assert any("what is learnt is theirs" in w for w in warnings(busy)) and not any("theirs" in w for w in warnings(votes))
    alone = votes.take(np.unique(np.sort(np.stack([votes.a, votes.b], 1), 1), axis=0, return_index=True)[1])
    assert any("lean on their prior" in w for w in warnings(alone))


def test_the_command_prints_a_table_and_writes_a_page(file, tmp_path, capsys):
    assert main(["labelers", file, "--out", str(tmp_path / "l.html")]) == 0
    shown = capsys.readouterr().out
    assert "upside-down" in shown and "reversed" in shown and "Unseen votes" in shown
    page = (tmp_path / "l.html").read_text()
    assert "<svg" in page and "<script" not in page and "http" not in page.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.slow
def test_json_from_a_database_knows_places_and_seconds(judgments, tmp_path, capsys):
    with open_database(tmp_path / "f.db") as db:
        db.add_judgments(judgments)
    assert main(["labelers", str(tmp_path / "f.db"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    people = {p["name"]: p for p in found["people"]}
    assert people["upside-down"]["verdict"].startswith("reversed")
    assert people["first-gus"]["position"] > 0 and people["careless-flo"]["seconds"] < people["ana"]["seconds"] / 2
    assert found["held_out"]["beta"]["gain"]["low"] > 0


@pytest.mark.slow
def test_the_picture_is_svg_and_effects_are_shown(judgments, tmp_path, capsys):
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(j.choice().to_json()) + "\n" for j in judgments[:60]))
    assert main(["labelers", str(tmp_path / "few.jsonl"), "--effect", "--out", str(tmp_path / "l.svg")]) == 0
    assert ElementTree.parse(tmp_path / "l.svg").getroot().tag.endswith("svg")


def test_wrong_input_is_said_in_one_message(tmp_path, capsys):
    cases = {"empty.jsonl": "", "demos.jsonl": '{"prompt": "p", "completion": "x"}\n',
             "same.jsonl": '{"prompt": "p", "completions": ["x", "x"], "ranks": [1, 2]}\n'}
    for name, content in cases.items():
        (tmp_path / name).write_text(content)
        assert main(["labelers", str(tmp_path / name)]) == 2
        assert main(["labelers", str(tmp_path / name), "--out", "x.png"]) == 2
        assert "Traceback" not in capsys.readouterr().err
    assert main(["labelers", str(tmp_path / "none.jsonl")]) == 2
    one = tmp_path / "one.jsonl"
    one.write_text('{"prompt": "p", "completions": ["x", "y"], "ranks": [1, 2]}\n')
    assert main(["labelers", str(one)]) == 0
    assert "One labeler only" in capsys.readouterr().out


def test_names_from_outside_stay_text(tmp_path, capsys):
    rows = [{"prompt": f"p{i}", "completions": ["x", "yy"], "ranks": [1, 2], "labeler": who}
            for i in range(30) for who in ("<script>alert(1)</script>", "[red]bo[/red]")]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert main(["labelers", str(tmp_path / "x.jsonl"), "--out", str(tmp_path / "x.html")]) == 0
    assert "<script>" not in (tmp_path / "x.html").read_text() and "[red]bo[/red]" in capsys.readouterr().out


def test_a_page_that_cannot_be_written_is_refused_before_the_work(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("harken.cli.labelers_report.fit_reliability", lambda *a, **k: pytest.fail("worked in vain"))
    (tmp_path / "a_file").write_text("")
    (tmp_path / "folder.svg").mkdir()
    for out in ("a_file/p.svg", "a_file/deeper/p.html", "folder.svg"):
        assert main(["labelers", file, "--out", str(tmp_path / out)]) == 2
        assert "harken: " in capsys.readouterr().err
    assert main(["labelers", file, "--out", "p.txt"]) == 2


def test_some_votes_are_as_likely_alone_as_among_all():
    _, votes = world(2, CROWD, 400, items=12, position=np.linspace(-1, 1, len(CROWD)))
    fit = task_of(votes, position=True, length=True, indifference=True)
    x, rows = fit.solve(), np.arange(len(votes)) % 3 == 1
    some = fit.on(rows)
    assert some.vote_terms(some.odds(x)[0], x)[0] == pytest.approx(fit.vote_terms(fit.odds(x)[0], x)[0][rows], abs=1e-12)
