"""Tables as spreadsheets and pandas write them, and files that are none: right, or refused with what they are."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import tarfile
import zipfile

import pytest

from harken.core.errors import UserError
from harken.core.records import Choice, Prompt
from harken.store.files import Reader, read

PAIR = Choice(Prompt.of("Name a river."), ("The Nile, of course", "No"), (1, 2))
CELLS = ["Name a river.", "The Nile, of course", "No"]
NAMES = ["prompt", "chosen", "rejected"]


def table(tmp_path, text):
    path = tmp_path / "f.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", [
    ',prompt,chosen,rejected\n0,Name a river.,"The Nile, of course",No\n',
    'prompt,chosen,rejected,,\nName a river.,"The Nile, of course",No,,\n',
    "sep=;\nprompt;chosen;rejected\nName a river.;The Nile, of course;No\n",
    'prompt, chosen, rejected\nName a river., "The Nile, of course", No\n',
    ';prompt;chosen;rejected\r\n7;Name a river.;The Nile, of course;No\r\n',
], ids=["pandas", "empty columns", "sep", "blanks", "pandas, semicolons"])
def test_tables_as_programs_write_them(tmp_path, text):
    assert read(table(tmp_path, text)).records == [PAIR]


@pytest.mark.parametrize(("text", "words"), [
    (",prompt,completion\nann,a,b\n", "does not number the rows"),
    (",prompt,completion\n1,a,b\n1,c,d\n", "does not number the rows"),
    ("prompt,chosen,rejected,\na,b,c,rejected\n", "4 cells in a table of 3"),
    ("prompt,,chosen,rejected\na,x,b,c\n", "without a name"),
    ("prompt,chosen,rejected\ra,b,c\r", "carriage return"),
])
def test_a_column_without_a_name_may_hold_a_verdict(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        read(table(tmp_path, text))


def test_decimal_commas_where_semicolons_part_the_columns(tmp_path):
    path = table(tmp_path, "prompt;completion;rating\na b;1,5;4,5\nc d;x;3\n")
    assert [r.to_json() for r in read(path).records] == [{"prompt": "a b", "completion": "1,5", "score": 4.5},
                                                         {"prompt": "c d", "completion": "x", "score": 3}]


def workbook(tmp_path, *rows):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(tmp_path / "f.xlsx")
    return tmp_path / "f.xlsx"


def test_excel_that_numbers_rows_makes_dates_or_fails(tmp_path):
    assert read(workbook(tmp_path, [None, *NAMES], [0, *CELLS])).records == [PAIR]
    day = datetime.datetime(2024, 5, 4)
    assert read(workbook(tmp_path, [*NAMES, "when"], [*CELLS, day])).unread == {"when": 1}
    for cell, words in ((day, "made a date"), ("#N/A", "could not compute"), ("#REF!", "could not compute")):
        with pytest.raises(UserError, match=words):
            read(workbook(tmp_path, NAMES, [*CELLS[:2], cell]))


def test_parquet_of_values_that_json_does_not_have(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "f.parquet"
    meta = {"day": datetime.date(2024, 1, 2), "price": decimal.Decimal("1.5"), "raw": b"xx",
            "odd": b"\xff", "nan": [float("nan")]}
    columns = {"prompt": ["a b"], "completion": [b"c"], "rating": [decimal.Decimal("4.50")], "meta": [meta],
               "group": arrow.array([[("age", "30")]], arrow.map_(arrow.string(), arrow.string()))}
    parquet.write_table(arrow.table(columns), path)
    (row,) = (record.to_json() for record in read(path).records)
    assert json.loads(json.dumps(row)) == {
        "prompt": "a b", "completion": "c", "score": 4.5, "group": {"age": "30"},
        "meta": {"day": "2024-01-02", "price": 1.5, "raw": "xx", "odd": "/w==", "nan": [None]}}
    parquet.write_table(arrow.Table.from_arrays([arrow.array([cell]) for cell in CELLS], ["prompt", "chosen", "chosen"]), path)
    with pytest.raises(UserError, match="two columns of the name 'chosen'"):
        read(path)


def zipped(**files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def test_what_stands_beside_the_data_in_an_archive(tmp_path):
    path = tmp_path / "f.zip"
    row = json.dumps(dict(zip(NAMES, CELLS))) + "\n"
    path.write_bytes(zipped(**{"data/a.jsonl": row, "data/.DS_Store": "x", "README.md": "hi", "data/LICENSE": "MIT"}))
    assert read(path).records == [PAIR]


@pytest.mark.parametrize(("name", "data", "words"), [
    ("f.docx", zipped(**{"word/document.xml": "<x/>"}), "Word"), ("f.npy", b"\x93NUMPY\x01\x00", "NumPy"),
    ("f.ods", zipped(**{"mimetype": "a", "content.xml": "<x/>"}), "OpenDocument"), ("f.tar", "tar", "tar archive"),
    ("f.txt", b"Tell me a joke.\nName a river.\n", "text, not a row"), ("f.json", b"{prompt: 'a'}", "not valid JSON"),
    ("f.csv", "prompt,completion\n日本,川\n".encode("shift-jis"), r"not UTF-8 text \(byte")])
def test_a_file_that_is_no_feedback_is_called_what_it_is(tmp_path, name, data, words):
    path = tmp_path / name
    if data == "tar":
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo("a.jsonl"))
    else:
        path.write_bytes(data)
    with pytest.raises(UserError, match=words):
        list(Reader(path))
