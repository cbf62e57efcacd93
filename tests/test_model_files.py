"""Model files of others: damaged, absurd, hostile, or of a kind that is read in its own way. Each fault is one sentence."""

import json
import shutil

import pytest
import torch

pytest.importorskip("transformers")

from harken.core.errors import UserError
from harken.core.protocols import Tree
from harken.core.records import Prompt
from harken.engines import modelfiles
from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.engines.places import locate_reward
from harken.engines.toy import toy_model, toy_tokenizer
from harken.launch.models import open_engine
from harken.launch.rewards import open_reward, parse_reward
from harken.launch.train import train as launch_train
from harken.methods import reward_model

TREES = [Tree((5, 6, 7), ((20, 21, 3), (22, 3)))]


@pytest.fixture
def folder(tmp_path):
    """A model as its makers would publish it."""
    place = tmp_path / "model"
    toy_model().save_pretrained(place)
    toy_tokenizer().save_pretrained(place)
    return place


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("values", [{"hidden_size": "wide"}, {"hidden_size": -1}, {"num_attention_heads": 0},
                                    {"num_hidden_layers": 10 ** 6}, {"vocab_size": 10 ** 12}, {"num_hidden_layers": True}])
def test_sizes_that_no_model_has_are_one_message(folder, values):
    change(folder / "config.json", **values)
    with pytest.raises(UserError, match=r"cannot be loaded"):
        load(str(folder))


@pytest.mark.parametrize(("file", "content"), [("config.json", "[]"), ("config.json", "null"), ("config.json", "{" * 5000),
                                               ("config.json", "[" * 100_000), ("tokenizer.json", "null"),
                                               ("tokenizer.json", "{}"), ("model.safetensors", "")])
def test_a_malformed_file_is_one_message(folder, file, content):
    (folder / file).write_text(content)
    with pytest.raises(UserError, match="cannot be loaded"):
        load(str(folder))


@pytest.mark.parametrize("content", [b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 16])
def test_a_gguf_that_lies_is_one_message(tmp_path, monkeypatch, content):
    monkeypatch.setenv("HARKEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(UserError, match=r"m\.gguf cannot be loaded"):
        load(str(tmp_path / "m.gguf"))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_models_own_code_is_never_run_and_never_asked_about(folder, monkeypatch, file):
    mark = folder.parent / "mark"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\n"
                                   "class Config: pass\nclass Model: pass\nclass Own: pass\n")
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"} if file == "config.json" else {
        "AutoTokenizer": ["own.Own", None]}
    change(folder / file, auto_map=own, **({"model_type": "own"} if file == "config.json" else {"tokenizer_class": "Own"}))
    monkeypatch.setattr("builtins.input", lambda *a: pytest.fail("it asked"))
    try:
        load(str(folder))  # a tokenizer that transformers has a class of its own for may load without the code
    except UserError as error:
        assert "brings its own code, which Harken does not run" in str(error)
    else:
        assert file != "config.json"
    assert not mark.exists()


def test_weights_that_are_not_numbers_are_named(folder):
    from safetensors.torch import load_file, save_file
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"damaged: model\.layers\.0\.mlp\.up_proj\.weight holds numbers that are not finite"):
        load(str(folder))


def test_a_tokenizer_with_more_tokens_than_rows_is_one_message(folder):
    toy_model(vocabulary=20).save_pretrained(folder)
    with pytest.raises(UserError, match="but the model has only 20 rows"):
        load(str(folder))


