"""Saved adapters onto their model, and the proof that all of a file arrived."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harken.core.errors import UserError
from harken.core.files import file_hash, read_json
from harken.engines import cpu
from harken.engines.form import attention_configs, text_config

CONFIG = "adapter_config.json"
MAMBAS = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
"""As peft has it: it refuses them an adapter there."""
OTHERWISE = re.compile("Router|Gate|Group")
"""Names of classes derived from a linear layer that do not map one tensor to one tensor by their weight."""
FILES = ("adapter_model.safetensors", "adapter_model.bin")


def adapter_file(folder: Path) -> Path | None:
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's configuration. Raises `UserError` unless it is a LoRA adapter whose base is named."""
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise UserError(f"The adapter {folder} is of the kind {kind}; Harken reads LoRA adapters.",
                        "Merge it into its base with peft, and give the merged model.")
    if not isinstance(config.get("base_model_name_or_path"), str) or not config["base_model_name_or_path"]:
        raise UserError(f"The adapter {folder} does not name its base model.",
                        f"Write the base's folder or hub id into {CONFIG} as base_model_name_or_path.")
    if str(config.get("init_lora_weights", "")).startswith("pissa_niter"):
        raise UserError(f"The adapter {folder} stands on a base that its start changed at random "
                        f"({config['init_lora_weights']}): no load gives the same model twice.",
                        "Save it as a plain LoRA: peft's path_initial_model_for_weight_conversion.")
    if adapter_file(folder) is None:
        raise UserError(f"The adapter {folder} lacks {FILES[0]}.", "Copy or download it again.")
    return config


def read_tensors(folder: Path, what: str) -> dict[str, Tensor]:
    """The adapter file's tensors. Raises `UserError` where it cannot be read or has none."""
    file = adapter_file(folder)
    try:
        if file is None:
            tensors = {}
        elif file.suffix == ".safetensors":
            from safetensors.torch import load_file
            tensors = load_file(file)
        else:
            tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a foreign reader meets in a foreign file
        raise UserError(f"{what} cannot be loaded: {' '.join(str(error).split())[:200]}", "Copy it again.") from None
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(f"{what} cannot be loaded: its file has no tensors.", "Copy it again.")
    for key, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise UserError(f"{what} is damaged: {key} holds numbers that are not finite.", "Copy it again.")
    return tensors


def targets(model: Any) -> str | list[str]:
    """The layers that a new adapter stands on: all linear ones but the last. Left out are routers and layers in groups, which
    compute otherwise, towers that see or hear, the output layer of Mamba's kinds, whose weight is read past any adapter, and
    layers of one weight (Zamba's blocks), which cannot hold an adapter each once merged."""
    from transformers import PreTrainedModel
    text = text_config(model)
    left: list[str] = []
    linear: list[str] = []
    past = ("out_proj",) if model.config.model_type in MAMBAS else ()
    towers = [n for n, m in model.named_modules() if text is not model.config and n and isinstance(m, PreTrainedModel)
              and m.config is not model.config and m.config is not text]
    last, places = model.get_output_embeddings(), weight_places(model)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D":
            several = module is not last and len(places[id(module.weight)]) > 1
            router = OTHERWISE.search(type(module).__name__)
            tower = any(name.startswith(f"{t}.") for t in towers)
            (left if router or tower or several or name.rpartition(".")[2] in past else linear).append(name)
    return [n for n in linear if model.get_submodule(n) is not last] if left else "all-linear"


def weight_places(model: Any) -> dict[int, list[str]]:
    """The names under which each weight stands, by its identity."""
    places: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(weight := getattr(module, "weight", None), Tensor):
            places.setdefault(id(weight), []).append(name)
    return places


