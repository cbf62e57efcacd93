"""Neighbours of the cases in `test_studio_cases.py`: the same kind of fault in another field, form, file or route."""

import io
import json
import uuid

import pytest

from harken.cli.main import main
from harken.store.database import open_database
from harken.store.names import legible, name_key
from harken.studio.client import Client, StudioError
from harken.studio.work.exports import export_rows, write_rows
from studio_site import PASSWORD, broken_rules, in_session, make_user, new_site, open_template, simple_answer

FRENCH = '{"prompt": "Où est le café ?", "completions": ["À côté – “ici”.", "Désolé."]}\n'


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with new_site(tmp_path_factory.mktemp("site")) as made:
        yield made


def project_of(site, items=(), kind="compare", **settings):
    project = site.lead.create_project(uuid.uuid4().hex[:8], kind, **settings)["id"]
    site.lead.add_items(project, items)
    return project


def pairs(n):
    return [{"prompt": f"q{i}", "completions": ["a", "b"]} for i in range(n)]


def bring(site, data, kind="compare"):
    """Sends a file's bytes, or one row, to a new project; what a lead then sees of its items."""
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    project = project_of(site, kind=kind)
    site.lead.call("POST", f"/api/projects/{project}/import", data)
    return [site.lead.call("GET", f"/api/items/{row['id']}")
            for row in site.lead.call("GET", f"/api/projects/{project}/items")["items"]]


def texts(item):
    return [c["text"] for c in item["body"]["completions"]]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-16-be", "utf-32"])
def test_case_1_encodings_without_a_mark_are_read(site, encoding):
    (item,) = bring(site, FRENCH.encode(encoding))
    assert texts(item) == ["À côté – “ici”.", "Désolé."]


@pytest.mark.parametrize("data", [
    '{"prompt": "Где Пушкин?", "completions": ["a", "b"]}'.encode("cp1251"),
    '{"prompt": "日本の首都は？", "completions": ["東京", "b"]}'.encode("shift_jis"),
    FRENCH.encode() + b'{"prompt": "caf\xe9", "completions": ["a", "b"]}\n', (FRENCH * 2).encode()[:-14]])
def test_case_1_what_cannot_be_told_is_refused_and_nothing_of_it_stored(site, data):
    with pytest.raises(StudioError) as refused:
        bring(site, data)
    assert refused.value.status == 400 and "none was added" in refused.value.hint


def sheet(rows):
    openpyxl = pytest.importorskip("openpyxl")
    book, out = openpyxl.Workbook(), io.BytesIO()
    for row in rows:
        book.active.append(row)
    for cell in (cell for row in book.active.rows for cell in row):
        cell.data_type = "s"  # a text that begins with = is no formula
    book.save(out)
    return out.getvalue()


def parquet(rows):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files
    out = io.BytesIO()
    files.write_table(pyarrow.table({name: [row[i] for row in rows[1:]] for i, name in enumerate(rows[0])}), out)
    return out.getvalue()


TABLE = [["Prompt", "completion_a", "completion_b", "completion_c", "model_a", "my_id"],
         ["Où\r\nest-il ?", '=1+1, "q"', "B; b", "C", "m1", "7"]]


def comma(rows, mark=",", end="\r\n"):
    return end.join(mark.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows)


@pytest.mark.parametrize("data", [
    comma(TABLE).encode("utf-8-sig"), ("sep=;\r\n" + comma(TABLE, ";")).encode("cp1252"), comma(TABLE, "\t").encode("utf-16"),
    pytest.param(lambda: sheet(TABLE), id="xlsx"), pytest.param(lambda: parquet(TABLE), id="parquet")])
def test_case_3_a_table_brings_every_answer_whatever_it_is_written_in(site, data):
    (item,) = bring(site, data() if callable(data) else data, "rank")
    assert item["messages"][0]["content"].replace("\r\n", "\n") == "Où\nest-il ?"
    assert texts(item) == ['=1+1, "q"', "B; b", "C"] and item["body"]["completions"][0]["source"] == "m1"


def test_case_3_a_table_of_one_column_and_a_cell_that_is_missing(site):
    assert len(bring(site, b"prompt\r\nWhy?\r\n\"How, then?\"\r\n", "demonstrate")) == 2
    with pytest.raises(StudioError, match='"completion_b" must be a text, found nothing'):
        bring(site, b"prompt,completion_a,completion_b\r\nx,y,\r\n")


A, B = {"role": "assistant", "content": "A"}, {"role": "assistant", "content": "B"}
ASK = [{"role": "user", "content": "q"}]


