"""Which questions to ask next: gathers feedback and candidates, fits what is known, and chooses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harken.core.config import setting
from harken.core.errors import UserError
from harken.core.progress import waiting
from harken.core.records import Choice, Judgment, Prompt
from harken.core.seeds import MOST_SEED
from harken.labelers.asking import choose as choosing
from harken.labelers.asking.belief import Belief
from harken.labelers.asking.choose import belief_of, words
from harken.labelers.asking.overlap import settled, trust
from harken.labelers.asking.pace import Pace, fit_pace
from harken.labelers.asking.pairs import Questions, next_items, pairs_to_ask
from harken.labelers.asking.sets import measure, next_sets
from harken.labelers.models.reliability import Reliability, fit_reliability
from harken.labelers.votes import UNNAMED, Votes, votes_of

RANDOM_DRAWS = 5
LARGEST = 60_000
"""Questions (pairs times labelers) weighed at most; of more, a random part is."""


class Pool(choosing.Pool):
    """Prompts, all answers known to each (judged or not), and the feedback. Answers are numbered prompt by prompt."""

    def __init__(self, prompts: list[Prompt], answers: list[list[str]], votes: Votes | None, pace: Pace) -> None:
        super().__init__(((p.id, text) for p, some in zip(prompts, answers) for text in some),
                         {p.id: words(p) for p in prompts}, pace)
        self.prompts, self.answers = prompts, answers
        self.votes = None if votes is None else self.aligned(votes)


@dataclass(frozen=True)
class NextSettings:
    n: int = setting(20, least=1, most=10**6)
    """Questions."""
    most: int = setting(2, least=2, most=9)
    """Options of a question at most: 2 asks pairs."""
    assign: bool = False
    """Choose for whom, too: at most twice an equal share each (pairs only)."""
    strategy: str = setting("bald", one_of=("bald", "d_optimal", "random", "margin", "diversity", "thompson"))
    """How pairs are chosen."""
    explore: float = setting(0.25, least=0, most=1)
    """Share of pairs picked at random, as a check."""
    threshold: float = setting(0.9, least=0.5, below=1)
    """A pair this surely decided is not asked again."""
    reward: str = ""
    """A reward whose scores become a feature."""
    dimensions: int = setting(32, least=11, most=512)
    """Features of the texts."""
    seed: int = setting(0, least=0, most=MOST_SEED)
    """Seed of random choices."""


Gain = tuple[float, float]
"""(nats expected, seconds of reading)."""


def questions(pool: Pool, candidate: np.ndarray, settings: Any) -> tuple[list[dict[str, Any]], Gain]:
    """The queue, the best first, and what as many random questions would bring. `candidate` [I]: which answers may be asked
    about; `settings` as `NextSettings`."""
    with waiting("measuring the answers", 1):
        phi = features(pool, settings)
    with waiting("fitting", 1):
        fitted = fit_reliability(pool.votes, phi=phi, draws=0) if pool.votes is not None else None
    belief = belief_of(fitted, phi)
    with waiting("choosing", 1):
        if settings.most > 2:
            return _sets(pool, candidate, belief, settings)
        return _pairs(pool, candidate, belief, fitted, pool.votes, settings)


def gather(feedback: Sequence[Choice] | Sequence[Judgment], offered: Iterable[tuple[Prompt, Sequence[str]]]
           ) -> tuple[Pool, np.ndarray]:
    """The pool, and [I] which answers may be asked about (those that only feedback knows may not).

    Raises `UserError` where nothing could be compared.
    """
    prompts: dict[str, Prompt] = {}
    texts: dict[str, dict[str, bool]] = {}
    for prompt, answers in offered:
        prompts.setdefault(prompt.id, prompt)
        texts.setdefault(prompt.id, {}).update(dict.fromkeys((text for text in answers if text.strip()), True))
    if not any(len(answers) > 1 for answers in texts.values()):
        raise UserError("No prompt has two different completions to compare.", "Sample more: harken sample --n 4 …")
    votes = votes_of(feedback)
    for key, text in votes.items:
        texts.setdefault(key, {}).setdefault(text, False)
    for one in feedback:
        prompts.setdefault(one.prompt.id, one.prompt)
    keys = [key for key in prompts if key in texts]
    pace = fit_pace(j for j in feedback if isinstance(j, Judgment))
    pool = Pool([prompts[key] for key in keys], [list(texts[key]) for key in keys], votes if len(votes) else None, pace)
    return pool, np.array([texts[key][text] for key in keys for text in texts[key]], dtype=bool)


def features(pool: Pool, settings: Any) -> np.ndarray:
    """[I, D] of every answer of the pool."""
    phi = pool.features(settings.dimensions)
    if not settings.reward:
        return phi
    from harken.launch.rewards import open_reward
    scores = open_reward(settings.reward).score(pool.prompts, pool.answers)
    flat = np.array([np.nan if s is None else s for row in scores for s in row], dtype=np.float64)
    counted = np.maximum(np.bincount(pool.prompt[~np.isnan(flat)], minlength=len(pool.prompts)), 1)
    mean = np.bincount(pool.prompt, np.nan_to_num(flat), minlength=len(pool.prompts)) / counted
    gap = np.nan_to_num(flat - mean[pool.prompt])  # too long to be scored: as good as its prompt's others
    spread = float(gap.std()) or 1.0
    return np.hstack([phi, (gap / spread * np.sqrt(settings.dimensions))[:, None]])


def _pairs(pool: Pool, candidate: np.ndarray, belief: Belief, fitted: Reliability | None, votes: Votes | None,
           settings: Any) -> tuple[list[dict[str, Any]], tuple[float, float]]:
    """Rows of the queue, and what as many random pairs would bring (nats, seconds)."""
    every = pairs_to_ask(pool.prompt)
    seconds = pool.pair_seconds(every.a, every.b)
    keep = candidate[every.a] & candidate[every.b]
    if votes is not None and fitted is not None:
        keep &= ~_decided(votes, fitted, every, settings.threshold)
    rng = np.random.default_rng(settings.seed)
    rows = np.flatnonzero(keep)
    if len(rows) == 0:
        raise UserError("Every pair is decided already.", "Sample new completions, or raise --threshold.")
    people = [k for k, name in enumerate(votes.labelers) if name != UNNAMED] if votes is not None and settings.assign else []
    if settings.assign and not people:
        raise UserError("--assign needs feedback with labelers' names.", "Leave it out.")
    if len(rows) * max(1, len(people)) > LARGEST:
        rows = np.sort(rng.choice(rows, size=LARGEST // max(1, len(people)), replace=False))
    questions = Questions(every.a[rows], every.b[rows], seconds[rows], every.beta[rows], every.labeler[rows])
    quota = None
    if people and fitted is not None and votes is not None:
        paces = np.array([pool.pace.of(votes.labelers[k]) for k in people])
        questions = questions.for_labelers(fitted.beta[people], paces)
        quota = dict.fromkeys(range(len(people)), max(1, -(-2 * settings.n // len(people))))
    got = next_items(belief, questions, settings.n, strategy=settings.strategy, quota=quota, explore=settings.explore,
                     seed=settings.seed)
    out = []
    for row, nats, took in zip(got.which, got.information, got.seconds):
        two = [int(questions.a[row]), int(questions.b[row])]
        who = {"labeler": votes.labelers[people[int(questions.labeler[row])]]} if people and votes is not None else {}
        out.append(_row(pool, two, nats, took) | who)
    draws = [next_items(belief, questions, settings.n, strategy="random", quota=quota, seed=settings.seed + 1 + k)
             for k in range(RANDOM_DRAWS)]
    return out, _mean([(float(d.information.sum()), float(d.seconds.sum())) for d in draws])


def _decided(votes: Votes, fitted: Reliability, every: Questions, threshold: float) -> np.ndarray:
    """[N] pairs whose votes so far leave nothing to ask."""
    trusted, size = trust(fitted, votes), len(votes.items)
    keys = np.minimum(votes.a, votes.b) * size + np.maximum(votes.a, votes.b)
    order = np.argsort(keys, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)
    done = [int(keys[r[0]]) for r in runs if settled(votes.take(r), trusted, threshold, tie=fitted.tie)]
    return np.isin(every.a * size + every.b, done)


def _sets(pool: Pool, candidate: np.ndarray, belief: Belief,
          settings: Any) -> tuple[list[dict[str, Any]], tuple[float, float]]:
    """The same with sets of 2 to `--most`; random are sets of random sizes."""
    groups = [np.flatnonzero((pool.prompt == p) & candidate) for p in range(len(pool.prompts))]
    got = next_sets(belief, groups, pool.seconds, settings.n, most=settings.most, seed=settings.seed)
    draws = []
    for k in range(RANDOM_DRAWS):
        rng = np.random.default_rng([settings.seed, k])
        subsets = [rng.permutation(g)[:int(rng.integers(2, min(settings.most, len(g)) + 1))] for g in groups if len(g) > 1]
        one = measure(belief, [subsets[i] for i in rng.permutation(len(subsets))[:settings.n]], pool.seconds, seed=settings.seed)
        draws.append((float(one.information.sum()), float(one.seconds.sum())))
    return [_row(pool, s.tolist(), i, t) for s, i, t in zip(got.items, got.information, got.seconds)], _mean(draws)


def _row(pool: Pool, items: Sequence[int], nats: float, seconds: float) -> dict[str, Any]:
    prompt = pool.prompts[int(pool.prompt[items[0]])]
    return prompt.to_json() | {"completions": [pool.texts[i] for i in items], "information": round(float(nats), 4),
                               "seconds": round(float(seconds), 1)}


def _mean(rows: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(r[0] for r in rows) / len(rows), sum(r[1] for r in rows) / len(rows)
