"""Completions sampled while the step before is learnt from: whose weights spoke, what corrects it, and a resumed run."""

import dataclasses
import json
import sys
import threading

import pytest

from harken.core.errors import UserError
from harken.core.protocols import Sample
from harken.core.run import NEW
from harken.launch.find import find_method
from harken.loops.ahead import Ahead
from stopping import stopped_after
from test_rollouts_ray import FakeRay
from trials import assert_bit_equal, config, rows, run

SETTINGS = {"reward": "gold", "lora_rank": 4, "max_tokens": 8, "steps": 4, "prompts_per_step": 3, "learning_rate": 1e-2,
            "max_staleness": 1}


@pytest.fixture
def here(files, tmp_path):
    """A run that samples ahead in its own process."""
    return run("rloo", files, tmp_path / "here", rollouts="ray:0", **SETTINGS).path


def test_completions_are_one_version_old_and_corrected(here, files, tmp_path):
    log = rows(here)
    assert [row["staleness"] for row in log] == [0, 1, 1, 1]
    assert log[0]["mismatch"] < 1e-4 < log[1]["mismatch"] and log[1]["correction"] != 1.0
    fresh = rows(run("rloo", files, tmp_path / "fresh", rollouts="ray:0", **(SETTINGS | {"max_staleness": 0})).path)
    assert fresh[0]["reward"] == log[0]["reward"] and fresh[1]["reward"] != log[1]["reward"]
    assert "staleness" not in fresh[1]


def test_a_killed_run_goes_on_with_what_was_sampled_ahead(here, files, tmp_path):
    out = tmp_path / "killed"
    with stopped_after(2):
        run("rloo", files, out, rollouts="ray:0", checkpoint_seconds=0, **SETTINGS)
    run("rloo", files, out, rollouts="ray:0", checkpoint_seconds=0, **SETTINGS)
    assert_bit_equal(here, out)
    assert rows(here) == rows(out)


def test_workers_that_speak_while_the_learner_learns_give_the_same_bits(here, files, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    run("rloo", files, tmp_path / "two", rollouts="ray:2", **SETTINGS)
    assert_bit_equal(here, tmp_path / "two")
    assert rows(here) == rows(tmp_path / "two")


def test_a_run_that_began_before_these_settings_were_there_goes_on(files, tmp_path):
    settings = SETTINGS | {"max_staleness": 0, "steps": 2, "checkpoint_seconds": 0}
    out = tmp_path / "old"
    with stopped_after(1):
        run("rloo", files, out, **settings)
    known = json.loads((out / "config.json").read_text())
    new = {f.name: f.default for f in dataclasses.fields(find_method("rloo").Config) if f.name in NEW}
    assert {"max_staleness", "rollouts", "quantize", "optimizer"} <= new.keys()
    assert {name: NEW[name] for name in new} == new
    (out / "config.json").write_text(json.dumps({name: value for name, value in known.items() if name not in new}))
    assert run("rloo", files, out, **settings).result["steps"] == 2


class Slow:
    """An engine that speaks once it may, and says the version that it had when it was asked."""

    foreign, apart, lineage = True, True, {}

    def __init__(self):
        self.may, self.version, self.order = threading.Event(), 0, []

    def update(self, version):
        self.order.append(("update", version))
        self.version = version

    def sample_ids(self, prompts, n, *, seed, **options):
        if threading.current_thread() is not threading.main_thread():
            self.may.wait(5)
        self.order.append(("sample", seed, self.version))
        return [[Sample((1,), "a", (-1.0,), (-1.0,), True, self.version)] * n for _ in prompts]


def test_new_weights_wait_for_what_is_being_said(files, tmp_path):
    inner = Slow()
    ahead = Ahead(config("rloo", files, tmp_path / "x", rollouts="ray:2", **SETTINGS), inner)
    ahead.coming = lambda step: ([(1, 2)], 10 + step) if step < 2 else None
    ahead.update(0)
    ahead.sample_ids([(1, 2)], 1, seed=10)
    assert inner.order == [("update", 0), ("sample", 10, 0)]  # the next step's is under way; the learner learns
    inner.may.set()
    ahead.update(1)
    (said,), = ahead.sample_ids([(1, 2)], 1, seed=11)
    assert said.version == 0 and inner.order == [("update", 0), ("sample", 10, 0), ("sample", 11, 0), ("update", 1)]
    ahead.close()


@pytest.mark.parametrize("settings,words", [({"rollouts": ""}, "there is none"),
                                            ({"rollouts": "http://a:1/v1", "rollouts_sleep": True}, "--rollouts-sleep")])
def test_what_cannot_be_sampled_ahead_is_refused(files, tmp_path, settings, words):
    with pytest.raises(UserError, match=words):
        run("rloo", files, tmp_path / "r", **SETTINGS, **settings)
    assert not (tmp_path / "r").exists()
