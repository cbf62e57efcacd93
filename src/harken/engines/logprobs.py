"""Log-probabilities of given tokens without keeping [N, V] logits.

Shape suffixes: N predicted tokens, D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from harken.engines.form import blocks, float_product, shaped
from harken.engines.gathers import is_split, pieces

CHUNK_BYTES = 64 << 20
KEEP_BYTES = 512 << 20


class _Logprobs(torch.autograd.Function):
    """d logp_i / d logits_i = onehot(target_i) - softmax_i; probabilities are kept for the backward
    pass while they are few, and computed again otherwise."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor,
                temperature: float, with_entropy: bool, scale: float, cap: float) -> tuple[Tensor, Tensor]:
        N, V = hidden_ND.shape[0], weight_VD.shape[0]
        needs_grad = any(ctx.needs_input_grad[:3])
        keep = needs_grad and N * V * 4 <= KEEP_BYTES and not cap
        size = max(1, CHUNK_BYTES // (V * 4))
        logps = hidden_ND.new_empty(N, dtype=torch.float32)
        entropy = torch.zeros_like(logps)
        ctx.probs = []
        for i in range(0, N, size):
            logits = _logits(hidden_ND[i:i + size], weight_VD, bias_V, temperature, scale, cap)
            lse = logits.logsumexp(-1)
            logps[i:i + size] = logits.gather(-1, targets_N[i:i + size, None])[:, 0] - lse
            if with_entropy:  # H = lse - E[logit]
                probs = torch.exp(logits - lse[:, None])
                entropy[i:i + size] = lse - torch.einsum("nv,nv->n", probs, logits)
            elif keep:
                probs = logits.sub_(lse[:, None]).exp_()
            if keep:
                ctx.probs.append(probs)
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N)
        ctx.temperature, ctx.size, ctx.kept, ctx.scale, ctx.cap = temperature, size, keep, scale, cap
        ctx.mark_non_differentiable(entropy)
        return logps, entropy

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        ctx.probs.reverse()
        for i in range(0, hidden.shape[0], ctx.size):
            part = slice(i, i + ctx.size)
            slope = None
            if ctx.kept:
                probs = ctx.probs.pop()
            else:
                probs = _logits(hidden[part], weight, bias, ctx.temperature, ctx.scale, ctx.cap)
                if ctx.cap:  # d cap·tanh(x / cap) / dx = 1 - tanh²
                    slope = 1 - (probs * (ctx.temperature / ctx.cap)).square()
                probs = probs.softmax(-1)
            scale = grad_N[part, None] / ctx.temperature
            if ctx.scale != 1.0:
                scale = scale * ctx.scale
            grad_logits = probs.mul_(-scale)  # in place: a second backward through the same graph is not supported
            grad_logits.scatter_add_(-1, targets[part, None], scale)
            if slope is not None:
                grad_logits *= slope
            if grad_hidden is not None:
                grad_hidden[part] = _back(grad_logits, weight).to(hidden.dtype)
            if grad_weight is not None:
                grad_weight.addmm_(grad_logits.to(weight.dtype).T, hidden[part].to(weight.dtype))
            if grad_bias is not None:
                grad_bias += grad_logits.sum(0)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None, None


