"""Run directories: atomic, locked, exact to resume, and nothing half-written when something fails."""

import errno
import json
import multiprocessing
import os
import resource
import select
import time

import pytest

from harken.core.errors import UserError
from harken.core.files import read_json, read_jsonl, write_json
from harken.core.progress import progress
from harken.core.run import Run
from harken.core.seeds import derive_seed

CONFIG = {"command": "train x", "epochs": 1}


def opened(path, config=CONFIG, lineage=None, **options):
    return Run.open(path, config, {"data": "h"} if lineage is None else lineage, checkpoint_seconds=0.0, **options)


def save_text(text):
    return lambda folder: (folder / "state.pt").write_text(text)


def rows(path, name="metrics.jsonl"):
    return [r["step"] for r in read_jsonl(path / name)]


def test_a_run_leaves_its_record(tmp_path):
    with opened(tmp_path / "r") as run:
        run.log(1, loss=2.0)
        run.note("one dropped")
        run.finish({"steps": 1}, save_text("w"))
    assert read_json(tmp_path / "r" / "config.json") == CONFIG
    assert read_json(tmp_path / "r" / "lineage.json")["data"] == "h"
    assert read_json(tmp_path / "r" / "result.json") == {"steps": 1, "notes": ["one dropped"]}
    assert (tmp_path / "r" / "model" / "state.pt").read_text() == "w"


