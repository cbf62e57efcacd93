"""Code: functions written to a description, checked by unit tests in a process of their own.

    harken eval code --model runs/rloo --against runs/sft --n 10 --k 1,5 --out runs/code
    harken eval code --model runs/rloo --data HumanEval.jsonl --out runs/humaneval

pass@k of n samples a problem is 1 - C(n - c, k) / C(n, k), where c of them pass (Chen et al. 2021, arXiv 2107.03374): unbiased,
and meaningful at n > k. Each program runs without a network, with bounds on time and memory (loops/isolated.py says what is a
boundary and what is not). A problem that could not be run in isolation is missing, never failed.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from harken.core.config import EvalConfig, setting
from harken.core.errors import UserError
from harken.core.protocols import EvalResult, Models
from harken.core.records import Prompt
from harken.core.run import Run
from harken.loops.isolated import run_isolated
from harken.loops.items import Answer, difference_of, mean_of, note_missing, read_items, take, wrong_layout
from harken.stats.passes import pass_at_k

STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n@", "\nassert ")
BODIES = {"an empty body": "    pass\n", "returns its first argument": None}
FENCE = re.compile(r"```(?:python|py)?\s*\n(.*?)(?:```|\Z)", re.S | re.I)


@dataclass(frozen=True)
class Config(EvalConfig):
    data: str = setting("", names="file")
    """HumanEval's jsonl (task_id, prompt, entry_point, test); empty is the 60 small functions that ship."""
    chat: bool = False
    """Ask in the model's chat template and take the code out of the answer, instead of continuing the function."""
    n: int = setting(1, least=1)
    """Samples a problem; one is the likeliest, more are drawn."""
    k: str = "1"
    """Which pass@k, with commas between them; the first gives the value."""
    temperature: float = setting(0.8, least=0)
    """Sampling temperature where n is above 1."""
    max_tokens: int = setting(160, least=1)
    """Longest answer in tokens."""
    seconds: float = setting(5.0, above=0)
    """Time a program has."""
    megabytes: int = setting(512, least=64)
    """Memory a program has."""
    at_once: int = setting(2, least=1, most=64)
    """Programs that run at the same time."""


@dataclass(frozen=True)
class Problem:
    """`prompt` is the function's head with its description, `test` defines check(f)."""

    name: str
    prompt: str
    entry: str
    test: str


def evaluate(config: Config, models: Models, run: Run) -> EvalResult:
    """Raises `UserError` for a file of another layout and where k is above n."""
    ks = counts(config.k, config.n)
    problems = take(load(config.data), config.limit, config.seed)
    figures: dict[str, Any] = {"n_samples": config.n}
    scores: dict[tuple[str, int], list[float | None]] = {}
    samples: list[dict[str, Any]] = []
    for name in [n for n in ("model", "against") if getattr(config, n)]:
        found = written(models.stored(name), problems, config)
        results = checked([(p, t) for p, a in zip(problems, found) for t in a.texts], config)
        rows = [[results.pop(0) for _ in a.texts] for a in found]
        for k in ks:
            scores[name, k] = [None if not row or any(ok is None for ok, _ in row)
                               else pass_at_k(len(row), sum(bool(ok) for ok, _ in row), k) for row in rows]
        figures[name] = {f"pass@{k}": mean_of(scores[name, k], f"pass@{k}") for k in ks}
        figures[name]["does not compile"] = mean_of([_broken(p, a) for p, a in zip(problems, found)], "syntax")
        if name == "model":
            samples = [{"item": p.name, "prompt": a.prompt, "answer": a.text, "score": s,
                        "why": a.why or next((why for ok, why in row if not ok), "")}
                       for p, a, row, s in zip(problems, found, rows, scores["model", ks[0]])]
    first = scores["model", ks[0]]
    missing = note_missing(run, first, f"pass@{ks[0]}")
    baselines = {}
    for label, body in BODIES.items():
        null = checked([(p, p.prompt + (body or _first_argument(p))) for p in problems], config)
        baselines[label] = mean_of([None if ok is None else float(ok) for ok, _ in null], label)
    if config.against:
        value = difference_of(first, scores["against", ks[0]])
        return EvalResult(value, {**figures, "paired": True}, baselines, samples, missing)
    return EvalResult(figures["model"][f"pass@{ks[0]}"], figures, baselines, samples, missing)


