"""A method dropped into harken/methods is in every behavioural test through its own TRIAL: the guide's method, as a newcomer
would drop it."""

import re
import sys
from pathlib import Path

import pytest

import harken.methods
import test_toy_tasks
from harken.launch.find import find_method, method_names
from harken.store.files import read_prompts
from test_kill import assert_survives_kills
from test_methods_docs import assert_page_is_true
from test_toy_tasks import assert_solves
from toy_tasks import BANDIT
from trials import assert_reads_as_asked, assert_resumes_exactly, trial

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"
PAGE = """| metric | meaning |
|--|--|
| `nll` | nats a token |
| `reward` | mean of the best |
"""
babblers = test_toy_tasks.babblers


@pytest.fixture
def dropped(tmp_path, monkeypatch):
    (tmp_path / "methods").mkdir()
    codes = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
    (code,) = [c for c in codes if "def train(" in c]
    (tmp_path / "methods" / "dropped.py").write_text(code)
    (tmp_path / "methods" / "dropped.md").write_text(PAGE)
    monkeypatch.setattr(harken.methods, "__path__", [*harken.methods.__path__, str(tmp_path / "methods")])
    yield "dropped"
    sys.modules.pop("harken.methods.dropped", None)
    vars(harken.methods).pop("dropped", None)


def test_it_is_registered(dropped):
    assert dropped in method_names() and trial(dropped) == {"reward": "gold", "max_tokens": 8, "learning_rate": 1e-3}


@pytest.mark.slow
def test_it_resumes_exactly(dropped, files, tmp_path):
    assert_resumes_exactly(dropped, files, tmp_path)


def test_it_reads_its_data_as_it_is_asked(dropped, files, tmp_path):
    assert_reads_as_asked(dropped, files, tmp_path)


def test_a_method_that_reads_its_data_otherwise_is_caught(dropped, files, tmp_path):
    find_method(dropped).fitting_prompts = lambda config, learner, run: [(p, ()) for p in read_prompts(config.data).records]
    with pytest.raises(AssertionError, match="reads its data past --field"):
        assert_reads_as_asked(dropped, files, tmp_path)


@pytest.mark.slow
def test_a_method_that_does_not_resume_is_caught(dropped, files, tmp_path):
    """Draws that depend on more than the seed and the step: on how often this process has drawn."""
    module, calls = find_method(dropped), []
    original, module.derive_seed = module.derive_seed, lambda *parts: original(*parts, len(calls), calls.append(0))
    with pytest.raises(AssertionError):
        assert_resumes_exactly(dropped, files, tmp_path)


def test_its_page_is_compared(dropped, files, tmp_path):
    with pytest.raises(AssertionError, match="never logged: nothing_like_it"):
        (tmp_path / "methods" / "dropped.md").write_text(PAGE + "| `nothing_like_it` | - |\n")
        assert_page_is_true(dropped, files, tmp_path, tmp_path / "methods")
    (tmp_path / "methods" / "dropped.md").write_text(PAGE)
    (tmp_path / "again").mkdir()
    assert_page_is_true(dropped, files, tmp_path / "again", tmp_path / "methods")


@pytest.mark.slow
def test_it_solves_a_toy_task(dropped, babblers, tmp_path, monkeypatch):
    monkeypatch.setitem(test_toy_tasks.POLICY, dropped, (dropped, {}))
    assert_solves(dropped, BANDIT, 0, babblers, tmp_path, monkeypatch)


@pytest.mark.slow
def test_it_survives_kills(dropped, files, tmp_path):
    assert_survives_kills(dropped, trial(dropped), dropped, files, tmp_path)
