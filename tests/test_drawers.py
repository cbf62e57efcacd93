"""Feedback from other tools' exports, in the layouts that they have, becomes judgments; what they do not know is said."""

import contextlib
import json

import pytest

from harken.cli.main import main
from harken.core.errors import UserError
from harken.store.database import open_database
from harken.store.drawers import _judgment, read_drawers
from harken.store.drawers.tools import TOOLS as DRAWERS
from harken.store.drawers.tools import verdict

QUESTION, ANSWER = "What is the capital of France?", "Paris."


def open_webui():
    messages = {"m1": {"id": "m1", "parentId": None, "role": "user", "content": QUESTION},
                "m2": {"id": "m2", "parentId": "m1", "role": "assistant", "content": ANSWER, "model": "a"},
                "m3": {"id": "m3", "parentId": "m1", "role": "assistant", "content": "Lyon.", "model": "b"}}

    def row(name, message, rating, **data):
        return {"id": name, "user_id": "u1", "version": 0, "type": "rating", "created_at": 1, "updated_at": 2,
                "data": {"rating": rating, "model_id": "a", "sibling_model_ids": ["b"], "reason": "accurate_information",
                         "comment": "right", "tags": [], "details": {"rating": 9}, **data},
                "meta": {"model_id": "a", "message_id": message, "message_index": 1, "chat_id": "c", "base_models": {}},
                "snapshot": {"chat": {"id": "c", "user_id": "u1", "chat": {"history": {"messages": messages}}}}}
    return [[row("f1", "m2", 1), row("f2", "m3", "-1"), row("f3", "gone", 1)]]


def librechat():
    tree = [{"messageId": "m1", "parentMessageId": "0", "isCreatedByUser": True, "text": QUESTION, "children": [
        {"messageId": "m2", "parentMessageId": "m1", "isCreatedByUser": False, "text": "", "model": "a",
         "content": [{"type": "text", "text": {"value": ANSWER}}],
         "feedback": {"rating": "thumbsUp", "tag": {"key": "accurate_reliable"}}},
        {"messageId": "m3", "parentMessageId": "m1", "isCreatedByUser": False, "text": "Lyon.", "model": "b",
         "feedback": {"rating": "thumbsDown", "tag": "inaccurate", "text": "wrong"}}]}]
    return [{"conversationId": "c", "endpoint": "openAI", "title": "t", "exportAt": "10:00", "branches": True, "recursive": True,
             "messages": tree}]


def langfuse():
    traces = [{"id": f"t{n}", "name": "chat", "userId": "u", "input": [{"role": "user", "content": QUESTION}],
               "output": {"role": "assistant", "content": words}} for n, words in enumerate((ANSWER, "Lyon.", "Nice."))]
    scores = [{"id": "s1", "traceId": "t0", "name": "thumb", "value": 1, "dataType": "BOOLEAN", "stringValue": "True",
               "source": "ANNOTATION", "authorUserId": "u1", "comment": "right"},
              {"id": "s2", "traceId": "t1", "name": "thumb", "value": 0, "dataType": "BOOLEAN", "source": "API"},
              {"id": "s3", "traceId": "t0", "name": "judge", "value": 0.9, "dataType": "NUMERIC", "source": "EVAL"},
              {"id": "s4", "traceId": "t2", "name": "stars", "value": 2, "dataType": "NUMERIC", "source": "API"},
              {"id": "s5", "traceId": "gone", "name": "thumb", "value": 1, "dataType": "BOOLEAN", "source": "API"}]
    return [scores, traces]


def phoenix():
    def span(name, words):
        return {"name": "llm", "context": {"span_id": name, "trace_id": "t"}, "attributes": {
            "llm.model_name": "a", "input.value": json.dumps({"messages": [{"role": "user", "content": QUESTION}]}),
            "llm": {"output_messages": [{"message.role": "assistant", "message.content": words}]}}}
    notes = [{"id": "a1", "span_id": "s1", "name": "user feedback", "annotator_kind": "HUMAN", "identifier": "u1",
              "result": {"label": "thumbs-up", "score": 1, "explanation": "right"}},
             {"id": "a2", "span_id": "s2", "name": "user feedback", "annotator_kind": "HUMAN",
              "result": {"label": "thumbs-down", "score": 0}},
             {"id": "a3", "span_id": "s1", "name": "hallucination", "annotator_kind": "LLM", "result": {"score": 0}}]
    return [notes, [span("s1", ANSWER), span("s2", "Lyon.")]]


