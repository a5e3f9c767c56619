"""The `ramulator` policy: one read and one write buffer per channel, first ready first served over all banks.

Behaviour: specification `simulators`, section 1.8, and `docs/dram.md`. A request whose activate has issued moves to the
list of active requests, which goes first and whose banks may not be precharged. A waiting refresh stops both buffers.
With two command buses (HBM) every cycle tries a column command, then a row command.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from topsieve_sim.dram.config import DramConfig
from topsieve_sim.dram.constraints import ramulator_constraints
from topsieve_sim.dram.requests import (
    ACTIVATE,
    NEVER,
    NONE,
    PRECHARGE,
    READ,
    REFRESH,
    WRITE,
    CommandLog,
    Int64,
    Requests,
)
from topsieve_sim.dram.result import DramCounters

_ACT, _PRE, _RD, _WR = 0, 1, 2, 3
_COLUMN, _ROW, _ANY = 0, 1, 2

# Columns of `Channels.scalars`.
(
    VISIT,
    DONE_BEFORE,
    READ_COUNT,
    WRITE_COUNT,
    ACTIVE_COUNT,
    WRITE_MODE,
    MODE_STALE,
    NEXT_REFRESH,
    REFRESH_HEAD,
    REFRESHES_DUE,
    ROW_BUS,
    FIFO_HEAD,
    READS_OPEN,
) = range(13)
_SCALARS = 13

# Columns of `Channels.counters`.
(
    READ_COMMANDS,
    WRITE_COMMANDS,
    ACTIVATES,
    PRECHARGES,
    REFRESHES,
    DUAL_COMMANDS,
    ROW_HITS,
    ROW_MISSES,
    ROW_CONFLICTS,
    FORWARDED_READS,
    ABSORBED_WRITES,
    ACTIVE_CYCLES,
) = range(12)
_COUNTERS = 12


class Machine(NamedTuple):
    """What the kernel needs to know of the configuration."""

    banks: int
    banks_per_unit: int
    groups: int
    groups_per_unit: int
    units: int
    """Ranks of all pseudo-channels: what a refresh covers."""
    read_buffer: int
    write_buffer: int
    write_mode_above: float
    write_mode_below: float
    two_buses: int
    read_done: int
    read_precharge: int
    write_precharge: int
    activate_read: int
    activate_write: int
    activate_precharge: int
    activate_activate: int
    activate_refresh: int
    precharge_activate: int
    precharge_refresh: int
    refresh_activate: int
    refresh_interval: int
    four_activates: int
    activate_cycles: int
    column_delta: Int64
    """int64 [2, groups, 2 * groups]: cycles from a read or write in a group to reads, then writes, of every group."""
    activate_delta: Int64
    """int64 [groups, groups]: cycles from an activate to an activate in every group."""


class Channels(NamedTuple):
    """State of all channels; the first axis is the channel."""

    scalars: Int64
    counters: Int64
    open_row: Int64
    activate_ready: Int64
    column_ready: Int64
    precharge_ready: Int64
    group_ready: Int64
    """int64 [channels, 4 * groups]: activate, precharge (always 0), read, write as far as the group is concerned."""
    refresh_ready: Int64
    """int64 [channels, units]."""
    window: Int64
    """int64 [channels, units, 5]: cycles of the last four activates plus tFAW, ring position."""
    claims: Int64
    """int64 [channels, banks]: active requests per bank; a claimed bank may not be precharged."""
    open_count: Int64
    open_since: Int64
    reads: Int64
    writes: Int64
    active: Int64


def machine(config: DramConfig) -> Machine:
    """The kernel's view of a configuration."""
    table, organization, controller = ramulator_constraints(config), config.organization, config.controller
    groups, per_unit = organization.groups_per_channel, organization.bank_groups
    per_pseudo_channel = per_unit * organization.ranks
    column = np.full((2, groups, 2 * groups), -NEVER, np.int64)
    activate = np.full((groups, groups), -NEVER, np.int64)
    for source in range(groups):
        for target in range(groups):
            if source // per_pseudo_channel != target // per_pseudo_channel:
                continue
            if source // per_unit != target // per_unit:
                cycles = (
                    table.read_read_other_rank,
                    table.read_write_other_rank,
                    table.write_read_other_rank,
                    table.write_write_other_rank,
                )
            else:
                same = source == target
                cycles = (
                    table.read_read_same_group if same else table.read_read_other_group,
                    table.read_write_same_rank,
                    table.write_read_same_group if same else table.write_read_other_group,
                    table.write_write_same_group if same else table.write_write_other_group,
                )
                activate[source, target] = (
                    table.activate_activate_same_group if same else table.activate_activate_other_group
                )
            column[0, source, target], column[0, source, groups + target] = cycles[0], cycles[1]
            column[1, source, target], column[1, source, groups + target] = cycles[2], cycles[3]
    return Machine(
        banks=organization.banks_per_channel,
        banks_per_unit=organization.banks_per_rank,
        groups=groups,
        groups_per_unit=per_unit,
        units=organization.ranks * organization.pseudo_channels,
        read_buffer=controller.read_queue,
        write_buffer=controller.write_buffer,
        write_mode_above=controller.write_high_watermark * controller.write_buffer,
        write_mode_below=controller.write_low_watermark * controller.write_buffer,
        two_buses=int(controller.dual_command),
        read_done=table.read_done,
        read_precharge=table.read_precharge,
        write_precharge=table.write_precharge,
        activate_read=table.activate_read,
        activate_write=table.activate_write,
        activate_precharge=table.activate_precharge,
        activate_activate=table.activate_activate_same_bank,
        activate_refresh=table.activate_activate_same_bank + config.timing.activate_cycles - 1,
        precharge_activate=table.precharge_activate,
        precharge_refresh=table.precharge_refresh,
        refresh_activate=table.refresh_activate,
        refresh_interval=table.refresh_interval,
        four_activates=table.four_activates,
        activate_cycles=config.timing.activate_cycles,
        column_delta=column,
        activate_delta=activate,
    )


