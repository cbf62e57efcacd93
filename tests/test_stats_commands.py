"""`harken rank`, `aggregate` and `agreement --judge`: stored votes in others' layouts, as a stranger would give them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from harken.cli import main as cli
from harken.cli.main import main
from harken.core.errors import UserError
from harken.store.verdicts import read_votes

THETA = {"base": -1.0, "sft": 0.0, "rloo": 1.0}


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def planted(n=400, seed=0):
    """Comparisons of three models with a planted order, as {"completions", "ranks", "model"}."""
    rng, names = np.random.default_rng(seed), list(THETA)
    for i in range(n):
        a, b = rng.choice(names, 2, replace=False)
        won = rng.random() < 1 / (1 + np.exp(THETA[b] - THETA[a]))
        yield {"prompt": f"p{i // 4}", "completions": [f"{a} {i} " + "x" * int(rng.integers(50)), f"{b} {i}"],
               "ranks": [1, 2] if won else [2, 1], "model": [str(a), str(b)], "labeler": f"l{i % 5}"}


def run(capsys, *words):
    status = cli.main(list(words))
    done = capsys.readouterr()
    return status, done.out, done.err


def test_rank_finds_the_planted_order(tmp_path, capsys):
    file = write(tmp_path / "votes.jsonl", planted())
    status, out, _ = run(capsys, "rank", file, "--by", "model", "--against", "base", "--json")
    result = json.loads(out)
    assert status == 0 and [m["name"] for m in result["models"]] == ["rloo", "sft", "base"]
    assert result["models"][0]["places"] == [1, 1] and result["prompts"] == 100 and result["votes"] == 400
    gap = result["models"][0]["elo"]["value"] - result["models"][2]["elo"]["value"]
    assert gap == pytest.approx(2 * 173.7178, rel=0.25) and result["models"][0]["standard_error"] > 0
    rate = result["against"]["rates"]["rloo"]
    assert rate["raw"]["value"] > 0.75 and rate["length_controlled"]["low"] < rate["raw"]["value"]
    text = run(capsys, "rank", file, "--anchor", "base", "--against", "base")[1]
    assert "row preferred to column" in text and " 1000 " in text and "at equal lengths" in text


def test_layouts_of_others(tmp_path):
    arena = write(tmp_path / "a.jsonl", [
        {"question_id": 1, "model_a": "x", "model_b": "y", "winner": "model_a"},
        {"question_id": 1, "model_a": "x", "model_b": "y", "winner": "tie (bothbad)"},
        {"question_id": 2, "model_a": "y", "model_b": "x", "winner": "x"},
        {"question_id": 3, "model_a": "y", "model_b": "x", "winner": None}])
    votes = read_votes(arena)
    assert votes.won == [1, 0, -1] and votes.missing == 1 and votes.prompts == ["1", "1", "2"]
    bench = write(tmp_path / "m.jsonl", [
        {"question_id": 1, "model_1": "x", "model_2": "y", "g1_winner": "model_1", "g2_winner": "model_1"},
        {"question_id": 2, "model_1": "x", "model_2": "y", "g1_winner": "model_1", "g2_winner": "model_2"},
        {"question_id": 3, "model_1": "x", "model_2": "y", "g1_winner": "error", "g2_winner": "model_2"}])
    votes = read_votes(bench)
    assert votes.won == [1, 0] and votes.inconsistent == 1 and votes.missing == 1
    alpaca = tmp_path / "annotations.json"
    alpaca.write_text(json.dumps([{"instruction": "q", "generator_1": "b", "generator_2": "m", "output_1": "one",
                                   "output_2": "three", "preference": p} for p in (2.0, 1.25, 0, 1.5, None)]))
    votes = read_votes(alpaca)
    assert votes.preference == [1.0, 0.25, 0.5, 0.5] and votes.missing == 1 and votes.length_b[0] == 5
    pairs = write(tmp_path / "p.jsonl", [
        {"prompt": "q", "chosen": "s", "rejected": "s", "chosen_model": "x", "rejected_model": "y"},
        {"prompt": "q", "chosen": "s", "rejected": "t", "chosen_model": "x", "rejected_model": "x"}])
    votes = read_votes(pairs)
    assert votes.won == [1] and votes.identical == 1 and votes.same_model == 1


@pytest.mark.parametrize("rows, words", [
    ([{"prompt": "q", "completions": ["a", "b"], "ranks": [1, 2]}], 'line 1: "model" must be a list'),
    ([{"prompt": "q", "completions": ["a", "b"], "ranks": [1], "model": ["x", "y"]}], "have 2, 1 and 2 entries"),
    ([{"model_a": "x", "model_b": "y", "winner": "tie"}], "no prompt, question_id"),
    ([{"prompt": "q", "model_a": "x", "model_b": "y", "winner": None}], "holds no vote between two models"),
    ([{"prompt": "q", "score": 1}], 'neither "model" nor a pair like model_a')])
def test_what_is_no_vote_is_said(tmp_path, rows, words):
    with pytest.raises(UserError) as error:
        read_votes(write(tmp_path / "v.jsonl", rows))
    assert words in str(error.value)


def test_rank_says_why_there_are_no_scores(tmp_path, capsys):
    row = {"prompt": "q", "winner": "model_a"}
    apart = write(tmp_path / "v.jsonl", [{**row, "model_a": a, "model_b": b} for a, b in ("ab", "ba", "cd", "dc")])
    status, _, err = run(capsys, "rank", apart)
    assert status == 2 and "2 groups with none between them" in err and "[a, b]" in err
    beaten = write(tmp_path / "w.jsonl", [{**row, "model_a": "a", "model_b": "b"}] * 3)
    assert "pass --prior 0.1" in run(capsys, "rank", beaten)[2]
    assert run(capsys, "rank", beaten, "--prior", "0.5")[0] == 0
    assert "no vote is about that model" in run(capsys, "rank", beaten, "--against", "z")[2]


def labels(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        truth = "yes" if i % 2 else "no"
        for who, right in (("ana", 0.95), ("bo", 0.9), ("cy", 0.8), ("dee", 0.5)):
            wrong = "no" if truth == "yes" else "yes"
            rows.append({"item": i, "label": truth if rng.random() < right else wrong, "labeler": who})
    return write(tmp_path / "labels.jsonl", rows)


@pytest.mark.parametrize("method", ["majority", "dawid_skene", "glad"])
def test_aggregate(tmp_path, capsys, method):
    out = tmp_path / "out.jsonl"
    status, text, _ = run(capsys, "aggregate", labels(tmp_path), "--method", method, "--out", str(out))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert status == 0 and len(rows) == 60 and [r["item"] for r in rows] == list(range(60))
    right = [r["label"] == ("yes" if r["item"] % 2 else "no") for r in rows if r["label"] is not None]
    assert np.mean(right) > 0.9
    if method == "majority":
        draws = [r for r in rows if r["label"] is None]
        assert all(r["draw"] == ["no", "yes"] for r in draws) and f"{len(draws)} draws have no label" in text
        assert rows[0]["sure"]["low"] < rows[0]["sure"]["value"]
    else:
        assert "dee" in text.split("least reliable")[1].splitlines()[1]


def test_agreement_of_a_judge_with_people(tmp_path, capsys):
    """The judge answers half of the pairs in both orders, and changes its mind on one of them."""
    rows = []
    for i in range(12):
        options = [f"one {i}", f"two {i}"]
        rows += [{"prompt": f"p{i}", "completions": options, "ranks": [1, 2], "labeler": who} for who in ("ana", "bo")]
        rows.append({"prompt": f"p{i}", "completions": options, "ranks": [1, 2] if i < 9 else [2, 1], "labeler": "judge"})
        if i < 6:
            rows.append({"prompt": f"p{i}", "completions": options[::-1], "ranks": [2, 1] if i else [1, 2], "labeler": "judge"})
    file = write(tmp_path / "c.jsonl", rows)
    status, out, _ = run(capsys, "agreement", file, "--judge", "judge", "--json")
    result = json.loads(out)
    assert status == 0 and result["couples"]["with_ties"]["over_couples"]["value"] == 1
    judge = result["judge"]
    assert judge["asked_twice"] == 6 and judge["inconsistent"] == 1
    assert judge["with_ties"]["over_couples"]["value"] == pytest.approx(8 / 12)
    assert judge["without_ties"]["over_couples"]["value"] == pytest.approx(8 / 11)
    assert judge["three_way"]["table"] == [[16, 2, 6], [0, 0, 0], [0, 0, 0]]
    text = run(capsys, "agreement", file, "--judge", "judge")[1]
    assert "1 of 6 asked twice changed" in text and "ties left out (setup 2)" in text
    assert "nobody is called" in run(capsys, "agreement", file, "--judge", "nobody")[2]


def test_a_judge_is_compared_where_each_pair_has_one_person(tmp_path, capsys):
    """Ten pairs, a person and the judge each: 8 of 10 verdicts alike; people among themselves share nothing."""
    rows = [{"prompt": f"Q{i}", "completions": ["a", "b"], "ranks": r, "labeler": who}
            for i in range(10) for who, r in ((f"p{i % 2}", [1, 2]), ("judge", [1, 2] if i < 8 else [2, 1]))]
    file = tmp_path / "votes.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert main(["agreement", str(file), "--judge", "judge"]) == 0
    assert "no two people judged the same pair" in (said := capsys.readouterr().out) and "0.800" in said
    assert main(["agreement", str(file), "--judge", "judge", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["judge"]["with_ties"]["over_couples"]["value"] == pytest.approx(0.8)
    assert main(["agreement", str(file)]) == 0, "with the judge among the people there is overlap"


def test_a_rate_that_the_penalty_holds_at_even_odds_has_no_interval_of_no_width(tmp_path, capsys):
    """Twenty votes, as many won as lost, lengths that differ: L1 sets the model's term to 0."""
    rows = [{"prompt": f"Q{i}", "completions": ["x " * (1 + i % 3), "y"], "ranks": [1, 2] if i % 2 else [2, 1],
             "model": ["m", "base"]} for i in range(20)]
    file = tmp_path / "votes.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert main(["rank", str(file), "--against", "base"]) == 0
    said = capsys.readouterr().out
    assert "holds the model at even odds" in said and "[0.500, 0.500]" not in said


