"""Annotating a corpus: every way of giving it, any number of workers and kills, the same bytes."""

import gzip
import json
import re
import sys
from functools import partial
from pathlib import Path

import pytest

from annotating import Vowels, Whole, contents, expected, rows, some_texts
from harken.core.errors import UserError
from harken.loops.annotate import annotate, malformed_of, split_size
from harken.store.annotations import Annotated, Shard, slug
from harken.store.corpus import Reader, open_corpus, plan_splits
from harken.text.segments import segment_ends, segments

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

@pytest.fixture
def texts():
    return some_texts()


def test_scores_and_offsets_are_the_scorers_own(tmp_path, texts):
    found = annotate([rows(tmp_path / "a.jsonl", texts)], tmp_path / "out", Vowels)
    documents = list(found)
    assert [d.text for d in documents] == texts and [d.id for d in documents] == [f"d{i}" for i in range(300)]
    assert [d.scores for d in documents] == expected(texts)
    assert all([d.text[a:b] for a, b in zip([0, *d.ends], d.ends)] == segments(d.text, "sentence") for d in documents)
    about = pq.read_schema(tmp_path / "out" / "scores" / "vowels-1" / "00000.parquet").metadata
    assert about[b"scorer"] == b"vowels/1" and about[b"corpus"].decode() == found.plan.corpus.hash


def test_equal_segments_are_scored_once(tmp_path):
    Vowels.calls = 0
    annotate([rows(tmp_path / "a.jsonl", ["One. Two. One. ", "Two. Three."] * 50)], tmp_path / "out", Vowels, split_bytes=300)
    assert Vowels.calls == 3
    annotate([rows(tmp_path / "a.jsonl", ["One. Two. One. ", "Two. Three."] * 50)], tmp_path / "out", Vowels, split_bytes=300)
    assert Vowels.calls == 3


def test_every_packing_and_form_gives_the_same_documents(tmp_path, texts):
    plain = rows(tmp_path / "a.jsonl", texts)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with pa.CompressedOutputStream(pa.OSFile(str(tmp_path / "c.jsonl.zst"), "wb"), "zstd") as file:
        file.write(plain.read_bytes())
    table = pa.table({"id": [f"d{i}" for i in range(300)], "text": texts})
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=40)
    folder = tmp_path / "dataset"
    folder.mkdir()
    with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=30)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    (folder / "dataset_info.json").write_text("{}")
    (tmp_path / "twice").mkdir()
    (tmp_path / "twice" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    folder.rename(tmp_path / "twice" / "train")
    want = [(f"d{i}", t) for i, t in enumerate(texts)]
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.parquet", "twice/train", "twice"):
        corpus = open_corpus([tmp_path / name])
        plan = plan_splits(corpus, 3000)
        assert len(plan) > 3, name
        reader = Reader(corpus)
        assert [(d.id, d.text) for split in plan for d in reader.documents(split)] == want, name
        backwards = [[(d.id, d.text) for d in reader.documents(split)] for split in reversed(plan)]
        assert [d for part in reversed(backwards) for d in part] == want, name


@pytest.mark.parametrize("mode", ["paragraph", "line", "file"])
@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
def test_plain_text_is_divided_alike_wherever_it_is_cut(tmp_path, mode, size):
    text = "One line.\nAnd more.\n\n\nSecond é.\n  \nThird\nlast"
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(text.encode()))
    want = {"paragraph": ["One line.\nAnd more.", "Second é.", "Third\nlast"], "file": [text],
            "line": ["One line.", "And more.", "Second é.", "Third", "last"]}[mode]
    for name in ("a.txt", "b.txt.gz"):
        corpus = open_corpus([tmp_path / name], mode=mode)
        found = [d for split in plan_splits(corpus, size) for d in Reader(corpus).documents(split)]
        assert [d.text for d in found] == want and len({d.id for d in found}) == len(want)


def test_another_scorer_adds_its_own_column_only(tmp_path, texts):
    source = rows(tmp_path / "a.jsonl", texts)
    annotate([source], tmp_path / "out", Vowels)
    before = contents(tmp_path / "out")
    annotate([source], tmp_path / "out", Whole)
    after = contents(tmp_path / "out")
    assert {k: after[k] for k in before} == before
    assert {k.split("/")[1] for k in after.keys() - before.keys()} == {"whole-1"}
    with pytest.raises(UserError, match="Name one of them"):
        Annotated(tmp_path / "out")
    assert Annotated(tmp_path / "out", "whole/1").scorer == Annotated(tmp_path / "out", "whole-1").scorer == "whole/1"


