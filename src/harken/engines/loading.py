"""From a name to a model: smollm2, toy, a run directory, a folder, a .gguf file or a hub id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harken.core import processes
from harken.core.errors import UserError
from harken.core.files import file_hash, read_json, write_json
from harken.core.records import Prompt
from harken.engines import adapters, fourbit, verdicts
from harken.engines.base import Base
from harken.engines.form import cast, need_rows, text_config
from harken.engines.heads import as_classifier, is_classifier, read_head
from harken.engines.places import cache_folder, locate, smollm2_file
from harken.engines.policies import beside, read_policy
from harken.engines.pretrained import (
    Loaded,
    from_pretrained,
    read_classifier,
    read_folder,
    read_gguf,
    read_hub,
    read_tokenizer,
    scoring,
)
from harken.engines.selfcheck import examine
from harken.engines.stacked import CONFIG, WEIGHTS, own_adapter
from harken.engines.streaming import Split
from harken.text.template import Template

ADAPTER = (CONFIG, WEIGHTS)
AGAIN = "Copy the run again, or train it again."


STREAMED = ("smollm2", "gguf", "folder", "hub", "run")
"""Kinds that may be read in the precision they compute in; adapters are merged in float32."""


def load(name: str, *, dtype: torch.dtype = torch.float32, device: str | torch.device | None = None,
         on: Base | None = None, template: str = "", split: Split | None = None) -> Loaded:
    """Loads a model for training or sampling: adapters merged, dropout off (P18), our attention set.

    `template` is the source of a chat template to use in place of its own. In `dtype` bfloat16 the weights are
    read as that, a tensor at a time, bit for bit as transformers does, and never held in float32; but for adapters, which are
    merged in float32, and models whose layers read each other's weights, which cannot be checked so.

    Onto the first GPU where there is one, unless `device` says otherwise. What is the model `on` which others stand, or
    an adapter of it, brings no weights but the adapter's, unmerged. With `split` each of several processes reads only its own
    part of a model whose files name its tensors as it does; any other is read whole, for the engine to split.

    Raises `UserError` when the model is missing, not a causal language model, or of an architecture that the engine would not
    compute exactly.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = locate(name)
    if on is not None and on.name == name:
        same = Loaded(on.model, on.template, on.lineage, name=name, base=on)
        return _with_head(same, Path(name)) if kind == "run" else same
    if on is not None and kind == "run" and (shared := _onto(on, Path(name))):
        return shared
    loaded = _ready(name, kind, dtype, device, template, split if processes.group().size > 1 else None)
    if loaded is None:
        loaded = _ready(name, kind, torch.float32, device, template)
        assert loaded is not None
        cast(loaded.model, torch.float32 if loaded.classifier else dtype)
    _check_words(loaded)
    if kind == "run":
        _with_head(loaded, Path(name))
    return loaded


def _ready(name: str, kind: str, dtype: torch.dtype, device: str | torch.device, template: str,
           split: Split | None = None) -> Loaded | None:
    """The model on its device, checked; None where it is not float32 and the check, which computes in float32 a layer at a time,
    finds no packed rows: in float32 it may find them."""
    loaded = _open(name, kind, dtype=dtype if kind in STREAMED else torch.float32, split=split)
    loaded.name = name
    if template:
        loaded.template = loaded.template.using(template)
    loaded.template.check()
    off = _dropout_off(loaded.model)
    if off:
        loaded.lineage["dropout_turned_off"] = off
    low = dtype is not torch.float32
    if low and loaded.classifier:
        return None
    if not loaded.layers:
        cast(loaded.model.to(device), dtype).eval()
    if loaded.head is not None:
        loaded.head.to(device)
    key = verdicts.identity(loaded.model, loaded.lineage, classifier=loaded.classifier)
    known = verdicts.recall(key, cache_folder())
    if loaded.layers:  # the check gathers: all must make it, or none
        known = processes.group().agree(known)
    try:
        loaded.form = examine(loaded.model, name, loaded.head if loaded.classifier else None, known)
    except UserError:
        if low:
            return None
        raise
    if low and loaded.form.plain:
        return None
    if known is None:
        verdicts.remember(key, cache_folder(), loaded.form)
    return loaded


