"""A student: a scorer small enough for a corpus, which imitates any reward on single texts.

    harken fit student --reward runs/rm --data texts.jsonl --segment sentence --out runs/small_rm
    harken annotate corpus/ --scorer runs/small_rm --out annotated

Ridge regression on hashed n-grams of 1 to 5 bytes and the length. The teacher scores each distinct segment once; a fifth of the
documents is held out, on which the rank correlation of student and teacher is measured, and how fast each of them is.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import lsmr

from harken.core.config import setting
from harken.core.errors import UserError
from harken.core.protocols import Estimate, Reward
from harken.core.records import Message, Prompt
from harken.core.run import Run
from harken.core.seeds import MOST_SEED
from harken.stats.intervals import bootstrap
from harken.text.documents import read_documents
from harken.text.scorer import TextReward
from harken.text.segments import segments

FILE = "student.npz"
BUCKETS = 1 << 18
GRAMS = (1, 2, 3, 4, 5)
MULTIPLIER = 0x9E3779B97F4A7C15
PENALTIES = (0.03, 0.3, 3.0)
"""Ridge penalties tried, the one kept that predicts a part of the training documents best."""
EMPTY = Prompt((Message("user", ""),))

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Config:
    reward: str = setting("", names="reward", required=True)
    """The teacher: a reward model's run, a scorer, or your own."""
    data: str = setting("", names="file", required=True)
    """Texts: documents with blank lines between, or JSON Lines with "text"."""
    out: str = setting("", required=True)
    """Run directory to write."""
    segment: str = setting("sentence", one_of=("sentence", "line", "document"))
    """What is scored: sentence, line or document."""
    most: int = setting(50_000, least=50)
    """Most distinct segments that the teacher scores."""
    holdout: float = setting(0.2, above=0, below=0.9)
    """Share of documents held out."""
    training_rate: float = setting(0.0, least=0)
    """Segments a second of the pretraining that the scores are for; with it, annotation is given as a share of its compute."""
    seed: int = setting(0, least=0, most=MOST_SEED)
    """Seed of the split."""