def test_the_size_of_splits_goes_by_the_corpus_and_an_earlier_plan_is_kept(tmp_path, texts):
    assert [split_size(n << 20) for n in (0, 3, 640, 100_000)] == [1 << 18, 1 << 18, 10 << 20, 64 << 20]
    source = rows(tmp_path / "a.jsonl", texts)
    annotate([source], tmp_path / "out", Vowels, split_bytes=2000)
    plan = (tmp_path / "out" / "plan.json").read_bytes()
    annotate([source], tmp_path / "out", Whole)  # says nothing of splits: those that are there
    assert (tmp_path / "out" / "plan.json").read_bytes() == plan and len(json.loads(plan)["splits"]) > 1
    annotate([source], tmp_path / "fresh", Whole)
    assert len(json.loads((tmp_path / "fresh" / "plan.json").read_text())["splits"]) == 1


def test_a_scorer_that_sees_the_document_scores_segments_in_their_place(tmp_path):
    found = annotate([rows(tmp_path / "a.jsonl", ["Ay. Bee. Sea.", "Bee. Sea.", "Ay. Bee. Sea."])], tmp_path / "out", Whole)
    assert [d.scores for d in found] == [[0.0, None, -2.0], [0.0, None], [0.0, None, -2.0]]
    assert found.rows[0]["missing"] == {"no score": 3}


def test_what_fails_is_counted_and_never_zero(tmp_path, texts):
    found = annotate([rows(tmp_path / "a.jsonl", [*texts, "Good. boom one. skip it. boom two."])], tmp_path / "out", Vowels)
    assert list(found)[-1].scores == [expected(["Good. "])[0][0], None, None, None]
    assert found.rows[0]["missing"] == {"ZeroDivisionError": 2, "no score": 1}


def test_malformed_rows_are_counted_with_their_place(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "Fine."}\n{"text": 3}\nnonsense\n\xff\xfe\n{"text": " "}\n'
                                       b'{"text": "\\ud83d"}\n')
    annotate([tmp_path / "a.jsonl"], tmp_path / "out", Vowels)
    found = malformed_of(Annotated(tmp_path / "out").texts.rows().values())
    assert {k: v["count"] for k, v in found.items()} == {
        'no "text" with a text': 1, "not valid JSON": 1, "not UTF-8 text": 1, "an empty text": 1,
        "broken Unicode (half a surrogate pair)": 1}
    assert found["not valid JSON"]["places"] == ["a.jsonl, byte 30"]


@pytest.mark.parametrize(("name", "data", "message"), [
    ("a.txt", "häßlich".encode("latin-1"), "Not one document .* not UTF-8 text"), ("a.py", b"", "every file is empty"),
    ("a.txt", "text".encode("utf-16"), "Not one document .* UTF-16"),
    ("a.txt", "text".encode("utf-16-le"), "Not one document .* UTF-16"),
    ("a.jsonl", '{"text": "One."}\n'.encode("utf-16"), "Not one document .* UTF-16"),
    ("a.json", b"[1, 2]", "not one object a line"),
    ("a.jsonl.gz", gzip.compress(b'{"text": "One."}\n' * 99, mtime=0)[:-9], "cut short or damaged"),
    ("a.jsonl", b'{"content": "x"}\n', "--text-field"), ("a.txt", b"boom", "not one segment a score"),
    ("a.parquet", b"PAR1 and nothing PAR1", "no whole Parquet file"), ("a.parquet", None, "holds no text")])
def test_bad_input_is_one_message(tmp_path, name, data, message):
    if data is None:
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / name)
    else:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        annotate([tmp_path / name], tmp_path / "out", Vowels)
    # Where no document could be read nothing is left, and the same command works once the corpus is mended.
    assert not list((tmp_path / "out").rglob("*" if "segment" not in message else "*.tmp"))


@pytest.mark.parametrize("given", ["bad", [1.0]])
def test_a_scorer_that_gives_no_numbers_is_one_message(tmp_path, given):
    class Odd:
        id = "odd/1"

        def rate(self, text):
            return given
    source = rows(tmp_path / "a.jsonl", [f"text {i}" for i in range(300)])
    with pytest.raises(UserError, match="fails on every segment: TypeError"):
        annotate([source], tmp_path / "out", Odd)


def test_a_scorer_that_forgets_a_segment_is_counted(tmp_path):
    class Short:
        id = "short/1"

        def rate(self, text):
            return 0.0

        def rate_segments(self, text, ends):
            return [0.0] * (len(ends) - ("gap" in text))
    result = annotate([rows(tmp_path / "a.jsonl", ["One. Two.", "One. A gap."])], tmp_path / "out", Short)
    assert [d.scores for d in result] == [[0.0, 0.0], [None, None]]
    assert next(iter(result.rows.values()))["missing"] == {"ValueError": 2}


class Batched:
    """Scores many at once: too few of them, too many, or it leaves; alone each is right."""

    id = "batched/1"

    def __init__(self, fault):
        self.fault = fault

    def score(self, prompts, completions):
        (texts,) = completions
        if len(texts) > 1 and self.fault == "leaves":
            sys.exit(3)
        row = [float(len(t)) for t in texts]
        return [row if len(texts) == 1 else row[:-1] if self.fault == "few" else [0.0, *row]]


