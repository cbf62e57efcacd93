"""What the repository promises: layers point down, the base has no torch, and every documented command exists."""

import argparse
import ast
import dataclasses
import functools
import importlib
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harken.cli import train
from harken.cli.main import build_parser, main
from harken.core.config import field_docs
from harken.launch.find import eval_names, find_method, method_names

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "harken"
RANKS = {"core": 0, "store": 1, "labelers": 1, "text": 1, "objectives": 1, "stats": 1, "goals": 1, "engines": 2, "web": 2,
         "draw": 2, "rewards": 3, "sandbox": 3, "loops": 3, "methods": 4, "evals": 4, "launch": 5, "studio": 6, "serve": 6,
         "report": 6, "cli": 7}
TOP = 8
ALONE = ("methods", "rewards", "evals")
STUDIO = {"languages": 0, "tasks": 0, "work": 1, "lead": 2, "api": 2, "pages": 3, "app": 4}
"""The studio's floors; its client imports none of them."""
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@functools.cache
def parsed(path):
    """What is looked at in a file: its imports, its functions with their lengths, its prose. Parsed once for all tests."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    return ([n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)],
            [(n.name, n.lineno, n.end_lineno - n.lineno + 1) for n in nodes
             if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)],
            prose(nodes))


def imports(path):
    for node in parsed(path)[0]:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ([f"{node.module}.{a.name}" for a in node.names] if node.module == "harken" else [node.module])
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names)


def folder(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in RANKS else None


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_layers_point_down(path):
    here = path.relative_to(SOURCE).parts[0]
    rank = RANKS.get(here, TOP)
    for module in imports(path):
        if not module.startswith("harken."):
            continue
        there = folder(module)
        if there == here:
            assert here not in ALONE or path.name == "__init__.py", f"{path}: {module} is a sibling"
        elif there is None:
            allowed = rank == TOP or module in ("harken.__version__",)
            assert allowed, f"{path} (rank {rank}): {module} is of rank {TOP}"
        else:
            assert RANKS[there] < rank, f"{path} (rank {rank}): {module} is of rank {RANKS[there]}"


@pytest.mark.parametrize("path", sorted((SOURCE / "studio").rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_the_studio_has_no_arrow_upstairs(path):
    here = path.relative_to(SOURCE / "studio").parts[0].removesuffix(".py")
    for module in imports(path):
        parts = module.split(".")
        if parts[:2] == ["harken", "studio"] and parts[2:3] != [here]:
            assert len(parts) > 2 and STUDIO[parts[2]] < STUDIO.get(here, -1), f"{path}: {module} is not below"


def modules():
    """Every file of the package by its module's name."""
    names = {path: ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in SOURCE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def arrows(path, known):
    """The files that a file imports, also inside functions and for types alone."""
    for node in parsed(path)[0]:
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in (f"{node.module}.{a.name}" for a in node.names):
                yield name if name in known else node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names)


def circles(graph):
    """Files that reach each other: the strongly connected parts of two files and more (Tarjan 1972)."""
    found, index, low, stack = [], {}, {}, []

    def visit(name):
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            part = stack[stack.index(name):]
            del stack[stack.index(name):]
            if len(part) > 1:
                found.append(set(part))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def test_no_circle_of_files():
    assert circles({"a": ["b"], "b": ["c"], "c": ["b"], "d": ["a"]}) == [{"b", "c"}]
    known = modules()
    graph = {name: sorted({m for m in arrows(path, known) if m in known and m != name}) for name, path in known.items()}
    assert circles(graph) == []


def test_the_studio_starts_without_numpy_and_scipy_and_the_base_without_torch():
    """The first are thirty megabytes of a server that draws no figures yet; scipy.stats loads as long as all else."""
    code = ("import sys, harken.cli.main, harken.studio.app; harken.cli.main.build_parser(); "
            "print([m for m in ('numpy', 'scipy', 'cryptography') if m in sys.modules]); "
            "import harken, harken.cli.data, harken.store.database, harken.store.snapshots, "
            "harken.stats.pairs, harken.stats.bradley_terry, harken.labelers, harken.sandbox, harken.report.build, "
            "harken.launch.rewards, harken.cli.labelers_report; harken.cli.main.build_parser(); "
            "print([m for m in ('torch', 'transformers', 'peft', 'scipy.stats') if m in sys.modules])")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["[]", "[]"]


