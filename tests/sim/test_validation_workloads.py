"""Workloads that the validation rebuilds from published counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topsieve_sim.trace import load_workload
from topsieve_sim.trace.ops import HeadSum, TopK, TopKScope
from topsieve_sim.validation.workloads import (
    BERT_LARGE,
    BERT_TASK_TOKENS,
    GPT2_MEDIUM,
    MEDIUM_DENSE,
    MEDIUM_WIKITEXT2,
    Encoder,
    all_heads,
    at_widths,
    bert_trace,
    decode_flops,
    decode_trace,
    linear_trace,
    scaled_to_flops,
)


def test_medium_totals_are_the_released_files() -> None:
    """Specification `accelerator`, section 1.6: bytes of K and V, FLOPs and rows of both files of GPT-2-Medium."""
    pruned, dense = decode_trace(MEDIUM_WIKITEXT2, "pruned"), decode_trace(MEDIUM_DENSE, "dense")
    assert (round(pruned.key_value_bytes / 1e6, 1), round(dense.key_value_bytes / 1e6, 1)) == (708.0, 6344.9)
    assert (round(pruned.attention_flops / 1e9, 3), round(dense.attention_flops / 1e9, 3)) == (1.023, 3.172)
    rows = [sum(group.query_key.heads for group in trace.attention_groups()) for trace in (pruned, dense)]
    assert rows == [11328, 12288]


def test_medium_counts_by_layer() -> None:
    groups = list(decode_trace(MEDIUM_WIKITEXT2, "pruned").attention_groups())
    first, last = groups[:24], groups[-24:]
    assert {group.query_key.keys for group in first} == {993}
    assert {group.probability_value.kept for group in first} == {307}
    kept = [(group.query_key.keys, group.probability_value.kept) for group in last]
    assert kept == [(1024, 307)] * 2 + [(921, 276)] + [(819, 245)] * 2 + [(614, 184)] * 6 + [(307, 92)] * 13


def test_selections_stand_where_the_counts_fall() -> None:
    ops = [op for op in decode_trace(MEDIUM_WIKITEXT2, "pruned").ops if op.step == 31]
    tokens = [(op.layer, op.n, op.k) for op in ops if isinstance(op, TopK) and op.scope is TopKScope.TOKEN]
    heads = [(op.layer, op.n, op.k) for op in ops if isinstance(op, TopK) and op.scope is TopKScope.HEAD]
    assert tokens == [(1, 1024, 921), (2, 921, 819), (4, 819, 614), (10, 614, 307)]
    assert heads == [(15, 16, 13), (21, 13, 10)]
    assert [op.layer for op in ops if isinstance(op, HeadSum)] == list(range(22))
    dense = decode_trace(MEDIUM_DENSE, "dense").ops
    assert not any(isinstance(op, TopK | HeadSum) for op in dense)


@pytest.mark.parametrize("schedule", [MEDIUM_WIKITEXT2, MEDIUM_DENSE, all_heads(MEDIUM_WIKITEXT2)])
def test_closed_form_flops_are_the_traces(schedule) -> None:
    assert decode_flops(schedule) == decode_trace(schedule, "any").attention_flops


@given(share=st.floats(0.4, 1.0))
def test_scaling_meets_the_work_from_below(share: float) -> None:
    whole = decode_flops(MEDIUM_WIKITEXT2)
    scaled = scaled_to_flops(MEDIUM_WIKITEXT2, share * whole)
    # A step of the factor moves each pruned layer by at most one key more than a thousandth of its keys.
    step = 31 * 2 * 64 * sum((keys // 1000 + 2) * 1.3 * 16 for keys in MEDIUM_WIKITEXT2.keys if keys is not None)
    assert share * whole - step <= decode_flops(scaled) <= share * whole
    assert scaled.heads == MEDIUM_WIKITEXT2.heads


def test_widths_change_bytes_and_nothing_else() -> None:
    trace = load_workload("gpt2-small-wikitext2-pruned")
    wide = at_widths(trace, 32, 32)
    assert wide.attention_flops == trace.attention_flops
    # One multiply-accumulate, two FLOPs, an element of four bytes.
    assert wide.key_value_bytes == 2 * wide.attention_flops
    assert [type(op) for op in wide.ops] == [type(op) for op in trace.ops]
    assert 2 * at_widths(trace, 16, 16).key_value_bytes == wide.key_value_bytes


@given(layers=st.integers(1, 3), heads=st.integers(1, 4), tokens=st.integers(1, 40))
def test_bert_work(layers: int, heads: int, tokens: int) -> None:
    trace = bert_trace(Encoder(layers, heads), tokens)
    assert trace.attention_flops == layers * heads * tokens * tokens * 64 * 4
    assert trace.key_value_bytes == layers * heads * tokens * 64 * 2 * 12 // 8


def test_bert_has_eleven_tasks_and_large_shape() -> None:
    assert len(BERT_TASK_TOKENS) == 11
    assert (bert_trace(BERT_LARGE, 4).layers, bert_trace(BERT_LARGE, 4).heads) == (24, 16)


def test_linear_layers_of_gpt2_medium() -> None:
    """24 layers of 12 x 1024 x 1024 weights, 32 tokens (specification `accelerator`, section 3.6)."""
    assert linear_trace(GPT2_MEDIUM, 32).macs == 24 * 12 * 1024 * 1024 * 32
