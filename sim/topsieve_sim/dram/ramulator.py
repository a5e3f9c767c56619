"""The `ramulator` policy: one read and one write buffer per channel, first ready first served over all banks.

Behaviour: specification `simulators`, section 1.8, and `docs/dram.md`. A request whose activate has issued moves to the
list of active requests, which goes first and whose banks may not be precharged. A waiting refresh stops both buffers.
With two command buses (HBM) every cycle tries a column command, then a row command.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.dram.ramulator_state import (
    ABSORBED_WRITES,
    ACT,
    ACTIVATE_READY,
    ACTIVATES,
    ACTIVE_COUNT,
    ACTIVE_CYCLES,
    ANY,
    CLAIMS,
    COLUMN,
    DONE_BEFORE,
    DUAL_COMMANDS,
    FIFO_HEAD,
    FORWARDED_READS,
    MODE_STALE,
    NEXT_REFRESH,
    OPEN_COUNT,
    OPEN_ROW,
    OPEN_SINCE,
    PRE,
    PRECHARGE_READY,
    PRECHARGES,
    RD,
    READ_COMMANDS,
    READ_COUNT,
    READ_READY,
    READS_OPEN,
    REFRESH_HEAD,
    REFRESH_READY,
    REFRESHES,
    REFRESHES_DUE,
    ROW,
    ROW_BUS,
    ROW_CONFLICTS,
    ROW_HITS,
    ROW_MISSES,
    VISIT,
    WINDOW_NEXT,
    WRITE_COUNT,
    WRITE_MODE,
    WRITE_READY,
    Channels,
    Machine,
    counters,
    fresh_channels,
    machine,
    open_ranks,
)
from topsieve_sim.dram.requests import (
    ACTIVATE,
    NEVER,
    NONE,
    PRECHARGE,
    READ,
    REFRESH,
    WRITE,
    CommandLog,
    Int32,
    Int64,
    Requests,
)

__all__ = [
    "ACTIVE_CYCLES",
    "FIFO_HEAD",
    "READS_OPEN",
    "advance",
    "advance_all",
    "counters",
    "fresh_channels",
    "machine",
    "open_ranks",
]


@njit(cache=True)
def _first_ready(
    entries: Int64,
    count: int,
    bus: int,
    cycle: int,
    row_bus: int,
    group_shift: int,
    groups: int,
    banks: Int64,
    group_ready: Int64,
    bank_of: Int32,
    row_of: Int32,
    writing_of: NDArray[np.uint8],
) -> tuple[int, int, int]:
    """Position and command of the oldest entry whose command is ready on `bus`, and when the next one may be."""
    best = NONE
    best_request = NEVER
    best_kind = 0
    soonest = NEVER
    for i in range(count):
        request = entries[i]
        bank = int(bank_of[request])
        group = bank >> group_shift
        row = banks[OPEN_ROW, bank]
        if row < 0:
            kind = ACT
            at = max(banks[ACTIVATE_READY, bank], group_ready[group], row_bus)
        elif row == row_of[request]:
            write = int(writing_of[request])
            kind = RD + write
            at = max(banks[READ_READY + write, bank], group_ready[kind * groups + group])
        else:
            kind = PRE
            if banks[CLAIMS, bank] > 0:
                continue
            at = max(banks[PRECHARGE_READY, bank], row_bus)
        if at > cycle:
            soonest = min(soonest, at)
        elif (bus == ANY or (bus == COLUMN) == (kind >= RD)) and request < best_request:
            best = i
            best_request = request
            best_kind = kind
    return best, best_kind, soonest


@njit(cache=True)
def _record(log: CommandLog, cycle: int, kind: int, bank: int, request: int) -> None:
    if log.cycle.size > 0:
        row = log.used[0]
        log.cycle[row] = cycle
        log.kind[row] = kind
        log.bank[row] = bank
        log.request[row] = request
        log.used[0] = row + 1


@njit(cache=True)
def _close(
    bank: int,
    unit: int,
    cycle: int,
    precharge_activate: int,
    precharge_refresh: int,
    counts: Int64,
    banks: Int64,
    units: Int64,
) -> None:
    banks[OPEN_ROW, bank] = NONE
    banks[ACTIVATE_READY, bank] = max(banks[ACTIVATE_READY, bank], cycle + precharge_activate)
    units[unit, REFRESH_READY] = max(units[unit, REFRESH_READY], cycle + precharge_refresh)
    units[unit, OPEN_COUNT] -= 1
    if units[unit, OPEN_COUNT] == 0:
        counts[ACTIVE_CYCLES] += cycle - units[unit, OPEN_SINCE]


@njit(cache=True)
def _remove(entries: Int64, position: int, count: int) -> None:
    for i in range(position, count - 1):
        entries[i] = entries[i + 1]


@njit(cache=True)
def _set_write_mode(write_mode_above: float, write_mode_below: float, scalars: Int64) -> None:
    if scalars[WRITE_MODE] == 0:
        if scalars[WRITE_COUNT] > write_mode_above or scalars[READ_COUNT] == 0:
            scalars[WRITE_MODE] = 1
    elif scalars[WRITE_COUNT] < write_mode_below and scalars[READ_COUNT] != 0:
        scalars[WRITE_MODE] = 0
    scalars[MODE_STALE] = 0


@njit(cache=True)
def _holds_line(line: int, line_of: Int64, entries: Int64, count: int) -> bool:
    found = False
    for i in range(count):
        found = found or line_of[entries[i]] == line
    return found


@njit(cache=True)
def advance(
    c: int,
    until_cycle: int,
    stop_when_accepted: bool,
    stop_when_done: bool,
    machine: Machine,
    state: Channels,
    requests: Requests,
    log: CommandLog,
) -> bool:
    """Run channel `c` through the cycles before `until_cycle`; stops early as the `dramsim3` kernel does."""
    # Bound once: every access through a named tuple inside the loop would touch a reference count.
    scalars, counts, banks, group_ready = state.scalars[c], state.counters[c], state.banks[c], state.group_ready[c]
    units, reads, writes, active = state.units[c], state.reads[c], state.writes[c], state.active[c]
    line_of, bank_of, row_of, writing_of = requests.line, requests.bank, requests.row, requests.is_write
    arrival_of, next_of = requests.arrival, requests.next_in_channel
    accept_of, complete_of, classified_of = requests.accept, requests.complete, requests.next_merged
    column_delta, activate_delta = machine.column_delta, machine.activate_delta
    groups, group_shift, unit_shift = machine.groups, machine.group_shift, machine.unit_shift

    head = scalars[FIFO_HEAD]
    cycle = scalars[VISIT]
    if head >= 0:
        cycle = min(cycle, arrival_of[head])
    cycle = max(cycle, scalars[DONE_BEFORE])
    finished = True
    while cycle < until_cycle:
        if log.cycle.size > 0 and log.used[0] + machine.banks + 2 > log.cycle.size:
            finished = False
            break
        if cycle >= scalars[NEXT_REFRESH]:
            scalars[NEXT_REFRESH] += machine.refresh_interval
            scalars[REFRESHES_DUE] += machine.units

        soonest = NEVER
        acted = 0
        for turn in range(2 if machine.two_buses else 1):
            bus = ANY
            if machine.two_buses:
                bus = COLUMN if turn == 0 else ROW
            # Active requests first, then a waiting refresh, then one of the buffers.
            source = active
            count = scalars[ACTIVE_COUNT]
            from_active = True
            position, kind, at = _first_ready(
                active, count, bus, cycle, scalars[ROW_BUS], group_shift, groups, banks, group_ready, bank_of, row_of,
                writing_of,
            )  # fmt: skip
            soonest = min(soonest, at)
            if position < 0 and scalars[REFRESHES_DUE] > 0:
                if bus == COLUMN:
                    continue
                unit = scalars[REFRESH_HEAD]
                first = unit << unit_shift
                beyond = first + machine.banks_per_unit
                at = scalars[ROW_BUS]
                if units[unit, OPEN_COUNT] > 0:
                    for bank in range(first, beyond):
                        at = max(at, NEVER if banks[CLAIMS, bank] > 0 else banks[PRECHARGE_READY, bank])
                    if at <= cycle:
                        acted += 1
                        counts[PRECHARGES] += 1
                        for bank in range(first, beyond):
                            if banks[OPEN_ROW, bank] >= 0:
                                _close(
                                    bank, unit, cycle, machine.precharge_activate, machine.precharge_refresh, counts,
                                    banks, units,
                                )  # fmt: skip
                                _record(log, cycle, PRECHARGE, bank, NONE)
                            else:
                                ready = cycle + machine.precharge_activate
                                banks[ACTIVATE_READY, bank] = max(banks[ACTIVATE_READY, bank], ready)
                else:
                    at = max(at, units[unit, REFRESH_READY])
                    if at <= cycle:
                        acted += 1
                        counts[REFRESHES] += 1
                        scalars[REFRESHES_DUE] -= 1
                        scalars[REFRESH_HEAD] = unit + 1 if unit + 1 < machine.units else 0
                        _record(log, cycle, REFRESH, first, NONE)
                        for bank in range(first, beyond):
                            ready = cycle + machine.refresh_activate
                            banks[ACTIVATE_READY, bank] = max(banks[ACTIVATE_READY, bank], ready)
                soonest = min(soonest, max(at, cycle + 1))
                continue
            if position < 0:
                _set_write_mode(machine.write_mode_above, machine.write_mode_below, scalars)
                from_active = False
                if scalars[WRITE_MODE] == 1:
                    source = writes
                    count = scalars[WRITE_COUNT]
                else:
                    source = reads
                    count = scalars[READ_COUNT]
                position, kind, at = _first_ready(
                    source, count, bus, cycle, scalars[ROW_BUS], group_shift, groups, banks, group_ready, bank_of,
                    row_of, writing_of,
                )  # fmt: skip
                soonest = min(soonest, at)
                if position < 0:
                    continue
            acted += 1
            request = source[position]
            bank = int(bank_of[request])
            group = bank >> group_shift
            unit = bank >> unit_shift
            # Each request is classified once, when its first command issues.
            if classified_of[request] == NONE:
                classified_of[request] = request
                if kind >= RD:
                    counts[ROW_HITS] += 1
                elif kind == ACT:
                    counts[ROW_MISSES] += 1
                else:
                    counts[ROW_CONFLICTS] += 1
            if kind != PRE and not (kind == ACT and from_active):
                _remove(source, position, count)
                if from_active:
                    scalars[ACTIVE_COUNT] -= 1
                    banks[CLAIMS, bank] -= 1
                else:
                    scalars[WRITE_COUNT if scalars[WRITE_MODE] == 1 else READ_COUNT] -= 1
                    scalars[MODE_STALE] = 1
            if kind >= RD:
                is_write = kind - RD
                for i in range(2 * groups):
                    slot = RD * groups + i
                    group_ready[slot] = max(group_ready[slot], cycle + column_delta[is_write, group, i])
                held = machine.write_precharge if is_write else machine.read_precharge
                banks[PRECHARGE_READY, bank] = max(banks[PRECHARGE_READY, bank], cycle + held)
                counts[READ_COMMANDS + is_write] += 1
                complete_of[request] = cycle if is_write else cycle + machine.read_done
                scalars[READS_OPEN] -= 1
                _record(log, cycle, WRITE if is_write else READ, bank, request)
            elif kind == PRE:
                counts[PRECHARGES] += 1
                _close(bank, unit, cycle, machine.precharge_activate, machine.precharge_refresh, counts, banks, units)
                _record(log, cycle, PRECHARGE, bank, request)
            else:
                counts[ACTIVATES] += 1
                active[scalars[ACTIVE_COUNT]] = request
                scalars[ACTIVE_COUNT] += 1
                banks[CLAIMS, bank] += 1
                banks[OPEN_ROW, bank] = row_of[request]
                if units[unit, OPEN_COUNT] == 0:
                    units[unit, OPEN_SINCE] = cycle
                units[unit, OPEN_COUNT] += 1
                banks[ACTIVATE_READY, bank] = max(banks[ACTIVATE_READY, bank], cycle + machine.activate_activate)
                banks[READ_READY, bank] = cycle + machine.activate_read
                banks[WRITE_READY, bank] = cycle + machine.activate_write
                banks[PRECHARGE_READY, bank] = max(banks[PRECHARGE_READY, bank], cycle + machine.activate_precharge)
                units[unit, REFRESH_READY] = max(units[unit, REFRESH_READY], cycle + machine.activate_refresh)
                units[unit, units[unit, WINDOW_NEXT]] = cycle + machine.four_activates
                units[unit, WINDOW_NEXT] = (units[unit, WINDOW_NEXT] + 1) & 3
                blocked = units[unit, units[unit, WINDOW_NEXT]]
                for i in range(machine.groups_per_unit):
                    slot = unit * machine.groups_per_unit + i
                    group_ready[slot] = max(group_ready[slot], blocked, cycle + activate_delta[group, slot])
                scalars[ROW_BUS] = cycle + machine.activate_cycles
                _record(log, cycle, ACTIVATE, bank, request)
        if acted == 2:
            counts[DUAL_COMMANDS] += 1

        accepted = False
        if head >= 0 and arrival_of[head] <= cycle:
            if _holds_line(line_of[head], line_of, writes, scalars[WRITE_COUNT]):
                accepted = True
                complete_of[head] = cycle + 1
                counts[ABSORBED_WRITES if writing_of[head] else FORWARDED_READS] += 1
            elif writing_of[head]:
                if scalars[WRITE_COUNT] < machine.write_buffer:
                    accepted = True
                    writes[scalars[WRITE_COUNT]] = head
                    scalars[WRITE_COUNT] += 1
                    scalars[READS_OPEN] += 1
            elif scalars[READ_COUNT] < machine.read_buffer:
                accepted = True
                reads[scalars[READ_COUNT]] = head
                scalars[READ_COUNT] += 1
                scalars[READS_OPEN] += 1
            if accepted:
                scalars[MODE_STALE] = 1
                accept_of[head] = cycle
                head = next_of[head]

        upcoming = min(soonest, scalars[NEXT_REFRESH])
        if acted or accepted or scalars[MODE_STALE]:
            upcoming = cycle + 1
        if head >= 0:
            upcoming = min(upcoming, max(cycle + 1, arrival_of[head]))
        elif stop_when_accepted or (stop_when_done and scalars[READS_OPEN] == 0):
            until_cycle = cycle + 1
        cycle = max(upcoming, cycle + 1)
    scalars[DONE_BEFORE] = max(scalars[DONE_BEFORE], min(cycle, until_cycle))
    scalars[VISIT] = cycle
    scalars[FIFO_HEAD] = head
    return finished


@njit(cache=True)
def advance_all(until_cycle: int, machine: Machine, state: Channels, requests: Requests, log: CommandLog) -> None:
    """Run every channel through the cycles before `until_cycle`; nothing is recorded."""
    for c in range(state.scalars.shape[0]):
        advance(c, until_cycle, False, False, machine, state, requests, log)