def fresh_channels(config: DramConfig) -> Channels:
    """All channels at cycle 0: every bank closed, every buffer empty."""
    organization, controller = config.organization, config.controller
    channels, banks = organization.channels, organization.banks_per_channel
    units = organization.ranks * organization.pseudo_channels

    def zeros(*shape: int) -> Int64:
        return np.zeros((channels, *shape), np.int64)

    scalars = zeros(_SCALARS)
    scalars[:, FIFO_HEAD] = NONE
    # The clock counts before the refresh timer looks at it.
    scalars[:, NEXT_REFRESH] = config.timing.tREFI - 1
    return Channels(
        scalars=scalars,
        counters=zeros(_COUNTERS),
        open_row=zeros(banks) - 1,
        activate_ready=zeros(banks),
        column_ready=zeros(2, banks),
        precharge_ready=zeros(banks),
        group_ready=zeros(4 * organization.groups_per_channel),
        refresh_ready=zeros(units),
        window=zeros(units, 5),
        claims=zeros(banks),
        open_count=zeros(units),
        open_since=zeros(units),
        reads=zeros(controller.read_queue),
        writes=zeros(controller.write_buffer),
        active=zeros(banks),
    )


@njit(cache=True)
def _first_ready(
    entries: Int64,
    count: int,
    bus: int,
    cycle: int,
    c: int,
    machine: Machine,
    state: Channels,
    requests: Requests,
    row_bus: int,
) -> tuple[int, int, int]:
    """Position and command of the oldest entry whose command is ready on `bus`, and when the next one may be."""
    groups = machine.groups
    banks_per_group = machine.banks_per_unit // machine.groups_per_unit
    best = np.int64(NONE)
    best_request = np.int64(NEVER)
    best_kind = 0
    soonest = np.int64(NEVER)
    for i in range(count):
        request = entries[i]
        bank = np.int64(requests.bank[request])
        group = bank // banks_per_group
        row = state.open_row[c, bank]
        if row < 0:
            kind = _ACT
            at = max(state.activate_ready[c, bank], state.group_ready[c, group], row_bus)
        elif row == requests.row[request]:
            write = np.int64(requests.is_write[request])
            kind = _RD + write
            at = max(state.column_ready[c, write, bank], state.group_ready[c, kind * groups + group])
        else:
            kind = _PRE
            if state.claims[c, bank] > 0:
                continue
            at = max(state.precharge_ready[c, bank], row_bus)
        if at > cycle:
            soonest = min(soonest, at)
        elif (bus == _ANY or (bus == _COLUMN) == (kind >= _RD)) and request < best_request:
            best = np.int64(i)
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
def _close(bank: int, cycle: int, c: int, machine: Machine, state: Channels) -> None:
    unit = bank // machine.banks_per_unit
    state.open_row[c, bank] = NONE
    state.activate_ready[c, bank] = max(state.activate_ready[c, bank], cycle + machine.precharge_activate)
    state.refresh_ready[c, unit] = max(state.refresh_ready[c, unit], cycle + machine.precharge_refresh)
    state.open_count[c, unit] -= 1
    if state.open_count[c, unit] == 0:
        state.counters[c, ACTIVE_CYCLES] += cycle - state.open_since[c, unit]


