"""`harken compare` on logs of ours, of lm-eval and of Inspect: paired by item, clustered, in words; never on other prompts."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from harken.cli.main import main
from harken.core.errors import UserError
from harken.loops.items import read_items
from harken.store.logs import number, read_log


def our_run(folder, scores):
    folder.mkdir()
    rows = [{"item": f"q{i}", "prompt": f"<chat>q{i}", "score": s} for i, s in enumerate(scores)]
    (folder / "result.json").write_text(json.dumps({"name": "truthful", "samples": rows}))
    return str(folder)


def lm_eval(path, scores, prompt="p", task="gsm8k", **fields):
    rows = [{"doc_id": i, "doc": {"passage": i // 2}, "doc_hash": f"d{i}", "prompt_hash": f"{prompt}{i}", "filter": "none",
             "metrics": ["exact_match"], "exact_match": s, **fields} for i, s in enumerate(scores)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def test_better_worse_and_inconclusive_in_words(tmp_path, capsys):
    good, bad = our_run(tmp_path / "good", [1.0] * 40), our_run(tmp_path / "bad", [0.0] * 30 + [1.0] * 10)
    assert main(["compare", good, bad]) == 0
    assert f"{good} is better than {bad} (+0.750" in capsys.readouterr().out
    assert main(["compare", bad, good]) == 0
    assert "is worse than" in capsys.readouterr().out
    few = our_run(tmp_path / "few", [0.0] * 2 + [1.0] * 38)
    assert main(["compare", good, few]) == 0
    assert "inconclusive: about" in capsys.readouterr().out
    assert main(["compare", good, few, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["truthful"]["difference"]["value"] == pytest.approx(0.05)


def test_missing_stays_missing_and_bounds_the_difference(tmp_path, capsys):
    a, b = our_run(tmp_path / "a", [1.0, None, 1.0, 0.0]), our_run(tmp_path / "b", [0.0, 1.0, 0.0, 0.0])
    assert main(["compare", a, b, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["truthful"]
    assert found["missing"] == 1 and found["items"] == 3 and found["difference"]["value"] == pytest.approx(2 / 3)
    assert (found["worst"], found["best"]) == pytest.approx((0.25, 0.5))


def test_lm_eval_samples_are_paired_by_document_and_clustered(tmp_path, capsys):
    a = lm_eval(tmp_path / "a" / "samples_gsm8k_2026-01-02T03-04-05.jsonl", [1, 1, 1, 1, 0, 0, 1, 1])
    b = lm_eval(tmp_path / "b" / "samples_gsm8k_2026-02-02T03-04-05.jsonl", [0, 0, 1, 1, 0, 0, 0, 0])
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)["gsm8k"]
    assert plain["difference"]["value"] == 0.5 and plain["difference"]["n"] == 8
    assert main(["compare", a, b, "--cluster", "passage", "--json"]) == 0
    clustered = json.loads(capsys.readouterr().out)["gsm8k"]
    assert clustered["difference"]["n"] == 4 and clustered["difference"]["low"] < plain["difference"]["low"]


def test_copies_of_every_row_change_no_interval(tmp_path, capsys):
    one = [1, 0, 1, 1, 0, 1, 1, 0]
    a, b = (lm_eval(tmp_path / n / "samples_t_2026-01-02T03.jsonl", s) for n, s in (("a", one), ("b", [0] * 8)))
    for path in (a, b):
        Path(path.replace("03.jsonl", "04.jsonl")).write_text(Path(path).read_text() * 3)  # the latest of each task is read
    assert main(["compare", a, b, "--json"]) == main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    once, thrice = capsys.readouterr().out.splitlines()
    assert json.loads(once)["t"] == json.loads(thrice)["t"]


def test_other_prompts_and_what_cannot_be_paired_are_refused(tmp_path, capsys):
    a = lm_eval(tmp_path / "samples_gsm8k_2026-01-02T03.jsonl", [1, 0])
    changed = lm_eval(tmp_path / "x" / "samples_gsm8k_2026-01-02T03.jsonl", [1, 0], prompt="q")
    for other, message in ((changed, "with other prompts"), (our_run(tmp_path / "run", [1.0]), "share no task"),
                           (str(tmp_path / "none"), "There is no log")):
        assert main(["compare", a, other]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "bad.jsonl").write_text('{"colour": "red"}\n')
    assert main(["compare", a, str(tmp_path / "bad.jsonl")]) == 2
    assert "is no sample of lm-eval" in capsys.readouterr().err
    assert main(["compare", a, a, "--metric", "acc"]) == 2
    assert "has no metric 'acc'" in capsys.readouterr().err


def test_several_tasks_are_corrected_by_holm(tmp_path, capsys):
    for name, scores in (("a", [1] * 12), ("b", [0] * 8 + [1] * 4)):
        for task in ("t1", "t2"):
            lm_eval(tmp_path / name / f"samples_{task}_2026-01-02T03.jsonl", scores)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out
    assert out.count("(Holm, 2 tasks)") == 2


def test_inspects_logs_are_read_by_its_library(tmp_path, monkeypatch):
    file = tmp_path / "log.eval"
    file.write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    with pytest.raises(UserError, match="library is not installed"):
        read_log(str(file))
    samples = [SimpleNamespace(id=1, input="q1", scores={"match": SimpleNamespace(value="C")}, metadata={"topic": "x"}),
               SimpleNamespace(id=1, input="q1", scores={"match": SimpleNamespace(value="I")}, metadata={"topic": "x"}),
               SimpleNamespace(id=2, input="q2", scores={"match": SimpleNamespace(value=float("nan"))}, metadata=None)]
    log = ModuleType("inspect_ai.log")
    log.read_eval_log = lambda path: SimpleNamespace(samples=samples, eval=SimpleNamespace(task="arc"))
    monkeypatch.setitem(sys.modules, "inspect_ai", ModuleType("inspect_ai"))
    monkeypatch.setitem(sys.modules, "inspect_ai.log", log)
    task = read_log(str(file), cluster="topic").tasks["arc (match)"]
    assert task.scores == {"1": [1.0, 0.0], "2": [None]} and task.clusters == {"1": "x"}
    assert [number(x) for x in ("P", True, None, "maybe", 0.25)] == [0.5, 1.0, None, None, 0.25]
    assert [number(x) for x in ("N", "yes", "False", "0.5", "nan", "n")] == [0.0, 1.0, 0.0, 0.5, None, None]


def test_a_score_of_several_values_is_several_tasks(tmp_path, monkeypatch):
    file = tmp_path / "log.eval"
    file.write_bytes(b"PK")
    score = SimpleNamespace(value={"true": 1, "informative": "I"})
    samples = [SimpleNamespace(id=1, input="q1", scores={"judge": score}, metadata=None)]
    log = ModuleType("inspect_ai.log")
    log.read_eval_log = lambda path: SimpleNamespace(samples=samples, eval=SimpleNamespace(task="qa"))
    monkeypatch.setitem(sys.modules, "inspect_ai", ModuleType("inspect_ai"))
    monkeypatch.setitem(sys.modules, "inspect_ai.log", log)
    assert {name: t.scores for name, t in read_log(str(file)).tasks.items()} == {"qa (judge/true)": {"1": [1.0]},
                                                                              "qa (judge/informative)": {"1": [0.0]}}
    assert read_log(str(file), metric="judge/true").tasks["qa"].scores == {"1": [1.0]}


def test_line_ends_within_a_text_end_no_row(tmp_path):
    """U+2028 and U+0085 stand unescaped in a samples file: lm-eval writes ensure_ascii=False."""
    row = {"doc_hash": "d", "prompt_hash": "p", "filter": "none", "metrics": ["acc"], "acc": 1.0,
           "doc": {"text": "a\u2028b\x85c"}}
    path = tmp_path / "samples_t_2026-01-02T03-04-05.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_log(str(path)).tasks["t"].scores == {"d": [1.0]}
    assert read_items(str(path), "")[0]["doc"]["text"] == row["doc"]["text"]


def test_where_lower_is_better_less_is_better(tmp_path, capsys):
    """Toxicity .1 against .9: better by .8, whichever way the scores run."""
    runs = [our_run(tmp_path / name, [score] * 40) for name, score in (("clean", 0.1), ("foul", 0.9))]
    for run in runs:
        result = json.loads((Path(run) / "result.json").read_text())
        (Path(run) / "result.json").write_text(json.dumps(result | {"name": "toxicity", "better": "lower"}))
    assert main(["compare", *runs]) == 0
    assert f"{runs[0]} is better than {runs[1]} (+0.800" in capsys.readouterr().out
    assert main(["compare", *runs[::-1]]) == 0
    assert "is worse than" in capsys.readouterr().out


def old_lm_eval(path, scores, *, filters=1, **fields):
    """A samples file from before 0.4.3: no hashes, no list of metrics, a row for each filter that it does not name."""
    rows = [{"doc_id": i, "doc": {"q": f"é {i}"}, "target": "x", "arguments": [[f"Q: {i}", {"until": ["\n"]}]], "resps": [["a"]],
             "filtered_resps": ["a"], "exact_match": s if k == 0 else 0, "parts": [True, False], **fields}
            for k in range(filters) for i, s in enumerate(scores)]
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return str(path.parent)


def test_lm_evals_older_layouts_keep_filters_apart_and_prompts_checked(tmp_path, capsys):
    file = "samples_gsm8k_2024-01-02T03-04-05.jsonl"
    old = old_lm_eval(tmp_path / "old" / file, [1, 1, 0], filters=2)
    assert [[x for row in t.scores.values() for x in row] for t in read_log(old).tasks.values()] == [[1, 1, 0], [0, 0, 0]]
    other = old_lm_eval(tmp_path / "other" / file, [1, 1, 0], arguments={"gen_args_0": {"arg_0": "another", "arg_1": {}}})
    assert main(["compare", old, other]) == 2
    assert "3 of 3 shared items were asked with other prompts" in capsys.readouterr().err
    assert main(["compare", old, "--metric", "parts"]) == 2
    assert "'parts' is no number by item" in capsys.readouterr().err
    assert main(["compare", str(tmp_path)]) == 2  # the folders of two models
    assert "from several folders" in capsys.readouterr().err


def test_a_document_of_lm_eval_has_one_hash_in_every_layout(tmp_path):
    """Rows with hashes pair with rows without: lm-eval's own definition, sha256 of the document's JSON and of the prompt."""
    import hashlib
    file = "samples_t_2024-01-02T03-04-05.jsonl"
    task = read_log(old_lm_eval(tmp_path / "old" / file, [1])).tasks["t"]
    doc = hashlib.sha256('{\n  "q": "é 0"\n}'.encode()).hexdigest()
    assert task.asked == {doc: hashlib.sha256(b"Q: 0").hexdigest()}


def test_a_cluster_that_no_item_has_and_tasks_of_one_log_alone_are_said(tmp_path, capsys):
    a = lm_eval(tmp_path / "a" / "samples_t_2026-01-02T03.jsonl", [1, 0, 1])
    lm_eval(tmp_path / "both" / "samples_t_2026-01-02T03.jsonl", [1, 0, 1])
    lm_eval(tmp_path / "both" / "samples_u_2026-01-02T03.jsonl", [1, 0, 1])
    assert main(["compare", a, "--cluster", "pasage"]) == 2
    assert "3 of 3 items have no 'pasage'" in capsys.readouterr().err
    assert main(["compare", a, str(tmp_path / "both")]) == 0
    assert f"Only {tmp_path / 'both'} holds, and so not compared: u" in capsys.readouterr().out


def test_inspects_failed_and_unrun_samples_are_missing_in_every_task(tmp_path, monkeypatch, capsys):
    """Sample 2 failed (no scores), 3 was unscored as a whole, 4 was never run, and 1 lacks its second epoch."""
    def sample(ident, **scores):
        return SimpleNamespace(id=ident, input="q", metadata=None, choices=["a", "b"],
                               scores={k: SimpleNamespace(value=v) for k, v in scores.items()} or None)
    samples = [sample(1, match="C", two={"a": 1, "b": 0}, many=[1, 0]), sample(2), sample(2),
               sample(3, match="I", two=float("nan"), many=[0, 1]), sample(3, match="I", two={"a": 0}, many=[0, 1])]
    held = SimpleNamespace(samples=samples, eval=SimpleNamespace(
        task="t", dataset=SimpleNamespace(sample_ids=[1, 2, 3, 4]), config=SimpleNamespace(epochs=2)))
    log = ModuleType("inspect_ai.log")
    log.read_eval_log = lambda path: held
    monkeypatch.setitem(sys.modules, "inspect_ai", ModuleType("inspect_ai"))
    monkeypatch.setitem(sys.modules, "inspect_ai.log", log)
    file = tmp_path / "log.json"
    file.write_text('{"version": 2, "status": "cancelled", "eval": {}}')
    none = [None, None]
    tasks = read_log(str(file)).tasks
    assert {name: t.scores for name, t in tasks.items()} == {
        "t (match)": {"1": [1.0, None], "2": none, "3": [0.0, 0.0], "4": none},
        "t (two/a)": {"1": [1.0, None], "2": none, "3": [None, 0.0], "4": none},
        "t (two/b)": {"1": [0.0, None], "2": none, "3": none, "4": none},
        "t (many/0)": {"1": [1.0, None], "2": none, "3": [0.0, 0.0], "4": none},
        "t (many/1)": {"1": [0.0, None], "2": none, "3": [1.0, 1.0], "4": none}}
    asked = tasks["t (match)"].asked["1"]
    samples[0].choices.reverse()
    assert read_log(str(file)).tasks["t (match)"].asked["1"] != asked  # shuffled choices are another prompt
    (tmp_path / "eee.json").write_text('{"schema_version": "0.2.1", "evaluation_results": []}')
    assert main(["compare", str(tmp_path / "eee.json")]) == 2
    assert "Every Eval Ever" in capsys.readouterr().err
