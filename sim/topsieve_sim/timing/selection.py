"""Beat times of local value selection alone; the same recurrences as in the attention unit.

Positions x of the survivors are counted over all gathered rows; `filtered`, `select`, `flush` as in `docs/attention-unit.md`.

    out[k]      = first ready cycle >= max(filtered[q], out[k-1] + 1)
    position[x] = first ready cycle >= max(filtered[q], position[x-1] + 1)
    a row's survivor bank is free one cycle after its last out and its last position
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.golden.attention_latency import AttentionLatencies
from topsieve_sim.timing.pipeline import next_ready


@njit(cache=True)
def selection_times(
    machine: AttentionLatencies,
    arrival: NDArray[np.int64],
    row_keys: NDArray[np.int64],
    kept: int,
    gather: bool,
    select_cycles: NDArray[np.int64],
    flush_cycles: NDArray[np.int64],
    ready: NDArray[np.bool_],
    position_ready: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cycles at which each beat enters, each beat leaves and each position is read, and the first in which rows can leave.

    Parameters
    ----------
    arrival : int64 [beats], cycle from which the source offers each beat.
    row_keys : int64 [rows], probabilities of each row, at least 1.
    kept : survivors of a row, at least 1.
    gather : survivors leave packed and positions are read; else all beats of the rows leave and there are no positions.
    select_cycles, flush_cycles : int64 [rows], `golden.topk.select_cycles` and `golden.attention.flush_cycles`.
    ready, position_ready : bool [cycles], patterns of the two sinks; always ready beyond their end.
    """
    lanes, parallelism, banks = machine.lanes, machine.topk_lanes, machine.banks
    narrow = lanes > parallelism
    rows = row_keys.size
    entered = np.empty(arrival.size, np.int64)
    left = np.empty(arrival.size, np.int64)
    positions = np.empty(kept * rows if gather else 0, np.int64)
    filtered = np.empty(rows, np.int64)
    bank_free = np.zeros(rows, np.int64)
    filter_end = np.full(rows, -1, np.int64)
    beat, outputs, reads = 0, 0, 0
    adapter_free, loaded, result_taken = 0, -1, -1
    for row in range(rows):
        keys = row_keys[row]
        beats = (keys + lanes - 1) // lanes
        for i in range(beats):
            offered = arrival[beat]
            if beat > 0:
                offered = max(offered, entered[beat - 1] + 1)
            taken = max(offered, adapter_free)
            entering = max(taken, loaded) + 1 if narrow else max(offered, loaded + 1)
            if i == 0:
                if row >= banks:
                    entering = max(entering, filter_end[row - banks] + 1)
                if row >= machine.survivor_banks:
                    entering = max(entering, bank_free[row - machine.survivor_banks])
            parts = 1
            if narrow:
                parts = (min(keys - i * lanes, lanes) + parallelism - 1) // parallelism
            else:
                taken = entering
            loaded = entering + parts - 1
            adapter_free = loaded + 1 if i == 0 and parts == 1 else loaded
            entered[beat] = taken
            beat += 1
        result = max(loaded + machine.topk_command, result_taken + 1) + select_cycles[row]
        result_taken = max(result, filter_end[row - 1] + 1) if row > 0 else result
        filter_end[row] = result_taken + (keys + parallelism - 1) // parallelism
        filtered[row] = filter_end[row] + machine.topk_filter + flush_cycles[row]

        survivors = min(kept, keys)
        for _ in range((survivors + lanes - 1) // lanes if gather else beats):
            offered = filtered[row]
            if outputs > 0:
                offered = max(offered, left[outputs - 1] + 1)
            left[outputs] = next_ready(ready, offered)
            outputs += 1
        bank_free[row] = left[outputs - 1] + 1
        if gather:
            for _ in range(survivors):
                offered = filtered[row]
                if reads > 0:
                    offered = max(offered, positions[reads - 1] + 1)
                positions[reads] = next_ready(position_ready, offered)
                reads += 1
            bank_free[row] = max(bank_free[row], positions[reads - 1] + 1)
    return entered, left[:outputs], positions[:reads], filtered
