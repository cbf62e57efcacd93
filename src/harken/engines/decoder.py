"""One token of every sequence through a model of the Llama kind, in fewer and larger matrix products than its modules take.

    decoder = Decoder.of(engine)                      # None where the model is of another kind
    hidden_BD = decoder.step(token_B, position_B, cache)

In a decoding step a matrix product costs little more than starting it. So layers that read the same input are joined, their
adapters' first factors with them: [W_q W_k W_v A_q A_k A_v] is one product, the three second factors another. Nothing is
merged: in bfloat16 a young adapter would be rounded away. The result is the modules' but for the order of rounding. Weights
are read when the decoder is made, so it lives no longer than one call of the sampler (P19).
Shape suffixes: B sequences, D hidden width, H query heads, K key heads, W head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harken.engines.attention import Cache
from harken.engines.form import body_of
from harken.engines.gathers import whole
from harken.engines.hf import Engine

KNOWN = {"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer"}


def product(weight: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """x → x Wᵀ + b for many small x: on a CPU the weight is laid out once as oneDNN's kernels read it, which the framework
    otherwise does, or does without, at every call."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available() or not _packs(weight.dtype):
        return lambda x: F.linear(x.to(weight.dtype), weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x.to(weight.dtype), packed, bias, "none", [], "")


def _packs(dtype: torch.dtype) -> bool:
    """oneDNN lays out bfloat16 weights only for processors that it multiplies them on."""
    return dtype is not torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Joined:
    """Linear layers of one input as one: y = x [W_1 … A_1 …]ᵀ, then its low-rank part times [B_1 …]."""

    def __init__(self, modules: Sequence[Any], dtype: torch.dtype) -> None:
        bases = [getattr(m, "base_layer", m) for m in modules]
        low = [_factors(m) for m in modules]
        rows = [whole(b.weight).to(dtype) for b in bases] + [pair[0].to(dtype) for pair in low if pair]
        weight = rows[0] if len(rows) == 1 else torch.cat(rows)
        self.width = sum(b.out_features for b in bases)
        bias = None
        if any(b.bias is not None for b in bases):
            parts = [weight.new_zeros(b.out_features) if b.bias is None else b.bias for b in bases]
            bias = F.pad(torch.cat(parts), (0, len(weight) - self.width)).to(dtype)
        self.product = product(weight.contiguous(), bias)
        self.up = None
        if any(low):
            blocks = [pair[1] if pair else weight.new_zeros(b.out_features, 0) for b, pair in zip(bases, low)]
            self.up = torch.block_diag(*blocks).to(dtype).T

    def __call__(self, x: Tensor) -> Tensor:
        y = self.product(x)
        return y if self.up is None else torch.addmm(y[:, :self.width], y[:, self.width:], self.up)


@dataclass
class Layer:
    norms: tuple[Any, Any]
    qkv: Joined
    out: Joined
    gate_up: Joined
    down: Joined
    scaling: float
    window: int | None


class Decoder:
    @classmethod
    def of(cls, engine: Engine) -> Decoder | None:
        """A decoder of the engine's present weights, or None where the model is not of a known kind."""
        engine.base.use(engine.names)
        body = body_of(engine.model)
        layers = getattr(body, "layers", ())
        if not layers or not all(_known(layer) and _plain(layer) for layer in layers):
            return None
        return cls(engine, body, layers)

    @torch.no_grad()
    def __init__(self, engine: Engine, body: Any, layers: Any) -> None:
        self.body, config = body, body.config
        weight, bias = engine.unembedding()
        self.logits = product(weight.float(), None if bias is None else bias.float())
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        dtype = engine.compute
        self.kept = torch.float32 if engine.device.type == "cpu" else dtype
        """Precision of keys, values and attention: float32 on a CPU, which is faster and more exact there (attention.py)."""
        self.layers = []
        for layer in layers:
            attn, mlp = layer.self_attn, layer.mlp
            self.layers.append(Layer(
                (layer.input_layernorm, layer.post_attention_layernorm), Joined((attn.q_proj, attn.k_proj, attn.v_proj), dtype),
                Joined((attn.o_proj,), dtype), Joined((mlp.gate_proj, mlp.up_proj), dtype), Joined((mlp.down_proj,), dtype),
                attn.scaling, getattr(attn, "sliding_window", getattr(config, "sliding_window", None))))

    def step(self, token_B: Tensor, position_B: Tensor, cache: Cache) -> Tensor:
        """The last hidden state [B, D] after one more token of each sequence, whose keys and values join the cache."""
        B, H, K = len(token_B), self.heads, self.groups
        hidden = self.body.embed_tokens(token_B)
        cos, sin = self.body.rotary_emb(hidden[:, None], position_B[:, None])
        half = cos.shape[-1] // 2
        sin = torch.cat((-sin[..., :half], sin[..., half:]), -1)  # rotating half is then a roll
        masks: dict[int | None, Tensor | None] = {}
        for i, layer in enumerate(self.layers):
            if layer.window not in masks:
                masks[layer.window] = cache.mask(layer.window)
            joined = layer.qkv(layer.norms[0](hidden)).view(B, H + 2 * K, -1)
            turned = joined[:, :H + K]
            turned = (turned * cos + turned.roll(half, -1) * sin).to(self.kept)
            keys, values = cache.append(i, turned[:, H:, None], joined[:, H + K:, None].to(self.kept))
            # The query heads of one key head stand as its queries: no key is repeated.
            with torch.autocast(token_B.device.type, enabled=False):  # it would cast float32 back to bfloat16
                mixed = F.scaled_dot_product_attention(turned[:, :H].reshape(B, K, H // K, -1), keys, values,
                                                       masks[layer.window], scale=layer.scaling)
            hidden = hidden + layer.out(mixed.reshape(B, -1).to(joined.dtype))
            gate, up = layer.gate_up(layer.norms[1](hidden)).chunk(2, -1)
            hidden = hidden + layer.down(F.silu(gate) * up)
        normed: Tensor = self.body.norm(hidden)
        return normed


def _factors(module: Any) -> tuple[Tensor, Tensor] | None:
    """A module's adapter as A [r, in] and B [out, r], B scaled; None where there is none, or it is off."""
    if not hasattr(module, "base_layer") or module.disable_adapters:
        return None
    name = module.active_adapters[0]
    return module.lora_A[name].weight, module.lora_B[name].weight * module.scaling[name]


def _known(layer: Any) -> bool:
    """Of a known kind; a layer that is split over processes is of a class derived from it."""
    return not KNOWN.isdisjoint(cls.__name__ for cls in type(layer).__mro__)


def _plain(layer: Any) -> bool:
    """Only linear layers and at most one ordinary adapter on each; SiLU."""
    attn, mlp = layer.self_attn, layer.mlp
    for module in (attn.q_proj, attn.k_proj, attn.v_proj, attn.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj):
        if not isinstance(getattr(module, "base_layer", module), torch.nn.Linear):
            return False
        if hasattr(module, "base_layer") and (len(module.active_adapters) > 1 or getattr(module, "lora_variant", None)):
            return False
    return type(mlp.act_fn).__name__ in ("SiLU", "SiLUActivation")