def langsmith():
    human = {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "HumanMessage"],
             "kwargs": {"content": QUESTION}}

    def run(name, words):
        ai = {"id": ["langchain", "schema", "messages", "AIMessage"], "kwargs": {"content": words}}
        return {"id": name, "run_type": "llm", "inputs": {"messages": [[human]]},
                "outputs": {"generations": [[{"text": words, "message": ai}]]}}
    rows = [{"id": "f1", "run_id": "r1", "key": "user_score", "score": 1.0, "value": None, "comment": "right", "correction": None,
             "feedback_source": {"type": "app", "user_id": "u1"}},
            {"id": "f2", "run_id": "r2", "key": "user_score", "score": 0.0, "correction": {"output": ANSWER},
             "feedback_source": {"type": "api"}},
            {"id": "f3", "run_id": "r1", "key": "correctness", "score": 1, "feedback_source": {"type": "model"}}]
    return [rows, [run("r1", ANSWER), run("r2", "Lyon.")]]


def tensorzero():
    asked = {"system": "Be brief.", "messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]}
    inferences = [{"id": f"i{n}", "function_name": "chat", "variant_name": "a", "episode_id": "e", "input": json.dumps(asked),
                   "output": json.dumps([{"type": "text", "text": words}])} for n, words in enumerate((ANSWER, "Lyon."))]
    rows = [{"id": "f1", "target_id": "i0", "metric_name": "thumb", "value": True, "tags": {"user_id": "u1"}},
            {"id": "f2", "target_id": "i1", "metric_name": "thumb", "value": False, "tags": {}},
            {"id": "f3", "inference_id": "i1", "value": json.dumps([{"type": "text", "text": ANSWER}])},
            {"id": "f4", "target_id": "e", "metric_name": "thumb", "value": True}]
    return [rows, inferences]


TOOLS = {"Open WebUI": open_webui, "LibreChat": librechat, "Langfuse": langfuse, "Phoenix": phoenix, "LangSmith": langsmith,
         "TensorZero": tensorzero}


def written(tmp_path, files):
    paths = []
    for n, rows in enumerate(files):
        whole = isinstance(rows, dict)
        path = tmp_path / (f"{n}.json" if whole or n == 0 else f"{n}.jsonl")
        path.write_text(json.dumps(rows, indent=2) if whole or n == 0 else "".join(json.dumps(r) + "\n" for r in rows))
        paths.append(path)
    return paths


@pytest.mark.parametrize("tool", TOOLS)
def test_thumbs_of_each_tool_are_judgments_of_the_right_answers(tool, tmp_path):
    found = read_drawers(written(tmp_path, TOOLS[tool]()))
    assert found.tool == tool
    thumbs = {j.payload["completion"]: j for j in found.judgments if j.kind == "thumb"}
    assert {text: j.payload["label"] for text, j in thumbs.items()} == {ANSWER: True, "Lyon.": False}
    assert all(j.prompt.text == QUESTION and j.order is None and j.seconds is None for j in found.judgments)
    right = thumbs[ANSWER]
    assert right.payload["imported"]["tool"] == tool and "order" in right.payload["imported"]["unknown"]
    assert (right.labeler == "u1") == ("rater" not in right.payload["imported"]["unknown"]) == (tool != "LibreChat")


@pytest.mark.parametrize("tool", TOOLS)
def test_one_command_turns_them_into_a_snapshot(tool, tmp_path, capsys):
    first, *rest = written(tmp_path, TOOLS[tool]())
    db = str(tmp_path / "f.db")
    for _ in range(2):  # twice: nothing is stored again
        assert main(["import", str(first), "--db", db, *(word for path in rest for word in ("--join", str(path)))]) == 0
    assert f"of {tool}" in capsys.readouterr().out
    assert main(["snapshot", "thumbs", "--db", db, "--out", str(tmp_path / "thumbs.jsonl")]) == 0
    assert len((tmp_path / "thumbs.jsonl").read_text().splitlines()) == 2


def test_what_is_no_persons_judgment_of_a_known_answer_is_left_out_and_counted(tmp_path):
    expected = {"Open WebUI": 1, "LibreChat": 0, "Langfuse": 2, "Phoenix": 1, "LangSmith": 1, "TensorZero": 1}
    for tool, files in TOOLS.items():
        found = read_drawers(written(tmp_path, files()))
        assert sum(found.left_out.values()) == expected[tool], tool


def test_corrections_are_edits_and_numbers_ratings(tmp_path):
    for tool in ("LangSmith", "TensorZero"):
        edits = [j for j in read_drawers(written(tmp_path, TOOLS[tool]())).judgments if j.kind == "edit"]
        assert [(j.choice().options, j.choice().ranks) for j in edits] == [((ANSWER, "Lyon."), (1, 2))]
    ratings = [j for j in read_drawers(written(tmp_path, langfuse())).judgments if j.kind == "rating"]
    assert [(j.payload["score"], j.payload["completion"]) for j in ratings] == [(2, "Nice.")]
    system = read_drawers(written(tmp_path, tensorzero())).judgments[0].prompt.messages[0]
    assert (system.role, system.content) == ("system", "Be brief.")


def test_feedback_without_its_answers_is_refused_with_what_to_do(tmp_path, capsys):
    scores, _ = written(tmp_path, langfuse())
    with pytest.raises(UserError, match="no judgment"):
        read_drawers([scores])
    assert main(["import", str(scores), "--db", str(tmp_path / "f.db")]) != 0
    assert "--join" in capsys.readouterr().err and not (tmp_path / "f.db").exists()


def test_langfuse_in_a_bucket_and_in_words(tmp_path):
    """Its export to a bucket has names with underscores and no traces; a category is a word beside a number without meaning."""
    seen = [{"id": "o1", "trace_id": "t1", "parent_observation_id": "", "input": QUESTION, "output": ANSWER},
            {"id": "o2", "trace_id": "t1", "parent_observation_id": "o1", "input": "search", "output": "France"},
            {"id": "o3", "trace_id": "t2", "parent_observation_id": None, "input": QUESTION, "output": "Lyon."}]
    common = {"project_id": "p", "observation_id": None, "source": "API", "name": "thumb"}
    for first, second in (({"value": 0, "string_value": "thumbs-up", "data_type": "CATEGORICAL"},
                           {"value": 1, "string_value": "thumbs-down", "data_type": "CATEGORICAL"}),
                          ({"value": "True", "data_type": "BOOLEAN"}, {"value": "False", "data_type": "BOOLEAN"})):
        scores = [{"id": "s1", "trace_id": "t1", "author_user_id": "u7", **common, **first},
                  {"id": "s2", "trace_id": "t2", **common, **second}]
        found = read_drawers(written(tmp_path, [scores, seen]))
        assert {j.payload["completion"]: (j.payload["label"], j.labeler) for j in found.judgments} == {
            ANSWER: (True, "u7"), "Lyon.": (False, None)}
    meh = {"id": "s3", "trace_id": "t1", **common, "value": 1, "string_value": "meh", "data_type": "CATEGORICAL"}
    assert read_drawers(written(tmp_path, [[*scores, meh], seen])).left_out == {"no verdict in it": 1}


def test_open_webuis_pages_and_thoughts_and_tensorzeros_api(tmp_path):
    (rows,) = open_webui()
    message = rows[0]["snapshot"]["chat"]["chat"]["history"]["messages"]["m2"]
    message["content"] = '<details type="reasoning" done="true"><summary>Thought</summary>\nhm\n</details>\n' + ANSWER
    assert read_drawers(written(tmp_path, [{"items": rows, "total": 3}])).judgments[0].payload["completion"] == ANSWER
    feedback, inferences = tensorzero()
    for row in inferences:
        row["inference_id"] = row.pop("id")
    assert len(read_drawers(written(tmp_path, [feedback, inferences])).judgments) == 3


def test_other_files_are_nobodys_drawer(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "Hi", "chosen": "a", "rejected": "b", "user_id": "u"}\n')
    assert read_drawers([path]) is None
    with pytest.raises(UserError, match="Leave --join away"), open_database(tmp_path / "f.db") as db:
        db.import_file(path, join=[path])


ODD = (None, [], {}, "", -1, True, 10**400, [[]], [None], {"a": {}}, ["m1"], "\ud800", "a\0b", float("nan"))


def places(value, at=()):
    """The path of every value within a value."""
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield from places(one, (*at, name))


def put(value, at, new):
    """The value with another one at a path."""
    if not at:
        return new
    changed = value.copy()
    changed[at[0]] = put(value[at[0]], at[1:], new)
    return changed


@pytest.mark.parametrize("tool", TOOLS)
def test_every_value_of_an_export_may_be_odd(tool):
    """What another tool wrote is read or left out; it never ends in a traceback, nor in a name or text that is none."""
    known, read = DRAWERS[tool]
    files = TOOLS[tool]()
    for at in [at for at in places(files) if len(at) > 1]:
        for odd in ODD:
            rows = [row for file in put(files, at, odd) for row in (file if isinstance(file, list) else [file])]
            rows = [row for row in rows if isinstance(row, dict)]
            if any(map(known, rows)):
                said, _ = read(rows)
                for one in said:
                    assert one.rater is None or (isinstance(one.rater, str) and "{" not in one.rater and "[" not in one.rater)
                    with contextlib.suppress(ValueError):
                        judgment = _judgment(tool, one, {"thumb"})
                        assert not judgment.labeler or (judgment.labeler.encode() and "\0" not in judgment.labeler)


@pytest.mark.parametrize(("word", "said"), [("Thumbs up", True), ("👍🏽", True), ("thumb_down", False), ("👎", False),
                                            ("maybe", None)])
def test_a_verdict_in_words(word, said):
    assert verdict(word) is said
