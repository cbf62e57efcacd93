"""Samples of a model with nothing before them, or after prompts: the same resuming path, a prompt one unit.

    groups = sampled(run, sampler, None, 512, seed=0, max_tokens=128)      # 8 groups of 64 texts without a prompt
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harken.core.protocols import Sampler
from harken.core.records import Message, Prompt
from harken.core.run import Run
from harken.loops.answers import answers

GROUP = 64
"""Texts without a prompt that are drawn together."""
EMPTY = Prompt((Message("user", ""),))


def sampled(run: Run, sampler: Sampler, prompts: Sequence[Prompt] | None, count: int, **sampling: Any) -> list[list[str]]:
    """`count` answers to each prompt; without prompts, `count` texts in groups of `GROUP`: [G][n]. Saved as they are made."""
    if prompts is not None:
        return [row["model_texts"] for row in answers(run, prompts, {"model": sampler}, count, **sampling)]
    size = min(GROUP, count)
    empty = [EMPTY] * math.ceil(count / size)
    texts = [t for row in answers(run, empty, {"model": sampler}, size, **sampling) for t in row["model_texts"]][:count]
    return [texts[at:at + size] for at in range(0, count, size)]
