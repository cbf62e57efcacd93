"""Ratings from a model's log-probabilities: the expected number of 1 to 10, not the one number it would say.

It has no sampling noise and does not collapse on the likeliest digit, which a small model gives to everything. The
questions about one answer share its conversation, which is computed once: they are branches of one row.

    [ conversation, reply | question 1, "Score: ", "1" | question 2, "Score: ", "1" | … ]

The words "Score: " open the answer, or a small model would rather talk: SmolLM2 puts 5 to 25 % on numbers without them and
97 % with them. The token after them gives P(2) … P(9) and P("1…"), the token after that "1" what of it is 10. The mass on
anything but a number is the chance that an answer could not be read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harken.core.errors import UserError
from harken.core.protocols import Tree
from harken.core.records import Prompt
from harken.engines.hf import Engine

LEAST_MASS = 0.5
LEAD = "Score: "


class ExpectedRatings:
    """Asks an engine. `rate` gives None where the model puts less than half its probability on a number."""

    resolution = 0.1

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.lead, self.ten = self._ids(LEAD), self._ids("10")
        self.digits = [self._single(str(k)) for k in range(10)]
        if len(self.ten) != 1 and self.ten != (self.digits[1], self.digits[0]):
            raise UserError("The judge's tokenizer writes 10 in an unusual way.", "Use --answers sampled.")

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.engine.template.tokenizer(text, add_special_tokens=False).input_ids)

    def _single(self, digit: str) -> int:
        ids = self._ids(digit)
        if len(ids) != 1:
            raise UserError(f"The judge's tokenizer has no single token for {digit}.", "Use --answers sampled.")
        return ids[0]

    def rate(self, questions: Sequence[Sequence[Prompt]]) -> list[list[float | None]]:
        """[N][A] questions, those of a row about one answer -> [N][A] ratings; None also where one is too long."""
        return [self._row(row) for row in questions]

    @torch.no_grad()
    def _row(self, questions: Sequence[Prompt]) -> list[float | None]:
        ids = [self.engine.template.prompt_ids(q) + self.lead for q in questions]
        limit = self.engine.context
        if limit and max(map(len, ids)) + 1 > limit:
            return [None] * len(ids)
        shared = 0
        while shared < min(map(len, ids)) - 1 and len({q[shared] for q in ids}) == 1:
            shared += 1
        tree = Tree(ids[0][:shared], tuple((*q[shared:], self.digits[1]) for q in ids))
        after, then = (logits.softmax(-1) for logits in self.engine.last_logits(tree, (1, 0)))
        return self._expected(after, then)

    def _expected(self, after_AV: Tensor, then_AV: Tensor) -> list[float | None]:
        p = torch.zeros(len(after_AV), 11)
        for k in range(1, 10):
            p[:, k] = after_AV[:, self.digits[k]]
        if len(self.ten) == 1:
            p[:, 10] = after_AV[:, self.ten[0]]
        else:
            ten = then_AV[:, self.digits[0]].cpu()
            p[:, 10], p[:, 1] = p[:, 1] * ten, p[:, 1] * (1 - ten)
        mass = p.sum(-1)
        mean = (p @ torch.arange(11.0)) / mass.clamp_min(1e-9)
        return [float(m) if total >= LEAST_MASS else None for m, total in zip(mean, mass)]
