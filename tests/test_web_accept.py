"""The compiled test of a schema and the words of `json_schema` agree, and every path finds its own operation."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.routing import Match

from harken.studio.api.declare import API
from harken.studio.app import Studio, create_app
from harken.studio.tasks import TASKS
from harken.studio.work.forms import answer_schema, default_form
from harken.web import accept, json_schema
from harken.web.accept import DEPTH, accepts, storable
from harken.web.json_schema import ANY, BOOLEAN, UUID, array, either, enum, integer, mapping, nullable, number, obj, text
from studio_site import open_template

leaves = st.sampled_from([ANY, BOOLEAN, UUID, text(3), text(5, 2), integer(), integer(1, 3), number(), enum("a", "b"),
                          enum(1, True)])
schemas = st.recursive(leaves, lambda s: st.one_of(
    st.builds(nullable, s), st.builds(either, s, s), st.builds(array, s, st.integers(0, 1), st.integers(1, 3)),
    st.builds(mapping, s, st.integers(0, 3)),
    st.builds(lambda fields, optional: obj(fields, tuple(f for f in fields if f in optional)),
              st.dictionaries(st.sampled_from("abc"), s, max_size=3), st.sets(st.sampled_from("abc")))), max_leaves=6)
words = st.sampled_from(["", "a", "b", "abc", "abcd", "\x00", "\ud800", "é", "12345678", "x" * 65])
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 4), st.sampled_from([0.0, 1.0, 2.5, math.inf, math.nan, 10**400]), words),
    lambda v: st.one_of(st.lists(v, max_size=4), st.dictionaries(st.one_of(st.sampled_from("abc"), words), v, max_size=4)),
    max_leaves=8)


@settings(max_examples=50)
@given(schemas, st.lists(values, min_size=5, max_size=5))
def test_what_is_accepted_is_what_no_problem_is_found_with(schema, several):
    for value in several:
        assert accepts(schema)(value) == (json_schema._problem(schema, value, "") is None)


@pytest.mark.parametrize("kind", TASKS)
def test_the_same_for_the_answers_of_every_task(kind):
    schema = answer_schema(default_form(kind), 3)
    fitting = TASKS[kind].trial
    for value in ({}, {"notes": "x"}, {"ranks": [1, 2, 9]}, fitting.answer if fitting else {}, None, []):
        assert accepts(schema)(value) == (json_schema._problem(schema, value, "") is None)


@pytest.mark.parametrize("depth", [DEPTH - 1, DEPTH, DEPTH + 1])
@pytest.mark.parametrize("inside", [1, [], [1], {}, {"a": []}])
def test_depth_is_counted_alike(depth, inside):
    value = inside
    for n in range(depth):
        value = [value] if n % 2 else {"k": value}
    assert storable(value) == (json_schema._unstorable(value, "it") is None)


def test_a_schema_that_is_gone_does_not_lend_its_test_to_another(monkeypatch):
    monkeypatch.setattr(accept, "_tests", {})
    for n in range(50):  # each new schema may stand where the one before stood
        assert accepts({"type": "integer", "minimum": n, "maximum": n})(n)
    monkeypatch.setattr(accept, "MOST", 0)
    assert accepts({"type": "null"})(None) and len(accept._tests) == 50


def test_the_first_route_that_fits_is_the_operations_own(tmp_path):
    with open_template(tmp_path) as db:
        studio = Studio(db, single_user=True)
        app = create_app(studio)
        studio.close()
    for op in API.operations.values():
        path = op.path.replace("{version}", "abc")
        parts = ["7" if p.startswith("{") else p for p in path.split("/")]
        scope = {"type": "http", "method": op.method, "path": "/".join(parts), "root_path": ""}
        first = next(r for r in app.routes if r.matches(scope)[0] is Match.FULL)
        assert (first.path, op.method in first.methods) == (op.path, True)
