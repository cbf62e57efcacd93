"""Models that rate answers: weights of ours, or an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harken.core.errors import UserError
from harken.core.records import Prompt
from harken.launch.models import parse_model
from harken.text.attributes import Attribute
from harken.text.panel import Judge, Panel, SampledRatings

QUALITY = Attribute("quality", "is good, all things considered: helpful, honest and harmless",
                    "it is useless, wrong or harmful", "it could not be better")


def open_judge(judge: str, judge_model: str = "", answers: str = "expected", *, dtype: str = "float32",
               tokens_per_micro_batch: int = 2048) -> tuple[Judge, Any]:
    """A model that rates, and what identifies it: weights, or an endpoint's address and model, with how it answers."""
    model = parse_model(judge)
    if model.kind == "endpoint":
        if answers != "sampled":
            raise UserError("An endpoint gives no probabilities of all ten ratings.", "Add --answers sampled.")
        sampler = model.open_sampler(judge_model)
        return SampledRatings(sampler), ["endpoint", sampler.url, sampler.model]
    engine = model.open_engine(dtype=dtype, tokens_per_micro_batch=tokens_per_micro_batch)
    identity = [answers, engine.lineage.get("weights")]
    if answers == "sampled":
        from harken.engines.sampler import HFSampler
        return SampledRatings(HFSampler(engine)), identity
    from harken.engines.ratings import ExpectedRatings
    return ExpectedRatings(engine), identity


class JudgedQuality:
    """A reward that asks a model how good an answer is, from 1 to 10; None where it says no number."""

    def __init__(self, judge: Judge, identity: Any) -> None:
        self.panel = Panel([QUALITY], judge, {}, identity)

    @classmethod
    def open(cls, model: str, *, dtype: str = "float32", tokens_per_micro_batch: int = 2048) -> JudgedQuality:
        answers = "sampled" if parse_model(model).kind == "endpoint" else "expected"
        return cls(*open_judge(model, "", answers, dtype=dtype, tokens_per_micro_batch=tokens_per_micro_batch))

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """[P], [P][G] -> [P][G]."""
        items = [(prompt, text) for prompt, texts in zip(prompts, completions) for text in texts]
        ratings = iter(self.panel.rate(items)[:, 0].tolist() if items else [])
        return [[None if (rating := next(ratings)) != rating else rating for _ in texts] for texts in completions]
