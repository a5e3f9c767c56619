"""The `dramsim3` policy: one command queue per bank, round robin over the banks.

Behaviour: specification `simulators`, section 1.8, and `docs/dram.md`. One kernel advances one channel; it visits only
cycles in which something can happen (a command becomes ready, a transaction can move, a request can be accepted, a
refresh is due), so time costs nothing while the channel waits. Visiting a cycle in which nothing happens changes nothing,
which is why lower bounds suffice for the next cycle to visit.

For every bank with waiting commands the kernel keeps the one command it would issue next and the cycle from which the
bank itself allows it; what bank groups, the rank and the data bus allow is kept per command kind and bank group. A bank is
ready when both have passed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.dram.bits import lowest_bit
from topsieve_sim.dram.config import DramConfig, PagePolicy
from topsieve_sim.dram.constraints import dramsim3_constraints
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

# What a bank would issue next; also the row of `Channels.group_ready`.
_ACT, _PRE, _RD, _WR = 0, 1, 2, 3
_KINDS = 4
_HASH_SLOTS = 1024

# Columns of `Channels.scalars`.
(
    VISIT,
    DONE_BEFORE,
    POINTER,
    DRAIN,
    ESCAPE_LINE,
    READ_HEAD,
    READ_COUNT,
    WRITE_HEAD,
    WRITE_COUNT,
    READ_BANKS,
    WRITE_BANKS,
    FULL_BANKS,
    QUEUED,
    NEXT_REFRESH,
    REFRESH_RANK,
    REFRESHES_DUE,
    FIFO_HEAD,
    READS_OPEN,
    COMMAND_READY,
    OPEN_BANKS,
    COLUMN_BANKS,
    MIXED_BANKS,
) = range(22)
_SCALARS = 22

# Columns of `Channels.counters`; the names are those of `topsieve_sim.dram.result.COUNTERS`.
(
    READ_COMMANDS,
    WRITE_COMMANDS,
    ACTIVATES,
    PRECHARGES,
    CONFLICTS,
    REFRESHES,
    DUAL_COMMANDS,
    ROW_HITS,
    FORWARDED_READS,
    MERGED_READS,
    ABSORBED_WRITES,
    ACTIVE_CYCLES,
    ESCAPED_LIVELOCKS,
) = range(13)
_COUNTERS = 13


class Machine(NamedTuple):
    """What the kernel needs to know of the configuration."""

    banks: int
    banks_per_rank: int
    groups: int
    groups_per_rank: int
    ranks: int
    bank_queue: int
    read_queue: int
    write_buffer: int
    row_hit_cap: int
    write_drain_threshold: int
    closed_page: int
    dual_command: int
    read_done: int
    read_precharge: int
    write_precharge: int
    read_activate: int
    write_activate: int
    read_refresh: int
    activate_read: int
    activate_write: int
    activate_precharge: int
    activate_activate: int
    precharge_activate: int
    precharge_refresh: int
    refresh_activate: int
    refresh_interval: int
    four_activates: int
    column_delta: Int64
    """int64 [2, groups, 2 * groups]: cycles from a read or write in a group to reads, then writes, of every group."""
    activate_delta: Int64
    """int64 [groups, groups]: cycles from an activate to an activate in every group."""


class Channels(NamedTuple):
    """State of all channels; the first axis is the channel."""

    scalars: Int64
    counters: Int64
    open_row: Int64
    hits: Int64
    activate_ready: Int64
    column_ready: Int64
    """int64 [channels, 2, banks]: reads, then writes, as far as the bank's own activate is concerned."""
    precharge_ready: Int64
    refresh_ready: Int64
    group_ready: Int64
    """int64 [channels, 4 * groups]: activate, precharge (always 0), read, write as far as the group is concerned."""
    next_ready: Int64
    """int64 [channels, banks]: the bank's own cycle for its next command, NEVER without waiting commands."""
    next_slot: Int64
    """int64 [channels, banks]: index into `group_ready` of the next command."""
    queue: Int64
    """int64 [channels, banks * bank_queue]: requests in order of arrival."""
    queue_length: Int64
    hit_positions: Int64
    """int64 [channels, banks]: bit p is set if the p-th waiting command hits the open row."""
    write_positions: Int64
    window: Int64
    """int64 [channels, ranks, 6]: ends of up to four activate windows, ring head, length."""
    open_count: Int64
    open_since: Int64
    reads: Int64
    """int64 [channels, ring]: read queue."""
    writes: Int64
    read_banks: Int64
    """int64 [channels, banks]: entries of the read queue per bank."""
    write_banks: Int64
    line_counts: NDArray[np.int16]
    """int16 [channels, 2, 1024]: pending reads, then writes, by hashed line."""


