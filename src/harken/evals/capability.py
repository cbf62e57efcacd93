"""Alignment tax, its cheapest reading: how much worse a model predicts text it was never trained on.

    harken eval capability --model runs/rloo --against smollm2 --data text.txt --out runs/tax

The mean negative log-likelihood (nats a token) of each document under both models; the change is the paired
difference over documents, with its interval. Positive is a tax.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harken.core.config import setting
from harken.core.protocols import EvalResult, Models, Tree
from harken.core.run import Run
from harken.stats.intervals import mean_interval, paired_difference
from harken.text.documents import read_documents


@dataclass(frozen=True)
class Config:
    model: str = setting("", names="model", required=True)
    """The model in question: a run directory, a folder, smollm2 or a hub id."""
    against: str = setting("smollm2", names="model")
    """The model it is compared with."""
    data: str = setting("", names="file", required=True)
    """Plain text: documents separated by blank lines, or JSON Lines with "text"."""
    out: str = setting("", required=True)
    """Run directory to write."""
    max_length: int = setting(512, least=2)
    """Longest document in tokens; the rest of a longer one is left out."""
    dtype: str = setting("float32", one_of=("float32", "bfloat16", "auto"))
    """Precision: float32, bfloat16 or auto."""


def document_nll(engine: Any, documents: Sequence[str], max_length: int = 512) -> list[float]:
    """Nats a token of each document, its first token given."""
    trees = []
    for text in documents:
        ids = engine.template.text_ids(text)[:max_length]
        trees.append(Tree(ids[:1], (ids[1:] or (engine.template.end_id,),)))
    return [-float(logps.mean()) for (logps,) in engine.logprobs(trees)]


def evaluate(config: Config, models: Models, run: Run) -> EvalResult:
    """The change in held-out NLL, `model` less `against`."""
    engines = [models.engine(name) for name in ("model", "against")]
    documents = read_documents(config.data)
    limit = min(config.max_length, *(context(engine) or config.max_length for engine in engines))
    if limit < config.max_length:
        run.note(f"The shorter context is {limit} tokens: that much of a document is read, not --max-length {config.max_length}.")
    a, b = (document_nll(engine, documents, limit) for engine in engines)
    figures = {"nll": {"model": mean_interval(a), "against": mean_interval(b)}}
    return EvalResult(paired_difference(a, b), figures, better="lower")


def context(engine: Any) -> int | None:
    limit: int | None = engine.context
    return limit
