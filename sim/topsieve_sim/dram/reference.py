"""The `dramsim3` policy clock by clock in plain Python: slow, and written to be read beside its description.

It shares no code with the kernel beyond the table of command-to-command cycles, skips no cycle, and keeps for every bank
the earliest cycle of every command. Tests hold the kernel to it on random configurations and traffic
(specification `simulators`, section 1.8; `docs/dram.md`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from topsieve_sim.dram.address import bank_index, checked_addresses, decode
from topsieve_sim.dram.config import DramConfig, PagePolicy
from topsieve_sim.dram.constraints import dramsim3_constraints
from topsieve_sim.dram.requests import Int64

COLUMN = ("read", "write")


@dataclass
class _Request:
    number: int
    line: int
    bank: int
    row: int
    is_write: bool
    arrival: int

    @property
    def command(self) -> str:
        return "write" if self.is_write else "read"


@dataclass
class _Bank:
    open_row: int | None = None
    hits: int = 0
    queue: list[_Request] = field(default_factory=list)
    earliest: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("activate", "read", "write", "precharge", "refresh"), 0)
    )


@dataclass(frozen=True)
class IssuedCommand:
    """One command of the stream."""

    cycle: int
    name: str
    bank: int
    request: int | None


class ReferenceChannel:
    """One channel, one clock cycle per `tick`."""

    def __init__(self, config: DramConfig) -> None:
        self.config = config
        self.table = dramsim3_constraints(config)
        organization = config.organization
        self.banks = [_Bank() for _ in range(organization.banks_per_channel)]
        self.windows: list[list[int]] = [[] for _ in range(organization.ranks)]
        self.fifo: deque[_Request] = deque()
        self.reads: list[_Request] = []
        self.writes: list[_Request] = []
        self.pending_reads: dict[int, list[_Request]] = {}
        self.pending_writes: set[int] = set()
        self.draining = 0
        self.yield_to: int | None = None
        self.pointer = 0
        self.refreshes: deque[int] = deque()
        self.next_rank = 0
        self.cycle = 0
        self.accept: dict[int, int] = {}
        self.complete: dict[int, int] = {}
        self.commands: list[IssuedCommand] = []
        self.active_cycles = 0

    @property
    def busy(self) -> bool:
        """Whether a submitted request is not yet accepted, or a read has no completion yet."""
        return bool(self.fifo or self.pending_reads)

    def tick(self) -> None:
        """One cycle: refresh timer, commands, one transaction, one acceptance."""
        organization = self.config.organization
        if self.cycle > 0 and self.cycle % self.table.refresh_interval == 0:
            self.refreshes.append(self.next_rank)
            self.next_rank = (self.next_rank + 1) % organization.ranks
        self._issue_commands()
        for rank in range(organization.ranks):
            self.active_cycles += any(self.banks[bank].open_row is not None for bank in self._rank_banks(rank))
        self._move_transaction()
        self._accept()
        self.cycle += 1

    def _rank_banks(self, rank: int) -> range:
        per_rank = self.config.organization.banks_per_rank
        return range(rank * per_rank, (rank + 1) * per_rank)

    def _issue_commands(self) -> None:
        frozen: range = range(0)
        if self.refreshes:
            frozen = self._rank_banks(self.refreshes[0])
            if self._serve_refresh(frozen):
                return
        first = self._pick(frozen)
        if first is None:
            return
        self._issue(*first)
        if self.config.controller.dual_command:
            second = self._pick(frozen)
            if second is not None and (second[0] in COLUMN) != (first[0] in COLUMN):
                self._issue(*second)

    def _serve_refresh(self, banks: range) -> bool:
        for bank in banks:
            if self.banks[bank].open_row is not None and self.banks[bank].earliest["precharge"] <= self.cycle:
                self._issue("precharge", bank, None)
                return True
        if all(
            self.banks[bank].open_row is None and self.banks[bank].earliest["refresh"] <= self.cycle for bank in banks
        ):
            self.commands.append(IssuedCommand(self.cycle, "refresh", banks.start, None))
            for bank in banks:
                for name in ("activate", "refresh"):
                    self._delay(bank, name, self.table.refresh_activate)
            self.refreshes.popleft()
            return True
        return False

    def _pick(self, frozen: range) -> tuple[str, int, _Request] | None:
        """First ready command in round-robin order; the pointer moves on even if the command is then not issued."""
        for _ in range(len(self.banks)):
            self.pointer = (self.pointer + 1) % len(self.banks)
            if self.pointer in frozen:
                continue
            found = self._first_ready(self.pointer)
            if found is not None:
                return found[0], self.pointer, found[1]
        return None

    def _first_ready(self, index: int) -> tuple[str, _Request] | None:
        bank = self.banks[index]
        for position, request in enumerate(bank.queue):
            name = request.command
            if bank.open_row is None:
                name = "activate"
            elif bank.open_row != request.row:
                name = "precharge"
            if bank.earliest[name] > self.cycle:
                continue
            if name == "activate":
                window = self.windows[index // self.config.organization.banks_per_rank]
                if len(window) >= 4 and self.cycle < window[0]:
                    continue
            if name == "precharge":
                hits_wait = any(other.row == bank.open_row for other in bank.queue)
                if position > 0 or (hits_wait and bank.hits < self.config.controller.row_hit_cap):
                    continue
            return name, request
        return None

    def _delay(self, bank: int, name: str, cycles: int) -> None:
        earliest = self.banks[bank].earliest
        earliest[name] = max(earliest[name], self.cycle + cycles)

    def _issue(self, name: str, index: int, request: _Request | None) -> None:
        table, organization = self.table, self.config.organization
        bank = self.banks[index]
        closing = self.config.controller.page is PagePolicy.CLOSED and name in COLUMN
        self.commands.append(IssuedCommand(self.cycle, name, index, None if request is None else request.number))
        if name == "activate":
            assert request is not None
            bank.open_row, bank.hits = request.row, 0
            window = self.windows[index // organization.banks_per_rank]
            if window and self.cycle >= window[0]:
                window.pop(0)
            window.append(self.cycle + table.four_activates)
            self._delay(index, "activate", table.activate_activate_same_bank)
            self._delay(index, "read", table.activate_read)
            self._delay(index, "write", table.activate_write)
            self._delay(index, "precharge", table.activate_precharge)
        elif name == "precharge":
            bank.open_row, bank.hits = None, 0
            self._delay(index, "activate", table.precharge_activate)
            self._delay(index, "refresh", table.precharge_refresh)
        else:
            assert request is not None
            bank.queue.remove(request)
            bank.hits += 1
            reading = name == "read"
            if reading:
                for waiting in self.pending_reads.pop(request.line):
                    self.complete[waiting.number] = self.cycle + table.read_done
            else:
                self.pending_writes.remove(request.line)
            if closing:
                bank.open_row, bank.hits = None, 0
                self._delay(index, "activate", table.read_activate if reading else table.write_activate)
                self._delay(index, "refresh", table.read_refresh if reading else table.write_activate)
            else:
                self._delay(index, "precharge", table.read_precharge if reading else table.write_precharge)
        self._delay_others(name, index)

    def _delay_others(self, name: str, index: int) -> None:
        """What a command imposes on the bank groups and ranks of the channel, its own bank included."""
        table, organization = self.table, self.config.organization
        group, rank = index // organization.banks_per_group, index // organization.banks_per_rank
        for other in range(len(self.banks)):
            same_group = other // organization.banks_per_group == group
            same_rank = other // organization.banks_per_rank == rank
            if name == "activate" and same_rank and other != index:
                same, apart = table.activate_activate_same_group, table.activate_activate_other_group
                self._delay(other, "activate", same if same_group else apart)
            elif name == "read" and same_rank:
                self._delay(other, "read", table.read_read_same_group if same_group else table.read_read_other_group)
                self._delay(other, "write", table.read_write_same_rank)
            elif name == "read":
                self._delay(other, "read", table.read_read_other_rank)
                self._delay(other, "write", table.read_write_other_rank)
            elif name == "write" and same_rank:
                self._delay(other, "read", table.write_read_same_group if same_group else table.write_read_other_group)
                self._delay(
                    other, "write", table.write_write_same_group if same_group else table.write_write_other_group
                )
            elif name == "write":
                self._delay(other, "read", table.write_read_other_rank)
                self._delay(other, "write", table.write_write_other_rank)

    def _wants_to_drain(self) -> bool:
        controller = self.config.controller
        idle = not any(bank.queue for bank in self.banks)
        return len(self.writes) >= controller.write_buffer or (
            len(self.writes) > controller.write_drain_threshold and idle
        )

    def _move_transaction(self) -> None:
        if self.draining == 0 and self.yield_to is None and self._wants_to_drain():
            self.draining = len(self.writes)
        source = self.writes if self.draining > 0 else self.reads
        for request in source:
            queue = self.banks[request.bank].queue
            if len(queue) >= self.config.controller.bank_queue:
                continue
            if request.is_write:
                if request.line in self.pending_reads:
                    self.draining = 0
                    if self._wants_to_drain() and not any(bank.queue for bank in self.banks):
                        self.yield_to = request.line
                    return
                self.draining -= 1
            elif request.line == self.yield_to:
                self.yield_to = None
            queue.append(request)
            source.remove(request)
            return

    def _accept(self) -> None:
        if not self.fifo or self.fifo[0].arrival > self.cycle:
            return
        request, controller = self.fifo[0], self.config.controller
        if request.is_write:
            if len(self.writes) >= controller.write_buffer:
                return
            if request.line not in self.pending_writes:
                self.pending_writes.add(request.line)
                self.writes.append(request)
            self.complete[request.number] = self.cycle + 2
        else:
            if len(self.reads) >= controller.read_queue:
                return
            if request.line in self.pending_writes:
                self.complete[request.number] = self.cycle + 2
            elif request.line in self.pending_reads:
                self.pending_reads[request.line].append(request)
            else:
                self.pending_reads[request.line] = [request]
                self.reads.append(request)
        self.accept[request.number] = self.cycle
        self.fifo.popleft()


@dataclass(frozen=True)
class ReferenceResult:
    """What the reference answers; cycles as in `topsieve_sim.dram.DramResult`."""

    accept_cycles: Int64
    complete_cycles: Int64
    cycles: int
    commands: list[list[IssuedCommand]]
    active_cycles: int


def reference_requests(
    config: DramConfig, addresses: ArrayLike, is_write: ArrayLike, arrival_cycles: ArrayLike
) -> ReferenceResult:
    """Simulate a trace in `fifo` mode, every channel through every cycle up to the last completion of all."""
    address = checked_addresses(config, addresses)
    location = decode(config, address)
    bank = bank_index(config, location)
    line = address // config.organization.access_bytes
    channels = [ReferenceChannel(config) for _ in range(config.organization.channels)]
    for number in range(address.size):
        channels[int(location.channel[number])].fifo.append(
            _Request(
                number=number,
                line=int(line[number]),
                bank=int(bank[number]),
                row=int(location.row[number]),
                is_write=bool(np.asarray(is_write)[number]),
                arrival=int(np.asarray(arrival_cycles)[number]),
            )
        )
    for channel in channels:
        while channel.busy:
            channel.tick()
    accept = {number: cycle for channel in channels for number, cycle in channel.accept.items()}
    complete = {number: cycle for channel in channels for number, cycle in channel.complete.items()}
    cycles = max(complete.values(), default=-1) + 1
    for channel in channels:
        while channel.cycle < cycles:
            channel.tick()
    return ReferenceResult(
        accept_cycles=np.array([accept[number] for number in range(address.size)], np.int64),
        complete_cycles=np.array([complete[number] for number in range(address.size)], np.int64),
        cycles=cycles,
        commands=[channel.commands for channel in channels],
        active_cycles=sum(channel.active_cycles for channel in channels),
    )
