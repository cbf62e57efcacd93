"""The grid of pretraining with feedback (benchmarks/phf.py): its toy language, its scorer with mistakes, its ratios."""

import importlib.util
import math
import random
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def by_path(name):
    # By its path: with benchmarks/ on the path, lm_eval there would stand in for the package of that name.
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tasks():
    yield by_path("phf_tasks")
    del sys.modules["phf_tasks"]


@pytest.fixture(scope="module")
def tables():
    yield by_path("phf_tables")
    del sys.modules["phf_tables"]


def test_what_the_language_says_is_legal_and_what_it_does_not_is_not(tasks):
    rng = random.Random(0)
    clean = [pair for k in range(40) for pair in tasks.legal(tasks.document(k % 4, rng, clean=True) + " ")]
    assert all(clean) and len(clean) > 1000
    words = [w for row in tasks.WORDS for w in row]
    drawn = tasks.legal(" ".join(rng.choices(words, k=4000)) + ".")
    assert sum(drawn) / len(drawn) == pytest.approx(3 / 40, abs=0.02)  # three of forty may follow
    assert tasks.legal("wba drat wde.") == [] and tasks.legal("wba wde wki. nonsense wba.") == [True, False, False]


@pytest.mark.parametrize(("recall", "precision"), [(0.75, 1.0), (1.0, 0.5), (0.5, 0.8)])
def test_a_scorer_with_mistakes_makes_as_many_as_said(tasks, recall, precision):
    """On the toy's own sentences: the share of bad ones that it calls bad, and of what it calls bad the share that is."""
    rng = random.Random(1)
    texts = [s for _ in range(1000) for s in tasks.segments(tasks.document(rng.choices(range(4), (3, 3, 3, 1))[0], rng),
                                                            "sentence")]
    noisy, true = tasks.NoisyCurse(recall, precision), tasks.Curse()
    bad, called = [true.rate(t) < 0 for t in texts], [noisy.rate(t) < 0 for t in texts]
    both = sum(a and b for a, b in zip(bad, called))
    assert sum(bad) / len(bad) == pytest.approx(noisy.bad_share, abs=0.025)
    assert both / sum(bad) == pytest.approx(recall, abs=0.05)
    assert both / sum(called) == pytest.approx(precision, abs=0.08)


def test_ratios_over_seeds_by_hand(tables):
    """Ratios 4 and 16 have the geometric mean 8; of logarithms 2 and 4 (base 2) the t-interval is 3 ± 12.7 · 1."""
    found = tables.ratio({0: 4.0, 1: 8.0, 2: 9.0}, {0: 1.0, 1: 0.5})
    assert found.value == pytest.approx(8) and found.n == 2
    assert math.log2(found.high) == pytest.approx(3 + 12.706, abs=0.01)
    assert tables.difference({0: 1.0}, {0: 0.25}).value == 0.75 and tables.ratio({0: 1.0}, {1: 1.0}) is None
    assert tables.shown({0: 0.3, 1: 0.1, 2: 0.2}) == ".200 (.100–.300)"
    assert tables.said(tables.difference({0: 1.0}, {0: 0.25})) == ".75 (one seed)"


def test_tables_go_between_their_marks(tables, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- phf toy -->\nold\n<!-- /phf -->\nbetween\n<!-- phf noise -->\nkept\n<!-- /phf -->\n")
    tables.write_into(page, {"toy": "| new \\1 |", "spent": "no place"})
    assert page.read_text() == ("before\n<!-- phf toy -->\n\n| new \\1 |\n\n<!-- /phf -->\nbetween\n<!-- phf noise -->\nkept\n"
                                "<!-- /phf -->\n")
    assert [tables.number(x, 2) for x in (0.5, -0.25, 10.04, 1.0)] == [".50", "−.25", "10.04", "1.00"]


def test_the_plot_names_each_run(tables, tmp_path):
    cells = [{"cell": {"kind": "run", "task": "toy", "arm": arm, "seed": 0, "recall": 1.0, "precision": 1.0},
              "modes": {"untagged each": {"plain": {"mean": {"value": curses}}, "nll_topic_3": loss}}}
             for arm, curses, loss in (("mle", 0.06, 1.8), ("mle@64k", 0.08, 2.4), ("mask", 0.01, 1.7))]
    tables.pareto(cells, tmp_path / "p.svg")
    text = (tmp_path / "p.svg").read_text()
    assert all(f">{name}<" in text for name in ("mle", "mle@64k", "mask"))
