"""Assignment: what is handed out, to whom, how often; and that nothing said is lost."""

import uuid
from collections import Counter

import pytest
from sqlalchemy import bindparam, event, insert, literal, select, text, update

from harken.core.errors import UserError
from harken.store import audit
from harken.store.connection import RuleError
from harken.store.database import open_database
from harken.store.prepared import Prepared, Writes
from harken.store.schema import judgments
from harken.store.studio_schema import assignments, items, members, users
from harken.store.studio_schema import events as event_table
from harken.studio.work import answers, leases, line, projects
from harken.studio.work.quality import gold_marks, qualifies, settled
from harken.web.errors import ApiError
from studio_site import Desk, broken_rules, empty_postgres, open_template, simple_answer


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def db(request, tmp_path):
    if request.param == "sqlite":
        with open_template(tmp_path) as db:
            yield db
        return
    with empty_postgres(request.getfixturevalue("postgres")) as address, open_database(address) as db:
        yield db


def test_f3_each_item_gets_its_overlap_from_different_people_and_no_more(db):
    desk = Desk(db, n=5, overlap=2)
    done = Counter()
    for name in ("ana", "bo", "cy"):
        while tasks := desk.claim(name):
            assert desk.submit(name, tasks[0])["counted"]
            done[tasks[0]["item"]] += 1
    assert sorted(done.values()) == [2] * 5
    assert desk.next("dee")["status"] == "finished"
    assert broken_rules(db) == []


def test_f3_a_place_is_held_by_a_lease_and_returns_when_it_runs_out(db):
    desk = Desk(db, n=1, overlap=1, lease_minutes=30)
    task = desk.claim("ana")[0]
    assert desk.next("bo")["status"] == "empty" and desk.next("bo")["retry_after"]
    desk.clock.pass_(minutes=31)
    assert desk.claim("bo")[0]["item"] == task["item"]
    assert broken_rules(db) == []


def test_an_answer_that_comes_after_its_lease_is_never_lost(db):
    """The item was filled meanwhile: the answer is stored, and does not count."""
    desk = Desk(db, n=1, overlap=1)
    late = desk.claim("ana")[0]
    desk.clock.pass_(hours=1)
    desk.submit("bo", desk.claim("bo")[0])
    receipt = desk.submit("ana", late)
    assert receipt["counted"] is False
    assert [r.role for r in desk.rows("SELECT role FROM judgments ORDER BY seq")] == [None, "surplus"]
    assert len(list(db.comparisons())) == 1 and broken_rules(db) == []


def test_a_late_answer_counts_while_the_place_is_free(db):
    desk = Desk(db, n=1, overlap=1)
    late = desk.claim("ana")[0]
    desk.clock.pass_(hours=1)
    desk.next("bo", 1)  # sweeps; and holds the place
    desk.do("skip", "bo", desk.claim("bo")[0])
    assert desk.submit("ana", late)["counted"] is True
    assert broken_rules(db) == []


def test_f2_submitting_twice_stores_once_and_another_answer_under_the_same_id_is_refused(db):
    desk = Desk(db, n=1)
    task, client_id = desk.claim("ana")[0], str(uuid.uuid4())
    first = desk.submit("ana", task, client_id=client_id, answer={"preference": 1})
    again = desk.submit("ana", task, client_id=client_id, answer={"preference": 1})
    assert again == first | {"already": True}
    for wrong in ({"client_id": client_id, "answer": {"preference": 2}}, {"answer": {"preference": 1}}):
        with pytest.raises(ApiError) as error:
            desk.submit("ana", task, **wrong)
        assert error.value.status == 409
    with pytest.raises(ApiError, match="no such task"):
        desk.submit("bo", task)
    assert len(list(db.judgments())) == 1


def test_f1_what_is_stored_is_what_was_shown_and_said(db):
    """Ranks come in the shown order and are stored in the item's own; the echo is what was sent."""
    desk = Desk(db, kind="rate_and_rank", n=20, k=4)
    while tasks := desk.claim("ana"):
        answer = simple_answer(tasks[0]) | {"ranks": [2, 1, 3, 2]}
        echo = desk.submit("ana", tasks[0], answer=answer)["answer"]
        assert {k: echo[k] for k in answer} == answer
    for judgment in db.judgments():
        shown = [judgment.payload["completions"][i] for i in judgment.order]
        by_text = dict(zip(judgment.payload["completions"], judgment.payload["ranks"]))
        assert [by_text[text] for text in shown] == [2, 1, 3, 2]


