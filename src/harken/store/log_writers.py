"""A finished evaluation of ours as others keep theirs: Inspect's `.eval`, lm-eval's samples, Every Eval Ever's JSON. No torch.

    write_inspect("runs/truthful", "truthful.eval")          # by Inspect's own library, where it is installed
    write_lm_eval("runs/truthful", "out")                    # samples_TASK_DATE.jsonl and results_DATE.json
    write_every_eval_ever("runs/truthful", "out")            # one JSON of figures, one JSONL of items

An item without a score stays without one: unscored in Inspect's log, null in lm-eval's samples; Every Eval Ever has no place for
it, so the item is left out of the rows and counted, with its reason, beside the figures. Items keep the hashes by which
`harken compare` pairs them (store.logs), so an exported log is compared with a run, or with another export, as the run itself.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import read_json, write_json
from harken.core.version import __version__
from harken.store.logs import Asked, number, run_items

EEE_SCHEMA = "0.2.1"
"""The version of Every Eval Ever's schema that the rows follow."""


@dataclass(frozen=True)
class Evaluation:
    """A finished run: its settings, its result, and its items by task in the order asked."""

    name: str
    model: str
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    lineage: Mapping[str, Any]
    tasks: Mapping[str, list[Asked]] = field(default_factory=dict)
    made: float = 0.0

    @property
    def stamp(self) -> str:
        """The time of the result, as lm-eval writes it into file names."""
        return time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(self.made)) + ".000000"

    def model_name(self) -> str:
        return self.model if "/" in self.model else f"local/{self.model}"


def read_evaluation(folder: str | Path) -> Evaluation:
    """Raises `UserError` for what is no finished evaluation with samples."""
    place = Path(folder)
    file = place / "result.json"
    if not file.is_file():
        raise UserError(f"{folder} is no finished evaluation: it holds no result.json.", "Name a run of harken eval that ended.")
    result, config, lineage = (read_json(place / f) if (place / f).is_file() else {} for f in
                               ("result.json", "config.json", "lineage.json"))
    tasks = run_items(place)
    if not tasks:
        raise UserError(f"{folder} holds no items, only figures.", "Logs are of items: take an evaluation that keeps samples.")
    named = (config.get("model"), result.get("model"), config.get("reward"))
    model = next((v for v in named if isinstance(v, str) and v), "model")
    return Evaluation(str(result.get("name", place.name)), model, config, result, lineage, tasks, file.stat().st_mtime)


# --- Inspect ---------------------------------------------------------------------------------------


def write_inspect(folder: str | Path, out: str | Path) -> list[Path]:
    """An `.eval` file a task; `out` is the file, or a folder where there are several. Raises `UserError` without its library."""
    try:
        from inspect_ai.log import write_eval_log
    except ImportError:
        raise UserError("Inspect's library is not installed.",
                        "pip install inspect_ai, best in an environment of its own (docs/evals/logs.md).") from None
    run = read_evaluation(folder)
    files = []
    for task in run.tasks:
        file = _place(Path(out), run, task, ".eval")
        write_eval_log(_inspect_log(run, task), str(file))
        files.append(file)
    return files


def _place(out: Path, run: Evaluation, task: str, suffix: str) -> Path:
    if out.suffix == suffix and len(run.tasks) == 1:
        out.parent.mkdir(parents=True, exist_ok=True)
        return out
    if out.suffix == suffix:
        raise UserError(f"{run.name} has {len(run.tasks)} tasks, and a log holds one.", "Let --out be a folder.")
    out.mkdir(parents=True, exist_ok=True)
    return out / f"{run.stamp[:19]}_{_safe(task)}{suffix}"


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def _inspect_log(run: Evaluation, task: str) -> Any:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalMetric, EvalResults, EvalScore, EvalSpec
    items = run.tasks[task]
    known = [x for x in (number(i.score) for i in items) if x is not None]
    metric = items[0].metric
    figures = {"mean": EvalMetric(name="mean", value=sum(known) / len(known))} if known else {}
    figures |= {"stderr": EvalMetric(name="stderr", value=e)} if (e := _error(known)) is not None else {}
    results = EvalResults(total_samples=len(items), completed_samples=len(items), scores=[EvalScore(
        name=metric, scorer=metric, scored_samples=len(known), unscored_samples=len(items) - len(known), metrics=figures)])
    spec = EvalSpec(created=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(run.made)), task=task,
                    dataset=EvalDataset(name=task, samples=len({i.item for i in items}), sample_ids=list(dict.fromkeys(
                        i.item for i in items))), model=run.model_name(), config=EvalConfig(epochs=max(i.repeat for i in items)),
                    packages={"harken": __version__},
                    metadata={"harken": {"config": dict(run.config), "better": run.result.get("better")}})
    return EvalLog(status="success", eval=spec, results=results, samples=[_inspect_sample(run, i) for i in items])


