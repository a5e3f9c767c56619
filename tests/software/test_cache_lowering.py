"""What a decoder's passes become on the accelerator: exact FLOPs, shrinking reads, the price of deciding."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import topsieve
from software.decoders import VARIANTS, VOCABULARY, generate, prompt, tiny_decoder
from topsieve.methods import describe
from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate
from topsieve_sim.errors import InputError
from topsieve_sim.trace.ops import (
    ArgmaxRow,
    ColumnSum,
    FeedForward,
    Merge,
    Norm,
    Pool1d,
    ProbabilityValue,
    Projection,
    QueryKey,
    RowPick,
    Similarity,
    Threshold,
    TopK,
    TopKScope,
)

PROMPT, TOKENS, BATCH = 12, 4, 2


def passes(family, name, **more):
    model = tiny_decoder(family, attention="eager")
    keep = 0.5 if describe(name.partition(":")[0]).takes_keep else None
    with FlopCounterMode(display=False) as counter, topsieve.reduce(model, name, keep=keep, **more) as r:
        generate(model, prompt([PROMPT] * BATCH), TOKENS)
    # The head makes logits of the last token only.
    head = 2 * 32 * VOCABULARY * BATCH * TOKENS
    return r.record, counter.get_total_flops() - head


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize(
    "name", ["dense", "h2o", "streaming-llm:sinks=2", "tova", "snapkv:window=3", "scissorhands:history=4", "random"]
)
def test_flops_are_those_that_torch_counts(family, name):
    """Exactly: full products of the prompt, and the slots that are left in decoding. No similarity is computed here."""
    record, counted = passes(family, name)
    ops = topsieve.lower(record).ops
    rotary = 0
    if family == "llama":
        # transformers makes its rotary table with a matrix product: frequencies x positions.
        rotary = 2 * 4 * BATCH * (PROMPT + TOKENS - 1)
    assert sum(op.flops for op in ops) in (counted, counted - rotary, counted - rotary // BATCH)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_method_runs_on_the_simulator(name):
    record, _ = passes("llama", name, operands=True)
    trace = topsieve.lower(record, operands=True)
    assert {op.step for op in trace.ops} == set(range(TOKENS))
    assert {op.sequence for op in trace.ops} == set(range(BATCH))
    report = simulate(trace, load_config("spatten"))
    assert report.cycles > 0
    assert trace.flops == topsieve.lower(record).flops


def test_what_is_evicted_is_not_read():
    """Bytes of keys and values of the decoding steps fall with the slots; projections and FFN do not."""
    dense, small = (topsieve.lower(passes("gpt2", name)[0]) for name in ("dense", "streaming-llm:sinks=1"))

    def keys(trace, step):
        return {op.keys for op in trace.ops if isinstance(op, QueryKey) and op.step == step}

    assert [keys(dense, step) for step in range(4)] == [{12}, {13}, {14}, {15}]
    assert [keys(small, step) for step in range(4)] == [{12}, {7}, {7}, {7}]
    for kind in (Projection, FeedForward):
        assert [op for op in dense.ops if isinstance(op, kind)] == [op for op in small.ops if isinstance(op, kind)]
    reports = [simulate(trace, load_config("spatten")) for trace in (dense, small)]
    assert reports[1].dram_bytes_total < reports[0].dram_bytes_total


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("h2o", {ColumnSum, TopK}),
        ("streaming-llm:sinks=1", set()),
        ("tova", {RowPick, TopK}),
        ("snapkv:window=3", {RowPick, Pool1d, TopK}),
        ("knorm:skip_layers=0", {Norm, TopK}),
        ("scissorhands:history=4,recent=2", {RowPick, Threshold, TopK}),
        ("keydiff", {Norm, Merge, Similarity, TopK}),
        ("quest:page_size=2,skip_layers=0", {Similarity, TopK}),
        ("think:window=3", {Norm, TopK}),
        ("d2o:whole_first=0,whole_last=0", {ColumnSum, TopK, Norm, Similarity, ArgmaxRow, Threshold, Merge}),
        ("cam:sinks=1", {ColumnSum, Merge}),
        ("ems:window=3", {ColumnSum, RowPick, TopK, Norm, Similarity, ArgmaxRow, Threshold, Merge}),
        ("spatten", {ColumnSum, TopK}),
    ],
)
def test_deciding_has_its_price(name, kinds):
    trace = topsieve.lower(passes("llama", name)[0])
    plain = {Projection, FeedForward, QueryKey, ProbabilityValue}
    found = {type(op) for op in trace.ops} - plain
    assert {kind for kind in found if kind.kind != "softmax"} == kinds
    assert all(op.scope is TopKScope.TOKEN for op in trace.ops if isinstance(op, TopK))


def test_selection_of_a_step_is_one_slot_too_many():
    trace = topsieve.lower(passes("gpt2", "h2o")[0])
    selections = [op for op in trace.ops if isinstance(op, TopK)]
    assert {(op.n, op.k, op.repeats) for op in selections if op.step == 0} == {(9, 3, 4)}
    assert {(op.n, op.k, op.repeats) for op in selections if op.step > 0} == {(4, 3, 4)}
    shared = topsieve.lower(passes("gpt2", "tova")[0])
    assert {op.repeats for op in shared.ops if isinstance(op, TopK)} == {1}


def test_heads_with_different_slots_are_groups_of_their_own():
    record, _ = passes("llama", "adakv:window=2,kernel=3,alpha=0", operands=True)
    trace = topsieve.lower(record, operands=True)
    last = [op for op in trace.ops if isinstance(op, QueryKey) and op.step == TOKENS - 1]
    ragged = [op for op in last if op.kv_heads == 1]
    assert ragged
    assert {op.heads for op in ragged} == {2}
    for index, op in enumerate(trace.ops):
        if isinstance(op, QueryKey):
            assert trace.operands[index, "key"].shape == (op.kv_heads, op.keys, op.head_dim)


def test_operands_are_what_attention_took():
    record, _ = passes("gpt2", "h2o", operands=True)
    trace = topsieve.lower(record, operands=True)
    index, op = next((i, op) for i, op in enumerate(trace.ops) if isinstance(op, QueryKey) and op.step == 2)
    layer = record.passes[2][0]
    wanted = torch.stack([layer.key[row][layer.valid[row]] for row in range(4)]).float().detach().numpy()
    assert (trace.operands[index, "key"] == wanted).all()
    assert op.keys == wanted.shape[1] == 7


def test_only_live_passes_are_lowered():
    with pytest.raises(InputError, match="lowered live"):
        topsieve.lower(passes("gpt2", "dense")[0], mode="padded")
