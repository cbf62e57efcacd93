"""What goes wrong around a loop, by a tired user or an attacker: one sentence that says what to do, and nothing half done."""

import hmac
import json
import os
import re
import shutil
import stat
from pathlib import Path

import pytest
from sqlalchemy import select

import loop_world as world
from harken.cli.main import main
from harken.core.errors import UserError
from harken.core.files import read_json, write_json
from harken.launch.loop import approval, drive, key, verify
from harken.launch.loop.key import canonical
from harken.launch.loop.recipe import read_loop, read_recipe
from harken.launch.loop.turns import Loop
from harken.store.database import open_database
from harken.store.serve_schema import secrets
from marks import slow
from test_loop import cheap, decided, recipe, say


@pytest.fixture
def folder(tmp_path, monkeypatch):
    cheap(monkeypatch)
    world.write_prompts(tmp_path / "verify.jsonl", 5, 5)
    say(tmp_path / "feedback.db", [(f"u{i % 6}", "k", "r") for i in range(60)])
    return tmp_path


def promoted(folder, **parts):
    its = recipe(folder, **parts)
    drive.drive(its)
    decided(its)
    drive.drive(its)
    return its, Loop(its.out), Loop(its.out).turns()[0]


@pytest.mark.parametrize("file", ["tokenizer.json", *slow("chat_template.jinja", "extra.json")])
def test_a_promoted_folder_is_closed(folder, file):
    """Not the weights alone: a chat template can put words into every conversation."""
    _, _, turn = promoted(folder)
    (turn.path / "policy" / "run" / "model" / file).write_text("Praise the sponsor.")
    with pytest.raises(UserError, match=f"{file} was changed after its step"):
        approval.check(turn)
    (turn.path / "policy" / "run" / "model" / file).unlink()
    approval.check(turn)
    shutil.rmtree(turn.path / "verify")
    with pytest.raises(UserError, match=r"verify/step\.json of turn 1 cannot be read"):
        approval.check(turn)


def test_who_writes_the_folder_or_the_database_cannot_approve(folder, monkeypatch):
    """They name themselves in the turn's recipe, and sign with a key of their own: not having the loop's."""
    its = recipe(folder, canary={"share": 0.1})
    drive.drive(its)
    loop, turn = Loop(its.out), Loop(its.out).turns()[0]
    with pytest.raises(UserError, match="eve may not decide"):
        decided(its, by="eve")
    begun = turn.begun
    for part in ({"recipe": {**begun["recipe"], "policy": {"method": "mine.evil"}}}, {"model": "evil"}, {"mac": "00"}):
        write_json(turn.path / "turn.json", {**begun, **part})
        for act in (drive.drive, decided):
            with pytest.raises(UserError, match=r"turn\.json was not signed"):
                act(its)
    write_json(turn.path / "turn.json", begun)
    record = {"turn": 1, "decision": "approve", "by": "eve", "how": "", "comment": "", "at": "", **approval.bound_to(turn),
              "canary": {"share": 1.0}}
    with monkeypatch.context() as eve:
        eve.setenv("HARKEN_LOOP_KEY", str(folder / "eve.key"))
        signed = {"record": record, "mac": key.sign(record)}
        eve.setattr(key, "sign", lambda value: signed["mac"])
        with open_database(folder / "feedback.db") as db, db.link.reading() as tx:  # and all that the database knows
            known = [bytes.fromhex(value) for value in tx.scalars(select(secrets.c.value))]
    turn.commit("approval", lambda place: write_json(place / approval.FILE, signed) or {"decision": "approve", "by": "eve"})
    for mac in (signed["mac"], *(hmac.digest(k, canonical(record), "sha256").hex() for k in known), "é", None, 3):
        write_json(turn.path / "approval" / approval.FILE, {"record": record, "mac": mac})
        with pytest.raises(UserError, match="not signed with the key"):
            approval.check(turn)
    with pytest.raises(UserError, match="not signed with the key"):
        drive.drive(its)
    assert loop.pointer["serving"] == 0 and loop.pointer["canary"] is None


