"""One call does what is due, and says what it waits for.

    state = drive(recipe)          # .waits: "judgments" | "approval" | "canary" | "" ; .lines: what was done
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import read_jsonl, write_json
from harken.core.records import Choice, content_hash
from harken.core.seeds import derive_seed
from harken.launch.loop import approval, audit, canary, collect, improve, key, verify
from harken.launch.loop.ready import need
from harken.launch.loop.recipe import HELD_OUT, KEPT, Recipe, keep, recipe_of
from harken.launch.loop.rules import default_rules
from harken.launch.loop.turns import Loop, Turn
from harken.launch.loop.worth import compare_prompts
from harken.stats.gate import decide
from harken.store.files import read_comparisons, read_prompts, write_jsonl

Say = Callable[[str], None]
STUCK = ("The turn keeps the recipe that it began with. Where that is at fault, harken loop reject RECIPE ends the turn; the "
         "next one begins with the same judgments.")


@dataclass
class State:
    """Where the loop stands after a call: `waits` for judgments, an approval or a canary; nothing where a turn just ended."""

    waits: str
    words: str
    turn: int = 0
    lines: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"waits": self.waits, "words": self.words, "turn": self.turn, "done": self.lines}


def drive(recipe: Recipe, say: Say = lambda line: None) -> State:
    """Goes on until a person, people or a canary must speak. Raises `UserError` where a step cannot be done."""
    loop = Loop(recipe.out)
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        say(line)
    if not (recipe.out / KEPT).exists():  # a wrong folder or a typo leaves nothing behind
        need(recipe)
    with loop.working():
        keep(recipe)
        while True:
            settle(loop)
            turn = loop.current()
            state = _begin(recipe, loop, tell) if turn is None else _go_on(recipe_for(recipe, turn), loop, turn, tell)
            if state is not None:
                state.lines = lines
                return state


def recipe_for(recipe: Recipe, turn: Turn) -> Recipe:
    """The recipe that a turn began with. The databases and who may decide are the command's own. Raises `UserError` where
    turn.json was changed: its recipe names what runs."""
    begun = turn.begun
    facts = {name: begun.get(name) for name in ("recipe", "serving", "seen", "model")}
    if not key.is_signed(facts, begun.get("mac")):
        raise UserError(f"{turn.path / 'turn.json'} was not signed with the key {key.key_file()}, or was changed.",
                        f"If another key signed it, name that by {key.VARIABLE}; else move {turn.path} away, and begin anew.")
    return dataclasses.replace(recipe_of(begun["recipe"], str(turn.path)), out=recipe.out, db=recipe.db,
                               approve=recipe.approve)


def settle(loop: Loop) -> None:
    """What a kill left between a commit and the pointer: a promoted turn not served yet, a canary of a turn that is over."""
    with loop.deciding():
        pointer = loop.trusted()
        for turn in loop.turns():
            if turn.has("promoted") and turn.number > pointer["applied"]:
                turn.check("promoted")
                pointer = loop.point("promoted", turn.facts("promoted")["by"], serving=turn.number, previous=pointer["serving"],
                                     applied=turn.number, canary=None)
        running = pointer["canary"]
        if running and loop.turn(running["turn"]).over:
            loop.point("canary over", "harken loop", canary=None)


def _begin(recipe: Recipe, loop: Loop, tell: Say) -> State | None:
    """The next turn, where there is enough to learn from."""
    need(recipe)
    pointer = loop.trusted()
    last = _last(loop)
    found = collect.gather(recipe, last)
    if found.new < recipe.collect.at_least:
        return State("judgments", f"{found.new} of {recipe.collect.at_least} new comparisons are there; "
                     f"{recipe.collect.at_least - found.new} more begin the next turn.")
    facts = {"recipe": dict(recipe.given), "serving": pointer["serving"], "seen": last,
             "model": loop.model(pointer["serving"], recipe.start)}
    turn = loop.begin({**facts, "mac": key.sign(facts)})
    tell(f"Turn {turn.number} begins: {found.new} new comparisons, {len(found.comparisons)} in all.")
    return None


def _last(loop: Loop) -> dict[str, int]:
    """The last judgment by database that a turn has seen. A turn that was given up before its gate has used none."""
    last: dict[str, int] = {}
    for turn in loop.turns():
        if turn.has("snapshot") and (turn.has("gate") or not turn.over):
            last |= {name: int(n) for name, n in turn.facts("snapshot")["last"].items()}
    return last


def _go_on(recipe: Recipe, loop: Loop, turn: Turn, tell: Say) -> State | None:
    """The next step of a turn that is under way."""
    if not turn.has("gate"):
        for name, work in STEPS.items():
            if not turn.has(name):
                try:
                    facts = turn.commit(name, lambda folder: work(recipe, turn, folder))  # noqa: B023  called at once
                except UserError as error:
                    raise UserError(f"Turn {turn.number}, {name}: {error.fact}", f"{error.action} {STUCK}".strip()) from error
                tell(f"Turn {turn.number}, {name}: {summary(name, facts)}")
                return None
    if not turn.facts("gate")["ships"]:
        return _end(loop, turn, f"the gate said {turn.facts('gate')['verdict']}", "the gate", tell)
    if not turn.has("approval"):
        who = f" by {' or '.join(recipe.approve.by)}" if recipe.approve.by else ""
        return State("approval", f"Turn {turn.number} passed its gate and waits for an approval{who}.", turn.number)
    if turn.facts("approval")["decision"] != "approve":
        return _end(loop, turn, "rejected", turn.facts("approval")["by"], tell)
    approval.check(turn)
    if recipe.canary.share and not turn.has("canary"):
        return _canary(recipe, loop, turn, tell)
    if recipe.canary.share:
        turn.check("canary")
    if recipe.canary.share and turn.facts("canary")["state"] != "pass":
        return _end(loop, turn, f"its canary ended: {turn.facts('canary')['state']}", "the canary's rule", tell)
    by = turn.facts("approval")["by"]
    with loop.deciding():
        if turn.over:
            return None
        turn.commit("promoted", lambda folder: {"by": by, "over": loop.trusted()["serving"]})
    settle(loop)
    tell(f"Turn {turn.number} is served.")
    return State("", f"Turn {turn.number} is served.", turn.number)


def _end(loop: Loop, turn: Turn, why: str, by: str, tell: Say) -> State:
    with loop.deciding():
        if not turn.over:
            turn.commit("ended", lambda folder: {"why": why, "by": by})
    settle(loop)
    tell(f"Turn {turn.number} is not served: {why}.")
    return State("", f"Turn {turn.number} is not served: {why}.", turn.number)


def _canary(recipe: Recipe, loop: Loop, turn: Turn, tell: Say) -> State | None:
    """Begins the canary, or reads it. When it began is in the pointer: what was said before does not count."""
    with loop.deciding():
        pointer = loop.trusted()
        if turn.over:
            return None
        ran = [h for h in pointer["history"] if h.get("canary") and h["canary"]["turn"] == turn.number]
        if ran and pointer["canary"] is None:
            raise UserError(f"The canary of turn {turn.number} was over, but the turn no longer says so.",
                            f"Restore {turn.path / 'ended'}.")
        if pointer["canary"] is None:
            running = {"turn": turn.number, "share": recipe.canary.share}
            pointer = loop.point("canary", turn.facts("approval")["by"], canary=running)
            tell(f"Turn {turn.number} answers {recipe.canary.share:.0%} of the conversations: its canary runs.")
    since = next((h["at"] for h in reversed(pointer["history"]) if h.get("canary") and h["canary"]["turn"] == turn.number), None)
    if since is None:
        raise UserError(f"{loop.root / 'serving.json'} no longer says when the canary of turn {turn.number} began.",
                        "harken loop rollback RECIPE ends the canary.")
    reading = canary.read_canary(recipe, turn.name, name_of(int(pointer["serving"])), since)
    if reading.state == "undecided":
        return State("canary", f"The canary of turn {turn.number} runs: {reading.n} of at most {recipe.canary.most} outcomes, "
                     f"mean {reading.mean:+.3f}; evidence to stop {reading.e_stop:.2f}, to go on {reading.e_pass:.2f}, "
                     f"enough is {1 / recipe.canary.error:.0f}.", turn.number)
    facts = turn.commit("canary", lambda folder: reading.to_json())
    tell(f"Turn {turn.number}, canary: {summary('canary', facts)}")
    return None


def name_of(number: int) -> str:
    """What a served model is called in the answers' source: turn-0002, or start."""
    return f"turn-{number:04d}" if number else "start"


