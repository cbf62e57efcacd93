"""The memory that `--plan` counts, beside what autograd keeps, what a run holds and what was worked by hand."""

import dataclasses
import json
import re
import shlex
import textwrap
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from harken.cli.main import main
from harken.cli.options import Parser, add_config, make_config
from harken.core.errors import UserError
from harken.core.protocols import Tree
from harken.engines.attention import NAME
from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.engines.pretrained import Loaded
from harken.engines.toy import toy_tokenizer
from harken.launch.machine import free_memory
from harken.launch.plan import activations, logits, plan_of, setting_of
from harken.launch.shapes import EXAMPLES, measured, shape_of
from harken.launch.train import train
from harken.methods import dpo, grpo, reward_model, rloo, sft
from harken.text.template import Template

LAYERS = 6
ROOT = Path(__file__).parents[1]


def model(architecture):
    torch.manual_seed(0)
    if architecture == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=81, n_positions=512, n_embd=64, n_layer=LAYERS, n_head=4, bos_token_id=3,
                                          eos_token_id=3, pad_token_id=0)).eval()
    return LlamaForCausalLM(LlamaConfig(vocab_size=81, hidden_size=64, intermediate_size=176, num_hidden_layers=LAYERS,
                                        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
                                        tie_word_embeddings=True)).eval()


def nll(outputs, inputs):
    return -(outputs.logps_N * inputs["weight"]).sum(), {}


