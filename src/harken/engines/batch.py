"""Rows of sequences that are sampled together: prompts prefilled, ended rows refilled, and how texts end a row.

Shape suffixes: B rows, P prompts, G completions a prompt, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from harken.core.protocols import Sample, Tree
from harken.core.seeds import derive_seed
from harken.engines.attention import Cache, row_of, using
from harken.engines.decoder import Decoder
from harken.engines.draw import draw
from harken.engines.form import body_of, shaped, state_of
from harken.engines.profile import computed_row, computed_token, timed
from harken.text.template import Template

IDLE_SHARE = 8
"""One row in so many may stand idle before it is refilled or given up: prompts are prefilled together, rows given up together."""


class Ends:
    """Texts that end a completion."""

    def __init__(self, template: Template, stop: Sequence[str]) -> None:
        self.template, self.stop = template, tuple(stop)
        self.window = 4 * max(map(len, stop)) + 4
        """Tokens in which a text that was just completed stands: a letter may take four, one for each of its bytes."""

    def met(self, ids_BT: Tensor, said_B: Tensor) -> Tensor:
        """Which completions [B] hold one of the texts. The last tokens are looked at first, the whole only where they hold it:
        a tokenizer may write a text's beginning otherwise."""
        found = []
        for ids, said in zip(ids_BT.tolist(), said_B.tolist()):
            last = self.template.decode(ids[max(0, said - self.window):said])
            found.append(self._holds(last) and (said <= self.window or self._holds(self.template.decode(ids[:said]))))
        return torch.tensor(found, device=ids_BT.device)

    def _holds(self, text: str) -> bool:
        return any(s in text for s in self.stop)


