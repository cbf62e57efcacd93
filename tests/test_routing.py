"""Gradient routing: bad tokens teach the block alone, good ones everything, and the block comes out again."""

import json
import random

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from harken.core.errors import UserError
from harken.core.protocols import Datum, Tree
from harken.engines import routed as block
from harken.engines import scratch
from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.launch.find import find_method
from harken.launch.policies import open_sampler, read_control
from harken.launch.settings import SurgerySettings
from harken.launch.surgery import surgery
from harken.launch.train import train
from harken.loops import routing
from harken.loops.annotate import annotate
from harken.objectives import phf
from harken.text.tags import Control, steer
from marks import slow

COUNT = 5


def llama(bias=False):
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, mlp_bias=bias,
                                        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64)).eval()


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=64, n_embd=16, n_layer=2, n_head=2)).eval()


KINDS = {"llama": llama, "llama-bias": lambda: llama(bias=True), "gpt2": gpt2}


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_goes_in_without_a_trace_and_comes_out_again(kind, tmp_path):
    """Widened a model gives what it gave; narrowed it is the model of before, whatever the block became; saved, either opens."""
    torch.manual_seed(0)
    model, ids = KINDS[kind](), torch.arange(20)[None]
    before = {n: p.clone() for n, p in model.named_parameters()}
    said = model(ids).logits
    block.widen(model, COUNT, seed=1)
    assert torch.allclose(model(ids).logits, said, atol=1e-6)
    own = {n: v for n, p in model.named_parameters() if (v := block.block(n, p, COUNT)) is not None}
    sizes = [sum(p.numel() for p in tensors) for tensors in (model.parameters(), before.values(), own.values())]
    assert sizes[0] == sizes[1] + sizes[2]
    with torch.no_grad():
        for v in own.values():
            v.copy_(torch.randn_like(v))
    changed = model(ids).logits
    assert not torch.allclose(changed, said, atol=1e-2)
    model.save_pretrained(tmp_path)
    assert torch.equal(type(model).from_pretrained(tmp_path).eval()(ids).logits, changed)
    block.narrow(model, COUNT)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    model.save_pretrained(tmp_path)
    assert torch.equal(type(model).from_pretrained(tmp_path).eval()(ids).logits, said)


def test_another_kind_of_model_is_one_message():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp = nn.ModuleDict({"experts": nn.Linear(2, 2)})
    model = llama()
    model.model.layers[1] = Odd()
    with pytest.raises(UserError, match="no MLP of the known kinds"):
        block.widen(model, COUNT, 0)


@pytest.fixture(scope="module", params=["llama", *slow("gpt2")])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("routing") / "model"
    scratch.make_new(folder, ["The old red boat sails on. "] * 20, architecture=request.param, size="60K", vocabulary=300,
                     context=64, seed=1, segmenter="sentence", routed=COUNT)
    return folder


def test_the_gradient_goes_where_it_is_routed(folder):
    """Beside plain objectives on plain models: bad tokens leave every shared gradient at 0 and give the block theirs; good ones
    give the shared parameters what a model without the block gets, and the block nothing; unscored ones give all theirs."""
    rng = random.Random(0)
    kinds = [["good"] * 30, rng.choices(routing.PARTS, k=30), ["bad"] * 30]
    data = [Datum(Tree((0,), (tuple(rng.choices(range(3, 270), k=30)),)), {
        "weights": [1 / 90] * 30, **{part: [float(k == part) for k in row] for part in routing.PARTS}}) for row in kinds]

    def loss(part):
        return lambda out, x: phf.masked(out.logps_N, x[part], x["weights"])

    def learnt(chosen, *parts, cut=False, how=None):
        loaded = load(str(folder))
        with torch.no_grad():
            for n, p in loaded.model.named_parameters():  # the block says something from the start here
                if (own := block.block(n, p, COUNT)) is not None:
                    own.copy_(torch.randn(own.shape, generator=torch.Generator().manual_seed(3)))
        if cut:
            block.narrow(loaded.model, COUNT)
        engine = Engine(loaded, max_grad_norm=0)
        whole = {n: p.detach().clone() for n, p in engine.parts.items()}
        if how:
            how(engine)
        for part in parts:
            engine.forward_backward(chosen, loss(part))
        assert all(torch.equal(p.detach(), whole[n]) for n, p in engine.parts.items())
        return {n: p.grad.clone() for n, p in engine.parts.items()}

    def routed(chosen):
        return learnt(chosen, how=lambda engine: routing.routed(engine, chosen, loss, COUNT))
    found, bad, unscored, good = routed(data), learnt(data, "bad"), learnt(data, "unscored"), learnt(data, "good", cut=True)
    alone, clean, blocks = routed(data[2:]), routed(data[:1]), 0
    for name, gradient in found.items():
        expected = unscored[name].clone()
        if (own := block.block(name, expected, COUNT)) is None:
            expected += good[name]
            assert not alone[name].any() and bad[name].any(), name  # a window of bad tokens moves nothing else
        else:
            blocks += 1
            own += block.block(name, bad[name], COUNT)
            rest = torch.ones_like(expected)
            block.block(name, rest, COUNT).zero_()
            expected[rest > 0] += good[name].flatten()
            assert not (alone[name] * rest).any() and block.block(name, alone[name], COUNT).any()
            assert not block.block(name, clean[name], COUNT).any() and clean[name].any()  # nor good ones the block
        assert torch.allclose(gradient, expected, atol=1e-7), name
    assert blocks == 6  # three weights of each of two layers, or two and a bias


