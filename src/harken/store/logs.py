"""Scores by item from evaluation logs: our own runs, lm-eval's samples, Inspect's `.eval`, garak's and PyRIT's. No torch.

    log = read_log("runs/truthful")                   # Log.tasks["truthful"].scores: item -> [score, …], None where missing
    task, other = paired(log, read_log("runs/base"))["truthful"]

An item's repeats are a list. Each item keeps a hash of what was asked: two logs whose prompts differ are not compared.
Inspect's logs are read by its own library, where it is installed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import read_json
from harken.core.records import content_hash
from harken.store import attack_reports

ASKED = ("task", "instruction", "defence", "attack", "goal")
"""What tells items of one prompt apart in our runs' samples."""
WORDS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
LM_EVAL = re.compile(r"samples_(.+?)_(\d{4}-\d\d-\d\dT.*)\.jsonl$")
LM_EVAL_FIELDS = frozenset(("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash",
                            "prompt_hash", "target_hash"))
"""What a sample of lm-eval holds besides its metrics, which it lists from 0.4.7 on."""


@dataclass
class TaskScores:
    """`scores` item -> repeats, `asked` item -> hash of the exact prompt, `clusters` item -> cluster, where the log names one."""

    metric: str
    scores: dict[str, list[float | None]] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    clusters: dict[str, str] = field(default_factory=dict)
    lower: bool = False
    """Whether a lower score is better: our own runs say so."""

    def add(self, item: str, score: Any, asked: str, cluster: Any) -> None:
        if self.asked.get(item, asked) != asked:  # one name, two prompts: no repeat
            item = f"{item} {asked}"
        self.scores.setdefault(item, []).append(number(score))
        self.asked.setdefault(item, asked)
        if cluster is not None:
            self.clusters.setdefault(item, str(cluster))


@dataclass(frozen=True)
class Log:
    name: str
    tasks: Mapping[str, TaskScores]


