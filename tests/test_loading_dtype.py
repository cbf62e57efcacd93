"""Weights read in the precision they compute in: transformers' own bits, checked as exactly as in float32."""

import pytest
import torch

pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM

from harken.core.errors import UserError
from harken.engines import loading
from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.engines.selfcheck import in_float32
from harken.engines.toy import toy_model, toy_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The toy model as a folder."""
    path = tmp_path_factory.mktemp("toy")
    toy_model(seed=3).save_pretrained(path)
    toy_tokenizer().save_pretrained(path)
    return str(path)


def test_bfloat16_weights_are_transformers_own_bits_and_never_float32(folder, monkeypatch):
    """Parameters and buffers; rotary frequencies, which no file holds, stay float32 in both. The path found is float32's."""
    read = []
    original = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained",
                        lambda *a, **k: (read.append(k["dtype"]), original(*a, **k))[1])
    loaded = load(folder, dtype=torch.bfloat16)
    assert read == [torch.bfloat16] and loaded.form == load(folder).form and not loaded.form.plain
    theirs = original(folder, dtype=torch.bfloat16)
    for name, wanted in [*theirs.named_parameters(), *theirs.named_buffers()]:
        found = dict([*loaded.model.named_parameters(), *loaded.model.named_buffers()])[name]
        assert found.dtype == wanted.dtype and torch.equal(found, wanted), name
        assert wanted.dtype == (torch.float32 if "inv_freq" in name else torch.bfloat16), name


def test_log_probs_are_those_of_weights_that_were_cast_afterwards(folder):
    from harken.core.protocols import Tree
    tree = [Tree((5, 6, 7), ((20, 21, 3), (22, 3)))]
    engines = [Engine(load(folder, dtype=dtype), lora_rank=2, dtype="bfloat16") for dtype in (torch.float32, torch.bfloat16)]
    first, second = (torch.cat([x for t in e.logprobs(tree) for x in t]) for e in engines)
    assert torch.equal(first, second)


@torch.no_grad()
def test_the_check_computes_in_float32_a_module_at_a_time(folder):
    """Within it a forward of bfloat16 weights is, to the bit, that of the same weights held in float32; after it they are back,
    after a failure as well."""
    low, whole = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16) for _ in range(2))
    ids = torch.tensor([[5, 6, 7, 20]])
    before = {n: p.clone() for n, p in low.named_parameters()}
    with in_float32(low):
        found = low(ids).logits
        with pytest.raises(IndexError):
            low(torch.tensor([[10**6]]))
    assert found.dtype is torch.float32 and torch.equal(found, whole.float()(ids).logits)
    for name, parameter in low.named_parameters():
        assert parameter.dtype is torch.bfloat16 and torch.equal(parameter, before[name])


def test_what_only_float32_can_check_is_read_again(folder, monkeypatch):
    """A model whose packed rows are not found in float32 a module at a time is read in float32, and cast afterwards."""
    dtypes, original = [], loading.examine

    def examine(model, *args):
        dtypes.append(next(model.parameters()).dtype)
        form = original(model, *args)
        return form if dtypes[-1] is torch.float32 else type(form)(plain="its layers read each other's weights")
    monkeypatch.setattr(loading, "examine", examine)
    loaded = load(folder, dtype=torch.bfloat16)
    assert dtypes == [torch.bfloat16, torch.float32] and not loaded.form.plain
    assert next(loaded.model.parameters()).dtype is torch.bfloat16


def test_a_configuration_that_is_not_the_weights_is_refused_before_they_are_made(folder, tmp_path, monkeypatch):
    """config.json without its sizes: transformers would fill in a model of gigabytes. Nothing is made, a tensor is named."""
    import json
    import shutil
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    config = json.loads((damaged / "config.json").read_text())
    whole = dict(config)
    for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"):
        config.pop(key, None)
    (damaged / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *a, **k: pytest.fail("weights were read"))
    with pytest.raises(UserError, match=r"makes model.embed_tokens.weight \[\d+, 4096\], and model.safetensors has"):
        load(str(damaged))
    (damaged / "config.json").write_text(json.dumps({**whole, "num_hidden_layers": 50}))
    with pytest.raises(UserError, match=r"describes [\d,]+ weights, its files hold [\d,]+ \(none named model.layers.\d"):
        load(str(damaged))
