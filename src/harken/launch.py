"""From a command's settings to engines, rewards and runs."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import harken.methods
from harken.core.config import TrainConfig
from harken.core.errors import UserError
from harken.core.protocols import Reward
from harken.core.run import Run, file_hash

if TYPE_CHECKING:
    from harken.engines.hf import Engine


def method_names() -> list[str]:
    """The methods that ship: the files of harken/methods."""
    return sorted(m.name for m in pkgutil.iter_modules(harken.methods.__path__))


def find_method(name: str) -> ModuleType:
    """harken.methods.NAME, or any importable module with a `Config` and a `train`."""
    path = f"harken.methods.{name}" if name in method_names() else name
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        if name in method_names():
            raise missing_extra(error) from None
        if "." not in name:
            raise UserError(f"There is no method {name!r}.",
                            f"Methods: {', '.join(method_names())}; or the dotted path of your own module.") from None
        raise UserError(f"{name} cannot be imported: {error}.", "Is it on PYTHONPATH?") from None
    if not hasattr(module, "Config") or not hasattr(module, "train"):
        raise UserError(f"{name} is not a method: it needs a Config and a train().", "CONTRIBUTING.md shows one.")
    return module


def missing_extra(error: ImportError) -> UserError:
    return UserError(f"{error.name or 'a package'} is not installed.",
                     "Training and sampling need: pip install 'harken[train]' (harken doctor shows more).")


def train(method: ModuleType, config: TrainConfig, *, quiet: bool | None = None) -> Run:
    """Opens the run, builds what the method needs, trains; a finished run is left as it is."""
    if not config.data:
        raise UserError("No data was given.", "Add --data FILE.jsonl.")
    data = Path(config.data)
    if not data.is_file():
        raise UserError(f"There is no file {data}.", "Check --data.")
    name = method.__name__.removeprefix("harken.methods.")
    reward_spec = getattr(config, "reward", None)
    lineage = {"data": {"path": str(data), "sha256": file_hash(data)}, "model": model_identity(config.model)}
    for extra in ("demonstrations",):
        if path := getattr(config, extra, ""):
            if not Path(path).is_file():
                raise UserError(f"There is no file {path}.", f"Check --{extra}.")
            lineage[extra] = {"path": path, "sha256": file_hash(Path(path))}
    if reward_spec is not None:
        if not reward_spec:
            raise UserError("No reward was given.", "Add --reward runs/rm, or gold in the sandbox.")
        lineage["reward"] = model_identity(reward_spec)
    from harken.engines.loading import locate, relative_base
    locate(config.model)
    settings = {"command": f"train {name}", "base": relative_base(config.model, Path(config.out)), **dataclasses.asdict(config)}
    if not config.out:
        raise UserError("No run directory was given.", "Add --out runs/NAME.")
    with Run.open(config.out, settings, lineage, checkpoint_seconds=config.checkpoint_seconds, quiet=quiet) as run:
        if run.done:
            run.say(f"{run.path} is finished; nothing to do.")
            return run
        _train(method, config, run, reward_spec)
    return run


def _train(method: ModuleType, config: TrainConfig, run: Run, reward_spec: str | None) -> None:
    from harken.engines.hf import Engine
    from harken.engines.loading import load
    from harken.engines.sampler import HFSampler
    loaded = load(config.model)
    if off := loaded.lineage.get("dropout_turned_off"):
        run.note(f"Turned off dropout in {off} places of the model.")
    ties = getattr(config, "ties", "drop")
    head = "reward" if hasattr(config, "ties") else None
    if head is None:
        loaded.head = None
    learner = Engine(loaded, lora_rank=config.lora_rank, dtype=config.dtype, head=head, seed=config.seed,
                     scalars={"tie": 0.0} if ties != "drop" else None, weight_decay=config.weight_decay,
                     tokens_per_micro_batch=config.tokens_per_micro_batch, max_grad_norm=config.max_grad_norm)
    reward = None
    if reward_spec is not None:
        reward = open_reward(reward_spec, dtype=config.dtype, tokens_per_micro_batch=config.tokens_per_micro_batch)
        if config.lora_rank == 0:
            learner.reference = Engine(load(config.model), dtype=config.dtype, train=False,
                                       tokens_per_micro_batch=config.tokens_per_micro_batch)
    method.train(config, learner, HFSampler(learner), reward, run)


def model_identity(spec: str) -> Any:
    """What names a model in `lineage.json`: for a run its weights' hashes, else the name."""
    folder = Path(spec) / "model"
    if folder.is_dir():
        files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".pt"))
        return {"run": spec, "weights": [file_hash(f) for f in files]}
    return spec


def open_reward(spec: str, *, dtype: str = "float32", tokens_per_micro_batch: int = 2048) -> Reward:
    """gold (the sandbox's truth) or the directory of a reward_model run."""
    if not spec:
        raise UserError("No reward was given.", "Add --reward runs/rm, or gold in the sandbox.")
    if spec == "gold":
        from harken.sandbox import GoldReward
        return GoldReward()
    from harken.rewards.bradley_terry import BradleyTerryReward
    return BradleyTerryReward.open(spec, dtype=dtype, tokens_per_micro_batch=tokens_per_micro_batch)


def open_engine(model: str, *, dtype: str = "float32", tokens_per_micro_batch: int = 2048) -> Engine:
    """A model to sample from or to score with; nothing in it is trained."""
    from harken.engines.hf import Engine
    from harken.engines.loading import load
    return Engine(load(model), dtype=dtype, train=False, tokens_per_micro_batch=tokens_per_micro_batch)


def import_extra(name: str) -> ModuleType:
    """Imports a module that needs the [train] extra; says how to install it where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise missing_extra(error) from None


def evaluate(name: str, module: ModuleType, config: Any, *, quiet: bool | None = None) -> Run:
    """Opens the run, the models and the judge; a finished evaluation is left as it is."""
    source = Path(getattr(config, "prompts", "") or config.data)
    if not source.is_file():
        raise UserError(f"There is no file {source}.", "Check --prompts or --data.")
    lineage = {"data": {"path": str(source), "sha256": file_hash(source)}, "model": model_identity(config.model),
               "against": model_identity(config.against)}
    from harken.engines.loading import locate
    locate(config.model), locate(config.against)
    settings = {"command": f"eval {name}", **dataclasses.asdict(config)}
    with Run.open(config.out, settings, lineage, quiet=quiet) as run:
        if run.done:
            run.say(f"{run.path} is finished; nothing to do.")
            return run
        model, against = (open_engine(m, dtype=config.dtype) for m in (config.model, config.against))
        if name == "capability":
            module.evaluate(config, model, against, run)
            return run
        from harken.engines.sampler import HFSampler
        from harken.store.files import read_prompts
        loaded = read_prompts(config.prompts, skip_bad=config.skip_bad)
        if note := loaded.describe():
            run.note(note)
        judge = open_reward(config.judge, dtype=config.dtype)
        module.evaluate(config, loaded.records, HFSampler(model), HFSampler(against), judge, run)
    return run
