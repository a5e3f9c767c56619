"""Cycles, stalls and bytes of attention groups on the machine: the entry point for the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.errors import InputError
from topsieve_sim.golden.accelerator_latency import KeyValuePlane, QueryPlane, key_value_fetch_shape, query_fetch_shape
from topsieve_sim.golden.attention_latency import AttentionLatencies, attention_latencies
from topsieve_sim.golden.row_write import RowWriteShape
from topsieve_sim.timing.accounting import (
    BYTE_KIND_NAMES,
    BYTE_KINDS,
    CAUSE_NAMES,
    CAUSES,
    UNIT_NAMES,
    UNITS,
)
from topsieve_sim.timing.attention_kernel import (
    EVENTS,
    NOWHERE,
    GroupAddresses,
    OutputPort,
    group_times,
    pattern_output,
    writer_output,
)
from topsieve_sim.timing.memory_port import (
    NO_CYCLES,
    NO_STALLS,
    MemoryPort,
    Room,
    fetcher_port,
    ideal_port,
    no_port,
    restart,
    row_room,
    total_room,
)
from topsieve_sim.timing.operand_layout import OperandLayout, packed_layout
from topsieve_sim.timing.row_writer import row_writer

__all__ = [
    "BYTE_KIND_NAMES",
    "CAUSE_NAMES",
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


@dataclass(frozen=True, kw_only=True)
class AttentionGroup:
    """One attention group: `heads` key-value heads in sequence, `queries` rows each.

    With grouped-query attention, `heads` counts key-value heads and `queries` the rows of all query heads that share
    one. `kept` < `keys` asks for local value selection: with one query a head only the survivors' value rows are
    fetched and weighted; with more, the head's values are resident and pruned probabilities are zeros.

    Parameters
    ----------
    lsb_flags : rows whose first pass is discarded, bool [heads * queries] or one bool for all.
    select_cycles : cycles of the top-k engine's selector, command to result (`golden.topk.select_cycles`), int
        [heads * queries] or one number; unused when all are kept.
    flush_cycles : 1 for rows whose survivors overflow the packer with the last filtered row
        (`golden.attention.flush_cycles`), else 0; int [heads * queries] or one number.
    row_keys : keys each row attends to (a prefix; causal masks), int [heads * queries]; default `keys`.
    progressive : the key planes stay until the decision; default: a second pass is possible (`key_lsb_bits` > 0 and
        enabled in the configuration).
    query_bits, key_msb_bits, key_lsb_bits, value_bits : default to the configuration's formats, which are always the widths
        in the memory of a machine with fetchers.
    layout : where the operands stand, for a machine with fetchers; default: `packed_layout`.
    """

    heads: int
    queries: int
    keys: int
    kept: int
    head_dim: int
    lsb_flags: NDArray[np.bool_] | bool = False
    select_cycles: NDArray[np.int64] | int = 0
    flush_cycles: NDArray[np.int64] | int = 0
    row_keys: NDArray[np.int64] | None = None
    progressive: bool | None = None
    query_bits: int | None = None
    key_msb_bits: int | None = None
    key_lsb_bits: int | None = None
    value_bits: int | None = None
    layout: OperandLayout | None = None

    def check(self, config: AcceleratorConfig) -> None:
        """Raise `InputError` where the machine cannot run this group."""
        for name, value, low, high in (
            ("heads", self.heads, 1, 1 << 20),
            ("queries", self.queries, 1, 1 << 24),
            ("keys", self.keys, 1, config.capacity),
            ("kept", self.kept, 1, self.keys),
            ("head_dim", self.head_dim, 1, config.max_head_dim),
        ):
            if not low <= value <= high:
                raise InputError(
                    "out of range", source="attention group", field=name, value=value, allowed=f"{low} to {high}"
                )
        rows = self.heads * self.queries
        for name, array in (
            ("lsb_flags", self.lsb_flags),
            ("select_cycles", self.select_cycles),
            ("flush_cycles", self.flush_cycles),
            ("row_keys", self.row_keys),
        ):
            if isinstance(array, np.ndarray) and array.shape != (rows,):
                raise InputError(
                    "wrong shape", source="attention group", field=name, value=array.shape, allowed=f"({rows},)"
                )
        if self.row_keys is not None and not (self.row_keys.min() >= 1 and self.row_keys.max() <= self.keys):
            raise InputError(
                "out of range", source="attention group", field="row_keys", allowed=f"1 to keys = {self.keys}"
            )
        if np.any(self.lsb_flags) and not self._progressive(config):
            raise InputError(
                "rows ask for the LSB plane of a group without progressive quantisation",
                source="attention group",
                field="lsb_flags",
            )

    def addresses(self, config: AcceleratorConfig) -> GroupAddresses:
        """Where the operands stand, as the compiled kernel takes it."""
        rows = self.heads * self.queries
        layout = self.layout or packed_layout(config, self.heads, rows, self.keys, self.head_dim)
        fetched = self.kept < self.keys and self.queries == 1
        return GroupAddresses(
            layout.heads,
            layout.row_bytes,
            layout.query,
            layout.tokens is not None,
            np.zeros(0, np.int64) if layout.tokens is None else layout.tokens,
            layout.survivor_rows(self.keys, self.kept, rows) if fetched else np.zeros((0, 0), np.int64),
            layout.output,
        )

    def _width(self, name: str, config: AcceleratorConfig) -> int:
        own, width = getattr(self, name), getattr(config.formats, name)
        return int(width if own is None or config.memory.has_fetchers else own)

    def _lsb_bits(self, config: AcceleratorConfig) -> int:
        return self._width("key_lsb_bits", config)

    def _progressive(self, config: AcceleratorConfig) -> bool:
        possible = config.progressive.enabled and self._lsb_bits(config) > 0
        return possible if self.progressive is None else self.progressive and self._lsb_bits(config) > 0

    def shape(self, config: AcceleratorConfig) -> tuple[int, ...]:
        """The line of scalars that the compiled kernel takes."""
        lanes = config.softmax.lanes
        return (
            config.dot_product.interval_cycles(lanes, self.head_dim),
            config.weighted_sum.interval_cycles(lanes, self.head_dim),
            self.heads,
            self.queries,
            self.keys,
            self.kept,
            self.head_dim,
            self._width("query_bits", config),
            self._width("key_msb_bits", config),
            self._lsb_bits(config),
            self._width("value_bits", config),
            config.formats.output_bits,
            int(self._progressive(config)),
        )


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


class PortStalls(NamedTuple):
    """How the memory behind a fetcher's port stalls, beside its latency.

    ready : bool [cycles], in which cycles it takes an address; always beyond the end.
    delay, gap : int64 [bursts] and [words], extra cycles before a burst's first word and before a word; 0 beyond the end.
    """

    ready: NDArray[np.bool_] = NO_STALLS
    delay: NDArray[np.int64] = NO_CYCLES
    gap: NDArray[np.int64] = NO_CYCLES


NEVER_STALLS = PortStalls()


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


def group_room(config: AcceleratorConfig, group: AttentionGroup) -> tuple[Room, Room]:
    """What the fetchers of keys and values and of queries must be able to note for `group`."""
    shape = key_value_fetch_shape(config)
    rows = group.heads * group.queries
    fetched = group.kept < group.keys and group.queries == 1
    requests = [
        (KeyValuePlane.KEY_MSB, group.heads, group.keys),
        (KeyValuePlane.KEY_LSB, group.heads, group.keys),
        (KeyValuePlane.VALUE, group.heads, group.kept if fetched else group.keys),
    ]
    started = rows + int(np.broadcast_to(group.lsb_flags, rows).sum())
    return (
        total_room([row_room(shape, count, keys, group.head_dim, plane) for plane, count, keys in requests]),
        row_room(query_fetch_shape(config), started, 1, group.head_dim, QueryPlane.QUERY),
    )


def group_ports(
    config: AcceleratorConfig,
    group: AttentionGroup,
    operands: PortStalls = NEVER_STALLS,
    queries: PortStalls = NEVER_STALLS,
) -> tuple[MemoryPort, MemoryPort]:
    """Fresh ports of `config` with room for `group`: of keys and values, and of queries."""
    latency = config.memory.latency_cycles
    if not config.memory.has_fetchers:
        return ideal_port(config.memory.bytes_per_cycle, latency, operands.ready), no_port()
    room, query_room = group_room(config, group)
    return (
        fetcher_port(key_value_fetch_shape(config), room, latency, *operands),
        fetcher_port(query_fetch_shape(config), query_room, latency, *queries),
    )


def machine_output(config: AcceleratorConfig, ready: NDArray[np.bool_] = NO_STALLS) -> OutputPort:
    """What takes the rows of `config`: a pattern, if there is one or no fetchers; else its writer, whose memory never stalls."""
    if ready.size or not config.memory.has_fetchers:
        return pattern_output(ready)
    return writer_output(row_writer(RowWriteShape.of(config), config.memory.latency_cycles))


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
    shapes = np.array([group.shape(config) for group in groups], np.int64).reshape(len(groups), 13)
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
        shape[10], shape[11], shape[12] != 0, rows.keys, rows.lsb_flags, rows.select_cycles, rows.flush_cycles, port, query_port, places,
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
