"""The ports of a machine for one attention group: keys and values, queries, outputs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.golden.accelerator_latency import KeyValuePlane, QueryPlane, key_value_fetch_shape, query_fetch_shape
from topsieve_sim.golden.row_write import RowWriteShape
from topsieve_sim.timing.attention_group import AttentionGroup
from topsieve_sim.timing.memory_port import (
    NO_CYCLES,
    NO_STALLS,
    MemoryPort,
    Room,
    fetcher_port,
    ideal_port,
    no_port,
    row_room,
    total_room,
)
from topsieve_sim.timing.output_port import OutputPort, pattern_output, writer_output
from topsieve_sim.timing.row_writer import row_writer


class PortStalls(NamedTuple):
    """How the memory behind a fetcher's port stalls, beside its latency.

    ready : bool [cycles], in which cycles it takes an address; always beyond the end.
    delay, gap : int64 [bursts] and [words], extra cycles before a burst's first word and before a word; 0 beyond the end.
    """

    ready: NDArray[np.bool_] = NO_STALLS
    delay: NDArray[np.int64] = NO_CYCLES
    gap: NDArray[np.int64] = NO_CYCLES


NEVER_STALLS = PortStalls()


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
