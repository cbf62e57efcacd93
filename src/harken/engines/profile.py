"""Where a run's time goes, and how much of the machine's speed it reaches: `harken train … --profile`.

    with profiling(True, device, dtype) as profile:     # launch does this around a method
        with timed("forward"): ...                      # engines do this; it costs a microsecond where nobody profiles
    print(table(profile.summary()))

Clocks, not a tracer: light enough to stay on. A section's time is its own, less that of the sections inside it; scoring,
reference and audit keep what happens inside them. On a GPU the device is waited for at both ends of a section, or the time
would go to whoever waits next.

FLOPs are the model's, not the hardware's: 2 · weights · tokens of every linear layer, the last layer only where a token is
predicted, and 4 · width · layers for each pair of tokens that attend to each other; a backward pass costs as much again for
activations, and once more for the weights that are trained (so 6 · weights · tokens in all for full training, a little over 4
with adapters). Work done twice to save memory, softmaxes, norms and the optimiser are left out.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from harken.engines.attention import Cache, Row
from harken.engines.form import text_config

SECTIONS = {"prefill": "sampling: prefill", "decode": "sampling: decode", "scoring": "scoring", "reference": "reference",
            "values": "values", "forward": "forward", "backward": "backward", "optimizer": "optimiser", "audit": "audits",
            "other": "other"}
UNDIVIDED = ("scoring", "reference", "audit")
"""Sections that keep all their time: what runs inside them is not counted under its own name."""


@dataclass(frozen=True)
class Cost:
    """Weights of a model's linear layers, those of them that are trained, its last layer's, and FLOPs a pair that attends."""

    body: int
    body_trained: int
    last: int
    last_trained: int
    pair: int

    @classmethod
    def of(cls, engine: Any) -> Cost:
        """With the adapters that the engine uses now."""
        model, config, last = engine.model, text_config(engine.model), engine.model.get_output_embeddings().weight
        weights = [m.weight for n, m in model.base_model.named_modules()
                   if (isinstance(m, torch.nn.Linear) or type(m).__name__ == "Conv1D")
                   and ("lora_" not in n or n.rpartition(".")[2] in engine.names)]
        heads = getattr(config, "num_attention_heads", 0) or 0  # a model of states alone has none
        width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads) if heads else 0
        return cls(sum(w.numel() for w in weights), sum(w.numel() for w in weights if w.requires_grad), last.numel(),
                   last.numel() * last.requires_grad, 4 * width * config.num_hidden_layers)

    def forward(self, tokens: int, pairs: float, predicted: int) -> float:
        return 2 * self.body * tokens + self.pair * pairs + 2 * self.last * predicted

    def backward(self, tokens: int, pairs: float, predicted: int) -> float:
        return (2 * (self.body + self.body_trained) * tokens + 2 * self.pair * pairs
                + 2 * (self.last + self.last_trained) * predicted)


class Profile:
    """Seconds, FLOPs and tokens of each section of `SECTIONS`."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.seconds, self.flops = dict.fromkeys(SECTIONS, 0.0), dict.fromkeys(SECTIONS, 0.0)
        self.tokens: dict[str, int] = defaultdict(int)
        self.stack, self.thread = ["other"], threading.get_ident()
        self.costs: dict[tuple[int, Any], Cost] = {}
        self.last: tuple[Cost, int, float, int] | None = None
        self.since = time.perf_counter()

    def _turn(self) -> None:
        """Gives the time since the last turn to the section that is open."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[self.stack[-1]] += now - self.since
        self.since = now

    def enter(self, name: str) -> None:
        self._turn()
        self.stack.append(self.stack[-1] if self.stack[-1] in UNDIVIDED else name)

    def leave(self) -> None:
        self._turn()
        name = self.stack.pop()
        if name == "backward" and self.last is not None:
            cost, tokens, pairs, predicted = self.last
            self.flops[name] += cost.backward(tokens, pairs, predicted)

    def computed(self, engine: Any, tokens: int, pairs: float, predicted: int) -> None:
        key = id(engine), engine.names
        if key not in self.costs:
            self.costs[key] = Cost.of(engine)
        cost, name = self.costs[key], self.stack[-1]
        self.flops[name] += cost.forward(tokens, pairs, predicted)
        self.tokens[name] += tokens
        self.last = cost, tokens, pairs, predicted

    def summary(self) -> dict[str, Any]:
        """What profile.json holds. Measures the machine's peak first, which takes about a second."""
        self._turn()
        peak = gemm_peak(self.device, self.dtype)
        seconds, flops = sum(self.seconds.values()), sum(self.flops.values())
        parts = {name: {"seconds": round(s, 4), "share": s / seconds, "tokens": self.tokens[name], "flops": self.flops[name],
                        "peak_share": self.flops[name] / (s * peak) if s else 0.0}
                 for name, s in self.seconds.items() if s}
        threads = torch.get_num_threads() if self.device.type == "cpu" else 0
        return {"seconds": round(seconds, 4), "flops": flops, "peak_share": flops / (seconds * peak), "peak_flops": peak,
                "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else f"CPU, {threads} threads",
                "dtype": str(self.dtype).removeprefix("torch."), "sections": parts}


