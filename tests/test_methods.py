"""Every method of harken/methods learns on the toy engine, and ends the same whether killed or not."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from harken.core.config import RunConfig, TrainConfig, field_docs
from harken.core.errors import UserError
from harken.core.files import read_jsonl
from harken.core.protocols import Tree
from harken.core.records import Choice, Message, Prompt
from harken.core.settings import check_settings
from harken.launch.find import find_method, method_names
from harken.launch.models import open_engine
from harken.launch.rewards import open_reward
from harken.loops.reference import ReferenceSums
from harken.methods import dpo, ppo, reward_model, rloo, sft
from harken.text.fitting import by_options
from stopping import stopped_after
from trials import FILES, WORDS, assert_bit_equal, assert_reads_as_asked, assert_resumes_exactly, run, trial, write


def test_every_method_is_a_method():
    for name in method_names():
        module = find_method(name)
        assert issubclass(module.Config, RunConfig) and dataclasses.is_dataclass(module.Config)
        assert module.__doc__ and f"harken train {name}" in module.__doc__
        documented = field_docs(module.Config)
        assert [f.name for f in dataclasses.fields(module.Config) if f.name not in documented] == []
        assert Path(f"docs/methods/{name}.md").exists(), f"docs/methods/{name}.md is missing"
        assert module.TRIAL["data"] in FILES and trial(name).keys() <= {f.name for f in dataclasses.fields(module.Config)}, name


@pytest.mark.parametrize("method", [n for n in method_names() if find_method(n).TRIAL["data"] != "annotated"])
def test_every_method_reads_its_data_as_it_is_asked(files, tmp_path, method):
    assert_reads_as_asked(method, files, tmp_path)


@pytest.mark.parametrize("lora", [0, pytest.param(8, marks=pytest.mark.slow)])
def test_sft_learns(files, tmp_path, lora):
    rate, epochs = (5e-3, 4) if lora == 0 else (2e-2, 8)
    done = run("sft", files, tmp_path / "r", lora_rank=lora, learning_rate=rate, epochs=epochs, batch_size=8)
    losses = [r["nll"] for r in read_jsonl(done.path / "metrics.jsonl") if "nll" in r]
    floor = 0.6 if lora == 0 else 0.9  # adapters on a random model: its random embeddings stay
    assert losses[-1] < floor * losses[0]
    held = [r["heldout_nll"] for r in read_jsonl(done.path / "metrics.jsonl") if "heldout_nll" in r]
    assert held[-1] < (floor + 0.1) * held[0]
    assert done.result["heldout_nll"] == held[-1]


def test_reward_model_learns_for_new_prompts_and_new_people(files, tmp_path):
    demos = {"demonstrations": files["demonstrations"]}
    done = run("reward_model", files, tmp_path / "r", lora_rank=0, learning_rate=5e-3, epochs=4, batch_size=8, **demos)
    result = done.result
    assert result["accuracy"]["value"] > 0.95 and result["accuracy"]["low"] > 0.7
    assert result["accuracy_labelers"]["value"] > 0.8
    assert len(result["held_out_labelers"]) == 1
    assert result["baselines"]["constant"]["value"] == 0.5


def test_p16_demonstrations_average_zero(files, tmp_path):
    done = run("reward_model", files, tmp_path / "r", lora_rank=0, epochs=1, demonstrations=files["demonstrations"])
    from harken.store.files import read_demonstrations
    reward = open_reward(str(done.path))
    demos = read_demonstrations(files["demonstrations"]).records
    scores = reward.score([d.prompt for d in demos], [[d.completion] for d in demos])
    assert sum(s for (s,) in scores) / len(scores) == pytest.approx(0, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "beta"), [("dpo", 0.1), ("kto", 0.1), ("cdpo", 0.1), ("robust", 0.1), ("ipo", 0.1),
                                            ("hinge", 0.1), ("simpo", 2.0), ("orpo", 0.5)])
def test_dpo_and_its_kin_prefer_what_people_preferred(files, tmp_path, loss, beta):
    epochs = 5 if loss == "kto" else 3  # it moves every answer alone, and slower
    done = run("dpo", files, tmp_path / "r", loss=loss, beta=beta, lora_rank=0, learning_rate=4e-3, epochs=epochs, batch_size=6)
    rows = [r for r in read_jsonl(done.path / "metrics.jsonl") if "margin" in r]
    assert rows[-1]["accuracy"] > 0.85 and rows[-1]["margin"] > rows[0]["margin"]
    assert rows[0]["better_logp"] < 0 and rows[0]["worse_logp"] < 0
    assert done.result["heldout_accuracy"]["low"] > 0.55


@pytest.mark.parametrize("loss", ["dpo", "kto", "simpo"])
def test_several_peoples_rankings_of_the_same_answers_share_a_row_and_count_alike(toy_engine, loss):
    """Loss and gradient are those of the rankings one by one, though people met the answers in other orders."""
    tree = Tree((5, 6), ((7, 8, 3), (9, 3), (10, 11, 3)))
    ask = Prompt("q", (Message("user", "q"),))
    other = Tree(tree.prompt, tuple(tree.completions[i] for i in (2, 0, 1)))
    said = [(Choice(ask, ("a", "b", "c"), (1, 2, 3), "x"), tree), (Choice(ask, ("c", "a", "b"), (1, 2, 2), "y"), other)]
    config = dpo.Config(loss=loss, beta=0.5, nll_weight=0.3 if loss == "dpo" else 0.0)
    found = []
    for elements in (by_options(said), [(t, [c]) for c, t in said]):
        engine = toy_engine(lora_rank=4)
        for name, parameter in engine.trainable.items():
            if "lora_B" in name:
                parameter.data.fill_(0.05)
        data, _ = dpo.make_batch(config, engine, elements, ReferenceSums(engine, None))
        metrics = engine.forward_backward(data, lambda out, x: dpo.ranked_loss(config, out, x, 0.1))
        found.append((len(elements), metrics, torch.cat([p.grad.flatten() for p in engine.trainable.values()])))
    (one, a, grad_a), (two, b, grad_b) = found
    assert (one, two) == (1, 2)
    assert a == pytest.approx(b, abs=1e-5)
    assert torch.allclose(grad_a, grad_b, atol=1e-6)


def test_p32_rankings_of_ties_alone_are_left_out_of_dpo_and_said(files, tmp_path):
    rows = [{"prompt": f"Say {w}.", "completions": [w, w + "!"], "ranks": [1, 1 + i % 2]} for i, w in enumerate(WORDS * 4)]
    files["comparisons"] = write(tmp_path / "ties.jsonl", rows)
    done = run("dpo", files, tmp_path / "r", epochs=1, holdout=0.0)
    assert done.result["rankings"] == 16


@pytest.mark.slow
def test_reward_model_learns_who_reads_the_scale_upside_down(files, tmp_path):
    """Two of six labelers rank the wrong way round: their beta falls below 0, the others' does not."""
    rows = [json.loads(line) for line in Path(files["comparisons"]).read_text().splitlines()]
    rows = [r | {"ranks": [3 - x for x in r["ranks"]]} if r["labeler"] in ("l0", "l1") else r for r in rows]
    turned = files | {"comparisons": write(tmp_path / "turned.jsonl", rows)}
    settings = {"lora_rank": 0, "learning_rate": 5e-3, "epochs": 5, "batch_size": 8, "holdout_labelers": 0.0}
    done = run("reward_model", turned, tmp_path / "r", labelers="reliability", labeler_learning_rate=0.1, **settings)
    beta = {name: found["beta"] for name, found in done.result["labelers"].items()}
    assert max(beta["l0"], beta["l1"]) < 0 < 0.5 < min(b for n, b in beta.items() if n not in ("l0", "l1"))
    reward = open_reward(str(done.path))
    good = [(p, [p.text[4:-1], "warm warm warm"]) for p in (Prompt.of(f"Say {a} {b}.") for a in WORDS for b in WORDS[:4])]
    scores = reward.score([p for p, _ in good], [c for _, c in good])
    assert sum(a > b for a, b in scores) > 0.9 * len(scores)


