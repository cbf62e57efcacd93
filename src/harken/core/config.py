"""Configs are frozen dataclasses; the docstring under each field is its help text, and its bounds stand with it.

    @dataclass(frozen=True)
    class Config(TrainConfig):
        epochs: float = setting(2.0, above=0)
        '''Passes over the data.'''
        teacher: str = setting("", names="model")
        '''The model to learn from.'''
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.find import nearest
from harken.core.seeds import MOST_SEED

MAX_TOKENS = 256
"""Longest completion where nothing is said, of every command."""
CORRECTIONS = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "none")
"""How the importance ratio of a trainer to another engine's sampler is bounded (objectives/mismatch.py); the names are TRL's."""
NAMES = ("file", "model", "reward")
"""What a setting may name: the launcher checks it before anything is loaded, and its identity joins the run's lineage."""


def setting(default: Any, *, least: float | None = None, above: float | None = None, most: float | None = None,
            below: float | None = None, one_of: Sequence[str] = (), names: str = "", required: bool = False,
            repeats: bool = False, full: float | None = None) -> Any:
    """A field with its bounds: a number between them, or one of the words. `names` says that it names a file, a model or a
    reward (empty: none is used); `required`, that it must be given; `repeats`, that its option may be given several times,
    which is the same as commas; `full`, the default where every parameter is trained."""
    assert not names or names in NAMES, names
    bounds = {"least": least, "above": above, "most": most, "below": below, "one_of": tuple(one_of), "names": names,
              "required": required or None, "repeats": repeats or None,
              "full": full}
    return dataclasses.field(default=default, metadata={k: v for k, v in bounds.items() if v not in (None, (), "")})


def named(config: Any, what: str) -> dict[str, str]:
    """Field name -> value of the settings that name a file, a model or a reward, where they are given."""
    names = [f.name for f in dataclasses.fields(config) if f.metadata.get("names") == what]
    return {name: value for name in names if (value := getattr(config, name))}


@dataclass(frozen=True)
class RunConfig:
    """What every method takes, whether it changes weights or not."""

    model: str = setting("smollm2", names="model")
    """Model to start from: smollm2 (embedded default), toy, a run directory, a local folder, a .gguf file or a hub id."""
    data: str = setting("", names="file")
    """Data to learn from: JSON Lines, CSV, Parquet, a folder of Arrow, a hub id (owner/name or owner/name:split), …"""
    field: str = setting("", repeats=True)
    """Columns of --data under other names: prompt=question, one option each, or with commas."""
    out: str = ""
    """Run directory to write. The same command continues an unfinished run."""
    seed: int = setting(0, least=0, most=MOST_SEED)
    """Seed of data order, initialisation and sampling."""
    dtype: str = setting("float32", one_of=("float32", "bfloat16", "auto"))
    """Precision of the frozen weights and the compute: float32, bfloat16, or auto (bfloat16 where the hardware has it)."""
    tokens_per_micro_batch: int = setting(2048, least=1)
    """Token budget of one packed forward pass; memory, not results, depends on it."""
    max_length: int = setting(1024, least=2)
    """Longest prompt plus completion in tokens; at most the model's context."""
    checkpoint_seconds: float = setting(120.0, least=0)
    """Write a checkpoint when this long has passed since the last; 0 writes one every step."""
    report_to: str = ""
    """Trackers that get every row of metrics.jsonl too: tensorboard, wandb, trackio, mlflow, with commas between."""
    skip_bad: bool = False
    """Skip malformed lines of the data, and count them, instead of stopping."""

    @property
    def reading(self) -> dict[str, Any]:
        """How --data is read: keywords of the readers in `store.files`."""
        return {"skip_bad": self.skip_bad, "fields": columns(self.field)}


