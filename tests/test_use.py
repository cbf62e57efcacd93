"""Signals of use weigh what they are shown to tell, and nothing more."""

import json

import numpy as np
import pytest

from harken.cli.main import main
from harken.core.errors import UserError
from harken.core.records import Judgment, Prompt
from harken.labelers.models.use import answers_of, fit_use
from harken.report.labelers import feedback_lines
from harken.store.database import open_database

PLANTED = {"copy": 1.5, "abandon": -1.2, "rephrase": -0.8, "regenerate": 0.0, "accept": 0.0}
BARS = {"copy": -0.5, "abandon": -1.0, "rephrase": -1.0, "regenerate": -1.0, "accept": 0.0}


def used(seed, comparisons=250, users=30, each=25, thumbs=0.0):
    """(judgments, true scores by text, phi's texts): what people of planted sensitivities did with answers of planted scores."""
    rng = np.random.default_rng(seed)
    w, said, phi, score = np.array([1.0, -0.7, 0.0]), [], {}, {}

    def answer(name):
        phi[name] = rng.normal(size=3)
        score[name] = float(phi[name] @ w)
        return name
    for n in range(comparisons):
        a, b = answer(f"a{n}"), answer(f"b{n}")
        first = rng.random() < 1 / (1 + np.exp(score[b] - score[a]))
        said.append(Judgment(Prompt.of(f"q{n}"), "ranking", {"completions": [a, b], "ranks": [1, 2] if first else [2, 1]},
                             f"p{n % 10}"))
    for u in range(users):
        habit = rng.normal(0, 0.5)
        for n in range(each):
            text = answer(f"u{u}.{n}")
            prompt = Prompt.of(f"user {u} asks {n}")
            said.append(Judgment(prompt, "use", {"completion": text, "signal": "shown"}, f"u{u}"))
            for kind, slope in PLANTED.items():
                if rng.random() < 1 / (1 + np.exp(-(BARS[kind] + habit + slope * score[text]))):
                    said.append(Judgment(prompt, "use", {"completion": text, "signal": kind}, f"u{u}"))
            if rng.random() < thumbs:
                up = rng.random() < 1 / (1 + np.exp(-(0.3 + 2 * score[text])))
                said.append(Judgment(prompt, "thumb", {"completion": text, "label": bool(up)}, f"u{u}"))
    table = np.array([phi[text] for _, text in answers_of(said)])
    return said, score, table


def test_planted_sensitivities_are_found_and_noise_weighs_nothing():
    covered, noise = [], []
    for seed in range(8):
        said, _, phi = used(seed, comparisons=400)
        kinds = {k.name: k for k in fit_use(said, phi=phi).kinds}
        covered += [kinds[n].low <= s <= kinds[n].high for n, s in PLANTED.items() if s]
        noise += [kinds[n].low <= 0 <= kinds[n].high for n, s in PLANTED.items() if not s]
        assert all((k.share == 0) == (k.low * k.high <= 0) for k in kinds.values() if k.low is not None)
        assert sum(k.share for k in kinds.values()) == pytest.approx(1)
        assert kinds["copy"].sensitivity > 0.8 > -0.5 > kinds["abandon"].sensitivity
    assert np.mean(covered) >= 0.8 and np.mean(noise) >= 0.85


@pytest.mark.slow
def test_of_a_hundred_runs_noise_is_called_chance_in_ninety():
    hits = []
    for seed in range(100):
        said, _, phi = used(1000 + seed, comparisons=120, users=16, each=14)
        kinds = {k.name: k for k in fit_use(said, phi=phi).kinds}
        hits += [kinds[n].low <= 0 <= kinds[n].high for n in ("regenerate", "accept")]
    assert np.mean(hits) >= 0.9


def test_signals_that_tell_something_make_scores_better():
    gain = []
    for seed in range(4):
        said, score, phi = used(seed, comparisons=30)
        both = fit_use(said, phi=phi)
        alone = [j for j in said if j.kind == "ranking"]
        explicit = fit_use(alone, phi=phi[:len(answers_of(alone))])
        truth = np.array([score[text] for _, text in both.items])
        gain.append(np.corrcoef(both.scores, truth)[0, 1] - np.corrcoef(phi @ explicit.weights, truth)[0, 1])
        assert (both.sd > 0).all()
    assert np.mean(gain) > 0


def test_thumbs_set_the_scale_where_nobody_compared():
    said, score, phi = used(3, comparisons=0, thumbs=0.6)
    found = fit_use(said, phi=phi)
    kinds = {k.name: k for k in found.kinds}
    assert found.anchor == "thumb" and kinds["copy"].low > 0 > kinds["abandon"].high
    assert np.corrcoef(found.scores, [score[text] for _, text in found.items])[0, 1] > 0.9


def test_a_hand_worked_sensitivity():
    """With scores known exactly, 40 of 100 signals at score -1 and 73 of 100 at +1: slope (logit .73 - logit .40) / 2 = 0.700."""
    from harken.labelers.models.use import Evidence, _sensitivity
    came = np.r_[np.arange(100) < 40, np.arange(100) < 73].astype(float)
    e = Evidence("copy", np.repeat([0, 1], 100), came, np.tile(np.arange(20), 10))
    fit = _sensitivity(e, np.array([[-1.0], [1.0]]), np.ones(1), np.zeros((1, 1)), np.ones(20))
    logit = np.log(0.73 / 0.27), np.log(0.4 / 0.6)
    assert fit.slope == pytest.approx((logit[0] - logit[1]) / 2, rel=0.01) and fit.low < fit.slope < fit.high


def test_a_capped_labeler_weighs_less():
    said, _, phi = used(1)
    whole, half = fit_use(said, phi=phi), fit_use(said, phi=phi, weight_of={f"u{u}": 0.1 for u in range(30)})
    share = [sum(k.share for k in found.kinds[1:]) for found in (whole, half)]
    assert share[1] < share[0]


def test_only_shown_answers_count_for_those_whose_shown_answers_are_known():
    said, _, phi = used(4, users=4, each=20)
    kinds = {k.name: k for k in fit_use(said, phi=phi).kinds}
    assert kinds["copy"].given == 80 and "shown" not in kinds
    kept = [j for j in said if j.payload.get("signal") != "shown"]
    table = dict(zip(answers_of(said), phi))
    fewer = {k.name: k for k in fit_use(kept, phi=np.array([table[item] for item in answers_of(kept)])).kinds}
    assert fewer["copy"].given < 80 and fewer["copy"].came == kinds["copy"].came


def test_without_a_scale_nothing_is_claimed():
    with pytest.raises(UserError, match="no scale"):
        fit_use([Judgment(Prompt.of("q"), "use", {"completion": "a", "signal": "copy"}, "u")])
    with pytest.raises(ValueError, match="row for each"):
        fit_use(used(0)[0], phi=np.zeros((2, 2)))


def test_harken_labelers_shows_what_each_kind_contributed(tmp_path, capsys):
    said, _, _ = used(2, comparisons=60, users=6, each=10)
    with open_database(tmp_path / "f.db") as db:
        db.add_judgments(said)
    assert main(["labelers", str(tmp_path / "f.db"), "--json"]) == 0
    feedback = json.loads(capsys.readouterr().out)["feedback"]
    kinds = {k["name"]: k for k in feedback["kinds"]}
    assert kinds["comparisons"]["given"] == 60 and set(PLANTED) <= set(kinds)
    assert any("regenerate" in line and "of what is learnt" in line for line in feedback_lines({"feedback": feedback}))
