"""Beat times of the plane fetcher: rows to runs, runs to bursts, words to output beats.

Rows i, runs j, bursts b, words w, output beats k and commands c are counted over all commands. D, M, J, O are
`buffer_words`, `max_outstanding`, `JOB_SLOTS` and `OUTPUT_SLOTS`; end(b) is the number of words up to burst b's last.

    command[c] = max(arrival, command[c-1] + 1, load[c-COMMAND_SLOTS] + 1)
    load[c]    = max(command[c] + 1, load[c-1] + 1, step[last row of c-1] + 1, job[c-J] + 1)
    index[x]   = max(arrival, index[x-1] + 1, step[row of x-INDEX_SLOTS] + 1)
    step[i]    = max(load[c] + 1, step[i-1] + 1, place[i-1], index[x] + 1 for a gather)        row x stride
    place[i]   = max(step[i] + 1, taken[i-1])                                                  + base
    taken[i]   = place[i] + 1, and >= leave[j-1] for the first row of run j
    leave[j]   = max(issue[last burst of j-1], taken[closing row] + 1 or place[next run's first row] + 1)
    issue[b]   = max(leave[j] + 1, issue[b-1] + 1, address[b-1], aligned[end(b)-1-D] + 1, data[last word of b-M] + 1)
    address[b] = first ready cycle >= issue[b] + 1
    data[w]    = max(data[w-1] + 1 + gap[w], address[b] + 1 + delay[b] for a burst's first word)
    aligned[w] = max(data[w] + 1, aligned[w-1] + 1, appended[w-1])
    appended[w]= max(aligned[w] + 1, appended[w-1] + 1, emitted[first k that leaves room])
    job[c]     = max(load[c] + 1, emitted[last beat of c-1] + 1)
    emitted[k] = max(job[c] + 1, emitted[k-1] + 1, appended[word with its last bit] + 1, left[k-O] + 1)
    left[k]    = first ready cycle >= max(emitted[k] + 1, left[k-1] + 1)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.golden.plane_fetch import (
    COMMAND_SLOTS,
    INDEX_SLOTS,
    JOB_SLOTS,
    OUTPUT_SLOTS,
    FetchNumbers,
    FetchPlan,
    PlaneFetchShape,
    fetch_numbers,
)
from topsieve_sim.timing.pipeline import next_ready


class PlaneFetchTimes(NamedTuple):
    """Cycle of every beat on every port."""

    command: NDArray[np.int64]
    """[commands]"""
    indices: NDArray[np.int64]
    """[indices]"""
    address: NDArray[np.int64]
    """[bursts], the AR handshake."""
    data: NDArray[np.int64]
    """[words], the R handshake; the unit takes every word in the cycle in which it is offered."""
    left: NDArray[np.int64]
    """[output beats]"""


class MemoryTimes(NamedTuple):
    """How a memory answers; it answers in order."""

    ready: NDArray[np.bool_]
    """[cycles], takes an address; always beyond the pattern's end."""
    delay: NDArray[np.int64]
    """[bursts], extra cycles between a burst's address and its first word, at least 0."""
    gap: NDArray[np.int64]
    """[words], extra cycles between the word before and this one, at least 0."""


def plane_fetch_times(
    shape: PlaneFetchShape,
    plan: FetchPlan,
    command_arrival: NDArray[np.int64],
    index_arrival: NDArray[np.int64],
    memory: MemoryTimes,
    ready: NDArray[np.bool_],
) -> PlaneFetchTimes:
    """Cycles of everything in `plan`.

    Parameters
    ----------
    command_arrival : int64 [commands], cycle from which the source offers each command.
    index_arrival : int64 [indices], the same of the index stream.
    memory : the memory's behaviour.
    ready : bool [cycles], the output's pattern; always ready beyond its end.
    """
    return PlaneFetchTimes(*_times(fetch_numbers(shape), plan, command_arrival, index_arrival, memory, ready))


class FetchState(NamedTuple):
    """What a fetcher has done so far: the events of the recurrences by their index, and the running numbers `at`."""

    command: NDArray[np.int64]
    load: NDArray[np.int64]
    job: NDArray[np.int64]
    indices: NDArray[np.int64]
    index_taken: NDArray[np.int64]
    issued: NDArray[np.int64]
    address: NDArray[np.int64]
    answered: NDArray[np.int64]
    data: NDArray[np.int64]
    aligned: NDArray[np.int64]
    appended: NDArray[np.int64]
    supplied: NDArray[np.int64]
    emitted: NDArray[np.int64]
    left: NDArray[np.int64]
    at: NDArray[np.int64]


