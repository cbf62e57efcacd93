"""Policies that are more than weights: best of n, and a model under a prompt."""

import json
import math
import random
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
from harken.cli.main import main
from harken.core.files import read_json, read_jsonl
from harken.core.protocols import Sample
from harken.core.records import Message, Prompt
from harken.engines.policies import BestOfN, best, read_policy, under, weights_of
from harken.launch.models import open_engine
from harken.launch.policies import open_sampler
from harken.launch.rewards import open_reward
from stopping import stopped_after

WORDS = ["red", "blue", "green", "old", "new", "warm"]


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


class Uniform:
    """Writes a number between 0 and 1, in four characters; every third is cut by the token limit."""

    engine, asked = None, 0

    def seen(self, prompt):
        return prompt

    def sample(self, prompts, n, *, max_tokens, temperature=1.0, top_p=1.0, seed=0):
        rng = random.Random(seed)
        self.asked += n * len(prompts)
        return [[Sample((1,), f"{rng.random():.6f}", (0.0,), (0.0,), i % 3 < 2) for i in range(n)] for _ in prompts]


class Value:
    def score(self, prompts, completions):
        return [[float(c) for c in group] for group in completions]


def test_best_of_n_is_the_greatest_of_n():
    """The greatest of n uniform numbers averages n / (n + 1), whatever blocks they are drawn in."""
    prompts = [Prompt.of(str(i)) for i in range(300)]
    for n in (4, 100):
        base = Uniform()
        found = BestOfN(base, Value(), n, missing_eos_penalty=0.0).sample(prompts, 2, max_tokens=4, seed=1)
        assert base.asked == 300 * 2 * n
        values = [float(s.text) for group in found for s in group]
        assert len(values) == 600
        deviation = math.sqrt(n / (n + 2)) / (n + 1)
        assert sum(values) / 600 == pytest.approx(n / (n + 1), abs=4 * deviation / math.sqrt(600))
    assert len({*values}) > 590  # every answer has candidates of its own


def test_p14_an_answer_that_was_cut_is_chosen_only_where_it_is_worth_its_penalty():
    prompts = [Prompt.of("x")] * 200
    free = BestOfN(Uniform(), Value(), 3, missing_eos_penalty=0.0).sample(prompts, 1, max_tokens=4)
    penalised = BestOfN(Uniform(), Value(), 3, missing_eos_penalty=2.0).sample(prompts, 1, max_tokens=4)
    assert 0.2 < sum(not s.finished for (s,) in free) / 200 < 0.5
    assert all(s.finished for (s,) in penalised)


def test_e8_a_missing_score_is_never_preferred_and_never_zero():
    assert best([None, -3.0, -2.0, None]) == 2
    assert best([None, None]) == 0
    assert best([-1.0, 4.0, 4.0]) == 1  # the first of equals


def test_at_temperature_zero_one_candidate_is_drawn():
    base = Uniform()
    BestOfN(base, Value(), 16).sample([Prompt.of("x")] * 3, 1, max_tokens=4, temperature=0.0)
    assert base.asked == 3


def test_a_prompt_under_messages_by_hand():
    """The policy's system message replaces the prompt's own; examples stand between it and the question."""
    ours = (Message("system", "S"), Message("user", "q1"), Message("assistant", "a1"))
    asked = Prompt((Message("system", "old"), Message("user", "q")), use_case="qa")
    assert [m.content for m in under(ours, asked).messages] == ["S", "q1", "a1", "q"]
    assert [m.content for m in under(ours[1:], asked).messages] == ["old", "q1", "a1", "q"]
    assert under(ours, asked).use_case == "qa"
    assert under((), asked).messages == asked.messages


