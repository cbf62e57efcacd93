"""What a stranger brings, from a folder outside the repository: by dotted path in the shell and as an object in Python."""

import json
import linecache
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import harken
from harken.cli.main import main
from harken.core.errors import UserError
from harken.core.files import read_json, read_jsonl
from harken.core.protocols import Datum
from harken.core.records import Prompt
from harken.launch.models import parse_model
from harken.launch.rewards import Own, parse_reward

REWARD = '''
def short(prompts, completions):
    return [-len(text) / 10 for text in completions]

class Polite:
    id = "polite/1"
    def score(self, prompts, completions):
        return [["please" in text and 1.0 or 0.0 for text in texts] for texts in completions]
'''
METHOD = '''
"""Trains nothing, carefully.

    harken train my_lab.idea --model toy --data prompts.jsonl --out runs/idea
"""
from dataclasses import dataclass
from harken.core.config import TrainConfig, setting

@dataclass(frozen=True)
class Config(TrainConfig):
    search: str = setting("beam", one_of=("beam", "wide"))
    """How it looks; a word of ours with another meaning."""
    direction: str = "left"
    """Any word at all."""

def train(config, learner, sampler, reward, run):
    run.finish({"search": config.search}, lambda folder: learner.save(folder, base=run.config["base"]))
'''
EVAL = '''
"""Length: how long a model's answers are.

    harken eval my_lab.length --model toy --prompts prompts.jsonl --out runs/length
"""
from dataclasses import dataclass
from harken.core.config import setting
from harken.core.protocols import EvalResult
from harken.stats.intervals import mean_interval
from harken.store.files import read_prompts

@dataclass(frozen=True)
class Config:
    model: str = setting("", names="model", required=True)
    """The model in question."""
    prompts: str = setting("", names="file", required=True)
    """File of prompts."""
    out: str = setting("", required=True)
    """Run directory to write."""

def evaluate(config, models, run):
    samples = models.sampler("model").sample(read_prompts(config.prompts).records, 1, max_tokens=4, seed=0)
    return EvalResult(mean_interval([len(s.text) for (s,) in samples]), better="")
'''
ENGINE = '''
from harken.core.protocols import Sample

class Parrot:
    def sample(self, prompts, n, *, max_tokens, temperature=1.0, top_p=1.0, seed=0, advance=None):
        return [[Sample((), p.text, (), (), True)] * n for p in prompts]

def open():
    return Parrot()
'''


