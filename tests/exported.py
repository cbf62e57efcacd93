"""Models that leave, for the tests: a tiny one with words, a chain of runs on it, and whether another library has the same."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import harken
from harken.core.records import Prompt
from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.engines.sampler import HFSampler

DEMONSTRATIONS = [{"prompt": f"Say {i}.", "completion": "Hello there." * (1 + i % 2)} for i in range(12)]
COMPARISONS = [{"prompt": f"Say {i}.", "completions": ["Hello there.", "No."], "ranks": [1, 2], "labeler": f"ann{i % 3}"}
               for i in range(12)]
QUESTIONS = ["Say 3.", "Who?", "Tell me a thing: now"]
FAST = {"epochs": 2, "learning_rate": 0.02, "holdout": 0, "quiet": True}


def words_model(folder, kind="llama", **options):
    """A tiny model with a byte-level BPE tokenizer of ChatML's kind; sizes that transformers' GGUF reader takes for granted."""
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
    sizes = ({"n_embd": 32, "n_layer": 2, "n_head": 4} if kind == "gpt2" else
             {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "head_dim": 128 if kind == "qwen3" else 8, "intermediate_size": 64, "max_position_embeddings": 512})
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **tokens, **sizes, **options)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.15)
        halves = [i for token, i in tokenizer.get_vocab().items() if len(token) == 1 and not token.isascii()]
        model.get_output_embeddings().weight.data[halves] = 0.0  # llama.cpp's server lists no token that is half a character
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def pieces_model(folder, kind="llama", prefix=True):
    """A tiny model with a tokenizer of Llama 2's kind: SentencePiece's BPE with byte fallback, each way to part a token."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
    steps = [*([normalizers.Prepend("▁")] if prefix else []), normalizers.Replace(" ", "▁")]
    words = Tokenizer(models.BPE())
    words.normalizer = normalizers.Sequence(steps)
    words.train_from_iterator(["say hello there and tell me a thing, now and again: hello there, who says no, banana anna"] * 3,
                              trainers.BpeTrainer(vocab_size=90, show_progress=False))
    learnt = json.loads(words.to_str())["model"]
    order = list(dict.fromkeys("".join(m) for m in learnt["merges"]))
    letters = [t for t in learnt["vocab"] if len(t) == 1]
    vocabulary = {t: i for i, t in enumerate(["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *letters, *order])}
    merges = [(t[:i], t[i:]) for t in order for i in range(1, len(t)) if t[:i] in vocabulary and t[i:] in vocabulary]
    words = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    words.normalizer = normalizers.Sequence(steps)
    words.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                       *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.add_tokens([AddedToken("<|user|>", normalized=False, special=True),
                          AddedToken("<|assistant|>", normalized=False, special=True)])
    tokenizer.chat_template = ("{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
                               "{% if add_generation_prompt %}<|assistant|>{% endif %}")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(
            kind, vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            head_dim=8, intermediate_size=64, max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=None,
            **({"sliding_window": None} if kind == "mistral" else {})))
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.15)
        model.get_output_embeddings().weight.data[:259] = 0.0  # no token that is half a character
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


def assert_same_model(model, run, tolerance=1e-5):
    """That a model of transformers or peft is what Harken samples as `run`: greedy tokens, and negative log-likelihoods."""
    engine = Engine(load(str(run)), train=False)
    sampler = HFSampler(engine)
    for question in QUESTIONS:
        own = sampler.sample_ids([engine.template.prompt_ids(Prompt.of(question))], 1, max_tokens=12, temperature=0.0)[0][0].ids
        assert list(own) == greedy(model, engine.template, question)
    for row in DEMONSTRATIONS[:2]:
        tree = engine.template.tree(Prompt.of(row["prompt"]), [row["completion"]])
        assert nll(model, engine.template, row) == pytest.approx(-float(engine.logprobs([tree])[0][0].mean()), abs=tolerance)


def assert_llama_cpp_is(file, run, questions, tokens=12):
    """That llama.cpp's greedy tokens are Harken's: given the prompt's ids, and given the messages alone."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("llama.cpp is not here: pip install xllamacpp")
    engine = Engine(load(str(run)), train=False)
    prompts = [engine.template.prompt_ids(Prompt.of(q)) for q in questions]
    rows = [{"ids": ids, "messages": [{"role": "user", "content": q}]} for ids, q in zip(prompts, questions)]
    done = subprocess.run([sys.executable, str(Path(__file__).with_name("llama_greedy.py")), str(file), str(tokens)], text=True,
                          input="\n".join(map(json.dumps, rows)), capture_output=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    samples = HFSampler(engine).sample_ids(prompts, 1, max_tokens=tokens, temperature=0.0)
    for (own,), found in zip(samples, theirs, strict=True):
        ids = [i for i in own.ids if i not in engine.template.stop_ids]
        assert [i for i in found["ids"] if i not in engine.template.stop_ids] == ids
        assert [i for i in found["chat"] if i not in engine.template.stop_ids] == ids
