"""`harken next`: from feedback and samples to a queue, and what it says of wrong input."""

import json

import numpy as np
import pytest

from harken.cli import next as cli_next
from harken.cli.main import build_parser, main
from harken.labelers.asking import features
from harken.labelers.asking import pairs as active
from harken.labelers.asking import sets as active_sets
from harken.sandbox import crowd, load_demonstrations, make_comparisons, upside_down
from harken.store.database import open_database
from harken.store.files import write_jsonl


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """12 prompts with 4 answers each; 5 labelers, one reversed, compared two of them."""
    folder, shown = tmp_path_factory.mktemp("next"), load_demonstrations()[:12]
    texts = [[d.completion, d.completion[:20], "Sure! I'm happy to help.", shown[i - 1].completion] for i, d in enumerate(shown)]
    write_jsonl(folder / "samples.jsonl", (d.prompt.to_json() | {"completions": t} for d, t in zip(shown, texts)))
    people = [*crowd(0)[:4], upside_down()]
    said = make_comparisons([d.prompt for d in shown], [t[:2] for t in texts], people, np.random.default_rng(0), overlap=5)
    write_jsonl(folder / "said.jsonl", said)
    return folder


def run(files, *more):
    out = files / "queue.jsonl"
    assert main(["next", "--dimensions", "14", "--n", "6", "--out", str(out), *more]) == 0
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_options_are_the_modules_own():
    assert cli_next.STRATEGIES == active.STRATEGIES and cli_next.MOST_OPTIONS == active_sets.MOST_OPTIONS
    assert len(features.PLAIN_FEATURES) == 10


def test_pairs(files, capsys):
    rows = run(files, str(files / "said.jsonl"), "--candidates", str(files / "samples.jsonl"))
    assert len(rows) == 6 and all(len(r["completions"]) == 2 and r["seconds"] > 0 and r["information"] >= 0 for r in rows)
    told = capsys.readouterr().out
    assert "6 questions from 48 answers to 12 prompts; 60 votes of 5 labelers" in told
    chosen, random = (float(line.split("(")[1].split()[0]) for line in told.splitlines()[1:])
    assert chosen > random


def test_decided_pairs_are_not_asked_again(files):
    """Five voted on the first two answers to each prompt: whole pool of six pairs a prompt, less what is settled."""
    rows = run(files, str(files / "said.jsonl"), "--candidates", str(files / "samples.jsonl"), "--threshold", "0.5", "--n", "500")
    voted = {frozenset(json.loads(line)["completions"]) for line in (files / "said.jsonl").read_text().splitlines()}
    asked = {frozenset(r["completions"]) for r in rows}
    assert len(rows) == 60 and not voted & asked


def test_rankings_and_no_feedback(files):
    rows = run(files, "--candidates", str(files / "samples.jsonl"), "--most", "4")
    assert len(rows) == 6 and all(2 <= len(r["completions"]) <= 4 for r in rows) and any(len(r["completions"]) > 2 for r in rows)
    assert len({r["prompt"] for r in rows}) == 6


def test_whom(files):
    rows = run(files, str(files / "said.jsonl"), "--candidates", str(files / "samples.jsonl"), "--assign")
    counts = {name: sum(r["labeler"] == name for r in rows) for name in {r["labeler"] for r in rows}}
    assert max(counts.values()) <= 3


def test_from_a_database(files, tmp_path):
    db = tmp_path / "f.db"
    with open_database(db) as opened:
        opened.import_file(files / "said.jsonl")
    assert len(run(files, "--db", str(db), "--candidates", str(files / "samples.jsonl"))) == 6


@pytest.mark.parametrize(("options", "says"), [
    (["--out", "q.jsonl"], "nothing to choose from"),
    (["--candidates", "none.jsonl", "--out", "q.jsonl"], "There is no file"),
    (["--candidates", "deep.jsonl", "--out", "q.jsonl"], "nested too deeply"),
    (["--candidates", "picture.jsonl", "--out", "q.jsonl"], "a PNG image"),
    (["--candidates", "bad.jsonl", "--out", "q.jsonl"], "line 2"),
    (["--candidates", "one.jsonl", "--out", "q.jsonl"], "two different completions"),
    (["--candidates", "one.jsonl", "--out", "q.jsonl", "--most", "30"], "--most must lie"),
    (["--candidates", "one.jsonl", "--out", "q.jsonl", "--threshold", "2"], "--threshold"),
    (["--candidates", "one.jsonl", "--out", "one.jsonl"], "is the file that is read"),
    (["x.jsonl", "--db", "y.db", "--candidates", "one.jsonl", "--out", "q.jsonl"], "not from both"),
])
def test_wrong_input_is_one_message(tmp_path, monkeypatch, capsys, options, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "completions": ["b", "c"]}\n{"prompt": "a", "completions": "b"}\n')
    (tmp_path / "deep.jsonl").write_text('{"prompt": "a", "completions": ' + "[" * 200_000 + "\n")
    (tmp_path / "picture.jsonl").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    (tmp_path / "one.jsonl").write_text('{"prompt": "a", "completions": ["b", "b"]}\n')
    assert main(["next", *options]) == 2
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error


def test_a_reward_becomes_a_feature(files, tmp_path, monkeypatch, capsys):
    """--reward adds its scores within each prompt, in units of their spread, as one column more; what it cannot score is 0."""
    from harken.cli.main import main
    from harken.launch import next as queueing

    class Half:
        def score(self, prompts, completions):
            return [[None if i == 3 else float(len(t)) for i, t in enumerate(texts)] for texts in completions]

    asked = ["next", "--dimensions", "14", "--candidates", str(files / "samples.jsonl"), "--out", str(tmp_path / "q.jsonl")]
    args = build_parser().parse_args([*asked, "--reward", "half"])
    monkeypatch.setattr("harken.launch.rewards.open_reward", lambda name: Half())
    pool, _ = queueing.gather(*cli_next._given(args))
    column = queueing.features(pool, args)[:, -1]
    lengths = np.array([np.nan if i % 4 == 3 else len(t) for i, t in enumerate(pool.texts)]).reshape(-1, 4)
    gap = np.nan_to_num(lengths - np.nanmean(lengths, 1, keepdims=True)).ravel()
    assert column == pytest.approx(gap / gap.std() * np.sqrt(14)) and (column[3::4] == 0).all()
    monkeypatch.undo()
    given = [str(files / "said.jsonl"), "--candidates", str(files / "samples.jsonl")]
    with_scorer, without = run(files, *given, "--reward", "measure:length"), run(files, *given)
    assert len(with_scorer) == 6 and with_scorer != without
    capsys.readouterr()
    assert main([*asked, "--reward", "no/such/run"]) == 2 and "no/such/run" in capsys.readouterr().err


def test_a_database_alone_offers_its_completions_and_its_people(files, tmp_path):
    db = tmp_path / "f.db"
    with open_database(db) as opened:
        opened.import_file(files / "said.jsonl")
        known = [set(j.choice().options) for j in opened.judgments()]
        people = {j.labeler for j in opened.judgments()}
    rows = run(files, "--db", str(db), "--assign", "--threshold", "0.999")
    assert rows and {r["labeler"] for r in rows} <= people
    assert all(set(r["completions"]) in known for r in rows)
    empty = tmp_path / "none.db"
    with open_database(empty):
        pass
    assert main(["next", "--db", str(empty), "--out", str(tmp_path / "q.jsonl")]) == 2
