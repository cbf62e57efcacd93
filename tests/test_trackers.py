"""Rows of metrics.jsonl in experiment trackers, once each: fakes that remember, and TensorBoard itself."""

import sys
import types

import pytest

import harken
from harken.core.files import read_jsonl
from harken.loops import trackers

PROMPTS = [f"Say {i}." for i in range(16)]
RLOO = {"model": "toy", "reward": "measure:length", "data": PROMPTS, "max_tokens": 4, "prompts_per_step": 4}


class Fakes:
    """Modules wandb, trackio and mlflow that write down what they are told."""

    def __init__(self):
        self.opened, self.rows, self.summary, self.closed, self.fail_at = [], [], {}, 0, None

    def log(self, step, metrics):
        if self.fail_at == step:
            raise ConnectionError("gone")
        self.rows.append((step, metrics.get("loss")))

    def wandb(self):
        run = types.SimpleNamespace(log=lambda metrics, step: self.log(step, metrics), summary=self.summary, finish=self.finish)

        def init(**settings):
            self.opened.append(settings)
            return run
        return types.SimpleNamespace(init=init)

    def trackio(self):
        return types.SimpleNamespace(init=lambda **settings: self.opened.append(settings), finish=self.finish,
                                     log=lambda metrics, step: self.log(step, metrics))

    def mlflow(self):
        def start_run(run_id=None, run_name=None):
            self.opened.append(run_id or run_name)
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id or "id-7"))

        def log_metrics(metrics, step=None):
            self.summary.update(metrics) if step is None else self.log(step, metrics)
        return types.SimpleNamespace(start_run=start_run, set_experiment=self.opened.append, end_run=self.finish,
                                     log_metrics=log_metrics, log_params=lambda params: self.opened.append(params["steps"]))

    def finish(self):
        self.closed += 1


@pytest.fixture(params=["wandb", "trackio", "mlflow"])
def fake(request, monkeypatch):
    fakes = Fakes()
    monkeypatch.setitem(sys.modules, request.param, getattr(fakes, request.param)())
    fakes.name = request.param
    return fakes


def expected(path):
    return [(row["step"], row.get("loss")) for row in read_jsonl(path / "metrics.jsonl")]


def test_every_row_once_also_through_a_kill_and_a_longer_run(tmp_path, fake, monkeypatch):
    """Killed after step 3 with a checkpoint after step 1, the run computes steps 2 and 3 again, and reports them once."""
    settings = {**RLOO, "report_to": fake.name, "out": tmp_path / "r", "steps": 4}
    real = harken.Run.checkpoint

    def only_first(self, step, save, *, force=False):
        if step == 3:
            raise KeyboardInterrupt
        return real(self, step, save, force=force or step == 1)

    monkeypatch.setattr(harken.Run, "checkpoint", only_first)
    with pytest.raises(KeyboardInterrupt):
        harken.train("rloo", **settings)
    assert [step for step, _ in fake.rows] == [1, 2, 3] and fake.closed == 0
    monkeypatch.setattr(harken.Run, "checkpoint", real)
    harken.train("rloo", **settings)
    assert fake.rows == expected(tmp_path / "r") and fake.closed == 1
    harken.train("rloo", **{**settings, "steps": 5})
    assert fake.rows == expected(tmp_path / "r") and len(fake.rows) == 5
    if fake.name == "wandb":
        assert len({opened["id"] for opened in fake.opened}) == 1 and fake.summary["result/steps"] == 5
    elif fake.name == "mlflow":
        assert fake.opened.count("id-7") == 2 and fake.summary["result/steps"] == 5


def test_a_tracker_that_fails_ends_no_run(tmp_path, fake):
    fake.fail_at = 2
    run = harken.train("rloo", **RLOO, steps=3, report_to=fake.name, out=tmp_path / "r")
    assert [step for step, _ in fake.rows] == [1]
    assert any(f"{fake.name} failed" in note and "gone" in note for note in run.result["notes"])


def test_tensorboard_files_hold_the_rows(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    harken.train("rloo", **RLOO, steps=3, report_to="tensorboard", out=tmp_path / "r")
    events = EventAccumulator(str(tmp_path / "r/tensorboard"))
    events.Reload()
    rows = read_jsonl(tmp_path / "r/metrics.jsonl")
    assert [(e.step, e.value) for e in events.Scalars("reward")] == [(r["step"], pytest.approx(r["reward"])) for r in rows]


def test_unknown_and_missing_trackers_are_said_before_anything_is_loaded(tmp_path, monkeypatch):
    with pytest.raises(harken.UserError, match="Did you mean wandb"):
        harken.train("rloo", **RLOO, report_to="wanb", out=tmp_path / "r")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(harken.UserError, match=r"pip install 'harken\[mlflow\]'"):
        harken.train("rloo", **RLOO, report_to="mlflow", out=tmp_path / "r")
    assert not (tmp_path / "r/config.json").exists()


def test_numbers_of_a_result():
    found = trackers.figures({"steps": 3, "value": {"value": 0.5, "low": 0}, "done": True, "words": "x", "bad": float("nan")})
    assert found == {"result/steps": 3, "result/value": 0.5}
