"""Alignment tax: capability before and after, task by task on the same items, laid out like InstructGPT's Table 14.

    harken eval tax --model runs/rloo --against smollm2 --out runs/tax
    harken eval tax --model runs/rloo --against smollm2 --gsm8k test.jsonl --humaneval HumanEval.jsonl --out runs/tax

Each task zero-shot and few-shot, both models, and the paired difference with its interval and a verdict in words, p-values
corrected for the number of tasks (Holm). Choices (three small sets that ship) by mean log-prob a token; BLiMP by the
sentence's total log-prob; GSM8K the number after "####", BBH the whole answer; HumanEval's unit tests in a process without a
network; text in bits a byte. Shots are the first items of a file, which are then not asked. The value is the mean difference
over the tasks that are shares.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path

from harken.core.config import EvalConfig, setting
from harken.core.errors import UserError
from harken.core.protocols import Estimate, EvalResult, Models
from harken.core.run import Run
from harken.loops.isolated import run_isolated
from harken.loops.items import StoredModel, note_drift, read_items, take, wrong_layout
from harken.stats.compare import compare, corrected
from harken.text.documents import read_documents

Score = tuple[float | None, str]
"""A score, or none and why."""


@dataclass(frozen=True)
class Config(EvalConfig):
    against: str = setting("smollm2", names="model", required=True)
    """The model before."""
    blimp: str = setting("", names="file")
    """BLiMP: a jsonl file of sentence_good and sentence_bad, or the zip of all of them."""
    gsm8k: str = setting("", names="file")
    """GSM8K's jsonl (question, answer)."""
    bbh: str = setting("", names="file")
    """A task of BIG-Bench Hard: json with examples of input and target."""
    humaneval: str = setting("", names="file")
    """HumanEval.jsonl, or .jsonl.gz: what models write is run in a process without a network."""
    text: str = setting("", names="file")
    """Plain text, documents between blank lines, for bits a byte; empty is the prose that ships."""
    shots: int = setting(3, least=0)
    """Examples before the question in the few-shot rows; 0 leaves those rows out."""
    max_tokens: int = setting(128, least=1)
    """Longest answer in tokens."""
    margin: float = setting(0.0, least=0)
    """Smallest difference that matters: with it a difference shown to be smaller is called a tie; 0 never calls one."""


@dataclass(frozen=True)
class Task:
    """`score(model, config)` gives a score an item; `items` are their ids. `chance` is what a guess reaches."""

    metric: str
    score: Callable[[StoredModel, Config], list[Score]]
    items: Sequence[str]
    prompts: Sequence[str] = ()
    share: bool = True
    chance: float | None = None
    clusters: Sequence[str] = field(default=())


def evaluate(config: Config, models: Models, run: Run) -> EvalResult:
    """Raises `UserError` for files of another layout, and for servers, which give no log-probs."""
    tasks = list_tasks(config)
    if not config.against:
        raise UserError("A tax is a difference: there is no model before.", "Name it with --against.")
    pair = [models.stored(name) for name in ("model", "against")]
    comparisons, table, samples, missing = {}, {}, [], 0
    for name, task in tasks.items():
        read = [task.score(model, config) for model in pair]
        a, b = ({i: s for i, (s, _) in zip(task.items, rows)} for rows in read)
        clusters = dict(zip(task.items, task.clusters)) if task.clusters else None
        missing += sum(a[i] is None or b[i] is None for i in a)
        try:
            comparisons[name] = compare(a, b, clusters=clusters, bounds=(0.0, 1.0) if task.share else None,
                                        margin=config.margin or None)
        except ValueError as error:
            run.note(f"{name} is left out: {error}.")
            continue
        samples += [{"task": name, "prompt": p, "item": i, "score": x, "against": y, "why": w or v} for i, p, (x, w), (y, v)
                    in zip(task.items, task.prompts or task.items, *read)][:SHOWN]
    if not comparisons:
        raise UserError("No task gave a score in both models.", "The notes say why.")
    note_drift(run, *pair)
    for name, c in corrected(comparisons).items():
        table[name] = {"metric": tasks[name].metric, "model": c.a, "against": c.b, "difference": c.difference, "p_holm": c.p,
                       "least_detectable": c.detectable, "missing": c.missing, "verdict": c.words("the model", "the one before")}
    shares = [c.difference for name, c in comparisons.items() if tasks[name].share]
    chances = {f"chance: {name}": Estimate(t.chance, t.chance, t.chance, len(t.items)) for name, t in tasks.items()
               if t.chance is not None and name in comparisons}
    value = mean_of_tasks(shares or [c.difference for c in comparisons.values()])
    return EvalResult(value, {"tasks": table, "paired": True}, chances, samples, missing, "higher")


