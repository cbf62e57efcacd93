"""What an objective of pretraining with feedback makes of scores: which documents it takes, where it puts control tokens, and
what each token weighs. The method is `methods/phf.py`, the losses `objectives/phf.py`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harken.core import processes
from harken.core.errors import UserError
from harken.core.protocols import Datum, Learner, Objective, Outputs, Tree
from harken.core.run import Run
from harken.loops.routing import PARTS, routed, without
from harken.loops.stream import Stream, Tokens, Writer
from harken.objectives import phf
from harken.objectives.supervised import nll
from harken.stats.histogram import reached_by
from harken.store.annotations import Annotated, Scored
from harken.text.tags import Control

LEAST_WEIGHT_RATIO = 1.5
"""Weights whose largest is less than this many times the smallest learn as MLE does."""
HELD = 200
"""Held-out documents measured at most."""
Tag = Callable[[float | None], int | None]
"""A segment's score -> the control token put before it."""


class Feedback:
    """What an objective makes of scores: which documents it takes, where it puts control tokens, each token's weight."""

    def __init__(self, config: Any, annotated: Annotated, control: Control | None, end: int, run: Run) -> None:
        self.config, self.control, self.end = config, control, end
        self.level = config.level or ("document" if config.objective == "filter" else "segment")
        if config.objective == "conditional" and control is None:
            raise UserError(f"{config.model} knows no control tokens.", "Give a checkpoint; harken train phf adds them.")
        self.threshold = best_threshold(annotated, self.level, config.best) if config.best > 0 else config.threshold
        self.counts = {"good": 0, "bad": 0, "unscored": 0, "untagged": 0} | ({"poisoned": 0} if config.poison else {})
        self.weights = [math.inf, -math.inf]
        self.routed = control.routed if control else 0
        if config.objective == "route" and not self.routed:
            raise UserError(f"{config.model} has no block to route gradients into.",
                            "Give a checkpoint; harken train phf adds one.")
        if config.best > 0:
            run.note(f"The best {config.best:.3g} of {self.level}s score at least {self.threshold:g}: that is the threshold.")
        if config.objective == "rwr":
            low, high = np.quantile(annotated.sample("segment"), [0.001, 1.0]) * config.unit / config.beta
            if high - low < math.log(LEAST_WEIGHT_RATIO):
                run.note(f"rwr with beta {config.beta:g} weighs 99.9 % of segments between {math.exp(low):.3g} and "
                         f"{math.exp(high):.3g}: it learns as mle does. Lower --beta.")

    def good(self, score: float | None) -> bool | None:
        """None where there is no score."""
        return None if score is None or math.isnan(score) else score >= self.threshold

    def writer(self, active: bool) -> Writer:
        config, objective = self.config, self.config.objective if active else "mle"

        def write(document: Scored, ids: Sequence[Sequence[int]], copy: int, rng: random.Random) -> Tokens | None:
            mean, everything = document.mean, list(chain.from_iterable(ids)) if config.poison else []
            scores = [mean] * len(ids) if self.level == "document" else document.scores
            if objective == "filter" and self.level == "document" and not self.good(mean):
                return None
            if copy and not (active and self.good(mean)):
                return None
            out: list[int] = []
            values: list[float] = []
            tags: list[bool] = []
            for score, part in zip(scores, ids):
                label, value = self.good(score), math.nan if score is None else score
                self.counts["unscored" if label is None else "good" if label else "bad"] += 1
                if objective == "filter" and not label:
                    continue
                if objective == "conditional":
                    assert self.control is not None
                    if label is None or rng.random() < config.drop:
                        self.counts["untagged"] += 1
                    else:
                        out.append(self.control.good if label else self.control.bad)
                        values.append(value)
                        tags.append(True)
                if active and config.poison and label is False and rng.random() < config.poison:
                    self.counts["poisoned"] += 1
                    # The last two tokens stay (". " may be two), so that a segment still ends where a segment may end.
                    part = [*rng.choices(everything, k=max(0, len(part) - 2)), *part[-2:]]
                out += part
                values += [value] * len(part)
                tags += [False] * len(part)
            if not out:
                return None
            return Tokens.of([*out, self.end], [*values, values[-1]], [*tags, False])
        return write

    def datum(self, window: Tokens, weight: float, active: bool) -> Datum:
        """A window as a tree. A token whose segment has no score is read and not learnt, where the loss needs one."""
        ids, scores = window.ids.tolist(), window.scores[1:]
        inputs: dict[str, Any] = {"weights": [weight] * len(scores)}
        name = self.config.objective if active else "mle"
        if name == "route":
            masks = (scores < self.threshold, np.isnan(scores), scores >= self.threshold)
            inputs |= {part: mask.astype(float).tolist() for part, mask in zip(PARTS, masks)}
        elif name in ("unlikelihood", "mask", "rwr", "awr"):
            scored = ~np.isnan(scores)
            inputs["weights"] = np.where(scored, weight, 0.0).tolist()
            if name in ("unlikelihood", "mask"):
                inputs["good"] = (scores >= self.threshold).astype(float).tolist()
            else:
                inputs["rewards"] = np.where(scored, scores * self.config.unit, 0.0).tolist()
        return Datum(Tree(tuple(ids[:1]), (tuple(ids[1:]),)), inputs)

    def learn(self, learner: Learner, windows: Sequence[Tokens], weight: float, active: bool) -> dict[str, float]:
        """Adds the gradient of a step's windows; its metrics."""
        data = [self.datum(w, weight, active) for w in windows]
        if active and self.config.objective == "route":
            return routed(learner, data, self._part, self.routed)
        return learner.forward_backward(data, self.objective(active))

    def _part(self, part: str) -> Objective:
        """route: the loss of the bad, the unscored or the good tokens."""
        def loss(out: Outputs, x: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            value, metrics = phf.masked(out.logps_N, x[part], x["weights"])
            return value, {"nll": value.detach(), **(metrics if part == "good" else {})}
        return loss

    def objective(self, active: bool) -> Objective:
        config, name = self.config, self.config.objective if active else "mle"

        def loss(out: Outputs, x: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            w = x["weights"]
            if name == "unlikelihood":
                value = phf.unlikelihood(out.logps_N, x["good"], w, config.alpha)
            elif name == "mask":
                value = phf.masked(out.logps_N, x["good"], w)
            elif name == "rwr":
                self._range(phf.reward_weights(x["rewards"], config.beta)[w > 0])
                value = phf.rwr(out.logps_N, x["rewards"], w, config.beta)
            elif name == "awr":
                assert out.values_N is not None
                self._range(phf.reward_weights(x["rewards"] - phf.values_of(out.values_N.detach()), config.beta)[w > 0])
                value = phf.awr(out.logps_N, x["rewards"], out.values_N, w, config.alpha, config.beta)
            else:
                return nll(out.logps_N, w)
            plain = -(out.logps_N.detach() * w).sum()
            return value[0], {**value[1], "nll": plain}
        return loss

    def _range(self, weights: Tensor) -> None:
        if len(weights):
            self.weights = [min(self.weights[0], float(weights.min())), max(self.weights[1], float(weights.max()))]

    def measure(self, learner: Learner, stream: Stream) -> dict[str, float]:
        """`heldout_nll` a text token of the held-out documents: without control tokens, and of a model that knows them with
        <|good|> before each segment, and with the segments' own; of one with a block also without it."""
        held = list(stream.held_out(HELD))
        if not held or self.config.holdout <= 0:
            return {}
        modes: dict[str, Tag] = {"heldout_nll": lambda score: None}
        if self.config.objective == "conditional" and self.control is not None:
            control = self.control
            modes |= {"heldout_nll_good": lambda score: control.good, "heldout_nll_own": lambda score: (
                None if (label := self.good(score)) is None else control.good if label else control.bad)}
        found = {name: self._nll(learner, held, tag) for name, tag in modes.items()}
        if self.config.objective == "route":
            with without(learner.parts, self.routed):
                found["heldout_nll_cut"] = self._nll(learner, held, modes["heldout_nll"])
        return found

    def _nll(self, learner: Learner, held: Sequence[tuple[Scored, list[list[int]]]], tag: Tag) -> float:
        trees, texts = [], []
        for document, parts in held:
            ids, text = [self.end], [False]
            for score, part in zip(document.scores, parts):
                if (token := tag(score)) is not None:
                    ids.append(token)
                    text.append(False)
                ids += part
                text += [True] * len(part)
            cut = self.config.max_length + 1
            trees.append(Tree((ids[0],), (tuple(ids[1:cut]),)))
            texts.append(text[1:cut])
        logps = learner.logprobs(trees)
        total = sum(float(row[0].cpu()[torch.tensor(text)].sum()) for row, text in zip(logps, texts))
        return -total / sum(map(sum, texts))

    def state(self) -> dict[str, Any]:
        return {"counts": self.counts, "weights": [str(w) for w in self.weights]}

    def load(self, state: Mapping[str, Any]) -> None:
        self.counts, self.weights = dict(state["counts"]), [float(w) for w in state["weights"]]

    def result(self) -> dict[str, Any]:
        """Counts of segments as they were read, and the range of weights. All processes must call it."""
        ranges = processes.group().gather(tuple(self.weights))
        self.weights = [min(low for low, _ in ranges), max(high for _, high in ranges)]
        figures: dict[str, Any] = {"threshold": self.threshold, "segments": self.counts}
        if self.weights[0] <= self.weights[1]:
            figures["least_weight"], figures["most_weight"] = self.weights
            if self.weights[1] < LEAST_WEIGHT_RATIO * self.weights[0]:
                figures["mle_in_disguise"] = "yes: the weights hardly differ; lower --beta"
        return figures


def best_threshold(annotated: Annotated, level: str, share: float) -> float:
    """The score that `share` of documents or segments reach."""
    return reached_by(annotated.sample(level), share)
