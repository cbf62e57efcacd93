"""From a command's settings to engines, rewards and runs."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import harken.methods
from harken.core import processes
from harken.core.config import MOST_SEED, RunConfig, SampleConfig
from harken.core.errors import UserError
from harken.core.records import Prompt
from harken.core.run import Run, file_hash, read_json, write_json
from harken.engines.policies import POLICY, BestOfN, Policy, Prompted, beside, read_policy, weights_of
from harken.opening import locate_reward, open_reward, rename_reward, reward_identity, same_reward
from harken.stats.monitors import parse_rules

if TYPE_CHECKING:
    from harken.engines.hf import Engine
    from harken.engines.sampler import HFSampler

BEYOND = sys.float_info.max
"""A file of settings may hold whole numbers that no float can."""
LEAST = {"learning_rate": 0, "warmup": 0, "max_grad_norm": 0, "weight_decay": 0, "lora_rank": 0, "tokens_per_micro_batch": 1,
         "max_length": 2, "checkpoint_seconds": 0, "batch_size": 1, "holdout": 0, "holdout_labelers": 0, "steps": 0,
         "prompts_per_step": 1, "completions_per_prompt": 1, "max_tokens": 1, "temperature": 0, "top_p": 0, "beta": 0,
         "missing_eos_penalty": 0, "reward_clip": 0, "clip": 0, "samples_per_step": 0, "n": 1, "epochs": 0, "nll_weight": 0,
         "labeler_learning_rate": 0, "folds": 2, "retest": 0, "min_entropy": 0, "max_failures": 0,
         "n_shots": 0, "budget": 1, "seed": 0, "pool": 1, "monitor_every": 1, "monitor_prompts": 8}
ABOVE = {"epochs": 0, "top_p": 0}
MOST = {"warmup": 1, "holdout": 1, "holdout_labelers": 1, "top_p": 1, "max_failures": 1, "seed": MOST_SEED}
ONE_OF = {"schedule": ("cosine", "linear", "constant"), "overlong": ("drop", "truncate", "fail"),
          "dtype": ("float32", "bfloat16", "auto"), "ties": ("drop", "davidson", "rao_kupper"),
          "labelers": ("plain", "reliability", "groups"), "tied": ("drop", "half"), "answers": ("expected", "sampled"),
          "penalty": ("both", "l1", "l2"), "weak": ("drop", "keep", "fail"), "search": ("none", "greedy"),
          "direction": ("reverse", "forward"), "select": ("last", "loss", "reward")}
KINDS: dict[str, Any] = {"int": int, "float": (int, float), "str": str, "bool": bool}


def check_settings(config: Any) -> None:
    """Refuses values of another type, out of range or unknown, before anything is loaded or written."""
    for field in dataclasses.fields(config):
        name, value = field.name, getattr(config, field.name)
        flag, kind = "--" + name.replace("_", "-"), getattr(field.type, "__name__", str(field.type))
        if not isinstance(value, KINDS.get(kind, object)) or (isinstance(value, bool) and kind in ("int", "float")):
            raise UserError(f"{flag} {value!r} is not a value of type {kind}.", "Correct it (in the file given to --config?).")
    check_values({f.name: getattr(config, f.name) for f in dataclasses.fields(config)})


def check_values(settings: Mapping[str, Any]) -> None:
    """Refuses a number out of its range and a word that is not known, by the setting's name."""
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        if name in ONE_OF and value not in ONE_OF[name]:
            raise UserError(f"{flag} {value!r} is unknown.", f"Use one of {', '.join(ONE_OF[name])}.")
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        low, high = LEAST.get(name, -BEYOND), MOST.get(name, BEYOND)
        if not low <= value <= high or value == ABOVE.get(name):
            bounds = [f"above {low}" if name in ABOVE else f"at least {low}"] if name in LEAST else []
            bounds += [f"at most {high}"] if name in MOST else []
            raise UserError(f"{flag} {value} is out of range.", f"It must be {' and '.join(bounds) or 'a finite number'}.")


def method_names() -> list[str]:
    """The methods that ship: the files of harken/methods."""
    return sorted(m.name for m in pkgutil.iter_modules(harken.methods.__path__))


def find_method(name: str) -> ModuleType:
    """harken.methods.NAME, or any importable module with a `Config` and a `train`."""
    path = f"harken.methods.{name}" if name in method_names() else name
    known = f"Methods: {', '.join(method_names())}; or the dotted path of your own module."
    if not all(part.isidentifier() for part in path.split(".")):
        raise UserError(f"There is no method {name!r}.", known)
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        if name in method_names():
            raise missing_extra(error) from None
        if error.name == name:
            raise UserError(f"There is no method {name!r}.", known) from None
        raise UserError(f"{name} cannot be imported: {error}.", "Is it on PYTHONPATH?") from None
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, RunConfig) and hasattr(module, "train")):
        raise UserError(f"{name} is not a method: it needs a Config(TrainConfig) and a train().", "CONTRIBUTING.md shows one.")
    return module