@pytest.fixture
def lab(tmp_path, monkeypatch):
    folder = tmp_path / "my_lab"
    folder.mkdir()
    for name, text in (("__init__", ""), ("score", REWARD), ("idea", METHOD), ("length", EVAL), ("engine", ENGINE)):
        (folder / f"{name}.py").write_text(text)
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Say {i}."}) + "\n" for i in range(16)))
    (tmp_path / "c.jsonl").write_text('{"prompt": "Say it.", "completions": ["yes please", "no"], "ranks": [1, 2]}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [m for m in sys.modules if m.split(".")[0] == "my_lab"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_a_reward_function_by_its_path(lab):
    assert main(["train", "rloo", "--model", "toy", "--reward", "my_lab.score:short", "--data", "prompts.jsonl", "--steps", "1",
                 "--max-tokens", "4", "--out", "runs/r"]) == 0
    assert read_jsonl(lab / "runs/r/metrics.jsonl")[0]["reward"] <= 0
    identity = read_json(lab / "runs/r/lineage.json")["reward"]
    assert identity["own"] == "my_lab.score:short" and len(identity["source"]) == 64


def test_scores_of_objects_classes_sums_and_what_is_none(lab, capsys):
    for word, scores in (("my_lab.score:Polite", [1.0, 0.0]), ("my_lab.score:short", [-1.0, -0.2]),
                         ("sum:2*my_lab.score:Polite,my_lab.score:short", [1.0, -0.2])):
        assert main(["score", "--reward", word, "--data", "c.jsonl", "--out", "s.jsonl"]) == 0
        assert read_jsonl(lab / "s.jsonl")[0]["scores"] == pytest.approx(scores)
    for word, message in (("my_lab.score:shrt", "Did you mean short?"), ("my_lab.nothing:fn", "There is no reward model"),
                          ("json:JSONDecodeError.__doc__", "is not a reward"), ("toxicty", "Did you mean toxicity?"),
                          ("sum:x*toxicity,pii", "is no weight")):
        assert main(["score", "--reward", word, "--data", "c.jsonl", "--out", "s.jsonl"]) == 2
        assert message in capsys.readouterr().err


def test_parameters_of_a_reward_are_columns_or_keep_their_default():
    from harken.rewards.function import FunctionReward
    plain, rich = Prompt.of("a"), Prompt.of("a", meta={"answer": "x", "scale": 3})

    def scaled(prompts, completions, answer, scale=2, strict=False):
        return [None if a is None else (scale[0] if isinstance(scale, list) else scale) + bool(strict) for a in answer]
    reward = FunctionReward(scaled)
    with pytest.raises(UserError, match="asks for answer, and no prompt has a field of that name"):
        reward.score([plain], [["x"]])
    assert reward.score([rich], [["x"]]) == [[3.0]]
    assert reward.score([plain], [["x"]]) == [[None]]  # it has been seen: this row lacks it
    assert reward.score([Prompt.of("a", meta={"answer": "x"})], [["x"]]) == [[2.0]]


def test_a_method_is_bound_by_its_own_words(lab, capsys):
    run = ["train", "my_lab.idea", "--model", "toy", "--data", "prompts.jsonl", "--out", "runs/idea"]
    assert main([*run, "--search", "narrow"]) == 2
    assert "Use one of beam, wide." in capsys.readouterr().err
    assert main([*run, "--search", "wide", "--direction", "up"]) == 0
    assert read_json(lab / "runs/idea/result.json")["search"] == "wide"


@pytest.mark.parametrize(("name", "argv"), [
    ("idea", ["train", "my_lab.idea", "--model", "toy", "--data", "prompts.jsonl", "--out", "r"]),
    ("length", ["eval", "my_lab.length", "--model", "my_lab.engine:open", "--prompts", "prompts.jsonl", "--out", "r"])])
def test_a_changed_file_of_yours_does_not_silently_continue_an_old_run(lab, capsys, name, argv):
    assert main(argv) == 0 and main(argv) == 0
    (lab / "my_lab" / f"{name}.py").write_text((lab / "my_lab" / f"{name}.py").read_text() + "\n# better\n")
    del sys.modules[f"my_lab.{name}"]
    linecache.checkcache()
    assert main(argv) == 2
    assert "has changed since it began" in capsys.readouterr().err


def test_an_evaluation_of_one_model_and_its_page(lab, capsys):
    assert main(["eval", "my_lab.length", "--model", "toy", "--prompts", "prompts.jsonl", "--out", "runs/length"]) == 0
    assert "value:" in capsys.readouterr().out
    assert main(["report", "runs/length", "--out", "page.html"]) == 0
    page = (lab / "page.html").read_text()
    result = read_json(lab / "runs/length/result.json")
    assert f"n = {result['value']['n']}" in page and "Evaluations" in page
    assert main(["eval", "my_lab.idea", "--model", "toy"]) == 2
    assert "is not an evaluation" in capsys.readouterr().err


def test_an_engine_by_its_path(lab):
    assert main(["sample", "--model", "my_lab.engine:open", "--prompts", "prompts.jsonl", "--out", "s.jsonl"]) == 0
    assert read_jsonl(lab / "s.jsonl")[3]["completions"] == ["Say 3."]


def test_all_of_them_as_objects(lab, monkeypatch):
    monkeypatch.syspath_prepend(str(lab))
    from my_lab import idea, length, score
    from my_lab.engine import Parrot
    prompts = [f"Say {i}." for i in range(16)]
    assert harken.train(idea, model="toy", data=prompts, out="runs/o1").result["search"] == "beam"
    measured = harken.evaluate(length, model=Parrot(), prompts=prompts, out="runs/o2").result
    assert measured["value"]["value"] == pytest.approx(6.375)  # ten of "Say 0.", six of "Say 10."
    assert harken.score(score.Polite(), ["a"], [["please", "no"]]) == [[1.0, 0.0]]
    trained = harken.train("rloo", model="toy", reward=score.short, data=prompts, steps=1, max_tokens=4, out="runs/o3")
    assert trained.result["steps"] == 1


@pytest.mark.slow
def test_in_a_process_of_its_own_the_working_folder_is_on_the_path(lab):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    source = str(Path(harken.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {source!r}); sys.path.remove('') if '' in sys.path else None\n" \
           "from harken.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, "score", "--reward", "my_lab.score:short", "--data", "c.jsonl", "--out",
                           "s.jsonl"], capture_output=True, text=True, env=environment, cwd=lab)
    assert done.returncode == 0, done.stderr