def _inspect_sample(run: Evaluation, item: Asked) -> Any:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score
    score = number(item.score)
    given = Score.unscored(reason="scoring_failed" if item.answer else "no_response", explanation=item.why or None) \
        if score is None else Score(value=score, answer=item.answer or None, explanation=item.why or None)
    return EvalSample(id=item.item, epoch=item.repeat, input=item.text(), target="", scores={item.metric: given},
                      output=ModelOutput.from_content(run.model_name(), item.answer or ""),
                      metadata={**_plain(item.fields), "harken_asked": item.asked})


# --- lm-eval ---------------------------------------------------------------------------------------


def write_lm_eval(folder: str | Path, out: str | Path) -> list[Path]:
    """`samples_TASK_DATE.jsonl` a task and one `results_DATE.json`, with lm-eval's names."""
    run = read_evaluation(folder)
    place = Path(out)
    place.mkdir(parents=True, exist_ok=True)
    files, results = [], {}
    for task, items in run.tasks.items():
        file = place / f"samples_{_safe(task)}_{run.stamp}.jsonl"
        _write_lines(file, [_lm_eval_row(n, item) for n, item in enumerate(items)])
        files.append(file)
        known = [x for x in (number(i.score) for i in items) if x is not None]
        mean, error = sum(known) / len(known) if known else None, _error(known)
        results[task] = {"alias": task, "sample_len": len(items), f"{items[0].metric},none": "N/A" if mean is None else mean,
                         f"{items[0].metric}_stderr,none": "N/A" if error is None else error}
    about = {"results": results, "versions": dict.fromkeys(results, 1.0), "n-shot": dict.fromkeys(results, 0),
             "higher_is_better": {t: {run.tasks[t][0].metric: run.result.get("better") != "lower"} for t in results},
             "n-samples": {t: {"original": len(i), "effective": len(i)} for t, i in run.tasks.items()},
             "config": {"model": "harken", "model_args": run.model}, "date": run.made, "model_name": run.model,
             "missing": {t: sum(number(i.score) is None for i in items) for t, items in run.tasks.items()}}
    file = place / f"results_{run.stamp}.json"
    write_json(file, about)
    return [*files, file]


def _lm_eval_row(n: int, item: Asked) -> dict[str, Any]:
    answer = item.answer or ""
    return {"doc_id": n, "doc": {"question": item.text(), **_plain(item.fields)}, "target": "",
            "arguments": {"gen_args_0": {"arg_0": item.text()}}, "resps": [[answer]], "filtered_resps": [answer],
            "filter": "none",
            "metrics": [item.metric], "doc_hash": item.item, "prompt_hash": item.asked,
            "target_hash": hashlib.sha256(b"").hexdigest(), item.metric: number(item.score), "why": item.why}


# --- Every Eval Ever -------------------------------------------------------------------------------


def write_every_eval_ever(folder: str | Path, out: str | Path) -> list[Path]:
    """`NAME.json` (every figure with an interval) and `NAME_samples.jsonl` (every item with a score)."""
    run = read_evaluation(folder)
    place = Path(out)
    place.mkdir(parents=True, exist_ok=True)
    ident = f"{run.name}/{run.model_name()}/{run.made:.0f}"
    stem = f"{_safe(run.name)}_{run.made:.0f}"
    rows = [_eee_row(run, ident, task, i) for task, items in run.tasks.items() for i in items if number(i.score) is not None]
    samples = place / f"{stem}_samples.jsonl"
    _write_lines(samples, rows)
    about = {
        "schema_version": EEE_SCHEMA, "evaluation_id": ident, "evaluation_timestamp": f"{run.made:.0f}",
        "retrieved_timestamp": f"{time.time():.0f}",
        "source_metadata": {"source_name": "harken", "source_type": "evaluation_run", "source_organization_name": "unknown",
                            "evaluator_relationship": "other"},
        "eval_library": {"name": "harken", "version": __version__},
        "model_info": {"name": run.model, "id": run.model_name(), "additional_details": _strings(
            {"lineage": run.lineage.get("model")} if run.lineage else {})},
        "evaluation_results": _eee_results(run),
        "detailed_evaluation_results": {"format": "jsonl", "file_path": samples.name, "hash_algorithm": "sha256",
                                        "checksum": hashlib.sha256(samples.read_bytes()).hexdigest(), "total_rows": len(rows)}}
    file = place / f"{stem}.json"
    write_json(file, about)
    return [file, samples]


