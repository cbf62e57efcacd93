"""Own questions and a model's suggestions: stored, exported, imported as they were; agreement and anchoring as planted."""

import json
import math
import random

import pytest

from harken.core.records import Judgment, Prompt
from harken.store.files import Reader
from harken.studio.client import StudioError
from harken.studio.lead.anchoring import Given, anchoring, difference, first_answers
from harken.studio.lead.insight import insight
from harken.studio.lead.questions import dice
from harken.studio.work.forms import default_form
from harken.studio.work.stored import load
from studio_site import Desk, new_site, open_template

OPTIONS = [{"name": "friendly", "label": "Friendly"}, {"name": "rude", "label": "Rude"}]
QUESTIONS = [
    {
        "name": "helpful",
        "label": "How helpful?",
        "about": "answer",
        "type": "scale",
        "min": 1,
        "max": 5,
        "low": "not",
        "high": "very",
    },
    {"name": "true", "label": "How true?", "about": "answer", "type": "scale", "min": 0, "max": 3},
    {"name": "tone", "label": "Its tone?", "about": "answer", "type": "one", "options": OPTIONS},
    {"name": "marks", "label": "Mark it", "about": "answer", "type": "spans", "options": OPTIONS, "required": False},
    {"name": "topics", "label": "Topics", "about": "item", "type": "several", "options": OPTIONS},
    {"name": "turn_ok", "label": "Was it right?", "about": "turn", "type": "scale", "min": 1, "max": 3},
]
DIALOGUE = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "A colour?"}]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with new_site(tmp_path_factory.mktemp("questions")) as made:
        yield made


def asked(site, name="questions", items=1):
    project = site.lead.create_project(name, "questions", overlap=2)["id"]
    form = {**default_form("questions"), "questions": QUESTIONS}
    del form["version"]
    site.lead.call("PUT", f"/api/projects/{project}/form", form)
    site.lead.add_items(project, [{"prompt": DIALOGUE, "completions": [f"Blue {i} 🔵 sky.", f"Red {i}."]} for i in range(items)])
    return project


def said(task, **changed):
    """An answer in the shown order: the better one is blue."""
    answers = [
        {"helpful": 5 if "Blue" in text else 2, "true": 3, "tone": "friendly", "marks": []} for text in task["completions"]
    ]
    for one, text in zip(answers, task["completions"]):
        if "Blue" in text:
            one["marks"] = [{"from": 7, "to": 8, "label": "rude"}]
    return {"said": {"item": {"topics": ["rude"]}, "answers": answers, "turns": [{"turn": 1, "turn_ok": 2}], **changed}}


def test_answers_to_questions_are_stored_in_the_items_order_and_come_in_again(site, tmp_path):
    project = asked(site)
    (task,) = site.ana.next(project)["tasks"]
    receipt = site.ana.submit(task, said(task), seconds=3)
    assert receipt["answer"]["said"] == said(task)["said"], "the echo is in the shown order"
    (row,) = site.lead.export(project, "questions")
    assert row["completions"][0].startswith("Blue") and row["said"]["answers"][0]["helpful"] == 5
    start, end = row["said"]["answers"][0]["marks"][0]["from"], row["said"]["answers"][0]["marks"][0]["to"]
    assert row["completions"][0][start:end] == "🔵", "characters, not UTF-16 units"
    ratings = site.lead.export(project, "ratings")
    assert [(r["criterion"], r["score"]) for r in ratings] == [("helpful", 5), ("true", 3), ("helpful", 2), ("true", 3)]
    for what, rows in (("questions", [row]), ("ratings", ratings)):
        file = tmp_path / f"{what}.jsonl"
        file.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
        records = list(Reader(file))
        assert [r.to_json() for r in records] == [{k: v for k, v in r.items() if k in records[0].to_json()} for r in rows]
        with open_template(tmp_path) as other:
            other.import_file(file)
            kept = list(other.answers(what))
            assert [j.payload["said"] if what == "questions" else j.payload["criterion"] for j in kept] == (
                [row["said"]] if what == "questions" else ["helpful", "true", "helpful", "true"])


