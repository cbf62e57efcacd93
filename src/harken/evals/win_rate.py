"""Win rate: how often one model's answer is scored above another's on the same prompts.

    harken eval win_rate --model runs/rloo --against runs/sft --prompts prompts.jsonl --judge runs/rm --out runs/eval

Both models answer every prompt n times at the same settings; a prompt's value is the share of the n × n
pairs that the model wins, a tie counting half. The interval is over prompts. Beside it stand null
baselines: a constant answer, the longer and the shorter of the model's own answers, judged the same way.
Answers are saved as they are made; a killed evaluation continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harken.core.config import MAX_TOKENS, setting
from harken.core.errors import UserError
from harken.core.protocols import Estimate, EvalResult, Models
from harken.core.run import Run
from harken.core.seeds import MOST_SEED
from harken.loops.answers import answers
from harken.stats.intervals import mean_interval
from harken.stats.winrate import win_rate
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
    samplers = {name: models.sampler(name) for name in ("model", "against")}
    for name in samplers:
        models.check_context(name, prompts, config.max_tokens)
    judge = models.reward("judge")
    if not prompts:
        raise UserError("There is no prompt to evaluate on.", "Check --prompts.")
    rows = answers(run, prompts, samplers, config.n, seed=config.seed, max_tokens=config.max_tokens,
                   temperature=config.temperature)
    texts_a, texts_b = [r["model_texts"] for r in rows], [r["against_texts"] for r in rows]
    a, b = judge.score(prompts, texts_a), judge.score(prompts, texts_b)
    try:
        result = win_rate(a, b)
        null = {"constant answer": win_rate(judge.score(prompts, [[CONSTANT]] * len(prompts)), b).value}
        for name, pick in (("longest of the model's", max), ("shortest of the model's", min)):
            index = [t.index(pick(t, key=len)) for t in texts_a]
            null[name] = win_rate([[scores[i]] for scores, i in zip(a, index)], b).value
    except ValueError as error:  # scores that are NaN, or none at all
        raise UserError(f"The judge {config.judge} gave no scores to compare: {error}.",
                        "Use a judge of greater length, shorter prompts, or lower --max-tokens.") from None
    samples = [{**p.to_json(), "model_text": ta[0], "against_text": tb[0], "model_score": sa[0], "against_score": sb[0]}
               for p, ta, tb, sa, sb in zip(prompts, texts_a, texts_b, a, b)]
    if result.missing:
        run.note(f"{result.missing} answers have no score and are left out; if all of them lost or won, the rate would be "
                 f"{result.worst:.3f} or {result.best:.3f}.")
    figures = {"tie_rate": result.tie_rate, "mean_score": {"model": _mean(a), "against": _mean(b)}}
    return EvalResult(result.value, figures, null, samples, result.missing)


def _mean(scores: Sequence[Sequence[float | None]]) -> Estimate:
    means = [sum(x for x in row if x is not None) / max(1, sum(x is not None for x in row))
             for row in scores if any(x is not None for x in row)]
    return mean_interval(means)
