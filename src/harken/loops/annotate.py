"""Scores a corpus once: its segments, by any scorer, into shards that every later training reads.

    annotate(["src/"], "annotated", partial(open_reward, "pep8"), segmenter="line", workers=2)

A plan of splits, a shard for each. Workers take splits, and what a shard holds depends on its split alone, so that one
piece, several, one worker or two, and any number of kills end with the same bytes. Equal segments are scored once
(store/known.py). A segment whose scorer fails or says nothing has no score, never 0, and is counted by reason.

A scorer with `rate_segments(text, ends)` sees whole documents, and gives each segment its score in its context; equal
documents are then scored once. One with `rate_document(id, text, ends)` also knows which document it is.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from harken.core.errors import UserError
from harken.core.progress import Shown, silent
from harken.core.records import Message, Prompt
from harken.loops.annotate_ray import make_work, work_on_ray
from harken.store.annotations import (
    GROUP_BYTES,
    GROUP_DOCUMENTS,
    PLAN,
    SCORER,
    Annotated,
    Column,
    Plan,
    Shard,
    lock,
    read_plan,
    slug,
    write_whole,
)
from harken.store.corpus import Corpus, Document, Reader, Split, open_corpus, plan_splits
from harken.store.known import Known, Value, key_of
from harken.text.segments import check_segmenter, segment_ends

SPLIT_BYTES, LEAST_SPLIT_BYTES, SPLITS = 64 << 20, 1 << 18, 64
"""Unless told otherwise a corpus is cut in `SPLITS`, so that every worker gets some, within these sizes."""
NO_PROMPT = Prompt((Message("user", ""),))
PLACES = 3
"""Places kept of each kind of malformed document."""
FAILURES_ALLOWED = 200
"""Segments that may all fail before a scorer is given up."""


@dataclass
class Batch:
    """Documents of one row group to be."""

    documents: list[Document] = field(default_factory=list)
    size: int = 0

    def full(self) -> bool:
        return len(self.documents) >= GROUP_DOCUMENTS or self.size >= GROUP_BYTES


class Rater:
    """A scorer with the memory of what it scored. `id` names the scorer and its version."""

    def __init__(self, scorer: Any, known: Known) -> None:
        self.scorer, self.known = scorer, known
        self.by_id = hasattr(scorer, "rate_document")
        self.whole = self.by_id or hasattr(scorer, "rate_segments")
        self.tried = self.failed = 0

    def rate(self, documents: Sequence[Document], ends: Sequence[Sequence[int]]) -> list[list[float | str]]:
        """Scores of each document's segments, in their place the reason where there is none."""
        if self.whole:
            return self._documents(documents, ends)
        texts = [d.text for d in documents]
        parts = [[t[a:b] for a, b in zip([0, *e], e)] for t, e in zip(texts, ends)]
        keys = [[key_of(p) for p in row] for row in parts]
        todo = dict(pair for row in zip(keys, parts) for pair in zip(*row))
        values = self.known.get(list(todo))
        fresh = {k: t for k, t in todo.items() if k not in values}
        new = dict(zip(fresh, self._segments(list(fresh.values()))))
        self.known.put(new)
        values |= new
        return [[values[k] for k in row] for row in keys]  # type: ignore[misc]

    def _segments(self, texts: list[str]) -> list[Value]:
        if hasattr(self.scorer, "rate"):
            return [self._counted(lambda t=t: self.scorer.rate(t)) for t in texts]  # type: ignore[misc]
        try:
            scores = self.scorer.score([NO_PROMPT], [texts])[0] if texts else []
            if len(scores) != len(texts):
                raise ValueError(f"{len(scores)} scores for {len(texts)} texts")
        except UserError:
            raise
        except (Exception, SystemExit):  # one of the batch: each by itself tells which
            return [self._counted(lambda t=t: self.scorer.score([NO_PROMPT], [[t]])[0][0]) for t in texts]  # type: ignore[misc]
        return [self._counted(lambda s=s: s) for s in scores]  # type: ignore[misc]

    def _documents(self, documents: Sequence[Document], ends: Sequence[Sequence[int]]) -> list[list[float | str]]:
        keys = [key_of(f"{d.id}\0{d.text}" if self.by_id else d.text) for d in documents]
        values = self.known.get(list(dict.fromkeys(keys)))
        new: dict[bytes, Value] = {}
        for key, document, end in zip(keys, documents, ends):
            if key not in values and key not in new:
                new[key] = self._document(document, end)
        self.known.put(new)
        values |= new
        rows: list[list[float | str]] = []
        for key, end in zip(keys, ends):
            value = values[key]
            if isinstance(value, bytes):
                row = np.frombuffer(value, dtype="<f8").tolist()
                rows.append(["no score" if math.isnan(s) else s for s in row])
            else:
                rows.append([value] * len(end))
        return rows

    def _document(self, document: Document, ends: Sequence[int]) -> Value:
        self.tried += 1
        try:
            if self.by_id:
                scores = self.scorer.rate_document(document.id, document.text, ends)
            else:
                scores = self.scorer.rate_segments(document.text, ends)
            if len(scores) != len(ends):
                raise ValueError(f"{len(scores)} scores for {len(ends)} segments")
            return np.array([math.nan if s is None or not math.isfinite(s) else s for s in scores], dtype="<f8").tobytes()
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # whatever a scorer of somebody's own raises, or gives that is no number
            return self._fail(error)

    def _counted(self, rate: Callable[[], float | None]) -> Value:
        self.tried += 1
        try:
            score = rate()
            if score is None:
                return "no score"
            return float(score) if math.isfinite(score) else "not a finite number"
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # whatever a scorer of somebody's own raises, or gives that is no number
            return self._fail(error)

    def _fail(self, error: BaseException) -> str:
        self.failed += 1
        if self.failed == self.tried >= FAILURES_ALLOWED:
            raise UserError(f"The scorer fails on every segment: {type(error).__name__}{f': {error}' if str(error) else ''}.",
                            "Mend the scorer.") from None
        return type(error).__name__


