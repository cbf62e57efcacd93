"""Preferences as arrays."""

import numpy as np

from harken.core.records import Choice, Judgment, Prompt
from harken.labelers.votes import UNNAMED, votes_of

P, Q = Prompt.of("p"), Prompt.of("q")


def test_a_ranking_gives_all_its_pairs_with_its_ties():
    """Ranks (2, 1, 2): b beats a and c, a ties c."""
    votes = votes_of([Choice(P, ("a", "b", "c"), (2, 1, 2), "ana", {"age": "30"})])
    assert [(votes.items[i][1], votes.items[j][1], w) for i, j, w in zip(votes.a, votes.b, votes.won)] == [
        ("a", "b", -1), ("a", "c", 0), ("b", "c", 1)]
    assert votes.labelers == ("ana",) and votes.groups == ({"age": "30"},) and not votes.first.any()


def test_what_was_shown_first_comes_from_the_order():
    """order (2, 0, 1): option 2 stood first, then 0, then 1."""
    said = Judgment(P, "ranking", {"completions": ["a", "b", "c"], "ranks": [1, 2, 3]}, "ana", order=(2, 0, 1))
    assert votes_of([said]).first.tolist() == [1, -1, -1]


def test_an_edit_is_preferred_to_its_original_which_was_shown_alone():
    said = Judgment(P, "edit", {"completion": "b", "completions": ["b", "a"], "ranks": [1, 2]}, "ana", order=(0,))
    votes = votes_of([said])
    assert votes.won.tolist() == [1] and votes.first.tolist() == [0]


def test_items_are_shared_between_people_but_not_between_prompts():
    votes = votes_of([Choice(P, ("x", "y"), (1, 2), "ana"), Choice(P, ("y", "x"), (1, 2)), Choice(Q, ("x", "y"), (1, 2), "bo")])
    assert len(votes.items) == 4 and votes.prompt.tolist() == [0, 0, 1, 1]
    assert votes.labelers == ("ana", UNNAMED, "bo") and votes.judgment.tolist() == [0, 1, 2]


def test_the_same_text_twice_compares_nothing_and_demonstrations_are_left_out():
    same = Choice(P, ("x", "x"), (1, 2))
    shown = Judgment(P, "demonstration", {"completion": "x"})
    assert len(votes_of([same, shown])) == 0


def test_some_votes_keep_their_indices():
    votes = votes_of([Choice(P, ("x", "y"), (1, 2), "ana"), Choice(P, ("y", "z"), (1, 2), "bo")])
    rest = votes.take(votes.labeler == 1)
    assert len(rest) == 1 and rest.items == votes.items and rest.labelers == ("ana", "bo")
    assert np.array_equal(rest.a, [1]) and rest.lengths.tolist() == [1, 1, 1]
