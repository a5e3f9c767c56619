"""The plane fetcher's function: which bursts it asks for and which beats it delivers.

A command gathers rows of one bit plane. Row `index` begins at byte `base + index x stride` and holds `elements`
elements of `element_bits[plane]` bits, packed from the lowest bit of its first byte on and padded to whole bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

# No burst crosses a multiple of this (AXI4 specification, section A3.4.1).
BOUNDARY_BYTES = 4096
# FIFO slots inside the unit, shared by models and RTL.
COMMAND_SLOTS = 2
INDEX_SLOTS = 2
JOB_SLOTS = 4
OUTPUT_SLOTS = 2


class FetchStatus(IntEnum):
    """Worst response to a command's bursts, coded like AXI's RRESP."""

    OK = 0
    SLAVE_ERROR = 2
    DECODE_ERROR = 3


class FetchCommand(NamedTuple):
    """One gather. With `gather` 1, `rows` indices follow on the index stream; with 0, rows 0 to `rows` - 1 are read."""

    base: int
    stride: int
    rows: int
    elements: int
    plane: int
    gather: int


class Burst(NamedTuple):
    """One INCR burst: address of its first word and how many words, 1 to 256."""

    address: int
    words: int


def _require(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, got {value}")


@dataclass(frozen=True)
class PlaneFetchShape:
    """Parameters of a plane fetcher.

    Attributes
    ----------
    lanes : elements of an output beat.
    element_bits : width of an element, for each plane.
    data_bits : width of the AXI data bus, a power of two from 8 to 1024.
    address_bits, id_bits : widths of ARADDR and ARID.
    stride_bits : width of a command's stride.
    max_rows : rows of a command; indices are below it.
    max_elements : elements of a row.
    max_burst_words : words of a burst, at most 256.
    max_outstanding : bursts asked for and not yet answered in full.
    buffer_words : words of the response buffer; a burst is asked for only when it fits there.
    merge_bytes : contiguous rows share a burst up to this many bytes; 0 keeps rows apart.

    Raises
    ------
    ValueError
        a parameter out of range.
    """

    lanes: int
    element_bits: tuple[int, ...]
    data_bits: int
    address_bits: int = 32
    id_bits: int = 1
    stride_bits: int = 16
    max_rows: int = 1024
    max_elements: int = 64
    max_burst_words: int = 16
    max_outstanding: int = 4
    buffer_words: int = 32
    merge_bytes: int = 0

    def __post_init__(self) -> None:
        _require("lanes", self.lanes, 1, 1024)
        _require("len(element_bits)", len(self.element_bits), 1, 8)
        for bits in self.element_bits:
            _require("element_bits", bits, 1, 64)
        if self.data_bits & (self.data_bits - 1) or not 8 <= self.data_bits <= 1024:
            raise ValueError(f"data_bits must be a power of two from 8 to 1024, got {self.data_bits}")
        _require("address_bits", self.address_bits, 12, 62)
        _require("id_bits", self.id_bits, 1, 32)
        _require("stride_bits", self.stride_bits, 1, 32)
        _require("max_rows", self.max_rows, 1, 1 << 20)
        _require("max_elements", self.max_elements, 1, 1 << 16)
        _require("max_burst_words", self.max_burst_words, 1, 256)
        _require("max_outstanding", self.max_outstanding, 1, 256)
        _require("buffer_words", self.buffer_words, self.max_burst_words, 1 << 16)
        _require("merge_bytes", self.merge_bytes, 0, 1 << 20)

    @property
    def data_bytes(self) -> int:
        """Bytes of a bus word."""
        return self.data_bits // 8

    @property
    def granule_bits(self) -> int:
        """Every amount of bits that enters or leaves the unpacker is a multiple of this divisor of 8."""
        return math.gcd(8, *(self.lanes * bits for bits in self.element_bits))

    @property
    def unpack_bits(self) -> int:
        """Size of the unpacker's buffer: a bus word beside the most that an output beat can take."""
        return self.data_bits + self.lanes * max(self.element_bits) + 8 - self.granule_bits

    @property
    def max_row_bytes(self) -> int:
        """Bytes of the longest row of the widest plane."""
        return self.row_bytes(self.max_elements, self.element_bits.index(max(self.element_bits)))

    def row_bytes(self, elements: int, plane: int) -> int:
        """Bytes of a row."""
        return (elements * self.element_bits[plane] + 7) // 8


