"""A model as one GGUF file, tokenizer included: what llama.cpp and what stands on it read.

Kinds: llama (SmolLM2 among them), mistral, qwen2, qwen3 and gpt2, with byte-level BPE tokenizers or SentencePiece's BPE with
byte fallback (gguf_pieces.py). Others are refused: a file that loads and is another model is worse than none. F32 is exact, F16
rounds to 11 bits, Q8_0 to 8 bits a block of 32.
Layout: the GGUF specification, and the names of the package gguf.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from harken.core.errors import UserError
from harken.engines import gguf_pieces as pieces

FORMATS = ("F32", "F16", "Q8_0")
KINDS = ("llama", "mistral", "qwen2", "qwen3", "gpt2")
ARCHITECTURES = {"mistral": "llama"}
"""Where the file calls a kind otherwise."""
ACTION = "Leave --gguf away: the folder's safetensors hold the model; llama.cpp's own converter may know this kind."
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {WORDS % "{1,3}": "llama-bpe", WORDS % "": "qwen2"}
"""Expressions that cut a text before BPE, by the name that llama.cpp has for them."""


def check_kind(model: Any, tokenizer: Any) -> None:
    """Raises `UserError` for what this file cannot write exactly."""
    config = model.config
    if config.model_type not in KINDS:
        raise UserError(f"A GGUF file of the kind {config.model_type} is not written here; {', '.join(KINDS)} are.", ACTION)
    rope = getattr(config, "rope_parameters", None) or {}
    special = [name for name in ("attention_bias", "mlp_bias") if config.model_type != "qwen2" and getattr(config, name, False)]
    turns = ("default", "linear", "llama3") if config.model_type in ("llama", "mistral") else ("default", "linear")
    special += [f"{rope['rope_type']} rotary positions"] if rope.get("rope_type", "default") not in turns else []
    windows = "sliding_attention" in (getattr(config, "layer_types", None) or [])
    windows |= config.model_type == "mistral" and bool(getattr(config, "sliding_window", None))
    special += ["sliding windows"] if windows else []
    special += ["scaled attention"] if getattr(config, "scale_attn_by_inverse_layer_idx", False) else []
    special += ["attention that is not scaled"] if not getattr(config, "scale_attn_weights", True) else []
    if special:
        raise UserError(f"A GGUF file of a {config.model_type} model with {special[0]} is not written here.", ACTION)
    activation = getattr(config, "activation_function", None) or getattr(config, "hidden_act", "")
    if activation not in (("gelu_new", "gelu_pytorch_tanh") if config.model_type == "gpt2" else ("silu",)):
        raise UserError(f"A GGUF file of a {config.model_type} model with {activation} is not written here.", ACTION)
    words_of(tokenizer)


def words_of(tokenizer: Any) -> tuple[dict[str, Any], str]:
    """(the tokenizer's own description, llama.cpp's name for how it cuts words; "" where it does not cut them: SentencePiece's
    kind). Raises `UserError` for other kinds."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    described: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {}
    if taking := [t["content"] for t in described.get("added_tokens", []) if t["lstrip"] or t["rstrip"] or t["single_word"]]:
        raise UserError(f"The tokenizer's {taking[0]} takes the blanks beside it, or only stands alone: a GGUF file cannot "
                        "say so.", ACTION)
    if pieces.prefixed(described) is not None:
        return described, ""
    cut = _cut(described.get("pre_tokenizer") or {})
    plain = (described.get("normalizer") or {}).get("type") in (None, "NFC")
    model = described.get("model") or {}
    marks = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    known = model.get("type") == "BPE" and not model.get("byte_fallback") and not marks and plain and cut
    if not known or not _merged_alike(described, cut):
        raise UserError("The tokenizer is not a byte-level BPE of the GPT-2, SmolLM, Llama 3 or Qwen kind, nor "
                        "SentencePiece's BPE as Llama 2 has it, so a GGUF file of it would read texts otherwise.", ACTION)
    return described, cut


def _merged_alike(described: dict[str, Any], cut: str) -> bool:
    """Whether words that are a token are read as llama.cpp reads them: whole for Llama 3's kind, joined by merges for the
    others. It makes no difference where the merges join every such word."""
    if bool(described["model"].get("ignore_merges")) == (cut == "llama-bpe"):
        return True
    from tokenizers import Tokenizer
    joined = Tokenizer.from_str(json.dumps({
        **described, "added_tokens": [], "pre_tokenizer": None, "normalizer": None, "post_processor": None,
        "model": {**described["model"], "ignore_merges": False}}))
    own = {t["content"] for t in described["added_tokens"]}
    words = [word for word in described["model"]["vocab"] if word not in own]
    return all(len(encoded.ids) == 1 for encoded in joined.encode_batch_fast(words, add_special_tokens=False))


def _cut(pre: dict[str, Any]) -> str:
    steps = pre.get("pretokenizers", []) if pre.get("type") == "Sequence" else [pre]
    last = steps[-1] if steps else {}
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return ""
    before = steps[:-1]
    if last.get("use_regex", True):
        if not before:
            return "gpt-2"
        digits = before == [{"type": "Digits", "individual_digits": True}]
        return "smollm" if digits else ""
    if len(before) == 1 and before[0].get("type") == "Split" and before[0].get("behavior") == "Isolated":
        return SPLITS.get(before[0]["pattern"].get("Regex", ""), "")
    return ""


