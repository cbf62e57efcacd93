"""Rows under a token budget: nothing is padded, no tree is split."""

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