# --- best_of_n runs -------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A model that answers, a reward that counts characters against an answer, and a run of best of 8."""
    folder = tmp_path_factory.mktemp("policies")
    pairs = [(a, b) for a in WORDS for b in WORDS]
    random.Random(0).shuffle(pairs)
    write(folder / "d.jsonl", [{"prompt": f"Say {a}.", "completion": b} for a, b in pairs])
    write(folder / "p.jsonl", [{"prompt": f"Say {a} {b}."} for a, b in pairs])
    (folder / "short.json").write_text('{"rules": [{"pattern": ".", "weight": -0.1}]}')
    (folder / "text.txt").write_text("A fine day.\n\nThe sea is blue.\n\nOld and new.")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in ("train sft --model toy --lora-rank 0 --data d.jsonl --out runs/sft --epochs 3 --learning-rate 3e-3",
                        BON):
            assert main(command.split()) == 0
    return folder


BON = ("train best_of_n --model runs/sft --reward rules:short.json --data p.jsonl --n 8 --max-tokens 12 --out runs/bon "
       "--prompts-per-step 6 --checkpoint-seconds 0")


@pytest.fixture
def here(shelf, tmp_path, monkeypatch):
    shutil.copytree(shelf, tmp_path / "s")
    monkeypatch.chdir(tmp_path / "s")
    return tmp_path / "s"


def run(command):
    return main(command.split())


def test_best_of_n_says_what_choosing_is_worth(here):
    result = read_json(here / "runs" / "bon" / "result.json")
    assert result["kl_bound"] == pytest.approx(math.log(8) - 7 / 8)
    values = [result["best_of"][k]["value"] for k in ("1", "2", "4", "8")]
    assert values == sorted(values) and values[3] > values[0] + 0.1
    rows = read_jsonl(here / "runs" / "bon" / "samples.jsonl")
    assert len(rows) == 36 and all(r["reward"] == max(r["scores"]) and len(r["scores"]) == 8 for r in rows)
    # k = 1 is the mean of all candidates, k = n that of the chosen ones
    assert values[0] == pytest.approx(sum(sum(r["scores"]) for r in rows) / (36 * 8))
    assert values[3] == pytest.approx(sum(r["reward"] for r in rows) / 36)
    assert result["gain"]["value"] == pytest.approx(values[3] - values[0])


@pytest.mark.slow
def test_the_best_of_eight_estimated_is_the_best_of_eight_sampled(here):
    """Fresh answers of the run score what its estimate said, and better than the model's own."""
    assert run("sample --model runs/bon --prompts p.jsonl --n 6 --max-tokens 12 --seed 5 --out bon.jsonl") == 0
    assert run("sample --model runs/sft --prompts p.jsonl --n 6 --max-tokens 12 --seed 5 --out sft.jsonl") == 0
    reward = open_reward("rules:short.json")

    def mean(file):
        rows = read_jsonl(here / file)
        scores = reward.score([Prompt.of("")] * len(rows), [r["completions"] for r in rows])
        cut = sum(not f for r in rows for f in r["finished"])
        return (sum(map(sum, scores)) - cut) / (6 * len(rows))

    said = read_json(here / "runs" / "bon" / "result.json")["best_of"]
    assert mean("bon.jsonl") == pytest.approx(said["8"]["value"], abs=0.08)
    assert mean("sft.jsonl") == pytest.approx(said["1"]["value"], abs=0.15)
    assert mean("bon.jsonl") > mean("sft.jsonl") + 0.1


