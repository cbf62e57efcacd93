"""In which precision a model is held and multiplied."""

from __future__ import annotations

from pathlib import Path

import torch

from harken.core.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve_dtype(name: str) -> torch.dtype:
    """float32, bfloat16, or auto: bfloat16 where the hardware multiplies it."""
    if name == "auto":
        return torch.bfloat16 if multiplies_bfloat16() else torch.float32
    if name not in DTYPES:
        raise UserError(f"--dtype {name!r} is unknown.", "Use float32, bfloat16 or auto.")
    return DTYPES[name]


def multiplies_bfloat16() -> bool:
    """Whether the first card, or without one the processor, has instructions for bfloat16."""
    native = torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(native) and _has_bf16_instructions()


def _has_bf16_instructions() -> bool:
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    try:
        return any(flag in Path("/proc/cpuinfo").read_text() for flag in ("avx512_bf16", "amx_bf16"))
    except OSError:
        return False
