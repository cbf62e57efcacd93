"""The nouns: what people said, and the views of it that learning uses.

Every record is frozen and knows its JSON form (`to_json`, `from_json`). `from_json` raises
`ValueError` with the reason alone; readers add the file and the line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from harken.core.formats import is_dialogue

Role = Literal["system", "user", "assistant", "tool"]
PromptKind = Literal["plain", "few_shot", "user"]
JudgmentKind = Literal["demonstration", "ranking", "rating", "edit", "thumb", "use", "prompt", "questions"]

Json = dict[str, Any]

PROMPT_KINDS = frozenset(get_args(PromptKind))
JUDGMENT_KINDS = frozenset(get_args(JudgmentKind))
EXTRA = ("tool_calls", "tool_call_id", "name", "reasoning_content")
"""What a message may hold beside role and content, in the shape of OpenAI's chat API: chat templates render it."""


ANSWER_FIELDS = ("original", "completion", "spans", "score", "label", "flags", "prompt_flags", "weight", "criterion")
"""What the exchange shape of one judged answer holds beside its prompt."""


def content_hash(value: object) -> str:
    """SHA-256 (hex) of a value's canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f'"{name}" must be a string, found {type(value).__name__}')
    return value


def repeats(texts: Iterable[str]) -> bool:
    """Whether two of the texts are the same: whoever compares them compares an answer with itself."""
    given = list(texts)
    return len(set(given)) < len(given)


def _optional_text(value: object, name: str) -> str | None:
    return None if value is None else _text(value, name)


def group_of(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError('"group" must be an object of strings, like {"age": "30-39"}')
    return {str(k): v for k, v in value.items()}


def _tags(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise ValueError('"tags" must be a list of strings')
    return tuple(value)


def _meta(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f'"meta" must be an object, found {type(value).__name__}')
    return dict(value)


def number_of(value: object, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError(f'"{name}" must be a number of at least 0, found {value!r:.40}')
    return value


def _tools(value: object) -> tuple[Mapping[str, Any], ...]:
    if not value:
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise ValueError('"tools" must be a list of objects')
    return tuple(value)


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. `extra` holds what turns around tools have besides (the keys `EXTRA`), as given."""

    role: Role
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def to_json(self) -> Json:
        return {"role": self.role, "content": self.content, **self.extra}

    @classmethod
    def from_json(cls, value: object) -> Message:
        if not isinstance(value, Mapping):
            raise ValueError(f"a message must be an object, found {type(value).__name__}")
        given = value.get("role")
        role: Role | None = "system" if given == "developer" else given
        if role is None or role not in get_args(Role):
            raise ValueError(f"message role {given!r} is not one of {', '.join(get_args(Role))}")
        extra = {key: value[key] for key in EXTRA if value.get(key)}
        content = value.get("content")
        return cls(role, "" if content is None and "tool_calls" in extra else _text(content, "content"), extra)


