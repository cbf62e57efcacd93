"""Sampling on a GPU: many tokens between two looks at what was said. **It has not run on a card.**

On a CPU `Batch` (sampler.py) looks at every token: it is there already. A card would wait for Python each time. Here the stop
test, the counts and the drawn tokens stay on the device; the host looks every `LOOK` tokens, takes out what has ended and
refills the rows. A row that has ended goes on computing, and what it computes is thrown away. All tensors keep their shapes
and places, so that on a card, with HARKEN_CUDA_GRAPHS=1, a step is captured once as a CUDA graph and replayed; attention reads
the cache up to a multiple of `SLOTS`, a graph for each. What a sequence says depends on the same numbers as in `Batch` (P23):
tests hold both to the same tokens, and run the steps on torch's `meta` device, where whatever would wait for the device fails.
Shape suffixes: B rows, V vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from harken.core.protocols import Sample
from harken.engines.attention import Cache, using
from harken.engines.batch import IDLE_SHARE, Batch
from harken.engines.draw import draw
from harken.engines.form import body_of, shaped, state_of
from harken.engines.profile import computed_tokens, timed

LOOK = 16
"""Tokens from one look to the next."""
SLOTS = 128


class FixedCache(Cache):
    """A cache whose longest row the host bounds without asking the device."""

    bound = 0

    def _look(self) -> None:
        self.longest, self.ragged = self.bound, True
        if not hasattr(self, "rows"):
            self.rows = torch.arange(len(self.next), device=self.device)

    def reach(self, length: int) -> None:
        """From now on slots up to `length` are read, and up to the next multiple of `SLOTS`."""
        self.bound = min(self.slots, -(-(length + 1) // SLOTS) * SLOTS) - 1
        self._look()


class DeviceBatch(Batch):
    """A batch whose steps the host does not wait for."""

    kept = FixedCache

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        rows = len(self.owners)
        self.over_B = torch.ones(rows, dtype=torch.bool, device=self.engine.device)
        self.every_B = torch.arange(rows, device=self.engine.device)
        self.lengths = [0] * rows
        graphs = self.stop.is_cuda and os.environ.get("HARKEN_CUDA_GRAPHS") == "1"
        self.capture: Callable[[Callable[[], None]], Callable[[], None]] | None = captured if graphs else None
        self.graphs: dict[int, Callable[[], None] | None] = {}

    def run(self) -> Iterator[tuple[int, list[Sample]]]:
        while self.waiting or any(self.owners):
            free = [row for row, owner in enumerate(self.owners) if owner is None]
            if self.waiting and len(free) >= max(self.n, len(self.owners) // IDLE_SHARE):
                self._admit(free)
            else:
                self._steps()
            self._look()
            yield from self._whole()

    def _prefill(self, rows_PG: Sequence[Sequence[int]], prompts: Sequence[tuple[int, ...]]) -> Tensor:
        for rows, prompt in zip(rows_PG, prompts):
            for row in rows:
                self.lengths[row] = len(prompt)
        self._reach()
        return super()._prefill(rows_PG, prompts)

    def _reach(self, more: int = 0) -> None:
        assert isinstance(self.cache, FixedCache)
        self.cache.reach(max((n for n, owner in zip(self.lengths, self.owners) if owner), default=0) + more)

    @timed("decode")
    def _steps(self) -> None:
        """`LOOK` more tokens of each row that has not ended; no more than any may still say."""
        live = [row for row, owner in enumerate(self.owners) if owner]
        for step in range(min(LOOK, self.max_tokens)):
            self._reach(step)
            bound = self.cache.longest
            graph = self.graphs.get(bound)
            if self.capture and graph is None and bound in self.graphs:
                graph = self.graphs[bound] = self.capture(self._step)
            if graph is None:
                self._step()  # the first of a shape is computed as it is: kernels are chosen and memory is taken
                self.graphs[bound] = None
            else:
                graph()
        computed_tokens(self.engine, LOOK * len(live), sum((self.lengths[row] + LOOK // 2) * LOOK for row in live))

    def _step(self) -> None:
        """One more token of every row."""
        engine, cache = self.engine, self.cache
        token_B = self.ids_BT.gather(1, (self.said_B - 1).clamp(min=0)[:, None])[:, 0]
        if self.decoder is not None:
            hidden = self.decoder.step(token_B, cache.next, cache)
            with torch.autocast(hidden.device.type, enabled=False):
                logits = shaped(self.decoder.logits(hidden.float()), engine.form.scale, engine.form.cap)
        else:
            with using(None, cache):
                hidden = state_of(body_of(engine.model)(input_ids=token_B[:, None], position_ids=cache.next[:, None],
                                                        use_cache=False))[:, 0]
            logits = engine.logits(hidden)
        cache.next.add_((~self.over_B).long())
        self._put(self.every_B, logits, self.over_B)

    def _say(self, rows: Tensor, logits: Tensor) -> None:
        """The first tokens of rows that were filled."""
        self.over_B[rows] = False
        self._put(rows, logits, self.over_B[rows])

    def _put(self, rows: Tensor, logits: Tensor, over: Tensor) -> None:
        """Draws the rows' next tokens; those of rows that are over change nothing."""
        at = self.said_B[rows].clamp(max=self.max_tokens - 1)
        if self.min_tokens:
            early = (at < self.min_tokens)[:, None]
            logits[:, self.stop] = logits[:, self.stop].masked_fill(early, -torch.inf)
        if self.guide:
            logits = self.guide.ban(logits)
        token, *logps = draw(logits, self.uniform_BT[rows, at], self.temperature, self.top_p)
        self.ids_BT[rows, at] = torch.where(over, self.ids_BT[rows, at], token)
        self.logps_BT[:, rows, at] = torch.where(over, self.logps_BT[:, rows, at], torch.stack(logps))
        self.said_B[rows] = self.said_B[rows] + (~over).long()
        ended = torch.isin(token, self.stop) | (at + 1 == self.max_tokens)
        self.over_B[rows] = over | ended

    def _look(self) -> None:
        """Takes out the sequences that have ended since: the only place where the host waits."""
        over, said = torch.stack((self.over_B.long(), self.said_B)).tolist()
        for row, owner in enumerate(self.owners):
            if owner is None:
                continue
            self.lengths[row] = len(self.prompts[owner[0]]) + said[row]
            if over[row]:
                self.owners[row] = None
                finished = int(self.ids_BT[row, said[row] - 1]) in self.engine.template.stop_ids
                self.done.setdefault(owner[0], {})[owner[1]] = self._sample(row, finished)


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as a CUDA graph, which runs as often as it is called; capturing computes nothing."""
    graph = torch.cuda.CUDAGraph()
    with torch.autocast("cuda", cache_enabled=False, dtype=torch.get_autocast_dtype("cuda"),
                        enabled=torch.is_autocast_enabled("cuda")), torch.cuda.graph(graph):
        step()
    return graph.replay
