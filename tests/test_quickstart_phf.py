"""`harken quickstart phf`: whole at a size that learns nothing, and what it says of its figures."""

import pytest

from harken.cli import phf_loop
from harken.cli.main import main
from harken.core.protocols import Estimate


def figures(mle, good, bad, cut):
    def row(value):
        return {"faults": Estimate(value, value - 0.3, value + 0.3, 100, 0.95), "bits": Estimate(2.0, 1.9, 2.1, 10, 0.95)}
    return {"mle": row(mle), "conditional, good": row(good), "conditional, bad": row(bad), "cut, good": row(cut)}


def test_it_says_only_what_the_intervals_carry():
    """Half-widths of .3 and .3 join to .42: a change of .5 is told apart, one of .4 is not."""
    said = phf_loop.findings(figures(2.5, 2.0, 2.4, 2.0))
    assert "-0.50 [-0.92, -0.08] per 100 characters, fewer faults" in said[0]
    assert "not told apart at this size" in said[1] and "changed no sample" in said[2]
    said = phf_loop.findings(figures(1.0, 2.0, 2.0, 2.1))
    assert "more faults" in said[0] and "changed samples" in said[2]


@pytest.mark.slow
def test_the_whole_path_runs_and_is_not_done_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(phf_loop, "BYTES", 20_000)
    monkeypatch.setattr(phf_loop, "HELD_BYTES", 3_000)
    monkeypatch.setattr(phf_loop, "TOKENS", 1_024)
    monkeypatch.setattr(phf_loop, "SAMPLES", 26)
    monkeypatch.setattr(phf_loop, "LENGTH", 24)
    monkeypatch.setattr(phf_loop, "SIZE", phf_loop.SIZE | {"size": "60K", "vocabulary": 400, "max_length": 64, "tokens": 1_024})
    out = tmp_path / "q"
    assert main(["quickstart", "phf", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "Deleting the bad token changed no sample in good mode." in said and "Report: " in said
    assert (out / "report.html").is_file() and (out / "cut" / "model").is_dir()
    before = (out / "conditional" / "metrics.jsonl").read_bytes()
    assert main(["quickstart", "phf", "--out", str(out)]) == 0
    assert (out / "conditional" / "metrics.jsonl").read_bytes() == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    assert main(["quickstart", "phf", "--out", str(other)]) == 2
    assert (other / "thesis.txt").read_text() == "mine"