SLIPS = '''
from harken.core.protocols import Sample

class Base:
    def sample(self, prompts, n, *, max_tokens, temperature=1.0, top_p=1.0, seed=0):
        return self.answers(prompts, n)

class Texts(Base):
    def answers(self, prompts, n):
        return [["a"] * n for p in prompts]

class Few(Base):
    def answers(self, prompts, n):
        return [[Sample((), "a", (), (), True)] for p in prompts[1:]]

class Raises(Base):
    def answers(self, prompts, n):
        raise RuntimeError("no licence")

class Short:
    def sample(self, prompts):
        return []

def takes(path):
    return Raises()

def nothing():
    return None

class Flat:
    def score(self, prompts, completions):
        return [1.0 for p in prompts]

class Broken:
    def score(self, prompts, completions):
        raise RuntimeError("no key")

class One:
    def score(self, prompts, completions):
        return [[1.0] for p in prompts]

def alone(row):
    return row["better"]

def read(row):
    return [][0]
'''
ASKED = ["--prompts", "prompts.jsonl", "--out"]


@pytest.mark.parametrize(("argv", "message"), [
    (["sample", "--model", "my_lab.slips:Texts", *ASKED, "s"], "sample() gave a str in the place of a Sample"),
    (["sample", "--model", "my_lab.slips:Few", *ASKED, "s"], "sample() gave 15 lists for 16 prompts"),
    (["sample", "--model", "my_lab.slips:Raises", *ASKED, "s"], "sample() raised RuntimeError: no licence (slips.py, line 18)"),
    (["sample", "--model", "my_lab.slips:Short", *ASKED, "s"], "sample(prompts) cannot be called as it will be"),
    (["sample", "--model", "my_lab.slips:takes", *ASKED, "s"], "takes() missing 1 required positional argument: 'path'"),
    (["sample", "--model", "my_lab.slips:nothing", *ASKED, "s"], "gave a NoneType, which cannot sample"),
    (["sample", "--model", "my_lab.slips", *ASKED, "s"], "Name the function in it that gives one: my_lab.slips:open_model"),
    (["train", "sft", "--model", "my_lab.engine:open", "--data", "c.jsonl", "--out", "r"], "sft cannot use it: it lacks"),
    (["train", "best_of_n", "--model", "my_lab.engine:Parrot", "--reward", "pii", "--data", "prompts.jsonl", "--out", "r"],
     "best_of_n cannot use it: it lacks template"),
    (["eval", "capability", "--model", "my_lab.engine:open", "--data", "prompts.jsonl", "--out", "r"],
     "this evaluation cannot use it: it lacks template, logprobs"),
    (["score", "--reward", "my_lab.slips:Flat", "--data", "c.jsonl", "--out", "s"], "gave [1.0], which is no list of lists"),
    (["score", "--reward", "my_lab.slips:Broken", "--data", "c.jsonl", "--out", "s"], "raised RuntimeError: no key (slips.py, "),
    (["score", "--reward", "my_lab.slips:One", "--data", "c.jsonl", "--out", "s"], "gave [1] scores for [2] completions"),
    (["import", "c.jsonl", "--db", "f.db", "--shape", "my_lab.slips:alone"], "c.jsonl, line 1: the row has no 'better'"),
    (["import", "c.jsonl", "--db", "f.db", "--shape", "my_lab.slips:read"], "raised IndexError: list index out of range (slips"),
    (["import", "c.jsonl", "--db", "f.db", "--shape", "my_lab.score:short"], "raised TypeError: short() missing 1 required"),
    (["import", "c.jsonl", "--db", "f.db", "--shape", "my_lab.slips"], "names no function"),
    (["import", "c.jsonl", "--db", "f.db", "--shape", "my_lab.score:shrt"], "Did you mean short?"),
])
def test_a_slip_in_what_is_yours_is_named_and_nothing_is_written(lab, capsys, argv, message):
    (lab / "my_lab" / "slips.py").write_text(SLIPS)
    assert main(argv) == 2
    assert message in capsys.readouterr().err
    assert not (lab / "s").exists() and not (lab / "f.db").exists()


def test_what_stands_after_a_scorers_colon_may_be_wrong(lab, capsys, monkeypatch):
    monkeypatch.setattr("harken.rewards.pii.open_scorer", lambda argument: int(argument))
    assert main(["score", "--reward", "pii:many", "--data", "c.jsonl", "--out", "s"]) == 2
    assert "pii:many opens no reward: invalid literal for int()" in capsys.readouterr().err


