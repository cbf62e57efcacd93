"""How a model is computed exactly: what self-check at load found (engines/selfcheck.py), and the parts of a model it names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harken.core import processes
from harken.core.errors import UserError
from harken.core.terminal import visible


@dataclass(frozen=True)
class Form:
    """`plain` says why a model takes the plain path, one sequence a row through its own forward; "" where rows are packed.

    `cached` is whether its own cache is right (else a plain sampler computes every token anew). Logits are
    `cap · tanh(scale · (W h + b) / cap)`, without the cap where it is 0. `longest` is the length past which rotary factors
    depend on the longest sequence of a row, 0 where they never do; with `alone` a longer text is exact in a row of its own.
    `width` is that of the last hidden state.
    """

    plain: str = ""
    cached: bool = True
    scale: float = 1.0
    cap: float = 0.0
    longest: int = 0
    alone: bool = False
    width: int = 0

    def note(self, name: str, kind: str) -> str:
        """What a run says once of the plain path and what it costs; "" where rows are packed."""
        if not self.plain:
            return ""
        cache = "" if self.cached else " Its cache is not exact either: sampling computes the whole text anew for every token."
        return (f"{name} ({kind}) takes the plain path, as {self.plain}: one sequence a row through the model's own forward. "
                f"The result is exact; a prompt is computed again for each of its completions, and nothing is packed.{cache}")


_SAID: set[str] = set()


def say_once(note: str) -> None:
    """Tells people on standard error what a run would note; each sentence once a process."""
    if note and note not in _SAID and processes.group().rank == 0:
        _SAID.add(note)
        print(visible(note), file=sys.stderr)


def cast(model: Any, dtype: torch.dtype) -> Any:
    """The model with its weights in `dtype`, in place, as transformers loads it: what the model computes for itself and no file
    holds stays as it is: rotary frequencies rounded to bfloat16 are another model's."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                setattr(module, name, buffer.to(dtype))
    return model


def body_of(model: Any) -> Any:
    """The model without its last layer."""
    if (body := model.base_model) is not model:
        return body.decoder if type(body).__name__.endswith("Wrapper") else body  # BART's kind, which calls past its wrapper
    for name in ("model", "transformer", "backbone", "decoder", "language_model"):
        if isinstance(inner := getattr(model, name, None), nn.Module):
            return inner
    return model


def state_of(output: Any) -> Tensor:
    """The last hidden state [B, T, D] of a body's output."""
    last = getattr(output, "last_hidden_state", None)
    state: Tensor = output[0] if last is None else last
    return state


def text_config(model: Any) -> Any:
    """The configuration of the language model, inside one that also sees or hears."""
    return model.config.get_text_config(decoder=True)


def context_of(model: Any) -> int | None:
    """The most tokens that the model's configuration allows; None where it sets no limit."""
    length = getattr(text_config(model), "max_position_embeddings", None)
    return int(length) if isinstance(length, int) and length > 0 else None


def rows_of(model: Any) -> int:
    """Tokens the model knows: rows of its first layer."""
    return int(model.get_input_embeddings().weight.shape[0])


def attention_configs(config: Any) -> list[Any]:
    """A configuration and those inside it."""
    return [config, *(c for key in getattr(config, "sub_configs", {}) if (c := getattr(config, key, None)) is not None)]


@contextmanager
def states(model: Any) -> Iterator[list[Tensor]]:
    """Collects the body's last hidden states of the forward passes inside, the last one last; OPT's kind calls past its body."""
    collected: list[Tensor] = []
    body = body_of(model)
    inner = getattr(body, "decoder", None)
    handles = [m.register_forward_hook(lambda module, args, output: collected.append(state_of(output)))
               for m in (body, inner) if isinstance(m, nn.Module)]
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()


def need_rows(model: Any, ids: tuple[int, ...], what: str) -> None:
    """Raises `UserError` for a token that the model has no row for."""
    if ids and max(ids) >= rows_of(model):
        raise UserError(f"{what} has the token {max(ids)}, but the model has only {rows_of(model)} rows.",
                        "Tokenizer and model do not belong together: resize the model's embeddings to the tokenizer.")


def float_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, form: Form) -> Tensor:
    """The last layer as `form` says, in float32."""
    with torch.autocast(hidden.device.type, enabled=False):
        return shaped(float_product(hidden, weight, bias), form.scale, form.cap)


BLOCK_BYTES = 16 << 20
"""A last layer of lower precision is multiplied in float32 (bfloat16 logits of size 20 are off by up to 0.06, which alone would
put sampler and trainer apart, P4), so much of it at a time: never is there a float32 copy of it."""


def blocks(weight: Tensor) -> list[slice]:
    """Rows of a matrix that are held in float32 together."""
    step = max(1, BLOCK_BYTES // (4 * weight.shape[1]))
    return [slice(i, i + step) for i in range(0, len(weight), step)]


def float_product(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """hidden [..., D] times weight [V, D] transposed, and the bias, in float32."""
    hidden = hidden.float()
    if weight.dtype is torch.float32:
        return torch.nn.functional.linear(hidden, weight, bias)
    logits = hidden.new_empty(*hidden.shape[:-1], len(weight))
    for part in blocks(weight):
        logits[..., part] = torch.nn.functional.linear(hidden, weight[part].float())
    return logits if bias is None else logits.add_(bias.float())


def shaped(logits: Tensor, scale: float, cap: float) -> Tensor:
    """cap · tanh(scale · logits / cap), in place; the logits themselves where there is neither."""
    if scale != 1.0:
        logits = logits.mul_(scale)
    return logits.div_(cap).tanh_().mul_(cap) if cap else logits
