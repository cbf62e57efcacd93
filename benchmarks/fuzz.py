"""Fuzzing of the readers: files that were right are damaged, and each reader must take them or refuse them in words.

    python benchmarks/fuzz.py                 ten minutes over all readers
    python benchmarks/fuzz.py --quick         half a minute

Readers: rows (JSON Lines, JSON, CSV, TSV, Parquet, packed or not), uploads of the studio, logs of other programs, databases
under `harken audit`, and of a model its configuration, tokenizer, template, weights, adapter, reward head and GGUF file.
Damage: flipped bits, cuts, repeats, bytes of other files, numbers at their ends, words of JSON in each other's place.
A finding is an exception other than `UserError`, more than 10 seconds of CPU, or memory that grows by more than 400 MB.
Each input is made from its number and the seed alone, so a finding is run again by `--only READER --first N --count 1`.
The last line is JSON: inputs, taken, refused and findings by reader.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

GROWTH_MB = 400
SECONDS = 10
BATCH = 40
NUMBERS = [b"-1", b"0", b"1e400", b"-1e400", b"9" * 400, b"NaN", b"Infinity", b"0.5", b"4294967296", b"-9223372036854775809"]
WORDS = [b"null", b"true", b"[]", b"{}", b'""', b'"a"', b"[[[[[[[[", b"\xef\xbb\xbf", b"\x00", b"\xff\xfe", b"\xed\x9f",
         b"\r", b"\n", b'"prompt"', b'"ranks"', b'"chosen"', b"{{", b"{%", b"%}", b"|" * 50, b"," * 300, b'"' * 3]

Reader = Callable[[Path, bytes], None]


def damaged(seeds: list[bytes], number: int, seed: int) -> bytes:
    """Input `number`: one of `seeds`, damaged in one to six places."""
    draw = random.Random(f"{seed} {number}")
    chosen = draw.choice(seeds)
    if number % 2:  # every other input is still JSON where its seed was
        with contextlib.suppress(ValueError):
            return _other_values(chosen, draw)
    data = bytearray(chosen)
    for _ in range(draw.randint(1, 4)):
        at, size = draw.randrange(len(data) + 1), draw.choice([1, 2, 4, 8, 50])
        match draw.randrange(7):
            case 0 if data:
                data[min(at, len(data) - 1)] ^= 1 << draw.randrange(8)
            case 1:
                del data[at:]
            case 2:
                del data[at:at + size]
            case 3:
                data[at:at] = data[at:at + size] * draw.choice([1, 3, 200])
            case 4:
                other = draw.choice(seeds)
                start = draw.randrange(len(other) + 1)
                data[at:at + size] = other[start:start + draw.choice([4, 50, 1000])]
            case 5:
                data[at:at + draw.randrange(3)] = draw.choice(WORDS)
            case _:
                _number(data, draw)
    return bytes(data)


VALUES = [None, True, False, 0, -1, 1, 2, .5, 1e308, 10 ** 30, "", "a", "A", "tie", "\ud800", "\x00", "<|im_end|>", "user",
          "assistant", [], [[]], {}, ["a"], ["a", "b", "c"], [1, 2], [None], {"a": 1}, {"role": "user", "content": "a"},
          [{"role": "user"}], {"text": "a"}, "1", "[1, 2]"]


def _other_values(text: bytes, draw: random.Random) -> bytes:
    """JSON or JSON Lines with one to three values replaced, removed, renamed or moved. Raises ValueError for other text."""
    lines = text.split(b"\n") if text.count(b"\n") and not text.startswith(b"[") else [text]
    values = [json.loads(line) for line in lines if line.strip()]
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(values))
        values[at] = _other(values[at], draw)
    return b"\n".join(json.dumps(value).encode("utf-8", "surrogatepass") for value in values)


def _other(value: Any, draw: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value or draw.random() < .1:
        return draw.choice(VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw.choice(keys)
    match draw.randrange(6):
        case 0:
            del value[key]
        case 1 if isinstance(value, dict):
            value[draw.choice([*keys, "prompt", "chosen", "completions", "messages", "ranks", "role", "x"])] = value.pop(key)
        case 2:
            value[key] = value[draw.choice(keys)]
        case _:
            value[key] = _other(value[key], draw)
    return value


def _number(data: bytearray, draw: random.Random) -> None:
    """One number of a text, or four bytes of a binary file, at an end of its range."""
    digits = [i for i, byte in enumerate(data[:100_000]) if 48 <= byte <= 57]
    if digits and draw.random() < .7:
        start = end = draw.choice(digits)
        while end < len(data) and 48 <= data[end] <= 57:
            end += 1
        data[start:end] = draw.choice(NUMBERS)
    elif len(data) > 8:
        at = draw.randrange(len(data) - 8)
        data[at:at + 8] = draw.choice([b"\xff" * 8, b"\x00" * 8, b"\xff" * 7 + b"\x7f", b"\x00" * 6 + b"\x00\x10"])


# --- what a right file holds -------------------------------------------------------------------------------

ROWS = [{"prompt": "a", "completions": ["b", "c"], "ranks": [1, 2], "labeler": "x", "group": {"age": "30"}},
        {"prompt": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "c", "margin": 3},
        {"messages": [{"role": "system", "content": "s"},
                      {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"prompt": "a", "completion": "b", "label": True},
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"instruction": "a", "input": "", "output": "b"},
        {"question": "a", "response_a": "b", "response_b": "c", "winner": "tie"},
        {"prompt": "a", "completions": [{"text": "b", "rating": 3}, {"text": "c", "rating": 4.5}]},
        {"prompt": "a", "completions": ["b", "c"], "source": {"model": "m"}, "finished": [True, False]},
        {"history": "a", "human_ref_A": "b", "human_ref_B": "c", "labels": 1, "score_A": 3, "score_B": 2}]


def row_seeds() -> list[bytes]:
    lines = [json.dumps(row).encode() for row in ROWS]
    made = [b"\n".join([line] * 3) for line in lines] + [json.dumps([row] * 3).encode() for row in ROWS]
    made += [b"prompt,chosen,rejected\na,b,c\n\"d, e\",f,\"g\ng\"\n", b"prompt\tcompletion\tlabeler\na\tb\tc\nd\te\tf\n",
             "prompt;chosen;rejected\nü;ä;ö\n".encode("cp1252"), "prompt,completion\na,b\n".encode("utf-16")]
    made += [gzip.compress(data, mtime=0) for data in made[:4]]
    with contextlib.suppress(ImportError):
        import pyarrow
        import pyarrow.parquet
        for row in (ROWS[0], ROWS[1]):
            out = io.BytesIO()
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row] * 3), out)
            made.append(out.getvalue())
    return made


def rows_reader(place: Path, data: bytes) -> None:
    from harken.store import files
    ending = random.Random(len(data)).choice(["jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz", "xlsx", "txt"])
    if data[:4] == b"PAR1":
        ending = "parquet"
    path = place / f"rows.{ending}"
    path.write_bytes(data)
    files.read(path)


def upload_reader(place: Path, data: bytes) -> None:
    from harken.studio.work import uploads
    for row in uploads.read_upload(data):
        assert isinstance(row, dict)


def log_seeds() -> list[bytes]:
    sample = {"doc_id": 1, "doc": {"q": "a"}, "target": "b", "arguments": [["a", "b"]], "resps": [["b"]], "filtered_resps": ["b"],
              "acc": 1.0, "doc_hash": "a" * 8, "prompt_hash": "b" * 8, "target_hash": "c" * 8, "metrics": ["acc"]}
    return [(json.dumps(sample) + "\n").encode() * 3, json.dumps([sample]).encode()]


def log_reader(place: Path, data: bytes) -> None:
    from harken.store import logs
    path = place / "samples_task_2024-01-01T00-00-00.jsonl"
    path.write_bytes(data)
    logs.read_log(str(path))


def database_seeds() -> list[bytes]:
    from harken.store.database import open_database
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.write_bytes(b"\n".join(json.dumps(ROWS[0] | {"labeler": f"p{i}"}).encode() for i in range(5)))
        path = Path(folder) / "f.db"
        with open_database(path) as db:
            db.import_file(rows)
        return [path.read_bytes()]


def database_reader(place: Path, data: bytes) -> None:
    from harken.store.audit import check
    from harken.store.database import open_database
    path = place / "f.db"
    path.write_bytes(data)
    with open_database(path, create=False) as db, db.link.reading() as connection:
        check(connection)


# --- models ------------------------------------------------------------------------------------------------

class Models:
    """A tiny model, a reward run on it and its GGUF file, made once; one file of theirs is replaced by a damaged one."""

    def __init__(self, place: Path) -> None:
        from harken.engines.toy import toy_model, toy_tokenizer
        from harken.launch.train import train
        from harken.methods import reward_model
        toy_model().save_pretrained(place / "model")
        toy_tokenizer().save_pretrained(place / "model")
        rows = [{"prompt": f"Say {c}", "completions": [c * 3, "no"], "ranks": [1, 2]} for c in "abcdefgh"]
        (place / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        train(reward_model, reward_model.Config(model=str(place / "model"), data=str(place / "c.jsonl"), out=str(place / "rm"),
                                                lora_rank=4, epochs=1), quiet=True)
        self.place = place

    def readers(self) -> Iterator[tuple[str, list[bytes], Reader]]:
        for folder, name in (("model", "config.json"), ("model", "tokenizer.json"), ("model", "tokenizer_config.json"),
                             ("model", "chat_template.jinja"), ("model", "model.safetensors"),
                             ("rm", "model/adapter_config.json"), ("rm", "model/adapter_model.safetensors"),
                             ("rm", "model/head.pt")):
            file = self.place / folder / name
            if file.is_file():
                yield f"{folder}/{name}", [file.read_bytes()], self._replacing(file)
        gguf = self.place / "tiny.gguf"
        _write_gguf(gguf)
        yield "gguf", [gguf.read_bytes()], _gguf_reader

    def _replacing(self, file: Path) -> Reader:
        right = file.read_bytes()
        folder = self.place / file.relative_to(self.place).parts[0]

        def read(place: Path, data: bytes) -> None:
            from harken.engines.loading import load
            file.write_bytes(data)
            try:
                load(str(folder))
            finally:
                file.write_bytes(right)
        return read


def _write_gguf(file: Path) -> None:
    """A Llama of one layer with a byte-level tokenizer: what Harken itself exports."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from harken.engines.gguf_file import write_gguf
    from harken.text.template import Template
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters += ["th", "<|end|>"]
    backend = Tokenizer(BPE({c: i for i, c in enumerate(letters)}, [("t", "h")]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    words = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    words.chat_template = ("{% for m in messages %}[{{ m.role }}]{{ m.content }}"
                           "{% if m.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
                           "{% if add_generation_prompt %}[assistant]{% endif %}")
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(letters), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                                         num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64))
    write_gguf(model, Template(words), file, "F32", name="tiny")


