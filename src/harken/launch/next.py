"""What `harken next` does: gathers feedback and candidates, fits what is known, chooses, and writes the queue."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harken.core.errors import UserError
from harken.core.progress import waiting
from harken.core.records import Choice, Judgment, Prompt
from harken.labelers.active import Questions, next_items, pairs_to_ask
from harken.labelers.active_sets import measure, next_sets
from harken.labelers.belief import Belief, belief_of_features
from harken.labelers.features import TextFeatures
from harken.labelers.overlap import settled, trust
from harken.labelers.pace import Pace, fit_pace
from harken.labelers.reliability import Reliability, fit_features
from harken.labelers.votes import UNNAMED, Votes, votes_of

RANDOM_DRAWS = 5
LARGEST = 60_000
"""Questions (pairs times labelers) weighed at most; of more, a random part is."""


@dataclass
class Pool:
    """Prompts, all answers known to each (judged or not), and the feedback. Items are numbered prompt by prompt."""

    prompts: list[Prompt]
    texts: list[list[str]]
    votes: Votes | None
    pace: Pace
    item: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for p, some in zip(self.prompts, self.texts):
            for t in some:
                self.item[p.id, t] = len(self.item)
        self.prompt = np.repeat(np.arange(len(self.texts)), [len(t) for t in self.texts])
        self.flat = [t for some in self.texts for t in some]

    def aligned(self) -> Votes | None:
        """The votes with items numbered as the pool's."""
        if self.votes is None:
            return None
        v = self.votes
        new = np.array([self.item[key] for key in v.items], dtype=np.int64)
        return dataclasses.replace(v, a=new[v.a], b=new[v.b], items=tuple(self.item), prompt=self.prompt)


def choose(args: argparse.Namespace) -> int:
    """Writes the queue and prints what it is worth."""
    with waiting("reading", 1):
        pool, candidate = gather(args)
    with waiting("measuring the answers", 1):
        phi = features(pool, args)
    votes = pool.aligned()
    with waiting("fitting", 1):
        found = fit_features(votes, phi, draws=0) if votes is not None else None
    belief = belief_of_features(found, phi) if found else Belief(np.zeros(len(phi)), phi / np.sqrt(phi.shape[1]))
    with waiting("choosing", 1):
        if args.most > 2:
            rows, random = _sets(pool, candidate, belief, args)
        else:
            rows, random = _pairs(pool, candidate, belief, found, votes, args)
    from harken.store.files import write_jsonl
    write_jsonl(args.out, rows)
    said = f"{len(votes):,} votes of {len(votes.labelers)} labelers" if votes is not None else "no feedback yet"
    print(f"{args.out}: {len(rows)} questions from {int(candidate.sum()):,} answers to {len(pool.prompts):,} prompts; {said}")
    chosen = (sum(r["information"] for r in rows), sum(r["seconds"] for r in rows))
    for name, (nats, seconds) in (("chosen", chosen), ("random", random)):
        rate = 60 * nats / max(seconds, 1e-9)
        print(f"  {name}: {nats:.2f} nats expected in {seconds / 60:.1f} minutes of reading ({rate:.2f} a minute)")
    return 0


