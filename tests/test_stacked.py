"""Runs as they are saved: what peft and transformers load of them is what Harken samples."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import harken
from exported import COMPARISONS, DEMONSTRATIONS, FAST, assert_same_model, nll
from exported import chain as chain
from exported import runs as runs
from harken.engines import stacked
from harken.engines.loading import load


@pytest.mark.parametrize("run", ["sft", "dpo", "rm"])
def test_p37_peft_loads_a_chain_as_what_harken_samples(runs, run):
    """Case 6 of the log: the second adapter alone on the base of the base is another model."""
    from peft import AutoPeftModelForCausalLM
    assert_same_model(AutoPeftModelForCausalLM.from_pretrained(f"{run}/model").eval(), run)
    config = json.loads(Path(run, "model", "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "./words" and config["r"] == {"sft": 4, "dpo": 12, "rm": 16}[run]
    assert config["target_modules"] == sorted(config["target_modules"])


def test_the_second_adapter_alone_would_be_another_model(runs):
    """What was saved before: the check above can fail."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    alone = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("words"), "dpo/model/own").eval()
    assert abs(nll(alone, load("dpo").template, DEMONSTRATIONS[0])
               - nll(load_transformers("dpo"), load("dpo").template, DEMONSTRATIONS[0])) > 0.1


def load_transformers(run):
    from peft import AutoPeftModelForCausalLM
    return AutoPeftModelForCausalLM.from_pretrained(f"{run}/model").eval()


def test_a_run_saved_before_loads_bit_for_bit_as_one_saved_now(runs):
    """Before, model/ held the run's own adapter and named the lowest base."""
    shutil.copytree("dpo", "old")
    for name in (stacked.CONFIG, stacked.WEIGHTS):
        Path("old/model/own", name).replace(Path("old/model", name))
    Path("old/model/own").rmdir()
    saved = json.loads(Path("old/model/harken.json").read_text())
    assert saved.pop("own") == "own"
    Path("old/model/harken.json").write_text(json.dumps(saved))
    a, b = (load(name).model.state_dict() for name in ("dpo", "old"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    found = stacked.chain(Path("old/model"), Path("old"))
    assert [str(f) for f in found.folders] == ["sft/model", "old/model"] and found.root == "words"


def test_saved_runs_hold_no_absolute_path_and_no_base_where_it_has_no_name(runs, tmp_path):
    base = str(runs / "words")
    for kind, rank in (("part", 4), ("full", 0)):
        harken.train("sft", model=base, data=DEMONSTRATIONS, out=f"{kind}", lora_rank=rank, **FAST)
        assert "./words" in Path("part/model/README.md").read_text()
        for file in Path(kind, "model").rglob("*"):
            assert str(tmp_path).encode() not in (file.read_bytes() if file.is_file() else b"")
    harken.train("sft", model="toy", data=DEMONSTRATIONS, out="toy_run", lora_rank=4, **FAST)
    assert json.loads(Path("toy_run/model/adapter_config.json").read_text())["base_model_name_or_path"] is None
    assert stacked.public_name("org/name") == "org/name" and stacked.public_name("smollm2") is None
    assert stacked.public_name("/nowhere/model") is None


@pytest.mark.slow
def test_full_weights_of_a_run_stop_in_transformers_where_harken_stops(runs):
    from transformers import AutoModelForCausalLM
    harken.train("sft", model="words", data=DEMONSTRATIONS, out="full", lora_rank=0, **FAST)
    harken.train("dpo", model="full", data=COMPARISONS, out="on_full", lora_rank=4, **FAST)
    model = AutoModelForCausalLM.from_pretrained("full/model").eval()
    assert model.generation_config.eos_token_id == [2]
    assert_same_model(model, "full")
    assert json.loads(Path("on_full/model/adapter_config.json").read_text())["base_model_name_or_path"] == "./full/model"
    assert_same_model(load_transformers("on_full"), "on_full")


def test_a_run_without_its_own_adapter_is_refused(runs):
    """On its parent the sum of the chain would count the parent twice."""
    shutil.rmtree("dpo/model/own")
    with pytest.raises(harken.UserError, match=r"lacks model/own/adapter_config\.json"):
        load("dpo")


def test_a_stack_is_the_sum_by_hand(tmp_path):
    """Two adapters of rank 1 on one 2x2 layer, scales 2 and 4: 2 [1 2]'[3 4] + 4 [5 6]'[7 8], by hand."""
    from safetensors.torch import save_file
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, alpha, a, b in zip(folders, (2, 4), ([3., 4.], [7., 8.]), ([1., 2.], [5., 6.])):
        folder.mkdir()
        tensors = {"x.lora_A.weight": torch.tensor([a]), "x.lora_B.weight": torch.tensor(b)[:, None]}
        save_file(tensors, folder / stacked.WEIGHTS)
        config = {"peft_type": "LORA", "bias": "none", "r": 1, "lora_alpha": alpha, "target_modules": ["x"]}
        (folder / stacked.CONFIG).write_text(json.dumps(config))
    tensors, config = stacked.stack(folders)
    total = config["lora_alpha"] / config["r"] * tensors["x.lora_B.weight"] @ tensors["x.lora_A.weight"]
    assert total.tolist() == [[2 * 3 + 4 * 35, 2 * 4 + 4 * 40], [2 * 6 + 4 * 42, 2 * 8 + 4 * 48]]
    special = {**json.loads((folders[0] / stacked.CONFIG).read_text()), "trainable_token_indices": [2]}
    (folders[0] / stacked.CONFIG).write_text(json.dumps(special))
    assert stacked.stack(folders) is None
