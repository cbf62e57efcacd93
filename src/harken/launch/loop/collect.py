"""Judgments for a turn: all that stand, which of them are new, and what they say about preference.

    gathered = gather(recipe, last)          # reads; writes nothing
    write(gathered, folder)                  # comparisons, their sources, prompts, demonstrations, judgments by number

`last` is the highest judgment by database that an earlier turn saw. Comparisons are rankings, preferences and edits as they
are, and pairs of thumbs: of one person's thumbs on answers to one prompt, each with a thumb up beats each with a thumb down.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import RowMapping, insert, select

from harken.core.files import file_hash
from harken.core.records import Choice, Demonstration, Judgment, Prompt
from harken.launch.loop.recipe import Recipe
from harken.store.database import Database, for_purpose, open_database
from harken.store.files import read_prompts, write_jsonl
from harken.store.masking import Masker
from harken.store.studio_schema import snapshots

Number = tuple[int, int]
"""A judgment: its database's place in the recipe, and its number there."""


@dataclass(frozen=True)
class Source:
    """Where a comparison came from; `at` is when its last judgment arrived, `models` who gave the answers, `address` a code of
    the network address it came from, where one is known."""

    judgments: tuple[Number, ...]
    at: str
    seconds: float | None = None
    order: tuple[int, ...] | None = None
    models: tuple[str, ...] = ()
    address: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"judgments": [list(n) for n in self.judgments], "at": self.at, "seconds": self.seconds,
                "order": list(self.order) if self.order is not None else None, "models": list(self.models),
                "address": self.address}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Source:
        order = row["order"]
        return cls(tuple((int(a), int(b)) for a, b in row["judgments"]), row["at"], row["seconds"],
                   None if order is None else tuple(order), tuple(row["models"]), row.get("address", ""))


@dataclass
class Gathered:
    """`new` counts the comparisons with a judgment after `last`; `kept_apart` those on prompts that the verification asks.
    `masker` took personal data out of what people said while using a model."""

    comparisons: list[Choice] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    demonstrations: list[Demonstration] = field(default_factory=list)
    prompts: dict[str, Prompt] = field(default_factory=dict)
    judgments: list[dict[str, Any]] = field(default_factory=list)
    last: dict[str, int] = field(default_factory=dict)
    new: int = 0
    kept_apart: int = 0
    masker: Masker = field(default_factory=Masker)


def gather(recipe: Recipe, last: Mapping[str, int]) -> Gathered:
    """Everything said so far that a turn may learn from."""
    found = Gathered()
    asked = {p.id for p in read_prompts(recipe.verify.prompts).records} if Path(recipe.verify.prompts).is_file() else set()
    for place, name in enumerate(recipe.db):
        with open_database(name, create=False) as db:
            _read(db, place, name, last.get(name, 0), asked, found, recipe.collect.use == "new")
    return found


def _read(db: Database, place: int, name: str, last: int, asked: set[str], found: Gathered, only_new: bool) -> None:
    thumbs: dict[tuple[str, str], list[tuple[Judgment, RowMapping]]] = defaultdict(list)
    highest = last
    for judgment, row in db.answered([for_purpose("train")]):
        highest = max(highest, row["seq"])
        if judgment.prompt.id in asked:
            found.kept_apart += 1
            continue
        found.judgments.append(_about(judgment, row, place))
        judgment = found.masker(judgment)
        fresh = row["seq"] > last
        found.prompts.setdefault(judgment.prompt.id, judgment.prompt)
        if judgment.kind == "thumb" and judgment.labeler is not None:
            thumbs[judgment.prompt.id, judgment.labeler].append((judgment, row))
        if only_new and not fresh:
            continue
        if shown := judgment.demonstration():
            found.demonstrations.append(shown)
        if choice := judgment.choice():
            found.comparisons.append(choice)
            found.sources.append(Source(((place, row["seq"]),), row["created_at"], judgment.seconds, judgment.order,
                                        _models(judgment), _address(judgment)))
            found.new += fresh
    for choice, source in _thumb_pairs(thumbs.values(), place):
        fresh = max(n for _, n in source.judgments) > last
        if fresh or not only_new:
            found.comparisons.append(choice)
            found.sources.append(source)
            found.new += fresh
    found.last[name] = highest


