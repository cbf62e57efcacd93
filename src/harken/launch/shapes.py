"""A model's sizes from its configuration alone: no weight is read. What `harken train … --plan` counts with.

    shape = shape_of("runs/sft", lora_rank=16)      # a run's base chain, a folder, the hub's cache, smollm2, toy, llama-8b

Parameters are counted on a model made on torch's `meta` device, adapters by adding them to it as training does (engines/base.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.extras import import_extra
from harken.core.files import file_hash, read_json
from harken.engines.policies import beside, read_policy

KNOWN = {"llama": {"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer"}, "gpt2": {"GPT2Block"}}
"""Layers of which it was counted what the backward pass keeps (tests/test_plan.py)."""
EXAMPLES: dict[str, dict[str, Any]] = {
    "llama-1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
                 "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True},
    "llama-8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
                 "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False},
    "llama-70b": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
                  "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False}}
"""Sizes of Llama 3.2 1B, 3.1 8B and 3.1 70B (2407.21783, table 3, and the models' config.json): for plans without a download."""


@dataclass(frozen=True)
class Shape:
    """Numbers of a model. `split` of the `parameters` are in layers and in the tables at both ends (what --shard splits), `ends`
    of them in those tables, `largest` in the largest layer;
    `linear` are weights of matrix products inside layers; `adapters` are the trained numbers of new adapters. `heads`, `groups`
    (key heads) of `head` numbers each; `inner` is the width inside an MLP. `known`: "llama", "gpt2", or "" for other layers."""

    name: str
    kind: str
    known: str
    parameters: int
    split: int
    ends: int
    largest: int
    linear: int
    adapters: int
    layers: int
    width: int
    inner: int
    heads: int
    groups: int
    head: int
    vocabulary: int
    context: int


def shape_of(word: str, lora_rank: int = 0) -> Shape:
    """The sizes of a model. Raises `UserError` where there is none of that name, or its configuration cannot be read."""
    return _example(word, lora_rank) if word in EXAMPLES else _shape(word, lora_rank)


@cache
def _example(word: str, lora_rank: int) -> Shape:
    return _shape(word, lora_rank)


def _shape(word: str, lora_rank: int) -> Shape:
    import_extra("harken.engines.loading")
    import torch
    try:
        with torch.device("meta"):
            return measured(_made(word), word, lora_rank)
    except UserError:
        raise
    except Exception as error:  # a foreign configuration fails in as many ways as it can be wrong
        raise UserError(f"The sizes of {word} cannot be read: {' '.join(str(error).split())[:200]}",
                        "Is its config.json that of a causal language model?") from None


def root_of(word: str) -> str:
    """The model below all adapters of a run or folder, and where it lies."""
    for _ in range(100):
        if (base := base_of(word)) is None:
            return word
        word = base
    raise UserError(f"The adapter {word} stands on itself.", "Correct base_model_name_or_path in its adapter_config.json.")


def base_of(word: str) -> str | None:
    """What a run's or a folder's adapter stands on; None for a model with all of its weights."""
    if word in EXAMPLES:
        return None
    from harken.engines import adapters
    from harken.engines.places import locate
    kind, path = locate(word), Path(word)
    if kind == "adapter":
        base = str(adapters.read_config(path)["base_model_name_or_path"])
        return next((str(p) for p in (path / base, Path(base)) if p.exists()), base)
    if kind != "run":
        return None
    if policy := read_policy(path):
        raise UserError(f"The run {path} has no weights of its own: it is a {policy.kind} policy over {policy.base}.",
                        f"Plan with {policy.base}.")
    saved = read_json(path / "model" / "harken.json")
    return beside(path, str(saved.get("base", ""))) if saved.get("kind") == "adapter" else None


def _made(word: str) -> Any:
    """The model on the device in force, from its configuration."""
    from transformers import AutoModelForCausalLM, LlamaConfig
    root = root_of(word)
    if root in EXAMPLES:
        return AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=128256, max_position_embeddings=131072, **EXAMPLES[root]))
    if root == "toy":
        from harken.engines.toy import toy_model
        return toy_model()
    return AutoModelForCausalLM.from_config(_config(root))


def _config(root: str) -> Any:
    from transformers import AutoConfig

    from harken.engines.modelfiles import check_config
    from harken.engines.places import cache_folder, locate, smollm2_file
    kind = locate(root)
    options: dict[str, Any] = {"trust_remote_code": False}
    if kind in ("smollm2", "gguf"):
        file = smollm2_file() if kind == "smollm2" else Path(root)
        folder = cache_folder() / f"{file.stem}-{file_hash(file)[:16]}"  # where loading keeps it, once converted
        if (folder / "config.json").is_file():
            return AutoConfig.from_pretrained(str(folder), **options)
        return AutoConfig.from_pretrained(str(file.parent), gguf_file=file.name, **options)
    if kind == "hub":
        return _hub_config(root, options)
    folder = Path(root) / "model" if kind == "run" else Path(root)
    check_config(folder, root)
    return AutoConfig.from_pretrained(str(folder), local_files_only=True, **options)


def _hub_config(name: str, options: dict[str, Any]) -> Any:
    """From the hub's cache; asked of the hub where it is not there: a few kilobytes, no weights."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError
    from transformers import AutoConfig
    try:
        cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:
        raise UserError(f"There is no model {name!r}, and a hub id looks otherwise.", "Check the name.") from None
    try:
        return AutoConfig.from_pretrained(name, local_files_only=cached, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"The configuration of {name} cannot be read: {str(error).splitlines()[0][:200]}",
                        "Check the name and the network; a folder with its config.json alone is enough for a plan.") from None


def measured(model: Any, word: str, lora_rank: int) -> Shape:
    from harken.engines.base import Base
    from harken.engines.form import context_of, rows_of, text_config
    from harken.engines.recompute import layers_of
    config = text_config(model)
    try:
        layers = layers_of(model, "--shard")
    except UserError:
        layers = []
    kinds = {type(layer).__name__ for layer in layers}
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    linear = sum(p.numel() for layer in layers for p in layer.parameters() if p.ndim >= 2)
    parameters = sum(p.numel() for p in model.parameters())
    tables = [m.weight for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m is not None]
    ends = sum({id(w): w.numel() for w in tables}.values()) if layers else 0
    adapters = 0
    if lora_rank:
        base = Base(model, None, {})
        base.add(lora_rank)
        adapters = sum(p.numel() for _, p in base.parameters)
    width, heads = int(config.hidden_size), int(config.num_attention_heads)
    count = int(getattr(config, "num_hidden_layers", 0) or len(layers))
    known = next((name for name, classes in KNOWN.items() if kinds and kinds <= classes), "")
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * width
    groups, head = getattr(config, "num_key_value_heads", None) or heads, getattr(config, "head_dim", None) or width // heads
    return Shape(word, model.config.model_type, known, parameters, sum(sizes) + ends, ends, max(sizes, default=0), linear,
                 adapters, count, width, int(inner), heads, int(groups), int(head), rows_of(model), context_of(model) or 0)


def same_model(word: str, other: str) -> bool:
    """Whether two words name one model, so that the adapters of one can stand on the other's weights."""
    def place(name: str) -> str:
        return str(Path(name).resolve()) if Path(name).exists() else name
    return place(word) == place(other)
