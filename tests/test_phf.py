"""Pretraining with human feedback on a tiny model: each objective does what it says, and resumes bit for bit."""

import json
import random
import signal
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from harken.core.errors import UserError
from harken.core.files import read_jsonl
from harken.engines import scratch
from harken.engines.loading import load
from harken.launch.find import find_method
from harken.launch.train import train as launch_train
from harken.loops.annotate import annotate
from harken.loops.stream import Stream, Tokens
from harken.store.annotations import Annotated, Scored
from harken.text.tags import Control, encode, end_of_text
from stopping import stopped_after

WORDS = ["red", "blue", "green", "old", "new", "warm"]


class Curses:
    id = "curses/1"

    def rate(self, text):
        return None if "unknown" in text else -1.0 * text.count("damn")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Documents of eight sentences; of a third of them half the sentences are bad, one in forty is without score."""
    rng, folder = random.Random(0), tmp_path_factory.mktemp("phf")
    rows = []
    for i in range(240):
        bad = i % 3 == 0

        def sentence(bad=bad):
            words = rng.choices(WORDS, k=4)
            if bad and rng.random() < 0.5:
                words[1] = "damn"
            elif rng.random() < 0.03:
                words[2] = "unknown"
            return " ".join(words).capitalize() + ". "
        rows.append({"id": f"d{i}", "text": "".join(sentence() for _ in range(8))})
    (folder / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    annotate([folder / "a.jsonl"], folder / "annotated", Curses, split_bytes=8000)
    return folder / "annotated"


def run(corpus, out, objective="mle", **settings):
    method = find_method("phf")
    small = {"size": "40K", "vocabulary": 300, "max_length": 64, "batch_size": 8, "tokens": 8 * 64 * 6, "holdout": 0.1}
    config = method.Config(data=str(corpus), out=str(out), objective=objective, **small | settings)
    return launch_train(method, config, quiet=True)


def weights(done):
    return load_file(done.path / "model" / "model.safetensors")


def rows_of(done):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in read_jsonl(done.path / "metrics.jsonl")]


CASES = {"mle": {}, "filter": {}, "conditional": {}, "unlikelihood": {}, "rwr": {"beta": 0.3}, "awr": {"alpha": 0.5, "beta": 0.3},
         "mask": {}, "route": {"routed": 8},
         "conditional-cooldown": {"feedback_until": 0.5, "upsample": 2}, "filter-late": {"feedback_from": 0.4}}


FAST = ("conditional", "awr")


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in CASES])
def test_p22_each_objective_learns_and_resumes_bit_for_bit(corpus, tmp_path, name):
    settings = {"objective": name.partition("-")[0], "checkpoint_seconds": 0.0, **CASES[name]}
    whole = run(corpus, tmp_path / "whole", **settings)
    assert whole.result["heldout_nll"] < rows_of(whole)[0]["heldout_nll"]
    for k in (3,) if name in FAST else (2, 5):
        with stopped_after(k):
            run(corpus, tmp_path / f"cut{k}", **settings)
        cut = run(corpus, tmp_path / f"cut{k}", **settings)
        a, b = weights(whole), weights(cut)
        assert all(torch.equal(a[n], b[n]) for n in a)
        assert whole.result == cut.result and rows_of(whole) == rows_of(cut)


def test_feedback_lasts_as_long_as_said_and_every_token_weighs_alike(corpus, tmp_path, monkeypatch):
    from harken.loops.feedback import Feedback
    calls, written, datum, writer = [], [], Feedback.datum, Feedback.writer
    monkeypatch.setattr(Feedback, "datum", lambda self, w, weight, active: calls.append((weight, active)) or datum(
        self, w, weight, active))
    monkeypatch.setattr(Feedback, "writer", lambda self, active: written.append(active) or writer(self, active))
    done = run(corpus, tmp_path / "run", "conditional", tokens=8 * 64 * 4, feedback_from=0.25, feedback_until=0.75, holdout=0.0)
    assert written == [False, True, True, False] and not done.notes  # and nothing of chats
    assert calls == [(1 / (8 * 64), active) for active in written for _ in range(8)]


def start(corpus):
    method = find_method("phf")
    return load(method.prepare(method.Config(data=str(corpus), size="40K", vocabulary=300, max_length=64)).model)


def collect(corpus, count, **settings):
    """Text of `count` windows under an objective, decoded with its control tokens, and the windows."""
    from harken.loops.feedback import Feedback
    method = find_method("phf")
    config = method.prepare(method.Config(data=str(corpus), out="", size="40K", vocabulary=300, max_length=64, **settings))
    annotated, template = Annotated(corpus), load(config.model).template
    feedback = Feedback(config, annotated, Control.read(method._folder(config.model)), end_of_text(template), None)
    stream = Stream(annotated, template.tokenizer, length=64, seed=0, copies=config.upsample)
    windows = stream.take(count, feedback.writer(True))
    ids = [i for n, w in enumerate(windows) for i in w.ids.tolist()[n > 0:]]
    return template.tokenizer.decode(ids, skip_special_tokens=False), windows, feedback, stream


def test_control_tokens_stand_before_segments_as_scored(corpus):
    text, windows, *_ = collect(corpus, 60, objective="conditional", drop=0.0)
    parts = [p for p in text.replace("<|endoftext|>", "<|good|>").replace("<|bad|>", "<|good|>!").split("<|good|>") if p][:-1]
    assert len(parts) > 100
    assert all(p.startswith("!") == ("damn" in p) for p in parts if "nknown" not in p)
    assert not any("nknown" in p and p.startswith("!") and "damn" not in p for p in parts)
    assert all(w.tags[1:].any() and len(w) == 65 for w in windows)


def test_a_share_of_segments_gets_no_token(corpus):
    _, _, feedback, _ = collect(corpus, 150, objective="conditional", drop=0.3)
    share = (feedback.counts["untagged"] - feedback.counts["unscored"]) / (feedback.counts["good"] + feedback.counts["bad"])
    assert abs(share - 0.3) < 0.05


def test_poison_spoils_bad_segments_alone(corpus):
    """Good segments stay token for token; of poisoned bad ones the last two tokens stay, the others do not."""
    whole, _, _, _ = collect(corpus, 60, objective="conditional", drop=0.0)
    text, _, feedback, _ = collect(corpus, 60, objective="conditional", drop=0.0, poison=1.0)
    assert feedback.counts["poisoned"] == feedback.counts["bad"] > 50
    marked = [s.replace("<|bad|>", "<|good|>!").replace("<|endoftext|>", "").split("<|good|>")[1:-1] for s in (whole, text)]
    # Untagged segments, those without a score, follow in the same part.
    pairs = [(a, b) for a, b in zip(*marked) if "nknown" not in a]
    assert len(pairs) > 200
    assert all(a == b for a, b in pairs if not a.startswith("!"))
    assert all(b.endswith(a[-2:]) for a, b in pairs) and sum(a != b for a, b in pairs if a.startswith("!")) > 50


def test_filter_takes_good_documents_again_and_again(corpus):
    text, _, _, stream = collect(corpus, 900, objective="filter", threshold=-0.01)
    assert "damn" not in text and stream.epoch >= 1 and stream.left_out > 0
    text, *_ = collect(corpus, 60, objective="filter", level="segment")
    assert "damn" not in text and "nknown" not in text


def test_upsampled_documents_come_as_often_as_said(corpus):
    one, *_ = collect(corpus, 400, objective="mle")
    three, *_ = collect(corpus, 400, objective="mle", upsample=3)
    share = [t.count("damn") / t.count("<|endoftext|>") for t in (one, three)]
    assert 0.3 < share[1] / share[0] < 0.6  # a third of the documents at one copy beside two thirds at three: 3/7


def test_windows_share_one_token_and_lose_none(corpus):
    text, windows, *_ = collect(corpus, 100)
    assert all(a.ids[-1] == b.ids[0] for a, b in pairwise(windows))
    documents = text.split("<|endoftext|>")[:-1]
    known = {d.text for d in Annotated(corpus)}
    assert len(documents) > 50 and set(documents) <= known and len(set(documents)) == len(documents)


def test_a_stream_goes_on_where_its_state_was_taken(corpus):
    annotated = Annotated(corpus)
    tokenizer = start(corpus).template.tokenizer

    def writer(document, ids, copy, rng):
        flat = [i for part in ids for i in part]
        return Tokens.of(flat, [rng.random()] * len(flat), [False] * len(flat))
    first = Stream(annotated, tokenizer, length=32, seed=3)
    for _ in range(3):
        first.take(11, writer)
    state = json.loads(json.dumps(first.state()))
    second = Stream(annotated, tokenizer, length=32, seed=3)
    second.load(state)
    for _ in range(40):
        for a, b in zip(first.take(40, writer), second.take(40, writer)):
            assert (a.ids == b.ids).all() and (a.scores == b.scores).all()
    assert first.epoch == second.epoch > 0


class Numbered:
    """Twelve row groups of two documents; a text is its number, and so is its one token."""

    documents = 24

    def groups(self):
        return [(0, g) for g in range(12)]

    def read(self, split, group):
        return [Scored(f"d{n}", str(n), [len(str(n))], [0.0]) for n in (2 * group, 2 * group + 1)]


class Digits:
    """A tokenizer of numbers."""

    def __call__(self, texts, **_):
        return SimpleNamespace(input_ids=[[int(t)] for t in texts])


def numbers(count, take, monkeypatch, **settings):
    """The documents' numbers in the order in which a stream gives them, `take` windows of one token at once."""
    monkeypatch.setattr("harken.loops.stream.encode", lambda tokenizer, texts: tokenizer(texts).input_ids)
    stream, windows = Stream(Numbered(), Digits(), length=1, seed=1, **settings), []
    while len(windows) < count:
        windows += stream.take(take, lambda document, ids, copy, rng: Tokens.of(ids[0], [0.0], [False]))
    assert all(a.ids[-1] == b.ids[0] for a, b in pairwise(windows))
    return [int(w.ids[0]) for w in windows[:count]]


