"""Examples of a file, as trees that fit, and apart from them those of the prompts that are held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from harken.core.config import TrainConfig
from harken.core.protocols import Tree
from harken.core.records import Choice, Demonstration
from harken.core.run import Run
from harken.store.files import Loaded
from harken.store.splits import in_share
from harken.text.fitting import fit

R = TypeVar("R", Choice, Demonstration)


def fitting(loaded: Loaded[R], tree: Callable[[R], Tree], template: Any, config: TrainConfig, run: Run, what: str, *,
            overlong: str = "", source: str = "") -> list[tuple[R, Tree]]:
    """The records of a file whose trees fit `config.max_length`, with their trees; what was left out or cut is noted, after
    the name of its `source` (P29)."""
    fitted = fit([tree(record) for record in loaded.records], config.max_length, overlong or config.overlong)
    for note in (loaded.describe(), fitted.describe(what, config.max_length), *template.counted()):
        if note:
            run.note(f"{source}: {note}" if source else note)
    return [(loaded.records[i], t) for i, t in zip(fitted.kept, fitted.trees)]


def held_out(examples: Sequence[tuple[R, Tree]], share: float, seed: int) -> tuple[list[tuple[R, Tree]], list[tuple[R, Tree]]]:
    """(to learn from, held out): a prompt is held out with all that belongs to it, in whichever file, by the seed alone."""
    outside = [in_share(record.prompt.id, share, seed) for record, _ in examples]
    return ([e for e, out in zip(examples, outside) if not out], [e for e, out in zip(examples, outside) if out])
