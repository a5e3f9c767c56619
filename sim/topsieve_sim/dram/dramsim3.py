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

from numba import njit

from topsieve_sim.dram.bits import borrowed, lowest_bit
from topsieve_sim.dram.dramsim3_commands import activate, choose_next, precharge, record, serve_refresh, transfer
from topsieve_sim.dram.dramsim3_queues import accept_request, move_transaction, slot_of, wants_to_drain
from topsieve_sim.dram.dramsim3_state import (
    ACT,
    ACTIVE_CYCLES,
    COLUMN_BANKS,
    COMMAND_READY,
    CONFLICTS,
    DONE_BEFORE,
    DRAIN,
    DUAL_COMMANDS,
    ESCAPE_LINE,
    FIFO_HEAD,
    FULL_BANKS,
    HIT_POSITIONS,
    MIXED_BANKS,
    NEXT_READY,
    NEXT_REFRESH,
    NEXT_SLOT,
    OPEN_BANKS,
    OPEN_ROW,
    POINTER,
    PRE,
    RD,
    READ_BANKS,
    READ_COUNT,
    READ_DONE,
    READ_READY,
    READS_OPEN,
    REFRESH_RANK,
    REFRESHES_DUE,
    VISIT,
    WRITE_BANKS,
    WRITE_COUNT,
    WRITE_POSITIONS,
    Channels,
    Machine,
    counters,
    fresh_channels,
    machine,
    open_ranks,
)
from topsieve_sim.dram.requests import ACTIVATE, NEVER, PRECHARGE, READ, WRITE, CommandLog, Int64, Requests

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
def _other_choices(
    cycle: int, groups: int, group_shift: int, mixed: int, banks: Int64, group_ready: Int64
) -> tuple[int, int]:
    """Banks whose reads or writes are ready beside their first choice, and when the next may be."""
    ready = 0
    soonest = NEVER
    while mixed != 0:
        bank = lowest_bit(mixed)
        mixed &= mixed - 1
        writes = banks[WRITE_POSITIONS, bank]
        for kind in range(2):
            if (banks[HIT_POSITIONS, bank] & (writes if kind == 1 else ~writes)) != 0:
                slot = (RD + kind) * groups + (bank >> group_shift)
                at = max(banks[READ_READY + kind, bank], group_ready[slot])
                if at <= cycle:
                    ready |= 1 << bank
                else:
                    soonest = min(soonest, at)
    return ready, soonest


