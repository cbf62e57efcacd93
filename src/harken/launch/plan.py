"""The memory of a training run, part by part, before a weight is loaded: `harken train METHOD … --plan`.

    plan = plan_of(method, config, processes=8)      # needs only the model's configuration
    print(plan.text(free=free_memory(8)))

Bytes a process. P weights, S of them inside layers, N processes, T trained numbers, A adapters' numbers, L layers of width D, H
heads (Q = H·W numbers a token) and K key heads (K·W), MLPs of width F, V tokens known, R tokens of a micro-batch, rank r; frozen
weights and products take b bytes, 2 in bfloat16 and 4 in float32. AdamW's moments, gradients, adapters, fully trained weights and
the last layer's products are float32 in both (engines/form.py). --shard divides what is inside layers and the tables at both ends
by N, new adapters not (engines/sharding.py).

    weights         P·b with adapters or frozen, P·4 trained in full; adapters 4·A; matrices of layers .516 each in 4 bits
    optimiser       8·T: two moments (Loshchilov and Hutter, 1711.05101), a little over 2·T in 8 bits; gradients 4·T
    last layer      16 MB of it at a time in float32 beside bfloat16 weights; trained and split, 4·V·D whole for the loss
    copies          bfloat16: 2·(matrices of layers) trained in full, 2·A with adapters; autocast makes them, autograd keeps them
    activations     what autograd keeps of R tokens (below), and one layer's gradients in passing, R·(3F + 2D)·b
    logits          R·V·4 while that is at most 512 MB, and a chunk of 64 MB; else two chunks (engines/logprobs.py);
                    trained in full, the last layer's gradient on its way, 4·V·D
    rollout cache   rows · slots · L · 2KW · 4, and a copy of the matrices, joined for decoding (engines/decoder.py), and on a CPU
                    of the last layer
    loading         2·P + 4·V·D where weights are frozen in bfloat16: read so, checked in float32 a module at a time; else 4·P, as
                    for a run's adapter, merged in float32 (engines/loading.py); beside what is held already

Kept a token and layer (Korthikanti et al. 2205.05198, section 4, counted anew for these layers, without dropout and with fused
attention; tests/test_plan.py counts with torch.autograd.graph.saved_tensors_hooks). Inside attention a number takes a bytes:

    Llama   8D the inputs of two norms, float32; trained in full 8D more, the same normed; (2D + Q)·b inputs of products (in
            bfloat16 trained in full 5D + Q: autocast casts for each product); 4F·b gate, SiLU, up and product;
            (2Q + 2KW)·a queries, keys, values and output; 7r·b; 4H + 8
    GPT-2   2D inputs of norms; (2D + Q)·b inputs of products; 5F·b, GELU as written in five tensors; (2Q + 2KW)·a; 4r·b; 4H + 16

With --checkpoint-activations L·R·D numbers, and the inside of one layer. Completions side by side in a tree of X tokens add its
mask: X bytes a token, and X·a in each layer. Not counted: the interpreter with torch, some 0.5 GB on a CPU, and
memory that an allocator keeps in pieces that fit nothing (docs/scale.md has what was measured).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from harken.core.config import SampleConfig
from harken.core.extras import import_extra
from harken.launch.plan_models import Part, Setting, further, gathered, read
from harken.launch.shapes import Shape, shape_of

GIGA = 1e9
CHUNK, KEPT, BLOCK = 64 << 20, 512 << 20, 16 << 20
MOMENTS = {"adamw": 8.0, "adamw8bit": 2 + 8 / 256}
"""Bytes a trained number; in 8 bits with a float32 scale for each 256 (engines/optimizer.py)."""
PACKED = 1 / 2 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a number in NF4, a scale of 8 bits for each 64 and a float32 for each 256 scales (engines/fourbit.py)."""
ROWS = 96
"""Sequences that the sampler speaks in together (engines/sampler.py)."""
@dataclass(frozen=True)
class Plan:
    """`parts` are held all the time, or while learning or sampling; `loading` is the peak while models are read."""

    title: str
    parts: tuple[Part, ...]
    loading: float
    changes: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = ()

    def peak(self, when: str) -> float:
        """The most bytes at a time: "loading", "learning" or "sampling"."""
        return self.loading if when == "loading" else sum(p.bytes for p in self.parts if p.when in ("held", when))

    @property
    def total(self) -> float:
        return max(map(self.peak, ("loading", "learning", "sampling")))

    def text(self, free: float | None = None) -> str:
        lines = [self.title]
        for when, heading in (("held", "held throughout"), ("learning", "while learning"), ("sampling", "while sampling")):
            parts = [p for p in self.parts if p.when == when and p.bytes >= 0.5e6]
            lines += [f"  {heading}:"] if parts else []
            lines += [f"    {p.name:44} {_gb(p.bytes)}" for p in parts]
        lines.append("  at a time:")
        lines += [f"    {when:44} {_gb(self.peak(when))}" for when in ("loading", "learning", "sampling")
                  if when != "sampling" or any(p.when == when for p in self.parts)]
        lines.append(f"  {'needed, a process':46} {_gb(self.total)}")
        if free is not None:
            lines.append(f"  {'free here, a process':46} {_gb(free)}  {'it fits' if self.total <= free else 'it does not fit'}")
        if free is None or self.total > free:
            lines += [f"  {change} needs {_gb(total).strip()}." for change, total in self.changes]
        if free is not None and self.total > free and self.loading > free:
            lines.append("  Reading the weights is too much by itself.")
        return "\n".join((*lines, *(f"  {note}" for note in self.notes)))


