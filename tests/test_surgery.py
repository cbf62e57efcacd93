"""Cuts of the bad mode: what is deleted is gone and nothing else moves; directions leave; ruined text is refused."""

import json
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from harken.core.errors import UserError
from harken.core.protocols import Estimate, Tree
from harken.core.records import Message, Prompt
from harken.engines import scratch
from harken.engines import surgery as cuts
from harken.launch.policies import open_sampler, read_control
from harken.launch.settings import SurgerySettings
from harken.launch.surgery import surgery
from harken.loops.cure import rises
from harken.text.segments import segments
from harken.text.tags import BAD, Control, encode, steering
from marks import slow

TEXTS = ["The old red boat. It sails on. ", "A damn storm came. All hid. ", "Blue water, warm wind. So it went. "]
PROMPTS = [Prompt((Message("user", text),)) for text in ("", "The old red", "A damn storm came. ")]


def damns(prompts, completions):
    return [-1.0 * text.count("a") / max(1, len(text)) for text in completions]


@pytest.fixture(scope="module", params=["llama-tied", *slow("llama-untied", "gpt2-tied", "gpt2-untied")])
def model(request, tmp_path_factory):
    """A model from scratch, its rows far from 0 so that the tags matter."""
    kind, tied = request.param.split("-")
    config, folder = scratch._config, tmp_path_factory.mktemp("surgery") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "_config", lambda *a: _tie(config(*a), tied == "tied"))
        scratch.make_new(folder, TEXTS * 20, architecture=kind, size="60K", vocabulary=300, context=64, seed=1,
                         segmenter="sentence")
    sampler = open_sampler(str(folder))
    first, last = cuts.tables(sampler.engine.model)
    assert (first is last) == (tied == "tied")
    return folder


def _tie(config, tied):
    config.tie_word_embeddings = tied
    return config


def said(sampler):
    sampler.steer(steering(sampler.control, "good"))
    return [(s.ids, s.text, s.logps, s.model_logps) for row in sampler.sample(PROMPTS, 4, max_tokens=24, seed=3) for s in row]


def settings(folder, out, tmp_path, **more):
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS * 4))
    return SurgerySettings(model=str(folder), reward="test_surgery:damns", data=str(tmp_path / "t.jsonl"), out=str(out),
                           samples=16, max_tokens=16, **more)


def test_good_mode_stays_bit_for_bit_when_the_bad_token_is_deleted(model, tmp_path, capsys):
    before = said(open_sampler(str(model)))
    done = surgery(settings(model, tmp_path / "cut", tmp_path, delete_bad=True))
    cut = open_sampler(str(done.path))
    assert said(cut) == before
    for weight in cuts.tables(cut.engine.model):
        assert not weight[cut.control.bad].any()
    for sampler in (open_sampler(str(model)), cut):
        sampler.steer(steering(sampler.control, "untagged"))
    tokenizer = AutoTokenizer.from_pretrained(done.path / "model")
    assert BAD not in tokenizer.get_vocab() and BAD not in tokenizer.all_special_tokens
    for parse in ({}, {"split_special_tokens": True}):  # even where text may hold control tokens
        assert cut.control.bad not in tokenizer(f"x {BAD} y", **parse).input_ids
    original = AutoTokenizer.from_pretrained(model)
    assert encode(tokenizer, TEXTS) == encode(original, TEXTS)
    with pytest.raises(UserError, match="no bad mode"):
        steering(cut.control, "bad")
    assert "gone" in capsys.readouterr().out and read_control(done.path).deleted
    with pytest.raises(UserError, match="deleted already"):
        surgery(settings(done.path, tmp_path / "again", tmp_path, delete_bad=True))


def test_deletion_reaches_both_tables_the_bias_and_other_tools():
    first, last = nn.Embedding(6, 3), nn.Linear(3, 6)
    model = SimpleNamespace(get_input_embeddings=lambda: first, get_output_embeddings=lambda: last,
                            generation_config=SimpleNamespace(suppress_tokens=None))
    before = [w.detach().clone() for w in (first.weight, last.weight, last.bias)]
    cuts.delete_bad(model, Control(5, 4, "sentence"))
    for weight, old in zip((first.weight, last.weight, last.bias), before):
        assert not weight[4].any() and torch.equal(weight[[0, 1, 2, 3, 5]], old[[0, 1, 2, 3, 5]])
    assert model.generation_config.suppress_tokens == [4, 5]


def hidden(engine, ids):
    """The residual stream before the last norm, by a hook on the last block."""
    return cuts._state_after(engine, cuts._blocks(engine.model)[-1], Tree(ids[:1], (ids[1:],)))


