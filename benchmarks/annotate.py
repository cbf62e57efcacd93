"""What annotating costs beside the scorer alone, and how much memory it takes.

    python benchmarks/annotate.py speed  CORPUS OUT     # PEP 8, whole files: annotate and the bare scorer in turn, CPU seconds
    python benchmarks/annotate.py memory OUT --mb 5000  # a synthetic corpus of distinct lines, a cheap scorer: peak memory

CPU seconds are compared, not wall time, so that a busy machine changes little.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from harken.launch.scorers import open_scorer
from harken.loops.annotate import annotate
from harken.store.corpus import Reader, open_corpus, plan_splits
from harken.text.segments import segment_ends


class Length:
    """Costs nothing: minus the length."""

    id = "length/1"

    def rate(self, text: str) -> float:
        return -float(len(text))


def speed(args: argparse.Namespace) -> None:
    corpus = open_corpus([args.corpus])
    texts = {d.text: None for split in plan_splits(corpus, 1 << 26) for d in Reader(corpus).documents(split) if not d.bad}
    texts = dict(list(texts.items())[:args.files])
    folder = args.out / "files"
    shutil.rmtree(args.out, ignore_errors=True)
    folder.mkdir(parents=True)
    for i, text in enumerate(texts):
        (folder / f"{i:05d}.py").write_text(text)
    scorer, ratios = open_scorer("pep8"), []
    for k in range(args.rounds):
        start = time.process_time()
        lines = 0
        for text in texts:
            ends = segment_ends(text, "line")
            scorer.rate_segments(text, ends)
            lines += len(ends)
        bare = time.process_time() - start
        start = time.process_time()
        annotate([folder], args.out / f"annotated{k}", partial(open_scorer, "pep8"), segmenter="line")
        whole = time.process_time() - start
        ratios.append(bare / whole)
        print(f"round {k}: {lines} lines; bare {bare:.2f} s, annotate {whole:.2f} s of CPU: {bare / whole:.3f} of the "
              "scorer's speed", flush=True)
    print(f"median {sorted(ratios)[len(ratios) // 2]:.3f}")


def memory(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    source, size, lines = args.out / "lines.txt", 0, 0
    with source.open("w") as file:
        while size < args.mb << 20:
            block = "".join(f"line {lines + i} of a synthetic corpus, {(lines + i) * 2654435761 % 2**32:08x} and on and on, "
                            f"{'x' * ((lines + i) % 320)}\n" + ("\n" if (lines + i) % 20 == 19 else "") for i in range(10_000))
            size, lines = size + len(block), lines + 10_000
            file.write(block)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, wall = time.process_time(), time.monotonic()
    held: list[int] = []

    @contextmanager
    def watched(what: str, total: int) -> Iterator[Callable[[int], None]]:
        def advance(count: int) -> None:
            held.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20)
        yield advance
    found = annotate([source], args.out / "annotated", Length, segmenter="line", shown=watched)
    print(f"MB held after each shard: {' '.join(map(str, held))}")
    print(f"{size >> 20} MB, {found.segments:,} lines, {lines:,} distinct: {time.process_time() - start:.0f} s of CPU, "
          f"{time.monotonic() - wall:.0f} s; peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB "
          f"(before {before >> 10})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("speed")
    one.add_argument("corpus", type=Path)
    one.add_argument("out", type=Path)
    one.add_argument("--files", type=int, default=150)
    one.add_argument("--rounds", type=int, default=3)
    one.set_defaults(run=speed)
    two = commands.add_parser("memory")
    two.add_argument("out", type=Path)
    two.add_argument("--mb", type=int, default=5000)
    two.set_defaults(run=memory)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
