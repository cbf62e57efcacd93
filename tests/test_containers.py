"""What rows are packed in: every container and encoding gives the same records, and a small file never fills the memory."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from harken.core.errors import UserError
from harken.core.records import Choice, Prompt
from harken.store import parsing, tables
from harken.store.files import Reader, file_hash, read, read_comparisons, read_rows

CASES = Path(__file__).parent / "cases"
PAIRS = [Choice(Prompt.of("Où est le café ? «naïf»"), ("Là, à côté.", "Je ne sais pas."), (1, 2), "7"),
         Choice(Prompt.of('Zwei, "Größe"; drei\tvier'), ("Zeile\nzwei", "Nein"), (1, 2), "b")]
ROWS = [{"prompt": c.prompt.text, "chosen": c.options[0], "rejected": c.options[1], "labeler": c.labeler} for c in PAIRS]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def csv_text(delimiter=",", end="\r\n"):
    def cell(text):
        return '"' + text.replace('"', '""') + '"'
    lines = [delimiter.join(ROWS[0])] + [delimiter.join(cell(v) for v in row.values()) for row in ROWS]
    return end.join(lines) + end


def check(path, **options):
    found = read(path, **options)
    assert found.records == PAIRS and found.kind == "comparisons", path.name
    return found


# Text

@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("kind", ["jsonl", "array", "pretty", ",", ";", "\t", "|"])
def test_every_encoding_of_every_text(tmp_path, kind, encoding):
    text = {"jsonl": JSONL, "array": json.dumps(ROWS, ensure_ascii=False),
            "pretty": json.dumps(ROWS, ensure_ascii=False, indent=2)}.get(kind) or csv_text(kind)
    path = tmp_path / "file.txt"
    path.write_bytes(text.encode(encoding))
    found = check(path)
    assert any("Windows-1252" in note for note in found.notes) == (encoding == "cp1252")


def test_windows_text_is_told_from_damage_and_from_other_alphabets(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_bytes(JSONL.encode() + JSONL.encode("cp1252"))
    with pytest.raises(UserError, match="line 3: not UTF-8 text"):
        read(path)
    for text, encoding in (("问题是什么？", "gb18030"), ("Как дела сегодня?", "cp1251"), ("質問は何ですか", "shift_jis")):
        row = json.dumps({"prompt": text, "chosen": text, "rejected": "no"}, ensure_ascii=False)
        path.write_bytes(row.encode(encoding) + b"\n")
        with pytest.raises(UserError, match="not UTF-8 text"):
            read(path)
        assert read(path, encoding=encoding).records[0].prompt.text == text
    with pytest.raises(UserError, match="no encoding"):
        read(path, encoding="nonsense")


def test_an_ascii_beginning_does_not_decide(tmp_path):
    plain = json.dumps({"prompt": "Q", "chosen": "a", "rejected": "b"}) + "\n"
    path = tmp_path / "f.jsonl"
    path.write_bytes(plain.encode() * 50 + JSONL.encode("cp1252"))
    assert read(path).records[-2:] == PAIRS
    path.write_bytes(("prompt,chosen,rejected\n" + "Q,a,b\n" * 50 + "é,à,ç\n").encode("cp1252"))
    assert read(path).records[-1].prompt.text == "é"


def test_cells_of_a_table(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text('prompt,completion,score,labeler\nQ,42,,7\nR,"[1] true",3.5,007\n\n"=1+1",\'=x,2,\n')
    rows = [r.to_json() for r in read(path).records]
    assert rows == [{"prompt": "Q", "completion": "42", "score": None, "labeler": "7"},
                    {"prompt": "R", "completion": "[1] true", "score": 3.5, "labeler": "007"},
                    {"prompt": "=1+1", "completion": "=x", "score": 2}]
    path.write_text('prompt,chosen,rejected\nQ,a,b\n"only, two",b\n')
    with pytest.raises(UserError, match="line 3: a row of 2 cells in a table of 3 columns"):
        read(path)
    path.write_text("prompt,chosen,chosen\nQ,a,b\n")
    with pytest.raises(UserError, match="two columns of the name 'chosen'"):
        read(path)
    path.write_text('prompt,chosen,rejected\nQ,"a"x,b\n')
    with pytest.raises(UserError, match="the table is broken here"):
        read(path, skip_bad=True)
    path.write_text("prompt\nQ\n")
    assert read(path).records == [Prompt.of("Q")]
    messages = json.dumps([{"role": "user", "content": "Q"}]).replace('"', '""')
    path.write_text(f'prompt,completions,ranks,tags\n"{messages}","[""a"", ""b""]","[1, 1]","[""x""]"\n')
    assert read(path).records == [Choice(Prompt.of("Q", tags=("x",)), ("a", "b"), (1, 1))]
    path.write_text("prompt,chosen,rejected\nQ," + "x" * 200_000 + ",b\n")
    assert len(read(path).records[0].options[0]) == 200_000


def test_text_that_is_no_table(tmp_path):
    path = tmp_path / "f.txt"
    for text, words in (("Hello, world\nHow, are\n", "text, not a row"), ("a,b\n1,2\n", "text, not a row")):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            read(path)
    path = tmp_path / "f.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no known shape has these fields: a, b"):
        read(path)


# Packed

def zipped(data):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/._x", b"noise")
        archive.writestr("folder/pairs.jsonl", data)
    return packed.getvalue()


def zstd(data):
    pyarrow = pytest.importorskip("pyarrow")
    return pyarrow.compress(data, codec="zstd", asbytes=True)


PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zip": zipped, "zst": zstd,
        "gz.gz": lambda d: gzip.compress(gzip.compress(d)),
        "members": lambda d: b"".join(gzip.compress(p) for p in (d[:20], d[20:]))}


@pytest.mark.parametrize("pack", PACK)
@pytest.mark.parametrize("text", [JSONL, json.dumps(ROWS), csv_text()], ids=["jsonl", "json", "csv"])
def test_packed_whatever_the_name(tmp_path, pack, text):
    path = tmp_path / "file.data"
    path.write_bytes(PACK[pack](text.encode()))
    check(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(UserError, match=r"cut short or damaged|is damaged"):
        read(path)


def test_archives_that_are_no_one_file(tmp_path):
    path = tmp_path / "f.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jsonl", JSONL)
        archive.writestr("b.jsonl", JSONL)
    with pytest.raises(UserError, match=r"zip archive of 2 files \(a.jsonl, b.jsonl\)"):
        read(path)
    (tmp_path / "p.jsonl").write_bytes(b"\x80\x04\x95pickle")
    with pytest.raises(UserError, match="pickle"):
        read(tmp_path / "p.jsonl")
    (tmp_path / "l.jsonl").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match="git lfs pull"):
        read(tmp_path / "l.jsonl")
    (tmp_path / "c.jsonl").write_text('// a comment\n{"prompt": "Q"}\n')
    with pytest.raises(UserError, match="a comment stands among the rows"):
        read(tmp_path / "c.jsonl")
    (tmp_path / "s.jsonl").write_text("{'prompt': 'Q'}\n{'prompt': 'R'}\n")
    with pytest.raises(UserError, match="quotes are single"):
        read(tmp_path / "s.jsonl")


# Typed tables

def test_excel(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append([*ROWS[0], "margin"])
    for row in ROWS:
        sheet.append([*row.values(), 0.5])
    sheet.append([None] * 5)
    book.create_sheet("empty")
    path = tmp_path / "f.xlsx"
    book.save(path)
    assert check(path).unread == {"margin": 2}
    sheet.append(["Q", 42, 4.5, 7])
    book.save(path)
    assert read(path).records[-1] == Choice(Prompt.of("Q"), ("42", "4.5"), (1, 2), "7")
    book.create_sheet("more").append(["prompt"])
    book.save(path)
    with pytest.raises(UserError, match="2 sheets with rows"):
        read(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"damaged|cannot be read"):
        read(path)


def test_parquet_and_arrow(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet
    rows = [{**r, "prompt": [{"role": "user", "content": r["prompt"], "name": None}], "tools": None, "score": float("nan")}
            for r in ROWS]
    rows[0]["meta"] = '{"a": 1}'
    table = pyarrow.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / "f.bin")
    found = read(tmp_path / "f.bin").records
    assert found == PAIRS and found[0].prompt.meta == {"a": 1}
    for name, writer in (("file", pyarrow.ipc.new_file), ("stream", pyarrow.ipc.new_stream)):
        with pyarrow.OSFile(str(tmp_path / name), "wb") as sink, writer(sink, table.schema) as out:
            out.write_table(table)
        check(tmp_path / name)
    (tmp_path / "cut").write_bytes((tmp_path / "f.bin").read_bytes()[:-20])
    with pytest.raises(UserError, match=r"damaged or cut short"):
        read(tmp_path / "cut")
    with pytest.raises(UserError, match="once unpacked"):
        read(tmp_path / "f.bin", unpacked_limit=10)


def test_the_cases_in_typed_tables():
    pytest.importorskip("pyarrow")
    files = CASES / "files"
    assert [c.to_json() for c in read(files / "own_c.parquet").records] and read(files / "own_c.parquet").kind == "comparisons"
    assert read(files / "hf_arrow.arrow").kind == "comparisons"
    assert read(files / "csv_gz.csv.gz").records == read(files / "csv_as_txt.txt").records
    assert read(files / "bz2.jsonl.bz2").kind == "comparisons"


def test_folders_saved_by_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(tmp_path / "one")
    check(tmp_path / "one")
    assert file_hash(tmp_path / "one") != file_hash(tmp_path / "one" / "state.json")
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(tmp_path / "two")
    with pytest.raises(UserError, match="several parts: test, train"):
        read(tmp_path / "two")
    check(tmp_path / "two" / "train")
    with pytest.raises(UserError, match="folder without Arrow or Parquet"):
        read(CASES / "studio")


def test_a_data_set_of_a_hub(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)

    def offline(name):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "get_dataset_split_names", offline)
    with pytest.raises(UserError, match="no file lab/pairs, and as a data set on a hub it cannot be reached") as error:
        read("lab/pairs")
    assert len(error.value.fact.splitlines()) == 1
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name: ["train", "test"])
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split, streaming: ROWS if split == "train" else ROWS[:1])
    check(Path("lab/pairs"))
    assert len(read("lab/pairs:test").records) == 1
    with pytest.raises(UserError, match="has the splits train, test"):
        read("lab/pairs:none")
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "pairs").write_text(JSONL * 2)
    assert len(read("lab/pairs").records) == 4, "a local file comes first"


def test_without_the_packages_it_says_which(tmp_path, monkeypatch):
    for name, data, package in (("f", b"PAR1xxxxPAR1", "pyarrow"), ("z", b"\x28\xb5\x2f\xfd....", "pyarrow")):
        (tmp_path / name).write_bytes(data)
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(UserError, match=f"needs the package {package}"):
            read(tmp_path / name)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="needs the package datasets"):
        read("lab/pairs")


# Arrays, and what is broken

def test_an_array_is_read_by_the_megabyte(tmp_path, monkeypatch):
    monkeypatch.setattr(parsing, "CHUNK", 7)
    path = tmp_path / "f.json"
    for indent in (None, 0, 3):
        path.write_text(json.dumps(ROWS * 30, ensure_ascii=False, indent=indent))
        assert read(path).records == PAIRS * 30
    path.write_text(json.dumps(ROWS, ensure_ascii=False) + "\n[1]")
    with pytest.raises(UserError, match="more follows after the array"):
        read(path)
    path.write_text("[1, 23, \"x\"]")
    with pytest.raises(UserError, match="found int"):
        read(path)


def test_a_broken_row_of_an_array_is_the_only_one_lost():
    path = CASES / "files" / "array_broken_mid.json"
    loaded = read(path, skip_bad=True)
    assert [c.prompt.text for c in loaded.records] == ["Q1", "Q3", "Q4"] and sum(loaded.skipped.values()) == 1


@pytest.mark.parametrize("row", ['{"prompt": "x, "chosen": "a"}', '{"prompt": "x"', '{"prompt": }}'])
def test_what_cannot_be_counted_is_never_left_out(tmp_path, row):
    path = tmp_path / "f.json"
    good = json.dumps(ROWS[0])
    path.write_text(f"[{good},\n{row},\n{good},\n{good}]")
    try:
        loaded = read(path, skip_bad=True)
    except UserError as error:
        assert "--skip-bad" not in error.action
    else:
        assert len(loaded.records) + sum(loaded.skipped.values()) == 4


@pytest.mark.parametrize(("line", "words"), [
    ('{"prompt": "Q", "meta": {"s": Infinity}}', "Infinity is no JSON value"),
    ('{"prompt": "Q", "meta": {"s": 1e999}}', "too large"),
    ('{"prompt": "Q", "meta": {"s": 1, "s": 2}}', '"s" stands twice'),
    ('{"prompt": "Q", "meta": ' + '{"a":' * 60 + "1" + "}" * 60 + "}", "nested too deeply"),
    ('{"prompt": "Q", "meta": {"n": ' + "9" * 5000 + "}}", "not valid JSON|broken")])
def test_values_that_are_none(tmp_path, line, words):
    for text in (line + "\n", f"[{line}]"):
        (tmp_path / "f.json").write_text(text)
        with pytest.raises(UserError, match=words):
            read(tmp_path / "f.json")


BOMBS = {"line": (b'{"prompt": "', b'"}\n'), "array": (b'[{"prompt": "', b'"}]'),
         "spaces": (b"", b""), "csv": (b"prompt,chosen\n", b"")}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_stays_small_in_memory(tmp_path, name):
    """In a process of its own with 500 MB of address space, the interpreter included; the file unpacks to 400 MB in one row."""
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(BOMBS[name][0])
        for _ in range(400):
            file.write(b" " * (1 << 20))
        file.write(BOMBS[name][1])
    code = ("import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (500 << 20,) * 2)\n"
            "from harken.core.errors import UserError\nfrom harken.store.files import Reader\n"
            "try:\n    for _ in Reader(sys.argv[1]): pass\n"
            "except UserError as error: print('UserError', error)")
    found = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
    assert found.stdout.startswith("UserError"), found.stderr[-500:]
    assert "longer than 16 MB" in found.stdout and "micro-batch" not in found.stdout


def test_a_line_and_a_stream_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(parsing, "LINE", 1000)
    monkeypatch.setattr(tables, "LINE", 1000)
    monkeypatch.setattr(parsing, "CHUNK", 100)
    path = tmp_path / "f.gz"
    for text, words in (('{"prompt": "' + "x" * 2000 + '"}\n', "longer than"),
                        ('[{"prompt": "' + "x" * 2000 + '"}]', "longer than"),
                        ("prompt,chosen,rejected\nQ,a," + "x" * 2000, "longer than|larger than")):
        path.write_bytes(gzip.compress(text.encode()))
        with pytest.raises(UserError, match=words) as error:
            read(path, skip_bad=True)
        assert "--skip-bad" not in error.value.action
    path.write_bytes(gzip.compress(JSONL.encode() * 100))
    with pytest.raises(UserError, match="holds more than 0 MB once unpacked"):
        read(path, unpacked_limit=1000)
    assert len(read(path, unpacked_limit=1 << 20).records) == 200


# The studio's cases, and rows as they are

@pytest.mark.parametrize("name", ["bom", "crlf", "line_separator", "array_pretty.json", "latin1", "utf16", "nul", "surrogate",
                                  "hostile", "multi_turn", "arena_pairs", "plain.csv", "excel_bom.csv", "chat_parts",
                                  "chat_tools"])
def test_answers_without_a_verdict_are_refused_for_what_they_are(name):
    with pytest.raises(UserError, match=r'"ranks" must be|without a verdict') as error:
        read(CASES / "studio" / (name if "." in name else f"{name}.jsonl"))
    assert "UTF" not in error.value.fact and "JSON" not in error.value.fact
    rows = list(read_rows(CASES / "studio" / (name if "." in name else f"{name}.jsonl")))
    assert rows and all("prompt" in row for _, row in rows)


def test_rows_of_a_dialogue_in_the_studios_cases():
    assert read(CASES / "studio" / "hh_dialogue.jsonl").records[0].options == ("See you", "Go")


def test_progress_and_streaming(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text(JSONL * 600)
    heard = []
    reader = Reader(path, progress=lambda done, size: heard.append((done, size)))
    first = next(iter(reader))
    assert first == PAIRS[0] and not heard
    assert len(list(Reader(path, progress=lambda done, size: heard.append((done, size))))) == 1200
    assert heard[-1][1] == path.stat().st_size


def test_fields_and_comparisons_through_the_short_readers(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text('{"q": "Q", "yes": "a", "no": "b", "note": 1}\n')
    loaded = read_comparisons(path, fields={"prompt": "q", "chosen": "yes", "rejected": "no"})
    assert loaded.records == [Choice(Prompt.of("Q"), ("a", "b"), (1, 2))] and "note (1)" in loaded.describe()
    path.write_text('{"prompt": "P", "q": "Q", "chosen": "a", "rejected": "b"}\n')
    with pytest.raises(UserError, match='has a field "prompt" beside "q"'):
        read_comparisons(path, fields={"prompt": "q"})
    assert read_comparisons(path, fields={"prompt": "q"}, ignore=["prompt"]).records[0].prompt.text == "Q"
