"""Beat times of the one building block: a fixed-latency pipeline behind a credit counter and an output FIFO.

The pipeline itself never stalls. A beat is admitted while a credit is left; a credit is a slot of the output FIFO, held
from admission until the beat has left the FIFO, so the FIFO cannot overflow. With `latency` L, FIFO `depth` D and
initiation `interval` I:

    input[i]  = max(arrival[i], input[i-1] + I, output[i-D] + 1)
    output[i] = first ready cycle >= max(input[i] + L, output[i-1] + 1)
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True)
def next_ready(ready: NDArray[np.bool_], cycle: int) -> int:
    """First cycle >= `cycle` in which the sink is ready; a sink is always ready beyond its pattern's end."""
    while cycle < ready.size and not ready[cycle]:
        cycle += 1
    return cycle


@njit(cache=True)
def pipeline_times(
    arrival: NDArray[np.int64], ready: NDArray[np.bool_], latency: int, depth: int, interval: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cycles at which each beat crosses the input and the output.

    Parameters
    ----------
    arrival : int64 [n], cycle from which the source offers beat i.
    ready : bool [cycles], the sink's pattern.
    latency : cycles from the input handshake to the first possible output handshake, at least 1.
    depth : output FIFO slots (credits), at least 1.
    interval : cycles between admissions, at least 1.
    """
    beats = arrival.size
    entered = np.empty(beats, np.int64)
    left = np.empty(beats, np.int64)
    for i in range(beats):
        start = arrival[i]
        if i > 0:
            start = max(start, entered[i - 1] + interval)
        if i >= depth:
            start = max(start, left[i - depth] + 1)
        entered[i] = start
        end = start + latency
        if i > 0:
            end = max(end, left[i - 1] + 1)
        left[i] = next_ready(ready, end)
    return entered, left
