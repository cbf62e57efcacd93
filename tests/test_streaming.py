"""A streamed answer is the whole answer: for every tokenizer here, whatever it says."""

import pytest

pytest.importorskip("transformers")

from hypothesis import given, settings
from hypothesis import strategies as st

from harken.engines.toy import toy_tokenizer
from harken.text.streaming import Streamed, held
from harken.text.template import Template

TOY = Template(toy_tokenizer())


@pytest.fixture(scope="module")
def smollm2():
    from harken.engines.loading import load
    return load("smollm2").template


def stream(template, ids, stop=()):
    streamed, parts = Streamed(template, stop), []
    for token in ids:
        parts.append(streamed.push(token))
        if streamed.stopped:
            return "".join(parts), streamed
    parts.append(streamed.finish())
    return "".join(parts), streamed


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(4, 70), min_size=1, max_size=60), st.booleans())
def test_any_tokens_stream_to_what_they_decode_to(ids, ended):
    ids = [*ids, TOY.end_id] if ended else ids
    assert stream(TOY, ids)[0] == TOY.decode(ids)


@settings(max_examples=60, deadline=None)
@given(st.text("ab\n", max_size=30), st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_stop_text_is_never_shown_nor_what_follows(text, stop):
    ids = TOY.completion_ids(text)
    shown, streamed = stream(TOY, ids, stop)
    ends = [i for s in stop if (i := text.find(s)) >= 0]
    if not ends:
        assert shown == TOY.decode(ids) and not streamed.stopped
        return
    # The first that is complete ends it; one that begins earlier and is complete later was not known then.
    complete = min(text.find(s) + len(s) for s in stop if s in text)
    at = min(text.find(s) for s in stop if s in text and text.find(s) + len(s) == complete)
    assert shown == text[:at] and streamed.stopped


@pytest.mark.slow
@pytest.mark.parametrize("text", ["Plain words, and more of them so that the window moves on: one two three four five six.",
                                  "Zürich 🙂🙃 naïve — 你好，世界。 कखग مرحبا" * 3, "  spaces  and\n\n\tlines  ", "", "🙂"])
def test_bytes_of_one_character_come_together(smollm2, text):
    ids = smollm2.completion_ids(text)
    parts, streamed = [], Streamed(smollm2)
    for token in ids:
        parts.append(streamed.push(token))
    parts.append(streamed.finish())
    assert "".join(parts) == smollm2.decode(ids) and not any("\ufffd" in p for p in parts)


def test_held():
    assert [held("abc", s) for s in ("cd", "bcd", "x", "abc")] == [1, 2, 0, 3]
