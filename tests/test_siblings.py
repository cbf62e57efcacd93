"""Methods repeat no code of each other's: what two need lies in loops/ or objectives/."""

import ast
import difflib
import functools
import itertools
from pathlib import Path

import pytest

import harken.methods

MOST = 0.30
FILES = sorted(p for p in Path(harken.methods.__path__[0]).glob("*.py") if p.name != "__init__.py")


@functools.cache
def own_lines(path):
    """Lines of the bodies of functions, docstrings and the shortest (under 10 characters) left out. Imports, settings and the
    signature of `train` are what every method has."""
    lines, source = set(), path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines |= {n for statement in body for n in range(statement.lineno, statement.end_lineno + 1)}
    return [text for n, line in enumerate(source.splitlines(), 1) if n in lines and len(text := line.strip()) >= 10]


def shared(a, b):
    """The share of a's lines that stand in b too, in the same order."""
    return sum(block.size for block in difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()) / len(a)


def test_the_measure_by_hand(tmp_path):
    """Of a's four lines two stand in b, in order."""
    (tmp_path / "a.py").write_text('def f(x):\n    """Doc."""\n    first = x + 1\n    second = x + 2\n    third = x + 3\n'
                                   "    return first * second * third\n")
    (tmp_path / "b.py").write_text("def g(x):\n    first = x + 1\n    other = x\n    third = x + 3\n    return other\n")
    a, b = (own_lines(tmp_path / name) for name in ("a.py", "b.py"))
    assert len(a) == 4 and shared(a, b) == 0.5


@pytest.mark.parametrize(("one", "other"), itertools.permutations(FILES, 2), ids=lambda p: p.stem)
def test_methods_are_not_copies_of_each_other(one, other):
    assert shared(own_lines(one), own_lines(other)) < MOST
