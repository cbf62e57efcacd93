"""Two answers side by side: a judge model in both orders, people, and a judge corrected by people."""

import json
import random
from types import SimpleNamespace

import pytest

from harken.cli.people import with_people
from harken.core.errors import UserError
from harken.core.files import read_jsonl
from harken.core.records import Prompt
from harken.evals import win_rate
from harken.launch.evaluate import evaluate
from harken.loops import pairwise
from harken.store.database import open_database
from says import Says
from studio_site import Clock, Desk


def shown(text):
    """(A's number, B's number) of a question to the judge; the constant answer has none."""
    a, b = (part.split("\n\n")[0].split()[0] for part in (text.split("Answer A:\n")[1], text.split("Answer B:\n")[1]))
    return tuple(float(x) if x[0].isdigit() else -1.0 for x in (a, b))


def fair(text, k):
    a, b = shown(text)
    return "[[C]]" if a == b else "A" if a > b else "B is better"


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{i}?", "use_case": "qa" if i % 2 else "poem"}) + "\n" for i in range(40)))
    return str(path)


def run(tmp_path, prompts, judge, model=None, name="r", **settings):
    """The model wins where the prompt's number is at least 10, ties at 5 to 9, loses below 5."""
    model = model or Says(lambda t, k: f"{1 if (i := int(t[:-1])) >= 10 else 0.5 if i >= 5 else 0} m{i}")
    given = {"model": model, "against": Says(lambda t, k: "0.5 other")}
    named = {"pairwise": "my.pairs"} if judge is not None else {}
    if judge is not None:
        given["pairwise"] = judge
    config = win_rate.Config(**{"model": "my.a", "against": "my.b", "prompts": prompts, "out": str(tmp_path / name), "n": 1,
                                **named, **settings})
    return evaluate("win_rate", win_rate, config, quiet=True, given=given).result


def test_a_fair_judge_by_hand(tmp_path, prompts):
    """30 wins, 5 ties, 5 losses of 40: (30 + 2.5) / 40. All verdicts hold in both orders; of the 70 without a tie half took
    what stood first. The constant answer loses everywhere."""
    result = run(tmp_path, prompts, Says(fair))
    assert result["value"]["value"] == 32.5 / 40 and result["value"]["n"] == 40
    assert result["position_consistency"]["value"] == 1.0 and result["first_position_rate"]["value"] == 0.5
    assert result["tie_rate"]["value"] == 5 / 40 and result["same_answer_called_equal"]["value"] == 1.0
    assert result["baselines"]["constant answer"]["value"] == 0.0 and result["verdicts"] == {"judged": 40,
                                                                                          "turned_with_the_order": 0}
    assert result["by_use_case"]["qa"]["n"] == 20
    first = result["samples"][0]
    assert (first["shown_first"], first["shown_second"], first["turned"]) == ("against", "against", False)
    assert first["model_score"] == 0.0 and first["judge_first"] == "B is better" and first["judge_second"] == "A"


def test_a_judge_of_places_is_a_coin_and_every_verdict_turns(tmp_path, prompts):
    result = run(tmp_path, prompts, Says(lambda t, k: "A"))
    assert result["value"]["value"] == 0.5 and result["position_consistency"]["value"] == 0.0
    assert result["first_position_rate"]["value"] == 1.0 and result["verdicts"]["turned_with_the_order"] == 40
    assert result["same_answer_called_equal"]["value"] == 0.0 and all(s["turned"] for s in result["samples"])


def test_a_judge_that_answers_nonsense_is_counted(tmp_path, prompts):
    """Nonsense on prompts 0 to 9: 30 wins of 30 known; at worst 30 of 40."""
    result = run(tmp_path, prompts, Says(lambda t, k: "As a judge, I" if int(t.split("?")[0].split()[-1]) < 10 else fair(t, k)))
    assert result["value"]["value"] == 1.0 and result["value"]["n"] == 30 and result["missing"] == 10
    assert "named no letter" in result["samples"][0]["why"] and result["samples"][0]["model_score"] is None
    assert any("0.750 or 1.000" in note for note in result["notes"])
    with pytest.raises(UserError, match=r"No item has a score.*any of 40 pairs; it first said .Hm\..\."):
        run(tmp_path, prompts, Says(lambda t, k: "Hm."), name="none")


def test_weights_choose_a_letter_by_log_prob(toy_engine, tmp_path):
    from harken.engines.sampler import HFSampler
    from harken.loops.items import Store, StoredModel
    store = Store(tmp_path / "items.jsonl")
    model = StoredModel(HFSampler(toy_engine()), store, ["toy"], name="toy")
    (one,) = pairwise.judged(model, [Prompt.of("Say hi.")], [("hi", "no")])
    asked = [pairwise.question(Prompt.of("Say hi."), *texts) for texts in (("hi", "no"), ("no", "hi"))]
    best = [max(zip(o.logps, "ABC"))[1] for o in model.options([(p, pairwise.LETTERS) for p in asked])]
    assert (one.first, one.second) == (pairwise.SAYS[best[0]], -pairwise.SAYS[best[1]])
    store.close()


@pytest.mark.parametrize(("text", "said"), [
    ("A", "A"), ("B.", "B"), ("[[C]]", "C"), ("Answer A is better", "A"), ("The winner is B because", "B"), ("Tie", "C"),
    ("A cat sat", None), ("A and B are the same", None), ("[[A]] or [[B]]", None), ("", None), ("answer: b", None)])
def test_letters(text, said):
    assert pairwise.letter(text) == said