class FetchPlan(NamedTuple):
    """What a sequence of commands does, in order; the times of all of it are in `topsieve_sim.timing.plane_fetch`."""

    command_rows: NDArray[np.int64]
    """[commands]"""
    command_gather: NDArray[np.bool_]
    """[commands], takes indices."""
    command_beats: NDArray[np.int64]
    """[commands], output beats, at least 1."""
    row_live: NDArray[np.bool_]
    """[rows], has bytes."""
    row_starts: NDArray[np.bool_]
    """[rows], begins a run of contiguous bytes."""
    row_closes: NDArray[np.bool_]
    """[rows], ends its run for certain; a run without such a row ends where the next one starts."""
    run_bursts: NDArray[np.int64]
    """[runs], bursts of each run."""
    burst_address: NDArray[np.int64]
    """[bursts], byte address, a multiple of the bus word."""
    burst_words: NDArray[np.int64]
    """[bursts], 1 to max_burst_words."""
    word_skip: NDArray[np.int64]
    """[words], bytes before the first wanted one."""
    word_bytes: NDArray[np.int64]
    """[words], wanted bytes, at least 1."""
    beat_bits: NDArray[np.int64]
    """[output beats], bits that the beat takes from the stream of wanted bytes, padding included."""

    @property
    def bursts(self) -> list[Burst]:
        """Every burst in order."""
        pairs = zip(self.burst_address.tolist(), self.burst_words.tolist(), strict=True)
        return [Burst(address, words) for address, words in pairs]


def plan_fetch(shape: PlaneFetchShape, commands: Sequence[FetchCommand], indices: Sequence[int]) -> FetchPlan:
    """The plan of `commands`, whose gathers take `indices` in order.

    Raises
    ------
    ValueError
        the number of indices is not what the commands take.
    """
    taken = sum(command.rows for command in commands if command.gather)
    if taken != len(indices):
        raise ValueError(f"{len(indices)} indices for commands that take {taken}")
    table = np.array(commands, np.int64).reshape(-1, len(FetchCommand._fields))
    return FetchPlan(
        table[:, 2].copy(),
        table[:, 5] != 0,
        *_plan(
            table,
            np.array(indices, np.int64),
            np.array(shape.element_bits, np.int64),
            shape.lanes,
            shape.data_bytes,
            shape.max_burst_words,
            shape.merge_bytes,
            (1 << shape.address_bits) - 1,
        ),
    )


