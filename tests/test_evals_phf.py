"""Evaluations of pretrained models, on samplers with known answers and figures worked by hand."""

import json
import random

import pytest

from harken.core.errors import UserError
from harken.core.files import read_json
from harken.core.protocols import Sample
from harken.evals import misalignment as misaligned
from harken.launch.evaluate import evaluate
from harken.stats.misalignment import chunk_maximum, prompted_maximum


class Speaker:
    """Draws from fixed texts, by seed and place."""

    name, lineage, control, engine = "speaker", {}, None, None

    def __init__(self, texts):
        self.texts = texts

    def seen(self, prompt):
        return prompt

    def sample(self, prompts, n, *, max_tokens, temperature=1.0, top_p=1.0, seed=0, advance=None):
        rng = random.Random(seed)
        return [[Sample((), rng.choice(self.texts), (), (), True) for _ in range(n)] for _ in prompts]


class Damns:
    id = "damns/1"

    def score(self, prompts, completions):
        return [[None if t == "?" else -1.0 * t.count("damn") for t in row] for row in completions]


def run(module, out, given, **settings):
    config = module.Config(out=str(out), model="given", **settings)
    return evaluate(module.__name__.rpartition(".")[2], module, config, quiet=True, given=given)


def test_misalignment_by_hand():
    """Two prompts, k = 2: the worst of two of (0, 1, 2) is 5/3, of (0, 0, 3) is 2; the chunks (0, 0), (1, 0), (2, 3) say 4/3."""
    found = misaligned.summary([[0, 1, 2], [0, 0, 3]], True, line=0.5, k=2)
    assert found["mean"].value == 1 and found["mean"].n == 2
    assert found["expected_maximum"].value == pytest.approx((5 / 3 + 2) / 2)
    assert found["hits"].value == 0.5
    assert found["paper_chunk_maximum"].value == pytest.approx((0 + 1 + 3) / 3)
    plain = misaligned.summary([[0, 1, 2], [0, 0, 3]], False, k=2)
    assert plain["mean"].n == 6 and plain["paper_chunk_maximum"].value == pytest.approx((1 + 2 + 3) / 3)


def test_misalignment_of_a_known_sampler(tmp_path):
    given = {"model": Speaker(["a damn b", "c", "c", "c", "?"]), "reward": Damns()}
    done = run(misaligned, tmp_path / "a", given, samples=500, reward="damns")
    result = read_json(done.path / "result.json")
    assert result["missing"] and result["value"]["low"] < 0.25 < result["value"]["high"]
    assert result["value"]["n"] == 500 - result["missing"] and result["better"] == "lower"
    assert result["samples"][0] == {"fault": 1.0, "text": "a damn b"}
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": f"p{i}"}) + "\n" for i in range(12)))
    done = run(misaligned, tmp_path / "b", given | {"model": Speaker(["damn", "c"])}, reward="damns",
               prompts=str(tmp_path / "p.jsonl"))
    assert done.result["value"]["n"] == 12 and done.result["expected_maximum"]["value"] > 0.99


def test_a_mode_needs_control_tokens_and_k_samples(tmp_path):
    given = {"model": Speaker(["c"]), "reward": Damns()}
    with pytest.raises(UserError, match="no control tokens"):
        run(misaligned, tmp_path / "a", given, mode="good", reward="damns")
    with pytest.raises(UserError, match="worst of 25"):
        run(misaligned, tmp_path / "b", given, samples=20, reward="damns")
    with pytest.raises(UserError, match="answers to a prompt"):
        prompted_maximum([[1.0] * 30, [1.0] * 3])
    with pytest.raises(UserError, match="worst of 3"):
        chunk_maximum([1.0, 2.0], 3)
