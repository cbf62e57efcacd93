"""`harken export model`: a model that leaves is the model that Harken samples."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import harken
from exported import (
    COMPARISONS,
    DEMONSTRATIONS,
    FAST,
    QUESTIONS,
    assert_llama_cpp_is,
    assert_same_model,
    pieces_model,
    words_model,
)
from exported import chain as chain
from exported import runs as runs
from harken.core.errors import UserError
from harken.engines.loading import load
from marks import slow


@pytest.mark.slow
def test_p37_merged_and_unmerged_exports_are_what_harken_samples(runs):
    """Cases 6 and 7: SFT then DPO, in transformers and in peft."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    harken.export("dpo", "merged")
    harken.export("dpo", "adapter", merge=False)
    merged = AutoModelForCausalLM.from_pretrained("merged").eval()
    assert merged.generation_config.eos_token_id == [2] and AutoTokenizer.from_pretrained("merged").chat_template
    assert_same_model(merged, "dpo")
    beside = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("words"), "adapter").eval()
    beside.generation_config.eos_token_id = [2]
    assert_same_model(beside, "dpo")
    assert harken.sample("merged", QUESTIONS, temperature=0)[0][0].ids == harken.sample("dpo", QUESTIONS, temperature=0)[0][0].ids


@pytest.mark.parametrize("kind", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_a_reward_is_the_label_that_transformers_reads(runs, kind):
    """Dialogues of unequal length in one batch, by the chat template alone. A Llama has no bias to hold the shift, GPT-2 has."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    run = "rm"
    if kind == "gpt2":
        words_model("gpt", "gpt2")
        harken.train("reward_model", model="gpt", data=COMPARISONS, out="gpt_rm", lora_rank=0, **FAST)
        run = "gpt_rm"
    harken.export(run, "reward")
    model = AutoModelForSequenceClassification.from_pretrained("reward").eval()
    tokenizer = AutoTokenizer.from_pretrained("reward")
    assert model.config.num_labels == 1 and tokenizer.pad_token_id not in load(run).template.stop_ids
    answers = ["Hello there.", "No.", "tell me a thing, tell me a thing"]
    dialogues = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in zip(QUESTIONS, answers)]
    batch = tokenizer.apply_chat_template(dialogues, padding=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        found = model(**batch).logits[:, 0] + model.config.score_constant
    wanted = [row[0] for row in harken.score(run, QUESTIONS, [[a] for a in answers])]
    assert found.tolist() == pytest.approx(wanted, abs=1e-5) and len(set(wanted)) == 3
    again = [row[0] + model.config.score_constant for row in harken.score("reward", QUESTIONS, [[a] for a in answers])]
    assert again == pytest.approx(wanted, abs=1e-5)  # Harken reads it as others' reward models
    assert (model.config.score_constant == 0) == (kind == "gpt2")
    assert ("score_constant" in Path("reward/README.md").read_text()) == (kind == "llama")
    assert not Path("reward/generation_config.json").exists()


def test_a_template_that_stops_at_the_end_keeps_its_white_space():
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from harken.engines.export import ending
    blocks = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)  # as transformers has it
    for source in ("\n  {% if true %}\n a'\\ {{ x }}</s>\n  {% endif %}\n", "{{ x }}</s>\n  "):
        plain = blocks.from_string(source)
        tail = plain.render(x="X").rpartition("X")[2]
        text = blocks.from_string(ending(source, tail, "</s>"))
        assert plain.render(x="X").endswith(("\n", " "))
        assert text.render(x="X") == plain.render(x="X").removesuffix(tail) + "</s>"
        assert text.render(x="X", add_generation_prompt=True) == plain.render(x="X")


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(runs):
    for options in ({"gguf": "Q8_0"}, {"merge": False}):
        first, second = (harken.export("dpo", f"{place}/model", **options) for place in (f"a{len(options)}{options}", "b"))
        names = sorted(p.name for p in first.iterdir())
        assert names == sorted(p.name for p in second.iterdir()) and len(names) > 6
        assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
        shutil.rmtree("b")


# --- GGUF --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "options"), [
    ("llama", {"tie_word_embeddings": True}), *slow(("llama", {}), ("gpt2", {}), ("qwen2", {}), ("qwen3", {}))])
def test_transformers_reads_the_gguf_file_as_the_same_model(tmp_path, kind, options):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    folder = words_model(tmp_path / "m", kind, **options)
    harken.export(folder, tmp_path / "out", gguf="F32")
    out = tmp_path / "alone"
    out.mkdir()
    (tmp_path / "out" / "model-F32.gguf").rename(out / "model-F32.gguf")
    original = AutoModelForCausalLM.from_pretrained(folder).eval()
    read = AutoModelForCausalLM.from_pretrained(out, gguf_file="model-F32.gguf", dtype=torch.float32).eval()
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        assert torch.allclose(original(ids).logits, read(ids).logits, atol=1e-5)
    tokenizer, theirs = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(out, gguf_file="model-F32.gguf")
    text = "<|im_start|>user\nhello there 123 wörld<|im_end|>"
    assert tokenizer(text).input_ids == theirs(text).input_ids and tokenizer.chat_template == theirs.chat_template


@pytest.mark.parametrize(("form", "error"), [("F16", 2 ** -11), ("Q8_0", 1 / 127)])
def test_smaller_gguf_files_are_rounded_and_no_more(tmp_path, form, error):
    """F16 keeps 11 bits of each number; Q8_0 rounds to a 127th of the greatest of a block, half a step at most."""
    import gguf
    folder = words_model(tmp_path / "m")
    out = harken.export(folder, tmp_path / "out", gguf=form)
    written = {t.name: t for t in gguf.GGUFReader(out / f"model-{form}.gguf").tensors}
    exact = load(folder).model.state_dict()["model.layers.1.mlp.up_proj.weight"].numpy()
    tensor = written["blk.1.ffn_up.weight"]
    assert tensor.tensor_type == gguf.GGMLQuantizationType[form]
    rounded = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(exact.shape)
    difference = abs(rounded - exact).max()
    assert 0 < difference <= error * abs(exact).max()


def joined_by_score(text, tokens, scores, prefix):
    """SentencePiece's BPE as llama.cpp has it: the best union of neighbours first, the leftmost of equals; bytes for the rest."""
    parts = list(("▁" if prefix and text else "") + text.replace(" ", "▁"))
    while True:
        joins = [(-scores[tokens[a + b]], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in tokens]
        if not joins:
            break
        i = min(joins)[1]
        parts[i:i + 2] = [parts[i] + parts[i + 1]]
    ids = [[tokens[p]] if p in tokens else [tokens[f"<0x{b:02X}>"] for b in p.encode()] for p in parts]
    return [i for some in ids for i in some]


@pytest.mark.parametrize(("kind", "prefix"), [("llama", True), ("mistral", False)])
def test_sentencepiece_by_scores_is_the_tokenizer_of_merges(tmp_path, kind, prefix):
    import gguf
    from transformers import AutoTokenizer
    folder = pieces_model(tmp_path / "m", kind, prefix)
    out = harken.export(folder, tmp_path / "out", gguf="F32")
    fields = gguf.GGUFReader(out / "model-F32.gguf").fields
    value = {name: fields[f"tokenizer.ggml.{name}"].contents() for name in ("model", "tokens", "scores", "token_type",
                                                                            "add_space_prefix")}
    assert (value["model"], value["add_space_prefix"], fields["general.architecture"].contents()) == ("llama", prefix, "llama")
    tokens = {t: i for i, t in enumerate(value["tokens"])}
    assert [value["token_type"][tokens[t]] for t in ("<unk>", "</s>", "<0x0A>", "n", "<|user|>")] == [2, 3, 6, 1, 3]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in ["say hello there", "banana  anna\n\nwho 1é日", " and", "nananananan", "the thing, now: hehe", "a"]:
        theirs = tokenizer(text, add_special_tokens=False).input_ids
        assert joined_by_score(text, tokens, value["scores"], prefix) == theirs, text


def test_a_tokenizer_that_scores_cannot_follow_is_refused(tmp_path):
    for change in ("merges", "added"):
        folder = tmp_path / change
        pieces_model(folder)
        file = folder / "tokenizer.json"
        state = json.loads(file.read_text())
        if change == "merges":
            state["model"]["merges"].pop(0)
        else:
            state["added_tokens"][-1]["rstrip"] = True
        file.write_text(json.dumps(state))
        with pytest.raises(UserError, match="would read texts otherwise" if change == "merges" else "takes the blanks beside it"):
            harken.export(str(folder), tmp_path / "out", gguf="F16")


def test_what_gguf_cannot_hold_is_refused_in_a_sentence_and_leaves_nothing(tmp_path):
    scaled = words_model(tmp_path / "scaled", rope_parameters={"rope_type": "yarn", "factor": 2.0, "rope_theta": 10000.0,
                                                               "original_max_position_embeddings": 256})
    other = words_model(tmp_path / "other", "gpt_neox")
    curved = words_model(tmp_path / "curved", hidden_act="gelu_new")
    plain = words_model(tmp_path / "plain", "gpt2", scale_attn_weights=False)
    for model, what in (("toy", "not a byte-level BPE"), (scaled, "yarn rotary"), (other, "of the kind gpt_neox"),
                        (curved, "llama model with gelu_new"), (plain, "attention that is not scaled")):
        with pytest.raises(UserError, match=what):
            harken.export(model, tmp_path / "out", gguf="F16")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["curved", "other", "plain", "scaled"]


def test_words_that_are_tokens_are_read_as_llama_cpp_reads_them(tmp_path):
    """GPT-2's kind joins by merges: a token that no merges make is refused where the tokenizer reads it whole."""
    from tokenizers import Tokenizer

    from harken.engines.gguf_file import words_of

    def kind(state):
        return words_of(SimpleNamespace(backend_tokenizer=Tokenizer.from_str(json.dumps(state))))[1]

    words_model(tmp_path / "m")
    state = json.loads((tmp_path / "m" / "tokenizer.json").read_text())
    state["model"]["ignore_merges"] = True
    assert kind(state) == "gpt-2"
    vocabulary, unmade = state["model"]["vocab"], "zqzq"
    last = next(t for t, i in vocabulary.items() if i == max(vocabulary.values()))
    vocabulary[unmade] = vocabulary.pop(last)
    state["model"]["merges"] = [m for m in state["model"]["merges"] if "".join(m) != last and last not in m]
    with pytest.raises(UserError, match="would read texts otherwise"):
        kind(state)
    state["model"]["ignore_merges"] = False
    assert kind(state) == "gpt-2"


# --- refusals, the card, the hub ---------------------------------------------------------------------


def test_what_cannot_leave_is_refused_in_a_sentence_and_leaves_nothing(runs, monkeypatch):
    before = sorted(p.name for p in runs.iterdir())
    harken.train("best_of_n", model="dpo", reward=lambda p, c: [0.0] * len(c), data=["Say it."], out="best", quiet=True, n=2,
                 max_tokens=4)
    for options, what in (({"model": "best"}, "no weights of its own: it is a best_of_n policy over dpo"),
                          ({"model": "words", "merge": False}, "holds no adapter"), ({"out": "sft"}, "is there already"),
                          ({"model": "rm", "gguf": "F16"}, "leaves merged"), ({"gguf": "Q4"}, "no GGUF format 'Q4'"),
                          ({"merge": False, "gguf": "F16"}, "holds merged weights"),
                          ({"push": "a/b/c"}, "no name of a repository"),
                          ({"model": "http://localhost:1/v1"}, "needs weights"), ({"push": "me/mine"}, "switched off here"),
                          ({"evaluations": ["sft"]}, "sft is not an evaluation")):
        with monkeypatch.context() as patch:
            patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
            with pytest.raises(harken.UserError, match=what):
                harken.export(**{"model": "dpo", "out": "out", **options})
    assert sorted(p.name for p in runs.iterdir()) == sorted([*before, "best"])


def test_the_card_says_what_is_known_and_names_no_labeler(runs, tmp_path):
    from harken.core.files import file_hash
    evaluation = harken.evaluate("win_rate", model="dpo", against="sft", judge="rm", prompts=QUESTIONS, n=1, max_tokens=4,
                                 out=str(tmp_path / "measured"), quiet=True)
    out = harken.export("dpo", "out", evaluations=[evaluation.path])
    card = (out / "README.md").read_text()
    value = harken.Estimate.from_json(evaluation.result["value"])
    assert f"win rate | {value.value:.3f} | {value.low:.3f} to {value.high:.3f} | 3 |" in card
    assert "words → sft → dpo" in card and file_hash(Path("dpo/inputs/data.jsonl")) in card and "3 labelers" in card
    assert "learning_rate 0.02" in card and "lora_rank 8" in card and "baseline: constant answer" in card
    assert "ann1" not in card and str(tmp_path) not in card and "/" + "tmp" not in card
    named = harken.export("dpo", "named", labelers=True)
    assert "ann0, ann1, ann2" in (named / "README.md").read_text()
    with pytest.raises(harken.UserError, match="measured another model: dpo"):
        harken.export("sft", "other", evaluations=[evaluation.path])
    Path("words/README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Words\n")
    assert "license: cc-by-4.0" in (harken.export("dpo", "licensed") / "README.md").read_text()
    assert "license: apache-2.0" in __import__("harken.launch.card", fromlist=["x"]).write_card(
        "smollm2", name="x", kind="policy", base=None, use="")


def test_push_uploads_the_folder_once_it_is_whole(runs, monkeypatch):
    calls = []

    class Hub:
        def whoami(self):
            calls.append(("whoami", Path("out").exists()))

        def create_repo(self, name, **options):
            calls.append((name, options))

        def upload_folder(self, *, repo_id, folder_path):
            calls.append((repo_id, sorted(p.name for p in Path(folder_path).iterdir())))

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    harken.export("sft", "out", merge=False, push="me/mine")
    assert calls[:2] == [("whoami", False), ("me/mine", {"private": True, "exist_ok": True})]
    assert calls[2] == ("me/mine", sorted(p.name for p in Path("out").iterdir())) and "README.md" in calls[2][1]

    def lost(self, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr(Hub, "upload_folder", lost)
    with pytest.raises(harken.UserError, match=r"did not answer for me/mine; again is whole: no route"):
        harken.export("sft", "again", merge=False, push="me/mine")
    assert Path("again/README.md").is_file()


def test_the_command_takes_its_words_in_any_order_and_judgments_as_before(runs, capsys):
    from harken.cli.main import build_parser, main
    assert main(["export", "model", "--out", "out", "sft", "--no-merge"]) == 0
    assert "adapter_model.safetensors" in capsys.readouterr().out
    assert main(["export", "model", "sft", "--out", "out"]) == 2
    assert capsys.readouterr().err == "harken: out is there already.\n  Choose another --out, or remove it.\n"
    args = build_parser().parse_args(["export", "comparisons", "--out", "p.jsonl", "--shape", "trl_ties", "--purpose", "train"])
    assert (args.what, args.out, args.shape, args.purpose) == ("comparisons", "p.jsonl", "trl_ties", "train")


def test_average_refuses_a_run_given_twice(runs, capsys):
    from harken.cli.main import main
    for again in ("sft", "./sft", str(runs / "sft")):
        assert main(["average", "--out", "mean", "sft", again]) == 2
        assert capsys.readouterr().err.startswith(f"harken: {again} is given twice")
    assert not Path("mean").exists()


# --- llama.cpp, and a real model -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "qwen3"])
def test_llama_cpp_answers_as_harken_does(tmp_path, kind):
    folder = words_model(tmp_path / "m", kind)
    out = harken.export(folder, tmp_path / "out", gguf="F32")
    assert_llama_cpp_is(out / "model-F32.gguf", folder, [*QUESTIONS, "hello  there 1234, it's\n\n wörld"])


@pytest.mark.slow
@pytest.mark.parametrize("rope", [
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 64}], ids=["linear", "llama3"])
def test_llama_cpp_turns_positions_as_harken_does(tmp_path, rope):
    folder = words_model(tmp_path / "m", rope_parameters={**rope, "rope_theta": 10000.0})
    out = harken.export(folder, tmp_path / "out", gguf="F32")
    assert_llama_cpp_is(out / "model-F32.gguf", folder, [*QUESTIONS, "tell me a thing, now and again: " * 4])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "prefix"), [("llama", True), ("mistral", False)])