def features(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Which hashed n-grams of bytes the texts have: the text of each [N], its bucket [N], and the weight of one gram of each
    text [T], 1/sqrt of how many it has. The last bucket holds the logarithm of the length, and is not among them."""
    data = [t.encode("utf-8", "surrogatepass") for t in texts]
    sizes = np.array([len(d) for d in data], dtype=np.int64)
    flat = np.frombuffer(b"".join(data), dtype=np.uint8).astype(np.uint64)
    owner = np.repeat(np.arange(len(texts)), sizes)
    owners, buckets = [], []
    rolled = np.zeros(len(flat), dtype=np.uint64)
    for n in range(1, max(GRAMS) + 1):
        rolled = rolled[:len(flat) - n + 1] * np.uint64(257) + flat[n - 1:] + np.uint64(1) if len(flat) >= n else rolled[:0]
        inside = owner[:len(rolled)] == owner[n - 1:] if len(rolled) else np.zeros(0, bool)
        mixed = (rolled[inside] + np.uint64(n << 56)) * np.uint64(MULTIPLIER)
        owners.append(owner[:len(rolled)][inside])
        buckets.append((mixed >> np.uint64(46)).astype(np.int64))
    counts = np.bincount(np.concatenate(owners), minlength=len(texts)) if len(flat) else np.zeros(len(texts))
    return np.concatenate(owners), np.concatenate(buckets), 1 / np.sqrt(np.maximum(counts, 1))


class StudentReward(TextReward):
    """Weights [BUCKETS], a weight of the log length, and a bias."""

    def __init__(self, weights: NDArray[np.float32], length: float, bias: float, name: str) -> None:
        self.weights, self.length, self.bias, self.id = weights, length, bias, name

    @classmethod
    def open(cls, run: str | Path) -> StudentReward:
        """A finished run's. Raises `UserError` for a damaged file."""
        file = Path(run) / "model" / FILE
        try:
            with np.load(file) as saved:
                return cls(saved["weights"], float(saved["length"]), float(saved["bias"]), str(saved["id"]))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{file} is damaged: {error}.", "Copy the run again, or fit it again.") from None

    def rate(self, text: str) -> float:
        return self.rate_all([text])[0]

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """[P], [P][G] -> [P][G]: all texts of a call together."""
        flat = iter(self.rate_all([t for row in completions for t in row]))
        return [[next(flat) for _ in row] for row in completions]

    def rate_all(self, texts: Sequence[str], block: int = 4096) -> list[float]:
        """A score each."""
        found: list[float] = []
        for at in range(0, len(texts), block):
            part = texts[at:at + block]
            owner, bucket, scale = features(part)
            sums = np.bincount(owner, self.weights[bucket].astype(np.float64), minlength=len(part))
            found += (self.bias + sums * scale + self.length * _lengths(part)).tolist()
        return found


def _lengths(texts: Sequence[str]) -> Floats:
    return np.log1p([len(t) for t in texts])


def spearman(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """Rank correlation, ties at their mean rank, with a bootstrap interval over segments."""
    from scipy.stats import rankdata  # a second of start-up, and it stumbles where torch is hidden
    x, y = rankdata(a), rankdata(b)

    def correlation(drawn: NDArray[np.intp]) -> float:
        p, q = x[drawn] - x[drawn].mean(), y[drawn] - y[drawn].mean()
        size = float(np.sqrt((p @ p) * (q @ q)))
        return float(p @ q) / size if size else np.nan
    return bootstrap(correlation, len(x), draws=300)


def fit(texts: Sequence[str], scores: Sequence[float], penalty: float, name: str = "student") -> StudentReward:
    """Minimises sum (score - prediction)^2 + penalty |w|^2, the bias free."""
    y = np.asarray(scores, dtype=np.float64)
    owner, bucket, scale = features(texts)
    lengths = _lengths(texts)
    middle = lengths.mean()
    x = csr_matrix((np.concatenate([scale[owner], lengths - middle]),
                    (np.concatenate([owner, np.arange(len(texts))]), np.concatenate([bucket, np.full(len(texts), BUCKETS)]))),
                   shape=(len(texts), BUCKETS + 1))
    solved = lsmr(x, y - y.mean(), damp=penalty ** 0.5, maxiter=100)[0]
    bias = float((y - x @ solved).mean())
    return StudentReward(solved[:-1].astype(np.float32), float(solved[-1]), bias - float(solved[-1]) * middle, name)


def train(config: Config, teacher: Reward, identity: Any, run: Run) -> None:
    """Fits, measures and writes. Raises `UserError` where too few segments have a score, or all have the same."""
    documents = read_documents(config.data)
    rng = np.random.default_rng(config.seed)
    order = rng.permutation(len(documents))
    held_documents = set(order[:max(1, int(config.holdout * len(documents)))].tolist())
    parts: dict[bool, list[str]] = {True: [], False: []}
    seen: set[str] = set()
    for i in order.tolist():
        for text in segments(documents[i], config.segment):
            if text.strip() and text not in seen and len(seen) < config.most:
                seen.add(text)
                parts[i in held_documents].append(text)
    scored = {held: _scored(teacher, texts) for held, texts in parts.items()}
    (texts, y, _, missing), (held, truth, held_seconds, held_missing) = scored[False], scored[True]
    if len(texts) < 20 or len(held) < 20:
        raise UserError(f"{len(texts)} segments to learn from and {len(held)} held out have a score: each must be at least 20.",
                        "Give more documents, or another --segment.")
    if len(set(y)) < 2 or len(set(truth)) < 2:
        raise UserError("The teacher gives every segment the same score: there is nothing to learn.", "Use other texts.")
    start = time.perf_counter()
    cut = len(texts) * 4 // 5
    penalty = min(PENALTIES, key=lambda p: _error(fit(texts[:cut], y[:cut], p), texts[cut:], y[cut:]))
    student = fit(texts, y, penalty)
    fitting = time.perf_counter() - start
    predicted, student_seconds = _timed(lambda: student.rate_all(held))
    rates = {"teacher": len(held) / held_seconds, "student": len(held) / student_seconds}
    figures = speed(rates, len(texts) + len(held), fitting, config.training_rate)
    result = {"rank_correlation": spearman(predicted, truth).to_json(), "penalty": penalty, "segments": len(texts),
              "held_out": len(held), "missing": missing + held_missing, "segments_a_second": rates, **figures}
    numbers = student.weights.tobytes() + repr((student.length, student.bias)).encode()
    student.id = "student/" + hashlib.sha256(numbers).hexdigest()[:16]

    def save(folder: Path) -> None:
        np.savez_compressed(folder / FILE, weights=student.weights, length=student.length, bias=student.bias, id=student.id)
    run.finish({"id": student.id, "teacher": identity, **result}, save)


def speed(rates: dict[str, float], labelled: int, fitting: float, training_rate: float = 0.0) -> dict[str, Any]:
    """`break_even_segments`: the distinct segments above which labelling some with the teacher, fitting, and scoring all with the
    student takes less time than the teacher alone; None where the student is not faster. With the rate of pretraining, annotation
    by each as a share of one training run's time."""
    slow, fast = 1 / rates["teacher"], 1 / rates["student"]
    found: dict[str, Any] = {"speed_up": slow / fast,
                             "break_even_segments": (labelled * slow + fitting) / (slow - fast) if slow > fast else None}
    if training_rate:
        found["share_of_pretraining"] = {name: training_rate / rate for name, rate in rates.items()}
    return found


def _scored(teacher: Reward, texts: list[str]) -> tuple[list[str], list[float], float, int]:
    rows, seconds = _timed(lambda: teacher.score([EMPTY] * len(texts), [[t] for t in texts]))
    known = [(t, row[0]) for t, row in zip(texts, rows) if row[0] is not None]
    return [t for t, _ in known], [float(s) for _, s in known], seconds, len(texts) - len(known)


def _error(student: StudentReward, texts: Sequence[str], y: Sequence[float]) -> float:
    return float(np.mean((np.array(student.rate_all(texts)) - np.array(y)) ** 2))


def _timed(action: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    found = action()
    return found, max(time.perf_counter() - start, 1e-9)
