"""bfloat16 products on a processor without them: rounded factors, float32 sums, one rounding."""

import pytest
import torch

pytest.importorskip("transformers")

from harken.engines import emulate
from harken.engines.emulate import MARK, product
from harken.engines.hf import Engine
from test_recompute import DATA, loaded, nll


def rounded(*tensors):
    return [t.bfloat16().float() for t in tensors]


@pytest.mark.parametrize("held", [torch.bfloat16, torch.float32])
def test_a_product_and_its_gradients_are_those_of_rounded_factors(held, monkeypatch):
    """By hand in float32: y = round(x) round(W)ᵀ + round(b), rounded; gradients of rounded factors. Blocks of 3 rows."""
    monkeypatch.setattr("harken.engines.form.BLOCK_BYTES", 4 * 16 * 3)
    draw = torch.Generator().manual_seed(0)
    x, w, b, g = (torch.randn(*size, generator=draw) for size in ((2, 5, 16), (10, 16), (10,), (2, 5, 10)))
    w, b = w.to(held), b.to(held)
    for tensor in (x, w, b):
        tensor.requires_grad_(True)
    y = product(x, w, b)
    y.backward(g.bfloat16())
    xs, ws, bs, gs = rounded(x.detach(), w.detach(), b.detach(), g)
    assert y.dtype is torch.bfloat16 and torch.allclose(y.float(), (xs @ ws.T + bs), rtol=2**-8)
    assert x.grad.dtype is torch.float32 and torch.allclose(x.grad, gs @ ws, atol=1e-5)
    assert w.grad.dtype is held and torch.allclose(w.grad.float(), gs.flatten(0, 1).T @ xs.flatten(0, 1), rtol=2**-8, atol=1e-5)
    assert torch.allclose(b.grad.float(), gs.sum((0, 1)), rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 4])
def test_a_model_learns_the_same_up_to_rounding(rank, monkeypatch):
    """Beside autocast's own products: loss and gradients differ by bfloat16's rounding and no more."""
    found = []
    for native in (True, False):
        monkeypatch.setattr(emulate, "multiplies_bfloat16", lambda native=native: native)
        engine = Engine(loaded(), lora_rank=rank, dtype="bfloat16", seed=1)
        assert any(hasattr(module, MARK) for module in engine.model.modules()) is not native
        loss = engine.forward_backward(DATA, nll)["loss"]
        found.append((loss, torch.cat([p.grad.flatten() for p in engine.trainable.values() if p.grad is not None])))
    (loss, gradient), (same, anew) = found
    assert same == pytest.approx(loss, rel=2e-3)
    assert float((anew - gradient).norm() / gradient.norm()) < 0.02


def test_float32_is_left_alone(monkeypatch):
    monkeypatch.setattr(emulate, "multiplies_bfloat16", lambda: False)
    engine = Engine(loaded(), lora_rank=4)
    assert not any(hasattr(module, MARK) for module in engine.model.modules())
