"""Cases of a test that only `pytest -m slow` runs, beside those that every run has.

    @pytest.mark.parametrize("method", ["rloo", *slow("grpo", "ppo")])
    @pytest.mark.parametrize(("method", "rate"), [("rloo", 1.0), *slow(("ppo", 0.1))])
"""

import pytest


def slow(*cases):
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases]
