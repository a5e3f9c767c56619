"""The published GPT-2 traces on the published machine."""

from __future__ import annotations

import functools

import pytest

from topsieve_sim.arch import load_config
from topsieve_sim.engine import Program, prepare, simulate
from topsieve_sim.errors import InputError
from topsieve_sim.report import Report, Traffic, Unit
from topsieve_sim.trace import load_workload
from topsieve_sim.trace.groups import AttentionGroup, units

PRUNED, DENSE = "gpt2-small-wikitext2-pruned", "gpt2-small-wikitext2-dense"


@functools.cache
def program(name: str) -> Program:
    return prepare(load_workload(name))


@functools.cache
def run(name: str) -> Report:
    return simulate(program(name), load_config("spatten"))


@pytest.mark.parametrize("name", [PRUNED, DENSE])
def test_key_and_value_bytes_equal_the_traces(name: str) -> None:
    report = run(name)
    groups = [unit for unit in units(program(name).trace.ops) if isinstance(unit, AttentionGroup)]
    moved = report.dram_bytes
    assert moved[Traffic.KEY_MSB] + moved[Traffic.KEY_LSB] == sum(group.key_bits for group in groups) // 8
    assert moved[Traffic.VALUE] == sum(group.value_bits for group in groups) // 8


def test_published_totals() -> None:
    """Specification `accelerator`, section 1.6: 82.4 MB against 2379.4 MB, 0.197 against 1.190 GFLOP, 323 LSB rows."""
    pruned, dense = run(PRUNED), run(DENSE)
    kinds = (Traffic.KEY_MSB, Traffic.KEY_LSB, Traffic.VALUE)
    assert round(sum(pruned.dram_bytes[kind] for kind in kinds) / 1e6, 1) == 82.4
    assert round(sum(dense.dram_bytes[kind] for kind in kinds) / 1e6, 1) == 2379.4
    assert round(pruned.attention_flops / 1e9, 3) == 0.197
    assert round(dense.attention_flops / 1e9, 3) == 1.190
    assert (pruned.lsb_rows, pruned.query_rows) == (323, 4608)
    assert dense.attention_flops_dense == dense.attention_flops


def test_a_layer_is_one_descriptor() -> None:
    """Twelve heads of 12 layers and 32 tokens; the cascade's selections stand between them."""
    attention = [unit for unit in program(PRUNED).work if hasattr(unit, "groups")]
    assert len(attention) == 12 * 32
    assert all(len(unit.groups) == 12 for unit in attention)
    assert len(run(PRUNED).tokens) == 12 * 32
    assert {row.heads for row in run(PRUNED).tokens} == {12}


def test_kept_tokens_are_those_of_the_trace() -> None:
    """Keys of the second token by layer: floor(0.9 / 0.7 / 0.2 / 0.1 x 1024)."""
    keys = [row.keys for row in run(PRUNED).tokens if row.step == 1]
    assert keys == [921, 716, 204, 204, 204, 204, 102, 102, 102, 102, 102, 102]


def test_the_dense_run_is_bound_by_memory_and_the_pruned_by_selection() -> None:
    busy = {row.unit: row.busy_cycles for row in run(DENSE).units}
    assert busy[Unit.MEMORY] > 0.9 * run(DENSE).cycles
    assert busy[Unit.VALUE_TOPK] == 0
    busy = {row.unit: row.busy_cycles for row in run(PRUNED).units}
    assert max(busy, key=busy.__getitem__) is Unit.VALUE_TOPK


def test_the_seed_moves_the_cycles_and_nothing_else() -> None:
    first, second = run(PRUNED), simulate(program(PRUNED), load_config("spatten"), seed=1)
    assert first.cycles != second.cycles
    assert first.dram_bytes == second.dram_bytes
    assert first.macs == second.macs
    # 4608 selections average out: a standard deviation of 30 % a row leaves 0.5 % of the sum.
    assert abs(first.cycles - second.cycles) < 0.02 * first.cycles


def test_what_was_assumed_is_said() -> None:
    notes = "\n".join(run(PRUNED).notes)
    for text in ("memory model ideal", "drawn uniformly at random", "wider than the datapath", "one after the other"):
        assert text in notes
    assert "drawn uniformly" not in "\n".join(run(DENSE).notes)


def test_a_machine_too_small_is_refused() -> None:
    with pytest.raises(InputError, match=r"op 0 \(query_key\).keys: out of range \(got 993\); allowed: 1 to 512"):
        simulate(program(DENSE), load_config("spatten", ["capacity=512"]))
