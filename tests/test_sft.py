"""Supervised finetuning: mixed files, replay of text, and the epoch that is kept."""

import json
import random

import pytest
import torch
from safetensors.torch import load_file

from harken.core.errors import UserError
from harken.core.files import read_jsonl
from harken.core.seeds import derive_seed
from harken.launch.find import find_method
from harken.launch.models import open_engine
from harken.launch.train import train as launch_train
from harken.loops.replay import Replay
from harken.loops.schedule import Order
from harken.methods import sft
from stopping import stopped_after

WORDS = ["red", "blue", "green", "old"]


@pytest.fixture
def files(tmp_path):
    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(r) + "\n" for r in rows))
        return str(tmp_path / name)

    (tmp_path / "text.txt").write_text("\n\n".join(f"the {a} {b} house" for a in WORDS for b in WORDS))
    return {"data": write("a.jsonl", [{"prompt": f"Say {a} {b}.", "completion": a} for a in WORDS for b in WORDS]),
            "more": write("b.jsonl", [{"prompt": f"Sing {a} {b}.", "completion": b} for a in WORDS for b in WORDS[:2]]),
            "text": str(tmp_path / "text.txt")}


def run(files, out, **settings):
    config = sft.Config(model="toy", data=files["data"], out=str(out), **{"lora_rank": 0, "batch_size": 4, **settings})
    return launch_train(find_method("sft"), config, quiet=True)


def weights(done):
    return load_file(done.path / "model" / "model.safetensors")


def assert_equal(a, b):
    a, b = weights(a), weights(b)
    assert all(torch.equal(a[n], b[n]) for n in a)


def epoch_of(order, epoch):
    return [i for step in range(epoch * order.per_epoch, (epoch + 1) * order.per_epoch) for i in order(step)]


def test_an_epoch_sees_each_file_as_often_as_its_weight():
    """Files of 5, 3 and 8 examples with weights 1, 2 and 0.5: an epoch has 5 + 6 + 4, of the last another half each time."""
    order = Order(16, 4, 3, seed=0, parts=[(5, 1.0), (3, 2.0), (8, 0.5)])
    assert (order.per_epoch, order.total) == (4, 12)
    halves = []
    for epoch in range(3):
        seen = epoch_of(order, epoch)
        assert sorted(i for i in seen if i < 8) == sorted([*range(5), *range(5, 8), *range(5, 8)])
        halves.append({i for i in seen if i >= 8})
        assert len(seen) == 15 and len(halves[-1]) == 4
    assert halves[0] != halves[1] or halves[1] != halves[2]


def test_one_file_is_seen_in_the_order_it_always_was():
    for n, batch in ((7, 3), (16, 16)):
        order, one = Order(n, batch, 2, seed=5), Order(n, batch, 2, seed=5, parts=[(n, 1.0)])
        for epoch in range(2):
            before = list(range(n))
            random.Random(derive_seed(5, "order", epoch)).shuffle(before)
            assert epoch_of(order, epoch) == epoch_of(one, epoch) == before


def test_replay_has_its_exact_share_of_the_tokens(files, toy_engine):
    template = toy_engine(train=False).template
    for share, tokens, expected in ((0.1, 90, 10), (0.5, 37, 37), (0.25, 300, 100)):
        replay = Replay(files["text"], share, template, 16, seed=3)
        text = replay.batch(7, tokens)
        assert sum(len(t.completions[0]) for t in text) == expected
        assert text == Replay(files["text"], share, template, 16, seed=3).batch(7, tokens) != replay.batch(8, tokens)


@pytest.mark.slow
def test_replay_keeps_text_likely_and_the_loss_is_the_shares_mean(files, tmp_path):
    from harken.evals.capability import document_nll
    settings = {"epochs": 8, "learning_rate": 3e-3, "holdout": 0.0}
    plain = run(files, tmp_path / "plain", **settings)
    kept = run(files, tmp_path / "kept", replay=files["text"], replay_share=0.5, **settings)
    rows = read_jsonl(kept.path / "metrics.jsonl")
    assert all(r["loss"] == pytest.approx(0.5 * r["nll"] + 0.5 * r["replay_nll"]) for r in rows)
    assert rows[-1]["replay_nll"] < 0.7 * rows[0]["replay_nll"]
    assert rows[-1]["nll"] < 0.7 * rows[0]["nll"]
    unlearnt, learnt = (sum(document_nll(open_engine(str(r.path)), ["the red old house", "the blue green house"]))
                        for r in (plain, kept))
    assert learnt < 0.6 * unlearnt


