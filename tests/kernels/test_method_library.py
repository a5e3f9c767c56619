"""The method library through the kernels: the same sums, choices and rows as in plain torch, on operands and in whole models.

Kernels run in the interpreter; on a CUDA device the library takes the same paths by itself.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import topsieve
from software.decoders import generate, prompt, tiny_decoder
from software.encoders import ragged_batch, tiny_encoder
from topsieve.cache import attention as cache_attention
from topsieve.cache.roles import Taps
from topsieve.kernel_choice import kernels, uses_kernels
from topsieve.models.attention import attend
from topsieve.reduction import Reduction
from topsieve.reduction.ordering import compact, top_k_mask
from topsieve.reduction.roles import AttentionPolicy, Signal
from topsieve.reduction.selectors.bipartite import best_edges

# float32 on both sides, in another order of additions.
BOUND = 1e-5
SIGNALS = frozenset(
    {
        Signal.ATTENTION_COLUMN_SUM,
        Signal.ATTENTION_DIAGONAL,
        Signal.ATTENTION_CLS_ROW,
        Signal.ATTENTION_LAST_ROW,
        Signal.ATTENTION_CLS_LOGITS,
        Signal.HEAD_ABSOLUTE_SUM,
        Signal.KEY,
    }
)

pytestmark = pytest.mark.usefixtures("interpreter")


def spied(kernel, seen):
    def call(*arguments, **named):
        seen.append(kernel.__name__)
        return kernel(*arguments, **named)

    return call


@pytest.fixture
def launches(monkeypatch):
    """Names of the kernels that were launched."""
    import topsieve_kernels.attention_score_sum
    import topsieve_kernels.decode
    import topsieve_kernels.gather
    import topsieve_kernels.importance
    import topsieve_kernels.matching
    import topsieve_kernels.selection

    seen = []
    for module, name in (
        (topsieve_kernels.importance, "attention_importance"),
        (topsieve_kernels.attention_score_sum, "score_sum"),
        (topsieve_kernels.decode, "decode_gathered"),
        (topsieve_kernels.gather, "gather_rows"),
        (topsieve_kernels.matching, "best_partners"),
        (topsieve_kernels.selection, "topk_select"),
    ):
        monkeypatch.setattr(module, name, spied(getattr(module, name), seen))
    return seen


def in_both_ways(call):
    with kernels("never"):
        plain = call()
    with kernels("always"):
        return plain, call()


def operands(batch, heads, key_heads, tokens, width, padded, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, heads, tokens, width, generator=generator)
    key, value = (torch.randn(batch, key_heads, tokens, width, generator=generator) for _ in range(2))
    valid = torch.ones(batch, tokens, dtype=torch.bool)
    if padded:
        valid[0, : tokens // 3] = False
        valid[-1, tokens // 2] = False
    return query, key, value, valid


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("heads", "key_heads"), [(3, 3), (4, 2)])
def test_attention_and_every_signal(relative_error, launches, heads, key_heads, causal, padded):
    query, key, value, valid = operands(2, heads, key_heads, 37, 16, padded)
    live_heads = torch.ones(2, heads, dtype=torch.bool)
    live_heads[0, 1] = False

    def call():
        return attend(
            query, key, value, valid=valid, heads=live_heads, size=valid.float(), scaling=0.25,
            policy=AttentionPolicy(), needs=SIGNALS, causal=causal,
        )  # fmt: skip

    plain, found = in_both_ways(call)
    assert launches == ["attention_importance"] + ["score_sum"] * padded
    # A padded row before the first live one has no key under a causal mask: uniform in torch, nothing in a kernel.
    rows = valid[:, :, None, None] if causal else torch.ones_like(valid)[:, :, None, None]
    assert relative_error(found.output * rows, plain.output * rows) < BOUND
    assert found.signals.keys() == plain.signals.keys() == SIGNALS
    for signal in SIGNALS:
        assert found.signals[signal].shape == plain.signals[signal].shape
        assert found.signals[signal].dtype == plain.signals[signal].dtype
        assert relative_error(found.signals[signal], plain.signals[signal]) < BOUND, signal


@pytest.mark.parametrize(
    "policy", [AttentionPolicy(value_keep=0.5), AttentionPolicy(size_bias=True), AttentionPolicy(softmax_one=True)]
)
def test_what_a_kernel_does_not_do_stays_in_torch(launches, policy):
    query, key, value, valid = operands(1, 2, 2, 9, 8, False)

    def call():
        return attend(
            query, key, value, valid=valid, heads=torch.ones(1, 2, dtype=torch.bool), size=2 * valid.float(),
            scaling=0.3, policy=policy, needs=SIGNALS,
        )  # fmt: skip

    plain, found = in_both_ways(call)
    assert found.output.equal(plain.output)
    assert not launches


def cache_call(query, key, value, valid, columns, query_columns, live_queries, heads, taps):
    return cache_attention.attend(
        query, key, value, valid=valid, columns=columns, query_columns=query_columns, live_queries=live_queries,
        heads=heads, scaling=0.25, taps=taps, policy=AttentionPolicy(),
    )  # fmt: skip


def same_seen(relative_error, found, plain, rows):
    assert relative_error(found.output * rows, plain.output * rows) < BOUND
    for name in ("column_sum", "window", "head_sum"):
        ours, theirs = getattr(found, name), getattr(plain, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.shape == theirs.shape
            assert relative_error(ours, theirs) < BOUND, name


@pytest.mark.parametrize("taps", [Taps(), Taps(column_sum=True, window=5, head_sum=True), Taps(window=50)])
def test_a_prompt_over_its_own_slots(relative_error, launches, taps):
    query, key, value, valid = operands(3, 2, 1, 30, 16, True)
    columns = torch.arange(30).expand(3, 30)
    live_queries = valid.clone()
    live_queries[1, 7] = False
    heads = torch.tensor([[True, True], [True, False], [True, True]])
    plain, found = in_both_ways(
        lambda: cache_call(query, key[:, 0], value[:, 0], valid, columns, torch.arange(30), live_queries, heads, taps)
    )
    assert "attention_importance" in launches
    same_seen(relative_error, found, plain, valid[:, None, :, None])


@pytest.mark.parametrize("taps", [Taps(), Taps(column_sum=True, window=1, head_sum=True)])
def test_a_step_over_the_slots_that_are_left(relative_error, launches, taps):
    query, key, value, valid = operands(3, 2, 1, 30, 16, True)
    valid[2] = False
    columns = torch.arange(30).expand(3, 30) * 2
    heads = torch.tensor([[True, True], [True, False], [True, True]])
    live_queries = torch.tensor([[True], [True], [False]])
    # Slots after column 40 are not seen yet.
    step = torch.tensor([40])
    plain, found = in_both_ways(
        lambda: cache_call(query[:, :, :1], key[:, 0], value[:, 0], valid, columns, step, live_queries, heads, taps)
    )
    assert launches == ["decode_gathered"]
    same_seen(relative_error, found, plain, 1.0)


def test_later_turns_of_a_prompt_stay_in_torch(launches):
    query, key, value, valid = operands(1, 2, 1, 12, 8, False)
    columns = torch.arange(12)[None]
    heads = torch.ones(1, 2, dtype=torch.bool)
    plain, found = in_both_ways(
        lambda: cache_call(
            query[:, :, 4:], key[:, 0], value[:, 0], valid, columns, torch.arange(4, 12), valid[:, 4:], heads, Taps()
        )
    )
    assert found.output.equal(plain.output)
    assert not launches


SCORES = st.sampled_from([0.0, -0.0, 1.0, 1.0, 2.5, -3.0, math.inf, -math.inf, math.nan])


@given(st.data(), st.integers(1, 3), st.integers(1, 12), st.integers(0, 14))
@settings(max_examples=40, deadline=None)
def test_choices_are_the_same(data, rows, columns, count):
    scores = torch.tensor(data.draw(st.lists(SCORES, min_size=rows * columns, max_size=rows * columns)))
    eligible = torch.tensor(data.draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns)))
    scores, eligible = scores.view(rows, columns), eligible.view(rows, columns)
    counts = torch.full((rows,), count)
    plain, found = in_both_ways(lambda: top_k_mask(scores, counts, eligible))
    assert found.equal(plain)


def test_ragged_counts_stay_in_torch(launches):
    scores, eligible = torch.randn(2, 9), torch.ones(2, 9, dtype=torch.bool)
    plain, found = in_both_ways(lambda: top_k_mask(scores, torch.tensor([3, 4]), eligible))
    assert found.equal(plain)
    assert not launches
    in_both_ways(lambda: top_k_mask(scores, torch.tensor([3, 3]), eligible))
    assert launches == ["topk_select"]


@pytest.mark.parametrize("tokens", [2, 9, 30])
def test_partners_are_the_same(relative_error, launches, tokens):
    metric = torch.randn(3, tokens, 12, generator=torch.Generator().manual_seed(tokens))
    free = torch.ones(3, tokens, dtype=torch.bool)
    free[:, 0] = False
    (edge, partner), (found_edge, found_partner) = in_both_ways(lambda: best_edges(metric, free))
    assert launches == ["best_partners"]
    open_edges = edge > -math.inf
    assert torch.equal(found_edge > -math.inf, open_edges)
    assert relative_error(found_edge[open_edges], edge[open_edges]) < BOUND
    assert torch.equal(found_partner[open_edges], partner[open_edges])
    free[1, 1] = False
    in_both_ways(lambda: best_edges(metric, free))
    assert launches == ["best_partners"]


def test_kept_rows_come_out_bit_equal(launches):
    chosen = torch.tensor([[True, False, True, True, False], [False, False, True, False, False]])
    keep, valid = compact(chosen)
    size = valid.float()
    reduction = Reduction(5, keep, valid, keep, size, torch.zeros(2, 5))
    hidden = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    hidden[0, 2, 3] = math.nan
    plain, found = in_both_ways(lambda: reduction.apply(hidden))
    assert launches == ["gather_rows"]
    assert torch.equal(found.view(torch.int32), plain.view(torch.int32))


@pytest.mark.parametrize(
    ("name", "used"),
    [
        ("spatten", {"attention_importance", "topk_select", "gather_rows"}),
        ("spatten:head_keep=0.5", {"attention_importance", "topk_select", "gather_rows"}),
        # Its pruned tokens are fused into one, which is no gather.
        ("evit", {"attention_importance", "topk_select"}),
        # Its attention weighs keys by size, and its merge is a sum.
        ("tome", {"best_partners", "topk_select"}),
    ],
)
def test_an_encoder_keeps_the_same_tokens(relative_error, launches, name, used):
    model = tiny_encoder()
    batch = ragged_batch((24, 24))

    def call():
        with topsieve.reduce(model, name, keep=0.5) as r:
            return model(**batch).last_hidden_state, r.record

    with torch.no_grad():
        (plain, plain_record), (found, found_record) = in_both_ways(call)
    assert set(launches) == used
    for ours, theirs in zip(found_record.layers, plain_record.layers, strict=True):
        assert torch.equal(ours.positions, theirs.positions)
        assert torch.equal(ours.heads, theirs.heads)
    # Four layers, each magnifying the rounding of the one before.
    assert relative_error(found, plain) < 10 * BOUND


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", ["h2o", "snapkv:window=3,kernel=3", "streaming-llm:sinks=2", "spatten"])
def test_a_decoder_says_the_same(relative_error, launches, family, name):
    model, batch = tiny_decoder(family).float(), prompt([12, 9])

    def call():
        with topsieve.reduce(model, name, keep=0.5) as r:
            return generate(model, batch, 4), r.record.held_bytes

    (plain, plain_held), (found, found_held) = in_both_ways(call)
    assert {"decode_gathered", "gather_rows"} <= set(launches)
    assert found_held == plain_held
    assert relative_error(found, plain) < 10 * BOUND


def test_operands_that_want_gradients_stay_in_torch():
    plain = torch.zeros(2)
    wants = torch.zeros(2, requires_grad=True)
    with kernels("always"):
        assert uses_kernels(plain)
        assert not uses_kernels(plain, wants)
        assert not uses_kernels(plain.double())
        with torch.no_grad():
            assert uses_kernels(wants)
        with kernels("never"):
            assert not uses_kernels(plain)
        assert uses_kernels(plain)
    # A CPU has no kernels of its own accord.
    assert not uses_kernels(plain)
    with pytest.raises(ValueError, match=r"^mode: got 'sometimes'"), kernels("sometimes"):
        raise AssertionError
