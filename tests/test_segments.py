"""Segments cover a text, and end where what was read so far says so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harken.core.errors import UserError
from harken.text.segments import LOOK_BACK, check_segmenter, ends_segment, segment_ends, segments

TEXTS = st.text(alphabet="ab .!?\n\t\"')D1rMe。é", max_size=80)


@pytest.mark.parametrize(("text", "expected"), [
    ("One. Two! Three?", ["One. ", "Two! ", "Three?"]),
    ("He said \"Go.\" Then 3.14 left.", ["He said \"Go.\" ", "Then 3.14 left."]),
    ("Dr. A. Smith and e.g. Mr. Jones. End", ["Dr. A. Smith and e.g. Mr. Jones. ", "End"]),
    ("Title\n\nText here.\nMore", ["Title\n\n", "Text here.\n", "More"]),
    ("They left in the U.S. Army. Next.", ["They left in the U.S. Army. ", "Next."]),
    ("我们走。好！", ["我们走。", "好！"])])
def test_sentences(text, expected):
    assert segments(text, "sentence") == expected


def test_lines_and_documents():
    assert segments("a\n\n  b\nc", "line") == ["a\n", "\n", "  b\n", "c"]
    assert segments("a\nb", "document") == ["a\nb"]
    assert segment_ends("", "line") == segment_ends("", "document") == []


@given(TEXTS, st.sampled_from(["sentence", "line", "document"]))
def test_joined_segments_are_the_text(text, segmenter):
    found = segments(text, segmenter)
    assert "".join(found) == text and all(found)


@given(TEXTS, st.sampled_from(["sentence", "line"]))
def test_a_prefix_ends_where_the_whole_text_does(text, segmenter):
    """What a sampler decides from the text so far is what the annotation decided from the whole."""
    ends = set(segment_ends(text + "x", segmenter))
    asked = ends_segment(segmenter)
    assert {i for i in range(1, len(text) + 1) if asked(text[:i])} == ends - {len(text) + 1}


@given(TEXTS)
def test_the_last_characters_decide(text):
    asked = ends_segment("sentence")
    if "\n" not in text:  # pairs of line feeds count from the left
        assert asked(text) == asked(text[-(LOOK_BACK + 4):])


def test_an_unknown_segmenter_is_one_message():
    with pytest.raises(UserError, match="'word' is unknown"):
        check_segmenter("word")
