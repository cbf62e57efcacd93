"""Odd rows of known kinds: a verdict under any name is never lost, and what is plain in another form is read."""

from __future__ import annotations

import json

import pytest

from harken.core.errors import UserError
from harken.store.files import Reader, read
from harken.store.shapes import read_row

Q, YES, NO = "Name a river in Egypt.", "The Nile.", "The Thames."
PAIR = {"prompt": Q, "chosen": YES, "rejected": NO}
SHOWN = {"prompt": Q, "completion": YES}
WON = {"prompt": Q, "completions": [YES, NO], "ranks": [1, 2]}


def user(text=Q):
    return {"role": "user", "content": text}


def bot(text=YES):
    return {"role": "assistant", "content": text}


EARLIER = [user("a"), bot("b"), user()]
LATER = WON | {"prompt": EARLIER}
READ = {
    "a prompt repeated as the last question": (
        {"prompt": Q, "chosen": [*EARLIER, bot()], "rejected": [*EARLIER, bot(NO)]}, LATER),
    "a prompt without the system turn of the dialogues": (
        {"prompt": Q, "chosen": [{"role": "system", "content": "S"}, user(), bot()],
         "rejected": [{"role": "system", "content": "S"}, user(), bot(NO)]},
        WON | {"prompt": [{"role": "system", "content": "S"}, user()]}),
    "messages as Python shows them": ({"prompt": Q, "chosen": str([user(), bot()]), "rejected": str([user(), bot(NO)])}, WON),
    "one message as JSON text": (PAIR | {"prompt": json.dumps(user())}, WON),
    "an empty instruction": ({"instruction": "", "input": Q, "output": YES}, SHOWN),
    "an input that pandas lost": ({"instruction": Q, "input": "nan", "output": YES}, SHOWN),
    "BIG-bench": ({"input": Q, "target": YES}, SHOWN),
    "pairs of user and assistant": ({"conversation": [{"user": Q, "assistant": YES}]}, SHOWN),
    "history as messages": ({"history": [user("a"), bot("b")], "instruction": Q, "output": YES}, SHOWN | {"prompt": EARLIER}),
    "OpenAI's functions": ({"messages": [user(), bot()], "functions": [{"name": "f"}]},
                           SHOWN | {"tools": [{"type": "function", "function": {"name": "f"}}]}),
    "yes and no": (SHOWN | {"label": "no"}, SHOWN | {"label": False}),
    "a choice as text": ({"info": {"post": Q}, "summaries": [{"text": YES}, {"text": NO}], "choice": "0"}, WON),
    "a prompt beside what nobody took back": (PAIR | {"skipped": False, "valid": True}, WON),
}


@pytest.mark.parametrize("name", READ)
def test_another_form_of_the_same_is_read(name):
    row, expected = READ[name]
    assert [record.to_json() for record in read_row(row).records] == [expected]


@pytest.mark.parametrize("row", [
    SHOWN | {"answer": "reject"}, {"prompt": Q, "response": YES, "answer": "ignore"}, SHOWN | {"reaction_given": "👎"},
    SHOWN | {"question-1": [{"user_id": "u", "value": "bad", "status": "submitted"}]},
    SHOWN | {"q": json.dumps([{"annotator": "a", "value": 1}])}, PAIR | {"note": [{"worker": "w", "value": "b"}]},
    PAIR | {"was_cancelled": True}, PAIR | {"skipped": 1}, PAIR | {"valid": False}, WON | {"deleted": "true"}, WON | {"valid": 0},
    SHOWN | {"rating": 1, "scale": "1 = best"}, WON | {"note": [{"user_id": "u", "value": "b"}]},
], ids=str)
def test_a_verdict_under_any_name_is_not_lost(row):
    with pytest.raises(ValueError, match="verdict"):
        read_row(row)


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}, {"loss": False}, {"training": False}, {"train_on_turn": False},
                                  {"mask": True}, {"prefix": True}], ids=str)
def test_an_answer_that_is_not_to_be_learnt_is_no_demonstration(mark):
    with pytest.raises(ValueError, match="no example to learn from"):
        read_row({"messages": [user(), bot() | mark]})
    (note,) = read_row({"messages": [user("a"), bot("b") | mark, user(), bot()]}).notes
    assert "--turns all" in note


def test_ranks_of_two_answers_are_better_where_they_are_lower():
    assert read_row(PAIR | {"chosen_rank": 1, "rejected_rank": 2}).notes == []
    assert read_row(PAIR | {"chosen_rank": 2, "rejected_rank": 1}).notes == ["rejected_rank is higher than chosen_rank"]
    assert read_row(PAIR | {"chosen_rank": "2", "rejected_rank": "1"}).notes == ["rejected_rank is higher than chosen_rank"]


@pytest.mark.parametrize("odd", [
    {"prompt": Q, "response_a": YES, "response_b": NO, "winner": "no preference"}, SHOWN | {"rating": "4 of 5"},
    SHOWN | {"label": "neutral"},
    {"winner": "x", "conversation_a": [user(), bot()], "conversation_b": [user(), bot(NO)]}], ids=str)
def test_a_verdict_in_unknown_words_is_never_left_out(tmp_path, odd):
    known = {"winner": "tie" if "conversation_a" in odd else "a", "rating": 4, "label": True}
    good = {name: known.get(name, value) for name, value in odd.items()}
    path = tmp_path / "f.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (*[good] * 5, odd)))
    for skip_bad in (False, True):
        with pytest.raises(UserError, match="line 6") as raised:
            list(Reader(path, skip_bad=skip_bad))
        assert "--skip-bad" not in raised.value.action


def test_a_prompt_that_is_only_a_number_is_noted():
    assert "only a number" in read_row(SHOWN | {"prompt": "8"}).notes[0]


def test_a_line_of_text_among_rows_may_be_left_out(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text((json.dumps(SHOWN) + "\n") * 3 + "Connection lost.\n" + json.dumps(SHOWN) + "\n")
    with pytest.raises(UserError, match=r"line 4: not valid JSON .text, not a row") as raised:
        read(path)
    assert "--skip-bad" in raised.value.action
    assert len(read(path, skip_bad=True).records) == 4


def test_the_question_of_any_row_may_be_asked_for(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps({"question": Q, "answer_matching_behavior": " (A)", "label_confidence": 0.9}) + "\n")
    with pytest.raises(UserError, match="no known shape"):
        read(path)
    (record,) = read(path, "prompts").records
    assert record.text == Q