@njit(cache=True)
def _plan(
    commands: NDArray[np.int64],
    indices: NDArray[np.int64],
    element_bits: NDArray[np.int64],
    lanes: int,
    data_bytes: int,
    max_burst_words: int,
    merge_bytes: int,
    address_mask: int,
) -> Any:
    rows, words, beats = 0, 0, 0
    for c in range(commands.shape[0]):
        size = (commands[c, 3] * element_bits[commands[c, 4]] + 7) // 8
        rows += commands[c, 2]
        words += commands[c, 2] * (size // data_bytes + 2)
        beats += max(1, commands[c, 2] * max(1, (commands[c, 3] + lanes - 1) // lanes))
    command_beats = np.empty(commands.shape[0], np.int64)
    live = np.empty(rows, np.bool_)
    starts = np.zeros(rows, np.bool_)
    closes = np.zeros(rows, np.bool_)
    run_start = np.empty(rows, np.int64)
    run_bytes = np.empty(rows, np.int64)
    beat_bits = np.empty(beats, np.int64)
    row, run, beat, used = 0, -1, 0, 0
    for c in range(commands.shape[0]):
        base, stride, count, elements, plane, gather = commands[c]
        bits = element_bits[plane]
        size = (elements * bits + 7) // 8
        row_beats = max(1, (elements + lanes - 1) // lanes)
        is_open = False
        for i in range(count):
            index = i
            if gather:
                index = indices[used]
                used += 1
            address = (base + index * stride) & address_mask
            live[row] = size > 0
            if size > 0:
                joins = (
                    is_open
                    and address == (run_start[run] + run_bytes[run]) & address_mask
                    and run_bytes[run] + size <= merge_bytes
                )
                if joins:
                    run_bytes[run] += size
                else:
                    starts[row] = True
                    run += 1
                    run_start[run] = address
                    run_bytes[run] = size
                closes[row] = i == count - 1 or run_bytes[run] + size > merge_bytes
                is_open = not closes[row]
            for _ in range(row_beats - 1):
                beat_bits[beat] = lanes * bits
                beat += 1
            beat_bits[beat] = size * 8 - (row_beats - 1) * lanes * bits
            beat += 1
            row += 1
        command_beats[c] = count * row_beats
        if count == 0:
            beat_bits[beat] = 0
            beat += 1
            command_beats[c] = 1

    run_bursts = np.zeros(run + 1, np.int64)
    burst_address = np.empty(words, np.int64)
    burst_words = np.empty(words, np.int64)
    word_skip = np.zeros(words, np.int64)
    word_bytes = np.empty(words, np.int64)
    burst, word = 0, 0
    for r in range(run + 1):
        skip = run_start[r] % data_bytes
        address = run_start[r] - skip
        left = (skip + run_bytes[r] + data_bytes - 1) // data_bytes
        for n in range(left):
            word_bytes[word + n] = data_bytes
        word_skip[word] = skip
        word_bytes[word] -= skip
        word_bytes[word + left - 1] -= left * data_bytes - skip - run_bytes[r]
        word += left
        while left > 0:
            length = min(left, max_burst_words, (BOUNDARY_BYTES - address % BOUNDARY_BYTES) // data_bytes)
            burst_address[burst] = address
            burst_words[burst] = length
            address = (address + length * data_bytes) & address_mask
            left -= length
            burst += 1
            run_bursts[r] += 1
    return (
        command_beats,
        live,
        starts,
        closes,
        run_bursts,
        burst_address[:burst],
        burst_words[:burst],
        word_skip[:word],
        word_bytes[:word],
        beat_bits[:beat],
    )


FetchBeat = tuple[tuple[int | None, ...], int, int, int, int, int]
"""(lanes, count, first of row, last of row, final of command, status); None in a lane at or beyond count, which may
hold anything; status is 0 but on the final beat."""
Memory = Callable[[int], tuple[int, int]]
"""Byte address of a bus word -> (word as an integer, RRESP)."""


def fetch_beats(
    shape: PlaneFetchShape, commands: Sequence[FetchCommand], indices: Sequence[int], memory: Memory
) -> list[FetchBeat]:
    """Every output beat: elements as unsigned integers, straight from the definition of a row.

    A row of no elements is one beat with count 0; so is a command of no rows.
    """
    beats: list[FetchBeat] = []
    following = iter(indices)
    mask = (1 << shape.address_bits) - 1
    for command in commands:
        bits = shape.element_bits[command.plane]
        size = shape.row_bytes(command.elements, command.plane)
        status = FetchStatus.OK
        if not command.rows:
            beats.append(((None,) * shape.lanes, 0, 1, 1, 1, 0))
        for row in range(command.rows):
            index = next(following) if command.gather else row
            start = command.base + index * command.stride
            packed = 0
            for place in range(size):
                address = (start + place) & mask
                lane = address % shape.data_bytes
                word, response = memory(address - lane)
                packed |= (word >> 8 * lane & 0xFF) << 8 * place
                if response >= FetchStatus.SLAVE_ERROR:
                    status = max(status, FetchStatus(response))
            elements = [packed >> bits * n & ((1 << bits) - 1) for n in range(command.elements)]
            pieces = [elements[n : n + shape.lanes] for n in range(0, command.elements, shape.lanes)] or [[]]
            for n, piece in enumerate(pieces):
                last = n == len(pieces) - 1
                final = last and row == command.rows - 1
                padding = (None,) * (shape.lanes - len(piece))
                beats.append(
                    ((*piece, *padding), len(piece), int(n == 0), int(last), int(final), int(status) if final else 0)
                )
    return beats
