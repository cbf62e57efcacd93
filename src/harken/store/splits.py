"""Held-out sets that do not depend on the order of the data: by hash of what must not be shared."""

from __future__ import annotations

from harken.core.records import Choice, content_hash


def in_share(key: str, share: float, seed: int = 0) -> bool:
    """Whether `key` falls into a share (0 to 1) of all keys; the same key always does or never does."""
    return int(content_hash([seed, key])[:12], 16) / 16**12 < share


def held_out_labelers(choices: list[Choice], share: float, seed: int = 0) -> set[str]:
    """Labelers to hold out: a share of the known ones, at least one if there are five or more, else none."""
    labelers = sorted({c.labeler for c in choices if c.labeler is not None})
    if share <= 0 or len(labelers) < 5:
        return set()
    ordered = sorted(labelers, key=lambda k: content_hash([seed, k]))
    return set(ordered[: max(1, round(share * len(labelers)))])