def test_write_json_keeps_the_old_file_when_it_fails(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert read_json(tmp_path / "a.json") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(("content", "message"),
                         [(b'{"a', "damaged"), (b"\xff\x00", "damaged"), (b"[1]", "holds a list"), (b"", "damaged")])
def test_read_json_says_what_is_wrong(tmp_path, content, message):
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_json(tmp_path / "c.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path / "missing.json")


def test_a_torn_last_row_is_left_out(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(b'{"step": 1}\n5\n{"step": 2}\n{"ste')
    assert rows(tmp_path, "m.jsonl") == [1, 2]
    assert read_jsonl(tmp_path / "none.jsonl") == []


# --- checkpoints and resuming ------------------------------------------------------------------------

def test_resume_cuts_the_logs_back_to_the_checkpoint(tmp_path):
    with opened(tmp_path / "r") as run:
        run.log(0, heldout=1.0)
        for step in (1, 2):
            run.log(step, loss=step)
            run.log_samples(step, [{"text": "é\u2028x"}])
            run.checkpoint(step, save_text(f"after {step}"))
        run.log(2, heldout=0.5)  # after the checkpoint, though of its step
        run.log(3, loss=3)
        run.log_samples(3, [{"text": "lost"}])
        with (run.path / "metrics.jsonl").open("a") as f:
            f.write('{"step": 4, "lo')
    with opened(tmp_path / "r") as run:
        step, folder = run.resume()
        assert (step, (folder / "state.pt").read_text()) == (2, "after 2")
        assert rows(run.path) == [0, 1, 2]
        assert rows(run.path, "samples.jsonl") == [1, 2]
        assert [p.name for p in folder.parent.iterdir()] == ["step-000002"]
        run.log(3, loss=3)
        assert rows(run.path) == [0, 1, 2, 3]


def test_without_a_checkpoint_the_logs_start_afresh(tmp_path):
    with opened(tmp_path / "r") as run:
        run.log(0, heldout=1.0)
        run.log(1, loss=1)
    with opened(tmp_path / "r") as run:
        assert run.resume() is None
        assert rows(run.path) == []


def test_torn_and_damaged_checkpoints_are_not_used(tmp_path):
    with opened(tmp_path / "r") as run:
        run.checkpoint(1, save_text("good"))
        folder = run.path / "checkpoints"
        (folder / ".step-000002.tmp").mkdir()
        (folder / "step-000003").mkdir()  # without a manifest
        (folder / "step-000003" / "state.pt").write_text("half")
        (folder / "step-000004").mkdir()  # shorter than it was
        (folder / "step-000004" / "state.pt").write_text("")
        write_json(folder / "step-000004" / "manifest.json", {"files": {"state.pt": 9}, "logs": {}})
        (folder / "step-foreign").mkdir()
        assert run.latest_checkpoint() == (1, folder / "step-000001")
        assert run.resume()[0] == 1
        assert [p.name for p in folder.iterdir()] == ["step-000001"]


def test_checkpoints_are_ordered_by_number(tmp_path):
    with opened(tmp_path / "r") as run:
        run.checkpoint(999_999, save_text("a"))
        run.checkpoint(1_000_000, save_text("b"))
        assert run.latest_checkpoint()[0] == 1_000_000


def test_a_checkpoint_is_written_when_due(tmp_path):
    with opened(tmp_path / "r") as run:
        run.checkpoint_seconds = 1000.0
        assert not run.checkpoint(1, save_text("a"))
        assert run.checkpoint(2, save_text("b"), force=True)
        assert [p.name for p in (run.path / "checkpoints").iterdir()] == ["step-000002"]


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Disk quota exceeded"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),  # torch.save
    Exception("Error while serializing: I/O error: No space left on device (os error 28)"),  # safetensors
])
def test_full_disk_keeps_the_checkpoint_before(tmp_path, error):
    def fail(folder):
        (folder / "state.pt").write_text("half")
        raise error

    with opened(tmp_path / "r") as run:
        run.checkpoint(1, save_text("good"))
        with pytest.raises(UserError, match="is the disk full"):
            run.checkpoint(2, fail)
        assert run.latest_checkpoint()[0] == 1
        with pytest.raises(UserError, match="is the disk full"):
            run.finish({}, fail)
        assert {p.name for p in run.path.iterdir()} == {".lock", "config.json", "lineage.json", "checkpoints"}
        assert [p.name for p in (run.path / "checkpoints").iterdir()] == ["step-000001"]


def test_a_mistake_in_saving_is_not_called_a_full_disk(tmp_path):
    def fail(folder):
        raise RuntimeError("our own mistake")

    with pytest.raises(RuntimeError, match="our own mistake"), opened(tmp_path / "r") as run:
        run.checkpoint(1, fail)
    assert not (tmp_path / "r").exists()


def _log_without_room(path, queue):
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
    run = opened(path)
    run.log(1, loss=1.0)
    run.checkpoint(1, save_text("good"))
    try:
        for step in range(2, 1000):
            run.log(step, loss=1.0)
    except UserError as error:
        queue.put(str(error))
    run._lock_file.close()


def test_a_log_that_cannot_grow_is_one_message_and_resumes(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_log_without_room, args=(tmp_path / "r", queue))
    process.start()
    assert "metrics.jsonl could not be written: File too large" in queue.get(timeout=20)
    process.join()
    with opened(tmp_path / "r") as run:
        assert run.resume()[0] == 1
        assert rows(run.path) == [1]


# --- opening -----------------------------------------------------------------------------------------

def test_another_run_is_refused_and_stays(tmp_path):
    with opened(tmp_path / "r") as run:
        run.log(1, loss=1.0)
    before = {p.name: p.read_bytes() for p in (tmp_path / "r").iterdir()}
    with pytest.raises(UserError, match="epochs: 1 there, 2 now"):
        opened(tmp_path / "r", {**CONFIG, "epochs": 2})
    with pytest.raises(UserError, match="data has changed"):
        opened(tmp_path / "r", lineage={"data": "other"})
    with pytest.raises(UserError, match="of harken train x, not of harken eval y"):
        opened(tmp_path / "r", {"command": "eval y"})
    assert {p.name: p.read_bytes() for p in (tmp_path / "r").iterdir()} == before


def test_an_evaluation_with_answers_is_work(tmp_path):
    """Answers sampled at other settings must not be taken for these."""
    with opened(tmp_path / "r") as run:
        run.rewrite("samples.jsonl", [{"step": 0}])
    with pytest.raises(UserError, match="another run"):
        opened(tmp_path / "r", {**CONFIG, "epochs": 2})


def test_settings_may_change_before_there_is_work(tmp_path):
    opened(tmp_path / "r").__exit__(None)
    with opened(tmp_path / "r", {**CONFIG, "epochs": 2}):
        assert read_json(tmp_path / "r" / "config.json")["epochs"] == 2


def test_out_and_checkpoint_seconds_may_change(tmp_path):
    with opened(tmp_path / "r", {**CONFIG, "out": "r", "checkpoint_seconds": 1}) as run:
        run.log(1, loss=1.0)
    opened(tmp_path / "r", {**CONFIG, "out": "./r", "checkpoint_seconds": 9}).__exit__(None)


def test_a_place_that_is_no_run_is_refused_and_stays(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    for out, message in (("file", "is a file"), ("full", "holds no run"), ("file/r", "cannot be written: Not a directory")):
        with pytest.raises(UserError, match=message):
            opened(tmp_path / out)
    with pytest.raises(UserError, match="No run directory"):
        opened("")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["file", "full", "full/thesis.tex"]


def test_killed_as_it_began_is_no_obstacle(tmp_path):
    (tmp_path / "r").mkdir()
    for name in (".lock", ".config.json.7.tmp", "lineage.json"):
        (tmp_path / "r" / name).write_text("{")
    opened(tmp_path / "r").__exit__(None)
    assert {p.name for p in (tmp_path / "r").iterdir()} == {".lock", "config.json", "lineage.json"}


def test_a_run_that_came_to_nothing_leaves_nothing(tmp_path):
    with pytest.raises(UserError), opened(tmp_path / "new"):
        raise UserError("no data")
    assert not (tmp_path / "new").exists()
    (tmp_path / "made").mkdir()
    with pytest.raises(UserError), opened(tmp_path / "made"):
        raise UserError("no data")
    assert (tmp_path / "made").is_dir()
    with pytest.raises(UserError), opened(tmp_path / "worked") as run:
        run.log(1, loss=1.0)
        raise UserError("later")
    assert (tmp_path / "worked" / "metrics.jsonl").exists()


def _try_to_open(path, queue):
    try:
        opened(path)
        queue.put("opened")
    except UserError as error:
        queue.put(str(error))


def test_two_processes_cannot_write_one_run(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with opened(tmp_path / "r"):
        process = context.Process(target=_try_to_open, args=(tmp_path / "r", queue))
        process.start()
        assert "is being written by another process" in queue.get(timeout=30)
        process.join()
    opened(tmp_path / "r").__exit__(None)


def test_a_finished_run_killed_before_its_last_line_is_tidied(tmp_path):
    with opened(tmp_path / "r") as run:
        run.checkpoint(1, save_text("a"))
        write_json(run.path / "result.json", {})
    with opened(tmp_path / "r") as run:
        assert run.done
    assert not (tmp_path / "r" / "checkpoints").exists()


def test_rewrite_replaces_a_log_whole(tmp_path):
    with opened(tmp_path / "r") as run:
        run.log_samples(1, [{"a": 1}, {"a": 2}])
        run.rewrite("samples.jsonl", [{"a": 3}])
        assert read_jsonl(run.path / "samples.jsonl") == [{"a": 3}]
        run.rewrite("samples.jsonl", [])
        assert (run.path / "samples.jsonl").read_bytes() == b""
        assert not list(run.path.glob(".*.tmp"))


def test_seconds_go_on_after_a_stop(tmp_path):
    with opened(tmp_path / "r") as run:
        run._append("metrics.jsonl", [{"step": 1, "seconds": 100.0}])
        run.checkpoint(1, save_text("a"))
    with opened(tmp_path / "r") as run:
        run.resume()
        run.log(2, loss=1.0)
        assert read_jsonl(run.path / "metrics.jsonl")[-1]["seconds"] >= 100.0


def test_seeds_are_a_function_of_their_parts():
    assert derive_seed(0, "rollout", 1) == derive_seed(0, "rollout", 1)
    assert len({derive_seed(0, "a", 1), derive_seed(0, "a", 2), derive_seed(1, "a", 1), derive_seed("0", "a1")}) == 4
    assert 0 <= derive_seed("x") < 2**63


def test_progress_is_quiet_off_a_terminal(tmp_path, capfd):
    with opened(tmp_path / "r") as run:
        assert list(run.track(2, 5, "steps")) == [2, 3, 4]
    assert capfd.readouterr().err == ""


def test_metrics_are_plain_json_lines(tmp_path):
    with opened(tmp_path / "r") as run:
        run.log(1, loss=0.5)
        line = (run.path / "metrics.jsonl").read_text()
    assert line.endswith("\n")
    assert json.loads(line)["loss"] == 0.5
    assert os.listdir(tmp_path) == ["r"]  # noqa: PTH208


def test_a_bar_comes_for_long_work_only_and_goes_with_it(monkeypatch):
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as screen:
        monkeypatch.setattr("sys.stderr", screen)
        monkeypatch.setenv("TERM", "xterm")
        with progress("quick", 1, after=60):
            pass
        with progress("long", 2, after=0.01) as advance, progress("inside", 1, after=0.01):
            advance(1)
            time.sleep(0.3)
        screen.flush()
        said = b""
        while select.select([ours], [], [], 0.1)[0]:  # a terminal gives what it has in parts
            said += os.read(ours, 1 << 16)
    os.close(ours)
    assert b"long" in said and b"1/2" in said and b"quick" not in said and b"inside" not in said
    assert said.rstrip().endswith(b"\x1b[2K")  # the line is wiped


def test_half_an_emoji_is_kept(tmp_path):
    row = {"text": "x \ud83d", "more": ["\udc00"]}
    write_json(tmp_path / "r.json", row)
    with Run.open(tmp_path / "run", {"method": "sft"}, {}, quiet=True) as run:
        run.log_samples(1, [row])
    assert read_json(tmp_path / "r.json") == row and read_jsonl(tmp_path / "run" / "samples.jsonl")[0]["text"] == row["text"]