PUBLISHED = """GPT 4 0.041215 158, Platypus-2 Instruct (70B) 0.029233 159, command 0.028852 322, ReMM SLERP L2 13B 0.027150 153,
LLaMA-2-Chat (70B) 0.026384 161, Claude v1 0.026259 160, GPT 3.5 Turbo 0.025871 366, Jurassic 2 Mid 0.025849 175,
Jurassic 2 Ultra 0.025310 165, command-nightly 0.025225 169, Mythalion 13B 0.024030 143, GPT 3.5 Turbo (16k) 0.023981 381,
Falcon Instruct (40B) 0.023752 348, GPT-NeoXT-Chat-Base (20B) 0.023268 160, Chronos Hermes (13B) 0.023229 163,
Claude v2 0.022926 167, Claude Instant v1 0.022809 163, MPT-Chat (7B) 0.022213 174"""


def test_a_published_board_from_its_own_votes(real_data, capsys):
    """LLMFAO's leaderboard of people's votes (dustalov.github.io/llmfao): Bradley–Terry weights that sum to 1, ties half, and the
    votes on each model. Seventeen of its first eighteen rows come out to the last digit; of the first the page printed 0.041215
    and Evalica's own test file holds 0.041218, which is ours: their first fit stopped early."""
    status, out, _ = run(capsys, "rank", str(real_data / "llmfao" / "crowd-comparisons.csv"), "--ties", "half", "--json")
    models = json.loads(out)["models"]
    total = sum(math.exp(m["score"]) for m in models)
    ours = {m["name"]: (f"{math.exp(m['score']) / total:.6f}", m["comparisons"]) for m in models}
    board = [row.strip().rsplit(" ", 2) for row in PUBLISHED.split(",")]
    assert status == 0 and len(ours) == 59 and [name for name, *_ in board] == [m["name"] for m in models][:18]
    assert {name: ours[name] for name, *_ in board[1:]} == {name: (weight, int(votes)) for name, weight, votes in board[1:]}
    assert ours["GPT 4"] == ("0.041218", 158)


