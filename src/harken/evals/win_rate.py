"""Win rate: how often one model's answer is preferred to another's on the same prompts.

    harken eval win_rate --model runs/rloo --against runs/sft --prompts prompts.jsonl --judge runs/rm --out runs/eval
    harken eval win_rate --model runs/rloo --prompts prompts.jsonl --pairwise judge_model --out runs/pairs
    harken eval win_rate --model runs/rloo --prompts prompts.jsonl --studio feedback.db --out runs/people

Three kinds of judge: a reward that scores answers one by one, a model that is shown both answers in both orders, and people, in
the studio. Both models answer every prompt n times at the same settings. A reward compares all n × n pairs, a model and people
the n pairs of k-th answers; a tie is half. The interval is over prompts. Beside it stand null baselines: a constant answer, the
longer and the shorter of the model's own answers, judged the same way; the rate at equal lengths (AlpacaEval 2's regression), and
by use case, language and tag. With people beside a judge the judge's rate is corrected by their votes. Answers are kept in the
store that all evaluations share; a killed evaluation continues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harken.core.config import MAX_TOKENS, setting
from harken.core.errors import NotYet, UserError
from harken.core.files import file_hash
from harken.core.protocols import Estimate, EvalResult, Models, Reward
from harken.core.records import Prompt
from harken.core.run import Run
from harken.core.seeds import MOST_SEED
from harken.loops import pairwise
from harken.loops.groups import KINDS, grouped
from harken.loops.items import mean_of
from harken.stats.couples import both_orders
from harken.stats.intervals import mean_interval
from harken.stats.length_control import length_controlled
from harken.stats.winrate import win_rate
from harken.store.files import read_prompts

CONSTANT = "I'm happy to help with that."
ROWS = 96
"""Answers asked for at once: as many as our sampler says together, so that judging costs no more than sampling."""
Texts = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Config:
    model: str = setting("", names="model", required=True)
    """The model in question: a run directory, a folder, smollm2 or a hub id."""
    against: str = setting("smollm2", names="model")
    """The model it is compared with."""
    prompts: str = setting("", names="file", required=True)
    """JSON Lines file of prompts."""
    judge: str = setting("", names="reward")
    """Who scores answers one by one: a reward model's run directory, a scorer, or gold (the sandbox's known truth)."""
    pairwise: str = setting("", names="model")
    """A model that is shown both answers, in both orders, in the place of --judge."""
    people: str = ""
    """People's comparisons of these answers, in the place of a judge or beside it. Where the file is not there yet, what to ask
    them is written to ask.jsonl in the run; the same command, once it is there, goes on."""
    studio: str = ""
    """The studio's database (a file, or a postgresql:// address) in which people are asked: a project is made that does not say
    who wrote what, the command waits for their answers, and goes on with them."""
    overlap: int = setting(1, least=1)
    """Answers of people to each pair, of such a project."""
    wait: bool = True
    """Wait for people's answers; without, the command ends, and given again later reads what is there once all is answered."""
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


@dataclass(frozen=True)
class Judged:
    """What one kind of judge said. `shares` [P]: how much of the prompt's pairs the model won, None without a verdict."""

    value: Estimate
    shares: Sequence[float | None]
    missing: int
    worst: float
    best: float
    figures: Mapping[str, Any] = field(default_factory=dict)
    baselines: Mapping[str, Estimate] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    """[P] fields of the samples."""


