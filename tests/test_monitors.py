"""Monitors speak when they should and not by chance; stop rules keep the right weights, killed or not."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from harken.core.errors import UserError
from harken.stats import drift as monitors
from harken.stats.drift import MONITORS, Audit, Drift, Rule, change, hacking, parse_rules, slope, smoothed
from stopping import stopped_after

ROOT = Path(__file__).parents[1]


def seen(**metrics):
    """The alarms of rows given as a series a metric."""
    watch = Drift()
    for i, values in enumerate(zip(*metrics.values())):
        watch.see({"step": i + 1, **dict(zip(metrics, values))})
    return watch.alarms


def test_length_that_doubles_is_said_once_in_plain_words():
    """The first ten have 10 tokens; the last ten reach a mean of 20 at step 22: 10, 10, and eight of 22.5."""
    (alarm,) = seen(length=[10.0] * 14 + [22.5] * 20)
    assert (alarm.step, alarm.first, alarm.last) == (22, 10.0, 20.0)
    assert str(alarm) == "Step 22: completions grew 2.0x, from 10 to 20 tokens."


@pytest.mark.parametrize(("metric", "before", "after", "quiet"), [
    ("length", 40.0, 18.0, 24.0), ("repetition", 0.05, 0.2, 0.1), ("entropy", 2.0, 0.5, 0.8), ("eos_rate", 0.9, 0.6, 0.7),
    ("clip_fraction", 0.1, 0.4, 0.25), ("ratio_outside", 0.0, 0.1, 0.04), ("explained_variance", 0.1, -0.2, 0.0),
    ("flat_share", 0.0, 0.6, 0.4), ("reward_length_r", 0.0, -0.7, 0.5), ("disagreement", 1.0, 2.2, 1.8)])
def test_every_monitor_speaks_past_its_limit_and_not_before(metric, before, after, quiet):
    (alarm,) = seen(**{metric: [before] * 20 + [after] * 10})
    assert alarm.monitor.metric == metric
    assert seen(**{metric: [before] * 20 + [quiet] * 10}) == []


def test_a_run_as_short_as_two_windows_minus_one_says_nothing():
    assert seen(length=[1.0] * 10 + [9.0] * 9) == []
    assert len(seen(length=[1.0] * 10 + [9.0] * 10)) == 1


def test_steady_noise_raises_few_alarms():
    """Steady runs of 100 steps, noisier than most (a third of the mean or more from step to step)."""
    rng = np.random.default_rng(0)
    loud = sum(bool(seen(length=20 + 7 * rng.standard_normal(100), repetition=0.1 + 0.05 * rng.standard_normal(100),
                         eos_rate=0.8 + 0.1 * rng.standard_normal(100))) for _ in range(40))
    assert loud <= 1


def audits(proxy, held_out, noise=0.0, prompts=20, seed=0, every=10):
    rng = np.random.default_rng(seed)
    base = rng.standard_normal(prompts)
    def scores(mean):
        return tuple((mean + base + noise * rng.standard_normal(prompts)).tolist())
    return [Audit(every * i, scores(p), scores(h), 0.0, 1.0) for i, (p, h) in enumerate(zip(proxy, held_out))]


def test_slope_by_hand():
    """Two prompts over steps 0, 10, 20: slopes 0.1 and 0.3 a step, 10 and 30 per 100; t(1) = 12.706, SE = 10."""
    found = slope([Audit(0, (0.0, 0.0), (0.0, 0.0), 0, 1), Audit(10, (1.0, 3.0), (0.0, 0.0), 0, 1),
                   Audit(20, (2.0, 6.0), (0.0, 0.0), 0, 1)], "proxy")
    assert found.value == pytest.approx(20) and found.high == pytest.approx(20 + 127.062, abs=1e-2)


def test_e8_a_prompt_without_a_score_is_left_out_of_slope_and_change():
    a, b = Audit(0, (1.0, 2.0, 3.0), (0.0, None, 1.0), 0, 1), Audit(10, (1.0, 2.0, 3.0), (1.0, 5.0, 2.5), 0, 1)
    assert change(a, b, "held_out").value == pytest.approx(1.25) and change(a, b, "held_out").n == 2
    assert slope([a, b], "held_out").n == 2 and b.mean("held_out") == pytest.approx(8.5 / 3)
    assert math.isnan(slope([Audit(0, (None,), (None,), 0, 1)] * 3, "proxy").value)


def test_hacking_needs_two_audits_in_a_row_a_falling_held_out_and_a_rising_proxy():
    up, hump = range(10), [0, 2, 4, 6, 8, 7, 6, 5, 4, 3]
    found = audits(up, hump, 0.3)
    first = next(n for n in range(len(found) + 1) if hacking(found[:n]))
    assert first == 8  # windows of four: 4 6 8 7 rises; 6 8 7 6 falls by 0.1 an audit (less than 0.06 is noise), 8 7 6 5 by 1
    assert not any(hacking(audits(up, up, 0.3)[:n]) for n in range(11))
    falling = audits([-x for x in up], hump, 0.3)
    assert not any(hacking(falling[:n]) for n in range(11)), "both fall: something broke, but nothing is exploited"


def test_e22_how_often_hacking_is_cried_of_a_held_out_reward_that_stays_or_rises():
    """Runs of 30 audits of 32 prompts. Where the held-out reward rises by a tenth of its noise an audit, hardly ever; where it
    stays flat, in 4 % of runs (of 300), which costs little: any of those weights are as good."""
    def rate(step):
        runs = (audits(np.arange(30) * 0.5, np.arange(30) * step, 1.0, 32, seed) for seed in range(40))
        return np.mean([any(hacking(run[:n]) for n in range(monitors.SLOPE, 31)) for run in runs])
    assert rate(0.1) == 0 and rate(0.0) <= 0.15


def test_smoothed_is_the_mean_with_the_neighbours():
    found = audits([0] * 4, [0, 3, 9, 3], prompts=1)
    base = found[0].mean("held_out")
    assert [smoothed(found, i) - base for i in range(4)] == pytest.approx([1.5, 4, 5, 6])


def test_rules_are_read_or_refused():
    assert parse_rules("kl>10, hacking,length < 2e1") == (True, (Rule("kl", ">", 10.0), Rule("length", "<", 20.0)))
    assert parse_rules("") == (False, ())
    for wrong in ("kl", "kl>", "kl>ten", "kl>=3", "fun>3", "hack", "kl>1e", "kl>nan"):
        with pytest.raises(UserError, match="is no rule"):
            parse_rules(wrong)


def test_the_page_names_every_limit():
    page = (ROOT / "docs" / "monitors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (−?[\d.]+) \|", page, re.M)
    assert [(m, k, float(x.replace("−", "-"))) for m, k, x in rows] == [(m.metric, m.kind, m.limit) for m in MONITORS]
    constants = (f"first {monitors.WINDOW} steps", f"{monitors.NOISE:g} standard errors", f"last {monitors.SLOPE} audits")
    assert all(words in page for words in constants)


# --- in a run -------------------------------------------------------------------------------------------

torch = pytest.importorskip("torch")


class Lengths:
    """A known reward of a completion's length."""

    def __init__(self, f):
        self.f = f

    def score(self, prompts, completions):
        return [[self.f(len(c)) for c in group] for group in completions]


