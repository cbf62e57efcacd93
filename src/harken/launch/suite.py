"""Several evaluations, of several models, in one process: each model is loaded once, and what it said is kept in one store.

    quick = read_list("quick")
    rows = run_suite(quick, ["runs/sft", "runs/rloo"], {"against": "smollm2"}, "runs/suite")

A list is a name of ours, or a file with an evaluation a line and its own settings behind it: `truthful --prompt harmful`.
The same command continues a suite that was killed; evaluations that are done are left as they are.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harken.core.config import from_dict
from harken.core.errors import UserError
from harken.core.files import write_json
from harken.core.progress import progress
from harken.core.protocols import Estimate
from harken.launch.evaluate import evaluate
from harken.launch.find import find_eval
from harken.loops.items import NAME, Store

LISTS: dict[str, tuple[str, ...]] = {
    "quick": ("truthful", "bias", "refusals"),
    "harmless": ("toxicity", "bias", "refusals", "injection", "sycophancy", "implicit_rules"),
    "full": ("truthful", "hallucination", "toxicity --limit 24", "bias", "refusals",
             "injection --limit 200 --beside 50 --texts 30", "sycophancy", "triggers --max-tokens 16", "implicit_rules",
             "generalisation", "code", "opinions --steer-on 24", "oversight", "tax"),
}
"""Lines as a file has them: what dominates the time is smaller in `full`, so that it fits (docs/evals/suite.md)."""


@dataclass(frozen=True)
class Entry:
    """An evaluation and the settings that the list gives it; `label` is its folder."""

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    ours: bool = False
    """Of a list of ours, whose settings give way to those of the command."""


def read_list(word: str) -> list[Entry]:
    """A list of ours, or a file. Raises `UserError` where it is neither, or names what does not exist."""
    try:
        lines = LISTS.get(word) or Path(word).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"There is no list {word!r}.",
                        f"Lists: {', '.join(LISTS)}; or a file with an evaluation a line.") from None
    entries: list[Entry] = []
    for number, line in enumerate(lines, 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UserError(f"{word}, line {number}: {error}.", "An evaluation, then --setting value.") from None
        if words:
            entries.append(dataclasses.replace(_entry(words, f"{word}, line {number}"), ours=word in LISTS))
    if not entries:
        raise UserError(f"{word} names no evaluation.", "One a line, like: truthful --prompt harmful")
    return labelled(entries)


def _entry(words: Sequence[str], where: str) -> Entry:
    settings: dict[str, str] = {}
    rest = list(words[1:])
    while rest:
        option = rest.pop(0)
        name, equals, value = option.removeprefix("--").partition("=")
        if not option.startswith("--") or not (equals or rest):
            raise UserError(f"{where}: {option!r} is no setting with a value.", "Write --setting value.")
        settings[name.replace("-", "_")] = value if equals else rest.pop(0)
    return Entry(words[0], settings)


def labelled(entries: Sequence[Entry]) -> list[Entry]:
    """A folder's name for each: the evaluation's, numbered where it comes twice."""
    counts: dict[str, int] = {}
    named = []
    for entry in entries:
        counts[entry.name] = counts.get(entry.name, 0) + 1
        number = f"-{counts[entry.name]}" if counts[entry.name] > 1 else ""
        named.append(dataclasses.replace(entry, label=entry.name + number))
    return named


def config_of(entry: Entry, settings: Mapping[str, Any], out: str) -> Any:
    """Its Config: of `settings` those it has, then the list's own. Raises `UserError` for a setting it lacks or needs."""
    module = find_eval(entry.name)
    fields = {f.name: f for f in dataclasses.fields(module.Config)}
    if unknown := [name for name in entry.settings if name not in fields]:
        raise UserError(f"{entry.name} has no setting {unknown[0]!r}.", f"harken eval {entry.name} --help shows them.")
    given = {k: v for k, v in settings.items() if k in fields}
    own = {k: _typed(fields[k], v) for k, v in entry.settings.items()}
    values = own | given if entry.ours else given | own
    values["out"] = out
    if lacking := [n for n, f in fields.items() if f.metadata.get("required") and not values.get(n, f.default)]:
        raise UserError(f"{entry.name} needs --{lacking[0].replace('_', '-')}.", f"harken eval {entry.name} --help shows more.")
    return from_dict(module.Config, values, entry.name)