def test_f7_the_order_is_shuffled_recorded_and_favours_no_place(db):
    """Always preferring the first shown, identical people pick each completion half of the time (400 items)."""
    desk = Desk(db, n=400)
    first = 0
    with db.link.writing():
        pass
    while tasks := desk.claim("ana", 5):
        for task in tasks:
            first += task["completions"][0].endswith(" 0")
            desk.submit("ana", task, answer={"preference": -1})
    assert 160 < first < 240, "binomial(400, 1/2) leaves this range once in 16,000"
    orders = [j.order for j in db.judgments()]
    assert Counter(o[0] for o in orders) == {0: first, 1: 400 - first}
    assert all(j.payload["ranks"][j.order[0]] == 1 for j in db.judgments())


def test_f6_f8_a_task_shows_neither_sources_nor_what_others_said(db):
    desk = Desk(db, n=0, overlap=2, gold_rate=0.5)
    desk.add([{"prompt": "q", "completions": [{"text": "x", "source": "SECRET-MODEL"}, {"text": "y", "source": "SECRET-MODEL-2"}],
               "gold": {"ranks": [1, 2]}, "role": role, "use_case": role} for role in ("task", "gold")])
    desk.submit("ana", desk.claim("ana")[0], answer={"preference": 0, "notes": "SECRET-NOTE"})
    for task in desk.claim("bo", 2):
        assert "SECRET" not in str(task) and "gold" not in str(task).replace("'use_case': 'gold'",
                                                                             "") and "ranks" not in str(task)
        assert set(task) == {"assignment", "item", "project", "kind", "stage", "form_version", "instruction_hash", "prompt",
                             "completions", "ask", "warnings", "claimed_at", "expires_at", "draft", "draft_version",
                             "suggestion"}


def test_f8_completions_that_name_their_maker_are_counted(db):
    desk = Desk(db, n=0)
    found = desk.add([{"prompt": "Who are you?", "completions": ["I am ChatGPT, made by OpenAI.", "A helper."]},
                      {"prompt": "And you?", "completions": ["As a language model trained by Google, no.", "Nobody."]},
                      {"prompt": "Tea?", "completions": ["Claude Monet painted gardens.", "Google it."]}])
    assert found["names_its_maker"] == 2


def test_items_that_hold_an_answer_twice_are_counted(db):
    rows = [{"prompt": f"q{i}", "completions": ["a", "b" if i else "a"]} for i in range(3)]
    assert Desk(db, n=0).add([*rows, rows[0]])["repeats_an_answer"] == 1


def test_f9_undo_restores_what_was_said_and_the_correction_replaces_it(db):
    desk = Desk(db, n=1, overlap=1)
    task = desk.claim("ana")[0]
    desk.submit("ana", task, answer={"preference": -3, "notes": "oops"})
    back = desk.undo("ana")
    assert back["undone"] == "submit" and back["task"]["draft"]["answer"]["preference"] == -3
    assert list(db.comparisons()) == [] and broken_rules(db) == []
    desk.submit("ana", back["task"], answer={"preference": 3})
    assert [j.payload["ranks"][j.order[1]] for j in db.judgments()] == [1]
    assert len(desk.rows("SELECT 1 FROM judgments")) == 2, "what was undone stays stored"
    assert broken_rules(db) == []


def test_f9_a_skip_can_be_undone_and_undo_happens_once(db):
    desk = Desk(db, n=2)
    task, client_id = desk.claim("ana")[0], str(uuid.uuid4())
    desk.do("skip", "ana", task)
    back = desk.undo("ana", client_id=client_id)
    assert back["undone"] == "skip" and back["task"]["assignment"] == task["assignment"]
    assert desk.undo("ana", client_id=client_id) == back | {"already": True}
    with pytest.raises(ApiError) as error:
        desk.undo("ana")
    assert error.value.code == "nothing_to_undo" and broken_rules(db) == []


def test_undo_of_a_place_that_others_took_gives_the_task_back_all_the_same(db):
    desk = Desk(db, n=1)
    task = desk.claim("ana")[0]
    desk.do("skip", "ana", task)
    desk.submit("bo", desk.claim("bo")[0])
    back = desk.undo("ana")
    assert desk.submit("ana", back["task"])["counted"] is False and broken_rules(db) == []


