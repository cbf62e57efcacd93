"""Which comparisons train: agreement and reliability of the people, campaigns, and nobody with more than a share of the say.

    audited = audit(choices, sources, {"campaigns": True, "most": 0.05}, seed=0)
    audited.kept                   # numbers of the comparisons that train
    audited.report                 # what a person reads before approving

A person's comparisons are thinned to the weight the audit leaves them: the methods then need no notion of weights. The draw is a
function of seed and judgment, so the same snapshot gives the same training set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harken.core.errors import UserError
from harken.core.records import Choice
from harken.core.seeds import derive_seed
from harken.labelers.agreement.summary import summary_of_comparisons
from harken.labelers.asking.features import PLAIN_FEATURES, TextFeatures
from harken.labelers.campaigns.audit import Campaigns, fit_campaigns
from harken.labelers.models.reliability import Reliability, fit_reliability
from harken.labelers.votes import UNNAMED, Votes, votes_of
from harken.launch.loop.collect import Source
from harken.launch.loop.worth import more_labels

SETTINGS = {"campaigns": True, "level": 0.05, "draws": 99, "most": 0.05, "reversed": 0.99, "dimensions": 32}
"""`campaigns` finds and bounds them (labelers.campaigns; `level` is the chance that an honest crowd shows one, `draws` its
bootstrap); `most` is one person's share of the comparisons (at least 3 / people); `reversed` is how sure the data must be that
somebody answers upside down to be left out (2: nobody is); `dimensions` describe an answer's words."""
BOUNDS = {"level": (0.001, 0.5), "draws": (0, 10_000), "most": (0.001, 1.0), "reversed": (0.5, 2.0),
          "dimensions": (len(PLAIN_FEATURES) + 1, 1000)}
MORE = 200
"""Labels whose worth is told."""
LOWERED = 0.5
"""A weight from which down an account is named."""
SHARED = 0.25
"""An account or address that more of the people share is a front end of many, not one will."""
FEWEST = 20
"""Votes below which nobody is called anything."""


@dataclass(frozen=True)
class Audited:
    kept: tuple[int, ...]
    report: dict[str, Any]


def audit(choices: Sequence[Choice], sources: Sequence[Source], settings: Mapping[str, Any], seed: int = 0) -> Audited:
    """Raises `UserError` for a setting that is none, and where nothing is left to train on."""
    if unknown := settings.keys() - SETTINGS.keys():
        raise UserError(f"The audit has no setting {min(unknown)!r}.", f"Settings: {', '.join(SETTINGS)}.")
    chosen = {**SETTINGS, **settings}
    votes = votes_of(choices)
    report: dict[str, Any] = {"comparisons": len(choices), "people": len({c.labeler for c in choices if c.labeler}),
                              "unnamed": sum(c.labeler is None for c in choices), "agreement": _agreement(choices)}
    weight: dict[str, float] = {}
    if len(votes):
        phi = _features(votes, int(chosen["dimensions"]))
        fit = fit_reliability(votes, phi=phi)
        report["reliability"] = _people(votes, fit)
        report["more_labels"] = more_labels(votes, fit, phi, _groups(choices), MORE)
        if chosen["campaigns"]:
            (account, address), notes = _shared(choices, sources)
            found = fit_campaigns(votes, phi=phi, account=account, address=address, level=float(chosen["level"]),
                                  draws=int(chosen["draws"]), seed=seed)
            weight = dict(found.weight_of)
            report |= {"campaigns": found.to_json(), "bound": found.bound, "notes": [*found.notes, *notes]}
        report["set_aside"] = _named(found) if chosen["campaigns"] else []
        for name, why in _reversed(votes, fit, float(chosen["reversed"])):
            report["set_aside"].append({"people": [name], "why": why})
            weight[name] = 0.0
    kept = _thinned(choices, sources, weight, float(chosen["most"]), seed)
    report["kept"], report["left_out"] = len(kept), len(choices) - len(kept)
    report["weights"] = {name: w for name, w in sorted(weight.items()) if w < 1}
    if not kept:
        raise UserError("The audit leaves no comparison to train on.", "Read its report; collect from more people.")
    return Audited(tuple(kept), report)


