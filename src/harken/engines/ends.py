"""Whether adapters can teach a model to end a turn: they leave the last layer as it is."""

from __future__ import annotations

from typing import Any

import torch

from harken.engines.gathers import rows_of

NEAR_SHARE = 0.02
"""Rows that differ by less than this share of their size were never trained apart: resizing puts new ones near the mean."""


@torch.no_grad()
def end_row_note(model: Any, template: Any) -> str | None:
    """What to know where the end token's row of the last layer is zero or that of other control tokens (P38); else None.

    Adapters on the linear layers cannot part two tokens of one row: what raises the end raises the other as much.
    """
    table = model.get_output_embeddings().weight
    end, names = template.end_id, template.tokens.control
    others = [i for i in names if i != end and i < len(table)]
    row, *rows = rows_of(table, torch.tensor([end, *others], device=table.device)).float()
    size = float(row.norm())
    if size < 1e-6:
        return _note(names.get(end, str(end)), "is zero")
    alike = [names[i] for i, other in zip(others, rows) if float((other - row).norm()) < NEAR_SHARE * size]
    return _note(names.get(end, str(end)), f"is that of {', '.join(alike[:3])}") if alike else None


def _note(end: str, what: str) -> str:
    return (f"The last layer's row of {end}, which ends an answer, {what}: it was never trained, and adapters cannot teach it. "
            "Train every parameter (--lora-rank 0), or start from a model that knows it.")
