"""Attention over shared-prefix rows, and over a cache while sampling.

A row is several trees one after another; a tree is a prompt followed by its completions. A token
sees the prompt of its own tree and the earlier tokens of its own completion, nothing else, and its
position counts from the prompt's start: the row computes exactly what separate sequences would (P10).

    [ p p p | a a | b b b ][ p p | a a ]     two trees; `b` sees its prompt and `b`, never `a`

What all trees of a row begin with may stand once before them; then every tree sees it too, and goes on from there.

The function is registered with transformers' attention interface under `NAME`, so any model that
goes through the interface can use it. What a forward pass works on is set with `using(...)`.
Shape suffixes: R row, H query heads, K key heads, D head width, B sequences, T cache slots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harken.core.protocols import Tree
from harken.engines import flex

NAME = "harken_tree"


@dataclass
class Row:
    """Trees laid end to end, ready for a forward pass.

    `sources` are row indices whose output predicts a completion token (the prompt's last token
    predicts the first), `targets` the tokens predicted, `ends` the row index of each completion's
    last token. `lengths` counts tokens a completion, `sizes` completions a tree. The row's first `shared` tokens are what all
    trees begin with; `spans` and `branches` are of what follows.
    """

    ids: Tensor
    positions: Tensor
    spans: list[tuple[int, int]]
    branches: list[list[int]]
    sources: Tensor
    targets: Tensor
    ends: Tensor
    lengths: list[int]
    sizes: list[int]
    shared: int = 0
    masks: dict[Any, list[Tensor | None]] = field(default_factory=dict)

    def span_masks(self, window: int | None, device: torch.device) -> list[Tensor | None]:
        """Per tree a bool mask [span, shared + span], or None where plain causal attention is right."""
        if window not in self.masks:
            self.masks[window] = [self._mask(i, window, device) for i in range(len(self.spans))]
        return self.masks[window]

    def _causal(self, tree: int, window: int | None) -> bool:
        """Whether plain causal attention is right for a tree."""
        start, end = self.spans[tree]
        return not self.shared and len(self.branches[tree]) <= 2 and (window is None or end - start <= window)

    def masked(self, window: int | None, longer: int = 0) -> bool:
        """Whether a tree of more than `longer` tokens needs a mask."""
        return not all(end - start <= longer or self._causal(tree, window) for tree, (start, end) in enumerate(self.spans))

    def _mask(self, tree: int, window: int | None, device: torch.device) -> Tensor | None:
        if self._causal(tree, window):
            return None
        start, end = self.spans[tree]
        branch = torch.repeat_interleave(torch.arange(len(self.branches[tree])),
                                         torch.tensor(self.branches[tree])).to(device)
        index = torch.arange(end - start, device=device)
        mask = (branch[None] == 0) | (branch[None] == branch[:, None])
        mask &= index[None] <= index[:, None]
        mask = F.pad(mask, (self.shared, 0), value=True)
        if window is not None:
            position = self.positions[0, start:end]
            mask &= position[:, None] - torch.cat((self.positions[0, :self.shared], position))[None] < window
        return mask

    def shared_mask(self, window: int | None) -> Tensor | None:
        """The mask of what all trees begin with, [shared, shared]; None where plain causal attention is right."""
        if window is None or self.shared <= window:
            return None
        back = self.positions[0, :self.shared, None] - self.positions[0, None, :self.shared]
        return (back >= 0) & (back < window)

    def dense_mask(self, dtype: torch.dtype) -> Tensor:
        """The whole row's additive mask [1, 1, R, R], for models without the attention interface."""
        size, first = self.ids.shape[1], self.shared
        mask = torch.zeros(size, size, dtype=torch.bool, device=self.ids.device)
        mask[:first, :first] = torch.ones_like(mask[:first, :first]).tril()
        for (start, end), part in zip(self.spans, self.span_masks(None, self.ids.device)):
            own = torch.ones_like(mask[start:end, start:end]).tril() if part is None else part
            mask[start:end, :first], mask[start:end, start:end] = own[:, :first], own[:, first:]
        return torch.zeros(size, size, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)[None, None]


DENSE = 4096
"""Tokens of a tree up to which its mask is made whole (16 MB). Beyond, on a card, FlexAttention's blocks take its place."""
SHARE_LEAST = 8
"""Tokens from which on a common beginning is computed once: below, joining keys costs what it saves."""


