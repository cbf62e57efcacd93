"""A model split over the processes: each keeps its part of every weight, gradient and optimiser moment (FSDP2).

A layer's weights are gathered just before it computes and let go after; its gradients are summed and each process keeps
its part (ZeRO stage 3, 1910.02054; `torch.distributed.fsdp.fully_shard`). Split are the transformer's layers, and the tables at
both ends, along each weight's first dimension. The ends are gathered here and not by FSDP, for the loss reads the last layer
outside any module, and both may be one weight; frozen ones a piece at a time (gathers.py). So are, on a CPU, where FSDP would
overlap nothing, the frozen matrices of layers, one by one. The last norm, heads and new adapters stay whole on every process.
Gathering takes all processes, so all must make the same number of passes: who has less to do makes `idle` ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from harken.core import processes
from harken.engines.form import body_of, float_product
from harken.engines.gathers import FLOAT32, HELD, is_split, one_at_a_time, product, rows_of, whole
from harken.engines.recompute import layers_of

ONCE = {"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"}
"""Layers that use each of their matrices once a pass, whatever the text: an expert that one text leaves out would wait."""


def shard(model: Any, device: torch.device, *, compute: torch.dtype = torch.float32,
          ends: Callable[[nn.Parameter], Tensor] | None = None) -> tuple[list[FSDPModule], list[nn.Parameter]]:
    """Splits `model` in place; its layers, and the weights that are gathered here: the tables at its ends, and on a CPU the
    frozen matrices of layers. Gradients become sums over the processes (P7).

    `ends` brings this process's part of one of these that is not loaded yet. Weights trained in float32 that compute in bfloat16
    are gathered in bfloat16."""
    layers = layers_of(model, "--shard")
    mesh = init_device_mesh(device.type, (processes.group().size,))
    part_of = ends or (lambda weight: cut_rows(weight.detach()))
    tables = _split_ends(model, mesh, part_of)
    matrices = _split_matrices(layers, mesh, part_of) if device.type == "cpu" else []
    inside = {p for layer in layers for p in layer.parameters()} - set(matrices)
    low = compute is not torch.float32 and any(p.requires_grad for p in inside)
    policy = MixedPrecisionPolicy(compute, torch.float32, cast_forward_inputs=False) if low else MixedPrecisionPolicy()
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy, ignored_params=set(matrices))
        layer.set_gradient_divide_factor(1.0)
        layer.set_force_sum_reduction_for_comms(True)  # gloo has no other
    fully_shard(body_of(model), mesh=mesh, ignored_params=set(model.parameters()) - inside)
    return layers, [*tables, *matrices]


def _split_ends(model: Any, mesh: Any, part_of: Callable[[nn.Parameter], Tensor]) -> list[nn.Parameter]:
    """The first and the last layer's tables, one where they are one, where these are torch's own modules."""
    tables: dict[int, nn.Parameter] = {}
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        if type(module) not in (nn.Embedding, nn.Linear):
            continue
        weight = module.weight
        if id(weight) not in tables:
            tables[id(weight)] = _parameter(weight, mesh, part_of)
        module.weight = tables[id(weight)]
        module.forward = _gathering(module)
    return list(tables.values())


def _split_matrices(layers: Sequence[Any], mesh: Any, part_of: Callable[[nn.Parameter], Tensor]) -> list[nn.Parameter]:
    """The frozen matrices of layers that use each once, in the same order on every process."""
    found = []
    known = [layer for layer in layers if not ONCE.isdisjoint(cls.__name__ for cls in type(layer).__mro__)]
    for module in (module for layer in known for module in layer.modules()):
        if type(module) is nn.Linear and not module.weight.requires_grad:
            module.weight = _parameter(module.weight, mesh, part_of)
            one_at_a_time(module)
            found.append(module.weight)
    return found


def _parameter(weight: Any, mesh: Any, part_of: Callable[[nn.Parameter], Tensor]) -> nn.Parameter:
    """The split parameter that takes a whole one's place."""
    split = DTensor.from_local(part_of(weight), mesh, [Shard(0)], run_check=False, shape=weight.shape, stride=weight.stride())
    return nn.Parameter(split, requires_grad=weight.requires_grad)


def _gathering(module: Any) -> Callable[[Tensor], Tensor]:
    def run(read: Tensor) -> Tensor:
        frozen = not module.weight.requires_grad
        if isinstance(module, nn.Embedding):
            state = rows_of(module.weight, read) if frozen else F.embedding(read, whole(module.weight), module.padding_idx)
            return state.float() if FLOAT32.get() else state
        if frozen and not (torch.is_grad_enabled() and read.requires_grad):
            return product(read, module.weight, module.bias)
        return float_product(read, whole(module.weight), module.bias)
    return run


@contextmanager
def gathered(layers: Sequence[FSDPModule], ends: Sequence[nn.Parameter]) -> Iterator[None]:
    """The model whole on every process, for passes that the processes make each at its own pace (sampling)."""
    with torch.no_grad():
        tables = [whole(table) for table in ends]
    for table, value in zip(ends, tables):
        setattr(table, HELD, value)
    for layer in layers:
        layer.unshard()
        layer.set_reshard_after_forward(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_reshard_after_forward(True)
            layer.reshard()
        for table in ends:
            delattr(table, HELD)


def as_split(part: Tensor, like: Tensor) -> Tensor:
    """This process's rows as the split tensor that `like` is."""
    assert isinstance(like, DTensor)
    return DTensor.from_local(part, like.device_mesh, [Shard(0)], run_check=False, shape=like.shape, stride=like.stride())


def cut(whole: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor that is split as `like` is."""
    return cut_rows(whole) if isinstance(like, DTensor) else whole


def cut_rows(whole: Tensor) -> Tensor:
    """This process's rows of a whole tensor."""
    group = processes.group()
    parts = whole.chunk(group.size)
    return (parts[group.rank] if group.rank < len(parts) else whole[:0]).clone()  # a view would hold the whole


def joined_parts(parts: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole tensors, on the first process alone; every process must call it. `like` are the parameters by the same names."""
    joined = {}
    for name, part in parts.items():
        model = like[name]
        if isinstance(model, DTensor):
            part = cast(DTensor, as_split(part, model)).full_tensor()
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
