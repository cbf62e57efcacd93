"""Sampling in good or bad mode: no tag is ever drawn, one is put where a segment ends, and the cache stays exact."""

from itertools import pairwise

import pytest
import torch

from harken.core.protocols import Tree
from harken.core.records import Message, Prompt
from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.engines.sampler import HFSampler
from harken.engines.scratch import make_new
from harken.engines.steering import Guide
from harken.text.segments import ends_segment
from harken.text.tags import Control, Steering, steering, tagged

TEXT = "One two. Three four five! Six?\n\nSeven e.g. eight. " * 40
EMPTY = [Prompt((Message("user", ""),))]


@pytest.fixture(scope="module", ids="-".join, params=[
    ("llama", "line"), *(pytest.param((kind, "sentence"), marks=pytest.mark.slow) for kind in ("gpt2", "llama"))])
def made(request, tmp_path_factory):
    architecture, segmenter = request.param
    folder = tmp_path_factory.mktemp("steer") / "model"
    make_new(folder, [TEXT], architecture=architecture, size="60K", vocabulary=280, context=160, seed=1, segmenter=segmenter)
    return HFSampler(Engine(load(str(folder)), train=False)), Control.read(folder)


def sample(made, mode, each, n=6, max_tokens=80, seed=0, prompts=EMPTY):
    sampler, control = made
    sampler.steer(steering(control, mode, each))
    return [s for group in sampler.sample(prompts, n, max_tokens=max_tokens, seed=seed) for s in group]




@pytest.fixture
def talkative(made):
    """A model that would love to say tags and ends of segments: its last layer leans towards them."""
    sampler, control = made
    engine = sampler.engine
    original = engine.unembedding
    tokenizer = engine.template.tokenizer
    bias = torch.zeros(engine.model.config.vocab_size)
    bias[list(control.ids)] = 6.0
    for text in (".", " ", "\n"):
        bias[tokenizer(text).input_ids] = 4.0
    bias[list(engine.template.stop_ids)] = -20.0
    engine.unembedding = lambda split=False: (original()[0], bias)
    sampler.max_batch = 4
    yield made
    engine.unembedding = original


@pytest.fixture(autouse=True)
def no_decoder(monkeypatch):
    """The lean of `talkative` must reach decoding too."""
    from harken.engines.decoder import Decoder
    monkeypatch.setattr(Decoder, "of", classmethod(lambda cls, engine: None))


