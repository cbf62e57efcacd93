"""Completions of another engine than the learner's, or of its earlier weights: the learner's log-probs of them, and a correction.

Shape suffix: N completion tokens of all trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from harken.core.config import RolloutConfig
from harken.core.errors import UserError
from harken.core.protocols import Learner, Sample, Tree
from harken.objectives.mismatch import correction, mismatch

ANOTHER_MODEL = 1.0
"""Mean difference of log-probs, in nats a token, that no precision explains: 4-bit weights differ by some 0.2."""


def foreign(sampler: Any) -> bool:
    """Whether another engine than the learner's computes the sampler's log-probs."""
    return bool(getattr(sampler, "foreign", False))  # objects of users' own need not say so


def corrected(config: RolloutConfig, learner: Learner, trees: Sequence[Tree], samples: Sequence[Sample],
              version: int) -> dict[str, Any]:
    """The trainer's own log-probs of what another engine said, or earlier weights than those of `version`; the weights that
    correct the difference, and its figures.

    Raises `UserError` where the difference is no matter of numerics.
    """
    trainer_N = torch.cat([x.cpu() for tree in learner.logprobs(trees, temperature=config.temperature) for x in tree])
    sampler_N = torch.tensor([logp for s in samples for logp in s.logps])
    weights_N = correction(trainer_N, sampler_N, [len(s.ids) for s in samples], config.correction, config.correction_cap)
    figures = mismatch(trainer_N, sampler_N, weights_N, config.correction_cap)
    if config.max_staleness:
        figures |= {"staleness": sum(version - s.version for s in samples) / len(samples)}
    if not figures["mismatch"] <= ANOTHER_MODEL:
        raise UserError(f"The server's log-probs are {figures['mismatch']:.2f} nats a token from the learner's: that is another "
                        "model, or another temperature.", "Start the server with this run's --model, and without sampling "
                        "settings of its own.")
    return {"trainer_N": trainer_N, "correction_N": weights_N, "figures": figures}