@njit(cache=True)
def _issue(
    request: int, kind: int, cycle: int, c: int, machine: Machine, state: Channels, requests: Requests, log: CommandLog
) -> None:
    """Issue the command a request needs next."""
    counters = state.counters[c]
    groups = machine.groups
    bank = np.int64(requests.bank[request])
    unit = bank // machine.banks_per_unit
    group = bank // (machine.banks_per_unit // machine.groups_per_unit)
    # `next_merged` marks a request that has been classified: each counts once, when its first command issues.
    if requests.next_merged[request] == NONE:
        requests.next_merged[request] = request
        if kind >= _RD:
            counters[ROW_HITS] += 1
        elif kind == _ACT:
            counters[ROW_MISSES] += 1
        else:
            counters[ROW_CONFLICTS] += 1
    if kind >= _RD:
        is_write = kind - _RD
        for i in range(2 * groups):
            slot = _RD * groups + i
            state.group_ready[c, slot] = max(
                state.group_ready[c, slot], cycle + machine.column_delta[is_write, group, i]
            )
        held = machine.write_precharge if is_write else machine.read_precharge
        state.precharge_ready[c, bank] = max(state.precharge_ready[c, bank], cycle + held)
        counters[READ_COMMANDS + is_write] += 1
        requests.complete[request] = cycle if is_write else cycle + machine.read_done
        state.scalars[c, READS_OPEN] -= 1
        _record(log, cycle, WRITE if is_write else READ, bank, request)
    elif kind == _PRE:
        counters[PRECHARGES] += 1
        _close(bank, cycle, c, machine, state)
        _record(log, cycle, PRECHARGE, bank, request)
    else:
        counters[ACTIVATES] += 1
        state.open_row[c, bank] = requests.row[request]
        if state.open_count[c, unit] == 0:
            state.open_since[c, unit] = cycle
        state.open_count[c, unit] += 1
        state.activate_ready[c, bank] = max(state.activate_ready[c, bank], cycle + machine.activate_activate)
        state.column_ready[c, 0, bank] = cycle + machine.activate_read
        state.column_ready[c, 1, bank] = cycle + machine.activate_write
        state.precharge_ready[c, bank] = max(state.precharge_ready[c, bank], cycle + machine.activate_precharge)
        state.refresh_ready[c, unit] = max(state.refresh_ready[c, unit], cycle + machine.activate_refresh)
        window = state.window[c, unit]
        window[window[4]] = cycle + machine.four_activates
        window[4] = (window[4] + 1) & 3
        blocked = window[window[4]]
        for i in range(machine.groups_per_unit):
            slot = unit * machine.groups_per_unit + i
            at = max(blocked, cycle + machine.activate_delta[group, slot])
            state.group_ready[c, slot] = max(state.group_ready[c, slot], at)
        state.scalars[c, ROW_BUS] = cycle + machine.activate_cycles
        _record(log, cycle, ACTIVATE, bank, request)


