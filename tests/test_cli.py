"""The command as a stranger meets it: every mistake is one message with what to do, status 2, and nothing is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

pytest.importorskip("torch")
from harken.cli.main import main
from harken.core.files import read_json, read_jsonl
from harken.launch.find import method_names

PROMPTS = [f"Say {a} {b}." for a in ("red", "blue", "old") for b in ("red", "blue", "old")]


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Files good and bad, and finished runs of every kind."""
    folder = tmp_path_factory.mktemp("shelf")
    write(folder / "d.jsonl", [{"prompt": p, "completion": p[4:-1]} for p in PROMPTS])
    write(folder / "p.jsonl", [{"prompt": p} for p in PROMPTS])
    write(folder / "c.jsonl", [{"prompt": p, "completions": [p[4:-1], "no", "yes"], "ranks": [1, 2, 2], "labeler": f"l{i % 6}"}
                               for i, p in enumerate(PROMPTS * 2)])
    write(folder / "ties.jsonl", [{"prompt": p, "completions": ["a", "b"], "ranks": [1, 1]} for p in PROMPTS])
    write(folder / "ranks.jsonl", [{"prompt": "x", "completions": ["a", "b"], "ranks": [1, 2, 3]}])
    write(folder / "one_option.jsonl", [{"prompt": "x", "completions": ["a"], "ranks": [1]}])
    write(folder / "no_answer.jsonl", [{"prompt": "x", "completion": ""}])
    write(folder / "one.jsonl", [{"prompt": "x", "completions": ["a", "b"], "ranks": [1, 2]}])
    write(folder / "broken_d.jsonl", [{"prompt": "x\ud800", "completion": "y"}] * 3)
    write(folder / "broken_c.jsonl", [{"prompt": "x", "completions": ["a\ud83d", "b"], "ranks": [1, 2]}] * 3)
    write(folder / "long_p.jsonl", [{"prompt": "short"}, {"prompt": "a " * 400}])
    write(folder / "long_c.jsonl", [{"prompt": "a " * 400, "completions": ["b", "c"], "ranks": [1, 2]}])
    write(folder / "odd_d.jsonl", [{"prompt": f"👩‍👩‍👧 {i} é\u202e\0", "completion": "日本語 🎉\0 "} for i in range(5)])
    (folder / "crlf.jsonl").write_bytes((folder / "d.jsonl").read_bytes().replace(b"\n", b"\r\n"))
    (folder / "cut.jsonl").write_bytes((folder / "d.jsonl").read_bytes()[:-9])
    (folder / "binary.jsonl").write_bytes(bytes(range(128, 256)) * 9)
    (folder / "empty.jsonl").write_text("")
    (folder / "text.txt").write_text("A fine day.\n\nThe sea is blue.\n")
    (folder / "blank.txt").write_text(" \n\n \n")
    (folder / "latin.txt").write_bytes("é".encode("latin-1"))
    (folder / "fake.gguf").write_text("no")
    (folder / "list.json").write_text("[1]")
    (folder / "typed.json").write_text('{"epochs": "two", "data": "d.jsonl", "model": "toy"}')
    (folder / "unknown.json").write_text('{"epoks": 2}')
    (folder / "full").mkdir()
    (folder / "full" / "thesis.txt").write_text("mine")
    here = os.getcwd()  # noqa: PTH109
    os.chdir(folder)
    try:
        for command in ("train sft --model toy --lora-rank 4 --data d.jsonl --out runs/sft --epochs 1",
                        "train reward_model --model runs/sft --lora-rank 4 --data c.jsonl --out runs/rm",
                        WIN.replace("--out out", "--out runs/eval"),
                        "import c.jsonl --db f.db"):
            assert main(command.split()) == 0
        shutil.copytree("runs/rm", "runs/unfinished")
        os.unlink("runs/unfinished/result.json")  # noqa: PTH108
    finally:
        os.chdir(here)
    return folder