def common_start(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, each keeping one of its own; 0 where they are few."""
    if len(prompts) < 2:
        return 0
    low, high = min(map(tuple, prompts)), max(map(tuple, prompts))  # what the first and the last in order share, all share
    same = next((i for i, (a, b) in enumerate(zip(low, high)) if a != b), min(len(low), len(high)))
    length = min(same, *(len(p) - 1 for p in prompts))
    return length if length >= SHARE_LEAST else 0


def row_of(trees: Sequence[Tree], device: torch.device, *, keep_last: bool, share: bool = False) -> Row:
    """Lays trees into one row. Without `keep_last` a completion's last token is not computed: nothing
    that only reads log-probs needs its output. With `share` what all prompts begin with stands once before the trees."""
    cut = 0 if keep_last else 1
    shared = common_start([tree.prompt for tree in trees]) if share else 0
    ids: list[int] = list(trees[0].prompt[:shared])
    positions: list[int] = list(range(shared))
    spans: list[tuple[int, int]] = []
    branches: list[list[int]] = []
    sources: list[int] = []
    targets: list[int] = []
    ends: list[int] = []
    lengths: list[int] = []

    def tensor(numbers: Any) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=device)

    for tree in trees:
        assert tree.prompt and tree.completions and all(tree.completions), "a tree has a prompt and non-empty completions"
        start, width = len(ids), len(tree.prompt)
        ids += tree.prompt[shared:]
        positions += range(shared, width)
        branch = [width - shared]
        for completion in tree.completions:
            at, computed = len(ids), len(completion) - cut
            ids += completion[:computed]
            positions += range(width, width + computed)
            sources.append(start + width - shared - 1)
            sources += range(at, at + len(completion) - 1)
            targets += completion
            ends.append(at + computed - 1)
            lengths.append(len(completion))
            branch.append(computed)
        spans.append((start, len(ids)))
        branches.append(branch)
    return Row(tensor([ids]), tensor([positions]), spans, branches, tensor(sources), tensor(targets), tensor(ends),
               lengths, [len(t.completions) for t in trees], shared)


class Cache:
    """Keys and values of the sequences being sampled: a row each, from slot 0 on, so that a row is handed to the next
    sequence by writing over it. `next` [B] is the slot each writes next, and the position of the token written there."""

    def __init__(self, rows: int, slots: int, device: torch.device) -> None:
        self.slots, self.device = slots, device
        self.next = torch.zeros(rows, dtype=torch.long, device=device)
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.filling: list[Tensor] = []
        self._look()

    def admit(self, rows_PG: Sequence[Sequence[int]], lengths_P: Sequence[int]) -> None:
        """Before the prefill of P prompts: which rows each goes to."""
        self.filling = [torch.tensor(rows, device=self.device) for rows in rows_PG]
        for rows, length in zip(self.filling, lengths_P):
            self.next[rows] = length
        self._look()

    def prefill(self, layer: int, k_KRD: Tensor, v_KRD: Tensor, spans: Sequence[tuple[int, int]], shared: int = 0) -> None:
        """Stores each prompt's keys once computed, copied to its rows; those of the first `shared` tokens to all."""
        for store, new in ((self.keys, k_KRD), (self.values, v_KRD)):
            if layer not in store:  # values may be narrower than keys
                store[layer] = new.new_zeros(len(self.next), len(new), self.slots, new.shape[-1])
            if shared:
                store[layer][torch.cat(self.filling), :, :shared] = new[:, :shared]
            for rows, (start, end) in zip(self.filling, spans):
                store[layer][rows, :, shared:shared + end - start] = new[:, start:end]

    def append(self, layer: int, k_BK1D: Tensor, v_BK1D: Tensor) -> tuple[Tensor, Tensor]:
        for store, new in ((self.keys, k_BK1D), (self.values, v_BK1D)):
            if self.ragged:
                store[layer][self.rows, :, self.next] = new[:, :, 0].to(store[layer].dtype)
            else:
                store[layer][:, :, self.longest] = new[:, :, 0]
        return self.keys[layer][:, :, :self.longest + 1], self.values[layer][:, :, :self.longest + 1]

    def step(self, live: Tensor) -> None:
        """The rows that are still spoken in go on to their next slot."""
        self.next[live] += 1
        self._look()

    def keep(self, rows: Tensor) -> None:
        """Gives up all other rows."""
        self.next = self.next[rows]
        for store in (self.keys, self.values):
            for layer in store:
                store[layer] = store[layer][rows]
        self._look()

    def _look(self) -> None:
        low, high = torch.stack(torch.aminmax(self.next)).tolist()
        self.longest, self.ragged = high, low < high
        self.rows = torch.arange(len(self.next), device=self.device)

    def mask(self, window: int | None) -> Tensor | None:
        """Bool mask [B, 1, 1, longest + 1], or None where every slot counts."""
        if not self.ragged and (window is None or self.longest < window):
            return None
        slot = torch.arange(self.longest + 1, device=self.device)
        seen = slot <= self.next[:, None]
        if window is not None:
            seen &= slot > self.next[:, None] - window
        return seen[:, None, None]


_ROW: ContextVar[Row | None] = ContextVar("row", default=None)
_CACHE: ContextVar[Cache | None] = ContextVar("cache", default=None)


@contextmanager
def using(row: Row | None, cache: Cache | None = None) -> Iterator[None]:
    """What the next forward pass attends over: a row (filling the cache, if one is given), or a cache alone."""
    tokens = _ROW.set(row), _CACHE.set(cache)
    try:
        yield
    finally:
        _ROW.reset(tokens[0])
        _CACHE.reset(tokens[1])


def current_row() -> Row | None:
    """The row that passes attend over now."""
    return _ROW.get()


_HEARD: ContextVar[list[tuple[int, int | None]] | None] = ContextVar("heard", default=None)


@contextmanager
def heard() -> Iterator[list[tuple[int, int | None]]]:
    """Collects (layer, sliding window) of every call of the attention function inside."""
    calls: list[tuple[int, int | None]] = []
    token = _HEARD.set(calls)
    try:
        yield calls
    finally:
        _HEARD.reset(token)


@dataclass(frozen=True)
class _Kind:
    """What a layer's attention does beside the product: scaling, its window, a cap on scores, a sink a head."""

    scaling: float | None
    window: int | None
    cap: float | None
    sinks: Tensor | None


def _attention(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
               scaling: float | None = None, dropout: float = 0.0, sliding_window: int | None = None,
               softcap: float | None = None, s_aux: Tensor | None = None, **_: Any) -> tuple[Tensor, None]:
    if (calls := _HEARD.get()) is not None:
        calls.append((module.layer_idx, sliding_window))
    kind = _Kind(scaling, sliding_window, softcap, s_aux)
    if query.device.type == "cpu" and torch.bfloat16 in (query.dtype, key.dtype, value.dtype):
        # PyTorch's bfloat16 attention on a CPU is 2 to 7 times slower than its float32 one, and less exact. Where every weight
        # is trained, rotary factors are float32 and make queries and keys so: autocast would cast them to the values' precision.
        with torch.autocast("cpu", enabled=False):
            return _attend(module.layer_idx, query.float(), key.float(), value.float(), kind).bfloat16(), None
    return _attend(module.layer_idx, query, key, value, kind), None


def _attend(layer: int, query: Tensor, key: Tensor, value: Tensor, kind: _Kind) -> Tensor:
    """[1, H, R, D] -> [1, R, H, D]; contiguous, as models that reshape it in place expect."""
    row, cache = _ROW.get(), _CACHE.get()
    if row is None:
        assert cache is not None, "no row and no cache: call the model inside `using(...)`"
        keys, values = cache.append(layer, key, value)
        return _product(query, keys, values, cache.mask(kind.window), kind, causal=False).transpose(1, 2).contiguous()
    if cache is not None:
        cache.prefill(layer, key[0], value[0], row.spans, row.shared)
    if row.shared:
        return _attend_shared(row, query, key, value, kind)
    if query.is_cuda and kind.sinks is None and row.masked(kind.window, DENSE):
        mixed = flex.attend(query, key, value, row, scaling=kind.scaling, window=kind.window, cap=kind.cap)
        return mixed.transpose(1, 2).contiguous()
    lengths = [end - start for start, end in row.spans]
    # Split, not sliced: the gradient of a slice is a tensor of zeros as large as the row, for every span.
    parts = [_product(q, k, v, mask, kind, causal=mask is None) for q, k, v, mask in zip(
        *(x.split(lengths, 2) for x in (query, key, value)), row.span_masks(kind.window, query.device))]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous()


def _attend_shared(row: Row, query: Tensor, key: Tensor, value: Tensor, kind: _Kind) -> Tensor:
    """What all trees begin with, and then each tree over that and itself."""
    first, mask = row.shared, row.shared_mask(kind.window)
    begun = [x[:, :, :first] for x in (query, key, value)]
    parts = [_product(begun[0], begun[1], begun[2], mask, kind, causal=mask is None)]
    for (start, end), own in zip(row.spans, row.span_masks(kind.window, query.device)):
        keys, values = (torch.cat((start_, x[:, :, start:end]), 2) for start_, x in zip(begun[1:], (key, value)))
        parts.append(_product(query[:, :, start:end], keys, values, own, kind, causal=False))
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous()


def _product(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kind: _Kind, *, causal: bool) -> Tensor:
    gqa = query.shape[1] != key.shape[1]
    if kind.cap is None and kind.sinks is None:
        return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, scale=kind.scaling, enable_gqa=gqa)
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = (query @ key.transpose(-1, -2)).float() * (query.shape[-1] ** -0.5 if kind.scaling is None else kind.scaling)
    if kind.cap is not None:
        scores = kind.cap * (scores / kind.cap).tanh()
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    if kind.sinks is not None:  # a sink takes probability and gives nothing
        sink = kind.sinks.float().reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        return torch.cat((scores, sink), -1).softmax(-1)[..., :-1].to(value.dtype) @ value
    return scores.softmax(-1).to(value.dtype) @ value


ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
