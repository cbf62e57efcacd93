"""Two processes learn what one does: the same losses, samples and weights, to rounding; and survive being killed."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harken import launch
from harken.core.run import read_jsonl

WORKER = str(Path(__file__).with_name("distributed_worker.py"))
WORDS = ["red", "blue", "green", "old", "new", "warm", "cold", "tall"]
BATCH = {"batch_size": 12, "epochs": 0.5, "learning_rate": 3e-3}
ROLLOUT = {"reward": "gold", "max_tokens": 8, "steps": 3, "prompts_per_step": 7, "completions_per_prompt": 3,
           "learning_rate": 3e-3, "samples_per_step": 100, "max_length": 64}
JOBS = {"sft": BATCH, "reward_model": {**BATCH, "labelers": "reliability"}, "dpo": BATCH, "rloo": ROLLOUT,
        "ppo": {**ROLLOUT, "minibatches": 2, "ema": 0.9}}
FILES = {"sft": "demos", "reward_model": "comparisons", "dpo": "comparisons"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), random.Random(0)
    prompts = [f"Say {a} {b}{'!' * rng.randrange(6)}" for a in WORDS for b in WORDS]
    rng.shuffle(prompts)
    rows = {"prompts": [{"prompt": p} for p in prompts], "demos": [{"prompt": p, "completion": p[4:]} for p in prompts],
            "comparisons": [{"prompt": p, "completions": [" ".join(rng.sample(WORDS, 3)), p[4:], "no"], "ranks": [2, 1, 3],
                             "labeler": f"l{i % 4}"} for i, p in enumerate(prompts)]}
    for name, found in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found))
    return {name: str(folder / f"{name}.jsonl") for name in rows}


def settings(method, files, out, **more):
    return {"model": "toy", "data": files[FILES.get(method, "prompts")], "out": str(out), "tokens_per_micro_batch": 256,
            **JOBS[method], **more}


def torchrun(*command, **environment):
    return subprocess.Popen([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *command],
                            env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, stderr=subprocess.PIPE, text=True,
                            stdout=subprocess.PIPE, start_new_session=True)


def finish(process, seconds=120):
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


def train_together(path, jobs):
    path.write_text(json.dumps(jobs))
    status, _, err = finish(torchrun(WORKER, str(path)))
    assert status == 0, err


def weights(run):
    from safetensors.torch import load_file
    found = load_file(next((Path(run) / "model").glob("*.safetensors")))
    if (head := Path(run) / "model" / "head.pt").is_file():
        found |= torch.load(head, weights_only=True)
        found["shift"] = found["shift"] + found.pop("bias")  # only their sum shows: the bias alone learns rounding
    return found


def assert_close(one, two, tolerance=1e-5):
    """Every metric but the time, every sampled text, every weight but one in a thousand at most: where a gradient is
    nothing but rounding, Adam divides it by its own size. Another packing in one process does the same."""
    a, b = (read_jsonl(Path(run) / "metrics.jsonl") for run in (one, two))
    assert len(a) == len(b) > 0
    for x, y in zip(a, b):
        assert x.keys() == y.keys()
        for name in x.keys() - {"seconds"}:
            allowed = 0.02 if name.endswith("fraction") else tolerance  # a count of tokens past a threshold: one may flip
            assert x[name] == pytest.approx(y[name], abs=allowed, rel=allowed), (name, x["step"])
    texts = [[r["completion"] for r in read_jsonl(Path(run) / "samples.jsonl")] for run in (one, two)]
    assert texts[0] == texts[1]
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys()
    far = torch.cat([(a[name] - b[name]).abs().reshape(-1) > tolerance for name in a])
    assert far.float().mean() <= 1e-3


def one_process(method, files, out, **more):
    module = launch.find_method(method)
    return launch.train(module, module.Config(**settings(method, files, out, **more)), quiet=True).path


@pytest.mark.slow
def test_two_processes_learn_what_one_does(files, tmp_path):
    """P7, P23: data split over two processes, and layers too, of adapters and of all parameters."""
    ways = {"split": {}, "sharded": {"shard": True}, "whole": {"lora_rank": 0, "learning_rate": 1e-3},
            "whole-sharded": {"lora_rank": 0, "learning_rate": 1e-3, "shard": True}}
    plan = [(m, w) for m in JOBS for w in ways if not w.startswith("whole") or m in ("sft", "ppo")]
    train_together(tmp_path / "jobs.json", [{"method": m, "settings": settings(m, files, tmp_path / f"{m}-{w}-2", **ways[w])}
                                            for m, w in plan])
    for method, way in plan:
        alone = tmp_path / f"{method}-{way.removesuffix('sharded') or 'split'}-1"
        if not alone.exists():
            one_process(method, files, alone, **{**ways[way], "shard": False})
        assert_close(alone, tmp_path / f"{method}-{way}-2")
