"""A model as others load it: merged weights, one adapter, or a sequence-classification model with the reward as its one label.

    save_model(loaded, folder)          # AutoModelForCausalLM, vLLM
    save_adapter(run, folder, base)     # peft, vLLM's --lora-modules
    save_classifier(loaded, folder)     # AutoModelForSequenceClassification, TRL's rewards
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from harken.core.errors import UserError
from harken.core.files import read_json
from harken.core.records import Prompt
from harken.engines.heads import as_classifier
from harken.engines.loading import set_stops
from harken.engines.pretrained import Loaded
from harken.engines.stacked import chain, public_name, stack, write_adapter

MARK = "an answer"
PROBE = "What is two plus two?"
NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm")
"""How transformers' models name the layer before the last."""


def save_model(loaded: Loaded, folder: Path) -> None:
    """Merged weights with tokenizer, chat template and stop tokens."""
    set_stops(loaded.model, loaded.template)
    loaded.model.save_pretrained(folder)
    loaded.template.tokenizer.save_pretrained(folder)


def save_adapter(run: Path, loaded: Loaded, folder: Path) -> str | None:
    """The run's adapter, with those that it stands on as one, beside tokenizer and stop tokens; returns its base's public name.

    Raises `UserError` for a run without an adapter, and for a chain that is no plain sum.
    """
    from peft import PeftConfig
    if not (run / "model" / "harken.json").is_file() or read_json(run / "model" / "harken.json").get("kind") != "adapter":
        raise UserError(f"{run} holds no adapter: its weights are whole.", "Leave --no-merge away.")
    found = chain(run / "model", run)
    summed = stack(found.folders)
    if summed is None:
        raise UserError(f"The adapters that {run} is made of are no plain sum, so one adapter cannot hold them.",
                        "Leave --no-merge away: the weights are merged.")
    base = public_name(found.root)
    write_adapter(folder, *summed, base=base, parts=len(found.folders))
    assert PeftConfig.from_pretrained(str(folder)).r == summed[1]["r"]
    set_stops(loaded.model, loaded.template)
    loaded.model.generation_config.save_pretrained(folder)
    loaded.template.tokenizer.save_pretrained(folder)
    return base


# --- reward models ---------------------------------------------------------------------------------


@torch.no_grad()
def save_classifier(loaded: Loaded, folder: Path) -> tuple[float, bool]:
    """A reward model as a sequence-classification model with one label, which reads the last token that is not padding.

    Returns (constant, whole): Harken's score is the label's logit plus the constant, 0 where the model has a bias to hold it;
    `whole` says whether its chat template writes a dialogue as Harken reads it, up to the answer's end and no further. Raises
    `UserError` where transformers has no such model, or where its score is another.
    """
    from harken.engines.hf import Engine
    assert loaded.head is not None
    if loaded.groups:
        raise UserError("A reward model with a score for each group would have several labels; a reward of others has one.",
                        "Train one without --labelers groups, or keep it as a run.")
    tree = loaded.template.tree(Prompt.of(PROBE), [MARK])
    engine = Engine(loaded, head="reward", train=False)
    wanted = float(engine.scores([tree])[0][0])
    model = as_classifier(loaded.model)
    constant = _place(model, loaded.head.weight[0], float(loaded.head.bias) + loaded.shift)
    tokenizer = copy.deepcopy(loaded.template.tokenizer)
    _pad(model, tokenizer, loaded.template.end_id)  # first: with the end for padding the score would be read before it
    model.eval()
    ids = torch.tensor([[*tree.prompt, *tree.completions[0]]], device=loaded.model.device)
    found = float(model(input_ids=ids).logits[0, 0]) + constant
    if not abs(found - wanted) < 1e-3 * (1 + abs(wanted)):
        raise UserError(f"transformers' sequence-classification model of the {model.config.model_type} kind gives {found:.4f}, "
                        f"and the reward is {wanted:.4f}.", "It cannot leave in this form; keep it as a run.")
    whole = _end_where_read(tokenizer, loaded.template, tree)
    model.config.score_constant = constant
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return constant, whole


def _place(model: Any, weight: torch.Tensor, constant: float) -> float:
    """Gives the last layer its weight and puts the constant into a bias; returns what no bias can hold.

    Where the layer has none, a shift d of the norm before it adds weight·d to every score: d = constant weight / |weight|².
    """
    model.score.weight[0].copy_(weight)
    if model.score.bias is not None:
        model.score.bias.fill_(constant)
        return 0.0
    body = getattr(model, model.base_model_prefix)
    norm = next((layer for name in NORMS if (layer := getattr(body, name, None)) is not None), None)
    bias = getattr(norm, "bias", None)
    if not isinstance(bias, torch.Tensor) or not float(weight.square().sum()):
        return constant
    bias += constant * weight / weight.square().sum()
    return 0.0


def _end_where_read(tokenizer: Any, template: Any, tree: Any) -> bool:
    """Lets the chat template stop at the token that the score is read at: most write a line break after it."""
    if getattr(tokenizer, "chat_template", None) is None:
        return False
    messages = [{"role": "user", "content": PROBE}, {"role": "assistant", "content": MARK}]
    tail = template.answered(PROBE, MARK).rpartition(MARK)[2]
    end = tokenizer.convert_ids_to_tokens(template.end_id)
    if tail != end:
        tokenizer.chat_template = ending(tokenizer.chat_template, tail, end)
    ids = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    return tuple(ids) == (*tree.prompt, *tree.completions[0])


def ending(source: str, tail: str, end: str) -> str:
    """A chat template whose text ends in `end` where it ended in `tail`, unless the assistant's turn is to be opened."""
    # An empty expression stands before and after, as Jinja's trim_blocks and lstrip_blocks eat white space beside a block.
    return ("{% set harken_text %}{{ '' }}" + source.removesuffix("\n") + "{{ '' }}{% endset %}"
            f"{{% if not add_generation_prompt and harken_text.endswith({_quoted(tail)}) %}}"
            f"{{{{ harken_text[:harken_text|length - {len(tail)}] + {_quoted(end)} }}}}"
            "{% else %}{{ harken_text }}{% endif %}")


def _quoted(text: str) -> str:
    return "'" + text.encode("unicode_escape").decode().replace("'", "\\'") + "'"


def _pad(model: Any, tokenizer: Any, end: int) -> None:
    """A padding token other than the end: transformers reads the last token that is no padding."""
    special = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id,
               *tokenizer.all_special_ids]
    pad = next((i for i in special if i is not None and i != end), None)
    if pad is None:
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
        pad = int(tokenizer.pad_token_id)
        rows = model.get_input_embeddings().weight.shape[0]
        if pad >= rows:
            with torch.random.fork_rng():
                model.resize_token_embeddings(pad + 1, mean_resizing=False)
            model.get_input_embeddings().weight[rows:] = 0.0
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    model.config.get_text_config().pad_token_id = pad
