"""Scores that differ between groups of people: one shared score an item, and each group's offset from it.

Offsets are shrunken towards 0 as far as the votes allow: `tau` is the spread of group offsets, and tau = 0 means one group.

    index, names = group_index(votes, "age")
    model = fit_groups(votes, index=index, names=names)        # point estimates, predictions
    post = posterior(votes, model)                 # intervals of every difference

A labeler k of group g who compares items a and b votes by Davidson's model with

    d = β_k (s_g(a) − s_g(b)) + position · (a shown first ? 1 : −1),        s_g = μ + δ_g
    μ ~ N(0, σ²)     δ_g ~ N(0, τ²)     β_k ~ N(1, ω²)

σ, τ and ω are learnt from the votes. β is noise, δ is values: whoever is careless has a small β, whoever wants
something else has an offset. Somebody who reads the scale upside down gets β < 0; a group that wants the opposite of
everything looks exactly so, and votes alone cannot tell the two apart.

With features `phi` [I, F], s = phi · w: then scores, and differences, reach items nobody voted on.
Shape suffixes: `N` votes, `I` items, `F` features (the items themselves where no features are given), `A` labelers, `K` groups,
`S` draws, `U` pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from harken.core.errors import UserError
from harken.core.progress import Shown, silent
from harken.labelers.groups.chain import Chain, Evidence, State, effective
from harken.labelers.groups.regression import Davidson, Floats, Ints, Place, fit_davidson, fit_labeler_traits, outcome_logps
from harken.labelers.votes import Votes, crowd

SIGMAS = (0.5, 1.0, 2.0, 4.0)
TAUS = (0.001, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0)
"""Standard deviations of group offsets that are weighed against each other; the first stands for none. In coarser steps one of
them would take all the weight, and intervals would leave out what is not known of τ."""
EVERYBODY = ("everybody",)
FIRST_TAU = 0.6
"""The τ at which the search for the likeliest begins."""
LARGEST_EVIDENCE_GAP = 30.0
"""A τ whose log evidence is lower than the best by more than this is left out: its weight would be below e^−30."""
SEARCH_TOLERANCE = 1e-5
"""Newton steps smaller than this end the search for a τ's evidence. Near its maximum the evidence is flat, so the error is far
smaller than the step."""
LEAST_CHANCE = 1e-100
ROUNDS = 3
LEAST_MEDIAN_BETA = 0.25
"""All rationalities are divided by their median, but by no less than this: a median near 0 would blow them up."""
WARM_UP_SWEEPS, SWEEPS_PER_DRAW = 100, 2
"""Sweeps of the chain before its first draw, and for each."""
LEAST_MEMBERSHIP = 1e-3
"""A labeler whose share in a group is below this does not count in it."""


@dataclass(frozen=True)
class Groups:
    """Scores of each group and how surely each labeler votes by them."""

    names: tuple[str, ...]
    """[K]"""
    membership: Floats
    """[A, K] share of each labeler in each group, rows sum to 1. A labeler of unknown group has the shares of all the others."""
    phi: sparse.csr_matrix
    """[I, F] features; the identity where every item has its own score."""
    weights: Floats
    """[1 + K, F] shared, then each group's offset; [1, F] where there is one group."""
    beta: Floats
    """[A, K] rationality of each labeler, were they of that group; 1 where noise is not modelled."""
    indifference: Floats
    """[A, K] how much more readily than others each labeler ties, were they of that group."""
    cast: Ints
    """[A] votes in the training data. Who cast none is predicted as whoever might cast the next vote."""
    log_nu: float
    position: float
    """Log-odds that being shown first adds."""
    sigma: float
    tau: float
    log_evidence: float
    noise: bool
    """Whether each labeler's rationality was fitted; otherwise all are 1."""

    @property
    def place(self) -> Place:
        """Where a fit of the same columns, to much the same votes, may start."""
        return np.append(self.weights.ravel(), self.position), self.log_nu

    @property
    def seen(self) -> NDArray[np.bool_]:
        """[A] cast a vote."""
        return self.cast > 0

    @property
    def shares(self) -> Floats:
        """[K] share of the seen labelers in each group."""
        return np.asarray(self.membership[self.seen].mean(0))

    def scores(self) -> Floats:
        """[K, I] score of every item in each group."""
        return _scores(self.phi, self.weights)

    def log_probabilities(self, votes: Votes) -> Floats:
        """[N, 3] log P(b preferred, tie, a preferred) of votes, also by labelers who were never seen."""
        scores, shown = self.scores(), self.position * votes.first
        seen = self.seen[votes.labeler]
        result = np.zeros((len(votes), 3))
        for k in range(len(self.names)):
            d = scores[k, votes.a] - scores[k, votes.b]
            p = np.exp(outcome_logps(self.beta[votes.labeler, k] * d + shown, self.log_nu + self.indifference[votes.labeler, k]))
            strange = ~seen
            p[strange] = np.mean([np.exp(outcome_logps(self.beta[a, k] * d[strange] + shown[strange],
                                                       self.log_nu + self.indifference[a, k])) for a in crowd(self.cast)], 0)
            result += self.membership[votes.labeler, k][:, None] * p
        return np.asarray(np.log(np.maximum(result, 1e-300)))


