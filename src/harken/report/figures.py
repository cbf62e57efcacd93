"""Every figure of a report as files: `NAME.svg`, `NAME.png`, `NAME.pdf` and `NAME.csv` with its points.

    write_figures(load_runs(["runs/rloo"]), Path("figures"))     # "figures/reward-of-rloo.pdf", …

The pictures have the light page's colours on white; PNG has twice the pixels. PNG and PDF need the package cairosvg.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import cast

from harken.core.errors import UserError
from harken.draw.svg import Plot, collecting
from harken.report.build import render
from harken.report.load import RunData
from harken.store.writing import defused, write_text

HUES = ("#0d6a66", "#99590a", "#7a6fc2", "#c2577a", "#5b8a3a", "#6f7882")
CSS = ("svg{background:#fff} text{font-family:sans-serif;font-size:12px;fill:#56606d} .axis{fill:#1c2430} "
       ".grid{stroke:#e4e1d9;stroke-width:1} .track{stroke:#e9e6de} .reference{stroke:#6f7882} "
       ".diagonal{stroke:#6f7882;stroke-dasharray:5 4;fill:none} .interval{stroke-width:3;fill:none} "
       ".line{fill:none;stroke-width:2.2} .accent{stroke:#0d6a66} .gold{stroke:#99590a} .grey{stroke:#6f7882} "
       ".dot.accent{fill:#0d6a66} .dot.gold{fill:#99590a} .dot.grey{fill:#6f7882} .faint{opacity:0.32;stroke-width:1.2} "
       ".band{opacity:0.16;stroke:none} ") + " ".join(
           f".line.series-{i}{{stroke:{hue}}} .band.series-{i}{{fill:{hue}}}" for i, hue in enumerate(HUES))
SCALE = 2.0
NOT_A_NAME = re.compile(r"[^a-z0-9]+")


def write_figures(runs: Sequence[RunData], folder: Path) -> list[Path]:
    """Writes the figures of the report about these runs into a folder, which is made; returns the files.

    Raises `UserError` where cairosvg is missing (before anything is written), where the runs have nothing to draw, or where
    the folder cannot be written."""
    cairo = _cairosvg()
    with collecting() as plots:
        render(runs)
    if not plots:
        raise UserError("These runs have no figure: they logged no curve.", "Name runs that trained.")
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror or error}.", "Choose another --figures.") from None
    for name, plot in _named(plots).items():
        svg = _alone(plot)
        for suffix, content in ((".svg", svg), (".csv", _table(plot))):
            write_text(folder / f"{name}{suffix}", content)
        cairo.svg2png(bytestring=svg.encode(), write_to=str(folder / f"{name}.png"), scale=SCALE, background_color="white")
        cairo.svg2pdf(bytestring=svg.encode(), write_to=str(folder / f"{name}.pdf"))
        written += [folder / f"{name}{suffix}" for suffix in (".svg", ".png", ".pdf", ".csv")]
    return written


def _cairosvg() -> ModuleType:
    try:
        import cairosvg
    except (ImportError, OSError) as error:  # OSError: the package is there, the library libcairo is not
        missing = "the library libcairo is not found" if isinstance(error, OSError) else "the package cairosvg is not installed"
        raise UserError(f"Figures as PNG and PDF cannot be drawn: {missing}.",
                        "pip install 'harken[figures]' (and libcairo: apt install libcairo2, brew install cairo). Without it: "
                        "--csv FILE writes every curve.") from None
    return cast(ModuleType, cairosvg)


def _named(plots: Sequence[Plot]) -> dict[str, Plot]:
    """Each plot under its title as a file's name; equal titles are numbered."""
    named: dict[str, Plot] = {}
    for plot in plots:
        base = NOT_A_NAME.sub("-", plot.title.lower()).strip("-")[:80] or "figure"
        name, number = base, 2
        while name in named:
            name, number = f"{base}-{number}", number + 1
        named[name] = plot
    return named


def _alone(plot: Plot) -> str:
    size = f'<svg width="{plot.width}" height="{plot.height}" '
    return plot.file(CSS).replace("<svg ", size, 1)


def _table(plot: Plot) -> str:
    """The points as drawn: series, x, y, and low and high for a band."""
    out = io.StringIO()
    sheet = csv.writer(out, lineterminator="\n")
    sheet.writerow(("series", "x", "y", "low", "high"))
    for series, points in plot.series:
        for x, *y in points:
            cells = (series, x, y[0], "", "") if len(y) == 1 else (series, x, "", *y)
            sheet.writerow(map(defused, cells))
    return out.getvalue()
