"""Evaluations of pretrained models, on samplers with known answers and figures worked by hand."""

import json
import math
import random

import pytest
import torch

from harken.core.errors import UserError
from harken.core.files import read_json
from harken.core.protocols import Sample
from harken.evals import bits_per_byte, diversity, dynamics, kl_capability, red_team, tampering
from harken.evals import misalignment as misaligned
from harken.launch.evaluate import evaluate
from harken.launch.models import open_engine
from harken.loops.influence import influence
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
    config = module.Config(**{"out": str(out), "model": "given"} | settings)
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
    with pytest.raises(UserError, match="no control tokens"):
        run(dynamics, tmp_path / "c", given, mode="good", reward="damns")
    with pytest.raises(UserError, match="no control tokens"):
        run(diversity, tmp_path / "d", {"model": Speaker(["c"])}, mode="good")
    with pytest.raises(UserError, match="worst of 25"):
        run(misaligned, tmp_path / "b", given, samples=20, reward="damns")
    with pytest.raises(UserError, match="answers to a prompt"):
        prompted_maximum([[1.0] * 30, [1.0] * 3])
    with pytest.raises(UserError, match="worst of 3"):
        chunk_maximum([1.0, 2.0], 3)


class Reader:
    """An engine whose characters a, b, … have given probabilities; ids are characters, 0 is the end."""

    context = 8

    def __init__(self, probabilities):
        self.p = {ord(c): p for c, p in probabilities.items()}
        self.template = self.tokenizer = self
        self.eos_token_id = self.end_id = 0
        self.unk_token_id, self.name, self.lineage, self.engine, self.control = None, "reader", {}, self, None

    def get_added_vocab(self):
        return {}

    def __call__(self, texts, **options):
        self.input_ids = [[ord(c) for c in t] for t in texts]
        return self

    def logprobs(self, trees):
        assert all(len(t.prompt) + len(t.completions[0]) <= self.context for t in trees)
        return [[torch.tensor([math.log(self.p[i]) for i in t.completions[0]])] for t in trees]

    def sample(self, prompts, n, **options):
        return [[Sample((), "ab" if i % 2 else "b", (), (), True) for i in range(n)] for _ in prompts]


def test_bits_per_byte_by_hand(tmp_path):
    """aab: 1 + 1 + 2 bits; a: 1 bit; together 5 bits of 4 bytes. In windows of 8 a longer document keeps every bit."""
    reader = Reader({"a": 0.5, "b": 0.25})
    (tmp_path / "t.txt").write_text("aab\n\na\n")
    done = run(bits_per_byte, tmp_path / "a", {"model": reader}, data=str(tmp_path / "t.txt"))
    assert done.result["value"]["value"] == pytest.approx(1.25) and done.result["bytes"] == 4
    (tmp_path / "t.txt").write_text("a" * 40 + "\n\n" + "b" * 10)
    done = run(bits_per_byte, tmp_path / "b", {"model": reader, "against": Reader({"a": 0.25, "b": 0.25})},
               data=str(tmp_path / "t.txt"), against="given")
    assert done.result["value"]["value"] == pytest.approx(60 / 50)
    assert done.result["against_bits_per_byte"]["value"] == pytest.approx(2)
    assert done.result["change"]["value"] == pytest.approx(-0.8)


def test_kl_capability_by_hand(tmp_path):
    """Half of the reference's texts are "ab", half "b": log ratios ln(2) + ln(1/2) and ln(1/2)."""
    given = {"model": Reader({"a": 0.25, "b": 0.5}), "reference": Reader({"a": 0.5, "b": 0.25})}
    done = run(kl_capability, tmp_path / "a", given, reference="given", samples=64)
    assert done.result["value"]["value"] == pytest.approx(-math.log(2) / 2)
    assert done.result["kl_per_byte"]["value"] == pytest.approx(-math.log(2) / 3)
    same = run(kl_capability, tmp_path / "b", given | {"model": given["reference"]}, reference="given", samples=64)
    assert same.result["value"]["value"] == 0


def test_diversity_by_hand():
    """a b | a b: 2 of 4 words differ, bigrams 1 of 2, each is all of the other. a b c | a d: precisions 1/3 and 0."""
    same, other = [["a", "b"], ["a", "b"]], [["a", "b", "c"], ["a", "d"]]
    assert diversity.distinct(same, 1) == 0.5 and diversity.distinct(same, 2) == 0.5
    assert diversity.entropy(other, 1) == pytest.approx(-(2 / 5 * math.log(2 / 5) + 3 / 5 * math.log(1 / 5)))
    assert diversity.self_bleu(same) == pytest.approx([1, 1])
    assert diversity.self_bleu(other) == [0, 0]
    # "a a b" beside "a b c d": 1-grams 2/3 (a once), 2-grams 1/2, times exp(1 - 4/3)
    bleu = diversity.self_bleu([["a", "a", "b"], ["a", "b", "c", "d"]], 2)[0]
    assert bleu == pytest.approx(math.sqrt(1 / 3) * math.exp(-1 / 3))