def _scores(phi: sparse.csr_matrix, weights: Floats) -> Floats:
    """[K, I] from [1 + K, F] (or [1, F]) shared weights and offsets."""
    own = weights[0] + weights[1:] if len(weights) > 1 else weights
    return np.asarray((phi @ own.T).T)


def group_index(votes: Votes, by: str) -> tuple[Ints, tuple[str, ...]]:
    """[A] each labeler's group by a tag (or by `labeler`: everybody alone), -1 where the tag is missing, and the names [K].

    Raises UserError when nobody carries the tag, or when it does not divide the labelers.
    """
    if by == "labeler":
        return np.arange(len(votes.labelers)), votes.labelers
    tagged = [tags.get(by) for tags in votes.groups]
    names = sorted({s for s in tagged if s is not None})
    if len(names) < 2:
        others = sorted({key for tags in votes.groups for key in tags})
        problem = f"All labelers have {by} = {names[0]}" if names else f"No labeler has the group tag {by!r}"
        raise UserError(f"{problem}.", f"Tags in this file: {', '.join(others) or 'none'}. Leave --group-by out to look for "
                        "groups in the votes themselves.")
    place = {name: i for i, name in enumerate(names)}
    return np.array([-1 if s is None else place[s] for s in tagged], dtype=np.int64), tuple(names)


def one_hot(index: Ints, groups: int) -> Floats:
    """[A, K] membership from group numbers; a labeler without one (-1) gets the mean of the others' rows."""
    member = np.zeros((len(index), groups))
    grouped = index >= 0
    member[np.flatnonzero(grouped), index[grouped]] = 1.0
    member[~grouped] = member[grouped].mean(0)
    return member


def features(votes: Votes, phi: NDArray[np.float64] | None = None) -> sparse.csr_matrix:
    """[I, F] the features, or the identity. Raises ValueError where they do not fit the items."""
    if phi is None:
        return sparse.identity(len(votes.items), format="csr")
    if phi.ndim != 2 or len(phi) != len(votes.items) or not np.isfinite(phi).all():
        raise ValueError(f"features must be finite numbers [{len(votes.items)}, F], found shape {phi.shape}")
    return sparse.csr_matrix(phi)


def differences(votes: Votes, phi: sparse.csr_matrix) -> sparse.csr_matrix:
    """[N, F] phi(a) − phi(b) of every vote."""
    n = np.arange(len(votes))
    ends = sparse.csr_matrix((np.r_[np.ones(len(votes)), -np.ones(len(votes))], (np.r_[n, n], np.r_[votes.a, votes.b])),
                             shape=(len(votes), len(votes.items)))
    return (ends @ phi).tocsr()


