"""`DramSimulator`: the memory in closed loop. Submit requests, advance to a cycle, collect completions."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topsieve_sim.dram import dramsim3, ramulator
from topsieve_sim.dram.address import checked_addresses, decode
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
from topsieve_sim.dram.submit import empty_numbering, field_bits, fill_rows, link_rows
from topsieve_sim.errors import InputError

POLICIES: dict[Policy, ModuleType] = {Policy.DRAMSIM3: dramsim3, Policy.RAMULATOR: ramulator}
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
        self._policy: Any = POLICIES[config.controller.policy]
        self._machine = self._policy.machine(config)
        self._state = self._policy.fresh_channels(config)
        channels = config.organization.channels
        self._bits = field_bits(config)
        self._tails = np.full(channels, NONE, np.int64)
        self._requests = empty_requests(0)
        self._numbering = empty_numbering(0)
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
        first, channel_of = self._append(addresses, is_write, arrival_cycles)
        heads = self._state.scalars[:, self._policy.FIFO_HEAD]
        link_rows(first, channel_of, self._numbering, self._requests, heads, self._tails)
        return range(first, self._size)

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
        first, channel_of = self._append(addresses, is_write, arrival_cycles)
        heads = self._state.scalars[:, self._policy.FIFO_HEAD]
        table = self._requests
        accepted = self._cycle - 1
        rows = self._numbering.row_of[first : self._size]
        for c, row in zip(channel_of.tolist(), rows.tolist(), strict=True):
            table.arrival[row] = max(int(table.arrival[row]), accepted + 1)
            heads[c] = row
            self._run(c, NEVER, stop_when_accepted=True)
            accepted = int(table.accept[row])
        return range(first, self._size)

    def advance(self, to_cycle: int) -> None:
        """Simulate every cycle before `to_cycle`."""
        if to_cycle <= self._cycle:
            return
        if self._logs[0].cycle.size:
            for c in range(self.config.organization.channels):
                self._run(c, to_cycle)
        else:
            self._policy.advance_all(to_cycle, self._machine, self._state, self._requests, self._logs[0])
        self._cycle = to_cycle

    def finish(self) -> int:
        """Advance through the cycle of the last completion of everything submitted; returns the cycle after it."""
        scalars = self._state.scalars
        for c in range(self.config.organization.channels):
            if scalars[c, self._policy.FIFO_HEAD] != NONE or scalars[c, self._policy.READS_OPEN]:
                self._run(c, NEVER, stop_when_done=True)
        if self._open.size:
            self.advance(int(self._requests.complete[self._open].max()) + 1)
        return self._cycle

    def completions(self) -> tuple[Int64, Int64]:
        """Requests completed before `cycle` and not yet reported: numbers and completion cycles, by cycle then number."""
        cycles = self._requests.complete[self._open]
        done = (cycles != NONE) & (cycles < self._cycle)
        numbers, cycles = self._numbering.number_of[self._open[done]], cycles[done]
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
        return summed_counters(self._policy, self._state, self._cycle)

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
        return _merged(self.config, self._logs, self._requests, self._numbering.address)

    def _append(self, addresses: ArrayLike, is_write: ArrayLike, arrival_cycles: ArrayLike) -> tuple[int, Int64]:
        """Fill table rows; returns the first row and the channel of each request."""
        address = checked_addresses(self.config, addresses)
        count = address.size
        write = spread("is_write", is_write, count, np.uint8)
        arrival = spread("arrival_cycles", arrival_cycles, count, np.int64)
        if count and int(arrival.min()) < 0:
            raise InputError("must not be negative", field="arrival_cycles", value=int(arrival.min()), allowed=">= 0")
        first = self._size
        self._reserve(first + count)
        channel_of: Int64 = fill_rows(
            first,
            address,
            write,
            arrival,
            self._cycle,
            self._bits,
            self.config.organization.channels,
            self._requests,
            self._numbering,
        )
        self._size += count
        self._open = np.concatenate((self._open, np.arange(first, self._size)))
        return first, channel_of

    def _reserve(self, rows: int) -> None:
        """Make the table at least `rows` long, doubling it."""
        if rows <= self._numbering.address.size:
            return
        target = max(rows, 2 * self._numbering.address.size)
        requests, numbering = empty_requests(target), empty_numbering(target)
        _copy_rows((*self._requests, *self._numbering), (*requests, *numbering), self._size)
        self._requests, self._numbering = requests, numbering

    def _column(self, values: Int64, numbers: range | slice | Int64) -> Int64:
        index: slice | Int64 = slice(numbers.start, numbers.stop) if isinstance(numbers, range) else numbers
        result: Int64 = values[self._numbering.row_of[: self._size][index]]
        return result

    def _run(self, c: int, until_cycle: int, *, stop_when_accepted: bool = False, stop_when_done: bool = False) -> None:
        while not self._policy.advance(
            c,
            until_cycle,
            stop_when_accepted,
            stop_when_done,
            self._machine,
            self._state,
            self._requests,
            self._logs[c],
        ):
            grown = empty_log(2 * self._logs[c].cycle.size)
            used = int(self._logs[c].used[0])
            _copy_rows(self._logs[c][:-1], grown[:-1], used)
            grown.used[0] = used
            self._logs[c] = grown


def summed_counters(policy: Any, state: Any, cycle: int) -> DramCounters:
    """Events of all channels of a policy's `state`, all simulated up to `cycle`."""
    totals = state.counters.sum(axis=0).tolist()
    open_count, open_since = policy.open_ranks(state)
    active = int(totals[policy.ACTIVE_CYCLES] + (cycle - open_since[open_count > 0]).sum())
    result: DramCounters = policy.counters(totals, active, open_count.size * cycle - active)
    return result


def _copy_rows(old: tuple[NDArray[Any], ...], new: tuple[NDArray[Any], ...], rows: int) -> None:
    for source, target in zip(old, new, strict=True):
        target[:rows] = source[:rows]


def spread(field: str, values: ArrayLike, count: int, dtype: type[np.generic]) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "iub":
        raise InputError("must hold integers or booleans", field=field, value=str(array.dtype))
    if array.ndim and array.shape != (count,):
        raise InputError("needs one value per address", field=field, value=array.shape, allowed=f"({count},)")
    # Contiguous, so that the kernels keep one signature.
    return np.ascontiguousarray(np.broadcast_to(array, (count,)), dtype=dtype)


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