@pytest.mark.parametrize("fault", ["few", "many", "leaves"])
def test_a_batch_of_another_length_is_scored_one_by_one(tmp_path, fault):
    result = annotate([rows(tmp_path / "a.jsonl", ["One. Three.", "Seven."])], tmp_path / "out", partial(Batched, fault))
    assert [d.scores for d in result] == [[5.0, 6.0], [6.0]]


def test_another_plan_and_a_scorer_that_always_fails_are_refused(tmp_path, texts):
    source = rows(tmp_path / "a.jsonl", texts)
    annotate([source], tmp_path / "out", Vowels)
    with pytest.raises(UserError, match="its segments are others"):
        annotate([source], tmp_path / "out", Vowels, segmenter="line")
    with pytest.raises(UserError, match="its splits are of another size"):
        annotate([source], tmp_path / "out", Vowels, split_bytes=100)
    rows(source, texts[:-1])
    with pytest.raises(UserError, match="its corpus is another"):
        annotate([source], tmp_path / "out", Vowels)
    rows(source, [f"boom {i}" for i in range(999)])
    with pytest.raises(UserError, match="fails on every segment: ZeroDivisionError"):
        annotate([source], tmp_path / "fails", Vowels)


def test_a_folder_is_read_in_order_and_what_is_not_text_is_counted(tmp_path):
    for name, data in {"b.py": b"x = 1\n", "a/c.py": b"y = 2\n", ".git/x": b"no", "pic.bin": b"a\0b", "e.py": b""}.items():
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_bytes(data)
    found = annotate([tmp_path / "src"], tmp_path / "out", Vowels, segmenter="line")
    assert [(d.id, d.text) for d in found] == [("a/c.py", "y = 2\n"), ("b.py", "x = 1\n")]
    assert malformed_of(found.texts.rows().values())["not text"] == {"count": 1, "places": ["pic.bin"]}


def test_a_full_disk_is_one_message_and_nothing_half_written(tmp_path, texts, monkeypatch):
    def full(self, columns):
        raise OSError(28, "No space left on device")
    source = rows(tmp_path / "a.jsonl", texts)
    with monkeypatch.context() as patch:
        patch.setattr(Shard, "write", full)
        with pytest.raises(UserError, match="No space left"):
            annotate([source], tmp_path / "out", Vowels)
    assert not list((tmp_path / "out").rglob("*.tmp")) and not list((tmp_path / "out").rglob("*.parquet"))
    annotate([source], tmp_path / "out", Vowels)


def test_slugs_of_different_scorers_differ():
    ids = ["pep8/1", "pep8:1", "pep8 1", "pep8-1", "a/" + "x" * 99, "a/" + "x" * 98, "é", "../up"]
    assert len({slug(i) for i in ids}) == len(ids) and slug("pep8/1") == "pep8-1"
    assert not any("/" in slug(i) or slug(i).startswith(".") for i in ids)


def test_pep8_blames_a_line_for_what_stands_in_it():
    """x=1 in a function: one violation (E225) of eight characters; its indentation is none. All of them are the text's."""
    pytest.importorskip("pycodestyle")
    from harken.rewards.pep8 import PEP8
    scorer, code = PEP8(), "def f():\n    x=1\n    return x\n\n\nfoo( 1,\n  2)"
    ends = segment_ends(code, "line")
    found = scorer.rate_segments(code, ends)
    assert found[:5] == [0, -12.5, 0, 0, 0]
    counts = [-s * (b - a) / 100 for s, a, b in zip(found, [0, *ends], ends)]
    assert sum(counts) == pytest.approx(scorer.violations(code).total())
    assert scorer.rate("    x=1\n") < found[1]


def test_dolmas_attributes_are_written_and_read(tmp_path, texts):
    """Written and read back, the scores are the same; a span over two segments counts for both, the worst of several wins."""
    from harken.launch.scorers import open_scorer
    from harken.store.dolma import write_attributes
    texts = [*texts[:60], "Good. boom one. Fine."]
    source = rows(tmp_path / "a.jsonl", texts)
    found = annotate([source], tmp_path / "out", Vowels, split_bytes=2000)
    assert write_attributes(found, tmp_path / "attributes", "vowels__score") == found.segments - 1
    spec = f"dolma:{tmp_path / 'attributes'}=vowels__score"
    back = annotate([source], tmp_path / "back", partial(open_scorer, spec), split_bytes=2000)
    assert [(d.id, d.ends, d.scores) for d in back] == [(d.id, d.ends, d.scores) for d in found]
    (tmp_path / "x.jsonl").write_text('{"id": "d0", "attributes": {"k": [[0, 9, 0.5], [7, 8, 0.75]]}}\n')
    rows(tmp_path / "b.jsonl", ["One. Two. Three. "])
    faults = annotate([tmp_path / "b.jsonl"], tmp_path / "faults", partial(open_scorer, f"dolma:{tmp_path / 'x.jsonl'}=-k"))
    assert [d.scores for d in faults] == [[-0.5, -0.75, None]]