def test_five_votes_of_five_and_prompts_that_all_say_the_same_are_no_certainty(tmp_path, capsys):
    """With .1 wins each way: information of theta_x - theta_y (5 + .2) p (1 - p), p = 5.1 / 5.2; half of that spread each."""
    rows = [{"prompt": f"p{i}", "completions": ["a", "b"], "ranks": [1, 2], "model": ["x", "y"]} for i in range(5)]
    _, out, _ = run(capsys, "rank", write(tmp_path / "v.jsonl", rows), "--prior", "0.1", "--json")
    p = 5.1 / 5.2
    first = json.loads(out)["models"][0]
    assert first["standard_error"] == pytest.approx(1 / math.sqrt(5.2 * p * (1 - p)) / 2) and first["places"] == [1, 2]
    same = [{"prompt": f"p{i % 3}", "completions": ["a", "b"], "ranks": [1, 2] if i // 3 else [2, 1], "model": ["x", "y"],
             "labeler": "one"} for i in range(12)]
    _, out, _ = run(capsys, "rank", write(tmp_path / "w.jsonl", same), "--json")
    found = json.loads(out)  # each prompt three to one: its votes would have no spread at all
    assert found["models"][0]["standard_error"] == pytest.approx(1 / math.sqrt(12 * 0.75 * 0.25) / 2)
    assert found["repeated"] == 9


