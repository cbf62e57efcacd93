"""What people said while a canary ran, as outcomes for its stop rule (stats.sequential).

Two kinds count: a preference between an answer of the new model and one of the old is +1, -1 or 0; a thumb on the new one is
compared with the thumbs on the old one since the last. Of each person the first preference and the first thumb on each model
count: outcomes of one person are not independent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harken.core.records import Judgment
from harken.launch.loop.recipe import Recipe
from harken.stats.sequential import Reading, against_recent
from harken.store.database import open_database


def read_canary(recipe: Recipe, new: str, old: str, since: str) -> Reading:
    """`new` and `old` are names of served models, `since` when the canary began. Only what was answered since counts."""
    rows: list[tuple[str, Judgment]] = []
    for name in recipe.db:
        with open_database(name, create=False) as db:
            rows += [(row["created_at"], j) for j, row in db.answered() if row["created_at"] >= since]
    rows.sort(key=lambda r: r[0])
    return recipe.canary.rule.read(outcomes((j for _, j in rows), new, old))


def outcomes(judgments: Iterable[Judgment], new: str, old: str) -> list[float]:
    """In the order of arrival."""
    found: list[tuple[int, float]] = []
    events: list[tuple[bool, float]] = []
    at: list[int] = []
    seen: set[tuple[str, str]] = set()
    for place, judgment in enumerate(judgments):
        served = judgment.payload.get("served")
        who = judgment.labeler or ""
        if judgment.kind == "ranking" and isinstance(served, list) and len(served) == 2:
            models = [_model(s) for s in served]
            if sorted(models) == sorted((new, old)) and (who, "pair") not in seen:
                seen.add((who, "pair"))
                first, second = judgment.payload["ranks"]
                won = float((second > first) - (second < first))
                found.append((place, won if models[0] == new else -won))
        elif judgment.kind == "thumb" and isinstance(served, Mapping) and _model(served) in (new, old):
            model = _model(served)
            if (who, model) not in seen:
                seen.add((who, model))
                before = len(against_recent(events))
                events.append((model == new, float(bool(judgment.payload["label"]))))
                if len(against_recent(events)) > before:
                    at.append(place)
    found += list(zip(at, against_recent(events)))
    return [d for _, d in sorted(found, key=lambda f: f[0])]


def _model(served: Any) -> str:
    return str(served.get("model", "")) if isinstance(served, Mapping) else ""
