"""The loop on real weights and a real server: what the machinery's tests replace by files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import loop_world as world
from harken.core.errors import UserError
from harken.core.files import read_json, write_json
from harken.launch.loop import approval, drive
from harken.launch.loop.recipe import read_recipe
from harken.launch.loop.turns import Loop
from harken.store.database import open_database
from serve_site import Served, toy_sampler, weights

ROOT = Path(__file__).parents[1]


def model(folder, seed):
    """A toy model's folder, as a run keeps it."""
    place = folder / "run" / "model"
    place.mkdir(parents=True, exist_ok=True)
    (place / "model.safetensors").write_bytes(f"weights {seed}".encode())


def promoted(folder, monkeypatch, turns=1, **parts):
    """A loop with turns that a person approved, of files for weights."""
    def estimate(value):
        return {"value": value, "low": value, "high": value, "n": 9, "level": 0.95}

    steps = {
        "snapshot": lambda its, turn, place: {"last": {}, "comparisons": 1, "new": 1, "labelers": 1, "judgments": 1, "kinds": {},
                                              "prompts": 1},
        "audit": lambda its, turn, place: {"train": 1, "held_out": 0, "left_out": 0, "set_aside": []},
        "reward": lambda its, turn, place: {"reward": None},
        "policy": lambda its, turn, place: model(place, turn.number) or {"base": turn.begun["model"]},
        "verify": lambda its, turn, place: {"figures": {"win_rate": estimate(0.9), "judge": {"new": None, "old": None}},
                                            "prompts": 9, "answers": 1},
        "gate": lambda its, turn, place: write_json(place / "gate.json", {"rules": [], "verdict": "better"}) or {
            "verdict": "better", "ships": True, "failed": []}}
    for name, step in steps.items():
        monkeypatch.setitem(drive.STEPS, name, step)
    monkeypatch.setattr(drive.collect, "gather", lambda its, last: drive.collect.Gathered(new=100))
    open_database(folder / "feedback.db").close()
    world.write_prompts(folder / "verify.jsonl", 2, 2)
    its = read_recipe(world.recipe(folder, **parts))
    for number in range(turns):
        drive.drive(its)
        decide(its)
        if number < turns - 1 or not its.canary.share:
            monkeypatch.setattr(drive.collect, "gather", lambda its, last: drive.collect.Gathered(new=0))
            drive.drive(its)
            monkeypatch.setattr(drive.collect, "gather", lambda its, last: drive.collect.Gathered(new=100))
    monkeypatch.setattr(drive.collect, "gather", lambda its, last: drive.collect.Gathered(new=0))
    return its


def decide(its):
    loop, turn, own = drive.waiting(its)
    approval.decide(own, loop, turn, by="ada", how="test", yes=True)


class Site(Served):
    """A server that follows a loop; each model is a toy of its own seed."""

    def __init__(self, its, **options):
        import uvicorn

        from harken.serve.app import create_app
        from harken.serve.follow import Follow
        from harken.serve.server import Server
        seeds = {"start": 0, "turn-0001": 1, "turn-0002": 2}
        followed = Follow(its, lambda name, word: weights(name, toy_sampler(seeds[name])), "harken")
        self.server = Server(followed.arms(), db=open_database(its.db[0]), **options)
        self.server.follow(followed)
        self.uvicorn = uvicorn.Server(uvicorn.Config(create_app(self.server), port=0, log_level="warning"))
        import threading
        self.thread = threading.Thread(target=self.uvicorn.run, daemon=True)
        self.thread.start()
        while not self.uvicorn.started:
            assert self.thread.is_alive()
            time.sleep(0.01)
        self.port = self.uvicorn.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def answering(self):
        """Name → share of what answers now."""
        return {b.name: w for b, w in zip(self.server.arms.backends, self.server.arms.weights)}

    def until(self, wanted, seconds=20.0):
        """Seconds until these answer."""
        began = time.monotonic()
        while self.answering() != wanted:
            assert time.monotonic() - began < seconds, self.answering()
            time.sleep(0.01)
        return time.monotonic() - began


