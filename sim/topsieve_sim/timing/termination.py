"""Cycles, stalls and bytes of decoding groups whose keys end early: the entry point for the engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.golden.attention_latency import attention_latencies, termination_latencies
from topsieve_sim.timing.accounting import BYTE_KINDS, CAUSES, UNITS
from topsieve_sim.timing.attention import AttentionTimes
from topsieve_sim.timing.attention_kernel import EVENTS
from topsieve_sim.timing.memory_port import NO_STALLS, MemoryPort, ideal_port, no_port
from topsieve_sim.timing.output_port import pattern_output
from topsieve_sim.timing.termination_group import TerminationGroup
from topsieve_sim.timing.termination_kernel import termination_times


def terminated_times(config: AcceleratorConfig, groups: Sequence[TerminationGroup]) -> AttentionTimes:
    """Times of `groups`, each started on an empty machine.

    Raises
    ------
    InputError
        a group does not fit the machine.
    """
    found = [terminated_events(config, group, record=False)[0] for group in groups]
    return AttentionTimes(
        cycles=np.array([times.cycles[0] for times in found], np.int64),
        unit_cycles=np.array([times.unit_cycles[0] for times in found]).reshape(-1, UNITS, CAUSES),
        dram_bytes=np.array([times.dram_bytes[0] for times in found]).reshape(-1, BYTE_KINDS),
    )


def terminated_events(
    config: AcceleratorConfig,
    group: TerminationGroup,
    *,
    memory_ready: NDArray[np.bool_] = NO_STALLS,
    output_ready: NDArray[np.bool_] = NO_STALLS,
    record: bool = True,
) -> tuple[AttentionTimes, NDArray[np.int64]]:
    """Times of one group and, with `record`, the events of its passes in start order, int64 [2 x rows, events].

    `memory_ready` and `output_ready` (bool [cycles]) stall the memory and the output; both are always ready beyond their
    pattern's end. The columns are those of `topsieve_sim.timing.attention_kernel`; -1 = not reached. `FILTERED` is the cycle from
    which a second pass can be picked.

    Raises
    ------
    InputError
        the group does not fit the machine.
    """
    port = ideal_port(config.memory.bytes_per_cycle, config.memory.latency_cycles, memory_ready)
    return run_terminated(config, group, port, no_port(), output_ready=output_ready, record=record)


def run_terminated(
    config: AcceleratorConfig,
    group: TerminationGroup,
    port: MemoryPort,
    query_port: MemoryPort,
    *,
    output_ready: NDArray[np.bool_] = NO_STALLS,
    record: bool = True,
) -> tuple[AttentionTimes, NDArray[np.int64]]:
    """`terminated_events` with ports of one's own, which hold what crossed them afterwards; the group starts in cycle 0.

    Raises
    ------
    InputError
        the group does not fit the machine.
    """
    group.check(config)
    table = np.zeros((1, UNITS, CAUSES), np.int64)
    sizes = np.zeros((1, BYTE_KINDS), np.int64)
    events = np.zeros((2 * group.heads * group.queries if record else 0, EVENTS), np.int64)
    cycles = termination_times(
        attention_latencies(config),
        termination_latencies(config),
        group.shape(config),
        np.ascontiguousarray(group.candidates, np.int64),
        np.ascontiguousarray(group.whole, np.bool_),
        port,
        query_port,
        pattern_output(output_ready),
        table[0],
        sizes[0],
        events,
    )
    return AttentionTimes(cycles=np.array([cycles]), unit_cycles=table, dram_bytes=sizes), events
