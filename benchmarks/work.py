"""The same work for both sides: data as a function of a seed, one word a token, and a model.

`BENCH_MODEL` is llama (4 layers, 4.2 M parameters, the default) or a folder with a model and its tokenizer; `BENCH_BF16` set
lets both sides compute in bfloat16, `BENCH_LORA` is the rank of an adapter on all linear layers (0 trains every weight). With a
folder the batches are a quarter as large.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

VOCABULARY = 4096
PROMPT, ANSWER, RL_PROMPT = (16, 160), (8, 96), (16, 64)
MODEL, BF16 = os.environ.get("BENCH_MODEL", "llama"), bool(os.environ.get("BENCH_BF16"))
SMALL, LORA = MODEL == "llama", int(os.environ.get("BENCH_LORA", "0"))
NEW_TOKENS, RL_GROUP = 32, 4
RL_PROMPTS, SFT_BATCH, PAIRS, PPO_PROMPTS, RANKINGS = (8, 16, 8, 32, 4) if SMALL else (2, 4, 2, 8, 1)
PPO_EPOCHS = 4
ENGLISH = ["the", "of", "to", "and", "in", "is", "that", "it", "for", "was", "on", "are", "with", "as", "be", "at", "by", "this"]


def tokenizer():
    """One whitespace-separated word is one token: counts are exact on both sides."""
    if not SMALL:
        from transformers import AutoTokenizer
        return AutoTokenizer.from_pretrained(MODEL)
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    words = ["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{i}" for i in range(VOCABULARY - 4))]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.decoder = decoders.Metaspace(replacement=" ", prepend_scheme="never")
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
                                   unk_token="<unk>", padding_side="left")


def llama(scorer: bool = False):
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
    torch.manual_seed(1 if scorer else 0)
    if not SMALL:
        kind = LlamaForSequenceClassification if scorer else AutoModelForCausalLM
        model = kind.from_pretrained(MODEL, dtype=torch.float32, **({"num_labels": 1} if scorer else {}))
        model.config.pad_token_id = tokenizer().pad_token_id
        return model
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=256, intermediate_size=688, num_hidden_layers=4,
                         num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=512, pad_token_id=0,
                         bos_token_id=1, eos_token_id=2, tie_word_embeddings=True, **({"num_labels": 1} if scorer else {}))
    return (LlamaForSequenceClassification if scorer else LlamaForCausalLM)(config)


def length(rng: random.Random, low: int, high: int) -> int:
    """Ragged, about log-normal, as lengths of real feedback are."""
    return max(low, min(high, int(rng.lognormvariate(0.0, 0.6) * (low + high) / 3)))


def words(rng: random.Random, n: int) -> str:
    if not SMALL:
        return " ".join(rng.choice(ENGLISH) for _ in range(n))
    return " ".join(f"w{min(VOCABULARY - 5, int(rng.paretovariate(0.7)))}" for _ in range(n))


def demonstrations(n: int, seed: int = 0) -> list[dict]:
    rng = random.Random(seed)
    return [{"prompt": words(rng, length(rng, *PROMPT)), "completion": words(rng, length(rng, *ANSWER))} for _ in range(n)]


def rankings(n: int, k: int, seed: int = 0) -> list[dict]:
    rng = random.Random(seed)
    return [{"prompt": words(rng, length(rng, *PROMPT)),
             "completions": [words(rng, length(rng, *ANSWER)) for _ in range(k)],
             "ranks": list(range(1, k + 1))} for _ in range(n)]


def prompts(n: int, seed: int = 0) -> list[dict]:
    rng = random.Random(seed)
    return [{"prompt": words(rng, length(rng, *RL_PROMPT))} for _ in range(n)]


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)