@pytest.mark.parametrize(("row", "sources"), [
    ({"conversation_a": [*ASK, A], "conversation_b": [*ASK, B], "model_a": "x", "model_b": "y"}, ["x", "y"]),
    ({"conversation_a": [*ASK, A], "conversation_b": [*ASK, B], "model_a": "x", "model_b": "y", "winner": "tie"}, ["x", "y"]),
    ({"prompt": "q", "response_a": "A", "response_b": "B", "model_a": "x", "model_b": "y", "winner": "model_a"}, ["x", "y"]),
    ({"instruction": "q", "generations": ["A", "B"], "generation_models": ["x", "y"]}, ["x", "y"]),
    ({"prompt": "q", "responses": [{"text": "A", "model": "x"}, {"text": "B", "model": "y"}]}, ["x", "y"]),
    ({"question": "q", "answers": ["A", "B"]}, [None, None]),
    ({"prompt": "q", "completions": [A, B]}, [None, None]), ({"prompt": "q", "completions": [[A], [B]]}, [None, None]),
    ({"data": {"prompt": "q", "answer1": "A", "answer2": "B"}}, [None, None]),
    ({"request": {"model": "x", "messages": ASK}, "response": {"choices": [{"message": A}, {"message": B}]}}, ["x", "x"])])
def test_case_5_answers_in_the_shapes_of_other_tools_become_items_with_their_sources(site, row, sources):
    (item,) = bring(site, row)
    assert texts(item) == ["A", "B"] and [c["source"] for c in item["body"]["completions"]] == sources
    assert [m["content"] for m in item["messages"]] == ["q"] and "tie" not in json.dumps(item["body"])


def test_case_5_what_cannot_be_judged_is_said(site):
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    calls = {"role": "assistant", "content": None, "tool_calls": [call]}
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    parted = {"conversation_a": [*ASK, A, *ASK, A], "conversation_b": [*ASK, B, *ASK, B]}
    for row, words in (({"prompt": "q", "completions": [calls, B]}, "calls a tool"), (parted, "part before their last turn"),
                       ({"prompt": picture, "completions": ["a", "b"]}, "only text")):
        with pytest.raises(StudioError, match=words):
            bring(site, row)


@pytest.mark.parametrize("more", [{"tags": ["a\nb"]}, {"tags": [" "]},
                                  {"completions": [{"text": "a", "source": "m\n1"}, {"text": "b", "source": "m"}]}])
def test_case_19_a_tag_or_source_that_no_filter_would_find_is_refused(site, more):
    with pytest.raises(StudioError, match="is no tag or source"):
        bring(site, {"prompt": "q", "completions": ["a", "b"], **more})


def test_case_19_words_on_a_form_are_words_and_differ(site):
    project = project_of(site, kind="rate_and_rank")
    form = site.lead.call("GET", f"/api/projects/{project}")["form"]

    def flags(*labels):
        own = [{"name": f"f{n}", "label": label, "only": None} for n, label in enumerate(labels)]
        return site.lead.call("PUT", f"/api/projects/{project}/form", {**form, "rating": {**form["rating"], "flags": own}})
    assert [f["label"] for f in flags("不真实", "有害", "Ошибка")["form"]["rating"]["flags"]] == ["不真实", "有害", "Ошибка"]
    for labels, words in ((("有害", " 有害"), "second flag"), (("Bad", "BAD"), "second flag"), (("  ",), "is blank")):
        with pytest.raises(StudioError, match=words):
            flags(*labels)
    project = project_of(site, kind="questions")
    form = site.lead.call("GET", f"/api/projects/{project}")["form"]
    asked = {"name": "x", "label": "Which?", "about": "item", "type": "one",
             "options": [{"name": "a", "label": "Да"}, {"name": "b", "label": "да "}]}
    with pytest.raises(StudioError, match="second option"):
        site.lead.call("PUT", f"/api/projects/{project}/form", {**form, "questions": [asked]})


def test_case_35_a_participant_with_a_blank_is_the_same_participant(site):
    project = project_of(site, pairs(1))
    made = {"code": "ABC", "answers": 1, "parameter": "PROLIFIC_PID"}
    link = site.lead.call("POST", f"/api/projects/{project}/crowds", made)["url"].split("/")[-1].split("?")[0]

    def come(who):
        return Client(site.url)._sign_in("/api/crowd/join", {"link": link, "participant": who, "consent": True})["user"]["name"]
    assert come("5f1") == come(" 5f1 ") != come("5F1")
    with pytest.raises(StudioError, match="does not say who you are"):
        come("  ")


