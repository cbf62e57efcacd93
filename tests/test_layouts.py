"""Published data sets and fine-tuning files, a tiny invented row in each layout: it comes in as what it says, from JSON Lines,
CSV and Parquet alike, or is refused with what was found. Layouts: the data sets' cards and their loaders' sources."""

from __future__ import annotations

import csv
import json

import pytest

from harken.core.errors import UserError
from harken.core.records import Choice, Prompt
from harken.store import shapes
from harken.store.files import Reader, read
from harken.store.shapes import NAMES, read_row
from harken.store.shapes.plain import plain_comparison

Q, YES, NO, TERSE = "Name a river in Egypt.", "The Nile.", "The Thames.", "Be terse."


def user(text=Q):
    return {"role": "user", "content": text}


def bot(text=YES):
    return {"role": "assistant", "content": text}


def system(text=TERSE):
    return {"role": "system", "content": text}


def said(who, text):
    return {"from": who, "value": text}


def won(prompt=Q, first=NO, second=YES, ranks=(2, 1), **more):
    return {"prompt": prompt, "completions": [first, second], "ranks": list(ranks), **more}


BEST_FIRST = won(first=YES, second=NO, ranks=(1, 2))
SHOWN = {"prompt": Q, "completion": YES}
TWO = {"prompt": [user(), bot(), user("More?")], "completion": "No."}
WITH_SYSTEM = {"prompt": [system(), user()], "completion": YES}
ARENA = {"question_id": "q", "model_a": "x", "model_b": "y", "winner": "model_b", "judge": "ann", "language": "English",
         "anony": True, "turn": 1, "tstamp": 1.5}
ONE_A, ONE_B = {"conversation_a": [user(), bot(NO)]}, {"conversation_b": [user(), bot()]}
LONG_A, LONG_B = ({f"conversation_{k}": [user(), bot(t), user("More?"), bot(t)]} for k, t in (("a", NO), ("b", YES)))

