"""Sampling from a live queue: requests join while others are being answered, and leave when they end or are given up.

    live = Live(sampler, deliver, rows=64)                 # `deliver` hears, in the sampler's thread, what each step said
    live.submit(Ask(ids, n=1, max_tokens=64, temperature=0.0, seed=7))
    live.close()

A sequence's numbers are those that `sampler.sample([prompt], n, …, seed=seed)` takes, whatever else is being answered: the
server's answers are the offline sampler's, but for rounding. Only rows in use are computed, and they stand at the front: the
last takes the place of one that ends.
Shape suffixes: B rows, P prompts, V vocabulary.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harken.core.protocols import Tree
from harken.core.seeds import derive_seed
from harken.engines.attention import Cache, row_of
from harken.engines.batch import Batch
from harken.engines.decoder import Decoder
from harken.engines.draw import draw
from harken.engines.profile import timed
from harken.engines.sampler import HFSampler

log = logging.getLogger("harken.serve")
PREFILL_TOKENS = 2048
"""Prompts are prefilled together up to so many tokens: those who are being answered wait meanwhile."""
SLOTS = 256
"""The cache grows by so many positions a row."""

Top = list[tuple[int, float]]


@dataclass(eq=False)
class Ask:
    """`n` continuations of a prompt. `top` is how many of the likeliest tokens are wanted beside each one said."""

    prompt: tuple[int, ...]
    n: int = 1
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    bias: Mapping[int, float] = field(default_factory=dict)
    top: int = 0
    numbers: list[list[float]] = field(default_factory=list, repr=False)

    def draw_numbers(self) -> None:
        """The sampler's own for the first prompt of a call."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "sample", 0))
        self.numbers = torch.rand(self.n, self.max_tokens, generator=generator, dtype=torch.float64).tolist()


@dataclass(eq=False)
class Score:
    """The log-probs of a text's own tokens, each given those before it."""

    ids: tuple[int, ...]
    top: int = 0


class Said(NamedTuple):
    """One token of one choice; `logp` and `top` are the model's at temperature 1. `end` is stop or length with its last."""

    ask: Ask
    choice: int
    token: int
    logp: float
    top: Top
    end: str


class Scored(NamedTuple):
    """`logps[i]` and `tops[i]` belong to the token `i + 1`: the first has nothing before it."""

    ask: Score
    logps: list[float]
    tops: list[Top]


class Failed(NamedTuple):
    """The machine failed at this (out of memory): it will not be answered."""

    ask: Ask | Score
    error: Exception


Event = Said | Scored | Failed


@dataclass
class Owner:
    """Whose a row is, how many tokens it has said, and the last one."""

    ask: Ask
    choice: int
    said: int = 0
    last: int = 0


