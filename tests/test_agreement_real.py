"""Agreement of real multi-annotator sets against other programs and other formulas (issue: at least three sets)."""

import csv
import dataclasses
import itertools
import json
from collections import Counter, defaultdict

import numpy as np
import pytest

from harken.core.records import Choice, Prompt
from harken.labelers.agreement.coefficients import agreement
from harken.labelers.ratings import ratings_of, ratings_of_votes
from harken.labelers.votes import votes_of


def hatecheck(data):
    """3,728 cases, five of ten people each."""
    with (data / "hatecheck" / "test_suite_annotations.csv").open(encoding="utf-8") as file:
        return [(row["case_id"], f"label_{k}", float(row[f"label_{k}"] == "hateful")) for row in csv.DictReader(file)
                for k in range(1, 11) if row[f"label_{k}"]]


def davidson(data):
    """24,783 tweets, 3 to 9 people each, known as counts: who said what is not told, and does not enter."""
    rows = []
    with (data / "davidson_hate" / "labeled_data.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            said = [v for v, name in enumerate(("hate_speech", "offensive_language", "neither")) for _ in range(int(row[name]))]
            rows += [(row[""], f"person {i}", float(v)) for i, v in enumerate(said)]
    return rows


def llmfao(data):
    """8,931 votes (left, tie, right) of 124 people on 2,139 pairs."""
    side = {"left": 1.0, "tie": 0.0, "right": -1.0}
    with (data / "llmfao" / "crowd-comparisons.csv").open(encoding="utf-8") as file:
        return [(row["id"], row["worker"], side[row["winner"]]) for row in csv.DictReader(file)]


def by_counting(rows):
    """Percent, Fleiss and Gwet from pairs of ratings, as their definitions say; no shared code."""
    units = defaultdict(list)
    for unit, _, value in rows:
        units[unit].append(value)
    kept = [u for u in units.values() if len(u) > 1]
    seen = sum(sum(x == y for x, y in itertools.combinations(u, 2)) / (len(u) * (len(u) - 1) / 2) for u in kept) / len(kept)
    share = Counter()
    for u in units.values():
        for value in u:
            share[value] += 1 / len(u) / len(units)
    luck = sum(p * p for p in share.values())
    odds = sum(p * (1 - p) for p in share.values()) / (len(share) - 1)
    return {"percent": seen, "fleiss": (seen - luck) / (1 - luck), "gwet": (seen - odds) / (1 - odds)}


@pytest.mark.parametrize("read, nominal, ordinal, fleiss", [
    (hatecheck, 0.939019, 0.939019, 0.939016), (davidson, 0.542799, 0.581874, 0.546117), (llmfao, 0.290595, 0.287553, 0.286871)])
def test_three_real_sets_equal_evalica_and_a_count_of_pairs(read, nominal, ordinal, fleiss, real_data):
    """Expected: evalica 0.4.2's alpha on the nominal and the ordinal scale, and Fleiss' kappa by the count above."""
    rows = read(real_data)
    ratings = ratings_of(rows)
    found = {name: a.value.value for name, a in agreement(ratings, draws=50).items()}
    near = agreement(ratings, ("alpha",), "ordinal", draws=50)["alpha"].value.value
    assert (found["alpha"], near, found["fleiss"]) == pytest.approx((nominal, ordinal, fleiss), abs=1e-6)
    for name, value in by_counting(rows).items():
        assert found[name] == pytest.approx(value, abs=1e-9)


def test_real_sets_equal_evalica_where_it_is_installed(real_data):
    evalica, pandas = pytest.importorskip("evalica"), pytest.importorskip("pandas")
    rows = llmfao(real_data)
    table = pandas.DataFrame(rows, columns=["unit", "rater", "value"]).pivot(index="rater", columns="unit", values="value")
    for scale in ("nominal", "ordinal", "interval"):
        ours = agreement(ratings_of(rows), ("alpha",), scale, draws=50)["alpha"].value.value
        assert ours == pytest.approx(evalica.alpha(table, distance=scale).alpha, abs=1e-9)


def test_davidson_with_three_answers_equals_statsmodels(real_data):
    """statsmodels 0.15.0, fleiss_kappa of the 22,807 tweets with three answers (it takes no unequal numbers): .5494695584."""
    rows = davidson(real_data)
    answers = Counter(unit for unit, _, _ in rows)
    three = ratings_of([r for r in rows if answers[r[0]] == 3])
    assert agreement(three, ("fleiss",), draws=50)["fleiss"].value.value == pytest.approx(0.5494695584, abs=1e-9)


def test_votes_of_real_comparisons_clustered_by_prompt(real_data):
    """As comparisons: identical texts are one item, both sides count alike, and 13 prompts are 13 units of evidence."""
    pairs = {}
    with (real_data / "llmfao" / "pairs-crowd.jsonl").open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            pairs[str(row["id"])] = (row["text"], row["result_x"], row["result_y"])
    ranks = {1.0: (1, 2), 0.0: (1, 1), -1.0: (2, 1)}
    ratings = ratings_of_votes(votes_of(
        Choice(Prompt.of(pairs[unit][0]), pairs[unit][1:], ranks[value], who) for unit, who, value in llmfao(real_data)))
    prompts = agreement(ratings, ("alpha",))["alpha"].value
    alone = agreement(dataclasses.replace(ratings, cluster=np.arange(len(ratings.cluster))), ("alpha",))["alpha"].value
    assert prompts.n == 13 and alone.n == 1895 and prompts.value == pytest.approx(alone.value)
    assert prompts.high - prompts.low > 2 * (alone.high - alone.low)
