"""The next token of every sequence, drawn by inverting the cumulative distribution.

Shape suffixes: B sequences, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor


def draw(logits_BV: Tensor, uniform_B: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor, Tensor]:
    """(token, its log-prob under the sampling distribution, its log-prob under the model), each [B].

    Sampling inverts the cumulative distribution; temperature 0 takes the best token with log-prob 0.
    Top-p keeps the smallest set of most likely tokens whose mass reaches `top_p`.
    """
    model = logits_BV.logsumexp(-1)
    if temperature == 0:
        token = logits_BV.argmax(-1)
        return token, torch.zeros_like(model), logits_BV.gather(-1, token[:, None])[:, 0] - model
    scaled = logits_BV if temperature == 1 else logits_BV / temperature
    if top_p < 1:
        scaled = scaled.masked_fill(_outside(scaled.softmax(-1), top_p), -torch.inf)
    normal = model if scaled is logits_BV else scaled.logsumexp(-1)
    token = _invert((scaled - normal[:, None]).exp_(), uniform_B)
    sampled = scaled.gather(-1, token)[:, 0] - normal
    return token[:, 0], sampled, logits_BV.gather(-1, token)[:, 0] - model


def _outside(probs_BV: Tensor, top_p: float, width: int = 256) -> Tensor:
    """Which tokens do not belong to the smallest set of most likely ones whose mass reaches `top_p`. The `width` likeliest
    mostly suffice, and are found in a twentieth of the time that it takes to sort all; rows that need more are sorted."""
    if probs_BV.device.type != "cpu":  # whether rows need more is not asked of a card: it would wait for Python
        ordered, index = probs_BV.sort(-1, descending=True)
        far = ordered.cumsum(-1) - ordered >= top_p
        return far.scatter(-1, index, far)
    outside = torch.ones_like(probs_BV, dtype=torch.bool)
    ordered, index = probs_BV.topk(min(width, probs_BV.shape[-1]), -1)
    outside.scatter_(-1, index, ordered.cumsum(-1) - ordered >= top_p)
    wide = (ordered.sum(-1) < top_p).nonzero()[:, 0]
    if len(wide):
        ordered, index = probs_BV[wide].sort(-1, descending=True)
        outside[wide] = outside[wide].scatter(-1, index, ordered.cumsum(-1) - ordered >= top_p)
    return outside


def _invert(probs_BV: Tensor, uniform_B: Tensor, width: int = 256) -> Tensor:
    """The token [B, 1] at which each row's cumulative probability passes uniform · total.

    In two levels, blocks of tokens and then tokens of one block: a cumulative sum over the whole
    vocabulary would cost more than the model's last layer.
    """
    B, V = probs_BV.shape
    padded = torch.nn.functional.pad(probs_BV, (0, -V % width)).view(B, -1, width)
    blocks = padded.sum(-1, dtype=torch.float64).cumsum(-1)
    at = uniform_B[:, None] * blocks[:, -1:]
    block = torch.searchsorted(blocks, at, right=True).clamp_(max=blocks.shape[-1] - 1)
    inside = padded[torch.arange(B, device=block.device), block[:, 0]].double().cumsum(-1)
    rest = at - torch.where(block > 0, blocks.gather(-1, (block - 1).clamp_(min=0)), 0.0)
    # Rounding may put `rest` past the block's own sum: then its last token with any probability is meant.
    last = (inside < inside[:, -1:]).sum(-1, keepdim=True)
    return block * width + torch.minimum(torch.searchsorted(inside, rest, right=True), last)
