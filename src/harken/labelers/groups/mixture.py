"""Groups found in the votes: who votes alike, and how many kinds of people the votes can tell apart.

    mixture = fit_mixture(votes)            # 1 group suffices, unless held-out votes say otherwise
    mixture.model.membership             # [A, K]

EM over a mixture of Davidson models with shared scores and shrunken offsets (`scores.py`). The E-step asks under which
group's scores a labeler's votes are likely, at the labeler's own rationality there; `hard` assigns each labeler to one group,
as MaxMin-RLHF does (2402.08925, algorithm 2). The number of groups is chosen on held-out votes of the same people; the
integrated classification likelihood stands beside it. EM starts from the leading directions of the labelers' residuals, and
from random splits.

Shape suffixes as in `scores.py`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from harken.core.progress import Shown, silent
from harken.core.protocols import Estimate
from harken.labelers.groups.heldout import folds_of, gain
from harken.labelers.groups.regression import Floats, outcome_logps, vote_logps
from harken.labelers.groups.scores import EVERYBODY, SEARCH_TOLERANCE, Groups, differences, features, fit_membership, traits_of
from harken.labelers.votes import Votes

RESIDUAL_RIDGE = 1e-6
LEAST_START_BETA = 0.5


@dataclass(frozen=True)
class Mixture:
    """`models[k-1]` has k groups; `gains[k-2]` is what k groups add to k − 1 in nats a held-out vote, clustered by labeler."""

    model: Groups
    models: tuple[Groups, ...]
    held_out: tuple[float, ...]
    """[K] mean log-likelihood of a held-out vote."""
    gains: tuple[Estimate, ...]
    icl: tuple[float, ...]
    """[K] −2 (log evidence + log P(membership)), BIC's integrated form where scores are shrunken; smaller is better."""


def residuals(votes: Votes, model: Groups) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """[A, F], [A, F] each labeler's pull on each score beyond the shared model (gradient), and its variance."""
    scores = model.scores()[0]
    d = model.beta[votes.labeler, 0] * (scores[votes.a] - scores[votes.b]) + model.position * votes.first
    p = np.exp(outcome_logps(d, model.log_nu + model.indifference[votes.labeler, 0]))
    mean = p[:, 2] - p[:, 0]
    diff = differences(votes, model.phi)
    count = len(votes)
    who = sparse.csr_matrix((np.ones(count), (votes.labeler, np.arange(count))), shape=(len(votes.labelers), count))
    pull = who @ diff.multiply(((votes.won - mean) / 2)[:, None])
    spread = who @ diff.multiply(diff).multiply(((p[:, 2] + p[:, 0] - mean**2) / 4)[:, None])
    return pull.tocsr(), spread.tocsr()


def _start(votes: Votes, shared: Groups, k: int, rng: np.random.Generator, spectral: bool) -> Floats:
    """[A, K] first memberships: k-means on the leading directions of standardised residuals, or a random split."""
    count = len(votes.labelers)
    if not spectral:
        return np.asarray(np.eye(k)[rng.permutation(np.arange(count) % k)])
    pull, spread = residuals(votes, shared)
    whole = np.sqrt(np.asarray(spread.sum(0)).ravel() + RESIDUAL_RIDGE)
    table = pull @ sparse.diags(1 / whole)
    own = np.sqrt(np.asarray(spread @ (1 / whole**2)).ravel() + RESIDUAL_RIDGE)
    table = sparse.diags(1 / own) @ table
    size, u = np.linalg.eigh((table @ table.T).toarray())
    points = u[:, -max(1, k - 1):] * np.sqrt(np.maximum(size[-max(1, k - 1):], 0))
    centres = points[rng.choice(count, k, replace=False)]
    for _ in range(20):
        label = ((points[:, None] - centres) ** 2).sum(-1).argmin(1)
        centres = np.stack([points[label == c].mean(0) if (label == c).any() else points[rng.integers(count)] for c in range(k)])
    return np.asarray(np.eye(k)[label] * 0.8 + 0.2 / k)


def _expect(votes: Votes, model: Groups, hard: bool) -> tuple[Floats, float]:
    """[A, K] responsibilities (a labeler without votes gets the mean of the others' rows), and the mixture's log-likelihood."""
    scores, count = model.scores(), len(votes.labelers)
    shares = np.maximum(model.shares, 1e-6)
    logp = np.zeros((count, len(shares)))
    for k in range(len(shares)):
        d = model.beta[votes.labeler, k] * (scores[k, votes.a] - scores[k, votes.b]) + model.position * votes.first
        log_nu = model.log_nu + model.indifference[votes.labeler, k]
        logp[:, k] = np.bincount(votes.labeler, vote_logps(d, votes.won, log_nu), count)
    active = model.seen
    omega = max(0.1, float(np.sqrt(np.mean(((model.beta - 1) ** 2 * model.membership).sum(1)[active]))))
    logp += np.log(shares / shares.sum()) - ((model.beta - 1) / omega) ** 2 / 2
    top = logp.max(1, keepdims=True)
    member = np.exp(logp - top)
    total = float((np.log(member.sum(1)) + top[:, 0])[active].sum())
    member /= member.sum(1, keepdims=True)
    if hard:
        member = np.eye(len(shares))[member.argmax(1)]
    member[~active] = member[active].mean(0)
    return member, total


