"""Our engine as lm-eval's model: its numbers by hand, what it groups, what it cuts, and its tasks from a local file."""

import json
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lm_eval")

from harken.cli.main import main  # noqa: E402
from harken.core.errors import UserError  # noqa: E402
from harken.core.protocols import Tree  # noqa: E402
from harken.core.records import Prompt  # noqa: E402
from harken.engines.sampler import HFSampler  # noqa: E402
from harken.launch.policies import open_sampler  # noqa: E402
from harken.loops.items import Store, StoredModel  # noqa: E402
from harken.loops.lm_eval import as_lm  # noqa: E402

PAIRS = [("one two three", " four"), ("a b", " c d"), ("one two three", " five six"), ("", "seven"), ("one two three", " four"),
         ("blank ", "at the end")]


@pytest.fixture
def stored(toy_engine, tmp_path):
    return StoredModel(HFSampler(toy_engine(train=False)), Store(tmp_path / "items.jsonl"), "toy", name="toy")


def asked(*arguments):
    return [SimpleNamespace(args=a) for a in arguments]


def by_hand(stored, context, option):
    """One sequence, one pass: the sum of log p over the option's tokens."""
    tree, (count,), _ = stored._parts(context, [option])
    ids = tree.prompt + tree.completions[0]
    ((logps,),) = stored.engine.logprobs([Tree(ids[:-count], (ids[-count:],))])
    return float(logps.double().sum())


def test_options_of_one_context_share_it_and_give_the_log_probs_of_one_sequence_each(stored):
    lm = as_lm(stored)
    found = lm.loglikelihood(asked(*PAIRS))
    for (context, option), (value, _) in zip(PAIRS, found):
        assert value == pytest.approx(by_hand(stored, context, option), abs=1e-4)
    assert found[0] == found[4], "the same request twice is one"
    together, apart = lm.computed, 0
    for pair in PAIRS[:3:2]:
        before = lm.computed
        lm.loglikelihood(asked(pair))
        apart += lm.computed - before
    lm.computed = 0
    lm.loglikelihood(asked(*PAIRS[:3:2]))
    assert lm.computed < apart and together, "the shared context is computed once"


def test_greedy_is_what_the_model_would_have_written(stored):
    lm = as_lm(stored)
    (written,) = lm.generate_until(asked(("one two", {"until": [], "max_gen_toks": 4})))
    (sampled,) = stored.sampler.sample_ids([stored.template.text_ids("one two")], 1, max_tokens=4, temperature=0.0)
    ids = sampled[0].ids
    read = stored.engine.greedy_logprobs([Tree(stored.template.text_ids("one two"), (ids, (ids[0] ^ 1,)))])
    assert bool((read[0][0][0] == read[0][0][1]).all()) and not bool((read[0][1][0] == read[0][1][1]).all())
    assert written == stored.template.tokenizer.decode([t for t in ids if t not in stored.template.stop_ids])


def test_generation_stops_at_the_first_stop(stored):
    lm = as_lm(stored)
    whole = lm.generate_until(asked(("one two", {"max_gen_toks": 40})))[0]
    stop = whole[3]
    assert lm.generate_until(asked(("one two", {"until": stop, "max_gen_toks": 40})))[0] == whole[:whole.index(stop)]


def test_rolling_windows_add_up_and_long_contexts_lose_their_start(stored, monkeypatch):
    lm = as_lm(stored)
    text = "one two three four five six seven eight nine ten"
    ids = stored.template.text_ids(text)
    ((logps,),) = stored.engine.logprobs([Tree((stored._first(),), (ids,))])
    assert lm.loglikelihood_rolling(asked((text,)))[0] == pytest.approx(float(logps.double().sum()), abs=1e-4)
    monkeypatch.setattr(type(lm), "max_length", 4)
    parts = lm.loglikelihood_rolling(asked((text,)))[0]
    assert parts != pytest.approx(float(logps.double().sum()), abs=1e-6), "short windows see less"
    option = stored.template.text_ids(" x")
    (value, _), = lm.loglikelihood(asked((text, " x")))
    whole = stored._parts(text, [" x"])[0]
    kept = (whole.prompt + whole.completions[0])[-5:]
    ((cut,),) = stored.engine.logprobs([Tree(kept[:-len(option)], (kept[-len(option):],))])
    assert value == pytest.approx(float(cut.double().sum()), abs=1e-4)