def test_a_sharded_model_stays_in_its_folder_and_its_files_are_its_lineage(folder):
    toy_model().save_pretrained(folder, max_shard_size="100KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / "stray.safetensors").write_bytes(b"not loaded")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 1
    assert load(str(folder)).lineage["weights"] == [modelfiles.file_hash(folder / f) for f in files]
    shutil.copy(folder / files[0], folder.parent / "outside.safetensors")
    for name in ("../outside.safetensors", str(folder.parent / "outside.safetensors")):
        change(folder / "model.safetensors.index.json",
               weight_map={k: name if v == files[0] else v for k, v in index["weight_map"].items()})
        with pytest.raises(UserError, match="which is not a file of its folder"):
            load(str(folder))


# --- reward heads ------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def reward(tmp_path_factory):
    place = tmp_path_factory.mktemp("reward")
    rows = [{"prompt": f"Say {c}", "completions": [c * 3, "no"], "ranks": [1, 2]} for c in "abcdefgh"]
    (place / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = reward_model.Config(model="toy", data=str(place / "c.jsonl"), out=str(place / "rm"), lora_rank=4, epochs=1)
    return launch_train(reward_model, config, quiet=True).path


@pytest.mark.parametrize(("values", "why"), [
    ({"weight": 3}, "weight should be of shape"), ({"weight": torch.zeros(64)}, "weight should be of shape"),
    ({"weight": torch.zeros(1, 69)}, r"found \(1, 69\)"), ({"weight": torch.full((1, 64), float("nan"))}, "not finite"),
    ({"shift": "0"}, "shift should be"), ({"group_head": "text"}, "group_head should be"),
    ({"group_head": torch.zeros(2, 64), "group_shift": torch.zeros(3)}, "group_shift should be")])
def test_a_malformed_head_is_one_message(reward, tmp_path, values, why):
    run = tmp_path / "rm"
    shutil.copytree(reward, run)
    torch.save({**torch.load(run / "model" / "head.pt", weights_only=True), **values}, run / "model" / "head.pt")
    with pytest.raises(UserError, match=f"The reward head of the run .* cannot be loaded: .*{why}"):
        load(str(run))


def test_an_adapter_without_tensors_is_not_the_bare_base(reward, tmp_path):
    from safetensors.torch import save_file
    run = tmp_path / "rm"
    shutil.copytree(reward, run)
    save_file({}, run / "model" / "adapter_model.safetensors")
    with pytest.raises(UserError, match="its file has no tensors"):
        load(str(run))


def test_an_adapter_with_a_tensor_lost_is_refused(reward, tmp_path):
    from safetensors.torch import load_file, save_file
    run = tmp_path / "rm"
    shutil.copytree(reward, run)
    saved = load_file(run / "model" / "adapter_model.safetensors")
    del saved[min(saved)]
    save_file(saved, run / "model" / "adapter_model.safetensors")
    with pytest.raises(UserError, match="1 tensors are missing or have no place"):
        load(str(run))


def classifier(place, labels=1, kind="llama"):
    from transformers import BertConfig, BertForSequenceClassification, LlamaForSequenceClassification
    torch.manual_seed(0)
    base = toy_model().config
    if kind == "bert":
        made = BertForSequenceClassification(BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_labels=1,
                                                        intermediate_size=32, vocab_size=base.vocab_size))
    else:
        base.num_labels, base.pad_token_id = labels, 0
        made = LlamaForSequenceClassification(base)
    made.save_pretrained(place)
    tokenizer = toy_tokenizer()
    tokenizer.save_pretrained(place)
    return made.eval(), tokenizer


def test_a_classifier_of_others_scores_as_in_transformers(tmp_path):
    made, tokenizer = classifier(tmp_path / "rm")
    locate_reward(str(tmp_path / "rm"))
    reward = open_reward(str(tmp_path / "rm"))
    texts = ["aaa", "no", "A longer answer."]
    found = reward.score([Prompt.of("Say a")], [texts])[0]
    for text, score in zip(texts, found):
        chat = [{"role": "user", "content": "Say a"}, {"role": "assistant", "content": text}]
        ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True).input_ids
        assert score == pytest.approx(made(input_ids=ids).logits[0, 0].item(), abs=1e-5)
    identity = parse_reward(str(tmp_path / "rm")).identity()
    assert identity["weights"] == modelfiles.hashes(tmp_path / "rm", "rm")


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "mistral", "gemma"])
def test_classifiers_of_other_kinds_score_as_in_transformers(tmp_path, kind):
    from transformers import AutoConfig, AutoModelForSequenceClassification
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2} if kind == "gpt2" else {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32,
        "head_dim": 8}
    config = AutoConfig.for_model(kind, vocab_size=len(toy_tokenizer()), pad_token_id=0, num_labels=1, **sizes)
    made = AutoModelForSequenceClassification.from_config(config).eval()
    torch.nn.init.normal_(made.score.weight)
    made.save_pretrained(tmp_path / "rm")
    toy_tokenizer().save_pretrained(tmp_path / "rm")
    assert scores(tmp_path / "rm") == pytest.approx(in_transformers(made, tmp_path / "rm"), abs=1e-5)


TEXTS = ["aaa", "no", "A longer answer."]


def scores(place):
    locate_reward(str(place))
    return open_reward(str(place)).score([Prompt.of("Say a")], [TEXTS])[0]


def in_transformers(made, place):
    """The label's logit of each dialogue as the chat template writes it."""
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(place)
    chats = [[{"role": "user", "content": "Say a"}, {"role": "assistant", "content": text}] for text in TEXTS]
    with torch.no_grad():
        return [made(input_ids=tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True).input_ids)
                .logits[0, 0].item() for chat in chats]