def find_groups(votes: Votes, k: int, *, shared: Groups, hard: bool = False, starts: int = 4, steps: int = 30,
                seed: int = 0) -> tuple[Groups, float]:
    """EM with `k` groups from `starts` starts; the likeliest end and its log-likelihood. `shared` is the fit of one group."""
    rng = np.random.default_rng(seed)
    best: tuple[Groups, float] | None = None
    names = tuple(f"group {c + 1}" for c in range(k))
    for start in range(starts):
        member = _start(votes, shared, k, rng, spectral=start % 2 == 0)
        # Who seems upside down against everybody's scores may be upright against a group's, so all start with β above 0.
        beta, indifference = np.repeat(np.maximum(shared.beta, LEAST_START_BETA), k, 1), np.repeat(shared.indifference, k, 1)
        last = -math.inf
        before: Groups | None = None
        for step in range(steps):
            model = fit_membership(votes, member, names, phi=shared.phi, noise=False, sigma=shared.sigma, tau=1.0, beta=beta,
                                   indifference=indifference, start=before, tolerance=SEARCH_TOLERANCE)
            if shared.noise:
                beta, _, indifference = traits_of(votes, model)
                beta = beta * _upright(beta, member, model.seen)
            model = before = dataclasses.replace(model, beta=beta, indifference=indifference, noise=shared.noise)
            new, total = _expect(votes, model, hard)
            moved, member = float(np.abs(new - member).max()), new
            if (moved < 1e-3 or total - last < 1e-3 * k) and step > 3:
                break
            last = total
        if best is None or total > best[1]:
            best = dataclasses.replace(model, membership=member), total
    assert best is not None
    end = best[0]
    final = fit_membership(votes, end.membership, names, phi=shared.phi, noise=False, sigma=shared.sigma, beta=end.beta,
                           indifference=end.indifference, start=end)
    return by_size(dataclasses.replace(final, noise=shared.noise)), best[1]


def _upright(beta: Floats, member: Floats, seen: NDArray[np.bool_]) -> Floats:
    """[K] −1 for a group most of whose members have β < 0, else 1: (β, scores) and (−β, −scores) fit alike; β > 0 is meant."""
    return np.where((np.sign(beta) * member)[seen].sum(0) < 0, -1.0, 1.0)


def by_size(model: Groups) -> Groups:
    """The same groups, the largest first."""
    order = np.argsort(-model.shares, kind="stable")
    return dataclasses.replace(model, membership=model.membership[:, order], beta=model.beta[:, order],
                               indifference=model.indifference[:, order],
                               weights=np.concatenate([model.weights[:1], model.weights[1:][order]]))


def fit_mixture(votes: Votes, *, most: int = 3, phi: NDArray[np.float64] | None = None, noise: bool = True, hard: bool = False,
                folds: int = 5, starts: int = 4, seed: int = 0, level: float = 0.9, watch: Shown = silent) -> Mixture:
    """Fits 1 … `most` groups and keeps as many as predict held-out votes better.

    A further group is accepted while its gain's interval lies above 0; one group is the answer otherwise, and a good one.
    """
    table, fold = features(votes, phi), folds_of(votes, folds, seed)
    most = max(1, min(most, len(set(votes.labeler.tolist())) // 2))

    def fits(part: Votes) -> list[Groups]:
        one = fit_membership(part, np.ones((len(part.labelers), 1)), EVERYBODY, phi=table, noise=noise)
        return [one, *(find_groups(part, k, shared=one, hard=hard, starts=starts, seed=seed)[0] for k in range(2, most + 1))]

    held = np.zeros((most, len(votes)))
    with watch("looking for groups", folds + 1) as advance:
        for f in range(folds):
            test = votes.take(fold == f)
            for k, model in enumerate(fits(votes.take(fold != f))):
                held[k, fold == f] = vote_logps_of(model, test)
            advance(1)
        models = tuple(fits(votes))
    gains = [gain(held[k], held[k - 1], votes.labeler, level) for k in range(1, most)]
    chosen = next((k for k, one in enumerate(gains) if one.low <= 0), len(gains))
    return Mixture(models[chosen], models, tuple(held.mean(1).tolist()), tuple(gains), tuple(map(_icl, models)))


def vote_logps_of(model: Groups, votes: Votes) -> Floats:
    """[N] log probability of what was voted."""
    return np.take_along_axis(model.log_probabilities(votes), (votes.won + 1)[:, None], -1)[:, 0]


def _icl(model: Groups) -> float:
    member = model.membership[model.seen]
    return -2 * (model.log_evidence + float((member * np.log(np.maximum(model.shares, 1e-12))).sum()))
