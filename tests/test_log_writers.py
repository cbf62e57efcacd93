"""Our evaluations as logs of others, and back: no score is made up, none is lost, items stay the same items."""

import hashlib
import json

import pytest

from harken.cli.main import main
from harken.core.errors import UserError
from harken.store.log_writers import read_evaluation, write_every_eval_ever, write_inspect, write_lm_eval
from harken.store.logs import paired, read_log
from harken.store.verdicts import read_votes

SCORES = [1.0, 0.0, None, 1.0, 0.0, 1.0]


def finished(folder, scores=SCORES, tasks=("",), model="runs/sft"):
    """Six questions, asked once each, but the last twice; item 2 lacks a score because the server failed."""
    rows = [{"item": f"Q{min(i, 4)}", "prompt": f"<user>Q{min(i, 4)}", "answer": None if s is None else f"A{i}", "score": s,
             "why": "the server failed" if s is None else "", "passage": i // 2, "odd": float("inf") if i == 0 else 1.5,
             **({"task": t} if t else {})} for t in tasks for i, s in enumerate(scores)]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"command": "eval truthful", "model": model, "data": "t.csv"}))
    known = [s for s in scores if s is not None]
    (folder / "result.json").write_text(json.dumps({
        "name": "truthful", "better": "higher", "samples": rows, "missing": 1,
        "value": {"value": sum(known) / len(known), "low": 0.2, "high": 0.9, "n": len(known), "level": 0.95}}))
    return folder


def scores_of(path, **options):
    (task,) = read_log(str(path), **options).tasks.values()
    return task.scores


def test_lm_eval_samples_come_back_with_missing_and_repeats(tmp_path):
    run = finished(tmp_path / "run")
    samples, results = write_lm_eval(run, tmp_path / "out")
    assert samples.name.startswith("samples_truthful_20") and results.name.startswith("results_20")
    assert scores_of(samples) == scores_of(run) and [None] in scores_of(run).values() and [0.0, 1.0] in scores_of(run).values()
    kept = json.loads(results.read_text())
    assert kept["results"]["truthful"]["score,none"] == pytest.approx(0.6) and kept["missing"] == {"truthful": 1}
    assert kept["results"]["truthful"]["score_stderr,none"] == pytest.approx((0.3 / 5) ** 0.5)
    pairs = paired(read_log(str(run)), read_log(str(samples)))
    assert list(pairs) == ["truthful"], "the run and its export are the same items, asked alike"
    assert read_log(str(samples), cluster="passage").tasks["truthful"].clusters == read_log(
        str(run), cluster="passage").tasks["truthful"].clusters


def test_several_tasks_are_several_logs(tmp_path):
    run = finished(tmp_path / "run", tasks=("a b", "c"))
    *samples, _ = write_lm_eval(run, tmp_path / "out")
    assert len(samples) == 2 and set(read_log(str(tmp_path / "out")).tasks) == {"a-b", "c"}
    pytest.importorskip("inspect_ai")
    with pytest.raises(UserError, match="2 tasks"):
        write_inspect(run, tmp_path / "one.eval")
    assert len(write_inspect(run, tmp_path / "logs")) == 2


def test_inspect_reads_what_we_write_and_missing_is_unscored(tmp_path, capsys):
    pytest.importorskip("inspect_ai")
    from inspect_ai.log import read_eval_log
    run = finished(tmp_path / "run")
    assert main(["export", "log", str(run), "--to", "inspect", "--out", str(tmp_path / "t.eval")]) == 0
    log = read_eval_log(str(tmp_path / "t.eval"))
    assert log.status == "success" and log.eval.model == "runs/sft" and log.eval.config.epochs == 2
    assert log.results.scores[0].metrics["mean"].value == pytest.approx(0.6) and log.results.scores[0].unscored_samples == 1
    by_answer = {s.output.completion: s for s in log.samples}
    assert len(log.samples) == 6 and by_answer["A5"].epoch == 2 and by_answer["A5"].id == by_answer["A4"].id
    assert by_answer[""].scores["score"].explanation == "the server failed"
    assert scores_of(tmp_path / "t.eval") == scores_of(run)
    assert main(["compare", str(run), str(tmp_path / "t.eval"), "--margin", "0.5"]) == 0, "the log pairs with the run itself"
    assert "truthful (score): " in (said := capsys.readouterr().out) and "4 items" in said and "1 items lack a score" in said


