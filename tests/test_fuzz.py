"""Damaged files through the readers, by benchmarks/fuzz.py: each is taken or refused in words. The benchmark runs longer."""

import importlib.util
from pathlib import Path

import pytest

# By its path: with benchmarks/ on the path, lm_eval there would stand in for the package of that name.
SPEC = importlib.util.spec_from_file_location("fuzz", Path(__file__).parent.parent / "benchmarks" / "fuzz.py")
fuzz = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fuzz)


@pytest.mark.parametrize(("seeds", "read", "first"), [
    (fuzz.row_seeds, fuzz.rows_reader, 10_000), (fuzz.row_seeds, fuzz.upload_reader, 20_000),
    (fuzz.log_seeds, fuzz.log_reader, 0), (fuzz.database_seeds, fuzz.database_reader, 0)])
def test_damaged_files_are_taken_or_refused_in_words(tmp_path, seeds, read, first):
    right = seeds()
    outcomes = set()
    for number in range(first, first + (20 if read is fuzz.database_reader else 60)):
        outcome, why = fuzz.attempt(read, tmp_path, fuzz.damaged(right, number, 1))
        assert outcome != "finding", f"input {number}: {why}"
        outcomes.add(outcome)
    assert outcomes == {"taken", "refused"}


@pytest.mark.slow
def test_damaged_model_files_are_taken_or_refused_in_words(tmp_path):
    pytest.importorskip("transformers")
    for name, right, read in fuzz.Models(tmp_path).readers():
        for number in range(3):
            outcome, why = fuzz.attempt(read, tmp_path, fuzz.damaged(right, number, 1))
            assert outcome != "finding", f"{name}, input {number}: {why}"


def test_a_reader_that_fails_is_a_finding(tmp_path):
    def fails(place, data):
        raise KeyError("b")
    assert fuzz.attempt(fails, tmp_path, b"")[0] == "finding"
    assert fuzz.run(fails, [b"a"], 0, 3, 0)["findings"][2][0] == 2


@pytest.mark.parametrize("value", ['["acc", 1]', '"acc"', "5", "null", "[[1]]"])
def test_metrics_of_a_log_that_are_no_names_are_refused_in_words(tmp_path, value):
    from harken.core.errors import UserError
    from harken.store.logs import read_log
    file = tmp_path / "samples_t_2024.jsonl"
    file.write_text(f'{{"doc_hash": "a", "prompt_hash": "b", "acc": 1, "metrics": {value}}}\n')
    if value == '["acc", 1]':
        assert len(read_log(str(file)).tasks) == 1
    else:
        with pytest.raises(UserError, match="no sample of lm-eval"):
            read_log(str(file))
