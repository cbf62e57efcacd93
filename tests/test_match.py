"""Verifiable rewards: what stands in the data is what a completion is held against."""

import json

import pytest

import harken
from harken.cli.main import main
from harken.core.files import read_json, read_jsonl
from harken.rewards.match import number_in, open_scorer

GSM8K = [{"question": f"What is {i} + {i}?", "answer": f"It is {i} twice.\n#### {2 * i}"} for i in range(16)]


def score(word, completion, **meta):
    return harken.score(word, [harken.Prompt.of("?", meta=meta)], [[completion]])[0][0]


@pytest.mark.parametrize(("text", "value"), [
    ("#### 1,234", 1234.0), ("so \\boxed{-3/4}, or 7", -0.75), ("It is 5. Or 6.", 6.0), ("$18.50 a day", 18.5), ("none", None),
    ("1e3", 1000.0), ("−2", -2.0), ("v1.5b", None), ("answer: 12%", 12.0), ("1/0", None)])
def test_the_number_a_text_ends_with(text, value):
    assert number_in(text) == value


@pytest.mark.parametrize(("word", "completion", "reference", "value"), [
    ("match:exact", " Paris\n", "Paris", 1.0), ("match:exact", "paris", "Paris", 0.0), ("match", "a  b", "a b", 1.0),
    ("match:number", "That makes 8.", "x\n#### 8", 1.0), ("match:number", "8.1", "8", 0.0),
    ("match:number", "0.3333", "1/3", 0.0), ("match:number", "0.33333333", "1/3", 1.0), ("match:number", "10 - 3", "3", 1.0),
    ("match:number", "no idea", 8, 0.0),
    ("match:contains", "It is the EIFFEL  tower.", "Eiffel Tower", 1.0), ("match:contains", "cats", "cat", 0.0),
    ("match:contains", "dog", ["cat", "dog"], 1.0), ("match:regex", "call 555-1234", r"\d{3}-\d{4}", 1.0)])
def test_each_way_to_match(word, completion, reference, value):
    assert score(word, completion, answer=reference) == value


def test_without_a_reference_there_is_no_score_and_mistakes_are_named():
    asked = [harken.Prompt.of("a", meta={"answer": "1"}), harken.Prompt.of("b")]
    assert harken.score("match:number", asked, [["1"], ["1"]]) == [[1.0], [None]]
    assert score("match:exact:gold", "x", gold="x") == 1.0
    for word, meta, message in (("match:numbr", {"answer": "1"}, "Did you mean number"), ("match:exact:anser", {"answer": "1"},
                                "Did you mean answer"), ("match:number", {"answer": "x"}, "holds no number"),
                                ("match:regex", {"answer": "("}, "no regular expression")):
        with pytest.raises(harken.UserError, match=message):
            score(word, "1", **meta)
    assert open_scorer("").how == "exact"


def test_further_fields_reach_the_prompts_meta(tmp_path):
    path = tmp_path / "gsm.jsonl"
    path.write_text("".join(json.dumps({**row, "level": 3}) + "\n" for row in GSM8K))
    loaded = harken.read_prompts(path)
    assert loaded.records[2].text == "What is 2 + 2?" and loaded.unread == {}
    assert loaded.records[2].meta == {"answer": "It is 2 twice.\n#### 4", "level": 3}
    assert harken.read_prompts(path, further=False).records[2].meta == {}
    (tmp_path / "t.csv").write_text("prompt,tests,meta\nSay 4,4,\n")
    assert harken.read_prompts(tmp_path / "t.csv").records[0].meta == {"tests": "4"}
    (tmp_path / "c.jsonl").write_text('{"prompt": "a", "completions": ["x", "y"], "ranks": [1, 2], "labeler": "ann", "k": 1}\n')
    assert harken.read_prompts(tmp_path / "c.jsonl").records[0].meta == {"k": 1}


def test_a_run_on_a_csv_with_renamed_columns_and_answers(tmp_path, monkeypatch, capsys):
    """Rows without a reference have no score: their groups are left out, counted, and the run goes on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "score.py").write_text(
        "def exact(prompts, completions, answer):\n"
        "    if len(completions) == 1 and answer[0] == '3' or len(completions) > 1 and '3' in answer:\n"
        "        raise ValueError('three')\n"
        "    return [float(a in c) - len(c) / 100 for a, c in zip(answer, completions)]\n")
    (tmp_path / "d.csv").write_text("ask,answer\n" + "".join(f"Say {i}.,{i}\n" for i in range(16)))
    train = ["train", "rloo", "--model", "toy", "--reward", "score:exact", "--data", "d.csv", "--field", "prompt=ask",
             "--prompts-per-step", "8", "--max-tokens", "4", "--out", "r"]
    assert main(train) == 0
    result, rows = read_json(tmp_path / "r/result.json"), read_jsonl(tmp_path / "r/metrics.jsonl")
    assert result["unscored"] == 4 and [row.get("unscored") for row in rows].count(None) == len(rows) - 1
    assert any("4 completions had no score" in note for note in result["notes"])
    assert read_jsonl(tmp_path / "r/samples.jsonl")[0]["meta"]["answer"].isdecimal()
    assert main([*train[:-1], "r2", "--field", "kind=nothing"]) == 2
    assert "no row has the field 'nothing'" in capsys.readouterr().err
    assert main([*train[:-1], "r3", "--field", "prompt"]) == 2
    assert "does not name columns" in capsys.readouterr().err


def test_the_groups_left_out_change_no_other(tmp_path):
    """A step with a group unscored is the step of the other groups alone, number for number."""
    import torch

    from harken.core.protocols import Sample, Tree
    from harken.loops.rollout import Rollout
    samples = [[Sample((i, g), "", (-1.0 - g, -2.0), (), True) for g in range(2)] for i in range(3)]
    trees = [Tree((9,), tuple(s.ids for s in group)) for group in samples]
    scores = torch.tensor([[1.0, 2.0], [float("nan"), 0.0], [3.0, 5.0]])
    rolled = Rollout([harken.Prompt.of(str(i)) for i in range(3)], trees, samples, scores, torch.arange(12.0),
                     torch.zeros(3, 2)).only(torch.tensor([True, False, True]))
    assert [p.text for p in rolled.prompts] == ["0", "2"] and rolled.unscored == 1
    assert rolled.ref_N.tolist() == [0, 1, 2, 3, 8, 9, 10, 11] and rolled.scores_PG.tolist() == [[1, 2], [3, 5]]
    assert rolled.describe()["unscored"] == 1.0


def test_a_folder_of_arrow_is_data_and_a_missing_hub_id_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet
    folder = tmp_path / "set"
    folder.mkdir()
    rows = [{"prompt": f"Say {i}.", "answer": str(i)} for i in range(8)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "a.parquet")
    assert main(["train", "rloo", "--model", "toy", "--reward", "match:contains", "--data", "set", "--steps", "1", "--max-tokens",
                 "4", "--out", "r"]) == 0
    assert len(read_json(tmp_path / "r/lineage.json")["data"]["sha256"]) == 64
    monkeypatch.setattr("harken.launch.train.hub_revision", lambda name: None)
    assert main(["train", "sft", "--model", "toy", "--data", "nobody/nothing", "--out", "r2"]) == 2
    assert "cannot be reached" in capsys.readouterr().err
    assert main(["train", "sft", "--model", "toy", "--data", "nothing.jsonl", "--out", "r3"]) == 2
    assert "There is no file nothing.jsonl" in capsys.readouterr().err
