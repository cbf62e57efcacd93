"""Pretraining with human feedback on real code, offline: what `harken quickstart phf` runs.

The corpus is a part of Python's own standard library, the scorer PEP 8's. Every stage leaves a run; the same command goes on
where it stopped.
"""

from __future__ import annotations

import json
import math
import sysconfig
import time
from functools import partial
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.files import read_json, write_json
from harken.core.protocols import Estimate
from harken.launch.evaluate import evaluate
from harken.launch.find import find_eval, find_method
from harken.launch.scorers import open_scorer
from harken.launch.settings import SurgerySettings
from harken.launch.surgery import surgery
from harken.launch.train import train
from harken.loops.annotate import annotate

BYTES = 1_200_000
"""Code to learn from."""
HELD_BYTES = 60_000
"""Code kept apart, to measure capability on."""
TOKENS = 300_000
SAMPLES, LENGTH = 128, 96
SIZE: dict[str, Any] = {"size": "500K", "vocabulary": 1024, "max_length": 128, "batch_size": 2, "learning_rate": 2e-3,
                        "tokens": TOKENS, "checkpoint_seconds": 30.0}


def run(out: Path, seed: int) -> dict[str, Any]:
    """Runs what is missing, prints the figures and returns them. Raises `UserError` for a folder that is something else."""
    settings = {"command": "quickstart phf", "seed": seed}
    known = out / "config.json"
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and (not known.exists() or read_json(known) != settings))):
        raise UserError(f"{out} is not the folder of this quickstart.", "Choose another --out, or remove it.")
    out.mkdir(parents=True, exist_ok=True)
    write_json(known, settings)
    corpus(out)
    start = _said("annotate: every line of code, scored once by PEP 8")
    found = annotate([out / "code.jsonl"], out / "annotated", partial(open_scorer, "pep8"), segmenter="line")
    _took(start, f"{found.segments:,} lines")
    method = find_method("phf")
    for arm, more in (("mle", {}), ("conditional", {"objective": "conditional", "drop": 0.1})):
        start = _said(f"train {arm}: {TOKENS:,} tokens from scratch, the same annotations")
        train(method, method.Config(data=str(out / "annotated"), out=str(out / arm), seed=seed, **SIZE, **more))
        _took(start)
    start = _said("surgery: delete the bad token, and measure every mode before and after")
    surgery(SurgerySettings(model=str(out / "conditional"), delete_bad=True, reward="pep8", data=str(out / "held.jsonl"),
                            out=str(out / "cut"), samples=SAMPLES, max_tokens=LENGTH, seed=seed))
    _took(start)
    figures = {}
    for name, model, mode in (("mle", "mle", "untagged"), ("conditional, good", "conditional", "good"),
                              ("conditional, bad", "conditional", "bad"), ("cut, good", "cut", "good")):
        start = _said(f"evaluate {name}: misalignment and bits a byte")
        figures[name] = _measured(out, name.replace(", ", "_"), out / model, mode, seed)
        _took(start)
    write_json(out / "summary.json", {n: {k: e.to_json() for k, e in row.items()} for n, row in figures.items()})
    runs = sorted(p.parent for p in out.glob("*/result.json"))
    from harken.report.build import build_report
    build_report(runs, out / "report.html")
    _show(figures, out)
    return figures


def corpus(out: Path) -> None:
    """code.jsonl and held.jsonl: files of the standard library in the order of their names, none of them twice."""
    if (out / "code.jsonl").exists():
        return
    library = Path(sysconfig.get_paths()["stdlib"])
    kept: dict[str, list[str]] = {"held": [], "code": []}
    sizes = {"held": 0, "code": 0}
    for file in sorted(library.glob("*.py")):
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        name = "held" if sizes["held"] < HELD_BYTES and len(text) < 20_000 else "code"
        if text.strip() and sizes["code"] < BYTES:
            kept[name].append(json.dumps({"id": file.name, "text": text}) + "\n")
            sizes[name] += len(text)
    if not kept["code"] or not kept["held"]:
        raise UserError(f"Python's standard library has no source code at {library}.",
                        "Give your own: harken annotate FOLDER --scorer pep8 --segment line --out annotated.")
    for name in ("held", "code"):
        (out / f"{name}.jsonl").write_text("".join(kept[name]), encoding="utf-8")


def _measured(out: Path, name: str, model: Path, mode: str, seed: int) -> dict[str, Estimate]:
    bad, bits = find_eval("misalignment"), find_eval("bits_per_byte")
    faults = evaluate("misalignment", bad, bad.Config(
        model=str(model), reward="pep8", mode=mode, samples=SAMPLES, max_tokens=LENGTH, temperature=1.0, top_p=1.0, seed=seed,
        out=str(out / f"misalignment_{name}")))
    read = evaluate("bits_per_byte", bits, bits.Config(model=str(model), mode=mode, data=str(out / "held.jsonl"), max_length=128,
                                                       out=str(out / f"bits_{name}")))
    return {"faults": Estimate.from_json(faults.result["value"]), "bits": Estimate.from_json(read.result["value"])}


def _said(text: str) -> float:
    print(f"  {text} …", flush=True)
    return time.monotonic()


def _took(start: float, more: str = "") -> None:
    print(f"    {time.monotonic() - start:.0f} s{': ' + more if more else ''}", flush=True)


def _show(figures: dict[str, dict[str, Estimate]], out: Path) -> None:
    print(f"\n  {'model':20} {'PEP 8 faults per 100 characters':34} bits a byte of held-out code")
    for name, row in figures.items():
        print(f"  {name:20} {row['faults']!s:34} {row['bits']}")
    print("\n".join(["", *(f"  {line}" for line in findings(figures)), f"  Report: {out / 'report.html'}"]))


def findings(figures: dict[str, dict[str, Estimate]]) -> list[str]:
    """What the figures say, and what they do not tell apart."""
    good = figures["conditional, good"]
    same = figures["cut, good"]["faults"].value == good["faults"].value
    lines = [f"{name} to good mode: {_apart(figures[key]['faults'], good['faults'])}"
             for name, key in (("From mle", "mle"), ("From bad", "conditional, bad"))]
    lines.append(f"Deleting the bad token {'changed no sample' if same else 'changed samples'} in good mode.")
    lines.append("A model of half a million parameters and a minute of training writes broken code, and most of its faults come "
                 "from that: docs/benchmarks.md has longer runs.")
    return lines


def _apart(before: Estimate, after: Estimate) -> str:
    """The change of two independent means, with its interval from theirs."""
    change = after.value - before.value
    half = math.hypot(before.high - before.low, after.high - after.low) / 2
    verdict = "fewer faults" if change + half < 0 else "more faults" if change - half > 0 else "not told apart at this size"
    return f"{change:+.2f} [{change - half:+.2f}, {change + half:+.2f}] per 100 characters, {verdict}."