READ = {
    "SHP": ({"post_id": "x", "domain": "cooking", "upvote_ratio": 0.98, "history": Q, "c_root_id_A": "a", "c_root_id_B": "b",
             "score_A": 30, "score_B": 5, "human_ref_A": NO, "human_ref_B": YES, "labels": 0, "score_ratio": 6.0}, won()),
    "UltraFeedback": ({"source": "s", "instruction": Q, "models": ["m", "n"], "correct_answers": ["None"], "completions": [
        {"model": "m", "response": NO, "overall_score": 2.0, "custom_system_prompt": "Lie.", "critique": "c"},
        {"model": "n", "response": YES, "overall_score": 8.5, "custom_system_prompt": TERSE, "critique": "c"}]}, won()),
    "UltraFeedback binarized": ({"prompt": Q, "prompt_id": "1", "chosen": [user(), bot()], "rejected": [user(), bot(NO)],
                                 "messages": [user(), bot()], "score_chosen": 8.0, "score_rejected": 3.0}, BEST_FIRST),
    "UltraFeedback of Argilla": ({"instruction": Q, "chosen_response": YES, "rejected_response": NO, "chosen_avg_rating": 4.5,
                                  "rejected_avg_rating": 2.0, "chosen_model": "m"}, BEST_FIRST),
    "the same, cleaned": ({"source": "s", "prompt": Q, "chosen": [user(), bot()], "chosen-rating": 5.0, "chosen-model": "m",
                           "rejected": [user(), bot(NO)], "rejected-rating": 3.0, "rejected-model": "n"}, BEST_FIRST),
    "HelpSteer2 preference": ({"split": "train", "prompt": Q, "response_1": NO, "response_2": YES, "preference_strength": 2,
                               "preference_statement": "2 is better", "preference_elaboration": "x"},
                              won(split="train", strength=2)),
    "HelpSteer3 preference": ({"domain": "general", "language": "english", "context": [user()], "response1": YES, "response2": NO,
                               "overall_preference": -2}, BEST_FIRST | {"strength": 2}),
    "Nectar": ({"prompt": f"\n\nHuman: {Q}\n\nAssistant: ", "answers": [
        {"answer": NO, "model": "a", "rank": 2.0}, {"answer": YES, "model": "b", "rank": 1.0}], "turns": 1, "num_responses": 2,
        "good_natured": True}, won()),
    "PRISM": ({"conversation_id": "c0", "user_id": "user0", "opening_prompt": Q, "conversation_history": [
        {"turn": 0, "role": "user", "content": Q}, {"turn": 0, "role": "model", "content": NO, "score": 9, "if_chosen": False},
        {"turn": 0, "role": "model", "content": YES, "score": 90, "if_chosen": True},
        {"turn": 1, "role": "user", "content": "More?"}, {"turn": 1, "role": "model", "content": "a", "score": 5, "if_chosen": True},  # noqa: E501
        {"turn": 1, "role": "model", "content": "b", "score": 5, "if_chosen": False}], "performance_attributes": {"values": 99}},
        won(labeler="user0"), won([user(), bot(), user("More?")], "a", "b", (1, 1), labeler="user0")),
    "OASST2 tree": ({"message_tree_id": "t", "tree_state": "ready", "prompt": {"text": Q, "role": "prompter", "replies": [
        {"text": NO, "role": "assistant", "rank": 1, "replies": []},
        {"text": YES, "role": "assistant", "rank": 0, "replies": []}]}}, won()),
    "Capybara": ({"source": "s", "conversation": [{"input": Q, "output": YES}, {"input": "More?", "output": "No."}]}, TWO),
    "Orca DPO": ({"system": TERSE, "question": Q, "chosen": YES, "rejected": NO}, BEST_FIRST | {"prompt": [system(), user()]}),
    "Arena 33k": (ARENA | ONE_A | ONE_B | {"openai_moderation": {"flagged": False}, "toxic_chat_tag": {"flagged": False}},
                  won(labeler="ann")),
    "Arena 100k": (ARENA | ONE_A | ONE_B | {"conv_metadata": {"sum": 1}, "is_code": False, "is_refusal": False,
                                            "category_tag": {"if": True}, "judge_hash": "h"}, won(labeler="ann")),
    "Arena 140k": ({"id": "i", "winner": "both_bad", "evaluation_session_id": "e", "evaluation_order": 1, "conversation_a": [
        {"role": "user", "content": [{"type": "text", "text": Q}]}, {"role": "assistant", "content": [{"type": "text", "text": NO}]}],  # noqa: E501
        **ONE_B, "full_conversation": [{"user": user(), "model_side_a": bot(NO)}]}, won(ranks=(1, 1))),
    "Arena 55k": ({"id": 1, "model_a": "x", "model_b": "y", "prompt": json.dumps([Q]), "response_a": json.dumps([NO]),
                   "response_b": json.dumps([YES]), "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}, won()),
    "MT-bench, first turn": (ARENA | LONG_A | LONG_B, won(labeler="ann")),
    "WebGPT": ({"question": {"dataset": "eli5", "id": "1", "full_text": Q}, "answer_0": NO, "score_0": -0.5, "answer_1": YES,
                "score_1": 0.5, "quotes_0": {"title": ["t"]}, "tokens_0": {"prefix": [1]}}, won()),
    "summarize_from_feedback": ({"info": {"id": "i", "post": Q, "title": "T"}, "summaries": [{"text": f" {NO}", "policy": "p"},
        {"text": f" {YES}", "policy": "p"}], "choice": 1, "worker": "w", "extra": {"confidence": 7}},
        won(f"T\n\n{Q}", labeler="w")),
    "Stack Exchange, paired": ({"qid": 1, "question": Q, "date": "d", "metadata": ["u"], "response_j": YES, "response_k": NO},
                               BEST_FIRST),
    "Stack Exchange, votes": ({"qid": 1, "question": Q, "answers": [{"pm_score": 1, "selected": False, "text": NO},
                                                                    {"pm_score": 4, "selected": True, "text": YES}]}, won()),
    "KTO": ({"prompt": [user()], "completion": [bot(NO)], "label": False}, {"prompt": Q, "completion": NO, "label": False}),
    "PKU, one verdict": ({"prompt": Q, "response_0": NO, "response_1": YES, "better_response_id": 1}, won()),
    "Skywork": ({"chosen": [user(), bot()], "rejected": [user(), bot(NO)], "source": "magpie"}, BEST_FIRST),
    "Tülu SFT": ({"id": "i", "messages": [system(), user(), bot()], "source": "x"}, WITH_SYSTEM),
    "Tülu preferences": ({"id": "i", "prompt": Q, "chosen": [user(), bot()], "rejected": [user(), bot(NO)], "chosen_rating": 4.75,
                          "rejected_rating": 2.0}, BEST_FIRST),
    "ShareGPT": ({"id": "x_0", "conversations": [said("human", Q), said("gpt", YES), said("human", "More?"), said("gpt", "No.")]},
                 TWO),
    "Alpaca": ({"instruction": Q, "input": "", "output": YES, "text": "Below is an instruction … ### Response: y"}, SHOWN),
    "Dolly": ({"instruction": Q, "context": "It is dry.", "response": YES, "category": "qa"}, SHOWN | {"prompt": f"{Q}\n\nIt is dry."}),  # noqa: E501
    "no_robots": ({"prompt": Q, "prompt_id": "x", "messages": [system(), user(), bot()], "category": "Chat"}, WITH_SYSTEM),
    "FLAN": ({"inputs": Q, "targets": YES, "task": "t", "template_type": "zs"}, SHOWN),
    "MATH": ({"problem": Q, "solution": YES, "level": "Level 1", "type": "Algebra"}, SHOWN),
    "OpenOrca": ({"id": "f", "system_prompt": TERSE, "question": Q, "response": YES}, WITH_SYSTEM),
    "ToolACE": ({"system": TERSE, "conversations": [said("user", Q), said("assistant", "[f()]"), said("tool", "1"),
                                                    said("assistant", YES)]},
                {"prompt": [system(), user(), bot("[f()]"), {"role": "tool", "content": "1"}], "completion": YES}),
    "Hermes tools": ({"id": "x", "conversations": [said("human", Q), said("gpt", YES)], "tools": '[{"name": "f"}]', "task": "t"},
                     SHOWN | {"tools": [{"name": "f"}]}),
    "RewardBench": ({"prompt": Q, "chosen": YES, "chosen_model": "m", "rejected": NO, "rejected_model": "n", "subset": "easy",
                     "id": 0}, BEST_FIRST),
    "DPO in English and Chinese": ({"system": "", "history": [], "question": Q, "response_chosen": YES, "response_rejected": NO},
                                   BEST_FIRST),
    "AlpacaEval": ({"instruction": Q, "output_1": NO, "generator_1": "a", "output_2": YES, "generator_2": "b",
                    "annotator": "weighted", "preference": 1.9999}, won(labeler="weighted")),
    "JudgeBench": ({"pair_id": "p", "question": Q, "response_model": "g", "response_A": NO, "response_B": YES, "label": "B>A"}, won()),  # noqa: E501
    "Arena-Hard": ({"question": Q, "answer_a": NO, "answer_b": YES, "verdict": "[[A<<B]]"}, won()),
    "a chosen letter": ({"instruction": Q, "response_a": NO, "response_b": YES, "chosen": "B"}, won()),
    "NeMo SFT": ({"system": TERSE, "mask": "User", "conversations": [said("User", Q), said("Assistant", YES)]}, WITH_SYSTEM),
    "Cohere chat": ({"messages": [{"role": "System", "content": TERSE}, {"role": "User", "content": Q},
                                  {"role": "Chatbot", "content": YES}]}, WITH_SYSTEM),
    "OpenAI with weights": ({"messages": [user("Hi"), bot("Ho") | {"weight": 0}, user(), bot() | {"weight": 1}]},
                            {"prompt": [user("Hi"), bot("Ho"), user()], "completion": YES}),
    "OpenAI preference": ({"input": {"messages": [user()]}, "preferred_output": [bot()], "non_preferred_output": [bot(NO)]},
                          BEST_FIRST),
    "Vertex": ({"systemInstruction": {"role": "system", "parts": [{"text": TERSE}]}, "contents": [
        {"role": "user", "parts": [{"text": Q}]}, {"role": "model", "parts": [{"text": YES}]}]}, WITH_SYSTEM),
    "Vertex preference": ({"contents": [{"role": "user", "parts": [{"text": Q}]}], "completions": [
        {"score": 0.0, "completion": {"role": "model", "parts": [{"text": NO}]}},
        {"score": 1.0, "completion": {"role": "model", "parts": [{"text": YES}]}}]}, won()),
    "Bedrock": ({"schemaVersion": "bedrock-conversation-2024", "system": [{"text": TERSE}], "messages": [
        {"role": "user", "content": [{"text": Q}]}, {"role": "assistant", "content": [{"text": YES}]}]}, WITH_SYSTEM),
    "WildChat": ({"conversation_hash": "h", "conversation": [user() | {"toxic": False, "redacted": False},
                                                             bot() | {"toxic": False, "redacted": False}], "toxic": False}, SHOWN),  # noqa: E501
    "a table's capital names": ({"Prompt": Q, "Chosen": YES, "Rejected": NO, "Source": "x"}, BEST_FIRST),
}


def written(tmp_path, row, container):
    path = tmp_path / f"rows.{container}"
    if container == "jsonl":
        path.write_text(json.dumps(row) + "\n")
    elif container == "csv":
        cells = {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()}
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(cells))
            table.writeheader()
            table.writerow(cells)
    else:
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist([row]), path)
    return path