class Work:
    """What a worker needs for any split: the corpus, the scorer, the columns."""

    def __init__(self, folder: Path, column: Path, scorer: Any) -> None:
        self.plan = read_plan(folder)
        self.reader = Reader(self.plan.corpus)
        self.texts, self.scores = Column(folder / "text"), Column(column)
        about = json.loads((column / SCORER).read_text())
        self.about = {"corpus": self.plan.corpus.hash, "segmenter": self.plan.version, "plan": self.plan.hash}
        self.scored_about = {**self.about, "scorer": about["id"]}
        if scorer.id != about["id"]:
            raise UserError(f"The scorer is {scorer.id} here and {about['id']} in {column}.", "All workers need one scorer.")
        self.rater = Rater(scorer, Known(column / "known.sqlite"))

    def do(self, split: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Writes both shards of a split; their manifest lines."""
        import pyarrow as pa
        texts = Shard(self.texts.shard(split), {"id": pa.string(), "text": pa.string()}, self.about)
        scores = Shard(self.scores.shard(split), {"id": pa.string(), "ends": pa.list_(pa.int32()),
                                                  "scores": pa.list_(pa.float64())}, self.scored_about)
        bad: dict[str, list[str]] = {}
        counts, missing = Counter[str](), Counter[str]()
        try:
            with texts, scores:
                for batch in self._batches(split, bad, counts):
                    self._write(batch, texts, scores, counts, missing)
        except OSError as error:
            raise UserError(f"{error.filename or self.scores.folder} could not be read or written: {error.strerror or error}.",
                            "Make room, or put the file back, and give the same command: it continues with this split.") from None
        row = {"split": split, "documents": counts["documents"], "groups": counts["groups"]}
        malformed = {r: {"count": counts["bad " + r], "places": p} for r, p in bad.items()}
        return ({**row, "size": texts.size, "sha256": texts.sha256, "malformed": malformed},
                {**row, "size": scores.size, "sha256": scores.sha256, "segments": counts["segments"], "missing": dict(missing)})

    def _batches(self, split: int, bad: dict[str, list[str]], counts: Counter[str]) -> Iterator[list[Document]]:
        batch = Batch()
        for document in self.reader.documents(self.plan.splits[split]):
            if document.bad:
                counts["bad " + document.bad] += 1
                if len(places := bad.setdefault(document.bad, [])) < PLACES:
                    places.append(document.place)
                continue
            batch.documents.append(document)
            batch.size += len(document.text)
            if batch.full():
                yield batch.documents
                batch = Batch()
        if batch.documents:
            yield batch.documents

    def _write(self, batch: Sequence[Document], texts: Shard, scores: Shard, counts: Counter[str], missing: Counter[str]) -> None:
        ends = [segment_ends(d.text, self.plan.segmenter) for d in batch]
        rated = self.rater.rate(batch, ends)
        missing.update(s for row in rated for s in row if isinstance(s, str))
        ids = [d.id for d in batch]
        texts.write({"id": ids, "text": [d.text for d in batch]})
        scores.write({"id": ids, "ends": ends, "scores": [[None if isinstance(s, str) else s for s in row] for row in rated]})
        counts.update(documents=len(batch), segments=sum(map(len, ends)), groups=1)


class _Worker:
    """What a process of the pool has. It opens the scorer as it starts, while its parent still reads the corpus."""

    scorer: Any = None
    error: UserError | None = None
    work: Work | None = None

    @classmethod
    def begin(cls, open_scorer: Callable[[], Any], parent: int) -> None:
        """Once in a worker, which ends when its parent has been killed. What goes wrong here would break the pool and be
        lost: the first split says it."""
        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(0.5)
            os._exit(1)

        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is the parent's to report
        threading.Thread(target=watch, daemon=True).start()
        try:
            cls.scorer = open_scorer()
        except UserError as error:
            cls.error = error
        except Exception as error:  # whatever a scorer of somebody's own raises
            cls.error = UserError(f"The scorer cannot be opened in a worker: {type(error).__name__}: {error}.",
                                  "It opens in one process: leave --workers out, or mend the scorer.")

    @classmethod
    def do(cls, folder: Path, column: Path, split: int) -> tuple[dict[str, Any], dict[str, Any]]:
        if cls.error is not None:
            raise cls.error
        if cls.work is None:
            cls.work = Work(folder, column, cls.scorer)
        return cls.work.do(split)


class _Pool:
    """Processes that do splits; they start at once, and while they do the caller goes on."""

    def __init__(self, workers: int, open_scorer: Callable[[], Any]) -> None:
        self._pool = ProcessPoolExecutor(workers, get_context("spawn"), _Worker.begin, (open_scorer, os.getpid()))
        for _ in range(min(workers, os.cpu_count() or 1)):  # each starts a process; of more each waits for a split
            self._pool.submit(os.getpid)

    def work(self, folder: Path, column: Path, todo: Sequence[int]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        try:
            for future in as_completed([self._pool.submit(_Worker.do, folder, column, k) for k in todo]):
                yield future.result()
        except BrokenProcessPool:
            raise UserError("A worker was killed or could not start; is memory short?",
                            "The same command continues; fewer --workers need less.") from None

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def annotate(paths: Sequence[str | Path], out: str | Path, open_scorer: Callable[[], Any], *, segmenter: str = "sentence",
             field: str = "text", documents: str = "auto", workers: int = 1, split_bytes: int = 0,
             shown: Shown = silent, ray: str = "") -> Annotated:
    """Annotates the corpus of `paths` into `out`, or goes on with it; what is done already is not done again.

    `open_scorer` gives a Reward with an `id`; of several workers each calls it (so it must be importable: a function of
    a module, or a partial of one). `ray` names a cluster whose workers do the splits (annotate_ray.py). `split_bytes` 0: the
    splits that `out` has already, else of a size by the corpus.
    Raises `UserError` where `out` holds another plan, or nothing could be read.
    """
    version = check_segmenter(segmenter)
    with contextlib.ExitStack() as ends:
        pool = None
        if workers > 1 and not ray:
            pool = _Pool(workers, open_scorer)
            ends.callback(pool.close)
        folder = Path(out)
        corpus = open_corpus(paths, field, documents)
        plan = Plan(corpus, segmenter, version, _splits(folder, corpus, version, split_bytes))
        scorer = open_scorer()
        column = folder / "scores" / slug(scorer.id)
        ends.enter_context(_open(folder, plan))
        if pool:
            ends.callback(pool.close)  # no worker writes once the lock is gone
        for made in (folder / "text", column):
            made.mkdir(parents=True, exist_ok=True)
            for killed in made.glob(".*.tmp"):
                killed.unlink(missing_ok=True)
        write_whole(column / SCORER, json.dumps({"id": scorer.id}).encode() + b"\n")
        texts, scores = Column(folder / "text"), Column(column)
        done_texts, done = texts.rows(), scores.rows()
        todo = [k for k in range(len(plan.splits)) if k not in done or k not in done_texts]
        with shown("annotate", len(plan.splits)) as advance:
            advance(len(plan.splits) - len(todo))
            for text_row, row in _work(folder, column, scorer, open_scorer, todo, workers, pool, ray):
                # The texts first: scores without texts are of no use, and made again.
                texts.commit(text_row)
                scores.commit(row)
                advance(1)
        texts.settle(texts.rows())
        scores.settle(scores.rows())
        if not sum(r["documents"] for r in texts.rows().values()):
            error = _unreadable(texts.rows().values())
            _remove(folder)
            raise error
        _check(scores.rows().values())
    return Annotated(folder, scorer.id)


def split_size(corpus_bytes: int) -> int:
    """Bytes of a split where none are asked for: by the corpus alone, so that the plan does not depend on who works on it."""
    return min(SPLIT_BYTES, max(LEAST_SPLIT_BYTES, corpus_bytes // SPLITS))


def _splits(folder: Path, corpus: Corpus, version: str, split_bytes: int) -> list[Split]:
    if not split_bytes and (folder / PLAN).is_file():
        earlier = read_plan(folder)
        if (earlier.corpus.hash, earlier.version) == (corpus.hash, version):
            return earlier.splits
    return plan_splits(corpus, split_bytes or split_size(sum(s.size for s in corpus.sources)))


def _open(folder: Path, plan: Plan) -> Any:
    """Makes the folder, or finds it with the same plan; holds its lock."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file.", "Choose another --out.")
    if not plan.splits:
        raise UserError("The corpus holds no text: every file is empty.", "Name other files.")
    if (folder / PLAN).is_file():
        earlier = read_plan(folder)
        if earlier.hash != plan.hash:
            what = ("its corpus is another" if earlier.corpus.hash != plan.corpus.hash else "its segments are others"
                    if earlier.segmenter != plan.segmenter else "its splits are of another size")
            raise UserError(f"{folder} holds another annotation: {what}.",
                            "Choose another --out, or give the command as before.")
    elif folder.is_dir() and any(p.name[0] != "." for p in folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no annotated corpus.", "Choose another --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = lock(folder)
        if not (folder / PLAN).is_file():
            write_whole(folder / PLAN, json.dumps(plan.to_json()).encode() + b"\n")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}.",
                        "Choose another --out, or make room.") from None
    return held


