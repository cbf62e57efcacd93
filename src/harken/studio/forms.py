"""What is asked, and whether an answer fits. A form is data with a version; every answer carries the version (F12).

    form = default_form("rate_and_rank")
    payload = read_answer(form, material, order, answer)     # as the judgment stores it, or ApiError 422
    shown_answer(form, payload, order)                       # the same as the labeler gave it: what is echoed (F1)

Labelers see completions in a shuffled `order` and answer in it; judgments are stored in the item's own order,
`order[place]` being the completion shown at that place. Ratings' rows, prompt flags and use cases are InstructGPT's
(arXiv 2203.02155, table 3, table 7, table 1); ties are encouraged there, so ranks may tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

from harken.core.records import content_hash
from harken.studio.errors import ApiError
from harken.studio.schema import BOOLEAN, Schema, array, check, enum, integer, mapping, nullable, obj, text

KINDS = ("demonstrate", "rate_and_rank", "compare", "edit", "write_prompt")
MAX_CHARS = 20_000
FLAGS = {
    "fails_task": "Fails to follow the correct instruction / task", "inappropriate": "Inappropriate for customer assistant",
    "hallucination": "Hallucination", "satisfies_constraint": "Satisfies constraint provided in the instruction",
    "sexual": "Contains sexual content", "violent": "Contains violent content",
    "encourages_harm": "Encourages or fails to discourage violence, abuse, terrorism or self-harm",
    "denigrates": "Denigrates a protected class", "harmful_advice": "Gives harmful advice",
    "opinion": "Expresses opinion", "moral_judgment": "Expresses moral judgment",
}
PROMPT_FLAGS = {
    "ambiguous": "Ambiguous", "sensitive": "Sensitive content", "identity_dependent": "Identity dependent",
    "closed_domain": "Closed domain", "continuation": "Continuation style", "opinionated": "Requests opinionated content",
    "advice": "Requests advice", "moral_judgment": "Requests moral judgment",
    "safety_constraint": "Contains explicit safety constraints", "other_constraint": "Contains other explicit constraints",
    "unclear_intent": "Intent unclear",
}
USE_CASES = ("generation", "open_qa", "brainstorming", "chat", "rewriting", "summarization", "classification", "other",
             "closed_qa", "extraction")
PROMPT_KINDS = ("plain", "few_shot", "user")
STRENGTHS = ("slightly better", "better", "much better")
_named = array(obj({"name": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,39}$"}, "label": text(200, 1)}), 0, 40)
_flag = obj({"name": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,39}$"}, "label": text(200, 1),
             "only": nullable(text(40))})
FORM: Schema = obj({
    "version": text(64), "kind": enum(*KINDS),
    "rating": nullable(obj({"scale": obj({"name": enum("overall"), "label": text(200, 1), "min": integer(0, 1),
                                          "max": integer(2, 100), "low": text(60), "high": text(60)}),
                            "flags": array(_flag, 0, 40)})),
    "ranking": nullable(obj({"ties": BOOLEAN})),
    "strength": nullable(obj({"max": integer(1, 5), "labels": array(text(60), 1, 5)})),
    "prompt_flags": _named, "use_cases": array(text(40), 0, 40), "prompt_kinds": array(enum(*PROMPT_KINDS), 0, 3),
    "text": nullable(obj({"max_chars": integer(1, MAX_CHARS)})), "notes": BOOLEAN,
})


def default_form(kind: str) -> dict[str, Any]:
    """The form of one kind of task, as InstructGPT's labelers had it where they had one."""
    flags = [{"name": n, "label": label, "only": "closed_domain" if n == "hallucination" else None}
             for n, label in FLAGS.items()]
    scale = {"name": "overall", "label": "Overall quality", "min": 1, "max": 7, "low": "worst", "high": "best"}
    writes = kind in ("demonstrate", "edit", "write_prompt")
    return with_version({
        "kind": kind, "rating": {"scale": scale, "flags": flags} if kind == "rate_and_rank" else None,
        "ranking": {"ties": True} if kind == "rate_and_rank" else None,
        "strength": {"max": 3, "labels": list(STRENGTHS)} if kind == "compare" else None,
        "prompt_flags": [{"name": n, "label": label} for n, label in PROMPT_FLAGS.items()],
        "use_cases": list(USE_CASES), "prompt_kinds": list(PROMPT_KINDS) if kind == "write_prompt" else [],
        "text": {"max_chars": MAX_CHARS} if writes else None, "notes": True})


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
    known = {f["name"] for f in form["prompt_flags"]}
    flags = form["rating"]["flags"] if form["rating"] else []
    if any(f["only"] and f["only"] not in known for f in flags):
        raise ApiError("bad_request", '"only" of a flag must name one of the prompt flags.')
    if len(known) < len(form["prompt_flags"]) or len({f["name"] for f in flags}) < len(flags):
        raise ApiError("bad_request", "Two flags have the same name.")
    needs = {"rate_and_rank": ("rating", "ranking"), "compare": ("strength",)}.get(kind, ("text",))
    if missing := [n for n in needs if form[n] is None]:
        raise ApiError("bad_request", f'A form for "{kind}" needs "{missing[0]}".')
    return form


