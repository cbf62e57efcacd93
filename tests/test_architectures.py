"""Models of every kind of computation against transformers' own forward: packed rows, the plain path, or a true sentence."""

import dataclasses
import importlib.util
import json
import sys
import warnings
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from harken.core.errors import UserError
from harken.core.protocols import Datum, Tree
from harken.engines import selfcheck
from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.engines.logprobs import token_logprobs
from harken.engines.sampler import HFSampler

ROOT = Path(__file__).parents[1]
TREES = [Tree((5, 6, 7), ((20, 21, 3), (22, 3))), Tree((9,), ((30, 31, 32, 3),))]


@pytest.fixture(scope="module")
def sweep():
    spec = importlib.util.spec_from_file_location("architectures", ROOT / "benchmarks" / "architectures.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["architectures"] = module
    spec.loader.exec_module(module)
    return module


def tried(sweep, kind, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sweep.write(kind, folder)
        return sweep.examine(kind, folder)


@pytest.mark.parametrize(("kind", "outcome", "why"), [
    ("cohere", "right", ""), ("gpt_oss", "right", ""), ("falcon", "plain", "its own"),
    ("mamba", "plain", "do not use transformers' attention interface"),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ("gemma2", "right", ""), ("deepseek_v3", "right", ""), ("bert", "plain", "more than one matrix"),
        ("diffllama", "plain", "a shared cache does not follow"))),
])
def test_every_kind_of_computation_is_exact(sweep, tmp_path, kind, outcome, why):
    """Log-probs, greedy samples, learning and loading equal transformers'; `examine` names the first that does not."""
    found, seen = tried(sweep, kind, tmp_path / kind)
    assert found == outcome and why in seen


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["granite", "qwen3_next", "lfm2", "gptj", "gpt_neo", "codegen", "bloom", "xglm", "mpt", "phimoe",
                                  "laguna", "jetmoe", "gemma3", "llama4_text", "modernbert-decoder", "rwkv", "mamba2", "zamba",
                                  "youtu", "git"])
def test_families_that_ended_in_a_refusal_or_a_traceback_are_right(sweep, tmp_path, kind):
    assert tried(sweep, kind, tmp_path / kind)[0] in ("right", "plain")


def test_the_page_names_every_causal_kind_of_transformers(sweep):
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    cells = [row.split(" | ")[1] for row in page[page.index(sweep.OPEN):page.index(sweep.CLOSE)].splitlines()[3:]]
    assert sorted(kind for cell in cells for kind in cell.split(", ")) == sweep.model_types()


def test_a_kind_that_sees_what_follows_is_refused(sweep, tmp_path):
    from transformers import BertConfig, BertLMHeadModel
    model = BertLMHeadModel(BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                                       vocab_size=60)).eval()
    with pytest.raises(UserError, match="its tokens see what follows them"):
        selfcheck.examine(model, "b")


def test_a_cap_far_above_the_logits_is_still_found(sweep):
    """Logits below 1 under a cap of 30: linear to 4e-4, which training would leave behind."""
    from transformers import Gemma2Config, Gemma2ForCausalLM
    model = Gemma2ForCausalLM(Gemma2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                                           head_dim=16, intermediate_size=32, vocab_size=60)).eval()
    assert selfcheck.examine(model, "g").cap == 30.0


def test_windows_that_the_attention_is_not_told_of_take_the_plain_path(sweep):
    """Masked by chunks of 8,192 tokens, which a short check cannot see."""
    from transformers import AutoModelForCausalLM
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(sweep.tiny_config("llama4_text")).eval()
    assert "chunks" in selfcheck.examine(made, "l").plain


def turned(sweep, folder, kind, longest, rope):
    """A small model with rotary factors of a kind."""
    from transformers import AutoConfig, AutoModelForCausalLM
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
                                  intermediate_size=32, vocab_size=300, pad_token_id=None, max_position_embeddings=longest,
                                  initializer_range=0.3, bos_token_id=256, eos_token_id=256,
                                  rope_parameters={"rope_theta": 10000.0, **rope}, original_max_position_embeddings=8)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    sweep.tokenizer().save_pretrained(folder)
    return Engine(load(str(folder)), train=False)


