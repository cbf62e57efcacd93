"""Brigades among the people who judged, and weights under which no account, address or campaign moves the reward far.

    found = fit_campaigns(choices, account={"u7": "acme"}, address={"u7": "192.0.2.1"})
    found.flagged                     # names of people in campaigns
    found.weight_of["u7"]             # 1 for nearly everybody
    found.bound                       # log-odds: leaving out any one unit moves no answer's score further
    train_on(found.weigh(choices))    # the same choices with `weight`

A campaign is a set of people whose votes lean the same way beyond what quality and independent tastes explain
(`harken.labelers.campaigns.scan`): on the same answers, and, as users of a chat each see other answers, in the answers' words and
plain features. It counts as one person: each of its m members weighs 1 / m. Then the weight of every unit
(account, address, campaign) is lowered until the proven bound (`harken.labelers.campaigns.weighted`) on what leaving it out can
change is at most `limit`. Nobody is deleted. A group with other values looks like a campaign to any such test: whoever is
flagged is to be looked at, and a set of more than a quarter of the people is taken for a group.

Shape suffixes: `N` votes, `I` items, `A` labelers, `D` features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harken.core.errors import UserError
from harken.core.records import Choice, Judgment
from harken.labelers.asking.features import TextFeatures
from harken.labelers.campaigns.scan import search
from harken.labelers.campaigns.weighted import Weighted
from harken.labelers.models.likelihood import Floats, Ints
from harken.labelers.votes import UNNAMED, Votes, votes_of

WIDE = 3.0
"""Prior standard deviation of scores where campaigns are looked for: a narrow one leaves a misfit that all share."""
TIMES = 3.0
"""The default limit, in what leaving out the median account moves."""
ROUNDS = 60
MOST = 5
TEXT_FEATURES = 16


@dataclass(frozen=True)
class Campaign:
    """People whose votes are correlated beyond what quality explains."""

    members: tuple[str, ...]
    votes: int
    gain: float
    """Log-likelihood gained over independent people."""
    p: float


@dataclass(frozen=True)
class Unit:
    """Votes that may have one will behind them. `after`: with the weights found, no score moves by more log-odds when they are
    left out. `before`: the same bound with everybody's weight 1; measured, by leaving them out, where the weight was lowered."""

    kind: str
    name: str
    people: tuple[str, ...]
    votes: int
    weight: float
    """Mean over its people."""
    before: float
    after: float


@dataclass(frozen=True)
class Campaigns:
    """What was found. `scores` [I] are the reward of the items of `votes` under the weights, mean 0 under the prior."""

    campaigns: tuple[Campaign, ...]
    weight_of: Mapping[str, float]
    limit: float
    bound: float
    """Log-odds: leaving out any one account, address or campaign moves no answer's score by more. Proven."""
    unweighted: float
    """The largest `before` of a unit."""
    units: tuple[Unit, ...]
    scores: Floats
    votes: int
    notes: tuple[str, ...]

    @property
    def flagged(self) -> tuple[str, ...]:
        return tuple(name for campaign in self.campaigns for name in campaign.members)

    def weigh(self, choices: Iterable[Choice]) -> list[Choice]:
        """The choices with their labelers' weights (times a weight they had)."""
        result = []
        for choice in choices:
            weight = self.weight_of.get(choice.labeler or UNNAMED, 1.0)
            own = 1.0 if choice.weight is None else choice.weight
            result.append(choice if weight == 1.0 else dataclasses.replace(choice, weight=own * weight))
        return result

    def rows(self) -> list[dict[str, Any]]:
        """For a report: each unit whose weight was lowered, the furthest first."""
        cut = [u for u in self.units if u.weight < 0.995]
        return [dataclasses.asdict(u) for u in sorted(cut, key=lambda u: -u.before)]

    def to_json(self) -> dict[str, Any]:
        return {"campaigns": [dataclasses.asdict(c) for c in self.campaigns], "flagged": list(self.flagged), "limit": self.limit,
                "bound": self.bound, "bound_unweighted": self.unweighted, "votes": self.votes, "units": self.rows(),
                "weights": {name: w for name, w in self.weight_of.items() if w < 0.995}, "notes": list(self.notes)}

    def describe(self) -> list[str]:
        """Lines for a person."""
        lines = [f"Campaign of {len(c.members)}: {', '.join(c.members[:8])}{' …' if len(c.members) > 8 else ''} "
                 f"({c.votes:,} votes, log-likelihood {c.gain:.1f} above independent people's, p ≤ {c.p:.3g}). "
                 "They count as one person." for c in self.campaigns]
        lines = lines or ["No campaign: nobody's votes are correlated beyond what quality explains."]
        lines.append(f"Leaving out any one account, address or campaign moves no answer's score by more than {self.bound:.2f} "
                     f"log-odds ({self.unweighted:.2f} if everybody weighed 1).")
        return lines + list(self.notes)


