"""The shapes of feedback files, one small function each.

An adapter takes one parsed row and returns the records it holds (usually one; a conversation
tree holds several, or none), or raises `ValueError` with the reason alone. `adapter_for` picks
the adapter by the row's field names and says which kind of file it belongs to.

`chosen` is always the preferred completion. For Anthropic's harmless files this is the less
harmful one: labelers were asked for the *more* harmful one and the published files are already
turned round (arXiv 2204.05862); a copy that kept the original question must be turned first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from harken.core.records import Choice, Demonstration, Message, Prompt, Role

Kind = Literal["comparisons", "demonstrations", "prompts"]
Record = Choice | Demonstration | Prompt
Row = Mapping[str, Any]
Adapter = Callable[[Row], Sequence[Record]]

ROLES: dict[str, Role] = {"user": "user", "human": "user", "prompter": "user", "system": "system",
                             "assistant": "assistant", "gpt": "assistant", "bot": "assistant"}
PROMPT_FIELDS = {"use_case": str, "kind": str, "tags": list, "split": str, "meta": dict}
HUMAN_TURN = re.compile(r"\s*Human:")
TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def adapter_for(row: Row) -> tuple[Kind, Adapter]:
    """The kind of file a row belongs to and the function that reads it."""
    for kind, fields, adapter in SHAPES:
        if any(set(group) <= set(row) for group in fields):
            return kind, adapter
    found = ", ".join(sorted(map(str, row))[:8]) or "none"
    raise ValueError(f"no known shape has these fields: {found}")


def kind_of(record: Record) -> Kind:
    """Which file a record belongs in."""
    if isinstance(record, Choice):
        return "comparisons"
    return "prompts" if isinstance(record, Prompt) else "demonstrations"


def own_comparison(row: Row) -> list[Choice]:
    """`{"prompt", "completions": [...], "ranks": [...]}`: Harken's own."""
    return [Choice.from_json(row)]


def own_prompt(row: Row) -> list[Prompt]:
    """`{"prompt": str | [Message]}`: Harken's own."""
    return [Prompt.from_json(row)]


def prompt_completion(row: Row) -> list[Demonstration]:
    """`{"prompt", "completion"}`: Harken's own and TRL's, where both may be lists of messages."""
    if isinstance(row.get("label"), bool):
        raise ValueError('a "completion" with a true or false "label" is a thumb, not a demonstration')
    completion = row["completion"]
    if isinstance(completion, list):
        row = {**row, "completion": _one_answer(_messages(completion, "completion"), "completion")}
    if isinstance(row.get("prompt"), list):
        row = {**row, "prompt": [m.to_json() for m in _messages(row["prompt"], "prompt")]}
    return [Demonstration.from_json(row)]


def chosen_rejected(row: Row) -> list[Choice]:
    """`chosen` and `rejected`, as strings, lists of messages, or Anthropic transcripts; `prompt` may be left out."""
    for name in ("chosen", "rejected"):
        if name not in row:
            raise ValueError(f'"{name}" is missing')
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, list) and isinstance(rejected, list):
        return [_conversational_pair(row, _messages(chosen, "chosen"), _messages(rejected, "rejected"))]
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        found = f"{type(chosen).__name__} and {type(rejected).__name__}"
        raise ValueError(f'"chosen" and "rejected" must both be strings or both lists of messages, found {found}')
    prompt = row.get("prompt")
    if isinstance(prompt, str) and HUMAN_TURN.match(prompt):
        return [_pair(row, _transcript_prompt(prompt), chosen, rejected)]
    if prompt is not None:
        return [_pair(row, prompt, chosen, rejected)]
    if HUMAN_TURN.match(chosen) and HUMAN_TURN.match(rejected):
        return [_transcript_pair(row, chosen, rejected)]
    cut = _shared_text(chosen, rejected)
    if not chosen[:cut].strip():
        raise ValueError('there is no "prompt", and "chosen" and "rejected" share no beginning to take for one')
    return [_pair(row, chosen[:cut], chosen[cut:], rejected[cut:])]


def messages_row(row: Row) -> list[Demonstration] | list[Prompt]:
    """`{"messages": [...]}`: the last assistant turn is the completion; without one it is a prompt."""
    messages = _messages(row["messages"], "messages")
    last = max((i for i, m in enumerate(messages) if m.role == "assistant"), default=None)
    if last is None:
        return [Prompt.from_json(_prompt_row(row, messages))]
    if last == 0:
        raise ValueError("the conversation begins with the assistant: there is no prompt")
    return [_demonstration(row, messages[:last], messages[last].content)]