def _typed(field_: dataclasses.Field[Any], value: str) -> Any:
    kind = getattr(field_.type, "__name__", str(field_.type))
    try:
        if kind == "bool":
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[value.lower()]
        return {"int": int, "float": float}.get(kind, str)(value)
    except (ValueError, KeyError):
        raise UserError(f"--{field_.name.replace('_', '-')} {value!r} is not a value of type {kind}.",
                        "Correct the list.") from None


def run_suite(entries: Sequence[Entry], models: Sequence[str], settings: Mapping[str, Any], out: str | Path, *,
              quiet: bool | None = None, done: Any = None, failed: Any = None) -> list[dict[str, Any]]:
    """Runs every evaluation of every model; a row each: model, evaluation, run, value, missing, the least difference that two
    models of such a spread could show, and its processor seconds in this call. `done(row)` is told as each ends. What cannot be
    evaluated (a model whose context is too short) raises `UserError`; with `failed(row)` it is told, is a row with "failed" and
    no value, and the others go on. Settings that no evaluation can have raise before the first begins."""
    if not entries or not models:
        raise UserError("There is nothing to evaluate.", "Name an evaluation and a --model.")
    root = Path(out)
    folders = _folders(models)
    plan = [(model, entry, root / folders[model] / entry.label) for model in models for entry in entries]
    configs = [config_of(entry, {**settings, "model": model}, str(folder)) for model, entry, folder in plan]
    opened: dict[Any, Any] = {}
    opened["store", root / NAME] = store = Store(root / NAME)
    rows: list[dict[str, Any]] = []
    try:
        with progress("suite", len(plan), quiet=quiet) as advance:
            for (model, entry, folder), config in zip(plan, configs):
                before = _cpu_seconds()
                try:
                    finished = evaluate(entry.name, find_eval(entry.name), config, quiet=True, opened=opened, store=root / NAME)
                    row, tell = _row(model, entry, folder, finished.result), done
                except UserError as error:
                    if failed is None:
                        raise
                    row, tell = {"model": model, "eval": entry.label, "run": str(folder), "failed": str(error)}, failed
                rows.append(row | {"cpu_seconds": round(_cpu_seconds() - before, 2)})
                if tell:
                    tell(rows[-1])
                advance(1)
    finally:
        store.close()
    write_json(root / "suite.json", {"rows": rows})
    return rows


def _cpu_seconds() -> float:
    """Processor time of this process and of those it waited for: what a run costs, whatever else the machine does."""
    return sum(os.times()[:4])


def _folders(models: Sequence[str]) -> dict[str, str]:
    """A folder a model, where there are several."""
    if len(models) == 1:
        return {models[0]: "."}
    names = {model: (Path(model.rstrip("/")).name or "model") for model in models}
    if len(set(names.values())) < len(models):
        names = {model: f"{i}-{name}" for i, (model, name) in enumerate(names.items(), 1)}
    return names


def _row(model: str, entry: Entry, folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    value = Estimate.from_json(result["value"])
    return {"model": model, "eval": entry.label, "run": str(folder), "value": result["value"], "better": result.get("better", ""),
            "missing": result.get("missing", 0), "parameters": result.get("parameters"),
            "least_detectable": least_detectable(value, bool(result.get("paired")))}


def least_detectable(value: Estimate, paired: bool = False) -> float | None:
    """The least difference between two models that as many items would show with a chance of 80 %, at 5 %: 2.8 standard errors
    of a paired difference; of one model's figure alone sqrt(2) times as much, what pairing saves not being known."""
    half = (value.high - value.low) / 2
    if not math.isfinite(half) or half <= 0:
        return None
    return (1.96 + 0.8416) * half / 1.96 * (1.0 if paired else math.sqrt(2))
