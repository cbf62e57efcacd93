"""`harken annotate`: scores a corpus once, for every training that follows."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.terminal import one_line

SUGGESTED = (("document", 0.25), ("segment", 0.05), ("segment", 0.5))
"""Shares to call good: the authors filter to the best quarter of documents, and condition on the best 5 % of sentences."""


def add_commands(commands: Any) -> None:
    """Registers `annotate`; it sets `handler(args) -> exit status`."""
    p = commands.add_parser(
        "annotate", help="score a corpus's sentences or lines once, for pretraining with feedback",
        description="Cuts text of any size into segments, scores each distinct one once, and writes shards that every harken "
                    "train phf reads. The same command continues an unfinished annotation. docs/annotate.md tells more.",
        epilog="harken annotate src/ --scorer pep8 --segment line --out annotated")
    p.add_argument("corpus", nargs="+", help="text, JSON Lines (also .gz, .zst), Parquet, a folder, or a dataset on disk")
    p.add_argument("--scorer", required=True, help="toxicity, pii, pep8, a reward's run, or my.module:Scorer")
    p.add_argument("--out", required=True, type=Path, help="folder to write")
    p.add_argument("--segment", default="sentence", help="what is scored: sentence, line or document (default sentence)")
    p.add_argument("--documents", default="auto", metavar="HOW",
                   help="how plain text divides into documents: file, paragraph (blank lines), line (default: .txt by "
                        "paragraph, other files whole)")
    p.add_argument("--text-field", default="text", metavar="NAME", help="field or column that holds the text (default text)")
    p.add_argument("--workers", type=int, default=1, metavar="N", help="processes; the result is the same (default 1)")
    p.add_argument("--ray", default="", metavar="ADDRESS",
                   help="let the workers of a Ray cluster do the splits: its address, auto, or local (needs harken[scale])")
    p.add_argument("--split-mb", type=float, metavar="MB",
                   help="about how much text one shard holds (default: a 64th of the corpus, from .25 to 64)")
    p.add_argument("--near", type=float, default=0.8, metavar="SHARE",
                   help="report documents that share so much of their runs of three words with an earlier one; they stay in "
                        "(default 0.8; 0: do not look)")
    p.add_argument("--attributes", type=Path, metavar="FOLDER",
                   help="write the scores as Dolma's attributes too: spans by document id, into a folder that is empty or new")
    p.set_defaults(handler=annotate)


def annotate(args: argparse.Namespace) -> int:
    """`harken annotate`."""
    from harken.core.progress import progress
    from harken.launch.scorers import open_scorer
    from harken.loops.annotate import annotate as run
    from harken.loops.annotate import malformed_of
    if not 1 <= args.workers <= 1024 or (args.split_mb is not None and not 1e-6 <= args.split_mb <= 1e6):
        raise UserError("--workers and --split-mb must be above 0.", "Leave them out for their defaults.")
    if not 0 <= args.near <= 1:
        raise UserError("--near must be from 0 to 1.", "0.8 is usual; 0 does not look.")
    if args.attributes and args.attributes.exists() and (not args.attributes.is_dir() or any(args.attributes.iterdir())):
        raise UserError(f"{args.attributes} is not empty.", "Choose another folder for --attributes.")
    result = run(args.corpus, args.out, partial(open_scorer, args.scorer), segmenter=args.segment, field=args.text_field,
                documents=args.documents, workers=args.workers, shown=progress, ray=args.ray,
                split_bytes=max(1, int(args.split_mb * (1 << 20))) if args.split_mb else 0)
    print(f"{args.out}: {result.documents:,} documents, {result.segments:,} segments, scored by {result.scorer}")
    missing: dict[str, int] = {}
    for row in result.rows.values():
        for reason, count in row["missing"].items():
            missing[reason] = missing.get(reason, 0) + count
    for reason, count in sorted(missing.items()):
        print(f"  {count:,} segments have no score: {one_line(reason)}")
    for reason, part in sorted(malformed_of(result.texts.rows().values()).items()):
        print(f"  {part['count']:,} left out: {one_line(reason)} ({', '.join(map(one_line, part['places']))}"
              f"{', …' if part['count'] > len(part['places']) else ''})")
    if args.attributes:
        show_attributes(result, args.attributes)
    if args.near:
        show_near(result, args.near)
    show_scores(result)
    return 0


def show_attributes(result: Any, folder: Path) -> None:
    """Writes the scores for Dolma's tools, and says under which name."""
    from harken.store.annotations import slug
    from harken.store.dolma import write_attributes
    name = f"{slug(result.scorer)}__score"
    spans = write_attributes(result, folder, name)
    print(f"  {spans:,} spans as {name} in {folder}")


def show_near(result: Any, least: float) -> None:
    """How many documents nearly repeat an earlier one; `near.json` in the folder keeps it."""
    from harken.core.files import write_json
    from harken.store.near import near_duplicates, texts
    near = near_duplicates(texts(result), least, result.path)
    write_json(result.path / "near.json", near.to_json())
    print(f"  {near.near:,} of {near.documents:,} documents nearly repeat an earlier one ({near.equal:,} in the same words); "
          "they stay in")
    for name, earlier, share in near.examples:
        print(f"    {one_line(name)} is like {one_line(earlier)}: {share:.2f}")


def show_scores(result: Any) -> None:
    """Histograms, and thresholds by share."""
    from harken.stats.histogram import draw, histogram, reached_by, share_reaching
    samples = {level: result.sample(level) for level in ("segment", "document")}
    for level, scores in samples.items():
        print(f"\nscores of {level}s (higher is better; {len(scores):,} looked at)\n{draw(histogram(scores))}")
    print("\nthresholds that a share reaches")
    for level, share in SUGGESTED:
        scores = samples[level]
        threshold = reached_by(scores, share)
        use = "filter" if level == "document" else "conditional"
        print(f"  the best {share:.0%} of {level}s: --threshold {threshold:.6g}   (for --objective {use}; "
              f"{share_reaching(scores, threshold):.1%} reach it)")
    print("harken train phf --help lists presets with the published thresholds.")
    sys.stdout.flush()