def _gb(size: float) -> str:
    return f"{size / GIGA:9.2f} GB"


def kept_a_token(s: Setting) -> float:
    """Bytes that autograd keeps of one token in one layer."""
    shape, b, r = s.shape, s.bytes, s.lora
    D, Q, KW, F = shape.width, shape.heads * shape.head, shape.groups * shape.head, shape.inner
    inside = (2 * Q + 2 * KW) * s.attention + 4 * shape.heads
    casts = s.mixed and not s.lora
    if shape.known == "gpt2":
        residual = 2 * D * (b if s.lora else 4) + 4 * (b if s.lora else 4)
        return residual + (2 * D + Q) * b + 5 * F * b + inside + 4 * r * b
    norms = 8 * D + (0 if s.lora else 8 * D) + 8
    return norms + ((5 if casts else 2) * D + Q) * b + 4 * F * b + inside + 7 * r * b


def activations(s: Setting) -> float:
    """Bytes that autograd keeps of a micro-batch in the layers and the last norm, and one layer's gradients in passing."""
    shape, R = s.shape, s.tokens
    mask = s.tree * s.attention if s.branches > 1 else 0
    layer = R * (kept_a_token(s) + mask)
    stream = shape.width * (s.bytes if s.lora else 4)
    layers = shape.layers * R * stream + layer if s.recompute else shape.layers * layer
    end = R * shape.width * (4 + (0 if s.lora or shape.known == "gpt2" else 4) + (s.bytes if s.lora else 4))
    passing = R * (3 * shape.inner + 2 * shape.width) * s.bytes
    return layers + end + passing + (R * s.tree if s.branches > 1 else 0)


def logits(s: Setting) -> float:
    whole = s.tokens * s.shape.vocabulary * 4
    chunk = min(CHUNK, whole)
    block = BLOCK if s.mixed and s.lora else 0
    return (whole + chunk if whole <= KEPT else 2 * chunk) + block + (0 if s.lora else 4 * s.shape.vocabulary * s.shape.width)


def plan_of(method: ModuleType, config: Any, processes: int = 1, *, cpu: bool | None = None, advise: bool = True) -> Plan:
    """The plan of a run, and unless `advise` is off what other settings would need. `cpu` counts for a CPU or for a card; None,
    for what is here. Raises `UserError` where a model cannot be found."""
    shape = shape_of(config.model, config.lora_rank)
    plan = _plan(method, config, shape, processes, cpu)
    changes = _changes(method, config, shape, processes, cpu, plan.total) if advise else ()
    return dataclasses.replace(plan, changes=tuple(changes))


