"""A tiny model for tests and method development: 2 layers, 64 wide, one character a token."""

from __future__ import annotations

from typing import Any

import torch

CHARACTERS = "\n !\"'(),-.0123456789:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role[0] }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>a\n{% endif %}"
)


def toy_tokenizer() -> Any:
    """Character-level, with a ChatML-like template; anything outside `CHARACTERS` is <unk>."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    vocabulary = {t: i for i, t in enumerate(["<pad>", "<unk>", "<|im_start|>", "<|im_end|>", *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<|im_end|>",
                                   additional_special_tokens=["<|im_start|>"])
    fast.chat_template = TEMPLATE
    return fast


def toy_model(architecture: str = "llama", seed: int = 0, vocabulary: int = 4 + len(CHARACTERS)) -> Any:
    """A randomly initialised Llama (grouped keys) or GPT-2 (absolute positions), float32."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        if architecture == "gpt2":
            return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_positions=512, n_embd=64, n_layer=2, n_head=4,
                                              bos_token_id=3, eos_token_id=3, pad_token_id=0))
        return LlamaForCausalLM(LlamaConfig(
            vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
            bos_token_id=3, eos_token_id=3, pad_token_id=0))
    finally:
        torch.set_rng_state(state)
