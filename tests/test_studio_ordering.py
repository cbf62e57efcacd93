"""The line put in the order of what an answer would teach."""

import random

import pytest

from harken.core.records import Judgment, Prompt
from harken.store.files import write_jsonl
from harken.studio.client import Client, StudioError
from harken.studio.work import ordering
from harken.studio.work.ordering import Asked, most_instructive
from harken.studio.work.uploads import read_items
from studio_site import Desk, broken_rules, in_session, make_user, open_template, served

WORDS = ["beans", "frost", "water", "sun", "shade", "seed", "soil", "spring", "ladder", "window", "garden", "stone"]


def text(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def asks(words):
    return Prompt.from_json({"prompt": words})


def test_first_come_the_items_that_what_is_known_does_not_decide():
    """Everybody prefers the longer answer, 60 times. A pair of 5 and 40 words is known; a pair of 20 and 20 is not."""
    rng = random.Random(0)
    said = []
    for n in range(60):
        short, long = text(rng, rng.randint(4, 10)), text(rng, rng.randint(30, 40))
        said.append(Judgment(asks(f"ask {n}"), "ranking", {"completions": [short, long], "ranks": [2, 1]},
                             f"l{n % 4}"))
    known = [Asked(n, asks(f"known {n}"), (text(rng, 5), text(rng, 35))) for n in range(10)]
    unknown = [Asked(100 + n, asks(f"unknown {n}"), (text(rng, 20), text(rng, 20))) for n in range(10)]
    asked = [one for two in zip(known, unknown) for one in two]
    order = most_instructive(said, asked)
    assert sorted(order) == sorted(a.item for a in asked)
    assert sum(i >= 100 for i in order[:10]) >= 9, order
    assert most_instructive([], asked) and most_instructive(said, []) == []


def test_the_line_is_walked_in_the_new_order_by_those_who_had_passed_it_too(tmp_path):
    with open_template(tmp_path) as db:
        desk = Desk(db, n=6, overlap=3)
        for _ in range(2):
            desk.submit("ana", desk.claim("ana")[0])
        with db.link.writing() as tx:
            moved = ordering.reorder(tx, desk.project, [6, 2, 999, 4], desk.clock())
        assert moved and [t["item"] for t in desk.claim("bo", 5)] == [6, 2, 4, 1, 3]
        assert [t["item"] for t in desk.claim("ana", 5)] == [6, 4, 3, 5], "2 and 1 are answered"
        with db.link.writing() as tx:
            ordering.reorder(tx, desk.project, None, desk.clock())
        assert [t["item"] for t in desk.claim("cy", 5)] == [1, 2, 3, 4, 5] and broken_rules(db) == []


def test_a_lead_asks_for_it_and_what_harken_next_wrote_is_taken_in(tmp_path):
    with open_template(tmp_path) as db:
        make_user(db)
        with served(db) as (url, _):
            lead: Client = in_session(url, db, "lead")
            project = lead.create_project("p", "compare")["id"]
            rows = [{"prompt": f"q{n}", "completions": [f"a {n}", f"b b {n}"], "information": 0.5, "seconds": 9}
                    for n in range(4)]
            write_jsonl(tmp_path / "queue.jsonl", rows)
            assert lead.add_items(project, read_items([tmp_path / "queue.jsonl"])) == 4
            assert lead.order(project) | {"moved": 0} == {"weighed": 4, "moved": 0}
            lead.order(project, "arrival")
            assert [t["item"] for t in lead.next(project, 4)["tasks"]] == [1, 2, 3, 4]
            written = lead.create_project("w", "write_prompt")["id"]
            with pytest.raises(StudioError, match="Only comparisons can be weighed"):
                lead.order(written)
