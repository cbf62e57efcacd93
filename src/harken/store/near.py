"""Documents that are nearly the same, found by MinHash (Broder 1997): reported, and left where they are.

    near_duplicates(texts(Annotated("annotated")), least=0.8)

A document is the set of its runs of `WORDS` words in a row, in lower case. Two documents' share of equal minima among `HASHES`
estimates the Jaccard similarity of their sets. Candidates share all minima of one of `BANDS` bands: of pairs at similarity .8
one in 4,000 has none, (1 - .8^4)^16; that the similarity itself is an estimate (± .1) misses more of those near the line. A
document is compared with the first of its candidates in the order of the corpus. Signatures lie in a file that is removed at
the end: at its peak memory is about 430 bytes a document, 256 of them pages of that file.
"""

from __future__ import annotations

import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HASHES, BANDS = 64, 16
ROWS = HASHES // BANDS
WORDS = 3
EXAMPLES = 3
_PRIME = np.uint64(2**31 - 1)
_rng = np.random.default_rng(20260101)
_A = _rng.integers(1, 2**31 - 1, HASHES, dtype=np.uint64)
_B = _rng.integers(0, 2**31 - 1, HASHES, dtype=np.uint64)
_MOST = 4096
"""Runs of words hashed at once, so that a book does not take its length times 64."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Near:
    """`near` documents resemble an earlier one in at least `least` of their runs of words; `equal` of them in all of them.
    `examples` are (id, id of the earlier one, estimated similarity) of the first."""

    documents: int
    near: int
    equal: int
    least: float
    examples: list[tuple[str, str, float]]

    def to_json(self) -> dict[str, Any]:
        return {"documents": self.documents, "near": self.near, "equal": self.equal, "least": self.least,
                "examples": [list(e) for e in self.examples]}


def signature(text: str) -> NDArray[np.uint32]:
    """[HASHES] minima of the hashed runs of words; of a text without words, all the same."""
    words = np.fromiter((zlib.crc32(w.encode("utf-8", "surrogatepass")) for w in _WORD.findall(text.lower())), np.uint64)
    size = max(1, len(words) - WORDS + 1)
    runs = np.zeros(size, np.uint64)
    for i in range(min(WORDS, len(words))):
        runs = runs * np.uint64(1_000_003) + words[i:i + size]
    runs = np.unique(runs % _PRIME)
    lowest = np.full(HASHES, _PRIME, np.uint64)
    for at in range(0, len(runs), _MOST):
        # Below 2^62, so that nothing overflows.
        lowest = np.minimum(lowest, ((runs[at:at + _MOST, None] * _A + _B) % _PRIME).min(0))
    return lowest.astype(np.uint32)


def near_duplicates(documents: Iterable[tuple[str, str]], least: float = 0.8, folder: str | Path | None = None) -> Near:
    """Of (id, text) pairs, given once in order, those that resemble an earlier one. `folder` holds the signatures meanwhile."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".near-") as place:
        path, ids = Path(place) / "signatures", Path(place) / "ids"
        count = 0
        with path.open("wb") as file, ids.open("w", encoding="utf-8", errors="surrogatepass") as names:
            for name, text in documents:
                signature(text).tofile(file)
                names.write(name.replace("\n", " ") + "\n")
                count += 1
        if not count:
            return Near(0, 0, 0, least, [])
        signatures = np.memmap(path, np.uint32, "r", shape=(count, HASHES))
        first, similar = _earlier(signatures, least)
        found = np.flatnonzero(first >= 0)
        wanted = [int(i) for k in found[:EXAMPLES] for i in (k, first[k])]
        named = _lines(ids, set(wanted))
        examples = [(named[int(k)], named[int(first[k])], round(float(similar[k]), 3)) for k in found[:EXAMPLES]]
        return Near(count, len(found), int((similar[found] == 1).sum()), least, examples)


def _earlier(signatures: NDArray[np.uint32], least: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each document the earlier one that it resembles most among its candidates (-1: none), and how much."""
    count = len(signatures)
    first, similar = np.full(count, -1, np.int64), np.zeros(count, np.float32)
    for band in range(BANDS):
        part = np.ascontiguousarray(signatures[:, band * ROWS:(band + 1) * ROWS])
        keys = part.view(f"V{4 * ROWS}").ravel()
        _, start, group = np.unique(keys, return_index=True, return_inverse=True)
        head = start[group.ravel()]  # the first document with the same band
        later = np.flatnonzero(head != np.arange(count))
        for at in range(0, len(later), 1 << 16):
            some = later[at:at + (1 << 16)]
            share = (signatures[some] == signatures[head[some]]).mean(1, dtype=np.float32)
            better = (share >= least) & (share > similar[some])
            first[some[better]], similar[some[better]] = head[some[better]], share[better]
    return first, similar


def _lines(path: Path, wanted: set[int]) -> dict[int, str]:
    with path.open(encoding="utf-8", errors="surrogatepass") as file:
        return {i: line.rstrip("\n") for i, line in enumerate(file) if i in wanted}


def texts(annotated: Any) -> Iterator[tuple[str, str]]:
    """(id, text) of an annotated corpus, a row group at a time."""
    import pyarrow.parquet as pq
    for split in sorted(annotated.rows):
        shard = pq.ParquetFile(annotated.texts.shard(split))
        for group in range(shard.num_row_groups):
            rows = shard.read_row_group(group).to_pydict()
            yield from zip(rows["id"], rows["text"])
