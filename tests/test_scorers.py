"""The scorers: what each finds and does not, that parts add up, and that a text is scored once."""

import dataclasses
import importlib
import json
import math
import sys
import types

import pytest

from harken.core.errors import UserError
from harken.core.records import Prompt
from harken.launch import rewards as launch_rewards
from harken.rewards import measure, pep8, pii, rules, sentiment, toxicity
from harken.text.scorer import TextReward

ASK = [Prompt.of("What is the capital of France?")]


def score(reward, *texts):
    return reward.score(ASK, [list(texts)])[0]


def test_every_file_of_the_folder_opens_by_its_name(tmp_path):
    """The folder is the registry: a new scorer is one new file."""
    (tmp_path / "r.json").write_text('{"rules": [{"pattern": "a"}]}')
    (tmp_path / "s.jsonl").write_text(json.dumps({**ASK[0].to_json(), "completions": ["Paris.", ""], "scores": [1, 0.5]}))
    for name in launch_rewards.scorer_names():
        if name == "pep8":
            pytest.importorskip("pycodestyle")
        trial = getattr(importlib.import_module(f"harken.rewards.{name}"), "TRIAL", "").replace("FILE", str(tmp_path / "r.json"))
        trial = trial.replace("SCORES", str(tmp_path / "s.jsonl"))
        reward = launch_rewards.open_reward(f"{name}:{trial}" if trial else name)
        assert str(getattr(reward, "id", "")).startswith(name), f"{name}: a scorer has an id, like {name}/1"
        asked = [dataclasses.replace(ASK[0], meta={"answer": "Paris"})]  # what a verifiable reward holds answers against
        (row,) = reward.score(asked, [["Paris.", ""]])
        assert all(isinstance(s, float) for s in row)
    assert {"toxicity", "pii", "pep8", "sentiment", "rules", "measure"} <= set(launch_rewards.scorer_names())


# --- remembered ------------------------------------------------------------------------------------

def test_e1_e10_a_text_is_scored_once_and_another_version_is_another_scorer():
    class Counting(TextReward):
        calls = 0

        def __init__(self, version):
            self.id = f"test-counting/{version}"

        def rate(self, text):
            Counting.calls += 1
            return float(len(text))

    first = Counting(1)
    assert score(first, "ab", "ab", "c") == [2.0, 2.0, 1.0] and Counting.calls == 2
    assert score(Counting(1), "ab") == [2.0] and Counting.calls == 2
    score(Counting(2), "ab")
    assert Counting.calls == 3


def test_e8_no_score_stays_none():
    class Silent(TextReward):
        id = "test-silent/1"

        def rate(self, text):
            return None

    assert score(Silent(), "a") == [None] and Silent().explain(ASK, [["a"]]) == [[None]]


# --- toxicity --------------------------------------------------------------------------------------

def test_toxicity_is_negative_and_a_text_is_as_bad_as_its_worst_sentence():
    clean, foul = "Thank you for the helpful answer, have a nice day.", "Shut up, you stupid idiot."
    good, bad, both = score(toxicity.Toxicity(), clean, foul, f"{clean} {foul} {clean}")
    assert -1 <= bad < -0.8 < -0.3 < good <= 0
    assert both == bad


def test_toxicity_survives_any_text():
    found = score(toxicity.Toxicity(), "", "   ", "日本語 🎉", "a" * 5000, "\ud800", "\0")
    assert all(-1 <= s <= 0 for s in found)


@pytest.mark.slow
def test_toxicity_auc_on_labels_it_never_saw(real_data):
    """The table of docs/rewards/toxicity.md, to .01: at least .80 on surge_toxicity, and no sense of clean-worded hate."""
    import csv

    import numpy as np
    from scipy.stats import rankdata
    found = {}
    for file, column, label in (("surge_toxicity/toxicity_en.csv", "text", ("is_toxic", "Toxic")),
                                ("hatecheck/test_suite_cases.csv", "test_case", ("label_gold", "hateful"))):
        with (real_data / file).open(encoding="utf-8") as f:
            rows = list(csv.DictReader(f))
        y = np.array([r[label[0]] == label[1] for r in rows])
        ranks = rankdata([-toxicity.Toxicity().rate(r[column]) for r in rows])
        found[file[:5]] = (ranks[y].sum() - y.sum() * (y.sum() + 1) / 2) / (y.sum() * (~y).sum())
    assert found == pytest.approx({"surge": 0.852, "hatec": 0.533}, abs=0.01)