def test_names_that_look_the_same_are_one(tmp_path, capsys):
    spelled = ("caf\u00e9", "cafe\u0301")
    votes = [{"prompt": f"p{i}", "completions": ["a", "b"], "ranks": [1, 2] if i % 3 else [2, 1],
              "model": [spelled[i % 2], "base"]} for i in range(12)]
    _, out, _ = run(capsys, "rank", write(tmp_path / "v.jsonl", votes), "--against", "base", "--anchor", spelled[1], "--json")
    assert len(json.loads(out)["models"]) == 2
    labels = [{"item": spelled[i], "label": spelled[i], "labeler": f"l{i}"} for i in range(2)]
    _, out, _ = run(capsys, "aggregate", write(tmp_path / "l.jsonl", labels), "--json")
    assert json.loads(out)["counts"] == {spelled[0]: 1} and json.loads(out)["labels"] == 2
    people = [{"prompt": f"p{i}", "completions": ["a", "b"], "ranks": [1, 2], "labeler": name} for i, name in enumerate(spelled)]
    status, _, err = run(capsys, "agreement", write(tmp_path / "c.jsonl", people))
    assert status == 2 and "all 2 judgments are by caf" in err


@pytest.mark.parametrize("ranks", [["1", "2"], [True, False], [1, [2]]])
def test_ranks_that_are_no_numbers_are_refused(tmp_path, capsys, ranks):
    row = {"prompt": "p", "completions": ["a", "b"], "ranks": ranks, "model": ["x", "y"]}
    status, _, err = run(capsys, "rank", write(tmp_path / "v.jsonl", [row]))
    assert status == 2 and "line 1: ranks are numbers, 1 the best" in err


def test_ties_alone_say_what_has_no_estimate(tmp_path, capsys):
    votes = tmp_path / "v.jsonl"
    row = {"completions": ["a", "b"], "ranks": [1, 1], "model": ["x", "y"]}
    votes.write_text("".join(json.dumps({"prompt": f"q{i}", **row}) + "\n"
                             for i in range(6)))
    for ties in ("davidson", "rao_kupper"):
        assert main(["rank", str(votes), "--ties", ties]) != 0
        assert "every vote is a tie" in capsys.readouterr().err
    assert main(["rank", str(votes), "--ties", "half", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["models"]
    assert first["elo"] == {**second["elo"]} and first["elo"]["low"] < first["elo"]["value"] < first["elo"]["high"]


def test_two_people_who_always_differ_are_unknown_to_dawid_and_skene(tmp_path, capsys):
    """No answer says which of them is right: an accuracy of one half, somewhere in [0, 1]; it was a traceback."""
    labels = tmp_path / "l.jsonl"
    labels.write_text("".join(json.dumps({"item": f"i{i}", "labeler": f"l{j}", "label": "yes" if (i + j) % 2 else "no"}) + "\n"
                              for i in range(4) for j in range(2)))
    assert main(["aggregate", str(labels), "--method", "dawid_skene"]) == 0
    assert capsys.readouterr().out.count("[0.00, 1.00]") == 2
