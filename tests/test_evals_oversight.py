"""Sandwiching: overseers and helpers of a known kind are measured as they are."""

import json

import pytest

from harken.core.errors import UserError
from harken.core.files import read_jsonl
from harken.core.protocols import Sample
from harken.evals import oversight
from harken.launch.evaluate import evaluate

N, K = 200, 4
WORDS = ("ash", "bay", "elm", "fir")
ROWS = [{"question": f"Which is the word of day {i}?", "options": [f"{i}-{w}" for w in WORDS], "answer": i % K} for i in range(N)]
TRUTH = {row["question"]: row["options"][row["answer"]] for row in ROWS}


class Model:
    """Answers by letter, right on the first `right` questions in a hundred; argues in words without content."""

    engine = None

    def __init__(self, right, argument="Because of the calendar, which is known to all."):
        self.right, self.argument = right, argument

    def says(self, text):
        if "A colleague" in text:
            return self.argument
        if "My answer is " in text:  # an overseer who repeats what it is told
            return text.split("My answer is ")[1][0]
        question, *lines = text.splitlines()
        options = {line[3:]: line[0] for line in lines if line[1:3] == ") "}
        true = options.pop(TRUTH[question])
        return true if int(question.split("day ")[1][:-1]) % 100 < self.right else sorted(options.values())[0]

    def sample(self, prompts, n, *, max_tokens, temperature=1.0, top_p=1.0, seed=0, advance=None):
        return [[Sample((), self.says(p.text), (), (), True)] * n for p in prompts]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("oversight") / "q.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def run(out, data, model, **settings):
    given = {"model": model}
    for name in ("overseer", "against"):
        if name in settings:
            given[name], settings[name] = settings[name], f"my.{name}"
    config = oversight.Config(model="my.model", data=data, out=str(out), **settings)
    return evaluate("oversight", oversight, config, quiet=True, given=given).result


def test_the_planted_accuracies_of_a_simulated_overseer(tmp_path, data):
    """Alone a + (1 - a)/4. A second look knows a' = a + (1 - a) l. Advised by a model that is right with m: a' (1 - s (1 - m)) +
    (1 - a')(t m + (1 - t)/4)."""
    a, t, s, look, m = 0.4, 0.7, 0.2, 0.1, 0.8
    result = run(tmp_path / "r", data, Model(80), simulated=f"ability={a},trust={t},sway={s},look={look}", overseers=40)
    accuracy = {k: v["value"] for k, v in result["model"]["accuracy"].items()}
    more = a + (1 - a) * look
    planted = {"alone": a + (1 - a) / K, "placebo": more + (1 - more) / K, "model": m,
               "help": more * (1 - s * (1 - m)) + (1 - more) * (t * m + (1 - t) / K)}
    assert accuracy == pytest.approx(planted, abs=0.015)
    effect = planted["help"] - planted["placebo"]
    assert result["value"]["low"] < effect < result["value"]["high"] and result["value"]["n"] == N
    assert result["model"]["p_holm"]["help - placebo"] < 0.001 and result["model"]["placebo - alone"]["low"] > 0
    assert result["model"]["follows_where_wrong, help"]["value"] > result["model"]["follows_where_wrong, placebo"]["value"] + 0.3
    assert result["baselines"]["an overseer who repeats the model"]["value"] == pytest.approx(m - planted["placebo"], abs=0.015)


def test_debate_helps_as_far_as_the_overseer_tells_arguments_apart(tmp_path, data):
    """Truth is among the two sides with m + (1 - m)/3; then it is found with (1 + d)/2."""
    a, d, m = 0.2, 0.6, 0.7
    result = run(tmp_path / "r", data, Model(70), simulated=f"ability={a},discern={d},look=0", overseers=40, help_by="debate")
    planted = a + (1 - a) * (m + (1 - m) / 3) * (1 + d) / 2
    # The other side is drawn once a question, so the tolerance is wide.
    assert result["model"]["accuracy"]["help"]["value"] == pytest.approx(planted, abs=0.03)


