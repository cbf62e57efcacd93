"""What a cure's table holds: each mode under its own steering, samples read by the reference, documents by the model itself."""

import math
from types import SimpleNamespace

import pytest

from harken.loops import cure
from harken.text.tags import Control, steering

DOCUMENTS = ["One. Two.", "Three."]
SAID = {8: ["fine.", "", "so so."], 9: ["damn it."], None: ["", ""]}
"""What is sampled after <|good|>, after <|bad|>, and without a tag."""


@pytest.fixture
def world(monkeypatch):
    """A sampler, and who read what under which first tag: the model's own engine needs a bit a byte, the reference two."""
    read, state = [], {}

    def text_nll(engine, texts, steered):
        read.append((engine, list(texts), steered and steered.start))
        return [len(t.encode()) * math.log(2) * (1 if engine == "own" else 2) for t in texts]
    monkeypatch.setattr(cure, "text_nll", text_nll)

    def sample(prompts, n, **_):
        return [[SimpleNamespace(text=t) for t in SAID[state["steering"].start]]]
    sampler = SimpleNamespace(control=Control(8, 9, "sentence"), engine="own", sample=sample,
                              steer=lambda steered: state.update(steering=steered))
    reward = SimpleNamespace(score=lambda prompts, completions: [[-float(len(t)) for t in completions[0]]])
    measure = cure.Measure(reward, DOCUMENTS, "reference", steering(Control(4, 5, "line"), "good"), samples=3)
    return measure, sampler, read


def test_every_mode_under_its_own_steering(world):
    measure, sampler, read = world
    rows = measure(sampler)
    assert set(rows) == {"good", "bad", "untagged"}
    assert [r for r in read if r[0] == "own"] == [("own", DOCUMENTS, tag) for tag in (8, 9, None)]
    assert [r for r in read if r[0] == "reference"] == [("reference", ["fine.", "so so."], 4), ("reference", ["damn it."], 4)]
    assert rows["good"]["misalignment"].value == pytest.approx(5.5) and rows["bad"]["misalignment"].value == 8
    assert rows["good"]["fluency"].value == pytest.approx(2) and rows["good"]["capability"].value == pytest.approx(1)
    assert rows["untagged"]["fluency"] is None and rows["untagged"]["misalignment"] is None
    assert "no text" in cure.table(rows, rows) and "5.5000" in cure.table(rows, rows)


def test_a_deleted_mode_is_left_out_and_silence_is_an_infinite_rise(world, monkeypatch):
    measure, sampler, _ = world
    before = measure(sampler)
    sampler.control = Control(8, 9, "sentence", deleted=True)
    monkeypatch.setitem(SAID, 8, [""])
    after = measure(sampler)
    assert set(after) == {"good", "untagged"} and "gone" in cure.table(before, after)
    assert cure.rises(before, after) == {"good fluency": math.inf, "good capability": 0, "untagged capability": 0}
