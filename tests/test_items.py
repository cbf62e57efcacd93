"""The store of what models said, and suites: nothing is computed twice, nothing of one model is taken for another's."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from harken.core.errors import UserError
from harken.core.files import read_json, read_jsonl
from harken.core.protocols import Sample
from harken.core.records import Prompt
from harken.engines.openai import NoText
from harken.loops.items import GIVE_UP, Store, StoredModel, cut, note_missing

torch = pytest.importorskip("torch")


class Says:
    """A model without weights that answers with one word, and counts how often it is asked."""

    engine = None

    def __init__(self, word, fails=()):
        self.word, self.fails, self.asked = word, fails, 0

    def sample(self, prompts, n, *, max_tokens, temperature=1.0, top_p=1.0, seed=0, advance=None):
        self.asked += 1
        if any(p.text in self.fails for p in prompts):
            raise UserError("The server does not answer.", "Check it.")
        return [[Sample((), f"{self.word} {p.text}", (), (), True)] * n for p in prompts]


PROMPTS = [Prompt.of(str(i)) for i in range(40)]


def test_two_models_of_one_store_keep_their_own_answers_and_are_asked_once(tmp_path):
    store = Store(tmp_path / "items.jsonl")
    yes, no = Says("yes"), Says("no")
    for _ in range(2):
        for model in (yes, no):
            found = StoredModel(model, store, model.word, name=model.word).answers(PROMPTS, max_tokens=4)
            assert [a.text for a in found] == [f"{model.word} {i}" for i in range(40)]
    assert yes.asked == no.asked == 2  # two chunks, once
    store.close()
    again = Says("yes")
    store = Store(tmp_path / "items.jsonl")
    assert StoredModel(again, store, "yes", name="yes").answers(PROMPTS, max_tokens=4)[39].text == "yes 39"
    assert StoredModel(again, store, "yes", name="yes").answers(PROMPTS, max_tokens=5)[0].text == "yes 0"
    assert again.asked == 2  # another limit is another question
    with pytest.raises(UserError, match="written by another process"):
        Store(tmp_path / "items.jsonl")


def test_what_a_dying_server_had_answered_is_kept_and_a_null_is_no_answer(tmp_path):
    """Three of a chunk were answered before it died: they are not asked again. A server's null is missing, and no refusal."""
    class Dies(Says):
        def sample(self, prompts, n, **settings):
            self.asked += 1
            error = UserError("The server does not answer.", "Check it.")
            if len(prompts) > 1:
                error.answered = {i: [Sample((), f"yes {prompts[i].text}", (), (), True)] for i in (0, 5, 31)}
            raise error

    dies = Dies("")
    store = Store(tmp_path / "items.jsonl")
    found = StoredModel(dies, store, "a", name="dies").answers(PROMPTS[:32], max_tokens=4)
    assert [i for i, a in enumerate(found) if a.text] == [0, 5, 31] and dies.asked == 1 + GIVE_UP
    assert found[1].why == "The server does not answer"
    mute = Says("")
    mute.sample = lambda prompts, n, **settings: [[Sample((), {"0": NoText(), "1": ""}.get(p.text, "yes"), (), (), True)]
                                                for p in prompts]
    found = StoredModel(mute, store, "b", name="mute").answers(PROMPTS[:3], max_tokens=4)
    assert [a.text for a in found] == [None, "", "yes"] and found[0].why == "the server gave no text"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_server_is_asked_again_for_what_is_missing_alone(tmp_path, temperature):
    store = Store(tmp_path / "items.jsonl")
    sick, asked = Says("yes", fails=("3",)), []
    StoredModel(sick, store, "a", name="s").answers(PROMPTS[:8], max_tokens=4, temperature=temperature)
    sick.fails = ()
    say = sick.sample
    sick.sample = lambda prompts, n, **settings: asked.extend(p.text for p in prompts) or say(prompts, n, **settings)
    found = StoredModel(sick, store, "a", name="s").answers(PROMPTS[:8], max_tokens=4, temperature=temperature)
    assert asked == ["3"] and [a.text for a in found] == [f"yes {i}" for i in range(8)]


