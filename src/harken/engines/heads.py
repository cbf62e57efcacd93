"""Reward heads from files: a run's own `head.pt`, and the last layer of others' sequence-classification models."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harken.core.errors import UserError


def read_head(file: Path, width: int, what: str, action: str) -> tuple[nn.Linear, float, dict[str, Tensor]]:
    """A run's head, its shift, and the heads and shifts of groups. Raises `UserError` unless all fit a state `width` wide and
    are finite numbers."""
    def wrong(why: str) -> UserError:
        return UserError(f"The reward head of {what} cannot be loaded: {why}.", action)

    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickles fail in as many ways as they are written
        raise wrong(" ".join(str(error).split())[:200] or type(error).__name__) from None
    shapes: dict[str, tuple[int, ...]] = {"weight": (1, width), "bias": (1,), "shift": ()}
    if not isinstance(saved, dict) or not shapes.keys() <= saved.keys():
        raise wrong("it has no weight, bias and shift")
    groups = {name: saved[name] for name in ("group_head", "group_shift") if name in saved}
    if groups:
        count = len(groups["group_head"]) if isinstance(groups.get("group_head"), Tensor) and groups["group_head"].dim() else -1
        shapes |= {"group_head": (count, width), "group_shift": (count,)}
    for name, shape in shapes.items():
        value = saved.get(name)
        if not isinstance(value, Tensor) or tuple(value.shape) != shape or not value.is_floating_point():
            is_now = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise wrong(f"{name} should be of shape {shape}, found {is_now}")
        if not bool(torch.isfinite(value).all()):
            raise wrong(f"{name} holds numbers that are not finite")
    head = nn.Linear(width, 1)
    head.load_state_dict({"weight": saved["weight"], "bias": saved["bias"]})
    return head, float(saved["shift"]), groups


def is_classifier(folder: Path) -> bool:
    """Whether a folder says that it holds a sequence-classification model, or an adapter that makes a model one."""
    try:
        if (folder / "config.json").is_file():
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            return any(str(a).endswith("ForSequenceClassification") for a in config.get("architectures") or ())
        return bool(json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("task_type") == "SEQ_CLS")
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return False


def as_classifier(model: Any, labels: int = 1) -> Any:
    """A causal model's body in transformers' sequence-classification model, with a new last layer. Raises `UserError` where
    transformers has none of its kind."""
    from transformers import AutoModelForSequenceClassification
    config = copy.deepcopy(model.config)
    config.num_labels = labels
    if labels == 1:
        config.id2label, config.label2id = {0: "reward"}, {"reward": 0}
    try:
        with torch.random.fork_rng():
            made = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager", dtype=torch.float32)
        getattr(made, made.base_model_prefix).load_state_dict(model.base_model.state_dict())
        assert made.score.weight.shape[0] == labels
    except (ValueError, AttributeError, RuntimeError, AssertionError):
        raise UserError(f"transformers has no sequence-classification model of the kind {config.model_type}.",
                        "A reward of this kind lives in a run alone; it cannot come or leave in this form.") from None
    return made.to(model.device)


def not_linear(name: str, kind: str) -> UserError:
    return UserError(f"{name} ({kind}) is a reward model whose score is not a linear layer over its last token.",
                     "Harken reads reward models of the causal kinds: LlamaForSequenceClassification, Qwen2 and their like.")


def classifier_head(model: Any, name: str) -> nn.Linear:
    """The last layer of a sequence-classification model with one label, as a reward head of its own."""
    layer = getattr(model, "score", None)
    if not isinstance(layer, nn.Linear):
        raise not_linear(name, model.config.model_type)
    if layer.out_features != 1:
        raise UserError(f"{name} has {layer.out_features} labels; a reward has one.", "Give a reward model with one label.")
    head = nn.Linear(layer.in_features, 1)
    with torch.no_grad():
        head.weight.copy_(layer.weight)
        head.bias.copy_(torch.zeros(1) if layer.bias is None else layer.bias)
    return head


def tail_ids(template: Any) -> tuple[int, ...]:
    """What the chat template writes after the end of an answer's turn: others' reward models read their score there."""
    if not template.chat:
        return ()
    mark = "answer"
    text = template.answered("question", mark)
    ids = list(template.tokenizer(text.rpartition(mark)[2], add_special_tokens=False).input_ids)
    return tuple(ids[ids.index(template.end_id) + 1:]) if template.end_id in ids else ()
