"""Brigades are named, honest people are not, and no one account, address or campaign moves the reward beyond the bound."""

import dataclasses
import json

import numpy as np
import pytest

from brigade_worlds import brigade_world, chat_choices
from harken.cli.main import main
from harken.core.errors import UserError
from harken.core.records import Choice, Prompt
from harken.labelers.campaigns.audit import fit_campaigns
from harken.labelers.campaigns.scan import Scan
from harken.labelers.campaigns.weighted import Weighted
from harken.labelers.models.reliability import Priors, fit_reliability
from harken.labelers.votes import UNNAMED
from labeler_worlds import world


def left_out(fit, x, weight, rows):
    """The largest change of a score when the rows are left out: brute force."""
    rest = weight.copy()
    rest[rows] = 0
    return np.abs(fit.scores(fit.solve(rest, x)) - fit.scores(x)).max()


@pytest.mark.parametrize("features", [True, False])
@pytest.mark.parametrize("nu", [0.0, 0.7])
def test_the_bound_holds_for_whoever_is_left_out(features, nu):
    votes, phi, _ = brigade_world(3, people=20, per=25, prompts=8, nu=nu)
    fit = Weighted(votes, phi if features else None)
    rng = np.random.default_rng(0)
    weight = rng.uniform(0.2, 1, size=20)[votes.labeler]
    x = fit.fit_ties(weight)
    units = [np.flatnonzero(np.isin(votes.labeler, rng.choice(20, size=m, replace=False))) for m in (1,) * 20 + (2, 3, 5, 8)]
    bounds, moved = fit.moves(x, weight, units), np.array([left_out(fit, x, weight, own) for own in units])
    assert (moved <= bounds + 1e-9).all() and (moved > 0).all()
    assert np.median(bounds / moved) < (4 if features else 12)  # it says something


def test_the_weighted_fit_is_bradley_terry():
    """With weights of 1 and the same prior it is `fit_reliability`'s plain model."""
    _, votes = world(0, np.ones(6), 500, items=12)
    other = fit_reliability(votes, model="plain", prior=Priors(score=1.0), draws=0)
    fit = Weighted(votes)
    assert fit.scores(fit.solve(np.ones(len(votes)))) == pytest.approx(other.scores, abs=1e-4)
    twice = Weighted(votes.take(np.r_[np.arange(500), np.arange(500)]))
    assert fit.solve(np.full(500, 2.0)) == pytest.approx(twice.solve(np.ones(1000)), abs=1e-8)


def test_a_brigade_is_found_among_its_people():
    """The mixture recovers who was planted."""
    votes, phi, _ = brigade_world(0)
    fit = Weighted(votes, phi, 3.0)
    scan = Scan(fit, fit.fit_ties(np.ones(len(votes))))
    belongs = scan.best(scan.vectors(votes.won), np.zeros(0, dtype=int), 0.0)[1]
    assert (belongs[:4] > 0.9).all() and belongs[4:].max() < 0.5


def rates(seeds, **kind):
    """Share of the brigade that is named, and share of the honest."""
    named, wrongly, brigade = [], [], kind.get("brigade", 4)
    for seed in seeds:
        votes, phi, _ = brigade_world(seed, **kind)
        flagged = {votes.labelers.index(name) for name in fit_campaigns(votes, phi=phi, draws=19).flagged}
        named.append(sum(k < brigade for k in flagged) / max(1, brigade))
        wrongly.append(sum(k >= brigade for k in flagged) / (len(votes.labelers) - brigade))
    return np.array(named), np.array(wrongly)


def test_a_tenth_that_votes_for_rude_answers_is_named_and_the_honest_are_not():
    named, wrongly = rates(range(3))
    assert named.mean() >= 0.9 and wrongly.mean() <= 0.05
    assert rates(range(10, 13), brigade=0)[1].mean() <= 0.05


@pytest.mark.slow
def test_of_twenty_brigades_nearly_all_are_named():
    named, wrongly = rates(range(20))
    assert (named >= 0.75).mean() >= 0.9 and wrongly.mean() <= 0.05


@pytest.mark.slow
def test_of_honest_crowds_at_most_a_twentieth_is_flagged():
    assert rates(range(20, 40), brigade=0, per=20, tastes=0.3)[1].mean() <= 0.05


