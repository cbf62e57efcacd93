"""Many models against each other: the full matrix of win rates, and one score a model (Bradley–Terry) with its places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harken.core.protocols import Estimate
from harken.draw import numbers
from harken.draw.html import text
from harken.report.load import RunData, estimate, is_number
from harken.report.results import Column, estimates_table, judge_of, model_of, win_rates
from harken.report.sets import judged

Cells = dict[tuple[str, str], Estimate]


def wins(runs: Sequence[RunData]) -> str:
    """A matrix a judge, of three models or more; empty where two alone were compared."""
    by_judge: dict[str, list[RunData]] = {}
    for run in win_rates(runs):
        by_judge.setdefault(judge_of(run), []).append(run)
    return "".join(_matrix(judge, part) + _scores(judge, part) for judge, part in by_judge.items() if len(_names(part)) > 2)


def _pair(run: RunData) -> tuple[str, str]:
    return model_of(run, default=run.name), model_of(run, "against", "the other")


def _names(runs: Sequence[RunData]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in _pair(run)))


def cells_of(runs: Sequence[RunData]) -> Cells:
    """Every rate and its mirror; a pair measured both ways keeps each as measured."""
    found: Cells = {}
    for run in runs:
        a, b = _pair(run)
        if (e := estimate((run.result or {}).get("value"))) and a != b:
            found[a, b] = e
            found.setdefault((b, a), Estimate(1 - e.value, 1 - e.high, 1 - e.low, e.n, e.level))
    return found


def _matrix(judge: str, runs: Sequence[RunData]) -> str:
    cells = cells_of(runs)
    mean = {name: [e.value for (a, _), e in cells.items() if a == name] for name in _names(runs)}
    names = sorted(mean, key=lambda name: -sum(mean[name]) / max(1, len(mean[name])))
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in names)
    body = ""
    for a in names:
        row = "".join(_cell(cells.get((a, b)), a == b) for b in names)
        body += f'<tr><th scope="row">{text(a)}</th>{row}</tr>'
    return ('<div class="scroll" tabindex="0" role="region" aria-label="Win rates"><table class="plain heat"><caption>How often '
            f"the row was preferred to the column by {text(judge)}, with 95% intervals over prompts; the stronger the "
            "colour, the more often</caption>"
            f'<thead><tr><th scope="col">Model</th>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def _cell(e: Estimate | None, same: bool) -> str:
    if e is None:
        return f'<td style="--share: 0"><span class="none">{"—" if same else "not compared"}</span></td>'
    return (f'<td style="--share: {e.value:.2f}"><span class="value">{text(numbers.value(e, rate=True))}</span> '
            f'<span class="range">{text(numbers.span(e, rate=True))}, n = {e.n:,}</span></td>')


def _scores(judge: str, runs: Sequence[RunData]) -> str:
    """Elo points from the verdicts on first answers, with ties half; in words where no scores exist."""
    ranking = ranked(runs)
    if isinstance(ranking, str):
        return f'<p class="lead">No single scores by {text(judge)}: {text(ranking)}.</p>' if ranking else ""
    places = ranking.places()
    order = sorted(range(len(ranking.names)), key=lambda i: -ranking.scores[i])
    rows = {f"{ranking.names[i]} (place {places[i][0]}{f' to {places[i][1]}' if places[i][0] != places[i][1] else ''})":
            {"elo": ranking.elo(i)} for i in order}
    column = Column("elo", "Elo", "1000 is the mean", False, 1000.0)
    table = estimates_table(f"Bradley–Terry scores by {judge}, in Elo points (400 are odds of 10 to 1), with 95% intervals over "
                            "prompts and the places they allow", "Model", rows, (column,))
    cycles = "; ".join(" over ".join(c) for c in ranking.cycles())
    return table + (f'<p class="lead">Cycles, which no score can show: {text(cycles)}.</p>' if cycles else "")


def ranked(runs: Sequence[RunData]) -> Any:
    """A `stats.ranking.Ranking` of the models, or why there is none."""
    from harken.stats.ranking import rank
    names = _names(runs)
    a, b, won, prompts = [], [], [], []
    for run in runs:
        one, other = (names.index(name) for name in _pair(run))
        for row in judged(run):
            x, y = row.get("model_score"), row.get("against_score")
            if one != other and is_number(x) and is_number(y):
                a.append(one)
                b.append(other)
                won.append((x > y) - (x < y))
                prompts.append(str(row.get("prompt") or row.get("messages")))
    if not a:
        return ""
    try:
        return rank(a, b, won, prompts, names=names, ties="half")
    except ValueError as error:
        return str(error)