def test_slips_in_python_are_named_too(lab, monkeypatch):
    monkeypatch.syspath_prepend(str(lab))
    from my_lab import engine, idea, length
    with pytest.raises(harken.UserError, match="The method is a function"):
        harken.train(idea.train, model="toy", data=["a"], out="r")
    with pytest.raises(harken.UserError, match=r"my_lab\.engine is not an evaluation"):
        harken.evaluate(engine, model="toy", prompts=["a"], out="r")
    monkeypatch.setattr(length, "evaluate", lambda config, models, run: 0.5)
    with pytest.raises(harken.UserError, match=r"evaluate\(\) gave a float"):
        harken.evaluate(length, model="toy", prompts=["a"], out="r1")
    monkeypatch.setattr(idea, "train", lambda *given: None)
    with pytest.raises(harken.UserError, match=r"came to its end without finishing r2"):
        harken.train(idea, model="toy", data=["a"], out="r2")
    with pytest.raises(harken.UserError, match=r"my_lab\.engine:Parrot can answer, but my_lab\.idea cannot use it"):
        harken.train(idea, model=engine.Parrot(), data=["a"], out="r3")
    monkeypatch.setattr(idea, "train", lambda config, learner, *given: learner.forward_backward(
        [Datum(learner.template.tree(Prompt.of("a"), ("b",)))], lambda out, x: -out.logps_N.sum()))
    with pytest.raises(harken.UserError, match="gave a loss alone"):
        harken.train(idea, model="toy", data=["a"], out="r4")


def test_a_shape_by_its_path_and_an_engine_that_is_a_class(lab):
    (lab / "my_lab" / "shapes.py").write_text("from harken import Choice, Prompt\n\ndef read(row):\n"
                                              "    return Choice(Prompt.of(row['q']), (row['l'], row['r']), (2, 1))\n")
    (lab / "odd.jsonl").write_text('{"q": "Q", "l": "a", "r": "b"}\n')
    (record,) = harken.read_comparisons("odd.jsonl", adapter="my_lab.shapes:read").records
    assert record.options == ("a", "b") and record.ranks == (2, 1)
    assert main(["sample", "--model", "my_lab.engine:Parrot", *ASKED, "s.jsonl"]) == 0


def test_a_whole_learner_is_trained_as_an_object(lab, monkeypatch):
    """What harken.train gives a method is the object itself, with all that it has."""
    monkeypatch.syspath_prepend(str(lab))
    from my_lab import idea
    given = []

    def train(config, learner, sampler, reward, run):
        given.append((learner, sampler))
        run.finish({})
    monkeypatch.setattr(idea, "train", train)

    class Own:
        template, context = None, 8

        def sample(self, prompts, n, *, max_tokens, temperature=1.0, top_p=1.0, seed=0):
            return []
    for name in ("forward_backward", "step", "save", "save_state", "load_state"):
        setattr(Own, name, lambda self, *given: None)
    own = Own()
    run = harken.train(idea, model=own, data=["a"], out="r")
    assert given[0][0] is own and given[0][1].context == 8
    assert run.config["model"].endswith("Own") and run.config["max_length"] == 1024


@pytest.fixture
def server():
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            text = "7" if "Answer with a number" in body["messages"][-1]["content"] else "Hello."
            answer = json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}] * body["n"]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1", asked
    http.shutdown()


def test_a_server_answers_and_judges_wherever_text_is_enough(lab, server, capsys):
    url, asked = server
    assert main(["sample", "--model", f"{url}#small", "--prompts", "prompts.jsonl", "--out", "s.jsonl"]) == 0
    assert read_jsonl(lab / "s.jsonl")[0]["completions"] == ["Hello."] and asked[0]["model"] == "small"
    assert main(["eval", "win_rate", "--model", url, "--against", "toy", "--prompts", "prompts.jsonl", "--judge", url,
                 "--max-tokens", "4", "--n", "1", "--out", "runs/e"]) == 0
    result = read_json(lab / "runs/e/result.json")
    assert result["tie_rate"] == 1.0 and result["mean_score"]["model"]["value"] == 7.0
    assert main(["train", "sft", "--model", url, "--data", "prompts.jsonl", "--out", "runs/x"]) == 2
    assert "needs weights" in capsys.readouterr().err
    assert main(["eval", "capability", "--model", url, "--data", "prompts.jsonl", "--out", "runs/y"]) == 2
    assert "needs weights" in capsys.readouterr().err


def test_words_are_read_once_into_what_they_are():
    assert isinstance(parse_reward("my_lab.score:fn"), Own)
    assert parse_reward("uwo=2:a,b").renamed(str.upper) == "uwo=2:A,B"
    assert parse_reward("sum:0.5*a,b").renamed(str.upper) == "sum:0.5*A,1*B"
    kinds = [parse_model(word).kind for word in ("http://x/v1", "my.engine:open", "toy", "org/name")]
    assert kinds == ["endpoint", "own", "named", "named"]