def reward_adapter(base, place, named, labels=1):
    """A reward as peft saves it: LoRA, and the last layer beside it."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForSequenceClassification
    base.config.num_labels, base.config.pad_token_id = labels, 0
    made = LlamaForSequenceClassification(base.config)
    made.model.load_state_dict(base.model.state_dict())
    model = get_peft_model(made, LoraConfig(r=4, target_modules=["q_proj", "up_proj"], task_type="SEQ_CLS"))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "score" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(place)
    change(place / "adapter_config.json", base_model_name_or_path=named)
    return model.eval()


def test_a_reward_that_peft_saved_on_its_base_is_read(folder, tmp_path):
    theirs = in_transformers(reward_adapter(toy_model(), tmp_path / "rm", "../model"), folder)
    assert scores(tmp_path / "rm") == pytest.approx(theirs, abs=1e-5)
    loaded = load(str(tmp_path / "rm"))
    assert loaded.lineage["base"]["weights"] == modelfiles.hashes(folder, "model")
    with pytest.raises(UserError, match="Give it as --reward"):
        open_engine(str(tmp_path / "rm"))
    reward_adapter(toy_model(), tmp_path / "two", "../model", labels=2)
    with pytest.raises(UserError, match="has 2 labels; a reward has one"):
        open_reward(str(tmp_path / "two"))


def test_a_reward_adapter_without_its_last_layer_is_one_message(folder, tmp_path):
    from safetensors.torch import load_file, save_file
    reward_adapter(toy_model(), tmp_path / "rm", "../model")
    file = tmp_path / "rm" / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "score" not in k}, file)
    with pytest.raises(UserError, match="lacks that model's last layer"):
        open_reward(str(tmp_path / "rm"))


def test_a_classifier_that_is_no_reward_is_one_message(tmp_path):
    classifier(tmp_path / "two", labels=2)
    with pytest.raises(UserError, match="has 2 labels; a reward has one"):
        open_reward(str(tmp_path / "two"))
    classifier(tmp_path / "bert", kind="bert")
    with pytest.raises(UserError, match="score is not a linear layer over its last token"):
        open_reward(str(tmp_path / "bert"))
    classifier(tmp_path / "rm")
    with pytest.raises(UserError, match="Give it as --reward"):
        open_engine(str(tmp_path / "rm"))


# --- adapters of others ------------------------------------------------------------------------------

def lora(base, place, named, kind="LORA", layers=("q_proj", "up_proj"), **options):
    """An adapter as peft writes it; returns log-probs of its model."""
    from peft import LoraConfig, get_peft_model
    model = get_peft_model(base, LoraConfig(r=4, target_modules=list(layers), task_type="CAUSAL_LM", **options))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name or (parameter.requires_grad and parameter.dim() > 1):
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(place)
    change(place / "adapter_config.json", base_model_name_or_path=named, peft_type=kind)
    with torch.no_grad():
        ids = torch.tensor([[*TREES[0].prompt, *TREES[0].completions[0]]])
        return model.eval()(input_ids=ids).logits[0, 2:-1].log_softmax(-1).gather(-1, ids[0, 3:, None])[:, 0]


def test_a_lora_folder_of_others_is_loaded_on_its_base(folder, tmp_path):
    theirs = lora(toy_model(), tmp_path / "lora", "../model")
    loaded = load(str(tmp_path / "lora"))
    assert torch.allclose(Engine(loaded, train=False).logprobs(TREES)[0][0], theirs, atol=1e-5)
    assert loaded.lineage["weights"] and loaded.lineage["base"]["weights"] == modelfiles.hashes(folder, "model")


@pytest.mark.parametrize("options", [{"layers": ["q_proj", "lm_head"]}, {"layers": ["q_proj", "embed_tokens"]},
                                     {"trainable_token_indices": [3, 5]}, {"modules_to_save": ["lm_head"]}])
def test_adapters_of_others_on_a_tied_last_layer_are_what_peft_computes(tmp_path, options):
    from transformers import LlamaForCausalLM
    config = toy_model().config
    config.tie_word_embeddings = True
    base = LlamaForCausalLM(config)
    base.save_pretrained(tmp_path / "model")
    toy_tokenizer().save_pretrained(tmp_path / "model")
    theirs = lora(base, tmp_path / "lora", "../model", **options)
    loaded = load(str(tmp_path / "lora"))
    assert torch.allclose(Engine(loaded, train=False).logprobs(TREES)[0][0], theirs, atol=1e-5)
    loaded.model.save_pretrained(tmp_path / "whole")
    toy_tokenizer().save_pretrained(tmp_path / "whole")
    again = Engine(load(str(tmp_path / "whole")), train=False).logprobs(TREES)[0][0]
    assert torch.allclose(again, theirs, atol=1e-5)


@pytest.mark.parametrize(("values", "why"), [({"peft_type": "IA3"}, "of the kind IA3; Harken reads LoRA"),
                                             ({"init_lora_weights": "pissa_niter_4"}, "changed at random"),
                                             ({"base_model_name_or_path": None}, "does not name its base"),
                                             ({"base_model_name_or_path": "/nowhere/model"}, "loaded: There is no model"),
                                             ({"base_model_name_or_path": "."}, "stands on itself")])
def test_a_lora_folder_without_its_base_is_one_message(folder, tmp_path, values, why):
    lora(toy_model(), tmp_path / "lora", str(folder))
    change(tmp_path / "lora" / "adapter_config.json", **values)
    with pytest.raises(UserError, match=why):
        load(str(tmp_path / "lora"))


def test_a_lora_folder_on_another_model_is_one_message(folder, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel
    GPT2LMHeadModel(GPT2Config(vocab_size=80, n_embd=32, n_layer=1, n_head=2)).save_pretrained(tmp_path / "other")
    toy_tokenizer().save_pretrained(tmp_path / "other")
    lora(toy_model(), tmp_path / "lora", str(tmp_path / "other"))
    with pytest.raises(UserError, match=r"The adapter .* cannot be loaded|does not fit"):
        load(str(tmp_path / "lora"))
