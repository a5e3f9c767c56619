"""`DramSimulator`: the memory in closed loop. Submit requests, advance to a cycle, collect completions."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topsieve_sim.dram import dramsim3, ramulator
from topsieve_sim.dram.address import bank_index, checked_addresses, decode
from topsieve_sim.dram.config import DramConfig, Policy
from topsieve_sim.dram.energy import DramEnergy, dram_energy
from topsieve_sim.dram.requests import (
    NEVER,
    NONE,
    REFRESH,
    CommandLog,
    Int64,
    Requests,
    empty_log,
    empty_requests,
)
from topsieve_sim.dram.result import CommandStream, DramCounters
from topsieve_sim.errors import InputError

_POLICIES: dict[Policy, ModuleType] = {Policy.DRAMSIM3: dramsim3, Policy.RAMULATOR: ramulator}
_FIRST_LOG_ROWS = 1024


class DramSimulator:
    """A memory system that keeps its state between calls.

    Requests get consecutive numbers in order of submission. Each channel accepts its requests in that order, at most one
    per cycle. Writes are posted: they complete when acknowledged, and a few may stay buffered for good.

    Parameters
    ----------
    config : the memory.
    record_commands : keep every issued command for `command_stream`.
    """

    def __init__(self, config: DramConfig, *, record_commands: bool = False) -> None:
        self.config = config
        self._policy: Any = _POLICIES[config.controller.policy]
        self._machine = self._policy.machine(config)
        self._state = self._policy.fresh_channels(config)
        channels = config.organization.channels
        self._tail = np.full(channels, NONE, np.int64)
        self._requests = empty_requests(0)
        self._addresses = np.zeros(0, np.int64)
        self._row_of = np.zeros(0, np.int64)
        self._number_of = np.zeros(0, np.int64)
        self._size = 0
        self._open = np.zeros(0, np.int64)
        self._cycle = 0
        self._logs = [empty_log(_FIRST_LOG_ROWS if record_commands else 0) for _ in range(channels)]

    @property
    def cycle(self) -> int:
        """First cycle that has not been simulated."""
        return self._cycle

    @property
    def submitted(self) -> int:
        """Requests submitted so far; the next one gets this number."""
        return self._size

    def submit(self, addresses: ArrayLike, is_write: ArrayLike = False, arrival_cycles: ArrayLike = 0) -> range:
        """Append requests of one access each; returns their numbers.

        Parameters
        ----------
        addresses : int [n], byte addresses; each request covers the access that holds its address.
        is_write : bool [n] or one bool for all.
        arrival_cycles : int [n] or one int, cycle from which a request may be accepted; what lies before `cycle` counts
            as `cycle`.

        Raises
        ------
        InputError
            an address outside the memory, a shape that does not fit, a negative cycle.
        """
        rows, channel = self._append(addresses, is_write, arrival_cycles)
        if rows.size:
            following = self._requests.next_in_channel
            same = channel[1:] == channel[:-1]
            following[rows[:-1][same]] = rows[1:][same]
            firsts = np.flatnonzero(np.concatenate(([True], ~same)))
            lasts = np.flatnonzero(np.concatenate((~same, [True])))
            heads = self._state.scalars[:, self._policy.FIFO_HEAD]
            for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
                c = int(channel[first])
                if heads[c] == NONE:
                    heads[c] = rows[first]
                else:
                    following[self._tail[c]] = rows[first]
                self._tail[c] = rows[last]
            self._open = np.concatenate((self._open, rows))
        return range(self._size - rows.size, self._size)

    def submit_in_order(
        self, addresses: ArrayLike, is_write: ArrayLike = False, arrival_cycles: ArrayLike = 0
    ) -> range:
        """As `submit`, through one queue for all channels: one request per cycle, a blocked one holds up all behind it.

        Simulates up to the acceptance of the last request; the channels may differ in how far they have come until the
        next `advance`. Must not be mixed with requests of `submit` that still wait.
        """
        waiting = np.flatnonzero(self._state.scalars[:, self._policy.FIFO_HEAD] != NONE)
        if waiting.size:
            raise InputError("requests still wait to be accepted", field="submit_in_order", value=int(waiting[0]))
        rows, channel = self._append(addresses, is_write, arrival_cycles)
        channel_of = np.empty_like(channel)
        first = self._size - rows.size
        channel_of[self._number_of[rows] - first] = channel
        heads = self._state.scalars[:, self._policy.FIFO_HEAD]
        table = self._requests
        accepted = self._cycle - 1
        for c, row in zip(channel_of.tolist(), self._row_of[first : self._size].tolist(), strict=True):
            table.arrival[row] = max(int(table.arrival[row]), accepted + 1)
            heads[c] = row
            self._run(c, NEVER, stop_when_accepted=True)
            accepted = int(table.accept[row])
        self._open = np.concatenate((self._open, rows))
        return range(first, self._size)

    def advance(self, to_cycle: int) -> None:
        """Simulate every cycle before `to_cycle`."""
        if to_cycle > self._cycle:
            for c in range(self.config.organization.channels):
                self._run(c, to_cycle)
            self._cycle = to_cycle

    def finish(self) -> int:
        """Advance through the cycle of the last completion of everything submitted; returns the cycle after it."""
        for c in range(self.config.organization.channels):
            if self._state.scalars[c, self._policy.FIFO_HEAD] != NONE or self._state.scalars[c, self._policy.READS_OPEN]:
                self._run(c, NEVER, stop_when_done=True)
        if self._open.size:
            self.advance(int(self._requests.complete[self._open].max()) + 1)
        return self._cycle

    def completions(self) -> tuple[Int64, Int64]:
        """Requests completed before `cycle` and not yet reported: numbers and completion cycles, by cycle then number."""
        cycles = self._requests.complete[self._open]
        done = (cycles != NONE) & (cycles < self._cycle)
        numbers, cycles = self._number_of[self._open[done]], cycles[done]
        self._open = self._open[~done]
        order = np.lexsort((numbers, cycles))
        return numbers[order], cycles[order]

    def accept_cycles(self, numbers: range | slice | Int64 = slice(None)) -> Int64:
        """Cycle of acceptance per request number, -1 for those that still wait."""
        return self._column(self._requests.accept, numbers)

    def complete_cycles(self, numbers: range | slice | Int64 = slice(None)) -> Int64:
        """Cycle of completion per request number, -1 where it is not known yet."""
        return self._column(self._requests.complete, numbers)

    def counters(self) -> DramCounters:
        """Events of all cycles before `cycle`, summed over the channels."""
        totals = self._state.counters.sum(axis=0).tolist()
        opened = self._state.open_count > 0
        active = int(totals[self._policy.ACTIVE_CYCLES] + (self._cycle - self._state.open_since[opened]).sum())
        return self._policy.counters(totals, active, self._state.open_count.size * self._cycle - active)

    def energy(self) -> DramEnergy:
        """Energy of all cycles before `cycle`."""
        counted = self.counters()
        return dram_energy(
            self.config,
            activates=counted.activates,
            read_commands=counted.read_commands,
            write_commands=counted.write_commands,
            refreshes=counted.refreshes,
            active_cycles=counted.active_cycles,
            idle_cycles=counted.idle_cycles,
        )

    def command_stream(self) -> CommandStream:
        """Every command issued before `cycle`.

        Raises
        ------
        InputError
            the simulator was built without `record_commands`.
        """
        if self._logs[0].cycle.size == 0:
            raise InputError("commands were not recorded", field="record_commands", value=False, allowed="True")
        return _merged(self.config, self._logs, self._requests, self._addresses)

    def _append(self, addresses: ArrayLike, is_write: ArrayLike, arrival_cycles: ArrayLike) -> tuple[Int64, Int64]:
        """Fill table rows grouped by channel (locality); returns the rows and their channels."""
        address = checked_addresses(self.config, addresses)
        count = address.size
        write = _spread("is_write", is_write, count).astype(np.uint8)
        arrival = _spread("arrival_cycles", arrival_cycles, count).astype(np.int64)
        if count and int(arrival.min()) < 0:
            raise InputError("must not be negative", field="arrival_cycles", value=int(arrival.min()), allowed=">= 0")
        location = decode(self.config, address)
        self._reserve(self._size + count)
        rows = slice(self._size, self._size + count)
        order = np.argsort(location.channel.astype(np.uint16), kind="stable")
        table = self._requests
        table.line[rows] = (address // self.config.organization.access_bytes)[order]
        table.bank[rows] = bank_index(self.config, location)[order]
        table.row[rows] = location.row[order]
        table.is_write[rows] = write[order]
        table.arrival[rows] = np.maximum(arrival, self._cycle)[order]
        self._addresses[rows] = address[order]
        self._number_of[rows] = order + self._size
        self._row_of[order + self._size] = np.arange(rows.start, rows.stop)
        self._size += count
        return np.arange(rows.start, rows.stop), location.channel[order]

    def _reserve(self, rows: int) -> None:
        """Make the table at least `rows` long, doubling it."""
        if rows <= self._addresses.size:
            return
        target = max(rows, 2 * self._addresses.size)
        grown = empty_requests(target)
        for old, new in zip(self._requests, grown, strict=True):
            new[: self._size] = old[: self._size]
        self._requests = grown
        for name in ("_addresses", "_row_of", "_number_of"):
            longer = np.zeros(target, np.int64)
            longer[: self._size] = getattr(self, name)[: self._size]
            setattr(self, name, longer)

    def _column(self, values: Int64, numbers: range | slice | Int64) -> Int64:
        index: slice | Int64 = slice(numbers.start, numbers.stop) if isinstance(numbers, range) else numbers
        result: Int64 = values[self._row_of[: self._size][index]]
        return result

    def _run(
        self, c: int, until_cycle: int, *, stop_when_accepted: bool = False, stop_when_done: bool = False
    ) -> None:
        while not self._policy.advance(
            c, until_cycle, stop_when_accepted, stop_when_done, self._machine, self._state, self._requests, self._logs[c]
        ):
            grown = empty_log(2 * self._logs[c].cycle.size)
            used = int(self._logs[c].used[0])
            for old, new in zip(self._logs[c], grown, strict=True):
                new[:used] = old[:used]
            grown.used[0] = used
            self._logs[c] = grown


def _spread(field: str, values: ArrayLike, count: int) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "iub":
        raise InputError("must hold integers or booleans", field=field, value=str(array.dtype))
    if array.ndim and array.shape != (count,):
        raise InputError("needs one value per address", field=field, value=array.shape, allowed=f"({count},)")
    return np.broadcast_to(array, (count,))


def _merged(config: DramConfig, logs: list[CommandLog], requests: Requests, addresses: Int64) -> CommandStream:
    """One stream of all channels, in order of cycle and channel; same-cycle commands keep their order of issue."""
    used = [int(log.used[0]) for log in logs]
    channel = np.repeat(np.arange(len(logs)), used)

    def joined(column: str) -> Int64:
        return np.concatenate([getattr(log, column)[:n] for log, n in zip(logs, used, strict=True)]).astype(np.int64)

    cycle, kind, bank, request = (joined(column) for column in ("cycle", "kind", "bank", "request"))
    order = np.lexsort((channel, cycle))
    cycle, kind, bank, request, channel = cycle[order], kind[order], bank[order], request[order], channel[order]
    organization = config.organization
    whole_rank = kind == REFRESH
    group = bank // organization.banks_per_group
    rank = group // organization.bank_groups
    served = request >= 0
    column = decode(config, addresses[np.where(served, request, 0)]).column

    def field(values: Int64, applies: NDArray[np.bool_]) -> NDArray[np.int32]:
        return np.where(applies, values, NONE).astype(np.int32)

    return CommandStream(
        cycle=cycle,
        kind=kind.astype(np.int32),
        channel=channel.astype(np.int32),
        pseudo_channel=(rank // organization.ranks).astype(np.int32),
        rank=(rank % organization.ranks).astype(np.int32),
        bank_group=field(group % organization.bank_groups, ~whole_rank),
        bank=field(bank % organization.banks_per_group, ~whole_rank),
        row=field(requests.row[np.where(served, request, 0)].astype(np.int64), served),
        column=field(column, served),
    )