def test_labelers_without_names_are_refused(files, tmp_path):
    rows = [json.loads(line) for line in Path(files["comparisons"]).read_text().splitlines()]
    bare = files | {"comparisons": write(tmp_path / "bare.jsonl", [{k: v for k, v in r.items() if k != "labeler"} for r in rows])}
    with pytest.raises(UserError, match="has to know who judged"):
        run("reward_model", bare, tmp_path / "r", labelers="reliability")


class Shorter:
    """A known reward: the fewer characters the better."""

    def score(self, prompts, completions):
        return [[-len(c) / 10 for c in group] for group in completions]


OPTIONS = [
    ("grpo", {"kl": "reward", "minibatches": 2}),
    ("grpo", {"kl": "k2", "scale": "batch"}),
    ("ppo", {"critic": "separate", "critic_learning_rate": 3e-3, "epochs_per_step": 2, "minibatches": 2}),
    ("ppo", {"minibatches": 1, "ema": 0.5, "kl_target": 50.0, "whiten_rewards": True})]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "settings"), OPTIONS, ids=lambda x: x if isinstance(x, str) else ",".join(x))
def test_p26_options_that_change_the_update_climb_too(files, tmp_path, monkeypatch, method, settings):
    """ "Shorter", untrained: from about 14 characters each must at least halve the length. (tests/test_toy_tasks.py has every
    method on every task, over three seeds.)"""
    monkeypatch.setattr("harken.launch.train.open_reward", lambda *a, **k: Shorter())
    done = run(method, files, tmp_path / "r", **{"reward": "gold", "lora_rank": 0, "learning_rate": 3e-3, "max_tokens": 16,
               "steps": 20, "beta": 0.0, "prompts_per_step": 8, "completions_per_prompt": 4, **settings})
    rows = read_jsonl(done.path / "metrics.jsonl")
    assert rows[-1]["length"] < 0.5 * rows[0]["length"], [r["length"] for r in rows]
    assert rows[-1]["reward"] > rows[0]["reward"]
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-4) and rows[0].get("logprob_gap_max", 0) < 1e-4


