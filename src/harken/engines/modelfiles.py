"""What can be seen in a model folder's files before anything is loaded, and the hashes of those that are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import file_hash, read_json

BOUNDS = {"layers": 4_096, "width": 1_000_000, "heads": 65_536, "rows": 100_000_000}
"""Far above any model, far below what would hold the machine while it is built."""
SIZES = {"num_hidden_layers": "layers", "n_layer": "layers", "n_layers": "layers", "num_layers": "layers", "hidden_size": "width",
         "n_embd": "width", "d_model": "width", "intermediate_size": "width", "num_attention_heads": "heads", "n_head": "heads",
         "n_heads": "heads", "num_key_value_heads": "heads", "num_experts": "heads", "num_local_experts": "heads",
         "vocab_size": "rows", "max_position_embeddings": "rows"}
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
OWN_CODE = "brings its own code, which Harken does not run"


def check_config(folder: Path, name: str) -> dict[str, Any]:
    """`config.json`, once its sizes can be a model's. Raises `UserError` where it is no configuration or its sizes are absurd."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"The model {name} cannot be loaded: config.json cannot be read ({error}).",
                        "Copy or download it again.") from None
    if not isinstance(config, dict):
        raise UserError(f"The model {name} cannot be loaded: config.json holds no object.", "Copy or download it again.")
    _sizes(config, name)
    return config


def _sizes(config: dict[str, Any], name: str, where: str = "") -> None:
    for key, value in config.items():
        if isinstance(value, dict) and not where:
            _sizes(value, name, f"{key}.")
        kind = SIZES.get(key)
        if kind is None or value is None:
            continue
        parts = value if isinstance(value, list) else [value]  # some models name a size for each layer
        if not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= BOUNDS[kind] for v in parts):
            raise UserError(f"The model {name} cannot be loaded: config.json says {where}{key} {str(value)[:40]!r}.",
                            "Copy or download it again.")


def weight_files(folder: Path, name: str) -> list[Path]:
    """The files that loading reads the weights from, in its order of preference. Raises `UserError` for an index that names
    files outside the folder."""
    for single, index in (("model.safetensors", INDEXES[0]), ("pytorch_model.bin", INDEXES[1])):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return _indexed(folder, index, name)
    return []


def _indexed(folder: Path, index: str, name: str) -> list[Path]:
    table = read_json(folder / index)
    names = set(table["weight_map"].values()) if isinstance(table, dict) and isinstance(table.get("weight_map"), dict) else None
    if not names or not all(isinstance(n, str) for n in names):
        raise UserError(f"The model {name} cannot be loaded: {index} lists no files.", "Copy or download it again.")
    for part in sorted(names):
        if part != Path(part).name or part in (".", ".."):
            raise UserError(f"The model {name} cannot be loaded: {index} names {part!r}, which is not a file of its folder.",
                            "Copy or download it again, from somebody you trust.")
        if not (folder / part).is_file():
            raise UserError(f"The model {name} cannot be loaded: {part} is missing.", "Copy or download it again.")
    return [folder / part for part in sorted(names)]


def hashes(folder: Path, name: str) -> list[str]:
    return [file_hash(file) for file in weight_files(folder, name)]