@pytest.mark.parametrize("container", ["jsonl", "csv", "parquet"])
def test_a_published_layout_is_read_as_what_it_says(tmp_path, container):
    wrong = {}
    for name, (row, *expected) in READ.items():
        try:
            rows = [record.to_json() for record in read(written(tmp_path, row, container)).records]
        except UserError as error:
            rows = str(error)
        if rows != expected:
            wrong[name] = rows
    assert not wrong


REFUSED = {
    "HelpSteer": ({"prompt": Q, "response": YES, "helpfulness": 4, "correctness": 4, "verbosity": 1}, "correctness"),
    "HelpSteer3 feedback": ({"context": [user()], "response1": YES, "response2": NO, "feedback1": ["good"]}, "without a verdict"),
    "HelpSteer3 edits": ({"context": [user()], "original_response": NO, "edited_response": YES}, "no known shape"),
    "PRISM utterances": ({"user_prompt": Q, "model_response": YES, "score": 90, "if_chosen": True}, "no known shape"),
    "OASST flat": ({"message_id": "m", "text": Q, "role": "prompter", "rank": 0, "message_tree_id": "m"}, "one message of a tree"),  # noqa: E501
    "Guanaco": ({"text": "### Human: hi### Assistant: hello"}, "no known shape"),
    "Argilla 1 records": ({"fields": {"prompt": Q}, "responses": [{"values": {"rating": {"value": 1}}}]}, "no known shape"),
    "Argilla 1 on a hub": ({"prompt": Q, "response": YES, "rating": [{"user_id": "u", "value": 1, "status": "submitted"}]}, "rating"),  # noqa: E501
    "Argilla 2 on a hub": ({"prompt": Q, "response": YES, "quality.responses": [1], "quality.responses.users": ["u"]},
                           "quality.responses"),
    "Argilla, discarded": ({"prompt": Q, "completion": YES, "status": "discarded"}, "status"),
    "Orca of Argilla, a tie": ({"input": Q, "chosen": YES, "rejected": NO, "status": "tie"}, "status"),
    "Label Studio": ({"id": 1, "data": {"prompt": Q}, "annotations": [{"result": []}]}, "no known shape"),
    "Label Studio, short": ({"id": 1, "prompt": Q, "answer1": YES, "answer2": NO, "annotation_id": 1, "preference": "left"}, "left"),  # noqa: E501
    "Label Studio, stars": ({"prompt": Q, "response": YES, "annotation_id": 1, "stars": [{"rating": 2}]}, "stars"),
    "MT-bench, second turn": (ARENA | LONG_A | LONG_B | {"turn": 2}, "several turns"),
    "summaries by axis": ({"info": {"post": Q}, "summary": {"text": YES, "axes": {"overall": 7}}, "worker": "w"}, "no known shape"),  # noqa: E501
    "TL;DR with label": ({"prompt": Q, "label": YES}, "label"),
    "BeaverTails, unsafe": ({"prompt": Q, "response": NO, "category": {"x": False}, "is_safe": False}, "is_safe"),
    "PKU-SafeRLHF": ({"prompt": Q, "response_0": NO, "response_1": YES, "better_response_id": 1, "safer_response_id": 0},
                     "more than one verdict"),
    "LIMA": ({"conversations": [Q, YES], "source": "s"}, "do not say who speaks"),
    "RewardBench 2": ({"prompt": Q, "chosen": [YES], "rejected": [NO, "x"], "num_correct": 1}, "chosen"),
    "PRM800K": ({"labeler": "l", "question": {"problem": Q}, "label": {"steps": []}}, "no known shape"),
    "PRM of TRL": ({"prompt": Q, "completions": ["a", "b"], "labels": [True, False]}, "verdicts on steps"),
    "Math-Shepherd": ({"input": Q, "label": "+", "task": "GSM8K"}, "no known shape"),
    "red teaming": ({"transcript": "\n\nHuman: hi\n\nAssistant: no", "rating": 0.0, "is_upworker": False}, "no known shape"),
    "ToxicChat": ({"user_input": Q, "model_output": YES, "toxicity": 0, "human_annotation": True}, "no known shape"),
    "DICES": ({"rater_id": "r", "context": "USER: a\nLAMDA: b", "response": "d", "Q_overall": "No"}, "no known shape"),
    "xLAM": ({"query": Q, "answers": '[{"name": "f"}]', "tools": '[{"name": "f"}]'}, "no known shape"),
    "OpenAI, weight 0": ({"messages": [user(), bot() | {"weight": 0}]}, "weight 0"),
    "Feedback Collection": ({"instruction": "Judge.", "output": "bad", "orig_instruction": Q, "orig_score": "2"}, "orig_instruction"),  # noqa: E501
    "ratings in lists": ({"instruction": Q, "generations": [YES, NO], "ratings": [5, 1]}, "ratings"),
    "UltraInteract": ({"task": "Math", "trajectory": [said("user", Q)], "chosen": "Step 1: yes", "rejected": "Step 1: no"},
                      "trajectory"),
    "a problem without the name prompt": ({"problem": "2+2?", "chosen": "The sum is 4", "rejected": "The sum is 5"}, "problem"),
    "SteerLM": ({"system": "s", "conversations": [said("User", Q), said("Assistant", YES) | {"label": "quality:1"}]}, "label"),
    "Langfuse": ({"id": "x", "input": Q, "output": NO, "scores": [{"name": "user", "value": 0}]}, "scores"),
    "a thought beside the answer": ({"messages": [user(), bot() | {"thinking": "Hm."}]}, "reasoning_content"),
    "LangChain's Human and AI": ({"prompt": "Human: hi\nAI: hello\nHuman: bye\nAI:", "completion": "ok"}, "turns as messages"),
    "Harmony": ({"prompt": "<|start|>user<|message|>Hi<|end|><|start|>assistant", "completion": "ok"}, "chat format"),
    "OpenChat": ({"prompt": "GPT4 Correct User: Hi<|end_of_turn|>GPT4 Correct Assistant:", "completion": "ok"}, "chat format"),
    "Baize": ({"prompt": "[|Human|] hi [|AI|] ", "completion": "ok"}, "chat format"),
    "a better one by name": ({"prompt": Q, "response_a": NO, "response_b": YES, "winner": "claude"}, "claude"),
    "labels from 0 on answers from 1": ({"prompt": Q, "response_1": NO, "response_2": YES, "label": 0}, "'0'"),
}


