"""Every equivalence of the engine: shared prefix = separate, packed = unpacked, accumulated = one batch, sampler = trainer."""

import math
import random

import pytest
import torch
from torch import nn

from harken.core.errors import UserError
from harken.core.protocols import Datum, Tree
from harken.core.records import Prompt
from harken.engines import attention, logprobs
from harken.engines.attention import row_of, using
from harken.engines.draw import _outside, draw
from harken.engines.hf import Engine
from harken.engines.loading import load
from harken.engines.sampler import HFSampler
from harken.engines.toy import toy_model, toy_tokenizer
from harken.objectives.preference import k_wise
from harken.objectives.supervised import nll

ARCHITECTURES = ("llama", "gpt2")


def trees(seed=0, n=5):
    rng = random.Random(seed)
    ids = lambda low, high: tuple(rng.randrange(4, 70) for _ in range(rng.randint(low, high)))  # noqa: E731
    return [Tree(ids(1, 12), tuple(ids(1, 9) for _ in range(rng.randint(1, 4)))) for _ in range(n)]


def separate_logps(model, tree):
    """Plain transformers, one sequence at a time, its own attention."""
    result = []
    for completion in tree.completions:
        logits = model(torch.tensor([tree.prompt + completion])).logits[0].log_softmax(-1)
        at = len(tree.prompt) - 1
        result.append(torch.stack([logits[at + i, t] for i, t in enumerate(completion)]))
    return result


def by_tokens(out, x):
    return nll(out.logps_N, x["weights"])


def sft_data(part):
    total = sum(len(c) for t in part for c in t.completions)
    return [Datum(t, {"weights": [1 / total] * sum(map(len, t.completions))}) for t in part]


def gradients(engine):
    return {n: p.grad.clone() for n, p in engine.trainable.items() if p.grad is not None}


def assert_same(a, b, tolerance=1e-5):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.allclose(a[name], b[name], atol=tolerance, rtol=0), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_p1_p10_shared_prefix_rows_equal_separate_sequences(toy_engine, architecture):
    engine = toy_engine(architecture, train=False)
    plain = toy_model(architecture).eval()
    with torch.no_grad():
        for tree, found in zip(trees(), engine.logprobs(trees())):
            for ours, theirs in zip(found, separate_logps(plain, tree)):
                assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_p10_dense_mask_on_transformers_own_attention_agrees(toy_engine, architecture, implementation):
    """The same row through transformers' sdpa and eager paths, with the tree as an explicit 4-D mask."""
    ours, plain = toy_engine(architecture, train=False), toy_model(architecture).eval()
    plain.config._attn_implementation = implementation
    row = row_of(trees(), torch.device("cpu"), keep_last=True)
    with torch.no_grad():
        theirs = plain.base_model(input_ids=row.ids, position_ids=row.positions, attention_mask=row.dense_mask(torch.float32),
                                  use_cache=False).last_hidden_state[0]
        assert torch.allclose(ours.hidden(row), theirs, atol=1e-5)


def nodes(tensor):
    """Names of all steps of the backward pass."""
    seen, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return {node.name() for node in seen}


@pytest.mark.parametrize("head", [None, "reward", "value"])
def test_gradients_do_not_depend_on_which_thread_is_first(toy_engine, head):
    """x[index]'s backward pass adds what several completions send to their prompt in the order in which threads come."""
    out = toy_engine("llama", head=head).forward(trees())
    total = sum(x.sum() for x in (out.logps_N, out.scores_C, out.values_N) if x is not None)
    assert "IndexSelectBackward0" in nodes(total)
    assert not {name for name in nodes(total) if name.startswith(("IndexBackward", "IndexPut"))}


START = tuple(random.Random(9).randrange(4, 70) for _ in range(attention.SHARE_LEAST))


