"""Settings that make PyTorch fast on a CPU. They change speed, never results."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


@cache
def tune() -> None:
    """Keeps freed memory in the process (glibc): activations are not mapped, zeroed and faulted in anew
    every step. Libraries stop drawing bars of their own."""
    from transformers.utils import logging
    logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if sys.platform == "linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(M_MMAP_MAX, 0)
            libc.mallopt(M_TRIM_THRESHOLD, -1)
        except (OSError, AttributeError):  # musl has neither
            return


@contextmanager
def quiet() -> Iterator[None]:
    """Without the FutureWarning of peft, which asks transformers by an old name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
