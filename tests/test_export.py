"""A model that leaves is the model that Harken samples: runs as peft loads them, and `harken export model`."""

import json
import os
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import harken
from harken.core.errors import UserError
from harken.core.records import Prompt
from harken.engines import stacked
from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.engines.sampler import HFSampler

DEMONSTRATIONS = [{"prompt": f"Say {i}.", "completion": "Hello there." * (1 + i % 2)} for i in range(12)]
COMPARISONS = [{"prompt": f"Say {i}.", "completions": ["Hello there.", "No."], "ranks": [1, 2], "labeler": f"ann{i % 3}"}
               for i in range(12)]
QUESTIONS = ["Say 3.", "Who?", "Tell me a thing: now"]
FAST = {"epochs": 2, "learning_rate": 0.02, "holdout": 0, "quiet": True}


def words_model(folder, kind="llama", **options):
    """A tiny model with a byte-level BPE tokenizer of ChatML's kind."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
    words = Tokenizer(models.BPE())
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
                                  special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    words.train_from_iterator(["say hello there and tell me a thing, now and again: hello there, who says no"] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|im_end|>", pad_token="<|im_end|>",
                                        bos_token="<|im_start|>", unk_token="<|endoftext|>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}\n")
    sizes = ({"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512} if kind == "gpt2" else
             {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
              "intermediate_size": 64, "max_position_embeddings": 512})
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **tokens, **sizes, **options)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """SFT, DPO on it and a reward model on that, all adapters, in a folder where words/ is their base."""
    here = tmp_path_factory.mktemp("chain")
    before = Path.cwd()
    os.chdir(here)
    try:
        words_model(here / "words")
        harken.train("sft", model="words", data=DEMONSTRATIONS, out="sft", lora_rank=4, **FAST)
        harken.train("dpo", model="sft", data=COMPARISONS, out="dpo", lora_rank=8, **FAST)
        harken.train("reward_model", model="dpo", data=COMPARISONS, out="rm", lora_rank=4, **FAST)
    finally:
        os.chdir(before)
    return here


@pytest.fixture
def runs(chain, tmp_path, monkeypatch):
    """A copy of it as the working folder."""
    shutil.copytree(chain, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")
    return tmp_path / "runs"


def greedy(model, template, question, tokens=12):
    """What transformers generates, as ids."""
    prompt = template.prompt_ids(Prompt.of(question))
    out = model.generate(torch.tensor([prompt]), max_new_tokens=tokens, do_sample=False)
    return out[0, len(prompt):].tolist()


def nll(model, template, row):
    """transformers' negative log-likelihood of a demonstration, a token."""
    tree = template.tree(Prompt.of(row["prompt"]), [row["completion"]])
    ids = torch.tensor([[*tree.prompt, *tree.completions[0]]])
    with torch.no_grad():
        logps = model(input_ids=ids).logits[0, len(tree.prompt) - 1:-1].log_softmax(-1)
    return -float(logps.gather(-1, ids[0, len(tree.prompt):, None]).mean())


def assert_same_model(model, run):
    """That a model of transformers or peft is what Harken samples as `run`: greedy tokens, and log-probs to 1e-5."""
    engine = Engine(load(str(run)), train=False)
    sampler = HFSampler(engine)
    for question in QUESTIONS:
        own = sampler.sample_ids([engine.template.prompt_ids(Prompt.of(question))], 1, max_tokens=12, temperature=0.0)[0][0].ids
        assert list(own) == greedy(model, engine.template, question)
    for row in DEMONSTRATIONS[:2]:
        tree = engine.template.tree(Prompt.of(row["prompt"]), [row["completion"]])
        assert nll(model, engine.template, row) == pytest.approx(-float(engine.logprobs([tree])[0][0].mean()), abs=1e-5)


