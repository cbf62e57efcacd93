"""Likert and metadata: how people rated each model's answers, and how often they ticked each flag (as InstructGPT reports them).

    harken export ratings --project helpful --out ratings.jsonl
    harken eval ratings --ratings ratings.jsonl --model runs/ppo --against runs/sft --out runs/ratings

A rating is on the form's scale (InstructGPT: 1 to 7), a flag is ticked or not; one that does not apply to a prompt (null) is in
no rate. Means and rates are over ratings, their intervals over prompts: several ratings of one prompt are no new prompts.
The difference of two models is over the prompts on which both were rated. No model is opened: names are those in the file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harken.core.config import setting
from harken.core.errors import UserError
from harken.core.protocols import Estimate, EvalResult, Models
from harken.core.run import Run
from harken.loops.items import difference_of
from harken.stats.intervals import mean_interval
from harken.stats.testing import holm, p_value
from harken.store.files import read_rows

LAYOUT = ('Give rows like {"prompt", "completion", "score": 5, "flags": {"hallucination": false}, "source": "runs/sft"}: '
          "harken export ratings.")


@dataclass(frozen=True)
class Config:
    ratings: str = setting("", names="file", required=True)
    """Ratings, a row an answer: prompt, completion, score, flags and who wrote it (harken export ratings)."""
    model: str = ""
    """The model in question, as the file names it; empty is the one with most ratings."""
    against: str = ""
    """The model it is compared with, on the prompts that both have."""
    by: str = "source"
    """The field that says who wrote an answer."""
    out: str = setting("", required=True)
    """Run directory to write."""


@dataclass(frozen=True)
class Rating:
    """`score` is None where none was given; a flag's None is "does not apply"."""

    who: str
    prompt: str
    text: str
    score: float | None
    flags: Mapping[str, bool | None] = field(default_factory=dict)
    use_case: str = ""
    labeler: str = ""


def evaluate(config: Config, models: Models, run: Run) -> EvalResult:
    """Raises `UserError` for a row that does not say who wrote what, and for a model that nobody rated."""
    ratings, scale = read(config.ratings, config.by)
    counts = Counter(r.who for r in ratings)
    model = config.model or counts.most_common(1)[0][0]
    for option, name in (("--model", model), ("--against", config.against)):
        if name and name not in counts:
            raise UserError(f"{option} {name!r}: no rating is of that model.",
                            f"The file rates {', '.join(sorted(counts)[:12])}.")
    flags = sorted({f for r in ratings for f in r.flags})
    cases = sorted({r.use_case for r in ratings if r.use_case})
    figures: dict[str, Any] = {
        "likert": {who: likert(part, scale) for who in counts if (part := _scored([r for r in ratings if r.who == who]))},
        "flags": {flag: {who: found for who in counts if (found := rate([r for r in ratings if r.who == who], flag))}
                  for flag in flags},
        "labelers": len({r.labeler for r in ratings if r.labeler})}
    if scale:
        figures["scale"] = f"{scale[0]:g} to {scale[1]:g}"
    if len(cases) > 1:
        figures["likert_by_use_case"] = {
            case: {who: likert(part, scale) for who in counts
                   if (part := _scored([r for r in ratings if r.who == who and r.use_case == case]))} for case in cases}
    own = [r for r in ratings if r.who == model]
    samples = [{"prompt": r.prompt, "item": r.prompt, "answer": r.text, "score": r.score, "use_case": r.use_case,
                "labeler": r.labeler, **{k: v for k, v in r.flags.items() if v}} for r in own]
    missing = sum(r.score is None for r in own)
    if model not in figures["likert"]:
        raise UserError(f"No rating of {model} has a score: {missing} are missing.", LAYOUT)
    baselines = {"every model": likert(_scored(ratings), scale)}
    if not config.against:
        return EvalResult(figures["likert"][model], figures, baselines, samples, missing)
    figures |= differences(ratings, model, config.against, flags)
    bounds = None if scale is None else (scale[0] - scale[1], scale[1] - scale[0])
    both = by_prompt(ratings, model, config.against, lambda r: r.score)
    value = difference_of([a for a, _ in both], [b for _, b in both], bounds=bounds)
    return EvalResult(value, {**figures, "paired": True}, baselines, samples, missing)