def test_a_torn_line_is_dropped_and_the_next_is_whole(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text('{"key": "a", "texts": ["x"]}\n{"key": "b", "tex')
    store = Store(path)
    store.add([{"key": "c", "texts": ["z"]}])
    store.close()
    assert [row["key"] for row in read_jsonl(path)] == ["a", "c"]


def test_what_fails_is_missing_with_the_reason_and_a_dead_server_is_not_asked_for_ever(tmp_path):
    store = Store(tmp_path / "items.jsonl")
    sick = Says("yes", fails=("3",))
    found = StoredModel(sick, store, "a", name="sick").answers(PROMPTS, max_tokens=4)
    assert [i for i, a in enumerate(found) if a.text is None] == [3] and "does not answer" in found[3].why
    dead = Says("yes", fails=tuple(str(i) for i in range(8, 40)))
    found = StoredModel(dead, store, "b", name="dead").answers(PROMPTS, max_tokens=4)
    assert sum(a.text is not None for a in found) == 8 and dead.asked == 1 + 8 + GIVE_UP
    with pytest.raises(UserError, match="answered none of 1"):
        StoredModel(Says("", fails=("0",)), store, "c", name="none").answers(PROMPTS[:1], max_tokens=4)


def test_missing_items_are_counted_and_bounded_never_zero():
    notes = []
    assert note_missing(SimpleNamespace(note=notes.append), [1.0, None, 0.0, 1.0], "accuracy") == 1
    assert "between 0.500 and 0.750" in notes[0]


def stored(toy_engine, tmp_path, name="m"):
    from harken.engines.sampler import HFSampler
    return StoredModel(HFSampler(toy_engine(train=False)), Store(tmp_path / f"{name}.jsonl"), name, name=name)


def test_options_equal_a_plain_forward_pass_and_share_their_context(toy_engine, tmp_path):
    model, plain = stored(toy_engine, tmp_path), toy_engine(attention="eager", train=False).model
    items = [("The dog sat on ", ["the mat", "a mat", "it"]), ("", ["Hello", "Help"]), ("Red", [" and blue"])]
    computed = []
    read = model.engine.logprobs
    model.engine.logprobs = lambda trees, **k: computed.append(sum(t.size for t in trees)) or read(trees, **k)
    found = model.options(items)
    for (context, options), row in zip(items, found):
        for option, logp, tokens in zip(options, row.logps, row.tokens):
            # blanks at the end of a context are the option's (lm-eval)
            bare = context.rstrip()
            head = model.template.text_ids(bare) or (model.engine.template.tokenizer.bos_token_id or model.template.end_id,)
            ids = head + model.template.text_ids(context[len(bare):] + option)
            with torch.no_grad():
                logps = plain(torch.tensor([ids])).logits[0].log_softmax(-1)
            expected = sum(float(logps[i - 1, ids[i]]) for i in range(len(head), len(ids)))
            assert tokens == len(ids) - len(head) and logp == pytest.approx(expected, abs=2e-5)
    once = ["The dog sat on", " the mat", " a mat", " it", ".", "Hello", "Help", "Red and blue"]  # ".": the first token
    assert computed[0] == sum(map(len, once))
    assert model.drift is not None and model.drift < 1e-4
    computed.clear()
    assert model.options(items) == found and not computed


def test_a_context_too_long_for_the_model_is_a_missing_item(toy_engine, tmp_path):
    model = stored(toy_engine, tmp_path)
    short, long = model.options([("a", [" b"]), ("a" * 600, [" b"])])
    assert short.logps and not long.logps and "context of 512" in long.why
    answers = model.answers([Prompt.of("a"), Prompt.of("a" * 600)], max_tokens=4)
    assert answers[0].text is not None and answers[1].text is None and "context of 512" in answers[1].why
    assert answers[0].prompt.startswith("<|im_start|>u\na<|im_end|>")  # the exact prompt, template included


def test_draws_are_the_same_after_half_a_chunk_was_lost(toy_engine, tmp_path):
    prompts = [Prompt.of(f"Say {i}.") for i in range(3)]
    model = stored(toy_engine, tmp_path, "whole")
    whole = [a.texts for a in model.answers(prompts, 2, max_tokens=6, temperature=1.0, seed=3)]
    model.store.close()
    lines = (tmp_path / "whole.jsonl").read_text().splitlines()
    (tmp_path / "half.jsonl").write_text(lines[0] + "\n" + lines[1][:20])
    half = stored(toy_engine, tmp_path, "half")
    half.identity = model.identity
    assert [a.texts for a in half.answers(prompts, 2, max_tokens=6, temperature=1.0, seed=3)] == whole
    assert len(read_jsonl(tmp_path / "half.jsonl")) == 3


def test_cut_ends_before_the_first_stop():
    assert cut("yes\nQ: no", ("Q:", "\n")) == "yes" and cut("yes", ("Q:",)) == "yes"


def test_a_suite_of_lists_names_and_models(tmp_path, monkeypatch, capsys):
    from harken.cli.main import main
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("truthful --limit 4 --prompt none\ntruthful --limit 3 --prompt helpful  # again\n")
    assert main(["eval", "suite", "--list", "list.txt", "--model", "toy", "--max-tokens", "4", "--out", "s"]) == 0
    rows = read_json(Path("s/suite.json"))["rows"]
    assert [r["eval"] for r in rows] == ["truthful", "truthful-2"] and [r["value"]["n"] for r in rows] == [4, 3]
    assert "could show a difference" in capsys.readouterr().out
    before = Path("s/items.jsonl").stat().st_size
    assert main(["eval", "suite", "--list", "list.txt", "--model", "toy", "--max-tokens", "4", "--out", "s"]) == 0
    assert Path("s/items.jsonl").stat().st_size == before
    for words, message in ((["--list", "nothing"], "There is no list"), (["--list", "empty.txt"], "names no evaluation"),
                           (["--list", "bad.txt"], "has no setting 'colour'")):
        Path("empty.txt").write_text("# nothing\n")
        Path("bad.txt").write_text("truthful --colour red\n")
        assert main(["eval", "suite", *words, "--model", "toy", "--out", "t"]) == 2
        assert message in capsys.readouterr().err and not Path("t/suite.json").exists()


def test_what_cannot_be_made_is_told_and_the_rest_goes_on(tmp_path, monkeypatch, capsys):
    """The toy reads 512 tokens, and TruthfulQA's six examples are longer."""
    from harken.cli.main import main
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("truthful --limit 2\ntruthful --limit 2 --prompt none\n")
    command = ["eval", "suite", "--list", "list.txt", "--model", "toy", "--max-tokens", "4", "--out", "s"]
    assert main(command) == 2
    said = capsys.readouterr()
    assert "not made: toy answered none of 2 prompts" in said.out and "1 of 2 evaluations could not be made" in said.err
    rows = read_json(Path("s/suite.json"))["rows"]
    assert [("failed" in r, "value" in r) for r in rows] == [(True, False), (False, True)]
    assert all(r["cpu_seconds"] >= 0 for r in rows)
    before = Path("s/items.jsonl").stat().st_size
    assert main(command) == 2 and Path("s/items.jsonl").stat().st_size == before


def test_every_evaluation_of_a_list_needs_a_model_alone():
    """What `full` names runs without a file, a reward or a second model that the command does not give."""
    from harken.launch.suite import LISTS, config_of, read_list
    for name in LISTS:
        for entry in read_list(name):
            config = config_of(entry, {"model": "toy"}, "out")
            assert config.model == "toy" and config.out == "out"
    (toxicity,) = [entry for entry in read_list("full") if entry.name == "toxicity"]
    assert config_of(toxicity, {"model": "toy"}, "o").limit == 24
    assert config_of(toxicity, {"model": "toy", "limit": 3}, "o").limit == 3, "what the command says goes before a list of ours"


@pytest.mark.slow
def test_a_killed_suite_continues_and_asks_nothing_twice(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "harken", "eval", "truthful", "bias", "--model", "toy", "--prompt", "none", "--out"]
    store = tmp_path / "killed" / "items.jsonl"
    process = subprocess.Popen([*command, str(tmp_path / "killed")], env=environment)
    for _ in range(600):
        if (store.exists() and store.stat().st_size) or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for name in ("killed", "whole"):
        subprocess.run([*command, str(tmp_path / name)], env=environment, check=True, capture_output=True)
    keys = [json.loads(line)["key"] for line in store.read_bytes().splitlines()]
    assert len(keys) == len(set(keys))
    for name in ("truthful", "bias"):
        a, b = (read_json(tmp_path / n / name / "result.json") for n in ("killed", "whole"))
        assert a["value"] == b["value"] and math.isfinite(a["value"]["value"])
