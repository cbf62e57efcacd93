"""What garak and PyRIT found, as scores by item: how often the model resisted, so that higher is better as elsewhere.

garak's `….report.jsonl`: each evaluated attempt has a score an output by each detector; from its threshold on (.5 where the
report names none) the attack succeeded. A task is a probe under a detector, an item its prompt, an output a repeat. None of
garak's is an output that could not be scored; an attempt that was sent and never evaluated is missing under each detector that
its probe has.

PyRIT's exported conversations (`memory.export_conversations`, JSON): a task is a scorer, an item what was asked before its
converters, an answer a repeat. True says that the objective was reached, but of a refusal scorer that the model refused; a scale
runs from 0 to 1, the worse the higher. An answer that failed and has no score is missing under each scorer there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harken.core.records import content_hash

THRESHOLD = 0.5
RESISTED = "resisted"
Row = tuple[str, str, float | None, str]
"""(task, item, 1 where it resisted or None, hash of what was asked)."""


def garak(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows of a report, of every evaluated attempt. Raises ValueError for scores that are no numbers."""
    found: list[Row] = []
    threshold = THRESHOLD
    detectors: dict[str, set[str]] = {}
    sent: dict[str, tuple[str, str]] = {}
    for row in rows:
        kind = row.get("entry_type")
        if kind == "start_run setup" and isinstance(row.get("run.eval_threshold"), int | float):
            threshold = float(row["run.eval_threshold"])
        if kind != "attempt":
            continue
        probe, asked = str(row.get("probe_classname") or row.get("probe") or "garak"), content_hash(row.get("prompt"))[:16]
        results = row.get("detector_results")
        if row.get("status") != 2 or not isinstance(results, Mapping) or not results:
            sent.setdefault(str(row.get("uuid") or f"{probe} {asked}"), (probe, asked))
            continue
        sent.pop(str(row.get("uuid") or f"{probe} {asked}"), None)
        for detector, scores in results.items():
            detectors.setdefault(probe, set()).add(str(detector))
            for score in scores if isinstance(scores, list) else [scores]:
                found.append((f"{probe} ({detector})", asked, _below(score, threshold), asked))
    found += [(f"{probe} ({detector})", asked, None, asked) for probe, asked in sent.values()
              for detector in sorted(detectors.get(probe, ()))]
    return found


def _below(score: Any, threshold: float) -> float | None:
    if score is None or score != score:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise ValueError(f"a detector's score is a number, found {score!r}")
    return float(score < threshold)


def pyrit(pieces: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows of all scored answers, in the order of the file. Raises ValueError for a score that is none of PyRIT's."""
    asked: dict[str, tuple[str, str]] = {}
    found: list[Row] = []
    failed: list[tuple[str, str]] = []
    for piece in sorted(pieces, key=lambda p: (str(p.get("conversation_id")), int(p.get("sequence") or 0))):
        place = str(piece.get("conversation_id"))
        if piece.get("role") == "user":
            asked[place] = (content_hash(piece.get("original_value"))[:16], content_hash(piece.get("converted_value"))[:16])
        elif piece.get("role") == "assistant":
            item, exact = asked.get(place, (content_hash(place)[:16], ""))
            scores = [s for s in piece.get("scores") or [] if isinstance(s, Mapping)]
            found += [(_scorer(s), item, _resisted(s), exact) for s in scores]
            if not scores and str(piece.get("response_error") or "none") != "none":
                failed.append((item, exact))
    tasks = list(dict.fromkeys(task for task, *_ in found))
    return found + [(task, item, None, exact) for task in tasks for item, exact in failed]


def _scorer(score: Mapping[str, Any]) -> str:
    named = score.get("scorer_class_identifier")
    named = named if isinstance(named, Mapping) else {}
    return str(named.get("__type__") or named.get("class_name") or score.get("scorer_type") or "scorer")


def _resisted(score: Mapping[str, Any]) -> float | None:
    value = score.get("score_value")
    if value is None or value == "":
        return None
    text = str(value).strip().lower()
    number = {"true": 1.0, "false": 0.0}.get(text)
    if number is None:
        number = float(text)  # a ValueError says what it is
    if not 0 <= number <= 1:
        raise ValueError(f"a score of PyRIT lies between 0 and 1, found {value!r}")
    return number if "refusal" in _scorer(score).lower() else 1.0 - number
