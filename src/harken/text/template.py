"""Messages to token ids, and completions to the tokens that are learnt.

The prompt is the tokenizer's own chat template with its generation prompt; a completion is its
text tokenised alone plus the end-of-turn token, which is learnt like any other (P12). The two are
never re-tokenised together, so sampled ids and trained ids are the same ids (P20).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harken.core.errors import UserError
from harken.core.protocols import Tree
from harken.core.records import Choice, Message, Prompt, content_hash

_MARK = "\u2063answer\u2063"


class Template:
    """A tokenizer seen as prompts in, completions out."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.chat = getattr(tokenizer, "chat_template", None) is not None
        self.end_id = self._end_of_turn()
        self.stop_ids = tuple(sorted({self.end_id} | ({tokenizer.eos_token_id} - {None})))

    def _render(self, messages: Sequence[Message], opened: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template([m.to_json() for m in messages], tokenize=False,
                                                      add_generation_prompt=opened)
        except Exception as error:  # Jinja templates raise whatever their author chose
            raise UserError(f"The model's chat template refuses this conversation: {error}.",
                            "Check the order of roles, or use a model with another template.") from None
        return str(text)

    def _end_of_turn(self) -> int:
        eos = self.tokenizer.eos_token_id
        if not self.chat:
            if eos is None:
                raise UserError("The tokenizer has neither a chat template nor an end-of-text token.",
                                "Use a model whose tokenizer has one of them.")
            return int(eos)
        user = Message("user", "question")
        opened = self._render([user], True)
        whole = self._render([user, Message("assistant", _MARK)], False)
        head, found, tail = whole.partition(_MARK)
        if not found or head != opened:
            raise UserError("The model's chat template does not open the assistant's turn as it renders it.",
                            "Without that the answer's tokens cannot be told apart; use another template (P12).")
        ids = self.tokenizer(tail, add_special_tokens=False).input_ids
        special = set(self.tokenizer.all_special_ids)
        ends = [i for i in ids if i in special]
        if not ends and eos is None:
            raise UserError("The model's chat template ends a turn with no special token.",
                            "The model could not learn to stop; use another template (P12).")
        return int(ends[0] if ends else eos)

    @property
    def hash(self) -> str:
        return content_hash([self.tokenizer.chat_template if self.chat else None, self.end_id])[:16]

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The conversation up to and including the opening of the assistant's turn; one BOS at most (P15)."""
        if self.chat:
            text = self._render(prompt.messages, True)
            return self._ids(text)
        ids = self._ids("\n".join(m.content for m in prompt.messages), special=True)
        # Some tokenizers close every text; an answer cannot follow the end.
        return ids[:-1] if len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id else ids

    def completion_ids(self, text: str) -> tuple[int, ...]:
        """The text's tokens and the end-of-turn token."""
        return (*self._ids(text), self.end_id)

    def _ids(self, text: str, special: bool = False) -> tuple[int, ...]:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            around = text[max(0, error.start - 20):error.start + 20]
            raise UserError(f"A text holds broken Unicode (half a surrogate pair) in {around!r}.",
                            "Correct it in the data, or leave that line out.") from None
        return tuple(self.tokenizer(text, add_special_tokens=special).input_ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of sampled ids, the stop token left out."""
        kept = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
        return str(self.tokenizer.decode(kept, skip_special_tokens=True))

    def tree(self, prompt: Prompt, completions: Sequence[str]) -> Tree:
        return Tree(self.prompt_ids(prompt), tuple(self.completion_ids(c) for c in completions))


@dataclass
class Fitted:
    """Trees that fit, and what happened to those that did not (P29): read = kept + dropped."""

    trees: list[Tree]
    kept: list[int]
    dropped: int = 0
    truncated: int = 0

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


def by_options(rankings: Sequence[tuple[Choice, Tree]]) -> list[tuple[Tree, list[Choice]]]:
    """Each set of completions once, with everybody's rankings of it, put into the order of the first: what several people
    judged is computed once."""
    found: dict[Any, tuple[Tree, list[int], list[Choice]]] = {}
    for choice, tree in rankings:
        order = sorted(range(len(tree.completions)), key=lambda i: tree.completions[i])
        key = (tree.prompt, tuple(tree.completions[i] for i in order))
        _, place, choices = found.setdefault(key, (tree, order, []))
        moved = dict(zip(place, order))
        choices.append(replace(choice, options=tuple(choice.options[moved[i]] for i in range(len(order))),
                               ranks=tuple(choice.ranks[moved[i]] for i in range(len(order)))))
    return [(tree, choices) for tree, _, choices in found.values()]
