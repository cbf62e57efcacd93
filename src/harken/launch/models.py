"""From a word to a model: engines, learners, and what names them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harken.core.errors import UserError
from harken.core.extras import import_extra
from harken.core.files import file_hash
from harken.core.records import Prompt
from harken.core.run import Run
from harken.engines.policies import POLICY

if TYPE_CHECKING:
    from harken.engines.hf import Engine
    from harken.engines.sampler import HFSampler


def model_identity(spec: str) -> Any:
    """What names a model in `lineage.json`: for a run its weights' hashes, else the name."""
    folder = Path(spec) / "model"
    if folder.is_dir():
        files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".pt") or p.name == POLICY)
        return {"run": spec, "weights": [file_hash(f) for f in files]}
    return spec


def open_engine(model: str, *, dtype: str = "float32", tokens_per_micro_batch: int = 2048) -> Engine:
    """A model to sample from or to score with; nothing in it is trained."""
    import_extra("harken.engines.hf")
    from harken.engines.hf import Engine
    from harken.engines.loading import load
    return Engine(load(model), dtype=dtype, train=False, tokens_per_micro_batch=tokens_per_micro_batch)


def context(engine: Engine) -> int:
    """The most tokens a model can take at once."""
    return int(getattr(engine.model.config, "max_position_embeddings", None) or sys.maxsize)


def open_learner(method: ModuleType, config: Any, run: Run) -> HFSampler:
    """The engine that `config` asks for, ready to train, under a sampler of its weights."""
    from harken.engines.hf import Engine
    from harken.engines.loading import load
    from harken.engines.sampler import HFSampler
    loaded = load(config.model)
    if off := loaded.lineage.get("dropout_turned_off"):
        run.note(f"Turned off dropout in {off} places of the model.")
    ties = getattr(config, "ties", "drop")
    head = getattr(method, "head", lambda config: None)(config)
    if head is None:
        loaded.head = None
    learner = Engine(loaded, lora_rank=config.lora_rank, dtype=config.dtype, head=head, seed=config.seed,
                     scalars={"tie": 0.0} if ties != "drop" else None, weight_decay=config.weight_decay,
                     tokens_per_micro_batch=config.tokens_per_micro_batch, max_grad_norm=config.max_grad_norm,
                     shard=config.shard)
    if config.lora_rank == 0 and getattr(method, "needs_reference", lambda config: False)(config):
        learner.reference = Engine(load(config.model), dtype=config.dtype, train=False, shard=config.shard,
                                   tokens_per_micro_batch=config.tokens_per_micro_batch)
    return HFSampler(learner)


def check_context(sampler: Any, prompts: Sequence[Prompt], max_tokens: int) -> None:
    """Refuses prompts too long for the model before the first answer is sampled."""
    engine = sampler.engine
    for i, prompt in enumerate(prompts):
        if (length := len(engine.template.prompt_ids(sampler.seen(prompt)))) + max_tokens > context(engine):
            raise UserError(f"Prompt {i + 1} has {length} tokens; with {max_tokens} new ones it exceeds the context of "
                            f"{context(engine)} of {engine.lineage.get('name', 'the model')}.",
                            "Shorten the prompt or lower --max-tokens.")