def _work(folder: Path, column: Path, scorer: Any, open_scorer: Callable[[], Any], todo: Sequence[int],
          workers: int, pool: _Pool | None, ray: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The manifest lines of each split, as it is done."""
    if ray and todo:
        yield from work_on_ray(ray, partial(make_work, Work, folder.resolve(), column.resolve(), open_scorer), todo, workers)
    elif pool and len(todo) > 1:
        yield from pool.work(folder, column, todo)
    else:
        work = Work(folder, column, scorer)
        yield from map(work.do, todo)


def _unreadable(texts: Iterable[Mapping[str, Any]]) -> UserError:
    """Why there is not one document."""
    commonest: Any = max(malformed_of(texts).items(), key=lambda x: x[1]["count"], default=None)
    if commonest is None:
        return UserError("The corpus holds no text.", "Name other files.")
    reason, part = commonest
    return UserError(f"Not one document of the corpus could be read; {part['count']} are {reason} ({', '.join(part['places'])}).",
                     "Convert it to UTF-8, or check --text-field.")


def _remove(folder: Path) -> None:
    """Takes away an annotation without documents, so that the same command works once the corpus is mended."""
    for name in ("text", "scores"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (PLAN, ".lock"):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else lies in it
        folder.rmdir()


def _check(scores: Iterable[Mapping[str, Any]]) -> None:
    """Raises `UserError` where there is nothing to learn from."""
    if not any(r["segments"] > sum(r["missing"].values()) for r in scores):
        raise UserError("The scorer gave not one segment a score.", "Check the scorer on a few texts: harken score.")


def malformed_of(texts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """reason -> count and the first places, over all splits."""
    reasons: dict[str, Any] = {}
    for row in texts:
        for reason, part in row["malformed"].items():
            whole = reasons.setdefault(reason, {"count": 0, "places": []})
            whole["count"] += part["count"]
            whole["places"] = (whole["places"] + part["places"])[:PLACES]
    return reasons