@njit(cache=True, inline="always")
def _oldest_hit(bank: int, cycle: int, group: int, groups: int, mixed: int, banks: Int64, group_ready: Int64) -> int:
    """Position of the oldest waiting command of a bank that hits its open row and is ready; there must be one."""
    found = banks[HIT_POSITIONS, bank]
    if mixed:
        writes = banks[WRITE_POSITIONS, bank]
        if max(group_ready[RD * groups + group], banks[READ_READY, bank]) > cycle:
            found &= writes
        elif max(group_ready[(RD + 1) * groups + group], banks[READ_READY + 1, bank]) > cycle:
            found &= ~writes
    return lowest_bit(found)


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
    # Borrowed: with reference counts, handing these to the helpers would cost more than the helpers' work.
    scalars, counts = borrowed(state.scalars[c]), borrowed(state.counters[c])
    banks, ranks = borrowed(state.banks[c]), borrowed(state.ranks[c])
    group_ready, queue = borrowed(state.group_ready[c]), borrowed(state.queue[c])
    reads, writes = borrowed(state.reads[c]), borrowed(state.writes[c])
    pending_reads, pending_writes = borrowed(state.line_counts[c, 0]), borrowed(state.line_counts[c, 1])
    cycles = borrowed(machine.cycles)
    column_delta, activate_delta = borrowed(machine.column_delta), borrowed(machine.activate_delta)
    line_of, bank_of, row_of = borrowed(requests.line), borrowed(requests.bank), borrowed(requests.row)
    writing_of, arrival_of = borrowed(requests.is_write), borrowed(requests.arrival)
    accept_of, complete_of = borrowed(requests.accept), borrowed(requests.complete)
    next_of, merged_of = borrowed(requests.next_in_channel), borrowed(requests.next_merged)
    groups, group_shift, rank_shift = machine.groups, machine.group_shift, machine.rank_shift
    depth, row_hit_cap = machine.bank_queue, machine.row_hit_cap

    head = scalars[FIFO_HEAD]
    cycle = scalars[VISIT]
    if head >= 0:
        cycle = min(cycle, arrival_of[head])
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
            frozen = 0
            if scalars[REFRESHES_DUE] > 0:
                rank = scalars[REFRESH_RANK]
                acted, command_ready = serve_refresh(cycle, machine, scalars, counts, banks, ranks, log)
                for bank in range(rank * machine.banks_per_rank, (rank + 1) * machine.banks_per_rank):
                    frozen |= 1 << bank

            if not acted:
                ready = 0
                soonest = NEVER
                for bank in range(machine.banks):
                    at = max(banks[NEXT_READY, bank], group_ready[banks[NEXT_SLOT, bank]])
                    if at <= cycle:
                        ready |= 1 << bank
                    else:
                        soonest = min(soonest, at)
                ready_row = ready & ~scalars[COLUMN_BANKS] & ~frozen
                ready_column = ready & scalars[COLUMN_BANKS] & ~frozen
                if scalars[MIXED_BANKS] != 0:
                    more, at = _other_choices(cycle, groups, group_shift, scalars[MIXED_BANKS], banks, group_ready)
                    ready_column |= more & ~frozen
                    soonest = min(soonest, at)

                ready = ready_row | ready_column
                waiting_row = ready_row
                waiting_column = ready_column
                first_was_column = False
                picks = 0
                while ready != 0 and picks < 2:
                    # Round robin: the pointer moves before it is used.
                    pointer = scalars[POINTER] + 1
                    after = ready & (-1 << pointer) if pointer < machine.banks else 0
                    bank = lowest_bit(after if after != 0 else ready)
                    scalars[POINTER] = bank
                    bit = 1 << bank
                    ready &= ~bit
                    group = bank >> group_shift
                    rank = bank >> rank_shift
                    position = 0
                    if banks[OPEN_ROW, bank] < 0:
                        kind = ACT
                    elif (ready_row & bit) != 0:
                        kind = PRE
                        counts[CONFLICTS] += 1
                    else:
                        mixed = scalars[MIXED_BANKS] & bit
                        position = _oldest_hit(bank, cycle, group, groups, mixed, banks, group_ready)
                        kind = RD + ((banks[WRITE_POSITIONS, bank] >> position) & 1)
                    picks += 1
                    if picks == 2:
                        if (kind >= RD) == first_was_column:
                            # Chosen but not issued: one row command and one column command per cycle.
                            break
                        counts[DUAL_COMMANDS] += 1
                    first_was_column = kind >= RD
                    waiting_row &= ~bit
                    waiting_column &= ~bit

                    request = queue[bank * depth + position]
                    if kind >= RD:
                        is_write = kind - RD
                        transfer(
                            bank, rank, group, groups, position, is_write, depth, machine.closed_page, cycle, cycles,
                            column_delta, scalars, counts, banks, ranks, group_ready, queue,
                        )  # fmt: skip
                        if is_write:
                            pending_writes[slot_of(line_of[request])] -= 1
                        else:
                            pending_reads[slot_of(line_of[request])] -= 1
                            done = request
                            while done >= 0:
                                complete_of[done] = cycle + cycles[READ_DONE]
                                scalars[READS_OPEN] -= 1
                                done = merged_of[done]
                        record(log, cycle, (WRITE if is_write else READ) + machine.closed_page, bank, request)
                        # Every other column command waits for the data bus.
                        ready &= ready_row
                        if waiting_column != 0:
                            soonest = min(soonest, cycle + machine.column_gap)
                            waiting_column = 0
                    elif kind == PRE:
                        precharge(bank, rank, cycle, cycles, scalars, counts, banks, ranks)
                        record(log, cycle, PRECHARGE, bank, request)
                    else:
                        activate(
                            bank, rank, group, machine.groups_per_rank, depth, cycle, cycles, activate_delta, scalars,
                            counts, banks, ranks, group_ready, queue, row_of,
                        )  # fmt: skip
                        record(log, cycle, ACTIVATE, bank, request)
                        # Every other activate waits at least tRRD_S (with several ranks: of its own rank).
                        ready &= scalars[OPEN_BANKS]
                        if (waiting_row & ~scalars[OPEN_BANKS]) != 0:
                            soonest = min(soonest, cycle + machine.activate_gap)
                            waiting_row &= scalars[OPEN_BANKS]
                    choose_next(bank, group, groups, row_hit_cap, scalars, banks)
                    if (scalars[MIXED_BANKS] & bit) != 0:
                        soonest = cycle + 1
                    else:
                        soonest = min(soonest, max(banks[NEXT_READY, bank], group_ready[banks[NEXT_SLOT, bank]]))
                    if not machine.dual_command:
                        break
                if (waiting_row | waiting_column) != 0:
                    soonest = cycle + 1
                command_ready = min(command_ready, soonest)

        # 4. One transaction moves from the read queue or the write buffer to the queue of its bank.
        bank = move_transaction(
            depth, machine.write_buffer, machine.write_drain_threshold, scalars, counts, banks, queue, reads, writes,
            pending_reads, line_of, bank_of, row_of,
        )  # fmt: skip
        if bank >= 0:
            choose_next(bank, bank >> group_shift, groups, row_hit_cap, scalars, banks)
            at = max(banks[NEXT_READY, bank], group_ready[banks[NEXT_SLOT, bank]])
            if (scalars[MIXED_BANKS] >> bank) & 1:
                at = cycle + 1
            command_ready = min(command_ready, max(at, cycle + 1))

        # 5. The oldest waiting request is accepted if its queue has room.
        if head >= 0 and arrival_of[head] <= cycle:
            is_write = int(writing_of[head])
            if accept_request(
                head, is_write, cycle, depth, machine.write_buffer if is_write else machine.read_queue, scalars, counts,
                banks, queue, reads, writes, pending_reads, pending_writes, line_of, bank_of, complete_of, merged_of,
            ):  # fmt: skip
                accept_of[head] = cycle
                head = next_of[head]

        # The next cycle in which anything can happen.
        upcoming = min(command_ready, scalars[NEXT_REFRESH])
        draining = scalars[DRAIN] > 0 or (
            scalars[ESCAPE_LINE] < 0 and wants_to_drain(machine.write_buffer, machine.write_drain_threshold, scalars)
        )
        if (scalars[WRITE_BANKS if draining else READ_BANKS] & ~scalars[FULL_BANKS]) != 0:
            upcoming = cycle + 1
        if head >= 0:
            if writing_of[head]:
                has_room = scalars[WRITE_COUNT] < machine.write_buffer
            else:
                has_room = scalars[READ_COUNT] < machine.read_queue
            if has_room:
                upcoming = min(upcoming, max(cycle + 1, arrival_of[head]))
        elif stop_when_accepted or (stop_when_done and scalars[READS_OPEN] == 0):
            until_cycle = cycle + 1
        cycle = max(upcoming, cycle + 1)

    scalars[DONE_BEFORE] = max(scalars[DONE_BEFORE], min(cycle, until_cycle))
    scalars[VISIT] = cycle
    scalars[FIFO_HEAD] = head
    scalars[COMMAND_READY] = command_ready
    return finished


@njit(cache=True)
def advance_all(until_cycle: int, machine: Machine, state: Channels, requests: Requests, log: CommandLog) -> None:
    """Run every channel through the cycles before `until_cycle`; nothing is recorded."""
    for c in range(state.scalars.shape[0]):
        advance(c, until_cycle, False, False, machine, state, requests, log)
