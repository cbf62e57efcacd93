"""A sweep: one run for each combination of settings and each seed, and one table of them.

    method: rloo                       # of harken train
    out: runs/sweep
    settings: {model: smollm2, reward: runs/rm, data: prompts.jsonl, steps: 100}
    grid: {learning_rate: [1e-4, 3e-4], beta: [0.0, 0.05]}
    seeds: [0, 1]
    measure: [reward, kl]              # of result.json, or a mean over the last tenth of metrics.jsonl's rows
    eval: {name: win_rate, against: smollm2, judge: gold, prompts: held_out.jsonl}      # if wanted

Each run lies in OUT/COMBINATION/seed-N and resumes by itself, so a sweep that was killed ends with the same table; finished runs
are left as they are, and the grid may grow. An interval is over seeds alone: what another seed would give on the same data.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from harken.core.config import from_dict
from harken.core.errors import UserError
from harken.core.files import read_jsonl
from harken.core.find import nearest
from harken.core.protocols import Estimate
from harken.core.recipes import read_settings
from harken.core.records import content_hash
from harken.core.run import Run
from harken.core.settings import check_settings
from harken.launch.evaluate import evaluate
from harken.launch.find import find_eval, find_method
from harken.launch.train import train
from harken.stats.intervals import mean_interval
from harken.store.writing import defused, write_text

USUAL = ("reward", "kl", "heldout_accuracy", "accuracy", "heldout_loss", "heldout_nll", "loss")
"""What is measured where the file names nothing: those of these that the runs have."""
TAIL = 0.1
"""Share of a log's last rows that a figure is the mean of."""