@njit(cache=True)
def _remove(entries: Int64, position: int, count: int) -> None:
    for i in range(position, count - 1):
        entries[i] = entries[i + 1]


@njit(cache=True)
def _serve_refresh(cycle: int, c: int, machine: Machine, state: Channels, log: CommandLog) -> tuple[bool, int]:
    """Try the oldest waiting refresh: precharge all its banks together, then refresh. Also says when to try again."""
    scalars = state.scalars[c]
    unit = scalars[REFRESH_HEAD]
    first = unit * machine.banks_per_unit
    if state.open_count[c, unit] > 0:
        at = scalars[ROW_BUS]
        for bank in range(first, first + machine.banks_per_unit):
            if state.claims[c, bank] > 0:
                return False, NEVER
            at = max(at, state.precharge_ready[c, bank])
        if at > cycle:
            return False, at
        for bank in range(first, first + machine.banks_per_unit):
            if state.open_row[c, bank] >= 0:
                _close(bank, cycle, c, machine, state)
                _record(log, cycle, PRECHARGE, bank, NONE)
        for bank in range(first, first + machine.banks_per_unit):
            state.activate_ready[c, bank] = max(state.activate_ready[c, bank], cycle + machine.precharge_activate)
        state.counters[c, PRECHARGES] += 1
        return True, cycle + 1
    at = max(scalars[ROW_BUS], state.refresh_ready[c, unit])
    if at > cycle:
        return False, at
    for bank in range(first, first + machine.banks_per_unit):
        state.activate_ready[c, bank] = max(state.activate_ready[c, bank], cycle + machine.refresh_activate)
    state.counters[c, REFRESHES] += 1
    scalars[REFRESHES_DUE] -= 1
    scalars[REFRESH_HEAD] = unit + 1 if unit + 1 < machine.units else 0
    _record(log, cycle, REFRESH, first, NONE)
    return True, cycle + 1


@njit(cache=True)
def _set_write_mode(c: int, machine: Machine, state: Channels) -> None:
    scalars = state.scalars[c]
    if scalars[WRITE_MODE] == 0:
        if scalars[WRITE_COUNT] > machine.write_mode_above or scalars[READ_COUNT] == 0:
            scalars[WRITE_MODE] = 1
    elif scalars[WRITE_COUNT] < machine.write_mode_below and scalars[READ_COUNT] != 0:
        scalars[WRITE_MODE] = 0
    scalars[MODE_STALE] = 0


@njit(cache=True)
def _serve(
    bus: int, cycle: int, c: int, machine: Machine, state: Channels, requests: Requests, log: CommandLog
) -> tuple[bool, int]:
    """Issue at most one command on `bus`; also a cycle before which nothing else becomes ready."""
    scalars = state.scalars[c]
    active, reads, writes = state.active[c], state.reads[c], state.writes[c]
    soonest = np.int64(NEVER)
    position, kind, at = _first_ready(
        active, scalars[ACTIVE_COUNT], bus, cycle, c, machine, state, requests, scalars[ROW_BUS]
    )
    soonest = min(soonest, at)
    if position >= 0:
        request = active[position]
        _issue(request, kind, cycle, c, machine, state, requests, log)
        if kind >= _RD:
            _remove(active, position, scalars[ACTIVE_COUNT])
            scalars[ACTIVE_COUNT] -= 1
            state.claims[c, requests.bank[request]] -= 1
        return True, cycle + 1
    if scalars[REFRESHES_DUE] > 0:
        if bus == _COLUMN:
            return False, soonest
        acted, at = _serve_refresh(cycle, c, machine, state, log)
        return acted, min(soonest, at)
    _set_write_mode(c, machine, state)
    writing = scalars[WRITE_MODE] == 1
    entries = writes if writing else reads
    count = scalars[WRITE_COUNT] if writing else scalars[READ_COUNT]
    position, kind, at = _first_ready(entries, count, bus, cycle, c, machine, state, requests, scalars[ROW_BUS])
    soonest = min(soonest, at)
    if position < 0:
        return False, soonest
    request = entries[position]
    _issue(request, kind, cycle, c, machine, state, requests, log)
    if kind != _PRE:
        _remove(entries, position, count)
        scalars[WRITE_COUNT if writing else READ_COUNT] -= 1
        scalars[MODE_STALE] = 1
    if kind == _ACT:
        active[scalars[ACTIVE_COUNT]] = request
        scalars[ACTIVE_COUNT] += 1
        state.claims[c, requests.bank[request]] += 1
    return True, cycle + 1


