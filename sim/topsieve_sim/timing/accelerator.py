"""Cycles and counters of a job of the accelerator, phase by phase; the law is written down in `docs/accelerator.md`.

What the data decided comes from the golden run (`topsieve_sim.golden.accelerator`); here stand only times.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.golden.accelerator import AcceleratorRun, LayerRun, output_addresses, query_addresses, report_records
from topsieve_sim.golden.accelerator_latency import (
    CASCADE_COMMAND,
    DESCRIPTOR_BYTES,
    DESCRIPTOR_TO_RESET,
    FACTOR_BYTES,
    FACTORS_TO_SETUP,
    PHASE_STEP,
    REPORT_RECORD_BYTES,
    START_TO_FETCH,
    KeyValuePlane,
    key_value_fetch_shape,
    query_fetch_shape,
)
from topsieve_sim.golden.attention import flush_cycles
from topsieve_sim.golden.attention_latency import beats
from topsieve_sim.golden.descriptor import Flag
from topsieve_sim.golden.plane_fetch import PlaneFetchShape
from topsieve_sim.golden.row_write import RowWriteShape
from topsieve_sim.golden.topk import SELECTOR_CODES, select_cycles
from topsieve_sim.report.model import Stall, Traffic, Unit, UnitRow
from topsieve_sim.timing.accounting import BUSY, BYTE_KIND_NAMES, DONE, DOWNSTREAM, INPUT, MEMORY_WAIT
from topsieve_sim.timing.attention import (
    NEVER_STALLS,
    AttentionGroup,
    AttentionTimes,
    PortStalls,
    group_room,
    run_group,
)
from topsieve_sim.timing.cascade import prune_heads_times, prune_tokens_times, record_times, reset_tokens_cycles
from topsieve_sim.timing.memory_port import NO_CYCLES, NO_STALLS, MemoryPort, Room, fetcher_port, request, row_room
from topsieve_sim.timing.operand_layout import OperandLayout
from topsieve_sim.timing.output_port import writer_output
from topsieve_sim.timing.plane_fetch import BEFORE, BURSTS, WORDS
from topsieve_sim.timing.row_writer import BURSTS as WRITTEN_BURSTS
from topsieve_sim.timing.row_writer import FREE, RowWriter, idle_cycle, row_writer, write_row

# Units of the attention core, in the order of its table, and the causes in the order of its columns.
_CORE_UNITS = (
    Unit.MEMORY,
    Unit.DOT_PRODUCT,
    Unit.SOFTMAX_FILL,
    Unit.SOFTMAX_EXPONENTIAL,
    Unit.SOFTMAX_NORMALISE,
    Unit.VALUE_TOPK,
    Unit.WEIGHTED_SUM,
)
_NO_TABLE = np.zeros((0, 0), np.int64)


class WriteStalls(NamedTuple):
    """How the memory behind the write port stalls, beside its latency; `topsieve_sim.timing.row_writer.row_writer`."""

    address_ready: NDArray[np.bool_] = NO_STALLS
    word_ready: NDArray[np.bool_] = NO_STALLS
    delay: NDArray[np.int64] = NO_CYCLES


class RunStalls(NamedTuple):
    """Stalls of the three ports; cycle 0 of their patterns is that of `start`."""

    operands: PortStalls = NEVER_STALLS
    queries: PortStalls = NEVER_STALLS
    writes: WriteStalls = WriteStalls()


NO_RUN_STALLS = RunStalls()


class PhaseCycles(NamedTuple):
    """First cycle of each phase of a descriptor, counted from `start`; -1 where the run ended before."""

    fetch: int
    reset: int = -1
    factors: int = -1
    set_up: int = -1
    attention: int = -1
    wait: int = -1
    prune: int = -1
    end: int = -1


@dataclass(frozen=True)
class LayerTimes:
    """One descriptor: its phases, and the attention group's times and events (its cycle 0 is `attention` + 1)."""

    phases: PhaseCycles
    times: AttentionTimes | None = None
    events: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class AcceleratorTimes:
    """A job's cycles and performance counters, named like those of a `Report`.

    cycles : in which `status.busy` is set. units : busy and stalled cycles of every unit, which sum to `cycles`.
    dram_bytes : wanted bytes, by kind.
    """

    cycles: int
    query_rows: int
    lsb_rows: int
    units: tuple[UnitRow, ...]
    dram_bytes: dict[Traffic, int]
    layers: tuple[LayerTimes, ...]


