"""Messages to token ids, and completions to the tokens that are learnt.

The prompt is the chat template with its generation prompt, as it stands. A completion is its text and what ends the answer's
turn in the template; where the template writes a blank or a channel between the two, the completion begins with it. They are
never re-tokenised together, so sampled ids and trained ids are the same ids (P20). What people write is never control (P34).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import date
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.protocols import Tree
from harken.core.records import Prompt, content_hash
from harken.text.calls import readable
from harken.text.control import Ids, Tokens, check_unicode
from harken.text.provenance import trace
from harken.text.rendering import compile_template
from harken.text.turn import ANSWER, QUESTION, Turn, find_turn, in_context, said, text_end
from harken.text.unwritten import pattern, unwritten

Messages = Sequence[Mapping[str, Any]]
NO_TEMPLATE = ("The model has no chat template: messages are joined by line breaks, without their roles. Name one with "
               "--template (chatml, vicuna, alpaca, … or a file).")
COUNTED = {"end": "Answers with an end marker of their own: {n}; it was taken off, since the template writes one.",
           "system": "Conversations with a system turn, which the template does not know: {n}; its text opens the user's."}
UNWRITTEN = ("The template does not write {what}, so the model does not see them. Conversations that have them: {n}. "
             "Another template: --template.")
TODAY: ContextVar[date | None] = ContextVar("today", default=None)


def fix_date(day: date | None) -> None:
    """The day that templates print from now on, unless a model was saved with its own; None is the clock's (P35)."""
    TODAY.set(day)


def shipped_templates() -> list[str]:
    """Names of the templates that ship."""
    return sorted(f.name.removesuffix(".jinja") for f in files("harken.text").joinpath("templates").iterdir()
                  if f.name.endswith(".jinja"))


def read_template(name: str) -> str:
    """A template that ships, or a file's. Raises `UserError` where it is neither."""
    if name in shipped_templates():
        return files("harken.text").joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError):
        raise UserError(f"There is no chat template {name!r}.",
                        f"--template takes {', '.join(shipped_templates())}, or a file of Jinja.") from None