def test_p14_ppo_token_rewards_by_hand():
    """Two completions of 2 and 1 tokens, scores 1 and -2, β = 0.5; log-ratios 0.2, -0.4 and 1: the KL at every token, the
    score at the last (P14)."""
    from harken.core.protocols import Sample, Tree
    from harken.loops.rollout import Rollout
    samples = [[Sample((5, 6), "", (-1.0, -2.0), (-1.0, -2.0), True), Sample((7,), "", (-1.0,), (-1.0,), True)]]
    rolled = Rollout([], [Tree((1,), ((5, 6), (7,)))], samples, torch.tensor([[1.0, -2.0]]), torch.tensor([-1.2, -1.6, -2.0]),
                     torch.tensor([[-0.2, 1.0]]))
    assert ppo.token_rewards(rolled, 0.5).tolist() == pytest.approx([-0.1, 0.2 + 1.0, -0.5 - 2.0])


def test_p6_a_negative_kl_is_an_alarm_only_beyond_chance():
    """Four completions at -0.02 ± 0.004 happen by chance; 400 at -0.5 ± 0.1 mean that sampling and scoring disagree."""
    from harken.core.protocols import Sample, Tree
    from harken.loops.rollout import Rollout

    def rolled(kl):
        samples = [[Sample((5,), "", (-1.0,), (-1.0,), True)] for _ in kl]
        trees = [Tree((1,), ((5,),)) for _ in kl]
        return Rollout([], trees, samples, torch.zeros(len(kl), 1), torch.zeros(len(kl)), kl[:, None])

    rng = torch.Generator().manual_seed(0)
    rolled(-0.02 + 0.008 * torch.randn(4, generator=rng)).describe()
    with pytest.raises(UserError, match="below 0"):
        rolled(-0.5 + 0.1 * torch.randn(400, generator=rng)).describe()


def test_ppo_adapts_beta_by_hand(toy_engine):
    """KL at twice its target moves β by the clipped 20 % of 100 / 1000 completions; at half of it, down by as much."""
    state = ppo.State(ppo.Config(beta=0.1, kl_target=2.0, kl_horizon=1000), toy_engine(), None)
    state.adapt(4.0, 100)
    assert state.beta == pytest.approx(0.1 * 1.02)
    state.adapt(1.0, 100)
    assert state.beta == pytest.approx(0.1 * 1.02 * 0.98)