@pytest.mark.parametrize("name", ["علی‌رضا", "👩‍👩‍👧", "ක්‍ෂ"])
def test_case_35_names_whose_letters_are_joined_are_names(site, name):
    def invite():
        return site.lead.call("POST", "/api/invitations", {"role": "labeler", "projects": [], "uses": 1})["token"]
    Client(site.url).join(invite(), name, PASSWORD)
    bare = name.replace("\u200c", "").replace("\u200d", "")
    assert name_key(bare) == name_key(name) and legible(name) and not legible("\u200d") and not legible("a\u200d b")
    with pytest.raises(StudioError, match="taken"):
        Client(site.url).join(invite(), bare, PASSWORD)
    with pytest.raises(StudioError, match="kept for accounts"):
        Client(site.url).join(invite(), "Erased-1", PASSWORD)


def test_case_16_a_project_is_found_by_its_name_in_any_case(site, tmp_path, capsys):
    site.lead.create_project("Bean Talk", "compare")
    for name in ("bean talk", " Bean  Talk ", "BEAN TALK"):
        with pytest.raises(StudioError, match="There is a project Bean Talk already"):
            site.lead.create_project(name, "compare")
    for blank in ("  ", "\u200d\u2028"):
        with pytest.raises(StudioError, match="blank"):
            site.lead.create_project(blank, "compare")
    (tmp_path / "a.jsonl").write_text(json.dumps(pairs(1)[0]) + "\n")
    with open_template(tmp_path) as db:
        name = db.name
    assert main(["ask", str(tmp_path / "a.jsonl"), "--project", "Beans", "--kind", "compare", "--db", name]) == 0
    (tmp_path / "b.jsonl").write_text(json.dumps(pairs(2)[1]) + "\n")
    assert main(["ask", str(tmp_path / "b.jsonl"), "--project", "BEANS", "--db", name]) == 0
    assert main(["export", "comparisons", "--project", "beans", "--db", name, "--out", str(tmp_path / "o.jsonl")]) == 0
    capsys.readouterr()
    with open_database(name) as db, db.link.reading() as tx:
        from sqlalchemy import text
        assert tx.execute(text("SELECT count(*) FROM projects")).scalar() == 1
        assert tx.execute(text("SELECT count(*) FROM items")).scalar() == 2


def test_case_16_answers_are_found_by_a_name_as_the_login_would(site):
    project = project_of(site, pairs(1))
    site.ana.submit(site.ana.next(project)["tasks"][0], {"preference": 1})
    for where in ("find", "answers"):
        for name, there in (("ANA", 1), ("%20ana", 1), ("anna", 0)):
            assert site.lead.call("GET", f"/api/projects/{project}/{where}?labeler={name}")["total"] == there, (where, name)


def test_case_38_what_is_wrong_in_a_file_is_said_in_its_own_words(site, tmp_path, capsys):
    with pytest.raises(StudioError, match='the item has an unknown field "promt"'):
        bring(site, {"prompt": "q", "completions": ["a", "b"], "promt": "x"})
    (tmp_path / "a.jsonl").write_bytes('{"prompt": "Где?", "completions": ["a", "b"]}'.encode("cp1251"))
    assert main(["ask", str(tmp_path / "a.jsonl"), "--project", "p", "--kind", "compare", "--db", str(tmp_path / "a.db")]) == 2
    assert "Save the file as UTF-8" in capsys.readouterr().err


def test_case_10_logging_out_and_assigning_to_others_give_back_what_is_not_begun(site):
    def held(project):
        return len(site.lead.call("GET", f"/api/projects/{project}/held")["items"])
    make_user(site.db, "cy", "labeler")
    project = project_of(site, pairs(3))
    one, other = (in_session(site.url, site.db, "cy") for _ in range(2))
    tasks = one.next(project, 3)["tasks"]
    draft = {"draft": {"answer": {"preference": 1}}, "version": 0}
    one.call("PUT", f"/api/assignments/{tasks[0]['assignment']}/draft", draft)
    other.call("POST", "/api/logout", {})
    assert held(project) == 3, "the other browser still works on them"
    people = {u["name"]: u["id"] for u in site.lead.call("GET", "/api/users")["items"]}
    rows = [row["id"] for row in site.lead.call("GET", f"/api/projects/{project}/items")["items"]]
    site.lead.call("PATCH", f"/api/projects/{project}/items", {"items": rows[1:2], "assigned": [people["bo"]]})
    assert held(project) == 2 and len(site.bo.next(project, 3)["tasks"]) == 1
    one.call("POST", "/api/logout", {})
    left = site.lead.call("GET", f"/api/projects/{project}/held")["items"]
    assert sorted((h["name"], h["begun"]) for h in left) == [("bo", False), ("cy", True)] and broken_rules(site.db) == []


