"""One offline page from runs. The package can be called: `harken.report(["runs/sft", "runs/rloo"], "report.html")`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType


class _Report(ModuleType):
    """A package with the name of what it does: both `harken.report.build` and `harken.report(…)` are right."""

    def __call__(self, runs: Sequence[str | Path], out: str | Path = "report.html") -> Path:
        """Writes the page and gives its path. Raises `UserError` for what is no run."""
        from harken.report.build import build_report
        return Path(build_report([Path(run) for run in runs], Path(out)))


sys.modules[__name__].__class__ = _Report
