"""What people did with answers, as evidence of how good the answers are: each kind of signal with its own mistakes, estimated.

    found = fit_use(judgments)
    for kind in found.kinds: print(kind.name, kind.sensitivity, kind.low, kind.high, kind.share)
    found.scores[i]                     # of found.items[i], in log-odds of the average labeler's comparison

A signal (copy, regenerate, rephrase, abandon; also thumb, rating, edit) either came or not, for an answer of score s:

    P(it came) = sigma(bar + sensitivity s)

Comparisons set the scale: scores s = phi w are fitted to them alone (Bradley–Terry with a normal prior), then bar and sensitivity
of each kind to the other judgments, with s known no better than the comparisons tell it (E sigma(c + g s) for normal s, MacKay
1992). The 95 % interval of a sensitivity is clustered by person, whose habits are not independent evidence. A kind whose interval
covers 0 is no better than chance and weighs nothing; the others enter the likelihood of w as they are. A sensitivity below 0
(regenerate, abandon) speaks against the answer. Where there are fewer than `ANCHOR` comparisons, thumbs set the scale instead,
with sensitivity 1.

An answer counts for a signal where it is known to have been shown to somebody who agreed to signals (`SHOWN`, which Harken's chat
page records); from people without such records, where any signal came, so that a kind looks more telling, or less, than it is. A
thumb counts where one was given. Votes without a name are one person.

Shape suffixes: `N` observations, `I` answers, `D` features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import stdtrit  # scipy.stats would take as long to load as all else

from harken.core.errors import UserError
from harken.core.records import Judgment
from harken.labelers.asking.features import TextFeatures
from harken.labelers.models.likelihood import Floats, Ints, log_sigmoid, sigmoid
from harken.labelers.votes import UNNAMED

SIGNALS = ("copy", "accept", "regenerate", "rephrase", "abandon")
SHOWN = "shown"
"""Not a signal: that somebody who agreed to signals saw the answer. Without it nobody knows of what a signal did not come."""
WIDTHS = (0.5, 1.0, 2.0, 4.0)
ANCHOR = 20
FEATURES = 16
WIDEST = 5.0
"""Prior standard deviation of a sensitivity: a signal that all good answers have must stay finite."""
LEAST = 10
"""Times that a signal must have come, and not come, before anything is said of it."""
STEPS = 60


@dataclass(frozen=True)
class Evidence:
    """Events of one kind: `came` [N] of answer `item` [N], by person `who` [N]."""

    name: str
    item: Ints
    came: Floats
    who: Ints


@dataclass(frozen=True)
class Kind:
    """What a kind of feedback says. `sensitivity` in log-odds of the signal per unit of score; None where nothing can be said."""

    name: str
    given: int
    came: int
    people: int
    sensitivity: float | None
    low: float | None
    high: float | None
    share: float
    """Of the information in the reward's weights, the prior's apart: what this kind contributed. 0: it weighs nothing."""
    note: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Use:
    """`scores` [I] and `sd` [I] of `items` (prompt id, text), from comparisons and the kinds that tell something."""

    kinds: tuple[Kind, ...]
    items: tuple[tuple[str, str], ...]
    scores: Floats
    sd: Floats
    anchor: str
    weights: Floats = field(repr=False)

    def describe(self) -> list[str]:
        """A line for each kind, for a person."""
        lines = []
        for k in self.kinds:
            known = "" if k.sensitivity is None or k.low is None or k.high is None else \
                f", sensitivity {k.sensitivity:+.2f} [{k.low:+.2f}, {k.high:+.2f}]".replace("-", "−")
            lines.append(f"{k.name}: {k.came:,} of {k.given:,} by {k.people:,} people{known}: {k.share:.0%} of what is learnt"
                         f"{' (' + k.note + ')' if k.note else ''}")
        return lines


def fit_use(judgments: Iterable[Judgment], *, phi: Floats | None = None, weight_of: Mapping[str, float] | None = None,
            sigma: float | None = None) -> Use:
    """Scores and each kind's sensitivity, from judgments of any kind.

    `phi` [I, D] are features of the answers in order of first appearance (`answers_of`); without it they are the text's.
    `weight_of` is each labeler's weight (`fit_campaigns`). `sigma` is the prior standard deviation of a score; None: of `WIDTHS`
    the one of the greatest evidence. Raises UserError where neither comparisons nor thumbs set a scale.
    """
    said = list(judgments)
    items = answers_of(said)
    index = {item: i for i, item in enumerate(items)}
    if phi is None:
        prompts, texts = [p for p, _ in items], [text for _, text in items]
        phi = TextFeatures.fit(prompts, texts, FEATURES).of(prompts, texts) if items else np.zeros((0, 1))
    if len(phi) != len(items):
        raise ValueError(f"phi must have a row for each of {len(items)} answers, found {len(phi)}")
    phi = np.asarray(phi, dtype=np.float64)
    names: dict[str, int] = {}
    pairs, won, pair_who = _comparisons(said, index, names)
    events = _events(said, index, names)
    people = np.array([(weight_of or {}).get(name, 1.0) for name in names])
    unit = max(float(np.sqrt((phi**2).sum(1).mean())), 1e-9) if len(phi) else 1.0
    anchor, rows, offset, share, weight = _anchor(phi, pairs, won, people[pair_who], events, people)
    widths = WIDTHS if sigma is None else (sigma,)
    fits = [_logistic(rows, offset, share, weight, np.full(phi.shape[1], (unit / s) ** 2)) for s in widths]
    best = int(np.argmax([fit[2] for fit in fits]))
    (w, covariance, _), precision = fits[best], np.full(phi.shape[1], (unit / widths[best]) ** 2)
    fitted = [(e, _sensitivity(e, phi, w, covariance, people)) for e in events if e.name != anchor]
    used = [(e, s) for e, s in fitted if s is not None and s.low * s.high > 0]
    design = np.vstack([rows, *(s.slope * phi[e.item] for e, s in used)])
    bars = np.concatenate([offset, *(np.full(len(e.item), s.bar) for e, s in used)])
    outcomes = np.concatenate([share, *(e.came for e, _ in used)])
    weights = np.concatenate([weight, *(people[e.who] for e, _ in used)])
    w, covariance, _ = _logistic(design, bars, outcomes, weights, precision)
    p = sigmoid(design @ w + bars)
    information = weights * p * (1 - p) * np.einsum("nd,de,ne->n", design, covariance, design)
    ends = np.cumsum([0, len(rows), *(len(e.item) for e, _ in used)])
    parts = np.array([information[a:b].sum() for a, b in pairwise(ends)])
    parts = parts / max(float(parts.sum()), 1e-12)
    shares = dict(zip([anchor, *(e.name for e, _ in used)], parts.tolist()))
    first = Kind(anchor, len(rows), len(rows), len(np.unique(pair_who)) if anchor == "comparisons" else
                 len(np.unique(next(e for e in events if e.name == "thumb").who)), 1.0, None, None, shares[anchor], "the scale")
    kinds = (first, *(_kind(e, s, shares.get(e.name, 0.0)) for e, s in fitted))
    return Use(kinds, tuple(items), phi @ w, np.sqrt(np.einsum("id,de,ie->i", phi, covariance, phi)), anchor, w)


def answers_of(judgments: Iterable[Judgment]) -> list[tuple[str, str]]:
    """(prompt id, text) of every answer that was judged, in order of first appearance."""
    items: dict[tuple[str, str], None] = {}
    for j in judgments:
        for text in _texts(j):
            items.setdefault((j.prompt.id, text))
    return list(items)


def _texts(j: Judgment) -> list[str]:
    if "ranks" in j.payload:
        return list(j.payload["completions"])
    if j.kind in ("thumb", "rating", "use"):
        return [j.payload["completion"]]
    return []


def _comparisons(said: list[Judgment], index: Mapping[tuple[str, str], int],
                 names: dict[str, int]) -> tuple[Ints, Floats, Ints]:
    """Pairs [N, 2], the share of a [N] (a tie is half a win), and who."""
    pairs, won, who = [], [], []
    for j in said:
        if "ranks" not in j.payload or j.kind == "edit":
            continue
        k = names.setdefault(j.labeler or UNNAMED, len(names))
        at = [index[j.prompt.id, text] for text in j.payload["completions"]]
        ranks = j.payload["ranks"]
        for a in range(len(at)):
            for b in range(a + 1, len(at)):
                if at[a] != at[b]:
                    pairs.append((at[a], at[b]))
                    won.append((np.sign(ranks[b] - ranks[a]) + 1) / 2)
                    who.append(k)
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(won, dtype=np.float64), np.array(who, dtype=np.int64)


def _events(said: list[Judgment], index: Mapping[tuple[str, str], int], names: dict[str, int]) -> list[Evidence]:
    """Who did what with which answer. One (person, answer) is one observation of each kind."""
    did: dict[tuple[int, int], set[str]] = {}
    thumbs: dict[tuple[int, int], bool] = {}
    ratings: dict[tuple[int, int], float] = {}
    for j in said:
        k = names.setdefault(j.labeler or UNNAMED, len(names))
        if j.kind == "edit" and "ranks" in j.payload:
            original = j.payload["completions"][int(np.argmax(j.payload["ranks"]))]
            did.setdefault((k, index[j.prompt.id, original]), set()).add("edit")
        elif j.kind in ("use", "thumb", "rating"):
            at = (k, index[j.prompt.id, j.payload["completion"]])
            if j.kind == "use":
                did.setdefault(at, set()).add(j.payload["signal"])
            elif j.kind == "thumb":
                thumbs[at] = bool(j.payload["label"])
                did.setdefault(at, set())
            elif j.payload.get("score") is not None:
                ratings[at] = float(j.payload["score"])
                did.setdefault(at, set())
    agreed = {k for (k, _), what in did.items() if what & {*SIGNALS, SHOWN}}
    telling = {k for (k, _), what in did.items() if SHOWN in what}
    seen = [at for at, what in did.items() if at[0] in agreed and (SHOWN in what or at[0] not in telling)]
    counts = Counter(name for what in did.values() for name in what)
    result = [_evidence("thumb", list(thumbs), [float(up) for up in thumbs.values()])] if thumbs else []
    if ratings:
        own = {k: float(np.median([v for (other, _), v in ratings.items() if other == k])) for k, _ in ratings}
        above = [0.5 + 0.5 * float(np.sign(v - own[k])) for (k, _), v in ratings.items()]
        result.append(_evidence("rating", list(ratings), above))
    return result + [_evidence(name, seen, [float(name in did[at]) for at in seen])
                     for name in (*SIGNALS, "edit") if counts[name] and seen]


def _evidence(name: str, at: list[tuple[int, int]], came: list[float]) -> Evidence:
    table = np.array(at, dtype=np.int64).reshape(-1, 2)
    return Evidence(name, table[:, 1], np.array(came), table[:, 0])


def _anchor(phi: Floats, pairs: Ints, won: Floats, weight: Floats, events: list[Evidence],
            people: Floats) -> tuple[str, Floats, Floats, Floats, Floats]:
    """What sets the scale: its name, design [N, D], offsets, outcomes and weights [N]."""
    thumbs = next((e for e in events if e.name == "thumb"), None)
    if len(pairs) >= ANCHOR or (len(pairs) and thumbs is None):
        return "comparisons", phi[pairs[:, 0]] - phi[pairs[:, 1]], np.zeros(len(pairs)), won, weight
    if thumbs is None or len(thumbs.came) < ANCHOR:
        raise UserError(f"{len(pairs)} comparisons and {0 if thumbs is None else len(thumbs.came)} thumbs set no scale for what "
                        "people do with answers.", f"Collect {ANCHOR} comparisons, or as many thumbs.")
    up = (thumbs.came.sum() + 0.5) / (len(thumbs.came) + 1)
    return "thumb", phi[thumbs.item], np.full(len(thumbs.came), np.log(up / (1 - up))), thumbs.came, people[thumbs.who]


def _logistic(design: Floats, offset: Floats, share: Floats, weight: Floats,
              precision: Floats) -> tuple[Floats, Floats, float]:
    """Mode, covariance and log evidence (Laplace) of w under a normal prior: P = sigma(offset + design w)."""
    w = np.zeros(design.shape[1])
    for _ in range(STEPS):
        p = sigmoid(design @ w + offset)
        curve = (design.T * (weight * p * (1 - p))) @ design + np.diag(precision)
        step = np.linalg.solve(curve, design.T @ (weight * (share - p)) - precision * w)
        w = w + step * min(1.0, 2.0 / max(float(np.abs(design @ step).max(initial=0.0)), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    eta = design @ w + offset
    p = sigmoid(eta)
    curve = (design.T * (weight * p * (1 - p))) @ design + np.diag(precision)
    logp = float(weight @ (share * log_sigmoid(eta) + (1 - share) * log_sigmoid(-eta))) - 0.5 * float(precision @ w**2)
    evidence = logp + 0.5 * float(np.log(precision).sum()) - 0.5 * float(np.linalg.slogdet(curve)[1])
    return w, np.asarray(np.linalg.inv(curve)), evidence


@dataclass(frozen=True)
class _Fit:
    bar: float
    slope: float
    low: float
    high: float


def _sensitivity(e: Evidence, phi: Floats, w: Floats, covariance: Floats, people: Floats) -> _Fit | None:
    """Bar and sensitivity by maximum likelihood, with a 95 % interval clustered by person (Student's t, one less than people) and
    widened by what is not known of w, which all answers share."""
    if min(float(e.came.sum()), float((1 - e.came).sum())) < LEAST or len(np.unique(e.who)) < 3:
        return None
    own = phi[e.item]
    m, v, weight = own @ w, np.einsum("nd,de,ne->n", own, covariance, own), people[e.who]
    x = np.array([0.0, 0.0])
    for _ in range(STEPS):
        gradient, curve, _ = _terms(x, m, v, e.came, weight)
        step = np.linalg.solve(curve, gradient)
        x = x + step * min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    _, curve, each = _terms(x, m, v, e.came, weight)
    groups = np.unique(e.who, return_inverse=True)[1].ravel()
    clusters = np.stack([np.bincount(groups, each[:, i]) for i in range(2)], axis=1)
    n = len(clusters)
    meat = clusters.T @ clusters * (n / (n - 1))
    inverse = np.linalg.inv(curve)
    # With few people the clustered variance is too small by chance: never below the model's own.
    p = sigmoid(x[0] + x[1] * m)
    shared = inverse @ ((np.stack([np.ones_like(m), m]) * (weight * p * (1 - p) * x[1])) @ own)
    spread = float((shared @ covariance @ shared.T)[1, 1])
    sd = float(np.sqrt(max((inverse @ meat @ inverse)[1, 1], inverse[1, 1]) + spread))
    half = float(stdtrit(n - 1, 0.975)) * sd
    return _Fit(float(x[0]), float(x[1]), float(x[1]) - half, float(x[1]) + half)


def _terms(x: Floats, m: Floats, v: Floats, came: Floats, weight: Floats) -> tuple[Floats, Floats, Floats]:
    """Gradient [2] and Fisher information [2, 2] of bar and sensitivity, and each observation's gradient [N, 2]."""
    bar, slope = float(x[0]), float(x[1])
    k = 1 / np.sqrt(1 + np.pi / 8 * slope**2 * v)  # sigma averaged over a normal score (MacKay 1992)
    eta = (bar + slope * m) * k
    by = np.stack([k, m * k - (bar + slope * m) * (np.pi / 8 * slope * v) * k**3], axis=1)
    p = sigmoid(eta)
    each = (weight * (came - p))[:, None] * by
    curve = (by.T * (weight * p * (1 - p))) @ by + np.diag([1e-6, 1 / WIDEST**2])
    return each.sum(0) - np.array([0.0, slope / WIDEST**2]), curve, each


def _kind(e: Evidence, s: _Fit | None, share: float) -> Kind:
    came, people = int((e.came > 0.5).sum()), len(np.unique(e.who))
    if s is None:
        return Kind(e.name, len(e.came), came, people, None, None, None, 0.0, "too few to tell: it weighs nothing")
    note = "" if s.low * s.high > 0 else "no better than chance: it weighs nothing"
    return Kind(e.name, len(e.came), came, people, s.slope, s.low, s.high, share, note)