def contents(folder):
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in ("f.db-shm", "f.db-wal")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture
def mistake(shelf, monkeypatch, capsys):
    """Runs a command that must fail: status 2, one message, and not a byte of the shelf changed."""
    def run(command, message):
        monkeypatch.chdir(shelf)
        before = contents(shelf)
        assert main(command if isinstance(command, list) else command.split()) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("harken: ") == 1, said.err
        fact, _, action = said.err[said.err.index("harken: "):].rstrip("\n").partition("\n")
        assert message in fact, said.err
        assert action.startswith("  "), said.err
        assert len(action.splitlines()) == 1, said.err
        assert contents(shelf) == before
    return run


SFT = "train sft --model toy --lora-rank 0 --data d.jsonl --out out --epochs 1 "
RM = "train reward_model --model toy --lora-rank 0 --data c.jsonl --out out "
RLOO = "train rloo --model toy --lora-rank 0 --data p.jsonl --reward runs/rm --out out --max-tokens 4 "
WIN = "eval win_rate --model runs/sft --against toy --prompts p.jsonl --judge runs/rm --out out --max-tokens 4 "
TAX = "eval capability --model toy --against toy --data text.txt --out out "
SAMPLE = "sample --model toy --prompts p.jsonl --out out.jsonl --max-tokens 4 "
SCORE = "score --reward runs/rm --data c.jsonl --out out.jsonl "

