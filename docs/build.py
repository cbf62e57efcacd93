"""Writes the generated parts of docs/: the table of pitfalls, each method's settings, and new pages into the site's menu.

    make docs                    # or: python docs/build.py --check, which only says what is out of date
"""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harken.core.config import TrainConfig, field_docs
from harken.launch.find import find_method, method_names

DOCS = Path(__file__).parent
TESTS = DOCS.parent / "tests"
MENU = DOCS.parent / "mkdocs.yml"
OPEN, CLOSE = "<!-- settings: written by make docs -->", "<!-- /settings -->"


def pitfalls(page: str) -> str:
    """The page with the last column of its table as the tests' names say now."""
    held: dict[str, list[str]] = defaultdict(list)
    for file in sorted(TESTS.glob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and (numbers := re.match(r"test((?:_[pef]\d+)+)_", node.name)):
                for number in re.findall(r"[pef]\d+", numbers[1]):
                    held[number.upper()].append(f"`{file.name}::{node.name}`")
    lines = []
    for line in page.splitlines():
        if row := re.match(r"\| ([PEF]\d+) \| (.*?) \|", line):
            line = f"| {row[1]} | {row[2]} | {'<br>'.join(held.pop(row[1], ['none']))} |"
        lines.append(line)
    if held:
        sys.exit(f"docs/pitfalls.md names no {', '.join(sorted(held))}: add a row with what the trap is")
    return "\n".join(lines) + "\n"


def settings(name: str, page: str) -> str:
    """A method's page with the table of its own settings; those of every method are in docs/methods/index.md."""
    config = find_method(name).Config
    common = {f.name: f.default for f in dataclasses.fields(TrainConfig)}
    own = [f for f in dataclasses.fields(config) if f.name not in common or f.default != common[f.name]]
    table = _table(own, field_docs(config))
    block = f"{OPEN}\n{table}\n{CLOSE}"
    if OPEN in page:
        return page[:page.index(OPEN)] + block + page[page.index(CLOSE) + len(CLOSE):]
    return page.rstrip("\n") + f"\n\n{block}\n"


def common() -> str:
    table = _table(dataclasses.fields(TrainConfig), field_docs(TrainConfig))
    return f"# Settings of every method\n\nA method's own are on its page.\n\n{table}\n"


def menu(text: str, pages: Iterable[str]) -> str:
    """mkdocs.yml with the pages of methods, rewards and evaluations that its menu lacks, after the last of their folder."""
    lines = text.splitlines()
    for page in pages:
        entry = f"      - {page}"
        if entry not in lines:
            folder = f"      - {page.partition('/')[0]}/"
            lines.insert(max(n for n, line in enumerate(lines) if line.startswith(folder)) + 1, entry)
    return "\n".join(lines) + "\n"


def _table(fields: Iterable[Any], docs: dict[str, str]) -> str:
    rows = ["| setting | default | |", "|---|---|---|"]
    for f in fields:
        if f.name not in docs:
            sys.exit(f"the setting {f.name} has no docstring: write what it is under its line")
        rows.append(f"| `--{f.name.replace('_', '-')}` | {f.default} | {docs[f.name].replace('|', '/')} |")
    return "\n".join(rows)


def main() -> None:
    traps = DOCS / "pitfalls.md"
    pages = {traps: pitfalls(traps.read_text(encoding="utf-8")), DOCS / "methods" / "settings.md": common()}
    for name in method_names():
        path = DOCS / "methods" / f"{name}.md"
        if not path.exists():
            sys.exit(f"docs/methods/{name}.md is missing: write a page with a table | metric | meaning | of what {name} logs")
        pages[path] = settings(name, path.read_text(encoding="utf-8"))
    ours = (str(p.relative_to(DOCS)) for folder in ("methods", "rewards", "evals") for p in sorted((DOCS / folder).glob("*.md")))
    pages[MENU] = menu(MENU.read_text(encoding="utf-8"), ours)
    stale = [p for p, text in pages.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        sys.exit(f"out of date: {', '.join(p.name for p in stale)}; run make docs" if stale else 0)
    for path in stale:
        path.write_text(pages[path], encoding="utf-8")
        print(f"wrote {path.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main()
