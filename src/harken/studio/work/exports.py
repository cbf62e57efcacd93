"""Judgments out of the studio, in Harken's own shapes and TRL's.

    for row in export_rows(db, "comparisons", "trl", project=3): ...

Every row says under which form and instructions it was given, so that answers to different questions are never mixed
unknowingly (F12). In Harken's own shape it also says which judgment and item it is, who wrote what was judged (`sources`),
the labeler's notes, the seconds, when it was answered, the order shown, and the scale of its form: `harken rank --by source`
reads it as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import select

from harken.core.errors import UserError
from harken.core.records import Choice, Judgment, Prompt
from harken.store.database import Database, for_purpose, in_project
from harken.store.files import json_line, write_jsonl, write_table
from harken.store.studio_schema import forms

What = Literal["comparisons", "demonstrations", "ratings", "thumbs", "edits", "prompts", "questions"]
WHATS: tuple[What, ...] = ("comparisons", "demonstrations", "ratings", "thumbs", "edits", "prompts", "questions")
SHAPES = ("harken", "trl", "trl_ties")
Row = dict[str, Any]


def export_rows(db: Database, what: What, shape: str = "harken", *, project: int | None = None,
                purpose: str | None = None) -> Iterator[Row]:
    """Rows of what counts, in the order of arrival.

    Shapes: `harken` (rankings whole, ranks with ties); `trl` (conversational: one row `prompt`, `chosen`, `rejected` for
    each pair that is not tied; demonstrations as `messages`); `trl_ties` (the same, and tied pairs as `prompt`,
    `completion_a`, `completion_b`, `tie`: true, which a trainer must handle on its own).
    """
    if what not in WHATS or shape not in SHAPES:
        raise UserError(f"No export of {what} in the shape {shape}.", f"Choose of {', '.join(WHATS)}; {', '.join(SHAPES)}.")
    where = [*([in_project(project)] if project else ()), *([for_purpose(purpose)] if purpose else ())]
    make = {"comparisons": _comparisons, "demonstrations": _demonstrations, "ratings": _ratings, "thumbs": _thumbs,
            "edits": _edits, "prompts": _prompts, "questions": _questions}[what]
    scales: dict[str, Row] = {}
    for judgment, stored in db.answered(where):
        more = {k: v for k, v in (("form_version", judgment.form_version),
                                  ("instruction_hash", judgment.instruction_hash)) if v is not None}
        if shape == "harken" and judgment.form_version is not None:
            more |= _given(judgment) | (judgment.payload.get("exported") or {})
        if shape == "harken" and judgment.form_version is not None and stored["item_id"] is not None:
            more |= _told(judgment, stored)
            scale = scales.get(judgment.form_version)
            if scale is None:
                scale = scales[judgment.form_version] = _scale(db, judgment.form_version)
            more |= scale
        for n, row in enumerate(make(judgment, shape)):
            beside = more | _scale_of(judgment, row) if shape == "harken" else more
            if "prompt_flags" in row:
                beside = {k: v for k, v in beside.items() if k != "labeler_prompt_flags"}
            yield row | _named(row, n, beside)


def _told(judgment: Judgment, stored: Any) -> Row:
    """How an answer was given, beside what was said; what was not recorded is left out."""
    asked = stored["asked"] or {}
    sources = [c.get("source") for c in asked.get("completions", [])]
    if judgment.kind == "edit" and sources:
        sources = [judgment.labeler, *sources]
    told = {
        "suggested": judgment.payload.get("suggested"),
        "accepted": stored["accepted"] or None,
        "judgment": stored["seq"],
        "item": stored["item_id"],
        "sources": sources if any(sources) else None,
        "notes": judgment.payload.get("notes") or None,
        "labeler_prompt_flags": judgment.payload.get("prompt_flags") or None,
        "labeler_use_case": judgment.payload.get("use_case") if judgment.kind != "prompt" else None,
        "answered_at": stored["created_at"],
    }
    return {k: v for k, v in told.items() if v is not None}


def _given(judgment: Judgment) -> Row:
    """What an import keeps of how an answer was given."""
    seconds = {} if judgment.seconds is None else {"seconds": judgment.seconds}
    return seconds | ({"shown_order": list(judgment.order)} if judgment.order else {})


def _scale(db: Database, version: str) -> Row:
    """The scale of a form, whose numbers mean nothing without it."""
    with db.link.reading() as tx:
        form = tx.execute(select(forms.c.body).where(forms.c.version == version)).scalar()
    if form and form.get("rating"):
        return {"scale": {k: form["rating"]["scale"][k] for k in ("min", "max", "low", "high")}}
    return {"scale": {"min": 1, **form["strength"]}} if form and form.get("strength") else {}


def _scale_of(judgment: Judgment, row: Row) -> Row:
    """The scale of a question whose answer a row is; none where an import said it already."""
    told = "scale" in (judgment.payload.get("exported") or {})
    asked = next((q for q in judgment.payload.get("questions", ()) if q["name"] == row.get("criterion")), None)
    return {} if told or asked is None else {"scale": {k: asked[k] for k in ("min", "max", "low", "high") if k in asked}}


def _named(row: Row, n: int, more: Row) -> Row:
    """`sources` belong to a row's `completions`; the row of one completion has its own `source`."""
    sources = more.get("sources")
    if sources is None or "completions" in row:
        return more
    rest = {k: v for k, v in more.items() if k != "sources"}
    source = sources[-1] if "original" in row else sources[n] if "score" in row and n < len(sources) else None
    return rest | ({"source": source} if source is not None else {})


