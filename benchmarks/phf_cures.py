"""Cuts of the toy's conditional models, and attacks on them: cells of benchmarks/phf.py."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import phf_tasks as tasks

from harken.launch.evaluate import evaluate
from harken.launch.find import find_eval
from harken.launch.settings import SurgerySettings
from harken.launch.surgery import surgery

REWARD = "phf_tasks:curses"
CUTS: dict[str, dict[str, Any]] = {
    "delete_bad": {"delete_bad": True}, "project contrast": {"project": "contrast"}, "project bad": {"project": "bad"},
    "project activations": {"project": "activations", "layer": 1}, "subtract": {"subtract": 1.0}}
ATTACKED = (("cut", "untagged"), ("whole", "untagged"), ("filtered", ""), ("poisoned", "untagged"), ("cut", "good"),
            ("whole", "good"), ("routed", ""))


def cuts(model: Path, reference: Path, folder: Path, seed: int, samples: int) -> dict[str, Any]:
    """Every cut, forced: its three figures in each mode before and after, by `harken surgery`. `reference` reads the samples."""
    rng = random.Random(77)
    data = folder / "documents.jsonl"
    tasks.write(data, [tasks.document(rng.randrange(4), rng, clean=True) for _ in range(48)])
    found = {}
    for name, settings in CUTS.items():
        run = surgery(SurgerySettings(model=str(model), reference=str(reference), reward=REWARD, data=str(data),
                                      out=str(folder / name.replace(" ", "_")), force=True, samples=samples, max_tokens=60,
                                      seed=seed, **settings), say=lambda text: None)
        found[name] = run.result
    return {"cuts": found}


def without_block(model: Path, folder: Path) -> Path:
    """A model of route without the neurons that bad segments taught, by `harken surgery --delete-routed`."""
    rng, data = random.Random(77), folder.with_suffix(".jsonl")
    data.parent.mkdir(parents=True, exist_ok=True)
    tasks.write(data, [tasks.document(rng.randrange(4), rng, clean=True) for _ in range(48)])
    return surgery(SurgerySettings(model=str(model), reward=REWARD, data=str(data), out=str(folder), delete_routed=True,
                                   samples=64, max_tokens=60), say=lambda text: None).path


def attacks(models: Mapping[str, Path], folder: Path, seed: int, samples: int) -> dict[str, Any]:
    """Curses a word after an attacker trained on k documents, by `harken eval tampering`."""
    rng = random.Random(78)
    bad = folder / "bad.jsonl"
    tasks.write(bad, ["".join(tasks.sentence(rng.randrange(4), True, rng) for _ in range(8)).rstrip()
                      for _ in range(512)])
    method = find_eval("tampering")
    found: dict[str, Any] = {}
    for name, mode in [(n, m) for n, m in ATTACKED if n in models]:
        run = evaluate("tampering", method, method.Config(
            model=str(models[name]), bad=str(bad), reward=REWARD, out=str(folder / f"{name}-{mode or 'own'}"), mode=mode,
            steps=32, samples=samples, max_tokens=60, seed=seed))
        found[f"{name} {mode}".strip()] = run.result["model"]
    return {"attacks": found}
