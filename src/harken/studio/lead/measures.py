"""One measure in a lead's table of figures."""

from __future__ import annotations

from dataclasses import dataclass

from harken.core.protocols import Estimate


@dataclass(frozen=True)
class Row:
    """One measure in a table; `value` None where it is undefined. `items` is the query that lists what is behind it."""

    name: str
    value: Estimate | None
    chance: float | None
    units: int = 0
    items: str = ""
    note: str = ""
