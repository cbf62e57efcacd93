"""What strangers give `harken fit`, `score` and `disagree`: each ends in a result or one message, nothing is left half done."""

import json
import os

import pytest

from harken.cli.main import main
from harken.core.files import read_json
from harken.core.records import Choice, Prompt
from harken.rewards import compositional
from harken.store.files import write_jsonl

FIT = ["fit", "compositional", "--judge", "rules", "--folds", "2", "--penalty", "l2"]


@pytest.fixture
def data(tmp_path):
    """Longer answers are preferred, on six prompts."""
    asked = [(i, j) for i in range(6) for j in range(4)]
    write_jsonl(tmp_path / "c.jsonl", [Choice(Prompt.of(f"Ask {i}"), (f"Long answer {'word ' * (3 + j)}.", f"Short {j}"),
                                              (1, 2) if (i + j) % 4 else (2, 1), "ab"[j % 2]) for i, j in asked])
    return tmp_path


def refused(capsys, *argv):
    assert main([str(a) for a in argv]) == 2
    return capsys.readouterr().err


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(data, capsys):
    os.mkfifo(pipe := data / "pipe")
    held = os.open(pipe, os.O_RDWR)  # else whoever opened it would wait here for ever
    os.write(held, b"{" * 64)
    for command in (["score", "--reward", "measure:length", "--data", pipe, "--out", data / "s.jsonl"], ["disagree", pipe],
                    ["labelers", pipe], ["score", "--reward", f"rules:{pipe}", "--data", data / "c.jsonl", "--out", data / "s"]):
        assert "is a pipe" in refused(capsys, *command)
    os.close(held)


@pytest.mark.parametrize("command", [[*FIT, "--out", "{}/run", "--data"], ["disagree"], ["labelers"], ["agreement"]])
def test_seeds_below_0_are_refused_before_the_work(data, capsys, command):
    command = [c.format(data) for c in command]
    if command[0] != "agreement":
        assert "--seed -1 is out of range" in refused(capsys, *command, data / "c.jsonl", "--seed", "-1")
    assert "is out of range" in refused(capsys, *command, data / "c.jsonl", "--seed", "9" * 400)
    assert not (data / "run").exists()


def test_numbers_beyond_all_floats_are_refused(data, capsys):
    command = [*FIT, "--data", data / "c.jsonl", "--out", data / "run"]
    assert "--max-failures" in refused(capsys, *command, "--max-failures", "1e400")
    assert "--folds 999" in refused(capsys, *command, "--folds", "9" * 400)
    (data / "settings.json").write_text(f'{{"learning_rate": {"9" * 400}}}')
    command = ["train", "sft", "--model", "toy", "--data", data / "c.jsonl", "--out", data / "run"]
    assert "--learning-rate 999" in refused(capsys, *command, "--config", data / "settings.json")
    assert not (data / "run").exists()


@pytest.mark.parametrize("content, message", [
    ("[" * 100_000, "damaged or not JSON"), ('{"a":' * 100_000, "damaged or not JSON"),
    ('{"rules": [{"pattern": "a", "weight": NaN}]}', "must be finite"),
    ('{"rules": [{"pattern": "a", "weight": 1e999}]}', "must be finite"),
    (f'{{"rules": [{{"pattern": "a", "most": {"9" * 400}}}]}}', "must be finite")])
def test_settings_that_are_nested_too_deeply_or_no_numbers(data, capsys, content, message):
    (data / "odd.json").write_text(content)
    assert message in refused(capsys, "score", "--reward", f"rules:{data / 'odd.json'}", "--data", data / "c.jsonl",
                              "--out", data / "s.jsonl")
    assert not (data / "s.jsonl").exists()


def test_attributes_with_a_byte_order_mark_are_read_and_their_names_shown_plainly(data, capsys):
    attributes = {"attributes": [{"name": "\x1b[31mlong\nline", "scorer": "measure:length"}]}
    (data / "a.json").write_text("\ufeff" + json.dumps(attributes), encoding="utf-8")
    source, run = ["--data", str(data / "c.jsonl")], str(data / "run")
    assert main([*FIT, *source, "--out", run, "--attributes", str(data / "a.json")]) == 0
    assert main(["score", "--reward", run, *source, "--out", str(data / "s.jsonl"), "--explain"]) == 0
    said = capsys.readouterr().out
    assert said.count(r"\u001b[31mlong\nline") == 2 and "\x1b" not in said


@pytest.mark.parametrize("change", [{"terms": None}, {"terms": [{}]}, {"terms": 5}, {"judge": {}}, {"weight": float("nan")}])
def test_a_damaged_result_is_said(data, capsys, change):
    assert main([*FIT, "--data", str(data / "c.jsonl"), "--out", str(data / "run")]) == 0
    file = data / "run" / "model" / "compositional.json"
    saved = read_json(file)
    if "weight" in change:
        saved["terms"][0] |= change
    else:
        saved |= change
    file.write_text(json.dumps(saved))
    command = ["score", "--reward", data / "run", "--data", data / "c.jsonl", "--out", data / "s.jsonl"]
    assert "is damaged" in refused(capsys, *command)


STAGES = ("read_comparisons", "qualities", "combine", "intervals", "_held_out", "write_json")


@pytest.mark.parametrize("stage", STAGES)
def test_a_fit_stopped_anywhere_is_no_reward_and_ends_when_given_again(data, capsys, monkeypatch, stage):
    def stop(*_, **__):
        raise KeyboardInterrupt

    command = [*FIT, "--data", str(data / "c.jsonl"), "--out", str(data / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(compositional, stage, stop)
        assert main(command) == 130
        assert "the same command continues" in capsys.readouterr().err
        assert not (data / "run" / "result.json").exists() and not (data / "run" / "model").exists()
    assert main(command) == 0
    assert (data / "run" / "model" / "compositional.json").is_file()


def test_scoring_stopped_leaves_the_file_that_was_there(data, capsys, monkeypatch):
    (data / "s.jsonl").write_text("before\n")
    monkeypatch.setattr("harken.store.writing.json_line", lambda row: (_ for _ in ()).throw(KeyboardInterrupt))
    command = ["score", "--reward", "measure:length", "--data", str(data / "c.jsonl"), "--out", str(data / "s.jsonl")]
    assert main(command) == 130
    assert (data / "s.jsonl").read_text() == "before\n" and {p.name for p in data.iterdir()} == {"c.jsonl", "s.jsonl"}
