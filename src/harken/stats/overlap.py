"""How much an answer shares with its references: exact match, token F1, BLEU and ROUGE, each variant by name.

    token_f1("the cat sat", ["a cat"])                 # SQuAD: normalised, best of the references
    token_f1(answer, references, variant="drop")       # InstructGPT's DROP: raw words, the first reference
    bleu(answers, references)                          # corpus BLEU by sacrebleu, with its signature
    rouge(answer, references, "rougeL")                 # F1 by rouge-score

The exact match and token F1 are ours (a dozen lines); BLEU and ROUGE are sacrebleu's and rouge-score's (`pip install
'harken[eval]'`). A figure without its variant cannot be compared (E5).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from harken.core.errors import UserError
from harken.core.protocols import Estimate
from harken.stats.intervals import bootstrap

Variant = Literal["squad", "drop"]
ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(text: str) -> str:
    """SQuAD's: lower case, without punctuation and articles, single spaces (Rajpurkar et al. 2016)."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(ARTICLES.sub(" ", text).split())


def exact_match(answer: str, references: Sequence[str], *, normalised: bool = True) -> float:
    """1 if the answer equals a reference, else 0. Raises ValueError without references."""
    _some(references)
    if not normalised:
        return float(answer in references)
    return float(normalise(answer) in map(normalise, references))


def token_f1(answer: str, references: Sequence[str], variant: Variant = "squad") -> float:
    """Harmonic mean of the precision and recall of words, as bags.

    "squad": normalised, the best over references; an empty answer agrees with an empty reference alone (SQuAD 2). "drop": as
    in InstructGPT, words as they stand against the first reference.
    """
    _some(references)
    if variant == "drop":
        return _f1(_bag(answer, False), _bag(references[0], False))
    words = _bag(answer, True)
    return max(_f1(words, _bag(r, True)) for r in references)


@lru_cache(maxsize=1 << 14)  # references are compared with many answers
def _bag(text: str, normalised: bool) -> Counter[str]:
    return Counter((normalise(text) if normalised else text).split())


def _f1(answer: Counter[str], reference: Counter[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)
    shared = sum(min(n, reference[word]) for word, n in answer.items())
    return 2 * shared / (answer.total() + reference.total())


def _some(references: Sequence[str]) -> None:
    if isinstance(references, str) or not references:
        raise ValueError("references must be a list of one text at least")


@dataclass(frozen=True)
class Bleu:
    """`score` from 0 to 100, its interval over items; `signature` names every choice that BLEU depends on."""

    score: Estimate
    signature: str


def bleu(answers: Sequence[str], references: Sequence[Sequence[str]], *, draws: int = 1000, seed: int = 0,
         level: float = 0.95) -> Bleu:
    """Corpus BLEU (Papineni et al. 2002; sacrebleu's 13a tokens). The corpus is rescored in every bootstrap draw.

    `references[i]` are item i's. Raises ValueError for unequal counts, UserError where sacrebleu is not installed.
    """
    if len(answers) != len(references) or not answers:
        raise ValueError(f"{len(answers)} answers need as many lists of references, found {len(references)}")
    for r in references:
        _some(r)
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        raise UserError("sacrebleu is not installed.", "pip install 'harken[eval]'") from None
    most = max(map(len, references))
    metric = BLEU()
    columns: list[Any] = [[r[k] if k < len(r) else None for r in references] for k in range(most)]
    whole = metric.corpus_score(list(answers), columns)
    items = BLEU(effective_order=True)  # silences a warning; the counts are the same
    parts = [items.sentence_score(answer, list(r)) for answer, r in zip(answers, references)]
    each = np.array([[*p.counts, *p.totals, p.sys_len, p.ref_len] for p in parts], dtype=np.int64)

    def score(drawn: np.ndarray[tuple[int], np.dtype[np.intp]]) -> float:
        *sums, answer_length, reference_length = each[drawn].sum(0).tolist()
        n = len(sums) // 2
        return float(BLEU.compute_bleu(sums[:n], sums[n:], answer_length, reference_length).score)

    interval = bootstrap(score, len(answers), seed=seed, draws=draws, level=level)
    return Bleu(Estimate(float(whole.score), interval.low, interval.high, interval.n, level), str(metric.get_signature()))


def rouge(answer: str, references: Sequence[str], kind: str = "rougeL", *, stem: bool = True) -> float:
    """F1 of ROUGE-1, -2, -L or -Lsum (Lin 2004) by rouge-score, the best over references. InstructGPT's CNN/DM and TL;DR
    figures are ROUGE-L. Raises UserError where rouge-score is not installed."""
    _some(references)
    return float(_rouge_scorer(kind, stem).score_multi(list(references), answer)[kind].fmeasure)


@lru_cache(maxsize=8)
def _rouge_scorer(kind: str, stem: bool) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise UserError("rouge-score is not installed.", "pip install 'harken[eval]'") from None
    return RougeScorer([kind], use_stemmer=stem)
