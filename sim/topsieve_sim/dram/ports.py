"""Request ports, address crossbar and DRAM in lock step: when each access is issued, and when its data is back.

A command's accesses are dealt to the request ports in turn. Each port issues its own in order, at most one a core cycle,
and has at most `port_outstanding` accesses whose data is not back. Each channel takes at most one access a cycle from
the crossbar; among ports that want the same one, priority rotates. Accesses wait at their channel for the controller in
order of issue. Data comes back `crossbar_cycles` after the controller has it. Commands go one after the other: the
first access of one may be issued in the cycle after the last of the one before. Output rows leave through a write port
of their own and queries come through a read port of their own; both share channels and DRAM with the others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.extending import register_jitable
from numpy.typing import NDArray

from topsieve_sim.dram import dramsim3, ramulator
from topsieve_sim.dram.config import Policy
from topsieve_sim.dram.requests import NEVER, NONE

Int64 = NDArray[np.int64]


class Streams(NamedTuple):
    """What asks for accesses: commands of stream 0 through the fetch ports, 1 through the query port, 2 writes."""

    stream: Int64
    """[commands]"""
    ready: Int64
    """[commands], core cycle from which the first access may be issued; ascending in each stream."""
    offset: Int64
    """[commands + 1], into the accesses."""


class PortTimes(NamedTuple):
    """Core cycles."""

    free: Int64
    """[commands], first cycle in which the stream's next command may issue."""
    issued: Int64
    """[accesses], the access crosses the crossbar; it may be accepted from the next cycle on."""
    back: Int64
    """[accesses], data has come back (reads) or the cycle after the issue (writes)."""


class Ports(NamedTuple):
    """Fetch ports and crossbar; core cycle t begins in DRAM cycle ceil(t x numerator / denominator)."""

    fetch_ports: int
    outstanding: int
    crossbar_cycles: int
    numerator: int = 1
    denominator: int = 1


@njit(cache=True, inline="always")
def _to_dram(cycle: int, ports: Ports) -> int:
    return (cycle * ports.numerator + ports.denominator - 1) // ports.denominator


@njit(cache=True, inline="always")
def _to_core(cycle: int, ports: Ports) -> int:
    return (cycle * ports.denominator + ports.numerator - 1) // ports.numerator


class Progress(NamedTuple):
    """How far the ports have come; with the memory's state and the table, all that the next cycle depends on."""

    scalars: Int64
    """Present cycle, commands that have not been issued whole, and the port that is dealt the next access."""
    streams: Int64
    """int64 [4, 3]: command under way (NONE: none), accesses of it still to issue, next command to look at, and the cycle
    from which a command may begin."""
    ports: Int64
    """int64 [3, ports + 2]: next access of each port, where its accesses end, and how many it has issued."""
    ring: Int64
    """int64 [ports + 2, port_outstanding]: the accesses each port issued last."""
    channels: Int64
    """int64 [3, channels]: last table row issued, next row to give out, and the cycle of the last access."""


_CYCLE, LEFT, _ROTATE = range(3)
PRESENT, _REMAINING, SEARCH, _PREVIOUS = range(4)
_NEXT, _STOP, _ISSUED = range(3)
TAIL, _NEXT_ROW, _TAKEN_AT = range(3)


def fresh_progress(ports: Ports, commands: int, rows_before: Int64) -> Progress:
    """Nothing issued; `rows_before` int64 [channels], table rows that belong to the channels before each one."""
    members = ports.fetch_ports + 2
    streams = np.zeros((4, 3), np.int64)
    streams[PRESENT] = NONE
    channels = np.stack((np.full(rows_before.size, NONE), rows_before, np.full(rows_before.size, -1)))
    return Progress(
        scalars=np.array([0, commands, 0], np.int64),
        streams=streams,
        ports=np.zeros((3, members), np.int64),
        ring=np.full((members, ports.outstanding), NONE, np.int64),
        channels=channels.astype(np.int64),
    )


