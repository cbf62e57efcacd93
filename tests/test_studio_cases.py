"""What other tools' users reported, tried on the studio: each case as it was met, with what is right.

The numbers are those of the log they come from; a case that has tests elsewhere already (lost sessions, reloads, permissions,
invitations) is not repeated here.
"""

import json
import uuid

import pytest

from harken.cli.main import main
from harken.store.database import open_database
from harken.studio.client import StudioError
from studio_site import Desk, broken_rules, new_site, simple_answer

FRENCH = '{"prompt": "Où est le café né à Orléans ?", "completions": ["À côté de la gare.", "Désolé."]}\n'
slow = pytest.mark.slow


@pytest.fixture
def site(tmp_path):
    with new_site(tmp_path) as made:
        yield made


def only_project(site, kind, items, **settings):
    project = site.lead.create_project(f"{kind} {uuid.uuid4().hex[:6]}", kind, **settings)["id"]
    site.lead.add_items(project, items)
    return project


def pairs(n):
    return [{"prompt": f"q{i}", "completions": ["a", "b"]} for i in range(n)]


def items_of(site, project):
    """The items' numbers as leads have them; labelers are given others."""
    return [row["id"] for row in site.lead.call("GET", f"/api/projects/{project}/items")["items"]]


def bring(site, data, kind="compare"):
    """Sends a file's bytes to a new project; the answer, and the items that are there then."""
    project = site.lead.create_project(f"in {uuid.uuid4().hex[:6]}", kind)["id"]
    answer = site.lead.call("POST", f"/api/projects/{project}/import", data)
    return answer, [site.lead.call("GET", f"/api/items/{row['id']}")
                    for row in site.lead.call("GET", f"/api/projects/{project}/items")["items"]]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_cases_1_2_a_file_in_another_encoding_is_read_as_what_it_says(site, encoding):
    answer, (item,) = bring(site, FRENCH.encode(encoding))
    assert answer["added"] == 1 and item["messages"][0]["content"] == "Où est le café né à Orléans ?"
    assert any("Windows-1252" in note for note in answer["notes"]) == (encoding == "latin-1")


def test_case_2_gzip_and_a_pretty_array_come_in_and_half_a_character_does_not(site):
    import gzip
    assert bring(site, gzip.compress(FRENCH.encode()))[0]["added"] == 1
    assert bring(site, json.dumps([json.loads(FRENCH)] * 1, indent=2).encode())[0]["added"] == 1
    for bad, words in ((b'{"prompt": "\\u0000", "completions": ["a", "b"]}', "NUL"),
                       (b'{"prompt": "\\ud83d", "completions": ["a", "b"]}', "surrogate")):
        with pytest.raises(StudioError, match=words):
            bring(site, bad)


def test_case_3_a_table_of_pairs_becomes_items(site):
    data = 'id,prompt,completion_a,completion_b,model_a,model_b\r\n7,"Où, enfin ?",Là-bas,"Je ne sais pas",m1,m2\r\n'
    _, (item,) = bring(site, data.encode("utf-8-sig"))
    assert item["body"]["completions"] == [{"text": "Là-bas", "source": "m1"}, {"text": "Je ne sais pas", "source": "m2"}]
    with pytest.raises(StudioError, match=r"over several lines.*one object a line"):
        bring(site, b'{\n  "prompt": "q",\n  "completions": ["a", "b"]\n}\n')


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_case_4_a_number_that_is_no_number_is_refused_with_its_item_and_field(site, number):
    with pytest.raises(StudioError, match=rf'line 2: {number} is no JSON value \(in "meta.score') as told:
        bring(site, FRENCH.encode() + b'{"prompt":"p","completions":["a","b"],"meta":{"score":%s}}\n' % number.encode())
    assert told.value.status == 400
    desk = Desk(site.db, n=0)
    with pytest.raises(Exception, match=r'Item 1: "meta.deep\[0\]" is (nan|inf|-inf)'):
        desk.add([{"prompt": "p", "completions": ["a", "b"], "meta": {"deep": [float(number.replace("Infinity", "inf"))]}}])


