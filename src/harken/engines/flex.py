"""Attention over a row of trees on a GPU, without a mask of the row's length squared. **It has not run on a card.**

A token sees the prompt of its own tree and the earlier tokens of its own completion (attention.py). For a ranking of nine texts
of 4,000 tokens a dense mask would be 1.3 GB; FlexAttention's block mask names the blocks of 128 × 128 that hold anything to see,
and its kernel skips the rest (Dong et al. 2024, 2412.05496). On a CPU the kernels in attention.py are faster, and FlexAttention
has no backward pass there: tests hold its forward pass to theirs, uncompiled.
Shape suffixes: R row, H query heads, K key heads, D head width.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor


@cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention
    return torch.compile(flex_attention, dynamic=True)


def places(row: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Each token's tree and branch (0 is the prompt), [R] each."""
    sizes = [size for branches in row.branches for size in branches]
    trees = [tree for tree, branches in enumerate(row.branches) for _ in branches]
    branch = [place for branches in row.branches for place, _ in enumerate(branches)]
    counts = torch.tensor(sizes)
    tree_R, branch_R = (torch.repeat_interleave(torch.tensor(x), counts).to(device) for x in (trees, branch))
    return tree_R, branch_R


def block_mask(row: Any, window: int | None, device: torch.device) -> Any:
    """The row's block mask; made once a row and window."""
    from torch.nn.attention.flex_attention import create_block_mask
    key = ("blocks", window)
    if key not in row.masks:
        tree, branch = places(row, device)
        position, length = row.positions[0], row.ids.shape[1]

        def seen(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            same = (tree[q] == tree[k]) & (k <= q) & ((branch[k] == 0) | (branch[k] == branch[q]))
            return same if window is None else same & (position[q] - position[k] < window)

        # Uncompiled it would be made from the dense mask that it is to spare.
        row.masks[key] = create_block_mask(seen, None, None, length, length, device=str(device), _compile=device.type == "cuda")
    return row.masks[key]


def attend(query: Tensor, key: Tensor, value: Tensor, row: Any, *, scaling: float | None, window: int | None,
           cap: float | None) -> Tensor:
    """[1, H, R, D] of queries, keys and values (K key heads) -> [1, H, R, D]."""
    from torch.nn.attention.flex_attention import flex_attention

    def capped(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        limit = cap or 1.0
        return limit * torch.tanh(score / limit)

    run = _compiled() if query.is_cuda else flex_attention
    mixed: Tensor = run(query, key, value, score_mod=capped if cap is not None else None,
                        block_mask=block_mask(row, window, query.device), scale=scaling,
                        enable_gqa=query.shape[1] != key.shape[1])
    return mixed
