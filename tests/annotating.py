"""Corpora and scorers of the tests of annotating. Workers import them."""

import json
import random
import time
from pathlib import Path

from harken.text.segments import segments

WORDS = ["red", "blue", "green", "old", "Dr.", "new.", "warm!", "cold\n", "tall?"]


class Vowels:
    """Minus the share of vowels; says nothing of "skip", fails on "boom"."""

    id = "vowels/1"
    calls = 0

    def rate(self, text):
        Vowels.calls += 1
        if "boom" in text:
            raise ZeroDivisionError
        return None if "skip" in text else -sum(c in "aeiou" for c in text) / len(text)


class Whole(Vowels):
    """Sees the document: a segment's score is its number in it."""

    id = "whole/1"

    def rate_segments(self, text, ends):
        return [-float(i) if i != 1 else None for i in range(len(ends))]


class Numbered(Vowels):
    id = 5


class Slow(Vowels):
    id = "slow/1"

    def rate(self, text):
        time.sleep(0.002)
        return super().rate(text)


def some_texts():
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 60))) for _ in range(300)]


def rows(path, texts):
    path.write_text("".join(json.dumps({"id": f"d{i}", "text": t}) + "\n" for i, t in enumerate(texts)))
    return path


def contents(folder):
    """Bytes of everything but the memory of scores and the lock."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*"))
            if p.is_file() and p.name[0] != "." and not p.name.startswith("known.sqlite")}


def expected(texts, segmenter="sentence"):
    scorer = Vowels()
    return [[scorer.rate(s) for s in segments(t, segmenter)] for t in texts]
