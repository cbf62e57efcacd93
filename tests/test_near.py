"""Near-duplicates: MinHash against the exact Jaccard similarity, planted copies, and none among texts that differ."""

import random

import numpy as np
import pytest

from harken.store.near import HASHES, WORDS, near_duplicates, signature

VOCABULARY = [f"w{i}" for i in range(500)]


def text(rng, length=120):
    return " ".join(rng.choices(VOCABULARY, k=length))


def runs(words):
    words = words.split()
    return {tuple(words[i:i + WORDS]) for i in range(len(words) - WORDS + 1)}


def test_equal_minima_estimate_the_jaccard_similarity():
    rng = random.Random(0)
    errors = []
    for changed in (0, 2, 5, 12, 30):
        for _ in range(12):
            a = text(rng).split()
            b = list(a)
            for i in rng.sample(range(len(b)), changed):
                b[i] = "other" + str(i)
            x, y = runs(" ".join(a)), runs(" ".join(b))
            truth = len(x & y) / len(x | y)
            errors.append((signature(" ".join(a)) == signature(" ".join(b))).mean() - truth)
    assert abs(np.mean(errors)) < 3 * 0.5 / np.sqrt(len(errors) * HASHES)  # unbiased: a minimum is equal that often
    assert np.abs(errors).max() < 4 * 0.5 / np.sqrt(HASHES)


def test_planted_copies_are_found_and_others_are_not():
    rng = random.Random(1)
    texts = [text(rng) for _ in range(300)]
    nearly = [t.rsplit(" ", 3)[0] + " and so on" for t in texts[:20]]
    found = near_duplicates([(f"d{i}", t) for i, t in enumerate([*texts, *nearly, texts[50].upper()])])
    assert (found.documents, found.near, found.equal) == (321, 21, 1)
    assert found.examples[0][:2] == ("d300", "d0") and found.examples[0][2] >= 0.8
    assert near_duplicates([(str(i), t) for i, t in enumerate(texts)]).near == 0


@pytest.mark.parametrize("odd", ["", "one", "one two", "\ud800 lone surrogate", "…!?"])
def test_short_and_odd_texts(odd):
    assert near_duplicates([("a", odd), ("b", "quite another text of some words"), ("c", odd)]).near == 1


def test_nothing_is_left_behind(tmp_path):
    near_duplicates([("a", "x y z"), ("b", "x y z")], folder=tmp_path)
    assert not list(tmp_path.iterdir())
    assert near_duplicates([]).near == 0
