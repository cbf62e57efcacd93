"""What the models wrote, as sets that can be browsed: an item a row, a model a column, wherever a run keeps its samples.

Runs of one evaluation are joined by item, so that two models' answers to one prompt stand side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harken.report.load import ORDER, Row, RunData, is_number
from harken.report.results import judge_of, model_of, name_of, short, win_rates

NOT_ANSWERS = {"prompt", "use_case", "id", "split", "kind"}
GROUPS = ("task", "use_case", "topic", "category", "attack", "instruction", "language", "type", "kind", "bias_type")
"""The field that tells an item's group: the first of these that a row has."""
ASKED = ("task", "instruction", "defence", "attack", "goal")
"""What tells items of one prompt apart (store.logs)."""
OWN = {"prompt", "item", "answer", "score", "why", "against", "model_text", "against_text", "model_score", "against_score", "id",
       "messages", "completion", "reward"}
MOST_RANKS = 4
TURNED = "the verdict turned with the order"
PEOPLE = "people say otherwise than the judge"


@dataclass
class Item:
    """`answers`, `scores`, `whys` have an entry a column: None where there is none."""

    prompt: Any
    group: str
    answers: list[str | None]
    scores: list[float | None]
    whys: list[str]
    details: dict[str, Any] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    """What the browser can show alone: TURNED, PEOPLE."""


@dataclass
class SampleSet:
    """`better` says which way a score is good: higher, lower, or empty."""

    title: str
    columns: list[str]
    better: str
    items: list[Item]


def sample_sets(runs: Sequence[RunData]) -> list[SampleSet]:
    """Comparisons of stages, win rates, then evaluations; what training wrote last only where there is nothing else."""
    found = [_stages(run) for run in runs if run.comparison]
    found += [_win_rate(run) for run in win_rates(runs)]
    found += _evaluations(runs)
    if not any(s.items for s in found):
        found = [_last_step(run) for run in runs if any("completion" in s for s in run.samples)]
    return [s for s in found if s.items]


def _stages(run: RunData) -> SampleSet:
    scored = {k for row in run.comparison if isinstance(row.get("gold"), Mapping) for k in row["gold"]}
    fields = scored or {k for row in run.comparison for k, v in row.items() if isinstance(v, str)} - NOT_ANSWERS
    keys = [k for k in ORDER if k in fields] + sorted(fields - set(ORDER))
    items = []
    for row in run.comparison:
        gold = row["gold"] if isinstance(row.get("gold"), Mapping) else {}
        items.append(Item(row.get("prompt"), group_of(row), [_text(row.get(k)) for k in keys],
                          [_score(gold.get(k)) for k in keys], [""] * len(keys)))
    return SampleSet(f"{run.name}: gold score", [name_of(k) for k in keys], "higher", items)


def judged(run: RunData) -> list[Row]:
    """An evaluation's rows: of result.json, or of samples.jsonl where they hold both texts."""
    held = (run.result or {}).get("samples")
    rows = [r for r in held if isinstance(r, dict)] if isinstance(held, list) else run.samples
    return [r for r in rows if "model_text" in r]


def _win_rate(run: RunData) -> SampleSet:
    r = run.result or {}
    names = [short(r.get("model", "model")), short(r.get("against", "against"))]
    items = [Item(row.get("prompt") or row.get("messages"), group_of(row), [_text(row.get("model_text")),
                                                                           _text(row.get("against_text"))],
                  [_score(row.get("model_score")), _score(row.get("against_score"))], [str(row.get("why") or "")] * 2,
                  _details(row), _marks(row))
             for row in judged(run)]
    return SampleSet(f"{run.name}: {judge_of(run)}", _distinct(names), "higher", items)


def _marks(row: Row) -> tuple[str, ...]:
    a, b, people = (_score(row.get(name)) for name in ("model_score", "against_score", "people"))
    other = a is not None and b is not None and people is not None and (a - b) * (people - 0.5) < 0
    return (*([TURNED] if row.get("turned") is True else []), *([PEOPLE] if other else []))


def _evaluations(runs: Sequence[RunData]) -> list[SampleSet]:
    """Runs of one evaluation joined by item, in the order of the runs."""
    together: dict[str, list[RunData]] = {}
    for run in runs:
        held = (run.result or {}).get("samples")
        if isinstance(held, list) and held and (run.result or {}).get("name") not in (None, "win_rate"):
            together.setdefault(str((run.result or {})["name"]), []).append(run)
    found = []
    for name, members in together.items():
        if name == "reward":
            found += [_ranked(run) for run in members]
        elif any(is_number(row.get("against")) for run in members for row in rows_of(run)):
            found += [_before_after(run) for run in members]
        else:
            found.append(_joined(name, members))
    return found


def rows_of(run: RunData) -> list[Row]:
    held = (run.result or {}).get("samples")
    return [r for r in held if isinstance(r, dict)] if isinstance(held, list) else []