def evaluate(config: Config, models: Models, run: Run) -> EvalResult:
    """Samples, judges and compares. Raises `UserError` without prompts, without a judge, and while people have not answered."""
    by_votes = bool(config.people or config.studio)
    if sum(map(bool, (config.judge, config.pairwise))) > 1 or not (config.judge or config.pairwise or by_votes):
        raise UserError("Name who judges: one of --judge, --pairwise, --people or --studio.",
                        "--judge REWARD scores answers one by one, --pairwise MODEL sees both, --people FILE are votes, and in "
                        "--studio DATABASE people are asked.")
    loaded = read_prompts(config.prompts, skip_bad=config.skip_bad)
    if note := loaded.describe():
        run.note(note)
    prompts = loaded.records
    for name in ("model", "against"):
        models.check_context(name, prompts, config.max_tokens)
    judge = models.reward("judge") if config.judge else None
    if not prompts:
        raise UserError("There is no prompt to evaluate on.", "Check --prompts.")
    found = {name: models.stored(name).answers(prompts, config.n, max_tokens=config.max_tokens, temperature=config.temperature,
                                               seed=config.seed, chunk=max(1, ROWS // config.n)) for name in ("model", "against")}
    texts_a, texts_b = ([list(a.texts) for a in found[name]] for name in ("model", "against"))
    run.rewrite("samples.jsonl", [{"step": i, "prompt_id": p.id, "model_texts": ta, "against_texts": tb}
                                  for i, (p, ta, tb) in enumerate(zip(prompts, texts_a, texts_b))])
    votes = _people(config, run, prompts, texts_a, texts_b) if by_votes else None
    if judge is not None:
        result = by_reward(judge, prompts, texts_a, texts_b, config)
    elif config.pairwise:
        result = by_model(models.stored("pairwise"), prompts, texts_a, texts_b)
    else:
        result = by_people(votes or [], texts_a, texts_b, config)
    if result.missing:
        run.note(f"{result.missing} answers have no score and are left out; if all of them lost or won, the rate would be "
                 f"{result.worst:.3f} or {result.best:.3f}.")
    samples = [{**p.to_json(), "model_text": ta[0] if ta else None, "against_text": tb[0] if tb else None, **row,
                **({"people": _mean_of_votes(v)} if (v := (votes or [[]] * len(prompts))[i]) else {}),
                **({"why": x.why or y.why} if x.why or y.why else {})}
               for i, (p, ta, tb, row, x, y) in enumerate(zip(prompts, texts_a, texts_b, result.rows, found["model"],
                                                              found["against"]))]
    figures = {**result.figures, **_at_equal_lengths(result.shares, texts_a, texts_b), **_by_group(prompts, result.shares)}
    if votes is not None:
        figures["people_sha256"] = file_hash(votes_file(config))
        if judge is not None or config.pairwise:
            figures |= pairwise.beside_people(result.shares, votes, run)
    return EvalResult(result.value, figures, result.baselines, samples, result.missing)


# --- three kinds of judge ----------------------------------------------------------------------------


def by_reward(judge: Reward, prompts: Sequence[Prompt], texts_a: Texts, texts_b: Texts, config: Config) -> Judged:
    """Scores of single answers: all pairs of a prompt."""
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
    rows = [{"model_score": sa[0], "against_score": sb[0]} for sa, sb in zip(a, b)]
    figures = {"tie_rate": result.tie_rate, "mean_score": {"model": _mean(a), "against": _mean(b)}}
    return Judged(result.value, [_share(x, y) for x, y in zip(a, b)], result.missing, result.worst, result.best, figures, null,
                  rows)


def by_model(judge: Any, prompts: Sequence[Prompt], texts_a: Texts, texts_b: Texts) -> Judged:
    """A model's verdicts on the pairs of k-th answers, in both orders."""
    places = [(i, k) for i, (ta, tb) in enumerate(zip(texts_a, texts_b)) for k in range(max(1, min(len(ta), len(tb))))]
    pairs = [(_at(texts_a[i], k), _at(texts_b[i], k)) for i, k in places]
    verdicts = pairwise.judged(judge, [prompts[i] for i, _ in places], pairs)
    by_prompt: list[list[pairwise.Verdict]] = [[] for _ in prompts]
    for (i, _), one in zip(places, verdicts):
        by_prompt[i].append(one)
    shares = [_known_mean([v.score for v in row]) for row in by_prompt]
    if verdicts and all(s is None for s in shares):
        said = next((w for v in verdicts for w in v.words if w), "")
        raise UserError(f"No item has a score: the judge gave no verdict on any of {len(verdicts)} pairs"
                        + (f"; it first said {said[:60]!r}." if said else f" ({verdicts[0].why})."),
                        "It is to answer with A, B or C (a tie): use a judge that does.")
    value = mean_of(shares, "the verdicts")
    orders = both_orders([v.first for v in verdicts], [v.second for v in verdicts])
    same = [v.first for v in pairwise.judged(judge, prompts, [(_at(t, 0), _at(t, 0)) for t in texts_b])]
    figures = {"tie_rate": orders.tied, "position_consistency": orders.consistent, "first_position_rate": orders.first,
               "same_answer_called_equal": mean_of([None if s is None else float(s == 0) for s in same], "one answer twice"),
               "verdicts": {"judged": len(verdicts) - orders.missing, "turned_with_the_order": sum(v.turned for v in verdicts)},
               "question_sha256": pairwise.TEMPLATE}
    rows = [{"model_score": v.score, "against_score": None if v.score is None else 1 - v.score, **_said(v)}
            for v in (row[0] for row in by_prompt)]
    lost = sum(v.joined is None for v in verdicts)
    sums = [[v.score for v in row] for row in by_prompt]
    worst, best = (_mean_filled(sums, x) for x in (0.0, 1.0))
    return Judged(value, shares, lost, worst, best, figures, _nulls(judge, prompts, texts_a, texts_b), rows)


def _said(v: pairwise.Verdict) -> dict[str, Any]:
    """The record of a verdict: what was said in each order, and whether it turned with the order."""
    word = {1: "model", 0: "tie", -1: "against", None: None}
    return {"shown_first": word[v.first], "shown_second": word[v.second], "turned": v.turned,
            **{f"judge_{k}": w for k, w in zip(("first", "second"), v.words) if w}, **({"why": v.why} if v.why else {})}


def _nulls(judge: Any, prompts: Sequence[Prompt], texts_a: Texts, texts_b: Texts) -> dict[str, Estimate]:
    """Answers that know nothing, against the other model's first answers (E15)."""
    answers: dict[str, list[str | None]] = {"constant answer": [CONSTANT] * len(prompts)}
    if any(len(t) > 1 for t in texts_a):
        answers["longest of the model's"] = [max(t, key=len) if t else None for t in texts_a]
        answers["shortest of the model's"] = [min(t, key=len) if t else None for t in texts_a]
    verdicts = {name: pairwise.judged(judge, prompts, [(x, _at(t, 0)) for x, t in zip(own, texts_b)])
                for name, own in answers.items()}
    return {name: mean_of([v.score for v in found], name) for name, found in verdicts.items()}


def by_people(votes: Sequence[Sequence[float]], texts_a: Texts, texts_b: Texts, config: Config) -> Judged:
    """People's votes on the first answers: a prompt's mean; equal answers, which nobody is asked about, tie."""
    shares = [0.5 if pairwise.same(_at(ta, 0), _at(tb, 0)) else _mean_of_votes(v) for v, ta, tb in zip(votes, texts_a, texts_b)]
    value = mean_of(shares, f"the votes of {votes_file(config)}")
    tied = [float(x == 0.5) for row in votes for x in row]
    where = [i for i, row in enumerate(votes) for _ in row]
    figures = {"tie_rate": mean_interval(tied, where, bounds=(0.0, 1.0)), "votes": len(tied)}
    rows = [{"model_score": s, "against_score": None if s is None else 1 - s} for s in shares]
    unasked = [[s] for s in shares]
    return Judged(value, shares, sum(s is None for s in shares), _mean_filled(unasked, 0.0), _mean_filled(unasked, 1.0), figures,
                  {}, rows)


def _people(config: Config, run: Run, prompts: Sequence[Prompt], texts_a: Texts, texts_b: Texts) -> list[list[float]]:
    """Votes on the pairs of first answers. Raises `UserError`, with what to ask written, while there are none."""
    pairs = [(_at(ta, 0), _at(tb, 0)) for ta, tb in zip(texts_a, texts_b)]
    asked = pairwise.to_ask(prompts, pairs, config.seed)
    run.rewrite("ask.jsonl", asked)
    if not (votes := votes_file(config)).is_file():
        ask = run.path / "ask.jsonl"
        raise NotYet(f"There are no votes yet: {ask} holds {len(asked)} pairs of answers for people, who are not told which "
                     "model wrote which.",
                     f"harken ask {ask} --project NAME --kind compare; when they have answered, harken export them to "
                     f"{votes} and give the same command. Or name the studio's database with --studio: then it waits.", str(ask))
    return pairwise.people(str(votes), prompts, pairs)


def votes_file(config: Config) -> Path:
    """Where people's votes are, or will be."""
    return Path(config.people or Path(config.out) / "votes.jsonl")


# --- small parts -------------------------------------------------------------------------------------


def _at(texts: Sequence[str], k: int) -> str | None:
    return texts[k] if k < len(texts) else None


def _known_mean(scores: Sequence[float | None]) -> float | None:
    known = [s for s in scores if s is not None]
    return sum(known) / len(known) if known else None


def _mean_of_votes(votes: Sequence[float]) -> float | None:
    return sum(votes) / len(votes) if votes else None


def _mean_filled(scores: Sequence[Sequence[float | None]], missing: float) -> float:
    """The rate if every missing verdict were `missing`."""
    rows = [sum(missing if s is None else s for s in row) / len(row) for row in scores if row]
    return sum(rows) / len(rows)


def _share(a: Sequence[float | None], b: Sequence[float | None]) -> float | None:
    """Of the prompt's pairs with both scores, how many the first won, ties half."""
    x, y = ([s for s in side if s is not None] for side in (a, b))
    return sum((p > q) + (p == q) / 2 for p in x for q in y) / (len(x) * len(y)) if x and y else None


def _scores(judge: Reward, prompts: Sequence[Prompt], texts: Texts, n: int) -> list[list[float | None]]:
    """[P][n]; an answer that is missing has no score."""
    there = [i for i, t in enumerate(texts) if t]
    given = iter(judge.score([prompts[i] for i in there], [texts[i] for i in there]) if there else [])
    return [list(next(given)) if t else [None] * n for t in texts]


def _at_equal_lengths(shares: Sequence[float | None], texts_a: Texts, texts_b: Texts) -> dict[str, Any]:
    """AlpacaEval 2's length-controlled rate beside the raw one, in characters; of several answers a prompt their mean length and
    share of pairs won. Left out for fewer than 10 prompts, and where all lengths differ alike."""
    rows = [(won, *(sum(map(len, t)) / len(t) for t in (ta, tb))) for won, ta, tb in zip(shares, texts_a, texts_b)
            if won is not None]
    try:
        found = length_controlled(*zip(*rows))
    except (ValueError, TypeError):
        return {}
    return {"length_controlled": found.controlled, "log_odds_of_a_longer_answer": found.length}


def _by_group(prompts: Sequence[Prompt], shares: Sequence[float | None]) -> dict[str, Any]:
    """The win rate by use case, language and tag, of groups with a verdict; nothing where there is one group alone."""
    found: dict[str, Any] = {}
    for by in KINDS:
        rates = {name: mean_interval(known, bounds=(0.0, 1.0)) for name, places in grouped(prompts, by).items()
                 if (known := [s for i in places if (s := shares[i]) is not None])}
        if len(rates) > 1:
            found[f"by_{by}"] = rates
    return found


def _mean(scores: Sequence[Sequence[float | None]]) -> Estimate:
    means = [sum(x for x in row if x is not None) / max(1, sum(x is not None for x in row))
             for row in scores if any(x is not None for x in row)]
    return mean_interval(means)