def columns(text: str) -> dict[str, str]:
    """`prompt=question,chosen=good` as {"prompt": "question", "chosen": "good"}."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    named = {name.strip(): column.strip() for name, _, column in (part.partition("=") for part in parts)}
    if len(named) < len(parts) or not all(name and column for name, column in named.items()):
        raise UserError(f"--field {text!r} does not name columns.", "Write --field prompt=question, once for each field.")
    return named


@dataclass(frozen=True)
class EvalConfig:
    """What most evaluations take."""

    model: str = setting("", names="model", required=True)
    """The model in question: a run directory, a folder, smollm2, a hub id or a server's address."""
    against: str = setting("", names="model")
    """A model to compare it with, item by item; empty compares with none."""
    out: str = setting("", required=True)
    """Run directory to write."""
    limit: int = setting(200, least=0)
    """Most items, drawn at random with the seed; 0 is all."""
    seed: int = setting(0, least=0, most=MOST_SEED)
    """Seed of what is drawn: items, orders, samples."""
    dtype: str = setting("float32", one_of=("float32", "bfloat16", "auto"))
    """Precision: float32, bfloat16 or auto."""


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """What every method takes that trains."""

    learning_rate: float = setting(1e-4, least=0, full=1e-6)
    """Peak learning rate of AdamW; 1e-6 by default where every parameter is trained (--lora-rank 0)."""
    warmup: float = setting(0.0, least=0, most=1)
    """Share of the steps over which the learning rate rises linearly."""
    schedule: str = setting("cosine", one_of=("cosine", "linear", "constant"))
    """Learning rate after warm-up: cosine (to 10 %), linear (to 0) or constant."""
    max_grad_norm: float = setting(1.0, least=0)
    """Clip the gradient's global norm to this; 0 turns clipping off."""
    weight_decay: float = setting(0.0, least=0)
    """AdamW's decoupled weight decay."""
    optimizer: str = setting("adamw", one_of=("adamw", "adamw8bit"))
    """AdamW with its moments in float32, or in 8 bits by block (bitsandbytes, where it is installed)."""
    template: str = ""
    """Chat template in place of the model's own: chatml, vicuna, alpaca, … or a file of Jinja; it is saved with the run."""
    lora_rank: int = setting(16, least=0)
    """Rank of the LoRA adapters on all linear layers; 0 trains every parameter."""
    overlong: str = setting("drop", one_of=("drop", "truncate", "fail"))
    """Examples over max_length: drop (and count), truncate (the prompt's start, then the completion's end) or fail."""
    quantize: str = setting("none", one_of=("none", "nf4"))
    """Hold the frozen base in 4 bits under the adapters (QLoRA): nf4, by bitsandbytes, where it is installed."""
    shard: bool = False
    """Of several processes (torchrun) each keeps a part of the layers' weights, gradients and optimiser state: FSDP2."""
    checkpoint_activations: bool = False
    """Keep only each layer's input while learning, and compute its inside anew in the backward pass: long texts in a fraction of
    the memory, for a third more products; the same loss and gradients."""
    profile: bool = False
    """Say at the end where the time went and how much of the machine's speed was reached; written to profile.json."""


@dataclass(frozen=True)
class HeldOutConfig(TrainConfig):
    """What every method takes that can hold out a part of its data."""

    eval_every: int = setting(0, least=0)
    """Steps from one measurement of the held-out loss to the next; 0 measures as the method does by itself."""
    patience: int = setting(0, least=0)
    """End after so many measurements without a lower held-out loss, and keep the weights of the lowest; 0 never does."""


@dataclass(frozen=True)
class SampleConfig(TrainConfig):
    """What every method takes that learns from its own completions."""

    steps: int = setting(0, least=0)
    """Steps of sampling and learning; 0 is one pass over the prompts."""
    prompts_per_step: int = setting(8, least=1)
    """Prompts sampled in one step."""
    completions_per_prompt: int = setting(4, least=1)
    """Completions of each prompt (G)."""
    max_tokens: int = setting(MAX_TOKENS, least=1)
    """Longest completion in tokens."""
    temperature: float = setting(1.0, least=0)
    """Sampling temperature, the same for scoring."""
    schedule: str = setting("constant", one_of=("cosine", "linear", "constant"))
    """Learning rate after warm-up: cosine (to 10 %), linear (to 0) or constant."""
    samples_per_step: int = setting(2, least=0)
    """Completions of each step kept in samples.jsonl."""