MISTAKES = [
    # commands
    ("nonsense", "COMMAND: there is no 'nonsense'"), ("train nonsense", "There is no method 'nonsense'"),
    ("train ../x", "There is no method"), ("train json", "is not a method"), ("train my_lab.idea", "cannot be imported"),
    ("train --model toy", "The method comes first"), ("eval nonsense", "There is no evaluation"), ("report", "required: runs"),
    (SFT + "--bogus 1", "Unrecognized arguments: --bogus"), (SFT + "--seed x", "--seed: invalid int value: 'x'"),
    ("eval win_rate --model toy", "required: --prompts, --out"),
    # data
    (SFT + "--data missing.jsonl", "no file missing.jsonl"), (SFT + "--data empty.jsonl", "is empty"),
    (SFT + "--data cut.jsonl", "line 9: the last line is cut short"), (SFT + "--data binary.jsonl", "not UTF-8"),
    (SFT + "--data c.jsonl", "comparisons in a file of demonstrations"), (SFT + "--data full", "no file full"),
    (SFT + "--data text.txt", "text, not a row"), (SFT + "--data f.db", "SQLite database"),
    (SFT + "--data no_answer.jsonl", '"completion" is empty'), (SFT + "--data broken_d.jsonl", "broken Unicode"),
    (RM + "--data ranks.jsonl", '"ranks" has 3 entries for 2'), (RM + "--data one_option.jsonl", "at least 2 entries"),
    (RM + "--data broken_c.jsonl", "broken Unicode"), (RM + "--data ties.jsonl --ties drop", "nothing left"),
    (RM + "--data long_c.jsonl", "nothing left"), (RM + "--demonstrations missing", "no file missing"),
    (RM + "--demonstrations c.jsonl", "comparisons in a file of demonstrations"),
    (RM + "--demonstrations d.jsonl --overlong truncate --max-length 5", "No demonstration"),
    (RLOO + "--data empty.jsonl", "is empty"), (RLOO + "--max-tokens 2000", "nothing left"),
    # settings
    *((SFT + option, message) for option, message in [
        ("--dtype float16", "--dtype 'float16' is unknown"), ("--schedule cosin", "--schedule 'cosin' is unknown"),
        ("--overlong skip", "--overlong 'skip' is unknown"), ("--lora-rank -1", "--lora-rank -1 is out of range"),
        ("--learning-rate nan", "--learning-rate nan is out"), ("--learning-rate inf", "--learning-rate inf is out"),
        ("--learning-rate -1", "out of range"), ("--batch-size 0", "--batch-size 0 is out"), ("--epochs 0", "out of range"),
        ("--epochs nan", "out of range"), ("--holdout 2", "out of range"), ("--holdout 1", "nothing left"),
        ("--warmup nan", "out of range"), ("--max-length 1", "out of range"), ("--max-length 9 --overlong fail", "has 28 tokens"),
        ("--tokens-per-micro-batch 0", "out of range"), ("--weight-decay -1", "out of range"),
        ("--max-grad-norm nan", "out of range"), ("--checkpoint-seconds -1", "out of range")]),
    (RM + "--ties maybe", "--ties 'maybe' is unknown"), (RM + "--holdout-labelers nan", "out of range"),
    *((RLOO + option, message) for option, message in [
        ("--steps -1", "out of range"), ("--prompts-per-step 0", "out of range"), ("--completions-per-prompt 1", "at least 2"),
        ("--max-tokens 0", "out of range"), ("--temperature nan", "out of range"), ("--temperature 0", "temperature above 0"),
        ("--beta nan", "out of range"), ("--clip -1", "out of range")]),
    *((WIN + option, "out of range") for option in ("--n 0", "--max-tokens -1", "--temperature nan")),
    *((SAMPLE + option, "out of range") for option in ("--n 0", "--max-tokens 0", "--temperature nan", "--temperature -1",
                                                       "--top-p 0", "--top-p 2")),
    (TAX + "--max-length 0", "out of range"), (SCORE + "--dtype float16", "unknown"),
    # models and rewards
    *((SFT + f"--model {name}", message) for name, message in [
        ("runs/none", "no model at runs/none"), ("full", "folder without a model"), ("text.txt", "is a file, but not"),
        ("fake.gguf", "fake.gguf cannot be loaded"), ("runs/eval", "made no model"), ("runs/unfinished", "has not finished"),
        ("runs/rm/model", "inside of a run"), ("x" * 300, "File name too long")]),
    *((RLOO + f"--reward {name}", message) for name, message in [
        ("runs/none", "no reward model"), ("runs/sft", "without a reward head"), ("runs/unfinished", "has not finished"),
        ("runs/eval", "made no model"), ("text.txt", "no reward model")]),
    ("train rloo --model toy --data p.jsonl --out out", "No reward was given"),
    (SCORE + "--reward runs/sft", "without a reward head"), (WIN + "--judge none", "no reward model"),
    (WIN + "--against runs/eval", "made no model"), (SAMPLE + "--model runs/unfinished", "has not finished"),
    # where to write
    *((command + f"--out {out}", message) for command in (SFT, WIN) for out, message in [
        ("text.txt", "is a file"), ("full", "holds no run"), ("text.txt/x", "cannot be written"),
        ("runs/rm", "holds another run")]),
    (SFT.replace("--out out", ""), "No run directory"), ([*WIN.split(), "--out", ""], "No run directory"),
    *((command + f"--out {out}", message) for command in (SAMPLE, SCORE) for out, message in [
        ("full", "is not the name of a file"), ("none/x.jsonl", "no folder none"), (".", "is not the name of a file"),
        ("/dev/null", "not a file that can be replaced")]),
    (SAMPLE + "--out p.jsonl", "is the file that is read"), (SCORE + "--out c.jsonl", "is the file that is read"),
    ("report runs/sft --out full", "is a directory"), ("report runs/sft --out /dev/null", "not a file that can be replaced"),
    # prompts and documents
    (SAMPLE + "--prompts long_p.jsonl", "Prompt 2 has 808 tokens"), (WIN + "--prompts long_p.jsonl", "Prompt 2 has 808 tokens"),
    (SAMPLE + "--prompts broken_d.jsonl", "broken Unicode"), (WIN + "--prompts none", "no file 'none'"),
    ([*WIN.split(), "--prompts", ""], "no file ''"), (SAMPLE + "--prompts full", "full is a folder"),
    (TAX + "--data blank.txt", "holds no text"), (TAX + "--data latin.txt", "cannot be read as text"),
    # a run's config again
    ("train sft --out out --config none.json", "cannot be read"), ("train sft --out out --config cut.jsonl", "damaged"),
    ("train sft --out out --config list.json", "holds a list"), ("train sft --out out --config typed.json", "--epochs 'two'"),
    ("train sft --out out --config unknown.json", "unknown setting epoks"),
    ("train sft --out out --config runs/rm/config.json", "unknown setting demonstrations"),
    ("train sft --config runs/sft/config.json", "No run directory"),
    ("train sft --config runs/sft/config.json --out runs/sft --epochs 3", "epochs: 1.0 there, 3.0 now"),
    # the database and the report
    ("import none.jsonl --db f.db", "does not exist"), ("import c.jsonl --db text.txt", "is not a database"),
    ("import c.jsonl --as nonsense", "there is no 'nonsense'"),
    ("snapshot comparisons --db none.db --out s.jsonl", "no database none.db"),
    ("snapshot comparisons --db f.db --out s.txt", "does not end in .jsonl"),
    ("report full", "is not a run directory"), ("report none", "does not exist"),
]


