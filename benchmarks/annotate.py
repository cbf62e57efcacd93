"""What annotating costs beside the scorer alone, and how much memory it takes.

    python benchmarks/annotate.py speed  CORPUS OUT     # PEP 8, whole files: annotate and the bare scorer in turn, CPU seconds
    python benchmarks/annotate.py workers CORPUS OUT    # PEP 8 by one worker and two in turn, seconds: needs two idle cores
    python benchmarks/annotate.py memory OUT --mb 5000 [--kill]  # synthetic, lines all distinct, a cheap scorer: peak memory

speed and memory count CPU seconds, so that a busy machine changes little.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from harken.launch.scorers import open_scorer
from harken.loops.annotate import annotate
from harken.store.annotations import Annotated
from harken.store.corpus import Reader, open_corpus, plan_splits
from harken.text.segments import segment_ends

HERE = Path(__file__).parent


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


def workers(args: argparse.Namespace) -> None:
    """Seconds of `harken annotate --scorer pep8`, from its start to its end, of one worker and two in turn. A machine whose
    processors change their speed from run to run tells more at equal CPU seconds."""
    ratios = []
    for k in range(args.rounds):
        seconds, spent = [], []
        for count in (1, 2):
            out = args.out / f"{k}-{count}"
            start, cpu = time.monotonic(), children()
            subprocess.run([sys.executable, "-m", "harken", "annotate", args.corpus, "--scorer", "pep8", "--segment", "line",
                            "--near", "0", "--workers", str(count), "--out", out], check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.monotonic() - start)
            spent.append(children() - cpu)
        assert digest(args.out / f"{k}-1") == digest(args.out / f"{k}-2")
        ratios.append(seconds[0] / seconds[1])
        equal = seconds[0] / spent[0] * spent[1] / seconds[1]
        print(f"round {k}: {seconds[0]:.1f} s ({spent[0]:.1f} of CPU), two workers {seconds[1]:.1f} s ({spent[1]:.1f} of CPU): "
              f"{ratios[-1]:.2f} times as fast, {equal:.2f} at equal CPU seconds", flush=True)
    print(f"median {sorted(ratios)[len(ratios) // 2]:.2f}")


def children() -> float:
    """CPU seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    source = args.out / "lines.txt"
    lines = synthetic(source, args.mb)
    annotated = args.out / "annotated"
    command = [sys.executable, "-m", "harken", "annotate", str(source), "--scorer", "annotate:Length", "--segment", "line",
               "--near", "0", "--out", str(annotated), "--workers", str(args.workers)]
    path = os.pathsep.join(map(str, [HERE, HERE.parent / "src"]))  # the scorer is Length, above
    start, cpu, peak, killed = time.monotonic(), 0.0, 0, 0
    while True:
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.DEVNULL)
        while args.kill and not killed and process.poll() is None:
            if 2 * len(list(annotated.glob("text/*.parquet"))) >= args.mb >> 6:
                process.kill()
                killed = 1
            time.sleep(0.05)
        _, status, used = os.wait4(process.pid, 0)
        cpu, peak = cpu + used.ru_utime + used.ru_stime, max(peak, used.ru_maxrss)
        if os.waitstatus_to_exitcode(status) != -9:
            break
    found = Annotated(annotated)
    print(f"{source.stat().st_size >> 20} MB, {found.segments:,} lines, {lines:,} distinct, {found.segments / cpu:,.0f} a CPU "
          f"second: {cpu:.0f} s of CPU, {time.monotonic() - start:.0f} s; killed {killed} times; peak memory {peak >> 10} MB")
    print(f"SHA-256 of all shards and manifests {digest(annotated)}")


def digest(annotated: Path) -> str:
    """Of everything but the plan, which names the corpus's place."""
    whole = hashlib.sha256()
    files = [p for name in ("text", "scores") for p in (annotated / name).rglob("*")]
    for path in sorted(p for p in files if p.suffix in (".parquet", ".jsonl")):
        whole.update(path.read_bytes())
    return whole.hexdigest()


def synthetic(path: Path, mb: int) -> int:
    """Writes paragraphs of twenty lines, no line twice, of `mb` megabytes; the number of lines."""
    size = lines = 0
    with path.open("w") as file:
        while size < mb << 20:
            block = "".join(f"line {k} of a synthetic corpus, {k * 2654435761 % 2**32:08x} and on and on, {'x' * (k % 370)}\n"
                            + ("\n" if k % 20 == 19 else "") for k in range(lines, lines + 10_000))
            size, lines = size + len(block), lines + 10_000
            file.write(block)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("speed")
    one.add_argument("corpus", type=Path)
    one.add_argument("out", type=Path)
    one.add_argument("--files", type=int, default=150)
    one.add_argument("--rounds", type=int, default=3)
    one.set_defaults(run=speed)
    three = commands.add_parser("workers")
    three.add_argument("corpus")
    three.add_argument("out", type=Path)
    three.add_argument("--rounds", type=int, default=3)
    three.set_defaults(run=workers)
    two = commands.add_parser("memory")
    two.add_argument("out", type=Path)
    two.add_argument("--mb", type=int, default=5000)
    two.add_argument("--workers", type=int, default=1)
    two.add_argument("--kill", action="store_true", help="kill -9 it once, halfway, and give the command again")
    two.set_defaults(run=memory)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
