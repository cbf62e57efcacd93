"""Personal data taken out of judgments before anybody trains on them: in prompts, answers, edits and comments.

    masker = Masker("use")
    trained_on = [masker(j) for j in db.judgments()]
    masker.report()                     # {"judgments": 3, "found": {"email": 2, "phone": 1}}

The database keeps what was said. A masked judgment's prompt carries in `meta["masked_from"]` the id of the prompt as it was
asked, so that lineage finds the judgment.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, get_args

from harken.core.errors import UserError
from harken.core.personal import find, mask
from harken.core.records import Judgment, Prompt

Which = Literal["use", "all", "none"]
"""Whose judgments are masked: `use` those from people's use of a model (served by Harken or imported from a chat tool), `all` or
none."""
TEXTS = ("completion", "original", "comment", "correction")


class Masker:
    """Masks judgments (and prompts), and counts what it found."""

    def __init__(self, which: Which = "use") -> None:
        if which not in get_args(Which):
            raise UserError(f"{which!r} says not whose personal data is masked.", f"Choose one of {', '.join(get_args(Which))}.")
        self.which, self.found, self.judgments = which, Counter[str](), 0
        self._seen: set[tuple[str, str]] = set()

    def __call__(self, judgment: Judgment) -> Judgment:
        if self.which == "none" or (self.which == "use" and not from_use(judgment)):
            return judgment
        prompt, payload = self._prompt(judgment.prompt), self._payload(judgment.payload)
        if not self._count():
            return judgment
        self.judgments += 1
        return dataclasses.replace(judgment, prompt=prompt, payload=payload)

    def prompt(self, prompt: Prompt) -> Prompt:
        """The prompt masked; itself where nothing was found."""
        masked = self._prompt(prompt)
        self._count()
        return masked

    def _prompt(self, prompt: Prompt) -> Prompt:
        messages = tuple(dataclasses.replace(m, content=self._text(m.content)) for m in prompt.messages)
        if messages == prompt.messages:
            return prompt
        return dataclasses.replace(prompt, messages=messages, meta={**prompt.meta, "masked_from": prompt.id})

    def report(self) -> dict[str, Any]:
        """What was masked, for a snapshot's description."""
        return {"judgments": self.judgments, "found": dict(sorted(self.found.items()))}

    def describe(self) -> str | None:
        """A line for a person, or None where nothing was found."""
        if not self.found:
            return None
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in sorted(self.found.items()))
        return f"Personal data masked in {self.judgments:,} judgments: {kinds}."

    def _count(self) -> bool:
        """Adds up what was found in one judgment: a number that stands in it twice is one."""
        found = bool(self._seen)
        self.found.update(kind for kind, _ in self._seen)
        self._seen.clear()
        return found

    def _text(self, text: str) -> str:
        self._seen |= {(kind, value) for kind, values in find(text).items() for value in values}
        return mask(text)[0]

    def _payload(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = dict(payload)
        for name in TEXTS:
            if isinstance(result.get(name), str):
                result[name] = self._text(result[name])
        if isinstance(result.get("completions"), list):
            result["completions"] = [self._text(text) for text in result["completions"]]
        if result.get("spans") and result.get("completion") != payload.get("completion"):
            result["spans"] = []  # they count characters of the text as it was
        for name in ("served", "imported"):
            if name in result:
                result[name] = self._comments(result[name])
        return result

    def _comments(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._comments(v) for v in value]
        if isinstance(value, Mapping):
            return {k: self._text(v) if k in ("comment", "reason") and isinstance(v, str) else v for k, v in value.items()}
        return value


def from_use(judgment: Judgment) -> bool:
    """Whether it is of somebody's use of a model: served by Harken, or imported from a chat or tracing tool."""
    return (judgment.form_version or "").startswith("serve:") or "served" in judgment.payload or "imported" in judgment.payload
