"""What is asked, and whether an answer fits. A form is data with a version; every answer carries the version.

    form = default_form("rate_and_rank")
    payload = read_answer(form, material, order, answer)     # as the judgment stores it, or ApiError 422
    shown_answer(form["kind"], payload, order)               # the same as the labeler gave it: what is echoed

What is the same for every kind of task stands here, the rest in `studio.tasks`. Labelers see completions in a shuffled
`order` and answer in it; judgments are stored in the item's own order, `order[place]` being the completion shown at that
place. Prompt flags and use cases are InstructGPT's (arXiv 2203.02155, tables 7 and 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harken.core.records import content_hash
from harken.studio.tasks import KINDS, MAX_CHARS, PROMPT_FLAGS, PROMPT_KINDS, TASKS, USE_CASES
from harken.studio.tasks.questions import check_labels, check_questions
from harken.web.errors import ApiError
from harken.web.json_schema import BOOLEAN, Schema, array, check, enum, integer, mapping, nullable, obj, text

ALWAYS = ("rating", "ranking", "strength")
"""Fields that every form names, null where its kind has none: a stored form's version is the hash of all it names."""
OWN = {name: nullable(schema) for task in TASKS.values() for name, schema in task.fields.items()}
_named = array(obj({"name": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,39}$"}, "label": text(200, 1)}), 0, 40)
FORM: Schema = obj({
    "version": text(64), "kind": enum(*KINDS), **OWN,
    "prompt_flags": _named, "use_cases": array(text(40), 0, 40), "prompt_kinds": array(enum(*PROMPT_KINDS), 0, 3),
    "text": nullable(obj({"max_chars": integer(1, MAX_CHARS)})), "notes": BOOLEAN,
}, optional=[name for name in OWN if name not in ALWAYS])


def default_form(kind: str) -> dict[str, Any]:
    """The form of one kind of task, as InstructGPT's labelers had it where they had one."""
    return with_version({
        "kind": kind, **dict.fromkeys(ALWAYS), "prompt_flags": [{"name": n, "label": label} for n, label in PROMPT_FLAGS.items()],
        "use_cases": list(USE_CASES), "prompt_kinds": [], "text": None, "notes": True, **TASKS[kind].form()})


def with_version(form: dict[str, Any]) -> dict[str, Any]:
    """The form named by its content: changed fields are another version."""
    rest = {k: v for k, v in form.items() if k != "version"}
    return {"version": content_hash(rest)[:16], **rest}


def check_form(form: dict[str, Any], kind: str) -> dict[str, Any]:
    """A form as a lead sends it (with or without a version), or ApiError."""
    form = with_version(form)
    check(FORM, form)
    if form["kind"] != kind:
        raise ApiError("bad_request", f'The form is for "{form["kind"]}", the project asks for "{kind}".')
    prompt_flags = {f["name"] for f in form["prompt_flags"]}
    flags = form["rating"]["flags"] if form["rating"] else []
    if any(f["only"] and f["only"] not in prompt_flags for f in flags):
        raise ApiError("bad_request", '"only" of a flag must name one of the prompt flags.')
    if len(prompt_flags) < len(form["prompt_flags"]) or len({f["name"] for f in flags}) < len(flags):
        raise ApiError("bad_request", "Two flags have the same name.")
    check_labels([f["label"] for f in flags], "flag")
    check_labels([f["label"] for f in form["prompt_flags"]], "flag of the prompt")
    if form.get("questions"):
        check_questions(form["questions"])
    needs = (*TASKS[kind].fields, *(("text",) if TASKS[kind].needs_text else ()))
    if missing := [n for n in needs if form.get(n) is None]:
        raise ApiError("bad_request", f'A form for "{kind}" needs "{missing[0]}".')
    return form


def answer_schema(form: dict[str, Any], k: int) -> Schema:
    """What an answer must look like for `k` completions."""
    common: dict[str, Schema] = {
        "prompt_flags": array(enum(*[f["name"] for f in form["prompt_flags"]]), 0, 40),
        "use_case": nullable(enum(*form["use_cases"])), "notes": text(4000 if form["notes"] else 0)}
    own, optional = TASKS[form["kind"]].answer(form, k)
    return obj({**common, **own}, (*common, *optional))


# What any form's answers can look like: for OpenAPI, where the form is not known.
ANY_ANSWER: Schema = mapping({}, 20)
_schemas: dict[tuple[str, int], Schema] = {}  # by version, which is the form's content, and number of completions


def read_answer(form: dict[str, Any], texts: Sequence[str], order: Sequence[int], answer: dict[str, Any]) -> dict[str, Any]:
    """The judgment's payload for an answer given in the shown order. `texts` are the completions in the item's order.

    Raises ApiError 422 naming the field.
    """
    named = (form["version"], len(order))
    if named not in _schemas and len(_schemas) < 1000:
        _schemas[named] = answer_schema(form, len(order))
    check(_schemas.get(named) or answer_schema(form, len(order)), answer, "answer", "bad_answer")
    common = {"prompt_flags": sorted(set(answer.get("prompt_flags", []))), "use_case": answer.get("use_case"),
              "notes": answer.get("notes", "")}
    return TASKS[form["kind"]].read(form, texts, order, answer) | common


def shown_answer(kind: str, payload: dict[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """The stored payload as the labeler gave it: in the shown order, without the completions."""
    common = {k: payload[k] for k in ("prompt_flags", "use_case", "notes")}
    return {**TASKS[kind].shown(payload, order), **common}


def notices(kind: str, payload: dict[str, Any], order: Sequence[int]) -> list[dict[str, Any]]:
    """What the labeler may want to look at again; it never blocks. Pairs are places as shown."""
    return TASKS[kind].notices(payload, order)
