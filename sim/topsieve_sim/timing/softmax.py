"""Beat times of the softmax unit alone; the same recurrences as in the attention unit."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.golden.attention_latency import AttentionLatencies
from topsieve_sim.timing.pipeline import next_ready


@njit(cache=True)
def softmax_times(
    machine: AttentionLatencies,
    arrival: NDArray[np.int64],
    row_beats: NDArray[np.int64],
    dropped: NDArray[np.bool_],
    ready: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cycles at which each score beat enters, each probability beat leaves, and each row is decided.

    Parameters
    ----------
    arrival : int64 [beats], cycle from which the source offers beat i.
    row_beats : int64 [rows], beats of each row; they sum to `beats`.
    dropped : bool [rows], rows whose probabilities never leave.
    ready : bool [cycles], the sink's pattern.

    Returns
    -------
    entered int64 [beats], left int64 [beats of rows not dropped], decided int64 [rows].
    """
    rows = row_beats.size
    entered = np.empty(arrival.size, np.int64)
    left = np.empty(arrival.size, np.int64)
    decided = np.empty(rows, np.int64)
    read = np.empty(arrival.size, np.int64)
    freed = np.empty(arrival.size, np.int64)
    read_end = np.empty(rows, np.int64)
    freed_end = np.empty(rows, np.int64)
    outputs = 0
    beat = 0
    normalise_last = -1
    for row in range(rows):
        first = beat
        for i in range(row_beats[row]):
            fill = max(arrival[beat], entered[beat - 1] + 1) if beat > 0 else arrival[beat]
            if beat >= machine.score_beats:
                fill = max(fill, read[beat - machine.score_beats] + 1)
            if i == 0 and row >= machine.row_slots:
                fill = max(fill, read_end[row - machine.row_slots] + 1)
            entered[beat] = fill
            beat += 1
        earliest = entered[beat - 1] + machine.softmax_fill
        if row > 0:
            earliest = max(earliest, read_end[row - 1] + 1)
        if row >= machine.row_slots:
            earliest = max(earliest, freed_end[row - machine.row_slots] + 1)
        for k in range(first, beat):
            if k >= machine.exponential_beats:
                earliest = max(earliest, freed[k - machine.exponential_beats] + 1)
            read[k] = earliest
            earliest += 1
        read_end[row] = read[beat - 1]
        decided[row] = read_end[row] + machine.exponential + machine.reciprocal
        earliest = max(decided[row], normalise_last + 1)
        if dropped[row]:
            normalise_last = earliest
            freed[first:beat] = earliest
        else:
            for k in range(first, beat):
                if outputs >= machine.normalise_depth:
                    earliest = max(earliest, left[outputs - machine.normalise_depth] + 1)
                freed[k] = earliest
                normalise_last = earliest
                end = earliest + machine.normalise
                if outputs > 0:
                    end = max(end, left[outputs - 1] + 1)
                left[outputs] = next_ready(ready, end)
                outputs += 1
                earliest += 1
        freed_end[row] = normalise_last
    return entered, left[:outputs], decided