def rolls_back(pointer: dict[str, Any], forward: bool = False) -> int | None:
    """The turn that a rollback takes out of service; None where there is nothing to go back to."""
    if pointer["canary"]:
        return int(pointer["canary"]["turn"])
    before = pointer["previous"]
    return int(pointer["serving"]) if before is not None and (before < pointer["serving"] or forward) else None


def rollback(recipe: Recipe, by: str, *, forward: bool = False, seen: int | None = None) -> str:
    """Serves what was served before, or ends the canary that runs. Takes effect when the servers read the pointer. Does not go
    forward to what was rolled back, unless `forward`: of two people who click at once the second would undo the first.
    `seen` is the turn that the person saw answering: another one is not touched."""
    approval.need_right(recipe, by)
    loop = Loop(recipe.out)
    if not loop.root.is_dir():
        raise UserError(f"There is no loop in {loop.root} yet.", "harken loop RECIPE begins it.")
    settle(loop)  # a promotion that a kill left half done must not come after the rollback
    with loop.deciding():
        pointer = loop.trusted()
        out = rolls_back(pointer, forward)
        if out is None and pointer["previous"] is not None:
            raise UserError(f"{name_of(pointer['previous'])} was rolled back before, and {name_of(pointer['serving'])} answers.",
                            "harken loop rollback RECIPE --forward serves it again.")
        if out is None:
            raise UserError(f"Nothing was served before {name_of(pointer['serving'])}.", "A rollback needs a promoted turn.")
        if seen is not None and seen != out:
            raise UserError(f"{name_of(seen)} no longer answers; a rollback would now take {name_of(out)} out of service.",
                            "Look at the page again.")
        if pointer["canary"]:
            turn = loop.turn(pointer["canary"]["turn"])
            if not turn.over:
                turn.commit("ended", lambda folder: {"why": "its canary was rolled back", "by": by})
            loop.point("rollback", by, canary=None)
            return f"The canary of turn {turn.number} is over; {name_of(pointer['serving'])} answers all."
        loop.point("rollback", by, serving=pointer["previous"], previous=pointer["serving"])
        return f"{name_of(pointer['previous'])} is served again, in the place of {name_of(pointer['serving'])}."


