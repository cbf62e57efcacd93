"""The top of the page: the verdict in words, and the tables of models and of win rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harken.core.protocols import Estimate
from harken.draw import numbers
from harken.draw.html import text
from harken.draw.svg import interval_bar, padded
from harken.report.load import ORDER, RunData, estimate, series

NAMES = {"base": "Base", "sft": "SFT", "reward_model": "Reward model", "rloo": "RLOO", "win_rate": "Win rate"}
METRIC_WORDS = {"heldout_nll": "held-out NLL", "nll": "NLL", "reward": "proxy reward", "loss": "the loss",
         "accuracy": "accuracy"}


def name_of(key: str) -> str:
    return NAMES.get(key, key.replace("_", " "))


@dataclass(frozen=True)
class Column:
    """One column of a table of estimates: its scale covers every row, and always `include`."""

    key: str
    title: str
    note: str
    rate: bool = False
    reference: float | None = None
    include: tuple[float, ...] = ()
    bar: bool = True


COLUMNS = (
    Column("gold", "Gold score", "the true reward; higher is better"),
    Column("gold_win_rate", "Win rate over base", "pairs won by gold score, ties half", True, 0.5, (0.0, 1.0)),
    Column("gold_win_rate_over_sft", "Win rate over SFT", "pairs won by gold score, ties half", True, 0.5, (0.0, 1.0)),
    Column("kl", "KL", "nats a completion from its start", bar=False),
    Column("nll_change", "Change in NLL", "nats a token of other text; above 0 is a tax", False, 0.0, (0.0,)),
)


def _cell(e: Estimate | None, column: Column, scale: tuple[float, float], who: str, style: str) -> str:
    if e is None:
        return '<td role="cell" class="empty"><span class="none" role="img" aria-label="not measured">—</span></td>'
    shown, interval = numbers.value(e, rate=column.rate), numbers.span(e, rate=column.rate)
    n = f' <span class="n">n = {e.n:,}</span>' if e.n else ""
    bar = interval_bar(e, scale, f"{who}, {column.title}: {shown} {interval}", reference=column.reference,
                       style=style) if column.bar else ""
    ends = f'<span class="phone" aria-hidden="true">{_ends(column, scale)}</span>' if column.bar else ""
    return (f'<td role="cell" data-label="{text(column.title)}"><span class="value">{text(shown)}</span> '
            f'<span class="range">{text(interval)}{n}</span>{bar}{ends}</td>')


def _scale(cells: Sequence[Estimate | None], column: Column) -> tuple[float, float]:
    if column.rate:
        return 0.0, 1.0
    values = [v for e in cells if e for v in (e.value, e.low, e.high)]
    return padded([*values, *column.include])


def estimates_table(caption: str, first: str, rows: Mapping[str, Mapping[str, Estimate | None]],
                    columns: Sequence[Column], muted: Callable[[str], bool] = lambda row: False,
                    notes: Mapping[str, str] = MappingProxyType({})) -> str:
    """Rows of named estimates, each as a number, its interval, and a bar on its column's scale; `notes` stand under names."""
    used = [c for c in columns if any(r.get(c.key) for r in rows.values())]
    if not used:
        return ""
    scales = {c.key: _scale([r.get(c.key) for r in rows.values()], c) for c in used}
    head = "".join(f'<th scope="col" role="columnheader">{text(c.title)}<span class="note">{text(c.note)}</span></th>'
                   for c in used)
    body = ""
    for name, row in rows.items():
        style = "grey" if muted(name) else "accent"
        cells = "".join(_cell(row.get(c.key), c, scales[c.key], name, style) for c in used)
        kind = ' class="muted"' if muted(name) else ""
        note = f'<span class="note">{text(notes[name])}</span>' if notes.get(name) else ""
        body += f'<tr role="row"{kind}><th scope="row" role="rowheader">{text(name)}{note}</th>{cells}</tr>'
    foot = "".join(f"<td>{_ends(c, scales[c.key])}</td>" for c in used)
    # The roles keep it a table for screen readers where a narrow page lays its cells out as blocks.
    return ('<div class="scroll"><table class="estimates" role="table">'
            f'<caption>{text(caption)}</caption><thead role="rowgroup"><tr role="row"><th scope="col" '
            f'role="columnheader">{text(first)}</th>{head}</tr></thead><tbody role="rowgroup">{body}</tbody>'
            f'<tfoot aria-hidden="true"><tr><td></td>{foot}</tr></tfoot></table></div>')


def _ends(column: Column, scale: tuple[float, float]) -> str:
    if not column.bar:
        return ""
    words = [numbers.percent(v).replace(".0%", "%") if column.rate else numbers.number(v, 2) for v in scale]
    middle = f"<span>{'50%' if column.rate else ''}</span>"
    return f'<span class="scale"><span>{text(words[0])}</span>{middle}<span>{text(words[1])}</span></span>'


