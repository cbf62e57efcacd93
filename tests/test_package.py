"""What an index, a stranger's typing and a full-weight run meet."""

import importlib.util
import sys
import types
from pathlib import Path

import pytest

import harken
from harken.cli.main import main
from harken.core.config import MAX_TOKENS, RolloutConfig
from harken.launch.find import find_eval, find_method, method_names

ROOT = Path(__file__).parents[1]


def index_readme(*arguments):
    for name in ("hatchling", "hatchling.metadata", "hatchling.metadata.plugin"):
        sys.modules.setdefault(name, types.ModuleType(name))
    interface = types.SimpleNamespace(MetadataHookInterface=object)
    sys.modules.setdefault("hatchling.metadata.plugin.interface", interface)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.index_readme(*arguments)


def test_links_of_the_readme_work_on_an_index():
    text = "![Loop](docs/loop.svg) See [data](docs/data.md), [paper](https://arxiv.org/abs/1) and [below](#below)."
    assert index_readme(text, "", "1.0") == " See data, [paper](https://arxiv.org/abs/1) and [below](#below)."
    assert index_readme(text, "https://h/o/r", "1.0").startswith(
        "![Loop](https://h/o/r/raw/v1.0/docs/loop.svg) See [data](https://h/o/r/blob/v1.0/docs/data.md)")
    assert "](docs/" not in index_readme((ROOT / "README.md").read_text(encoding="utf-8"), "", "1.0")


@pytest.mark.parametrize(("argv", "message"), [
    (["trian", "sft"], "Did you mean train?"), (["train", "slft"], "Did you mean sft?"),
    (["reprot", "x"], "Did you mean report?"),
    (["train", "sft", "--lr", "1"], "Did you mean --learning-rate?"),
    (["train", "rloo", "--max-steps", "3"], "Did you mean --steps?"),
    (["train", "sft", "--epoch-s", "1"], "Did you mean --epochs?"), (["report", "x", "--ot", "y"], "Did you mean --out?"),
    (["eval", "winrate"], "Did you mean win_rate?"), (["users", "ad", "x"], "Did you mean add?"),
    (["train", "sft", "--overlong", "drp"], "Did you mean drop?"),
    (["export", "comparison", "--out", "x"], "Did you mean comparisons?")])
def test_a_mistyped_word_names_the_nearest(argv, message, capsys):
    assert main(argv) == 2
    assert message in capsys.readouterr().err


def test_one_default_for_max_tokens():
    from harken.launch.settings import SampleSettings
    # Protocols of evaluations fix their own lengths: twenty tokens of the toxicity protocol, a rating's four.
    configs = [find_method(name).Config for name in method_names()] + [find_eval("win_rate").Config]
    defaults = {c.__module__: c.max_tokens for c in [*configs, SampleSettings, RolloutConfig] if hasattr(c, "max_tokens")}
    assert len(defaults) > 8 and set(defaults.values()) == {MAX_TOKENS}


def test_full_weights_have_a_rate_of_their_own_and_the_run_says_so(tmp_path):
    """No LoRA default changes; --lora-rank 0 follows, unless a rate is given."""
    data = [{"prompt": f"Say {i}.", "completion": "Hello."} for i in range(8)]
    settings = {"model": "toy", "data": data, "epochs": 1, "holdout": 0}
    full = harken.train("sft", **settings, lora_rank=0, out=tmp_path / "full")
    assert full.config["learning_rate"] == 1e-5 and any("learning rate is 1e-05" in n for n in full.result["notes"])
    assert harken.train("sft", **settings, out=tmp_path / "lora").config["learning_rate"] == 2e-4
    own = harken.train("sft", **settings, lora_rank=0, learning_rate=1e-3, out=tmp_path / "own")
    assert own.config["learning_rate"] == 1e-3 and not any("learning rate" in n for n in own.result["notes"])
    rates = {name: getattr(find_method(name).Config, "learning_rate", None) for name in method_names()}
    assert (rates["sft"], rates["dpo"], rates["reward_model"], rates["rloo"]) == (2e-4, 5e-5, 1e-4, 1e-4)


def test_the_conversions_bar_stays_out_of_logs(capsys):
    reader = pytest.importorskip("transformers.modeling_gguf_pytorch_utils")
    from harken.engines.pretrained import _no_bar
    before = reader.tqdm
    with _no_bar():
        assert list(reader.tqdm([1, 2], desc="Converting")) == [1, 2]
    assert reader.tqdm is before and "\r" not in capsys.readouterr().err
