"""Beat times of the importance accumulators."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.golden.attention_latency import ImportanceLatencies
from topsieve_sim.timing.pipeline import next_ready


@njit(cache=True)
def importance_times(
    latencies: ImportanceLatencies,
    arrival: NDArray[np.int64],
    read_words: NDArray[np.int64],
    ready: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cycles at which each input beat enters and each readout beat leaves.

    `arrival` int64 [beats], `read_words` int64 [beats]: words of a readout, 0 for an addition; `ready` bool [cycles] is
    the sink's pattern.
    """
    entered = np.empty(arrival.size, np.int64)
    left = np.empty(read_words.sum(), np.int64)
    outputs = 0
    free = 0
    for beat in range(arrival.size):
        entered[beat] = max(arrival[beat], free)
        free = entered[beat] + 1
        word = entered[beat] + latencies.add
        for _ in range(read_words[beat]):
            if outputs >= latencies.readout_depth:
                word = max(word, left[outputs - latencies.readout_depth] + 1)
            end = word + latencies.readout
            if outputs > 0:
                end = max(end, left[outputs - 1] + 1)
            left[outputs] = next_ready(ready, end)
            outputs += 1
            free = word + 1
            word += 1
    return entered, left
