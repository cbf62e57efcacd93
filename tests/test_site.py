"""The pages as a site: every page is in its menu, every link has a target, and mkdocs builds it without a warning."""

import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MKDOCS = shutil.which("mkdocs", path=f"{ROOT / '.site/bin'}{os.pathsep}{os.environ.get('PATH', '')}")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def menu(entries):
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            (value,) = entry.values()
            yield from menu([value] if isinstance(value, str) else value)


def test_every_page_is_in_the_menu_once():
    named = list(menu(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = sorted(str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md"))
    assert sorted(named) == pages, "make docs adds a method's, reward's or evaluation's page to mkdocs.yml; others by hand"


def test_a_new_page_is_added_to_the_menu_after_its_kin():
    menu_of = runpy.run_path(str(DOCS / "build.py"))["menu"]
    text = "nav:\n  - Rewards:\n      - rewards/a.md\n      - rewards/c.md\n  - Evaluations:\n      - evals/a.md\n"
    assert menu_of(text, ["rewards/a.md", "rewards/c.md", "evals/a.md"]) == text
    longer = text.replace("c.md\n", "c.md\n      - rewards/b.md\n") + "      - evals/b.md\n"
    assert menu_of(text, ["rewards/b.md", "evals/b.md"]) == longer


def test_every_link_of_a_page_has_a_target_in_docs():
    broken = [f"{page.relative_to(ROOT)}: {target}" for page in DOCS.rglob("*.md") for target in LINK.findall(page.read_text())
              if "://" not in target and not target.startswith("mailto:")
              and not ((page.parent / target).exists() and (page.parent / target).resolve().is_relative_to(DOCS))]
    assert not broken


@pytest.mark.slow
@pytest.mark.skipif(MKDOCS is None, reason="mkdocs is not installed: make site-tools")
def test_it_builds_without_a_warning(tmp_path):
    done = subprocess.run([MKDOCS, "build", "-q", "--strict", "-d", str(tmp_path / "site")], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "fit_reliability" in (tmp_path / "site/api/index.html").read_text()