@pytest.mark.parametrize(("change", "words"), [
    ({"turns": [{"turn": 1, "turn_ok": 2}, {"turn": 1, "turn_ok": 3}]}, "names a turn twice"),
    ({"turns": [{"turn": 1, "turn_ok": 9}]}, "turn_ok"), ({"item": {}}, "topics"), ({"item": {"topics": ["angry"]}}, "topics"),
    ({"answers": []}, "answers")])
def test_an_answer_that_does_not_fit_its_question_names_it(site, change, words):
    project = asked(site, f"misfits {random.random()}")
    (task,) = site.ana.next(project)["tasks"]
    with pytest.raises(StudioError, match=words):
        site.ana.submit(task, said(task, **change))
    wrong = said(task)
    wrong["said"]["answers"][0]["marks"] = [{"from": 3, "to": 99, "label": "rude"}]
    with pytest.raises(StudioError, match="marks 3 to 99 of an answer of"):
        site.ana.submit(task, wrong)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({**QUESTIONS[0], "name": "turn"}, "called turn"),
        ({**QUESTIONS[0], "min": 5}, "below"),
        ({**QUESTIONS[2], "options": OPTIONS[:1]}, "options"),
        ({**QUESTIONS[3], "about": "item"}, "marked in answers"),
    ],
)
def test_a_form_that_nobody_could_answer_is_refused(site, question, words):
    project = site.lead.create_project(f"bad {random.random()}", "questions")["id"]
    form = {k: v for k, v in default_form("questions").items() if k != "version"} | {"questions": [question]}
    with pytest.raises(StudioError, match=words):
        site.lead.call("PUT", f"/api/projects/{project}/form", form)


def test_agreement_on_each_question_is_that_of_its_own_scale(site):
    """Two people on 12 items: alike on how helpful, opposite on how true; one mark of the two shared."""
    project = asked(site, "agreement", 12)
    for who, shift in ((site.ana, 0), (site.bo, 1)):
        for _ in range(12):
            (task,) = who.next(project)["tasks"]
            n = int(task["completions"][0].split()[1].rstrip("."))
            answer = said(task)
            for one, text in zip(answer["said"]["answers"], task["completions"]):
                one |= {"helpful": 1 + n % 5, "true": 3 * ((n + shift) % 2), "marks": [
                    {"from": 0, "to": 2 + shift * 2, "label": "rude"}] if "Blue" in text else []}
            who.submit(task, answer)
    with site.db.link.reading() as tx:
        rows = {
            r.name: r for r in insight(load(tx, project), site.lead.call("GET", f"/api/projects/{project}")["form"]).agreement
        }
    assert rows["How helpful?"].value.value == pytest.approx(1) and rows["How true?"].value.value < -0.5
    assert rows["Mark it"].value.value == pytest.approx((2 * 2 / (2 + 4) + 1) / 2), "2 of 2 and 4 characters; nothing and nothing"
    assert dice(set(), set()) == 1 and dice({1}, set()) == 0


def test_every_grade_on_a_scale_is_a_rating_with_its_criterion():
    payload = {
        "completions": ["a", "b"],
        "questions": QUESTIONS,
        "said": {"item": {}, "turns": [], "answers": [{"helpful": 3}, {"true": 0}]},
    }
    graded = Judgment(Prompt.of("q"), "questions", payload, "ana").ratings()
    assert [(j.kind, j.payload) for j in graded] == [
        ("rating", {"completion": "a", "score": 3, "criterion": "helpful"}),
        ("rating", {"completion": "b", "score": 0, "criterion": "true"}),
    ]


# Suggestions


def suggested(n, **settings):
    return [
        {
            "prompt": f"q{i}",
            "completions": ["one", "two"],
            "suggestion": {"answer": {"preference": -2 if i % 2 else 3}, "source": "m"},
        }
        for i in range(n)
    ]