def likert(part: Sequence[Rating], scale: tuple[float, float] | None) -> Estimate:
    """The mean score of ratings that have one; its interval over prompts."""
    return mean_interval([float(r.score or 0) for r in part], [r.prompt for r in part], bounds=scale)


def rate(part: Sequence[Rating], flag: str) -> Estimate | None:
    """How often the flag was ticked where it applies; None where it applies nowhere."""
    applies = [(float(r.flags[flag] or 0), r.prompt) for r in part if r.flags.get(flag) is not None]
    return mean_interval([x for x, _ in applies], [p for _, p in applies], bounds=(0.0, 1.0)) if applies else None


def differences(ratings: Sequence[Rating], model: str, against: str, flags: Sequence[str]) -> dict[str, Any]:
    """Each flag's paired difference, and its p-value corrected for all flags (Holm)."""
    found: dict[str, Any] = {}
    p: dict[str, float] = {}
    for flag in flags:
        both = by_prompt(ratings, model, against, lambda r: None if (v := r.flags.get(flag)) is None else float(v))  # noqa: B023
        if both:
            found[flag] = difference_of([a for a, _ in both], [b for _, b in both])
            p[flag] = p_value([a - b for a, b in both])
    return {"flag_differences": found, "flag_p_holm": dict(zip(p, map(float, holm(list(p.values()))))) if p else {}}


def by_prompt(ratings: Sequence[Rating], model: str, against: str, value: Any) -> list[tuple[float, float]]:
    """(the model's mean, the other's) on each prompt on which both have a value."""
    sides: dict[str, tuple[list[float], list[float]]] = {}
    for r in ratings:
        if r.who in (model, against) and (v := value(r)) is not None:
            sides.setdefault(r.prompt, ([], []))[int(r.who == against)].append(v)
    return [(sum(a) / len(a), sum(b) / len(b)) for a, b in sides.values() if a and b]


def _scored(part: Sequence[Rating]) -> list[Rating]:
    return [r for r in part if r.score is not None]


def read(path: str, by: str) -> tuple[list[Rating], tuple[float, float] | None]:
    """The ratings, and the form's scale where the file tells one."""
    found: list[Rating] = []
    scales: set[tuple[float, float]] = set()
    for line, row in read_rows(path):
        try:
            found.append(_rating(row, by))
            if isinstance(given := row.get("scale"), Mapping):
                scales.add((float(given["min"]), float(given["max"])))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}, line {line}: {error}.", LAYOUT) from None
    if not found:
        raise UserError(f"{path} holds no rating.", LAYOUT)
    if len(scales) > 1:
        raise UserError(f"{path} holds ratings on several scales: {sorted(scales)}.", "Rank each project's ratings alone.")
    scale = next(iter(scales), None)
    if scale and any(r.score is not None and not scale[0] <= r.score <= scale[1] for r in found):
        raise UserError(f"{path} holds a score outside its scale of {scale[0]:g} to {scale[1]:g}.", "Check the file.")
    return found, scale


def _rating(row: Mapping[str, Any], by: str) -> Rating:
    who = row.get(by) or row.get("model") or row.get("source")
    if not isinstance(who, str):
        raise ValueError(f'"{by}" does not say who wrote the answer')
    score, flags = row.get("score"), row.get("flags") or {}
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float) or score != score):
        raise ValueError(f'"score" {score!r} is no number')
    if not isinstance(flags, Mapping) or any(v not in (True, False, None) for v in flags.values()):
        raise ValueError('"flags" must be an object of true, false or null')
    prompt = row["prompt"] if isinstance(row.get("prompt"), str) else json.dumps(row.get("prompt"), sort_keys=True)
    return Rating(who, prompt, str(row.get("completion") or ""), None if score is None else float(score), dict(flags),
                  str(row.get("use_case") or ""), str(row.get("labeler") or ""))
