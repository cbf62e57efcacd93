"""Is one model better than another: every comparison the runs allow, in words that claim no more than was shown.

Runs of one evaluation are paired item by item (stats.compare), the first run being the one compared with; evaluations that
compared by themselves (--against), a tax's tasks and win rates stand beside them. Differences are turned so that above 0 is
better. Holm's correction is over the comparisons made here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harken.core.protocols import Estimate
from harken.draw import numbers
from harken.draw.html import text
from harken.report.load import RunData, estimate, is_number
from harken.report.results import Column, estimates_table, judge_of, model_of, name_of, win_rates
from harken.report.sets import keyed, rows_of
from harken.stats.compare import Comparison, compare, corrected

AREAS = {"win_rate": "helpful", "reward": "helpful", "truthful": "honest", "toxicity": "harmless", "bias": "harmless",
         "refusals": "harmless", "injection": "harmless", "sycophancy": "honest", "tampering": "harmless",
         "misalignment": "harmless", "implicit_rules": "harmless", "triggers": "harmless", "red_team": "harmless",
         "hallucination": "honest", "code": "helpful", "generalisation": "helpful", "lm_eval": "capability",
         "opinions": "whose opinions", "tax": "capability", "capability": "capability", "kl_capability": "capability",
         "bits_per_byte": "capability"}
ORDER = ("helpful", "honest", "harmless", "capability", "whose opinions", "other")
MARKS = {"better": "better", "worse": "worse"}


@dataclass(frozen=True)
class Claim:
    """`who` against `against` on `what`; `difference` is turned so that above 0 is better, `verdict` is stats.compare's."""

    area: str
    what: str
    who: str
    against: str
    difference: Estimate
    verdict: str
    words: str
    missing: int = 0

    @property
    def phrase(self) -> str:
        return {"better": "is better", "worse": "is worse", "tied": "is tied"}.get(self.verdict, "shows no difference")


def claims(runs: Sequence[RunData]) -> list[Claim]:
    """Every comparison of two models, helpful first."""
    found = [*_paired_here(runs), *_paired_before(runs), *_tasks(runs), *_won(runs)]
    return sorted(found, key=lambda c: ORDER.index(c.area) if c.area in ORDER else len(ORDER))


def _area(name: str) -> str:
    return AREAS.get(name.rpartition(".")[2], "other")


def _paired_here(runs: Sequence[RunData]) -> list[Claim]:
    """Runs that measured one model each: scores of the same items, the later runs against the first."""
    together: dict[str, list[RunData]] = {}
    for run in runs:
        result = run.result or {}
        if result.get("name") and not result.get("paired") and result.get("better") and any("score" in r for r in rows_of(run)):
            together.setdefault(str(result["name"]), []).append(run)
    made: dict[str, tuple[str, str, str, Comparison]] = {}
    for name, (first, *others) in together.items():
        for other in others:
            who, against = (model_of(run, default=run.name) for run in (other, first))
            sign = -1.0 if (first.result or {})["better"] == "lower" else 1.0
            try:
                a, b = _scores(other, sign), _scores(first, sign)
                made[f"{name} {len(made)}"] = name, who, against, compare(a, b, bounds=_bounds([*a.values(), *b.values()], sign))
            except ValueError:  # no item with a score in both
                continue
    adjusted = corrected({key: c for key, (*_, c) in made.items()})
    return [Claim(_area(name), name_of(name), who, against, adjusted[key].difference, adjusted[key].verdict,
                  adjusted[key].words(who, against), adjusted[key].missing) for key, (name, who, against, _) in made.items()]


def _scores(run: RunData, sign: float) -> dict[str, float | None]:
    return {"\x1f".join(key): sign * row["score"] if is_number(row.get("score")) else None
            for key, row in keyed(rows_of(run)).items()}


def _bounds(scores: Sequence[float | None], sign: float) -> tuple[float, float] | None:
    """Shares lie between 0 and 1: known bounds keep equal answers from an interval of no width."""
    low, high = (0.0, 1.0) if sign > 0 else (-1.0, 0.0)
    return (low, high) if all(low <= s <= high for s in scores if s is not None) else None


def _paired_before(runs: Sequence[RunData]) -> Iterator[Claim]:
    """Evaluations that compared two models by themselves: their value is the paired difference. One that compares a model with
    itself (under a trigger, with help) names no second model, and says nothing of which is better."""
    for run in runs:
        result = run.result or {}
        e = estimate(result.get("value"))
        if e and of_two(run) and result.get("paired") and result.get("name") not in ("win_rate", "tax") and result.get("better"):
            turned = e if result["better"] != "lower" else Estimate(0.0 - e.value, 0.0 - e.high, 0.0 - e.low, e.n, e.level)
            yield _claim(str(result["name"]), name_of(str(result["name"])), run, turned, int(result.get("missing") or 0))


def of_two(run: RunData) -> bool:
    """Whether two models were measured, and not one beside itself."""
    model, against = (next((held[side] for held in (run.config, run.result or {}) if isinstance(held.get(side), str)), "")
                      for side in ("model", "against"))
    return bool(against) and model != against


