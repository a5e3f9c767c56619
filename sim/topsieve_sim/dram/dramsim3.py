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

from topsieve_sim.dram.bits import lowest_bit
from topsieve_sim.dram.dramsim3_state import (
    ABSORBED_WRITES,
    ACT,
    ACTIVATE_READY,
    ACTIVATES,
    ACTIVE_CYCLES,
    COLUMN_BANKS,
    COMMAND_READY,
    CONFLICTS,
    DONE_BEFORE,
    DRAIN,
    DUAL_COMMANDS,
    ESCAPE_LINE,
    ESCAPED_LIVELOCKS,
    FIFO_HEAD,
    FORWARDED_READS,
    FULL_BANKS,
    HASH_SLOTS,
    HIT_POSITIONS,
    HITS,
    MERGED_READS,
    MIXED_BANKS,
    NEXT_READY,
    NEXT_REFRESH,
    NEXT_SLOT,
    OPEN_BANKS,
    OPEN_COUNT,
    OPEN_ROW,
    OPEN_SINCE,
    POINTER,
    PRE,
    PRECHARGE_READY,
    PRECHARGES,
    QUEUE_LENGTH,
    QUEUED,
    RD,
    READ_BANKS,
    READ_COMMANDS,
    READ_COUNT,
    READ_HEAD,
    READ_READY,
    READS_OPEN,
    REFRESH_RANK,
    REFRESH_READY,
    REFRESHES,
    REFRESHES_DUE,
    ROW_HITS,
    VISIT,
    WAITING_READS,
    WAITING_WRITES,
    WINDOW_HEAD,
    WINDOW_LENGTH,
    WR,
    WRITE_BANKS,
    WRITE_COMMANDS,
    WRITE_COUNT,
    WRITE_HEAD,
    WRITE_POSITIONS,
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
def _slot_of(line: int) -> int:
    return (line ^ (line >> 10) ^ (line >> 20)) & (HASH_SLOTS - 1)


@njit(cache=True)
def _choose_next(bank: int, group: int, groups: int, row_hit_cap: int, scalars: Int64, banks: Int64) -> None:
    """Renew the next command of a bank after its queue or its row changed."""
    bit = 1 << bank
    column = 0
    mixed = 0
    if banks[QUEUE_LENGTH, bank] == 0:
        banks[NEXT_READY, bank] = NEVER
    elif banks[OPEN_ROW, bank] < 0:
        banks[NEXT_READY, bank] = banks[ACTIVATE_READY, bank]
        banks[NEXT_SLOT, bank] = ACT * groups + group
    else:
        found = banks[HIT_POSITIONS, bank]
        if (found & 1) == 0 and (found == 0 or banks[HITS, bank] >= row_hit_cap):
            banks[NEXT_READY, bank] = banks[PRECHARGE_READY, bank]
            banks[NEXT_SLOT, bank] = PRE * groups + group
            if found != 0:
                mixed = bit
        else:
            writes = found & banks[WRITE_POSITIONS, bank]
            is_write = (writes >> lowest_bit(found)) & 1
            banks[NEXT_READY, bank] = banks[READ_READY + is_write, bank]
            banks[NEXT_SLOT, bank] = (RD + is_write) * groups + group
            column = bit
            if writes != 0 and writes != found:
                mixed = bit
    scalars[COLUMN_BANKS] = (scalars[COLUMN_BANKS] & ~bit) | column
    scalars[MIXED_BANKS] = (scalars[MIXED_BANKS] & ~bit) | mixed


@njit(cache=True)
def _close(bank: int, rank: int, cycle: int, scalars: Int64, counters: Int64, banks: Int64, ranks: Int64) -> None:
    banks[OPEN_ROW, bank] = NONE
    banks[HITS, bank] = 0
    scalars[OPEN_BANKS] &= ~(1 << bank)
    ranks[rank, OPEN_COUNT] -= 1
    if ranks[rank, OPEN_COUNT] == 0:
        counters[ACTIVE_CYCLES] += cycle - ranks[rank, OPEN_SINCE]


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
def _find_line(line: int, lines: Int64, ring: Int64, head: int, count: int) -> int:
    mask = ring.size - 1
    for i in range(count):
        request = ring[(head + i) & mask]
        if lines[request] == line:
            return int(request)
    return NONE


@njit(cache=True)
def _find_queued(line: int, is_write: int, bank: int, depth: int, lines: Int64, queue: Int64, banks: Int64) -> int:
    for i in range(banks[QUEUE_LENGTH, bank]):
        request = queue[bank * depth + i]
        if lines[request] == line and ((banks[WRITE_POSITIONS, bank] >> i) & 1) == is_write:
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
    banks = state.banks[c]
    group_ready = state.group_ready[c]
    queue = state.queue[c]
    ranks = state.ranks[c]
    reads = state.reads[c]
    writes = state.writes[c]
    pending_reads = state.line_counts[c, 0]
    pending_writes = state.line_counts[c, 1]
    bank_count = machine.banks
    groups = machine.groups
    depth = machine.bank_queue
    group_shift = machine.group_shift
    rank_shift = machine.rank_shift
    row_hit_cap = machine.row_hit_cap
    column_delta = machine.column_delta
    activate_delta = machine.activate_delta
    line_of, bank_of, row_of = requests.line, requests.bank, requests.row
    writing_of, arrival_of, next_of = requests.is_write, requests.arrival, requests.next_in_channel
    accept_of, complete_of, merged_of = requests.accept, requests.complete, requests.next_merged
    read_mask = reads.size - 1
    write_mask = writes.size - 1
    one = 1

    pointer = scalars[POINTER]
    drain = scalars[DRAIN]
    escape_line = scalars[ESCAPE_LINE]
    read_head = scalars[READ_HEAD]
    read_count = scalars[READ_COUNT]
    write_head = scalars[WRITE_HEAD]
    write_count = scalars[WRITE_COUNT]
    reads_of_banks = scalars[READ_BANKS]
    writes_of_banks = scalars[WRITE_BANKS]
    full_banks = scalars[FULL_BANKS]
    queued = scalars[QUEUED]
    next_refresh = scalars[NEXT_REFRESH]
    refresh_rank = scalars[REFRESH_RANK]
    refreshes_due = scalars[REFRESHES_DUE]
    reads_open = scalars[READS_OPEN]
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
        if cycle >= next_refresh:
            next_refresh += machine.refresh_interval
            refreshes_due += 1
            command_ready = cycle

        # 2. and 3. Commands: refresh first, then round robin over the banks.
        if cycle >= command_ready:
            acted = False
            command_ready = NEVER
            frozen = 0
            if refreshes_due > 0:
                rank = refresh_rank
                first_bank = rank * machine.banks_per_rank
                refresh_at = 0
                any_open = False
                for bank in range(first_bank, first_bank + machine.banks_per_rank):
                    frozen |= one << bank
                    if banks[OPEN_ROW, bank] >= 0:
                        if not any_open:
                            any_open = True
                            refresh_at = NEVER
                        if banks[PRECHARGE_READY, bank] <= cycle and not acted:
                            acted = True
                            _close(bank, bank >> rank_shift, cycle, scalars, counters, banks, ranks)
                            counters[PRECHARGES] += 1
                            _record(log, cycle, PRECHARGE, bank, NONE)
                            banks[ACTIVATE_READY, bank] = max(
                                banks[ACTIVATE_READY, bank], cycle + machine.precharge_activate
                            )
                            banks[REFRESH_READY, bank] = max(
                                banks[REFRESH_READY, bank], cycle + machine.precharge_refresh
                            )
                            _choose_next(bank, bank >> group_shift, groups, row_hit_cap, scalars, banks)
                        else:
                            refresh_at = min(refresh_at, banks[PRECHARGE_READY, bank])
                    elif not any_open:
                        refresh_at = max(refresh_at, banks[REFRESH_READY, bank])
                if not any_open and refresh_at <= cycle:
                    acted = True
                    counters[REFRESHES] += 1
                    _record(log, cycle, REFRESH, first_bank, NONE)
                    refreshes_due -= 1
                    refresh_rank = rank + 1 if rank + 1 < machine.ranks else 0
                    for bank in range(first_bank, first_bank + machine.banks_per_rank):
                        banks[ACTIVATE_READY, bank] = max(banks[ACTIVATE_READY, bank], cycle + machine.refresh_activate)
                        banks[REFRESH_READY, bank] = max(banks[REFRESH_READY, bank], cycle + machine.refresh_activate)
                        if banks[QUEUE_LENGTH, bank] > 0:
                            banks[NEXT_READY, bank] = banks[ACTIVATE_READY, bank]
                if acted:
                    command_ready = cycle + 1
                else:
                    command_ready = refresh_at

            if not acted:
                ready = 0
                soonest = NEVER
                for bank in range(bank_count):
                    at = max(banks[NEXT_READY, bank], group_ready[banks[NEXT_SLOT, bank]])
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
                    found = banks[HIT_POSITIONS, bank]
                    group = bank >> group_shift
                    for kind in range(2):
                        wanted = (
                            found & banks[WRITE_POSITIONS, bank] if kind == 1 else found & ~banks[WRITE_POSITIONS, bank]
                        )
                        if wanted != 0:
                            at = max(banks[READ_READY + kind, bank], group_ready[(RD + kind) * groups + group])
                            if at <= cycle:
                                ready_column |= one << bank
                            else:
                                soonest = min(soonest, at)
                ready_row &= ~frozen
                ready_column &= ~frozen
                ready = ready_row | ready_column

                waiting_row = ready_row
                waiting_column = ready_column
                first_was_column = False
                picks = 0
                while ready != 0 and picks < 2:
                    # Round robin: the pointer moves before it is used.
                    pointer = pointer + 1
                    after = ready & (-1 << pointer) if pointer < bank_count else 0
                    bank = lowest_bit(after) if after != 0 else lowest_bit(ready)
                    pointer = bank
                    bit = one << bank
                    ready &= ~bit
                    group = bank >> group_shift

                    # The oldest waiting command of the bank whose required command is ready.
                    kind = ACT
                    position = 0
                    if banks[OPEN_ROW, bank] >= 0:
                        if (ready_row & bit) != 0:
                            kind = PRE
                        else:
                            found = banks[HIT_POSITIONS, bank]
                            position = lowest_bit(found)
                            kind = RD + ((banks[WRITE_POSITIONS, bank] >> position) & 1)
                            if (scalars[MIXED_BANKS] & bit) != 0:
                                reading = group_ready[RD * groups + group] <= cycle
                                reading = reading and banks[READ_READY, bank] <= cycle
                                writing = group_ready[WR * groups + group] <= cycle
                                writing = writing and banks[WRITE_READY, bank] <= cycle
                                if not reading:
                                    found &= banks[WRITE_POSITIONS, bank]
                                elif not writing:
                                    found &= ~banks[WRITE_POSITIONS, bank]
                                position = lowest_bit(found)
                                kind = RD + ((banks[WRITE_POSITIONS, bank] >> position) & 1)
                    is_column = kind >= RD
                    if kind == PRE:
                        counters[CONFLICTS] += 1
                    picks += 1
                    if picks == 2:
                        if is_column == first_was_column:
                            # Chosen but not issued: one row command and one column command per cycle.
                            break
                        counters[DUAL_COMMANDS] += 1
                    first_was_column = is_column
                    waiting_row &= ~bit
                    waiting_column &= ~bit

                    request = queue[bank * depth + position]
                    if is_column:
                        is_write = kind - RD
                        # Take the command out of its queue.
                        length = banks[QUEUE_LENGTH, bank] - 1
                        banks[QUEUE_LENGTH, bank] = length
                        for i in range(position, length):
                            queue[bank * depth + i] = queue[bank * depth + i + 1]
                        below = (one << position) - 1
                        banks[HIT_POSITIONS, bank] = (banks[HIT_POSITIONS, bank] & below) | (
                            (banks[HIT_POSITIONS, bank] >> 1) & ~below
                        )
                        banks[WRITE_POSITIONS, bank] = (banks[WRITE_POSITIONS, bank] & below) | (
                            (banks[WRITE_POSITIONS, bank] >> 1) & ~below
                        )
                        queued -= 1
                        full_banks &= ~bit
                        if banks[HITS, bank] > 0:
                            counters[ROW_HITS] += 1
                        banks[HITS, bank] += 1
                        for i in range(2 * groups):
                            slot = RD * groups + i
                            group_ready[slot] = max(group_ready[slot], cycle + column_delta[is_write, group, i])
                        line = line_of[request]
                        if is_write:
                            counters[WRITE_COMMANDS] += 1
                            pending_writes[_slot_of(line)] -= 1
                            banks[PRECHARGE_READY, bank] = max(
                                banks[PRECHARGE_READY, bank], cycle + machine.write_precharge
                            )
                        else:
                            counters[READ_COMMANDS] += 1
                            banks[PRECHARGE_READY, bank] = max(
                                banks[PRECHARGE_READY, bank], cycle + machine.read_precharge
                            )
                            pending_reads[_slot_of(line)] -= 1
                            done = request
                            while done >= 0:
                                complete_of[done] = cycle + machine.read_done
                                reads_open -= 1
                                done = merged_of[done]
                        if machine.closed_page:
                            _close(bank, bank >> rank_shift, cycle, scalars, counters, banks, ranks)
                            banks[HIT_POSITIONS, bank] = 0
                            at = cycle + (machine.write_activate if is_write else machine.read_activate)
                            banks[ACTIVATE_READY, bank] = max(banks[ACTIVATE_READY, bank], at)
                            at = cycle + (machine.write_activate if is_write else machine.read_refresh)
                            banks[REFRESH_READY, bank] = max(banks[REFRESH_READY, bank], at)
                        _record(log, cycle, (WRITE if is_write else READ) + machine.closed_page, bank, request)
                        # Every other column command waits for the data bus.
                        ready &= ready_row
                        if waiting_column != 0:
                            soonest = min(soonest, cycle + machine.column_gap)
                            waiting_column = 0
                    elif kind == PRE:
                        counters[PRECHARGES] += 1
                        _close(bank, bank >> rank_shift, cycle, scalars, counters, banks, ranks)
                        banks[ACTIVATE_READY, bank] = max(
                            banks[ACTIVATE_READY, bank], cycle + machine.precharge_activate
                        )
                        banks[REFRESH_READY, bank] = max(banks[REFRESH_READY, bank], cycle + machine.precharge_refresh)
                        _record(log, cycle, PRECHARGE, bank, request)
                    else:
                        counters[ACTIVATES] += 1
                        row = int(row_of[request])
                        banks[OPEN_ROW, bank] = row
                        rank = bank >> rank_shift
                        scalars[OPEN_BANKS] |= bit
                        if ranks[rank, OPEN_COUNT] == 0:
                            ranks[rank, OPEN_SINCE] = cycle
                        ranks[rank, OPEN_COUNT] += 1
                        found = 0
                        for i in range(banks[QUEUE_LENGTH, bank]):
                            if row_of[queue[bank * depth + i]] == row:
                                found |= one << i
                        banks[HIT_POSITIONS, bank] = found
                        banks[ACTIVATE_READY, bank] = max(
                            banks[ACTIVATE_READY, bank], cycle + machine.activate_activate
                        )
                        banks[READ_READY, bank] = cycle + machine.activate_read
                        banks[WRITE_READY, bank] = cycle + machine.activate_write
                        banks[PRECHARGE_READY, bank] = max(
                            banks[PRECHARGE_READY, bank], cycle + machine.activate_precharge
                        )
                        window = ranks[rank]
                        if window[WINDOW_LENGTH] > 0 and cycle >= window[window[WINDOW_HEAD]]:
                            window[WINDOW_HEAD] = (window[WINDOW_HEAD] + 1) & 3
                            window[WINDOW_LENGTH] -= 1
                        window[(window[WINDOW_HEAD] + window[WINDOW_LENGTH]) & 3] = cycle + machine.four_activates
                        window[WINDOW_LENGTH] += 1
                        blocked = window[window[WINDOW_HEAD]] if window[WINDOW_LENGTH] == 4 else 0
                        for i in range(machine.groups_per_rank):
                            slot = rank * machine.groups_per_rank + i
                            at = max(blocked, cycle + activate_delta[group, slot])
                            group_ready[slot] = max(group_ready[slot], at)
                        _record(log, cycle, ACTIVATE, bank, request)
                        # Every other activate waits at least tRRD_S (with several ranks: of its own rank).
                        ready &= scalars[OPEN_BANKS]
                        if (waiting_row & ~scalars[OPEN_BANKS]) != 0:
                            soonest = min(soonest, cycle + machine.activate_gap)
                            waiting_row &= scalars[OPEN_BANKS]
                    _choose_next(bank, group, groups, row_hit_cap, scalars, banks)
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
        escaping = escape_line >= 0
        room = ~full_banks
        if (
            drain == 0
            and not escaping
            and (write_count >= machine.write_buffer or (write_count > machine.write_drain_threshold and queued == 0))
        ):
            drain = write_count
        moved = NONE
        if drain > 0:
            if (writes_of_banks & room) != 0:
                start = write_head
                position = 0
                while banks[QUEUE_LENGTH, bank_of[writes[(start + position) & write_mask]]] >= depth:
                    position += 1
                request = writes[(start + position) & write_mask]
                line = line_of[request]
                bank = int(bank_of[request])
                waits_for_read = False
                if pending_reads[_slot_of(line)] > 0:
                    waits_for_read = (
                        _find_line(line, line_of, reads, read_head, read_count) >= 0
                        or _find_queued(line, 0, bank, depth, line_of, queue, banks) >= 0
                    )
                if waits_for_read:
                    drain = 0
                    if queued == 0 and (
                        write_count >= machine.write_buffer or write_count > machine.write_drain_threshold
                    ):
                        # Nothing is on its way and draining would start again at once: the original never ends here.
                        # Reads go first until the one this write waits for has moved.
                        escape_line = line
                        counters[ESCAPED_LIVELOCKS] += 1
                else:
                    for i in range(position, 0, -1):
                        writes[(start + i) & write_mask] = writes[(start + i - 1) & write_mask]
                    write_head = (start + 1) & write_mask
                    write_count -= 1
                    drain -= 1
                    banks[WAITING_WRITES, bank] -= 1
                    if banks[WAITING_WRITES, bank] == 0:
                        writes_of_banks &= ~(one << bank)
                    moved = request
        elif (reads_of_banks & room) != 0:
            start = read_head
            position = 0
            while banks[QUEUE_LENGTH, bank_of[reads[(start + position) & read_mask]]] >= depth:
                position += 1
            request = reads[(start + position) & read_mask]
            bank = int(bank_of[request])
            for i in range(position, 0, -1):
                reads[(start + i) & read_mask] = reads[(start + i - 1) & read_mask]
            read_head = (start + 1) & read_mask
            read_count -= 1
            banks[WAITING_READS, bank] -= 1
            if banks[WAITING_READS, bank] == 0:
                reads_of_banks &= ~(one << bank)
            moved = request
            if escaping and line_of[request] == escape_line:
                escape_line = NONE
        if moved >= 0:
            bank = int(bank_of[moved])
            length = banks[QUEUE_LENGTH, bank]
            queue[bank * depth + length] = moved
            banks[QUEUE_LENGTH, bank] = length + 1
            if length + 1 == depth:
                full_banks |= one << bank
            bit = one << length
            if banks[OPEN_ROW, bank] >= 0 and row_of[moved] == banks[OPEN_ROW, bank]:
                banks[HIT_POSITIONS, bank] |= bit
            else:
                banks[HIT_POSITIONS, bank] &= ~bit
            if writing_of[moved]:
                banks[WRITE_POSITIONS, bank] |= bit
            else:
                banks[WRITE_POSITIONS, bank] &= ~bit
            queued += 1
            _choose_next(bank, bank >> group_shift, groups, row_hit_cap, scalars, banks)
            at = max(banks[NEXT_READY, bank], group_ready[banks[NEXT_SLOT, bank]])
            if (scalars[MIXED_BANKS] >> bank) & 1:
                at = cycle + 1
            command_ready = min(command_ready, max(at, cycle + 1))

        # 5. The oldest waiting request is accepted if its queue has room.
        if head >= 0 and arrival_of[head] <= cycle:
            line = line_of[head]
            bank = int(bank_of[head])
            slot = _slot_of(line)
            accepted = False
            if writing_of[head]:
                if write_count < machine.write_buffer:
                    accepted = True
                    complete_of[head] = cycle + 2
                    if pending_writes[slot] > 0 and (
                        _find_line(line, line_of, writes, write_head, write_count) >= 0
                        or _find_queued(line, 1, bank, depth, line_of, queue, banks) >= 0
                    ):
                        counters[ABSORBED_WRITES] += 1
                    else:
                        pending_writes[slot] += 1
                        writes[(write_head + write_count) & write_mask] = head
                        write_count += 1
                        banks[WAITING_WRITES, bank] += 1
                        writes_of_banks |= one << bank
            elif read_count < machine.read_queue:
                accepted = True
                if pending_writes[slot] > 0 and (
                    _find_line(line, line_of, writes, write_head, write_count) >= 0
                    or _find_queued(line, 1, bank, depth, line_of, queue, banks) >= 0
                ):
                    complete_of[head] = cycle + 2
                    counters[FORWARDED_READS] += 1
                else:
                    reads_open += 1
                    same = NONE
                    if pending_reads[slot] > 0:
                        same = _find_line(line, line_of, reads, read_head, read_count)
                        if same < 0:
                            same = _find_queued(line, 0, bank, depth, line_of, queue, banks)
                    if same >= 0:
                        counters[MERGED_READS] += 1
                        merged_of[head] = merged_of[same]
                        merged_of[same] = head
                    else:
                        pending_reads[slot] += 1
                        reads[(read_head + read_count) & read_mask] = head
                        read_count += 1
                        banks[WAITING_READS, bank] += 1
                        reads_of_banks |= one << bank
            if accepted:
                accept_of[head] = cycle
                head = next_of[head]

        # The next cycle in which anything can happen.
        upcoming = min(command_ready, next_refresh)
        room = ~full_banks
        draining = drain > 0 or (
            escape_line < 0
            and (write_count >= machine.write_buffer or (write_count > machine.write_drain_threshold and queued == 0))
        )
        if ((writes_of_banks if draining else reads_of_banks) & room) != 0:
            upcoming = cycle + 1
        if head >= 0:
            if writing_of[head]:
                has_room = write_count < machine.write_buffer
            else:
                has_room = read_count < machine.read_queue
            if has_room:
                upcoming = min(upcoming, max(cycle + 1, arrival_of[head]))
        elif stop_when_accepted or (stop_when_done and reads_open == 0):
            until_cycle = cycle + 1
        cycle = max(upcoming, cycle + 1)

    scalars[DONE_BEFORE] = max(scalars[DONE_BEFORE], min(cycle, until_cycle))
    scalars[POINTER] = pointer
    scalars[DRAIN] = drain
    scalars[ESCAPE_LINE] = escape_line
    scalars[READ_HEAD] = read_head
    scalars[READ_COUNT] = read_count
    scalars[WRITE_HEAD] = write_head
    scalars[WRITE_COUNT] = write_count
    scalars[READ_BANKS] = reads_of_banks
    scalars[WRITE_BANKS] = writes_of_banks
    scalars[FULL_BANKS] = full_banks
    scalars[QUEUED] = queued
    scalars[NEXT_REFRESH] = next_refresh
    scalars[REFRESH_RANK] = refresh_rank
    scalars[REFRESHES_DUE] = refreshes_due
    scalars[READS_OPEN] = reads_open
    scalars[VISIT] = cycle
    scalars[FIFO_HEAD] = head
    scalars[COMMAND_READY] = command_ready
    return finished


@njit(cache=True)
def advance_all(until_cycle: int, machine: Machine, state: Channels, requests: Requests, log: CommandLog) -> None:
    """Run every channel through the cycles before `until_cycle`; nothing is recorded."""
    for c in range(state.scalars.shape[0]):
        advance(c, until_cycle, False, False, machine, state, requests, log)
