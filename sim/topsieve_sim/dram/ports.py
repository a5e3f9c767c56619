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


@register_jitable
def _lock_step(
    advance: Any,
    fifo_head: int,
    machine: Any,
    state: Any,
    requests: Any,
    log: Any,
    filled: Any,
    row_of: Int64,
    channel_of: Int64,
    streams: Streams,
    ports: Ports,
    free: Int64,
    issued_at: Int64,
    back: Int64,
) -> None:
    count, outstanding = ports.fetch_ports, ports.outstanding
    channels = state.scalars.shape[0]
    commands = streams.stream.size
    tails = np.full(channels, NONE, np.int64)
    # A controller takes the row in the table for the age of a request, so rows are given out in order of issue.
    next_row = np.full(channels, NEVER, np.int64)
    for access in range(back.size):
        next_row[channel_of[access]] = min(next_row[channel_of[access]], row_of[access])
    taken_at = np.full(channels, -1, np.int64)
    # Present command of each stream, and what each port has issued of it.
    present = np.full(3, -1, np.int64)
    remaining = np.zeros(3, np.int64)
    next_of = np.zeros(count + 2, np.int64)
    stop_of = np.zeros(count + 2, np.int64)
    step_of = np.ones(count + 2, np.int64)
    step_of[:count] = count
    issued = np.zeros(count + 2, np.int64)
    ring = np.full((count + 2, outstanding), NONE, np.int64)
    search = np.zeros(3, np.int64)
    previous = np.zeros(3, np.int64)
    rotate = 0
    left = commands
    cycle = 0
    while left > 0:
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
        active = False
        for s in range(3):
            active |= present[s] >= 0
        if not active:
            cycle = soonest
            continue
        # One access a port and a channel.
        for turn in range(count + 2):
            port = (cycle + turn) % (count + 2)
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
                if requests.complete[row] == NONE or back[waits] == NEVER:
                    if requests.complete[row] == NONE:
                        advance(channel_of[waits], _to_dram(cycle, ports), False, False, machine, state, requests, log)
                    if requests.complete[row] == NONE:
                        continue
                    back[waits] = _to_core(requests.complete[row], ports) + ports.crossbar_cycles
                if back[waits] >= cycle:
                    continue
            source, row = row_of[access], next_row[channel]
            next_row[channel] += 1
            row_of[access] = row
            requests.line[row] = filled.line[source]
            requests.bank[row] = filled.bank[source]
            requests.row[row] = filled.row[source]
            requests.is_write[row] = filled.is_write[source]
            requests.arrival[row] = _to_dram(cycle + 1, ports)
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
            next_of[port] += step_of[port]
            remaining[s] -= 1
            if s == 2:
                back[access] = cycle + 1
            if remaining[s] == 0:
                c = present[s]
                free[c] = cycle + 1
                previous[s] = cycle + 1
                present[s] = -1
                search[s] += 1
                left -= 1
        cycle += 1
    for channel in range(channels):
        advance(channel, NEVER, False, True, machine, state, requests, log)
    for access in range(back.size):
        row = row_of[access]
        if requests.is_write[row] == 0:
            back[access] = _to_core(requests.complete[row], ports) + ports.crossbar_cycles


_DRAMSIM3_HEAD = dramsim3.FIFO_HEAD
_RAMULATOR_HEAD = ramulator.FIFO_HEAD


@njit(cache=True)
def _run_dramsim3(
    machine: Any, state: Any, requests: Any, log: Any, filled: Any, row_of: Int64, channel_of: Int64, streams: Streams, ports: Ports,
    free: Int64, issued_at: Int64, back: Int64,
) -> None:  # fmt: skip
    _lock_step(
        dramsim3.advance, _DRAMSIM3_HEAD, machine, state, requests, log, filled, row_of, channel_of, streams, ports, free,
        issued_at, back,
    )  # fmt: skip


@njit(cache=True)
def _run_ramulator(
    machine: Any, state: Any, requests: Any, log: Any, filled: Any, row_of: Int64, channel_of: Int64, streams: Streams, ports: Ports,
    free: Int64, issued_at: Int64, back: Int64,
) -> None:  # fmt: skip
    _lock_step(
        ramulator.advance, _RAMULATOR_HEAD, machine, state, requests, log, filled, row_of, channel_of, streams, ports, free,
        issued_at, back,
    )  # fmt: skip


def lock_step(policy: Policy) -> Any:
    """The compiled kernel of a controller policy."""
    return _run_dramsim3 if policy is Policy.DRAMSIM3 else _run_ramulator