@pytest.mark.parametrize(("row", "roles", "sources"), [
    ({"prompt": "Hi", "response_a": "Hello", "response_b": "Yo", "model_a": "x", "model_b": "y"}, ["user"], ["x", "y"]),
    ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}, {"from": "human", "value": "How?"}],
      "completions": ["A", "B"]}, ["user", "assistant", "user"], [None, None]),
    ({"prompt": [{"role": "user", "content": [{"type": "text", "text": "What?"}]}], "completions": ["A", "B"]}, ["user"],
     [None, None]),
    ({"prompt": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Weather?"},
                 {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {
                     "name": "weather", "arguments": "{}"}}]},
                 {"role": "tool", "content": "21 C", "tool_call_id": "1"}], "completions": ["A", "B"]},
     ["system", "user", "assistant", "tool"], [None, None])])
def test_case_5_the_shapes_that_people_have_become_items_and_tools_are_shown(site, row, roles, sources):
    answer, (item,) = bring(site, json.dumps(row).encode() + b"\n")
    assert answer["added"] == 1 and [m["role"] for m in item["messages"]] == roles
    assert [c["source"] for c in item["body"]["completions"]] == sources
    (task,) = site.ana.next(item["project"])["tasks"]
    assert [m["role"] for m in task["prompt"]["messages"]] == roles
    site.ana.submit(task, {"preference": 1})


def test_case_9_an_earlier_answer_is_found_and_changed_alone(site):
    project = only_project(site, "compare", pairs(5))
    for task in site.ana.tasks(project):
        site.ana.submit(task, {"preference": 1, "notes": f"about {task['prompt']['messages'][0]['content']}"})
    found = site.ana.call("GET", f"/api/projects/{project}/mine?q=About%20q1")
    (first,) = found["items"]
    assert first["queue"] == "sent" and first["completions"] and found["queues"]["sent"] == 5
    body = {"client_id": uuid.uuid4().hex, "assignment": first["assignment"]}
    task = site.ana.call("POST", f"/api/projects/{project}/undo", body)["task"]
    assert task["assignment"] == first["assignment"] and task["draft"]["answer"]["preference"] == 1
    queues = site.ana.call("GET", f"/api/projects/{project}/mine")["queues"]
    assert queues == {"sent": 4, "draft": 1, "open": 0, "skipped": 0, "set_aside": 0, "commented": 0}
    site.ana.submit(task, {"preference": -1})
    assert len(site.lead.export(project, "comparisons")) == 5
    assert site.bo.call("GET", f"/api/projects/{project}/mine")["items"] == []
    assert not any("item" in row for row in site.ana.call("GET", f"/api/projects/{project}/mine")["items"])


def test_case_10_what_is_not_begun_is_given_back_and_a_lead_sees_who_holds_what(site):
    project = only_project(site, "compare", pairs(3))
    tasks = site.ana.next(project, 3)["tasks"]
    held = site.lead.call("GET", f"/api/projects/{project}/held")["items"]
    assert [h["name"] for h in held] == ["ana"] * 3 and not any(h["begun"] for h in held)
    assert site.bo.next(project)["status"] == "empty"
    kept = tasks[0]["assignment"]
    assert site.ana.call("POST", f"/api/projects/{project}/leave", {"keep": [kept]}) == {"released": 2, "kept": 1}
    assert len(site.bo.next(project, 3)["tasks"]) == 2
    site.lead.call("POST", f"/api/assignments/{kept}/release", {})
    assert len(site.bo.next(project, 3, [])["tasks"]) == 3
    with pytest.raises(StudioError, match="403"):
        site.ana.call("GET", f"/api/projects/{project}/held")


def test_case_11_who_has_answered_all_is_told_so_and_counts_for_themselves(site):
    project = only_project(site, "compare", pairs(4), overlap=2)
    for n, task in enumerate(site.ana.tasks(project)):
        site.ana.submit(task, {"preference": 1})
        assert n < 4
    end = site.ana.next(project)
    assert end["status"] == "answered" and end["retry_after"] is None
    assert end["progress"] == {"done_by_me": 4, "open": 0}
    first = site.bo.next(project, 2)
    assert first["progress"]["open"] == 20, "four, told in steps of 20 so that questions with known answers do not show"
    site.bo.call("POST", f"/api/projects/{project}/leave", {})
    assert site.bo.next(project, 5)["progress"]["open"] == 20, "what was given back is open again"
    one = only_project(site, "compare", pairs(1))
    site.ana.next(one)
    assert site.bo.next(one)["status"] == "empty", "somebody holds it and may give it back"