def test_skipped_items_go_to_others_and_are_set_aside_after_three(db):
    desk = Desk(db, n=1, overlap=1, skip_limit=3)
    for name in ("ana", "bo", "cy"):
        desk.do("skip", name, desk.claim(name)[0])
        assert desk.claim(name) == [], "not shown again to who skipped it"
    assert desk.rows("SELECT state FROM items")[0].state == "set_aside"
    assert desk.next("dee")["tasks"] == [] and broken_rules(db) == []


def test_unsafe_hides_a_category_and_undo_brings_it_back(db):
    desk = Desk(db, n=0)
    desk.add([{"prompt": f"q{i}", "completions": ["a", "b"], "warnings": ["violence"] if i % 2 else []} for i in range(6)])
    desk.submit("ana", desk.claim("ana")[0])
    bad = desk.claim("ana")[0]
    assert bad["warnings"] == ["violence"]
    assert desk.do("unsafe", "ana", bad, hide=True)["hidden"] == ["violence"]
    seen = []
    while tasks := desk.claim("ana"):
        seen += tasks[0]["warnings"]
        desk.submit("ana", tasks[0])
    assert seen == []
    while desk.undo("ana")["undone"] != "unsafe":
        pass
    assert any(t["warnings"] for t in desk.claim("ana", 5, have=[bad["assignment"]])), "allowed again: the line is walked anew"
    assert broken_rules(db) == []


def test_exposure_is_limited_by_the_day(db):
    desk = Desk(db, n=0, exposure_limit=2)
    desk.add([{"prompt": f"q{i}", "completions": ["a", "b"], "warnings": ["hate"]} for i in range(5)])
    for _ in range(2):
        desk.submit("ana", desk.claim("ana")[0])
    assert desk.next("ana")["status"] == "limit"
    desk.clock.pass_(days=1)
    for _ in range(2):
        desk.submit("ana", desk.claim("ana")[0])
    assert desk.next("ana")["tasks"] == []


def test_a_daily_limit_stops_and_the_next_day_goes_on(db):
    desk = Desk(db, n=5, daily_limit=2)
    for _ in range(2):
        desk.submit("ana", desk.claim("ana")[0])
    assert desk.next("ana")["status"] == "limit"
    desk.clock.pass_(days=1)
    assert desk.next("ana")["status"] == "ok"


def test_tasks_that_the_page_lost_come_back_and_others_can_have_them_after_leaving(db):
    desk = Desk(db, n=4)
    held = desk.claim("ana", 2)
    assert [t["assignment"] for t in desk.claim("ana", 2)] == [t["assignment"] for t in held], "the page was loaded again"
    more = desk.claim("ana", 1, have=[t["assignment"] for t in held])
    assert more[0]["assignment"] not in [t["assignment"] for t in held]
    with db.link.writing() as tx:
        leases.save_draft(tx, desk.person("ana"), held[0]["assignment"], {"text": "half"}, 0, desk.clock())
        assert leases.leave(tx, desk.person("ana"), desk.project, desk.clock()) == {"released": 2, "kept": 1}
    assert {t["item"] for t in desk.claim("bo", 5)} == {t["item"] for t in [*held[1:], *more]} | {4}
    assert desk.claim("ana")[0]["draft"] == {"text": "half"} and broken_rules(db) == []


def test_a_draft_renews_the_lease_and_two_windows_do_not_overwrite_each_other(db):
    desk = Desk(db, n=1, lease_minutes=10)
    task = desk.claim("ana")[0]
    for minute in range(4):
        desk.clock.pass_(minutes=8)
        with db.link.writing() as tx:
            saved = leases.save_draft(tx, desk.person("ana"), task["assignment"], {"text": f"draft {minute}"}, minute,
                                      desk.clock())
        assert saved["version"] == minute + 1 and desk.claim("bo") == []
    with pytest.raises(ApiError) as error, db.link.writing() as tx:
        leases.save_draft(tx, desk.person("ana"), task["assignment"], {"text": "old window"}, 1, desk.clock())
    assert error.value.extra["current"] == {"draft": {"text": "draft 3"}, "version": 4}