SHOWN = 200
"""Samples of a task kept in the result."""


def mean_of_tasks(differences: Sequence[Estimate]) -> Estimate:
    """The mean of the tasks' differences, each weighing alike; tasks share no items, so their errors add as independent ones:
    half-width sqrt(sum h^2) / k. `n` counts items."""
    k = len(differences)
    value = sum(d.value for d in differences) / k
    down = math.sqrt(sum((d.value - d.low) ** 2 for d in differences)) / k
    up = math.sqrt(sum((d.high - d.value) ** 2 for d in differences)) / k
    return Estimate(value, value - down, value + up, sum(d.n for d in differences))


def list_tasks(config: Config) -> dict[str, Task]:
    """The tasks of the files given, and those that ship."""
    tasks: dict[str, Task] = {}
    for name, rows in read_items("", "tax").items():
        if name != "about":
            tasks |= _both_settings(name, config, partial(_choices, rows, config, name))
    if config.blimp:
        tasks["BLiMP"] = blimp_task(config)
    if config.gsm8k:
        tasks |= _both_settings("GSM8K", config, lambda shots: gsm8k_task(config, shots))
    if config.bbh:
        tasks |= _both_settings(f"BBH {Path(config.bbh).stem}", config, lambda shots: bbh_task(config, shots))
    if config.humaneval:
        tasks["HumanEval"] = humaneval_task(config)
    tasks["text"] = text_task(config)
    return tasks


def _both_settings(name: str, config: Config, make: Callable[[int], Task]) -> dict[str, Task]:
    shots = {f"{name}, zero-shot": 0} | ({f"{name}, few-shot": config.shots} if config.shots else {})
    return {label: make(n) for label, n in shots.items()}


def _ids(name: str, n: int) -> list[str]:
    return [f"{name}/{i}" for i in range(n)]


# --- by log-prob -------------------------------------------------------------------------------------


def choice_task(rows: Sequence[Sequence[str]], config: Config, shots: int, name: str) -> Task:
    """Rows of sentences, the first right (two options), or of a context and its options, the first right."""
    sentences = len(rows[0]) == 2
    split = [("", list(row)) if sentences else (row[0], list(row[1:])) for row in rows]
    start = "".join(f"{context}{options[0]}\n" for context, options in split[:shots])
    asked = take(split[config.shots:], config.limit, config.seed)
    items = [(start + context, options) for context, options in asked]

    def score(model: StoredModel, config: Config) -> list[Score]:
        read = model.options(items)
        return [(_first(o.logps if sentences else o.means), o.why) for o in read]
    chance = sum(1 / len(options) for _, options in asked) / len(asked)
    return Task("accuracy", score, _ids(name, len(asked)), [c or o[0] for c, o in items], chance=chance)


def _choices(rows: Sequence[Sequence[str]], config: Config, name: str, shots: int) -> Task:
    return choice_task(rows, config, shots, name)


def _first(logps: Sequence[float]) -> float | None:
    """Whether the first is the likeliest: 1, 0, or its share of a tie."""
    return None if not logps else (logps[0] == max(logps)) / sum(x == max(logps) for x in logps)


def blimp_task(config: Config) -> Task:
    rows = _blimp(config.blimp)
    asked = take(rows, config.limit, config.seed)

    def score(model: StoredModel, config: Config) -> list[Score]:
        return [(_first(o.logps), o.why) for o in model.options([("", pair) for _, pair in asked])]
    return Task("accuracy", score, _ids("BLiMP", len(asked)), [pair[0] for _, pair in asked], chance=0.5)


def _blimp(path: str) -> list[tuple[str, tuple[str, str]]]:
    """(paradigm, (good sentence, bad sentence))."""
    try:
        if path.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                names = sorted(n for n in archive.namelist() if n.endswith(".jsonl") and "__MACOSX" not in n)
                lines = [line for n in names for line in archive.read(n).decode("utf-8").split("\n") if line.strip()]
        else:
            lines = [line for line in Path(path).read_text(encoding="utf-8").split("\n") if line.strip()]
        rows = [json.loads(line) for line in lines]
        return [(str(r.get("UID", "")), (r["sentence_good"], r["sentence_bad"])) for r in rows]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise wrong_layout(path, error, "BLiMP's jsonl, or a zip of them") from None