def _about(judgment: Judgment, row: RowMapping, place: int) -> dict[str, Any]:
    return {"db": place, "number": row["seq"], "labeler": judgment.labeler, "kind": judgment.kind, "at": row["created_at"],
            "content": row["content"], "prompt": judgment.prompt.id, "use_case": judgment.prompt.use_case,
            "models": list(_models(judgment)), "answers": _answers(judgment)}


def _served(judgment: Judgment) -> list[Mapping[str, Any]]:
    served = judgment.payload.get("served") or []
    return [s for s in (served if isinstance(served, list) else [served]) if isinstance(s, Mapping)]


def _models(judgment: Judgment) -> tuple[str, ...]:
    return tuple(str(s["model"]) for s in _served(judgment) if s.get("model"))


def _address(judgment: Judgment) -> str:
    return str(judgment.payload.get("address") or "")


def _answers(judgment: Judgment) -> list[str]:
    return [str(s["answer"]) for s in _served(judgment) if s.get("answer")]


def _thumb_pairs(groups: Iterable[list[tuple[Judgment, RowMapping]]], place: int) -> Iterable[tuple[Choice, Source]]:
    for group in groups:
        up = [(j, r) for j, r in group if j.payload["label"]]
        down = [(j, r) for j, r in group if not j.payload["label"]]
        for good, one in up:
            for bad, other in down:
                texts = (str(good.payload["completion"]), str(bad.payload["completion"]))
                if texts[0] != texts[1]:
                    numbers = tuple(sorted(((place, one["seq"]), (place, other["seq"]))))
                    yield (Choice(good.prompt, texts, (1, 2), good.labeler, dict(good.group), "thumb"),
                           Source(numbers, max(one["created_at"], other["created_at"]), None, None,
                                  _models(good) + _models(bad), _address(good)))


def write(found: Gathered, folder: Path) -> dict[str, Any]:
    """The snapshot's files, and what is said of them."""
    write_jsonl(folder / "comparisons.jsonl", (c.to_json() for c in found.comparisons))
    write_jsonl(folder / "sources.jsonl", (s.to_json() for s in found.sources))
    write_jsonl(folder / "demonstrations.jsonl", (d.to_json() for d in found.demonstrations))
    write_jsonl(folder / "prompts.jsonl", (p.to_json() for p in found.prompts.values()))
    write_jsonl(folder / "judgments.jsonl", found.judgments)
    kinds: dict[str, int] = defaultdict(int)
    for row in found.judgments:
        kinds[row["kind"]] += 1
    return {"comparisons": len(found.comparisons), "new": found.new, "demonstrations": len(found.demonstrations),
            "prompts": len(found.prompts), "judgments": len(found.judgments), "kinds": dict(kinds), "last": found.last,
            "labelers": len({row["labeler"] for row in found.judgments if row["labeler"]}), "kept_apart": found.kept_apart,
            "masked": found.masker.report()}


def remember(recipe: Recipe, file: Path, name: Path, labelers: Iterable[str]) -> None:
    """Tells each database whose judgments a file holds, so that a withdrawal finds the runs that learnt from it."""
    row = {"sha256": file_hash(file), "kind": "comparisons", "name": str(name), "labelers": sorted(set(labelers)),
           "rows": sum(1 for line in file.read_bytes().split(b"\n") if line), "project_id": None,
           "created_at": datetime.now(UTC).isoformat(timespec="milliseconds")}
    same = (snapshots.c.sha256 == row["sha256"]) & (snapshots.c.name == row["name"])
    for address in recipe.db:
        with open_database(address, create=False) as db, db.link.writing() as tx:
            if tx.execute(select(snapshots.c.id).where(same)).first() is None:
                tx.execute(insert(snapshots), row)
