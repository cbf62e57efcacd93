"""Agreement over couples of votes, and of a judge with people: the part of `harken agreement` that MT-bench's figures are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harken.core.errors import UserError

TITLES = {"with_ties": "ties counted (setup 1)", "without_ties": "ties left out (setup 2)"}


def by_couples(judgments: Any) -> dict[str, Any]:
    """Among people: {"with_ties", "without_ties"}, each over couples and over items, None where no item has two people; and how
    many items are one text given twice."""
    from harken.labelers.votes import votes_of
    from harken.stats.couples import couples
    votes = votes_of(judgments)
    items, values = _oriented(votes)
    prompts = votes.prompt[votes.a].tolist()
    figures: dict[str, Any] = {"merged_texts": _merged(judgments)}
    for key, ties in (("with_ties", "count"), ("without_ties", "drop")):
        try:
            figures[key] = couples(items, votes.labeler.tolist(), values, ties="drop" if ties == "drop" else "count",
                                 clusters=prompts).to_json()
        except ValueError:
            figures[key] = None
    return figures


def by_judge(judgments: Any, judge: str, name: str) -> dict[str, Any]:
    """A judge against each vote of people. Its verdicts on one pair are joined: where they differ, with the order or without, it
    ties. Raises UserError where the judge, or people, judged nothing, or nothing in common."""
    from harken.labelers.votes import votes_of
    from harken.stats.couples import judge_agreement, three_way
    votes = votes_of(judgments)
    if judge not in votes.labelers:
        raise UserError(f"{name}: nobody is called {judge!r}.", f"The labelers are {', '.join(votes.labelers[:8])}.")
    items, values = _oriented(votes)
    who = votes.labelers.index(judge)
    verdicts: dict[Any, int] = {}
    changed, twice = set(), set()
    for item, value, labeler in zip(items, values, votes.labeler):
        if labeler == who:
            if item in verdicts:
                twice.add(item)
                if verdicts[item] != value:
                    changed.add(item)
            verdicts[item] = value
    verdicts.update(dict.fromkeys(changed, 0))
    prompts = votes.prompt[votes.a].tolist()
    shared = [(i, v, p) for i, v, p, labeler in zip(items, values, prompts, votes.labeler) if labeler != who and i in verdicts]
    if not shared:
        raise UserError(f"{name}: {judge} and people judged no pair in common.", "Let the judge answer what people answered.")
    figures: dict[str, Any] = {"name": judge, "verdicts": len(verdicts), "asked_twice": len(twice), "inconsistent": len(changed)}
    pairs, said_so, of_prompt = (list(column) for column in zip(*shared))
    for key, ties in (("with_ties", "count"), ("without_ties", "drop")):
        try:
            figures[key] = judge_agreement(verdicts, pairs, said_so, ties="drop" if ties == "drop" else "count",
                                         clusters=of_prompt).to_json()
        except ValueError:
            figures[key] = None
    figures["three_way"] = three_way([verdicts[i] for i in pairs], said_so, of_prompt).to_json()
    return figures


def _oriented(votes: Any) -> tuple[list[tuple[int, int]], list[int]]:
    """Pairs of items in one order, and each vote turned to it."""
    pairs = zip(votes.a.tolist(), votes.b.tolist(), votes.won.tolist())
    turned = [((a, b), w) if a < b else ((b, a), -w) for a, b, w in pairs]
    return [pair for pair, _ in turned], [w for _, w in turned]


def _merged(judgments: Any) -> int:
    """Judgments in which one text stands twice: its places are one item here, whoever wrote them."""
    count = 0
    for one in judgments:
        choice = one.choice() if hasattr(one, "choice") else one
        count += choice is not None and len(set(choice.options)) < len(choice.options)
    return count


def lines(extra: Mapping[str, Any]) -> list[str]:
    """For a terminal."""
    text: list[str] = []
    for key, title in (("couples", "people with people, couples of votes on one pair"), ("judge", "")):
        figures = extra.get(key)
        if not figures or not (figures.get("with_ties") or figures.get("without_ties")):
            continue
        if key == "judge":
            twice = f"; {figures['inconsistent']:,} of {figures['asked_twice']:,} asked twice changed, and tie"
            title = f"{figures['name']} with people ({figures['verdicts']:,} verdicts{twice if figures['asked_twice'] else ''})"
        text += ["", f"{title:50} over couples        over items  chance  couples"]
        for name, label in TITLES.items():
            if c := figures.get(name):
                o, i = c["over_couples"], c["over_items"]
                text.append(f"  {label:30} {o['value']:.3f} [{o['low']:.3f}, {o['high']:.3f}], SE {c['standard_error']:.3f}"
                            f"   {i['value']:.3f}   {c['chance']:.3f}  {c['couples']:,}")
        if key == "judge":
            t = figures["three_way"]["accuracy"]
            text.append(f"  three ways (A, tie, B)         {t['value']:.3f} [{t['low']:.3f}, {t['high']:.3f}]")
    merged = extra.get("couples", {}).get("merged_texts", 0)
    if merged:
        text.append(f"\n  {merged:,} judgments hold one text twice: it is one item here, whoever wrote it.")
    return text
