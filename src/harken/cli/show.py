"""What commands print of results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harken.core.protocols import Estimate
from harken.core.terminal import one_line


def show_result_line(name: str, value: Any) -> None:
    """A figure, or a group of them, in a line."""
    if isinstance(value, dict) and "value" not in value:
        print(f"  {name}: " + ", ".join(f"{k} {_shown(v)}" for k, v in value.items() if not isinstance(v, list)))
    elif isinstance(value, dict):
        print(f"  {name}: {Estimate.from_json(value)}")
    elif value not in (None, ""):
        print(f"  {name}: {value}")


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "value" in value:
        return str(Estimate.from_json(value))
    if isinstance(value, dict):
        return "(" + ", ".join(f"{k} {_shown(v)}" for k, v in value.items()) + ")"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def show_result(path: Path, result: dict[str, Any]) -> None:
    """The figures of a finished run, a line each."""
    print(f"{path}: done")
    for name, value in result.items():
        if isinstance(value, dict) and {"value", "low", "high", "n"} <= value.keys():
            print(f"  {name}: {Estimate.from_json(value)}")
        elif name == "labelers" and isinstance(value, dict):
            print(f"  {name}: " + ", ".join(f"{one_line(who)} beta {row['beta']:.2f}" for who, row in list(value.items())[:8])
                  + (f" and {len(value) - 8} more" if len(value) > 8 else ""))
        elif isinstance(value, dict) and any(isinstance(v, dict) and "value" not in v for v in value.values()):
            for part, inner in value.items():
                show_result_line(f"{name}, {part}", inner)
        elif isinstance(value, dict) and value and all(isinstance(v, dict) and "value" in v for v in value.values()):
            print(f"  {name}:")
            for part, inner in value.items():
                show_result_line(f"  {part}", inner)
        elif isinstance(value, dict):
            parts = {k: f"{v['value']:.3f}" if isinstance(v, dict) and "value" in v else v for k, v in value.items()}
            print(f"  {name}: " + ", ".join(f"{k} {v}" for k, v in parts.items()))
        elif isinstance(value, float):
            print(f"  {name}: {value:.4f}")
        elif isinstance(value, (int, str)) and value != "":
            print(f"  {name}: {value}")
