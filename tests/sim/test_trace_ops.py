"""Operations and attention groups refuse what cannot be, and say which field."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.trace_strategies import attention_ops, traces
from topsieve_sim.errors import InputError
from topsieve_sim.trace import OP_KINDS, AttentionGroup, SingleOp, Trace
from topsieve_sim.trace.ops import FeedForward, ProbabilityValue, Projection, QueryKey, Softmax, TopK, TopKScope

QUERY_KEY = QueryKey(layer=0, heads=4, kv_heads=2, queries=3, keys=5, head_dim=8, key_msb_bits=6, key_lsb_bits=4)
SOFTMAX = Softmax(layer=0, heads=4, rows=3, cols=5)
CLOSING = ProbabilityValue(layer=0, heads=4, kv_heads=2, queries=3, keys=5, kept=5, head_dim=8)


@given(traces())
def test_units_cover_the_trace_in_order(trace: Trace) -> None:
    covered = []
    for unit in trace.units():
        if isinstance(unit, AttentionGroup):
            assert trace.ops[unit.start] is unit.query_key
            assert trace.ops[unit.stop - 1] is unit.probability_value
            covered += range(unit.start, unit.stop)
        else:
            assert isinstance(unit, SingleOp)
            assert trace.ops[unit.index] is unit.op
            covered.append(unit.index)
    assert covered == list(range(len(trace.ops)))


@given(attention_ops(), st.data())
def test_every_integer_field_has_a_floor(ops: list, data: st.DataObject) -> None:
    op = data.draw(st.sampled_from(ops))
    name = data.draw(st.sampled_from([f.name for f in dataclasses.fields(op) if f.type == "int"]))
    for value in (-2, 1.5, True, "1", None):
        with pytest.raises(InputError, match=rf"{op.kind}\.{name}"):
            dataclasses.replace(op, **{name: value})


@given(traces(), st.data())
def test_a_trace_that_lost_an_operation_of_a_group_is_refused(trace: Trace, data: st.DataObject) -> None:
    group = data.draw(st.sampled_from(list(trace.attention_groups())))
    taps = [op for op in (group.value_topk, group.softmax, group.query_key, group.probability_value) if op is not None]
    lost = data.draw(st.sampled_from(taps))
    with pytest.raises(InputError, match=r"op \d+"):
        Trace(tuple(op for op in trace.ops if op is not lost))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kv_heads": 3}, "kv_heads"),
        ({"lsb_rows": 13}, "lsb_rows"),
        ({"key_lsb_bits": 0, "lsb_rows": 1}, "lsb_rows"),
        ({"key_msb_bits": 33, "key_lsb_bits": 0}, "key_msb_bits"),
        ({"key_lsb_bits": 27}, "key_lsb_bits"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": 1}, "threshold"),
    ],
)
def test_query_key_fields_must_agree(changes: dict, field: str) -> None:
    with pytest.raises(InputError, match=rf"query_key\.{field}"):
        dataclasses.replace(QUERY_KEY, **changes)


def test_other_contradictions_are_refused() -> None:
    with pytest.raises(InputError, match=r"topk\.k.*0 to n = 4"):
        TopK(layer=0, n=4, k=5, scope=TopKScope.TOKEN)
    with pytest.raises(InputError, match=r"topk\.scope"):
        TopK(layer=0, n=4, k=2, scope="token")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"projection\.role.*qkv"):
        Projection(layer=0, tokens=1, inputs=1, outputs=1, role="x")
    with pytest.raises(InputError, match=r"probability_value\.kept"):
        dataclasses.replace(CLOSING, kept=6)


@pytest.mark.parametrize(
    ("ops", "problem"),
    [
        ((), "at least one"),
        ((QUERY_KEY, SOFTMAX), "no probability_value"),
        ((QUERY_KEY, CLOSING), "before the softmax"),
        ((SOFTMAX,), "outside an attention group"),
        ((QUERY_KEY, SOFTMAX, SOFTMAX, CLOSING), "comes twice"),
        ((QUERY_KEY, dataclasses.replace(SOFTMAX, cols=4), CLOSING), "cols is 4, the query_key at op 0 says 5"),
        ((QUERY_KEY, SOFTMAX, dataclasses.replace(CLOSING, layer=1)), "layer is 1"),
        ((QUERY_KEY, SOFTMAX, dataclasses.replace(CLOSING, kept=4)), "keeps 4 value rows, the group's top-k keeps 5"),
        (
            (QUERY_KEY, SOFTMAX, FeedForward(layer=0, tokens=1, width=1, hidden=1), CLOSING),
            "inside the attention group",
        ),
        ((QUERY_KEY, SOFTMAX, TopK(layer=0, n=5, k=2, scope=TopKScope.TOKEN), CLOSING), "inside the attention group"),
        ((TopK(layer=0, n=5, k=2, scope=TopKScope.VALUE),), "outside an attention group"),
    ],
)
def test_malformed_traces_are_refused(ops: tuple, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Trace(ops)


def operands() -> dict[tuple[int, str], np.ndarray]:
    ones = {name: np.ones(QUERY_KEY.operand_shape(name), np.float32) for name in ("query", "key", "bias")}
    return {(0, name): array for name, array in ones.items()} | {(2, "value"): np.ones((2, 5, 8), np.float32)}


def test_operands_are_checked() -> None:
    ops = (QUERY_KEY, SOFTMAX, CLOSING)
    assert Trace(ops, operands()).has_attention_operands
    assert not Trace(ops).has_attention_operands
    for lost in ((0, "query"), (0, "key"), (2, "value")):
        kept = {place: array for place, array in operands().items() if place != lost}
        with pytest.raises(InputError, match=rf"op {lost[0]} .*: {lost[1]}: operand is missing"):
            Trace(ops, kept)
    wrong = {
        "wrong shape": {(0, "query"): np.ones((4, 3, 7), np.float32)},
        "wrong dtype": {(0, "key"): np.ones((2, 5, 8), np.float64)},
        "not finite": {(2, "value"): np.full((2, 5, 8), np.nan, np.float32)},
        "unknown operand": {(1, "scores"): np.ones(1, np.float32)},
        "without an operation": {(3, "scores"): np.ones(1, np.float32)},
    }
    for problem, change in wrong.items():
        with pytest.raises(InputError, match=problem):
            Trace(ops, operands() | change)


def test_counts_of_work() -> None:
    """Two FLOPs a multiply-accumulate of a matrix product; keys and values in bits, once a key head."""
    trace = Trace((QUERY_KEY, SOFTMAX, CLOSING))
    assert trace.macs == 4 * 3 * 5 * 8 * 2
    assert trace.flops == trace.attention_flops == 2 * trace.macs
    (group,) = trace.attention_groups()
    assert group.key_bits == 2 * 5 * 8 * 6
    assert group.value_bits == 2 * 5 * 8 * 12
    assert trace.key_value_bytes == 2 * 5 * 8 * (6 + 12) // 8
    for rows, planes in ((-1, 0), (1, 1), (2, 2), (12, 2)):
        (group,) = Trace((dataclasses.replace(QUERY_KEY, lsb_rows=rows), SOFTMAX, CLOSING)).attention_groups()
        assert group.key_bits == 5 * 8 * (2 * 6 + planes * 4)


def test_every_kind_is_listed_under_its_name() -> None:
    assert all(name == kind.kind for name, kind in OP_KINDS.items())