def kept(architecture, tree, **options):
    """Bytes that autograd keeps of a pass, each storage once, without weights and logits; with autocast's copies of weights."""
    own = model(architecture)
    own.config._attn_implementation = NAME
    engine = Engine(Loaded(own, Template(toy_tokenizer()), {}), seed=1, **options)
    weights = {p.untyped_storage()._cdata for p in engine.model.parameters()}
    sizes, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            sizes[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        engine.forward([tree])
    return sum(sizes.values())


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "anew"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_activations_are_what_autograd_keeps(architecture, rank, dtype, recompute):
    """Within 15 %, for one completion and for two side by side. Gradients in passing are not kept, nor, where layers are computed
    anew, the inside of the one at work."""
    for completions in (((5,) * 151,), ((5,) * 75, (6,) * 77)):
        tree = Tree((7,) * 50, completions)
        R = 50 + sum(map(len, completions)) - len(completions)
        with torch.device("meta"):
            shape = measured(model(architecture), "tiny", rank)
        config = sft.Config(model="toy", max_length=R, tokens_per_micro_batch=R, lora_rank=rank, dtype=dtype)
        s = dataclasses.replace(setting_of(sft, config, shape, 1, cpu=True), recompute=recompute, branches=len(completions))
        fewer = dataclasses.replace(s, shape=dataclasses.replace(shape, layers=LAYERS - 1), recompute=False)
        inside = activations(dataclasses.replace(s, recompute=False)) - activations(fewer)
        passing = R * (3 * shape.inner + 2 * shape.width) * s.bytes + (R * R if len(completions) > 1 else 0)
        planned = activations(s) - passing - (inside if recompute else 0)
        found = kept(architecture, tree, lora_rank=rank, dtype=dtype, recompute_layers=recompute)
        mixed = dtype == "bfloat16"
        found -= 2 * (shape.adapters if rank else shape.linear) if mixed and not recompute else 0
        assert planned == pytest.approx(found, rel=0.15), (len(completions), planned / found)


def test_numbers_are_those_of_the_loaded_model():
    engine = Engine(load("toy"), lora_rank=8)
    shape = shape_of("toy", 8)
    assert shape.adapters == sum(p.numel() for p in engine.trainable.values())
    assert shape.parameters == sum(p.numel() for p in load("toy").model.parameters())
    assert (shape.layers, shape.width, shape.inner, shape.heads, shape.groups, shape.head) == (2, 64, 128, 4, 2, 16)


@pytest.mark.parametrize(("name", "billions"), [("llama-1b", 1.236), ("llama-8b", 8.030), ("llama-70b", 70.554)])
def test_published_sizes(name, billions):
    assert shape_of(name).parameters / 1e9 == pytest.approx(billions, abs=5e-4)


def parts(plan):
    return {part.name: part.bytes for part in plan.parts}


def test_a_plan_worked_by_hand():
    """Llama 3.1 8B: P = 8,030,261,248, V·D = 128,256 · 4,096 = 525,336,576, in layers 6,979,584,000."""
    P, VD, L = 8_030_261_248, 525_336_576, 6_979_584_000
    S = L + 2 * VD
    full = parts(plan_of(dpo, dpo.Config(model="llama-8b", lora_rank=0, dtype="bfloat16"), cpu=False, advise=False))
    assert full["weights"] == full["gradients"] == 4 * P and full["optimiser (AdamW's two moments)"] == 8 * P
    assert full["reference"] == 2 * P
    split = parts(plan_of(sft, sft.Config(model="llama-8b", shard=True, lora_rank=0), 8, cpu=False, advise=False))
    assert split["weights"] == pytest.approx(4 * (P - S + S / 8))
    lora_plan = plan_of(sft, sft.Config(model="llama-8b", dtype="bfloat16"), cpu=False)
    lora = parts(lora_plan)
    assert lora["weights"] == 2 * P and "reference" not in lora
    both = plan_of(sft, sft.Config(model="llama-8b", dtype="bfloat16", shard=True), 2, cpu=False)
    assert parts(both)["weights"] == pytest.approx(2 * (P - S / 2)) and parts(both)["adapters"] == parts(lora_plan)["adapters"]
    assert both.loading == 2 * (P - S / 2 + 2 * L / 32) + 4 * 14336 * 4096
    assert parts(both)["what is split, gathered for a pass"] == 2 * 2 * L / 32
    cpu = plan_of(sft, sft.Config(model="llama-8b", dtype="bfloat16", shard=True), 2, cpu=True, advise=False)
    assert parts(cpu)["what is split, gathered for a pass"] == 2 * 14336 * 4096, "one matrix at a time"
    rollout = plan_of(rloo, rloo.Config(model="llama-8b", dtype="bfloat16", prompts_per_step=4, completions_per_prompt=8,
                                        reward="gold"), cpu=False)
    assert parts(rollout)["rollout cache, 32 rows of 1,024"] == 32 * 1024 * 32 * 2 * 8 * 128 * 2
    assert rollout.loading == 2 * P + 4 * VD


def test_logits_are_kept_only_while_few():
    s = setting_of(sft, sft.Config(model="llama-8b"), shape_of("llama-8b", 16), 1, cpu=True)
    chunk = 64 << 20
    assert logits(dataclasses.replace(s, tokens=1000)) == 1000 * 128256 * 4 + chunk
    assert logits(dataclasses.replace(s, tokens=4000)) == 2 * chunk


def test_each_change_says_what_it_would_need():
    config = sft.Config(model="llama-1b", lora_rank=0)
    plan = plan_of(sft, config, cpu=True)
    changes = dict(plan.changes)
    anew = plan_of(sft, dataclasses.replace(config, checkpoint_activations=True), cpu=True)
    assert changes["With --checkpoint-activations it"] == anew.total < plan.total
    assert changes["With all of these it"] <= min(changes.values())
    assert "it does not fit" in plan.text(plan.total - 1) and "it fits" in plan.text(plan.total)
    assert "With --lora-rank 16 it needs" in plan.text(1.0) and "With" not in plan.text(1e15)


def test_a_reward_on_the_policys_own_base_costs_its_adapter(tmp_path):
    data = tmp_path / "d.jsonl"
    data.write_text('{"prompt": "a", "completions": ["b", "c"], "ranks": [1, 2]}\n' * 8)
    run = train(reward_model, reward_model.Config(model="toy", data=str(data), out=str(tmp_path / "rm"), lora_rank=4, holdout=0,
                                                  epochs=1), quiet=True)
    shared = plan_of(grpo, grpo.Config(model="toy", reward=str(run.path)))
    assert parts(shared)["adapter of rm"] == 4 * shape_of("toy", 4).adapters
    apart = plan_of(grpo, grpo.Config(model="toy", reward=str(run.path), lora_rank=0))
    assert parts(apart)["reward rm"] == 4 * shape_of("toy").parameters
    assert shape_of(str(run.path)).parameters == shape_of("toy").parameters


def test_layers_that_were_not_counted_are_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "vocab_size": 100, "hidden_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64}))
    assert "a plain transformer layer" in plan_of(sft, sft.Config(model=str(tmp_path))).text()
    (tmp_path / "config.json").write_text('{"model_type": "no such kind"}')
    with pytest.raises(UserError, match="cannot be read"):
        plan_of(sft, sft.Config(model=str(tmp_path)))


def test_the_command_prints_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "dpo", "--model", "llama-1b", "--plan", "8", "--shard", "--dtype", "bfloat16"]) == 0
    shown = capsys.readouterr().out
    assert "8 processes, --shard" in shown and "free here, a process" in shown and not list(tmp_path.iterdir())
    assert main(["train", "sft", "--model", "nowhere/at/all", "--plan"]) == 2
    assert main(["train", "sft", "--model", "toy", "--plan", "0"]) == 2
    assert "no number of processes" in capsys.readouterr().err
    assert main(["train", "best_of_n", "--model", "toy", "--plan"]) == 2
    main(["train", "sft", "--help"])
    assert "--plan" in capsys.readouterr().out