def _written(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def number(value: Any) -> float | None:
    """A score; None for what is no number, NaN (Inspect's unscored) included. Words as Inspect counts them: C is 1, I and N (no
    answer) are 0, P is a half; yes and true, no and false; a number that is written out."""
    if isinstance(value, str):
        value = WORDS[value] if value in WORDS else WORDS.get(value.lower(), _written(value))
    if value is None or not isinstance(value, bool | int | float) or not math.isfinite(value):
        return None
    return float(value)


def read_log(path: str, *, metric: str = "", cluster: str = "") -> Log:
    """Any of the known logs. `metric` names the score where there are several, `cluster` the field that names an item's cluster.

    Raises `UserError` for what is none of them, and where it holds no scores.
    """
    place = Path(path)
    if not place.exists():
        raise UserError(f"There is no log {path!r}.", "Name a run, an lm-eval samples file or its folder, or an .eval file.")
    held = _object(place) if place.suffix == ".json" and place.is_file() else {}
    if "evaluation_results" in held:
        raise UserError(f"{path} is Every Eval Ever's, which is written but not read.", "Name the log that it was made from.")
    if place.suffix == ".eval" or {"eval", "status"} <= held.keys():
        tasks = _inspect(place, metric, cluster)
    elif (place / "result.json").is_file():
        tasks = _run(place, metric, cluster)
    elif (attacks := _attacks(place)) is not None:
        tasks = attacks
    else:
        tasks = _lm_eval(place, metric, cluster)
    tasks = {name: t for name, t in tasks.items() if t.scores}
    if not tasks:
        raise UserError(f"{path} holds no scores by item{f' of {metric!r}' if metric else ''}.",
                        "Name a finished run, lm-eval's samples (--log_samples), or an .eval file; check --metric.")
    return Log(path, tasks)


@dataclass(frozen=True)
class Asked:
    """One answer of a run: `item` and `asked` are hashes (of the question, and of all that was asked), `repeat` counts from 1,
    `fields` is what else the row says."""

    item: str
    asked: str
    repeat: int
    prompt: Any
    answer: str | None
    metric: str
    score: Any
    why: str
    fields: Mapping[str, Any]

    def text(self) -> str:
        """The exact prompt as one text."""
        if isinstance(self.prompt, list):
            return "\n".join(str(m.get("content", "")) for m in self.prompt if isinstance(m, dict))
        return str(self.prompt or self.question())

    def question(self) -> str:
        return str(self.fields.get("item") or self.prompt or "")


def run_items(folder: Path, metric: str = "") -> dict[str, list[Asked]]:
    """A finished evaluation's items by task: the samples of its result.json that have the score, or null in its place."""
    result = read_json(folder / "result.json")
    rows = [r for r in result.get("samples") or [] if isinstance(r, dict)]
    key = metric or next((k for k in ("score", "model_score") if any(k in r for r in rows)), "score")
    tasks: dict[str, list[Asked]] = {}
    times: dict[tuple[str, str], int] = {}
    for row in (r for r in rows if key in r):
        task = str(row.get("task") or result.get("name", folder.name))
        asked = content_hash([row.get("item") or row.get("prompt"), *(row.get(name) for name in ASKED)])[:16]
        times[task, asked] = times.get((task, asked), 0) + 1
        answer = row.get("answer", row.get("model_text"))
        fields = {k: v for k, v in row.items() if k not in (key, "answer", "model_text", "prompt", "why", "messages")}
        tasks.setdefault(task, []).append(Asked(asked, asked, times[task, asked], row.get("prompt") or row.get("messages"),
                                                answer if isinstance(answer, str) else None, key, row[key],
                                                str(row.get("why") or ""), fields))
    return tasks


def _run(folder: Path, metric: str, cluster: str) -> dict[str, TaskScores]:
    """A finished evaluation of ours: the samples of result.json."""
    tasks = {}
    result = read_json(folder / "result.json")
    for name, items in run_items(folder, metric).items():
        task = tasks[name] = TaskScores(items[0].metric, lower=not metric and result.get("better") == "lower")
        for i in items:
            task.add(i.item, i.score, i.asked, i.fields.get(cluster) if cluster else None)
    return tasks


def _attacks(place: Path) -> dict[str, TaskScores] | None:
    """A report of garak or PyRIT's exported conversations; None for anything else."""
    if not place.is_file():
        return None
    try:
        if place.suffix == ".json":
            held = json.loads(place.read_text(encoding="utf-8"))
            if not isinstance(held, list) or not held or not isinstance(held[0], dict) or "conversation_id" not in held[0]:
                return None
            rows = attack_reports.pyrit([p for p in held if isinstance(p, dict)])
        else:
            lines = _rows(place)
            first = next(iter(lines), (0, {}))[1]
            if "entry_type" not in first:
                return None
            rows = attack_reports.garak(row for _, row in _rows(place))
    except (OSError, ValueError) as error:
        raise UserError(f"{place} cannot be read: {error}.", "Name a report as garak or PyRIT wrote it.") from None
    tasks: dict[str, TaskScores] = {}
    for name, item, score, asked in rows:
        tasks.setdefault(name, TaskScores(attack_reports.RESISTED)).add(item, score, asked, None)
    return tasks


def _object(file: Path) -> dict[str, Any]:
    """A JSON file's object; empty for anything else."""
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _lm_eval(place: Path, metric: str, cluster: str) -> dict[str, TaskScores]:
    """lm-eval's samples_TASK_DATE.jsonl, or a folder of them (the latest of each task)."""
    tasks: dict[str, TaskScores] = {}
    for name, file in _latest(place).items():
        seen: dict[str, int] = {}
        for line, row in _rows(file):
            item, asked = _lm_eval_hashes(row)
            listed = row.get("metrics", [m for m in row if m not in LM_EVAL_FIELDS])
            names = [m for m in listed if isinstance(m, str)] if isinstance(listed, list) else []
            known = [m for m in names if isinstance(row.get(m), bool | int | float) or row.get(m) is None]
            key = metric or (known[0] if known else "")
            if not item or not key:
                raise UserError(f"{file}, line {line} is no sample of lm-eval (no doc_hash or doc, or no metric).",
                                "Name a file that lm-eval wrote with --log_samples.")
            if key not in row:
                raise UserError(f"{file} has no metric {key!r}.", f"Metrics: {', '.join(names)}.")
            if isinstance(row[key], list | dict):
                raise UserError(f"{file}, line {line}: {key!r} is no number by item.", f"Metrics that are: {', '.join(known)}.")
            label = name if row.get("filter") in (None, "none") else f"{name} ({row['filter']})"
            if "filter" not in row and "metrics" not in row:  # before 0.4.7: one row a filter, unnamed
                at = str(row.get("doc_id", item))
                seen[at] = seen.get(at, 0) + 1
                label = name if seen[at] == 1 else f"{name} (filter {seen[at]})"
            doc = row.get("doc")
            task = tasks.setdefault(label, TaskScores(key))
            task.add(item, row[key], asked, doc.get(cluster) if cluster and isinstance(doc, dict) else None)
    return tasks


def _lm_eval_hashes(row: Mapping[str, Any]) -> tuple[str, str]:
    """Hashes of document and prompt: those the row names (lm-eval 0.4.3 and later), else made from its texts as lm-eval makes
    them; "" where it has neither."""
    def sha256(text: str) -> str:
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    item, asked = row.get("doc_hash"), row.get("prompt_hash")
    if not isinstance(item, str):
        item = sha256(json.dumps(row["doc"], indent=2, ensure_ascii=False)) if row.get("doc") is not None else ""
    if not isinstance(asked, str):
        first = row.get("arguments")
        while isinstance(first, list | dict) and first:
            first = first[0] if isinstance(first, list) else next(iter(first.values()))
        asked = sha256(first) if isinstance(first, str) else ""
    return item, asked


def _latest(place: Path) -> dict[str, Path]:
    """The latest samples file of each task. Raises `UserError` where a task lies in several folders: those are several models."""
    if not place.is_dir():
        return {_task_name(place): place}
    found: dict[str, list[Path]] = {}
    for file in sorted(place.rglob("samples_*.jsonl"), key=lambda f: f.name):
        found.setdefault(_task_name(file), []).append(file)
    for name, files in found.items():
        folders = sorted({str(f.parent) for f in files})
        if len(folders) > 1:
            raise UserError(f"{place} holds samples of {name} from several folders: {', '.join(folders)}.",
                            "Each is a model of its own: name one.")
    return {name: files[-1] for name, files in found.items()}


def _task_name(file: Path) -> str:
    found = LM_EVAL.search(file.name)
    return found[1] if found else file.stem


def _rows(file: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # a text may hold other line ends, like U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}.", "Check the path.") from None
    for number_, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{file}, line {number_} is no JSON object.", "Is the file whole?")
            yield number_, row


def _inspect(file: Path, metric: str, cluster: str) -> dict[str, TaskScores]:
    """An Inspect log, through its own library."""
    try:
        from inspect_ai.log import read_eval_log
    except ImportError:
        raise UserError(f"{file} is a log of Inspect, whose library is not installed.", "pip install inspect_ai") from None
    try:
        log = read_eval_log(str(file))
    except Exception as error:  # whatever its library raises for a damaged file
        raise UserError(f"{file} cannot be read by Inspect: {error}.", "Is the file whole?") from None
    names: dict[str, dict[str, None]] = {}  # scorer -> its values' names; "" for one that is no mapping
    for sample in log.samples or []:
        for scorer, score in (sample.scores or {}).items():
            names.setdefault(scorer, {}).update(dict.fromkeys(_parts(score.value)))
    wanted = [(scorer, part) for scorer, parts in names.items() for part in (p for p in parts if p or len(parts) == 1)]
    tasks: dict[str, TaskScores] = {}
    for scorer, part in wanted:
        full = f"{scorer}/{part}" if part else scorer
        if metric and full != metric:
            continue
        task = tasks[log.eval.task if metric else f"{log.eval.task} ({full})"] = TaskScores(full)
        for sample in log.samples or []:
            about = sample.metadata or {}
            score = (sample.scores or {}).get(scorer)  # none where the sample failed: missing
            task.add(str(sample.id), _parts(score.value).get(part) if score else None,
                     str(about.get("harken_asked") or content_hash(_given(sample))[:16]),  # ours, exported: as the run has it
                     about.get(cluster) if cluster else None)
        _add_not_run(task, log)
    return tasks


def _parts(value: Any) -> dict[str, Any]:
    """A score's values by name: those of a mapping, a list's by position, else "" for the one."""
    if isinstance(value, Mapping):
        return {str(key): x for key, x in value.items()}
    return {str(i): x for i, x in enumerate(value)} if isinstance(value, list) else {"": value}


def _given(sample: Any) -> Any:
    """What a sample was asked, its choices in their order included."""
    given = sample.input if isinstance(sample.input, str) else [m.model_dump(include={"role", "content"}) for m in sample.input]
    choices = getattr(sample, "choices", None)
    return [given, list(choices)] if choices else given


def _add_not_run(task: TaskScores, log: Any) -> None:
    """A cancelled or failed log names the samples it meant to run: those without a row, and short epochs, are missing."""
    dataset, config = getattr(log.eval, "dataset", None), getattr(log.eval, "config", None)
    epochs = getattr(config, "epochs", None) or 1
    for item in [str(i) for i in getattr(dataset, "sample_ids", None) or []]:
        row = task.scores.setdefault(item, [])
        row += [None] * (epochs - len(row))


def paired(a: Log, b: Log) -> dict[str, tuple[TaskScores, TaskScores]]:
    """The tasks both logs hold. Raises `UserError` where there is none, where prompts of shared items differ, or metrics do."""
    shared = [name for name in a.tasks if name in b.tasks]
    if not shared and len(a.tasks) == len(b.tasks) == 1:
        ((first, one),), ((second, other),) = a.tasks.items(), b.tasks.items()
        if one.scores.keys() & other.scores.keys():
            return {f"{first} / {second}": (one, other)}
    if not shared:
        raise UserError(f"{a.name} and {b.name} share no task: {', '.join(a.tasks)} there, {', '.join(b.tasks)} here.",
                        "Compare logs of the same evaluation.")
    for name in shared:
        one, other = a.tasks[name], b.tasks[name]
        if one.metric != other.metric:
            raise UserError(f"{name} was scored by {one.metric} there and by {other.metric} here.", "Name one with --metric.")
        both = [i for i in one.asked if i in other.asked]
        changed = [i for i in both if one.asked[i] != other.asked[i]]
        if changed:
            raise UserError(f"{name}: {len(changed)} of {len(both)} shared items were asked with other prompts (the first is "
                            f"{changed[0]}).",
                            "A difference could come from the prompts alone. Evaluate both with the same ones.")
        if not both:
            raise UserError(f"{name}: the logs share no item ({len(one.asked)} and {len(other.asked)} items).",
                            "Compare logs of the same data and seed.")
    return {name: (a.tasks[name], b.tasks[name]) for name in shared}
