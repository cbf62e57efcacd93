"""The reference's log-probs of a data set: frozen, so computed once and kept with the run.

    reference = ReferenceSums(learner, run)
    reference.keep(trees)                   # all of them in one pass, written to reference.json; read back where it is there
    reference.of(batch)                     # [tree][completion], kept or computed now

A pass over other rows rounds otherwise. So what is kept is made in one order, before the first step, and a run that was killed
reads what it had: it ends with the bits of one that was not (P22).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harken.core import processes
from harken.core.files import read_json, write_json
from harken.core.protocols import Learner, Tree
from harken.core.records import content_hash
from harken.core.run import Run

FILE = "reference.json"


class ReferenceSums:
    """Σ_t log π_ref of whole completions."""

    def __init__(self, learner: Learner, run: Run) -> None:
        self.learner, self.run = learner, run
        self.kept: dict[Tree, list[float]] = {}

    def of(self, trees: Sequence[Tree], keep: bool = False) -> list[list[float]]:
        """[tree][completion]; `keep` computes no tree of these again."""
        if all(tree in self.kept for tree in trees):
            return [self.kept[tree] for tree in trees]
        sums = [[float(x.sum()) for x in tree] for tree in self.learner.logprobs(trees, reference=True)]
        if keep:
            self.kept |= zip(trees, sums)
        return sums

    def keep(self, trees: Sequence[Tree]) -> None:
        """All trees' sums from now on without a pass: from this run's file, where that is of the same weights and rows."""
        key = content_hash([dict(self.learner.lineage), str(self.learner.compute), [[t.prompt, t.completions] for t in trees]])
        path = self.run.path / FILE
        saved: Any = read_json(path) if path.exists() else {}
        sums = processes.group().agree(saved["sums"] if saved.get("key") == key else None)
        if sums is None:
            sums = self.of(trees)
            if processes.group().rank == 0:
                write_json(path, {"key": key, "sums": sums})
        self.kept |= zip(trees, sums)
