"""A finished win rate as published boards keep their judgments. No torch.

    write_alpaca_eval("runs/pairs", "annotations.json")      # AlpacaEval: generator_1 is the other model, preference 1 to 2
    write_mt_bench("runs/pairs", "judge_pair.jsonl")         # MT-bench: g1_winner and g2_winner, the two orders
    write_arena("runs/pairs", "battles.jsonl")               # Chatbot Arena: model_a, model_b, winner

A prompt's first pair makes a row. What has no verdict stays without one: preference null, "error" for MT-bench (its own word),
winner null; `harken rank` reads all three and counts them as missing. A judge that scores answers alone has no order: both are
the same. Several people's votes on a pair make one row: who has more, and a tie where they are split.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import read_json, write_json
from harken.core.records import content_hash

SIDES = {1: "model", 0: "tie", -1: "against"}


def write_alpaca_eval(folder: str | Path, out: str | Path) -> list[Path]:
    """`annotations.json`, or the .json that `out` names."""
    result, rows = _pairs(folder)
    judge = _judge(result)
    file = _file(out, ".json", "annotations.json")
    write_json(file, [{"instruction": _instruction(row), "output_1": row["against_text"], "generator_1": result["against"],
                       "output_2": row["model_text"], "generator_2": result["model"], "annotator": judge, "dataset": "harken",
                       "preference": None if (s := share(row)) is None else 1 + s} for row in rows])
    return [file]


def write_mt_bench(folder: str | Path, out: str | Path) -> list[Path]:
    """`judge_pair.jsonl`, or the .jsonl that `out` names."""
    result, rows = _pairs(folder)
    winner = {"model": "model_1", "against": "model_2", "tie": "tie", None: "error"}
    made = [{"question_id": _id(row), "model_1": result["model"], "model_2": result["against"],
             "g1_winner": winner[first], "g2_winner": winner[second], "judge": [_judge(result), "pair-v2"], "turn": 1,
             "g1_judgment": row.get("judge_first", ""), "g2_judgment": row.get("judge_second", "")}
            for row in rows for first, second in (_orders(row),)]
    return [_lines(_file(out, ".jsonl", "judge_pair.jsonl"), made)]


def write_arena(folder: str | Path, out: str | Path) -> list[Path]:
    """`battles.jsonl`, or the .jsonl that `out` names."""
    result, rows = _pairs(folder)
    winner = {1.0: "model_a", 0.0: "model_b", 0.5: "tie", None: None}
    made = [{"question_id": _id(row), "model_a": result["model"], "model_b": result["against"], "winner": winner[share(row)],
             "judge": _judge(result), "turn": 1, "conversation_a": _conversation(row, "model_text"),
             "conversation_b": _conversation(row, "against_text")} for row in rows]
    return [_lines(_file(out, ".jsonl", "battles.jsonl"), made)]


def share(row: Mapping[str, Any]) -> float | None:
    """1 where the model won, 0 where it lost, 1/2 for a tie, None without a verdict."""
    a, b = row.get("model_score"), row.get("against_score")
    return None if a is None or b is None else (a > b) + (a == b) / 2


def _orders(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    if "shown_first" in row:
        return row["shown_first"], row["shown_second"]
    s = share(row)
    side = None if s is None else SIDES[round(2 * s - 1)]
    return side, side


def _pairs(folder: str | Path) -> tuple[Mapping[str, Any], list[dict[str, Any]]]:
    path = Path(folder) / "result.json"
    result = read_json(path) if path.is_file() else {}
    rows = [row for row in result.get("samples") or [] if "model_text" in row]
    if result.get("name") != "win_rate" or not rows:
        raise UserError(f"{folder} is no finished win rate.", "These layouts hold judgments on pairs: harken eval win_rate.")
    config = read_json(Path(folder) / "config.json")
    names = {"model": result.get("model") or config.get("model"), "against": result.get("against") or config.get("against")}
    if names["model"] == names["against"]:
        names["against"] = f"{names['against']} (against)"
    return {**result, **names, "people": config.get("people")}, rows


def _judge(result: Mapping[str, Any]) -> str:
    return str(result.get("judge") or result.get("pairwise") or ("people" if result.get("people") else "unnamed"))


def _turns(row: Mapping[str, Any]) -> list[dict[str, str]]:
    given = row.get("prompt") or row.get("messages") or ""
    return [{"role": "user", "content": given}] if isinstance(given, str) else [dict(m) for m in given]


def _instruction(row: Mapping[str, Any]) -> str:
    turns = _turns(row)
    return turns[0]["content"] if len(turns) == 1 else "\n".join(f"{t['role']}: {t['content']}" for t in turns)


def _id(row: Mapping[str, Any]) -> str:
    return content_hash(_turns(row))[:16]


def _conversation(row: Mapping[str, Any], side: str) -> list[dict[str, str]]:
    return [*_turns(row), *([] if row.get(side) is None else [{"role": "assistant", "content": row[side]}])]


def _file(out: str | Path, suffix: str, name: str) -> Path:
    file = Path(out) if Path(out).suffix == suffix else Path(out) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8", errors="backslashreplace")
    return file
