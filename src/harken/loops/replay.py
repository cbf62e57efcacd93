"""Plain text learnt beside a method's own data, so that what the model knew stays (InstructGPT's 10 %, App. C.3).

    replay = Replay("text.txt", 0.1, template, length=512, seed=0)
    text = replay.batch(step, tokens)                     # with it, a tenth of the step's tokens are text
    metrics |= learn_text(learner, text, share)           # adds share × their mean NLL to the step's loss
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from harken.core.errors import UserError
from harken.core.protocols import Datum, Learner, Template, Tree
from harken.core.seeds import derive_seed
from harken.objectives.supervised import nll
from harken.text.documents import read_documents, windows


class Replay:
    """Windows of text, drawn anew for every step by the seed. Raises `UserError` for a share out of (0, 1) and for too
    little text."""

    def __init__(self, path: str, share: float, template: Template, length: int, seed: int) -> None:
        if not 0 < share < 1:
            raise UserError(f"--replay-share {share} is out of range.", "It must be above 0 and below 1.")
        self.share, self.seed = share, seed
        self.windows = windows(template, read_documents(path, "--replay"), length)
        if not self.windows:
            raise UserError(f"{path} is too short to learn from.", "Give --replay more text.")

    def batch(self, step: int, tokens: int) -> list[Tree]:
        """Text whose tokens are `share` of the step's beside `tokens` others; the last window is cut to fit."""
        rng, trees = random.Random(derive_seed(self.seed, "replay", step)), []
        left = max(1, round(tokens * self.share / (1 - self.share)))
        while left > 0:
            window = rng.choice(self.windows)
            trees.append(Tree(window.prompt, (window.completions[0][:left],)))
            left -= len(window.completions[0])
        return trees


def open_replay(config: Any, learner: Learner) -> Replay | None:
    """What --replay names, in windows of --max-length; None without it."""
    if not config.replay:
        return None
    return Replay(config.replay, config.replay_share, learner.template, config.max_length, config.seed)


def learn_text(learner: Learner, text: Sequence[Tree], weight: float) -> dict[str, float]:
    """Adds the gradient of `weight` × the text's mean NLL; returns `replay_nll`, nats a token."""
    tokens = sum(len(t.completions[0]) for t in text)
    data = [Datum(t, {"weights": [weight / tokens] * len(t.completions[0])}) for t in text]
    metrics = learner.forward_backward(data, lambda out, x: nll(out.logps_N, x["weights"]))
    return {"replay_nll": metrics["nll"] / weight}
