"""From a word to a folder that others load: transformers, peft, TRL, vLLM, llama.cpp, and a hub.

    export("runs/rloo", "out")                          # merged weights, tokenizer, template, stop tokens, card
    export("runs/rloo", "out", merge=False)             # the adapter, its chain as one
    export("runs/rm", "out")                            # a reward model: AutoModelForSequenceClassification
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harken.core.errors import UserError
from harken.core.extras import import_extra
from harken.core.files import read_json, write_json
from harken.launch.card import gate_section, licence_of, steps_of, write_card
from harken.launch.loop.lineage import gate_record
from harken.launch.models import parse_model

FORMATS = ("F32", "F16", "Q8_0")
MERGED = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained({name!r}), AutoTokenizer.from_pretrained({name!r})
```

`vllm serve {name}` reads the same files (not tried)."""
ADAPTER = """\
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base}), {name!r})
```

`vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules {name}={name}` reads the same files (not tried)."""
REWARD = """\
```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model, tokenizer = AutoModelForSequenceClassification.from_pretrained({name!r}), AutoTokenizer.from_pretrained({name!r})
dialogue = [{{"role": "user", "content": "…"}}, {{"role": "assistant", "content": "…"}}]
score = model(**tokenizer.apply_chat_template(dialogue, return_tensors="pt", return_dict=True)).logits[0, 0]
```

This is the form in which TRL takes a reward. The score is read at the end of the answer's turn."""
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def export(model: str | Path, out: str | Path, *, merge: bool = True, gguf: str = "", push: str = "",
           evaluations: Sequence[str | Path] = (), labelers: bool = False) -> Path:
    """Writes what `model` (a run, or whatever --model takes that has weights) is into the new folder `out`, and gives that.

    `merge=False` writes a run's adapter alone; `gguf` (F32, F16, Q8_0) adds a file for llama.cpp; `push` names a hub repository
    that gets it all; `evaluations` are runs of `harken eval` whose figures the card shows; `labelers` lets it name them. The
    same model gives the same bytes. Raises `UserError`, and then leaves nothing behind.
    """
    word, target = str(model), Path(out)
    _check(word, target, merge, gguf, push)
    api = _hub() if push else None
    engine = import_extra("harken.engines.export")
    from harken.engines.loading import load
    loaded = load(word, device="cpu")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        _write(engine, word, loaded, temporary, target.name, merge, gguf, evaluations, labelers)
        temporary.rename(target)
    except OSError as error:
        raise UserError(f"{target} could not be written: {error.strerror or error}.",
                        "Make room, or choose another --out.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if api is not None:
        _push(api, target, push)
    return target


def _check(word: str, target: Path, merge: bool, gguf: str, push: str) -> None:
    """Raises `UserError` for what can be seen to fail before anything is loaded."""
    if not str(target) or target.name in ("", ".", ".."):
        raise UserError("No folder was given.", "Add --out FOLDER.")
    if target.exists():
        raise UserError(f"{target} is there already.", "Choose another --out, or remove it.")
    if gguf and gguf not in FORMATS:
        raise UserError(f"There is no GGUF format {gguf!r} here.", f"Formats: {', '.join(FORMATS)}.")
    if gguf and not merge:
        raise UserError("A GGUF file holds merged weights.", "Leave --no-merge or --gguf away.")
    if push and not (push.count("/") <= 1 and all(part.strip(".-") for part in push.split("/"))):
        raise UserError(f"{push!r} is no name of a repository.", "Write NAME, or OWNER/NAME.")
    parsed = parse_model(word)
    parsed.need_weights("an export")
    if parsed.kind != "named":
        raise UserError(f"{word} is a model of your own, which only your code can write.", "Give a run, a folder or a hub id.")
    parsed.check()


def _write(engine: Any, word: str, loaded: Any, folder: Path, name: str, merge: bool, gguf: str,
           evaluations: Sequence[str | Path], labelers: bool) -> None:
    from harken.engines.stacked import public_name
    if getattr(loaded, "classifier", False):
        raise UserError(f"{word} is a sequence-classification model already.", "Use it as it is.")
    reward, base, notes = loaded.head is not None, None, list[str]()
    _, root = steps_of(word)
    hub = public_name(root) if root and not Path(root).exists() else None
    if reward and (gguf or not merge):
        raise UserError("A reward model leaves merged, as a sequence-classification model of transformers.",
                        "Leave --gguf and --no-merge away.")
    if reward:
        constant, whole = engine.save_classifier(loaded, folder)
        use = REWARD.format(name=name)
        notes += _about_score(constant, whole, bool(getattr(loaded.template.tokenizer, "chat_template", None)))
    elif merge:
        engine.save_model(loaded, folder)
        use = MERGED.format(name=name)
    else:
        base = engine.save_adapter(Path(word), loaded, folder)
        rank = read_json(folder / "adapter_config.json")["r"]
        use = ADAPTER.format(name=name, base=repr(base or "BASE"), rank=next((r for r in VLLM_RANKS if r >= rank), rank))
        if base is None:
            notes.append(f"\nBASE is {Path(root).name}, for which others have no name: `harken export model {Path(root).name} "
                         "--out BASE` writes it as a folder.")
    if gguf:
        from harken.engines.gguf_file import write_gguf
        write_gguf(loaded.model, loaded.template, folder / f"model-{gguf}.gguf", gguf, name=name, licence=licence_of(root))
        notes.append(f"\n`model-{gguf}.gguf` is the same model for llama.cpp" + (", rounded." if gguf != "F32" else "."))
    if getattr(loaded.template, "dated", False):
        notes.append("\nThe chat template writes the day's date; Harken fixed it while it trained.")
    card = write_card(word, name=name, kind="reward" if reward else "policy", base=hub, use=use, notes=notes,
                      evaluations=[Path(e) for e in evaluations], identity=parse_model(word).identity(), labelers=labelers)
    if (record := gate_record(Path(word))) is not None:
        write_json(folder / "gate.json", record)
        card += gate_section(record)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _about_score(constant: float, whole: bool, chat: bool) -> list[str]:
    notes = []
    if constant:
        notes.append(f"\nHarken's score is the label's logit plus {constant!r} (`score_constant` in config.json): this kind "
                     "of model has no bias to hold it. It changes no comparison, and no advantage taken over a group.")
    if not whole:
        notes.append("\nThe score is read at the end token: give the prompt's ids, the answer's and the end token. " +
                     ("The chat template alone writes others." if chat else "There is no chat template."))
    return notes


# --- the hub ---------------------------------------------------------------------------------------


def _hub() -> Any:
    """The hub's client. Raises `UserError` where it is not to be asked or gives no answer."""
    from huggingface_hub import HfApi
    return _asked("who you are", lambda api: (api.whoami(), api)[1], HfApi())


def _push(api: Any, folder: Path, repository: str) -> None:
    _asked(f"for {repository}; {folder} is whole", lambda hub: (hub.create_repo(repository, private=True, exist_ok=True),
           hub.upload_folder(repo_id=repository, folder_path=str(folder)))[1], api)


def _asked(what: str, ask: Callable[[Any], Any], api: Any) -> Any:
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.errors import HTTPError as HTTPError  # type: ignore[attr-defined]  # of whatever client it stands on
    if constants.HF_HUB_OFFLINE:
        raise UserError("The hub is switched off here (HF_HUB_OFFLINE).", "Leave --push away, or unset it.")
    try:
        return ask(api)
    except LocalTokenNotFoundError:
        raise UserError("There is no login for the hub.", "hf auth login, then give the same command.") from None
    except (OfflineModeIsEnabled, HTTPError, OSError, HFValidationError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"The hub did not answer {what}: {reason}",
                        "Check the network and the login, or leave --push away.") from None
