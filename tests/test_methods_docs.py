"""Every number that a method logs or ends with is defined on its page or on docs/methods/metrics.md, and no page names one that
is never logged."""

import re
from pathlib import Path

import pytest

from harken.core.files import read_json, read_jsonl
from harken.launch.find import method_names
from marks import slow
from trials import run, shortened, trial, write

PAGES = Path(__file__).parents[1] / "docs" / "methods"
VARIANTS = {
    "sft": [{}, {"replay": "text", "select": "reward", "reward": "gold", "holdout": 0.2}],
    "distill": [{}, {"direction": "forward", "replay": "text"}],
    "reward_model": [{"labelers": "reliability"}, {"labelers": "groups", "group_by": "style"}],
    "dpo": [{"loss": "kto"}, {"nll_weight": 0.1}],
    "phf": [{}, {"objective": "conditional"}, {"objective": "rwr", "beta": 100.0}, {"objective": "awr"},
            {"objective": "route", "routed": 4}],
    "ppo": [{}, {"critic": "separate", "ptx_data": "text", "ptx_length": 16}],
}




def defined(name, pages=PAGES):
    """Names in the first column of a page's table of metrics; and those of them that another page explains."""
    page = pages / f"{name}.md"
    assert page.exists(), f"docs/methods/{name}.md is missing: a page with a table | metric | meaning | of what {name} logs"
    table = re.search(r"\| metric \| meaning \|\n\|[-|]+\|\n((?:\|.*\n)+)", page.read_text(encoding="utf-8"))
    assert table, f"docs/methods/{name}.md has no table of metrics, | metric | meaning |"
    rows = [(re.findall(r"`(\w+)`", row.split("|")[1]), "](../" in row) for row in table[1].splitlines()]
    return {n for names, _ in rows for n in names}, {n for names, elsewhere in rows if elsewhere for n in names}


def assert_page_is_true(method, files, folder, pages=PAGES):
    """What the method logs in its trial, and in further ones, is what its page and the common one define."""
    rows = [r | {"group": {"style": "a" if r["labeler"] < "l3" else "b"}} for r in read_jsonl(Path(files["comparisons"]))]
    files["comparisons"] = write(folder / "groups.jsonl", rows)
    logged = set()
    for i, own in enumerate(VARIANTS.get(method, [{}])):
        settings = shortened({**trial(method), **own})
        for name in {"ptx_data", "replay"} & own.keys():
            (folder / "text.txt").write_text("the old house is red\n\n" * 9)
            settings[name] = str(folder / "text.txt")
        done = run(method, files, folder / f"r{i}", **settings)
        logged |= {name for row in read_jsonl(done.path / "metrics.jsonl") for name in row}
        logged |= read_json(done.path / "result.json").keys()
    page, elsewhere = defined(method, pages)
    undefined = ", ".join(sorted(logged - page - defined("metrics")[0]))
    never = ", ".join(sorted(page - elsewhere - logged))
    assert (undefined, never) == ("", ""), f"logged, but not defined: {undefined}; defined, but never logged: {never}"


@pytest.mark.parametrize("method", ["sft", "rloo", *slow(*[name for name in method_names() if name not in ("sft", "rloo")])])
def test_every_metric_is_defined_on_its_page_and_every_page_is_true(files, tmp_path, method):
    assert_page_is_true(method, files, tmp_path)
