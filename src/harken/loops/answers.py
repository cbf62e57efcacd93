"""Answers that resume: each model's answers to each prompt, saved as they are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harken.core.files import read_jsonl
from harken.core.progress import progress
from harken.core.protocols import Sampler
from harken.core.records import Prompt
from harken.core.run import Run
from harken.core.seeds import derive_seed

CHUNK = 16
"""Prompts asked at once, and lost at most when killed."""


def answers(run: Run, prompts: Sequence[Prompt], samplers: Mapping[str, Sampler], n: int, *, seed: int,
            **sampling: Any) -> list[dict[str, Any]]:
    """A row a prompt: its id, and `NAME_texts` of every sampler; continued from samples.jsonl where a run was killed.

    All samplers draw with the same seed: the same randomness makes a comparison paired.
    """
    rows = read_jsonl(run.path / "samples.jsonl")
    done = len(rows) - len(rows) % CHUNK if len(rows) < len(prompts) else len(rows)
    rows = rows[:done]
    run.rewrite("samples.jsonl", rows)
    with progress("answers", len(prompts), done, quiet=run.quiet) as advance:
        for at in range(done, len(prompts), CHUNK):
            chunk = prompts[at:at + CHUNK]
            drawn = {name: sampler.sample(chunk, n, seed=derive_seed(seed, "answers", at), **sampling)
                     for name, sampler in samplers.items()}
            new = [{"step": at + i, "prompt_id": prompt.id,
                    **{f"{name}_texts": [s.text for s in groups[i]] for name, groups in drawn.items()}}
                   for i, prompt in enumerate(chunk)]
            run.append("samples.jsonl", new)
            rows += new
            advance(len(chunk))
    return rows
