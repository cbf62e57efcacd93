"""Several people's rankings of the same options, as arrays.

    rankings = rankings_of(choices)          # or judgments; a unit is a prompt with one set of options

Shape suffixes: `U` units, `M` people who ranked a unit, `K` options.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harken.core.records import Choice, Judgment

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Rankings:
    """Rankings of units that at least two people ranked, units of one shape together."""

    ranks: tuple[Floats, ...]
    """Of each shape [U, M, K]: 1 is best, equal ranks are ties."""
    cluster: tuple[Ints, ...]
    """Of each shape [U]: the units' prompts."""
    labelers: int
    """How many people ranked them."""


def rankings_of(judgments: Iterable[Choice | Judgment], least: int = 3) -> Rankings:
    """Rankings of at least `least` options by named people; each person's last one of a unit counts.

    Of two options tau is 1 or -1, and undefined for a tie: for pairs, read percent agreement and kappa.
    """
    units: dict[tuple[str, tuple[str, ...]], dict[str, list[int]]] = {}
    for judgment in judgments:
        choice = judgment.choice() if isinstance(judgment, Judgment) else judgment
        if choice is None or not choice.labeler or len(set(choice.options)) < max(least, len(choice.options)):
            continue
        order = sorted(range(len(choice.options)), key=choice.options.__getitem__)
        key = choice.prompt.id, tuple(choice.options[i] for i in order)
        people = units.setdefault(key, {})
        people.pop(choice.labeler, None)
        people[choice.labeler] = [choice.ranks[i] for i in order]
    prompts: dict[str, int] = {}
    shapes: dict[tuple[int, int], tuple[list[list[list[int]]], list[int]]] = {}
    labelers: set[str] = set()
    for (prompt, options), people in units.items():
        if len(people) >= 2:
            ranks, cluster = shapes.setdefault((len(people), len(options)), ([], []))
            ranks.append(list(people.values()))
            cluster.append(prompts.setdefault(prompt, len(prompts)))
            labelers.update(people)
    return Rankings(tuple(np.array(r, dtype=np.float64) for r, _ in shapes.values()),
                    tuple(np.array(c, dtype=np.int64) for _, c in shapes.values()), len(labelers))