@pytest.mark.parametrize("container", ["jsonl", "csv", "parquet"])
def test_a_layout_that_is_not_read_is_refused_in_words(tmp_path, container):
    wrong = {}
    for name, (row, words) in REFUSED.items():
        path = written(tmp_path, row, container)
        try:
            wrong[name] = [record.to_json() for record in read(path).records]
        except UserError as error:
            if words not in str(error) or not error.action:
                wrong[name] = str(error)
    assert not wrong


@pytest.mark.parametrize("said_so", [False, True, "False", 0])
@pytest.mark.parametrize("name", ["accepted", "approved", "is_good", "correct", "helpful", "is_safe", "liked_by_user", "passed",
                                  "selected", "keep"])
def test_a_verdict_of_no_is_a_verdict(name, said_so):
    with pytest.raises(ValueError, match=f'"{name}"'):
        read_row({"prompt": Q, "completion": NO, name: said_so})


@pytest.mark.parametrize("name", ["toxic", "flagged", "tie", "is_bad", "deleted", "redacted", "is_code",
                                  "is_classification", "is_task", "open_ended"])
def test_a_fault_that_is_not_there_loses_nothing(name):
    assert read_row({"prompt": Q, "completion": YES, name: False}).unread == [name]


@pytest.mark.parametrize("name", ["pick", "decision", "outcome", "side", "annotator_says"])
def test_whatever_names_the_other_answer_is_a_verdict(name):
    for row, value in (({"prompt": Q, "chosen": YES, "rejected": NO}, "rejected"), ({"prompt": Q, "chosen": YES, "rejected": NO}, "Tie"),  # noqa: E501
                       ({"prompt": Q, "completions": [YES, NO], "ranks": [1, 2]}, "B")):
        with pytest.raises(ValueError, match=f'"{name}"'):
            read_row(row | {name: value})
    assert read_row({"prompt": Q, "chosen": YES, "rejected": NO, "source": "a", name: "web"}).unread == sorted([name, "source"])