def answer_schema(form: dict[str, Any], k: int) -> Schema:
    """What an answer must look like for `k` completions."""
    kind = form["kind"]
    fields: dict[str, Schema] = {
        "prompt_flags": array(enum(*[f["name"] for f in form["prompt_flags"]]), 0, 40),
        "use_case": nullable(enum(*form["use_cases"])), "notes": text(4000 if form["notes"] else 0)}
    optional = list(fields)
    if kind in ("demonstrate", "edit", "write_prompt"):
        fields["text"] = text(form["text"]["max_chars"], 1)
    if kind == "rate_and_rank":
        scale = form["rating"]["scale"]
        flags = {f["name"]: nullable(BOOLEAN) if f["only"] else BOOLEAN for f in form["rating"]["flags"]}
        fields["ratings"] = array(obj({"overall": integer(scale["min"], scale["max"]), "flags": obj(flags)}), k, k)
        fields["ranks"] = array(integer(1, k), k, k)
    if kind == "compare":
        fields["preference"] = integer(-form["strength"]["max"], form["strength"]["max"])
    if kind == "write_prompt":
        fields["kind"] = enum(*form["prompt_kinds"])
        fields["examples"] = array(obj({"query": text(MAX_CHARS, 1), "response": text(MAX_CHARS, 1)}), 0, 9)
        optional.append("examples")
    return obj(fields, optional)


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
    kind = form["kind"]
    told = {"prompt_flags": sorted(set(answer.get("prompt_flags", []))), "use_case": answer.get("use_case"),
            "notes": answer.get("notes", "")}
    if kind in ("demonstrate", "edit", "write_prompt") and not answer["text"].strip():
        raise ApiError("bad_answer", '"answer.text" is blank.', "Write the answer, or skip the task with a reason.")
    if kind == "demonstrate":
        return {"completion": answer["text"], **told}
    if kind == "edit":
        return _edit(texts[0], answer["text"]) | told
    if kind == "write_prompt":
        return _written(answer) | told
    if kind == "compare":
        return _comparison(texts, order, answer["preference"]) | told
    return _ranking(form, texts, order, answer, told["prompt_flags"]) | told


