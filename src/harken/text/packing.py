"""Rows under a token budget, and shares of the work: nothing is padded, no tree is split."""

from __future__ import annotations

from collections.abc import Sequence


def pack(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """First-fit decreasing: indices of `sizes` in rows whose sum is at most `budget`.

    A size over the budget gets a row of its own (it cannot be split without changing the result).
    Ties keep their order, so the packing is a function of the sizes alone.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        size = sizes[index]
        for r, left in enumerate(room):
            if size <= left:
                rows[r].append(index)
                room[r] -= size
                break
        else:
            rows.append([index])
            room.append(budget - size)
    return rows


def shares(sizes: Sequence[int], parts: int) -> list[list[int]]:
    """Indices of `sizes` in `parts` of nearly equal sums, in their order: the largest first, each to the least loaded.

    At most 4/3 of the best split's load (Graham 1969). A function of the sizes alone, so every process finds the same.
    """
    bins: list[list[int]] = [[] for _ in range(parts)]
    load = [0] * parts
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        least = load.index(min(load))
        bins[least].append(index)
        load[least] += sizes[index]
    return [sorted(part) for part in bins]