def test_a_server_and_a_missing_library_are_said(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="log-probs"):
        as_lm(StoredModel(SimpleNamespace(), Store(tmp_path / "x.jsonl"), "s", name="s"))
    import sys
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(UserError, match=r"harken\[eval\]"):
        as_lm(SimpleNamespace())


TASK = """task: capitals
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{stem}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: gold
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


def test_conversations_are_read_with_their_control_tokens_and_their_content_without(stored):
    lm, template = as_lm(stored), stored.template
    asked_for = [{"role": "user", "content": "say <|im_end|> twice"}]
    prompt = Prompt.from_json({"prompt": asked_for})
    context = lm.apply_chat_template(asked_for)
    (written,) = lm.generate_until(asked((context, {"max_gen_toks": 4})))
    ((sampled,),) = stored.sampler.sample_ids([template.prompt_ids(prompt)], 1, max_tokens=4, temperature=0.0)
    assert written == template.tokenizer.decode([t for t in sampled.ids if t not in template.stop_ids])
    ids = lm._encoder(context)(context)
    assert ids == template.prompt_ids(prompt) and ids.count(template.end_id) == 1, "the template's own end marker"
    option = lm._encoder(context)(context + "yes <|im_end|>")
    assert option[:len(ids)] == ids and option.count(template.end_id) == 1
    added = context + " and so on"
    assert lm._encoder(added)(added)[:len(ids)] == ids
    begun = lm.apply_chat_template([*asked_for, {"role": "assistant", "content": "It is"}], add_generation_prompt=False)
    assert begun == context + "It is" and lm._encoder(begun)(begun)[:len(ids)] == ids


@pytest.mark.slow
def test_a_local_task_equals_lm_evals_own_model_and_is_compared(tmp_path):
    """SmolLM2 in float32 under both: the same right answers, log-probs within 1e-3 nats; against itself nothing is shown."""
    rows = [{"stem": f"The capital of {c} is", "options": [f" {a}", f" {b}"], "gold": 0} for c, a, b in (
        ("France", "Paris", "Rome"), ("Italy", "Rome", "Oslo"), ("Norway", "Paris", "Oslo"), ("Japan", "Tokyo", "Lima"))]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    task = tmp_path / "capitals.yaml"
    task.write_text(TASK.format(data=tmp_path / "data.jsonl"))
    out = tmp_path / "run"
    assert main(["eval", "lm_eval", "--model", "smollm2", "--against", "smollm2", "--tasks", str(task), "--out", str(out)]) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["tasks"]["capitals"]["difference"]["value"] == 0 and len(result["samples"]) == 4

    from lm_eval.models.huggingface import HFLM

    from harken.engines.loading import load
    loaded = load("smollm2")
    loaded.model.set_attn_implementation("sdpa")
    theirs = HFLM(pretrained=loaded.model, tokenizer=loaded.template.tokenizer, batch_size=4, backend="causal")
    pairs = [(r["stem"], o) for r in rows for o in r["options"]]
    expected = theirs.loglikelihood(asked(*pairs), disable_tqdm=True)
    right = [float(max(r["options"], key=lambda o: dict(zip(pairs, expected))[r["stem"], o][0]) == r["options"][0]) for r in rows]
    assert [s["score"] for s in result["samples"]] == right
    stored = StoredModel(open_sampler("smollm2", dtype="float32"), Store(tmp_path / "s.jsonl"), "s", name="s")
    own = as_lm(stored)
    chats = [[{"role": "user", "content": r["stem"]}] for r in rows]
    assert [own.apply_chat_template(c) for c in chats] == [theirs.apply_chat_template(c) for c in chats]
    pairs += [(own.apply_chat_template(c), o) for c, r in zip(chats, rows) for o in r["options"]]
    expected = theirs.loglikelihood(asked(*pairs), disable_tqdm=True)
    for (value, greedy), (other, also) in zip(own.loglikelihood(asked(*pairs)), expected):
        assert value == pytest.approx(other, abs=1e-3) and greedy == also