def accelerator_times(
    config: AcceleratorConfig, run: AcceleratorRun, stalls: RunStalls = NO_RUN_STALLS
) -> AcceleratorTimes:
    """Cycles of the job that `run` describes, and what the performance counters hold afterwards, if they held 0 before."""
    clock = _Clock(config, stalls)
    cycle = START_TO_FETCH
    layers = []
    for layer in run.layers:
        layers.append(clock.descriptor(layer, cycle))
        cycle = layers[-1].phases.end
    cycles = cycle - START_TO_FETCH
    return AcceleratorTimes(
        cycles=cycles,
        query_rows=clock.query_rows,
        lsb_rows=clock.lsb_rows,
        units=clock.unit_rows(cycles),
        dram_bytes={kind: clock.traffic[kind] for kind in Traffic},
        layers=tuple(layers),
    )


class _ReadPort:
    """A fetcher over the whole job: it is empty at the start of each phase, but its stalls go on."""

    def __init__(self, shape: PlaneFetchShape, latency_cycles: int, stalls: PortStalls) -> None:
        self.shape, self.latency_cycles, self.stalls = shape, latency_cycles, stalls
        self.bursts, self.words, self.last_word = 0, 0, -1

    def opened(self, cycle: int, room: Room) -> MemoryPort:
        """The port with `cycle` as its cycle 0."""
        ready, delay, gap = self.stalls
        port = fetcher_port(
            self.shape, room, self.latency_cycles, ready[cycle:], delay[self.bursts :], gap[self.words :]
        )
        if self.words:
            port.state.at[BEFORE] = self.last_word - cycle
        return port

    def closed(self, cycle: int, port: MemoryPort) -> None:
        """After everything that `port`, opened in `cycle`, was asked for has come."""
        words = int(port.state.at[WORDS])
        if words:
            self.last_word = cycle + int(port.state.data[words - 1])
        self.bursts += int(port.state.at[BURSTS])
        self.words += words

    def bytes_arrive(self, cycle: int, address: int, size: int) -> int:
        """The cycle of the final beat of `size` bytes, asked for in `cycle`."""
        port = self.opened(cycle, row_room(self.shape, 1, 1, size, KeyValuePlane.BYTES))
        final = np.zeros(1, np.int64)
        request(
            port, 0, 1, size, 8 * size, 1, KeyValuePlane.BYTES, address & ((1 << 61) - 1), 0, False, NO_CYCLES, final,
            _NO_TABLE,
        )  # fmt: skip
        self.closed(cycle, port)
        return cycle + int(final[0])


