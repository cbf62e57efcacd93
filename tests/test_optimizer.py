"""AdamW with moments in 8 bits: the same optimum, a quarter of the state, and exact resuming. Skipped without bitsandbytes."""

import importlib.util

import pytest
import torch

pytest.importorskip("transformers")

from harken.core.errors import UserError
from harken.engines.optimizer import make_optimizer
from harken.launch.plan import plan_of
from harken.methods import sft
from trials import assert_resumes_exactly

here = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
KEPT = ("state", "absma", "exp_a")
"""How the moments' names begin: of 8 bits, their scales, and PyTorch's."""


@here
def test_eight_bits_follow_float32_and_keep_a_quarter():
    """Least squares over 8,192 numbers: both end within 1 % of the planted weights' loss at the start, and near each other."""
    planted, ends = torch.randn(8192, generator=torch.Generator().manual_seed(0)), {}
    for kind in ("adamw", "adamw8bit"):
        weight = torch.nn.Parameter(torch.zeros(8192))
        optimizer = make_optimizer(kind, [weight], 0.0, False)
        optimizer.param_groups[0]["lr"] = 0.1
        for _ in range(60):
            weight.grad = weight.detach() - planted
            optimizer.step()
        size = sum(t.numel() * t.element_size() for n, t in optimizer.state[weight].items() if n[:5] in KEPT)
        ends[kind] = (float((weight.detach() - planted).square().mean()), size)
    assert all(loss < 0.01 for loss, _ in ends.values())
    assert ends["adamw"][1] == 8 * 8192 and ends["adamw8bit"][1] == pytest.approx((2 + 8 / 256) * 8192)


@here
def test_a_killed_run_with_moments_in_eight_bits_ends_with_the_same_weights(files, tmp_path):
    """All weights of the toy model: its larger tensors have moments in 8 bits."""
    assert_resumes_exactly("sft", files, tmp_path, lora_rank=0, optimizer="adamw8bit")


def test_what_it_cannot_is_refused(monkeypatch):
    with pytest.raises(UserError, match="--shard splits tensors"):
        make_optimizer("adamw8bit", [], 0.0, True)
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.optim", None)
    with pytest.raises(UserError, match="needs bitsandbytes, which is not installed"):
        make_optimizer("adamw8bit", [], 0.0, False)


def test_the_plan_counts_two_bytes_a_trained_number():
    def moments(kind):
        plan = plan_of(sft, sft.Config(model="smollm2", lora_rank=0, optimizer=kind), cpu=True, advise=False)
        return next(part.bytes for part in plan.parts if part.name.startswith("optimiser"))
    assert moments("adamw8bit") / moments("adamw") == pytest.approx((2 + 8 / 256) / 8)
