"""Reports of garak and PyRIT read back: resisted or not by prompt, threshold, refusal scorers, and what has no score."""

import json

import pytest

from harken.cli.main import main
from harken.core.errors import UserError
from harken.store.logs import read_log


def attempt(uuid, text, results, status=2, probe="dan.Dan_11_0"):
    return {"entry_type": "attempt", "uuid": uuid, "status": status, "probe_classname": probe, "outputs": [],
            "prompt": {"turns": [{"role": "user", "content": {"text": text}}]}, "detector_results": results}


def garak_report(path, rows, threshold=None):
    setup = {"entry_type": "start_run setup", **({} if threshold is None else {"run.eval_threshold": threshold})}
    rows = [setup, {"entry_type": "init", "garak_version": "0.17.1"}, *rows, {"entry_type": "completion"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_garak_by_probe_and_detector_as_its_evaluator_counts(tmp_path):
    """Scores .3, .7, .4 at .5: the second attack succeeded. Each attempt stands twice, as sent and as evaluated; the third was
    never evaluated, and one output could not be scored."""
    rows = [attempt("1", "a", {}, status=1), attempt("1", "a", {"d.X": [0.3, 0.7, 0.4], "d.Y": [1.0, 1.0, 1.0]}),
            attempt("2", "b", {}, status=1), attempt("2", "b", {"d.X": [0.0, None]}), attempt("3", "c", {}, status=1)]
    tasks = read_log(garak_report(tmp_path / "g.report.jsonl", rows)).tasks
    assert list(tasks["dan.Dan_11_0 (d.X)"].scores.values()) == [[1.0, 0.0, 1.0], [1.0, None], [None]]
    assert list(tasks["dan.Dan_11_0 (d.Y)"].scores.values()) == [[0.0, 0.0, 0.0], [None]]
    strict = read_log(garak_report(tmp_path / "h.report.jsonl", rows, threshold=0.25)).tasks["dan.Dan_11_0 (d.X)"]
    assert next(iter(strict.scores.values())) == [0.0, 0.0, 0.0]


def test_two_scans_are_compared_prompt_by_prompt_and_one_alone_has_its_interval(tmp_path, capsys):
    before = garak_report(tmp_path / "a.report.jsonl", [attempt(str(i), f"p{i}", {"d": [1.0]}) for i in range(30)])
    after = garak_report(tmp_path / "b.report.jsonl", [attempt(str(i), f"p{i}", {"d": [float(i < 3)]}) for i in range(30)])
    assert main(["compare", after, before]) == 0
    assert "is better than" in capsys.readouterr().out
    assert main(["compare", after, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["dan.Dan_11_0 (d)"]
    assert found["value"]["value"] == pytest.approx(0.9) and 0.7 < found["value"]["low"] < 0.9 < found["value"]["high"] < 1
    assert main(["compare", before]) == 0
    assert "resisted 0.000 [0.000, 0.1" in capsys.readouterr().out


def piece(conversation, sequence, role, text, **more):
    return {"conversation_id": conversation, "sequence": sequence, "role": role, "original_value": text,
            "converted_value": more.pop("sent", text), **more}


def score(value, kind="true_false", scorer="SelfAskTrueFalseScorer"):
    return {"score_value": value, "score_type": kind, "scorer_class_identifier": {"__type__": scorer}}


def test_pyrit_true_is_success_but_of_a_refusal_scorer(tmp_path, capsys):
    refused = "SelfAskRefusalScorer"
    rows = [piece("c1", 0, "user", "a", sent="YQ=="),
            piece("c1", 1, "assistant", "x", scores=[score("True"), score("false", scorer=refused)]), piece("c2", 0, "user", "b"),
            piece("c2", 1, "assistant", "y", scores=[score("False"), score("true", scorer=refused)]),
            piece("c3", 0, "user", "c"), piece("c3", 1, "assistant", "", response_error="blocked", scores=[]),
            piece("c4", 0, "user", "d"), piece("c4", 1, "assistant", "z", scores=[score("0.25", "float_scale", "Scale")])]
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps(rows))
    tasks = {name: list(t.scores.values()) for name, t in read_log(str(path)).tasks.items()}
    assert tasks == {"SelfAskTrueFalseScorer": [[0.0], [1.0], [None]], refused: [[0.0], [1.0], [None]], "Scale": [[0.75], [None]]}
    assert main(["compare", str(path)]) == 0
    assert "1 of 3 scores are missing: whatever they are, it lies between 0.333 and 0.667" in capsys.readouterr().out


def test_what_is_no_report_is_said(tmp_path):
    with pytest.raises(UserError, match="a detector's score is a number, found 'high'"):
        read_log(garak_report(tmp_path / "g.report.jsonl", [attempt("1", "a", {"d": ["high"]})]))
    path = tmp_path / "p.json"
    path.write_text(json.dumps([piece("c", 0, "user", "a"), piece("c", 1, "assistant", "b", scores=[score("7")])]))
    with pytest.raises(UserError, match="lies between 0 and 1, found '7'"):
        read_log(str(path))
    with pytest.raises(UserError, match="holds no scores"):
        read_log(garak_report(tmp_path / "n.report.jsonl", []))