def _eee_results(run: Evaluation) -> list[dict[str, Any]]:
    """The headline; where tasks are several, a row each besides."""
    items = [i for part in run.tasks.values() for i in part]
    rows = [(run.name, dict(run.result["value"]), items)] if isinstance(run.result.get("value"), dict) else []
    if len(run.tasks) > 1 or not rows:
        for task, part in run.tasks.items():
            known = [x for x in (number(i.score) for i in part) if x is not None]
            if known:
                rows.append((f"{run.name}.{task}", {"value": sum(known) / len(known), "n": len(known)}, part))
    return [_eee_result(run, name, value, part) for name, value, part in rows]


def _eee_result(run: Evaluation, name: str, value: Mapping[str, Any], items: list[Asked]) -> dict[str, Any]:
    known = [x for x in (number(i.score) for i in items) if x is not None]
    missing = [i for i in items if number(i.score) is None]
    uncertainty: dict[str, Any] = {"num_samples": int(value.get("n") or len(known))}
    if all(isinstance(value.get(k), int | float) and math.isfinite(value[k]) for k in ("low", "high")):
        uncertainty["confidence_interval"] = {"lower": value["low"], "upper": value["high"],
                                              "confidence_level": value.get("level", 0.95), "method": "harken"}
    if (error := _error(known)) is not None:
        uncertainty["standard_error"] = {"value": error, "method": "analytic"}
    share = all(0 <= x <= 1 for x in known)
    low, high = (0.0, 1.0) if share else (min(known, default=0.0), max(known, default=0.0))
    reasons = sorted({i.why for i in missing if i.why})
    return {"evaluation_name": name,
            "source_data": {"dataset_name": str(run.config.get("data") or "built in"), "source_type": "other"},
            "metric_config": {"lower_is_better": run.result.get("better") == "lower", "score_type": "continuous",
                              "min_score": min(low, value["value"]), "max_score": max(high, value["value"])},
            "score_details": {"score": value["value"], "uncertainty": uncertainty, "details": _strings(
                {"missing_items": len(missing), "missing_reasons": reasons} if missing else {"missing_items": 0})}}


def _eee_row(run: Evaluation, ident: str, task: str, item: Asked) -> dict[str, Any]:
    score = number(item.score) or 0.0
    return {"schema_version": f"instance_level_eval_{EEE_SCHEMA}", "evaluation_id": ident, "model_id": run.model_name(),
            "evaluation_name": run.name if len(run.tasks) == 1 else f"{run.name}.{task}",
            "sample_id": f"{item.item}-{item.repeat}",
            "sample_hash": hashlib.sha256(item.text().encode("utf-8", "replace")).hexdigest(), "interaction_type": "single_turn",
            "input": {"raw": item.question(), "formatted": item.text(), "reference": []},
            "output": {"raw": [item.answer or ""]}, "messages": None, "answer_attribution": [],
            "evaluation": {"score": score, "is_correct": score >= 0.5 if run.result.get("better") != "lower" else score < 0.5},
            "metadata": _strings({**item.fields, "harken_item": item.item, "harken_asked": item.asked})}


# --- small things ----------------------------------------------------------------------------------


def _write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8", errors="backslashreplace")


def _error(values: list[float]) -> float | None:
    """The standard error of the mean, s / sqrt(n)."""
    n = len(values)
    if n < 2:
        return None
    mean = sum(values) / n
    return math.sqrt(sum((x - mean) ** 2 for x in values) / (n - 1) / n)


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON can hold: NaN is null."""
    return {str(k): None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}


def _strings(fields: Mapping[str, Any]) -> dict[str, str]:
    return {str(k): v if isinstance(v, str) else json.dumps(v, ensure_ascii=False, default=str) for k, v in fields.items()
            if v is not None}