def shown_answer(kind: str, payload: dict[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """The stored payload as the labeler gave it: in the shown order, without the completions."""
    told = {k: payload[k] for k in ("prompt_flags", "use_case", "notes")}
    if kind == "rate_and_rank":
        return {"ratings": [payload["ratings"][i] for i in order], "ranks": [payload["ranks"][i] for i in order], **told}
    if kind == "compare":
        first, second = (payload["ranks"][i] for i in order)
        return {"preference": payload["strength"] * ((first > second) - (first < second)), **told}
    if kind == "write_prompt":
        return {"kind": payload["kind"], "text": payload["text"], "examples": payload["examples"], **told}
    answer = {"text": payload["completion"], **told}
    return answer | {"spans": payload["spans"]} if kind == "edit" else answer


def notices(form: dict[str, Any], payload: dict[str, Any], order: Sequence[int]) -> list[dict[str, Any]]:
    """What the labeler may want to look at again; it never blocks. Pairs are places as shown (F14)."""
    pairs = payload.get("conflicts", [])
    if not pairs:
        return []
    place = {option: at for at, option in enumerate(order)}
    return [{"code": "rating_rank_conflict", "pairs": [[place[i], place[j]] for i, j in pairs],
             "message": "One answer is ranked above another that got the higher rating."}]


def _dense(ranks: Sequence[int]) -> list[int]:
    known = sorted(set(ranks))
    return [known.index(r) + 1 for r in ranks]


def _ranking(form: dict[str, Any], texts: Sequence[str], order: Sequence[int], answer: dict[str, Any],
             prompt_flags: Sequence[str]) -> dict[str, Any]:
    for flag in form["rating"]["flags"]:
        applies = flag["only"] is None or flag["only"] in prompt_flags
        if any((rating["flags"][flag["name"]] is not None) != applies for rating in answer["ratings"]):
            raise ApiError("bad_answer", f'"{flag["name"]}" must be true or false where the prompt is marked '
                           f'{flag["only"]}, else null.')
    if not form["ranking"]["ties"] and len(set(answer["ranks"])) < len(order):
        raise ApiError("bad_answer", "This project's rankings have no ties.")
    ranks, ratings = [0] * len(order), [dict[str, Any]()] * len(order)
    for place, rank in enumerate(_dense(answer["ranks"])):
        ranks[order[place]], ratings[order[place]] = rank, answer["ratings"][place]
    k = range(len(order))
    conflicts = [[i, j] for i in k for j in k if ranks[i] < ranks[j] and ratings[i]["overall"] < ratings[j]["overall"]]
    return {"completions": list(texts), "ranks": ranks, "ratings": ratings, "conflicts": conflicts}


def _comparison(texts: Sequence[str], order: Sequence[int], preference: int) -> dict[str, Any]:
    ranks = [1, 1]
    if preference:
        ranks[order[0 if preference > 0 else 1]] = 2
    return {"completions": list(texts), "ranks": ranks, "strength": abs(preference)}


def _edit(original: str, edited: str) -> dict[str, Any]:
    """A demonstration, a preference (edited over original; nothing where it was good as it was) and the changed spans."""
    payload: dict[str, Any] = {"completion": edited, "original": original, "spans": spans(original, edited)}
    return payload | ({"completions": [edited, original], "ranks": [1, 2]} if edited != original else {})


def spans(before: str, after: str) -> list[dict[str, Any]]:
    """What changed, word by word, as character offsets [from, to) into both texts."""
    words = [_words(before), _words(after)]
    ends = [[0], [0]]
    for side, found in enumerate(words):
        for word in found:
            ends[side].append(ends[side][-1] + len(word))
    steps = SequenceMatcher(None, words[0], words[1], autojunk=len(words[0]) > 2000).get_opcodes()
    return [{"op": op, "from": [ends[0][a], ends[0][b]], "to": [ends[1][c], ends[1][d]]}
            for op, a, b, c, d in steps if op != "equal"]


def _words(text: str) -> list[str]:
    """Words and the spaces between them, so that they join to the text."""
    found: list[str] = []
    for character in text:
        if found and character.isalnum() and found[-1][-1].isalnum():
            found[-1] += character
        else:
            found.append(character)
    return found


def _written(answer: dict[str, Any]) -> dict[str, Any]:
    examples = answer.get("examples", [])
    if answer["kind"] == "few_shot" and len(examples) < 2:
        raise ApiError("bad_answer", f"A few-shot prompt needs 2 to 9 examples, found {len(examples)}.")
    if answer["kind"] != "few_shot" and examples:
        raise ApiError("bad_answer", f'A prompt of the kind "{answer["kind"]}" has no examples.')
    return {"kind": answer["kind"], "text": answer["text"], "examples": examples}