def test_llama_cpp_answers_as_harken_does_with_sentencepiece(tmp_path, kind, prefix):
    folder = pieces_model(tmp_path / "m", kind, prefix)
    out = harken.export(folder, tmp_path / "out", gguf="F32")
    assert_llama_cpp_is(out / "model-F32.gguf", folder, [*QUESTIONS, "hello  there banana, it's\n\n wörld"])


@pytest.mark.slow
def test_p37_a_chain_on_smollm2_is_one_model_everywhere(tmp_path, monkeypatch):
    """SFT, then DPO on it: Harken, transformers, peft and llama.cpp (float) give the same greedy tokens, merged and not."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from harken.engines.places import cache_folder, locate
    try:
        locate("smollm2")
    except harken.UserError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    fast = {**FAST, "epochs": 1, "learning_rate": 2e-3, "batch_size": 4}
    harken.train("sft", model="smollm2", data=DEMONSTRATIONS, out="sft", lora_rank=8, **fast)
    harken.train("dpo", model="sft", data=COMPARISONS, out="dpo", lora_rank=8, **fast)
    harken.export("dpo", "merged", gguf="F32")
    harken.export("dpo", "adapter", merge=False)
    base = next(cache_folder().glob("SmolLM2*"))
    for model in (AutoModelForCausalLM.from_pretrained("merged"),
                  PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "dpo/model"),
                  PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "adapter")):
        assert_same_model(model.eval(), "dpo", 5e-5)  # unmerged float32 sums of 30 layers round otherwise
    card = Path("merged/README.md").read_text()
    assert "smollm2 → sft → dpo" in card and "license: apache-2.0" in card
    assert_llama_cpp_is("merged/model-F32.gguf", "dpo", QUESTIONS)
