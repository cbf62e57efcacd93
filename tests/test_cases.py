"""Files people of this field have: each comes in as what it says, or is refused with what was found. Inputs in cases/files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harken.cli import main as cli
from harken.core.errors import UserError
from harken.core.records import Choice, Judgment
from harken.store.database import open_database
from harken.store.files import Reader, read, read_comparisons, read_demonstrations, read_prompts
from harken.store.shapes import read_row

FILES = Path(__file__).parent / "cases" / "files"
RIVER, NILE, GO = "Name a river.", "The Nile.", "No idea, go away."


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def pair(prompt, *options, ranks=(1, 2), **more):
    return {"prompt": prompt, "completions": list(options), "ranks": list(ranks), **more}


def thumb(prompt, completion, label, **more):
    return {"prompt": prompt, "completion": completion, "label": label, **more}


QUESTION = "Name a river in Egypt."
RIGHT = {
    # A: no prompt is invented
    "lf_alpaca_dpo": [pair("Name a river\n\nEgypt", NILE, "The Thames.")],
    "rl2_dpo": [pair([system("Be terse."), user(QUESTION)], NILE, "The Thames.")],
    "chosen_rejected_json_string": [pair("Hi", "Yo", "No")],
    # B: a bad answer is no demonstration
    "kto_int_label": [thumb(RIVER, NILE, True), thumb(RIVER, GO, False)],
    "kto_messages": [thumb(RIVER, GO, False)],
    "kto_alpaca_tag": [thumb(RIVER, GO, False)],
    "messages_feedback": [thumb(RIVER, GO, False)],
    "feedback_log": [thumb(RIVER, "No.", False, labeler="u1")],
    "own_ratings": [{"prompt": RIVER, "completion": "Go away.", "score": 1, "labeler": "ann"},
                    {"prompt": RIVER, "completion": NILE, "score": 7, "labeler": "ann"}],
    "prompt_completion_rating": [{"prompt": RIVER, "completion": GO, "score": 1}],
    # C: judgments beside a prompt
    "alpacafarm": [pair(RIVER, "No.", "Nile.", ranks=(2, 1))],
    "argilla_chatml": [pair(RIVER, "Nile", "No")],
    "helpsteer3": [pair(RIVER, "Nile", "No", strength=3)],
    "openai_pref": [pair(RIVER, NILE, "No.")],
    # D: the first row does not decide what the others are
    "trl_ties_tie_first": [pair("Name a sea.", "y", "z", ranks=(1, 1), labeler="bob"),
                           pair("Name a sea.", "x", "y", labeler="bob")],
    "trl_ties_tie_last": [pair("Name a sea.", "x", "y", labeler="bob"),
                          pair("Name a sea.", "y", "z", ranks=(1, 1), labeler="bob")],
    # E: what stands beside the shape
    "system_prompt_pair": [pair([system("Answer in French."), user("Good morning?")], "Bonjour.", "Hello.")],
    "anthropic_system": [{"prompt": [system("Answer in French."), user("Good morning?")], "completion": "Bonjour."}],
    "prompt_system_completion": [{"prompt": [system("Be terse."), user("Hi")], "completion": "Yo"}],
    "instruction_system": [{"prompt": [system("Be terse."), user("Hi")], "completion": "Yo"}],
    "alpaca_system_history": [{"prompt": [system("Answer in km."), user(QUESTION), bot(NILE), user("And its length?")],
                               "completion": "6650 km."}],
    "strength": [pair("Q", "a", "b", strength=3, labeler="x")],
    "worker": [pair("Q", "a", "b", labeler="w1"), pair("Q", "a", "b", ranks=(2, 1), labeler="w2")],
    "labeler_other_names": [pair("Q", "a", "b", labeler="u7"), pair("Q", "b", "a", labeler="u8")],
    "labeler_int": [pair("Q", "a", "b", labeler="7")],
    "oai_tool_null": [{"prompt": [user("Weather?"), {**bot(""), "tool_calls": [{"id": "1"}]},
                                  {"role": "tool", "content": "20C", "tool_call_id": "1"}], "completion": "It is 20C."}],
    # F: a prompt repeated before both answers
    "hh_prompt_and_full": [pair(RIVER, NILE, "No.")],
    "prompt_in_chosen": [pair(QUESTION, NILE, "The Thames.")],
    # G: every turn is kept
    "trailing_user": [{"prompt": [user("Hi"), bot("Hello"), user(QUESTION)]}],
    # Texts that hold turns
    "hh_system": [pair([system("Be terse."), user("Hi")], "Yo", "No")],
    "trl_chatml_text": [pair(RIVER, NILE, "No.")],
    "sharegpt": [{"prompt": [system("Be terse."), user("Hi")], "completion": "Hello"}],
    "completions_msgs": [pair("Q", "a", "b")],
    "ranks_float": [pair("Q", "Nile", "No")],
    # Containers
    "own_c.parquet": None, "hf_arrow.arrow": None, "csv_gz.csv.gz": None, "csv_as_txt.txt": [pair("Q", "a", "b")],
    "bz2.jsonl.bz2": None,
}
REFUSED = {
    "null_prompt": '"prompt" is null', "pairs_with_tie_label": '"label" holds a verdict', "reversed_flag": '"is_flipped"',
    "best_of_answers": '"preference" holds a verdict', "helpsteer1": '"helpfulness", "verbosity" hold verdicts',
    "instructgpt_sample": '"ranking" holds a verdict', "argilla_ft_old": '"rating" must be a number',
    "images_lost": '"images" belongs to the prompt', "oai_tool_text": "tool_calls",
    "pku": "more than one verdict: better_response_id, safer_response_id", "stepwise": "verdicts on steps",
    "chosen_multi_turn": "exactly one assistant message", "empty_chosen": '"chosen" is empty',
    "dup_keys_ranks": '"ranks" stands twice', "nan_meta": "NaN is no JSON value", "oasst_flat": "one message of a tree",
    "pairs_first_no_rejected": "a row of comparisons in a file of prompts",
    "messages_first_no_answer": "a row of demonstrations in a file of prompts",
    "array_broken_mid.json": "the array is broken", "cr_only_jsonl": "end with a carriage return alone",
    "html_error": "web page", "jsonl_comma_sep": "separated by commas", "pretty_objects_jsonl": "object goes over several lines",
}
SKIPPABLE = ("argilla_ft_old", "chosen_multi_turn", "dup_keys_ranks", "nan_meta", "array_broken_mid.json", "oai_tool_text",
             "stepwise", "empty_chosen", "null_prompt", "oasst_flat")
"""Where leaving the row out is a choice one may make; in all other cases it would lose a judgment, or all of them."""


def path_of(name):
    return FILES / (name if "." in name else f"{name}.jsonl")


def test_every_case_is_here():
    assert {p.name for p in FILES.iterdir()} == {path_of(name).name for name in (*RIGHT, *REFUSED)}


@pytest.mark.parametrize("name", [n for n, rows in RIGHT.items() if rows])
def test_a_case_is_read_as_what_it_says(name):
    assert [record.to_json() for record in read(path_of(name)).records] == RIGHT[name]


@pytest.mark.parametrize("name", REFUSED)
def test_a_case_is_refused_with_what_was_found_and_what_to_do(name, tmp_path, capsys):
    with pytest.raises(UserError) as error:
        read(path_of(name))
    assert REFUSED[name] in error.value.fact and error.value.action
    assert cli.main(["import", str(path_of(name)), "--db", str(tmp_path / "f.db")]) == 2
    assert REFUSED[name] in " ".join(capsys.readouterr().err.split()) and not list(tmp_path.iterdir()), "no new empty database"
    if name not in SKIPPABLE:
        assert "--skip-bad" not in error.value.action
        with pytest.raises(UserError):
            read(path_of(name), skip_bad=True)


@pytest.mark.parametrize("name", ["own_ratings", "kto_int_label", "kto_messages", "kto_alpaca_tag", "messages_feedback",
                                  "prompt_completion_rating", "feedback_log", "best_of_answers", "helpsteer1", "trailing_user"])
def test_an_answer_that_was_judged_is_never_a_demonstration(name):
    with pytest.raises(UserError):
        read_demonstrations(path_of(name))


@pytest.mark.parametrize("name", [n for n in (*RIGHT, *REFUSED) if n not in ("own_c.parquet", "hf_arrow.arrow")])
def test_comparisons_that_are_asked_for_come_or_the_file_is_refused(name):
    """Whatever the first row looks like: no row is reduced to its prompt."""
    try:
        found = read_comparisons(path_of(name)).records
    except UserError:
        return
    assert found and all(isinstance(record, Choice) for record in found)


def test_the_prompts_of_judged_rows_may_be_asked_for():
    assert [p.text for p in read_prompts(path_of("trl_ties_tie_first")).records] == ["Name a sea."] * 2
    assert [p.text for p in read_prompts(path_of("helpsteer1")).records] == [RIVER]
    assert read_prompts(path_of("trailing_user")).records[0].text == QUESTION
    with pytest.raises(UserError, match="images"):
        read_prompts(path_of("images_lost"))


# The whole kind of each cause: the same fault in other clothes

@pytest.mark.parametrize("field", ["winner", "label", "preference", "tie_label", "better", "is_reversed", "swapped",
                                   "human_label", "annotator_vote", "finalVerdict", "kto_tag", "thumbs_up", "judgment", "status"])
@pytest.mark.parametrize("row", [{"prompt": "Q", "chosen": "a", "rejected": "b"}, {"prompt": "Q", "completion": "a"},
                                 {"prompt": "Q"}, {"messages": [user("Q"), bot("a")]}, {"instruction": "Q", "output": "a"}])
def test_a_verdict_that_is_not_read_is_refused_or_read(row, field):
    try:
        (record,) = read_row(row | {field: "no"}).records
    except ValueError as error:
        assert field in str(error)
    else:
        assert isinstance(record, Judgment) and record.kind == "thumb", f"{field} was lost"


@pytest.mark.parametrize("field", ["question", "instruction", "query", "history", "context", "images", "original_prompt",
                                   "dialogue"])
def test_a_second_prompt_field_is_refused(field):
    with pytest.raises(ValueError, match=f'"{field}"'):
        read_row({"prompt": "Q", "chosen": "a", "rejected": "b", field: "More of it?"})


@pytest.mark.parametrize("name", ["responses", "response_a", "outputs", "candidates", "model_answer", "generation"])
def test_answers_beside_a_prompt_are_not_lost(name):
    with pytest.raises(ValueError, match=f'"{name}"'):
        read_row({"prompt": "Q", name: ["a", "b"]})
    assert read_row({"prompt": "Q", name: ["a", "b"]}, asked="prompts").unread == [name]


def test_what_is_harmless_is_counted():
    found = read_row({"prompt": "Q", "chosen": "a", "rejected": "b", "margin": 0.3, "source": "x", "label_source": "y",
                      "empty": ""})
    assert found.unread == ["label_source", "margin", "source"]
    assert read_row({"prompt": "Q", "answer": "42", "target": 3}).unread == ["answer", "target"]


def test_scores_that_contradict_a_preference_are_noted():
    row = {"prompt": "Q", "chosen": "a", "rejected": "b", "score_chosen": 3.0, "score_rejected": 8.0}
    assert read_row(row).notes == ["score_rejected is higher than score_chosen"] and read_row(row).records[0].ranks == (1, 2)
    repeated = row | {"messages": [user("Q"), bot("a")]}
    assert "messages" in read_row(repeated).unread, "UltraFeedback repeats the chosen answer there: nothing is lost"


# The importers, both directions of each

@pytest.mark.parametrize(("row", "field", "verdicts"), [
    ({"history": "Q", "human_ref_A": "a", "human_ref_B": "b", "score_A": 3, "score_B": 9, "post_id": "x"}, "labels",
     {1: (1, 2), 0: (2, 1)}),
    ({"prompt": "Q", "response_0": "a", "response_1": "b"}, "better_response_id", {0: (1, 2), 1: (2, 1)}),
    ({"instruction": "Q", "input": "", "output_1": "a", "output_2": "b"}, "preference", {1: (1, 2), 2: (2, 1), 1.5: (1, 1)}),
    ({"prompt": "Q", "response_a": "a", "response_b": "b"}, "winner",
     {"model_a": (1, 2), "B": (2, 1), "tie": (1, 1), "tie (bothbad)": (1, 1), "response_b": (2, 1)}),
    ({"prompt": "Q", "completion_a": "a", "completion_b": "b"}, "tie", {True: (1, 1)}),
    ({"context": [user("Q")], "response1": "a", "response2": "b"}, "overall_preference", {-3: (1, 2), 0: (1, 1), 2: (2, 1)}),
    ({"prompt": "Q", "response_1": "a", "response_2": "b", "preference_statement": "x"}, "preference_strength",
     {-1: (1, 2), 0: (1, 1), 3: (2, 1)}),
    ({"conversation_a": [user("Q"), bot("a")], "conversation_b": [user("Q"), bot("b")], "model_a": "m"}, "winner",
     {"model_a": (1, 2), "model_b": (2, 1), "tie": (1, 1), "tie (bothbad)": (1, 1)}),
    ({"info": {"post": "Q", "id": "t3"}, "summaries": [{"text": "a"}, {"text": "b"}], "worker": "w"}, "choice",
     {0: (1, 2), 1: (2, 1)}),
])
def test_two_answers_and_a_verdict(row, field, verdicts):
    for verdict, ranks in verdicts.items():
        (choice,) = read_row(row | {field: verdict}).records
        assert (choice.options, choice.ranks, choice.prompt.text) == (("a", "b"), ranks, "Q"), verdict
    for nothing in ("unclear", None):
        with pytest.raises(ValueError):
            read_row(row | {field: nothing})


@pytest.mark.parametrize("names", [("chosen", "rejected"), ("chosen_response", "rejected_response"),
                                   ("response_j", "response_k")])
def test_the_better_answer_is_the_first_of_the_pair_whatever_the_order_of_fields(names):
    for row in ({names[0]: "a", names[1]: "b", "question": "Q"}, {"question": "Q", names[1]: "b", names[0]: "a"}):
        assert read_row(row).records[0].to_json() == pair("Q", "a", "b")


def test_published_sets_with_scores():
    webgpt = {"question": {"full_text": "Q", "dataset": "eli5"}, "answer_0": "a", "answer_1": "b", "quotes_0": {"title": ["x"]},
              "tokens_0": {"prefix": []}}
    for scores, ranks in (((1, -1), (1, 2)), ((-0.5, 0.5), (2, 1)), ((0, 0), (1, 1))):
        assert read_row(webgpt | {"score_0": scores[0], "score_1": scores[1]}).records[0].ranks == ranks
    nectar = {"prompt": "\n\nHuman: Q\n\nAssistant: ", "answers": [{"answer": "a", "model": "m", "rank": 2.0},
                                                                   {"answer": "b", "model": "n", "rank": 1.0}], "turns": 1}
    assert read_row(nectar).records[0].to_json() == pair("Q", "a", "b", ranks=(2, 1))
    ultra = {"instruction": "Q", "completions": [{"response": "a", "overall_score": 5}, {"response": "b", "overall_score": 7.5},
                                                 {"response": "c", "overall_score": 5}], "models": ["x", "y", "z"]}
    assert read_row(ultra).records[0].ranks == (2, 1, 2)
    kaggle = {"prompt": '["P", "Q"]', "response_a": '["r", "a"]', "response_b": '["r", "b"]', "model_a": "x",
              "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}
    (choice,) = read_row(kaggle).records
    assert choice.to_json() == pair([user("P"), bot("r"), user("Q")], "a", "b", ranks=(2, 1))
    with pytest.raises(ValueError, match="differ before their last answer"):
        read_row(kaggle | {"response_b": '["other", "b"]'})


def test_llama_factory():
    talk = [{"from": "system", "value": "S"}, {"from": "human", "value": "Q"}]
    row = {"conversations": talk, "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}}
    assert read_row(row).records[0].to_json() == pair([system("S"), user("Q")], "a", "b")
    tools = [{"name": "w", "parameters": {"city": "str"}}]
    called = {"conversations": [{"from": "human", "value": "Q"},
                                {"from": "function_call", "value": '{"name": "w", "arguments": {}}'},
                                {"from": "observation", "value": "20C"},
                                {"from": "gpt", "value": "a"}], "tools": json.dumps(tools)}
    (shown,) = read_row(called).records
    assert [m.role for m in shown.prompt.messages] == ["user", "assistant", "tool"] and list(shown.prompt.tools) == tools
    assert shown.prompt.messages[1].extra["tool_calls"][0]["function"]["name"] == "w"
    for label in (True, False):
        kto = {"messages": [user("Q"), bot("a")], "label": label}
        assert read_row(kto).records[0].to_json() == thumb("Q", "a", label)
    parts = {"messages": [{"role": "user", "content": [{"type": "text", "value": "Q"}]},
                          {"role": "assistant", "content": [{"type": "text", "value": "a"}]}]}
    assert read_row(parts).records[0].to_json() == {"prompt": "Q", "completion": "a"}
    parts["messages"][0]["content"].append({"type": "image_url", "value": "x.png"})
    with pytest.raises(ValueError, match="image_url"):
        read_row(parts)


@pytest.mark.parametrize(("said", "yes"), [
    (True, True), (1, True), ("1", True), ("thumbs_up", True), ("Good", True), ("👍", True),
    (False, False), (0, False), (0.0, False), ("false", False), ("down", False), ("👎", False)])
@pytest.mark.parametrize("field", ["label", "feedback", "kto_tag"])
def test_thumbs(field, said, yes):
    assert read_row({"prompt": "Q", "response": "a", field: said}).records[0].payload == {"completion": "a", "label": yes}


@pytest.mark.parametrize("said", ["maybe", 2, -1, None, [True]])
def test_a_thumb_that_says_neither_is_refused(said):
    with pytest.raises(ValueError, match='"label"'):
        read_row({"prompt": "Q", "completion": "a", "label": said})


@pytest.mark.parametrize("prompt", ["\n\nHuman: Hi\n\nAssistant: Yo\n\nHuman: Q\n\nAssistant:",
                                    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
                                    "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"])
def test_one_rule_for_dialogues_in_all_kinds(prompt):
    turns = [user("Hi"), bot("Yo"), user("Q")]
    rows = [{"prompt": prompt}, {"prompt": prompt, "completion": "a"}, {"prompt": prompt, "chosen": "a", "rejected": "b"},
            {"prompt": prompt, "completions": ["a", "b"], "ranks": [1, 2]}, {"instruction": prompt, "output": "a"},
            {"prompt": prompt, "completion": "a", "score": 3}]
    ids = {getattr(record, "prompt", record).id for row in rows for record in read_row(row).records}
    assert len(ids) == 1
    assert read_row(rows[0]).records[0].to_json() == {"prompt": turns}


@pytest.mark.parametrize("text", ["User: Hi\nAssistant: Yo", "USER: Hi\n\nASSISTANT:", "<s>[INST] Hi [/INST]",
                                  "### Instruction:\nHi\n\n### Response:\n", "<start_of_turn>user\nHi<end_of_turn>\n"])
def test_dialogues_in_a_models_format_are_refused(text):
    for row in ({"prompt": text}, {"prompt": text, "completion": "a"}, {"prompt": text, "chosen": "a", "rejected": "b"},
                {"chosen": f"{text} yes", "rejected": f"{text} no"}):
        with pytest.raises(ValueError, match="chat format"):
            read_row(row)


def test_a_prompt_that_both_answers_repeat_is_taken_off_both_and_else_off_none():
    both = {"prompt": "What is it?", "chosen": "What is it?\nA dog", "rejected": "What is it? A cat"}
    assert read_row(both).records[0].options == ("A dog", "A cat")
    one = {"prompt": "What is it?", "chosen": "What is it? A dog.", "rejected": "A cat"}
    assert read_row(one).records[0].options == ("What is it? A dog.", "A cat")
    word = {"prompt": "I", "chosen": "I think so", "rejected": "I do not"}
    assert read_row(word).records[0].options == ("I think so", "I do not"), "one word repeated is no prompt repeated"
    part = {"prompt": "one two three", "chosen": "one two threefold", "rejected": "one two threesome"}
    assert read_row(part).records[0].options == ("one two threefold", "one two threesome")


@pytest.mark.parametrize("row", [
    {"messages": [user("Q"), {"role": "assistant", "content": "a", "weight": 0}]},
    {"messages": [user("Q"), {"role": "oracle", "content": "a"}]},
    {"messages": [user("Q"), {**bot("a"), "rating": 1}]},
    {"messages": [user("Q"), {**bot("a"), "reasoning_content": "hm"}]},
    {"messages": [user("Q"), {"role": "assistant", "content": None}]},
    {"prompt": "Q", "completion": ""}, {"prompt": None}, {"prompt": "Q", "completion": None},
    {"prompt": "Q", "chosen": "a", "rejected": None}, {"prompt": "Q", "chosen": " ", "rejected": "b"},
    {"prompt": "Q", "completion_a": "a", "completion_b": "b"},
    {"prompt": "Q", "completion_a": "a", "completion_b": "b", "tie": False},
    {"prompt": "Q", "completions": ["a", "b"], "ranks": [1.5, 2]},
    {"prompt": "Q", "completions": ["a", "b"], "ranks": ["1", "2"]},
    {"prompt": "Q", "completions": ["a", "b"], "ranks": [True, 2]}, {"prompt": "Q", "completions": ["a", "b"], "ranks": [0, 1]},
    {"system": "A", "messages": [system("B"), user("Q"), bot("a")]}, {"prompt": "Q", "completion": "a", "score": "4/5"},
])
def test_refused(row):
    with pytest.raises(ValueError):
        read_row(row)


def test_two_verdicts_are_chosen_between(tmp_path):
    """PKU-SafeRLHF says which answer is more helpful and which is safer."""
    unread = ("safer_response_id", "is_response_0_safe", "is_response_1_safe")
    assert [r.to_json() for r in Reader(path_of("pku"), ignore=unread)] == [pair(RIVER, "No.", "Nile.", ranks=(2, 1))]
    other = ("better_response_id", "is_response_0_safe", "is_response_1_safe")
    reader = Reader(path_of("pku"), ignore=other, fields={"preference": "safer_response_id"})
    assert [r.to_json() for r in reader] == [pair(RIVER, "No.", "Nile.", ranks=(1, 2))]


def test_the_command_maps_columns_and_says_what_it_left(tmp_path, capsys):
    path, db = tmp_path / "own.csv", str(tmp_path / "f.db")
    path.write_text("task,good,bad,margin,who\nQ,a,b,3,7\nR,c,d,4,8\n")
    mapped = ["--field", "prompt=task", "--field", "chosen=good", "--field", "rejected=bad"]
    assert cli.main(["import", str(path), "--db", db, *mapped, "--field", "labeler=who"]) == 0
    out = capsys.readouterr().out
    assert "Stored 2 comparisons" in out and "Fields not read: margin (2)" in out
    with open_database(db) as found:
        assert [c.to_json() for c in found.comparisons()] == [pair("Q", "a", "b", labeler="7"), pair("R", "c", "d", labeler="8")]
    for words, told in ((["--field", "prompt"], "does not name columns"), (["--field", "prompt=none"], "no known shape"),
                        ([*mapped, "--field", "system=s"], "'s'")):
        assert cli.main(["import", str(path), "--db", str(tmp_path / "new.db"), *words]) == 2
        assert told in capsys.readouterr().err and not (tmp_path / "new.db").exists()


def test_a_shape_of_your_own_is_a_function(tmp_path, capsys, monkeypatch):
    (tmp_path / "my_lab_shapes.py").write_text(
        "from harken.core.records import Choice, Prompt\n"
        "def read(row):\n    return Choice(Prompt.of(row['q']), (row['x'], row['y']), (1, 2) if row['v'] > 0 else (2, 1))\n"
        "def wrong(row):\n    return ['text']\n")
    (tmp_path / "odd.jsonl").write_text('{"q": "Q", "x": "a", "y": "b", "v": -1}\n')
    monkeypatch.chdir(tmp_path)
    command = ["import", "odd.jsonl", "--db", "f.db", "--shape"]
    for name, told in (("my_lab_shapes:wrong", "returned a str"), ("none.such:read", "none"),
                       ("my_lab_shapes", "names no function")):
        assert cli.main([*command, name]) == 2 and told in capsys.readouterr().err
    assert cli.main([*command, "my_lab_shapes:read"]) == 0
    with open_database("f.db") as db:
        assert [c.to_json() for c in db.comparisons()] == [pair("Q", "a", "b", ranks=(2, 1))]