def test_mixed_files_are_learnt_and_held_out_prompts_stay_out_of_all(files, tmp_path):
    done = run(files, tmp_path / "r", mix=f"{files['more']}:2", epochs=1, holdout=0.3)
    held, more = done.result["heldout"], done.result["demonstrations"] - 16 + done.result["heldout"]
    assert 0 < held < 16 and 0 < more <= 8 and done.result["files"] == {files["data"]: 16 - held, files["more"]: more}
    per_epoch = 16 - held + 2 * more
    assert done.result["steps"] == -(-per_epoch // 4)
    same = run(files, tmp_path / "same", mix=f"{files['data']}:3", epochs=1, holdout=0.3)
    assert same.result["files"][files["data"]] == 16 - held  # the held-out prompts of --data are not learnt from its copy
    assert json.loads((tmp_path / "r" / "lineage.json").read_text())[f"mix {files['more']}"]["sha256"]


class Scripted:
    """Likes what is asked for the third time: the answers after the second epoch (the first asking is before training)."""

    def __init__(self):
        self.asked = -1

    def score(self, prompts, completions):
        self.asked += 1
        return [[(0.0, 1.0, 5.0, 2.0)[self.asked]] * len(group) for group in completions]


def test_the_epoch_that_the_reward_likes_best_is_kept(files, tmp_path, monkeypatch):
    reward = Scripted()
    monkeypatch.setattr("harken.launch.train.open_reward", lambda *a, **k: reward)
    settings = {"learning_rate": 1e-3, "schedule": "constant", "holdout": 0.3, "max_tokens": 4, "missing_eos_penalty": 0.0}
    done = run(files, tmp_path / "r", epochs=3, select="reward", reward="gold", **settings)
    assert done.result["epoch"] == 2.0 and done.result["heldout_reward"]["value"] == 5.0
    assert [e["heldout_reward"] for e in done.result["epochs"].values()] == [1.0, 5.0, 2.0]
    assert done.result["heldout_nll"] == done.result["epochs"]["2"]["heldout_nll"]
    settings.pop("max_tokens"), settings.pop("missing_eos_penalty")
    assert_equal(done, run(files, tmp_path / "two", epochs=2, **settings))
    least = run(files, tmp_path / "least", epochs=3, select="loss", **settings)
    losses = {k: e["heldout_nll"] for k, e in least.result["epochs"].items()}
    assert f"{least.result['epoch']:g}" == min(losses, key=losses.__getitem__)


@pytest.mark.slow
def test_p22_a_run_that_selects_replays_and_mixes_resumes_exactly(files, tmp_path):
    (tmp_path / "short.json").write_text('{"rules": [{"pattern": ".", "weight": -0.1}]}')
    settings = {"epochs": 3, "learning_rate": 3e-3, "holdout": 0.3, "max_tokens": 8, "checkpoint_seconds": 0.0,
                "select": "reward", "reward": f"rules:{tmp_path / 'short.json'}", "mix": f"{files['more']}:0.5",
                "replay": files["text"]}
    whole = run(files, tmp_path / "whole", **settings)
    total = whole.result["steps"]
    for k in (total // 3, total // 3 + 1, total):
        with stopped_after(k):
            run(files, tmp_path / f"cut{k}", **settings)
        cut = run(files, tmp_path / f"cut{k}", **settings)
        assert_equal(whole, cut)
        assert cut.result == whole.result
        first, second = ([{n: v for n, v in row.items() if n != "seconds"} for row in read_jsonl(done.path / "metrics.jsonl")]
                         for done in (whole, cut))
        assert first == second


@pytest.mark.parametrize(("settings", "message"), [
    ({"mix": "b.jsonl:0"}, "weight must be above 0"), ({"mix": "nowhere.jsonl:2"}, "no file nowhere.jsonl"),
    ({"replay": "nowhere.txt"}, "no file nowhere.txt"), ({"replay": "TEXT", "replay_share": 1.0}, "--replay-share 1.0 is out"),
    ({"reward": "gold"}, "--reward does nothing with --select last"), ({"select": "reward"}, "No reward was given"),
    ({"select": "best"}, "--select 'best' is unknown"), ({"select": "loss", "holdout": 0.0}, "No prompt is held out"),
    ({"n": 0}, "out of range")])
def test_a_mistake_is_one_message(files, tmp_path, settings, message):
    settings = {k: files["text"] if v == "TEXT" else v for k, v in settings.items()}
    with pytest.raises(UserError, match=message):
        run(files, tmp_path / "r", **settings)
    assert not (tmp_path / "r").exists()