def _gguf_reader(place: Path, data: bytes) -> None:
    from harken.engines.loading import load
    os.environ["HARKEN_CACHE"] = str(place / "cache")
    path = place / "m.gguf"
    path.write_bytes(data)
    load(str(path))


# --- the run -----------------------------------------------------------------------------------------------

def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _late(*_: Any) -> None:
    raise TimeoutError(f"not done in {SECONDS} s of CPU")


def attempt(read: Reader, place: Path, data: bytes) -> tuple[str, str]:
    """("taken" | "refused" | "finding", why)."""
    from harken.core.errors import UserError
    before = _memory_mb()
    signal.signal(signal.SIGPROF, _late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of CPU: a busy machine is no finding
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            read(place, data)
        outcome, why = "taken", ""
    except UserError as error:
        outcome, why = "refused", str(error)
    except (Exception, RecursionError):
        outcome, why = "finding", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if _memory_mb() - before > GROWTH_MB:
        return "finding", f"memory grew by {_memory_mb() - before:.0f} MB"
    return outcome, why


def _batch(read: Reader, seeds: list[bytes], numbers: range, seed: int, results: Any) -> None:
    """Runs in a process of its own, so that memory is measured anew and a crash is a finding."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            results.send((number, "begun", ""))
            results.send((number, *attempt(read, Path(folder), damaged(seeds, number, seed))))
    results.close()


def run(read: Reader, seeds: list[bytes], first: int, count: int, seed: int, until: float = float("inf")) -> dict[str, Any]:
    """The outcomes of `count` inputs, or of those made before `until`."""
    tally: dict[str, Any] = {"inputs": 0, "taken": 0, "refused": 0, "findings": []}
    fork = multiprocessing.get_context("fork")
    for start in range(first, first + count, BATCH):
        if time.monotonic() > until:
            break
        ours, theirs = fork.Pipe(duplex=False)
        child = fork.Process(target=_batch, args=(read, seeds, range(start, min(start + BATCH, first + count)), seed, theirs))
        child.start()
        theirs.close()
        begun = None
        with contextlib.suppress(EOFError):
            while True:
                number, outcome, why = ours.recv()
                begun = number if outcome == "begun" else None
                if outcome == "begun":
                    continue
                tally["inputs"] += 1
                if outcome == "finding":
                    tally["findings"].append((number, why))
                else:
                    tally[outcome] += 1
        child.join()
        if begun is not None:
            tally["inputs"] += 1
            tally["findings"].append((begun, f"the process ended with {child.exitcode}"))
    return tally


def _right_is_taken(name: str, seeds: list[bytes], read: Reader) -> None:
    """Damage says nothing where the right file is refused too."""
    with tempfile.TemporaryDirectory() as folder:
        if name not in ("rows", "uploads", "logs"):  # theirs are of many shapes, a name's ending chosen by chance
            outcome, why = attempt(read, Path(folder), seeds[0])
            assert outcome == "taken", f"{name}: {why}"


def readers(place: Path) -> Iterator[tuple[str, list[bytes], Reader]]:
    yield "rows", row_seeds(), rows_reader
    yield "uploads", row_seeds(), upload_reader
    yield "logs", log_seeds(), log_reader
    yield "database", database_seeds(), database_reader
    yield from Models(place).readers()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half a minute")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", default="", help="one reader by its name")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10 ** 9)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chosen = [r for r in readers(Path(folder)) if args.only in ("", r[0])]
        if not chosen:
            sys.exit(f"No reader is called {args.only}.")
        share = (30 if args.quick else args.minutes * 60) / len(chosen)
        lines = {}
        for name, seeds, read in chosen:
            _right_is_taken(name, seeds, read)
            tally = run(read, seeds, args.first, args.count, args.seed, time.monotonic() + share)
            for number, why in tally["findings"][:5]:
                print(f"{name} {number}: {why}", flush=True)
            lines[name] = {**tally, "findings": len(tally["findings"])}
            print(f"{name:36s} {lines[name]}", flush=True)
    print(json.dumps({"benchmark": "fuzz", "seed": args.seed, "readers": lines}))


if __name__ == "__main__":
    main()