@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=lambda x: (x if isinstance(x, str) else " ".join(x))[-50:])
def test_a_mistake_is_one_message(mistake, command, message):
    mistake(command, message)


def run(command):
    return main(command if isinstance(command, list) else command.split())


@pytest.fixture
def here(shelf, tmp_path, monkeypatch):
    """A copy of the shelf to work in."""
    shutil.copytree(shelf, tmp_path / "s")
    monkeypatch.chdir(tmp_path / "s")
    return tmp_path / "s"


@pytest.mark.parametrize("command", ["", "--help", "--version", "doctor", "train", "train --help", "eval", "eval --help",
                                     *(f"{c} --help" for c in ("import", "snapshot", "sample", "score", "report", "doctor",
                                                               "quickstart", "eval win_rate", "eval capability",
                                                               "train harken.methods.sft")),
                                     *(f"train {m} --help" for m in method_names())])
def test_help_is_given_and_is_no_error(capsys, command):
    assert run(command) == 0
    said = capsys.readouterr()
    assert len(said.out) > 10
    assert said.err == ""


def test_odd_but_good_input_works(here, capsys):
    for command in (SFT + "--data crlf.jsonl --out r1", SFT + "--data odd_d.jsonl --out r2", RM + "--data ties.jsonl --out r3",
                    RM + "--data one.jsonl --out r4 --holdout 0", RLOO + "--data odd_d.jsonl --out r5",
                    RLOO + "--data one.jsonl --reward gold --out r6", SAMPLE + "--prompts odd_d.jsonl --out s.jsonl",
                    SFT + "--max-length 2 --overlong truncate --out r7", RLOO + "--data long_p.jsonl --out r8"):
        assert run(command) == 0, capsys.readouterr().err
    assert "accuracy is not measured" in "".join(read_json(here / "r3" / "result.json")["notes"])
    assert read_json(here / "r8" / "result.json")["prompts"] == 1  # the other does not fit the context, and is counted
    assert "Dropped 1 of 2 prompts" in " ".join(read_json(here / "r8" / "result.json")["notes"])


def test_scores_that_are_missing_are_said(here, capsys):
    assert run(SCORE + "--data long_c.jsonl") == 0
    assert "No untied pair has both scores" in capsys.readouterr().out
    assert read_jsonl(here / "out.jsonl")[0]["scores"] == [None, None]
    assert run(SCORE + "--data ties.jsonl") == 0
    assert "Every ranking is a tie" in capsys.readouterr().out


def test_a_win_rate_without_scores_is_one_message(here, capsys, monkeypatch):
    class Silent:
        def score(self, prompts, completions):
            return [[None] * len(group) for group in completions]

    monkeypatch.setattr("harken.launch.evaluate.open_reward", lambda *a, **k: Silent())
    assert run(WIN) == 2
    assert "gave no scores to compare" in capsys.readouterr().err