# Places in `FetchState.at`: next command, row, run, burst, word and index; the last events of the walker; beats that have
# left, and their bits, when the present word is appended; the unpacker; the word on R before the first one.
(
    _COMMANDS,
    _ROW,
    _RUN,
    BURSTS,
    WORDS,
    _USED,
    _STEP,
    _PLACE,
    _TAKEN,
    _LEAVE,
    _ISSUE,
    _GONE,
    _GONE_BITS,
    _BEATS,
    _UNPACKED,
    _BEATS_LEFT,
    _JOB,
    _REMOVED,
    _ENOUGH,
    BEFORE,
) = range(20)
_LONG_AGO = -(1 << 40)


@njit(cache=True)
def fetch_state(commands: int, indices: int, words: int, beats: int) -> FetchState:
    """An empty fetcher with room for the events of so many commands; bursts are never more than words."""
    at = np.zeros(20, np.int64)
    at[_STEP : _ISSUE + 1] = -1
    at[BEFORE] = _LONG_AGO
    return FetchState(
        np.empty(commands, np.int64),
        np.empty(commands, np.int64),
        np.empty(commands, np.int64),
        np.empty(indices, np.int64),
        np.empty(indices, np.int64),
        np.empty(words, np.int64),
        np.empty(words, np.int64),
        np.empty(words, np.int64),
        np.empty(words, np.int64),
        np.empty(words, np.int64),
        np.empty(words, np.int64),
        np.empty(words, np.int64),
        np.empty(beats, np.int64),
        np.empty(beats, np.int64),
        at,
    )


@njit(cache=True)
def _emit(plan: FetchPlan, state: FetchState, ready: NDArray[np.bool_]) -> None:
    """The cycles in which the next output beat enters the output FIFO and leaves it."""
    at = state.at
    k = at[_BEATS]
    previous = state.emitted[k - 1] if k > 0 else -1
    if at[_BEATS_LEFT] == 0:
        command = at[_UNPACKED]
        state.job[command] = max(state.load[command], previous) + 1
        at[_JOB] = state.job[command]
        at[_BEATS_LEFT] = plan.command_beats[command]
        at[_UNPACKED] += 1
    cycle = max(at[_JOB] + 1, previous + 1)
    need = plan.beat_bits[k]
    at[_REMOVED] += need
    if need > 0:
        while state.supplied[at[_ENOUGH]] < at[_REMOVED]:
            at[_ENOUGH] += 1
        cycle = max(cycle, state.appended[at[_ENOUGH]] + 1)
    if k >= OUTPUT_SLOTS:
        cycle = max(cycle, state.left[k - OUTPUT_SLOTS] + 1)
    leaves = cycle + 1
    if k > 0:
        leaves = max(leaves, state.left[k - 1] + 1)
    state.left[k] = next_ready(ready, leaves)
    at[_BEATS] += 1
    at[_BEATS_LEFT] -= 1
    state.emitted[k] = cycle


@njit(cache=True)
def take_command(state: FetchState, offered: int) -> int:
    """The handshake of the next command, offered from cycle `offered` on; `run_command` must follow."""
    c = state.at[_COMMANDS]
    cycle = offered
    if c > 0:
        cycle = max(cycle, state.command[c - 1] + 1)
    if c >= COMMAND_SLOTS:
        cycle = max(cycle, state.load[c - COMMAND_SLOTS] + 1)
    state.command[c] = cycle
    return int(cycle)