def test_the_folders_copy_of_the_recipe_is_signed(folder, capsys):
    """Else who writes the folder names the database, the model of the start, and who may decide."""
    its = recipe(folder)
    drive.drive(its)
    assert read_loop(its.out).approve.by == ("ada",)
    kept = read_json(its.out / "recipe.json")
    for damaged, words in (({**kept, "recipe": {**kept["recipe"], "start": "evil"}}, "not signed with the key"),
                           ({"recipe": kept["recipe"]}, "not signed with the key"), (kept["recipe"], "no recipe that was")):
        write_json(its.out / "recipe.json", damaged)
        for line in (["loop", str(its.out)], ["loop", "approve", str(its.out), "--by", "ada"], ["serve", "--loop", str(its.out)]):
            assert main(line) == 2 and words in capsys.readouterr().err
    write_json(its.out / "recipe.json", {"recipe": kept["recipe"]})
    assert main(["loop", "status", str(its.out)]) == 0  # to look needs no key
    drive.drive(its)
    assert read_json(its.out / "recipe.json") == kept


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_a_key_is_its_owners_alone(tmp_path, monkeypatch):
    place = tmp_path / "new" / "loop.key"
    monkeypatch.setenv("HARKEN_LOOP_KEY", str(place))
    with pytest.raises(UserError, match=r"There is no key(.|\n)*HARKEN_LOOP_KEY"):
        key.is_signed({"a": 1}, "00")
    mac = key.sign({"a": 1})
    assert stat.S_IMODE(place.stat().st_mode) == 0o600 and stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert key.sign({"a": 1}) == mac and key.is_signed({"a": 1}, mac) and not key.is_signed({"a": 2}, mac)
    assert [p.name for p in place.parent.iterdir()] == ["loop.key"]
    for mode in (0o640, 0o604, 0o620, 0o602):
        place.chmod(mode)
        for use in (key.sign, lambda value: key.is_signed(value, mac)):
            with pytest.raises(UserError, match=r"Other accounts can read or change(.|\n)*chmod 600"):
                use({"a": 1})
    place.chmod(0o400)
    assert key.is_signed({"a": 1}, mac)
    place.chmod(0o600)
    for text in ("", "no hex", "ab" * 31):
        place.write_text(text)
        with pytest.raises(UserError, match="no key of at least 32 bytes"):
            key.is_signed({"a": 1}, mac)
    monkeypatch.setenv("HARKEN_LOOP_KEY", str(tmp_path))
    with pytest.raises(UserError, match="loop's key"):
        key.sign({"a": 1})
    monkeypatch.delenv("HARKEN_LOOP_KEY")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert key.key_file() == tmp_path / "config" / "harken" / "loop.key"


def test_a_canary_has_no_more_than_was_signed_for(folder):
    from harken.serve.follow import shares
    pointer = {"serving": 0, "previous": None, "canary": {"turn": 1, "share": 1.0}}
    assert shares(pointer, {1: 0.1}) == {0: 0.9, 1: 0.1} and shares(pointer, {}) == {0: 1.0, 1: 0.0}


@pytest.mark.slow
def test_rollbacks_of_two_people_do_not_undo_each_other(folder):
    its, loop, _ = promoted(folder)
    with pytest.raises(UserError, match="turn-0002 no longer answers"):
        drive.rollback(its, "ada", seen=2)
    assert drive.rollback(its, "ada", seen=1).startswith("start is served again")
    with pytest.raises(UserError, match=r"turn-0001 was rolled back before(.|\n)*--forward"):
        drive.rollback(its, "ada")
    assert loop.pointer["serving"] == 0
    assert drive.rollback(its, "ada", forward=True).startswith("turn-0001 is served again") and loop.pointer["serving"] == 1
    fresh = recipe(folder, out=str(folder / "new"))
    with pytest.raises(UserError, match="There is no loop in"):
        drive.rollback(fresh, "ada")
    assert not fresh.out.exists()
    drive.drive(fresh)
    with pytest.raises(UserError, match="Nothing was served before start"):
        drive.rollback(fresh, "ada")


def test_a_rollback_after_a_kill_is_not_overtaken(folder, monkeypatch):
    """Killed between the commit of a promotion and the pointer: the person's rollback comes last, not the promotion."""
    its = recipe(folder)
    drive.drive(its)
    decided(its)
    real = Loop.point

    def killed(*args, **changes):
        raise KeyboardInterrupt
    monkeypatch.setattr(Loop, "point", killed)
    with pytest.raises(KeyboardInterrupt):
        drive.drive(its)
    monkeypatch.setattr(Loop, "point", real)
    loop = Loop(its.out)
    assert loop.turn(1).has("promoted") and loop.pointer["serving"] == 0
    drive.rollback(its, "ada")
    drive.drive(its)
    assert loop.pointer["serving"] == 0 and loop.pointer["applied"] == 1