def test_missing_scores_of_a_win_rate_are_noted(here, monkeypatch):
    class Half:
        def score(self, prompts, completions):
            return [[None if i == 0 else 1.0 for i, _ in enumerate(group)] if p else [1.0] * len(group)
                    for p, group in enumerate(completions)]

    monkeypatch.setattr("harken.launch.evaluate.open_reward", lambda *a, **k: Half())
    assert run(WIN) == 0
    assert "16 answers have no score" in "".join(read_json(here / "out" / "result.json")["notes"])  # 8 prompts, two models


def test_the_same_command_again_is_done_at_once(here, capsys):
    before = contents(here)
    for command in ("train sft --model toy --lora-rank 4 --data d.jsonl --out runs/sft --epochs 1",
                    "train sft --config runs/sft/config.json --out runs/sft"):
        assert run(command) == 0
        assert "finished; nothing to do" in capsys.readouterr().err
    assert contents(here) == before


def test_config_repeats_a_run(here):
    assert run("train sft --config runs/sft/config.json --out again") == 0
    name = "model/adapter_model.safetensors"
    assert (here / "again" / name).read_bytes() == (here / "runs" / "sft" / name).read_bytes()


def test_a_mistake_can_be_corrected_in_the_same_place(here):
    """What failed before any work was done does not block its own correction."""
    assert run(SFT + "--data cut.jsonl") == 2
    assert run(SFT + "--holdout 1") == 2
    assert run(SFT) == 0


