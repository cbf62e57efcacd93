"""Chat templates through whole runs: a run's day, --template, --turns, end markers and identical sides."""

import json
from datetime import date, timedelta

import pytest

pytest.importorskip("torch")
import harken.text.template as template_module
from harken.core.errors import UserError
from harken.core.records import Prompt
from harken.engines.loading import load
from harken.engines.toy import toy_model
from harken.launch.train import train as launch_train
from harken.methods import dpo, reward_model, sft
from harken.text.template import read_template
from stopping import stopped_after
from template_families import tokenizer_for

DATED = "{{ '<|im_start|>system\nToday: ' + strftime_now('%d %b %Y') + '<|im_end|>\n' }}" + read_template("chatml")


def folder(path, source):
    """A small model in transformers' own form, with this chat template (None: without)."""
    tokenizer = tokenizer_for("qwen", source or read_template("chatml"))
    tokenizer.chat_template = source
    toy_model(vocabulary=len(tokenizer)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def file(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(method, tmp_path, name, model, data, **settings):
    settings = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-2, "lora_rank": 2, "holdout": 0.0, "checkpoint_seconds": 0.0,
                **settings}
    return launch_train(method, method.Config(model=model, data=data, out=str(tmp_path / name), **settings), quiet=True)


def weights(path):
    return (path / "model" / "adapter_model.safetensors").read_bytes()


@pytest.fixture
def demos(tmp_path):
    return file(tmp_path / "d.jsonl", [{"prompt": f"Say {c}", "completion": c * 3} for c in "abcdefghijkl"])


class Tomorrow(date):
    @classmethod
    def today(cls):
        return date.today() + timedelta(days=1)


def test_p35_killed_today_and_continued_tomorrow_is_the_same_to_the_bit(tmp_path, demos, monkeypatch):
    model = folder(tmp_path / "m", DATED)
    whole = run(sft, tmp_path, "whole", model, demos)
    with stopped_after(1):
        run(sft, tmp_path, "cut", model, demos)
    monkeypatch.setattr(template_module, "date", Tomorrow)
    continued = run(sft, tmp_path, "cut", model, demos)
    assert weights(continued.path) == weights(whole.path)
    began = json.loads((whole.path / "lineage.json").read_text())
    assert began["template_date"] == began["created"][:10]
    # What stands on the run reads its day, whatever the clock says; the model alone reads the clock.
    assert str(load(str(whole.path)).template.day) == began["template_date"]
    assert load(model).template.day == Tomorrow.today()
    rankings = [{"prompt": f"Say {c}", "completions": [c * 3, "no"], "ranks": [1, 2]} for c in "abcdefgh"]
    pairs = file(tmp_path / "c.jsonl", rankings)
    reward = run(reward_model, tmp_path, "rm", str(whole.path), pairs)
    assert json.loads((reward.path / "lineage.json").read_text())["template_date"] == began["template_date"]


def test_another_template_is_kept_with_the_run(tmp_path, demos):
    model = folder(tmp_path / "m", None)
    plain = run(sft, tmp_path, "plain", model, demos)
    assert "no chat template" in plain.result["notes"][0]
    own = tmp_path / "own.jinja"
    own.write_text(read_template("chatml").replace("'<|im_start|>'", "'<|im_start|>the '"))
    for name, template in {"named": "vicuna", "file": str(own)}.items():
        made = run(sft, tmp_path, name, model, demos, template=template)
        assert not any("no chat template" in note for note in made.result["notes"])
        template = load(str(made.path)).template
        asked = template.tokenizer.decode(template.prompt_ids(Prompt.of("A?")))
        assert asked == {"named": "<s>USER: A? ASSISTANT:",
                         "file": "<|im_start|>the user\nA?<|im_end|>\n<|im_start|>assistant\n"}[name]
    with pytest.raises(UserError, match="no chat template 'nothing'"):
        run(sft, tmp_path, "none", model, demos, template="nothing")
    assert not (tmp_path / "none").exists()


def test_a_template_that_writes_no_answer_can_be_replaced(tmp_path, demos):
    model = folder(tmp_path / "m", "no messages")
    with pytest.raises(UserError, match="does not write the assistant's answer"):
        run(sft, tmp_path, "own", model, demos)
    assert run(sft, tmp_path, "given", model, demos, template="chatml").done


def test_every_turn_is_learnt_or_counted(tmp_path):
    model = folder(tmp_path / "m", read_template("chatml"))
    turns = [{"role": r, "content": c} for r, c in zip(["user", "assistant"] * 3, ["One", "Two", "Three", "Four", "Five", "Six"])]
    data = file(tmp_path / "d.jsonl", [{"messages": turns}] * 3)
    last = run(sft, tmp_path, "last", model, data)
    assert "3 demonstrations; 6 earlier assistant turns are context (--turns all learns them)." in last.result["notes"]
    every = run(sft, tmp_path, "all", model, data, turns="all")
    assert "3 demonstrations; 6 earlier assistant turns are learnt too." in every.result["notes"]
    tokens = [json.loads((r.path / "metrics.jsonl").read_text().splitlines()[0])["tokens"] for r in (last, every)]
    assert tokens == [3 * len("Six$"), 3 * len("Two$Four$Six$")]
    with pytest.raises(UserError, match="--turns 'some' is unknown"):
        run(sft, tmp_path, "none", model, data, turns="some")


def test_a_dialogue_cut_before_its_answers_is_dropped(tmp_path):
    model = folder(tmp_path / "m", read_template("chatml"))
    turns = [{"role": r, "content": c} for r, c in zip(["user", "assistant"] * 2, ["One", "Two", "x" * 300, "Four"])]
    data = file(tmp_path / "d.jsonl", [{"messages": turns}, {"messages": turns[:2]}])
    made = run(sft, tmp_path, "cut", model, data, turns="all", max_length=64, overlong="truncate")
    assert "Over 64 tokens: truncated 1 of 2 demonstrations." in made.result["notes"]


def test_an_end_marker_in_the_data_is_taken_off_and_counted(tmp_path):
    model = folder(tmp_path / "m", read_template("chatml"))
    data = file(tmp_path / "d.jsonl", [{"prompt": f"One {i}", "completion": "Two<|im_end|>"} for i in range(4)])
    made = run(sft, tmp_path, "eos", model, data)
    assert any(note.startswith("Answers with an end marker of their own: 4") for note in made.result["notes"])
    assert json.loads((made.path / "metrics.jsonl").read_text().splitlines()[0])["tokens"] == 4 * len("Two$")


@pytest.mark.parametrize("method", [dpo, reward_model])
def test_rankings_of_a_text_above_itself_are_counted_with_the_ties(tmp_path, method):
    model = folder(tmp_path / "m", read_template("chatml"))
    same = [{"prompt": f"P {i}", "chosen": "same", "rejected": "same"} for i in range(4)]
    other = [{"prompt": f"Q {i}", "chosen": "good", "rejected": "bad"} for i in range(4)]
    made = run(method, tmp_path, "some", model, file(tmp_path / "c.jsonl", same + other))
    assert "4 rankings compare an answer with itself and say nothing: they are left out with the ties." in made.result["notes"]
    assert made.result["rankings"] == 4
    with pytest.raises(UserError, match="nothing left to train on"):
        run(method, tmp_path, "none", model, file(tmp_path / "s.jsonl", same))


def test_p38_the_run_says_that_adapters_cannot_teach_its_end(tmp_path, demos):
    model = folder(tmp_path / "m", read_template("chatml"))
    from transformers import AutoModelForCausalLM
    changed = AutoModelForCausalLM.from_pretrained(model)
    start, end = (load(model).template.tokenizer.convert_tokens_to_ids(t) for t in ("<|im_start|>", "<|im_end|>"))
    rows = changed.get_output_embeddings().weight.data
    rows[end] = rows[start]
    changed.save_pretrained(model)
    said = "The last layer's row of <|im_end|>, which ends an answer, is that of <|im_start|>"
    assert any(n.startswith(said) for n in run(sft, tmp_path, "lora", model, demos).result["notes"])
    assert not any(n.startswith(said) for n in run(sft, tmp_path, "full", model, demos, lora_rank=0).result["notes"])
