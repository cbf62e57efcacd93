"""Both ways through a loop: which judgments made these weights, and which weights a judgment touched.

    print(of_run(Path("loops/help/turns/0002/policy/run")).text())
    print(of_judgment(recipe, "118").text())
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from harken.core.errors import UserError
from harken.core.files import file_hash, read_json, read_jsonl
from harken.launch.card import steps_of
from harken.launch.loop.drive import name_of
from harken.launch.loop.recipe import Recipe
from harken.launch.loop.turns import Loop, Turn
from harken.store.database import open_database
from harken.store.schema import judgments
from harken.store.serve_schema import feedback, served
from harken.store.studio_schema import retractions


@dataclass
class Node:
    """Something made, and what it was made from (or, going forward, what was made from it)."""

    words: str
    below: list[Node] = field(default_factory=list)

    def text(self, before: str = "", last: bool | None = None) -> str:
        head = self.words if last is None else f"{before}{'└─ ' if last else '├─ '}{self.words}"
        inner = before + ("" if last is None else "   " if last else "│  ")
        return "\n".join([head, *(n.text(inner, i == len(self.below) - 1) for i, n in enumerate(self.below))])

    def to_json(self) -> dict[str, Any]:
        return {"words": self.words, "below": [n.to_json() for n in self.below]}


def of_run(path: Path, recipe: Recipe | None = None) -> Node:
    """What a run's weights were made from: through the loop, where it is one of its turns; else by its chain of runs."""
    turn = turn_of(path)
    if turn is not None:
        return _turn(turn, recipe)
    if not (path / "lineage.json").is_file():
        raise UserError(f"{path} is no run, and no turn of a loop.", "Name a run's folder, or a folder of turns/.")
    return _chain(str(path))


def turn_of(path: Path) -> Turn | None:
    """The turn that a path lies in."""
    for folder in (path, *path.parents):
        if (folder / "turn.json").is_file() and folder.name.isdecimal():
            return Turn(folder)
    return None


def _chain(word: str) -> Node:
    """A model's runs, the last one first, each with its data and rewards."""
    if (turn := turn_of(Path(word))) is not None:
        return _turn(turn, None)
    steps, root = steps_of(word)
    if not steps:
        return Node(f"model {word}")
    step = steps[-1]
    node = Node(f"run {step.path}: {step.method}")
    for option, entry in step.lineage.items():
        if isinstance(entry, Mapping) and "sha256" in entry:
            node.below.append(Node(f"{option} {entry['path']}, sha256 {entry['sha256'][:12]}"))
        elif "reward" in option and entry:
            where = entry.get("run") if isinstance(entry, Mapping) else None
            node.below.append(_chain(str(where)) if where and (Path(str(where)) / "lineage.json").is_file()
                              else Node(f"{option} {json.dumps(entry, default=str)[:100]}"))
    node.below.append(_chain(str(steps[-2].path)) if len(steps) > 1 else Node(f"model {root}"))
    return node


def _turn(turn: Turn, recipe: Recipe | None) -> Node:
    weights = turn.path / "policy" / "run" / "model"
    files = [file_hash(p)[:12] for p in sorted(weights.glob("*.safetensors"))] if weights.is_dir() else []
    node = Node(f"weights of turn {turn.number}" + (f", sha256 {' '.join(files)}" if files else " (not made yet)"))
    if turn.has("approval"):
        said = turn.facts("approval")
        node.below.append(Node(f"{said['decision']} by {said['by']} ({said['how']}), {turn.step('approval')['at'][:16]}"))
    if turn.has("gate"):
        node.below.append(Node(f"gate: {turn.facts('gate')['verdict']}"))
    if turn.has("reward") and turn.facts("reward")["reward"]:
        node.below.append(Node(f"reward {turn.facts('reward')['reward']}"))
    if turn.has("audit"):
        said = turn.facts("audit")
        node.below.append(Node(f"audit: {said['train']} comparisons train, {said['held_out']} held out, {said['left_out']} left "
                               "out"))
    if turn.has("snapshot"):
        node.below.append(_judgments(turn))
    base = str(turn.begun["model"])
    node.below.append(_chain(base))
    return node


