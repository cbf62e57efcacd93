"""What a project's answers say about the answers: agreement, labelers, biases, and where people differ.

    figures = insight(load(tx, project), form)
    figures.agreement      # [Row("Krippendorff's alpha", …)], each with its interval and the chance level (E19)
    figures.queue          # items by what one more answer would teach, in bits

Everything is computed from what counts (undone and withdrawn answers are gone); answers to repeats only measure
consistency, answers to gold questions only gold. Nothing here averages disagreement away: it is shown (F16).
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harken.core.errors import UserError
from harken.core.protocols import Estimate
from harken.labelers.agreement.coefficients import Agreement, Measure, agreement
from harken.labelers.agreement.kendall import kendall_tau, kendall_w
from harken.labelers.agreement.pairwise import Matrix, by_rater, matrix, self_consistency
from harken.labelers.models.reliability import Reliability, fit_reliability
from harken.labelers.rankings import rankings_of
from harken.labelers.ratings import ratings_of, ratings_of_votes
from harken.labelers.votes import Votes, votes_of
from harken.stats.intervals import mean_interval
from harken.studio.lead import questions
from harken.studio.lead.measures import Row
from harken.studio.work.stored import MOST, StoredAnswer

SURELY, MANY = 0.95, 30  # warn of so sure a guesser, from so many answers on (F18)
FEW_LABELERS, MUCH = 0.2, 0.6  # warn when a fifth of the labelers gives more than this share (F17)
MEASURES = {"percent": "Percent agreement", "cohen": "Cohen's kappa", "fleiss": "Fleiss' kappa",
            "alpha": "Krippendorff's alpha", "gwet": "Gwet's AC1", "tau": "Kendall's tau", "w": "Kendall's W"}


@dataclass(frozen=True)
class Fitted:
    """What the joint fit of scores and labelers says of one of them."""

    reliability: Estimate
    """1: like the average labeler; 0: a coin; below 0: upside down. The interval has 90 %."""
    careless: float
    """Probability that the reliability is below 0.1."""
    position: float
    """Log-odds that the answer shown first gains."""
    length: float
    """Log-odds per doubling of length, beyond the crowd's."""


@dataclass(frozen=True)
class Person:
    """One labeler; None where nothing was measured."""

    name: str
    done: int
    share: float
    seconds: float | None
    """Median seconds on an item, without idle time."""
    agrees: Estimate | None
    fitted: Fitted | None
    ties: float | None
    """Share of pairs tied."""


@dataclass(frozen=True)
class Open:
    """An item that people see differently, or that was hardly seen."""

    item: int
    bits: float
    answers: int
    split: float
    """Share of the item's pairs of answers on which two people gave opposite verdicts."""


