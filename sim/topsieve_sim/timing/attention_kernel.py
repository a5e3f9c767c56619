"""Event times of one attention group, row by row; the law is written down in `docs/attention-unit.md`.

Rows are taken in the order in which the dot-product array starts them. Every event of a row depends on earlier events
of the same row and on events of rows started before it, never on a later one, so one sweep is exact.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.golden.attention_latency import AttentionLatencies
from topsieve_sim.timing.accounting import (
    BUSY,
    DOT_PRODUCT,
    DOWNSTREAM,
    EXPONENTIAL,
    INPUT,
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
from topsieve_sim.timing.memory_port import CURSOR, FETCHER, IDEAL, SERVED, MemoryPort, request
from topsieve_sim.timing.operand_requests import GroupAddresses, request_plane
from topsieve_sim.timing.output_port import OutputPort
from topsieve_sim.timing.pipeline import next_ready
from topsieve_sim.timing.row_writer import FREE, write_row

# Recorded events of a started row, see `docs/attention-unit.md`, section "Events".
(
    ROW,
    SECOND_PASS,
    PICK,
    FIRST_PRODUCT,
    LAST_PRODUCT,
    FILLED,
    DECIDED,
    FIRST_PROBABILITY,
    LAST_PROBABILITY,
    SELECTED,
    FILTERED,
    LAST_WEIGHTED,
    LEFT,
) = range(13)
EVENTS = 13

NEVER = np.int64(1) << np.int64(62)


@njit(cache=True)
def _ring(depth: int) -> NDArray[np.int64]:
    """The last `depth` events, `depth` rounded up to a power of two so that an index is a mask; -1 = none yet."""
    size = 1
    while size < depth:
        size *= 2
    return np.full(size, -1, np.int64)


@njit(cache=True)
def group_times(
    machine: AttentionLatencies,
    product_interval: int,
    weighted_interval: int,
    heads: int,
    queries: int,
    keys: int,
    kept: int,
    head_dim: int,
    query_bits: int,
    key_msb_bits: int,
    key_lsb_bits: int,
    value_bits: int,
    output_bits: int,
    progressive: bool,
    operand_banks: int,
    row_keys: NDArray[np.int64],
    lsb_flags: NDArray[np.bool_],
    select_cycles: NDArray[np.int64],
    flush_cycles: NDArray[np.int64],
    port: MemoryPort,
    query_port: MemoryPort,
    places: GroupAddresses,
    output: OutputPort,
    table: NDArray[np.int64],
    size: NDArray[np.int64],
    events: NDArray[np.int64],
) -> int:
    """Cycles of one group that starts in cycle 0; adds to `table` [UNITS, CAUSES] and `size` [BYTE_KINDS].

    `row_keys`, `lsb_flags`, `select_cycles` and `flush_cycles` are per row (head-major). `events` is [0, EVENTS] or has one line for
    each started row (rows plus rows with an LSB flag). `port` brings keys and values. `query_port` brings queries; with an
    ideal one they are there at once. `places` is for fetchers. `operand_banks` heads have their keys and values on chip at once.
    """
    lanes = machine.lanes
    banks = machine.banks
    product_latency = machine.dot_product + product_interval - 1
    weighted_latency = machine.weighted_sum + weighted_interval - 1
    rows = heads * queries
    select = kept < keys
    # With one query a head, the survivors are known before the value rows are fetched; with more, all are resident.
    gather = select and queries == 1
    widest = (keys + lanes - 1) // lanes

    product_ring = _ring(machine.dot_product_depth)
    product_mask = product_ring.size - 1
    probability_ring = _ring(machine.normalise_depth)
    probability_mask = probability_ring.size - 1
    products = 0
    probabilities = 0
    score_ring = _ring(machine.score_beats)
    score_mask = score_ring.size - 1
    exponential_ring = _ring(machine.exponential_beats)
    exponential_mask = exponential_ring.size - 1
    score_rows = np.full(machine.row_slots, -1, np.int64)
    exponential_rows = np.full(machine.row_slots, -1, np.int64)
    survivor_ring = np.full(machine.survivor_banks, -1, np.int64)
    value_ring = np.zeros(operand_banks, np.int64)
    output_ring = np.full(machine.output_rows, -1, np.int64)
    finals = 0

    key_arrival = np.zeros((operand_banks, widest), np.int64)
    lsb_arrival = np.zeros((operand_banks, widest), np.int64)
    value_arrival = np.zeros((operand_banks, widest), np.int64)
    head_bank = np.zeros(heads, np.int64)
    key_picked = np.full(heads, NEVER, np.int64)
    lsb_fetched = np.zeros(heads, np.bool_)
    left_in_head = np.full(heads, queries, np.int64)

    again = np.zeros(rows, np.int64)
    again_at = np.zeros(rows, np.int64)
    again_head = 0
    again_tail = 0

    # Whole keys at once are two planes for a fetcher; the ideal memory holds them as one.
    two_planes = not progressive and key_lsb_bits > 0 and port.kind != IDEAL
    fetched_queries = query_port.kind != IDEAL
    query_arrival = np.full(1, -1, np.int64)
    no_table = np.zeros((0, 0), np.int64)
    next_loaded = 0
    key_row_bits = head_dim * key_msb_bits
    lsb_row_bits = head_dim * key_lsb_bits
    value_row_bits = head_dim * value_bits
    for bank in range(min(operand_banks, heads)):
        head_bank[bank] = bank
        key_picked[bank] = request_plane(
            port, places, 0, lanes, KEY_MSB, bank, -1, keys, head_dim, key_row_bits, key_arrival[bank], table, size
        )
        if two_planes:
            request_plane(
                port, places, 0, lanes, KEY_LSB, bank, -1, keys, head_dim, lsb_row_bits, lsb_arrival[bank], table, size
            )
        if not gather:
            request_plane(
                port,
                places,
                0,
                lanes,
                VALUE,
                bank,
                -1,
                keys,
                head_dim,
                value_row_bits,
                value_arrival[bank],
                table,
                size,
            )
        next_loaded += 1

    product_free = 0
    picked_last = -1
    issue_ring = np.full(machine.issue_rows, -1, np.int64)
    product_cursor = 0
    fill_last = -1
    fill_cursor = 0
    exponential_last = -1
    exponential_cursor = 0
    normalise_last = -1
    normalise_cursor = 0
    topk_last = -1
    adapter_free = 0
    result_taken = -1
    filter_last = -1
    topk_rows = np.zeros(banks, np.int64)
    narrow = lanes > machine.topk_lanes
    topk_cursor = 0
    weighted_last = -weighted_interval
    weighted_cursor = 0
    left_last = -1
    next_row = 0
    started = 0

    while next_row < rows or again_head < again_tail:
        # Which row enters the issue queue next: a repeated row goes before a new one.
        repeat_at = again_at[again_head] if again_head < again_tail else NEVER
        fresh_at = key_picked[next_row // queries] + 1 if next_row < rows else NEVER
        pick = int(max(max(picked_last, issue_ring[started % machine.issue_rows]) + 1, min(repeat_at, fresh_at)))
        # A command holds what it offers, so the choice falls when the row's query can first be asked for.
        second = repeat_at <= pick
        if second:
            row = int(again[again_head])
            again_head += 1
        else:
            row = next_row
            next_row += 1
        head = row // queries
        bank = head_bank[head]
        size_in_keys = int(row_keys[row])
        count = (size_in_keys + lanes - 1) // lanes
        slot = started % machine.row_slots
        dropped = (not second) and lsb_flags[row]
        if fetched_queries:
            query_at = places.query[row] if query_port.kind == FETCHER else 0
            pick, amount = request(
                query_port, pick, 1, head_dim, head_dim * query_bits, 1, 0, query_at, 0, False, places.tokens,
                query_arrival, no_table,
            )  # fmt: skip
            size[QUERY] += amount
        elif not second:
            size[QUERY] += (head_dim * query_bits + 7) // 8
        picked_last = pick

        # Scores: one beat each interval, into the row buffer.
        earliest = max(pick + 1, product_free)
        first_product = earliest
        product = earliest
        for i in range(count):
            data_at = max(key_arrival[bank, i], query_arrival[0]) + 1
            if second or two_planes:
                data_at = max(data_at, lsb_arrival[bank, i] + 1)
            credit_at = product_ring[(products - machine.dot_product_depth) & product_mask] + 1
            product = int(max(earliest, max(data_at, credit_at)))
            if i == 0:
                first_product = product
            product_cursor = account(table, DOT_PRODUCT, product_cursor, earliest, data_at, product, product_interval)
            earliest = product + product_interval
            scored = product + product_latency
            fill = max(scored, max(fill_last, score_ring[(products - machine.score_beats) & score_mask]) + 1)
            if i == 0:
                fill = max(fill, score_rows[slot] + 1)
            fill_cursor = account(table, SOFTMAX_FILL, fill_cursor, scored, scored, fill, 1)
            product_ring[products & product_mask] = fill
            products += 1
            fill_last = fill
        product_free = earliest
        issue_ring[started % machine.issue_rows] = product

        # Exponentials and their sum, then the reciprocal and the decision.
        filled = fill_last + machine.softmax_fill
        first_beat = products - count
        earliest = max(filled, max(exponential_last, exponential_rows[slot]) + 1)
        for k in range(first_beat, products):
            exponential_last = max(earliest, exponential_ring[(k - machine.exponential_beats) & exponential_mask] + 1)
            exponential_cursor = account(table, EXPONENTIAL, exponential_cursor, filled, filled, exponential_last, 1)
            earliest = exponential_last + 1
            score_ring[k & score_mask] = exponential_last
        score_rows[slot] = exponential_last
        decided = exponential_last + machine.exponential + machine.reciprocal
        released = decided if progressive else product_free

        if dropped:
            normalise_last = max(decided, normalise_last + 1)
            normalise_cursor = account(table, NORMALISE, normalise_cursor, decided, decided, normalise_last, 1)
            for k in range(first_beat, products):
                exponential_ring[k & exponential_mask] = normalise_last
            exponential_rows[slot] = normalise_last
            again[again_tail] = row
            again_at[again_tail] = decided
            again_tail += 1
            if not lsb_fetched[head]:
                lsb_fetched[head] = True
                request_plane(
                    port, places, decided, lanes, KEY_LSB, head, -1, keys, head_dim, lsb_row_bits, lsb_arrival[bank],
                    table, size,
                )  # fmt: skip
            if events.shape[0] > 0:
                events[started, :] = -1
                events[started, ROW] = row
                events[started, SECOND_PASS] = 0
                events[started, PICK] = pick
                events[started, FIRST_PRODUCT] = first_product
                events[started, LAST_PRODUCT] = product
                events[started, FILLED] = fill_last
                events[started, DECIDED] = decided
            started += 1
            continue

        left_in_head[head] -= 1
        head_done = left_in_head[head] == 0
        final = finals % banks

        selected = -1
        filtered = -1
        first_probability = -1
        last_probability = -1
        values = (min(kept, size_in_keys) + lanes - 1) // lanes if gather else count
        if select:
            # Probabilities into the top-k engine, which holds the whole row.
            earliest = max(decided, normalise_last + 1)
            taken = survivors_at = starved = 0
            for i in range(count):
                credit_at = probability_ring[(probabilities - machine.normalise_depth) & probability_mask] + 1
                normalise_last = max(earliest, credit_at)
                normalise_cursor = account(table, NORMALISE, normalise_cursor, earliest, earliest, normalise_last, 1)
                earliest = normalise_last + 1
                exponential_ring[(first_beat + i) & exponential_mask] = normalise_last
                offered = normalise_last + machine.normalise
                entering = max(offered, topk_last + 1)
                if narrow:
                    taken = max(offered, adapter_free)
                    entering = max(taken, topk_last) + 1
                if i == 0:
                    survivors_at = survivor_ring[finals % machine.survivor_banks] + 1
                    starved = max(entering, topk_rows[final])
                    entering = max(starved, survivors_at)
                parts = 1
                if narrow:
                    held = min(size_in_keys - i * lanes, lanes)
                    parts = (held + machine.topk_lanes - 1) // machine.topk_lanes
                else:
                    taken = entering
                topk_last = entering + parts - 1
                adapter_free = topk_last + 1 if i == 0 and parts == 1 else topk_last
                probability_ring[probabilities & probability_mask] = taken
                probabilities += 1
                if i == 0:
                    first_probability = taken
            last_probability = taken
            exponential_rows[slot] = normalise_last
            # The selector works on one row while the next is loaded; the filter follows when the row before has passed.
            command = max(topk_last + machine.topk_command, result_taken + 1)
            selected = command + select_cycles[row]
            result_taken = max(selected, filter_last + 1)
            passes = (size_in_keys + machine.topk_lanes - 1) // machine.topk_lanes
            filter_last = result_taken + passes
            topk_rows[final] = filter_last + 1
            filtered = filter_last + machine.topk_filter + flush_cycles[row]
            # Selecting or filtering is work; before it, the engine waits for a survivor bank or for the row.
            blocked = max(min(survivors_at, command) - max(starved, topk_cursor), 0)
            table[TOPK, DOWNSTREAM] += blocked
            table[TOPK, INPUT] += max(command - topk_cursor, 0) - blocked
            table[TOPK, BUSY] += filter_last + 1 - max(command, topk_cursor)
            topk_cursor = filter_last + 1

        # The key bank of a finished head takes the next head, then the value rows follow.
        if head_done and next_loaded < heads:
            head_bank[next_loaded] = bank
            key_picked[next_loaded] = request_plane(
                port, places, released, lanes, KEY_MSB, next_loaded, -1, keys, head_dim, key_row_bits,
                key_arrival[bank], table, size,
            )  # fmt: skip
            if two_planes:
                request_plane(
                    port, places, released, lanes, KEY_LSB, next_loaded, -1, keys, head_dim, lsb_row_bits,
                    lsb_arrival[bank], table, size,
                )  # fmt: skip
        value_bank = bank
        if gather:
            value_bank = finals % operand_banks
            request_plane(
                port, places, max(filtered, value_ring[value_bank]), lanes, VALUE, head, row, min(kept, size_in_keys),
                head_dim, value_row_bits, value_arrival[value_bank], table, size,
            )  # fmt: skip

        # Weighted sum: the first beat of a row needs a free output row.
        output_at = output_ring[finals % machine.output_rows] + 1
        earliest = max(decided, normalise_last + 1)
        for i in range(values):
            if select:
                offered = filtered
            else:
                credit_at = probability_ring[(probabilities - machine.normalise_depth) & probability_mask] + 1
                normalise_last = max(earliest, credit_at)
                normalise_cursor = account(table, NORMALISE, normalise_cursor, earliest, earliest, normalise_last, 1)
                earliest = normalise_last + 1
                exponential_ring[(first_beat + i) & exponential_mask] = normalise_last
                offered = normalise_last + machine.normalise
            input_at = max(offered, weighted_last + weighted_interval)
            data_at = value_arrival[value_bank, i] + 1
            weighted = max(input_at, data_at)
            if i == 0:
                weighted = max(weighted, output_at)
            weighted_cursor = account(
                table, WEIGHTED_SUM, weighted_cursor, input_at, data_at, weighted, weighted_interval
            )
            weighted_last = weighted
            if not select:
                probability_ring[probabilities & probability_mask] = weighted
                probabilities += 1
                if i == 0:
                    first_probability = weighted
        if not select:
            exponential_rows[slot] = normalise_last
            last_probability = weighted_last
        survivor_ring[finals % machine.survivor_banks] = weighted_last
        value_ring[finals % operand_banks] = weighted_last + weighted_interval
        left_last = max(weighted_last + weighted_latency, left_last + 1)
        if output.writes:
            left_last = max(left_last, output.writer.at[FREE])
            write_row(output.writer, left_last, places.output[row], (head_dim * output_bits + 7) // 8)
        else:
            left_last = next_ready(output.ready, left_last)
        output_ring[finals % machine.output_rows] = left_last
        size[OUTPUT] += (head_dim * output_bits + 7) // 8
        finals += 1

        if head_done and next_loaded < heads:
            if not gather:
                request_plane(
                    port, places, weighted_last + weighted_interval, lanes, VALUE, next_loaded, -1, keys, head_dim,
                    value_row_bits, value_arrival[bank], table, size,
                )  # fmt: skip
            next_loaded += 1

        if events.shape[0] > 0:
            events[started, ROW] = row
            events[started, SECOND_PASS] = second
            events[started, PICK] = pick
            events[started, FIRST_PRODUCT] = first_product
            events[started, LAST_PRODUCT] = product
            events[started, FILLED] = fill_last
            events[started, DECIDED] = decided
            events[started, FIRST_PROBABILITY] = first_probability
            events[started, LAST_PROBABILITY] = last_probability
            events[started, SELECTED] = selected
            events[started, FILTERED] = filtered
            events[started, LAST_WEIGHTED] = weighted_last
            events[started, LEFT] = left_last
        started += 1

    # A row may need less than its head's keys and values; the memory finishes what was asked of it.
    end = max(left_last + 1, port.at[SERVED])
    account_end(
        table, end, port.at[CURSOR], product_cursor, fill_cursor, exponential_cursor, normalise_cursor, topk_cursor, weighted_cursor
    )  # fmt: skip
    return int(end)
