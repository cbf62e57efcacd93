"""Every causal language model of transformers, tiny and random, against transformers itself.

    python benchmarks/architectures.py                   # all; writes the table of docs/models.md
    python benchmarks/architectures.py mamba gpt_oss     # these; prints their rows

A model is right where log-probs equal the model's own eager forward, greedy samples equal its own, an adapter and full weights
learn, and what is saved comes back as it was. Each is tried in a process of its own, one after another, with bounded memory and
time. Configurations are transformers' own types with small sizes; weights are wide enough that a difference shows.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import json
import multiprocessing
import queue
import re
import resource
import signal
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
OPEN, CLOSE = "<!-- table: written by benchmarks/architectures.py -->", "<!-- /table -->"
PROMPT, ANSWERS = (10, 20, 30, 40), ((50, 60, 70, 80), (90, 61))
LONG = (tuple(range(11, 41)), ((52, 62), (53,)))
TOLERANCE = 2e-4
MEMORY, SECONDS = 10 << 30, 150

SMALL: dict[str, Any] = {
    "hidden_size": 32, "d_model": 32, "n_embd": 32, "embedding_size": 32, "dim": 32, "emb_dim": 32, "n_embed": 32,
    "word_embed_proj_dim": 32, "attention_hidden_size": 32, "attn_hidden_size": 32, "dim_model": 32,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "decoder_layers": 2, "encoder_layers": 2,
    "num_decoder_layers": 2, "num_encoder_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "decoder_attention_heads": 4, "encoder_attention_heads": 4,
    "num_decoder_attention_heads": 4, "num_encoder_attention_heads": 4,
    "num_key_value_heads": 2, "num_kv_heads": 2, "head_dim": 8, "global_head_dim": 8, "dim_head": 8, "v_head_dim": 8,
    "intermediate_size": 64, "ffn_dim": 64, "d_ff": 64, "decoder_ffn_dim": 64, "encoder_ffn_dim": 64, "dff": 64, "n_inner": 64,
    "ffn_hidden_size": 64, "d_inner": 64, "dim_ff": 64, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "moe_num_experts": 4, "moe_top_k": 2, "n_shared_experts": 1, "num_experts_per_token": 2,
    "first_k_dense_replace": 1, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "max_position_embeddings": 512, "n_positions": 512, "n_ctx": 512, "max_seq_len": 512,
    "vocab_size": 300, "vocab_size_per_layer_input": 300, "hidden_size_per_layer_input": 8,
    "state_size": 8, "time_step_rank": 4, "conv_kernel": 4, "mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 8,
    "mamba_n_groups": 1, "mamba_d_ssm": 64, "mamba_chunk_size": 16, "chunk_size": 16,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "lru_width": 32, "rotary_dim": 4, "sliding_window": 16,
}
"""Sizes by the names that configurations give them."""
MARKS = {"pad_token_id": 0, "bos_token_id": 256, "eos_token_id": 256, "decoder_start_token_id": 256, "sep_token_id": 256,
         "cls_token_id": 256, "unk_token_id": 1}
SPECIAL: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "architectures.json").read_text(encoding="utf-8"))
"""What single kinds need beside it."""


def model_types() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(kind: str) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    return _shrink(CONFIG_MAPPING[kind], SPECIAL.get(kind, {}))


def _shrink(made: Any, special: dict[str, Any]) -> Any:
    """The type's default configuration with small sizes, in those inside it as well."""
    from transformers import PreTrainedConfig
    try:
        default = made()
    except Exception:  # some types' own defaults contradict one another
        default = made(**special)
    options: dict[str, Any] = {}
    for key, value in vars(default).items():
        if isinstance(value, PreTrainedConfig):
            inner = special.get(key)
            options[key] = _shrink(type(value), inner if isinstance(inner, dict) else {})
        elif key in SMALL and isinstance(value, int) and not isinstance(value, bool):
            options[key] = SMALL[key]
        elif key in MARKS:
            options[key] = MARKS[key]
    options |= {k: v for k, v in special.items() if not (isinstance(v, dict) and k in options)}
    return made(**{k: v for k, v in options.items() if v is not None})