def gather(args: argparse.Namespace) -> tuple[Pool, np.ndarray]:
    """The pool, and [I] which answers may be asked about (those that only feedback knows may not)."""
    said: list[Choice] | list[Judgment] = []
    offered: list[tuple[Prompt, list[str]]] = []
    if args.db:
        from harken.store.database import open_database
        with open_database(args.db, create=False) as db:
            said = list(db.judgments())
            if not args.candidates:
                offered = [(p, [c.text for c in db.completions(p.id)]) for p in db.prompts()]
                # A database filled by harken import holds what was compared inside its judgments only.
                offered += [(c.prompt, list(c.options)) for j in said if (c := j.choice()) is not None]
    elif args.file:
        from harken.store.files import read_comparisons
        said = read_comparisons(args.file).records
    if args.candidates:
        offered = list(read_samples(Path(args.candidates)))
    prompts: dict[str, Prompt] = {}
    texts: dict[str, dict[str, bool]] = {}
    for p, some in offered:
        prompts.setdefault(p.id, p)
        texts.setdefault(p.id, {}).update(dict.fromkeys((t for t in some if t.strip()), True))
    if not any(len(t) > 1 for t in texts.values()):
        raise UserError("No prompt has two different completions to compare.", "Sample more: harken sample --n 4 …")
    votes = votes_of(said)
    for key, text in votes.items:
        texts.setdefault(key, {}).setdefault(text, False)
    for one in said:
        prompts.setdefault(one.prompt.id, one.prompt)
    known = [k for k in prompts if k in texts]
    pace = fit_pace(j for j in said if isinstance(j, Judgment))
    pool = Pool([prompts[k] for k in known], [list(texts[k]) for k in known], votes if len(votes) else None, pace)
    return pool, np.array([texts[k][t] for k in known for t in texts[k]], dtype=bool)


def read_samples(path: Path) -> Iterator[tuple[Prompt, list[str]]]:
    """Rows of {"prompt": …, "completions": [str, …]}; other fields are left alone."""
    if not path.is_file():
        raise UserError(f"There is no file {path}.", "harken sample writes one.")
    from harken.store.files import read_rows
    for number, row in read_rows(path):
        try:
            some = row.get("completions")
            if not isinstance(some, list) or not all(isinstance(t, str) for t in some):
                raise ValueError('"completions" must be a list of strings')
            yield Prompt.from_json(row), some
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}.",
                            'A row is {"prompt": "…", "completions": ["…", "…"]}, as harken sample writes.') from None


def features(pool: Pool, args: argparse.Namespace) -> np.ndarray:
    """[I, D] of every answer of the pool."""
    asked = [_shown(pool.prompts[p]) for p in pool.prompt]
    phi = TextFeatures.fit(asked, pool.flat, args.dimensions).of(asked, pool.flat)
    if not args.reward:
        return phi
    from harken.launch.rewards import open_reward
    scores = open_reward(args.reward).score(pool.prompts, pool.texts)
    flat = np.array([np.nan if s is None else s for row in scores for s in row], dtype=np.float64)
    counted = np.maximum(np.bincount(pool.prompt[~np.isnan(flat)], minlength=len(pool.prompts)), 1)
    mean = np.bincount(pool.prompt, np.nan_to_num(flat), minlength=len(pool.prompts)) / counted
    gap = np.nan_to_num(flat - mean[pool.prompt])  # too long to be scored: as good as its prompt's others
    spread = float(gap.std()) or 1.0
    return np.hstack([phi, (gap / spread * np.sqrt(args.dimensions))[:, None]])


def _shown(prompt: Prompt) -> str:
    return "\n".join(m.content for m in prompt.messages)


