"""Traces on a machine that ends keys early: what the engine books is what the golden model decides."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.rival_cases import attention_trace
from topsieve_sim.arch import load_config
from topsieve_sim.energy import Component, area_um2, memory_bits
from topsieve_sim.engine import prepare, simulate
from topsieve_sim.engine.rows import row_times
from topsieve_sim.errors import InputError
from topsieve_sim.golden.attention import quantise_operands
from topsieve_sim.golden.early_termination import terminated_attention
from topsieve_sim.report import Traffic
from topsieve_sim.trace import load_workload
from topsieve_sim.validation.workbench import SMALL

ENDING = [
    "successor.termination_threshold=0.01",
    "successor.termination_rows=8",
    "successor.buffered_heads=8",
    "softmax.lanes=16",
]
MACHINE = load_config("spatten", ENDING)


@pytest.mark.parametrize("share", [1, 3])
def test_bytes_are_those_of_the_golden_candidates(share: int) -> None:
    trace = attention_trace(3, kv_heads=2, share=share, queries=1, keys=200, head_dim=64, peak=3.0)
    report = simulate(trace, MACHINE)
    operands = quantise_operands(
        trace.operands[0, "query"], trace.operands[0, "key"], trace.operands[2, "value"], MACHINE.formats
    )
    result = terminated_attention(operands, MACHINE)
    assert 2 < result.candidates.sum() < 400
    assert result.whole.all()
    traffic = report.dram_bytes
    assert traffic[Traffic.KEY_MSB] == 2 * 200 * 64
    assert traffic[Traffic.KEY_LSB] == result.candidates.sum() * 64 // 2
    assert traffic[Traffic.VALUE] == result.candidates.sum() * 64 * 12 // 8
    assert report.dram_bytes_total < simulate(trace, load_config("spatten")).dram_bytes_total


def test_rows_of_many_queries_keep_all_their_values() -> None:
    """An encoder's group: the same cycles as on a machine with a top-k engine that keeps everything."""
    selecting = attention_trace(1, queries=9, keys=24, head_dim=64, kept=7)
    whole = attention_trace(1, queries=9, keys=24, head_dim=64)
    assert simulate(selecting, MACHINE).cycles == simulate(whole, MACHINE).cycles
    plain = load_config("spatten", ENDING[2:])
    assert simulate(whole, MACHINE).cycles == simulate(whole, plain).cycles


def test_a_published_trace_is_faster_and_leaner() -> None:
    program = prepare(load_workload(SMALL))
    published, ending = (simulate(program, config) for config in (load_config("spatten"), MACHINE))
    assert ending.cycles < 0.5 * published.cycles
    assert ending.dram_bytes_total < published.dram_bytes_total
    assert any("early termination" in note for note in ending.notes)
    # Its values and first planes are those that the trace keeps.
    assert {kind: ending.dram_bytes[kind] for kind in (Traffic.VALUE, Traffic.KEY_MSB)} == {
        kind: published.dram_bytes[kind] for kind in (Traffic.VALUE, Traffic.KEY_MSB)
    }


def test_the_top_k_engine_of_values_goes_and_the_sums_come() -> None:
    plain = load_config("spatten", ENDING[2:])
    areas, before = area_um2(MACHINE), area_um2(plain)
    changed = {component for component in areas if areas[component] != before[component]}
    assert changed == {Component.SOFTMAX, Component.VALUE_TOPK}
    assert areas[Component.VALUE_TOPK] == memory_bits(MACHINE)[Component.VALUE_TOPK] == 0
    more_sums = load_config("spatten", [*ENDING, "successor.partial_rows=8"])
    assert area_um2(more_sums)[Component.SOFTMAX] > areas[Component.SOFTMAX]


def test_rows_are_not_told_one_by_one() -> None:
    with pytest.raises(InputError, match="termination_threshold"):
        row_times(attention_trace(0, queries=1, head_dim=8), MACHINE)
    rows = attention_trace(0, queries=4, head_dim=8, kept=5)
    assert row_times(rows, MACHINE).cycles == simulate(rows, MACHINE).cycles


@pytest.mark.parametrize(("model", "more"), [("dram", ["successor.tile_keys=64"]), ("axi", ["memory.channels=1"])])
def test_other_memories_are_refused(model: str, more: list[str]) -> None:
    with pytest.raises(InputError, match="successor"):
        load_config("spatten", [*ENDING, f"memory.model={model}", *more])


@pytest.mark.parametrize("share", [1, 3])
def test_in_closed_loop_whole_accesses_move(share: int) -> None:
    trace = attention_trace(3, kv_heads=2, share=share, queries=1, keys=200, head_dim=64, peak=3.0)
    ideal = simulate(trace, MACHINE)
    dram = load_config("spatten", [*ENDING, "memory.model=dram"])
    looped = simulate(trace, dram)
    assert looped.cycles > 100
    for kind in (Traffic.KEY_MSB, Traffic.KEY_LSB, Traffic.VALUE):
        assert ideal.dram_bytes[kind] <= looped.dram_bytes[kind] <= 3 * ideal.dram_bytes[kind]
        assert looped.dram_bytes[kind] % 64 == 0
    # Every row asks for its query in both passes; a query of 96 bytes is two accesses.
    assert looped.dram_bytes[Traffic.QUERY] == 2 * 2 * share * 128
    assert looped.dram_bytes == simulate(trace, dram).dram_bytes


def test_eviction_puts_live_rows_side_by_side() -> None:
    trace = attention_trace(3, kv_heads=4, queries=1, keys=100, head_dim=64, kept=20, operands=False)
    sequence = replace(trace, ops=(*trace.ops, *attention_trace(3, queries=1, keys=900, operands=False).ops))
    scattered, dense = (
        simulate(sequence, load_config("spatten", ["memory.model=dram", f"successor.evict={flag}"]))
        for flag in ("false", "true")
    )
    assert dense.dram_bytes_total < scattered.dram_bytes_total
    assert dense.cycles <= scattered.cycles


def test_longer_operands_than_rows_fit_take_the_plain_way() -> None:
    """A head that more query heads share than the machine allows, or than there is room for sums, is not ended early."""
    trace = attention_trace(0, kv_heads=1, share=6, queries=1, keys=1000, head_dim=8)
    plain = simulate(trace, load_config("spatten", ENDING[2:]))
    for config in (
        MACHINE,
        load_config("spatten", [*ENDING, "successor.termination_rows=5", "successor.partial_rows=8"]),
    ):
        assert simulate(trace, config).cycles == plain.cycles
    with_room = load_config("spatten", [*ENDING, "successor.partial_rows=8"])
    assert simulate(trace, with_room).cycles != plain.cycles