@dataclass(frozen=True)
class Sweep:
    method: str
    out: str
    grid: Mapping[str, Sequence[Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = (0,)
    measure: Sequence[str] = ()
    eval: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Sweep:
        """From YAML, TOML or JSON. Raises `UserError` for what is missing, unknown or no list."""
        given = read_settings(path)
        names = [f.name for f in dataclasses.fields(cls)]
        if unknown := [name for name in given if name not in names]:
            raise UserError(f"{path}: a sweep has no {unknown[0]!r}.{nearest(unknown[0], names)}", f"It has {', '.join(names)}.")
        if missing := [name for name in names[:3] if not given.get(name)]:
            raise UserError(f"{path} says no {missing[0]}.", "docs/runs.md shows a whole file.")
        seeds = given.get("seeds", [0])
        given["seeds"] = list(range(seeds)) if isinstance(seeds, int) and not isinstance(seeds, bool) else seeds
        for name, kind in (("grid", dict), ("settings", dict), ("eval", dict), ("seeds", list), ("measure", list)):
            if name in given and not isinstance(given[name], kind):
                raise UserError(f"{path}: {name} is a {type(given[name]).__name__}.",
                                f"It must be a {'list' if kind is list else 'table of names and values'}.")
        for name, values in given["grid"].items():
            if not isinstance(values, list) or not values:
                raise UserError(f"{path}: grid.{name} is no list of values.", f"Write {name}: [1, 2].")
        if not given["seeds"] or len({*map(str, given["seeds"])}) < len(given["seeds"]):
            raise UserError(f"{path}: seeds must be different numbers, found {given['seeds']}.", "Write seeds: [0, 1, 2].")
        return cls(**given)

    def combinations(self) -> list[dict[str, Any]]:
        return [dict(zip(self.grid, values)) for values in itertools.product(*self.grid.values())]


@dataclass(frozen=True)
class Cell:
    """One run of the sweep."""

    combination: Mapping[str, Any]
    seed: int
    config: Any

    @property
    def out(self) -> Path:
        return Path(self.config.out)


def cells(sweep: Sweep, method: ModuleType) -> list[Cell]:
    """Every run, its settings checked, before the first is begun."""
    found = []
    for combination, seed in itertools.product(sweep.combinations(), sweep.seeds):
        out = Path(sweep.out) / folder_of(combination) / f"seed-{seed}"
        values = {**sweep.settings, **combination, "seed": seed, "out": str(out)}
        config = from_dict(method.Config, values, "the sweep's settings and grid")
        check_settings(config)
        found.append(Cell(combination, seed, config))
    return found


def folder_of(combination: Mapping[str, Any]) -> str:
    """A folder's name: readable, and another for every combination."""
    words = ",".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                     for name, value in combination.items())
    plain = re.sub(r"[^\w.,=+-]", "_", words)[:120]
    exact = all(not isinstance(v, float) or float(f"{v:g}") == v for v in combination.values())
    return plain if plain == words and exact else f"{plain}-{content_hash(dict(combination))[:6]}"


def run_sweep(path: Path) -> tuple[Path, str]:
    """Runs what is left to run; (the table's file, the table as text)."""
    sweep = Sweep.read(path)
    method = find_method(sweep.method)
    every = cells(sweep, method)
    evaluation = _evaluation(sweep)
    figures: list[dict[str, float]] = []
    for number, cell in enumerate(every, 1):
        words = ", ".join(f"{name} {value}" for name, value in cell.combination.items())
        run = train(method, cell.config)
        run.say(f"[{number} of {len(every)}] {words}, seed {cell.seed}: {run.path}")
        extra = {}
        if evaluation is not None:
            extra["eval"] = evaluation(cell).result["value"]["value"]
        figures.append({**figures_of(run), **extra})
    names = _measured(sweep, figures)
    return write_table(Path(sweep.out), sweep, every, figures, names)


def _evaluation(sweep: Sweep) -> Any:
    if not sweep.eval:
        return None
    name = str(sweep.eval.get("name", ""))
    module = find_eval(name)
    rest = {k: v for k, v in sweep.eval.items() if k != "name"}

    def run(cell: Cell) -> Run:
        config = from_dict(module.Config, {**rest, "model": str(cell.out), "out": f"{cell.out}-{name}"}, "the sweep's eval")
        return evaluate(name, module, config)
    return run


def figures_of(run: Run) -> dict[str, float]:
    """The numbers of a run: of its result, and for what that lacks, of its log's end."""
    rows = read_jsonl(run.path / "metrics.jsonl")
    found: dict[str, float] = {}
    for name in sorted({name for row in rows for name in row} - {"step", "seconds"}):
        values = [row[name] for row in rows if _is_number(row.get(name))]
        if values:
            last = values[-max(1, round(TAIL * len(values))):]
            found[name] = sum(last) / len(last)
    for name, value in run.result.items():
        number = value.get("value") if isinstance(value, Mapping) else value
        if number is not None and _is_number(number):
            found[name] = float(number)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _measured(sweep: Sweep, figures: Sequence[Mapping[str, float]]) -> list[str]:
    known = sorted({name for row in figures for name in row})
    for name in sweep.measure:
        if name not in known:
            raise UserError(f"No run of the sweep has the figure {name!r}.{nearest(name, known)}",
                            f"They have {', '.join(known)}.")
    names = list(sweep.measure) or [name for name in USUAL if name in known][:3]
    return [*(["eval"] if "eval" in known and "eval" not in names else []), *names]


def rows_of(sweep: Sweep, every: Sequence[Cell], figures: Sequence[Mapping[str, float]],
            names: Sequence[str]) -> Iterator[tuple[dict[str, Any], dict[str, Estimate | None]]]:
    """(combination, estimate over seeds by figure); None where no seed has the figure."""
    for combination in sweep.combinations():
        mine = [row for cell, row in zip(every, figures) if cell.combination == combination]
        values = {name: [row[name] for row in mine if name in row] for name in names}
        yield combination, {name: mean_interval(v) if v else None for name, v in values.items()}


def write_table(out: Path, sweep: Sweep, every: Sequence[Cell], figures: Sequence[Mapping[str, float]],
                names: Sequence[str]) -> tuple[Path, str]:
    """OUT/table.csv (value, ends of the interval, seeds; then every run's own figures in runs.csv) and the table as text."""
    table, text = io.StringIO(), []
    sheet = csv.writer(table, lineterminator="\n")
    parts = [f"{name}{part}" for name in names for part in ("", "_low", "_high", "_seeds")]
    sheet.writerow([*sweep.grid, *parts])
    text.append([*sweep.grid, *names])
    for combination, estimates in rows_of(sweep, every, figures, names):
        cells_of: list[Any] = []
        words = []
        for estimate in estimates.values():
            if estimate is None:
                cells_of += ["", "", "", 0]
                words.append("–")
                continue
            alone = estimate.n == 1
            cells_of += [estimate.value, *(("", "") if alone else (estimate.low, estimate.high)), estimate.n]
            words.append(f"{estimate.value:.4g} (one seed)" if alone else
                         f"{estimate.value:.4g} [{estimate.low:.4g}, {estimate.high:.4g}] n={estimate.n}")
        shown = [value if isinstance(value, str) else json.dumps(value) for value in combination.values()]
        sheet.writerow([*map(defused, shown), *cells_of])
        text.append([*shown, *words])
    single = io.StringIO()
    sheet = csv.writer(single, lineterminator="\n")
    known = sorted({name for row in figures for name in row})
    sheet.writerow([*sweep.grid, "seed", *known])
    for cell, row in zip(every, figures):
        sheet.writerow([*map(defused, cell.combination.values()), cell.seed, *(row.get(name, "") for name in known)])
    write_text(out / "runs.csv", single.getvalue())
    write_text(out / "table.csv", table.getvalue())
    widths = [max(len(row[i]) for row in text) for i in range(len(text[0]))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in text]
    return out / "table.csv", "\n".join(lines)
