"""Which model answers: the one named, or, where several share one name, each with its weight, and nobody is told which.

A conversation stays with its model: the draw depends on who asks and on the first message. Of several choices of one request
each comes from another model as far as there are: two answers side by side compare two models, blinded.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from harken.core.records import content_hash
from harken.serve.backends import Backend
from harken.serve.shapes import Job


@dataclass(frozen=True)
class Part:
    """A job for one backend; its choices are the request's from `base` on. `prompt` is its prompt's place in the request."""

    backend: Backend
    job: Job
    base: int
    prompt: int = 0


class Arms:
    """The models served. With `weights` they are known under the one name alone."""

    def __init__(self, backends: Sequence[Backend], name: str = "", weights: Sequence[float] = ()) -> None:
        self.backends, self.weights = list(backends), list(weights)
        self.names = [name or "harken"] if weights else [b.name for b in backends]

    def turn_to(self, backends: Sequence[Backend], weights: Sequence[float]) -> None:
        """Other models, or other shares, from the next request on; those that are being answered stay with theirs. Only where
        models share a name."""
        assert self.weights and len(backends) == len(weights) and any(weights)
        self.backends, self.weights = list(backends), list(weights)

    def identity(self, name: str) -> str:
        """Of what answers under a name, as a fingerprint that tells arms apart from nothing."""
        if self.weights:
            return content_hash([[b.identity for b in self.backends], self.weights])[:16]
        return self.backends[self.names.index(name)].identity

    def parts(self, job: Job, base: int, asker: str, prompt: int = 0) -> list[Part]:
        """Who answers each choice of a job."""
        if not self.weights:
            return [Part(self.backends[self.names.index(job.model)], job, base, prompt)]
        order = self._order(job, asker)
        counts = [len(range(i, job.n, len(order))) for i in range(len(order))]
        parts = []
        for arm, count in zip(order, counts):
            if count:
                parts.append(Part(self.backends[arm], replace(job, n=count), base, prompt))
                base += count
        return parts

    def _order(self, job: Job, asker: str) -> list[int]:
        """The arms in the order of a weighted draw without replacement, fixed by the conversation's beginning; an arm of
        weight 0 is loaded and never drawn."""
        first = job.prompt.messages[0].content if job.prompt is not None else job.text or str(job.ids[:64])
        left, order = {i: w for i, w in enumerate(self.weights) if w > 0}, []
        for turn in range(len(left)):
            digest = hashlib.sha256(content_hash([asker, first, turn]).encode()).digest()
            at = int.from_bytes(digest[:8], "big") / 2**64 * sum(left.values())
            bounds = list(accumulate(left.values()))
            chosen = list(left)[min(bisect_right(bounds, at), len(left) - 1)]
            order.append(chosen)
            del left[chosen]
        return order