def fit_campaigns(judged: Votes | Iterable[Choice | Judgment], *, phi: Floats | None = None,
                  account: Mapping[str, str] | None = None, address: Mapping[str, str] | None = None,
                  limit: float | None = None, level: float = 0.05, least: int = 3, sigma: float = 1.0, draws: int = 99,
                  seed: int = 0) -> Campaigns:
    """Campaigns among the labelers of votes (or choices, or judgments), and everybody's weight.

    phi      [I, D] features of the votes' items: the reward is then Bradley–Terry on them and campaigns are looked for in them;
             without it scores are free, and campaigns are looked for in them and in features of the text (`TextFeatures`)
    account  whose account a labeler's is; without it each labeler is one
    address  where a labeler's votes came from
    limit    log-odds that leaving out one unit may move a score by; None: three times the median account's
    level    chance at which an honest crowd may show a campaign
    least    smallest campaign that is looked for
    sigma    prior standard deviation of scores, in log-odds
    draws    of the bootstrap; 0 looks for no campaigns

    Raises UserError where nothing is compared, ValueError for a setting that cannot be.
    """
    votes = judged if isinstance(judged, Votes) else votes_of(judged)
    if not len(votes):
        raise UserError("There are no comparisons to audit.", "Give rankings of at least two different completions.")
    _check(votes, phi, limit, level, least, sigma, draws)
    found, notes = _search(votes, phi, level, least, draws, seed)
    weight = np.ones(len(votes.labelers))
    for campaign in found:
        weight[campaign.index] = 1 / len(campaign.index)
    _cap_unnamed(votes, weight)
    units = _units(votes, found, account or {}, address or {})
    reward = Weighted(votes, phi, sigma)
    x = reward.fit_ties(np.ones(len(votes)))
    rows = [np.flatnonzero(np.isin(votes.labeler, members)) for _, _, members in units]
    before = reward.moves(x, np.ones(len(votes)), rows)
    alike = x
    if limit is None:
        alone = [m for (kind, _, _), m in zip(units, before) if kind == "account" and m > 0]
        limit = TIMES * float(np.median(alone)) if alone else TIMES * float(before.max(initial=1.0))
    x, after = _cap(reward, x, weight, rows, [members for _, _, members in units], limit)
    for unit, (_, _, members) in enumerate(units):
        if weight[members].min() < 1:  # what a careful person wants to know of these is what they did, not a bound on it
            before[unit] = _removed(reward, alike, rows[unit])
    table = tuple(Unit(kind, name, tuple(votes.labelers[k] for k in members), len(own), float(weight[members].mean()), float(b),
                       float(c)) for (kind, name, members), own, b, c in zip(units, rows, before, after))
    named = tuple(Campaign(tuple(votes.labelers[k] for k in f.index), int(np.isin(votes.labeler, f.index).sum()), f.gain, f.p)
                  for f in found)
    return Campaigns(named, {name: float(w) for name, w in zip(votes.labelers, weight)}, limit, float(after.max()),
                     float(before.max()), table, reward.scores(x), len(votes), tuple(notes))


def _removed(reward: Weighted, x: Floats, own: Ints) -> float:
    """The largest change of a score when these votes are left out, everybody else weighing 1."""
    weight = np.ones(len(reward.votes))
    weight[own] = 0
    return float(np.abs(reward.scores(reward.solve(weight, x)) - reward.scores(x)).max())