def test_case_12_what_was_undone_is_no_pace(site):
    project = only_project(site, "compare", pairs(1))
    task = site.ana.next(project)["tasks"][0]
    for _ in range(5):
        site.ana.submit(task, {"preference": 1})
        task = site.ana.undo(project)["task"]
    site.ana.submit(task, {"preference": 1})
    now = site.lead.call("GET", f"/api/projects/{project}/progress")
    assert (now["answers"], now["last_hour"]) == (1, 1)


def sourced(n, **more):
    return [{"prompt": f"q{i}", "completions": [{"text": f"a{i}", "source": "model-1"}, {"text": f"b{i}", "source": "model-2"}],
             **more} for i in range(n)]


def test_case_13_an_export_says_which_answer_of_whom_to_what_and_how(site):
    project = only_project(site, "rate_and_rank", sourced(1, meta={"my_id": 7}))
    task = site.ana.next(project)["tasks"][0]
    answer = simple_answer(task)
    receipt = site.ana.submit(task, {**answer, "notes": "B invents a date"}, seconds=12.5)
    (row,) = site.lead.export(project, "comparisons")
    assert row["sources"] == ["model-1", "model-2"] and row["notes"] == "B invents a date" and row["seconds"] == 12.5
    assert row["judgment"] == receipt["judgment"] and [row["item"]] == items_of(site, project) and row["labeler"] == "ana"
    assert sorted(row["shown_order"]) == [0, 1] and row["answered_at"] and row["meta"] == {"my_id": 7}
    assert row["scale"] == {"min": 1, "max": 7, "low": "worst", "high": "best"}
    ratings = site.lead.export(project, "ratings")
    assert [r["source"] for r in ratings] == ["model-1", "model-2"] and all(r["scale"]["max"] == 7 for r in ratings)
    assert [r["score"] for r in ratings] == [answer["ratings"][task["completions"].index(f"{c}0")]["overall"] for c in "ab"]


def test_case_13_an_export_comes_in_again_with_its_order_and_time(site, tmp_path):
    project = only_project(site, "compare", sourced(2))
    for task in site.ana.tasks(project):
        site.ana.submit(task, {"preference": 2}, seconds=3.5)
    path = tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in site.lead.export(project, "comparisons")))
    with open_database(tmp_path / "other.db") as other:
        assert other.import_file(path).unread == {}
        again = list(other.judgments())
    before = list(site.db.judgments())
    assert [(j.order, j.seconds, j.payload["ranks"], j.labeler) for j in again] == \
        [(j.order, j.seconds, j.payload["ranks"], j.labeler) for j in before]


def test_case_14_which_model_won_is_on_the_page_by_api_and_by_command(site, tmp_path, capsys):
    """Of 12 verdicts, model-1 wins 9, model-2 two, one is a tie: 9.5 of 12 for model-1."""
    project = only_project(site, "compare", sourced(12, use_case="open_qa", tags=["garden"]))
    for n, task in enumerate(site.ana.tasks(project)):
        first_is_1 = task["completions"][0].startswith("a")
        wanted = 0 if n == 11 else -1 if (n < 9) == first_is_1 else 1
        site.ana.submit(task, {"preference": wanted})
    found = site.lead.call("GET", f"/api/projects/{project}/models")
    assert found["votes"] == 12 and found["ties"] == 1 and [m["name"] for m in found["models"]] == ["model-1", "model-2"]
    rate = found["win_rates"][0][1]
    assert rate["value"] == pytest.approx(9.5 / 12) and rate["low"] < rate["value"] < rate["high"]
    for asked in ("use_case=open_qa", "tag=garden", "use_case=open_qa&tag=garden"):
        assert site.lead.call("GET", f"/api/projects/{project}/models?{asked}")["votes"] == 12
    for asked in ("tag=other", "group=age:30"):
        with pytest.raises(StudioError, match="two known sources"):
            site.lead.call("GET", f"/api/projects/{project}/models?{asked}")
    with pytest.raises(StudioError, match="two known sources"):
        site.lead.call("GET", f"/api/projects/{project}/models?use_case=chat")
    with pytest.raises(StudioError, match="403"):
        site.ana.call("GET", f"/api/projects/{project}/models")
    path = tmp_path / "votes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in site.lead.export(project, "comparisons")))
    assert main(["rank", str(path), "--by", "source", "--json"]) == 0
    command = json.loads(capsys.readouterr().out)
    assert command["models"] == found["models"]