@pytest.mark.parametrize("mode", ["good", "bad", "untagged"])
@pytest.mark.parametrize("each", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_tags_are_never_drawn_and_put_where_segments_end(talkative, mode, each):
    sampler, control = talkative
    tag = {"good": control.good, "bad": control.bad, "untagged": None}[mode]
    tokenizer, seen = sampler.engine.template.tokenizer, 0
    for s in sample(talkative, mode, each):
        ids = list(s.ids)
        assert not set(ids) & (set(control.ids) - {tag})
        if not each or tag is None:
            assert tag not in ids
            continue
        said = []
        for before, after in pairwise([None, *ids]):
            if before is not None and before != tag:
                said.append(before)
            complete = bool(said) and before != tag and ends_segment(control.segmenter)(tokenizer.decode(said))
            assert (after == tag) == complete
            seen += complete
        assert all(lp == 0 for i, lp in zip(ids, s.logps) if i == tag)
    assert seen > 10 or not each or tag is None


def test_the_cache_is_exact_with_tags_in_it(talkative):
    """Log-probs while sampling are those of a fresh pass over the same tokens, the tags banned."""
    sampler, control = talkative
    engine = sampler.engine
    start = (engine.template.stop_ids[0], control.good)
    for s in sample(talkative, "good", True, n=3):
        with torch.no_grad():
            hidden = engine.forward([Tree(start, (s.ids,))]).logps_N  # with the tags not banned
            weight, bias = engine.unembedding()
            from harken.engines.attention import row_of
            row = row_of([Tree(start, (s.ids,))], engine.device, keep_last=False)
            logits = torch.nn.functional.linear(engine.hidden(row)[row.sources], weight, bias)
            logits[:, list(control.ids)] = -torch.inf
            exact = logits.log_softmax(-1).gather(-1, row.targets[:, None])[:, 0]
        assert len(hidden) == len(s.ids)
        for i, token in enumerate(s.ids):
            if token not in control.ids:
                assert s.model_logps[i] == pytest.approx(float(exact[i]), abs=2e-4)


def test_a_prompt_gets_the_tag_at_its_start_and_after_its_last_segment(made):
    sampler, control = made
    sampler.steer(steering(control, "good"))
    end, tokenizer = sampler.engine.template.stop_ids[0], sampler.engine.template.tokenizer
    closed, opened = (tuple(tokenizer(t).input_ids) for t in ("One two.\n", "One two"))
    assert sampler.guide.opened(()) == (end, control.good)
    assert sampler.guide.opened(opened) == (end, control.good, *opened)
    assert sampler.guide.opened(closed) == (end, control.good, *closed, control.good)
    sampler.steer(steering(control, "good", each=False))
    assert sampler.guide.opened(closed) == (end, control.good, *closed)
    sampler.steer(steering(control, "untagged"))
    assert sampler.guide.opened(closed) == (end, *closed)


def test_a_text_that_is_read_has_its_tags_where_the_mode_puts_them(made):
    sampler, control = made
    template = sampler.engine.template
    one, two = (list(template.tokenizer(t).input_ids) for t in ("One two.\n", "Six?"))
    end = template.stop_ids[0]
    each, once, plain = (tagged(template, "One two.\nSix?", s) for s in (
        steering(control, "bad"), steering(control, "bad", each=False), None))
    assert [end, control.bad, *one, control.bad, *two] == [*each.tree.prompt, *each.tree.completions[0]]
    assert [end, control.bad, *one, *two] == [*once.tree.prompt, *once.tree.completions[0]]
    assert control.bad not in plain.tree.completions[0] and all(plain.counted)
    assert [i for i, own in zip(each.tree.completions[0], each.counted) if not own] == [control.bad] * 2


def test_a_mode_is_the_models_own_unless_given():
    control = Control(8, 9, "line", mode="good")
    assert steering(control).start == steering(control).each == 8
    assert steering(control, "bad") == Steering((8, 9), 9, 9, "line")
    assert steering(control, "untagged").start is None and steering(control, "good", each=False).each is None


def test_a_tag_that_is_put_leaves_the_text_and_costs_no_probability():
    tokens = {0: "<end>", 1: "a", 2: ".", 3: " ", 4: "\n"}

    class Known:
        def decode(self, ids, skip_special_tokens):
            return "".join(tokens[i] for i in ids)

        def batch_decode(self, rows):
            return [tokens.get(i, "") for (i,) in rows]

        def __len__(self):
            return 10
    guide = Guide(steering(Control(8, 9, "sentence"), "good"), Known(), 0, torch.device("cpu"))
    ids = torch.tensor([[1, 2, 3, 0], [1, 3, 0, 0], [1, 2, 4, 0], [0, 0, 0, 0]])
    said = torch.tensor([3, 2, 3, 0])
    assert guide.due(ids, said).tolist() == [True, False, True, False]  # ". " ends a sentence, a space alone does not
    due, stop = guide.due(ids, said), torch.tensor([0])
    token, logps = guide.put(torch.tensor([1, 1, 1, 1]), [torch.full((4,), -2.0)], due, stop)
    assert token.tolist() == [8, 1, 8, 1] and logps[0].tolist() == [0, -2, 0, -2]
    token, logps = guide.put(torch.tensor([0, 0, 9, 1]), [torch.full((4,), -2.0)], due, stop)  # the first ends instead
    assert token.tolist() == [0, 0, 8, 1] and logps[0].tolist() == [-2, -2, 0, -2]
    assert guide.untagged((1, 8, 1, 9)) == (1, 1, 9)
    assert guide.ban(torch.zeros(1, 10))[0].isinf().nonzero()[:, 0].tolist() == [8, 9]
    assert guide.ban(torch.zeros(4, 10), due).isinf().nonzero().tolist() == [[1, 8], [1, 9], [3, 8], [3, 9]]


def test_a_text_may_end_where_a_tag_would_stand(talkative):
    """As often as the model ends there beside its tags: with a tag and a text token as likely, in a third of the places."""
    sampler, control = talkative
    if control.segmenter != "line":
        pytest.skip("every line feed ends a segment only of lines")
    engine = sampler.engine
    weight, bias = engine.unembedding()
    bias = torch.full_like(bias, -torch.inf)
    line = engine.template.tokenizer("\n").input_ids[0]
    bias[line], bias[control.good], bias[list(engine.template.stop_ids)] = 0.0, 0.0, 0.0
    engine.unembedding = lambda split=False: (torch.zeros_like(weight), bias)
    found = sample(talkative, "good", True, n=300, max_tokens=3)
    drawn = {tuple(s.ids) for s in found}
    end = engine.template.stop_ids[0]
    assert drawn == {(end,), (line, end), (line, control.good, end), (line, control.good, line)}
    after = [s for s in found if s.ids[0] == line]
    assert sum(s.ids[1] == end for s in after) / len(after) == pytest.approx(1 / 3, abs=0.12)  # of line, good and end
    assert all(s.finished == (s.ids[-1] == end) for s in found)
    for s in found:
        if s.ids[-1] == end and len(s.ids) == 2:
            assert s.logps[1] == pytest.approx(-1.0986, abs=1e-3)


def test_who_shares_a_batch_changes_nothing(talkative):
    """P23: a sample is its prompt's own, whatever the rows beside it say and however early they end."""
    prompts = [Prompt((Message("user", t),)) for t in ("One two.\n", "Six?\n\n", "Three", "")]
    sampler, _ = talkative
    sampler.max_batch = 3
    few = sample(talkative, "good", True, n=1, prompts=prompts)
    sampler.max_batch = 96
    many = sample(talkative, "good", True, n=1, prompts=prompts)
    assert [s.ids for s in few] == [s.ids for s in many]
