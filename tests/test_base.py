"""Engines on one base: each computes what it would on a copy of its own, and none disturbs another."""

import json

import pytest
import torch

from harken.core.files import read_jsonl
from harken.core.protocols import Datum, Tree
from harken.core.records import Prompt
from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.engines.sampler import HFSampler
from harken.launch.find import find_method
from harken.launch.rewards import open_reward
from harken.launch.train import train as launch_train

WORDS = ["red", "blue", "green", "old", "new", "warm"]
TREES = [Tree((5, 6, 7), ((8, 9, 3), (10, 3))), Tree((11, 12), ((13, 14, 15, 3),))]


def trained(method, folder, rows, **settings):
    data = folder / f"{method}.jsonl"
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    module = find_method(method)
    config = module.Config(**{"model": "toy", "data": str(data), "out": str(folder / method), "lora_rank": 4,
                              "learning_rate": 1e-2, **settings})
    return launch_train(module, config, quiet=True).path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A policy's starting point, and a reward model that was trained from it."""
    folder = tmp_path_factory.mktemp("runs")
    sft = trained("sft", folder, [{"prompt": f"Say {w}.", "completion": w} for w in WORDS], batch_size=3)
    rankings = [{"prompt": f"Say {w}.", "completions": [w, "tall"], "ranks": [1, 2], "labeler": "l"} for w in WORDS * 2]
    return str(sft), str(trained("reward_model", folder, rankings, model=str(sft), batch_size=4, epochs=2))


def policy(sft):
    engine = Engine(load(sft), lora_rank=4)
    generator = torch.Generator().manual_seed(1)
    for parameter in engine.trainable.values():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    return engine


def learn(engine):
    data = [Datum(t, {"weights": [0.1] * sum(map(len, t.completions))}) for t in TREES]
    engine.forward_backward(data, lambda out, x: (-(out.logps_N * x["weights"]).sum(), {}))
    engine.step(1e-2)


def logps(engine, **options):
    return torch.cat([x for tree in engine.logprobs(TREES, **options) for x in tree])


def test_a_reward_on_the_policys_base_scores_as_its_own_copy_does(runs):
    sft, rm = runs
    engine = policy(sft)
    shared, alone = open_reward(rm, on=engine.shared), open_reward(rm)
    assert shared.engine.model is engine.model and alone.engine.model is not engine.model
    prompts, answers = [Prompt.of("Say red."), Prompt.of("Say old.")], [["red", "tall"], ["warm", "old", ""]]
    for _ in range(2):
        for ours, theirs in zip(shared.score(prompts, answers), alone.score(prompts, answers)):
            assert ours == pytest.approx(theirs, abs=1e-5)
        learn(engine)  # the policy moves, the reward does not


def test_whoever_shares_a_base_leaves_the_policy_as_it_is(runs):
    sft, rm = runs
    alone, engine = policy(sft), policy(sft)
    reward = open_reward(rm, on=engine.shared)
    critic = Engine(load(rm, on=engine.shared), lora_rank=4, head="value", name="critic", seed=3)
    own = set(map(id, engine.trainable.values()))
    assert own.isdisjoint(map(id, critic.trainable.values())) and len(critic.trainable) == len(engine.trainable) + 2
    for _ in range(3):
        reward.score([Prompt.of("Say red.")], [["red"]])
        critic.forward_backward([Datum(t, {}) for t in TREES], lambda out, x: (out.values_N.square().sum(), {}), logps=False)
        critic.step(1e-2)
        for made in (alone, engine):
            learn(made)
        assert torch.equal(logps(engine), logps(alone))
        assert torch.equal(logps(engine, reference=True), logps(alone, reference=True))
    drawn = [HFSampler(made).sample_ids([(5, 6, 7)], 3, max_tokens=8, seed=2) for made in (alone, engine)]
    assert drawn[0] == drawn[1]


def test_a_critic_on_the_rewards_adapter_starts_at_its_scores_and_leaves_them(runs):
    sft, rm = runs
    engine = policy(sft)
    reward = open_reward(rm, on=engine.shared)
    before = reward.engine.scores(TREES)
    critic = Engine(load(rm, on=engine.shared), lora_rank=4, head="value", name="critic")
    assert critic.names == (*reward.engine.names, "critic"), "the reward's adapter is read once"
    apart = Engine(load(rm), lora_rank=4, head="value")
    for shared, own in zip(critic.values(TREES), apart.values(TREES)):
        assert torch.allclose(shared, own, atol=1e-5)
    critic.forward_backward([Datum(t, {}) for t in TREES], lambda out, x: (out.values_N.square().sum(), {}), logps=False)
    critic.step(1e-1)
    assert not torch.allclose(critic.values(TREES)[0], apart.values(TREES)[0], atol=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(reward.engine.scores(TREES), before))


def test_only_the_policys_own_adapter_is_saved(runs, tmp_path):
    sft, rm = runs
    engine = policy(sft)
    open_reward(rm, on=engine.shared)
    Engine(load(sft, on=engine.shared), lora_rank=4, head="value", name="critic")
    engine.save(tmp_path / "model", base=sft)
    from safetensors import safe_open
    with safe_open(tmp_path / "model" / "own" / "adapter_model.safetensors", "pt") as found:
        assert len(list(found.keys())) == len(engine.trainable)
    assert sorted(p.name for p in (tmp_path / "model").iterdir() if p.is_dir()) == ["own"]


def test_a_policy_that_starts_from_the_reward_model_shares_it_head_and_all(runs):
    _, rm = runs
    engine = policy(rm)
    shared, alone = open_reward(rm, on=engine.shared).engine, open_reward(rm).engine
    assert shared.model is engine.model and shared.lineage == alone.lineage
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(shared.scores(TREES), alone.scores(TREES)))


def test_an_adapter_of_another_base_keeps_its_own(runs):
    sft, rm = runs
    engine = Engine(load("toy"), lora_rank=4)
    assert open_reward(rm, on=engine.shared).engine.model is not engine.model
    assert load("toy", on=engine.shared).model is engine.model
    assert Engine(load(sft)).shared is None, "all weights are trained: nothing stays to stand on"


@pytest.mark.parametrize("critic", [pytest.param("reward", marks=pytest.mark.slow), "separate"])
def test_ppo_learns_the_same_with_one_base_or_three_models(runs, tmp_path, monkeypatch, critic):
    sft, rm = runs
    asked = [{"prompt": f"Say {w}."} for w in WORDS]
    settings = {"model": sft, "reward": rm, "critic": critic, "steps": 3, "prompts_per_step": 3, "max_tokens": 6,
                "minibatches": 1}
    one = trained("ppo", tmp_path, asked, **settings)
    monkeypatch.setattr(Engine, "shared", None)
    three = trained("ppo", tmp_path, asked, **settings | {"out": str(tmp_path / "three")})
    for a, b in zip(read_jsonl(one / "metrics.jsonl"), read_jsonl(three / "metrics.jsonl"), strict=True):
        for name in ("reward", "kl", "value", "loss", "grad_norm", "critic_grad_norm"):
            assert a[name] == pytest.approx(b[name], abs=1e-4, rel=1e-3), name
