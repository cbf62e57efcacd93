"""SIGKILL to `harken loop` at random moments of a turn: which model is served, and does the turn end the same?

    python benchmarks/loop_kills.py                 # 100 kills
    python benchmarks/loop_kills.py --quick         # 5 kills

A turn of the toy world (tests/loop_world.py) goes from judgments to a served model by three commands: to the gate, approve,
promote. It is done once without a kill; then again and again, each command killed at a random moment and given anew until it
ends. After each kill what is served must be the old model or the new one, signed, with its weights; each turn must end with the
weights of the one that was not killed. Exits with 1 where that fails.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
import numpy as np
import torch  # noqa: F401  loaded here once: each command is a fork

import loop_world as world
from harken.cli.main import main as harken
from harken.core.files import file_hash
from harken.launch.loop import key
from harken.launch.loop.turns import Loop
from harken.store.database import open_database

IN_A_ROW = 5
"""Kills of one command, after which it is let go on: so that all three have their share."""


def prepare(folder: Path) -> Path:
    """Judgments, prompts, a recipe; the toy model to begin with is there already. Returns the recipe."""
    world.write_prompts(folder / "verify.jsonl", 10, 10)
    rng, people = np.random.default_rng(0), world.users(10)
    with open_database(folder / "feedback.db") as db:
        db.add_judgments([world.judged(people[i % 10], world.prompt(i), *rng.choice(list(world.LETTERS), 2, replace=False), rng)
                          for i in range(60)])
    given = world.recipe(folder, policy={"method": "rloo", "settings": {**world.RLOO, "steps": 4}},
                         gate={"rules": [{"metric": "win_rate", "need": "not_worse", "margin": 0.9}]})
    (folder / "recipe.json").write_text(json.dumps(given), encoding="utf-8")
    return folder / "recipe.json"


def commands(recipe: Path) -> dict[str, list[str]]:
    due = ["loop", str(recipe)]
    return {"gate": due, "approve": ["loop", "approve", str(recipe), "--by", "ada"], "promote": due}


def run(command: list[str], seconds: float | None) -> int | None:
    """The command's exit status, or None where it was killed after these seconds."""
    child = os.fork()
    if child == 0:
        out = os.open(os.devnull, os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(out, 2)
        status = 1
        with contextlib.suppress(BaseException):
            status = harken(command)
        os._exit(status)
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.002)


def served(folder: Path) -> int:
    """The turn whose model is served, after checking that it is signed and whole."""
    loop = Loop(folder / "loop")
    turn = int(loop.trusted()["serving"])
    if turn:
        loop.turn(turn).check("approve")
    model = Path(loop.model(turn, str(folder / "start"))) / "model" / "model.safetensors"
    assert model.stat().st_size > 0
    return turn


def turn(folder: Path, chance: random.Random | None, lengths: dict[str, float], most: int) -> tuple[str, Counter[str]]:
    """One turn to its end; killed at moments drawn by `chance`, at most so often. Returns the hash of what is served then, and
    the kills by command."""
    loop, kills = Loop(folder / "loop"), Counter[str]()
    for name, command in commands(folder / "recipe.json").items():
        began = time.monotonic()
        while (status := run(command, chance.uniform(0, 1.2 * lengths[name])
                             if chance and kills[name] < IN_A_ROW and kills.total() < most else None)) is None:
            kills[name] += 1
            assert served(folder) in ((0,) if name == "gate" else (0, 1))
        signed = name == "approve" and kills[name] and loop.turns()[0].has("approve")  # before the kill: refused the second time
        assert status == 0 or signed, f"{' '.join(command)} ended with status {status}"
        lengths.setdefault(name, time.monotonic() - began)
    assert served(folder) == 1 and len(loop.turns()) == 1
    return file_hash(Path(loop.turn(1).policy) / "model" / "model.safetensors"), kills


def in_fork(work: Callable[[], object]) -> None:
    """Does it in another process: this one never computes, so that its forks may."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    most = 5 if args.quick else args.kills
    with tempfile.TemporaryDirectory() as top:
        os.environ[key.VARIABLE] = str(Path(top) / "key")
        begin = Path(top) / "begin"
        begin.mkdir()
        in_fork(lambda: world.start(begin, each=100, epochs=1.0))
        lengths: dict[str, float] = {}
        chance, kills, turns, other = random.Random(0), Counter[str](), 0, 0
        expected = None
        while expected is None or kills.total() < most:
            folder = Path(top) / f"turn{turns}"
            shutil.copytree(begin, folder)
            prepare(folder)
            weights, more = turn(folder, chance if expected else None, lengths, most - kills.total())
            expected = expected or weights
            other += weights != expected
            kills += more
            turns += 1
            shutil.rmtree(folder)
    print(json.dumps({"kills": kills.total(), "at": dict(kills), "turns": turns, "other_weights": other,
                      "seconds_unkilled": {name: round(s, 1) for name, s in lengths.items()}}))
    return int(other > 0)


if __name__ == "__main__":
    raise SystemExit(main())