def short(model: object) -> str:
    """A model's name; of an absolute path its last two parts."""
    return "/".join(Path(str(model)).parts[-2:]) if str(model).startswith("/") else str(model)


def model_of(run: RunData, side: str = "model", default: str = "") -> str:
    """The name of the model in question, or of what it stands against: some results keep figures under these words."""
    for held in (run.result or {}, run.config):
        if isinstance(held.get(side), str) and held[side]:
            return short(held[side])
    return default


def judge_of(run: RunData) -> str:
    """Who judged a win rate: a reward, a model that saw both answers, or people."""
    r = run.result or {}
    named = r.get("judge") or (f"{short(r['pairwise'])}, in both orders" if r.get("pairwise") else "")
    return short(named) if named else "people" if run.config.get("people") else "an unnamed judge"


def summaries(runs: Sequence[RunData]) -> list[RunData]:
    return [r for r in runs if r.summary]


def model_rows(summary: Mapping[str, Any]) -> dict[str, dict[str, Estimate | None]]:
    """One row a model of a quickstart summary, base first."""
    keys = [k for k, v in summary.items() if isinstance(v, Mapping) and any(c.key in v for c in COLUMNS)]
    keys.sort(key=lambda k: ORDER.index(k) if k in ORDER else len(ORDER))
    return {name_of(k): {c.key: estimate(summary[k].get(c.key)) for c in COLUMNS} for k in keys}


def win_rates(runs: Sequence[RunData]) -> list[RunData]:
    return [r for r in runs if r.result and r.result.get("name") == "win_rate" and estimate(r.result.get("value"))]


def tables(runs: Sequence[RunData]) -> str:
    out = []
    several = len(summaries(runs)) > 1
    for run in summaries(runs):
        rows = model_rows(run.summary or {})
        place = f" in {run.name}" if several else ""
        out.append(estimates_table(f"Models{place}, with 95% intervals", "Model", rows, COLUMNS, lambda r: r == "Base"))
    for run in win_rates(runs):
        out.append(_win_rate_table(run))
    return "".join(out)


def _win_rate_table(run: RunData) -> str:
    r = run.result or {}
    model, other = short(r.get("model", run.name)), short(r.get("against", "the other"))
    scores = r.get("mean_score") or {}
    rows: dict[str, dict[str, Estimate | None]] = {
        model: {"rate": estimate(r.get("value")), "score": estimate(scores.get("model"))}}
    if against := estimate(scores.get("against")):
        rows[f"{other} (again)" if other == model else other] = {"score": against}
    nulls = {f"Null baseline: {k}": {"rate": estimate(v)} for k, v in (r.get("baselines") or {}).items()}
    columns = (Column("rate", "Win rate", f"against {other}, ties half", True, 0.5),
               Column("score", "Mean score", "by the same judge"))
    caption = f"{run.name}: judged by {judge_of(run)}, with 95% intervals over prompts"
    return estimates_table(caption, "Model", rows | nulls, columns, lambda name: name in nulls)


def _compare(who: str, against: str, e: Estimate, judge: str) -> str:
    shown = f'<strong>{numbers.percent(e.value)}</strong> <span class="range">{numbers.span(e, rate=True)}</span>'
    tail = f"of comparisons on {e.n:,} prompts" if e.n else "of comparisons"
    if math.isnan(e.low):
        return f"{who} wins {shown} {tail} against {against} by {judge}. Without an interval this proves nothing."
    if e.low > 0.5:
        return f"{who} beats {against}: it wins {shown} {tail} by {judge}."
    if e.high < 0.5:
        return f"{who} falls behind {against}: it wins only {shown} {tail} by {judge}."
    return f"{who} and {against} are tied: a win rate of {shown} {tail} by {judge} shows no difference."


def judged(runs: Sequence[RunData]) -> str:
    """One sentence, as HTML, where answers were judged side by side; empty where none were."""
    for run in summaries(runs):
        summary = run.summary or {}
        for key in [k for k in ("rloo", "sft", *summary) if isinstance(summary.get(k), Mapping)]:
            e = estimate(summary[key].get("gold_win_rate"))
            if e:
                against = summary[key].get("against") or "the base model"
                return _compare(text(name_of(key)), text(against), e, "gold score")
    for run in win_rates(runs):
        r = run.result or {}
        e = estimate(r.get("value"))
        if e:
            names = (r.get("model", run.name), r.get("against", "the other model"), judge_of(run))
            who, against, judge = (text(short(n)) for n in names)
            return _compare(who, against, e, judge)
    return ""


