"""What a step of experience must hold: one distribution, one KL, every score where it belongs."""

import dataclasses
import math

import pytest
import torch

from harken.core.config import RolloutConfig, SampleConfig
from harken.core.errors import UserError
from harken.core.files import read_jsonl
from harken.core.protocols import Sample
from harken.core.records import Prompt
from harken.engines.hf import Engine
from harken.engines.sampler import HFSampler
from harken.launch.find import find_method, method_names
from harken.loops.rollout import Gap, asks_reference, score
from marks import slow
from trials import run, weights

SETTINGS = {"reward": "gold", "lora_rank": 0, "max_tokens": 8, "steps": 1, "prompts_per_step": 3}


class Constant:
    def score(self, prompts, completions):
        return [[1.0 for _ in group] for group in completions]


def test_p4_the_gap_by_hand():
    """Log-prob differences 0 and ln 1.2 in bfloat16: mean and largest gap, and half of the ratios outside [0.9, 1.1]."""
    gap = Gap()
    gap.add(torch.tensor([0.0, math.log(1.2)]))
    found = gap.check(torch.bfloat16)
    assert found == pytest.approx({"logprob_gap": math.log(1.2) / 2, "logprob_gap_max": math.log(1.2), "ratio_outside": 0.5})
    with pytest.raises(UserError, match="disagree"):
        gap.check(torch.float32)


@pytest.mark.parametrize("method", ["rloo", *slow("reinforce", "grpo", "ppo", "distill")])
def test_p4_a_perturbed_sampler_stops_the_run(files, tmp_path, monkeypatch, method):
    """A sampler that is off by 0.01 nats a token, as one of other weights or precision would be."""
    original = HFSampler.sample_ids

    def perturbed(self, *args, **kwargs):
        return [[dataclasses.replace(s, logps=tuple(x + 0.01 for x in s.logps)) for s in group]
                for group in original(self, *args, **kwargs)]

    monkeypatch.setattr(HFSampler, "sample_ids", perturbed)
    settings = {k: v for k, v in SETTINGS.items() if k != "reward"} | {"teacher_system": "x"} if method == "distill" else SETTINGS
    with pytest.raises(UserError, match="silently off-policy"):
        run(method, files, tmp_path / "r", **settings)


def test_p3_no_method_samples_from_a_truncated_distribution(files, tmp_path, monkeypatch):
    """None has a setting for it, and a rollout asks for none."""
    for name in method_names():
        config = find_method(name).Config
        if issubclass(config, SampleConfig):
            assert not {"top_p", "top_k", "min_p", "min_tokens"} & {f.name for f in dataclasses.fields(config)}, name
    asked = []
    original = HFSampler.sample_ids
    monkeypatch.setattr(HFSampler, "sample_ids", lambda *args, **kwargs: asked.append(kwargs) or original(*args, **kwargs))
    run("rloo", files, tmp_path / "r", **SETTINGS)
    assert asked and all(kwargs.get("top_p", 1.0) == 1.0 and kwargs.get("min_tokens", 0) == 0 for kwargs in asked)


def test_p14_scores_are_clipped_then_lowered_where_the_end_is_missing():
    """Scores 5 and -0.5, clipped to ±2; the first has no end: 2 - 1. Who says nothing pays where that is
    asked. Of one without a score nothing is learnt, it is never 0."""
    class Fixed:
        def __init__(self, *scores):
            self.scores = scores

        def score(self, prompts, completions):
            return [list(self.scores)]

    samples = [[Sample((5,), "a", (0.0,), (0.0,), False), Sample((6, 3), "b", (0.0, 0.0), (0.0, 0.0), True)]]
    config = RolloutConfig(reward_clip=2.0, missing_eos_penalty=1.0)
    assert score(Fixed(5.0, -0.5), [Prompt.of("x")], samples, config)[0].tolist() == [[1.0, -0.5]]
    silent = [[Sample((5,), text, (0.0,), (0.0,), True) for text in ("", " \n", "b")]]
    for penalty, scores in ((0.0, [1.0, 1.0, 1.0]), (1.5, [-0.5, -0.5, 1.0])):
        config = dataclasses.replace(config, empty_penalty=penalty)
        assert score(Fixed(1.0, 1.0, 1.0), [Prompt.of("x")], silent, config)[0].tolist() == [scores]
    for missing in (None, math.nan):
        with pytest.raises(UserError, match="gave no score"):
            score(Fixed(1.0, missing), [Prompt.of("x")], samples, config)


