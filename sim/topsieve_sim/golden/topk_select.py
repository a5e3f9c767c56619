"""Cycles and results of the three selectors, to the bit and to the cycle.

Cycles count from the cycle in which the selector takes its command to the first cycle in which the result is offered.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.golden.topk_latency import (
    COMMAND_TO_ISSUE,
    HEAD_FETCH,
    ROW_READ,
    levels,
    popcount_ranks,
    quick_decide,
    quick_write,
    radix_decide,
    radix_first,
)
from topsieve_sim.golden.topk_pivot import OFFERS_LIMIT, choose_pivot, lfsr_next, sample_slot

QUICK = 0
RADIX = 1
BITONIC = 2
SELECTOR_CODES = {"quick": QUICK, "radix": RADIX, "bitonic": BITONIC}


@njit(cache=True, inline="always")
def _offer(
    samples: NDArray[np.int64],
    offers: int,
    state: int,
    values: NDArray[np.int64],
    begin: int,
    end: int,
    pivot: int,
    side: int,
    lanes: int,
) -> int:
    """Offer an element of the row `values[begin:end]` on `side` of the pivot (1 above, -1 below, 0 all).

    Returns the offers so far.
    """
    slot = sample_slot(state, offers)
    if slot >= 0:
        start = begin + (state & (lanes - 1))
        chosen = -1
        for i in range(begin, end):
            value = values[i]
            if (side > 0 and value > pivot) or (side < 0 and value < pivot) or side == 0:
                if i >= start:
                    chosen = i
                    break
                if chosen < 0:
                    chosen = i
        samples[slot] = values[chosen]
    return min(offers + 1, OFFERS_LIMIT)


@njit(cache=True, inline="always")
def _flush(ready: NDArray[np.int64], rows: int, fill: int, emitted: bool, readable: int) -> None:
    """The partial row that follows a round's last row; one cycle later when that row completed a row already."""
    if fill > 0:
        ready[rows] = readable + (1 if emitted else 0)


@njit(cache=True)
def quick_select(
    scores: NDArray[np.int64], k: int, lanes: int, seed: int, rounds: NDArray[np.int64]
) -> tuple[int, int, int, int]:
    """Quick-select of the k-th largest, 0 < k < n.

    Parameters
    ----------
    scores : int64 [n], non-negative.
    k : wanted rank from the top, 1 to n - 1.
    lanes : elements per row, a power of two.
    seed : state of the pivot LFSR at the start of the packet, 1 to 0xFFFF.
    rounds : int64 [r, 3], filled with the first issue (cycles after the command), the last issue and the size of each
        round, as far as there is room.

    Returns
    -------
    cycles, k-th largest, tie quota (how many equal to it are kept), rounds.
    """
    n = scores.size
    # One slot more than elements: a partition's discarded store may touch it.
    current = np.empty(n + 1, np.int64)
    current[:n] = scores
    chosen_side = np.empty(n + 1, np.int64)
    row_limit = n // lanes + 2
    ready = np.zeros(row_limit, np.int64)
    ready_above = np.empty(row_limit, np.int64)
    ready_below = np.empty(row_limit, np.int64)
    samples = np.zeros(3, np.int64)
    samples_above = np.zeros(3, np.int64)
    samples_below = np.zeros(3, np.int64)

    state = seed
    offers = 0
    for begin in range(0, n, lanes):
        offers = _offer(samples, offers, state, current, begin, min(begin + lanes, n), 0, 0, lanes)
        state = lfsr_next(state)

    decide = quick_decide(lanes)
    write = quick_write(lanes)
    state = seed
    size = n
    target = k
    start = COMMAND_TO_ISSUE
    count = 0
    while size > lanes:
        pivot = choose_pivot(samples[0], samples[1], samples[2], offers, target, size)
        issue = start - 1
        greater = 0
        less = 0
        rows_above = 0
        rows_below = 0
        fill_above = 0
        fill_below = 0
        offers_above = 0
        offers_below = 0
        first = 0
        emitted_above = False
        emitted_below = False
        for row, begin in enumerate(range(0, size, lanes)):
            end = min(begin + lanes, size)
            issue = max(issue + 1, ready[row])
            if row == 0:
                first = issue
            above = 0
            below = 0
            for value in current[begin:end]:
                above += value > pivot
                below += value < pivot
            greater += above
            less += below
            if above > 0:
                offers_above = _offer(samples_above, offers_above, state, current, begin, end, pivot, 1, lanes)
            if below > 0:
                offers_below = _offer(samples_below, offers_below, state, current, begin, end, pivot, -1, lanes)
            state = lfsr_next(state)
            fill_above += above
            emitted_above = fill_above > lanes
            if emitted_above:
                ready_above[rows_above] = issue + write
                rows_above += 1
                fill_above -= lanes
            fill_below += below
            emitted_below = fill_below > lanes
            if emitted_below:
                ready_below[rows_below] = issue + write
                rows_below += 1
                fill_below -= lanes
        _flush(ready_above, rows_above, fill_above, emitted_above, issue + write)
        _flush(ready_below, rows_below, fill_below, emitted_below, issue + write)
        if count < rounds.shape[0]:
            rounds[count, 0] = first
            rounds[count, 1] = issue
            rounds[count, 2] = size
        count += 1
        start = issue + decide
        equal = size - greater - less
        if greater >= target:
            kept = 0
            for value in current[:size]:
                chosen_side[np.uint64(kept)] = value
                kept += value > pivot
            ready, ready_above = ready_above, ready
            samples, samples_above = samples_above, samples
            offers = offers_above
            size = greater
        elif greater + equal < target:
            target -= greater + equal
            kept = 0
            for value in current[:size]:
                chosen_side[np.uint64(kept)] = value
                kept += value < pivot
            ready, ready_below = ready_below, ready
            samples, samples_below = samples_below, samples
            offers = offers_below
            size = less
        else:
            return start, pivot, target - greater, count
        current, chosen_side = chosen_side, current

    # One row is left: it stays in the row register and later rounds only narrow the mask of its live lanes.
    row_values = current[:size].copy()
    live = np.ones(size, np.bool_)
    issue = max(start, ready[0])
    chosen = np.empty(size, np.bool_)
    while True:
        pivot = choose_pivot(samples[0], samples[1], samples[2], offers, target, size)
        if count < rounds.shape[0]:
            rounds[count, 0] = issue
            rounds[count, 1] = issue
            rounds[count, 2] = size
        count += 1
        greater = 0
        less = 0
        for lane in range(live.size):
            if live[lane]:
                greater += row_values[lane] > pivot
                less += row_values[lane] < pivot
        equal = size - greater - less
        wants_above = greater >= target
        if not wants_above and greater + equal >= target:
            return issue + decide, pivot, target - greater, count
        begin_lane = state & (lanes - 1)
        picked = -1
        for lane in range(live.size):
            value = row_values[lane]
            chosen[lane] = live[lane] and (value > pivot if wants_above else value < pivot)
        for lane in range(live.size):
            if chosen[lane]:
                if lane >= begin_lane:
                    picked = lane
                    break
                if picked < 0:
                    picked = lane
        samples[0] = row_values[picked]
        offers = 1
        state = lfsr_next(state)
        live[:] = chosen
        if wants_above:
            size = greater
        else:
            target -= greater + equal
            size = less
        issue += decide


