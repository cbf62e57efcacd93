"""The models that a run needs beside its policy, and what each adds to the plan of its memory (plan.py)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from harken.core.config import named
from harken.core.extras import import_extra
from harken.core.files import read_json
from harken.launch.rewards import FittedRun, Judging, RewardWord, Several, parse_reward
from harken.launch.shapes import Shape, base_of, same_model, shape_of


def gathered(shape: Shape, cpu: bool) -> int:
    """Numbers of frozen, split layers that are whole at a time: one matrix on a CPU (engines/gathers.py), else two layers."""
    return shape.inner * shape.width if cpu and shape.known == "llama" else 2 * shape.largest


def read(word: str, shape: Shape, mixed: bool, shard: int = 1, cpu: bool = False) -> float:
    """Bytes while a model is read: 2·P where it is frozen in bfloat16 (`mixed`), and the float32 copy of its largest module, of
    V·D weights, by which it is checked; else 4·P. A run's adapter is merged in float32 (engines/loading.py). Of a model that is
    split each process reads its part, and gathers what it does in learning; of frozen tables at the ends it sees pieces."""
    if (Path(word) / "model" / "adapter_config.json").is_file() or (Path(word) / "adapter_config.json").is_file():
        return 4.0 * shape.parameters
    checked = 4.0 * shape.vocabulary * shape.width
    if shard > 1:
        own = shape.parameters - shape.split * (1 - 1 / shard)
        if mixed:
            return 2.0 * (own + gathered(shape, cpu)) + 4.0 * shape.inner * shape.width
        return 4.0 * (own + 2 * shape.largest) + checked
    return 2.0 * shape.parameters + checked if mixed else 4.0 * shape.parameters


@dataclass(frozen=True)
class Part:
    """Bytes of one thing: "held" all the time, or while "learning" or "sampling"."""

    name: str
    when: str
    bytes: float


@dataclass(frozen=True)
class Setting:
    """What the arithmetic needs of a run: `branches` completions stand side by side in a tree of `tree` tokens;
    `reads`: log-probs are learnt from, not a reward head's score alone."""

    shape: Shape
    lora: int
    mixed: bool
    shard: int
    recompute: bool
    tokens: int
    tree: int
    branches: int
    cpu: bool
    reads: bool

    @property
    def bytes(self) -> int:
        return 2 if self.mixed else 4

    @property
    def trained(self) -> float:
        """Trained numbers that this process keeps."""
        return self.shape.adapters if self.lora else self.part(self.shape)

    def part(self, shape: Shape) -> float:
        """Weights of a model that this process keeps."""
        return shape.parameters - shape.split * (1 - 1 / self.shard)

    @property
    def attention(self) -> int:
        """Bytes a number inside attention: on a CPU it is float32."""
        return 2 if self.mixed and not self.cpu else 4


def further(method: ModuleType, config: Any, s: Setting) -> list[tuple[Part, float]]:
    """(part, bytes while it is read) of each further model, in the order in which they are loaded."""
    parts: list[tuple[Part, float]] = []
    if not s.lora and getattr(method, "needs_reference", lambda config: False)(config):
        parts.append(_frozen("reference", config.model, s.shape, s, s.part(s.shape), s.shard))
    for field in ("reward", "held_out_reward"):
        for name in _models_of(parse_reward(word)) if (word := getattr(config, field, "")) else ():
            if (part := _onto(name, config, s)) is None:
                other = shape_of(name)
                part = _frozen(f"{field.replace('_', '-')} {Path(name).name}", name, other, s, other.parameters)
            parts.append(part)
    for field, name in named(config, "model").items():
        if field != "model":
            other = shape_of(name)
            parts.append(_onto(name, config, s) or _frozen(field, name, other, s, s.part(other), s.shard))
    if getattr(config, "critic", "shared") != "shared":
        parts.append(_critic(config, s))
    return parts


def _frozen(name: str, word: str, shape: Shape, s: Setting, numbers: float, shard: int = 1) -> tuple[Part, float]:
    """A model that only computes."""
    return Part(name, "held", numbers * s.bytes), read(word, shape, s.mixed, shard, s.cpu)


def _onto(word: str, config: Any, s: Setting) -> tuple[Part, float] | None:
    """A run whose adapter stands on the policy's own weights costs no more than that adapter."""
    if not s.lora or s.shard > 1 or not Path(word, "lineage.json").is_file() or (base := base_of(word)) is None:
        return None
    if not same_model(base, config.model):
        return None
    own = import_extra("harken.engines.stacked").own_adapter(Path(word) / "model")
    rank = int(read_json(own / "adapter_config.json")["r"])
    size = 4.0 * shape_of(base, rank).adapters
    return Part(f"adapter of {Path(word).name}", "held", size), size


def _critic(config: Any, s: Setting) -> tuple[Part, float]:
    """A value model of its own: with adapters on the policy's weights where it can, with its own moments and gradients."""
    word = config.reward if config.critic == "reward" else config.model
    shared = s.lora and s.shard == 1 and (word == config.model or _onto(word, config, s) is not None)
    own = s.shape if word == config.model else shape_of(word, config.lora_rank)
    trained = own.adapters if s.lora else s.part(own)
    reading = 0.0 if shared else read(word, own, s.mixed and bool(s.lora), s.shard, s.cpu)
    weights = 0 if shared or not s.lora else s.part(own) * s.bytes
    return Part("critic, with its gradients and moments", "held", weights + 16 * trained), reading


def _models_of(word: RewardWord) -> list[str]:
    """The language models that a reward brings."""
    if isinstance(word, Several) and word.how == "average":
        return _models_of(word.members[0])
    if isinstance(word, Several):
        return [name for member in word.members for name in _models_of(member)]
    if isinstance(word, Judging):
        return [] if "://" in word.word else [word.model]
    return [word.word] if isinstance(word, FittedRun) and not word.compositional else []
