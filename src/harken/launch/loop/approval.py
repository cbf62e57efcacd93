"""A person's decision on a turn: a record signed with the loop's key (key.py), bound to what was decided on.

    decide(recipe, loop, turn, by="ada", how="command", yes=True)
    check(turn)              # raises UserError unless the record, and all it stands on, is as it was

The record holds the SHA-256 of the weights, of the evaluation, of the snapshot and of the gate, the canary's share and rule, the
person and the way they identified themselves. Whoever cannot read the key cannot make one, whatever else they can write, and a
byte changed anywhere voids it. The server checks it when it loads the model.
"""

from __future__ import annotations

import dataclasses
import getpass
import unicodedata
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import file_hash, read_json, write_json
from harken.launch.loop import key
from harken.launch.loop.recipe import Recipe
from harken.launch.loop.turns import Loop, Turn, now
from harken.launch.models import model_identity

FILE = "approval.json"
MOST_COMMENT = 2000


def may(recipe: Recipe, name: str) -> bool:
    """Whether somebody of this name may decide."""
    return not recipe.approve.by or _plain(name) in map(_plain, recipe.approve.by)


def _plain(name: str) -> str:
    """One spelling of a name: é may be typed as one character or as two."""
    return unicodedata.normalize("NFC", name)


def need_right(recipe: Recipe, name: str) -> None:
    if not may(recipe, name):
        raise UserError(f"{name or 'Nobody'} may not decide here.",
                        f"approve.by in the recipe names who may: {', '.join(recipe.approve.by)}; add --by NAME.")


def person() -> str:
    """Whoever runs this command, as the system knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "somebody"


def bound_to(turn: Turn) -> dict[str, Any]:
    """Hashes of what a decision is about. Raises `UserError` where some of it is not there."""
    try:
        return {"weights": model_identity(turn.policy), "evaluation": file_hash(turn.path / "verify" / "step.json"),
                "snapshot": file_hash(turn.path / "snapshot" / "step.json"), "gate": file_hash(turn.path / "gate" / "step.json")}
    except OSError as error:
        raise UserError(f"{error.filename} of turn {turn.number} cannot be read: {error.strerror or error}.",
                        "Restore it, or serve another turn.") from None


def decide(recipe: Recipe, loop: Loop, turn: Turn, *, by: str, how: str, yes: bool, comment: str = "") -> dict[str, Any]:
    """Commits a person's decision. Raises `UserError` for who may not, for a turn that waits for none, and where the gate did
    not open: nobody can approve around it."""
    need_right(recipe, by)
    if len(comment) > MOST_COMMENT:
        raise UserError(f"The comment has {len(comment)} characters.", f"At most {MOST_COMMENT}.")
    with loop.deciding():
        if turn.has("approval"):
            raise UserError(f"Turn {turn.number} was decided on before, by {turn.facts('approval')['by']}.",
                            "harken loop status RECIPE shows where it stands.")
        if not turn.has("gate") or turn.over:
            raise UserError(f"Turn {turn.number} does not wait for a decision.", "harken loop RECIPE says what it waits for.")
        if yes and not turn.facts("gate")["ships"]:
            raise UserError(f"Turn {turn.number} did not pass its gate ({turn.facts('gate')['verdict']}).",
                            "Nothing is promoted without it. Change the recipe's rules for later turns, not this one.")
        turn.check("gate")
        record = {"turn": turn.number, "decision": "approve" if yes else "reject", "by": by, "how": how, "comment": comment,
                  "at": now(), **bound_to(turn), "canary": dataclasses.asdict(recipe.canary)}
        mac = key.sign(record)

        def write(folder: Path) -> dict[str, Any]:
            write_json(folder / FILE, {"record": record, "mac": mac})
            return {"decision": record["decision"], "by": by, "how": how, "comment": comment}
        return turn.commit("approval", write)


def check(turn: Turn) -> dict[str, Any]:
    """The approving record of a turn. Raises `UserError` where there is none, it was not signed here, or what it is bound to
    is not what lies there now."""
    path = turn.path / "approval" / FILE
    if not path.is_file():
        raise UserError(f"Nobody approved turn {turn.number}.", "harken loop approve RECIPE --by NAME")
    signed = read_json(path)
    record = signed.get("record")
    if not isinstance(record, dict) or not key.is_signed(record, signed.get("mac")):
        raise UserError(f"The approval of turn {turn.number} was not signed with the key {key.key_file()}, or was changed.",
                        f"If another key signed it, name that by {key.VARIABLE}; else this record proves nothing.")
    if record.get("decision") != "approve" or record.get("turn") != turn.number:
        raise UserError(f"Turn {turn.number} was not approved: its record says {record.get('decision')} "
                        f"of turn {record.get('turn')}.", "Serve a turn that was.")
    present = bound_to(turn)
    if changed := [name for name, value in present.items() if record.get(name) != value]:
        raise UserError(f"The {changed[0]} of turn {turn.number} changed after {record['by']} approved it.",
                        "The approval is void. Restore the files, or serve another turn.")
    turn.check("approval")  # the tokenizer, the chat template and the settings speak too, not the weights alone
    return record

