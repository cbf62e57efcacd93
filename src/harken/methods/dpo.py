"""Direct preference optimisation and its kin: a policy from rankings, without a reward model (2305.18290).

    harken train dpo --model runs/sft --data comparisons.jsonl --out runs/dpo

A set of completions is one row with its prompt computed once, for everybody's rankings of it; a ranking's untied pairs
count, together, as much as one comparison (ties say nothing here: P32). `--loss` chooses

    dpo       -log σ(β h), h the log-ratio of better to worse less the reference's
    cdpo      labels wrong with chance --smoothing               robust   the same, unbiased
    ipo       (h - 1 / 2β)²                                      hinge    max(0, 1 - β h)
    simpo     mean log-probs, a margin --gamma, no reference     orpo     log odds plus the better's NLL, no reference
    kto       each completion alone: top of its ranking desirable, the rest not (2402.01306)

Both log-probs are logged apart: both may fall while the margin grows (P27); --nll-weight holds the better one up.

Leaves out: samples from the changing policy (on-policy DPO), models of who the labelers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harken.core.config import HeldOutConfig, setting
from harken.core.protocols import Datum, Learner, Loss, Outputs, Tree
from harken.core.records import Choice
from harken.core.run import Run
from harken.loops.examples import fitting, held_out
from harken.loops.held_out import HeldOut, choice_loss
from harken.loops.reference import ReferenceSums
from harken.loops.steps import Steps
from harken.objectives.direct import LOSSES, REFERENCE_FREE, kto, orpo, pairwise, sequence_logps, simpo
from harken.objectives.preference import pair_indices, repeat
from harken.store.files import read_comparisons
from harken.text.fitting import by_options, describe_same, distinguishes


@dataclass(frozen=True)
class Config(HeldOutConfig):
    loss: str = setting("dpo", one_of=LOSSES)
    """dpo, cdpo, robust, ipo, hinge, simpo, orpo or kto."""
    beta: float = setting(0.1, above=0)
    """Strength of the pull to the reference; simpo wants about 2, ipo's τ is the same number."""
    smoothing: float = setting(0.1, least=0, below=0.5)
    """Chance that a label is wrong; used by cdpo and robust."""
    gamma: float = 1.0
    """SimPO's margin."""
    nll_weight: float = setting(0.0, least=0)
    """Adds this times the mean NLL of the best completions' tokens, against falling log-probs."""
    epochs: float = setting(1.0, above=0)
    """Passes over the rankings."""
    batch_size: int = setting(16, least=1)
    """Sets of completions in one optimiser step, with all their rankings."""
    learning_rate: float = setting(5e-5, least=0, full=5e-7)
    """Peak learning rate of AdamW; 5e-7 by default where every parameter is trained (--lora-rank 0)."""
    warmup: float = setting(0.1, least=0, most=1)
    """Share of the steps over which the learning rate rises linearly."""
    holdout: float = setting(0.1, least=0, most=1)
    """Share of prompts kept out of training to measure accuracy on; 0 trains on everything."""


TRIAL = {"data": "comparisons", "epochs": 0.5, "batch_size": 6, "learning_rate": 1e-3}
BRANCHES = 2
"""Completions beside each other in a tree, for a plan of the memory: a pair; a ranking of K has K."""


def needs_reference(config: Config) -> bool:
    return config.loss not in REFERENCE_FREE


def train(config: Config, learner: Learner, sampler: Any, reward: Any, run: Run) -> None:
    """Trains `learner` on rankings; `sampler` and `reward` are not used."""
    every = fitting(read_comparisons(config.data, **config.reading), lambda c: learner.template.tree(c.prompt, c.options),
                    learner.template, config, run, "rankings")
    preferring = [(choice, tree) for choice, tree in every if choice.has_preference]
    if len(preferring) < len(every):
        run.note(f"{len(every) - len(preferring)} rankings are all ties and say nothing here.")
    telling = [(choice, tree) for choice, tree in preferring if distinguishes(choice)]
    if note := describe_same(len(preferring) - len(telling)):
        run.note(note)
    training, outside = held_out(telling, config.holdout, config.seed)
    reference = ReferenceSums(learner, run)
    run.watch = HeldOut(config, learner, run, (lambda: heldout_figures(config, learner, outside, reference)) if outside else None)
    sets = by_options(training)
    if needs_reference(config) and config.epochs > 1:
        reference.keep([tree for tree, _ in sets])
    steps = Steps(run, learner, sets, config, config.loss, size=config.batch_size, epochs=config.epochs)

    for step, batch in steps:
        data, zero = make_batch(config, learner, batch, reference)

        def objective(out: Outputs, x: Any, zero: float = zero) -> Loss:
            return ranked_loss(config, out, x, zero)

        metrics = learner.forward_backward(data, objective)
        metrics |= learner.step(steps.rate(step))
        metrics["accuracy"] = metrics.pop("correct")
        if config.loss == "kto":
            metrics["kl_zero"] = zero
        run.log(step + 1, **metrics, rankings=sum(len(choices) for _, choices in batch))

    accuracy = {"heldout_accuracy": implicit_accuracy(config, learner, outside, reference)} if outside else {}
    steps.finish(rankings=len(training), heldout=len(outside), **accuracy)