class _PiecedLogprobs(torch.autograd.Function):
    """The same of a frozen last layer that is split over the processes: its rows come a piece at a time, forwards and again
    backwards, and log Σ exp is summed as they come. `last` holds the weight."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, last: list[Tensor], bias_V: Tensor | None, targets_N: Tensor,
                temperature: float, with_entropy: bool, scale: float, cap: float) -> tuple[Tensor, Tensor]:
        N, V = hidden_ND.shape[0], last[0].shape[0]
        ctx.kept = [] if ctx.needs_input_grad[0] and N * V * 4 <= KEEP_BYTES else None
        said, total, mean = (hidden_ND.new_zeros(N, dtype=torch.float32) for _ in range(3))
        high = torch.full_like(total, -torch.inf)
        ctx.last, ctx.bias, ctx.shape = last, bias_V, (temperature, scale, cap)
        for rows, part, logits in _pieced(hidden_ND, ctx):
            top = torch.maximum(high[rows], logits.amax(-1))
            shrink = (high[rows] - top).exp()
            mass = (logits - top[:, None]).exp_()
            total[rows] = total[rows] * shrink + mass.sum(-1)
            if with_entropy:
                mean[rows] = mean[rows] * shrink + torch.einsum("nv,nv->n", mass, logits)
            high[rows] = top
            here, column = _here(targets_N[rows], part)
            said[rows] = torch.where(here, logits.gather(-1, column)[:, 0], said[rows])
            if ctx.kept is not None:
                ctx.kept.append(logits)
        lse = high + total.log()
        entropy = lse - mean / total if with_entropy else torch.zeros_like(lse)
        ctx.save_for_backward(hidden_ND, targets_N, lse)
        ctx.mark_non_differentiable(entropy)
        return said - lse, entropy

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, targets, lse = ctx.saved_tensors
        temperature, scale, cap = ctx.shape
        grad_hidden = torch.zeros_like(hidden, dtype=torch.float32)
        slopes = grad_N[:, None] * (scale / temperature)
        for rows, part, logits, weight in _pieced(hidden, ctx, backwards=True):
            slope = 1 - (logits * (temperature / cap)).square() if cap else None
            here, column = _here(targets[rows], part)
            grad_logits = logits.sub_(lse[rows, None]).exp_().mul_(-slopes[rows])
            grad_logits.scatter_add_(-1, column, torch.where(here[:, None], slopes[rows], 0.0))
            if slope is not None:
                grad_logits *= slope
            grad_hidden[rows].addmm_(grad_logits, weight)
        return grad_hidden.to(hidden.dtype), None, None, None, None, None, None, None


def _pieced(hidden: Tensor, ctx: Any, backwards: bool = False) -> Iterator[tuple[Any, ...]]:
    """(positions, vocabulary, their logits), backwards with the weight's piece in float32; logits kept before are given again."""
    temperature, scale, cap = ctx.shape
    kept = iter(ctx.kept or ()) if backwards else iter(())
    for part, piece in pieces(ctx.last[0]):
        weight = piece.float()
        bias = None if ctx.bias is None else ctx.bias[part]
        size = max(1, CHUNK_BYTES // (4 * len(weight)))
        for i in range(0, len(hidden), size):
            rows = slice(i, i + size)
            logits = next(kept, None)
            if logits is None:
                logits = _logits(hidden[rows], weight, bias, temperature, scale, cap)
            yield (rows, part, logits, weight) if backwards else (rows, part, logits)


def _here(targets: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """Which targets are of these rows, and in which: 0 for the others."""
    here = (targets >= part.start) & (targets < part.stop)
    return here, torch.where(here, targets - part.start, 0)[:, None]


def _logits(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, temperature: float, scale: float, cap: float) -> Tensor:
    logits = shaped(float_product(hidden_ND, weight_VD, bias_V), scale, cap)
    return logits.div_(temperature) if temperature != 1.0 else logits


def _back(grad_NV: Tensor, weight_VD: Tensor) -> Tensor:
    """grad @ weight, in float32."""
    if weight_VD.dtype is grad_NV.dtype:
        return grad_NV @ weight_VD
    grad_ND = grad_NV.new_zeros(len(grad_NV), weight_VD.shape[1])
    for part in blocks(weight_VD):
        grad_ND.addmm_(grad_NV[:, part], weight_VD[part].float())
    return grad_ND


def token_logprobs(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor,
                   temperature: float = 1.0, *, with_entropy: bool = False, scale: float = 1.0,
                   cap: float = 0.0) -> tuple[Tensor, Tensor]:
    """(log p(target) [N], entropy in nats [N]) of softmax(logits / temperature), in float32; logits are
    `scale · (hidden @ weight.T + bias)`, and of that `cap · tanh(· / cap)` where there is a cap.

    Differentiable in hidden, weight and bias through the log-probs; the entropy carries no gradient and is 0
    unless asked for. Of a weight that is split over the processes (frozen) all must make this call.
    """
    with torch.autocast(hidden_ND.device.type, enabled=False):
        split = is_split(weight_VD)
        apply: Any = _PiecedLogprobs.apply if split else _Logprobs.apply
        weight: Any = [weight_VD] if split else weight_VD
        logps, entropy = apply(hidden_ND, weight, bias_V, targets_N, temperature, with_entropy, scale, cap)
    return logps, entropy


@torch.no_grad()
def logprobs_and_tops(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, *, scale: float = 1.0,
                      cap: float = 0.0) -> tuple[Tensor, Tensor]:
    """(log p(target) [N], log p of the likeliest token [N]) at temperature 1: a target is greedy where the two are equal."""
    size = max(1, CHUNK_BYTES // (weight_VD.shape[0] * 4))
    logps, tops = [], []
    with torch.autocast(hidden_ND.device.type, enabled=False):
        for i in range(0, hidden_ND.shape[0], size):
            logits = _logits(hidden_ND[i:i + size], weight_VD, bias_V, 1.0, scale, cap)
            lse = logits.logsumexp(-1)
            logps.append(logits.gather(-1, targets_N[i:i + size, None])[:, 0] - lse)
            tops.append(logits.amax(-1) - lse)
    return torch.cat(logps), torch.cat(tops)