def test_case_14_a_model_that_always_wins_has_a_finite_strength_and_it_is_said(site):
    project = only_project(site, "compare", sourced(3))
    for task in site.ana.tasks(project):
        site.ana.submit(task, {"preference": -1 if task["completions"][0].startswith("a") else 1})
    found = site.lead.call("GET", f"/api/projects/{project}/models")
    assert found["prior"] and found["models"][0]["name"] == "model-1" and found["win_rates"][0][1]["value"] == 1


def test_case_15_one_answer_set_aside_leaves_exports_and_its_place_opens(site):
    project = only_project(site, "compare", pairs(1))
    task = site.ana.next(project)["tasks"][0]
    receipt = site.ana.submit(task, {"preference": 1})
    (item,) = items_of(site, project)
    change = {"state": "set_aside", "reason": "a slip"}
    site.lead.call("PATCH", f"/api/judgments/{receipt['judgment']}", change)
    assert site.lead.export(project, "comparisons") == []
    shown = site.lead.call("GET", f"/api/items/{item}")
    assert shown["answers"][0]["retracted"] == "set_aside" and shown["state"] == "open"
    assert [e["body"]["reason"] for e in shown["events"] if e["kind"] == "set_aside"] == ["a slip"]
    with pytest.raises(StudioError, match="counts no more: set aside"):
        site.lead.call("PATCH", f"/api/judgments/{receipt['judgment']}", change)
    with pytest.raises(StudioError, match="nothing of yours to undo"):
        site.ana.undo(project)
    assert site.ana.next(project)["status"] == "answered", "nobody is asked the same twice"
    (again,) = site.bo.next(project)["tasks"]
    site.bo.submit(again, {"preference": 1})
    assert [row["labeler"] for row in site.lead.export(project, "comparisons")] == ["bo"]
    now = site.lead.call("GET", f"/api/items/{item}")
    assert (now["done"], now["wanted"], now["state"]) == (1, 1, "done") and broken_rules(site.db) == []
    with pytest.raises(StudioError, match="403"):
        site.ana.call("PATCH", f"/api/judgments/{receipt['judgment']}", change)


def test_case_15_the_answers_of_an_item_set_aside_leave_exports_until_it_is_opened(site):
    project = only_project(site, "compare", pairs(1))
    task = site.ana.next(project)["tasks"][0]
    site.ana.submit(task, {"preference": 1})
    (item,) = items_of(site, project)
    site.lead.call("PATCH", f"/api/items/{item}", {"state": "set_aside"})
    assert site.lead.export(project, "comparisons") == []
    assert site.lead.call("GET", f"/api/projects/{project}/progress")["answers"] == 0
    site.lead.call("PATCH", f"/api/items/{item}", {"state": "open"})
    assert len(site.lead.export(project, "comparisons")) == 1


def test_case_18_ratings_of_two_scales_are_told_apart_in_the_row(site):
    project = only_project(site, "rate_and_rank", [{"prompt": f"q{i}", "completions": ["a", "b"]} for i in range(2)])
    first = site.ana.next(project)["tasks"][0]
    site.ana.submit(first, simple_answer(first))
    form = site.lead.call("GET", f"/api/projects/{project}")["form"]
    form = {k: v for k, v in form.items() if k != "version"}
    form["rating"] = {**form["rating"], "scale": {**form["rating"]["scale"], "max": 5}}
    site.lead.call("PUT", f"/api/projects/{project}/form", form)
    second = site.bo.next(project)["tasks"][0]
    said = simple_answer(second)
    for rating in said["ratings"]:
        rating["overall"] = 5
    site.bo.submit(second, said)
    assert {(r["labeler"], r["scale"]["max"]) for r in site.lead.export(project, "ratings")} == {("ana", 7), ("bo", 5)}


@pytest.mark.parametrize(("length", "sentence"), [(30_000, "A sentence that is fine. "), (200_000, "A sentence that is fine. "),
                                                  (200_000, "这句话没有问题 🌸 fine。")])