def _open(name: str, kind: str, above: tuple[str, ...] = (), dtype: torch.dtype = torch.float32,
          split: Split | None = None) -> Loaded:
    """The model as its files have it, on the CPU. `above` are the adapters that stand on it."""
    if name in above:
        raise UserError(f"The adapter {above[0]} stands on itself.", f"Correct base_model_name_or_path in its {adapters.CONFIG}.")
    if kind == "adapter":
        return _adapter(Path(name), above)
    make: dict[str, Callable[[], Loaded]] = {
        "toy": _toy, "smollm2": lambda: read_gguf(smollm2_file(), dtype, split),
        "gguf": lambda: read_gguf(Path(name), dtype, split),
        "run": lambda: _run(Path(name), dtype, split), "hub": lambda: read_hub(name, dtype, split),
        "folder": lambda: (read_classifier(name) if is_classifier(Path(name))
                           else read_folder(name, dtype=dtype, split=split))}
    return make[kind]()


def _check_words(loaded: Loaded) -> None:
    """Raises `UserError` where the tokenizer makes tokens that the model has no row for: of a text, the template or the end."""
    template = loaded.template
    ids = (*template.prompt_ids(Prompt.of("Hello")), *template.completion_ids("Hello"), *template.stop_ids)
    need_rows(loaded.model, ids, f"The tokenizer of {loaded.name} knows {len(template.tokenizer)} tokens; its chat template")