def machine(config: DramConfig) -> Machine:
    """The kernel's view of a configuration."""
    table, organization, controller = dramsim3_constraints(config), config.organization, config.controller
    groups, per_rank = organization.groups_per_channel, organization.bank_groups
    column = np.zeros((2, groups, 2 * groups), np.int64)
    activate = np.full((groups, groups), -NEVER, np.int64)
    for source in range(groups):
        for target in range(groups):
            if source // per_rank != target // per_rank:
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
        banks_per_rank=organization.banks_per_rank,
        groups=groups,
        groups_per_rank=per_rank,
        ranks=organization.ranks,
        bank_queue=controller.bank_queue,
        read_queue=controller.read_queue,
        write_buffer=controller.write_buffer,
        row_hit_cap=controller.row_hit_cap,
        write_drain_threshold=controller.write_drain_threshold,
        closed_page=int(controller.page is PagePolicy.CLOSED),
        dual_command=int(controller.dual_command),
        read_done=table.read_done,
        read_precharge=table.read_precharge,
        write_precharge=table.write_precharge,
        read_activate=table.read_activate,
        write_activate=table.write_activate,
        read_refresh=table.read_refresh,
        activate_read=table.activate_read,
        activate_write=table.activate_write,
        activate_precharge=table.activate_precharge,
        activate_activate=table.activate_activate_same_bank,
        precharge_activate=table.precharge_activate,
        precharge_refresh=table.precharge_refresh,
        refresh_activate=table.refresh_activate,
        refresh_interval=table.refresh_interval,
        four_activates=table.four_activates,
        column_delta=column,
        activate_delta=activate,
    )


def fresh_channels(config: DramConfig) -> Channels:
    """All channels at cycle 0: every bank closed, every queue empty."""
    organization, controller = config.organization, config.controller
    channels, banks, groups = organization.channels, organization.banks_per_channel, organization.groups_per_channel

    def zeros(*shape: int) -> Int64:
        return np.zeros((channels, *shape), np.int64)

    def ring(entries: int) -> Int64:
        return zeros(1 << (entries - 1).bit_length() if entries > 1 else 1)

    scalars = zeros(_SCALARS)
    scalars[:, ESCAPE_LINE] = NONE
    scalars[:, FIFO_HEAD] = NONE
    scalars[:, COMMAND_READY] = NEVER
    scalars[:, NEXT_REFRESH] = dramsim3_constraints(config).refresh_interval
    return Channels(
        scalars=scalars,
        counters=zeros(_COUNTERS),
        open_row=zeros(banks) - 1,
        hits=zeros(banks),
        activate_ready=zeros(banks),
        column_ready=zeros(2, banks),
        precharge_ready=zeros(banks),
        refresh_ready=zeros(banks),
        group_ready=zeros(_KINDS * groups),
        next_ready=zeros(banks) + NEVER,
        next_slot=zeros(banks),
        queue=zeros(banks * controller.bank_queue),
        queue_length=zeros(banks),
        hit_positions=zeros(banks),
        write_positions=zeros(banks),
        window=zeros(organization.ranks, 6),
        open_count=zeros(organization.ranks),
        open_since=zeros(organization.ranks),
        reads=ring(controller.read_queue),
        writes=ring(controller.write_buffer),
        read_banks=zeros(banks),
        write_banks=zeros(banks),
        line_counts=np.zeros((channels, 2, _HASH_SLOTS), np.int16),
    )