REWARDS = {"gold": Lengths(lambda n: -n / 4), "toxicity": Lengths(lambda n: -abs(n - 8) / 4)}


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains the toy to be brief ("gold"), which the held-out reward ("toxicity") likes down to 8 characters."""
    from harken.launch.find import find_method
    from harken.launch.train import train as launch_train
    monkeypatch.setattr("harken.launch.train.open_reward", lambda spec, **_: REWARDS[spec.word])
    data = tmp_path / "p.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"Say {i}."}) + "\n" for i in range(80)))

    def run(out, method="rloo", **settings):
        module = find_method(method)
        given = {"reward": "gold", "lora_rank": 0, "learning_rate": 4e-3, "max_tokens": 14, "steps": 30, "beta": 0.0,
                 "prompts_per_step": 6, "completions_per_prompt": 4, "missing_eos_penalty": 0.0, **settings}
        if method == "expert_iteration":
            given.pop("beta")
        return launch_train(module, module.Config(model="toy", data=str(data), out=str(tmp_path / out), **given), quiet=True)
    return run


def weights(run):
    from safetensors.torch import load_file
    return load_file(run.path / "model" / "model.safetensors")


def same(a, b):
    a, b = weights(a), weights(b)
    return all(torch.equal(a[n], b[n]) for n in a)


def rows(run, name="metrics"):
    from harken.core.files import read_jsonl
    return [{k: v for k, v in r.items() if k != "seconds"} for r in read_jsonl(run.path / f"{name}.jsonl")]


def test_a_kl_budget_keeps_the_last_weights_within_it(train):
    """They are those of a run that was told to take just so many steps."""
    done = train("r", stop_when="kl>1")
    stopped, kl = done.result["stopped"], [r["kl"] for r in rows(done)]
    assert stopped["rule"] == "kl>1" and max(kl[:-1]) <= 1 < kl[-1] and len(kl) == stopped["step"] == done.result["steps"]
    assert stopped["kept_step"] == stopped["step"] - 2  # row k measures what k - 1 steps made; the row before it was within
    assert same(done, train("short", steps=stopped["kept_step"]))
    assert any("Stopped after step" in note for note in done.result["notes"])


HACKED = {"stop_when": "hacking", "held_out_reward": "toxicity", "monitor_every": 2, "monitor_prompts": 16, "steps": 40}


@pytest.mark.parametrize("method", ["rloo", *(pytest.param(name, marks=pytest.mark.slow)
                                              for name in ("reinforce", "grpo", "ppo", "expert_iteration"))])
def test_every_method_stops_when_the_reward_is_hacked_and_keeps_the_best(train, method):
    group = {"minibatches": 2} if method == "ppo" else {}
    done = train("r", method, **HACKED, **group)
    stopped = done.result["stopped"]
    held = {a["step"]: np.mean(a["held_out"]) for a in rows(done, "audits")}
    assert stopped["rule"] == "hacking" and stopped["step"] < 40 and list(held)[-1] == stopped["step"]
    assert held[stopped["kept_step"]] > max(held.values()) - 0.3 and held[stopped["step"]] < max(held.values()) - 0.2
    assert done.result["held_out_best_step"] == stopped["kept_step"]
    assert done.result["proxy_change"]["low"] > 0


@pytest.mark.slow
def test_p22_a_run_with_stop_rules_ends_the_same_wherever_it_is_cut(train):
    settings = {**HACKED, "stop_when": "kl>50,hacking", "checkpoint_seconds": 0.0}
    whole = train("whole", **settings)
    last = whole.result["stopped"]["step"]
    for k in (last // 2, last):
        with stopped_after(k):
            train("cut", **settings)
    again = train("cut", **settings)
    assert same(whole, again) and rows(whole) == rows(again) and rows(whole, "audits") == rows(again, "audits")
    assert again.result == whole.result


def test_without_a_rule_the_run_only_says_so_and_audits_are_never_learnt_from(train):
    done = train("r", **{**HACKED, "stop_when": "", "steps": 30})
    assert "stopped" not in done.result and done.result["steps"] == 30
    assert sum("may be exploited" in note for note in done.result["notes"]) == 1
    assert any("shrank" in note for note in done.result["notes"])
    assert any("Kept 16 of 80 prompts" in note for note in done.result["notes"]) and done.result["prompts"] == 64


def test_bad_watching_is_refused_before_anything_runs(train, tmp_path):
    for settings, words in (({"stop_when": "kl=3"}, "is no rule"), ({"stop_when": "hacking"}, "there is none"),
                            ({"held_out_reward": "gold"}, "always agree"), ({"held_out_reward": "runs/none"}, "no reward model"),
                            ({"monitor_every": 0}, "--monitor-every 0")):
        with pytest.raises(UserError, match=words):
            train("r", **settings)
    assert not (tmp_path / "r").exists()
    with pytest.raises(UserError, match="measures no disagreement"):
        train("r", stop_when="disagreement>1")
    with pytest.raises(UserError, match="too few prompts"):
        train("few", held_out_reward="toxicity", max_length=8)


def test_an_ensemble_says_how_far_it_disagrees(train, monkeypatch):
    from harken.rewards.ensemble import EnsembleReward
    monkeypatch.setitem(REWARDS, "gold", EnsembleReward({"a": Lengths(lambda n: float(n)), "b": Lengths(lambda n: n + 2.0)}))
    assert rows(train("r", steps=1))[0]["disagreement"] == pytest.approx(2 / math.sqrt(2))


@pytest.mark.slow
def test_an_overoptimised_run_is_stopped_and_goes_back_to_its_peak(tmp_path, monkeypatch):
    """benchmarks/overoptimization_run.py, seed 0: learnt proxy, learnt held-out reward, gold that neither is."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import overoptimization_run as bench
    row = bench.measure(bench.World(tmp_path, bench.teach(tmp_path), 0), 90, stop=True, control=False)
    assert row["proxy"][-1] > row["proxy"][row["steps"].index(row["kept"])] and row["last_share"] < 0.8
    assert row["stopped"] and row["kept_share"] >= 0.95 and row["the_run_itself_did_so"]