def test_a_placebo_takes_the_attention_effect_out(tmp_path, data):
    """Who trusts nobody gains from a second look alone: help beats alone, and does not beat the placebo."""
    result = run(tmp_path / "r", data, Model(90), simulated="ability=0.3,trust=0,sway=0,look=0.3")
    assert result["value"]["value"] == 0.0 and result["model"]["help - alone"]["low"] > 0.1
    assert result["model"]["p_holm"]["help - placebo"] == 1.0


def test_bad_advice_harms_and_calibration_shows_it(tmp_path, data):
    result = run(tmp_path / "r", data, Model(0), simulated="ability=0.5,trust=0.9,sway=0.5", against=Model(90))
    assert result["model"]["help - placebo"]["high"] < 0 and result["value"]["high"] < result["model"]["help - placebo"]["low"]
    calibration = result["model"]["calibration"]
    assert calibration["help"]["ece"] > calibration["alone"]["ece"] + 0.2


def test_a_model_oversees(tmp_path, data):
    """One that repeats the advice is as right as the adviser with help, and itself with a placebo."""
    result = run(tmp_path / "r", data, Model(90), overseer=Model(30), help_by="critique")
    accuracy = {k: v["value"] for k, v in result["model"]["accuracy"].items()}
    assert accuracy == {"alone": 0.3, "placebo": 0.3, "help": 0.9, "model": 0.9}


def test_people_oversee_through_files_of_the_studio(tmp_path, data):
    """A first run writes what to ask; three people, who know half and follow advice, answer; a second run reads it."""
    run(tmp_path / "a", data, Model(80), limit=40)
    votes = []
    for condition in oversight.CONDITIONS:
        asked = read_jsonl(tmp_path / "a" / f"ask_{condition}.jsonl")
        assert len(asked) == 40
        for i, row in enumerate(asked):
            for person in range(3):
                true = TRUTH[row["prompt"].splitlines()[0]]
                advised = row["prompt"].split("My answer is ")[1][3:].split(".")[0] if condition == "help" else None
                pick = advised or (true if i % 2 else next(o for o in row["completions"] if o != true))
                votes.append({**row, "ranks": [1 if o == pick else 2 for o in row["completions"]], "labeler": str(person)})
    path = tmp_path / "votes.jsonl"
    path.write_text("".join(json.dumps(v) + "\n" for v in votes))
    result = run(tmp_path / "b", data, Model(80), limit=40, people=str(path))
    accuracy = {k: v["value"] for k, v in result["model"]["accuracy"].items()}
    assert accuracy["alone"] == accuracy["placebo"] == 0.5 and accuracy["help"] == accuracy["model"]
    assert result["value"]["n"] == 40  # questions, not votes
    with pytest.raises(UserError, match="no answer to a question alone"):
        run(tmp_path / "c", data, Model(70), limit=40, people=str(_only(tmp_path, votes, "help")))


def _only(tmp_path, votes, tag):
    path = tmp_path / "only.jsonl"
    path.write_text("".join(json.dumps(v) + "\n" for v in votes if tag in v["tags"]))
    return path


def test_experts_decide_the_truth_and_a_tie_is_missing(tmp_path):
    rows = [{"question": "Q1?", "options": ["x", "y"], "experts": ["y", "y", 0]}, {"question": "Q2?", "options": ["x", "y"],
                                                                                   "experts": ["x", "y"]}]
    path = tmp_path / "q.json"
    path.write_text(json.dumps(rows))
    first, second = oversight.load(str(path), 0)
    assert first.option(first.truth) == "y" and second.truth is None


@pytest.mark.parametrize("words", ["ability=2", "wits=0.1", "ability"])
def test_wrong_settings(tmp_path, data, words):
    with pytest.raises(UserError, match="is no property with a probability"):
        run(tmp_path / "r", data, Model(50), simulated=words)
    bad = tmp_path / "bad.json"
    bad.write_text('[{"question": "Q?", "options": ["a", "a"], "answer": 0}]')
    with pytest.raises(UserError, match="another layout"):
        oversight.load(str(bad), 0)


def test_letters():
    assert [oversight.letter(t, 4) for t in ("B", "(C) because", "The answer is D.", "A cat sat", "None of them", "E)")] == [
        1, 2, 3, None, None, None]