def test_adaptive_overlap_stops_when_settled_and_asks_on_when_not(db):
    desk = Desk(db, n=2, overlap={"min": 2, "max": 5})
    votes = {0: [-2, -2], 1: [-2, 2, -2, 2, -2]}  # the first item is settled at once, the second never
    said = Counter()
    for name in "abcdefg":
        while tasks := desk.claim(name):
            item = int(tasks[0]["prompt"]["messages"][0]["content"].split()[-1])
            for_zero = -1 if tasks[0]["completions"][0].endswith(" 0") else 1
            want = votes[item][said[item]]
            desk.submit(name, tasks[0], answer={"preference": abs(want) * for_zero * (1 if want < 0 else -1)})
            said[item] += 1
    assert said == {0: 2, 1: 5} and broken_rules(db) == []


def test_settled_by_hand():
    """Two votes one way lead by two; 2 against 1 leads by one; a tie vote is a verdict of its own."""
    a, b, tie = {"ranks": [1, 2]}, {"ranks": [2, 1]}, {"ranks": [1, 1]}
    assert settled([a, a]) and not settled([a]) and not settled([a, a, b]) and settled([a, a, a, b])
    assert not settled([a, tie]) and settled([tie, tie]) and not settled([{"completion": "x"}] * 9)
    assert not settled([{"ranks": [1, 2, 3]}, {"ranks": [1, 3, 2]}]) and settled([{"ranks": [1, 2, 2]}] * 2)


def test_gold_marks_by_hand():
    """Of 3 pairs the gold [1, 2, 2] and the answer [1, 2, 3] agree on two; of two flags asked about, on one."""
    gold = {"ranks": [1, 2, 2], "ratings": [{"flags": {"sexual": True}}, {"flags": {}}, {"flags": {"violent": False}}]}
    said = {"ranks": [1, 2, 3], "ratings": [{"flags": {"sexual": False}}, {"flags": {}}, {"flags": {"violent": False}}]}
    assert gold_marks(gold, said) == {"flags": [1, 2], "comparisons": [2, 3]}
    assert qualifies({"flags": [3, 4], "comparisons": [3, 4]}, [6, 6], {"flags": 0.75, "comparisons": 0.75, "demonstrations": 6})
    assert not qualifies({"flags": [2, 4], "comparisons": [4, 4]}, [], {"flags": 0.75})
    assert not qualifies({}, [7, 4], {"demonstrations": 6}) and qualifies({}, [], {"flags": 0.75})


def test_gold_questions_look_like_tasks_and_score_without_counting(db):
    desk = Desk(db, n=30, gold_rate=0.3)
    desk.add([{"prompt": f"gold {i}", "completions": ["good", "bad"], "role": "gold",
               "gold": {"ranks": [1, 2]}} for i in range(5)])
    gold = 0
    while tasks := desk.claim("ana"):
        task = tasks[0]
        assert task["stage"] == "task"
        if task["completions"][0] in ("good", "bad"):
            gold += 1
            desk.submit("ana", task, answer={"preference": -1 if task["completions"][0] == "good" else 1})
        else:
            desk.submit("ana", task)
    assert 1 <= gold <= 5 and len(list(db.judgments())) == 30, "gold answers are no data"
    score = desk.rows("SELECT score FROM members")[0].score
    assert f"[{gold}, {gold}]" in str(score)


def test_a_qualifying_test_comes_first_and_its_thresholds_decide(db):
    desk = Desk(db, n=3, qualification={"flags": 0.75, "comparisons": 0.75, "demonstrations": 6})
    desk.add([{"prompt": f"test {i}", "completions": ["good", "bad"], "role": "qualify",
               "gold": {"ranks": [1, 2]}} for i in range(4)])

    def sit(name, right):
        for n in range(4):
            task = desk.claim(name)[0]
            assert task["stage"] == "qualify"
            good = -1 if task["completions"][0] == "good" else 1
            desk.submit(name, task, answer={"preference": good if n < right else -good})
        return desk.next(name)["status"]

    assert sit("ana", 3) == "ok", "three of four are 75 %"
    assert sit("bo", 2) == "not_qualified"
    desk.person("cy", held_out=True)
    assert desk.claim("cy")[0]["stage"] == "task", "held-out labelers are not screened"


