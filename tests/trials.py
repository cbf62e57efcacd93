"""Tiny runs of every method, by the trial that it declares itself: a new file of harken/methods is in all of these tests.

    TRIAL = {"data": "prompts", "reward": "gold", "steps": 7, ...}      settings; "data" is a kind of file, like any of FILES
    OPTIMUM = {"minibatches": 2}                                        further ones that reach the toy tasks' optimum
"""

import json
import re
from pathlib import Path

import torch

from harken.core.errors import UserError
from harken.core.files import read_jsonl
from harken.launch.find import find_method, method_names
from harken.launch.train import train as launch_train
from stopping import stopped_after

FILES = ("prompts", "demonstrations", "comparisons", "examples", "annotated")
"""Examples are demonstrations of other prompts; annotated is a corpus with scores."""
WORDS = ["red", "blue", "green", "old", "new", "warm", "cold", "tall"]


def learns(method):
    return getattr(find_method(method), "LEARNS", True)


LEARNING = [name for name in method_names() if learns(name)]


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def trial(method):
    """What the method declares, of settings alone."""
    return {name: value for name, value in find_method(method).TRIAL.items() if name != "data"}


def config(method, files, out, **settings):
    module = find_method(method)
    opened = {name: files[value] if isinstance(value, str) and value in FILES else value for name, value in settings.items()}
    return module.Config(model="toy", data=files[module.TRIAL["data"]], out=str(out), **opened)


def run(method, *args, **settings):
    return launch_train(find_method(method), config(method, *args, **settings), quiet=True)


def shortened(settings):
    """Fewer steps of the same."""
    return settings | ({"steps": 2} if "steps" in settings else {"epochs": 0.2} if "epochs" in settings else {})


def weights(path):
    from safetensors.torch import load_file
    found = {}
    for file in sorted((Path(path) / "model").glob("*.safetensors")):
        found |= load_file(file)
    for file in (Path(path) / "model").glob("head.pt"):
        found |= torch.load(file, weights_only=True)
    for file in (Path(path) / "model").glob("policy.json"):
        found["policy"] = torch.tensor(list(file.read_bytes()))
    assert found
    return found


def assert_bit_equal(a, b):
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def rows(path, name="metrics.jsonl"):
    """A log without its times."""
    return [{n: v for n, v in row.items() if n != "seconds"} for row in read_jsonl(Path(path) / name)]


def assert_reads_as_asked(method, files, folder):
    """--field and --max-length reach the data: a method that reads past them would run to its end."""
    strict = {"overlong": "fail"} if learns(method) else {}
    for option, settings, message in (("--field", {"field": "prompt=nowhere"}, "no row has the field 'nowhere'"),
                                      ("--max-length", {"max_length": 2, **strict}, "(--max-length|nothing left|too few)")):
        try:
            run(method, files, folder / option, **{**trial(method), **settings})
        except UserError as error:
            assert re.search(message, str(error)), error
        else:
            raise AssertionError(f"{method} reads its data past {option}: use fitting (loops/examples.py) or fitting_prompts "
                                 "(loops/rollout.py)")


def assert_resumes_exactly(method, files, folder, stops=(2, 4), **more):
    """In process: an exception after the first of `stops`, then the same command until the next, and so on to the end. Settings
    are the method's trial and `more`."""
    settings = {"checkpoint_seconds": 0.0, **({"lora_rank": 4} if learns(method) else {}), **trial(method), **more}
    if "steps" in settings:
        settings["steps"] = stops[-1] + 1
    whole = run(method, files, folder / "whole", **settings)
    for k in stops:
        with stopped_after(k):
            run(method, files, folder / "cut", **settings)
    resumed = run(method, files, folder / "cut", **settings)
    assert_bit_equal(whole.path, resumed.path)
    assert rows(whole.path) == rows(resumed.path) and max(row["step"] for row in rows(whole.path)) > stops[-1]
