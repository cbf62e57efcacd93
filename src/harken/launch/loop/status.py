"""Where a loop stands, for commands and pages."""

from __future__ import annotations

from typing import Any

from harken.core.files import read_json
from harken.launch.loop.drive import name_of, rolls_back
from harken.launch.loop.recipe import Recipe
from harken.launch.loop.turns import Loop, Turn


def status(recipe: Recipe) -> dict[str, Any]:
    """What answers, and every turn with its state in words."""
    loop = Loop(recipe.out)
    pointer = loop.pointer
    canary = pointer["canary"]
    return {"serving": name_of(pointer["serving"]),
            "previous": None if pointer["previous"] is None else name_of(pointer["previous"]),
            "canary": f"turn {canary['turn']} answers {canary['share']:.0%} as a canary" if canary else None,
            "rolls_back": rolls_back(pointer), "history": pointer["history"],
            "turns": [row(turn, pointer) for turn in loop.turns()]}


def row(turn: Turn, pointer: dict[str, Any]) -> dict[str, Any]:
    state, words = _state(turn, pointer)
    found: dict[str, Any] = {"turn": turn.number, "name": turn.name, "state": state, "words": words, "steps": turn.done(),
                             "at": turn.begun["at"]}
    found |= {name: turn.facts(name) for name in ("snapshot", "audit", "verify", "gate", "approval", "canary", "ended")
              if turn.has(name)}
    if turn.has("gate"):
        found["rules"] = read_json(turn.path / "gate" / "gate.json")["rules"]
    return found


def _state(turn: Turn, pointer: dict[str, Any]) -> tuple[str, str]:
    if turn.has("ended"):
        return "ended", f"{turn.facts('ended')['why']}; by {turn.facts('ended')['by']}"
    if turn.has("promoted"):
        return ("serving" if pointer["serving"] == turn.number else "promoted"), f"approved by {turn.facts('promoted')['by']}"
    if pointer["canary"] and pointer["canary"]["turn"] == turn.number:
        return "canary", f"approved by {turn.facts('approval')['by']}"
    if turn.has("approval"):
        return {"approve": "approved", "reject": "rejected"}[turn.facts("approval")["decision"]], ""
    if turn.has("gate"):
        return "waits for approval" if turn.facts("gate")["ships"] else "gate closed", \
            f"the gate said {turn.facts('gate')['verdict']}"
    done = turn.done()
    return "under way", f"after {done[-1]}" if done else "begun"
