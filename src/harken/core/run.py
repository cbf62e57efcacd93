"""A run is a directory that can be killed at any moment and continued by the same command.

    config.json      resolved settings; the same settings continue the run, others are refused
    lineage.json     hashes of data, base model, reward run and code
    metrics.jsonl    one object a step            samples.jsonl   what the model wrote
    audits.jsonl     scores of held-out prompts   profile.json    where the time went, if asked
    items.jsonl      what an evaluation's models said, by weights and exact prompt
    checkpoints/     step-000120/, the newest complete one, with a manifest of what it holds
    model/           the result, written last     result.json     final figures: the run is done

Resuming is exact because every random draw is a function of (seed, purpose, step) and a
checkpoint is written only between steps: what was in flight is drawn again, identically (P22).
Of several processes the first writes; the others call the same methods and learn what it decides.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from harken.core import processes
from harken.core.errors import UserError
from harken.core.files import read_json, read_jsonl, write_json
from harken.core.locks import lock_file
from harken.core.progress import progress
from harken.core.protocols import FanOut, Watch
from harken.core.terminal import visible
from harken.core.version import PACKAGE, __version__

FREE_TO_CHANGE = frozenset({"out", "checkpoint_seconds", "shard", "profile", "report_to", "checkpoint_activations", "wait"})
NEW = {"field": "", "report_to": "", "eval_every": 0, "patience": 0, "template": "", "studio": "", "overlap": 1,
       "optimizer": "adamw", "quantize": "none", "max_staleness": 0, "rollouts": "", "rollouts_hand": 4, "rollouts_folder": "",
       "rollouts_sleep": False, "correction": "token_truncate", "correction_cap": 2.0}
"""Settings that runs of before did not have: their value there."""
LOGS = ("metrics.jsonl", "samples.jsonl", "audits.jsonl", "items.jsonl")
BEFORE = ("lineage.json", "inputs")
"""What may lie in a run's directory before it has begun: rows given in Python among them."""
WRITERS = ("inline_container", "os error")
"""Found in what torch.save and safetensors raise for a full disk: they hide the OSError they met."""


LENGTHS = ("steps", "epochs")
"""Settings of a run's length: raised, they make it go on."""


def not_longer(config: Mapping[str, Any], result: Mapping[str, Any]) -> str | None:
    """Why a run cannot be made longer exactly; None where it can: nothing it did depended on where it would end."""
    if config.get("schedule") != "constant" or config.get("warmup"):
        return "its learning rate was planned for the old length (only --schedule constant without --warmup can go on)"
    if config.get("select", "last") != "last":
        return "it chose among the weights at its old end (--select)"
    if "stopped" in result:
        return "a rule stopped it"
    return None


def code_version() -> str:
    """Package version, and the git commit when run from a checkout."""
    root = PACKAGE.parents[1]
    if (root / ".git").exists():
        out = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True)
        if out.returncode == 0:
            return f"{__version__}+{out.stdout.strip()}"
    return __version__