def said(role, content):
    return [{"role": role, "content": content}]


ASK, GOOD, POOR = said("user", Q), said("assistant", YES), said("assistant", NO)
PAIR = {"prompt": Q, "chosen": YES, "rejected": NO}
MESSAGES = {"prompt": ASK, "chosen": GOOD, "rejected": POOR}
WHOLE = {"chosen": f"\n\nHuman: {Q}\n\nAssistant: {YES}", "rejected": f"\n\nHuman: {Q}\n\nAssistant: {NO}"}
SHORT = [PAIR | {"margin": 0.5, "source": ""}, won(labeler="ann", group={"age": "30"}), won(group={}),
         PAIR | {"score_chosen": 7.5, "score_rejected": 2}, PAIR | {"score_chosen": 2, "score_rejected": 7.5, "z": 1,
                 "chosen-rating": 1, "rejected-rating": 1},
         PAIR | {"prompt": ASK}, MESSAGES, MESSAGES | {"prompt": Q, "score_chosen": 1.0, "score_rejected": 0.5},
         {"chosen": ASK + GOOD, "rejected": ASK + POOR}, {"prompt": Q, "chosen": ASK + GOOD, "rejected": ASK + POOR},
         {"prompt": ASK, "chosen": ASK + GOOD + ASK + GOOD, "rejected": ASK + GOOD + ASK + POOR, "labeler": "ann"},
         {"prompt": said("system", "Be brief.") + ASK, "chosen": GOOD, "rejected": POOR},
         WHOLE, WHOLE | {"source": "web", "n": 3},
         {"chosen": f"Human: {Q}\n\nAssistant: a\n\nHuman: b\n\nAssistant: {YES}", "rejected": WHOLE["rejected"].strip()},
          WHOLE | {"prompt": Q}, WHOLE | {"prompt": WHOLE["chosen"][:-len(YES)]},
         {"prompt": WHOLE["chosen"], "chosen": YES, "rejected": NO}, PAIR | {"chosen": f"{Q} {YES}", "rejected": f"{Q} {NO}"},
         {"chosen": f"{Q} {YES}", "rejected": f"{Q} {NO}"}, won(labeler=3), won(worker="x", weight=2.0, strength=1),
         won(prompt=ASK),
         won(use_case="chat", tags=["x"], split="train", kind="few_shot", meta={"n": 1}), won(tags=[], meta=None, labeler=None),
         won(judgment_kind="edit", form_version="f1", source="b", judgment="j", flag=1), won(strength=None), WHOLE | {"user": 3},
         {"chosen": YES, "rejected": NO},
         PAIR | {"annotator_id": 7, "weight": 0, "split": "x", "form_version": "f1", "scale": [1], "score_chosen": 3,
                 "score_rejected": 2}, PAIR | {"prompt": ASK + GOOD}, PAIR | {"chosen": "Human: a\n\nAssistant: b"},
         {side: f" System: Be brief.\n\nHuman: {Q}\n\nAssistant: {side}" for side in ("chosen", "rejected")}]