def _claim(name: str, what: str, run: RunData, e: Estimate, missing: int) -> Claim:
    who, against = model_of(run, default=run.name), model_of(run, "against", "the other")
    verdict = "better" if e.low > 0 else "worse" if e.high < 0 else "inconclusive"
    claim = f"{who} is {verdict} than {against}" if verdict in MARKS else "inconclusive: no difference was shown"
    return Claim(_area(name), what, who, against, e, verdict, f"{claim} ({numbers.value(e)} {numbers.span(e)}, {e.n:,} items)",
                 missing)


def _tasks(runs: Sequence[RunData]) -> Iterator[Claim]:
    for run in runs:
        result = run.result or {}
        tasks = result.get("tasks") if of_two(run) else None
        for task, row in (tasks.items() if isinstance(tasks, Mapping) else ()):
            e = estimate(row.get("difference")) if isinstance(row, Mapping) else None
            if e:
                words = str(row.get("verdict", ""))
                verdict = "tied" if " tied" in words else "better" if " is better" in words else "worse" if " is worse" in words \
                    else "inconclusive"
                who, against = model_of(run, default=run.name), model_of(run, "against", "the one before")
                words = words.replace("the one before", against).replace("the model", who)  # several models share a page
                yield Claim("capability", str(task), who, against, e, verdict, words, int(row.get("missing") or 0))


def _won(runs: Sequence[RunData]) -> Iterator[Claim]:
    for run in win_rates(runs):
        result = run.result or {}
        e = estimate(result.get("value"))
        if e:
            above = Estimate(e.value - 0.5, e.low - 0.5, e.high - 0.5, e.n, e.level)
            yield _claim("win_rate", f"win rate by {judge_of(run)}, less a half", run, above,
                         int(result.get("missing") or 0))


def compared(runs: Sequence[RunData]) -> str:
    """The claims in words, then all differences on one scale; nothing where nothing is compared."""
    found = claims(runs)
    if not found:
        return ""
    rows: dict[str, dict[str, Estimate | None]] = {}
    couples = len({(c.who, c.against) for c in found})
    lines = "".join(f'<li class="{MARKS.get(c.verdict, "open")}"><strong>{text(c.what)}</strong>'
                    + (f", {text(c.who)} against {text(c.against)}" if couples > 1 and c.who not in c.words else "")
                    + f": {text(c.words)}</li>" for c in found)
    for c in found:
        name = f"{c.area}: {c.what}" if couples == 1 else f"{c.area}: {c.what} ({c.who} against {c.against})"
        while name in rows:
            name += " again"
        rows[name] = {"difference": c.difference}
    column = Column("difference", "Difference", "above 0 is better", False, 0.0, (0.0,))
    return (f'<ul class="claims">{lines}</ul>'
            + estimates_table("Paired differences with their 95% intervals, on one scale", "Evaluation", rows, (column,)))


def headline(runs: Sequence[RunData]) -> str:
    """The first couple's claims as one sentence of HTML; empty where nothing is compared."""
    found = claims(runs)
    if not found:
        return ""
    who, against = found[0].who, found[0].against
    own = [c for c in found if (c.who, c.against) == (who, against)]
    parts = []
    said = {"better": "better on", "worse": "worse on", "tied": "tied on", "inconclusive": "no difference shown on"}
    for verdict, words in said.items():
        names = [c for c in own if c.verdict == verdict]
        if names:
            full = verdict in MARKS and len(names) < 3
            shown = [text(_in_a_list(c.what)) + (f' <span class="range">{signed(c.difference)}</span>' if full else "")
                     for c in names[:5]]
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            parts.append(f"<strong>{words}</strong> {', '.join(shown)}{more}")
    return f"{text(who)} against {text(against)}: {'; '.join(parts)}."


def _in_a_list(what: str) -> str:
    """"grammar, zero-shot" between commas is one thing."""
    name, comma, how = what.partition(", ")
    return f"{name} ({how})" if comma and "(" not in what else what


def cards(runs: Sequence[RunData]) -> list[tuple[str, str, str]]:
    """One (name, figure, note) an area: its first claim and how many it has."""
    found: dict[str, list[Claim]] = {}
    for c in claims(runs):
        found.setdefault(c.area, []).append(c)
    made = []
    for area, own in found.items():
        c = own[0]
        missing = f", {sum(x.missing for x in own):,} missing" if any(x.missing for x in own) else ""
        more = f"; {len(own) - 1} more" if len(own) > 1 else ""
        made.append((f"{area.capitalize()}: {c.what}", signed(c.difference),
                     f"{c.who} {c.phrase}, n = {c.difference.n:,}{missing}{more}"))
    return made


def signed(e: Estimate) -> str:
    return f"{'+' if e.value > 0 else ''}{numbers.value(e)} {numbers.span(e)}"


def least(result: Mapping[str, Any]) -> float | None:
    """What two models would have to differ by to be told apart with as many items (launch.suite)."""
    from harken.launch.suite import least_detectable
    e = estimate(result.get("value"))
    return least_detectable(e, bool(result.get("paired"))) if e else None
