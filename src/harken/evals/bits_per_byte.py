"""Bits per byte: how well a model predicts text, whatever its tokenizer.

    harken eval bits_per_byte --model runs/conditional --mode good --data text.txt --out runs/bits
    harken eval bits_per_byte --model runs/conditional --mode good --against runs/mle --data text.txt --out runs/bits

All bits of all documents over all their bytes; the interval is over documents. Control tokens are read and not counted, so that
the good, bad and untagged modes of a model compare with each other and with a model that has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harken.core.config import setting
from harken.core.errors import UserError
from harken.core.protocols import Estimate, EvalResult, Models
from harken.core.run import Run
from harken.stats.intervals import bootstrap
from harken.text.documents import read_documents
from harken.text.tags import encode, steering, text_nll


@dataclass(frozen=True)
class Config:
    model: str = setting("", names="model", required=True)
    """The model in question: a run directory, a folder, smollm2 or a hub id."""
    against: str = setting("", names="model")
    """A model to compare with, on the same documents; it is read without tags. Empty: none."""
    data: str = setting("", names="file", required=True)
    """Plain text: documents separated by blank lines, or JSON Lines with "text"."""
    out: str = setting("", required=True)
    """Run directory to write."""
    mode: str = setting("", one_of=("", "good", "bad", "untagged"))
    """good, bad or untagged, of a model with control tokens; empty is its own."""
    tag: str = setting("each", one_of=("each", "once"))
    """Where a mode's token stands: each (before every segment) or once (at the start)."""
    max_length: int = setting(512, least=2)
    """Tokens read at once, at most the model's context; a longer document is read in pieces."""
    dtype: str = setting("float32", one_of=("float32", "bfloat16", "auto"))
    """Precision: float32, bfloat16 or auto."""


def evaluate(config: Config, models: Models, run: Run) -> EvalResult:
    """Reads every document whole. Raises `UserError` for a mode of a model without control tokens."""
    control = getattr(models.sampler("model"), "control", None)
    if config.mode and control is None:
        raise UserError(f"{config.model} knows no control tokens, so it has no {config.mode} mode.", "Leave --mode out.")
    documents, engine = read_documents(config.data), models.engine("model")
    sizes = [len(d.encode("utf-8")) for d in documents]
    if unknown := _unknown(engine.template.tokenizer, documents):
        run.note(f"{unknown} tokens of the text are unknown to the tokenizer: the bits of what they stand for are not counted.")
    steered = steering(control, config.mode, config.tag == "each") if control else None
    ours = text_nll(engine, documents, steered, config.max_length)
    value = ratio(ours, sizes)
    if not config.against:
        return EvalResult(value, {"bytes": sum(sizes), "documents": len(documents)}, better="lower")
    other = getattr(models.sampler("against"), "control", None)
    theirs = text_nll(models.engine("against"), documents, steering(other, "untagged") if other else None, config.max_length)
    return EvalResult(value, {"against_bits_per_byte": ratio(theirs, sizes), "change": ratio(ours, sizes, theirs),
                              "bytes": sum(sizes), "documents": len(documents)}, better="lower")


def ratio(nats: Sequence[float], sizes: Sequence[int], less: Sequence[float] | None = None) -> Estimate:
    """Bits of all documents over bytes of all, with a bootstrap over documents; the difference from `less` on the same ones."""
    bits = [(a - b) / math.log(2) for a, b in zip(nats, less or [0.0] * len(nats))]
    return bootstrap(lambda drawn: float(sum(bits[i] for i in drawn) / sum(sizes[i] for i in drawn)), len(bits), draws=1000)


def _unknown(tokenizer: Any, documents: Sequence[str]) -> int:
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown == tokenizer.eos_token_id:
        return 0
    return sum(ids.count(unknown) for ids in encode(tokenizer, documents))