class Run:
    """An open run directory. Use `Run.open`, and as a context manager."""

    def __init__(self, path: Path, config: Mapping[str, Any], checkpoint_seconds: float, quiet: bool) -> None:
        self.path, self.config = path, dict(config)
        self.checkpoint_seconds = checkpoint_seconds
        self.quiet = quiet
        self.started = self.saved = time.monotonic()
        self.seconds_before = 0.0
        self.notes: list[str] = []
        self.watch: Watch | None = None
        self.ahead: Any = None  # what samples the next step meanwhile (loops/ahead.py)
        self.trackers: FanOut | None = None
        self.total: int | None = None
        self._fresh = False
        self._lock_file: IO[str] | None = None
        self.group = processes.group()

    @classmethod
    def open(cls, out: str | Path, config: Mapping[str, Any], lineage: Mapping[str, Any], *,
             checkpoint_seconds: float = 120.0, quiet: bool | None = None) -> Run:
        """Opens or continues the run at `out`. Raises `UserError` if it holds another run, or is in use."""
        path = Path(out)
        if not str(out):
            raise UserError("No run directory was given.", "Add --out runs/NAME.")
        run = cls(path, config, checkpoint_seconds, not sys.stderr.isatty() if quiet is None else quiet)
        if run.group.rank:
            run._follow(lineage)
            return run
        try:
            if path.exists() and not path.is_dir():
                raise UserError(f"{path} is a file.", "Choose another --out.")
            run._fresh = not path.exists()
            # A run killed as it began left a hidden file or lineage.json, and no config.json yet.
            foreign = path.is_dir() and any(p.name[0] != "." and p.name not in BEFORE for p in path.iterdir())
            if foreign and not (path / "config.json").exists():
                raise UserError(f"{path} is not empty and holds no run.", "Choose another --out.")
            path.mkdir(parents=True, exist_ok=True)
            run._lock()
            if run._has_work():
                run._refuse_other(lineage)
                if run.done:  # it may have been killed just before its last line
                    run._drop_checkpoints()
                last = read_jsonl(path / "metrics.jsonl")[-1:]
                run.seconds_before = last[0].get("seconds", 0.0) if last else 0.0
            else:
                for killed in path.glob(".*.tmp"):
                    killed.unlink(missing_ok=True)
                write_json(path / "lineage.json", {**lineage, "code": code_version(),
                                                   "created": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
                write_json(path / "config.json", run.config)
        except OSError as error:
            run._leave_nothing()
            raise UserError(f"The run directory {path} cannot be written: {error.strerror or error}.",
                            "Choose another --out, or make room.") from None
        run.group.agree((run.config, lineage))
        return run

    def _follow(self, lineage: Mapping[str, Any]) -> None:
        """Waits until the first process has opened the run; raises `UserError` if that sees other things than this one."""
        config, first = self.group.agree((self.config, lineage))
        other = [k for k in sorted(config) if config[k] != self.config.get(k)]
        other += [k for k in sorted(lineage) if first.get(k) != lineage[k]]
        if other or not (self.path / "config.json").is_file():
            what = other[0] if other else "run directory"
            raise UserError(f"Process {self.group.rank} finds another {what} than the first process.",
                            "All processes need the same command, and the same files under the same paths.")

    def _lock(self) -> None:
        lock = (self.path / ".lock").open("w")
        if not lock_file(lock):
            lock.close()
            raise UserError(f"{self.path} is being written by another process.",
                            "Wait for it to end, or choose another --out.")
        self._lock_file = lock

    def _has_work(self) -> bool:
        """Whether anything would be lost by starting over."""
        return self.done or self.latest_checkpoint() is not None or any((self.path / name).exists() for name in LOGS)

    def _leave_nothing(self) -> None:
        """Takes away what `open` made, if the run came to nothing: the directory was not there before."""
        if self._fresh and self.path.is_dir() and not self._has_work():
            shutil.rmtree(self.path, ignore_errors=True)

    def _refuse_other(self, lineage: Mapping[str, Any]) -> None:
        known = read_json(self.path / "config.json")
        if known.get("command") != self.config.get("command"):
            raise UserError(f"{self.path} holds another run: of harken {known.get('command')}, not of harken "
                            f"{self.config.get('command')}.", "Choose another --out.")
        changed = [f"{k}: {known.get(k)!r} there, {self.config.get(k)!r} now"
                   for k in sorted({*known, *self.config} - FREE_TO_CHANGE)
                   if known.get(k, NEW.get(k)) != self.config.get(k, NEW.get(k))]
        before = read_json(self.path / "lineage.json")
        changed += [f"{k} has changed since it began" for k in sorted(lineage) if before.get(k) != lineage[k]]
        if changed and not self._goes_on(known, before, [c.partition(":")[0] for c in changed]):
            raise UserError(f"{self.path} holds another run ({'; '.join(changed)}).",
                            f"Choose another --out, or remove {self.path} to start over.")

    def _goes_on(self, known: Mapping[str, Any], lineage: Mapping[str, Any], changed: list[str]) -> bool:
        """Makes the run a longer one, where only its length is raised; said in lineage.json. False where it is another run.

        Raises `UserError` where the longer run would not be exactly what it had been if it had been asked for at once.
        """
        if len(changed) != 1 or (name := changed[0]) not in LENGTHS or "schedule" not in self.config:
            return False
        result = self.result if self.done else {}
        now, then = self.config[name], known[name] or (result.get("steps") if name == "steps" else None)
        if not then or not now > then:
            return False
        short = f"{self.path} holds a run that cannot go on ({name}: {known[name]!r} there, {now!r} now)"
        if reason := not_longer(self.config, result):
            raise UserError(f"{short}: {reason}.",
                            f"Start anew with another --out, or from its model: --model {self.path}.")
        if self.done and self.latest_checkpoint() is None:
            raise UserError(f"{short}: its optimiser's state was not kept.",
                            f"Start anew with another --out, or from its model: --model {self.path}.")
        longer = {"setting": name, "from": then, "to": now, "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "code": code_version()}
        # Killed between two of these lines, the same command finds the run unfinished and does the rest.
        (self.path / "result.json").unlink(missing_ok=True)
        shutil.rmtree(self.path / "model", ignore_errors=True)
        write_json(self.path / "lineage.json", {**lineage, "longer": [*lineage.get("longer", []), longer]})
        write_json(self.path / "config.json", self.config)
        self.say(f"{self.path} goes on: {name} {then} before, {now} now.")
        return True

    def _drop_checkpoints(self) -> None:
        """Takes the checkpoints away, but for the last of a run that can be made longer."""
        newest = self.latest_checkpoint() if self._keeps_state() else None
        for folder in (self.path / "checkpoints").glob("*"):
            if newest is None or folder != newest[1]:
                shutil.rmtree(folder, ignore_errors=True)
        if newest is None:
            shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def _keeps_state(self) -> bool:
        """Whether the optimiser's state stays after the end: of adapters, where going on would be exact."""
        return bool(self.config.get("lora_rank")) and any(name in self.config for name in LENGTHS) \
            and not not_longer(self.config, {})

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._leave_nothing()
        if self._lock_file is not None:
            self._lock_file.close()

    @property
    def done(self) -> bool:
        return (self.path / "result.json").exists()

    @property
    def result(self) -> Any:
        return read_json(self.path / "result.json")

    def say(self, text: str) -> None:
        if self.group.rank == 0:
            print(visible(text), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Something the user should know (a count dropped, a fallback): said, and kept in `result.json`."""
        self.notes.append(text)
        self.say(text)

    def log(self, step: int, **metrics: float) -> None:
        """Appends one row to `metrics.jsonl`."""
        seconds = self.seconds_before + time.monotonic() - self.started
        self._append("metrics.jsonl", [{"step": step, "seconds": round(seconds, 3), **metrics}])
        if self.watch:
            self.watch.after(step, metrics)
        if self.trackers:
            self.trackers.log(step, metrics)

    def log_samples(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        self._append("samples.jsonl", [{"step": step, **row} for row in rows])

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends rows to a log of the run as they are."""
        self._append(name, rows)

    def log_audit(self, row: Mapping[str, Any]) -> None:
        self._append("audits.jsonl", [row])

    def _append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        if self.group.rank:
            return
        path = self.path / name
        try:
            with path.open("a", encoding="utf-8", errors="backslashreplace") as f:
                f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        except OSError as error:
            raise UserError(f"{path} could not be written: {error.strerror or error}.",
                            "Make room and give the same command: it continues from the last checkpoint.") from None

    def rewrite(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replaces a log by these rows; killed meanwhile, it is the old log or the new."""
        if self.group.rank:
            return
        temporary = f".{name}.{os.getpid()}.tmp"
        (self.path / temporary).unlink(missing_ok=True)
        self._append(temporary, rows)
        (self.path / temporary).replace(self.path / name)

    def _checkpoints(self) -> list[tuple[int, Path]]:
        """Complete checkpoints, the newest last."""
        complete = [p for p in (self.path / "checkpoints").glob("step-*") if p.name[5:].isdecimal() and _complete(p)]
        return sorted((int(p.name[5:]), p) for p in complete)

    def latest_checkpoint(self) -> tuple[int, Path] | None:
        """Newest complete checkpoint, as (steps done, path)."""
        checkpoints = self._checkpoints()
        return checkpoints[-1] if checkpoints else None

    def resume(self) -> tuple[int, Path] | None:
        """The checkpoint to continue from. Cuts the logs back to what they were when it was written."""
        checkpoint = self.group.agree(self._resume() if self.group.rank == 0 else None)
        if self.watch:
            self.watch.load(checkpoint[1] if checkpoint else None)
        if self.trackers:
            self.trackers.rewind(len(read_jsonl(self.path / "metrics.jsonl")))
        return checkpoint

    def _resume(self) -> tuple[int, Path] | None:
        checkpoint = self.latest_checkpoint()
        sizes = read_json(checkpoint[1] / "manifest.json")["logs"] if checkpoint else {}
        for name in LOGS:
            path = self.path / name
            if path.exists():
                os.truncate(path, min(sizes.get(name, 0), path.stat().st_size))
        for torn in (self.path / "checkpoints").glob("*"):
            if checkpoint is None or torn != checkpoint[1]:
                shutil.rmtree(torn, ignore_errors=True)
        if checkpoint:
            self.say(f"Continuing {self.path} after step {checkpoint[0]}.")
        return checkpoint

    def checkpoint(self, step: int, save: Callable[[Path], None], *, force: bool = False) -> bool:
        """Lets `save` fill a new checkpoint if one is due; the previous one goes after it is complete."""
        force = force or (step == self.total and self._keeps_state())
        if not self.group.agree(force or time.monotonic() - self.saved >= self.checkpoint_seconds):
            return False
        if self.group.rank:
            self._save_nothing(save)
            return True

        def save_all(folder: Path) -> None:
            save(folder)
            if self.watch:
                self.watch.save(folder)
            logs = [self.path / name for name in LOGS if (self.path / name).exists()]
            _sync(logs)
            files = [f for f in folder.rglob("*") if f.is_file()]
            write_json(folder / "manifest.json", {"files": {str(f.relative_to(folder)): f.stat().st_size for f in files},
                                                  "logs": {log.name: log.stat().st_size for log in logs}})

        self._write_folder(self.path / "checkpoints" / f"step-{step:06d}", save_all)
        for _, old in self._checkpoints()[:-1]:
            shutil.rmtree(old, ignore_errors=True)
        self.saved = time.monotonic()
        return True

    @staticmethod
    def _save_nothing(save: Callable[[Path], None]) -> None:
        """Calls `save` beside the first process, which may need this one's part of the state; what it writes here is lost."""
        with tempfile.TemporaryDirectory(prefix="harken-") as folder:
            save(Path(folder))

    @staticmethod
    def _write_folder(target: Path, save: Callable[[Path], None]) -> None:
        temporary = target.with_name(f".{target.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            save(temporary)
            _sync(file for file in temporary.rglob("*") if file.is_file())
        except Exception as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, OSError) or any(sign in str(error) for sign in WRITERS):
                reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
                raise UserError(f"{target} could not be written; is the disk full? ({reason})",
                                "The checkpoint before it is intact: make room and give the same command.") from None
            raise
        if target.exists():
            shutil.rmtree(target)
        temporary.replace(target)

    def finish(self, result: Mapping[str, Any], save_model: Callable[[Path], None] | None = None) -> None:
        """Writes the model, then `result.json`, then drops the checkpoints."""
        if self.watch:
            result = {**result, **self.watch.finish()}
        if self.group.rank:
            if save_model is not None:
                self._save_nothing(save_model)
            return
        if save_model is not None:
            self._write_folder(self.path / "model", save_model)
        if self.trackers:
            self.trackers.close(result)
        write_json(self.path / "result.json", {**result, "notes": self.notes})
        self._drop_checkpoints()

    def track(self, start: int, total: int, label: str) -> Iterator[int]:
        """Yields `start` … `total - 1`, or fewer where a stop rule ends the run, under a progress bar; quiet off a terminal."""
        self.total = total
        with progress(label, total, start, quiet=self.quiet or self.group.rank > 0) as advance:
            for step in range(start, total):
                if self.watch and not self.watch.before(step, total):
                    return
                yield step
                advance(1)
        if self.watch:
            self.watch.before(total, total)


def _sync(files: Iterable[Path]) -> None:
    for file in files:
        with file.open("rb") as f:
            os.fsync(f.fileno())


def _complete(checkpoint: Path) -> bool:
    """Whether every file is there at its full size: a crashed machine may have lost some."""
    try:
        files = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))["files"]
        return all((checkpoint / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError):
        return False