def test_the_page_shows_what_the_command_counts():
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    rows = re.findall(r"^[|] `sft (.+) --plan (\d+)` [|] ([\d.]+) [|] ([\d.]+) [|]$", page, re.M)
    assert len(rows) == 7
    parser = Parser("sft")
    add_config(parser, sft.Config)
    for options, processes, loading, learning in rows:
        config = make_config(sft.Config, parser.parse_args(shlex.split(options)))
        plan = plan_of(sft, config, int(processes), cpu=False, advise=False)
        assert [f"{plan.peak(when) / 1e9:.2f}" for when in ("loading", "learning")] == [loading, learning], options
    shown = plan_of(sft, sft.Config(model="llama-8b", dtype="bfloat16"), cpu=False).text()
    assert textwrap.indent(shown, "    ") in page


def test_free_memory_is_shared_by_the_processes_of_a_machine(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert 0 < free_memory(2) < free_memory(1) < 1e14
    assert set(EXAMPLES) == {"llama-1b", "llama-8b", "llama-70b"}


def test_layers_are_computed_anew_where_learning_would_not_fit(tmp_path, monkeypatch):
    """With the same weights, and a note; where it fits, or would not help, nothing is said. Freed memory is kept only where
    twice the plan is free."""
    from harken.engines import cpu
    from harken.engines.hf import Engine
    given_back = []
    monkeypatch.setattr(cpu, "give_back", lambda: given_back.append(1))
    from harken.launch import train as launched
    made, original = [], Engine.__init__
    monkeypatch.setattr(Engine, "__init__",
                        lambda self, *a, **k: (made.append(k["recompute_layers"]), original(self, *a, **k))[1])
    model("llama").save_pretrained(tmp_path / "tiny")
    toy_tokenizer().save_pretrained(tmp_path / "tiny")
    (tmp_path / "d.jsonl").write_text('{"prompt": "a", "completion": "bc"}\n' * 4)
    config = sft.Config(model=str(tmp_path / "tiny"), data=str(tmp_path / "d.jsonl"), epochs=1, lora_rank=0)
    plan = plan_of(sft, config, advise=False)
    needed, weights = plan.peak("learning"), []
    for out, free in (("plenty", 2 * plan.total + 1), ("room", needed + 1), ("short", needed - 1)):
        monkeypatch.setattr(launched, "free_memory", lambda processes, free=free: free)
        path = train(sft, dataclasses.replace(config, out=str(tmp_path / out)), quiet=True).path
        weights.append((path / "model" / "model.safetensors").read_bytes())
        assert ("computed anew" in (path / "result.json").read_text() + (path / "lineage.json").read_text()
                + "".join(f.read_text() for f in path.glob("*.json*"))) == (out == "short")
        assert bool(given_back) == (out != "plenty")
    assert made == [False, False, True] and weights[0] == weights[1] == weights[2]
