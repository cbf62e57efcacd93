"""harken agreement: what it prints, and what it says when it cannot."""

import json
import xml.etree.ElementTree as ET
from typing import get_args

import numpy as np
import pytest

from harken.cli.agreement import SCALES
from harken.cli.main import main
from harken.core.records import Choice, Judgment, Prompt
from harken.labelers.agreement.coefficients import Scale
from harken.labelers.agreement.summary import summary_of_comparisons
from harken.store.database import open_database


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


@pytest.fixture
def pairs(tmp_path):
    """120 prompts; ana and bo agree on 80 %, cy guesses; every fifth answer of bo is a tie."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(120):
        best = rng.integers(2)
        for who, right in (("ana", 0.95), ("bo", 0.85), ("cy", 0.5)):
            first = best if rng.random() < right else 1 - best
            ranks = [1, 1] if who == "bo" and i % 5 == 0 else [1 + int(first), 2 - int(first)]
            rows.append({"prompt": f"q{i}", "completions": ["x", "y"], "ranks": ranks, "labeler": who})
    return write(tmp_path / "pairs.jsonl", rows)


def run(capsys, *argv):
    status = main(["agreement", *map(str, argv)])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_it_prints_each_measure_with_interval_chance_and_the_published_figures(pairs, capsys):
    status, out, _ = run(capsys, pairs)
    assert status == 0 and "3 labelers, 360 votes, 120 pairs, 120 prompts, 120 shared pairs, 7% ties" in out
    for words in ("raw agreement", "Fleiss' kappa", "Krippendorff's alpha", "Gwet's AC1", "without ties", "72.6 ± 1.5 %",
                  "arXiv 2203.02155", "labeler by labeler", "least agreement with the others"):
        assert words in out
    assert "undefined" not in out and "Only" not in out
    assert out[out.index("least agreement"):].splitlines()[1].split()[0] == "cy"


def test_json_holds_the_same_figures(pairs, capsys):
    found = json.loads(run(capsys, pairs, "--json")[1])
    alpha = found["measures"]["alpha"]
    assert alpha["low"] < alpha["value"] < alpha["high"] and (alpha["n"], alpha["chance"], alpha["units"]) == (120, 0, 120)
    assert found["matrix"]["shared"] == [[120] * 3] * 3
    assert found["by_labeler"]["cy"]["high"] < found["by_labeler"]["ana"]["value"]
    assert found["published"]["training labelers"] == {"percent": 0.726, "plus_minus": 0.015}
    assert json.loads(run(capsys, pairs, "--json")[1]) == found  # seeded


def test_the_scales_offered_are_those_there_are():
    assert get_args(Scale) == SCALES


def test_the_matrix_is_drawn(pairs, capsys, tmp_path):
    assert run(capsys, pairs, "--svg", tmp_path / "m.svg")[0] == 0
    root = ET.parse(tmp_path / "m.svg").getroot()
    titles = [t.text for t in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 1 + 6
    assert any(t.startswith("ana and bo: kappa 0.") and "of 120" in t for t in titles)


def test_ratings_of_two_people_have_cohens_kappa_and_a_scale(tmp_path, capsys):
    rng = np.random.default_rng(1)
    rows = []
    for i in range(60):
        truth = int(rng.integers(1, 8))
        for who in ("ana", "bo"):
            score = int(np.clip(truth + rng.integers(-1, 2), 1, 7))
            rows.append({"prompt": f"q{i}", "completion": "c", "score": score, "labeler": who})
    rows.append({"prompt": "q0", "completion": "c", "score": None, "labeler": "ana"})
    name = write(tmp_path / "ratings.jsonl", rows)
    nominal = json.loads(run(capsys, name, "--json")[1])["measures"]
    near = json.loads(run(capsys, name, "--json", "--scale", "quadratic")[1])["measures"]
    assert nominal["cohen"]["value"] < 0.5 < 0.8 < near["cohen"]["value"]
    assert "Cohen's kappa" in run(capsys, name)[1]


def test_words_in_a_named_field_are_nominal(tmp_path, capsys):
    rows = [{"item": i, "toxic": word, "labeler": who} for i in range(30)
            for who, word in (("ana", "yes" if i % 3 else "no"), ("bo", "yes" if i % 4 else "no"))]
    name = write(tmp_path / "labels.jsonl", rows)
    assert json.loads(run(capsys, name, "--json", "--field", "toxic")[1])["counts"]["shared units"] == 30
    status, _, err = run(capsys, name, "--field", "toxic", "--scale", "ordinal")
    assert status == 2 and "needs numbers, found words" in err


def test_a_database_tells_mirrored_repeats(tmp_path, capsys):
    left = {(0, 1): [1, 2], (1, 0): [2, 1]}  # order shown: ranks of one who always takes what stands first
    said = [Judgment(Prompt.of(f"q{i}"), "ranking", {"completions": ["x", "y"], "ranks": ranks}, "ana", order=order,
                     client_id=f"{i} {order}") for i in range(30) for order, ranks in left.items()]
    with open_database(tmp_path / "f.db") as db:
        db.add_judgments(said)
    found = json.loads(run(capsys, tmp_path / "f.db", "--json")[1])
    assert found["self_consistency"]["mirrored"]["value"] == 0 and found["measures"] == {}
    assert "shown mirrored" in run(capsys, tmp_path / "f.db")[1]


def test_rankings_have_tau_and_w():
    rng = np.random.default_rng(2)
    said = []
    for i in range(80):
        ranks = np.argsort(np.argsort(rng.normal(size=4) + np.arange(4))) + 1
        said.append(Choice(Prompt.of(f"q{i // 2}"), tuple("abcd"), tuple(int(r) for r in ranks), ("ana", "bo")[i % 2]))
    found = summary_of_comparisons(said, draws=200)
    assert found.rankings["kendall_tau"].value.low > 0 and found.rankings["kendall_w"].chance == 0.5
    assert found.counts["prompts"] == found.rankings["kendall_tau"].value.n == 40 and found.counts["pairs"] == 240


def row(prompt, who, **more):
    return {"prompt": prompt, "completions": ["x", "y"], "ranks": [1, 2], **({"labeler": who} if who else {}), **more}


def score(item, who, value=3):
    return {"item": item, "score": value, "labeler": who}


@pytest.mark.parametrize("rows, fact, action", [
    ([row("q", None), row("r", None)], "names no labeler", '"labeler": "a7"'),
    ([row("q", "ana"), row("r", "ana")], "all 2 judgments are by ana", "two or more people"),
    ([row("q", "ana"), row("r", "bo")], "none of 2 pairs was judged by two people", "two or more people"),
    ([score(1, None)], "none of its 1 ratings names a labeler", '"labeler": "a7"'),
    ([score(1, "ana")], "all 1 ratings are by ana", "two or more people"),
    ([score(1, "ana"), score(2, "bo")], "none of 2 items was rated by two people", "two or more people"),
    ([score(1, "ana", [3])], '"score" must be a number or a word, found list', "--field"),
    ([score(1, "ana"), {"item": 2, "labeler": "bo"}], "line 2: no score, rating, label or value", "--field"),
    ([{"score": 3, "labeler": "ana"}], 'neither "item" nor "prompt"', "Add one"),
    ([score(1, "ana"), score(1, "bo", "x")], "numbers or words, not both", "scale"),
    ([7], "a row must be an object, found int", "take the line out")])
def test_what_cannot_be_measured_says_what_was_found_and_what_to_do(rows, fact, action, tmp_path, capsys):
    status, out, err = run(capsys, write(tmp_path / "f.jsonl", rows))
    assert status == 2 and out == "" and fact in err and action in err and "Traceback" not in err


def test_a_scale_for_comparisons_and_a_database_without_judgments_are_refused(pairs, tmp_path, capsys):
    assert "which have no scale" in run(capsys, pairs, "--scale", "ordinal")[2]
    with open_database(tmp_path / "f.db") as db:
        db.add_judgments([Judgment(Prompt.of("q"), "demonstration", {"completion": "x"}, "ana", client_id="1")])
    assert "holds no ratings and no rankings" in run(capsys, tmp_path / "f.db")[2]
    assert "There is no database" in run(capsys, tmp_path / "no.db")[2]


def test_missing_and_broken_files_are_a_users_error(tmp_path, capsys):
    assert "does not exist" in run(capsys, tmp_path / "no.jsonl")[2]
    (tmp_path / "f.jsonl").write_text("{")
    assert "line 1" in run(capsys, tmp_path / "f.jsonl")[2]
    (tmp_path / "e.jsonl").write_text("")
    assert "is empty" in run(capsys, tmp_path / "e.jsonl")[2]


def test_answers_that_are_all_the_same_are_called_so(tmp_path, capsys):
    rows = [{"item": i, "score": "ok", "labeler": who} for i in range(25) for who in ("a", "b")]
    status, out, _ = run(capsys, write(tmp_path / "f.jsonl", rows))
    assert status == 0 and "undefined: every answer is the same" in out and "–/25" in out


@pytest.mark.parametrize("value", ["NaN", "1e400", "-1e308", "9" * 400])
@pytest.mark.parametrize("scale", ["nominal", "interval"])
def test_ratings_beyond_all_scales_are_refused(tmp_path, capsys, value, scale):
    file = tmp_path / "r.jsonl"
    file.write_text("".join(f'{{"item": "i{i % 4}", "label": {[value, 1][i % 2]}, "labeler": "a{i // 4 % 3}"}}\n'
                            for i in range(24)))
    status, _, err = run(capsys, file, "--scale", scale)
    assert status == 2 and any(w in err for w in ("a rating must be a finite number", "NaN is no JSON value", "is too large"))


def test_half_an_emoji_in_a_name_is_drawn(tmp_path, capsys):
    rows = [{"item": f"i{i % 4}", "label": i * 7 % 3, "labeler": f"a{i // 4 % 3}\ud83d"} for i in range(24)]
    file = write(tmp_path / "r.jsonl", rows)
    assert run(capsys, file, "--svg", tmp_path / "m.svg")[0] == 0
    assert ET.fromstring((tmp_path / "m.svg").read_text(encoding="utf-8")).tag.endswith("svg")
    status, _, err = run(capsys, file, "--svg", tmp_path / "nowhere" / "m.svg")
    assert status == 2 and "There is no folder" in err
