"""Fabricated runs for the tests of the report, and the page parsed: every number and text here is invented."""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from harken.report.build import build_report

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
