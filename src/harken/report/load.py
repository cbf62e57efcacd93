"""Reading run directories, whole or not: what is there, and what is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from harken.core.errors import UserError
from harken.core.protocols import Estimate

Row = dict[str, Any]
ORDER = ("base", "sft", "reward_model", "rloo")


@dataclass(frozen=True)
class RunData:
    """One run directory. `result`, `summary` are None when absent; `unreadable[file]` counts lines left out."""

    path: Path
    name: str
    kind: str
    config: Row
    lineage: Row
    metrics: list[Row]
    samples: list[Row]
    result: Row | None
    summary: Row | None
    comparison: list[Row]
    audits: list[Row] = field(default_factory=list)
    unreadable: dict[str, int] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return self.result is not None or self.summary is not None


def estimate(value: object) -> Estimate | None:
    """An `Estimate` from its JSON form (or a bare number, its interval unknown: NaN); None if it is neither."""
    if isinstance(value, Mapping):
        middle, n, level = value.get("value"), value.get("n"), value.get("level")
        if not is_number(middle):
            return None
        low, high = (float(v) if is_real(v := value.get(k)) else math.nan for k in ("low", "high"))
        return Estimate(float(middle), low, high, int(n) if is_number(n) else 0, level if is_number(level) else 0.95)
    return Estimate(float(value), math.nan, math.nan, 0) if is_number(value) else None


def is_real(value: object) -> TypeGuard[float]:
    """A number, infinities included: the interval of a single observation has no end."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    return is_real(value) and math.isfinite(value)


def series(rows: Sequence[Row], key: str) -> tuple[list[tuple[float, float]], int]:
    """(step, value) points of one metric, and how many rows hold it as null or NaN."""
    held = [r for r in rows if key in r]
    points = [(float(r["step"]), float(r[key])) for r in held if is_number(r.get("step")) and is_number(r[key])]
    return points, len(held) - len(points)


def _object(path: Path) -> tuple[Row | None, int]:
    if not path.exists():
        return None, 0
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, 1
    return (value, 0) if isinstance(value, dict) else (None, 1)


def _rows(path: Path) -> tuple[list[Row], int]:
    rows, bad = [], 0
    if path.exists():
        for line in path.read_bytes().split(b"\n"):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if isinstance(value, dict):
                rows.append(value)
            else:
                bad += 1
    return rows, bad


def _load(path: Path, name: str) -> RunData:
    if not path.exists():
        raise UserError(f"{path} does not exist.", "Name run directories: harken report runs/*.")
    if not path.is_dir() or not any((path / f).exists() for f in ("config.json", "summary.json")):
        raise UserError(f"{path} is not a run directory: it holds no config.json.",
                        "Name directories that harken train, harken eval or harken quickstart wrote.")
    bad: dict[str, int] = {}
    content: dict[str, Any] = {}
    for file in ("config", "lineage", "result", "summary"):
        content[file], bad[f"{file}.json"] = _object(path / f"{file}.json")
    for file in ("metrics", "samples", "comparison", "audits"):
        content[file], bad[f"{file}.jsonl"] = _rows(path / f"{file}.jsonl")
    if bad["config.json"]:
        raise UserError(f"{path / 'config.json'} is not readable JSON.", "Leave this run out, or run it again.")
    command = str((content["config"] or {}).get("command") or ("quickstart" if content["summary"] else path.name))
    return RunData(path, name, command.split()[-1] if command.split() else path.name, content["config"] or {},
                   content["lineage"] or {}, content["metrics"], content["samples"], content["result"], content["summary"],
                   content["comparison"], content["audits"], {k: n for k, n in bad.items() if n})


def load_runs(paths: Sequence[Path]) -> list[RunData]:
    """Every run once, the runs inside a quickstart directory included, in the order given.

    Raises `UserError` for no paths at all, and for a path that is not a run directory, naming it.
    """
    if not paths:
        raise UserError("No runs were given.", "Name run directories: harken report runs/* --out report.html.")
    wanted: list[Path] = []
    for path in map(Path, paths):
        inner = sorted(p.parent for p in path.glob("*/config.json")) if path.is_dir() else []
        inner.sort(key=lambda p: ORDER.index(p.name) if p.name in ORDER else len(ORDER))
        own = (path / "config.json").exists() or (path / "summary.json").exists()
        wanted += [path, *(inner if own else [])]
    unique: dict[Path, Path] = {}
    for path in wanted:
        unique.setdefault(path.resolve(), path)
    names = [real.name for real in unique]
    return [_load(path, f"{real.parent.name}/{real.name}" if names.count(real.name) > 1 else real.name)
            for real, path in unique.items()]
