"""The side-by-side table: equal ground for all, error beside speed, refusals in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sim.rival_cases import EIGHTH, TINY, attention_trace
from topsieve_sim.arch import load_config
from topsieve_sim.energy import Action, Component
from topsieve_sim.engine import prepare, simulate
from topsieve_sim.errors import InputError
from topsieve_sim.rivals import DEFAULT, Basis, Comparison, build_all, compare, load_platform, runnable
from topsieve_sim.rivals.comparison import accelerator_output, rival_total
from topsieve_sim.rivals.energy import rival_energy_pj
from topsieve_sim.rivals.heads import drawn_operands, exact_attention, row_keys, trace_operands
from topsieve_sim.trace import load_workload

BASE = "a3:search=0,margin_percent=0"


def of(comparison: Comparison, machine: str):
    (row,) = [row for row in comparison.rows if row.machine == machine]
    return row


@pytest.fixture(scope="module")
def whole() -> Comparison:
    trace = attention_trace(0, kv_heads=3, queries=32, keys=32, head_dim=64, peak=2.0, layers=2)
    return compare(trace, EIGHTH, build_all(DEFAULT))


def test_every_row_is_complete(whole):
    assert [row.machine for row in whole.rows] == [EIGHTH.name, *(e.label for e in build_all(DEFAULT))]
    for row in whole.rows:
        assert row.latency_us > 0
        assert row.dram_bytes > 0
        assert row.effective_gops == pytest.approx(whole.dense_flops / row.latency_us / 1e3)
        if row.basis != Basis.BOUND:
            assert row.cycles == pytest.approx(row.latency_us * EIGHTH.clock_mhz)
            assert 0 < row.utilisation <= 1
            assert row.energy_pj > 0
            assert row.output_error >= 0
        else:
            assert (row.cycles, row.utilisation, row.energy_pj, row.output_error) == (None,) * 4
    assert whole.dense_flops == 2 * 3 * 32 * 32 * 64 * 4


def test_approximation_shows_in_its_error_and_exactness_in_its_absence(whole):
    """Exact machines differ from float64 by the 12-bit operands alone: half a step of 2^11, over a few operands."""
    exact = [of(whole, name).output_error for name in ("systolic", BASE)]
    assert exact[0] == pytest.approx(exact[1], rel=1e-9)
    assert exact[0] < 4 * 2**-11
    for name in ("a3", "elsa", "sanger"):
        assert of(whole, name).output_error > 2 * exact[0]
        assert of(whole, name).multiply_accumulates < of(whole, BASE).multiply_accumulates


def test_the_accelerators_row_is_its_report():
    trace = attention_trace(1, kept=12)
    report = simulate(trace, EIGHTH)
    row = compare(trace, EIGHTH, build_all(["systolic"])).rows[0]
    assert (row.cycles, row.dram_bytes) == (report.cycles, report.dram_bytes_total)
    assert row.energy_pj < report.energy_total_pj


def test_rivals_move_the_accelerators_bytes():
    """A dense machine that reads everything once moves what the accelerator moves when it fetches whole keys."""
    trace = attention_trace(2, kv_heads=2, share=2, queries=6, keys=32, head_dim=64, causal=True)
    accelerator, systolic, base = compare(trace, EIGHTH, build_all(["systolic", BASE])).rows
    assert accelerator.dram_bytes == systolic.dram_bytes == base.dram_bytes


def test_the_accelerators_error_is_that_of_its_golden_model():
    trace = attention_trace(5, kv_heads=1, queries=4, keys=20, kept=20)
    (group,) = trace.attention_groups()
    operands = trace_operands(trace)(group)
    exact = exact_attention(operands, row_keys(group.query_key))
    difference = accelerator_output(group, operands, EIGHTH) - exact
    row = compare(trace, EIGHTH, build_all(["systolic"])).rows[0]
    assert row.output_error == pytest.approx(np.linalg.norm(difference) / np.linalg.norm(exact), rel=1e-9)


@pytest.mark.parametrize("name", ["a3", "mnnfast", "elsa", "sanger", "token_picker"])
def test_without_operands_a_rival_that_needs_them_refuses(name):
    trace = attention_trace(0, operands=False)
    with pytest.raises(
        InputError, match=rf"rival {name}: the cost .* depends on data, and the trace holds no operands"
    ):
        compare(trace, EIGHTH, build_all([name]))
    assert compare(trace, EIGHTH, build_all([name]), drawn=True).rows[1].output_error is not None


def test_without_operands_the_others_run():
    trace = attention_trace(0, operands=False)
    known = runnable(build_all(DEFAULT), trace, drawn=False)
    assert [entrant.label for entrant in known] == ["systolic", BASE, "roofline:platform=titan-xp"]
    comparison = compare(trace, EIGHTH, known)
    assert all(row.output_error is None for row in comparison.rows)
    assert any("no operands, so no errors" in note for note in comparison.notes)


def test_a_drawn_run_says_so_and_repeats():
    trace = attention_trace(0, operands=False)
    first, again, other = (compare(trace, EIGHTH, build_all(["sanger"]), drawn=True, seed=seed) for seed in (3, 3, 4))
    assert first.to_json() == again.to_json() != other.to_json()
    assert any("drawn" in note for note in first.notes)
    assert json.loads(first.to_json())["rows"][1]["basis"] == "analytical"


def test_equal_descriptors_are_run_once_and_count_each():
    """The published dense workload: 4,608 one-head groups in 384 descriptors of 32 lengths, nothing told apart by data."""
    program = prepare(load_workload("gpt2-small-wikitext2-dense"))
    (rival,) = build_all([BASE])
    total = rival_total(program, load_config("spatten-eighth"), rival, drawn_operands(0))
    groups = list(program.trace.attention_groups())
    assert total.macs == sum(2 * group.query_key.macs for group in groups)


def test_rivals_can_run_the_dense_model_instead():
    pruned = attention_trace(6, keys=10)
    dense = attention_trace(6, keys=24)
    comparison = compare(pruned, EIGHTH, build_all([BASE]), dense=dense)
    alone = compare(dense, EIGHTH, build_all([BASE]))
    assert comparison.rows[1] == alone.rows[1]
    assert comparison.rows[0].cycles < alone.rows[0].cycles
    assert comparison.dense_flops == alone.dense_flops
    assert any("no cascade" in note for note in comparison.notes)


def test_wide_operands_move_at_the_datapaths_width_everywhere():
    comparison = compare(load_workload("gpt2-small-wikitext2-dense"), EIGHTH, build_all(["systolic"]))
    elements = 2 * sum(range(993, 1025)) * 144 * 64
    for row in comparison.rows:
        assert elements * 12 / 8 < row.dram_bytes < 1.01 * elements * 12 / 8


def test_a_row_longer_than_the_machine_is_refused():
    long, short = attention_trace(0, keys=40), attention_trace(0, keys=8)
    with pytest.raises(InputError, match=r"keys: .*\(got 40\); allowed: 1 to 32"):
        compare(long, TINY, build_all(["systolic"]))
    with pytest.raises(InputError, match=r"keys: .*\(got 40\); allowed: 1 to 32"):
        compare(short, TINY, build_all(["systolic"]), dense=long)


def test_the_roofline_is_the_larger_of_both_roofs():
    trace = attention_trace(0, kv_heads=1, queries=100, keys=100, head_dim=64)
    (_, row) = compare(trace, EIGHTH, build_all(["roofline:platform=raspberry-pi-4"])).rows
    platform = load_platform("raspberry-pi-4")
    flops, moved = 4 * 100 * 100 * 64, 4 * 100 * 64 * 4
    assert row.dram_bytes == moved
    wanted = max(flops / platform.peak_gflops.value, moved / platform.bandwidth_gb_per_s.value)
    assert row.latency_us == pytest.approx(wanted / 1e3)


def test_every_head_has_its_own_scales():
    """Query and key heads of different sizes: a scale of another head would leave errors of order one."""
    trace = attention_trace(7, kv_heads=2, share=2, queries=6, keys=24, head_dim=16)
    trace.operands[0, "query"][:] *= np.array([1.0, 0.1, 0.5, 2.0], np.float32)[:, None, None]
    trace.operands[0, "key"][:] *= np.array([0.2, 3.0], np.float32)[:, None, None]
    row = compare(trace, EIGHTH, build_all(["systolic"])).rows[1]
    # A score of s carries an error of about s / 2^11; the largest here are around 25.
    assert row.output_error < 25 * 2**-11


def test_biases_of_merged_tokens_are_part_of_exact_attention():
    row = compare(attention_trace(8, head_dim=16, bias=True), EIGHTH, build_all(["systolic"])).rows[1]
    assert row.output_error < 4 * 2**-11


@pytest.mark.parametrize("name", ["a3", "elsa", "sanger", "token_picker"])
def test_energy_counts_every_bit_and_the_rivals_own_parts(name):
    trace = attention_trace(9, kv_heads=3, queries=4, keys=24, head_dim=16)
    (rival,) = build_all([name])
    program = prepare(trace)
    total = rival_total(program, EIGHTH, rival, trace_operands(trace))
    moved = total.counts[Component.DRAM, Action.READ_BIT] + total.counts[Component.DRAM, Action.WRITE_BIT]
    assert moved == total.dram_bits
    assert total.counts[Component.DRAM, Action.WRITE_BIT] == 3 * 4 * 16 * EIGHTH.formats.output_bits
    assert len(total.extra_pj) >= 3
    assert min(total.extra_pj) > 0
    row = compare(trace, EIGHTH, [rival]).rows[1]
    shared_pj = rival_energy_pj(total.counts, (), EIGHTH)
    assert row.energy_pj == pytest.approx(shared_pj + sum(total.extra_pj), rel=1e-12)


def test_a_short_row_waits_for_the_memory_once_a_chunk():
    """Two keys cannot hide the latency: three chunks are three trips, one chunk is one."""
    trace = attention_trace(10, kv_heads=1, queries=1, keys=2, head_dim=16)
    latency = EIGHTH.memory.latency_cycles
    three, one = (
        compare(trace, EIGHTH, build_all([f"token_picker:threshold=0,chunks={chunks}"])).rows[1].cycles
        for chunks in (3, 1)
    )
    assert one < 1.5 * latency
    assert 3 * latency <= three < 3.5 * latency