def give_up(recipe: Recipe, by: str, comment: str = "") -> str:
    """Ends a turn that has no gate yet, by a person's wish: one whose recipe was at fault could else never end."""
    approval.need_right(recipe, by)
    loop = Loop(recipe.out)
    with loop.working(), loop.deciding():
        turn = loop.current()
        if turn is None or turn.has("gate"):
            raise UserError("No turn is under way.", "harken loop status RECIPE shows where each stands.")
        turn.commit("ended", lambda folder: {"why": "given up before its gate" + (f": {comment}" if comment else ""), "by": by})
    return f"Turn {turn.number} was given up. harken loop begins the next one with the same judgments."


def take_snapshot(recipe: Recipe, turn: Turn, folder: Path) -> dict[str, Any]:
    found = collect.gather(recipe, {name: int(n) for name, n in turn.begun["seen"].items()})
    facts = collect.write(found, folder)
    facts["use_cases"] = compare_prompts(list(found.prompts.values()), read_prompts(recipe.verify.prompts).records)
    facts["seconds"] = round(sum(s.seconds or 0.0 for s in found.sources), 1)
    people = {row["labeler"] for row in found.judgments if row["labeler"]}
    collect.remember(recipe, folder / "comparisons.jsonl", turn.path / "snapshot" / "comparisons.jsonl", people)
    return facts


