"""A dialogue of which every answer is learnt: its turns in one row, what they share computed once.

    example = dialogue(template, demonstration, "all")
    example.tree, example.learnt        # learnt: for each completion of the tree, which of its tokens are answers

    [ system user | answer end | user | answer end ]        one completion; the second user turn in it is context
    [ system user | answer end ]                            where a template renders a turn otherwise once it is history
    [             | … user | answer end ]                   (without its thoughts), the turns are branches of one tree
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harken.core.protocols import Template, Tree
from harken.core.records import Demonstration, Message, Prompt
from harken.text.control import Ids

Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class Example:
    """A tree, and for each of its completions which tokens are learnt; `earlier` counts the turns before the last that are."""

    tree: Tree
    learnt: tuple[tuple[bool, ...], ...]
    earlier: int = 0

    @property
    def tokens(self) -> int:
        """How many are learnt."""
        return sum(map(sum, self.learnt))

    def cut(self, tree: Tree) -> Example:
        """Under a length limit: completions lose their ends."""
        return Example(tree, tuple(m[:len(c)] for m, c in zip(self.learnt, tree.completions)), self.earlier)


def is_answer(message: Message) -> bool:
    """Whether a turn can be learnt: one that calls tools is context."""
    return message.role == "assistant" and "tool_calls" not in message.extra and bool(message.content.strip())


def dialogue(template: Template, given: Demonstration, turns: str = "last") -> Example:
    """The last answer of a demonstration, or all of them."""
    messages = given.prompt.messages
    answers = [(Prompt(messages[:i], tools=given.prompt.tools), m.content) for i, m in enumerate(messages)
               if i and turns == "all" and is_answer(m)]
    if not answers:
        tree = template.tree(given.prompt, [given.completion])
        return Example(tree, tuple((True,) * len(c) for c in tree.completions))
    pairs = [(template.prompt_ids(p), template.completion_ids(text)) for p, text in [*answers, (given.prompt, given.completion)]]
    chains = _chains(pairs)
    shared = min(min(spans[0][0] for _, spans in chains), _common([ids for ids, _ in chains]))
    learnt = [[False] * len(ids) for ids, _ in chains]
    for mask, (_, spans) in zip(learnt, chains):
        for start, end in spans:
            mask[start:end] = [True] * (end - start)
    tree = Tree(chains[0][0][:shared], tuple(ids[shared:] for ids, _ in chains))
    return Example(tree, tuple(tuple(mask[shared:]) for mask in learnt), len(answers))


def _chains(pairs: Sequence[tuple[Ids, Ids]]) -> list[tuple[Ids, Spans]]:
    """Turns that follow one another token for token as one text, with the answers' places in it."""
    chains: list[tuple[Ids, Spans]] = []
    for prompt, answer in pairs:
        spans: Spans = []
        if chains and prompt[:len(chains[-1][0])] == chains[-1][0]:
            spans = chains.pop()[1]
        chains.append((prompt + answer, [*spans, (len(prompt), len(prompt) + len(answer))]))
    return chains


def _common(texts: Sequence[Ids]) -> int:
    """How many tokens all texts begin with."""
    first, last = min(texts), max(texts)
    return next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), min(map(len, texts)))


def describe(demonstrations: Sequence[Demonstration], turns: str) -> str | None:
    """What of the earlier turns is learnt and what is context; None where there are none."""
    earlier = [m for d in demonstrations for m in d.prompt.messages if m.role == "assistant"]
    answers = sum(map(is_answer, earlier))
    if not earlier:
        return None
    if turns == "last":
        context = f"{len(earlier)} earlier assistant turns are context (--turns all learns them)"
        return f"{len(demonstrations)} demonstrations; {context}."
    rest = len(earlier) - answers
    context = f"; {rest} that call tools are context" if rest else ""
    return f"{len(demonstrations)} demonstrations; {answers} earlier assistant turns are learnt too{context}."