def begun(n=5):
    """Trees that begin alike."""
    return [Tree(START + t.prompt, t.completions) for t in trees(n=n)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_all_trees_begin_with_is_computed_once_and_changes_nothing(toy_engine, architecture):
    engine, plain = toy_engine(architecture, train=False), toy_model(architecture).eval()
    row = row_of(begun(), torch.device("cpu"), keep_last=True, share=True)
    assert row.shared == len(START) and row.ids.shape[1] == len(START) + sum(t.size for t in trees())
    with torch.no_grad():
        theirs = plain.base_model(input_ids=row.ids, position_ids=row.positions, attention_mask=row.dense_mask(torch.float32),
                                  use_cache=False).last_hidden_state[0]
        assert torch.allclose(engine.hidden(row), theirs, atol=1e-5)
    for group, tree in zip(engine.logprobs(begun(), share=True), begun()):
        for ours, alone in zip(group, separate_logps(plain, tree)):
            assert torch.allclose(ours, alone, atol=1e-5)


@pytest.mark.parametrize("window", [None, 3, 11])
def test_masks_of_a_shared_start_let_a_token_see_its_own_past_in_the_window(window):
    row = row_of(begun(), torch.device("cpu"), keep_last=True, share=True)
    first, past = row.shared, [[*range(i)] for i in range(row.shared)]
    for (start, _), (prompt, *rest) in zip(row.spans, row.branches):
        past += [[*range(first), *range(start, start + i)] for i in range(prompt)]
        at = start + prompt
        for length in rest:
            past += [[*range(first), *range(start, start + prompt), *range(at, at + i)] for i in range(length)]
            at += length
    positions = row.positions[0].tolist()
    for (start, end), mask in zip(row.spans, row.span_masks(window, torch.device("cpu"))):
        columns = [*range(first), *range(start, end)]
        for i in range(start, end):
            seen = {columns[k] for k, yes in enumerate(mask[i - start].tolist()) if yes}
            assert seen == {j for j in [*past[i], i] if window is None or positions[i] - positions[j] < window}
    mask = row.shared_mask(window)
    assert (mask is None) == (window in (None, 11))
    if mask is not None:
        assert [[j for j, yes in enumerate(m) if yes] for m in mask.tolist()] == [
            [*range(max(0, i - window + 1), i + 1)] for i in range(first)]


@pytest.mark.parametrize("prompts, length", [([(*START, 1), (*START, 2)], 8), ([START, START], 0), ([(*START, 1)], 0),
                                             ([(*START, 1, 1), (*START, 1)], 8), ([(1, 2, 3), (1, 2, 4)], 0)])
def test_a_start_is_shared_where_it_is_long_and_each_keeps_a_token(prompts, length):
    assert attention.common_start(prompts) == length


def test_a_shared_start_changes_no_sample(toy_engine, monkeypatch):
    sampler, prompts = HFSampler(toy_engine(train=False)), [t.prompt for t in begun(7)]
    shared = sampler.sample_ids(prompts, 2, max_tokens=16, seed=5)
    monkeypatch.setattr(attention, "SHARE_LEAST", 1000)
    apart = sampler.sample_ids(prompts, 2, max_tokens=16, seed=5)
    for a, b in zip((s for g in shared for s in g), (s for g in apart for s in g)):
        assert a.ids == b.ids and a.logps == pytest.approx(b.logps, abs=1e-5)


def test_a_completion_ends_where_a_text_is_complete(toy_engine):
    engine = toy_engine(train=False)
    prompts = [(5, 6, 7), (8, 9, 10, 11, 12), (13,)]
    sampler = HFSampler(engine)
    whole = [s for g in sampler.sample_ids(prompts, 3, max_tokens=24, seed=3) for s in g]
    stop = whole[0].text[2:4]
    for a, b in zip(whole, (s for g in sampler.sample_ids(prompts, 3, max_tokens=24, seed=3, stop=(stop,)) for s in g)):
        least = next((n for n in range(1, len(a.ids) + 1) if stop in engine.template.decode(a.ids[:n])), len(a.ids))
        assert b.ids == a.ids[:least] and b.finished == (a.finished or stop in a.text)


def test_top_p_by_the_likeliest_tokens_keeps_what_sorting_all_keeps():
    rng = torch.Generator().manual_seed(0)
    sharp = torch.tensor([0.5, 4.0, 0.2, 8.0, 3.0])[:, None]  # of 3,000 tokens some thousand, or a few, make up .9
    probs = (sharp * torch.randn(5, 3000, generator=rng)).softmax(-1)
    ordered, index = probs.sort(-1, descending=True)
    outside = ordered.double().cumsum(-1) - ordered >= 0.9
    assert torch.equal(_outside(probs, 0.9), outside.scatter(-1, index, outside))
    assert sorted((~outside).sum(-1) > 256) == [False, False, False, True, True]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shared_prefix_gradient_equals_separate(toy_engine, architecture):
    engine, plain = toy_engine(architecture, tokens_per_micro_batch=10_000), toy_model(architecture).eval()
    data = sft_data(trees())
    engine.forward_backward(data, by_tokens)
    total = sum(len(c) for d in data for c in d.tree.completions)
    loss = -sum(x.sum() for d in data for x in separate_logps(plain, d.tree)) / total
    loss.backward()
    assert_same(gradients(engine), {n: p.grad for n, p in plain.named_parameters() if p.grad is not None})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_p7_packed_equals_unpacked_equals_accumulated(toy_engine, architecture):
    found = []
    for budget in (10_000, 40, 1):  # one row; several packed rows; every tree a row of its own
        engine = toy_engine(architecture, tokens_per_micro_batch=budget)
        metrics = engine.forward_backward(sft_data(trees(n=8)), by_tokens)
        found.append((metrics["loss"], gradients(engine)))
    for loss, grads in found[1:]:
        assert loss == pytest.approx(found[0][0], abs=1e-6)
        assert_same(grads, found[0][1], 1e-6)


def test_p10_no_gradient_leaks_to_a_sibling_or_a_neighbour(toy_engine):
    """The loss of one completion has gradient exactly 0 at its siblings' and the other tree's embeddings."""
    engine = toy_engine()
    row = row_of([Tree((5, 6), ((7, 8, 9), (10, 11, 12))), Tree((5, 6, 13), ((14, 15),))], torch.device("cpu"), keep_last=True)
    embedded = engine.model.get_input_embeddings()(row.ids).detach().requires_grad_()
    with using(row):
        hidden = engine.model.base_model(inputs_embeds=embedded, position_ids=row.positions, use_cache=False).last_hidden_state[0]
    hidden[row.ends[1]].sum().backward()  # the second completion of the first tree
    seen = embedded.grad[0].abs().sum(-1) > 0
    assert seen.tolist() == [True] * 2 + [False] * 3 + [True] * 3 + [False] * 5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_p2_p4_sampler_and_trainer_agree(toy_engine, architecture):
    engine = toy_engine(architecture, train=False)
    sampler = HFSampler(engine)
    prompts = [(5, 6, 7), (8, 9, 10, 11, 12), (13,)]
    for temperature in (1.0, 0.7):
        samples = sampler.sample_ids(prompts, 4, max_tokens=24, temperature=temperature, seed=3)
        rows = [Tree(p, tuple(s.ids for s in group)) for p, group in zip(prompts, samples)]
        scored = engine.logprobs(rows, temperature=temperature)
        plain = engine.logprobs(rows)
        for group, at_t, at_1 in zip(samples, scored, plain):
            for s, x, y in zip(group, at_t, at_1):
                assert torch.allclose(torch.tensor(s.logps), x, atol=1e-5)
                assert torch.allclose(torch.tensor(s.model_logps), y, atol=1e-5)


def test_p4_p24_a_sequence_ends_at_its_first_stop_and_draws_its_own_stream(toy_engine):
    """Nothing is kept after the stop, so nothing after it can be trained on; retiring changes no other sequence."""
    engine = toy_engine(train=False)
    prompts = [(5, 6, 7), (8, 9, 10, 11, 12)]
    many = HFSampler(engine).sample_ids(prompts, 3, max_tokens=40, seed=5)
    assert {len(s.ids) for g in many for s in g} != {40}, "some must end early for the test to mean anything"
    again = HFSampler(engine).sample_ids(prompts, 3, max_tokens=40, seed=5)
    assert many == again
    for g in many:
        for s in g:
            assert s.finished == (s.ids[-1] == 3)
            assert 3 not in s.ids[:-1]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_p23_neither_row_nor_batch_changes_what_a_sequence_says(toy_engine, architecture):
    engine = toy_engine(architecture, train=False)
    prompts = [t.prompt for t in trees(3, 9)]
    all_at_once = HFSampler(engine).sample_ids(prompts, 2, max_tokens=16, seed=5)
    for batch in (1, 4, 6):
        found = HFSampler(engine, max_batch=batch).sample_ids(prompts, 2, max_tokens=16, seed=5)
        for a, b in zip((s for g in found for s in g), (s for g in all_at_once for s in g)):
            assert (a.ids, a.finished) == (b.ids, b.finished)
            assert a.logps == pytest.approx(b.logps, abs=1e-5)
    alone = HFSampler(engine).sample_ids(prompts[:1], 2, max_tokens=16, seed=5)
    assert [s.ids for s in alone[0]] == [s.ids for s in all_at_once[0]]


@pytest.mark.slow
def test_rows_that_end_are_refilled(toy_engine):
    """The decoder computes fewer tokens than batches of four would that each wait for their longest."""
    from harken.engines.profile import profiling
    engine, prompts = toy_engine(train=False), [(5, 6, i) for i in range(4, 44)]
    with profiling(True, torch.device("cpu"), torch.float32) as found:
        lengths = [len(g[0].ids) for g in HFSampler(engine, max_batch=4).sample_ids(prompts, 1, max_tokens=40, seed=5)]
    needed = sum(n - 1 for n in lengths)
    waiting = sum(4 * (max(lengths[i:i + 4]) - 1) for i in range(0, 40, 4))
    assert len(set(lengths)) > 5
    assert needed <= found.tokens["decode"] < needed + 0.25 * (waiting - needed)


def test_p3_top_p_logps_are_of_the_kept_distribution():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(2000, 1)
    uniform = torch.rand(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    token, sampled, model = draw(logits, uniform, 1.0, 0.7)
    assert set(token.tolist()) == {0, 1}
    assert torch.allclose(sampled.exp(), torch.tensor([0.5, 0.3])[token] / 0.8, atol=1e-6)
    assert torch.allclose(model.exp(), torch.tensor([0.5, 0.3])[token], atol=1e-6)
    assert (model - sampled).exp().mean() == pytest.approx(0.8, abs=1e-5)  # the kept mass, P3


def test_draw_follows_the_distribution_and_greedy_takes_the_best():
    probs = torch.tensor([0.5, 0.0, 0.3, 0.2])
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    token, _, _ = draw(probs.log().repeat(20_000, 1), uniform, 1.0, 1.0)
    assert torch.allclose(token.bincount(minlength=4) / 20_000, probs, atol=0.015)
    assert draw(probs.log()[None], uniform[:1], 0.0, 1.0)[0].item() == 0


def test_p19_sampler_follows_the_weights(toy_engine):
    engine = toy_engine(lora_rank=2)
    sampler = HFSampler(engine)
    before = sampler.sample_ids([(5, 6)], 2, max_tokens=5, seed=0)[0]
    engine.forward_backward(sft_data([Tree((5, 6), ((7, 7, 7, 3),))]), by_tokens)
    engine.step(0.1)
    engine.forward_backward(sft_data([Tree((5, 6), ((7, 7, 7, 3),))]), by_tokens)
    engine.step(0.1)
    after = sampler.sample_ids([(5, 6)], 2, max_tokens=5, seed=0)[0]
    assert before[0].logps != after[0].logps
    scored = engine.logprobs([Tree((5, 6), tuple(s.ids for s in after))])[0]
    for s, x in zip(after, scored):
        assert torch.allclose(torch.tensor(s.logps), x, atol=1e-5)


def test_reference_is_the_model_before_training(toy_engine):
    engine = toy_engine(lora_rank=4)
    before = engine.logprobs(trees())
    for _ in range(3):
        engine.forward_backward(sft_data(trees()), by_tokens)
        engine.step(0.05)
    reference, now = engine.logprobs(trees(), reference=True), engine.logprobs(trees())
    for b, r, n in zip(before, reference, now):
        assert all(torch.equal(x, y) for x, y in zip(b, r))
        assert not all(torch.allclose(x, y, atol=1e-3) for x, y in zip(b, n))


@pytest.mark.parametrize("kept", [True, False])
def test_chunked_logprobs_equal_log_softmax(monkeypatch, kept):
    monkeypatch.setattr(logprobs, "CHUNK_BYTES", 3 * 11 * 4)  # three rows a chunk
    monkeypatch.setattr(logprobs, "KEEP_BYTES", 1 << 30 if kept else 0)
    torch.manual_seed(0)
    hidden, weight, bias = (torch.randn(s, dtype=torch.float32, requires_grad=True) for s in ((8, 5), (11, 5), (11,)))
    targets, upstream = torch.randint(11, (8,)), torch.randn(8)
    logps, entropy = logprobs.token_logprobs(hidden, weight, bias, targets, 0.7, with_entropy=True)
    logps.backward(upstream)
    ours = [hidden.grad, weight.grad, bias.grad]
    again = [x.detach().clone().requires_grad_() for x in (hidden, weight, bias)]
    full = torch.log_softmax((again[0] @ again[1].T + again[2]) / 0.7, -1)
    expected = full.gather(-1, targets[:, None])[:, 0]
    expected.backward(upstream)
    assert torch.allclose(logps, expected, atol=1e-6)
    assert torch.allclose(entropy, -(full.exp() * full).sum(-1), atol=1e-5)
    for a, b in zip(ours, again):
        assert torch.allclose(a, b.grad, atol=1e-5)


def test_p13_p14_reward_head_reads_the_last_token(toy_engine):
    engine = toy_engine(head="reward", train=False)
    tree = Tree((5, 6), ((7, 8, 3), (9, 3)))
    row = row_of([tree], torch.device("cpu"), keep_last=True)
    assert row.ids[0, row.ends].tolist() == [3, 3]
    assert row.ends.tolist() == [4, 6]
    assert engine.scores([tree])[0].shape == (2,)


def test_p16_head_initialisation(toy_engine):
    engine = toy_engine(head="reward")
    assert engine.head.weight.shape == (1, 64)
    assert engine.head.bias.item() == 0
    torch.manual_seed(0)
    wide = nn.Linear(4095, 1)
    nn.init.normal_(wide.weight, std=1 / math.sqrt(4096))
    assert wide.weight.std().item() == pytest.approx(1 / math.sqrt(4096), rel=0.05)
    heads = torch.cat([toy_engine(head="reward", seed=s).head.weight for s in range(40)])
    assert heads.std().item() == pytest.approx(1 / math.sqrt(65), rel=0.05)


def test_p17_a_value_head_gives_one_number_a_token_and_starts_at_zero(toy_engine):
    engine = toy_engine(head="value")
    out = engine.forward([Tree((5, 6), ((7, 8, 3), (9, 3)))])
    assert out.values_N.shape == out.logps_N.shape == (5,)
    assert torch.equal(out.values_N, torch.zeros(5))


def test_p31_a_ranking_is_encoded_once(toy_engine, monkeypatch):
    """Forward positions = prompt + completions, not pairs; K = 9 weighs what K = 4 weighs."""
    seen = []
    original = attention.row_of
    monkeypatch.setattr("harken.engines.passes.row_of", lambda *a, **k: seen.append(r := original(*a, **k)) or r)
    engine = toy_engine(head="reward")
    nine = Tree((5, 6, 7), tuple((8 + k, 3) for k in range(9)))
    engine.forward_backward([Datum(nine, {"ranks": range(1, 10), "weights": [1.0] * 9})],
                            lambda out, x: k_wise(out.scores_C, x["ranks"], x["weights"], out.sizes))
    assert sum(r.ids.shape[1] for r in seen) == 3 + 9 * 2


def test_p21_adams_epsilon_is_added_after_bias_correction(toy_engine):
    """Three steps of gradient 1e-8 with ε = 1e-8. PyTorch's form: m̂ = √v̂ = 1e-8, each step moves lr / 2, 1.5 lr in all.
    TensorFlow's, ε beside the raw √v = s_t 1e-8 with s_t = √(1 - 0.95^t), moves lr Σ s_t / (s_t + 1) = 0.695 lr."""
    engine = toy_engine(max_grad_norm=0.0)
    name, weight = next(iter(engine.trainable.items()))
    before = weight.detach().clone()
    for _ in range(3):
        weight.grad = torch.full_like(weight, 1e-8)
        engine.step(1e-2)
    assert torch.allclose(before - weight.detach(), torch.full_like(before, 3 * 1e-2 / 2), rtol=1e-3, atol=1e-6), name


def test_p18_dropout_is_off_and_counted():
    from harken.engines.loading import _dropout_off
    model = toy_model("gpt2")
    assert _dropout_off(model) > 0  # GPT-2's own default is 0.1
    model.train()
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(model(ids).logits, model(ids).logits)


def test_prompt_longer_than_the_context_is_one_clear_error(toy_engine):
    with pytest.raises(UserError, match="context of 512"):
        HFSampler(toy_engine(train=False)).sample_ids([(5,) * 510], 1, max_tokens=8)


def test_nan_loss_is_a_user_error(toy_engine):
    engine = toy_engine()
    with pytest.raises(UserError, match="nan"):
        engine.forward_backward(sft_data(trees()), lambda out, x: (out.logps_N.sum() * float("nan"), {}))


def test_sampling_text_round_trip(toy_engine):
    engine = toy_engine(train=False)
    for group in HFSampler(engine).sample([Prompt.of("Say hi."), Prompt.of("Why?")], 2, max_tokens=8):
        for s in group:
            assert s.text == engine.template.decode(s.ids)
            assert len(s.logps) == len(s.model_logps) == len(s.ids)


def test_bfloat16_is_transformers_own_at_late_positions(tmp_path):
    """Rotary frequencies stay in float32, as `from_pretrained(dtype=torch.bfloat16)` keeps them."""
    from transformers import AutoModelForCausalLM
    toy_model().save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    engine = Engine(load(str(tmp_path)), dtype="bfloat16", train=False)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    own, other = dict(engine.model.named_buffers()), dict(theirs.named_buffers())
    assert own.keys() == other.keys()
    for name, buffer in own.items():
        assert buffer.dtype == other[name].dtype and torch.equal(buffer, other[name]), name
    assert all(p.dtype is torch.bfloat16 for p in engine.model.parameters())
    ids = torch.randint(4, 70, (400,), generator=torch.Generator().manual_seed(0)).tolist()
    exact = Engine(load(str(tmp_path)), train=False).logprobs([Tree(tuple(ids[:9]), (tuple(ids[9:]),))])[0][0]
    near = engine.logprobs([Tree(tuple(ids[:9]), (tuple(ids[9:]),))])[0][0]
    early, late = (exact - near).abs().split([200, 191])
    assert late.mean() < 2 * early.mean()


@pytest.mark.parametrize("window,cap", [(None, None), (4, None), (None, 5.0)])
def test_the_block_mask_of_a_card_attends_as_the_kernels_here_do(window, cap):
    """A row of trees with branches, ragged; FlexAttention uncompiled, forward only: it has no backward pass on a CPU."""
    from harken.engines import flex
    from harken.engines.attention import _attend, _Kind, row_of, using
    trees = [Tree((5, 6, 7), ((8, 9, 10, 11), (12, 13), (14,))), Tree((5, 6), ((7, 8),)), Tree((5,) * 9, ((6,) * 5, (7,) * 3))]
    row, generator = row_of(trees, torch.device("cpu"), keep_last=True), torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, row.ids.shape[1], 8, generator=generator) for heads in (4, 2, 2))
    with torch.no_grad(), using(row):
        wanted = _attend(0, query, key, value, _Kind(None, window, cap, None))
        found = flex.attend(query, key, value, row, scaling=None, window=window, cap=cap).transpose(1, 2)
    assert torch.allclose(found, wanted, atol=1e-5)