def missing_extra(error: ImportError) -> UserError:
    return UserError(f"{error.name or 'a package'} is not installed.",
                     "Training and sampling need: pip install 'harken[train]' (harken doctor shows more).")


def train(method: ModuleType, config: RunConfig, *, quiet: bool | None = None) -> Run:
    """Opens the run, builds what the method needs, trains; a finished run is left as it is. Joins the processes that
    torchrun started, if it did."""
    with together():
        return _open_and_train(method, config, quiet)


def together() -> AbstractContextManager[None]:
    """The other processes of this run, where there are any: torch is not loaded for none."""
    alone = processes.started()[1] == 1
    found: AbstractContextManager[None] = nullcontext() if alone else import_extra("harken.engines.distributed").joined()
    return found


def _open_and_train(method: ModuleType, config: RunConfig, quiet: bool | None) -> Run:
    check_settings(config)
    if not config.data and getattr(method, "needs_data", lambda config: True)(config):
        raise UserError("No data was given.", "Add --data FILE.jsonl.")
    if not config.out:
        raise UserError("No run directory was given.", "Add --out runs/NAME.")
    name = method.__name__.removeprefix("harken.methods.")
    reward_spec = getattr(config, "reward", None)
    if not reward_spec and not getattr(method, "needs_reward", lambda config: True)(config):
        reward_spec = None
    lineage: dict[str, Any] = {"model": model_identity(config.model)}
    further = getattr(method, "files", lambda config: {})(config)
    for option, path in {**{n: getattr(config, n, "") for n in ("data", "demonstrations", "ptx_data")}, **further}.items():
        if path:
            if not Path(path).is_file():
                raise UserError(f"There is no file {path}.", f"Check --{option.partition(' ')[0].replace('_', '-')}.")
            lineage[option] = {"path": path, "sha256": file_hash(Path(path))}
    import_extra("harken.engines.loading")
    from harken.engines.loading import locate, relative_base
    locate(config.model)
    if teacher := getattr(config, "teacher", ""):
        locate(teacher)
        lineage["teacher"] = model_identity(teacher)
    if reward_spec is not None:
        locate_reward(reward_spec)
        lineage["reward"] = reward_identity(reward_spec)
        check_watch(config, lineage)
    settings = {"command": f"train {name}", "base": relative_base(config.model, Path(config.out)), **dataclasses.asdict(config)}
    if reward_spec and not learns(method):
        settings["reward_base"] = rename_reward(reward_spec, lambda p: relative_base(p, Path(config.out)))
    with Run.open(config.out, settings, lineage, checkpoint_seconds=config.checkpoint_seconds, quiet=quiet) as run:
        if run.done:
            run.say(f"{run.path} is finished; nothing to do.")
            return run
        _train(method, config, run, reward_spec)
    return run


def check_watch(config: Any, lineage: dict[str, Any]) -> None:
    """Refuses stop rules that are none, and a held-out reward that is the one climbed; its identity joins the lineage."""
    held_out = getattr(config, "held_out_reward", "")
    hacking, _ = parse_rules(getattr(config, "stop_when", ""))
    if hacking and not held_out:
        raise UserError("--stop-when hacking compares the reward with one that is not climbed, and there is none.",
                        "Add --held-out-reward RUN: a reward model fitted on other judgments.")
    if getattr(config, "shard", False) and getattr(config, "stop_when", ""):
        raise UserError("--stop-when keeps whole weights to go back to, and --shard has none.", "Leave one of them out.")
    if held_out:
        locate_reward(held_out)
        lineage["held_out_reward"] = reward_identity(held_out)
        if lineage["held_out_reward"] == lineage["reward"]:
            raise UserError("The held-out reward is the reward that is climbed: it would always agree.",
                            "Fit another on other judgments (harken snapshot splits them).")


def _train(method: ModuleType, config: RunConfig, run: Run, reward_spec: str | None) -> None:
    from harken.engines.monitors import Watch
    from harken.engines.profile import profiling, table
    options: dict[str, Any] = {"dtype": config.dtype, "tokens_per_micro_batch": config.tokens_per_micro_batch}
    sampler = open_learner(method, config, run) if learns(method) else open_sampler(config.model, **options)
    reward = held_out = None
    base = sampler.engine.shared
    if reward_spec is not None:
        reward = open_reward(reward_spec, aggregate=getattr(config, "aggregate", ""), on=base, **options)
    if spec := getattr(config, "held_out_reward", ""):
        held_out = open_reward(spec, on=base, **options)
    config = dataclasses.replace(config, max_length=min(config.max_length, context(sampler.engine)))
    if isinstance(config, SampleConfig) and learns(method):
        run.watch = Watch(config, sampler.engine, sampler, run, reward, held_out)
    with profiling(getattr(config, "profile", False), sampler.engine.device, sampler.engine.compute) as profile:
        method.train(config, sampler.engine, sampler, reward, run)
    if profile and run.group.rank == 0:
        summary = profile.summary()
        write_json(run.path / "profile.json", summary)
        run.say(table(summary))


