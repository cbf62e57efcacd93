"""A model's weights straight from its safetensors files, each process only its own part; and what their headers say beforehand.

    model = skeleton(config, dtype)                   # parameters on `meta`: no memory; buffers as they are computed
    check_sizes(model, headers(files), name)          # config.json and weights tell of one model
    layers, ends = split(model, device, headers(files), dtype, Split(trained=False))

A tensor is read, cut and cast before the next one is: no process ever holds the whole model, nor a float32 copy of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from harken.core import processes
from harken.core.errors import UserError
from harken.engines import cpu, gathers, sharding

MOST_TIMES = 1.5
"""A model of more than so many times the numbers in its files is not theirs; tied weights stand in both once."""


@dataclass(frozen=True)
class Split:
    """How a model is read in parts (--shard): whether its weights are trained, and what they compute in."""

    trained: bool
    compute: torch.dtype = torch.float32


@dataclass(frozen=True)
class Header:
    """Where a tensor lies, and its shape."""

    file: Path
    shape: tuple[int, ...]


def headers(files: Sequence[Path]) -> dict[str, Header]:
    """Name and shape of every tensor, from the files' first bytes; {} where one is not of safetensors."""
    found: dict[str, Header] = {}
    if any(file.suffix != ".safetensors" for file in files):
        return {}
    for file in files:
        with safe_open(str(file), "pt") as tensors:
            found |= {key: Header(file, tuple(tensors.get_slice(key).get_shape())) for key in tensors.keys()}  # noqa: SIM118
    return found


def skeleton(config: Any, dtype: torch.dtype, auto: str = "AutoModelForCausalLM") -> Any:
    """The model that a configuration describes: parameters on `meta`, buffers computed."""
    import transformers
    from accelerate import init_empty_weights
    with init_empty_weights(include_buffers=False):
        model = getattr(transformers, auto).from_config(config, dtype=dtype)
    model.tie_weights()  # every parameter was made anew
    return model


def check_sizes(model: Any, known: Mapping[str, Header], name: str) -> None:
    """Raises `UserError`, naming the first tensor, where the configuration is not that of the weights: transformers fills in
    sizes that it lacks, and would build a model of gigabytes first."""
    again = "Is config.json the one that belongs to these weights? Copy or download both again."
    numbers, own = 0, not _converted(model)
    for key, parameter in model.named_parameters():
        numbers += parameter.numel()
        if own and key in known and known[key].shape != tuple(parameter.shape):
            raise UserError(f"The model {name} cannot be loaded: config.json makes {key} {list(parameter.shape)}, and "
                            f"{known[key].file.name} has {list(known[key].shape)}.", again)
    held = sum(torch.Size(header.shape).numel() for header in known.values())
    if numbers > MOST_TIMES * held:
        first = next((key for key, _ in model.named_parameters() if key not in known), "")
        raise UserError(f"The model {name} cannot be loaded: config.json describes {numbers:,} weights, its files hold {held:,}"
                        f"{f' (none named {first})' if first else ''}.", again)


def follows(model: Any, known: Mapping[str, Header]) -> bool:
    """Whether every tensor of the model is one of the files, under its own name; tied ones need stand there once."""
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    if _converted(model) or type(first) is not nn.Embedding or type(last) is not nn.Linear:
        return False
    names = dict(model.named_parameters())
    buffers = set(model.state_dict()) - set(names) - set(tied_names(model))
    return not buffers and set(names) <= set(known) and not any(b.is_meta for b in model.buffers())


def _converted(model: Any) -> bool:
    """Whether transformers renames or joins the files' tensors for models of this kind."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    return bool(get_model_conversion_mapping(model, add_legacy=False))


def tied_names(model: Any) -> list[str]:
    """Further names of a weight that stands under another already."""
    first = {id(p): n for n, p in model.named_parameters()}
    return [n for n, p in model.named_parameters(remove_duplicate=False) if first[id(p)] != n]


def split(model: Any, device: torch.device, known: Mapping[str, Header], dtype: torch.dtype,
          how: Split) -> tuple[list[Any], list[nn.Parameter]]:
    """Fills a skeleton with this process's parts; the layers and ends as `sharding.shard` returns them."""
    cpu.give_back()  # what is gathered is of many sizes, and soon let go
    model.requires_grad_(how.trained)
    names = {id(p): n for n, p in model.named_parameters()}
    reading = _Reading(known, dtype, device)
    try:
        layers, ends = sharding.shard(model, device, compute=how.compute, ends=lambda p: reading.part(names[id(p)]))
        state = {}
        for name, parameter in model.named_parameters():
            if parameter.is_meta:
                state[name] = (sharding.as_split(reading.part(name), parameter) if gathers.is_split(parameter)
                               else reading.whole(name))
        model.load_state_dict(state, strict=False, assign=True)
    finally:
        reading.close()
    for buffers in (module._buffers for module in model.modules()):
        for key, buffer in buffers.items():
            buffers[key] = None if buffer is None else buffer.to(device)
    return layers, ends


MAPPED = 32 << 20
"""Bytes read of a file before it is opened anew: what was read of a mapped file is memory of the process until it is closed."""


class _Reading:
    """One open file at a time, until `close`."""

    def __init__(self, known: Mapping[str, Header], dtype: torch.dtype, device: torch.device) -> None:
        self.known, self.dtype, self.device = known, dtype, device
        self.file: Path | None = None
        self.tensors: Any = None
        self.files = ExitStack()
        self.bytes = 0

    def part(self, name: str) -> Tensor:
        """This process's rows, as `sharding.cut` deals them."""
        rows, group = self.known[name].shape[0], processes.group()
        share = -(-rows // group.size)
        start = min(rows, share * group.rank)
        return self._cast(self._slice(name)[start:min(rows, start + share)])

    def whole(self, name: str) -> Tensor:
        return self._cast(self._slice(name)[...])

    def _slice(self, name: str) -> Any:
        file = self.known[name].file
        if file != self.file or self.bytes > MAPPED:
            self.close()
            self.bytes = 0
            self.tensors, self.file = self.files.enter_context(safe_open(str(file), "pt")), file
        return self.tensors.get_slice(name)

    def _cast(self, tensor: Tensor) -> Tensor:
        """A copy of its own: one that stayed a part of the mapped file would hold the file."""
        self.bytes += tensor.nbytes
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else None, copy=True)

    def close(self) -> None:
        self.tensors = self.file = None
        self.files.close()