@dataclass(frozen=True)
class _Rows:
    """The votes once for every group their labeler may belong to, as one regression: columns [μ | δ_1 … δ_K | position]."""

    x: sparse.csr_matrix
    won: Ints
    weight: Floats
    tie_shift: Floats
    width: int

    def precision(self, sigma: float, tau: float) -> Floats:
        rest = self.x.shape[1] - self.width - 1
        return np.concatenate([np.full(self.width, sigma**-2), np.full(rest, tau**-2), np.ones(1)])

    def fit(self, sigma: float, tau: float, start: Place | None = None, tolerance: float = 1e-8) -> Davidson:
        return fit_davidson(self.x, self.won, self.precision(sigma, tau), weight=self.weight, tie_shift=self.tie_shift,
                            start=start, tolerance=tolerance)

    def scan(self, sigma: float, near: float, start: Place | None = None) -> Peaks:
        """By τ; those too far from the best to matter are left out."""
        return _scan(lambda tau, place: self.fit(sigma, tau, place, SEARCH_TOLERANCE), TAUS, near, start)

    def scan_sigma(self, near: float, start: Place | None = None) -> Peaks:
        """By σ, at τ = 1 where there are groups."""
        return _scan(lambda sigma, place: self.fit(sigma, 1.0, place, SEARCH_TOLERANCE), SIGMAS, near, start)


Peaks = dict[float, tuple[float, Place]]
"""By a prior's width: log evidence, and where the maximum lies."""


def _scan(fit: Callable[[float, Place | None], Davidson], widths: Sequence[float], near: float, start: Place | None) -> Peaks:
    """Evidence at each of `widths`, from the one nearest `near` on outwards; every fit starts where its neighbour's ended.

    A side ends where the evidence lies `LARGEST_EVIDENCE_GAP` below the best. That loses nothing: as a function of a width the
    evidence has one hill (a sum of squares against a variance).
    """
    peaks: Peaks = {}
    middle = min(range(len(widths)), key=lambda i: abs(widths[i] - near))
    for side in (range(middle, len(widths)), range(middle - 1, -1, -1)):
        place = peaks[widths[middle]][1] if peaks else start
        for i in side:
            one = fit(widths[i], place)
            place = one.place
            peaks[widths[i]] = one.log_evidence, place
            if one.log_evidence < max(evidence for evidence, _ in peaks.values()) - LARGEST_EVIDENCE_GAP:
                break
    return peaks


def _best(peaks: Peaks) -> tuple[float, Place]:
    width = max(peaks, key=lambda w: peaks[w][0])
    return width, peaks[width][1]


def _rows(votes: Votes, diff: sparse.csr_matrix, member: Floats, beta: Floats, indifference: Floats) -> _Rows:
    k = member.shape[1]
    blocks, won, weight, shift = [], [], [], []
    for g in range(k):
        part = member[votes.labeler, g]
        rows = np.flatnonzero(part > LEAST_MEMBERSHIP)
        scaled = diff[rows].multiply(beta[votes.labeler[rows], g][:, None]).tocsr()
        empty = sparse.csr_matrix(scaled.shape)
        offsets = [scaled if h == g else empty for h in range(k)] if k > 1 else []
        blocks.append(sparse.hstack([scaled, *offsets, sparse.csr_matrix(votes.first[rows][:, None].astype(np.float64))]))
        won.append(votes.won[rows])
        weight.append(part[rows])
        shift.append(indifference[votes.labeler[rows], g])
    return _Rows(sparse.vstack(blocks).tocsr(), np.concatenate(won), np.concatenate(weight), np.concatenate(shift), diff.shape[1])


def _traits(votes: Votes, scores: Floats, log_nu: float, position: float) -> tuple[Floats, Floats, Floats]:
    """[A, K] each: rationality against each group's scores [K, I], its standard deviation, indifference."""
    shown = np.asarray(position * votes.first, dtype=np.float64)
    count = len(votes.labelers)
    fits = [fit_labeler_traits(s[votes.a] - s[votes.b], votes.won, votes.labeler, count, log_nu, shown) for s in scores]
    beta, sd, indifference = (np.stack([getattr(one, name) for one in fits], 1) for name in ("beta", "beta_sd", "indifference"))
    return beta, sd, indifference


