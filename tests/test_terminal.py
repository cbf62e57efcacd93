"""What people wrote is shown on a terminal and not obeyed by it."""

import functools
import io
import json
import sys

import pytest
from rich.console import Console

from harken.cli.main import Parser, main
from harken.core.records import Choice, Prompt
from harken.core.terminal import one_line, plain_output, visible
from harken.labelers.groups.disagreement import fit_disagreement
from harken.store.files import write_jsonl

HOSTILE = "\x1b[2J\x9b31m\x7f\r\u202ebo"


def test_codes_are_written_out_and_text_of_any_script_stays():
    assert visible(HOSTILE) == r"\u001b[2J\u009b31m\u007f\u000d\u202ebo"
    plain = "tab\tand\nnewline, عمر שלום, 👩‍🚀, \u200e"
    assert visible(plain) == plain and one_line("a\nb\tc") == r"a\nb\tc"
    assert json.loads(visible(json.dumps(HOSTILE, ensure_ascii=False))) == HOSTILE


def test_print_is_plain_and_what_rich_draws_passes(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr("sys.stdout", screen)
    with plain_output():
        print(HOSTILE)
        Console(force_terminal=True, color_system="standard").print("x", style="red")
    assert sys.stdout is screen
    assert screen.getvalue() == visible(HOSTILE) + "\n" + "\x1b[31mx\x1b[0m\n"


def test_the_colours_of_help_pass(capsys):
    with plain_output():
        Parser("harken", description="\x1b[1mbold\x1b[0m").print_help()
    assert "\x1b[1mbold\x1b[0m" in capsys.readouterr().out


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    file = tmp_path_factory.mktemp("hostile") / "said.jsonl"
    write_jsonl(file, [Choice(Prompt.of("p"), (f"x{HOSTILE}", "y"), (1 + i % 2, 2 - i % 2), f"{HOSTILE}{i % 6}\nforged",
                              {"age": HOSTILE + "ab"[i % 2]}) for i in range(60)])
    return file


@pytest.mark.parametrize("command", [["labelers"], ["agreement"], ["agreement", "--json"],
                                     ["disagree", "--group-by", "age", "--permutations", "19"],
                                     ["disagree", "--most", "1"], ["disagree", "--group-by", HOSTILE]])
def test_no_command_lets_a_name_write_to_the_terminal(said, command, capsys, monkeypatch):
    monkeypatch.setattr("harken.labelers.groups.scores.WARM_UP_SWEEPS", 1)
    quick = functools.partial(fit_disagreement, draws=8, folds=2)
    monkeypatch.setattr("harken.labelers.groups.disagreement.fit_disagreement", quick)
    status = main([command[0], str(said), *command[1:]])
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert status in (0, 2) and text == visible(text) and not any(line.startswith("forged") for line in text.splitlines())
    if command[0] != "disagree" or status == 2:
        assert r"\u001b[2J" in text or r"\x1b[2J" in text
    if "--json" in command:
        assert HOSTILE in json.dumps(json.loads(shown.out), ensure_ascii=False).replace("\\u001b", "\x1b").replace("\\r", "\r")


def test_a_file_named_like_markup_is_read_under_a_bar(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("harken.cli.data.QUIET_SECONDS", -1.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    folder = tmp_path / "["
    folder.mkdir()
    write_jsonl(folder / "b].jsonl", [Prompt.of(f"p{i}") for i in range(300)])
    assert main(["import", str(folder / "b].jsonl"), "--db", str(tmp_path / "f.db")]) == 0
    assert "300 prompts" in capsys.readouterr().out