# --- runs as they are saved --------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["sft", "dpo", "rm"])
def test_peft_loads_a_chain_as_what_harken_samples(runs, run):
    """Case 6 of the log: the second adapter alone on the base of the base is another model."""
    from peft import AutoPeftModelForCausalLM
    assert_same_model(AutoPeftModelForCausalLM.from_pretrained(f"{run}/model").eval(), run)
    config = json.loads(Path(run, "model", "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "./words" and config["r"] == {"sft": 4, "dpo": 12, "rm": 16}[run]
    assert config["target_modules"] == sorted(config["target_modules"])


def test_the_second_adapter_alone_would_be_another_model(runs):
    """What was saved before: the check above can fail."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    alone = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("words"), "dpo/model/own").eval()
    assert abs(nll(alone, load("dpo").template, DEMONSTRATIONS[0])
               - nll(load_transformers("dpo"), load("dpo").template, DEMONSTRATIONS[0])) > 0.1


def load_transformers(run):
    from peft import AutoPeftModelForCausalLM
    return AutoPeftModelForCausalLM.from_pretrained(f"{run}/model").eval()


def test_a_run_saved_before_loads_bit_for_bit_as_one_saved_now(runs):
    """Before, model/ held the run's own adapter and named the lowest base."""
    shutil.copytree("dpo", "old")
    for name in (stacked.CONFIG, stacked.WEIGHTS):
        Path("old/model/own", name).replace(Path("old/model", name))
    Path("old/model/own").rmdir()
    a, b = (load(name).model.state_dict() for name in ("dpo", "old"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    found = stacked.chain(Path("old/model"), Path("old"))
    assert [str(f) for f in found.folders] == ["sft/model", "old/model"] and found.root == "words"


def test_saved_runs_hold_no_absolute_path_and_no_base_where_it_has_no_name(runs, tmp_path):
    base = str(runs / "words")
    for kind, rank in (("part", 4), ("full", 0)):
        harken.train("sft", model=base, data=DEMONSTRATIONS, out=f"{kind}", lora_rank=rank, **FAST)
        assert "./words" in Path("part/model/README.md").read_text()
        for file in Path(kind, "model").rglob("*"):
            assert str(tmp_path).encode() not in (file.read_bytes() if file.is_file() else b"")
    harken.train("sft", model="toy", data=DEMONSTRATIONS, out="toy_run", lora_rank=4, **FAST)
    assert json.loads(Path("toy_run/model/adapter_config.json").read_text())["base_model_name_or_path"] is None
    assert stacked.public_name("org/name") == "org/name" and stacked.public_name("smollm2") is None
    assert stacked.public_name("/nowhere/model") is None


def test_full_weights_of_a_run_stop_in_transformers_where_harken_stops(runs):
    from transformers import AutoModelForCausalLM
    harken.train("sft", model="words", data=DEMONSTRATIONS, out="full", lora_rank=0, **FAST)
    harken.train("dpo", model="full", data=COMPARISONS, out="on_full", lora_rank=4, **FAST)
    model = AutoModelForCausalLM.from_pretrained("full/model").eval()
    assert model.generation_config.eos_token_id == [2]
    assert_same_model(model, "full")
    assert json.loads(Path("on_full/model/adapter_config.json").read_text())["base_model_name_or_path"] == "./full/model"
    assert_same_model(load_transformers("on_full"), "on_full")


def test_a_stack_is_the_sum_by_hand():
    """Two adapters of rank 1 on one 2x2 layer, scales 2 and 4: 2 [1 2]'[3 4] + 4 [5 6]'[7 8], by hand."""
    import tempfile

    from safetensors.torch import save_file
    with tempfile.TemporaryDirectory() as here:
        for name, alpha, a, b in (("one", 2, [3., 4.], [1., 2.]), ("two", 4, [7., 8.], [5., 6.])):
            folder = Path(here, name)
            folder.mkdir()
            save_file({"x.lora_A.weight": torch.tensor([a]), "x.lora_B.weight": torch.tensor(b)[:, None]}, folder / stacked.WEIGHTS)
            config = {"peft_type": "LORA", "bias": "none", "r": 1, "lora_alpha": alpha, "target_modules": ["x"]}
            (folder / stacked.CONFIG).write_text(json.dumps(config))
        tensors, config = stacked.stack([Path(here, "one"), Path(here, "two")])
        total = config["lora_alpha"] / config["r"] * tensors["x.lora_B.weight"] @ tensors["x.lora_A.weight"]
        assert total.tolist() == [[2 * 3 + 4 * 35, 2 * 4 + 4 * 40], [2 * 6 + 4 * 42, 2 * 8 + 4 * 48]]
        special = {**json.loads(Path(here, "one", stacked.CONFIG).read_text()), "trainable_token_indices": [2]}
        Path(here, "one", stacked.CONFIG).write_text(json.dumps(special))
        assert stacked.stack([Path(here, "one"), Path(here, "two")]) is None