def test_a_server_follows_approvals_canaries_and_rollbacks(tmp_path, monkeypatch):
    its = promoted(tmp_path, monkeypatch)
    site = Site(its, keys={"ada": "a" * 20, "bo": "b" * 20})
    try:
        key = {"Authorization": "Bearer " + "a" * 20}
        assert site.answering() == {"turn-0001": 1.0, "start": 0.0}
        answers = {site.chat(f"Hi {i}", headers=key, max_tokens=2)[1]["system_fingerprint"] for i in range(3)}
        assert len(answers) == 1
        assert site.call("GET", "/loop/state", **key)[1]["serving"] == "turn-0001"
        for who, status in (({}, 401), ({"Authorization": "Bearer " + "b" * 20}, 403)):
            assert site.call("GET", "/loop/state", **who)[0] == status
            assert site.call("POST", "/loop/decide", {"decision": "rollback"}, **who)[0] == status
        assert "turn-0001" not in site.call("GET", "/loop")[1]
        # both are loaded: the old one answers within a second of the click
        began = time.monotonic()
        assert site.call("POST", "/loop/decide", {"decision": "rollback"}, **key)[0] == 200
        site.until({"start": 1.0, "turn-0001": 0.0})
        assert time.monotonic() - began < 1.0 or os.getloadavg()[0] > 4  # a machine that others fill is slow at everything
        # a turn passes its gate: the page approves what it showed, and nothing else
        monkeypatch.setattr(drive.collect, "gather", lambda its, last: drive.collect.Gathered(new=100))
        given = read_recipe(world.recipe(tmp_path, canary={"share": 0.25}))
        drive.drive(given)
        assert site.call("POST", "/loop/decide", {"decision": "approve", "turn": 1}, **key)[0] == 409
        assert site.call("POST", "/loop/decide", {"decision": "approve", "turn": "2"}, **key)[0] == 400
        assert site.call("POST", "/loop/decide", {"decision": "maybe"}, **key)[0] == 400
        assert site.call("POST", "/loop/decide", {"decision": "approve", "turn": 2, "comment": "warm"}, **key)[0] == 200
        drive.drive(given)
        site.until({"start": 0.75, "turn-0002": 0.25, "turn-0001": 0.0})
        asked = [site.chat(f"Hello {i}", headers=key, max_tokens=1, user=f"u{i}") for i in range(30)]
        assert all(status == 200 for status, *_ in asked)
        site.call("POST", "/loop/decide", {"decision": "rollback"}, **key)
        site.until({"start": 1.0, "turn-0001": 0.0})
    finally:
        site.stop()


def test_what_was_not_approved_is_not_served(tmp_path, monkeypatch):
    from harken.serve.follow import Follow
    its = promoted(tmp_path, monkeypatch)
    file = Path(Loop(its.out).turn(1).policy) / "model" / "model.safetensors"
    file.write_bytes(b"other weights")
    with pytest.raises(UserError, match="weights of turn 1 changed after ada approved it"):
        Follow(its, lambda name, word: weights(name)).arms()


def test_a_changed_model_never_replaces_what_answers(tmp_path, monkeypatch):
    its = promoted(tmp_path, monkeypatch)
    loop = Loop(its.out)
    with loop.deciding():
        loop.point("test", "test", serving=0, previous=None)
    site = Site(its)
    try:
        model = Path(loop.turn(1).policy) / "model" / "model.safetensors"
        whole = model.read_bytes()
        model.write_bytes(b"other weights")
        with loop.deciding():
            loop.point("test", "test", serving=1, previous=0)
        pointer = (loop.root / "serving.json").read_text()
        older = json.dumps(json.loads(pointer) | {"history": json.loads(pointer)["history"][:-1]})

        def refused(times):
            deadline = time.monotonic() + 20
            while f"harken_loop_refused_total {times}" not in site.call("GET", "/metrics")[1]:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert site.answering() == {"start": 1.0} and site.chat("Hi", max_tokens=1)[0] == 200
        refused(1)
        for times, text in ((2, "{}"), (3, older), (4, None)):  # damaged, changed, and gone
            (loop.root / "serving.json").write_text(text) if text else (loop.root / "serving.json").unlink()
            refused(times)
        (loop.root / "serving.json").write_text(pointer)
        model.unlink()  # not there at all: the server goes on looking
        with loop.deciding():
            loop.point("test", "test", applied=2)
        refused(5)
        model.write_bytes(whole)
        with loop.deciding():
            loop.point("test", "test", applied=1)
        site.until({"turn-0001": 1.0, "start": 0.0})
    finally:
        site.stop()


@pytest.mark.slow
def test_a_real_turn_survives_real_kills(tmp_path):
    """`harken loop` on toy weights, killed by SIGKILL as soon as it works on the reward, the policy, the verification: one whole
    turn, nothing twice."""
    world.start(tmp_path, each=100, epochs=1.0)
    world.write_prompts(tmp_path / "verify.jsonl", 10, 10)
    import numpy as np
    rng = np.random.default_rng(0)
    people = world.users(10)
    with open_database(tmp_path / "feedback.db") as db:
        db.add_judgments([world.judged(people[i % 10], world.prompt(i), *rng.choice(list(world.LETTERS), 2, replace=False), rng)
                          for i in range(60)])
    given = world.recipe(tmp_path, policy={"method": "rloo", "settings": {**world.RLOO, "steps": 4}},
                         gate={"rules": [{"metric": "win_rate", "need": "not_worse", "margin": 0.9}]})
    (tmp_path / "recipe.json").write_text(json.dumps(given))
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "harken", "loop", str(tmp_path / "recipe.json")]
    loop = Loop(tmp_path / "loop")
    for sign in (".reward", ".policy", ".verify"):
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (loop.root / "turns" / "0001" / sign).exists():
            assert process.poll() is None, sign
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not loop.turns()[0].has(sign[1:]) and loop.pointer["serving"] == 0
    assert subprocess.run(command, env=env, check=True, capture_output=True, text=True).returncode == 0
    (turn,) = loop.turns()
    turn.check("gate")
    assert turn.facts("snapshot")["comparisons"] == 60 and read_json(turn.path / "gate" / "gate.json")["rules"]
    shutil.rmtree(tmp_path / "loop")
