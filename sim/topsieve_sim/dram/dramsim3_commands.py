"""What each command of the `dramsim3` policy does to its bank, its bank groups and its rank."""

from __future__ import annotations

from numba import njit

from topsieve_sim.dram.bits import lowest_bit
from topsieve_sim.dram.dramsim3_state import (
    ACT,
    ACTIVATE_ACTIVATE,
    ACTIVATE_PRECHARGE,
    ACTIVATE_READ,
    ACTIVATE_READY,
    ACTIVATE_WRITE,
    ACTIVATES,
    ACTIVE_CYCLES,
    COLUMN_BANKS,
    FOUR_ACTIVATES,
    FULL_BANKS,
    HIT_POSITIONS,
    HITS,
    MIXED_BANKS,
    NEXT_READY,
    NEXT_SLOT,
    OPEN_BANKS,
    OPEN_COUNT,
    OPEN_ROW,
    OPEN_SINCE,
    PRE,
    PRECHARGE_ACTIVATE,
    PRECHARGE_READY,
    PRECHARGE_REFRESH,
    PRECHARGES,
    QUEUE_LENGTH,
    QUEUED,
    RD,
    READ_ACTIVATE,
    READ_COMMANDS,
    READ_PRECHARGE,
    READ_READY,
    READ_REFRESH,
    REFRESH_ACTIVATE,
    REFRESH_RANK,
    REFRESH_READY,
    REFRESHES,
    REFRESHES_DUE,
    ROW_HITS,
    WINDOW_HEAD,
    WINDOW_LENGTH,
    WRITE_ACTIVATE,
    WRITE_COMMANDS,
    WRITE_POSITIONS,
    WRITE_PRECHARGE,
    WRITE_READY,
    Machine,
)
from topsieve_sim.dram.requests import NEVER, NONE, PRECHARGE, REFRESH, CommandLog, Int32, Int64


@njit(cache=True, inline="always")
def record(log: CommandLog, cycle: int, kind: int, bank: int, request: int) -> None:
    """Append a command to the log, if there is one."""
    if log.cycle.size > 0:
        row = log.used[0]
        log.cycle[row] = cycle
        log.kind[row] = kind
        log.bank[row] = bank
        log.request[row] = request
        log.used[0] = row + 1


@njit(cache=True, inline="always")
def choose_next(bank: int, group: int, groups: int, row_hit_cap: int, scalars: Int64, banks: Int64) -> None:
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


@njit(cache=True, inline="always")
def raise_to(banks: Int64, row: int, bank: int, cycle: int) -> None:
    """Forbid a command of a bank before `cycle`."""
    banks[row, bank] = max(banks[row, bank], cycle)


@njit(cache=True, inline="always")
def close_bank(bank: int, rank: int, cycle: int, scalars: Int64, counters: Int64, banks: Int64, ranks: Int64) -> None:
    """The bank's row is gone; a rank without open rows goes to precharged standby."""
    banks[OPEN_ROW, bank] = NONE
    banks[HITS, bank] = 0
    scalars[OPEN_BANKS] &= ~(1 << bank)
    ranks[rank, OPEN_COUNT] -= 1
    if ranks[rank, OPEN_COUNT] == 0:
        counters[ACTIVE_CYCLES] += cycle - ranks[rank, OPEN_SINCE]


@njit(cache=True, inline="always")
def precharge(
    bank: int, rank: int, cycle: int, cycles: Int64, scalars: Int64, counters: Int64, banks: Int64, ranks: Int64
) -> None:
    """Close a bank."""
    counters[PRECHARGES] += 1
    close_bank(bank, rank, cycle, scalars, counters, banks, ranks)
    raise_to(banks, ACTIVATE_READY, bank, cycle + cycles[PRECHARGE_ACTIVATE])
    raise_to(banks, REFRESH_READY, bank, cycle + cycles[PRECHARGE_REFRESH])


@njit(cache=True, inline="always")
def activate(
    bank: int,
    rank: int,
    group: int,
    groups_per_rank: int,
    depth: int,
    cycle: int,
    cycles: Int64,
    activate_delta: Int64,
    scalars: Int64,
    counters: Int64,
    banks: Int64,
    ranks: Int64,
    group_ready: Int64,
    queue: Int64,
    row_of: Int32,
) -> None:
    """Open the row that the oldest waiting command of the bank wants."""
    counters[ACTIVATES] += 1
    row = int(row_of[queue[bank * depth]])
    found = 0
    for i in range(banks[QUEUE_LENGTH, bank]):
        if row_of[queue[bank * depth + i]] == row:
            found |= 1 << i
    banks[OPEN_ROW, bank] = row
    banks[HIT_POSITIONS, bank] = found
    scalars[OPEN_BANKS] |= 1 << bank
    if ranks[rank, OPEN_COUNT] == 0:
        ranks[rank, OPEN_SINCE] = cycle
    ranks[rank, OPEN_COUNT] += 1
    raise_to(banks, ACTIVATE_READY, bank, cycle + cycles[ACTIVATE_ACTIVATE])
    raise_to(banks, PRECHARGE_READY, bank, cycle + cycles[ACTIVATE_PRECHARGE])
    banks[READ_READY, bank] = cycle + cycles[ACTIVATE_READ]
    banks[WRITE_READY, bank] = cycle + cycles[ACTIVATE_WRITE]
    # A list of window ends, of which at most one that has passed is dropped.
    head = ranks[rank, WINDOW_HEAD]
    length = ranks[rank, WINDOW_LENGTH]
    if length > 0 and cycle >= ranks[rank, head]:
        head = (head + 1) & 3
        length -= 1
    ranks[rank, (head + length) & 3] = cycle + cycles[FOUR_ACTIVATES]
    length += 1
    ranks[rank, WINDOW_HEAD] = head
    ranks[rank, WINDOW_LENGTH] = length
    blocked = ranks[rank, head] if length == 4 else 0
    for i in range(rank * groups_per_rank, (rank + 1) * groups_per_rank):
        group_ready[i] = max(group_ready[i], blocked, cycle + activate_delta[group, i])


