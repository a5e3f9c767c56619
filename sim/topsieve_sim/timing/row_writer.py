"""Cycles of the row writer, row by row: whoever knows when a row comes asks for it and learns when the next can come.

Rows r, bursts b, words w are counted over all rows; `address` is the AW handshake, `word` the W handshake, `response` that
of B, M is `max_outstanding`.

    taken[r]    = max(arrival, word[last of r-1] + 1)
    address[b]  = first ready cycle >= max(taken[r] + ROW_TO_ADDRESS or word[last of b-1] + 1, response[b-M] + 1)
    word[w]     = first ready cycle >= max(address[b] + 1, word[w-1] + 1)
    response[b] = max(word[last of b] + 1 + latency + delay[b], response[b-1] + 1)       the writer is always ready
    idle        = max(word, response) + 1
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.golden.accelerator_latency import ROW_TO_ADDRESS
from topsieve_sim.golden.row_write import RowWriteShape, burst_length
from topsieve_sim.timing.pipeline import next_ready

# Places in `RowWriter.at`: bursts and words so far, the cycle from which the next row can be taken, the last response.
BURSTS, WORDS, FREE, RESPONDED = range(4)


class RowWriter(NamedTuple):
    """A writer and its running state; made by `row_writer`, used once."""

    data_bytes: int
    max_burst_words: int
    address_ready: NDArray[np.bool_]
    word_ready: NDArray[np.bool_]
    latency_cycles: int
    delay: NDArray[np.int64]
    responses: NDArray[np.int64]
    """int64 [max_outstanding], the B handshakes of the last bursts."""
    address: NDArray[np.int64]
    """int64, the AW handshake of each burst, as far as there is room."""
    word: NDArray[np.int64]
    """int64, the W handshake of each word, likewise."""
    response: NDArray[np.int64]
    """int64, the B handshake of each burst, likewise."""
    at: NDArray[np.int64]


def row_writer(
    shape: RowWriteShape,
    latency_cycles: int = 0,
    *,
    address_ready: NDArray[np.bool_] | None = None,
    word_ready: NDArray[np.bool_] | None = None,
    delay: NDArray[np.int64] | None = None,
    bursts: int = 0,
    words: int = 0,
) -> RowWriter:
    """A writer that has nothing to do.

    Parameters
    ----------
    latency_cycles : from the cycle after a burst's last word to its response.
    address_ready, word_ready : bool [cycles], in which cycles the memory takes them; always beyond their end.
    delay : int64 [bursts], extra cycles before a burst's response; 0 beyond its end.
    bursts, words : of how many the cycles are noted.
    """
    return RowWriter(
        shape.data_bytes,
        shape.max_burst_words,
        np.zeros(0, np.bool_) if address_ready is None else address_ready,
        np.zeros(0, np.bool_) if word_ready is None else word_ready,
        latency_cycles,
        np.zeros(0, np.int64) if delay is None else delay,
        np.full(shape.max_outstanding, -1, np.int64),
        np.full(bursts, -1, np.int64),
        np.full(words, -1, np.int64),
        np.full(bursts, -1, np.int64),
        np.array([0, 0, 0, -1], np.int64),
    )


@njit(cache=True)
def write_row(writer: RowWriter, taken: int, address: int, size: int) -> int:
    """Write `size` bytes, at least 1, from byte `address` on; the first cycle in which the next row can be taken.

    `taken` is the cycle of the row's handshake, at least what the row before returned.
    """
    skip = address % writer.data_bytes
    left = (skip + size + writer.data_bytes - 1) // writer.data_bytes
    address -= skip
    cycle = taken + ROW_TO_ADDRESS
    at = writer.at
    while left > 0:
        burst = at[BURSTS]
        slot = burst % writer.responses.size
        cycle = next_ready(writer.address_ready, max(cycle, writer.responses[slot] + 1))
        if burst < writer.address.size:
            writer.address[burst] = cycle
        length = burst_length(address, left, writer.data_bytes, writer.max_burst_words)
        for _ in range(length):
            cycle = next_ready(writer.word_ready, cycle + 1)
            if at[WORDS] < writer.word.size:
                writer.word[at[WORDS]] = cycle
            at[WORDS] += 1
        answered = cycle + 1 + writer.latency_cycles
        if burst < writer.delay.size:
            answered += writer.delay[burst]
        answered = max(answered, at[RESPONDED] + 1)
        at[RESPONDED] = answered
        writer.responses[slot] = answered
        if burst < writer.response.size:
            writer.response[burst] = answered
        at[BURSTS] += 1
        left -= length
        address += length * writer.data_bytes
        cycle += 1
    at[FREE] = cycle
    return int(cycle)


@njit(cache=True)
def idle_cycle(writer: RowWriter) -> int:
    """The first cycle in which every row so far is written and every response is in."""
    return int(max(writer.at[FREE], writer.at[RESPONDED] + 1))
