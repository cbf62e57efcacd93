"""Violations of Python's style guide PEP 8, by pycodestyle, as in pretraining with human feedback (2302.08582).

    pip install 'harken[scorers]'
    harken score --reward pep8 --data comparisons.jsonl --out scores.jsonl

The score is minus the number of violations per 100 characters: 0 is clean, higher is better. In an answer with fenced code
blocks only these are checked; otherwise the whole text is taken for code. It says nothing of whether the code runs.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate

from harken.core.errors import UserError
from harken.core.records import Prompt
from harken.text.scorer import TextReward

FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.S | re.M)


def code_of(text: str) -> str:
    """The fenced blocks, one after another; without any the text itself."""
    blocks = FENCE.findall(text)
    return "\n\n".join(blocks) if blocks else text


def lines_of(code: str) -> list[str]:
    """Lines with their line feeds, which alone end a line."""
    return re.findall(r"[^\n]*\n|[^\n]+$", code)


class PEP8(TextReward):
    """Minus the violations per 100 characters of code."""

    def __init__(self) -> None:
        try:
            import pycodestyle
        except ImportError:
            raise UserError("pycodestyle is not installed.", "PEP 8 needs: pip install 'harken[scorers]'") from None
        self._style = pycodestyle.StyleGuide(quiet=True)
        self.id = f"pep8/1/pycodestyle-{pycodestyle.__version__}"

    def violations(self, code: str) -> Counter[str] | None:
        """How often each of pycodestyle's codes (E501, W291, …) was found; None where pycodestyle itself fails, as it does on
        some broken code (an IndexError among its continuation lines)."""
        import pycodestyle
        report = pycodestyle.BaseReport(self._style.options)
        try:
            pycodestyle.Checker("answer.py", lines_of(code), options=self._style.options, report=report).check_all()
        except Exception:  # pycodestyle's own
            return None
        return Counter({k: n for k, n in report.counters.items() if re.fullmatch(r"[EW]\d+", k)})

    def rate_segments(self, text: str, ends: Sequence[int]) -> list[float | None]:
        """The violations of whole code, per 100 characters of the segment in which each stands: a line by itself would be
        blamed for its indentation."""
        import pycodestyle
        broken: list[int] = []

        class Lines(pycodestyle.BaseReport):  # type: ignore[misc]
            def error(self, line_number: int, offset: int, text: str, check: object) -> None:
                if re.fullmatch(r"[EW]\d+", super().error(line_number, offset, text, check) or ""):
                    broken.append(line_number)

        lines = lines_of(text)
        report = Lines(self._style.options)
        pycodestyle.Checker("answer.py", lines, options=self._style.options, report=report).check_all()
        starts = [0, *accumulate(map(len, lines))]
        counts = Counter(bisect_right(ends, starts[min(max(n, 1), len(lines)) - 1]) for n in broken)
        return [-100.0 * counts[i] / (b - a) for i, (a, b) in enumerate(zip([0, *ends], ends))]

    def rate(self, text: str) -> float | None:
        code = code_of(text)
        if not code.strip():
            return 0.0
        found = self.violations(code)
        return None if found is None else -100.0 * found.total() / len(code)

    def explain(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]) -> list[list[Mapping[str, float] | None]]:
        """Violations per 100 characters by code, negative: they add up to the score."""
        def one(code: str) -> Mapping[str, float] | None:
            found = self.violations(code) if code.strip() else Counter[str]()
            return None if found is None else {k: -100.0 * n / len(code) for k, n in found.items()}
        return [[one(code_of(t)) for t in row] for row in completions]


def open_scorer(argument: str = "") -> PEP8:
    return PEP8()
