"""Preferences as arrays: who preferred which of two items.

    votes = votes_of(choices)            # or of judgments, which also know what was shown first
    votes.won[n]                         # 1: a was preferred, 0: a tie, -1: b was

An item is one text under one prompt. A ranking of K items gives all its C(K, 2) pairs, ties among them.

Shape suffixes: `N` votes, `I` items, `A` labelers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harken.core.records import Choice, Judgment

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

UNNAMED = "(no name)"


@dataclass(frozen=True)
class Votes:
    """Pairwise votes. Items and labelers are indices into `items` and `labelers`."""

    a: Ints
    """[N] item."""
    b: Ints
    """[N] item compared with it."""
    won: Ints
    """[N] 1: a preferred; 0: tie; -1: b preferred."""
    labeler: Ints
    """[N] who said so. All unnamed judgments share one labeler, `UNNAMED`."""
    first: Ints
    """[N] 1: a was shown before b; -1: b before a; 0: not known."""
    judgment: Ints
    """[N] which judgment the vote comes from: votes of one ranking are not independent."""
    items: tuple[tuple[str, str], ...]
    """[I] (prompt id, text)."""
    prompt: Ints
    """[I] index of the item's prompt: items of different prompts were never compared."""
    labelers: tuple[str, ...]
    """[A] names."""
    groups: tuple[Mapping[str, str], ...]
    """[A] each labeler's group tags, the last ones given."""

    def __len__(self) -> int:
        return len(self.a)

    def take(self, rows: NDArray[np.bool_] | Ints) -> Votes:
        """Some of the votes; items and labelers keep their indices."""
        fields = ("a", "b", "won", "labeler", "first", "judgment")
        return dataclasses.replace(self, **{f: getattr(self, f)[rows] for f in fields})

    @property
    def lengths(self) -> Ints:
        """[I] characters of each item."""
        return np.array([len(text) for _, text in self.items], dtype=np.int64)


CROWD = 16
"""People who voted that stand for those who did not."""


def crowd(cast: Ints) -> list[int]:
    """Whom to expect where nothing is known of somebody: 16 labelers, drawn evenly by the votes they cast ([A])."""
    reached = np.cumsum(cast) / cast.sum()
    return [int(np.searchsorted(reached, (i + 0.5) / CROWD)) for i in range(CROWD)]


def votes_of(judgments: Iterable[Choice | Judgment]) -> Votes:
    """All pairs of all rankings. Judgments that compare nothing are left out."""
    items: dict[tuple[str, str], int] = {}
    prompts: dict[str, int] = {}
    labelers: dict[str, int] = {}
    groups: list[Mapping[str, str]] = []
    rows: list[tuple[int, int, int, int, int, int]] = []
    for n, judgment in enumerate(judgments):
        choice = judgment.choice() if isinstance(judgment, Judgment) else judgment
        if choice is None:
            continue
        who = labelers.setdefault(choice.labeler or UNNAMED, len(labelers))
        if who == len(groups):
            groups.append({})
        if choice.group:
            groups[who] = dict(choice.group)
        key = choice.prompt.id
        prompts.setdefault(key, len(prompts))
        index = [items.setdefault((key, text), len(items)) for text in choice.options]
        order = judgment.order if isinstance(judgment, Judgment) else None
        if order is not None and len(order) < len(index):
            order = None  # who edited was shown the original alone
        place = {option: at for at, option in enumerate(order)} if order is not None else {}
        for i in range(len(index)):
            for j in range(i + 1, len(index)):
                if index[i] == index[j]:
                    continue  # the same text twice: nothing is compared
                won = int(np.sign(choice.ranks[j] - choice.ranks[i]))
                first = int(np.sign(place[j] - place[i])) if place else 0
                rows.append((index[i], index[j], won, who, first, n))
    table = np.array(rows, dtype=np.int64).reshape(-1, 6)
    return Votes(table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4], table[:, 5], tuple(items),
                 np.array([prompts[p] for p, _ in items], dtype=np.int64), tuple(labelers), tuple(groups))