def _judgments(turn: Turn) -> Node:
    rows = read_jsonl(turn.path / "snapshot" / "judgments.jsonl")
    kinds = Counter(r["kind"] for r in rows)
    models = Counter(m for r in rows for m in r["models"]) or Counter({"answers made elsewhere": len(rows)})
    node = Node(f"{len(rows)} judgments by {len({r['labeler'] for r in rows})} people: "
                + ", ".join(f"{n} {k}" for k, n in kinds.most_common()))
    for place in sorted({r["db"] for r in rows}):
        node.below.append(Node(f"database {place}: numbers {ranges([r['number'] for r in rows if r['db'] == place])}"))
    node.below += [Node(f"{n} answers by {m}") for m, n in models.most_common()]
    return node


def ranges(numbers: Sequence[int]) -> str:
    """1–3, 7, 9–12"""
    parts: list[list[int]] = []
    for n in sorted(set(numbers)):
        if parts and n == parts[-1][1] + 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    shown = [f"{a}" if a == b else f"{a}–{b}" for a, b in parts]
    return ", ".join(shown[:40]) + (f" … ({len(shown) - 40} more)" if len(shown) > 40 else "")


def of_answer(recipe: Recipe, answer: str) -> Node:
    """Which judgments made the model that gave this answer, and what was said of it. Raises `UserError` for an answer that is
    not kept (any more)."""
    name = answer if "/" in answer else f"{answer}/0"
    for place, address in enumerate(recipe.db):
        with open_database(address, create=False) as db, db.link.reading() as tx:
            row = tx.execute(select(served).where(served.c.id == name)).first()
            said = [int(n) for n in tx.scalars(select(feedback.c.judgment_seq).where(feedback.c.served_id == name))]
        if row is not None:
            model = str(row.source.get("model"))
            node = Node(f"answer {name} by {model}, {row.created_at[:16]}")
            node.below.append(_model(recipe, model))
            node.below += [_forward(recipe, place, n) for n in said]
            return node
    raise UserError(f"No answer {name} is kept.", "An answer that nobody judged is deleted after --keep-hours.")


def _model(recipe: Recipe, name: str) -> Node:
    loop = Loop(recipe.out)
    for turn in loop.turns():
        if turn.name == name:
            return _turn(turn, recipe)
    return _chain(recipe.start) if name == name_of(0) else Node(f"model {name}, not of this loop")


def of_judgment(recipe: Recipe, word: str) -> Node:
    """What a judgment judged, and every turn that it touched."""
    place, number = _number(recipe, word)
    return _forward(recipe, place, number)


def _number(recipe: Recipe, word: str) -> tuple[int, int]:
    place, colon, number = word.rpartition(":")
    if not number.isdecimal() or (colon and not place.isdecimal()) or int(place or 0) >= len(recipe.db):
        raise UserError(f"{word!r} is no judgment's number.",
                        "Write 118, or DB:118 with the database's place in the recipe, from 0.")
    return int(place or 0), int(number)


def _forward(recipe: Recipe, place: int, number: int) -> Node:
    with open_database(recipe.db[place], create=False) as db, db.link.reading() as tx:
        row = tx.execute(select(judgments).where(judgments.c.seq == number)).first()
        gone = tx.execute(select(retractions).where(retractions.c.judgment_seq == number)).first()
    if row is None:
        raise UserError(f"{recipe.db[place]} has no judgment {number}.", "Check the number.")
    state = f", taken back ({gone.reason}) {gone.created_at[:16]}" if gone is not None else ""
    node = Node(f"judgment {number} ({row.kind}) by {row.labeler or 'nobody named'}, {row.created_at[:16]}{state}")
    loop = Loop(recipe.out)
    serving = serving_now(loop)
    for turn in loop.turns():
        if turn.has("snapshot") and (use := _use(turn, place, number)):
            node.below.append(_reached(loop, turn, use, serving))
    if not node.below:
        node.below.append(Node("no turn has learnt from it"))
    return node


def _reached(loop: Loop, turn: Turn, words: str, serving: set[int]) -> Node:
    """A turn, and the turns that trained on from it."""
    node = Node(f"turn {turn.number}: {words}" + _standing(turn, serving))
    node.below = [Node(f"turn {later.number} trained on from it" + _standing(later, serving))
                  for later in descendants(loop, turn)]
    return node