class RowCache(Cache):
    """A cache whose first `len(next)` rows are in use, of room for more."""

    def __init__(self, room: int, device: torch.device) -> None:
        self.room = room
        super().__init__(1, SLOTS, device)
        self.next = self.next[:0]

    def _look(self) -> None:
        if len(self.next):
            super()._look()

    def make_room(self, count: int, tokens: int) -> None:
        """`count` more rows in use, each with a place for `tokens`."""
        self.next = torch.cat((self.next, self.next.new_zeros(count)))
        if tokens > self.slots:
            self.slots = -(-tokens // SLOTS) * SLOTS
            for store in (self.keys, self.values):
                for layer, old in store.items():
                    store[layer] = old.new_zeros(*old.shape[:2], self.slots, old.shape[3])
                    store[layer][:, :, :old.shape[2]] = old

    def prefill(self, layer: int, k_KRD: Tensor, v_KRD: Tensor, spans: Sequence[tuple[int, int]],
                shared: int = 0) -> None:
        for store, new in ((self.keys, k_KRD), (self.values, v_KRD)):
            if layer not in store:
                store[layer] = new.new_zeros(self.room, new.shape[0], self.slots, new.shape[2])
        super().prefill(layer, k_KRD, v_KRD, spans, shared)

    def append(self, layer: int, k_BK1D: Tensor, v_BK1D: Tensor) -> tuple[Tensor, Tensor]:
        used = len(self.next)
        for store, new in ((self.keys, k_BK1D), (self.values, v_BK1D)):
            if self.ragged:
                store[layer][self.rows, :, self.next] = new[:, :, 0].to(store[layer].dtype)
            else:
                store[layer][:used, :, self.longest] = new[:, :, 0]
        return self.keys[layer][:used, :, :self.longest + 1], self.values[layer][:used, :, :self.longest + 1]

    def move(self, source: int, target: int) -> None:
        """A row's sequence goes on in another row."""
        length = int(self.next[source])
        self.next[target] = length
        for store in (self.keys, self.values):
            for tensor in store.values():
                tensor[target, :, :length] = tensor[source, :, :length]

    def cut(self, count: int) -> None:
        """Only the first `count` rows are in use."""
        self.next = self.next[:count].clone()
        self._look()


class LiveBatch(Batch):
    """The sampler's rows, each with settings of its own."""

    def __init__(self, sampler: HFSampler, rows: int) -> None:
        self.engine, self.room = sampler.engine, rows
        self.decoder = Decoder.of(self.engine)
        self.stop = torch.tensor(self.engine.template.stop_ids, device=self.engine.device)
        self.stops = frozenset(self.engine.template.stop_ids)
        self.cache: RowCache = RowCache(rows, self.engine.device)
        self.rows: list[Owner] = []
        self.owners = self.rows  # type: ignore[assignment]  # the sampler only counts them
        self.events: list[Event] = []

    @property
    def free(self) -> int:
        return self.room - len(self.rows)

    @timed("prefill")
    def admit(self, asks: Sequence[Ask]) -> None:
        """Computes the prompts, and says the first token of each choice."""
        first, rows_PG = len(self.rows), []
        owners: list[Owner] = []
        for ask in asks:
            ask.draw_numbers()
            rows_PG.append(list(range(first + len(owners), first + len(owners) + ask.n)))
            owners += [Owner(ask, g) for g in range(ask.n)]
        self.cache.make_room(len(owners), max(len(a.prompt) + a.max_tokens for a in asks))
        self.rows += owners
        logits_PV = self._prefill(rows_PG, [a.prompt for a in asks])
        copies = torch.tensor([a.n for a in asks], device=logits_PV.device)
        self._say(torch.arange(first, len(self.rows)), logits_PV.repeat_interleave(copies, 0))

    def step(self) -> None:
        """One more token of every row."""
        device = self.engine.device
        self.ids_BT = torch.tensor([[owner.last] for owner in self.rows], device=device)
        self.said_B = torch.ones(len(self.rows), dtype=torch.long, device=device)  # the last token is the only one kept here
        self._decode(torch.arange(len(self.rows), device=device))

    def _say(self, rows: Tensor, logits: Tensor) -> None:
        """Draws the rows' next tokens, each as its request wants it; takes out those that end."""
        indices: list[int] = rows.tolist()
        owners = [self.rows[i] for i in indices]
        uniform = torch.tensor([o.ask.numbers[o.choice][o.said] for o in owners], dtype=torch.float64, device=logits.device)
        tokens, logps = logits.new_zeros(len(owners), dtype=torch.long), logits.new_zeros(len(owners))
        alike: dict[tuple[float, float], list[int]] = {}
        for i, owner in enumerate(owners):
            alike.setdefault((owner.ask.temperature, owner.ask.top_p), []).append(i)
        tilted = self._tilt(owners, logits)
        for (temperature, top_p), some in alike.items():
            at = torch.tensor(some, device=logits.device)
            whole = len(some) == len(owners)
            tokens[at], _, logps[at] = draw(tilted if whole else tilted[at], uniform[at], temperature, top_p)
        if tilted is not logits:  # the model's own log-probs are without the bias
            logps = logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        tops = self._tops(owners, logits)
        gone = []
        for i, owner, token, logp, top in zip(indices, owners, tokens.tolist(), logps.tolist(), tops):
            owner.said, owner.last = owner.said + 1, token
            end = "stop" if token in self.stops else "length" if owner.said == owner.ask.max_tokens else ""
            self.events.append(Said(owner.ask, owner.choice, token, logp, top, end))
            if end:
                gone.append(i)
        self.remove(gone)

    def _tilt(self, owners: Sequence[Owner], logits: Tensor) -> Tensor:
        """The logits with what requests add to those of single tokens."""
        biased = [i for i, owner in enumerate(owners) if owner.ask.bias]
        if not biased:
            return logits
        tilted = logits.clone()
        for i in biased:
            for token, more in owners[i].ask.bias.items():
                tilted[i, token] += more
        return tilted

    def _tops(self, owners: Sequence[Owner], logits: Tensor) -> list[Top]:
        wanted = [i for i, owner in enumerate(owners) if owner.ask.top]
        tops: list[Top] = [[] for _ in owners]
        if wanted:
            found = likeliest(logits[wanted], max(owners[i].ask.top for i in wanted))
            for i, top in zip(wanted, found):
                tops[i] = top[:owners[i].ask.top]
        return tops

    def remove(self, gone: Sequence[int]) -> None:
        """Rows that are given up: the last ones take their places."""
        for row in sorted(gone, reverse=True):
            last = len(self.rows) - 1
            if row != last:
                self.cache.move(last, row)
                self.rows[row] = self.rows[last]
            self.rows.pop()
        if gone:
            self.cache.cut(len(self.rows))

    def score(self, job: Score) -> None:
        """A text's log-probs, in parts, so that its logits are never all kept."""
        if len(job.ids) < 2:
            self.events.append(Scored(job, [], []))
            return
        row = row_of([Tree(job.ids[:1], (job.ids[1:],))], self.engine.device, keep_last=False)
        hidden = self.engine.hidden(row)[row.sources]
        logps: list[float] = []
        tops: list[Top] = []
        for at in range(0, len(hidden), 256):
            logits = self.engine.logits(hidden[at:at + 256])
            targets = row.targets[at:at + 256]
            logps += (logits.gather(-1, targets[:, None])[:, 0] - logits.logsumexp(-1)).tolist()
            tops += likeliest(logits, job.top) if job.top else [[] for _ in targets]
        self.events.append(Scored(job, logps, tops))


def likeliest(logits_BV: Tensor, count: int) -> list[Top]:
    """The `count` likeliest tokens of each row with their log-probs, likeliest first."""
    best, ids = logits_BV.topk(count, -1)
    best = best - logits_BV.logsumexp(-1, keepdim=True)
    return [list(zip(row, some)) for row, some in zip(ids.tolist(), best.tolist())]


class Live:
    """A thread that answers what is submitted, as many at once as there are rows. All methods may be called from any thread."""

    def __init__(self, sampler: HFSampler, deliver: Callable[[list[Event]], None], rows: int = 64) -> None:
        self.sampler, self.deliver, self.room = sampler, deliver, rows
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._waiting: deque[Ask] = deque()
        self._scores: deque[Score] = deque()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="harken-live", daemon=True)
        self._thread.start()

    def submit(self, ask: Ask | Score) -> None:
        """Puts a request in line. An `Ask` for more choices than there are rows is never answered: it must be refused before."""
        assert not isinstance(ask, Ask) or (0 < ask.n <= self.room and ask.prompt and ask.max_tokens > 0)
        self._inbox.put(ask)

    def cancel(self, ask: Ask | Score, choice: int | None = None) -> None:
        """Gives up a request, or one choice of it; what was already said may still be delivered."""
        self._inbox.put((ask, choice))

    def close(self) -> None:
        """Ends the thread after the step at hand."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        engine = self.sampler.engine
        with torch.no_grad(), engine.gathered(), engine.precision():
            batch = LiveBatch(self.sampler, self.room)
            while True:
                self._take(batch, wait=not (batch.rows or self._waiting or self._scores))
                if not self._open:
                    return
                try:
                    self._work(batch)
                except Exception as error:  # out of memory, most likely: those at work are told, the others go on
                    log.exception("sampling failed")
                    lost = {id(o.ask): o.ask for o in batch.rows}.values()
                    batch = LiveBatch(self.sampler, self.room)
                    batch.events = [Failed(ask, error) for ask in lost]
                events, batch.events = batch.events, []
                if events:
                    self.deliver(events)

    def _take(self, batch: LiveBatch, wait: bool) -> None:
        """Reads the inbox; waits for it where there is nothing else to do."""
        while True:
            try:
                item = self._inbox.get(block=wait)
            except queue.Empty:
                return
            wait = False
            if item is None:
                self._open = False
                return
            if isinstance(item, Ask):
                self._waiting.append(item)
            elif isinstance(item, Score):
                self._scores.append(item)
            else:
                self._give_up(batch, *item)

    def _give_up(self, batch: LiveBatch, ask: Ask | Score, choice: int | None) -> None:
        if choice is None:
            self._waiting = deque(a for a in self._waiting if a is not ask)
            self._scores = deque(a for a in self._scores if a is not ask)
        batch.remove([i for i, o in enumerate(batch.rows) if o.ask is ask and choice in (None, o.choice)])

    def _work(self, batch: LiveBatch) -> None:
        """New requests first, then a token of every row: who waits for a first token waits no longer than a step."""
        asks: list[Ask] = []
        while self._waiting and sum(a.n for a in asks) + self._waiting[0].n <= batch.free:
            if asks and sum(len(a.prompt) for a in asks) + len(self._waiting[0].prompt) > PREFILL_TOKENS:
                break
            asks.append(self._waiting.popleft())
        if asks:
            batch.admit(asks)
        elif self._scores:
            batch.score(self._scores.popleft())
        if batch.rows:
            batch.step()
