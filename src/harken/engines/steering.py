"""Steering a sampler by control tokens: some are never drawn, and one is put after every segment that the text completes.

    sampler.steer(steering(control, "good"))

A tag that is put costs one token of the text's length and one decoding step; keys and values stay where they are. In training no
tag stood before the end of a text, so the end is drawn where the next tag would stand, beside the tags. Whether a
segment is complete is read from the tokens said so far, so nothing has to be kept from step to step.
Shape suffixes: B rows spoken in, T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harken.text.tags import Steering

LOOK_BACK = 32
"""Tokens read to tell whether a segment is complete: more than the characters any segmenter looks at."""


class Guide:
    """A steering, for one tokenizer on one device."""

    def __init__(self, steering: Steering, tokenizer: Any, end: int, device: torch.device) -> None:
        self.steering, self.tokenizer, self.end = steering, tokenizer, end
        self.banned = torch.tensor(steering.banned, dtype=torch.long, device=device)
        closing = []
        if steering.each is not None and steering.segmenter != "document":
            texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
            closing = [i for i, text in enumerate(texts) if text and text[-1] in "\n \t\r\u00a0\u3000。！？\ufffd"]
        self.closing = torch.tensor(closing, dtype=torch.long, device=device)

    def opened(self, prompt: tuple[int, ...]) -> tuple[int, ...]:
        """A prompt with the end token that opens every text, and its tags."""
        return self.steering.after_prompt(prompt, self.end, self.tokenizer.decode(prompt[-LOOK_BACK:], skip_special_tokens=True))

    def untagged(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Sampled tokens without the tags that were put."""
        return tuple(i for i in ids if i != self.steering.each)

    def ban(self, logits_BV: Tensor, due_B: Tensor | None = None) -> Tensor:
        """Tags are never drawn. Where a tag is due they stay: next to it the text may end, as likely as it did in training."""
        if due_B is None or not bool(due_B.any()):
            return logits_BV.index_fill_(-1, self.banned, -torch.inf)
        logits_BV[:, self.banned] = logits_BV[:, self.banned].masked_fill(~due_B[:, None], -torch.inf)
        return logits_BV

    def due(self, ids_BT: Tensor, said_B: Tensor) -> Tensor:
        """Which rows, having said so many tokens, have completed a segment: bool [B]."""
        due_B = torch.zeros(len(said_B), dtype=torch.bool, device=said_B.device)
        if not len(self.closing) or not bool((said_B > 0).any()):
            return due_B
        last = ids_BT.gather(1, (said_B - 1).clamp(min=0)[:, None])[:, 0]
        for row in (torch.isin(last, self.closing) & (said_B > 0)).nonzero()[:, 0].tolist():
            count = int(said_B[row])
            text = self.tokenizer.decode(ids_BT[row, max(0, count - LOOK_BACK):count].tolist(), skip_special_tokens=True)
            due_B[row] = self.steering.ends(text)
        return due_B

    def put(self, token_B: Tensor, logps: list[Tensor], due_B: Tensor, stop: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The drawn tokens, and their log-probs, with the tag in place of those whose row has completed a segment and did not end
        there; what goes on goes on tagged for certain, so the tag's log-probs are 0."""
        if self.steering.each is None:
            return token_B, logps
        goes_on = due_B & ~torch.isin(token_B, stop)
        return token_B.masked_fill(goes_on, self.steering.each), [x.masked_fill(goes_on, 0.0) for x in logps]