def test_an_evaluation_of_other_settings_does_not_reuse_answers(here, capsys, monkeypatch):
    from harken.evals import win_rate
    with monkeypatch.context() as patch:
        patch.setattr(win_rate, "win_rate", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(WIN)
    assert len(read_jsonl(here / "out" / "samples.jsonl")) == len(PROMPTS)
    assert run(WIN + "--temperature 0.5") == 2
    assert "temperature: 1.0 there, 0.5 now" in capsys.readouterr().err
    assert run(WIN) == 0


@pytest.mark.slow
def test_without_the_train_extra_the_base_works_and_the_rest_says_how(here):
    """In a process of its own, where torch cannot be imported."""
    program = """if True:
        import contextlib, io, json, sys
        sys.modules["torch"] = None
        from harken.cli.main import main
        from harken.launch.find import method_names
        found = []
        for command in sys.argv[1:]:
            with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()):
                found.append((main(command.split()), err.getvalue()))
        print(json.dumps(found))"""
    want, work = (SFT, WIN, SAMPLE, SCORE), ("score --reward gold --data c.jsonl --out gold.jsonl", "import d.jsonl --db new.db",
                                             "report runs/sft --out r.html", "doctor")
    done = subprocess.run([sys.executable, "-c", program, *want, *work], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    for status, err in found[:len(want)]:
        assert (status, err.count("\n")) == (2, 2) and "pip install 'harken[train]'" in err, err
    assert [status for status, _ in found[len(want):]] == [0] * len(work), found


def test_a_method_of_ones_own(here, capsys, monkeypatch):
    (here / "mine.py").write_text('"""Mine."""\nfrom dataclasses import dataclass\nfrom harken.core.config import TrainConfig\n'
                                  "@dataclass(frozen=True)\nclass Config(TrainConfig):\n    beams: int = 2\n    tag: str = ''\n"
                                  "def train(config, learner, sampler, reward, run):\n    run.finish({'beams': config.beams})\n")
    monkeypatch.syspath_prepend(str(here))
    assert run("train mine --model toy --lora-rank 0 --data d.jsonl --out out --beams 3") == 0
    assert read_json(here / "out" / "result.json")["beams"] == 3
    assert run("train mine --model toy --data d.jsonl --out out --beams x") == 2
    assert "--beams: invalid int" in capsys.readouterr().err


def test_interrupted_is_said(here, capsys, monkeypatch):
    from harken.methods import sft

    def interrupted(*a):
        raise KeyboardInterrupt

    monkeypatch.setattr(sft, "train", interrupted)
    assert run(SFT) == 130
    assert "interrupted; the same command continues" in capsys.readouterr().err
    assert not (here / "out").exists()
    monkeypatch.setattr("harken.cli.labelers_report.run", interrupted)
    assert run("labelers c.jsonl") == 130
    assert "continues" not in capsys.readouterr().err


# --- real processes ----------------------------------------------------------------------------------

def process(*args, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": ""}
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job of a shell's background is started deaf to Ctrl-C
    return subprocess.Popen([sys.executable, "-m", "harken", *args], env=environment, text=True, stderr=subprocess.PIPE,
                            preexec_fn=heard, **{"stdout": subprocess.DEVNULL, **options})


@pytest.mark.parametrize("unbuffered", ["", pytest.param("1", marks=pytest.mark.slow)])
def test_a_closed_pipe_is_no_error(monkeypatch, unbuffered):
    """harken --help | true: nothing is said, not even by Python as it ends."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    read, write = os.pipe()
    os.close(read)
    found = process("train", stdout=write)
    os.close(write)
    assert found.communicate(timeout=60)[1] == ""
    assert found.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
def test_output_to_a_full_disk_is_one_message():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        found = process("train", stdout=full)
        said = found.communicate(timeout=60)[1]
    assert found.returncode == 2
    assert said.startswith("harken: The disk is full")
    assert "Traceback" not in said
    assert "Exception ignored" not in said


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("command", ["train", "eval"])
def test_stopped_for_real_it_continues(here, stop, command):
    """The answers or weights after a stop are those of a run that was never stopped."""
    write(here / "many.jsonl", [{"prompt": f"Say {i}."} for i in range(400)])
    args = {"train": RLOO + "--data many.jsonl --reward gold --lora-rank 4 --checkpoint-seconds 0 --steps 30 --out",
            "eval": WIN + "--prompts many.jsonl --judge gold --max-tokens 16 --out"}[command].split()
    log = {"train": "metrics.jsonl", "eval": "samples.jsonl"}[command]
    assert run([*args, "whole"]) == 0
    found = process(*args, "cut")
    begun = {"train": "metrics.jsonl", "eval": "items.jsonl"}[command]
    while found.poll() is None and not (here / "cut" / begun).exists():
        time.sleep(0.01)
    time.sleep(0.2 if command == "train" else 0.0)
    found.send_signal(stop)
    said = found.communicate(timeout=60)[1]
    assert found.returncode == (130 if stop == signal.SIGINT else -signal.SIGKILL), said
    assert "Traceback" not in said
    assert not (here / "cut" / "result.json").exists()
    assert run([*args, "cut"]) == 0
    if command == "train":
        name = "model/adapter_model.safetensors"
        assert (here / "cut" / name).read_bytes() == (here / "whole" / name).read_bytes()
    strip = [{k: v for k, v in r.items() if k != "seconds"} for r in read_jsonl(here / "whole" / log)]
    assert [{k: v for k, v in r.items() if k != "seconds"} for r in read_jsonl(here / "cut" / log)] == strip


@pytest.mark.slow
def test_a_disk_that_fills_up_while_training(here):
    """A file size limit stands for the full disk: the model cannot be saved; with room the same command ends well."""
    limited = ["bash", "-c", 'ulimit -f 60; exec "$@"', "bash", sys.executable, "-m", "harken", *SFT.split()]
    found = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert found.returncode == 2, found.stderr
    assert "is the disk full" in found.stderr
    assert "Traceback" not in found.stderr
    assert not (here / "out" / "model").exists()
    assert not list(here.glob("out/**/.*.tmp"))
    assert run(SFT) == 0