def verdict(runs: Sequence[RunData]) -> str:
    """One sentence, as HTML: the strongest claim of a single run, with its interval; empty where none has one. Of several
    evaluations none is the strongest."""
    evaluated = [run for run in runs if str(run.config.get("command", "")).startswith("eval ") and run.kind != "win_rate"
                 and estimate((run.result or {}).get("value"))]
    names = list(dict.fromkeys(model_of(run, default=run.name) for run in evaluated))
    if len(evaluated) > 1 and len(names) == 1:
        return f"{text(names[0])}: <strong>{len(evaluated)} evaluations</strong>, and no other model beside it."
    for run in evaluated:
        result = run.result or {}
        if e := estimate(result.get("value")):
            other = model_of(run, "against") if result.get("paired") else ""
            against = f" against {text(other)}" if other else ""
            return (f"{text(name_of(run.kind))} of {text(model_of(run, default=run.name))}{against}: "
                    f'<strong>{numbers.value(e)}</strong> <span class="range">{numbers.span(e)}</span>, n = {e.n:,}.')
    for run in runs:
        e = estimate((run.result or {}).get("accuracy"))
        if e and run.kind == "reward_model":
            shown = f'<strong>{numbers.percent(e.value)}</strong> <span class="range">{numbers.span(e, rate=True)}</span>'
            return f"The reward model agrees with people on {shown} of held-out pairs; {_beside(run.result or {}, e)}."
    for run in runs:
        e = estimate((run.result or {}).get("gain"))
        if e and run.kind in ("best_of_n", "prompting"):
            return (f"{text(name_of(run.kind))}: the score of the reward that chose is "
                    f'<strong>{numbers.number(e.value)}</strong> <span class="range">{numbers.span(e)}</span> higher than '
                    "the model's own. Nobody else has judged it yet.")
    return ""


def unjudged(runs: Sequence[RunData]) -> str:
    """What can be said where no figure has an interval: what was done, and no number that could be taken for a result."""
    for run in runs:
        if e := estimate((run.result or {}).get("proxy_change")):
            return (f"{text(name_of(run.kind))}: the reward that it climbed changed by "
                    f"<strong>{numbers.number(e.value)}</strong> "
                    f'<span class="range">{numbers.span(e)}</span> on prompts kept out of training. Nobody has judged it yet.')
    for run in runs:
        for key, words in METRIC_WORDS.items():
            points, _ = series(run.metrics, key)
            if len(points) > 1:
                return (f"{text(name_of(run.kind))}: {words} over {max(p[0] for p in points):,.0f} steps is below. One seed, "
                        "no interval: nobody has judged it yet.")
    return "These runs hold no figures yet."


def _beside(result: Mapping[str, Any], accuracy: Estimate) -> str:
    baselines = {k: e for k, v in (result.get("baselines") or {}).items() if (e := estimate(v))}
    if not baselines:
        return "no null baseline was recorded"
    name, best = max(baselines.items(), key=lambda item: item[1].value)
    words = f"always choosing the {text(name)} gets {numbers.percent(best.value)}" if name != "constant" else \
        f"a constant score gets {numbers.percent(best.value)}"
    return words if accuracy.low > best.value else f"{words}, so it is not shown to be better than that"


def facts(runs: Sequence[RunData], compared: Sequence[tuple[str, str, str]] = ()) -> str:
    """A few figures under the verdict: what was compared, reward model, distance, tax, time."""
    items = [(name, shown, text(note)) for name, shown, note in compared]
    for run in summaries(runs)[:1]:
        summary = run.summary or {}
        reward = summary.get("reward_model") or {}
        if isinstance(reward, Mapping) and (e := estimate(reward.get("accuracy"))):
            shown = f"{numbers.percent(e.value)} {numbers.span(e, rate=True)}"
            items.append(("Reward model accuracy", shown, _beside(reward, e)))
        last = next((k for k in ("rloo", "sft") if isinstance(summary.get(k), Mapping)), None)
        block = summary.get(last) if last else None
        if last and isinstance(block, Mapping):
            if e := estimate(block.get("gold_win_rate_over_sft")):
                sense = "better" if e.low > 0.5 else "worse" if e.high < 0.5 else "tied: no difference shown"
                shown = f"{numbers.percent(e.value)} {numbers.span(e, rate=True)}"
                items.append((f"{name_of(last)} over SFT", shown, sense))
            if e := estimate(block.get("kl")):
                shown = f"{numbers.value(e)} {numbers.span(e)}"
                items.append((f"KL of {name_of(last)}", shown, "nats a completion, from its start"))
            if e := estimate(block.get("nll_change")):
                sense = "a tax on other text" if e.low > 0 else "other text improved" if e.high < 0 else "no tax shown"
                items.append(("Change in NLL", f"{numbers.value(e)} {numbers.span(e)}", sense))
        if isinstance(seconds := summary.get("seconds"), int | float):
            items.append(("Time", numbers.duration(seconds, "min"), "from data to this page"))
    cards = "".join(f'<div><dt>{text(name)}</dt><dd>{text(shown)}<span class="note">{note}</span></dd></div>'
                    for name, shown, note in items)
    return f'<dl class="facts">{cards}</dl>' if cards else ""