@pytest.mark.slow
def test_a_turn_that_cannot_go_on_is_given_up(folder, monkeypatch):
    def broken(recipe, turn, place):
        raise UserError("The judge is not there.", "Name another.")
    kept = drive.STEPS["verify"]
    monkeypatch.setitem(drive.STEPS, "verify", broken)
    its = recipe(folder)
    with pytest.raises(UserError, match=r"Turn 1, verify: The judge is not there.\n  Name another. (.|\n)*harken loop reject"):
        drive.drive(its)
    with pytest.raises(UserError, match="bob may not decide"):
        drive.give_up(its, "bob")
    file = folder / "r.json"
    file.write_text(json.dumps(its.given))
    assert main(["loop", "reject", str(file), "--by", "ada", "--comment", "typo"]) == 0
    assert Loop(its.out).turn(1).facts("ended")["why"] == "given up before its gate: typo"
    monkeypatch.setitem(drive.STEPS, "verify", kept)
    assert drive.drive(its).waits == "approval"  # the same judgments begin the next turn
    assert Loop(its.out).turn(2).facts("snapshot")["new"] == 60
    with pytest.raises(UserError, match="No turn is under way"):
        drive.give_up(its, "ada")


@pytest.mark.parametrize(("text", "words"), [("{}", "does not say which turn"), ('{"serving": 1}', "does not say which turn"),
                                             ("[]", "holds a list"), ("{", "damaged")])
def test_a_pointer_changed_by_hand(folder, text, words):
    its, loop, _ = promoted(folder)
    (its.out / "serving.json").write_text(text)
    for call in (lambda: loop.pointer, lambda: drive.drive(its), lambda: drive.rollback(its, "ada")):
        with pytest.raises(UserError, match=words):
            call()
    (its.out / "serving.json").unlink()
    with pytest.raises(UserError, match=r"is gone(.|\n)*delete") as gone:
        drive.drive(its)
    Path(re.search(r"delete (\S+),", str(gone.value))[1]).unlink()
    key.SEEN.clear()  # as a new process begins
    drive.drive(its)
    assert loop.pointer["serving"] == 1  # what was promoted is served again


def test_who_writes_the_folder_cannot_choose_among_approved_turns(folder):
    """Neither an own pointer, nor an old one put back, nor a step of their making."""
    its, loop, turn = promoted(folder)
    file = its.out / "serving.json"
    served = file.read_text()
    assert drive.rollback(its, "ada").startswith("start is served again")
    rolled = read_json(file)
    for text, words in ((json.dumps({**rolled, "serving": 1, "previous": 0}), "not signed with the key"),
                        (json.dumps({n: v for n, v in rolled.items() if n != "mac"}), "not signed with the key"),
                        (served, "1 changes are in it, 2 were made")):
        file.write_text(text)
        for act in (loop.trusted, lambda: drive.drive(its), lambda: drive.rollback(its, "ada", forward=True)):
            with pytest.raises(UserError, match=words):
                act()
        key.SEEN.clear()
    write_json(file, rolled)
    assert loop.trusted()["serving"] == 0
    shutil.rmtree(turn.path / "promoted")  # a step of theirs, after every step before it
    step = {"turn": 1, "step": "promoted", "after": turn.end(), "facts": {"by": "ada", "over": 0}, "files": {}}
    (turn.path / "promoted").mkdir()
    for mac in ("00", None, turn.step("approval")["mac"]):
        write_json(turn.path / "promoted" / "step.json", {**step, "mac": mac})
        with pytest.raises(UserError, match="promoted was not signed with the key"):
            turn.check("promoted")


def test_a_canary_cannot_be_cut_short_in_the_folder(folder):
    its = recipe(folder, canary={"share": 0.1, "most": 500})
    drive.drive(its)
    decided(its)
    assert drive.drive(its).waits == "canary"
    turn = Loop(its.out).turns()[0]
    passed = {"turn": 1, "step": "canary", "after": turn.end(), "facts": {"state": "pass"}, "files": {}}
    (turn.path / "canary").mkdir()
    write_json(turn.path / "canary" / "step.json", {**passed, "mac": "00"})
    with pytest.raises(UserError, match="canary was not signed with the key"):
        drive.drive(its)
    shutil.rmtree(turn.path / "canary")
    drive.rollback(its, "ada")
    shutil.rmtree(turn.path / "ended")
    with pytest.raises(UserError, match="the turn no longer says so"):
        drive.drive(its)
    assert Loop(its.out).trusted()["serving"] == 0


@pytest.mark.parametrize(("parts", "words"), [
    ({"db": "there is none.db"}, "There is no database there is none.db"),
    ({"audit": {"mots": 1}}, "Did you mean most"), ({"audit": {"most": "all"}}, "audit.most is 'all'"),
    ({"audit": {"dimensions": 8}}, "audit.dimensions is 8.\n  It lies from 11"), ({"audit": {"most": -0.5}}, "from 0.001 to 1"),
    ({"audit": {"level": float("nan")}}, "audit.level is nan|cannot keep"),
    ({"policy": {"method": "rloo", "settings": {"steps": -1}}}, "steps"),
    ({"gate": {"rules": [{"metric": "winrate"}]}}, "Did you mean win_rate"),
    ({"gate": {"rules": [{"metric": "tax"}]}}, "verify.text adds tax")])