def write_gguf(model: Any, template: Any, file: Path, form: str, *, name: str, licence: str = "") -> None:
    """Writes the model into `file`; `form` is F32, F16 or Q8_0 (matrices; vectors stay F32). Raises `UserError`."""
    import gguf
    check_kind(model, template.tokenizer)
    kind = ARCHITECTURES.get(model.config.model_type, model.config.model_type)
    writer = gguf.GGUFWriter(file, kind)
    types = {"F32": gguf.LlamaFileType.ALL_F32, "F16": gguf.LlamaFileType.MOSTLY_F16, "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
    writer.add_type("model")
    writer.add_name(name)
    if licence:
        writer.add_license(licence)
    writer.add_file_type(types[form])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _settings(writer, model.config)
    _tokens(writer, model.config.vocab_size, template)
    names = gguf.get_tensor_name_map(_architecture(gguf, kind), model.config.num_hidden_layers)
    tied = model.config.tie_word_embeddings
    for key, tensor in model.state_dict().items():
        if (tied and key.startswith("lm_head.")) or key.endswith((".attn.bias", ".masked_bias", "rotary_emb.inv_freq")):
            continue
        target = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert target is not None, key
        _add(writer, gguf, target, _laid_out(model.config, key, tensor.detach().float().cpu().numpy()), form)
    if (getattr(model.config, "rope_parameters", None) or {}).get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", _slowed(model))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _slowed(model: Any) -> np.ndarray:
    """By how much each pair of a head's numbers turns slower than without scaling [head width / 2] (Llama 3.1)."""
    turned = model.base_model.rotary_emb.inv_freq.double().cpu().numpy()
    theta = float(model.config.rope_parameters["rope_theta"])
    plain = theta ** (-np.arange(len(turned), dtype=np.float64) / len(turned))
    return np.asarray(plain / turned, dtype=np.float32)


def _architecture(gguf: Any, kind: str) -> Any:
    return next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)


def _settings(writer: Any, config: Any) -> None:
    heads, width = config.num_attention_heads, config.hidden_size
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(width)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(heads)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * width)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    size = getattr(config, "head_dim", None) or width // heads
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float((getattr(config, "rope_parameters", None) or {}).get("rope_theta", 10000.0)))
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "linear":
        import gguf
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    writer.add_rope_dimension_count(size)
    writer.add_key_length(size)
    writer.add_value_length(size)


def _tokens(writer: Any, rows: int, template: Any) -> None:
    """Vocabulary, merges, control tokens, chat template."""
    import gguf
    tokenizer = template.tokenizer
    described, cut = words_of(tokenizer)
    texts = {i: text for text, i in tokenizer.get_vocab().items()}
    added = {t["id"]: t["special"] for t in described["added_tokens"]}
    kinds = gguf.TokenType
    tokens, types = [], []
    for i in range(rows):
        tokens.append(texts.get(i, f"[PAD{i}]"))
        types.append(kinds.UNUSED if i not in texts else kinds.NORMAL if i not in added else
                     kinds.CONTROL if added[i] else kinds.USER_DEFINED)
    writer.add_tokenizer_model("gpt2" if cut else "llama")
    writer.add_tokenizer_pre(cut or "default")
    writer.add_token_list(tokens)
    if cut:
        writer.add_token_types(types)
        writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in described["model"]["merges"]])
    else:
        own = {tokenizer.unk_token_id: kinds.UNKNOWN}
        writer.add_token_types([kinds.BYTE if pieces.BYTE.fullmatch(text) else own.get(i, kind)
                                for i, (text, kind) in enumerate(zip(tokens, types))])
        writer.add_token_scores(pieces.scores(described, tokens))
        writer.add_add_space_prefix(bool(pieces.prefixed(described)))
    ids = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id,
           "unk": tokenizer.unk_token_id, "eot": template.end_id}
    for name, i in ids.items():
        if i is not None:
            getattr(writer, f"add_{name}_token_id")(int(i))
    first = tokenizer("a").input_ids
    writer.add_add_bos_token(len(first) > 1 and first[0] == tokenizer.bos_token_id)
    if getattr(tokenizer, "chat_template", None):
        writer.add_chat_template(tokenizer.chat_template)


def _laid_out(config: Any, key: str, values: np.ndarray) -> np.ndarray:
    """As GGUF has it: matrices [out, in]; of llama, the two halves of each head that rotary positions turn, interleaved."""
    if config.model_type == "gpt2" and key.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return np.ascontiguousarray(values.T)
    if config.model_type in ("llama", "mistral") and key.endswith(("q_proj.weight", "k_proj.weight")):
        heads = config.num_attention_heads if "q_proj" in key else config.num_key_value_heads
        halves = values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
        return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
    return values


def _add(writer: Any, gguf: Any, name: str, values: np.ndarray, form: str) -> None:
    kinds = gguf.GGMLQuantizationType
    if form == "F32" or values.ndim < 2 or name == "position_embd.weight":
        writer.add_tensor(name, values.astype(np.float32))
        return
    if form == "Q8_0" and values.shape[-1] % 32 == 0:
        writer.add_tensor(name, gguf.quants.quantize(values, kinds.Q8_0), raw_dtype=kinds.Q8_0)
        return
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise UserError(f"{name} holds numbers beyond 65,504, which F16 cannot write.", "Use --gguf F32.")
    writer.add_tensor(name, half)