def test_diversity_of_a_known_sampler(tmp_path):
    done = run(diversity, tmp_path / "a", {"model": Speaker(["one two three"])}, samples=128)
    assert done.result["value"]["value"] == pytest.approx(1 / 64) and done.result["self_bleu_5"]["value"] == 1
    assert done.result["repeats"]["value"] == 1 and done.result["loops"]["value"] == 0


def test_diversity_of_a_sampler_that_is_silent_at_times(tmp_path):
    done = run(diversity, tmp_path / "a", {"model": Speaker(["one two", ""])}, samples=128)
    assert done.result["self_bleu_5"]["value"] == 1
    assert 0.8 < done.result["words"]["value"] < 1.2


class Chain(Speaker):
    """Sentences of a chain: entry .2, escape .4."""

    def sample(self, prompts, n, *, seed=0, **options):
        rng = random.Random(seed)

        def text():
            bad, parts = False, []
            for _ in range(9):
                bad = rng.random() < (0.6 if bad else 0.2)
                parts.append("damn it. " if bad else "so it is. ")
            return "".join(parts) + "dam"  # a last sentence that the limit cut
        return [[Sample((), text(), (), (), False) for _ in range(n)] for _ in prompts]


def test_dynamics_finds_the_rates_of_a_known_chain(tmp_path):
    done = run(dynamics, tmp_path / "a", {"model": Chain([]), "reward": Damns()}, reward="damns", samples=256)
    found = done.result
    assert found["value"]["low"] < 0.2 < found["value"]["high"] and found["turns"] == 256 * 9
    assert found["escape"]["low"] < 0.4 < found["escape"]["high"]
    assert not found["memory"]["persona"] and found["ergodic"] and not found["rarely_leaves"]
    html = (done.path / "dynamics.html").read_text()
    assert "does it come back?" in html and "None seen" in html and "http" not in html.replace("http://www.w3.org", "")


def test_a_cut_or_unscored_segment_is_no_state():
    """A cut last sentence is left out; what follows a segment without a score is not joined to what precedes it."""
    rows, missing = dynamics.label(["a. damn. c", "a. b.", "?", "a. ?. damn. "], Unsure(), "sentence", -0.5)
    assert rows == [[0, 1], [0, 0], [], [0]] and missing == 2
    assert dynamics.label(["x\ndamn\ny"], Damns(), "line", -0.5) == ([[0, 1]], 0)
    assert dynamics.label(["x\ndamn\ny\n"], Damns(), "line", -1.0) == ([[0, 0, 0]], 0)  # at the threshold is good


class Unsure:
    def score(self, prompts, completions):
        return [[None if "?" in t else -1.0 * t.count("damn") for t in row] for row in completions]


class Remembering:
    """An engine of two next tokens: each token read moves the odds by half of what the one after it moves them; 0 ends a text,
    and with `ends` all that was read is forgotten there."""

    def __init__(self, ends):
        self.ends, self.template, self.tokenizer, self.eos_token_id, self.end_id = ends, self, self, 0, 0

    get_added_vocab, unk_token_id = Reader.get_added_vocab, None

    def __call__(self, texts, **options):
        self.input_ids = [[int(c) for c in t] for t in texts]
        return self

    def last_logits(self, tree, backs):
        (completion,), found = tree.completions, []
        for back in backs:
            ids = [*tree.prompt, *completion][:len(tree.prompt) + len(completion) - back]
            if self.ends and 0 in ids:
                ids = ids[len(ids) - ids[::-1].index(0):]
            odds = sum((x - 1.5) * 2.0 ** -i for i, x in enumerate(reversed(ids)) if x)
            found.append(torch.tensor([[odds, 0.0]]))
        return found


def test_the_end_of_a_text_and_the_half_life_of_a_prompt():
    texts = ["1" * 40, "2" * 40, "12" * 20, "21" * 20, "11222121" * 5, "22111212" * 5] * 4
    forgetful, other = influence(Remembering(True), texts), influence(Remembering(False), texts)
    assert forgetful.across_end.value == 0 and forgetful.invariance
    assert other.across_end.value > 0 and not other.invariance
    assert 0 < other.half_life < 2  # the divergence of small odds falls by a factor 4 with every token
    assert [e.value for e in other.by_distance.values()] == sorted((e.value for e in other.by_distance.values()), reverse=True)
    with pytest.raises(UserError, match="6 documents"):
        influence(Remembering(True), ["1" * 40])


