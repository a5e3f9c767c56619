"""Read queue, write buffer and bank queues of the `dramsim3` policy: who enters, who moves on, when writes drain."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.dram.dramsim3_state import (
    ABSORBED_WRITES,
    DRAIN,
    ESCAPE_LINE,
    ESCAPED_LIVELOCKS,
    FORWARDED_READS,
    FULL_BANKS,
    HASH_SLOTS,
    HIT_POSITIONS,
    MERGED_READS,
    OPEN_ROW,
    QUEUE_LENGTH,
    QUEUED,
    READ_BANKS,
    READ_COUNT,
    READ_HEAD,
    READS_OPEN,
    WAITING_READS,
    WAITING_WRITES,
    WRITE_BANKS,
    WRITE_COUNT,
    WRITE_HEAD,
    WRITE_POSITIONS,
)
from topsieve_sim.dram.requests import NONE, Int32, Int64


@njit(cache=True, inline="always")
def slot_of(line: int) -> int:
    """Slot of a line in the tables that count pending lines."""
    return (line ^ (line >> 10) ^ (line >> 20)) & (HASH_SLOTS - 1)


@njit(cache=True, inline="always")
def wants_to_drain(write_buffer: int, write_drain_threshold: int, scalars: Int64) -> bool:
    """Whether draining begins: the buffer is full, or worth emptying while nothing else is under way."""
    return bool(scalars[WRITE_COUNT] >= write_buffer) or bool(
        scalars[WRITE_COUNT] > write_drain_threshold and scalars[QUEUED] == 0
    )


@njit(cache=True, inline="always")
def find_line(
    line: int,
    is_write: int,
    bank: int,
    depth: int,
    ring: Int64,
    head: int,
    count: int,
    line_of: Int64,
    queue: Int64,
    banks: Int64,
) -> int:
    """The pending read (or write) of a line: in its ring or in the queue of its bank; NONE without one."""
    mask = ring.size - 1
    for i in range(count):
        request = ring[(head + i) & mask]
        if line_of[request] == line:
            return int(request)
    for i in range(banks[QUEUE_LENGTH, bank]):
        request = queue[bank * depth + i]
        if line_of[request] == line and ((banks[WRITE_POSITIONS, bank] >> i) & 1) == is_write:
            return int(request)
    return NONE


@njit(cache=True, inline="always")
def oldest_with_room(ring: Int64, head: int, depth: int, bank_of: Int32, banks: Int64) -> int:
    """Distance from the head of a ring to its oldest entry whose bank queue has room; there must be one."""
    mask = ring.size - 1
    position = 0
    while banks[QUEUE_LENGTH, bank_of[ring[(head + position) & mask]]] >= depth:
        position += 1
    return position


@njit(cache=True, inline="always")
def take(ring: Int64, head: int, position: int) -> int:
    """Remove the entry at `position`, order kept; returns the new head."""
    mask = ring.size - 1
    for i in range(position, 0, -1):
        ring[(head + i) & mask] = ring[(head + i - 1) & mask]
    return (head + 1) & mask


@njit(cache=True, inline="always")
def leave(bank: int, waiting: int, set_of_banks: int, scalars: Int64, banks: Int64) -> None:
    """One entry fewer for a bank in the read queue or the write buffer."""
    banks[waiting, bank] -= 1
    if banks[waiting, bank] == 0:
        scalars[set_of_banks] &= ~(1 << bank)


@njit(cache=True, inline="always")
def move_transaction(
    depth: int,
    write_buffer: int,
    write_drain_threshold: int,
    scalars: Int64,
    counters: Int64,
    banks: Int64,
    queue: Int64,
    reads: Int64,
    writes: Int64,
    pending_reads: NDArray[np.int16],
    line_of: Int64,
    bank_of: Int32,
    row_of: Int32,
) -> int:
    """Move one transaction to the queue of its bank; returns that bank, NONE if none moved."""
    escaping = scalars[ESCAPE_LINE] >= 0
    room = ~scalars[FULL_BANKS]
    if scalars[DRAIN] == 0 and not escaping and wants_to_drain(write_buffer, write_drain_threshold, scalars):
        scalars[DRAIN] = scalars[WRITE_COUNT]
    is_write = scalars[DRAIN] > 0
    if is_write:
        if (scalars[WRITE_BANKS] & room) == 0:
            return NONE
        head = scalars[WRITE_HEAD]
        position = oldest_with_room(writes, head, depth, bank_of, banks)
        request = writes[(head + position) & (writes.size - 1)]
        bank = int(bank_of[request])
        line = line_of[request]
        if pending_reads[slot_of(line)] > 0:
            reader = find_line(
                line, 0, bank, depth, reads, scalars[READ_HEAD], scalars[READ_COUNT], line_of, queue, banks
            )
            if reader >= 0:
                scalars[DRAIN] = 0
                if scalars[QUEUED] == 0 and wants_to_drain(write_buffer, write_drain_threshold, scalars):
                    # Nothing is on its way and draining would start again at once: the original never leaves this
                    # state. Reads go first until the one this write waits for has moved.
                    scalars[ESCAPE_LINE] = line
                    counters[ESCAPED_LIVELOCKS] += 1
                return NONE
        scalars[WRITE_HEAD] = take(writes, head, position)
        scalars[WRITE_COUNT] -= 1
        scalars[DRAIN] -= 1
        leave(bank, WAITING_WRITES, WRITE_BANKS, scalars, banks)
    else:
        if (scalars[READ_BANKS] & room) == 0:
            return NONE
        head = scalars[READ_HEAD]
        position = oldest_with_room(reads, head, depth, bank_of, banks)
        request = reads[(head + position) & (reads.size - 1)]
        bank = int(bank_of[request])
        scalars[READ_HEAD] = take(reads, head, position)
        scalars[READ_COUNT] -= 1
        leave(bank, WAITING_READS, READ_BANKS, scalars, banks)
        if escaping and line_of[request] == scalars[ESCAPE_LINE]:
            scalars[ESCAPE_LINE] = NONE
    length = banks[QUEUE_LENGTH, bank]
    queue[bank * depth + length] = request
    banks[QUEUE_LENGTH, bank] = length + 1
    if length + 1 == depth:
        scalars[FULL_BANKS] |= 1 << bank
    scalars[QUEUED] += 1
    is_hit = banks[OPEN_ROW, bank] >= 0 and row_of[request] == banks[OPEN_ROW, bank]
    bit = 1 << length
    banks[HIT_POSITIONS, bank] = (banks[HIT_POSITIONS, bank] & ~bit) | (bit if is_hit else 0)
    banks[WRITE_POSITIONS, bank] = (banks[WRITE_POSITIONS, bank] & ~bit) | (bit if is_write else 0)
    return bank


@njit(cache=True, inline="always")
def accept_request(
    request: int,
    is_write: int,
    cycle: int,
    depth: int,
    capacity: int,
    scalars: Int64,
    counters: Int64,
    banks: Int64,
    queue: Int64,
    reads: Int64,
    writes: Int64,
    pending_reads: NDArray[np.int16],
    pending_writes: NDArray[np.int16],
    line_of: Int64,
    bank_of: Int32,
    complete_of: Int64,
    merged_of: Int64,
) -> bool:
    """Take a request in if its queue (of `capacity` entries) has room."""
    if (scalars[WRITE_COUNT] if is_write else scalars[READ_COUNT]) >= capacity:
        return False
    line = line_of[request]
    bank = int(bank_of[request])
    slot = slot_of(line)
    writer = NONE
    if pending_writes[slot] > 0:
        writer = find_line(
            line, 1, bank, depth, writes, scalars[WRITE_HEAD], scalars[WRITE_COUNT], line_of, queue, banks
        )
    if is_write:
        complete_of[request] = cycle + 2
        if writer >= 0:
            counters[ABSORBED_WRITES] += 1
            return True
        pending_writes[slot] += 1
        writes[(scalars[WRITE_HEAD] + scalars[WRITE_COUNT]) & (writes.size - 1)] = request
        scalars[WRITE_COUNT] += 1
        banks[WAITING_WRITES, bank] += 1
        scalars[WRITE_BANKS] |= 1 << bank
        return True
    if writer >= 0:
        complete_of[request] = cycle + 2
        counters[FORWARDED_READS] += 1
        return True
    scalars[READS_OPEN] += 1
    if pending_reads[slot] > 0:
        reader = find_line(line, 0, bank, depth, reads, scalars[READ_HEAD], scalars[READ_COUNT], line_of, queue, banks)
        if reader >= 0:
            counters[MERGED_READS] += 1
            merged_of[request] = merged_of[reader]
            merged_of[reader] = request
            return True
    pending_reads[slot] += 1
    reads[(scalars[READ_HEAD] + scalars[READ_COUNT]) & (reads.size - 1)] = request
    scalars[READ_COUNT] += 1
    banks[WAITING_READS, bank] += 1
    scalars[READ_BANKS] |= 1 << bank
    return True