@njit(cache=True, inline="always")
def transfer(
    bank: int,
    rank: int,
    group: int,
    groups: int,
    position: int,
    is_write: int,
    depth: int,
    closed_page: int,
    cycle: int,
    cycles: Int64,
    column_delta: Int64,
    scalars: Int64,
    counters: Int64,
    banks: Int64,
    ranks: Int64,
    group_ready: Int64,
    queue: Int64,
) -> None:
    """Issue the column command at `position` of the bank's queue and take it out."""
    length = banks[QUEUE_LENGTH, bank] - 1
    banks[QUEUE_LENGTH, bank] = length
    for i in range(position, length):
        queue[bank * depth + i] = queue[bank * depth + i + 1]
    below = (1 << position) - 1
    hits, writes = banks[HIT_POSITIONS, bank], banks[WRITE_POSITIONS, bank]
    banks[HIT_POSITIONS, bank] = (hits & below) | ((hits >> 1) & ~below)
    banks[WRITE_POSITIONS, bank] = (writes & below) | ((writes >> 1) & ~below)
    scalars[QUEUED] -= 1
    scalars[FULL_BANKS] &= ~(1 << bank)
    if banks[HITS, bank] > 0:
        counters[ROW_HITS] += 1
    banks[HITS, bank] += 1
    for i in range(2 * groups):
        slot = RD * groups + i
        group_ready[slot] = max(group_ready[slot], cycle + column_delta[is_write, group, i])
    counters[WRITE_COMMANDS if is_write else READ_COMMANDS] += 1
    raise_to(banks, PRECHARGE_READY, bank, cycle + cycles[WRITE_PRECHARGE if is_write else READ_PRECHARGE])
    if closed_page:
        close_bank(bank, rank, cycle, scalars, counters, banks, ranks)
        banks[HIT_POSITIONS, bank] = 0
        raise_to(banks, ACTIVATE_READY, bank, cycle + cycles[WRITE_ACTIVATE if is_write else READ_ACTIVATE])
        raise_to(banks, REFRESH_READY, bank, cycle + cycles[WRITE_ACTIVATE if is_write else READ_REFRESH])


@njit(cache=True)
def serve_refresh(
    cycle: int,
    machine: Machine,
    scalars: Int64,
    counters: Int64,
    banks: Int64,
    ranks: Int64,
    log: CommandLog,
) -> tuple[bool, int]:
    """Close a bank of the rank that waits for a refresh, lowest first, or refresh it.

    Returns whether a command issued, and the next cycle in which one may.
    """
    cycles = machine.cycles
    rank = scalars[REFRESH_RANK]
    first = rank * machine.banks_per_rank
    beyond = first + machine.banks_per_rank
    if ranks[rank, OPEN_COUNT] > 0:
        soonest = NEVER
        for bank in range(first, beyond):
            if banks[OPEN_ROW, bank] >= 0:
                if banks[PRECHARGE_READY, bank] <= cycle:
                    precharge(bank, rank, cycle, cycles, scalars, counters, banks, ranks)
                    record(log, cycle, PRECHARGE, bank, NONE)
                    choose_next(bank, bank >> machine.group_shift, machine.groups, machine.row_hit_cap, scalars, banks)
                    return True, cycle + 1
                soonest = min(soonest, banks[PRECHARGE_READY, bank])
        return False, soonest
    ready = 0
    for bank in range(first, beyond):
        ready = max(ready, banks[REFRESH_READY, bank])
    if ready > cycle:
        return False, ready
    counters[REFRESHES] += 1
    record(log, cycle, REFRESH, first, NONE)
    scalars[REFRESHES_DUE] -= 1
    scalars[REFRESH_RANK] = rank + 1 if rank + 1 < machine.ranks else 0
    for bank in range(first, beyond):
        raise_to(banks, ACTIVATE_READY, bank, cycle + cycles[REFRESH_ACTIVATE])
        raise_to(banks, REFRESH_READY, bank, cycle + cycles[REFRESH_ACTIVATE])
        if banks[QUEUE_LENGTH, bank] > 0:
            banks[NEXT_READY, bank] = banks[ACTIVATE_READY, bank]
    return True, cycle + 1
