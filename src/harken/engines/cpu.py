"""Settings that make PyTorch fast on a CPU. They change speed, never results."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
LARGE = 1 << 20
"""Bytes from which a block is given back when it is freed, where memory is short."""


@cache
def tune() -> None:
    """Keeps freed memory in the process (glibc): activations are not mapped, zeroed and faulted in anew
    every step. Libraries stop drawing bars of their own."""
    from transformers.utils import logging
    logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    allocator({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1})


@cache
def give_back() -> None:
    """From now on freed memory goes back to the system at once, whatever `tune` said: layers that are computed anew ask for
    blocks of so many sizes, one between the other, that a heap which keeps them grows by the inside of every layer."""
    tune()
    allocator({M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: LARGE, M_TRIM_THRESHOLD: 128 * 1024})


def allocator(settings: dict[int, int]) -> None:
    """glibc's mallopt; elsewhere nothing."""
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        for name, value in settings.items():
            libc.mallopt(name, value)
    except (OSError, AttributeError):  # musl has neither
        return


@contextmanager
def quiet() -> Iterator[None]:
    """Without the FutureWarning of peft, which asks transformers by an old name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