def _cap_unnamed(votes: Votes, weight: Floats) -> None:
    """Votes without a name are one labeler, of at most `TIMES` the median one's votes: nobody knows how many they are."""
    cast = np.bincount(votes.labeler, minlength=len(votes.labelers))
    if UNNAMED in votes.labelers and len(named := cast[(cast > 0) & (np.array(votes.labelers) != UNNAMED)]):
        k = votes.labelers.index(UNNAMED)
        weight[k] = min(weight[k], TIMES * float(np.median(named)) / max(cast[k], 1))


@dataclass(frozen=True)
class _Found:
    index: Ints
    gain: float
    p: float


def _check(votes: Votes, phi: Floats | None, limit: float | None, level: float, least: int, sigma: float, draws: int) -> None:
    if phi is not None and (np.ndim(phi) != 2 or len(phi) != len(votes.items) or not np.isfinite(phi).all()):
        raise ValueError(f"phi must be finite, a row for each of {len(votes.items)} items; found shape {np.shape(phi)}")
    if limit is not None and not 0 < limit < np.inf:
        raise ValueError(f"limit must be a number above 0, found {limit}")
    if not 0 < level < 1 or not 0 < sigma < np.inf or least < 2 or draws < 0:
        raise ValueError(f"level must lie between 0 and 1, sigma above 0, least be 2 or more, draws 0 or more; "
                         f"found {level}, {sigma}, {least}, {draws}")


def _search(votes: Votes, phi: Floats | None, level: float, least: int, draws: int, seed: int) -> tuple[list[_Found], list[str]]:
    """Campaigns, the surest first: each is taken out of the fit before the next is looked for."""
    found: list[_Found] = []
    people = int((np.bincount(votes.labeler, minlength=len(votes.labelers)) > 0).sum())
    if draws and people < 3 * least:
        return found, [f"{people} people are too few to tell a campaign of {least} from agreement."]
    weight = np.ones(len(votes.labelers))
    spaces = [phi] if phi is not None else [None, _of_texts(votes)]
    fits = [Weighted(votes, space, WIDE, place=bool(votes.first.any())) for space in spaces]
    for turn in range(MOST if draws else 0):
        skip = np.concatenate([f.index for f in found]) if found else np.zeros(0, dtype=np.int64)
        for fit in fits:
            campaign = search(fit, weight, skip, least, level / len(fits), draws, seed + turn)
            if campaign is not None:
                break
        if campaign is None:
            break
        found.append(_Found(campaign.members, campaign.gain, min(1.0, campaign.p * len(fits))))
        weight[campaign.members] = 0
    return found, []


def _of_texts(votes: Votes) -> Floats:
    """[I, D] what the answers' words tell, within prompts."""
    prompts, texts = [p for p, _ in votes.items], [text for _, text in votes.items]
    return TextFeatures.fit(prompts, texts, TEXT_FEATURES).of(prompts, texts)


def _units(votes: Votes, found: Sequence[_Found], account: Mapping[str, str],
           address: Mapping[str, str]) -> list[tuple[str, str, Ints]]:
    """(kind, name, labelers) of each account, each address, each campaign."""
    cast = set(np.unique(votes.labeler).tolist())
    units: dict[tuple[str, str], list[int]] = {}
    for k, name in enumerate(votes.labelers):
        if k in cast:
            units.setdefault(("account", account.get(name, name)), []).append(k)
            if name in address:
                units.setdefault(("address", address[name]), []).append(k)
    result = [(kind, name, np.array(members)) for (kind, name), members in units.items()]
    return result + [("campaign", str(n), f.index) for n, f in enumerate(found, 1)]


def _cap(reward: Weighted, x: Floats, weight: Floats, rows: Sequence[Ints], people: Sequence[Ints],
         limit: float) -> tuple[Floats, Floats]:
    """Lowers `weight` [A] in place until no unit's bound exceeds the limit; returns the mode and the bounds [U] then."""
    who = reward.votes.labeler
    for _ in range(ROUNDS):
        x = reward.solve(weight[who], x)
        after = reward.moves(x, weight[who], rows)
        if after.max() <= limit:
            break
        factor = np.ones(len(weight))
        for unit in np.flatnonzero(after > limit).tolist():
            factor[people[unit]] = np.minimum(factor[people[unit]], 0.98 * limit / after[unit])
        weight *= factor
    return x, after
