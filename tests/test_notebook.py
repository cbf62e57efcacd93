"""The notebook of the whole loop: its cells run from top to bottom in a fresh process, here on the toy model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import harken

NOTEBOOK = Path(__file__).parents[1] / "docs/notebooks/loop.ipynb"


def test_it_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not c["outputs"] and c["execution_count"] is None for c in cells if c["cell_type"] == "code")


@pytest.mark.slow
def test_the_cells_run(tmp_path):
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    environment = {**os.environ, "HARKEN_NOTEBOOK_MODEL": os.environ.get("HARKEN_NOTEBOOK_MODEL", "toy"),
                   "HARKEN_NOTEBOOK_STEPS": os.environ.get("HARKEN_NOTEBOOK_STEPS", "2"), "HF_HUB_OFFLINE": "1",
                   "PYTHONPATH": str(Path(harken.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "win rate" in done.stdout and "judgments" in done.stdout
    assert "<html" in (tmp_path / "runs/notebook/report.html").read_text()
