"""Opens the run, builds what a method needs, trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from harken.core import processes
from harken.core.config import RolloutConfig, RunConfig, SampleConfig, named
from harken.core.errors import UserError
from harken.core.extras import import_extra
from harken.core.files import write_json
from harken.core.records import content_hash
from harken.core.run import Run
from harken.core.settings import check_settings
from harken.launch.machine import free_memory
from harken.launch.models import ModelWord, context, open_learner, parse_model
from harken.launch.own import CHOSEN, TRAINED, check_learner, code_of, learner_of
from harken.launch.plan import anew, plan_of
from harken.launch.policies import open_sampler
from harken.launch.rewards import RewardWord, open_reward, parse_reward
from harken.launch.rollouts import open_rollouts, parse_rollouts
from harken.launch.templates import dated, given_template, note_template
from harken.loops import ahead, trackers
from harken.stats.drift import parse_rules
from harken.store.files import file_hash
from harken.store.tables import HUB_ID, hub_revision

KEPT_TIMES = 2.0
"""A process that keeps freed memory, for speed, came to 1.9 times its plan (docs/scale.md)."""


def train(method: ModuleType, config: RunConfig, *, quiet: bool | None = None, given: Mapping[str, Any] | None = None) -> Run:
    """Opens the run, builds what the method needs, trains; a finished run is left as it is. Joins the processes that
    torchrun started, if it did. `given` are Python objects (a model, rewards) in the place of words, by setting."""
    with together():
        return _open_and_train(method, config, quiet, given or {})


def together() -> AbstractContextManager[None]:
    """The other processes of this run, where there are any: torch is not loaded for none."""
    alone = processes.started()[1] == 1
    joined: AbstractContextManager[None] = nullcontext() if alone else import_extra("harken.engines.distributed").joined()
    return joined


def _open_and_train(method: ModuleType, config: RunConfig, quiet: bool | None, given: Mapping[str, Any]) -> Run:
    check_settings(config)
    if not config.data and asks(method, "needs_data", config, True):
        raise UserError("No data was given.", "Add --data FILE (JSON Lines, CSV, Parquet, …).")
    if not config.out:
        raise UserError("No run directory was given.", "Add --out runs/NAME.")
    if prepare := getattr(method, "prepare", None):  # makes the model to start from, where the method does
        config = prepare(config)
    rewards = _rewards(method, config, given)
    model = parse_model(given.get("model") or config.model)
    lineage: dict[str, Any] = {"model": model.identity(), **_files(method, config), **code_of(method, "method")}
    if identity := getattr(method, "identity", None):  # of data that is no file
        lineage["data"] = identity(config)
    if template := given_template(getattr(config, "template", "")):
        lineage["template"] = content_hash(template)
    import_extra("harken.engines.loading")
    reporting = trackers.check(config.report_to) if config.report_to else []
    model.check()
    for name, other in named(config, "model").items():
        if name != "model":
            parse_model(other).check()
            lineage[name] = parse_model(other).identity()
    for name, reward in rewards.items():
        reward.check()
        lineage[name] = reward.identity()
    if rewards:
        check_watch(config, lineage)
    if isinstance(config, RolloutConfig):
        parse_rollouts(config.rollouts)
        ahead.check(config)
    out = Path(config.out)
    command = method.__name__.removeprefix("harken.methods.")
    settings = {"command": f"train {command}", "base": model.relative(out), **dataclasses.asdict(config)}
    if "reward" in rewards and not learns(method):
        settings["reward_base"] = rewards["reward"].renamed(lambda path: parse_model(path).relative(out))
    with Run.open(config.out, settings, lineage, checkpoint_seconds=config.checkpoint_seconds, quiet=quiet) as run:
        if run.done:
            run.say(f"{run.path} is finished; nothing to do.")
            return run
        if reporting and run.group.rank == 0:
            run.trackers = trackers.FanOut(reporting, run)
        note_rate(config, run)
        with dated(run):
            _train(method, config, run, rewards, model)
        if not run.done and run.group.rank == 0:
            raise UserError(f"{method.__name__}.train() came to its end without finishing {run.path}.",
                            "End it with steps.finish(), or run.finish(result, save).")
    return run


def note_rate(config: RunConfig, run: Run) -> None:
    """Says that the learning rate is that of training everything, where it is its default."""
    field = {f.name: f for f in dataclasses.fields(config)}.get("learning_rate")
    full = field.metadata.get("full") if field else None
    if field and full and getattr(config, "lora_rank", None) == 0 and getattr(config, "learning_rate", None) == full:
        run.note(f"Every parameter is trained: the learning rate is {full:g}, the default for that "
                 f"(with adapters {field.default:g}).")


def asks(method: ModuleType, what: str, config: RunConfig, unless_said: bool) -> bool:
    """What a method says of its needs: `needs_data`, `needs_reward`, `needs_reference` (functions of the config)."""
    hook = getattr(method, what, None)
    return bool(hook(config)) if hook else unless_said


def _rewards(method: ModuleType, config: RunConfig, given: Mapping[str, Any]) -> dict[str, RewardWord]:
    """The rewards that the settings name, read once; the one to climb is not optional unless the method says so."""
    fields = {f.name for f in dataclasses.fields(config) if f.metadata.get("names") == "reward"}
    if hasattr(config, "reward"):  # a method of yours may declare it plainly
        fields.add("reward")
    words = {name: given.get(name) or getattr(config, name) for name in sorted(fields)}
    needed = "reward" in fields and (bool(words["reward"]) or asks(method, "needs_reward", config, True))
    return {name: parse_reward(word) for name, word in words.items() if word or (name == "reward" and needed)}


def _files(method: ModuleType, config: RunConfig) -> dict[str, Any]:
    """Hashes of every file that the settings name, and of those a method names besides (`files`), by option."""
    further = getattr(method, "files", None)
    hashes = {}
    for option, path in {**named(config, "file"), **(further(config) if further else {})}.items():
        if path:
            hashes[option] = _identity(path, option.partition(" ")[0].replace("_", "-"))
    return hashes


def _identity(path: str, option: str) -> dict[str, Any]:
    """A file's or a folder's hash; of a data set on a hub its revision, where the hub says it."""
    if Path(path).is_dir() and not any(p.suffix in (".arrow", ".parquet") for p in Path(path).rglob("*")):
        raise UserError(f"There is no file {path}: it is a folder without Arrow or Parquet files.", f"Check --{option}.")
    if Path(path).exists():
        return {"path": path, "sha256": file_hash(Path(path))}
    if HUB_ID.fullmatch(path) and not Path(path).suffix and not Path(path).parent.exists():
        return {"path": path, "revision": hub_revision(path)}
    raise UserError(f"There is no file {path}.", f"Check --{option}.")


def check_watch(config: Any, lineage: dict[str, Any]) -> None:
    """Refuses stop rules that are none, and a held-out reward that is the one climbed."""
    held_out, rules = getattr(config, "held_out_reward", ""), getattr(config, "stop_when", "")
    hacking, _ = parse_rules(rules)
    if getattr(config, "patience", 0) and hasattr(config, "stop_when") and not held_out:
        raise UserError("--patience waits for a held-out reward to rise, and there is none.", "Add --held-out-reward RUN.")
    if hacking and not held_out:
        raise UserError("--stop-when hacking compares the reward with one that is not climbed, and there is none.",
                        "Add --held-out-reward RUN: a reward model fitted on other judgments.")
    if getattr(config, "shard", False) and rules:
        raise UserError("--stop-when keeps whole weights to go back to, and --shard has none.", "Leave one of them out.")
    if held_out and lineage["held_out_reward"] == lineage.get("reward"):
        raise UserError("The held-out reward is the reward that is climbed: it would always agree.",
                        "Fit another on other judgments (harken snapshot splits them).")


def _spared(method: ModuleType, config: Any, run: Run, model: ModelWord) -> Any:
    """The configuration with --checkpoint-activations where learning would not fit into memory otherwise; the run says so. Where
    less than `KEPT_TIMES` of the plan is free, what is freed goes back to the system."""
    if model.kind != "named" or config.model == "toy":
        return config
    group = processes.group()
    free = free_memory(group.size)
    try:
        why = anew(method, config, group.size, free)
        if plan_of(method, config, group.size, advise=False).total * KEPT_TIMES > free:
            import_extra("harken.engines.cpu").give_back()
    except UserError:  # loading says it better, and models whose sizes are not counted may train all the same
        why = ""
    if not (why := group.agree(why)):
        return config
    run.note(why)
    return dataclasses.replace(config, checkpoint_activations=True)


def _train(method: ModuleType, config: RunConfig, run: Run, rewards: Mapping[str, RewardWord], model: ModelWord) -> None:
    from harken.engines.profile import profiling, table
    from harken.loops.watch import Watch
    options: dict[str, Any] = {"dtype": config.dtype, "tokens_per_micro_batch": config.tokens_per_micro_batch}
    sampler = (open_learner(method, _spared(method, config, run, model), run, model) if learns(method)
               else open_sampler(model.given or config.model, **options))
    engine = learner_of(sampler)
    if model.kind in ("own", "given"):
        check_learner(engine, model.word, method.__name__.removeprefix("harken.methods."), TRAINED if learns(method) else CHOSEN)
    if getattr(method, "CHATS", True) and (template := getattr(engine, "template", None)) is not None:
        note_template(template, run)
    base = getattr(engine, "shared", None)
    opened = {name: open_reward(word, aggregate=getattr(config, "aggregate", "") if name == "reward" else "", on=base, **options)
              for name, word in rewards.items()}
    reward, held_out = opened.get("reward"), opened.get("held_out_reward")
    if config.max_length > (longest := context(engine)):
        if config.max_length != type(config).max_length:
            run.note(f"--max-length {config.max_length} is more than the model reads: {longest} tokens are the most here.")
        config = dataclasses.replace(config, max_length=longest)
    if isinstance(config, SampleConfig) and learns(method):
        run.watch = Watch(config, engine, sampler, run, reward, held_out)  # audits are sampled here: they need no correction
    if isinstance(config, RolloutConfig) and config.rollouts:
        sampler = open_rollouts(config, engine, run, model)
        if config.max_staleness:
            sampler = run.ahead = ahead.Ahead(config, sampler)
    profiled = getattr(config, "profile", False)
    with closed(sampler), profiling(profiled, getattr(engine, "device", None), getattr(engine, "compute", None)) as profile:
        method.train(config, engine, sampler, reward, run)
    if profile and run.group.rank == 0:
        summary = profile.summary()
        write_json(run.path / "profile.json", summary)
        run.say(table(summary))


@contextmanager
def closed(sampler: Any) -> Iterator[None]:
    """Ends what a sampler began, if it did."""
    try:
        yield
    finally:
        if close := getattr(sampler, "close", None):
            close()


def learns(method: ModuleType) -> bool:
    """Whether a method changes weights; one that does not (LEARNS = False) takes any policy as its model."""
    return bool(getattr(method, "LEARNS", True))