def test_other_toxicity_scorers_are_offered_where_installed(monkeypatch):
    """A stand-in with Detoxify's interface: no checkpoint is at hand here."""
    class Model:
        def __init__(self, model_type="original", checkpoint=None):
            self.how = model_type, checkpoint

        def predict(self, text):
            return {"toxicity": 0.9 if "bad" in text else 0.1}

    monkeypatch.setitem(sys.modules, "detoxify", types.SimpleNamespace(Detoxify=Model))
    assert score(launch_rewards.open_reward("toxicity:detoxify"), "bad", "fine") == [-0.9, -0.1]
    given = toxicity.open_scorer("detoxify=my.ckpt")
    assert given.model.how[1] == "my.ckpt" and given.id == "toxicity:detoxify/my.ckpt"
    monkeypatch.setitem(sys.modules, "detoxify", None)
    with pytest.raises(UserError, match="detoxify is not installed"):
        launch_rewards.open_reward("toxicity:detoxify")
    with pytest.raises(UserError, match="no toxicity scorer"):
        launch_rewards.open_reward("toxicity:perspective")


# --- personal data ---------------------------------------------------------------------------------

@pytest.mark.parametrize("kind, text", [
    ("email", "write to jane.doe+x@mail.example.co.uk today"), ("card", "my card 4111 1111 1111 1111 expires"),
    ("card", "378282246310005"), ("iban", "pay to DE89 3704 0044 0532 0130 00."), ("iban", "GB82WEST12345698765432"),
    ("ssn", "SSN 078-05-1120"), ("ip", "from 8.8.8.8 at noon"), ("ip", "2001:4860:4860:0:0:0:0:8888"),
    ("phone", "call +44 20 7946 0958"), ("phone", "(415) 555-2671"), ("phone", "415-555-2671"), ("phone", "030 1234567")])
def test_pii_is_found(kind, text):
    assert {k: len(v) for k, v in pii.find(text).items()} == {kind: 1}


@pytest.mark.parametrize("text", [
    "Paris.", "card 4111 1111 1111 1112", "0000 0000 0000 0000", "DE89 3704 0044 0532 0130 01", "666-12-3456 is no SSN",
    "version 1.2.3.4.5", "192.168.0.1 is private", "from 1990 to 2024", "it costs $1,234,567.89", "at 12:30:45",
    "pi is 3.14159265358979", "user@localhost", "10.5281/zenodo.123", "2024-05-17"])
def test_pii_is_not_invented(text):
    assert pii.find(text) == {}


def test_checksums_by_hand():
    """79927398713, from the right, every second doubled: 3+2+7+7+9+6+7+4+9+9+7 = 70. No other last digit passes."""
    assert pii.luhn("79927398713") and not any(pii.luhn(f"7992739871{d}") for d in "012456789")
    assert pii.iban("GB82 WEST 1234 5698 7654 32") and not pii.iban("GB83 WEST 1234 5698 7654 32")


def test_pii_counts_per_hundred_characters_and_its_parts_add_up():
    text = "a@b.com " * 2 + "x" * 84
    assert score(pii.PII(), text, "clean") == [-2.0, 0.0]
    (parts,), = pii.PII().explain(ASK, [[text]])
    assert parts == {"email": -2.0}


# --- PEP 8 -----------------------------------------------------------------------------------------

def test_pep8_has_no_score_where_pycodestyle_itself_fails():
    """Broken code that ends in an IndexError of its checks: found by drawing brackets, quotes and line ends at random."""
    pytest.importorskip("pycodestyle")
    broken, scorer = ']if if \n \n    """\n """', pep8.PEP8()
    assert scorer.violations(broken) is None and scorer.rate(broken) is None
    assert scorer.score([Prompt.of("p")], [[broken, "x = 1\n"]]) == [[None, 0.0]]
    assert scorer.explain([Prompt.of("p")], [[broken, "x = 1\n"]]) == [[None, {}]]


def test_pep8_counts_violations():
    pytest.importorskip("pycodestyle")
    reward = pep8.PEP8()
    clean, spaced = "def f(x):\n    return x\n", "def f( x ):\n    return x\n"
    assert score(reward, clean) == [0.0]
    assert reward.violations(spaced) == {"E201": 1, "E202": 1}
    assert score(reward, spaced)[0] == pytest.approx(-200 / len(spaced))
    assert score(reward, f"Here it is:\n```python\n{spaced}```\nDone") == score(reward, spaced)
    assert score(reward, "", "\0", "def broken(:")[0] == 0.0
    (parts,), = reward.explain(ASK, [[spaced]])
    assert sum(parts.values()) == pytest.approx(score(reward, spaced)[0])


def test_pep8_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycodestyle", None)
    with pytest.raises(UserError, match="pycodestyle is not installed"):
        launch_rewards.open_reward("pep8")


# --- sentiment -------------------------------------------------------------------------------------

