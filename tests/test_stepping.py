"""Sampling as a card does it: the same tokens as on a CPU, and not one wait for the device between two looks."""

from contextlib import nullcontext

import pytest

pytest.importorskip("transformers")
import torch

from harken.engines import stepping
from harken.engines.batch import Batch
from harken.engines.decoder import Decoder
from harken.engines.sampler import HFSampler
from harken.engines.stepping import DeviceBatch

PROMPTS = [(2, 20, 21), (2, 30, 31, 32, 33, 34, 35), (2, 40), (2, 41, 42), (2, 20)]


def sampled(engine, kind, monkeypatch, **options):
    monkeypatch.setattr(HFSampler, "_kind", lambda self, texts: kind)
    groups = HFSampler(engine, max_batch=6).sample_ids(PROMPTS, 3, max_tokens=21, seed=5, **options)
    return [s for group in groups for s in group]


@pytest.mark.parametrize("decoded", [True, False])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"top_p": 0.7, "min_tokens": 4}])
def test_it_says_what_a_cpu_says(toy_engine, monkeypatch, decoded, options):
    """Rows are refilled, end at different times, and reach the longest length; with the decoder and with the model's modules."""
    if not decoded:
        monkeypatch.setattr(Decoder, "of", classmethod(lambda cls, engine: None))
    engine = toy_engine(lora_rank=4)
    there, here = (sampled(engine, kind, monkeypatch, **options) for kind in (DeviceBatch, Batch))
    assert [s.ids for s in there] == [s.ids for s in here] and [s.finished for s in there] == [s.finished for s in here]
    assert len({len(s.ids) for s in here}) > 1 or "temperature" in options
    for a, b in zip(there, here):
        assert a.logps == pytest.approx(b.logps, abs=1e-5) and a.model_logps == pytest.approx(b.model_logps, abs=1e-5)


def test_a_captured_step_is_replayed_and_says_the_same(toy_engine, monkeypatch):
    """The first step of a shape is computed, then one is captured; with a second shape, a second is."""
    captures, replays = [], []

    def captured(step):
        captures.append(1)
        return lambda: (replays.append(1), step())
    made = DeviceBatch.__init__

    def init(self, *args):
        made(self, *args)
        self.capture = captured
    monkeypatch.setattr(DeviceBatch, "__init__", init)
    monkeypatch.setattr(stepping, "SLOTS", 16)
    engine = toy_engine()
    there, here = (sampled(engine, kind, monkeypatch) for kind in (DeviceBatch, Batch))
    assert [s.ids for s in there] == [s.ids for s in here]
    assert 2 <= len(captures) < 10 < len(replays)


@pytest.mark.parametrize("decoded", [True, False])
def test_no_step_waits_for_the_device(toy_engine, monkeypatch, decoded):
    """On `meta` a tensor has no numbers: whatever would read one (item, tolist, cpu, nonzero, bool) fails. A look does."""
    if not decoded:
        monkeypatch.setattr(Decoder, "of", classmethod(lambda cls, engine: None))
    autocast = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda kind, **k: nullcontext() if kind == "meta" else autocast(kind, **k))
    engine = toy_engine(lora_rank=4)
    engine.model.to("meta")
    engine.device = torch.device("meta")
    with torch.no_grad(), engine.precision():
        batch = DeviceBatch(HFSampler(engine), [0, 1, 2], PROMPTS[:3], 2, 20, 1.0, 0.9, 3, 0)
        batch._admit(list(range(6)))
        for _ in range(2):
            batch._steps()
        with pytest.raises(RuntimeError):
            batch._look()