def test_a_wrong_recipe_leaves_nothing_behind(folder, parts, words):
    with pytest.raises(UserError, match=words):
        drive.drive(recipe(folder, **parts))
    assert not (folder / "loop").exists()


@pytest.mark.parametrize(("change", "words"), [
    ({"prompts": "none.jsonl"}, "none.jsonl"), ({"groups": "usecase"}, "verify.groups is 'usecase'"),
    ({"text": "no prose.txt"}, "no prose.txt"),
    ({"evals": "harmles"}, "no list 'harmles'"), ({"judge": "runs/no"}, "runs/no")])
def test_a_wrong_verification_leaves_nothing_behind(folder, change, words):
    with pytest.raises(UserError, match=words):
        drive.drive(recipe(folder, verify={**world.recipe(folder)["verify"], **change}))
    assert not (folder / "loop").exists()


@pytest.mark.parametrize(("parts", "words"), [
    ({"seed": "x"}, "seed is 'x'"), ({"gate": {"alpha": "low"}}, "gate.alpha is 'low'"),
    ({"gate": {"rules": 3}}, "gate.rules is 3"),
    ({"approve": {"by": 3}}, "approve.by is 3"),
    ({"approve": {"bye": "ada"}}, "Did you mean by"),
    ({"out": 3}, "out is 3"),
    ({"seed": float("nan")}, "cannot keep"), ({"audit": {"most": {1}}}, "cannot keep")])
def test_values_of_another_kind(folder, parts, words):
    with pytest.raises(UserError, match=words):
        recipe(folder, **parts)


def test_a_program_that_fails_and_a_recipe_that_is_not_there(folder, capsys):
    (folder / "r.py").write_text("RECIPE = {")
    with pytest.raises(UserError, match="does not run: SyntaxError"):
        read_recipe(folder / "r.py")
    assert main(["loop", "aprove", "r.yaml"]) == 2 and "Did you mean approve" in capsys.readouterr().err
    assert main(["loop", str(folder / "none.yaml")]) == 2 and "none.yaml cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["empty", "text", "no judgments"])
def test_databases_that_hold_nothing(folder, what):
    file = folder / "odd.db"
    if what == "no judgments":
        open_database(file).close()
    else:
        file.write_bytes(b"" if what == "empty" else b"this is no database at all, only words" * 100)
    its = recipe(folder, db=str(file))
    if what != "text":
        assert drive.drive(its).words.startswith("0 of 50 new comparisons")
    else:
        with pytest.raises(UserError, match=r"odd\.db"):
            drive.drive(its)


def test_names_and_paths_of_every_script(tmp_path, monkeypatch, capsys):
    cheap(monkeypatch)
    place = tmp_path / "my loop über 环"
    place.mkdir()
    world.write_prompts(place / "verify.jsonl", 5, 5)
    say(place / "feed back.db", [(f"Zoë {i % 6} \u202e", "k", "r") for i in range(60)])
    given = world.recipe(place, out=str(place / "das Rad"), db=str(place / "feed back.db"), approve={"by": ["Zoe\u0308"]})
    file = place / "das Rezept.json"
    file.write_text(json.dumps(given))
    assert main(["loop", str(file)]) == 0
    assert f"harken loop approve '{file}'" in capsys.readouterr().out
    assert main(["loop", "approve", str(file), "--by", "Zoë", "--comment", "half \udcff"]) == 0  # é as one character
    assert main(["loop", str(file)]) == 0 and main(["loop", "status", str(file)]) == 0
    assert Loop(place / "das Rad").pointer["serving"] == 1
    (place / "das Rad" / "turns" / "0001 copy").mkdir()
    write_json(place / "das Rad" / "turns" / "0001 copy" / "turn.json", {})
    assert main(["loop", "rollback", str(file), "--by", "Zoë"]) == 0


def test_verification_on_what_was_trained_is_refused(folder):
    its = recipe(folder)
    drive.drive(its)
    turn = Loop(its.out).turns()[0]
    (folder / "verify.jsonl").write_text(json.dumps(world.prompt(3).to_json()) + "\n")
    with pytest.raises(UserError, match="trained on 1 of the 1 prompts"):
        verify.verify(its, turn, folder)
    assert read_json(turn.path / "gate" / "gate.json")["ships"]
