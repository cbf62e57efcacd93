"""Sets of items written as tables: frames filled with rows.

    expanded({"items": [], "tables": [{"frames": [{"question": "What is the capital of {0}?", "right": "{1}.", "wrong": "{n1}."}],
                                       "rows": ["France|Paris", "Spain|Madrid"]}]})

{0}, {1}, … are a row's fields, {n0}, {n1}, … those of the next row (after the last, the first). `into` names the list that they
join, else "items". An item that comes twice is kept once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def expanded(data: dict[str, Any]) -> dict[str, Any]:
    """The same with its tables written out."""
    found = {name: value for name, value in data.items() if name != "tables"}
    for table in data.get("tables", ()):
        rows = [str(row).split("|") for row in table["rows"]]
        items = found.setdefault(table.get("into", "items"), [])
        items += [_filled(frame, row, after) for frame in table["frames"] for row, after in zip(rows, rows[1:] + rows[:1])]
    for name, value in found.items():
        if isinstance(value, list) and name in {t.get("into", "items") for t in data.get("tables", ())}:
            found[name] = list({json.dumps(item, sort_keys=True): item for item in value}.values())
    return found


def _filled(frame: Any, row: Sequence[str], after: Sequence[str]) -> Any:
    if isinstance(frame, str):
        return frame.format(*row, **{f"n{i}": field for i, field in enumerate(after)})
    if isinstance(frame, Mapping):
        return {key: _filled(value, row, after) for key, value in frame.items()}
    return [_filled(value, row, after) for value in frame] if isinstance(frame, list) else frame