@register_jitable
def _lock_step(
    advance: Any,
    fifo_head: int,
    stop_at_left: int,
    progress: Progress,
    machine: Any,
    state: Any,
    requests: Any,
    log: Any,
    filled: Any,
    source_of: Int64,
    row_of: Int64,
    channel_of: Int64,
    streams: Streams,
    ports: Ports,
    times: PortTimes,
) -> None:
    count, outstanding = ports.fetch_ports, ports.outstanding
    commands = streams.stream.size
    free, issued_at, back = times.free, times.issued, times.back
    present, remaining, search, previous = progress.streams
    next_of, stop_of, issued = progress.ports
    tails, next_row, taken_at = progress.channels
    ring = progress.ring
    cycle, left, rotate = progress.scalars[_CYCLE], progress.scalars[LEFT], progress.scalars[_ROTATE]
    while left > stop_at_left:
        # Commands that begin.
        soonest = NEVER
        for s in range(3):
            while present[s] < 0 and search[s] < commands:
                c = search[s]
                if streams.stream[c] != s:
                    search[s] += 1
                    continue
                begin = max(streams.ready[c], previous[s])
                if streams.offset[c + 1] == streams.offset[c]:
                    free[c] = begin
                    previous[s] = begin
                    search[s] += 1
                    left -= 1
                    continue
                if begin > cycle:
                    soonest = min(soonest, begin)
                    break
                present[s] = c
                remaining[s] = streams.offset[c + 1] - streams.offset[c]
                first, members = (0, count) if s == 0 else (count + s - 1, 1)
                for p in range(members):
                    # Dealt in turn; the port after the last one of the command before comes first.
                    port = first + (rotate + p) % members if s == 0 else first
                    next_of[port] = streams.offset[c] + p
                    stop_of[port] = streams.offset[c + 1]
                if s == 0:
                    rotate = (rotate + remaining[s]) % count
        if left == 0:
            break
        if present[0] < 0 and present[1] < 0 and present[2] < 0:
            cycle = soonest
            continue
        # One access a port and a channel.
        port = cycle % (count + 2) - 1
        for _ in range(count + 2):
            port = port + 1 if port <= count else 0
            s = 0 if port < count else port - count + 1
            if present[s] < 0 or next_of[port] >= stop_of[port]:
                continue
            access = next_of[port]
            channel = channel_of[access]
            if taken_at[channel] == cycle:
                continue
            if s < 2 and issued[port] >= outstanding:
                waits = ring[port, issued[port] % outstanding]
                row = row_of[waits]
                if requests.complete[row] == NONE:
                    advance(channel_of[waits], _to_dram(cycle, ports), False, False, machine, state, requests, log)
                    if requests.complete[row] == NONE:
                        continue
                if _to_core(requests.complete[row], ports) + ports.crossbar_cycles >= cycle:
                    continue
            # A controller takes the row in the table for the age of a request, so rows are given out in order of issue.
            source, row = source_of[access], next_row[channel]
            next_row[channel] += 1
            row_of[access] = row
            requests.line[row] = filled.line[source]
            requests.bank[row] = filled.bank[source]
            requests.row[row] = filled.row[source]
            requests.is_write[row] = filled.is_write[source]
            requests.arrival[row] = _to_dram(cycle + 1, ports)
            requests.next_in_channel[row] = NONE
            requests.complete[row] = NONE
            requests.next_merged[row] = NONE
            if state.scalars[channel, fifo_head] == NONE:
                # The channel may have been advanced past this cycle's beginning, never past the arrival.
                state.scalars[channel, fifo_head] = row
            else:
                requests.next_in_channel[tails[channel]] = row
            tails[channel] = row
            taken_at[channel] = cycle
            issued_at[access] = cycle
            ring[port, issued[port] % outstanding] = access
            issued[port] += 1
            next_of[port] += count if s == 0 else 1
            remaining[s] -= 1
            if remaining[s] == 0:
                c = present[s]
                free[c] = cycle + 1
                previous[s] = cycle + 1
                present[s] = NONE
                search[s] += 1
                left -= 1
        cycle += 1
    progress.scalars[_CYCLE], progress.scalars[LEFT], progress.scalars[_ROTATE] = cycle, left, rotate
    if left > 0:
        return
    for channel in range(state.scalars.shape[0]):
        advance(channel, NEVER, False, True, machine, state, requests, log)
    for access in range(back.size):
        row = row_of[access]
        if requests.is_write[row] == 0:
            back[access] = _to_core(requests.complete[row], ports) + ports.crossbar_cycles
        else:
            back[access] = issued_at[access] + 1


_DRAMSIM3_HEAD = dramsim3.FIFO_HEAD
_RAMULATOR_HEAD = ramulator.FIFO_HEAD


@njit(cache=True)
def _run_dramsim3(
    stop_at_left: int, progress: Progress, machine: Any, state: Any, requests: Any, log: Any, filled: Any, source_of: Int64, row_of: Int64,
    channel_of: Int64, streams: Streams, ports: Ports, times: PortTimes,
) -> None:  # fmt: skip
    _lock_step(
        dramsim3.advance, _DRAMSIM3_HEAD, stop_at_left, progress, machine, state, requests, log, filled, source_of, row_of, channel_of,
        streams, ports, times,
    )  # fmt: skip


@njit(cache=True)
def _run_ramulator(
    stop_at_left: int, progress: Progress, machine: Any, state: Any, requests: Any, log: Any, filled: Any, source_of: Int64, row_of: Int64,
    channel_of: Int64, streams: Streams, ports: Ports, times: PortTimes,
) -> None:  # fmt: skip
    _lock_step(
        ramulator.advance, _RAMULATOR_HEAD, stop_at_left, progress, machine, state, requests, log, filled, source_of, row_of, channel_of,
        streams, ports, times,
    )  # fmt: skip


def lock_step(policy: Policy) -> Any:
    """The compiled kernel of a controller policy: from `progress` until at most `stop_at_left` commands are left; with none
    left, until every access is complete."""
    return _run_dramsim3 if policy is Policy.DRAMSIM3 else _run_ramulator