def make_batch(config: Config, learner: Learner, batch: Sequence[tuple[Tree, list[Choice]]], reference: ReferenceSums
               ) -> tuple[list[Datum], float]:
    """Data with `rankings` (their number, one a tree), `share` (one a ranking), `ranks` and `ref` (one a completion of each
    ranking), `weights` (one a token); KTO's z_0."""
    trees = [tree for tree, _ in batch]
    ref = reference.of(trees) if needs_reference(config) else None
    # How often each completion was somebody's best: what the NLL term holds up, divided by those tokens.
    best = [[sum(c.ranks[i] == min(c.ranks) for c in choices) for i in range(len(tree.completions))] for tree, choices in batch]
    tokens = sum(times * len(c) for row, t in zip(best, trees) for times, c in zip(row, t.completions))
    share = 1 / sum(len(choices) for _, choices in batch)
    data = []
    for i, (tree, choices) in enumerate(batch):
        data.append(Datum(tree, {
            "rankings": [len(choices)], "share": [share] * len(choices), "ranks": [r for c in choices for r in c.ranks],
            "ref": (ref[i] if ref else [0.0] * len(tree.completions)) * len(choices),
            "weights": [config.nll_weight / tokens * times for times, c in zip(best[i], tree.completions) for _ in c]}))
    return data, mismatched_kl(learner, trees) if config.loss == "kto" else 0.0


def ranked_loss(config: Config, out: Outputs, x: Any, zero: float) -> tuple[Tensor, dict[str, Tensor]]:
    """The chosen loss over all untied pairs of every ranking (or over every completion: kto), plus the NLL term."""
    index, each = repeat(out.sizes, x["rankings"].int().tolist())
    logps = sequence_logps(out.logps_N, out.lengths)[index]
    ranks, sizes = x["ranks"], torch.tensor(each, device=logps.device)
    lengths = torch.tensor(out.lengths, dtype=logps.dtype, device=logps.device)[index]
    if config.loss == "kto":
        best = torch.cat([(part == part.min()) for part in torch.split(ranks, each)])
        good = torch.stack([part.sum() for part in torch.split(best, each)])
        halves = torch.where(best, (0.5 / good).repeat_interleave(sizes), (0.5 / (sizes - good)).repeat_interleave(sizes))
        loss, metrics = kto(logps, x["ref"], best, halves * x["share"].repeat_interleave(sizes), zero, beta=config.beta)
    else:
        i, j, _ = pair_indices(each, logps.device)
        owner = torch.arange(len(each), device=logps.device).repeat_interleave(sizes * (sizes - 1) // 2)
        won = ranks[i] != ranks[j]
        better, worse = torch.where(ranks[i] < ranks[j], i, j)[won], torch.where(ranks[i] < ranks[j], j, i)[won]
        untied = torch.zeros(len(each), device=logps.device).index_add(0, owner, won.to(logps.dtype))
        weights = (x["share"] / untied)[owner[won]]
        if config.loss == "simpo":
            loss, metrics = simpo(logps[better], logps[worse], lengths[better], lengths[worse], weights, beta=config.beta,
                                  gamma=config.gamma)
        elif config.loss == "orpo":
            loss, metrics = orpo(logps[better], logps[worse], lengths[better], lengths[worse], weights, beta=config.beta)
        else:
            loss, metrics = pairwise(logps[better], logps[worse], x["ref"][better], x["ref"][worse], weights,
                                     loss=config.loss, beta=config.beta, smoothing=config.smoothing)
    if config.nll_weight > 0:
        nll = -(x["weights"] * out.logps_N).sum()
        loss, metrics = loss + nll, {**metrics, "nll": nll.detach() / config.nll_weight}
    return loss, metrics


def mismatched_kl(learner: Learner, trees: Sequence[Tree]) -> float:
    """KTO's z_0: mean log-ratio of completions under other prompts of the batch, at least 0 (2402.01306, section 4.1)."""
    if len(trees) < 2:
        return 0.0
    others = [Tree(tree.prompt, trees[(k + 1) % len(trees)].completions[:1]) for k, tree in enumerate(trees)]
    policy, reference = learner.logprobs(others), learner.logprobs(others, reference=True)
    return max(0.0, sum(float(p.sum() - q.sum()) for (p,), (q,) in zip(policy, reference)) / len(others))


def heldout_figures(config: Config, learner: Learner, held: Sequence[tuple[Choice, Tree]], reference: ReferenceSums
                    ) -> dict[str, float]:
    """Bradley-Terry's loss of held-out choices, under β times the implicit reward."""
    scores = implicit_scores(config, learner, held, reference)
    return {"heldout_loss": choice_loss([choice for choice, _ in held], [[config.beta * s for s in row] for row in scores])}


def implicit_accuracy(config: Config, learner: Learner, held: Sequence[tuple[Choice, Tree]], reference: ReferenceSums
                      ) -> dict[str, Any]:
    """How often the policy's implicit reward puts the better completion first, with interval and null baselines."""
    from harken.stats.pairs import evaluate_pairs
    scores = implicit_scores(config, learner, held, reference)
    accuracy: dict[str, Any] = evaluate_pairs([choice for choice, _ in held], scores).to_json()["accuracy"]
    return accuracy


def implicit_scores(config: Config, learner: Learner, held: Sequence[tuple[Choice, Tree]], reference: ReferenceSums
                    ) -> list[list[float]]:
    """Log-ratios to the reference, or without one the mean log-probs, [choice][option]."""
    trees = [tree for _, tree in held]
    policy = learner.logprobs(trees)
    if needs_reference(config):
        return [[float(p.sum()) - r for p, r in zip(a, b)] for a, b in zip(policy, reference.of(trees, keep=True))]
    return [[float(p.mean()) for p in tree] for tree in policy]
