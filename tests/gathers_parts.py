"""One of two processes that compute with split weights; what differs from the whole, for tests/test_gathers.py."""

import json

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from harken.core import processes
from harken.engines import emulate, form, gathers, logprobs, sharding
from harken.engines.distributed import joined

V, D = 7, 5
SHAPES = {"plain": {}, "warm": {"temperature": 0.7, "scale": 1.3}, "capped": {"cap": 2.0, "temperature": 1.5}}


def split(weight, mesh):
    part = DTensor.from_local(sharding.cut_rows(weight), mesh, [Shard(0)], run_check=False, shape=weight.shape,
                              stride=weight.stride())
    return nn.Parameter(part, requires_grad=False)


def learnt(weight, bias, targets, **options):
    """(log-probs, entropy, gradient of the hidden states) of a last layer."""
    torch.manual_seed(1)
    hidden = torch.randn(len(targets), D, requires_grad=True)
    logps, entropy = logprobs.token_logprobs(hidden, weight, bias, targets, with_entropy=True, **options)
    (logps * torch.linspace(0.5, 1.5, len(targets))).sum().backward()
    return logps.detach(), entropy, hidden.grad


def apart(ours, theirs):
    return max(float((a.float() - b.float()).abs().max()) for a, b in zip(ours, theirs))


with joined():
    rank, mesh, results = processes.group().rank, init_device_mesh("cpu", (2,)), {}
    form.BLOCK_BYTES = 2 * 4 * D
    torch.manual_seed(0)
    weight, bias = torch.randn(V, D), torch.randn(V)
    parted = split(weight, mesh)
    ids = torch.tensor([[0, 6, 3], [4, 4, 1]]) if rank else torch.tensor([[5]])
    sizes = [len(piece) for _, piece in gathers.pieces(parted)]
    results |= {"most": max(sizes), "all": V, "rows": torch.equal(gathers.rows_of(parted, ids), weight[ids]),
                "whole": torch.equal(gathers.whole(parted), weight)}
    targets = torch.arange(V) if rank else torch.tensor([2, 6])
    for chunk in (logprobs.CHUNK_BYTES, 8 * 2):  # two positions at a time
        for keep in (logprobs.KEEP_BYTES, 0):
            logprobs.CHUNK_BYTES, logprobs.KEEP_BYTES = chunk, keep
            for name, shape in SHAPES.items():
                results[f"{name} {chunk} {keep}"] = apart(learnt(parted, bias, targets, **shape),
                                                          learnt(weight, bias, targets, **shape))
    hidden = torch.randn(2 + rank, D)
    results["product"] = apart([gathers.product(hidden, parted, bias)], [F.linear(hidden, weight, bias)])
    for emulated in (False, True):
        emulate.multiplies_bfloat16 = lambda emulated=emulated: not emulated
        outputs = []
        for own in (True, False):
            module = nn.Linear(D, V).requires_grad_(False)
            module.weight, module.bias = nn.Parameter(weight.bfloat16(), False), nn.Parameter(bias.bfloat16(), False)
            if own:
                module.weight = split(weight.bfloat16(), mesh)
                gathers.one_at_a_time(module)
            x = hidden.clone().requires_grad_(True)
            with torch.autocast("cpu", torch.bfloat16):
                y = emulate.product(x, module.weight, module.bias) if emulated and not own else module(x)
            y.float().square().sum().backward()
            outputs.append((y.detach(), x.grad))
        results["exact"] = results.get("exact", True) and all(map(torch.equal, *outputs))
    print(json.dumps(results))