def table(summary: dict[str, Any]) -> str:
    """The summary in words, the largest part first."""
    lines = [f"{'':20}  seconds  share    tokens  of peak"]
    for name, part in sorted(summary["sections"].items(), key=lambda item: -item[1]["seconds"]):
        reached = f"{part['peak_share']:8.1%}" if part["flops"] else ""
        line = f"{SECTIONS[name]:20} {part['seconds']:8.1f} {part['share']:6.1%} {part['tokens'] or '':9} {reached}"
        lines.append(line.rstrip())
    lines.append(f"{'all':20} {summary['seconds']:8.1f} {'':6} {'':9} {summary['peak_share']:8.1%}")
    lines.append(f"The peak is a matrix product's: {summary['peak_flops'] / 1e9:,.0f} GFLOP/s in {summary['dtype']} "
                 f"({summary['device']}).")
    return "\n".join(lines)


_ACTIVE: Profile | None = None


@contextmanager
def profiling(on: bool, device: torch.device | None, dtype: torch.dtype | None) -> Iterator[Profile | None]:
    """Profiles what happens inside, if `on`; one at a time."""
    global _ACTIVE
    if on:
        assert device is not None and dtype is not None, "only what learns is profiled"
        _ACTIVE = Profile(device, dtype)
    else:
        _ACTIVE = None
    try:
        yield _ACTIVE
    finally:
        _ACTIVE = None


@contextmanager
def timed(name: str) -> Iterator[None]:
    """The time inside belongs to `name`. Also a decorator."""
    profile = _ACTIVE
    if profile is None or profile.thread != threading.get_ident():  # what is sampled ahead (loops/ahead.py) has its own time
        yield
        return
    profile.enter(name)
    try:
        yield
    finally:
        profile.leave()


def computed_row(engine: Any, row: Row, predicted: int) -> None:
    """Counts a forward pass over a row, of which `predicted` positions go through the last layer."""
    if _ACTIVE is not None:
        first = row.shared
        pairs = first * (first + 1) / 2 + sum(
            prompt * first + prompt * (prompt + 1) / 2 + sum(c * (first + prompt) + c * (c + 1) / 2 for c in rest)
            for prompt, *rest in row.branches)
        _ACTIVE.computed(engine, row.ids.shape[1], pairs, predicted)


def computed_sequence(engine: Any, tokens: int, predicted: int, times: int = 1) -> None:
    """Counts a forward pass of the plain path."""
    if _ACTIVE is not None:
        _ACTIVE.computed(engine, tokens * times, tokens * (tokens + 1) / 2 * times, predicted * times)


def computed_token(engine: Any, cache: Cache, live: torch.Tensor) -> None:
    """Counts one token of each live row, which sees its prompt and what was sampled; what idle rows compute is no use."""
    if _ACTIVE is not None:
        rows = len(live)
        _ACTIVE.computed(engine, rows, int(cache.next[live].sum()) + rows, rows)


def computed_tokens(engine: Any, rows: int, pairs: int) -> None:
    """Counts tokens of rows that see so many others together."""
    if _ACTIVE is not None:
        _ACTIVE.computed(engine, rows, pairs, rows)


@torch.no_grad()
def gemm_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.7) -> float:
    """FLOP/s of the fastest of many large square matrix products: what this machine can do, now, with these threads."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    def product() -> float:
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start
    product()
    end, best = time.perf_counter() + seconds, product()
    while time.perf_counter() < end:
        best = min(best, product())
    return 2 * size ** 3 / best
