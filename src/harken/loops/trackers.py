"""Fan-outs of metrics.jsonl to experiment trackers: `--report-to tensorboard,wandb,trackio,mlflow`.

metrics.jsonl stays the record. A row is counted in the run's trackers.json before it is sent, so that a resumed run, which
computes rows again, sends none twice; one killed between the two loses that row in the tracker. A tracker that fails is left
out with a note: it never ends a run. Only the first of several processes reports.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from harken.core.errors import UserError
from harken.core.files import read_json, read_jsonl, write_json
from harken.core.find import nearest
from harken.core.records import content_hash
from harken.core.run import Run

FILE = "trackers.json"


class Tracker(Protocol):
    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def close(self, result: Mapping[str, Any]) -> None: ...


class TensorBoard:
    """Event files in the run's folder `tensorboard`: tensorboard --logdir runs."""

    def __init__(self, run: Run, state: dict[str, Any]) -> None:
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self.writer = writer(str(run.path / "tensorboard"))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def close(self, result: Mapping[str, Any]) -> None:
        self.writer.close()


class WeightsAndBiases:
    """Project of WANDB_PROJECT, or harken; a resumed run continues under its id."""

    def __init__(self, run: Run, state: dict[str, Any]) -> None:
        wandb = importlib.import_module("wandb")
        state.setdefault("id", identity(run))
        self.run = wandb.init(project=os.environ.get("WANDB_PROJECT", "harken"), name=run.path.name, id=state["id"],
                              resume="allow", config=run.config, dir=str(run.path))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def close(self, result: Mapping[str, Any]) -> None:
        self.run.summary.update(figures(result))
        self.run.finish()


class Trackio:
    """Project of TRACKIO_PROJECT, or harken."""

    def __init__(self, run: Run, state: dict[str, Any]) -> None:
        self.trackio = importlib.import_module("trackio")
        name = state.setdefault("name", f"{run.path.name}-{identity(run)[:6]}")
        self.trackio.init(project=os.environ.get("TRACKIO_PROJECT", "harken"), name=name, resume="allow", config=run.config)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.trackio.log(dict(metrics), step=step)

    def close(self, result: Mapping[str, Any]) -> None:
        self.trackio.finish()


class MLflow:
    """Server of MLFLOW_TRACKING_URI, experiment of MLFLOW_EXPERIMENT_NAME, or harken."""

    def __init__(self, run: Run, state: dict[str, Any]) -> None:
        self.mlflow = importlib.import_module("mlflow")
        self.mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "harken"))
        known = state.get("id")
        opened = self.mlflow.start_run(run_id=known) if known else self.mlflow.start_run(run_name=run.path.name)
        if not known:
            self.mlflow.log_params({name: str(value)[:500] for name, value in run.config.items()})
        state["id"] = opened.info.run_id

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.mlflow.log_metrics(dict(metrics), step=step)

    def close(self, result: Mapping[str, Any]) -> None:
        self.mlflow.log_metrics(figures(result))
        self.mlflow.end_run()


TRACKERS: dict[str, Callable[[Run, dict[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio, "mlflow": MLflow}


def identity(run: Run) -> str:
    """The same for a run and its continuation, another for a run started over."""
    return content_hash([run.path.name, read_json(run.path / "lineage.json").get("created")])[:16]


def figures(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a result, an estimate's value under its name."""
    values = {name: value.get("value") if isinstance(value, Mapping) else value for name, value in result.items()}
    return {f"result/{name}": float(value) for name, value in values.items() if _is_number(value) and value is not None}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check(words: str) -> list[str]:
    """The trackers that `--report-to` names. Raises `UserError` for one that is unknown or not installed."""
    names = [name.strip() for name in words.split(",") if name.strip()]
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"--report-to {name} is unknown.{nearest(name, list(TRACKERS))}", f"Use {', '.join(TRACKERS)}.")
        try:
            importlib.import_module(name)
        except ImportError:
            raise UserError(f"--report-to {name} needs the package {name}.", f"pip install 'harken[{name}]'") from None
    return names


class FanOut:
    """What a run calls with every row that it logs."""

    def __init__(self, names: list[str], run: Run) -> None:
        self.run, self.seen = run, len(read_jsonl(run.path / "metrics.jsonl"))
        path = run.path / FILE
        self.state: dict[str, Any] = read_json(path) if path.exists() else {"rows": 0}
        self.open: dict[str, Tracker] = {}
        for name in names:
            self._try(name, lambda name=name: self.open.update(  # type: ignore[misc]
                {name: TRACKERS[name](run, self.state.setdefault(name, {}))}))
        write_json(path, self.state)

    def rewind(self, rows: int) -> None:
        """The run's log was cut back to so many rows: those computed again are not sent again."""
        self.seen = rows

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.seen += 1
        if self.seen <= self.state["rows"]:
            return
        self.state["rows"] = self.seen
        write_json(self.run.path / FILE, self.state)
        numbers = {name: float(value) for name, value in metrics.items() if _is_number(value)}
        for name, tracker in list(self.open.items()):
            self._try(name, lambda tracker=tracker: tracker.log(step, numbers))  # type: ignore[misc]

    def close(self, result: Mapping[str, Any]) -> None:
        for name, tracker in list(self.open.items()):
            self._try(name, lambda tracker=tracker: tracker.close(result))  # type: ignore[misc]

    def _try(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # somebody else's service: no reason to lose a run
            self.open.pop(name, None)
            self.run.note(f"{name} failed and gets no more rows ({type(error).__name__}: {str(error)[:200]}).")