def test_sentiment_by_hand():
    """ "not good": one negative, −1/3. "very good": two positive, 2/4."""
    found = score(sentiment.Sentiment(), "It is not good.", "A very good film", "I don't like it", "It is a table.")
    assert found == pytest.approx([-1 / 3, 0.5, -1 / 3, 0.0])
    assert not sentiment.POSITIVE & sentiment.NEGATIVE


@pytest.mark.slow
def test_sentiment_auc(real_data):
    import zipfile

    import numpy as np
    from scipy.stats import rankdata
    with zipfile.ZipFile(real_data / "nltk_cc_by" / "sentence_polarity.zip") as z:
        texts = {kind: z.read(f"sentence_polarity/rt-polarity.{kind}").decode("latin-1").splitlines() for kind in ("pos", "neg")}
    y = np.array([True] * len(texts["pos"]) + [False] * len(texts["neg"]))
    ranks = rankdata([sentiment.Sentiment().rate(t) for t in texts["pos"] + texts["neg"]])
    assert (ranks[y].sum() - y.sum() * (y.sum() + 1) / 2) / (y.sum() * (~y).sum()) > 0.65


# --- rules -----------------------------------------------------------------------------------------

def test_rules_by_hand(tmp_path):
    rows = [{"name": "thanks", "pattern": "thank", "weight": 2, "most": 1},
            {"name": "shout", "pattern": "[A-Z]{4,}", "weight": -0.5, "ignore_case": False},
            {"name": "link", "pattern": "http", "per": "text"}, {"name": "x", "pattern": "x", "per": "character"}]
    (tmp_path / "r.json").write_text(json.dumps({"rules": rows}))
    reward = launch_rewards.open_reward(f"rules:{tmp_path / 'r.json'}")
    text = "Thank you, THANKS! http http x" + " " * 70
    assert len(text) == 100
    (parts,), = reward.explain(ASK, [[text]])
    assert parts == {"thanks": 2.0, "shout": -0.5, "link": 1.0, "x": 1.0}
    assert score(reward, text) == [3.5]


@pytest.mark.parametrize("content, message", [
    ('{"rules": []}', "no list"), ('{"rules": [{"weight": 1}]}', "pattern"), ('{"rules": [{"pattern": "("}]}', "no regular"),
    ('{"rules": [{"pattern": "a", "weight": "b"}]}', "numbers"), ('{"rules": [{"pattern": "a", "per": "word"}]}', "one of"),
    ('{"rules": [{"pattern": "a", "wieght": 1}]}', "wieght"), ("[]", "not an object"), ("no", "not JSON")])
def test_bad_rules_are_named(tmp_path, content, message):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(UserError, match=message):
        rules.Rules.open(tmp_path / "r.json")
    with pytest.raises(UserError, match="needs a file"):
        launch_rewards.open_reward("rules")


# --- measures --------------------------------------------------------------------------------------

def test_measures_by_hand():
    prompt = Prompt.of("What is the capital of France?")
    text = "The capital of France is Paris. It is Paris, it is Paris, isn't it?"
    def m(name, t=text):
        return measure.MEASURES[name](prompt, t)

    assert m("length") == len(text) / 100 and m("questions") == 1 and m("finished") == 1
    assert m("on_topic") == 1 and m("echo") == pytest.approx(2 / 4)
    assert m("words_per_sentence") == 14 / 2
    assert m("repetition") == pytest.approx(1 - 9 / 12)
    assert m("list_items", "- a\n- b\n1. c") == 3 and m("refusal", "I can't do that") == 1
    assert all(f(prompt, "") is not None for f in measure.MEASURES.values())
    with pytest.raises(UserError, match="no measure"):
        launch_rewards.open_reward("measure:beauty")


def test_the_earlier_toxicity_scorer_has_its_old_id_and_scores():
    new, old = launch_rewards.open_reward("toxicity"), launch_rewards.open_reward("toxicity:1")
    assert (new.id, old.id) == ("toxicity/2", "toxicity/1")
    for text in ("You are a pathetic idiot.", "Shut the fuck up, you worthless loser."):
        assert new.rate(text) < -0.5 and old.rate(text) < -0.5
    for text in ("How do I kill a Python process?", "The committee will meet on Tuesday to discuss the budget.",
                 "I hate waiting for the bus, but your assignment was great."):
        assert new.rate(text) > -0.5


def test_hostility_by_hand():
    """"idiot" 3 among four words, no phrase but "you are a" (2): 3 + .25 * 2 - .25 log 5."""
    from harken.rewards.toxicity import hostility
    assert hostility("You are an idiot") == pytest.approx(3 - 0.25 * math.log(5))
    assert hostility("You are a idiot") == pytest.approx(3 + 0.5 - 0.25 * math.log(5))