def _changes(method: ModuleType, config: Any, shape: Shape, processes: int, cpu: bool | None, total: float) -> Any:
    """(what to say, the total with it) for each option that lowers the total by a hundredth or more."""
    half = config.tokens_per_micro_batch // 2
    other: list[tuple[str, dict[str, Any], int]] = [
        ("With --dtype bfloat16 it", {"dtype": "bfloat16"}, processes),
        ("With --checkpoint-activations it", {"checkpoint_activations": True}, processes),
        ("With --lora-rank 16 it", {"lora_rank": 16}, processes),
        (f"With --tokens-per-micro-batch {half} it", {"tokens_per_micro_batch": half}, processes)]
    if not config.shard:
        count = processes if processes > 1 else 8
        other.append((f"With --shard on {count} processes each", {"shard": True}, count))
    together: dict[str, Any] = {}
    most = processes
    for words, changed, count in other:
        if config.lora_rank and "lora_rank" in changed:
            continue
        new = dataclasses.replace(config, **changed)
        sizes = shape_of(config.model, new.lora_rank) if new.lora_rank != config.lora_rank else shape
        needed = _plan(method, new, sizes, count, cpu).total
        if needed < 0.99 * total:
            yield words, needed
            together |= changed
            most = max(most, count)
    if len(together) > 1:
        new = dataclasses.replace(config, **together)
        yield "With all of these it", _plan(method, new, shape_of(config.model, new.lora_rank), most, cpu).total


def setting_of(method: ModuleType, config: Any, shape: Shape, processes: int, cpu: bool | None = None) -> Setting:
    import torch
    precision = import_extra("harken.engines.precision")
    sampled = isinstance(config, SampleConfig)
    branches = config.completions_per_prompt if sampled else int(getattr(method, "BRANCHES", 1))
    longest = min(config.max_length, shape.context or config.max_length)
    tree = longest + (branches - 1) * (min(config.max_tokens, longest) if sampled else longest)
    mixed = precision.resolve_dtype(config.dtype) is torch.bfloat16
    return Setting(shape, config.lora_rank, mixed, processes if config.shard else 1,
                   config.checkpoint_activations, max(config.tokens_per_micro_batch, tree), tree, branches,
                   not torch.cuda.is_available() if cpu is None else cpu,
                   getattr(method, "head", lambda config: None)(config) != "reward")


def anew(method: ModuleType, config: Any, processes: int, free: float) -> str:
    """Why layers should keep only their inputs, as with --checkpoint-activations: learning needs more than is free, and would
    need less; "" where they should not. Results are the same to the bit (engines/recompute.py)."""
    shape = shape_of(config.model)
    if config.checkpoint_activations or not shape.layers or not shape.split:
        return ""
    kept, spared = (_plan(method, dataclasses.replace(config, checkpoint_activations=on), shape, processes, None).peak("learning")
                    for on in (False, True))
    if kept <= free or spared >= kept:
        return ""
    return (f"Learning needs {_gb(kept).strip()} and {_gb(free).strip()} are free: layers are computed anew in the backward "
            f"pass, as with --checkpoint-activations, which needs {_gb(spared).strip()}. The weights are the same.")