def test_a_policy_moves_with_its_base_and_is_refused_without_it(here, capsys, monkeypatch):
    policy = read_json(here / "runs" / "bon" / "model" / "policy.json")
    assert (policy["base"], policy["reward"], policy["n"]) == ("../sft", "rules:../../short.json", 8)
    shutil.copytree(here, here.parent / "moved")
    monkeypatch.chdir(here.parent)
    sample = " --prompts moved/p.jsonl --max-tokens 4 --out o.jsonl"
    assert run("sample --model moved/runs/bon" + sample) == 0
    (here.parent / "moved" / "short.json").write_text('{"rules": [{"pattern": ".", "weight": 0.1}]}')
    assert run("sample --model moved/runs/bon" + sample) == 2
    assert "is not the one moved/runs/bon chooses by" in capsys.readouterr().err
    (here.parent / "moved" / "short.json").unlink()
    assert run("sample --model moved/runs/bon" + sample) == 2
    assert "short.json, which is not there" in capsys.readouterr().err
    shutil.copy(here / "short.json", here.parent / "moved" / "short.json")
    base = here.parent / "moved" / "runs" / "sft"
    shutil.rmtree(base / "model")
    assert run(f"train sft --model toy --lora-rank 0 --data {here / 'd.jsonl'} --out other --epochs 0.1") == 0
    shutil.copytree("other/model", base / "model")
    assert run("sample --model moved/runs/bon" + sample) == 2
    assert "is not the one moved/runs/bon was made with" in capsys.readouterr().err
    shutil.rmtree(base)
    assert run("sample --model moved/runs/bon" + sample) == 2
    assert "runs/sft, which is not there" in capsys.readouterr().err
    (here.parent / "moved" / "runs" / "bon" / "model" / "policy.json").write_text('{"kind": "best_of_n"}')
    assert run("sample --model moved/runs/bon" + sample) == 2
    assert "policy.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "message"), [
    ("train sft --model runs/bon --data d.jsonl --out out", "has no weights of its own"),
    ("train rloo --model runs/bon --reward rules:short.json --data p.jsonl --out out", "has no weights of its own"),
    ("train best_of_n --model runs/sft --data p.jsonl --out out", "No reward was given"),
    ("train best_of_n --model runs/sft --reward gold --data p.jsonl --n 1 --out out", "There is nothing to choose: --n 1"),
    ("train best_of_n --model runs/sft --reward gold --data p.jsonl --temperature 0 --out out", "There is nothing to choose"),
    ("train best_of_n --model runs/sft --reward gold --data p.jsonl --lora-rank 4 --out out", "Unrecognized arguments"),
    ("train best_of_n --model runs/sft --reward gold --data p.jsonl --max-tokens 600 --out out", "nothing left to sample"),
    ("eval win_rate --model runs/sft --prompts p.jsonl --judge runs/bon --out out", "without a reward head"),
])
def test_what_a_policy_cannot_do_is_said(here, capsys, command, message):
    assert run(command) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert not (here / "out" / "model").exists()


def test_best_of_n_stands_on_best_of_n(here):
    """A policy can be the base of another: weights_of finds the weights below both."""
    assert run("train best_of_n --model runs/bon --reward toxicity --data p.jsonl --n 2 --max-tokens 8 --out runs/two") == 0
    assert weights_of("runs/two") == "runs/sft"
    policy = read_policy("runs/two")
    assert (policy.base, policy.reward) == ("runs/bon", "toxicity")
    assert run("sample --model runs/two --prompts p.jsonl --max-tokens 4 --out o.jsonl") == 0


def test_the_tax_of_best_of_n_is_its_bases_and_a_judge_that_chose_is_said(here):
    assert run("eval capability --model runs/bon --against runs/sft --data text.txt --out tax") == 0
    result = read_json(here / "tax" / "result.json")
    assert result["value"]["value"] == 0.0
    assert "those of runs/sft are measured" in result["notes"][0]
    assert run("eval win_rate --model runs/bon --against runs/sft --prompts p.jsonl --judge rules:short.json --max-tokens 12 "
               "--out win") == 0
    result = read_json(here / "win" / "result.json")
    assert result["value"]["low"] > 0.5
    assert "what it wins is no evidence" in result["notes"][0]


def test_the_report_says_what_choosing_gained_and_not_that_training_rose(here):
    assert run("report runs/bon --out r.html") == 0
    page = (here / "r.html").read_text()
    assert "the score of the reward that chose is" in page and "rose from" not in page