def make_audit(recipe: Recipe, turn: Turn, folder: Path) -> dict[str, Any]:
    """Holds prompts out, then audits: what the judge learns from is audited by the same weights."""
    file = turn.path / "snapshot" / "comparisons.jsonl"
    choices = read_comparisons(str(file)).records
    sources = [collect.Source.from_json(row) for row in read_jsonl(turn.path / "snapshot" / "sources.jsonl")]
    audited = audit.audit(choices, sources, recipe.audit, recipe.seed)
    train = [i for i in audited.kept if not _held(recipe, choices[i])]
    held = [i for i in audited.kept if _held(recipe, choices[i])]
    if recipe.verify.judge == HELD_OUT and not held:
        raise UserError("No prompt's judgments were held out for the judge.", "Raise collect.held_out, or collect more.")
    for name, rows in (("comparisons", train), ("held_out", held)):
        write_jsonl(folder / f"{name}.jsonl", (choices[i].to_json() for i in rows))
        write_jsonl(folder / f"{name}.sources.jsonl", (sources[i].to_json() for i in rows))
    write_json(folder / "report.json", audited.report)
    people = {choices[i].labeler or "" for i in train} - {""}
    collect.remember(recipe, folder / "comparisons.jsonl", turn.path / "audit" / "comparisons.jsonl", people)
    return {"train": len(train), "held_out": len(held), "left_out": audited.report["left_out"],
            "set_aside": audited.report.get("set_aside", []), "bound": audited.report.get("bound")}


def _held(recipe: Recipe, choice: Choice) -> bool:
    return derive_seed(recipe.seed, "held out", choice.prompt.id) / 2**63 < recipe.collect.held_out


def pass_gate(recipe: Recipe, turn: Turn, folder: Path) -> dict[str, Any]:
    measured = verify.metrics(turn.path / "verify")
    rules = recipe.gate.rules or default_rules(m.name for m in measured)
    try:
        decision = decide(measured, rules, recipe.gate.alpha)
    except ValueError as error:
        raise UserError(f"The gate cannot be read: {error}.",
                        "Correct gate.rules; verify.text and verify.evals add metrics.") from None
    notes = [] if recipe.gate.rules else ["The recipe writes no rules: these are the ones that hold without."]
    types = {g for m in measured for g in m.groups.values()}
    if len(types) < 2 and any(r.each for r in rules):
        notes.append(f"By {recipe.verify.groups} all prompts are of one type ({min(types, default='none')}): no type of user is "
                     "looked at by itself.")
    record = decision.to_json() | {"alpha": recipe.gate.alpha, "notes": notes,
                                   "rules_hash": content_hash([dataclasses.asdict(r) for r in rules])}
    write_json(folder / "gate.json", record)
    return {"verdict": decision.verdict, "ships": decision.ships, "notes": notes,
            "failed": [o.rule.words() for o in decision.outcomes if not o.holds]}


STEPS: dict[str, Callable[[Recipe, Turn, Path], dict[str, Any]]] = {
    "snapshot": take_snapshot, "audit": make_audit, "reward": improve.make_reward, "policy": improve.make_policy,
    "verify": verify.verify, "gate": pass_gate}


def summary(name: str, facts: dict[str, Any]) -> str:
    """A step in a few words."""
    if name == "snapshot":
        return f"{facts['comparisons']} comparisons ({facts['new']} new) by {facts['labelers']} people"
    if name == "audit":
        aside = [p for entry in facts["set_aside"] for p in entry["people"]]
        return f"{facts['train']} train, {facts['held_out']} held out, {facts['left_out']} left out" + (
            f"; to look at: {', '.join(aside[:5])}{' …' if len(aside) > 5 else ''}" if aside else "")
    if name == "verify":
        rate = facts["figures"]["win_rate"]
        return f"win rate {rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}] on {facts['prompts']} prompts"
    if name == "gate":
        failed = "" if facts["ships"] else f"; not shown: {'; '.join(facts['failed'])}"
        return " ".join([f"{facts['verdict']}{failed}.", *facts.get("notes", [])]).removesuffix(".")
    if name == "canary":
        return f"{facts['state']} after {facts['n']} outcomes (mean {facts['mean']:+.3f})"
    return "done"


def waiting(recipe: Recipe) -> tuple[Loop, Turn, Recipe]:
    """The turn that waits for a decision, with the recipe that it began with. Raises `UserError` where none does."""
    loop = Loop(recipe.out)
    turn = loop.current()
    if turn is None or not turn.has("gate") or turn.has("approval"):
        raise UserError("No turn waits for a decision.", "harken loop RECIPE says what it waits for.")
    return loop, turn, recipe_for(recipe, turn)
