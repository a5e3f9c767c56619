"""Cycles of a descriptor on a machine that loads heads, prepares them and works through their jobs.

Recurrences over heads and jobs, never over cycles. One form serves every rival; the machines differ in the numbers.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True)
def dealt_cycles(
    load_cycles: NDArray[np.int64],
    before_cycles: NDArray[np.int64],
    job_head: NDArray[np.int64],
    job_cycles: NDArray[np.int64],
    tail_cycles: NDArray[np.int64],
    units: int,
) -> int:
    """Cycles from the first request to the end of the last job, without the memory's latency.

    Heads are loaded one after the other into one buffer a unit and one more; a loaded head is prepared (hashes, a
    predicted mask) while the next one loads; its jobs go to `units` units in turn, each taken when the unit is free.

    Parameters
    ----------
    load_cycles, before_cycles, tail_cycles : int64 [heads]; the tail is the latency of a job beyond the cycles in which
        it keeps the next one from starting.
    job_head : int64 [jobs], ascending. job_cycles : int64 [jobs].
    """
    heads = load_cycles.size
    free = np.zeros(units, np.int64)
    done = np.zeros(heads, np.int64)
    loaded = 0
    ready = 0
    end = 0
    job = 0
    for head in range(heads):
        if head > units:
            loaded = max(loaded, done[head - units - 1])
        loaded += load_cycles[head]
        ready = max(ready, loaded) + before_cycles[head]
        done[head] = ready
        while job < job_head.size and job_head[job] == head:
            unit = job % units
            free[unit] = max(free[unit], ready) + job_cycles[job]
            done[head] = max(done[head], free[unit])
            job += 1
        end = max(end, done[head] + tail_cycles[head])
    return end
