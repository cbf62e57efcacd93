"""A finished run goes on, and is then exactly what it had been if the longer one had been asked for at once."""

import pytest

import harken
from harken.cli.main import main
from harken.core.files import read_json, read_jsonl

PROMPTS = [f"Say {i}." for i in range(16)]
RLOO = {"model": "toy", "reward": "measure:length", "data": PROMPTS, "max_tokens": 4, "prompts_per_step": 4}
DEMONSTRATIONS = [{"prompt": p, "completion": "Hello."} for p in PROMPTS]
SFT = {"model": "toy", "data": DEMONSTRATIONS, "batch_size": 4, "holdout": 0.2, "schedule": "constant"}


def weights(run):
    return (run.path / "model" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize(("method", "settings", "short", "long"), [
    pytest.param("rloo", RLOO, {"steps": 2}, {"steps": 4}, marks=pytest.mark.slow), ("sft", SFT, {"epochs": 1}, {"epochs": 2})])
def test_a_longer_run_is_the_run_that_was_long_from_the_start(tmp_path, method, settings, short, long):
    first = harken.train(method, **settings, **short, out=tmp_path / "a")
    before = weights(first)
    went_on = harken.train(method, **settings, **long, out=tmp_path / "a")
    at_once = harken.train(method, **settings, **long, out=tmp_path / "b")
    assert weights(went_on) == weights(at_once) != before
    drop = {"seconds"}
    rows = [[{k: v for k, v in row.items() if k not in drop} for row in read_jsonl(run.path / "metrics.jsonl")]
            for run in (went_on, at_once)]
    assert rows[0] == rows[1]
    name, = long
    longer, = read_json(tmp_path / "a/lineage.json")["longer"]
    assert (longer["setting"], longer["from"], longer["to"]) == (name, short[name], long[name])
    assert read_json(tmp_path / "a/config.json")[name] == long[name]
    assert harken.train(method, **settings, **long, out=tmp_path / "a").result == went_on.result  # finished; nothing to do


def test_one_pass_goes_on_too_and_an_interrupted_change_is_finished(tmp_path):
    run = harken.train("rloo", **RLOO, out=tmp_path / "a")
    assert run.result["steps"] == 4
    (tmp_path / "a/result.json").unlink()  # killed after that line, before config.json was written
    assert harken.train("rloo", **RLOO, out=tmp_path / "a").result["steps"] == 4
    assert harken.train("rloo", **RLOO, steps=5, out=tmp_path / "a").result["steps"] == 5


def test_what_would_not_be_exact_is_refused_with_the_reason(tmp_path):
    def refused(message, method, settings, out, **changed):
        with pytest.raises(harken.UserError, match=message):
            harken.train(method, **{**settings, **changed}, out=tmp_path / out)

    harken.train("sft", **{**SFT, "schedule": "cosine"}, epochs=1, out=tmp_path / "cosine")
    refused("planned for the old length", "sft", {**SFT, "schedule": "cosine"}, "cosine", epochs=2)
    assert not (tmp_path / "cosine/checkpoints").exists()
    harken.train("rloo", **RLOO, steps=2, out=tmp_path / "r")
    refused("holds another run .steps: 2 there, 1 now", "rloo", RLOO, "r", steps=1)
    refused("holds another run", "rloo", RLOO, "r", steps=3, seed=1)
    harken.train("rloo", **RLOO, steps=1, lora_rank=0, out=tmp_path / "full")
    refused("state was not kept", "rloo", RLOO, "full", steps=3, lora_rank=0)


def test_settings_in_yaml_toml_and_json(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    harken.write_jsonl("d.jsonl", DEMONSTRATIONS)
    (tmp_path / "c.yaml").write_text("# a comment\nmodel: toy\ndata: d.jsonl\nlearning_rate: 1e-3\nepochs: 1\nholdout: 0.0\n")
    (tmp_path / "c.toml").write_text('model = "toy"\ndata = "d.jsonl"\nlearning_rate = 1e-3\nepochs = 1\nholdout = 0\n')
    for name in ("c.yaml", "c.toml"):
        assert main(["train", "sft", "--config", name, "--batch-size", "8", "--out", name[-4:]]) == 0
    yaml, toml = (read_json(tmp_path / out / "config.json") for out in ("yaml", "toml"))
    assert yaml["learning_rate"] == 1e-3 and yaml["batch_size"] == 8
    assert {k: v for k, v in yaml.items() if k != "out"} == {k: v for k, v in toml.items() if k != "out"}
    assert main(["train", "sft", "--config", "toml/config.json", "--out", "again"]) == 0
    assert (tmp_path / "again/model/adapter_model.safetensors").read_bytes() == weights(harken.train(
        "sft", **{k: v for k, v in toml.items() if k not in ("command", "base", "out")}, out="toml"))
    for name, text, message in (("a.yaml", "a: [", "is no YAML"), ("b.yaml", "- 1", "not settings by name"),
                                ("d.toml", "a =", "no TOML"), ("e.yaml", "epocs: 1", "Did you mean epochs"),
                                ("none.yaml", None, "cannot be read")):
        if text is not None:
            (tmp_path / name).write_text(text)
        assert main(["train", "sft", "--config", name, "--out", "x"]) == 2
        assert message in capsys.readouterr().err
