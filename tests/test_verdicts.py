"""What self-check found is kept for the very same model, and for no other."""

import json
import shutil

import pytest
import torch

pytest.importorskip("transformers")

import harken
from exported import DEMONSTRATIONS, FAST, words_model
from harken.core.errors import UserError
from harken.engines import selfcheck, verdicts
from harken.engines.attention import NAME
from harken.engines.loading import load


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """The names of the models that are measured, with a cache of this test's own."""
    names = []

    class Counted(selfcheck._Check):
        def __init__(self, model, name, scores):
            names.append(name)
            super().__init__(model, name, scores)

    monkeypatch.setattr(selfcheck, "_Check", Counted)
    monkeypatch.setattr(verdicts, "WORTH", 0)
    monkeypatch.setenv("HARKEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return names


def test_the_same_model_is_measured_once(measured, tmp_path):
    words_model(tmp_path / "m")
    first, second = load("m"), load("m")
    assert measured == ["m"]
    assert first.form == second.form and second.model.config._attn_implementation == NAME
    shutil.copytree("m", "copy")
    assert load("copy").form == first.form and measured == ["m"]  # the same bytes under another name


@pytest.mark.parametrize("change", ["weights", "configuration", "precision", "version", "adapter's scale"])
def test_whatever_changed_is_measured_again(measured, tmp_path, monkeypatch, change):
    words_model(tmp_path / "m")
    name, options = "m", {}
    if change == "adapter's scale":
        harken.train("sft", model="m", data=DEMONSTRATIONS, out="run", lora_rank=2, **FAST)
        name = "run"
    load(name)
    count = len(measured)
    config = tmp_path / "m" / "config.json"
    if change == "weights":
        words_model(tmp_path / "other")
        model = load("other").model
        model.model.norm.weight.data[0] += 0.5
        model.save_pretrained("m")
        count = len(measured)
    elif change == "configuration":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"rms_norm_eps": 1e-3}))
    elif change == "precision":
        options = {"dtype": torch.bfloat16}
    elif change == "version":
        monkeypatch.setattr(verdicts, "_versions", lambda: ["torch 99"])
    else:
        config = tmp_path / "run" / "model" / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 1}))
    load(name, **options)
    assert len(measured) == count + 1


def test_a_refusal_and_a_damaged_verdict_are_not_kept(measured, tmp_path, monkeypatch):
    words_model(tmp_path / "m")
    monkeypatch.setattr(selfcheck._Check, "packed", lambda self: (_ for _ in ()).throw(UserError("refused", "x")))
    for _ in range(2):
        with pytest.raises(UserError, match="refused"):
            load("m")
    assert len(measured) == 2 and not (tmp_path / "cache" / "checked").exists()
    monkeypatch.undo()
    monkeypatch.setattr(verdicts, "WORTH", 0)
    monkeypatch.setenv("HARKEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    form = load("m").form
    (kept,) = (tmp_path / "cache" / "checked").iterdir()
    for text in ("{", "[]", '{"plain": 1}', json.dumps({"plain": "", "cached": "yes"})):
        kept.write_text(text)
        assert load("m").form == form
    torch.manual_seed(0)
    model = load("m").model
    key = verdicts.identity(model, {"name": "m", "weights": None})
    assert key is None and verdicts.recall(None, tmp_path) is None


def test_damaged_weights_are_named_though_a_verdict_is_kept(measured, tmp_path, monkeypatch):
    words_model(tmp_path / "m")
    monkeypatch.setattr(verdicts, "identity", lambda *_, **__: "same")
    load("m")
    model = load("m").model
    model.model.norm.weight.data[0] = float("nan")
    model.save_pretrained("m")
    with pytest.raises(UserError, match="holds numbers that are not finite"):
        load("m")


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(measured, tmp_path, monkeypatch):
    words_model(tmp_path / "m")
    (tmp_path / "blocked").write_text("")
    monkeypatch.setenv("HARKEN_CACHE", str(tmp_path / "blocked"))
    load("m")
    load("m")
    assert len(measured) == 2