@njit(cache=True)
def _holds_line(line: int, requests: Requests, entries: Int64, count: int) -> bool:
    for i in range(count):
        request = entries[i]
        if requests.line[request] == line and requests.is_write[request]:
            return True
    return False


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
    scalars = state.scalars[c]
    head = scalars[FIFO_HEAD]
    cycle = scalars[VISIT]
    if head >= 0:
        cycle = min(cycle, requests.arrival[head])
    cycle = max(cycle, scalars[DONE_BEFORE])
    finished = True
    while cycle < until_cycle:
        if log.cycle.size > 0 and log.used[0] + machine.banks + 2 > log.cycle.size:
            finished = False
            break
        if cycle >= scalars[NEXT_REFRESH]:
            scalars[NEXT_REFRESH] += machine.refresh_interval
            scalars[REFRESHES_DUE] += machine.units
        if machine.two_buses:
            column_acted, soonest = _serve(_COLUMN, cycle, c, machine, state, requests, log)
            row_acted, at = _serve(_ROW, cycle, c, machine, state, requests, log)
            soonest = min(soonest, at)
            acted = column_acted or row_acted
            if column_acted and row_acted:
                state.counters[c, DUAL_COMMANDS] += 1
        else:
            acted, soonest = _serve(_ANY, cycle, c, machine, state, requests, log)

        accepted = False
        if head >= 0 and requests.arrival[head] <= cycle:
            line = requests.line[head]
            held = _holds_line(line, requests, state.writes[c], scalars[WRITE_COUNT])
            if held:
                accepted = True
                requests.complete[head] = cycle + 1
                state.counters[c, ABSORBED_WRITES if requests.is_write[head] else FORWARDED_READS] += 1
            elif requests.is_write[head]:
                if scalars[WRITE_COUNT] < machine.write_buffer:
                    accepted = True
                    state.writes[c, scalars[WRITE_COUNT]] = head
                    scalars[WRITE_COUNT] += 1
                    scalars[READS_OPEN] += 1
            elif scalars[READ_COUNT] < machine.read_buffer:
                accepted = True
                state.reads[c, scalars[READ_COUNT]] = head
                scalars[READ_COUNT] += 1
                scalars[READS_OPEN] += 1
            if accepted:
                scalars[MODE_STALE] = 1
                requests.accept[head] = cycle
                head = requests.next_in_channel[head]

        upcoming = min(soonest, scalars[NEXT_REFRESH])
        if acted or accepted or scalars[MODE_STALE]:
            upcoming = cycle + 1
        if head >= 0:
            upcoming = min(upcoming, max(cycle + 1, requests.arrival[head]))
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


def open_ranks(state: Channels) -> tuple[Int64, Int64]:
    """Open banks of every rank and the cycle since which there are any; int64 [channels, units] each."""
    return state.open_count, state.open_since


def counters(totals: list[int], active_cycles: int, idle_cycles: int) -> DramCounters:
    """Name the columns of `Channels.counters`, summed over the channels."""
    return DramCounters(
        read_commands=totals[READ_COMMANDS],
        write_commands=totals[WRITE_COMMANDS],
        activates=totals[ACTIVATES],
        precharges=totals[PRECHARGES],
        row_conflicts=totals[ROW_CONFLICTS],
        refreshes=totals[REFRESHES],
        dual_commands=totals[DUAL_COMMANDS],
        row_hits=totals[ROW_HITS],
        forwarded_reads=totals[FORWARDED_READS],
        merged_reads=0,
        absorbed_writes=totals[ABSORBED_WRITES],
        active_cycles=active_cycles,
        escaped_livelocks=0,
        row_misses=totals[ROW_MISSES],
        idle_cycles=idle_cycles,
    )