@pytest.mark.slow
def test_ppo_ptx_keeps_pretraining_text_likely(files, tmp_path, monkeypatch):
    """The same run with and without the pretraining gradient: the text ends more likely with it."""
    monkeypatch.setattr("harken.launch.train.open_reward", lambda *a, **k: Shorter())
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"the {a} {b} house is {c}" for a in WORDS for b in WORDS for c in WORDS[:3]))
    settings = {"reward": "gold", "lora_rank": 0, "learning_rate": 3e-3, "max_tokens": 16, "steps": 12, "prompts_per_step": 8,
                "completions_per_prompt": 4, "minibatches": 2}
    plain = run("ppo", files, tmp_path / "plain", **settings)
    ptx = run("ppo", files, tmp_path / "ptx", ptx_data=str(text), ptx_coef=1.0, ptx_length=32, **settings)
    rows = read_jsonl(ptx.path / "metrics.jsonl")
    assert rows[-1]["ptx_nll"] < 0.8 * rows[0]["ptx_nll"]
    from harken.evals.capability import document_nll
    documents = text.read_text().split("\n\n")[:20]
    nll = {r: sum(document_nll(open_engine(str(r.path)), documents)) for r in (plain, ptx)}
    assert nll[ptx] < 0.8 * nll[plain]


def test_every_preset_is_a_config():
    for preset in ppo.PRESETS.values():
        check_settings(dataclasses.replace(ppo.Config(), **preset))
    assert ppo.PRESETS["instructgpt-1.3b"]["ptx_coef"] == 27.8 and ppo.PRESETS["instructgpt-1.3b"]["ema"] == 0.992


@pytest.mark.slow
def test_ppo_critic_starts_from_the_reward_model(files, tmp_path):
    """Head and shift included: the first values are the reward model's scores of the state before each token."""
    rm = run("reward_model", files, tmp_path / "rm", lora_rank=0, epochs=1)
    done = run("ppo", files, tmp_path / "r", reward=str(rm.path), critic="reward", steps=2, prompts_per_step=4, max_tokens=8)
    assert read_jsonl(done.path / "metrics.jsonl")[0]["critic_grad_norm"] > 0
    from harken.engines.loading import load
    learner = open_engine("toy")
    critic = ppo.open_critic(ppo.Config(model="toy", reward=str(rm.path), critic="reward", lora_rank=0), learner)
    tree = learner.template.tree(Prompt.of("Say red."), ["blue"])
    # The value before the end token reads what the reward head reads on the text without it.
    value = float(critic.values([tree])[0][-1])
    shorter = Tree(tree.prompt, (tree.completions[0][:-1],))
    scored = open_reward(str(rm.path)).engine.scores([shorter])[0]
    assert value == pytest.approx(float(scored), abs=1e-5) and load(str(rm.path)).shift != 0


def test_the_best_above_the_mean_are_kept():
    from harken.core.protocols import Sample, Tree
    from harken.loops.rollout import Rollout
    from harken.methods.expert_iteration import best_of
    def sample(i, done=True):
        return Sample((i,), "", (0.0,), (0.0,), done)
    tree = Tree((1,), ((5,), (6,), (7,)))
    groups = [[sample(5), sample(6), sample(7, False)], [sample(5), sample(6), sample(7)]]
    rolled = Rollout([], [tree, tree], groups, torch.tensor([[1.0, 2.0, 9.0], [3.0, 3.0, 3.0]]), torch.zeros(0), torch.zeros(0))
    assert best_of(rolled, 1) == []  # the best has no end, the next is below the mean; equal scores teach nothing
    rolled.scores_PG[0] = torch.tensor([1.0, 5.0, 3.0])
    assert best_of(rolled, 2) == [Tree((1,), ((6,),))]


@pytest.mark.slow
def test_distill_comes_near_its_teacher(files, tmp_path):
    teacher = run("sft", files, tmp_path / "teacher", lora_rank=0, learning_rate=3e-3, epochs=6, batch_size=8)
    done = run("distill", files, tmp_path / "r", teacher=str(teacher.path), lora_rank=0, learning_rate=2e-3, max_tokens=16,
               steps=40, prompts_per_step=16)
    rows = read_jsonl(done.path / "metrics.jsonl")
    mean = lambda part: sum(r["kl_token"] for r in part) / len(part)  # noqa: E731
    assert mean(rows[20:]) < 0.6 * mean(rows[:3])  # of five seeds .38 to .50
    with pytest.raises(UserError, match="nothing to learn"):
        run("distill", files, tmp_path / "same")


