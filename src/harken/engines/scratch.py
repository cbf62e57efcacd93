"""A model to pretrain: its tokenizer from the corpus, its size from a budget of parameters; or a checkpoint with control tokens.

    make_new(folder, texts, architecture="llama", size="2M", vocabulary=4096, context=512, seed=0, segmenter="line")
    add_control(folder, load("smollm2"), "sentence", seed=0)

Both write a folder that `load` opens. The rows of the control tokens begin as the mean of the last layer's rows plus
0.01 N(0, 1) (the authors' code, after Hewitt 2021).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harken.core.errors import UserError
from harken.core.files import write_json
from harken.core.seeds import derive_seed
from harken.engines.loading import load
from harken.engines.routed import widen
from harken.text.tags import BAD, GOOD, Control, add_tokens

END = "<|endoftext|>"
ARCHITECTURES = ("llama", "gpt2")
NOISE = 0.01


def parse_size(size: str) -> int:
    """Parameters of "500K", "2M", "1.5B" or a number."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMB]?)", size.strip().upper())
    if not found or not (count := int(float(found[1]) * {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}[found[2]])):
        raise UserError(f"--size {size!r} is no number of parameters.", "Write it like 500K, 2M or 124M.")
    return count


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """Byte-level BPE of `vocabulary` tokens, the end token and both control tokens among them: any text, without unknowns."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocabulary < len(alphabet) + 3:
        raise UserError(f"--vocabulary {vocabulary} is too small.", f"It must be at least {len(alphabet) + 3}: a token a byte.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[END, GOOD, BAD], initial_alphabet=sorted(alphabet),
                                  show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=tokenizer, eos_token=END, additional_special_tokens=[GOOD, BAD])


def config_for(architecture: str, size: str, vocabulary: int, context: int) -> Any:
    """The widest model of the kind within the budget: 32 to 64 wide a head, about a layer for every 48 of width."""
    if architecture not in ARCHITECTURES:
        raise UserError(f"--architecture {architecture!r} is unknown.", f"Use one of {', '.join(ARCHITECTURES)}.")
    budget, best = parse_size(size), None
    for width in range(32, 8193, 32):
        config = _config(architecture, width, vocabulary, context)
        if _parameters(config) > budget:
            break
        best = config
    if best is None:
        least = _parameters(_config(architecture, 32, vocabulary, context))
        raise UserError(f"--size {size} is less than the smallest model has with {vocabulary} tokens, {least}.",
                        "Raise --size, or lower --vocabulary.")
    return best


def _config(architecture: str, width: int, vocabulary: int, context: int) -> Any:
    from transformers import GPT2Config, LlamaConfig
    layers = max(2, round(width / 48)) if width <= 768 else 12 + round((width - 768) / 64)
    heads = width // (64 if width % 64 == 0 and width >= 256 else 32)
    # No padding token: what a Llama reads of one gets no gradient, and here token 0 opens and closes every text.
    ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    if architecture == "gpt2":
        return GPT2Config(vocab_size=vocabulary, n_positions=context, n_embd=width, n_layer=layers, n_head=heads,
                          resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **ends)
    return LlamaConfig(vocab_size=vocabulary, hidden_size=width, intermediate_size=-(-8 * width // 96) * 32,
                       num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
                       max_position_embeddings=context, tie_word_embeddings=True, **ends)


def _parameters(config: Any) -> int:
    with torch.device("meta"):
        return int(_model(config).num_parameters())


def _model(config: Any) -> Any:
    from transformers import AutoModelForCausalLM
    maker: Any = AutoModelForCausalLM
    return maker.from_config(config)


def make_new(folder: Path, texts: Iterable[str], *, architecture: str, size: str, vocabulary: int, context: int, seed: int,
             segmenter: str, routed: int = 0) -> None:
    """Writes an untrained model with its tokenizer, and `routed` neurons more in each layer. The same arguments give the same
    bytes."""
    tokenizer = train_tokenizer(texts, vocabulary)
    config = config_for(architecture, size, len(tokenizer), context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "new", architecture, size))
        model = _model(config)
    model.generation_config.pad_token_id = 0  # so that transformers' generate need not ask
    _write(folder, model, tokenizer, segmenter, seed, {"name": f"new {architecture} {size}"}, routed)


def add_control(folder: Path, model: str, segmenter: str, seed: int, routed: int = 0) -> None:
    """Writes a model with the control tokens added, and `routed` neurons more in each layer."""
    loaded = load(model, device="cpu")
    tokenizer = loaded.template.tokenizer
    add_tokens(tokenizer)
    if len(tokenizer) > loaded.model.config.vocab_size:
        loaded.model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    _write(folder, loaded.model, tokenizer, segmenter, seed, loaded.lineage, routed)


def _write(folder: Path, model: Any, tokenizer: Any, segmenter: str, seed: int, lineage: dict[str, Any], routed: int) -> None:
    good, bad = tokenizer.convert_tokens_to_ids([GOOD, BAD])
    control = Control(good, bad, segmenter, routed=routed)
    if routed:
        widen(model, routed, seed)
    begin_rows(model, control.ids, seed)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    from transformers.utils import logging
    logging.disable_progress_bar()
    try:
        temporary.mkdir(parents=True)
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        control.save(temporary)
        write_json(temporary / "harken.json", {"kind": "start", "from": lineage})
        temporary.rename(folder)
    except OSError as error:
        raise UserError(f"{folder} could not be written: {error.strerror or error}.",
                        "Make room, or check permissions.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@torch.no_grad()
def begin_rows(model: nn.Module, ids: tuple[int, ...], seed: int) -> None:
    """Rows of new tokens in both embeddings: each its matrix's mean row plus 0.01 N(0, 1)."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "control"))
    head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight  # type: ignore[operator]
    for weight in (head,) if head is table else (head, table):
        others = torch.ones(len(weight), dtype=torch.bool)
        others[list(ids)] = False
        mean = weight[others].float().mean(0)
        for i in ids:
            weight[i] = (mean + NOISE * torch.randn(len(mean), generator=generator)).to(weight.dtype)
