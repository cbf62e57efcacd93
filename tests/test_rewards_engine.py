"""Rewards on the engine: ratings from probabilities, averaged weights, ensembles of trained runs. Toy models."""

import json

import pytest
import torch

from harken.cli.main import main
from harken.core.errors import UserError
from harken.core.files import read_json
from harken.core.protocols import Tree
from harken.core.records import Prompt
from harken.engines import ratings
from harken.engines.averaging import average
from harken.engines.loading import load
from harken.launch import rewards as launch_rewards
from harken.launch.rewards import open_reward
from harken.text.attributes import load_attributes, question

ASK = Prompt.of("Say red.")


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_expected_ratings_are_the_probabilities_of_whole_numbers(toy_engine, monkeypatch, architecture):
    """Against log-probabilities of "1" … "10" asked for one by one: P(1) is what "1" has beyond "10"."""
    monkeypatch.setattr(ratings, "LEAST_MASS", 0.0)
    engine = toy_engine(architecture, train=False)
    judge = ratings.ExpectedRatings(engine)
    # The toy's context is short: a few words of each question are enough.
    questions = [Prompt.of(f"A reply: ok. {a.description[:30]}?") for a in load_attributes()[:5]]
    found = judge.rate([questions])[0]
    for q, rating in zip(questions, found):
        base = engine.template.prompt_ids(q) + judge.lead
        numbers = tuple(judge._ids(str(k)) for k in range(1, 11))
        logps = engine.logprobs([Tree(base, numbers)])[0]
        p = [float(x.sum().exp()) for x in logps]
        p[0] -= p[9]
        assert rating == pytest.approx(sum(k * v for k, v in enumerate(p, 1)) / sum(p), abs=1e-4)


def test_e8_a_judge_that_would_not_say_a_number_gives_none(toy_engine):
    judge = ratings.ExpectedRatings(toy_engine(train=False))
    assert judge.rate([[ASK, ASK]]) == [[None, None]]  # a random model: ten of seventy tokens are digits
    assert judge.rate([[Prompt.of("long " * 200)]]) == [[None]]


