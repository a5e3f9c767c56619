"""Lowered traces: FLOPs to the last digit, order of operations, real operands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import topsieve
from software.encoders import ragged_batch, relative, tiny_encoder
from software.vision_models import VISION_METHODS
from topsieve.methods import describe, method_names
from topsieve.record import Record, dense_record
from topsieve.reduction.roles import BitPlan, ModelShape
from topsieve_sim.errors import InputError
from topsieve_sim.trace import AttentionGroup, TopKScope, Trace, load_trace, save_trace
from topsieve_sim.trace.ops import FeedForward, Gather, Merge, ProbabilityValue, Projection, QueryKey, Similarity, TopK

LENGTHS = (19, 7, 12)
PROGRESSIVE = "spatten:quantisation=4+4,lsb_threshold=0.4"
EVERYTHING = "spatten:keep=0.5,head_keep=0.5,value_keep=0.3,protect_first=1"
ON_LAYERS = tuple(name for name in method_names() if "layers" in describe(name).acts_on and name not in VISION_METHODS)
METHODS = (*ON_LAYERS, EVERYTHING, "spatten:schedule=stepwise", "ltp:final_token_threshold=0.1", "tome:r=2")
MINILM = ModelShape("minilm", "bert", layers=6, heads=12, kv_heads=12, head_dim=32, width=384, ffn_width=1536)


def run(method: str, lengths: tuple[int, ...] = LENGTHS, **options: object) -> tuple[Record, int]:
    """The record, and the FLOPs that torch counts over the layers (the pooler is not part of a trace)."""
    model = tiny_encoder(attention="eager", num_hidden_layers=4)
    with torch.no_grad(), topsieve.reduce(model, method, **options) as reduced:
        with FlopCounterMode(display=False) as counter:
            model(**ragged_batch(lengths))
        counted = sum(counter.flop_counts["Global"].values()) - pooler_flops(len(lengths))
        return reduced.record, counted


def pooler_flops(sequences: int, width: int = 32) -> int:
    return 2 * sequences * width * width


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lengths", [(16,), LENGTHS])
def test_padded_flops_equal_the_flop_counter(method: str, lengths: tuple[int, ...]) -> None:
    record, counted = run(method, lengths)
    assert topsieve.lower(record, mode="padded").flops == counted


def test_progressive_quantisation_is_counted_once_more_by_torch() -> None:
    record, counted = run(PROGRESSIVE)
    trace = topsieve.lower(record, mode="padded")
    planes = sum(op.flops for op in trace.ops if isinstance(op, QueryKey))
    assert trace.flops + planes == counted


def test_the_published_dense_number() -> None:
    """MiniLM on 36 tokens: 776,355,840 FLOPs (specification `reduction-interface`, section 0)."""
    assert topsieve.lower(dense_record(MINILM, torch.tensor([36]))).flops == 776_355_840


def test_one_sequence_without_padding_is_the_same_in_both_modes() -> None:
    for method in ("dense", "spatten", "powerbert", "tome"):
        record, _ = run(method, (16,))
        assert topsieve.lower(record).ops == topsieve.lower(record, mode="padded").ops


def test_a_live_trace_is_the_sum_of_its_sequences_alone() -> None:
    together = topsieve.lower(run(EVERYTHING)[0])
    assert together.flops < topsieve.lower(run(EVERYTHING)[0], mode="padded").flops
    assert {op.sequence for op in together.ops} == {0, 1, 2}
    dense = topsieve.lower(run("dense")[0])
    alone = sum(topsieve.lower(dense_record(run("dense")[0].shape, torch.tensor([n]))).flops for n in LENGTHS)
    assert dense.flops == alone


def kinds(trace: Trace, layer: int) -> list[str]:
    return [op.kind for op in trace.ops if op.layer == layer]


def test_order_of_operations() -> None:
    trace = topsieve.lower(run(EVERYTHING, (16,))[0])
    assert kinds(trace, 2) == [
        "projection",
        "query_key",
        "softmax",
        "column_sum",
        "head_sum",
        "topk",
        "probability_value",
        "projection",
        "topk",
        "gather",
        "topk",
        "feed_forward",
    ]
    scopes = [op.scope for op in trace.ops if isinstance(op, TopK) and op.layer == 2]
    assert scopes == [TopKScope.VALUE, TopKScope.TOKEN, TopKScope.HEAD]
    assert kinds(topsieve.lower(run("evit", (16,))[0]), 1)[1:5] == [
        "query_key",
        "softmax",
        "row_pick",
        "probability_value",
    ]
    merging = kinds(topsieve.lower(run("tome", (16,))[0]), 1)
    assert merging[4:] == ["projection", "norm", "similarity", "argmax_row", "topk", "gather", "merge", "feed_forward"]


def test_counts_follow_the_record() -> None:
    record, _ = run(EVERYTHING)
    trace = topsieve.lower(record)
    for sequence in range(3):
        ops = [op for op in trace.ops if op.sequence == sequence]
        for layer in record.layers:
            tokens, heads = int(layer.attention_tokens[sequence]), int(layer.heads[sequence].sum())
            here = [op for op in ops if op.layer == layer.layer]
            qkv, projection_o = [op for op in here if isinstance(op, Projection)]
            assert (qkv.tokens, qkv.inputs, qkv.outputs) == (tokens, 32, 3 * heads * 8)
            assert (projection_o.inputs, projection_o.outputs) == (heads * 8, 32)
            (query_key,) = [op for op in here if isinstance(op, QueryKey)]
            assert (query_key.heads, query_key.kv_heads, query_key.queries, query_key.keys) == (
                heads,
                heads,
                tokens,
                tokens,
            )
            (weighted,) = [op for op in here if isinstance(op, ProbabilityValue)]
            assert weighted.kept == max(1, 3 * tokens // 10)
            (ffn,) = [op for op in here if isinstance(op, FeedForward)]
            assert ffn.tokens == int(layer.ffn_tokens[sequence])
            for gather in (op for op in here if isinstance(op, Gather)):
                assert gather.rows == ffn.tokens
    merges = [op for op in topsieve.lower(run("tome")[0]).ops if isinstance(op, Merge | Similarity)]
    assert merges


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def importance_from(trace: Trace, record: Record, sequence: int) -> list[np.ndarray]:
    """SpAtten's cumulative column sums, recomputed in float64 from the operands of a trace."""
    state = np.zeros(record.layers[0].attention_padded)
    seen = []
    for layer, group in enumerate(g for g in trace.attention_groups() if g.query_key.sequence == sequence):
        query, key = (trace.operand(group.start, name).astype(np.float64) for name in ("query", "key"))
        columns = softmax(query @ key.transpose(0, 2, 1) / np.sqrt(8)).sum((0, 1))
        positions = record.layers[layer].positions[sequence]
        live = positions[positions >= 0].numpy()
        state[live] += columns
        seen.append(state[live])
    return seen


