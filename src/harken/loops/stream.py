"""Windows of tokens from an annotated corpus, epoch after epoch: streamed, shuffled, packed, resumable.

    stream = Stream(annotated, tokenizer, length=256, seed=0)
    windows = stream.take(64, writer)           # a step's
    saved = stream.state()                      # and later: stream.load(saved)

Documents follow one another, each closed by the end token, and are cut into windows that share one token with the next, so
that every token is predicted once and nothing is padded. A pool of row groups is held at a time and shuffled; the order of
row groups is drawn anew each epoch. Everything is a function of the seed and the position.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import UserError
from harken.core.seeds import derive_seed
from harken.store.annotations import Annotated, Scored
from harken.store.splits import in_share
from harken.text.tags import encode

POOL_GROUPS = 8
AT_ONCE = 64
"""Documents tokenised together."""


@dataclass
class Tokens:
    """A run of tokens: their ids, the score of the segment each belongs to (nan: none), and which are control tokens."""

    ids: NDArray[np.int32]
    scores: NDArray[np.float64]
    tags: NDArray[np.bool_]

    @classmethod
    def of(cls, ids: Sequence[int], scores: Sequence[float], tags: Sequence[bool]) -> Tokens:
        return cls(np.array(ids, np.int32), np.array(scores, np.float64), np.array(tags, bool))

    def __getitem__(self, part: slice) -> Tokens:
        return Tokens(self.ids[part], self.scores[part], self.tags[part])

    def __len__(self) -> int:
        return len(self.ids)


def joined(parts: Sequence[Tokens]) -> Tokens:
    return Tokens(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("ids", "scores", "tags")))


NOTHING = Tokens.of([], [], [])
Writer = Callable[[Scored, Sequence[Sequence[int]], int, random.Random], Tokens | None]
"""(document, token ids of each segment, which copy of it, randomness of its own) -> what is learnt; None leaves it out."""


class Stream:
    """Where the corpus is read. `holdout` is the share of documents that is never given; `copies` how often a document comes
    at most in an epoch: the writer is asked for each."""

    def __init__(self, annotated: Annotated, tokenizer: Any, *, length: int, seed: int, holdout: float = 0.0,
                 copies: int = 1) -> None:
        self.annotated, self.tokenizer, self.length, self.seed = annotated, tokenizer, length, seed
        self.holdout, self.copies = holdout, copies
        self.groups = annotated.groups()
        self.epoch = self.pool = self.at = 0
        self.documents = self.left_out = 0
        self._rest = NOTHING
        self._texts: list[tuple[Scored, int]] | None = None
        self._coded: list[list[list[int]]] = []

    def take(self, count: int, writer: Writer) -> list[Tokens]:
        """The next windows, of `length` + 1 tokens; the first of each was the last of the one before."""
        parts, size, want = [self._rest], len(self._rest), count * self.length + 1
        epoch, given = self.epoch, self.documents
        while size < want:
            tokens = self._next(writer)
            if tokens is not None:
                parts.append(tokens)
                size += len(tokens)
            elif self.epoch > epoch + 1 and self.documents == given:
                raise UserError("Not one document is left to train on.", "Lower --threshold, or raise --best.")
        whole = joined(parts)
        self._rest = whole[count * self.length:]
        return [whole[i * self.length:(i + 1) * self.length + 1] for i in range(count)]

    def _next(self, writer: Writer) -> Tokens | None:
        """What the writer makes of the next document."""
        if self._texts is None:
            self._texts, self._coded = self._read(), []
        if self.at >= len(self._texts):
            self.at, self._texts, self.pool = 0, None, self.pool + 1
            if self.pool * POOL_GROUPS >= len(self.groups):
                self.epoch, self.pool = self.epoch + 1, 0
            return None
        place = self.at % AT_ONCE
        if place == 0 or not self._coded:
            start = self.at - place
            self._coded = self.coded([d for d, _ in self._texts[start:start + AT_ONCE]])
        document, copy = self._texts[self.at]
        self.at += 1
        rng = random.Random(derive_seed(self.seed, "write", self.epoch, copy, document.id))
        tokens = writer(document, self._coded[place], copy, rng)
        self.documents += tokens is not None
        self.left_out += tokens is None
        return tokens

    def coded(self, documents: Sequence[Scored]) -> list[list[list[int]]]:
        """Token ids of every segment of each document."""
        parts = [[d.text[a:b] for a, b in zip([0, *d.ends], d.ends)] for d in documents]
        ids = iter(encode(self.tokenizer, [p for row in parts for p in row]))
        return [[next(ids) for _ in row] for row in parts]

    def _read(self) -> list[tuple[Scored, int]]:
        """The present pool's documents in their order, with the number of the copy."""
        order = list(self.groups)
        random.Random(derive_seed(self.seed, "groups", self.epoch)).shuffle(order)
        documents = (d for group in order[self.pool * POOL_GROUPS:(self.pool + 1) * POOL_GROUPS]
                     for d in self.annotated.read(*group) if not in_share(d.id, self.holdout, self.seed))
        pool = [(d, copy) for d in documents for copy in range(self.copies)]
        random.Random(derive_seed(self.seed, "pool", self.epoch, self.pool)).shuffle(pool)
        return pool

    def held_out(self, count: int) -> Iterator[tuple[Scored, list[list[int]]]]:
        """Up to `count` of the documents held out."""
        for group in self.groups:
            documents = [d for d in self.annotated.read(*group) if in_share(d.id, self.holdout, self.seed)][:count]
            yield from zip(documents, self.coded(documents))
            count -= len(documents)
            if count <= 0:
                return

    @property
    def passes(self) -> float:
        """Passes over the corpus so far, with the part of the present one; its row groups count alike."""
        if not self.groups:
            return float(self.epoch)
        before = self.pool * POOL_GROUPS
        part = self.at / len(self._texts) if self._texts else 0.0
        return self.epoch + (before + part * min(POOL_GROUPS, len(self.groups) - before)) / len(self.groups)

    def count_tokens(self) -> int:
        """Tokens of one pass over everything that is not held out, each document's end token included."""
        total = 0
        for group in self.groups:
            documents = [d for d in self.annotated.read(*group) if not in_share(d.id, self.holdout, self.seed)]
            for at in range(0, len(documents), AT_ONCE):
                total += sum(sum(map(len, row)) + 1 for row in self.coded(documents[at:at + AT_ONCE]))
        return total

    def state(self) -> dict[str, Any]:
        names = ("epoch", "pool", "at", "documents", "left_out")
        rest = {n: getattr(self._rest, n).tolist() for n in ("ids", "scores", "tags")}
        return {**{n: getattr(self, n) for n in names}, "rest": rest}

    def load(self, state: Mapping[str, Any]) -> None:
        for name in ("epoch", "pool", "at", "documents", "left_out"):
            setattr(self, name, state[name])
        self._rest = Tokens.of(*(state["rest"][n] for n in ("ids", "scores", "tags")))
        self._texts = None
