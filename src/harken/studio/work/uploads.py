"""Files of what is to be judged, as items: our own shape, `harken sample`'s, pairs nobody has judged, and every shape that
Harken imports, in any container and encoding that it reads.

    {"prompt": "Hi", "completions": ["Hello.", {"text": "Yo", "source": "runs/sft"}], "warnings": ["hate"]}     an item
    {"prompt": "Hi", "completions": ["Hello.", "Yo"], "finished": [true, true], "source": {"model": "runs/sft"}}  a sample
    {"prompt": "Hi", "response_a": "Hello.", "response_b": "Yo", "model_a": "m1", "model_b": "m2"}              a pair

Of several files, the completions of equal prompts come together into one item: answers of several models to compare.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from harken.core.errors import UserError
from harken.core.records import content_hash
from harken.store.files import UNPACKED, raw_rows
from harken.store.parsing import BadLine
from harken.store.shapes import kind_of, read_row
from harken.store.shapes.dialogue import messages, prompt_turns
from harken.store.shapes.pairs import A_AND_B, VERDICTS
from harken.studio.work.projects import ITEM, LONGEST, items_of

Row = dict[str, Any]
T = TypeVar("T")
LINE_BYTES = 16 << 20
"""The longest line of an upload, and the largest JSON array."""
CORRECT = "Correct it; none was added."
# Names that only an item has; what other shapes have too does not tell them apart.
OWN = set(ITEM["properties"]) - {"prompt", "use_case", "tags", "split", "meta", "kind", "tools"}
CONVERSATIONS = ("messages", "conversations", "conversation")
AUTHORS = (("model_a", "model_b"), ("source_a", "source_b"), ("model_1", "model_2"), ("generator_1", "generator_2"))
ASKED = ("prompt", "question", "instruction", *CONVERSATIONS)
NAMES = {n for pair in (*A_AND_B, *AUTHORS) for n in pair if n.islower()} | OWN | {*ASKED, "use_case", "tags", "meta", "split"}
MOST_ANSWERS = 9
SIDES = ("conversation_a", "conversation_b")
LISTED = ("responses", "generations", "outputs", "answers", "candidates")
WRITERS = ("models", "model_names", "generation_models", "generators", "sources", "policies")


def read_items(paths: Sequence[Path], notes: Counter[str] | None = None) -> list[Row]:
    """The items of one or several files; `notes` counts what is worth saying. Raises UserError naming the file and the line."""
    if len(paths) == 1:
        return list(_items(paths[0], notes))
    merged: dict[str, Row] = {}
    for path in paths:
        for row in _items(path, notes):
            if "prompt" not in row or not row.get("completions"):
                raise UserError(f"{path} has a row without prompt and completions.",
                                "Several files are merged by prompt: give them one by one.")
            item = merged.setdefault(content_hash(row["prompt"]), {**row, "completions": []})
            item["completions"] += [c for c in row["completions"] if c not in item["completions"]]
    return list(merged.values())


def _items(path: Path, notes: Counter[str] | None) -> Iterator[Row]:
    kinds: set[str] = set()
    empty = True
    for where, row in raw_rows(path, unpacked_limit=UNPACKED, notes=notes):
        try:
            items = _items_of_row(row, kinds)
        except ValueError as error:
            action = getattr(error, "action", "")
            raise UserError(f"{where}: {error}.", action if action and "--" not in action else CORRECT) from None
        empty = False
        yield from items
    if empty:
        raise UserError(f"{path} holds no rows.", "Is it the file you meant?")


def _items_of_row(row: Mapping[str, Any], kinds: set[str]) -> list[Row]:
    """The items of one row: our own, unjudged answers, or what was judged elsewhere and is asked anew."""
    row = unwrapped({name.lower() if name.lower() in NAMES and name.lower() not in row else name: value
                     for name, value in row.items()})
    if row.keys() & OWN and "ranks" not in row:
        return [_own(dict(row))]
    pair = _pair(row)
    if pair is not None:
        return [pair]
    records = read_row(row).records
    kinds |= {kind_of(record) for record in records}
    if len(kinds) > 1:
        raise BadLine(f"the file mixes {' and '.join(sorted(kinds))}", "", "Put each kind into a file of its own.")
    return [items_of(record) for record in records]


def unwrapped(row: Row) -> Row:
    """Answers that nobody has judged, out of the shapes of other tools: a task of Label Studio without annotations (`data`), a
    logged request with its choices, two whole conversations (the arena's), answers as a list (distilabel, Argilla)."""
    if isinstance(row.get("data"), dict) and not row.get("annotations") and not row.keys() & {"prompt", "completions"}:
        row = row["data"]
    request, response = row.get("request"), row.get("response")
    if isinstance(request, dict) and isinstance(response, dict) and response.get("choices") and "messages" in request:
        texts = [choice["message"] for choice in response["choices"]]
        return {"prompt": request["messages"], "completions": texts, "source": request.get("model")}
    if all(isinstance(row.get(side), list) for side in SIDES):
        return _conversations(row)
    listed = next((name for name in LISTED if isinstance(row.get(name), list) and "completions" not in row), None)
    if listed is None or any(row.get(name) is not None for name in (*VERDICTS, "ranks", "ratings", "scores")):
        return row
    writers = next((name for name in WRITERS if isinstance(row.get(name), list) and len(row[name]) == len(row[listed])), None)
    texts = [_completion(text, by) for text, by in zip(row[listed], row[writers] if writers else [None] * len(row[listed]))]
    asked = next((name for name in ASKED if row.get(name) is not None), None)
    if asked is None:
        return row
    used = {asked, listed, writers, "meta", "use_case", "tags", "split"}
    meta = {k: v for k, v in row.items() if k not in used and v is not None}
    meta |= row["meta"] if isinstance(row.get("meta"), dict) else {}
    rest = {k: row[k] for k in ("use_case", "tags", "split") if row.get(k) is not None}
    return {"prompt": row[asked], "completions": texts, **rest} | ({"meta": meta} if meta else {})


def _conversations(row: Row) -> Row:
    """Two conversations that part at their last turn."""
    one, other = ([m.to_json() for m in messages(row[side], side)] for side in SIDES)
    if one[:-1] != other[:-1]:
        raise BadLine("the two conversations part before their last turn", "", "Give the prompt once, and two completions.")
    authors = next((pair for pair in AUTHORS if pair[0] in row and pair[1] in row), ())
    sources = [row[by] for by in authors] or [None, None]
    texts = [_completion(m, source) for m, source in zip((one[-1], other[-1]), sources, strict=True)]
    meta = {k: v for k, v in row.items() if k not in {*SIDES, *authors, *VERDICTS} and v is not None}
    return {"prompt": one[:-1], "completions": texts} | ({"meta": meta} if meta else {})


def _completion(given: Any, source: Any = None) -> Any:
    """A completion in Harken's form: text, or text with its source; of a message or an object with a model the same."""
    if isinstance(given, list):
        given = given[0] if len(given) == 1 else given
    if isinstance(given, dict) and not given.keys() <= {"text", "source"}:
        source = next((given[n] for n in ("source", "model", "model_name") if isinstance(given.get(n), str)), source)
        if given.get("tool_calls") or given.get("function_call"):
            raise ValueError('a completion that calls a tool cannot be judged: put the call into "prompt"')
        text = next((given[n] for n in ("text", "content", "value", "response", "generation") if given.get(n) is not None), None)
        given = text if isinstance(text, str) else messages([{"role": "assistant", "content": text}], "completions")[0].content
    return {"text": given, "source": source} if source is not None and isinstance(given, str) else given


def _own(row: Row) -> Row:
    """A row in our own shape: its messages in Harken's form, its sources beside its completions."""
    given = next((name for name in CONVERSATIONS if name in row), None)
    if given is not None and "prompt" not in row:
        row["prompt"] = row.pop(given)
    if isinstance(row.get("prompt"), list):
        row["prompt"] = [m.to_json() for m in messages(row["prompt"], "prompt")]
    if isinstance(row.get("completions"), str):  # a table's cell
        try:
            row["completions"] = json.loads(row["completions"])
        except ValueError:
            raise ValueError('"completions" must be a list, found text that is no JSON list') from None
    if not isinstance(row.get("completions"), list | None):
        raise ValueError(f'"completions" must be a list, found {type(row["completions"]).__name__}')
    if row.get("completions"):
        row["completions"] = [_completion(given) for given in row["completions"]]
    if isinstance(row.get("ask"), str):
        row["ask"] = {"text": row["ask"]}
    return _sampled(row)


def _pair(row: Mapping[str, Any]) -> Row | None:
    """Two and more answers by letter or number, with who wrote them; a verdict on them is not shown, and what else the row
    says goes into `meta`."""
    pair = next((pair for pair in A_AND_B if pair[0] in row and pair[1] in row), None)
    if pair is None:
        return None
    names = _further(pair, row)
    asked = next((n for n in ASKED if row.get(n) is not None), None)
    if asked is None:
        raise ValueError(f'"{names[0]}" and "{names[1]}" come without a prompt')
    author = next((pair[0] for pair in AUTHORS if pair[0] in row or pair[1] in row), None)
    authors = [f"{author[:-1]}{chr(ord(author[-1]) + n)}" for n in range(len(names))] if author else []
    texts = [row[name] for name in names]
    if missing := [name for name, text in zip(names, texts) if not isinstance(text, str)]:
        value = row[missing[0]]
        raise ValueError(f'"{missing[0]}" must be a text, found {"nothing" if value is None else repr(value)[:40]}')
    turns = messages(row[asked], asked) if not isinstance(row[asked], str) else prompt_turns(row[asked], asked)
    plain = len(turns) == 1 and turns[0].role == "user"
    used = {asked, *names, *authors, "use_case", *VERDICTS}
    meta = {k: v for k, v in row.items() if k not in used and v is not None}
    sources = [row.get(name) for name in authors] or [None] * len(names)
    item: Row = {"prompt": turns[0].content if plain else [m.to_json() for m in turns],
                 "completions": [{"text": t, "source": s} if s else t for t, s in zip(texts, sources)]}
    return item | ({"meta": meta} if meta else {}) | ({"use_case": row["use_case"]} if row.get("use_case") else {})


def _further(pair: Sequence[str], row: Mapping[str, Any]) -> list[str]:
    """A pair's names and those that go on from it (`completion_c`, `response_3`), as far as the row has something there."""
    stem, last = pair[1][:-1], pair[1][-1]
    more = [f"{stem}{chr(ord(last) + n)}" for n in range(1, MOST_ANSWERS - 1)]
    there = [name for name in more if row.get(name) is not None]
    return [*pair, *more[:more.index(there[-1]) + 1]] if there else list(pair)


def _sampled(row: Row) -> Row:
    """`harken sample` gives one source for all completions of a row, and says which are finished; `harken next` says what
    a question is worth: it stands in the file's order."""
    row = {k: v for k, v in row.items() if k not in ("information", "seconds")}
    source = row.get("source")
    if source is None and "finished" not in row:
        return row
    rest = {k: v for k, v in row.items() if k not in ("source", "finished")}
    if isinstance(source, Mapping):
        source = ", ".join(f"{k} {v}" for k, v in source.items())
    return rest | {"completions": [{"text": c, "source": source} if isinstance(c, str) else c
                                   for c in row.get("completions") or []]}


def _unpack(data: bytes, path: Path) -> None:
    """Writes an upload to the disk, unpacked, and stops where it grows beyond `UNPACKED`."""
    if data[:2] != b"\x1f\x8b":
        path.write_bytes(data)
        return
    size = 0
    try:
        with gzip.open(io.BytesIO(data)) as packed, path.open("wb") as out:
            while part := packed.read(1 << 16):
                size += len(part)
                if size > UNPACKED:
                    raise UserError(f"{path} holds more than {UNPACKED >> 20} MB once it is unpacked.",
                                    "Split it and send the parts, or import it on the server: harken import FILE.")
                out.write(part)
    except (OSError, EOFError, zlib.error):
        raise UserError(f"{path} is a damaged gzip archive.", "Pack it again.") from None


def _check_lines(path: Path) -> None:
    """Refuses a line, or a file that is one array, which would fill the memory when it is read."""
    line, most = 0, LINE_BYTES
    with path.open("rb") as file:
        head = file.read(1000).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
        if head not in (b"[", b"{"):
            return  # another container: the reader has bounds of its own
        file.seek(0)
        while part := file.read(1 << 16):
            first, *rest = part.split(b"\n")
            line += len(first)
            if max(line, *map(len, rest[:-1]), 0) > most:
                raise UserError(f"{path} has a line of more than {most >> 20} MB.",
                                "Send JSON Lines, one object a line; a text may have 200,000 characters.")
            line = len(rest[-1]) if rest else line
        if head == b"[" and path.stat().st_size > most:
            raise UserError(f"{path} is one JSON array of more than {most >> 20} MB.", "Send JSON Lines, one object a line.")


def check_texts(record: Any) -> None:
    """Refuses a record of a file with a text that no form of the studio would take."""
    if isinstance(record, Mapping):
        texts: list[Any] = [*record.values()]
    else:
        texts = [getattr(record, f.name) for f in fields(record)] if is_dataclass(record) else [record]
    level, depth = texts, 0
    while level and depth < 6:
        inner: list[Any] = []
        for one in level:
            if isinstance(one, str) and len(one) > LONGEST:
                raise UserError(f"The file holds a text of {len(one):,} characters; {LONGEST:,} is the most.",
                                "Shorten it, or import the file on the server: harken import FILE.")
            if isinstance(one, Mapping):
                inner += one.values()
            elif isinstance(one, list | tuple):
                inner += one
            elif is_dataclass(one):
                inner += [getattr(one, f.name) for f in fields(one)]
        level, depth = inner, depth + 1


def read_upload(data: bytes, notes: Counter[str] | None = None) -> list[Row]:
    """The items of an uploaded file."""
    return uploaded(data, lambda path: read_items([path], notes))


def uploaded(data: bytes, read: Callable[[Path], T]) -> T:
    """What `read` makes of an uploaded file; what is wrong with it is told without a path or a command's flags."""
    with tempfile.TemporaryDirectory() as folder:  # 0700
        path = Path(folder) / "upload.jsonl"
        try:
            _unpack(data, path)
            _check_lines(path)
            return read(path)
        except UserError as error:
            again = "--" in error.action or error.action == CORRECT
            action = "Correct it and send the file again: none was added." if again else error.action
            raise UserError(error.fact.replace(str(path), "The file"), action) from None