def learns(method: ModuleType) -> bool:
    """Whether a method changes weights; one that does not (LEARNS = False) takes any policy as its model."""
    return bool(getattr(method, "LEARNS", True))


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


def context(engine: Engine) -> int:
    """The most tokens a model can take at once."""
    return int(getattr(engine.model.config, "max_position_embeddings", None) or sys.maxsize)


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


def open_sampler(model: str, *, dtype: str = "float32", tokens_per_micro_batch: int = 2048) -> Any:
    """What answers prompts as `model` does: a model's weights, or a run of best_of_n or prompting with all it stands on.

    Every sampler has `engine` (the weights below it) and `seen(prompt)` (what they are given). Raises `UserError` where
    the base or the reward of such a run is missing or another than the run was made with.
    """
    options: Any = {"dtype": dtype, "tokens_per_micro_batch": tokens_per_micro_batch}
    import_extra("harken.engines.loading").locate(model)
    if (policy := read_policy(model)) is None:
        engine = open_engine(model, **options)
        return import_extra("harken.engines.sampler").HFSampler(engine)
    reward = reward_of(policy, model) if policy.kind == "best_of_n" else ""
    base = open_sampler(policy.base, **options)
    policy.check_base(model, base.lineage)
    if policy.kind == "prompting":
        return Prompted(base, policy.messages, policy.lineage)
    opened = open_reward(reward, aggregate=policy.aggregate, **options)
    return BestOfN(base, opened, policy.n, policy.missing_eos_penalty, policy.lineage)


def reward_of(policy: Policy, run: str) -> str:
    """The reward a run of best_of_n chooses by, as this process can open it. Raises `UserError` if it is missing or changed."""
    spec = rename_reward(policy.reward, lambda name: beside(Path(run), name))
    locate_reward(spec)
    if not same_reward(reward_identity(spec), read_json(Path(run) / "lineage.json").get("reward")):
        raise UserError(f"The reward {spec} is not the one {run} chooses by.", "Restore that reward, or make the run again.")
    return spec


def check_context(sampler: Any, prompts: Sequence[Prompt], max_tokens: int) -> None:
    """Refuses prompts too long for the model before the first answer is sampled."""
    engine = sampler.engine
    for i, prompt in enumerate(prompts):
        if (length := len(engine.template.prompt_ids(sampler.seen(prompt)))) + max_tokens > context(engine):
            raise UserError(f"Prompt {i + 1} has {length} tokens; with {max_tokens} new ones it exceeds the context of "
                            f"{context(engine)} of {engine.lineage.get('name', 'the model')}.",
                            "Shorten the prompt or lower --max-tokens.")


def import_extra(name: str) -> ModuleType:
    """Imports a module that needs the [train] extra; says how to install it where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise missing_extra(error) from None


def evaluate(name: str, module: ModuleType, config: Any, *, quiet: bool | None = None) -> Run:
    """Opens the run, the models and the judge; a finished evaluation is left as it is."""
    check_settings(config)
    option = "prompts" if hasattr(config, "prompts") else "data"
    source = Path(getattr(config, option))
    if not source.is_file():
        raise UserError(f"There is no file {getattr(config, option)!r}.", f"Check --{option}.")
    if not config.out:
        raise UserError("No run directory was given.", "Add --out runs/NAME.")
    import_extra("harken.engines.loading")
    from harken.engines.loading import locate
    locate(config.model), locate(config.against)
    lineage = {"data": {"path": str(source), "sha256": file_hash(source)}, "model": model_identity(config.model),
               "against": model_identity(config.against)}
    if hasattr(config, "judge"):
        locate_reward(config.judge)
        lineage["judge"] = reward_identity(config.judge)
    settings = {"command": f"eval {name}", **dataclasses.asdict(config)}
    with Run.open(config.out, settings, lineage, quiet=quiet) as run:
        if run.done:
            run.say(f"{run.path} is finished; nothing to do.")
            return run
        names = (config.model, config.against)
        if name == "capability":
            for policy, base in ((m, weights_of(m)) for m in names if weights_of(m) != m):
                run.note(f"{policy} has no weights of its own: those of {base} are measured.")
            model, against = (open_engine(weights_of(m), dtype=config.dtype) for m in names)
            module.evaluate(config, model, against, run)
            return run
        from harken.store.files import read_prompts
        loaded = read_prompts(config.prompts, skip_bad=config.skip_bad)
        if note := loaded.describe():
            run.note(note)
        model, against = (open_sampler(m, dtype=config.dtype) for m in names)
        for sampler in (model, against):
            check_context(sampler, loaded.records, config.max_tokens)
        for m in names:
            policy = read_policy(m)
            if policy and policy.reward and same_reward(reward_identity(reward_of(policy, m)), lineage["judge"]):
                run.note(f"{m} chooses by the reward that judges here: what it wins is no evidence. Judge by another.")
        judge = open_reward(config.judge, dtype=config.dtype, aggregate=config.aggregate)
        module.evaluate(config, loaded.records, model, against, judge, run)
    return run