def test_a_suggestion_is_shown_first_or_after_and_never_names_its_model(tmp_path):
    with open_template(tmp_path) as db:
        desk = Desk(db, n=0, suggestions_after=0.5)
        desk.add(suggested(60))
        first = {"before": 0, "after": 0}
        for _ in range(60):
            (task,) = desk.claim("ana")
            shown = task["suggestion"]
            assert "'m'" not in str(task)
            number = int(task["prompt"]["messages"][0]["content"][1:])
            flipped = task["completions"] == ["two", "one"]
            model = (-2 if number % 2 else 3) * (-1 if flipped else 1)
            if shown is not None:
                assert shown["answer"]["preference"] == model, "in the order in which the answers stand"
            receipt = desk.submit("ana", task, answer={"preference": -model if number < 30 else model})
            first["after" if shown is None else "before"] += 1
            wanted = {"answer": {"preference": model}} if shown is None and number < 30 else None
            assert (receipt["suggestion"] and {"answer": {"preference": receipt["suggestion"]["answer"]["preference"]}}) == wanted
        assert 15 < first["before"] < 45
        with db.link.reading() as tx:
            given = first_answers(tx, desk.project)
        assert sum(g.before for g in given) == first["before"] and sum(g.agrees for g in given) == 30
        desk.undo("ana")  # the first answer stays the first: what was thought before the suggestion was seen
        (task,) = desk.claim("ana")
        desk.submit("ana", task, answer={"preference": 0})
        with db.link.reading() as tx:
            assert sum(g.agrees for g in first_answers(tx, desk.project)) == 30


def test_a_suggestion_that_is_no_answer_is_refused(tmp_path):
    with open_template(tmp_path) as db, pytest.raises(Exception, match=r"Item 1: .*preference"):
        Desk(db, n=0).add([{"prompt": "q", "completions": ["a", "b"], "suggestion": {"answer": {"preference": 9}}}])


def test_the_difference_worked_by_hand():
    """Two labelers: 8 of 10 against 3 of 10, and 9 of 10 against 5 of 5.

    (80 - 30) / 20 = 2.5 and (45 - 50) / 15 = -0.3333; weights 5 and 3.3333: 2.16667 / 8.3333 = 0.26.
    """
    found = difference([(8, 10, 3, 10), (9, 10, 5, 5)])
    assert found.value == pytest.approx(0.26) and found.n == 35
    spread = 25 * (8.5 / 11 * 2.5 / 11 / 10 + 3.5 / 11 * 7.5 / 11 / 10) + (10 / 3) ** 2 * (
        9.5 / 11 * 1.5 / 11 / 10 + 5.5 / 6 * 0.5 / 6 / 5
    )
    assert found.high - found.value == pytest.approx(1.959964 * math.sqrt(spread) / (25 / 3), rel=1e-5)


def crowd(rng, n, pull, labelers=12, share=0.3):
    """Labelers who agree with a model each at their own rate; `pull` of the rest give in when they see the suggestion."""
    given = []
    for k in range(labelers):
        own = 0.35 + 0.4 * rng.random()
        for _ in range(n):
            before = rng.random() >= share
            agrees = rng.random() < own or (before and rng.random() < (pull(k) if callable(pull) else pull))
            given.append(Given(f"l{k}", before, agrees))
    return given


def test_planted_anchoring_is_recovered_and_its_interval_holds():
    rng, inside, none = random.Random(0), 0, 0
    for _ in range(200):
        found = anchoring(crowd(rng, 60, 0.4))
        truth = 0.4 * (1 - 0.55)  # on average over the labelers' own rates, uniform from 0.35 to 0.75
        inside += found.effect.low - 0.03 <= truth <= found.effect.high + 0.03
        free = anchoring(crowd(rng, 60, 0.0))
        none += free.effect.low <= 0 <= free.effect.high
    assert inside >= 186 and none >= 180, (inside, none)


def test_labelers_who_follow_suggestions_are_found_by_name():
    found = anchoring(crowd(random.Random(1), 150, lambda k: 0.9 if k in (2, 5) else 0.0))
    assert set(found.found) >= {"l2", "l5"} and len(found.found) <= 4
    assert anchoring([Given("ana", True, True)] * 30) is None
