"""Code: programs run apart, pass@k as Chen et al. define it, and problems whose own solutions pass."""

import json
import math
import textwrap

import pytest

from harken.core.errors import UserError
from harken.core.protocols import Sample
from harken.evals import code
from harken.launch.evaluate import evaluate
from harken.loops.isolated import run_isolated
from harken.loops.items import read_items
from harken.stats.passes import pass_at_k, passes

SOLUTIONS = {row["name"]: textwrap.indent(row["solution"], "    ") for row in read_items("", "code")["items"]}
PROBLEMS = {p.name: p for p in code.load("")}


@pytest.fixture(scope="module", autouse=True)
def isolated():
    if run_isolated("pass")[0] is None:
        pytest.skip("no network namespace here")


def test_pass_at_k_by_hand():
    """n = 4, c = 1: one sample passes with 1/4; of two, the six pairs hold it three times; n = 5, c = 2, k = 3: 1 - 1/10."""
    assert pass_at_k(4, 1, 1) == 0.25 and pass_at_k(4, 1, 2) == 0.5 and pass_at_k(5, 2, 3) == pytest.approx(0.9)
    assert pass_at_k(10, 0, 10) == 0.0 and pass_at_k(3, 1, 3) == 1.0
    assert pass_at_k(200, 13, 100) == pytest.approx(1 - math.prod(1 - 100 / (200 - i) for i in range(13)))  # the paper's product
    assert passes([(4, 1), (4, 0)], 2).value == 0.25
    for wrong in ((3, 4, 1), (3, 1, 4), (3, 1, 0)):
        with pytest.raises(ValueError, match="pass@k needs"):
            pass_at_k(*wrong)


class Writes:
    """A model without weights that writes `body(problem, draw)`."""

    engine = None

    def __init__(self, body):
        self.body = body

    def sample(self, prompts, n, *, max_tokens, temperature=1.0, top_p=1.0, seed=0, advance=None):
        names = [p.text.split("def ")[1].split("(")[0] for p in prompts]
        return [[Sample((), self.body(name, i), (), (), True) for i in range(n)] for name in names]


def run(tmp_path, body, name="r", **settings):
    given = {"model": Writes(body)}
    if "against" in settings:
        given["against"], settings["against"] = Writes(settings["against"]), "my.other"
    config = code.Config(model="my.model", out=str(tmp_path / name), **settings)
    return evaluate("code", code, config, quiet=True, given=given).result


@pytest.mark.slow
def test_every_solution_of_the_set_passes_and_null_bodies_do_not(tmp_path):
    result = run(tmp_path, lambda name, i: f"Here it is:\n```python\n{PROBLEMS[name].prompt}{SOLUTIONS[name]}\n```")
    assert len(PROBLEMS) >= 50 and result["value"]["value"] == 1.0 and result["value"]["n"] == len(PROBLEMS)
    assert all(b["value"] <= 0.02 for b in result["baselines"].values())


@pytest.mark.slow
def test_pass_at_k_of_a_model_that_is_right_once_in_four(tmp_path):
    result = run(tmp_path, lambda name, i: f"{SOLUTIONS[name]}" if i == 2 else "    return (", n=4, k="1,2", limit=2,
                 against=lambda name, i: "    return None")
    assert result["model"]["pass@1"]["value"] == 0.25 and result["model"]["pass@2"]["value"] == 0.5
    assert result["model"]["does not compile"]["value"] == 0.75 and result["value"]["value"] == 0.25 and result["paired"]
    with pytest.raises(UserError, match="from 1 to the 2 samples"):
        run(tmp_path, lambda name, i: "", "b", n=2, k="3")


def test_code_that_ends_early_or_hangs_has_not_passed():
    """sys.exit(0) before the tests would be a pass by its status alone."""
    for cheat in ("import sys\nsys.exit(0)", "import os\nos._exit(0)", "raise SystemExit"):
        assert run_isolated(f"{cheat}\nassert False")[0] is False
    assert run_isolated("print('x' * 100)")[0] is True
    ok, why = run_isolated("import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'while True: pass'])", seconds=0.5)
    assert ok is False and "longer than" in why


def test_a_body_alone_gets_its_head():
    problem = PROBLEMS["triangle"]
    assert code.code_of("```\nreturn n * (n + 1) // 2\n```", problem).startswith(problem.prompt)
    assert code.code_of("def triangle(n): return 0", problem) == "def triangle(n): return 0"


def test_the_layout_of_humaneval(tmp_path, real_data):
    import gzip
    rows = gzip.decompress((real_data / "humaneval" / "HumanEval.jsonl.gz").read_bytes()).decode().splitlines()
    path = tmp_path / "h.jsonl"
    path.write_text("\n".join(rows[:2]))
    first, second = code.load(str(path))
    solved = [json.loads(r) for r in rows[:2]]
    config = code.Config(model="m", out="o")
    programs = [(p, p.prompt + r["canonical_solution"]) for p, r in zip((first, second), solved)]
    assert [ok for ok, _ in code.checked(programs, config)] == [True, True]
    path.write_text('{"task_id": "x"}')
    with pytest.raises(UserError, match="another layout"):
        code.load(str(path))
