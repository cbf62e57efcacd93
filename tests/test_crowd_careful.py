"""Why Crowd-BT predicts careful people worse: its chance of an upside-down answer is the same for clear pairs."""

from __future__ import annotations

import numpy as np

from harken.labelers.models.reliability import fit_reliability
from harken.labelers.votes import Votes
from harken.report.labelers import advice


def careful(rng, prompts=40, each=4, people=12, spread=4.0):
    """Everybody answers by one Bradley–Terry model: errors on close pairs, none upside down. [I] scores and votes."""
    scores, rows = rng.normal(0, spread, prompts * each), []
    for p in range(prompts):
        for i in range(each):
            for j in range(i):
                a, b = p * each + i, p * each + j
                for k in rng.choice(people, 3, replace=False):
                    rows.append((a, b, 1 if rng.random() < 1 / (1 + np.exp(scores[b] - scores[a])) else -1, k))
    a, b, won, who = np.array(rows).T
    n, items = len(rows), prompts * each
    return scores, Votes(a, b, won, who, np.zeros(n, int), np.arange(n), tuple((f"p{i // each}", str(i)) for i in range(items)),
                         np.arange(items) // each, tuple(map(str, range(people))), ({},) * people)


def test_it_loses_on_clear_pairs():
    rng, clear_loss, close_loss, tops = np.random.default_rng(0), [], [], []
    for _ in range(3):
        scores, votes = careful(rng)
        unseen = rng.random(len(votes)) < 0.25
        plain, crowd = (fit_reliability(votes.take(~unseen), model=m, draws=0) for m in ("plain", "crowd"))
        left = votes.take(unseen)
        lost = crowd.log_prob(left) - plain.log_prob(left)
        clear = np.abs(scores[left.a] - scores[left.b]) > 2
        clear_loss.append(lost[clear].mean())
        close_loss.append(lost[~clear].mean())
        tops.append((crowd.probability(left).max(), plain.probability(left).max()))
    assert max(clear_loss) < -0.005 and np.mean(close_loss) > np.mean(clear_loss) + 0.008
    assert all(crowd < plain for crowd, plain in tops)  # it never gets as sure


def row(value, low, high):
    return {"gain": {"value": value, "low": low, "high": high, "n": 9, "level": 0.95}}


def test_labelers_warns_and_falls_back():
    use, notes = advice({"plain": {}, "beta": row(0.01, -0.01, 0.03), "crowd": row(-0.02, -0.03, -0.01)})
    assert use == "plain" and len(notes) == 1
    assert notes[0].startswith("Honest with chance eta (Crowd-BT) predicts unseen votes worse than everybody alike (−0.020")
    assert advice({"plain": {}, "beta": row(0.05, 0.02, 0.08), "crowd": row(0.04, 0.01, 0.07)}) == ("beta", [])
    assert advice({}) == (None, [])
