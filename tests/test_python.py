"""Harken as a library: docs/python.md as it is written, and what stands beside it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import harken

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_page_runs(tmp_path, monkeypatch):
    """Every block of docs/python.md, in order, in one session."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) > 5
    session: dict = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), session)
    assert "<html" in (tmp_path / "report.html").read_text()
    assert session["rloo"].result["steps"] == 2


def test_every_public_name_is_there_and_loads_no_torch():
    code = ("import sys, harken; [getattr(harken, n) for n in harken.__all__]; print(sorted(harken.__all__) == "
            "sorted(set(dir(harken)) & set(harken.__all__)), [m for m in ('torch', 'transformers') if m in sys.modules])")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "True []"
    with pytest.raises(AttributeError):
        _ = harken.nonsense
    assert (Path(harken.__file__).parent / "py.typed").exists()


def test_an_unknown_setting_names_the_nearest(tmp_path):
    with pytest.raises(harken.UserError, match="Did you mean epochs"):
        harken.train("sft", model="toy", data=[], epoch=1, out=tmp_path / "r")
    with pytest.raises(harken.UserError, match="Did you mean max_tokens"):
        harken.sample("toy", ["hi"], max_token=3)
    with pytest.raises(harken.UserError, match=r"no method 'slft'\. Did you mean sft"):
        harken.train("slft", out=tmp_path / "r")


def test_the_same_call_continues_and_another_function_is_refused(tmp_path):
    def one(prompts, completions):
        return [1.0] * len(completions)

    def two(prompts, completions):
        return [2.0] * len(completions)

    settings = {"model": "toy", "data": [f"Say {i}." for i in range(16)], "steps": 1, "max_tokens": 4, "out": tmp_path / "r"}
    first = harken.train("rloo", reward=one, **settings)
    assert harken.train("rloo", reward=one, **settings).result == first.result
    with pytest.raises(harken.UserError, match="holds another run"):
        harken.train("rloo", reward=two, **settings)


def test_a_function_that_raises_sometimes_is_counted_and_never_zero(capsys):
    """Two of four completions raise: no score. `meta` fills parameters by name; async functions are awaited."""
    from harken.rewards.function import FunctionReward

    async def exact(prompts, completions, answer):
        if "boom" in completions:
            raise ValueError("no")
        return [None if a is None else float(a == c) for a, c in zip(answer, completions)]

    reward = FunctionReward(exact)
    asked = [harken.Prompt.of("2 + 2?", meta={"answer": "4"}), harken.Prompt.of("no answer")]
    assert reward.score(asked, [["4", "boom", "5"], ["boom"]]) == [[1.0, None, 0.0], [None]]
    assert reward.errors == 2 and "raised ValueError: no on 2 of 4" in capsys.readouterr().err
    assert reward.score(asked[1:], [["fine"]]) == [[None]]
    with pytest.raises(harken.UserError, match="on every completion"):
        reward.score(asked, [["boom", "boom"], []])
    with pytest.raises(harken.UserError, match="gave 1 scores for 2 completions"):
        FunctionReward(lambda prompts, completions: [1.0]).score(asked, [["a", "b"], []])
    with pytest.raises(harken.UserError, match="which is no number"):
        FunctionReward(lambda prompts, completions: ["x"]).score(asked[:1], [["a"]])
    assert FunctionReward(lambda p, c: [float("nan")]).score(asked[:1], [["a"]]) == [[None]]