@dataclass(frozen=True)
class Insight:
    """All figures of one project. `cut` says that older answers were left out."""

    answers: int
    cut: bool
    agreement: Sequence[Row] = ()
    flags: Sequence[Row] = ()
    matrix: Matrix | None = None
    people: Sequence[Person] = ()
    biases: Sequence[Row] = ()
    consistency: Sequence[Row] = ()
    queue: Sequence[Open] = ()
    warnings: Sequence[str] = ()
    split: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Name of a list → items: "disagree", "contradict", "flag:NAME"."""


def insight(answers: Sequence[StoredAnswer], form: Mapping[str, Any]) -> Insight:
    """Every figure that these answers allow; what they do not allow is left out, not guessed."""
    counted = [s for s in answers if s.role in (None, "surplus")]
    votes = votes_of(s.judgment for s in counted)
    fitted = _fit(votes)
    lists = _lists(counted)
    ranked = ratings_of_votes(votes) if len(votes) else None
    people = _people(counted, votes, fitted)
    table = matrix(ranked) if ranked is not None and len(ranked) else None
    return Insight(
        len(counted), len(answers) >= MOST, [*_of_votes(ranked), *_of_rankings(counted), *_of_ratings(counted),
                                                             *questions.agreement_rows(counted)],
        _of_flags(counted, form), table if table is not None and (table.shared > 0).sum() > len(table.raters) else None,
        people, _biases(counted, votes), _consistency(answers), _queue(counted, votes, fitted),
        [*_warnings(counted), *_outliers(people)], lists)


def _row(name: str, result: Agreement | None, listed: str = "disagree", note: str = "") -> Row | None:
    return None if result is None else Row(name, result.value, result.chance, result.units, listed, note)


def _of_votes(ranked: Any) -> list[Row]:
    if ranked is None or not len(ranked) or not (ranked.latest().counts().sum(1) >= 2).any():
        return []
    measures: list[Measure] = ["percent", "fleiss", "alpha", "gwet"]
    if len(np.unique(ranked.rater)) == 2:
        measures.insert(1, "cohen")
    measured = agreement(ranked, measures)
    rows = [_row(MEASURES[name], value, note="of pairs of answers") for name, value in measured.items()]
    return [r for r in rows if r is not None]


def _of_rankings(counted: Sequence[StoredAnswer]) -> list[Row]:
    rankings = rankings_of(s.judgment for s in counted)
    if not rankings.ranks:
        return []
    rows = (_row(MEASURES["tau"], kendall_tau(rankings), note="of whole rankings"),
            _row(MEASURES["w"], kendall_w(rankings), note="of whole rankings"))
    return [r for r in rows if r is not None]


def _rated(counted: Sequence[StoredAnswer]) -> list[tuple[tuple[int, int], str, StoredAnswer, Mapping[str, Any]]]:
    return [((s.item, i), s.labeler, s, r) for s in counted for i, r in enumerate(s.payload.get("ratings") or ())]


def _of_ratings(counted: Sequence[StoredAnswer]) -> list[Row]:
    rated = _rated(counted)
    if not _shared(rated):
        return []
    ratings = ratings_of([(unit, who, float(r["overall"])) for unit, who, _, r in rated],
                         clusters=[s.item for _, _, s, _ in rated])
    alpha = agreement(ratings, ("alpha",), "ordinal")["alpha"]
    row = _row("Krippendorff's alpha, overall rating", alpha, note="ordinal")
    return [row] if row else []


def _shared(rated: Sequence[tuple[Any, str, Any, Any]]) -> bool:
    people = defaultdict(set)
    for unit, who, _, _ in rated:
        people[unit].add(who)
    return any(len(p) > 1 for p in people.values())


def _of_flags(counted: Sequence[StoredAnswer], form: Mapping[str, Any]) -> list[Row]:
    """Alpha of each flag, and how often it is set: agreement on a rare flag says little."""
    rows = []
    for flag in (form.get("rating") or {}).get("flags", ()):
        name = flag["name"]
        rated = [(u, w, s, r) for u, w, s, r in _rated(counted) if r["flags"].get(name) is not None]
        yes = sum(r["flags"][name] for *_, r in rated)
        value = None
        if _shared(rated):
            ratings = ratings_of([(u, w, float(r["flags"][name])) for u, w, _, r in rated], (0.0, 1.0),
                                 [s.item for _, _, s, _ in rated])
            value = agreement(ratings, ("alpha",))["alpha"]
        if rated:
            note = f"{yes:,} of {len(rated):,} answers"
            row = _row(flag["label"], value, f"flag:{name}", note)
            rows.append(row or Row(flag["label"], None, None, 0, f"flag:{name}", note))
    return rows


def _fit(votes: Votes) -> Reliability | None:
    if len(votes) < 2 or len(votes.labelers) < 2:
        return None
    try:
        return fit_reliability(votes, position=True, length=True)
    except UserError:
        return None


def _people(counted: Sequence[StoredAnswer], votes: Votes, fitted: Reliability | None) -> list[Person]:
    ranked = ratings_of_votes(votes) if len(votes) else None
    agrees = by_rater(ranked) if ranked is not None and len(ranked) else {}
    at = {name: i for i, name in enumerate(votes.labelers)}
    mine = defaultdict(list)
    for s in counted:
        mine[s.labeler].append(s)
    people = []
    for name, answers in sorted(mine.items(), key=lambda kv: -len(kv[1])):
        own = votes.won[votes.labeler == at.get(name, -1)]
        seconds = [s.judgment.seconds for s in answers if s.judgment.seconds]
        people.append(Person(name, len(answers), len(answers) / len(counted), statistics.median(seconds) if seconds else None,
                             agrees.get(name), _fitted(fitted, at[name], len(own)) if fitted and name in at else None,
                             float((own == 0).mean()) if len(own) else None))
    return people


def _fitted(fit: Reliability, i: int, n: int) -> Fitted:
    beta = Estimate(float(fit.beta[i]), float(fit.beta_low[i]), float(fit.beta_high[i]), n, 0.9)
    return Fitted(beta, float(fit.careless[i]), float(fit.position[i]), float(fit.length[i]))


def _biases(counted: Sequence[StoredAnswer], votes: Votes) -> list[Row]:
    """Shares with intervals over prompts: the pairs of one prompt are not independent (E13)."""
    rows = []
    placed = votes.take((votes.first != 0) & (votes.won != 0))
    if len(placed):
        share = mean_interval(placed.won == placed.first, votes.prompt[placed.a].tolist(), bounds=(0, 1))
        rows.append(Row("The answer shown earlier wins", share, 0.5, len(placed), "answered", "position bias; ties left out"))
    longer = np.sign(votes.lengths[votes.a] - votes.lengths[votes.b]) if len(votes) else votes.won
    sized = (longer != 0) & (votes.won != 0)
    if sized.any():
        share = mean_interval(longer[sized] == votes.won[sized], votes.prompt[votes.a[sized]].tolist(), bounds=(0, 1))
        rows.append(Row("The longer answer wins", share, 0.5, int(sized.sum()), "answered", "length; longer may also be better"))
    both = [s for s in counted if "conflicts" in s.payload]
    if both:
        share = mean_interval([bool(s.payload["conflicts"]) for s in both], [s.item for s in both], bounds=(0, 1))
        rows.append(Row("A ranking contradicts its own ratings", share, None, len(both), "contradict",
                        "two answers ranked against their ratings"))
    return rows


def _consistency(answers: Sequence[StoredAnswer]) -> list[Row]:
    """The same labeler, the same question again, in the same and in the mirrored order."""
    votes = votes_of(s.judgment for s in answers if s.role in (None, "repeat", "surplus"))
    names = {"repeated": "The same answer when asked again", "same order": "… in the same order",
             "mirrored": "… in the opposite order"}
    rows = [_row(names[k], v, "repeated", "self-consistency") for k, v in self_consistency(votes).items()] if len(votes) else []
    return [r for r in rows if r is not None]


def _queue(counted: Sequence[StoredAnswer], votes: Votes, fitted: Reliability | None) -> list[Open]:
    """Items by what one more answer would teach: the mutual information of the answer and the scores, summed over the item's
    pairs, in bits: H(E p) - E H(p) with the scores normal around their estimates (Houlsby et al. 2011, arXiv 1112.5745)."""
    if fitted is None:
        return []
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    spread = np.hypot(fitted.score_sd[votes.a], fitted.score_sd[votes.b])
    p_NQ = 1 / (1 + np.exp(-((fitted.scores[votes.a] - fitted.scores[votes.b])[:, None] + spread[:, None] * nodes)))
    weights = weights / weights.sum()
    bits = _entropy(p_NQ @ weights) - _entropy(p_NQ) @ weights
    ranking = [s for s in counted if s.judgment.choice() is not None]
    pairs: dict[int, dict[tuple[int, int], tuple[float, list[int]]]] = defaultdict(dict)
    for n in range(len(votes)):
        a, b, won = int(votes.a[n]), int(votes.b[n]), int(votes.won[n])
        key, verdict = ((a, b), won) if a < b else ((b, a), -won)
        pairs[counted[int(votes.judgment[n])].item].setdefault(key, (float(bits[n]), []))[1].append(verdict)
    answers = Counter(s.item for s in ranking)
    rows = [Open(item, sum(b for b, _ in of.values()), answers[item], _opposite([v for _, v in of.values()]))
            for item, of in pairs.items()]
    return sorted(rows, key=lambda o: -o.bits)


def _entropy(p: Any) -> Any:
    q = np.clip(p, 1e-12, 1 - 1e-12)
    return -(q * np.log2(q) + (1 - q) * np.log2(1 - q))


def _opposite(verdicts: Sequence[Sequence[int]]) -> float:
    return sum(1 in v and -1 in v for v in verdicts) / max(1, len(verdicts))


def _lists(counted: Sequence[StoredAnswer]) -> dict[str, frozenset[int]]:
    """The items behind the numbers."""
    listed: dict[str, set[int]] = defaultdict(set)
    verdicts: dict[tuple[int, int, int], set[int]] = defaultdict(set)
    for s in counted:
        ranks = s.payload.get("ranks") or ()
        for i in range(len(ranks)):
            for j in range(i + 1, len(ranks)):
                verdicts[s.item, i, j].add(int(np.sign(ranks[j] - ranks[i])))
        if s.payload.get("conflicts"):
            listed["contradict"].add(s.item)
        for rating in s.payload.get("ratings") or ():
            for name, value in rating["flags"].items():
                if value:
                    listed[f"flag:{name}"].add(s.item)
    listed["disagree"] = {item for (item, _, _), v in verdicts.items() if {1, -1} <= v}
    return {name: frozenset(v) for name, v in listed.items()}


def _warnings(counted: Sequence[StoredAnswer]) -> list[str]:
    """F17: a few people's values must not pass for everybody's."""
    done = sorted(Counter(s.labeler for s in counted).values(), reverse=True)
    few = max(1, round(FEW_LABELERS * len(done)))
    if len(done) >= 5 and sum(done[:few]) > MUCH * sum(done):
        return [f"{few} of {len(done)} labelers gave {sum(done[:few]) / sum(done):.0%} of the answers."]
    return []


def _outliers(people: Sequence[Person]) -> list[str]:
    """F18: somebody, or a program, whose verdicts tell nothing of the others' or the opposite of them."""
    return [f"{p.name} gave {p.done:,} answers that have nothing to do with anybody else's: read some before they train anything."
            for p in people if p.fitted is not None and p.fitted.careless > SURELY and p.done >= MANY]