def test_the_questions_about_one_answer_share_its_conversation(toy_engine):
    """The prefix is as long as it can be: everything up to the attribute."""
    engine = toy_engine(train=False)
    attributes = load_attributes()[:13]
    ids = [engine.template.prompt_ids(question(ASK, "red", a)) for a in attributes]
    text = question(ASK, "red", attributes[0]).text
    same = text.index("whether the reply ") + len("whether the reply ")
    assert len({tuple(q[: same]) for q in ids}) == 1


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Three reward models of one base, trained on other prompts; one of another base; a policy."""
    folder = tmp_path_factory.mktemp("averages")
    words = ["red", "blue", "green", "old", "new", "warm"]
    rows = [{"prompt": f"Say {a} {b}.", "completions": [f"{a} {b}", "no"], "ranks": [1, 2]} for a in words for b in words]
    for k, part in enumerate((rows[::2], rows[1::2], rows)):
        (folder / f"c{k}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part))
    demos = [{"prompt": r["prompt"], "completion": r["completions"][0]} for r in rows]
    (folder / "d.jsonl").write_text("".join(json.dumps(d) + "\n" for d in demos))

    def train(method, model, data, out):
        assert main(["train", method, "--model", model, "--data", str(folder / data), "--out", str(folder / out),
                         "--epochs", "3", "--lora-rank", "4", "--learning-rate", "0.003"]) == 0

    train("sft", "toy", "d.jsonl", "sft")
    for k in range(3):
        train("reward_model", "toy", f"c{k}.jsonl", f"rm{k}")
    train("reward_model", str(folder / "sft"), "c0.jsonl", "other")
    return folder


def score(spec, *texts):
    return launch_rewards.open_reward(str(spec)).score([ASK], [list(texts)])[0]


def rloo(shelf, name, spec):
    (shelf / "p.jsonl").write_text("".join(f'{{"prompt": "Say {w}."}}\n' for w in ("red", "blue", "old", "new")))
    assert main(["train", "rloo", "--model", "toy", "--reward", spec, "--data", str(shelf / "p.jsonl"), "--steps", "2",
                     "--max-tokens", "8", "--prompts-per-step", "2", "--lora-rank", "4", "--out", str(shelf / name)]) == 0


def test_an_average_of_equals_is_itself(shelf):
    alone = score(shelf / "rm0", "red", "no")
    assert score(f"average:{shelf / 'rm0'},{shelf / 'rm0'}", "red", "no") == pytest.approx(alone, abs=1e-6)


def test_an_average_has_the_mean_of_every_weight_head_and_shift(shelf):
    runs = [str(shelf / f"rm{k}") for k in range(3)]
    members, mean = [load(r) for r in runs], average(runs)
    for name, tensor in mean.model.state_dict().items():
        expected = sum(m.model.state_dict()[name].double() for m in members) / 3
        assert torch.allclose(tensor.double(), expected, atol=1e-6), name
    assert torch.allclose(mean.head.weight, sum(m.head.weight for m in members) / 3, atol=1e-6)
    assert mean.shift == pytest.approx(sum(m.shift for m in members) / 3, abs=1e-6)


def test_harken_average_writes_a_run_that_is_a_reward(shelf, capsys):
    runs, out = [str(shelf / "rm0"), str(shelf / "rm1")], shelf / "warm"
    assert main(["average", *runs, "--out", str(out)]) == 0
    assert score(out, "red", "no") == pytest.approx(score("average:" + ",".join(runs), "red", "no"), abs=1e-5)
    assert read_json(out / "lineage.json")["members"][0]["weights"]
    assert main(["average", *runs, "--out", str(out)]) == 0 and "nothing to do" in capsys.readouterr().err


@pytest.mark.parametrize("names, message", [(("rm0", "other"), "base model"), (("sft", "rm0"), "reward head"),
                                            (("rm0",), "two runs"), (("rm0", "none"), "not a run|no model at")])
def test_runs_that_do_not_fit_are_refused(shelf, capsys, names, message):
    status = main(["average", *(str(shelf / n) for n in names), "--out", str(shelf / "bad")])
    text = capsys.readouterr().err
    assert status == 2 and any(m in text for m in message.split("|")) and not (shelf / "bad").exists()


def test_an_ensemble_of_runs_trains_a_policy(shelf):
    """End to end: a word with commas goes wherever a reward does, and the run remembers every member."""
    spec = f"min:{shelf / 'rm0'},{shelf / 'rm1'}"
    each = [score(shelf / f"rm{k}", "red", "no") for k in (0, 1)]
    assert score(spec, "red", "no") == pytest.approx([min(x) for x in zip(*each)])
    rloo(shelf, "rloo", spec)
    saved = read_json(shelf / "rloo" / "lineage.json")["reward"]
    assert saved["how"] == "min" and len(saved["members"]) == 2 and saved["members"][0]["weights"]


def test_a_scorer_and_a_compositional_run_train_a_policy(shelf):
    rows = [{"prompt": f"Say {i}.", "completions": ["no", "it is " * (1 + i % 3) + str(i) + "."], "ranks": [1 + i % 2, 2 - i % 2]}
            for i in range(40)]
    (shelf / "k.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert main(["fit", "compositional", "--judge", "rules", "--penalty", "l2", "--data", str(shelf / "k.jsonl"),
                     "--out", str(shelf / "cpm")]) == 0
    for name, spec in (("a", "toxicity"), ("b", str(shelf / "cpm"))):
        rloo(shelf, name, spec)
    assert read_json(shelf / "a" / "lineage.json")["reward"] == "toxicity/2"


def test_e17_another_judge_than_the_fitted_one_is_refused(shelf):
    """Weights belong to one judge's ratings; a judge with other weights is said, not used."""
    folder = shelf / "judged" / "model"
    folder.mkdir(parents=True)
    _, identity = launch_rewards.open_judge(str(shelf / "sft"))
    attribute = {"name": "warm", "description": "is warm", "low": "cold", "high": "hot"}
    saved = {"judge": {"judge": str(shelf / "sft"), "judge_model": "", "answers": "expected"}, "identity": identity,
             "terms": [{"attribute": attribute, "mean": 5.0, "sd": 1.0, "weight": 1.0}]}
    (folder / "compositional.json").write_text(json.dumps(saved))
    assert launch_rewards.open_reward(str(folder.parent)).score([ASK], [["ok"]]) == [[None]]  # the toy says no number
    (folder / "compositional.json").write_text(json.dumps({**saved, "identity": ["expected", ["another"]]}))
    with pytest.raises(UserError, match="not the one whose ratings"):
        launch_rewards.open_reward(str(folder.parent))


def test_a_learnt_reward_says_that_it_cannot_explain(shelf, capsys):
    assert main(["score", "--reward", str(shelf / "rm0"), "--data", str(shelf / "c0.jsonl"), "--explain",
                     "--out", str(shelf / "s.jsonl")]) == 2
    assert "cannot explain" in capsys.readouterr().err
    assert open_reward is launch_rewards.open_reward
