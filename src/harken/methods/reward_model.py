"""A reward model from rankings, as InstructGPT trains it (2203.02155, section 3.5 and App. C.2).

    harken train reward_model --model runs/sft --data comparisons.jsonl --out runs/rm

A ranking of K completions is one element: every completion is encoded once, in one row with its prompt
computed once, and all C(K, 2) comparisons share the weight 1 / C(K, 2). Several people's rankings of the same
completions share that row too, each ranking with its own weight. A scalar head reads the last token.
One epoch by default: more overfits. Scores are shifted so that demonstrations (or, without them, the
training completions) average 0. Held-out prompts are never trained on; with five or more known labelers
some labelers are held out as well, to see whether the reward speaks for people it never heard.

With `--labelers reliability` each labeler has a rationality and a pull towards length, learnt with the network
under priors: who contradicts the others counts less, who answers upside down counts the other way round.

Leaves out: margins, centring losses.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harken.core.config import HeldOutConfig, setting
from harken.core.errors import UserError
from harken.core.protocols import Datum, Loss, Outputs, RewardLearner, Tree
from harken.core.records import Choice
from harken.core.run import Run
from harken.labelers.models.given import BETA_SD, LENGTH_SD, Ranked, fit_traits
from harken.loops.examples import fitting, held_out
from harken.loops.held_out import HeldOut, choice_loss
from harken.loops.steps import Steps
from harken.objectives.feedback import felt, labeler_prior
from harken.objectives.preference import TIES, k_wise, repeat
from harken.stats.pairs import PairScores, evaluate_pairs, ordered_apart
from harken.store.files import read_comparisons, read_demonstrations
from harken.store.splits import held_out_labelers
from harken.text.fitting import by_options, describe_same, distinguishes


@dataclass(frozen=True)
class Config(HeldOutConfig):
    epochs: float = setting(1.0, above=0)
    """Passes over the rankings."""
    batch_size: int = setting(16, least=1)
    """Sets of completions in one optimiser step, with all their rankings."""
    ties: str = setting("davidson", one_of=TIES)
    """Ties: davidson or rao_kupper (a learnt tie parameter), or drop (as InstructGPT)."""
    labelers: str = setting("plain", one_of=("plain", "reliability", "groups"))
    """Who judged: plain (all alike), reliability (each one's rationality and pull towards length are learnt), or groups
    (a score of each group's own, drawn to the shared one)."""
    group_by: str = ""
    """The tag that says who belongs together, like age; used by --labelers groups."""
    group_shrinkage: float = 1.0
    """How strongly each group's score is drawn to the shared one: the precision of a prior in units of a score."""
    learning_rate: float = setting(1e-4, least=0, full=1e-5)
    """Peak learning rate of AdamW; 1e-5 by default where every parameter is trained (--lora-rank 0)."""
    labeler_learning_rate: float = setting(0.02, least=0)
    """Peak learning rate of the labelers' own parameters; the schedule is the model's."""
    demonstrations: str = setting("", names="file")
    """JSON Lines file of demonstrations whose scores shall average 0; without it the training completions do."""
    holdout: float = setting(0.15, least=0, most=1)
    """Share of prompts kept out of training to measure accuracy on."""
    holdout_labelers: float = setting(0.1, least=0, most=1)
    """Share of labelers kept out as well, at least one, where five or more are known; 0 trains on everybody."""


TRIAL = {"data": "comparisons", "epochs": 0.5, "batch_size": 6, "learning_rate": 1e-3, "labelers": "reliability"}
BRANCHES = 2
"""Completions beside each other in a tree, for a plan of the memory: a pair; a ranking of K has K."""


def head(config: Config) -> str:
    return "reward"


def train(config: Config, learner: RewardLearner, sampler: Any, reward: Any, run: Run) -> None:
    """Trains `learner` (with a reward head) on comparisons; `sampler` and `reward` are not used."""
    every = fitting(read_comparisons(config.data, **config.reading), lambda c: learner.template.tree(c.prompt, c.options),
                    learner.template, config, run, "rankings")
    telling = [(choice, tree) for choice, tree in every if distinguishes(choice) or not choice.has_preference]
    if note := describe_same(len(every) - len(telling)):
        run.note(note)
    strangers = held_out_labelers([choice for choice, _ in telling], config.holdout_labelers, config.seed)
    labelers_out = [(choice, tree) for choice, tree in telling if choice.labeler in strangers]
    within, prompts_out = held_out([e for e in telling if e[0].labeler not in strangers], config.holdout, config.seed)
    used = [(choice, tree) for choice, tree in within if choice.has_preference or config.ties != "drop"]
    elements = by_options(used)
    people = _people(config, learner, used) if config.labelers == "reliability" else {}
    groups = _groups(config, learner, used) if config.labelers == "groups" else {}
    zero = _zero(config, learner, run)
    preferred = [(choice, tree) for choice, tree in prompts_out if choice.has_preference]
    run.watch = HeldOut(config, learner, run, (lambda: heldout_figures(learner, preferred)) if preferred else None)
    steps = Steps(run, learner, elements, config, "reward model", size=config.batch_size, epochs=config.epochs)

    for step, batch in steps:
        rankings = sum(len(choices) for _, choices in batch)
        data = [_datum(tree, choices, people, groups, config.group_by) for tree, choices in batch]

        def objective(out: Outputs, x: Any, weight: float = 1 / rankings) -> Loss:
            return ranked_loss(config, learner, out, x, weight, len(used))

        metrics = learner.forward_backward(data, objective)
        metrics["accuracy"] = metrics.pop("correct") / max(1.0, pairs := metrics.pop("pairs"))
        metrics |= learner.step(steps.rate(step))
        run.log(step + 1, **metrics, pairs=pairs, rankings=rankings)

    learner.shift -= float(torch.cat(learner.scores(zero or [tree for tree, _ in elements])).double().mean())
    if groups:
        _centre_groups(learner, zero or [tree for tree, _ in elements])
    result: dict[str, Any] = {"rankings": len(used), "held_out_labelers": sorted(strangers)}
    if scores := _figures(learner, prompts_out):
        result |= scores.to_json()
    else:
        run.note("No prompt with a preference was held out: accuracy is not measured.")
    scores = _figures(learner, labelers_out)
    result["accuracy_labelers"] = scores.to_json()["accuracy"] if scores else None
    if people:
        result["labelers"] = _who(learner, people, elements)
    if groups:
        result |= _by_group(config, learner, groups, used, prompts_out)
    steps.finish(**result)


def ranked_loss(config: Config, learner: RewardLearner, out: Outputs, x: Any, weight: float, rankings: int) -> Loss:
    """The rankings' loss, each of `weight`, under the scores that their labelers or groups have. The prior of their parameters
    counts once in all `rankings`, so each ranking carries its share."""
    assert out.scores_C is not None
    index, sizes = repeat(out.sizes, x["rankings"].int().tolist())
    scores_C, prior = out.scores_C[index], 0.0
    if config.labelers == "reliability":
        scores_C, prior = _felt(learner, scores_C, x)
    elif config.labelers == "groups":
        assert out.ends_CD is not None
        scores_C, prior = _with_group(config, learner, scores_C, out.ends_CD[index], x)
    loss, metrics = k_wise(scores_C, x["ranks"], torch.full_like(x["ranks"], weight), sizes, ties=config.ties,
                           tie=learner.scalars["tie"] if config.ties != "drop" else None)
    return loss + prior * len(sizes) * weight / rankings, metrics


def _felt(learner: RewardLearner, scores_C: Tensor, x: Any) -> tuple[Tensor, Any]:
    """The scores as each labeler feels them, and the prior of the labelers' parameters."""
    beta_A, length_A = learner.scalars["labeler_beta"], learner.scalars["labeler_length"]
    who_C = x["who"].long()
    return felt(scores_C, beta_A[who_C], length_A[who_C], x["length"]), labeler_prior(beta_A, length_A, BETA_SD, LENGTH_SD)


def _with_group(config: Config, learner: RewardLearner, scores_C: Tensor, ends_CD: Tensor, x: Any) -> tuple[Tensor, Any]:
    """The shared score plus the group's own, and the prior of the groups' heads: N(0, 1 / (shrinkage D)) of each weight, so
    that one group's score has variance 1 / shrinkage on states of unit size."""
    heads_GD, group_C = learner.scalars["group_head"], x["group"].long()
    own_C = (ends_CD * heads_GD[group_C.clamp(min=0)]).sum(-1)
    prior = config.group_shrinkage * heads_GD.shape[1] / 2 * (heads_GD**2).sum()
    return scores_C + torch.where(group_C >= 0, own_C, 0.0), prior


def _people(config: Config, learner: RewardLearner, pairs: list[tuple[Choice, Tree]]) -> dict[str, int]:
    """The labelers whose parameters are learnt, by name."""
    names = sorted({choice.labeler for choice, _ in pairs if choice.labeler})
    if len(names) < 2 or any(choice.labeler is None for choice, _ in pairs):
        raise UserError(f"--labelers {config.labelers} has to know who judged; {config.data} names {len(names)} labelers"
                        f"{' and leaves some rankings unsigned' if names else ''}.",
                        'Give every row its "labeler" (two or more of them), or use --labelers plain.')
    ratio = config.labeler_learning_rate / config.learning_rate if config.learning_rate else 0.0
    learner.add_scalars({"labeler_beta": [1.0] * len(names), "labeler_length": [0.0] * len(names)}, ratio)
    return {name: i for i, name in enumerate(names)}


def _groups(config: Config, learner: RewardLearner, pairs: list[tuple[Choice, Tree]]) -> dict[str, int]:
    """The groups that get a score of their own, by the value of their tag; rankings without the tag teach the shared one."""
    names = sorted({choice.group[config.group_by] for choice, _ in pairs if config.group_by in choice.group})
    if len(names) < 2:
        tags = sorted({tag for choice, _ in pairs for tag in choice.group})
        tags_found = f"the tag {config.group_by!r} names {len(names)} groups" if config.group_by else "no tag was given"
        raise UserError(f"--labelers groups needs two groups or more; {tags_found}.",
                        f"--group-by takes one of the tags in the file: {', '.join(tags) or 'there are none'}.")
    width = learner.width
    learner.add_scalars({"group_head": [[0.0] * width for _ in names]}, 1.0)
    return {name: i for i, name in enumerate(names)}


def _centre_groups(learner: RewardLearner, trees: list[Tree]) -> None:
    """Brings every group's scores to the same zero: only then can the worst of them be named (P16)."""
    heads_GD = learner.scalars["group_head"]
    learner.scalars["group_shift"] = torch.nn.Parameter(torch.zeros(len(heads_GD), device=heads_GD.device), requires_grad=False)
    means = torch.cat(learner.group_scores(trees)).double().mean(0).float()
    learner.scalars["group_shift"] = torch.nn.Parameter(-means.to(heads_GD.device), requires_grad=False)


def _by_group(config: Config, learner: RewardLearner, groups: dict[str, int], pairs: list[tuple[Choice, Tree]],
              held: list[tuple[Choice, Tree]]) -> dict[str, Any]:
    """Each group's rankings, and how well its own and the shared score predict its held-out choices."""
    result: dict[str, dict[str, Any]] = {}
    for name, g in groups.items():
        mine = [(c, t) for c, t in held if c.group.get(config.group_by) == name and c.has_preference]
        row: dict[str, Any] = {"rankings": sum(c.group.get(config.group_by) == name for c, _ in pairs)}
        if mine:
            choices, trees = [c for c, _ in mine], [t for _, t in mine]
            own = [s[:, g].tolist() for s in learner.group_scores(trees)]
            shared = [s.tolist() for s in learner.scores(trees)]
            row |= {"accuracy": evaluate_pairs(choices, own).accuracy.to_json(),
                    "shared_accuracy": evaluate_pairs(choices, shared).accuracy.to_json()}
        result[name] = row
    worst = [row["accuracy"]["value"] for row in result.values() if "accuracy" in row]
    return {"groups": result, "worst_group_accuracy": min(worst) if worst else None} | _apart(learner, list(groups), held)


def _apart(learner: RewardLearner, names: list[str], held: list[tuple[Choice, Tree]]) -> dict[str, Any]:
    """How often two groups' scores order two held-out answers differently, and the prompts where they lie furthest apart."""
    asked = list({tree: choice for choice, tree in held}.items())
    if not asked:
        return {}
    scores = [s.tolist() for s in learner.group_scores([tree for tree, _ in asked])]
    options = [(choice.prompt.id, row) for (_, choice), row in zip(asked, scores)]
    couples = [(g, h) for g in range(len(names)) for h in range(g)]
    apart = {f"{names[h]} and {names[g]}": e.to_json() for g, h in couples
             if (e := ordered_apart([(p, [r[g] for r in row], [r[h] for r in row]) for p, row in options]))}

    def spread(at: int) -> float:
        """Largest difference of two groups about two answers."""
        return max((abs((a[g] - a[h]) - (b[g] - b[h])) for a in scores[at] for b in scores[at] for g, h in couples), default=0.0)

    far = sorted(range(len(asked)), key=spread, reverse=True)[:3]
    shown = [{"prompt": asked[i][1].prompt.text, "answers": [{"text": text, "scores": dict(zip(names, row))}
                                                            for text, row in zip(asked[i][1].options, scores[i])]} for i in far]
    return {"ordered_apart": apart, "furthest_apart": shown}


def _datum(tree: Tree, choices: list[Choice], people: dict[str, int], groups: dict[str, int], tag: str) -> Datum:
    inputs: dict[str, list[float]] = {"ranks": [r for c in choices for r in c.ranks], "rankings": [len(choices)]}
    if people:
        inputs["who"] = [people[c.labeler or ""] for c in choices for _ in c.ranks]
        inputs["length"] = [math.log2(len(text) + 1) for c in choices for text in c.options]
    if groups:
        inputs["group"] = [groups.get(c.group.get(tag, ""), -1) for c in choices for _ in c.ranks]
    return Datum(tree, inputs)


def _who(learner: RewardLearner, people: dict[str, int],
         elements: list[tuple[Tree, list[Choice]]]) -> dict[str, dict[str, float]]:
    """Each labeler's traits under the final scores, whose differences are the log-odds of one with beta 1.

    Not those that training ended with: its steps may have been too few for them, and they have no intervals.
    """
    scores = [s.tolist() for s in learner.scores([tree for tree, _ in elements])]
    ranked = [Ranked(row, [math.log2(len(text) + 1) for text in c.options], c.ranks, people[c.labeler or ""])
            for row, (_, choices) in zip(scores, elements) for c in choices]
    count = Counter(one.labeler for one in ranked)
    traits = fit_traits(ranked, labelers=len(people), beta_sd=BETA_SD, length_sd=LENGTH_SD)
    return {name: _interval("beta", traits.beta[i], traits.beta_sd[i])
            | _interval("length", traits.length[i], traits.length_sd[i])
            | {"level": 0.9, "rankings": count[i]} for name, i in people.items()}


def _interval(name: str, value: float, sd: float) -> dict[str, float]:
    return {name: float(value), f"{name}_low": float(value - 1.645 * sd), f"{name}_high": float(value + 1.645 * sd)}


def _zero(config: Config, learner: RewardLearner, run: Run) -> list[Tree]:
    """The demonstrations whose scores shall average 0 (P16); none where the training completions do."""
    if not config.demonstrations:
        run.note("Scores are shifted so that the training completions average 0; give --demonstrations to use those.")
        return []
    loaded = read_demonstrations(config.demonstrations, skip_bad=config.skip_bad)
    examples = fitting(loaded, lambda d: learner.template.tree(d.prompt, [d.completion]), learner.template, config, run,
                       "demonstrations", overlong="drop")
    if not examples:
        raise UserError(f"No demonstration of {config.demonstrations} fits --max-length {config.max_length}.",
                        "Raise it, or leave --demonstrations out.")
    return [tree for _, tree in examples]


def heldout_figures(learner: RewardLearner, held: list[tuple[Choice, Tree]]) -> dict[str, float]:
    """Bradley-Terry's loss of held-out choices, and how many pairs are ranked as people did."""
    choices, scores = [choice for choice, _ in held], [s.tolist() for s in learner.scores([tree for _, tree in held])]
    return {"heldout_loss": choice_loss(choices, scores), "heldout_accuracy": evaluate_pairs(choices, scores).accuracy.value}


def _figures(learner: RewardLearner, held: list[tuple[Choice, Tree]]) -> PairScores | None:
    """None where nobody preferred anything."""
    if not any(choice.has_preference for choice, _ in held):
        return None
    scores = learner.scores([tree for _, tree in held])
    return evaluate_pairs([choice for choice, _ in held], [s.tolist() for s in scores])
