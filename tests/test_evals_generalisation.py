"""Generalisation: planted gaps between languages and use cases, and the pilot data that close one."""

import json
import random

import numpy as np
import pytest

from harken.core.errors import UserError
from harken.core.protocols import Sample
from harken.evals import generalisation
from harken.launch.evaluate import evaluate

ITEMS = {i.prompt.text: i for i in generalisation.languages()}


class Answers:
    engine = None

    def __init__(self, of):
        self.of = of

    def sample(self, prompts, n, *, max_tokens, temperature=1.0, top_p=1.0, seed=0, advance=None):
        return [[Sample((), self.of(p), (), (), True)] * n for p in prompts]


class Length:
    id = "length/1"

    def score(self, prompts, completions):
        return [[float(t) if t else None for t in row] for row in completions]


def run(module, tmp_path, given, name="r", **settings):
    words = {key: f"my.{key}" for key in given}
    config = module.Config(**words, out=str(tmp_path / name), **settings)
    return evaluate(module.__name__.split(".")[-1], module, config, quiet=True, given=given).result


def knows(share):
    """Right in English, and on the first `share` of each other language's contents."""
    order = {c: k for k, c in enumerate(dict.fromkeys(i.content for i in ITEMS.values()))}

    def of(prompt):
        item = ITEMS[prompt.text]
        right = item.group == "en" or order[item.content] < share * len(order)
        word = item.right.replace("(?-i:May)", "May").split("|")[0]
        return f"It is {word}." if right else "I do not know."
    return of


def test_languages_are_many_paired_and_checked():
    items = list(ITEMS.values())
    assert len(items) == 300 and len({i.content for i in items}) == 50
    by = generalisation.by_group(items, generalisation.scored(items, [knows(1.0)(i.prompt) for i in items], None), (0.0, 1.0))
    assert set(by) == {"en", "de", "fr", "es", "it", "nl"} and all(e.value == 1.0 for e in by.values()), by
    echo = generalisation.scored(items, [i.prompt.text for i in items], None)
    assert sum(echo) == 0  # no question holds its answer
    assert generalisation.scored([next(i for i in items if i.content == "month: April")], ["It may be."], None) == [0.0]


def test_a_planted_gap_between_languages(tmp_path):
    result = run(generalisation, tmp_path, {"model": Answers(knows(0.6))})
    assert result["value"]["value"] == pytest.approx(-0.4) and result["value"]["n"] == 50
    assert result["model"]["en"]["value"] == 1.0
    assert result["baselines"]["a constant answer"]["value"] == 0.0
    both = run(generalisation, tmp_path, {"model": Answers(knows(0.6)), "against": Answers(knows(0.2))}, "b")
    assert both["value"]["value"] == pytest.approx(0.4)  # nothing to gain in English, .4 elsewhere
    assert both["change"]["en"]["value"] == 0.0 and both["change"]["de"]["value"] == pytest.approx(0.4)
    assert both["change"]["p_holm"]["de"] < 0.001 and both["change"]["p_holm"]["en"] == 1.0


def prompts(tmp_path, name, counts):
    path = tmp_path / name
    path.write_text("".join(json.dumps({"prompt": f"{case} {k}?", "use_case": case}) + "\n" for case, n in counts.items()
                            for k in range(n)))
    return str(path)


def test_a_planted_shift_between_use_cases(tmp_path, monkeypatch):
    """After training on qa alone: +1 there, +.25 on rewriting; the change stays .75 behind. Shares .5, .5 against 1, 0."""
    asked = prompts(tmp_path, "natural.jsonl", {"qa": 60, "rewrite": 60})
    trained = prompts(tmp_path, "trained.jsonl", {"qa": 10})
    rng = random.Random(0)
    before = {f"{c} {k}?": rng.gauss(0, 1) for c in ("qa", "rewrite") for k in range(60)}
    after = {p: x + (1.0 if p.startswith("qa") else 0.25) + rng.gauss(0, 0.3) for p, x in before.items()}
    given = {"model": Answers(lambda p: str(after[p.text])), "against": Answers(lambda p: str(before[p.text]))}
    monkeypatch.setattr(generalisation, "CONSTANT", "0.5")
    result = run(generalisation, tmp_path, {**given, "reward": Length()}, prompts=asked, trained=trained)
    assert result["value"]["low"] < -0.75 < result["value"]["high"] and result["value"]["high"] - result["value"]["low"] < 0.3
    d = np.array([after[p] - before[p] for p in before])  # Welch's standard error by hand: the two means are independent
    se = np.sqrt(sum(x.var(ddof=1) / 60 for x in (d[:60], d[60:])))
    half = (result["value"]["high"] - result["value"]["low"]) / 2
    assert half == pytest.approx(1.98 * se, rel=0.02)
    assert result["total_variation"] == 0.5 and result["shares"]["rewrite"] == {"trained": 0.0, "asked": 0.5}


def test_what_it_cannot_split(tmp_path):
    asked = prompts(tmp_path, "p.jsonl", {"qa": 3})
    model = {"model": Answers(lambda p: "1")}
    with pytest.raises(UserError, match="need a judge"):
        run(generalisation, tmp_path, model, prompts=asked, seen="qa")
    with pytest.raises(UserError, match="All of the groups qa are seen"):
        run(generalisation, tmp_path, {**model, "reward": Length()}, "b", prompts=asked, seen="qa")
    with pytest.raises(UserError, match="has a language"):
        run(generalisation, tmp_path, {**model, "reward": Length()}, "c", prompts=asked, seen="de", by="language")


def test_pilot_data_close_the_gap_and_leave_the_model_alone(tmp_path):
    torch = pytest.importorskip("torch")
    from harken.evals import pilot
    from harken.launch.models import parse_model
    rows = [{"prompt": f"say {a}{b}", "completion": "zqzqzqzq"} for a in "abcdefgh" for b in "klmnop"]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    engine = parse_model("toy").open_engine()
    before = [p.detach().clone() for p in engine.model.parameters()]
    config = pilot.Config(model="toy", target=str(path), source=str(path), n="4,24", held_out=12, epochs=20, learning_rate=3e-3,
                          margin=0.2, out=str(tmp_path / "r"))
    result = evaluate("pilot", pilot, config, quiet=True, given={}).result
    losses = [result[f"n {n}"]["log_loss"]["value"] for n in (0, 4, 24)]
    assert losses[0] > losses[1] > losses[2] and result["value"]["high"] < 0 and result["better"] == "lower"
    closed = result["n 4"]["closed"]["value"]
    assert closed == pytest.approx((losses[0] - losses[1]) / (losses[0] - losses[2])) and 0 < closed < 1
    assert result["n 24"]["closed"]["value"] == pytest.approx(1.0) and result["n 24"]["cost_on_source"]["value"] < 0
    assert all(torch.equal(a, b) for a, b in zip(before, parse_model("toy").open_engine().model.parameters()))
    with pytest.raises(UserError, match="left for n = 400"):
        config = pilot.Config(model="toy", target=str(path), n="400", out=str(tmp_path / "b"))
        evaluate("pilot", pilot, config, quiet=True, given={})
