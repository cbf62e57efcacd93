"""Held-out loss every few steps, and an early end: `--eval-every 20 --patience 3`.

    run.watch = HeldOut(config, learner, run, lambda: {"heldout_nll": mean_nll(learner, held)})     # before run.resume()

The first figure that `measure` gives is the loss that patience is about. After `patience` measurements without a new least one
the run ends, and whether it ends so or by itself, it keeps the weights of the least. It is saved with the run's checkpoints: a
run killed and continued measures, ends and keeps the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harken.core.errors import UserError
from harken.core.files import read_json, write_json
from harken.core.protocols import Learner
from harken.core.records import Choice
from harken.core.run import Run

STATE, WEIGHTS = "held_out.json", "held_out.pt"


class HeldOut:
    """A `Watch` of methods that learn from a file."""

    def __init__(self, config: Any, learner: Learner, run: Run, measure: Callable[[], dict[str, float]] | None) -> None:
        self.every, self.patience = config.eval_every, config.patience
        self.learner, self.run, self.measure = learner, run, measure
        if self.patience and not self.every:
            raise UserError(f"--patience {self.patience} counts measurements, and none is asked for.", "Add --eval-every STEPS.")
        if self.patience and getattr(config, "select", "last") != "last":
            raise UserError(f"--patience and --select {config.select} both say whose weights are kept.", "Use one of them.")
        if self.every and measure is None:
            raise UserError("--eval-every measures held-out data, and none is held out.", "Raise --holdout, or give more data.")
        self._forget()

    def _forget(self) -> None:
        self.best: dict[str, Any] = {}
        self.weights: dict[str, torch.Tensor] = {}
        self.stopped: dict[str, Any] = {}

    def set_aside(self, prompts: list[Any]) -> list[Any]:
        return prompts

    def before(self, step: int, total: int) -> bool:
        """Measures where that is due; False where patience is at its end. The kept weights are in place when the loop ends."""
        if self.every and step and (step % self.every == 0 or step == total):
            self._measure(step)
        ends = bool(self.stopped) or step == total
        if ends and self.patience and self.weights:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    self.learner.parts[name].copy_(weight)
        return not self.stopped

    def _measure(self, step: int) -> None:
        assert self.measure is not None
        figures = self.measure()
        self.run.log(step, **figures)
        if not self.patience:
            return
        name, loss = next(iter(figures.items()))
        if not self.best or loss < self.best["loss"]:
            self.best = {"step": step, "loss": loss, "since": 0}
            self.weights = {n: p.detach().clone() for n, p in self.learner.parts.items()}
            return
        self.best["since"] += 1
        if self.best["since"] >= self.patience:
            self.stopped = {"rule": "patience", "step": step, "kept_step": self.best["step"],
                            "why": f"{name} was least, {self.best['loss']:.4g}, at step {self.best['step']}"}
            self.run.note(f"Stopped after step {step} by --patience {self.patience}: {self.stopped['why']}. "
                          "Those weights are kept.")

    def after(self, step: int, row: Mapping[str, Any]) -> None:
        pass

    def save(self, folder: Path) -> None:
        if self.best:
            write_json(folder / STATE, self.best)
            torch.save(self.learner.whole(self.weights), folder / WEIGHTS)

    def load(self, folder: Path | None) -> None:
        self._forget()
        if folder is not None and (folder / STATE).exists():
            self.best = read_json(folder / STATE)
            self.weights = self.learner.cut(torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True))

    def finish(self) -> dict[str, Any]:
        if self.stopped:
            return {"steps": self.stopped["step"], "stopped": self.stopped, "kept_step": self.best["step"]}
        return {"kept_step": self.best["step"]} if self.best else {}


def choice_loss(choices: Sequence[Choice], scores: Sequence[Sequence[float]]) -> float:
    """Mean over rankings of -log σ(better - worse), averaged over a ranking's untied pairs, in nats: Bradley-Terry's loss of
    people's choices under `scores` [choice][option]. Raises ValueError where nobody preferred anything."""
    losses = [float(np.mean([np.logaddexp(0.0, row[j] - row[i]) for i, j in pairs]))
              for choice, row in zip(choices, scores) if (pairs := choice.pairs())]
    if not losses:
        raise ValueError("no ranking with a preference")
    return float(np.mean(losses))
