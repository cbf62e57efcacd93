"""Adapters that stand on adapters, as one that stands on the model beneath them all: what peft, vLLM and llama.cpp can load.

    W + s B1 A1 + s B2 A2 = W + s [B1 B2] [A1; A2]

peft knows a base and one adapter on it, so a run of a chain saves the sum of the chain for others (its rank is the sum of the
ranks, its product exact) and in own/ the adapter that it trained, which Harken loads onto its parent.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harken.core.errors import UserError
from harken.core.files import read_json, write_json
from harken.engines.policies import beside

CONFIG, WEIGHTS, OWN = "adapter_config.json", "adapter_model.safetensors", "own"
SPECIAL = ("use_rslora", "use_dora", "modules_to_save", "target_parameters", "rank_pattern", "alpha_pattern", "lora_bias",
           "trainable_token_indices", "layer_replication", "use_qalora", "use_bdlora", "alora_invocation_tokens")
"""Settings of peft under which an adapter is no plain sum, where they are set."""
README = """\
# A LoRA adapter, trained by Harken

{what}

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base}), {folder!r})
```

`harken export model RUN --out FOLDER` merges it, with tokenizer, stop tokens and a model card.
"""


@dataclass(frozen=True)
class Chain:
    """Adapters from the lowest up (folders), and the word for the model that has none."""

    folders: tuple[Path, ...]
    root: str


def own_adapter(folder: Path) -> Path:
    """Where the adapter lies that a run trained itself, of its model/ folder: harken.json says so, as the sum on top of the
    parent would be another model."""
    return folder / str(read_json(folder / "harken.json").get("own", ""))


def chain(folder: Path, run: Path) -> Chain:
    """The adapters that the model of `run`, saved in `folder`, is made of. Raises `UserError` where a parent is missing."""
    base = beside(run, str(read_json(folder / "harken.json").get("base", "")))
    parent = Path(base) / "model"
    if (parent / "harken.json").is_file() and read_json(parent / "harken.json").get("kind") == "adapter":
        below = chain(parent, Path(base))
        return Chain((*below.folders, own_adapter(folder)), below.root)
    return Chain((own_adapter(folder),), base)


def stack(folders: Sequence[Path]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """(tensors, configuration) of one adapter that does what these do together; None where one of them is no plain sum."""
    from safetensors.torch import load_file
    parts = [(load_file(f / WEIGHTS), read_json(f / CONFIG)) for f in folders]
    if len(parts) == 1:
        return parts[0]
    if not all(_plain(*part) for part in parts):
        return None
    ranks = [config["r"] for _, config in parts]
    scales = [config["lora_alpha"] / config["r"] for _, config in parts]
    shapes = {key: tensor.shape for tensors, _ in parts for key, tensor in tensors.items()}
    joined = {}
    for key, shape in sorted(shapes.items()):
        first = ".lora_A." in key
        rows = []
        for (tensors, _), rank, scale in zip(parts, ranks, scales):
            empty = torch.zeros((rank, shape[1]) if first else (shape[0], rank))  # a layer that this one leaves as it is
            part = tensors.get(key, empty)
            rows.append(part if first or scale == scales[-1] else part * (scale / scales[-1]))
        joined[key] = torch.cat(rows, 0 if first else 1).contiguous()
    names = sorted({name for _, config in parts for name in config["target_modules"]})
    return joined, {**parts[-1][1], "r": sum(ranks), "lora_alpha": scales[-1] * sum(ranks), "target_modules": names}


def _plain(tensors: dict[str, Tensor], config: dict[str, Any]) -> bool:
    """Whether each layer gains lora_alpha / r times its B A, and nothing else."""
    rank = config.get("r")
    fits = {".lora_A.weight": 0, ".lora_B.weight": 1}
    return (config.get("peft_type") == "LORA" and config.get("bias") == "none" and not any(config.get(k) for k in SPECIAL)
            and isinstance(config.get("target_modules"), list)
            and all(any(key.endswith(end) and value.ndim == 2 and value.shape[at] == rank for end, at in fits.items())
                    for key, value in tensors.items()))


def public_name(word: str) -> str | None:
    """What others can load a base by: a hub id, a path from here (never an absolute one), or None where there is neither."""
    path = Path(word)
    if not word or word in ("toy", "smollm2") or path.is_file() or (path / CONFIG).is_file():  # or an adapter of others
        return None
    if path.is_dir():
        here = path / "model" if (path / "lineage.json").is_file() else path
        found = os.path.relpath(here)
        return found if found.startswith("..") else f"./{found}"  # a hub id never begins with a dot
    return word if not path.is_absolute() and word.count("/") <= 1 and ":" not in word else None


def settle(folder: Path, run: Path) -> None:
    """Makes what peft saved into `folder`, a run's model/, name the model it belongs to, without paths of this machine."""
    shutil.rmtree(folder / OWN, ignore_errors=True)
    config = read_json(folder / CONFIG)
    config["target_modules"] = _sorted(config["target_modules"])
    write_adapter(folder, config=config, base=None)  # so much is true, whatever is found of its parents
    try:
        found = chain(folder, run)
    except UserError:  # saved where its parent is not
        return
    if len(found.folders) == 1:
        write_adapter(folder, config=config, base=public_name(found.root))
        return
    summed = stack((*found.folders[:-1], folder))
    if summed is None:
        return
    (folder / OWN).mkdir()
    for name in (CONFIG, WEIGHTS):
        (folder / name).rename(folder / OWN / name)
    write_json(folder / "harken.json", {**read_json(folder / "harken.json"), "own": OWN})
    write_adapter(folder, *summed, base=public_name(found.root), parts=len(found.folders))


def write_adapter(folder: Path, tensors: dict[str, Tensor] | None = None, config: dict[str, Any] | None = None, *,
                  base: str | None, parts: int = 1) -> None:
    """peft's two files and a README; the tensors stay as they are where none are given."""
    from safetensors.torch import save_file
    assert config is not None
    if tensors is not None:
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / CONFIG, {**config, "base_model_name_or_path": base})
    sentence = "It belongs to the model it was trained from" if parts == 1 else \
        f"It is the sum of {parts} adapters that were trained one on the other, and belongs to the model beneath them all"
    named = f": `{base}`." if base else "; Harken knows which (harken.json), and it has no name by which peft could load it."
    (folder / "README.md").write_text(README.format(what=sentence + named, base=repr(base) if base else "…", folder="."),
                                      encoding="utf-8")


def _sorted(names: Any) -> Any:
    return sorted(names) if isinstance(names, list) else names
