"""One layer row by row: the same cycles and bytes as the simulation, one thing at a time in a unit, queues that empty."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topsieve_sim.arch import AcceleratorConfig, MemoryModel, load_config
from topsieve_sim.arch.config import Layout
from topsieve_sim.engine import simulate
from topsieve_sim.engine.rows import BANDWIDTH_POINTS, RowTimes, layer_trace, row_times
from topsieve_sim.errors import InputError
from topsieve_sim.golden.attention_latency import attention_latencies
from topsieve_sim.report import Counter, Report, Traffic, Unit, timeline_bytes
from topsieve_sim.trace import Trace, load_workload
from topsieve_sim.trace.ops import ProbabilityValue, QueryKey, Softmax, TopK, TopKScope
from topsieve_sim.validation.workloads import Encoder, bert_trace

SPATTEN = load_config("spatten")
LOADED = (Traffic.KEY_MSB, Traffic.KEY_LSB, Traffic.VALUE)


def attention_trace(heads: int, queries: int, keys: int, kept: int, lsb_rows: int, operands: bool = False) -> Trace:
    shape = {"layer": 0, "heads": heads, "kv_heads": heads, "queries": queries, "keys": keys, "head_dim": 16}
    ops = [
        QueryKey(**shape, key_msb_bits=6, key_lsb_bits=4, threshold=0.05, lsb_rows=lsb_rows),
        Softmax(layer=0, heads=heads, rows=queries, cols=keys),
    ]
    if kept < keys:
        ops.append(TopK(layer=0, n=keys, k=kept, scope=TopKScope.VALUE, repeats=heads * queries))
    ops.append(ProbabilityValue(**shape, kept=kept, value_bits=6))
    found = {}
    if operands:
        generator = np.random.default_rng(3)
        for name, rows in (("query", queries), ("key", keys)):
            found[0, name] = generator.normal(size=(heads, rows, 16)).astype(np.float32)
        found[len(ops) - 1, "value"] = generator.normal(size=(heads, keys, 16)).astype(np.float32)
    return Trace(tuple(ops), model="drawn", method="by hand", operands=found)


def moved_bytes(times: RowTimes) -> float:
    counter = bandwidth(times)
    ends = (*counter.cycles[1:], times.cycles)
    nanoseconds = 1e3 / times.config.clock_mhz
    return sum(
        value * (end - begin) * nanoseconds
        for value, begin, end in zip(counter.values, counter.cycles, ends, strict=True)
    )


def bandwidth(times: RowTimes) -> Counter:
    (counter,) = (counter for counter in times.counters if counter.name == "memory bandwidth")
    return counter


def assert_laws(times: RowTimes, report: Report, config: AcceleratorConfig) -> None:
    assert times.cycles == report.cycles
    units = {row.unit: row for row in report.units}
    for unit in Unit:
        mine = sorted((piece.start_cycle, piece.duration_cycles) for piece in times.slices if piece.unit is unit)
        for (start, length), (following, _) in itertools.pairwise(mine):
            assert start + length <= following
        if mine:
            assert mine[0][0] >= 0
            assert sum(mine[-1]) <= times.cycles
    spent = sum(piece.duration_cycles for piece in times.slices if piece.unit is Unit.DOT_PRODUCT)
    assert spent >= units[Unit.DOT_PRODUCT].busy_cycles
    machine = attention_latencies(config)
    room = {"rows issued to the dot product": machine.issue_rows, "output rows": machine.output_rows}
    for counter in times.counters:
        assert list(counter.cycles) == sorted(set(counter.cycles))
        assert min(counter.values) >= 0
        if counter.unit == "rows":
            assert counter.values[-1] == 0
            assert 0 < max(counter.values) <= room.get(counter.name, report.query_rows + report.lsb_rows)
    if config.memory.model is not MemoryModel.DRAM or config.memory.dram.layout is Layout.PAGED:
        # Heads whose rows share an access of DRAM are both answered by one transfer; no two pages share one.
        peak = config.memory.bytes_per_cycle * config.clock_mhz * 1e-3
        assert max(bandwidth(times).values) <= peak * (1 + 1e-9)


@settings(deadline=None, max_examples=25)
@given(
    heads=st.integers(1, 4),
    queries=st.sampled_from([1, 1, 2, 7]),
    keys=st.integers(1, 60),
    share=st.floats(0.05, 1.0),
    lsb=st.booleans(),
    operands=st.booleans(),
)
def test_rows_are_the_simulation(heads: int, queries: int, keys: int, share: float, lsb: bool, operands: bool) -> None:
    """Cycles, bytes of keys and values, and the memory's busy cycles of `simulate` on the same trace."""
    kept = max(1, int(share * keys))
    trace = attention_trace(heads, queries, keys, kept, heads * queries // 2 if lsb else 0, operands)
    report, times = simulate(trace, SPATTEN), row_times(trace, SPATTEN)
    assert_laws(times, report, SPATTEN)
    wanted = sum(report.dram_bytes[kind] for kind in LOADED)
    assert moved_bytes(times) == pytest.approx(wanted, rel=1e-9)
    memory = [piece for piece in times.slices if piece.unit is Unit.MEMORY]
    (row,) = (row for row in report.units if row.unit is Unit.MEMORY)
    assert sum(piece.duration_cycles for piece in memory) == row.busy_cycles


def test_a_published_decoding_layer() -> None:
    trace = load_workload("gpt2-small-wikitext2-pruned")
    times = row_times(trace, SPATTEN, layer=1, step=3)
    part = layer_trace(trace, 1, 0, 3)
    assert len(list(part.attention_groups())) == 12
    assert_laws(times, simulate(part, SPATTEN), SPATTEN)
    # 12 heads, all rows computed twice in this layer and step: a slice a pass, and three requests a head.
    assert sum(piece.unit is Unit.DOT_PRODUCT for piece in times.slices) == 24
    assert sum(piece.unit is Unit.MEMORY for piece in times.slices) == 36
    assert sum(piece.unit is Unit.VALUE_TOPK for piece in times.slices) == 12


@pytest.mark.parametrize("model", ["ideal", "dram"])
def test_a_layer_of_bert_base_is_a_small_trace_with_counters(model: str) -> None:
    """12 heads, 384 tokens: goal 10 of specification `simulators`, section 6 asks for at most 20 MB."""
    times = row_times(bert_trace(Encoder(1, 12), 384), load_config("spatten", [f"memory.model={model}"]))
    data = timeline_bytes(times.name, SPATTEN.clock_mhz, times.slices, times.counters)
    assert 10_000 < len(data) < 20_000_000
    assert sum(piece.unit is Unit.DOT_PRODUCT for piece in times.slices) == 12 * 384
    names = [counter.name for counter in times.counters]
    assert names[0] == "memory bandwidth"
    assert len(names) >= 4
    assert all(name.encode() in data for name in names)
    assert len(bandwidth(times).cycles) <= BANDWIDTH_POINTS


def test_a_machine_with_fetchers() -> None:
    """Whole bus words move, so never less than the keys and values, and with queries."""
    config = load_config("tiny", ["memory.model=axi"])
    formats = config.formats
    shape = {"layer": 0, "heads": 2, "kv_heads": 2, "queries": 3, "keys": 20, "head_dim": config.max_head_dim}
    bits = {"key_msb_bits": formats.key_msb_bits, "key_lsb_bits": formats.key_lsb_bits}
    trace = Trace(
        (
            QueryKey(**shape, query_bits=formats.query_bits, **bits, threshold=0.1, lsb_rows=0),
            Softmax(layer=0, heads=2, rows=3, cols=20),
            ProbabilityValue(**shape, kept=20, value_bits=formats.value_bits),
        )
    )
    report, times = simulate(trace, config), row_times(trace, config)
    assert_laws(times, report, config)
    assert moved_bytes(times) >= sum(report.dram_bytes[kind] for kind in LOADED)


@pytest.mark.parametrize("layout", ["head_major", "token_major", "paged"])
@pytest.mark.parametrize(
    ("queries", "keys", "kept", "lsb"), [(1, 90, 20, True), (7, 40, 40, True), (1, 130, 130, False)]
)
def test_rows_before_dram_are_the_simulation(layout: str, queries: int, keys: int, kept: int, lsb: bool) -> None:
    config = load_config("spatten", ["memory.model=dram", "memory.channels=4", f"memory.dram.layout={layout}"])
    trace = attention_trace(4, queries, keys, kept, 2 * queries if lsb else 0)
    report, times = simulate(trace, config), row_times(trace, config)
    assert_laws(times, report, config)
    assert moved_bytes(times) == pytest.approx(
        sum(report.dram_bytes[kind] for kind in LOADED if kind in report.dram_bytes)
    )
    memory = [piece for piece in times.slices if piece.unit is Unit.MEMORY]
    (row,) = (row for row in report.units if row.unit is Unit.MEMORY)
    assert sum(piece.duration_cycles for piece in memory) == row.busy_cycles
    (waiting,) = (counter for counter in times.counters if counter.unit == "accesses")
    # Ports hold no more than their outstanding accesses; an output row leaves its port at once.
    ports = config.memory.dram.ports + 2
    assert 0 < max(waiting.values) <= ports * config.memory.dram.port_outstanding
    assert waiting.values[-1] == 0


def test_a_pruned_layer_before_dram_is_that_of_the_whole_run() -> None:
    """Tokens that a later layer no longer looks at keep their places in memory."""
    whole, few = attention_trace(4, 1, 300, 300, 0), attention_trace(4, 1, 60, 60, 0)
    trace = Trace((*whole.ops, *(replace(op, layer=1) for op in few.ops)), layers=2)
    config = load_config("spatten", ["memory.model=dram"])
    report = simulate(trace, config)
    for row in report.layers:
        assert row_times(trace, config, layer=row.layer).cycles == row.cycles
    assert report.layers[1].cycles > simulate(few, config).cycles


def test_what_is_not_there_is_refused() -> None:
    trace = bert_trace(Encoder(1, 1), 4)
    with pytest.raises(InputError, match="no attention there"):
        row_times(trace, SPATTEN, layer=1)