@dataclass(frozen=True)
class Prompt:
    """What the model is asked: messages, the last from the user (or a system message alone)."""

    messages: tuple[Message, ...]
    use_case: str | None = None
    kind: PromptKind = "plain"
    tags: tuple[str, ...] = ()
    split: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)
    tools: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    """Descriptions of tools (JSON schema) that the model may call: chat templates render them."""

    @property
    def id(self) -> str:
        """Content hash of the messages (and tools, where there are any), 16 hex digits: equal prompts have equal ids."""
        messages: Any = [m.to_json() for m in self.messages]
        return content_hash([messages, list(self.tools)] if self.tools else messages)[:16]

    @property
    def text(self) -> str:
        """The last message's content."""
        return self.messages[-1].content

    @classmethod
    def of(cls, text: str, **fields: Any) -> Prompt:
        return cls((Message("user", text),), **fields)

    def to_json(self) -> Json:
        one = len(self.messages) == 1 and self.messages[0].role == "user" and not self.messages[0].extra
        one = one and not is_dialogue(self.text)  # an importer would take such a text for several turns
        row: Json = {"prompt": self.text if one else [m.to_json() for m in self.messages]}
        if self.use_case is not None:
            row["use_case"] = self.use_case
        if self.kind != "plain":
            row["kind"] = self.kind
        if self.tags:
            row["tags"] = list(self.tags)
        if self.split is not None:
            row["split"] = self.split
        if self.meta:
            row["meta"] = dict(self.meta)
        if self.tools:
            row["tools"] = [dict(t) for t in self.tools]
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Prompt:
        """Reads the exchange shape: `prompt` is a string or a list of messages."""
        raw = row.get("prompt")
        if isinstance(raw, str):
            messages: tuple[Message, ...] = (Message("user", raw),)
        elif isinstance(raw, list):
            messages = tuple(Message.from_json(m) for m in raw)
        else:
            kind = "nothing" if raw is None else type(raw).__name__
            raise ValueError(f'"prompt" must be a string or a list of messages, found {kind}')
        return cls.checked(messages, row)

    @classmethod
    def checked(cls, messages: tuple[Message, ...], row: Mapping[str, Any]) -> Prompt:
        """A prompt of these messages and a row's other fields.

        Raises `ValueError` where it asks nothing, or the assistant spoke last."""
        if not messages or not any(m.content.strip() for m in messages):
            raise ValueError('"prompt" is empty')
        if messages[-1].role == "assistant":
            raise ValueError('"prompt" must end before the assistant\'s turn')
        kind = row.get("kind", "plain")
        if kind not in PROMPT_KINDS:
            kind = "plain"
        return cls(messages, _optional_text(row.get("use_case"), "use_case"), kind,
                   _tags(row.get("tags")), _optional_text(row.get("split"), "split"), _meta(row.get("meta")),
                   _tools(row.get("tools")))


@dataclass(frozen=True)
class Completion:
    """One answer to a prompt. `source` names the run, model and settings, or the labeler."""

    prompt_id: str
    text: str
    source: str

    @property
    def id(self) -> str:
        return content_hash([self.prompt_id, self.text, self.source])[:16]


@dataclass(frozen=True)
class Demonstration:
    """The answer a labeler would want to see. Exchange file `demonstrations`."""

    prompt: Prompt
    completion: str
    labeler: str | None = None
    group: Mapping[str, str] = field(default_factory=dict, hash=False)
    weight: float | None = None
    """How much the source says it counts; kept, and used by no method yet."""

    def to_json(self) -> Json:
        row = self.prompt.to_json() | {"completion": self.completion}
        if self.weight is not None:
            row["weight"] = self.weight
        if self.labeler is not None:
            row["labeler"] = self.labeler
        if self.group:
            row["group"] = dict(self.group)
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Demonstration:
        completion = _text(row.get("completion"), "completion")
        if not completion.strip():
            raise ValueError('"completion" is empty')
        return cls(Prompt.from_json(row), completion, _optional_text(row.get("labeler"), "labeler"),
                   group_of(row.get("group")), number_of(row.get("weight"), "weight"))


@dataclass(frozen=True)
class Choice:
    """What one judgment says about preference. Exchange file `comparisons`.

    `ranks[i]` belongs to `options[i]`; 1 is best, equal ranks are ties.
    """

    prompt: Prompt
    options: tuple[str, ...]
    ranks: tuple[int, ...]
    labeler: str | None = None
    group: Mapping[str, str] = field(default_factory=dict, hash=False)
    kind: JudgmentKind = "ranking"
    strength: float | None = None
    """How clear the preference was to the labeler, in the form's steps; None where nobody was asked."""
    weight: float | None = None

    def __post_init__(self) -> None:
        if len(self.options) < 2:
            raise ValueError(f'"completions" needs at least 2 entries, found {len(self.options)}')
        if len(self.ranks) != len(self.options):
            raise ValueError(f'"ranks" has {len(self.ranks)} entries for {len(self.options)} completions')

    @property
    def has_preference(self) -> bool:
        return len(set(self.ranks)) > 1

    def pairs(self) -> list[tuple[int, int]]:
        """All (better, worse) index pairs; tied pairs are left out."""
        n = range(len(self.ranks))
        return [(i, j) for i in n for j in n if self.ranks[i] < self.ranks[j]]

    def to_json(self) -> Json:
        row = self.prompt.to_json() | {"completions": list(self.options), "ranks": list(self.ranks)}
        if self.labeler is not None:
            row["labeler"] = self.labeler
        if self.group:
            row["group"] = dict(self.group)
        if self.kind != "ranking":
            row["judgment_kind"] = self.kind
        optional = {"strength": self.strength, "weight": self.weight}
        return row | {name: value for name, value in optional.items() if value is not None}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Choice:
        options, ranks = row.get("completions"), row.get("ranks")
        if not isinstance(options, list) or not all(isinstance(o, str) for o in options):
            raise ValueError('"completions" must be a list of strings')
        if not isinstance(ranks, list) or not all(type(r) is int and r >= 1 for r in ranks):
            raise ValueError('"ranks" must be a list of whole numbers, 1 the best')
        kind = row.get("judgment_kind", "ranking")
        if kind not in JUDGMENT_KINDS:
            raise ValueError(f'"judgment_kind" {kind!r} is not one of {", ".join(get_args(JudgmentKind))}')
        return cls(Prompt.from_json(row), tuple(options), tuple(ranks),
                   _optional_text(row.get("labeler"), "labeler"), group_of(row.get("group")), kind,
                   number_of(row.get("strength"), "strength"), number_of(row.get("weight"), "weight"))


