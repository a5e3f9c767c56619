"""The `ramulator` policy: one read and one write buffer per channel, first ready first served over all banks.

Behaviour: specification `simulators`, section 1.8, and `docs/dram.md`. A request whose activate has issued moves to the
list of active requests, which goes first and whose banks may not be precharged. A waiting refresh stops both buffers.
With two command buses (HBM) every cycle tries a column command, then a row command.
"""

from __future__ import annotations

from numba import njit

from topsieve_sim.dram.ramulator_state import (
    ABSORBED_WRITES,
    ACT,
    ACTIVATES,
    ACTIVE_COUNT,
    ACTIVE_CYCLES,
    ANY,
    COLUMN,
    DONE_BEFORE,
    DUAL_COMMANDS,
    FIFO_HEAD,
    FORWARDED_READS,
    MODE_STALE,
    NEXT_REFRESH,
    PRE,
    PRECHARGES,
    RD,
    READ_COMMANDS,
    READ_COUNT,
    READS_OPEN,
    REFRESH_HEAD,
    REFRESHES,
    REFRESHES_DUE,
    ROW,
    ROW_BUS,
    ROW_CONFLICTS,
    ROW_HITS,
    ROW_MISSES,
    VISIT,
    WRITE_COUNT,
    WRITE_MODE,
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
    Int64,
    Requests,
)

__all__ = [
    "FIFO_HEAD",
    "READS_OPEN",
    "ACTIVE_CYCLES",
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
    c: int,
    machine: Machine,
    state: Channels,
    requests: Requests,
    row_bus: int,
) -> tuple[int, int, int]:
    """Position and command of the oldest entry whose command is ready on `bus`, and when the next one may be."""
    groups = machine.groups
    banks_per_group = machine.banks_per_unit // machine.groups_per_unit
    best = NONE
    best_request = NEVER
    best_kind = 0
    soonest = NEVER
    for i in range(count):
        request = entries[i]
        bank = int(requests.bank[request])
        group = bank // banks_per_group
        row = state.open_row[c, bank]
        if row < 0:
            kind = ACT
            at = max(state.activate_ready[c, bank], state.group_ready[c, group], row_bus)
        elif row == requests.row[request]:
            write = int(requests.is_write[request])
            kind = RD + write
            at = max(state.column_ready[c, write, bank], state.group_ready[c, kind * groups + group])
        else:
            kind = PRE
            if state.claims[c, bank] > 0:
                continue
            at = max(state.precharge_ready[c, bank], row_bus)
        if at > cycle:
            soonest = min(soonest, at)
        elif (bus == ANY or (bus == COLUMN) == (kind >= RD)) and request < best_request:
            best = int(i)
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
    bank = int(requests.bank[request])
    unit = bank // machine.banks_per_unit
    group = bank // (machine.banks_per_unit // machine.groups_per_unit)
    # `next_merged` marks a request that has been classified: each counts once, when its first command issues.
    if requests.next_merged[request] == NONE:
        requests.next_merged[request] = request
        if kind >= RD:
            counters[ROW_HITS] += 1
        elif kind == ACT:
            counters[ROW_MISSES] += 1
        else:
            counters[ROW_CONFLICTS] += 1
    if kind >= RD:
        is_write = kind - RD
        for i in range(2 * groups):
            slot = RD * groups + i
            state.group_ready[c, slot] = max(
                state.group_ready[c, slot], cycle + machine.column_delta[is_write, group, i]
            )
        held = machine.write_precharge if is_write else machine.read_precharge
        state.precharge_ready[c, bank] = max(state.precharge_ready[c, bank], cycle + held)
        counters[READ_COMMANDS + is_write] += 1
        requests.complete[request] = cycle if is_write else cycle + machine.read_done
        state.scalars[c, READS_OPEN] -= 1
        _record(log, cycle, WRITE if is_write else READ, bank, request)
    elif kind == PRE:
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
    soonest = NEVER
    position, kind, at = _first_ready(
        active, scalars[ACTIVE_COUNT], bus, cycle, c, machine, state, requests, scalars[ROW_BUS]
    )
    soonest = min(soonest, at)
    if position >= 0:
        request = active[position]
        _issue(request, kind, cycle, c, machine, state, requests, log)
        if kind >= RD:
            _remove(active, position, scalars[ACTIVE_COUNT])
            scalars[ACTIVE_COUNT] -= 1
            state.claims[c, requests.bank[request]] -= 1
        return True, cycle + 1
    if scalars[REFRESHES_DUE] > 0:
        if bus == COLUMN:
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
    if kind != PRE:
        _remove(entries, position, count)
        scalars[WRITE_COUNT if writing else READ_COUNT] -= 1
        scalars[MODE_STALE] = 1
    if kind == ACT:
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
            column_acted, soonest = _serve(COLUMN, cycle, c, machine, state, requests, log)
            row_acted, at = _serve(ROW, cycle, c, machine, state, requests, log)
            soonest = min(soonest, at)
            acted = column_acted or row_acted
            if column_acted and row_acted:
                state.counters[c, DUAL_COMMANDS] += 1
        else:
            acted, soonest = _serve(ANY, cycle, c, machine, state, requests, log)

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
