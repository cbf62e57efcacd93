"""What self-check found of a model, kept in the user's cache so that the same model is not measured again at every load.

    key = identity(loaded, kind)            # None where the weights have no name that a change would change
    form = recall(key) or examine(…)        # a refusal is never kept

The key is a hash of the weight files, of the adapters merged into them, of the configuration, of how the model is held (class,
precision, device), of the versions of torch, transformers and peft, and of the source of Harken's engines. Whether the numbers
are finite is looked at in every load, kept verdict or not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import file_hash, read_json, write_json
from harken.core.records import content_hash
from harken.engines.form import Form

FOLDER = "checked"
WORTH = 10_000_000
"""Smaller models are measured in less time than a file takes."""


def identity(model: Any, lineage: Mapping[str, Any], *, classifier: bool = False) -> str | None:
    """The key of a loaded model; None where its lineage does not name all of its weights, or where it is small."""
    levels = list(_levels(lineage))
    if not all(level.get("weights") for level in levels) or sum(p.numel() for p in model.parameters()) < WORTH:
        return None
    parameter = next(model.parameters())
    held = [type(model).__qualname__, str(parameter.dtype), parameter.device.type, classifier,
            sorted((name, list(p.shape)) for name, p in model.named_parameters())]
    config = json.dumps({k: v for k, v in model.config.to_dict().items() if k != "_name_or_path"}, sort_keys=True, default=str)
    try:
        adapters = [[file_hash(file) for file in _adapter_configs(str(level.get("name", "")))] for level in levels]
    except OSError:
        return None
    return content_hash([[level["weights"] for level in levels], adapters, config, held, _versions()])


def _levels(lineage: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A model's lineage and those beneath it."""
    level: Any = lineage
    while isinstance(level, Mapping) and level:
        yield level
        level = level.get("base")


def _adapter_configs(name: str) -> list[Path]:
    """Where rank and scale of a level's adapter stand: they change what its weights do, and are no part of its weights' hash."""
    places = (Path(name), Path(name) / "model", Path(name) / "model" / "own")
    return [file for place in places if (file := place / "adapter_config.json").is_file()]


@cache
def _versions() -> list[str]:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    own = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()
    versions = [own]
    for name in ("torch", "transformers", "peft"):
        with suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    return versions


def recall(key: str | None, folder: Path) -> Form | None:
    """The verdict kept under a key; None where there is none, or none that can be read."""
    if key is None:
        return None
    try:
        kept = read_json(folder / FOLDER / f"{key}.json")
    except UserError:
        return None
    fields = {f.name: type(f.default) for f in dataclasses.fields(Form)}
    if not isinstance(kept, dict) or {name: type(value) for name, value in kept.items()} != fields:
        return None
    return Form(**kept)


def remember(key: str | None, folder: Path, form: Form) -> None:
    if key is None:
        return
    with suppress(OSError, UserError):  # a cache that cannot be written is none
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        write_json(folder / FOLDER / f"{key}.json", dataclasses.asdict(form))
