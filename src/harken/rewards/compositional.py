"""A compositional preference model: a few attributes of an answer, weighted by what people preferred (2310.13011).

    harken fit compositional --data comparisons.jsonl --judge smollm2 --out runs/cpm
    harken score --reward runs/cpm --data comparisons.jsonl --explain --out scores.jsonl

Each answer is rated from 1 to 10 on each attribute (by a prompted model, or measured by other rewards), the ratings are
z-normalised over all training answers, and P(a over b) = σ(Σ_k w_k (z_k(a) − z_k(b))) is fitted without an intercept, L1 or
L2, its strength by cross-validation that never splits a prompt. The score is Σ_k w_k z_k: a sum of parts that can be read,
0 on average over the training answers, its differences log-odds of preference.

It is a biased model of low variance: with few labels it is harder to fool than a learnt reward model, with many clean ones
that one overtakes it. It can only see what the attributes name. Differs from the paper: rankings of K weigh as one
ranking (their pairs 1 / C(K, 2) each, as InstructGPT), ties may count half to both sides, and cross-validation looks at
the likelihood, not the accuracy. Shapes: N answers, A attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harken.core.config import setting
from harken.core.errors import UserError
from harken.core.files import read_json, write_json
from harken.core.progress import waiting
from harken.core.protocols import Reward
from harken.core.records import Choice, Prompt
from harken.core.run import Run
from harken.core.seeds import MOST_SEED
from harken.stats.intervals import Floats
from harken.stats.logistic import Chosen, Penalty, choose, intervals
from harken.stats.pairs import evaluate_pairs
from harken.store.files import read_comparisons
from harken.store.scores import ScoreCache
from harken.store.splits import in_share
from harken.text.attributes import Attribute
from harken.text.panel import Judge, Panel, Quality, qualities

FILE = "compositional.json"
EXPLAINED = 3


@dataclass(frozen=True)
class Config:
    """What `harken fit compositional` takes."""

    data: str = setting("", names="file")
    """JSON Lines file of comparisons to learn from."""
    judge: str = "smollm2"
    """Who rates: a model (as --model elsewhere), an endpoint (http://host/v1), or rules (measures that need no model)."""
    judge_model: str = ""
    """The model's name at an endpoint."""
    out: str = ""
    """Run directory to write. The same command continues an unfinished run."""
    attributes: str = setting("", names="file")
    """JSON file of attributes; without it the thirteen of the paper and the length (with --judge rules: built-in measures)."""
    answers: str = setting("expected", one_of=("expected", "sampled"))
    """How a model rates: expected (the mean of 1 to 10 under its probabilities) or sampled (the number it writes; endpoints)."""
    tied: str = setting("drop", one_of=("drop", "half"))
    """Ties in the comparisons: drop, or half (half a win to either side)."""
    penalty: str = setting("both", one_of=("both", "l1", "l2"))
    """Regularisation: l1, l2, or both (cross-validation decides)."""
    folds: int = setting(8, least=2)
    """Folds of cross-validation; a prompt is never split."""
    holdout: float = setting(0.15, least=0, most=1)
    """Share of prompts kept out of fitting to measure accuracy on."""
    retest: int = setting(40, least=0)
    """Answers rated a second time, the question worded otherwise; 0 skips it."""
    min_entropy: float = setting(0.3, least=0)
    """Attributes whose ratings have less entropy than this, in bits, are weak."""
    max_failures: float = setting(0.1, least=0, most=1)
    """Attributes without a readable rating for more than this share of the answers are weak."""
    weak: str = setting("drop", one_of=("drop", "keep", "fail"))
    """Weak attributes: drop (and say so), keep (and warn) or fail."""
    seed: int = setting(0, least=0, most=MOST_SEED)
    """Seed of the held-out prompts and the folds."""
    dtype: str = setting("float32", one_of=("float32", "bfloat16", "auto"))
    """Precision of the judge: float32, bfloat16 or auto."""
    skip_bad: bool = False
    """Skip malformed lines of the data, and count them, instead of stopping."""


@dataclass(frozen=True)
class Term:
    """An attribute in the score: `weight` · (rating − `mean`) / `sd`."""

    attribute: Attribute
    mean: float
    sd: float
    weight: float


class CompositionalReward:
    """Scores as a sum of parts. A completion without one of its ratings has no score (E8)."""

    def __init__(self, terms: Sequence[Term], panel: Panel) -> None:
        self.terms = [t for t in terms if t.weight != 0.0]  # what L1 left out is not asked about
        self.panel = Panel([t.attribute for t in self.terms], panel.judge, panel.scorers, panel.identity, panel.ratings)

    @classmethod
    def open(cls, run: str | Path, judge: Callable[[Mapping[str, Any]], tuple[Judge, Any]],
             scorer: Callable[[str], Reward]) -> CompositionalReward:
        """From a finished run. `judge` opens the judge named in the file and says its identity, `scorer` a reward by name.

        Raises `UserError` where the judge is not the one whose ratings the weights belong to (E17).
        """
        saved, terms = _read(Path(run) / "model" / FILE)
        used = [t.attribute for t in terms if t.weight != 0.0]
        opened, identity = judge(saved["judge"]) if any(not a.scorer for a in used) else (None, saved["identity"])
        if identity != saved["identity"]:
            raise UserError(f"The judge {saved['judge']['judge']} is not the one whose ratings {run} was fitted to.",
                            "Restore that judge, or fit again.")
        return cls(terms, Panel(used, opened, {a.name: scorer(a.scorer) for a in used if a.scorer}, identity))

    def parts(self, items: Sequence[tuple[Prompt, str]]) -> Floats:
        """[N, A]: what each term adds to each answer's score; NaN where a rating is missing."""
        mean, sd, weight = (np.array([getattr(t, name) for t in self.terms]) for name in ("mean", "sd", "weight"))
        if not self.terms:
            return np.zeros((len(items), 0))
        return np.asarray(weight * (self.panel.rate(items) - mean) / sd)

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """[P], [P][G] -> [P][G]."""
        flat = self.parts([(p, t) for p, texts in zip(prompts, completions) for t in texts]).sum(1)
        scores = iter([None if np.isnan(s) else float(s) for s in flat])
        return [[next(scores) for _ in texts] for texts in completions]

    def explain(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[Mapping[str, float] | None]]:
        """Each score's parts by attribute; they add up to it. None for a completion without a score."""
        flat = self.parts([(p, t) for p, texts in zip(prompts, completions) for t in texts])
        names = [t.attribute.name for t in self.terms]
        rows = iter([None if np.isnan(row).any() else dict(zip(names, row.tolist())) for row in flat])
        return [[next(rows) for _ in texts] for texts in completions]


def _read(file: Path) -> tuple[dict[str, Any], list[Term]]:
    """What `train` saved, and its terms. Raises `UserError` where something is missing or no number."""
    saved = read_json(file)
    try:
        terms = [Term(Attribute.from_json(t["attribute"]), float(t["mean"]), float(t["sd"]), float(t["weight"]))
                 for t in saved["terms"]]
        complete = {"judge", "judge_model", "answers"} == set(saved["judge"]) and "identity" in saved
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is damaged ({type(error).__name__}: {error}).", "Restore it, or fit again.") from None
    if not complete or not all(np.isfinite([t.mean, t.sd, t.weight]).all() for t in terms):
        raise UserError(f"{file} is damaged: it lacks its judge, or a number is none.", "Restore it, or fit again.")
    return saved, terms


@dataclass(frozen=True)
class Pairs:
    """Differences of standardised ratings, better minus worse (a tie: y = ½), with weights and prompts."""

    x: Floats
    y: Floats
    weights: Floats
    prompts: list[str]
    missing: int
    information: Floats
    """What a row tells, in comparisons: 3 / (K + 1) in a ranking of K, whose pairs repeat each other (exact where scores are
    equal: a rank's variance is (K² − 1) / 12)."""


def pairs_of(choices: Sequence[Choice], z: Mapping[tuple[str, str], Floats], ties: str) -> Pairs:
    """All pairs of every ranking, 1 / C(K, 2) each (P31); pairs with a missing rating are counted and left out."""
    rows, y, weights, prompts, information, missing = [], [], [], [], [], 0
    for choice in choices:
        K = len(choice.options)
        outcomes = [(i, j, 1.0) for i, j in choice.pairs()]
        if ties == "half":
            outcomes += [(i, j, 0.5) for i in range(K) for j in range(i) if choice.ranks[i] == choice.ranks[j]]
        for i, j, outcome in outcomes:
            difference = z[choice.prompt.id, choice.options[i]] - z[choice.prompt.id, choice.options[j]]
            if np.isnan(difference).any():
                missing += 1
                continue
            rows.append(difference)
            y.append(outcome)
            weights.append(2 / (K * (K - 1)))
            prompts.append(choice.prompt.id)
            information.append(3 / (K + 1))
    return Pairs(np.array(rows), np.array(y), np.array(weights), prompts, missing, np.array(information))


@dataclass(frozen=True)
class Combined:
    """Fitted terms, the pairs they were fitted to, and what cross-validation chose."""

    terms: list[Term]
    pairs: Pairs
    chosen: Chosen


def combine(choices: Sequence[Choice], attributes: Sequence[Attribute], keys: Sequence[tuple[str, str]], ratings_N_A: Floats,
            config: Config) -> Combined:
    """Weighs rated attributes by choices; `keys` are the (prompt id, answer) of each row of ratings.

    Raises `UserError` where fewer prompts than folds have a usable pair.
    """
    mean, sd = np.nanmean(ratings_N_A, 0), np.nanstd(ratings_N_A, 0)
    sd = np.where(sd > 0, sd, 1.0)  # an attribute that does not differ here adds nothing
    pairs = pairs_of(choices, dict(zip(keys, (ratings_N_A - mean) / sd)), config.tied)
    if (count := len(set(pairs.prompts))) < config.folds:
        raise UserError(f"{count} prompts with a usable pair are too few for {config.folds} folds.",
                        "Lower --folds, or give more comparisons.")
    penalties: tuple[Penalty, ...] = ("l1", "l2") if config.penalty == "both" else (config.penalty,)  # type: ignore[assignment]
    chosen = choose(pairs.x, pairs.y, pairs.prompts, weights=pairs.weights, penalties=penalties, k=config.folds, seed=config.seed)
    terms = [Term(a, float(m), float(s), float(w)) for a, m, s, w in zip(attributes, mean, sd, chosen.weights)]
    return Combined(terms, pairs, chosen)


def train(config: Config, panel: Panel, run: Run) -> None:
    """Rates, checks, fits and measures; `harken fit compositional` after its settings are checked."""
    with waiting("reading", 1):
        loaded = read_comparisons(config.data, skip_bad=config.skip_bad)
    if note := loaded.describe():
        run.note(note)
    cache = ScoreCache(run.path / "scores.sqlite")
    panel.ratings = cache
    learnt: list[Choice] = []
    held: list[Choice] = []
    for c in loaded.records:
        (held if in_share(c.prompt.id, config.holdout, config.seed) else learnt).append(c)
    items = {(c.prompt.id, t): (c.prompt, t) for c in learnt for t in c.options}
    if not items:
        raise UserError("No prompt is left to learn from.", "Lower --holdout, or give more comparisons.")
    ratings = panel.rate(list(items.values()))
    quality = qualities(panel, list(items.values()), ratings, retest=config.retest, least_entropy=config.min_entropy,
                        most_failures=config.max_failures, seed=config.seed)
    used = _usable(config, panel, quality, run)
    with waiting("choosing weights", 1):
        fit = combine(learnt, [panel.attributes[k] for k in used], list(items), ratings[:, used], config)
    if fit.pairs.missing:
        run.note(f"Left out {fit.pairs.missing} of {fit.pairs.missing + len(fit.pairs.y)} pairs: a rating is missing.")
    if not any(fit.chosen.weights):
        run.note("No attribute told the preferred answers from the others: every score is 0.")
    reward = CompositionalReward(fit.terms, panel)
    result = _result(panel, quality, fit) | _held_out(reward, held, run) | _explained(reward, held or learnt)
    saved = {"judge": {"judge": config.judge, "judge_model": config.judge_model, "answers": config.answers},
             "identity": panel.identity, "terms": [{**asdict(t), "attribute": t.attribute.to_json()} for t in fit.terms]}
    run.finish(result, lambda folder: write_json(folder / FILE, saved))
    cache.close()


def _held_out(reward: CompositionalReward, held: Sequence[Choice], run: Run) -> dict[str, Any]:
    """Accuracy on prompts kept out of fitting; nothing, and a note, where there is none to measure."""
    if not any(c.has_preference for c in held):
        run.note("No prompt with a preference was held out: accuracy is not measured.")
        return {}
    try:
        return evaluate_pairs(held, reward.score([c.prompt for c in held], [c.options for c in held])).to_json()
    except ValueError:
        run.note("No held-out pair has both scores: accuracy is not measured.")
        return {}


def _explained(reward: CompositionalReward, choices: Sequence[Choice]) -> dict[str, Any]:
    """Three rankings, the first of the data, with each score as the sum of its parts, for the report."""
    shown = list({c.prompt.id: c for c in choices}.values())[:EXPLAINED]
    parts = reward.explain([c.prompt for c in shown], [c.options for c in shown])
    return {"explained": [{"prompt": c.prompt.text, "answers": [{"text": text, "rank": rank, "parts": part}
                                                               for text, rank, part in zip(c.options, c.ranks, row)]}
                          for c, row in zip(shown, parts)]}


def _usable(config: Config, panel: Panel, quality: Sequence[Quality], run: Run) -> list[int]:
    """Columns to fit on; says which attributes are weak, and which answer otherwise when asked in other words."""
    names = [a.name for a in panel.attributes]
    if weak := [f"{n} ({q.weak})" for n, q in zip(names, quality) if q.weak]:
        if config.weak == "fail":
            raise UserError(f"Weak attributes: {', '.join(weak)}.", "Reword them, take another judge, or give --weak drop.")
        run.note(f"Weak attributes, {'left out' if config.weak == 'drop' else 'kept all the same'}: {', '.join(weak)}.")
    if fickle := [f"{n} ({q.retest:.2f})" for n, q in zip(names, quality) if q.retest is not None and q.retest < 0.5]:
        run.note(f"Asked in other words, the judge rates otherwise (test–retest correlation): {', '.join(fickle)}.")
    constant = [k for k, q in enumerate(quality) if q.entropy == 0.0]
    used = [k for k, q in enumerate(quality) if k not in constant and (not q.weak or config.weak == "keep")]
    if not used:
        raise UserError("No attribute is left: every one is weak.",
                        "Take another judge, reword the attributes, or use --judge rules.")
    return used


def _result(panel: Panel, quality: Sequence[Quality], combined: Combined) -> dict[str, Any]:
    """An attribute's `low` and `high` are the 95 % interval of the weight people give it; `weight`, in use, is shrunken."""
    low, high = intervals(combined.pairs.x, combined.pairs.y, combined.pairs.prompts, weights=combined.pairs.information)
    weights = {t.attribute.name: {"weight": t.weight, "low": float(low[i]), "high": float(high[i])}
               for i, t in enumerate(combined.terms)}
    return {"attributes": {a.name: asdict(q) | weights.get(a.name, {}) for a, q in zip(panel.attributes, quality)},
            "penalty": combined.chosen.penalty, "C": combined.chosen.C, "cross_validation": combined.chosen.table,
            "pairs": len(combined.pairs.y), "missing_pairs": combined.pairs.missing}