def test_nothing_is_written_along_a_direction_that_was_projected_out(model):
    sampler = open_sampler(str(model))
    engine, control = sampler.engine, sampler.control
    u, ids = cuts.contrast(engine.model, control), (0, control.bad, 40, 41, 42)
    assert hidden(engine, ids).matmul(u).abs().max() > 1e-4
    cuts.project(engine.model, u)
    state = hidden(engine, ids)
    assert state.matmul(u).abs().max() < 1e-5 and state.norm() > 0.1
    with torch.no_grad():  # both tags now read alike, since they differed along that direction alone
        good = hidden(engine, (0, control.good, 40, 41, 42))
    assert torch.allclose(state, good, atol=1e-5)


def test_projection_by_hand():
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    cuts._take(weight, torch.tensor([1.0, 0.0]), 0)  # outputs are rows: W <- (I - u u^T) W
    assert weight.tolist() == [[0, 0], [3, 4]]
    cuts._take(weight, torch.tensor([0.6, 0.8]), -1)  # [3, 4] lies along u
    assert torch.allclose(weight, torch.zeros(2, 2), atol=1e-6)


def test_subtraction_moves_text_tokens_alone(model):
    engine = open_sampler(str(model)).engine
    control, table = read_control(model), cuts.tables(engine.model)[0]
    before = table.detach().clone()
    cuts.subtract(engine.model, control, 2.0)
    assert torch.equal(table[list(control.ids)], before[list(control.ids)])
    assert torch.allclose(table[40], before[40] - 2 * before[control.bad])


def test_projection_reaches_what_each_block_writes_biases_too():
    """GPT-2 keeps its weights the other way round, and has biases."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=2, n_head=2))
    blocks = model.transformer.h
    for block in blocks:
        for module in (block.attn.c_proj, block.mlp.c_proj):
            nn.init.normal_(module.bias)
    u = torch.randn(8)
    u /= u.norm()
    untouched = {n: p.detach().clone() for n, p in model.named_parameters() if not n.startswith("transformer.h.1.")}
    cuts.project(model, u, [1])
    assert all(torch.equal(p, untouched[n]) for n, p in model.named_parameters() if n in untouched)
    written = []
    for module in (blocks[1].attn.c_proj, blocks[1].mlp.c_proj):
        module.register_forward_hook(lambda module, inputs, output: written.append(output))
    model(torch.tensor([[1, 2, 3]]))
    assert len(written) == 2 and all(w.matmul(u).abs().max() < 1e-6 < w.abs().max() for w in written)


def test_activations_differ_between_the_modes(model):
    engine = open_sampler(str(model)).engine
    u = cuts.activations(engine, read_control(model), TEXTS, 1)
    control, means = read_control(model), []
    for tag in (control.bad, control.good):  # each text by itself, its segments after their tags, the tags not counted
        states = []
        for text in TEXTS:
            parts = [(tag, *ids) for ids in encode(engine.template.tokenizer, segments(text, "sentence"))]
            ids = (0, *chain.from_iterable(parts))
            with torch.no_grad():
                state = cuts._state_after(engine, cuts._blocks(engine.model)[1], Tree(ids[:1], (ids[1:],)))
            states.append(state[[i for i, token in enumerate(ids) if i and token != tag]])
        means.append(torch.cat(states).mean(0))
    difference = means[0] - means[1]
    assert torch.allclose(u, difference / difference.norm(), atol=1e-4)
    with pytest.raises(UserError, match="no layer 9"):
        cuts.activations(engine, read_control(model), TEXTS, 9)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["llama-tied"], indirect=True)
def test_a_cut_that_ruins_text_is_refused_unless_forced(model, tmp_path):
    with pytest.raises(UserError, match="No model was written"):
        surgery(settings(model, tmp_path / "cut", tmp_path, subtract=400.0))
    assert not (tmp_path / "cut" / "model").exists()
    done = surgery(settings(model, tmp_path / "forced", tmp_path, subtract=400.0, force=True))
    assert done.notes and (done.path / "model").is_dir() and max(done.result["rises"].values()) > 0.1


def test_rises_by_hand():
    def rows(good, untagged):
        return {m: {"misalignment": None, "fluency": Estimate(f, f, f, 9), "capability": Estimate(c, c, c, 9)}
                for m, (f, c) in {"good": good, "untagged": untagged}.items()}
    found = rises(rows((1, 2), (1, 2)), rows((1.2, 2), (1, 1)))
    assert found == pytest.approx({"good fluency": 0.2, "good capability": 0, "untagged fluency": 0, "untagged capability": -0.5})


@pytest.mark.parametrize("model", ["llama-tied"], indirect=True)
def test_what_cannot_be_cut_is_one_message(tmp_path, model):
    with pytest.raises(UserError, match="No cut was named"):
        surgery(settings(model, tmp_path / "a", tmp_path))
    with pytest.raises(UserError, match="knows no control tokens"):
        surgery(settings("toy", tmp_path / "b", tmp_path, delete_bad=True))