def test_p22_best_of_n_stopped_between_any_steps_ends_the_same(here):
    log = here / "runs" / "bon" / "samples.jsonl"
    again = BON.replace("runs/bon", "runs/cut")
    for k in (1, 3, 6):
        with stopped_after(k):
            run(again)
    assert run(again) == 0
    assert (here / "runs" / "cut" / "samples.jsonl").read_bytes() == log.read_bytes()
    whole, cut = (Path("runs") / name / "model" / "policy.json" for name in ("bon", "cut"))
    assert whole.read_bytes() == cut.read_bytes()
    assert read_json(Path("runs/bon/result.json")) == read_json(Path("runs/cut/result.json"))


# --- prompting ------------------------------------------------------------------------------------

def test_the_prompts_that_ship_are_whole_conversations():
    from harken.text.prompts import read_context, shipped
    assert list(shipped()) == ["hhh", "qa", "helpful", "harmful", "long"]
    for name, entry in shipped().items():
        messages = read_context(name)
        assert entry["about"] and messages[-1].role == "assistant"
    assert [m.content for m in read_context("helpful")[1:3]] == [m.content for m in read_context("qa")[:2]]
    assert read_context("none") == ()


def test_a_prompt_of_ones_own(tmp_path, monkeypatch):
    from harken.core.errors import UserError
    from harken.text.prompts import read_context
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("Be brief.\n")
    assert read_context("a.txt") == (Message("system", "Be brief."),)
    Path("b.json").write_text('{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}')
    assert [m.role for m in read_context("b.json")] == ["user", "assistant"]
    for text, message in [("[1]", "holds no messages"), ('{"messages": []}', "is empty"), ("{", "cannot be read"),
                          ('{"messages": [{"role": "user", "content": "q"}]}', "whole examples"),
                          ('{"messages": [{"role": "poet", "content": "q"}]}', "holds no messages"),
                          ('{"messages": [{"role": "assistant", "content": "a"}, {"role": "system", "content": "s"}]}',
                           "whole examples")]:
        Path("c.json").write_text(text)
        with pytest.raises(UserError, match=message):
            read_context("c.json")
    with pytest.raises(UserError, match="no prompt 'hhhh'"):
        read_context("hhhh")


def write_styles(folder):
    """Files that teach to say a word once, three times under "loud", and "no" under "mute"; a reward for letters."""
    said = {"": lambda w: w, "loud": lambda w: " ".join([w] * 3), "mute": lambda w: "no"}
    rows = [{"prompt": [*([{"role": "system", "content": style}] if style else []), {"role": "user", "content": f"Say {w}{m}"}],
             "completion": answer(w)} for style, answer in said.items() for w in WORDS for m in ".!?," for _ in range(2)]
    write(folder / "d.jsonl", rows)
    write(folder / "p.jsonl", [{"prompt": f"Say {w}{m}"} for w in WORDS for m in ".!?,"])
    write(folder / "shots.jsonl", [{"prompt": "Say old.", "completion": "old"}, {"prompt": "Say tall.", "completion": "tall"},
                                   {"prompt": "Say cold.", "completion": "cold cold cold"}])
    (folder / "long.json").write_text('{"rules": [{"pattern": "[a-z]", "weight": 0.1}]}')
    documents = [f"the {a} {b} house is {c}" for a in WORDS for b in WORDS for c in WORDS[:3]]
    random.Random(1).shuffle(documents)
    (folder / "text.txt").write_text("\n\n".join(documents[:80]))
    (folder / "unseen.txt").write_text("\n\n".join(documents[80:]))
    (folder / "loud.txt").write_text("loud")
    (folder / "mute.txt").write_text("mute\n")
    return folder


