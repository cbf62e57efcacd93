"""Runs of several seeds: one table, one chart with bands, no headline without an interval."""

import csv
import json
from pathlib import Path

import pytest

from harken.cli.main import main
from harken.report import seeds
from harken.report.load import load_runs
from harken.stats.intervals import mean_interval


def write(folder: Path, command: str, seed: int, values: list[float], **settings) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"command": command, "seed": seed, "out": str(folder), **settings}))
    (folder / "lineage.json").write_text(json.dumps({"created": str(seed)}))
    (folder / "metrics.jsonl").write_text("".join(
        json.dumps({"step": i + 1, "seconds": i, "reward": v, "kl": v / 10}) + "\n" for i, v in enumerate(values)))
    (folder / "result.json").write_text(json.dumps({"steps": len(values), "notes": []}))
    return folder


@pytest.fixture
def runs(tmp_path):
    """RLOO ends at 1, 2, 3 over three seeds; GRPO with two learning rates, two seeds each; one PPO alone."""
    out = [write(tmp_path / f"rloo-{s}", "train rloo", s, [0.0, 0.5, 1.0 + s]) for s in range(3)]
    out += [write(tmp_path / f"grpo-{r}-{s}", "train grpo", s, [0.0, r, 10 * r + s], learning_rate=r)
            for r in (0.1, 0.2) for s in (0, 1)]
    return [*out, write(tmp_path / "ppo", "train ppo", 0, [0.0, 1.0])]


def test_groups_are_of_equal_settings(runs):
    groups = seeds.groups(load_runs(runs))
    named = [(g.name, len(g.runs)) for g in groups]
    assert named == [("RLOO", 3), ("grpo (learning rate 0.1)", 2), ("grpo (learning rate 0.2)", 2)]
    assert groups[0].ends("reward") == mean_interval([1.0, 2.0, 3.0])
    assert [e.value for _, e in groups[0].curve("reward")] == [0.0, 0.5, 2.0]


def test_the_page_groups_them_and_the_headline_has_an_interval(runs, tmp_path):
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "p.html"), "--csv", str(tmp_path / "p.csv")]) == 0
    page = (tmp_path / "p.html").read_text()
    head = page[page.index("<h1>"):page.index("</h1>")]
    assert "over 3 seeds" in head and "2.00" in head and "[" in head and "rose" not in head
    assert page.count("<polygon") == 2 * 3 and "Over seeds" in page and "Training of ppo" in page
    assert "Training of rloo-0" not in page
    with (tmp_path / "p.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert {"run": "rloo-2", "method": "rloo", "seed": "2", "metric": "reward", "step": "3", "value": "3.0"} in rows
    assert len(rows) == (7 * 3 + 2) * 3


def test_one_seed_has_no_number_in_its_headline(runs, tmp_path):
    assert main(["report", str(runs[-1]), "--out", str(tmp_path / "p.html")]) == 0
    head = (tmp_path / "p.html").read_text().partition("<h1>")[2].partition("</h1>")[0]
    assert "no interval" in head and "<strong>" not in head