def test_repeats_are_the_same_question_mirrored_or_not_and_do_not_count(db):
    desk = Desk(db, n=12, k=2, repeat_rate=0.5, repeat_minutes=30)
    for _ in range(30):
        desk.clock.pass_(minutes=10)
        if tasks := desk.claim("ana"):
            desk.submit("ana", tasks[0])
    rows = desk.rows("""SELECT a.shown_order AS first, b.shown_order AS second, b.id FROM assignments a
                        JOIN assignments b ON a.item_id = b.item_id AND a.user_id = b.user_id AND a.turn = 0 AND b.turn = 1""")
    assert len(rows) >= 3 and {r.first == r.second for r in rows} == {True, False}
    assert len(list(db.judgments())) == 12 and broken_rules(db) == []
    assert {r.role for r in desk.rows("SELECT DISTINCT role FROM judgments")} == {None, "repeat"}


def test_f12_answers_under_an_older_form_keep_its_version(db):
    from harken.studio.work.forms import default_form
    desk = Desk(db, n=2)
    old = desk.claim("ana")[0]
    form = default_form("compare")
    form["strength"] = {"max": 1, "labels": ["better"]}
    with db.link.writing() as tx:
        projects.set_form(tx, desk.project, form, desk.clock())
    desk.submit("ana", old, answer={"preference": -3})
    new = desk.claim("ana")[0]
    assert new["form_version"] != old["form_version"]
    with pytest.raises(ApiError, match=r"answer.preference"):
        desk.submit("ana", new, answer={"preference": -3})
    desk.submit("ana", new, answer={"preference": -1})
    assert [j.form_version for j in db.judgments()] == [old["form_version"], new["form_version"]]


def test_f15_what_was_asked_is_stored_with_every_answer(db):
    """A project that turns its question round: each answer leads to the wording it was given under."""
    desk = Desk(db, n=2)
    wordings = ("Which answer is more helpful?", "Which answer is more harmful?")
    for wording in wordings:
        with db.link.writing() as tx:
            projects.set_instructions(tx, desk.project, {"text": wording}, desk.clock())
        desk.submit("ana", desk.claim("ana")[0])
    asked = desk.rows("SELECT i.text FROM judgments j JOIN instructions i ON i.hash = j.instruction_hash ORDER BY j.seq")
    assert [row.text for row in asked] == list(wordings)


def test_a_changed_overlap_opens_and_closes_items(db):
    desk = Desk(db, n=3)
    while tasks := desk.claim("ana"):
        desk.submit("ana", tasks[0])
    for overlap, status in ((2, "ok"), (1, "finished")):
        with db.link.writing() as tx:
            projects.change_project(tx, desk.project, {"overlap": overlap}, desk.clock())
        assert desk.next("bo" if overlap == 2 else "cy")["status"] == status
        assert desk.next("ana")["tasks"] == [] and broken_rules(db) == []


def test_the_audit_is_a_chain_that_shows_any_change(db):
    desk = Desk(db, n=1)
    desk.submit("ana", desk.claim("ana")[0])
    with db.link.writing() as tx:
        assert len(audit.verify(tx, "it").end) == 64
    for table in ("events", "judgments"):
        with pytest.raises(Exception, match="never changed"), db.link.writing() as tx:
            tx.execute(text(f"UPDATE {table} SET created_at = 'x'"))
    with db.link.writing() as tx:
        if db.link.is_file:
            tx.execute(text("DROP TRIGGER events_no_update"))
        else:
            tx.execute(text("DROP TRIGGER events_redacted ON events"))
        tx.execute(text("UPDATE events SET user_id = 99 WHERE kind = 'submit'"))
    with pytest.raises(UserError, match="does not match its hash"), db.link.reading() as tx:
        audit.verify(tx, "it")


