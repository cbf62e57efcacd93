"""Closed-domain hallucination: models of a known kind, and no constant leads."""

import json

import pytest

from harken.core.errors import UserError
from harken.core.protocols import Sample
from harken.evals import hallucination
from harken.launch.evaluate import evaluate

ITEMS = {i.prompt.text: i for i in hallucination.load("")}


class Answers:
    engine = None

    def __init__(self, of):
        self.of = of

    def sample(self, prompts, n, *, max_tokens, temperature=1.0, top_p=1.0, seed=0, advance=None):
        return [[Sample((), self.of(ITEMS.get(p.text), p.text), (), (), True)] * n for p in prompts]


def run(tmp_path, of, name="r", **settings):
    given = {"model": Answers(of)}
    if "against" in settings:
        given["against"], settings["against"] = Answers(settings["against"]), "my.other"
    config = hallucination.Config(model="my.model", out=str(tmp_path / name), **settings)
    return evaluate("hallucination", hallucination, config, quiet=True, given=given).result


def knows(item, text):
    """Answers from the text; a summary is the text's first sentence."""
    if item is None:
        return text.split("\n\n")[1].split(".")[0] + "."
    return f"{item.answers[0]}." if item.answers else "The text doesn't say."


def invents(item, text):
    """Answers always, and from nowhere where the text does not."""
    return "Kasimir Blend of Ulm, 1822." if item is None else f"It is {item.answers[0]}." if item.answers else "Paris, in 1999."


def test_models_of_a_known_kind_and_constants(tmp_path):
    assert len(ITEMS) >= 200
    result = run(tmp_path, knows, "a", against=invents)
    model, other = result["model"], result["against"]
    assert result["value"]["value"] == pytest.approx(0.5) and result["value"]["n"] == 30
    assert model["right_where_it_says"]["value"] == model["right_where_it_does_not"]["value"] == 1.0
    assert model["foreign_names_in_answers"]["value"] == model["foreign_names_in_summaries"]["value"] == 0.0
    assert other["right_where_it_says"]["value"] == 1.0 and other["right_where_it_does_not"]["value"] == 0.0
    assert other["foreign_names_in_answers"]["value"] == pytest.approx(3 / 7)
    assert other["foreign_names_in_summaries"]["value"] == 1.0
    assert all(b["value"] <= 0.5 for b in result["baselines"].values())
    assert result["baselines"][f"always {hallucination.NOT_THERE!r}"]["value"] == 0.5
    for text in ("", "word " * 40, hallucination.CONSTANT):
        assert run(tmp_path, lambda item, t, text=text: text, f"n{len(text)}")["value"]["value"] <= 0.5


def test_rules_of_what_is_right_and_foreign():
    item = hallucination.Item("Ada Bell was born in 1931 in Ulm.", "Where was Ada Bell born?", ("Ulm",))
    assert hallucination.is_right("In Ulm, Germany.", item) and not hallucination.is_right("In Ulmen.", item)
    assert not hallucination.is_right("Ulm? The text does not clearly say.", item)
    assert hallucination.foreign("She was born in Ulm, Germany, in 1931. The year 1930 is wrong.", item) == ["Germany", "1930"]
    assert hallucination.foreign("Bell's town is Ulm.", item) == []


def test_other_files(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"text": "x", "question": "y", "answers": ["z"]}) + "\n")
    with pytest.raises(UserError, match="both needed"):
        run(tmp_path, knows, data=str(path))