def instruction_row(row: Row) -> list[Demonstration] | list[Prompt]:
    """Alpaca (`instruction`, `input`, `output`), Dolly (`context`, `response`) and `question`, `answer`.

    The input or context follows the instruction after an empty line. Without an output it is a prompt.
    Self-Instruct's `instances` are several inputs and outputs of one instruction.
    """
    if isinstance(row.get("instances"), list):
        rest = {k: v for k, v in row.items() if k != "instances"}
        if not row["instances"] or not all(isinstance(i, Mapping) and "output" in i for i in row["instances"]):
            raise ValueError('"instances" must be a list of objects with an "output"')
        return [d for i in row["instances"] for d in instruction_row({**rest, **i}) if isinstance(d, Demonstration)]
    text = _string(row, "instruction" if "instruction" in row else "question")
    extra = next((_string(row, name) for name in ("input", "context") if row.get(name)), "")
    prompt = f"{text}\n\n{extra}" if extra.strip() else text
    output = next((name for name in ("output", "response", "answer") if name in row), None)
    if output is None:
        return [Prompt.from_json(_prompt_row(row, prompt))]
    return [_demonstration(row, prompt, _string(row, output))]


def oasst_tree(row: Row) -> list[Choice]:
    """OpenAssistant tree: each user node with two or more ranked replies is a comparison (rank 0 is best)."""
    root = row["prompt"] if "replies" not in row else row
    if not isinstance(root, Mapping):
        raise ValueError('a tree needs a "prompt" object with "replies"')
    found: list[Choice] = []
    stack: list[tuple[Mapping[str, Any], tuple[Message, ...]]] = [(root, ())]
    while stack:
        node, path = stack.pop()
        path = (*path, Message.from_json({"role": _role(node.get("role")), "content": _string(node, "text")}))
        replies = node.get("replies") or []
        if not isinstance(replies, list) or not all(isinstance(r, Mapping) for r in replies):
            raise ValueError('"replies" must be a list of objects')
        ranked = [r for r in replies if type(r.get("rank")) is int and not r.get("deleted")]
        if path[-1].role == "user" and len(ranked) >= 2:
            ranks = _dense([-r["rank"] for r in ranked])
            found.append(Choice(Prompt(path), tuple(_string(r, "text") for r in ranked), ranks))
        stack.extend((reply, path) for reply in reversed(replies))
    return found


def fine_grained(row: Row) -> list[Choice]:
    """FineGrainedRLHF's `dev_feedback.json`: 4 predictions and a preference for each of their 6 pairs.

    Pairs come in the order (1,2) (1,3) (1,4) (2,3) (2,4) (3,4); 1 and 2 say that the first or the
    second is better, 0 is a tie. Ranks follow the Copeland score (pairs won minus pairs lost), equal
    scores tied. Where the pairs fit a ranking with ties (478 of the 500 rows) this is that ranking.
    In the other 22 it reverses no stated preference but orders some pairs that were called ties.
    The retrieved passages stay in the prompt's `meta`: the question alone is the prompt.
    """
    answers = [_string(row, f"prediction {k}") for k in (1, 2, 3, 4)]
    preference = row["preference"]
    if not isinstance(preference, list) or len(preference) != 6 or not all(p in (0, 1, 2) for p in preference):
        raise ValueError('"preference" must be six of 0, 1, 2: one for each pair of the 4 predictions')
    score = [0, 0, 0, 0]
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    for (i, j), better in zip(pairs, preference, strict=True):
        sign = {0: 0, 1: 1, 2: -1}[better]
        score[i] += sign
        score[j] -= sign
    meta = {"passages": row["passages"]} if row.get("passages") else {}
    return [Choice(Prompt.of(_string(row, "question"), meta=meta), tuple(answers), _dense(score))]


SHAPES: tuple[tuple[Kind, tuple[tuple[str, ...], ...], Adapter], ...] = (
    ("comparisons", (("completions",), ("ranks",)), own_comparison),
    ("comparisons", (("chosen",), ("rejected",)), chosen_rejected),
    ("comparisons", (("replies",), ("message_tree_id",)), oasst_tree),
    ("comparisons", (("prediction 1", "preference"),), fine_grained),
    ("demonstrations", (("completion",),), prompt_completion),
    ("demonstrations", (("messages",),), messages_row),
    ("demonstrations", (("instruction",), ("question", "answer")), instruction_row),
    ("prompts", (("prompt",),), own_prompt),
)


