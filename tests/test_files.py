"""Files of feedback: every shape, every kind of damage, and nothing lost on the way out and in."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harken.core.errors import UserError
from harken.core.records import Choice, Demonstration, Judgment, Message, Prompt
from harken.store import files
from harken.store.files import read, read_comparisons, read_demonstrations, read_prompts, write_jsonl
from harken.store.shapes import read_row

GOOD = {"prompt": "Name a colour.", "completions": ["Red", "Blue", "No."], "ranks": [1, 1, 2], "labeler": "a7"}


def records(row: dict) -> list:
    return read_row(row).records


def one(row: dict):
    (record,) = records(row)
    return record


def lines(path: Path, *rows: object) -> Path:
    path.write_bytes(b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in rows))
    return path


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def bot(text: str) -> dict:
    return {"role": "assistant", "content": text}


# Shapes

def test_own_shapes():
    assert one(GOOD) == Choice(Prompt.of("Name a colour."), ("Red", "Blue", "No."), (1, 1, 2), "a7")
    assert one({"prompt": "Hi", "completion": "Hello", "labeler": "b"}) == Demonstration(Prompt.of("Hi"), "Hello", "b")
    assert one({"prompt": [user("Hi")], "use_case": "chat"}) == Prompt.of("Hi", use_case="chat")


def test_a_comparison_without_ranks_is_not_taken_for_a_prompt():
    with pytest.raises(ValueError, match='"ranks"'):
        records({"prompt": "Hi", "completions": ["a", "b"]})


@pytest.mark.parametrize("row", [
    {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
    {"prompt": [user("Why?")], "chosen": [bot("Because.")], "rejected": [bot("No.")]},
    {"prompt": "Why?", "chosen": [bot("Because.")], "rejected": [bot("No.")]},
    {"chosen": [user("Why?"), bot("Because.")], "rejected": [user("Why?"), bot("No.")]},
    {"prompt": "Why?", "chosen": [user("Why?"), bot("Because.")], "rejected": [user("Why?"), bot("No.")]},
    {"prompt": [user("Why?")], "chosen": [user("Why?"), bot("Because.")], "rejected": [user("Why?"), bot("No.")]},
    {"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
    {"prompt": "Human: Why?\n\nAssistant:", "chosen": "Because.", "rejected": "No."},
])
def test_chosen_and_rejected_in_all_forms_say_the_same(row):
    assert one(row) == Choice(Prompt.of("Why?"), ("Because.", "No."), (1, 2))


def test_implicit_prompt_of_strings_ends_between_words():
    choice = one({"chosen": "The sky is gray.", "rejected": "The sky is green."})
    assert (choice.prompt.text, choice.options) == ("The sky is", (" gray.", " green."))
    same = one({"chosen": "The sky", "rejected": "The sky is green."})
    assert same.prompt.text + same.options[0] == "The sky"
    with pytest.raises(ValueError, match="share no beginning"):
        records({"chosen": "Yes.", "rejected": "No."})


def test_a_longer_transcript_becomes_messages_and_made_up_turns_stay_in_the_completion():
    start = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Who are you?\n\nAssistant:"
    choice = one({"chosen": start + " Me.  Human: Fine.\n\nAssistant: Bye", "rejected": start + " A dog."})
    assert [m.role for m in choice.prompt.messages] == ["user", "assistant", "user"]
    assert choice.options == ("Me.  Human: Fine.\n\nAssistant: Bye", "A dog.")


def test_transcripts_that_share_no_turn_are_refused():
    with pytest.raises(ValueError, match="share no turns"):
        records({"chosen": "\n\nHuman: A\n\nAssistant: x", "rejected": "\n\nHuman: B\n\nAssistant: y"})


def test_a_colon_word_in_the_text_is_not_a_turn():
    choice = one({"chosen": "\n\nHuman: Define Human: please\n\nAssistant: a", "rejected":
                  "\n\nHuman: Define Human: please\n\nAssistant: b"})
    assert choice.prompt.text == "Define Human: please"


def test_messages():
    talk = [{"role": "system", "content": "Be brief."}, user("Hi"), bot("Hello"), user("Bye"), bot("Bye!")]
    shown = one({"messages": talk})
    assert shown.completion == "Bye!"
    assert [m.role for m in shown.prompt.messages] == ["system", "user", "assistant", "user"]
    assert one({"messages": [user("Hi")]}) == Prompt.of("Hi")
    with pytest.raises(ValueError, match="no prompt"):
        records({"messages": [bot("Hello")]})


def test_instructions():
    alpaca = one({"instruction": "Add.", "input": "1 and 2", "output": "3"})
    dolly = one({"instruction": "Add.", "context": "1 and 2", "response": "3", "category": "closed_qa"})
    assert alpaca == dolly == Demonstration(Prompt.of("Add.\n\n1 and 2"), "3")
    assert one({"instruction": "Add 1 and 2.", "input": "", "output": "3"}).prompt == Prompt.of("Add 1 and 2.")
    assert one({"instruction": "Add."}) == Prompt.of("Add.")
    two = records({"instruction": "Add.", "instances": [{"input": "1 1", "output": "2"}, {"input": "", "output": "?"}]})
    assert [(d.prompt.text, d.completion) for d in two] == [("Add.\n\n1 1", "2"), ("Add.", "?")]


def test_conversational_prompt_completion_and_thumbs():
    row = {"prompt": [user("Hi")], "completion": [bot("Hello")]}
    assert one(row) == Demonstration(Prompt.of("Hi"), "Hello")
    assert one(row | {"label": False}) == Judgment(Prompt.of("Hi"), "thumb", {"completion": "Hello", "label": False})


def test_oasst_tree():
    def node(text, role, rank=None, replies=(), **more):
        return {"text": text, "role": role, "rank": rank, "replies": list(replies), **more}

    follow = node("And?", "prompter", replies=[node("B", "assistant", 1), node("A", "assistant", 0)])
    tree = node("Hi", "prompter", replies=[
        node("worst", "assistant", 2), node("best", "assistant", 0, [follow]), node("mid", "assistant", 1),
        node("spam", "assistant", 3, deleted=True), node("unranked", "assistant")])
    first, second = records({"message_tree_id": "t", "prompt": tree})
    assert (first.prompt.text, first.options, first.ranks) == ("Hi", ("worst", "best", "mid"), (3, 1, 2))
    assert [m.content for m in second.prompt.messages] == ["Hi", "best", "And?"]
    assert (second.options, second.ranks) == (("B", "A"), (2, 1))


@pytest.mark.parametrize(("preference", "ranks"), [
    ([1, 1, 1, 1, 1, 1], (1, 2, 3, 4)),
    ([2, 2, 2, 2, 2, 2], (4, 3, 2, 1)),
    ([0, 0, 0, 0, 0, 0], (1, 1, 1, 1)),
    ([0, 1, 1, 1, 1, 0], (1, 1, 2, 2)),
    ([1, 0, 1, 0, 1, 1], (1, 3, 2, 4)),
])
def test_fine_grained_pairs_become_ranks(preference, ranks):
    """The last fits no ranking (1 > 2, yet 3 ties with both): won minus lost is 2, 0, 1, -3."""
    row = {"question": "Q?", "preference": preference} | {f"prediction {k}": str(k) for k in (1, 2, 3, 4)}
    assert one(row).ranks == ranks


# Real data

@pytest.mark.parametrize(("name", "kind", "rows"), [
    ("hh_rlhf/test.jsonl.gz", "comparisons", 2312),
    ("hh_rlhf/helpful_test_recovered.jsonl.gz", "comparisons", 1987),
    ("fine_grained_rlhf/dev_feedback.json", "comparisons", 500),
    ("dolly_subset/dolly_instruction_response.jsonl", "demonstrations", 6397),
    ("self_instruct/seed_tasks.jsonl", "demonstrations", 175),
])
def test_real_files_are_read_whole(real_data, name, kind, rows):
    loaded = read(real_data / name)
    assert (loaded.kind, len(loaded.records), loaded.skipped) == (kind, rows, {})
    assert all(r.prompt.messages[-1].role == "user" for r in loaded.records)


def test_fine_grained_ranks_agree_with_the_stated_pairs(real_data):
    path = real_data / "fine_grained_rlhf/dev_feedback.json"
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    exact = reversed_pairs = 0
    for row, choice in zip(json.loads(path.read_text()), read_comparisons(path).records, strict=True):
        said = [{0: 0, 1: -1, 2: 1}[p] for p in row["preference"]]
        got = [(choice.ranks[i] > choice.ranks[j]) - (choice.ranks[i] < choice.ranks[j]) for i, j in pairs]
        exact += said == got
        reversed_pairs += sum(a * b < 0 for a, b in zip(said, got, strict=True))
    assert (exact, reversed_pairs) == (478, 0)


# Damage

@pytest.mark.parametrize(("bad", "reason"), [
    (b"{oops}", "not valid JSON"),
    (b'{"prompt": NaN, "completions" []}', "NaN is no JSON value"),
    (b"[1]", "a row must be an object, found list"),
    (b'{"x": 1}', "no known shape has these fields: x"),
    (b'{"prompt": "Hi", "completion": "Hello"}', "a row of demonstrations in a file of comparisons"),
    (b'{"prompt": "Hi", "completions": ["a", "b"], "ranks": [1]}', '"ranks" has 1 entries for 2 completions'),
    (b'{"prompt": "Hi", "completions": ["a", "b"], "ranks": [0, 1]}', "1 the best"),
    (b'{"prompt": "", "completions": ["a", "b"], "ranks": [1, 2]}', '"prompt" is empty'),
    (b'{"prompt": "Hi", "chosen": "a"}', '"rejected" is missing'),
    (b'{"prompt": "Hi", "chosen": "a", "rejected": null}', '"rejected" is null'),
    (b'{"chosen": [1], "rejected": [2]}', "a message must be an object"),
    (b'{"prompt": [{"role": [], "content": "x"}], "chosen": "a", "rejected": "b"}', "message role"),
    (b'{"prompt": "Hi", "completions": ["a", "b"], "ranks": [1, 2], "meta": [1]}', '"meta" must be'),
    ('{"prompt": "café '.encode() + b'caf\xe9", "completions": ["a", "b"], "ranks": [1, 2]}', "not UTF-8 text"),
    (b"[" * 100_000, "nested too deeply"),
])
def test_a_bad_line_is_named_or_counted(tmp_path, bad, reason):
    path = lines(tmp_path / "f.jsonl", GOOD, bad, GOOD)
    with pytest.raises(UserError) as error:
        read(path)
    assert f"{path}, line 2: " in error.value.fact
    assert reason in error.value.fact
    assert "--skip-bad" in error.value.action
    loaded = read(path, skip_bad=True)
    assert len(loaded.records) == 2
    ((counted, n),) = loaded.skipped.items()
    assert n == 1 and (counted in error.value.fact)


def test_a_cut_file_says_so(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD)[:40])
    with pytest.raises(UserError, match="line 2: the last line is cut short"):
        read(path)
    assert read(path, skip_bad=True).skipped == {"the last line is cut short": 1}


def test_arrays(tmp_path):
    path = tmp_path / "f.json"
    path.write_text(json.dumps([GOOD, GOOD], indent=1))
    assert len(read(path).records) == 2
    path.write_text("\n\n[\n" + json.dumps(GOOD) + ",\n\n" + json.dumps({"prompt": "x"}) + "]")
    with pytest.raises(UserError, match="line 6: a row of prompts in a file of comparisons"):
        read(path)
    path.write_text("[" + json.dumps(GOOD) + ",\n" + json.dumps(GOOD)[:30])
    with pytest.raises(UserError, match="line 2: the array is broken or cut short here"):
        read(path)
    loaded = read(path, skip_bad=True)
    assert (len(loaded.records), loaded.skipped) == (1, {"the array is broken or cut short here": 1})
    for one in ("{\n" + json.dumps(GOOD)[1:], json.dumps({"version": 1, "data": [GOOD]}, indent=1), json.dumps({"data": [GOOD]})):
        path.write_text(one)  # one object is one row, or holds the one list of rows
        assert read(path).records == read_row(GOOD).records
    for one, words in (({"train": [GOOD], "test": [GOOD]}, "holds rows under train, test"),
                       ({name: [value] for name, value in GOOD.items()}, "of columns")):
        path.write_text(json.dumps(one))
        with pytest.raises(UserError, match=words):
            read(path)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf", b"[]", gzip.compress(b"", mtime=0)])
def test_an_empty_file(tmp_path, content):
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is empty"):
        read(path)


@pytest.mark.parametrize(("name", "content", "what"), [
    ("f.jsonl", b"\x89PNG\r\n\x1a\n", "PNG image"),
    ("f.json", b"PK\x03\x04zip", "damaged"),
    ("f.csv", b"prompt,chosen\nHi,a\n", '"rejected" is missing'),
    ("f.jsonl", b"\x1f\x8b\x08\x00broken", "damaged"),
    ("f.jsonl.gz", gzip.compress(json.dumps(GOOD).encode() * 50)[:-20], "cut short"),
    ("f.jsonl", b"some words\nand more\n", "text, not a row"),
])
def test_files_of_another_kind(tmp_path, name, content, what):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=what):
        read(path)


def test_folders_missing_files_and_wrong_kinds(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "none.jsonl")
    path = lines(tmp_path / "d.jsonl", {"prompt": "Hi", "completion": "Hello"})
    with pytest.raises(UserError, match="line 1: a row of demonstrations in a file of comparisons"):
        read_comparisons(path)
    with pytest.raises(UserError, match="no usable row: 1 left out"):
        read_comparisons(path, skip_bad=True)
    assert read_prompts(path).records == [Prompt.of("Hi")]
    assert read_demonstrations(path).records == [Demonstration(Prompt.of("Hi"), "Hello")]


def test_byte_order_mark_line_separators_and_gzip_whatever_the_name(tmp_path):
    prompt = "one\u2028two\x85three\x0bfour"
    text = "\ufeff" + json.dumps({"prompt": prompt}, ensure_ascii=False) + "\r\n\r\n" + json.dumps({"prompt": "b"})
    for name, content in (("f.jsonl", text.encode()), ("g.jsonl", gzip.compress(text.encode()))):
        (tmp_path / name).write_bytes(content)
        assert [p.text for p in read_prompts(tmp_path / name).records] == [prompt, "b"]


# Writing

texts = st.text(st.characters(codec=None), min_size=1, max_size=20).filter(str.strip)  # lone surrogates included
labelers = st.none() | st.text(max_size=5)
groups = st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)
any_prompt = st.builds(Prompt, st.lists(st.builds(Message, st.sampled_from(["system", "user"]), texts),
                                        min_size=1, max_size=3).map(tuple), use_case=st.none() | texts,
                       kind=st.sampled_from(["plain", "few_shot", "user"]), tags=st.lists(texts, max_size=2).map(tuple))
demonstrations = st.builds(Demonstration, any_prompt, texts, labelers, groups)
choices = st.integers(2, 5).flatmap(lambda n: st.builds(
    Choice, any_prompt, st.tuples(*[st.text(max_size=9)] * n), st.tuples(*[st.integers(1, n)] * n), labelers, groups,
    st.sampled_from(["ranking", "use"])))


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(any_prompt, min_size=1, max_size=4) | st.lists(demonstrations, min_size=1, max_size=4)
       | st.lists(choices, min_size=1, max_size=4), name=st.sampled_from(["f.jsonl", "f.jsonl.gz"]))
def test_what_is_written_is_read(tmp_path_factory, rows, name):
    path = tmp_path_factory.getbasetemp() / name
    assert write_jsonl(path, rows) == len(rows)
    assert read(path).records == rows


def test_equal_rows_give_equal_bytes(tmp_path):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_jsonl(tmp_path / name, [GOOD])
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


@pytest.mark.parametrize("name", ["f.jsonl", "f.jsonl.gz"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, name):
    path = tmp_path / name
    write_jsonl(path, [GOOD])
    before = path.read_bytes()

    real = Path.open

    def open_full(self, mode="r", **more):
        if "x" in mode:
            real(self, mode).close()
            return Path("/dev/full").open("wb")
        return real(self, mode, **more)

    monkeypatch.setattr(files.Path, "open", open_full)
    with pytest.raises(UserError, match="No space left on device"):
        write_jsonl(path, [GOOD] * 20_000)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_writer_that_fails_midway_leaves_what_was_there(tmp_path):
    path = tmp_path / "f.jsonl"
    write_jsonl(path, [GOOD])

    def rows():
        yield GOOD
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, rows())
    assert len(read(path).records) == 1
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(UserError, match="could not be written"):
        write_jsonl(path / "below-a-file.jsonl", [GOOD])
