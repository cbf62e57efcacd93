"""The lead's figures against hand-worked numbers, without a browser."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from harken.core.protocols import Estimate
from harken.core.records import Judgment, Prompt
from harken.studio.lead import charts
from harken.studio.lead.insight import insight
from harken.studio.pages import lead as pages_lead
from harken.studio.work.stored import StoredAnswer

FORM = {"rating": {"flags": [{"name": "opinion", "label": "Expresses opinion", "only": None}]}}
AT = "2026-01-01T10:00:00+00:00"


def said(item, labeler, ranks, *, ratings=None, order=None, seconds=10.0, role=None, conflicts=()):
    texts = ["short", "a longer answer", "the longest answer of them all"][: len(ranks)]
    payload = {"completions": texts, "ranks": ranks, "conflicts": list(conflicts)}
    if ratings:
        payload["ratings"] = [{"overall": r, "flags": {"opinion": r < 3}} for r in ratings]
    judgment = Judgment(
        Prompt.of(f"question {item}"), "ranking", payload, labeler, {}, tuple(order or range(len(ranks))), seconds
    )
    return StoredAnswer(item * 100, item, role, AT, judgment)


def named(rows):
    return {r.name: r for r in rows}


def test_nothing_said_gives_no_figures():
    found = insight([], FORM)
    assert found.answers == 0 and not found.agreement and not found.people and not found.queue and found.matrix is None


def test_percent_agreement_of_pairs_by_hand():
    # two people, ten items of one pair: the same on 7, opposite on 3
    rows = [said(i, who, [1, 2] if who == "ada" or i < 7 else [2, 1]) for i in range(10) for who in ("ada", "ben")]
    found = insight(rows, FORM)
    percent = named(found.agreement)["Percent agreement"]
    assert percent.value.value == pytest.approx(0.7) and percent.units == 10
    assert percent.value.low < 0.7 < percent.value.high
    assert "Cohen's kappa" in named(found.agreement)
    assert found.split["disagree"] == {7, 8, 9}
    assert found.matrix.agreement[0, 1] == pytest.approx(0.7) and found.matrix.shared[0, 1] == 10
    people = {p.name: p for p in found.people}
    assert people["ada"].done == 10 and people["ada"].share == 0.5 and people["ada"].seconds == 10
    assert [o.item for o in found.queue if o.split == 1] and {o.item for o in found.queue if o.split == 1} == {7, 8, 9}


def test_e19_chance_stands_beside_every_measure():
    rows = [
        said(i, who, [1, 2] if (i + (who == "ben") * (i % 3 == 0)) % 2 else [2, 1]) for i in range(30) for who in ("ada", "ben")
    ]
    for row in insight(rows, FORM).agreement:
        assert row.chance is not None and row.value.low <= row.value.value <= row.value.high


def test_position_and_length_bias_by_hand():
    # whatever stands first is preferred: shown in the item's order half of the time
    rows = [said(i, "ada", [1, 2], order=[0, 1]) if i % 2 else said(i, "ada", [2, 1], order=[1, 0]) for i in range(40)]
    biases = named(insight(rows, FORM).biases)
    assert biases["The answer shown earlier wins"].value.value == 1.0
    assert biases["The longer answer wins"].value.value == 0.5
    assert biases["The longer answer wins"].value.n == 40


def test_f14_contradictions_are_counted_and_listed():
    rows = [said(i, "ada", [1, 2], ratings=[4, 6], conflicts=[[0, 1]] if i == 3 else []) for i in range(4)]
    found = insight(rows, FORM)
    assert named(found.biases)["A ranking contradicts its own ratings"].value.value == 0.25
    assert found.split["contradict"] == {3}


def test_flags_have_their_own_agreement_and_items():
    rows = [said(i, who, [1, 2], ratings=[1, 6] if i % 2 else [6, 6]) for i in range(10) for who in ("ada", "ben")]
    found = insight(rows, FORM)
    (flag,) = found.flags
    assert flag.value.value == 1.0 and flag.note == "10 of 40 answers"
    assert found.split["flag:opinion"] == {1, 3, 5, 7, 9}


def test_repeats_measure_consistency_and_nothing_else():
    rows = [said(i, "ada", [1, 2]) for i in range(10)]
    rows += [said(i, "ada", [1, 2] if i < 8 else [2, 1], order=[1, 0], role="repeat") for i in range(10)]
    found = insight(rows, FORM)
    assert found.answers == 10
    assert named(found.consistency)["The same answer when asked again"].value.value == pytest.approx(0.8)


@pytest.mark.slow
def test_f17_a_few_who_give_most_are_named():
    rows = [said(i, "ada", [1, 2]) for i in range(90)] + [said(i, f"p{i}", [1, 2]) for i in range(5)]
    assert "1 of 6 labelers gave 95% of the answers." in insight(rows, FORM).warnings
    even = [said(i, f"p{i % 6}", [1, 2]) for i in range(60)]
    assert insight(even, FORM).warnings == []


def test_f18_a_scripted_voter_is_named_and_sincere_people_are_not():
    """Three of five sincere people rank each item by its worth with noise; a program ranks all upside down, or blindly."""
    rng = random.Random(5)
    worth = [[rng.gauss(0, 1.5) for _ in range(3)] for _ in range(80)]

    def ranking(i, name, felt):
        return said(i, name, ranks_of(felt), order=rng.sample(range(3), 3))

    rows = [ranking(i, f"p{(i + k) % 5}", [w + rng.gauss(0, 0.7) for w in worth[i]]) for i in range(80) for k in range(3)]
    assert insight(rows, FORM).warnings == []
    for script in (lambda w: -w, lambda w: rng.random()):
        found = insight([*rows, *(ranking(i, "bot", [script(w) for w in worth[i]]) for i in range(80))], FORM)
        assert [w.split()[0] for w in found.warnings] == ["bot"]


def ranks_of(felt):
    order = sorted(range(len(felt)), key=lambda i: -felt[i])
    return [order.index(i) + 1 for i in range(len(felt))]


def test_time_left_is_what_is_open_at_the_last_hour_s_pace():
    assert pages_lead.time_left({"answers_wanted": 100, "answers": 40, "last_hour": 30}) == 7200
    assert pages_lead.time_left({"answers_wanted": 100, "answers": 40, "last_hour": 0}) is None
    assert pages_lead.time_left({"answers_wanted": 100, "answers": 100, "last_hour": 0}) == 0


def test_bars_count_by_hour_then_by_day():
    now = datetime(2026, 1, 2, 10, 30, tzinfo=UTC)
    hours, title = charts.by_hour([AT, AT, "2026-01-02T10:05:00+00:00"], now)
    assert "hour" in title and len(hours) == 48 and hours[-1].n == 1 and {b.name: b.n for b in hours[23:25]}["10:00"] == 2
    assert hours[-1] == ("10:00", 1, "2026-01-02T10:00:00.000+00:00", "2026-01-02T11:00:00.000+00:00")
    days, title = charts.by_hour([AT], now + timedelta(days=5))
    assert "day" in title and ("01 Jan", 1, "2026-01-01T00:00:00.000+00:00", "2026-01-02T00:00:00.000+00:00") in days


@pytest.mark.parametrize(
    ("seconds", "words"), [(40, "40 s"), (720, "12 min"), (3600 * 3.5, "3.5 h"), (86400 * 6, "6 days"), (None, "–")]
)
def test_durations(seconds, words):
    assert charts.duration(seconds) == words


def test_a_chart_says_its_numbers_and_escapes_its_words():
    svg = charts.interval(Estimate(0.5, 0.4, 0.6, 10), 0, 1, 0.33, "<b>")
    assert 'aria-label="&lt;b&gt; 0.50, interval 0.40 to 0.60, chance 0.33"' in svg
    assert "style=" not in svg and "style=" not in charts.bars([charts.Bar("<", 3)], "<title>")


@pytest.mark.parametrize(
    ("path", "onward"),
    [
        ("/label/3", "/label/3"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\\evil", "/"),
        ("/a\nb", "/"),
        ("", "/"),
    ],
)
def test_login_goes_on_only_within_the_studio(path, onward):
    from harken.studio.pages.label import local

    assert local(path) == onward
