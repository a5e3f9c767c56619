"""Cycles, stalls and bytes of attention groups on the machine: the entry point for the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.golden.attention_latency import AttentionLatencies, attention_latencies
from topsieve_sim.timing.accounting import (
    BYTE_KIND_NAMES,
    BYTE_KINDS,
    CAUSE_NAMES,
    CAUSES,
    UNIT_NAMES,
    UNITS,
)
from topsieve_sim.timing.attention_group import AttentionGroup
from topsieve_sim.timing.attention_kernel import EVENTS, group_times
from topsieve_sim.timing.group_ports import NEVER_STALLS, PortStalls, group_ports, group_room, machine_output
from topsieve_sim.timing.memory_port import NO_STALLS, MemoryPort, ideal_port, no_port, restart
from topsieve_sim.timing.operand_requests import NOWHERE, GroupAddresses
from topsieve_sim.timing.output_port import OutputPort, pattern_output

__all__ = [
    "BYTE_KIND_NAMES",
    "CAUSE_NAMES",
    "NEVER_STALLS",
    "UNIT_NAMES",
    "AttentionGroup",
    "AttentionTimes",
    "PortStalls",
    "attention_events",
    "attention_times",
    "group_ports",
    "group_room",
    "machine_output",
    "run_group",
]


# Scalars of `AttentionGroup.shape`.
SHAPE_FIELDS = 14


@dataclass(frozen=True)
class AttentionTimes:
    """What the groups cost.

    cycles : int64 [groups], from the group's start to the cycle after its last output row left.
    unit_cycles : int64 [groups, units, causes]; for each group and unit the causes sum to `cycles`
        (`UNIT_NAMES`, `CAUSE_NAMES`).
    dram_bytes : int64 [groups, kinds] (`BYTE_KIND_NAMES`).
    """

    cycles: NDArray[np.int64]
    unit_cycles: NDArray[np.int64]
    dram_bytes: NDArray[np.int64]

    @property
    def total_cycles(self) -> int:
        """Cycles of all groups, one after the other."""
        return int(self.cycles.sum())


def attention_times(
    config: AcceleratorConfig,
    groups: Sequence[AttentionGroup],
    *,
    memory_ready: NDArray[np.bool_] = NO_STALLS,
    output_ready: NDArray[np.bool_] = NO_STALLS,
) -> AttentionTimes:
    """Times of `groups`, each started on an empty machine (a group starts when the one before it has ended).

    `memory_ready` and `output_ready` (bool [cycles]) stall the memory and the output; both are always ready beyond
    their pattern's end. With fetchers, the memory that stalls is that of keys and values, and it stalls addresses; the row
    writer takes the outputs unless there is a pattern.

    Raises
    ------
    InputError
        a group does not fit the machine.
    """
    times, _ = _run(config, groups, memory_ready, output_ready, record=False)
    return times


def attention_events(
    config: AcceleratorConfig,
    group: AttentionGroup,
    *,
    memory_ready: NDArray[np.bool_] = NO_STALLS,
    output_ready: NDArray[np.bool_] = NO_STALLS,
) -> tuple[AttentionTimes, NDArray[np.int64]]:
    """Times of one group and the event table of its rows in start order, int64 [started rows, events].

    The columns are named by the constants `ROW` to `LEFT` of `topsieve_sim.timing.attention_kernel`; -1 = not reached.
    """
    return _run(config, [group], memory_ready, output_ready, record=True)


def run_group(
    config: AcceleratorConfig,
    group: AttentionGroup,
    port: MemoryPort,
    query_port: MemoryPort,
    *,
    output_ready: NDArray[np.bool_] = NO_STALLS,
    output: OutputPort | None = None,
) -> tuple[AttentionTimes, NDArray[np.int64]]:
    """`attention_events` with ports of one's own, which hold what crossed them afterwards; the group starts in cycle 0.

    `port.picked` has the cycle of each request; `port.state` and `port.plan` of a fetcher have every event and every burst.
    `output` takes the rows; default: ready by the pattern `output_ready`.

    Raises
    ------
    InputError
        the group does not fit the machine.
    """
    group.check(config)
    flags = np.broadcast_to(group.lsb_flags, group.heads * group.queries)
    events = np.zeros((flags.size + int(flags.sum()), EVENTS), np.int64)
    return _run_on_ports(config, group, port, query_port, output or pattern_output(output_ready), events), events


class _Rows(NamedTuple):
    """Keys, LSB flag, selection and flush cycles of each row."""

    keys: NDArray[np.int64]
    lsb_flags: NDArray[np.bool_]
    select_cycles: NDArray[np.int64]
    flush_cycles: NDArray[np.int64]


def _rows_of(groups: Sequence[AttentionGroup], offsets: NDArray[np.int64]) -> _Rows:
    """The rows of all groups; those of group g begin at `offsets[g]`."""
    total = int(offsets[-1])
    rows = _Rows(
        np.empty(total, np.int64), np.empty(total, np.bool_), np.empty(total, np.int64), np.empty(total, np.int64)
    )
    for g, group in enumerate(groups):
        part = slice(offsets[g], offsets[g + 1])
        rows.keys[part] = group.keys if group.row_keys is None else group.row_keys
        rows.lsb_flags[part] = group.lsb_flags
        rows.select_cycles[part] = group.select_cycles
        rows.flush_cycles[part] = group.flush_cycles
    return rows


def _run_on_ports(
    config: AcceleratorConfig,
    group: AttentionGroup,
    port: MemoryPort,
    query_port: MemoryPort,
    output: OutputPort,
    events: NDArray[np.int64],
) -> AttentionTimes:
    table = np.zeros((1, UNITS, CAUSES), np.int64)
    sizes = np.zeros((1, BYTE_KINDS), np.int64)
    places = group.addresses(config) if config.memory.has_fetchers else NOWHERE
    shape = np.array(group.shape(config), np.int64)
    rows = _rows_of([group], np.array([0, group.heads * group.queries]))
    cycles = _one_group_times(
        attention_latencies(config), shape, rows, port, query_port, places, output, table[0], sizes[0], events
    )
    return AttentionTimes(cycles=np.array([cycles]), unit_cycles=table, dram_bytes=sizes)


def _run(
    config: AcceleratorConfig,
    groups: Sequence[AttentionGroup],
    memory_ready: NDArray[np.bool_],
    output_ready: NDArray[np.bool_],
    record: bool,
) -> tuple[AttentionTimes, NDArray[np.int64]]:
    for group in groups:
        group.check(config)
    offsets = np.zeros(len(groups) + 1, np.int64)
    offsets[1:] = np.cumsum([group.heads * group.queries for group in groups], dtype=np.int64)
    shapes = np.array([group.shape(config) for group in groups], np.int64).reshape(len(groups), SHAPE_FIELDS)
    rows = _rows_of(groups, offsets)
    tables = np.zeros((len(groups), UNITS, CAUSES), np.int64)
    sizes = np.zeros((len(groups), BYTE_KINDS), np.int64)
    events = np.zeros((int(offsets[-1] + rows.lsb_flags.sum()) if record else 0, EVENTS), np.int64)
    if config.memory.has_fetchers:
        parts = [
            _run_on_ports(
                config,
                group,
                *group_ports(config, group, PortStalls(memory_ready)),
                machine_output(config, output_ready),
                events,
            )
            for group in groups
        ]
        cycles = np.array([part.cycles[0] for part in parts], np.int64)
        for g, part in enumerate(parts):
            tables[g], sizes[g] = part.unit_cycles[0], part.dram_bytes[0]
        return AttentionTimes(cycles=cycles, unit_cycles=tables, dram_bytes=sizes), events
    port = ideal_port(config.memory.bytes_per_cycle, config.memory.latency_cycles, memory_ready)
    cycles = _many_group_times(
        attention_latencies(config),
        shapes,
        offsets,
        rows,
        port,
        no_port(),
        NOWHERE,
        pattern_output(output_ready),
        tables,
        sizes,
        events,
    )
    return AttentionTimes(cycles=cycles, unit_cycles=tables, dram_bytes=sizes), events


@njit(cache=True)
def _one_group_times(
    machine: AttentionLatencies,
    shape: NDArray[np.int64],
    rows: _Rows,
    port: MemoryPort,
    query_port: MemoryPort,
    places: GroupAddresses,
    output: OutputPort,
    table: NDArray[np.int64],
    size: NDArray[np.int64],
    events: NDArray[np.int64],
) -> int:
    """`group_times` of one group; `shape` is the line of its scalar arguments."""
    return group_times(
        machine, shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], shape[6], shape[7], shape[8], shape[9],
        shape[10], shape[11], shape[12] != 0, shape[13], rows.keys, rows.lsb_flags, rows.select_cycles, rows.flush_cycles, port, query_port, places,
        output, table, size, events,
    )  # fmt: skip


@njit(cache=True)
def _many_group_times(
    machine: AttentionLatencies,
    shapes: NDArray[np.int64],
    row_offset: NDArray[np.int64],
    rows: _Rows,
    port: MemoryPort,
    query_port: MemoryPort,
    places: GroupAddresses,
    output: OutputPort,
    tables: NDArray[np.int64],
    sizes: NDArray[np.int64],
    events: NDArray[np.int64],
) -> NDArray[np.int64]:
    """`group_times` of every group on ideal ports, each from its own cycle 0."""
    groups = shapes.shape[0]
    cycles = np.zeros(groups, np.int64)
    for g in range(groups):
        a, b = row_offset[g], row_offset[g + 1]
        restart(port)
        restart(query_port)
        mine = _Rows(rows.keys[a:b], rows.lsb_flags[a:b], rows.select_cycles[a:b], rows.flush_cycles[a:b])
        cycles[g] = _one_group_times(
            machine, shapes[g], mine, port, query_port, places, output, tables[g], sizes[g], events
        )
    return cycles
