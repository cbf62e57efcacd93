"""A block of neurons in every layer's MLP that can be put in, learn apart from the rest, and be taken out (gradient routing).

    widen(model, 32, seed=0)          # 32 neurons more a layer; the model says what it said
    block(name, gradient, 32)         # what of a parameter's gradient is the block's
    narrow(model, 32)                 # takes them out: weights are gone, and the model is smaller

How it learns apart is loops/routing.py. "Expand" and "ablate" of Cloud et al. 2410.04332, for models built like Llama (gate_proj,
up_proj, down_proj) and GPT-2. Shape suffixes: I neurons of an MLP, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harken.core.errors import UserError
from harken.core.seeds import derive_seed
from harken.engines.form import body_of

LLAMA = {"gate_proj.weight": 0, "gate_proj.bias": 0, "up_proj.weight": 0, "up_proj.bias": 0, "down_proj.weight": 1}
GPT2 = {"c_fc.weight": 1, "c_fc.bias": 0, "c_proj.weight": 0}
"""A parameter of an MLP -> the dimension that counts its neurons. GPT-2's matrices are [in, out]."""
WRITERS = ("down_proj.weight", "c_proj.weight")


def _mlps(model: Any) -> list[tuple[Any, dict[str, int]]]:
    """Every layer's MLP with its dimensions. Raises `UserError` for another kind of model."""
    body = body_of(model)
    found = []
    for layer in body.layers if hasattr(body, "layers") else getattr(body, "h", ()):
        mlp = getattr(layer, "mlp", None)
        names = {n for n, _ in mlp.named_parameters()} if mlp is not None else set()
        axes = next((a for a in (LLAMA, GPT2) if names <= {*a, "down_proj.bias", "c_proj.bias"}
                     and {n for n in a if n.endswith("weight")} <= names), None)
        if axes is None or mlp is None or (axes is GPT2 and type(mlp.c_fc).__name__ != "Conv1D"):
            raise UserError(f"A {model.config.model_type} has no MLP of the known kinds to route gradients into.",
                            "Use a model built like Llama or GPT-2.")
        found.append((mlp, axes))
    return found


def _size(model: Any) -> int:
    """I, alike in every layer."""
    config = model.config
    return int(config.intermediate_size if hasattr(config, "intermediate_size") else config.n_inner or 4 * config.n_embd)


def _resize(model: Any, change: int) -> None:
    size = _size(model) + change
    setattr(model.config, "intermediate_size" if hasattr(model.config, "intermediate_size") else "n_inner", size)
    for mlp, _ in _mlps(model):
        for module in mlp.children():
            for name in ("in_features", "out_features", "nf", "nx"):
                if getattr(module, name, None) == size - change:
                    setattr(module, name, size)
        if hasattr(mlp, "intermediate_size"):
            mlp.intermediate_size = size


@torch.no_grad()
def widen(model: Any, count: int, seed: int) -> None:
    """Adds `count` neurons to every MLP: what they read is drawn as large as the others' weights, what they write begins at 0,
    so that the model gives what it gave. In place."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "routed"))
    for mlp, axes in _mlps(model):
        for name, dim in axes.items():
            module, kind = getattr(mlp, name.split(".")[0]), name.split(".")[1]
            if (old := getattr(module, kind, None)) is None:
                continue
            shape = [count if d == dim else n for d, n in enumerate(old.shape)]
            new = torch.zeros(shape)
            if kind == "weight" and name not in WRITERS:
                new = float(old.float().std()) * torch.randn(shape, generator=generator)
            setattr(module, kind, nn.Parameter(torch.cat([old, new.to(old)], dim), old.requires_grad))
    _resize(model, count)


@torch.no_grad()
def narrow(model: Any, count: int) -> None:
    """Takes the last `count` neurons out of every MLP. In place."""
    keep = _size(model) - count
    for mlp, axes in _mlps(model):
        for name, dim in axes.items():
            module, kind = getattr(mlp, name.split(".")[0]), name.split(".")[1]
            if (old := getattr(module, kind, None)) is not None:
                setattr(module, kind, nn.Parameter(old.narrow(dim, 0, keep).contiguous(), old.requires_grad))
    _resize(model, -count)


def writer(name: str) -> bool:
    """Whether a parameter holds what an MLP's neurons write."""
    return name.endswith(WRITERS)


def block(name: str, tensor: Tensor, count: int) -> Tensor | None:
    """The block's part of a parameter or of its gradient, a view; None where the parameter has none."""
    for axes in (LLAMA, GPT2):
        for end, dim in axes.items():
            if name.endswith(f".mlp.{end}"):
                return tensor.narrow(dim, tensor.shape[dim] - count, count)
    return None
