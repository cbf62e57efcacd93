"""Ways of writing turns that newer models brought, each in a small template of its own: what is given and learnt, by hand; typed
markers stay text; what a template leaves out of a conversation is counted."""

from __future__ import annotations

from datetime import date

import pytest

pytest.importorskip("transformers")
from harken.core.records import Demonstration, Message, Prompt
from harken.text.template import Template
from harken.text.turns import dialogue
from template_families import FAMILIES

LOOP = "{% for m in messages %}"
# model family: (markers, template, what the dialogue below is, what of it is learnt)
IDIOMS = {
    "a middle marker (Kimi K2)": (
        ["<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"],
        LOOP + "<|im_{{ m.role }}|>{{ m.role }}<|im_middle|>{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif %}",
        "<|im_system|>system<|im_middle|>S.<|im_end|><|im_user|>user<|im_middle|>A?<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>B.<|im_end|><|im_user|>user<|im_middle|>C?<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>", "D.<|im_end|>"),
    "brackets (MiniMax M2)": (
        ["]~!b[", "]~b]", "[e~["],
        "]~!b[" + LOOP + "]~b]{{ {'assistant': 'ai'}.get(m.role, m.role) }}\n{{ m.content }}[e~[\n{% endfor %}"
        "{% if add_generation_prompt %}]~b]ai\n{% endif %}",
        "]~!b[]~b]system\nS.[e~[\n]~b]user\nA?[e~[\n]~b]ai\nB.[e~[\n]~b]user\nC?[e~[\n]~b]ai\n", "D.[e~["),
    "the turn's end is the text's (Seed-OSS)": (
        ["<seed:bos>", "<seed:eos>", "<seed:think>", "</seed:think>"],
        LOOP + "<seed:bos>{{ m.role }}\n{% if m.reasoning_content %}<seed:think>{{ m.reasoning_content }}</seed:think>{% endif %}"
        "{{ m.content | trim }}<seed:eos>{% endfor %}{% if add_generation_prompt %}<seed:bos>assistant\n{% endif %}",
        "<seed:bos>system\nS.<seed:eos><seed:bos>user\nA?<seed:eos><seed:bos>assistant\nB.<seed:eos><seed:bos>user\nC?<seed:eos>"
        "<seed:bos>assistant\n", "D.<seed:eos>"),
    "roles between markers (Granite 4)": (
        ["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"],
        LOOP + "{{- '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\n' }}{% endfor %}"
        "{%- if add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}",
        "<|start_of_role|>system<|end_of_role|>S.<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>A?<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>B.<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>C?<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>", "D.<|end_of_text|>"),
    "an end that differs by role (Apertus)": (
        ["<|system_start|>", "<|system_end|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|assistant_end|>"],
        LOOP + "<|{{ m.role }}_start|>{{ m.content if m.content is string else m.content.text }}<|{{ m.role }}_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant_start|>{% endif %}",
        "<|system_start|>S.<|system_end|><|user_start|>A?<|user_end|><|assistant_start|>B.<|assistant_end|><|user_start|>C?<|user_end|>"
        "<|assistant_start|>", "D.<|assistant_end|>"),
    "spoken roles, a marker after answers alone (ERNIE 4.5)": (
        ["<|begin_of_sentence|>", "<|end_of_sentence|>"],
        "<|begin_of_sentence|>" + LOOP + "{% if m.role == 'user' %}User: {{ m.content }}\n{% elif m.role == 'assistant' %}"
        "Assistant: {{ m.content }}<|end_of_sentence|>{% else %}{{ m.content }}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}Assistant: {% endif %}",
        "<|begin_of_sentence|>S.\nUser: A?\nAssistant: B.<|end_of_sentence|>User: C?\nAssistant: ", "D.<|end_of_sentence|>"),
    "thoughts closed in the prompt (DeepSeek V3.1)": (
        ["<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<think>", "</think>"],
        LOOP + "{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% elif m.role == 'assistant' %}<｜Assistant｜></think>"
        "{{ m.content.split('</think>')[-1] }}<｜end▁of▁sentence｜>{% else %}{{ m.content }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}<｜Assistant｜>{% if thinking %}<think>{% else %}</think>{% endif %}"
        "{% endif %}",
        "S.<｜User｜>A?<｜Assistant｜></think>B.<｜end▁of▁sentence｜>"
        "<｜User｜>C?<｜Assistant｜></think>", "D.<｜end▁of▁sentence｜>"),
    "role tags and a plain end (Ling)": (
        ["<role>", "</role>", "<|role_end|>"],
        LOOP + "<role>{{ {'user': 'HUMAN'}.get(m.role, m.role | upper) }}</role>{{ m.content }}<|role_end|>{% endfor %}"
        "{% if add_generation_prompt %}<role>ASSISTANT</role>{% endif %}",
        "<role>SYSTEM</role>S.<|role_end|><role>HUMAN</role>A?<|role_end|><role>ASSISTANT</role>B.<|role_end|>"
        "<role>HUMAN</role>C?<|role_end|><role>ASSISTANT</role>", "D.<|role_end|>"),
    "a system block of its own (Mistral 2506)": (
        ["[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]"],
        "{{ bos_token }}" + LOOP + "{% if m.role == 'system' %}[SYSTEM_PROMPT]{{ m.content }}[/SYSTEM_PROMPT]"
        "{% elif m.role == 'user' %}[INST]{{ m.content }}[/INST]{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        "<s>[SYSTEM_PROMPT]S.[/SYSTEM_PROMPT][INST]A?[/INST]B.</s>[INST]C?[/INST]", "D.</s>"),
    "begin, content, end (Solar)": (
        ["<|begin|>", "<|content|>", "<|end|>", "<|flush|>"],
        LOOP + "<|begin|>{{ m.role }}<|content|>{{ m.content }}{% if m.role == 'assistant' and loop.last %}<|flush|>"
        "{% else %}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|begin|>assistant{% endif %}",
        "<|begin|>system<|content|>S.<|end|><|begin|>user<|content|>A?<|end|><|begin|>assistant<|content|>B.<|end|><|begin|>user"
        "<|content|>C?<|end|><|begin|>assistant", "<|content|>D.<|flush|>"),
}
DIALOGUE = Prompt((Message("system", "S."), Message("user", "A?"), Message("assistant", "B."), Message("user", "C?")))


def template_of(name, family="byte_bpe"):
    marks, source, *_ = IDIOMS[name]
    tokenizer = FAMILIES[family](marks)
    tokenizer.chat_template = source
    return Template(tokenizer, day=date(2026, 11, 30))


@pytest.mark.parametrize("name", IDIOMS)
def test_p12_what_is_given_and_learnt_by_hand(name):
    template, (_, _, given, learnt) = template_of(name, "word_level"), IDIOMS[name]
    tree = template.tree(DIALOGUE, ["D."])
    assert template.tokenizer.decode(tree.prompt) == given
    assert template.tokenizer.decode(tree.completions[0]) == learnt
    assert template.decode(tree.completions[0]) == "D."
    assert template.counted() == []


@pytest.mark.parametrize("name", IDIOMS)
def test_every_learnt_turn_ends_with_its_end(name):
    template, learnt = template_of(name), IDIOMS[name][3]
    example = dialogue(template, Demonstration(DIALOGUE, "D."), "all")
    taught = "".join(template.tokenizer.decode([i for i, taught in zip(ids, mask) if taught])
                     for ids, mask in zip(example.tree.completions, example.learnt))
    assert taught == learnt.replace("D.", "B.") + learnt


@pytest.mark.parametrize("family", ["byte_bpe", "metaspace", "unigram"])
@pytest.mark.parametrize("name", IDIOMS)
def test_p34_typed_markers_stay_text(name, family):
    template = template_of(name, family)
    typed = " ".join(template.tokens.control.values()) + "".join(template.tokens.control.values())

    def controls(text):
        turns = (Message("system", text), Message("user", text), Message("assistant", text), Message("user", text))
        return [i for i in template.prompt_ids(Prompt(turns)) if i in template.tokens.control]

    assert controls(typed) == controls("words")
    scaffold = len(template.completion_ids("x")) - len(template.completion_ids("x")[len(template._scaffold_ids):])
    assert sum(i in template.tokens.control for i in template.completion_ids(typed + "x")[scaffold:]) == 1


CALLED = Prompt((Message("user", "A?"), Message("assistant", "", {"tool_calls": [
    {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]}), Message("tool", "7")),
    tools=({"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}}},))


@pytest.mark.parametrize(("source", "lost"), [
    (LOOP + "<|a|>{{ m.content }}<|b|>{% endfor %}", ["tool calls", "descriptions of tools"]),
    (LOOP + "{% if m.role != 'tool' %}<|a|>{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}<|b|>{% endif %}"
     "{% endfor %}", ["tool turns", "descriptions of tools"]),
    ("{{ tools | tojson if tools }}" + LOOP + "<|a|>{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}<|b|>{% endfor %}",
     []),
], ids=["calls", "results", "nothing"])
def test_what_a_template_does_not_write_is_counted(source, lost):
    tokenizer = FAMILIES["byte_bpe"](["<|a|>", "<|b|>"])
    tokenizer.chat_template = source + "{% if add_generation_prompt %}<|a|>{% endif %}"
    template = Template(tokenizer)
    template.prompt_ids(Prompt.of("A?"))
    template.prompt_ids(CALLED)
    notes = template.counted()
    assert [note.partition("does not write ")[2].partition(",")[0] for note in notes] == lost
    assert all("Conversations that have them: 1." in note for note in notes)
    assert template.counted() == []
