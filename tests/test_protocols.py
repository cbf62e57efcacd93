"""core/protocols.py is all that methods and loops use of an engine: a second engine that has nothing else trains and samples."""

import ast
from pathlib import Path

import pytest
import torch

import fake_engine
import harken.loops
import harken.methods
import trials
from harken.core import protocols
from harken.core.errors import UserError
from harken.core.files import read_json
from harken.core.protocols import Tree
from harken.core.run import Run
from harken.launch.find import find_method, method_names
from harken.loops.rollout import sample_step
from trials import rows, trial

VARIANTS = {"reward_model": [{"labelers": "plain"}], "ppo": [{"critic": "shared"}], "grpo": [{"kl": "k2"}],
            "distill": [{"direction": "forward"}], "dpo": [{"loss": "kto"}], "reinforce": [{"baseline": "none"}],
            "sft": [{"select": "reward", "reward": "gold", "holdout": 0.2}]}
CASES = [(name, own) for name in method_names() for own in [{}, *VARIANTS.get(name, [])]]


class Letters:
    """The share of an answer's characters that are small letters."""

    def score(self, prompts, completions):
        return [[sum(x.islower() for x in c) / max(1, len(c)) for c in group] for group in completions]


def fake_run(method, files, out, **settings):
    """The method's own `train`, on the fake engine."""
    module = find_method(method)
    config = trials.config(method, files, out, **{"checkpoint_seconds": 0.0, "max_length": 512, **settings})
    learner, sampler = fake_engine.engine(module, config)
    with Run.open(out, {"base": "toy", "reward_base": "gold"}, {}, checkpoint_seconds=0.0, quiet=True) as run:
        module.train(config, learner, sampler, Letters(), run)
    return run


@pytest.mark.parametrize(("method", "own"), CASES, ids=lambda x: x if isinstance(x, str) else ",".join(x))
def test_every_method_runs_on_an_engine_of_the_protocol_alone(files, tmp_path, method, own):
    done = fake_run(method, files, tmp_path / "r", **{**trial(method), **own})
    assert read_json(done.path / "result.json") and rows(done.path)


@pytest.mark.parametrize(("method", "rate"), [("rloo", 1.0), ("ppo", 0.1), *(
    pytest.param(*case, marks=pytest.mark.slow) for case in (("reinforce", 1.0), ("grpo", 1.0), ("expert_iteration", 0.1)))])
def test_the_fake_engine_learns(files, tmp_path, method, rate):
    """A bigram table can say more small letters: the reward rises by 30 % of what it began with, or more (chance: 5 %)."""
    own = {"beta": 0.0} if method != "expert_iteration" else {}
    done = fake_run(method, files, tmp_path / "r", reward="gold", steps=14, max_tokens=4, prompts_per_step=4,
                    completions_per_prompt=8, learning_rate=rate, missing_eos_penalty=0.0, **own)
    found = [row["reward"] for row in rows(done.path)]
    assert sum(found[-3:]) > 1.3 * sum(found[:3]) > 0, found


def test_sft_on_the_fake_engine_comes_near_the_bigrams_it_is_shown(files, tmp_path):
    done = fake_run("sft", files, tmp_path / "r", epochs=6, batch_size=8, learning_rate=0.3)
    nll = [row["nll"] for row in rows(done.path) if "nll" in row]
    assert nll[-1] < 0.6 * nll[0]


def test_what_is_not_in_the_protocol_raises():
    learner = fake_engine.Only(fake_engine.Table(), protocols.Learner)
    assert learner.vocabulary > 0
    for name in ("reference", "values", "device", "model"):
        with pytest.raises(AttributeError, match="not in the protocol"):
            getattr(learner, name)
    with pytest.raises(AttributeError, match="not in the protocol"):
        learner.shift = 1.0


def test_a_sampler_that_speaks_with_old_weights_is_refused(toy_engine):
    """Weights of version 0 where those after 3 steps are asked for."""
    class Stale(fake_engine.TableSampler):
        def update(self, version):
            pass

    config = find_method("rloo").Config(max_tokens=4)
    with pytest.raises(UserError, match="of the weights after step 0, and the learner is at 3"):
        sample_step(config, Stale(fake_engine.Table()), [(5, 6)], 2, 3, 0)


def test_the_real_sampler_says_which_weights_spoke(toy_engine):
    from harken.engines.sampler import HFSampler
    sampler = HFSampler(toy_engine(train=False))
    sampler.update(7)
    assert {s.version for s in sampler.sample_ids([(5, 6), (7,)], 2, max_tokens=3)[0]} == {7}


def test_the_real_engine_is_a_learner_and_a_sampler(toy_engine):
    """By name and, with mypy, by type."""
    from harken.engines.sampler import HFSampler
    engine = toy_engine(lora_rank=4, head="reward")
    for protocol in (protocols.Learner, protocols.RewardLearner, protocols.ValueLearner):
        assert [n for n in fake_engine.members(protocol) if not hasattr(engine, n)] == []
    assert [n for n in fake_engine.members(protocols.Rollouts) if not hasattr(HFSampler(engine), n)] == []
    other = engine.critic("toy", lora_rank=4, seed=0)
    assert torch.equal(other.values([Tree((5,), ((6, 7),))])[0], torch.zeros(2)) and other.vocabulary == engine.vocabulary


@pytest.mark.parametrize("path", sorted(p for f in (harken.methods, harken.loops) for p in Path(f.__path__[0]).glob("*.py")),
                         ids=lambda p: f"{p.parent.name}/{p.name}")
def test_methods_and_loops_name_no_engine(path):
    names = {n.id for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Name)}
    assert not names & {"Engine", "HFSampler", "Base", "load"}
