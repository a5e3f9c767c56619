"""Commands of request ports whose accesses are known: simulated again whenever the cycles at which they are ready change.

A run keeps copies of its state on the way. The next one begins at the last copy that no changed cycle could have touched,
and gives what a run from the beginning would.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from topsieve_sim.dram.address import checked_addresses
from topsieve_sim.dram.config import DramConfig
from topsieve_sim.dram.ports import (
    LEFT,
    PRESENT,
    SEARCH,
    TAIL,
    Ports,
    PortTimes,
    Progress,
    Streams,
    fresh_progress,
    lock_step,
)
from topsieve_sim.dram.requests import NONE, Int64, Requests, empty_log, empty_requests
from topsieve_sim.dram.result import DramCounters
from topsieve_sim.dram.simulator import POLICIES, spread, summed_counters
from topsieve_sim.dram.submit import empty_numbering, field_bits, fill_rows

# Copies that a run adds, evenly over what it runs: later runs mostly begin where the last one was last wrong, so they come
# closer and closer to it.
_COPIES = 3


class _Copy(NamedTuple):
    """All that changes in a run, at the beginning of a core cycle."""

    progress: Progress
    state: Any
    complete: Int64
    next_merged: Int64
    ready: Int64


class PortProgram:
    """Commands of three streams through request ports to a memory that is idle at first.

    Parameters
    ----------
    config : the memory.
    addresses : int [accesses], byte addresses, command by command.
    is_write : bool [accesses] or one bool for all.
    stream : int64 [commands], see `Streams`.
    offset : int64 [commands + 1], into the accesses.
    ports : request ports and clocks.

    Raises
    ------
    InputError
        an address outside the memory.
    """

    def __init__(
        self,
        config: DramConfig,
        addresses: ArrayLike,
        is_write: ArrayLike,
        stream: Int64,
        offset: Int64,
        ports: Ports,
    ) -> None:
        self.stream, self.offset, self.ports = stream, offset, ports
        address = checked_addresses(config, addresses)
        channels = config.organization.channels
        self._policy: Any = POLICIES[config.controller.policy]
        self._kernel = lock_step(config.controller.policy)
        self._machine = self._policy.machine(config)
        self._config = config
        self._filled = empty_requests(address.size)
        numbering = empty_numbering(address.size)
        self._channel_of: Int64 = fill_rows(
            0,
            address,
            spread("is_write", is_write, address.size, np.uint8),
            np.zeros(address.size, np.int64),
            0,
            field_bits(config),
            channels,
            self._filled,
            numbering,
        )
        self._source_of = numbering.row_of
        self._row_of = self._source_of.copy()
        self._rows_before = np.cumsum(np.bincount(self._channel_of, minlength=channels)) - np.bincount(
            self._channel_of, minlength=channels
        )
        self._requests = Requests._make(column.copy() for column in self._filled)
        self._log = empty_log(0)
        self._times = PortTimes(
            free=np.zeros(stream.size, np.int64),
            issued=np.zeros(address.size, np.int64),
            back=np.zeros(address.size, np.int64),
        )
        self._copies: list[_Copy] = []
        self._state: Any = None

    def run(self, ready: Int64) -> PortTimes:
        """Core cycles of everything, for commands that are ready in `ready` (int64 [commands], ascending in each stream).

        The arrays change in the next call.
        """
        while self._copies and not self._begins(self._copies[-1], ready):
            self._copies.pop()
        progress = self._restored()
        streams = Streams(self.stream, ready, self.offset)
        left = int(progress.scalars[LEFT])
        for copy in range(_COPIES, 0, -1):
            if progress.scalars[LEFT] > left * copy // (_COPIES + 1) > 0:
                self._advance(left * copy // (_COPIES + 1), progress, streams)
                self._copies.append(self._copied(progress, ready))
        # A run in which nothing is left has been ended by the kernel, and its state is no place to begin.
        if progress.scalars[LEFT] > 0:
            self._advance(0, progress, streams)
        elif self._copies:
            self._copies.pop()
        return self._times

    def counters(self) -> DramCounters:
        """Events up to the cycle after the last completion of the last run."""
        complete = self._requests.complete
        end = int(complete.max()) + 1 if complete.size else 0
        self._policy.advance_all(end, self._machine, self._state, self._requests, self._log)
        return summed_counters(self._policy, self._state, end)

    def _advance(self, stop_at_left: int, progress: Progress, streams: Streams) -> None:
        self._kernel(
            stop_at_left, progress, self._machine, self._state, self._requests, self._log, self._filled, self._source_of, self._row_of,
            self._channel_of, streams, self.ports, self._times,
        )  # fmt: skip

    def _begins(self, copy: _Copy, ready: Int64) -> bool:
        """Whether nothing before the copy's cycle depends on where `ready` differs from the copy's."""
        begun = np.arange(self.stream.size) < copy.progress.streams[SEARCH][self.stream]
        present = copy.progress.streams[PRESENT]
        begun[present[present != NONE]] = True
        return bool(((ready == copy.ready) | (~begun & (ready >= copy.progress.scalars[0]))).all())

    def _copied(self, progress: Progress, ready: Int64) -> _Copy:
        return _Copy(
            _twin(progress),
            _twin(self._state),
            self._requests.complete.copy(),
            self._requests.next_merged.copy(),
            ready,
        )

    def _restored(self) -> Progress:
        """The last copy, or the beginning, as the present state."""
        if not self._copies:
            self._state = self._policy.fresh_channels(self._config)
            return fresh_progress(self.ports, self.stream.size, self._rows_before)
        copy = self._copies[-1]
        self._state = _twin(copy.state)
        self._requests.complete[:] = copy.complete
        self._requests.next_merged[:] = copy.next_merged
        tails = copy.progress.channels[TAIL]
        self._requests.next_in_channel[tails[tails != NONE]] = NONE
        progress: Progress = _twin(copy.progress)
        return progress


def _twin(arrays: Any) -> Any:
    """A named tuple of copies of the arrays of one."""
    return type(arrays)(*(array.copy() for array in arrays))
