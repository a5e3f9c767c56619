"""A machine in the style of Token-Picker (Park et al., DAC 2024): keys come in bit chunks, and each key stops on its own.

The first chunk of a key bounds its score from both sides. The upper bound over the sum of all lower bounds known so far
bounds the final probability; a key whose bound is under the threshold asks for no further chunk and no value. Chunks are
asked for out of order: the next chunk of a surviving key goes first, else the first chunk of the next key, newest key
first. No key is ever dropped whose exact probability reaches the threshold.

Source: specification `accelerator`, section 5.3. The order of keys and the bookkeeping are ours.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.energy import load_technology
from topsieve_sim.rivals.heads import Head, HeadOperands
from topsieve_sim.rivals.machine import Basis, Fetch, HeadCost, Rival, at_least_one, attended


@njit(cache=True)
def pick_row(
    query: NDArray[np.int64],
    key: NDArray[np.int64],
    bias: NDArray[np.float64],
    scale: float,
    largest_score: float,
    chunk_bits: int,
    chunks: int,
    threshold: float,
    latency_slots: int,
    chunks_taken: NDArray[np.int64],
    kept: NDArray[np.bool_],
) -> int:
    """Run one row; fills `chunks_taken` int64 [keys] and `kept` bool [keys], returns the slots without a request.

    A slot carries one chunk of one key; its result is known `latency_slots` later. `largest_score` only keeps the
    exponentials in range.
    """
    keys, head_dim = key.shape
    positive = 0
    negative = 0
    for column in range(head_dim):
        positive += max(query[column], 0)
        negative += min(query[column], 0)
    lower = np.zeros(keys)  # what each key has added to the sum
    total = 0.0
    # Requests in flight and follow-ups that wait: rings of (key), in order of their time.
    flight_key = np.empty(keys, np.int64)
    flight_slot = np.empty(keys, np.int64)
    flight_head = 0
    flight_size = 0
    follow = np.empty(keys, np.int64)
    follow_head = 0
    follow_size = 0
    fresh = keys - 1
    slot = 0
    idle = 0
    while flight_size > 0 or follow_size > 0 or fresh >= 0:
        while flight_size > 0 and flight_slot[flight_head] + latency_slots <= slot:
            at = flight_key[flight_head]
            flight_head = (flight_head + 1) % keys
            flight_size -= 1
            rest_bits = chunk_bits * (chunks - chunks_taken[at])
            product = 0
            for column in range(head_dim):
                product += query[column] * (key[at, column] >> rest_bits << rest_bits)
            room = (1 << rest_bits) - 1
            low = math.exp((product + room * negative) * scale + bias[at] - largest_score)
            total += low - lower[at]
            lower[at] = low
            high = (product + room * positive) * scale + bias[at] - largest_score
            if total > 0.0 and threshold > 0.0 and high < math.log(threshold) + math.log(total):
                continue
            if chunks_taken[at] == chunks:
                kept[at] = True
            else:
                follow[(follow_head + follow_size) % keys] = at
                follow_size += 1
        if follow_size > 0:
            at = follow[follow_head]
            follow_head = (follow_head + 1) % keys
            follow_size -= 1
        elif fresh >= 0:
            at = fresh
            fresh -= 1
        else:
            at = -1
            if flight_size > 0:
                idle += 1
        if at >= 0:
            chunks_taken[at] += 1
            flight_key[(flight_head + flight_size) % keys] = at
            flight_slot[(flight_head + flight_size) % keys] = slot
            flight_size += 1
        slot += 1
    return idle


class TokenPicker(Rival):
    """Per-key progressive attention with a conservative bound of the final probability."""

    name: ClassVar[str] = "token_picker"
    title: ClassVar[str] = "Token-Picker style (DAC 2024)"
    basis: ClassVar[Basis] = Basis.ANALYTICAL
    source: ClassVar[str] = "specification `accelerator`, section 5.3"

    threshold: float = Field(0.001, ge=0, lt=1, description="probability under which a key is dropped; 0 drops none")
    chunks: int = Field(
        3, ge=1, le=16, description="chunks of a key; the last one is padded where they do not divide its bits"
    )

    def notes(self) -> tuple[str, ...]:
        return (
            f"{self.label}: a multiplier of the equal budget works on {self.chunks} chunks of a key element in a cycle",
        )

    def chunk_bits(self, config: AcceleratorConfig) -> int:
        """Bits of one chunk; the last chunk of a narrower key is padded with zeros."""
        return -(-config.formats.key_bits // self.chunks)

    def picked(
        self, head: Head, numbers: HeadOperands, config: AcceleratorConfig
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], int]:
        """Chunks taken int64 [rows, keys], keys that enter the softmax bool [rows, keys], and cycles nothing could fill."""
        chunk_bits = self.chunk_bits(config)
        # Keys are shifted up to whole chunks; the scale takes it back.
        shift = chunk_bits * self.chunks - config.formats.key_bits
        key = numbers.key << shift
        latency_slots = (
            math.ceil(config.memory.latency_cycles / self._slot_cycles(head, config)) if head.rows == 1 else 0
        )
        taken = np.zeros((head.rows, head.keys), np.int64)
        kept = np.zeros((head.rows, head.keys), np.bool_)
        idle = 0
        for row in range(head.rows):
            seen = head.row_keys[row]
            idle += pick_row(
                numbers.query[row], key[:seen], numbers.bias[:seen], numbers.scale[row] / (1 << shift),
                float(numbers.scores[row, :seen].max()), chunk_bits, self.chunks, self.threshold, latency_slots,
                taken[row, :seen], kept[row, :seen],
            )  # fmt: skip
        kept = at_least_one(kept, numbers.scores)
        taken[kept] = self.chunks
        # The first result's wait is the memory's latency, which the descriptor counts once.
        waiting = max(idle - latency_slots, 0) if head.rows == 1 else 0
        return taken, kept, math.ceil(waiting * self._slot_cycles(head, config))

    def cost(self, head: Head, config: AcceleratorConfig, learned: float) -> HeadCost:
        assert head.operands is not None
        taken, kept, wait_cycles = self.picked(head, head.operands, config)
        per_row, summed = taken.sum(axis=1), kept.sum(axis=1)
        pool = config.dot_product.multipliers * self.chunks
        score = -(-per_row * head.head_dim // pool)
        value = np.array([config.weighted_sum.interval_cycles(int(count), head.head_dim) for count in summed], np.int64)
        # A chunk or a value is read once, if any row wants it.
        key_chunks, value_rows = int(taken.max(axis=0).sum()), int(kept.any(axis=0).sum())
        return HeadCost(
            job_cycles=np.maximum(score, value),
            tail_cycles=int(np.minimum(score, value)[-1]),
            fetch_bits={
                Fetch.KEY: -(-key_chunks * head.head_dim * head.key_bits // self.chunks),
                Fetch.VALUE: value_rows * head.head_dim * head.value_bits,
            },
            scores=int((taken == self.chunks).sum()),
            score_macs=-(-int(per_row.sum()) * head.head_dim // self.chunks),
            weighted=int(summed.sum()),
            value_macs=int(summed.sum()) * head.head_dim,
            wait_cycles=wait_cycles,
            extra_pj={"bounds": self._bounds_pj(int(per_row.sum()), config)},
            output=attended(head.operands, kept),
        )

    def _slot_cycles(self, head: Head, config: AcceleratorConfig) -> float:
        """Cycles of one chunk: on the multipliers, and where a single row streams its keys, on the memory."""
        compute = head.head_dim / (config.dot_product.multipliers * self.chunks)
        chunk_bytes = head.head_dim * head.key_bits / self.chunks / 8
        return max(compute, chunk_bytes / config.memory.bytes_per_cycle) if head.rows == 1 else compute

    def _bounds_pj(self, chunks: int, config: AcceleratorConfig) -> float:
        """Two margins added, an exponential looked up, the running sum updated, the bound compared; each chunk."""
        table, formats = load_technology(config.technology), config.formats
        return chunks * (
            2 * table.value("adder", "add", formats.dot_product_bits(config.max_head_dim))
            + table.value("multiplier", "multiply", formats.exponential_bits, formats.exponential_bits)
            + 2 * table.value("adder", "add", formats.row_sum_bits(config.capacity))
            + table.value("comparator", "compare", formats.score_bits)
        )