LONG = [won(labeler=3.0), won(labeler="a", worker="b"), won(labeler=True), won(weight="2"), won(weight=-1), won(strength=True),
        won(tags="x"), won(tags=[1]), won(kind="other"), won(meta="x"), won(use_case=1), won(judgment_kind="best"),
        won(judgment_kind=["edit"]), PAIR | {"judgment_kind": "edit"}, won(form_version=None, source="b"), WHOLE | {"user": "x"},
        won(form_version=None, judgment="b"), won(prompt=ASK + GOOD), won(prompt=[]), won(prompt=None), won(tools=[{"a": 1}]),
        {"prompt": f"Human: {Q}", "chosen": WHOLE["chosen"], "rejected": NO + "<|im_start|>"},
        won(prompt=" "), won(ranks=(0, 1)),
        PAIR | {"chosen": " "}, won(ranks=(True, 2)), won(ranks=(1,)), won(group="x"), won(group=""), won(group={"age": None}),
        won(prompt="Human: a\n\nAssistant: b\n\nHuman: c"),
        PAIR | {"score_chosen": "7", "score_rejected": 2}, PAIR | {"score_chosen": True, "score_rejected": 2},
        PAIR | {"score_chosen": None, "score_rejected": 2}, PAIR | {"score_chosen": 7}, PAIR | {"score_rejected": 7},
        PAIR | {"chosen_pick": "a", "rejected_pick": "b"}, PAIR | {"side": "b"}, PAIR | {"prompt": None},
        PAIR | {"rejected": None},
        PAIR | {"prompt": []}, PAIR | {"chosen": GOOD}, PAIR | {"answer": "c"},
        MESSAGES | {"chosen": []}, MESSAGES | {"prompt": said("user", " ")}, MESSAGES | {"chosen": GOOD + GOOD},
        MESSAGES | {"chosen": said("user", YES)}, MESSAGES | {"chosen": [GOOD[0] | {"score": 2}]},
        MESSAGES | {"chosen": [GOOD[0] | {"images": ["x"]}]}, MESSAGES | {"chosen": said("gpt", YES)},
        MESSAGES | {"chosen": [{"role": "assistant", "content": None, "tool_calls": [{}]}]},
        MESSAGES | {"chosen": [{"role": []}]},
        MESSAGES | {"chosen": said("assistant", [{"type": "text", "text": YES}])}, MESSAGES | {"prompt": WHOLE["chosen"]},
        {"chosen": ASK, "rejected": ASK}, {"chosen": GOOD, "rejected": POOR}, {"chosen": [YES], "rejected": [NO]},
        MESSAGES | {"prompt": POOR}, {"prompt": None, **WHOLE}, WHOLE | {"setting": "Paris"}, WHOLE | {"chosen": YES},
        dict.fromkeys(WHOLE, "Human: a"), WHOLE | {"chosen": WHOLE["chosen"] + "<|im_start|>"}]


