"""The plane fetcher's function: which bursts it asks for and which beats it delivers.

A command gathers rows of one bit plane. Row `index` begins at byte `base + index x stride` and holds `elements`
elements of `element_bits[plane]` bits, packed from the lowest bit of its first byte on and padded to whole bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

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
    return _plan(fetch_numbers(shape), table, np.array(indices, np.int64))


class FetchNumbers(NamedTuple):
    """The numbers of a shape as compiled code takes them."""

    element_bits: NDArray[np.int64]
    lanes: int
    data_bytes: int
    max_burst_words: int
    max_outstanding: int
    buffer_words: int
    merge_bytes: int
    address_mask: int
    unpack_bits: int


def fetch_numbers(shape: PlaneFetchShape) -> FetchNumbers:
    """The numbers of `shape`."""
    return FetchNumbers(
        np.array(shape.element_bits, np.int64),
        shape.lanes,
        shape.data_bytes,
        shape.max_burst_words,
        shape.max_outstanding,
        shape.buffer_words,
        shape.merge_bytes,
        (1 << shape.address_bits) - 1,
        shape.unpack_bits,
    )


# Places in `filled`: how much of a plan is there.
PLANNED_COMMANDS, PLANNED_ROWS, PLANNED_RUNS, PLANNED_BURSTS, PLANNED_WORDS, PLANNED_BEATS = range(6)
PLANNED_KINDS = 6


@njit(cache=True)
def plan_room(numbers: FetchNumbers, rows: int, elements: int, plane: int) -> tuple[int, int]:
    """Words and output beats that a command can have at most."""
    size = (elements * numbers.element_bits[plane] + 7) // 8
    words = rows * (size // numbers.data_bytes + 2)
    return words, max(1, rows * max(1, (elements + numbers.lanes - 1) // numbers.lanes))


@njit(cache=True)
def empty_plan(commands: int, rows: int, words: int, beats: int) -> FetchPlan:
    """Room for the plan of so many commands; bursts and runs are never more than words and rows."""
    return FetchPlan(
        np.zeros(commands, np.int64),
        np.zeros(commands, np.bool_),
        np.zeros(commands, np.int64),
        np.zeros(rows, np.bool_),
        np.zeros(rows, np.bool_),
        np.zeros(rows, np.bool_),
        np.zeros(rows, np.int64),
        np.zeros(words, np.int64),
        np.zeros(words, np.int64),
        np.zeros(words, np.int64),
        np.zeros(words, np.int64),
        np.zeros(beats, np.int64),
    )


@njit(cache=True)
def _plan(numbers: FetchNumbers, commands: NDArray[np.int64], indices: NDArray[np.int64]) -> FetchPlan:
    rows, words, beats, used = 0, 0, 0, 0
    for c in range(commands.shape[0]):
        more_words, more_beats = plan_room(numbers, commands[c, 2], commands[c, 3], commands[c, 4])
        rows += commands[c, 2]
        words += more_words
        beats += more_beats
    plan = empty_plan(commands.shape[0], rows, words, beats)
    filled = np.zeros(PLANNED_KINDS, np.int64)
    for c in range(commands.shape[0]):
        base, stride, count, elements, plane, gather = commands[c]
        mine = indices[used : used + (count if gather else 0)]
        plan_command(numbers, base, stride, count, elements, plane, gather != 0, mine, plan, filled)
        used += mine.size
    return FetchPlan(
        plan.command_rows,
        plan.command_gather,
        plan.command_beats,
        plan.row_live,
        plan.row_starts,
        plan.row_closes,
        plan.run_bursts[: filled[PLANNED_RUNS]],
        plan.burst_address[: filled[PLANNED_BURSTS]],
        plan.burst_words[: filled[PLANNED_BURSTS]],
        plan.word_skip[: filled[PLANNED_WORDS]],
        plan.word_bytes[: filled[PLANNED_WORDS]],
        plan.beat_bits[: filled[PLANNED_BEATS]],
    )


@njit(cache=True)
def plan_command(
    numbers: FetchNumbers,
    base: int,
    stride: int,
    count: int,
    elements: int,
    plane: int,
    gather: bool,
    indices: NDArray[np.int64],
    plan: FetchPlan,
    filled: NDArray[np.int64],
) -> None:
    """Append one command to `plan`; `filled` int64 [PLANNED_KINDS] says how much of it is there. Runs end with commands."""
    lanes = numbers.lanes
    bits = numbers.element_bits[plane]
    size = (elements * bits + 7) // 8
    row_beats = max(1, (elements + lanes - 1) // lanes)
    command, row, run = filled[PLANNED_COMMANDS], filled[PLANNED_ROWS], filled[PLANNED_RUNS] - 1
    beat = filled[PLANNED_BEATS]
    run_start, run_bytes = 0, 0
    is_open = False
    for i in range(count):
        index = indices[i] if gather else i
        address = (base + index * stride) & numbers.address_mask
        plan.row_live[row] = size > 0
        if size > 0:
            joins = (
                is_open
                and address == (run_start + run_bytes) & numbers.address_mask
                and run_bytes + size <= numbers.merge_bytes
            )
            if joins:
                run_bytes += size
            else:
                if is_open:
                    _plan_run(numbers, run, run_start, run_bytes, plan, filled)
                plan.row_starts[row] = True
                run += 1
                run_start = address
                run_bytes = size
            plan.row_closes[row] = i == count - 1 or run_bytes + size > numbers.merge_bytes
            is_open = not plan.row_closes[row]
            if not is_open:
                _plan_run(numbers, run, run_start, run_bytes, plan, filled)
        for _ in range(row_beats - 1):
            plan.beat_bits[beat] = lanes * bits
            beat += 1
        plan.beat_bits[beat] = size * 8 - (row_beats - 1) * lanes * bits
        beat += 1
        row += 1
    if count == 0:
        plan.beat_bits[beat] = 0
        beat += 1
    plan.command_rows[command] = count
    plan.command_gather[command] = gather
    plan.command_beats[command] = beat - filled[PLANNED_BEATS]
    filled[PLANNED_COMMANDS] = command + 1
    filled[PLANNED_ROWS] = row
    filled[PLANNED_RUNS] = run + 1
    filled[PLANNED_BEATS] = beat


@njit(cache=True)
def _plan_run(
    numbers: FetchNumbers, run: int, start: int, size: int, plan: FetchPlan, filled: NDArray[np.int64]
) -> None:
    """The bursts and words of one run of contiguous bytes."""
    data_bytes = numbers.data_bytes
    burst, word = filled[PLANNED_BURSTS], filled[PLANNED_WORDS]
    skip = start % data_bytes
    address = start - skip
    left = (skip + size + data_bytes - 1) // data_bytes
    plan.word_bytes[word : word + left] = data_bytes
    plan.word_skip[word] = skip
    plan.word_bytes[word] -= skip
    plan.word_bytes[word + left - 1] -= left * data_bytes - skip - size
    filled[PLANNED_WORDS] = word + left
    while left > 0:
        length = min(left, numbers.max_burst_words, (BOUNDARY_BYTES - address % BOUNDARY_BYTES) // data_bytes)
        plan.burst_address[burst] = address
        plan.burst_words[burst] = length
        address = (address + length * data_bytes) & numbers.address_mask
        left -= length
        burst += 1
        plan.run_bursts[run] += 1
    filled[PLANNED_BURSTS] = burst


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
