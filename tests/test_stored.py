"""Scores that a file holds: read by prompt and completion, counted by both rules, refused by line."""

import json

import pytest

from harken.cli.main import main
from harken.core.errors import UserError
from harken.core.records import Prompt
from harken.rewards.stored import Stored


def file_of(tmp_path, *rows):
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("row", [
    {"prompt": "p", "completions": ["a", "b"], "ranks": [1, 2], "scores": [1, None]},
    {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_score": 1, "rejected_score": None},
    {"prompt": "p", "chosen": "a", "rejected": "b", "scores_chosen": [1.0], "scores_rejected": None},
    {"prompt": "p", "chosen": ["a"], "rejected": ["b", "c"], "score_chosen": [1], "score_rejected": [None, 3]},
    {"chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}],
     "rejected": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "b"}], "reward-chosen": 1.0},
    {"prompt": "p", "completion": "a", "score": 1},
])
def test_every_layout_is_read_by_prompt_and_completion(tmp_path, row):
    reward = Stored(file_of(tmp_path, row))
    assert reward.score([Prompt.of("p")], [["a", "b", "not there"]]) == [[1.0, None, None]]


@pytest.mark.parametrize(("rows", "says"), [
    ([{"prompt": "p", "completions": ["a", "b"], "scores": [1]}], "line 1: 2 completions have 1 scores"),
    ([{"prompt": "p", "completions": ["a"], "scores": ["1"]}], "line 1: a score is a number, found '1'"),
    ([{"prompt": "p", "completions": ["a"], "scores": [True]}], "line 1: a score is a number, found True"),
    ([{"prompt": "p", "completion": "a", "score": 1}, {"prompt": "p", "completion": "a", "score": 2}],
     "line 2: one answer to one prompt is scored 1.0 and 2.0"),
    ([{"prompt": "p", "completions": ["a"], "scores": [None]}], "holds no scores"),
    ([{"question": "p"}], "line 1: neither completions"),
])
def test_what_holds_no_scores_is_refused_by_line(tmp_path, rows, says):
    with pytest.raises(UserError, match=says.replace("(", "\\(")):
        Stored(file_of(tmp_path, *rows))


def test_other_completions_are_refused(tmp_path):
    with pytest.raises(UserError, match="scores none of these 1 completions"):
        Stored(file_of(tmp_path, {"prompt": "p", "completion": "a", "score": 1})).score([Prompt.of("q")], [["a"]])


def test_the_shell_prints_both_rules_and_reads_what_score_wrote(tmp_path, capsys):
    """Of five pairs one is right, two are equal, one is wrong, one has no score: (1 + 2/2) / 4 and 1 / 4."""
    pairs = [(2, 1), (1, 1), (0, 0), (1, 2), (None, 1)]
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b", "score_chosen": c, "score_rejected": r}
            for i, (c, r) in enumerate(pairs)]
    out = tmp_path / "again.jsonl"
    assert main(["score", "--data", file_of(tmp_path, *rows), "--out", str(out)]) == 0
    first = capsys.readouterr()
    assert "accuracy 0.500" in first.out and "1 pairs without a score" in first.out and not first.err
    assert "2 pairs with equal scores count half there; counted wrong, accuracy 0.250" in first.out
    assert main(["score", "--data", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == first.out.splitlines()[1:]


def test_a_file_whose_pairs_lack_a_score_has_no_accuracy_and_says_why(tmp_path, capsys):
    rows = [{"prompt": "a", "completions": ["x", "y"], "ranks": [1, 2], "scores": [1, None]}]
    assert main(["score", "--data", file_of(tmp_path, *rows)]) == 0
    assert "(they are missing in the file): there is no accuracy" in capsys.readouterr().out