@njit(cache=True)
def _slot_of(line: int) -> int:
    return (line ^ (line >> 10) ^ (line >> 20)) & (_HASH_SLOTS - 1)


@njit(cache=True)
def _choose_next(
    bank: int,
    group: int,
    machine: Machine,
    scalars: Int64,
    open_row: Int64,
    hits: Int64,
    activate_ready: Int64,
    column_ready: Int64,
    precharge_ready: Int64,
    next_ready: Int64,
    next_slot: Int64,
    queue_length: Int64,
    hit_positions: Int64,
    write_positions: Int64,
) -> None:
    """Renew the next command of a bank after its queue or its row changed."""
    bit = np.int64(1) << bank
    column = np.int64(0)
    mixed = np.int64(0)
    if queue_length[bank] == 0:
        next_ready[bank] = NEVER
    elif open_row[bank] < 0:
        next_ready[bank] = activate_ready[bank]
        next_slot[bank] = _ACT * machine.groups + group
    else:
        found = hit_positions[bank]
        if (found & 1) == 0 and (found == 0 or hits[bank] >= machine.row_hit_cap):
            next_ready[bank] = precharge_ready[bank]
            next_slot[bank] = _PRE * machine.groups + group
            if found != 0:
                mixed = bit
        else:
            first = lowest_bit(found)
            is_write = (write_positions[bank] >> first) & 1
            next_ready[bank] = column_ready[is_write, bank]
            next_slot[bank] = (_RD + is_write) * machine.groups + group
            column = bit
            writes = found & write_positions[bank]
            if writes != 0 and writes != found:
                mixed = bit
    scalars[COLUMN_BANKS] = (scalars[COLUMN_BANKS] & ~bit) | column
    scalars[MIXED_BANKS] = (scalars[MIXED_BANKS] & ~bit) | mixed


@njit(cache=True)
def _close(bank: int, cycle: int, machine: Machine, scalars: Int64, counters: Int64, state: Channels, c: int) -> None:
    state.open_row[c, bank] = NONE
    state.hits[c, bank] = 0
    scalars[OPEN_BANKS] &= ~(np.int64(1) << bank)
    rank = bank // machine.banks_per_rank
    state.open_count[c, rank] -= 1
    if state.open_count[c, rank] == 0:
        counters[ACTIVE_CYCLES] += cycle - state.open_since[c, rank]


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
def _find_line(line: int, requests: Requests, ring: Int64, head: int, count: int) -> int:
    mask = ring.size - 1
    for i in range(count):
        request = ring[(head + i) & mask]
        if requests.line[request] == line:
            return int(request)
    return NONE


