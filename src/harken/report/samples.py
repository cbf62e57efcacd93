"""The foot of the page: what the models wrote, what is missing, and where everything came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from harken.draw import numbers
from harken.draw.html import definitions, text
from harken.report.browser import browser
from harken.report.load import Row, RunData, is_number, series
from harken.report.results import name_of
from harken.report.sets import SampleSet, judged, sample_sets

T = TypeVar("T")
SHOWN = 10
LONGEST_ANSWER = 4000  # characters of one answer shown


def _chosen(rows: Sequence[T]) -> list[T]:
    """Ten at random with a fixed seed: never the best, never the first."""
    if len(rows) <= SHOWN:
        return list(rows)
    return [rows[i] for i in sorted(np.random.default_rng(0).choice(len(rows), SHOWN, replace=False))]


def words_of(value: object) -> str:
    if not isinstance(value, str):
        return '<p class="none">missing</p>'
    if not value.strip():
        return '<p class="none">empty</p>'
    cut = f'<p class="small">… and {len(value) - LONGEST_ANSWER:,} more characters</p>' if len(value) > LONGEST_ANSWER else ""
    return f'<p class="words" dir="auto">{text(value[:LONGEST_ANSWER])}</p>{cut}'


def prompt_of(value: object) -> str:
    if isinstance(value, list):
        turns = [m for m in value if isinstance(m, Mapping)]
        return "".join(f'<div class="turn"><span class="role">{text(m.get("role", ""))}</span>'
                       f"{words_of(m.get('content'))}</div>" for m in turns)
    return words_of(value)


def _card(row: Row, answers: Sequence[tuple[str, object, object]], score_name: str, index: int, better: str = "higher") -> str:
    """Prompt above, answers side by side; an answer is (who, text, score)."""
    scores = [float(s) for _, _, s in answers if is_number(s)]
    best = (max if better == "higher" else min)(scores) if better and len(scores) > 1 and max(scores) > min(scores) else None
    columns = []
    for who, words, score in answers:
        if is_number(score):
            top = score == best
            chip = (f'<span class="chip{" top" if top else ""}">{text(score_name)} {_score(score)}'
                    f'{" · best" if top else ""}</span>')
        else:
            chip = f'<span class="chip none">no {text(score_name)}</span>' if score_name else ""
        columns.append(f'<div class="answer"><h4>{text(who)} {chip}</h4>{words_of(words)}</div>')
    use = f' <span class="about">{text(row["use_case"])}</span>' if row.get("use_case") else ""
    return (f'<article class="sample"><header><h3>Prompt {index}{use}</h3>{prompt_of(row.get("prompt"))}</header>'
            f'<div class="answers">{"".join(columns)}</div></article>')


def _score(score: float) -> str:
    return f"{score:.2f}".replace("-", "−") if 0.01 <= abs(score) < 1e4 else numbers.compact(score)


def _block(rows: Sequence[object], cards: Sequence[str], title: str) -> str:
    if not cards:
        return ""
    drawn = f"{len(cards)} of {len(rows):,} prompts, drawn at random with a fixed seed" if len(rows) > len(cards) \
        else f"all {len(rows):,}" if len(rows) > 1 else "the only one"
    return f'<p class="lead">{text(title)}: {drawn}, none picked by hand.</p>{"".join(cards)}'


def samples(runs: Sequence[RunData]) -> tuple[str, str]:
    """The browser over everything that was written, with ten of each set drawn at random for paper and for readers without a
    script; and the data that belongs behind the page's script."""
    sets = sample_sets(runs)
    shown, rest = browser(sets)
    return (shown + f'<div class="drawn">{"".join(_drawn(one) for one in sets)}</div>' if sets else ""), rest


def _drawn(one: SampleSet) -> str:
    label = "score" if any(s is not None for item in one.items for s in item.scores) else ""
    cards = [_card({"prompt": item.prompt, "use_case": item.group}, list(zip(one.columns, item.answers, item.scores)), label, i,
                   one.better) for i, item in enumerate(_chosen(one.items), 1)]
    return _block(one.items, cards, f"{one.title}: {' | '.join(one.columns)}")


def _missing(run: RunData) -> list[str]:
    notes = [f"{n} unreadable line{'s' * (n > 1)} in {file}" for file, n in run.unreadable.items()]
    for key in sorted({k for row in run.metrics for k in row} - {"step"}):
        if any(row.get(key) is None or is_number(row.get(key)) or row.get(key) != row.get(key)
               for row in run.metrics if key in row) and (count := series(run.metrics, key)[1]):
            notes.append(f"{key} missing at {count} of {len(run.metrics)} steps")
    for key in ("reward", "model_score", "against_score"):
        held = [s for s in (judged(run) or run.samples) if key in s]
        if count := sum(not is_number(s[key]) for s in held):
            notes.append(f"{count} of {len(held)} samples without {key.replace('_', ' ')}")
    golds = [g for row in run.comparison if isinstance(row.get("gold"), Mapping) for g in row["gold"].values()]
    if count := sum(not is_number(g) for g in golds):
        notes.append(f"{count} of {len(golds)} gold scores missing")
    for key, value in (run.result or run.summary or {}).items():
        if any(w in key for w in ("missing", "dropped", "skipped", "unscored")) and is_number(value) and value:
            notes.append(f"{key.replace('_', ' ')}: {value:,}")
    return notes


def missing(runs: Sequence[RunData]) -> str:
    """Counts of everything that is not in the figures above, and the runs' own notes."""
    rows = []
    for run in runs:
        notes = (run.result or run.summary or {}).get("notes")
        noted = [str(n) for n in notes] if isinstance(notes, list) else []
        lines = [*([] if run.done else ["not finished: no result.json"]), *_missing(run), *noted]
        shown = "".join(f"<li>{text(line)}</li>" for line in lines)
        cell = f"<ul>{shown}</ul>" if lines else '<span class="none">nothing</span>'
        rows.append(f'<tr><th scope="row">{text(run.name)}</th><td>{cell}</td></tr>')
    return ('<table class="plain left"><caption>Not in the figures above, by run</caption><thead><tr>'
            '<th scope="col">Run</th><th scope="col">Missing, dropped, noted</th></tr></thead>'
            f'<tbody>{"".join(rows)}</tbody></table>')


def lineage(runs: Sequence[RunData]) -> str:
    """Each run's lineage as a definition list, its settings folded away."""
    out = []
    for run in runs:
        settings = (f'<details class="data"><summary>Settings</summary>{definitions(run.config)}</details>'
                    if run.config else "")
        origin = definitions(run.lineage) if run.lineage else '<p class="none">no lineage.json</p>'
        kind = f'<span class="about">{text(name_of(run.kind))}</span>'
        out.append(f'<article class="lineage"><h3>{text(run.name)} {kind}</h3>{origin}{settings}</article>')
    return f'<div class="lineages">{"".join(out)}</div>'
