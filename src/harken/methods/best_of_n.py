"""Best of n: sample n answers, give the one the reward likes best. No gradient, no new weights.

    harken train best_of_n --model runs/sft --reward runs/rm --data prompts.jsonl --n 16 --out runs/bon

The run it makes is a model for any command that samples: `harken sample --model runs/bon` draws n candidates for every
answer and keeps the best. Nothing has to be trained; every answer costs n. Its KL from the model it samples is at most

    KL(best of n ‖ model) <= log n - (n - 1) / n                        nats an answer, exact where no two samples tie

Before that it draws n candidates of each prompt of --data and says what choosing is worth: the expected best of k for
k = 1, 2, 4 … n, estimated without bias from the same N samples (2310.02743): Σ_i C(i-1, k-1) / C(N, k) · r_(i), r sorted.
It is what the reward itself thinks. A proxy's best of many may be its own mistake: judge the run by another reward.

Leaves out: best-of-n over a batch of prompts, and training on what was chosen (harken train expert_iteration does that).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harken.core.config import MAX_TOKENS, RunConfig, setting
from harken.core.errors import UserError
from harken.core.files import read_jsonl
from harken.core.protocols import Learner, PolicySampler, Reward, Sample
from harken.core.run import Run
from harken.core.seeds import derive_seed
from harken.engines.policies import BestOfN, Scores, best, save_policy
from harken.loops.rollout import fitting_prompts, repetition
from harken.stats.intervals import mean_interval, paired_difference
from harken.stats.overoptimization import best_of_n, kl_best_of_n

LEARNS = False


@dataclass(frozen=True)
class Config(RunConfig):
    reward: str = setting("", names="reward")
    """What chooses: a reward model's run directory, several with commas, a scorer, or gold (the sandbox's known truth)."""
    aggregate: str = ""
    """How a reward model with groups makes one score: mean, group:NAME, worst or quantile:Q; empty is its shared head."""
    n: int = setting(16, least=1)
    """Candidates of every answer (at least 2)."""
    missing_eos_penalty: float = setting(1.0, least=0)
    """Subtracted from the score of a candidate that the token limit cut."""
    max_tokens: int = setting(MAX_TOKENS, least=1)
    """Longest candidate in tokens, of the estimate; whoever samples from the run chooses anew."""
    temperature: float = setting(1.0, least=0)
    """Sampling temperature of the estimate (above 0)."""
    prompts_per_step: int = setting(8, least=1)
    """Prompts between two checkpoints."""


TRIAL = {"data": "prompts", "reward": "gold", "n": 4, "max_tokens": 8, "prompts_per_step": 8}


def train(config: Config, learner: Learner, sampler: PolicySampler, reward: Reward, run: Run) -> None:
    """Measures what choosing is worth, and writes the policy; `learner` is not trained."""
    if config.n < 2 or config.temperature <= 0:
        raise UserError(f"There is nothing to choose: --n {config.n}, --temperature {config.temperature}.",
                        "Choose of two or more, sampled above temperature 0.")
    policy = BestOfN(sampler, reward, config.n, config.missing_eos_penalty)
    prompts = [p for p, _ in fitting_prompts(config, learner, run, sampler.seen)]
    size = config.prompts_per_step
    total = -(-len(prompts) // size)
    if not total:
        raise UserError("There is nothing left to sample for.", "See the count of dropped prompts above.")

    resumed = run.resume()
    for step in run.track(resumed[0] if resumed else 0, total, "best of n"):
        part = prompts[step * size:(step + 1) * size]
        samples, scores = policy.candidates(part, config.n, max_tokens=config.max_tokens, temperature=config.temperature,
                                            seed=derive_seed(config.seed, "best of n", step))
        chosen = [best(row) for row in scores]
        run.log(step + 1, **describe(samples, scores, chosen))
        run.log_samples(step + 1, ({**p.to_json(), "completion": group[i].text, "reward": row[i], "scores": row}
                                   for p, group, row, i in zip(part, samples, scores, chosen)))
        run.checkpoint(step + 1, lambda folder: None)  # the logs are all there is to keep

    rows: Scores = [r["scores"] for r in read_jsonl(run.path / "samples.jsonl")]
    run.finish(worth(rows, config.n, run), lambda folder: save(folder, config, sampler, run))


def describe(samples: list[list[Sample]], scores: Scores, chosen: Sequence[int]) -> dict[str, float]:
    """A step's means: all candidates', and beside them the chosen ones'."""
    flat = [s for group in samples for s in group]
    taken = [group[i] for group, i in zip(samples, chosen)]
    every = [r for row in scores for r in row if r is not None]
    top = [row[i] for row, i in zip(scores, chosen) if row[i] is not None]
    rewards = {"reward": sum(every) / len(every), "reward_best": sum(top) / len(top)} if every else {}  # type: ignore[arg-type]
    return {**rewards, "length": mean(len(s.ids) for s in flat), "length_best": mean(len(s.ids) for s in taken),
            "eos_rate": mean(s.finished for s in flat), "repetition": mean(map(repetition, flat)),
            "repetition_best": mean(map(repetition, taken)),
            "distinct": mean(len({s.text for s in group}) / len(group) for group in samples)}


def worth(scores: Scores, n: int, run: Run) -> dict[str, Any]:
    """The expected best of k with its interval over prompts, for k = 1, 2, 4 … n, and each k's bound of the KL.

    Raises `UserError` where no prompt has a score for every candidate.
    """
    whole = [row for row in scores if None not in row]
    if not whole:
        raise UserError("The reward gave no prompt a score for each of its candidates.",
                        "Lower --max-tokens, or use a reward of greater length.")
    if len(whole) < len(scores):
        run.note(f"{len(scores) - len(whole)} of {len(scores)} prompts have a candidate without a score: not in the estimate.")
    ks = [*(2**i for i in range(n.bit_length()) if 2**i < n), n]
    by_prompt = best_of_n(whole, whole, ks).proxy_P_n  # type: ignore[arg-type]
    return {"prompts": len(scores), "n": n, "kl_bound": float(kl_best_of_n(n)),
            "gain": paired_difference(by_prompt[:, -1], by_prompt[:, 0]).to_json(),
            "best_of": {str(k): mean_interval(by_prompt[:, j]).to_json() for j, k in enumerate(ks)},
            "kl_bounds": {str(k): round(float(kl), 6) for k, kl in zip(ks, kl_best_of_n(ks))}}


def save(folder: Path, config: Config, sampler: PolicySampler, run: Run) -> None:
    save_policy(folder, "best_of_n", run.config["base"], sampler, reward=run.config["reward_base"], aggregate=config.aggregate,
                n=config.n, missing_eos_penalty=config.missing_eos_penalty)


def mean(values: Any) -> float:
    every = list(values)
    return float(sum(every) / len(every))
