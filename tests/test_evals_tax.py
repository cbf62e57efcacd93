"""The tax: its tasks by hand, its table, and code of models in a process without a network."""

import gzip
import json

import pytest

from harken.core.errors import UserError
from harken.core.protocols import Estimate
from harken.evals import tax
from harken.launch.evaluate import evaluate
from harken.loops.isolated import run_isolated
from harken.loops.items import Answer


@pytest.fixture(scope="module")
def isolated():
    if run_isolated("pass")[0] is None:
        pytest.skip("this machine gives no network namespace")


def test_numbers_of_gsm8k():
    worked = "9 * 2 = <<9*2=18>>18\n#### 1,018"
    assert [tax.same_number(a, worked) for a in ("so #### 1018", "it is 1,018.", "#### 1018.0", "#### 18", "none", "1018 or 5")] \
        == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]


def test_the_first_option_must_be_the_likeliest_and_a_tie_is_shared():
    rows = ((-1.0, -2.0), (-2.0, -1.0), (-1.0, -1.0), (-1.0, -1.0, -1.0, -2.0), ())
    assert [tax._first(x) for x in rows] == [1, 0, 0.5, 1 / 3, None]


def test_the_mean_of_tasks_joins_their_errors():
    found = tax.mean_of_tasks([Estimate(0.1, 0.0, 0.2, 50), Estimate(-0.3, -0.7, 0.1, 20)])
    assert found.value == pytest.approx(-0.1) and found.n == 70
    assert found.high - found.value == pytest.approx((0.1**2 + 0.4**2) ** 0.5 / 2)


def test_code_runs_without_network_in_bounded_time_and_memory(isolated):
    assert run_isolated("assert 1 + 1 == 2") == (True, "")
    assert run_isolated("assert 1 == 2")[0] is False
    assert "unreachable" in run_isolated("import socket\nsocket.create_connection(('127.0.0.1', 9), 1)")[1]
    assert "longer than" in run_isolated("while True: pass", seconds=0.5)[1]
    assert "MemoryError" in run_isolated("x = 'a' * (1 << 31)")[1]
    assert "File too large" in run_isolated("open('f', 'w').write('a' * (1 << 22))")[1]
    assert run_isolated("import os\nassert 'HOME' not in os.environ")[0]


class Writes:
    """Stands for a stored model that writes the same code for every problem."""

    def __init__(self, text):
        self.text = text

    def continuations(self, prompts, **settings):
        return [Answer(p, () if "two" in p else (self.text,), "why not" if "two" in p else "") for p in prompts]


def test_humaneval_passes_what_passes(tmp_path, isolated):
    row = {"prompt": "def f(x):\n", "test": "def check(g):\n    assert g(2) == 4\n", "entry_point": "f"}
    rows = [{**row, "task_id": "H/1"}, {**row, "task_id": "H/2", "prompt": "# two\ndef f(x):\n"}]
    path = tmp_path / "h.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    config = tax.Config(model="toy", out="x", humaneval=str(path))
    task = tax.humaneval_task(config)
    assert task.score(Writes("    return x * x\n"), config) == [(1.0, ""), (None, "why not")]
    assert task.score(Writes("    return x + 1\n"), config)[0][0] == 0.0


def test_shots_come_before_and_are_not_asked(tmp_path):
    path = tmp_path / "g.jsonl"
    path.write_text("".join(json.dumps({"question": f"q{i}", "answer": f"#### {i}"}) + "\n" for i in range(5)))
    config = tax.Config(model="toy", out="x", gsm8k=str(path), shots=2)
    few, none = tax.gsm8k_task(config, 2), tax.gsm8k_task(config, 0)
    assert few.prompts[0] == "Question: q0\nAnswer: #### 0\n\nQuestion: q1\nAnswer: #### 1\n\nQuestion: q2\nAnswer:"
    assert none.prompts == [f"Question: q{i}\nAnswer:" for i in (2, 3, 4)] and few.items == none.items
    with pytest.raises(UserError, match="no item beside"):
        tax.gsm8k_task(tax.Config(model="toy", out="x", gsm8k=str(path), shots=5), 0)


def test_a_model_against_itself_has_no_tax_and_every_task_a_row(tmp_path, capsys):
    pytest.importorskip("torch")
    (tmp_path / "blimp.jsonl").write_text(json.dumps({"sentence_good": "He is.", "sentence_bad": "He are.", "UID": "a"}) + "\n")
    (tmp_path / "bbh.json").write_text(json.dumps({"examples": [{"input": f"Not {i}", "target": "True"} for i in range(5)]}))
    config = tax.Config(model="toy", against="toy", out=str(tmp_path / "t"), limit=4, shots=1, max_tokens=4,
                        blimp=str(tmp_path / "blimp.jsonl"), bbh=str(tmp_path / "bbh.json"))
    result = evaluate("tax", tax, config, quiet=True).result
    assert set(result["tasks"]) == {"BLiMP", "text"} | {f"{t}, {s}" for t in ("grammar", "arithmetic", "sense", "BBH bbh")
                                                       for s in ("zero-shot", "few-shot")}
    assert result["value"]["value"] == 0.0 and "inconclusive" in result["tasks"]["text"]["verdict"]
    assert result["baselines"]["chance: arithmetic, zero-shot"]["value"] == 0.25


@pytest.mark.slow
def test_the_layouts_of_real_files(real_data):
    config = tax.Config(model="toy", out="x", blimp=str(real_data / "blimp" / "BLiMP.zip"), limit=0,
                        gsm8k=str(real_data / "gsm8k" / "test.jsonl"), bbh=str(real_data / "bbh" / "navigate.json"),
                        humaneval=str(real_data / "humaneval" / "HumanEval.jsonl.gz"))
    tasks = tax.list_tasks(config)
    assert len(tasks["GSM8K, few-shot"].items) == 1319 - 3 and len(tasks["HumanEval"].items) == 164
    assert len(tasks["BBH navigate, zero-shot"].items) == 247 and len(tasks["BLiMP"].items) == 67_000
