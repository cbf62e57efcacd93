"""Several rewards as one: their mean, their least (WCO), or the mean less their disagreement (UWO); Coste et al. 2310.02743.

    harken score --reward runs/rm1,runs/rm2,runs/rm3 --data comparisons.jsonl --out scores.jsonl     the mean
    harken train rloo --reward min:runs/rm1,runs/rm2,runs/rm3 …                                      worst case
    harken train rloo --reward uwo=0.5:runs/rm1,runs/rm2,runs/rm3 …                                  mean − 0.5 · variance

What one member was fooled by the others may not be: the more an answer exploits an error of one, the more they disagree.
Errors that all share (the same base model, the same biased labels) remain: an ensemble herds, it does not prove.
Members must speak one scale: runs of reward_model do (log-odds, their demonstrations at 0); a scorer beside them does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import UserError
from harken.core.protocols import Reward
from harken.core.records import Prompt

COMBINE = ("mean", "min", "uwo")


class EnsembleReward:
    """`combine` is mean, min or uwo (mean − `penalty` · variance over members, divided by M − 1)."""

    def __init__(self, members: Mapping[str, Reward], combine: str = "mean", penalty: float = 0.5) -> None:
        if len(members) < 2:
            raise UserError(f"An ensemble needs two rewards, found {len(members)}.", "Name several, with commas between them.")
        assert combine in COMBINE, combine
        self.members, self.combine, self.penalty = dict(members), combine, penalty

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """[P], [P][G] -> [P][G]; None where any member has no score."""
        return _shaped(self._combined(self._members(prompts, completions)), completions)

    def score_and_disagreement(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]
                               ) -> tuple[list[list[float | None]], list[list[float | None]]]:
        """Both, from one pass over the members."""
        scores_MN = self._members(prompts, completions)
        return _shaped(self._combined(scores_MN), completions), _shaped(scores_MN.std(0, ddof=1), completions)

    def disagreement(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """The members' standard deviation on every completion."""
        return _shaped(self._members(prompts, completions).std(0, ddof=1), completions)

    def explain(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[Mapping[str, float] | None]]:
        """What each member says, and how far they disagree. These are not parts of a sum."""
        scores_MN = self._members(prompts, completions)
        names = [*self.members, "disagreement"]
        rows = iter([None if np.isnan(row).any() else dict(zip(names, [*row.tolist(), float(row.std(ddof=1))]))
                     for row in scores_MN.T])
        return [[next(rows) for _ in texts] for texts in completions]

    def _members(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """[M, N] scores, NaN where there is none."""
        return np.array([[np.nan if s is None else s for row in member.score(prompts, completions) for s in row]
                         for member in self.members.values()], dtype=np.float64)

    def _combined(self, scores_M_N: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.combine == "min":
            return np.asarray(scores_M_N.min(0))
        mean = scores_M_N.mean(0)
        return np.asarray(mean if self.combine == "mean" else mean - self.penalty * scores_M_N.var(0, ddof=1))


def _shaped(flat: NDArray[np.float64], completions: Sequence[Sequence[str]]) -> list[list[float | None]]:
    values = iter([None if np.isnan(v) else float(v) for v in flat])
    return [[next(values) for _ in texts] for texts in completions]


class WeightedReward:
    """A weighted sum of rewards, whatever their kinds; None where any of them has no score."""

    def __init__(self, members: Mapping[str, Reward], weights: Sequence[float]) -> None:
        assert len(members) == len(weights) > 0
        self.members, self.weights = dict(members), tuple(weights)

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """[P], [P][G] -> [P][G]."""
        parts = [member.score(prompts, completions) for member in self.members.values()]
        return [[_weighted([part[p][g] for part in parts], self.weights) for g in range(len(texts))]
                for p, texts in enumerate(completions)]

    def explain(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[Mapping[str, float] | None]]:
        """Each member's share of the sum."""
        parts = {name: member.score(prompts, completions) for name, member in self.members.items()}
        def share(p: int, g: int) -> Mapping[str, float] | None:
            given = {name: part[p][g] for name, part in parts.items()}
            parts_of = {n: w * s for (n, s), w in zip(given.items(), self.weights) if s is not None}
            return parts_of if len(parts_of) == len(given) else None
        return [[share(p, g) for g in range(len(texts))] for p, texts in enumerate(completions)]


def _weighted(scores: Sequence[float | None], weights: Sequence[float]) -> float | None:
    given = [w * s for w, s in zip(weights, scores) if s is not None and s == s]
    return sum(given) if len(given) == len(scores) else None