def test_case_12_the_pace_counts_what_the_answers_count(site):
    project = project_of(site, pairs(3))
    for task in site.ana.tasks(project):
        site.ana.submit(task, {"preference": 1})
    rows = site.lead.call("GET", f"/api/projects/{project}/items")["items"]
    site.lead.call("PATCH", f"/api/items/{rows[0]['id']}", {"state": "set_aside"})
    now = site.lead.call("GET", f"/api/projects/{project}/progress")
    assert now["answers"] == now["last_hour"] == 2


def test_case_15_a_reason_is_words(site):
    project = project_of(site, pairs(1))
    answer = site.ana.submit(site.ana.next(project)["tasks"][0], {"preference": 1})["judgment"]
    with pytest.raises(StudioError, match="needs a reason"):
        site.lead.call("PATCH", f"/api/judgments/{answer}", {"state": "set_aside", "reason": " \n"})


def test_case_9_what_was_set_aside_says_why_and_a_search_takes_words_in_any_order(site):
    project = project_of(site, pairs(2))
    first, second = site.ana.next(project, 2)["tasks"]
    answer = site.ana.submit(first, {"preference": 1, "notes": "Grüße aus KÖLN, 100 %"})["judgment"]
    site.ana.submit(second, {"preference": 1})
    site.lead.call("PATCH", f"/api/judgments/{answer}", {"state": "set_aside", "reason": "two dates"})
    for words, there in (("köln grüße", 1), ("grüße%20100", 1), ("köln%20bonn", 0), ("%20", 2)):
        path = f"q={words.replace(' ', '%20').replace('ö', '%C3%B6').replace('ü', '%C3%BC').replace('ß', '%C3%9F')}"
        assert len(site.ana.call("GET", f"/api/projects/{project}/mine?{path}")["items"]) == there, words
        assert site.lead.call("GET", f"/api/projects/{project}/answers?{path}")["total"] == there, words
    told = {row["queue"]: row["reason"] for row in site.ana.call("GET", f"/api/projects/{project}/mine")["items"]}
    assert told == {"set_aside": "two dates", "sent": None}
    assert "two dates" in site.ana._send("GET", f"/label/{project}/answers", None)[2].decode()


def test_case_36_instructions_are_words(site):
    with pytest.raises(StudioError, match="instructions are blank"):
        site.lead.call("PUT", f"/api/projects/{site.open}/instructions", {"text": " \n "})
    with pytest.raises(StudioError, match='"text" must have'):
        site.lead.call("PUT", f"/api/projects/{site.open}/instructions", {"text": ""})


def test_case_37_labelers_are_told_in_words_for_labelers(site):
    project = project_of(site, pairs(1))
    task = site.ana.next(project)["tasks"][0]
    for wrong in ({"preference": 9}, {"preference": 1, "notes": "half \ud83d"}, {"preference": 1, "notes": "nul \0"}):
        with pytest.raises(StudioError) as refused:
            site.ana.submit(task, wrong)
        assert "openapi" not in str(refused.value)
    with pytest.raises(StudioError) as refused:
        site.ana.call("PUT", "/api/me/password", {"old": 1})
    assert "openapi" not in str(refused.value)


@pytest.mark.parametrize("where", ["find", "answers"])
def test_case_31_a_filter_by_date_knows_dates_and_zones(site, where):
    project = project_of(site, pairs(1))
    site.ana.submit(site.ana.next(project)["tasks"][0], {"preference": 1})
    path = f"/api/projects/{project}/{where}"
    with pytest.raises(StudioError, match="which is no date"):
        site.lead.call("GET", f"{path}?from=yesterday")
    from datetime import UTC, datetime, timedelta, timezone
    ahead = datetime.now(UTC).astimezone(timezone(timedelta(hours=9)))  # its clock is nine hours on
    for shift, there in ((timedelta(hours=-1), 1), (timedelta(hours=1), 0)):
        since = (ahead + shift).isoformat(timespec="seconds").replace("+", "%2B")
        assert site.lead.call("GET", f"{path}?from={since}")["total"] == there


