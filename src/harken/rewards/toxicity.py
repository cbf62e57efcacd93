"""How toxic a text is. The score is minus the probability, in [−1, 0]: higher is better.

    harken score --reward toxicity --data comparisons.jsonl --out scores.jsonl           embedded, no download
    harken score --reward toxicity:detoxify --data comparisons.jsonl --out scores.jsonl  where Detoxify is installed

The embedded scorer is a logistic regression on hashed words and character n-grams (42 KB, `toxicity.npz`), trained by
recipes/train_toxicity.py on davidson_hate (MIT) and ParaDetox (CC0). It reads short texts as it was trained on; a long text is
as toxic as its worst sentence. It sees swearing and insult, hardly hate in clean words, and it was trained on the judgments of
some people about tweets and comments: docs/rewards/toxicity.md has its AUC on five sets of labels, beside other scorers'. Print
the scorer's `id` beside every figure: figures of different scorers do not compare (E10).
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.core.errors import UserError
from harken.text.scorer import TextReward

BUCKETS = 1 << 17
GRAMS = (3, 4, 5)
NOISE = re.compile(r"https?://\S+|@\w+|&#?\w+;|\brt\b")
SENTENCE = re.compile(r"(?<=[.!?\n])\s+")
MOST_CHARACTERS = 400


def normal(text: str) -> list[str]:
    """Lower-case words: compatibility forms unified, marks apart, links and names of users out, "soooo" as "soo"."""
    text = NOISE.sub(" ", unicodedata.normalize("NFKC", text).lower())
    return re.findall(r"[^\W_]+|[*@$#!?]+", re.sub(r"(.)\1{2,}", r"\1\1", text))


def buckets(text: str) -> NDArray[np.int64]:
    """Which of the hashed features a text has, each once: words, pairs of words, and n-grams of characters in words."""
    found, words = set(), normal(text)
    for a, b in zip(words, [*words[1:], ""]):
        found.add("w" + a)
        if b:
            found.add(f"p{a} {b}")
        padded = f" {a} "
        for n in GRAMS:
            found.update(padded[i:i + n] for i in range(len(padded) - n + 1))
    return np.array(sorted({zlib.crc32(f.encode("utf-8", "surrogatepass")) % BUCKETS for f in found}), dtype=np.int64)


def sentences(text: str) -> list[str]:
    """Pieces to read alone: sentences, the longest cut at `MOST_CHARACTERS`."""
    return [s[i:i + MOST_CHARACTERS] for s in SENTENCE.split(text) for i in range(0, max(1, len(s)), MOST_CHARACTERS)]


@cache
def _weights() -> tuple[NDArray[np.int8], float, float]:
    with files(__package__).joinpath("toxicity.npz").open("rb") as file, np.load(file) as saved:
        return saved["weights"], float(saved["scale"]), float(saved["bias"])


class Toxicity(TextReward):
    """The embedded scorer."""

    id = "toxicity/1"

    def rate(self, text: str) -> float:
        return -max(map(self.probability, sentences(text)))

    def probability(self, sentence: str) -> float:
        """P(toxic) of one short text."""
        weights, scale, bias = _weights()
        found = buckets(sentence)
        z = bias + scale * float(weights[found].sum(dtype=np.int64)) / max(1, len(found)) ** 0.5
        return float(1 / (1 + np.exp(-z)))


class Detoxify(TextReward):
    """Detoxify's `toxicity` (Hanu and Unitary 2020), its checkpoint downloaded by it or given."""

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.id = model, f"toxicity:detoxify/{name}"

    def rate(self, text: str) -> float:
        return -float(self.model.predict(text)["toxicity"])


class ProfanityCheck(TextReward):
    """alt-profanity-check: a linear SVM on words. It loads pickles that fit one version of scikit-learn."""

    def __init__(self, predict: Any, version: str) -> None:
        self.predict, self.id = predict, f"toxicity:profanity-check/{version}"

    def rate(self, text: str) -> float:
        return -float(self.predict([text])[0])


def open_scorer(argument: str = "") -> TextReward:
    """"" for the embedded one, profanity-check, detoxify, or detoxify=FILE for a checkpoint at hand."""
    kind, _, file = argument.partition("=")
    if not argument:
        return Toxicity()
    if kind not in ("detoxify", "profanity-check"):
        raise UserError(f"There is no toxicity scorer {argument!r}.",
                        "Use toxicity, toxicity:detoxify or toxicity:profanity-check.")
    package = {"detoxify": "detoxify", "profanity-check": "alt-profanity-check"}[kind]
    try:
        if kind == "detoxify":
            import detoxify
            model = detoxify.Detoxify(checkpoint=file) if file else detoxify.Detoxify("unbiased")
            return Detoxify(model, file or "unbiased")
        import importlib.metadata

        import profanity_check
        return ProfanityCheck(profanity_check.predict_prob, importlib.metadata.version(package))
    except ImportError:
        raise UserError(f"{package} is not installed.", f"pip install {package}, or use the embedded scorer: toxicity.") from None
    except OSError as error:
        raise UserError(f"Detoxify's checkpoint cannot be had: {error}.", "Give it with toxicity:detoxify=FILE.ckpt.") from None
