"""Beat times of the top-k engine: load, select, filter, with one or two row buffers.

For packet p with beats b, rows i and output beats o (`docs/topk-engine.md` derives each line):

    accepted[b]   = max(arrival[b], accepted[b-1] + 1, freed[p - banks] for the packet's first beat)
    command[p]    = max(accepted[last beat of p] + LOAD_TO_COMMAND, taken[p-1] + 1)
    result[p]     = command[p] + select_cycles(packet p)
    taken[p]      = max(result[p], issued[last row of p-1] + 1)
    issued[i]     = max(issued[i-1] + 1, taken[p] + 1, first cycle with enough output credits)
    freed[p]      = issued[last row of p] + 1
    left[o]       = first ready cycle >= max(written[o] + 1, left[o-1] + 1)

A row needs one credit, a packet's last row two (it can complete a full beat and leave a partial one). A credit comes
back when the row has passed without filling a beat, or when its beat has left the output FIFO.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.golden.topk_latency import LOAD_TO_COMMAND, filter_stages, output_fifo_depth
from topsieve_sim.golden.topk_select import select_cycles
from topsieve_sim.timing.pipeline import next_ready

__all__ = ["TopKTimes", "packet_rows", "row_survivors", "select_cycles", "topk_times"]


class TopKTimes(NamedTuple):
    """Cycles of every event of a packet sequence."""

    accepted: NDArray[np.int64]
    """[load beats], the load handshake."""
    command: NDArray[np.int64]
    """[packets], the selector takes its command."""
    result: NDArray[np.int64]
    """[packets], the selector first offers its result."""
    issued: NDArray[np.int64]
    """[rows of all packets], the filter reads a row."""
    left: NDArray[np.int64]
    """[output beats], the output handshake."""


@njit(cache=True)
def packet_rows(n: int, parallelism: int) -> int:
    """Rows the filter issues for a packet: at least one, which carries the last flag of an empty packet."""
    return max(1, (n + parallelism - 1) // parallelism)


@njit(cache=True)
def row_survivors(scores: NDArray[np.int64], kth: int, quota: int, parallelism: int) -> NDArray[np.int64]:
    """int64 [packet_rows(n)], how many elements of each row pass the filter."""
    counts = np.zeros(packet_rows(scores.size, parallelism), np.int64)
    for i in range(scores.size):
        if scores[i] > kth:
            counts[i // parallelism] += 1
        elif scores[i] == kth and quota > 0:
            quota -= 1
            counts[i // parallelism] += 1
    return counts


@njit(cache=True)
def topk_times(
    arrival: NDArray[np.int64],
    packet_beats: NDArray[np.int64],
    rows: NDArray[np.int64],
    selecting: NDArray[np.int64],
    survivors: NDArray[np.int64],
    ready: NDArray[np.bool_],
    parallelism: int,
    banks: int,
) -> TopKTimes:
    """Cycles of every beat of a sequence of packets.

    Parameters
    ----------
    arrival : int64 [load beats], cycle from which the source offers each beat.
    packet_beats : int64 [packets], load beats of each packet, at least 1.
    rows : int64 [packets], `packet_rows` of each packet; 1 for a refused packet.
    selecting : int64 [packets], `select_cycles` of each packet; 1 for a refused packet.
    survivors : int64 [sum of rows], `row_survivors` of the packets; 0 for a refused packet.
    ready : bool [cycles], the sink's pattern; always ready beyond its end.
    parallelism : P of the engine.
    banks : row buffers, 1 or 2.
    """
    packets = packet_beats.size
    stages = filter_stages(parallelism)
    credits = output_fifo_depth(parallelism)
    accepted = np.empty(arrival.size, np.int64)
    command = np.empty(packets, np.int64)
    result = np.empty(packets, np.int64)
    freed = np.empty(packets, np.int64)
    issued = np.empty(survivors.size, np.int64)
    spare = np.empty(survivors.size, np.int64)
    left = np.empty(survivors.size + packets, np.int64)
    beat = 0
    row = 0
    outputs = 0
    rows_returned = 0
    outputs_returned = 0
    previous_beat = -1
    previous_taken = -1
    previous_issue = -1
    for p in range(packets):
        for b in range(packet_beats[p]):
            cycle = max(arrival[beat], previous_beat + 1)
            if b == 0 and p >= banks:
                cycle = max(cycle, freed[p - banks])
            accepted[beat] = cycle
            previous_beat = cycle
            beat += 1
        command[p] = max(previous_beat + LOAD_TO_COMMAND, previous_taken + 1)
        result[p] = command[p] + selecting[p]
        taken = max(result[p], previous_issue + 1)
        previous_taken = taken
        cycle = taken
        fill = 0
        for r in range(rows[p]):
            cycle += 1
            is_last = r == rows[p] - 1
            needed = 2 if is_last else 1
            while True:
                while rows_returned < row and issued[rows_returned] + stages < cycle:
                    credits += spare[rows_returned]
                    rows_returned += 1
                while outputs_returned < outputs and left[outputs_returned] < cycle:
                    credits += 1
                    outputs_returned += 1
                if credits >= needed:
                    break
                cycle += 1
            credits -= needed
            issued[row] = cycle
            emitted = 0
            fill += survivors[row]
            if fill > parallelism:
                emitted = 1
                fill -= parallelism
            if is_last:
                emitted += 1
            for e in range(emitted):
                offered = cycle + stages + 1 + e
                if outputs > 0:
                    offered = max(offered, left[outputs - 1] + 1)
                left[outputs] = next_ready(ready, offered)
                outputs += 1
            spare[row] = needed - emitted
            row += 1
        previous_issue = cycle
        freed[p] = cycle + 1
    return TopKTimes(accepted, command, result, issued, left[:outputs])