@dataclass(frozen=True)
class Judgment:
    """One labeler's answer as accepted. It is never changed: a correction is a new judgment.

    `payload` is the answer itself: a ranking's `{"completions": [...], "ranks": [...]}`, a
    demonstration's or edit's `{"completion": ...}`, a written prompt's `{}`, a rating's `{"completion": ..., "score": ...}`
    (higher is better), a thumb's `{"completion": ..., "label": true | false}`, of questions `{"completions": [...], "questions":
    [...], "said": {"item": {}, "answers": [{}, ...], "turns": [{"turn": 1}, ...]}}`. A missing score is None, never 0.
    `client_id` makes sending twice store once.
    """

    prompt: Prompt
    kind: JudgmentKind
    payload: Mapping[str, Any] = field(hash=False)
    labeler: str | None = None
    group: Mapping[str, str] = field(default_factory=dict, hash=False)
    order: tuple[int, ...] | None = None
    seconds: float | None = None
    instruction_hash: str | None = None
    form_version: str | None = None
    client_id: str | None = None

    def choice(self) -> Choice | None:
        """The preference it expresses, or None (a demonstration alone compares nothing)."""
        if "ranks" not in self.payload:
            return None
        payload = self.payload
        return Choice(self.prompt, tuple(payload["completions"]), tuple(payload["ranks"]), self.labeler,
                      dict(self.group), self.kind, payload.get("strength"), payload.get("weight"))

    def demonstration(self) -> Demonstration | None:
        if self.kind not in ("demonstration", "edit") or "completion" not in self.payload:
            return None
        return Demonstration(self.prompt, self.payload["completion"], self.labeler, dict(self.group), self.payload.get("weight"))

    def ratings(self) -> list[Judgment]:
        """Each completion that was rated, as a judgment of the kind "rating"; a ranking may hold several."""
        if "said" in self.payload:
            return self._graded()
        rated = [self.payload] if "score" in self.payload else [
            {"completion": text, "score": rating["overall"], "flags": rating["flags"],
             "prompt_flags": self.payload["prompt_flags"]}
            for text, rating in zip(self.payload.get("completions", []), self.payload.get("ratings", []))]
        return [dataclasses.replace(self, kind="rating", payload=payload) for payload in rated]

    def _graded(self) -> list[Judgment]:
        """Each completion's grade on each scale of the questions, `criterion` naming it; one not answered is left out."""
        scales = [q["name"] for q in self.payload["questions"] if q["type"] == "scale" and q["about"] == "answer"]
        rated = [{"completion": text, "score": said[name], "criterion": name}
                 for text, said in zip(self.payload["completions"], self.payload["said"]["answers"])
                 for name in scales if said.get(name) is not None]
        return [dataclasses.replace(self, kind="rating", payload=payload) for payload in rated]

    def to_json(self) -> Json:
        """The exchange shape of a rating, a thumb, an edit, answered questions or a written prompt: the prompt, the answer, who
        gave it."""
        names = ("completions", "questions", "said", *ANSWER_FIELDS) if self.kind == "questions" else ANSWER_FIELDS
        row = self.prompt.to_json() | {name: self.payload[name] for name in names if name in self.payload}
        if self.labeler is not None:
            row["labeler"] = self.labeler
        if self.group:
            row["group"] = dict(self.group)
        return row
