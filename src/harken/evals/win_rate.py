"""Win rate: how often one model's answer is scored above another's on the same prompts.

    harken eval win_rate --model runs/rloo --against runs/sft --prompts prompts.jsonl --judge runs/rm --out runs/eval

Both models answer every prompt n times at the same settings; a prompt's value is the share of the n × n
pairs that the model wins, a tie counting half. The interval is over prompts (E14). Beside it stand null
baselines (E15): a constant answer, the longer and the shorter of the model's own answers, judged the same way.
Answers are saved as they are made; a killed evaluation continues (E21).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harken.core.errors import UserError
from harken.core.files import read_jsonl
from harken.core.progress import progress
from harken.core.protocols import EvalResult, Reward, Sampler
from harken.core.records import Prompt
from harken.core.run import Run
from harken.core.seeds import derive_seed
from harken.stats.intervals import mean_interval
from harken.stats.winrate import win_rate

CHUNK = 16
CONSTANT = "I'm happy to help with that."


@dataclass(frozen=True)
class Config:
    model: str = ""
    """The model in question: a run directory, a folder, smollm2 or a hub id."""
    against: str = "smollm2"
    """The model it is compared with."""
    prompts: str = ""
    """JSON Lines file of prompts."""
    judge: str = ""
    """Who scores: a reward model's run directory, or gold (the sandbox's known truth)."""
    aggregate: str = ""
    """How a judge with groups makes one score: mean, group:NAME, worst or quantile:Q; empty is its shared head."""
    out: str = ""
    """Run directory to write."""
    n: int = 2
    """Answers of each model to each prompt."""
    max_tokens: int = 64
    """Longest answer in tokens."""
    temperature: float = 1.0
    """Sampling temperature."""
    seed: int = 0
    """Seed of sampling."""
    dtype: str = "float32"
    """Precision: float32, bfloat16 or auto."""
    skip_bad: bool = False
    """Skip malformed lines of the prompts, and count them, instead of stopping."""


def evaluate(config: Config, prompts: Sequence[Prompt], model: Sampler, against: Sampler, judge: Reward, run: Run) -> EvalResult:
    """Samples, judges and compares. Raises `UserError` without prompts."""
    if not prompts:
        raise UserError("There is no prompt to evaluate on.", "Check --prompts.")
    rows = _answers(config, prompts, model, against, run)
    texts_a, texts_b = [r["model_texts"] for r in rows], [r["against_texts"] for r in rows]
    a, b = judge.score(prompts, texts_a), judge.score(prompts, texts_b)
    try:
        found = win_rate(a, b)
        null = {"constant answer": win_rate(judge.score(prompts, [[CONSTANT]] * len(prompts)), b).value}
        for name, pick in (("longest of the model's", max), ("shortest of the model's", min)):
            index = [t.index(pick(t, key=len)) for t in texts_a]
            null[name] = win_rate([[scores[i]] for scores, i in zip(a, index)], b).value
    except ValueError as error:  # scores that are NaN, or none at all
        raise UserError(f"The judge {config.judge} gave no scores to compare: {error}.",
                        "Use a judge of greater length, shorter prompts, or lower --max-tokens.") from None
    samples = [{**p.to_json(), "model_text": ta[0], "against_text": tb[0], "model_score": sa[0], "against_score": sb[0]}
               for p, ta, tb, sa, sb in zip(prompts, texts_a, texts_b, a, b)]
    notes = []
    if found.missing:
        notes = [f"{found.missing} answers have no score and are left out; if all of them lost or won, the rate would be "
                 f"{found.worst:.3f} or {found.best:.3f}."]
        run.note(notes[0])
    result = EvalResult("win_rate", found.value, null, samples, notes)
    run.finish({"name": "win_rate", "model": config.model, "against": config.against, "judge": config.judge,
                "value": found.value.to_json(), "tie_rate": found.tie_rate,
                "baselines": {k: v.to_json() for k, v in null.items()},
                "mean_score": {"model": _mean(a).to_json(), "against": _mean(b).to_json()},
                "samples": samples})
    return result


def _answers(config: Config, prompts: Sequence[Prompt], model: Sampler, against: Sampler, run: Run) -> list[dict[str, Any]]:
    """Rows of prompt id and both models' texts, continued from samples.jsonl."""
    rows = read_jsonl(run.path / "samples.jsonl")
    done = len(rows) - len(rows) % CHUNK if len(rows) < len(prompts) else len(rows)
    rows = rows[:done]
    run.rewrite("samples.jsonl", rows)
    with progress("answers", len(prompts), done, quiet=run.quiet) as advance:
        for at in range(done, len(prompts), CHUNK):
            chunk = prompts[at:at + CHUNK]
            settings = {"max_tokens": config.max_tokens, "temperature": config.temperature}
            # One seed for both: the same randomness makes the comparison paired.
            seed = derive_seed(config.seed, "answers", at)
            first, second = (s.sample(chunk, config.n, seed=seed, **settings) for s in (model, against))
            new = [{"step": at + i, "prompt_id": p.id, "model_texts": [s.text for s in x], "against_texts": [s.text for s in y]}
                   for i, (p, x, y) in enumerate(zip(chunk, first, second))]
            run._append("samples.jsonl", new)
            rows += new
            advance(len(chunk))
    return rows


def _mean(scores: Sequence[Sequence[float | None]]) -> Any:
    means = [sum(x for x in row if x is not None) / max(1, sum(x is not None for x in row))
             for row in scores if any(x is not None for x in row)]
    return mean_interval(means)
