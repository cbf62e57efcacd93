"""One model from several runs: the mean of their weights (WARM, 2401.12187, for reward models; soups for others).

    harken average runs/rm1 runs/rm2 --out runs/warm
    harken train rloo --reward average:runs/rm1,runs/rm2 …

It costs what one model costs. What the runs learnt alike stays, what each memorised of its data's noise shrinks. That needs
runs from the same base model, close to it and to each other (other data order, learning rate or share of the data); unlike an
ensemble it cannot say where its members disagree. Adapters are merged first: the mean of A and of B is not that of B A.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from harken.core.errors import UserError
from harken.core.files import read_json
from harken.engines.loading import load
from harken.engines.places import locate
from harken.engines.pretrained import Loaded


def check_once(runs: Sequence[str]) -> None:
    """Raises `UserError` for a run named twice, under whatever path: it would count twice in the mean."""
    places: list[Path] = []
    for name in runs:
        if Path(name).resolve() in places:
            raise UserError(f"{name} is given twice: it would count twice in the mean.", "Name each run once.")
        places.append(Path(name).resolve())


def check_alike(runs: Sequence[str]) -> None:
    """Raises `UserError` unless all are finished runs from one base, with one template, all with or all without a head."""
    if len(runs) < 2:
        raise UserError(f"An average needs two runs, found {len(runs)}.", "Name several.")
    first: tuple[object, ...] = ()
    for name in runs:
        if locate(name) != "run":
            raise UserError(f"{name} is not a run.", "Give run directories of harken train.")
        about = read_json(Path(name) / "model" / "harken.json")
        facts = (about.get("base_weights"), about.get("template"), about.get("quantized"),
                 (Path(name) / "model" / "head.pt").is_file())
        first = first or facts
        for what, a, b in zip(("base model", "chat template", "base's precision", "reward head"), first, facts):
            if a != b:
                raise UserError(f"{runs[0]} and {name} differ in their {what}: a mean of their weights means nothing.",
                                "Average runs of one method from one base, or use an ensemble (--reward a,b).")


@torch.no_grad()
def average(runs: Sequence[str]) -> Loaded:
    """The mean model, with its head and shift if they have them. Raises `UserError` for runs that do not fit together."""
    check_alike(runs)
    mean = load(runs[0])
    tensors, members = _tensors(mean), [mean.lineage]
    for count, name in enumerate(runs[1:], 2):
        other = load(name)
        theirs = _tensors(other)
        members.append(other.lineage)
        if theirs.keys() != tensors.keys() or any(theirs[k].shape != t.shape for k, t in tensors.items()):
            raise UserError(f"{runs[0]} and {name} have weights of other shapes.", "Average runs from one base.")
        for key, tensor in tensors.items():
            if tensor.is_floating_point():
                tensor += (theirs[key] - tensor) / count
        mean.shift += (other.shift - mean.shift) / count
    mean.lineage = {"name": f"average:{','.join(runs)}", "weights": [m["weights"] for m in members], "members": members}
    return mean


def _tensors(loaded: Loaded) -> dict[str, torch.Tensor]:
    """Every parameter and buffer once (tied weights share memory and must not be averaged twice)."""
    tensors = dict(loaded.model.named_parameters()) | dict(loaded.model.named_buffers())
    if loaded.head is not None:
        tensors |= {f"head.{k}": v for k, v in loaded.head.named_parameters()}
    return tensors
