"""Harken as a library: `import harken`, then the names below. Objects and lists stand wherever the commands take names and files.

    reward = lambda prompts, completions: [-len(text) for text in completions]
    run = harken.train("rloo", model="smollm2", reward=reward, data=[{"prompt": "Say hello."}], out="runs/brief")
    harken.sample("runs/brief", ["Say hello."], n=2)

docs/python.md has an example of each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from harken.core.config import following
from harken.core.errors import UserError
from harken.core.find import nearest
from harken.core.protocols import Reward, Sample
from harken.core.records import Choice, Prompt
from harken.core.run import Run
from harken.core.settings import check_settings
from harken.launch.evaluate import evaluate as run_evaluation
from harken.launch.find import find_eval, find_method
from harken.launch.models import check_context
from harken.launch.policies import open_sampler
from harken.launch.rewards import open_reward
from harken.launch.settings import SampleSettings
from harken.launch.train import train as run_method
from harken.store.files import write_jsonl

Rows = Iterable[Mapping[str, Any] | str | Any]


def load(model: Any, *, dtype: str = "float32") -> Any:
    """What answers prompts as `model` does (a name as for `--model`): `.sample(prompts, n, max_tokens=…)`; models with weights
    have an `.engine` besides, which reads log-probs. Raises `UserError` where there is none."""
    return open_sampler(_word(model), dtype=dtype)


def train(method: Any, *, out: str | Path, model: Any = "smollm2", quiet: bool | None = None, **settings: Any) -> Run:
    """Trains, and gives the finished run; the same call continues one that was killed.

    `method` is a name, a dotted path or a module. `settings` are those of `harken train METHOD --help`; rewards may be functions
    (or objects with `score`), a model an object with all of `core.protocols.Learner`; data may be lists of rows, texts or
    records, which are kept with the run. Raises `UserError`.
    """
    module = find_method(method)
    settings, given = _named_settings(module.Config, {"model": model, **settings}, Path(out), "reward", "model")
    config = module.Config(**following(module.Config, {"out": str(out), **settings}))
    return run_method(module, config, quiet=quiet, given=given)


def evaluate(evaluation: Any, *, out: str | Path, quiet: bool | None = None, **settings: Any) -> Run:
    """Evaluates, and gives the finished run: `run.result` holds the value with its interval. As `train`, for `harken eval`."""
    module = find_eval(evaluation)
    settings, given = _named_settings(module.Config, settings, Path(out), "reward", "model")
    name = module.__name__.removeprefix("harken.evals.")
    return run_evaluation(name, module, module.Config(out=str(out), **settings), quiet=quiet, given=given)


def sample(model: Any, prompts: Sequence[Any], n: int = 1, **settings: Any) -> list[list[Sample]]:
    """`n` completions of each prompt (texts, rows, lists of messages or `Prompt`s): `[P][n]`. Settings: max_tokens, temperature,
    top_p, seed, dtype."""
    config = _config(SampleSettings, {"n": n, **settings})
    check_settings(config)
    asked = [_prompt(p) for p in prompts]
    sampler = open_sampler(_word(model), dtype=config.dtype)
    check_context(sampler, asked, config.max_tokens)
    samples: list[list[Sample]] = sampler.sample(asked, n, max_tokens=config.max_tokens, temperature=config.temperature,
                                                 top_p=config.top_p, seed=config.seed)
    return samples


def score(reward: Any, prompts: Sequence[Any], completions: Sequence[Sequence[str]], *, dtype: str = "float32",
          aggregate: str = "") -> list[list[float | None]]:
    """A score for each completion of each prompt, `[P][G]`; None where there is none. `reward` is a name as for `--reward`, a
    function or an object with `score`."""
    if len(prompts) != len(completions):
        raise UserError(f"There are {len(prompts)} prompts and {len(completions)} lists of completions.",
                        "Give each prompt its list.")
    opened: Reward = open_reward(_word(reward), dtype=dtype, aggregate=aggregate)
    return [list(row) for row in opened.score([_prompt(p) for p in prompts], completions)]


def next_questions(candidates: Iterable[Any], feedback: Sequence[Choice] | Sequence[Any] = (), n: int = 20,
                   **settings: Any) -> list[dict[str, Any]]:
    """The questions whose answers would teach most for a second of reading, the best first: rows of prompt, completions,
    information (nats expected) and seconds. `candidates` are rows of prompt and completions, `feedback` comparisons so far
    (records or rows). Settings: most, strategy, explore, threshold, dimensions, seed, reward (docs/next.md)."""
    from harken.launch.next import NextSettings, gather, questions
    config = _config(NextSettings, {"n": n, **settings})
    check_settings(config)
    records: list[Any] = [Choice.from_json(row) if isinstance(row, Mapping) else row for row in feedback]
    offered = [(_prompt(row), list(row["completions"])) for row in candidates]
    rows, _ = questions(*gather(records, offered), config)
    return rows


def _word(value: Any) -> Any:
    """A path as the word that the commands take; anything else as it is."""
    return str(value) if isinstance(value, PathLike) else value


def _prompt(value: Any) -> Prompt:
    if isinstance(value, Prompt):
        return value
    try:
        return Prompt.from_json(value if isinstance(value, Mapping) else {"prompt": value})
    except ValueError as error:
        raise UserError(f"{str(value)[:80]!r} is no prompt: {error}.",
                        "Give a text, a list of messages, or a row with prompt.") from None


def _config(kind: type, settings: Mapping[str, Any]) -> Any:
    names = [f.name for f in dataclasses.fields(kind)]
    if unknown := [name for name in settings if name not in names]:
        raise UserError(f"There is no setting {unknown[0]!r}.{nearest(unknown[0], names)}",
                        f"Settings: {', '.join(sorted(names))}.")
    return kind(**settings)


def _named_settings(config: type, settings: Mapping[str, Any], out: Path, *objects: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings as words, Python objects by setting): lists become files kept with the run, `objects` says what may be one."""
    fields = {f.name: f for f in dataclasses.fields(config)}
    if unknown := [name for name in settings if name not in fields]:
        raise UserError(f"There is no setting {unknown[0]!r}.{nearest(unknown[0], list(fields))}",
                        f"Settings: {', '.join(sorted(fields))}.")
    words, given = {}, {}
    for name, value in settings.items():
        names = fields[name].metadata.get("names") or {"reward": "reward", "data": "file"}.get(name)
        value = _word(value)
        if names == "file" and not isinstance(value, str):
            value = _kept(value, out, name)
        if names in objects and not isinstance(value, str):
            given[name] = value
            value = _label(value)
        words[name] = value
    return words, given


def _kept(rows: Rows, out: Path, name: str) -> str:
    """Writes rows into OUT/inputs/NAME.jsonl, where the run's lineage and a resumed run find them."""
    path = out / "inputs" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, [_row(row) for row in rows])
    return str(path)


def _row(row: Any) -> Any:
    if isinstance(row, str):
        return {"prompt": row}
    return row.to_json() if isinstance(row, Prompt | Choice) or hasattr(row, "to_json") else row


def _label(value: Callable[..., Any] | Any) -> str:
    given = value if hasattr(value, "__qualname__") else type(value)
    return f"{given.__module__}:{given.__qualname__}"
