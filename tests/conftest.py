"""Shared fixtures: tiny engines, and where real data lies if it is here."""

import os
import sys
from pathlib import Path

# Tiny models, several processes: more threads only wait for each other. The variable is for what tests start;
# here a pytest plugin may have loaded torch already. Equal bits need equal threads.
os.environ["OMP_NUM_THREADS"] = "1"
if "torch" in sys.modules:
    sys.modules["torch"].set_num_threads(1)

import pytest

DATA = Path(os.environ.get("HARKEN_DATA") or Path(__file__).parents[1].parent / "shared" / "data")


@pytest.fixture
def real_data():
    if not DATA.is_dir():
        pytest.skip(f"real data is not at {DATA}; set HARKEN_DATA")
    return DATA


@pytest.fixture
def toy_engine():
    pytest.importorskip("torch")
    from harken.engines.attention import NAME
    from harken.engines.hf import Engine
    from harken.engines.loading import Loaded
    from harken.engines.toy import toy_model, toy_tokenizer
    from harken.text.template import Template

    def make(architecture="llama", attention=NAME, **options):
        loaded = Loaded(toy_model(architecture).eval(), Template(toy_tokenizer()), {})
        loaded.model.config._attn_implementation = attention
        return Engine(loaded, **options)

    return make