@pytest.mark.parametrize(("argument", "message"), [
    ("nowhere=k", "holds no attributes"), ("x.jsonl", "names no attribute"), ("x.jsonl=other", "has the attribute other"),
    ("bad.jsonl=k", "line 2 is no row of attributes"),
    ("twice.jsonl=k", "line 3 has the id '7', which another row has with other spans")])
def test_attributes_that_are_none_are_one_message(tmp_path, monkeypatch, argument, message):
    from harken.launch.scorers import open_scorer
    monkeypatch.chdir(tmp_path)
    Path("x.jsonl").write_text('{"id": "a", "attributes": {"k": [[0, 1, 2]]}}\n')
    Path("bad.jsonl").write_text('{"id": "a", "attributes": {"k": [[0, 1, 2]]}}\n{"id": "b", "attributes": {"k": [[0, 1]]}}\n')
    row = '{"id": %s, "attributes": {"k": [[0, 1, %d]]}}\n'
    Path("twice.jsonl").write_text("".join(row % (name, score) for name, score in (("7", 2), ('"7"', 2), ("7", 3))))
    with pytest.raises(UserError, match=message):
        open_scorer(f"dolma:{argument}")


@pytest.mark.parametrize(("spec", "message"), [
    ("no.module:Scorer", "cannot be imported"), ("json:Nothing", "has no Nothing"), ("json:JSONEncoder", "is no scorer"),
    ("nothing", "no reward model at"), ("json:JSONDecodeError", "cannot be made: TypeError"),
    ("annotating:Numbered", "needs an id")])
def test_a_word_that_names_no_scorer_is_one_message(spec, message):
    from harken.launch.scorers import open_scorer
    with pytest.raises(UserError, match=message):
        open_scorer(spec)


def test_the_command_says_what_it_read_and_suggests_thresholds(tmp_path, capsys):
    from harken.cli.main import main
    (tmp_path / "a.jsonl").write_text('{"text": "You are kind. You damn idiot!"}\n{"text": 1}\n' * 4)
    assert main(["annotate", str(tmp_path / "a.jsonl"), "--scorer", "toxicity", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "4 documents, 8 segments, scored by toxicity/" in said
    assert "3 of 4 documents nearly repeat an earlier one (3 in the same words); they stay in" in said
    assert '4 left out: no "text" with a text (a.jsonl, byte' in said and "the best 25% of documents: --threshold -0." in said
    assert main(["annotate", str(tmp_path / "a.jsonl"), "--scorer", "toxicity", "--out", str(tmp_path / "a.jsonl")]) == 2
    assert "is a file" in capsys.readouterr().err


def test_the_command_writes_dolmas_attributes(tmp_path, texts, capsys):
    """Read back by the name that it says, the scores are the same."""
    from harken.cli.main import main
    source, out = rows(tmp_path / "a.jsonl", texts[:5]), tmp_path / "dolma"
    common = ["annotate", str(source), "--near", "0"]
    assert main([*common, "--scorer", "toxicity", "--out", str(tmp_path / "out"), "--attributes", str(out)]) == 0
    (name,) = re.findall(r"as (\S+) in", capsys.readouterr().out)
    assert main([*common, "--scorer", f"dolma:{out}={name}", "--out", str(tmp_path / "back")]) == 0
    assert [d.scores for d in Annotated(tmp_path / "back")] == [d.scores for d in Annotated(tmp_path / "out")]
    assert main([*common, "--scorer", "toxicity", "--out", str(tmp_path / "new"), "--attributes", str(out)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_thresholds_are_reached_by_their_share():
    """Of 0 … 9 the best 30 % are 7, 8 and 9; of many equal scores all count."""
    import numpy as np

    from harken.stats.histogram import draw, histogram, reached_by, share_reaching
    x = np.arange(10.0)
    assert reached_by(x, 0.3) <= 7 and share_reaching(x, reached_by(x, 0.3)) >= 0.3
    assert share_reaching(np.array([0.0] * 9 + [-1]), reached_by(np.array([0.0] * 9 + [-1]), 0.05)) == 0.9
    assert [n for *_, n in histogram(x, 5)] == [2] * 5 and histogram(np.ones(3)) == [(1.0, 1.0, 3)]
    assert draw([(0, 1, 4), (1, 2, 2)]).splitlines()[0].count("█") == 2 * draw([(0, 1, 4), (1, 2, 2)]).splitlines()[1].count("█")