def _adapter(path: Path, above: tuple[str, ...]) -> Loaded:
    """A LoRA folder of others, merged into the base that it names; its own tokenizer where it brings one. One of a
    sequence-classification model brings that model's last layer."""
    base = str(adapters.read_config(path)["base_model_name_or_path"])
    here = next((str(p) for p in (path / base, path.resolve() / base, Path(base)) if p.exists()), base)
    try:
        loaded = _open(here, locate(here), (*above, str(path)))
    except UserError as error:
        raise UserError(f"{path} is a LoRA adapter of {base}, which cannot be loaded: {error.fact}",
                        f"Put its base there, or write where it is into {adapters.CONFIG}.") from None
    if (path / "tokenizer_config.json").is_file():
        loaded.template = Template(read_tokenizer(path))
    rows = len(loaded.template.tokenizer)
    saved = adapters.read_tensors(path, f"The adapter {path}")
    if any("embed" in key or "lm_head" in key for key in saved) and rows > loaded.model.get_input_embeddings().weight.shape[0]:
        loaded.model.resize_token_embeddings(rows)  # trained with tokens added
    scores = is_classifier(path)
    if scores and not loaded.classifier:
        last = next((v for k, v in saved.items() if k.endswith("score.weight")), None)
        if last is None:
            raise UserError(f"The adapter {path} is one of a sequence-classification model and lacks that model's last layer.",
                            "Save it with modules_to_save=['score'], or give a run of harken train reward_model.")
        loaded.model = as_classifier(loaded.model, len(last))
        tokenizer = loaded.template.tokenizer  # transformers looks for the last token that is no padding
        pad = next((i for i in (loaded.model.config.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
                    if i is not None), None)
        loaded.model.config.pad_token_id = pad
    loaded.model = adapters.merged(loaded.model, path, f"The adapter {path}", own=False)
    loaded.lineage = adapters.lineage(path, loaded.lineage)
    return scoring(loaded, str(path)) if scores else loaded


def _run(path: Path, dtype: torch.dtype, split: Split | None = None) -> Loaded:
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
        if saved.get("quantized"):  # the adapter learnt on these numbers
            fourbit.rounded(loaded.model)
        loaded.model = adapters.merged(loaded.model, own_adapter(folder), f"The adapter of the run {path}", own=True)
    else:
        loaded = from_pretrained(str(folder), str(path), AGAIN, dtype=dtype, split=split)
    _as_saved(loaded, folder, saved)
    loaded.lineage = _lineage(path, loaded.lineage)
    return loaded


def _as_saved(loaded: Loaded, folder: Path, saved: dict[str, Any]) -> None:
    """With the chat template of a run, where it was given another than its base's, and the date that it printed."""
    file = folder / "chat_template.jinja"
    if file.is_file() and (source := file.read_text(encoding="utf-8")) != loaded.template.tokenizer.chat_template:
        loaded.template = loaded.template.using(source)
    if saved.get("date"):
        loaded.template.own_day = date.fromisoformat(saved["date"])


def _check_files(path: Path, wanted: Sequence[str]) -> None:
    """Raises `UserError` where a run's model lacks a file, which peft would look for on the hub."""
    folder = path / "model"
    own = own_adapter(folder)
    files = [folder / name for name in wanted] + [own / name for name in ADAPTER if own != folder]
    if lost := [file for file in files if not file.is_file()]:
        raise UserError(f"The run {path} lacks {lost[0].relative_to(path)}.", AGAIN)
    if own != folder:  # the sum for others is not loaded here, and a damaged copy should not wait to be noticed there
        what = f"The adapter of the run {path}"
        adapters.read_tensors(folder, what)
        try:
            read_json(folder / CONFIG)
        except UserError as error:
            raise UserError(f"{what} cannot be loaded: {error.fact}", AGAIN) from None


def _onto(base: Base, path: Path) -> Loaded | None:
    """A run's adapter beside the others of `base`; None where it has none, or belongs to another model."""
    folder = path / "model"
    if base.peft is None or read_policy(path) or not (folder / "harken.json").is_file():
        return None
    saved = read_json(folder / "harken.json")
    if (saved.get("kind") != "adapter" or saved.get("base_weights") != base.lineage.get("weights")
            or saved.get("template") != base.template.hash or saved.get("quantized", "") != base.quantized):
        return None
    _check_files(path, ADAPTER)
    name = base.read(own_adapter(folder), f"The adapter of the run {path}")
    return _with_head(Loaded(base.model, base.template, _lineage(path, base.lineage), base=base, adapters=(name,)), path)


def _lineage(path: Path, base: dict[str, Any]) -> dict[str, Any]:
    files = sorted(p for p in (path / "model").iterdir() if p.suffix in (".safetensors", ".pt"))
    return {"name": str(path), "weights": [file_hash(f) for f in files], "base": base}


def _with_head(loaded: Loaded, path: Path) -> Loaded:
    """With the run's reward head, if it has one."""
    folder = path / "model"
    loaded.head, loaded.shift = None, 0.0
    if (folder / "head.pt").exists():
        form = loaded.base.form if loaded.base is not None else loaded.form
        width = form.width or int(text_config(loaded.model).hidden_size)
        loaded.head, loaded.shift, loaded.groups = read_head(folder / "head.pt", width, f"the run {path}", AGAIN)
        loaded.head.to(loaded.model.device)
    return loaded


def _base(path: Path, name: str) -> Loaded:
    """The model a run's adapter belongs to; a relative name is relative to the run."""
    base = beside(path, name)
    return _open(base, locate(base))


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


def set_stops(model: Any, template: Template) -> None:
    """transformers' generation as Harken samples: it ends where Harken ends, and draws from the whole distribution."""
    from transformers import GenerationConfig
    tokenizer = template.tokenizer
    pad = tokenizer.pad_token_id
    model.generation_config = GenerationConfig(do_sample=True, top_k=0, eos_token_id=sorted(template.stop_ids),
                                               bos_token_id=tokenizer.bos_token_id,
                                               pad_token_id=template.end_id if pad is None else pad)


def save_with(save: Callable[[Path], None], folder: Path, about: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save(folder)
    write_json(folder / "harken.json", about)
