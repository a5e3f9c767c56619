"""Laws of every simulation, on random traces and machines: nothing is lost, nothing is counted twice."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.attention_strategies import TINY
from sim.attention_strategies import machines as any_machines
from sim.trace_strategies import attention_ops, traces
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.engine import prepare, simulate
from topsieve_sim.engine.ledger import MAXIMUM_SLICES, Cost, Ledger, UnitCycles
from topsieve_sim.golden.attention_latency import attention_latencies
from topsieve_sim.report import Traffic, Unit
from topsieve_sim.trace import Trace
from topsieve_sim.trace.groups import AttentionGroup, units
from topsieve_sim.trace.ops import Op, ProbabilityValue, QueryKey, Softmax, TopKScope

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def machines() -> st.SearchStrategy[AcceleratorConfig]:
    """Machines that hold the longest row that `traces` draws."""
    return any_machines().filter(lambda config: config.capacity >= 12)


def grown(config: AcceleratorConfig, **parts: dict[str, int]) -> AcceleratorConfig:
    """`config` with some fields of some parts replaced."""
    data = config.model_dump()
    for part, fields in parts.items():
        data[part] |= fields
    return AcceleratorConfig.model_validate(data)


def count_only(trace: Trace, *, second_passes: bool) -> Trace:
    """`trace` without operands; without `second_passes`, no row is recomputed."""
    ops = trace.ops
    if not second_passes:
        ops = tuple(replace(op, lsb_rows=0, threshold=0.0) if op.kind == "query_key" else op for op in ops)
    return Trace(ops, model=trace.model, layers=trace.layers)


def attention_groups(trace: Trace) -> list[AttentionGroup]:
    return [unit for unit in units(trace.ops) if isinstance(unit, AttentionGroup)]


def row_bytes(rows: int, elements: int, bits: int) -> int:
    return (rows * elements * bits + 7) // 8


@SETTINGS
@given(trace=traces(), config=machines(), on_arrays=st.booleans())
def test_every_cycle_of_every_unit_has_one_cause(trace: Trace, config: AcceleratorConfig, on_arrays: bool) -> None:
    report = simulate(trace, config.model_copy(update={"fully_connected": on_arrays}))
    assert {row.unit for row in report.units} == set(Unit)
    for row in report.units:
        assert row.busy_cycles + sum(row.stall_cycles.values()) == report.cycles
        assert min(row.stall_cycles.values()) >= 0
    assert sum(row.cycles for row in report.layers) == report.cycles
    assert sum(row.cycles for row in report.operations) == report.cycles
    for row in report.tokens:
        assert row.cycles > 0


@SETTINGS
@given(trace=traces(), config=machines())
def test_selection_is_what_goes_when_nothing_is_scored_chosen_or_merged(
    trace: Trace, config: AcceleratorConfig
) -> None:
    """The same attention and linear maps without the rest; only local value selection cannot be left out of a trace."""
    model = {"projection", "feed_forward", "query_key", "softmax", "probability_value"}
    places = [
        place
        for place, op in enumerate(trace.ops)
        if op.kind in model or (op.kind == "topk" and op.scope is TopKScope.VALUE)
    ]
    operands = {(places.index(place), name): data for (place, name), data in trace.operands.items() if place in places}
    rest = Trace(tuple(trace.ops[place] for place in places), layers=trace.layers, operands=operands)
    report, plain = simulate(trace, config), simulate(rest, config)
    assert report.cycles - plain.cycles == report.selection.cycles
    assert report.dram_bytes_total - plain.dram_bytes_total == report.selection.dram_bytes
    assert report.selection.overlapped_cycles == plain.selection.overlapped_cycles
    assert plain.selection.cycles == plain.selection.dram_bytes == 0
    local = math.fsum(energy for act, energy in plain.energy_pj.get("value_topk", {}).items() if act != "leak_cycle")
    assert math.isclose(plain.selection.energy_pj, local, rel_tol=1e-9)
    # Sums of floats in another order.
    without = report.energy_total_pj - report.selection.energy_pj
    assert math.isclose(without, plain.energy_total_pj - local, rel_tol=1e-9, abs_tol=1e-6)


@SETTINGS
@given(trace=traces(), config=machines())
def test_macs_and_flops_are_those_of_the_trace(trace: Trace, config: AcceleratorConfig) -> None:
    report = simulate(trace, config)
    assert report.macs == sum(op.macs for op in trace.ops) == sum(row.macs for row in report.operations)
    assert report.flops == trace.flops == sum(row.flops for row in report.layers)
    assert sum(row.count for row in report.operations) == len(trace.ops)
    assert report.attention_flops <= report.attention_flops_dense


@SETTINGS
@given(trace=traces(), config=machines())
def test_attention_bytes_are_those_the_operations_imply(trace: Trace, config: AcceleratorConfig) -> None:
    report = simulate(count_only(trace, second_passes=True), config)
    expected = dict.fromkeys((Traffic.QUERY, Traffic.KEY_MSB, Traffic.KEY_LSB, Traffic.VALUE, Traffic.OUTPUT), 0)
    for group in attention_groups(trace):
        op, closing = group.query_key, group.probability_value
        rows = op.heads * op.queries
        planes = min(max(op.lsb_rows, 0), op.kv_heads)
        # A value head that only one query uses is fetched after the selection, so only the survivors are.
        owned = op.queries == 1 and op.heads == op.kv_heads
        expected[Traffic.QUERY] += rows * row_bytes(1, op.head_dim, op.query_bits)
        expected[Traffic.OUTPUT] += rows * row_bytes(1, op.head_dim, config.formats.output_bits)
        expected[Traffic.KEY_MSB] += op.kv_heads * row_bytes(op.keys, op.head_dim, op.key_msb_bits)
        expected[Traffic.KEY_LSB] += planes * row_bytes(op.keys, op.head_dim, op.key_lsb_bits)
        expected[Traffic.VALUE] += op.kv_heads * row_bytes(
            closing.kept if owned else op.keys, op.head_dim, closing.value_bits
        )
    assert {kind: report.dram_bytes[kind] for kind in expected} == expected


@SETTINGS
@given(trace=traces(), config=machines())
def test_energy_parts_sum_to_the_total(trace: Trace, config: AcceleratorConfig) -> None:
    report = simulate(trace, config)
    parts = [value for actions in report.energy_pj.values() for value in actions.values()]
    assert math.isclose(math.fsum(parts), report.energy_total_pj, rel_tol=1e-9)
    assert math.isclose(math.fsum(row.energy_pj for row in report.layers), report.energy_total_pj, rel_tol=1e-9)
    assert math.isclose(math.fsum(report.component_energy_pj().values()), report.energy_total_pj, rel_tol=1e-9)
    dram_bits = report.energy_pj["dram"]
    assert math.isclose(math.fsum(dram_bits.values()), 8 * 3.92 * report.dram_bytes_total, rel_tol=1e-9)
    assert min(parts) > 0


@SETTINGS
@given(trace=traces(), config=machines(), seed=st.integers(0, 3))
def test_equal_runs_give_equal_bytes(trace: Trace, config: AcceleratorConfig, seed: int) -> None:
    first = simulate(trace, config, seed=seed)
    second = simulate(prepare(trace), config, seed=seed)
    assert first.to_json() == second.to_json()
    assert first.timing is not None
    assert first.digest == second.digest


@SETTINGS
@given(trace=traces(), config=machines())
def test_more_channels_are_never_slower(trace: Trace, config: AcceleratorConfig) -> None:
    trace = count_only(trace, second_passes=False)
    wider = grown(config, memory={"channels": 2 * config.memory.channels})
    assert simulate(trace, wider).cycles <= simulate(trace, config).cycles


@SETTINGS
@given(trace=traces(), config=machines(), array=st.sampled_from(["dot_product", "weighted_sum"]))
def test_more_multipliers_cost_at_most_their_deeper_trees(trace: Trace, config: AcceleratorConfig, array: str) -> None:
    """A wider array has a deeper adder tree, so a run that waits for latency alone may lose those cycles, not more."""
    trace = count_only(trace, second_passes=False)
    wider = grown(config, **{array: {"multipliers": 2 * getattr(config, array).multipliers}})
    before, after = attention_latencies(config), attention_latencies(wider)
    deeper = after.dot_product - before.dot_product + after.weighted_sum - before.weighted_sum
    # A result that is a cycle later can hold up each row once, and each operation outside attention once.
    chances = sum(op.heads * op.queries if op.kind == "query_key" else 1 for op in trace.ops)  # type: ignore[attr-defined]
    assert simulate(trace, wider).cycles <= simulate(trace, config).cycles + deeper * chances


@SETTINGS
@given(ops=attention_ops(), config=machines(), data=st.data())
def test_pruning_never_moves_more_bytes(ops: list[Op], config: AcceleratorConfig, data: st.DataObject) -> None:
    """Fewer keys, or fewer value rows, never cost bytes."""
    dense = count_only(Trace(tuple(ops)), second_passes=True)
    opening = ops[0]
    fewer = data.draw(st.integers(1, opening.keys), label="keys left")
    kept = min(ops[-1].kept, fewer)
    pruned = []
    for op in dense.ops:
        changed = {"keys": fewer, "cols": fewer, "n": fewer}
        values = {name: value for name, value in changed.items() if hasattr(op, name)}
        if op.kind == "topk":
            if kept == fewer:
                continue
            values["k"] = kept
        if op.kind == "probability_value":
            values["kept"] = kept
        pruned.append(replace(op, **values))
    less, more = simulate(Trace(tuple(pruned)), config), simulate(dense, config)
    assert less.dram_bytes_total <= more.dram_bytes_total
    assert all(less.dram_bytes[kind] <= more.dram_bytes[kind] for kind in Traffic)


@pytest.mark.parametrize("descriptors", [1, 909, 910, 911, 5000])
def test_the_timeline_is_bounded_and_keeps_all_work(descriptors: int) -> None:
    ledger = Ledger()
    cost = Cost(10, {unit: UnitCycles(3, input=2, drained=5) for unit in Unit}, {}, ())
    for number in range(descriptors):
        ledger.book(0, "attention", f"descriptor {number}", cost)
    slices = ledger.timeline()
    assert len(slices) <= MAXIMUM_SLICES
    for unit in Unit:
        mine = [piece for piece in slices if piece.unit is unit]
        assert sum(piece.busy_cycles for piece in mine) == 3 * descriptors
        ends = [piece.start_cycle + piece.duration_cycles for piece in mine]
        assert all(end <= after.start_cycle for end, after in zip(ends, mine[1:], strict=False))
        assert ends[-1] == 10 * descriptors - 5


def test_progress_reaches_the_end() -> None:
    seen: list[tuple[int, int]] = []
    trace = Trace(tuple(op for layer in range(3) for op in _one_group(layer)))
    simulate(trace, TINY, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)


def _one_group(layer: int) -> list[Op]:
    counts = {"layer": layer, "heads": 2, "kv_heads": 2, "queries": 3, "keys": 5, "head_dim": 4}
    return [
        QueryKey(**counts),
        Softmax(layer=layer, heads=2, rows=3, cols=5),
        ProbabilityValue(**counts, kept=5),
    ]