@njit(cache=True)
def _find_queued(
    line: int, is_write: int, bank: int, requests: Requests, machine: Machine, queue: Int64, queue_length: Int64
) -> int:
    for i in range(queue_length[bank]):
        request = queue[bank * machine.bank_queue + i]
        if requests.line[request] == line and requests.is_write[request] == is_write:
            return int(request)
    return NONE


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
    """Run channel `c` through the cycles before `until_cycle`.

    Stops early after the cycle in which its last submitted request was accepted (`stop_when_accepted`) or in which no
    submitted request waits any more (`stop_when_done`), or when the log is full. Returns False in the last case only.
    """
    scalars = state.scalars[c]
    counters = state.counters[c]
    open_row = state.open_row[c]
    hits = state.hits[c]
    activate_ready = state.activate_ready[c]
    column_ready = state.column_ready[c]
    precharge_ready = state.precharge_ready[c]
    refresh_ready = state.refresh_ready[c]
    group_ready = state.group_ready[c]
    next_ready = state.next_ready[c]
    next_slot = state.next_slot[c]
    queue = state.queue[c]
    queue_length = state.queue_length[c]
    hit_positions = state.hit_positions[c]
    write_positions = state.write_positions[c]
    reads = state.reads[c]
    writes = state.writes[c]
    read_banks = state.read_banks[c]
    write_banks = state.write_banks[c]
    pending_reads = state.line_counts[c, 0]
    pending_writes = state.line_counts[c, 1]
    banks = machine.banks
    groups = machine.groups
    depth = machine.bank_queue
    banks_per_group = machine.banks_per_rank // machine.groups_per_rank
    read_mask = reads.size - 1
    write_mask = writes.size - 1
    one = np.int64(1)

    head = scalars[FIFO_HEAD]
    cycle = scalars[VISIT]
    if head >= 0:
        cycle = min(cycle, requests.arrival[head])
    cycle = max(cycle, scalars[DONE_BEFORE])
    command_ready = scalars[COMMAND_READY]
    finished = True

    while cycle < until_cycle:
        if log.cycle.size > 0 and log.used[0] + 2 > log.cycle.size:
            finished = False
            break

        # 1. Refresh timer.
        if cycle >= scalars[NEXT_REFRESH]:
            scalars[NEXT_REFRESH] += machine.refresh_interval
            scalars[REFRESHES_DUE] += 1
            command_ready = cycle

        # 2. and 3. Commands: refresh first, then round robin over the banks.
        if cycle >= command_ready:
            acted = False
            command_ready = NEVER
            frozen = np.int64(0)
            if scalars[REFRESHES_DUE] > 0:
                rank = scalars[REFRESH_RANK]
                first_bank = rank * machine.banks_per_rank
                refresh_at = np.int64(0)
                any_open = False
                for bank in range(first_bank, first_bank + machine.banks_per_rank):
                    frozen |= one << bank
                    if open_row[bank] >= 0:
                        if not any_open:
                            any_open = True
                            refresh_at = NEVER
                        if precharge_ready[bank] <= cycle and not acted:
                            acted = True
                            _close(bank, cycle, machine, scalars, counters, state, c)
                            counters[PRECHARGES] += 1
                            _record(log, cycle, PRECHARGE, bank, NONE)
                            activate_ready[bank] = max(activate_ready[bank], cycle + machine.precharge_activate)
                            refresh_ready[bank] = max(refresh_ready[bank], cycle + machine.precharge_refresh)
                            _choose_next(
                                bank, bank // banks_per_group, machine, scalars, open_row, hits, activate_ready,
                                column_ready, precharge_ready, next_ready, next_slot, queue_length, hit_positions,
                                write_positions,
                            )  # fmt: skip
                        else:
                            refresh_at = min(refresh_at, precharge_ready[bank])
                    elif not any_open:
                        refresh_at = max(refresh_at, refresh_ready[bank])
                if not any_open and refresh_at <= cycle:
                    acted = True
                    counters[REFRESHES] += 1
                    _record(log, cycle, REFRESH, first_bank, NONE)
                    scalars[REFRESHES_DUE] -= 1
                    scalars[REFRESH_RANK] = rank + 1 if rank + 1 < machine.ranks else 0
                    for bank in range(first_bank, first_bank + machine.banks_per_rank):
                        activate_ready[bank] = max(activate_ready[bank], cycle + machine.refresh_activate)
                        refresh_ready[bank] = max(refresh_ready[bank], cycle + machine.refresh_activate)
                        if queue_length[bank] > 0:
                            next_ready[bank] = activate_ready[bank]
                if acted:
                    command_ready = cycle + 1
                else:
                    command_ready = refresh_at

            if not acted:
                ready = np.int64(0)
                soonest = np.int64(NEVER)
                for bank in range(banks):
                    at = max(next_ready[bank], group_ready[next_slot[bank]])
                    if at <= cycle:
                        ready |= one << bank
                    else:
                        soonest = min(soonest, at)
                ready_column = ready & scalars[COLUMN_BANKS]
                ready_row = ready & ~scalars[COLUMN_BANKS]
                # Banks that could also issue a command other than their first choice.
                rest = scalars[MIXED_BANKS]
                while rest != 0:
                    bank = lowest_bit(rest)
                    rest &= rest - 1
                    found = hit_positions[bank]
                    group = bank // banks_per_group
                    for kind in range(2):
                        wanted = found & write_positions[bank] if kind == 1 else found & ~write_positions[bank]
                        if wanted != 0:
                            at = max(column_ready[kind, bank], group_ready[(_RD + kind) * groups + group])
                            if at <= cycle:
                                ready_column |= one << bank
                            else:
                                soonest = min(soonest, at)
                ready_row &= ~frozen
                ready_column &= ~frozen
                ready = ready_row | ready_column

                first_was_column = False
                picks = 0
                while ready != 0 and picks < 2:
                    # Round robin: the pointer moves before it is used.
                    pointer = scalars[POINTER] + 1
                    after = ready & (np.int64(-1) << pointer) if pointer < banks else np.int64(0)
                    bank = lowest_bit(after) if after != 0 else lowest_bit(ready)
                    scalars[POINTER] = bank
                    bit = one << bank
                    ready &= ~bit
                    group = bank // banks_per_group

                    # The oldest waiting command of the bank whose required command is ready.
                    kind = _ACT
                    position = np.int64(0)
                    if open_row[bank] >= 0:
                        if (ready_row & bit) != 0:
                            kind = _PRE
                        else:
                            found = hit_positions[bank]
                            position = lowest_bit(found)
                            kind = _RD + ((write_positions[bank] >> position) & 1)
                            if (scalars[MIXED_BANKS] & bit) != 0:
                                reading = group_ready[_RD * groups + group] <= cycle
                                reading = reading and column_ready[0, bank] <= cycle
                                writing = group_ready[_WR * groups + group] <= cycle
                                writing = writing and column_ready[1, bank] <= cycle
                                if not reading:
                                    found &= write_positions[bank]
                                elif not writing:
                                    found &= ~write_positions[bank]
                                position = lowest_bit(found)
                                kind = _RD + ((write_positions[bank] >> position) & 1)
                    is_column = kind >= _RD
                    if kind == _PRE:
                        counters[CONFLICTS] += 1
                    picks += 1
                    if picks == 2:
                        if is_column == first_was_column:
                            # Chosen but not issued: one row command and one column command per cycle.
                            command_ready = cycle + 1
                            break
                        counters[DUAL_COMMANDS] += 1
                    first_was_column = is_column

                    request = queue[bank * depth + position]
                    if is_column:
                        is_write = kind - _RD
                        # Take the command out of its queue.
                        length = queue_length[bank] - 1
                        queue_length[bank] = length
                        for i in range(position, length):
                            queue[bank * depth + i] = queue[bank * depth + i + 1]
                        below = (one << position) - 1
                        hit_positions[bank] = (hit_positions[bank] & below) | ((hit_positions[bank] >> 1) & ~below)
                        write_positions[bank] = (write_positions[bank] & below) | (
                            (write_positions[bank] >> 1) & ~below
                        )
                        scalars[QUEUED] -= 1
                        scalars[FULL_BANKS] &= ~bit
                        if hits[bank] > 0:
                            counters[ROW_HITS] += 1
                        hits[bank] += 1
                        for i in range(2 * groups):
                            slot = _RD * groups + i
                            group_ready[slot] = max(
                                group_ready[slot], cycle + machine.column_delta[is_write, group, i]
                            )
                        line = requests.line[request]
                        if is_write:
                            counters[WRITE_COMMANDS] += 1
                            pending_writes[_slot_of(line)] -= 1
                            precharge_ready[bank] = max(precharge_ready[bank], cycle + machine.write_precharge)
                        else:
                            counters[READ_COMMANDS] += 1
                            precharge_ready[bank] = max(precharge_ready[bank], cycle + machine.read_precharge)
                            pending_reads[_slot_of(line)] -= 1
                            done = request
                            while done >= 0:
                                requests.complete[done] = cycle + machine.read_done
                                scalars[READS_OPEN] -= 1
                                done = requests.next_merged[done]
                        if machine.closed_page:
                            _close(bank, cycle, machine, scalars, counters, state, c)
                            hit_positions[bank] = 0
                            at = cycle + (machine.write_activate if is_write else machine.read_activate)
                            activate_ready[bank] = max(activate_ready[bank], at)
                            at = cycle + (machine.write_activate if is_write else machine.read_refresh)
                            refresh_ready[bank] = max(refresh_ready[bank], at)
                        _record(log, cycle, (WRITE if is_write else READ) + machine.closed_page, bank, request)
                        # Every other column command of this rank waits for the data bus.
                        ready &= ready_row
                    elif kind == _PRE:
                        counters[PRECHARGES] += 1
                        _close(bank, cycle, machine, scalars, counters, state, c)
                        activate_ready[bank] = max(activate_ready[bank], cycle + machine.precharge_activate)
                        refresh_ready[bank] = max(refresh_ready[bank], cycle + machine.precharge_refresh)
                        _record(log, cycle, PRECHARGE, bank, request)
                    else:
                        counters[ACTIVATES] += 1
                        row = np.int64(requests.row[request])
                        open_row[bank] = row
                        rank = bank // machine.banks_per_rank
                        scalars[OPEN_BANKS] |= bit
                        if state.open_count[c, rank] == 0:
                            state.open_since[c, rank] = cycle
                        state.open_count[c, rank] += 1
                        found = np.int64(0)
                        for i in range(queue_length[bank]):
                            if requests.row[queue[bank * depth + i]] == row:
                                found |= one << i
                        hit_positions[bank] = found
                        activate_ready[bank] = max(activate_ready[bank], cycle + machine.activate_activate)
                        column_ready[0, bank] = cycle + machine.activate_read
                        column_ready[1, bank] = cycle + machine.activate_write
                        precharge_ready[bank] = max(precharge_ready[bank], cycle + machine.activate_precharge)
                        window = state.window[c, rank]
                        if window[5] > 0 and cycle >= window[window[4]]:
                            window[4] = (window[4] + 1) & 3
                            window[5] -= 1
                        window[(window[4] + window[5]) & 3] = cycle + machine.four_activates
                        window[5] += 1
                        blocked = window[window[4]] if window[5] == 4 else np.int64(0)
                        for i in range(machine.groups_per_rank):
                            slot = rank * machine.groups_per_rank + i
                            at = max(blocked, cycle + machine.activate_delta[group, slot])
                            group_ready[slot] = max(group_ready[slot], at)
                        _record(log, cycle, ACTIVATE, bank, request)
                        # Every other activate of this rank waits at least tRRD_S.
                        ready &= scalars[OPEN_BANKS]
                    _choose_next(
                        bank, group, machine, scalars, open_row, hits, activate_ready, column_ready,
                        precharge_ready, next_ready, next_slot, queue_length, hit_positions, write_positions,
                    )  # fmt: skip
                    command_ready = cycle + 1
                    if not machine.dual_command:
                        break
                command_ready = min(command_ready, soonest)

        # 4. One transaction moves from the read queue or the write buffer to the queue of its bank.
        write_count = scalars[WRITE_COUNT]
        escaping = scalars[ESCAPE_LINE] >= 0
        room = ~scalars[FULL_BANKS]
        if (
            scalars[DRAIN] == 0
            and not escaping
            and (
                write_count >= machine.write_buffer
                or (write_count > machine.write_drain_threshold and scalars[QUEUED] == 0)
            )
        ):
            scalars[DRAIN] = write_count
        moved = np.int64(NONE)
        if scalars[DRAIN] > 0:
            if (scalars[WRITE_BANKS] & room) != 0:
                start = scalars[WRITE_HEAD]
                position = np.int64(0)
                while queue_length[requests.bank[writes[(start + position) & write_mask]]] >= depth:
                    position += 1
                request = writes[(start + position) & write_mask]
                line = requests.line[request]
                bank = np.int64(requests.bank[request])
                waits_for_read = False
                if pending_reads[_slot_of(line)] > 0:
                    waits_for_read = (
                        _find_line(line, requests, reads, scalars[READ_HEAD], scalars[READ_COUNT]) >= 0
                        or _find_queued(line, 0, bank, requests, machine, queue, queue_length) >= 0
                    )
                if waits_for_read:
                    scalars[DRAIN] = 0
                    if scalars[QUEUED] == 0 and (
                        write_count >= machine.write_buffer or write_count > machine.write_drain_threshold
                    ):
                        # Nothing is on its way and draining would start again at once: the original never ends here.
                        # Reads go first until the one this write waits for has moved.
                        scalars[ESCAPE_LINE] = line
                        counters[ESCAPED_LIVELOCKS] += 1
                else:
                    for i in range(position, 0, -1):
                        writes[(start + i) & write_mask] = writes[(start + i - 1) & write_mask]
                    scalars[WRITE_HEAD] = (start + 1) & write_mask
                    scalars[WRITE_COUNT] = write_count - 1
                    scalars[DRAIN] -= 1
                    write_banks[bank] -= 1
                    if write_banks[bank] == 0:
                        scalars[WRITE_BANKS] &= ~(one << bank)
                    moved = request
        elif (scalars[READ_BANKS] & room) != 0:
            start = scalars[READ_HEAD]
            position = np.int64(0)
            while queue_length[requests.bank[reads[(start + position) & read_mask]]] >= depth:
                position += 1
            request = reads[(start + position) & read_mask]
            bank = np.int64(requests.bank[request])
            for i in range(position, 0, -1):
                reads[(start + i) & read_mask] = reads[(start + i - 1) & read_mask]
            scalars[READ_HEAD] = (start + 1) & read_mask
            scalars[READ_COUNT] -= 1
            read_banks[bank] -= 1
            if read_banks[bank] == 0:
                scalars[READ_BANKS] &= ~(one << bank)
            moved = request
            if escaping and requests.line[request] == scalars[ESCAPE_LINE]:
                scalars[ESCAPE_LINE] = NONE
        if moved >= 0:
            bank = np.int64(requests.bank[moved])
            length = queue_length[bank]
            queue[bank * depth + length] = moved
            queue_length[bank] = length + 1
            if length + 1 == depth:
                scalars[FULL_BANKS] |= one << bank
            bit = one << length
            if open_row[bank] >= 0 and requests.row[moved] == open_row[bank]:
                hit_positions[bank] |= bit
            else:
                hit_positions[bank] &= ~bit
            if requests.is_write[moved]:
                write_positions[bank] |= bit
            else:
                write_positions[bank] &= ~bit
            scalars[QUEUED] += 1
            _choose_next(
                bank, bank // banks_per_group, machine, scalars, open_row, hits, activate_ready, column_ready,
                precharge_ready, next_ready, next_slot, queue_length, hit_positions, write_positions,
            )  # fmt: skip
            at = max(next_ready[bank], group_ready[next_slot[bank]])
            if (scalars[MIXED_BANKS] >> bank) & 1:
                at = cycle + 1
            command_ready = min(command_ready, max(at, cycle + 1))

        # 5. The oldest waiting request is accepted if its queue has room.
        if head >= 0 and requests.arrival[head] <= cycle:
            line = requests.line[head]
            bank = np.int64(requests.bank[head])
            slot = _slot_of(line)
            accepted = False
            if requests.is_write[head]:
                if scalars[WRITE_COUNT] < machine.write_buffer:
                    accepted = True
                    requests.complete[head] = cycle + 2
                    if pending_writes[slot] > 0 and (
                        _find_line(line, requests, writes, scalars[WRITE_HEAD], scalars[WRITE_COUNT]) >= 0
                        or _find_queued(line, 1, bank, requests, machine, queue, queue_length) >= 0
                    ):
                        counters[ABSORBED_WRITES] += 1
                    else:
                        pending_writes[slot] += 1
                        writes[(scalars[WRITE_HEAD] + scalars[WRITE_COUNT]) & write_mask] = head
                        scalars[WRITE_COUNT] += 1
                        write_banks[bank] += 1
                        scalars[WRITE_BANKS] |= one << bank
            elif scalars[READ_COUNT] < machine.read_queue:
                accepted = True
                if pending_writes[slot] > 0 and (
                    _find_line(line, requests, writes, scalars[WRITE_HEAD], scalars[WRITE_COUNT]) >= 0
                    or _find_queued(line, 1, bank, requests, machine, queue, queue_length) >= 0
                ):
                    requests.complete[head] = cycle + 2
                    counters[FORWARDED_READS] += 1
                else:
                    scalars[READS_OPEN] += 1
                    same = np.int64(NONE)
                    if pending_reads[slot] > 0:
                        same = _find_line(line, requests, reads, scalars[READ_HEAD], scalars[READ_COUNT])
                        if same < 0:
                            same = _find_queued(line, 0, bank, requests, machine, queue, queue_length)
                    if same >= 0:
                        counters[MERGED_READS] += 1
                        requests.next_merged[head] = requests.next_merged[same]
                        requests.next_merged[same] = head
                    else:
                        pending_reads[slot] += 1
                        reads[(scalars[READ_HEAD] + scalars[READ_COUNT]) & read_mask] = head
                        scalars[READ_COUNT] += 1
                        read_banks[bank] += 1
                        scalars[READ_BANKS] |= one << bank
            if accepted:
                requests.accept[head] = cycle
                head = requests.next_in_channel[head]

        # The next cycle in which anything can happen.
        upcoming = min(command_ready, scalars[NEXT_REFRESH])
        room = ~scalars[FULL_BANKS]
        write_count = scalars[WRITE_COUNT]
        draining = scalars[DRAIN] > 0 or (
            scalars[ESCAPE_LINE] < 0
            and (
                write_count >= machine.write_buffer
                or (write_count > machine.write_drain_threshold and scalars[QUEUED] == 0)
            )
        )
        if ((scalars[WRITE_BANKS] if draining else scalars[READ_BANKS]) & room) != 0:
            upcoming = cycle + 1
        if head >= 0:
            if requests.is_write[head]:
                has_room = write_count < machine.write_buffer
            else:
                has_room = scalars[READ_COUNT] < machine.read_queue
            if has_room:
                upcoming = min(upcoming, max(cycle + 1, requests.arrival[head]))
        elif stop_when_accepted or (stop_when_done and scalars[READS_OPEN] == 0):
            until_cycle = cycle + 1
        cycle = max(upcoming, cycle + 1)

    scalars[DONE_BEFORE] = max(scalars[DONE_BEFORE], min(cycle, until_cycle))
    scalars[VISIT] = cycle
    scalars[FIFO_HEAD] = head
    scalars[COMMAND_READY] = command_ready
    return finished


def counters(totals: list[int], active_cycles: int, idle_cycles: int) -> DramCounters:
    """Name the columns of `Channels.counters`, summed over the channels."""
    return DramCounters(
        read_commands=totals[READ_COMMANDS],
        write_commands=totals[WRITE_COMMANDS],
        activates=totals[ACTIVATES],
        precharges=totals[PRECHARGES],
        row_conflicts=totals[CONFLICTS],
        refreshes=totals[REFRESHES],
        dual_commands=totals[DUAL_COMMANDS],
        row_hits=totals[ROW_HITS],
        forwarded_reads=totals[FORWARDED_READS],
        merged_reads=totals[MERGED_READS],
        absorbed_writes=totals[ABSORBED_WRITES],
        active_cycles=active_cycles,
        escaped_livelocks=totals[ESCAPED_LIVELOCKS],
        row_misses=totals[READ_COMMANDS] + totals[WRITE_COMMANDS] - totals[ROW_HITS],
        idle_cycles=idle_cycles,
    )