@pytest.mark.slow
def test_f5_a_claim_and_a_submit_cost_the_same_whatever_the_project_or_the_history(tmp_path):
    """Counted in steps of SQLite's machine, which no neighbour slows: 200,000 items, and 300 answers behind, within 1.5x."""
    steps = {}
    for n in (1_000, 200_000):
        with open_template(tmp_path) as db:
            desk = Desk(db, n=1, overlap=2)
            with db.link.writing() as tx:
                tx.execute(text(f"""INSERT INTO items SELECT NULL, project_id, position + n, role, kind, prompt_key, body,
                    warnings, content || n, state, wanted, done, held, free, again, skips, flags, created_at, assigned FROM items,
                    (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {n - 1}) SELECT n FROM c)"""))
                tx.execute(text("UPDATE projects SET items_total = :n"), {"n": n})
                tx.execute(text("ANALYZE"))
            counted = [0]

            def count(counted=counted):
                counted[0] += 1

            def watch(connection, *_, count=count):
                connection.set_progress_handler(count, 10)

            event.listen(db.link.engine, "checkout", watch)
            for answered in (10, 300):
                while len(desk.rows("SELECT 1 FROM judgments")) < answered:
                    desk.submit("ana", desk.claim("ana")[0])
                counted[0] = 0
                for _ in range(10):
                    desk.submit("ana", desk.claim("ana")[0])
                steps[n, answered] = counted[0]
    assert max(steps.values()) < 1.5 * min(steps.values()), steps


def test_an_answer_to_a_place_that_a_lowered_overlap_took_away_is_surplus(db):
    desk = Desk(db, n=1, overlap=2)
    first, second = desk.claim("ana")[0], desk.claim("bo")[0]
    desk.submit("ana", first)
    with db.link.writing() as tx:
        projects.change_project(tx, desk.project, {"overlap": 1}, desk.clock())
    assert desk.submit("bo", second)["counted"] is False
    assert [r.role for r in desk.rows("SELECT role FROM judgments ORDER BY seq")] == [None, "surplus"]
    assert broken_rules(db) == []
    desk.undo("bo")
    assert broken_rules(db) == []


def test_statements_run_together_are_one_trip_or_one_after_the_other(db):
    """The same rows on both kinds of database; of a refused part nothing is left."""
    desk = Desk(db, n=2)
    rename = Prepared(update(users).where(users.c.name == bindparam("who")).values(name=bindparam("name"))
                      .returning(users.c.name))
    wanted = Prepared(update(items).where(items.c.id == bindparam("key")).values(wanted=bindparam("wanted")))
    desk.person("ana"), desk.person("bo")
    def both(tx, who, name, overlap):
        writes = Writes(tx)
        writes.add(wanted, {"key": 1, "wanted": overlap})
        return writes.send(rename, {"who": who, "name": name})

    with db.link.writing() as tx:
        assert both(tx, "ana", "eve", 3) == "eve"
        assert Writes(tx).send() is None and Writes(tx).send(wanted, {"key": 2, "wanted": 5}) is None
    assert [r.wanted for r in desk.rows("SELECT wanted FROM items ORDER BY id")] == [3, 5]
    with pytest.raises(RuleError), db.link.writing() as tx:
        both(tx, "eve", "bo", 4)
    assert desk.rows("SELECT wanted FROM items WHERE id = 1")[0].wanted == 3


def test_constants_stand_in_the_text_of_prepared_statements(db):
    """As parameters they would make SQLite compile a statement that may use a partial index anew at each run."""
    odd = "it's 100%: ? %s"
    with db.link.reading() as tx:
        assert tuple(Prepared(select(literal(odd).label("a"), literal(7).label("b"))).first(tx)) == (odd, 7)
        for statement in (answers._submission, line._place, line._line[True], line._reopened[False], leases._overdue):
            assert set(statement.compiled(tx.dialect).constants.values()) <= {0}  # SQLAlchemy's own OFFSET on SQLite


def test_prepared_statements_give_what_sqlalchemy_gives(db):
    """Every type of the schema there and back, None and booleans included; a broken rule is SQLAlchemy's own error."""
    desk = Desk(db, n=2)
    desk.submit("ana", desk.claim("ana")[0], answer={"preference": 1, "notes": "é 🙂"})
    for table in (assignments, items, judgments, members, event_table):
        with db.link.reading() as tx:
            mine, theirs = Prepared(select(table)).all(tx), tx.execute(select(table)).fetchall()
        assert [row._asdict() for row in mine] == [dict(zip(table.c.keys(), row)) for row in theirs] and mine
        assert [[type(v) for v in row] for row in mine] == [[type(v) for v in row] for row in theirs]
    copy = Prepared(insert(members).from_select(members.c.keys(), select(members)))
    with pytest.raises(RuleError), db.link.writing() as tx:
        copy.run(tx)
    with db.link.reading() as tx:
        assert Prepared(select(users.c.name).where(users.c.id == bindparam("id"))).first(tx, id=-1) is None
