"""Feedback that lies in other tools' drawers: what their exports hold, as judgments.

    found = read_drawers(["traces.jsonl", "scores.jsonl"])      # None: not the export of a tool that is known
    found.judgments, found.left_out, found.tool

Each tool is a function rows -> what was judged (`tools.py`): Open WebUI, LibreChat, Langfuse, Phoenix, LangSmith, TensorZero. A
verdict and the answer it is of may lie in two files; both are given, in any order. What a tool does not record is not made up:
the judgment's payload says under `imported` which tool it is from, its id there, and what is `unknown` (rater, order, seconds).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.records import Judgment, Message, Prompt
from harken.store.drawers.tools import TOOLS, Said
from harken.store.files import raw_rows

HEAD = 20
"""Rows of each file that are looked at to know the tool."""
BROKEN = re.compile("[\0\ud800-\udfff]")
MOST = 1 << 30
"""Bytes of a file once unpacked."""


@dataclass(frozen=True)
class Drawers:
    """What the files held. `left_out` counts feedback that is no judgment of a person on a known answer, by reason."""

    tool: str
    judgments: list[Judgment]
    left_out: Mapping[str, int]


def read_drawers(paths: Sequence[str | Path]) -> Drawers | None:
    """Reads the exports of one tool, or returns None where the first file is not one. UserError where they lead to nothing."""
    first = next((Path(p) for p in paths if Path(p).is_file()), None)
    tool = first and next((name for path in paths for row in islice(_rows(Path(path)), HEAD) for name, (known, _) in TOOLS.items()
                           if known(row)), None)
    if not tool:
        return None
    rows = [row for path in paths for row in _rows(Path(path))]
    said, left_out = TOOLS[tool][1](rows)
    judgments = []
    thumbs = _binary(said)
    for one in said:
        try:
            judgments.append(_judgment(tool, one, thumbs))
        except ValueError as error:
            left_out[str(error)] += 1
    if not judgments:
        why = "; ".join(f"{n} × {reason}" for reason, n in left_out.items()) or "no feedback in it"
        raise UserError(f"{paths[0]} is an export of {tool} and gives no judgment: {why}.",
                        "Give the file with the answers as well: harken import FEEDBACK --join ANSWERS")
    return Drawers(tool, judgments, dict(left_out))


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a file; a file that is one JSON object is one row."""
    if path.suffix == ".json" and (whole := _object(path)) is not None:
        inner = whole.get("data", whole.get("items"))
        yield from inner if isinstance(inner, list) and all(isinstance(r, Mapping) for r in inner) else [whole]
        return
    try:
        for _, row in raw_rows(path, unpacked_limit=MOST):
            yield {name: _parsed(value) for name, value in row.items()}
    except UserError:
        return  # no rows that this reads: the importer of shapes says what is wrong with the file


def _object(path: Path) -> Mapping[str, Any] | None:
    """The object that a file is, where it is one."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            head = file.read(100).lstrip()
            whole = json.loads(head + file.read()) if head[:1] == "{" else None
    except (ValueError, OSError, RecursionError):
        return None
    return whole if isinstance(whole, Mapping) else None


def _parsed(value: Any) -> Any:
    """A table holds lists and objects as JSON text."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _binary(said: Sequence[Said]) -> set[str]:
    """Names of metrics whose every value is yes or no (true, false, 0, 1, -1): thumbs; others are ratings."""
    values: dict[str, set[float]] = {}
    for one in said:
        if isinstance(one.value, bool | int | float):
            values.setdefault(one.metric, set()).add(float(one.value))
    return {name for name, found in values.items() if found <= {0.0, 1.0} or found <= {-1.0, 1.0}}


def _judgment(tool: str, one: Said, thumbs: set[str]) -> Judgment:
    """Raises `ValueError` with the reason where it is none."""
    prompt = Prompt.checked(tuple(Message(*turn) for turn in one.asked), {})  # type: ignore[arg-type]
    if not one.answer.strip():
        raise ValueError("the answer is empty")
    if one.rater is not None and BROKEN.search(one.rater):
        raise ValueError("its rater's name holds a character that no database takes")
    unknown = [*(["rater"] if one.rater is None else []), "order", "seconds"]
    about = {"tool": tool, "id": one.id, "metric": one.metric, "comment": one.comment, "model": one.model, "at": one.at}
    payload: dict[str, Any] = {"completion": one.answer, "imported": {
        **{name: value for name, value in about.items() if value is not None}, "unknown": unknown}}
    if one.better is not None:
        if not one.better.strip() or one.better == one.answer:
            raise ValueError("the correction says what the answer says")
        payload |= {"completion": one.better, "original": one.answer, "spans": [], "completions": [one.better, one.answer],
                    "ranks": [1, 2]}
        return Judgment(prompt, "edit", payload, one.rater)
    if isinstance(one.value, bool) or one.metric in thumbs:
        return Judgment(prompt, "thumb", payload | {"label": float(one.value or 0) > 0}, one.rater)
    if isinstance(one.value, int | float) and 0 <= one.value < 1e12:
        return Judgment(prompt, "rating", payload | {"score": one.value}, one.rater)
    raise ValueError("its value is neither yes or no nor a number of at least 0")