@pytest.mark.slow
def test_the_audit_takes_most_of_a_brigades_effect_on_the_reward():
    """In what fitted scores lose of gold's order: less than a third of the loss without the audit, 4 seeds together."""
    loss = np.zeros((4, 2))
    for seed in range(4):
        votes, phi, _ = brigade_world(seed)
        fit = Weighted(votes, phi)
        clean = fit.solve((votes.labeler >= 4).astype(float))
        found = fit_campaigns(votes, phi=phi, draws=19)
        weight = np.array([found.weight_of[name] for name in votes.labelers])
        for n, given in enumerate((np.ones(len(votes)), weight[votes.labeler])):
            loss[seed, n] = fit.solve(given)[0] / np.linalg.norm(fit.solve(given)) - clean[0] / np.linalg.norm(clean)
    without, audited = loss.mean(0)
    assert without > 0.05 and abs(audited) < without / 3


@pytest.mark.slow
def test_users_who_never_saw_the_same_answers_are_compared_by_their_words():
    found = fit_campaigns(chat_choices(0), draws=39)
    assert {"u0", "u1", "u2"} <= set(found.flagged) and len(found.flagged) <= 4
    assert found.weight_of["u0"] <= 1 / len(found.flagged) and found.weight_of["u20"] == 1
    assert found.bound <= found.limit


@pytest.mark.parametrize("features", [True, False])
def test_accounts_and_addresses_are_held_to_the_limit(features):
    """Ten of forty labelers are one account, ten more vote from one address; brute force agrees with the printed bound."""
    votes, phi, _ = brigade_world(1, brigade=0)
    phi = phi if features else None
    account = {f"p{k}": "acme" for k in range(10)}
    address = {f"p{k}": "192.0.2.1" for k in range(10, 20)}
    found = fit_campaigns(votes, phi=phi, account=account, address=address, limit=0.05 if features else 0.5, draws=0)
    assert found.bound <= found.limit < found.unweighted
    assert {("account", "acme"), ("address", "192.0.2.1")} <= {(row["kind"], row["name"]) for row in found.rows()}
    fit = Weighted(votes, phi)
    fit.fit_ties(np.ones(len(votes)))
    weight = np.array([found.weight_of[name] for name in votes.labelers])[votes.labeler]
    x = fit.solve(weight)
    for unit in found.units:
        rows = np.flatnonzero(np.isin(votes.labeler, [votes.labelers.index(name) for name in unit.people]))
        assert left_out(fit, x, weight, rows) <= unit.after + 1e-9 <= found.bound + 1e-9


def test_anonymous_votes_are_one_capped_labeler():
    votes, phi, _ = brigade_world(2, brigade=0)
    names = (UNNAMED, *votes.labelers[1:])
    many = dataclasses.replace(votes, labeler=np.where(votes.labeler < 15, 0, votes.labeler), labelers=names)
    found = fit_campaigns(many, phi=phi, draws=0)
    assert found.weight_of[UNNAMED] < 0.9 and found.bound <= found.limit
    plain = Choice(Prompt.of("q"), ("a", "b"), (1, 2), weight=2.0)
    assert found.weigh([plain])[0].weight == pytest.approx(2 * found.weight_of[UNNAMED])
    assert found.weigh([dataclasses.replace(plain, labeler="stranger")])[0].weight == 2.0


def test_what_cannot_be_audited_is_said():
    with pytest.raises(UserError, match="no comparisons"):
        fit_campaigns([])
    votes, phi, _ = brigade_world(0, people=6, brigade=0)
    assert "too few" in fit_campaigns(votes).notes[0]
    for wrong in ({"phi": phi[:3]}, {"limit": 0.0}, {"level": 1.0}, {"least": 1}):
        with pytest.raises(ValueError, match="must"):
            fit_campaigns(votes, **wrong)


@pytest.mark.slow
def test_harken_labelers_names_the_campaign_and_prints_the_bound(tmp_path, capsys):
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps(c.to_json()) + "\n" for c in chat_choices(0)))
    assert main(["labelers", str(path), "--json"]) == 0
    audit = json.loads(capsys.readouterr().out)["campaigns"]
    assert {"u0", "u1", "u2"} <= set(audit["flagged"]) and audit["bound"] <= audit["limit"]
    assert "Campaign of" in audit["lines"][0] and f"by more than {audit['bound']:.2f}" in audit["lines"][1]
