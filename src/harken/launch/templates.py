"""A run's chat template: the day it prints, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

from harken.core.files import read_json, write_json
from harken.core.run import Run
from harken.text.template import fix_date, read_template


def given_template(name: str) -> str:
    """The source of the template that --template names; nothing where it is empty."""
    return read_template(name) if name else ""


@contextmanager
def dated(run: Run) -> Iterator[None]:
    """Chat templates print the day on which the run began, whenever it goes on (P35)."""
    fix_date(date.fromisoformat(read_json(run.path / "lineage.json")["created"][:10]))
    try:
        yield
    finally:
        fix_date(None)


def note_template(template: Any, run: Run) -> None:
    """What is to be known of a model's chat template; the day it prints joins the lineage and holds for the whole run."""
    for note in template.notes:
        run.note(note)
    if template.dated:
        fix_date(template.day)
        lineage = read_json(run.path / "lineage.json")
        if run.group.rank == 0 and lineage.get("template_date") != str(template.day):
            write_json(run.path / "lineage.json", {**lineage, "template_date": str(template.day)})
