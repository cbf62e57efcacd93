"""The same work for both sides: data as a function of a seed, one word a token, and a 4-layer Llama of 4.2 M parameters."""

from __future__ import annotations

import json
import random
from pathlib import Path

VOCABULARY = 4096
PROMPT, ANSWER, RL_PROMPT = (16, 160), (8, 96), (16, 64)
NEW_TOKENS, RL_PROMPTS, RL_GROUP, SFT_BATCH, RANKINGS = 32, 8, 4, 16, 4


def tokenizer():
    """One whitespace-separated word is one token: counts are exact on both sides."""
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
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
    torch.manual_seed(1 if scorer else 0)
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=256, intermediate_size=688, num_hidden_layers=4,
                         num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=512, pad_token_id=0,
                         bos_token_id=1, eos_token_id=2, tie_word_embeddings=True, **({"num_labels": 1} if scorer else {}))
    return (LlamaForSequenceClassification if scorer else LlamaForCausalLM)(config)


def length(rng: random.Random, low: int, high: int) -> int:
    """Ragged, about log-normal, as lengths of real feedback are."""
    return max(low, min(high, int(rng.lognormvariate(0.0, 0.6) * (low + high) / 3)))


def words(rng: random.Random, n: int) -> str:
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
