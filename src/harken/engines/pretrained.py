"""Models and tokenizers that others wrote, read by transformers: a folder, the hub, a GGUF file; no code of theirs is run."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from harken.core.errors import UserError
from harken.core.files import file_hash, read_json, write_json
from harken.engines import streaming
from harken.engines.base import Base
from harken.engines.form import Form
from harken.engines.heads import classifier_head, tail_ids
from harken.engines.modelfiles import OWN_CODE, check_config, hashes, weight_files
from harken.engines.places import cache_folder
from harken.engines.streaming import Split, check_sizes, follows, headers, skeleton
from harken.text.template import Template


@dataclass
class Loaded:
    """A causal language model with its tokenizer; `head` is a reward model's scalar head, if it has one, `groups` the
    heads and shifts of groups beside it. Loaded onto a `base`, the model is that one's, under `adapters`. `classifier`: a
    reward model of others, which has a head in place of words; `tail` are the tokens it wants after a completion's end."""

    model: Any
    template: Template
    lineage: dict[str, Any]
    head: nn.Linear | None = None
    shift: float = 0.0
    groups: dict[str, torch.Tensor] = field(default_factory=dict)
    name: str = ""
    base: Base | None = None
    adapters: tuple[str, ...] = ()
    form: Form = field(default_factory=Form)
    classifier: bool = False
    tail: tuple[int, ...] = ()
    layers: list[Any] = field(default_factory=list)
    ends: list[nn.Parameter] = field(default_factory=list)


def from_pretrained(folder: str, name: str, action: str, auto: str = "AutoModelForCausalLM", *,
                    dtype: torch.dtype = torch.float32, split: Split | None = None, **options: Any) -> Loaded:
    """Reads a model; in parts, as `split` says, where its files allow that (streaming.py). Raises `UserError`."""
    import transformers
    from transformers.utils import logging
    logging.disable_progress_bar()
    files: list[Path] = []
    if Path(folder).is_dir():
        options["local_files_only"] = True  # or a file that is missing here would be asked of the hub
        if "gguf_file" not in options:
            described = check_config(Path(folder), name)
            found = weight_files(Path(folder), name)
            files = [] if "quantization_config" in described else found  # packed numbers have other shapes
    options["trust_remote_code"] = False  # or transformers would ask, and run it after one "y"
    layers: list[Any] = []
    ends: list[nn.Parameter] = []
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        known = headers(files)
        empty = skeleton(transformers.AutoConfig.from_pretrained(folder, **options), dtype, auto) if known else None
        if empty is not None:
            check_sizes(empty, known, name)
        if split and empty is not None and follows(empty, known):
            layers, ends = streaming.split(empty, device_here(), known, dtype, split)
            model = empty.eval()
            report: dict[str, Any] = {"missing_keys": (), "mismatched_keys": ()}
        else:
            del empty
            model, report = getattr(transformers, auto).from_pretrained(folder, dtype=dtype, output_loading_info=True, **options)
    except UserError:
        raise
    except Exception as error:  # foreign files fail in as many ways as they can be damaged
        why = OWN_CODE if "trust_remote_code" in str(error) else f"cannot be loaded: {reason(error)}"
        raise UserError(f"The model {name} {why}.".replace("..", "."),
                        action if why is not OWN_CODE else "Use a model of a kind that transformers knows itself.") from None
    mapping = getattr(transformers, f"MODEL_FOR_{'CAUSAL_LM' if 'Causal' in auto else 'SEQUENCE_CLASSIFICATION'}_MAPPING")
    if type(model.config) not in mapping:
        raise UserError(f"The language model inside {name} has a configuration ({model.config.model_type}) under which "
                        "transformers saves it and does not load it again.", "Use another model: docs/models.md lists them.")
    lost = sorted({*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])})
    if lost:  # transformers would draw them at random
        raise UserError(f"The model {name} lacks {len(lost)} of its weights ({lost[0]}, …).", action)
    return Loaded(model, Template(tokenizer), {}, layers=layers, ends=ends)


def device_here() -> torch.device:
    """The first GPU, or this process's own; else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def reason(error: Exception) -> str:
    """An error's first lines as one, at most 300 characters."""
    text = " ".join(str(error).split())
    return (text if len(text) <= 300 else text[:299] + "…") or type(error).__name__


def read_hub(name: str, dtype: torch.dtype, split: Split | None = None) -> Loaded:
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
    return read_folder(name, action, dtype=dtype, split=split, local_files_only=offline)


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


def read_folder(name: str, action: str = "Is the folder complete? Copy or download it again.", **options: Any) -> Loaded:
    loaded = from_pretrained(name, name, action, **options)
    here = Path(name)
    commit = getattr(loaded.model.config, "_commit_hash", None)
    loaded.lineage = {"name": name, "weights": (hashes(here, name) if here.is_dir() else []) or commit}
    return loaded


def read_classifier(name: str) -> Loaded:
    """A sequence-classification model of others: its body, and its one label's layer as the head."""
    loaded = from_pretrained(name, name, "Copy or download it again.", "AutoModelForSequenceClassification")
    loaded.lineage = {"name": name, "weights": hashes(Path(name), name)}
    return scoring(loaded, name)


def scoring(loaded: Loaded, name: str) -> Loaded:
    """With the one label's layer as the head."""
    loaded.head, loaded.classifier = classifier_head(loaded.model, name), True
    loaded.tail = tail_ids(loaded.template)
    return loaded


def read_tokenizer(path: Path) -> Any:
    from transformers import AutoTokenizer
    try:
        return AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as in _from_pretrained
        raise UserError(f"The tokenizer of {path} cannot be loaded: {reason(error)}", "Copy or download it again.") from None


@contextmanager
def _no_bar() -> Iterator[None]:
    """Off a terminal, transformers' own bar for GGUF files would fill a log with carriage returns; it heeds no setting."""
    from transformers import modeling_gguf_pytorch_utils as reader
    bar = getattr(reader, "tqdm", None)
    if bar is None or sys.stderr.isatty():
        yield
        return
    setattr(reader, "tqdm", partial(bar, disable=True))  # noqa: B010  it is not exported
    try:
        yield
    finally:
        setattr(reader, "tqdm", bar)  # noqa: B010


def read_gguf(file: Path, dtype: torch.dtype, split: Split | None = None) -> Loaded:
    """Dequantises once into the cache: transformers refuses to save a GGUF-loaded model as it is."""
    digest = file_hash(file)
    folder = cache_folder() / f"{file.stem}-{digest[:16]}"
    if not (folder / "harken.json").exists():
        if sys.stderr.isatty():
            print(f"Converting {file.name} into {cache_folder()}, once; this takes some 20 seconds.", file=sys.stderr)
        with _no_bar():
            loaded = from_pretrained(str(file.parent), str(file),
                                      "Is it a whole GGUF file of a language model? Download it again.", gguf_file=file.name)
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
            raise UserError(f"{file} cannot be converted into {cache_folder()}: {reason(error)}",
                            "Make room there, or set HARKEN_CACHE to another folder.") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    loaded = from_pretrained(str(folder), str(file), f"Remove {folder}: it is made again.", dtype=dtype, split=split)
    loaded.lineage = read_json(folder / "harken.json")
    return loaded