def _plan(method: ModuleType, config: Any, shape: Shape, processes: int, cpu: bool | None) -> Plan:
    s = setting_of(method, config, shape, processes, cpu)
    weights = s.part(shape) * (s.bytes if s.lora else 4)
    if config.quantize == "nf4":
        weights -= shape.linear * (s.bytes - PACKED)
    held = [Part("weights", "held", weights), Part("adapters", "held", 4 * s.trained if s.lora else 0)]
    loading, before = read(config.model, shape, s.mixed and bool(s.lora), s.shard, s.cpu), sum(p.bytes for p in held)
    others = further(method, config, s)
    for part, reading in others:
        loading, before = max(loading, before + reading), before + part.bytes
    held += [part for part, _ in others]
    held.append(Part("optimiser (AdamW's two moments)", "held", MOMENTS[config.optimizer] * s.trained))
    learning = [Part("gradients", "learning", 4 * s.trained),
                Part("bfloat16 copies of weights in a pass", "learning", _copies(s)),
                Part("what is split, gathered for a pass", "learning", _gathered(s)),
                Part("a weight of 4 bits made whole", "learning", 4 * s.shape.inner * s.shape.width * (config.quantize == "nf4")),
                Part(f"activations of {s.tokens:,} tokens", "learning", activations(s)),
                Part("logits", "learning", logits(s) if s.reads else 0)]
    sampling = _sampling(config, s, processes) if isinstance(config, SampleConfig) else []
    return Plan(_title(method, config, s, processes), tuple(p for p in (*held, *learning, *sampling) if p.bytes), loading,
                notes=tuple(_notes(config, s)))


def _copies(s: Setting) -> float:
    return (2 * (s.shape.adapters if s.lora else s.shape.linear)) if s.mixed else 0


def _gathered(s: Setting) -> float:
    """Two layers whole, the one at work and the next; of frozen ones on a CPU one matrix. In full also the last layer, and a
    layer's gradient before it is split."""
    if s.shard == 1:
        return 0
    if s.lora:
        return s.bytes * gathered(s.shape, s.cpu)
    return s.shape.largest * (2 * s.bytes + 4) + (4 * s.shape.vocabulary * s.shape.width if s.reads else 0)


def _sampling(config: Any, s: Setting, processes: int) -> list[Part]:
    shape, n = s.shape, config.completions_per_prompt
    share = -(-config.prompts_per_step // processes)
    rows = min(max(1, ROWS // n), share) * n
    slots = min(config.max_length, shape.context or config.max_length)
    cache = rows * slots * shape.layers * 2 * shape.groups * shape.head * (4 if s.cpu or not s.lora else s.bytes)
    joined = shape.linear * s.bytes if shape.known == "llama" else 0
    whole = shape.split * (1 - 1 / s.shard) * (s.bytes if s.lora else 4)
    packed = 4 * shape.vocabulary * shape.width if s.cpu and shape.known == "llama" else 0
    parts = {f"rollout cache, {rows} rows of {slots:,}": cache, "weights joined for decoding": joined + packed,
             "the model whole while sampling": whole}
    return [Part(name, "sampling", size) for name, size in parts.items()]


def _title(method: ModuleType, config: Any, s: Setting, processes: int) -> str:
    shape = s.shape
    trained = f"adapters of rank {s.lora} ({shape.adapters / 1e6:.1f} million)" if s.lora else "every weight trained"
    count = f"{processes} processes{', --shard' if config.shard else ''}" if processes > 1 else "1 process"
    texts = min(config.max_length, shape.context or config.max_length)
    return (f"memory of harken train {method.__name__.rpartition('.')[2]}, counted from the configuration; nothing was loaded\n"
            f"  {shape.name}: {shape.kind}, {shape.parameters / 1e6:,.1f} million weights, {shape.layers} layers; {trained};\n"
            f"  {'bfloat16' if s.mixed else 'float32'}; texts of up to {texts:,}, micro-batches of {s.tokens:,} tokens; "
            f"{count}{'; activations computed anew' if s.recompute else ''}")


def _notes(config: Any, s: Setting) -> Any:
    if not s.shape.known:
        yield f"Activations are estimated as those of a plain transformer layer: the layers of {s.shape.kind} were not counted."
    if s.cpu and not s.recompute:
        yield ("On a CPU freed memory stays in the process, for speed: on SmolLM2 that came to 1.1 (in full) and 1.9 (adapters) "
               "times this; it is given back with --checkpoint-activations, and where less than twice this is free.")
    if s.branches > 1:
        yield "A set of more or longer completions than this is one micro-batch of its own, and needs more."
