"""Cycles of attention descriptors with the beats of a row in closed form: the work is one step a row, whatever its length.

The law is that of `docs/attention-unit.md`. Inside a row every stream is taken as straight: a first beat, a last beat and
an even step between them. That is where the error comes from; which row goes next, which is computed twice, what each
selection takes and every request to the memory are as in the cycle model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

NEVER = np.int64(1) << np.int64(62)


class Machines(NamedTuple):
    """Fields of the configurations that times depend on, int64 [configurations] each; see `AttentionLatencies`."""

    lanes: Int64
    banks: Int64
    issue_rows: Int64
    score_beats: Int64
    exponential_beats: Int64
    row_slots: Int64
    dot_product: Int64
    dot_product_depth: Int64
    softmax_fill: Int64
    exponential: Int64
    reciprocal: Int64
    normalise: Int64
    normalise_depth: Int64
    topk_lanes: Int64
    topk_command: Int64
    topk_filter: Int64
    survivor_banks: Int64
    weighted_sum: Int64
    output_rows: Int64
    bytes_per_cycle: Int64
    latency_cycles: Int64


class Descriptors(NamedTuple):
    """Shapes of descriptors, int64 [descriptors] each, and their rows, which begin at `offset[d]`.

    `heads` are key-value heads; `queries` are the rows of one. `progressive`: the key planes stay until the decision.
    """

    heads: Int64
    queries: Int64
    keys: Int64
    kept: Int64
    key_row_bits: Int64
    lsb_row_bits: Int64
    value_row_bits: Int64
    progressive: Int64
    offset: Int64
    row_keys: Int64
    twice: NDArray[np.bool_]
    select_cycles: Int64
    flush_cycles: Int64


class _Stream(NamedTuple):
    """Beats of rows in order: row r has the beats `begin[r]` to `begin[r + 1]` - 1, at cycles from `first[r]` to `last[r]`."""

    begin: Int64
    first: Int64
    last: Int64


@njit(cache=True, inline="always")
def _row_of(stream: _Stream, beat: int, row: int) -> int:
    """The row of `beat`, looked for from `row` on."""
    while stream.begin[row + 1] <= beat:
        row += 1
    return row


@njit(cache=True, inline="always")
def _at(stream: _Stream, beat: int, row: int) -> int:
    """The cycle of `beat`, which is of `row`."""
    place = beat - stream.begin[row]
    steps = stream.begin[row + 1] - stream.begin[row] - 1
    if place == 0:
        return int(stream.first[row])
    if place == steps:
        return int(stream.last[row])
    return int(stream.first[row] + (stream.last[row] - stream.first[row]) * place // steps)


@njit(cache=True, inline="always")
def _words(rows: int, row_bits: int, width: int) -> int:
    """Memory words of `rows` packed rows."""
    return ((rows * row_bits + 7) // 8 + width - 1) // width


@njit(cache=True, inline="always")
def _paced(
    start: int, beats: int, interval: int, picked: int, rows: int, lanes: int, row_bits: int, width: int, latency: int
) -> int:
    """When the last of `beats` beats starts: one an interval from `start` on, none before its operands have arrived.

    The operands are the request taken in cycle `picked`; the last beats decide, because a plane's words come evenly.
    """
    last = start + (beats - 1) * interval
    if beats > 1:
        last = max(last, picked + _words(min((beats - 1) * lanes, rows), row_bits, width) + latency + 1 + interval)
    return max(last, picked + _words(min(beats * lanes, rows), row_bits, width) + latency + 1)


@njit(cache=True)
def descriptor_cycles(
    machines: Machines,
    product_interval: Int64,
    weighted_interval: Int64,
    operand_banks: Int64,
    descriptors: Descriptors,
    repeats: Int64,
) -> Int64:
    """Cycles of all descriptors, one after the other, on each machine, int64 [configurations].

    Parameters
    ----------
    product_interval, weighted_interval, operand_banks : int64 [configurations, descriptors], cycles of a beat on either array
        and heads whose operands are on chip at once.
    repeats : int64 [descriptors], how often each descriptor runs.
    """
    room = 0
    for d in range(descriptors.heads.size):
        begin, end = descriptors.offset[d], descriptors.offset[d + 1]
        room = max(room, end - begin + descriptors.twice[begin:end].sum())
    starts, final_starts = np.zeros(room + 1, np.int64), np.zeros(room + 1, np.int64)
    scratch = np.zeros((8, room), np.int64)
    fill = _Stream(starts, scratch[0], scratch[1])
    exponential = _Stream(starts, scratch[2], scratch[3])
    normalise = _Stream(starts, scratch[4], scratch[5])
    probability = _Stream(final_starts, scratch[6], scratch[7])
    again = np.zeros((2, room), np.int64)
    total = np.zeros(machines.lanes.size, np.int64)
    for c in range(total.size):
        for d in range(descriptors.heads.size):
            cycles = _descriptor(
                machines, c, product_interval[c, d], weighted_interval[c, d], operand_banks[c, d], descriptors, d,
                fill, exponential, normalise, probability, again,
            )  # fmt: skip
            total[c] += repeats[d] * cycles
    return total


@njit(cache=True)
def _descriptor(
    machines: Machines,
    c: int,
    product_interval: int,
    weighted_interval: int,
    operand_banks: int,
    descriptors: Descriptors,
    d: int,
    fill: _Stream,
    exponential: _Stream,
    normalise: _Stream,
    probability: _Stream,
    again: Int64,
) -> int:
    """Cycles of descriptor `d` on machine `c` from an empty machine; the streams and `again` are room to work in."""
    lanes, banks, issue_rows = machines.lanes[c], machines.banks[c], machines.issue_rows[c]
    row_slots, output_rows, survivor_banks = machines.row_slots[c], machines.output_rows[c], machines.survivor_banks[c]
    topk_lanes, width, latency = machines.topk_lanes[c], machines.bytes_per_cycle[c], machines.latency_cycles[c]
    product_depth, score_beats = machines.dot_product_depth[c], machines.score_beats[c]
    exponential_beats, normalise_depth = machines.exponential_beats[c], machines.normalise_depth[c]
    product_latency = machines.dot_product[c] + product_interval - 1
    weighted_latency = machines.weighted_sum[c] + weighted_interval - 1
    decide_latency = machines.exponential[c] + machines.reciprocal[c]
    heads, queries, keys, kept = descriptors.heads[d], descriptors.queries[d], descriptors.keys[d], descriptors.kept[d]
    key_row_bits, lsb_row_bits = descriptors.key_row_bits[d], descriptors.lsb_row_bits[d]
    value_row_bits = descriptors.value_row_bits[d]
    progressive = descriptors.progressive[d] != 0
    offset = descriptors.offset[d]
    rows = heads * queries
    select = kept < keys
    gather = select and queries == 1
    narrow = lanes > topk_lanes

    key_picked = np.full(heads, NEVER, np.int64)
    lsb_picked = np.full(heads, np.int64(-1), np.int64)
    value_picked = np.zeros(heads, np.int64)
    left_in_head = np.full(heads, queries, np.int64)
    value_ring = np.zeros(operand_banks, np.int64)
    topk_rows = np.zeros(banks, np.int64)
    survivor_ring = np.full(survivor_banks, -1, np.int64)
    output_ring = np.full(output_rows, -1, np.int64)
    issue_ring = np.full(issue_rows, -1, np.int64)

    # The memory takes one request at a time: a cycle to pick it, then a word a cycle.
    free = 0
    loaded = min(operand_banks, heads)
    for head in range(loaded):
        key_picked[head] = free
        free += _words(keys, key_row_bits, width) + 1
        if not gather:
            value_picked[head] = free
            free += _words(keys, value_row_bits, width) + 1

    product_free = 0
    picked_last = -1
    fill_last = -1
    exponential_last = -1
    normalise_last = -1
    topk_last = -1
    adapter_free = 0
    result_taken = -1
    filter_last = -1
    weighted_last = -weighted_interval
    left_last = -1
    again_head = again_tail = next_row = started = finals = 0
    fill_row = score_row = exponential_row = probability_row = 0
    fill.begin[0] = 0
    probability.begin[0] = 0

    while next_row < rows or again_head < again_tail:
        repeat_at = again[1, again_head] if again_head < again_tail else NEVER
        fresh_at = key_picked[next_row // queries] + 1 if next_row < rows else NEVER
        pick = max(max(picked_last, issue_ring[started % issue_rows]) + 1, min(repeat_at, fresh_at))
        second = repeat_at <= pick
        if second:
            row = again[0, again_head]
            again_head += 1
        else:
            row = next_row
            next_row += 1
        picked_last = pick
        head = row // queries
        size = descriptors.row_keys[offset + row]
        count = (size + lanes - 1) // lanes
        dropped = (not second) and descriptors.twice[offset + row]
        first_beat = fill.begin[started]
        last_beat = first_beat + count - 1
        fill.begin[started + 1] = last_beat + 1

        # Scores.
        product = max(pick + 1, product_free)
        product = max(product, key_picked[head] + _words(min(lanes, keys), key_row_bits, width) + latency + 1)
        if second:
            product = max(product, lsb_picked[head] + _words(min(lanes, keys), lsb_row_bits, width) + latency + 1)
        if first_beat >= product_depth:
            fill_row = _row_of(fill, first_beat - product_depth, fill_row)
            product = max(product, _at(fill, first_beat - product_depth, fill_row) + 1)
        product_last = _paced(
            product, count, product_interval, key_picked[head], keys, lanes, key_row_bits, width, latency
        )
        if second:
            product_last = _paced(
                product_last - (count - 1) * product_interval, count, product_interval, lsb_picked[head], keys, lanes,
                lsb_row_bits, width, latency,
            )  # fmt: skip
        filled = max(product + product_latency, fill_last + 1)
        if started >= row_slots:
            filled = max(filled, exponential.last[started - row_slots] + 1)
        if first_beat >= score_beats:
            score_row = _row_of(exponential, first_beat - score_beats, score_row)
            filled = max(filled, _at(exponential, first_beat - score_beats, score_row) + 1)
        fill_last = max(filled + count - 1, product_last + product_latency)
        if last_beat >= score_beats:
            score_row = _row_of(exponential, last_beat - score_beats, score_row)
            fill_last = max(fill_last, _at(exponential, last_beat - score_beats, score_row) + 1)
        fill.first[started], fill.last[started] = filled, fill_last
        # A full buffer holds the array back, a FIFO's depth before the beat that waits.
        product_last = max(product_last, fill_last - product_depth * product_interval + 1)
        product_free = product_last + product_interval
        issue_ring[started % issue_rows] = product_last

        # Exponentials, reciprocal, decision.
        summed = max(fill_last + machines.softmax_fill[c], exponential_last + 1)
        if started >= row_slots:
            summed = max(summed, normalise.last[started - row_slots] + 1)
        if first_beat >= exponential_beats:
            exponential_row = _row_of(normalise, first_beat - exponential_beats, exponential_row)
            summed = max(summed, _at(normalise, first_beat - exponential_beats, exponential_row) + 1)
        exponential_last = summed + count - 1
        if last_beat >= exponential_beats:
            exponential_row = _row_of(normalise, last_beat - exponential_beats, exponential_row)
            exponential_last = max(exponential_last, _at(normalise, last_beat - exponential_beats, exponential_row) + 1)
        exponential.first[started], exponential.last[started] = summed, exponential_last
        decided = exponential_last + decide_latency
        released = decided if progressive else product_free

        normalised = max(decided, normalise_last + 1)
        if dropped:
            normalise_last = normalised
            normalise.first[started] = normalise.last[started] = normalised
            again[0, again_tail], again[1, again_tail] = row, decided
            again_tail += 1
            if lsb_picked[head] < 0:
                lsb_picked[head] = max(free, decided)
                free = lsb_picked[head] + _words(keys, lsb_row_bits, width) + 1
            started += 1
            continue

        left_in_head[head] -= 1
        head_done = left_in_head[head] == 0
        final = finals % banks
        first_probability = probability.begin[finals]
        probability.begin[finals + 1] = first_probability + count
        if first_probability >= normalise_depth:
            probability_row = _row_of(probability, first_probability - normalise_depth, probability_row)
            normalised = max(normalised, _at(probability, first_probability - normalise_depth, probability_row) + 1)
        last_offered = normalised + count - 1 + machines.normalise[c]

        filtered = 0
        if select:
            # Into the top-k engine, through an adapter where it is narrower than a beat.
            parts = (lanes + topk_lanes - 1) // topk_lanes if narrow else 1
            held = size - (count - 1) * lanes
            last_parts = (held + topk_lanes - 1) // topk_lanes if narrow else 1
            entering = max(normalised + machines.normalise[c], topk_last + 1)
            taken = entering
            if narrow:
                taken = max(normalised + machines.normalise[c], adapter_free)
                entering = max(taken, topk_last) + 1
            entering = max(entering, max(topk_rows[final], survivor_ring[finals % survivor_banks] + 1))
            if not narrow:
                taken = entering
            topk_last = entering + (count - 1) * parts + last_parts - 1
            topk_last = max(topk_last, last_offered + last_parts - (0 if narrow else 1))
            last_taken = topk_last - last_parts if narrow and count > 1 else taken
            if not narrow:
                last_taken = topk_last
            adapter_free = topk_last + 1 if count == 1 and last_parts == 1 else topk_last
            probability.first[finals], probability.last[finals] = taken, last_taken
            normalise_last = normalised + count - 1
            if count > normalise_depth:
                normalise_last = max(normalise_last, last_taken - normalise_depth * parts + 1)
            command = max(topk_last + machines.topk_command[c], result_taken + 1)
            result_taken = max(command + descriptors.select_cycles[offset + row], filter_last + 1)
            filter_last = result_taken + (size + topk_lanes - 1) // topk_lanes
            topk_rows[final] = filter_last + 1
            filtered = filter_last + machines.topk_filter[c] + descriptors.flush_cycles[offset + row]

        if head_done and loaded < heads:
            key_picked[loaded] = max(free, released)
            free = key_picked[loaded] + _words(keys, key_row_bits, width) + 1
        values = size
        if gather:
            values = min(kept, size)
            value_picked[head] = max(free, max(filtered, value_ring[finals % operand_banks]))
            free = value_picked[head] + _words(values, value_row_bits, width) + 1
        value_rows = values if gather else keys
        beats = (values + lanes - 1) // lanes

        # Weighted sum.
        offered = filtered if select else normalised + machines.normalise[c]
        weighted = max(offered, weighted_last + weighted_interval)
        weighted = max(weighted, output_ring[finals % output_rows] + 1)
        weighted = max(
            weighted, value_picked[head] + _words(min(lanes, value_rows), value_row_bits, width) + latency + 1
        )
        weighted_last = _paced(
            weighted, beats, weighted_interval, value_picked[head], value_rows, lanes, value_row_bits, width, latency
        )
        if not select:
            weighted_last = max(weighted_last, last_offered)
            probability.first[finals], probability.last[finals] = weighted, weighted_last
            normalise_last = normalised + count - 1
            if count > normalise_depth:
                normalise_last = max(normalise_last, weighted_last - normalise_depth * weighted_interval + 1)
        normalise.first[started], normalise.last[started] = normalised, normalise_last
        survivor_ring[finals % survivor_banks] = weighted_last
        value_ring[finals % operand_banks] = weighted_last + weighted_interval
        left_last = max(weighted_last + weighted_latency, left_last + 1)
        output_ring[finals % output_rows] = left_last
        finals += 1
        if head_done and loaded < heads:
            if not gather:
                value_picked[loaded] = max(free, weighted_last + weighted_interval)
                free = value_picked[loaded] + _words(keys, value_row_bits, width) + 1
            loaded += 1
        started += 1
    return int(max(left_last + 1, free))
