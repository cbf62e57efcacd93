"""Plain text to learn from or to be measured on: documents, and windows of their tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from harken.core.errors import UserError
from harken.core.protocols import Template, Tree


def read_documents(path: str | Path, option: str = "--data") -> list[str]:
    """Documents of a text file, separated by blank lines, or of JSON Lines with "text". Raises `UserError` if there is none."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}.", f"Check {option}.") from None
    parts = _rows(text, path) if Path(path).suffix in (".jsonl", ".json") else text.replace("\r\n", "\n").split("\n\n")
    documents = [d.strip() for d in parts if d.strip()]
    if not documents:
        raise UserError(f"{path} holds no text.", "Documents are separated by blank lines.")
    return documents


def _rows(text: str, path: str | Path) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise UserError(f"{path}, line {number} is not an object with a \"text\".", "Correct it, or give a .txt file.")
        yield row["text"]


def windows(template: Template, documents: Sequence[str], length: int) -> list[Tree]:
    """The documents' tokens, each document closed by the end token, cut into windows of `length`; the first token of a
    window is given, the rest are predicted. A last window of fewer than 2 tokens is left out."""
    ids: list[int] = []
    end = template.tokenizer.eos_token_id
    for text in documents:
        ids += [*template.text_ids(text), template.end_id if end is None else end]
    cut = [tuple(ids[at:at + length]) for at in range(0, len(ids), length)]
    return [Tree(w[:1], (w[1:],)) for w in cut if len(w) > 1]