def test_operands_replay_the_decisions() -> None:
    """Column sums from the trace's queries and keys are the scores its top-k operations hold, and choose the same."""
    record, _ = run("spatten", operands=True)
    trace = topsieve.lower(record, operands=True)
    assert trace.has_attention_operands
    for sequence in range(3):
        importance = importance_from(trace, record, sequence)
        selections = [
            (index, op)
            for index, op in enumerate(trace.ops)
            if isinstance(op, TopK) and op.scope is TopKScope.TOKEN and op.sequence == sequence
        ]
        assert selections
        for index, op in selections:
            scores = trace.operand(index, "scores")
            assert scores.shape == (1, op.n)
            assert np.allclose(scores[0], importance[op.layer], rtol=1e-5)
            decision = record.layers[op.layer].decisions[0]
            kept = decision.reduction.keep[sequence][decision.reduction.valid[sequence]].numpy()
            assert np.array_equal(np.sort(np.argsort(-scores[0], kind="stable")[: op.k]), kept)


def test_operands_are_the_models_own() -> None:
    model = tiny_encoder(attention="eager")
    batch = ragged_batch(LENGTHS)
    with torch.no_grad(), topsieve.reduce(model, "dense", operands=True) as reduced:
        states = model(**batch, output_hidden_states=True).hidden_states
    trace = topsieve.lower(reduced.record, operands=True)
    groups = list(trace.attention_groups())
    for group in groups:
        op = group.query_key
        attention = model.encoder.layer[op.layer].attention.self
        live = states[op.layer][op.sequence, : op.keys]
        with torch.no_grad():
            for name, index in (("query", group.start), ("key", group.start), ("value", group.stop - 1)):
                wanted = getattr(attention, name)(live).view(-1, 4, 8).transpose(0, 1)
                assert relative(torch.tensor(trace.operand(index, name)), wanted) < 1e-5


