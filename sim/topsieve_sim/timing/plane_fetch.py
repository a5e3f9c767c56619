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
    FetchPlan,
    PlaneFetchShape,
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
    return PlaneFetchTimes(
        *_times(
            plan,
            command_arrival,
            index_arrival,
            memory,
            ready,
            shape.buffer_words,
            shape.max_outstanding,
            shape.unpack_bits,
        )
    )


# Places in the running state of the unpacker.
_BEATS, _COMMAND, _BEATS_LEFT, _JOB, _REMOVED, _ENOUGH = range(6)


@njit(cache=True)
def _emit(
    plan: FetchPlan,
    state: NDArray[np.int64],
    load: NDArray[np.int64],
    job: NDArray[np.int64],
    supplied: NDArray[np.int64],
    appended: NDArray[np.int64],
    emitted: NDArray[np.int64],
    left: NDArray[np.int64],
    ready: NDArray[np.bool_],
) -> None:
    """The cycles in which the next output beat enters the output FIFO and leaves it."""
    k = state[_BEATS]
    previous = emitted[k - 1] if k > 0 else -1
    if state[_BEATS_LEFT] == 0:
        command = state[_COMMAND]
        job[command] = max(load[command], previous) + 1
        state[_JOB] = job[command]
        state[_BEATS_LEFT] = plan.command_beats[command]
        state[_COMMAND] += 1
    cycle = max(state[_JOB] + 1, previous + 1)
    need = plan.beat_bits[k]
    state[_REMOVED] += need
    if need > 0:
        while supplied[state[_ENOUGH]] < state[_REMOVED]:
            state[_ENOUGH] += 1
        cycle = max(cycle, appended[state[_ENOUGH]] + 1)
    if k >= OUTPUT_SLOTS:
        cycle = max(cycle, left[k - OUTPUT_SLOTS] + 1)
    leaves = cycle + 1
    if k > 0:
        leaves = max(leaves, left[k - 1] + 1)
    left[k] = next_ready(ready, leaves)
    state[_BEATS] += 1
    state[_BEATS_LEFT] -= 1
    emitted[k] = cycle


@njit(cache=True)
def _times(
    plan: FetchPlan,
    command_arrival: NDArray[np.int64],
    index_arrival: NDArray[np.int64],
    memory: tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]],
    ready: NDArray[np.bool_],
    buffer_words: int,
    max_outstanding: int,
    unpack_bits: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    commands = plan.command_rows.size
    words = plan.word_bytes.size
    address_ready, delay, gap = memory
    command = np.empty(commands, np.int64)
    load = np.empty(commands, np.int64)
    job = np.empty(commands, np.int64)
    index = np.empty(index_arrival.size, np.int64)
    index_taken = np.empty(index_arrival.size, np.int64)
    address = np.empty(plan.burst_words.size, np.int64)
    answered = np.empty(plan.burst_words.size, np.int64)
    data = np.empty(words, np.int64)
    aligned = np.empty(words, np.int64)
    appended = np.empty(words, np.int64)
    supplied = np.empty(words, np.int64)
    emitted = np.empty(plan.beat_bits.size, np.int64)
    left = np.empty(plan.beat_bits.size, np.int64)
    state = np.zeros(6, np.int64)
    # Beats that have left, and their bits, when the present word is appended.
    gone, gone_bits = 0, 0

    row, run, burst, word, used = 0, 0, 0, 0, 0
    step, place, taken, leave, issue = -1, -1, -1, -1, -1
    for c in range(commands):
        cycle = command_arrival[c]
        if c > 0:
            cycle = max(cycle, command[c - 1] + 1)
        if c >= COMMAND_SLOTS:
            cycle = max(cycle, load[c - COMMAND_SLOTS] + 1)
        command[c] = cycle
        cycle = max(cycle + 1, step + 1)
        if c > 0:
            cycle = max(cycle, load[c - 1] + 1)
        if c >= JOB_SLOTS:
            cycle = max(cycle, job[c - JOB_SLOTS] + 1)
        load[c] = cycle
        for i in range(plan.command_rows[c]):
            step = max(load[c] + 1, step + 1, place)
            if plan.command_gather[c]:
                cycle = index_arrival[used]
                if used > 0:
                    cycle = max(cycle, index[used - 1] + 1)
                if used >= INDEX_SLOTS:
                    cycle = max(cycle, index_taken[used - INDEX_SLOTS] + 1)
                index[used] = cycle
                step = max(step, cycle + 1)
                index_taken[used] = step
                used += 1
            place = max(step + 1, taken)
            taken = place + 1
            # A row can end the run before it, then its own.
            for closing in range(2):
                if closing == 0:
                    ends = plan.row_starts[row] and i > 0 and not plan.row_closes[row - 1]
                    cycle = place + 1
                else:
                    if plan.row_starts[row]:
                        taken = max(taken, leave)
                    ends = plan.row_closes[row]
                    cycle = taken + 1
                if not ends:
                    continue
                leave = max(cycle, issue)
                issue = leave
                for _ in range(plan.run_bursts[run]):
                    length = plan.burst_words[burst]
                    issue += 1
                    if burst > 0:
                        issue = max(issue, address[burst - 1])
                    if word + length > buffer_words:
                        issue = max(issue, aligned[word + length - 1 - buffer_words] + 1)
                    if burst >= max_outstanding:
                        issue = max(issue, answered[burst - max_outstanding] + 1)
                    address[burst] = next_ready(address_ready, issue + 1)
                    for n in range(length):
                        cycle = 0
                        if n == 0:
                            cycle = address[burst] + 1 + delay[burst]
                        bits = plan.word_bytes[word] * 8
                        if word > 0:
                            cycle = max(cycle, data[word - 1] + 1 + gap[word])
                            aligned[word] = max(cycle + 1, aligned[word - 1] + 1, appended[word - 1])
                            supplied[word] = supplied[word - 1] + bits
                            appended[word] = max(aligned[word] + 1, appended[word - 1] + 1)
                        else:
                            aligned[word] = cycle + 1
                            supplied[word] = bits
                            appended[word] = cycle + 2
                        data[word] = cycle
                        while supplied[word] - gone_bits > unpack_bits:
                            if gone == state[_BEATS]:
                                _emit(plan, state, load, job, supplied, appended, emitted, left, ready)
                            appended[word] = max(appended[word], emitted[gone])
                            gone_bits += plan.beat_bits[gone]
                            gone += 1
                        word += 1
                    answered[burst] = data[word - 1]
                    burst += 1
                run += 1
            row += 1
        while state[_COMMAND] <= c or state[_BEATS_LEFT] > 0:
            _emit(plan, state, load, job, supplied, appended, emitted, left, ready)
    return command, index, address, data, left
