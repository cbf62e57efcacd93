"""The labeling page in Firefox: Debian's build, driven by WebDriver BiDi with the Node that Playwright brings."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from studio_browser import PAIRS

FIREFOX = Path(os.environ.get("HARKEN_FIREFOX", "/usr/bin/firefox-esr"))


@pytest.mark.slow
def test_a_comparison_is_answered_by_keyboard_in_firefox(served, tmp_path):
    playwright = pytest.importorskip("playwright")
    if not FIREFOX.exists():
        pytest.skip(f"no Firefox at {FIREFOX}: apt-get install firefox-esr, or set HARKEN_FIREFOX")
    project = served.project("compare", PAIRS[:2])
    node = Path(playwright.__file__).parent / "driver" / "node"
    command = [node, Path(__file__).parent / "studio_firefox.cjs", FIREFOX, tmp_path, f"{served.url}/label/{project}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=90, env=os.environ | {"HOME": str(tmp_path)})
    assert ended.returncode == 0, ended.stderr
    seen = json.loads(ended.stdout)
    assert seen["faults"] == [] and seen["wide"] and seen["done"].startswith("1 done") and "A is" in seen["chosen"]
    ((payload, order, _),) = served.judgments(project)
    assert [payload["ranks"][i] for i in order] == [1, 2] and payload["strength"] == 3