def test_people_are_asked_blind_and_read_back_by_the_same_command(tmp_path, prompts):
    votes = tmp_path / "votes.jsonl"
    with pytest.raises(UserError, match=r"There are no votes yet: .*ask\.jsonl holds 35 pairs"):
        run(tmp_path, prompts, None, people=str(votes), model=(model := Says(
            lambda t, k: f"0.5 {'other' if 5 <= int(t[:-1]) < 10 else 'm'}")))
    asked = read_jsonl(tmp_path / "r" / "ask.jsonl")
    assert {tuple(sorted(r["completions"])) for r in asked} == {("0.5 m", "0.5 other")}
    assert 5 < sum(r["completions"][0] == "0.5 m" for r in asked) < 30 and "my." not in json.dumps(asked)
    # Two people each: both for the model on 20 prompts, split on 10, a tie and a vote for the other on 5.
    rows = []
    for i, row in enumerate(asked):
        own = row["completions"].index("0.5 m")
        for vote in [(1, 2), (1, 2)] if i < 20 else [(1, 2), (2, 1)] if i < 30 else [(1, 1), (2, 1)]:
            rows.append({"prompt": row["prompt"], "completions": row["completions"],
                         "ranks": [vote[0] if k == own else vote[1] for k in range(2)]})
    votes.write_text("".join(json.dumps(r) + "\n" for r in rows))
    before = model.asked
    result = run(tmp_path, prompts, None, people=str(votes), model=model)
    assert model.asked == before, "answers are read back from the store"
    assert result["value"]["value"] == pytest.approx((20 + 5 + 5 * 0.25 + 5 * 0.5) / 40) and result["votes"] == 70
    assert "missing" not in result and result["tie_rate"]["value"] == pytest.approx(5 / 70)
    with pytest.raises(UserError, match="has no vote on these answers"):
        run(tmp_path, prompts, None, people=str(votes), name="other")
    with pytest.raises(UserError, match="Name who judges"):
        run(tmp_path, prompts, None, name="nobody")


def test_people_are_asked_in_a_studio_and_waited_for(tmp_path, prompts, monkeypatch, capsys):
    """35 pairs differ; a labeler answers ten at each look of the command, which is interrupted once, and given again."""
    database = str(tmp_path / "feedback.db")

    def command(**settings):
        config = win_rate.Config(model="my.a", against="my.b", prompts=prompts, n=1, out=str(tmp_path / "r"), studio=database,
                                 **settings)
        given = {"model": Says(lambda t, k: f"0.5 {'other' if 5 <= int(t[:-1]) < 10 else 'm'}"),
                 "against": Says(lambda t, k: "0.5 other")}
        return with_people(config, lambda: evaluate("win_rate", win_rate, config, quiet=True, given=given)).result

    looks = []

    def ten_answers(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            raise KeyboardInterrupt
        with open_database(database) as db:
            desk = object.__new__(Desk)
            desk.db, desk.clock, desk.people = db, Clock(), {}
            ((desk.project, name),) = desk.rows("SELECT id, name FROM projects")
            assert "my." not in name and desk.rows("SELECT count(*) FROM items")[0][0] == 35
            for _ in range(10):
                for task in desk.claim(f"ana{len(looks)}"):
                    own = task["completions"].index("0.5 m")
                    desk.submit(f"ana{len(looks)}", task, answer={"preference": 3 if own else -3})

    monkeypatch.setattr("harken.cli.people.time", SimpleNamespace(sleep=ten_answers))
    with pytest.raises(KeyboardInterrupt):
        command()
    with pytest.raises(UserError, match=r"10 of 35 pairs of .* are answered"):
        command(wait=False)
    result = command(wait=True)
    assert len(looks) == 5 and result["votes"] == 35 and result["value"]["value"] == (35 + 2.5) / 40
    assert "People are asked in the project 'Which answer is better?" in capsys.readouterr().err
    assert command()["value"] == result["value"], "what is finished is left as it is"


def test_an_empty_answer_is_asked_about_and_not_left_out(tmp_path):
    """The studio takes no empty answer; two that say nothing are a tie."""
    prompts, pairs = [Prompt.of("a"), Prompt.of("b"), Prompt.of("c")], [("", "text"), (" ", ""), (None, "text")]
    (row,) = pairwise.to_ask(prompts, pairs, 0)
    assert sorted(row["completions"]) == ["(an empty answer)", "text"]
    (tmp_path / "v.jsonl").write_text(json.dumps({"prompt": "a", "completions": ["text", "(an empty answer)"], "ranks": [1, 2]}))
    assert pairwise.people(str(tmp_path / "v.jsonl"), prompts, pairs) == [[0.0], [], []]
    assert pairwise.same(*pairs[1]) and not pairwise.same(*pairs[2])


def test_a_judge_is_corrected_by_people(capsys):
    """2,000 prompts of which people prefer the model on 40 %; the judge says yes to 90 % of those and to 30 % of the others, so
    54 %. People judged 400. Both corrections find .4, the raw rate does not."""
    rng = random.Random(3)
    said = [rng.random() < 0.4 for _ in range(2000)]
    shares = [float(rng.random() < (0.9 if y else 0.3)) for y in said]
    votes = [[float(y)] if i < 400 else [] for i, y in enumerate(said)]
    notes = []
    found = pairwise.beside_people(shares, votes, SimpleNamespace(note=notes.append))
    raw = sum(shares) / len(shares)
    for name in ("corrected_ppi", "corrected_rogan_gladen"):
        assert found[name].low < 0.4 < found[name].high and not found[name].low < raw < found[name].high
    assert found["agreement_with_people"].value == pytest.approx(0.78, abs=0.05) and not notes
    few = pairwise.beside_people(shares, [v if i < 29 else [] for i, v in enumerate(votes)], SimpleNamespace(note=notes.append))
    assert "corrected_ppi" not in few and "from 30 on" in notes[0]
