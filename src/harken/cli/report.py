"""`harken report`: one offline page from runs; `harken watch`: a page of running ones."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harken.core.errors import UserError


def add_commands(commands: Any) -> None:
    """Registers `report`; it sets `handler`."""
    p = commands.add_parser("report", help="one offline HTML page from runs", description="Makes one offline HTML page.",
                            epilog="harken report runs/* --out report.html")
    p.add_argument("runs", nargs="+", type=Path, help="run directories")
    p.add_argument("--out", type=Path, default=Path("report.html"), help="page to write (default report.html)")
    p.add_argument("--csv", type=Path, metavar="FILE",
                   help="also write every curve as one table: run, method, seed, metric, step, value")
    p.add_argument("--figures", type=Path, metavar="FOLDER",
                   help="also write every figure as SVG, PNG, PDF and CSV (needs harken[figures])")
    p.add_argument("--samples", type=Path, metavar="FILE",
                   help="also write every sample as a table (.parquet, .csv, .jsonl): set, item, model, prompt, answer, score")
    p.set_defaults(handler=report)

    p = commands.add_parser("watch", help="a local page with the curves of running runs", epilog="harken watch runs/*",
                            description="Serves a page on this machine alone, whose curves grow with the runs.")
    p.add_argument("runs", nargs="+", type=Path, help="run directories; one that does not exist yet is waited for")
    p.add_argument("--port", type=int, default=8766, help="0 takes a free one (default: 8766)")
    p.set_defaults(handler=watch)


def watch(args: argparse.Namespace) -> int:
    from harken.report.live import serve
    serve(args.runs, args.port)
    return 0


def report(args: argparse.Namespace) -> int:
    from harken.report.build import build_report
    if args.out.exists() and not args.out.is_file() and not args.out.is_dir():
        raise UserError(f"{args.out} is not a file that can be replaced.", "Choose another --out.")
    print(f"{build_report(args.runs, args.out)}: open it in a browser")
    if args.csv:
        from harken.report.load import load_runs
        from harken.report.seeds import write_csv
        print(f"{write_csv(load_runs(args.runs), args.csv)}: every curve")
    if args.figures:
        from harken.report.figures import write_figures
        from harken.report.load import load_runs
        files = write_figures(load_runs(args.runs), args.figures)
        print(f"{args.figures}: {len(files) // 4} figures, each as SVG, PNG, PDF and CSV")
    if args.samples:
        from harken.report.load import load_runs
        from harken.report.sets import sample_sets
        from harken.report.table import write_samples
        print(f"{write_samples(sample_sets(load_runs(args.runs)), args.samples)}: every sample")
    return 0