class Curses:
    id = "curses/1"

    def rate(self, text):
        return -1.0 * text.count("damn")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Documents of eight sentences; in a third of them half the sentences hold a curse."""
    rng, folder = random.Random(0), tmp_path_factory.mktemp("routed")
    rows = []
    for i in range(240):
        words = [[*rng.choices(["red", "blue", "green", "old"], k=4)] for _ in range(8)]
        for row in words if i % 3 == 0 else []:
            if rng.random() < 0.5:
                row[1:3] = ["damn", "damn"]
        rows.append({"id": f"d{i}", "text": " ".join(" ".join(r).capitalize() + "." for r in words)})
    (folder / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    annotate([folder / "a.jsonl"], folder / "annotated", Curses, split_bytes=8000)
    return folder / "annotated"


def run(corpus, out, **settings):
    method = find_method("phf")
    small = {"size": "40K", "vocabulary": 300, "max_length": 64, "batch_size": 2, "tokens": 2 * 64 * 150, "learning_rate": 5e-3}
    return train(method, method.Config(data=str(corpus), out=str(out), **{"objective": "route"} | small | settings), quiet=True)


def curses(prompts, completions):
    return [-1.0 * text.count("damn") for text in completions]


@pytest.mark.slow
def test_what_bad_segments_taught_goes_with_the_block(corpus, tmp_path, capsys):
    """With the block the model curses, without it hardly; it is as small as one that never had a block, and can be cut once."""
    done = run(corpus, tmp_path / "run", routed=32)
    assert read_control(done.path).routed == 32
    (tmp_path / "t.jsonl").write_text(9 * (json.dumps({"text": "Red old blue green. Old green red blue."}) + "\n"))
    settings = {"reward": "test_routing:curses", "data": str(tmp_path / "t.jsonl"), "samples": 64, "max_tokens": 40,
                "delete_routed": True}
    cut = surgery(SurgerySettings(model=str(done.path), out=str(tmp_path / "cut"), **settings))
    result = cut.result
    assert set(result["before"]) == {"untagged"}  # its tags learnt nothing
    before, after = (result[k]["untagged"]["misalignment"]["value"] for k in ("before", "after"))
    assert before > 0.1 and after < before / 4
    sampler, plain = open_sampler(str(cut.path)), run(corpus, tmp_path / "mle", objective="mle", tokens=2 * 64)
    assert sampler.control.routed == 0
    assert {n: p.shape for n, p in sampler.engine.model.named_parameters()} == {
        n: p.shape for n, p in load(str(plain.path)).model.named_parameters()}
    steer(sampler, str(cut.path), "untagged")
    with pytest.raises(UserError, match="no block of neurons"):
        surgery(SurgerySettings(model=str(cut.path), out=str(tmp_path / "again"), **settings))


@pytest.mark.slow
def test_a_checkpoint_gets_a_block_once(corpus, tmp_path):
    small = {"tokens": 2 * 64 * 2, "checkpoint_seconds": 0.0}
    first = run(corpus, tmp_path / "a", objective="mle", **small)
    second = run(corpus, tmp_path / "b", model=str(first.path), routed=8, **small)
    assert Control.read(second.path / "model").routed == 8
    third = run(corpus, tmp_path / "c", model=str(second.path), routed=8, **small)
    assert load(str(third.path)).model.config.intermediate_size == load(str(first.path)).model.config.intermediate_size + 8
    with pytest.raises(UserError, match=r"block of 8 neurons, and --routed says 64"):
        run(corpus, tmp_path / "d", model=str(third.path), **small)
    with pytest.raises(UserError, match="--shard out"):
        run(corpus, tmp_path / "e", shard=True)
