"""Two processes are watched as one is: the same audits, the same stop, the same weights kept; the first alone writes."""

import json

import pytest
import torch

from harken.core.files import read_json, read_jsonl
from test_distributed import (  # noqa: F401
    ROLLOUT,
    WORKER,
    assert_close,
    files,
    finish,
    killed,
    one_process,
    settings,
    start,
    weights,
)

pytestmark = pytest.mark.slow

BRIEF = [{"pattern": "(?s).", "weight": -0.25}]
"""The reward that is climbed: the shorter the better."""
EIGHT = [*BRIEF, {"name": "up to 8", "pattern": "(?s).", "weight": 0.5, "most": 8}]
"""One that is held out: 2 - |n - 8| / 4 for n characters. The toy begins with 13."""
HACKED = {"lora_rank": 0, "learning_rate": 4e-3, "max_tokens": 16, "beta": 0.0, "missing_eos_penalty": 0.0, "steps": 30,
          "prompts_per_step": 8, "completions_per_prompt": 4, "monitor_every": 1, "monitor_prompts": 16, "stop_when": "hacking",
          "checkpoint_seconds": 0.0, "profile": True}
WAYS = {"hacked": {}, "bounded": {"stop_when": "kl>2"}, "sharded": {"stop_when": "", "shard": True, "steps": 3}}


@pytest.fixture(scope="module")
def pair(files, tmp_path_factory):  # noqa: F811
    """Runs of one process ("hacked-1") and of two ("hacked-2"), one of two that was killed and went on ("killed"), and what
    the two said on stderr."""
    folder = tmp_path_factory.mktemp("watched")
    for name, rules in (("brief", BRIEF), ("eight", EIGHT)):
        (folder / f"{name}.json").write_text(json.dumps({"rules": rules}))
    held_out = one_process("reward_model", files, folder / "held_out", lora_rank=0)
    rewards = {"reward": f"rules:{folder / 'brief.json'}", "held_out_reward": f"rules:{folder / 'eight.json'}"}
    ways = {name: {**HACKED, **rewards, **more} for name, more in WAYS.items()}
    ways["sharded"]["held_out_reward"] = str(held_out)

    def job(way, out):
        return {"method": "rloo", "settings": settings("rloo", files, folder / out, **ways[way])}

    killed(folder / "first.json", job("hacked", "killed"), 9)
    (folder / "jobs.json").write_text(json.dumps([*(job(way, f"{way}-2") for way in ways), job("hacked", "killed")]))
    found = finish(start(WORKER, str(folder / "jobs.json")))
    assert [status for status, *_ in found] == [0, 0], found
    for way, given in ways.items():
        one_process("rloo", files, folder / f"{way}-1", **{**given, "shard": False})
    return folder, [err for *_, err in found]


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_are_watched_as_one(pair, way):
    """Metrics, samples and weights are compared by `assert_close`; audits row by row, and what came of them."""
    one, two = (pair[0] / f"{way}-{n}" for n in (1, 2))
    assert_close(one, two)
    a, b = (read_jsonl(run / "audits.jsonl") for run in (one, two))
    assert [row["step"] for row in b] == list(range(len(b))) and len(a) == len(b)
    for x, y in zip(a, b):
        assert x["texts"] == y["texts"]
        assert all(y[name] == pytest.approx(x[name], abs=1e-5) for name in ("proxy", "held_out", "kl", "length"))
    a, b = (read_json(run / "result.json") for run in (one, two))
    for name in ("steps", "held_out_best_step"):
        assert a[name] == b[name]
    stops = [{k: v for k, v in r.get("stopped", {}).items() if k != "why"} for r in (a, b)]
    assert stops[0] == stops[1] and bool(stops[1]) == (way != "sharded")
    if way == "hacked":
        assert 0 < stops[1]["kept_step"] == b["held_out_best_step"] < stops[1]["step"] < HACKED["steps"]


def test_p22_killed_beside_each_other_and_resumed_they_stop_at_the_same_step_with_the_same_bits(pair):
    whole, again = pair[0] / "hacked-2", pair[0] / "killed"
    for log in ("metrics.jsonl", "samples.jsonl", "audits.jsonl"):
        rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in read_jsonl(run / log)] for run in (whole, again)]
        assert rows[0] == rows[1] and rows[0]
    assert read_json(whole / "result.json") == read_json(again / "result.json")
    a, b = weights(whole), weights(again)
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("way", WAYS)
def test_the_first_process_profiles_its_own_share(pair, way):
    """Of two processes that do what one did, the first does about half."""
    one, two = (read_json(pair[0] / f"{way}-{n}" / "profile.json") for n in (1, 2))
    assert one["sections"].keys() == two["sections"].keys() > {"audit", "decode", "backward", "scoring"}
    for found in (one, two):
        parts = found["sections"].values()
        assert sum(p["share"] for p in parts) == pytest.approx(1)
        assert found["seconds"] == pytest.approx(sum(p["seconds"] for p in parts), abs=1e-3)
        assert found["flops"] == sum(p["flops"] for p in parts) > 0
    assert 0.35 < two["flops"] / one["flops"] < 0.65


def test_only_the_first_speaks_and_writes(pair):
    """(That the second changes no file of a run, distributed_worker.py sees to: there it would fail.)"""
    folder, (first, second) = pair
    assert first.count("sampling: decode") == len(WAYS) + 1 and first.count("Stopped after step") == 3
    assert not second
    for way in WAYS:
        names = [{p.name for p in (folder / f"{way}-{n}").rglob("*")} for n in (1, 2)]
        assert names[0] == names[1] and not any(name.endswith(".tmp") for name in names[1])