class _Clock:
    """The running sums of a job."""

    def __init__(self, config: AcceleratorConfig, stalls: RunStalls) -> None:
        self.config = config
        latency = config.memory.latency_cycles
        self.operands = _ReadPort(key_value_fetch_shape(config), latency, stalls.operands)
        self.queries = _ReadPort(query_fetch_shape(config), latency, stalls.queries)
        self.writes = stalls.writes
        self.written_bursts = 0
        self.query_rows, self.lsb_rows = 0, 0
        self.core = np.zeros((len(_CORE_UNITS), DONE + 1), np.int64)
        self.busy: Counter[Unit] = Counter()
        self.traffic: Counter[Traffic] = Counter()

    def descriptor(self, layer: LayerRun, cycle: int) -> LayerTimes:
        """All phases of a descriptor whose fetch phase begins in `cycle`."""
        fields = layer.descriptor
        final = self.operands.bytes_arrive(cycle, layer.address, DESCRIPTOR_BYTES)
        self.traffic[Traffic.VECTOR_READ] += DESCRIPTOR_BYTES
        reset = final + DESCRIPTOR_TO_RESET
        if layer.result is None:
            return LayerTimes(PhaseCycles(cycle, end=reset))
        factors = reset + self._reset_cycles(layer) + 1
        heads = fields.kv_heads * fields.group
        final = self.operands.bytes_arrive(factors, fields.factors, FACTOR_BYTES * heads)
        self.traffic[Traffic.VECTOR_READ] += FACTOR_BYTES * heads
        set_up = final + FACTORS_TO_SETUP
        attention = set_up + heads
        times, events, idle = self._attention(layer, attention + 1)
        done = attention + 1 + int(times.cycles[0])
        wait = done + PHASE_STEP
        prune = max(wait, idle) + PHASE_STEP
        end = self._prune(layer, prune)
        phases = PhaseCycles(cycle, reset, factors, set_up, attention, wait, prune, end)
        return LayerTimes(phases, times, events)

    def unit_rows(self, cycles: int) -> tuple[UnitRow, ...]:
        """Every unit's cycles; drained where no cause was counted."""
        rows = []
        for unit in Unit:
            counts = {Stall.INPUT: 0, Stall.MEMORY: 0, Stall.DOWNSTREAM: 0}
            busy = self.busy[unit]
            if unit in _CORE_UNITS:
                line = self.core[_CORE_UNITS.index(unit)]
                busy = int(line[BUSY])
                # A unit of the machine cannot know that it will have no more work.
                counts = {
                    Stall.INPUT: int(line[INPUT] + line[DONE]),
                    Stall.MEMORY: int(line[MEMORY_WAIT]),
                    Stall.DOWNSTREAM: int(line[DOWNSTREAM]),
                }
            drained = cycles - busy - sum(counts.values())
            stalls = {**counts, Stall.DRAINED: drained, Stall.IDLE: 0}
            rows.append(UnitRow(unit=unit, busy_cycles=busy, stall_cycles=stalls))
        return tuple(rows)

    def _reset_cycles(self, layer: LayerRun) -> int:
        flags = layer.descriptor.flags
        cycles = CASCADE_COMMAND * ((Flag.CLEAR_IMPORTANCE in flags) + (Flag.RESET_HEADS in flags))
        if Flag.RESET_TOKENS in flags:
            cycles += reset_tokens_cycles(layer.descriptor.keys)
        return cycles

    def _writer(self, cycle: int) -> RowWriter:
        """The writer with `cycle` as its cycle 0; nothing is under way."""
        config, (address_ready, word_ready, delay) = self.config, self.writes
        return row_writer(
            RowWriteShape.of(config),
            config.memory.latency_cycles,
            address_ready=address_ready[cycle:],
            word_ready=word_ready[cycle:],
            delay=delay[self.written_bursts :],
        )

    def _attention(self, layer: LayerRun, cycle: int) -> tuple[AttentionTimes, NDArray[np.int64], int]:
        """The group whose cycle 0 is `cycle`; its times, its events and the cycle in which the writer is idle."""
        group = attention_group(self.config, layer)
        rooms = group_room(self.config, group)
        port, query_port = (
            fetcher.opened(cycle, room) for fetcher, room in zip((self.operands, self.queries), rooms, strict=True)
        )
        writer = self._writer(cycle)
        times, events = run_group(self.config, group, port, query_port, output=writer_output(writer))
        self.operands.closed(cycle, port)
        self.queries.closed(cycle, query_port)
        self.written_bursts += int(writer.at[WRITTEN_BURSTS])
        self.core += times.unit_cycles[0]
        for name, size in zip(BYTE_KIND_NAMES, times.dram_bytes[0].tolist(), strict=True):
            self.traffic[Traffic(name)] += size
        self.query_rows += layer.row_keys.size
        self.lsb_rows += int(np.sum(group.lsb_flags))
        if Flag.ACCUMULATE_TOKENS in layer.descriptor.flags:
            lanes = self.config.softmax.lanes
            self.busy[Unit.IMPORTANCE] += int((-(-layer.row_keys // lanes)).sum())
        return times, events, cycle + idle_cycle(writer)

    def _prune(self, layer: LayerRun, cycle: int) -> int:
        """Prunings and report from `cycle` on; the first cycle after the phase."""
        config, lanes = self.config, self.config.softmax.lanes
        if layer.prune_tokens is not None:
            live, keep = layer.prune_tokens.tokens.size, layer.descriptor.keep_tokens
            importance = layer.prune_tokens.token_importance[:live]
            cost = prune_tokens_times(config, importance, keep).cycles
            cycle += cost
            self.busy[Unit.CASCADE_TOPK] += cost - 1
            if keep < live:
                self.busy[Unit.IMPORTANCE] += beats(live, lanes) + beats(keep, lanes)
        if layer.prune_heads is not None:
            before, keep = layer.prune_heads, layer.descriptor.keep_heads
            cost = prune_heads_times(config, before.head_importance, before.alive, keep).cycles
            cycle += cost
            self.busy[Unit.CASCADE_TOPK] += cost - 1
            if keep < before.alive.sum():
                self.busy[Unit.IMPORTANCE] += int(np.flatnonzero(before.alive)[-1]) + 1
        if Flag.REPORT in layer.descriptor.flags:
            cycle = self._report(layer, cycle)
        return cycle + 1

    def _report(self, layer: LayerRun, cycle: int) -> int:
        """The report's command is taken in `cycle`; the first cycle in which unit and writer are ready again."""
        state = layer.state
        assert state is not None
        writer = self._writer(cycle)
        offered = record_times(self.config, state.tokens.size, state.alive)
        taken = 0
        records = report_records(layer, state)
        for number in range(len(records)):
            earliest = max(int(offered.earliest[number]), taken + int(offered.gap[number]))
            taken = max(earliest, int(writer.at[FREE]))
            address = (layer.descriptor.report + REPORT_RECORD_BYTES * number) & ((1 << 61) - 1)
            write_row(writer, taken, address, REPORT_RECORD_BYTES)
        self.written_bursts += int(writer.at[WRITTEN_BURSTS])
        self.traffic[Traffic.VECTOR_WRITE] += REPORT_RECORD_BYTES * len(records)
        heads = np.flatnonzero(state.alive)
        words = beats(state.tokens.size, self.config.softmax.lanes) + (int(heads[-1]) + 1 if heads.size else 0)
        self.busy[Unit.IMPORTANCE] += words
        return cycle + max(taken + 1, idle_cycle(writer))


def attention_group(config: AcceleratorConfig, layer: LayerRun) -> AttentionGroup:
    """The attention group of a descriptor, with what its data decided and where its operands stand."""
    descriptor, result = layer.descriptor, layer.result
    assert result is not None
    flags = descriptor.flags
    gathers = Flag.LIVE_TOKENS in flags
    mask = (1 << config.memory.axi.address_bits) - 1
    heads = [
        (getattr(descriptor, name) & mask) + layer.heads * getattr(descriptor, f"{name}_head_bytes")
        for name in ("key_msb", "key_lsb", "value")
    ]
    survivors = layer.fetched_survivors
    if survivors is not None and gathers:
        survivors = layer.tokens[survivors]
    kept = min(descriptor.kept_values or layer.keys, layer.keys)
    nothing = np.zeros(layer.row_keys.size, np.int64)
    select, flush = _selections(config, layer, kept) if kept < layer.keys else (nothing, nothing)
    return AttentionGroup(
        heads=layer.heads.size,
        queries=descriptor.group * layer.queries,
        keys=layer.keys,
        kept=kept,
        head_dim=descriptor.head_dim,
        lsb_flags=result.lsb_rows.reshape(-1),
        select_cycles=select,
        flush_cycles=flush,
        row_keys=layer.row_keys,
        progressive=Flag.PROGRESSIVE in flags,
        layout=OperandLayout(
            heads=np.array(heads, np.int64),
            row_bytes=np.array(
                [descriptor.key_msb_row_bytes, descriptor.key_lsb_row_bytes, descriptor.value_row_bytes], np.int64
            ),
            query=query_addresses(layer).reshape(-1) & mask,
            output=output_addresses(layer).reshape(-1) & mask,
            tokens=layer.tokens if gathers else None,
            survivors=survivors,
        ),
    )


def _selections(config: AcceleratorConfig, layer: LayerRun, kept: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Selection and flush cycles of each row."""
    assert layer.result is not None
    topk = config.topk
    rows = layer.result.probability.reshape(-1, layer.keys)
    scores = [np.ascontiguousarray(row[:keys]) for row, keys in zip(rows, layer.row_keys.tolist(), strict=True)]
    cycles = [
        select_cycles(
            row,
            kept,
            SELECTOR_CODES[topk.selector],
            topk.parallelism,
            config.formats.probability_bits,
            topk.seed,
            topk.radix_bits,
        )[0]
        for row in scores
    ]
    flush = flush_cycles(np.concatenate(scores), layer.row_keys, kept, topk.parallelism)
    return np.array(cycles, np.int64), flush
