"""A student imitates a reward, is fast, opens as one, and says from how much text on it pays."""

import json
import random

import numpy as np
import pytest

from harken.cli.main import main
from harken.core.errors import UserError
from harken.core.files import read_json
from harken.core.records import Message, Prompt
from harken.launch.rewards import open_reward, parse_reward
from harken.launch.scorers import open_scorer
from harken.loops.annotate import annotate
from harken.rewards.student import BUCKETS, features, fit, spearman, speed


def planted(prompts, completions):
    """Known truth: -1 a "bad", and a little for length; a "?" has no score."""
    return [None if "?" in t else -1.0 * t.count("bad") - 0.001 * len(t) for t in completions]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    rng, path = random.Random(0), tmp_path_factory.mktemp("student") / "t.jsonl"
    words = ["red", "blue", "new", "warm", "ship", "sea", "bad", "tree", "bed", "lad"]
    rows = [" ".join(" ".join(rng.choices(words, k=rng.randint(4, 9))) + "." for _ in range(6)) for _ in range(250)]
    path.write_text("".join(json.dumps({"text": r + (" why?" if i % 50 == 0 else "")}) + "\n" for i, r in enumerate(rows)))
    return path


def test_features_by_hand():
    """"aba" has the 1-grams a, b, a; 2-grams ab, ba; 3-gram aba: six, weighing 1/sqrt(6). Texts do not run into each other."""
    owner, bucket, scale = features(["aba", "", "a"])
    assert np.bincount(owner, minlength=3).tolist() == [6, 0, 1]
    assert scale == pytest.approx([6 ** -0.5, 1, 1]) and bucket.max() < BUCKETS
    first = bucket[owner == 0]
    assert len(set(first.tolist())) == 5 and bucket[owner == 2][0] in first
    assert features(["xaba"])[1].tolist() != features(["abax"])[1].tolist()


def test_spearman_by_hand():
    """Ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15) = .6."""
    assert spearman([1, 2, 3, 4] * 30, [2, 1, 4, 3] * 30).value == pytest.approx(0.6)


def test_the_break_even_by_hand():
    """Teacher 10 a second, student 1,000; 200 labelled cost 20 s and fitting 9.6 s: 29.6 / .099 segments."""
    found = speed({"teacher": 10.0, "student": 1000.0}, 200, 9.6, training_rate=5.0)
    assert found["break_even_segments"] == pytest.approx(29.6 / 0.099) and found["speed_up"] == 100
    assert found["share_of_pretraining"] == {"teacher": 0.5, "student": 0.005}
    assert speed({"teacher": 10.0, "student": 10.0}, 200, 1.0)["break_even_segments"] is None


def test_fit_recovers_a_planted_rule():
    rng = random.Random(1)
    texts = ["".join(rng.choices("abcd", k=12)) for _ in range(400)]
    y = [t.count("a") / 6 for t in texts]
    student = fit(texts[:300], y[:300], 0.03)
    assert np.corrcoef(student.rate_all(texts[300:]), y[300:])[0, 1] > 0.97
    assert student.rate_all(texts[:3]) == pytest.approx([student.rate(t) for t in texts[:3]])


def test_a_student_is_a_reward_and_a_scorer_of_corpora(texts, tmp_path, capsys):
    out = tmp_path / "small"
    command = ["fit", "student", "--reward", "test_student:planted", "--data", str(texts), "--out", str(out)]
    assert main(command) == 0
    result = read_json(out / "result.json")
    assert result["rank_correlation"]["low"] > 0.8 and result["missing"] == 1
    assert result["segments_a_second"].keys() == {"teacher", "student"}
    reward = open_reward(str(out))
    prompt = Prompt((Message("user", ""),))
    ((bad, good),) = reward.score([prompt], [["red bad ship bad sea.", "red blue ship new sea."]])
    assert bad < good - 0.5
    scorer = open_scorer(str(out))
    assert scorer.id == result["id"] and parse_reward(str(out)).identity()["weights"]
    found = annotate([texts], tmp_path / "annotated", lambda: open_scorer(str(out)))
    assert found.scorer == result["id"]
    assert main(command) == 0 and "nothing to do" in capsys.readouterr().err


def test_what_cannot_be_learnt_is_one_message(texts, tmp_path, capsys):
    (tmp_path / "few.txt").write_text("One. Two.\n\nThree. Four.")
    assert main(["fit", "student", "--reward", "test_student:planted", "--data", str(tmp_path / "few.txt"),
                 "--out", str(tmp_path / "a")]) == 2
    assert "at least 20" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    (tmp_path / "b" / "model").mkdir(parents=True)
    (tmp_path / "b" / "model" / "student.npz").write_text("damaged")
    with pytest.raises(UserError, match="damaged"):
        open_reward(str(tmp_path / "b"))
