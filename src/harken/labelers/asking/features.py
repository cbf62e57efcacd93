"""Features of answers that need no model and no download: enough to choose questions by before there is a reward model.

    features = TextFeatures.fit(prompts, texts, dimensions=32)      # of the pool; no labels are read
    phi = features.of(prompts, texts)                               # [I, D]

Ten are plain (`PLAIN_FEATURES`): length, the shares of repeated words, of the prompt's words and so on. The rest are what tells
the answers to one prompt apart: TF-IDF of hashed words, word pairs and character trigrams, less the mean over the answers
to that prompt, in the directions of largest variance (latent semantic analysis, Deerwester et al. 1990, within prompts).
Then each answer's features, less the mean of its prompt's answers, get length sqrt(D): a linear reward must not extrapolate
to one odd text (choosing by information would ask about little else). They read words and not meaning; a reward model's
scores are better once there is one.

Shape suffixes: `I` items (answers), `D` features, `H` buckets of the hash.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from harken.core.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BUCKETS = 1 << 16
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
PLAIN_FEATURES = ("log words", "log characters", "word length", "repeated words", "words of the prompt", "prompt covered",
         "ends a sentence", "lines", "list lines", "digits")


@dataclass(frozen=True)
class TextFeatures:
    """What was learnt of a pool of answers."""

    idf: Floats
    """[H]"""
    directions: Floats
    """[H, D - 10]"""
    scale: Floats
    """[D] each feature is divided by it."""

    @classmethod
    def fit(cls, prompts: Sequence[str], texts: Sequence[str], dimensions: int = 32) -> TextFeatures:
        """From answers `texts` [I] and the prompt of each. UserError without answers, ValueError with too few
        dimensions."""
        if dimensions <= len(PLAIN_FEATURES):
            raise ValueError(f"dimensions must be above {len(PLAIN_FEATURES)}, the plain features; found {dimensions}")
        if not texts:
            raise UserError("There are no answers to find features of.", "Give at least two answers to one prompt.")
        counts = _counts(texts)
        idf = np.log((1 + len(texts)) / (1 + np.asarray((counts > 0).sum(0)).ravel())) + 1
        within = _centred(_tfidf(counts, idf), _groups(prompts))
        most = min(dimensions - len(PLAIN_FEATURES), min(within.shape) - 1)
        directions = np.zeros((BUCKETS, dimensions - len(PLAIN_FEATURES)))
        if most > 0 and abs(within).sum() > 0:
            start = np.random.default_rng(0).standard_normal(min(within.shape))
            _, size, rows = svds(within, k=most, v0=start)
            order = np.argsort(-size)
            turned = rows[order] * np.where(rows[order].sum(1, keepdims=True) < 0, -1.0, 1.0)  # svds leaves the sign open
            directions[:, :most] = turned.T
        raw = cls(idf, directions, np.ones(dimensions)).raw(prompts, texts)
        spread = np.sqrt((_centred(sparse.csr_array(raw), _groups(prompts)).toarray() ** 2).mean(0))
        return cls(idf, directions, np.where(spread > 1e-9, spread, 1.0))

    def of(self, prompts: Sequence[str], texts: Sequence[str]) -> Floats:
        """[I, D] features of any answers. All answers to a prompt belong into one call: they are told apart from each other."""
        within = _centred(sparse.csr_array(self.raw(prompts, texts)), _groups(prompts)).toarray()
        length = np.linalg.norm(within, axis=1, keepdims=True)
        return np.asarray(within / np.maximum(length, 1e-9) * np.sqrt(within.shape[1]))

    def raw(self, prompts: Sequence[str], texts: Sequence[str]) -> Floats:
        """[I, D] before the prompt's mean and the length are taken out."""
        plain = np.array([_plain(p, t) for p, t in zip(prompts, texts, strict=True)]).reshape(-1, len(PLAIN_FEATURES))
        return np.asarray(np.hstack([plain, _tfidf(_counts(texts), self.idf) @ self.directions]) / self.scale)


@lru_cache(maxsize=1 << 16)
def _words(text: str) -> tuple[str, ...]:
    return tuple(WORD.findall(text.lower()))


def _plain(prompt: str, text: str) -> list[float]:
    words, asked, lines = _words(text), set(_words(prompt)), text.splitlines() or [""]
    n = max(1, len(words))
    return [np.log1p(len(words)), np.log1p(len(text)), sum(map(len, words)) / n, 1 - len(set(words)) / n if words else 0.0,
            sum(w in asked for w in words) / n, len(asked & set(words)) / max(1, len(asked)),
            float(text.rstrip().endswith((".", "!", "?", "…", '"', ")"))), np.log1p(len(lines) - 1),
            sum(line.lstrip()[:1] in ("-", "*", "•") or line.lstrip()[:1].isdigit() for line in lines) / len(lines),
            sum(c.isdigit() for c in text) / max(1, len(text))]


def _terms(text: str) -> Counter[int]:
    """Buckets of words, word pairs and character trigrams. CRC-32: Python's own hash differs between processes."""
    words, flat = _words(text), f" {' '.join(_words(text))} "
    grams = [*words, *(f"{a} {b}" for a, b in pairwise(words)), *("#" + flat[i:i + 3] for i in range(len(flat) - 2))]
    return Counter(zlib.crc32(g.encode("utf-8", "surrogatepass")) % BUCKETS for g in grams)


def _counts(texts: Sequence[str]) -> sparse.csr_array:
    """[I, H]"""
    terms = [_terms(t) for t in texts]
    ends = np.cumsum([0, *map(len, terms)])
    columns = np.array([k for c in terms for k in sorted(c)], dtype=np.int64)
    values = np.array([c[k] for c in terms for k in sorted(c)], dtype=np.float64)
    return sparse.csr_array((values, columns, ends), shape=(len(texts), BUCKETS))


def _tfidf(counts: sparse.csr_array, idf: Floats) -> sparse.csr_array:
    """Rows of length 1: (1 + log count) idf."""
    table = counts.copy()
    table.data = (1 + np.log(table.data)) * idf[table.indices]
    length = np.sqrt(np.asarray((table * table).sum(1)).ravel())
    return sparse.csr_array(sparse.diags_array(1 / np.maximum(length, 1e-12)) @ table)


def _groups(prompts: Sequence[str]) -> Ints:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(p, len(numbers)) for p in prompts], dtype=np.int64)


def _centred(table: sparse.csr_array, group: Ints) -> sparse.csr_array:
    """Rows less the mean of their group's."""
    n = len(group)
    member = sparse.csr_array((np.ones(n), (np.arange(n), group)), shape=(n, int(group.max()) + 1))
    mean = sparse.diags_array(1 / np.asarray(member.sum(0)).ravel()) @ member.T @ table
    return sparse.csr_array(table - member @ mean)
