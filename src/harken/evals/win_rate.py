"""Win rate: how often one model's answer is scored above another's on the same prompts.

    harken eval win_rate --model runs/rloo --against runs/sft --prompts prompts.jsonl --judge runs/rm --out runs/eval

Both models answer every prompt n times at the same settings; a prompt's value is the share of the n × n
pairs that the model wins, a tie counting half. The interval is over prompts. Beside it stand null
baselines: a constant answer, the longer and the shorter of the model's own answers, judged the same way; the rate at
equal lengths (AlpacaEval 2's regression), and by use case, language and tag. Answers are kept in the store that all
evaluations share; a killed evaluation continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harken.core.config import MAX_TOKENS, setting
from harken.core.errors import UserError
from harken.core.protocols import Estimate, EvalResult, Models, Reward
from harken.core.records import Prompt
from harken.core.run import Run
from harken.core.seeds import MOST_SEED
from harken.loops.answers import CHUNK
from harken.loops.groups import KINDS, grouped
from harken.stats.intervals import mean_interval
from harken.stats.length_control import length_controlled
from harken.stats.winrate import Scores, win_rate
from harken.store.files import read_prompts

CONSTANT = "I'm happy to help with that."


@dataclass(frozen=True)
class Config:
    model: str = setting("", names="model", required=True)
    """The model in question: a run directory, a folder, smollm2 or a hub id."""
    against: str = setting("smollm2", names="model")
    """The model it is compared with."""
    prompts: str = setting("", names="file", required=True)
    """JSON Lines file of prompts."""
    judge: str = setting("", names="reward", required=True)
    """Who scores: a reward model's run directory, or gold (the sandbox's known truth)."""
    aggregate: str = ""
    """How a judge with groups makes one score: mean, group:NAME, worst or quantile:Q; empty is its shared head."""
    out: str = setting("", required=True)
    """Run directory to write."""
    n: int = setting(2, least=1)
    """Answers of each model to each prompt."""
    max_tokens: int = setting(MAX_TOKENS, least=1)
    """Longest answer in tokens."""
    temperature: float = setting(1.0, least=0)
    """Sampling temperature."""
    seed: int = setting(0, least=0, most=MOST_SEED)
    """Seed of sampling."""
    dtype: str = setting("float32", one_of=("float32", "bfloat16", "auto"))
    """Precision: float32, bfloat16 or auto."""
    skip_bad: bool = False
    """Skip malformed lines of the prompts, and count them, instead of stopping."""


def evaluate(config: Config, models: Models, run: Run) -> EvalResult:
    """Samples, judges and compares. Raises `UserError` without prompts."""
    loaded = read_prompts(config.prompts, skip_bad=config.skip_bad)
    if note := loaded.describe():
        run.note(note)
    prompts = loaded.records
    for name in ("model", "against"):
        models.check_context(name, prompts, config.max_tokens)
    judge = models.reward("judge")
    if not prompts:
        raise UserError("There is no prompt to evaluate on.", "Check --prompts.")
    found = {name: models.stored(name).answers(prompts, config.n, max_tokens=config.max_tokens, temperature=config.temperature,
                                               seed=config.seed, chunk=CHUNK) for name in ("model", "against")}
    texts_a, texts_b = ([list(a.texts) for a in found[name]] for name in ("model", "against"))
    run.rewrite("samples.jsonl", [{"step": i, "prompt_id": p.id, "model_texts": ta, "against_texts": tb}
                                  for i, (p, ta, tb) in enumerate(zip(prompts, texts_a, texts_b))])
    a, b = _scores(judge, prompts, texts_a, config.n), _scores(judge, prompts, texts_b, config.n)
    try:
        result = win_rate(a, b)
        constant = _scores(judge, prompts, [[CONSTANT]] * len(prompts), 1)
        null = {"constant answer": win_rate(constant, b).value}
        for name, pick in (("longest of the model's", max), ("shortest of the model's", min)):
            one = [[scores[texts.index(pick(texts, key=len))]] if texts else [None] for texts, scores in zip(texts_a, a)]
            null[name] = win_rate(one, b).value
    except ValueError as error:  # scores that are NaN, or none at all
        raise UserError(f"The judge {config.judge} gave no scores to compare: {error}.",
                        "Use a judge of greater length, shorter prompts, or lower --max-tokens.") from None
    samples = [{**p.to_json(), "model_text": ta[0] if ta else None, "against_text": tb[0] if tb else None, "model_score": sa[0],
                "against_score": sb[0], **({"why": x.why or y.why} if x.why or y.why else {})}
               for p, ta, tb, sa, sb, x, y in zip(prompts, texts_a, texts_b, a, b, found["model"], found["against"])]
    if result.missing:
        run.note(f"{result.missing} answers have no score and are left out; if all of them lost or won, the rate would be "
                 f"{result.worst:.3f} or {result.best:.3f}.")
    figures = {"tie_rate": result.tie_rate, "mean_score": {"model": _mean(a), "against": _mean(b)},
               **_at_equal_lengths(a, b, texts_a, texts_b), **_by_group(prompts, a, b)}
    return EvalResult(result.value, figures, null, samples, result.missing)


def _scores(judge: Reward, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]], n: int) -> list[list[float | None]]:
    """[P][n]; an answer that is missing has no score."""
    there = [i for i, t in enumerate(texts) if t]
    given = iter(judge.score([prompts[i] for i in there], [texts[i] for i in there]) if there else [])
    return [list(next(given)) if t else [None] * n for t in texts]


def _at_equal_lengths(a: Scores, b: Scores, texts_a: Sequence[Sequence[str]], texts_b: Sequence[Sequence[str]]) -> dict[str, Any]:
    """AlpacaEval 2's length-controlled rate beside the raw one, in characters; of several answers a prompt their mean length and
    share of pairs won. Left out for fewer than 10 prompts, and where all lengths differ alike."""
    rows = []
    for sa, sb, ta, tb in zip(a, b, texts_a, texts_b):
        x, y = ([s for s in side if s is not None] for side in (sa, sb))
        if x and y:
            won = sum((p > q) + (p == q) / 2 for p in x for q in y) / (len(x) * len(y))
            rows.append((won, *(sum(map(len, t)) / len(t) for t in (ta, tb))))
    try:
        found = length_controlled(*zip(*rows))
    except (ValueError, TypeError):
        return {}
    return {"length_controlled": found.controlled, "log_odds_of_a_longer_answer": found.length}


def _by_group(prompts: Sequence[Prompt], a: Scores, b: Scores) -> dict[str, Any]:
    """The win rate by use case, language and tag, of groups with a scored pair; nothing where there is one group alone."""
    found: dict[str, Any] = {}
    for by in KINDS:
        groups = grouped(prompts, by)
        rates = {name: win_rate([a[i] for i in places], [b[i] for i in places]).value for name, places in groups.items()
                 if any(any(s is not None for s in a[i]) and any(s is not None for s in b[i]) for i in places)}
        if len(rates) > 1:
            found[f"by_{by}"] = rates
    return found


def _mean(scores: Sequence[Sequence[float | None]]) -> Estimate:
    means = [sum(x for x in row if x is not None) / max(1, sum(x is not None for x in row))
             for row in scores if any(x is not None for x in row)]
    return mean_interval(means)
