"""How toxic a text is. The score is minus the probability, in [−1, 0]: higher is better.

    harken score --reward toxicity --data comparisons.jsonl --out scores.jsonl           embedded, no download
    harken score --reward toxicity:1 --data comparisons.jsonl --out scores.jsonl         the one of runs before this
    harken score --reward toxicity:detoxify --data comparisons.jsonl --out scores.jsonl  where Detoxify is installed

The embedded scorer adds two things up: how hostile or obscene its words are by a list of our own (`toxicity_words.txt`), and
a logistic regression on hashed words and character n-grams (`toxicity_2.npz`, 120 KB at most) that learnt what the list gets
wrong from davidson_hate (MIT) and HateCheck (CC BY 4.0), with model-written text as an example of harmless text
(recipes/train_toxicity.py). A text is as toxic as its worst sentence. It sees swearing, insult and some hate in clean words; it
was made from the judgments of some people about tweets and test cases in English: docs/rewards/toxicity.md has its AUC on sets
of labels it never saw, beside other scorers'. Print the scorer's `id` beside every figure: figures of different scorers do not
compare (E10). `toxicity:1` is the scorer of earlier runs, `toxicity/1`.
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
WORD = re.compile(r"[\w*'@$!-]+")


def normal(text: str) -> list[str]:
    """Lower-case words: compatibility forms unified, marks apart, links and names of users out, "soooo" as "soo"."""
    text = NOISE.sub(" ", unicodedata.normalize("NFKC", text).lower())
    return re.findall(r"[^\W_]+|[*@$#!?]+", re.sub(r"(.)\1{2,}", r"\1\1", text))


def buckets(text: str) -> NDArray[np.int64]:
    """Which of the hashed features a text has, each once: words, pairs of words, and n-grams of characters in words."""
    features, words = set(), normal(text)
    for a, b in zip(words, [*words[1:], ""]):
        features.add("w" + a)
        if b:
            features.add(f"p{a} {b}")
        padded = f" {a} "
        for n in GRAMS:
            features.update(padded[i:i + n] for i in range(len(padded) - n + 1))
    return np.array(sorted({zlib.crc32(f.encode("utf-8", "surrogatepass")) % BUCKETS for f in features}), dtype=np.int64)


def sentences(text: str) -> list[str]:
    """Pieces to read alone: sentences, the longest cut at `MOST_CHARACTERS`."""
    return [s[i:i + MOST_CHARACTERS] for s in SENTENCE.split(text) for i in range(0, max(1, len(s)), MOST_CHARACTERS)]


@cache
def _weights(name: str) -> tuple[NDArray[np.int8], float, float, float]:
    """The regression's weights, their scale, its intercept and what the word list counts for."""
    with files(__package__).joinpath(name).open("rb") as file, np.load(file) as saved:
        return saved["weights"], float(saved["scale"]), float(saved["bias"]), float(saved.get("words", 0.0))


@cache
def _words() -> tuple[dict[str, float], list[tuple[str, float]]]:
    """How hostile each word, and each phrase, is."""
    text = files(__package__).joinpath("toxicity_words.txt").read_text(encoding="utf-8")
    words, phrases = (part.split("\n") for part in text.split("\nwords\n")[1].split("\nphrases\n"))
    weights = {w: float(weight) for line in words for weight, *listed in [line.split()] for w in listed}
    pairs = [line.split(" ", 1) for line in phrases if line]
    return weights, [(p.strip(), float(weight)) for weight, listed in pairs for p in listed.split("|")]


def hostility(text: str) -> float:
    """The worst word's weight, a quarter of the next five's and half the worst phrase's, less for each doubling of length:
    what one curse among few words says, it says less of among many."""
    table, phrases = _words()
    text = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    found = WORD.findall(text)
    weights = sorted((x for w in found if (x := table.get(w) or table.get(w.strip("!'-").removesuffix("'s"), 0.0))), reverse=True)
    spaced = f" {' '.join(found)} "
    worst = max((x for p, x in phrases if f" {p} " in spaced), default=0.0)
    return sum(weights[:1]) + 0.25 * sum(weights[1:6]) + 0.25 * worst - 0.25 * float(np.log1p(len(found)))


class Toxicity(TextReward):
    """The embedded scorer."""

    id, file = "toxicity/2", "toxicity_2.npz"

    def rate(self, text: str) -> float:
        return -max(map(self.probability, sentences(text)))

    def probability(self, sentence: str) -> float:
        """P(toxic) of one short text."""
        weights, scale, bias, words = _weights(self.file)
        features = buckets(sentence)
        z = bias + scale * float(weights[features].sum(dtype=np.int64)) / max(1, len(features)) ** 0.5
        if words:
            z += words * hostility(sentence)
        return float(1 / (1 + np.exp(-z)))


class EarlierToxicity(Toxicity):
    """The scorer of runs before `toxicity/2`: no list of words, learnt from davidson_hate and ParaDetox."""

    id, file = "toxicity/1", "toxicity.npz"


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
    """"" for the embedded one, 1 for that of earlier runs, profanity-check, detoxify, or detoxify=FILE for a checkpoint."""
    kind, _, file = argument.partition("=")
    if argument in ("", "1"):
        return EarlierToxicity() if argument else Toxicity()
    if kind not in ("detoxify", "profanity-check"):
        raise UserError(f"There is no toxicity scorer {argument!r}.",
                        "Use toxicity, toxicity:1, toxicity:detoxify or toxicity:profanity-check.")
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