@pytest.mark.slow
def test_p6_a_huge_beta_keeps_the_policy_at_the_reference(files, tmp_path, monkeypatch):
    monkeypatch.setattr("harken.launch.train.open_reward", lambda *a, **k: Shorter())
    settings = {"reward": "gold", "lora_rank": 0, "learning_rate": 4e-3, "max_tokens": 16, "steps": 18}
    free = run("rloo", files, tmp_path / "free", beta=0.0, monitor_every=1, **settings)
    held = run("rloo", files, tmp_path / "held", beta=1.0, **settings)
    kl = [sum(row["kl"] for row in read_jsonl(r.path / "metrics.jsonl")[-5:]) for r in (free, held)]
    assert kl[1] < 0.6 * kl[0]


def test_a_bad_method_config_is_refused(files, tmp_path):
    with pytest.raises(UserError, match="at least 2 completions"):
        run("rloo", files, tmp_path / "r", reward="gold", completions_per_prompt=1)
    with pytest.raises(UserError, match="No reward"):
        run("rloo", files, tmp_path / "r")
    with pytest.raises(UserError, match="unknown"):
        run("reward_model", files, tmp_path / "r", ties="maybe")
    with pytest.raises(UserError, match="--loss 'dop'"):
        run("dpo", files, tmp_path / "r", loss="dop")
    with pytest.raises(UserError, match="--beta"):
        run("dpo", files, tmp_path / "r", beta=0.0)
    assert not (tmp_path / "r" / "model").exists()


def test_p33_defaults_are_written_down_and_unchanged(files, tmp_path):
    """A changed default fails here: say so in the changelog."""
    assert dataclasses.asdict(rloo.Config())["beta"] == 0.05
    assert (sft.Config.epochs, reward_model.Config.epochs, TrainConfig.dtype) == (2.0, 1.0, "float32")
    done = run("sft", files, tmp_path / "r", epochs=0.1)
    saved = json.loads((done.path / "config.json").read_text())
    assert {f.name for f in dataclasses.fields(sft.Config)} <= saved.keys()


# --- resuming ----------------------------------------------------------------------------------------

QUICK = ("sft", "rloo")
"""Supervised and reinforced: what the unit tests stop and resume, of all methods."""


@pytest.mark.parametrize("method", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
                                    for name in method_names()])
def test_p22_stopped_between_any_steps_ends_the_same(files, tmp_path, method):
    assert_resumes_exactly(method, files, tmp_path)


def test_p22_changed_data_or_settings_are_refused(files, tmp_path):
    run("sft", files, tmp_path / "r", epochs=1)
    with pytest.raises(UserError, match="epochs: 1 there, 2 now"):
        run("sft", files, tmp_path / "r", epochs=2)
    Path(files["demonstrations"]).write_text('{"prompt": "x", "completion": "y"}\n')
    with pytest.raises(UserError, match="data has changed"):
        run("sft", files, tmp_path / "r", epochs=1)


def test_two_processes_cannot_write_one_run(files, tmp_path):
    from harken.core.run import Run
    with Run.open(tmp_path / "r", {}, {}), pytest.raises(UserError, match="another process"):
        Run.open(tmp_path / "r", {}, {})