def test_a_text_past_the_length_where_rotary_factors_change_is_read_by_itself(sweep, tmp_path):
    """Phi-3's longrope: beside a longer text a short one's log-probs would move by a nat."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 8}
    engine, model = turned(sweep, tmp_path, "phi3", 64, rope), sweep.theirs(tmp_path)
    trees = [Tree((5, 6, 7, 8), ((20, 21), (22,))), Tree(tuple(range(5, 12)), ((20,), (23, 24), (25, 26, 27)))]
    assert (engine.context, engine.spoken) == (64, 8)
    assert sweep.far(engine.logprobs(trees), model, trees) < 1e-5
    scored = Engine(load(str(tmp_path)), train=False, head="reward")
    alone = [float(scored.scores([Tree(t.prompt, (c,))])[0]) for t in trees for c in t.completions]
    assert torch.cat(scored.scores(trees)).tolist() == pytest.approx(alone, abs=1e-5)
    (last,) = engine.last_logits(trees[1], (0,))
    with torch.no_grad():
        own = model(input_ids=torch.tensor([[*trees[1].prompt, *trees[1].completions[2]]])).logits[0, -1]
    assert torch.allclose(last[2], own, atol=1e-4)
    prompts = [tuple(range(5, 15)), (5, 6, 7, 8), tuple(range(30, 45))]
    samples = HFSampler(engine).sample_ids(prompts, 2, max_tokens=4, temperature=0.0, min_tokens=4)
    assert [[s.ids for s in g] for g in samples] == [[sweep.own_greedy(model, p, 4)] * 2 for p in prompts]
    with pytest.raises(UserError, match="passes 8, where this model's rotary factors change"):
        HFSampler(engine).sample_ids([(5, 6, 7, 8)], 1, max_tokens=8)


def test_rotary_factors_that_follow_what_was_computed_before_are_refused(sweep, tmp_path):
    engine = turned(sweep, tmp_path, "llama", 8, {"rope_type": "dynamic", "factor": 4.0})
    assert engine.context == 8
    with pytest.raises(UserError, match="A text has 12 tokens; past 8 "):
        engine.logprobs([Tree(tuple(range(5, 15)), ((20, 21),))])


def plainly(engine):
    """The same engine on the plain path, in the model's own attention."""
    engine.form = dataclasses.replace(engine.form, plain="a test asks for it")
    engine.model.config._attn_implementation = "sdpa"
    return engine


@pytest.mark.parametrize("architecture", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_the_plain_path_is_the_packed_one(toy_engine, architecture):
    """Log-probs, entropies, scores, values, gradients and samples of a model that both can compute."""
    for head in (None, "reward", "value"):
        packed, plain = (toy_engine(architecture, head=head, lora_rank=4) for _ in range(2))
        plainly(plain)
        data = [Datum(t, {"weights": [0.3] * sum(map(len, t.completions))}) for t in TREES]

        def objective(out, x, head=head):
            if head is None:
                return -(out.logps_N * x["weights"]).sum(), {"entropy": out.entropy_N.sum()}
            return (out.scores_C if head == "reward" else out.values_N).square().sum(), {}

        ours, theirs = (e.forward_backward(data, objective, entropy=head is None, temperature=0.7) for e in (plain, packed))
        assert ours == pytest.approx(theirs, rel=1e-4)
        for name, parameter in packed.trainable.items():
            other = plain.trainable[name].grad
            assert (parameter.grad is None) == (other is None)
            assert other is None or torch.allclose(parameter.grad, other, atol=1e-5), name
        for one, two in zip(packed.logprobs(TREES), plain.logprobs(TREES)):
            assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one, two))
    for cached in (True, False):
        plain = plainly(toy_engine(architecture))
        plain.form = dataclasses.replace(plain.form, cached=cached)
        prompts = [(5, 6, 7), (8, 9), (10, 11, 12), (13,)]
        ours, theirs = (HFSampler(e, max_batch=4).sample_ids(prompts, 2, max_tokens=9, seed=4)
                        for e in (plain, toy_engine(architecture)))
        assert [[s.ids for s in g] for g in ours] == [[s.ids for s in g] for g in theirs]
        assert all(a.logps == pytest.approx(b.logps, abs=1e-4) for x, y in zip(ours, theirs) for a, b in zip(x, y))


def test_the_plain_path_is_said_once_with_its_cost(sweep, tmp_path):
    from harken.launch.train import train as launch_train
    from harken.methods import sft
    sweep.write("mpt", tmp_path / "mpt")
    (tmp_path / "d.jsonl").write_text("".join(json.dumps({"prompt": c, "completion": c * 3}) + "\n" for c in "abcd"))
    config = sft.Config(model=str(tmp_path / "mpt"), data=str(tmp_path / "d.jsonl"), out=str(tmp_path / "run"), epochs=1)
    run = launch_train(sft, config, quiet=True)
    notes = [n for n in run.notes if "plain path" in n]
    assert len(notes) == 1 and "a prompt is computed again for each of its completions" in notes[0]


def test_capped_and_scaled_logits_have_the_gradient_of_autograd():
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(6, 8), torch.randn(30, 8), torch.randn(30)
    targets = torch.randint(0, 30, (6,))
    for scale, cap in ((0.3, 0.0), (1.0, 4.0), (0.5, 2.0)):
        grads = []
        for ours in (True, False):
            inputs = [x.clone().requires_grad_() for x in (hidden, weight, bias)]
            if ours:
                found, entropy = token_logprobs(*inputs, targets, 0.7, with_entropy=True, scale=scale, cap=cap)
            else:
                logits = scale * (inputs[0] @ inputs[1].T + inputs[2])
                logits = cap * torch.tanh(logits / cap) if cap else logits
                full = (logits / 0.7).log_softmax(-1)
                found, entropy = full.gather(-1, targets[:, None])[:, 0], -(full.exp() * full).sum(-1)
            (found * torch.arange(6)).sum().backward()
            grads.append([found.detach(), entropy.detach(), *(x.grad for x in inputs)])
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*grads))


