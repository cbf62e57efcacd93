"""Every sample of a report as one table: a row an answer, beside the page."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.report.sets import SampleSet
from harken.store.writing import defused

COLUMNS = ("set", "item", "group", "model", "prompt", "answer", "score", "why", "details")


def rows(sets: Sequence[SampleSet]) -> Iterator[dict[str, Any]]:
    """`score` is None where an answer has none; `prompt` of several turns and `details` are JSON."""
    for one in sets:
        for number, item in enumerate(one.items):
            prompt = item.prompt if isinstance(item.prompt, str) else json.dumps(item.prompt, ensure_ascii=False)
            details = json.dumps(item.details, ensure_ascii=False) if item.details else ""
            for model, answer, score, why in zip(one.columns, item.answers, item.scores, item.whys):
                values = (one.title, number, item.group, model, prompt, answer, score, why, details)
                yield dict(zip(COLUMNS, values))


def write_samples(sets: Sequence[SampleSet], out: Path) -> Path:
    """Parquet, CSV or JSON Lines, as the name ends. Raises `UserError` for another ending, and without pyarrow."""
    if out.suffix not in (".parquet", ".csv", ".jsonl"):
        raise UserError(f"{out} is neither .parquet, .csv nor .jsonl.", "Choose the layout by the file's ending.")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".parquet":
        _parquet(list(rows(sets)), out)
    elif out.suffix == ".csv":
        with out.open("w", encoding="utf-8", errors="backslashreplace", newline="") as f:
            writer = csv.DictWriter(f, COLUMNS)
            writer.writeheader()
            writer.writerows({name: defused(value) for name, value in row.items()} for row in rows(sets))
    else:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(sets))
        out.write_text(lines, encoding="utf-8", errors="backslashreplace")
    return out


def _parquet(held: list[dict[str, Any]], out: Path) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise UserError("pyarrow is not installed.", "pip install 'harken[parquet]', or name a .csv or .jsonl.") from None
    kinds = {"item": pa.int64(), "score": pa.float64()}
    clean = [{k: v.encode("utf-8", "backslashreplace").decode() if isinstance(v, str) else v for k, v in r.items()} for r in held]
    parquet.write_table(pa.Table.from_pylist(clean, schema=pa.schema([(c, kinds.get(c, pa.string())) for c in COLUMNS])), out)
