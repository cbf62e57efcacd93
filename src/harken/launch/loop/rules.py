"""The rules of a gate: those that a recipe writes, and those that hold where it writes none.

    read_rules([{"metric": "judge", "need": "not_worse", "margin": "0.2 sd", "each": "group"}], "loop.yaml")
    default_rules(["win_rate", "judge", "tax"])
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from harken.core.errors import UserError
from harken.core.find import nearest
from harken.stats.gate import Rule

ALWAYS = (Rule("win_rate", margin=0.1), Rule("win_rate", "not_worse", 0.1, each=True),
          Rule("judge", "not_worse", 0.2, each=True, spread=True))
"""A win rate alone is blind to how much is lost: a type of user whose good answers became bad and whose bad ones became a little
better still wins half its pairs. The judge's mean sees it. Its unit is the judge's own, so the margin counts its spread."""
TAX = Rule("tax", "not_worse", 0.05)
REFUSALS = 0.03
EXAMPLE = "{metric: judge, need: not_worse, margin: 0.2 sd, each: group}"


def default_rules(metrics: Iterable[str]) -> tuple[Rule, ...]:
    """What is asked where a recipe asks nothing, of the metrics that were measured."""
    names = list(metrics)
    refusals = (Rule(n, "not_worse", REFUSALS) for n in names if re.fullmatch(r"refusals(-\d+)?", n))
    return (*ALWAYS, *((TAX,) if TAX.metric in names else ()), *refusals)


def read_rules(given: Any, where: str) -> tuple[Rule, ...]:
    """Raises `UserError` for what is no rule."""
    if not isinstance(given, list | tuple):
        raise UserError(f"{where}: gate.rules is {given!r}.", f"Write a list of rules like {EXAMPLE}.")
    return tuple(_rule(row, where) for row in given)


def _rule(row: Any, where: str) -> Rule:
    if not isinstance(row, Mapping) or "metric" not in row:
        raise UserError(f"{where}: {row!r} is no rule.", f"Write {EXAMPLE}.")
    names = ("metric", "need", "margin", "each")
    if unknown := sorted(set(map(str, row)) - set(names)):
        raise UserError(f"{where}, a rule has {unknown[0]!r}, which is no setting.{nearest(unknown[0], names)}",
                        f"Settings: {', '.join(sorted(names))}.")
    need, each = row.get("need", "better"), row.get("each")
    if need not in ("better", "not_worse") or each not in (None, False, True, "group"):
        raise UserError(f"{where}: the rule on {row['metric']} cannot be read.",
                        "need is better or not_worse; each is group, or not there.")
    margin, spread = _margin(row.get("margin"), f"{where}: the margin of {row['metric']}")
    try:
        return Rule(str(row["metric"]), need, margin, bool(each), spread)
    except ValueError as error:
        raise UserError(f"{where}: {error}.", "docs/loop.md says what a rule can ask.") from None


def _margin(given: Any, where: str) -> tuple[float | None, bool]:
    """A number, or "0.2 sd"."""
    if given is None:
        return None, False
    spread = isinstance(given, str) and given.strip().endswith("sd")
    try:
        value = float(given.strip()[:-2]) if spread else given
    except ValueError:
        value = math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{where} is {given!r}, which is no number.", "Write margin: 0.05, or margin: 0.2 sd.")
    return float(value), spread
