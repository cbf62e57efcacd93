"""The decoder computes what the model's modules compute."""

import pytest

pytest.importorskip("torch")
import torch

from harken.engines.attention import NAME
from harken.engines.decoder import Decoder
from harken.engines.hf import Engine
from harken.engines.pretrained import Loaded
from harken.engines.sampler import HFSampler
from harken.engines.toy import toy_model, toy_tokenizer
from harken.text.template import Template

PROMPTS = [(2, 20, 21), (2, 30, 31, 32, 33, 34, 35), (2, 40)]


def model(kind):
    from transformers import MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM
    size = {"vocab_size": 80, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 3, "eos_token_id": 3}
    torch.manual_seed(0)
    if kind == "qwen2":  # biases on queries, keys and values
        found = Qwen2ForCausalLM(Qwen2Config(**size))
        for name, parameter in found.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter)
        return found
    return MistralForCausalLM(MistralConfig(**size, sliding_window=4)) if kind == "mistral" else toy_model()


def engine(kind, rank, dtype="float32", scale=0.3):
    found = model(kind)
    found.set_attn_implementation(NAME)
    made = Engine(Loaded(found.eval(), Template(toy_tokenizer()), {}), lora_rank=rank, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in made.trainable.items():
        if "lora_B" in name:  # at the start B is zero, and an adapter left out would not be seen
            parameter.data.normal_(0, scale, generator=generator)
    return made


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral"])
def test_p4_the_decoder_is_the_modules(monkeypatch, kind, rank):
    made = engine(kind, rank)
    assert Decoder.of(made) is not None
    ours = HFSampler(made).sample_ids(PROMPTS, 3, max_tokens=12, seed=5)
    monkeypatch.setattr(Decoder, "of", classmethod(lambda cls, engine: None))
    theirs = HFSampler(made).sample_ids(PROMPTS, 3, max_tokens=12, seed=5)
    for a, b in zip((s for g in ours for s in g), (s for g in theirs for s in g)):
        assert a.ids == b.ids
        assert max(abs(x - y) for x, y in zip(a.logps, b.logps)) < 1e-5


@pytest.mark.parametrize("rank", [0, 4])
def test_in_bfloat16_it_differs_by_rounding_only(monkeypatch, rank):
    made = engine("llama", rank, "bfloat16", scale=0.05)
    ours = HFSampler(made).sample_ids(PROMPTS, 8, max_tokens=2, seed=5)
    monkeypatch.setattr(Decoder, "of", classmethod(lambda cls, engine: None))
    theirs = HFSampler(made).sample_ids(PROMPTS, 8, max_tokens=2, seed=5)
    pairs = [(a, b) for g, h in zip(ours, theirs) for a, b in zip(g, h) if a.ids == b.ids]
    assert len(pairs) > 12
    assert max(abs(x - y) for a, b in pairs for x, y in zip(a.logps, b.logps)) < 0.05


def test_without_its_adapters_it_is_the_base(monkeypatch):
    made = engine("llama", 4)
    with made.adapters_off():
        base = HFSampler(made).sample_ids(PROMPTS, 1, max_tokens=8, temperature=0)
        monkeypatch.setattr(Decoder, "of", classmethod(lambda cls, engine: None))
        assert HFSampler(made).sample_ids(PROMPTS, 1, max_tokens=8, temperature=0) == [
            [type(s)(s.ids, s.text, s.logps, pytest.approx(s.model_logps, abs=1e-5), s.finished) for s in g] for g in base]


def test_another_architecture_has_none():
    found = toy_model("gpt2")
    found.set_attn_implementation(NAME)
    assert Decoder.of(Engine(Loaded(found.eval(), Template(toy_tokenizer()), {}))) is None