def _standing(turn: Turn, serving: set[int]) -> str:
    return "; its weights answer now" if turn.number in serving else ""


def serving_now(loop: Loop) -> set[int]:
    pointer = loop.pointer
    return {int(pointer["serving"])} | ({int(pointer["canary"]["turn"])} if pointer["canary"] else set())


def _use(turn: Turn, place: int, number: int) -> str:
    """How a turn used a judgment; empty where it did not."""
    if not any((r["db"], r["number"]) == (place, number) for r in read_jsonl(turn.path / "snapshot" / "judgments.jsonl")):
        return ""
    if not turn.has("audit"):
        return "it is in the snapshot; nothing has trained on it yet"
    for name, words in (("comparisons", "it trained the reward or the policy"), ("held_out", "it trained the judge")):
        if any([place, number] in r["judgments"] for r in _sources(turn, name)):
            return words
    compared = any([place, number] in r["judgments"] for r in read_jsonl(turn.path / "snapshot" / "sources.jsonl"))
    return "the audit left it out" if compared else "it compared nothing"


def _sources(turn: Turn, name: str) -> Iterator[Any]:
    yield from read_jsonl(turn.path / "audit" / f"{name}.sources.jsonl")


def descendants(loop: Loop, turn: Turn) -> list[Turn]:
    """Later turns whose policy began from this one's, or from one that did."""
    line = {turn.policy}
    found = []
    for later in loop.turns():
        if later.number > turn.number and later.has("policy") and later.facts("policy")["base"] in line:
            line.add(later.policy)
            found.append(later)
    return found


def of_withdrawn(recipe: Recipe) -> Node:
    """Every judgment that a turn learnt from and that was taken back since, by turn."""
    loop = Loop(recipe.out)
    gone: set[tuple[int, int]] = set()
    for place, address in enumerate(recipe.db):
        with open_database(address, create=False) as db, db.link.reading() as tx:
            gone |= {(place, int(n)) for n in tx.scalars(select(retractions.c.judgment_seq))}
    serving = serving_now(loop)
    node = Node("judgments taken back after a turn learnt from them")
    for turn in loop.turns():
        if not turn.has("snapshot"):
            continue
        used = [(r["db"], r["number"]) for r in read_jsonl(turn.path / "snapshot" / "judgments.jsonl")]
        lost = sorted(set(used) & gone)
        if lost:
            words = ", ".join(f"{a}:{b}" if len(recipe.db) > 1 else str(b) for a, b in lost[:40])
            node.below.append(_reached(loop, turn, f"{len(lost)} of {len(used)}: {words}", serving))
    if not node.below:
        node.below.append(Node("none"))
    return node


def gate_record(run: Path) -> dict[str, Any] | None:
    """The gate, the approval and the snapshot of the turn that a run belongs to, without paths or names of labelers; None
    where it is of no turn. What `harken export` puts beside the card."""
    turn = turn_of(run)
    if turn is None or not turn.has("gate"):
        return None
    record: dict[str, Any] = {"turn": turn.number, "gate": read_json(turn.path / "gate" / "gate.json"),
                              "gate_step": file_hash(turn.path / "gate" / "step.json")}
    if turn.has("verify"):
        facts = turn.facts("verify")
        record["verify"] = {"figures": facts["figures"], "prompts": facts["prompts"], "answers": facts["answers"]}
    if turn.has("snapshot"):
        facts = turn.facts("snapshot")
        record["snapshot"] = {k: facts[k] for k in ("comparisons", "judgments", "labelers", "kinds", "prompts")}
    if turn.has("audit"):
        facts = turn.facts("audit")
        record["audit"] = {k: facts[k] for k in ("train", "held_out", "left_out")} | {"set_aside": len(facts["set_aside"])}
    if turn.has("approval"):
        said = read_json(turn.path / "approval" / "approval.json")["record"]
        record["approval"] = {k: said[k] for k in ("decision", "at", "weights", "evaluation", "snapshot", "gate")}
        if isinstance(record["approval"]["weights"], dict):
            record["approval"]["weights"] = record["approval"]["weights"]["weights"]
    if turn.has("canary"):
        record["canary"] = turn.facts("canary")
    return record
