"""Questions whose answer is known, and when enough people have answered.

    marks = gold_marks(gold, answer)          # flags and pairs that agree, of how many
    settled(payloads)                         # adaptive overlap: would another vote change the outcome?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MARGIN = 2
"""Votes by which the leading verdict on a pair must lead before it is settled."""


def gold_marks(gold: Mapping[str, Any], payload: Mapping[str, Any]) -> dict[str, list[int]]:
    """Agreement with a known answer, `{"flags": [agreeing, of], "comparisons": [agreeing, of]}`.

    Only what the gold names is compared: of each completion's flags those it gives, of the ranks every pair, where
    "tied" is a verdict like the other two. Both are payloads in the item's own order.
    """
    flags = [0, 0]
    for right, given in zip(gold.get("ratings", []), payload.get("ratings", [])):
        for name, value in right.get("flags", {}).items():
            flags[1] += 1
            flags[0] += given["flags"].get(name) == value
    if "prompt_flags" in gold:
        names = set(gold["prompt_flags"]) | set(payload["prompt_flags"])
        flags[1] += len(names)
        flags[0] += len(set(gold["prompt_flags"]) & set(payload["prompt_flags"]))
    pairs = [0, 0]
    if "ranks" in gold and "ranks" in payload and len(gold["ranks"]) == len(payload["ranks"]):
        wanted, given_verdicts = _verdicts(gold["ranks"]), _verdicts(payload["ranks"])
        pairs = [sum(a == b for a, b in zip(wanted, given_verdicts)), len(wanted)]
    return {"flags": flags, "comparisons": pairs}


def add_marks(score: Mapping[str, Any], marks: Mapping[str, Sequence[int]], sign: int = 1) -> dict[str, Any]:
    return {**score, **{k: [score.get(k, [0, 0])[i] + sign * n for i, n in enumerate(m)] for k, m in marks.items()}}


def qualifies(score: Mapping[str, Any], grades: Sequence[int], thresholds: Mapping[str, float]) -> bool:
    """Whether a qualifying test is passed: each share, and the mean grade, reaches its threshold.

    What the test did not ask for is not required of anybody.
    """
    shares = {k: right / of for k in ("flags", "comparisons") for right, of in [score.get(k, (0, 0))] if of}
    if grades:
        shares["demonstrations"] = sum(grades) / len(grades)
    return all(shares[k] >= least for k, least in thresholds.items() if k in shares)


def settled(payloads: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every pair's verdict (better, worse, tied) leads the next one by `MARGIN` votes.

    Answers that rank nothing are never settled by counting: they get the whole overlap.
    """
    votes = [_verdicts(p["ranks"]) for p in payloads if "ranks" in p]
    if len(votes) < MARGIN:
        return False
    for pair in zip(*votes):
        tally = sorted((pair.count(v) for v in (-1, 0, 1)), reverse=True)
        if tally[0] - tally[1] < MARGIN:
            return False
    return True


def _verdicts(ranks: Sequence[int]) -> list[int]:
    """For each pair in order: 1 the first is better, -1 the second, 0 tied."""
    k = range(len(ranks))
    return [(ranks[j] > ranks[i]) - (ranks[j] < ranks[i]) for i in k for j in k if i < j]