class Batch:
    """Rows of sequences in the making. A row that ends is given to the next sequence in line, several at a time.

    What a sequence says depends on its own prompt's numbers alone: neither on its row nor on its neighbours, but for rounding.
    """

    kept = Cache

    def __init__(self, sampler: Any, order: Sequence[int], prompts: Sequence[tuple[int, ...]], n: int, max_tokens: int,
                 temperature: float, top_p: float, min_tokens: int, seed: int, ends: Ends | None = None) -> None:
        self.engine, self.version, device = sampler.engine, sampler.version, sampler.engine.device
        self.guide, self.ends = sampler.guide, ends
        self.waiting, self.prompts, self.n = deque(order), prompts, n
        self.temperature, self.top_p, self.seed = temperature, top_p, seed
        self.max_tokens, self.min_tokens = max_tokens, min_tokens
        rows = min(max(1, sampler.max_batch // n), len(order)) * n
        self.decoder = Decoder.of(self.engine)
        self.stop = torch.tensor(self.engine.template.stop_ids, device=device)
        self.cache = self.kept(rows, len(prompts[order[0]]) + max_tokens, device)
        self.ids_BT = torch.zeros(rows, max_tokens, dtype=torch.long, device=device)
        self.logps_BT = torch.zeros(2, rows, max_tokens, device=device)
        self.uniform_BT = torch.zeros(rows, max_tokens, dtype=torch.float64, device=device)
        self.said_B = torch.zeros(rows, dtype=torch.long, device=device)
        self.owners: list[tuple[int, int] | None] = [None] * rows
        self.done: dict[int, dict[int, Sample]] = {}

    def run(self) -> Iterator[tuple[int, list[Sample]]]:
        """Each prompt's index and its samples, as they end."""
        while self.waiting or any(self.owners):
            free = [row for row, owner in enumerate(self.owners) if owner is None]
            if self.waiting and len(free) >= max(self.n, len(self.owners) // IDLE_SHARE):
                self._admit(free)
            else:
                live = torch.tensor([row for row, owner in enumerate(self.owners) if owner], device=self.engine.device)
                if not self.waiting and len(free) > len(self.owners) // IDLE_SHARE:
                    live = self._shrink(live)
                self._decode(live)
            yield from self._whole()

    def _whole(self) -> Iterator[tuple[int, list[Sample]]]:
        """Prompts of which every sequence has ended, each once."""
        for index in [i for i, samples in self.done.items() if len(samples) == self.n]:
            samples = self.done.pop(index)
            yield index, [samples[g] for g in range(self.n)]

    @timed("prefill")
    def _admit(self, free: list[int]) -> None:
        """As many prompts as fit into the free rows, computed once each and packed; and the first token of each sequence."""
        engine, count = self.engine, min(len(self.waiting), len(free) // self.n)
        indices = [self.waiting.popleft() for _ in range(count)]
        rows_PG = [free[p * self.n:(p + 1) * self.n] for p in range(count)]
        for index, rows in zip(indices, rows_PG):
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "sample", index))
            self.uniform_BT[rows] = torch.rand(self.n, self.max_tokens, generator=generator,
                                               dtype=torch.float64).to(engine.device)
            for g, row in enumerate(rows):
                self.owners[row] = index, g
        filled = torch.tensor([row for rows in rows_PG for row in rows], device=engine.device)
        logits_PV = self._prefill(rows_PG, [self.prompts[i] for i in indices])
        self.said_B[filled] = 0
        self._say(filled, logits_PV.repeat_interleave(self.n, 0))

    def _prefill(self, rows_PG: Sequence[Sequence[int]], prompts: Sequence[tuple[int, ...]]) -> Tensor:
        """Computes prompts once each, packed, into their rows of the cache; the logits of what follows each, [P, V]."""
        engine = self.engine
        self.cache.admit(rows_PG, [len(p) for p in prompts])
        packed = row_of([Tree(p, ((0,),)) for p in prompts], engine.device, keep_last=False, share=True)
        with using(packed, self.cache):
            hidden = state_of(body_of(engine.model)(input_ids=packed.ids, position_ids=packed.positions, use_cache=False))
        computed_row(engine, packed, len(packed.sources))
        logits: Tensor = engine.logits(hidden[0, packed.sources])
        return logits

    @timed("decode")
    def _decode(self, live: Tensor) -> None:
        """One more token of each live row."""
        engine, cache, every = self.engine, self.cache, len(live) == len(self.owners)
        computed_token(engine, cache, live)
        token_B = self.ids_BT.gather(1, (self.said_B - 1)[:, None])[:, 0]
        if self.decoder is not None:
            hidden = self.decoder.step(token_B, cache.next, cache)
            with torch.autocast(hidden.device.type, enabled=False):
                logits = shaped(self.decoder.logits((hidden if every else hidden[live]).float()), engine.form.scale,
                                engine.form.cap)
        else:
            with using(None, cache):
                hidden = state_of(body_of(engine.model)(input_ids=token_B[:, None], position_ids=cache.next[:, None],
                                                        use_cache=False))[:, 0]
            logits = engine.logits(hidden if every else hidden[live])
        cache.step(live)
        self._say(live, logits)

    def _say(self, rows: Tensor, logits: Tensor) -> None:
        """Draws the rows' next tokens, and takes out the sequences that end with them."""
        at = self.said_B[rows]
        if self.min_tokens:
            early = at < self.min_tokens
            logits[early.nonzero(), self.stop] = -torch.inf
        if self.guide:
            due = self.guide.due(self.ids_BT[rows], at)
            logits = self.guide.ban(logits, due)
        token, *logps = draw(logits, self.uniform_BT[rows, at], self.temperature, self.top_p)
        if self.guide:
            token, logps = self.guide.put(token, logps, due, self.stop)
        self.ids_BT[rows, at] = token
        self.logps_BT[:, rows, at] = torch.stack(logps)
        self.said_B[rows] = at + 1
        ended = torch.isin(token, self.stop)
        if self.ends:
            ended |= self.ends.met(self.ids_BT[rows], at + 1)
        over = ended | (at + 1 == self.max_tokens)
        for row, finished in zip(rows[over].tolist(), ended[over].tolist()):
            owner = self.owners[row]
            assert owner is not None
            self.owners[row] = None
            self.done.setdefault(owner[0], {})[owner[1]] = self._sample(row, finished)

    def _sample(self, row: int, finished: bool) -> Sample:
        count = int(self.said_B[row])
        tokens = tuple(self.ids_BT[row, :count].tolist())
        sampled, model = self.logps_BT[:, row, :count].tolist()
        untagged = tokens if self.guide is None else self.guide.untagged(tokens)
        return Sample(tokens, self.engine.template.decode(untagged), tuple(sampled), tuple(model), finished, self.version)

    def _shrink(self, live: Tensor) -> Tensor:
        """Nobody is waiting: gives up the rows that have ended. Returns the live rows' new numbers."""
        self.cache.keep(live)
        self.ids_BT, self.uniform_BT, self.said_B = self.ids_BT[live], self.uniform_BT[live], self.said_B[live]
        self.logps_BT = self.logps_BT[:, live]
        self.owners = [self.owners[row] for row in live.tolist()]
        return torch.arange(len(live), device=live.device)