def keyed(rows: Iterable[Row]) -> dict[tuple[str, ...], Row]:
    """Rows by what was asked; the same question asked again is numbered."""
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = (str(row.get("item") or row.get("prompt") or row.get("text")), *(str(row.get(name)) for name in ASKED))
        again = 0
        while (*key, str(again)) in found:
            again += 1
        found[(*key, str(again))] = row
    return found


def _joined(name: str, members: Sequence[RunData]) -> SampleSet:
    columns = _distinct([model_of(run, default=run.name) for run in members])
    read = [keyed(rows_of(run)) for run in members]
    items = []
    for key in dict.fromkeys(k for rows in read for k in rows):
        rows = [part.get(key, {}) for part in read]
        first = next(row for row in rows if row)
        items.append(Item(first.get("prompt") or first.get("item") or "", group_of(first),
                          [_text(row.get("answer", row.get("text"))) for row in rows], [_score(_scored(row)) for row in rows],
                          [str(row.get("why") or "") for row in rows], _details_of(rows, columns)))
    return SampleSet(name_of(name), columns, str((members[0].result or {}).get("better", "")), items)


def _scored(row: Row) -> Any:
    return next((row[k] for k in ("score", "kl", "fault", "value") if k in row), None)


def _before_after(run: RunData) -> SampleSet:
    r = run.result or {}
    columns = _distinct([model_of(run, default="model"), model_of(run, "against", "before")])
    items = [Item(row.get("prompt") or row.get("item") or "", group_of(row), [_text(row.get("answer")), _text(row.get("other"))],
                  [_score(row.get("score")), _score(row.get("against"))], [str(row.get("why") or "")] * 2, _details(row))
             for row in rows_of(run)]
    return SampleSet(run.name, columns, str(r.get("better", "")), items)


def _ranked(run: RunData) -> SampleSet:
    """A reward's scores: the answers of a prompt by people's ranks; the reward is wrong where a later column scores higher."""
    by_prompt: dict[str, list[Row]] = {}
    for row in rows_of(run):
        by_prompt.setdefault(str(row.get("prompt")), []).append(row)
    items = []
    for prompt, rows in by_prompt.items():
        best = sorted(rows, key=lambda r: r["rank"] if is_number(r.get("rank")) else 99)[:MOST_RANKS]
        blank = [None] * (MOST_RANKS - len(best))
        items.append(Item(prompt, group_of(best[0]), [*(_text(r.get("answer")) for r in best), *blank],
                          [*(_score(r.get("score")) for r in best), *blank], [""] * MOST_RANKS))
    used = max((sum(a is not None for a in i.answers) for i in items), default=0)
    for item in items:
        item.answers, item.scores, item.whys = item.answers[:used], item.scores[:used], item.whys[:used]
    return SampleSet(f"{run.name}: what people ranked", ["preferred", "next", "third", "fourth"][:used], "higher", items)


def _last_step(run: RunData) -> SampleSet:
    last = max((s["step"] for s in run.samples if is_number(s.get("step"))), default=None)
    items = [Item(row.get("prompt"), group_of(row), [_text(row.get("completion"))], [_score(row.get("reward"))], [""],
                  _details(row)) for row in run.samples if row.get("step") == last]
    return SampleSet(f"{run.name}, step {last}", [name_of(run.kind)], "higher", items)


def group_of(row: Row) -> str:
    found = next((row[k] for k in GROUPS if isinstance(row.get(k), str) and row[k]), "")
    return str(found)


def _details(row: Row) -> dict[str, Any]:
    """Short fields beside text and score, as they are."""
    kept = {}
    for key, value in row.items():
        if key not in OWN and (value is None or isinstance(value, bool | int | float) or
                               (isinstance(value, str) and 0 < len(value) <= 2000)):
            kept[str(key).replace("_", " ")] = value if value == value else None
    return kept


def _details_of(rows: Sequence[Row], columns: Sequence[str]) -> dict[str, Any]:
    """Of several models: what all say alike once, the rest by model."""
    each = [_details(row) for row in rows]
    found: dict[str, Any] = {}
    for name in dict.fromkeys(n for details in each for n in details):
        values = [details.get(name) for details, row in zip(each, rows) if row]
        if all(v == values[0] for v in values) and (isinstance(values[0], str) or len(columns) == 1):
            found[name] = values[0]
        else:
            found |= {f"{name} ({column})": details[name] for details, column in zip(each, columns) if name in details}
    return found


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _score(value: Any) -> float | None:
    return float(value) if is_number(value) or isinstance(value, bool) else None


def _distinct(names: Sequence[str]) -> list[str]:
    return [f"{name} ({names[:i].count(name) + 1})" if name in names[:i] else name for i, name in enumerate(names)]