def counts(text: str, n: int) -> list[int]:
    try:
        found = [int(x) for x in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1 or max(found) > n:
        raise UserError(f"--k {text!r} must be numbers from 1 to the {n} samples of a problem.", "Write it like 1,5; raise --n.")
    return found


def written(model: Any, problems: Sequence[Problem], config: Config) -> list[Answer]:
    """Whole programs, one a sample."""
    drawn = {"max_tokens": config.max_tokens, "temperature": config.temperature if config.n > 1 else 0.0, "seed": config.seed}
    if config.chat or model.template is None:
        asked = [Prompt.of(f"Complete this Python function. Answer with the whole function in a code block.\n\n{p.prompt}")
                 for p in problems]
        found = model.answers(asked, config.n, **drawn)
        return [Answer(a.prompt, tuple(code_of(t, p) for t in a.texts), a.why) for a, p in zip(found, problems)]
    found = model.continuations([p.prompt for p in problems], config.n, stop=STOPS, **drawn)
    return [Answer(a.prompt, tuple(p.prompt + t for t in a.texts), a.why) for a, p in zip(found, problems)]


def code_of(text: str, problem: Problem) -> str:
    """The program of a chat answer: the first code block, else all of it; a body alone gets the function's head."""
    found = FENCE.search(text)
    code = found[1] if found else text
    return code if f"def {problem.entry}" in code else problem.prompt + textwrap.indent(textwrap.dedent(code), "    ")


def checked(programs: Sequence[tuple[Problem, str]], config: Config) -> list[tuple[bool | None, str]]:
    """Runs each program with its problem's tests."""
    def one(given: tuple[Problem, str]) -> tuple[bool | None, str]:
        problem, code = given
        return run_isolated(f"{code}\n\n{problem.test}\n\ncheck({problem.entry})\n", seconds=config.seconds,
                            megabytes=config.megabytes)
    with ThreadPoolExecutor(config.at_once) as pool:
        return list(pool.map(one, programs))


def _broken(problem: Problem, answer: Answer) -> float | None:
    """Share of a problem's programs that are no Python."""
    if not answer.texts:
        return None
    bad = 0
    for text in answer.texts:
        try:
            compile(text, problem.name, "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            bad += 1
    return bad / len(answer.texts)


def _first_argument(problem: Problem) -> str:
    found = re.search(rf"def {problem.entry}\(\s*(\w+)", problem.prompt)
    return f"    return {found[1] if found else None}\n"


def load(path: str) -> list[Problem]:
    """HumanEval's rows, or the table that ships, whose expected results its own solutions give."""
    data = read_items(path, "code")
    try:
        if isinstance(data, dict) and not path:
            return [_own(row) for row in data["items"]]
        found = [Problem(str(r["task_id"]), r["prompt"], r["entry_point"], r["test"]) for r in data]
        if not found:
            raise ValueError("no problem")
    except (KeyError, TypeError, ValueError) as error:
        raise wrong_layout(path, error, "HumanEval's jsonl: task_id, prompt, entry_point and test") from None
    return found


def _own(row: Mapping[str, Any]) -> Problem:
    head = f'def {row["name"]}({row["args"]}):\n    """{row["doc"]}"""\n'
    scope: dict[str, Any] = {}
    exec(head + textwrap.indent(row["solution"], "    "), scope)  # our own table, never a file that was given
    tests = [f"    assert candidate({given}) == {eval(f'f({given})', {'f': scope[row['name']]})!r}" for given in row["inputs"]]
    return Problem(row["name"], head, row["name"], "def check(candidate):\n" + "\n".join(tests))