def _string(row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise ValueError(f'"{name}" must be a string, found {"nothing" if value is None else type(value).__name__}')
    return value


def _messages(value: object, name: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        found = "an empty list" if value == [] else type(value).__name__
        raise ValueError(f'"{name}" must be a list of messages, found {found}')
    return tuple(Message.from_json({**m, "role": _role(m.get("role"))} if isinstance(m, Mapping) else m) for m in value)


def _role(name: object) -> object:
    return ROLES.get(name, name) if isinstance(name, str) else name


def _prompt_row(row: Row, prompt: object) -> dict[str, Any]:
    if isinstance(prompt, list):
        prompt = _messages(prompt, "prompt")
    if isinstance(prompt, tuple):
        prompt = [m.to_json() for m in prompt]
    return {"prompt": prompt} | {k: row[k] for k, kind in PROMPT_FIELDS.items() if isinstance(row.get(k), kind)}


def _demonstration(row: Row, prompt: object, completion: str) -> Demonstration:
    return Demonstration.from_json(_prompt_row(row, prompt) | {
        "completion": completion, "labeler": row.get("labeler"), "group": row.get("group")})


def _pair(row: Row, prompt: object, chosen: str, rejected: str) -> Choice:
    return Choice.from_json(_prompt_row(row, prompt) | {
        "completions": [chosen, rejected], "ranks": [1, 2], "labeler": row.get("labeler"), "group": row.get("group")})


def _one_answer(messages: Sequence[Message], name: str) -> str:
    if len(messages) != 1 or messages[0].role != "assistant":
        raise ValueError(f'"{name}" must end in exactly one assistant message after the prompt, found '
                         f'{", ".join(m.role for m in messages) or "none"}')
    return messages[0].content


def _conversational_pair(row: Row, chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> Choice:
    """TRL's conversational form: `prompt` given, or the turns both conversations begin with."""
    given = row.get("prompt")
    prompt = _messages(given, "prompt") if isinstance(given, list) else ()
    if len(chosen) == len(rejected) == 1 and isinstance(given, str):
        return _pair(row, given, _one_answer(chosen, "chosen"), _one_answer(rejected, "rejected"))
    if not prompt or (chosen[:len(prompt)] == prompt and rejected[:len(prompt)] == prompt):
        cut = min(_shared(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
        prompt, chosen, rejected = chosen[:cut], chosen[cut:], rejected[cut:]
    return _pair(row, prompt, _one_answer(chosen, "chosen"), _one_answer(rejected, "rejected"))


def _turns(text: str) -> list[tuple[Role, int, str]]:
    """Turns of an Anthropic transcript: role, where its text starts, the text."""
    marks = list(TURN.finditer(text))
    ends = [m.start() for m in marks[1:]] + [len(text)]
    return [("user" if m[1] == "Human" else "assistant", m.end(), text[m.end():end].strip(" \n"))
            for m, end in zip(marks, ends, strict=True)]


def _transcript_prompt(text: str) -> tuple[Message, ...]:
    """A transcript as messages.

    A last turn "Assistant:" without text only says whose turn it is; one that goes on with "Human:"
    in the middle of a line (1 of 1,987 in the helpful set) is parted there.
    """
    messages = [Message(role, content) for role, _, content in _turns(text)]
    if messages[-1].role == "assistant":
        answer, marker, question = messages.pop().content.rpartition(" Human:")
        if marker or question:
            messages.append(Message("assistant", (answer if marker else question).strip(" \n")))
        if marker:
            messages.append(Message("user", question.strip(" \n")))
    return tuple(messages)


def _transcript_pair(row: Row, chosen: str, rejected: str) -> Choice:
    """The turns shared by both, up to an assistant turn, are the prompt; all that follows is the completion.

    Some completions contain further turns that the model made up (5 of 2,312 in harmless-base
    test): they are part of what the labeler compared and stay in the text.
    """
    texts = (chosen, rejected)
    turns = [_turns(text) for text in texts]
    spoken = [[(role, content) for role, _, content in t] for t in turns]
    cut = min(_shared(spoken[0], spoken[1]), len(turns[0]) - 1, len(turns[1]) - 1)
    while cut > 0 and not (turns[0][cut][0] == turns[1][cut][0] == "assistant"):
        cut -= 1
    if cut == 0:
        raise ValueError("the two transcripts share no turns up to an assistant turn")
    prompt = tuple(Message(role, content) for role, content in spoken[0][:cut])
    ends = [text[t[cut][1]:].strip(" \n") for text, t in zip(texts, turns, strict=True)]
    return _pair(row, prompt, ends[0], ends[1])


def _shared(one: Sequence[object], other: Sequence[object]) -> int:
    """How many items two sequences have in common from the start."""
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def _shared_text(one: str, other: str) -> int:
    """Length of the common beginning, cut back to the end of a word."""
    cut = _shared(one, other)
    inside = cut > 0 and any(cut < len(t) and not t[cut].isspace() for t in (one, other))
    while inside and cut > 0 and not one[cut - 1].isspace():
        cut -= 1
    return len(one[:cut].rstrip())


def _dense(scores: Iterable[float]) -> tuple[int, ...]:
    """Ranks 1, 2, … for scores of which the highest is best; equal scores share a rank."""
    scores = list(scores)
    order = sorted(set(scores), reverse=True)
    return tuple(order.index(s) + 1 for s in scores)
