"""Saved adapters onto their model, and the proof that all of a file arrived."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harken.core.errors import UserError
from harken.core.run import file_hash, read_json
from harken.engines import cpu

CONFIG = "adapter_config.json"
FILES = ("adapter_model.safetensors", "adapter_model.bin")


def adapter_file(folder: Path) -> Path | None:
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's configuration. Raises `UserError` unless it is a LoRA adapter whose base is named."""
    found = read_json(folder / CONFIG)
    if not isinstance(found, dict) or found.get("peft_type") != "LORA":
        kind = found.get("peft_type") if isinstance(found, dict) else None
        raise UserError(f"The adapter {folder} is of the kind {kind}; Harken reads LoRA adapters.",
                        "Merge it into its base with peft, and give the merged model.")
    if not isinstance(found.get("base_model_name_or_path"), str) or not found["base_model_name_or_path"]:
        raise UserError(f"The adapter {folder} does not name its base model.",
                        f"Write the base's folder or hub id into {CONFIG} as base_model_name_or_path.")
    if adapter_file(folder) is None:
        raise UserError(f"The adapter {folder} lacks {FILES[0]}.", "Copy or download it again.")
    return found


def read_tensors(folder: Path, what: str) -> dict[str, Tensor]:
    """The adapter file's tensors. Raises `UserError` where it cannot be read or has none."""
    file = adapter_file(folder)
    try:
        if file is None:
            found = {}
        elif file.suffix == ".safetensors":
            from safetensors.torch import load_file
            found = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a foreign reader meets in a foreign file
        raise UserError(f"{what} cannot be loaded: {' '.join(str(error).split())[:200]}", "Copy it again.") from None
    if not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{what} cannot be loaded: its file has no tensors.", "Copy it again.")
    for key, value in found.items():
        if not bool(torch.isfinite(value).all()):
            raise UserError(f"{what} is damaged: {key} holds numbers that are not finite.", "Copy it again.")
    return found


@contextmanager
def no_missing(what: str) -> Iterator[None]:
    """peft only warns of tensors that it does not find, and leaves them as they began. Raises `UserError` for it."""
    with cpu.quiet(), warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    for warning in found:
        if "missing adapter keys" in str(warning.message):
            raise UserError(f"{what} does not fit its model: {' '.join(str(warning.message).split())[:200]}",
                            "Its base is another model, or of another version of transformers.")


def verify(model: Any, name: str, saved: Mapping[str, Tensor], what: str) -> None:
    """Every tensor of the file is in the adapter `name` of a peft model, with its value, and no other is there."""
    from peft import get_peft_model_state_dict
    have = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    apart = set(saved).symmetric_difference(have)
    apart |= {key for key in set(saved) & set(have) if not torch.equal(saved[key].float(), have[key].cpu().float())}
    if apart:
        raise UserError(f"{what} does not fit its model: {len(apart)} of its tensors do not arrive ({sorted(apart)[0]}, …).",
                        "Its base is another model, or of another version of transformers.")


def merged(model: Any, folder: Path, what: str, *, own: bool) -> Any:
    """The model with the adapter of `folder` merged in. `own`: written by Harken, so each tensor must come back."""
    from peft import PeftModel
    saved = read_tensors(folder, what)
    try:
        with no_missing(what):
            found = PeftModel.from_pretrained(model, str(folder))
        if own:
            verify(found, "default", saved, what)
        return found.merge_and_unload()
    except UserError:
        raise
    except Exception as error:  # as above
        raise UserError(f"{what} cannot be loaded: {' '.join(str(error).split())[:200]}", "Copy it again.") from None


def lineage(folder: Path, base: Mapping[str, Any]) -> dict[str, Any]:
    file = adapter_file(folder)
    assert file is not None
    return {"name": str(folder), "weights": [file_hash(file)], "base": dict(base)}
