"""Capability as closeness to a declared, frozen reference model: KL(reference || model), in nats a text.

    harken eval kl_capability --model runs/conditional --mode good --reference runs/mle --out runs/kl

The reference speaks from nothing; each of its texts is read by both. The mean of log p_reference - log p_model estimates the
divergence (Korbak et al. 2302.08582, section 4, with GPT-3 in the reference's place). Lower is more capable, as far as the
reference is.
"""

from __future__ import annotations

from dataclasses import dataclass

from harken.core.config import setting
from harken.core.errors import UserError
from harken.core.protocols import EvalResult, Models
from harken.core.run import Run
from harken.core.seeds import MOST_SEED
from harken.loops.unprompted import sampled
from harken.stats.intervals import bootstrap, mean_interval
from harken.text.tags import steering, text_nll


@dataclass(frozen=True)
class Config:
    model: str = setting("", names="model", required=True)
    """The model in question: a run directory, a folder, smollm2 or a hub id."""
    reference: str = setting("", names="model", required=True)
    """The model whose texts are read. Keep it the same for all models that are compared."""
    out: str = setting("", required=True)
    """Run directory to write."""
    mode: str = setting("", one_of=("", "good", "bad", "untagged"))
    """good, bad or untagged, of a model with control tokens; empty is its own."""
    tag: str = setting("each", one_of=("each", "once"))
    """Where a mode's token stands: each (before every segment) or once (at the start)."""
    samples: int = setting(512, least=2)
    """Texts of the reference (the paper: 4096)."""
    max_tokens: int = setting(64, least=1)
    """Longest text in tokens (64 in the paper)."""
    seed: int = setting(0, least=0, most=MOST_SEED)
    """Seed of sampling."""
    dtype: str = setting("float32", one_of=("float32", "bfloat16", "auto"))
    """Precision: float32, bfloat16 or auto."""


def evaluate(config: Config, models: Models, run: Run) -> EvalResult:
    """Samples the reference at temperature 1, untruncated, and reads the texts with both. Raises `UserError` for a mode of a
    model without control tokens."""
    sampler, control = models.sampler("reference"), getattr(models.sampler("model"), "control", None)
    if config.mode and control is None:
        raise UserError(f"{config.model} knows no control tokens, so it has no {config.mode} mode.", "Leave --mode out.")
    texts = [t for group in sampled(run, sampler, None, config.samples, seed=config.seed, max_tokens=config.max_tokens)
             for t in group if t]
    if len(texts) < 2:
        raise UserError(f"The reference {config.reference} says nothing by itself.", "Use a model that was trained on text.")
    own = getattr(sampler, "control", None)
    theirs = text_nll(models.engine("reference"), texts, steering(own) if own else None)
    ours = text_nll(models.engine("model"), texts, steering(control, config.mode, config.tag == "each") if control else None)
    sizes = [len(t.encode("utf-8", "replace")) for t in texts]
    gaps = [a - b for a, b in zip(ours, theirs)]
    per_byte = bootstrap(lambda drawn: float(sum(gaps[i] for i in drawn) / sum(sizes[i] for i in drawn)), len(texts), draws=500)
    figures = {"kl_per_byte": per_byte, "nll": {"model": mean_interval(ours), "reference": mean_interval(theirs)}}
    samples = [{"text": t, "kl": gap} for t, gap in sorted(zip(texts, gaps), key=lambda x: -x[1])[:20]]
    return EvalResult(mean_interval(gaps), figures, samples=samples, better="lower")