def both_ways(row, monkeypatch):
    def read_so(row):
        try:
            reading = read_row(row)
            return reading.records, reading.unread, reading.notes
        except ValueError as error:
            return str(error)

    short = read_so(row)
    with monkeypatch.context() as patch:
        patch.setattr("harken.store.shapes.plain_comparison", lambda row, known: None)
        assert short == read_so(row), row


def test_the_short_way_says_what_the_long_way_says(monkeypatch):
    for row in SHORT + LONG:
        both_ways(row, monkeypatch)
    taken = [plain_comparison(row, NAMES) is not None for row in SHORT + LONG]
    assert taken == [True] * len(SHORT) + [False] * len(LONG)


def test_the_advice_for_a_shape_that_is_not_read_is_not_to_leave_it_out(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "hi"}) + "\n")
    with pytest.raises(UserError) as raised:
        list(Reader(tmp_path / "x.jsonl"))
    assert "--field" in raised.value.action and "--skip-bad" not in raised.value.action


def test_a_shapes_function_gives_a_record_or_several(monkeypatch):
    """What is taken is read; the rest is counted."""
    def duel(row):
        return Choice(Prompt.of(row.take("ask")), (row.take("red"), row.take("green")), (1, 2))
    monkeypatch.setattr(shapes, "SHAPES", (((("ask", "red", "green"),), None, duel),))
    monkeypatch.setattr(shapes, "_known", {})
    row = {"ask": Q, "red": YES, "green": NO, "room": 7}
    one = read_row(row)
    assert [r.options for r in one.records] == [(YES, NO)] and one.unread == ["room"]
    monkeypatch.setattr(shapes, "SHAPES", (((("ask", "red", "green"),), None, lambda row: [duel(row)]),))
    monkeypatch.setattr(shapes, "_known", {})
    assert read_row(row) == one