@njit(cache=True)
def radix_select(
    scores: NDArray[np.int64], k: int, lanes: int, score_bits: int, radix_bits: int
) -> tuple[int, int, int]:
    """Radix select of the k-th largest, 0 < k < n: cycles, k-th largest, tie quota.

    Digits of `radix_bits` from the least significant bit upward; the top digit may be narrower. The first pass runs
    while the scores are loaded.
    """
    passes = (score_bits + radix_bits - 1) // radix_bits
    histogram = np.zeros(1 << radix_bits, np.int64)
    prefix = 0
    target = k
    for step in range(passes - 1, -1, -1):
        shift = step * radix_bits
        histogram[:] = 0
        for value in scores:
            if value >> (shift + radix_bits) == prefix:
                histogram[(value >> shift) & (histogram.size - 1)] += 1
        digit = histogram.size - 1
        while histogram[digit] < target:
            target -= histogram[digit]
            digit -= 1
        prefix = prefix << radix_bits | digit
    return radix_cycles(scores.size, lanes, score_bits, radix_bits), prefix, target


@njit(cache=True)
def radix_cycles(n: int, lanes: int, score_bits: int, radix_bits: int) -> int:
    """Cycles of radix select over n scores, 0 < k < n; the same for all data."""
    passes = (score_bits + radix_bits - 1) // radix_bits
    rows = (n + lanes - 1) // lanes
    # A pass may issue rows before the digit before it is known, as long as the row register sees the digit.
    interval = rows - 1 + radix_decide(lanes) - ROW_READ
    return radix_first(lanes) + (passes - 1) * interval


@njit(cache=True)
def bitonic_cycles(n: int, k: int, lanes: int) -> int:
    """Cycles of the bitonic merge sorter for the k-th of n scores, 0 < k < n; the same for all data."""
    rows = (n + lanes - 1) // lanes
    depth = levels(lanes)
    # Sort each row: row register, one register per comparator layer, write.
    cycle = COMMAND_TO_ISSUE + rows - 1 + ROW_READ + depth * (depth + 1) // 2 + 1
    # Merge runs of rows pairwise: first heads, head comparison, one register per layer of the half-cleaner, write.
    run = 1
    while run < rows:
        cycle += HEAD_FETCH + rows - 1 + 1 + depth + 1
        run *= 2
    # Read the k-th's row, then all rows up to it and count what is greater: row register, comparison, count, sum.
    wanted_rows = (k - 1) // lanes + 1
    return cycle + wanted_rows + 3 + popcount_ranks(lanes)


@njit(cache=True)
def select_cycles(
    scores: NDArray[np.int64],
    k: int,
    selector_code: int,
    parallelism: int,
    score_bits: int,
    lfsr_state: int,
    radix_bits: int = 4,
) -> tuple[int, int, int, int]:
    """Cycles, k-th largest, tie quota and LFSR state of one selection.

    Parameters
    ----------
    scores : int64 [n], 0 to 2^score_bits - 1.
    k : how many to keep; 0 and k >= n are decided without a pass.
    selector_code : QUICK, RADIX or BITONIC.
    parallelism : elements per row, a power of two.
    lfsr_state : the configuration's seed.

    Returns
    -------
    cycles from the cycle in which the selector takes the command to the first in which it offers the result; the
    threshold and tie quota (keep what is greater, and the first `quota` equal ones); the LFSR state for the next
    packet, which is the seed again: every packet restarts the LFSR, so its cycles depend on its own scores alone.
    """
    n = scores.size
    if k <= 0:
        return 1, (1 << score_bits) - 1, 0, lfsr_state
    if k >= n:
        return 1, 0, n, lfsr_state
    if selector_code == QUICK:
        cycles, kth, quota, _ = quick_select(scores, k, parallelism, lfsr_state, np.empty((0, 3), np.int64))
        return cycles, kth, quota, lfsr_state
    cycles, kth, quota = radix_select(scores, k, parallelism, score_bits, radix_bits)
    if selector_code == BITONIC:
        cycles = bitonic_cycles(n, k, parallelism)
    return cycles, kth, quota, lfsr_state