def _pairs(pool: Pool, candidate: np.ndarray, belief: Belief, found: Reliability | None, votes: Votes | None,
           args: argparse.Namespace) -> tuple[list[dict[str, Any]], tuple[float, float]]:
    """Rows of the queue, and what as many random pairs would bring (nats, seconds)."""
    every = pairs_to_ask(pool.prompt)
    lengths = np.array([len(t) for t in pool.flat])
    asked = np.array([len(_shown(p)) for p in pool.prompts])
    seconds = pool.pace.seconds(lengths[every.a] + lengths[every.b] + asked[pool.prompt[every.a]])
    keep = candidate[every.a] & candidate[every.b]
    if votes is not None and found is not None:
        keep &= ~_decided(votes, found, every, args.threshold)
    rng = np.random.default_rng(args.seed)
    rows = np.flatnonzero(keep)
    if len(rows) == 0:
        raise UserError("Every pair is decided already.", "Sample new completions, or raise --threshold.")
    people = [k for k, name in enumerate(votes.labelers) if name != UNNAMED] if votes is not None and args.assign else []
    if args.assign and not people:
        raise UserError("--assign needs feedback with labelers' names.", "Leave it out.")
    if len(rows) * max(1, len(people)) > LARGEST:
        rows = np.sort(rng.choice(rows, size=LARGEST // max(1, len(people)), replace=False))
    questions = Questions(every.a[rows], every.b[rows], seconds[rows], every.beta[rows], every.labeler[rows])
    quota = None
    if people and found is not None and votes is not None:
        paces = np.array([pool.pace.of(votes.labelers[k]) for k in people])
        questions = questions.for_labelers(found.beta[people], paces)
        quota = dict.fromkeys(range(len(people)), max(1, -(-2 * args.n // len(people))))
    got = next_items(belief, questions, args.n, strategy=args.strategy, quota=quota, explore=args.explore, seed=args.seed)
    out = []
    for row, nats, took in zip(got.which, got.information, got.seconds):
        two = [int(questions.a[row]), int(questions.b[row])]
        who = {"labeler": votes.labelers[people[int(questions.labeler[row])]]} if people and votes is not None else {}
        out.append(_row(pool, two, nats, took) | who)
    draws = [next_items(belief, questions, args.n, strategy="random", quota=quota, seed=args.seed + 1 + k)
             for k in range(RANDOM_DRAWS)]
    return out, _mean([(float(d.information.sum()), float(d.seconds.sum())) for d in draws])


def _decided(votes: Votes, found: Reliability, every: Questions, threshold: float) -> np.ndarray:
    """[N] pairs whose votes so far leave nothing to ask."""
    trusted, size = trust(found, votes), len(votes.items)
    keys = np.minimum(votes.a, votes.b) * size + np.maximum(votes.a, votes.b)
    order = np.argsort(keys, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)
    done = [int(keys[r[0]]) for r in runs if settled(votes.take(r), trusted, threshold, tie=found.tie)]
    return np.isin(every.a * size + every.b, done)


def _sets(pool: Pool, candidate: np.ndarray, belief: Belief,
          args: argparse.Namespace) -> tuple[list[dict[str, Any]], tuple[float, float]]:
    """The same with sets of 2 to `--most`; random are sets of random sizes."""
    groups = [np.flatnonzero((pool.prompt == p) & candidate) for p in range(len(pool.prompts))]
    lengths = np.array([len(t) for t in pool.flat])
    asked = np.array([len(_shown(p)) for p in pool.prompts])

    def seconds(items: np.ndarray) -> float:
        """Each option is read once; deciding takes as long as a question's fixed part for each option beyond the first."""
        return float(pool.pace.seconds(lengths[items].sum() + asked[pool.prompt[items[0]]])) + pool.pace.fixed * (len(items) - 2)

    got = next_sets(belief, groups, seconds, args.n, most=args.most, seed=args.seed)
    draws = []
    for k in range(RANDOM_DRAWS):
        rng = np.random.default_rng([args.seed, k])
        some = [rng.permutation(g)[:int(rng.integers(2, min(args.most, len(g)) + 1))] for g in groups if len(g) > 1]
        one = measure(belief, [some[i] for i in rng.permutation(len(some))[:args.n]], seconds, seed=args.seed)
        draws.append((float(one.information.sum()), float(one.seconds.sum())))
    return [_row(pool, s.tolist(), i, t) for s, i, t in zip(got.items, got.information, got.seconds)], _mean(draws)


def _row(pool: Pool, items: Sequence[int], nats: float, seconds: float) -> dict[str, Any]:
    prompt = pool.prompts[int(pool.prompt[items[0]])]
    return prompt.to_json() | {"completions": [pool.flat[i] for i in items], "information": round(float(nats), 4),
                               "seconds": round(float(seconds), 1)}


def _mean(rows: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(r[0] for r in rows) / len(rows), sum(r[1] for r in rows) / len(rows)
