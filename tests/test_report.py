"""The report page over fabricated run directories: every number and text in these fixtures is invented."""

from __future__ import annotations

import base64
import csv
import json
import math
import re
import sys
import zlib
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from harken.cli.main import main
from harken.core.errors import UserError
from harken.core.protocols import Estimate
from harken.draw.numbers import number, percent, span, value
from harken.draw.svg import Plot, binned, smooth, ticks
from harken.report.browser import script, script_hash
from harken.report.build import build_report, render
from harken.report.compared import claims
from harken.report.load import estimate, load_runs
from harken.report.refusals import reactions
from harken.report.sets import sample_sets
from harken.report.wins import cells_of, ranked, wins

HOSTILE = '</p><script>alert("x")</script><img src=http://evil.example/x.png onerror=alert(1)> &amp; <b>bold'
ODD = "naïve \u202eright-to-left\u202c שלום 🧑‍🚀 \x00\x1b[31m \ud800 z̷͇a 日本語"


def e(value, half, n=200):
    return {"value": value, "low": value - half, "high": value + half, "n": n, "level": 0.95}


def write(folder: Path, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if isinstance(content, list):
            body = "".join(json.dumps(row) + "\n" for row in content)
            (folder / f"{name}.jsonl").write_text(body, encoding="utf-8")
        else:
            (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def lineage(seed):
    rng = np.random.default_rng(seed)
    digest = rng.bytes(32).hex()
    return {"code": "0.1.0+fixture", "model": {"name": "fixture-135M", "sha256": rng.bytes(32).hex()},
            "data": {"path": "data/fixture.jsonl", "sha256": digest, "rows": 1200}, "reward": None,
            "created": "2026-01-01T00:00:00+0000"}


def sft_run(folder, steps=120):
    rng = np.random.default_rng(1)
    metrics = [{"step": i, "seconds": 0.8 * i, "loss": 1.6 + 1.3 * math.exp(-i / 25) + 0.09 * rng.normal(),
                "nll": 1.7 + 1.3 * math.exp(-i / 25) + 0.06 * rng.normal(), "learning_rate": 1e-4}
               for i in range(1, steps + 1)]
    samples = [{"step": steps, "prompt": "Name a colour.", "completion": "Blue, like the evening."}]
    return write(folder, config={"command": "train sft", "model": "fixture-135M", "epochs": 1, "seed": 0},
                 lineage=lineage(1), metrics=metrics, samples=samples,
                 result={"nll": 1.71, "notes": ["12 demonstrations dropped: longer than 512 tokens"]})


def reward_run(folder):
    rng = np.random.default_rng(2)
    metrics = [{"step": i, "seconds": 0.6 * i, "loss": 0.52 + 0.2 * math.exp(-i / 20) + 0.03 * rng.normal(),
                "accuracy": 0.73 - 0.2 * math.exp(-i / 20) + 0.04 * rng.normal()} for i in range(1, 91)]
    bins = [{"predicted": p, "observed": o, "n": n} for p, o, n in
            [(0.53, 0.55, 96), (0.6, 0.58, 88), (0.66, 0.69, 71), (0.73, 0.7, 60), (0.8, 0.83, 41), (0.88, 0.85, 27),
             (0.95, 0.91, 12)]]
    return write(folder, config={"command": "train reward_model", "model": "fixture-135M"}, lineage=lineage(2),
                 metrics=metrics, samples=[], result={
                     "accuracy": e(0.724, 0.031, 395), "accuracy_labelers": e(0.691, 0.05, 180),
                     "baselines": {"longest": e(0.553, 0.035, 395), "shortest": e(0.447, 0.035, 395),
                                   "constant": e(0.5, 0.0, 395)}, "calibration": bins, "ece": 0.021})


def rloo_run(folder):
    rng = np.random.default_rng(3)
    metrics: list[dict] = []
    for i in range(1, 151):
        kl = 9 * (1 - math.exp(-i / 60)) + 0.25 * rng.normal()
        root = math.sqrt(max(kl, 0))
        metrics.append({"step": i, "seconds": 4.1 * i, "reward": -0.3 + 0.62 * root + 0.12 * rng.normal(), "kl": kl,
                        "entropy": 2.4 - 0.006 * i + 0.05 * rng.normal(), "length": 48 + 0.2 * i + 3 * rng.normal(),
                        "clip_fraction": None if i == 7 else 0.02 + 0.01 * rng.random(),
                        "logprob_gap": 1e-6 * rng.random(), "eos_rate": 0.9 + 0.08 * (1 - math.exp(-i / 30)),
                        "gold": 0.1 + 0.5 * root - 0.075 * root * root + 0.06 * rng.normal()})
    samples = [{"step": 150, "prompt": [{"role": "user", "content": "Say hello."}], "completion": "Hello!", "reward": 0.4,
                "kl": 3.0}]
    return write(folder, config={"command": "train rloo", "beta": 0.05}, lineage=lineage(3), metrics=metrics,
                 samples=samples, result={"reward": 1.1, "notes": []})


def win_rate_run(folder):
    rows = [{"prompt": f"Question {i}?", "model_text": f"A careful answer to {i}.", "against_text": "I do not know.",
                "model_score": None if i == 3 else 0.1 * i, "against_score": 0.5} for i in range(12)]
    return write(folder, config={"command": "eval win_rate"}, lineage=lineage(4), result={
        "name": "win_rate", "model": "rloo", "against": "sft", "judge": "gold reward", "value": e(0.611, 0.06, 150),
        "baselines": {"longest": e(0.52, 0.07, 150), "constant": e(0.5, 0.0, 150)},
        "mean_score": {"model": e(1.21, 0.12, 150), "against": e(0.94, 0.11, 150)}, "notes": ["1 answer without a score"],
        "samples": rows}, samples=[{"step": 0, "prompt_id": "x", "model_texts": ["a"], "against_texts": ["b"]}])


def quickstart_run(folder):
    text = ("A short walk clears the head. Leave the phone at home, and notice three things on the way. "
            "When you are back, write down the one that stayed with you. ")
    rows = [{"prompt": f"{ask} (fixture {i})", "use_case": use, "base": "walk walk the the and then walk and" + " on" * i,
             "sft": text[:90], "rloo": text, "gold": {"base": -0.42 + 0.01 * i, "sft": 0.85, "rloo": 1.31 - 0.2 * (i == 4)}}
            for i, (ask, use) in enumerate([("How do I start a daily walk?", "advice"),
                                            ("List three calm hobbies.", "brainstorming"),
                                            ("Summarise: walking is good for most.", "summarization")] * 6)]
    rows[2]["gold"]["base"] = None
    write(folder, config={"command": "quickstart", "seed": 0}, lineage=lineage(5), comparison=rows, summary={
        "reward_model": {"accuracy": e(0.724, 0.031, 395), "baselines": {"longest": e(0.553, 0.035, 395)}},
        "base": {"gold": e(-0.41, 0.09)},
        "sft": {"gold": e(0.88, 0.11), "gold_win_rate": e(0.704, 0.055), "nll_change": e(0.021, 0.03)},
        "rloo": {"gold": e(1.29, 0.1), "gold_win_rate": e(0.846, 0.044), "gold_win_rate_over_sft": e(0.655, 0.06),
                 "kl": e(8.7, 0.6), "nll_change": e(0.064, 0.031)},
        "seconds": 742.0})
    sft_run(folder / "sft")
    reward_run(folder / "reward_model")
    rloo_run(folder / "rloo")
    return folder


class Page(HTMLParser):
    """Balance of tags, what is loaded, the text, and every table's scaffolding."""

    VOID = frozenset({"meta", "br", "hr", "img", "input", "link"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        names = [k for k, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} repeats an attribute"
        self.seen.append((tag, dict(attrs)))
        self.ids += [v for k, v in attrs if k == "id"]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack and self.stack[-1] == tag, f"</{tag}> closes {self.stack[-3:]}"
        self.stack.pop()

    def handle_data(self, data):
        self.words.append(data)

    def tags(self, name):
        return [a for t, a in self.seen if t == name]


def page(runs, tmp_path):
    html = build_report(runs, tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    return html, Page(html)


def only_ours(parsed):
    """Packed samples, and the one script that the policy of the page names by its hash."""
    return [a for a in parsed.tags("script") if a.get("type") != "text/plain"] == [{}]


@pytest.fixture
def whole(tmp_path):
    return page([quickstart_run(tmp_path / "quickstart"), win_rate_run(tmp_path / "eval")], tmp_path)


def test_the_verdict_and_every_section_are_there(whole):
    html, parsed = whole
    heading = re.sub("<[^>]+>", "", re.search(r"<h1>(.*?)</h1>", html)[1])
    assert heading == "RLOO beats the base model: it wins 84.6% [80.2, 89.0%] of comparisons on 200 prompts by gold score."
    for words in ("Reward against KL", "Null baseline: shortest", "Expected calibration error 2.1%", "12 demonstrations dropped",
                  "clip_fraction missing at 1 of 150 steps", "1 of 54 gold scores missing", "1 of 12 samples without model"):
        assert words in " ".join(parsed.words), words
    assert len(parsed.ids) == len(set(parsed.ids))
    assert [a["href"][1:] for a in parsed.tags("a")] == [a["id"] for a in parsed.tags("section")]
    assert html.count('<article class="sample">') == 20


def test_it_is_accessible(whole):
    html, parsed = whole
    assert len(parsed.tags("table")) == len(parsed.tags("caption")) > 5
    assert all("scope" in a for a in parsed.tags("th"))
    assert all(a.get("role") == "img" and a.get("aria-label") for a in parsed.tags("svg"))
    assert html.count("<svg") <= html.count("<title>") - 1
    levels = [int(t[1]) for t, _ in parsed.seen if re.fullmatch("h[1-6]", t)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_at_least_4_5(scheme):
    """WCAG AA for text, on page and card."""
    css = (Path(__file__).parents[1] / "src/harken/draw/style.css").read_text()
    block = css.split("prefers-color-scheme: dark")[0 if scheme == "light" else 1]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block.split("}")[0]))

    def luminance(c):
        v = [int(c[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        return sum(w * (x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4) for w, x in zip((.2126, .7152, .0722), v))

    for front in ("ink", "soft", "accent", "gold"):
        for back in ("paper", "card", "wash"):
            a, b = sorted((luminance(colours[front]), luminance(colours[back])), reverse=True)
            assert (a + 0.05) / (b + 0.05) >= 4.5, (front, back)


def test_it_loads_nothing(whole):
    html, parsed = whole
    for tag, attributes in parsed.seen:
        assert tag not in ("link", "iframe", "img", "object"), tag
        for name in ("src", "href", "srcset", "action"):
            assert attributes.get(name, "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in html and "@import" not in html and "default-src 'none'" in html
    assert "fetch(" not in html and "XMLHttpRequest" not in html and "import(" not in html
    code = [a for a in parsed.tags("script") if a.get("type") != "text/plain"]
    assert code == [{}] and f"script-src '{script_hash()}'" in html and f"<script>{script()}</script>" in html


def test_hostile_and_odd_text_is_only_text(tmp_path):
    run = quickstart_run(tmp_path / "q")
    rows = [{"prompt": [{"role": HOSTILE, "content": ODD}, {"role": "user", "content": HOSTILE}], "use_case": HOSTILE,
             "base": HOSTILE, "sft": ODD, "rloo": "", "gold": {"base": 1.0, "sft": None, "rloo": -1.0}}]
    write(run, comparison=rows, lineage={HOSTILE: HOSTILE, "nested": [{"a": HOSTILE}, ODD]})
    write(run / "rloo", metrics=[{"step": 1, HOSTILE: 1.0, "kl": 0.1, "reward": 1.0}, {"step": 2, HOSTILE: 2.0}],
          result={"notes": [HOSTILE, ODD]})
    hostile_eval = win_rate_run(tmp_path / 'a"><script>1')
    write(hostile_eval, result={**json.loads((hostile_eval / "result.json").read_text()), "model": HOSTILE, "judge": HOSTILE,
                                "baselines": {HOSTILE: e(0.5, 0.1)}})
    html, parsed = page([run, hostile_eval], tmp_path)
    assert only_ours(parsed) and not parsed.tags("img") and not parsed.tags("b")
    assert HOSTILE in "".join(parsed.words) and "日本語" in html and "\x00" not in html and "\x1b" not in html
    assert '<p class="none">empty</p>' in html


def test_one_run_alone(tmp_path):
    html, _ = page([sft_run(tmp_path / "sft")], tmp_path)
    assert "SFT: NLL over" in html and "nobody has judged it yet" in html
    assert 'id="results"' not in html and 'id="training"' in html and "Blue, like the evening." in html
    assert "5 runs" not in html and "1 run ·" in html


def test_a_stopped_run_shows_its_audits_what_was_kept_and_what_drifted(tmp_path):
    run = rloo_run(tmp_path / "rloo")
    rng = np.random.default_rng(6)
    audits = [{"step": 10 * i, "proxy": (0.3 * i + rng.normal(size=24)).tolist(), "texts": [],
               "held_out": [None, *(0.2 * i - 0.03 * i * i + 0.1 * rng.normal(size=23)).tolist()], "kl": 1.0 * i, "length": 40.0}
              for i in range(8)]
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics += [{"step": a["step"], "audit_kl": a["kl"], "audit_held_out": float(np.mean(a["held_out"][1:]))} for a in audits]
    for row in metrics:
        if "length" in row:
            row["length"] *= 1 + row["step"] / 100
    write(run, audits=audits, metrics=metrics, result={"notes": [], "stopped": {
        "rule": "hacking", "step": 70, "kept_step": 30, "why": "the held-out reward changes by −1"}})
    html, parsed = page([run], tmp_path)
    words = " ".join(parsed.words)
    assert "by the rule hacking: the held-out" in words and re.search(r"kept is that after step\s+30", words)
    assert "on 23 prompts kept out of training" in words and "on 24 prompts" in words
    assert re.search(r"Length \(tokens\)\s*\S+\s+\S+\s+grows × 2\s+step \d+", words)
    assert "Audit: held-out reward against √KL" in html
    write(run, audits=[{"step": 1}, {"x": 2}])
    page([run], tmp_path)


def test_e15_a_reward_model_alone_is_held_against_its_baselines(tmp_path):
    html, _ = page([reward_run(tmp_path / "rm")], tmp_path)
    assert "always choosing the longest gets 55.3%." in html
    weak = reward_run(tmp_path / "weak")
    write(weak, result={"accuracy": e(0.56, 0.04), "baselines": {"longest": e(0.55, 0.04)}})
    html, _ = page([weak], tmp_path)
    assert "not shown to be better" in html and "Calibration" not in html


def people_runs(folder):
    """One reward model that knows its labelers, one that knows its groups, one compositional reward."""
    run = reward_run(folder / "by_labeler")
    length = {"length": 0.1, "length_low": -0.1, "length_high": 0.3, "level": 0.9, "rankings": 7}
    traits = {f"l{i}": length | {"beta": 1.5 - 0.1 * i, "beta_low": 1.2 - 0.1 * i, "beta_high": 1.8 - 0.1 * i} for i in range(30)}
    write(run, result=json.loads((run / "result.json").read_text()) | {"labelers": traits | {HOSTILE: {"beta": -0.9}, "odd": 3}})
    by_group = reward_run(folder / "by_group")
    answers = [{"text": HOSTILE, "scores": {"old": -0.4, "young": 1.2}}, {"text": ODD, "scores": {"old": 0.9, "young": None}}]
    write(by_group, result=json.loads((by_group / "result.json").read_text()) | {
        "groups": {"old": {"rankings": 9, "accuracy": e(0.71, 0.1), "shared_accuracy": e(0.52, 0.1)}, "young": {"rankings": 2}},
        "ordered_apart": {"old and young": e(0.314, 0.1)}, "furthest_apart": [{"prompt": "Which?", "answers": answers}, None]})
    parts = {f"a{i}": 0.5**i for i in range(10)}
    composed = write(folder / "cpm", config={"command": "fit compositional"}, result={
        "attributes": {"length": {"weight": -0.6, "low": -0.8, "high": -0.3}, "idle": {"weight": 0.0}, "weak": {"entropy": 0.1}},
        "explained": [{"prompt": "Why?", "answers": [{"text": "So.", "rank": 1, "parts": parts},
                                                     {"text": "?", "rank": 2, "parts": None}]}]})
    return [run, by_group, composed]


def test_f16_the_people_and_the_parts_of_a_score_are_shown(tmp_path):
    parsed = page(people_runs(tmp_path), tmp_path)[1]
    words = " ".join(parsed.words)
    assert "the 24 least reliable of 31" in words and words.index("l29") < words.index("l6 ") < words.index("l5 ")
    assert "[−1.70, −1.10] at 90%" in words
    for said in ("71.0%", "52.0%", "31.4%", "−0.40", "+1.20", "old and young", "no score", "rank 1"):
        assert said in words, said
    assert "−0.60" in words and "idle" not in words, "a weight of 0 is no part"
    assert "+0.01" in words and "others" in words and "+2.00" in words, "the largest parts, the rest, and their sum 1.998"
    assert only_ours(parsed) and len(parsed.tags("table")) == len(parsed.tags("caption"))
    assert 'id="people"' not in page([reward_run(tmp_path / "plain")], tmp_path)[0]


@pytest.mark.parametrize(("rate", "words"), [(0.5, "are tied"), (0.3, "falls behind"), (0.7, "beats")])
def test_the_verdict_says_what_the_interval_allows(tmp_path, rate, words):
    run = win_rate_run(tmp_path / "eval")
    write(run, result={"name": "win_rate", "model": "/some/where/runs/new", "against": "old", "judge": "gold",
                       "value": e(rate, 0.1)})
    html, _ = page([run], tmp_path)
    assert words in html and "runs/new" in html and "/some/where" not in re.search(r"<h1>(.*?)</h1>", html)[1]


def test_torn_and_missing_pieces(tmp_path):
    run = rloo_run(tmp_path / "rloo")
    for name in ("result.json", "lineage.json", "samples.jsonl"):
        (run / name).unlink()
    with (run / "metrics.jsonl").open("a") as f:
        f.write('[1]\n{"step": 151, "kl": NaN, "reward": null}\n{"step": 152, "rew')
    html, _ = page([run], tmp_path)
    assert "2 unreadable lines in metrics.jsonl" in html and "not finished" in html and "no lineage.json" in html
    assert "kl missing at 1 of 151 steps" in html
    (run / "lineage.json").write_text("{")
    assert "1 unreadable line in lineage.json" in page([run], tmp_path)[0]


def test_bare_and_empty_runs(tmp_path):
    bare = write(tmp_path / "bare", config={})
    html, _ = page([bare], tmp_path)
    assert "These runs hold no figures yet." in html
    one = write(tmp_path / "one", config={"command": "train rloo"}, metrics=[{"step": 1, "kl": 0.0, "reward": 0.0}],
                result={"accuracy": {"value": 0.5, "low": -math.inf, "high": math.inf, "n": 1}, "value": None})
    page([one], tmp_path)
    odd = write(tmp_path / "odd", config={"command": "quickstart"}, comparison=[{"prompt": None, "gold": 3}, {}],
                summary={"base": {"gold": None}, "rloo": {"gold": {"value": 1.0}}, "seconds": None, "notes": "x"})
    page([odd], tmp_path)


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(UserError, match="No runs"):
        build_report([], tmp_path / "r.html")
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=r"photos is not a run directory"):
        build_report([tmp_path / "photos"], tmp_path / "r.html")
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        build_report([tmp_path / "nowhere"], tmp_path / "r.html")
    with pytest.raises(UserError, match="is a directory"):
        build_report([sft_run(tmp_path / "sft")], tmp_path)
    (tmp_path / "sft" / "config.json").write_text("{")
    with pytest.raises(UserError, match="not readable"):
        build_report([tmp_path / "sft"], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_runs_are_found_once_and_in_order(tmp_path):
    run = quickstart_run(tmp_path / "quickstart")
    assert [r.name for r in load_runs([run])] == ["quickstart", "sft", "reward_model", "rloo"]
    assert [r.name for r in load_runs([run, run / "sft"])] == ["quickstart", "sft", "reward_model", "rloo"]
    other = sft_run(tmp_path / "b" / "sft")
    assert [r.name for r in load_runs([run / "sft", other])] == ["quickstart/sft", "b/sft"]


def test_numbers_as_words():
    assert [number(x) for x in (0.0, 1234567.0, -0.5, 3.14159, 4.79e-7, math.inf)] == [
        "0", "1.23e6", "−0.500", "3.14", "4.79e−7", "∞"]
    assert percent(0.12345) == "12.3%"
    near = Estimate(0.8812, 0.77, 0.99, 10)
    assert (value(near), span(near)) == ("0.88", "[0.77, 0.99]")
    assert span(Estimate(0.5, 0.4, 0.6, 9, 0.9), rate=True) == "[40.0, 60.0%] at 90%"
    assert span(Estimate(0.5, -math.inf, math.inf, 1)) == "[−∞, ∞]" and span(estimate(0.5)) == "no interval"
    assert estimate(True) is None and estimate({"value": "x"}) is None and estimate(float("nan")) is None


def test_drawing_helpers():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0] and ticks(-3, 9) == [-2, 0, 2, 4, 6, 8] and ticks(2, 2) == [2]
    points = [(float(i), float(i % 2)) for i in range(1000)]
    assert len(binned(points)) == 240 and sum(p[1] for p in smooth(points)) == pytest.approx(500, abs=2)
    assert smooth(points[:5]) == points[:5]


def test_a_plot_is_a_file_of_its_own_with_a_legend():
    """The plot's area begins at (33, 10): one-digit ticks of four characters take 12 + 7 * 3."""
    plot = Plot("t", "d", (0, 1), (0, 1))
    plot.line([(0, 0), (1, 1)], "gold")
    plot.legend([("gold", "gold & <b>"), ("fit", "fit")])
    drawn = ElementTree.fromstring(plot.file(".gold{stroke:red}"))
    svg = "{http://www.w3.org/2000/svg}"
    lines = [(x.get("class"), x.get("points")) for x in drawn.iter(f"{svg}polyline")][1:]
    assert lines == [("gold", "45,20 67,20"), ("fit", "45,36 67,36")]
    words = [(x.text, x.get("x"), x.get("y")) for x in drawn.iter(f"{svg}text")][-2:]
    assert words == [("gold & <b>", "72", "24"), ("fit", "72", "40")]
    assert [x.text for x in drawn.iter(f"{svg}style")] == [".gold{stroke:red}"]


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a report of two models from disk; axe needs the page's policy out of the way."""
    runs = [eval_run(tmp_path / m, "truthful", m, [None, *(((i * k) % 7) / 6 for i in range(599))])
            for m, k in (("one", 3), ("two", 5))]
    out = build_report([quickstart_run(tmp_path / "quickstart"), *runs], tmp_path / "report.html")

    def opening(**options):
        page = browser.new_context(**options).new_page()
        page.elsewhere = []
        page.on("request", lambda r: page.elsewhere.append(r.url) if r.url != out.as_uri() else None)
        page.on("pageerror", lambda error: page.elsewhere.append(str(error)))
        page.goto(out.as_uri() + "#sample=1.5")
        page.wait_for_selector("html[data-ready=yes] #b-item .words")
        return page
    return opening


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"viewport": {"width": 1440, "height": 900}},
                                     {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}],
                         ids=["laptop", "dark phone"])
def test_axe_finds_nothing_in_the_report_and_it_fits(opened, options):
    page = opened(bypass_csp=True, **options)
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    assert [f"{v['id']}: {[(n['target'], n['failureSummary']) for n in v['nodes']]}" for v in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"


@pytest.mark.slow
def test_the_sample_browser_by_keyboard_filters_orders_and_links(opened):
    page = opened(viewport={"width": 1280, "height": 720})
    item, count = page.locator("#b-item"), page.locator("#b-count")
    assert "Q: Question 5?" in item.inner_text(), "the address names the sample"
    assert "600 items" in count.inner_text() and "1 without a score" in count.inner_text()
    assert item.locator("mark").all_inner_texts() == ["one", "two"], "the words that differ"
    page.locator("#b-order").select_option("apart")
    page.wait_for_timeout(100)
    page.locator("#b-list").focus()
    page.keyboard.press("Home")
    page.wait_for_timeout(100)
    gaps = []
    for key in ("ArrowDown", "End", "ArrowUp"):
        page.keyboard.press(key)
        page.wait_for_timeout(100)
        gaps.append([x.split(" ·")[0] for x in item.locator(".chip").all_inner_texts()])
    first, last, near = gaps
    assert abs(float(first[0]) - float(first[1])) == pytest.approx(0.5, abs=0.011), "the furthest apart come first"
    assert last == ["no score", "no score"] and near[0] == near[1], "equal scores, then what has none"
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.wait_for_timeout(100)
    assert page.locator("#b-list").get_attribute("aria-activedescendant") == "b-row-3" and "#sample=1." in page.url
    page.locator("#b-show").select_option("missing")
    page.wait_for_timeout(100)
    assert "1 of 600 items" in count.inner_text() and "no score" in item.inner_text()
    page.locator("#b-show").select_option("all")
    page.locator("#b-find").fill("one says 417")
    page.get_by_text("1 of 600 items").wait_for()
    assert "Question 417" in item.inner_text()
    page.locator("main th .sort").first.click()
    assert page.locator("th[aria-sort=descending]").count() == 1
    page.emulate_media(media="print")
    assert not page.locator("#browser").is_visible() and page.locator(".drawn .sample").first.is_visible()
    assert page.elsewhere == [], "nothing else is loaded and nothing fails"


def eval_run(folder, name, model, scores, better="higher", **result):
    """A finished evaluation of one model, an item a score."""
    rows = [{"item": f"Question {i}?", "prompt": f"Q: Question {i}?", "answer": f"{model} says {i} is fine.", "score": s,
             "why": "" if s is not None else "the server failed", "topic": f"topic {i % 3}", "truthful": s == 1}
            for i, s in enumerate(scores)]
    known = [s for s in scores if s is not None]
    return write(folder, config={"command": f"eval {name}", "model": model}, lineage=lineage(7), result={
        "name": name, "better": better, "value": e(sum(known) / len(known), 0.1, len(known)),
        "missing": len(scores) - len(known), "samples": rows, **result})


def unpacked(html, name):
    plain, held = re.search(rf'<script type="text/plain" (data-plain )?id="{name}">([^<]*)</script>', html).groups()
    return json.loads(held if plain else zlib.decompress(base64.b64decode(held)))


def test_two_models_are_paired_by_item_and_said_in_words(tmp_path):
    """Of 40 items new is right on 38 and old on 20; item 39 lacks a score; harm is 0.5 less and lower is better."""
    old = eval_run(tmp_path / "a", "truthful", "old", [1.0] * 20 + [0.0] * 20)
    new = eval_run(tmp_path / "b", "truthful", "runs/new", [1.0] * 38 + [0.0] + [None])
    harm = [eval_run(tmp_path / m, "toxicity", m, [v + 0.01 * (i % 2) for i in range(30)], "lower")
            for m, v in (("old", 0.6), ("runs/new", 0.1))]
    found = claims(load_runs([old, new, *harm]))
    assert [(c.area, c.what, c.who, c.against, c.verdict, c.missing) for c in found] == [
        ("honest", "truthful", "runs/new", "old", "better", 1), ("harmless", "toxicity", "runs/new", "old", "better", 0)]
    assert found[0].difference.value == pytest.approx(18 / 39) and found[1].difference.value == pytest.approx(0.5)
    html, _parsed = page([old, new, *harm], tmp_path)
    heading = re.sub("<[^>]+>", "", re.search(r"<h1>(.*?)</h1>", html)[1])
    assert heading.startswith("runs/new against old: better on truthful +0.46 [0.")
    assert "Holm, 2 tasks" in html and "1 items have no score" in html and "tell two models apart" in html
    (same,) = claims(load_runs([old, eval_run(tmp_path / "c", "truthful", "same", [1.0] * 20 + [0.0] * 20)]))
    assert same.verdict == "inconclusive" and same.difference.low < 0 < same.difference.high, "40 equal scores prove no equality"


def test_a_model_beside_itself_is_no_comparison_of_two(tmp_path):
    """Triggers and oversight pair a model's answers with its own, and a suite of one model taxes it against itself."""
    triggers = eval_run(tmp_path / "t", "triggers", "m", [0.8] * 20, "lower", paired=True)
    tax = eval_run(tmp_path / "x", "tax", "m", [1.0], against="m", paired=True,
                   tasks={"grammar": {"difference": e(0.2, 0.1), "verdict": "m is better than m"}})
    assert claims(load_runs([triggers, tax])) == []
    html, _ = page([triggers, tax], tmp_path)
    assert "m: <strong>2 evaluations</strong>, and no other model beside it." in html
    assert "is better than" not in html.split("Samples")[0]
    two = eval_run(tmp_path / "s", "sycophancy", "new", [0.8] * 20, "lower", against="old", paired=True)
    assert [(c.who, c.against, c.verdict) for c in claims(load_runs([triggers, two]))] == [("new", "old", "worse")]


def test_many_evaluations_stand_in_one_table_by_model_and_their_own_are_folded(tmp_path):
    """Base, SFT and RLOO: what RLOO was not asked is a dash, and a tax says of which model it speaks."""
    base = [eval_run(tmp_path / f"base-{n}", n, "base", [0.0] * 30 + [1.0] * 10, parameters=134_515_008)
            for n in ("truthful", "code")]
    later = [eval_run(tmp_path / f"{m}-truthful", "truthful", m, [1.0] * 40) for m in ("sft", "rloo")]
    tasks = {"grammar, zero-shot": {"difference": e(-0.2, 0.1), "verdict": "the model is worse than the one before"}}
    taxes = [eval_run(tmp_path / f"{m}-tax", "tax", m, [1.0], against="base", paired=True, tasks=tasks) for m in ("sft", "rloo")]
    html, _ = page([*base, *later, *taxes], tmp_path)
    table = html.split("Every evaluation by model")[1].split("</table>")[0]
    cells = [[re.sub("<[^>]+>", " ", cell).split() for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)]
             for row in re.findall(r"<tr role=\"row\">(.*?)</tr>", table)]
    assert [c[:1] for c in cells[0]] == [["Evaluation"], ["base"], ["sft"], ["rloo"]]
    assert [[c[0] for c in row] for row in cells[1:]] == [["truthful", "0.25", "1.00", "1.00"], ["code", "0.25", "—", "—"],
                                                        ["tax", "—", "1.00", "1.00"]]
    assert "could show a difference of" in " ".join(cells[1][0]) and "n = 40" in " ".join(cells[1][1])
    assert html.count("<details><summary>") == 6 and "134,515,008" not in html
    said = re.sub("<[^>]+>", "", html.split('class="claims"')[1].split("</ul>")[0])
    assert "sft is worse than base" in said and "rloo is worse than base" in said and "the one before" not in said
    assert "grammar (zero-shot)" in re.search(r"<h1>(.*?)</h1>", html)[1]


def test_names_beside_points_hide_no_point_where_there_is_room():
    """Two points side by side: the right one's name would lie on the left one, so it stands below it."""
    plot = Plot("t", "d", (0.0, 1.0), (0.0, 1.0))
    plot.names([(0.55, 0.5, "a long name here"), (0.60, 0.46, "another long name")])
    first, second = (tuple(map(float, at)) for at in re.findall(r'class="point" x="([\d.]+)" y="([\d.]+)"', plot.svg()))
    assert first[1] < plot._y(0.5) and second[1] > plot._y(0.46)


def test_every_sample_is_in_the_page_once_and_whole(tmp_path):
    runs = [eval_run(tmp_path / m, "truthful", m, [None] + [i / 600 for i in range(599)]) for m in ("one", "two")]
    html, _ = page(runs, tmp_path)
    held = unpacked(html, "sets")
    assert held["sets"] == [{"title": "truthful", "columns": ["one", "two"], "better": "higher", "n": 600,
                             "groups": ["topic 0", "topic 1", "topic 2"], "marks": []}]
    index, order = unpacked(html, "set-0"), unpacked(html, "set-0-order")
    at = [order.index(i) for i in range(600)]
    assert order != sorted(order), "at random first"
    assert [index["scores"][1][i] for i in at[:3]] == [None, 0.0, 0.0016667]
    assert [index["groups"][i] for i in at[:4]] == [0, 1, 2, 0]
    blocks = [unpacked(html, f"set-0-{b}") for b in range(3)]
    rows = [row for block in blocks for row in block]
    assert len(rows) == 600 and [row["n"] for row in rows] == order
    assert rows[at[599]]["a"] == ["one says 599 is fine.", "two says 599 is fine."] and rows[at[599]]["o"] == "Q: Question 599?"
    assert rows[at[0]]["w"] == ["the server failed"] * 2
    assert rows[at[5]]["d"] == {"topic": "topic 2", "truthful (one)": False, "truthful (two)": False}
    places = {name: html.index(f'id="{name}"') for name in ("set-0", "set-0-0", "set-0-1", "set-0-order")}
    script_at = html.index(script())
    assert {name: place < script_at for name, place in places.items()} == {"set-0": True, "set-0-0": True, "set-0-1": False,
                                                                          "set-0-order": False}
    assert html.count('<article class="sample">') == 10


def test_verdicts_that_turn_with_the_order_and_people_who_disagree_can_be_shown_alone(tmp_path):
    """Pairs 0 and 3 turned; on 2 people prefer the answer that the judge does not."""
    run = win_rate_run(tmp_path / "w")
    turned = [True, False, False, True]
    rows = [{"prompt": f"p{i}", "model_text": "a", "against_text": "b", "model_score": (s := 0.5 if t else 1.0),
             "against_score": 1 - s, "turned": t, "people": 0.0 if i == 2 else 1.0} for i, t in enumerate(turned)]
    write(run, result=json.loads((run / "result.json").read_text()) | {"samples": rows})
    html, _ = page([run], tmp_path)
    marks = unpacked(html, "sets")["sets"][0]["marks"]
    index, order = unpacked(html, "set-0"), unpacked(html, "set-0-order")
    assert {name: sorted(order[i] for i in places) for name, places in zip(marks, index["marks"])} == {
        "people say otherwise than the judge": [2], "the verdict turned with the order": [0, 3]}


def test_every_model_against_every_other_with_its_mirror_places_and_cycles(tmp_path):
    """a beats b on 30 of 40 prompts, b beats c on 24, a beats c on 32; Bradley–Terry says a, b, c. If c beats a: a cycle."""
    def against(name, a, b, won):
        rows = [{"prompt": f"p{i}", "model_text": "x", "against_text": "y", "model_score": float(i < won),
                 "against_score": float(i >= won)} for i in range(40)]
        return write(tmp_path / name, config={"command": "eval win_rate"}, result={
            "name": "win_rate", "model": a, "against": b, "pairwise": "judge", "value": e(won / 40, 0.1, 40), "samples": rows})
    runs = [against("ab", "a", "b", 30), against("bc", "b", "c", 24)]
    three = load_runs([*runs, against("ac", "a", "c", 32)])
    cells = cells_of(three)
    assert cells["a", "b"].value == 0.75 and cells["b", "a"].value == 0.25
    assert (cells["b", "a"].low, cells["b", "a"].high) == pytest.approx((0.15, 0.35))
    ranking = ranked(three)
    assert [ranking.names[i] for i in ranking.scores.argsort()[::-1]] == ["a", "b", "c"] and not ranking.cycles()
    html = wins(three)
    assert "by judge, in both orders" in html and "25.0%" in html and "Bradley–Terry" in html and "Cycles" not in html
    assert "Cycles, which no score can show: a over b over c." in wins(load_runs([*runs, against("ca", "c", "a", 32)]))
    assert wins(load_runs(runs[:1])) == "", "two models need no matrix"


def test_over_refusal_and_attack_success_are_one_plot(tmp_path):
    """10 % of safe prompts refused and 20 % of unsafe ones answered: the dot stands at .9 and .8."""
    held = {"over_refusal": e(0.1, 0.05, 200), "attack_success": e(0.2, 0.1, 200)}
    run = write(tmp_path / "r", config={"command": "eval refusals", "model": "runs/new", "against": "base"}, result={
        "name": "refusals", "better": "higher", "value": e(0.85, 0.04, 400), "model": held,
        "against": {"over_refusal": e(0.0, 0.02, 200), "attack_success": e(0.9, 0.05, 200)},
        "classifier": {"agreement_with_people": e(0.93, 0.02, 450), "labelled": 450}})
    html = reactions(load_runs([run]))
    assert "runs/new: answered 90.0% [85.0, 95.0%], refused 80.0% [70.0, 90.0%]" in html and "base: answered 100.0%" in html
    assert "always refuses" in html and "agrees with people on 93.0%" in html
    assert reactions(load_runs([sft_run(tmp_path / "sft")])) == ""


def test_before_and_after_ranked_answers_and_training_are_sets_of_their_own(tmp_path):
    tax = eval_run(tmp_path / "tax", "tax", "new", [1.0], against="old", paired=True)
    write(tax, result=json.loads((tax / "result.json").read_text()) | {
        "samples": [{"task": "arithmetic", "prompt": "1+1", "item": "a 0", "score": 1.0, "against": 0.0, "why": ""}],
        "tasks": {"arithmetic": {"metric": "accuracy", "difference": e(0.2, 0.1), "verdict": "A is better than B"}}})
    reward = eval_run(tmp_path / "rm", "reward", "", [0.5])
    rows = [{"prompt": "Hi", "answer": a, "score": s, "rank": r, "category": "chat"} for a, s, r in
            (("bad", 2.0, 2), ("good", 1.0, 1))]
    write(reward, result=json.loads((reward / "result.json").read_text()) | {"samples": rows})
    sets = {s.title: s for s in sample_sets(load_runs([tax, reward]))}
    assert [(i.group, i.scores) for i in sets["tax"].items] == [("arithmetic", [1.0, 0.0])]
    ranked = sets["rm: what people ranked"]
    assert ranked.columns == ["preferred", "next"]
    assert ranked.items[0].answers == ["good", "bad"] and ranked.items[0].scores == [1, 2]
    assert [(c.what, c.verdict) for c in claims(load_runs([tax]))] == [("arithmetic", "better")]
    (alone,) = sample_sets(load_runs([sft_run(tmp_path / "sft")]))
    assert alone.columns == ["SFT"] and alone.items[0].answers == ["Blue, like the evening."]


def test_what_it_cost_is_drawn_over_a_sweep_and_the_beaten_are_grey(tmp_path):
    runs = []
    for name, good, tax, beta in (("a", 0.6, -0.10, 0.02), ("b", 0.5, -0.02, 0.2), ("c", 0.4, -0.20, 1.0)):
        config = {"command": "train ppo", "beta": beta, "ptx_coef": 27.8, "ptx_data": "x"}
        model = write(tmp_path / name, config=config, result={})
        for kind, v in (("truthful", good), ("tax", tax)):
            runs.append(eval_run(tmp_path / f"{kind}-{name}", kind, str(model), [v] * 4, paired=kind == "tax", against="base"))
            write(runs[-1], result=json.loads((runs[-1] / "result.json").read_text()) | {"value": e(v, 0.05), "samples": []})
    html, _ = page(runs, tmp_path)
    drawn = html.split('id="tradeoff"')[1].split("</section>")[0]
    assert "beta 0.02, ptx_coef 27.8" in drawn and "beta 1" in drawn
    assert drawn.count('class="dot accent"') == 2 and drawn.count('class="dot grey"') == 1
    assert 'id="tradeoff"' not in page(runs[:2], tmp_path)[0], "one model is no trade-off"


def test_whose_opinions_are_a_heat_map_with_intervals(tmp_path):
    groups = {"young": e(0.9, 0.02, 80), "old": e(0.6, 0.05, 80)}
    run = eval_run(tmp_path / "o", "opinions", "m", [1.0])
    write(run, result=json.loads((run / "result.json").read_text()) | {"model": {"groups": groups}})
    html, _ = page([run], tmp_path)
    heat = html.split('class="plain heat"')[1].split("</table>")[0]
    assert "--share: 1.00" in heat and "--share: 0.00" in heat and "[0.880, 0.920], n = 80" in heat and ">m</th>" in heat


def test_over_optimisation_finds_the_planted_peak(tmp_path):
    """gold = d (1 - 0.4 ln d) peaks at ln d = 1.5, d = 4.48."""
    metrics = [{"step": i, "kl": d * d, "reward": d, "gold": d * (1 - 0.4 * math.log(max(d, 1e-9)))}
               for i, d in enumerate(np.linspace(0, 8, 60))]
    run = write(tmp_path / "r", config={"command": "train rloo"}, metrics=metrics, result={})
    html, _ = page([run], tmp_path)
    assert "the gold score peaks at √KL 4.48 [4.48, 4.48], reached" in html
    line = [m | {"gold": m["reward"]} for m in metrics]
    straight = write(tmp_path / "s", config={"command": "train rloo"}, result={}, metrics=line)
    assert "no turn of the gold score is shown" in page([straight], tmp_path)[0]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_monitors_and_people_fit_a_phone(browser, tmp_path, scheme):
    runs = [quickstart_run(tmp_path / "quickstart"), rloo_run(tmp_path / "rloo"), *people_runs(tmp_path / "people")]
    out = build_report(runs, tmp_path / "report.html")
    page = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme).new_page()
    page.goto(out.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.slow
def test_every_figure_as_files(tmp_path, monkeypatch):
    pytest.importorskip("cairosvg")
    from PIL import Image

    from harken.report.figures import write_figures
    runs = load_runs([rloo_run(tmp_path / "rloo"), reward_run(tmp_path / "rm")])
    files = write_figures(runs, tmp_path / "figures")
    names = sorted({f.stem for f in files})
    assert len(files) == 4 * len(names) == 4 * render(runs).count('class="plot"') and "gold-score-of-rloo" in names
    for name in names:
        paths = {s: tmp_path / "figures" / f"{name}.{s}" for s in ("svg", "png", "pdf", "csv")}
        assert paths["pdf"].read_bytes().startswith(b"%PDF") and "var(" not in paths["svg"].read_text()
        pixels = Image.open(paths["png"]).convert("RGB").getcolors(1 << 20)
        assert len(pixels) > 20, f"{name} shows nothing"
    rows = [r.split(",") for r in (tmp_path / "figures" / "gold-score-of-rloo.csv").read_text().splitlines()]
    logged = [(m["step"], m["gold"]) for m in runs[0].metrics if "gold" in m]
    assert rows[0] == ["series", "x", "y", "low", "high"] and logged
    assert [(float(x), float(y)) for series, x, y, *_ in rows if series == "line accent faint"] == logged
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    with pytest.raises(UserError, match="cairosvg is not installed"):
        write_figures(runs, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_every_sample_lies_beside_the_page_as_a_table(tmp_path, suffix, capsys):
    runs = [str(eval_run(tmp_path / m, "truthful", m, [None, 1.0, 0.0])) for m in ("one", "two")]
    out = tmp_path / "tables" / f"samples.{suffix}"
    assert main(["report", *runs, "--out", str(tmp_path / "r.html"), "--samples", str(out)]) == 0
    if suffix == "parquet":
        held = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
    elif suffix == "csv":
        held = list(csv.DictReader(out.open()))
    else:
        held = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(held) == 6 and held[1]["model"] == "two" and held[0]["why"] == "the server failed"
    assert [r["score"] for r in held if r["model"] == "one"] == ([None, 1.0, 0.0] if suffix != "csv" else ["", "1.0", "0.0"])
    assert main(["report", *runs, "--out", str(tmp_path / "r.html"), "--samples", str(tmp_path / "x.txt")]) == 2
    assert "neither .parquet" in capsys.readouterr().err
