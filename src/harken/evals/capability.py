"""Alignment tax, its cheapest reading: how much worse a model predicts text it was never trained on.

    harken eval capability --model runs/rloo --against smollm2 --data text.txt --out runs/tax

The mean negative log-likelihood (nats a token) of each document under both models; the change is the paired
difference over documents, with its interval. Positive is a tax.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harken.core.protocols import EvalResult, Tree
from harken.core.run import Run
from harken.engines.hf import Engine
from harken.stats.intervals import mean_interval, paired_difference
from harken.text.documents import read_documents


@dataclass(frozen=True)
class Config:
    model: str = ""
    """The model in question: a run directory, a folder, smollm2 or a hub id."""
    against: str = "smollm2"
    """The model it is compared with."""
    data: str = ""
    """Plain text: documents separated by blank lines, or JSON Lines with "text"."""
    out: str = ""
    """Run directory to write."""
    max_length: int = 512
    """Longest document in tokens; the rest of a longer one is left out."""
    dtype: str = "float32"
    """Precision: float32, bfloat16 or auto."""


def document_nll(engine: Engine, documents: Sequence[str], max_length: int = 512) -> list[float]:
    """Nats a token of each document, its first token given."""
    trees = []
    for text in documents:
        ids = engine.template.text_ids(text)[:max_length]
        trees.append(Tree(ids[:1], (ids[1:] or (engine.template.end_id,),)))
    return [-float(logps.mean()) for (logps,) in engine.logprobs(trees)]


def evaluate(config: Config, model: Engine, against: Engine, run: Run) -> EvalResult:
    """The change in held-out NLL, `model` less `against`."""
    documents = read_documents(config.data)
    contexts = (getattr(e.model.config, "max_position_embeddings", None) or config.max_length for e in (model, against))
    limit = min(config.max_length, *contexts)
    if limit < config.max_length:
        run.note(f"The shorter context is {limit} tokens: that much of a document is read, not --max-length {config.max_length}.")
    a, b = (document_nll(e, documents, limit) for e in (model, against))
    change = paired_difference(a, b)
    run.finish({"name": "capability", "model": config.model, "against": config.against, "value": change.to_json(),
                "nll": {"model": mean_interval(a).to_json(), "against": mean_interval(b).to_json()}})
    return EvalResult("capability", change)