def test_case_26_a_long_original_can_be_sent_in_as_it_is_and_changed(site, length, sentence):
    text = (sentence * (length // len(sentence) + 1))[:length]
    project = only_project(site, "edit", [{"prompt": p, "original": text} for p in "pq"])
    same, other = site.ana.next(project, 2)["tasks"]
    assert site.ana.submit(same, {"text": text})["counted"]
    assert site.ana.submit(other, {"text": text.replace("fine", "good", 1)})["answer"]["spans"]
    again = only_project(site, "edit", [{"prompt": "p", "original": text}])
    with pytest.raises(StudioError, match="characters") as told:
        site.ana.submit(site.ana.next(again)["tasks"][0], {"text": text + "x" * 20_001})
    assert "openapi" not in str(told.value)


def test_case_36_the_second_of_two_leads_is_told_and_the_first_wording_can_be_had_again(site):
    project = site.open
    before = site.lead.call("GET", f"/api/projects/{project}")
    seen = before["instructions"]["hash"]
    site.lead.call("PUT", f"/api/projects/{project}/instructions", {"text": "one", "seen": seen})
    with pytest.raises(StudioError, match="Somebody else changed the instructions"):
        site.lead.call("PUT", f"/api/projects/{project}/instructions", {"text": "two", "seen": seen})
    kept = site.lead.call("GET", f"/api/projects/{project}/instructions")["items"]
    assert [k["text"] for k in kept] == ["one", before["instructions"]["text"]] and kept[0]["by"] == "lead"
    site.lead.call("PATCH", f"/api/projects/{project}", {"name": "renamed", "seen": before["revision"]})
    with pytest.raises(StudioError, match="Somebody else changed the settings"):
        site.lead.call("PATCH", f"/api/projects/{project}", {"status": "paused", "seen": before["revision"]})


def test_case_37_labelers_are_not_told_where_the_database_is():
    from harken.store.connection import StorageError
    from harken.web.errors import as_api_error
    for fact in ("postgresql+psycopg://ada:***@db.inside:5432/team cannot be reached.", "/srv/data/team.db could not grow."):
        told = as_api_error(StorageError(fact, "x"))
        assert told.message.startswith("The studio's database c") and "ada" not in str(told) and "/srv" not in str(told)


def test_case_38_ask_reads_other_encodings_and_advises_no_option_it_lacks(tmp_path, capsys):
    (tmp_path / "latin1.jsonl").write_bytes(FRENCH.encode("latin-1"))
    into = ["--project", "p", "--kind", "compare", "--db", str(tmp_path / "a.db")]
    assert main(["ask", str(tmp_path / "latin1.jsonl"), *into]) == 0
    assert "Windows-1252" in capsys.readouterr().out
    (tmp_path / "bad.jsonl").write_text(FRENCH + "{broken\n")
    assert main(["ask", str(tmp_path / "bad.jsonl"), *into]) == 2
    told = capsys.readouterr().err
    assert "line 2" in told and "--skip-bad" not in told


def test_rank_only_forbids_ties_where_its_form_does(site):
    project = only_project(site, "rank", [{"prompt": "q", "completions": ["a", "b", "c"]}])
    form = site.lead.call("GET", f"/api/projects/{project}")["form"]
    site.lead.call("PUT", f"/api/projects/{project}/form", {**form, "ranking": {"ties": False}})
    task = site.ana.next(project)["tasks"][0]
    with pytest.raises(StudioError, match="no ties"):
        site.ana.submit(task, {"ranks": [1, 1, 2]})
    receipt = site.ana.submit(task, {"ranks": [2, 1, 3]})
    assert receipt["answer"]["ranks"] == [2, 1, 3]
    (row,) = site.lead.export(project, "comparisons")
    assert [row["completions"][row["ranks"].index(r)] for r in (1, 2, 3)] == [task["completions"][i] for i in (1, 0, 2)]


def test_who_is_taken_out_while_answering_is_told_why(site):
    first, second = site.ana.next(site.open, 2)["tasks"]
    ana = next(u["id"] for u in site.lead.call("GET", "/api/users")["items"] if u["name"] == "ana")
    site.lead.call("PUT", f"/api/projects/{site.open}/members/{ana}", {"member": False})
    for act in (lambda: site.ana.submit(first, {"preference": 1}), lambda: site.ana.skip(second, "unclear"),
                lambda: site.ana.next(site.open), lambda: site.ana.call("GET", f"/api/projects/{site.open}")):
        with pytest.raises(StudioError, match="You were taken out of this project"):
            act()
    with pytest.raises(StudioError, match="no such task"):
        site.bo.submit(first, {"preference": 1})
    with pytest.raises(StudioError, match="no such project"):
        site.bo.next(site.closed)
