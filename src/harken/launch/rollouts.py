"""Who samples for a learner: `--rollouts` as a word, and what it opens.

    http://gpu2:8000/v1     a server (engines/served.py)
    ray:8                   workers of a Ray cluster (engines/ray_rollouts.py): of $RAY_ADDRESS, or one begun on this machine
    ray:8@10.0.0.1:6379     of that cluster; auto is the one that runs on this machine
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harken.core.config import RolloutConfig
from harken.core.errors import UserError
from harken.core.run import Run
from harken.launch.models import ModelWord

if TYPE_CHECKING:
    from harken.engines.sampler import HFSampler

MOST_WORKERS = 10_000


@dataclass(frozen=True)
class RolloutsWord:
    """`url` of a server; else `workers` of the Ray cluster at `address` (empty: see above)."""

    url: str = ""
    workers: int = 0
    address: str = ""


def parse_rollouts(word: str) -> RolloutsWord | None:
    """Reads the word; None where the learner samples itself. Raises `UserError` for what is neither."""
    if not word:
        return None
    if word.startswith(("http://", "https://")):
        return RolloutsWord(url=word)
    kind, _, rest = word.partition(":")
    count, _, address = rest.partition("@")
    if kind != "ray" or not (count.isascii() and count.isdecimal()) or int(count) > MOST_WORKERS or rest.endswith("@"):
        raise UserError(f"--rollouts {word!r} is neither a server nor Ray workers.",
                        "Give http://HOST:PORT/v1, or ray:N for N workers (ray:N@ADDRESS: of the cluster at that address).")
    return RolloutsWord(workers=int(count), address=address)


def open_rollouts(config: RolloutConfig, engine: Any, run: Run, model: ModelWord) -> Any:
    """What samples in the learner's place."""
    word = parse_rollouts(config.rollouts)
    assert word is not None
    if word.url:
        from harken.engines.served import ServedRollouts
        folder = Path(config.rollouts_folder or run.path / "rollouts")
        return ServedRollouts(engine, word.url, folder, sleeps=config.rollouts_sleep)
    if model.kind in ("own", "given"):
        raise UserError("--rollouts ray:N opens the model in each worker, and this one is a Python object.",
                        "Name a run, a folder, a .gguf file or a hub id.")
    from harken.engines.ray_rollouts import RayRollouts
    name, template = (str(Path(word).resolve()) if word and Path(word).exists() else word  # a worker may stand in another folder
                      for word in (config.model, config.template))
    dtype = str(engine.compute).removeprefix("torch.")
    make = partial(worker_sampler, name, template, dtype, config.lora_rank, config.seed, config.quantize)
    return RayRollouts(engine, make, word.workers, address=word.address, hand=config.rollouts_hand)


def worker_sampler(model: str, template: str, dtype: str, lora_rank: int, seed: int, quantize: str) -> HFSampler:
    """A worker's sampler: the learner's model, with the parameters that the learner trains."""
    from harken.engines.hf import Engine
    from harken.engines.loading import load
    from harken.engines.precision import resolve_dtype
    from harken.engines.sampler import HFSampler
    from harken.launch.templates import given_template
    loaded = load(model, dtype=resolve_dtype(dtype if lora_rank else "float32"), template=given_template(template))
    loaded.head = None
    return HFSampler(Engine(loaded, lora_rank=lora_rank, dtype=dtype, seed=seed, quantize=quantize))
