"""Cycles of whole jobs: laws of the phases, the counters and the stalls, and agreement with the simulator of traces."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.accelerator_jobs import START, draw_job, draw_layers, run_job
from sim.attention_strategies import TINY, fetched_machines
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.engine import simulate
from topsieve_sim.engine.job import Cascade, Job, build_job, trace_job
from topsieve_sim.errors import InputError
from topsieve_sim.golden.accelerator import MachineState, run
from topsieve_sim.golden.accelerator_latency import CASCADE_COMMAND, DESCRIPTOR_BYTES, START_TO_FETCH
from topsieve_sim.golden.descriptor import Flag, encode_descriptor
from topsieve_sim.report import Traffic, Unit
from topsieve_sim.timing.accelerator import AcceleratorTimes, RunStalls, WriteStalls, accelerator_times
from topsieve_sim.timing.attention import PortStalls
from topsieve_sim.trace import Trace
from topsieve_sim.trace.ops import ProbabilityValue, QueryKey, Softmax, TopK, TopKScope

SEEDS = st.integers(0, 2**32 - 1)


def times_of(job: Job, stalls: RunStalls | None = None) -> AcceleratorTimes:
    return accelerator_times(job.config, run_job(job), stalls or RunStalls())


def drawn_stalls(seed: int, cycles: int = 4000) -> RunStalls:
    rng = np.random.default_rng(seed)

    def ready() -> np.ndarray:
        return rng.random(cycles) < rng.choice([1.0, 0.7, 0.3])

    def waits() -> np.ndarray:
        return rng.integers(0, 9, cycles) * (rng.random(cycles) < rng.choice([0.0, 0.2]))

    return RunStalls(
        PortStalls(ready(), waits(), waits()),
        PortStalls(ready(), waits(), waits()),
        WriteStalls(ready(), ready(), waits()),
    )


def worse(stalls: RunStalls, seed: int) -> RunStalls:
    """Never better in any cycle, burst or word."""
    rng = np.random.default_rng(seed)

    def port(one: PortStalls) -> PortStalls:
        return PortStalls(
            one.ready & (rng.random(one.ready.size) < 0.8),
            one.delay + rng.integers(0, 5, one.delay.size),
            one.gap + rng.integers(0, 2, one.gap.size),
        )

    written = stalls.writes
    return RunStalls(
        port(stalls.operands),
        port(stalls.queries),
        WriteStalls(
            written.address_ready & (rng.random(written.address_ready.size) < 0.8),
            written.word_ready,
            written.delay + rng.integers(0, 5, written.delay.size),
        ),
    )


@settings(max_examples=60, deadline=None)
@given(config=fetched_machines(), seed=SEEDS)
def test_phases_follow_each_other_and_counters_add_up(config: AcceleratorConfig, seed: int) -> None:
    job, layers = draw_job(config, seed)
    done = run_job(job)
    times = accelerator_times(config, done, drawn_stalls(seed))
    begin = START_TO_FETCH
    for layer in times.layers:
        phases = layer.phases
        assert phases.fetch == begin
        assert list(phases) == sorted(phases)
        begin = phases.end
    assert times.cycles == begin - START_TO_FETCH
    assert all(row.total_cycles == times.cycles for row in times.units)
    assert all(min(row.busy_cycles, *row.stall_cycles.values()) >= 0 for row in times.units)
    reads = sum(DESCRIPTOR_BYTES + 4 * layer.operands.query.shape[0] for layer in layers)
    assert times.dram_bytes[Traffic.VECTOR_READ] == reads
    assert times.query_rows == sum(layer.row_keys.size for layer in done.layers)
    assert times.lsb_rows == sum(int(layer.result.lsb_rows.sum()) for layer in done.layers if layer.result)
    added = [layer for layer in done.layers if Flag.ACCUMULATE_TOKENS in layer.descriptor.flags]
    beats = sum(int((-(-layer.row_keys // config.softmax.lanes)).sum()) for layer in added)
    importance = next(row for row in times.units if row.unit is Unit.IMPORTANCE)
    assert importance.busy_cycles >= beats


@settings(max_examples=60, deadline=None)
@given(config=fetched_machines(), seed=SEEDS, more=SEEDS)
def test_more_delay_never_makes_a_run_earlier(config: AcceleratorConfig, seed: int, more: int) -> None:
    """Without second passes: those change the order of rows, see `docs/simulator.md`, "Laws"."""
    job, _ = draw_job(config, seed, threshold=0.0)
    done = run_job(job)
    stalls = drawn_stalls(seed)
    fast, slow = (accelerator_times(config, done, pattern) for pattern in (stalls, worse(stalls, more)))
    for early, late in zip(fast.layers, slow.layers, strict=True):
        assert all(first <= second for first, second in zip(early.phases, late.phases, strict=True))


@pytest.mark.parametrize("seed", range(8))
def test_two_descriptors_cost_what_two_jobs_cost_when_nothing_is_carried_over(seed: int) -> None:
    layers = [dataclasses.replace(layer, flags=layer.flags | START) for layer in draw_layers(TINY, seed)]
    job = build_job(TINY, [*layers, layers[0]], threshold=0.3)
    together = run_job(job)
    cycles, memory = 0, job.image
    for number in range(len(job.descriptors)):
        address = job.descriptor_address + DESCRIPTOR_BYTES * number
        alone = dataclasses.replace(job.descriptors[number], flags=job.descriptors[number].flags | Flag.LAST)
        image = memory[:address] + encode_descriptor(alone) + memory[address + DESCRIPTOR_BYTES :]
        done = run(image, address, TINY, job.threshold)
        cycles += accelerator_times(TINY, done).cycles
        memory = done.memory[:address] + job.image[address : address + DESCRIPTOR_BYTES]
        memory += done.memory[address + DESCRIPTOR_BYTES :]
    assert memory == together.memory
    assert times_of(job).cycles == cycles


@pytest.mark.parametrize("seed", range(8))
def test_pruning_to_all_is_no_pruning(seed: int) -> None:
    layers = draw_layers(TINY, seed)
    prunes = Flag.PRUNE_TOKENS | Flag.PRUNE_HEADS
    without = build_job(TINY, [dataclasses.replace(layer, flags=layer.flags & ~prunes) for layer in layers])
    group_is_one = layers[0].operands.query.shape[0] == layers[0].operands.key.shape[0]
    wanted = prunes if group_is_one else Flag.PRUNE_TOKENS
    everything = [
        dataclasses.replace(layer, flags=layer.flags & ~prunes | wanted, keep_tokens=32, keep_heads=4)
        for layer in layers
    ]
    with_all = build_job(TINY, everything)
    first, second = run_job(without), run_job(with_all)
    for number in range(len(layers)):
        assert (without.outputs(first.memory, number) == with_all.outputs(second.memory, number)).all()
    cost = len(layers) * CASCADE_COMMAND * (2 if group_is_one else 1)
    assert times_of(with_all).cycles == times_of(without).cycles + cost


def operand_trace(seed: int, *, decode: bool, kept: int, steps: int = 1) -> Trace:
    """Three layers of one sequence with dense operands; decoding grows by a key a step."""
    rng = np.random.default_rng(seed)
    heads, head_dim = 3, 7
    ops, operands = [], {}
    for step, layer in ((step, layer) for step in range(steps) for layer in range(3)):
        keys = 20 + step
        queries = 1 if decode else keys
        shape = {"heads": heads, "kv_heads": heads, "queries": queries, "keys": keys, "head_dim": head_dim}
        bits = {"query_bits": 8, "key_msb_bits": 6, "key_lsb_bits": 2, "threshold": 0.3, "lsb_rows": -1}
        for name, rows in (("query", queries), ("key", keys)):
            operands[len(ops), name] = rng.normal(size=(heads, rows, head_dim)).astype(np.float32)
        ops.append(QueryKey(layer=layer, step=step, **shape, **bits))
        ops.append(Softmax(layer=layer, step=step, heads=heads, rows=queries, cols=keys))
        if kept < keys:
            ops.append(TopK(layer=layer, step=step, n=keys, k=kept, scope=TopKScope.VALUE, repeats=heads * queries))
        operands[len(ops), "value"] = rng.normal(size=(heads, keys, head_dim)).astype(np.float32)
        ops.append(ProbabilityValue(layer=layer, step=step, **shape, kept=kept, value_bits=8))
    return Trace(tuple(ops), operands, model="drawn", method="by hand")


@pytest.mark.parametrize(("decode", "kept"), [(False, 20), (False, 6), (True, 20), (True, 6)])
def test_a_trace_takes_the_same_attention_cycles_in_the_simulator(decode: bool, kept: int) -> None:
    trace = operand_trace(1, decode=decode, kept=kept)
    report = simulate(trace, TINY)
    times = times_of(trace_job(trace, TINY))
    cycles = [int(layer.times.cycles[0]) for layer in times.layers if layer.times is not None]
    assert [row.cycles for row in report.tokens] == cycles
    assert report.lsb_rows == times.lsb_rows
    assert report.dram_bytes | {Traffic.VECTOR_READ: 0, Traffic.VECTOR_WRITE: 0} == times.dram_bytes | {
        Traffic.VECTOR_READ: 0,
        Traffic.VECTOR_WRITE: 0,
    }


def test_the_machine_prunes_a_decoder_step_by_step() -> None:
    """Every step starts with all keys so far; what stays of them decides what the later layers fetch."""
    trace = operand_trace(2, decode=True, kept=6, steps=3)
    cascade = Cascade(keep_tokens=(12, 5), keep_heads=(3, 2))
    job = trace_job(trace, TINY, cascade=cascade)
    done = run_job(job)
    assert [layer.keys for layer in done.layers] == [20, 12, 5, 21, 12, 5, 22, 12, 5]
    assert [layer.heads.size for layer in done.layers] == [3, 3, 2] * 3
    for number, layer in enumerate(done.layers):
        tokens, heads, _ = job.report(done.memory, number)
        assert layer.state is not None
        assert [token for token, _ in tokens] == layer.state.tokens.tolist()
        assert len(heads) == layer.state.alive.sum()
    pruned, dense = times_of(job), times_of(trace_job(trace, TINY))
    assert pruned.dram_bytes[Traffic.KEY_MSB] < dense.dram_bytes[Traffic.KEY_MSB]
    assert done.layers[0].fetched_survivors is not None
    assert pruned.dram_bytes[Traffic.VALUE] == sum(
        layer.heads.size * min(6, layer.keys) * layer.descriptor.value_row_bytes for layer in done.layers
    )


def test_a_causal_prompt_is_pruned_with_its_rows() -> None:
    trace = operand_trace(3, decode=False, kept=20)
    ops = tuple(dataclasses.replace(op, causal=True) if isinstance(op, QueryKey) else op for op in trace.ops)
    job = trace_job(dataclasses.replace(trace, ops=ops), TINY, cascade=Cascade(keep_tokens=(9, 4)))
    first, second, third = run_job(job).layers
    assert first.row_keys.tolist() == list(range(1, 21)) * 3
    assert second.row_keys.tolist() == list(range(1, 10)) * 3
    assert third.row_keys.tolist() == list(range(1, 5)) * 3


def test_traces_without_operands_are_refused() -> None:
    trace = operand_trace(1, decode=False, kept=20)
    with pytest.raises(InputError, match="without operands"):
        trace_job(dataclasses.replace(trace, operands={}), TINY)


def test_a_second_job_goes_on_with_the_lists_of_the_first() -> None:
    job, _ = draw_job(TINY, 5, layers=1)
    done = run_job(job)
    again = dataclasses.replace(job.descriptors[0], flags=Flag.LIVE_TOKENS | Flag.LAST, queries=1)
    image = encode_descriptor(again).join(
        (job.image[: job.descriptor_address], job.image[job.descriptor_address + DESCRIPTOR_BYTES :])
    )
    assert run(image, job.descriptor_address, TINY, 0, done.state).layers[0].keys == done.state.tokens.size
    assert run(image, job.descriptor_address, TINY, 0, MachineState.after_reset(TINY)).layers[0].problem
