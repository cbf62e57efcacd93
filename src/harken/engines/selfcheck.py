"""One check at load, so that no model is computed wrongly in silence: the path that is exact for it, or why none is.

    form = examine(model, name)          # sets the attention that the path needs

The measure is the model's own forward over short sequences, in batches without padding. Packed rows are taken where the hidden
states of two completions that share their prompt, beside another tree, are the model's own; where two tokens decoded through the
cache are the row's; and where its logits are a product with the last layer, scaled or capped as the configuration says. Otherwise
the plain path is taken, with the model's own cache where two tokens decoded through it are the whole sequence's.
Errors are relative to the standard deviation of what is compared: weights of any size show a difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from harken.core.errors import UserError
from harken.core.protocols import Tree
from harken.engines import gathers, plain
from harken.engines.attention import NAME, Cache, heard, row_of, using
from harken.engines.form import Form, attention_configs, body_of, rows_of, shaped, state_of, text_config
from harken.engines.heads import not_linear

TOLERANCE = 1e-3
LOW = (torch.bfloat16, torch.float16)
SUPPORTED = "Use a causal language model that docs/models.md lists."
PROMPT, ANSWER, OTHER = 4, 3, 2


@torch.no_grad()
def examine(model: Any, name: str, scores: Any = None, known: Form | None = None) -> Form:
    """The form of `model`, whose attention is set to what its path needs. `scores` is the head of a reward model of others,
    whose own output is then the measure in place of logits. `known` is what was found of the very same model before.

    Raises `UserError` that names what is wrong: damaged weights, tokens that see what follows them, a forward that fails.
    """
    _finite(model, name)
    if hasattr(model.config, "rescale_every"):
        model.config.rescale_every = 0  # RWKV divides its weights in place outside training: a saved model would be another
    if known is not None:
        if not known.plain:
            model.config._attn_implementation = NAME
        return known
    with in_float32(model):
        check = _Check(model, name, scores)
        verdict = check.packed()
        if isinstance(verdict, str):
            check.own_attention()
            verdict = check.alone(verdict)
    return verdict


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Modules compute with float32 copies of their own weights, made as they begin and gone when they end: errors of the path are
    not lost in rounding, and of a large model one module at a time is held twice. Weights of float32 stay as they are."""
    changed: dict[int, list[list[tuple[Any, Tensor]]]] = {}

    def begin(module: Any, args: Any) -> None:
        held = [(t, t.data) for t in _own(module) if t.dtype in LOW and not gathers.is_split(t)]
        changed.setdefault(id(module), []).append(held)
        for tensor, data in held:
            tensor.data = data.float()

    def end(module: Any, args: Any, output: Any) -> None:
        for tensor, data in changed[id(module)].pop():
            tensor.data = data

    modules = [m for m in model.modules() if any(t.dtype in LOW for t in _own(m))]
    handles = [h for m in modules for h in (m.register_forward_pre_hook(begin), m.register_forward_hook(end, always_call=True))]
    token = gathers.FLOAT32.set(True)
    try:
        yield
    finally:
        gathers.FLOAT32.reset(token)
        for handle in handles:
            handle.remove()


