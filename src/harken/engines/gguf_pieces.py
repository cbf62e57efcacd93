"""SentencePiece's BPE with byte fallback (Llama 2's and Mistral's kind) as llama.cpp computes it: by scores, not by merges.

Both join the best pair of neighbours until none is left. Tokenizers know pairs by rank; llama.cpp joins any two neighbours whose
union is a token, the one with the highest score first and the leftmost of equals, as SentencePiece does. They are the same where
every way to part a token into two tokens is a merge, and where the merges of a token follow one another: both are checked.
(Where two merges of one token overlap, as in an-a-na, SentencePiece takes the left one, and a list of merges the first.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

BLANK = "\u2581"
BYTE = re.compile("<0x[0-9A-F]{2}>")
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
LAST = -1e6
"""The score of tokens that nothing is joined into."""


def prefixed(described: dict[str, Any]) -> bool | None:
    """Whether a blank is put before every text, of a tokenizer of this kind; None where it is of another."""
    model, pre = described.get("model") or {}, described.get("pre_tokenizer")
    if model.get("type") != "BPE" or not model.get("byte_fallback") or model.get("dropout") or model.get("ignore_merges"):
        return None
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return None
    normalizer = described.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    if pre is None and steps == [{"type": "Prepend", "prepend": BLANK}, REPLACE]:
        prefix = True
    elif pre is None and steps == [REPLACE]:
        prefix = False
    else:
        return None
    vocabulary = set(model["vocab"])
    whole = {f"<0x{b:02X}>" for b in range(256)} <= vocabulary
    return prefix if whole and _joins_alike(described, vocabulary) else None


def _merges(described: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = [m.split(" ") if isinstance(m, str) else m for m in described["model"]["merges"]]
    return [(a, b) for a, b in pairs]


def _joins_alike(described: dict[str, Any], vocabulary: set[str]) -> bool:
    """Whether joining by the best token is joining by the first merge."""
    merges = _merges(described)
    known = set(merges)
    for token in vocabulary:
        if BYTE.fullmatch(token) or (described["model"].get("unk_token") == token):
            continue
        parts = [(token[:i], token[i:]) for i in range(1, len(token))]
        if any(a in vocabulary and b in vocabulary and (a, b) not in known for a, b in parts):
            return False
    order = [a + b for a, b in merges]
    return sum(x != y for x, y in zip(order, ["", *order])) == len(set(order))


def scores(described: dict[str, Any], tokens: Sequence[str]) -> list[float]:
    """A score for each token: the earlier its merges, the higher."""
    places = {token: i for i, token in enumerate(dict.fromkeys(a + b for a, b in _merges(described)))}
    return [-float(places[token]) if token in places else LAST for token in tokens]
