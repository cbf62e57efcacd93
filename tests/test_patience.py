"""`--eval-every` and `--patience`: measured when due, ended in time, the best weights kept, exact through a kill."""

import math

import pytest

import harken
from harken.core.files import read_jsonl
from harken.loops import held_out

PROMPTS = [f"Say {i}." for i in range(24)]
DEMONSTRATIONS = [{"prompt": p, "completion": "Hello."} for p in PROMPTS]
COMPARISONS = [{"prompt": p, "completions": ["Hi there.", "No."], "ranks": [1, 2]} for p in PROMPTS]
SFT = {"model": "toy", "data": DEMONSTRATIONS, "batch_size": 4, "holdout": 0.3, "epochs": 3, "eval_every": 2,
       "learning_rate": 0.05}


def held(path, name="heldout_nll"):
    return [(row["step"], row[name]) for row in read_jsonl(path / "metrics.jsonl") if name in row]


def weights(run):
    return (run.path / "model" / "adapter_model.safetensors").read_bytes()


def scripted(monkeypatch, losses):
    """What is measured, planted: the real measure runs, its figure is replaced."""
    left = iter(losses)
    real = held_out.HeldOut._measure

    def measure(self, step):
        self.measure = lambda: {"heldout_nll": next(left)}
        real(self, step)
    monkeypatch.setattr(held_out.HeldOut, "_measure", measure)


def test_measured_every_few_steps_and_at_the_end(tmp_path):
    run = harken.train("sft", **SFT, out=tmp_path / "r")
    steps = [step for step, _ in held(run.path)]
    assert steps[:4] == [0, 2, 4, 6] and steps[-1] == run.result["steps"] and "stopped" not in run.result


def test_patience_ends_and_keeps_the_best(tmp_path, monkeypatch):
    """Losses 3, 1, 2, 2: least at step 4, two worse ones, the end after step 8 with the weights of step 4."""
    scripted(monkeypatch, [3.0, 1.0, 2.0, 2.0])
    run = harken.train("sft", **SFT, patience=2, out=tmp_path / "r")
    assert run.result["stopped"]["step"] == 8 and run.result["kept_step"] == 4 and run.result["steps"] == 8
    monkeypatch.undo()
    four = harken.train("sft", **{**SFT, "schedule": "constant", "eval_every": 0}, out=tmp_path / "x")
    assert four.result["steps"] > 8
    scripted(monkeypatch, [1.0] + [2.0] * 9)
    at_two = harken.train("sft", **SFT, patience=1, out=tmp_path / "y")
    assert at_two.result["kept_step"] == 2 and weights(at_two) != weights(run)


def test_killed_and_continued_it_ends_the_same(tmp_path, monkeypatch):
    whole = harken.train("sft", **SFT, patience=2, out=tmp_path / "a", checkpoint_seconds=0)
    real = harken.Run.checkpoint

    def killed(self, step, save, *, force=False):
        done = real(self, step, save, force=force)
        if step == 5:
            raise KeyboardInterrupt
        return done
    monkeypatch.setattr(harken.Run, "checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        harken.train("sft", **SFT, patience=2, out=tmp_path / "b", checkpoint_seconds=0)
    monkeypatch.undo()
    again = harken.train("sft", **SFT, patience=2, out=tmp_path / "b", checkpoint_seconds=0)
    assert held(again.path) == held(whole.path) and weights(again) == weights(whole)
    assert again.result["kept_step"] == whole.result["kept_step"]


@pytest.mark.parametrize("method", ["dpo", "reward_model"])
def test_rankings_have_a_held_out_loss(tmp_path, method):
    run = harken.train(method, model="toy", data=COMPARISONS, batch_size=4, holdout=0.3, epochs=2, eval_every=3,
                       learning_rate=0.01, warmup=0, out=tmp_path / "r")
    values = [value for _, value in held(run.path, "heldout_loss")]
    assert len(values) >= 2 and values[-1] < values[0] and all(0 < v < 3 for v in values)


def test_the_loss_of_choices_is_bradley_terrys():
    """Scores 2, 0, 1 with ranks 1, 2, 2: pairs of margin 2 and 1; and a pair of margin -1. Mean of the rankings' means."""
    three = harken.Choice(harken.Prompt.of("a"), ("x", "y", "z"), (1, 2, 2))
    two = harken.Choice(harken.Prompt.of("b"), ("x", "y"), (1, 2))
    first = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2
    expected = (first + math.log1p(math.exp(1))) / 2
    assert held_out.choice_loss([three, two], [[2.0, 0.0, 1.0], [0.0, 1.0]]) == pytest.approx(expected)


def test_audits_have_patience_too(tmp_path):
    """Length is climbed; the held-out reward, its negative, is highest at the start: the run ends and keeps early weights."""
    prompts = [f"Say {i}." for i in range(40)]

    def shorter(prompts, completions):
        return [-float(len(text)) for text in completions]
    run = harken.train("rloo", model="toy", reward="measure:length", held_out_reward=shorter, data=prompts, steps=30, patience=2,
                       monitor_every=1, monitor_prompts=16, max_tokens=8, learning_rate=0.05, beta=0.0,
                       missing_eos_penalty=0.0, out=tmp_path / "r")
    stopped = run.result["stopped"]
    assert stopped["rule"] == "patience" and stopped["kept_step"] <= stopped["step"] - 2 and stopped["step"] < 30


def test_settings_that_contradict_each_other(tmp_path):
    for settings, message in (({"patience": 2, "eval_every": 0}, "none is asked for"), ({"holdout": 0}, "none is held out"),
                              ({"patience": 1, "select": "loss"}, "both say")):
        with pytest.raises(harken.UserError, match=message):
            harken.train("sft", **{**SFT, **settings}, out=tmp_path / "r")
    with pytest.raises(harken.UserError, match="waits for a held-out reward"):
        harken.train("rloo", model="toy", reward="measure:length", data=PROMPTS, patience=1, out=tmp_path / "r")
