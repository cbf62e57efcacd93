"""A sweep: a run a combination and seed, one table; killed in the middle it ends with the same one."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import harken
from harken.cli.main import main
from harken.launch.sweep import folder_of
from harken.stats.intervals import mean_interval

YAML = """\
method: rloo
out: {out}
settings: {{model: toy, reward: "measure:length", data: p.jsonl, max_tokens: 4, steps: 2, prompts_per_step: 4,
           checkpoint_seconds: 0}}
grid: {{learning_rate: [1e-3, 1e-2], beta: [0.0, 0.1]}}
seeds: 2
measure: [reward, kl]
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    harken.write_jsonl("p.jsonl", [{"prompt": f"Say {i}."} for i in range(16)])
    return tmp_path


@pytest.mark.slow
def test_two_by_two_by_two_in_one_table(lab, capsys):
    (lab / "s.yaml").write_text(YAML.format(out="runs/s"))
    assert main(["sweep", "s.yaml"]) == 0
    shown = capsys.readouterr().out
    with (lab / "runs/s/table.csv").open() as f:
        rows = list(csv.DictReader(f))
    with (lab / "runs/s/runs.csv").open() as f:
        runs = list(csv.DictReader(f))
    assert len(rows) == 4 and len(runs) == 8 and shown.count("n=2") == 8
    first = [float(r["reward"]) for r in runs[:2]]
    expected = mean_interval(first)
    assert float(rows[0]["reward"]) == pytest.approx(expected.value)
    assert float(rows[0]["reward_low"]) == pytest.approx(expected.low)
    assert (lab / "runs/s/learning_rate=0.001,beta=0/seed-1/result.json").exists()
    before = (lab / "runs/s/table.csv").read_bytes()
    assert main(["sweep", "s.yaml"]) == 0 and (lab / "runs/s/table.csv").read_bytes() == before


@pytest.mark.slow
def test_killed_in_the_middle_it_ends_with_the_same_table(lab):
    (lab / "a.yaml").write_text(YAML.format(out="runs/a"))
    (lab / "b.yaml").write_text(YAML.format(out="runs/b"))
    source = str(Path(harken.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source}
    command = [sys.executable, "-m", "harken", "sweep"]
    assert main(["sweep", "a.yaml"]) == 0
    killed = 0
    for wanted in (1, 4):
        process = subprocess.Popen([*command, "b.yaml"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while len(list(lab.glob("runs/b/*/*/result.json"))) < wanted and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed == 2 and not (lab / "runs/b/table.csv").exists()
    assert main(["sweep", "b.yaml"]) == 0
    for name in ("table.csv", "runs.csv"):
        assert (lab / "runs/a" / name).read_bytes() == (lab / "runs/b" / name).read_bytes()


def test_an_evaluation_and_one_seed(lab, capsys):
    (lab / "s.toml").write_text('method = "sft"\nout = "runs/s"\nmeasure = ["heldout_nll"]\n'
                                'settings = {model = "toy", data = "d.jsonl", holdout = 0.3}\ngrid = {epochs = [1, 2]}\n'
                                'eval = {name = "win_rate", against = "toy", judge = "measure:length", prompts = "p.jsonl",'
                                ' max_tokens = 4, n = 1}\n')
    harken.write_jsonl("d.jsonl", [{"prompt": f"Say {i}.", "completion": "Hello."} for i in range(16)])
    assert main(["sweep", "s.toml"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("(one seed)") == 4 and "n=1" not in shown
    assert (lab / "runs/s/epochs=2/seed-0-win_rate/result.json").exists()


def test_mistakes_are_said_before_the_first_run(lab, capsys):
    whole = YAML.format(out="runs/s")
    mistakes = {whole.replace("grid:", "grids:"): "Did you mean grid",
                whole.replace("beta: [0.0, 0.1]", "beta: 0.1"): "no list of",
                whole.replace("beta:", "betta:"): "Did you mean beta", whole.replace("method: rloo\n", ""): "says no method",
                whole.replace("seeds: 2", "seeds: [1, 1]"): "different numbers", whole.replace("1e-3", "-1.0"): "out of range"}
    for text, message in mistakes.items():
        (lab / "s.yaml").write_text(text)
        assert main(["sweep", "s.yaml"]) == 2
        assert message in capsys.readouterr().err and not (lab / "runs").exists()


def test_folders_tell_combinations_apart():
    assert folder_of({"beta": 0.1, "loss": "dpo"}) == "beta=0.1,loss=dpo"
    a, b = folder_of({"reward": "runs/a"}), folder_of({"reward": "runs_a"})
    assert a != b and "/" not in a
    assert folder_of({"beta": 0.1234567}) != folder_of({"beta": 0.1234568})