def traits_of(votes: Votes, model: Groups) -> tuple[Floats, Floats, Floats]:
    """[A, K] each: rationality of every labeler against each group's scores, its standard deviation, indifference.

    The median rationality is 1: a common factor belongs to the scores.
    """
    beta, sd, indifference = _traits(votes, model.scores(), model.log_nu, model.position)
    scale = max(float(np.median((beta * model.membership).sum(1)[model.seen])), LEAST_MEDIAN_BETA)
    return beta / scale, sd / scale, indifference


def fit_membership(votes: Votes, member: Floats, names: tuple[str, ...], *, phi: sparse.csr_matrix, noise: bool = True,
                   sigma: float | None = None, tau: float | None = None, beta: Floats | None = None,
                   indifference: Floats | None = None, rounds: int = ROUNDS, start: Groups | None = None,
                   tolerance: float = 1e-8) -> Groups:
    """Scores given who belongs where. σ and τ are chosen by the evidence where they are not given.

    With `noise` the labelers' traits are refined in turn with the scores, from `beta` and `indifference` [A, K] on;
    without it they stay as they are. `start`, a fit of as many groups to much the same votes, only saves time: the search for
    scores begins there, and ends within `tolerance` of where it would have ended.
    """
    if len(votes) == 0:
        raise UserError("There is no comparison to learn from.", "Give a file of comparisons with at least one pair.")
    diff, cast = differences(votes, phi), np.bincount(votes.labeler, minlength=len(votes.labelers))
    beta = np.ones_like(member) if beta is None else beta
    indifference = np.zeros_like(member) if indifference is None else indifference
    place = None if start is None else start.place
    width = tau if tau is not None else TAUS[0] if len(names) == 1 else FIRST_TAU if start is None else start.tau
    last = rounds if noise else 0
    for turn in range(last + 1):
        rows = _rows(votes, diff, member, beta, indifference)
        if sigma is None:
            alone = _rows(votes, diff, np.ones((len(member), 1)), beta[:, :1], indifference[:, :1])
            sigma, _ = _best(alone.scan_sigma(1.0 if start is None else start.sigma, place if len(names) == 1 else None))
        if tau is None and len(names) > 1 and turn in (0, last):
            width, place = _best(rows.scan(sigma, width, place))
        fit = rows.fit(sigma, width, place, tolerance if turn == last else SEARCH_TOLERANCE)
        place = fit.place
        model = Groups(names, member, phi, fit.weights[:-1].reshape(-1, phi.shape[1]), beta, indifference, cast, fit.log_nu,
                           float(fit.weights[-1]), sigma, width, fit.log_evidence, noise)
        if turn < last:
            beta, _, indifference = traits_of(votes, model)
    return model


def fit_groups(votes: Votes, *, index: Ints | None = None, names: tuple[str, ...] = EVERYBODY, phi: Floats | None = None,
               noise: bool = True, sigma: float | None = None, tau: float | None = None) -> Groups:
    """Shared scores and shrunken offsets of known groups, or one score for everybody where there is no `index`.

    `index` [A] is each labeler's group, -1 where it is not known; `names` [K] are the groups' names. With `noise` each
    labeler has a beta of their own, without it all have 1 (plain Davidson).
    """
    member = np.ones((len(votes.labelers), 1)) if index is None else one_hot(index, len(names))
    return fit_membership(votes, member, names, phi=features(votes, phi), noise=noise, sigma=sigma, tau=tau)


@dataclass(frozen=True)
class Posterior:
    """Draws of each group's scores, averaged over how large differences may be (τ)."""

    model: Groups
    draws: Floats
    """[S, K, I] scores, 0 on average over the items of a prompt: only differences within a prompt were ever judged."""
    log_nu: Floats
    """[S]"""
    beta: Floats
    """[S, A] rationality of each labeler in that draw. Only its product with differences of scores has a meaning."""
    indifference: Floats
    """[S, A] how much more readily than others each labeler ties in that draw."""
    same: int
    """How many draws, the last, are from the chain that knows no difference between groups."""
    no_difference: float
    """Posterior probability of τ ≈ 0, all values of τ being equally likely before."""

    def worth(self, figure: Floats) -> float:
        """How many independent draws the chains' draws [S] of a figure are worth."""
        return sum(effective(part) for part in np.split(figure, [len(figure) - self.same]) if len(part))

    def gap(self, g: int, h: int) -> Floats:
        """[S, I] how much higher group g puts each item than group h does."""
        return np.asarray(self.draws[:, g] - self.draws[:, h])