class Template:
    """A tokenizer seen as prompts in, completions out. `day` is the date it prints, if a run has fixed one.

    Raises `UserError` (on first use, or by `check`) for a template that writes no answer or whose answers nothing ends.
    """

    def __init__(self, tokenizer: Any, *, day: date | None = None) -> None:
        self.tokenizer, self.own_day = tokenizer, day
        self.chat = getattr(tokenizer, "chat_template", None) is not None
        self.tokens = Tokens(tokenizer)
        self._counted: dict[str, set[int]] = defaultdict(set)
        self._unwritten: dict[tuple[Any, ...], tuple[str, ...]] = {}

    def using(self, source: str) -> Template:
        """The same tokenizer under another template, which it is saved with."""
        self.tokenizer.chat_template = source
        return Template(self.tokenizer, day=self.own_day)

    # --- the template --------------------------------------------------------------------------------

    @property
    def day(self) -> date:
        """The date it prints."""
        return self.own_day or TODAY.get() or date.today()

    @cached_property
    def dated(self) -> bool:
        """Whether what it renders depends on the day."""
        days = (date(2001, 1, 1), date(2022, 12, 31))
        return self.chat and len({self._render([said("user", QUESTION)], (), True, day=day) for day in days}) > 1

    def _render(self, messages: Messages, tools: Messages, opened: bool, day: date | None = None) -> str:
        # gpt-oss reads a message's thoughts by another name
        given = [{"thinking": m["reasoning_content"], **m} if "reasoning_content" in m else m for m in messages]
        try:
            described = list(tools) or None
            render = compile_template(self.tokenizer.get_chat_template(tools=described))
            return render(given, tools=described, opened=opened, day=day or self.day, **self.tokenizer.special_tokens_map)
        except Exception as error:  # Jinja templates raise whatever their author chose
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise UserError(f"The model's chat template refuses this conversation: {reason}.",
                            "Check the order of roles, or give another with --template.") from None

    @cached_property
    def _takes_system(self) -> bool:
        try:
            return ANSWER in self._render([said("system", ANSWER), said("user", QUESTION)], (), True)
        except UserError:
            return False

    def _conversation(self, prompt: Prompt) -> list[dict[str, Any]]:
        """A prompt's messages as the template takes them: where it knows no system turn, that opens the user's."""
        messages = [m.to_json() for m in prompt.messages]
        if messages[0]["role"] != "system" or len(messages) == 1 or messages[1]["role"] != "user" or self._takes_system:
            return messages
        self._counted["system"].add(hash(prompt.id))
        return [{**messages[1], "content": messages[0]["content"] + "\n\n" + messages[1]["content"]}, *messages[2:]]

    @property
    def hash(self) -> str:
        """Of what it renders: probe conversations, and how an answer opens and ends."""
        probes = [[said("user", QUESTION)], [said("system", "Be brief."), said("user", QUESTION)],
                  [said("user", QUESTION), said("assistant", ANSWER), said("user", "next")]]
        rendered: list[str | None] = []
        for probe in probes if self.chat else []:
            try:
                rendered.append(self._render(probe, (), True))
            except UserError:
                rendered.append(None)
        turn = self.turn
        return content_hash([rendered, turn.scaffold, turn.blank, turn.gap, turn.end])[:16]

    # --- the answer's turn ---------------------------------------------------------------------------

    @cached_property
    def turn(self) -> Turn:
        if not self.chat:
            end = text_end(self.tokens, "The tokenizer has neither a chat template nor an end-of-text token.")
            return Turn("", "", "", end, notes=(NO_TEMPLATE,))
        return find_turn(lambda messages, opened: self._render(messages, (), opened), self.tokens)

    def check(self) -> None:
        """Raises `UserError` where answers cannot be told apart or never end."""
        assert self.stop_ids

    @property
    def notes(self) -> tuple[str, ...]:
        """What its user should know of it."""
        return self.turn.notes

    @property
    def end_id(self) -> int:
        return self.turn.end

    @cached_property
    def stop_ids(self) -> Ids:
        return tuple(sorted({self.end_id} | ({self.tokenizer.eos_token_id} - {None})))

    @cached_property
    def _before(self) -> Ids | None:
        return in_context(self.turn, self.tokens) if self.chat else None

    # --- ids -----------------------------------------------------------------------------------------

    def prompt_ids(self, prompt: Prompt) -> Ids:
        """The conversation up to and including the opening of the assistant's turn; one BOS at most (P15)."""
        if self.chat:
            messages = self._conversation(prompt)
            self._count_unwritten(prompt, messages)
            return self._rendered_ids(messages, prompt.tools, True)
        return self.continued_ids("\n".join(m.content for m in prompt.messages))

    def _count_unwritten(self, prompt: Prompt, messages: Messages) -> None:
        """Counts what the template drops of a conversation; each pattern of turns is tried once."""
        shape = pattern(messages, prompt.tools)
        if shape not in self._unwritten:
            def written(probes: Messages, tools: Messages) -> str:
                return self._render(readable(probes, lambda m: self._render(m, tools, True)), tools, True)
            self._unwritten[shape] = unwritten(messages, prompt.tools, written)
        for what in self._unwritten[shape]:
            self._counted[what].add(hash(prompt.id))

    def _rendered_ids(self, messages: Messages, tools: Messages, opened: bool) -> Ids:
        return self.tokens.encode(*self._traced(messages, tools, opened))

    def _traced(self, messages: Messages, tools: Messages, opened: bool) -> tuple[str, list[bool]]:
        """The rendered text, and for each of its characters whether a person may have forged a token with it."""
        given = readable(messages, lambda m: self._render(m, tools, opened))
        text = self._render(given, tools, opened)
        check_unicode(text)
        if not _any_text([given, list(tools)], self.tokens.risky):
            return text, [False] * len(text)
        control = list(self.tokens.control.values())
        return trace(lambda m, t: self._render(m, t, opened), given, tools, self.tokens.risky, control)

    def answered(self, question: str, answer: str) -> str:
        """A conversation of two turns as the template writes it."""
        return self._render([said("user", question), said("assistant", answer)], (), False)

    def rendered(self, messages: Messages, begun: str | None = None) -> tuple[str, list[bool]]:
        """A conversation as text that the model is to answer, or whose answer it is to go on with after the text `begun`; and
        for each character whether it is to be read as text even where it spells a control token (`Tokens.encode`)."""
        text, written = self._traced(messages, (), True)
        if begun is None:
            return text, written
        opening = self.turn.scaffold + self.turn.blank
        return text + opening + begun, [*written, *[False] * len(opening), *[True] * len(begun)]

    def _joined_ids(self, text: str) -> Ids:
        """A text with the tokens that the tokenizer puts around every text."""
        check_unicode(text)
        ids, bare, own = tuple(self.tokenizer(text).input_ids), self.tokens.parse(text), self.tokens.encode_written(text)
        if own != bare:
            at = next(i for i in range(len(ids) + 1) if ids[i:i + len(bare)] == bare)
            ids = (*ids[:at], *own, *ids[at + len(bare):])
        # Some tokenizers close every text; an answer cannot follow the end.
        return ids[:-1] if len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id else ids

    def completion_ids(self, text: str) -> Ids:
        """The text's tokens and what ends the turn; an end marker that the text brings is taken off, once, and counted."""
        turn, text = self.turn, self._without_end(text)
        return (*self._scaffold_ids, *self._body_ids(turn.blank + text + turn.gap), turn.end)

    @cached_property
    def _scaffold_ids(self) -> Ids:
        return self.tokens.parse(self.turn.scaffold)

    def _body_ids(self, body: str) -> Ids:
        if (before := self._before) is not None:
            text = self.turn.before
            ids = self.tokens.encode(text + body, [False] * len(text) + [True] * len(body))
            if ids[:len(before)] == before:
                return ids[len(before):]
        return self.tokens.encode_written(body)

    def _without_end(self, text: str) -> str:
        bare = text.rstrip()
        for token in self.stop_ids:
            marker = self.tokens.control.get(token, "")
            if marker and bare.endswith(marker):
                self._counted["end"].add(len(self._counted["end"]))
                return bare.removesuffix(marker).removesuffix(self.turn.gap)
        return text

    def continued_ids(self, text: str) -> Ids:
        """A text that a model is to continue, with what the tokenizer puts before every text; the end token where it is empty."""
        return self._joined_ids(text) or (self.end_id,)

    def text_ids(self, text: str) -> Ids:
        """A text by itself, as people write it: documents, not turns."""
        return self.tokens.encode_written(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of sampled ids, without what opens and ends the turn; control tokens amid it are shown."""
        finished = bool(ids) and ids[-1] in self.stop_ids
        body, scaffold = tuple(ids[:-1] if finished else ids), self._scaffold_ids
        if scaffold and body[:len(scaffold)] == scaffold:
            body = body[len(scaffold):]
        before = self.tokenizer.decode(self._before or ())
        text = str(self.tokenizer.decode((*(self._before or ()), *body)))
        text = text[len(before):] if text.startswith(before) else str(self.tokenizer.decode(body))
        text = text.removeprefix(self.turn.blank)
        return text.removesuffix(self.turn.gap) if finished else text

    def tree(self, prompt: Prompt, completions: Sequence[str]) -> Tree:
        return Tree(self.prompt_ids(prompt), tuple(self.completion_ids(c) for c in completions))

    def counted(self) -> list[str]:
        """What was changed in what people gave, since last asked."""
        notes = [COUNTED.get(name, UNWRITTEN).format(n=len(texts), what=name) for name, texts in self._counted.items()]
        self._counted.clear()
        return notes


def _any_text(value: Any, test: Callable[[str], bool]) -> bool:
    if isinstance(value, str):
        return test(value)
    if isinstance(value, Mapping):
        return any(_any_text(k, test) or _any_text(v, test) for k, v in value.items())
    return isinstance(value, list | tuple) and any(_any_text(v, test) for v in value)
