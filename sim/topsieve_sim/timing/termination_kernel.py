"""Event times of a decoding group whose keys end early, row by row; the law is written down in `docs/successor.md`.

Every row runs twice: over the MSB plane of all keys, whose scores are bounded and stored as sums, and over the candidates,
whose scores are finished. A second pass is picked before a first one. Rows are taken in the order in which the dot-product
array starts them; no event depends on a row that starts later, so one sweep is exact.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.golden.attention_latency import AttentionLatencies, TerminationLatencies
from topsieve_sim.timing.accounting import (
    DOT_PRODUCT,
    EXPONENTIAL,
    KEY_LSB,
    KEY_MSB,
    NORMALISE,
    OUTPUT,
    QUERY,
    SOFTMAX_FILL,
    TOPK,
    VALUE,
    WEIGHTED_SUM,
    account,
    account_end,
)
from topsieve_sim.timing.attention_kernel import (
    DECIDED,
    FILLED,
    FILTERED,
    FIRST_PROBABILITY,
    FIRST_PRODUCT,
    LAST_PROBABILITY,
    LAST_PRODUCT,
    LAST_WEIGHTED,
    LEFT,
    NEVER,
    PICK,
    ROW,
    SECOND_PASS,
)
from topsieve_sim.timing.memory_port import CURSOR, IDEAL, SERVED, MemoryPort, request
from topsieve_sim.timing.operand_requests import NOWHERE, request_plane
from topsieve_sim.timing.output_port import OutputPort
from topsieve_sim.timing.pipeline import next_ready
from topsieve_sim.timing.termination_group import TerminationShape

_PLACES = NOWHERE


@njit(cache=True)
def termination_times(
    machine: AttentionLatencies,
    unit: TerminationLatencies,
    shape: TerminationShape,
    candidates: NDArray[np.int64],
    whole: NDArray[np.bool_],
    port: MemoryPort,
    query_port: MemoryPort,
    output: OutputPort,
    table: NDArray[np.int64],
    size: NDArray[np.int64],
    events: NDArray[np.int64],
) -> int:
    """Cycles of one group that starts in cycle 0; adds to `table` [UNITS, CAUSES] and `size` [BYTE_KINDS].

    `candidates` int64 [heads, tiles], `whole` bool [heads]. `events` is [0, EVENTS] or has two lines a row. The candidate
    compactor stands in the table's row of the top-k engine. With an ideal `query_port` queries are there at once.
    """
    lanes = machine.lanes
    heads, queries, keys, head_dim = shape.heads, shape.queries, shape.keys, shape.head_dim
    product_interval, weighted_interval = shape.product_interval, shape.weighted_interval
    product_latency = machine.dot_product + product_interval - 1
    weighted_latency = machine.weighted_sum + weighted_interval - 1
    banks, slots = shape.operand_banks, shape.row_slots
    rows = heads * queries
    count = (keys + lanes - 1) // lanes
    tiles = candidates.shape[1]
    second_beats = np.zeros(heads, np.int64)
    for head in range(heads):
        for tile in range(tiles):
            second_beats[head] += (candidates[head, tile] + lanes - 1) // lanes
    widest = int(max(count, second_beats.max()))

    product_ring = np.full(machine.dot_product_depth, -1, np.int64)
    score_ring = np.full(machine.score_beats, -1, np.int64)
    exponential_ring = np.full(machine.exponential_beats, -1, np.int64)
    probability_ring = np.full(machine.normalise_depth, -1, np.int64)
    score_rows = np.full(machine.row_slots, -1, np.int64)
    exponential_rows = np.full(machine.row_slots, -1, np.int64)
    output_ring = np.full(machine.output_rows, -1, np.int64)
    issue_ring = np.full(machine.issue_rows, -1, np.int64)
    partial_free = np.zeros(slots, np.int64)
    value_free = np.zeros(banks, np.int64)
    products = 0
    softmax_beats = 0
    probabilities = 0

    key_arrival = np.zeros((banks, widest), np.int64)
    value_arrival = np.zeros((banks, widest), np.int64)
    lsb_arrival = np.zeros(widest, np.int64)
    query_arrival = np.full(1, -1, np.int64)
    no_table = np.zeros((0, 0), np.int64)
    key_picked = np.full(heads, NEVER, np.int64)
    tile_decided = np.zeros(tiles, np.int64)
    again_at = np.full(rows, NEVER, np.int64)
    key_row_bits = head_dim * shape.key_msb_bits
    lsb_row_bits = head_dim * shape.key_lsb_bits
    value_row_bits = head_dim * shape.value_bits
    for head in range(min(banks, heads)):
        key_picked[head] = request_plane(
            port, _PLACES, 0, lanes, KEY_MSB, head, -1, keys, head_dim, key_row_bits, key_arrival[head], table, size
        )

    product_free = 0
    picked_last = -1
    fill_last = -1
    exponential_last = -1
    normalise_last = -1
    weighted_last = -weighted_interval
    left_last = -1
    compact_free = 0
    product_cursor = fill_cursor = exponential_cursor = normalise_cursor = compact_cursor = weighted_cursor = 0
    fresh = 0
    finals = 0
    started = 0
    while finals < rows:
        fresh_at = NEVER
        if fresh < rows:
            fresh_at = max(key_picked[fresh // queries] + 1, partial_free[fresh % slots])
        pick = int(max(max(picked_last, issue_ring[started % machine.issue_rows]) + 1, min(again_at[finals], fresh_at)))
        second = again_at[finals] <= pick
        row = finals if second else fresh
        head = row // queries
        bank = head % banks
        row_beats = second_beats[head] if second else count
        if query_port.kind != IDEAL:
            pick, amount = request(
                query_port, pick, 1, head_dim, head_dim * shape.query_bits, 1, 0, 0, 0, False, _PLACES.tokens, query_arrival,
                no_table,
            )  # fmt: skip
            size[QUERY] += amount
        elif not second:
            size[QUERY] += (head_dim * shape.query_bits + 7) // 8
        picked_last = pick

        # Scores: one beat each interval.
        earliest = max(pick + 1, product_free)
        first_product = earliest
        product = earliest
        slot = finals % machine.row_slots
        for i in range(row_beats):
            data_at = query_arrival[0] + 1 if second else max(key_arrival[bank, i], query_arrival[0]) + 1
            credit_at = product_ring[products % product_ring.size] + 1
            product = int(max(earliest, max(data_at, credit_at)))
            if i == 0:
                first_product = product
            product_cursor = account(table, DOT_PRODUCT, product_cursor, earliest, data_at, product, product_interval)
            earliest = product + product_interval
            scored = product + product_latency
            fill = max(scored, fill_last + 1)
            if second:
                fill = max(fill, score_ring[softmax_beats % score_ring.size] + 1)
                if i == 0:
                    fill = max(fill, score_rows[slot] + 1)
                softmax_beats += 1
            elif i == row_beats - 1 or (i + 1) % shape.tile_beats == 0:
                tile_decided[i // shape.tile_beats] = fill + unit.bound
            fill_cursor = account(table, SOFTMAX_FILL, fill_cursor, scored, scored, fill, 1)
            product_ring[products % product_ring.size] = fill
            products += 1
            fill_last = fill
        product_free = earliest
        issue_ring[started % machine.issue_rows] = product
        if events.shape[0] > 0:
            events[started, :] = -1
            events[started, ROW] = row
            events[started, SECOND_PASS] = second
            events[started, PICK] = pick
            events[started, FIRST_PRODUCT] = first_product
            events[started, LAST_PRODUCT] = product
            events[started, FILLED] = fill_last
        line = started
        started += 1

        if not second:
            partial_free[fresh % slots] = NEVER
            fresh += 1
            if events.shape[0] > 0:
                events[line, DECIDED] = tile_decided[tiles - 1]
            if fresh % queries > 0:
                continue
            # The head's last row decides. Values of a tile are asked for when it is decided, the LSB plane when all are, before
            # the last tile's values: the second pass waits for it. Then the key bank takes the next head.
            total = candidates[head].sum()
            begin = 0
            for tile in range(tiles):
                if tile == tiles - 1 and whole[head] and shape.key_lsb_bits > 0:
                    request_plane(
                        port, _PLACES, max(value_free[bank], tile_decided[tile]), lanes, KEY_LSB, head, head, total, head_dim,
                        lsb_row_bits, lsb_arrival, table, size,
                    )  # fmt: skip
                wanted = candidates[head, tile]
                if wanted > 0:
                    request_plane(
                        port, _PLACES, max(value_free[bank], tile_decided[tile]), lanes, VALUE, head, head, wanted, head_dim,
                        value_row_bits, value_arrival[bank, begin:], table, size,
                    )  # fmt: skip
                    begin += (wanted + lanes - 1) // lanes
            if head + banks < heads:
                key_picked[head + banks] = request_plane(
                    port, _PLACES, product_free, lanes, KEY_MSB, head + banks, -1, keys, head_dim, key_row_bits,
                    key_arrival[bank], table, size,
                )  # fmt: skip
            # The sums of each row are read back and its candidates moved together, tile after tile.
            for compacted in range(head * queries, fresh):
                for tile in range(tiles):
                    begin = max(compact_free, tile_decided[tile])
                    length = min((tile + 1) * shape.tile_beats, count) - tile * shape.tile_beats
                    compact_cursor = account(table, TOPK, compact_cursor, begin, begin, begin, length)
                    compact_free = begin + length
                again_at[compacted] = compact_free - 1 + unit.compact
                if whole[head] and shape.key_lsb_bits > 0:
                    # A pass that waits for its keys would hold up those behind it.
                    again_at[compacted] = max(again_at[compacted], lsb_arrival[(total - 1) // lanes] + 1)
            continue

        partial_free[row % slots] = product + 1
        # Exponentials and their sum, then the reciprocal.
        filled = fill_last + machine.softmax_fill
        first_beat = softmax_beats - row_beats
        earliest = max(filled, max(exponential_last, exponential_rows[slot]) + 1)
        for k in range(first_beat, softmax_beats):
            exponential_last = max(earliest, exponential_ring[k % exponential_ring.size] + 1)
            exponential_cursor = account(table, EXPONENTIAL, exponential_cursor, filled, filled, exponential_last, 1)
            earliest = exponential_last + 1
            score_ring[k % score_ring.size] = exponential_last
        score_rows[slot] = exponential_last
        decided = exponential_last + machine.exponential + machine.reciprocal

        # Weighted sum: the first beat of a row needs a free output row.
        output_at = output_ring[finals % machine.output_rows] + 1
        earliest = max(decided, normalise_last + 1)
        first_probability = -1
        for i in range(row_beats):
            credit_at = probability_ring[probabilities % probability_ring.size] + 1
            normalise_last = max(earliest, credit_at)
            normalise_cursor = account(table, NORMALISE, normalise_cursor, earliest, earliest, normalise_last, 1)
            earliest = normalise_last + 1
            exponential_ring[(first_beat + i) % exponential_ring.size] = normalise_last
            input_at = max(normalise_last + machine.normalise, weighted_last + weighted_interval)
            data_at = value_arrival[bank, i] + 1
            weighted = max(input_at, data_at)
            if i == 0:
                weighted = max(weighted, output_at)
                first_probability = weighted
            weighted_cursor = account(
                table, WEIGHTED_SUM, weighted_cursor, input_at, data_at, weighted, weighted_interval
            )
            weighted_last = weighted
            probability_ring[probabilities % probability_ring.size] = weighted
            probabilities += 1
        exponential_rows[slot] = normalise_last
        value_free[bank] = weighted_last + weighted_interval
        left_last = next_ready(output.ready, max(weighted_last + weighted_latency, left_last + 1))
        output_ring[finals % machine.output_rows] = left_last
        size[OUTPUT] += (head_dim * shape.output_bits + 7) // 8
        if events.shape[0] > 0:
            events[line, DECIDED] = decided
            events[line, FIRST_PROBABILITY] = first_probability
            events[line, LAST_PROBABILITY] = weighted_last
            events[line, FILTERED] = again_at[row]
            events[line, LAST_WEIGHTED] = weighted_last
            events[line, LEFT] = left_last
        finals += 1

    end = max(left_last + 1, port.at[SERVED])
    account_end(
        table, end, port.at[CURSOR], product_cursor, fill_cursor, exponential_cursor, normalise_cursor, compact_cursor, weighted_cursor
    )  # fmt: skip
    return int(end)