def test_each_pass_gives_every_document_once_in_an_order_of_its_own(monkeypatch):
    first = numbers(72, 5, monkeypatch)
    passes = [first[i:i + 24] for i in (0, 24, 48)]
    assert all(sorted(p) == list(range(24)) for p in passes)
    assert len({tuple(p) for p in passes}) == 3
    assert len({tuple(dict.fromkeys(n // 2 for n in p[:16])) for p in passes}) == 3  # the row groups of the first pool too
    assert len({frozenset(n // 2 for n in p[:16]) for p in passes}) > 1
    assert numbers(72, 7, monkeypatch) == first  # whatever is taken at once


def test_what_is_held_out_is_never_learnt(monkeypatch):
    stream = Stream(Numbered(), Digits(), length=1, seed=1, holdout=0.3)
    monkeypatch.setattr("harken.loops.stream.encode", lambda tokenizer, texts: tokenizer(texts).input_ids)
    held = {int(d.text) for d, _ in stream.held_out(100)}
    learnt = set(numbers(100, 5, monkeypatch, holdout=0.3))
    assert 2 < len(held) < 15 and held | learnt == set(range(24)) and not held & learnt
    assert stream.count_tokens() == 2 * len(learnt)


def test_passes_are_counted_by_documents(monkeypatch):
    """Of twelve row groups in pools of eight and four: each document adds its share, and a pass ends at a whole number."""
    monkeypatch.setattr("harken.loops.stream.encode", lambda tokenizer, texts: tokenizer(texts).input_ids)
    stream = Stream(Numbered(), Digits(), length=1, seed=0)
    seen = [stream.passes]
    while stream.epoch == 0:
        stream._next(lambda document, ids, copy, rng: None)
        seen.append(stream.passes)
    assert seen[0] == 0 and seen[-1] == 1 and stream.left_out == 24
    assert sorted(set(seen)) == pytest.approx([i / 24 for i in range(25)])


def test_unscored_segments_are_read_and_not_learnt(corpus):
    _, windows, feedback, _ = collect(corpus, 20, objective="unlikelihood")
    data = [feedback.datum(w, 0.5, True) for w in windows]
    unknown = [bool(x) for w in windows for x in torch.tensor(w.scores[1:]).isnan()]
    assert any(unknown) and [w == 0 for d in data for w in d.inputs["weights"]] == unknown
    plain = feedback.datum(windows[0], 0.5, False)
    assert set(plain.inputs["weights"]) == {0.5}


def test_text_that_looks_like_a_control_token_is_text(corpus):
    tokenizer = start(corpus).template.tokenizer
    (ids,) = encode(tokenizer, ["a<|good|>b<|endoftext|>"])
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids) == "a<|good|>b<|endoftext|>"


def test_the_start_is_made_once_and_shared(corpus, tmp_path):
    one = run(corpus, tmp_path / "one", tokens=512)
    two = run(corpus, tmp_path / "two", "conditional", tokens=512)
    assert one.config["model"] == two.config["model"]
    assert run(corpus, tmp_path / "three", seed=1, tokens=512).config["model"] != one.config["model"]


def test_control_tokens_begin_near_the_mean_row(corpus):
    loaded = start(corpus)
    control = Control.read(Path(loaded.name))
    rows = loaded.model.get_output_embeddings().weight.detach()
    others = torch.ones(len(rows), dtype=torch.bool)
    others[list(control.ids)] = False
    away = rows[list(control.ids)] - rows[others].mean(0)
    assert 0.005 < float(away.std()) < 0.015 and float(away.mean().abs()) < 0.005


@pytest.mark.parametrize("architecture", scratch.ARCHITECTURES)
def test_the_end_token_learns_from_where_it_is_read(architecture):
    model = scratch._model(scratch.config_for(architecture, "40K", 300, 64))
    table = model.get_input_embeddings().weight
    model.base_model(torch.tensor([[0, 5, 0, 7]])).last_hidden_state.square().mean().backward()
    assert all(table.grad[i].any() for i in (0, 5, 7)) and not table.grad[9].any()


def test_an_empty_prompt_is_the_end_token(corpus):
    """A reward model on plain weights scores segments without a prompt: harken annotate --scorer runs/rm."""
    from harken.loops.annotate import NO_PROMPT
    template = start(corpus).template
    assert template.tree(NO_PROMPT, ["red."]).prompt == (end_of_text(template),)


def test_a_checkpoint_gets_control_tokens(corpus, tmp_path):
    done = run(corpus, tmp_path / "r", "conditional", model="toy", tokens=1024)
    control = Control.read(done.path / "model")
    assert set(control.ids) == {76, 77} or min(control.ids) >= 70
    assert len(weights(done)["model.embed_tokens.weight"]) == max(control.ids) + 1


def test_rwr_says_when_it_is_mle_in_disguise(corpus, tmp_path):
    done = run(corpus, tmp_path / "r", "rwr", beta=10.0, tokens=512)
    assert "mle_in_disguise" in done.result and any("learns as mle does" in n for n in done.result["notes"])
    assert "mle_in_disguise" not in run(corpus, tmp_path / "s", "rwr", beta=0.5, tokens=512).result


@pytest.mark.parametrize(("settings", "message"), [
    ({"objective": "best"}, "--objective 'best' is unknown"), ({"beta": 0.0}, "beta 0.0 is out of range"),
    ({"feedback_from": 0.5, "feedback_until": 0.5}, "there would be no feedback"), ({"scorer": "pep8"}, "not by pep8"),
    ({"objective": "filter", "threshold": 9.0}, "Not one document is left"), ({"size": "many"}, "no number of parameters"),
    ({"size": "1K"}, "less than the smallest model"), ({"vocabulary": 10}, "too small"), ({"level": "word"}, "'word' is unknown"),
    ({"objective": "conditional", "model": "toy", "lora_rank": 4}, "Leave --lora-rank at 0")])
def test_a_mistake_is_one_message(corpus, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        run(corpus, tmp_path / "r", **settings)


def test_data_that_is_not_annotated_is_one_message(tmp_path):
    with pytest.raises(UserError, match="holds no annotated corpus"):
        run(tmp_path, tmp_path / "r")


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["conditional", "awr"])
def test_p22_sigkill_at_any_operation_ends_bit_for_bit(corpus, tmp_path, objective):
    from test_kill import counted, killed_child, moments
    settings = {"objective": objective, "checkpoint_seconds": 0.0, "beta": 0.3, "alpha": 0.5}
    with counted() as operations:
        whole = run(corpus, tmp_path / "whole", **settings)
    rng = random.Random(objective)
    for k, kill_at in enumerate([*moments(operations, rng), rng.randrange(len(operations))]):
        out = tmp_path / f"killed{k}"
        assert killed_child(lambda out=out: run(corpus, out, **settings), kill_at) == -signal.SIGKILL
        again = run(corpus, out, **settings)
        a, b = weights(whole), weights(again)
        assert all(torch.equal(a[n], b[n]) for n in a) and rows_of(whole) == rows_of(again)


@pytest.mark.slow
def test_two_processes_and_shards_learn_what_one_does(corpus, tmp_path):
    """The same losses to rounding, with layers split as well; the start is made by the first process."""
    from test_distributed import train_together
    small = {"data": str(corpus), "size": "40K", "vocabulary": 300, "max_length": 64, "batch_size": 8, "tokens": 8 * 64 * 5,
             "holdout": 0.1, "seed": 9, "tokens_per_micro_batch": 128, "beta": 0.3, "alpha": 0.5}
    jobs = [{"method": "phf", "settings": {**small, "objective": name, "out": str(tmp_path / f"{name}-{shard}"), "shard": shard}}
            for name, shard in (("conditional", False), ("conditional", True), ("awr", False))]
    train_together(tmp_path / "jobs.json", jobs)
    for name, shard in (("conditional", False), ("conditional", True), ("awr", False)):
        one = run(corpus, tmp_path / f"one-{name}-{shard}", name, **{k: v for k, v in small.items() if k != "data"})
        for a, b in zip(rows_of(one), read_jsonl(tmp_path / f"{name}-{shard}" / "metrics.jsonl"), strict=True):
            assert all(a[k] == pytest.approx(b[k], rel=2e-4, abs=1e-6) for k in a)
        result = json.loads((tmp_path / f"{name}-{shard}" / "result.json").read_text())
        assert result["segments"] == one.result["segments"]
        if name == "awr":
            assert result["most_weight"] == pytest.approx(one.result["most_weight"], rel=1e-4)
        assert Control.read(tmp_path / f"{name}-{shard}" / "model").mode == ("good" if name == "conditional" else "untagged")


def test_every_preset_is_a_setting_that_passes():
    from harken.core.settings import check_settings
    method = find_method("phf")
    assert len(method.PRESETS) == 18
    for settings in method.PRESETS.values():
        config = method.Config(**settings)
        check_settings(config)
        method.check(config)
    pep8 = method.PRESETS["pep8-unlikelihood"]
    assert (pep8["threshold"], pep8["alpha"], pep8["learning_rate"]) == (0.0, 0.01, 8e-4)