@pytest.mark.slow
def test_p22_the_same_command_goes_on_after_a_kill(files, tmp_path):
    """From the outside: SIGKILL whenever it strikes, at least twice, and each time the same command. (tests/test_kill.py
    kills every method, at chosen operations.)"""
    command = [sys.executable, "-m", "harken", "train", "rloo", "--model", "toy", "--lora-rank", "4", "--checkpoint-seconds", "0",
               "--data", files["prompts"]]
    for name, value in {**trial("rloo"), "steps": 120}.items():
        command += ["--" + name.replace("_", "-"), str(value)]
    rng = random.Random(7)
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, capture_output=True)
    kills = 0
    for _ in range(20):
        out = tmp_path / "killed"
        process = subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        before = len(read_jsonl(out / "metrics.jsonl"))
        while process.poll() is None and len(read_jsonl(out / "metrics.jsonl")) == before:
            time.sleep(0.01)  # let it get past loading, so that the kill meets real work
        time.sleep(rng.random() * 0.3)
        if process.poll() is None and kills < 2:
            os.kill(process.pid, signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        else:
            process.wait()
            break
    assert kills >= 2, f"only {kills} kills met a running process"
    assert (tmp_path / "killed" / "result.json").exists()
    assert_bit_equal(tmp_path / "whole", tmp_path / "killed")


# --- groups ---------------------------------------------------------------------------------------

@pytest.fixture
def disagreeing(tmp_path):
    """Four in five say the word they were asked for is best ("brief"), one in five the longer answer ("warm")."""
    rows = []
    for i in range(240):
        word, other = WORDS[i % 8], WORDS[(i * 3 + 1) % 8]
        warm = i % 5 == 0
        rows.append({"prompt": f"Say {word} {i % 30}.", "completions": [word, f"{word} {other} {word}"],
                     "ranks": [2, 1] if warm else [1, 2], "labeler": f"l{i % 10}",
                     "group": {"style": "warm" if warm else "brief"}})
    return write(tmp_path / "groups.jsonl", rows)


GROUPED = {"labelers": "groups", "group_by": "style", "lora_rank": 0, "learning_rate": 3e-3, "epochs": 8, "batch_size": 16,
           "holdout_labelers": 0.0, "group_shrinkage": 0.01}


@pytest.mark.slow
def test_f16_groups_that_disagree_get_a_score_each(files, disagreeing, tmp_path):
    files["comparisons"] = disagreeing
    done = run("reward_model", files, tmp_path / "rm", **GROUPED)
    groups = done.result["groups"]
    assert groups["warm"]["accuracy"]["value"] > 0.9 and groups["brief"]["accuracy"]["value"] > 0.9
    assert groups["warm"]["shared_accuracy"]["value"] < 0.6
    assert done.result["worst_group_accuracy"] > 0.9
    asked, answers = [Prompt.of("Say red 3.")], [["red", "red blue red"]]
    plain = open_reward(str(done.path)).score(asked, answers)[0]
    by = {way: open_reward(str(done.path), aggregate=way).score(asked, answers)[0]
          for way in ("mean", "worst", "group:warm", "group:brief", "quantile:1.0")}
    assert by["group:warm"][1] > by["group:warm"][0] and by["group:brief"][0] > by["group:brief"][1]
    assert by["worst"] == pytest.approx([min(a, b) for a, b in zip(by["group:warm"], by["group:brief"])])
    assert by["quantile:1.0"] == pytest.approx([max(a, b) for a, b in zip(by["group:warm"], by["group:brief"])])
    share = groups["warm"]["rankings"] / (groups["warm"]["rankings"] + groups["brief"]["rankings"])
    mean = [share * a + (1 - share) * b for a, b in zip(by["group:warm"], by["group:brief"])]
    assert by["mean"] == pytest.approx(mean, abs=1e-5)
    assert plain != by["mean"]
    with pytest.raises(UserError, match="no group 'cold'"):
        open_reward(str(done.path), aggregate="group:cold")


@pytest.mark.slow
def test_p22_a_reward_model_of_groups_resumes_exactly(files, disagreeing, tmp_path):
    files["comparisons"] = disagreeing
    settings = {**GROUPED, "epochs": 1, "checkpoint_seconds": 0.0}
    whole = run("reward_model", files, tmp_path / "whole", **settings)
    with stopped_after(5):
        run("reward_model", files, tmp_path / "cut", **settings)
    assert_bit_equal(whole.path, run("reward_model", files, tmp_path / "cut", **settings).path)


def test_groups_that_are_not_there_are_refused(files, tmp_path):
    with pytest.raises(UserError, match="needs two groups or more"):
        run("reward_model", files, tmp_path / "r", labelers="groups", group_by="age")
    done = run("reward_model", files, tmp_path / "plain", epochs=0.2)
    with pytest.raises(UserError, match="has none"):
        open_reward(str(done.path), aggregate="worst")
    with pytest.raises(UserError, match="needs a reward model with groups"):
        open_reward("gold", aggregate="worst")
