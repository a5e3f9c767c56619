"""The ideal memory: fixed latency, a fixed number of bytes a cycle, requests served one at a time in order.

A request is picked in one cycle and then takes one slot (one word of `bytes_per_cycle`) a cycle; the word of slot x is
in its buffer at the end of cycle x + latency and can be read one cycle later. Rows are packed without padding.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.timing.pipeline import next_ready


@njit(cache=True)
def fetch_rows(
    picked: int,
    rows: int,
    row_bits: int,
    lanes: int,
    bytes_per_cycle: int,
    latency: int,
    ready: NDArray[np.bool_],
    arrival: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Fetch `rows` rows of `row_bits`, `lanes` rows a beat, with the request picked in cycle `picked`.

    `ready[c]` tells whether the memory serves a word in cycle c; it always does beyond the pattern's end. Writes the
    cycle in which the last word of beat i is written to `arrival[i]`; returns the cycle after the last slot, the words
    and the bytes.
    """
    size = (rows * row_bits + 7) // 8
    words = (size + bytes_per_cycle - 1) // bytes_per_cycle
    groups = (rows + lanes - 1) // lanes
    slot = picked
    served = 0
    for i in range(groups):
        held = min((i + 1) * lanes, rows)
        needed = ((held * row_bits + 7) // 8 + bytes_per_cycle - 1) // bytes_per_cycle
        if slot + 1 >= ready.size:
            slot += needed - served
        else:
            for _ in range(needed - served):
                slot = next_ready(ready, slot + 1)
        served = needed
        arrival[i] = slot + latency
    return slot + 1, words, size
