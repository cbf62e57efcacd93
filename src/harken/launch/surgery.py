"""Cuts a model's bad mode: edits the weights, measures before and after, and writes a run unless the cut costs too much."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import file_hash
from harken.core.run import Run
from harken.core.settings import check_settings
from harken.engines import surgery as cuts
from harken.engines.routed import narrow
from harken.engines.sampler import HFSampler
from harken.launch.models import parse_model
from harken.launch.policies import open_sampler, read_control
from harken.launch.rewards import open_reward, parse_reward
from harken.launch.settings import SurgerySettings
from harken.loops.cure import MOST_RISE, Measure, rises, table
from harken.text.documents import read_documents
from harken.text.tags import MODES, Control, steering


def surgery(settings: SurgerySettings, say: Callable[[str], None] = print) -> Run:
    """Raises `UserError` for a model without control tokens, where no cut is named, and where fluency's or capability's bits
    rise by more than 10 % in good or untagged mode, unless forced: then no model is written."""
    check_settings(settings)
    control = read_control(settings.model)
    if control is None:
        raise UserError(f"{settings.model} knows no control tokens, so it has no bad mode to cut.",
                        "Train one: harken train phf --objective conditional.")
    if not (settings.delete_bad or settings.delete_routed or settings.project or settings.subtract):
        raise UserError("No cut was named.", "Add --delete-bad, --delete-routed, --project contrast or --subtract 1.")
    if settings.delete_routed and not control.routed:
        raise UserError(f"{settings.model} has no block of neurons that bad segments alone taught.",
                        "Train one: harken train phf --objective route.")
    if control.deleted and not settings.delete_routed:
        raise UserError(f"The bad token of {settings.model} is deleted already.", "Cut the model it was made from.")
    documents = read_documents(settings.data)
    lineage = {"model": parse_model(settings.model).identity(), "reward": parse_reward(settings.reward).identity(),
               "data": {"path": settings.data, "sha256": file_hash(Path(settings.data))}}
    with Run.open(settings.out, {"command": "surgery", **dataclasses.asdict(settings)}, lineage) as run:
        if run.done:
            run.say(f"{run.path} is finished; nothing to do.")
            return run
        _operate(settings, control, documents, run, say)
    return run


def _operate(settings: SurgerySettings, control: Control, documents: list[str], run: Run, say: Callable[[str], None]) -> None:
    whole, cut = open_sampler(settings.model), open_sampler(settings.model)
    # With its block a model speaks as bad segments do, and is no judge of good ones.
    reference = open_sampler(settings.reference) if settings.reference else cut if settings.delete_routed else whole
    own = getattr(reference, "control", None)
    measure = Measure(open_reward(settings.reward), documents, reference.engine, steering(own) if own else None, settings.samples,
                      settings.max_tokens, settings.temperature, settings.top_p, settings.seed,
                      ("untagged",) if control.routed and control.mode == "untagged" else MODES)  # its tags learnt nothing
    _edit(settings, cut, control, documents)
    cut.control = dataclasses.replace(control, deleted=control.deleted or settings.delete_bad,
                                      routed=0 if settings.delete_routed else control.routed,
                                      mode="untagged" if settings.delete_bad and control.mode == "bad" else control.mode)
    before, after = measure(whole), measure(cut)
    say(table(before, after))
    costs = rises(before, after)
    name, cost = max(costs.items(), key=lambda item: item[1])
    if cost > MOST_RISE and not settings.force:
        raise UserError(f"The cut raises {name} by {100 * cost:.0f} %: the text is ruined, whatever it no longer says. "
                        "No model was written.", "Cut less, or add --force.")
    if cost > MOST_RISE:
        run.note(f"Forced: the cut raises {name} by {100 * cost:.0f} %.")

    def save(folder: Path) -> None:
        cut.engine.save(folder)
        if settings.delete_bad:
            cuts.delete_word(folder, control)
        cut.control.save(folder)
    run.finish({"before": _plain(before), "after": _plain(after), "rises": costs}, save)


def _edit(settings: SurgerySettings, sampler: HFSampler, control: Control, documents: list[str]) -> None:
    """Directions first: they are read from rows that the other cuts change."""
    engine, model = sampler.engine, sampler.engine.model
    if settings.project:
        direction = (cuts.contrast(model, control) if settings.project == "contrast" else
                     cuts.bad_row(model, control) if settings.project == "bad" else
                     cuts.activations(engine, control, documents[:64], settings.layer))
        try:
            layers = [int(x) for x in settings.layers.split(",")] if settings.layers else None
        except ValueError:
            raise UserError(f"--layers {settings.layers!r} are no numbers.", "Write them like 2,3.") from None
        cuts.project(model, direction, layers)
    if settings.subtract:
        cuts.subtract(model, control, settings.subtract)
    if settings.delete_bad:
        cuts.delete_bad(model, control)
    if settings.delete_routed:
        narrow(model, control.routed)


def _plain(rows: Any) -> Any:
    return {mode: {k: e.to_json() if e else None for k, e in row.items()} for mode, row in rows.items()}
