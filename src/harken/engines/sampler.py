"""Sampling: each prompt prefilled once for its completions, the rows of finished sequences refilled.

Randomness: every prompt has its own stream of numbers, one for each token of each completion, so what one
sequence does never changes another's, whichever row, batch or process samples it (P23).
Shape suffixes: B rows, P prompts, G completions a prompt, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from harken.core import processes
from harken.core.errors import UserError
from harken.core.protocols import Sample
from harken.core.records import Prompt
from harken.engines.batch import Batch, Ends
from harken.engines.distributed import collect
from harken.engines.form import need_rows
from harken.engines.hf import Engine
from harken.engines.plain import PlainBatch
from harken.engines.steering import Guide
from harken.engines.stepping import DeviceBatch
from harken.text.tags import Control, Steering, end_of_text


def longest_first(prompts: Sequence[tuple[int, ...]]) -> list[int]:
    """The order in which prompts are sampled: alike lengths run together."""
    return sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))


class HFSampler:
    """Samples from an engine's current weights; nothing is cached between calls (P19)."""

    ends_at_texts = True
    """`sample_ids` knows `stop`."""

    def __init__(self, engine: Engine, max_batch: int = 96) -> None:
        self.engine, self.max_batch, self.lineage = engine, max_batch, engine.lineage
        self.guide: Guide | None = None
        self.control: Control | None = None
        self.version = 0

    def steer(self, steering: Steering | None) -> None:
        """From now on prompts and samples get control tokens as `steering` says; None steers no more."""
        template = self.engine.template
        self.guide = None if steering is None else Guide(steering, template.tokenizer, end_of_text(template), self.engine.device)

    def of(self, learner: Engine) -> HFSampler:
        return HFSampler(learner, self.max_batch)

    def update(self, version: int) -> None:
        """The engine's weights are the learner's: there is nothing to bring."""
        self.version = version

    def wake(self) -> None:
        """Nothing to bring back: it keeps no memory between calls."""

    def sleep(self) -> None:
        """Nothing to give back."""

    def seen(self, prompt: Prompt) -> Prompt:
        """What the model is given for a prompt: the prompt itself."""
        return prompt

    def sample(self, prompts: Sequence[Prompt], n: int, *, max_tokens: int, temperature: float = 1.0, top_p: float = 1.0,
               seed: int = 0, advance: Callable[[int], None] | None = None) -> list[list[Sample]]:
        """`n` completions of each prompt: [P][n]. Temperature 0 is greedy. `advance` is told of finished prompts."""
        return self.sample_ids([self.engine.template.prompt_ids(p) for p in prompts], n, max_tokens=max_tokens,
                               temperature=temperature, top_p=top_p, seed=seed, advance=advance)

    @torch.no_grad()
    def sample_ids(self, prompts: Sequence[tuple[int, ...]], n: int, *, max_tokens: int, temperature: float = 1.0,
                   top_p: float = 1.0, seed: int = 0, min_tokens: int = 0, places: Sequence[int] | None = None,
                   stop: Sequence[str] = (), advance: Callable[[int], None] | None = None) -> list[list[Sample]]:
        """As `sample`, of prompts as token ids. `places`, where given, are the prompts to sample of all, with the numbers that
        each has among them all. A completion ends, finished, with the token that completes one of the texts `stop`, which it
        still holds."""
        if temperature < 0 or not 0 < top_p <= 1 or max_tokens < 1 or n < 1:
            raise UserError(f"Sampling needs temperature >= 0, 0 < top-p <= 1, at least 1 token and 1 sample; found "
                            f"temperature {temperature}, top-p {top_p}, {max_tokens} tokens, n {n}.")
        if self.guide:
            prompts = [self.guide.opened(p) for p in prompts]
        for i, prompt in enumerate(prompts):
            self._check(f"Prompt {i + 1}", prompt, max_tokens)
        group = processes.group()
        order = longest_first(prompts)[group.rank::group.size] if places is None else list(places)
        results: dict[int, list[Sample]] = {}
        with self.engine.gathered(), self.engine.precision():  # held open: autocast keeps its casts of adapters till it ends
            # Without a prompt of its own a process still takes part in gathering.
            ends = Ends(self.engine.template, stop) if stop else None
            kind = self._kind(texts=ends is not None)
            for together in self._apart(order, prompts):
                for i, samples in kind(self, together, prompts, n, max_tokens, temperature, top_p, min_tokens, seed, ends).run():
                    results[i] = samples
                    if advance:
                        advance(group.size)
        return collect(results, len(prompts)) if places is None else [results[i] for i in places]

    def _kind(self, texts: bool) -> Any:
        """On a card the host looks seldom, but where a tag may follow any token or `texts` end a sequence."""
        if self.engine.form.plain:
            return PlainBatch
        if self.engine.device.type == "cpu" or texts or (self.guide and self.guide.steering.each is not None):
            return Batch
        return DeviceBatch

    def _apart(self, order: Sequence[int], prompts: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """Prompts that may share a row: those on one side of the length at which rotary factors change."""
        longest = self.engine.form.longest
        parts = [[i for i in order if (0 < longest < len(prompts[i])) == long] for long in (True, False)]
        return [part for part in parts if part]

    def _check(self, what: str, prompt: tuple[int, ...], max_tokens: int) -> None:
        need_rows(self.engine.model, prompt, what)
        limit, longest = self.engine.context, self.engine.form.longest
        text = f"{what} has {len(prompt)} tokens; with {max_tokens} new ones it"
        if longest and len(prompt) <= longest < len(prompt) + max_tokens:
            raise UserError(f"{text} passes {longest}, where this model's rotary factors change for the whole text: what was "
                            "said before would get other probabilities.", "Shorten the prompt or lower --max-tokens.")
        if limit and len(prompt) + max_tokens > limit:
            raise UserError(f"{text} exceeds the model's context of {limit}.", "Shorten the prompt or lower --max-tokens.")