@dataclass(frozen=True)
class RolloutConfig(SampleConfig):
    """What every method takes whose completions are scored."""

    reward: str = setting("", names="reward")
    """What to climb: a reward model's run directory, or gold (the sandbox's known truth)."""
    aggregate: str = ""
    """How a reward model with groups makes one score: mean, group:NAME, worst or quantile:Q; empty is its shared head."""
    missing_eos_penalty: float = setting(1.0, least=0)
    """Subtracted from the score of a completion that the token limit cut."""
    empty_penalty: float = setting(0.0, least=0)
    """Subtracted from the score of a completion that says nothing: a learnt reward has seldom been told what that is worth."""
    reward_clip: float = setting(0.0, least=0)
    """Clip scores to plus or minus this; 0 does not clip."""
    held_out_reward: str = setting("", names="reward")
    """A reward that is watched and not climbed: a run on other judgments, or gold; it audits the run on held-out prompts."""
    monitor_every: int = setting(10, least=1)
    """Steps from one audit to the next."""
    monitor_prompts: int = setting(32, least=8)
    """Prompts of --data kept out of training for the audits (at most half)."""
    patience: int = setting(0, least=0)
    """End after so many audits without a higher held-out reward, and keep the weights of the highest; 0 never does."""
    rollouts: str = ""
    """Who samples in the place of this process: the address of harken serve --adapters or of vLLM (http://host:8000/v1), or
    ray:N, workers of this command's own sampler on a Ray cluster (ray:N@ADDRESS; ray:0 samples the same hands here)."""
    rollouts_hand: int = setting(4, least=1)
    """Prompts that a Ray worker is dealt at a time; results depend on it by rounding, on the number of workers not at all."""
    rollouts_folder: str = ""
    """Where weights for the server are written, under the same path there; empty is the run's own rollouts/."""
    rollouts_sleep: bool = False
    """Let a vLLM server on the learner's card sleep while the learner learns (--enable-sleep-mode)."""
    max_staleness: int = setting(0, least=0)
    """By how many steps the weights that --rollouts sampled with may be older than the learner's. From 1 on the next step's
    completions are sampled while this step is learnt from, one version old, and corrected (--correction)."""
    correction: str = setting("token_truncate", one_of=CORRECTIONS)
    """How a server's other numerics are corrected, by the importance ratio of each token or of the whole completion, which is
    then truncated or masked (0) above --correction-cap; none only measures."""
    correction_cap: float = setting(2.0, above=1)
    """Highest importance ratio that counts in full."""
    stop_when: str = ""
    """Rules that end the run, with commas between them: hacking (reward up, held-out reward down), kl>10, length>200, ..."""


@cache
def field_docs(config: type) -> dict[str, str]:
    """Field name -> docstring, base classes included. Read from the source."""
    docs: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, doc in zip(body.body, body.body[1:]):
            if (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                    and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)):
                docs[field.target.id] = " ".join(str(doc.value.value).split())
    return docs


def from_dict(config: type, values: dict[str, Any], source: Path | str) -> Any:
    """Builds a config from `config.json`'s values; an unknown name is a `UserError`."""
    names = {f.name for f in dataclasses.fields(config)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise UserError(f"{source}: unknown setting {', '.join(unknown)}.{nearest(unknown[0], sorted(names))}",
                        f"Known settings: {', '.join(sorted(names))}.")
    return config(**following(config, values))


def following(config: type, given: dict[str, Any]) -> dict[str, Any]:
    """The settings given, and with --lora-rank 0 those defaults that follow it."""
    if given.get("lora_rank") != 0:
        return given
    full = {f.name: f.metadata["full"] for f in dataclasses.fields(config) if "full" in f.metadata}
    return {**full, **given}
