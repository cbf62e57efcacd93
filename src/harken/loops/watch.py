"""What watches a policy's training: monitors of every logged row, audits by a held-out reward, and the rules that end a run.

A run calls it (core/run.py): `before` each step, `after` each logged row, `save` and `load` with its checkpoints, `finish` at
the end. What it knows of the past it reads from the run's own logs, which a resumed run cuts back to its checkpoint; only the
weights worth going back to are saved beside them. So a run that was killed is watched exactly as one that was not (P22).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harken.core.config import SampleConfig
from harken.core.errors import UserError
from harken.core.files import read_jsonl
from harken.core.protocols import Learner, Reward, Rollouts, Tree
from harken.core.records import Prompt
from harken.core.run import Run
from harken.core.seeds import derive_seed
from harken.engines.profile import timed
from harken.loops.rollout import sample_step
from harken.stats.drift import SLOPE, Audit, Drift, change, hacking, parse_rules, slope, smoothed

LEAST_PROMPTS = 8
STATE = "watch.pt"

Tokenised = tuple[Prompt, tuple[int, ...]]
Kept = tuple[int, dict[str, Tensor]] | None
"""Steps done, and the trained parameters then."""


class Watch:
    """Watches `run`. Audits need a `held_out` reward: they sample prompts that were set aside, always the same with the same
    random numbers, so that each prompt is compared with itself."""

    def __init__(self, config: SampleConfig, learner: Learner, sampler: Rollouts, run: Run, reward: Reward | None = None,
                 held_out: Reward | None = None) -> None:
        self.config, self.learner, self.sampler, self.run = config, learner, sampler, run
        self.reward, self.held_out = reward, held_out
        self.every, self.count = getattr(config, "monitor_every", 1), getattr(config, "monitor_prompts", 0)
        self.hacking, self.bounds = parse_rules(getattr(config, "stop_when", ""))
        self.patience = getattr(config, "patience", 0)
        self.prompts: list[Tokenised] = []
        self._forget()

    def _forget(self) -> None:
        self.drift, self.audits = Drift(), list[Audit]()
        self.stopped: dict[str, Any] = {}
        self.messages: list[str] = []
        self.warned = False
        self.now: Kept = None  # at the start of this step
        self.within: Kept = None  # the last within all bounds
        self.audited: Kept = None  # at the last audit
        self.best: Kept = None  # at the audit with the highest smoothed held-out reward

    def set_aside(self, prompts: list[Tokenised]) -> list[Tokenised]:
        """Takes the audits' prompts out of those to learn from, at random by the seed, and returns the rest."""
        if self.held_out is None:
            return prompts
        count = min(self.count, len(prompts) // 2)
        if count < LEAST_PROMPTS:
            raise UserError(f"There are too few prompts to audit with: {count}, of {len(prompts)} that fit.",
                            f"Give at least {2 * LEAST_PROMPTS} prompts, or leave --held-out-reward out.")
        aside = set(random.Random(derive_seed(self.config.seed, "audit")).sample(range(len(prompts)), count))
        self.prompts = [p for i, p in enumerate(prompts) if i in aside]
        self.run.note(f"Kept {count} of {len(prompts)} prompts out of training, to audit the reward on.")
        return [p for i, p in enumerate(prompts) if i not in aside]

    # --- called by the run -------------------------------------------------------------------------

    def before(self, step: int, total: int) -> bool:
        """Audits the weights after `step` steps where that is due; False where the run is to end here."""
        if self.stopped:
            return False
        if self.prompts and (step % self.every == 0 or step == total):
            self._audit(step)
        if self.bounds:
            self.now = step, self._weights()
        return not self.stopped

    def after(self, step: int, row: Mapping[str, Any]) -> None:
        """Notes what this row shows. A broken bound ends the run; it goes back to the last weights within all bounds.

        Raises `UserError` for a bound on what this method does not measure.
        """
        for alarm in self.drift.see({"step": step, **row}):
            self._say(str(alarm))
        if "reward" not in row:  # an audit's
            return
        for rule in self.bounds:
            if rule.metric not in row:
                raise UserError(f"--stop-when {rule}: this run measures no {rule.metric}.", "Leave the rule out.")
            if rule.broken(row[rule.metric]):
                self.within = self.within or self.now
                self._stop(str(rule), step, f"{rule.metric} was {row[rule.metric]:.3g}")
                return
        self.within = self.now

    def save(self, folder: Path) -> None:
        names = ("stopped", "messages", "warned", "within", "audited", "best")
        torch.save({name: getattr(self, name) for name in names}, folder / STATE)

    def load(self, folder: Path | None) -> None:
        """Back to what was known when the checkpoint was written; the logs end there too."""
        self._forget()
        if folder is not None:
            for name, value in torch.load(folder / STATE, map_location="cpu", weights_only=True).items():
                setattr(self, name, value)
            self.audits = [Audit.from_json(row) for row in read_jsonl(self.run.path / "audits.jsonl")]
            for row in read_jsonl(self.run.path / "metrics.jsonl"):
                self.drift.see(row)
            self.run.notes += self.messages

    def finish(self) -> dict[str, Any]:
        """Goes back to the weights that a stop rule kept; what `result.json` says of it all."""
        result: dict[str, Any] = {}
        if self.stopped:
            with torch.no_grad():
                for name, value in self._weights_to_keep()[1].items():
                    self.learner.parts[name].copy_(value)
            result = {"steps": self.stopped["step"], "stopped": self.stopped}
        if unscored := int(sum(row.get("unscored", 0) for row in read_jsonl(self.run.path / "metrics.jsonl"))):
            result["unscored"] = unscored
            self.run.note(f"{unscored} completions had no score; their prompts taught nothing in those steps.")
        if self.audits:
            places = range(len(self.audits))
            best = max(places, key=lambda i: smoothed(self.audits, i))
            result["held_out_best_step"] = self.audits[best].step
            for name in ("proxy", "held_out"):
                result[f"{name}_change"] = change(self.audits[0], self.audits[-1], name).to_json()
        return result

    # -----------------------------------------------------------------------------------------------

    def _weights(self) -> dict[str, Tensor]:
        return {n: p.detach().to("cpu", copy=True) for n, p in self.learner.parts.items()}

    def _weights_to_keep(self) -> tuple[int, dict[str, Tensor]]:
        chosen = self.best if self.stopped["rule"] in ("hacking", "patience") else self.within
        assert chosen is not None, "a rule stops the run after it has kept something"
        return chosen

    def _stop(self, rule: str, step: int, why: str) -> None:
        self.stopped = {"rule": rule, "step": step, "why": why}
        self.stopped["kept_step"] = self._weights_to_keep()[0]
        self._say(f"Stopped after step {step} by {rule}: {why}. The model kept is that after step {self._weights_to_keep()[0]}.")

    def _say(self, text: str) -> None:
        self.messages.append(text)
        self.run.note(text)

    @timed("audit")
    def _audit(self, step: int) -> None:
        """Samples the prompts set aside, scores them twice, and looks at the slopes."""
        prompts, ids = [p for p, _ in self.prompts], [i for _, i in self.prompts]
        config, rewards = self.config, {"proxy": self.reward, "held_out": self.held_out}
        groups = sample_step(config, self.sampler, ids, 1, step, derive_seed(config.seed, "audit"))
        trees = [Tree(i, (g[0].ids,)) for i, g in zip(ids, groups)]
        ref = self.learner.logprobs(trees, temperature=config.temperature, reference=True)
        kl = sum(sum(g[0].logps) - float(r[0].sum()) for g, r in zip(groups, ref)) / len(groups)
        scores = {name: tuple(row[0] for row in reward.score(prompts, [[g[0].text] for g in groups]))
                  for name, reward in rewards.items() if reward is not None}
        scores = self.run.group.agree(scores)
        audit = Audit(step, kl=kl, length=sum(len(g[0].ids) for g in groups) / len(groups),
                      texts=tuple(g[0].text for g in groups), **scores)
        self.audits.append(audit)
        self.run.log_audit(audit.to_json())
        means = {f"audit_{name}": audit.mean(name) for name in scores}
        self.run.log(step, audit_kl=kl, **{name: value for name, value in means.items() if math.isfinite(value)})
        if self.hacking or self.patience:
            self._keep_best(step)
        if self.patience and self._since_best() >= self.patience:
            highest = smoothed(self.audits, len(self.audits) - 1 - self._since_best())
            self._stop("patience", step, f"the held-out reward was highest, {highest:.3g}, {self.patience} audits ago")
            return
        if hacking(self.audits) and not self.warned:
            self.warned = True
            self._report(step)

    def _since_best(self) -> int:
        """Audits after the one with the highest smoothed held-out reward; that of the newest is not known yet."""
        done = len(self.audits) - 1
        return len(self.audits) - 1 - max(range(done), key=lambda i: smoothed(self.audits, i)) if done > 0 else 0

    def _keep_best(self, step: int) -> None:
        """The audit before this one now has both neighbours: it is the best so far, or not."""
        done = len(self.audits) - 1
        if done and max(range(done), key=lambda i: smoothed(self.audits, i)) == done - 1:
            self.best = self.audited
        self.audited = step, self._weights()

    def _report(self, step: int) -> None:
        proxy, held = (slope(self.audits[-SLOPE:], name) for name in ("proxy", "held_out"))
        why = (f"the held-out reward changes by {held.value:.3g} [{held.low:.3g}, {held.high:.3g}] in 100 steps, "
               f"the reward that is climbed by {proxy.value:+.3g}")
        if self.hacking:
            self._stop("hacking", step, why)
        else:
            self._say(f"Step {step}: {why}. The reward may be exploited: --stop-when hacking would end the run here.")
