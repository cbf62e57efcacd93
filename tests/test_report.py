"""The report of one model over fabricated run directories (report_runs.py)."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
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
from harken.report.load import estimate, load_runs
from report_runs import (
    HOSTILE,
    ODD,
    e,
    eval_run,
    only_ours,
    page,
    people_runs,
    quickstart_run,
    reward_run,
    rloo_run,
    sft_run,
    win_rate_run,
    write,
)


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


def test_names_beside_points_hide_no_point_where_there_is_room():
    """Two points side by side: the right one's name would lie on the left one, so it stands below it."""
    plot = Plot("t", "d", (0.0, 1.0), (0.0, 1.0))
    plot.names([(0.55, 0.5, "a long name here"), (0.60, 0.46, "another long name")])
    first, second = (tuple(map(float, at)) for at in re.findall(r'class="point" x="([\d.]+)" y="([\d.]+)"', plot.svg()))
    assert first[1] < plot._y(0.5) and second[1] > plot._y(0.46)


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
