"""From a word to what scores a corpus: a scorer that ships, any reward, one's own class as my.module:Scorer, or Dolma's
attributes as dolma:FOLDER=KEY."""

from __future__ import annotations

from typing import Any

from harken.core.errors import UserError
from harken.core.find import imported, raised
from harken.core.records import content_hash
from harken.launch.shipped import open_shipped, scorer_names


def open_scorer(spec: str) -> Any:
    """A reward with an `id` that names it and its version. Raises `UserError` where there is none."""
    name, _, attribute = spec.partition(":")
    if name == "dolma":
        folder, _, key = attribute.rpartition("=")
        if not folder or not key.lstrip("-"):
            raise UserError(f"{spec} names no attribute.", "Write dolma:FOLDER=KEY, or dolma:FOLDER=-KEY where higher is worse.")
        from harken.store.dolma import DolmaScores
        return DolmaScores(folder, key.lstrip("-"), -1 if key.startswith("-") else 1)
    ships = name in scorer_names() and "," not in spec
    scorer = open_shipped(name, attribute, spec) if ships else None
    if getattr(scorer, "id", ""):
        return scorer
    if not ships and attribute.isidentifier() and all(p.isidentifier() for p in name.split(".")):
        return _own(name, attribute)
    from harken.launch.rewards import open_reward, parse_reward
    reward = open_reward(spec)
    if not getattr(reward, "id", ""):
        reward.id = "reward/" + content_hash(parse_reward(spec).identity())[:16]  # type: ignore[attr-defined]
    return reward


def _own(name: str, attribute: str) -> Any:
    spec = f"{name}:{attribute}"
    make = imported(spec, f"{name} cannot be imported: there is no such module.", "Write my.module:Scorer.")
    try:
        scorer = make()
    except UserError:
        raise
    except Exception as error:  # whatever a scorer of somebody's own raises
        raise UserError(f"{spec} cannot be made: {raised(error)}.", "Correct it, and try again.") from None
    named = isinstance(getattr(scorer, "id", None), str) and scorer.id
    if not named or not any(hasattr(scorer, n) for n in ("rate", "score", "rate_segments", "rate_document")):
        raise UserError(f"{spec} is no scorer: it needs an id (a text), and rate(text) or score(prompts, completions).",
                        "harken.text.scorer.TextReward is a base for one.")
    return scorer
