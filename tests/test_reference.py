"""DPO's reference, computed once a data set: no pass in later epochs, the same bits after a stop, none of other weights."""

import pytest
import torch

from harken.core.files import read_json, read_jsonl, write_json
from harken.engines.hf import Engine
from stopping import stopped_after
from trials import run, weights

SETTINGS = {"epochs": 2.0, "batch_size": 16, "learning_rate": 1e-3, "holdout": 0.1, "lora_rank": 2, "checkpoint_seconds": 0.0}


@pytest.fixture
def passes(monkeypatch):
    """How many trees each reference pass was of."""
    counted = []
    original = Engine.logprobs

    def logprobs(self, trees, *, reference=False, **options):
        if reference:
            counted.append(len(trees))
        return original(self, trees, reference=reference, **options)
    monkeypatch.setattr(Engine, "logprobs", logprobs)
    return counted


def same(first, second):
    a, b = weights(first), weights(second)
    rows = [[{n: v for n, v in row.items() if n != "seconds"} for row in read_jsonl(path / "metrics.jsonl")]
            for path in (first, second)]
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a) and rows[0] == rows[1]


def test_two_epochs_make_one_reference_pass_and_a_stopped_run_ends_with_the_same_bits(files, tmp_path, passes):
    done = run("dpo", files, tmp_path / "a", **SETTINGS)
    steps = done.result["steps"]
    assert len(passes) == 2 and passes[0] + passes[1] < 16 * steps  # the training rows once, the held-out ones once
    passes.clear()
    with stopped_after(steps // 2 + 1):
        run("dpo", files, tmp_path / "b", **SETTINGS)
    assert len(passes) == 1
    run("dpo", files, tmp_path / "b", **SETTINGS)
    assert len(passes) == 2 and same(done.path, tmp_path / "b")  # the second is of the held-out rows: nothing is read twice


def test_a_kept_reference_of_other_weights_is_not_taken(files, tmp_path, passes):
    """The file's hash is of weights, precision and rows; with another hash, or cut away, the pass is made again."""
    done = run("dpo", files, tmp_path / "a", **SETTINGS)
    for change in ({"key": "of others"}, None):
        out = tmp_path / str(change is None)
        with stopped_after(2):
            run("dpo", files, out, **SETTINGS)
        if change is None:
            (out / "reference.json").unlink()
        else:
            kept = read_json(out / "reference.json")
            write_json(out / "reference.json", {"sums": [[x + 1 for x in row] for row in kept["sums"]], **change})
        run("dpo", files, out, **SETTINGS)
        assert same(done.path, out)


def test_one_epoch_computes_it_as_it_goes(files, tmp_path, passes):
    done = run("dpo", files, tmp_path / "a", **(SETTINGS | {"epochs": 0.2, "holdout": 0.0}))
    assert len(passes) == done.result["steps"] and not (done.path / "reference.json").exists()