def test_operands_of_dropped_heads_and_protected_tokens_are_left_out() -> None:
    record, _ = run(EVERYTHING, operands=True)
    trace = topsieve.lower(record, operands=True)
    for index, op in enumerate(trace.ops):
        if isinstance(op, TopK) and op.scope is not TopKScope.VALUE:
            assert trace.operand(index, "scores").shape == (1, op.n)
    tokens = [op for op in trace.ops if isinstance(op, TopK) and op.scope is TopKScope.TOKEN]
    first = record.layers[tokens[0].layer]
    assert tokens[0].n == int(first.attention_tokens[0]) - 1


def test_merged_tokens_carry_their_bias() -> None:
    record, _ = run("tome", operands=True)
    trace = topsieve.lower(record, operands=True)
    for group in trace.attention_groups():
        assert group.softmax.size_bias
        layer = record.layers[group.query_key.layer]
        size = np.exp(trace.operand(group.start, "bias"))
        live = layer.valid[group.query_key.sequence]
        assert np.allclose(size, layer.size[group.query_key.sequence][live])
        assert np.isclose(size.sum(), LENGTHS[group.query_key.sequence])


def test_a_lowered_trace_survives_its_file(tmp_path) -> None:
    trace = topsieve.lower(run(PROGRESSIVE, operands=True)[0], operands=True)
    save_trace(trace, tmp_path / "trace.npz")
    loaded = load_trace(tmp_path / "trace.npz")
    assert loaded.ops == trace.ops
    assert loaded.method == trace.method == PROGRESSIVE
    assert all(np.array_equal(loaded.operands[key], trace.operands[key]) for key in trace.operands)


def test_bits_come_from_the_method_or_from_the_caller() -> None:
    def first(method: str, **options: object) -> AttentionGroup:
        return next(topsieve.lower(run(method)[0], **options).attention_groups())

    plain = first("dense").query_key
    assert (plain.query_bits, plain.key_msb_bits, plain.key_lsb_bits, plain.lsb_rows) == (32, 32, 0, 0)
    machine = BitPlan(query_bits=12, key_msb_bits=8, key_lsb_bits=4, value_bits=10, threshold=0.2)
    given = first("dense", bits=machine)
    assert (given.query_key.key_msb_bits, given.query_key.key_lsb_bits, given.query_key.threshold) == (8, 4, 0.2)
    assert given.query_key.lsb_rows == -1
    assert given.probability_value.value_bits == 10
    own = first(PROGRESSIVE, bits=machine).query_key
    assert (own.key_msb_bits, own.key_lsb_bits, own.threshold) == (4, 4, 0.4)
    assert own.lsb_rows > 0


def test_what_cannot_be_lowered_is_refused() -> None:
    record, _ = run("spatten")
    with pytest.raises(InputError, match="kept no operands"):
        topsieve.lower(record, operands=True)
    with pytest.raises(InputError, match="operands are of live tokens only"):
        topsieve.lower(record, operands=True, mode="padded")
    with pytest.raises(InputError, match=r"mode.*live, padded"):
        topsieve.lower(record, mode="dense")