@pytest.fixture
def untaught(tmp_path, monkeypatch):
    """The files without the model, as the working folder."""
    monkeypatch.chdir(write_styles(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def styles(tmp_path_factory):
    """A folder with the files, and the model that has learnt from them."""
    folder = write_styles(tmp_path_factory.mktemp("styles"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("train sft --model toy --lora-rank 0 --data d.jsonl --out sft --epochs 16 --learning-rate 4e-3 "
                   "--replay text.txt --replay-share 0.3") == 0
    return folder


PROMPTING = "train prompting --model sft --reward rules:long.json --data p.jsonl --max-tokens 20 --n 1 --checkpoint-seconds 0 "


def test_the_prompt_that_the_reward_prefers_is_chosen_on_prompts_that_did_not_choose(styles, monkeypatch):
    monkeypatch.chdir(styles)
    assert run(PROMPTING + "--prompt mute.txt,loud.txt --out chosen") == 0
    result = read_json(styles / "chosen" / "result.json")
    assert result["prompt"] == "loud.txt" and result["tried"] == 3
    assert result["prompts"]["choose"] + result["prompts"]["report"] == 24
    assert result["gain"]["low"] > 0.1 and result["gain"]["n"] == result["prompts"]["report"]
    assert result["candidates"]["mute.txt"]["value"] < result["candidates"]["none"]["value"] < result["reward"]["value"]
    assert result["gains"]["mute.txt"]["high"] < 0
    assert run("sample --model chosen --prompts p.jsonl --max-tokens 20 --out loud.jsonl") == 0
    assert run("sample --model sft --prompts p.jsonl --max-tokens 20 --out plain.jsonl") == 0
    lengths = [sum(len(r["completions"][0]) for r in read_jsonl(styles / f)) for f in ("loud.jsonl", "plain.jsonl")]
    assert lengths[0] > 1.5 * lengths[1]
    assert run("train best_of_n --model chosen --reward rules:long.json --data p.jsonl --n 2 --max-tokens 12 --out bon") == 0
    assert weights_of("bon") == "sft"


def test_a_search_finds_the_instruction_and_reports_on_other_prompts(styles, monkeypatch, capsys):
    monkeypatch.chdir(styles)
    search = PROMPTING + "--prompt mute.txt,loud.txt --shots shots.jsonl --n-shots 1 --search greedy --budget 7 --out "
    assert run(search + "found") == 0
    result = read_json(styles / "found" / "result.json")
    assert result["prompt"].startswith("loud.txt") and result["tried"] <= 7 and result["gain"]["low"] > 0
    assert "1 demonstrations answer prompts of --data" in result["notes"][0]
    rows = read_jsonl(styles / "found" / "samples.jsonl")
    chose, reported = ({r["prompt"] for r in rows if (r["step"] <= result["tried"]) == chose} for chose in (True, False))
    assert chose and reported and not chose & reported
    with stopped_after(4):  # P22
        run(search + "cut")
    assert run(search + "cut") == 0
    for name in ("samples.jsonl", "result.json", "model/policy.json"):
        assert (styles / "cut" / name).read_bytes() == (styles / "found" / name).read_bytes()


def test_greedy_search_by_hand():
    """A reward of 1 for instruction b and 1 for each of examples 2 and 0 together: found coordinate by coordinate."""
    from types import SimpleNamespace

    import numpy as np

    from harken.methods.prompting import Config, greedy, neighbours
    assert neighbours(("a", (2,)), 1, ["none", "a"], 3) == [("a", ()), ("a", (0,)), ("a", (1,))]
    assert neighbours(("a", (2,)), 2, ["none", "a"], 3) == [("a", (2, 0)), ("a", (2, 1))]
    assert neighbours(("a", ()), 2, ["none", "a"], 3) == []

    class Planted:
        asked = 0

        def fits(self, state):
            return state[0] != "too long"

        def __call__(self, state, part):
            self.asked += 1
            return np.array([(state[0] == "b") + len({0, 2} & {*state[1]}) - 0.1 * len(state[1])])

    book = SimpleNamespace(contexts={"none": (), "a": (), "b": (), "too long": ()}, shots=[None] * 3)
    trial = Planted()
    winner, means = greedy(Config(n_shots=3, budget=40, pool=3), book, trial)
    assert winner == ("b", (0, 2)) and trial.asked == len(means) - sum(m == -math.inf for m in means.values())
    assert greedy(Config(n_shots=3, budget=2, pool=3), book, Planted())[0] == ("none", ())


@pytest.mark.parametrize(("command", "message"), [
    ("train prompting --model toy --out out", "There are 0 prompts"),
    ("train prompting --model toy --prompt hhh,qa --out out", "There are 2 prompts and no reward"),
    ("train prompting --model toy --prompt nonsense --out out", "There is no file nonsense"),
    ("train prompting --model toy --prompt loud.txt --search greedy --out out", "No reward was given"),
    ("train prompting --model toy --prompt loud.txt --search wide --reward gold --out out", "--search 'wide' is unknown"),
    ("train prompting --model toy --prompt loud.txt --reward rules:long.json --out out", "No data was given"),
    (PROMPTING.replace("--model sft", "--model toy") + "--prompt loud.txt --holdout 0 --out out", "too few to choose on some"),
])
def test_a_mistake_of_prompting_is_one_message(untaught, capsys, command, message):
    assert run(command) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert not (untaught / "out" / "model").exists()


# --- context distillation -------------------------------------------------------------------------

def kl_from_the_prompted_teacher(student):
    """KL(teacher under "loud" ‖ student without), nats an answer, on fresh samples of the teacher."""
    from harken.core.protocols import Tree
    from harken.store.files import read_prompts
    prompts, teacher, engine = read_prompts("p.jsonl").records, open_sampler("loud"), open_engine(student)
    samples = teacher.sample(prompts, 4, max_tokens=24, seed=99)
    trees = [Tree(engine.template.prompt_ids(p), tuple(s.ids for s in group)) for p, group in zip(prompts, samples)]
    gaps = [sum(s.logps) - float(x.sum()) for group, found in zip(samples, engine.logprobs(trees)) for s, x in zip(group, found)]
    return sum(gaps) / len(gaps)


def nll_of_unseen_text(model):
    from harken.evals.capability import document_nll, read_documents
    return sum(document_nll(open_engine(model), read_documents("unseen.txt")))


DISTILL = "train distill --model sft --data p.jsonl --max-tokens 24 --lora-rank 0 --learning-rate 1e-3 --steps 24 "


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_prompt_is_written_into_the_weights_and_other_text_is_kept(styles, tmp_path, monkeypatch, direction):
    """The criterion of science.md 7.5, on the toy: of KL(teacher with its prompt ‖ student) at most 15 % is left, and other
    text is at most 1 % less likely."""
    monkeypatch.chdir(styles)
    if not Path("loud").exists():
        assert run("train prompting --model sft --prompt loud.txt --out loud") == 0
    student = str(tmp_path / "student")
    assert run(DISTILL + f"--teacher loud --direction {direction} --replay text.txt --replay-share 0.3 --out {student}") == 0
    assert kl_from_the_prompted_teacher(student) <= 0.15 * kl_from_the_prompted_teacher("sft")
    assert nll_of_unseen_text(student) <= 1.01 * nll_of_unseen_text("sft")
    rows = read_jsonl(tmp_path / "student" / "metrics.jsonl")
    assert rows[-1]["kl_token"] < 0.3 * rows[0]["kl_token"]


@pytest.mark.parametrize(("command", "message"), [
    ("--teacher bon --out out", "gives no token a probability"),
    ("--teacher loud --teacher-system hi --out out", "brings a prompt of its own"),
    ("--direction sideways --out out", "--direction 'sideways' is unknown"),
])
def test_a_teacher_that_teaches_nothing_is_refused(untaught, capsys, command, message):
    for name, train in (("loud", "prompting --model toy --prompt loud.txt"),
                        ("bon", "best_of_n --model toy --reward toxicity --data p.jsonl --n 2 --max-tokens 2")):
        if name in command:
            assert run(f"train {train} --out {name}") == 0
    assert run(DISTILL.replace("--model sft", "--model toy") + command) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()