def test_without_inspect_the_way_on_is_said(tmp_path, capsys, monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    assert main(["export", "log", str(finished(tmp_path / "run")), "--to", "inspect", "--out", str(tmp_path / "t.eval")]) == 2
    assert "pip install inspect_ai" in capsys.readouterr().err and not (tmp_path / "t.eval").exists()


STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
FIGURES = {  # what Every Eval Ever's eval.schema.json (0.2.1) asks of the fields that we write, in our words
    "type": "object", "additionalProperties": False,
    "required": ["schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata", "model_info", "eval_library",
                 "evaluation_results"],
    "properties": {
        **{k: {"type": "string"} for k in ("schema_version", "evaluation_id", "retrieved_timestamp", "evaluation_timestamp")},
        "source_metadata": {
            "type": "object", "required": ["source_type", "source_organization_name", "evaluator_relationship"], "properties": {
                "source_type": {"enum": ["documentation", "evaluation_run"]},
                "evaluator_relationship": {"enum": ["first_party", "third_party", "collaborative", "other"]}}},
        "model_info": {"type": "object", "required": ["name", "id"], "properties": {"additional_details": STRINGS}},
        "eval_library": {"type": "object", "required": ["name", "version"]},
        "detailed_evaluation_results": {"type": "object", "properties": {
            "format": {"enum": ["jsonl", "json"]}, "hash_algorithm": {"enum": ["sha256", "md5"]},
            "total_rows": {"type": "integer"}}},
        "evaluation_results": {"type": "array", "items": {
            "type": "object", "required": ["evaluation_name", "source_data", "metric_config", "score_details"], "properties": {
                "source_data": {"required": ["dataset_name", "source_type"], "properties": {"source_type": {"const": "other"}}},
                "metric_config": {"required": ["lower_is_better", "min_score", "max_score"], "properties": {
                    "score_type": {"const": "continuous"}, "lower_is_better": {"type": "boolean"}}},
                "score_details": {"required": ["score"], "properties": {
                    "score": {"type": "number"}, "details": STRINGS, "uncertainty": {"properties": {
                        "num_samples": {"type": "integer"}, "standard_error": {"required": ["value"]},
                        "confidence_interval": {"required": ["lower", "upper"]}}}}}}}}}}
ITEMS = {
    "type": "object", "additionalProperties": False,
    "required": ["schema_version", "evaluation_id", "model_id", "evaluation_name", "sample_id", "interaction_type", "input",
                 "answer_attribution", "evaluation", "output"],
    "properties": {
        **{k: {"type": "string"} for k in ("schema_version", "evaluation_id", "model_id", "evaluation_name", "sample_id",
                                           "sample_hash")},
        "interaction_type": {"const": "single_turn"}, "messages": {"type": "null"}, "answer_attribution": {"type": "array"},
        "input": {"required": ["raw", "reference"], "properties": {"raw": {"type": "string"}, "formatted": {"type": "string"},
                                                                   "reference": {"type": "array"}}},
        "output": {"required": ["raw"], "properties": {"raw": {"type": "array", "items": {"type": "string"}}}},
        "evaluation": {"required": ["score", "is_correct"], "properties": {"score": {"type": "number"},
                                                                           "is_correct": {"type": "boolean"}}},
        "metadata": STRINGS}}


@pytest.mark.parametrize("tasks", [("",), ("a", "b")])
def test_every_eval_ever_accepts_it_and_what_is_missing_has_no_row(tmp_path, tasks):
    jsonschema = pytest.importorskip("jsonschema")
    run = finished(tmp_path / "run", tasks=tasks, model="smollm2")
    figures, samples = write_every_eval_ever(run, tmp_path / "out")
    about = json.loads(figures.read_text())
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    jsonschema.validate(about, FIGURES)
    for row in rows:
        jsonschema.validate(row, ITEMS)
        assert row["evaluation_id"] == about["evaluation_id"]
    assert len(rows) == 5 * len(tasks) and about["model_info"]["id"] == "local/smollm2"
    assert about["detailed_evaluation_results"]["checksum"] == hashlib.sha256(samples.read_bytes()).hexdigest()
    first = about["evaluation_results"][0]["score_details"]
    assert first["score"] == pytest.approx(0.6) and first["details"]["missing_items"] == str(len(tasks))
    assert json.loads(first["details"]["missing_reasons"]) == ["the server failed"]
    assert first["uncertainty"]["confidence_interval"]["lower"] == 0.2
    assert len(about["evaluation_results"]) == (1 if len(tasks) == 1 else 3)


def test_what_is_no_finished_evaluation_is_said(tmp_path):
    with pytest.raises(UserError, match="no finished evaluation"):
        read_evaluation(tmp_path)
    (tmp_path / "result.json").write_text('{"name": "diversity", "value": {"value": 1.0}}')
    with pytest.raises(UserError, match="no items"):
        read_evaluation(tmp_path)


@pytest.mark.parametrize(("to", "name"), [("alpaca-eval", "annotations.json"), ("mt-bench", "judge_pair.jsonl"),
                                          ("arena", "battles.jsonl")])
def test_a_win_rate_comes_back_from_the_layouts_of_boards(tmp_path, to, name):
    """Wins on 0, 1 and 2, a verdict that turned on 3, a loss on 4, none on 5: 3.5 of 5, and answers of known lengths."""
    sides = [("model", "model")] * 3 + [("model", "against"), ("against", "against"), (None, None)]
    rows = [{"prompt": f"Q{i}", "model_text": "long" * (i + 1), "against_text": "short", "shown_first": a, "shown_second": b,
             "model_score": (s := None if a is None else 0.5 if a != b else float(a == "model")),
             "against_score": None if s is None else 1 - s} for i, (a, b) in enumerate(sides)]
    rows[0] |= {"prompt": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"},
                           {"role": "user", "content": "Q0"}]}
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"command": "eval win_rate", "model": "runs/new", "against": "runs/old"}))
    (run / "result.json").write_text(json.dumps({"name": "win_rate", "model": "runs/new", "against": "runs/old",
                                                 "pairwise": "judge", "samples": rows, "value": {"value": 0.7}}))
    assert main(["export", "log", str(run), "--to", to, "--out", str(tmp_path / "out")]) == 0
    votes = read_votes(tmp_path / "out" / name)
    won = [p if b == "runs/new" else 1 - p for p, b in zip(votes.preference, votes.b)]
    assert won == [1, 1, 1, 0.5, 0] and votes.missing == 1 and set(votes.models) == {"runs/new", "runs/old"}
    assert votes.inconsistent == (to == "mt-bench")
    if to != "mt-bench":
        ours = [la if a == "runs/new" else lb for a, la, lb in zip(votes.a, votes.length_a, votes.length_b)]
        assert ours == [4, 8, 12, 16, 20]
    assert main(["export", "log", str(finished(tmp_path / "other")), "--to", to, "--out", str(tmp_path / "no")]) == 2
