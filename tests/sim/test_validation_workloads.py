"""Workloads that the validation rebuilds from published counts."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topsieve_sim.trace import load_workload
from topsieve_sim.trace.ops import HeadSum, ProbabilityValue, QueryKey, TopK, TopKScope
from topsieve_sim.validation.benchmarks import (
    BERT_TOKEN_RATIO,
    ENERGY_SAVED,
    HEAD_RATIO,
    KEY_THOUSANDTHS,
    encoder_keeps,
    pruned_bert_trace,
    with_scaled_keys,
)
from topsieve_sim.validation.figure14 import BERT_SPEED_UP, MEDIUM_SPEED_UP, geomean
from topsieve_sim.validation.in_loop import over_tokens
from topsieve_sim.validation.workbench import ALL_BENCHMARKS, ALL_DENSE, MEDIUM, SMALL, Workbench
from topsieve_sim.validation.workloads import (
    BERT_BASE,
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


def test_thirty_benchmarks_beside_their_dense_forms() -> None:
    assert len(ALL_BENCHMARKS) == len(ALL_DENSE) == 30
    bench = Workbench("spatten")
    for pruned, dense in {(ALL_BENCHMARKS[0], ALL_DENSE[0]), (ALL_BENCHMARKS[-1], ALL_DENSE[-1])}:
        assert bench.program(pruned).trace.attention_flops < bench.program(dense).trace.attention_flops


def test_published_ratios_give_the_published_means() -> None:
    """Geometric means of Figure 14 (specification `accelerator`, section 3.3): 148.3 of BERT."""
    ratios = [value for tasks in BERT_SPEED_UP.values() for value in tasks.values()]
    assert geomean(ratios) == pytest.approx(148.3, abs=0.05)
    assert set(MEDIUM_SPEED_UP) == set(ENERGY_SAVED["medium"])
    # 1.9 over 30 benchmarks and 3.8 over the eight of GPT-2.
    assert pytest.approx(1.9) == (BERT_TOKEN_RATIO**22 * 3.8**8) ** (1 / 30)


@given(layers=st.integers(4, 48), ratio=st.floats(1.01, 1.3), power=st.sampled_from([1, 2]), share=st.floats(0.0, 0.3))
def test_a_schedule_meets_its_ratio_and_falls(layers: int, ratio: float, power: int, share: float) -> None:
    keeps = encoder_keeps(layers, ratio, share, power)
    assert len(keeps) == layers
    assert all(before >= after > 0 for before, after in itertools.pairwise(keeps))
    assert keeps[: round(layers * share)] == (1.0,) * round(layers * share)
    work = sum(keep**power for keep in keeps)
    assert work == pytest.approx(layers / ratio)


@pytest.mark.parametrize(("model", "tokens"), [(BERT_BASE, 175), (BERT_LARGE, 175)])
def test_pruned_bert_saves_what_the_averages_leave(model: Encoder, tokens: int) -> None:
    """On a long sentence rounding is small; on all, selections stand where counts fall."""
    dense, pruned = bert_trace(model, tokens), pruned_bert_trace(model, tokens)
    ratio = dense.attention_flops / pruned.attention_flops
    # Heads fall where tokens have fallen, so their product is a bound from above, counts are rounded down.
    assert BERT_TOKEN_RATIO < ratio < 1.05 * BERT_TOKEN_RATIO * HEAD_RATIO
    seen = [group.query_key for group in pruned.attention_groups()]
    for before, after in itertools.pairwise(seen):
        cuts = {(op.scope, op.n, op.k) for op in pruned.ops if isinstance(op, TopK) and op.layer == before.layer}
        expected = set()
        if after.keys < before.keys:
            expected.add((TopKScope.TOKEN, before.keys, after.keys))
        if after.heads < before.heads:
            expected.add((TopKScope.HEAD, before.heads, after.heads))
        assert cuts == expected


@pytest.mark.parametrize("data", ["wikitext103", "ptb", "1bw"])
def test_other_sets_have_the_bytes_of_their_energy(data: str) -> None:
    """The largest factor whose bytes do not exceed the share of Figure 14's energy; GPT-2-Medium."""
    whole = decode_trace(MEDIUM_WIKITEXT2, "wikitext2")
    share = ENERGY_SAVED["medium"]["wikitext2"] / ENERGY_SAVED["medium"][data]
    factor = KEY_THOUSANDTHS["medium"][data]
    assert with_scaled_keys(whole, factor).key_value_bytes <= share * whole.key_value_bytes
    assert with_scaled_keys(whole, factor + 1).key_value_bytes > share * whole.key_value_bytes


def test_other_sets_of_the_small_model_too() -> None:
    whole = load_workload("gpt2-small-wikitext2-pruned")
    share = ENERGY_SAVED["small"]["wikitext2"] / ENERGY_SAVED["small"]["ptb"]
    factor = KEY_THOUSANDTHS["small"]["ptb"]
    scaled = with_scaled_keys(whole, factor)
    assert share * whole.key_value_bytes * 0.998 < scaled.key_value_bytes <= share * whole.key_value_bytes
    assert [type(op) for op in scaled.ops] == [type(op) for op in whole.ops]
    assert with_scaled_keys(whole, 1000).ops == whole.ops


@given(thousandths=st.integers(1, 1000))
def test_scaling_touches_pruned_layers_alone(thousandths: int) -> None:
    whole = decode_trace(replace(MEDIUM_WIKITEXT2, heads=(2,) * 24), "any")
    before, after = whole.ops, with_scaled_keys(whole, thousandths).ops
    for old, new in zip(before, after, strict=True):
        if isinstance(old, QueryKey):
            assert new.keys == (old.keys if old.keys > 992 else max(1, old.keys * thousandths // 1000))
        if isinstance(old, ProbabilityValue):
            assert 1 <= new.kept <= new.keys


def test_sampled_tokens_stand_for_all() -> None:
    """The closed loop runs five of 32 tokens; on the ideal memory the sum over five is that over all to 3 %."""
    bench = Workbench("spatten")
    for workload in (SMALL, MEDIUM):
        sampled = over_tokens(bench, workload, lambda report: report.latency_us, ()) * 1e-3
        assert sampled == pytest.approx(bench.milliseconds(workload), rel=0.03)
        moved = over_tokens(bench, workload, lambda report: float(report.dram_bytes_total), ())
        assert moved == pytest.approx(bench.report(workload).dram_bytes_total, rel=0.03)
