"""`harken disagree`: what it says, what it writes, and what it refuses."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from harken.cli.main import main
from harken.core.records import Choice, Prompt
from harken.store.files import write_jsonl
from people_worlds import grouped

QUICK = ["--permutations", "99", "--most", "1"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Old and young value 20 texts differently; 600 comparisons by 20 people."""
    votes, *_ = grouped(0, prompts=5, per=4, people=20, n=600, tau=2.0, share=0.5)
    prompts = [Prompt.of(f"Question {p}?") for p in range(5)]
    file = tmp_path_factory.mktemp("world") / "said.jsonl"
    rows = np.stack([votes.a, votes.b, votes.won, votes.labeler], 1).tolist()
    write_jsonl(file, (Choice(prompts[votes.prompt[a]], (f"<text> {a}", f"<text> {b}"), (1 + (w < 0), 1 + (w > 0)),
                              votes.labelers[k], votes.groups[k]) for a, b, w, k in rows))
    return file


@pytest.mark.slow
def test_values_are_told_with_items_and_written_as_json_and_svg(world, tmp_path, capsys):
    found, drawn = tmp_path / "found.json", tmp_path / "found.svg"
    assert main(["disagree", str(world), "--group-by", "age", "--json", str(found), "--svg", str(drawn), "--aggregate", "worst",
                 "--show", "3", *QUICK]) == 0
    said = capsys.readouterr().out
    assert "Difference of values between old" in said and "p = 0.01" in said and said.count("higher with") == 3
    row = json.loads(found.read_text())
    assert row["values"] and row["share_values"]["low"] > 0.05 and row["aggregate"] == "worst"
    one = row["scores"][0]
    assert one["aggregate"] == pytest.approx(min(one["groups"].values()), abs=1e-6)
    tree = ElementTree.fromstring(drawn.read_text())
    assert tree.tag.endswith("svg") and len(row["items"]) > 3 and "&lt;text&gt;" in drawn.read_text()


@pytest.mark.slow
def test_a_jury_weighs_the_groups(world, tmp_path, capsys):
    found = tmp_path / "found.json"
    seats = ["--jury", "age=old:3,age=young:1"]
    assert main(["disagree", str(world), "--group-by", "age", "--json", str(found), *seats, *QUICK]) == 0
    one = json.loads(found.read_text())["scores"][4]
    assert one["aggregate"] == pytest.approx(0.75 * one["groups"]["old"] + 0.25 * one["groups"]["young"], abs=1e-5)


def test_one_group_is_an_answer(world, capsys):
    assert main(["disagree", str(world), *QUICK]) == 0
    assert "One group suffices" in capsys.readouterr().out


@pytest.mark.parametrize(("options", "why"), [
    (["--group-by", "country"], "No labeler has the group tag 'country'"), (["--aggregate", "median"], "--aggregate 'median'"),
    (["--jury", "a:0"], "how many seats"), (["--jury", "a:1e308"], "how many seats"),
    (["--jury", "age=old:2"], "groups are looked for"), (["--group-by", "age", "--jury", "age=ancient:2"], "no group 'ancient'"),
    (["--group-by", "age", "--jury", "sex=f:2"], "by age"), (["--group-by", "age", "--aggregate", "group:x"], "no group 'x'"),
    (["--json", "same", "--svg", "same"], "are both same"), (["--most", "0"], "out of range"),
    (["--permutations", "3"], "at least 19")])
def test_wrong_options_are_explained_before_the_work(world, capsys, options, why, monkeypatch):
    monkeypatch.setattr("harken.labelers.groups.disagreement.fit_disagreement", lambda *a, **k: pytest.fail("worked in vain"))
    assert main(["disagree", str(world), *options]) == 2
    assert why in capsys.readouterr().err


def test_nameless_votes_are_refused(tmp_path, capsys):
    file = tmp_path / "nameless.jsonl"
    write_jsonl(file, [Choice(Prompt.of("p"), ("x", "y"), (1, 2)) for _ in range(3)])
    assert main(["disagree", str(file)]) == 2
    assert "two labelers" in capsys.readouterr().err


@pytest.mark.slow
def test_f17_few_people_who_cast_most_votes_are_pointed_out(tmp_path, capsys):
    file, rng = tmp_path / "few.jsonl", np.random.default_rng(0)
    write_jsonl(file, [Choice(Prompt.of("p"), ("x", "y", "z"), tuple(int(r) for r in rng.permutation(3) + 1), name)
                       for name, n in (("a", 40), ("b", 2), ("c", 2), ("d", 2), ("e", 2)) for _ in range(n)])
    assert main(["disagree", str(file), *QUICK]) == 0
    assert "a fifth of the people cast 83% of the votes" in capsys.readouterr().out


HALF = "x \ud83d"  # half of an emoji, as software that cuts texts leaves it


@pytest.mark.slow
def test_half_an_emoji_is_written_and_printed(tmp_path, capfdbinary):
    file, found, drawn = tmp_path / "half.jsonl", tmp_path / "found.json", tmp_path / "found.svg"
    write_jsonl(file, [Choice(Prompt.of(HALF), (HALF, "\udc00 y"), (1 + (i % 2), 2 - (i % 2)), f"{HALF}{i % 6}",
                              {"age": HALF + "ab"[i % 2]}) for i in range(120)])
    assert main(["disagree", str(file), "--group-by", "age", "--json", str(found), "--svg", str(drawn), *QUICK]) == 0
    row = json.loads(found.read_text(encoding="utf-8"))
    assert {one["text"] for one in row["scores"]} == {HALF, "\udc00 y"} and row["groups"][0]["name"].startswith(HALF)
    assert ElementTree.fromstring(drawn.read_text(encoding="utf-8")).tag.endswith("svg")
    assert rb"x \ud83da" in capfdbinary.readouterr().out


@pytest.mark.parametrize("option", ["--json", "--svg"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(world, tmp_path, capsys, monkeypatch, option):
    monkeypatch.setattr("harken.labelers.groups.disagreement.fit_disagreement", lambda *a, **k: pytest.fail("worked in vain"))
    for out, why in ((tmp_path / "nowhere" / "f", "There is no folder"), (tmp_path, "not the name of a file"),
                     (world, "is the file that is read")):
        assert main(["disagree", str(world), option, str(out)]) == 2
        assert why in (said := capsys.readouterr().err) and option in said
    monkeypatch.setattr("os.access", lambda *a: False)
    assert main(["disagree", str(world), option, str(tmp_path / "f")]) == 2
    assert "cannot be written to" in capsys.readouterr().err