@njit(cache=True)
def run_command(
    numbers: FetchNumbers,
    plan: FetchPlan,
    state: FetchState,
    index_arrival: NDArray[np.int64],
    memory: tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]],
    latency_cycles: int,
    ready: NDArray[np.bool_],
) -> None:
    """All events of the command taken last, which `plan` holds; none of them depends on a later command.

    `index_arrival` is that of the command's own indices. `latency_cycles` is added to every delay; delays and gaps are 0
    beyond the end of their arrays.
    """
    at = state.at
    c = at[_COMMANDS]
    address_ready, delay, gap = memory
    cycle = max(state.command[c] + 1, at[_STEP] + 1)
    if c > 0:
        cycle = max(cycle, state.load[c - 1] + 1)
    if c >= JOB_SLOTS:
        cycle = max(cycle, state.job[c - JOB_SLOTS] + 1)
    state.load[c] = cycle
    for i in range(plan.command_rows[c]):
        row = at[_ROW]
        step = max(state.load[c] + 1, at[_STEP] + 1, at[_PLACE])
        if plan.command_gather[c]:
            used = at[_USED]
            cycle = index_arrival[i]
            if used > 0:
                cycle = max(cycle, state.indices[used - 1] + 1)
            if used >= INDEX_SLOTS:
                cycle = max(cycle, state.index_taken[used - INDEX_SLOTS] + 1)
            state.indices[used] = cycle
            step = max(step, cycle + 1)
            state.index_taken[used] = step
            at[_USED] += 1
        at[_STEP] = step
        at[_PLACE] = max(step + 1, at[_TAKEN])
        at[_TAKEN] = at[_PLACE] + 1
        # A row can end the run before it, then its own.
        if plan.row_starts[row] and i > 0 and not plan.row_closes[row - 1]:
            _leave(numbers, plan, state, at[_PLACE] + 1, address_ready, delay, gap, latency_cycles, ready)
        if plan.row_starts[row]:
            at[_TAKEN] = max(at[_TAKEN], at[_LEAVE])
        if plan.row_closes[row]:
            _leave(numbers, plan, state, at[_TAKEN] + 1, address_ready, delay, gap, latency_cycles, ready)
        at[_ROW] += 1
    while at[_UNPACKED] <= c or at[_BEATS_LEFT] > 0:
        _emit(plan, state, ready)
    at[_COMMANDS] += 1


@njit(cache=True)
def _leave(
    numbers: FetchNumbers,
    plan: FetchPlan,
    state: FetchState,
    closed: int,
    address_ready: NDArray[np.bool_],
    delay: NDArray[np.int64],
    gap: NDArray[np.int64],
    latency_cycles: int,
    ready: NDArray[np.bool_],
) -> None:
    """A run, complete in cycle `closed`, leaves: its bursts and their words up to the unpacker's buffer."""
    at = state.at
    at[_LEAVE] = max(closed, at[_ISSUE])
    at[_ISSUE] = at[_LEAVE]
    for _ in range(plan.run_bursts[at[_RUN]]):
        burst, word = at[BURSTS], at[WORDS]
        length = plan.burst_words[burst]
        issue = at[_ISSUE] + 1
        if burst > 0:
            issue = max(issue, state.address[burst - 1])
        if word + length > numbers.buffer_words:
            issue = max(issue, state.aligned[word + length - 1 - numbers.buffer_words] + 1)
        if burst >= numbers.max_outstanding:
            issue = max(issue, state.answered[burst - numbers.max_outstanding] + 1)
        at[_ISSUE] = issue
        state.issued[burst] = issue
        state.address[burst] = next_ready(address_ready, issue + 1)
        for n in range(length):
            cycle = 0
            if n == 0:
                cycle = state.address[burst] + 1 + latency_cycles
                if burst < delay.size:
                    cycle += delay[burst]
            bits = plan.word_bytes[word] * 8
            previous = state.data[word - 1] if word > 0 else at[BEFORE]
            cycle = max(cycle, previous + 1 + (gap[word] if word < gap.size else 0))
            if word > 0:
                state.aligned[word] = max(cycle + 1, state.aligned[word - 1] + 1, state.appended[word - 1])
                state.supplied[word] = state.supplied[word - 1] + bits
                state.appended[word] = max(state.aligned[word] + 1, state.appended[word - 1] + 1)
            else:
                state.aligned[word] = cycle + 1
                state.supplied[word] = bits
                state.appended[word] = cycle + 2
            state.data[word] = cycle
            while state.supplied[word] - at[_GONE_BITS] > numbers.unpack_bits:
                if at[_GONE] == at[_BEATS]:
                    _emit(plan, state, ready)
                state.appended[word] = max(state.appended[word], state.emitted[at[_GONE]])
                at[_GONE_BITS] += plan.beat_bits[at[_GONE]]
                at[_GONE] += 1
            word += 1
        state.answered[burst] = state.data[word - 1]
        at[BURSTS] += 1
        at[WORDS] = word
    at[_RUN] += 1


@njit(cache=True)
def _times(
    numbers: FetchNumbers,
    plan: FetchPlan,
    command_arrival: NDArray[np.int64],
    index_arrival: NDArray[np.int64],
    memory: tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]],
    ready: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    commands, bursts = plan.command_rows.size, plan.burst_words.size
    state = fetch_state(commands, index_arrival.size, plan.word_bytes.size, plan.beat_bits.size)
    for c in range(commands):
        take_command(state, command_arrival[c])
        run_command(numbers, plan, state, index_arrival[state.at[_USED] :], memory, 0, ready)
    return state.command, state.indices, state.address[:bursts], state.data, state.left
