"""SIGKILL at a chosen operation, rollouts in flight included, and the same run again: the weights are those of a run never
killed, bit for bit (P22).

A forked child trains and kills itself at its n-th operation: a decoded token, a forward pass, an optimiser step, half a
row of a log, a file of a checkpoint, a rename. Forking costs no imports, and every kill meets real work.
"""

import os
import random
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from harken.core import run as run_module
from harken.core.run import Run
from harken.engines.batch import Batch
from harken.engines.hf import Engine
from trials import LEARNING, assert_bit_equal, rows, run, trial

TWICE = {"epochs_per_step": 2, "minibatches": 2}
ROLLOUTS = trial("rloo")
CASES = {name: (name, trial(name)) for name in LEARNING} | {
    "dpo-kto": ("dpo", {**trial("dpo"), "loss": "kto", "lora_rank": 0}),
    "grpo-gspo": ("grpo", {**ROLLOUTS, **TWICE, "ratio": "sequence", "clip": 3e-4, "lora_rank": 0}),
    "reinforce-none": ("reinforce", {**ROLLOUTS, "baseline": "none"}),
    "expert_iteration-twice": ("expert_iteration", {**ROLLOUTS, **TWICE, "keep": 2}),
    "ppo-ptx": ("ppo", {**ROLLOUTS, **TWICE, "critic": "separate", "ema": 0.9, "kl_target": 1.0, "ptx_data": "", "lora_rank": 0}),
}
OPERATIONS = [(Batch, "_decode"), (Engine, "forward"), (Engine, "step"), (Run, "_append"), (torch, "save"),
              (run_module, "_sync"), (Path, "replace"), (shutil, "rmtree")]


@contextmanager
def counted(kill_at=None):
    """Names the operations as they happen; with `kill_at`, the process dies as that one begins, an `_append` half done."""
    seen = []

    def watched(owner, name):
        original = getattr(owner, name)

        def operation(*args, **kwargs):
            seen.append(name)
            if len(seen) - 1 == kill_at:
                if name == "_append":
                    with (args[0].path / args[1]).open("a") as f:
                        f.write('{"step": 1, "sec')
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)
        return operation

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in OPERATIONS:
            patch.setattr(owner, name, watched(owner, name))
        yield seen


def killed_child(train, kill_at):
    """Runs `train` in a forked child that dies at operation `kill_at`; how it ended, as `os.waitstatus_to_exitcode` says."""
    child = os.fork()
    if child == 0:
        try:
            with counted(kill_at):
                train()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def moments(operations, rng):
    """Two operations to die at in the last two thirds: a token (or a pass, where nothing is sampled), and a file's."""
    late = range(len(operations) // 3, len(operations))
    work = [i for i in late if operations[i] == ("_decode" if "_decode" in operations else "forward")]
    writing = [i for i in late if operations[i] in ("save", "_sync", "replace", "rmtree", "_append")]
    return rng.choice(work), rng.choice(writing)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_p22_sigkill_at_any_operation_ends_bit_for_bit(files, tmp_path, case):
    assert_survives_kills(*CASES[case], case, files, tmp_path, further=2 if case in ("sft", "reward_model", "rloo") else 0)


def assert_survives_kills(method, settings, case, files, tmp_path, further=0):
    """One run is killed at work and again as it resumes, another as it writes, `further` ones anywhere; all then run on to the
    end."""
    short = {"steps": 5} if "steps" in settings else {"epochs": 0.4} if "epochs" in settings else {}
    settings = {"lora_rank": 4, "checkpoint_seconds": 0.0, **settings, **short}
    if "ptx_data" in settings:
        (tmp_path / "text.txt").write_text("the old house is red\n\n" * 40)
        settings |= {"ptx_data": str(tmp_path / "text.txt"), "ptx_length": 16}
    with counted() as operations:
        whole = run(method, files, tmp_path / "whole", **settings)
    rng = random.Random(case)
    at_work, at_writing = moments(operations, rng)
    anywhere = [[rng.randrange(len(operations))] for _ in range(further)]
    for k, kills in enumerate([[at_work, rng.randrange(8)], [at_writing], *anywhere]):
        out = tmp_path / f"killed{k}"
        for at in kills:
            assert killed_child(lambda out=out: run(method, files, out, **settings), at) == -signal.SIGKILL, operations[at]
        again = run(method, files, out, **settings)
        assert_bit_equal(whole.path, again.path)
        for name in ("metrics.jsonl", "samples.jsonl"):
            assert rows(whole.path, name) == rows(again.path, name), name
