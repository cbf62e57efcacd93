"""Trees under a length limit, and those that several people judged once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harken.core.errors import UserError
from harken.core.protocols import Tree
from harken.core.records import Choice


@dataclass
class Fitted:
    """Trees that fit, and what happened to those that did not (P29): read = kept + dropped."""

    trees: list[Tree]
    kept: list[int]
    dropped: int = 0
    truncated: int = 0

    def keep(self, wanted: Sequence[bool]) -> None:
        """Drops the trees of which the limit left nothing to learn."""
        gone = len(wanted) - sum(wanted)
        self.trees = [t for t, w in zip(self.trees, wanted) if w]
        self.kept = [i for i, w in zip(self.kept, wanted) if w]
        self.dropped, self.truncated = self.dropped + gone, self.truncated - gone

    def describe(self, what: str, limit: int) -> str | None:
        cut = [f"dropped {self.dropped}" if self.dropped else "", f"truncated {self.truncated}" if self.truncated else ""]
        cut = [c for c in cut if c]
        if not cut:
            return None
        return f"Over {limit} tokens: {' and '.join(cut)} of {len(self.kept) + self.dropped} {what}."


def fit(trees: Sequence[Tree], limit: int, overlong: str) -> Fitted:
    """Applies the length limit to prompt + each completion: drop, truncate or fail.

    Truncation keeps the prompt's end (the question and the opened turn) and the completion's start,
    and never the end-of-turn token of a cut completion: the model must not learn to stop there.
    """
    if overlong not in ("drop", "truncate", "fail"):
        raise UserError(f"--overlong {overlong!r} is unknown.", "Use drop, truncate or fail.")
    if limit < 2:
        raise UserError(f"--max-length {limit} leaves no room for a prompt and an answer.", "Give it 2 or more.")
    result = Fitted([], [])
    for i, tree in enumerate(trees):
        longest = max(map(len, tree.completions), default=0)
        total = len(tree.prompt) + longest
        if total > limit:
            if overlong == "fail":
                raise UserError(f"Example {i + 1} has {total} tokens, over max_length {limit}.",
                                "Raise --max-length, or choose --overlong drop or truncate.")
            if overlong == "drop":
                result.dropped += 1
                continue
            keep = max(limit - longest, limit // 2)
            prompt = tree.prompt[-keep:]
            tree = Tree(prompt, tuple(c[: limit - len(prompt)] for c in tree.completions))
            result.truncated += 1
        result.trees.append(tree)
        result.kept.append(i)
    return result


def distinguishes(choice: Choice) -> bool:
    """Whether it prefers one text to another: a ranking of a text above itself says nothing."""
    return any(choice.options[i] != choice.options[j] for i, j in choice.pairs())


def describe_same(count: int) -> str | None:
    """What is said of rankings that do not distinguish though they rank."""
    return f"{count} rankings compare an answer with itself and say nothing: they are left out with the ties." if count else None


def by_options(rankings: Sequence[tuple[Choice, Tree]]) -> list[tuple[Tree, list[Choice]]]:
    """Each set of completions once, with everybody's rankings of it, put into the order of the first: what several people
    judged is computed once."""
    merged: dict[Any, tuple[Tree, list[int], list[Choice]]] = {}
    for choice, tree in rankings:
        order = sorted(range(len(tree.completions)), key=lambda i: tree.completions[i])
        key = (tree.prompt, tuple(tree.completions[i] for i in order))
        _, place, choices = merged.setdefault(key, (tree, order, []))
        moved = dict(zip(place, order))
        choices.append(replace(choice, options=tuple(choice.options[moved[i]] for i in range(len(order))),
                               ranks=tuple(choice.ranks[moved[i]] for i in range(len(order)))))
    return [(tree, choices) for tree, _, choices in merged.values()]