def commands():
    """Every `harken …` line of a code block or of inline code."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^(?: {4,}|)(?:\$ )?(harken .+)$", text, re.M):
            yield pytest.param(re.sub(r"\s+#.*|\s{2,}[a-z].*$", "", line).strip(), id=f"{page.name}: {line[:60]}")


def options(words):
    if words[0] not in ("train", "eval"):
        actions = actions_of(words[0])
        return {o for a in (*actions, *nested_actions(actions, words[1:2])) for o in a.option_strings}
    if words[1].startswith("my_lab."):  # a stranger's, which brings its own options
        return {word.partition("=")[0] for word in words if word.startswith("--")}
    return settings_of(*words[:2])


@functools.cache
def settings_of(command, name):
    if name == "suite":  # the settings of all that it may run
        configs = [importlib.import_module(f"harken.evals.{n}").Config for n in eval_names()]
        return {"--list"} | {"--" + f.name.replace("_", "-") for config in configs for f in dataclasses.fields(config)}
    if command == "train":
        return set(train.parser_of(find_method(name), name).known_options())
    module = importlib.import_module(f"harken.evals.{name}")
    return {"--" + f.name.replace("_", "-") for f in dataclasses.fields(module.Config)} | {"--config", "--preset", "--help"}


@functools.cache
def actions_of(command):
    sub = next(a for a in build_parser()._actions if hasattr(a, "choices") and a.choices and command in a.choices)
    return list(sub.choices[command].filled()._actions)


def nested_actions(actions, words):
    return [a for nested in actions if isinstance(nested, argparse._SubParsersAction) for a in nested.choices[words[0]]._actions]


@pytest.mark.parametrize("line", commands())
def test_documented_commands_exist(line):
    words = shlex.split(line)[1:]
    if {"METHOD", "EVAL"} & set(words) or words[0].startswith("--") or words[1:2] == ["my_lab.expert"]:
        return
    known = options(words)
    for option in (w for w in words if w.startswith("--")):
        assert option in known, f"{option} of: {line}"


def test_every_command_and_setting_is_documented():
    everything = "\n".join(p.read_text(encoding="utf-8") for p in PAGES)
    parser = build_parser()
    sub = next(a for a in parser._actions if hasattr(a, "choices") and a.choices)
    for name in sub.choices:
        assert f"harken {name}" in everything or f"make {name}" in everything, f"harken {name} is in no page"
    kinds = {"methods": method_names(), "evals": eval_names(),
             "rewards": [p.stem for p in (SOURCE / "rewards").glob("[a-z]*.py")]}
    for kind, names in kinds.items():
        for name in names:
            assert (ROOT / "docs" / kind / f"{name}.md").exists(), f"docs/{kind}/{name}.md is missing"
    for name in eval_names():
        config = importlib.import_module(f"harken.evals.{name}").Config
        assert {f.name for f in dataclasses.fields(config)} <= field_docs(config).keys()


def test_readme_is_short_and_shows_the_two_commands_first():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    assert text.index("make quickstart") < text.index("make test") < text.index("harken ")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page}: {target}"


def test_generated_pages_are_up_to_date(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["build.py", "--check"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "docs" / "build.py"), run_name="__main__")
    assert ended.value.code == 0


def test_functions_fit_a_screen():
    lengths = {(str(path.relative_to(SOURCE)), name, line): length
               for path in SOURCE.rglob("*.py") for name, line, length in parsed(path)[1]}
    assert len(lengths) > 1000
    assert {name: length for name, length in lengths.items() if length > 60} == {}


def prose(nodes):
    """The strings of a file that are neither docstrings nor single words: what people may be shown."""
    documented = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
            and id(node) not in documented and " " in node.value]


def test_messages_have_no_code_numbers():
    code = re.compile(r"\b(?!F16\b|F32\b)[PFE][1-9]\d?\b")  # F16 and F32 are formats of weights
    example = prose(list(ast.walk(ast.parse('def f():\n    """As (P1) says."""\n    note(f"{x} are dropped (F17).")\n'))))
    assert [s for s in example if code.search(s)] == [" are dropped (F17)."]
    shown = [(path.name, s) for path in SOURCE.rglob("*.py") for s in parsed(path)[2]]
    assert [(name, s) for name, s in shown if code.search(s)] == []


def test_nothing_names_a_workplace():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    needle = "|".join(["/wo" + "rk/", "/fa" + "rm/", "farm-" + "bench"])
    found = subprocess.run(["git", "-C", str(ROOT), "grep", "-nE", needle], capture_output=True, text=True)
    assert found.stdout == ""


@pytest.mark.slow
def test_the_method_in_contributing_runs(tmp_path, monkeypatch):
    code = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)[0]
    (tmp_path / "lab_of_the_guide").mkdir()
    (tmp_path / "lab_of_the_guide" / "expert.py").write_text(code)
    (tmp_path / "p.jsonl").write_text("".join(f'{{"prompt": "Say {i}."}}\n' for i in range(20)))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["train", "lab_of_the_guide.expert", "--model", "toy", "--reward", "gold", "--max-tokens", "8",
                     "--data", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "r")]) == 0
    assert (tmp_path / "r" / "result.json").exists()


def test_the_reward_evaluation_engine_and_importer_in_contributing_run(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)
    named = {"score": "def short(", "length": '"""Length:', "engine": "class Parrot:", "shapes": "def read(row)"}
    lab = tmp_path / "lab_of_strangers"
    lab.mkdir()
    for name, start in named.items():
        (lab / f"{name}.py").write_text(next(b for b in blocks if start in b))
    (tmp_path / "p.jsonl").write_text("".join(f'{{"prompt": "Say {i}."}}\n' for i in range(20)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    asked = ["--prompts", "p.jsonl", "--out"]
    assert main(["eval", "lab_of_strangers.length", "--model", "lab_of_strangers.engine:open_parrot", *asked, "runs/e"]) == 0
    assert main(["eval", "win_rate", "--model", "lab_of_strangers.engine:open_parrot", "--against", "toy", "--n", "1",
                 "--judge", "lab_of_strangers.score:short", *asked, "runs/w"]) == 0
    assert main(["report", "runs/e", "runs/w", "--out", "page.html"]) == 0
    (tmp_path / "odd.jsonl").write_text('{"question": "Q", "left": "a", "right": "b", "vote": 2, "annotator": "ann"}\n')
    assert main(["import", "odd.jsonl", "--db", "f.db", "--shape", "lab_of_strangers.shapes:read"]) == 0


def starters(source):
    """Unit tests of a file that start Python anew, themselves or through the file's own helpers."""
    tree = ast.parse(source)
    functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    words = {name: {n.id if isinstance(n, ast.Name) else ast.unparse(n) for n in ast.walk(node)
                    if isinstance(n, ast.Name | ast.Attribute)} | {a.arg for a in node.args.args}
             for name, node in functions.items()}
    starting = {"sys.executable", "start_process"}
    while more := {name for name in words if words[name] & starting} - starting:
        starting |= more
    slow = {name for name, node in functions.items() if "pytest.mark.slow" in map(ast.unparse, node.decorator_list)}
    return {name for name in starting - slow if name.startswith("test_")}


STARTING = {
    "test_database.py": {"test_a_database_opened_twice_keeps_its_locks"},
    "test_no_fcntl.py": {"test_every_module_of_the_base_imports_and_commands_run_without_fcntl"},
    "test_promises.py": {"test_the_studio_starts_without_numpy_and_scipy_and_the_base_without_torch"},
    "test_studio_server.py": {"test_it_ends_cleanly_when_asked_and_its_address_is_true"},
}
"""The unit tests that start Python anew, which costs half a second and more each: one of a kind. All others are slow ones."""


def test_the_costly_tests_are_there():
    """tests/costly.txt names tests that run with the slow ones: a name that has gone would hold nothing back."""
    for line in (ROOT / "tests/costly.txt").read_text(encoding="utf-8").splitlines():
        file, name = line.split("[")[0].split("::")[:2]
        assert re.search(rf"\b{name}\b", (ROOT / "tests" / file).read_text(encoding="utf-8")), line


def test_few_unit_tests_start_python_anew():
    assert starters("def go():\n    run(sys.executable)\ndef test_a():\n    go()\n@pytest.mark.slow\ndef test_b():\n    go()\n"
                    "def test_c(): ...\n") == {"test_a"}
    result = {}
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        if re.search(r"sys\.executable|start_process", source) and not re.search("^pytestmark = pytest.mark.slow", source, re.M):
            result[path.name] = starters(source)
    assert {name: tests for name, tests in result.items() if tests} == STARTING