@contextmanager
def no_missing(what: str) -> Iterator[None]:
    """peft only warns of tensors that it does not find, and leaves them as they began. Raises `UserError` for it."""
    with cpu.quiet(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if "missing adapter keys" in str(warning.message):
            raise UserError(f"{what} does not fit its model: {' '.join(str(warning.message).split())[:200]}",
                            "Its base is another model, or of another version of transformers.")


@torch.no_grad()
def fill(model: Any, name: str, saved: Mapping[str, Tensor], what: str) -> None:
    """Copies the tensors of a run's adapter into the adapter `name` of a peft model, by their own names: on loading peft renames
    keys as it would a checkpoint's, though they bear the new names (Laguna). Raises `UserError` unless all fit, none left."""
    mine = {n.replace(f".{name}", "", 1): p for n, p in model.named_parameters() if "lora_" in n and f".{name}" in n}
    apart = set(saved).symmetric_difference(mine)
    apart |= {key for key in set(saved) & set(mine) if saved[key].shape != mine[key].shape}
    if apart:
        raise UserError(f"{what} does not fit its model: {len(apart)} tensors are missing or have no place ({min(apart)}, …).",
                        "Its base is another model, or of another version of transformers.")
    for key, value in saved.items():
        mine[key].copy_(value)


def own_config(folder: Path) -> Any:
    from peft import LoraConfig
    return LoraConfig.from_pretrained(str(folder))


def merged(model: Any, folder: Path, what: str, *, own: bool) -> Any:
    """The model with the adapter of `folder` merged in. `own`: written by Harken, so each tensor has its place."""
    from peft import PeftModel, get_peft_model
    saved = read_tensors(folder, what)
    try:
        with no_missing(what):
            adapted = get_peft_model(model, own_config(folder)) if own else PeftModel.from_pretrained(model, str(folder))
        if own:
            fill(adapted, "default", saved, what)
            return adapted.merge_and_unload()
        _part_shared(adapted)
        before = _logits(adapted)
        whole = adapted.merge_and_unload()
        if float((_logits(whole) - before).abs().max()) > 1e-3 * (1 + float(before.abs().max())):
            raise UserError(f"{what} cannot be merged into its base: the result would be another model.",
                            "Merge it with the software it was made with, and give the merged model.")
        return whole
    except UserError:
        raise
    except Exception as error:  # as above
        merging = "Impossible to merge" in str(error)
        raise UserError(f"{what} cannot be loaded: {' '.join(str(error).split())[:200]}",
                        "Merge it with the software it was made with, and give the merged model." if merging else "Copy it again."
                        ) from None


@torch.no_grad()
def _logits(model: Any) -> Tensor:
    """Of a short text, in evaluation: what merging must not change."""
    training = model.training
    ids = torch.tensor([[min(i, model.get_input_embeddings().weight.shape[0] - 1) for i in range(3, 9)]])
    logits: Tensor = model.eval()(input_ids=ids).logits.float()
    model.train(training)
    return logits


def _part_shared(adapted: Any) -> None:
    """Gives a layer that an adapter stands on a weight of its own where others share it (a head that is tied to the first layer):
    merged, the adapter would change those as well."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    layers = [m for m in adapted.modules() if isinstance(m, BaseTunerLayer)]
    counts: dict[int, int] = {}
    for module in adapted.modules():
        if not isinstance(module, BaseTunerLayer) and isinstance(weight := getattr(module, "weight", None), Tensor):
            counts[id(weight)] = counts.get(id(weight), 0) + 1
    for layer in layers:
        base = layer.get_base_layer()
        if isinstance(weight := getattr(base, "weight", None), Tensor) and counts.get(id(weight), 0) > 1:
            base.weight = torch.nn.Parameter(weight.detach().clone())
            for config in attention_configs(adapted.config):
                config.tie_word_embeddings = False


def lineage(folder: Path, base: Mapping[str, Any]) -> dict[str, Any]:
    file = adapter_file(folder)
    assert file is not None
    return {"name": str(folder), "weights": [file_hash(file)], "base": dict(base)}
