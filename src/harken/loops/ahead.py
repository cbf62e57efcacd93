"""The next step's completions, sampled while this step is learnt from: --max-staleness of 1 or more.

    ahead = Ahead(config, rollouts)     # stands in the place of what samples; PromptSteps tells it what comes next

At step t the engine gets the weights of version t; step t + 1's prompts are sampled with them while the learner learns step t.
So completions are one version old when they are learnt from, but for the first step's, whatever the speed of either: results do
not depend on who is faster. A checkpoint waits for what is being sampled and holds it, so a resumed run goes on with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harken.core import processes
from harken.core.config import RolloutConfig
from harken.core.errors import UserError
from harken.core.files import read_json, write_json
from harken.core.protocols import Resumable, Sample
from harken.core.records import Prompt

FILE = "ahead.json"
Coming = tuple[Sequence[tuple[int, ...]], int]
"""Prompts of a step, and the seed that they are sampled with."""


def check(config: RolloutConfig) -> None:
    """Raises `UserError` where completions cannot be sampled ahead."""
    if not config.max_staleness:
        return
    if not config.rollouts:
        raise UserError("--max-staleness lets another engine sample while the learner learns, and there is none.",
                        "Add --rollouts, or leave --max-staleness out.")
    if config.rollouts_sleep:
        raise UserError("--rollouts-sleep lets the server sleep while the learner learns; --max-staleness samples then.",
                        "Leave one of them out.")
    if processes.started()[1] > 1:
        raise UserError("--max-staleness needs a learner of one process.", "Leave it out under torchrun.")


class Ahead:
    """Completions of `inner`, those of the next step under way."""

    def __init__(self, config: RolloutConfig, inner: Any) -> None:
        self.config, self.inner = config, inner
        self.foreign, self.lineage, self.version = bool(getattr(inner, "foreign", False)), inner.lineage, 0
        self.coming: Callable[[int], Coming | None] = lambda step: None
        """What `PromptSteps` says of a step; None of one after the last."""
        self.pending: tuple[int, Future[list[list[Sample]]]] | None = None
        self.pool = ThreadPoolExecutor(1)

    def seen(self, prompt: Prompt) -> Prompt:
        seen: Prompt = self.inner.seen(prompt)
        return seen

    def of(self, learner: Any) -> Any:
        return self.inner.of(learner)

    def wake(self) -> None:
        self.inner.wake()

    def sleep(self) -> None:
        """It samples on."""

    def update(self, version: int) -> None:
        """The present weights, once what is being sampled with those before has been said."""
        if self.pending is not None:
            self.pending[1].result()
        self.inner.update(version)
        self.version = version

    def sample(self, prompts: Sequence[Prompt], n: int, **options: Any) -> list[list[Sample]]:
        said: list[list[Sample]] = self.inner.sample(prompts, n, **options)
        return said

    def sample_ids(self, prompts: Sequence[tuple[int, ...]], n: int, *, seed: int = 0, **options: Any) -> list[list[Sample]]:
        """`n` completions of each prompt: what was sampled ahead with this seed, or else sampled now. Begins the next step's."""
        pending, self.pending = self.pending, None
        if pending is not None and pending[0] == seed:
            said = pending[1].result()
        else:
            said = self.inner.sample_ids(prompts, n, seed=seed, **options)
        if (coming := self.coming(self.version + 1)) is not None:
            self.pending = coming[1], self._begin(coming, n, options)
        return said

    def _begin(self, coming: Coming, n: int, options: dict[str, Any]) -> Future[list[list[Sample]]]:
        prompts, seed = coming
        if getattr(self.inner, "apart", False):
            return self.pool.submit(self.inner.sample_ids, prompts, n, seed=seed, **options)
        return _done(self.inner.sample_ids(prompts, n, seed=seed, **options))  # with weights that the learner is about to change

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)
        if close := getattr(self.inner, "close", None):
            close()


class State:
    """What checkpoints hold: the method's state, and what was sampled ahead."""

    def __init__(self, inner: Resumable, ahead: Ahead) -> None:
        self.inner, self.ahead = inner, ahead

    def save_state(self, folder: Path) -> None:
        self.inner.save_state(folder)
        if self.ahead.pending is not None:
            seed, future = self.ahead.pending
            groups = [[dataclasses.asdict(s) for s in group] for group in future.result()]
            write_json(folder / FILE, {"seed": seed, "samples": groups})

    def load_state(self, folder: Path) -> None:
        self.inner.load_state(folder)
        if (folder / FILE).exists():
            saved = read_json(folder / FILE)
            self.ahead.pending = saved["seed"], _done([[_sample(s) for s in group] for group in saved["samples"]])


def _done(groups: list[list[Sample]]) -> Future[list[list[Sample]]]:
    future: Future[list[list[Sample]]] = Future()
    future.set_result(groups)
    return future


def _sample(saved: dict[str, Any]) -> Sample:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
    return Sample(**values)