def _comparisons(judgment: Judgment, shape: str) -> Iterator[Row]:
    choice = judgment.choice()
    if choice is None:
        return
    if shape == "harken":
        yield choice.to_json()
        return
    yield from trl_pairs(choice, ties=shape == "trl_ties")


def trl_pairs(choice: Choice, *, ties: bool) -> Iterator[Row]:
    """A ranking of K as its pairs, in TRL's conversational form."""
    prompt, who = _messages(choice.prompt), _who(choice.labeler, choice.group)
    for better, worse in choice.pairs():
        yield {"prompt": prompt, "chosen": _says(choice.options[better]), "rejected": _says(choice.options[worse])} | who
    k = range(len(choice.options))
    for i, j in ((i, j) for i in k for j in k if ties and i < j and choice.ranks[i] == choice.ranks[j]):
        yield {"prompt": prompt, "completion_a": _says(choice.options[i]), "completion_b": _says(choice.options[j]),
               "tie": True} | who


def _demonstrations(judgment: Judgment, shape: str) -> Iterator[Row]:
    shown = judgment.demonstration()
    if shown is None:
        return
    if shape == "harken":
        yield shown.to_json()
    else:
        yield {"messages": [*_messages(shown.prompt), *_says(shown.completion)]} | _who(shown.labeler, shown.group)


def _ratings(judgment: Judgment, shape: str) -> Iterator[Row]:
    """One row for each completion that was rated: the overall score and the flags."""
    yield from (rating.to_json() for rating in judgment.ratings())


def _thumbs(judgment: Judgment, shape: str) -> Iterator[Row]:
    if judgment.kind == "thumb":
        yield judgment.to_json()


def _edits(judgment: Judgment, shape: str) -> Iterator[Row]:
    if judgment.kind == "edit" and "original" in judgment.payload:
        yield {**judgment.prompt.to_json(), "original": judgment.payload["original"],
               "completion": judgment.payload["completion"],
               "spans": judgment.payload["spans"], **_who(judgment.labeler, judgment.group)}


def _questions(judgment: Judgment, shape: str) -> Iterator[Row]:
    if judgment.kind == "questions":
        yield judgment.to_json()


def _prompts(judgment: Judgment, shape: str) -> Iterator[Row]:
    if judgment.kind == "prompt":
        yield judgment.prompt.to_json() | _who(judgment.labeler, judgment.group)


def _messages(prompt: Prompt) -> list[Row]:
    return [m.to_json() for m in prompt.messages]


def _says(text: str) -> list[Row]:
    return [{"role": "assistant", "content": text}]


def _who(labeler: str | None, group: Any) -> Row:
    return ({"labeler": labeler} if labeler is not None else {}) | ({"group": dict(group)} if group else {})


def write_rows(path: Path, rows: Iterator[Row]) -> int:
    """Writes rows as `.jsonl`, `.jsonl.gz`, `.csv` or `.parquet` and returns how many. Nested values stay nested in Parquet
    and are JSON text in CSV."""
    if path.suffix == ".csv":
        return write_table(path, rows)
    if path.suffix != ".parquet":
        if not path.name.endswith((".jsonl", ".jsonl.gz")):
            raise UserError(f"{path.name} ends in none of .jsonl, .jsonl.gz, .csv, .parquet.", "Give --out such a name.")
        return write_jsonl(path, rows)
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise UserError("Writing Parquet needs the package pyarrow.",
                        "pip install 'harken[parquet]', or export .jsonl.") from None
    everything = [_for_parquet(row) for row in rows]
    names = {name: None for row in everything for name in row}  # Arrow takes the first row's fields for all
    everything = [{name: row.get(name) for name in names} for row in everything]
    partial = path.with_name(f".{path.name}.partial")
    try:
        inferred = pyarrow.Table.from_pylist(everything).schema
        schema = pyarrow.schema([field.with_type(_arrow_type(field.type, field.name)) for field in inferred])
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(everything, schema), partial)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path} could not be written: {error.strerror or error}.",
                        "Check its folder and the disk's room.") from None
    finally:
        partial.unlink(missing_ok=True)
    return len(everything)


def _arrow_type(kind: Any, name: str) -> Any:
    """A column's type though no row tells it: a flag that was never asked is yes or no, an empty list holds words. So the
    files of two exports have the same columns."""
    import pyarrow
    if pyarrow.types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return pyarrow.struct([(f.name, pyarrow.bool_() if name == "flags" else _arrow_type(f.type, f.name)) for f in fields])
    if pyarrow.types.is_list(kind):
        return pyarrow.list_(_arrow_type(kind.value_type, name))
    return pyarrow.string() if pyarrow.types.is_null(kind) else kind


def _for_parquet(row: Row) -> Row:
    """A column has one type: prompts are always lists of messages, free-form fields are JSON."""
    prompt = row.get("prompt")
    row = row | {"prompt": [{"role": "user", "content": prompt}]} if isinstance(prompt, str) else dict(row)
    for name in ("prompt", "messages"):
        if name in row:
            row[name] = [m | {"tool_calls": json_line(m["tool_calls"])} if "tool_calls" in m else m for m in row[name]]
    return row | {name: json_line(row[name]) for name in ("meta", "tools", "said", "questions") if name in row}