def tokenizer() -> Any:
    """A byte a token, 256 ends a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>")


def write(kind: str, folder: Path) -> None:
    """The tiny model, as its makers would publish it."""
    from transformers import AutoModelForCausalLM, PreTrainedConfig
    torch.manual_seed(0)
    config = tiny_config(kind)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    model.tie_weights()
    model.save_pretrained(folder)
    if isinstance(model.config, tuple(type(c) for c in vars(config).values() if isinstance(c, PreTrainedConfig))):
        config.save_pretrained(folder)  # the language model of one that also sees: published under the whole's configuration
    tokenizer().save_pretrained(folder)


def theirs(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM
    try:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    except (ValueError, ImportError):
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def forward(model: Any, ids: torch.Tensor) -> Any:
    """The whole text at once; some kinds fail where a cache is made that nobody reads."""
    try:
        return model(input_ids=ids)
    except AttributeError:
        return model(input_ids=ids, use_cache=False)


@torch.no_grad()
def own_logps(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
    ids = torch.tensor([[*prompt, *answer]])
    logits = forward(model, ids).logits[0, len(prompt) - 1:-1].float().log_softmax(-1)
    return logits.gather(-1, ids[0, len(prompt):, None])[:, 0]


@torch.no_grad()
def own_greedy(model: Any, prompt: tuple[int, ...], count: int) -> tuple[int, ...]:
    ids = torch.tensor([prompt])
    for _ in range(count):
        ids = torch.cat([ids, forward(model, ids).logits[:, -1:].argmax(-1)], 1)
    return tuple(ids[0, len(prompt):].tolist())


def far(ours: Any, model: Any, trees: Any) -> float:
    """The largest difference of log-probs, nats."""
    return max(float((own - own_logps(model, tree.prompt, c)).abs().max())
               for tree, row in zip(trees, ours) for c, own in zip(tree.completions, row))


def learn(folder: Path, trees: Any, rank: int) -> float:
    """One step, saved and loaded: how far log-probs are from the engine's own; of full weights also from transformers'."""
    from harken.core.protocols import Datum
    from harken.engines.hf import Engine
    from harken.engines.loading import load
    engine = Engine(load(str(folder)), lora_rank=rank)
    data = [Datum(t, {"weights": [0.1] * sum(map(len, t.completions))}) for t in trees]
    before = engine.logprobs(trees)
    engine.forward_backward(data, lambda out, x: (-(out.logps_N * x["weights"]).sum(), {}))
    engine.step(1e-2)
    after = engine.logprobs(trees)
    assert max(float((a - b).abs().max()) for x, y in zip(before, after) for a, b in zip(x, y)) > 1e-3, "nothing was learnt"
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        run.mkdir()
        engine.save(run / "model", base=str(folder))
        for name in ("lineage.json", "result.json"):
            (run / name).write_text("{}", encoding="utf-8")
        again = Engine(load(str(run)), train=False).logprobs(trees)
        apart = max(float((a - b).abs().max()) for x, y in zip(after, again) for a, b in zip(x, y))
        return apart if rank else max(apart, far(after, theirs(run / "model"), trees))


def examine(kind: str, folder: Path) -> tuple[str, str]:
    """(outcome, what was seen) of a written model."""
    from harken.core.errors import UserError
    from harken.core.protocols import Tree
    from harken.engines.hf import Engine
    from harken.engines.loading import load
    from harken.engines.sampler import HFSampler
    trees = [Tree(PROMPT, ANSWERS), Tree(*LONG)]
    try:
        loaded = load(str(folder))
    except UserError as error:
        return "refused", error.fact.replace(str(folder), kind).replace(f"{kind} ({kind})", kind)
    model = theirs(folder)
    engine = Engine(loaded, train=False)
    gap = far(engine.logprobs(trees), model, trees)
    if gap > TOLERANCE:
        return "wrong log-probs", f"{gap:.4f} nats"
    found = HFSampler(engine).sample_ids([PROMPT], 2, max_tokens=8, temperature=0.0, min_tokens=8)[0]
    reference = own_greedy(model, PROMPT, 8)
    if any(s.ids != reference for s in found):
        return "wrong samples", f"{found[0].ids} for {reference}"
    scored = Engine(loaded, train=False, head="reward").scores(trees)
    assert all(bool(torch.isfinite(s).all()) for s in scored)
    for rank in (4, 0):
        apart = learn(folder, trees, rank)
        if apart > TOLERANCE:
            return "wrong after loading", f"{'adapter' if rank else 'full weights'}: {apart:.4f} nats"
    if not loaded.form.plain:
        return "right", ""
    return "plain", loaded.form.plain + ("" if loaded.form.cached else "; nor is its cache exact")


def child(kind: str, answers: Any) -> None:
    """Tries one kind in this process and puts (outcome, what was seen)."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.alarm(SECONDS)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        os.environ["HARKEN_CACHE"] = place  # no verdict of another day
        folder = Path(place) / kind
        try:
            write(kind, folder)
            own_greedy(theirs(folder), PROMPT, 2)
        except Exception as error:  # not Harken's: transformers does not make or save it
            answers.put(unmade(kind, folder, f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"))
            return
        try:
            answers.put(examine(kind, folder))
        except Exception as error:
            import traceback
            last = traceback.extract_tb(error.__traceback__)[-1]
            answers.put(("traceback", f"{type(error).__name__}: {' '.join(str(error).split())[:160]} "
                                      f"({Path(last.filename).name}:{last.lineno})"))


def unmade(kind: str, folder: Path, why: str) -> tuple[str, str]:
    """What Harken says of a kind that transformers cannot build from its own configuration."""
    from safetensors.torch import save_file

    from harken.core.errors import UserError
    from harken.engines.loading import load
    try:
        tiny_config(kind).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        save_file({"none": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
        load(str(folder))
    except UserError as error:
        return "refused", "transformers cannot build it: " + " ".join(error.fact.partition("cannot be loaded: ")[2].split())
    except Exception:
        return "not made", why
    return "not made", why


def tried(kind: str) -> tuple[str, str]:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=child, args=(kind, answers))
    process.start()
    try:
        found: tuple[str, str] = answers.get(timeout=SECONDS + 10)
    except queue.Empty:
        found = ("not made", f"no answer in {SECONDS} s")
    process.join(5)
    process.kill()
    return found


def table(rows: dict[str, tuple[str, str]]) -> str:
    """The page's lists: by outcome and by reason."""
    by: dict[tuple[str, str], list[str]] = defaultdict(list)
    for kind, (outcome, seen) in sorted(rows.items()):
        reason = re.sub(rf"\b{re.escape(kind)}\b( \(\w+\))?", "it", seen) if outcome == "refused" else seen
        by[outcome, reason].append(kind)
    title = {"right": "packed rows", "plain": "plain path", "refused": "refused"}
    lines = ["| path | kinds (`model_type`) | why |", "|---|---|---|"]
    for outcome in ("right", "plain", "refused", "not made"):
        lines += [f"| {title.get(outcome, outcome)} | {', '.join(kinds)} | {reason} |"
                  for (found, reason), kinds in sorted(by.items()) if found == outcome]
    return "\n".join(lines)


def main(names: list[str]) -> int:
    import transformers
    transformers.logging.set_verbosity_error()
    import peft  # noqa: F401  imported once, before the processes part
    import transformers.generation.utils
    import transformers.modeling_layers

    import harken.engines.loading
    import harken.engines.sampler  # noqa: F401
    rows: dict[str, tuple[str, str]] = {}
    for kind in names or model_types():
        rows[kind] = tried(kind)
        print(f"{kind}\t{rows[kind][0]}\t{rows[kind][1]}", flush=True)
    bad = {k: r for k, r in rows.items() if r[0].startswith("wrong") or r[0] == "traceback"}
    print(f"{len(rows)} kinds: {sum(r[0] == 'right' for r in rows.values())} packed, "
          f"{sum(r[0] == 'plain' for r in rows.values())} plain, {sum(r[0] == 'refused' for r in rows.values())} refused, "
          f"{sum(r[0] == 'not made' for r in rows.values())} not made, {len(bad)} wrong or a traceback")
    if not names and not bad:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(page[:page.index(OPEN)] + f"{OPEN}\n{table(rows)}\n" + page[page.index(CLOSE):], encoding="utf-8")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