def _own(module: Any) -> list[Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _finite(model: Any, name: str) -> None:
    for key, parameter in model.named_parameters():
        part = gathers.own_part(parameter)
        if part.numel() and not all(map(torch.isfinite, part.detach().aminmax())):
            raise UserError(f"The weights of {name} are damaged: {key} holds numbers that are not finite.",
                            "Copy or download the model again.")


class _Check:
    def __init__(self, model: Any, name: str, scores: Any) -> None:
        self.model, self.name, self.scores = model, name, scores
        self.kind = model.config.model_type
        self.body, self.device = body_of(model), next(model.parameters()).device
        self.saved = [(c, c._attn_implementation) for c in attention_configs(model.config)]
        ids = _tokens(model)
        prompt, first, second = ids[:PROMPT], ids[PROMPT:PROMPT + ANSWER], ids[PROMPT + ANSWER:PROMPT + 2 * ANSWER]
        self.tree, self.beside = Tree(prompt, (first, second)), Tree(ids[-OTHER:], (ids[1:1 + OTHER], ids[4:4 + ANSWER]))
        self.pair = torch.tensor([prompt + first, prompt + second], device=self.device)
        self.own, self.logits = self._whole(self.pair)

    def _whole(self, ids_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The model's own hidden states [B, T, D] and logits [B, T, V]. Raises `UserError` where they cannot be had."""
        try:
            own, logits = plain.whole(self.model, ids_BT)
        except Exception as error:  # a foreign model's forward raises whatever its author's code meets
            raise UserError(f"The model {self.name} ({self.kind}) does not read plain text: its own forward pass fails "
                            f"({type(error).__name__}: {' '.join(str(error).split())[:120]}).", SUPPORTED) from None
        if not (torch.isfinite(own).all() and torch.isfinite(logits).all()):
            raise UserError(f"The outputs of {self.name} ({self.kind}) are not numbers: its weights are damaged.",
                            "Copy or download the model again.")
        return own, logits

    def _same(self, one: Tensor, *others: Tensor) -> bool:
        spread = float(one.float().std()) or 1.0
        return all(float((one.float() - other.float()).abs().max()) <= TOLERANCE * spread for other in others)

    # --- packed ------------------------------------------------------------------------------------

    def packed(self) -> Form | str:
        """The form where packed rows are exact, else why they are not."""
        self.model.config._attn_implementation = NAME
        row = row_of([self.beside, self.tree], self.device, keep_last=True)
        # The row's pass also fills the cache: a slot past a sequence's own is not seen, and written before it is.
        cache = Cache(3, max(end - start for start, end in row.spans), self.device)
        cache.admit([[2], [0, 1]], [OTHER, PROMPT])
        try:
            with using(row, cache), heard() as windows:
                hidden = state_of(self.body(input_ids=row.ids, position_ids=row.positions, use_cache=False))[0]
        except Exception:  # a mask or an argument that this attention does not have
            return "its attention is its own"
        if not windows:
            return "its layers do not use transformers' attention interface"
        start = row.spans[1][0]
        first, second = slice(start, start + PROMPT + ANSWER), slice(start + PROMPT + ANSWER, start + PROMPT + 2 * ANSWER)
        if not self._same(self.own[0], hidden[first]) or not self._same(self.own[1, PROMPT:], hidden[second]):
            return "completions in one row would see each other"
        if why := self._window(windows):
            return why
        if not self._decodes(cache, torch.stack((hidden[first], torch.cat((hidden[first][:PROMPT], hidden[second]))))):
            return "its layers call attention in a way that a shared cache does not follow"
        form = self._last_layer()
        return form if form is not None else "its last layer is more than one matrix"

    def _window(self, windows: list[tuple[int, int | None]]) -> str:
        """Masks that the attention function is not told of: a short check cannot see them."""
        config = text_config(self.model)
        kinds = getattr(config, "layer_types", None) or []
        windowed = {layer for layer, window in windows if window}
        if any("chunked" in kind for kind in kinds):
            return "it attends in chunks"
        if any(kind == "sliding_attention" and layer not in windowed for layer, kind in enumerate(kinds)):
            return "its sliding windows are not told to the attention interface"
        return ""

    def _decodes(self, cache: Cache, row: Tensor) -> bool:
        """Whether two tokens through the cache, beside a row of another length, have the packed row's hidden states."""
        try:
            for step in range(2):
                tokens = torch.tensor([*(c[step] for c in self.tree.completions), self.beside.completions[0][step]],
                                      device=self.device)
                with using(None, cache):
                    out = state_of(self.body(input_ids=tokens[:, None], position_ids=cache.next[:, None], use_cache=False))[:, 0]
                if not self._same(row[:, PROMPT + step], out[:2]):
                    return False
                cache.step(torch.arange(3, device=self.device))
        except Exception:  # keys of unlike shapes in one layer
            return False
        return True

    def _last_layer(self) -> Form | None:
        """The form whose last layer, on the model's own states, gives its own logits; None where none does."""
        width, (longest, alone) = int(self.own.shape[-1]), _longest(self.model)
        if self.scores is not None:
            ours = self.scores(self.own[:, -1].float())
            return Form(width=width, longest=longest, alone=alone) if self._same(self.logits, ours) else None
        head = self.model.get_output_embeddings()
        if head is None or head.weight.shape[-1] != width:
            return None
        bias = getattr(head, "bias", None)
        product = gathers.product(self.own, head.weight, bias)
        # The best of them, not the first: a cap far above the logits seen here is all but linear.
        errors = {shape: float((shaped(product.clone(), *shape) - self.logits).abs().max())
                  for shape in _shapes(text_config(self.model))}
        scale, cap = min(errors, key=lambda shape: errors[shape])
        exact = self._same(self.logits, shaped(product, scale, cap))
        return Form(scale=scale, cap=cap, width=width, longest=longest, alone=alone) if exact else None

    # --- plain -------------------------------------------------------------------------------------

    def own_attention(self) -> None:
        for config, implementation in self.saved:
            config._attn_implementation = implementation

    def alone(self, why: str) -> Form:
        """The plain form: the model's own forward, and its own cache where that is right."""
        if self.scores is not None and self._last_layer() is None:
            raise not_linear(self.name, self.kind)
        self._alone_and_causal()
        self._learns()
        longest, alone = _longest(self.model)
        return Form(plain=why, cached=self.scores is None and self._steps(), width=int(self.own.shape[-1]), longest=longest,
                    alone=alone)

    def _alone_and_causal(self) -> None:
        """Raises `UserError` where a token sees what follows it, or a text its neighbours in a batch; packed rows show it."""
        alone, shorter = self._whole(self.pair[:1])[0], self._whole(self.pair[:1, :PROMPT])[0]
        if self.scores is None and not self._same(self.own[0, :PROMPT], self.own[1, :PROMPT], shorter[0]):
            raise UserError(f"{self.name} ({self.kind}) is no causal language model as it is configured: "
                            "its tokens see what follows them.", SUPPORTED)
        if not self._same(self.own[0], alone[0]):
            raise UserError(f"What {self.name} ({self.kind}) says of one text depends on the others of its batch.", SUPPORTED)

    @torch.enable_grad()
    def _learns(self) -> None:
        """Raises `UserError` where an adapter's gradient would be lost on the way (Reformer's reversible layers)."""
        inner = [m.weight for m in self.body.modules() if isinstance(m, torch.nn.Linear) and m.weight.requires_grad]
        outer = [p for p in self.model.parameters() if p.requires_grad]
        self.model.requires_grad_(False)
        for weight in inner:  # all: the first may be a tower's, which text does not pass
            weight.requires_grad_(True)
        lost = bool(inner) and not self._whole(self.pair[:1])[0].requires_grad
        for parameter in outer:
            parameter.requires_grad_(True)
        if lost:
            raise UserError(f"{self.name} ({self.kind}) passes an adapter no gradient: its layers compute their own.", SUPPORTED)

    def _steps(self) -> bool:
        """Whether the prompt and then two tokens through the model's own cache have the whole sequences' logits."""
        try:
            speaker = plain.Speaker(self.model, cached=True)
            logits = [speaker.read(self.pair[:, :PROMPT])]
            logits += [speaker.read(self.pair[:, PROMPT + i:PROMPT + i + 1]) for i in range(2)]
        except Exception:  # as above
            return False
        return self._same(self.logits[:, PROMPT - 1:PROMPT + 2], torch.stack(logits, 1))


def _tokens(model: Any) -> tuple[int, ...]:
    """Ordinary tokens from all over the vocabulary, no two alike where it is large enough."""
    size = min(rows_of(model), getattr(text_config(model), "vocab_size", None) or rows_of(model))
    marks = {v for c in attention_configs(model.config) for k, v in c.to_dict().items()
             if isinstance(v, int) and k.endswith(("token_id", "token_index"))}
    tokens = [t for k in range(4 * PROMPT) if (t := (3 + k * max(1, size // 37)) % size) not in marks]
    count = PROMPT + 2 * ANSWER + OTHER
    return tuple((tokens * count)[:count]) if tokens else (0,) * count


def _shapes(config: Any) -> list[tuple[float, float]]:
    """Scales and caps of logits that the configuration may mean: Gemma's tanh, none, Cohere's factor, Granite's divisor."""
    def numbers(*names: str) -> list[float]:
        return [float(v) for n in names if isinstance(v := getattr(config, n, None), int | float) and v]

    scales = [1.0, *numbers("logit_scale", "lm_head_multiplier"), *(1 / v for v in numbers("logits_scaling"))]
    scales += [base / config.hidden_size for base in numbers("dim_model_base")]
    caps = numbers("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
    return [(scale, cap) for cap in (*caps, 0.0) for scale in scales]


def _longest(model: Any) -> tuple[int, bool]:
    """Past how many tokens rotary factors follow the longest sequence of a row, 0 for never; and whether they follow nothing else
    (longrope), or also what was computed before (dynamic)."""
    bounds, dynamic = [], False
    for module in model.modules():
        kinds = getattr(module, "rope_type", ())
        kinds = [k for k in (kinds.values() if isinstance(kinds, dict) else (kinds,)) if isinstance(k, str)]
        dynamic |= any("dynamic" in kind for kind in kinds)
        if any("dynamic" in kind or kind == "longrope" for kind in kinds):
            config = getattr(module, "config", text_config(model))
            parameters = getattr(config, "rope_parameters", None) or {}
            nested = [parameters, *(p for p in parameters.values() if isinstance(p, dict))]
            bounds += [n for p in nested if (n := p.get("original_max_position_embeddings"))]
            limits = ("original_max_position_embeddings", "max_position_embeddings")
            bounds += [n for name in limits if (n := getattr(config, name, None))]
    return int(min(bounds, default=0)), bool(bounds) and not dynamic
