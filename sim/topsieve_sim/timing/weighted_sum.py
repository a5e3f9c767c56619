"""Beat times of the weighted-sum array alone; the same recurrences as in the attention unit."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.golden.attention_latency import AttentionLatencies
from topsieve_sim.timing.pipeline import next_ready


@njit(cache=True)
def weighted_sum_times(
    machine: AttentionLatencies,
    interval: int,
    arrival: NDArray[np.int64],
    row_beats: NDArray[np.int64],
    ready: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cycles at which each probability beat enters and each output row leaves.

    `arrival` int64 [beats], `row_beats` int64 [rows] sums to `beats`, `ready` bool [cycles] is the sink's pattern.
    """
    rows = row_beats.size
    latency = machine.weighted_sum + interval - 1
    entered = np.empty(arrival.size, np.int64)
    left = np.empty(rows, np.int64)
    beat = 0
    for row in range(rows):
        for i in range(row_beats[row]):
            start = arrival[beat]
            if beat > 0:
                start = max(start, entered[beat - 1] + interval)
            if i == 0 and row >= machine.output_rows:
                start = max(start, left[row - machine.output_rows] + 1)
            entered[beat] = start
            beat += 1
        end = entered[beat - 1] + latency
        if row > 0:
            end = max(end, left[row - 1] + 1)
        left[row] = next_ready(ready, end)
    return entered, left