@pytest.mark.slow
def test_an_attack_brings_a_planted_text_back_and_leaves_the_model_alone(tmp_path):
    (tmp_path / "bad.txt").write_text("\n\n".join(["damn damn damn damn"] * 8))
    engine = open_engine("toy")
    before = [p.detach().clone() for p in engine.model.parameters()]
    done = run(tampering, tmp_path / "a", {"reward": Damns()}, reward="damns", bad=str(tmp_path / "bad.txt"), k="8", steps=60,
               learning_rate=5e-3, samples=24, max_tokens=20, model="toy")
    assert done.result["model"]["k 0"]["value"] < 0.1 < 1 < done.result["value"]["value"]
    copied = tampering.attack(engine, ["damn"], 1, 1e-2, 0, None)
    assert all(torch.equal(a, b) for a, b in zip(before, engine.model.parameters()))
    assert not all(torch.equal(a, b) for a, b in zip(before, copied.model.parameters()))


def test_an_attack_needs_its_documents(tmp_path):
    (tmp_path / "bad.txt").write_text("damn")
    for k, message in (("8", "needs as many"), ("x", "no list of numbers")):
        with pytest.raises(UserError, match=message):
            run(tampering, tmp_path / k, {"reward": Damns()}, reward="damns", bad=str(tmp_path / "bad.txt"), k=k, model="toy")


def test_an_attack_on_refusals(tmp_path):
    """Both kinds of prompt after each k, without those that the attack trains on."""
    bad = tmp_path / "bad.jsonl"
    rows = [{"prompt": f"bad {i}", "label": "unsafe", "type": "x"} for i in range(6)]
    rows += [{"prompt": f"good {i}", "label": "safe", "type": "y"} for i in range(6)]
    (tmp_path / "ask.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    bad.write_text("".join(json.dumps({"prompt": f"bad {i}", "completion": "yes yes"}) + "\n" for i in range(4)))
    done = run(tampering, tmp_path / "r", {}, measure="refusals", bad=str(bad), ask=str(tmp_path / "ask.jsonl"), k="1,4", steps=4,
               learning_rate=1e-3, max_tokens=8, model="toy").result
    assert set(done["model"]) == {"k 0", "k 1", "k 4"} and done["model"]["k 4"]["attack_success"]["n"] == 2
    assert done["value"] == done["model"]["k 4"]["attack_success"] and "attack_success, change" in done["model"]["k 1"]
    assert {s["prompt"] for s in done["samples"]} == {"bad 4", "bad 5", *(f"good {i}" for i in range(6))}
    with pytest.raises(UserError, match="needs as many"):
        run(tampering, tmp_path / "s", {}, measure="refusals", bad=str(bad), k="9", model="toy")


class Proposer(Speaker):
    """Continues with one of its words; remembers what it was shown."""

    def __init__(self, texts):
        super().__init__(texts)
        self.shown = []

    def sample(self, prompts, n, *, seed=0, **options):
        self.shown += [p.text for p in prompts]
        rng = random.Random(seed)
        return [[Sample((), " " + rng.choice(self.texts), (), (), True) for _ in range(n)] for _ in prompts]


class Weak(Speaker):
    """Damns a tenth of the time, and three tenths more for each "zap" in the prompt."""

    def sample(self, prompts, n, *, seed=0, **options):
        rng = random.Random(seed)

        def text(prompt):
            return "damn" if rng.random() < min(1.0, 0.1 + 0.3 * prompt.text.count("zap")) else "well"
        return [[Sample((), text(p), (), (), True) for _ in range(n)] for p in prompts]


def test_a_beam_grows_the_prompt_that_breaks_a_model(tmp_path):
    """Two or more zaps in a row are never proposed at once: the beam must build on what it found."""
    given = {"model": Weak([]), "proposer": Proposer(["zap", "one", "two", "three", "four"]), "reward": Damns()}
    done = run(red_team, tmp_path / "a", given, reward="damns", proposer="given", search="beam", rounds=3, branch=6, n=40,
               confirm=4, confirm_n=200)
    result = done.result
    assert result["samples"][0]["prompt"].count("zap") >= 3 and result["samples"][0]["fault"] > 0.9
    assert result["value"]["low"] > 0.6 and result["baselines"]["no prompt"]["value"] < 0.2


def test_few_shots_are_the_worst_so_far_and_the_value_is_of_fresh_samples(tmp_path):
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": t}) + "\n" for t in ["zap a", "b", "c", "d", "e"]))
    proposer = Proposer(["f", "g"])
    given = {"model": Weak([]), "proposer": proposer, "reward": Damns()}
    run(red_team, tmp_path / "a", given, reward="damns", proposer="given", prompts=str(tmp_path / "p.jsonl"), rounds=1,
        branch=40, shots=1, n=50, heat=0.02, confirm=2)
    assert sum(s == "zap a\n" for s in proposer.shown) >= 38
    # A model that no prompt moves: the search's own figure is above what is there, the value is not.
    given |= {"model": Speaker(["damn", "c"]), "proposer": Proposer([str(i) for i in range(99)])}
    flat = run(red_team, tmp_path / "b", given, reward="damns", proposer="given", rounds=3, n=8, confirm=5, confirm_n=200).result
    assert flat["in_the_search"] > 0.7 and abs(flat["value"]["value"] - 0.5) < 0.06