def _shared(choices: Sequence[Choice], sources: Sequence[Source]) -> tuple[list[dict[str, str]], list[str]]:
    """Whose account and address each labeler's votes came from (a key's for NAME/USER; the address most of them came from), but
    for those of more than `SHARED` of the people; and what is to be said of these."""
    people = {c.labeler for c in choices if c.labeler}
    accounts = {name: name.split("/", 1)[0] for name in people if "/" in name}
    came: dict[str, Counter[str]] = {}
    for choice, source in zip(choices, sources):
        if choice.labeler and source.address:
            came.setdefault(choice.labeler, Counter())[source.address] += 1
    addresses = {name: min(counts, key=lambda a: (-counts[a], a)) for name, counts in came.items()}
    kept, notes = [], []
    for word, where in (("account", accounts), ("address", addresses)):
        many = {name: n for name, n in Counter(where.values()).items() if n > max(1, SHARED * len(people))}
        kept.append({person: name for person, name in where.items() if name not in many})
        notes += [f"{n} of {len(people)} people share one {word}{f' ({name})' if word == 'account' else ''}: it is taken for a "
                  "front end and is not bounded as one." for name, n in sorted(many.items())]
    return kept, notes


def _named(found: Campaigns) -> list[dict[str, Any]]:
    """Campaigns, and accounts or addresses whose weight had to be at least halved to keep to the bound."""
    named = [{"people": list(c.members), "why": f"their {c.votes} votes lean one way beyond what quality explains (p {c.p:.3f}): "
              "they count as one person"} for c in found.campaigns]
    known = set(found.flagged)
    for unit in found.units:
        if unit.kind != "campaign" and unit.weight <= LOWERED and not known & set(unit.people):
            known |= set(unit.people)
            named.append({"people": list(unit.people), "why": f"leaving out their {unit.votes} votes moves an answer by "
                          f"{unit.before:.2f} log-odds: their weight is {unit.weight:.2f}"})
    return named


def _features(votes: Votes, dimensions: int) -> Any:
    """Answers are described by features of their words: served answers are seldom judged twice, and what one person liked in one
    answer must say something of another."""
    prompts, texts = [p for p, _ in votes.items], [t for _, t in votes.items]
    return TextFeatures.fit(prompts, texts, dimensions).of(prompts, texts)


def _groups(choices: Sequence[Choice]) -> dict[int, str]:
    """Use case by the number that `votes_of` gives a prompt: its place in order of appearance."""
    numbers: dict[str, int] = {}
    return {numbers.setdefault(c.prompt.id, len(numbers)): c.prompt.use_case or "no use case named" for c in choices}


def _people(votes: Votes, fit: Reliability) -> list[dict[str, Any]]:
    rows = [{"name": votes.labelers[k], "votes": int((votes.labeler == k).sum()), "beta": float(fit.beta[k]),
             "low": float(fit.beta_low[k]), "high": float(fit.beta_high[k]), "reversed": float(fit.reversed[k])}
            for k in np.unique(votes.labeler).tolist()]
    return sorted(rows, key=lambda r: float(str(r["beta"])))


def _reversed(votes: Votes, fit: Reliability, sure: float) -> list[tuple[str, str]]:
    cast = np.bincount(votes.labeler, minlength=len(votes.labelers))
    return [(votes.labelers[k], f"answers upside down (P {fit.reversed[k]:.3f})") for k in range(len(votes.labelers))
            if cast[k] >= FEWEST and fit.reversed[k] >= sure]


def _agreement(choices: Sequence[Choice]) -> dict[str, Any]:
    """How often two people who judged the same pair said the same; nothing where no pair was judged twice."""
    try:
        summary = summary_of_comparisons(choices, draws=200)
    except ValueError as error:
        return {"why": str(error)}
    return {name: a.to_json() for name, a in summary.measures.items() if a is not None}


def _thinned(choices: Sequence[Choice], sources: Sequence[Source], weight: Mapping[str, float], most: float,
             seed: int) -> list[int]:
    """Comparisons that stay: each with the chance that its person's weight says, then nobody above `most` of them all."""
    names = [c.labeler or UNNAMED for c in choices]
    draw = [derive_seed(seed, "thin", s.judgments) / 2**63 for s in sources]
    kept = [i for i, name in enumerate(names) if draw[i] < weight.get(name, 1.0)]
    limit = _cap(Counter(names[i] for i in kept), most)
    taken: Counter[str] = Counter()
    stay = []
    for i in sorted(kept, key=lambda i: derive_seed(seed, "cap", sources[i].judgments)):
        taken[names[i]] += 1
        if taken[names[i]] <= limit:
            stay.append(i)
    return sorted(stay)


def _cap(counts: Mapping[str, int], most: float) -> int:
    """The most comparisons of one person so that nobody gives more than the share `most` of what stays; with few people at
    least three times an equal part, so that a small team keeps its work."""
    if not counts:
        return 0
    share = max(most, 3 / len(counts))
    limit = max(counts.values())
    while limit > 1 and limit > share * sum(min(n, limit) for n in counts.values()):
        limit -= max(1, limit // 50)
    return max(1, limit)