def text_task(config: Config) -> Task:
    """Bits a byte of each document (less is better, so the difference is turned): -log2 p / bytes, its first token given."""
    documents = read_documents(config.text, "--text") if config.text else _prose()
    asked = [d for d in take(documents, config.limit, config.seed) if len(d) > 1]

    def score(model: StoredModel, config: Config) -> list[Score]:
        limit = (model._context() or 1 << 30) // 2
        cut = [d if len(model.template.text_ids(d)) < limit else d[:limit] for d in asked]  # type: ignore[union-attr]
        read = model.options([("", [d]) for d in cut])
        return [(o.logps[0] / math.log(2) / len(d.encode()) if o.logps else None, o.why) for o, d in zip(read, cut)]
    return Task("minus bits a byte", score, _ids("text", len(asked)), asked, share=False)


def _prose() -> list[str]:
    text = files("harken").joinpath("sandbox", "prose.txt").read_text(encoding="utf-8")
    return [d.strip() for d in text.split("\n\n") if len(d.strip()) > 1]


# --- by answer ---------------------------------------------------------------------------------------


def answer_task(name: str, rows: Sequence[tuple[str, str]], right: Callable[[str, str], float], config: Config, shots: int, *,
                question: str, stop: Sequence[str]) -> Task:
    """(question, worked answer) rows, scored by `right(answer, worked answer)`; `question` frames them."""
    start = "".join(question.format(q) + f" {a}\n\n" for q, a in rows[:shots])
    asked = take(rows[config.shots:], config.limit, config.seed)
    prompts = [start + question.format(q) for q, _ in asked]
    if not asked:
        raise UserError(f"{name} has no item beside its {config.shots} examples.", "Lower --shots.")

    def score(model: StoredModel, config: Config) -> list[Score]:
        found = model.continuations(prompts, max_tokens=config.max_tokens, stop=stop)
        return [(None if a.text is None else right(a.text, worked), a.why) for a, (_, worked) in zip(found, asked)]
    return Task("exact match", score, _ids(name, len(asked)), prompts)


def gsm8k_task(config: Config, shots: int) -> Task:
    try:
        rows = [(r["question"], r["answer"]) for r in read_items(config.gsm8k, "")]
    except (KeyError, TypeError) as error:
        raise wrong_layout(config.gsm8k, error, "GSM8K's jsonl") from None
    return answer_task("GSM8K", rows, same_number, config, shots, question="Question: {}\nAnswer:", stop=("\nQuestion:",))


def same_number(answer: str, worked: str) -> float:
    """Whether the number after "####" is the worked answer's; without one, whether the last number is (lm-eval's strict and
    flexible extraction, the strict first)."""
    truth, said = _number(worked), _number(answer)
    return float(truth is not None and said == truth)


def _number(text: str) -> float | None:
    found = re.search(r"####\s*(-?[\d.,]*\d)", text) or None
    last = found[1] if found else (re.findall(r"-?\d[\d,]*(?:\.\d+)?", text) or [None])[-1]
    try:
        return None if last is None else float(last.replace(",", ""))
    except ValueError:
        return None


def bbh_task(config: Config, shots: int) -> Task:
    try:
        rows = [(r["input"], r["target"]) for r in read_items(config.bbh, "")["examples"]]
    except (KeyError, TypeError) as error:
        raise wrong_layout(config.bbh, error, "a task of BIG-Bench Hard") from None
    return answer_task("BBH", rows, lambda answer, target: float(answer.strip() == target.strip()), config, shots,
                       question="Q: {}\nA:", stop=("\n",))


def humaneval_task(config: Config) -> Task:
    """pass@1 of the greedy completion: the function's tests, in isolation (Chen et al. 2021)."""
    path = Path(config.humaneval)
    try:
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        rows = take([{k: r[k] for k in ("task_id", "prompt", "test", "entry_point")} for r in rows], config.limit, config.seed)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise wrong_layout(config.humaneval, error, "HumanEval's jsonl") from None

    def score(model: StoredModel, config: Config) -> list[Score]:
        longer = dataclasses.replace(config, max_tokens=max(config.max_tokens, 256))
        found = model.continuations([r["prompt"] for r in rows], max_tokens=longer.max_tokens,
                                    stop=("\nclass", "\ndef", "\n#", "\nif", "\nprint"))
        scores: list[Score] = []
        for answer, row in zip(found, rows):
            if answer.text is None:
                scores.append((None, answer.why))
                continue
            passed, why = run_isolated(f"{row['prompt']}{answer.text}\n\n{row['test']}\n\ncheck({row['entry_point']})\n")
            scores.append((None if passed is None else float(passed), why))
        return scores
    return Task("pass@1", score, [r["task_id"] for r in rows], [r["prompt"] for r in rows])
