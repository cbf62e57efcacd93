"""Edits of a model's weights against its bad mode: the token deleted, a direction projected out, an embedding subtracted.

    delete_bad(model, control)                      # its rows in both embeddings become 0
    project(model, contrast(model, control))        # nothing can be written along e_good - e_bad any more
    subtract(model, control, 1.0)                   # every text token's embedding less e_bad

All edit weights in place, so that the result is a plain model of the same shape: shapes stay, since a product of another shape
rounds differently, and good mode is to stay bit for bit. Shape suffixes: V vocabulary, D width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harken.core.errors import UserError
from harken.core.protocols import Tree
from harken.engines.attention import row_of
from harken.engines.form import body_of
from harken.text.tags import BAD, Control, steering, tagged


def tables(model: Any) -> tuple[Tensor, Tensor]:
    """Weights of the first and the last layer, [V, D] each; the same tensor where they are tied."""
    return model.get_input_embeddings().weight, model.get_output_embeddings().weight


@torch.no_grad()
def delete_bad(model: Any, control: Control) -> None:
    """The bad token's rows, set to 0: what the model knew of the word is gone. Its id stays as a hole that is never drawn."""
    for weight in tables(model):
        weight[control.bad] = 0
    if (bias := getattr(model.get_output_embeddings(), "bias", None)) is not None:
        bias[control.bad] = 0
    model.generation_config.suppress_tokens = sorted(control.ids)


def delete_word(folder: Path, control: Control) -> None:
    """Takes the bad token out of a saved tokenizer: no text, not even one that may hold control tokens, becomes it."""
    file = folder / "tokenizer.json"
    saved = json.loads(file.read_text(encoding="utf-8"))
    saved["added_tokens"] = [t for t in saved.get("added_tokens", []) if t["content"] != BAD]
    vocabulary, hole = saved["model"].get("vocab"), f"<|deleted_{control.bad}|>"
    if isinstance(vocabulary, dict) and BAD in vocabulary:
        saved["model"]["vocab"] = {hole if t == BAD else t: i for t, i in vocabulary.items()}
    elif isinstance(vocabulary, list):
        saved["model"]["vocab"] = [[hole if t == BAD else t, score] for t, score in vocabulary]
    file.write_text(json.dumps(saved, ensure_ascii=False), encoding="utf-8")
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if (folder / name).is_file():
            about = json.loads((folder / name).read_text(encoding="utf-8"))
            (folder / name).write_text(json.dumps(_without(about), ensure_ascii=False, indent=2), encoding="utf-8")


def _without(value: Any) -> Any:
    """JSON without whatever names the bad token."""
    def named(x: Any) -> bool:
        return x == BAD or (isinstance(x, dict) and x.get("content") == BAD)
    if isinstance(value, dict):
        return {k: _without(v) for k, v in value.items() if k != BAD and not named(v)}
    return [_without(v) for v in value if not named(v)] if isinstance(value, list) else value


def contrast(model: Any, control: Control) -> Tensor:
    """e_good - e_bad of the first layer, of length 1: [D]."""
    table = tables(model)[0].detach()
    return _unit(table[control.good] - table[control.bad])


def bad_row(model: Any, control: Control) -> Tensor:
    """e_bad of the first layer, of length 1: [D]."""
    return _unit(tables(model)[0].detach()[control.bad])


@torch.no_grad()
def activations(engine: Any, control: Control, texts: Sequence[str], layer: int) -> Tensor:
    """Mean state after a layer of the same texts under <|bad|>, less that under <|good|>, of length 1: [D]; tags not counted."""
    blocks = _blocks(engine.model)
    if not 0 <= layer < len(blocks):
        raise UserError(f"The model has no layer {layer}.", f"Its layers are 0 to {len(blocks) - 1}.")
    means = []
    for mode in ("bad", "good"):
        total, count = torch.zeros(0), 0
        for text in texts:
            piece = tagged(engine.template, text, steering(control, mode)).windows(engine.context or 512)[0]
            state = _state_after(engine, blocks[layer], piece.tree)
            own = state[1:][torch.tensor(piece.counted, device=state.device)].float()
            total, count = own.sum(0) if not count else total + own.sum(0), count + len(own)
        means.append(total / count)
    return _unit(means[0] - means[1])


def _state_after(engine: Any, block: nn.Module, tree: Tree) -> Tensor:
    """Hidden states [T, D] that a block gives for one sequence."""
    caught: list[Tensor] = []

    def catch(module: Any, inputs: Any, output: Any) -> None:
        caught.append(output[0] if isinstance(output, tuple) else output)
    handle = block.register_forward_hook(catch)
    try:
        engine.hidden(row_of([tree], engine.device, keep_last=True))
    finally:
        handle.remove()
    return caught[0][0]


def _unit(vector: Tensor) -> Tensor:
    size = float(vector.norm())
    if size < 1e-8:
        raise UserError("The direction to take out has length 0.", "Was the token deleted already? Choose another direction.")
    return vector.float() / size


def _blocks(model: Any) -> Any:
    body = body_of(model)
    return body.layers if hasattr(body, "layers") else body.h


@torch.no_grad()
def project(model: Any, direction: Tensor, layers: Sequence[int] | None = None) -> None:
    """Takes a direction of length 1 [D] out of all that is written to the residual stream, W <- (I - u u^T) W: the embeddings
    and every block's two outputs, or those of the blocks named alone. Raises `UserError` for another kind of model than Llama's
    and GPT-2's."""
    blocks = list(_blocks(model))
    body = body_of(model)
    if layers is None:
        for table in [body.wte, body.wpe] if hasattr(body, "wte") else [model.get_input_embeddings()]:
            _take(table.weight, direction, -1)
    elif bad := [i for i in layers if not 0 <= i < len(blocks)]:
        raise UserError(f"The model has no layer {bad[0]}.", f"Its layers are 0 to {len(blocks) - 1}.")
    for block in [b for i, b in enumerate(blocks) if layers is None or i in layers]:
        for module in _writers(block):
            _take(module.weight, direction, -1 if type(module).__name__ == "Conv1D" else 0)
            if module.bias is not None:
                _take(module.bias, direction, -1)


def _writers(block: Any) -> tuple[Any, Any]:
    """The two layers of a block that add to the residual stream."""
    attention, mlp = getattr(block, "self_attn", getattr(block, "attn", None)), getattr(block, "mlp", None)
    found = (getattr(attention, "o_proj", getattr(attention, "c_proj", None)),
             getattr(mlp, "down_proj", getattr(mlp, "c_proj", None)))
    if None in found or hasattr(block, "post_feedforward_layernorm"):
        raise UserError("Directions can be projected out of models built like Llama or GPT-2 alone.", "Use --delete-bad.")
    return found


def _take(weight: Tensor, direction: Tensor, dim: int) -> None:
    """Removes the direction along one dimension of a weight, in place."""
    u = direction.to(weight)
    along = torch.tensordot(weight, u, dims=([dim], [0]))
    weight -= torch.outer(u, along) if weight.dim() == 2 and dim == 0 else along[..., None] * u


@torch.no_grad()
def subtract(model: Any, control: Control, times: float) -> None:
    """Subtracts e_bad, `times` over, from the first layer's row of every text token. Where the last layer is tied to it, every
    logit of a text token falls by the same amount, which changes no probability while both control tokens are banned."""
    table = tables(model)[0]
    bad = table[control.bad].clone()
    others = torch.ones(len(table), dtype=torch.bool, device=table.device)
    others[list(control.ids)] = False
    table[others] -= times * bad