def posterior(votes: Votes, model: Groups, *, draws: int = 400, seed: int = 0, watch: Shown = silent) -> Posterior:
    """Draws of scores, rationalities and their spreads together, by Markov chain (`chain.py`). Memberships are held fixed.

    Each draw comes from one of two chains: with a free τ, or with τ held at the least (no difference between groups). How
    many come from the second is drawn by the evidence, because a chain with a free τ hardly ever gets down to 0.
    """
    rng = np.random.default_rng(seed)
    data, labeler, group = _evidence(votes, model)
    rows = _rows(votes, differences(votes, model.phi), model.membership, model.beta, model.indifference)
    peaks = rows.scan(model.sigma, model.tau, model.place) if len(model.names) > 1 else {TAUS[0]: (0.0, model.place)}
    all_of_it = np.logaddexp.reduce([evidence for evidence, _ in peaks.values()])
    none = float(np.exp(peaks[TAUS[0]][0] - all_of_it)) if TAUS[0] in peaks else LEAST_CHANCE
    same = int(rng.binomial(draws, none))
    best = max((t for t in peaks if t > TAUS[0]), key=lambda t: peaks[t][0], default=TAUS[0])
    parts, ties, traits = [], [], []
    with watch("drawing scores and rationalities", draws) as advance:
        for count, free in ((draws - same, True), (same, False)):
            if not count:
                continue
            tau = best if free else TAUS[0]
            fit = rows.fit(model.sigma, tau, peaks[tau][1])
            state = State(fit.weights.copy(), fit.log_nu, model.beta[labeler, group], model.indifference[labeler, group],
                          tau, model.sigma)
            chain = Chain(data, state, fit.curve, rng, noise=model.noise, free_tau=free)
            chain.warm(WARM_UP_SWEEPS)
            for _ in range(count):
                for _ in range(SWEEPS_PER_DRAW):
                    chain.sweep()
                parts.append(_scores(model.phi, state.w[:-1].reshape(-1, model.phi.shape[1])))
                ties.append(state.log_nu if chain.ties else -np.inf)
                own = np.stack([model.beta, model.indifference])
                own[:, labeler, group] = state.beta, state.indifference
                traits.append((own * model.membership).sum(2))
                advance(1)
    beta, indifference = np.stack(traits, 1)
    return Posterior(model, centred(np.stack(parts), votes.prompt), np.array(ties), beta, indifference, same, none)


def _evidence(votes: Votes, model: Groups) -> tuple[Evidence, Ints, Ints]:
    """The votes as the chain reads them, and labeler and group of every couple [J]."""
    k, diff = len(model.names), differences(votes, model.phi)
    blocks, rows, group = [], [], []
    for g in range(k):
        part = np.flatnonzero(model.membership[votes.labeler, g] > LEAST_MEMBERSHIP)
        empty = sparse.csr_matrix((len(part), diff.shape[1]))
        blocks.append(sparse.hstack([diff[part], *([diff[part] if h == g else empty for h in range(k)] if k > 1 else [])]))
        rows.append(part)
        group.append(np.full(len(part), g))
    row, of = np.concatenate(rows), np.concatenate(group)
    code, pair = np.unique(of * len(votes.labelers) + votes.labeler[row], return_inverse=True)
    table = sparse.vstack(blocks).tocsr()
    data = Evidence(table, table.T.tocsr(), votes.first[row].astype(np.float64), votes.won[row],
                    model.membership[votes.labeler[row], of], pair, code // len(votes.labelers), k)
    return data, code % len(votes.labelers), code // len(votes.labelers)


def centred(scores: Floats, prompt: Ints) -> Floats:
    """[..., I] less the mean over each prompt's items."""
    sizes = np.bincount(prompt)
    mix = sparse.csr_matrix((1 / sizes[prompt], (prompt, np.arange(len(prompt)))))
    flat = scores.reshape(-1, scores.shape[-1])
    return np.asarray(flat - (mix @ flat.T).T[:, prompt]).reshape(scores.shape)
