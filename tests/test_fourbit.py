"""A base in 4 bits under adapters: what it computes is what its numbers say, learnt, saved, resumed and loaded again."""

import importlib.util
import sys

import pytest
import torch

pytest.importorskip("transformers")

from harken.core.errors import UserError
from harken.engines import fourbit
from harken.engines.fourbit import FourBit
from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.engines.sampler import HFSampler
from harken.launch.plan import plan_of
from harken.methods import sft
from test_recompute import DATA, TREES, loaded, nll
from trials import assert_resumes_exactly

here = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
OPTIONS = {"lora_rank": 4, "dtype": "bfloat16", "seed": 1}


def rounded_base():
    base = loaded()
    fourbit.rounded(base.model)
    return base


def learnt(engine):
    loss = engine.forward_backward(DATA, nll)["loss"]
    return loss, torch.cat([p.grad.flatten() for p in engine.trainable.values()])


@here
def test_it_computes_and_learns_as_a_base_of_its_numbers():
    """Beside a bfloat16 base whose weights are the dequantised ones: loss, gradients and what is kept of the weights."""
    packed, plain = Engine(loaded(), quantize="nf4", **OPTIONS), Engine(rounded_base(), **OPTIONS)
    layers = [m for m in packed.model.modules() if isinstance(m, FourBit)]
    weights = sum(m.in_features * m.out_features for m in layers)
    assert len(layers) == 7 * packed.model.config.num_hidden_layers
    assert sum(m.packed.numel() for m in layers) == weights / 2
    (loss, gradient), (same, wanted) = learnt(packed), learnt(plain)
    assert loss == pytest.approx(same, rel=2e-3)
    assert float((gradient - wanted).norm() / wanted.norm()) < 0.02
    assert abs(learnt(Engine(loaded(), **OPTIONS))[0] - loss) > 1e-3 * loss  # 4 bits are not 16


@here
def test_layers_computed_anew_give_the_same_bits_and_sampler_and_trainer_agree():
    kept, anew = (Engine(loaded(), quantize="nf4", recompute_layers=on, **OPTIONS) for on in (False, True))
    (loss, gradient), (same, again) = learnt(kept), learnt(anew)
    assert loss == same and torch.equal(gradient, again)
    samples = HFSampler(kept).sample_ids([TREES[0].prompt], 4, max_tokens=6, seed=2)[0]
    trainer = kept.logprobs([TREES[0].__class__(TREES[0].prompt, tuple(s.ids for s in samples))])[0]
    gap = torch.cat([(torch.tensor(s.logps) - x).abs() for s, x in zip(samples, trainer)])
    assert float(gap.mean()) < 0.1


@here
def test_a_run_resumes_exactly_and_loads_as_what_was_trained(files, tmp_path):
    assert_resumes_exactly("sft", files, tmp_path, dtype="bfloat16", quantize="nf4", learning_rate=1e-2)
    run_ = load(str(tmp_path / "whole"))
    base = load("toy")
    fourbit.rounded(base.model)
    trained = Engine(base, train=False).under(tmp_path / "whole" / "model", {}, "it")
    mine, wanted = (torch.cat(e.logprobs(TREES)[0]) for e in (Engine(run_, train=False), trained))
    assert torch.allclose(mine, wanted, atol=1e-4)
    plain = torch.cat(Engine(load("toy"), train=False).under(tmp_path / "whole" / "model", {}, "it").logprobs(TREES)[0])
    assert float((plain - wanted).abs().max()) > 1e-3


def test_what_it_cannot_is_refused(monkeypatch):
    for options, words in (({"lora_rank": 0, "dtype": "bfloat16"}, "adapters alone"), ({"lora_rank": 4}, "in bfloat16")):
        with pytest.raises(UserError, match=words):
            Engine(loaded(), quantize="nf4", **options)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(UserError, match="bitsandbytes, which is not installed"):
        Engine(loaded(), quantize="nf4", **OPTIONS)


def test_the_plan_counts_half_a_byte_a_weight():
    def weights(quantize):
        plan = plan_of(sft, sft.Config(model="llama-8b", dtype="bfloat16", quantize=quantize), cpu=False, advise=False)
        return next(part.bytes for part in plan.parts if part.name == "weights")
    # Llama 3.1 8B: 32 layers of 218.1 million matrix weights, two tables of 525.3 million
    assert weights("none") - weights("nf4") == pytest.approx(32 * 218_103_808 * (2 - 0.5158691), rel=1e-6)
