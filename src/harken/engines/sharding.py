"""Layers split over the processes: each keeps its part of every weight, gradient and optimiser moment (FSDP2).

A layer's weights are gathered just before it computes and let go after; its gradients are summed and each process keeps
its part (ZeRO stage 3, 1910.02054; `torch.distributed.fsdp.fully_shard`). Split are the transformer's layers, along each weight's
first dimension; embeddings, the last norm and heads stay whole on every process: the loss reads them outside any layer.
Gathering takes all processes, so all must make the same number of passes: who has less to do makes `idle` ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard

from harken.core import processes
from harken.engines.form import body_of
from harken.engines.recompute import layers_of


def shard(model: Any, device: torch.device) -> list[FSDPModule]:
    """Splits `model`'s layers in place and returns them. Their gradients become sums over the processes (P7)."""
    layers = layers_of(model, "--shard")
    mesh = init_device_mesh(device.type, (processes.group().size,))
    inside = {p for layer in layers for p in layer.parameters()}
    for layer in layers:
        fully_shard(layer, mesh=mesh)
        layer.set_gradient_divide_factor(1.0)
        layer.set_force_sum_reduction_for_comms(True)  # gloo has no other
    fully_shard(body_of(model), mesh=mesh, ignored_params=set(model.parameters()) - inside)
    return layers


@contextmanager
def gathered(layers: list[FSDPModule]) -> Iterator[None]:
    """The layers whole on every process, for passes that the processes make each at its own pace (sampling)."""
    for layer in layers:
        layer.unshard()
        layer.set_reshard_after_forward(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_reshard_after_forward(True)
            layer.reshard()


def is_split(tensor: Tensor) -> bool:
    return isinstance(tensor, DTensor)


def own_part(tensor: Tensor) -> Tensor:
    """What this process keeps of a parameter: the same memory; a parameter that is not split, as it is."""
    return cast(DTensor, tensor.detach()).to_local() if isinstance(tensor, DTensor) else tensor


def cut(whole: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor that is split as `like` is."""
    if not isinstance(like, DTensor):
        return whole
    group = processes.group()
    parts = whole.chunk(group.size)
    return (parts[group.rank] if group.rank < len(parts) else whole[:0]).clone()  # a view would hold the whole


def joined_parts(parts: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole tensors, on the first process alone; every process must call it. `like` are the parameters by the same names."""
    joined = {}
    for name, part in parts.items():
        model = like[name]
        if isinstance(model, DTensor):
            split = DTensor.from_local(part, model.device_mesh, [Shard(0)], run_check=False, shape=model.shape,
                                       stride=model.stride())
            part = split.full_tensor()
        if processes.group().rank == 0:
            joined[name] = part.cpu() if isinstance(model, DTensor) else part
    return joined


def take_gradients(parts: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
    """Gives the parts the gradients of their parameters."""
    for name, parameter in like.items():
        if isinstance(parameter.grad, DTensor):
            parts[name].grad, parameter.grad = parameter.grad.to_local(), None


def gradient_norm(parts: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Tensor:
    """The Euclidean norm of the whole gradient, the same number on every process."""
    whole = [p.grad for n, p in parts.items() if p.grad is not None and not is_split(like[n])]
    split = [p.grad for n, p in parts.items() if p.grad is not None and is_split(like[n])]
    norm = nn.utils.get_total_norm(whole)
    if not any(map(is_split, like.values())):
        return norm
    device = next(iter(parts.values())).device
    square = nn.utils.get_total_norm(split).to(device) ** 2 if split else torch.zeros((), device=device)
    processes.group().add(square)
    return (square + norm.to(device) ** 2).sqrt()


def joined_optimizer(optimizer: torch.optim.Optimizer, like: Mapping[str, Tensor]) -> dict[str, Any]:
    """`optimizer.state_dict()` as one process would have it, on the first process alone."""
    return _optimizer(optimizer.state_dict(), like, lambda part, model: joined_parts({"": part}, {"": model}).get("", part))


def cut_optimizer(state: dict[str, Any], like: Mapping[str, Tensor]) -> dict[str, Any]:
    """The part of a whole `state_dict` that this process's optimiser loads."""
    return _optimizer(state, like, cut)


def _optimizer(state: dict[str, Any], like: Mapping[str, Tensor], change: Any) -> dict[str, Any]:
    """Changes the moments; the count of steps is a single number. States are numbered in the order of the parameters."""
    names = list(like)
    moments = {i: {key: value if key == "step" else change(value, like[names[i]]) for key, value in slots.items()}
               for i, slots in state["state"].items()}
    return {**state, "state": moments}