@pytest.mark.parametrize(("method", "settings"), [
    ("rloo", {}), *slow(("grpo", {}), ("grpo", {"kl": "k2"}), ("grpo", {"scale": "batch"}))])
def test_p25_equal_rewards_are_counted_and_teach_nothing(files, tmp_path, monkeypatch, method, settings):
    """At the reference the KL's own gradient is 0 too: nothing moves, nothing is NaN, and the flat groups are said."""
    monkeypatch.setattr("harken.launch.train.open_reward", lambda *a, **k: Constant())
    done = run(method, files, tmp_path / "r", **{**SETTINGS, "missing_eos_penalty": 0.0, **settings})
    row = read_jsonl(done.path / "metrics.jsonl")[0]
    assert row["flat_groups"] == 3 and row["reward_std"] == 0 and row["grad_norm"] < 1e-4


def test_p5_the_kl_of_grpo_is_in_one_place(files, tmp_path, monkeypatch):
    """With --kl reward nothing of a huge β is left in the loss, at ρ = 1 -Σ w A = 0 whatever the KL; with k3 it is there."""
    monkeypatch.setattr("harken.launch.train.open_reward", lambda *a, **k: Constant())
    rows = {}
    for place in ("k3", "reward"):
        done = run("grpo", files, tmp_path / place, kl=place, **{**SETTINGS, "beta": 50.0, "steps": 4, "learning_rate": 1e-3,
                                                                 "missing_eos_penalty": 1.0})
        rows[place] = read_jsonl(done.path / "metrics.jsonl")
    assert all(abs(row["loss"]) < 1e-4 for row in rows["reward"])
    assert rows["k3"][-1]["loss"] > 1e-3


@pytest.mark.parametrize(("method", "settings"), [("rloo", {}), ("grpo", {"kl": "reward"}), ("ppo", {})])
def test_without_beta_the_reference_is_computed_for_the_log_alone(files, tmp_path, monkeypatch, method, settings):
    """Every second step: the rows between have no KL, and the weights are those of a run that computes it always, to the bit. A
    rule on the KL, a weight above 0 and an adaptive one ask for it at every step."""
    asked = []
    original = Engine.logprobs
    monkeypatch.setattr(Engine, "logprobs", lambda self, *a, reference=False, **k: (
        asked.append(reference), original(self, *a, reference=reference, **k))[1])
    common = {**SETTINGS, "lora_rank": 2, "steps": 3, "prompts_per_step": 2, "beta": 0.0, **settings}
    runs = {every: run(method, files, tmp_path / str(every), monitor_every=every, **common) for every in (2, 1)}
    rows = {every: read_jsonl(done.path / "metrics.jsonl") for every, done in runs.items()}
    assert sum(asked) == 2 + 3
    assert ["kl" in row for row in rows[2]] == [True, False, True] and all("kl" in row for row in rows[1])
    first, second = weights(runs[2].path), weights(runs[1].path)
    assert first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)
    assert any("the reference is computed every 2 steps" in note for note in runs[2].notes)
    config = dataclasses.replace(RolloutConfig(monitor_every=2), stop_when="kl>9")
    assert asks_reference(RolloutConfig(monitor_every=2), 1) and asks_reference(config, 1)
    assert asks_reference(find_method("ppo").Config(beta=0.0, kl_target=3.0), 1)
    assert not asks_reference(find_method("ppo").Config(beta=0.0), 1)