ANSWERS = {
    "compare": ({"completions": [{"text": c, "source": f"m{c}"} for c in "ab"], "tags": ["t, x"], "split": "test"},
                ["comparisons"]),
    "rate_and_rank": ({"completions": [{"text": c, "source": f"m{c}"} for c in "abc"]}, ["comparisons", "ratings"]),
    "rank": ({"completions": [{"text": c, "source": f"m{c}"} for c in "abc"]}, ["comparisons"]),
    "questions": ({"completions": [{"text": c, "source": f"m{c}"} for c in "ab"]}, ["questions", "ratings"]),
    "edit": ({"original": "It is fine."}, ["edits", "comparisons", "demonstrations"]),
    "demonstrate": ({}, ["demonstrations"]),
    "write_prompt": (None, ["prompts"]),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_case_13_what_every_form_gives_comes_in_again_equal_and_doubles_nothing_at_home(site, tmp_path, kind):
    own, whats = ANSWERS[kind]
    item = {"ask": {"text": "Ask."}} if own is None else {"prompt": "q", "meta": {"my_id": 7}, **own}
    project = project_of(site, [item], kind)
    task = site.ana.next(project)["tasks"][0]
    answer = {"ranks": [2, 1, 3]} if kind == "rank" else simple_answer(task)
    said = {} if kind == "write_prompt" else {"use_case": "chat"}
    site.ana.submit(task, {**answer, **said, "prompt_flags": ["ambiguous"], "notes": '=1+1 "é"\nand 12'}, seconds=3.5)
    for what in whats:
        rows = site.lead.export(project, what)
        assert ["ambiguous"] in (rows[0].get("prompt_flags"), rows[0].get("labeler_prompt_flags"))
        assert rows[0].get("labeler_use_case") == said.get("use_case")
        assert "scale" in rows[0] or what != "ratings", "its numbers mean nothing without it"
        assert rows and rows[0]["notes"] == '=1+1 "é"\nand 12' and rows[0]["judgment"] and rows[0]["answered_at"]
        for name in ("out.jsonl", "out.csv"):
            path = tmp_path / f"{what}-{name}"
            write_rows(path, iter(rows))
            with open_template(tmp_path) as other:
                assert other.import_file(path).unread == {}
                assert list(export_rows(other, what)) == rows, name
            before = len(list(export_rows(site.db, what)))
            result = site.db.import_file(path)
            assert result.added == 0 and len(list(export_rows(site.db, what))) == before


def test_case_34_nothing_a_labeler_can_fetch_tells_sources_notes_or_names_of_others(site):
    """Every operation and page that a labeler may read, after others answered; what only leads may do is refused."""
    both = [{"text": f"{c}?", "source": f"zzz-model-{c}"} for c in "ab"]
    project = project_of(site, [{"prompt": f"Why {n}?", "completions": both, "meta": {"k": "zzz-meta"}} for n in range(3)],
                         overlap=2)
    people = {u["name"]: u["id"] for u in site.lead.call("GET", "/api/users")["items"]}
    for task in site.bo.tasks(project):
        answer = site.bo.submit(task, {"preference": 1, "notes": "zzz-note"})["judgment"]
    item = site.lead.call("GET", f"/api/projects/{project}/items")["items"][-1]["id"]
    site.lead.call("POST", f"/api/items/{item}/comments", {"labeler": people["bo"], "text": "zzz-comment"})
    mine = site.ana.next(project, 2)["tasks"]
    site.ana.submit(mine[0], {"preference": 1})
    described = site.lead.call("GET", "/api/openapi.json")["paths"]
    values = {"project": project, "item": item, "judgment": answer, "assignment": mine[1]["assignment"], "user": people["bo"],
              "version": mine[0]["form_version"]}
    paths = [path.format(**{"invitation": 1, "token": 1, "webhook": 1, "crowd": 1, "snapshot": 1, **values})
             for path, ops in described.items() if "get" in ops]
    paths += ["/", "/account", f"/label/{project}", f"/label/{project}/answers", "/lead/people", f"/lead/items/{item}",
              *(f"/lead/projects/{project}{tail}" for tail in ("", "/items", "/answers", "/models", "/settings"))]
    read = 0
    for path in paths:
        status, _, data = site.ana._send("GET", path, None)
        assert status in (200, 302, 303, 307, 400, 401, 403, 404), (path, status)
        assert b"zzz-" not in data and (status != 200 or path == "/api/openapi.json" or b'"bo"' not in data), path
        read += status == 200
    assert read > 8
    for path, ops in described.items():
        for method in set(ops) & {"post", "put", "patch", "delete"}:
            if "/lead" in path or path.startswith(("/api/users", "/api/items", "/api/judgments", "/api/webhooks")):
                status, _, _ = site.ana._send(method.upper(), path.format(**{"webhook": 1, **values}), {})
                assert status == 403, (method, path, status)
