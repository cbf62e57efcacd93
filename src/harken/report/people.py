"""The people behind a reward: how far each labeler can be trusted, what each group wants, and what a score is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harken.core.protocols import Estimate
from harken.draw import numbers
from harken.draw.html import data_table, text
from harken.draw.svg import interval_bar, padded
from harken.report.load import Row, RunData, estimate, is_number
from harken.report.results import Column, estimates_table
from harken.report.samples import prompt_of, words_of

SHOWN = 24
"""Labelers in the picture; the rest is in the table of numbers."""
PARTS = 8
"""Largest parts of a score that are named; the others are added up."""
TRAITS = (Column("beta", "Rationality", "1 is the reward's own scale, 0 a coin, below 0 upside down", False, 0.0, (0.0, 1.0)),
          Column("length", "Pull towards length", "log-odds a doubling of characters", False, 0.0, (0.0,)))
OWN = (Column("accuracy", "By the group's own score", "share of its held-out pairs ranked as it did", True, 0.5),
       Column("shared_accuracy", "By the shared score", "the same pairs", True, 0.5))
APART = (Column("apart", "Ordered differently", "share of held-out pairs of answers that their scores put the other way round",
                True, None),)
WEIGHT = (Column("weight", "Weight", "log-odds a standard deviation of the attribute", False, 0.0, (0.0,)),)


def people(runs: Sequence[RunData]) -> str:
    """A part for every run that knows its labelers or its groups."""
    return "".join(f"<h3>{text(run.name)}</h3>{body}" for run in runs if (body := _labelers(run) + _groups(run)))


def parts(runs: Sequence[RunData]) -> str:
    """Weights and explained scores of every compositional reward."""
    return "".join(f"<h3>{text(run.name)}</h3>{body}" for run in runs if (body := _weights(run) + _explained(run)))


def _rows(run: RunData, key: str) -> dict[str, Row]:
    table = (run.result or {}).get(key)
    return {str(k): v for k, v in table.items() if isinstance(v, dict)} if isinstance(table, Mapping) else {}


def _between(row: Mapping[str, Any], key: str, low: str, high: str, level: float) -> Estimate | None:
    """An estimate from flat fields; `n` stays 0, which the tables leave out."""
    return estimate({"value": row.get(key), "low": row.get(low), "high": row.get(high), "n": 0, "level": level})


def _labelers(run: RunData) -> str:
    labelers = {name: row for name, row in _rows(run, "labelers").items() if is_number(row.get("beta"))}
    traits = {name: {c.key: _between(row, c.key, f"{c.key}_low", f"{c.key}_high", row.get("level", 0.9)) for c in TRAITS}
              for name, row in labelers.items()}
    if not traits:
        return ""
    order = sorted(traits, key=lambda name: traits[name]["beta"].value)  # type: ignore[union-attr]
    shown = order[:SHOWN]
    rest = f", the {len(shown)} least reliable of {len(order)}" if len(order) > len(shown) else ""
    table = data_table(f"Labelers of {run.name}", ("Labeler", "Rationality", "90% interval", "Length", "Rankings"),
                       (_labeler_cells(name, labelers[name], traits[name]["beta"]) for name in order))
    return estimates_table(f"Labelers{rest}", "Labeler", {name: traits[name] for name in shown}, TRAITS) + table


def _labeler_cells(name: str, row: Row, beta: Estimate | None) -> tuple[str, ...]:
    length = row.get("length")
    return (name, numbers.number(row["beta"]), numbers.span(beta or Estimate(0, 0, 0, 0)),
            numbers.number(length) if is_number(length) else "—", str(row.get("rankings", "—")))


def _groups(run: RunData) -> str:
    rows = {name: {c.key: estimate(row.get(c.key)) for c in OWN} for name, row in _rows(run, "groups").items()}
    pairs = {name: {"apart": estimate(row)} for name, row in _rows(run, "ordered_apart").items()}
    table = estimates_table("Held-out accuracy of each group's own score and of the shared one", "Group", rows, OWN)
    table += estimates_table("Where groups want different things", "Groups", pairs, APART)
    return table + _answers(run, "furthest_apart", "scores", "Where the groups' scores lie furthest apart, held-out prompts")


def _weights(run: RunData) -> str:
    rows = {name: {"weight": _between(row, "weight", "low", "high", 0.95)} for name, row in _rows(run, "attributes").items()
            if is_number(row.get("weight")) and row["weight"]}
    rows = dict(sorted(rows.items(), key=lambda item: -abs(item[1]["weight"].value)))  # type: ignore[union-attr]
    return estimates_table("What the score adds up", "Attribute", rows, WEIGHT)


def _explained(run: RunData) -> str:
    return _answers(run, "explained", "parts", "Scores as sums of their parts", total=True)


def _answers(run: RunData, key: str, values: str, title: str, total: bool = False) -> str:
    """Cards of prompts with answers side by side, each with named numbers as bars from 0; with `total` their sum."""
    cards = [c for c in (run.result or {}).get(key) or [] if isinstance(c, Mapping)]
    drawn = [(c.get("prompt"), [a for a in c.get("answers") or [] if isinstance(a, Mapping)]) for c in cards]
    tables = [[_amounts(a.get(values), total) for a in answers] for _, answers in drawn]
    everything = [v for card in tables for table in card for _, v in table]
    if not everything:
        return ""
    scale = padded([0.0, *everything])
    out = []
    for number, ((prompt, answers), amounts) in enumerate(zip(drawn, tables), 1):
        columns = "".join(_column(f"{chr(64 + i)}" if i <= 26 else str(i), a, rows, scale)
                          for i, (a, rows) in enumerate(zip(answers, amounts), 1))
        out.append(f'<article class="sample"><header><h4>Prompt {number}</h4>{prompt_of(prompt)}</header>'
                   f'<div class="answers">{columns}</div></article>')
    return f'<p class="lead after">{text(title)}.</p>{"".join(out)}'


def _amounts(amounts: object, total: bool) -> list[tuple[str, float]]:
    """Names and finite numbers; with `total` the largest, the rest added up, and their sum."""
    rows = [(str(k), float(v)) for k, v in amounts.items() if is_number(v)] if isinstance(amounts, Mapping) else []
    if not total or not rows:
        return rows
    rows.sort(key=lambda row: -abs(row[1]))
    others = sum(v for _, v in rows[PARTS:])
    return [*rows[:PARTS], *([("others", others)] if len(rows) > PARTS else []), ("score", sum(v for _, v in rows))]


def _column(who: str, answer: Mapping[str, Any], rows: Sequence[tuple[str, float]], scale: tuple[float, float]) -> str:
    rank = f' <span class="chip">rank {answer["rank"]:g}</span>' if is_number(answer.get("rank")) else ""
    lines = "".join(
        f'<tr><th scope="row">{text(name)}</th><td>{text(f"{v:+.2f}".replace("-", "−"))}</td><td class="wide">'
        f'{interval_bar(Estimate(v, min(v, 0.0), max(v, 0.0), 0), scale, f"{name} {v:+.2f}", reference=0.0)}</td></tr>'
        for name, v in rows)
    table = (f'<table class="plain amounts"><caption>Answer {who}</caption><tbody>{lines}</tbody></table>' if rows
             else '<p class="none">no score</p>')
    return f'<div class="answer"><h5>Answer {who}{rank}</h5>{words_of(answer.get("text"))}{table}</div>'
